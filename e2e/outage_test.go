package e2e

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// everyCredential is one request for each case that an outage tells apart.
type everyCredential struct {
	session, token, key, forged, badToken string
}

func (s *stack) everyCredential(t *testing.T) everyCredential {
	t.Helper()
	return everyCredential{
		session: cookie(s.login(t, bob)), token: bearer(s.pem.issue(claimsOf(pemIssuer, bob))), key: apiKey(apiKeys.billing),
		forged: cookie(signed(newSessionID(), "nobody's secret")), badToken: bearer("a.b.c"),
	}
}

// requireUnavailable checks the answers while Redis is out of reach: 503 for
// whoever would have to be looked up, and nothing but that; all others as
// always.
func (g *gateway) requireUnavailable(t *testing.T, c everyCredential) {
	t.Helper()
	navigation := []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept: text/html"}
	for path, credential := range map[string]string{
		"/users/me": c.session, "/users/admin/stats": c.token, "/orders": c.token, "/banking/1": c.session, "/p/web/page": c.session,
		"/p/bearer": c.token, "/p/session": c.session,
		// Open to the anonymous, but who knows whether these are?
		"/public/hello": c.session, "/public/x": c.token,
	} {
		r := g.get(t, path, append([]string{credential, "x-user-id: root"}, navigation...)...)
		requireDenied(t, r, http.StatusServiceUnavailable, unavailable)
		r = g.do(t, "POST", path, credential)
		requireDenied(t, r, http.StatusServiceUnavailable, unavailable)
	}
	// Known without Redis.
	requireAllowed(t, g.get(t, "/users/internal/x", c.key), identity{"service:billing", "", "[]", ""})
	requireDenied(t, g.get(t, "/users/internal/x", apiKey("wrong-key-of-nobody")), 403, forbidden)
	requireDenied(t, g.get(t, "/users/me"), 401, noToken)
	requireDenied(t, g.get(t, "/users/me", c.forged), 401, invalidSession)
	requireDenied(t, g.get(t, "/users/me", c.badToken), 401, invalidToken)
	requireAllowed(t, g.get(t, "/public/hello"), nobody)
	requireAllowed(t, g.get(t, "/public/hello", c.forged), nobody)
	requireAllowed(t, g.get(t, "/p/open", c.session, c.token), nobody)
	requireDenied(t, g.get(t, "/users/%252fadmin", c.session), 400, badRequest)
}

