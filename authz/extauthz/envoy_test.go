package extauthz_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// forms are Envoy's two header forms: its default, and encode_raw_headers.
var forms = []string{"map", "list"}

// conversations are requests as a client sends them, line by line, to an Envoy
// that normalises nothing. The blank lines at the end are added.
var conversations = []struct {
	name  string
	lines []string
	http2 bool
	want  string // what the reply comes down to, see answer
}{
	{name: "session", lines: []string{"GET /orders?id=7 HTTP/1.1", "Cookie: theme=dark; sessionId=signed.alice; lang=de"}, want: "allow alice"},
	{name: "session-alone", lines: []string{"GET / HTTP/1.1", "Cookie: sessionId=signed.bob"}, want: "allow bob"},
	{name: "session-forged", lines: []string{"GET / HTTP/1.1", "Cookie: sessionId=alice"}, want: "Unauthorized session_forged"},
	{name: "session-unknown", lines: []string{"GET / HTTP/1.1", "Cookie: sessionId=signed.mallory"}, want: "Unauthorized session_unknown"},
	{name: "session-two-headers", lines: []string{"GET / HTTP/1.1", "Cookie: theme=dark", "Cookie: sessionId=signed.alice; sessionId=signed.bob"}, want: "allow alice"},
	{name: "session-first-of-two-headers", lines: []string{"GET / HTTP/1.1", "Cookie: sessionId=forged", "Cookie: sessionId=signed.alice"}, want: "Unauthorized session_forged"},
	{name: "session-empty-header", lines: []string{"GET / HTTP/1.1", "Cookie:", "Cookie: sessionId=signed.alice"}, want: "allow alice"},
	{name: "session-crumbs", http2: true, lines: []string{"GET / HTTP/2", "Cookie: theme=dark; sessionId=signed.alice; lang=de"}, want: "allow alice"},
	{name: "session-outage", lines: []string{"GET / HTTP/1.1", "Cookie: sessionId=signed.outage"}, want: "ServiceUnavailable store_unavailable"},
	{name: "session-of-nobody", lines: []string{"GET / HTTP/1.1", "Cookie: sessionId=signed.visitor"}, want: "Unauthorized session_anonymous"},
	{name: "session-disabled", lines: []string{"GET / HTTP/1.1", "Cookie: sessionId=signed.disabled"}, want: "Unauthorized user_disabled"},
	{name: "store-panics", lines: []string{"GET / HTTP/1.1", "Cookie: sessionId=signed.panic"}, want: "ServiceUnavailable internal"},
	{name: "nothing", lines: []string{"GET / HTTP/1.1"}, want: "Unauthorized no_credential"},
	{name: "bearer", lines: []string{"GET / HTTP/1.1", "Authorization: Bearer token-of-alice"}, want: "allow alice"},
	{name: "bearer-invalid", lines: []string{"GET / HTTP/1.1", "Authorization: Bearer x"}, want: "Unauthorized token_invalid"},
	{name: "bearer-empty", lines: []string{"GET / HTTP/1.1", "Authorization: Bearer "}, want: "Unauthorized token_invalid"},
	{name: "bearer-twice", lines: []string{"GET / HTTP/1.1", "Authorization: Bearer token-of-alice", "Authorization: Bearer token-of-bob"}, want: "Unauthorized token_invalid"},
	{name: "bearer-and-session", lines: []string{"GET / HTTP/1.1", "Authorization: Bearer token-of-bob", "Cookie: a=b; sessionId=signed.alice"}, want: "allow alice"},
	{name: "key", lines: []string{"GET /internal/ HTTP/1.1", "X-Internal-Api-Key: " + apiKey}, want: "allow service:billing"},
	{name: "key-wrong", lines: []string{"GET /internal/ HTTP/1.1", "X-Internal-Api-Key: guess"}, want: "Forbidden api_key_unknown"},
	{name: "key-bytes", lines: []string{"GET /internal/ HTTP/1.1", "X-Internal-Api-Key: " + legacyKey}, want: "Forbidden api_key_unknown"},
	{name: "spoofed", lines: []string{
		"GET / HTTP/1.1", "Cookie: sessionId=signed.bob", "X-User-Id: root", "x-user-id: root", "x_user_id: root", "X_User-Id: root", "x-user_id: root",
		"X-User-Email: root@example.com", "X-USER-ROLES: [\"admin\"]", "x_user_roles: [\"admin\"]", "X-Org-Id: root", "X_ORG_ID: root", "x-internal-api-key: guess", "X_INTERNAL_API_KEY: guess",
	}, want: "allow bob"},
	{name: "hop-by-hop", lines: []string{"GET / HTTP/1.1", "Connection: keep-alive, x-user-id, x-user-roles", "X-User-Id: root", "Cookie: sessionId=signed.alice"}, want: "allow alice"},
	{name: "spoofed-public", lines: []string{
		"GET /public/ HTTP/1.1", "X-User-Id: root", "x_user_id: root", "x-user_id: root", "X-User-Email: root@example.com", "X-USER-ROLES: [\"admin\"]",
		"x_user_roles: [\"admin\"]", "X-Org-Id: root", "X_ORG_ID: root", "x_org-id: root", "x-internal-api-key: guess", "x_internal-api_key: guess",
	}, want: "allow"},
	{name: "beyond-ascii", lines: []string{"GET / HTTP/1.1", "Cookie: sessionId=signed.j\u00f6rg"}, want: "allow j%C3%B6rg%20100%25"},
	{name: "bytes", lines: []string{"GET / HTTP/1.1", "X-Legacy: \xff\xfe\xe9", "Cookie: a=\xe9\xc3\xa9\xe2\x82\xed\xa0\x80\xf0\x9f\x98\x80\xc0\xaf; sessionId=signed.alice"}, want: "allow alice"},
	{name: "long-identity", lines: []string{"GET / HTTP/1.1", "Cookie: sessionId=signed.long"}, want: "Forbidden identity_too_long"},
	{name: "role", lines: []string{"GET /admin/users HTTP/1.1", "Cookie: sessionId=signed.bob"}, want: "Forbidden role"},
	{name: "role-escaped", lines: []string{"GET /%61dmin/users HTTP/1.1", "Cookie: sessionId=signed.bob"}, want: "Forbidden role"},
	{name: "role-on-trial", lines: []string{"GET /trial/ HTTP/1.1", "Cookie: sessionId=signed.bob"}, want: "allow bob"},
	{name: "limit", lines: []string{"GET /limited/ HTTP/1.1", "Cookie: sessionId=signed.bob"}, want: "TooManyRequests rate_limited"},
	{name: "limit-roomy", lines: []string{"GET /roomy/ HTTP/1.1", "Cookie: sessionId=signed.bob"}, want: "allow bob"},
	{name: "named", lines: []string{"GET /named-admin/ HTTP/1.1", "Cookie: sessionId=signed.bob"}, want: "Forbidden role"},
	{name: "named-unknown", lines: []string{"GET /named-missing/ HTTP/1.1", "Cookie: sessionId=signed.alice"}, want: "Forbidden policy_unknown"},
	{name: "named-empty", lines: []string{"GET /named-empty/ HTTP/1.1", "Cookie: sessionId=signed.alice"}, want: "Forbidden policy_unknown"},
	{name: "host", lines: []string{"GET /public/ HTTP/1.1", "Host: API.Example.com.:8443"}, want: "Unauthorized no_credential"},
	{name: "path-dots", lines: []string{"GET /public/../admin HTTP/1.1"}, want: "BadRequest bad_path"},
	{name: "path-slashes", lines: []string{"GET /public//x HTTP/1.1"}, want: "BadRequest bad_path"},
	{name: "path-escaped-slash", lines: []string{"GET /public%2f..%2fadmin HTTP/1.1"}, want: "BadRequest bad_path"},
	{name: "path-parameter", lines: []string{"GET /public/;x HTTP/1.1"}, want: "BadRequest bad_path"},
	{name: "path-absolute", lines: []string{"GET http://app.example.com/public/x?y=z HTTP/1.1"}, want: "allow"},
	{name: "forwarded", lines: []string{
		"GET / HTTP/1.1", "X-Forwarded-Host: api.example.com", "X-Forwarded-For: 203.0.113.9", "X-Original-Url: /public/", "X-Rewrite-Url: /public/", "X-Forwarded-Uri: /public/", "X-Forwarded-Method: OPTIONS", "X-Http-Method-Override: OPTIONS",
	}, want: "Unauthorized no_credential"},
	{name: "navigation", lines: []string{"GET /web/?tab=1 HTTP/1.1", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept: text/html"}, want: "Found no_credential"},
	{name: "script", lines: []string{"GET /web/?tab=1 HTTP/1.1", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: text/html"}, want: "Unauthorized no_credential"},
	{name: "cross-site", lines: []string{"POST / HTTP/1.1", "Content-Length: 0", "Cookie: sessionId=signed.alice", "Origin: https://evil.test", "Sec-Fetch-Site: cross-site"}, want: "Forbidden cross_site"},
	{name: "same-site-origin", lines: []string{"POST / HTTP/1.1", "Content-Length: 0", "Cookie: sessionId=signed.alice", "Origin: https://app.example.com"}, want: "allow alice"},
	{name: "websocket-hop-by-hop", lines: []string{"GET / HTTP/1.1", "Connection: Upgrade, x-user-id", "Upgrade: websocket", "X-User-Id: root", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Cookie: sessionId=signed.alice", "Origin: https://app.example.com"}, want: "allow alice"},
	{name: "websocket-cross-site", lines: []string{"GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Cookie: sessionId=signed.alice", "Origin: https://evil.test"}, want: "Forbidden cross_site"},
}

// TestEnvoy has a real Envoy referee: every conversation goes through it in
// both header forms, to our server and on to a service. What Envoy asks must
// be what is recorded; what client and service get must be what we replied.
//
// failure_mode_allow is on, the worst configuration: whatever we get wrong in
// the protocol, Envoy lets through.
func TestEnvoy(t *testing.T) {
	t.Parallel()
	proctest.Need(t, "envoy")
	gate := startRecordingGate(t)
	service := startService(t)
	ports := startEnvoy(t, gate.port, service.port)
	if *update {
		require.NoError(t, os.RemoveAll("testdata/recorded"))
		require.NoError(t, os.MkdirAll("testdata/recorded", 0o755))
	}
	for _, c := range conversations {
		t.Run(c.name, func(t *testing.T) {
			for _, form := range forms {
				speak := speakHTTP1
				if c.http2 {
					speak = speakHTTP2
				}
				client := speak(t, ports[form], c.lines)
				var asked exchange
				select {
				case asked = <-gate.exchanges:
				default:
					require.Fail(t, "Envoy answered without asking", "%s: %d", form, client.status)
				}
				require.Equal(t, c.want, strings.TrimSpace(answer(asked.response)), form)
				if *update {
					require.NoError(t, os.WriteFile(recordedFile(c.name, form), []byte(stable(t, asked.request)), 0o644))
					require.NoError(t, os.WriteFile(recordedFile(c.name, "reply"), []byte(stable(t, asked.response)), 0o644))
				}
				want := readMessage(t, recordedFile(c.name, form), &authv3.CheckRequest{})
				require.Equal(t, stable(t, want), stable(t, asked.request), "this Envoy asks differently")

				if denied := asked.response.GetDeniedResponse(); denied != nil {
					requireClientGets(t, denied, client)
					require.Empty(t, service.requests, "the service was reached")
					continue
				}
				require.Equal(t, http.StatusOK, client.status)
				for name, value := range headerValues(asked.response.GetOkResponse().GetResponseHeadersToAdd()) {
					require.Equal(t, []string{value}, client.header.Values(name), "in the place of the service's own")
				}
				requireServiceGets(t, asked, <-service.requests)
			}
		})
	}
}

// received is what a client got from Envoy.
type received struct {
	status int
	header http.Header
	body   string
}

func receive(t *testing.T, response *http.Response, err error) received {
	t.Helper()
	require.NoError(t, err)
	defer func() { require.NoError(t, response.Body.Close()) }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return received{response.StatusCode, response.Header, string(body)}
}

func requireClientGets(t *testing.T, denied *authv3.DeniedHttpResponse, client received) {
	t.Helper()
	require.Equal(t, int(denied.GetStatus().GetCode()), client.status)
	require.Equal(t, denied.GetBody(), client.body)
	for name, value := range headerValues(denied.GetHeaders()) {
		require.Equal(t, []string{value}, client.header.Values(name), name)
	}
	require.Empty(t, client.header.Values("set-cookie"))
}

// requireServiceGets asserts that exactly the headers that we set, and none of
// those that we removed, reached the service; others are as they were.
func requireServiceGets(t *testing.T, asked exchange, got http.Header) {
	t.Helper()
	ok := asked.response.GetOkResponse()
	set := headerValues(ok.GetHeaders())
	for name, value := range set {
		require.Equal(t, []string{value}, valuesOf(got, name), name)
	}
	for _, name := range ok.GetHeadersToRemove() {
		require.Empty(t, valuesOf(got, name), name)
	}
	for name := range got {
		// However a CGI server folds names, only ours are left.
		folded := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
		if slices.Contains(identityHeaders, folded) || folded == "x-internal-api-key" {
			require.Contains(t, set, strings.ToLower(name))
		}
	}
}

// valuesOf returns the values of a header of any case; http.Header changes no
// underscores.
func valuesOf(h http.Header, name string) []string {
	var values []string
	for key, v := range h {
		if strings.EqualFold(key, name) {
			values = append(values, v...)
		}
	}
	return values
}

// exchange is one question of Envoy and our answer.
type exchange struct {
	request  *authv3.CheckRequest
	response *authv3.CheckResponse
}

// recordingGate is our server, with a note of what goes in and out.
type recordingGate struct {
	authv3.AuthorizationServer
	port      int
	exchanges chan exchange
}

func (g *recordingGate) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	asked := proto.CloneOf(req)
	response, err := g.AuthorizationServer.Check(ctx, req)
	g.exchanges <- exchange{lasting(asked), response}
	return response, err
}

// lasting replaces what is another one every time: time, ports and ids.
func lasting(req *authv3.CheckRequest) *authv3.CheckRequest {
	const id = "00000000-0000-4000-8000-000000000000"
	a := req.GetAttributes()
	for _, peer := range []*authv3.AttributeContext_Peer{a.GetSource(), a.GetDestination()} {
		if socket := peer.GetAddress().GetSocketAddress(); socket != nil {
			socket.PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: 10000}
		}
	}
	a.GetRequest().Time = &timestamppb.Timestamp{Seconds: 1795262400}
	http := a.GetRequest().GetHttp()
	http.Id = "1"
	if _, ok := http.GetHeaders()["x-request-id"]; ok {
		http.Headers["x-request-id"] = id
	}
	for _, h := range http.GetHeaderMap().GetHeaders() {
		if h.GetKey() == "x-request-id" {
			h.RawValue = []byte(id)
		}
	}
	return req
}

func startRecordingGate(t *testing.T) *recordingGate {
	t.Helper()
	listener := listen(t)
	gate := &recordingGate{newServer(t), port(listener), make(chan exchange, 1)}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, gate)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return gate
}

// service is what lies behind the gate. It notes the headers it was sent.
type service struct {
	port     int
	requests chan http.Header
}

func startService(t *testing.T) *service {
	t.Helper()
	s := &service{requests: make(chan http.Header, 1)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("RateLimit", `"of-the-service";r=1`)
		w.Header().Add("RateLimit", `"of-the-service-too";r=2`)
		s.requests <- r.Header
	}))
	t.Cleanup(server.Close)
	s.port = port(server.Listener)
	return s
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return listener
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// envoyConfig is a gateway without any hardening: what it leaves through is
// what our own reply must deal with.
var envoyConfig = template.Must(template.New("").Parse(`
admin: {address: {socket_address: {address: 127.0.0.1, port_value: {{.Admin}}}}}
static_resources:
  listeners:
{{- range $form, $port := .Ports}}
  - name: {{$form}}
    address: {socket_address: {address: 127.0.0.1, port_value: {{$port}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {{$form}}
          http_protocol_options: {allow_absolute_url: true}
          upgrade_configs: [{upgrade_type: websocket}]
          http_filters:
          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              failure_mode_allow: true
              encode_raw_headers: {{if eq $form "list"}}true{{else}}false{{end}}
              grpc_service: {envoy_grpc: {cluster_name: gate}, timeout: 10s}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              {{- range $prefix, $policy := $.Named}}
              - match: {prefix: {{$prefix}}}
                route: {cluster: service}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    check_settings: {context_extensions: {policy: "{{$policy}}"}}
              {{- end}}
              - match: {prefix: ""}
                route: {cluster: service}
{{- end}}
  clusters:
  - name: gate
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: gate, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.Gate}}}}}}]}]}
  - name: service
    type: STATIC
    load_assignment: {cluster_name: service, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.Service}}}}}}]}]}
`))

// startEnvoy returns the port of a listener for each header form.
func startEnvoy(t *testing.T, gate, service int) map[string]int {
	t.Helper()
	free := proctest.FreePorts(t, len(forms)+1)
	ports := map[string]int{}
	for i, form := range forms {
		ports[form] = free[i]
	}
	var config bytes.Buffer
	require.NoError(t, envoyConfig.Execute(&config, map[string]any{
		"Admin": free[len(forms)], "Ports": ports, "Gate": gate, "Service": service,
		"Named": map[string]string{"/named-admin/": "admin", "/named-missing/": "nobody", "/named-empty/": ""},
	}))
	proctest.StartEnvoy(t, config.Bytes(), proc.EnvoyOptions{})
	return ports
}

// speakHTTP1 writes the lines as they are; net/http would tidy them up.
func speakHTTP1(t *testing.T, port int, lines []string) received {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "Host:") }) {
		lines = slices.Insert(slices.Clone(lines), 1, "Host: app.example.com")
	}
	_, err = io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n")
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // receive closes it
	return receive(t, response, err)
}

// speakHTTP2 sends the lines by HTTP/2, each cookie in a field of its own.
func speakHTTP2(t *testing.T, port int, lines []string) received {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	method, target, _ := strings.Cut(lines[0], " ")
	target = strings.TrimSuffix(target, " HTTP/2")
	u, err := url.Parse(fmt.Sprintf("http://127.0.0.1:%d%s", port, target))
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), method, u.String(), http.NoBody)
	require.NoError(t, err)
	req.Host = "app.example.com"
	req.Header.Set("User-Agent", "test")
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	response, err := transport.RoundTrip(req) //nolint:bodyclose // receive closes it
	return receive(t, response, err)
}
