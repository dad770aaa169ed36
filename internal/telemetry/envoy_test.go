package telemetry_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// TestEnvoySamplesTheSameRequests: with the same share, Envoy's access log and our log
// have the same requests.
func TestEnvoySamplesTheSameRequests(t *testing.T) {
	t.Parallel()
	proctest.Need(t, "envoy")
	all, sampled := filepath.Join(t.TempDir(), "all"), filepath.Join(t.TempDir(), "sampled")
	port := proctest.FreePort(t)
	const logger = `{name: file, %s typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %s, log_format: {text_format_source: {inline_string: "%%REQ(X-REQUEST-ID)%%\n"}}}}`
	config := fmt.Sprintf(`
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l
          access_log: [%s, %s]
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}
`, port, fmt.Sprintf(logger, "", all), fmt.Sprintf(logger, "filter: {runtime_filter: {runtime_key: sampled, percent_sampled: {numerator: 300000, denominator: MILLION}}},", sampled))
	proctest.StartEnvoy(t, []byte(config), proc.EnvoyOptions{Dir: t.TempDir()})
	const requests = 200
	for range requests {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+proc.Local(port)+"/", http.NoBody)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, response.Body)
		require.NoError(t, response.Body.Close())
	}
	lines := func(path string) []string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return strings.Fields(string(text))
	}
	require.Eventually(t, func() bool { return len(lines(all)) >= requests }, 20*time.Second, 50*time.Millisecond)
	var ours []string
	for _, id := range lines(all) {
		r, out := recorder()
		r.SetSample(0.3)
		r.Record(t.Context(), request(t, authz.HeaderMap{"x-request-id": id}), &authz.Decision{Reason: authz.ReasonAnonymous}, nil, 0)
		if out.Len() > 0 {
			ours = append(ours, id)
		}
	}
	require.NotEmpty(t, ours)
	require.Eventually(t, func() bool { return len(lines(sampled)) >= len(ours) }, 20*time.Second, 50*time.Millisecond)
	require.ElementsMatch(t, ours, lines(sampled))
}
