package line

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Watch sends one ping after the other until longest is called, which returns how long
// the slowest took. A line runs in the process of the test: on a busy machine it may let
// nothing through for so long that whoever is tested rightly takes that for an outage.
// The line must not be held or cut meanwhile.
func (l *Line) Watch(tb testing.TB) (longest func() time.Duration) {
	tb.Helper()
	conn, err := (&net.Dialer{}).DialContext(tb.Context(), "tcp", l.Addr)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var most time.Duration
	var watcher sync.WaitGroup
	watcher.Go(func() {
		const ping, pong = "*1\r\n$4\r\nPING\r\n", "+PONG\r\n"
		reply := make([]byte, len(pong))
		for last := time.Now(); ctx.Err() == nil; {
			_, err := conn.Write([]byte(ping))
			if err == nil {
				_, err = io.ReadFull(conn, reply)
			}
			most = max(most, time.Since(last))
			last = time.Now()
			if err != nil {
				if ctx.Err() == nil {
					tb.Errorf("ping: %v", err)
				}
				return
			}
		}
	})
	end := sync.OnceFunc(func() {
		cancel()
		_ = conn.Close()
		watcher.Wait()
	})
	tb.Cleanup(end)
	return func() time.Duration {
		end()
		return most
	}
}
