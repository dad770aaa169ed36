package authapi_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

// administration is every call for administrators, about nobody.
var administration = []struct {
	method, target string
	body           any
}{
	{"POST", "/auth/revoke-all-sessions", object{"userId": "nobody"}},
	{"GET", "/auth/users/nobody/sessions", nil},
	{"PATCH", "/auth/users/nobody/sessions", object{"organizationId": "org-1"}},
	{"GET", "/auth/users?query=nobody", nil},
	{"DELETE", "/auth/users/nobody/sessions/x", nil},
}

// Who may act for others, and what everybody else is told.
func TestAdministrators(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	admin, _ := b.logIn(t, alice)
	adminApp := b.app(t, alice)
	user, _ := b.logIn(t, bob)
	userApp := b.app(t, bob)
	outside := b.outside(t, "outside.admin.token", "")
	for name, tt := range map[string]struct {
		headers   []string
		body      string // "" may
		challenge string
	}{
		"a session with the role":       {admin, "", ""},
		"a token with the role":         {bearer(adminApp.access), "", ""},
		"an internal key":               {key(keyOfBackend), "", ""},
		"a key decides over a session":  {join(key(keyOfServices), admin), forbidden, ""},
		"a key decides over nobody's":   {join(key(keyOfBackend), cookieOf("nobody")), "", ""},
		"nobody":                        {nil, noToken, `Bearer realm="gatehouse"`},
		"identity headers":              {[]string{"X-User-Id", "alice", "X-User-Roles", `["admin"]`}, noToken, `Bearer realm="gatehouse"`},
		"a session without the role":    {user, forbidden, ""},
		"a token without the role":      {bearer(userApp.access), forbidden, `Bearer error="insufficient_scope"`},
		"the role in a claim, not kept": {bearer(outside), forbidden, `Bearer error="insufficient_scope"`},
		"a bad session":                 {cookieOf("nobody"), invalidSession, ""},
		"a bad token":                   {bearer("a.b.c"), invalidToken, `Bearer error="invalid_token"`},
		"a wrong key":                   {key("wrong"), forbidden, ""},
		"an empty key":                  {key(""), forbidden, ""},
		"an expired key":                {key(keyExpired), forbidden, ""},
		"a key for services":            {key(keyOfServices), forbidden, ""},
		"a wrong key and a session":     {join(key("wrong"), admin), forbidden, ""},
		"a key twice":                   {join(key(keyOfBackend), key(keyOfBackend)), forbidden, ""},
		"a key by another spelling":     {[]string{"X_internal_api_key", keyOfBackend}, noToken, `Bearer realm="gatehouse"`},
	} {
		for _, call := range administration {
			a := b.call(t, call.method, call.target, call.body, tt.headers...)
			if tt.body == "" {
				require.Contains(t, []int{200, 404}, a.status, name)
				continue
			}
			require.Equal(t, tt.body, a.body, name)
			require.Contains(t, []int{401, 403}, a.status)
			require.Equal(t, tt.challenge, a.header.Get("WWW-Authenticate"), name)
		}
	}
}

// What an outside issuer calls an admin is one of its own.
func TestOutsideIssuersMakeNoAdministrators(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	outside := b.outside(t, "outside.admin.token", "jti of an outside admin")
	require.Equal(t, []any{"admin"}, b.get(t, "/auth/me", bearer(outside)...).json(t)["roles"])
	for _, call := range administration {
		requireAnswer(t, b.call(t, call.method, call.target, call.body, bearer(outside)...), 403, forbidden)
	}

	// Nor where there are no tokens of our own: then no token is an administrator's.
	b = newBench(t, func(o *authapi.Options) { o.AccessTokens, o.RefreshTokens, o.AdminIssuers = nil, nil, nil })
	outside = b.outside(t, "outside.admin.token", "jti of an outside admin")
	require.Equal(t, []any{"admin"}, b.get(t, "/auth/me", bearer(outside)...).json(t)["roles"])
	before := b.store.snapshot(t)
	for _, call := range administration {
		requireAnswer(t, b.call(t, call.method, call.target, call.body, bearer(outside)...), 401, noToken)
	}
	require.Equal(t, before, b.store.snapshot(t))
	admin, _ := b.logIn(t, alice)
	for _, call := range administration {
		require.NotContains(t, []int{401, 403}, b.call(t, call.method, call.target, call.body, admin...).status, "%s %s: a session is", call.method, call.target)
	}
}