// TestRedisOutage: Redis is killed, comes back empty, freezes and thaws. Every
// answer is honest all the way, also where Envoy would rather let requests
// pass, and nobody has to be restarted.
func TestRedisOutage(t *testing.T) {
	s := start(t, options{hurried: true, config: `
redis: {timeout: 200ms}
policies:
  tolerant: {credentials: [bearer, session], on_store_outage: accept_bearer}
routes:
- {path: /p/session/*, policy: session}
- {path: /p/bearer/*, policy: bearer}
- {path: /p/web/*, policy: web}
- {path: /p/open/*, policy: open}
- {path: /p/tolerant/*, policy: tolerant}
`})
	gateways := map[string]*gateway{asShipped: s.gateway(t), failOpen: s.gateway(t, variants[failOpen]...)}
	works := func(t *testing.T) everyCredential {
		t.Helper()
		c := s.everyCredential(t)
		for name, g := range gateways {
			eventually(t, 200, func() reply { return g.get(t, "/users/me", c.session) })
			for range 3 {
				requireAllowed(t, g.get(t, "/users/me", c.session), bob)
				requireAllowed(t, g.get(t, "/banking/1", c.session), bob)
				requireAllowed(t, g.get(t, "/orders", c.token), bob)
				requireAllowed(t, g.get(t, "/p/tolerant", c.token), bob)
			}
			require.NotEmpty(t, name)
		}
		return c
	}
	outage := func(t *testing.T, c everyCredential) {
		t.Helper()
		for name, g := range gateways {
			t.Run(name, func(t *testing.T) {
				// What was cached may answer until the invalidation channel is
				// found dead, and not longer.
				eventually(t, 503, func() reply { return g.get(t, "/users/me", c.session) })
				for range 2 {
					g.requireUnavailable(t, c)
				}
				// Where the policy says so, a good token passes, its claims
				// unconfirmed; nothing else does.
				requireAllowed(t, g.get(t, "/p/tolerant", c.token), bob)
				requireDenied(t, g.get(t, "/p/tolerant", c.session), 503, unavailable)
				requireDenied(t, g.get(t, "/p/tolerant", c.badToken), 401, invalidToken)
			})
		}
		metrics, err := s.replicas[0].metrics(t.Context())
		require.NoError(t, err)
		require.Regexp(t, `(?m)^gatehouse_degraded_decisions_total\{mode="accept_bearer",policy="tolerant"\} [1-9]`, metrics)
		// The process is fine, and stays in rotation to say 503.
		for _, path := range []string{"/healthz", "/readyz"} {
			status, _ := s.replicas[0].askOps(t, path)
			require.Equal(t, 200, status, path)
		}
		waitFor(t, func() bool { // it looks once a second
			_, body := s.replicas[0].askOps(t, "/readyz")
			return body["store"].(map[string]any)["state"] == "down"
		})
	}

	c := works(t)
	t.Run("killed", func(t *testing.T) {
		s.redis.Kill()
		outage(t, c)
	})
	t.Run("back, and empty", func(t *testing.T) {
		s.startRedis(t)
		eventually(t, 401, func() reply { return gateways[asShipped].get(t, "/users/me", c.session) })
		c = works(t)
	})
	t.Run("frozen", func(t *testing.T) {
		silences := s.replicas[0].silences(t)
		thaw := s.freezeRedis(t)
		defer thaw()
		for name, g := range gateways {
			t.Run(name, func(t *testing.T) {
				// What is cached may answer for as long as the invalidation channel is not
				// known to be dead, and not all of it needs to be.
				asked := map[string]string{"/banking/1": c.session, "/orders": c.token, "/public/hello": c.session}
				for path, credential := range asked {
					eventually(t, 503, func() reply { return g.get(t, path, credential) })
				}
				// Redis hangs, but nobody with it: the answer is Gatehouse's own, and
				// not the gateway's, which would have lost its patience.
				before := s.replicas[0].refusals(t, noAnswer)
				for path, credential := range asked {
					requireDenied(t, g.get(t, path, credential), 503, unavailable)
				}
				require.GreaterOrEqual(t, s.replicas[0].refusals(t, noAnswer), before+3)
				// As long as that may lie at a busy machine, nothing is tolerated.
				waitFor(t, func() bool {
					requireDenied(t, g.get(t, "/orders", c.token), 503, unavailable)
					return s.replicas[0].silences(t) > silences
				})
				requireAllowed(t, g.get(t, "/p/tolerant", c.token), bob)
				requireAllowed(t, g.get(t, "/users/internal/x", c.key), identity{"service:billing", "", "[]", ""})
				requireDenied(t, g.get(t, "/users/me"), 401, noToken)
			})
		}
	})
	t.Run("thawed", func(t *testing.T) { works(t) })
}

// noAnswer are the reasons of who got no answer in time. Which one it is depends on whether
// the replica ran meanwhile.
const noAnswer = "(?:store_unavailable|overloaded)"

