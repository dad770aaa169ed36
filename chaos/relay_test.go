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

// relay is a network between Gatehouse and a Redis whose connections can be broken
// by what they are for, though all go to one address: Gatehouse connects to it, and
// it sees in the first commands what the connection is for, and takes it through
// toxiproxy's proxy of that name.
type relay struct {
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

func (r *relay) proxy(role string) *proxy {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proxies[role]
}

// renew makes another proxy for a role, and ends the connections through the one
// before.
func (r *relay) renew(ctx context.Context, role string) error {
	r.mu.Lock()
	r.made++
	p := &proxy{name: fmt.Sprint(role, r.made)}
	r.mu.Unlock()
	var err error
	if p.address, err = r.listen(ctx, p.name, r.server); err != nil {
		return err
	}
	r.mu.Lock()
	r.proxies[role] = p
	r.mu.Unlock()
	r.kill(role)
	return nil
}

// poison adds a toxic to the lines of a role.
func (r *relay) poison(ctx context.Context, role string, x toxic) error {
	return r.change(ctx, role, func(p *proxy) error {
		x.Name = fmt.Sprint("toxic", len(p.toxics))
		p.toxics = append(p.toxics, x.Name)
		return r.add(ctx, p.name, x)
	})
}

// cut closes the lines of a role. Nobody listens there any more.
func (r *relay) cut(ctx context.Context, role string) error {
	return r.change(ctx, role, func(p *proxy) error {
		p.down = true
		return r.enable(ctx, p.name, false)
	})
}

// heal undoes what was done to all lines.
func (r *relay) heal(ctx context.Context) error {
	for _, role := range roles {
		err := r.change(ctx, role, func(p *proxy) error {
			for len(p.toxics) > 0 {
				last := p.toxics[len(p.toxics)-1]
				p.toxics = p.toxics[:len(p.toxics)-1]
				if err := r.remove(ctx, p.name, last); err != nil {
					return err
				}
			}
			if !p.down {
				return nil
			}
			p.down = false
			return r.enable(ctx, p.name, true)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// change changes a proxy. Toxiproxy 2.5 sometimes hangs over a connection that
// closes at that moment: then the role gets another proxy, and that is changed.
func (r *relay) change(ctx context.Context, role string, do func(*proxy) error) error {
	err := do(r.proxy(role))
	if errors.Is(err, context.DeadlineExceeded) {
		if err = r.renew(ctx, role); err == nil {
			err = do(r.proxy(role))
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

func newRelay(t *testing.T, server string) *relay {
	t.Helper()
	r := &relay{
		toxiproxy: startToxiproxy(t), server: server, proxies: map[string]*proxy{},
		open: map[net.Conn]string{}, counts: map[string]int{},
	}
	for _, role := range roles {
		require.NoError(t, r.renew(t.Context(), role))
	}
	var err error
	r.listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.address = r.listener.Addr().String()
	r.group.Go(func() {
		for {
			c, err := r.listener.Accept()
			if err != nil {
				return
			}
			if r.enter(c, "") {
				r.group.Go(func() { r.carry(context.WithoutCancel(t.Context()), c) })
			}
		}
	})
	t.Cleanup(func() {
		_ = r.listener.Close()
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
		r.kill(append([]string{""}, roles...)...)
		_ = r.Stop()
		r.group.Wait()
	})
	return r
}

// enter notes what a connection is for. false: all has ended.
func (r *relay) enter(c net.Conn, role string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		_ = c.Close()
		return false
	}
	r.open[c] = role
	r.counts[role]++
	return true
}

// kill resets the open connections of some roles.
func (r *relay) kill(victims ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, role := range r.open {
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
func (r *relay) hold(role string) *arrival {
	a := &arrival{role: role, here: make(chan struct{}), on: make(chan struct{})}
	r.arrival.Store(a)
	return a
}

// release lets the connection go on, and those after it.
func (r *relay) release(a *arrival) {
	r.arrival.CompareAndSwap(a, nil)
	a.once.Do(func() { close(a.on) })
}

// carry carries a connection of Gatehouse's as long as it lives.
func (r *relay) carry(ctx context.Context, c net.Conn) {
	defer func() {
		r.mu.Lock()
		delete(r.open, c)
		r.mu.Unlock()
		_ = c.Close()
	}()
	client := bufio.NewReader(c)
	role, first, greetings, err := r.greet(ctx, c, client)
	if err != nil || !r.enter(c, role) {
		return
	}
	if a := r.arrival.Load(); a != nil && a.role == role && r.arrival.CompareAndSwap(a, nil) {
		close(a.here)
		<-a.on
	}
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.proxy(role).address)
	if err != nil {
		reset(c)
		return
	}
	defer func() { _ = server.Close() }()
	r.group.Go(func() {
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
	if r.resets.Load() || errors.Is(err, syscall.ECONNRESET) {
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
func (r *relay) greet(ctx context.Context, c net.Conn, client *bufio.Reader) (role string, first []byte, g greetings, err error) {
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.server)
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
func TestRelayKnowsWhatConnectionsAreFor(t *testing.T) {
	begin(t, "redis-server", "toxiproxy-server")
	server := proctest.StartRedis(t)
	r := newRelay(t, server.Addr)
	g := startGate(t, newSecrets(t), "redis://"+r.address, "redis: {cache: {heartbeat: 100ms}}")
	direct := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = direct.Close() })
	l := startLoad(t, g, loadOptions{rate: 200}, g.session(t, "alice"), g.session(t, "bob").strict())
	await(t, "one of the roles was not seen", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return !slices.ContainsFunc(roles, func(role string) bool { return r.counts[role] == 0 })
	})
	await(t, "the server doesn't know the subscriber", func() bool {
		list, err := direct.ClientList(t.Context()).Result()
		require.NoError(t, err)
		return strings.Count(list, " sub=1 ") == 1
	})
	for _, role := range []string{subscriber, tracker, prober} {
		g.coherent(t)
		before := g.figures(t)
		require.NoError(t, r.poison(t.Context(), role, toxic{Type: "timeout", Stream: downstream, Attributes: map[string]int64{"timeout": 0}}))
		await(t, "it is not felt by the "+role, func() bool { return g.figures(t).drops > before.drops })
		l.flows(t, 20) // the lines for data were left alone
		require.NoError(t, r.heal(t.Context()))
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
