package limit_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/limit"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
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
		quota, err := l.Allow(t.Context(), "partner", r, p)
		if err == nil {
			passed++
			continue
		}
		require.Equal(t, authz.ReasonRateLimited, authz.ReasonOf(err), err)
		require.Zero(t, quota.Remaining)
		retryAfter = quota.RetryAfter()
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

// What the client is told is what it gets: as many as remain pass, and one more
// when the time that was named is over.
func TestTheQuotaIsWhatIsLeft(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		for _, tt := range []struct {
			limit  limit.Limit
			policy string
		}{
			{limit.Limit{By: limit.User, Requests: 5, Per: time.Hour}, `"partner";q=5;w=3600`},
			{limit.Limit{By: limit.User, Requests: 7, Per: 90 * time.Minute, Burst: 3}, `"partner";q=7;w=5400;gatehouse-burst=3`},
			{limit.Limit{By: limit.User, Requests: 1, Per: 1700 * time.Hour, Burst: 9}, `"partner";q=1;w=6120000;gatehouse-burst=9`},
			{limit.Limit{By: limit.User, Requests: 1, Per: 1500500 * time.Millisecond}, `"partner";q=1`},
		} {
			l := newLimiter(t, client, tt.limit)
			p := &authz.Principal{Identity: authz.Identity{ID: tt.policy}}
			burst, every := max(tt.limit.Burst, 1), tt.limit.Per/time.Duration(tt.limit.Requests)
			if tt.limit.Burst == 0 {
				burst = tt.limit.Requests
			}
			quota, err := l.Peek(t.Context(), "partner", from("192.0.2.1"), p)
			require.NoError(t, err)
			require.Equal(t, burst, quota.Remaining, "nothing is used")
			require.Zero(t, quota.Next)
			require.Equal(t, []authz.Header{
				{Name: "ratelimit-policy", Value: tt.policy}, {Name: "ratelimit", Value: fmt.Sprintf(`"partner";r=%d`, burst)},
			}, quota.Headers())
			for remaining := burst - 1; remaining >= 0; remaining-- {
				quota, err = l.Allow(t.Context(), "partner", from("192.0.2.1"), p)
				require.NoError(t, err)
				require.Equal(t, remaining, quota.Remaining)
				require.Positive(t, quota.Next)
				require.LessOrEqual(t, quota.Next, every+time.Microsecond, "one more is never further away than it takes for one")
				for range 3 {
					peeked, err := l.Peek(t.Context(), "partner", from("192.0.2.1"), p)
					require.Equal(t, remaining == 0, err != nil, "Peek says what Allow would, and counts nothing")
					require.Equal(t, remaining, peeked.Remaining)
				}
			}
			quota, err = l.Allow(t.Context(), "partner", from("192.0.2.1"), p)
			require.Equal(t, authz.ReasonRateLimited, authz.ReasonOf(err))
			require.Zero(t, quota.Remaining)
			require.LessOrEqual(t, quota.Next, every+time.Microsecond)
			require.Equal(t, fmt.Sprintf(`"partner";r=0;t=%d`, quota.RetryAfter()), quota.Headers()[1].Value, "both headers name one time")
			peeked, err := l.Peek(t.Context(), "partner", from("192.0.2.1"), p)
			require.Equal(t, authz.ReasonRateLimited, authz.ReasonOf(err))
			require.InDelta(t, quota.Next, peeked.Next, float64(time.Minute))
		}
	})
}

// A customer of an IPv6 network has 2^64 addresses, and one limit.
func TestAddressesOfOneNetworkAreOne(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		l := newLimiter(t, client, limit.Limit{Requests: 1, Per: time.Hour})
		for _, tt := range []struct {
			address string
			passes  bool
		}{
			{"192.0.2.1", true},
			{"::ffff:192.0.2.1", false},
			{"192.0.2.2", true},
			{"2001:db8::1", true},
			{"2001:db8::ffff:ffff:ffff:ffff", false},
			{"2001:db8:0:1::1", true},
			{"fe80::1%eth0", true},
			{"fe80::2%eth1", false},
		} {
			passed, _ := allowed(t, l, 1, from(tt.address), nil)
			require.Equal(t, tt.passes, passed == 1, tt.address)
		}
		unknown := &authz.Request{} // of a Unix socket
		passed, _ := allowed(t, l, 3, unknown, nil)
		require.Equal(t, 1, passed, "those without an address are one")
	})
}

