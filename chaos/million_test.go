package chaos

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// crowd is many users with a session each, written as an Express application does.
type crowd struct {
	n      int
	signer *session.Signer
}

func (crowd) user(i int) string { return fmt.Sprintf("user-%07d", i) }
func (crowd) id(i int) string   { return fmt.Sprintf("crowd-%026d", i) }

func newCrowd(t *testing.T, s secrets, redisAddr string, n int) *crowd {
	t.Helper()
	signer, err := session.NewSigner([]string{s.cookie})
	require.NoError(t, err)
	c := &crowd{n: n, signer: signer}
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer func() { _ = client.Close() }()
	const batch = 1000
	for from := 0; from < n; from += batch {
		_, err := client.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for i := from; i < min(from+batch, n); i++ {
				text, err := json.Marshal(map[string]any{
					"cookie": map[string]any{"originalMaxAge": 86_400_000, "httpOnly": true, "path": "/"},
					"userId": c.user(i), "email": c.user(i) + "@example.com", "roles": []string{"member"}, "organizationId": "org-1",
				})
				if err != nil {
					return err
				}
				p.Set(t.Context(), "sess:"+c.id(i), text, 24*time.Hour)
			}
			return nil
		})
		require.NoError(t, err)
	}
	return c
}

// make makes the check of a user.
func (c *crowd) make(t *testing.T) func(int) floodCheck {
	t.Helper()
	return func(i int) floodCheck {
		one := credential{policy: "user", headers: map[string]string{"cookie": "sessionId=" + c.signer.Sign(c.id(i))}}
		message, err := proto.Marshal(one.request())
		if err != nil {
			panic(err) // of a message of ours
		}
		return newFloodCheck(t, fmt.Sprintf("%dm", callerPatience.Milliseconds()), message)
	}
}

// As many sessions as a large application has, each shown twice, with a cache that
// holds them all, and has all of them the second time; and a quarter of them with the
// cache of the usual size, which holds a part of those. In the short form all of it is
// small.
func TestAMillionSessions(t *testing.T) {
	begin(t, "redis-server")
	n := of(10_000, 1_000_000)
	r := proctest.StartRedis(t)
	s := newSecrets(t)
	c := newCrowd(t, s, r.Addr, n)
	for _, cache := range []struct {
		name    string
		n       int // sessions that are shown
		entries int
		evicts  bool
	}{
		{"a cache for all", n, n * 3 / 2, false},
		{"a cache for a part", n / 4, n / 5, true},
	} {
		n := cache.n
		// A pass takes minutes: what is renewed meanwhile would be asked for again.
		g := startGate(t, s, "redis://"+r.Addr, fmt.Sprintf("{redis: {cache: {max_entries: %d}}, sessions: {touch_interval: 1h}}", cache.entries))
		empty := g.weigh(t)
		began := now()
		var note string
		var all span10
		cached, passes := false, 0
		for ; passes < 2 || !cached; passes++ {
			// A cache that lost touch with Redis for a moment, as it can on a busy machine,
			// begins anew.
			require.Less(t, passes, 5, "the cache doesn't hold them: %s", note)
			hits, from := g.metric(t, "gatehouse_cache_answers_total", `"hit"`), time.Now()
			f := startFlood(t, g.check, nil, floodOptions{connections: 4, most: 64, each: n, make: c.make(t), user: c.user})
			f.group.Wait()
			f.end(t)
			took := time.Since(from)
			sum := f.sum(0, time.Hour)
			all.add(&sum)
			require.Equal(t, n, sum.offered)
			require.Equal(t, n, sum.accepted+sum.unknown+sum.shed+sum.late+sum.held, "each has its answer")
			require.Greater(t, sum.accepted, n*9/10)
			hits = g.metric(t, "gatehouse_cache_answers_total", `"hit"`) - hits
			cached = cache.evicts || hits > float64(n)*9/10
			note += fmt.Sprintf("time %d: %.0f/s, %.0f %% from the cache, p99 %s; ", passes+1, float64(n)/took.Seconds(), 100*hits/float64(n), millis(sum.percentile(.99)))
		}
		evicted := g.metric(t, "gatehouse_cache_evictions_total", "")
		require.Equal(t, cache.evicts, evicted > 0)
		entries := g.metric(t, "gatehouse_cache_entries", "")
		require.LessOrEqual(t, entries, float64(2*cache.entries), "a session, and its user")
		full := g.weigh(t)
		// A session takes a quarter of that; the collector lets four times as much pile
		// up as is in use.
		require.Less(t, full.rss-empty.rss, 200e6+2000*float64(min(n, cache.entries)), "more than 2 kB for a session")
		results.add(t, result{
			fault:    fmt.Sprintf("%d sessions, each shown %d times, and %s", n, passes, cache.name),
			requests: passes * n, refused: all.unknown + all.shed, wrong: all.wrong, window: now() - began,
			note: note + fmt.Sprintf("%.0f entries of %.0f MB, %.0f evicted; %v, empty %v",
				entries, g.metric(t, "gatehouse_cache_bytes", "")/1e6, evicted, full, empty),
		})
		require.NoError(t, g.Stop())
	}
}
