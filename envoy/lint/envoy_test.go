package lint_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/envoy/lint"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// A fixture that Envoy doesn't take proves nothing: what is found in it could
// not happen. And where a rule says that Envoy refuses a file, it does.
func TestEnvoyTakesTheFixtures(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Envoy more than a hundred times")
	}
	path := proctest.Need(t, "envoy")
	dir := t.TempDir()
	writeCA(t, filepath.Join(dir, "ca.crt"))
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, "variant.yaml")
			require.NoError(t, os.WriteFile(file, []byte(v.text(t)), 0o600))
			require.NoError(t, validate(t, path, dir, file))
		})
	}
	for code, f := range fixtures {
		if f.base != "" {
			continue // for Istio, or Envoy Gateway
		}
		for kind, text := range f.files(t, code) {
			t.Run(kind, func(t *testing.T) {
				file := filepath.Join(dir, kind)
				require.NoError(t, os.WriteFile(file, text, 0o600))
				err := validate(t, path, dir, file)
				if f.refused && kind == code+".bad.yaml" {
					require.Error(t, err)
					return
				}
				require.NoError(t, err)
			})
		}
	}
}

// validate returns what Envoy has against a file.
func validate(t *testing.T, path, dir, file string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--mode", "validate", "-c", file, "--log-level", "warning", "--service-node", "node", "--service-cluster", "cluster")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func writeCA(t *testing.T, path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
}

// What a running Envoy shows is as clean as the file that it runs with, and what
// is wrong in the file is found in the dump.
func TestConfigDump(t *testing.T) {
	proctest.Need(t, "envoy")
	broken := strings.NewReplacer(
		"failure_mode_allow: false", "failure_mode_allow: true",
		"normalize_path: true", "normalize_path: false",
		"validate_mutations: true", "validate_mutations: off",
	).Replace(envoy.Config)
	for _, tc := range []struct {
		name, config string
		want         []string
	}{
		{"envoy.yaml", envoy.Config, []string{}},
		{"envoy-socket.yaml", envoy.ConfigSocket, []string{}},
		{"a broken one", broken, []string{"GH101", "GH132", "GH301"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := dump(t, tc.config)
			findings := lint.Lint([]lint.Source{{Name: "dump", Data: text}}, lint.Options{})
			require.Equal(t, tc.want, codes(findings), "%+v", findings)
			for _, f := range findings {
				require.Contains(t, f.Place, "static_listeners[0].listener")
				require.Contains(t, f.Within, "listener gateway")
			}
			// The line is that of the setting.
			if len(findings) > 0 {
				lines := strings.Split(string(text), "\n")
				at := slices.IndexFunc(findings, func(f lint.Finding) bool { return f.Code == "GH101" })
				require.Contains(t, lines[findings[at].Line-1], `"failure_mode_allow": true`)
			}
		})
	}
}

// dump runs Envoy with a shipped configuration on other ports, and returns what
// it says about itself. The shipped ones keep that page closed.
func dump(t *testing.T, config string) []byte {
	t.Helper()
	config = strings.Replace(config, "- {exact: /server_info}", "- {exact: /server_info}\n  - {exact: /config_dump}", 1)
	ports := proctest.FreePorts(t, 2)
	text, err := proc.RewritePorts([]byte(config), map[int]int{8080: ports[0], 9901: ports[1]})
	require.NoError(t, err)
	e := proctest.StartEnvoy(t, text, proc.EnvoyOptions{})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+e.Admin+"/config_dump", nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { require.NoError(t, response.Body.Close()) }()
	require.Equal(t, http.StatusOK, response.StatusCode)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return body
}