// A store that doesn't answer is not waited for any more when some have waited in vain;
// and is asked again when it answers.
func TestNobodyWaitsForAStoreThatHangs(t *testing.T) {
	server := proctest.StartRedis(t)
	var down atomic.Bool
	var dialled atomic.Int32
	proceed := make(chan struct{})
	client := redis.NewClient(&redis.Options{
		Addr: server.Addr, MaxRetries: -1, PoolSize: 100, DialerRetries: 1, ContextTimeoutEnabled: true, ReadTimeout: patient,
		Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
			if down.Load() {
				return nil, errors.New("connection refused")
			}
			dialled.Add(1)
			<-proceed
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	})
	defer func() { require.NoError(t, client.Close()) }()
	limits := map[string]limit.Limit{
		"deny": {Requests: 1, Per: time.Hour}, "allow": {Requests: 1, Per: time.Hour, AllowOnOutage: true},
	}
	l, err := limit.New(client, limits, limit.Options{Timeout: patient})
	require.NoError(t, err)
	down.Store(true)
	guard := redisguard.Of(client)
	require.Eventually(t, func() bool {
		_, err := l.Allow(t.Context(), "deny", from("192.0.2.1"), nil)
		require.Equal(t, authz.ReasonStoreUnavailable, authz.ReasonOf(err))
		return guard.Stats().Silent == 1
	}, patient, time.Millisecond)
	down.Store(false) // and now it hangs
	require.Eventually(t, func() bool { return dialled.Load() > 0 }, patient, time.Millisecond)
	refused := guard.Stats().Broken
	const requests = 1000
	for range requests / 2 {
		_, err := l.Allow(t.Context(), "deny", from("192.0.2.2"), nil)
		require.Equal(t, authz.ReasonStoreUnavailable, authz.ReasonOf(err))
		quota, err := l.Allow(t.Context(), "allow", from("192.0.2.2"), nil)
		require.NoError(t, err)
		require.Error(t, quota.Uncounted)
	}
	require.EqualValues(t, requests, guard.Stats().Broken-refused)
	close(proceed)
	require.Eventually(t, func() bool { return guard.Stats().Silent == 0 }, patient, time.Millisecond)
	for _, want := range []authz.Reason{"", authz.ReasonRateLimited} {
		_, err := l.Allow(t.Context(), "deny", from("192.0.2.2"), nil)
		if want == "" {
			require.NoError(t, err)
		} else {
			require.Equal(t, want, authz.ReasonOf(err))
		}
	}
}

// A client that goes away says nothing about the store.
func TestClientsThatGoAwayAreNoOutage(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		l := newLimiter(t, client, limit.Limit{Requests: 1, Per: time.Hour})
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 {
			_, err := l.Allow(gone, "partner", from("192.0.2.1"), nil)
			// An embedded store has no guard.
			require.Contains(t, []authz.Reason{authz.ReasonOverloaded, authz.ReasonStoreUnavailable}, authz.ReasonOf(err))
		}
		require.Zero(t, redisguard.Of(client).Stats().Opened)
		passed, _ := allowed(t, l, 2, from("192.0.2.1"), nil)
		require.Equal(t, 1, passed)
	})
}

