package redisguard

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// glance is how long a read whose time is over looks at what has come. It is for the
	// runtime to look: what lies there is read at once.
	glance = time.Millisecond
	// patience is from when on nothing is looked at any more, after the first glance: an
	// answer in pieces may be read for so long, and no longer.
	patience = 20 * time.Millisecond
)

// patient is a connection on which an answer counts that came in time and lies there
// when the deadline has passed: while this process stood still nobody read it, and the
// deadline is looked at before the bytes are. Without that, an answer that is owed over
// each of many standstills would never be seen, and Redis would seem silent.
type patient struct {
	net.Conn
	until *atomic.Int64 // in nanoseconds since 1970; 0: the deadline hasn't passed
}

func (c patient) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	for n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		now := time.Now()
		c.until.CompareAndSwap(0, now.Add(patience).UnixNano())
		if now.UnixNano() >= c.until.Load() || c.Conn.SetReadDeadline(now.Add(glance)) != nil {
			break
		}
		n, err = c.Conn.Read(b)
		if time.Since(now) < 2*glance { // else it stood still again
			break
		}
	}
	return n, err
}

func (c patient) SetReadDeadline(t time.Time) error {
	c.until.Store(0)
	return c.Conn.SetReadDeadline(t)
}

func (c patient) SetDeadline(t time.Time) error {
	c.until.Store(0)
	return c.Conn.SetDeadline(t)
}

// NetConn is what is below, for who looks at the socket.
func (c patient) NetConn() net.Conn { return c.Conn }

// direct is a patient one of which the client looks at the socket before it uses it
// again: one without a layer, as TLS is, that may have read ahead.
type direct struct {
	patient
	syscall.Conn
}

// sealed is a patient one below which there is such a layer. What lies unread in its socket
// says nothing, for that may be the layer's own. That the server has ended the connection
// does: else each one of a pool, after a restart of the server or of what is in between,
// would cost a command one of its few tries, and who meets several of them gets no answer.
type sealed struct {
	patient
	socket syscall.Conn
}

func (c sealed) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("look at the socket: %w", err)
	}
	return ending{raw}, nil
}

// ending is a socket of which whoever looks whether there is something to read learns
// only whether it has ended.
type ending struct{ syscall.RawConn }

func (e ending) Read(func(fd uintptr) bool) error {
	over := false
	if err := e.Control(func(fd uintptr) { over = ended(fd) }); err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	if over {
		return io.EOF
	}
	return nil
}

func patiently(c net.Conn) net.Conn {
	p := patient{c, new(atomic.Int64)}
	if raw, ok := c.(syscall.Conn); ok {
		return direct{p, raw}
	}
	if layer := layerOf(c); layer != nil && canSeeEnds {
		if socket, ok := layer.NetConn().(syscall.Conn); ok {
			return sealed{p, socket}
		}
	}
	return p
}

// layerOf is the TLS of a connection, whatever is around it; nil for none.
func layerOf(c net.Conn) *tls.Conn {
	for {
		switch inner := c.(type) {
		case *tls.Conn:
			return inner
		case interface{ NetConn() net.Conn }:
			c = inner.NetConn()
		default:
			return nil
		}
	}
}
