package deploy_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// What Envoy Gateway and Istio make of our objects is run here by a real Envoy,
// in front of a real Gatehouse with the configuration that belongs to them.

// xds is the configuration that a control plane would send to its gateways.
type xds struct {
	listeners []node
	routes    map[string]node // by the name under which listeners ask for them
	clusters  []node
	endpoints map[string]node // by cluster
}

// node is an object of Envoy's configuration, as JSON has it.
type node map[string]any

func (n node) sub(keys ...string) node {
	for _, key := range keys {
		child, _ := n[key].(map[string]any)
		n = child
	}
	return n
}

func (n node) list(key string) []node {
	var nodes []node
	items, _ := n[key].([]any)
	for _, item := range items {
		if child, ok := item.(map[string]any); ok {
			nodes = append(nodes, child)
		}
	}
	return nodes
}

func (n node) text(key string) string {
	text, _ := n[key].(string)
	return text
}

// connectionManagers calls f for every HTTP connection manager of a listener.
func connectionManagers(listener node, f func(chain, manager node)) {
	for _, chain := range listener.list("filterChains") {
		for _, filter := range chain.list("filters") {
			if strings.HasSuffix(filter.sub("typedConfig").text("@type"), ".HttpConnectionManager") {
				f(chain, filter.sub("typedConfig"))
			}
		}
	}
}

// gateway returns the connection manager of the listener that has routes, and
// these.
func (x xds) gateway(t *testing.T) (manager, routes node) {
	t.Helper()
	for _, l := range x.listeners {
		connectionManagers(l, func(_, m node) {
			if name := m.sub("rds").text("routeConfigName"); name != "" {
				require.Nil(t, manager, "one gateway")
				manager, routes = m, x.routes[name]
			}
		})
	}
	require.NotNil(t, manager)
	require.NotNil(t, routes)
	return manager, routes
}

// static returns the same as a file for an Envoy without a control plane, that
// listens on port, with other addresses for the services, and what belongs to
// somebody else taken out: TLS towards the client, filters that only Istio's
// Envoy has, a mesh's certificates. Certificates towards Gatehouse are in dir,
// "" for none.
func (x xds) static(t *testing.T, port int, addresses map[string]string, dir string) []byte {
	t.Helper()
	for _, l := range x.listeners {
		found := false
		connectionManagers(l, func(chain, m node) {
			name := m.sub("rds").text("routeConfigName")
			if name == "" {
				return
			}
			found = true
			require.NotNil(t, x.routes[name], name)
			delete(m, "rds")
			m["routeConfig"] = x.routes[name]
			delete(x.routes[name], "@type")
			delete(chain, "transportSocket")
			delete(chain, "filterChainMatch")
			var filters []any
			for _, f := range m.list("httpFilters") {
				if !strings.HasPrefix(f.text("name"), "istio.") {
					filters = append(filters, f)
				}
			}
			m["httpFilters"] = filters
			delete(m, "accessLog")
		})
		if !found {
			continue
		}
		var clusters []any
		used := map[string]bool{}
		for _, c := range x.clusters {
			if c.text("type") != "EDS" {
				continue
			}
			to := x.address(t, c.text("name"))
			address, ok := addresses[to]
			if !ok {
				continue
			}
			used[to] = true
			host, number, err := net.SplitHostPort(address)
			require.NoError(t, err)
			portValue, err := strconv.Atoi(number)
			require.NoError(t, err)
			delete(c, "edsClusterConfig")
			delete(c, "@type")
			delete(c, "filters") // Istio's telemetry
			c["type"] = "STATIC"
			c["loadAssignment"] = map[string]any{
				"clusterName": c["name"],
				"endpoints": []any{map[string]any{
					"loadBalancingWeight": 1, "locality": map[string]any{"region": "here"},
					"lbEndpoints": []any{map[string]any{
						"endpoint": map[string]any{"address": map[string]any{"socketAddress": map[string]any{"address": host, "portValue": portValue}}},
					}},
				}},
			}
			matches := c.list("transportSocketMatches")
			delete(c, "transportSocketMatches")
			delete(c, "transportSocket")
			if len(matches) == 1 && dir != "" {
				c["transportSocket"] = withFiles(matches[0].sub("transportSocket"), dir)
			}
			clusters = append(clusters, c)
		}
		for to := range addresses {
			require.True(t, used[to], "no cluster leads to %s", to)
		}
		text, err := json.Marshal(map[string]any{
			"admin": map[string]any{"address": socket(proctest.FreePort(t))},
			"static_resources": map[string]any{
				"listeners": []any{map[string]any{"name": "gateway", "address": socket(port), "filterChains": l["filterChains"]}},
				"clusters":  clusters,
			},
		})
		require.NoError(t, err)
		return text
	}
	require.Fail(t, "no gateway")
	return nil
}

