package authapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

func handle(id string) string { return authz.Handle(id) }

// moment is a time as the API writes it.
func moment(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

func TestMe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cookie, _ := b.logIn(t, alice)
	requireAnswer(t, b.get(t, "/auth/me", cookie...), 200,
		`{"userId":"alice","email":"alice@example.com","roles":["admin","user"],"organizationId":"org-1","credential":"session","organizations":["org-1","org-2"]}`)
	app := b.app(t, bob)
	requireAnswer(t, b.get(t, "/auth/me", bearer(app.access)...), 200,
		`{"userId":"bob","email":"Bob@example.com","roles":["user"],"organizationId":"org-1","credential":"bearer","organizations":["org-1","org-2"]}`)
	nothing, _ := b.logIn(t, carol)
	requireAnswer(t, b.get(t, "/auth/me", nothing...), 200,
		`{"userId":"carol","email":"carol@example.com","roles":[],"organizationId":"","credential":"session","organizations":[]}`)
	// Of an outside issuer: its claims, under the profile.
	outside := b.outside(t, "outside.access.token", "")
	require.Equal(t, "Bob@example.com", b.get(t, "/auth/me", bearer(outside)...).json(t)["email"])
	b.store.profile("bob", nil)
	requireAnswer(t, b.get(t, "/auth/me", bearer(outside)...), 200,
		`{"userId":"bob","email":"bob@idp.example.com","roles":["admin"],"organizationId":"","credential":"bearer","organizations":[]}`)
}

// The first kind that is there decides, and headers that speak of an identity
// mean nothing.
func TestCallersAreAuthenticated(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cookie, id := b.logIn(t, alice)
	app := b.app(t, bob)
	dead, deadID := b.logIn(t, bob)
	require.NoError(t, b.store.End(t.Context(), authz.Ending{SessionID: deadID}))
	locked := b.app(t, carol)
	lockedCookie, _ := b.logIn(t, carol)
	b.store.profile("carol", &authz.Profile{Disabled: true})
	forgery := []string{"X-User-Id", "alice", "X-User-Roles", `["admin"]`, "X-User-Email", "a", "X-Org-Id", "b", "X-Forwarded-User", "alice"}
	const realm, bad = `Bearer realm="gatehouse"`, `Bearer error="invalid_token"`
	for name, tt := range map[string]struct {
		headers   []string
		status    int
		body      string
		challenge string
	}{
		"nobody":                        {nil, 401, noToken, realm},
		"identity headers":              {forgery, 401, noToken, realm},
		"a key is no user":              {key(keyOfBackend), 401, noToken, realm},
		"another scheme":                {[]string{"Authorization", "Basic YTpi"}, 401, noToken, realm},
		"a forged session":              {[]string{"Cookie", "sessionId=x"}, 401, invalidSession, ""},
		"an empty session":              {[]string{"Cookie", "sessionId="}, 401, invalidSession, ""},
		"an unknown session":            {cookieOf("nobody's"), 401, invalidSession, ""},
		"an ended session":              {dead, 401, invalidSession, ""},
		"the first session cookie":      {join(dead, cookie), 401, invalidSession, ""},
		"a session of who is locked":    {lockedCookie, 401, invalidSession, ""},
		"a token of who is locked out":  {bearer(locked.access), 401, invalidToken, bad},
		"a forged token":                {bearer("a.b.c"), 401, invalidToken, bad},
		"no token":                      {[]string{"Authorization", "Bearer"}, 401, invalidToken, bad},
		"two tokens":                    {join(bearer(app.access), bearer(app.access)), 401, invalidToken, bad},
		"a bad session and a token":     {join(dead, bearer(app.access)), 401, invalidSession, ""},
		"a session and a bad token":     {join(cookie, bearer("a.b.c")), 200, "alice", ""},
		"a session":                     {cookie, 200, "alice", ""},
		"a session, forged headers":     {join(cookie, []string{"X-User-Id", "root"}), 200, "alice", ""},
		"a session in a second header":  {join([]string{"Cookie", "a=b"}, cookie), 200, "alice", ""},
		"a session behind a comma":      {[]string{"Cookie", "a=b," + cookie[1]}, 200, "alice", ""},
		"a token":                       {bearer(app.access), 200, "bob", ""},
		"a token, scheme in lower case": {[]string{"authorization", "bearer " + app.access}, 200, "bob", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, call := range []struct{ method, target string }{{"GET", "/auth/me"}, {"GET", "/auth/sessions"}, {"PATCH", "/auth/session"}, {"DELETE", "/auth/sessions/x"}} {
				a := b.call(t, call.method, call.target, nil, tt.headers...)
				require.Empty(t, a.header.Values("Set-Cookie"))
				if tt.status == 200 {
					require.Contains(t, []int{200, 400, 404}, a.status) // no body, no such session
					require.Equal(t, tt.body, b.log.last(t, "auth")["user"])
					continue
				}
				requireAnswer(t, a, tt.status, tt.body)
				require.Equal(t, tt.challenge, a.header.Get("WWW-Authenticate"))
			}
		})
	}
	t.Cleanup(func() { require.True(t, b.works(t, cookieOf(id))) })
}

