package demopage_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/demopage"
)

func serve(t *testing.T, o demopage.Options, request *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	demopage.New(o).ServeHTTP(recorder, request)
	return recorder
}

func post(path, body string) *http.Request {
	return httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
}

func TestPageLoadsOnlyItsOwnFiles(t *testing.T) {
	for path, kind := range map[string]string{
		"/": "text/html", "/demo/app.js": "text/javascript", "/demo/style.css": "text/css", "/demo/icon.svg": "image/svg+xml",
	} {
		response := serve(t, demopage.Options{}, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, 200, response.Code, path)
		require.Contains(t, response.Header().Get("Content-Type"), kind)
		require.Contains(t, response.Header().Get("Content-Security-Policy"), "default-src 'none'")
		require.NotContains(t, response.Body.String(), "https://", "nothing from elsewhere")
	}
	response := serve(t, demopage.Options{}, httptest.NewRequest(http.MethodGet, "/elsewhere", nil))
	require.Equal(t, 404, response.Code)
	require.Equal(t, `{"error":"Not found"}`, response.Body.String())
}

func TestLoginSetsTheSessionCookie(t *testing.T) {
	o := demopage.Options{
		SecureCookie: true,
		Login: func(_ context.Context, user string) (string, bool, error) {
			return "s%3Asigned", user == "alice", nil
		},
	}
	response := serve(t, o, post("/demo/login", `{"user":"alice"}`))
	require.Equal(t, 200, response.Code)
	require.Equal(t, "sessionId=s%3Asigned; Path=/; Max-Age=86400; HttpOnly; Secure; SameSite=Strict", response.Header().Get("Set-Cookie"))

	response = serve(t, o, post("/demo/login", `{"user":"mallory"}`))
	require.Equal(t, 404, response.Code)
	require.Empty(t, response.Header().Get("Set-Cookie"))
	require.Equal(t, 400, serve(t, o, post("/demo/login", `{`)).Code)

	o.Login = func(context.Context, string) (string, bool, error) { return "", true, errors.New("no store") }
	response = serve(t, o, post("/demo/login", `{"user":"alice"}`))
	require.Equal(t, 503, response.Code)
	require.Empty(t, response.Header().Get("Set-Cookie"))
}

func TestLogoutEndsTheSessionBeforeTheCookie(t *testing.T) {
	var ended string
	o := demopage.Options{Logout: func(_ context.Context, cookie string) error { ended = cookie; return nil }}
	request := post("/demo/logout", "{}")
	request.Header.Set("Cookie", "a=b; sessionId=s%3Asigned")
	response := serve(t, o, request)
	require.Equal(t, 200, response.Code)
	require.Equal(t, "s%3Asigned", ended)
	require.Contains(t, response.Header().Get("Set-Cookie"), "Max-Age=0")

	o.Logout = func(context.Context, string) error { return errors.New("no store") }
	response = serve(t, o, request)
	require.Equal(t, 500, response.Code)
	require.Empty(t, response.Header().Get("Set-Cookie"), "a session that still lives keeps its cookie")
}

func TestOtherSitesCannotLogInOrOut(t *testing.T) {
	for _, path := range []string{"/demo/login", "/demo/logout"} {
		request := post(path, "{}")
		request.Header.Set("Sec-Fetch-Site", "cross-site")
		response := serve(t, demopage.Options{}, request)
		require.Equal(t, 403, response.Code)
		require.Equal(t, `{"error":"Forbidden"}`, response.Body.String())
	}
}
