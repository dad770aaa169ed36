package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The bodies of the auth API, to the byte.
const (
	loggedOut          = `{"message":"Logged out successfully"}`
	logoutFailed       = `{"error":"Logout failed"}`
	invalidCredentials = `{"error":"Invalid credentials"}`
	noRefreshToken     = `{"error":"No refresh token"}`
	invalidRefresh     = `{"error":"Invalid refresh token"}`
	notFound           = `{"error":"Not found"}`
	tooManyRequests    = `{"error":"Too many requests"}`
)

// attributes of a Set-Cookie line without its value, sorted.
func attributes(line string) []string {
	parts := strings.Split(line, "; ")
	name, _, _ := strings.Cut(parts[0], "=")
	rest := slices.DeleteFunc(parts[1:], func(p string) bool { return strings.HasPrefix(p, "Expires=") })
	slices.Sort(rest)
	return append([]string{name}, rest...)
}

func TestLogin(t *testing.T) {
	g := sharedGateway(t, asShipped)
	t.Run("a session begins, and the services learn whose it is", func(t *testing.T) {
		b := g.browse()
		r := b.post(t, "/auth/login", bobsLogin.credentials(), "x-user-id: root", `x-user-roles: ["admin"]`)
		require.Equal(t, 200, r.status, r.line())
		require.Equal(t, bobsLogin.user(), r.json(t))
		require.Len(t, r.header.Values("set-cookie"), 1)
		line := r.header.Get("set-cookie")
		require.Equal(t, []string{"sessionId", "HttpOnly", "Max-Age=86400", "Path=/", "SameSite=Strict", "Secure"}, attributes(line))
		require.Regexp(t, `^sessionId=s%3A[A-Za-z0-9_-]{32}\.[A-Za-z0-9%]+;`, line)
		requireAllowed(t, b.open(t, "/users/me"), bobsLogin.identity())
		requireDenied(t, b.open(t, "/users/admin/stats"), 403, forbidden)

		admin := g.browse()
		admin.logIn(t, alicesLogin)
		requireAllowed(t, admin.open(t, "/users/admin/stats"), alicesLogin.identity())
		carol := g.browse()
		carol.logIn(t, carolsLogin) // no roles, no organization
		requireAllowed(t, carol.open(t, "/users/me"), carolsLogin.identity())
	})
	t.Run("the record is one that Express reads", func(t *testing.T) {
		b := g.browse()
		b.logIn(t, bobsLogin)
		id := b.sessionID(t)
		var record object
		require.NoError(t, json.Unmarshal([]byte(g.store.Get(t.Context(), "sess:"+id).Val()), &record))
		require.Equal(t, "bob", record["userId"])
		require.Equal(t, "bob@example.com", record["email"])
		require.Equal(t, []any{"member"}, record["roles"])
		require.Equal(t, "org-1", record["organizationId"])
		require.Equal(t, []any{"org-1", "org-2"}, record["organizations"])
		require.InDelta(t, 86400000, record["cookie"].(object)["originalMaxAge"], 1)
		ttl := g.store.PTTL(t.Context(), "sess:"+id).Val()
		require.InDelta(t, 24*time.Hour, ttl, float64(time.Minute))
	})
	t.Run("every login has an id of its own, and ends the session that it takes the place of", func(t *testing.T) {
		b := g.browse()
		b.logIn(t, bobsLogin)
		before := b.copy()
		b.logIn(t, bobsLogin)
		require.NotEqual(t, before.cookies["sessionId"], b.cookies["sessionId"])
		requireAllowed(t, b.open(t, "/users/me"), bobsLogin.identity())
		requireDenied(t, before.open(t, "/users/me"), 401, invalidSession)
	})
	t.Run("an id that somebody else chose is not taken over", func(t *testing.T) {
		fixed := newSessionID()
		b := g.browse()
		b.cookies["sessionId"] = keptCookie{signed(fixed, secretCurrent), "/"}
		b.logIn(t, bobsLogin)
		require.NotContains(t, b.cookies["sessionId"].value, fixed)
		requireDenied(t, g.get(t, "/users/me", cookie(signed(fixed, secretCurrent))), 401, invalidSession)
	})
	for name, body := range map[string]any{
		"another password": object{"email": bobsLogin.email, "password": "nobody's password"},
		"nobody":           object{"email": "nobody@example.com", "password": "nobody's password"},
		"somebody else's":  object{"email": bobsLogin.email, "password": alicesLogin.password},
		"empty":            object{"email": carolsLogin.email, "password": ""},
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			r := g.browse().post(t, "/auth/login", body)
			requireAnswer(t, r, 401, invalidCredentials)
			require.Empty(t, r.header.Values("set-cookie"))
		})
	}
	for name, body := range map[string]any{
		"nothing": nil, "no JSON": "email=bob@example.com", "an array": []int{1}, "half": object{"email": "bob@example.com"},
		"a number": object{"email": 1, "password": "x"}, "a long body": object{"email": "a", "password": strings.Repeat("x", 70_000)},
		"twice": `{"email":"bob@example.com","email":"a","password":"x"}`, "more behind it": `{"email":"a","password":"b"} {}`,
	} {
		t.Run("bad request: "+name, func(t *testing.T) {
			requireAnswer(t, g.browse().post(t, "/auth/login", body), 400, badRequest)
			requireAnswer(t, g.browse().post(t, "/auth/token", body), 400, badRequest)
		})
	}
	t.Run("from another site", func(t *testing.T) {
		for _, headers := range crossSite {
			for _, path := range []string{"/auth/login", "/auth/token"} {
				r := g.browse().post(t, path, bobsLogin.credentials(), headers...)
				requireAnswer(t, r, 403, forbidden)
				require.Empty(t, r.header.Values("set-cookie"))
			}
		}
	})
	t.Run("other methods", func(t *testing.T) {
		for _, method := range []string{"GET", "PUT", "DELETE", "PATCH"} {
			require.Equal(t, 405, g.browse().request(t, method, "/auth/login", nil).status, method)
		}
	})
}

