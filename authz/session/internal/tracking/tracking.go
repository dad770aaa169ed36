// Package tracking has Redis tell which keys have changed (server-assisted
// client-side caching in broadcast mode), and knows at each moment whether it
// may be relied on to do so.
//
// To each server go two connections of their own:
//
//	subscriber  gets the announcements: SUBSCRIBE __redis__:invalidate
//	writer      CLIENT TRACKING ON REDIRECT <subscriber> BCAST NOLOOP PREFIX …;
//	            what is written through it is not announced to us
//
// That a server is silent may mean that nothing changes, or that it is frozen,
// cut off, replaced, or has ceased to track. So every heartbeat a new connection,
// made as the store makes its own, must lead to the same process (in a Cluster with
// the same slots), the server must say that it tracks for us, and a PING must come
// back by the way of the announcements. When it has,
// everything that was acknowledged before the beat was sent is known here, since
// an announcement is put in line no later than the acknowledgement of its change, and
// what is sent to one connection keeps its order. For a while after that moment (the lease) the
// announcements are relied on, and not longer. A connection that breaks ends it
// at once. With several servers the one that was heard of least counts for all.
//
// What was read while they were relied on belongs to an epoch, which ends when a
// connection breaks: of what is in a cache then, nobody knows what was missed.
package tracking

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/redis/go-redis/v9"
)

// Options configure a [Tracker]. All but Now are required.
type Options struct {
	// Prefixes of the keys whose changes are announced. None may begin like
	// another.
	Prefixes []string
	// Heartbeat is the time between two beats, Timeout that of a round trip.
	Heartbeat, Timeout time.Duration
	// Changed is told of each key in the order of the changes, ChangedAll that
	// all of them may have changed. Both come from one goroutine per server,
	// which reads nothing more meanwhile.
	Changed    func(key string)
	ChangedAll func()
	// OnState is told when the state changes: in the order of the changes, one at a time.
	OnState func(State)
}

// Lease is how long after a beat the announcements are relied on: the most that
// an answer from a cache can be behind the store.
func (o Options) Lease() time.Duration { return o.Heartbeat*2 + o.Heartbeat/2 }

// State says whether announcements come.
type State struct {
	Live bool
	// Refused: the server will not announce, and there is no use in trying
	// soon again.
	Refused bool
	Err     error // why not; nil when Live, and at the beginning
}

// Tracker follows the changes of a store. Safe for concurrent use.
type Tracker struct {
	client redis.UniversalClient
	o      Options
	start  time.Time

	epoch  atomic.Uint32
	lease  atomic.Int64 // until when, since start; 0: not at all
	proven atomic.Int64 // up to when everything is known, since start, in this epoch or the last

	redirects atomic.Int64
	taps      atomic.Pointer[[]*tap]

	telling sync.Mutex // held where the state may change, until OnState was told; before mu

	mu     sync.RWMutex
	links  []*link
	state  State
	hooked map[weak.Pointer[redis.Client]]bool // of a Cluster's servers; those that are gone drop out
}

// New returns a tracker for a client of one server, alone or behind Sentinel, or
// of a Cluster. It does nothing before Run.
func New(client redis.UniversalClient, o Options) *Tracker {
	t := &Tracker{client: client, o: o, start: time.Now(), hooked: map[weak.Pointer[redis.Client]]bool{}}
	if cluster, ok := client.(*redis.ClusterClient); ok {
		t.watchRedirects(cluster)
	}
	return t
}

func (t *Tracker) since() int64 { return int64(time.Since(t.start)) }

// Live reports whether announcements can be relied on right now, and the epoch.
// What a cache holds of another epoch counts for nothing.
func (t *Tracker) Live() (epoch uint32, ok bool) {
	// The lease first: one that runs is of this epoch or of one before, never
	// the other way round.
	ok = t.since() < t.lease.Load()
	return t.epoch.Load(), ok
}

