package authapi_test

import (
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

func (b *bench) refreshLine(token string) string {
	return "refreshToken=" + token + "; Path=/auth; Max-Age=604800; Expires=" + b.clock.Now().Add(7*24*time.Hour).UTC().Format(http.TimeFormat) + "; HttpOnly; Secure; SameSite=Strict"
}

const (
	refreshCleared = "refreshToken=; Path=/auth; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Secure; SameSite=Strict"
	sessionCleared = "sessionId=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Secure; SameSite=Strict"
)

func TestTokenLogin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, client := range []object{{}, {"client": "web"}, {"client": ""}} {
		a := b.post(t, "/auth/token", with(credentials(bob), client))
		require.Equal(t, 200, a.status, a.body)
		o := a.json(t)
		require.Len(t, o, 2)
		require.InDelta(t, 900, o["expiresIn"], 0)
		require.True(t, b.works(t, bearer(o["accessToken"].(string))))
		require.Equal(t, []string{b.refreshLine(a.cookie("refreshToken"))}, a.header.Values("Set-Cookie"))
	}
	a := b.post(t, "/auth/token", with(credentials(bob), object{"client": "mobile"}), "User-Agent", "App/1", "X-Forwarded-For", "203.0.113.9")
	require.Equal(t, 200, a.status)
	require.Empty(t, a.header.Values("Set-Cookie"))
	o := a.json(t)
	require.Len(t, o, 3)
	used, err := b.refresh.Parse(o["refreshToken"].(string))
	require.NoError(t, err)
	now := b.clock.Now()
	require.Equal(t, authz.Family{
		ID: used.Family, UserID: "bob", AuthTime: now, Created: now, LastUsed: now, Expires: now.Add(7 * 24 * time.Hour),
		Device: authz.Device{Address: "203.0.113.9", UserAgent: "App/1"}, Generation: 0, Hash: used.Hash,
	}, b.store.c.Families[used.Family])
	access := b.access.issued[o["accessToken"].(string)]
	require.Equal(t, "bob", access.ID)
	require.Equal(t, used.Family, access.Family)
	require.Equal(t, now, access.AuthTime)

	requireAnswer(t, b.post(t, "/auth/token", with(credentials(bob), object{"client": "toaster"})), 400, badRequest)
	requireAnswer(t, b.post(t, "/auth/token", with(credentials(bob), object{"client": nil})), 400, badRequest)
}

func TestTokenLoginCompletesTheProfile(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	roles := []string{"auditor"}
	b.store.profile("bob", &authz.Profile{Roles: &roles})
	app := b.app(t, bob)
	require.Equal(t, object{
		"userId": "bob", "email": "Bob@example.com", "roles": []any{"auditor"}, "organizationId": "org-1",
		"credential": "bearer", "organizations": []any{"org-1", "org-2"},
	}, b.get(t, "/auth/me", bearer(app.access)...).json(t))
}

func TestRefreshRotates(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	seen := map[string]bool{app.refresh: true, app.access: true}
	token := app.refresh
	for range 3 {
		b.clock.Advance(time.Minute)
		a := b.post(t, "/auth/refresh", object{"refreshToken": token})
		require.Equal(t, 200, a.status, a.body)
		require.Empty(t, a.header.Values("Set-Cookie"))
		o := a.json(t)
		require.Len(t, o, 3)
		require.InDelta(t, 900, o["expiresIn"], 0)
		token = o["refreshToken"].(string)
		access := o["accessToken"].(string)
		require.False(t, seen[token] || seen[access])
		seen[token], seen[access] = true, true
		require.True(t, b.works(t, bearer(access)))
	}
	// By cookie, the successor is in the cookie.
	a := b.post(t, "/auth/refresh", nil, "Cookie", "theme=dark; refreshToken="+token)
	require.Equal(t, 200, a.status)
	require.Len(t, a.json(t), 2)
	require.Equal(t, []string{b.refreshLine(a.cookie("refreshToken"))}, a.header.Values("Set-Cookie"))
	last := a.cookie("refreshToken")
	require.NotEqual(t, token, last)
	// An empty object is no token, and neither are "" and null.
	for _, body := range []any{object{}, object{"refreshToken": ""}, object{"refreshToken": nil}, " \n"} {
		a = b.post(t, "/auth/refresh", body, "Cookie", "refreshToken="+last)
		require.Equal(t, 200, a.status)
		last = a.cookie("refreshToken")
	}
	// One in the body comes first, and the cookie stays as it is.
	other := b.app(t, bob)
	a = b.post(t, "/auth/refresh", object{"refreshToken": other.refresh}, "Cookie", "refreshToken="+last)
	require.Equal(t, 200, a.status)
	require.Empty(t, a.header.Values("Set-Cookie"))
	require.Equal(t, 200, b.post(t, "/auth/refresh", nil, "Cookie", "refreshToken="+last).status)
}