func socket(port int) map[string]any {
	return map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": port}}
}

// address is where a cluster leads, as host:port.
func (x xds) address(t *testing.T, cluster string) string {
	t.Helper()
	for _, e := range x.endpoints[cluster].list("endpoints") {
		for _, lb := range e.list("lbEndpoints") {
			a := lb.sub("endpoint", "address", "socketAddress")
			return fmt.Sprintf("%s:%v", a.text("address"), a["portValue"])
		}
	}
	return ""
}

// withFiles has the certificates of a transport socket read from files instead
// of a control plane.
func withFiles(socket node, dir string) node {
	tls := socket.sub("typedConfig", "commonTlsContext")
	file := func(name string) map[string]any { return map[string]any{"filename": filepath.Join(dir, name)} }
	if validation := tls.sub("combinedValidationContext"); validation != nil {
		trusted := validation.sub("defaultValidationContext")
		trusted["trustedCa"] = file("ca.crt")
		delete(tls, "combinedValidationContext")
		tls["validationContext"] = trusted
	}
	if tls["tlsCertificateSdsSecretConfigs"] != nil {
		delete(tls, "tlsCertificateSdsSecretConfigs")
		tls["tlsCertificates"] = []any{map[string]any{"certificateChain": file("client.crt"), "privateKey": file("client.key")}}
	}
	return socket
}

// authority makes certificates for one test.
type authority struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	a := &authority{dir: t.TempDir(), key: key, cert: cert}
	a.write(t, "ca.crt", "CERTIFICATE", der)
	return a
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// issue writes name.crt and name.key.
func (a *authority) issue(t *testing.T, name string, hosts ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), DNSNames: hosts,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	a.write(t, name+".crt", "CERTIFICATE", der)
	der, err = x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	a.write(t, name+".key", "PRIVATE KEY", der)
}

// Where things are in the objects that control planes are given.
const (
	checkAddress  = "10.0.0.1:9001"
	authAddress   = "10.0.0.2:8081"
	usersAddress  = "10.0.0.3:8101"
	ordersAddress = "10.0.0.4:8102"
)

