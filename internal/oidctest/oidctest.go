// Package oidctest runs a real OpenID provider, npm's oidc-provider, and clicks
// through its pages as a person would.
//
//	issuer := oidctest.Start(t, modules, map[string]any{"CLIENTS": clients, "ACCOUNTS": accounts})
//	back, page := oidctest.NewBrowser(t, "gateway.example.com").Visit(t, location, typed)
package oidctest

import (
	"context"
	_ "embed"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

//go:embed provider.mjs
var provider []byte

// modules returns the directory of Node modules that has oidc-provider: where
// GATEHOUSE_NODE_MODULES says, else the one given. Without it the test is
// skipped, or fails under CI.
func modules(t *testing.T, otherwise string) string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_NODE_MODULES")
	if dir == "" {
		dir = otherwise
	}
	dir, err := filepath.Abs(dir)
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(dir, "oidc-provider")); err != nil { //nolint:gosec // G703: the environment of a test names it
		const message = "oidc-provider is not installed: run npm ci in e2e/express, or set GATEHOUSE_NODE_MODULES"
		if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
			t.Fatal(message)
		}
		t.Skip(message)
	}
	return dir
}

// Start runs provider.mjs until the test ends and returns its issuer. env is its
// environment, as JSON. nodeModules is where oidc-provider is installed.
func Start(t *testing.T, nodeModules string, env map[string]any) (issuer string) {
	t.Helper()
	o := proc.Options{Env: []string{"GATEHOUSE_NODE_MODULES=" + modules(t, nodeModules)}}
	for name, value := range env {
		text, err := json.Marshal(value)
		require.NoError(t, err)
		o.Env = append(o.Env, name+"="+string(text))
	}
	script := filepath.Join(t.TempDir(), "provider.mjs")
	require.NoError(t, os.WriteFile(script, provider, 0o600))
	p := proctest.Start(t, proctest.Need(t, "node"), []string{script}, o)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	line, err := p.AwaitLine(ctx, func(line string) bool { return strings.HasPrefix(line, "listening on ") })
	require.NoError(t, err)
	return strings.TrimPrefix(line, "listening on ")
}

// Browser is somebody who clicks through the pages of a provider.
type Browser struct{ *http.Client }

// NewBrowser returns a browser that stops where a provider sends it back to
// host.
func NewBrowser(t *testing.T, host string) Browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return Browser{&http.Client{Jar: jar, Timeout: 30 * time.Second, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if req.URL.Host == host {
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

// Visit opens a page and sends the first form of each that follows, filled with
// what the user types, until the browser is sent back to us, or there is no
// form any more. It returns where it ended.
func (b Browser) Visit(t *testing.T, location string, typed url.Values) (*url.URL, string) {
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
