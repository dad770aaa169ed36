package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// That too many ask, or that this process had no time to, makes no replica ready, and
// none that was reached is taken for lost.
func TestOverloadSaysNothingAboutReadiness(t *testing.T) {
	var told []bool
	r := readiness{changed: func(ready bool) { told = append(told, ready) }}
	overloaded := authz.Refuse(authz.ReasonOverloaded, "too many")
	require.False(t, r.store(overloaded))
	require.Empty(t, told, "the store was never reached")
	require.True(t, r.store(nil))
	require.False(t, r.store(overloaded))
	require.NoError(t, r.storeErr)
	require.True(t, r.store(authz.Refuse(authz.ReasonStoreUnavailable, "gone")))
	require.False(t, r.store(overloaded))
	require.Error(t, r.storeErr)
	require.Equal(t, []bool{true}, told)
}

func TestReadyAsksTheOpsListener(t *testing.T) {
	answer := func(status int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/readyz" {
				http.NotFound(w, r)
				return
			}
			w.WriteHeader(status)
		})
	}
	address := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	ready := httptest.NewServer(answer(http.StatusOK))
	defer ready.Close()
	starting := httptest.NewServer(answer(http.StatusServiceUnavailable))
	defer starting.Close()
	live := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer live.Close()
	moved := httptest.NewServer(http.RedirectHandler("/elsewhere", http.StatusFound))
	defer moved.Close()
	gone := httptest.NewServer(answer(http.StatusOK))
	gone.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	require.NoError(t, err)
	defer silent.Close()
	path := filepath.Join(t.TempDir(), "ops.sock")
	socket, err := net.Listen("unix", path)
	require.NoError(t, err)
	onSocket := &httptest.Server{Listener: socket, Config: &http.Server{Handler: answer(http.StatusOK)}}
	onSocket.Start()
	defer onSocket.Close()
	t.Setenv("HTTP_PROXY", gone.URL) // must not matter

	for _, c := range []struct {
		name string
		args []string
		err  string
	}{
		{"ready", []string{"--ops", address(ready)}, ""},
		{"ready, on a Unix socket", []string{"--ops", "unix://" + path}, ""},
		{"live, though not ready", []string{"--live", "--ops", address(live)}, ""},
		{"not even live", []string{"--live", "--ops", address(starting)}, "not live: " + address(starting) + " answers 404"},
		{"starting or draining", []string{"--ops", address(starting)}, "not ready: " + address(starting) + " answers 503"},
		{"something else listens there", []string{"--ops", address(moved)}, "not ready: "},
		{"nobody listens", []string{"--ops", address(gone)}, "no answer from " + address(gone)},
		{"no answer in time", []string{"--ops", silent.Addr().String(), "--timeout", "50ms"}, "deadline exceeded"},
		{"no address", []string{"--ops", "nonsense"}, "missing port"},
		{"no time", []string{"--timeout", "0s"}, "--timeout must be more than zero"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout strings.Builder
			cmd := readyCommand(environment{stdout: &stdout})
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			args := c.args
			if !slices.Contains(args, "--timeout") { // this machine may be busy
				args = append(args, "--timeout", "20s")
			}
			cmd.SetArgs(args)
			err := cmd.ExecuteContext(t.Context())
			if c.err == "" {
				require.NoError(t, err)
				want := "ready\n"
				if c.args[0] == "--live" {
					want = "live\n"
				}
				require.Equal(t, want, stdout.String())
				return
			}
			require.ErrorContains(t, err, c.err)
			require.NotContains(t, err.Error(), "\n", "one line")
			require.Empty(t, stdout.String())
		})
	}
}