func TestOwnSessions(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	phone, phoneID := b.logIn(t, bob, "User-Agent", "Phone <b>\x01", "X-Forwarded-For", "203.0.113.9")
	b.clock.Advance(time.Minute)
	_, laptopID := b.logIn(t, bob, "User-Agent", "Laptop")
	b.logIn(t, alice)
	app := b.app(t, bob, "User-Agent", "App")
	family := handle("family1")
	row := func(handle string, current bool, at time.Time, address, agent string) object {
		return object{"handle": handle, "current": current, "createdAt": moment(at), "lastSeen": moment(at), "address": address, "userAgent": agent}
	}
	now := b.clock.Now()
	a := b.get(t, "/auth/sessions", phone...)
	require.Equal(t, object{
		"sessions": []any{
			row(handle(laptopID), false, now, "192.0.2.1", "Laptop"),
			row(handle(phoneID), true, now.Add(-time.Minute), "203.0.113.9", "Phone <b>"),
		},
		"tokens": []any{row(family, false, now, "192.0.2.1", "App")},
	}, a.json(t))
	for _, secret := range []string{phoneID, laptopID, "family1", app.access, app.refresh} {
		require.NotContains(t, a.body, secret)
	}
	// With a token it is the token's login that is the current one; with the
	// refresh cookie too.
	require.Equal(t, true, b.get(t, "/auth/sessions", bearer(app.access)...).objects(t, "tokens")[0]["current"])
	require.Equal(t, true, b.get(t, "/auth/sessions", "Cookie", phone[1]+"; refreshToken="+app.refresh).objects(t, "tokens")[0]["current"])
	for _, s := range b.get(t, "/auth/sessions", bearer(app.access)...).objects(t, "sessions") {
		require.Equal(t, false, s["current"])
	}
	requireAnswer(t, b.get(t, "/auth/sessions", bearer(b.app(t, carol).access)...), 200,
		`{"sessions":[],"tokens":[{"handle":"`+handle("family2")+`","current":true,"createdAt":"`+moment(now)+`","lastSeen":"`+moment(now)+`","address":"192.0.2.1","userAgent":""}]}`)
}

// A session of another program that no index has is there for its owner all
// the same.
func TestForeignSessionIsListedAndEnded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store.put("foreign-session", authz.Login{Identity: bob.Identity})
	b.store.put("foreign-session-2", authz.Login{Identity: bob.Identity, AuthTime: b.clock.Now().Add(-time.Hour)})
	requireAnswer(t, b.get(t, "/auth/sessions", cookieOf("foreign-session")...), 200,
		`{"sessions":[{"handle":"`+handle("foreign-session")+`","current":true,"createdAt":null,"lastSeen":"`+moment(b.clock.Now())+`","address":"","userAgent":""}],"tokens":[]}`)
	require.Equal(t, moment(b.clock.Now().Add(-time.Hour)), b.get(t, "/auth/sessions", cookieOf("foreign-session-2")...).objects(t, "sessions")[0]["createdAt"])
	a := b.call(t, "DELETE", "/auth/sessions/"+handle("foreign-session"), nil, cookieOf("foreign-session")...)
	requireAnswer(t, a, 200, sessionEnded)
	require.Equal(t, []string{sessionCleared}, a.header.Values("Set-Cookie"))
	require.False(t, b.works(t, cookieOf("foreign-session")))
	require.True(t, b.works(t, cookieOf("foreign-session-2")))
}