func TestRevokeAll(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	one, _ := b.logIn(t, bob)
	two, _ := b.logIn(t, bob)
	app := b.app(t, bob)
	outside := b.outside(t, "outside.access.token", "")
	b.store.put("foreign", authz.Login{Identity: bob.Identity})
	someone, _ := b.logIn(t, alice)
	requireAnswer(t, b.post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}, someone...), 200, `{"message":"Revoked 3 sessions"}`)
	for _, headers := range [][]string{one, two, cookieOf("foreign"), bearer(app.access), bearer(outside)} {
		require.False(t, b.works(t, headers))
	}
	requireAnswer(t, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}), 401, invalidRefresh)
	require.True(t, b.works(t, someone))
	requireAnswer(t, b.post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}, someone...), 200, `{"message":"Revoked 0 sessions"}`)
	again, _ := b.logIn(t, bob)
	require.True(t, b.works(t, again))
	requireAnswer(t, b.post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}, key(keyOfBackend)...), 200, `{"message":"Revoked 1 sessions"}`)
	requireAnswer(t, b.post(t, "/auth/revoke-all-sessions", object{"userId": 7}, key(keyOfBackend)...), 200, `{"message":"Revoked 0 sessions"}`)
	require.Contains(t, b.store.c.Before, "7")
	requireAnswer(t, b.post(t, "/auth/revoke-all-sessions", object{"userId": "alice"}, someone...), 200, `{"message":"Revoked 1 sessions"}`)

	before := b.store.snapshot(t)
	for _, body := range []any{nil, object{}, object{"userId": ""}, object{"userId": nil}, object{"userId": []int{1}}, object{"userId": true}, object{"userID": "bob"}, "{", "userId=bob"} {
		requireAnswer(t, b.post(t, "/auth/revoke-all-sessions", body, key(keyOfBackend)...), 400, badRequest)
	}
	require.Equal(t, before, b.store.snapshot(t))
}

func TestUserSessions(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	admin, adminID := b.logIn(t, alice)
	now := b.clock.Now()
	const path = "/auth/users/bob/sessions"
	requireAnswer(t, b.get(t, path, admin...), 200,
		`{"user":{"userId":"bob","email":"","roles":[],"organizationId":"","organizations":[],"disabled":false},"sessions":[],"tokens":[]}`)

	b.logIn(t, bob, "User-Agent", "Phone")
	b.store.put("foreign", authz.Login{Identity: authz.Identity{ID: "bob", Organization: "org-5"}})
	a := b.get(t, path, admin...)
	require.Equal(t, object{
		"user": object{"userId": "bob", "email": "Bob@example.com", "roles": []any{"user"}, "organizationId": "org-1", "organizations": []any{"org-1", "org-2"}, "disabled": false},
		"sessions": []any{
			object{
				"handle": handle("session-id-2"), "current": false, "createdAt": moment(now), "lastSeen": moment(now), "address": "192.0.2.1", "userAgent": "Phone",
				"organizationId": "org-1", "roles": []any{"user"},
			},
			object{"handle": handle("foreign"), "current": false, "createdAt": nil, "lastSeen": nil, "address": "", "userAgent": "", "organizationId": "org-5", "roles": []any{}},
		},
		"tokens": []any{},
	}, a.json(t))
	require.NotContains(t, a.body, "foreign")

	app := b.app(t, bob)
	email, roles := "bob@new.example.com", []string{"auditor"}
	b.store.profile("bob", &authz.Profile{Email: &email, Roles: &roles, Disabled: true})
	a = b.get(t, path, admin...)
	require.Equal(t, object{
		"userId": "bob", "email": email, "roles": []any{"auditor"}, "organizationId": "org-1", "organizations": []any{"org-1", "org-2"}, "disabled": true,
	}, a.json(t)["user"])
	require.Equal(t, []object{{"handle": handle("family1"), "current": false, "createdAt": moment(now), "lastSeen": moment(now), "address": "192.0.2.1", "userAgent": ""}}, a.objects(t, "tokens"))
	require.NotContains(t, a.body, app.refresh)

	// One's own is marked, so that nobody ends it by mistake.
	own := b.get(t, "/auth/users/alice/sessions", admin...).objects(t, "sessions")
	require.Equal(t, handle(adminID), own[0]["handle"])
	require.Equal(t, true, own[0]["current"])
	require.Equal(t, false, b.get(t, "/auth/users/alice/sessions", key(keyOfBackend)...).objects(t, "sessions")[0]["current"])
}

