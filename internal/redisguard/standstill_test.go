package redisguard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest/line"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// askedURL has the test below be the process that asks.
const askedURL = "GATEHOUSE_TEST_STANDSTILL_REDIS"

// asked is how those fared who asked.
type asked struct {
	Answered, Overloaded int64
	Other                map[string]int // what they were told else
	Stats                redisguard.Stats
}

// A process that stands still again and again, as in a container whose share of the
// processor is used up, doesn't take that for an outage of Redis, which is well.
func TestAStandstillIsNoOutage(t *testing.T) {
	const timeout = 100 * time.Millisecond
	if url := os.Getenv(askedURL); url != "" {
		askOn(t, url, timeout)
		return
	}
	// Not in parallel: where the line stands still while the other process runs, that is
	// an outage to it.
	r := proctest.StartRedis(t)
	lag := line.New(t, r.Addr)
	lag.Delay(2 * time.Millisecond)
	for range 10 {
		longest := lag.Watch(t)
		got := standStill(t, "redis://"+lag.Addr, timeout, func() {})
		stood := longest()
		t.Logf("%+v; the line stood still for %v", got, stood)
		require.Positive(t, got.Answered)
		require.Positive(t, got.Overloaded, "nobody noticed")
		if (len(got.Other) > 0 || got.Stats.Opened > 0) && stood >= timeout/4 {
			continue // it doesn't count
		}
		require.Empty(t, got.Other)
		require.Zero(t, got.Stats.Opened)
		return
	}
	t.Skip("no verdict: this machine is so busy that there were outages")
}

// Nor does it take an outage for nothing but its own standstills: with a sixth of the
// processor it finds out, too.
func TestAStandstillHidesNoOutage(t *testing.T) {
	r := proctest.StartRedis(t)
	lag := line.New(t, r.Addr)
	lag.Delay(2 * time.Millisecond)
	got := standStill(t, "redis://"+lag.Addr, 100*time.Millisecond, lag.Hold)
	t.Logf("%+v", got)
	require.Greater(t, got.Stats.Broken, got.Stats.Slow, "it found out while it had little of the processor")
}

// standStill has a process ask that stands still again and again, from when something
// has been done.
func standStill(t *testing.T, url string, timeout time.Duration, first func()) (got asked) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	child := exec.CommandContext(t.Context(), self, "-test.run=^TestAStandstillIsNoOutage$")
	child.Env = append(os.Environ(), askedURL+"="+url)
	stop, err := child.StdinPipe()
	require.NoError(t, err)
	said, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	answers := json.NewDecoder(said)
	var begins bool
	require.NoError(t, answers.Decode(&begins))
	first()
	// The shorter ones begin while lookups wait for their turn; what is sent before those
	// of about the timeout ends just before they end, or just after.
	for i := range 24 {
		require.NoError(t, child.Process.Signal(syscall.SIGSTOP))
		time.Sleep(timeout*9/10 + time.Duration(i%6)*timeout/10)
		require.NoError(t, child.Process.Signal(syscall.SIGCONT))
		time.Sleep(timeout / 5)
	}
	require.NoError(t, stop.Close())
	require.NoError(t, answers.Decode(&got))
	require.NoError(t, child.Wait())
	return got
}

// askOn has many ask until nobody wants to know any more, and tells what they were told.
func askOn(t *testing.T, url string, timeout time.Duration) {
	t.Helper()
	client, err := session.Open(url, session.OpenOptions{Timeout: timeout, PoolSize: 20})
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	out := json.NewEncoder(os.Stdout)
	var answered, overloaded atomic.Int64
	var mu sync.Mutex
	other := map[string]int{}
	var enough atomic.Bool
	var callers sync.WaitGroup
	for range 30 {
		callers.Go(func() {
			for !enough.Load() {
				ctx, cancel := redisguard.Lookup(t.Context(), timeout)
				err := client.Get(ctx, "nothing").Err()
				cancel()
				switch {
				case errors.Is(err, redis.Nil):
					answered.Add(1)
				case errors.Is(err, redisguard.ErrOverloaded):
					overloaded.Add(1)
				default:
					mu.Lock()
					other[fmt.Sprint(err)]++
					mu.Unlock()
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	require.Eventually(t, func() bool { return answered.Load() > 1000 }, patience, time.Millisecond)
	require.NoError(t, out.Encode(true))
	_, _ = os.Stdin.Read(make([]byte, 1))
	enough.Store(true)
	callers.Wait()
	require.NoError(t, out.Encode(asked{answered.Load(), overloaded.Load(), other, redisguard.Of(client).Stats()}))
}

// Who comes too late is not asked for, and says nothing about the server.
func TestNobodyAsksWhoseTimeIsOver(t *testing.T) {
	var dialed atomic.Int64
	client := redis.NewClient(&redis.Options{MaxRetries: -1, Dialer: func(context.Context, string, string) (net.Conn, error) {
		dialed.Add(1)
		return nil, errors.New("connection refused")
	}})
	defer func() { _ = client.Close() }()
	guard := redisguard.Of(client)
	for name, end := range map[string]func() (context.Context, context.CancelFunc){
		"too late": func() (context.Context, context.CancelFunc) { return context.WithDeadline(t.Context(), time.Now()) },
		"gone": func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx, cancel
		},
	} {
		for range 10 {
			ctx, cancel := end()
			ctx, cancelLookup := redisguard.Lookup(ctx, patience)
			err := client.Get(ctx, "key").Err()
			require.ErrorIs(t, err, redisguard.ErrOverloaded, name)
			require.ErrorContains(t, err, "context ", "why is told")
			cancelLookup()
			cancel()
		}
	}
	require.Zero(t, dialed.Load())
	require.Zero(t, guard.Stats().Opened)
}

// An answer that is read behind its deadline lay there while this process stood still:
// it says nothing about how fast the store is, for which the next ones would be refused.
func TestAnAnswerBehindItsDeadlineTeachesNothing(t *testing.T) {
	t.Parallel()
	const took = 300 * time.Millisecond
	require.Positive(t, redisguard.UsualAfter(t.Context(), took))
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Millisecond))
	defer cancel()
	require.Zero(t, redisguard.UsualAfter(late, took))
}
