package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/forwardauth"
)

// Proxies that ask by HTTP find the door on the http listener, with the engine,
// the log and the metrics of the other one.
func TestForwardAuthIsServed(t *testing.T) {
	g := start(t, onePolicy("embedded://"))
	check := func(path string, headers map[string]string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.http+path, http.NoBody)
		require.NoError(t, err)
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(body)
	}
	question := map[string]string{"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/orders?page=2", "X-Forwarded-Host": "gateway.example.com"}
	status, body := check("/check", question)
	require.Equal(t, 401, status)
	require.Equal(t, `{"error":"No token provided"}`, body)
	status, body = check("/check?policy=no-such", question)
	require.Equal(t, 403, status)
	require.Equal(t, `{"error":"Forbidden"}`, body)
	status, body = check("/check", nil)
	require.Equal(t, 400, status)
	require.Equal(t, `{"error":"Bad request"}`, body)
	status, _ = check("/check/", question)
	require.Equal(t, 404, status, "the auth API's")

	_, metrics := get(t, "http://"+g.ops+"/metrics")
	require.Contains(t, metrics, `gatehouse_decisions_total{credential="",decision="deny",policy="user",reason="no_credential"} 1`)
	require.Contains(t, metrics, `gatehouse_decisions_total{credential="",decision="deny",policy="",reason="policy_unknown"} 1`)
	entry := g.log.await(t, g.done, func(e map[string]any) bool { return e["reason"] == "bad_request" })
	require.Contains(t, entry["error"], "the proxy must send")
	require.NotContains(t, g.log.String(), "page=2")
}

// More requests at once than the http listener takes are refused at its door, each
// in the form that it asked for, and those under way are not harmed.
func TestHTTPListenerSheds(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	sheds := 0
	l := &live{shedHTTP: func() { sheds++ }}
	l.replace(&generation{leases: &leases{}, http: &httpDoor{
		forward: forwardauth.NewHandler(nil, forwardauth.Options{}),
		auth: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(started)
			<-release
			w.WriteHeader(http.StatusNoContent)
		}),
		most: 1,
	}})
	done := make(chan *httptest.ResponseRecorder)
	go func() {
		w := httptest.NewRecorder()
		l.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/auth/login", http.NoBody))
		done <- w
	}()
	<-started
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/check", http.NoBody)
	l.ServeHTTP(w, r)
	require.Equal(t, http.StatusBadRequest, w.Code, "calls take no place of questions")
	l.http.forward.Add(1) // one that lasts
	for path, headers := range map[string]map[string]string{
		"/auth/login": nil,
		"/check":      {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/orders", "X-Forwarded-Host": "gateway.example.com"},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, path, http.NoBody)
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		l.ServeHTTP(w, r)
		require.Equal(t, http.StatusServiceUnavailable, w.Code, path)
		require.Equal(t, `{"error":"Authentication unavailable"}`, w.Body.String(), path)
		require.Equal(t, "1", w.Header().Get("Retry-After"), path)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"), path)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"), path)
		require.Empty(t, w.Header().Values("Set-Cookie"), path)
	}
	require.Equal(t, 2, sheds)

	// nginx sees no more of a refusal than its headers.
	w, r = httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/check", http.NoBody)
	r.Header.Set("X-Original-Method", "GET")
	r.Header.Set("X-Original-URL", "https://gateway.example.com/orders")
	l.ServeHTTP(w, r)
	require.Equal(t, "503", w.Header().Get("X-Gatehouse-Status"))
	require.Equal(t, "overloaded", w.Header().Get("X-Gatehouse-Reason"))
	require.Equal(t, `{"error":"Authentication unavailable"}`, w.Header().Get("X-Gatehouse-Body"))

	close(release)
	require.Equal(t, http.StatusNoContent, (<-done).Code)
	require.Zero(t, l.http.auth.Load())
	require.EqualValues(t, 1, l.http.forward.Load())
}