// Lease is [Options.Lease].
func (t *Tracker) Lease() time.Duration { return t.o.Lease() }

// Proven returns how long ago everything was known that had changed until then,
// in the epoch that was live last.
func (t *Tracker) Proven() (epoch uint32, age time.Duration) {
	age = time.Duration(t.since() - t.proven.Load()) // first, as in Live
	return t.epoch.Load(), age
}

// State returns the state.
func (t *Tracker) State() State {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s := t.state
	if _, ok := t.Live(); s.Live && !ok {
		s = State{Err: errLapsed}
	}
	return s
}

// Writer returns the client whose writes are not announced to us, for a key, and
// nil while there is none. Whoever writes through it must read in the same
// transaction, behind the write, what is there then: where somebody else has
// written the key right before, the server takes us for the one who changed it,
// and tells us nothing of the other.
func (t *Tracker) Writer(ctx context.Context, key string) *redis.Client {
	t.mu.RLock()
	links := t.links
	t.mu.RUnlock()
	if _, ok := t.Live(); !ok {
		return nil
	}
	cluster, ok := t.client.(*redis.ClusterClient)
	if !ok {
		if len(links) == 1 {
			return links[0].writer
		}
		return nil
	}
	node, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return nil
	}
	for _, l := range links {
		if l.address == node.Options().Addr {
			return l.writer
		}
	}
	return nil
}

// Waits between attempts.
const (
	firstWait   = 50 * time.Millisecond
	longestWait = 2 * time.Second
	refusedWait = time.Minute
)

// Run follows the changes until ctx ends, and begins again whenever a
// connection breaks.
func (t *Tracker) Run(ctx context.Context) error {
	wait := firstWait
	for {
		// One channel for each attempt: what breaks later than another thing
		// is of no interest.
		broken := make(chan error, 16)
		links, err := t.connect(ctx, broken)
		if err == nil {
			wait = firstWait
			err = t.follow(ctx, links, broken)
		}
		t.end(links)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was to end
		}
		refused := refusal(err)
		t.setState(State{Refused: refused, Err: err})
		pause := wait
		if refused {
			pause = refusedWait
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		wait = min(2*wait, longestWait)
	}
}

func (t *Tracker) setState(s State) {
	t.telling.Lock()
	defer t.telling.Unlock()
	t.mu.Lock()
	before := t.state
	t.state = s
	t.mu.Unlock()
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if (before.Live != s.Live || text(before.Err) != text(s.Err)) && t.o.OnState != nil {
		t.o.OnState(s)
	}
}

// connect makes the connections to all servers.
func (t *Tracker) connect(ctx context.Context, broken chan error) (links []*link, err error) {
	servers, err := t.servers(ctx)
	if err != nil {
		return nil, err
	}
	if cluster, ok := t.client.(*redis.ClusterClient); ok {
		// Those that the client knew before us.
		if err := cluster.ForEachShard(ctx, func(_ context.Context, c *redis.Client) error { t.hook(c); return nil }); err != nil {
			return nil, err
		}
	}
	for _, s := range servers {
		l, err := newLink(ctx, s, t, broken)
		if err != nil {
			return links, fmt.Errorf("track changes: %w", err)
		}
		links = append(links, l)
	}
	return links, nil
}

