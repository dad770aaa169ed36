package envoy_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// The bodies that clients get, by Gatehouse or in its place.
const (
	badRequest  = `{"error":"Bad request"}`
	notFound    = `{"error":"Not found"}`
	tooMany     = `{"error":"Too many requests"}`
	unavailable = `{"error":"Authentication unavailable"}`
)

func TestShippedFilesAreValid(t *testing.T) {
	path := proctest.Need(t, "envoy")
	dir := t.TempDir()
	makeCerts(t, filepath.Join(dir, "envoy", "certs"))
	version, err := proc.VersionOfEnvoy(t.Context())
	require.NoError(t, err)
	for name, config := range map[string]string{
		"envoy.yaml": envoy.Config, "envoy-tls.yaml": envoy.ConfigTLS, "envoy-socket.yaml": envoy.ConfigSocket,
	} {
		file := filepath.Join(dir, name)
		text, err := proc.FitEnvoy([]byte(config), version)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, text, 0o600))
		cmd := exec.CommandContext(t.Context(), path, "--mode", "validate", "-c", file)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		for _, word := range []string{"[warning]", "eprecated"} {
			require.NotContains(t, string(out), word, name)
		}
	}
}

// Envoy 1.37 doesn't start with a regular expression whose RE2 program is larger than
// 100, which later ones do. Go's programs are some 7/10 of that.
func TestRegularExpressionsFitOlderEnvoys(t *testing.T) {
	found := regexp.MustCompile(`regex: "([^"]+)"`).FindAllStringSubmatch(envoy.Config, -1)
	require.NotEmpty(t, found)
	for _, m := range found {
		parsed, err := syntax.Parse(m[1], syntax.Perl)
		require.NoError(t, err)
		program, err := syntax.Compile(parsed.Simplify())
		require.NoError(t, err)
		require.LessOrEqual(t, len(program.Inst), 70, m[1])
	}
}

func TestRoutesNameTheirPolicy(t *testing.T) {
	g := startGateway(t)
	for _, tc := range []struct {
		path    string
		policy  string // "" where the check is skipped, or nothing is there
		service string // "" for none
		arrives string // path at the service; "" for path itself
	}{
		{"/", "", "demo", ""},
		{"/demo/app.js", "", "demo", ""},
		{"/auth", "", "gatehouse_http", ""},
		{"/auth/login", "", "gatehouse_http", ""},
		{"/.well-known/jwks.json", "", "gatehouse_http", ""},

		{"/users", "user", "users", ""},
		{"/users/1?x=1", "user", "users", ""},
		{"/users/admin", "admin", "users", ""},
		{"/users/admin/", "admin", "users", ""},
		{"/users/admin/keys", "admin", "users", ""},
		{"/users/adminx", "user", "users", ""},
		{"/users/internal", "internal", "users", ""},
		{"/users/internal/1", "internal", "users", ""},
		{"/orders/1", "user", "orders", ""},
		{"/public", "public", "users", ""},
		{"/public/news", "public", "users", ""},
		{"/banking/1?x=1", "banking", "orders", "/orders/1?x=1"},

		// Express serves these as /users/admin.
		{"/users/Admin", "admin", "users", ""},
		{"/users/ADMIN/keys", "admin", "users", ""},
		{"/USERS/internal", "internal", "users", ""},

		// Nothing is open by being unknown.
		{"/nothing", "", "", ""},
		{"/usersx", "", "", ""},
		{"/authx", "", "", ""},
		{"/AUTH/login", "", "", ""},
		{"/demo.js", "", "", ""},
		{"/.well-known/jwks.json/x", "", "", ""},
		{"/.well-known/", "", "", ""},
	} {
		t.Run(tc.path, func(t *testing.T) {
			g.answers(allow)
			r := g.get(t, tc.path)
			if tc.service == "" {
				r.is(t, http.StatusNotFound, notFound)
				require.Empty(t, g.requests())
				return
			}
			require.Equal(t, http.StatusOK, r.status, r.body)
			require.Equal(t, tc.service, r.seen.Service)
			if tc.arrives == "" {
				tc.arrives = tc.path
			}
			require.Equal(t, tc.arrives, r.seen.Path)
			if tc.policy == "" {
				require.Empty(t, g.requests(), "a check was made")
				return
			}
			require.Len(t, g.requests(), 1)
			attributes := g.requests()[0].GetAttributes()
			require.Equal(t, map[string]string{"policy": tc.policy}, attributes.GetContextExtensions())
			require.Equal(t, tc.path, attributes.GetRequest().GetHttp().GetPath())
		})
	}
}

