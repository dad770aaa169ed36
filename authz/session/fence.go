package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// A master that was replaced may not know it: it was frozen, or is cut off from
// the Sentinels, and answers whoever still reaches it with what was true then. A
// revocation made at its successor is not there. So nothing is sent to a master
// but on the word of more than half of the Sentinels that it is the one, which is
// not older than wordBound.
//
// Two such majorities have a Sentinel in common, and one that has named the
// successor does not name the old one again. So when a Gatehouse acknowledges
// something that it wrote to the successor, no other one gets another word for
// the old master from then on, and the last one that it got runs out.

const (
	// wordBound is how long a word of the Sentinels counts, from when they were
	// asked.
	wordBound = 2 * time.Second
	// wordFresh is when they are asked anew, beside the call that needs it.
	wordFresh = 500 * time.Millisecond
)

// fence has the connections to the master, and knows what the Sentinels say of it.
type fence struct {
	master    string   // its name
	addresses []string // of the Sentinels
	options   redis.Options
	tls       *tls.Config

	word atomic.Pointer[word]

	mu        sync.Mutex
	sentinels map[string]*sentinel
	others    map[string]bool // Sentinels that we were not told of, but the client may be
	conns     map[*fencedConn]bool
	asking    *asking // nil: nobody does
}

// word is what more than half of the Sentinels say.
type word struct {
	address string // of the master
	at      time.Time
}

// sentinel is a connection to one. It answers one question at a time.
type sentinel struct {
	client *redis.SentinelClient
	busy   bool
}

// asking is a question to all Sentinels that callers wait for.
type asking struct {
	done chan struct{}
	err  error // before done is closed; nil: there is a new word
}

// newFence returns the fence for a client with these options, which must be those
// for Sentinel.
func newFence(o *redis.UniversalOptions) *fence {
	addresses := slices.Clone(o.Addrs)
	slices.Sort(addresses)
	return &fence{
		master: o.MasterName, addresses: slices.Compact(addresses), tls: o.TLSConfig, // one has one vote
		options: redis.Options{
			Username: o.SentinelUsername, Password: o.SentinelPassword, TLSConfig: o.TLSConfig,
			ClientName: o.ClientName, Protocol: o.Protocol, DisableIdentity: o.DisableIdentity, MaintNotificationsConfig: o.MaintNotificationsConfig,
			ContextTimeoutEnabled: true, PoolSize: 1, MaxRetries: -1,
			DialTimeout: o.DialTimeout, DialerRetries: 1, ReadTimeout: o.DialTimeout, WriteTimeout: o.DialTimeout,
		},
		sentinels: map[string]*sentinel{}, others: map[string]bool{}, conns: map[*fencedConn]bool{},
	}
}

// dial connects to the master. It is the client's way to the Sentinels, too, where
// it needs no word.
func (f *fence) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !slices.Contains(f.addresses, address) {
		if err := f.admit(ctx, address); err != nil {
			return nil, err
		}
	}
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3}}
	var conn net.Conn
	var err error
	if f.tls != nil {
		conn, err = (&tls.Dialer{NetDialer: &dialer, Config: f.tls}).DialContext(ctx, network, address)
	} else {
		conn, err = dialer.DialContext(ctx, network, address)
	}
	if err != nil || slices.Contains(f.addresses, address) {
		return conn, err
	}
	c := &fencedConn{Conn: conn, f: f, address: address}
	f.mu.Lock()
	f.conns[c] = true
	f.mu.Unlock()
	if _, ok := conn.(syscall.Conn); ok {
		return fencedSocket{c}, nil
	}
	return c, nil
}

// vouched reports whether there is a word for an address that counts.
func (f *fence) vouched(address string) bool {
	w := f.word.Load()
	if w == nil || w.address != address {
		return false
	}
	age := time.Since(w.at)
	if age >= wordFresh && age < wordBound {
		f.ask()
	}
	return age < wordBound
}

// admit returns nil where something may be sent to an address.
func (f *fence) admit(ctx context.Context, address string) error {
	if f.vouched(address) || f.isSentinel(address) { //nolint:contextcheck // see ask
		return nil
	}
	a := f.ask() //nolint:contextcheck // see there
	select {
	case <-a.done:
	case <-ctx.Done():
		return fmt.Errorf("ask the Sentinels whether %s is the master: %w", address, ctx.Err())
	}
	if f.vouched(address) { //nolint:contextcheck // see ask
		return nil
	}
	if f.learnSentinels(ctx); f.isSentinel(address) {
		return nil
	}
	if a.err != nil {
		return fmt.Errorf("is %s still the master? %w", address, a.err)
	}
	// For the client that is a connection which has ended: it tries again on another.
	return fmt.Errorf("the Sentinels name another master than %s: %w", address, io.EOF)
}

// ask has all Sentinels asked, unless that is under way. The question outlives the
// call that needed it first: others wait for the answer, too.
func (f *fence) ask() *asking {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asking == nil {
		f.asking = &asking{done: make(chan struct{})}
		go f.askAll(f.asking)
	}
	return f.asking
}

