package tracking

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Beats come back, and leases run out, at the same time: what is told last is what holds.
func TestStatesAreToldInTheirOrder(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var told []bool
	tracker := New(redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}), Options{
		Heartbeat: time.Nanosecond,
		OnState: func(s State) {
			if s.Live { // and is told late
				time.Sleep(10 * time.Microsecond)
			}
			mu.Lock()
			defer mu.Unlock()
			told = append(told, s.Live)
		},
	})
	l := &link{t: tracker}
	tracker.links = []*link{l}
	ctx, cancel := context.WithCancel(t.Context())
	var both sync.WaitGroup
	both.Go(func() {
		defer cancel()
		for range 5000 {
			l.proven.Store(tracker.since())
			tracker.prove()
		}
	})
	both.Go(func() {
		for ctx.Err() == nil {
			tracker.noteLapse()
		}
	})
	both.Wait()
	require.NotEmpty(t, told)
	for i, live := range told {
		require.Equal(t, i%2 == 0, live, "the state that was told as number %d", i)
	}
}
