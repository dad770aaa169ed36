package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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
	tooMany := func(path string, headers ...string) {
		t.Helper()
		r := g.get(t, path, headers...)
		require.Equal(t, 429, r.status, r.line())
		require.Equal(t, `{"error":"Too many requests"}`, r.body)
		require.Equal(t, []string{"application/json"}, r.header.Values("content-type"))
		seconds, err := strconv.Atoi(r.header.Get("retry-after"))
		require.NoError(t, err)
		require.Positive(t, seconds)
		name := map[string]string{"/p/few": "few", "/p/strangers": "address"}[path]
		require.Equal(t, []string{fmt.Sprintf(`"%s";r=0;t=%d`, name, seconds)}, r.header.Values("ratelimit"))
		require.Nil(t, r.arrived)
		require.Empty(t, r.header.Values("set-cookie"))
	}
	session, again, other := cookie(g.login(t, bob)), cookie(g.login(t, bob)), cookie(g.login(t, alice))
	for i := range 6 {
		r := g.get(t, "/p/few", []string{session, again}[i%2])
		requireAllowed(t, r, bob)
		require.Equal(t, []string{`"few";q=6;w=3600`}, r.header.Values("ratelimit-policy"))
		require.Regexp(t, fmt.Sprintf(`^"few";r=%d;t=\d+$`, 5-i), r.header.Get("ratelimit"))
	}
	for range 4 {
		tooMany("/p/few", session)
		tooMany("/p/few", again)
	}
	requireAllowed(t, g.get(t, "/p/few", other), alice)
	requireDenied(t, g.get(t, "/p/few"), 401, noToken)
	requireDenied(t, g.get(t, "/p/few", cookie("s%3Ax.y")), 401, invalidSession)

	for range 4 {
		requireAllowed(t, g.get(t, "/p/strangers"), nobody)
	}
	// An address that the client makes up is not its own.
	tooMany("/p/strangers", "x-forwarded-for: 203.0.113.7", "x-real-ip: 203.0.113.7", "forwarded: for=203.0.113.7")

	requireAllowed(t, g.get(t, "/p/closed"), nobody)
	requireAllowed(t, g.get(t, "/p/lenient"), nobody)
	s.redis.Kill()
	r := g.get(t, "/p/closed")
	requireDenied(t, r, 503, unavailable)
	require.Empty(t, r.header.Values("ratelimit"))
	for range 8 { // beyond the first failures, too
		r = g.get(t, "/p/lenient")
		requireAllowed(t, r, nobody)
		require.Empty(t, r.header.Values("ratelimit"), "nothing is known")
	}
	uncounted := 0
	for _, replica := range s.replicas {
		text, err := replica.metrics(t.Context())
		require.NoError(t, err)
		uncounted += metric(t, text, `gatehouse_rate_limit_uncounted_total{limit="lenient"}`)
	}
	require.Equal(t, 8, uncounted)
}

// TestRateLimitsByWhatIsCounted: each limit counts its callers apart, over all
// replicas.
func TestRateLimitsByWhatIsCounted(t *testing.T) {
	s := start(t, options{replicas: 2, config: `
rate_limits:
  user: {by: user, limit: 4, per: 1h}
  session: {by: session, limit: 4, per: 1h}
  org: {by: org, limit: 4, per: 1h}
  key: {by: api_key, limit: 4, per: 1h}
  address: {by: address, limit: 4, per: 1h}
policies:
  by-user: {credentials: [session], rate_limit: user}
  by-session: {credentials: [session], rate_limit: session}
  by-org: {credentials: [session], rate_limit: org}
  any: {credentials: [api_key], rate_limit: key}
  by-address: {credentials: [session], rate_limit: address}
routes:
- {path: /p/user/*, policy: by-user}
- {path: /p/session/*, policy: by-session}
- {path: /p/org/*, policy: by-org}
- {path: /p/key/*, policy: any}
- {path: /p/address/*, policy: by-address}
`})
	g := s.gateway(t)
	login := func(id, org string) string { return cookie(g.login(t, identity{id, id + "@example.com", "[]", org})) }
	first, again, colleague, stranger := login("ann", "org-7"), login("ann", "org-7"), login("ben", "org-7"), login("cid", "org-8")
	for path, tt := range map[string]struct{ counted, together, apart string }{
		"/p/user":    {first, again, colleague},
		"/p/session": {first, "", again},
		"/p/org":     {first, colleague, stranger},
		"/p/key":     {apiKey(apiKeys.billing), apiKey(apiKeys.billingNew), apiKey(apiKeys.elsewhere)},
		"/p/address": {first, stranger, ""},
	} {
		ask := func(credential string) int { return g.get(t, path, credential).status }
		for i := range 4 {
			credential := tt.counted
			if i%2 == 1 && tt.together != "" {
				credential = tt.together
			}
			require.Equal(t, 200, ask(credential), path)
		}
		require.Equal(t, 429, ask(tt.counted), path)
		if tt.together != "" {
			require.Equal(t, 429, ask(tt.together), path)
		}
		if tt.apart != "" {
			require.Equal(t, 200, ask(tt.apart), path)
		}
	}
	for _, replica := range s.replicas {
		text, err := replica.metrics(t.Context())
		require.NoError(t, err)
		require.Contains(t, text, `decision="allow",policy="by-user"`, "each replica had its part")
	}
}

