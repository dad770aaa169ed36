package authapi_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

const (
	oidcLogin    = "/auth/oidc/corp/login"
	oidcCallback = "/auth/oidc/corp/callback"
	oidcLogout   = "/auth/oidc/corp/backchannel-logout"

	flowCleared = "oidc_flow1=; Path=/auth/oidc/corp; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Secure; SameSite=Lax"
)

// vouch has the provider vouch for somebody who shows this code.
func (b *bench) vouch(code string, who account) {
	b.idp.logins[code] = authz.Login{
		Identity: who.Identity, Organizations: who.Organizations, AuthTime: b.clock.Now().Add(-time.Hour),
		Provider: authz.ProviderLogin{Issuer: "https://idp.example.com", Subject: "sub-" + who.ID},
	}
}

// begin begins a login at the provider and returns the cookie that the browser
// then has.
func (b *bench) begin(t *testing.T, returnTo string) string {
	t.Helper()
	target := oidcLogin
	if returnTo != "" {
		target += "?return_to=" + url.QueryEscape(returnTo)
	}
	a := b.get(t, target)
	require.Equal(t, 302, a.status, a.body)
	pair, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	return pair
}

func TestOIDCLogin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := b.get(t, oidcLogin+"?return_to="+url.QueryEscape("/orders?page=2&x=é#top"))
	require.Equal(t, 302, a.status)
	require.Empty(t, a.body)
	require.Equal(t, "https://idp.example.com/authorize?state=flow1", a.header.Get("Location"))
	require.Equal(t, "no-referrer", a.header.Get("Referrer-Policy"))
	require.Equal(t, []string{
		"oidc_flow1=sealed-flow1; Path=/auth/oidc/corp; Max-Age=600; Expires=" + b.clock.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat) + "; HttpOnly; Secure; SameSite=Lax",
	}, a.header.Values("Set-Cookie"))
	require.Equal(t, "/orders?page=2&x=%C3%A9#top", b.idp.begun["flow1"])
	b.begin(t, "")
	require.Equal(t, "/", b.idp.begun["flow2"])
	for _, elsewhere := range []string{
		"", "https://evil.example.org/", "//evil.example.org", `/\evil.example.org`, `\/evil`, "evil", "?x", "#x", " /x", "/\t/evil.example.org", "/\n/evil", "/a\x00", "/a\x7f", "javascript:alert(1)",
		"/" + strings.Repeat("x", 2050),
	} {
		requireAnswer(t, b.get(t, oidcLogin+"?return_to="+url.QueryEscape(elsewhere)), 400, badRequest)
	}
	for _, query := range []string{"return_to=/a&return_to=/b", "return_to=%zz", "return_to=/%ff", "return_to=/;x"} {
		requireAnswer(t, b.get(t, oidcLogin+"?"+query), 400, badRequest)
	}
	require.Len(t, b.idp.begun, 2)
	for _, name := range []string{"nobody", "CORP", "corp.", "%63orp2"} {
		requireAnswer(t, b.get(t, "/auth/oidc/"+name+"/login"), 404, notFound)
		requireAnswer(t, b.get(t, "/auth/oidc/"+name+"/callback"), 404, notFound)
		requireAnswer(t, b.post(t, "/auth/oidc/"+name+"/backchannel-logout", nil), 404, notFound)
	}
	b.idp.err = authz.Refuse(authz.ReasonIssuerUnavailable, "connection refused")
	requireAnswer(t, b.get(t, oidcLogin), 503, unavailable)
}

func TestOIDCCallbackBeginsASession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.vouch("code-of-bob", bob)
	flow := b.begin(t, "/orders?page=2")
	a := b.get(t, oidcCallback+"?code=code-of-bob&state=flow1", "Cookie", "theme=dark; "+flow, "User-Agent", "Firefox/145", "X-Forwarded-For", "203.0.113.9")
	require.Equal(t, 302, a.status, a.body)
	require.Equal(t, "/orders?page=2", a.header.Get("Location"))
	require.Equal(t, "no-referrer", a.header.Get("Referrer-Policy"))
	require.Equal(t, []string{
		flowCleared,
		"sessionId=s%3Asession-id-1.signature%2B; Path=/; Max-Age=86400; Expires=" + b.clock.Now().Add(24*time.Hour).UTC().Format(http.TimeFormat) + "; HttpOnly; Secure; SameSite=Strict",
	}, a.header.Values("Set-Cookie"))
	l, _ := b.store.session("session-id-1")
	require.Equal(t, authz.Login{
		Identity: bob.Identity, Organizations: bob.Organizations, AuthTime: b.clock.Now().Add(-time.Hour), TTL: 24 * time.Hour,
		Device: authz.Device{Address: "203.0.113.9", UserAgent: "Firefox/145"}, Provider: authz.ProviderLogin{Issuer: "https://idp.example.com", Subject: "sub-bob"},
	}, l)
	require.True(t, b.works(t, cookieOf("session-id-1")))
	// The browser has no cookie of that login any more.
	requireAnswer(t, b.get(t, oidcCallback+"?code=code-of-bob&state=flow1"), 400, badRequest)

	// A session that comes with it is replaced.
	flow = b.begin(t, "/")
	require.Equal(t, 302, b.get(t, oidcCallback+"?code=code-of-bob&state=flow2", "Cookie", flow+"; sessionId="+cookies{}.Sign("session-id-1")).status)
	require.False(t, b.works(t, cookieOf("session-id-1")))
}

func TestSeveralTabsLogInAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.vouch("code-of-bob", bob)
	jar := b.begin(t, "/1") + "; " + b.begin(t, "/2")
	for _, flow := range []string{"2", "1"} {
		a := b.get(t, oidcCallback+"?code=code-of-bob&state=flow"+flow, "Cookie", jar)
		require.Equal(t, 302, a.status)
		require.Equal(t, "/"+flow, a.header.Get("Location"))
	}
}

// A browser sends no SameSite=Strict cookie along a redirect that belongs to
// another site's navigation; a page of ours begins a new one.
func TestArrivalFromAnotherSite(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.vouch("code-of-bob", bob)
	flow := b.begin(t, `/orders?a=1&b="<script>alert(1)</script>'`)
	a := b.get(t, oidcCallback+"?code=code-of-bob&state=flow1", "Cookie", flow, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate")
	require.Equal(t, 200, a.status)
	require.Equal(t, "text/html; charset=utf-8", a.header.Get("Content-Type"))
	require.Equal(t, "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", a.header.Get("Content-Security-Policy"))
	require.Equal(t, "no-referrer", a.header.Get("Referrer-Policy"))
	require.Len(t, a.header.Values("Set-Cookie"), 2)
	const path = `/orders?a=1&amp;b=%22%3Cscript%3Ealert(1)%3C/script%3E&#39;`
	require.Equal(t, `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Logged in</title><meta http-equiv="refresh" content="0;url=`+path+`"></head>`+
		`<body><p>You are logged in. <a href="`+path+`">Continue</a></p></body></html>`, a.body)

	for _, site := range []string{"same-origin", "same-site", "none"} {
		flow = b.begin(t, "/")
		require.Equal(t, 302, b.get(t, oidcCallback+"?code=code-of-bob&state="+strings.TrimPrefix(flow[:strings.IndexByte(flow, '=')], "oidc_"), "Cookie", flow, "Sec-Fetch-Site", site).status, site)
	}
	lax := newBench(t, func(o *authapi.Options) { o.SessionCookie.SameSite = authapi.SameSiteLax })
	lax.vouch("code-of-bob", bob)
	flow = lax.begin(t, "/")
	require.Equal(t, 302, lax.get(t, oidcCallback+"?code=code-of-bob&state=flow1", "Cookie", flow, "Sec-Fetch-Site", "cross-site").status)
}

func TestOIDCCallbackRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		query   string
		cookie  string // "" is that of the login
		status  int
		body    string
		cleared bool
		prepare func(*bench)
	}{
		"no state":             {query: "?code=code-of-bob", status: 400, body: badRequest},
		"another state":        {query: "?code=code-of-bob&state=flow7", status: 400, body: badRequest},
		"a state twice":        {query: "?code=code-of-bob&state=flow1&state=flow1", status: 400, body: badRequest},
		"a state that breaks":  {query: "?code=code-of-bob&state=a%3D1%3B%0d%0aSet-Cookie%3A", status: 400, body: badRequest},
		"a very long state":    {query: "?code=code-of-bob&state=" + strings.Repeat("a", 100), status: 400, body: badRequest},
		"no query":             {query: "", status: 400, body: badRequest},
		"a broken query":       {query: "?state=flow1&code=%zz", status: 400, body: badRequest},
		"another browser":      {query: "?code=code-of-bob&state=flow1", cookie: "a=b", status: 400, body: badRequest},
		"an empty cookie":      {query: "?code=code-of-bob&state=flow1", cookie: "oidc_flow1=", status: 400, body: badRequest},
		"a forged cookie":      {query: "?code=code-of-bob&state=flow1", cookie: "oidc_flow1=forged", status: 400, body: badRequest, cleared: true},
		"the provider refuses": {query: "?error=access_denied&state=flow1", status: 401, body: invalidCredentials, cleared: true},
		"another code":         {query: "?code=x&state=flow1", status: 401, body: invalidCredentials, cleared: true},
		"the provider is out":  {query: "?code=code-of-bob&state=flow1", status: 503, body: unavailable, prepare: func(b *bench) { b.idp.err = authz.Refuse(authz.ReasonIssuerUnavailable, "x") }},
		"locked out":           {query: "?code=code-of-bob&state=flow1", status: 401, body: invalidCredentials, cleared: true, prepare: func(b *bench) { b.store.profile("bob", &authz.Profile{Disabled: true}) }},
		"nobody":               {query: "?code=code-of-bob&state=flow1", status: 401, body: invalidCredentials, cleared: true, prepare: func(b *bench) { b.vouch("code-of-bob", account{}) }},
		"an internal caller": {query: "?code=code-of-bob&state=flow1", status: 401, body: invalidCredentials, cleared: true, prepare: func(b *bench) {
			b.vouch("code-of-bob", account{User: authz.User{Identity: authz.Identity{ID: "service:x"}}})
		}},
		"a path of another host": {query: "?code=code-of-bob&state=flow1", status: 503, body: unavailable, prepare: func(b *bench) { b.idp.begun["flow1"] = "//evil.example.org" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.vouch("code-of-bob", bob)
			cookie := b.begin(t, "/")
			if tt.cookie != "" {
				cookie = tt.cookie
			}
			if tt.prepare != nil {
				tt.prepare(b)
			}
			before := b.store.snapshot(t)
			a := b.get(t, oidcCallback+tt.query, "Cookie", cookie)
			requireAnswer(t, a, tt.status, tt.body)
			if tt.cleared {
				require.Equal(t, []string{flowCleared}, a.header.Values("Set-Cookie"))
			} else {
				require.Empty(t, a.header.Values("Set-Cookie"))
			}
			require.Equal(t, before, b.store.snapshot(t))
		})
	}
}