// crossSite are the headers of requests that pages elsewhere had the browser
// send.
var crossSite = [][]string{
	{"Sec-Fetch-Site: cross-site"},
	{"Sec-Fetch-Site: same-site", "Origin: https://evil.example.com"},
	{"Origin: https://evil.example.org"},
	{"Origin: null"},
}

// State-changing calls that rely on a cookie are refused cross-site, and have
// then changed nothing.
func TestCrossSite(t *testing.T) {
	g := sharedGateway(t, asShipped)
	b := g.browse()
	b.logIn(t, alicesLogin)
	require.Equal(t, 200, b.post(t, "/auth/token", alicesLogin.credentials()).status)
	require.Contains(t, b.cookies, "refreshToken")
	kept := b.copy().cookies
	handle := text(list(b.open(t, "/auth/sessions").json(t)["sessions"])[0]["handle"])
	for _, headers := range crossSite {
		for _, call := range []struct {
			method, path string
			body         any
		}{
			{"POST", "/auth/refresh", nil},
			{"POST", "/auth/logout", nil},
			{"PATCH", "/auth/session", object{"organizationId": "org-2"}},
			{"DELETE", "/auth/sessions/" + handle, nil},
			{"POST", "/auth/revoke-all-sessions", object{"userId": "alice"}},
			{"PATCH", "/auth/users/alice/sessions", object{"roles": []string{}}},
		} {
			r := b.request(t, call.method, call.path, call.body, headers...)
			requireAnswer(t, r, 403, forbidden)
			require.Equal(t, kept, b.cookies)
		}
		// At the gate as well, for every service behind it.
		requireDenied(t, b.post(t, "/orders", object{}, headers...), 403, forbidden)
	}
	requireAllowed(t, b.open(t, "/users/admin/stats"), alicesLogin.identity())
	// The page's own calls pass, and those that no browser sent.
	for _, headers := range [][]string{{"Sec-Fetch-Site: same-origin", "Origin: https://gateway.example.com"}, {"Origin: https://gateway.example.com"}, nil} {
		r := b.request(t, "PATCH", "/auth/session", object{"organizationId": "org-1"}, headers...)
		require.Equal(t, 200, r.status, r.line())
		require.Equal(t, 200, b.post(t, "/auth/refresh", nil, headers...).status)
		requireAllowed(t, b.post(t, "/orders", object{}, headers...), alicesLogin.identity())
	}
}

func TestTokenLogin(t *testing.T) {
	g := sharedGateway(t, asShipped)
	t.Run("a browser's refresh token is in a cookie, an app's in the body", func(t *testing.T) {
		b := g.browse()
		r := b.post(t, "/auth/token", bobsLogin.credentials())
		require.Equal(t, 200, r.status, r.line())
		answer := r.json(t)
		require.Len(t, answer, 2)
		require.InDelta(t, 900, answer["expiresIn"], 0)
		require.Len(t, r.header.Values("set-cookie"), 1)
		require.Equal(t, []string{"refreshToken", "HttpOnly", "Max-Age=604800", "Path=/auth", "SameSite=Strict", "Secure"}, attributes(r.header.Get("set-cookie")))
		requireAllowed(t, g.get(t, "/users/me", bearer(journal.secret("an access token", text(answer["accessToken"])))), bobsLogin.identity())

		a := g.app(t, bobsLogin)
		requireAllowed(t, a.call(t, "/orders"), bobsLogin.identity())
		require.Equal(t, 400, g.browse().post(t, "/auth/token", with(bobsLogin.credentials(), object{"client": "toaster"})).status)
	})
	t.Run("nothing personal is in an access token, and any JWT library verifies it", func(t *testing.T) {
		a := g.app(t, alicesLogin)
		header, claims := decoded(t, a.access)
		require.Equal(t, "RS256", header["alg"])
		require.Equal(t, []string{"alg", "kid", "typ"}, keysOf(header))
		require.Subset(t, []string{"aud", "auth_time", "exp", "iat", "iss", "jti", "sid", "sub"}, keysOf(claims))
		require.Equal(t, "alice", claims["sub"])
		require.Equal(t, ownIssuer, claims["iss"])
		require.InDelta(t, 900, claims["exp"].(float64)-claims["iat"].(float64), 0)
		var set struct{ Keys []object }
		r := g.get(t, "/.well-known/jwks.json")
		require.NoError(t, json.Unmarshal([]byte(r.body), &set))
		require.Contains(t, r.header.Get("cache-control"), "max-age=")
		require.True(t, slices.ContainsFunc(set.Keys, func(k object) bool { return k["kid"] == header["kid"] }))
	})
	t.Run("refused", func(t *testing.T) {
		r := g.browse().post(t, "/auth/token", object{"email": "nobody@example.com", "password": "nobody's password"})
		requireAnswer(t, r, 401, invalidCredentials)
		require.Empty(t, r.header.Values("set-cookie"))
	})
	t.Run("Redis holds no refresh token", func(t *testing.T) {
		a := g.app(t, bobsLogin)
		require.Equal(t, 200, a.renew(t).status)
		parts := strings.Split(a.refresh, ".")
		for _, key := range g.store.Keys(t.Context(), "*").Val() {
			dump := g.store.Dump(t.Context(), key).Val()
			require.NotContains(t, dump, a.refresh)
			require.NotContains(t, dump, parts[len(parts)-1])
			require.NotContains(t, dump, a.access)
		}
	})
}