// Ids hold what applications put into them.
func TestUserIDsInPaths(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for escaped, id := range map[string]string{
		"bob@example.com": "bob@example.com", "bob%40example.com": "bob@example.com", "auth0%7C123": "auth0|123", "corp:7": "corp:7", "%C3%A9": "é",
		"a%20b": "a b", "a+b": "a+b", "a%25b": "a%b", "a;b": "a;b", "a%3Bb": "a;b", "%E2%9C%93%3F%23": "✓?#", "a.b": "a.b", "...": "...",
	} {
		a := b.get(t, "/auth/users/"+escaped+"/sessions", key(keyOfBackend)...)
		require.Equal(t, 200, a.status, escaped)
		require.Equal(t, id, a.json(t)["user"].(object)["userId"])
		require.Equal(t, 200, b.call(t, "PATCH", "/auth/users/"+escaped+"/sessions", object{"disabled": true}, key(keyOfBackend)...).status)
		require.True(t, b.store.c.Profiles[id].Disabled, escaped)
	}
	for _, odd := range []string{"a%2fb", "a%2Fb", "%2e%2e", "..", ".", "", "a%00b", "%ff", "a%5cb", "%zz", "a%252fb"} {
		requireAnswer(t, b.get(t, "/auth/users/"+odd+"/sessions", key(keyOfBackend)...), 400, badRequest)
	}
}

func TestChangeUser(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	admin, _ := b.logIn(t, alice)
	cookie, _ := b.logIn(t, bob)
	app := b.app(t, bob)
	b.store.put("foreign", authz.Login{Identity: authz.Identity{ID: "bob", Organization: "org-5"}})
	const path = "/auth/users/bob/sessions"
	change := func(body any, headers ...string) answer { return b.call(t, "PATCH", path, body, headers...) }
	requireAnswer(t, change(object{"roles": []string{"admin"}, "organizationId": "org-9"}, admin...), 200, `{"changed":2}`)
	for _, headers := range [][]string{cookie, bearer(app.access), cookieOf("foreign")} {
		me := b.get(t, "/auth/me", headers...).json(t)
		require.Equal(t, []any{"admin"}, me["roles"])
		require.Equal(t, "org-9", me["organizationId"])
	}
	require.Equal(t, 200, b.get(t, path, cookie...).status, "an administrator at once")
	requireAnswer(t, change(object{"roles": []string{}}, key(keyOfBackend)...), 200, `{"changed":2}`)
	requireAnswer(t, change(object{"roles": []string{"admin"}}, cookie...), 403, forbidden)
	requireAnswer(t, change(object{"organizationId": ""}, admin...), 200, `{"changed":2}`)
	require.Empty(t, b.get(t, "/auth/me", cookie...).json(t)["organizationId"])

	// Locked out at once and everywhere, and let in again.
	requireAnswer(t, change(object{"disabled": true}, admin...), 200, `{"changed":2}`)
	requireAnswer(t, b.get(t, "/auth/me", cookie...), 401, invalidSession)
	requireAnswer(t, b.get(t, "/auth/me", bearer(app.access)...), 401, invalidToken)
	requireAnswer(t, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}), 401, invalidRefresh)
	requireAnswer(t, b.post(t, "/auth/login", credentials(bob)), 401, invalidCredentials)
	requireAnswer(t, change(object{"disabled": false}, admin...), 200, `{"changed":2}`)
	require.True(t, b.works(t, cookie))
	require.Equal(t, 200, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}).status)

	requireAnswer(t, change(object{"organizationId": 7}, admin...), 200, `{"changed":2}`)
	require.Equal(t, "7", b.get(t, "/auth/me", cookie...).json(t)["organizationId"])

	before := b.store.snapshot(t)
	for name, body := range map[string]any{
		"nothing": nil, "an empty object": object{}, "half": "{", "a mistyped member": object{"rolse": []string{}}, "one role": object{"roles": "admin"}, "an empty role": object{"roles": []string{""}},
		"a role of a number": object{"roles": []int{1}}, "roles of nobody": object{"roles": nil}, "words": object{"disabled": "true"}, "a number": object{"disabled": 0}, "null": object{"disabled": nil},
		"an organization of a fraction": object{"organizationId": 7.5}, "null for an organization": object{"organizationId": nil}, "email": object{"email": "x@example.com"},
		"a control byte": object{"roles": []string{"a\nb"}}, "a good one and a bad one": object{"disabled": true, "admin": true},
	} {
		a := change(body, admin...)
		require.Equal(t, badRequest, a.body, name)
	}
	require.Equal(t, before, b.store.snapshot(t))

	// An administrator can lock itself out, and is then.
	require.Equal(t, 200, b.call(t, "PATCH", "/auth/users/alice/sessions", object{"roles": []string{"user"}}, admin...).status)
	requireAnswer(t, b.get(t, path, admin...), 403, forbidden)
	require.True(t, b.works(t, admin))
}

