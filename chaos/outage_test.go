package chaos

import (
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	slow "github.com/gatehouse-auth/gatehouse/internal/proc/redistest/line"
)

// A Gatehouse that has too much to do must not take its own slowness for an outage of
// Redis: a flood would open what policies allow in an outage, such as tokens whose
// revocation can't be looked up.
func TestOverloadIsNoOutage(t *testing.T) {
	begin(t, "redis-server")
	r := proctest.StartRedis(t)
	t.Setenv("GOMAXPROCS", "1")
	g := startGate(t, newSecrets(t), "redis://"+r.Addr, `
server: {check: {max_concurrent: 256}}
policies: {accepting: {credentials: [bearer], on_store_outage: accept_bearer}}`)
	direct := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer func() { _ = direct.Close() }()
	var revoked []*credential
	for range of(200, 2000) {
		c := g.token(t, "mallory").under("accepting")
		require.NoError(t, direct.Set(t.Context(), "revoked:"+c.id(t), "1", time.Hour).Err())
		revoked = append(revoked, c)
	}
	var all []*credential
	for _, c := range g.sessions(t, 100) {
		all = append(all, c, c.strict())
	}
	f := startFlood(t, g.check, floodChecks(t, g, all), floodOptions{rate: 140_000, most: 1024, connections: 8})
	began := now()
	var mu sync.Mutex
	counts := map[int]int{}
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			for j := i; j < len(revoked); j += 20 {
				a := g.ask(t.Context(), revoked[j])
				mu.Lock()
				counts[a.status]++
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	f.end(t)
	sum := f.sum(0, time.Hour)
	require.Positive(t, sum.shed, "it was no overload")
	require.Zero(t, counts[http.StatusOK], "revoked tokens passed: %v", counts)
	require.Equal(t, len(revoked), counts[http.StatusUnauthorized]+counts[http.StatusServiceUnavailable], "%v", counts)
	results.add(t, result{
		fault: "a flood, and revoked tokens under accept_bearer", requests: len(revoked), refused: counts[http.StatusServiceUnavailable],
		window: now() - began, note: "Redis was well",
	})
}

// A Gatehouse that stands still again and again, as one whose container has used up its
// share of the processor, doesn't take that for an outage of Redis: all timers are over
// when it goes on, and what Redis has answered was not read yet.
func TestStandstillIsNoOutage(t *testing.T) {
	begin(t, "redis-server")
	const timeout = 100 * time.Millisecond
	r := proctest.StartRedis(t)
	lag := slow.New(t, r.Addr)
	lag.Delay(2 * time.Millisecond) // or hardly anything would be under way
	for range 5 {
		if standStill(t, r.Addr, lag, timeout) {
			return
		}
	}
	t.Skip("no verdict: this machine is so busy that there were outages")
}

// standStill reports whether what became of gates that stand still again and again
// counts: an outage does only where the line, which is of this process, went on.
func standStill(t *testing.T, redisAddr string, lag *slow.Line, timeout time.Duration) (told bool) {
	t.Helper()
	secrets := newSecrets(t)
	const config = `
redis: {timeout: 100ms}
policies: {accepting: {credentials: [bearer], on_store_outage: accept_bearer}}`
	gates := []*gate{
		startGate(t, secrets, "redis://"+lag.Addr, config),
		startGate(t, secrets, "redis://"+lag.Addr, config, "redis: {cache: {enabled: false}}"),
	}
	direct := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer func() { _ = direct.Close() }()
	var revoked []*credential
	for range of(1000, 4000) {
		c := secrets.token(t, "mallory").under("accepting")
		require.NoError(t, direct.Set(t.Context(), "revoked:"+c.id(t), "1", time.Hour).Err())
		revoked = append(revoked, c)
	}
	began := now()
	var mu sync.Mutex
	counts := map[int]int{}
	var enough atomic.Bool
	var callers sync.WaitGroup
	for i := range 60 {
		callers.Go(func() {
			for j := i; !enough.Load(); j += 60 {
				a := gates[i%2].ask(t.Context(), revoked[j%len(revoked)])
				mu.Lock()
				counts[a.status]++
				mu.Unlock()
			}
		})
	}
	longest := lag.Watch(t)
	signal := func(sig os.Signal) {
		for _, g := range gates {
			require.NoError(t, g.Signal(sig))
		}
	}
	for i := range of(24, 240) {
		signal(syscall.SIGSTOP)
		time.Sleep(timeout*9/10 + time.Duration(i%6)*timeout/10)
		signal(syscall.SIGCONT)
		time.Sleep(timeout / 5)
	}
	enough.Store(true)
	callers.Wait()
	stood := longest()
	t.Logf("the line stood still for %v", stood)
	requests, outage := 0, false
	for status, n := range counts {
		requests += n
		outage = outage || status == http.StatusOK
	}
	for _, g := range gates {
		metrics := g.metrics(t)
		outage = outage || strings.Contains(metrics, `reason="store_unavailable"`) || !strings.Contains(metrics, "\ngatehouse_store_silences_total 0\n")
	}
	if outage && stood >= timeout/4 {
		return false
	}
	require.Positive(t, counts[http.StatusUnauthorized])
	require.Positive(t, counts[http.StatusServiceUnavailable], "nobody noticed: %v", counts)
	require.Equal(t, requests, counts[http.StatusUnauthorized]+counts[http.StatusServiceUnavailable], "%v", counts)
	for _, g := range gates {
		metrics := g.metrics(t)
		require.Regexp(t, `reason="overloaded"\} [1-9]`, metrics)
		require.NotRegexp(t, `reason="store_unavailable"\} [1-9]`, metrics)
		require.NotRegexp(t, `gatehouse_degraded_decisions_total\{[^}]*\} [1-9]`, metrics)
		require.Contains(t, metrics, "\ngatehouse_store_silences_total 0\n")
	}
	results.add(t, result{
		fault: "Gatehouse stands still again and again (SIGSTOP), and revoked tokens under accept_bearer", requests: requests,
		refused: counts[http.StatusServiceUnavailable], window: now() - began, note: "Redis was well",
	})
	return true
}
