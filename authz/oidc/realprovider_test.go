package oidc_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/oidc"
	"github.com/gatehouse-auth/gatehouse/internal/oidctest"
)

// client is one of the clients of the real provider.
func client(id string, more map[string]any) map[string]any {
	c := map[string]any{
		"client_id": id, "client_secret": clientSecret, "redirect_uris": []string{redirectURL}, "require_auth_time": true,
	}
	maps.Copy(c, more)
	return c
}

// nodeModules is where oidc-provider is, unless the environment says otherwise.
const nodeModules = "../../e2e/express/node_modules"

// realProvider is a running oidc-provider.
type realProvider struct{ issuer string }

// startRealProvider runs one with these clients and two users. env is more of
// its environment.
func startRealProvider(t *testing.T, clients []map[string]any, env map[string]any) realProvider {
	t.Helper()
	all := map[string]any{
		"CLIENTS": clients,
		"ACCOUNTS": map[string]any{
			"alice": map[string]any{
				"email": "alice@example.com", "email_verified": true, "groups": []string{"admin", "member"},
				"org_id": "org-1", "organizations": []string{"org-1", "org-2"},
			},
			"mallory": map[string]any{"email": "alice@example.com", "email_verified": false},
		},
	}
	maps.Copy(all, env)
	return realProvider{oidctest.Start(t, nodeModules, all)}
}

// client is our side of one of its clients.
func (r realProvider) client(t *testing.T, id string, changes ...func(*oidc.Options)) *oidc.Provider {
	t.Helper()
	o := oidc.Options{
		Name: "corp", Issuer: r.issuer, ClientID: id, ClientSecret: clientSecret, RedirectURL: redirectURL,
		Claims:       oidc.Claims{Email: "email", Roles: "groups", Organization: "org_id", Organizations: "organizations"},
		UserIDPrefix: "corp:", SealingKeys: [][]byte{[]byte(sealingKey)}, Timeout: 30 * time.Second,
	}
	for _, change := range changes {
		change(&o)
	}
	p, err := oidc.New(o)
	require.NoError(t, err)
	return p
}

// logIn logs somebody in from beginning to end.
func (r realProvider) logIn(t *testing.T, p *oidc.Provider, b oidctest.Browser, name string) authz.Login {
	t.Helper()
	l := begin(t, p, "/orders")
	back, _ := b.Visit(t, l.location.String(), typed(name))
	require.Equal(t, "gateway.example.com", back.Host)
	require.Equal(t, r.issuer, back.Query().Get("iss"), "RFC 9207")
	require.Equal(t, l.flow, p.Flow(back.Query()))
	got, returnTo, err := p.Finish(t.Context(), back.Query(), l.sealed)
	require.NoError(t, err)
	require.Equal(t, "/orders", returnTo)
	return got
}

// typed is what a user types at the provider.
func typed(name string) url.Values { return url.Values{"login": {name}, "password": {"any"}} }

// Where the ID token says everything, nothing more is asked.
func TestRealProviderWithClaimsInTheIDToken(t *testing.T) {
	r := startRealProvider(t, []map[string]any{client("basic", nil)}, map[string]any{"CLAIMS_IN_ID_TOKEN": true})
	asked := 0
	p := r.client(t, "basic", func(o *oidc.Options) {
		o.HTTPClient = &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.URL.Path == "/me" {
				asked++
			}
			return http.DefaultTransport.RoundTrip(req)
		})}
	})
	require.Equal(t, []string{"admin", "member"}, r.logIn(t, p, oidctest.NewBrowser(t, "gateway.example.com"), "alice").Roles)
	require.Zero(t, asked)
}

