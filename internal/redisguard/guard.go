// Package redisguard keeps requests from waiting for a Redis that doesn't answer,
// or that answers too slowly for all of them.
//
//	guard := redisguard.Of(client)
//	ctx, cancel := redisguard.Lookup(ctx, timeout) // what a request needs to be decided
//	defer cancel()
//	err := client.Get(ctx, key).Err()              // may be one that redisguard.Refused
//
// For each server it has a breaker and a bulkhead. The breaker opens when nothing
// but silence comes from a server (timeouts, refused connections, LOADING), and then
// refuses at once; it asks the server itself, all the time, whether it answers again.
// The bulkhead lets as many wait as will be answered in time, as fast as the server
// answers now, and refuses the next one at once.
//
// Only what is marked, by [Lookup], [Watch], [Touch], [Guess] or [Repeatable], is ever refused.
// All else is an order, a revocation for one, and always tries: it waits for its turn as
// long as its context lasts. Orders are no evidence that a server is gone, since some
// take long by themselves, but that it is there.
//
// The connections to a server are shared, so that nobody can take all of them: each
// kind of commands has turns of its own, one at least, and as many as its share of the
// connections (see [Guard]). A command takes its turn before it takes a connection,
// and needs no other turn while it has one: what opens a connection, or asks a
// Cluster for its servers, takes none. So those who wait for each other are never a
// circle, and with fewer than six connections, where there are more turns than these,
// they also wait at the connections. (A WATCH would hold a connection from one command
// to the next without a turn. Nobody does that by a client that is guarded.)
//
// What takes long holds its turn for so long. The only such command is WAIT, by which a
// revocation is confirmed (confirm_replicas): up to redis.timeout, while replicas are
// behind or gone. So it goes by [Long], and has the turns of the touches, which can be
// left out, and are while it has all of them: it holds up neither orders, nor lookups or
// guesses. Then there are turns / redis.timeout such revocations a second at most; turns
// are given in the sequence in which they were asked for, and who had none in time is
// told so by [ErrNoTurn], and can do without the WAIT. The steps of a sweep (SCAN) take
// some milliseconds and a turn each, and stand in line again for the next.
//
// Time for which this process itself stood still is not time that a server was waited for
// (see pulse.go): whoever is late for that reason is told of overload, and no server is
// taken for silent. What it has answered meanwhile is read all the same (see patient.go).
//
// It works by hooks in the client, so that in a Cluster each master is judged by what
// it did itself, redirections and retries included.
//
// sony/gobreaker was read, and doesn't fit: it has requests find out whether a server is
// back, takes no notice of other answers, and can't know whether a server answered
// somebody else meanwhile; it makes garbage for each call, and is no bulkhead.
package redisguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"weak"

	"github.com/redis/go-redis/v9"
)

// ErrOverloaded is the refusal of what would wait in vain behind others, or behind too
// many. It is no outage: the server answers, be it slowly, or looks slow to a process
// that has too much to do. Whatever an outage may open stays closed.
var ErrOverloaded = errors.New("too many requests wait for the store")

// errFull is the refusal of what would be one too many, however fast the server is.
var errFull = fmt.Errorf("%w: no more may wait", ErrOverloaded)

// errRefused is in all refusals but ErrOverloaded: the server is silent.
var errRefused = errors.New("not asked")

// Refused reports whether an error is a refusal of a guard: the server was not
// asked.
func Refused(err error) bool { return errors.Is(err, errRefused) || errors.Is(err, ErrOverloaded) }

// ErrNoTurn is in the error of an order that had no turn while it had time: it was not
// sent.
var ErrNoTurn = errors.New("it was not its turn at the store in time")

// purpose is for what a command is sent.
type purpose int

const (
	order purpose = iota // what is not marked
	lookup
	touch
	guess
	repeatable
	watch  // as lookup, told apart in [Call]
	inside // what a guarded command needs to be sent: it opens a connection
)

// guarded reports whether what is sent for it may be refused.
func (p purpose) guarded() bool { return p != order && p != inside }

// The shares of a server's connections.
const (
	lookupShare = iota
	touchShare
	guessShare
	repeatableShare
	orderShare
	shares
)

func shareOf(p purpose) int {
	switch p {
	case touch:
		return touchShare
	case guess:
		return guessShare
	case repeatable:
		return repeatableShare
	case order:
		return orderShare
	case lookup, watch, inside:
	}
	return lookupShare
}

