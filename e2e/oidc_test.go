package e2e

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/oidctest"
)

// logInAt logs in at the provider, from our link to our callback.
func (b *browser) logInAt(t *testing.T, provider oidctest.Browser, name, returnTo string) reply {
	t.Helper()
	r := b.open(t, "/auth/oidc/corp/login?return_to="+url.QueryEscape(returnTo))
	require.Equal(t, 302, r.status, r.line())
	back, _ := provider.Visit(t, r.header.Get("location"), url.Values{"login": {name}, "password": {"any"}})
	require.Equal(t, "/auth/oidc/corp/callback", back.Path)
	journal.secret("an authorization code", back.Query().Get("code"))
	return b.open(t, back.RequestURI())
}

// TestStorySingleSignOn: people log in at their company's provider, several
// tabs at once, and the company logs them out. Bearer tokens of the same
// company's issuer pass beside it (federated SSO).
func TestStorySingleSignOn(t *testing.T) {
	need(t)
	// The provider must know our address before we know our own.
	var gatewayURL atomic.Value
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, gatewayURL.Load().(string)+r.URL.Path, r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		request.Header.Set("Content-Type", r.Header.Get("Content-Type"))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer func() { _ = response.Body.Close() }()
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	}))
	defer relay.Close()
	secret := journal.secret("a client secret", newSessionID())
	issuer := oidctest.Start(t, filepath.Join("express", "node_modules"), object{
		"CLIENTS": []object{{
			"client_id": "web", "client_secret": secret, "redirect_uris": []string{ownIssuer + "/auth/oidc/corp/callback"}, "require_auth_time": true,
			"backchannel_logout_uri": relay.URL + "/auth/oidc/corp/backchannel-logout", "backchannel_logout_session_required": true,
		}},
		"ACCOUNTS": object{"dora": object{
			"email": "dora@example.com", "email_verified": true, "groups": []string{"member"}, "org_id": "org-1", "organizations": []string{"org-1", "org-2"},
		}},
	})
	s := start(t, options{replicas: 2, config: `
oidc:
  providers:
    corp: {issuer: "` + issuer + `", client_id: web, client_secret: "` + secret + `", user_id_prefix: "corp:", claims: {roles: groups}}
`})
	g := s.gateway(t, endpoints("gatehouse_http", s.replicas[0].http, s.replicas[1].http))
	gatewayURL.Store("http://" + g.addr)
	dora := identity{"corp:dora", "dora@example.com", `["member"]`, "org-1"}

	provider := oidctest.NewBrowser(t, host)
	b := g.browse()
	r := b.logInAt(t, provider, "dora", "/orders?page=2")
	require.Equal(t, 302, r.status, r.line())
	require.Equal(t, "/orders?page=2", r.header.Get("location"))
	require.Equal(t, []string{"sessionId"}, keysOfCookies(b), "the flow's cookie is gone")
	requireAllowed(t, b.open(t, "/users/me"), dora)
	require.Equal(t, []any{"org-1", "org-2"}, b.open(t, "/auth/me").json(t)["organizations"])

	// A browser that comes from the provider gets a page that goes on by itself,
	// since it would send no strict cookie with a redirect.
	fresh := g.browse()
	r = fresh.open(t, "/auth/oidc/corp/login?return_to=%2Fa%22%3E%3Cscript%3E")
	back, _ := provider.Visit(t, r.header.Get("location"), nil)
	r = fresh.open(t, back.RequestURI(), "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
	require.Equal(t, 200, r.status)
	require.Contains(t, r.body, `http-equiv="refresh"`)
	require.NotContains(t, r.body, "<script")
	require.Contains(t, r.header.Get("content-security-policy"), "default-src 'none'")
	requireAllowed(t, fresh.open(t, "/users/me"), dora)

	t.Run("two tabs at once", func(t *testing.T) {
		tabs := g.browse()
		one, two := tabs.open(t, "/auth/oidc/corp/login?return_to=/one"), tabs.open(t, "/auth/oidc/corp/login?return_to=/two")
		require.Len(t, tabs.cookies, 2)
		backTwo, _ := provider.Visit(t, two.header.Get("location"), nil)
		backOne, _ := provider.Visit(t, one.header.Get("location"), nil)
		require.Equal(t, "/one", tabs.open(t, backOne.RequestURI()).header.Get("location"))
		require.Equal(t, "/two", tabs.open(t, backTwo.RequestURI()).header.Get("location"))
		requireAllowed(t, tabs.open(t, "/users/me"), dora)
	})
	t.Run("refused", func(t *testing.T) {
		victim := g.browse()
		for _, returnTo := range []string{"//evil.example", "https://evil.example/", `/\evil.example`, "evil", "/a\x0d\x0aSet-Cookie: x=y", "javascript:alert(1)"} {
			requireAnswer(t, victim.open(t, "/auth/oidc/corp/login?return_to="+url.QueryEscape(returnTo)), 400, badRequest)
		}
		// A callback in a browser that did not begin it: login CSRF.
		begun := g.browse()
		r := begun.open(t, "/auth/oidc/corp/login")
		back, _ := provider.Visit(t, r.header.Get("location"), nil)
		requireAnswer(t, victim.open(t, back.RequestURI()), 400, badRequest)
		require.Empty(t, victim.cookies)
		require.Equal(t, 302, begun.open(t, back.RequestURI()).status)
		again := begun.open(t, back.RequestURI())
		require.Contains(t, []int{400, 401}, again.status, "the same callback a second time")
		for _, query := range []string{"", "?code=x", "?code=x&state=y", "?error=access_denied"} {
			requireAnswer(t, victim.open(t, "/auth/oidc/corp/callback"+query), 400, badRequest)
		}
		requireAnswer(t, victim.open(t, "/auth/oidc/nobody/login"), 404, notFound)
		// The user says no.
		r = victim.open(t, "/auth/oidc/corp/login")
		state, err := url.Parse(r.header.Get("location"))
		require.NoError(t, err)
		denied := url.Values{"error": {"access_denied"}, "state": {state.Query().Get("state")}, "iss": {issuer}}
		requireAnswer(t, victim.open(t, "/auth/oidc/corp/callback?"+denied.Encode()), 401, invalidCredentials)
	})
	t.Run("locked out, also for those who come from there", func(t *testing.T) {
		require.Equal(t, 200, g.browse().request(t, "PATCH", "/auth/users/corp:dora/sessions", object{"disabled": true}, apiKey(apiKeys.backend)).status)
		out := g.browse()
		requireAnswer(t, out.logInAt(t, provider, "dora", "/"), 401, invalidCredentials)
		require.NotContains(t, keysOfCookies(out), "sessionId")
		require.Equal(t, 200, g.browse().request(t, "PATCH", "/auth/users/corp:dora/sessions", object{"disabled": false}, apiKey(apiKeys.backend)).status)
	})
	t.Run("logout tokens that are none", func(t *testing.T) {
		for _, body := range []string{"", "logout_token=", "logout_token=a.b.c", "token=x", "logout_token=" + s.pem.issue(claimsOf(pemIssuer, bob))} {
			requireAnswer(t, g.browse().post(t, "/auth/oidc/corp/backchannel-logout", body, "Content-Type: application/x-www-form-urlencoded"), 400, badRequest)
		}
		requireAllowed(t, b.open(t, "/users/me"), dora)
	})
	// The provider ends it: for this browser's login there, wherever it led.
	other := oidctest.NewBrowser(t, host)
	elsewhere := g.browse()
	require.Equal(t, 302, elsewhere.logInAt(t, other, "dora", "/").status)
	provider.Visit(t, issuer+"/session/end", url.Values{"logout": {"yes"}})
	eventually(t, 401, func() reply { return b.open(t, "/users/me") })
	requireDenied(t, fresh.open(t, "/users/me"), 401, invalidSession)
	requireAllowed(t, elsewhere.open(t, "/users/me"), dora)

	// Federated: a token of an outside issuer passes beside it, by its own rules.
	requireAllowed(t, g.get(t, "/users/me", bearer(s.pem.issue(claimsOf(pemIssuer, bob)))), bob)
}

// keysOfCookies names what the browser keeps.
func keysOfCookies(b *browser) []string { return slices.Sorted(maps.Keys(b.cookies)) }
