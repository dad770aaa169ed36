package tracing_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/tracing/otlptest"
	"github.com/gatehouse-auth/gatehouse/internal/tracing/traced"
)

const (
	patience    = 20 * time.Second
	checkMethod = "envoy.service.auth.v3.Authorization/Check"

	aTrace, aSpan = "11111111111111111111111111111111", "2222222222222222"
)

func collect(t *testing.T) *otlptest.Collector {
	t.Helper()
	c, err := otlptest.Start(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	return c
}

func newTracer(t *testing.T, o tracing.Options) *tracing.Tracer {
	t.Helper()
	o.InsecurePlaintext = o.TLS == nil
	tracer, err := tracing.New(o)
	require.NoError(t, err)
	return tracer
}

// from is the context of a check with these metadata.
func from(t *testing.T, pairs ...string) context.Context {
	t.Helper()
	return metadata.NewIncomingContext(t.Context(), metadata.Pairs(pairs...))
}

// shutdown ends a tracer, so that all is sent.
func shutdown(t *testing.T, tracer *tracing.Tracer) {
	t.Helper()
	require.NoError(t, tracer.Shutdown(context.WithoutCancel(t.Context())))
}

// Whose child a check is, and whether it is recorded, the gateway says by the metadata of
// the call.
func TestAChecksParentIsTheGatewaysSpan(t *testing.T) {
	for name, tc := range map[string]struct {
		sample   float64
		metadata []string
		trace    string // "" for none, "new" for one of its own
	}{
		"the gateway records":               {0, []string{"traceparent", "00-" + aTrace + "-" + aSpan + "-01", "tracestate", ""}, aTrace},
		"the gateway doesn't":               {1, []string{"traceparent", "00-" + aTrace + "-" + aSpan + "-00"}, ""},
		"the gateway has no traces":         {0, nil, ""},
		"no traces there, and all are ours": {1, nil, "new"},
		"malformed":                         {1, []string{"traceparent", "00-" + aTrace + "-" + aSpan}, "new"},
		"malformed, and none are ours":      {0, []string{"traceparent", "00-" + aTrace + "-" + aSpan}, ""},
		"the forbidden version":             {0, []string{"traceparent", "ff-" + aTrace + "-" + aSpan + "-01"}, ""},
		"nobody's trace":                    {0, []string{"traceparent", "00-" + strings.Repeat("0", 32) + "-" + aSpan + "-01"}, ""},
		"two of them":                       {0, []string{"traceparent", "00-" + aTrace + "-" + aSpan + "-01", "traceparent", "00-" + aTrace + "-" + aSpan + "-01"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := collect(t)
			tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: tc.sample, ServiceName: "gate", Version: "v1", Attributes: map[string]string{"zone": "a"}})
			_, end := tracer.Start(from(t, tc.metadata...))
			end()
			shutdown(t, tracer)
			spans := c.Spans()
			if tc.trace == "" {
				require.Empty(t, spans)
				return
			}
			require.Len(t, spans, 1)
			s := spans[0]
			require.Equal(t, checkMethod, s.Name)
			require.Equal(t, "SERVER", s.Kind)
			require.Equal(t, map[string]string{"rpc.system.name": "grpc", "rpc.method": checkMethod, "rpc.response.status_code": "OK"}, s.Attributes)
			require.Equal(t, map[string]string{"service.name": "gate", "service.version": "v1", "zone": "a", "host.name": hostname(t)}, s.Resource)
			if tc.trace == "new" {
				require.NotEqual(t, aTrace, s.Trace)
				require.Empty(t, s.Parent)
				return
			}
			require.Equal(t, tc.trace, s.Trace)
			require.Equal(t, aSpan, s.Parent)
		})
	}
}

