package authapi_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

func TestOptionsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	good := newBench(t)
	for name, tt := range map[string]struct {
		change func(*authapi.Options)
		says   string
	}{
		"no store":                 {func(o *authapi.Options) { o.Store = nil }, "no store"},
		"access tokens alone":      {func(o *authapi.Options) { o.AccessTokens = good.access }, "go together"},
		"refresh tokens alone":     {func(o *authapi.Options) { o.RefreshTokens = good.refresh }, "go together"},
		"a short session":          {func(o *authapi.Options) { o.SessionTTL = time.Millisecond }, "a session that lives for 1ms"},
		"a short refresh token":    {func(o *authapi.Options) { o.RefreshTTL = -time.Hour }, "a refresh token that lives for -1h"},
		"a leeway backwards":       {func(o *authapi.Options) { o.Leeway = -1 }, "leeway"},
		"hops backwards":           {func(o *authapi.Options) { o.TrustedHops = -1 }, "trusted hops"},
		"no name for a cookie":     {func(o *authapi.Options) { o.SessionCookie.Name = "a b" }, `"a b" is not a name`},
		"an injected cookie":       {func(o *authapi.Options) { o.SessionCookie.Name = "a=b;c" }, "is not a name"},
		"the refresh token's name": {func(o *authapi.Options) { o.SessionCookie.Name = "refreshToken" }, "is taken"},
		"a login's name":           {func(o *authapi.Options) { o.SessionCookie.Name = "oidc_x" }, "is taken"},
		"a prefix that needs Secure": {func(o *authapi.Options) {
			o.SessionCookie = authapi.SessionCookie{Name: "__Host-id", InsecureHTTP: true}
		}, "without Secure"},
		"another one": {func(o *authapi.Options) {
			o.SessionCookie = authapi.SessionCookie{Name: "__Secure-id", InsecureHTTP: true}
		}, "without Secure"},
		"None without Secure": {func(o *authapi.Options) {
			o.SessionCookie = authapi.SessionCookie{SameSite: authapi.SameSiteNone, InsecureHTTP: true}
		}, "without Secure"},
		"an unheard-of SameSite":         {func(o *authapi.Options) { o.SessionCookie.SameSite = "strict" }, `SameSite is "strict"`},
		"a provider that is no segment":  {func(o *authapi.Options) { o.Providers = map[string]authapi.Provider{"a/b": good.idp} }, `"a/b"`},
		"a provider without a name":      {func(o *authapi.Options) { o.Providers = map[string]authapi.Provider{"": good.idp} }, `""`},
		"a provider of dots":             {func(o *authapi.Options) { o.Providers = map[string]authapi.Provider{"..": good.idp} }, `".."`},
		"a provider that is none at all": {func(o *authapi.Options) { o.Providers = map[string]authapi.Provider{"a": nil} }, `"a" is nil`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := authapi.Options{Store: good.store}
			tt.change(&o)
			_, err := authapi.New(o)
			require.ErrorContains(t, err, tt.says)
		})
	}
	_, err := authapi.New(authapi.Options{Store: good.store, SessionTTL: time.Second, RefreshTTL: time.Second})
	require.NoError(t, err, "the least that there is")
	_, err = authapi.New(authapi.Options{TrustedHops: -1, SessionCookie: authapi.SessionCookie{Name: "="}})
	for _, each := range []string{"no store", "trusted hops", "not a name"} {
		require.ErrorContains(t, err, each, "all of it at once")
	}
}

