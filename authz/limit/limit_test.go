package limit_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/limit"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// patient is a timeout that only a broken store reaches, even on a busy
// machine.
const patient = 10 * time.Second

// stores are those that a limiter must work with.
func stores(t *testing.T, test func(t *testing.T, client redis.UniversalClient)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) {
		client, err := session.Open("embedded://", session.OpenOptions{Timeout: patient})
		require.NoError(t, err)
		defer func() { require.NoError(t, client.Close()) }()
		test(t, client)
	})
	t.Run("redis", func(t *testing.T) {
		server := proctest.StartRedis(t)
		client := redis.NewClient(&redis.Options{Addr: server.Addr})
		defer func() { require.NoError(t, client.Close()) }()
		test(t, client)
	})
}

func newLimiter(t *testing.T, client redis.UniversalClient, l limit.Limit) *limit.Limiter {
	t.Helper()
	limiter, err := limit.New(client, map[string]limit.Limit{"partner": l}, limit.Options{Timeout: patient})
	require.NoError(t, err)
	return limiter
}

func from(address string) *authz.Request {
	return &authz.Request{Address: netip.MustParseAddr(address)}
}

// allowed counts how many of n requests pass.
func allowed(t *testing.T, l *limit.Limiter, n int, r *authz.Request, p *authz.Principal) (passed, retryAfter int) {
	t.Helper()
	for range n {
		after, err := l.Allow(t.Context(), "partner", r, p)
		if err == nil {
			passed++
			continue
		}
		require.Equal(t, authz.ReasonRateLimited, authz.ReasonOf(err), err)
		retryAfter = after
	}
	return passed, retryAfter
}

func TestBurstPassesAndTheRestWaits(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		l := newLimiter(t, client, limit.Limit{By: limit.User, Requests: 1, Per: time.Hour, Burst: 5})
		alice := &authz.Principal{Identity: authz.Identity{ID: "alice"}}
		passed, retryAfter := allowed(t, l, 12, from("192.0.2.1"), alice)
		require.Equal(t, 5, passed)
		require.InDelta(t, 3600, retryAfter, 30, "one more in an hour")

		passed, _ = allowed(t, l, 3, from("192.0.2.9"), alice)
		require.Zero(t, passed, "from wherever she comes")
		passed, _ = allowed(t, l, 3, from("192.0.2.1"), &authz.Principal{Identity: authz.Identity{ID: "bob"}})
		require.Equal(t, 3, passed, "bob has a count of his own")
	})
}

func TestReplicasShareTheCount(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		one := limit.Limit{By: limit.User, Requests: 4, Per: time.Hour}
		a, b := newLimiter(t, client, one), newLimiter(t, client, one)
		p := &authz.Principal{Identity: authz.Identity{ID: "alice"}}
		first, _ := allowed(t, a, 3, from("192.0.2.1"), p)
		second, _ := allowed(t, b, 3, from("192.0.2.1"), p)
		require.Equal(t, 4, first+second)
	})
}

func TestWhatIsCountedTogether(t *testing.T) {
	base := authz.Principal{Identity: authz.Identity{ID: "u", Organization: "o"}, SessionID: "s", APIKey: "k"}
	other := map[limit.By]func(*authz.Principal){
		limit.User:         func(p *authz.Principal) { p.ID = "u2" },
		limit.Organization: func(p *authz.Principal) { p.Organization = "o2" },
		limit.Session:      func(p *authz.Principal) { p.SessionID = "s2" },
		limit.APIKey:       func(p *authz.Principal) { p.APIKey = "k2" },
	}
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		for by, change := range other {
			t.Run(string(by), func(t *testing.T) {
				limiter, err := limit.New(client, map[string]limit.Limit{string(by): {By: by, Requests: 1, Per: time.Hour}}, limit.Options{Timeout: patient})
				require.NoError(t, err)
				allow := func(r *authz.Request, p *authz.Principal) bool {
					_, err := limiter.Allow(t.Context(), string(by), r, p)
					return err == nil
				}
				require.True(t, allow(from("192.0.2.1"), &base))
				require.False(t, allow(from("192.0.2.2"), &base))
				changed := base
				change(&changed)
				require.True(t, allow(from("192.0.2.1"), &changed))
				require.True(t, allow(from("192.0.2.1"), nil), "nobody counts by address")
				require.False(t, allow(from("192.0.2.1"), nil))
				require.True(t, allow(from("192.0.2.3"), &authz.Principal{}), "and so does who has no such value")
			})
		}
	})
}

func TestOutageIsChosenPerLimit(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer func() { require.NoError(t, client.Close()) }()
	var told error
	l, err := limit.New(client, map[string]limit.Limit{
		"strict": {Requests: 1, Per: time.Second},
		"open":   {Requests: 1, Per: time.Second, AllowOnOutage: true},
	}, limit.Options{OnOutage: func(err error) { told = err }})
	require.NoError(t, err)
	_, err = l.Allow(t.Context(), "strict", from("192.0.2.1"), nil)
	require.Equal(t, authz.ReasonStoreUnavailable, authz.ReasonOf(err))
	require.NoError(t, told)
	_, err = l.Allow(t.Context(), "open", from("192.0.2.1"), nil)
	require.NoError(t, err)
	require.ErrorContains(t, told, `limit "open"`)
}

func TestUnknownLimitRefuses(t *testing.T) {
	l, err := limit.New(redis.NewClient(&redis.Options{}), nil, limit.Options{})
	require.NoError(t, err)
	_, err = l.Allow(context.Background(), "none", from("192.0.2.1"), nil)
	require.Equal(t, authz.ReasonInternal, authz.ReasonOf(err))
}

func TestBadLimitsAreNamed(t *testing.T) {
	_, err := limit.New(nil, map[string]limit.Limit{
		"a": {Requests: 0, Per: time.Second},
		"b": {Requests: 1},
		"c": {Requests: 1, Per: time.Second, Burst: -1},
		"d": {Requests: 1, Per: time.Second, By: "moon"},
		"e": {Requests: 1, Per: time.Second},
	}, limit.Options{})
	for _, name := range []string{"a", "b", "c", "d"} {
		require.ErrorContains(t, err, fmt.Sprintf("limit %q", name))
	}
	require.NotContains(t, err.Error(), `"e"`)
}

func TestKeysHoldNoValuesInClear(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		l := newLimiter(t, client, limit.Limit{By: limit.Session, Requests: 10, Per: time.Hour})
		_, err := l.Allow(t.Context(), "partner", from("192.0.2.1"), &authz.Principal{SessionID: "the-session-id"})
		require.NoError(t, err)
		keys, err := client.Keys(t.Context(), "*").Result()
		require.NoError(t, err)
		require.Len(t, keys, 1)
		require.True(t, strings.HasPrefix(keys[0], "rate:gatehouse:limit:partner:session:"), keys[0])
		require.NotContains(t, keys[0], "the-session-id")
		ttl, err := client.PTTL(t.Context(), keys[0]).Result()
		require.NoError(t, err)
		require.Positive(t, ttl, "it goes away by itself")
	})
}
