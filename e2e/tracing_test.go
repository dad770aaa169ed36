package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/internal/tracing/otlptest"
)

const checkSpan = "envoy.service.auth.v3.Authorization/Check"

// tracingPage are the blocks of docs/tracing.md by their first comment, with the
// collector's address in place of the page's.
func tracingPage(t *testing.T, collector string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../docs/tracing.md")
	require.NoError(t, err)
	blocks := map[string]string{}
	for _, m := range regexp.MustCompile("(?ms)^```yaml\n# ([^\n]*)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		blocks[m[1]] = strings.ReplaceAll(m[2], "otel-collector:4317", collector)
	}
	require.Len(t, blocks, 5, "a block that nobody tries")
	return blocks
}

// tracingInEnvoy does to the shipped configuration what the page says, and records
// so many percent.
func tracingInEnvoy(t *testing.T, page map[string]string, collector string, percent int) []edit {
	t.Helper()
	var manager, cluster map[string]any
	require.NoError(t, yaml.Load([]byte(page["envoy.yaml: in the HttpConnectionManager, beside http_filters"]), &manager))
	require.NoError(t, yaml.Load([]byte(page["envoy.yaml: one of the clusters"]), &cluster))
	tracing := manager["tracing"].(map[string]any)
	require.Equal(t, map[string]any{"value": 1}, tracing["random_sampling"])
	tracing["random_sampling"] = map[string]any{"value": percent}
	return []edit{
		func(config map[string]any) error {
			found := 0
			each(config, func(m map[string]any) {
				if kind, _ := m["@type"].(string); strings.HasSuffix(kind, ".HttpConnectionManager") {
					m["tracing"] = tracing
					found++
				}
			})
			static := config["static_resources"].(map[string]any)
			static["clusters"] = append(static["clusters"].([]any), cluster)
			if found != 1 {
				return fmt.Errorf("%d connection managers, not one", found)
			}
			if config["layered_runtime"] != nil {
				return errors.New("the configuration has a runtime of its own: adapt the test")
			}
			// Envoy sends each span at once, instead of every five seconds.
			config["layered_runtime"] = map[string]any{"layers": []any{map[string]any{
				"name": "test", "static_layer": map[string]any{"tracing": map[string]any{"opentelemetry": map[string]any{"min_flush_spans": 1}}},
			}}}
			return nil
		},
		endpoints("otel_collector", collector),
	}
}

// forgetsClients adds the page's mutations to those that are there.
func forgetsClients(t *testing.T, page map[string]string) edit {
	t.Helper()
	var more []any
	require.NoError(t, yaml.Load([]byte(page["envoy.yaml: in the mutations of early_header_mutation_extensions"]), &more))
	return func(config map[string]any) error {
		found := 0
		each(config, func(m map[string]any) {
			if old, ok := m["mutations"].([]any); ok {
				m["mutations"] = append(slices.Clone(old), more...)
				found++
			}
		})
		if found != 1 {
			return fmt.Errorf("%d lists of mutations, not one", found)
		}
		return nil
	}
}

// trace is that of a request: both of Envoy's spans, and the check's.
type trace struct{ ingress, egress, check otlptest.Span }

// awaitTrace waits until all of them were sent.
func awaitTrace(t *testing.T, c *otlptest.Collector, requestID string) (tr trace) {
	t.Helper()
	require.Eventually(t, func() bool {
		var ok [3]bool
		tr.ingress, ok[0] = c.Find(func(s otlptest.Span) bool { return s.Attributes["guid:x-request-id"] == requestID })
		tr.egress, ok[1] = c.Find(func(s otlptest.Span) bool {
			return s.Service == "gateway" && s.Parent == tr.ingress.ID && strings.Contains(s.Name, "Authorization.Check")
		})
		tr.check, ok[2] = c.Find(func(s otlptest.Span) bool { return s.Name == checkSpan && s.Parent == tr.egress.ID })
		return ok == [3]bool{true, true, true}
	}, 2*patience, 50*time.Millisecond, "no trace of request %s", requestID)
	require.Equal(t, "SERVER", tr.check.Kind)
	require.Equal(t, "gatehouse", tr.check.Service)
	require.Equal(t, tr.ingress.Trace, tr.egress.Trace)
	require.Equal(t, tr.ingress.Trace, tr.check.Trace)
	return tr
}

