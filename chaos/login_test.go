package chaos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// Anybody can try to log in, as often as they like, and behind a slow line that is far
// more than Redis can count. Nobody else feels it: every check that asks Redis is
// answered, every revocation is done, and nobody takes Redis for silent.
func TestLoginFlood(t *testing.T) {
	begin(t, "redis-server", "toxiproxy-server")
	const callers = 400 // fewer can be answered in time
	x := startToxiproxy(t)
	addr, err := x.listen(t.Context(), "redis", proctest.StartRedis(t).Addr)
	require.NoError(t, err)
	s := newSecrets(t)
	g := startGate(t, s, "redis://"+addr, s.passwords(t, len(ways)), graceConfig, "redis: {timeout: 2s}")
	var all []*credential
	for _, c := range g.sessions(t, 20) {
		all = append(all, c.strict())
	}
	var victims []*victim
	for i, prepare := range ways {
		victims = append(victims, prepare(t, g, i))
	}
	require.NoError(t, x.add(t.Context(), "redis", toxic{Name: "slow", Type: "latency", Stream: downstream, Attributes: map[string]int64{"latency": 50}}))
	l := startLoad(t, g, loadOptions{rate: 80}, all...)
	require.Zero(t, g.metric(t, "gatehouse_store_silences_total", ""))

	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer flood.Wait()
	defer stop()
	var counted, shed atomic.Int64 // 401 and 429, and 503
	transport := &http.Transport{MaxIdleConnsPerHost: callers}
	defer transport.CloseIdleConnections()
	broken := now()
	for i := range callers {
		flood.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				switch status := g.tryLogin(ctx, transport, fmt.Sprintf("nobody-%d-%d@example.com", i, n)); status {
				case http.StatusUnauthorized, http.StatusTooManyRequests:
					counted.Add(1)
				case http.StatusServiceUnavailable:
					shed.Add(1)
					time.Sleep(50 * time.Millisecond) // the processors are not what this is about
				case 0: // it is over
				default:
					t.Errorf("a login is answered %d", status)
				}
			}
		})
	}
	require.Eventually(t, func() bool { return shed.Load() > callers }, patience, time.Millisecond, "it is no flood")
	for _, v := range victims {
		o, why := v.end(t.Context())
		require.Equal(t, acknowledged, o, "%s: %s", v.way, why)
		for _, c := range v.shown {
			require.Equal(t, http.StatusUnauthorized, g.ask(t.Context(), c.strict()).status, "%s: %s", v.way, c.name)
		}
	}
	early := counted.Load()
	time.Sleep(of(time.Second, 20*time.Second))
	require.Greater(t, counted.Load(), early, "as many as can be are counted")
	stop()
	flood.Wait()
	mended := now()
	r := l.finish(t, "a flood of logins, and 50 ms to Redis", broken, mended)
	r.note = fmt.Sprintf("%d callers: %d logins counted, %d shed; %d kinds of revocations beside them", callers, counted.Load(), shed.Load(), len(victims))
	results.add(t, r)
	require.LessOrEqual(t, r.refused, r.requests/100, "checks were refused") // more on a machine that stands still
	require.Zero(t, g.metric(t, "gatehouse_store_silences_total", ""))
}

// tryLogin tries to log in with a wrong password, and returns the status of the answer,
// 0 for none.
func (g *gate) tryLogin(ctx context.Context, transport http.RoundTripper, email string) (status int) {
	body := fmt.Sprintf(`{"email":%q,"password":"wrong"}`, email)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.http+"/auth/login", strings.NewReader(body))
	if err != nil {
		return 0
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}