// One question for each request, by the script's hash.
func TestOneQuestionForEachRequest(t *testing.T) {
	server := proctest.StartRedis(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer func() { require.NoError(t, client.Close()) }()
	l := newLimiter(t, client, limit.Limit{By: limit.User, Requests: 10, Per: time.Hour})
	p := &authz.Principal{Identity: authz.Identity{ID: "alice"}}
	allowed(t, l, 1, from("192.0.2.1"), p) // which loads the script
	require.NoError(t, client.ConfigResetStat(t.Context()).Err())
	passed, _ := allowed(t, l, 20, from("192.0.2.1"), p)
	require.Equal(t, 9, passed)
	text, err := client.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	calls := map[string]int{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok {
			continue
		}
		n, _, _ := strings.Cut(rest, ",")
		if calls[name], err = strconv.Atoi(n); err != nil {
			require.NoError(t, err)
		}
	}
	delete(calls, "config|resetstat")
	// What the script does is counted, too.
	require.Equal(t, map[string]int{"evalsha": 20, "time": 20, "get": 20, "set": 9}, calls)
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

// Who was refused by the old figures is not kept waiting by them: a bucket that
// filled slowly would be full for long.
func TestOtherFiguresBeginAnew(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		p := &authz.Principal{Identity: authz.Identity{ID: "alice"}}
		slow := limit.Limit{By: limit.User, Requests: 5, Per: 24 * time.Hour}
		passed, _ := allowed(t, newLimiter(t, client, slow), 6, from("192.0.2.1"), p)
		require.Equal(t, 5, passed)
		for name, figures := range map[string]limit.Limit{
			"more":          {By: limit.User, Requests: 500, Per: time.Minute, Burst: 2},
			"another burst": {By: limit.User, Requests: 5, Per: 24 * time.Hour, Burst: 2},
			"another span":  {By: limit.User, Requests: 5, Per: 48 * time.Hour, Burst: 2},
		} {
			passed, _ := allowed(t, newLimiter(t, client, figures), 2, from("192.0.2.1"), p)
			require.Equal(t, 2, passed, name)
		}
		passed, _ = allowed(t, newLimiter(t, client, slow), 1, from("192.0.2.1"), p)
		require.Zero(t, passed, "the same figures go on counting")
		slow.Burst, slow.AllowOnOutage = 5, true
		passed, _ = allowed(t, newLimiter(t, client, slow), 1, from("192.0.2.1"), p)
		require.Zero(t, passed, "which are the same in other words, too")
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
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	defer func() { require.NoError(t, client.Close()) }()
	l, err := limit.New(client, map[string]limit.Limit{
		"strict": {Requests: 1, Per: time.Second},
		"open":   {Requests: 1, Per: time.Second, AllowOnOutage: true},
	}, limit.Options{Timeout: patient})
	require.NoError(t, err)
	_, err = l.Allow(t.Context(), "strict", from("192.0.2.1"), nil)
	require.Equal(t, authz.ReasonStoreUnavailable, authz.ReasonOf(err))
	quota, err := l.Allow(t.Context(), "open", from("192.0.2.1"), nil)
	require.NoError(t, err)
	require.ErrorContains(t, quota.Uncounted, `limit "open"`)
	require.Empty(t, quota.Headers(), "nothing is known")
}

func TestUnknownLimitRefuses(t *testing.T) {
	l, err := limit.New(redis.NewClient(&redis.Options{}), nil, limit.Options{})
	require.NoError(t, err)
	_, err = l.Allow(context.Background(), "none", from("192.0.2.1"), nil)
	require.Equal(t, authz.ReasonInternal, authz.ReasonOf(err))
}

func TestBadLimitsAreNamed(t *testing.T) {
	_, err := limit.New(nil, map[string]limit.Limit{
		"a":  {Requests: 0, Per: time.Second},
		"b":  {Requests: 1},
		"c":  {Requests: 1, Per: time.Second, Burst: -1},
		"d":  {Requests: 1, Per: time.Second, By: "moon"},
		"e":  {Requests: 1, Per: time.Second},
		`f"`: {Requests: 1, Per: time.Second},
	}, limit.Options{})
	for _, name := range []string{"a", "b", "c", "d", `f"`} {
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