// The http listener believes a header as far as it believes who sends it.
func TestARequestsParentIsWhoIsBelieved(t *testing.T) {
	for name, tc := range map[string]struct {
		sample   float64
		believed bool
		flags    string
		parent   string // "none": not recorded
		links    []string
	}{
		"a proxy that records":            {0, true, "01", aSpan, nil},
		"a proxy that doesn't":            {1, true, "00", "none", nil},
		"a client":                        {0, false, "01", "none", nil},
		"a client, and we record":         {1, false, "01", "", []string{aTrace + "/" + aSpan}},
		"a proxy without, and we record":  {1, true, "", "", nil},
		"a proxy without, and we don't":   {0, true, "", "none", nil},
		"a client without, and we record": {1, false, "", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := collect(t)
			tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: tc.sample})
			r := httptest.NewRequest("MADEUP", "/auth/users/alice?token=hunter2", nil)
			if tc.flags != "" {
				r.Header.Set("traceparent", "00-"+aTrace+"-"+aSpan+"-"+tc.flags)
			}
			w, _, end := tracer.Request(httptest.NewRecorder(), r, "/some/route", tc.believed)
			http.Error(w, "no", http.StatusServiceUnavailable)
			end()
			shutdown(t, tracer)
			spans := c.Spans()
			if tc.parent == "none" {
				require.Empty(t, spans)
				return
			}
			require.Len(t, spans, 1)
			require.Equal(t, tc.parent, spans[0].Parent)
			require.Equal(t, tc.links, spans[0].Links)
			require.Equal(t, "_OTHER /some/route", spans[0].Name)
			require.Equal(t, "ERROR", spans[0].Status, "503 is ours")
			require.Equal(t, map[string]string{
				"http.request.method": "_OTHER", "http.route": "/some/route", "http.response.status_code": "503", "error.type": "503",
			}, spans[0].Attributes)
		})
	}
}

// Whoever panics has not answered with 200. What recovers is net/http, as without a span.
func TestAPanicIsAnError(t *testing.T) {
	for name, sent := range map[string]string{"nothing was sent": "", "half was sent": "200"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, out := collect(t), &lines{}
			tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: 1})
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w, _, end := tracer.Request(w, r, "/check", false)
				defer end()
				if sent != "" {
					_ = http.NewResponseController(w).Flush()
				}
				panic("a bug")
			}))
			server.Config.ErrorLog = log.New(out, "", 0)
			server.Start()
			t.Cleanup(server.Close)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			require.NoError(t, err)
			response, err := http.DefaultClient.Do(r)
			if err == nil {
				_, err = io.ReadAll(response.Body)
				require.NoError(t, response.Body.Close())
			}
			require.Error(t, err, "the connection is cut")
			shutdown(t, tracer)
			require.Len(t, c.Spans(), 1)
			require.Equal(t, "ERROR", c.Spans()[0].Status)
			require.Equal(t, "panic", c.Spans()[0].Attributes["error.type"])
			require.Equal(t, sent, c.Spans()[0].Attributes["http.response.status_code"])
			require.Contains(t, out.String(), "a bug")
			require.Contains(t, out.String(), "TestAPanicIsAnError", "where it was")
		})
	}
}

// A client's tracestate, of which W3C allows 16 KiB, doesn't come along: it would have
// whole batches refused as too large, with everybody's spans in them.
func TestTracestateIsLeftBehind(t *testing.T) {
	const spans = 400 // one batch, above 4 MiB with it
	members := make([]string, 32)
	for i := range members {
		members[i] = fmt.Sprintf("k%02d%s=%s", i, strings.Repeat("a", 250), strings.Repeat("b", 256))
	}
	state := strings.Join(members, ",")
	parent := "00-" + aTrace + "-" + aSpan + "-01"
	for name, begin := range map[string]func(*tracing.Tracer) (end func()){
		"a request": func(tracer *tracing.Tracer) func() {
			r := httptest.NewRequest(http.MethodGet, "/check", nil)
			r.Header.Set("traceparent", parent)
			r.Header.Set("tracestate", state)
			_, _, end := tracer.Request(httptest.NewRecorder(), r, "/check", true)
			return end
		},
		"a check": func(tracer *tracing.Tracer) func() {
			_, end := tracer.Start(from(t, "traceparent", parent, "tracestate", state))
			return end
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, reg := collect(t), prometheus.NewRegistry()
			tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: 1, Spans: tracing.NewSpans(reg)})
			for range spans {
				begin(tracer)()
			}
			shutdown(t, tracer)
			require.Len(t, c.Spans(), spans)
			for _, s := range c.Spans() {
				require.Empty(t, s.State)
				require.Equal(t, aSpan, s.Parent)
			}
		})
	}
}