// What is checked, what is routed and what arrives is one and the same path.
func TestOddPaths(t *testing.T) {
	g := startGateway(t)
	const refused = ""
	for _, tc := range []struct{ path, policy, arrives string }{
		{"//users/admin", "admin", "/users/admin"},
		{"/users//admin", "admin", "/users/admin"},
		{"/users/./admin", "admin", "/users/admin"},
		{"/public/../users/admin", "admin", "/users/admin"},
		{"/demo/../users/admin", "admin", "/users/admin"},
		{"/public/%2e%2e/users/admin", "admin", "/users/admin"},
		{"/public/%2E%2E/users/admin", "admin", "/users/admin"},
		{`/public\..\users\admin`, "admin", "/users/admin"},
		{"/users/%61dmin", "admin", "/users/admin"},
		{"/demo;/../users/admin", "admin", "/users/admin"},
		{"/../users/admin", "admin", "/users/admin"},
		{"http://other.example/public/../users/admin", "admin", "/users/admin"},
		{"/users/admin?next=/../%2f//;", "admin", "/users/admin?next=/../%2f//;"}, // a query is data

		{"/public/..%2fusers/admin", refused, ""},
		{"/public%2f..%2fusers", refused, ""},
		{"/users%5cadmin", refused, ""},
		{"/users%5Cadmin", refused, ""},
		{"/users/admin;x=1", refused, ""},
		{"/users;/admin", refused, ""},
		{"/users/%00", refused, ""},
		{"/users#admin", refused, ""},
		{"/users/\tadmin", refused, ""},
		{"/users/é", refused, ""},
		{"users", refused, ""},

		// Envoy passes these on; the check sees them as they are and refuses.
		{"/users/%252e%252e/admin", "user", "/users/%252e%252e/admin"},
		{"/users/%252fadmin", "user", "/users/%252fadmin"},
	} {
		t.Run(tc.path, func(t *testing.T) {
			g.answers(allow)
			r := g.get(t, tc.path)
			if tc.policy == refused {
				r.is(t, http.StatusBadRequest, badRequest)
				require.Empty(t, g.requests())
				return
			}
			require.Equal(t, http.StatusOK, r.status, r.body)
			require.Equal(t, tc.arrives, r.seen.Path)
			attributes := g.requests()[0].GetAttributes()
			require.Equal(t, tc.policy, attributes.GetContextExtensions()["policy"])
			require.Equal(t, tc.arrives, attributes.GetRequest().GetHttp().GetPath())
		})
	}
}

func TestHostLosesItsTrailingDotAndNothingElse(t *testing.T) {
	g := startGateway(t)
	for sent, want := range map[string]string{
		"Gateway.example.com.":    "Gateway.example.com",
		"gateway.example.com.:80": "gateway.example.com:80",
		"gateway.example.com:80":  "gateway.example.com:80",
		"[::1]:80":                "[::1]:80",
	} {
		g.answers(allow)
		r := g.get(t, "/users", "Host: "+sent)
		require.Equal(t, http.StatusOK, r.status, sent)
		require.Equal(t, want, r.seen.Host)
		require.Equal(t, want, g.requests()[0].GetAttributes().GetRequest().GetHttp().GetHost())
	}
}

// Gatehouse names the spellings; whoever adds one there must add it here.
var spellings = append(authz.DefaultIdentityHeaders.ClientSpellings(),
	authz.HeaderAssertion, "x_identity_assertion", "x_identity-assertion", "x-identity_assertion")

func TestRoutesThatSkipTheCheckStripIdentity(t *testing.T) {
	layers := map[string][]edit{
		"as shipped but for the refusal of underscores": {
			replace("headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW"),
		},
		"the routes alone": {
			replace("headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW"),
			cut("          early_header_mutation_extensions:", "          # ---- Who the client is"),
		},
		"the connection manager alone": {
			replace("headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW"),
			replace("request_headers_to_remove:", "response_headers_to_remove:"),
		},
	}
	for layer, edits := range layers {
		t.Run(layer, func(t *testing.T) {
			g := startGateway(t, edits...)
			for path, keyArrives := range map[string]bool{
				"/": false, "/demo/app.js": false, "/.well-known/jwks.json": false,
				"/auth/introspect": true, // services call it with their key
			} {
				keyArrives = keyArrives || layer == "the connection manager alone"
				var headers []string
				for _, name := range spellings {
					headers = append(headers, name+": forged")
					headers = append(headers, strings.ToUpper(name)+": forged")
				}
				r := g.get(t, path, append(headers, "x-other: 1")...)
				require.Equal(t, http.StatusOK, r.status)
				for name := range r.seen.Header {
					name = strings.ToLower(name)
					if name == authz.HeaderAPIKey && keyArrives {
						continue
					}
					require.NotContains(t, spellings, name, path)
				}
				require.Equal(t, "1", r.seen.Header.Get("x-other"))
				_, arrived := r.seen.Header[http.CanonicalHeaderKey(authz.HeaderAPIKey)]
				require.Equal(t, keyArrives, arrived, path)
			}
		})
	}
}

// PHP and other servers read any of these as x-user-id and its like: a byte of a
// header's name that is no letter or digit counts for a hyphen there.
func TestNamesThatSomeServerFoldsDontPass(t *testing.T) {
	g := startGateway(t)
	for _, path := range []string{"/", "/demo/app.js", "/auth/login", "/users/1", "/public"} {
		var headers []string
		for _, c := range "!#$%&'*+.^`|~" {
			fold := func(name string) string { return strings.ReplaceAll(name, "-", string(c)) }
			headers = append(headers,
				fold("x-user-id")+": root", fold("X-User-Email")+": root", strings.Replace("x-user-roles", "-", string(c), 1)+": root",
				"x-org"+string(c)+"id: root", fold(authz.HeaderAssertion)+": root", fold("x-internal-api-key")+": root", "x-internal-api"+string(c)+"key: root",
				fold("x-original-url")+": root", fold("x-http-method-override")+": root", fold("x-forwarded-host")+": root")
		}
		for len(headers) > 0 { // as many as a request may have
			n := min(len(headers), 60)
			r := g.get(t, path, headers[:n]...)
			headers = headers[n:]
			require.Equal(t, http.StatusOK, r.status, r.body)
			for name, values := range r.seen.Header {
				require.NotContains(t, values, "root", "%s arrives at %s", name, path)
			}
		}
	}
}