func TestOIDCLoginBehindTheMarkAndUnderTheProfile(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.vouch("code-of-bob", bob) // who authenticated an hour ago
	roles := []string{"auditor"}
	b.store.profile("bob", &authz.Profile{Roles: &roles})
	b.store.mark("bob", b.clock.Now().Add(-time.Minute))
	flow := b.begin(t, "/")
	require.Equal(t, 302, b.get(t, oidcCallback+"?code=code-of-bob&state=flow1", "Cookie", flow).status)
	l, _ := b.store.session("session-id-1")
	require.Equal(t, roles, l.Roles)
	require.True(t, b.works(t, cookieOf("session-id-1")))
}

func TestBackchannelLogout(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.vouch("code-of-bob", bob)
	flow := b.begin(t, "/")
	require.Equal(t, 302, b.get(t, oidcCallback+"?code=code-of-bob&state=flow1", "Cookie", flow).status)
	other, _ := b.logIn(t, bob)
	token := "logout_token=" + b.log.secret("logout-token-of-sub-bob")
	for range 2 { // a second time is no error
		a := b.post(t, oidcLogout, token, asForm...)
		requireAnswer(t, a, 200, "")
		require.Empty(t, a.header.Values("Set-Cookie"))
		require.False(t, b.works(t, cookieOf("session-id-1")))
		require.True(t, b.works(t, other))
	}
	require.Equal(t, time.Unix(2e9, 0).Add(30*time.Second), b.store.c.ProviderTokens["jti of logout-token-of-sub-bob"])
	for name, tt := range map[string]struct {
		body    string
		headers []string
	}{
		"nothing": {"", asForm}, "no token": {"token=x", asForm}, "an empty one": {"logout_token=", asForm}, "a bad one": {"logout_token=x", asForm},
		"two": {token + "&" + token, asForm}, "JSON": {`{"logout_token":"logout-token-of-sub-bob"}`, nil}, "no form by name": {token, nil},
		"a long one": {"logout_token=" + strings.Repeat("x", 40_000), asForm}, "a broken one": {"logout_token=%zz", asForm},
	} {
		a := b.post(t, oidcLogout, tt.body, tt.headers...)
		require.Equal(t, badRequest, a.body, name)
	}
	b.idp.err = authz.Refuse(authz.ReasonIssuerUnavailable, "no keys")
	requireAnswer(t, b.post(t, oidcLogout, token, asForm...), 503, unavailable)
}
