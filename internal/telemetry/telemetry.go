// Package telemetry records decisions: one log line and one count each. Its catalogue
// ([Catalogue]) has all metrics of the program, also those that others tell.
//
// Labels come from closed lists only (policies of the configuration, kinds,
// reasons), never from a request, so their number is bounded.
package telemetry

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/flood"
	"github.com/gatehouse-auth/gatehouse/internal/logging"
)

// Recorder logs and counts decisions. It implements the doors' Recorder
// interfaces and is safe for concurrent use.
type Recorder struct {
	log       *slog.Logger
	decisions *prometheus.CounterVec
	observed  *prometheus.CounterVec
	degraded  *prometheus.CounterVec
	uncounted *prometheus.CounterVec
	canceled  prometheus.Counter
	duration  *prometheus.HistogramVec
	meters    sync.Map // of *meters by labels: looking them up by text costs more
	floods    *flood.Bound[floodKind]
	sample    atomic.Uint32 // of a million requests that were allowed, how many are logged at info
}

// labels are those of a decision. All of them come from closed lists.
type labels struct {
	policy   string
	kind     authz.Kind
	decision string
	reason   authz.Reason
}

type meters struct {
	decisions prometheus.Counter
	duration  prometheus.Observer
}

func (r *Recorder) metersOf(l labels) *meters {
	if m, ok := r.meters.Load(l); ok {
		return m.(*meters)
	}
	m, _ := r.meters.LoadOrStore(l, &meters{
		decisions: r.decisions.WithLabelValues(l.policy, string(l.kind), l.decision, string(l.reason)),
		duration:  r.duration.WithLabelValues(l.decision),
	})
	return m.(*meters)
}

// NewRecorder returns a recorder whose metrics are registered with reg.
func NewRecorder(log *slog.Logger, reg prometheus.Registerer) *Recorder {
	r := &Recorder{
		log:       log,
		floods:    newFloods(log),
		decisions: Decisions.counters(), observed: ObservedDenials.counters(), degraded: DegradedDecisions.counters(),
		uncounted: RateLimitUncounted.counters(), canceled: ChecksCanceled.counter(), duration: DecisionDuration.histograms(),
	}
	for _, decision := range []string{"allow", "deny"} {
		r.duration.WithLabelValues(decision)
	}
	reg.MustRegister(r.decisions, r.observed, r.degraded, r.uncounted, r.canceled, r.duration)
	return r
}

// Record implements the doors' interface: it logs a refusal at info level
// (what only an operator can mend at error, an outage at warn), a request that was
// allowed at debug level, and at info level where that was by leave of mode: observe
// or on_store_outage; and never a credential or a query. Of who is calling, or whose
// credential was refused, it has the user's id, and the handle by which
// 'gatehouse sessions show' finds the session or the refresh family.
//
// During an outage or overload each request would have its line, and the lines would
// be the next overload: of those the first ones of each second are logged, and how
// many were not. [Recorder.Flush] tells the last of these numbers.
//
// What was not known in time for a caller who went away before is no outage, and no
// decision: it is counted by itself, and logged at debug level.
func (r *Recorder) Record(ctx context.Context, req *authz.Request, d *authz.Decision, err error, took time.Duration) {
	decision := "allow"
	if err != nil {
		decision = "deny"
	}
	policy := ""
	if d.Policy != nil {
		policy = d.Policy.Name
	}
	canceled := leftEarly(ctx, d, err)
	if canceled {
		r.canceled.Inc()
	} else {
		r.count(policy, decision, d, err, took)
	}

	level := levelOf(d, err)
	sampled := level == slog.LevelDebug && r.samples(req)
	switch {
	case canceled:
		level = slog.LevelDebug
	case sampled:
		level = slog.LevelInfo
	}
	if !r.log.Enabled(ctx, level) {
		return
	}
	if kind := floodOf(d, level); kind != "" && !canceled && !r.floods.Passes(floodKind{level, kind}) {
		return
	}
	attrs := []slog.Attr{
		slog.String("decision", decision),
		slog.String("reason", string(d.Reason)),
		slog.String("policy", policy),
		slog.String("credential", string(d.Kind)),
		slog.String("method", clip(req.Method)),
		slog.String("host", clip(req.Authority)),
		slog.String("path", clip(req.RawPath)),
		slog.Duration("took", took),
	}
	if id, ok := req.Headers.Header("x-request-id"); ok {
		attrs = append(attrs, slog.String("request_id", clip(id)))
	}
	user, handle := whose(d, err)
	if user != "" {
		attrs = append(attrs, slog.String("user", clip(user)))
	}
	if handle != "" {
		attrs = append(attrs, slog.String("session", handle))
	}
	if sampled {
		attrs = append(attrs, slog.Bool("sampled", true))
	}
	if canceled {
		attrs = append(attrs, slog.Bool("canceled", true))
	}
	if d.Observed != nil {
		attrs = append(attrs, slog.String("would_deny", clip(d.Observed.Error())))
	}
	if d.Principal != nil && d.Principal.Degraded != "" {
		attrs = append(attrs, slog.String("degraded", string(d.Principal.Degraded)))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", clip(err.Error())))
	} else if d.Quota.Uncounted != nil {
		attrs = append(attrs, slog.String("uncounted", clip(d.Quota.Uncounted.Error())))
	}
	r.log.LogAttrs(ctx, level, "check", attrs...)
}