func TestHeadersWithUnderscoresAreRefused(t *testing.T) {
	g := startGateway(t)
	for _, path := range []string{"/users", "/", "/auth/login"} {
		for _, name := range []string{"x_user_id", "X_User-Id", "x-user_id", "x_internal_api_key", "any_other"} {
			r := g.get(t, path, name+": 1")
			require.Equal(t, http.StatusBadRequest, r.status, "%s %s", path, name)
			require.Nil(t, r.seen)
			_, err := g.http2(t, path, func(r *http.Request) { r.Header[name] = []string{"1"} })
			require.Error(t, err, "%s %s", path, name)
		}
	}
	require.Empty(t, g.requests())
}

// http2 sends a request over HTTP/2 without TLS.
func (g *gateway) http2(t *testing.T, path string, edit func(*http.Request)) (reply, error) {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+g.addr+path, strings.NewReader("body"))
	require.NoError(t, err)
	edit(req)
	response, err := transport.RoundTrip(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = response.Body.Close() }()
	return read(t, response), nil
}

// A trailer arrives after the check, when nobody looks at headers any more.
func TestTrailersDontCarryIdentity(t *testing.T) {
	g := startGateway(t)
	r := g.send(t, "POST /users HTTP/1.1\nTransfer-Encoding: chunked\nTrailer: X-User-Id\n\n1\r\na\r\n0\r\nX-User-Id: forged\r\n\r\n")
	require.Equal(t, http.StatusOK, r.status)
	require.Empty(t, r.seen.Trailer.Get("x-user-id"))
	require.Empty(t, r.seen.Header.Get("x-user-id"))

	r, err := g.http2(t, "/users", func(req *http.Request) { req.Trailer = http.Header{"X-User-Id": {"forged"}} })
	require.NoError(t, err)
	require.Empty(t, r.seen.Trailer.Get("x-user-id"))
	require.Empty(t, r.seen.Header.Get("x-user-id"))
}

func TestClientsCantSpeakForTheGateway(t *testing.T) {
	g := startGateway(t)
	forged := []string{
		"x-forwarded-for: 10.0.0.1", "x-forwarded-host: forged", "x-forwarded-port: 1", "x-forwarded-prefix: /forged",
		"x-forwarded-proto: https", "x-forwarded-client-cert: forged", "forwarded: for=10.0.0.1", "x-real-ip: 10.0.0.1",
		"x-original-url: /users/admin", "x-rewrite-url: /users/admin", "x-original-uri: /forged",
		"x-http-method-override: DELETE", "x-http-method: DELETE", "x-method-override: DELETE",
		"x-envoy-original-path: /forged", "x-envoy-external-address: 10.0.0.1", "x-envoy-internal: true",
		"x-envoy-upstream-rq-timeout-ms: 1", "x-envoy-max-retries: 100", "x-envoy-retry-on: 5xx",
		"x-request-id: forged",
	}
	for _, path := range []string{"/users", "/auth/login"} {
		r := g.get(t, path, forged...)
		require.Equal(t, http.StatusOK, r.status)
		for _, header := range forged {
			name, value, _ := strings.Cut(header, ": ")
			require.NotContains(t, r.seen.Header.Values(name), value, "%s arrives", name)
		}
		require.Len(t, strings.Split(r.seen.Header.Get("x-forwarded-for"), ","), 1)
		require.Equal(t, "http", r.seen.Header.Get("x-forwarded-proto"))
		require.Equal(t, r.header.Get("x-request-id"), r.seen.Header.Get("x-request-id"))
	}
	require.Equal(t, "127.0.0.1", g.requests()[0].GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress())

	// By naming a header in Connection a client can take away only its own.
	g.answers(allowWith(&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{set("x-user-id", "u1")}}))
	r := g.get(t, "/users", "Connection: close, x-user-id", "TE: trailers")
	require.Equal(t, "u1", r.seen.Header.Get("x-user-id"))
}

func TestCheckSeesOnlyWhatItNeeds(t *testing.T) {
	g := startGateway(t)
	r := g.get(t, "/users/1?q=1",
		"cookie: a=1", "cookie: b=\xff", "authorization: Bearer x", "authorization: Bearer y", "x-internal-api-key: k",
		"origin: https://a.example", "sec-fetch-site: same-origin", "sec-fetch-mode: cors", "sec-fetch-dest: empty",
		"x-requested-with: XMLHttpRequest", "accept: text/html", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"user-agent: someone", "referer: https://a.example/secret", "x-other: 1", "x-user-id: forged", "if-none-match: 1")
	require.Equal(t, http.StatusOK, r.status)
	require.Len(t, g.requests(), 1)
	http := g.requests()[0].GetAttributes().GetRequest().GetHttp()
	got := headersOf(g.requests()[0])
	slices.Sort(got)
	require.Equal(t, []string{
		"accept: text/html",
		"authorization: Bearer x,Bearer y",
		"cookie: a=1",
		"cookie: b=\xff",
		"origin: https://a.example",
		"sec-fetch-dest: empty",
		"sec-fetch-mode: cors",
		"sec-fetch-site: same-origin",
		"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"x-internal-api-key: k",
		"x-request-id: " + r.header.Get("x-request-id"),
		"x-requested-with: XMLHttpRequest",
	}, got)
	require.Empty(t, http.GetHeaders())
	require.Equal(t, []string{"GET", "/users/1?q=1", "gateway.example.com", ""},
		[]string{http.GetMethod(), http.GetPath(), http.GetHost(), http.GetBody()})
}