func keysOf(o object) []string {
	var names []string
	for name := range o {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestRefresh(t *testing.T) {
	g := start(t, options{config: "tokens: {refresh_grace: 30s}"}).gateway(t)
	t.Run("rotates, for apps and for browsers", func(t *testing.T) {
		a := g.app(t, bobsLogin)
		seen := map[string]bool{a.refresh: true, a.access: true}
		for range 3 {
			r := a.renew(t)
			require.Equal(t, 200, r.status, r.line())
			require.Equal(t, []string{"accessToken", "expiresIn", "refreshToken"}, keysOf(r.json(t)))
			require.Empty(t, r.header.Values("set-cookie"))
			require.False(t, seen[a.refresh] || seen[a.access])
			seen[a.refresh], seen[a.access] = true, true
			requireAllowed(t, a.call(t, "/users/me"), bobsLogin.identity())
		}
		b := g.browse()
		require.Equal(t, 200, b.post(t, "/auth/token", bobsLogin.credentials()).status)
		first := b.cookies["refreshToken"].value
		r := b.post(t, "/auth/refresh", nil)
		require.Equal(t, 200, r.status, r.line())
		require.Equal(t, []string{"accessToken", "expiresIn"}, keysOf(r.json(t)))
		require.NotEqual(t, first, b.cookies["refreshToken"].value)
		requireAllowed(t, g.get(t, "/users/me", bearer(journal.secret("an access token", text(r.json(t)["accessToken"])))), bobsLogin.identity())
	})
	t.Run("forty tabs at the same moment all get the same successor", func(t *testing.T) {
		a := g.app(t, bobsLogin)
		replies := make([]reply, 40)
		var tabs sync.WaitGroup
		for i := range replies {
			tabs.Go(func() {
				for range 5 { // a machine that is busy enough sheds some of them
					replies[i] = a.browser.copy().post(t, "/auth/refresh", object{"refreshToken": a.refresh})
					if replies[i].status != 503 {
						return
					}
				}
			})
		}
		tabs.Wait()
		used := a.refresh
		var successor string
		for _, r := range replies {
			require.Equal(t, 200, r.status, r.line())
			journal.secret("an access token", text(r.json(t)["accessToken"]))
			fresh := secretRefresh(text(r.json(t)["refreshToken"]))
			if successor == "" {
				successor = fresh
			}
			require.Equal(t, successor, fresh)
		}
		a.refresh = successor
		require.Equal(t, 200, a.renew(t).status)
		last := a.refresh
		// A successor that was used already answers with its own successor.
		a.refresh = used
		require.Equal(t, 200, a.renew(t).status)
		require.Equal(t, last, a.refresh)
	})
	t.Run("after the grace a used token revokes its family, and what came from it", func(t *testing.T) {
		g := start(t, options{config: "tokens: {refresh_grace: 1s}"}).gateway(t)
		a := g.app(t, bobsLogin)
		stolen := *a
		require.Equal(t, 200, a.renew(t).status)
		requireAllowed(t, a.call(t, "/users/me"), bobsLogin.identity())
		other := g.app(t, bobsLogin)
		time.Sleep(1100 * time.Millisecond) // the grace of this test
		requireAnswer(t, stolen.renew(t), 401, invalidRefresh)
		requireAnswer(t, a.renew(t), 401, invalidRefresh)
		requireDenied(t, a.call(t, "/users/me"), 401, invalidToken)
		requireAllowed(t, other.call(t, "/users/me"), bobsLogin.identity())
		require.Equal(t, 200, other.renew(t).status)
	})
	t.Run("refused", func(t *testing.T) {
		requireAnswer(t, g.browse().post(t, "/auth/refresh", nil), 401, noRefreshToken)
		requireAnswer(t, g.browse().post(t, "/auth/refresh", object{}), 401, noRefreshToken)
		good := g.app(t, bobsLogin)
		before, err := g.commands(t.Context())
		require.NoError(t, err)
		for _, token := range []string{
			"x", "a.b.c.d", strings.Repeat("a", 5000), good.refresh + "x", good.refresh[:len(good.refresh)-1], good.refresh[1:], "..." + good.refresh,
			strings.Replace(good.refresh, ".0.", ".1.", 1),
		} {
			requireAnswer(t, g.browse().post(t, "/auth/refresh", object{"refreshToken": token}), 401, invalidRefresh)
			b := g.browse()
			b.cookies["refreshToken"] = keptCookie{token, "/auth"}
			requireAnswer(t, b.post(t, "/auth/refresh", nil), 401, invalidRefresh)
		}
		after, err := g.commands(t.Context())
		require.NoError(t, err)
		require.Equal(t, before, after, "a forged token reaches Redis")
		require.Equal(t, 200, good.renew(t).status)
		requireAnswer(t, g.browse().post(t, "/auth/refresh", "{"), 400, badRequest)
		requireAnswer(t, g.browse().post(t, "/auth/refresh", object{"refreshToken": 1}), 400, badRequest)
	})
}

// refresh_grace: 0s means that a token is good once, and not that the default
// counts.
func TestRefreshWithoutGrace(t *testing.T) {
	g := start(t, options{config: "tokens: {refresh_grace: 0s}"}).gateway(t)
	a := g.app(t, bobsLogin)
	used := *a
	require.Equal(t, 200, a.renew(t).status)
	requireAnswer(t, used.renew(t), 401, invalidRefresh)
	requireAnswer(t, a.renew(t), 401, invalidRefresh)
	requireDenied(t, a.call(t, "/users/me"), 401, invalidToken)
}

func TestLogout(t *testing.T) {
	g := sharedGateway(t, asShipped)
	b := g.browse()
	b.logIn(t, bobsLogin)
	r := b.post(t, "/auth/token", bobsLogin.credentials())
	require.Equal(t, 200, r.status)
	access := journal.secret("an access token", text(r.json(t)["accessToken"]))
	before := b.copy()
	other := g.browse()
	other.logIn(t, bobsLogin)

	r = b.post(t, "/auth/logout", nil, bearer(access))
	requireAnswer(t, r, 200, loggedOut)
	require.Len(t, r.header.Values("set-cookie"), 2)
	require.Empty(t, b.cookies)
	for _, line := range r.header.Values("set-cookie") {
		require.Contains(t, line, "Max-Age=0")
	}
	requireDenied(t, before.open(t, "/users/me"), 401, invalidSession)
	requireDenied(t, g.get(t, "/users/me", bearer(access)), 401, invalidToken)
	requireAnswer(t, before.post(t, "/auth/refresh", nil), 401, invalidRefresh)
	requireAllowed(t, other.open(t, "/users/me"), bobsLogin.identity())

	// An app has its tokens in hand.
	a := g.app(t, bobsLogin)
	requireAnswer(t, a.post(t, "/auth/logout", object{"refreshToken": a.refresh}, bearer(a.access)), 200, loggedOut)
	requireDenied(t, a.call(t, "/users/me"), 401, invalidToken)
	requireAnswer(t, a.renew(t), 401, invalidRefresh)

	// Without a credential, or with one that is none, there is nothing to end.
	requireAnswer(t, g.browse().post(t, "/auth/logout", nil), 200, loggedOut)
	forged := g.browse()
	forged.cookies["sessionId"] = keptCookie{signed(newSessionID(), "nobody's secret"), "/"}
	requireAnswer(t, forged.post(t, "/auth/logout", nil, bearer("a.b.c")), 200, loggedOut)
	requireAnswer(t, before.post(t, "/auth/logout", nil), 200, loggedOut)
}

func TestRevokeAllSessions(t *testing.T) {
	s := start(t, options{})
	g := s.gateway(t)
	admin := g.browse()
	admin.logIn(t, alicesLogin)
	sessions := []*browser{g.browse(), g.browse()}
	for _, b := range sessions {
		b.logIn(t, bobsLogin)
	}
	phone := g.app(t, bobsLogin)
	outside := bearer(s.pem.issue(with(claimsOf(pemIssuer, bob), object{"iat": time.Now().Unix() - 1})))
	// By another program: one that the gate has seen, one that it never saw, one
	// that says nothing of when its user authenticated.
	seen := cookie(s.login(t, bob))
	requireAllowed(t, g.get(t, "/users/me", seen), bob)
	unseen := cookie(s.login(t, bob))
	timeless := s.session(t, with(bob.record(), object{"authTime": nil}))
	elsewhere := cookie(s.login(t, alice))
	requireAllowed(t, g.get(t, "/users/me", outside), bob)

	r := admin.post(t, "/auth/revoke-all-sessions", object{"userId": "bob"})
	requireAnswer(t, r, 200, `{"message":"Revoked 5 sessions"}`)
	for _, b := range sessions {
		requireDenied(t, b.open(t, "/users/me"), 401, invalidSession)
	}
	for _, header := range []string{seen, unseen, cookie(signed(timeless, secretCurrent))} {
		requireDenied(t, g.get(t, "/users/me", header), 401, invalidSession)
	}
	requireDenied(t, phone.call(t, "/users/me"), 401, invalidToken)
	requireAnswer(t, phone.renew(t), 401, invalidRefresh)
	requireDenied(t, g.get(t, "/users/me", outside), 401, invalidToken)
	requireAllowed(t, g.get(t, "/users/me", elsewhere), alice)
	requireAllowed(t, admin.open(t, "/users/admin/stats"), alicesLogin.identity())
	// A late save brings nothing back.
	require.NoError(t, s.store.Set(t.Context(), "sess:"+timeless, mustJSON(t, with(bob.record(), object{"authTime": nil})), time.Hour).Err())
	requireDenied(t, g.get(t, "/users/me", cookie(signed(timeless, secretCurrent))), 401, invalidSession)
	requireAnswer(t, admin.post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}), 200, `{"message":"Revoked 0 sessions"}`)

	// Who logs in again, right away, is in again.
	sessions[0].logIn(t, bobsLogin)
	requireAllowed(t, sessions[0].open(t, "/users/me"), bobsLogin.identity())
	phone = g.app(t, bobsLogin)
	requireAllowed(t, phone.call(t, "/users/me"), bobsLogin.identity())
	require.Equal(t, 200, phone.renew(t).status)
	requireAllowed(t, phone.call(t, "/users/me"), bobsLogin.identity())

	// The internal key may do it, too; nobody else may.
	requireAnswer(t, g.browse().post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}, apiKey(apiKeys.backend)), 200, `{"message":"Revoked 1 sessions"}`)
	notAdmin := g.browse()
	notAdmin.logIn(t, carolsLogin)
	for name, tc := range map[string]struct {
		by      *browser
		headers []string
		status  int
		body    string
	}{
		"nobody":             {g.browse(), nil, 401, noToken},
		"not an admin":       {notAdmin, nil, 403, forbidden},
		"by header":          {g.browse(), []string{"x-user-id: alice", `x-user-roles: ["admin"]`}, 401, noToken},
		"a wrong key":        {g.browse(), []string{apiKey("wrong-key-of-nobody")}, 403, forbidden},
		"a wrong key, admin": {admin, []string{apiKey("wrong-key-of-nobody")}, 403, forbidden},
		"an expired key":     {g.browse(), []string{apiKey(apiKeys.backendOld)}, 403, forbidden},
		"a key for services": {g.browse(), []string{apiKey(apiKeys.billing)}, 403, forbidden},
		"a session that is bad": {func() *browser {
			b := g.browse()
			b.cookies["sessionId"] = keptCookie{"s%3Ax.y", "/"}
			return b
		}(), nil, 401, invalidSession},
		"a bad token": {g.browse(), []string{bearer("a.b.c")}, 401, invalidToken},
	} {
		t.Run(name, func(t *testing.T) {
			requireAnswer(t, tc.by.post(t, "/auth/revoke-all-sessions", object{"userId": "carol"}, tc.headers...), tc.status, tc.body)
		})
	}
	requireAllowed(t, notAdmin.open(t, "/users/me"), carolsLogin.identity())
	for _, body := range []any{nil, object{}, object{"userId": ""}, object{"userId": []int{1}}, "{"} {
		requireAnswer(t, admin.post(t, "/auth/revoke-all-sessions", body), 400, badRequest)
	}
}

