package authapi_test

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// scenes are all calls that ask the store, with everything they need to
// succeed.
var scenes = map[string]func(t *testing.T, b *bench) func() answer{
	"login": func(t *testing.T, b *bench) func() answer {
		cookie, _ := b.logIn(t, bob)
		return func() answer { return b.post(t, "/auth/login", credentials(bob), cookie...) }
	},
	"token": func(t *testing.T, b *bench) func() answer {
		b.store.profile("bob", &authz.Profile{Email: &bob.Email, Roles: &bob.Roles, Organization: &bob.Organization, Organizations: bob.Organizations})
		return func() answer { return b.post(t, "/auth/token", credentials(bob)) }
	},
	"refresh": func(t *testing.T, b *bench) func() answer {
		app := b.app(t, bob)
		return func() answer { return b.post(t, "/auth/refresh", nil, "Cookie", "refreshToken="+app.refresh) }
	},
	"logout": func(t *testing.T, b *bench) func() answer {
		cookie, _ := b.logIn(t, bob)
		app := b.app(t, bob)
		return func() answer {
			return b.post(t, "/auth/logout", nil, join([]string{"Cookie", cookie[1] + "; refreshToken=" + app.refresh}, bearer(app.access))...)
		}
	},
	"revoke all": func(t *testing.T, b *bench) func() answer {
		admin, _ := b.logIn(t, alice)
		b.logIn(t, bob)
		return func() answer { return b.post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}, admin...) }
	},
	"revoke an access token": func(t *testing.T, b *bench) func() answer {
		app := b.app(t, bob)
		return func() answer { return b.post(t, "/auth/revoke", object{"token": app.access}) }
	},
	"revoke a refresh token": func(t *testing.T, b *bench) func() answer {
		app := b.app(t, bob)
		return func() answer { return b.post(t, "/auth/revoke", object{"token": app.refresh}) }
	},
	"introspect an access token": func(t *testing.T, b *bench) func() answer {
		app := b.app(t, bob)
		return func() answer { return b.post(t, "/auth/introspect", object{"token": app.access}, key(keyOfBackend)...) }
	},
	"introspect a refresh token": func(t *testing.T, b *bench) func() answer {
		app := b.app(t, bob)
		return func() answer {
			return b.post(t, "/auth/introspect", object{"token": app.refresh}, key(keyOfBackend)...)
		}
	},
	"me, by session": func(t *testing.T, b *bench) func() answer {
		cookie, _ := b.logIn(t, bob)
		return func() answer { return b.get(t, "/auth/me", cookie...) }
	},
	"me, by token": func(t *testing.T, b *bench) func() answer {
		app := b.app(t, bob)
		return func() answer { return b.get(t, "/auth/me", bearer(app.access)...) }
	},
	"own sessions": func(t *testing.T, b *bench) func() answer {
		cookie, _ := b.logIn(t, bob)
		return func() answer { return b.get(t, "/auth/sessions", cookie...) }
	},
	"end the current session": func(t *testing.T, b *bench) func() answer {
		cookie, id := b.logIn(t, bob)
		return func() answer { return b.call(t, "DELETE", "/auth/sessions/"+handle(id), nil, cookie...) }
	},
	"end another session": func(t *testing.T, b *bench) func() answer {
		cookie, _ := b.logIn(t, bob)
		_, id := b.logIn(t, bob)
		return func() answer { return b.call(t, "DELETE", "/auth/sessions/"+handle(id), nil, cookie...) }
	},
	"switch, by session": func(t *testing.T, b *bench) func() answer {
		cookie, _ := b.logIn(t, bob)
		return func() answer {
			return b.call(t, "PATCH", "/auth/session", object{"organizationId": "org-2"}, cookie...)
		}
	},
	"switch, by token": func(t *testing.T, b *bench) func() answer {
		app := b.app(t, bob)
		return func() answer {
			return b.call(t, "PATCH", "/auth/session", object{"organizationId": "org-2"}, bearer(app.access)...)
		}
	},
	"create": func(t *testing.T, b *bench) func() answer {
		return func() answer { return b.post(t, "/auth/sessions", object{"userId": "dora"}, key(keyOfBackend)...) }
	},
	"a user's sessions": func(t *testing.T, b *bench) func() answer {
		admin, _ := b.logIn(t, alice)
		return func() answer { return b.get(t, "/auth/users/bob/sessions", admin...) }
	},
	"change a user": func(t *testing.T, b *bench) func() answer {
		admin, _ := b.logIn(t, alice)
		return func() answer {
			return b.call(t, "PATCH", "/auth/users/bob/sessions", object{"disabled": true}, admin...)
		}
	},
	"end a user's session": func(t *testing.T, b *bench) func() answer {
		admin, _ := b.logIn(t, alice)
		_, id := b.logIn(t, bob)
		return func() answer {
			return b.call(t, "DELETE", "/auth/users/bob/sessions/"+handle(id), nil, admin...)
		}
	},
	"find users": func(t *testing.T, b *bench) func() answer {
		admin, _ := b.logIn(t, alice)
		return func() answer { return b.get(t, "/auth/users", admin...) }
	},
	"arrive from a provider": func(t *testing.T, b *bench) func() answer {
		b.vouch("code-of-bob", bob)
		flow := b.begin(t, "/")
		return func() answer { return b.get(t, oidcCallback+"?code=code-of-bob&state=flow1", "Cookie", flow) }
	},
	"the provider ends a login": func(t *testing.T, b *bench) func() answer {
		return func() answer {
			return b.post(t, oidcLogout, "logout_token="+b.log.secret("logout-token-of-sub-bob"), asForm...)
		}
	},
}