// A decision's span says what the log says, and of whom it is nothing. It is an error
// where we could not decide, or the configuration is at fault.
func TestDecisionsAreTold(t *testing.T) {
	c := collect(t)
	tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: 1})
	recorder := tracing.WithDecisions(nil)
	for _, reason := range authz.Reasons() {
		ctx, end := tracer.Start(t.Context())
		d := &authz.Decision{Policy: &authz.Policy{Name: "user"}, Kind: authz.KindSession, Reason: reason}
		d.Principal = &authz.Principal{Identity: authz.Identity{ID: "hunter2", Email: "hunter2"}, SessionID: "hunter2"}
		r := &authz.Request{RawPath: "/hunter2", Query: "hunter2", Headers: authz.HeaderMap(map[string]string{"cookie": "hunter2"})}
		recorder.Record(ctx, r, d, authz.Refuse(reason, "hunter2"), 0)
		end()
	}
	ctx, end := tracer.Start(t.Context())
	recorder.Record(ctx, &authz.Request{}, &authz.Decision{Reason: authz.ReasonAnonymous, Observed: authz.Refuse(authz.ReasonRole, "x")}, nil, 0)
	end()
	shutdown(t, tracer)
	ours := []authz.Reason{authz.ReasonPolicyUnknown, authz.ReasonNoAudience, authz.ReasonProfileMalformed, authz.ReasonIdentityTooLong} // though not 5xx
	told := map[string]otlptest.Span{}
	for _, s := range c.Spans() {
		require.NotContains(t, s.String(), "hunter2")
		told[s.Attributes["gatehouse.reason"]+s.Attributes["gatehouse.would_deny"]] = s
	}
	for _, reason := range authz.Reasons() {
		if reason == authz.ReasonAuthenticated || reason == authz.ReasonAnonymous {
			continue // no refusals
		}
		s, there := told[string(reason)]
		require.True(t, there, reason)
		require.Equal(t, "deny", s.Attributes["gatehouse.decision"])
		require.Equal(t, "user", s.Attributes["gatehouse.policy"])
		require.Equal(t, "session", s.Attributes["gatehouse.credential"])
		err := authz.Refuse(reason, "x")
		want := ""
		if authz.AnswerTo(&authz.Decision{}, &authz.Request{Headers: authz.HeaderMap(nil)}, err).Status >= 500 {
			want = "ERROR"
		}
		for _, r := range ours {
			if r == reason {
				want = "ERROR"
			}
		}
		require.Equal(t, want, s.Status, reason)
	}
	observed := told["anonymousrole"]
	require.Equal(t, "allow", observed.Attributes["gatehouse.decision"])
	require.Empty(t, observed.Status)
}

