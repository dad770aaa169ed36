package console_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi/console"
)

func ask(t *testing.T, o console.Options, method, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequest(method, path, http.NoBody)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Add(name, value)
	}
	recorder := httptest.NewRecorder()
	console.Handler(o).ServeHTTP(recorder, request)
	return recorder
}

func get(t *testing.T, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t, console.Options{}, http.MethodGet, path, headers...)
}

var files = map[string]string{
	"/auth/console":               "text/html; charset=utf-8",
	"/auth/console/":              "text/html; charset=utf-8",
	"/auth/console/console.css":   "text/css; charset=utf-8",
	"/auth/console/console.js":    "text/javascript; charset=utf-8",
	"/auth/console/api.js":        "text/javascript; charset=utf-8",
	"/auth/console/decisions.js":  "text/javascript; charset=utf-8",
	"/auth/console/health.js":     "text/javascript; charset=utf-8",
	"/auth/console/dom.js":        "text/javascript; charset=utf-8",
	"/auth/console/icon.svg":      "image/svg+xml",
	"/auth/console/settings.json": "application/json",
}

func TestEveryFileIsServedAsWhatItIs(t *testing.T) {
	for path, kind := range files {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			response := ask(t, console.Options{}, method, path)
			require.Equal(t, 200, response.Code, path)
			require.Equal(t, kind, response.Header().Get("Content-Type"))
			require.Equal(t, method == http.MethodGet, response.Body.Len() > 0)
			require.NotEqual(t, "0", response.Header().Get("Content-Length"))
		}
	}
}

func TestNothingElseIsServed(t *testing.T) {
	for _, path := range []string{
		"/auth/console/index.html", "/auth/console/static/console.js", "/auth/console/../me", "/auth/console//console.js",
		"/auth/consoles", "/auth/console/console.go", "/",
	} {
		response := get(t, path)
		require.Equal(t, 404, response.Code, path)
		require.Equal(t, `{"error":"Not found"}`, response.Body.String())
		require.Equal(t, "no-store", response.Header().Get("Cache-Control"))
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		response := ask(t, console.Options{}, method, "/auth/console")
		require.Equal(t, 405, response.Code, method)
		require.Equal(t, "GET, HEAD", response.Header().Get("Allow"))
		require.Equal(t, `{"error":"Method not allowed"}`, response.Body.String())
	}
}

// TestPageIsConfined: to its own files and its own origin, by every answer.
func TestPageIsConfined(t *testing.T) {
	for _, path := range []string{"/auth/console", "/auth/console/console.js", "/auth/console/nothing"} {
		h := get(t, path).Header()
		require.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
			"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
			h.Get("Content-Security-Policy"))
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		require.Equal(t, "no-referrer", h.Get("Referrer-Policy"))
		require.Equal(t, "same-origin", h.Get("Cross-Origin-Opener-Policy"))
		require.Empty(t, h.Values("Set-Cookie"))
	}
}

// TestNothingIsInlineOrFromElsewhere: the policy would keep the browser from
// it, and the page would be dead.
func TestNothingIsInlineOrFromElsewhere(t *testing.T) {
	page := get(t, "/auth/console").Body.String()
	require.NotRegexp(t, `<style|\sstyle=|\son\w+=|javascript:`, page)
	for _, m := range regexp.MustCompile(`\s(?:src|href)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1], "#") {
			require.Contains(t, files, m[1])
		}
	}
	for path := range files {
		body := get(t, path).Body.String()
		require.NotRegexp(t, `https?://(?:[^w]|w[^w])|url\(`, body, "%s loads from elsewhere", path) // www.w3.org names namespaces
		require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|localStorage|sessionStorage`, body, path)
	}
}

// TestScriptsImportEachOther by the paths under which they are.
func TestScriptsImportEachOther(t *testing.T) {
	for path := range files {
		for _, m := range regexp.MustCompile(`from "([^"]+)"`).FindAllStringSubmatch(get(t, path).Body.String(), -1) {
			require.Contains(t, files, m[1], path)
		}
	}
}

func TestBrowsersAskWhetherTheirCopyIsFresh(t *testing.T) {
	for path := range files {
		first := get(t, path)
		etag := first.Header().Get("Etag")
		require.Regexp(t, `^"[\w-]{16}"$`, etag)
		require.Equal(t, "no-cache", first.Header().Get("Cache-Control"))
		for _, known := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
			again := get(t, path, "If-None-Match: "+known)
			require.Equal(t, 304, again.Code, known)
			require.Empty(t, again.Body.String())
			require.Equal(t, etag, again.Header().Get("Etag"))
		}
		require.Equal(t, 200, get(t, path, `If-None-Match: "other"`).Code)
	}
}

func TestSettingsAreWhatTheOptionsSay(t *testing.T) {
	settings := func(o console.Options) (s struct {
		Title     string
		Providers []string
		Passwords bool
	},
	) {
		response := ask(t, o, http.MethodGet, "/auth/console/settings.json")
		require.NoError(t, json.Unmarshal(response.Body.Bytes(), &s))
		return s
	}
	zero := settings(console.Options{})
	require.True(t, zero.Passwords)
	require.NotNil(t, zero.Providers, "an empty list, not null")
	s := settings(console.Options{Title: `</script>"`, Providers: []string{"corp"}, WithoutPasswords: true})
	require.Equal(t, `</script>"`, s.Title)
	require.Equal(t, []string{"corp"}, s.Providers)
	require.False(t, s.Passwords)
}