// The claims come from the login, not from the refresh.
func TestRefreshKeepsTheLogin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	at := b.clock.Now()
	app := b.app(t, bob)
	b.clock.Advance(time.Hour)
	b.store.mark("bob", at.Add(-time.Second))
	a := b.post(t, "/auth/refresh", object{"refreshToken": app.refresh})
	token := b.access.issued[a.json(t)["accessToken"].(string)]
	require.Equal(t, at, token.AuthTime)
	require.Equal(t, "bob", token.ID)
	require.Equal(t, "family1", token.Family)
	require.True(t, token.IssuedAt.After(at.Add(-time.Second)))
}

// The access token is made behind the mark, so that it is not refused by it.
func TestAccessTokensLieBehindTheMark(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store.mark("bob", b.clock.Now().Truncate(time.Second).Add(time.Second))
	app := b.app(t, bob)
	require.True(t, b.works(t, bearer(app.access)))
	a := b.post(t, "/auth/refresh", object{"refreshToken": app.refresh})
	require.Equal(t, 200, a.status)
	require.True(t, b.works(t, bearer(a.json(t)["accessToken"].(string))))
}

func TestFortyRefreshesGetOneSuccessor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	answers := make([]answer, 40)
	var tabs sync.WaitGroup
	for i := range answers {
		tabs.Go(func() { answers[i] = b.post(t, "/auth/refresh", nil, "Cookie", "refreshToken="+app.refresh) })
	}
	tabs.Wait()
	successors := map[string]bool{}
	for _, a := range answers {
		require.Equal(t, 200, a.status, a.body)
		successors[a.cookie("refreshToken")] = true
		require.True(t, b.works(t, bearer(a.json(t)["accessToken"].(string))))
	}
	require.Len(t, successors, 1)
	// A successor that was used already answers with its own successor.
	successor := answers[0].cookie("refreshToken")
	last := b.post(t, "/auth/refresh", object{"refreshToken": successor}).json(t)["refreshToken"]
	last = b.post(t, "/auth/refresh", object{"refreshToken": last}).json(t)["refreshToken"]
	for _, earlier := range []string{app.refresh, successor} {
		a := b.post(t, "/auth/refresh", object{"refreshToken": earlier})
		require.Equal(t, 200, a.status)
		require.Equal(t, last, a.json(t)["refreshToken"])
	}
}

func TestReuseRevokesTheFamily(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app, other := b.app(t, bob), b.app(t, bob)
	fresh := b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}).json(t)["refreshToken"].(string)
	b.clock.Advance(grace + time.Second)
	a := b.post(t, "/auth/refresh", nil, "Cookie", "refreshToken="+app.refresh)
	requireAnswer(t, a, 401, invalidRefresh)
	require.Equal(t, []string{refreshCleared}, a.header.Values("Set-Cookie"))
	audit := b.log.last(t, "audit")
	require.Equal(t, "refresh_token_reused", audit["action"])
	require.Equal(t, "bob", audit["user"])
	require.Equal(t, "refresh_reused", b.log.last(t, "auth")["reason"])

	requireAnswer(t, b.post(t, "/auth/refresh", object{"refreshToken": fresh}), 401, invalidRefresh)
	require.False(t, b.works(t, bearer(app.access)))
	require.True(t, b.works(t, bearer(other.access)))
	require.Equal(t, 200, b.post(t, "/auth/refresh", object{"refreshToken": other.refresh}).status)
}

func TestRefreshRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	b.store.expect(0, nil)
	requireAnswer(t, b.post(t, "/auth/refresh", nil), 401, noRefreshToken)
	requireAnswer(t, b.post(t, "/auth/refresh", object{}), 401, noRefreshToken)
	requireAnswer(t, b.post(t, "/auth/refresh", object{"refresh_token": app.refresh, "client": "mobile"}), 401, noRefreshToken)
	requireAnswer(t, b.post(t, "/auth/refresh", nil, "Cookie", "refreshToken=; a=b"), 401, noRefreshToken)
	for _, forged := range []string{"x", "a.b.c.d", app.refresh + "x", app.refresh[1:], app.access} {
		a := b.post(t, "/auth/refresh", object{"refreshToken": forged})
		requireAnswer(t, a, 401, invalidRefresh)
		require.Empty(t, a.header.Values("Set-Cookie"), "a cookie is not what was shown")
		a = b.post(t, "/auth/refresh", nil, "Cookie", "refreshToken="+forged)
		requireAnswer(t, a, 401, invalidRefresh)
		require.Equal(t, []string{refreshCleared}, a.header.Values("Set-Cookie"))
	}
	require.Empty(t, b.store.called(), "a forged token reaches the store")
	for _, body := range []string{"{", `{"refreshToken":1}`, `[]`, `{"refreshToken":"a","refreshToken":"b"}`, `x`} {
		requireAnswer(t, b.post(t, "/auth/refresh", body, "Cookie", "refreshToken="+app.refresh), 400, badRequest)
	}

	// Expired, revoked by name, under the user's mark.
	b.clock.Advance(8 * 24 * time.Hour)
	requireAnswer(t, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}), 401, invalidRefresh)
	app = b.app(t, bob)
	require.NoError(t, b.store.RevokeFamily(t.Context(), "family2", b.clock.Now()))
	requireAnswer(t, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}), 401, invalidRefresh)
	app = b.app(t, bob)
	b.store.mark("bob", b.clock.Now())
	before := b.store.snapshot(t)
	a := b.post(t, "/auth/refresh", nil, "Cookie", "refreshToken="+app.refresh)
	requireAnswer(t, a, 401, invalidRefresh)
	require.Equal(t, []string{refreshCleared}, a.header.Values("Set-Cookie"))
	require.Equal(t, before, b.store.snapshot(t), "what is refused is not rotated")
}

// Who is locked out may be let in again: the cookie stays, as a session's does.
func TestLockedOutKeepsTheRefreshCookie(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	b.store.profile("bob", &authz.Profile{Disabled: true})
	a := b.post(t, "/auth/refresh", nil, "Cookie", "refreshToken="+app.refresh)
	requireAnswer(t, a, 401, invalidRefresh)
	require.Empty(t, a.header.Values("Set-Cookie"))
	b.store.profile("bob", nil)
	require.Equal(t, 200, b.post(t, "/auth/refresh", nil, "Cookie", "refreshToken="+app.refresh).status)
}

// A replica that lacks a signing key can't repeat a successor. It doesn't know,
// and says so.
func TestSuccessorOfAnotherKey(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	require.Equal(t, 200, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}).status)
	b.store.mu.Lock()
	f := b.store.c.Families["family1"]
	f.Hash[0]++
	b.store.c.Families["family1"] = f
	b.store.mu.Unlock()
	a := b.post(t, "/auth/refresh", nil, "Cookie", "refreshToken="+app.refresh)
	requireAnswer(t, a, 503, unavailable)
	require.Equal(t, "internal", b.log.last(t, "auth")["reason"])
}

func TestTokensThatCannotBeIssuedChangeNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	b.access.fail(authz.Refuse(authz.ReasonInternal, "the key is gone"))
	before := b.store.snapshot(t)
	requireAnswer(t, b.post(t, "/auth/token", credentials(carol)), 503, unavailable)
	requireAnswer(t, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}), 503, unavailable)
	require.Equal(t, before, b.store.snapshot(t))
}

// outside issues tokens of another issuer for bob.
func (b *bench) outside(t *testing.T, raw, jti string) string {
	t.Helper()
	b.access.outside(b.log.secret(raw), authz.Token{
		Identity: authz.Identity{ID: "bob", Email: "bob@idp.example.com", Roles: []string{"admin"}}, TokenID: jti, Issuer: "https://idp.example.com",
		Audiences: []string{"api", "web"}, IssuedAt: b.clock.Now(), Claims: map[string]any{"sub": "b-1", "sid": "of the issuer"},
	})
	return raw
}

func form(token string) string { return url.Values{"token": {token}}.Encode() }

var asForm = []string{"Content-Type", "application/x-www-form-urlencoded"}