// askAll asks all Sentinels and waits for more than half of them. Those that are
// slower, or busy with an earlier question, have no say.
func (f *fence) askAll(a *asking) {
	at := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), f.options.DialTimeout)
	answers := make(chan string, len(f.addresses))
	var all sync.WaitGroup
	for _, address := range f.addresses {
		all.Go(func() { answers <- f.askOne(ctx, address) })
	}
	go func() {
		all.Wait()
		cancel()
	}()
	votes, needed := map[string]int{}, len(f.addresses)/2+1
	a.err = fmt.Errorf("fewer than %d of the %d Sentinels in the URL answer the same", needed, len(f.addresses))
	for range f.addresses {
		address := <-answers
		if address == "" {
			continue
		}
		if votes[address]++; votes[address] == needed {
			a.err = nil
			f.learn(&word{address, at})
			break
		}
	}
	f.mu.Lock()
	f.asking = nil
	f.mu.Unlock()
	close(a.done)
}

// learn takes a word for true, and closes the connections to other masters.
func (f *fence) learn(w *word) {
	before := f.word.Swap(w)
	if before != nil && before.address == w.address {
		return
	}
	for _, c := range f.connections() {
		if c.address != w.address && !f.isSentinel(c.address) {
			_ = c.Close()
		}
	}
}

func (f *fence) connections() (conns []*fencedConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		conns = append(conns, c)
	}
	return conns
}

// askOne asks one Sentinel; "" for no answer.
func (f *fence) askOne(ctx context.Context, address string) string {
	s := f.take(address)
	if s == nil {
		return ""
	}
	host, err := s.client.GetMasterAddrByName(ctx, f.master).Result()
	f.giveBack(address, s, err)
	if err != nil || len(host) != 2 {
		return ""
	}
	return net.JoinHostPort(host[0], host[1])
}

// take returns the connection to a Sentinel, nil where it is in use.
func (f *fence) take(address string) *sentinel {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sentinels[address]
	if s == nil {
		o := f.options
		o.Addr = address
		s = &sentinel{client: redis.NewSentinelClient(&o)}
		f.sentinels[address] = s
	}
	if s.busy {
		return nil
	}
	s.busy = true
	return s
}

// giveBack ends the use of a connection. One that failed is made anew next time.
func (f *fence) giveBack(address string, s *sentinel, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.busy = false
	if err != nil || len(f.conns) == 0 {
		delete(f.sentinels, address)
		_ = s.client.Close()
	}
}

// learnSentinels asks a Sentinel for the others: the client goes to those that
// were found so, too.
func (f *fence) learnSentinels(ctx context.Context) {
	for _, address := range f.addresses {
		s := f.take(address)
		if s == nil {
			continue
		}
		others, err := s.client.Sentinels(ctx, f.master).Result()
		f.giveBack(address, s, err)
		if err != nil {
			continue
		}
		f.mu.Lock()
		for _, o := range others {
			f.others[net.JoinHostPort(o["ip"], o["port"])] = true
		}
		f.mu.Unlock()
		return
	}
}

func (f *fence) isSentinel(address string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.others[address]
}

// forget ends the book-keeping of a connection. With the last one, which the
// client's end closes, those to the Sentinels go.
func (f *fence) forget(c *fencedConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	if len(f.conns) > 0 {
		return
	}
	for address, s := range f.sentinels {
		if !s.busy { // else giveBack does it
			delete(f.sentinels, address)
			_ = s.client.Close()
		}
	}
}

// fencedConn is a connection that sends nothing without a word of the Sentinels.
type fencedConn struct {
	net.Conn
	f        *fence
	address  string
	deadline atomic.Pointer[time.Time] // of writes
}

// Write implements [net.Conn].
func (c *fencedConn) Write(b []byte) (int, error) {
	if !c.f.vouched(c.address) {
		if err := c.askLeave(); err != nil {
			return 0, errors.Join(err, c.Close())
		}
	}
	return c.Conn.Write(b)
}

func (c *fencedConn) askLeave() error {
	ctx := context.Background()
	if deadline := c.deadline.Load(); deadline != nil && !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, *deadline)
		defer cancel()
	}
	return c.f.admit(ctx, c.address)
}

// SetWriteDeadline implements [net.Conn].
func (c *fencedConn) SetWriteDeadline(t time.Time) error {
	c.deadline.Store(&t)
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline implements [net.Conn].
func (c *fencedConn) SetDeadline(t time.Time) error {
	c.deadline.Store(&t)
	return c.Conn.SetDeadline(t)
}

// Close implements [net.Conn].
func (c *fencedConn) Close() error {
	c.f.forget(c)
	return c.Conn.Close()
}

// fencedSocket is one that can be looked into.
type fencedSocket struct{ *fencedConn }

// SyscallConn implements [syscall.Conn].
func (c fencedSocket) SyscallConn() (syscall.RawConn, error) {
	return c.Conn.(syscall.Conn).SyscallConn() //nolint:forcetypeassert // dial has looked
}
