package chaos

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// line is a stretch of network between a client and a server, which can be cut.
type line struct {
	port     int
	addr     string // where the client connects to
	target   string
	listener net.Listener
	group    sync.WaitGroup

	mu    sync.Mutex
	names map[string]string // ports that the server names, and those of their lines
	cut   bool              // connections are reset, new ones, too
	held  chan struct{}     // nothing gets through until it is closed; nil: it does
	conns map[net.Conn]bool
}

// newLine starts a line to a server until the test ends.
func newLine(t *testing.T, target string) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &line{addr: listener.Addr().String(), target: target, listener: listener, conns: map[net.Conn]bool{}, names: map[string]string{}}
	l.port = listener.Addr().(*net.TCPAddr).Port
	l.group.Go(l.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		l.mend()
		l.reset()
		l.group.Wait()
	})
	return l
}

// rename has the server, a Sentinel, name the line to another server in place of
// that server. Ports of the same length keep the protocol whole.
func (l *line) rename(other *line, port int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names[strconv.Itoa(port)] = strconv.Itoa(other.port)
}

// sever resets all connections, and new ones as well.
func (l *line) sever() {
	l.mu.Lock()
	l.cut = true
	l.mu.Unlock()
	l.reset()
}

// swallow lets nothing through any more, and nobody notices: what is sent arrives
// when the line is mended, late.
func (l *line) swallow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = make(chan struct{})
	}
}

// mend ends what sever and swallow did.
func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
	if l.held != nil {
		close(l.held)
		l.held = nil
	}
}

func (l *line) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
	clear(l.conns)
}

func (l *line) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		l.conns[client] = true
		cut := l.cut
		l.mu.Unlock()
		if cut {
			l.reset()
			continue
		}
		l.group.Go(func() { l.carry(client) })
	}
}

// carry connects and copies both ways until one of the ends is gone.
func (l *line) carry(client net.Conn) {
	defer l.hangUp(client)
	l.wait()
	server, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer l.hangUp(server)
	l.mu.Lock()
	l.conns[server] = true
	l.mu.Unlock()
	var up sync.WaitGroup
	up.Go(func() {
		l.copy(server, client, false)
		l.hangUp(server)
	})
	l.copy(client, server, true)
	l.hangUp(client)
	up.Wait()
}

func (l *line) hangUp(c net.Conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	_ = c.Close()
}

func (l *line) copy(to io.Writer, from io.Reader, rename bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		l.wait()
		text := buffer[:n]
		if rename {
			text = l.renamed(text)
		}
		if _, failed := to.Write(text); failed != nil || err != nil {
			return
		}
	}
}

func (l *line) renamed(text []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	for port, other := range l.names {
		text = bytes.ReplaceAll(text, []byte(port), []byte(other))
	}
	return text
}

func (l *line) wait() {
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	if held != nil {
		<-held
	}
}

func TestLine(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = server.Close() }()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	port := server.Addr().(*net.TCPAddr).Port
	l := newLine(t, proc.Local(port))
	l.rename(l, port)
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.addr)
		require.NoError(t, err)
		return c
	}
	says := func(c net.Conn, text, want string) {
		_, err := c.Write([]byte(text))
		require.NoError(t, err)
		got := make([]byte, len(want))
		_, err = io.ReadFull(c, got)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	c := dial()
	says(c, "hello", "hello")
	says(c, strconv.Itoa(port), strconv.Itoa(l.port))
	l.swallow()
	_, err = c.Write([]byte("late"))
	require.NoError(t, err)
	l.mend()
	says(c, "", "late")
	l.sever()
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
	if c, err := net.Dial("tcp", l.addr); err == nil { // it may be cut off that quickly
		_, err = c.Read(make([]byte, 1))
		require.Error(t, err)
	}
	l.mend()
	says(dial(), "again", "again")
}
