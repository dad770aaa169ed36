package oidc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/oidc"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// nodeModules returns the directory that has oidc-provider. Without it the test
// is skipped, or fails under CI.
func nodeModules(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_NODE_MODULES")
	if dir == "" {
		dir = "../../e2e/express/node_modules"
	}
	dir, err := filepath.Abs(dir)
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(dir, "oidc-provider")); err != nil {
		message := "oidc-provider is not installed: run npm ci in e2e/express, or set GATEHOUSE_NODE_MODULES"
		if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
			t.Fatal(message)
		}
		t.Skip(message)
	}
	return dir
}

// startProvider runs testdata/provider.mjs and returns its issuer.
func startProvider(t *testing.T, env map[string]any) string {
	t.Helper()
	o := proc.Options{Env: []string{"GATEHOUSE_NODE_MODULES=" + nodeModules(t)}}
	for name, value := range env {
		o.Env = append(o.Env, name+"="+string(must(json.Marshal(value))))
	}
	p := proctest.Start(t, proctest.Need(t, "node"), []string{"testdata/provider.mjs"}, o)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	line, err := p.AwaitLine(ctx, func(line string) bool { return strings.HasPrefix(line, "listening on ") })
	require.NoError(t, err)
	return strings.TrimPrefix(line, "listening on ")
}

// browser is somebody who clicks through the pages of a provider.
type browser struct{ *http.Client }

func newBrowser(t *testing.T) browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return browser{&http.Client{Jar: jar, Timeout: 30 * time.Second, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if req.URL.Host == "gateway.example.com" { // back at us
			return http.ErrUseLastResponse
		}
		return nil
	}}}
}

var (
	forms  = regexp.MustCompile(`(?s)<form[^>]* action="([^"]+)"[^>]*>(.*?)</form>`)
	inputs = regexp.MustCompile(`<input[^>]*>`)
	attr   = func(name string) *regexp.Regexp { return regexp.MustCompile(` ` + name + `="([^"]*)"`) }
)

// visit opens a page and sends the first form of each that follows, filled with
// what the user types, until the browser is sent back to us, or there is no
// form any more. It returns where it ended.
func (b browser) visit(t *testing.T, location string, typed url.Values) (*url.URL, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, location, http.NoBody)
	require.NoError(t, err)
	for range 10 {
		resp, err := b.Do(req)
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		if back, err := resp.Location(); err == nil {
			return back, string(text)
		}
		require.Equal(t, http.StatusOK, resp.StatusCode, "%s", text)
		form := forms.FindSubmatch(text)
		if form == nil {
			return resp.Request.URL, string(text)
		}
		action, err := resp.Request.URL.Parse(html.UnescapeString(string(form[1])))
		require.NoError(t, err)
		values := url.Values{}
		for _, input := range inputs.FindAllString(string(form[2]), -1) {
			name := attr("name").FindStringSubmatch(input)
			if name == nil {
				continue
			}
			if value := attr("value").FindStringSubmatch(input); value != nil && !typed.Has(name[1]) {
				values.Set(name[1], html.UnescapeString(value[1]))
			} else {
				values.Set(name[1], typed.Get(name[1]))
			}
		}
		if typed.Has("logout") && values.Has("xsrf") {
			values.Set("logout", "yes") // the name of the button
		}
		req, err = http.NewRequestWithContext(t.Context(), http.MethodPost, action.String(), strings.NewReader(values.Encode()))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	t.Fatal("the provider has ever more forms")
	return nil, ""
}

// client is one of the clients of the real provider.
func client(id string, more map[string]any) map[string]any {
	c := map[string]any{
		"client_id": id, "client_secret": clientSecret, "redirect_uris": []string{redirectURL}, "require_auth_time": true,
	}
	maps.Copy(c, more)
	return c
}

// realProvider is a running testdata/provider.mjs.
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
	return realProvider{startProvider(t, all)}
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
func (r realProvider) logIn(t *testing.T, p *oidc.Provider, b browser, name string) authz.Login {
	t.Helper()
	l := begin(t, p, "/orders")
	back, _ := b.visit(t, l.location.String(), typed(name))
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
	require.Equal(t, []string{"admin", "member"}, r.logIn(t, p, newBrowser(t), "alice").Roles)
	require.Zero(t, asked)
}

func TestRealProvider(t *testing.T) {
	nodeModules(t)
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
		got := r.logIn(t, r.client(t, "basic"), newBrowser(t), "alice")
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
		got := r.logIn(t, r.client(t, "basic"), newBrowser(t), "mallory")
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
			require.Equal(t, "corp:alice", r.logIn(t, p, newBrowser(t), "alice").ID)
		})
	}

	t.Run("several tabs of one browser", func(t *testing.T) {
		p, b := r.client(t, "basic"), newBrowser(t)
		one, two := begin(t, p, "/one"), begin(t, p, "/two")
		backOne, _ := b.visit(t, one.location.String(), typed("alice"))
		backTwo, _ := b.visit(t, two.location.String(), nil) // logged in there already
		_, _, err := p.Finish(t.Context(), backTwo.Query(), one.sealed)
		require.Equal(t, authz.ReasonBadRequest, authz.ReasonOf(err))
		for tab, back := range map[login]*url.URL{one: backOne, two: backTwo} {
			got, _, err := p.Finish(t.Context(), back.Query(), tab.sealed)
			require.NoError(t, err)
			require.Equal(t, "corp:alice", got.ID)
		}
	})

	t.Run("the user says no", func(t *testing.T) {
		p, b := r.client(t, "basic"), newBrowser(t)
		l := begin(t, p, "/")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.location.String(), http.NoBody)
		require.NoError(t, err)
		resp, err := b.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		back, _ := b.visit(t, resp.Request.URL.String()+"/abort", nil)
		require.Equal(t, "access_denied", back.Query().Get("error"))
		_, _, err = p.Finish(t.Context(), back.Query(), l.sealed)
		require.Equal(t, authz.ReasonLoginRefused, authz.ReasonOf(err))
		require.ErrorContains(t, err, "access_denied")
	})

	t.Run("a code counts once, and only with its verifier", func(t *testing.T) {
		p, b := r.client(t, "basic"), newBrowser(t)
		one, two := begin(t, p, "/"), begin(t, p, "/")
		backOne, _ := b.visit(t, one.location.String(), typed("alice"))
		backTwo, _ := b.visit(t, two.location.String(), nil)
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
		back, _ := newBrowser(t).visit(t, l.location.String(), typed("alice"))
		_, _, err := p.Finish(t.Context(), back.Query(), l.sealed)
		require.Equal(t, authz.ReasonIssuerUnavailable, authz.ReasonOf(err))
		require.ErrorContains(t, err, "check client id and secret")
		require.NotContains(t, err.Error(), "wrong")
	})

	t.Run("the provider logs the user out", func(t *testing.T) {
		p, b := r.client(t, "backchannel"), newBrowser(t)
		got := r.logIn(t, p, b, "alice")
		require.NotEmpty(t, got.Provider.SessionID)
		b.visit(t, r.issuer+"/session/end", url.Values{"logout": {"yes"}})
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