// TestPoliciesTellMoreThanTheIdentity: what a policy tells comes from the credential;
// what a client sends under these names arrives nowhere, under whatever policy.
func TestPoliciesTellMoreThanTheIdentity(t *testing.T) {
	s := start(t, options{config: `
policies:
  told: {credentials: [session, bearer], anonymous: true, headers: {X-Plan: session.plan, x-scope: claims.scope, x-tenant-id: session.tenant.id, x-kind: identity.kind}, metadata: {plan: session.plan}}
routes:
- {path: /p/told/*, policy: told}
- {path: /p/session/*, policy: session}
- {path: /p/open/*, policy: open}
- {path: /p/trial/*, policy: trial}
`})
	shipped := s.gateway(t, inAccessLog("plan"))
	bare := s.gateway(t, append(variants[defenceOff], inAccessLog("plan"))...)
	plan := cookie(signed(shipped.session(t, with(bob.record(), object{"plan": "pro \u00fc\r\nx-user-id: root", "tenant": object{"id": 7}})), secretCurrent))
	token := bearer(shipped.pem.issue(with(claimsOf(pemIssuer, bob), object{"scope": "orders:read", "plan": "token"})))
	spoofs := [][]string{
		nil,
		{"x-plan: root", "x-scope: root", "x-tenant-id: root", "x-kind: root"},
		{"X-PLAN: root", "x-plan: toor", "X-Tenant-ID:"},
		{"Connection: close, x-plan, x-kind"},
	}
	underscores := []string{"x_plan: root", "X_Scope: root", "x_tenant-id: root", "x-tenant_id: root", "x_tenant_id: root", "x_kind: root"}
	for _, g := range []*gateway{shipped, bare} {
		all := spoofs
		if g == bare { // the shipped one refuses them, see TestSpoofedIdentityNeverArrives
			all = append(all, underscores)
		}
		for _, tc := range []struct {
			path, credential string
			as               identity
			want             map[string]string
		}{
			{"/p/told", plan, bob, map[string]string{"x-plan": "pro%20%C3%BC%0D%0Ax-user-id:%20root", "x-tenant-id": "7", "x-kind": "session"}},
			{"/p/told", token, bob, map[string]string{"x-scope": "orders:read", "x-kind": "bearer"}},
			{"/p/told", "x-none: 1", nobody, nil},
			{"/p/told", cookie("s%3Aforged.forged"), nobody, nil},
			{"/p/session", plan, bob, nil},
			{"/p/open", plan, nobody, nil},
			{"/p/trial", "x-none: 1", nobody, nil},
			{"/public/x", token, bob, nil},
		} {
			for _, spoof := range all {
				r := g.get(t, tc.path, append([]string{tc.credential}, spoof...)...)
				requireAllowed(t, r, tc.as)
				got := map[string]string{}
				for _, h := range r.arrived.headers {
					folded := strings.ToLower(strings.ReplaceAll(h.name, "_", "-"))
					if slices.Contains([]string{"x-plan", "x-scope", "x-tenant-id", "x-kind"}, folded) {
						require.NotContains(t, got, h.name, "twice")
						got[h.name] = h.value
					}
				}
				if tc.want == nil {
					tc.want = map[string]string{}
				}
				require.Equal(t, tc.want, got, "%s %s %q", tc.path, tc.credential, spoof)
			}
		}
		r := g.get(t, "/p/told", plan)
		line := g.logLine(t, g.AwaitLine, r.header.Get("x-request-id"))
		require.Equal(t, "pro \u00fc\r\nx-user-id: root", line["authz"].(object)["plan"])
	}
}