// Variants that are found have to be real holes, and the others none: Envoy lets
// a request through to the service while nobody answers the check.
func TestEnvoyShowsTheHoles(t *testing.T) {
	proctest.Need(t, "envoy")
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "the service, for "+r.Header.Get("X-User-Id"))
	}))
	defer service.Close()
	_, port, err := net.SplitHostPort(service.Listener.Addr().String())
	require.NoError(t, err)
	to := func(path string, headers ...string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: gateway\r\nX-User-Id: root\r\nConnection: close\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
	}
	const open, closed = "the service, for ", "503"
	for _, tc := range []struct {
		name     string // of a variant or of a rule's bad file
		unasked  string // a route that skips the check
		requests []string
		want     string
	}{
		{"a host off, a route on by the other switch", "", []string{to("/users")}, open},
		{"a host off, a route on by the same switch", "", []string{to("/users")}, closed},
		{"off in a runtime layer", "", []string{to("/users")}, open},
		{"off in a runtime layer, as a number", "", []string{to("/users")}, open},
		{"on in a runtime layer", "", []string{to("/users")}, closed},
		{"the rest is refused", "", []string{to("/users")}, closed},
		{"an address, taken out by the route", "anywhere", []string{to("/anywhere", "X-Envoy-Original-Dst-Host: 127.0.0.1:"+port)}, "no healthy upstream"},
		{"GH213", "anywhere", []string{to("/anywhere", "X-Envoy-Original-Dst-Host: 127.0.0.1:"+port)}, open},
		{"cluster_header, taken out by a filter", "users", []string{to("/users", "X-Cluster: users")}, open},
		{"CONNECT", "tunnel", []string{"CONNECT users:80 HTTP/1.1\r\nHost: users:80\r\n\r\n", to("/users/admin")}, "the service, for root"},
		{"CONNECT, switched off", "tunnel", []string{"CONNECT users:80 HTTP/1.1\r\nHost: users:80\r\n\r\n"}, "403"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			edits := variants[tc.name].edits
			if edits == nil {
				edits = fixtures[tc.name].bad
			}
			text := variant{edits: edits}.text(t)
			if tc.unasked != "" {
				text = unasked(t, text, tc.unasked)
			}
			ports := proctest.FreePorts(t, 2)
			text = strings.NewReplacer("port_value: 8080", "port_value: "+strconv.Itoa(ports[0]), "port_value: 9901", "port_value: "+strconv.Itoa(ports[1]),
				"port_value: 9001", "port_value: 1", "port_value: 8101", "port_value: "+port).Replace(text)
			proctest.StartEnvoy(t, []byte(text), proc.EnvoyOptions{})
			require.Contains(t, talk(t, proc.Local(ports[0]), tc.requests...), tc.want)
		})
	}
}

// unasked takes the check off a route, so that what is shown is not the check's.
func unasked(t *testing.T, text, route string) string {
	t.Helper()
	var doc map[string]any
	require.NoError(t, yaml.Load([]byte(text), &doc))
	for _, one := range find(doc, "routes")["routes"].([]any) {
		if one := one.(map[string]any); one["name"] == route {
			one["typed_per_filter_config"] = map[string]any{"envoy.filters.http.ext_authz": map[string]any{
				"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute", "disabled": true,
			}}
		}
	}
	out, err := yaml.Dump(doc)
	require.NoError(t, err)
	return string(out)
}

// talk sends requests on one connection, the next one when something has come
// back, and returns all that came.
func talk(t *testing.T, address string, requests ...string) string {
	t.Helper()
	connection, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	defer func() { _ = connection.Close() }()
	require.NoError(t, connection.SetDeadline(time.Now().Add(10*time.Second)))
	var all []byte
	for i, request := range requests {
		_, err := io.WriteString(connection, request)
		require.NoError(t, err)
		if i == len(requests)-1 {
			rest, err := io.ReadAll(connection)
			if len(rest) == 0 {
				require.NoError(t, err)
			}
			return string(append(all, rest...))
		}
		buffer := make([]byte, 4096)
		n, err := connection.Read(buffer)
		require.NoError(t, err)
		all = append(all, buffer[:n]...)
	}
	return string(all)
}