func TestRevokeAndIntrospect(t *testing.T) {
	g := sharedGateway(t, asShipped)
	form := func(t *testing.T, path, token string, headers ...string) reply {
		t.Helper()
		return g.browse().post(t, path, url.Values{"token": {token}}.Encode(), append(headers, "Content-Type: application/x-www-form-urlencoded")...)
	}
	active := func(t *testing.T, token string) object {
		t.Helper()
		r := form(t, "/auth/introspect", token, apiKey(apiKeys.backend))
		require.Equal(t, 200, r.status, r.line())
		return r.json(t)
	}
	a := g.app(t, bobsLogin)
	_, claims := decoded(t, a.access)
	answer := active(t, a.access)
	require.Equal(t, true, answer["active"])
	for _, name := range []string{"sub", "iss", "exp", "iat", "jti"} {
		require.Equal(t, claims[name], answer[name], name)
	}
	require.Equal(t, true, active(t, a.refresh)["active"])
	outside := g.pem.issue(claimsOf(pemIssuer, bob))
	require.Equal(t, true, active(t, outside)["active"])
	for _, token := range []string{"x", "a.b.c", a.refresh + "x", g.pem.issue(with(claimsOf(pemIssuer, bob), object{"exp": 1}))} {
		require.Equal(t, object{"active": false}, active(t, token))
	}
	for _, headers := range [][]string{nil, {apiKey("wrong-key-of-nobody")}, {apiKey(apiKeys.billing)}, {bearer(a.access)}} {
		requireAnswer(t, form(t, "/auth/introspect", a.access, headers...), 403, forbidden)
	}

	// An access token alone; the family goes on.
	require.Equal(t, 200, form(t, "/auth/revoke", a.access).status)
	requireDenied(t, a.call(t, "/users/me"), 401, invalidToken)
	require.Equal(t, object{"active": false}, active(t, a.access))
	require.Equal(t, 200, a.renew(t).status)
	requireAllowed(t, a.call(t, "/users/me"), bobsLogin.identity())
	// A refresh token takes all with it.
	require.Equal(t, 200, form(t, "/auth/revoke", a.refresh).status)
	requireDenied(t, a.call(t, "/users/me"), 401, invalidToken)
	require.Equal(t, object{"active": false}, active(t, a.access))
	require.Equal(t, object{"active": false}, active(t, a.refresh))
	requireAnswer(t, a.renew(t), 401, invalidRefresh)
	// Tokens of outside issuers.
	require.Equal(t, 200, form(t, "/auth/revoke", outside).status)
	requireDenied(t, g.get(t, "/users/me", bearer(outside)), 401, invalidToken)
	require.Equal(t, object{"active": false}, active(t, outside))
	// RFC 7009 section 2.2: what is no token needs no revoking.
	for _, token := range []string{"x", "a.b.c", outside} {
		require.Equal(t, 200, form(t, "/auth/revoke", token).status)
	}
	requireAnswer(t, form(t, "/auth/revoke", ""), 400, badRequest)
}