// inAccessLog adds a field of the dynamic metadata to Envoy's access log.
func inAccessLog(name string) edit {
	return func(config map[string]any) error {
		found := false
		each(config, func(m map[string]any) {
			if format, ok := m["json_format"].(map[string]any); ok {
				format["authz"].(map[string]any)[name] = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:" + name + ")%"
				found = true
			}
		})
		if !found {
			return errors.New("the Envoy configuration has no json_format: adapt the test")
		}
		return nil
	}
}

// TestServeStale: while Redis is out of reach, who was seen shortly before passes
// where the policy says so, as long as it says, and it is counted. What was revoked
// before stays so, and who was not seen gets 503.
func TestServeStale(t *testing.T) {
	s := start(t, options{config: `
policies:
  stale: {credentials: [session, bearer], on_store_outage: serve_stale, stale_for: 1h}
  short: {credentials: [session, bearer], on_store_outage: serve_stale, stale_for: 1ms}
  admins: {credentials: [session], roles: {any: [admin]}, on_store_outage: serve_stale, stale_for: 1h}
routes:
- {path: /p/session/*, policy: session}
- {path: /p/bearer/*, policy: bearer}
- {path: /p/stale/*, policy: stale}
- {path: /p/short/*, policy: short}
- {path: /p/admins/*, policy: admins}
`})
	g := s.gateway(t)
	seen, unseen := cookie(s.login(t, bob)), cookie(s.login(t, bob))
	token, unseenToken := bearer(s.pem.issue(claimsOf(pemIssuer, bob))), bearer(s.pem.issue(claimsOf(pemIssuer, identity{"erik", "e@example.com", "[]", ""})))
	endedID := s.session(t, bob.record())
	ended := cookie(signed(endedID, secretCurrent))
	requireAllowed(t, g.get(t, "/p/stale", ended), bob)
	require.NoError(t, s.store.Del(t.Context(), "sess:"+endedID).Err())
	until := func(status int, credential string) {
		t.Helper()
		eventually(t, status, func() reply { return g.get(t, "/p/stale", credential) })
	}
	until(401, ended)
	// They are in the cache when they are answered for without a command.
	require.Eventually(t, func() bool {
		before, err := s.commands(t.Context())
		require.NoError(t, err)
		for _, credential := range []string{seen, token} {
			requireAllowed(t, g.get(t, "/p/stale", credential), bob)
		}
		requireDenied(t, g.get(t, "/p/stale", ended), 401, invalidSession)
		after, err := s.commands(t.Context())
		require.NoError(t, err)
		return before["evalsha"] == after["evalsha"] && before["get"] == after["get"] && before["pttl"] == after["pttl"]
	}, patience, 50*time.Millisecond)

	s.redis.Kill()
	eventually(t, 503, func() reply { return g.get(t, "/p/session", seen) })
	for range 2 {
		requireAllowed(t, g.get(t, "/p/stale", seen), bob)
		requireAllowed(t, g.get(t, "/p/stale", token), bob)
		requireDenied(t, g.get(t, "/p/stale", ended), 401, invalidSession)
		requireDenied(t, g.get(t, "/p/stale", unseen), 503, unavailable)
		requireDenied(t, g.get(t, "/p/stale", unseenToken), 503, unavailable)
		requireDenied(t, g.get(t, "/p/stale", cookie("s%3Ax.y")), 401, invalidSession)
		requireDenied(t, g.get(t, "/p/admins", seen), 403, forbidden)
		requireDenied(t, g.get(t, "/p/short", seen), 503, unavailable)
		requireDenied(t, g.get(t, "/p/short", token), 503, unavailable)
		requireDenied(t, g.get(t, "/p/bearer", token), 503, unavailable)
		requireDenied(t, g.get(t, "/banking/1", seen), 503, unavailable) // strict
	}
	r := g.get(t, "/p/stale", token)
	line := g.logLine(t, g.replicas[0].AwaitLine, r.header.Get("x-request-id"))
	require.Equal(t, "serve_stale", line["degraded"])
	require.Equal(t, "INFO", line["level"])
	metrics, err := s.replicas[0].metrics(t.Context())
	require.NoError(t, err)
	// Two of sessions, three of tokens.
	require.GreaterOrEqual(t, metric(t, metrics, `gatehouse_degraded_decisions_total{mode="serve_stale",policy="stale"}`), 5)
	require.Zero(t, metric(t, metrics, `gatehouse_degraded_decisions_total{mode="serve_stale",policy="short"}`))
}