// count counts a decision.
func (r *Recorder) count(policy, decision string, d *authz.Decision, err error, took time.Duration) {
	m := r.metersOf(labels{policy, d.Kind, decision, d.Reason})
	m.decisions.Inc()
	m.duration.Observe(took.Seconds())
	if d.Observed != nil {
		r.observed.WithLabelValues(policy, string(authz.ReasonOf(d.Observed))).Inc()
	}
	if d.Principal != nil && d.Principal.Degraded != "" {
		r.degraded.WithLabelValues(policy, string(d.Principal.Degraded)).Inc()
	}
	if err == nil && d.Quota.Uncounted != nil {
		r.uncounted.WithLabelValues(d.Quota.Limit).Inc()
	}
}

// leftEarly reports whether something was not known for a caller who had gone away
// early: the store or an issuer was not waited for. Nobody has that answer, and it says
// nothing about them. Who goes when most of their time is over has been kept waiting.
func leftEarly(ctx context.Context, d *authz.Decision, err error) bool {
	why := cmp.Or(err, d.Observed)
	switch {
	case why != nil && slices.Contains(outages, authz.ReasonOf(why)):
	case d.Principal != nil && d.Principal.Degraded != "", err == nil && d.Quota.Uncounted != nil:
	default:
		return false
	}
	deadline, ok := ctx.Deadline()
	return errors.Is(ctx.Err(), context.Canceled) && (!ok || time.Now().Before(deadline))
}

// whose says who is calling, or whose credential was refused, as far as it is known.
func whose(d *authz.Decision, err error) (user, handle string) {
	if d.Principal != nil {
		return d.Principal.ID, d.Principal.Handle()
	}
	if err == nil {
		err = d.Observed
	}
	return authz.Suspect(err)
}

// Flush logs how many lines of this second were left out, instead of when it is
// over. It is for the end of the program.
func (r *Recorder) Flush() { r.floods.Flush() }

// What deserves more attention than a refusal usually does: mistakes that only
// an operator can mend, and outages.
var (
	mistakes = []authz.Reason{authz.ReasonPolicyUnknown, authz.ReasonNoAudience, authz.ReasonInternal, authz.ReasonProfileMalformed, authz.ReasonIdentityTooLong}
	outages  = []authz.Reason{authz.ReasonStoreUnavailable, authz.ReasonIssuerUnavailable, authz.ReasonOverloaded}
)

func levelOf(d *authz.Decision, err error) slog.Level {
	switch {
	case slices.Contains(mistakes, d.Reason):
		return slog.LevelError
	case slices.Contains(outages, d.Reason), err == nil && d.Quota.Uncounted != nil:
		return slog.LevelWarn
	case err != nil || d.Observed != nil || d.Principal != nil && d.Principal.Degraded != "":
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// floodOf names what a line is one of many about, "" where it is about its request:
// who is refused, or would be, for something of their own has a line, also during an
// outage.
func floodOf(d *authz.Decision, level slog.Level) string {
	why := d.Reason
	if d.Observed != nil {
		why = authz.ReasonOf(d.Observed)
	}
	switch {
	case slices.Contains(outages, why):
		return string(why)
	case why != authz.ReasonAuthenticated && why != authz.ReasonAnonymous:
		return ""
	case d.Principal != nil && d.Principal.Degraded != "":
		return string(d.Principal.Degraded)
	case level == slog.LevelWarn:
		return "uncounted"
	}
	return ""
}

// clip bounds what a request can make the log hold. A secret of which the end is missing
// would no longer look like one.
func clip(s string) string {
	const most = 512
	if len(s) <= most {
		return s
	}
	if s = logging.WithoutSecrets(s); len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// NewRegistry returns a registry that holds the Go runtime's and the
// process's own metrics and the build's version.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	build := ReadBuild()
	info := BuildInfo.GaugeVec()
	info.WithLabelValues(build.Version, build.Revision, build.Go).Set(1)
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info)
	return reg
}
