package authapi_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

func TestLogoutEndsEverythingThatComesWithIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cookie, id := b.logIn(t, bob)
	app := b.app(t, bob)
	other, _ := b.logIn(t, bob)
	b.store.expect(0, nil)
	a := b.post(t, "/auth/logout", nil, join([]string{"Cookie", cookie[1] + "; refreshToken=" + app.refresh}, bearer(app.access))...)
	requireAnswer(t, a, 200, loggedOut)
	require.Equal(t, []string{sessionCleared, refreshCleared}, a.header.Values("Set-Cookie"))
	require.Equal(t, []string{"End"}, b.store.called(), "one step")
	require.True(t, b.store.c.Dead[id])
	require.True(t, b.store.c.DeadFamilies["family1"])
	require.Equal(t, b.access.issued[app.access].Expires.Add(30e9), b.store.c.Revoked["jti-1"])
	require.False(t, b.works(t, cookie))
	require.False(t, b.works(t, bearer(app.access)))
	require.True(t, b.works(t, other))
	requireAnswer(t, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}), 401, invalidRefresh)
	// Twice is no error.
	requireAnswer(t, b.post(t, "/auth/logout", nil, join([]string{"Cookie", cookie[1] + "; refreshToken=" + app.refresh}, bearer(app.access))...), 200, loggedOut)
}

func TestLogoutByEachCredentialAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cookie, _ := b.logIn(t, bob)
	requireAnswer(t, b.post(t, "/auth/logout", nil, cookie...), 200, loggedOut)
	require.False(t, b.works(t, cookie))

	app := b.app(t, bob)
	requireAnswer(t, b.post(t, "/auth/logout", object{"refreshToken": app.refresh}), 200, loggedOut)
	require.False(t, b.works(t, bearer(app.access)), "by its family")

	app = b.app(t, bob)
	requireAnswer(t, b.post(t, "/auth/logout", nil, "Cookie", "refreshToken="+app.refresh), 200, loggedOut)
	require.False(t, b.works(t, bearer(app.access)))

	app = b.app(t, bob)
	requireAnswer(t, b.post(t, "/auth/logout", nil, bearer(app.access)...), 200, loggedOut)
	require.False(t, b.works(t, bearer(app.access)))
	requireAnswer(t, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}), 401, invalidRefresh)

	app = b.app(t, bob)
	b.clock.Advance(20 * time.Minute)
	requireAnswer(t, b.post(t, "/auth/logout", nil, bearer(app.access)...), 200, loggedOut)
	requireAnswer(t, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}), 401, invalidRefresh)

	outside := b.outside(t, "outside.access.token", "jti-of-idp")
	requireAnswer(t, b.post(t, "/auth/logout", nil, bearer(outside)...), 200, loggedOut)
	require.False(t, b.works(t, bearer(outside)))
	require.NotContains(t, b.store.c.DeadFamilies, "of the issuer")
}

func TestLogoutEndsEveryFamilyThatComesWithIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first, second, third := b.app(t, bob), b.app(t, bob), b.app(t, bob)
	requireAnswer(t, b.post(t, "/auth/logout", object{"refreshToken": first.refresh}, join([]string{"Cookie", "refreshToken=" + second.refresh}, bearer(third.access))...), 200, loggedOut)
	for _, app := range []tokens{first, second, third} {
		require.False(t, b.works(t, bearer(app.access)))
	}
}

func TestLogoutWithNothingGood(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store.expect(0, nil)
	for name, headers := range map[string][]string{
		"nothing": nil, "a forged session": {"Cookie", "sessionId=forged"}, "a forged refresh token": {"Cookie", "refreshToken=a.0.b.c"},
		"a forged token": bearer("a.b.c"), "an empty one": {"Authorization", "Bearer"}, "another scheme": {"Authorization", "Basic YTpi"},
		"empty cookies": {"Cookie", "sessionId=; refreshToken="},
	} {
		a := b.post(t, "/auth/logout", nil, headers...)
		requireAnswer(t, a, 200, loggedOut)
		require.Equal(t, []string{sessionCleared, refreshCleared}, a.header.Values("Set-Cookie"), name)
	}
	requireAnswer(t, b.post(t, "/auth/logout", object{"refreshToken": "forged"}), 200, loggedOut)
	require.Empty(t, b.store.called())
	for _, body := range []string{"{", `{"refreshToken":1}`} {
		requireAnswer(t, b.post(t, "/auth/logout", body), 400, badRequest)
	}
}

// A session that may live keeps its cookie.
func TestLogoutFailed(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"the store is out":            errOut,
		"not confirmed":               authz.Refuse(authz.ReasonNotConfirmed, "0 of 1 replicas"),
		"a bug":                       authz.Refuse(authz.ReasonInternal, "a bug"),
		"the profile can't be read":   authz.Refuse(authz.ReasonProfileMalformed, "not JSON"),
		"an error without any reason": http500{},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			cookie, _ := b.logIn(t, bob)
			b.store.expect(1, failure)
			a := b.post(t, "/auth/logout", nil, cookie...)
			requireAnswer(t, a, 500, logoutFailed)
			require.Empty(t, a.header.Values("Set-Cookie"))
			require.Empty(t, a.header.Values("Retry-After"))
			b.store.expect(0, nil)
			require.True(t, b.works(t, cookie))
		})
	}
	// Whether a token is one can't be known: it may live on. All else ends.
	b := newBench(t)
	cookie, _ := b.logIn(t, bob)
	b.access.fail(authz.Refuse(authz.ReasonIssuerUnavailable, "no keys"))
	requireAnswer(t, b.post(t, "/auth/logout", nil, join(cookie, bearer("a.b.c"))...), 500, logoutFailed)
	b.access.fail(nil)
	require.False(t, b.works(t, cookie))
}

type http500 struct{}

func (http500) Error() string { return "unheard of" }

func TestLogoutClearsOnlyWhatIsOurs(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *authapi.Options) { o.Cookies = nil })
	require.Equal(t, []string{refreshCleared}, b.post(t, "/auth/logout", nil).header.Values("Set-Cookie"))
	b = newBench(t, func(o *authapi.Options) { o.AccessTokens, o.RefreshTokens = nil, nil })
	require.Equal(t, []string{sessionCleared}, b.post(t, "/auth/logout", nil).header.Values("Set-Cookie"))
}
