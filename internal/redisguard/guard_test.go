package redisguard_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

const patience = 10 * time.Second

// What it does with a real Redis behind a slow or silent line, package session's tests
// have.

// mute is the address of a server that takes connections and never says a word, until
// hangUp.
func mute(t *testing.T) (addr string, hangUp func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var mu sync.Mutex
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	}()
	var once sync.Once
	hangUp = func() {
		once.Do(func() {
			_ = listener.Close()
			<-done
			mu.Lock()
			defer mu.Unlock()
			for _, c := range conns {
				_ = c.Close()
			}
		})
	}
	t.Cleanup(hangUp)
	return listener.Addr().String(), hangUp
}

// So many wait, and the next one doesn't, which is not the server's fault.
func TestThereIsAnEndToWaiting(t *testing.T) {
	addr, hangUp := mute(t)
	client := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 1, MaxRetries: -1, ReadTimeout: time.Hour, PoolTimeout: time.Hour})
	defer func() { _ = client.Close() }()
	guard := redisguard.Of(client)
	ctx, giveUp := context.WithCancel(t.Context())
	lookup := func() error {
		ctx, cancel := redisguard.Lookup(ctx, time.Hour)
		defer cancel()
		return client.Get(ctx, "key").Err()
	}
	var waiting sync.WaitGroup
	for range guard.Most() {
		waiting.Go(func() { _ = lookup() })
	}
	require.Eventually(t, func() bool { return guard.Stats().Waiting == guard.Most() }, patience, time.Millisecond)
	err := lookup()
	require.ErrorIs(t, err, redisguard.ErrOverloaded)
	require.True(t, redisguard.Refused(err))
	pipe := client.Pipeline()
	overloaded, cancel := redisguard.Lookup(ctx, time.Hour)
	defer cancel()
	value := pipe.Get(overloaded, "key")
	_, err = pipe.Exec(overloaded)
	require.ErrorIs(t, err, redisguard.ErrOverloaded)
	require.ErrorIs(t, value.Err(), redisguard.ErrOverloaded, "nobody takes it for an answer")
	require.EqualValues(t, 2, guard.Stats().Full)
	giveUp()
	hangUp()
	waiting.Wait()
	require.Zero(t, guard.Stats().Waiting)
}

// Commands that are not marked are sent, whatever is known.
func TestOthersAlwaysTry(t *testing.T) {
	client := redis.NewClient(&redis.Options{
		MaxRetries: -1, DialerRetries: 1, Dialer: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("connection refused")
		},
	})
	defer func() { _ = client.Close() }()
	guard := redisguard.Of(client)
	require.Eventually(t, func() bool {
		ctx, cancel := redisguard.Lookup(t.Context(), patience)
		defer cancel()
		require.Error(t, client.Get(ctx, "key").Err())
		return guard.Stats().Silent == 1
	}, patience, time.Millisecond)
	for range 50 {
		err := client.Set(t.Context(), "key", "value", 0).Err()
		require.ErrorContains(t, err, "connection refused")
		require.False(t, redisguard.Refused(err))
	}
	require.Equal(t, 1, guard.Stats().Silent)
}

// One client, one guard, however many use it; and it goes with the client.
func TestAClientHasOneGuard(t *testing.T) {
	guardOf := func(c redis.UniversalClient) weak.Pointer[redisguard.Guard] {
		guard := redisguard.Of(c)
		require.Same(t, guard, redisguard.Of(c))
		require.NoError(t, c.Close())
		return weak.Make(guard)
	}
	one, other := guardOf(redis.NewClient(&redis.Options{})), guardOf(redis.NewClient(&redis.Options{}))
	require.NotEqual(t, one, other)
	gone := guardOf(redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}}))
	require.Eventually(t, func() bool { runtime.GC(); return gone.Value() == nil }, patience, time.Millisecond)
	require.NotNil(t, redisguard.Of(redis.NewRing(&redis.RingOptions{})), "others are not guarded")
}

// A connection that could not be made, and whose caller has gone meanwhile, is not used
// by the next one.
func TestFailedConnectionsAreThrownAway(t *testing.T) {
	const size = 6
	r := proctest.StartRedis(t)
	line := make(chan struct{})
	var hung atomic.Int64
	client := redis.NewClient(&redis.Options{
		Addr: r.Addr, PoolSize: size, MaxRetries: -1, DialerRetries: 1, DialTimeout: time.Hour, ContextTimeoutEnabled: true,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			select {
			case <-line: // is mended
				return (&net.Dialer{}).DialContext(ctx, network, addr)
			default:
			}
			hung.Add(1)
			<-line
			return nil, errors.New("no route to host")
		},
	})
	defer func() { _ = client.Close() }()
	redisguard.Of(client)
	require.Eventually(t, func() bool { // on a busy machine its time may be over before it dials
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, client.Get(ctx, "key").Err(), context.DeadlineExceeded)
		return hung.Load() == size
	}, patience, time.Millisecond)
	close(line)
	require.Eventually(t, func() bool { return client.PoolStats().IdleConns == size }, patience, time.Millisecond)
	for range 2 * size {
		require.NoError(t, client.Ping(t.Context()).Err())
	}
}

// What a guard knows of a server goes with the last client of it: a Cluster's servers
// have other addresses each time. (go-redis drops those that are gone after a minute.)
func TestServersThatAreGoneAreForgotten(t *testing.T) {
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}})
	defer func() { _ = cluster.Close() }()
	guard := redisguard.Of(cluster)
	node := func(port int) *redis.Client {
		client := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", port)})
		guard.Watch(client)
		return client
	}
	stays := node(1)
	for port := range 5 {
		require.NoError(t, node(port+1).Close())
	}
	require.Equal(t, 5, guard.Servers())
	require.Eventually(t, func() bool { runtime.GC(); return guard.Servers() == 1 }, patience, time.Millisecond)
	again := node(1)
	require.NoError(t, stays.Close())
	for range 3 {
		runtime.GC()
	}
	require.Equal(t, 1, guard.Servers(), "the server has another client")
	require.NoError(t, again.Close())
	require.Eventually(t, func() bool { runtime.GC(); return guard.Servers() == 0 }, patience, time.Millisecond)
}

// What takes long is guarded by the same guard, be it that go-redis' copies are not.
func TestLongHasTheGuardOfItsClient(t *testing.T) {
	addr, hangUp := mute(t)
	client := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 4, MaxRetries: -1, ReadTimeout: time.Hour, PoolTimeout: time.Hour, ContextTimeoutEnabled: true})
	defer func() { _ = client.Close() }()
	guard := redisguard.Of(client)
	long := redisguard.Long(client, time.Hour, time.Hour)
	ctx, giveUp := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 10 {
		waiting.Go(func() { _ = long.Get(ctx, "key").Err() })
	}
	require.Eventually(t, func() bool { return client.PoolStats().TotalConns > 0 }, patience, time.Millisecond)
	late, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, long.Get(late, "key").Err(), redisguard.ErrNoTurn)
	require.ErrorIs(t, redisguard.Long(client, time.Millisecond, time.Hour).Get(ctx, "key").Err(), redisguard.ErrNoTurn)
	require.EqualValues(t, 1, client.PoolStats().TotalConns, "and others have the rest")

	touch, cancel := redisguard.Touch(ctx, patience) // a request waits for it
	defer cancel()
	require.ErrorIs(t, client.Get(touch, "key").Err(), redisguard.ErrOverloaded)
	require.NoError(t, touch.Err(), "it is left out at once")
	require.EqualValues(t, 1, guard.Stats().Skipped)
	giveUp()
	hangUp()
	waiting.Wait()
}