func TestRealProvider(t *testing.T) {
	logouts := make(chan string, 10)
	ours := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		logouts <- r.FormValue("logout_token")
	}))
	defer ours.Close()
	public := client("public", map[string]any{"token_endpoint_auth_method": "none"})
	delete(public, "client_secret")
	r := startRealProvider(t, []map[string]any{
		client("basic", nil),
		client("post", map[string]any{"token_endpoint_auth_method": "client_secret_post"}),
		public,
		client("es256", map[string]any{"id_token_signed_response_alg": "ES256"}),
		client("eddsa", map[string]any{"id_token_signed_response_alg": "EdDSA"}),
		client("ps256", map[string]any{"id_token_signed_response_alg": "PS256"}),
		client("backchannel", map[string]any{"backchannel_logout_uri": ours.URL, "backchannel_logout_session_required": true}),
	}, nil)

	t.Run("a login, claims by the userinfo endpoint", func(t *testing.T) {
		start := time.Now().Truncate(time.Second)
		got := r.logIn(t, r.client(t, "basic"), oidctest.NewBrowser(t, "gateway.example.com"), "alice")
		require.WithinRange(t, got.AuthTime, start, time.Now())
		require.Equal(t, authz.Login{
			Identity:      authz.Identity{ID: "corp:alice", Email: "alice@example.com", Roles: []string{"admin", "member"}, Organization: "org-1"},
			Organizations: []string{"org-1", "org-2"},
			AuthTime:      got.AuthTime,
			Values:        map[string]any{"provider": "corp"},
			Provider:      authz.ProviderLogin{Issuer: r.issuer, Subject: "alice"},
		}, got)
	})

	t.Run("an address that is not verified is nobody's", func(t *testing.T) {
		got := r.logIn(t, r.client(t, "basic"), oidctest.NewBrowser(t, "gateway.example.com"), "mallory")
		require.Equal(t, authz.Identity{ID: "corp:mallory"}, got.Identity)
	})

	for _, id := range []string{"post", "public", "es256", "eddsa", "ps256"} {
		t.Run("client "+id, func(t *testing.T) {
			p := r.client(t, id, func(o *oidc.Options) {
				switch id {
				case "public":
					o.ClientSecret = ""
				case "post": // this client takes one of the two ways that the provider announces
					o.HTTPClient = &http.Client{Transport: roundTripper(onlyPost)}
				}
			})
			require.Equal(t, "corp:alice", r.logIn(t, p, oidctest.NewBrowser(t, "gateway.example.com"), "alice").ID)
		})
	}

	t.Run("several tabs of one browser", func(t *testing.T) {
		p, b := r.client(t, "basic"), oidctest.NewBrowser(t, "gateway.example.com")
		one, two := begin(t, p, "/one"), begin(t, p, "/two")
		backOne, _ := b.Visit(t, one.location.String(), typed("alice"))
		backTwo, _ := b.Visit(t, two.location.String(), nil) // logged in there already
		_, _, err := p.Finish(t.Context(), backTwo.Query(), one.sealed)
		require.Equal(t, authz.ReasonBadRequest, authz.ReasonOf(err))
		for tab, back := range map[login]*url.URL{one: backOne, two: backTwo} {
			got, _, err := p.Finish(t.Context(), back.Query(), tab.sealed)
			require.NoError(t, err)
			require.Equal(t, "corp:alice", got.ID)
		}
	})

	t.Run("the user says no", func(t *testing.T) {
		p, b := r.client(t, "basic"), oidctest.NewBrowser(t, "gateway.example.com")
		l := begin(t, p, "/")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.location.String(), http.NoBody)
		require.NoError(t, err)
		resp, err := b.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		back, _ := b.Visit(t, resp.Request.URL.String()+"/abort", nil)
		require.Equal(t, "access_denied", back.Query().Get("error"))
		_, _, err = p.Finish(t.Context(), back.Query(), l.sealed)
		require.Equal(t, authz.ReasonLoginRefused, authz.ReasonOf(err))
		require.ErrorContains(t, err, "access_denied")
	})

	t.Run("a code counts once, and only with its verifier", func(t *testing.T) {
		p, b := r.client(t, "basic"), oidctest.NewBrowser(t, "gateway.example.com")
		one, two := begin(t, p, "/"), begin(t, p, "/")
		backOne, _ := b.Visit(t, one.location.String(), typed("alice"))
		backTwo, _ := b.Visit(t, two.location.String(), nil)
		stolen := backTwo.Query()
		stolen.Set("code", backOne.Query().Get("code"))
		_, _, err := p.Finish(t.Context(), stolen, two.sealed)
		require.Equal(t, authz.ReasonLoginRefused, authz.ReasonOf(err))
		require.ErrorContains(t, err, "invalid_grant")
		_, _, err = p.Finish(t.Context(), backTwo.Query(), two.sealed)
		require.NoError(t, err)
		_, _, err = p.Finish(t.Context(), backTwo.Query(), two.sealed)
		require.Equal(t, authz.ReasonLoginRefused, authz.ReasonOf(err))
		require.ErrorContains(t, err, "invalid_grant")
	})

	t.Run("a wrong client secret is our fault, not the user's", func(t *testing.T) {
		p := r.client(t, "basic", func(o *oidc.Options) { o.ClientSecret = "wrong" })
		l := begin(t, p, "/")
		back, _ := oidctest.NewBrowser(t, "gateway.example.com").Visit(t, l.location.String(), typed("alice"))
		_, _, err := p.Finish(t.Context(), back.Query(), l.sealed)
		require.Equal(t, authz.ReasonIssuerUnavailable, authz.ReasonOf(err))
		require.ErrorContains(t, err, "check client id and secret")
		require.NotContains(t, err.Error(), "wrong")
	})

	t.Run("the provider logs the user out", func(t *testing.T) {
		p, b := r.client(t, "backchannel"), oidctest.NewBrowser(t, "gateway.example.com")
		got := r.logIn(t, p, b, "alice")
		require.NotEmpty(t, got.Provider.SessionID)
		b.Visit(t, r.issuer+"/session/end", url.Values{"logout": {"yes"}})
		var raw string
		select {
		case raw = <-logouts:
		case <-time.After(30 * time.Second):
			t.Fatal("no logout token came")
		}
		ended, jti, until, err := p.LogoutToken(t.Context(), raw)
		require.NoError(t, err)
		require.Equal(t, got.Provider.Issuer, ended.Issuer)
		require.Equal(t, got.Provider.SessionID, ended.SessionID, "the very session that began with this login")
		require.NotEmpty(t, jti)
		require.WithinRange(t, until, time.Now().Add(2*time.Minute), time.Now().Add(4*time.Minute))
		_, _, _, err = r.client(t, "basic").LogoutToken(t.Context(), raw)
		require.Equal(t, authz.ReasonBadRequest, authz.ReasonOf(err), "it is for another client")
	})
}

// roundTripper is a function as a transport.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// onlyPost makes a discovery document name client_secret_post alone.
func onlyPost(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || !strings.HasSuffix(r.URL.Path, "/openid-configuration") {
		return resp, err
	}
	defer resp.Body.Close()
	var document map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&document); err != nil {
		return nil, fmt.Errorf("discovery document: %w", err)
	}
	document["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
	resp.Body = io.NopCloser(strings.NewReader(string(must(json.Marshal(document)))))
	return resp, nil
}
