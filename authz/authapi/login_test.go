package authapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

func TestLoginBeginsASession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := b.post(t, "/auth/login", credentials(alice), "User-Agent", "Firefox/145", "X-Forwarded-For", "203.0.113.9", "X-User-Id", "root", "X-User-Roles", `["root"]`)
	requireAnswer(t, a, 200, `{"userId":"alice","email":"alice@example.com","roles":["admin","user"],"organizationId":"org-1"}`)
	require.Equal(t, []string{
		"sessionId=s%3Asession-id-1.signature%2B; Path=/; Max-Age=86400; Expires=" + b.clock.Now().Add(24*time.Hour).UTC().Format(http.TimeFormat) + "; HttpOnly; Secure; SameSite=Strict",
	}, a.header.Values("Set-Cookie"))
	l, ok := b.store.session("session-id-1")
	require.True(t, ok)
	require.Equal(t, authz.Login{
		Identity: alice.Identity, Organizations: alice.Organizations, AuthTime: b.clock.Now(), TTL: 24 * time.Hour,
		Device: authz.Device{Address: "203.0.113.9", UserAgent: "Firefox/145"},
	}, l)
	require.Equal(t, []string{"UserStanding", "Create"}, b.store.called())
	require.True(t, b.works(t, cookieOf("session-id-1")))
}

// Clients send more than they need to: a login takes no notice of it.
func TestLoginIgnoresFurtherMembers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, path := range []string{"/auth/login", "/auth/token"} {
		a := b.post(t, path, with(credentials(bob), object{"remember": true, "…": []any{object{"a": nil}}, "": 1}))
		require.Equal(t, 200, a.status, a.body)
	}
}

func TestLoginOfWhoHasNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	requireAnswer(t, b.post(t, "/auth/login", credentials(carol)), 200, `{"userId":"carol","email":"carol@example.com","roles":[],"organizationId":""}`)
}

func TestLoginReplacesTheSessionThatItComesWith(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cookie, id := b.logIn(t, alice)
	other, _ := b.logIn(t, alice)
	next, nextID := b.logIn(t, bob, cookie...)
	require.NotEqual(t, id, nextID)
	require.False(t, b.works(t, cookie))
	require.True(t, b.works(t, next))
	require.True(t, b.works(t, other))
	// The first cookie is the one that counts, and a forged one is none.
	again, _ := b.logIn(t, bob, "Cookie", "sessionId=forged", "Cookie", next[1])
	require.True(t, b.works(t, next))
	require.True(t, b.works(t, again))
	// It need not be alive.
	l, _ := b.store.session("session-id-4")
	require.Empty(t, l.Replaces)
	b.logIn(t, bob, cookie...)
	l, _ = b.store.session("session-id-5")
	require.Equal(t, id, l.Replaces)
}

func TestLoginRefused(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70_000)
	for name, tt := range map[string]struct {
		body   any
		status int
		answer string
	}{
		"another password":        {object{"email": bob.Email, "password": alice.password}, 401, invalidCredentials},
		"nobody":                  {object{"email": "nobody@example.com", "password": bob.password}, 401, invalidCredentials},
		"an empty password":       {object{"email": bob.Email, "password": ""}, 401, invalidCredentials},
		"an empty address":        {object{"email": "", "password": ""}, 401, invalidCredentials},
		"no body":                 {nil, 400, badRequest},
		"an empty object":         {object{}, 400, badRequest},
		"no password":             {object{"email": bob.Email}, 400, badRequest},
		"no address":              {object{"password": bob.password}, 400, badRequest},
		"null":                    {object{"email": bob.Email, "password": nil}, 400, badRequest},
		"a number":                {object{"email": 1, "password": bob.password}, 400, badRequest},
		"a list":                  {`[{"email":"a","password":"b"}]`, 400, badRequest},
		"a string":                {`"email"`, 400, badRequest},
		"null alone":              {`null`, 400, badRequest},
		"a form":                  {"email=bob%40example.com&password=x", 400, badRequest},
		"half of an object":       {`{"email":"a","password":"b"`, 400, badRequest},
		"another one behind":      {`{"email":"a","password":"b"}{}`, 400, badRequest},
		"a member twice":          {`{"email":"a","email":"bob@example.com","password":"b"}`, 400, badRequest},
		"a member in other case":  {`{"Email":"bob@example.com","password":"b"}`, 400, badRequest},
		"no UTF-8":                {"{\"email\":\"\xff\",\"password\":\"b\"}", 400, badRequest},
		"half of a surrogate":     {`{"email":"a","password":"\ud800"}`, 400, badRequest},
		"a very long password":    {object{"email": bob.Email, "password": long[:5000]}, 400, badRequest},
		"a very long address":     {object{"email": long[:2000], "password": "x"}, 400, badRequest},
		"a very long body":        {object{"email": bob.Email, "password": long}, 400, badRequest},
		"a very long white space": {strings.Repeat(" ", 70_000) + `{"email":"a","password":"b"}`, 400, badRequest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			empty := b.store.snapshot(t)
			for _, path := range []string{"/auth/login", "/auth/token"} {
				a := b.post(t, path, tt.body)
				requireAnswer(t, a, tt.status, tt.answer)
				require.Empty(t, a.header.Values("Set-Cookie"))
				require.Empty(t, a.header.Values("WWW-Authenticate"))
			}
			require.Equal(t, empty, b.store.snapshot(t))
			require.Empty(t, b.store.called(), "nothing is asked about nobody")
		})
	}
}

