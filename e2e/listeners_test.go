package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/gatehouse-auth/gatehouse/envoy"
)

// representative sends a little of everything.
func (g *gateway) representative(t *testing.T) {
	t.Helper()
	session, admin := cookie(g.login(t, bob)), cookie(g.login(t, alice))
	token := bearer(g.pem.issue(claimsOf(pemIssuer, bob)))
	requireAllowed(t, g.get(t, "/users/me", session, "x-user-id: root"), bob)
	requireAllowed(t, g.get(t, "/users/admin/stats", admin), alice)
	requireAllowed(t, g.get(t, "/orders", token, "X-User-Roles: [\"admin\"]"), bob)
	requireAllowed(t, g.get(t, "/public/hello", "x-user-id: root"), nobody)
	requireAllowed(t, g.get(t, "/users/internal/x", apiKey(apiKeys.billing)), identity{"service:billing", "", "[]", ""})
	requireDenied(t, g.get(t, "/users/me"), 401, noToken)
	requireDenied(t, g.get(t, "/users/me", cookie("s%3Ax.y")), 401, invalidSession)
	requireDenied(t, g.get(t, "/users/me", bearer("x.y.z")), 401, invalidToken)
	requireDenied(t, g.get(t, "/users/admin/stats", session), 403, forbidden)
	requireDenied(t, g.get(t, "/users/%252fadmin", session), 400, badRequest)
}

func TestCheckListenerOnASocket(t *testing.T) {
	s := start(t, options{socket: true})
	g := s.gateway(t)
	g.representative(t)
	path := strings.TrimPrefix(s.replicas[0].check, "unix://")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o007, "others may ask the check listener")

	// The socket of a crashed process does not keep the next one from starting.
	s.replicas[0].Kill()
	require.NoError(t, s.replicas[0].restart(t, "/readyz"))
	session := cookie(g.login(t, bob))
	eventually(t, 200, func() reply { return g.get(t, "/users/me", session) })
	require.NoError(t, s.replicas[0].stop(t.Context()))
	require.NoFileExists(t, path)
}

// certificates makes those of the shipped TLS configuration.
func certificates(t *testing.T) (dir string) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: install it with your package manager")
	}
	dir = t.TempDir()
	out, err := exec.CommandContext(t.Context(), filepath.Join("..", "scripts", "certs.sh"), dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// certificatesIn makes the configuration's certificates those of a directory.
func certificatesIn(dir string) edit {
	return func(config map[string]any) error {
		found := 0
		each(config, func(m map[string]any) {
			if name, _ := m["filename"].(string); strings.HasPrefix(name, "envoy/certs/") {
				m["filename"] = filepath.Join(dir, strings.TrimPrefix(name, "envoy/certs/"))
				found++
			}
		})
		if found == 0 {
			return fmt.Errorf("the Envoy configuration names no certificates in envoy/certs: adapt the test")
		}
		return nil
	}
}

func TestTLS(t *testing.T) {
	need(t)
	certs := certificates(t)
	file := func(name string) string { return filepath.Join(certs, name) }
	s := start(t, options{config: fmt.Sprintf("server: {check: {tls: {cert_file: %q, key_file: %q, client_ca_file: %q}}}",
		file("gatehouse.crt"), file("gatehouse.key"), file("ca.crt"))})
	g, err := s.newGateway(context.WithoutCancel(t.Context()), envoy.ConfigTLS, certificatesIn(certs))
	require.NoError(t, err)
	authority, err := os.ReadFile(file("ca.crt"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(authority))

	// Without TLS nothing is served, and nothing checked.
	plain := g.get(t, "/users/me?x=1", cookie(g.login(t, bob)))
	require.Equal(t, http.StatusMovedPermanently, plain.status)
	require.True(t, strings.HasPrefix(plain.header.Get("location"), "https://"+host), plain.line())
	require.True(t, strings.HasSuffix(plain.header.Get("location"), "/users/me?x=1"), plain.line())
	require.Nil(t, plain.arrived)

	overTLS := *g
	overTLS.addr, overTLS.tls = g.tlsAddr, &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	overTLS.representative(t)
	h2c := overTLS
	h2c.tls = overTLS.tls.Clone()
	h2c.tls.NextProtos = []string{"h2"}
	requireAllowed(t, h2c.http2(t, crumbs("a=1", "sessionId="+g.login(t, bob))), bob)

	// Who may ask the check listener: an Envoy with a certificate of ours, and
	// nobody else.
	load := func(name string) []tls.Certificate {
		c, err := tls.LoadX509KeyPair(file(name+".crt"), file(name+".key"))
		require.NoError(t, err)
		return []tls.Certificate{c}
	}
	stranger := certificates(t)
	strange, err := tls.LoadX509KeyPair(filepath.Join(stranger, "envoy.crt"), filepath.Join(stranger, "envoy.key"))
	require.NoError(t, err)
	ask := func(with credentials.TransportCredentials) error {
		conn, err := grpc.NewClient("passthrough:///"+s.replicas[0].check, grpc.WithTransportCredentials(with))
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		_, err = authv3.NewAuthorizationClient(conn).Check(t.Context(), &authv3.CheckRequest{})
		return err
	}
	base := tls.Config{RootCAs: roots, ServerName: "gatehouse", MinVersion: tls.VersionTLS12}
	client := func(c ...tls.Certificate) credentials.TransportCredentials {
		config := base.Clone()
		config.Certificates = c
		return credentials.NewTLS(config)
	}
	require.NoError(t, ask(client(load("envoy")...)))
	require.Error(t, ask(client()), "no certificate")
	require.Error(t, ask(client(strange)), "a certificate of another authority")
	require.Error(t, ask(client(load("gatehouse")...)), "a certificate that is for servers")
	require.Error(t, ask(insecure.NewCredentials()), "no TLS")
}

// The check listener tells health, by the name of the service too, and
// describes itself.
func TestHealthAndReflection(t *testing.T) {
	g := sharedGateway(t, asShipped)
	conn := g.replicas[0].connect(t)
	for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
		answer, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		require.NoError(t, err)
		require.Equal(t, healthv1.HealthCheckResponse_SERVING, answer.GetStatus())
	}
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{ListServices: ""},
	}))
	answer, err := stream.Recv()
	require.NoError(t, err)
	var names []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	require.Contains(t, names, "envoy.service.auth.v3.Authorization")
	require.Contains(t, names, "grpc.health.v1.Health")

	// An empty check is answered, by a refusal.
	reply, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), &authv3.CheckRequest{})
	require.NoError(t, err)
	require.Equal(t, 400, int(reply.GetDeniedResponse().GetStatus().GetCode()))
	require.NotZero(t, reply.GetStatus().GetCode())
}

// The ops listener is not for clients: no route leads to it.
func TestOpsIsOutOfReach(t *testing.T) {
	g := sharedGateway(t, asShipped)
	session := cookie(g.login(t, alice))
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/debug/pprof/", "/auth/metrics", "/auth/readyz", "/auth/../metrics"} {
		r := g.get(t, path, session)
		require.Equal(t, http.StatusNotFound, r.status, path)
		require.NotContains(t, r.body, "gatehouse_")
	}
}
