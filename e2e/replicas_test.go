package e2e

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// traffic is a small steady stream of authenticated requests.
type traffic struct {
	t       *testing.T
	served  atomic.Int64
	bears   atomic.Bool            // 503, which is counted then
	refused atomic.Int64           // with it
	failure atomic.Pointer[string] // the first one
	stop    chan struct{}
	clients sync.WaitGroup
}

// startTraffic sends requests from several clients until the test ends.
func (g *gateway) startTraffic(t *testing.T) *traffic {
	t.Helper()
	const clients, pause = 4, 20 * time.Millisecond
	traffic := &traffic{t: t, stop: make(chan struct{})}
	session := strings.TrimPrefix(cookie(g.login(t, bob)), "Cookie: ")
	ctx := t.Context()
	for range clients {
		traffic.clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for {
				select {
				case <-traffic.stop:
					return
				case <-tick.C:
				}
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.addr+"/users/me", http.NoBody)
				if err != nil {
					return
				}
				request.Header.Set("Cookie", session)
				response, err := client.Do(request)
				if err != nil {
					traffic.fail(err.Error())
					continue
				}
				body, _ := io.ReadAll(response.Body)
				_ = response.Body.Close()
				if response.StatusCode == http.StatusServiceUnavailable && string(body) == unavailable && traffic.bears.Load() {
					traffic.refused.Add(1)
					continue
				}
				if response.StatusCode != http.StatusOK {
					traffic.fail(fmt.Sprintf("%s %s %v", response.Status, body, response.Header))
					continue
				}
				traffic.served.Add(1)
			}
		})
	}
	t.Cleanup(traffic.end)
	return traffic
}

func (tr *traffic) fail(what string) {
	what = time.Now().Format("15:04:05.000 ") + what
	tr.failure.CompareAndSwap(nil, &what)
}

// flows waits until that many more requests were served, and fails when one
// was not.
func (tr *traffic) flows(requests int64) {
	tr.t.Helper()
	target := tr.served.Load() + requests
	waitFor(tr.t, func() bool { return tr.failure.Load() != nil || tr.served.Load() >= target })
	if failure := tr.failure.Load(); failure != nil {
		require.FailNow(tr.t, "a request failed", *failure)
	}
}

func (tr *traffic) end() {
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
	tr.clients.Wait()
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-timeout:
			require.FailNow(t, "not in time")
		}
	}
}

// decisions returns how many requests a replica has let pass.
func (r *replica) decisions(t *testing.T) int {
	t.Helper()
	return r.decided(t, `decision="allow"`)
}

// refusals returns how many requests a replica has refused for a reason.
func (r *replica) refusals(t *testing.T, reason string) int {
	t.Helper()
	return r.decided(t, `decision="deny",policy="[^"]*",reason="`+reason+`"`)
}

// decided returns how many decisions a replica has made that have such labels.
func (r *replica) decided(t *testing.T, labels string) int {
	t.Helper()
	text, err := r.metrics(t.Context())
	require.NoError(t, err)
	sum := 0
	for _, m := range regexp.MustCompile(`(?m)^gatehouse_decisions_total\{[^}]*`+labels+`[^}]*\} (\d+)$`).FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[1])
		require.NoError(t, err)
		sum += n
	}
	return sum
}

// TestReplicas: of two replicas one may crash, and what it had in hand is 503 then and
// nothing else; and each may be restarted, one after the other, without a failed request.
func TestReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s: run the tests without -short")
	}
	s := start(t, options{replicas: 2, config: "server: {drain: 2500ms}"})
	g := s.gateway(t)
	traffic := g.startTraffic(t)
	traffic.flows(50)
	both := func() {
		t.Helper()
		for _, r := range s.replicas {
			require.NoError(t, g.sees(t.Context(), r.check))
			before := r.decisions(t)
			waitFor(t, func() bool { return traffic.failure.Load() != nil || r.decisions(t) > before+5 })
		}
		traffic.flows(50)
	}
	both()

	for _, r := range s.replicas {
		before := traffic.refused.Load()
		traffic.bears.Store(true)
		r.Kill()
		traffic.flows(200)
		traffic.bears.Store(false)
		refused := traffic.refused.Load() - before
		t.Logf("%d requests were refused when it was killed", refused)
		require.Less(t, refused, int64(30), "it is not gone around")
		require.NoError(t, r.restart(t, "/readyz"))
		both()
	}
	for _, r := range s.replicas {
		require.NoError(t, r.Signal(syscall.SIGTERM))
		<-r.Done()
		require.Contains(t, r.Output(), "draining: another signal ends the program at once")
		require.Contains(t, r.Output(), "stopped")
		traffic.flows(50)
		require.NoError(t, r.restart(t, "/readyz"))
		both()
	}
	traffic.end()
	traffic.flows(0)
}