// Off unless asked for; then the check sees what it is, as another site may open
// a web socket with the user's cookies.
func TestWebSockets(t *testing.T) {
	request := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	g := startGateway(t)
	require.Equal(t, http.StatusForbidden, g.get(t, "/users", request...).status)
	require.Empty(t, g.requests())

	g = startGateway(t, replace("          server_name: gateway", "          upgrade_configs: [{upgrade_type: websocket}]\n          server_name: gateway"))
	g.answers(deny(codes.PermissionDenied, 403, "{}"))
	require.Equal(t, http.StatusForbidden, g.get(t, "/users", request...).status)
	require.Contains(t, headersOf(g.requests()[0]), "upgrade: websocket")
}

// The shipped file for a socket, but for the socket's place.
func TestCheckOverAUnixSocket(t *testing.T) {
	g := newGateway(t, portGateway, portAdmin, portAuthAPI, portUsers, portOrders, portDemo)
	dir, err := os.MkdirTemp("", "gatehouse") //nolint:usetesting // t.TempDir is too long a name for a socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "check.sock")
	listen := func() net.Listener {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
		require.NoError(t, err)
		return listener
	}
	server, done := g.listenOn(t, listen())
	g.start(t, envoy.ConfigSocket, waits, replace("path: "+envoy.Socket, "path: "+socket))
	require.Equal(t, http.StatusOK, g.get(t, "/users").status)
	require.Len(t, g.requests(), 1)

	server.Stop()
	<-done
	r := g.get(t, "/users")
	require.Nil(t, r.seen)
	r.is(t, http.StatusServiceUnavailable, unavailable)

	// Another process has made the socket anew, at the same path.
	g.listenOn(t, listen())
	require.Eventually(t, func() bool { return g.get(t, "/users").status == http.StatusOK }, patience, 50*time.Millisecond)
}

func TestSocketFileIsFresh(t *testing.T) {
	want, err := envoy.OverSocket([]byte(envoy.Config), envoy.Socket)
	require.NoError(t, err)
	require.Equal(t, string(want), envoy.ConfigSocket, "run 'make generate'")

	// It differs in how Gatehouse is reached, and in nothing else.
	var shipped, socket map[string]any
	require.NoError(t, yaml.Load([]byte(envoy.Config), &shipped))
	require.NoError(t, yaml.Load([]byte(envoy.ConfigSocket), &socket))
	clusters := shipped["static_resources"].(map[string]any)["clusters"].([]any)
	gatehouse := clusters[0].(map[string]any)
	require.Equal(t, "gatehouse", gatehouse["name"])
	gatehouse["type"] = "STATIC"
	endpoint := gatehouse["load_assignment"].(map[string]any)["endpoints"].([]any)[0].(map[string]any)["lb_endpoints"].([]any)[0].(map[string]any)["endpoint"].(map[string]any)
	endpoint["address"] = map[string]any{"pipe": map[string]any{"path": envoy.Socket}}
	require.Equal(t, shipped, socket)

	_, err = envoy.OverSocket([]byte("static_resources: {}"), envoy.Socket)
	require.ErrorContains(t, err, "127.0.0.1:9001")
}

// What a check's answer can and can't do. extauthz relies on the first three.
func TestCheckAnswersChangeHeadersOnly(t *testing.T) {
	g := startGateway(t)
	ask := func(t *testing.T, ok *authv3.OkHttpResponse) reply {
		t.Helper()
		g.answers(allowWith(ok))
		return g.get(t, "/users", "x-old: client", "cookie: a=1")
	}
	t.Run("sets in place of what the client sent", func(t *testing.T) {
		r := ask(t, &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{set("x-old", "new"), set("x-user-roles", `["a","b"]`)}})
		require.Equal(t, []string{"new"}, r.seen.Header.Values("x-old"))
		require.Equal(t, []string{`["a","b"]`}, r.seen.Header.Values("x-user-roles"))
	})
	t.Run("removes", func(t *testing.T) {
		r := ask(t, &authv3.OkHttpResponse{HeadersToRemove: []string{"x-old", "cookie", "x_user_id", "x-never-sent"}})
		require.Empty(t, r.seen.Header.Values("x-old"))
		require.Empty(t, r.seen.Header.Values("cookie"))
	})
	t.Run("removes last: what is set and removed is gone", func(t *testing.T) {
		r := ask(t, &authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{set("x-old", "new")}, HeadersToRemove: []string{"X-Old"}})
		require.Empty(t, r.seen.Header.Values("x-old"))
	})
	for name, ok := range map[string]*authv3.OkHttpResponse{
		"the path":                {Headers: []*corev3.HeaderValueOption{set(":path", "/users/admin")}},
		"the method":              {Headers: []*corev3.HeaderValueOption{set(":method", "DELETE")}},
		"the host":                {Headers: []*corev3.HeaderValueOption{set("host", "other")}},
		"the authority":           {Headers: []*corev3.HeaderValueOption{set(":authority", "other")}},
		"a header of Envoy's own": {Headers: []*corev3.HeaderValueOption{set("x-envoy-upstream-rq-timeout-ms", "1")}},
		"two headers in one":      {Headers: []*corev3.HeaderValueOption{set("x-user-id", "u1\r\nx-user-roles: [\"admin\"]")}},
		"a name that is none":     {Headers: []*corev3.HeaderValueOption{set("x user", "1")}},
		"too much for one map":    {Headers: []*corev3.HeaderValueOption{set("x-user-id", strings.Repeat("a", 64<<10))}},
	} {
		t.Run("not: "+name, func(t *testing.T) {
			r := ask(t, ok)
			require.Nil(t, r.seen, "the request was served")
			r.is(t, http.StatusServiceUnavailable, unavailable)
		})
	}
}

