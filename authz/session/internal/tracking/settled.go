package tracking

import (
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
)

// An announcement is put in line before the acknowledgement of its change, and as a
// rule sent before it. So when whoever made the change sends a request next, the
// announcement has arrived at this machine already, and may only not have been read
// yet, on a busy one. Settled looks whether there is anything left to read.
//
// It is a rule with exceptions: where the server had something else to send to the
// subscriber in the same round of its loop, a beat's PONG, it may send the
// acknowledgement first, some ten microseconds earlier.

// tap is the connection of the announcements. Its reader works off all that it
// has before it reads again.
type tap struct {
	net.Conn
	raw     syscall.RawConn // nil where it can't be looked into, as with TLS
	fd      uintptr
	waiting atomic.Bool // the reader has worked off all, and waits for more
}

func newTap(c net.Conn) *tap {
	t := &tap{Conn: c}
	s, ok := c.(syscall.Conn)
	if !ok || !canPeek {
		return t
	}
	raw, err := s.SyscallConn()
	if err == nil && raw.Control(func(fd uintptr) { t.fd = fd }) == nil {
		t.raw = raw
	}
	return t
}

// Read waits before it takes anything out of the socket: so whoever finds the
// socket empty and its reader waiting knows that nothing is on its way between
// the two.
func (t *tap) Read(b []byte) (int, error) {
	if t.raw == nil {
		return t.Conn.Read(b)
	}
	t.waiting.Store(true)
	err := t.raw.Read(func(fd uintptr) bool {
		if nothingYet(fd) {
			return false
		}
		t.waiting.Store(false)
		return true
	})
	t.waiting.Store(false)
	if err != nil {
		return 0, err
	}
	return t.Conn.Read(b)
}

// settled reports whether everything that has arrived was worked off. The order
// matters: see Read.
func (t *tap) settled() bool {
	if t.raw == nil {
		return true
	}
	n, ok := unread(t.fd)
	return !ok || n == 0 && t.waiting.Load()
}

// mostYields bounds how long Settled waits: some ten microseconds where nothing
// else runs.
const mostYields = 100

// Settled waits a moment until every announcement has been worked off that had
// arrived when it was called. false: there are still some.
func (t *Tracker) Settled() bool {
	taps := t.taps.Load()
	if taps == nil {
		return true
	}
	for _, c := range *taps {
		for i := 0; !c.settled(); i++ {
			if i == mostYields {
				return false
			}
			runtime.Gosched()
		}
	}
	return true
}