// clusterObjects are the namespaces, Services and endpoints around ours.
func clusterObjects() string {
	var b strings.Builder
	for _, s := range []struct{ name, namespace, port, address string }{
		{"gatehouse-check", "auth", "grpc-check", checkAddress},
		{"gatehouse", "auth", "http", authAddress},
		{"user-service", "shop", "http", usersAddress},
		{"order-service", "shop", "http", ordersAddress},
	} {
		host, port, _ := net.SplitHostPort(s.address)
		ip := host
		if s.name == "gatehouse-check" {
			ip = "None"
		}
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec: {clusterIP: %[6]s, selector: {app: %[1]s}, ports: [{name: %[3]s, port: %[5]s, targetPort: %[5]s, protocol: TCP, appProtocol: %[7]s}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, namespace: %[2]s, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: %[3]s, port: %[5]s, protocol: TCP}]
endpoints: [{addresses: [%[4]s], conditions: {ready: true}}]
`, s.name, s.namespace, s.port, host, port, ip, strings.TrimSuffix(s.port, "-check"))
	}
	return b.String()
}

// stack is a gateway with everything behind it.
type stack struct {
	address   string
	gatehouse *proc.Process
	redis     *redis.Client
	signer    *session.Signer
}

const trialKey = "kubernetes-test-key-of-billing"

// startStack runs Redis, Gatehouse with the values of a directory, services that
// say what they were asked, and Envoy with a translated configuration.
func startStack(t *testing.T, x xds, values string, certificates *authority) *stack {
	t.Helper()
	store := proctest.StartRedis(t)
	ports := proctest.FreePorts(t, 4)
	m := render(t, `image: {repository: registry.example.com/gatehouse}`, string(read(t, values)), fmt.Sprintf(`
config:
  server: {check: {listen: ":%d"}, http: {listen: ":%d"}, ops: {listen: ":%d"}, drain: 0s}
  api_keys: [{name: billing, sha256: "%x", policies: [internal]}]`, ports[0], ports[1], ports[2], sha256.Sum256([]byte(trialKey))))
	const secret = "0123456789abcdef0123456789abcdef"
	files := map[string]string{"session-secrets": secret, "redis-url": "redis://" + store.Addr + "/0"}
	dir := ""
	if certificates != nil {
		dir = certificates.dir
		for name, file := range map[string]string{"tls.crt": "server.crt", "tls.key": "server.key", "ca.crt": "ca.crt"} {
			files[name] = string(read(t, filepath.Join(dir, file)))
		}
	}
	process := startPod(t, m, files)
	require.Eventually(t, func() bool {
		return proc.HTTP(fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[2]))(t.Context()) == nil
	}, 10*time.Second, 50*time.Millisecond)

	addresses := map[string]string{checkAddress: proc.Local(ports[0])}
	for address, name := range map[string]string{usersAddress: "user-service", ordersAddress: "order-service", authAddress: "gatehouse"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(echo{Service: name, Path: r.RequestURI, Host: r.Host, Headers: r.Header})
		}))
		t.Cleanup(s.Close)
		addresses[address] = s.Listener.Addr().String()
	}
	proctest.StartEnvoy(t, x.static(t, ports[3], addresses, dir), proc.EnvoyOptions{})

	client := redis.NewClient(&redis.Options{Addr: store.Addr})
	t.Cleanup(func() { _ = client.Close() })
	signer, err := session.NewSigner([]string{secret})
	require.NoError(t, err)
	return &stack{address: proc.Local(ports[3]), gatehouse: process, redis: client, signer: signer}
}

// echo is what a service was asked.
type echo struct {
	Service, Path, Host string
	Headers             http.Header
}

// session returns the header of somebody who is logged in.
func (s *stack) session(t *testing.T, user string, roles ...string) string {
	t.Helper()
	id := make([]byte, 16)
	_, err := rand.Read(id)
	require.NoError(t, err)
	record, err := json.Marshal(map[string]any{
		"cookie": map[string]any{"originalMaxAge": 3600000, "httpOnly": true, "path": "/"},
		"userId": user, "email": user + "@example.com", "roles": append([]string{}, roles...), "organizationId": "org-1", "authTime": time.Now().Unix(),
	})
	require.NoError(t, err)
	require.NoError(t, s.redis.Set(t.Context(), "sess:"+hex.EncodeToString(id), record, time.Hour).Err())
	return "Cookie: sessionId=" + s.signer.Sign(hex.EncodeToString(id))
}

// ask sends a request as it stands, which net/http would tidy up.
func (s *stack) ask(t *testing.T, request string, headers ...string) (status int, body string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.address, time.Second)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	if !strings.Contains(request, " ") {
		request = "GET " + request
	}
	text := request + " HTTP/1.1\r\nHost: gateway.example.com\r\nConnection: close\r\nContent-Length: 0\r\n"
	for _, h := range headers {
		text += h + "\r\n"
	}
	_, err = io.WriteString(conn, text+"\r\n")
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err, request)
	defer func() { _ = response.Body.Close() }()
	text2, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text2)
}

// served is [stack.ask] for what a service answers.
func (s *stack) served(t *testing.T, request string, headers ...string) echo {
	t.Helper()
	status, body := s.ask(t, request, headers...)
	require.Equal(t, http.StatusOK, status, "%s: %s", request, body)
	var e echo
	require.NoError(t, json.NewDecoder(bytes.NewReader([]byte(body))).Decode(&e), body)
	return e
}

// spoofed is what a client may not say about itself.
var spoofed = []string{
	"x-user-id: root", "X-User-Email: root@example.com", `x-user-roles: ["admin"]`, "x-org-id: org-9",
}

// testGateway holds for every gateway, whoever made its configuration.
func testGateway(t *testing.T, s *stack) {
	alice := s.session(t, "alice", "member")
	root := s.session(t, "root", "admin")
	for _, c := range []struct {
		name, request string
		headers       []string
		status        int
	}{
		{"no credential", "/users/me", nil, 401},
		{"a forged cookie", "/users/me", []string{"Cookie: sessionId=s%3Aabc.def"}, 401},
		{"identity headers are no credential", "/users/me", spoofed, 401},
		{"a member asks for an administrator's page", "/users/admin/stats", []string{alice}, 403},
		{"the stricter path itself", "/users/admin", []string{alice}, 403},
		{"dot segments", "/public/../users/admin/stats", []string{alice}, 403},
		{"escaped dot segments", "/public/%2e%2e/users/admin/stats", []string{alice}, 403},
		{"double slashes", "//users//admin/stats", []string{alice}, 403},
		{"backslashes", `/public\..\users\admin`, []string{alice}, 403},
		{"escaped letters", "/users/%61dmin", []string{alice}, 403},
		{"an escaped slash", "/users%2fadmin", []string{root}, 400},
		{"an escaped backslash", "/users%5cadmin", []string{root}, 400},
		{"past the check by a path that is none", "/auth/..%2fusers/admin", nil, 400},
		{"past the check by dot segments", "/auth/../users/me", nil, 401},
		{"past the check by the beginning of a name", "/authx", nil, 404},
		{"a path parameter", "/users/me;x=1", []string{alice}, 400},
		{"a path parameter at the stricter path", "/users/admin;x", []string{alice}, 400},
		{"a header with an underscore", "/users/me", []string{alice, "x_user_id: root"}, 400},
		{"a header with an underscore, past the check", "/auth/me", []string{"x_user-roles: [\"admin\"]"}, 400},
		{"a user at a path for services", "/users/internal/list", []string{root}, 401},
		{"a wrong key", "/users/internal/list", []string{"x-internal-api-key: guessed"}, 403},
		{"a state-changing request from elsewhere", "POST /users/me", []string{alice, "Origin: https://evil.example.com"}, 403},
		{"a state-changing request that a browser calls cross-site", "POST /users/me", []string{alice, "Sec-Fetch-Site: cross-site"}, 403},
		{"nothing is there", "/nowhere", []string{alice}, 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := s.ask(t, c.request, c.headers...)
			if c.status == 404 && status == 401 {
				return // checked first, which is as good
			}
			require.Equal(t, c.status, status, body)
		})
	}

	t.Run("in another case", func(t *testing.T) {
		for _, path := range []string{"/users/ADMIN", "/users/Admin/stats", "/users/INTERNAL/list", "/USERS/admin"} { // 401: no key, for services
			status, _ := s.ask(t, path, alice)
			require.Contains(t, []int{401, 403, 404}, status, path)
		}
	})

	t.Run("who is calling", func(t *testing.T) {
		e := s.served(t, "/users/me?a=b", append([]string{alice}, spoofed...)...)
		require.Equal(t, "user-service", e.Service)
		require.Equal(t, "/users/me?a=b", e.Path)
		require.Equal(t, []string{"alice"}, e.Headers["X-User-Id"])
		require.Equal(t, []string{"alice@example.com"}, e.Headers["X-User-Email"])
		require.Equal(t, []string{`["member"]`}, e.Headers["X-User-Roles"])
		require.Equal(t, []string{"org-1"}, e.Headers["X-Org-Id"])
		require.Equal(t, "user-service", s.served(t, "/users/admin/stats", root).Service)
	})

	t.Run("nobody, where that is allowed", func(t *testing.T) {
		e := s.served(t, "/public/news", spoofed...)
		for _, h := range []string{"X-User-Id", "X-User-Email", "X-User-Roles", "X-Org-Id"} {
			require.NotContains(t, e.Headers, h)
		}
	})

	t.Run("a service calls", func(t *testing.T) {
		e := s.served(t, "/users/internal/list", "x-internal-api-key: "+trialKey)
		require.Equal(t, []string{"service:billing"}, e.Headers["X-User-Id"])
		require.NotContains(t, e.Headers, "X-Internal-Api-Key")
	})

	t.Run("past the check", func(t *testing.T) {
		for _, path := range []string{"/auth/me", "/auth", "/.well-known/jwks.json"} {
			e := s.served(t, path, append([]string{"x-internal-api-key: " + trialKey}, spoofed...)...)
			require.Equal(t, "gatehouse", e.Service)
			for _, h := range []string{"X-User-Id", "X-User-Email", "X-User-Roles", "X-Org-Id"} {
				require.NotContains(t, e.Headers, h, path)
			}
			require.Contains(t, e.Headers, "X-Internal-Api-Key", "services call this API with it")
		}
	})

	t.Run("a path is rewritten after the check", func(t *testing.T) {
		e := s.served(t, "/banking/transfers?to=bob", alice)
		require.Equal(t, "order-service", e.Service)
		require.Equal(t, "/orders/transfers?to=bob", e.Path)
		require.Equal(t, "/orders", s.served(t, "/banking", alice).Path)
	})

	t.Run("other ways to say what was checked", func(t *testing.T) {
		e := s.served(t, "/users/me", alice, "X-Http-Method-Override: DELETE", "X-Original-Url: /users/admin", "X-Rewrite-Url: /users/admin",
			"X-Forwarded-Host: evil.example.com", "Forwarded: for=192.0.2.1", "X-Real-Ip: 192.0.2.1", "X-Forwarded-Client-Cert: By=evil", "X-Envoy-Upstream-Rq-Timeout-Ms: 1")
		for _, h := range []string{
			"X-Http-Method-Override", "X-Original-Url", "X-Rewrite-Url", "X-Forwarded-Host", "Forwarded", "X-Real-Ip", "X-Forwarded-Client-Cert", "X-Envoy-Upstream-Rq-Timeout-Ms",
		} {
			require.NotContains(t, e.Headers, h)
		}
		require.Equal(t, "gateway.example.com", e.Host)
	})

	// The last ones: they break things.
	t.Run("Redis is gone", func(t *testing.T) {
		bob := s.session(t, "bob", "member") // in no cache
		_ = s.redis.ShutdownNoSave(t.Context()).Err()
		status, body := s.ask(t, "/users/me", bob)
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.JSONEq(t, `{"error":"Authentication unavailable"}`, body)
	})
	t.Run("Gatehouse is gone", func(t *testing.T) {
		require.NoError(t, s.gatehouse.Stop())
		status, _ := s.ask(t, "/users/me", alice)
		require.Equal(t, http.StatusServiceUnavailable, status, "not 200, and not 403")
	})
}