// lines is a log that tests read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Whatever the collector does, nobody waits for it; what is lost is counted, and the log
// says so once.
func TestACollectorThatFailsHoldsUpNobody(t *testing.T) {
	const spans = 20_000
	for name, behave := range map[string]func(*otlptest.Collector){
		"gone": func(c *otlptest.Collector) { c.Stop() },
		"silent": func(c *otlptest.Collector) {
			c.Answer(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		},
		"refuses": func(c *otlptest.Collector) {
			c.Answer(func(context.Context) error { return status.Error(codes.PermissionDenied, "no such key: hunter2") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := collect(t)
			behave(c)
			out, reg := &lines{}, prometheus.NewRegistry()
			tracer := newTracer(t, tracing.Options{
				Endpoint: c.Addr, Sample: 1, Headers: map[string]string{"x-api-key": "hunter2"},
				Log: slog.New(slog.NewJSONHandler(out, nil)), Spans: tracing.NewSpans(reg),
			})
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range spans {
					_, end := tracer.Start(t.Context())
					end()
				}
			}()
			select {
			case <-done:
			case <-time.After(patience):
				require.Fail(t, "spans wait for the collector")
			}
			if name != "silent" { // which takes its time, and is told of at the end
				require.Eventually(t, func() bool { return strings.Contains(out.String(), "can't be sent") }, patience, 10*time.Millisecond)
			}
			shutdown(t, tracer)
			require.Eventually(t, func() bool {
				lost, err := total(reg)
				return err == nil && lost == spans
			}, patience, 10*time.Millisecond, "each span is counted, and none twice")
			require.Equal(t, 1, strings.Count(out.String(), "can't be sent"))
			if name == "gone" {
				require.Contains(t, out.String(), `"code":"Unavailable"`)
				require.Contains(t, out.String(), "can be reached")
			}
			require.NotContains(t, out.String(), "hunter2")
			require.Empty(t, c.Spans())
		})
	}
}

// total is how many spans were lost.
func total(reg *prometheus.Registry) (n int, err error) {
	families, err := reg.Gather()
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() != "sent" {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n, err
}

// A collector may take some spans of a batch and refuse others, or take all and remark on
// something (OTLP: partial success). The one is counted, and neither is an outage.
func TestACollectorsPartialSuccess(t *testing.T) {
	const spans = 10
	for name, tc := range map[string]struct {
		refused int64
		lost    int
		lines   int
	}{
		"none":          {0, 0, 0},
		"one":           {1, 1, 1},
		"all":           {spans, spans, 1},
		"more than all": {1 << 62, spans, 1},
		"less than nil": {-1 << 62, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, out, reg := collect(t), &lines{}, prometheus.NewRegistry()
			c.Refuse(tc.refused, "consider hunter2")
			tracer := newTracer(t, tracing.Options{
				Endpoint: c.Addr, Sample: 1, Headers: map[string]string{"x-api-key": "hunter2"},
				Log: slog.New(slog.NewJSONHandler(out, nil)), Spans: tracing.NewSpans(reg),
			})
			for range spans {
				_, end := tracer.Start(t.Context())
				end()
			}
			shutdown(t, tracer)
			require.Len(t, c.Spans(), spans)
			lost, err := total(reg)
			require.NoError(t, err)
			require.Equal(t, tc.lost, lost)
			require.InDelta(t, spans-tc.lost, testutil.ToFloat64(sent{reg}), 0)
			require.Equal(t, tc.lines, strings.Count(out.String(), "\n"), out)
			require.Equal(t, tc.lines, strings.Count(out.String(), "refuses some spans"), out)
			require.NotContains(t, out.String(), "hunter2")
		})
	}
}

// What a collector says in words stays out of the log: the value of a header has parts,
// and whoever repeats one of them has told the key.
func TestACollectorsWordsStayOutOfTheLog(t *testing.T) {
	for code, remedy := range map[codes.Code]string{
		codes.Unauthenticated: "headers_file", codes.PermissionDenied: "headers_file", codes.Unimplemented: "4317",
		codes.InvalidArgument: "the collector's own log",
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			c, out := collect(t), &lines{}
			c.Answer(func(context.Context) error { return status.Error(code, `invalid token "hunter2"`) })
			tracer := newTracer(t, tracing.Options{
				Endpoint: c.Addr, Sample: 1, Headers: map[string]string{"authorization": "Bearer hunter2"},
				Log: slog.New(slog.NewJSONHandler(out, nil)),
			})
			_, end := tracer.Start(t.Context())
			end()
			shutdown(t, tracer)
			require.NotContains(t, out.String(), "hunter2")
			require.NotContains(t, out.String(), "invalid token")
			require.Contains(t, out.String(), `"code":"`+code.String()+`"`)
			require.Contains(t, out.String(), remedy)
		})
	}
}

