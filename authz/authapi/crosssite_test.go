package authapi_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What browsers send with a request that a page had them make, and whether
// that page may.
var pages = map[string]struct {
	headers []string
	may     bool
}{
	"no browser":                            {nil, true},
	"the page's own origin":                 {[]string{"Sec-Fetch-Site", "same-origin", "Origin", "https://gateway.example.com"}, true},
	"its own origin, an older browser":      {[]string{"Origin", "https://gateway.example.com"}, true},
	"its own origin, with the default port": {[]string{"Origin", "https://gateway.example.com:443"}, true},
	"typed by the user":                     {[]string{"Sec-Fetch-Site", "none"}, true},
	"a trusted origin":                      {[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://app.example.com"}, true},
	"a trusted origin, an older browser":    {[]string{"Origin", "https://app.example.com"}, true},
	"another site":                          {[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example.org"}, false},
	"another site, without Origin":          {[]string{"Sec-Fetch-Site", "cross-site"}, false},
	"another site, an older browser":        {[]string{"Origin", "https://evil.example.org"}, false},
	"a neighbour":                           {[]string{"Sec-Fetch-Site", "same-site", "Origin", "https://evil.example.com"}, false},
	"a sandbox":                             {[]string{"Origin", "null"}, false},
	"another port":                          {[]string{"Origin", "https://gateway.example.com:8443"}, false},
	"two origins":                           {[]string{"Origin", "https://gateway.example.com", "Origin", "https://evil.example.org"}, false},
	"an origin that only begins so":         {[]string{"Origin", "https://app.example.com.evil.org"}, false},
}

// Every call that changes something and relies on a cookie, or sets one,
// against every page.
func TestCrossSite(t *testing.T) {
	t.Parallel()
	for name, page := range pages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for call, make := range map[string]func(t *testing.T, b *bench) (method, target string, body any, headers []string){
				"login": func(*testing.T, *bench) (string, string, any, []string) {
					return "POST", "/auth/login", credentials(bob), nil
				},
				"token": func(*testing.T, *bench) (string, string, any, []string) {
					return "POST", "/auth/token", credentials(bob), nil
				},
				"token, mobile": func(*testing.T, *bench) (string, string, any, []string) {
					return "POST", "/auth/token", with(credentials(bob), object{"client": "mobile"}), nil
				},
				"refresh": func(t *testing.T, b *bench) (string, string, any, []string) {
					return "POST", "/auth/refresh", nil, []string{"Cookie", "refreshToken=" + b.app(t, alice).refresh}
				},
				"logout": func(t *testing.T, b *bench) (string, string, any, []string) {
					cookie, _ := b.logIn(t, alice)
					return "POST", "/auth/logout", nil, cookie
				},
				"logout, tokens": func(t *testing.T, b *bench) (string, string, any, []string) {
					return "POST", "/auth/logout", nil, []string{"Cookie", "refreshToken=" + b.app(t, alice).refresh}
				},
				"logout, a session and a token": func(t *testing.T, b *bench) (string, string, any, []string) {
					cookie, _ := b.logIn(t, alice)
					return "POST", "/auth/logout", object{"refreshToken": b.app(t, alice).refresh}, cookie
				},
				"switch": func(t *testing.T, b *bench) (string, string, any, []string) {
					cookie, _ := b.logIn(t, alice)
					return "PATCH", "/auth/session", object{"organizationId": "org-2"}, cookie
				},
				"end": func(t *testing.T, b *bench) (string, string, any, []string) {
					cookie, id := b.logIn(t, alice)
					return "DELETE", "/auth/sessions/" + handle(id), nil, cookie
				},
				"revoke all": func(t *testing.T, b *bench) (string, string, any, []string) {
					cookie, _ := b.logIn(t, alice)
					b.logIn(t, bob)
					return "POST", "/auth/revoke-all-sessions", object{"userId": "bob"}, cookie
				},
				"change": func(t *testing.T, b *bench) (string, string, any, []string) {
					cookie, _ := b.logIn(t, alice)
					return "PATCH", "/auth/users/bob/sessions", object{"roles": []string{"admin"}}, cookie
				},
				"end a user's": func(t *testing.T, b *bench) (string, string, any, []string) {
					cookie, _ := b.logIn(t, alice)
					_, id := b.logIn(t, bob)
					return "DELETE", "/auth/users/bob/sessions/" + handle(id), nil, cookie
				},
			} {
				b := newBench(t)
				method, target, body, headers := make(t, b)
				before := b.store.snapshot(t)
				a := b.call(t, method, target, body, join(headers, page.headers)...)
				if page.may {
					require.Equal(t, 200, a.status, "%s: %s", call, a.body)
					require.NotEqual(t, before, b.store.snapshot(t), "%s", call)
					continue
				}
				require.Equal(t, forbidden, a.body, call)
				require.Equal(t, 403, a.status)
				require.Empty(t, a.header.Values("Set-Cookie"))
				require.Equal(t, before, b.store.snapshot(t), "%s", call)
			}
		})
	}
}

var evil = []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example.org"}

// A call that brings its token relies on no cookie.
func TestOwnTokenIsGoodFromAnySite(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, alice)
	a := b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}, evil...)
	require.Equal(t, 200, a.status)
	require.Equal(t, 200, b.call(t, "PATCH", "/auth/session", object{"organizationId": "org-2"}, join(bearer(app.access), evil)...).status)
	require.Equal(t, 200, b.post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}, join(key(keyOfBackend), evil)...).status)
	requireAnswer(t, b.post(t, "/auth/revoke", object{"token": app.access}, evil...), 200, "")

	app = b.app(t, alice)
	a = b.post(t, "/auth/logout", nil, join(bearer(app.access), evil)...)
	requireAnswer(t, a, 200, loggedOut)
	require.Empty(t, a.header.Values("Set-Cookie"), "but it takes nobody's cookie away")
	require.False(t, b.works(t, bearer(app.access)))
}

// A form of another site gets no cookie sent, but an answer that clears one
// would log the user out of the browser.
func TestAnotherSiteCannotClearCookies(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := b.post(t, "/auth/logout", nil, evil...)
	requireAnswer(t, a, 403, forbidden)
	require.Empty(t, a.header.Values("Set-Cookie"))
	a = b.post(t, "/auth/logout", `{"refreshToken":"x="}`, join(evil, []string{"Content-Type", "text/plain"})...)
	requireAnswer(t, a, 200, loggedOut)
	require.Empty(t, a.header.Values("Set-Cookie"))
	a = b.post(t, "/auth/refresh", `{"refreshToken":"x="}`, evil...)
	requireAnswer(t, a, 401, invalidRefresh)
	require.Empty(t, a.header.Values("Set-Cookie"))
}

// Any page may open a WebSocket, and browsers send the cookies with it.
func TestWebSocketOfAnotherSite(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cookie, _ := b.logIn(t, alice)
	for _, target := range []string{"/auth/me", "/auth/sessions", "/auth/users", "/auth/users/bob/sessions"} {
		requireAnswer(t, b.get(t, target, join(cookie, evil, []string{"Upgrade", "websocket"})...), 403, forbidden)
	}
}