func TestEndOwnSession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	phone, phoneID := b.logIn(t, bob)
	laptop, laptopID := b.logIn(t, bob)
	someone, _ := b.logIn(t, alice)
	app, other := b.app(t, bob), b.app(t, bob)
	end := func(id string, headers ...string) answer {
		return b.call(t, "DELETE", "/auth/sessions/"+handle(id), nil, headers...)
	}
	requireAnswer(t, end(laptopID, someone...), 404, notFound)
	require.True(t, b.works(t, laptop))
	a := end(laptopID, phone...)
	requireAnswer(t, a, 200, sessionEnded)
	require.Empty(t, a.header.Values("Set-Cookie"))
	require.False(t, b.works(t, laptop))
	requireAnswer(t, end(laptopID, phone...), 404, notFound)
	requireAnswer(t, b.call(t, "DELETE", "/auth/sessions/"+phoneID, nil, phone...), 404, notFound)

	// Token logins have handles, too.
	a = end("family1", phone...)
	requireAnswer(t, a, 200, sessionEnded)
	require.Empty(t, a.header.Values("Set-Cookie"))
	require.False(t, b.works(t, bearer(app.access)))
	a = end("family2", "Cookie", phone[1]+"; refreshToken="+other.refresh)
	requireAnswer(t, a, 200, sessionEnded)
	require.Equal(t, []string{refreshCleared}, a.header.Values("Set-Cookie"))

	// The current one.
	a = end(phoneID, phone...)
	requireAnswer(t, a, 200, sessionEnded)
	require.Equal(t, []string{sessionCleared}, a.header.Values("Set-Cookie"))
	require.False(t, b.works(t, phone))
	app = b.app(t, bob)
	requireAnswer(t, end("family3", bearer(app.access)...), 200, sessionEnded)
	require.False(t, b.works(t, bearer(app.access)))
}

func TestSwitchOrganization(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cookie, id := b.logIn(t, bob)
	other, _ := b.logIn(t, bob)
	app := b.app(t, bob)
	to := func(organization any, headers ...string) answer {
		return b.call(t, "PATCH", "/auth/session", object{"organizationId": organization}, headers...)
	}
	in := func(headers []string) any { return b.get(t, "/auth/me", headers...).json(t)["organizationId"] }
	const moved = `{"userId":"bob","email":"Bob@example.com","roles":["user"],"organizationId":"org-2"}`
	a := to("org-2", cookie...)
	requireAnswer(t, a, 200, moved)
	require.Empty(t, a.header.Values("Set-Cookie"), "the id stays")
	require.Equal(t, "org-2", in(cookie))
	require.Equal(t, "org-1", in(other))
	require.Equal(t, "org-1", in(bearer(app.access)))

	requireAnswer(t, to("org-2", bearer(app.access)...), 200, moved)
	require.Equal(t, "org-2", in(bearer(app.access)))
	require.Equal(t, "org-1", in(other))

	before := b.store.snapshot(t)
	for _, organization := range []string{"org-3", "", "ORG-1", "org-1 "} {
		requireAnswer(t, to(organization, cookie...), 403, forbidden)
		a := to(organization, bearer(app.access)...)
		requireAnswer(t, a, 403, forbidden)
		require.Equal(t, `Bearer error="insufficient_scope"`, a.header.Get("WWW-Authenticate"))
	}
	for _, body := range []any{nil, object{}, object{"organizationId": 1.5}, object{"organizationId": nil}, object{"organizationId": "org-1", "roles": []string{"admin"}}, "{", object{"organizationId": "a\x00"}} {
		requireAnswer(t, b.call(t, "PATCH", "/auth/session", body, cookie...), 400, badRequest)
	}
	require.Equal(t, before, b.store.snapshot(t))

	nobody, _ := b.logIn(t, carol)
	requireAnswer(t, to("org-1", nobody...), 403, forbidden)

	// The profile's list counts before the session's, for sessions as well.
	b.store.profile("bob", &authz.Profile{Organizations: []string{"org-7"}})
	requireAnswer(t, to("org-1", cookie...), 403, forbidden)
	require.Equal(t, 200, to("org-7", cookie...).status)
	b.store.profile("bob", &authz.Profile{Organizations: []string{}})
	requireAnswer(t, to("org-1", cookie...), 403, forbidden)

	// It ended in between.
	b.store.profile("bob", nil)
	b.store.expect(3, authz.Refuse(authz.ReasonSessionRevoked, "gone"))
	requireAnswer(t, to("org-1", cookie...), 401, invalidSession)
	require.Equal(t, []string{"Session", "UserStanding", "SwitchOrganization"}, b.store.called())
	require.Equal(t, handle(id), b.log.last(t, "auth")["session"])
}

