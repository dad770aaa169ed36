package forwardauth_test

import (
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
	"github.com/gatehouse-auth/gatehouse/authz/forwardauth"
)

// The headers of an answer that a client or a service can tell apart.
var answerHeaders = []string{
	"x-user-id", "x-user-email", "x-user-roles", "x-org-id",
	"content-type", "cache-control", "www-authenticate", "retry-after", "location",
	"ratelimit", "ratelimit-policy", "x-tenant", "x-nothing",
}

// TestBothDoorsSayTheSame: whatever proxy asks, the same request gets the same
// status, body and headers.
func TestBothDoorsSayTheSame(t *testing.T) {
	t.Parallel()
	authorizer := newAuthorizer(t)
	envoy := extauthz.NewServer(authorizer, extauthz.Options{MaxHeaderBytes: 8192})
	others := forwardauth.NewHandler(authorizer, forwardauth.Options{MaxHeaderBytes: 8192, TrustedHops: 1})

	targets := []string{
		"/", "/public/x", "/optional/x", "/admin", "/admin/x", "/administrator", "/web/x?tab=1", "/internal/x", "/trial/x", "/limited/x", "/telling/x", "/panics/x", "/safe/x",
		"/%61dmin/x", "/ADMIN/x", "//admin/x", "/public//x", "/public/../admin/x", "/public/%2e%2e/admin", "/public/..%2fadmin", "/public%2fx", `/public\x`, `/public%5cx`,
		"/public/.", "/public/..;/admin", "/admin;x", "/public/%3bx", "/public/%252e%252e/admin", "/%%32%66admin", "/public/%", "/public/%zz", "/public/%00", "/public/é",
		"/public/%C3%A9", "/public/%c0%af", "/public/x?a=/../%2f//;%00\\", "/public/x?", "/public/x?a#b", "/public/x#b", "/public/a b", "*", "", "public/x", "?a",
		"http://gateway.example.com/public/x", "/public/" + strings.Repeat("x", 4000),
	}
	credentials := [][]string{
		nil,
		{"cookie", "sessionId=signed.alice"},
		{"cookie", "sessionId=signed.bob"},
		{"cookie", "sessionId=signed.jörg"},
		{"cookie", "sessionId=signed.long"},
		{"cookie", "sessionId=alice"},
		{"cookie", "sessionId=signed.zoe"},
		{"cookie", "sessionId=signed.outage"},
		{"cookie", "a=x,sessionId=signed.alice"},
		{"authorization", "Bearer token-of-bob"},
		{"authorization", "Bearer x"},
		{"authorization", "bearer"},
		{"authorization", "Basic YTpi"},
		{"x-internal-api-key", apiKey},
		{"x-internal-api-key", "x"},
		{"x_internal_api_key", apiKey},
		{"cookie", "sessionId=x", "authorization", "Bearer token-of-alice"},
		{"x-user-id", "root", "x-user-roles", `["admin"]`},
	}
	contexts := [][]string{
		nil,
		{"origin", "https://evil.example"},
		{"origin", "https://gateway.example.com"},
		{"sec-fetch-site", "cross-site", "upgrade", "websocket"},
		{"sec-fetch-mode", "navigate", "sec-fetch-dest", "document"},
		{"accept", "text/html", "x-requested-with", "XMLHttpRequest"},
	}
	hosts := []string{"gateway.example.com", "api.example.com", "API.example.com.:443", "evil.example@api.example.com", "a..b", "[::1]", "x:99999"}
	policies := []string{"", "admin", "public", "no-such"}

	type request struct {
		method, host, target, policy string
		headers                      []string
	}
	var requests []request
	for _, target := range targets {
		for _, credential := range credentials {
			for _, method := range []string{"GET", "POST"} {
				requests = append(requests, request{method, hosts[0], target, "", credential})
			}
		}
		for _, policy := range policies {
			requests = append(requests, request{"GET", hosts[0], target, policy, credentials[2]})
		}
	}
	for _, credential := range credentials {
		for _, more := range contexts {
			for _, host := range hosts {
				for _, target := range []string{"/", "/web/x", "/admin/x", "/safe/x"} {
					requests = append(requests, request{"POST", host, target, "", slices.Concat(credential, more)}, request{"GET", host, target, "", slices.Concat(credential, more)})
				}
			}
		}
	}

	byGRPC := func(q request) string {
		headers := map[string]string{}
		for pair := range slices.Chunk(q.headers, 2) {
			headers[pair[0]] = pair[1]
		}
		attributes := &authv3.AttributeContext{
			Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
				SocketAddress: &corev3.SocketAddress{Address: "203.0.113.9"},
			}}},
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Method: q.method, Host: q.host, Path: q.target, Headers: headers,
			}},
		}
		if q.policy != "" {
			attributes.ContextExtensions = map[string]string{"policy": q.policy}
		}
		reply, err := envoy.Check(t.Context(), &authv3.CheckRequest{Attributes: attributes})
		require.NoError(t, err)
		status, body, set := 200, "", slices.Concat(reply.GetOkResponse().GetHeaders(), reply.GetOkResponse().GetResponseHeadersToAdd())
		if denied := reply.GetDeniedResponse(); denied != nil {
			status, body, set = int(denied.GetStatus().GetCode()), denied.GetBody(), denied.GetHeaders()
		}
		lines := []string{strconv.Itoa(status) + " " + body}
		for _, name := range answerHeaders {
			for _, h := range set {
				if h.GetHeader().GetKey() == name {
					lines = append(lines, name+": "+h.GetHeader().GetValue())
				}
			}
		}
		return strings.Join(lines, "\n")
	}
	byHTTP := func(q request, ask func(request) []string) string {
		target := "/check"
		if q.policy != "" {
			target += "?policy=" + q.policy
		}
		r := httptest.NewRequest("GET", target, nil)
		for pair := range slices.Chunk(slices.Concat(ask(q), []string{"X-Forwarded-For", "203.0.113.9"}, q.headers), 2) {
			r.Header.Add(pair[0], pair[1])
		}
		w := httptest.NewRecorder()
		others.ServeHTTP(w, r)
		lines := []string{strconv.Itoa(w.Code) + " " + w.Body.String()}
		for _, name := range answerHeaders {
			for _, value := range w.Header().Values(name) {
				if name == "cache-control" && w.Code == 200 {
					continue // of the answer itself, not of what the client gets
				}
				lines = append(lines, name+": "+value)
			}
		}
		return strings.Join(lines, "\n")
	}

	seen := map[string]bool{}
	for _, q := range requests {
		want := byGRPC(q)
		seen[want[:3]] = true
		require.Equal(t, want, byHTTP(q, func(q request) []string {
			return []string{"X-Forwarded-Method", q.method, "X-Forwarded-Uri", q.target, "X-Forwarded-Host", q.host}
		}), "%+v, as Traefik asks", q)
		if !strings.HasPrefix(q.target, "/") {
			continue // would be another URL
		}
		require.Equal(t, want, byHTTP(q, func(q request) []string {
			return []string{"X-Original-Method", q.method, "X-Original-Url", "https://" + q.host + q.target}
		}), "%+v, as nginx asks", q)
	}
	for _, status := range []string{"200", "302", "400", "401", "403", "503"} {
		require.True(t, seen[status], "no request was answered %s", status)
	}
	require.Equal(t, authz.DefaultIdentityHeaders.ID, answerHeaders[0])
}
