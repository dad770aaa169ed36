package tracking

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// channel is the name under which Redis sends announcements.
const channel = "__redis__:invalidate"

// link is the connections to one server.
type link struct {
	t       *Tracker
	server  *redis.Client // that of the store
	prober  *redis.Client // connects anew each time, as the store would
	slots   string        // those of a Cluster as the server sees them
	address string
	broken  chan<- error

	subscriber *redis.PubSub
	tap        *tap // its connection
	writer     *redis.Client
	clients    []*redis.Client // all of them, to be closed
	id         int64           // of the subscriber's connection at the server
	run        string          // names the server's process

	mu     sync.Mutex
	number int
	sent   map[int]int64 // beats that have not come back: number to time
	proven atomic.Int64  // when the last beat was sent that has come back
	heard  atomic.Int64  // when the subscriber got something last
}

// newLink connects. A server that doesn't announce is refused.
func newLink(ctx context.Context, server *redis.Client, t *Tracker, broken chan<- error) (_ *link, err error) {
	l := &link{t: t, server: server, address: server.Options().Addr, broken: broken, sent: map[int]int64{}}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	o := *server.Options()
	o.PoolSize, o.MinIdleConns, o.MaxRetries = 1, 0, -1
	o.ConnMaxLifetime, o.ConnMaxLifetimeJitter = time.Nanosecond, 0
	o.ClientName = "" // one command less, each time
	l.prober = redis.NewClient(&o)
	l.clients = append(l.clients, l.prober)
	if err = l.subscribe(ctx); err != nil {
		return nil, err
	}
	if l.run == "" {
		return nil, refused{errors.New("INFO tells no run_id, by which it would be noticed that the store is another server")}
	}
	if l.slots, err = l.slotMap(ctx); err != nil {
		return nil, err
	}
	return l, l.track(ctx)
}

// slotMap is who has which slots, as the server sees it; "" without a Cluster. It is an
// error that one of the server's slots is moving to a server that has none yet: nobody
// tracks that, and keys which are not here any more, or never were, are written there.
func (l *link) slotMap(ctx context.Context) (string, error) {
	if _, ok := l.t.client.(*redis.ClusterClient); !ok {
		return "", nil
	}
	slots, err := l.server.ClusterSlots(ctx).Result() //nolint:staticcheck // SA1019: CLUSTER SHARDS is of Redis 7
	if err != nil {
		return "", err
	}
	lines := make([]string, len(slots))
	masters := map[string]bool{}
	for i, s := range slots {
		master := ""
		if len(s.Nodes) > 0 {
			master = s.Nodes[0].ID
			masters[master] = true
		}
		lines[i] = fmt.Sprint(s.Start, "-", s.End, " ", master)
	}
	slices.Sort(lines)
	nodes, err := l.server.ClusterNodes(ctx).Result()
	if err != nil && !redis.HasErrorPrefix(err, "NOPERM") { // an ACL may know of the slots alone
		return "", err
	}
	for _, to := range movingTo(nodes) {
		if !masters[to] {
			return "", errMoving
		}
	}
	return strings.Join(lines, "\n"), nil
}

var errMoving = errors.New("a slot is moving to a server of the cluster that has none yet: its changes are not announced")

