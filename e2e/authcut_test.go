package e2e

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest/line"
)

// TestCutInTheMiddle: Redis goes away at each of the commands of each call. The
// answer says so, and afterwards all of it has happened, or nothing.
func TestCutInTheMiddle(t *testing.T) {
	s := start(t, options{})
	l := line.New(t, s.redis.Addr)
	r := s.replicas[0]
	require.NoError(t, r.Stop())
	config, err := proc.MergeYAML(string(r.config), fmt.Sprintf("redis: {url: %q}", "redis://"+l.Addr+"/0"))
	require.NoError(t, err)
	r.config = config
	require.NoError(t, r.restart(t, "/readyz"))
	g := s.gateway(t)
	admin := apiKey(apiKeys.backend)
	works := func(t *testing.T, r reply) bool {
		t.Helper()
		if r.status == 200 {
			require.NotNil(t, r.arrived)
			return true
		}
		require.Equal(t, 401, r.status, r.line())
		return false
	}
	// one reports whether all of these are the same, and what they are.
	one := func(t *testing.T, states ...bool) bool {
		t.Helper()
		for _, state := range states {
			require.Equal(t, states[0], state, "half of it has happened: %v", states)
		}
		return states[0]
	}

	for _, call := range []struct {
		name string
		// prepare sets the scene and returns the call and what is looked at
		// afterwards, with Redis back and whether the call was answered well.
		prepare func(t *testing.T) (do func() reply, look func(t *testing.T, done bool))
		failed  int
		body    string
	}{
		{"login", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b := g.browse()
			b.logIn(t, bobsLogin)
			old := b.copy()
			return func() reply { return b.post(t, "/auth/login", bobsLogin.credentials()) }, func(t *testing.T, done bool) {
				t.Helper()
				sessions := s.store.Keys(t.Context(), "sess:*").Val()
				require.Len(t, sessions, 1, "the old one or the new one")
				replaced := sessions[0] != "sess:"+old.sessionID(t)
				require.Equal(t, !replaced, works(t, old.open(t, "/users/me")))
				if done {
					require.True(t, replaced)
				} else {
					require.Equal(t, old.cookies, b.cookies)
				}
			}
		}, 503, unavailable},
		{"token", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b := g.browse()
			return func() reply { return b.post(t, "/auth/token", bobsLogin.credentials()) }, func(t *testing.T, done bool) {
				t.Helper()
				require.Equal(t, done, len(b.cookies) == 1)
				require.LessOrEqual(t, len(s.store.Keys(t.Context(), "refresh:*").Val()), 1)
				require.Equal(t, 200, b.post(t, "/auth/token", bobsLogin.credentials()).status)
			}
		}, 503, unavailable},
		{"refresh", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			a := g.app(t, bobsLogin)
			return func() reply { return a.renew(t) }, func(t *testing.T, _ bool) {
				t.Helper()
				require.Equal(t, 200, a.renew(t).status, "the same token again")
				require.Equal(t, 200, a.renew(t).status, "and its successor")
				requireAllowed(t, a.call(t, "/users/me"), bobsLogin.identity())
			}
		}, 503, unavailable},
		{"logout", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b := g.browse()
			b.logIn(t, bobsLogin)
			r := b.post(t, "/auth/token", bobsLogin.credentials())
			require.Equal(t, 200, r.status)
			access := journal.secret("an access token", text(r.json(t)["accessToken"]))
			before := b.copy()
			return func() reply { return b.post(t, "/auth/logout", nil, bearer(access)) }, func(t *testing.T, done bool) {
				t.Helper()
				session := works(t, before.open(t, "/users/me"))
				token := works(t, g.get(t, "/users/me", bearer(access)))
				refresh := before.post(t, "/auth/refresh", nil).status == 200
				alive := one(t, session, token, refresh)
				require.False(t, done && alive)
				if !done {
					require.Equal(t, before.copy().cookies["sessionId"], b.cookies["sessionId"], "a session that may live keeps its cookie")
				}
			}
		}, 500, logoutFailed},
		{"revoke everything", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b, a := g.browse(), g.app(t, bobsLogin)
			b.logIn(t, bobsLogin)
			express := cookie(s.login(t, bob))
			timeless := cookie(signed(s.session(t, with(bob.record(), object{"authTime": nil})), secretCurrent))
			do := func() reply {
				return g.browse().post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}, admin)
			}
			return do, func(t *testing.T, done bool) {
				t.Helper()
				alive := one(t, works(t, b.open(t, "/users/me")), works(t, a.call(t, "/users/me")), works(t, g.get(t, "/users/me", express)),
					works(t, g.get(t, "/users/me", timeless)), a.renew(t).status == 200)
				require.False(t, done && alive)
			}
		}, 503, unavailable},
		{"an administrator's change", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b, a := g.browse(), g.app(t, bobsLogin)
			b.logIn(t, bobsLogin)
			express := cookie(s.login(t, bob))
			do := func() reply {
				return g.browse().request(t, "PATCH", "/auth/users/bob/sessions", object{"roles": []string{"admin"}, "organizationId": "org-5"}, admin)
			}
			return do, func(t *testing.T, done bool) {
				t.Helper()
				promoted := func(r reply) bool { return r.status == 200 }
				changed := one(t, promoted(b.open(t, "/users/admin/stats")), promoted(a.call(t, "/users/admin/stats")), promoted(g.get(t, "/users/admin/stats", express)))
				require.False(t, done && !changed)
			}
		}, 503, unavailable},
		{"switching the organization", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b := g.browse()
			b.logIn(t, bobsLogin)
			return func() reply { return b.request(t, "PATCH", "/auth/session", object{"organizationId": "org-2"}) }, func(t *testing.T, done bool) {
				t.Helper()
				org := b.open(t, "/auth/me").json(t)["organizationId"]
				require.Contains(t, []any{"org-1", "org-2"}, org)
				require.False(t, done && org != "org-2")
			}
		}, 503, unavailable},
		{"a session for a trusted backend", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b := g.browse()
			return func() reply { return b.post(t, "/auth/sessions", object{"userId": "dora"}, admin) }, func(t *testing.T, done bool) {
				t.Helper()
				require.Equal(t, done, len(b.cookies) == 1)
				require.LessOrEqual(t, len(s.store.Keys(t.Context(), "sess:*").Val()), 1)
			}
		}, 503, unavailable},
		{"ending one of one's own", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b, other := g.browse(), g.browse()
			other.agent = "other"
			b.logIn(t, bobsLogin)
			other.logIn(t, bobsLogin)
			handle := ""
			for _, one := range list(b.open(t, "/auth/sessions").json(t)["sessions"]) {
				if one["userAgent"] == other.agent {
					handle = text(one["handle"])
				}
			}
			return func() reply { return b.request(t, "DELETE", "/auth/sessions/"+handle, nil) }, func(t *testing.T, done bool) {
				t.Helper()
				require.False(t, done && works(t, other.open(t, "/users/me")))
				require.True(t, works(t, b.open(t, "/users/me")))
			}
		}, 503, unavailable},
	} {
		t.Run(call.name, func(t *testing.T) {
			cuts, stride := 0, 1
			if testing.Short() { // with the race detector: there is only one caller
				stride = 3
			}
			for at := 1; ; at += stride {
				require.Less(t, at, 60, "this call takes more commands than any should")
				require.NoError(t, s.store.FlushDB(t.Context()).Err())
				do, look := call.prepare(t)
				l.Arm(line.Cut{At: at})
				answer := do()
				wasCut := l.Mend()
				eventually(t, 401, func() reply { return g.get(t, "/users/me", cookie(signed(newSessionID(), secretCurrent))) })
				done := answer.status < 300
				if !done {
					require.True(t, wasCut, answer.line())
					requireAnswer(t, answer, call.failed, call.body)
					require.Empty(t, answer.header.Values("set-cookie"))
				}
				look(t, done)
				if !wasCut {
					break
				}
				cuts++
			}
			require.Positive(t, cuts)
		})
	}
}
