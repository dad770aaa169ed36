package telemetry

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Type is what kind of number a metric is.
type Type string

// The types.
const (
	TypeCounter   Type = "counter"
	TypeGauge     Type = "gauge"
	TypeHistogram Type = "histogram"
)

// Metric says what a metric is. The metrics themselves are made of it, and so is
// docs/metrics.md, and dashboards and rules are checked against it.
type Metric struct {
	Name   string
	Type   Type
	Unit   string // seconds or bytes, which the name ends with; "" for a number of things
	Help   string
	Labels []Label
	Use    string // what to do with it, beyond Help; for the page; may be ""

	buckets []float64
}

// Label is a label of a metric. Its values are a closed list, or names that stand in
// the configuration: never anything of a request.
type Label struct {
	Name   string
	Values []string // all of them; nil: From
	From   string   // what of the configuration, or of the program, has the values
}

// Group is metrics that belong together.
type Group struct {
	Title   string
	Metrics []*Metric
}

func (m *Metric) labels() []string {
	names := make([]string, len(m.Labels))
	for i, l := range m.Labels {
		names[i] = l.Name
	}
	return names
}

func (m *Metric) counter() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: m.Name, Help: m.Help, Unit: m.Unit})
}

func (m *Metric) counters() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.Name, Help: m.Help, Unit: m.Unit}, m.labels())
}

func (m *Metric) histograms() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.Name, Help: m.Help, Unit: m.Unit, Buckets: m.buckets}, m.labels())
}

// GaugeVec makes a gauge with labels of it.
func (m *Metric) GaugeVec() *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: m.Name, Help: m.Help, Unit: m.Unit}, m.labels())
}

// Gauge makes a gauge of it.
func (m *Metric) Gauge() prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: m.Name, Help: m.Help, Unit: m.Unit})
}

// GaugeFunc makes a gauge of it whose value a function knows.
func (m *Metric) GaugeFunc(value func() float64) prometheus.GaugeFunc {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: m.Name, Help: m.Help, Unit: m.Unit}, value)
}

// CounterVec makes a counter with labels of it. Those whose values are a closed list
// begin with zero, so that the first event shows as an increase.
func (m *Metric) CounterVec() *prometheus.CounterVec {
	c := m.counters()
	if len(m.Labels) == 1 {
		for _, v := range m.Labels[0].Values {
			c.WithLabelValues(v)
		}
	}
	return c
}

// Desc describes it, for collectors.
func (m *Metric) Desc() *prometheus.Desc {
	return prometheus.V2.NewDesc(m.Name, m.Help, prometheus.UnconstrainedLabels(m.labels()), nil, prometheus.WithUnit(m.Unit))
}

// Value is the metric as a collector tells it: a counter or gauge with these values of
// its labels.
func (m *Metric) Value(d *prometheus.Desc, value float64, labels ...string) prometheus.Metric {
	of := prometheus.GaugeValue
	if m.Type == TypeCounter {
		of = prometheus.CounterValue
	}
	return prometheus.MustNewConstMetric(d, of, value, labels...)
}

func texts[T ~string](all []T) []string {
	texts := make([]string, len(all))
	for i, one := range all {
		texts[i] = string(one)
	}
	return texts
}

// closed is a label with a closed list of values.
func closed(name string, values ...string) Label { return Label{Name: name, Values: values} }

var (
	policyLabel = Label{Name: "policy", From: "`policies` of the configuration; empty where none was chosen"}
	limitLabel  = Label{Name: "limit", From: "`rate_limits` of the configuration"}
	issuerLabel = Label{Name: "issuer", From: "`issuers` of the configuration that publish their keys over HTTP"}
	reasonLabel = closed("reason", texts(authz.Reasons())...)
	callLabel   = closed("call",
		"login", "token", "refresh", "logout", "revoke_all", "revoke", "introspect",
		"me", "switch_organization", "sessions", "end_session", "create_session",
		"find_users", "user_sessions", "change_user", "end_user_session",
		"decisions", "status", "oidc_login", "oidc_callback", "oidc_logout", "feed", "jwks", "openapi", "console", "unknown")
)