func TestRevokeAccessToken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	a := b.post(t, "/auth/revoke", form(app.access)+"&token_type_hint=refresh_token&client_id=x", asForm...)
	requireAnswer(t, a, 200, "")
	require.Empty(t, a.header.Values("Content-Type"))
	require.Equal(t, "0", a.header.Get("Content-Length"))
	require.False(t, b.works(t, bearer(app.access)))
	require.Equal(t, b.access.issued[app.access].Expires.Add(30*time.Second), b.store.c.Revoked["jti-1"], "until no verifier takes it any more")
	require.Equal(t, 200, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}).status, "the family goes on")

	outside := b.outside(t, "outside.access.token", "jti-of-idp")
	require.True(t, b.works(t, bearer(outside)))
	requireAnswer(t, b.post(t, "/auth/revoke", object{"token": outside, "token_type_hint": "access_token"}), 200, "")
	require.False(t, b.works(t, bearer(outside)))
	requireAnswer(t, b.post(t, "/auth/revoke", object{"token": outside}), 200, "")
}

// What says that it is JSON is read as JSON.
func TestTokensInJSON(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	for _, kind := range []string{"application/json", "application/json; charset=utf-8", "text/plain", "x", "application/x-www-form-urlencoded-not"} {
		require.Equal(t, true, b.post(t, "/auth/introspect", object{"token": app.access}, join(key(keyOfBackend), []string{"Content-Type", kind})...).json(t)["active"])
		requireAnswer(t, b.post(t, "/auth/revoke", form("x"), "Content-Type", kind), 400, badRequest)
	}
	for _, kind := range []string{"application/x-www-form-urlencoded; charset=utf-8", "Application/X-WWW-Form-Urlencoded"} {
		requireAnswer(t, b.post(t, "/auth/revoke", form("x"), "Content-Type", kind), 200, "")
	}
	requireAnswer(t, b.post(t, "/auth/revoke", object{"token": app.access}, "Content-Type", "application/json"), 200, "")
	require.False(t, b.works(t, bearer(app.access)))
}

func TestRevokeRefreshToken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	fresh := b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}).json(t)["refreshToken"].(string)
	requireAnswer(t, b.post(t, "/auth/revoke", form(app.refresh), asForm...), 200, "")
	require.False(t, b.works(t, bearer(app.access)))
	requireAnswer(t, b.post(t, "/auth/refresh", object{"refreshToken": fresh}), 401, invalidRefresh)
}

func TestRevokeWhatIsNoToken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	b.clock.Advance(time.Hour)
	b.store.expect(0, nil)
	requireAnswer(t, b.post(t, "/auth/revoke", object{"token": "x", "client_id": "y"}), 200, "") // RFC 6749 section 3.2: unknown parameters are ignored
	for _, token := range []string{"x", "a.b.c", "a.0.b.c", app.access, app.refresh + "x"} {
		requireAnswer(t, b.post(t, "/auth/revoke", form(token), asForm...), 200, "")
	}
	require.Empty(t, b.store.called())
	for _, body := range []string{"", "token=", "tokn=x", "token=x&token=y", "token=%zz", "token=%ff", "a=1&a=2&token=x", "token=x;y"} {
		requireAnswer(t, b.post(t, "/auth/revoke", body, asForm...), 400, badRequest)
	}
	for _, body := range []any{nil, object{}, object{"token": ""}, object{"token": 1}, object{"other": "y"}, form("x")} {
		requireAnswer(t, b.post(t, "/auth/revoke", body), 400, badRequest)
	}
	nameless := b.outside(t, "outside.nameless.token", "")
	requireAnswer(t, b.post(t, "/auth/revoke", form(nameless), asForm...), 400, `{"error":"unsupported_token_type"}`)
	require.True(t, b.works(t, bearer(nameless)))
	b.access.fail(authz.Refuse(authz.ReasonIssuerUnavailable, "no keys"))
	requireAnswer(t, b.post(t, "/auth/revoke", form(app.access), asForm...), 503, unavailable)
}

