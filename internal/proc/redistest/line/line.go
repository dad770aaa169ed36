package line

import (
	"bufio"
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Line is such a stretch. It may be changed at any time, by anybody.
type Line struct {
	Addr string // where clients connect to

	target   string
	listener net.Listener
	group    sync.WaitGroup

	mu       sync.Mutex
	cut      Cut
	commands int
	down     bool          // it was cut, and doesn't heal
	held     chan struct{} // nothing gets through until it is closed; nil: it does
	delay    time.Duration
	conns    map[*conn]bool
}

// Cut says where a line is cut. What keeps a connection going is not counted: AUTH,
// CLIENT, HELLO, PING and SELECT.
type Cut struct {
	At    int  // the command, of all connections, counted from 1; 0: never
	Taken bool // Redis gets that command, and only its reply is lost
	Heals bool // one connection ends, and new ones work at once; else all end, until Mend or Arm
}

var uncounted = []string{"AUTH", "CLIENT", "HELLO", "PING", "SELECT"}

// New starts a line to a server until the test ends.
func New(tb testing.TB, target string) *Line {
	tb.Helper()
	listener, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	l := &Line{Addr: listener.Addr().String(), target: target, listener: listener, conns: map[*conn]bool{}}
	l.group.Go(l.accept)
	tb.Cleanup(func() {
		_ = listener.Close()
		l.mu.Lock()
		l.down = true
		l.mu.Unlock()
		l.end()
		l.group.Wait()
	})
	return l
}

// Arm mends the line, begins to count commands, and says where it is cut.
func (l *Line) Arm(c Cut) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.commands, l.down = c, 0, false
}

// Commands returns how many commands there were since Arm; the one at which it was cut
// is the last.
func (l *Line) Commands() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commands
}

// Mend lets everything through again, and reports whether the line was cut.
func (l *Line) Mend() (wasCut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wasCut = l.cut.At > 0 && l.commands >= l.cut.At
	l.cut, l.down = Cut{}, false
	return wasCut
}

// Hold lets nothing through any more, and nobody notices: connections stay and can be
// opened, and what is sent arrives after Release, late.
func (l *Line) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = make(chan struct{})
	}
}

// Release ends what Hold began.
func (l *Line) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held != nil {
		close(l.held)
		l.held = nil
	}
}

// Delay has each answer come so much later, from now on.
func (l *Line) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// fate is what becomes of a command.
type fate int

const (
	passes fate = iota
	isLost      // its reply
	isCut       // in place of it the line ends
	isLate      // it has been cut before
)

func (l *Line) next(name string) fate {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return isLate
	}
	if slices.Contains(uncounted, name) {
		return passes
	}
	if l.cut.At > 0 && l.commands == l.cut.At { // it has healed
		return passes
	}
	l.commands++
	if l.commands != l.cut.At {
		return passes
	}
	l.down = !l.cut.Heals
	if l.cut.Taken {
		return isLost
	}
	return isCut
}

// end ends all connections.
func (l *Line) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.end()
	}
}

// sever ends a connection, and all others where the line doesn't heal.
func (l *Line) sever(c *conn) {
	c.end()
	l.mu.Lock()
	down := l.down
	l.mu.Unlock()
	if down {
		l.end()
	}
}

func (l *Line) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.group.Go(func() { l.serve(client) })
	}
}

func (l *Line) serve(client net.Conn) {
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", l.target)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &conn{line: l, client: client, server: server, done: make(chan struct{}), late: make(chan late, 1000)}
	c.changed = sync.NewCond(&c.mu)
	l.mu.Lock()
	l.conns[c] = true
	down := l.down
	l.mu.Unlock()
	if !down {
		var group sync.WaitGroup
		group.Go(c.up)
		group.Go(c.down)
		group.Go(c.answer)
		group.Wait()
	}
	c.end()
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
}

// conn is one connection of a client, and the one to the server for it.
type conn struct {
	line           *Line
	client, server net.Conn
	once           sync.Once
	done           chan struct{}
	late           chan late // what the server has answered

	mu         sync.Mutex
	changed    *sync.Cond
	sent       int  // commands
	answered   int  // of them
	lost       int  // the command whose reply is lost; 0: none
	subscribed bool // what the server sends are no replies
}

// late is a message that is due at a time.
type late struct {
	at   time.Time
	text []byte
}

func (c *conn) end() {
	c.once.Do(func() {
		close(c.done)
		_ = c.client.Close()
		_ = c.server.Close()
		c.mu.Lock()
		c.changed.Broadcast()
		c.mu.Unlock()
	})
}

func (c *conn) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wait waits while the line is held.
func (c *conn) wait() {
	c.line.mu.Lock()
	held := c.line.held
	c.line.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-c.done:
		}
	}
}

// up carries commands.
func (c *conn) up() {
	in := bufio.NewReader(c.client)
	for {
		command, err := Message(in)
		if err != nil {
			c.end()
			return
		}
		c.wait()
		name := Name(command)
		becomes := c.line.next(name)
		switch becomes {
		case isCut: // what was asked before is answered
			c.awaitAnswers()
			c.line.sever(c)
			return
		case isLate:
			c.end()
			return
		case passes, isLost:
		}
		c.mu.Lock()
		c.sent++
		if becomes == isLost {
			c.lost = c.sent
		}
		c.subscribed = c.subscribed || name == "SUBSCRIBE" || name == "PSUBSCRIBE"
		c.mu.Unlock()
		if _, err := c.server.Write(command); err != nil {
			c.end()
			return
		}
		if becomes == isLost {
			return // nothing after it gets there
		}
	}
}

func (c *conn) awaitAnswers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.answered < c.sent && !c.subscribed && !c.ended() {
		c.changed.Wait()
	}
}

// down takes what the server sends. Many answers are late at the same time.
func (c *conn) down() {
	defer close(c.late)
	in := bufio.NewReader(c.server)
	for {
		text, err := Message(in)
		if err != nil {
			return
		}
		c.wait()
		c.line.mu.Lock()
		at := time.Now().Add(c.line.delay)
		c.line.mu.Unlock()
		select {
		case c.late <- late{at, text}:
		case <-c.done:
			return
		}
	}
}

// answer carries answers.
func (c *conn) answer() {
	defer c.end()
	for l := range c.late {
		select {
		case <-time.After(time.Until(l.at)):
		case <-c.done:
			return
		}
		c.mu.Lock()
		lost := c.lost > 0 && c.answered+1 >= c.lost
		c.mu.Unlock()
		if lost {
			c.line.sever(c)
			return
		}
		if _, err := c.client.Write(l.text); err != nil {
			return
		}
		c.mu.Lock()
		c.answered++
		c.changed.Broadcast()
		c.mu.Unlock()
	}
}