// Buckets of histograms, in seconds.
var (
	decisionBuckets = []float64{25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1}
	callBuckets     = []float64{1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 5, 15}
)

// The steps of a decision that are timed: values of [DecisionStepDuration]'s label.
const (
	StepPolicy    = string(authz.StagePolicy)
	StepSession   = "session"
	StepToken     = "token"
	StepStanding  = "standing"
	StepCondition = string(authz.StageCondition)
	StepLimit     = string(authz.StageLimit)
)

// Decisions.
var (
	Decisions = &Metric{
		Name: "gatehouse_decisions_total", Type: TypeCounter,
		Help: "Decided requests, by policy, credential kind, decision and reason.",
		Labels: []Label{
			policyLabel,
			{Name: "credential", Values: []string{"", string(authz.KindSession), string(authz.KindBearer), string(authz.KindAPIKey)}},
			closed("decision", "allow", "deny"), reasonLabel,
		},
		Use: "The first thing to look at. `store_unavailable`, `issuer_unavailable`, `overloaded`, `profile_malformed` and `internal` are 503s, by which availability is measured; the others are about the client. `policy_unknown` and `no_audience` are mistakes in a configuration; `no_policy` is one where every path should have a policy. What each [reason](reference/reasons.md) means, and what to do.",
	}
	DecisionDuration = &Metric{
		Name: "gatehouse_decision_duration_seconds", Type: TypeHistogram, Unit: "seconds", buckets: decisionBuckets,
		Help:   "Time from a check's arrival to its reply, its wait for a processor included.",
		Labels: []Label{closed("decision", "allow", "deny")},
		Use:    "What the gateway waits for, without the network between, and the same as `took` in the log. Answers from memory are in the first buckets, unless there is too much to do: a check arrives when its headers are read, and waits counted are those of a millisecond and more. A question of forward-auth counts from when its handler begins.",
	}
	ChecksCanceled = &Metric{
		Name: "gatehouse_checks_canceled_total", Type: TypeCounter,
		Help: "Checks whose caller went away while the store or an issuer was waited for, or was to be: they are no decisions, and no outage.",
		Use:  "Clients that leave pages, or open requests and reset them. Most checks are decided before that can happen, and are counted among the decisions.",
	}
	DecisionStepDuration = &Metric{
		Name: "gatehouse_decision_step_duration_seconds", Type: TypeHistogram, Unit: "seconds", buckets: decisionBuckets,
		Help:   "Time that a step of a decision took: policy (choosing it), session (its record, the user's mark and profile), token (signature and claims), standing (marks and profile of a token's user), condition (what the policy asks), limit (counting).",
		Labels: []Label{closed("step", StepPolicy, StepSession, StepToken, StepStanding, StepCondition, StepLimit)},
		Use:    "Where the time goes. Checks that memory answered have no steps, but for limit: an allowed request that hits the cache is timed as a whole only.",
	}
	ObservedDenials = &Metric{
		Name: "gatehouse_observed_denials_total", Type: TypeCounter,
		Help:   "Requests that a policy in observe mode let through and would have denied.",
		Labels: []Label{policyLabel, reasonLabel},
		Use:    "Before `mode: enforce`: it should be zero, or what is expected.",
	}
	DegradedDecisions = &Metric{
		Name: "gatehouse_degraded_decisions_total", Type: TypeCounter,
		Help:   "Requests allowed without the store, by leave of on_store_outage.",
		Labels: []Label{policyLabel, closed("mode", string(authz.OutageServeStale), string(authz.OutageAcceptBearer))},
		Use:    "More than zero means that revocations may not count right now, as the policy says.",
	}
)