func TestIntrospect(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	introspect := func(token string) object {
		a := b.post(t, "/auth/introspect", form(token), join(asForm, key(keyOfBackend))...)
		require.Equal(t, 200, a.status, a.body)
		require.Equal(t, a.body, b.post(t, "/auth/introspect", object{"token": token}, key(keyOfBackend)...).body)
		return a.json(t)
	}
	inactive := object{"active": false}
	access := b.access.issued[app.access]
	require.Equal(t, object{
		"active": true, "sub": "bob", "iss": "https://gateway.example.com", "aud": []any{"api"}, "exp": float64(access.Expires.Unix()),
		"iat": float64(access.IssuedAt.Unix()), "jti": "jti-1", "sid": "family1", "token_type": "Bearer",
	}, introspect(app.access))
	require.Equal(t, object{
		"active": true, "sub": "bob", "exp": float64(b.clock.Now().Add(7 * 24 * time.Hour).Unix()), "iat": float64(b.clock.Now().Unix()),
	}, introspect(app.refresh))
	outside := b.outside(t, "outside.access.token", "")
	require.Equal(t, object{
		"active": true, "sub": "bob", "iss": "https://idp.example.com", "aud": []any{"api", "web"}, "exp": float64(b.clock.Now().Add(time.Hour).Unix()),
		"iat": float64(b.clock.Now().Unix()), "token_type": "Bearer",
	}, introspect(outside))
	for _, token := range []string{"x", "a.b.c", app.refresh + "x"} {
		require.Equal(t, inactive, introspect(token))
	}
	b.access.outside("outside.service.token", authz.Token{Identity: authz.Identity{ID: "service:billing"}})
	require.Equal(t, inactive, introspect("outside.service.token"), "the gate takes it for nobody")

	// Used, then revoked in every way there is.
	b.clock.Advance(time.Minute)
	fresh := b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}).json(t)["refreshToken"].(string)
	require.Equal(t, inactive, introspect(app.refresh))
	require.InDelta(t, b.clock.Now().Unix(), introspect(fresh)["iat"], 0)
	b.store.profile("bob", &authz.Profile{Disabled: true})
	for _, token := range []string{app.access, fresh, outside} {
		require.Equal(t, inactive, introspect(token))
	}
	b.store.profile("bob", nil)
	for _, token := range []string{app.access, fresh, outside} {
		require.Equal(t, true, introspect(token)["active"])
	}
	b.store.mark("bob", b.clock.Now())
	for _, token := range []string{app.access, fresh, outside} {
		require.Equal(t, inactive, introspect(token))
	}
	app = b.app(t, bob)
	require.Equal(t, true, introspect(app.access)["active"])
	requireAnswer(t, b.post(t, "/auth/revoke", object{"token": app.refresh}), 200, "")
	require.Equal(t, inactive, introspect(app.access))
	require.Equal(t, inactive, introspect(app.refresh))
	b.clock.Advance(time.Hour)
	require.Equal(t, inactive, introspect(app.access), "expired")

	// The gate's leeway is for clocks that differ; exp says when a token ends.
	b.access.leeway = 30 * time.Second
	app = b.app(t, bob)
	b.clock.Advance(b.access.life + time.Second)
	require.True(t, b.works(t, bearer(app.access)))
	require.Equal(t, inactive, introspect(app.access))
}

func TestIntrospectIsForInternalCallers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, alice)
	b.store.expect(0, nil)
	for name, headers := range map[string][]string{
		"nobody": nil, "a wrong key": key("wrong"), "an empty key": key(""), "a key for services": key(keyOfServices), "an expired key": key(keyExpired),
		"two keys": join(key(keyOfBackend), key(keyOfBackend)), "an administrator": bearer(app.access),
	} {
		a := b.post(t, "/auth/introspect", object{"token": app.access}, headers...)
		requireAnswer(t, a, 403, forbidden)
		require.Empty(t, a.header.Values("WWW-Authenticate"), name)
	}
	require.Empty(t, b.store.called())
	for _, body := range []any{nil, object{}, object{"token": ""}, "{"} {
		requireAnswer(t, b.post(t, "/auth/introspect", body, key(keyOfBackend)...), 400, badRequest)
	}
	b.access.fail(authz.Refuse(authz.ReasonIssuerUnavailable, "no keys"))
	requireAnswer(t, b.post(t, "/auth/introspect", object{"token": app.access}, key(keyOfBackend)...), 503, unavailable)
	none := newBench(t, func(o *authapi.Options) { o.APIKeys = nil })
	requireAnswer(t, none.post(t, "/auth/introspect", object{"token": "x"}, key(keyOfBackend)...), 403, forbidden)
}

func TestIntrospectWithoutAVerifier(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *authapi.Options) { o.Verifier = nil })
	app := b.app(t, bob)
	requireAnswer(t, b.post(t, "/auth/introspect", object{"token": app.access}, key(keyOfBackend)...), 200, `{"active":false}`)
	require.Equal(t, true, b.post(t, "/auth/introspect", object{"token": app.refresh}, key(keyOfBackend)...).json(t)["active"])
	a := b.get(t, "/auth/me", bearer(app.access)...)
	requireAnswer(t, a, 401, noToken)
	require.Empty(t, a.header.Values("WWW-Authenticate"))
}