// movingTo are the servers to which slots of the one are moving that answered CLUSTER
// NODES so: its own line has [93->-id] for such a slot, behind eight fields and its slots.
func movingTo(nodes string) (ids []string) {
	for line := range strings.Lines(nodes) {
		fields := strings.Fields(line)
		if len(fields) <= 8 || !slices.Contains(strings.Split(fields[2], ","), "myself") {
			continue
		}
		for _, slot := range fields[8:] {
			if _, id, moving := strings.Cut(strings.Trim(slot, "[]"), "->-"); moving {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// client returns a client of one connection to the server: when that is gone,
// so is the client, since what would have come through it is lost. prepare is
// what the connection begins with.
func (l *link) client(prepare func(context.Context, *redis.Conn) error, wrap func(net.Conn) net.Conn) *redis.Client {
	o := *l.server.Options()
	o.PoolSize, o.MinIdleConns, o.MaxIdleConns, o.MaxActiveConns = 1, 0, 0, 0
	o.MaxRetries, o.Protocol = -1, 2
	// Longer than a call may take: when it breaks, the cache is lost.
	o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = l.patience(), l.patience(), l.patience()
	o.ConnMaxIdleTime, o.ConnMaxLifetime = -1, 0
	dial, before := o.Dialer, o.OnConnect
	var once atomic.Bool
	o.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		if once.Swap(true) {
			return nil, errors.New("the connection is gone")
		}
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wrap(c), nil
	}
	o.OnConnect = func(ctx context.Context, c *redis.Conn) error {
		if before != nil {
			if err := before(ctx, c); err != nil {
				return err
			}
		}
		return prepare(ctx, c)
	}
	c := redis.NewClient(&o)
	l.clients = append(l.clients, c)
	return c
}

// subscribe opens the connection that gets the announcements.
func (l *link) subscribe(ctx context.Context) error {
	client := l.client(func(ctx context.Context, c *redis.Conn) (err error) {
		if l.id, err = c.ClientID(ctx).Result(); err == nil {
			l.run, err = RunID(ctx, c)
		}
		return err
	}, func(c net.Conn) net.Conn {
		l.tap = newTap(c)
		return l.tap
	})
	ctx, cancel := context.WithTimeout(ctx, l.patience())
	defer cancel()
	l.subscriber = client.Subscribe(ctx, channel)
	reply, err := l.subscriber.ReceiveTimeout(ctx, l.patience())
	if err != nil {
		return final(err)
	}
	if _, ok := reply.(*redis.Subscription); !ok || l.id == 0 {
		return refused{fmt.Errorf("the server answers a subscription with %T", reply)}
	}
	return nil
}

// RunID names the process of a server; "" where it doesn't say, as the embedded
// one, or where we may not ask.
func RunID(ctx context.Context, c interface {
	Info(ctx context.Context, sections ...string) *redis.StringCmd
},
) (string, error) {
	info, err := c.Info(ctx, "server").Result()
	if _, answered := errors.AsType[redis.Error](err); err != nil && !answered {
		return "", err
	}
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(line, "run_id:"); ok {
			return strings.TrimSpace(id), nil
		}
	}
	return "", nil
}

// patience is the time for opening a connection.
func (l *link) patience() time.Duration { return max(l.t.o.Timeout, time.Second) }

// track opens the connection for which the server keeps track of changes.
func (l *link) track(ctx context.Context) error {
	args := []any{"client", "tracking", "on", "redirect", l.id, "bcast", "noloop"}
	for _, prefix := range l.t.o.Prefixes {
		args = append(args, "prefix", prefix)
	}
	l.writer = l.client(func(ctx context.Context, c *redis.Conn) error {
		run, err := RunID(ctx, c)
		if err == nil && run != l.run {
			err = errOther // and its clients have other numbers
		}
		if err != nil {
			return err
		}
		return c.Process(ctx, redis.NewCmd(ctx, args...))
	}, func(c net.Conn) net.Conn {
		return watch(c, func(err error) { l.lose(fmt.Errorf("the connection that tracks: %w", err)) })
	})
	ctx, cancel := context.WithTimeout(ctx, l.patience())
	defer cancel()
	return final(l.writer.Ping(ctx).Err())
}

var errOther = errors.New("the store is another server by now")

// final makes a refusal of what a server answers that doesn't track.
func final(err error) error {
	answer, ok := errors.AsType[redis.Error](err)
	if !ok {
		return err
	}
	if strings.Contains(answer.Error(), "redirect") { // the subscriber is gone already
		return err
	}
	for _, passing := range []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "BUSY"} {
		if strings.HasPrefix(answer.Error(), passing) {
			return err
		}
	}
	return refused{err}
}

// receive reads announcements until the connection breaks.
func (l *link) receive() error {
	for {
		message, err := l.subscriber.Receive(context.Background())
		l.heard.Store(l.t.since())
		switch message := message.(type) {
		case *redis.Message:
			for _, key := range message.PayloadSlice {
				l.t.o.Changed(key)
			}
			if message.PayloadSlice == nil {
				l.t.o.ChangedAll()
			}
			continue
		case *redis.Pong:
			l.cameBack(message.Payload)
			continue
		case *redis.Subscription:
			continue
		}
		// FLUSHALL and FLUSHDB are announced by a null, which the library
		// calls an error; the connection is whole.
		if err != nil && strings.HasSuffix(err.Error(), "payload: <nil>") {
			l.t.o.ChangedAll()
			continue
		}
		return fmt.Errorf("the connection that gets announcements: %w", err)
	}
}

// beat sends a beat: it makes sure that the store is still at this server, which
// has the same slots as before, and that the server still tracks for us; then a
// PING goes by the connection of the announcements, and comes back behind all of
// them that are older.
func (l *link) beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.t.o.Lease())
	defer cancel()
	at := l.t.since()
	run, err := RunID(ctx, l.prober)
	if err != nil {
		return // not known: the lease runs out
	}
	if run != l.run {
		l.lose(errOther)
		return
	}
	slots, err := l.slotMap(ctx)
	if err != nil {
		return // as above
	}
	if slots != l.slots {
		l.lose(errors.New("the slots of the cluster have moved"))
		return
	}
	id, err := l.writer.Do(ctx, "client", "getredir").Int64()
	switch {
	case err == nil && id != l.id:
		l.lose(errors.New("the server has ceased to track"))
		return
	case err != nil:
		if _, answered := errors.AsType[redis.Error](err); answered {
			l.lose(final(err))
		}
		return // as above; a connection that breaks is noticed elsewhere
	}
	l.mu.Lock()
	l.number++
	number := l.number
	l.sent[number] = at
	deaf := len(l.sent) > deafAfter
	for _, at := range l.sent {
		deaf = deaf && l.heard.Load() < at
	}
	l.mu.Unlock()
	if deaf {
		l.lose(errLapsed)
		return
	}
	_ = l.subscriber.Ping(ctx, strconv.Itoa(number)) // as above
}