// Load.
var (
	ChecksShed = &Metric{
		Name: "gatehouse_checks_shed_total", Type: TypeCounter,
		Help:   "Checks that were refused with 503 because there were too many, by why: late (it waited for a processor too long to be of use), queue (the queue for processors doesn't get shorter), limit (server.check.max_concurrent), gone (it was late, and the gateway had given up: there was nobody to refuse).",
		Labels: []Label{closed("why", "late", "queue", "limit", "gone")},
		Use:    "See [overload](overload.md). They are among the decisions, too, with the reason `overloaded`. Of those that are gone many are dropped before they can be counted.",
	}
	ChecksInFlight = &Metric{
		Name: "gatehouse_checks_in_flight", Type: TypeGauge,
		Help: "Checks under way that memory could not answer; server.check.max_concurrent bounds them.",
	}
	HTTPShed = &Metric{
		Name: "gatehouse_http_shed_total", Type: TypeCounter,
		Help: "Requests at the http listener that were refused with 503 because there were too many (server.http.max_concurrent).",
	}
)

// Rate limits.
var (
	RateLimitDecisions = &Metric{
		Name: "gatehouse_rate_limit_decisions_total", Type: TypeCounter,
		Help:   "Requests that a rate limit was asked about, by what it said: allowed, refused (used up), uncounted (let through, its store being out of reach), unavailable (refused with 503 for that reason).",
		Labels: []Label{limitLabel, closed("result", "allowed", "refused", "uncounted", "unavailable")},
		Use:    "The share of `refused` says whether a limit is too low, or is being met by somebody who should meet it.",
	}
	RateLimitUncounted = &Metric{
		Name: "gatehouse_rate_limit_uncounted_total", Type: TypeCounter,
		Help:   "Requests that a rate limit let through uncounted, its store being out of reach, by leave of on_outage.",
		Labels: []Label{limitLabel},
	}
)

// The auth API.
var (
	AuthCalls = &Metric{
		Name: "gatehouse_auth_calls_total", Type: TypeCounter,
		Help:   "Answered calls of the auth API, by call and status.",
		Labels: []Label{callLabel, {Name: "status", From: "HTTP statuses that the auth API answers with"}},
	}
	AuthCallDuration = &Metric{
		Name: "gatehouse_auth_call_duration_seconds", Type: TypeHistogram, Unit: "seconds", buckets: callBuckets,
		Help:   "Time from the arrival of a call of the auth API to its answer.",
		Labels: []Label{callLabel},
		Use:    "A login takes as long as its password's hash: that is meant.",
	}
	AuthRefusals = &Metric{
		Name: "gatehouse_auth_refusals_total", Type: TypeCounter,
		Help:   "Calls of the auth API that were refused, by call and reason.",
		Labels: []Label{callLabel, closed("reason", append(texts(authz.Reasons()), "not_found", "method_not_allowed")...)},
		Use:    "Logins that were refused are `call=~\"login|token\"` with `password_wrong` (which also stands for a user who is locked out) and `rate_limited` (too many guesses), and `call=\"oidc_callback\"` with `login_refused`.",
	}
	AuthChanges = &Metric{
		Name: "gatehouse_auth_changes_total", Type: TypeCounter,
		Help: "Changes that the auth API made, by the action of their audit line: login, oidc_login and create_session begin a session, token_login a refresh family; logout, oidc_logout, end_session, revoke and revoke_all end what they name.",
		Labels: []Label{closed("action",
			"login", "oidc_login", "create_session", "token_login",
			"logout", "oidc_logout", "end_session", "revoke", "revoke_all",
			"switch_organization", "change_user", "refresh_token_reused")},
		Use: "Sessions that end by themselves, and what other programs and `gatehouse sessions` change, are not in it. Refreshes are `gatehouse_auth_calls_total{call=\"refresh\"}`.",
	}
	RefreshReuses = &Metric{
		Name: "gatehouse_refresh_reuse_detections_total", Type: TypeCounter,
		Help: "Refresh tokens that were used again after the grace: their family was revoked.",
		Use:  "A stolen token, or a client that stores them wrongly. The audit line with the action `refresh_token_reused` names user and family.",
	}
)