func TestMeAndOwnSessions(t *testing.T) {
	s := start(t, options{})
	g := s.gateway(t)
	phone, laptop, someone := g.browse(), g.browse(), g.browse()
	phone.agent, laptop.agent = "Phone/1.0", "Laptop/2.0 <script>alert(1)</script>"
	phone.logIn(t, bobsLogin)
	laptop.logIn(t, bobsLogin)
	someone.logIn(t, alicesLogin)

	me := phone.open(t, "/auth/me")
	require.Equal(t, 200, me.status)
	require.Equal(t, with(bobsLogin.user(), object{"credential": "session", "organizations": []any{"org-1", "org-2"}}), me.json(t))
	a := g.app(t, bobsLogin)
	me = a.call(t, "/auth/me")
	require.Equal(t, with(bobsLogin.user(), object{"credential": "bearer", "organizations": []any{"org-1", "org-2"}}), me.json(t))
	requireAnswer(t, g.browse().open(t, "/auth/me"), 401, noToken)
	requireAnswer(t, g.browse().open(t, "/auth/me", "x-user-id: alice"), 401, noToken)
	requireAnswer(t, g.browse().open(t, "/auth/me", bearer("a.b.c")), 401, invalidToken)
	requireAnswer(t, g.browse().open(t, "/auth/me", cookie("s%3Ax.y")), 401, invalidSession)
	requireAnswer(t, g.browse().open(t, "/auth/sessions"), 401, noToken)

	mine := list(phone.open(t, "/auth/sessions").json(t)["sessions"])
	require.Len(t, mine, 2)
	byAgent := map[string]object{}
	for _, m := range mine {
		require.Equal(t, []string{"address", "createdAt", "current", "handle", "lastSeen", "userAgent"}, keysOf(m))
		// For a client on loopback, Envoy writes an address of the machine.
		_, err := netip.ParseAddr(text(m["address"]))
		require.NoError(t, err)
		at, err := time.Parse(time.RFC3339, text(m["createdAt"]))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), at, time.Minute)
		byAgent[text(m["userAgent"])] = m
	}
	require.Equal(t, true, byAgent[phone.agent]["current"])
	require.Equal(t, false, byAgent[laptop.agent]["current"])
	for _, b := range []*browser{phone, laptop} {
		require.NotContains(t, phone.open(t, "/auth/sessions").body, b.sessionID(t))
	}
	// One that Express made counts among them as soon as the gate has seen it.
	express := cookie(s.login(t, bob))
	requireAllowed(t, g.get(t, "/users/me", express), bob)
	require.Len(t, list(phone.open(t, "/auth/sessions").json(t)["sessions"]), 3)

	// End one, from another device.
	handle := text(byAgent[laptop.agent]["handle"])
	requireAnswer(t, someone.request(t, "DELETE", "/auth/sessions/"+handle, nil), 404, notFound)
	requireAllowed(t, laptop.open(t, "/users/me"), bobsLogin.identity())
	require.Equal(t, 200, phone.request(t, "DELETE", "/auth/sessions/"+handle, nil).status)
	requireDenied(t, laptop.open(t, "/users/me"), 401, invalidSession)
	requireAllowed(t, phone.open(t, "/users/me"), bobsLogin.identity())
	requireAnswer(t, phone.request(t, "DELETE", "/auth/sessions/"+handle, nil), 404, notFound)
	requireAnswer(t, phone.request(t, "DELETE", "/auth/sessions/nobodys-handle", nil), 404, notFound)
	requireAnswer(t, g.browse().request(t, "DELETE", "/auth/sessions/"+handle, nil), 401, noToken)
	// Its own one, too.
	require.Equal(t, 200, phone.request(t, "DELETE", "/auth/sessions/"+text(byAgent[phone.agent]["handle"]), nil).status)
	require.Empty(t, phone.cookies)
}