type markKey struct{}

// mark goes with the context of a command.
type mark struct {
	purpose  purpose
	deadline time.Time // the one that we set
	timeout  time.Duration
	stood    time.Duration // see pulse, when it was set
}

// Lookup is the context of what must be known for a request to be decided, for so
// long at most.
func Lookup(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return marked(ctx, lookup, timeout)
}

// Watch is the context of what asks whether a server is there, as lookups would find it,
// and decides nothing: it is treated as they are, and told apart in [Call].
func Watch(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return marked(ctx, watch, timeout)
}

// Touch is the context of what the use of a credential leaves behind, and can do
// without: it has a small share of the connections, so that it never takes those
// that decide.
func Touch(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return marked(ctx, touch, timeout)
}

// Guess is the context of what anybody can have sent who has no credential at all, as
// often as they like: it counts a try at a password. It has a share of the connections
// as small as a touch's, and none of anybody else's.
func Guess(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return marked(ctx, guess, timeout)
}

// Repeatable is the context of what its caller can ask again, and what has changed
// nothing so far: it reads a list or a refresh family, or is the first step of a login.
// Who was logged out long ago can have it sent, as often as they like. It has a share of
// the connections as small as a guess's, for which it waits as long as it has time, and
// what takes something away doesn't wait behind it. Some of it takes long by itself, so
// that it was not answered is no evidence that a server is gone.
func Repeatable(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return marked(ctx, repeatable, timeout)
}

func marked(ctx context.Context, p purpose, timeout time.Duration) (context.Context, context.CancelFunc) {
	ours.want()
	deadline := time.Now().Add(timeout)
	return context.WithDeadline(context.WithValue(ctx, markKey{}, mark{p, deadline, timeout, ours.stood()}), deadline)
}

// Guard watches the servers of one client. Safe for concurrent use.
//
// Of the connections to a server a quarter is for touches and what takes [Long], an
// eighth each for guesses, for what is repeatable and for orders, and what is left for
// lookups; at least one for each, and two for lookups.
type Guard struct {
	poolSize int
	front    [shares]bulkhead // before the servers of a Cluster, which may not be known yet: no turns
	notify   atomic.Pointer[func(Change)]
	recorder atomic.Pointer[func(Call)]

	opened, broken, slow, full, skipped atomic.Int64

	mu      sync.Mutex
	servers map[string]*server // by address
}

// Change is that a server ceased to answer, or answers again.
type Change struct {
	Server  string // host:port, or the path of a socket
	Answers bool
	Err     error         // what it did last, instead of answering
	After   time.Duration // without an answer
}

// Stats are figures of a guard since it was made.
type Stats struct {
	Silent  int   // servers that requests are not sent to now, since they don't answer
	Waiting int   // lookups that wait for an answer, or for their turn to ask
	Opened  int64 // times that a server ceased to answer
	// Lookups, guesses and what is repeatable that were refused: by the breaker, since the
	// server answers too slowly for all that wait, and since too many wait.
	Broken, Slow, Full int64
	Skipped            int64 // touches that were left out for any of these reasons
}

var (
	registry sync.Mutex
	guards   = map[any]*Guard{} // by weak pointer to the client
)

// Of returns the guard of a client of one server, alone or behind Sentinel, or of a
// Cluster: the same one each time. Others are not guarded, so theirs does nothing.
func Of(client redis.UniversalClient) *Guard {
	if c, ok := client.(interface{ Inner() *redis.Client }); ok { // more than go-redis' own
		client = c.Inner()
	}
	registry.Lock()
	defer registry.Unlock()
	switch c := client.(type) {
	case *redis.Client:
		return known(c, c.Options().PoolSize, func(g *Guard) {
			g.watch(c)
		})
	case *redis.ClusterClient:
		return known(c, c.Options().PoolSize, func(g *Guard) {
			c.AddHook(frontHook{g})
			c.OnNewNode(g.watch)
		})
	}
	return newGuard(defaultPoolSize)
}

// watch adds the hook to the client of one server.
func (g *Guard) watch(client *redis.Client) {
	s := g.server(client)
	h := hook{s: s, orders: &s.shares[orderShare]}
	key := weak.Make(client)
	hooks.Store(key, h)
	runtime.AddCleanup(client, func(key weak.Pointer[redis.Client]) {
		hooks.Delete(key)
		g.leave(h.s)
	}, key)
	client.AddHook(h)
}