func TestGatehousesOwnAnswersPassUnchanged(t *testing.T) {
	g := startGateway(t)
	for _, tc := range []struct {
		code   codes.Code
		status int
		body   string
		header [2]string
	}{
		{codes.InvalidArgument, 400, badRequest, [2]string{"cache-control", "no-store"}},
		{codes.Unauthenticated, 401, `{"error":"No token provided"}`, [2]string{"www-authenticate", "Bearer"}},
		{codes.PermissionDenied, 403, `{"error":"Forbidden"}`, [2]string{"www-authenticate", `Bearer error="insufficient_scope"`}},
		{codes.ResourceExhausted, 429, tooMany, [2]string{"retry-after", "7"}},
		{codes.Unavailable, 503, unavailable, [2]string{"retry-after", "7"}},
		{codes.Unauthenticated, 302, "", [2]string{"location", "/login?return_to=%2Fusers"}},
	} {
		g.answers(deny(tc.code, tc.status, tc.body, set(tc.header[0], tc.header[1])))
		r := g.get(t, "/users")
		r.is(t, tc.status, tc.body)
		require.Equal(t, []string{tc.header[1]}, r.header.Values(tc.header[0]))
		if tc.body != "" {
			require.Equal(t, []string{"application/json"}, r.header.Values("content-type"))
		}
		require.Len(t, g.requests(), 1, "a refusal is an answer, not a reason to ask again")
	}
}

func TestNoAnswerIsUnavailable(t *testing.T) {
	g := startHurriedGateway(t)
	refuse := func(code codes.Code) check {
		return func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			return nil, status.Error(code, "some error")
		}
	}
	expect := func(t *testing.T) {
		t.Helper()
		for _, path := range []string{"/users", "/users/admin", "/public", "/banking"} {
			r := g.get(t, path)
			require.Nil(t, r.seen, "%s was served", path)
			r.is(t, http.StatusServiceUnavailable, unavailable)
			require.Equal(t, "application/json", r.header.Get("content-type"))
			require.Equal(t, "1", r.header.Get("retry-after"))
		}
	}
	for _, code := range []codes.Code{codes.Unavailable, codes.Internal, codes.Unimplemented, codes.ResourceExhausted, codes.PermissionDenied, codes.Unauthenticated} {
		t.Run(code.String(), func(t *testing.T) {
			g.answers(refuse(code))
			expect(t)
		})
	}
	t.Run("hangs", func(t *testing.T) {
		var given atomic.Int32 // up, by the gateway
		g.answers(func(ctx context.Context, _ *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			<-ctx.Done()
			given.Add(1)
			return nil, ctx.Err()
		})
		expect(t)
		require.Eventually(t, func() bool { return given.Load() >= 4 }, patience, 10*time.Millisecond, "each of its checks")
	})
	t.Run("is gone and comes back", func(t *testing.T) {
		g.stopCheck()
		expect(t)
		g.serve(t, g.ports[portCheck])
		g.answers(allow)
		require.Eventually(t, func() bool { return g.get(t, "/users").status == http.StatusOK }, patience, 10*time.Millisecond)
	})
}

// More checks under way than the circuit breaker lets are refused by Envoy, at once:
// with the answer of an outage, and never by letting the request pass.
func TestTooManyChecksUnderWayAreRefused(t *testing.T) {
	g := startGateway(t, replace("{max_requests: 1024, max_pending_requests: 1024, max_retries: 1024}", "{max_requests: 2, max_pending_requests: 2, max_retries: 1024}"))
	under, let := make(chan struct{}, 10), make(chan struct{})
	g.answers(func(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		under <- struct{}{}
		select {
		case <-let:
		case <-ctx.Done(): // the gateway gave up
		}
		return allow(ctx, req)
	})
	var waiting sync.WaitGroup
	for range 2 {
		waiting.Go(func() { succeeds(t.Context(), http.DefaultClient, "http://"+g.addr+"/users") })
	}
	<-under
	<-under
	r := g.get(t, "/users")
	require.Nil(t, r.seen)
	r.is(t, http.StatusServiceUnavailable, unavailable)
	require.Equal(t, "application/json", r.header.Get("content-type"))
	require.Equal(t, "1", r.header.Get("retry-after"))
	require.Len(t, g.requests(), 2, "it was not asked about")
	close(let)
	waiting.Wait()
	require.Equal(t, http.StatusOK, g.get(t, "/users").status, "and then there is place again")
}

