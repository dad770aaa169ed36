package chaos

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// What a connection of Gatehouse to Redis is for. See package tracking.
const (
	subscriber = "subscriber" // gets the announcements
	tracker    = "tracker"    // for which Redis tracks; the tracking package's writer
	prober     = "prober"     // sees whether it is the same server still
	data       = "data"       // asks and writes
)

var roles = []string{subscriber, tracker, prober, data}

// lines is a network between Gatehouse and a Redis whose connections can be broken
// by what they are for, though all go to one address: Gatehouse connects to a relay,
// which sees in the first commands what the connection is for, and takes it through
// toxiproxy's proxy of that name.
type lines struct {
	*toxiproxy
	address string // for Gatehouse

	server   string
	listener net.Listener
	group    sync.WaitGroup
	resets   atomic.Bool // what ends on the other side ends here by a reset
	arrival  atomic.Pointer[arrival]

	mu      sync.Mutex
	proxies map[string]*proxy // by role
	made    int               // proxies, ever
	ended   bool
	open    map[net.Conn]string // Gatehouse's, with their roles; "" as long as that is open
	counts  map[string]int      // of connections by role, ever
}

// proxy is toxiproxy's for one role.
type proxy struct {
	name, address string
	toxics        []string
	down          bool
}

func (n *lines) proxy(role string) *proxy {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proxies[role]
}

// renew makes another proxy for a role, and ends the connections through the one
// before.
func (n *lines) renew(ctx context.Context, role string) error {
	n.mu.Lock()
	n.made++
	p := &proxy{name: fmt.Sprint(role, n.made)}
	n.mu.Unlock()
	var err error
	if p.address, err = n.listen(ctx, p.name, n.server); err != nil {
		return err
	}
	n.mu.Lock()
	n.proxies[role] = p
	n.mu.Unlock()
	n.kill(role)
	return nil
}

// poison adds a toxic to the lines of a role.
func (n *lines) poison(ctx context.Context, role string, x toxic) error {
	return n.change(ctx, role, func(p *proxy) error {
		x.Name = fmt.Sprint("toxic", len(p.toxics))
		p.toxics = append(p.toxics, x.Name)
		return n.add(ctx, p.name, x)
	})
}

// cut closes the lines of a role. Nobody listens there any more.
func (n *lines) cut(ctx context.Context, role string) error {
	return n.change(ctx, role, func(p *proxy) error {
		p.down = true
		return n.enable(ctx, p.name, false)
	})
}

