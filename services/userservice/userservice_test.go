package userservice_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
	"github.com/gatehouse-auth/gatehouse/services/userservice"
)

func alice() http.Header {
	return http.Header{
		"X-User-Id": {"alice"}, "X-User-Email": {"alice@example.com"},
		"X-User-Roles": {`["admin"]`}, "X-Org-Id": {"org-1"},
	}
}

func bob() http.Header {
	return http.Header{
		"X-User-Id": {"bob"}, "X-User-Email": {"bob@example.com"},
		"X-User-Roles": {`["member"]`}, "X-Org-Id": {"org-2"},
	}
}

const (
	aliceJSON = `{"userId":"alice","email":"alice@example.com","roles":["admin"],"organizationId":"org-1"}`
	bobJSON   = `{"userId":"bob","email":"bob@example.com","roles":["member"],"organizationId":"org-2"}`
	internal  = "demo-internal-key"
)

func TestRoutes(t *testing.T) {
	service := userservice.New(userservice.Options{InternalKeys: []usercontext.Key{usercontext.HashKey(internal)}})
	key := http.Header{"X-Internal-Api-Key": {internal}}
	malformed := http.Header{"X-User-Id": {"alice", "bob"}}

	for _, tc := range []struct {
		name, method, path string
		header             http.Header
		status             int
		body               string
	}{
		{"health", "GET", "/healthz", nil, 200, `{"status":"alive"}`},
		{"health asks nobody who they are", "GET", "/healthz", malformed, 200, `{"status":"alive"}`},

		{"hello, anonymous", "GET", "/public/hello", nil, 200, `{"service":"user-service","user":null,"message":"Hello, whoever you are."}`},
		{"hello, alice", "GET", "/public/hello", alice(), 200, `{"service":"user-service","user":` + aliceJSON + `,"message":"Hello, Alice Archer."}`},
		{
			"hello, someone else", "GET", "/public/hello",
			http.Header{"X-User-Id": {"carol"}},
			200,
			`{"service":"user-service","user":{"userId":"carol","email":"","roles":[],"organizationId":""},"message":"Hello, carol."}`,
		},
		{"hello, malformed", "GET", "/public/hello", malformed, 400, `{"error":"Bad request"}`},

		{
			"me", "GET", "/users/me", alice(), 200,
			`{"service":"user-service","user":` + aliceJSON + `,"profile":{"displayName":"Alice Archer","title":"Head of purchasing",` +
				`"organizations":["org-1","org-2"],"memberSince":"2021-03-01"}}`,
		},
		{
			"me, bob", "GET", "/users/me", bob(), 200,
			`{"service":"user-service","user":` + bobJSON + `,"profile":{"displayName":"Bob Baker","title":"Buyer",` +
				`"organizations":["org-1","org-2"],"memberSince":"2023-09-15"}}`,
		},
		{
			"me, a service", "GET", "/users/me",
			http.Header{"X-User-Id": {"service:billing"}, "X-User-Roles": {"[]"}},
			200,
			`{"service":"user-service","user":{"userId":"service:billing","email":"","roles":[],"organizationId":""},"profile":null}`,
		},
		{"me, anonymous", "GET", "/users/me", nil, 401, `{"error":"No token provided"}`},
		{"me, malformed", "GET", "/users/me", malformed, 400, `{"error":"Bad request"}`},
		{"me, the key is no identity", "GET", "/users/me", key, 401, `{"error":"No token provided"}`},
		{"me, another method", "POST", "/users/me", alice(), 405, `{"error":"Method not allowed"}`},

		{
			"stats, admin", "GET", "/users/admin/stats", alice(), 200,
			`{"service":"user-service","user":` + aliceJSON + `,"users":2,"usersByOrganization":{"org-1":2,"org-2":2}}`,
		},
		{"stats, member", "GET", "/users/admin/stats", bob(), 403, `{"error":"Forbidden"}`},
		{"stats, anonymous", "GET", "/users/admin/stats", nil, 401, `{"error":"No token provided"}`},
		{"stats, malformed", "GET", "/users/admin/stats", malformed, 400, `{"error":"Bad request"}`},

		{"internal", "GET", "/users/internal/bob", key, 200, `{"service":"user-service","user":null,"id":"bob","displayName":"Bob Baker"}`},
		{"internal, unknown user", "GET", "/users/internal/carol", key, 404, `{"error":"Not found"}`},
		{"internal, no key", "GET", "/users/internal/bob", nil, 403, `{"error":"Forbidden"}`},
		{"internal, no key and unknown user", "GET", "/users/internal/carol", nil, 403, `{"error":"Forbidden"}`},
		{"internal, wrong key", "GET", "/users/internal/bob", http.Header{"X-Internal-Api-Key": {"guess"}}, 403, `{"error":"Forbidden"}`},
		{"internal, an admin without key", "GET", "/users/internal/bob", alice(), 403, `{"error":"Forbidden"}`},

		{"unknown", "GET", "/users", alice(), 404, `{"error":"Not found"}`},
		{"unknown, anonymous", "GET", "/orders", nil, 404, `{"error":"Not found"}`},
		{"unclean", "GET", "/users//me", alice(), 404, `{"error":"Not found"}`},
		{"out of the echo", "GET", "/users/echoes", alice(), 404, `{"error":"Not found"}`},

		{
			"echo", "DELETE", "/users/echo/a//b?q=1",
			http.Header{"X-User-Id": {"bob"}, "Cookie": {"sessionId=hush"}},
			200,
			`{"service":"user-service","user":{"userId":"bob","email":"","roles":[],"organizationId":""},"method":"DELETE",` +
				`"host":"example.com","path":"/users/echo/a//b","query":"q=1","headers":{"x-user-id":["bob"],"cookie":["(present, 14 bytes)"]}}`,
		},
		{
			"the open echo", "GET", "/public/echo/x", nil, 200,
			`{"service":"user-service","user":null,"method":"GET","host":"example.com","path":"/public/echo/x","query":"","headers":{}}`,
		},
		{
			"echo, malformed", "GET", "/users/echo",
			http.Header{"X_user_id": {"bob"}},
			200,
			`{"service":"user-service","user":null,"malformed":"malformed identity headers: a header is spelt like x-user-id with - and _ exchanged",` +
				`"method":"GET","host":"example.com","path":"/users/echo","query":"","headers":{"x_user_id":["bob"]}}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(tc.method, tc.path, nil)
			r.Header = tc.header
			w := httptest.NewRecorder()
			service.ServeHTTP(w, r)
			require.Equal(t, tc.status, w.Code, w.Body)
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			if tc.status != http.StatusOK {
				require.Equal(t, tc.body, w.Body.String(), "errors are exact")
				return
			}
			require.JSONEq(t, tc.body, w.Body.String())
		})
	}
}

func TestWithoutKeysNobodyIsInternal(t *testing.T) {
	service := userservice.New(userservice.Options{})
	for _, key := range []string{"", internal} {
		r := httptest.NewRequest(http.MethodGet, "/users/internal/bob", nil)
		r.Header.Set("x-internal-api-key", key)
		w := httptest.NewRecorder()
		service.ServeHTTP(w, r)
		require.Equal(t, 403, w.Code)
	}
}

func TestRefusalsAreLoggedWithoutTheKey(t *testing.T) {
	var log bytes.Buffer
	service := userservice.New(userservice.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	r := httptest.NewRequest(http.MethodGet, "/users/internal/bob", nil)
	r.Header.Set("x-internal-api-key", "hush")
	service.ServeHTTP(httptest.NewRecorder(), r)
	require.Contains(t, log.String(), "x-internal-api-key")
	require.NotContains(t, log.String(), "hush")
}