// What Envoy takes for an allow. extauthz must never answer so.
func TestEmptyAnswersAreAnAllow(t *testing.T) {
	g := startGateway(t)
	for name, c := range map[string]check{
		"empty": func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			return &authv3.CheckResponse{}, nil
		},
		"denied with status OK": deny(codes.OK, 401, "{}"),
	} {
		g.answers(c)
		require.NotNil(t, g.get(t, "/users").seen, name)
	}
}

func TestAccessLogTellsWhoAndWhy(t *testing.T) {
	g := startGateway(t)
	metadata, err := structpb.NewStruct(map[string]any{
		"decision": "deny", "reason": "role", "policy": "admin", "credential": "session", "user": "u\n1", "organization": "org-1",
	})
	require.NoError(t, err)
	g.answers(func(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		response, err := deny(codes.PermissionDenied, 403, "{}")(ctx, req)
		response.DynamicMetadata = metadata
		return response, err
	})
	secrets := []string{"cookie-secret", "bearer-secret", "key-secret", "query-secret"}
	r := g.get(t, "/users/admin/../admin/1?token=query-secret", "cookie: sessionId=cookie-secret", "authorization: Bearer bearer-secret", "x-internal-api-key: key-secret")
	require.Equal(t, 403, r.status)

	line := g.logLine(t, r)
	for _, secret := range secrets {
		require.NotContains(t, g.envoy.Output(), secret)
	}
	var entry map[string]any
	require.NoError(t, json.Unmarshal([]byte(line), &entry))
	require.Equal(t, "/users/admin/1", entry["path"], "without the query")
	require.Equal(t, "GET", entry["method"])
	require.Equal(t, "gateway.example.com", entry["host"])
	require.Equal(t, "users-admin", entry["route"])
	require.Equal(t, "127.0.0.1", entry["client"])
	require.InDelta(t, 403, entry["status"], 0)
	require.Equal(t, "UAEX", entry["flags"])
	decision := entry["authz"].(map[string]any)
	require.NotEmpty(t, decision["latency_us"])
	delete(decision, "latency_us")
	require.Equal(t, metadata.AsMap(), decision)

	// A rewritten path appears as the client sent it; a route without a check
	// has no decision.
	g.answers(allow)
	require.Contains(t, g.logLine(t, g.get(t, "/banking/7")), `"path":"/banking/7"`)
	require.Contains(t, g.logLine(t, g.get(t, "/")), `"decision":null`)
}

// logLine waits for the access log's line of a reply.
func (g *gateway) logLine(t *testing.T, r reply) string {
	t.Helper()
	id := r.header.Get("x-request-id")
	require.NotEmpty(t, id)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	line, err := g.envoy.AwaitLine(ctx, func(line string) bool { return strings.Contains(line, id) })
	require.NoError(t, err)
	return line
}

// A flood must not become a flood of checks.
func TestLocalRateLimitStandsBeforeTheCheck(t *testing.T) {
	g := startGateway(t, replace("{max_tokens: 20000, tokens_per_fill: 20000, fill_interval: 1s}", "{max_tokens: 2, tokens_per_fill: 1, fill_interval: 3600s}"))
	require.Equal(t, http.StatusOK, g.get(t, "/users").status)
	require.Equal(t, http.StatusOK, g.get(t, "/").status)
	r := g.get(t, "/users")
	r.is(t, http.StatusTooManyRequests, tooMany)
	require.Equal(t, "application/json", r.header.Get("content-type"))
	require.Equal(t, "1", r.header.Get("retry-after"))
	require.Len(t, g.requests(), 1)
}