func TestTrustedBackendMakesASession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	at := b.clock.Now().Add(-time.Minute)
	a := b.post(t, "/auth/sessions", object{
		"userId": "dora", "email": "dora@example.com", "roles": []string{"member"}, "organizationId": "org-7", "organizations": []any{"org-7", 8},
		"authTime": float64(at.UnixMilli()) / 1000, "address": "::ffff:203.0.113.9", "userAgent": "Firefox/145",
		"data": object{"cart": []int{1, 2}, "n": json.Number("12345678901234567890"), "null": nil},
	}, join(key(keyOfBackend), []string{"Cookie", "sessionId=" + cookies{}.Sign("the backend's own"), "User-Agent", "node", "X-User-Id", "root"})...)
	require.Equal(t, 201, a.status, a.body)
	requireAnswer(t, a, 201, `{"cookie":"s%3Asession-id-1.signature%2B","expiresAt":"`+moment(b.clock.Now().Add(24*time.Hour))+`"}`)
	require.Equal(t, []string{
		"sessionId=s%3Asession-id-1.signature%2B; Path=/; Max-Age=86400; Expires=" + b.clock.Now().Add(24*time.Hour).UTC().Format(http.TimeFormat) + "; HttpOnly; Secure; SameSite=Strict",
	}, a.header.Values("Set-Cookie"))
	l, _ := b.store.session("session-id-1")
	values, err := json.Marshal(l.Values)
	require.NoError(t, err)
	require.JSONEq(t, `{"cart":[1,2],"n":12345678901234567890,"null":null}`, string(values))
	require.Contains(t, string(values), "12345678901234567890")
	l.Values = nil
	require.Equal(t, authz.Login{
		Identity:      authz.Identity{ID: "dora", Email: "dora@example.com", Roles: []string{"member"}, Organization: "org-7"},
		Organizations: []string{"org-7", "8"}, AuthTime: l.AuthTime, TTL: 24 * time.Hour,
		Device: authz.Device{Address: "203.0.113.9", UserAgent: "Firefox/145"},
	}, l)
	require.WithinDuration(t, at, l.AuthTime, 0)

	// A whole number is an id; null is what is missing.
	a = b.post(t, "/auth/sessions", `{"userId":9007199254740993,"email":null,"roles":null,"organizationId":7,"organizations":null,"authTime":null,"address":null,"userAgent":null,"data":null}`, key(keyOfBackend)...)
	require.Equal(t, 201, a.status)
	l, _ = b.store.session("session-id-2")
	require.Equal(t, authz.Login{Identity: authz.Identity{ID: "9007199254740993", Organization: "7"}, AuthTime: b.clock.Now(), TTL: 24 * time.Hour}, l)
	// A clock that is a little ahead makes no session of the future.
	a = b.post(t, "/auth/sessions", object{"userId": "dora", "authTime": b.clock.Now().Add(time.Minute).Unix()}, key(keyOfBackend)...)
	require.Equal(t, 201, a.status)
	l, _ = b.store.session("session-id-3")
	require.Equal(t, b.clock.Now(), l.AuthTime)
}

func TestTrustedBackendRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	admin, _ := b.logIn(t, alice)
	empty := b.store.snapshot(t)
	user := object{"userId": "dora"}
	for name, headers := range map[string][]string{
		"nobody": nil, "a wrong key": key("wrong"), "a key for services": key(keyOfServices), "an expired key": key(keyExpired), "an administrator": admin,
	} {
		a := b.post(t, "/auth/sessions", user, headers...)
		requireAnswer(t, a, 403, forbidden)
		require.Empty(t, a.header.Values("Set-Cookie"), name)
	}
	for name, body := range map[string]any{
		"nothing": nil, "half": "{", "an empty object": object{}, "no id": object{"userId": ""}, "null": object{"userId": nil}, "half a number": object{"userId": 1.5},
		"a number with an exponent": `{"userId":1e3}`, "minus nothing": `{"userId":-0}`, "a list": object{"userId": []string{"a"}}, "a long id": object{"userId": strings.Repeat("x", 600)},
		"an internal caller": object{"userId": "service:billing"}, "a control byte": object{"userId": "a\nb"},
		"one role": with(user, object{"roles": "admin"}), "an empty role": with(user, object{"roles": []string{""}}), "a role of a number": with(user, object{"roles": []int{1}}),
		"no organization": with(user, object{"organizationId": 1.5}), "organizations": with(user, object{"organizations": "org-1"}),
		"an email of a number": with(user, object{"email": 1}), "a mistyped member": with(user, object{"rolse": []string{}}),
		"a time in words": with(user, object{"authTime": "2026-01-01T00:00:00Z"}), "a time of no time": with(user, object{"authTime": 0}),
		"a time before all times": with(user, object{"authTime": -1}), "a time in milliseconds": with(user, object{"authTime": b.clock.Now().UnixMilli()}),
		"a time in the future": with(user, object{"authTime": b.clock.Now().Add(6 * time.Minute).Unix()}), "no number": `{"userId":"a","authTime":1e999}`,
		"no address": with(user, object{"address": "localhost"}), "an agent of a number": with(user, object{"userAgent": 1}),
		"data that is no object": with(user, object{"data": []int{1}}), "data over the identity": with(user, object{"data": object{"userId": "root"}}),
		"data over the roles": with(user, object{"data": object{"roles": []string{"admin"}}}), "data over the cookie": with(user, object{"data": object{"cookie": object{}}}),
		"data over ours": with(user, object{"data": object{"gatehouse": object{}}}), "data over the time": with(user, object{"data": object{"authTime": 1}}),
		"data twice":    `{"userId":"a","data":{"x":{"y":1,"y":2}}}`,
		"data too deep": `{"userId":"a","data":` + strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40) + "}",
	} {
		a := b.post(t, "/auth/sessions", body, key(keyOfBackend)...)
		require.Equal(t, badRequest, a.body, name)
		require.Equal(t, 400, a.status)
	}
	// Locked out, or a login that was under way when everything was revoked.
	b.store.profile("dora", &authz.Profile{Disabled: true})
	requireAnswer(t, b.post(t, "/auth/sessions", user, key(keyOfBackend)...), 403, forbidden)
	require.Equal(t, "user_disabled", b.log.last(t, "auth")["reason"])
	b.store.profile("dora", nil)
	require.Equal(t, empty, b.store.snapshot(t))
	b.store.mark("dora", b.clock.Now())
	requireAnswer(t, b.post(t, "/auth/sessions", with(user, object{"authTime": b.clock.Now().Unix() - 1}), key(keyOfBackend)...), 403, forbidden)
	require.Equal(t, 201, b.post(t, "/auth/sessions", user, key(keyOfBackend)...).status)
	require.True(t, b.works(t, cookieOf("session-id-2")))
}

func TestTrustedBackendProfileWins(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	roles := []string{}
	b.store.profile("dora", &authz.Profile{Roles: &roles})
	require.Equal(t, 201, b.post(t, "/auth/sessions", object{"userId": "dora", "roles": []string{"admin"}, "email": "d@example.com"}, key(keyOfBackend)...).status)
	l, _ := b.store.session("session-id-1")
	require.Equal(t, authz.Identity{ID: "dora", Email: "d@example.com", Roles: roles}, l.Identity)
}

// Where the identity stands elsewhere in the record, that is what is taken.
func TestRecordFields(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *authapi.Options) { o.RecordFields = []string{"passport.user", "mail"} })
	for member, free := range map[string]bool{"passport": false, "passport.user": false, "mail": false, "user": true, "userId": true, "cookie": false, "gatehouse": false} {
		want := 400
		if free {
			want = 201
		}
		require.Equal(t, want, b.post(t, "/auth/sessions", object{"userId": "a", "data": object{member: 1}}, key(keyOfBackend)...).status, member)
	}
}