// The revocation feed.
var (
	FeedFollowers = &Metric{
		Name: "gatehouse_feed_followers", Type: TypeGauge,
		Help: "Services that follow the revocation feed here.",
	}
	FeedLive = &Metric{
		Name: "gatehouse_feed_live", Type: TypeGauge,
		Help: "1 while what ends is told as it happens; 0 while that may be late, or nobody follows at any replica.",
	}
	FeedEvents = &Metric{
		Name: "gatehouse_feed_events_total", Type: TypeCounter,
		Help:   "Events of the revocation feed, each once, however many follow.",
		Labels: []Label{closed("event", texts(authz.FeedKinds())...)},
		Use:    "After a `reset` services end what they can't ask anew about: streams begin again then.",
	}
	FeedCut = &Metric{
		Name: "gatehouse_feed_cut_total", Type: TypeCounter,
		Help: "Followers that were cut off since they were further behind than events are kept. They come back, and are told of a `reset`.",
	}
)

// The cache.
var (
	CacheAnswers = &Metric{
		Name: "gatehouse_cache_answers_total", Type: TypeCounter,
		Help:   "Questions about sessions and tokens, by how they were answered: hit (from the cache), miss (Redis was asked), shared (another one's question was waited for), stale (an old answer, by leave of on_store_outage).",
		Labels: []Label{closed("result", "hit", "miss", "shared", "stale")},
		Use:    "Hits by all is the hit ratio. See [the cache](cache.md).",
	}
	CacheInvalidations = &Metric{Name: "gatehouse_cache_invalidations_total", Type: TypeCounter, Help: "Changed keys that Redis announced."}
	CacheFlushes       = &Metric{Name: "gatehouse_cache_flushes_total", Type: TypeCounter, Help: "Announcements that all keys have changed."}
	CacheDrops         = &Metric{
		Name: "gatehouse_cache_drops_total", Type: TypeCounter,
		Help: "Times that announcements were lost, or in doubt, and nothing in the cache counted any more.",
		Use:  "Each costs a burst of questions to Redis. Several an hour without an outage: the network between, or a process without processor time.",
	}
	CacheEvictions = &Metric{
		Name: "gatehouse_cache_evictions_total", Type: TypeCounter, Help: "Entries that made place for others.",
		Use: "All the time: `redis.cache.max_entries` is too small for those who are active.",
	}
	CacheEntries  = &Metric{Name: "gatehouse_cache_entries", Type: TypeGauge, Help: "Entries in the cache."}
	CacheBytes    = &Metric{Name: "gatehouse_cache_bytes", Type: TypeGauge, Unit: "bytes", Help: "Memory that the cache has allocated."}
	CacheCoherent = &Metric{
		Name: "gatehouse_cache_coherent", Type: TypeGauge,
		Help: "1 while announcements are proven to come and the cache answers, else 0.",
		Use:  "It and the others of the cache are not there with `redis.cache.enabled: false`, nor where the store doesn't announce what changes (`unsupported` in /readyz): that is no cache out of order, but none.",
	}
	CacheAge = &Metric{
		Name: "gatehouse_cache_proof_age_seconds", Type: TypeGauge, Unit: "seconds",
		Help: "How long ago everything was known that had changed until then; before the first time, since the start.",
		Use:  "The staleness: below two heartbeats (`redis.cache.heartbeat`) as a rule. At two and a half the cache ceases to answer, so that what is older is only told by leave of `serve_stale`.",
	}
)

