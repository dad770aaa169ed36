package session_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// pair is a Cluster of two masters, of which the first has all slots but those
// that are given to the second.
type pair struct {
	first, second *redis.Client
	store         *session.Store
	client        redis.UniversalClient
	slot          int64 // of the session's record
}

func newPair(t *testing.T, secondHasSlots bool) *pair {
	t.Helper()
	ctx := t.Context()
	buses := proctest.FreePorts(t, 2)
	start := func(bus int) (*proc.Redis, *redis.Client) {
		r := proctest.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(bus))
		c := redis.NewClient(&redis.Options{Addr: r.Addr, Protocol: 2, DisableIdentity: true})
		t.Cleanup(func() { _ = c.Close() })
		return r, c
	}
	first, toFirst := start(buses[0])
	second, toSecond := start(buses[1])
	p := &pair{first: toFirst, second: toSecond}
	p.slot = p.first.ClusterKeySlot(ctx, "sess:id").Val()
	from := 0
	if secondHasSlots {
		from = 1
		require.NoError(t, p.second.Do(ctx, "cluster", "addslotsrange", 0, 0).Err())
	}
	require.NoError(t, p.first.Do(ctx, "cluster", "addslotsrange", from, 16383).Err())
	require.NoError(t, p.first.Do(ctx, "cluster", "meet", "127.0.0.1", second.Port, buses[1]).Err())
	for _, c := range []*redis.Client{p.first, p.second} {
		require.Eventually(t, func() bool {
			info, err := c.ClusterInfo(ctx).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:2")
		}, 30*time.Second, 20*time.Millisecond)
	}
	var err error
	p.client, err = session.Open("redis+cluster://"+first.Addr, session.OpenOptions{Timeout: patience, Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.client.Close() })
	p.store = session.New(p.client, session.Options{Timeout: patience, Cache: &session.CacheOptions{Heartbeat: 100 * time.Millisecond}})
	run(t, p.store)
	awaitLive(t, p.store)
	return p
}

func (p *pair) id(t *testing.T, c *redis.Client) string {
	t.Helper()
	id, err := c.Do(t.Context(), "cluster", "myid").Text()
	require.NoError(t, err)
	return id
}

func (p *pair) read(t *testing.T) error {
	t.Helper()
	_, err := p.store.Session(t.Context(), "id", authz.ReadOptions{})
	return err
}

// A master takes over a slot without its keys: nobody announces that they are
// gone, but that the slots have moved is noticed.
func TestSlotThatIsTakenOver(t *testing.T) {
	p := newPair(t, true)
	ctx := t.Context()
	require.NoError(t, p.client.Set(ctx, "sess:id", `{"userId":"u"}`, time.Hour).Err())
	require.Eventually(t, func() bool { return p.read(t) == nil && p.store.CacheStats().Hits > 0 }, 10*time.Second, time.Millisecond)
	require.NoError(t, p.second.Do(ctx, "cluster", "setslot", p.slot, "importing", p.id(t, p.first)).Err())
	require.NoError(t, p.second.Do(ctx, "cluster", "setslot", p.slot, "node", p.id(t, p.second)).Err())
	require.NoError(t, p.second.Do(ctx, "cluster", "bumpepoch").Err())
	require.Eventually(t, func() bool {
		err := p.read(t)
		return err != nil && authz.ReasonOf(err) == authz.ReasonSessionUnknown
	}, 20*time.Second, 10*time.Millisecond)
}

