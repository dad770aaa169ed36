package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// The six cases of the specification's "which credential for which case", each
// told as it happens to somebody.

// Internal services behind the gateway: a session for people, a key for
// callers inside, and services that know neither.
func TestStoryInternalServices(t *testing.T) {
	shared := sharedGateway(t, asShipped)
	g := shared.gateway(t, shared.startServices(t)...)

	// Bob comes to work and logs in once, for every service.
	b := g.browse()
	b.logIn(t, bobsLogin)
	require.Equal(t, "bob", b.open(t, "/users/me").json(t)["user"].(object)["userId"])
	require.NotEmpty(t, b.open(t, "/orders").json(t)["orders"])
	// He tries what is not his.
	requireAnswerOf(t, b.open(t, "/users/admin/stats"), 403, forbidden)
	requireAnswerOf(t, b.open(t, "/users/me", "x-user-id: alice"), 200, "")
	// He switches to his other organization; the very next call is there.
	require.Equal(t, 200, b.request(t, "PATCH", "/auth/session", object{"organizationId": "org-2"}).status)
	require.Equal(t, "org-2", b.open(t, "/orders").json(t)["user"].(object)["organizationId"])
	// He goes home, and the cookie that stayed in the browser's backup is worth nothing.
	stolen := b.copy()
	requireAnswer(t, b.post(t, "/auth/logout", nil), 200, loggedOut)
	requireAnswerOf(t, stolen.open(t, "/orders"), 401, invalidSession)
}

// requireAnswerOf checks status and body of whoever answered; an empty body is
// any.
func requireAnswerOf(t *testing.T, r reply, status int, body string) {
	t.Helper()
	require.Equal(t, status, r.status, r.line())
	if body != "" {
		require.Equal(t, body, r.body)
	}
}

// A third party's program calls the API with a bearer token of an issuer that
// the policy lists, and nothing else opens that door.
func TestStoryThirdPartyAPI(t *testing.T) {
	s := start(t, options{config: `
policies:
  partner: {credentials: [bearer], issuers: ["` + pemIssuer + `"], condition: 'claims.scope.contains("orders:read")'}
routes:
- {path: /p/partner/*, policy: partner}
`})
	g := s.gateway(t)
	token := s.pem.issue(with(claimsOf(pemIssuer, bob), object{"scope": "orders:read profile"}))
	requireAllowed(t, g.get(t, "/p/partner/orders", bearer(token)), bob)
	// Another scope, another issuer, our own user's token, a session: no.
	requireDenied(t, g.get(t, "/p/partner/orders", bearer(s.pem.issue(with(claimsOf(pemIssuer, bob), object{"scope": "profile"})))), 403, forbidden)
	a := g.app(t, bobsLogin)
	requireDenied(t, a.call(t, "/p/partner/orders"), 403, forbidden)
	b := g.browse()
	b.logIn(t, bobsLogin)
	requireDenied(t, b.open(t, "/p/partner/orders"), 401, noToken)
	// The partner reports a leak: the token is gone at the next request.
	require.Equal(t, 200, g.browse().post(t, "/auth/revoke", "token="+token, "Content-Type: application/x-www-form-urlencoded").status)
	requireDenied(t, g.get(t, "/p/partner/orders", bearer(token)), 401, invalidToken)
}

// A phone: short-lived access tokens, a refresh token that rotates, and an end
// at once when it is lost.
func TestStoryMobileApp(t *testing.T) {
	s := start(t, options{config: "tokens: {access_ttl: 2s, refresh_grace: 30s}\n"})
	g := s.gateway(t)
	phone := g.app(t, bobsLogin)
	requireAllowed(t, phone.call(t, "/orders"), bobsLogin.identity())

	// The token expires in the pocket (the leeway for our own clock is part of it).
	_, claims := decoded(t, phone.access)
	require.InDelta(t, 2, claims["exp"].(float64)-claims["iat"].(float64), 0)
	require.Equal(t, 200, phone.renew(t).status)
	requireAllowed(t, phone.call(t, "/orders"), bobsLogin.identity())

	// The network drops the answer: the app asks again with the same token and
	// gets the same successor.
	lost := phone.refresh
	require.Equal(t, 200, phone.renew(t).status)
	successor := phone.refresh
	phone.refresh = lost
	require.Equal(t, 200, phone.renew(t).status)
	require.Equal(t, successor, phone.refresh)

	// An administrator promotes Bob; the phone notices at the next call, without
	// a new login or a new token.
	admin := g.browse()
	admin.logIn(t, alicesLogin)
	require.Equal(t, 200, admin.request(t, "PATCH", "/auth/users/bob/sessions", object{"roles": []string{"admin"}}).status)
	requireAllowed(t, phone.call(t, "/users/admin/stats"), identity{"bob", "bob@example.com", `["admin"]`, "org-1"})

	// The phone is lost. Bob ends its login from his laptop.
	laptop := g.browse()
	laptop.post(t, "/auth/login", bobsLogin.credentials())
	tokens := list(laptop.open(t, "/auth/sessions").json(t)["tokens"])
	require.Len(t, tokens, 1)
	require.Equal(t, phone.agent, tokens[0]["userAgent"])
	require.Equal(t, 200, laptop.request(t, "DELETE", "/auth/sessions/"+text(tokens[0]["handle"]), nil).status)
	requireDenied(t, phone.call(t, "/orders"), 401, invalidToken)
	requireAnswer(t, phone.renew(t), 401, invalidRefresh)
}

