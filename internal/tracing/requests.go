package tracing

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/tracing/traced"
)

// Attributes of a decision.
const (
	attrDecision   = attribute.Key("gatehouse.decision") // allow or deny
	attrReason     = attribute.Key("gatehouse.reason")
	attrPolicy     = attribute.Key("gatehouse.policy")
	attrCredential = attribute.Key("gatehouse.credential")
	attrWouldDeny  = attribute.Key("gatehouse.would_deny") // the reason, under mode: observe
	attrDegraded   = attribute.Key("gatehouse.degraded")   // the leave of on_store_outage
)

const checkMethod = "envoy.service.auth.v3.Authorization/Check"

var checkOptions = []trace.SpanStartOption{
	trace.WithSpanKind(trace.SpanKindServer),
	trace.WithAttributes(
		semconv.RPCSystemNameGRPC, semconv.RPCMethodKey.String(checkMethod),
		semconv.RPCResponseStatusCodeKey.String("OK"), // always: a refusal is an answer
	),
}

// Start implements the check door's Tracer interface.
func (t *Tracer) Start(ctx context.Context) (_ context.Context, end func()) {
	if traced.Unrecorded(ctx) {
		return ctx, noEnd
	}
	parent := traced.Incoming(ctx)
	switch {
	case parent.IsValid() && !parent.IsSampled(), !parent.IsValid() && !t.begins():
		return ctx, noEnd
	case parent.IsValid():
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	ctx, s := t.tracer.Start(ctx, checkMethod, checkOptions...)
	return ctx, func() { s.End() }
}

// Recorder is that of the doors.
type Recorder interface {
	Record(ctx context.Context, r *authz.Request, d *authz.Decision, err error, took time.Duration)
}

// WithDecisions returns a recorder that tells next, and the request's span.
func WithDecisions(next Recorder) Recorder { return recorder{next} }

type recorder struct{ next Recorder }

// Record implements [Recorder].
func (r recorder) Record(ctx context.Context, req *authz.Request, d *authz.Decision, err error, took time.Duration) {
	if r.next != nil {
		r.next.Record(ctx, req, d, err, took)
	}
	s := trace.SpanFromContext(ctx)
	if !s.IsRecording() {
		return
	}
	decision, why := "allow", d.Reason
	if err != nil {
		decision = "deny"
	}
	s.SetAttributes(attrDecision.String(decision), attrReason.String(string(d.Reason)))
	if d.Policy != nil {
		s.SetAttributes(attrPolicy.String(d.Policy.Name))
	}
	if d.Kind != "" {
		s.SetAttributes(attrCredential.String(string(d.Kind)))
	}
	if d.Observed != nil {
		why = authz.ReasonOf(d.Observed)
		s.SetAttributes(attrWouldDeny.String(string(why)))
	}
	if d.Principal != nil && d.Principal.Degraded != "" {
		s.SetAttributes(attrDegraded.String(string(d.Principal.Degraded)))
	}
	if slices.Contains(faults, why) {
		s.SetStatus(codes.Error, string(why))
	}
}

// faults are the reasons that are ours, or the operator's. That a client may not pass is
// no error.
var faults = []authz.Reason{
	authz.ReasonInternal, authz.ReasonPolicyUnknown, authz.ReasonNoAudience, authz.ReasonProfileMalformed, authz.ReasonIdentityTooLong,
	authz.ReasonStoreUnavailable, authz.ReasonIssuerUnavailable, authz.ReasonOverloaded, authz.ReasonNotConfirmed, authz.ReasonAuditUnavailable,
}

// Request begins the span of a request of the http listener. What it returns takes the
// place of w and r; end, which is to be deferred, ends the span: a panic that comes by is
// an error of it, and goes on. route is its path, where that is one of a closed
// list, else ""; who knows it better names the span later. believed is whether whoever
// asks may say what is recorded: its traceparent is then the parent, else no more than a
// link.
func (t *Tracer) Request(w http.ResponseWriter, r *http.Request, route string, believed bool) (_ http.ResponseWriter, _ *http.Request, end func()) {
	ctx := r.Context()
	remote := traced.Remote(r.Header.Values("traceparent")) //nolint:contextcheck // what is read is all
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}
	switch {
	case remote.IsValid() && believed:
		ctx = trace.ContextWithRemoteSpanContext(ctx, remote)
		if !remote.IsSampled() {
			return w, r.WithContext(ctx), noEnd // the log tells of it
		}
	case !t.begins():
		return w, r, noEnd
	case remote.IsValid():
		options = append(options, trace.WithLinks(trace.Link{SpanContext: remote}))
	}
	method := traced.Method(r.Method)
	name := method
	attributes := []attribute.KeyValue{semconv.HTTPRequestMethodKey.String(method)}
	if route != "" {
		name += " " + route
		attributes = append(attributes, semconv.HTTPRoute(route))
	}
	ctx, s := t.tracer.Start(ctx, name, append(options, trace.WithAttributes(attributes...))...)
	watched := &statusWriter{ResponseWriter: w}
	return watched, r.WithContext(ctx), func() {
		defer s.End()
		p := recover()
		if watched.status == 0 && p == nil {
			watched.status = http.StatusOK
		}
		if watched.status != 0 {
			s.SetAttributes(semconv.HTTPResponseStatusCode(watched.status))
		}
		if p != nil {
			s.SetAttributes(semconv.ErrorTypeKey.String("panic"))
			s.SetStatus(codes.Error, "panic")
			panic(p)
		}
		if watched.status >= http.StatusInternalServerError {
			code := strconv.Itoa(watched.status)
			s.SetAttributes(semconv.ErrorTypeKey.String(code))
			s.SetStatus(codes.Error, code)
		}
	}
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK { // those below are announcements
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Flush implements [http.Flusher].
func (w *statusWriter) Flush() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
