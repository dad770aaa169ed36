package redisguard

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// glance is how long a read whose time is over looks at what has come. It is for the
// runtime to look: what lies there is read at once.
const glance = time.Millisecond

// patient is a connection on which an answer counts that came in time and lies there
// when the deadline has passed: while this process stood still nobody read it, and the
// deadline is looked at before the bytes are. Without that, an answer that is owed over
// each of many standstills would never be seen, and Redis would seem silent.
type patient struct{ net.Conn }

func (c patient) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || c.SetReadDeadline(time.Now().Add(glance)) != nil {
		return n, err
	}
	return c.Conn.Read(b)
}

// NetConn is what is below, for who looks at the socket.
func (c patient) NetConn() net.Conn { return c.Conn }

// direct is a patient one of which the client looks at the socket before it uses it
// again: one without a layer, as TLS is, that may have read ahead.
type direct struct {
	patient
	syscall.Conn
}

func patiently(c net.Conn) net.Conn {
	if raw, ok := c.(syscall.Conn); ok {
		return direct{patient{c}, raw}
	}
	return patient{c}
}