// A single-page app may use either: a session, or a token in memory with the
// refresh token in a cookie that no script can read.
func TestStorySinglePageApp(t *testing.T) {
	g := sharedGateway(t, asShipped)
	page := []string{"Origin: https://gateway.example.com", "Sec-Fetch-Site: same-origin"}
	b := g.browse()
	b.headers = page
	b.logIn(t, bobsLogin)
	requireAllowed(t, b.post(t, "/orders", object{}), bobsLogin.identity())
	requireAnswer(t, b.post(t, "/auth/logout", nil), 200, loggedOut)
	requireDenied(t, b.open(t, "/orders"), 401, noToken)

	r := b.post(t, "/auth/token", bobsLogin.credentials())
	require.Equal(t, 200, r.status)
	require.NotContains(t, r.body, b.cookies["refreshToken"].value)
	access := journal.secret("an access token", text(r.json(t)["accessToken"]))
	requireAllowed(t, b.open(t, "/orders", bearer(access)), bobsLogin.identity())
	// The page is loaded again, its memory is empty, the cookie is not.
	r = b.post(t, "/auth/refresh", nil)
	require.Equal(t, 200, r.status, r.line())
	access = journal.secret("an access token", text(r.json(t)["accessToken"]))
	requireAllowed(t, b.open(t, "/orders", bearer(access)), bobsLogin.identity())
	// The refresh cookie never reaches a service, though the browser has others for it.
	require.Contains(t, b.cookies, "refreshToken")
	b.cookies["theme"] = keptCookie{"dark", "/"}
	require.Equal(t, []string{"theme=dark"}, b.open(t, "/orders", bearer(access)).arrived.values("cookie"))
	requireAnswer(t, b.post(t, "/auth/logout", nil, bearer(access)), 200, loggedOut)
	requireDenied(t, g.get(t, "/orders", bearer(access)), 401, invalidToken)
	requireAnswer(t, b.post(t, "/auth/refresh", nil), 401, noRefreshToken)
}

// High security: session only, read fresh, recent authentication, short idle
// time, lockout in mid-session.
func TestStoryHighSecurity(t *testing.T) {
	s := start(t, options{config: `
policies:
  vault: {credentials: [session], freshness: strict, max_auth_age: 15m, idle_timeout: 10s}
routes:
- {path: /p/vault/*, policy: vault}
- {path: /p/session/*, policy: session}
`})
	g := s.gateway(t)
	b := g.browse()
	b.logIn(t, bobsLogin)
	requireAllowed(t, b.open(t, "/p/vault"), bobsLogin.identity())
	requireAllowed(t, b.open(t, "/banking/1"), bobsLogin.identity())
	// Tokens don't open it, nor does a login of this morning.
	a := g.app(t, bobsLogin)
	requireDenied(t, a.call(t, "/p/vault"), 401, noToken)
	old := cookie(signed(s.session(t, with(bob.record(), object{"authTime": time.Now().Add(-16 * time.Minute).Unix()})), secretCurrent))
	requireDenied(t, g.get(t, "/p/vault", old), 401, invalidSession)
	requireAllowed(t, g.get(t, "/p/session", old), bob)
	// Locked out in mid-session, by an administrator.
	admin := g.browse()
	admin.logIn(t, alicesLogin)
	require.Equal(t, 200, admin.request(t, "PATCH", "/auth/users/bob/sessions", object{"disabled": true}).status)
	requireDenied(t, b.open(t, "/p/vault"), 401, invalidSession)
	requireDenied(t, b.open(t, "/p/session"), 401, invalidSession)
	requireDenied(t, a.call(t, "/users/me"), 401, invalidToken)
	require.Equal(t, 200, admin.request(t, "PATCH", "/auth/users/bob/sessions", object{"disabled": false}).status)
	requireAllowed(t, b.open(t, "/p/vault"), bobsLogin.identity())
	// He goes for a coffee, and the session is over: it was last seen longer ago. The note
	// of a request before may come later than the test's own.
	waitFor(t, func() bool {
		longAgo := time.Now().Add(-11 * time.Second).UnixMilli()
		_ = s.store.SetArgs(t.Context(), s.seenKey(t, b), longAgo, redis.SetArgs{Mode: "XX", KeepTTL: true})
		return b.open(t, "/p/vault").status == 401
	})
	requireDenied(t, b.open(t, "/p/vault"), 401, invalidSession)
	requireDenied(t, b.open(t, "/p/session"), 401, invalidSession)
	require.Equal(t, http.StatusOK, b.post(t, "/auth/login", bobsLogin.credentials()).status)
	requireAllowed(t, b.open(t, "/p/vault"), bobsLogin.identity())
}

// seenKey is the key with the time of the session's last use.
func (s *stack) seenKey(t *testing.T, b *browser) string {
	t.Helper()
	return "gatehouse:seen:{sess:" + b.sessionID(t) + "}"
}