var hooks sync.Map // of clients of one server: weak pointer to the client → hook

// Long returns a client that has the connections of another one, with this timeout of
// reads and writes, for what takes long by itself. Its commands wait for their turn for
// so long at most, then fail with [ErrNoTurn]. ([redis.Client.WithTimeout] forgets the
// hooks, so that nothing would know of them.) What it sends must not be marked.
func Long(client interface {
	WithTimeout(timeout time.Duration) *redis.Client
}, turn, timeout time.Duration,
) *redis.Client {
	long := client.WithTimeout(timeout)
	if c, ok := client.(interface{ Inner() *redis.Client }); ok {
		client = c.Inner()
	}
	if c, ok := client.(*redis.Client); ok {
		if h, ok := hooks.Load(weak.Make(c)); ok {
			h := h.(hook)
			h.orders, h.turn = &h.s.shares[touchShare], turn
			long.AddHook(h)
		}
	}
	return long
}

var defaultPoolSize = 10 * runtime.GOMAXPROCS(0)

// known is the guard of a client, which install puts there the first time. The guard
// doesn't hold the client.
func known[T any](client *T, poolSize int, install func(*Guard)) *Guard {
	key := weak.Make(client)
	g, ok := guards[key]
	if !ok {
		g = newGuard(poolSize)
		guards[key] = g
		install(g)
		runtime.AddCleanup(client, func(key weak.Pointer[T]) {
			registry.Lock()
			defer registry.Unlock()
			delete(guards, key)
		}, key)
	}
	return g
}

func newGuard(poolSize int) *Guard {
	g := &Guard{poolSize: max(poolSize, 1), servers: map[string]*server{}}
	for i := range g.front {
		g.front[i].most = g.most()
	}
	return g
}

// server is what is known of a client's server, be it that another client was its
// before.
func (g *Guard) server(client *redis.Client) *server {
	name := client.Options().Addr
	g.mu.Lock()
	defer g.mu.Unlock()
	s, ok := g.servers[name]
	if !ok {
		s = newServer(g, name)
		g.servers[name] = s
	}
	now := weak.Make(client)
	s.client.Store(&now)
	s.clients++
	return s
}

// leave forgets a server of which no client is left: a Cluster's servers come and go.
func (g *Guard) leave(s *server) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.clients--; s.clients == 0 {
		delete(g.servers, s.name)
	}
}

// Most is how many lookups, and how many of each other kind that may be refused, may wait
// for one server at once, however fast it is.
func (g *Guard) Most() int { return int(g.most()) }

func (g *Guard) most() int32 { return mostWaiting * int32(min(g.turns()[lookupShare], 1<<20)) } //nolint:gosec // G115: as bounded

// turns are those of each share, as [Guard] says. A revocation that had to wait for a
// connection until lookups have been answered would be too late when the server is slow.
func (g *Guard) turns() (turns [shares]int) {
	quarter, eighth := max(g.poolSize/4, 1), max(g.poolSize/8, 1)
	return [shares]int{
		lookupShare:     max(g.poolSize-quarter-3*eighth, min(g.poolSize, 2)),
		touchShare:      quarter,
		guessShare:      eighth,
		repeatableShare: eighth,
		orderShare:      eighth,
	}
}

// Notify has a function told of changes, in place of the one that was told before.
// It is called by those who ask, and must not block.
func (g *Guard) Notify(told func(Change)) { g.notify.Store(&told) }

func (g *Guard) tell(c Change) {
	if told := g.notify.Load(); told != nil && *told != nil {
		(*told)(c)
	}
}

// Record has a function told of every command that was for a server, in place of the
// one that was told before. It must not block.
func (g *Guard) Record(told func(Call)) { g.recorder.Store(&told) }