// While a slot moves to a server that nobody tracks yet, what is read there is
// not kept.
func TestSlotThatIsMoving(t *testing.T) {
	p := newPair(t, false)
	ctx := t.Context()
	require.NoError(t, p.client.Set(ctx, "sess:id", `{"userId":"u"}`, time.Hour).Err())
	require.NoError(t, p.read(t))
	require.NoError(t, p.second.Do(ctx, "cluster", "setslot", p.slot, "importing", p.id(t, p.first)).Err())
	require.NoError(t, p.first.Do(ctx, "cluster", "setslot", p.slot, "migrating", p.id(t, p.second)).Err())
	host, port, _ := strings.Cut(p.second.Options().Addr, ":")
	require.NoError(t, p.first.Do(ctx, "migrate", host, port, "", 0, 5000, "keys", "sess:id", "gatehouse:seen:{sess:id}").Err())
	require.Eventually(t, func() bool { return p.read(t) == nil }, 10*time.Second, time.Millisecond)
	for range 5 {
		require.NoError(t, p.read(t))
	}
	require.NoError(t, p.client.Del(ctx, "sess:id").Err())
	requireReason(t, authz.ReasonSessionUnknown, p.read(t))
}

// Nor is what was kept of it before: a token that somebody else revokes there meanwhile is
// known to be, and the revocation feed doesn't claim to tell what ends.
func TestRevokedInASlotThatIsMoving(t *testing.T) {
	p := newPair(t, false)
	ctx := t.Context()
	store := session.New(p.client, session.Options{Timeout: patience, Feed: true, Cache: &session.CacheOptions{Heartbeat: 100 * time.Millisecond}})
	run(t, store)
	awaitLive(t, store)
	e := listen(t, store, "")
	e.until(authz.FeedEvent{Kind: authz.FeedLive})
	revoked := func() bool {
		st, err := store.TokenStanding(ctx, authz.TokenRef{UserID: "u", TokenID: "jti"}, authz.ReadOptions{})
		require.NoError(t, err)
		return st.Revoked
	}
	require.Eventually(t, func() bool { return !revoked() && store.CacheStats().Hits > 0 }, 10*time.Second, time.Millisecond)
	slot := p.first.ClusterKeySlot(ctx, "revoked:jti").Val()
	require.NoError(t, p.second.Do(ctx, "cluster", "setslot", slot, "importing", p.id(t, p.first)).Err())
	require.NoError(t, p.first.Do(ctx, "cluster", "setslot", slot, "migrating", p.id(t, p.second)).Err())
	other, err := session.Open("redis+cluster://"+p.first.Options().Addr, session.OpenOptions{Timeout: patience, Logger: quiet})
	require.NoError(t, err)
	defer func() { _ = other.Close() }()
	require.NoError(t, other.Set(ctx, "revoked:jti", "1", time.Hour).Err())
	require.Eventually(t, revoked, 20*time.Second, 10*time.Millisecond)
	e.is(authz.FeedEvent{Kind: authz.FeedLag})

	for _, server := range []*redis.Client{p.second, p.first} {
		require.NoError(t, server.Do(ctx, "cluster", "setslot", slot, "node", p.id(t, p.second)).Err())
	}
	e.until(authz.FeedEvent{Kind: authz.FeedReset, Reason: authz.FeedReasonMissed})
	require.True(t, revoked())
}

// Many renewals at once, a slow network: nobody waits for the one connection
// whose writes are not announced, nor breaks it.
func TestManyRenewalsAtOnce(t *testing.T) {
	f := newServer(t, backends[1]).cached(t, session.Options{Rolling: true, TTL: time.Hour})
	const sessions = 300
	for i := range sessions {
		f.set(t, fmt.Sprint("sess:", i), `{"userId":"u"}`, 50*time.Minute)
	}
	f.settle(t)
	drops := f.CacheStats().Drops
	done := make(chan error, sessions)
	for i := range sessions {
		go func() {
			_, err := f.Session(t.Context(), fmt.Sprint(i), authz.ReadOptions{})
			done <- err
		}()
	}
	for range sessions {
		require.NoError(t, <-done)
	}
	for i := range sessions {
		about(t, time.Hour, f.ttl(t, fmt.Sprint("sess:", i)))
	}
	require.Empty(t, f.writes.all())
	require.Equal(t, drops, f.CacheStats().Drops)
}