// A call of the auth API goes on when all of its body is here: who sends slowly, or never
// to the end, takes no connection to Gatehouse, and no place there.
func TestOnlyWholeCallsReachGatehouse(t *testing.T) {
	const arrived = "cluster.gatehouse_http.upstream_rq_total"
	g := startGateway(t, replace("request_timeout: 60s", "request_timeout: 1s"))
	unfinished := []string{
		"Content-Length: 100\n\n" + `{"email":`,
		"Transfer-Encoding: chunked\n\n9\r\n" + `{"email":` + "\r\n",
		"Content-Length: 65536\n\n" + strings.Repeat("x", 65535),
	}
	for _, path := range []string{"/auth/login", "/auth/revoke-all-sessions", "/.well-known/jwks.json"} {
		for _, rest := range unfinished {
			r := g.send(t, "POST "+path+" HTTP/1.1\n"+rest)
			require.Equal(t, http.StatusRequestTimeout, r.status, "Envoy ends it by itself")
		}
	}
	require.Zero(t, g.stat(t, arrived))

	whole := startGateway(t) // which has the time that this machine may need
	r := whole.send(t, "POST /auth/login HTTP/1.1\nContent-Length: 65537\n\n"+strings.Repeat("x", 65537))
	r.is(t, http.StatusBadRequest, badRequest)
	require.Equal(t, "application/json", r.header.Get("content-type"))
	require.Equal(t, "no-store", r.header.Get("cache-control"))
	require.Zero(t, whole.stat(t, arrived))

	for rest, length := range map[string]string{
		"Content-Length: 65536\n\n" + strings.Repeat("x", 65536):       "65536",
		"Transfer-Encoding: chunked\n\n2\r\n{}\r\n1\r\n \r\n0\r\n\r\n": "3",
		"Content-Length: 0\n\n": "0",
	} {
		r := whole.send(t, "POST /auth/login HTTP/1.1\n"+rest)
		require.Equal(t, http.StatusOK, r.status, r.body)
		require.Equal(t, length, r.seen.Header.Get("content-length"))
	}
	require.Empty(t, whole.requests(), "the check is skipped, as ever")

	// Who sends without end is not listened to for the minute that others have.
	hurried := startGateway(t, replace("max_stream_duration: 35s", "max_stream_duration: 1s"))
	require.Equal(t, http.StatusRequestTimeout, hurried.send(t, "POST /auth/login HTTP/1.1\n"+unfinished[0]).status)
	require.Zero(t, hurried.stat(t, arrived))

	// What services take may be longer, and is sent as it comes: when it may pass.
	large := "Content-Length: 70000\n\n" + strings.Repeat("x", 70000)
	require.Equal(t, http.StatusOK, whole.send(t, "POST /users HTTP/1.1\n"+large).status)
	require.Equal(t, http.StatusRequestTimeout, g.send(t, "POST /users HTTP/1.1\n"+unfinished[0]).status)
	for _, one := range []*gateway{whole, g} {
		require.EqualValues(t, 1, one.stat(t, "cluster.user_service.upstream_rq_total"))
	}
	g.answers(deny(codes.Unauthenticated, http.StatusUnauthorized, "{}"))
	require.Equal(t, http.StatusUnauthorized, g.send(t, "POST /users HTTP/1.1\n"+unfinished[0]).status, "the check doesn't wait for it")
}

// A replica that has too much to do, or no Redis, says 503. It stays in: else the others
// get all of what was too much for it. One that can't be reached is taken out.
func TestReplicasThatRefuseStayIn(t *testing.T) {
	const stats = "cluster.gatehouse_http.outlier_detection."
	const endpoint = "- endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8081}}}"
	g := newGateway(t, portGateway, portAdmin, portCheck, portAuthAPI, portUsers, portOrders, portDemo)
	g.stopCheck = g.serve(t, g.ports[portCheck])
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.2:"+strconv.Itoa(g.ports[portAuthAPI]))
	require.NoError(t, err)
	refusals := atomic.Int64{}
	second := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refusals.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	})}
	go func() { _ = second.Serve(listener) }()
	defer func() { _ = second.Close() }()
	g.start(t, envoy.Config, waits, replace(endpoint, endpoint+"\n        "+strings.Replace(endpoint, "127.0.0.1", "127.0.0.2", 1)))

	const bound = 30 * time.Second
	for end := time.Now().Add(bound); refusals.Load() < 20; {
		require.True(t, time.Now().Before(end), "it is asked no more")
		g.get(t, "/auth/me")
	}
	require.Positive(t, g.stat(t, stats+"ejections_detected_consecutive_gateway_failure"), "it was seen")
	require.Zero(t, g.stat(t, stats+"ejections_enforced_total"))

	require.NoError(t, second.Close())
	for end := time.Now().Add(bound); g.stat(t, stats+"ejections_enforced_total") == 0; {
		require.True(t, time.Now().Before(end), "it stays in")
		require.Equal(t, http.StatusOK, g.get(t, "/auth/me").status, "the other one is asked")
	}
}

// stat is a number of Envoy's.
func (g *gateway) stat(t *testing.T, name string) (value int64) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+proc.Local(g.ports[portAdmin])+"/stats?filter=^"+regexp.QuoteMeta(name)+"$", http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	number, found := strings.CutPrefix(strings.TrimSpace(string(text)), name+": ")
	require.True(t, found, "Envoy counts no %s: %s", name, text)
	value, err = strconv.ParseInt(number, 10, 64)
	require.NoError(t, err)
	return value
}

func TestAnswersGiveNothingAway(t *testing.T) {
	g := startGateway(t)
	r := g.get(t, "/users")
	require.Equal(t, "gateway", r.header.Get("server"))
	require.Equal(t, "nosniff", r.header.Get("x-content-type-options"))
	require.Empty(t, r.header.Get("x-powered-by"))
	for name := range r.header {
		require.NotContains(t, strings.ToLower(name), "envoy")
	}

	g.services[portUsers].Close()
	r = g.get(t, "/users")
	r.is(t, http.StatusServiceUnavailable, `{"error":"Service unavailable"}`)
	require.Equal(t, "application/json", r.header.Get("content-type"))
}