// Stats returns the figures.
func (g *Guard) Stats() Stats {
	s := Stats{
		Opened: g.opened.Load(), Broken: g.broken.Load(), Slow: g.slow.Load(), Full: g.full.Load(), Skipped: g.skipped.Load(),
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.servers {
		if one.open.Load() {
			s.Silent++
		}
		s.Waiting += int(one.shares[lookupShare].within.Load())
	}
	return s
}

func (g *Guard) count(p purpose, err error) {
	switch {
	case p == touch:
		g.skipped.Add(1)
	case errors.Is(err, context.Canceled): // by who asked: it says nothing about the server, nor about how many wait
	case errors.Is(err, errBroken):
		g.broken.Add(1)
	case errors.Is(err, errFull):
		g.full.Add(1)
	default:
		g.slow.Add(1)
	}
}

// hook stands before one server.
type hook struct {
	s      *server
	orders *bulkhead     // whose turns orders take
	turn   time.Duration // how long they wait for one; zero: as long as they have time
}

// pass sends a command, or a pipeline that begins with it, when it is its turn. sent is
// false where that was never tried.
func (h hook) pass(ctx context.Context, cmd redis.Cmder, send func(context.Context) error) (sent bool, err error) {
	m, _ := ctx.Value(markKey{}).(mark)
	switch {
	case m.purpose.guarded():
		return h.s.ask(ctx, m, send)
	case m.purpose == inside || keeps(cmd.Name()):
		return true, send(ctx)
	}
	leave, err := h.s.await(ctx, h.orders, h.turn)
	if err != nil {
		return false, err
	}
	defer leave()
	err = send(inner(ctx))
	if kindOf(err) == answer && needsKeys(cmd.Name()) {
		h.s.answers(h.s.now())
	}
	return true, err
}

// DialHook has a connection that can't be made fail when it is used. For the client
// would count failures to connect, and after some of them look only once a second
// whether the server is back. See patient for the others.
func (h hook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := next(ctx, network, addr)
		if err != nil {
			return failed{fmt.Errorf("connect: %w", err)}, nil // go-redis takes one layer off
		}
		return patiently(c), nil
	}
}

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		began := time.Now()
		sent, err := h.pass(ctx, cmd, func(ctx context.Context) error { return next(ctx, cmd) })
		h.s.g.record(ctx, cmd.Name(), sent, began, err)
		if !sent || Refused(err) {
			cmd.SetErr(err)
		}
		return err
	}
}

func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if len(cmds) == 0 {
			return next(ctx, cmds)
		}
		began := time.Now()
		sent, err := h.pass(ctx, cmds[0], func(ctx context.Context) error { return next(ctx, cmds) })
		name := "pipeline"
		if cmds[0].Name() == "multi" {
			name = "transaction"
		}
		h.s.g.record(ctx, name, sent, began, err)
		if !sent || Refused(err) {
			setErrors(cmds, err)
		}
		return err
	}
}

func setErrors(cmds []redis.Cmder, err error) {
	for _, cmd := range cmds {
		cmd.SetErr(err)
	}
}

// frontHook stands before all servers of a Cluster. While it isn't known which of
// them there are, all wait here.
type frontHook struct{ g *Guard }

func (frontHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h frontHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		leave, err := h.enter(ctx)
		if err != nil {
			cmd.SetErr(err)
			return err
		}
		defer leave()
		return next(ctx, cmd)
	}
}

func (h frontHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		leave, err := h.enter(ctx)
		if err != nil {
			setErrors(cmds, err)
			return err
		}
		defer leave()
		return next(ctx, cmds)
	}
}

func (h frontHook) enter(ctx context.Context) (leave func(), err error) {
	m, _ := ctx.Value(markKey{}).(mark)
	if !m.purpose.guarded() {
		return func() {}, nil
	}
	b := &h.g.front[shareOf(m.purpose)]
	if err := b.enter(ctx); err != nil {
		h.g.count(m.purpose, err)
		return nil, err
	}
	return b.leave, nil
}

// failed is a connection that could not be made.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error)  { return 0, f.err }
func (f failed) Write([]byte) (int, error) { return 0, f.err }

// SyscallConn has the client throw it away before it is used, where it lies among those
// that are not in use: its caller had gone before it failed.
func (f failed) SyscallConn() (syscall.RawConn, error) { return nil, f.err }

func (failed) Close() error                     { return nil }
func (failed) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (failed) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (failed) SetDeadline(time.Time) error      { return nil }
func (failed) SetReadDeadline(time.Time) error  { return nil }
func (failed) SetWriteDeadline(time.Time) error { return nil }

// inner marks what a guarded command does to be sent, so that it isn't guarded
// again: it would wait for itself.
func inner(ctx context.Context) context.Context {
	return context.WithValue(ctx, markKey{}, mark{purpose: inside})
}

func crowded(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrOverloaded, fmt.Errorf(format, args...))
}