// follow beats until something breaks.
func (t *Tracker) follow(ctx context.Context, links []*link, broken <-chan error) error {
	t.epoch.Add(1)
	taps := make([]*tap, len(links))
	for i, l := range links {
		taps[i] = l.tap
	}
	t.taps.Store(&taps)
	t.mu.Lock()
	t.links = links
	t.mu.Unlock()
	var readers sync.WaitGroup
	defer readers.Wait()
	defer t.end(links) // which ends the readers
	for _, l := range links {
		readers.Go(func() { l.lose(l.receive()) }) //nolint:contextcheck // it ends with the connection
	}
	ticker := time.NewTicker(t.o.Heartbeat)
	defer ticker.Stop()
	began := time.Now()
	for {
		if drift := time.Since(began) - time.Now().Round(0).Sub(began.Round(0)); drift.Abs() > longestDrift {
			return fmt.Errorf("the clock was set by %v: deadlines in the cache are no longer what they were", -drift)
		}
		t.noteLapse()
		for _, l := range links {
			go l.beat(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-broken:
			return err
		case <-ticker.C:
		}
		if err := t.sameServers(ctx, links); err != nil {
			return err
		}
	}
}

// longestDrift is how far the clock may be set before nothing in a cache counts
// any more, whose deadlines are by that clock.
const longestDrift = time.Second

// noteLapse tells that the lease has run out, once.
func (t *Tracker) noteLapse() {
	t.telling.Lock()
	defer t.telling.Unlock()
	t.mu.Lock()
	_, live := t.Live()
	news := t.state.Live && !live
	if news {
		t.state = State{Err: errLapsed}
	}
	t.mu.Unlock()
	if news && t.o.OnState != nil {
		t.o.OnState(State{Err: errLapsed})
	}
}

var errLapsed = errors.New("no beat has come back for too long")

// deafAfter is how many beats may be under way, each sent when the server had just
// answered by the other connections, while nothing at all is heard: then the
// connections are given up. New ones may get through where the old one doesn't.
const deafAfter = 5

// prove learns that a link's beat of that time has come back.
func (t *Tracker) prove() {
	t.telling.Lock()
	defer t.telling.Unlock()
	if t.extend() && t.o.OnState != nil {
		t.o.OnState(State{Live: true})
	}
}

// extend extends the lease, and reports whether that is news.
func (t *Tracker) extend() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.links) == 0 {
		return false
	}
	least := t.links[0].proven.Load()
	for _, l := range t.links[1:] {
		least = min(least, l.proven.Load())
	}
	if least == 0 {
		return false // one of them was not heard of yet
	}
	t.proven.Store(least)
	t.lease.Store(least + int64(t.o.Lease()))
	news := !t.state.Live
	t.state = State{Live: true}
	return news
}

// end ends the reliance and closes the connections.
func (t *Tracker) end(links []*link) {
	t.lease.Store(0)
	t.taps.Store(nil)
	t.mu.Lock()
	t.links = nil
	t.mu.Unlock()
	t.lease.Store(0) // should a beat have come back in between
	for _, l := range links {
		l.close()
	}
}

// servers are those that have keys of their own.
func (t *Tracker) servers(ctx context.Context) (servers []*redis.Client, err error) {
	switch client := t.client.(type) {
	case *redis.Client:
		return []*redis.Client{client}, nil
	case *redis.ClusterClient:
		var mu sync.Mutex
		err := client.ForEachMaster(ctx, func(_ context.Context, server *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			servers = append(servers, server)
			return nil
		})
		if err == nil && len(servers) == 0 {
			err = errors.New("the cluster has no masters")
		}
		return servers, err
	}
	return nil, refused{errors.New("not a client of one server or of a Cluster")}
}

// sameServers reports that the servers are other ones than those of the links.
func (t *Tracker) sameServers(ctx context.Context, links []*link) error {
	if _, ok := t.client.(*redis.ClusterClient); !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.o.Timeout)
	defer cancel()
	servers, err := t.servers(ctx)
	if err != nil {
		return nil //nolint:nilerr // not known now; each beat asks its server who has which slots
	}
	same := len(servers) == len(links)
	for _, s := range servers {
		same = same && slices.ContainsFunc(links, func(l *link) bool { return l.address == s.Options().Addr })
	}
	if !same {
		return errors.New("the cluster has other masters than before")
	}
	return nil
}

// refused wraps what a server says to tracking that it will say again.
type refused struct{ error }

func refusal(err error) bool {
	_, is := errors.AsType[refused](err)
	return is
}
