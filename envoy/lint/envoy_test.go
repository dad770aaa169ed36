package lint_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
	for code, f := range fixtures {
		if f.base != "" {
			continue // for Istio, or Envoy Gateway
		}
		for kind, text := range f.files(t, code) {
			t.Run(kind, func(t *testing.T) {
				file := filepath.Join(dir, kind)
				require.NoError(t, os.WriteFile(file, text, 0o600))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				cmd := exec.CommandContext(ctx, path, "--mode", "validate", "-c", file, "--log-level", "warning")
				cmd.Dir = dir
				out, err := cmd.CombinedOutput()
				if f.refused && kind == code+".bad.yaml" {
					require.Error(t, err)
					return
				}
				require.NoError(t, err, "%s", out)
			})
		}
	}
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