func TestACollectorThatComesBackIsUsed(t *testing.T) {
	c := collect(t)
	c.Answer(func(context.Context) error { return status.Error(codes.PermissionDenied, "not yet") })
	out := &lines{}
	tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: 1, Headers: map[string]string{"x-api-key": "k"}, Log: slog.New(slog.NewJSONHandler(out, nil))})
	send := func(until func() bool) {
		require.Eventually(t, func() bool {
			_, end := tracer.Start(t.Context())
			end()
			return until()
		}, patience, 50*time.Millisecond)
	}
	send(func() bool { return strings.Contains(out.String(), "can't be sent") })
	c.Answer(nil)
	send(func() bool { return strings.Contains(out.String(), "are sent again") && len(c.Spans()) > 0 })
	require.Equal(t, []string{"k"}, c.Headers()["x-api-key"])
	shutdown(t, tracer)
}

// What the environment says for other programs of OpenTelemetry doesn't count, but for
// where this process runs.
func TestTheEnvironmentHasNoSay(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1",
		"OTEL_EXPORTER_OTLP_HEADERS": "x-other=hunter2", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
		"OTEL_SERVICE_NAME": "other", "OTEL_TRACES_SAMPLER": "always_off", "OTEL_SDK_DISABLED": "true",
		"OTEL_BSP_MAX_QUEUE_SIZE": "1", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1", "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=gate-0,zone=other,service.name=other",
	} {
		t.Setenv(name, value)
	}
	c := collect(t)
	tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: 1, ServiceName: "gate", Attributes: map[string]string{"zone": "a"}})
	for range 20 {
		_, end := tracer.Start(t.Context())
		end()
	}
	shutdown(t, tracer)
	require.Len(t, c.Spans(), 20)
	require.Equal(t, map[string]string{"service.name": "gate", "zone": "a", "k8s.pod.name": "gate-0", "host.name": hostname(t)}, c.Spans()[0].Resource)
	require.Len(t, c.Spans()[0].Attributes, 3)
	require.Empty(t, c.Headers()["x-other"])
	require.Empty(t, c.Headers()["grpc-encoding"])
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	require.NoError(t, err)
	return name
}

// Which replica a span is of can be seen, and said otherwise.
func TestReplicasAreToldApart(t *testing.T) {
	for name, tc := range map[string]struct {
		attributes  map[string]string
		environment string
		want        string
	}{
		"by the machine":     {nil, "", hostname(t)},
		"by the file":        {map[string]string{"host.name": "gate-0"}, "host.name=gate-1", "gate-0"},
		"by the environment": {nil, "host.name=gate-1", "gate-1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", tc.environment)
			c := collect(t)
			tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: 1, Attributes: tc.attributes})
			_, end := tracer.Start(t.Context())
			end()
			shutdown(t, tracer)
			require.Len(t, c.Spans(), 1)
			require.Equal(t, tc.want, c.Spans()[0].Resource["host.name"])
		})
	}
}

// A proxy of the environment is for TLS. It is nothing that a collector near by, without,
// is to be reached by, and could read along. Go reads that environment once, so each case
// is a process.
func TestProxyOfTheEnvironment(t *testing.T) {
	const asked = "GATEHOUSE_TEST_PROXY"
	if plaintext := os.Getenv(asked); plaintext != "" {
		out := &lines{}
		tracer, err := tracing.New(tracing.Options{
			Endpoint: "collector.invalid:4317", Sample: 1, InsecurePlaintext: plaintext == "true",
			Log: slog.New(slog.NewJSONHandler(out, nil)),
		})
		require.NoError(t, err)
		_, end := tracer.Start(t.Context())
		end()
		require.Eventually(t, func() bool { return strings.Contains(out.String(), "can't be sent") }, patience, 10*time.Millisecond)
		shutdown(t, tracer)
		return
	}
	for name, plaintext := range map[string]string{"with TLS": "false", "without": "true"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var connects atomic.Int32
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodConnect && r.Host == "collector.invalid:4317" {
					connects.Add(1)
				}
				w.WriteHeader(http.StatusBadGateway)
			}))
			t.Cleanup(proxy.Close)
			program, err := os.Executable()
			require.NoError(t, err)
			cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestProxyOfTheEnvironment$", "-test.count=1")
			cmd.Env = append(os.Environ(), asked+"="+plaintext, "HTTPS_PROXY="+proxy.URL, "https_proxy=", "NO_PROXY=", "no_proxy=")
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Equal(t, plaintext == "false", connects.Load() > 0, "%s", out)
		})
	}
}