// The store.
var (
	StoreUp = &Metric{
		Name: "gatehouse_store_up", Type: TypeGauge,
		Help: "1 while the last look at the store found it in reach, else 0. It is looked at once a second.",
	}
	StoreCommands = &Metric{
		Name: "gatehouse_store_commands_total", Type: TypeCounter,
		Help: "Commands for Redis, by what they were for, the command, and what came of it: ok, again (moved elsewhere, or its script wasn't there: it is sent again), error (another error that the server answered), timeout, unreachable (the connection failed), refused (not sent), canceled (whoever asked had gone, before it was sent or after).",
		Labels: []Label{
			closed("purpose", "lookup", "watch", "touch", "guess", "repeatable", "order", "connection"),
			closed("command", storeCommands...),
			closed("outcome", "ok", "again", "error", "timeout", "unreachable", "refused", "canceled"),
		},
		Use: "`lookup` decides requests; `watch` asks once a second whether Redis is there; `touch` renews, `guess` counts tries at passwords, `repeatable` reads lists and refreshes, `order` is what must be done: a revocation, for one; `connection` opens connections. In a Cluster each command to each server counts. An embedded store has none.",
	}
	StoreCommandDuration = &Metric{
		Name: "gatehouse_store_command_duration_seconds", Type: TypeHistogram, Unit: "seconds",
		buckets: []float64{50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1},
		Help:    "Time from a command for Redis to its answer or failure, its wait for a connection included; those that were not sent are left out.",
		Labels:  []Label{closed("purpose", "lookup", "watch", "touch", "guess", "repeatable", "order", "connection")},
	}
	StoreSilent = &Metric{
		Name: "gatehouse_store_servers_silent", Type: TypeGauge, Help: "Redis servers that don't answer, so that what needs them is refused at once.",
		Use: "More than zero is an outage for those whose keys are there.",
	}
	StoreSilences = &Metric{Name: "gatehouse_store_silences_total", Type: TypeCounter, Help: "Times that a Redis server ceased to answer."}
	StoreWaiting  = &Metric{Name: "gatehouse_store_waiting", Type: TypeGauge, Help: "Requests that wait for Redis."}
	StoreRefused  = &Metric{
		Name: "gatehouse_store_refused_total", Type: TypeCounter,
		Help:   "Questions to Redis that were not asked, by why: silent (the server doesn't answer), slow (it answers too slowly for all that wait), full (too many wait, though it is fast).",
		Labels: []Label{closed("why", "silent", "slow", "full")},
		Use:    "See [overload](overload.md).",
	}
	StoreSkipped = &Metric{
		Name: "gatehouse_store_skipped_writes_total", Type: TypeCounter,
		Help: "Renewals, times of use and the like that were left out for one of these reasons, until the next request for the session.",
	}
)

// Issuers of tokens.
var (
	IssuerKeys = &Metric{
		Name: "gatehouse_issuer_keys", Type: TypeGauge, Labels: []Label{issuerLabel},
		Help: "Keys that an issuer's key set holds now.", Use: "Zero: tokens of this issuer are answered with 503.",
	}
	IssuerLastFetch = &Metric{
		Name: "gatehouse_issuer_last_fetch_timestamp_seconds", Type: TypeGauge, Unit: "seconds", Labels: []Label{issuerLabel},
		Help: "When an issuer's keys were last fetched; 0 for never.",
	}
	IssuerFailures = &Metric{
		Name: "gatehouse_issuer_fetch_failures", Type: TypeGauge, Labels: []Label{issuerLabel},
		Help: "Fetches of an issuer's keys that failed since the last good one.",
		Use:  "The keys that are there go on to count. A key that the issuer begins to use meanwhile is not known.",
	}
)

// What was written down, and what was sent.
var (
	AuditLines = &Metric{
		Name: "gatehouse_audit_lines_total", Type: TypeCounter, Help: "Lines that were written to the audit log.",
	}
	AuditFailures = &Metric{
		Name: "gatehouse_audit_failures_total", Type: TypeCounter, Help: "Lines of the audit log that could not be written.",
		Use: "Is the disk full? Each line is in the usual log instead; with `audit.on_failure: refuse` changes are refused. See [logging](logging.md).",
	}
	LogDropped = &Metric{
		Name: "gatehouse_log_dropped_lines_total", Type: TypeCounter, Help: "Lines of the log that were dropped, because nobody read it or it could not be written.",
		Use: "Is what collects the logs stuck, or the disk full? Checks and calls don't wait for it. See [logging](logging.md).",
	}
	TraceSpans = &Metric{
		Name: "gatehouse_trace_spans_total", Type: TypeCounter,
		Help:   "Spans that were recorded, by what became of them.",
		Labels: []Label{closed("result", "sent", "queue_full", "not_sent")},
		Use:    "`queue_full`: the collector takes them too slowly. `not_sent`: it was out of reach, refused them, or took too long. No request waits for it. See [tracing](tracing.md).",
	}
)