// silences returns how many times the store has ceased to answer a replica.
func (r *replica) silences(t *testing.T) int {
	t.Helper()
	text, err := r.metrics(t.Context())
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)^gatehouse_store_silences_total (\d+)$`).FindStringSubmatch(text)
	require.NotNil(t, m)
	n, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	return n
}

// askOps asks the ops listener.
func (r *replica) askOps(t *testing.T, path string) (status int, body map[string]any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.ops+path, http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	require.NoError(t, json.NewDecoder(response.Body).Decode(&body))
	return response.StatusCode, body
}

// TestStartWithoutRedis: it runs, is not ready, answers 503, and works as soon
// as Redis is there.
func TestStartWithoutRedis(t *testing.T) {
	s := start(t, options{})
	g := s.gateway(t)
	c := s.everyCredential(t)
	s.redis.Kill()
	require.NoError(t, s.replicas[0].Stop())
	require.NoError(t, s.replicas[0].restart(t, "/healthz"))
	status, body := s.replicas[0].askOps(t, "/readyz")
	require.Equal(t, 503, status)
	require.Equal(t, "starting", body["status"])
	// An Envoy that finds no healthy replica asks the others all the same.
	eventually(t, 503, func() reply { return g.get(t, "/users/me", c.session) })
	requireDenied(t, g.get(t, "/users/me", c.session), 503, unavailable)

	s.startRedis(t)
	c = s.everyCredential(t)
	eventually(t, 200, func() reply { return g.get(t, "/users/me", c.session) })
	requireAllowed(t, g.get(t, "/orders", c.token), bob)
	require.Eventually(t, func() bool {
		status, _ := s.replicas[0].askOps(t, "/readyz")
		return status == 200
	}, patience, 10*time.Millisecond)
}

// TestGatehouseOutage: without anybody to ask, Envoy lets nobody in.
func TestGatehouseOutage(t *testing.T) {
	s := start(t, options{})
	g := s.gateway(t)
	c := s.everyCredential(t)
	requireAllowed(t, g.get(t, "/users/me", c.session), bob)
	s.replicas[0].Kill()
	for _, path := range []string{"/users/me", "/public/hello", "/p/open", "/users/internal/x", "/misnamed"} {
		requireDenied(t, g.get(t, path, c.session), 503, unavailable)
		requireDenied(t, g.get(t, path), 503, unavailable)
	}
	require.NoError(t, s.replicas[0].restart(t, "/readyz"))
	eventually(t, 200, func() reply { return g.get(t, "/users/me", c.session) })
}

// TestNoCredentialNoRedis: whoever shows nothing, or what can be seen to be
// nothing, costs Redis nothing.
func TestNoCredentialNoRedis(t *testing.T) {
	s := start(t, options{})
	for name, edits := range variants {
		t.Run(name, func(t *testing.T) {
			g := s.gateway(t, edits...)
			c := s.everyCredential(t)
			before, err := s.commands(t.Context())
			require.NoError(t, err)
			for range 5 {
				for _, request := range [][]string{
					{"/users/me"},
					{"/users/admin"},
					{"/users/internal/x"},
					{"/orders"},
					{"/banking"},
					{"/public/hello"},
					{"/p/open"},
					{"/p/web"},
					{"/p/any"},
					{"/misnamed"},
					{"/p/unrouted"},
					{"/"},
					{"/nothing"},
					{"/.well-known/jwks.json"},
					{"/users/me", "x-user-id: root"},
					{"/users/me", "Cookie: theme=dark"},
					{"/users/me", "Authorization: Basic eDp5"},
					// Forged, so Redis is not asked about it.
					{"/users/me", c.forged},
					{"/public/hello", c.forged},
					{"/banking", cookie("s%3Aguess.guess")},
					{"/users/me", cookie("")},
					{"/users/me", cookie("s%3A" + newSessionID() + "." + strings.Repeat("A", 43))},
					{"/users/me", c.badToken},
					{"/users/me", bearer(keys.next().issue(claimsOf(pemIssuer, bob)))},
					{"/users/me", bearer(s.pem.issue(with(claimsOf(pemIssuer, bob), object{"exp": 1})))},
					// Known without Redis.
					{"/users/internal/x", c.key},
					{"/users/internal/x", apiKey("wrong-key-of-nobody")},
					{"/p/any", c.key, c.session},
					// Not even looked at.
					{"/p/open", c.session, c.token},
					{"/users/me;x", c.session},
					{"/users/%252f", c.session},
					{"/misnamed", c.session},
					{"/p/bearer", c.session},
					{"/p/session", c.token},
					{"/skipped", c.session},
				} {
					r := g.get(t, request[0], request[1:]...)
					require.NotContains(t, []int{0, 500, 502, 503}, r.status, "%v: %s", request[0], r.line())
				}
			}
			after, err := s.commands(t.Context())
			require.NoError(t, err)
			require.Equal(t, before, after)

			// And that this counts what it is meant to count:
			requireAllowed(t, g.get(t, "/banking", c.session), bob)
			counted, err := s.commands(t.Context())
			require.NoError(t, err)
			require.Greater(t, counted["get"], after["get"])
		})
	}
}