func TestSwitchOrganization(t *testing.T) {
	s := start(t, options{})
	g := s.gateway(t)
	in := func(org string) identity { i := bobsLogin.identity(); i.org = org; return i }
	b, other := g.browse(), g.browse()
	b.logIn(t, bobsLogin)
	other.logIn(t, bobsLogin)
	a := g.app(t, bobsLogin)

	r := b.request(t, "PATCH", "/auth/session", object{"organizationId": "org-2"})
	require.Equal(t, 200, r.status, r.line())
	require.Equal(t, with(bobsLogin.user(), object{"organizationId": "org-2"}), r.json(t))
	requireAllowed(t, b.open(t, "/users/me"), in("org-2"))
	requireAllowed(t, other.open(t, "/users/me"), in("org-1"))
	requireAllowed(t, a.call(t, "/users/me"), in("org-1"))

	r = a.request(t, "PATCH", "/auth/session", object{"organizationId": "org-2"}, bearer(a.access))
	require.Equal(t, 200, r.status, r.line())
	require.Equal(t, with(bobsLogin.user(), object{"organizationId": "org-2"}), r.json(t))
	requireAllowed(t, a.call(t, "/users/me"), in("org-2"))
	requireAllowed(t, other.open(t, "/users/me"), in("org-1"))

	for _, org := range []string{"org-3", "", "ORG-1", "org-1 "} {
		require.Contains(t, []int{400, 403}, b.request(t, "PATCH", "/auth/session", object{"organizationId": org}).status, org)
	}
	requireAnswer(t, b.request(t, "PATCH", "/auth/session", object{"organizationId": "org-3"}), 403, forbidden)
	requireAnswer(t, a.request(t, "PATCH", "/auth/session", object{"organizationId": "org-3"}, bearer(a.access)), 403, forbidden)
	requireAnswer(t, b.request(t, "PATCH", "/auth/session", object{"roles": []string{"admin"}}), 400, badRequest)
	requireAnswer(t, b.request(t, "PATCH", "/auth/session", object{"organizationId": "org-1", "roles": []string{"admin"}}), 400, badRequest)
	requireAnswer(t, g.browse().request(t, "PATCH", "/auth/session", object{"organizationId": "org-1"}), 401, noToken)
	requireAllowed(t, b.open(t, "/users/me"), in("org-2"))
	// Without a list, nobody switches.
	carol := g.browse()
	carol.logIn(t, carolsLogin)
	requireAnswer(t, carol.request(t, "PATCH", "/auth/session", object{"organizationId": "org-1"}), 403, forbidden)
}

