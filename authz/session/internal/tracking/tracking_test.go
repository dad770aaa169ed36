package tracking_test

import (
	"bytes"
	"context"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/session/internal/tracking"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// watcher notes what it is told.
type watcher struct {
	mu     sync.Mutex
	keys   []string
	all    int
	states []tracking.State
	news   chan struct{}
}

func (w *watcher) note(f func()) {
	w.mu.Lock()
	f()
	w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
}

func (w *watcher) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		w.mu.Lock()
		done := ok()
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-w.news:
		case <-deadline:
			require.Fail(t, "it did not come", what)
		}
	}
}

func (w *watcher) has(key string) func() bool {
	return func() bool {
		return slices.Contains(w.keys, key)
	}
}

func (w *watcher) live() bool { return len(w.states) > 0 && w.states[len(w.states)-1].Live }

func start(t *testing.T, client redis.UniversalClient, heartbeat time.Duration) (*tracking.Tracker, *watcher) {
	t.Helper()
	w := &watcher{news: make(chan struct{}, 1)}
	tr := tracking.New(client, tracking.Options{
		Prefixes: []string{"sess:", "user:"}, Heartbeat: heartbeat, Timeout: 5 * time.Second,
		Changed:    func(key string) { w.note(func() { w.keys = append(w.keys, key) }) },
		ChangedAll: func() { w.note(func() { w.all++ }) },
		OnState:    func(s tracking.State) { w.note(func() { w.states = append(w.states, s) }) },
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		_, live := tr.Live()
		require.False(t, live)
	})
	return tr, w
}