// The program and its configuration.
var (
	BuildInfo = &Metric{
		Name: "gatehouse_build_info", Type: TypeGauge, Help: "Always 1; the labels say what is running.",
		Labels: []Label{{Name: "version", From: "the release"}, {Name: "revision", From: "the commit"}, {Name: "goversion", From: "Go's release"}},
	}
	Ready = &Metric{
		Name: "gatehouse_ready", Type: TypeGauge, Help: "1 while /readyz answers 200, else 0: while the store was not reached yet, and while the server drains.",
	}
	ConfigReloads = &Metric{
		Name: "gatehouse_config_reloads_total", Type: TypeCounter, Help: "Times that the configuration was read again, by what came of it.",
		Labels: []Label{closed("result", "applied", "rejected", "unchanged")},
	}
	ConfigGood = &Metric{
		Name: "gatehouse_config_last_reload_successful", Type: TypeGauge, Help: "1 while the configuration's files say what runs, 0 while they were rejected.",
		Use: "Zero: what ran before goes on. The log and /readyz say what is wrong. See [reload](reload.md).",
	}
	ConfigLoaded = &Metric{
		Name: "gatehouse_config_loaded_timestamp_seconds", Type: TypeGauge, Unit: "seconds", Help: "When the configuration that runs was loaded.",
	}
	ConfigPending = &Metric{
		Name: "gatehouse_config_pending_restart", Type: TypeGauge, Help: "Keys of the configuration that have values which wait for a restart.",
	}
	CertificateExpiry = &Metric{
		Name: "gatehouse_tls_certificate_expiry_timestamp_seconds", Type: TypeGauge, Unit: "seconds",
		Help:   "When the certificate of a listener ends, for those with TLS.",
		Labels: []Label{closed("listener", "check", "http")},
		Use:    "The files are read again when they change: renewing them is enough. Certificates by which Gatehouse shows itself to Redis or to a collector have no metric.",
	}
	CertificateStart = &Metric{
		Name: "gatehouse_tls_certificate_not_before_timestamp_seconds", Type: TypeGauge, Unit: "seconds",
		Help:   "When that certificate began.",
		Labels: []Label{closed("listener", "check", "http")},
		Use:    "With its end, how long it lasts: what is soon for one of three months is the whole life of another.",
	}
)

// Catalogue returns all metrics there are, beside those of the Go runtime and of the
// process.
func Catalogue() []Group {
	return []Group{
		{"Decisions", []*Metric{Decisions, DecisionDuration, ChecksCanceled, DecisionStepDuration, ObservedDenials, DegradedDecisions}},
		{"Load", []*Metric{ChecksInFlight, ChecksShed, HTTPShed}},
		{"Rate limits", []*Metric{RateLimitDecisions, RateLimitUncounted}},
		{"Auth API: sessions, tokens, revocations", []*Metric{AuthCalls, AuthCallDuration, AuthRefusals, AuthChanges, RefreshReuses}},
		{"Revocation feed", []*Metric{FeedFollowers, FeedLive, FeedEvents, FeedCut}},
		{"Cache", []*Metric{
			CacheAnswers, CacheCoherent, CacheAge, CacheEntries, CacheBytes, CacheInvalidations, CacheFlushes, CacheDrops, CacheEvictions,
		}},
		{"Store", []*Metric{
			StoreUp, StoreCommands, StoreCommandDuration, StoreSilent, StoreSilences, StoreWaiting, StoreRefused, StoreSkipped,
		}},
		{"Issuers", []*Metric{IssuerKeys, IssuerLastFetch, IssuerFailures}},
		{"Logs and traces", []*Metric{LogDropped, AuditLines, AuditFailures, TraceSpans}},
		{"Process and configuration", []*Metric{BuildInfo, Ready, ConfigReloads, ConfigGood, ConfigLoaded, ConfigPending, CertificateExpiry, CertificateStart}},
	}
}

// Holds reports whether a value is one that the label may have.
func (l Label) Holds(value string) bool { return l.Values == nil || slices.Contains(l.Values, value) }