// each runs a scene once for every step of the store that its call takes, with
// that step prepared by breaking, and looks at what came of it.
func each(t *testing.T, breaks func(s *store, step int), look func(t *testing.T, b *bench, name string, a answer, before string, last bool)) {
	t.Helper()
	for name, scene := range scenes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			do := scene(t, b)
			b.store.expect(0, nil)
			require.Less(t, do().status, 400, "the scene itself")
			steps := len(b.store.called())
			require.Positive(t, steps)
			for step := 1; step <= steps; step++ {
				b := newBench(t)
				do := scene(t, b)
				before := b.store.snapshot(t)
				b.store.expect(step, errOut)
				breaks(b.store, step)
				a := do()
				require.Len(t, b.store.called(), step, "the first failure is the last step")
				look(t, b, name, a, before, step == steps)
			}
		})
	}
}

func requireFailed(t *testing.T, name string, a answer) {
	t.Helper()
	if name == "logout" {
		requireAnswer(t, a, 500, logoutFailed)
	} else {
		requireAnswer(t, a, 503, unavailable)
	}
	require.Empty(t, a.header.Values("Set-Cookie"))
}

// Whichever step fails, nothing of the call has happened.
func TestStoreOutAtEachStep(t *testing.T) {
	t.Parallel()
	each(t, func(*store, int) {}, func(t *testing.T, b *bench, name string, a answer, before string, _ bool) {
		t.Helper()
		requireFailed(t, name, a)
		require.Equal(t, before, b.store.snapshot(t))
		require.Equal(t, "WARN", b.log.last(t, "auth")["level"])
		require.Equal(t, "store_unavailable", b.log.last(t, "auth")["reason"])
	})
}

// The reply of a step is lost, though it was done: the answer is the same, and
// no step comes after it.
func TestStoreReplyLostAtEachStep(t *testing.T) {
	t.Parallel()
	each(t, func(s *store, _ int) { s.lost = true }, func(t *testing.T, b *bench, name string, a answer, before string, last bool) {
		t.Helper()
		requireFailed(t, name, a)
		if !last {
			require.Equal(t, before, b.store.snapshot(t), "only the last step changes something")
		}
	})
}

func TestBugAtEachStep(t *testing.T) {
	t.Parallel()
	each(t, func(s *store, _ int) { s.breaks = true }, func(t *testing.T, b *bench, name string, a answer, before string, _ bool) {
		t.Helper()
		requireFailed(t, name, a)
		require.Equal(t, before, b.store.snapshot(t))
		line := b.log.last(t, "auth")
		require.Equal(t, "ERROR", line["level"])
		require.Contains(t, line["error"], "a bug in step")
		require.Contains(t, line["stack"], "authapi.(*API)")
	})
}

// A call for which there is no place is one that never began: nothing was asked,
// changed or logged. It is counted.
func TestShedCalls(t *testing.T) {
	t.Parallel()
	for name, scene := range scenes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			do := scene(t, b)
			before, lines, guesses := b.store.snapshot(t), len(b.log.lines(t, "auth")), len(b.guesses.told)
			b.store.expect(0, nil)
			shed := func(p *places) {
				t.Helper()
				b.places = p
				requireFailed(t, name, do())
				require.Empty(t, b.store.called())
				require.Equal(t, before, b.store.snapshot(t))
				require.Len(t, b.guesses.told, guesses)
				require.Len(t, b.log.lines(t, "auth"), lines, "the log would be the next thing to be flooded")
				require.Regexp(t, " 50[03]$", b.recorder.last())
				require.Zero(t, p.receiving)
			}
			b.places = &places{receive: true}
			shed(b.places)
			require.Equal(t, 1, b.places.entered)
			if body := b.places.received; body > 0 {
				require.Equal(t, 1, body)
				b.places = &places{enter: true}
				shed(b.places)
				require.Zero(t, b.places.entered, "it has not come")
			}
			b.places = &places{receive: true, enter: true}
			require.Less(t, do().status, 400, "there is place again")
			require.Equal(t, 1, b.places.entered)
			require.Zero(t, b.places.receiving)
		})
	}
	b := newBench(t)
	b.places = &places{}
	requireAnswer(t, b.get(t, "/auth/nothing"), 404, notFound)
	requireAnswer(t, b.post(t, "/auth/nothing", object{}), 404, notFound)
	for _, path := range []string{"/auth/console", "/.well-known/jwks.json", "/auth/openapi.yaml"} {
		require.Equal(t, 200, b.get(t, path).status, "%s asks nobody", path)
	}
	require.Equal(t, places{}, *b.places)
}

