package chaos

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
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