func TestTrustedBackend(t *testing.T) {
	s := start(t, options{})
	g := s.gateway(t)
	user := object{"userId": "dora", "email": "dora@example.com", "roles": []string{"member"}, "organizationId": "org-7"}
	b := g.browse()
	r := b.post(t, "/auth/sessions", with(user, object{"data": object{"cart": []int{1, 2}}}), apiKey(apiKeys.backend))
	require.Equal(t, 201, r.status, r.line())
	answer := r.json(t)
	require.Equal(t, []string{"cookie", "expiresAt"}, keysOf(answer))
	secretCookie("sessionId", text(answer["cookie"]))
	expires, err := time.Parse(time.RFC3339, text(answer["expiresAt"]))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), expires, time.Minute)
	require.Equal(t, b.cookies["sessionId"].value, answer["cookie"])
	dora := identity{"dora", "dora@example.com", `["member"]`, "org-7"}
	requireAllowed(t, b.open(t, "/users/me"), dora)
	requireAllowed(t, g.get(t, "/users/me", cookie(text(answer["cookie"]))), dora)
	require.Contains(t, s.store.Get(t.Context(), "sess:"+b.sessionID(t)).Val(), `"cart":[1,2]`)

	for _, headers := range [][]string{nil, {apiKey("wrong-key-of-nobody")}, {apiKey(apiKeys.backendOld)}, {apiKey(apiKeys.billing)}, {cookie(s.login(t, alice))}} {
		r := g.browse().post(t, "/auth/sessions", user, headers...)
		requireAnswer(t, r, 403, forbidden)
		require.Empty(t, r.header.Values("set-cookie"))
	}
	for _, body := range []any{
		nil, "{",
		object{},
		with(user, object{"userId": ""}), with(user, object{"userId": "service:x"}), with(user, object{"roles": "x"}),
		with(user, object{"data": object{"userId": "root"}}), with(user, object{"data": object{"cookie": object{}}}), with(user, object{"rolse": []string{}}),
	} {
		requireAnswer(t, g.browse().post(t, "/auth/sessions", body, apiKey(apiKeys.backend)), 400, badRequest)
	}
}

func TestAdministratorChangesLive(t *testing.T) {
	s := start(t, options{})
	g := s.gateway(t)
	admin := g.browse()
	admin.logIn(t, alicesLogin)
	b := g.browse()
	b.logIn(t, bobsLogin)
	a := g.app(t, bobsLogin)
	foreign := s.session(t, with(bob.record(), object{"cart": []any{1.0}, "flash": "é\u2028<&>"}))
	path := "/auth/users/bob/sessions"

	r := admin.open(t, path)
	require.Equal(t, 200, r.status, r.line())
	require.Len(t, list(r.json(t)["sessions"]), 2)
	require.NotContains(t, r.body, foreign)

	r = admin.request(t, "PATCH", path, object{"roles": []string{"admin"}, "organizationId": "org-9"})
	requireAnswer(t, r, 200, `{"changed":2}`)
	promoted := identity{"bob", "bob@example.com", `["admin"]`, "org-9"}
	requireAllowed(t, b.open(t, "/users/admin/stats"), promoted)
	requireAllowed(t, a.call(t, "/users/admin/stats"), promoted)
	requireAllowed(t, g.get(t, "/users/admin/stats", cookie(signed(foreign, secretCurrent))), promoted)
	var record object
	require.NoError(t, json.Unmarshal([]byte(s.store.Get(t.Context(), "sess:"+foreign).Val()), &record))
	require.Equal(t, []any{1.0}, record["cart"])
	require.Equal(t, "é\u2028<&>", record["flash"])
	// What an administrator changed is not undone by the next login.
	requireAnswer(t, admin.request(t, "PATCH", path, object{"roles": []string{}}, apiKey(apiKeys.backend)), 200, `{"changed":2}`)
	again := g.browse()
	require.Equal(t, 200, again.post(t, "/auth/login", bobsLogin.credentials()).status)
	requireAllowed(t, again.open(t, "/users/me"), identity{"bob", "bob@example.com", `[]`, "org-9"})

	// Locked out, at once and everywhere; and back.
	requireAnswer(t, admin.request(t, "PATCH", path, object{"disabled": true}), 200, `{"changed":3}`)
	requireDenied(t, b.open(t, "/users/me"), 401, invalidSession)
	requireDenied(t, a.call(t, "/users/me"), 401, invalidToken)
	requireAnswer(t, a.renew(t), 401, invalidRefresh)
	requireAnswer(t, g.browse().post(t, "/auth/login", bobsLogin.credentials()), 401, invalidCredentials)
	requireAnswer(t, g.browse().post(t, "/auth/token", bobsLogin.credentials()), 401, invalidCredentials)
	require.Equal(t, 200, admin.request(t, "PATCH", path, object{"disabled": false}).status)
	require.Equal(t, 200, g.browse().post(t, "/auth/login", bobsLogin.credentials()).status)

	requireAnswer(t, b.request(t, "PATCH", path, object{"roles": []string{"admin"}}), 403, forbidden)
	requireAnswer(t, b.open(t, path), 403, forbidden)
	requireAnswer(t, g.browse().open(t, path), 401, noToken)
	requireAnswer(t, g.browse().request(t, "PATCH", path, object{"roles": []string{"admin"}}), 401, noToken)
	requireAnswer(t, g.browse().open(t, path, apiKey("wrong-key-of-nobody")), 403, forbidden)
	require.Equal(t, 200, g.browse().open(t, path, apiKey(apiKeys.backend)).status)
	for _, body := range []any{nil, object{}, object{"rolse": []string{}}, object{"roles": "admin"}, object{"disabled": "true"}, object{"organizationId": 7.5}, "{"} {
		requireAnswer(t, admin.request(t, "PATCH", path, body), 400, badRequest)
	}
}