func TestRatio(t *testing.T) {
	c := collect(t)
	reg := prometheus.NewRegistry()
	tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: 0.25, Spans: tracing.NewSpans(reg)})
	const checks = 4000
	for range checks {
		_, end := tracer.Start(t.Context())
		end()
	}
	shutdown(t, tracer)
	require.InDelta(t, checks/4, len(c.Spans()), checks/20)
	require.InDelta(t, len(c.Spans()), testutil.ToFloat64(sent{reg}), 0)
}

// sent collects the one series of spans that were sent.
type sent struct{ reg *prometheus.Registry }

func (s sent) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, ch) }

func (s sent) Collect(ch chan<- prometheus.Metric) {
	families, _ := s.reg.Gather()
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == "sent" {
			ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("sent", "x", nil, nil), prometheus.CounterValue, m.GetCounter().GetValue())
		}
	}
}

// A line about a request of a trace names it, whether or not we record.
func TestLinesNameTheTrace(t *testing.T) {
	out := &lines{}
	log := slog.New(traced.LogHandler(slog.NewJSONHandler(out, nil))).With(slog.String("a", "b"))
	log.InfoContext(t.Context(), "none")
	require.NotContains(t, out.String(), "trace_id")
	log.InfoContext(from(t, "traceparent", "00-"+aTrace+"-"+aSpan+"-00"), "the gateway's")
	require.Contains(t, out.String(), `"trace_id":"`+aTrace+`"`)

	c := collect(t)
	tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: 1})
	ctx, end := tracer.Start(t.Context())
	log.InfoContext(ctx, "ours")
	end()
	shutdown(t, tracer)
	require.Contains(t, out.String(), `"trace_id":"`+c.Spans()[0].Trace+`"`)

	log.InfoContext(from(t, "traceparent", "00-"+aTrace+"\n-x-01"), "malformed")
	require.Equal(t, 2, strings.Count(out.String(), "trace_id"))
}

var errLost = errors.New("lost")

type failing struct{}

func (failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, errLost }

// A fetch has a span, which names the server and not what was asked for; the server
// learns nothing of it.
func TestFetchesAreBelowTheRequest(t *testing.T) {
	c := collect(t)
	tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: 1})
	var seen http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(server.Close)
	ctx, end := tracer.Start(t.Context())
	get := func(ctx context.Context, transport http.RoundTripper) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/hunter2?code=hunter2", nil)
		require.NoError(t, err)
		response, err := (&http.Client{Transport: traced.Transport(transport, "jwks")}).Do(r)
		if err == nil {
			_ = response.Body.Close()
		}
		return err
	}
	require.NoError(t, get(ctx, nil))
	require.ErrorIs(t, get(ctx, failing{}), errLost)
	require.NoError(t, get(t.Context(), nil), "of no request, and without a span")
	end()
	shutdown(t, tracer)
	require.Empty(t, seen.Get("traceparent"))
	spans := c.Spans()
	require.Len(t, spans, 3)
	for i, kind := range []string{"404", "connection"} {
		require.Equal(t, "GET jwks", spans[i].Name)
		require.Equal(t, "CLIENT", spans[i].Kind)
		require.Equal(t, spans[2].ID, spans[i].Parent)
		require.Equal(t, "ERROR", spans[i].Status)
		require.Equal(t, kind, spans[i].Attributes["error.type"])
		require.Equal(t, "127.0.0.1", spans[i].Attributes["server.address"])
		require.NotContains(t, spans[i].String(), "hunter2")
	}
}
