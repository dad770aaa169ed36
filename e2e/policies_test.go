package e2e

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRateLimits: a limit is one for all replicas, whoever is over it gets 429
// and is told when to come back, and everybody else is left alone.
func TestRateLimits(t *testing.T) {
	s := start(t, options{replicas: 2, config: `
rate_limits:
  few: {by: user, limit: 6, per: 1h}
  address: {by: address, limit: 4, per: 1h}
  closed: {by: address, limit: 1000, per: 1h, on_outage: deny}
  lenient: {by: address, limit: 1000, per: 1h, on_outage: allow}
policies:
  few: {credentials: [session], rate_limit: few}
  strangers: {anonymous: true, rate_limit: address}
  closed: {anonymous: true, rate_limit: closed}
  lenient: {anonymous: true, rate_limit: lenient}
routes:
- {path: /p/few/*, policy: few}
- {path: /p/strangers/*, policy: strangers}
- {path: /p/closed/*, policy: closed}
- {path: /p/lenient/*, policy: lenient}
`})
	g := s.gateway(t)
	tooMany := func(r reply) {
		t.Helper()
		require.Equal(t, 429, r.status, r.line())
		require.Equal(t, `{"error":"Too many requests"}`, r.body)
		require.Equal(t, []string{"application/json"}, r.header.Values("content-type"))
		seconds, err := strconv.Atoi(r.header.Get("retry-after"))
		require.NoError(t, err)
		require.Positive(t, seconds)
		require.Nil(t, r.arrived)
		require.Empty(t, r.header.Values("set-cookie"))
	}
	session, again, other := cookie(g.login(t, bob)), cookie(g.login(t, bob)), cookie(g.login(t, alice))
	for i := range 6 {
		requireAllowed(t, g.get(t, "/p/few", []string{session, again}[i%2]), bob)
	}
	for range 4 {
		tooMany(g.get(t, "/p/few", session))
		tooMany(g.get(t, "/p/few", again))
	}
	requireAllowed(t, g.get(t, "/p/few", other), alice)
	requireDenied(t, g.get(t, "/p/few"), 401, noToken)
	requireDenied(t, g.get(t, "/p/few", cookie("s%3Ax.y")), 401, invalidSession)

	for range 4 {
		requireAllowed(t, g.get(t, "/p/strangers"), nobody)
	}
	// An address that the client makes up is not its own.
	tooMany(g.get(t, "/p/strangers", "x-forwarded-for: 203.0.113.7", "x-real-ip: 203.0.113.7", "forwarded: for=203.0.113.7"))

	requireAllowed(t, g.get(t, "/p/closed"), nobody)
	requireAllowed(t, g.get(t, "/p/lenient"), nobody)
	s.redis.Kill()
	requireDenied(t, g.get(t, "/p/closed"), 503, unavailable)
	requireAllowed(t, g.get(t, "/p/lenient"), nobody)
}

// TestConditions: what CEL says decides, and an expression that fails refuses.
func TestConditions(t *testing.T) {
	s := start(t, options{config: `
policies:
  scope: {credentials: [bearer], condition: 'claims.scope.contains("orders:read")'}
  own: {credentials: [session, bearer], condition: 'request.path.startsWith("/p/own/" + identity.id + "/") || "admin" in identity.roles'}
  reader: {credentials: [session], condition: 'request.method == "GET" && request.host == "gateway.example.com" && !request.query.contains("debug")'}
  plan: {credentials: [session], condition: 'session.plan == "pro" && identity.kind == "session" && identity.org == "org-1"'}
routes:
- {path: /p/scope/*, policy: scope}
- {path: /p/own/*, policy: own}
- {path: /p/reader/*, policy: reader}
- {path: /p/plan/*, policy: plan}
`})
	g := s.gateway(t)
	member, admin := cookie(g.login(t, bob)), cookie(g.login(t, alice))
	token := func(scope any) string {
		return bearer(g.pem.issue(with(claimsOf(pemIssuer, bob), object{"scope": scope})))
	}

	requireAllowed(t, g.get(t, "/p/scope", token("profile orders:read")), bob)
	for _, scope := range []any{"profile", nil, []string{"orders:read"}, 7} {
		r := g.get(t, "/p/scope", token(scope))
		requireDenied(t, r, 403, forbidden)
		requireChallenge(t, r, "insufficient_scope")
	}
	requireAllowed(t, g.get(t, "/p/own/bob/x", member), bob)
	requireDenied(t, g.get(t, "/p/own/carol/x", member), 403, forbidden)
	requireDenied(t, g.get(t, "/p/own/bobby/x", member), 403, forbidden)
	requireAllowed(t, g.get(t, "/p/own/carol/x", admin), alice)
	requireAllowed(t, g.get(t, "/p/own/%62ob/x", member), bob)
	requireAllowed(t, g.get(t, "/p/reader", member), bob)
	requireDenied(t, g.do(t, "POST", "/p/reader", member), 403, forbidden)
	requireDenied(t, g.get(t, "/p/reader?debug=1", member), 403, forbidden)
	requireDenied(t, g.get(t, "/p/reader", member, "Host: other.example.com"), 403, forbidden)
	requireDenied(t, g.get(t, "/p/plan", member), 403, forbidden) // its session has no plan
	pro := cookie(signed(g.session(t, with(bob.record(), object{"plan": "pro"})), secretCurrent))
	requireAllowed(t, g.get(t, "/p/plan", pro), bob)
}