func TestSmugglingIsRefused(t *testing.T) {
	g := startGateway(t)
	for name, request := range map[string]string{
		"Content-Length beside Transfer-Encoding": "POST /users HTTP/1.1\nContent-Length: 4\nTransfer-Encoding: chunked\n\n0\r\n\r\nGET /users/admin HTTP/1.1\r\nHost: x\r\n\r\n",
		"two Content-Lengths":                     "POST /users HTTP/1.1\nContent-Length: 4\nContent-Length: 5\n\nbody",
		"an odd Transfer-Encoding":                "POST /users HTTP/1.1\nTransfer-Encoding: xchunked\n\n0\r\n\r\n",
		"a space before the colon":                "GET /users HTTP/1.1\nx-other : forged",
		"a NUL in a header":                       "GET /users HTTP/1.1\nx-other: a\x00b",
	} {
		t.Run(name, func(t *testing.T) {
			r := g.send(t, request)
			require.Contains(t, []int{http.StatusBadRequest, http.StatusNotImplemented}, r.status)
			require.Empty(t, g.requests())
		})
	}
	for name, request := range map[string]string{
		"a folded header":                     "GET /users HTTP/1.1\nx-other: a\n x-user-id: forged",
		"a carriage return is no end of line": "GET /users HTTP/1.1\nx-other: a\rx-user-id: forged",
	} {
		t.Run(name, func(t *testing.T) {
			r := g.send(t, request)
			require.Equal(t, http.StatusOK, r.status)
			require.Empty(t, r.seen.Header.Get("x-user-id"))
			require.Contains(t, r.seen.Header.Get("x-other"), "forged")
		})
	}
	t.Run("two hosts are one odd one, for the check to refuse", func(t *testing.T) {
		g.answers(allow)
		g.send(t, "GET /users HTTP/1.1\nHost: a.example\nHost: b.example")
		host := g.requests()[0].GetAttributes().GetRequest().GetHttp().GetHost()
		require.Equal(t, "a.example,b.example", host)
		_, err := authz.CanonicalHost(host)
		require.Error(t, err)
	})
	t.Run("HTTP/1.0", func(t *testing.T) {
		require.Equal(t, http.StatusUpgradeRequired, g.send(t, "GET /users HTTP/1.0").status)
	})
}

func TestAdminShowsLittleAndChangesNothing(t *testing.T) {
	g := startGateway(t)
	if version, err := proc.VersionOfEnvoy(t.Context()); err != nil || !version.KnowsAllowPaths() {
		require.NoError(t, err)
		t.Skipf("Envoy %v has no allow_paths: its admin interface shows all pages", version)
	}
	ask := func(method, path string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+g.envoy.Admin+path, http.NoBody)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, response.Body)
		require.NoError(t, response.Body.Close())
		return response.StatusCode
	}
	for _, path := range []string{"/ready", "/stats", "/stats/prometheus", "/clusters", "/server_info"} {
		require.Equal(t, http.StatusOK, ask(http.MethodGet, path), path)
	}
	for _, path := range []string{
		"/quitquitquit", "/healthcheck/fail", "/drain_listeners", "/logging?level=trace", "/runtime_modify?a=b", "/reset_counters",
		"/config_dump", "/certs", "/memory", "/stats/../config_dump", "/tap",
	} {
		require.GreaterOrEqual(t, ask(http.MethodPost, path), 400, path)
		require.GreaterOrEqual(t, ask(http.MethodGet, path), 400, path)
	}
	require.NoError(t, proc.HTTP("http://"+g.envoy.Admin+"/ready")(t.Context()), "Envoy still runs")
}

// A rolling restart of Gatehouse, orderly or not, costs no request, as long as
// one replica is there at any time.
func TestRollingRestartFailsNoRequest(t *testing.T) {
	const endpoint = "        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9001}}}\n"
	second := proctest.FreePort(t)
	g := startGateway(t,
		replace(endpoint, endpoint+strings.ReplaceAll(endpoint, "9001", strconv.Itoa(second))))
	g.stopCheck()
	replicas := []*replica{{gatehouse: g.gatehouse, port: g.ports[portCheck]}, {gatehouse: g.gatehouse, port: second}}
	for _, r := range replicas {
		r.start(t)
	}

	var sent, failed atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if !succeeds(t.Context(), client, "http://"+g.addr+"/users") {
					failed.Add(1)
				}
				sent.Add(1)
			}
		})
	}
	defer clients.Wait()
	defer close(stop)
	wait := func(until func() bool) {
		t.Helper()
		require.Eventually(t, until, time.Minute, time.Millisecond)
	}
	// A replica is back when it has answered checks, not just when it runs.
	serves := func(r *replica) func() bool {
		target := r.answered.Load() + 100
		return func() bool { return r.answered.Load() >= target }
	}

	wait(serves(replicas[0]))
	wait(serves(replicas[1]))
	failed.Store(0) // Envoy started before the second one
	for _, r := range replicas {
		for _, how := range []struct {
			name string
			end  func()
		}{{"ends in order", r.drain}, {"crashes", r.crash}} {
			before := sent.Load()
			how.end()
			wait(func() bool { return sent.Load() >= before+500 })
			r.start(t)
			wait(serves(r))
			require.Zero(t, failed.Load(), "replica %s, after %d requests", how.name, sent.Load())
		}
	}
}

func succeeds(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false
	}
	response, err := client.Do(req)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, response.Body)
	return response.Body.Close() == nil && err == nil && response.StatusCode == http.StatusOK
}

// replica is one Gatehouse of several.
type replica struct {
	*gatehouse
	port     int
	answered atomic.Int64

	server *grpc.Server
	done   chan struct{}
}

func (r *replica) start(t *testing.T) {
	t.Helper()
	r.server, r.done = r.listen(t, r.port, grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if _, ok := req.(*authv3.CheckRequest); ok {
				r.answered.Add(1)
			}
			return handler(ctx, req)
		}))
}

func (r *replica) drain() {
	r.server.GracefulStop()
	<-r.done
}

func (r *replica) crash() {
	r.server.Stop()
	<-r.done
}