// below awaits a span below another one.
func below(t *testing.T, c *otlptest.Collector, parent otlptest.Span, wanted func(otlptest.Span) bool) (s otlptest.Span) {
	t.Helper()
	require.Eventually(t, func() bool {
		var ok bool
		s, ok = c.Find(func(s otlptest.Span) bool { return s.Parent == parent.ID && wanted(s) })
		return ok
	}, patience, 50*time.Millisecond, "nothing below %v", parent)
	require.Equal(t, parent.Trace, s.Trace)
	return s
}

func isRedis(s otlptest.Span) bool { return s.Attributes["db.system.name"] == "redis" }

// One trace, from a real Envoy and Gatehouse, by what docs/tracing.md says.
func TestOneTraceOfGatewayAndGatehouse(t *testing.T) {
	need(t)
	c, err := otlptest.Start(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	page := tracingPage(t, c.Addr)
	s := start(t, options{config: page["gatehouse.yaml"] + "  " + page["gatehouse.yaml: below tracing, if the proxy in front writes traceparent itself"] + "redis: {timeout: 400ms}\n"})
	g := s.gateway(t, tracingInEnvoy(t, page, c.Addr, 100)...)
	const clients = "00-11111111111111111111111111111111-2222222222222222-01"

	t.Run("allowed, and Redis below it", func(t *testing.T) {
		session := cookie(s.login(t, bob))
		r := g.get(t, "/users/me?secret=in-the-query", session)
		requireAllowed(t, r, bob)
		tr := awaitTrace(t, c, r.header.Get("x-request-id"))
		require.Empty(t, tr.ingress.Parent)
		require.Empty(t, tr.check.Status)
		require.Equal(t, map[string]string{
			"rpc.system.name": "grpc", "rpc.method": checkSpan, "rpc.response.status_code": "OK",
			"gatehouse.decision": "allow", "gatehouse.reason": "authenticated", "gatehouse.policy": "user", "gatehouse.credential": "session",
		}, tr.check.Attributes)
		asked := below(t, c, tr.check, isRedis)
		require.Equal(t, "CLIENT", asked.Kind)
		require.Empty(t, asked.Status)
		// The service continues Envoy's trace, not the check's.
		require.Contains(t, r.arrived.values("traceparent")[0], tr.ingress.Trace)
	})

	t.Run("a deny", func(t *testing.T) {
		r := g.get(t, "/users/admin", cookie(s.login(t, bob)))
		requireDenied(t, r, 403, forbidden)
		id := r.header.Get("x-request-id")
		tr := awaitTrace(t, c, id)
		require.Equal(t, "deny", tr.check.Attributes["gatehouse.decision"])
		require.Equal(t, "role", tr.check.Attributes["gatehouse.reason"])
		require.Equal(t, "admin", tr.check.Attributes["gatehouse.policy"])
		require.Empty(t, tr.check.Status, "no fault of ours")
		line := g.logLine(t, s.replicas[0].AwaitLine, id)
		require.Equal(t, tr.check.Trace, line["trace_id"])
	})

	t.Run("a client's trace goes on, as far as Envoy believes it", func(t *testing.T) {
		r := g.get(t, "/users/me", cookie(s.login(t, bob)), "traceparent: "+clients)
		tr := awaitTrace(t, c, r.header.Get("x-request-id"))
		require.Equal(t, strings.Repeat("1", 32), tr.check.Trace)
		require.Equal(t, strings.Repeat("2", 16), tr.ingress.Parent, "the client's span is Envoy's parent, not ours")

		none := s.gateway(t, tracingInEnvoy(t, page, c.Addr, 0)...)
		forgets := s.gateway(t, append(tracingInEnvoy(t, page, c.Addr, 100), forgetsClients(t, page))...)
		r = none.get(t, "/users/admin", cookie(s.login(t, bob)), "traceparent: 00-33333333333333333333333333333333-2222222222222222-01", "x-client-trace-id: 3333", "x-envoy-force-trace: true")
		line := g.logLine(t, s.replicas[0].AwaitLine, r.header.Get("x-request-id"))
		require.Equal(t, strings.Repeat("3", 32), line["trace_id"], "in the log, all the same")
		require.Equal(t, 401, none.get(t, "/auth/me", "traceparent: 00-33333333333333333333333333333333-2222222222222222-01").status, "what reaches the auth API Envoy wrote, too")
		r = forgets.get(t, "/users/me", cookie(s.login(t, bob)), "traceparent: "+strings.ReplaceAll(clients, "1111", "4444"))
		tr = awaitTrace(t, c, r.header.Get("x-request-id"))
		require.NotEqual(t, strings.Repeat("4", 32), tr.check.Trace)
		require.Empty(t, tr.ingress.Parent)
		for _, s := range c.Spans() {
			require.NotEqual(t, strings.Repeat("3", 32), s.Trace, "Envoy doesn't record it, whatever the client says")
		}
	})

	t.Run("keys that are fetched", func(t *testing.T) {
		s.idp.publishes(keys.jwks(), keys.next())
		token := keys.next().issue(claimsOf(jwksIssuer, bob))
		r := g.get(t, "/users/me", bearer(token))
		requireAllowed(t, r, bob)
		tr := awaitTrace(t, c, r.header.Get("x-request-id"))
		fetch := below(t, c, tr.check, func(s otlptest.Span) bool { return s.Name == "GET jwks" })
		require.Equal(t, "200", fetch.Attributes["http.response.status_code"])
		below(t, c, tr.check, isRedis)
	})

	t.Run("the auth API", func(t *testing.T) {
		login := g.send(t, "POST /auth/login HTTP/1.1\ncontent-type: application/json\ncontent-length: "+
			fmt.Sprint(len(loginBody(bobsLogin.email, bobsLogin.password)))+"\n\n"+loginBody(bobsLogin.email, bobsLogin.password))
		require.Equal(t, 200, login.status, login.line())
		var span otlptest.Span
		require.Eventually(t, func() bool {
			var ok bool
			span, ok = c.Find(func(s otlptest.Span) bool { return s.Name == "POST /auth/login" && s.Service == "gatehouse" })
			return ok
		}, patience, 50*time.Millisecond)
		require.Equal(t, map[string]string{
			"http.request.method": "POST", "http.route": "/auth/login", "http.response.status_code": "200", "gatehouse.call": "login",
		}, span.Attributes)
		var parent otlptest.Span
		require.Eventually(t, func() (ok bool) {
			parent, ok = c.Find(func(s otlptest.Span) bool { return s.ID == span.Parent })
			return ok
		}, 2*patience, 50*time.Millisecond)
		require.Equal(t, "gateway", parent.Service)
		require.Equal(t, parent.Trace, span.Trace)
		below(t, c, span, isRedis)
	})

	t.Run("an outage is an error, and a collector that is gone is none", func(t *testing.T) {
		session := cookie(s.login(t, bob))
		var tr trace
		waitFor(t, func() bool { // the replica may have stood still, too: then it doesn't blame Redis
			eventually(t, 200, func() reply { return g.get(t, "/banking", session) })
			thaw := s.freezeRedis(t)
			r := g.get(t, "/banking", session)
			thaw()
			require.Equal(t, 503, r.status, r.line())
			tr = awaitTrace(t, c, r.header.Get("x-request-id"))
			require.Equal(t, "ERROR", tr.check.Status)
			require.Regexp(t, "^"+noAnswer+"$", tr.check.Attributes["gatehouse.reason"])
			return tr.check.Attributes["gatehouse.reason"] == "store_unavailable"
		})
		require.Equal(t, "ERROR", below(t, c, tr.check, isRedis).Status)

		// Nothing that opens a door, and nobody's name, in any span of ours.
		for _, s := range c.Spans() {
			if s.Service == "gatehouse" {
				require.NotRegexp(t, `in-the-query|bob|sess:|org-1|eyJ|`+secretCurrent, s.String())
			}
		}
		c.Stop()
		eventually(t, 200, func() reply { return g.get(t, "/users/me", session) })
		for range 20 {
			requireAllowed(t, g.get(t, "/users/me", session), bob)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := s.replicas[0].AwaitLine(ctx, func(line string) bool { return strings.Contains(line, "traces can't be sent") })
		require.NoError(t, err)
		text, err := s.replicas[0].metrics(t.Context())
		require.NoError(t, err)
		require.Positive(t, metric(t, text, `gatehouse_trace_spans_total{result="sent"}`))
	})
}

func loginBody(email, password string) string {
	return fmt.Sprintf(`{"email":%q,"password":%q}`, email, password)
}
