package envoy_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

const portTLS = 8443

// makeCerts runs the script that users run.
func makeCerts(t *testing.T, dir string) {
	t.Helper()
	for _, program := range []string{"openssl", "bash"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed: install it with your package manager", program)
		}
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join("..", "scripts", "certs.sh"), dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// pki is a directory that scripts/certs.sh made.
type pki struct {
	dir string
	ca  *x509.CertPool
}

func newPKI(t *testing.T) pki {
	t.Helper()
	p := pki{dir: t.TempDir(), ca: x509.NewCertPool()}
	makeCerts(t, p.dir)
	pem, err := os.ReadFile(filepath.Join(p.dir, "ca.crt"))
	require.NoError(t, err)
	require.True(t, p.ca.AppendCertsFromPEM(pem))
	return p
}

func (p pki) pair(t *testing.T, name string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(p.dir, name+".crt"), filepath.Join(p.dir, name+".key"))
	require.NoError(t, err)
	return pair
}

// check is how Gatehouse's check listener is set up: with a certificate of its
// own, and for clients that have one of this authority.
func (p pki) check(t *testing.T, name string) grpc.ServerOption {
	t.Helper()
	return grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{p.pair(t, name)},
		ClientCAs:    p.ca,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}))
}

func startTLSGateway(t *testing.T, p pki, check grpc.ServerOption) *gateway {
	t.Helper()
	g := newGateway(t, portTLS, portGateway, portAdmin, portCheck, portAuthAPI, portUsers, portOrders, portDemo)
	g.stopCheck = g.serve(t, g.ports[portCheck], check)
	g.start(t, envoy.ConfigTLS, waits, replace("envoy/certs/", p.dir+"/"))
	return g
}

// https asks over TLS and returns how that was agreed upon.
func (g *gateway) https(t *testing.T, config *tls.Config, http2 bool) (reply, *tls.ConnectionState, error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+g.addr+"/users", http.NoBody)
	require.NoError(t, err)
	response, err := transport.RoundTrip(req)
	if err != nil {
		return reply{}, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	return read(t, response), response.TLS, nil
}

func TestTLSForClients(t *testing.T) {
	p := newPKI(t)
	g := startTLSGateway(t, p, p.check(t, "gatehouse"))
	for version, name := range map[uint16]string{tls.VersionTLS12: "TLS 1.2", tls.VersionTLS13: "TLS 1.3"} {
		for _, http2 := range []bool{false, true} {
			r, state, err := g.https(t, &tls.Config{MinVersion: version, MaxVersion: version, RootCAs: p.ca}, http2)
			require.NoError(t, err, name)
			require.Equal(t, http.StatusOK, r.status, r.body)
			require.Equal(t, "https", r.seen.Header.Get("x-forwarded-proto"))
			require.Equal(t, "max-age=31536000", r.header.Get("strict-transport-security"))
			if http2 {
				require.Equal(t, "h2", state.NegotiatedProtocol)
			}
		}
	}
	for name, config := range map[string]*tls.Config{
		"TLS 1.1":                      {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"no forward secrecy":           {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}},
		"no authenticated encryption":  {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}},
		"a client that knows no other": {MaxVersion: tls.VersionTLS10, MinVersion: tls.VersionTLS10},
	} {
		config.RootCAs = p.ca
		_, _, err := g.https(t, config, false)
		require.Error(t, err, name)
	}

	g.addr = strings.Replace(g.addr, "127.0.0.1", "localhost", 1)
	_, _, err := g.https(t, &tls.Config{RootCAs: p.ca, MinVersion: tls.VersionTLS12}, true)
	require.NoError(t, err, "the certificate is for localhost too")
}

func TestPlainHTTPOnlyRedirects(t *testing.T) {
	p := newPKI(t)
	g := startTLSGateway(t, p, p.check(t, "gatehouse"))
	plain := *g
	plain.addr = proc.Local(g.ports[portGateway])
	for _, path := range []string{"/", "/users/1?x=1", "/auth/login"} {
		r := plain.get(t, path)
		require.Equal(t, http.StatusMovedPermanently, r.status)
		require.Equal(t, "https://gateway.example.com:8443"+path, r.header.Get("location"))
	}
	require.Empty(t, g.requests())
}

// Whoever answers in Gatehouse's place lets everybody in.
func TestOnlyTheRealGatehouseDecides(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	for name, check := range map[string]grpc.ServerOption{
		"no TLS":                           grpc.EmptyServerOption{},
		"a certificate of somebody else's": other.check(t, "gatehouse"),
		"another name's certificate":       p.check(t, "gateway"),
	} {
		t.Run(name, func(t *testing.T) {
			g := startTLSGateway(t, p, check)
			r, _, err := g.https(t, &tls.Config{RootCAs: p.ca, MinVersion: tls.VersionTLS12}, true)
			require.NoError(t, err)
			r.is(t, http.StatusServiceUnavailable, unavailable)
			require.Nil(t, r.seen)
		})
	}
}

// The two files are one gateway. What differs is listed here, and nothing else
// may: a hardening that only one of them gets is a hole in the other.
func TestTLSFileDiffersOnlyInTLS(t *testing.T) {
	var plain, secure map[string]any
	require.NoError(t, yaml.Load([]byte(envoy.Config), &plain))
	require.NoError(t, yaml.Load([]byte(envoy.ConfigTLS), &secure))

	listeners := list(at(secure, "static_resources", "listeners"))
	require.Len(t, listeners, 2)
	require.Equal(t, "redirect", at(listeners[1], "name"))
	at(secure, "static_resources").(map[string]any)["listeners"] = listeners[:1]

	gateway := listeners[0].(map[string]any)
	at(gateway, "address", "socket_address").(map[string]any)["port_value"] = portGateway
	chain := list(gateway["filter_chains"])[0].(map[string]any)
	require.Contains(t, chain, "transport_socket")
	delete(chain, "transport_socket")
	delete(chain, "transport_socket_connect_timeout")
	routes := at(list(chain["filters"])[0], "typed_config", "route_config").(map[string]any)
	added := list(routes["response_headers_to_add"])
	require.Equal(t, "strict-transport-security", at(added[0], "header", "key"))
	routes["response_headers_to_add"] = added[1:]

	gatehouse := list(at(secure, "static_resources", "clusters"))[0].(map[string]any)
	require.Equal(t, "gatehouse", gatehouse["name"])
	require.Contains(t, gatehouse, "transport_socket")
	delete(gatehouse, "transport_socket")

	require.Equal(t, plain, secure)
}

// at descends into nested mappings.
func at(v any, keys ...string) any {
	for _, key := range keys {
		v = v.(map[string]any)[key]
	}
	return v
}

func list(v any) []any { return v.([]any) }