// heal undoes what was done to all lines.
func (n *lines) heal(ctx context.Context) error {
	for _, role := range roles {
		err := n.change(ctx, role, func(p *proxy) error {
			for len(p.toxics) > 0 {
				last := p.toxics[len(p.toxics)-1]
				p.toxics = p.toxics[:len(p.toxics)-1]
				if err := n.remove(ctx, p.name, last); err != nil {
					return err
				}
			}
			if !p.down {
				return nil
			}
			p.down = false
			return n.enable(ctx, p.name, true)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// change changes a proxy. Toxiproxy 2.5 sometimes hangs over a connection that
// closes at that moment: then the role gets another proxy, and that is changed.
func (n *lines) change(ctx context.Context, role string, do func(*proxy) error) error {
	err := do(n.proxy(role))
	if errors.Is(err, context.DeadlineExceeded) {
		if err = n.renew(ctx, role); err == nil {
			err = do(n.proxy(role))
		}
	}
	return err
}

// arrival stops the next connection of a role before it gets anywhere.
type arrival struct {
	role string
	here chan struct{} // closed when it has come
	on   chan struct{} // to be closed when it may go on
	once sync.Once
}

func newLines(t *testing.T, server string) *lines {
	t.Helper()
	n := &lines{
		toxiproxy: startToxiproxy(t), server: server, proxies: map[string]*proxy{},
		open: map[net.Conn]string{}, counts: map[string]int{},
	}
	for _, role := range roles {
		require.NoError(t, n.renew(t.Context(), role))
	}
	var err error
	n.listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n.address = n.listener.Addr().String()
	n.group.Go(func() {
		for {
			c, err := n.listener.Accept()
			if err != nil {
				return
			}
			if n.enter(c, "") {
				n.group.Go(func() { n.carry(context.WithoutCancel(t.Context()), c) })
			}
		}
	})
	t.Cleanup(func() {
		_ = n.listener.Close()
		n.mu.Lock()
		n.ended = true
		n.mu.Unlock()
		n.kill(append([]string{""}, roles...)...)
		_ = n.Stop()
		n.group.Wait()
	})
	return n
}

// enter notes what a connection is for. false: all has ended.
func (n *lines) enter(c net.Conn, role string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		_ = c.Close()
		return false
	}
	n.open[c] = role
	n.counts[role]++
	return true
}

// kill resets the open connections of some roles.
func (n *lines) kill(victims ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c, role := range n.open {
		if slices.Contains(victims, role) {
			reset(c)
		}
	}
}

// reset ends a connection as a network does that has had enough of it.
func reset(c net.Conn) {
	if c, ok := c.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = c.Close()
}

// hold stops the next connection of a role when it comes.
func (n *lines) hold(role string) *arrival {
	a := &arrival{role: role, here: make(chan struct{}), on: make(chan struct{})}
	n.arrival.Store(a)
	return a
}

// release lets the connection go on, and those after it.
func (n *lines) release(a *arrival) {
	n.arrival.CompareAndSwap(a, nil)
	a.once.Do(func() { close(a.on) })
}

// carry carries a connection of Gatehouse's as long as it lives.
func (n *lines) carry(ctx context.Context, c net.Conn) {
	defer func() {
		n.mu.Lock()
		delete(n.open, c)
		n.mu.Unlock()
		_ = c.Close()
	}()
	client := bufio.NewReader(c)
	role, first, greetings, err := n.greet(ctx, c, client)
	if err != nil || !n.enter(c, role) {
		return
	}
	if a := n.arrival.Load(); a != nil && a.role == role && n.arrival.CompareAndSwap(a, nil) {
		close(a.here)
		<-a.on
	}
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", n.proxy(role).address)
	if err != nil {
		reset(c)
		return
	}
	defer func() { _ = server.Close() }()
	n.group.Go(func() {
		if _, err := server.Write(append(greetings.text, first...)); err == nil {
			_, _ = io.Copy(server, client)
		}
		// What comes the other way is still read: a toxiproxy that can't get rid of
		// something hangs when its toxics change.
		if s, ok := server.(*net.TCPConn); ok {
			_ = s.CloseWrite()
		}
	})
	answers := bufio.NewReader(server)
	for range greetings.n { // answered already
		if err == nil {
			_, err = message(answers)
		}
	}
	if err == nil {
		_, err = io.Copy(c, answers)
	}
	if n.resets.Load() || errors.Is(err, syscall.ECONNRESET) {
		reset(c)
	}
	_, _ = io.Copy(io.Discard, answers)
}

// greetings are the commands that every connection begins with.
type greetings struct {
	text []byte
	n    int
}

// greet answers what tells nothing of what a connection is for, in Redis's own
// words, until something does: first.
func (n *lines) greet(ctx context.Context, c net.Conn, client *bufio.Reader) (role string, first []byte, g greetings, err error) {
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", n.server)
	if err != nil {
		return "", nil, g, err
	}
	defer func() { _ = server.Close() }()
	answers := bufio.NewReader(server)
	for {
		if first, err = message(client); err != nil {
			return "", nil, g, err
		}
		if role = roleOf(first); role != "" {
			return role, first, g, nil
		}
		if _, err = server.Write(first); err != nil {
			return "", nil, g, err
		}
		reply, err := message(answers)
		if err != nil {
			return "", nil, g, err
		}
		if _, err = c.Write(reply); err != nil {
			return "", nil, g, err
		}
		g.text = append(g.text, first...)
		g.n++
	}
}

// roleOf is what the connection is for on which a command comes first that is no
// greeting; "" for a greeting. The prober alone has no name.
func roleOf(command []byte) string {
	words := strings.Fields(strings.ToLower(string(command)))
	has := func(word string) bool { return slices.Contains(words, word) }
	switch {
	case has("hello") && !has("setname"):
		return prober
	case has("hello") || has("setname"):
		return ""
	case has("client") && has("id"):
		return subscriber
	case has("info"):
		return tracker
	}
	return data
}

// message reads a message of Redis's protocol, a command or an answer.
func message(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(line[1:])))
	switch line[0] {
	case '$':
		if n >= 0 {
			body := make([]byte, n+2)
			if _, err := io.ReadFull(r, body); err != nil {
				return nil, err
			}
			line = append(line, body...)
		}
	case '*':
		for range n {
			part, err := message(r)
			if err != nil {
				return nil, err
			}
			line = append(line, part...)
		}
	}
	return line, nil
}

// The relay must tell the connections of a Gatehouse apart, and break the right
// ones.
func TestLinesKnowWhatTheyAreFor(t *testing.T) {
	begin(t, "redis-server", "toxiproxy-server")
	server := proctest.StartRedis(t)
	n := newLines(t, server.Addr)
	g := startGate(t, newSecrets(t), "redis://"+n.address, "redis: {cache: {heartbeat: 100ms}}")
	direct := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = direct.Close() })
	l := startLoad(t, g, loadOptions{rate: 200}, g.session(t, "alice"), g.session(t, "bob").strict())
	await(t, "one of the roles was not seen", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return !slices.ContainsFunc(roles, func(role string) bool { return n.counts[role] == 0 })
	})
	await(t, "the server doesn't know the subscriber", func() bool {
		list, err := direct.ClientList(t.Context()).Result()
		require.NoError(t, err)
		return strings.Count(list, " sub=1 ") == 1
	})
	for _, role := range []string{subscriber, tracker, prober} {
		g.coherent(t)
		before := g.figures(t)
		require.NoError(t, n.poison(t.Context(), role, toxic{Type: "timeout", Stream: downstream, Attributes: map[string]int64{"timeout": 0}}))
		await(t, "it is not felt by the "+role, func() bool { return g.figures(t).drops > before.drops })
		l.flows(t, 20) // the lines for data were left alone
		require.NoError(t, n.heal(t.Context()))
	}
	g.coherent(t)
	l.end()
	require.Empty(t, l.samples)
}

func TestRoleOf(t *testing.T) {
	command := func(words ...string) []byte {
		text := fmt.Sprintf("*%d\r\n", len(words))
		for _, w := range words {
			text += fmt.Sprintf("$%d\r\n%s\r\n", len(w), w)
		}
		return []byte(text)
	}
	for want, commands := range map[string][][]byte{
		"":         {command("hello", "2", "setname", "gatehouse"), command("client", "setname", "gatehouse")},
		prober:     {command("hello", "2")},
		subscriber: {command("client", "id")},
		tracker:    {command("info", "server")},
		data:       {command("get", "client"), command("multi"), command("evalsha", "x", "0")},
	} {
		for _, c := range commands {
			require.Equal(t, want, roleOf(c), "%q", c)
		}
	}
}