// Guessing gets slower, for an account and for an address, and all replicas
// count together.
func TestGuessing(t *testing.T) {
	s := start(t, options{replicas: 2})
	g := s.gateway(t, endpoints("gatehouse_http", s.replicas[0].http, s.replicas[1].http))
	refused := 0
	var last reply
	for range 40 {
		last = g.browse().post(t, "/auth/login", object{"email": bobsLogin.email, "password": "a guess of nobody's"})
		if last.status == 429 {
			break
		}
		requireAnswer(t, last, 401, invalidCredentials)
		refused++
	}
	requireAnswer(t, last, 429, tooManyRequests)
	require.Positive(t, refused)
	// Even with the right password, in every spelling of the address, for tokens as well.
	requireAnswer(t, g.browse().post(t, "/auth/login", bobsLogin.credentials()), 429, tooManyRequests)
	requireAnswer(t, g.browse().post(t, "/auth/login", object{"email": " BOB@Example.com", "password": bobsLogin.password}), 429, tooManyRequests)
	requireAnswer(t, g.browse().post(t, "/auth/token", bobsLogin.credentials()), 429, tooManyRequests)
	// Others log in as ever, as often as they like.
	for range 15 {
		g.browse().logIn(t, alicesLogin)
	}
	// An address that guesses at many accounts is slowed down, too.
	if !testing.Short() { // hashing takes long with the race detector, and has one caller here
		for i := range 400 {
			last = g.browse().post(t, "/auth/login", object{"email": fmt.Sprintf("nobody-%d@example.com", i), "password": "a guess of nobody's"})
			if last.status == 429 {
				break
			}
		}
		requireAnswer(t, last, 429, tooManyRequests)
	}
	for _, key := range s.store.Keys(t.Context(), "*").Val() {
		require.NotContains(t, key, "bob@example.com")
	}
}

func TestUnknownRows(t *testing.T) {
	g := sharedGateway(t, asShipped)
	for _, path := range []string{"/auth", "/auth/", "/auth/nothing", "/auth/login/", "/auth/users", "/auth/oidc/nobody/login", "/auth/sessions/a/b"} {
		r := g.browse().open(t, path)
		require.Contains(t, []int{404, 401, 405}, r.status, "%s: %s", path, r.line())
	}
	requireAnswer(t, g.browse().open(t, "/auth/nothing"), 404, notFound)
	require.Equal(t, http.StatusBadRequest, g.get(t, "/auth/%2e%2e%2fme").status)
}

// A name that browsers guard, and a cookie that goes out without TLS only by a
// setting that is logged.
func TestCookieRules(t *testing.T) {
	guarded := start(t, options{config: "sessions: {cookie: {name: __Host-sid, same_site: lax}}\n"}).gateway(t)
	b := guarded.browse()
	r := b.post(t, "/auth/login", bobsLogin.credentials())
	require.Equal(t, 200, r.status, r.line())
	require.Equal(t, []string{"__Host-sid", "HttpOnly", "Max-Age=86400", "Path=/", "SameSite=Lax", "Secure"}, attributes(r.header.Get("set-cookie")))
	requireAllowed(t, b.open(t, "/users/me"), bobsLogin.identity())
	requireAnswer(t, b.post(t, "/auth/logout", nil), 200, loggedOut)
	requireDenied(t, b.open(t, "/users/me"), 401, noToken)

	before := journal.len()
	open := start(t, options{config: "sessions: {cookie: {secure: false}}\n"}).gateway(t)
	require.Contains(t, journal.since(before), "INSECURE")
	b = open.browse()
	r = b.post(t, "/auth/login", bobsLogin.credentials())
	require.Equal(t, []string{"sessionId", "HttpOnly", "Max-Age=86400", "Path=/", "SameSite=Strict"}, attributes(r.header.Get("set-cookie")))
	requireAllowed(t, b.open(t, "/users/me"), bobsLogin.identity())
}