func TestEndUserSession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	admin, adminID := b.logIn(t, alice)
	cookie, id := b.logIn(t, bob)
	app := b.app(t, bob)
	end := func(user, of string, headers ...string) answer {
		return b.call(t, "DELETE", "/auth/users/"+user+"/sessions/"+handle(of), nil, headers...)
	}
	requireAnswer(t, end("carol", id, admin...), 404, notFound)
	require.True(t, b.works(t, cookie))
	requireAnswer(t, end("bob", id, admin...), 200, sessionEnded)
	require.False(t, b.works(t, cookie))
	requireAnswer(t, end("bob", id, admin...), 404, notFound)
	requireAnswer(t, end("bob", "family1", key(keyOfBackend)...), 200, sessionEnded)
	require.False(t, b.works(t, bearer(app.access)))
	requireAnswer(t, end("alice", adminID, admin...), 200, sessionEnded)
	require.False(t, b.works(t, admin))
}

func TestFindUsers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	admin, _ := b.logIn(t, alice)
	requireAnswer(t, b.get(t, "/auth/users?query=%20Bob%20", admin...), 200,
		`{"users":[{"userId":"bob","email":"Bob@example.com","roles":["user"],"organizationId":"org-1","organizations":["org-1","org-2"]}]}`)
	require.Equal(t, "Bob", b.users.find)
	requireAnswer(t, b.get(t, "/auth/users?query=nobody", admin...), 200, `{"users":[]}`)
	require.Len(t, b.get(t, "/auth/users", key(keyOfBackend)...).objects(t, "users"), 3)
	for i := range 60 {
		b.users.all = append(b.users.all, account{User: authz.User{Identity: authz.Identity{ID: strings.Repeat("x", i+1)}}})
	}
	require.Len(t, b.get(t, "/auth/users", admin...).objects(t, "users"), 50)
	for _, query := range []string{"query=a&query=b", "query=%zz", "query=%ff", "query=" + strings.Repeat("x", 1100), "query=a;b"} {
		requireAnswer(t, b.get(t, "/auth/users?"+query, admin...), 400, badRequest)
	}
	b.users.err = errOut
	requireAnswer(t, b.get(t, "/auth/users?query=bob", admin...), 503, unavailable)
}

// onlyPasswords is a user store that finds nobody.
type onlyPasswords struct{ authapi.UserStore }

func TestUserStoreThatFindsNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *authapi.Options) { o.UserStore = onlyPasswords{o.UserStore} })
	admin, _ := b.logIn(t, alice)
	requireAnswer(t, b.get(t, "/auth/users?query=bob", admin...), 404, notFound)
}