func TestLoginWhateverTheContentType(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, kind := range []string{"application/json", "text/plain", "application/json; charset=utf-8", "application/x-www-form-urlencoded", "nonsense/"} {
		require.Equal(t, 200, b.post(t, "/auth/login", credentials(bob), "Content-Type", kind).status, kind)
	}
}

// What is the same about a known and an unknown user, in this package: what is
// asked, in which order, and how often.
func TestNobodyCostsWhatSomebodyDoes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, email := range []string{bob.Email, "nobody@example.com"} {
		requireAnswer(t, b.post(t, "/auth/login", object{"email": email, "password": "wrong"}), 401, invalidCredentials)
	}
	require.Equal(t, []string{bob.Email, "nobody@example.com"}, b.users.asked)
	require.Equal(t, []string{"attempt bob@example.com 192.0.2.1", "attempt nobody@example.com 192.0.2.1"}, b.guesses.told)
	require.Empty(t, b.store.called())
}

func TestGuessesAreCounted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.logIn(t, bob, "X-Forwarded-For", "10.0.0.1, 203.0.113.9")
	require.Equal(t, []string{"attempt bob@example.com 203.0.113.9", "succeeded bob@example.com 203.0.113.9"}, b.guesses.told)
	require.Equal(t, []string{bob.Email}, b.users.asked)

	// Every spelling counts for one account; the user store gets the address as
	// it was written, but for white space around it.
	b.guesses.told = nil
	require.Equal(t, 200, b.post(t, "/auth/login", object{"email": " \tBOB@Example.com\n", "password": bob.password}).status)
	require.Equal(t, "attempt bob@example.com 192.0.2.1", b.guesses.told[0])
	require.Equal(t, "BOB@Example.com", b.users.asked[1])

	b.guesses.err, b.guesses.retryAfter = authz.Refuse(authz.ReasonRateLimited, "too many"), 17
	before := b.store.snapshot(t)
	for _, path := range []string{"/auth/login", "/auth/token"} {
		a := b.post(t, path, credentials(bob))
		requireAnswer(t, a, 429, tooMany)
		require.Equal(t, "17", a.header.Get("Retry-After"))
	}
	b.guesses.retryAfter = 0
	require.Equal(t, "1", b.post(t, "/auth/login", credentials(bob)).header.Get("Retry-After"))
	require.Len(t, b.users.asked, 2, "the password was not looked at")
	require.Equal(t, before, b.store.snapshot(t))
}

// Where it could not be known whether the password is right, the try was none.
func TestUndecidedTriesAreGivenBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	told := []string{"attempt bob@example.com 192.0.2.1", "undecided bob@example.com 192.0.2.1"}
	b.users.err = authz.Refuse(authz.ReasonOverloaded, "busy")
	requireAnswer(t, b.post(t, "/auth/login", credentials(bob)), 503, unavailable)
	require.Equal(t, told, b.guesses.told)

	b.users.err, b.guesses.told = nil, nil
	b.store.expect(1, errOut)
	requireAnswer(t, b.post(t, "/auth/login", credentials(bob)), 503, unavailable)
	require.Equal(t, told, b.guesses.told)

	b.store.expect(0, nil)
	b.guesses.told = nil
	requireAnswer(t, b.post(t, "/auth/login", object{"email": bob.Email, "password": "wrong"}), 401, invalidCredentials)
	require.Equal(t, told[:1], b.guesses.told)
}