func startRedis(t *testing.T) (*redis.Client, *proc.Redis) {
	t.Helper()
	proctest.Need(t, "redis-server")
	r, err := proc.StartRedis(context.WithoutCancel(t.Context()), proc.RedisOptions{Dir: t.TempDir(), Port: proctest.FreePort(t)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Stop() })
	client := redis.NewClient(&redis.Options{Addr: r.Addr, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	return client, r
}

func TestChangesAreAnnounced(t *testing.T) {
	client, _ := startRedis(t)
	tr, w := start(t, client, time.Minute) // no beat is late
	w.await(t, "live", w.live)
	epoch, ok := tr.Live()
	require.True(t, ok)
	require.Equal(t, uint32(1), epoch)
	require.True(t, tr.State().Live)
	ctx := t.Context()
	for name, change := range map[string]func(key string) error{
		"set":     func(key string) error { return client.Set(ctx, key, "x", time.Hour).Err() },
		"same":    func(key string) error { return client.Set(ctx, key, "x", time.Hour).Err() },
		"expire":  func(key string) error { return client.Expire(ctx, key, time.Minute).Err() },
		"getex":   func(key string) error { return client.GetEx(ctx, key, time.Hour).Err() },
		"persist": func(key string) error { return client.Persist(ctx, key).Err() },
		"del":     func(key string) error { return client.Del(ctx, key).Err() },
		"script": func(key string) error {
			return client.Eval(ctx, `return redis.call('PEXPIRE', KEYS[1], 5000)`, []string{key}).Err()
		},
	} {
		key := "sess:" + name
		require.NoError(t, client.Set(ctx, key, "x", time.Hour).Err())
		w.await(t, name, w.has(key))
		w.mu.Lock()
		w.keys = nil
		w.mu.Unlock()
		require.NoError(t, change(key))
		w.await(t, name, w.has(key))
	}
	require.NoError(t, client.Set(ctx, "other", "x", 0).Err())
	require.NoError(t, client.Set(ctx, "user:u", "x", 0).Err())
	w.await(t, "user:u", w.has("user:u"))
	require.False(t, w.has("other")())
	require.NoError(t, client.FlushAll(ctx).Err())
	w.await(t, "flush", func() bool { return w.all == 1 })
	require.NoError(t, client.FlushDB(ctx).Err())
	w.await(t, "flush", func() bool { return w.all == 2 })
	again, ok := tr.Live()
	require.True(t, ok)
	require.Equal(t, epoch, again, "the connection is whole")
}

// What we write through the writer is not announced, in a transaction neither;
// others' changes are.
func TestOwnWritesAreNotAnnounced(t *testing.T) {
	client, _ := startRedis(t)
	require.Nil(t, tracking.New(client, tracking.Options{}).Writer(t.Context(), "sess:a"), "nothing is announced yet")
	tr, w := start(t, client, time.Minute) // no beat is late
	w.await(t, "live", w.live)
	ctx := t.Context()
	require.NoError(t, client.Set(ctx, "sess:a", "x", time.Hour).Err())
	w.await(t, "the other's", w.has("sess:a"))
	w.mu.Lock()
	w.keys = nil
	w.mu.Unlock()
	writer := tr.Writer(ctx, "sess:a")
	require.NotNil(t, writer)
	_, err := writer.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.PExpire(ctx, "sess:a", time.Minute)
		p.Get(ctx, "sess:a")
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, client.Set(ctx, "sess:b", "x", time.Hour).Err())
	w.await(t, "the next one", w.has("sess:b"))
	require.False(t, w.has("sess:a")())
}

// A connection that is killed ends the reliance at once, whichever it is, and a
// new epoch begins.
func TestKilledConnectionsAreNoticedAtOnce(t *testing.T) {
	client, _ := startRedis(t)
	tr, w := start(t, client, time.Hour) // so that no beat tells
	ctx := t.Context()
	for i := range 6 {
		epoch := uint32(i + 1)
		w.await(t, "live", func() bool { e, ok := tr.Live(); return ok && e == epoch && w.live() })
		list, err := client.ClientList(ctx).Result()
		require.NoError(t, err)
		victim := ""
		for line := range strings.Lines(list) {
			subscriber := strings.Contains(line, " sub=1 ")
			tracker := strings.Contains(line, "redir=") && !strings.Contains(line, "redir=-1")
			if i%2 == 0 && subscriber || i%2 == 1 && tracker {
				victim = strings.TrimPrefix(strings.Fields(line)[0], "id=")
			}
		}
		require.NotEmpty(t, victim, list)
		require.NoError(t, client.ClientKillByFilter(ctx, "id", victim).Err())
		w.await(t, "noticed", func() bool { e, ok := tr.Live(); return !ok || e > epoch })
	}
}

// A server that is frozen is not relied on for longer than the lease.
func TestAFrozenServerEndsTheLease(t *testing.T) {
	client, server := startRedis(t)
	tr, w := start(t, client, 100*time.Millisecond)
	w.await(t, "live", w.live)
	known := time.Now()
	_, proven := tr.Proven()
	proctest.Freeze(t, server.Process)
	defer func() { _ = server.Signal(syscall.SIGCONT) }()
	var age time.Duration
	require.Eventually(t, func() bool { // an answer from before may lie here unread where this machine is busy
		_, age = tr.Proven()
		_, ok := tr.Live()
		return !ok && age >= 250*time.Millisecond
	}, 10*time.Second, time.Millisecond)
	require.False(t, tr.State().Live)
	require.Error(t, tr.State().Err)
	require.LessOrEqual(t, age, time.Since(known)+proven, "what was proven before it was frozen was proven")
	require.NoError(t, server.Signal(syscall.SIGCONT))
	require.Eventually(t, func() bool { _, ok := tr.Live(); return ok }, 10*time.Second, time.Millisecond)
}

func TestAServerThatComesLaterOrAgain(t *testing.T) {
	proctest.Need(t, "redis-server")
	port := proctest.FreePort(t)
	client := redis.NewClient(&redis.Options{Addr: proc.Local(port), Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	tr, w := start(t, client, 100*time.Millisecond)
	w.await(t, "not there", func() bool { return len(w.states) > 0 })
	require.False(t, tr.State().Live)
	require.False(t, tr.State().Refused)
	for i := range 2 {
		r, err := proc.StartRedis(context.WithoutCancel(t.Context()), proc.RedisOptions{Dir: t.TempDir(), Port: port})
		require.NoError(t, err)
		w.await(t, "live", w.live)
		epoch, _ := tr.Live()
		require.Equal(t, uint32(i+1), epoch)
		require.NoError(t, r.Stop())
		w.await(t, "gone", func() bool { return !w.live() })
	}
}

func TestAServerThatRefuses(t *testing.T) {
	client, _ := startRedis(t)
	ctx := t.Context()
	require.NoError(t, client.Do(ctx, "acl", "setuser", "poor", "on", ">secret", "~*", "&*", "+@all", "-client|tracking").Err())
	poor := redis.NewClient(&redis.Options{Addr: client.Options().Addr, Protocol: 2, DisableIdentity: true, Username: "poor", Password: "secret"})
	t.Cleanup(func() { _ = poor.Close() })
	tr, w := start(t, poor, 100*time.Millisecond)
	w.await(t, "refused", func() bool { return len(w.states) == 1 })
	require.True(t, tr.State().Refused)
	require.ErrorContains(t, tr.State().Err, "NOPERM")
}

// A connection that hears nothing any more, while others do, is replaced.
func TestDeafSubscriberIsReplaced(t *testing.T) {
	r := proctest.StartRedis(t)
	var deaf atomic.Bool
	client := redis.NewClient(&redis.Options{
		Addr: r.Addr, Protocol: 2, DisableIdentity: true,
		Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &deafConn{Conn: c, deaf: &deaf}, nil
		},
	})
	t.Cleanup(func() { _ = client.Close() })
	_, w := start(t, client, 50*time.Millisecond)
	w.await(t, "live", w.live)
	deaf.Store(true)
	w.await(t, "the lease is over", func() bool { return !w.live() })
	deaf.Store(false) // for new connections
	w.await(t, "live again", w.live)
}

// deafConn is a connection that, once it was deaf as a subscriber's, stays so.
type deafConn struct {
	net.Conn
	deaf       *atomic.Bool
	subscriber atomic.Bool
	gone       bool
}

func (c *deafConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("subscribe")) {
		c.subscriber.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *deafConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		c.gone = c.gone || c.subscriber.Load() && c.deaf.Load()
		if err != nil || !c.gone {
			return n, err
		}
	}
}

// Servers of a Cluster come and go; what is remembered of each goes with it.
func TestServersThatAreGoneAreForgotten(t *testing.T) {
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}})
	defer func() { _ = cluster.Close() }()
	tracker := tracking.New(cluster, tracking.Options{})
	stays := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer func() { _ = stays.Close() }()
	tracking.Hook(tracker, stays)
	for range 100 {
		c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
		tracking.Hook(tracker, c)
		tracking.Hook(tracker, c)
		require.NoError(t, c.Close())
	}
	require.Eventually(t, func() bool {
		runtime.GC()
		return tracking.Hooked(tracker) == 1
	}, 20*time.Second, time.Millisecond)
}