// cameBack learns that a beat has come back.
func (l *link) cameBack(number string) {
	n, err := strconv.Atoi(number)
	if err != nil {
		return
	}
	l.mu.Lock()
	at, ok := l.sent[n]
	for earlier := range l.sent {
		if earlier <= n {
			delete(l.sent, earlier)
		}
	}
	l.mu.Unlock()
	if ok {
		l.proven.Store(at)
		l.t.prove()
	}
}

// lose ends the link.
func (l *link) lose(err error) {
	select {
	case l.broken <- err:
	default: // it is known
	}
}

func (l *link) close() {
	if l.subscriber != nil {
		_ = l.subscriber.Close()
	}
	for _, c := range l.clients {
		_ = c.Close()
	}
}

// watched is a connection of which it is noticed at once when it breaks, though
// nobody reads.
type watched struct {
	net.Conn
	chunks   chan []byte
	rest     []byte
	deadline atomic.Int64 // of reads, Unix nanoseconds; 0: none
	closed   chan struct{}
	once     sync.Once
	err      error // before chunks is closed
}

func watch(c net.Conn, broken func(error)) *watched {
	w := &watched{Conn: c, chunks: make(chan []byte), closed: make(chan struct{})}
	go func() {
		buffer := make([]byte, 16<<10)
		for {
			n, err := c.Read(buffer)
			if n > 0 {
				select {
				case w.chunks <- append([]byte(nil), buffer[:n]...):
				case <-w.closed:
					err = net.ErrClosed
				}
			}
			if err != nil {
				w.err = err
				close(w.chunks)
				broken(err)
				return
			}
		}
	}()
	return w
}

func (w *watched) Read(b []byte) (int, error) {
	if len(w.rest) == 0 {
		var late <-chan time.Time
		if deadline := w.deadline.Load(); deadline != 0 {
			timer := time.NewTimer(time.Until(time.Unix(0, deadline)))
			defer timer.Stop()
			late = timer.C
		}
		select {
		case chunk, ok := <-w.chunks:
			if !ok {
				return 0, w.err
			}
			w.rest = chunk
		case <-late:
			return 0, os.ErrDeadlineExceeded
		}
	}
	n := copy(b, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *watched) SetReadDeadline(t time.Time) error {
	if t.IsZero() {
		w.deadline.Store(0)
	} else {
		w.deadline.Store(t.UnixNano())
	}
	return nil
}

func (w *watched) SetDeadline(t time.Time) error {
	return errors.Join(w.SetReadDeadline(t), w.SetWriteDeadline(t))
}

func (w *watched) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}