// Who sends a call slowly, or never to its end, holds no place meanwhile but that for
// calls which are still to come.
func TestACallTakesItsPlaceWhenItIsThere(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var p *places
	post := func(text string, end error) int {
		p = &places{receive: true, enter: true}
		rest := strings.NewReader(text)
		body := readerFunc(func(to []byte) (int, error) {
			require.Zero(t, p.entered, "its body is not there yet")
			require.Equal(t, 1, p.receiving)
			n, err := rest.Read(to[:min(1, len(to))])
			if errors.Is(err, io.EOF) {
				err = end
			}
			return n, err
		})
		w := httptest.NewRecorder()
		b.api.Serve(w, httptest.NewRequest("POST", "/auth/login", body), p)
		require.Zero(t, p.receiving)
		return w.Code
	}
	require.Equal(t, 200, post(`{"email":"bob@example.com","password":"`+bob.password+`"}`, io.EOF))
	require.Equal(t, 1, p.entered)
	require.Equal(t, 400, post(`{"email":"`, io.ErrUnexpectedEOF), "what didn't come is the caller's mistake, as ever")
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// What was done and not confirmed by the replicas says so.
func TestNotConfirmed(t *testing.T) {
	t.Parallel()
	unconfirmed := authz.Refuse(authz.ReasonNotConfirmed, "0 of 1 replicas")
	each(t, func(s *store, _ int) { s.failure, s.lost = unconfirmed, true }, func(t *testing.T, b *bench, name string, a answer, before string, last bool) {
		t.Helper()
		if name == "logout" {
			requireAnswer(t, a, 500, logoutFailed)
		} else {
			requireAnswer(t, a, 503, notConfirmed)
		}
		if last && name != "refresh" && before != b.store.snapshot(t) {
			require.Equal(t, false, b.log.last(t, "audit")["confirmed"], "it was done, and is in the log")
		}
	})
}

// Nothing waits for longer than its deadline, which is shorter than the
// gateway's patience of 15 seconds. How long the body took doesn't shorten it.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	sweeps := []string{"revoke all", "a user's sessions", "change a user", "end a user's session"}
	provider := []string{"arrive from a provider", "the provider ends a login"}
	for name, scene := range scenes {
		if name == "find users" {
			continue // does not change what follows
		}
		longest := 5 * time.Second
		for _, s := range sweeps {
			if s == name {
				longest = 14 * time.Second
			}
		}
		for _, s := range provider {
			if s == name {
				longest = 10 * time.Second
			}
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				do := scene(t, b)
				b.store.expect(1, nil)
				b.store.hangs = true
				b.slow, b.places = 4*time.Second, &places{receive: true, enter: true}
				start := time.Now()
				requireFailed(t, name, do())
				require.Equal(t, longest+time.Duration(b.places.received)*b.slow, time.Since(start))
			})
		})
	}
}

// A client that leaves stops what only it would get, and not what others rely
// on.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	admin, _ := b.logIn(t, alice)
	cookie, _ := b.logIn(t, bob)
	gone, leave := context.WithCancel(t.Context())
	leave()
	call := func(method, target, body string, headers ...string) answer {
		r := httptest.NewRequestWithContext(gone, method, "/", strings.NewReader(body))
		r.RequestURI, r.URL.Path, r.Host = target, target, "gateway.example.com"
		for i := 0; i < len(headers); i += 2 {
			r.Header.Add(headers[i], headers[i+1])
		}
		return b.serve(t, r, body)
	}
	before := b.store.snapshot(t)
	requireAnswer(t, call("POST", "/auth/login", `{"email":"bob@example.com","password":"`+bob.password+`"}`), 503, unavailable)
	requireAnswer(t, call("POST", "/auth/token", `{"email":"bob@example.com","password":"`+bob.password+`"}`), 503, unavailable)
	requireAnswer(t, call("GET", "/auth/me", "", cookie...), 503, unavailable)
	require.Equal(t, before, b.store.snapshot(t))
	requireAnswer(t, call("POST", "/auth/logout", "", cookie...), 200, loggedOut)
	require.False(t, b.works(t, cookie))
	b.logIn(t, bob)
	requireAnswer(t, call("POST", "/auth/revoke-all-sessions", `{"userId":"bob"}`, admin...), 200, `{"message":"Revoked 1 sessions"}`)
	require.Equal(t, 200, call("PATCH", "/auth/users/bob/sessions", `{"disabled":true}`, admin...).status)
}