func TestAccountFoldsCase(t *testing.T) {
	t.Parallel()
	for _, spelling := range []string{"kim.ſ@example.com", "KIM.S@EXAMPLE.COM", "\u212aim.s@example.com"} { // long s, Kelvin sign
		require.Equal(t, "kim.s@example.com", authapi.Fold(spelling))
	}
}

func TestLoginWithoutAGuessLimit(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *authapi.Options) { o.Guesses = nil })
	b.logIn(t, bob)
}

// Who is locked out learns no more than who has the wrong password: not by the
// answer, and not by tries that are given back.
func TestLockedOutLooksLikeAWrongPassword(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store.profile("bob", &authz.Profile{Disabled: true})
	before := b.store.snapshot(t)
	for _, path := range []string{"/auth/login", "/auth/token"} {
		a := b.post(t, path, credentials(bob))
		requireAnswer(t, a, 401, invalidCredentials)
		require.Empty(t, a.header.Values("Set-Cookie"))
	}
	require.Equal(t, []string{"attempt bob@example.com 192.0.2.1", "attempt bob@example.com 192.0.2.1"}, b.guesses.told)
	require.Equal(t, before, b.store.snapshot(t))
	require.Equal(t, "password_wrong", b.log.last(t, "auth")["reason"])
}

func TestProfileWinsAtLogin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	email, roles, organization := "bob@new.example.com", []string{}, "org-9"
	b.store.profile("bob", &authz.Profile{Email: &email, Roles: &roles, Organization: &organization, Organizations: []string{"org-9"}})
	requireAnswer(t, b.post(t, "/auth/login", credentials(bob)), 200, `{"userId":"bob","email":"bob@new.example.com","roles":[],"organizationId":"org-9"}`)
	l, _ := b.store.session("session-id-1")
	require.Equal(t, authz.Identity{ID: "bob", Email: email, Roles: roles, Organization: organization}, l.Identity)
	require.Equal(t, []string{"org-9"}, l.Organizations)
}

// After revoke-all the user can log in again at once, whichever clock is ahead.
func TestLoginLiesBehindTheMark(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"the same moment": 0, "the store's clock is ahead": 3 * time.Second, "long ago": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.store.mark("bob", b.clock.Now().Add(ahead))
			cookie, _ := b.logIn(t, bob)
			require.True(t, b.works(t, cookie))
			app := b.app(t, bob)
			require.True(t, b.works(t, bearer(app.access)))
			require.Equal(t, 200, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}).status)
		})
	}
}

func TestUserStoreMustNameSomebody(t *testing.T) {
	t.Parallel()
	for name, id := range map[string]string{"nobody": "", "an internal caller": "service:billing", "no UTF-8": "\xff"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.users.all = []account{{authz.User{Identity: authz.Identity{ID: id, Email: "x"}}, "some password"}}
			requireAnswer(t, b.post(t, "/auth/login", object{"email": "x", "password": "some password"}), 503, unavailable)
			require.Equal(t, "internal", b.log.last(t, "auth")["reason"])
			require.Equal(t, "ERROR", b.log.last(t, "auth")["level"])
		})
	}
}

func TestLoginUnknowable(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(*bench){
		"the user store is out":      func(b *bench) { b.users.err = errOut },
		"the user store is too busy": func(b *bench) { b.users.err = authz.Refuse(authz.ReasonOverloaded, "busy") },
		"the limit is out":           func(b *bench) { b.guesses.err = errOut },
		"the limit is out later":     func(b *bench) { b.guesses.errAfter = errOut },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			broken(b)
			empty := b.store.snapshot(t)
			for _, path := range []string{"/auth/login", "/auth/token"} {
				requireAnswer(t, b.post(t, path, credentials(bob)), 503, unavailable)
			}
			require.Equal(t, empty, b.store.snapshot(t))
			require.Equal(t, "WARN", b.log.last(t, "auth")["level"])
		})
	}
}

// Everything of the user is revoked while the login begins: it is the login
// that doesn't count.
func TestRevokedWhileTheLoginBegins(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store.expect(3, authz.Refuse(authz.ReasonRefreshInvalid, "everything of the user was revoked meanwhile"))
	a := b.post(t, "/auth/token", credentials(bob))
	requireAnswer(t, a, 401, invalidCredentials)
	require.Empty(t, a.header.Values("Set-Cookie"))
	require.Equal(t, []string{"UserStanding", "CompleteProfile", "CreateFamily"}, b.store.called())
}
