package session

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Whether there is another master is asked with each heartbeat, and when a Sentinel
// announces one: that bounds how long an old one is heard by those who don't write.

// watch sees to it that the master is asked for at least once in each interval, and when
// a Sentinel announces another one, until ctx ends.
func (m *masters) watch(ctx context.Context, every time.Duration) {
	var listeners sync.WaitGroup
	defer listeners.Wait()
	switched := make(chan struct{}, 1)
	for _, address := range m.named {
		listeners.Go(func() { m.listen(ctx, address, every, switched) })
	}
	for {
		wait := time.Until(m.lastNamed().Add(every)) // by whoever opened a connection
		if wait <= 0 {
			_, _ = m.locate(ctx) // who wants a connection is told why there is none
			wait = every
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-switched:
			_, _ = m.locate(ctx) // as above
		}
	}
}

func (m *masters) lastNamed() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

// listen tells of each failover that a Sentinel announces.
func (m *masters) listen(ctx context.Context, address string, pause time.Duration, switched chan<- struct{}) {
	for ctx.Err() == nil {
		m.mu.Lock()
		s := m.sentinels[address]
		m.mu.Unlock()
		if s == nil { // closed
			return
		}
		announcements := s.Subscribe(ctx, "+switch-master")
		stop := context.AfterFunc(ctx, func() { _ = announcements.Close() }) // reading heeds no context
		for {
			message, err := announcements.Receive(ctx)
			if err != nil {
				break
			}
			if _, ok := message.(*redis.Message); ok {
				select {
				case switched <- struct{}{}:
				default:
				}
			}
		}
		stop()
		_ = announcements.Close()
		select {
		case <-ctx.Done():
		case <-time.After(max(pause, time.Second)):
		}
	}
}
