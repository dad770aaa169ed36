package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// TestReloadStormBehindEnvoy: a hundred reloads while 20,000 requests pass a real
// Envoy. None is dropped, and each gets the answer of one configuration: where it is
// known which one runs, of that one.
func TestReloadStormBehindEnvoy(t *testing.T) {
	const clients = 8
	reloads, requests := 100, 20_000
	if testing.Short() { // with the race detector, which needs no more to see them meet
		reloads, requests = 30, 6_000
	}
	// What differs: whose role is good, the name of a header, and, every other time,
	// the store, by its timeout.
	users := [2]identity{{"anna", "anna@example.com", `["a"]`, "org-1"}, {"bert", "bert@example.com", `["b"]`, "org-1"}}
	header := [2]string{"x-user-id", "x-uid"}
	changes := func(n int) string {
		return fmt.Sprintf(`
log: {level: error}
redis: {timeout: %dms}
identity: {headers: {user_id: %s}}
policies: {flips: {credentials: [session], roles: {any: [%s]}}}
routes: [{path: /p/flips, policy: flips}, {path: /p/any, policy: any}, {path: /p/open, policy: open}]
`, 5000+n/2%2, header[n%2], []string{"a", "b"}[n%2])
	}
	s := start(t, options{config: changes(0)})
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, strings.Join(r.Header.Values(header[0]), ","), "|", strings.Join(r.Header.Values(header[1]), ","))
	}))
	defer service.Close()
	g := s.gateway(t, endpoints("user_service", service.Listener.Addr().String()))
	r := s.replicas[0]
	_, port, _ := strings.Cut(r.ops, ":")
	file := filepath.Join(r.dir, "gatehouse-"+port+".yaml")
	generation := func() int {
		_, body := r.askOps(t, "/readyz")
		config, _ := body["config"].(map[string]any)
		n, _ := config["generation"].(float64)
		require.Equal(t, "current", config["state"], config["error"])
		return int(n)
	}

	// What every configuration answers alike: status, and body or identity.
	type probe struct {
		path, credential string
		status           int
		answer           string
	}
	cookies := [2]string{cookie(s.login(t, users[0])), cookie(s.login(t, users[1]))}
	always := []probe{
		{"/users/me", cookies[0], 200, "anna"},
		{"/users/me", cookies[1], 200, "bert"},
		{"/users/me", bearer(s.pem.issue(claimsOf(pemIssuer, bob))), 200, "bob"},
		{"/users/me", "", 401, noToken},
		{"/users/me", cookie(signed(newSessionID(), "nobody's secret")), 401, invalidSession},
		{"/users/me", cookie(signed(newSessionID(), secretCurrent)), 401, invalidSession},
		{"/p/any", apiKey(apiKeys.billing), 200, "service:billing"},
		{"/p/any", apiKey("wrong-key-of-nobody"), 403, forbidden},
		{"/p/open", "", 200, ""},
		{"/users/%252fadmin", "", 400, badRequest},
	}

	var sent, exact atomic.Int64
	var phase atomic.Int64 // even: configuration phase/2 runs for sure; odd: that one or the next
	var wrong atomic.Pointer[string]
	blame := func(format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		wrong.CompareAndSwap(nil, &what)
	}
	ask := func(client *http.Client, p probe) (status int, body string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.addr+p.path, http.NoBody)
		if err != nil {
			return 0, err.Error()
		}
		if name, value, ok := strings.Cut(p.credential, ": "); ok {
			request.Header.Set(name, value)
		}
		response, err := client.Do(request)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = response.Body.Close() }()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			return 0, err.Error()
		}
		return response.StatusCode, string(text)
	}
	// flips sends a request that one configuration allows and the other refuses.
	flips := func(client *http.Client, who int) {
		before := phase.Load()
		status, body := ask(client, probe{path: "/p/flips", credential: cookies[who]})
		stable, running := before%2 == 0 && phase.Load() == before, int(before/2%2)
		id := [2]string{users[who].id + "|", "|" + users[who].id}[who] // by the name that the header has where it is allowed
		allowed := status == 200 && body == id
		if !allowed && (status != 403 || body != forbidden) {
			blame("%s: %d %s", users[who].id, status, body)
		}
		if stable {
			exact.Add(1)
			if allowed != (who == running) {
				blame("%s under configuration %d: %d %s", users[who].id, running, status, body)
			}
		}
	}
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for range clients {
		workers.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for wrong.Load() == nil {
				n := int(sent.Add(1))
				if n > requests {
					select {
					case <-stop: // all reloads are done
						return
					default:
					}
				}
				if n%2 == 0 {
					flips(client, n/2%2)
					continue
				}
				p := always[n/2%len(always)]
				status, body := ask(client, p)
				if status != p.status || status != 200 && body != p.answer || status == 200 && strings.ReplaceAll(body, "|", "") != p.answer {
					blame("%s: %d %s", p.path, status, body)
				}
			}
		})
	}
	flow := func(until int64) {
		waitFor(t, func() bool { return sent.Load() >= until || wrong.Load() != nil })
	}
	for n := 1; n <= reloads; n++ {
		flow(int64(requests * (n - 1) / reloads))
		text, err := proc.MergeYAML(string(r.config), changes(n))
		require.NoError(t, err)
		phase.Add(1)
		require.NoError(t, os.WriteFile(file+".new", text, 0o600))
		require.NoError(t, os.Rename(file+".new", file))
		require.NoError(t, r.Signal(syscall.SIGHUP))
		waitFor(t, func() bool { return generation() == n+1 })
		phase.Add(1)
		flow(sent.Load() + 50)
	}
	close(stop)
	workers.Wait()
	if w := wrong.Load(); w != nil {
		require.Fail(t, *w, "after %d requests", sent.Load())
	}
	require.GreaterOrEqual(t, sent.Load(), int64(requests))
	require.Greater(t, exact.Load(), int64(requests/100), "requests at moments when it was known what runs")
	t.Attr("requests", strconv.FormatInt(sent.Load(), 10))
	t.Logf("%d requests, %d reloads; %d at moments when one answer only was right", sent.Load(), reloads, exact.Load())
	text, err := r.metrics(t.Context())
	require.NoError(t, err)
	require.Contains(t, text, fmt.Sprintf("gatehouse_config_reloads_total{result=\"applied\"} %d\n", reloads))
	require.Contains(t, text, "gatehouse_config_reloads_total{result=\"rejected\"} 0\n")
}