// What the settings make of each cookie, to the byte but for the date.
func TestCookiesAsConfigured(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cookie authapi.SessionCookie
		ttl    time.Duration
		name   string
		middle string // between Expires and SameSite
		same   string
		maxAge string
	}{
		"as shipped":       {authapi.SessionCookie{}, 0, "sessionId", "; HttpOnly; Secure", "Strict", "86400"},
		"another name":     {authapi.SessionCookie{Name: "connect.sid"}, 0, "connect.sid", "; HttpOnly; Secure", "Strict", "86400"},
		"a prefix":         {authapi.SessionCookie{Name: "__Host-sessionId"}, 0, "__Host-sessionId", "; HttpOnly; Secure", "Strict", "86400"},
		"another prefix":   {authapi.SessionCookie{Name: "__Secure-sessionId", SameSite: authapi.SameSiteLax}, 0, "__Secure-sessionId", "; HttpOnly; Secure", "Lax", "86400"},
		"without TLS":      {authapi.SessionCookie{InsecureHTTP: true}, 0, "sessionId", "; HttpOnly", "Strict", "86400"},
		"None":             {authapi.SessionCookie{SameSite: authapi.SameSiteNone}, 0, "sessionId", "; HttpOnly; Secure", "None", "86400"},
		"a shorter life":   {authapi.SessionCookie{}, 90 * time.Minute, "sessionId", "; HttpOnly; Secure", "Strict", "5400"},
		"half of a second": {authapi.SessionCookie{}, 1500 * time.Millisecond, "sessionId", "; HttpOnly; Secure", "Strict", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, func(o *authapi.Options) { o.SessionCookie, o.SessionTTL = tt.cookie, tt.ttl })
			a := b.post(t, "/auth/login", credentials(bob))
			require.Equal(t, 200, a.status)
			line := a.header.Get("Set-Cookie")
			require.Regexp(t, `^[^;]+; Path=/; Max-Age=`+tt.maxAge+`; Expires=(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT`+tt.middle+`; SameSite=`+tt.same+`$`, line)
			value := a.cookie(tt.name)
			require.Equal(t, cookies{}.Sign("session-id-1"), value)
			require.Equal(t, 200, b.get(t, "/auth/me", "Cookie", tt.name+"="+value).status)

			// Cleared by the same attributes: another path would be another cookie.
			a = b.post(t, "/auth/logout", nil, "Cookie", tt.name+"="+value)
			require.Equal(t, []string{
				tt.name + "=; Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT" + tt.middle + "; SameSite=" + tt.same,
				"refreshToken=; Path=/auth; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT" + tt.middle + "; SameSite=Strict",
			}, a.header.Values("Set-Cookie"))
			require.Equal(t, 401, b.get(t, "/auth/me", "Cookie", tt.name+"="+value).status)

			a = b.post(t, "/auth/token", credentials(bob))
			require.Regexp(t, `^refreshToken=[^;]+; Path=/auth; Max-Age=604800; Expires=[^;]+`+tt.middle+`; SameSite=Strict$`, a.header.Get("Set-Cookie"))
			a = b.get(t, "/auth/oidc/corp/login")
			require.Regexp(t, `^oidc_flow1=sealed-flow1; Path=/auth/oidc/corp; Max-Age=600; Expires=[^;]+`+tt.middle+`; SameSite=Lax$`, a.header.Get("Set-Cookie"))
		})
	}
}

func TestRefreshCookieLivesAsConfigured(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *authapi.Options) { o.RefreshTTL = time.Hour })
	a := b.post(t, "/auth/token", credentials(bob))
	require.Contains(t, a.header.Get("Set-Cookie"), "; Max-Age=3600; ")
	require.Equal(t, b.clock.Now().Add(time.Hour), b.store.c.Families["family1"].Expires)
}

// Names and values that stand in headers and paths, byte by byte: what they may
// hold is what the RFC lists, or less.
func TestNamesAndValues(t *testing.T) {
	t.Parallel()
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for name, tt := range map[string]struct {
		check func(string) bool
		good  string // beside letters and digits
	}{
		"the name of a cookie":   {authapi.CookieToken, "!#$%&'*+-.^_`|~"},              // RFC 9110 section 5.6.2
		"the value of a cookie":  {authapi.CookieValue, "!#$%&'()*+-./:<=>?@[]^_`{|}~"}, // RFC 6265 section 4.1.1
		"a flow":                 {authapi.FlowName, "-_"},
		"the name of a provider": {authapi.ProviderName, "-_."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for c := range 256 {
				text := "a" + string([]byte{byte(c)}) + "b"
				want := c < 0x80 && strings.ContainsRune(letters+tt.good, rune(c))
				require.Equal(t, want, tt.check(text), "%q", text)
			}
		})
	}
	require.False(t, authapi.CookieToken(""))
	require.True(t, authapi.CookieValue(""))
	require.False(t, authapi.FlowName(""))
	require.True(t, authapi.FlowName(strings.Repeat("a", 64)))
	require.False(t, authapi.FlowName(strings.Repeat("a", 65)))
	for _, name := range []string{"", ".", "..", "..."} {
		require.False(t, authapi.ProviderName(name), "%q", name)
	}
}

// badCookies sign to what no cookie may hold.
type badCookies struct{ cookies }

func (badCookies) Sign(id string) string { return id + "; Path=/evil\r\nX: y" }

// A value that would break out of its cookie is a bug, and no answer.
func TestValueThatNoCookieCanHave(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *authapi.Options) { o.Cookies = badCookies{} })
	requireAnswer(t, b.post(t, "/auth/login", credentials(bob)), 503, unavailable)
	require.NotContains(t, b.log.last(t, "auth")["error"], "evil")
}