// TestObserve: a policy that only observes refuses nothing, whatever is wrong, says
// what it would have done, and gives nobody an identity that isn't proven.
func TestObserve(t *testing.T) {
	s := start(t, options{config: `
rate_limits: {one: {by: address, limit: 1, per: 1h}}
policies:
  dry: {credentials: [session, bearer, api_key], roles: {all: [member, auditor]}, mode: observe}
  redirects: {credentials: [session], on_unauthenticated: redirect, login_url: /login, mode: observe}
  limited: {anonymous: true, rate_limit: one, mode: observe}
routes:
- {path: /p/dry/*, policy: dry}
- {path: /p/redirects/*, policy: redirects}
- {path: /p/limited/*, policy: limited}
`})
	g := s.gateway(t)
	member, auditor := cookie(s.login(t, bob)), cookie(s.login(t, identity{"erik", "e@example.com", `["auditor","member"]`, ""}))
	for _, tc := range []struct {
		path, credential, wouldDeny, policy string
		as                                  identity
	}{
		{"/p/dry", member, "role", "dry", bob},
		{"/p/dry", "x-none: 1", "no_credential", "dry", nobody},
		{"/p/dry", cookie("s%3Ax.y"), "session_forged", "dry", nobody},
		{"/p/dry", bearer("a.b.c"), "token_invalid", "dry", nobody},
		{"/p/dry", apiKey("wrong-key-of-nobody"), "api_key_unknown", "dry", nobody},
		{"/p/redirects", "Accept: text/html", "no_credential", "redirects", nobody},
		{"/p/dry", auditor, "", "dry", identity{"erik", "e@example.com", `["auditor","member"]`, ""}},
		{"/p/limited", "x-none: 1", "", "limited", nobody},
		{"/p/limited", "x-none: 1", "rate_limited", "limited", nobody},
	} {
		name := `gatehouse_observed_denials_total{policy="` + tc.policy + `",reason="` + tc.wouldDeny + `"}`
		before, err := g.replicas[0].metrics(t.Context())
		require.NoError(t, err)
		r := g.get(t, tc.path, tc.credential, "x-user-id: root", `x-user-roles: ["admin"]`)
		requireAllowed(t, r, tc.as)
		line := g.logLine(t, g.replicas[0].AwaitLine, r.header.Get("x-request-id"))
		require.Equal(t, "allow", line["decision"])
		if tc.wouldDeny == "" {
			require.NotContains(t, line, "would_deny")
			continue
		}
		require.Contains(t, line["would_deny"], tc.wouldDeny)
		after, err := g.replicas[0].metrics(t.Context())
		require.NoError(t, err)
		require.Equal(t, metric(t, before, name)+1, metric(t, after, name), name)
	}
	s.redis.Kill()
	eventually(t, 200, func() reply { return g.get(t, "/p/dry", member) })
	requireAllowed(t, eventually(t, 200, func() reply { return g.get(t, "/p/dry", cookie(signed(newSessionID(), secretCurrent))) }), nobody)
}

// TestRolesAndFreshness: every one of roles.all, and one of roles.any beside; and
// what strict asks of Redis, which the cache answers otherwise.
func TestRolesAndFreshness(t *testing.T) {
	s := start(t, options{config: `
policies:
  both: {credentials: [session], roles: {all: [member, auditor], any: [day, night]}}
  strict: {credentials: [session, bearer], freshness: strict}
routes:
- {path: /p/both/*, policy: both}
- {path: /p/strict/*, policy: strict}
- {path: /p/user/*, policy: user}
`})
	g := s.gateway(t)
	for roles, allowed := range map[string]bool{
		`["member","auditor","night"]`: true, `["x","day","auditor","member"]`: true, `["member","auditor"]`: false, `["member","day","night"]`: false,
		`[]`: false, `["Member","auditor","day"]`: false, `["member,auditor","day"]`: false,
	} {
		who := identity{"erik", "e@example.com", roles, "org-1"}
		r := g.get(t, "/p/both", cookie(s.login(t, who)))
		if allowed {
			requireAllowed(t, r, who)
		} else {
			requireDenied(t, r, 403, forbidden)
		}
	}
	session, token := cookie(s.login(t, bob)), bearer(s.pem.issue(claimsOf(pemIssuer, bob)))
	reads := func(path string) (n int) {
		count := func() (n int) {
			counts, err := s.commands(t.Context())
			require.NoError(t, err)
			return counts["get"] + counts["pttl"]
		}
		for _, credential := range []string{session, token} {
			requireAllowed(t, g.get(t, path, credential), bob)
		}
		before := count()
		for _, credential := range []string{session, token} {
			requireAllowed(t, g.get(t, path, credential), bob)
		}
		return count() - before
	}
	require.Eventually(t, func() bool { return reads("/p/user") == 0 }, patience, 50*time.Millisecond)
	require.GreaterOrEqual(t, reads("/p/strict"), 2)
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
