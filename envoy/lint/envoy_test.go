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
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/envoy"
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

// dump runs Envoy with a configuration and returns what it says about itself.
func dump(t *testing.T, config string, ports map[int]int, admin string) []byte {
	t.Helper()
	text, err := proc.RewritePorts([]byte(config), ports)
	require.NoError(t, err)
	e := proctest.StartEnvoy(t, text, proc.EnvoyOptions{})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+e.Admin+admin, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { require.NoError(t, response.Body.Close()) }()
	require.Equal(t, http.StatusOK, response.StatusCode)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return body
}

var _ = envoy.Config