// TestDecisionsAreTold: the reason, which the client never learns, is in the
// log of Gatehouse, in that of Envoy and in the metrics.
func TestDecisionsAreTold(t *testing.T) {
	both(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		for _, tc := range []struct {
			path, credential               string
			decision, reason, policy, kind string
			user, organization, wouldDeny  any
		}{
			{"/users/me", session, "allow", "authenticated", "user", "session", "bob", "org-1", nil},
			{"/users/admin", session, "deny", "role", "admin", "session", "bob", "org-1", nil},
			{"/users/me", "x-none: 1", "deny", "no_credential", "user", "", nil, nil, nil},
			{"/public/x", "x-none: 1", "allow", "anonymous", "public", "", nil, nil, nil},
			{"/users/me", bearer("a.b.c"), "deny", "token_invalid", "user", "bearer", nil, nil, nil},
			{"/p/trial", session, "allow", "authenticated", "trial", "session", "bob", "org-1", "role"},
		} {
			before, err := g.replicas[0].metrics(t.Context())
			require.NoError(t, err)
			r := g.get(t, tc.path+"?secret=in-the-query", tc.credential)
			id := r.header.Get("x-request-id")
			require.NotEmpty(t, id)

			envoyLine := g.logLine(t, g.AwaitLine, id)
			told := envoyLine["authz"].(object)
			for name, want := range map[string]any{
				"decision": tc.decision, "reason": tc.reason, "policy": tc.policy, "user": tc.user, "organization": tc.organization,
			} {
				require.Equal(t, want, told[name], "%s in Envoy's log", name)
			}
			require.NotContains(t, mustJSON(t, envoyLine), "in-the-query")

			line := g.logLine(t, g.replicas[0].AwaitLine, id)
			for name, want := range map[string]string{"decision": tc.decision, "reason": tc.reason, "policy": tc.policy, "credential": tc.kind} {
				require.Equal(t, want, line[name], "%s in Gatehouse's log", name)
			}
			require.NotContains(t, mustJSON(t, line), "in-the-query")
			if tc.wouldDeny != nil {
				require.Contains(t, line["would_deny"], tc.wouldDeny)
			}

			after, err := g.replicas[0].metrics(t.Context())
			require.NoError(t, err)
			name := `gatehouse_decisions_total{credential="` + tc.kind + `",decision="` + tc.decision + `",policy="` + tc.policy + `",reason="` + tc.reason + `"}`
			require.Equal(t, metric(t, before, name)+1, metric(t, after, name), name)
			if tc.wouldDeny != nil {
				name := `gatehouse_observed_denials_total{policy="trial",reason="role"}`
				require.Equal(t, metric(t, before, name)+1, metric(t, after, name), name)
			}
		}
	})
}

// logLine waits for the JSON line of a request.
func (g *gateway) logLine(t *testing.T, await func(context.Context, func(string) bool) (string, error), requestID string) (entry object) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	line, err := await(ctx, func(line string) bool { return strings.Contains(line, requestID) })
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(line), &entry))
	return entry
}

// metric returns the value of a series, 0 when there is none yet.
func metric(t *testing.T, text, series string) int {
	t.Helper()
	_, rest, found := strings.Cut(text, "\n"+series+" ")
	if !found {
		return 0
	}
	value, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(value)
	require.NoError(t, err)
	return n
}
