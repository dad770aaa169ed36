package main

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
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
