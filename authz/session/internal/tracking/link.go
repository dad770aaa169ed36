package tracking

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
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
	address string

	subscriber *redis.PubSub
	clients    []*redis.Client // all of them, to be closed
	writer     *redis.Client
	beater     *redis.Client
	broken     chan<- error

	beats  string // prefix of the keys of the beats
	mu     sync.Mutex
	number int
	sent   map[int]int64 // beats that have not come back: number to time
	proven atomic.Int64  // when the last beat was sent that has come back
}

// newLink connects. A server that doesn't announce is refused.
func newLink(ctx context.Context, server *redis.Client, t *Tracker, broken chan<- error) (_ *link, err error) {
	l := &link{
		t: t, address: server.Options().Addr, broken: broken,
		beats: t.o.Beats, sent: map[int]int64{},
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.beats, err = l.ownKeys(ctx, server); err != nil {
		return nil, err
	}
	id, err := l.subscribe(ctx, server)
	if err != nil {
		return nil, err
	}
	if l.writer, err = l.track(ctx, server, id); err != nil {
		return nil, err
	}
	l.beater = l.client(server, func(*redis.Options) {})
	return l, nil
}

// client returns a client of one connection of its own to the server.
func (l *link) client(server *redis.Client, change func(*redis.Options)) *redis.Client {
	o := *server.Options()
	o.PoolSize, o.MinIdleConns, o.MaxIdleConns, o.MaxActiveConns = 1, 0, 0, 0
	o.MaxRetries, o.Protocol = -1, 2
	o.ConnMaxIdleTime, o.ConnMaxLifetime = -1, 0
	change(&o)
	c := redis.NewClient(&o)
	l.clients = append(l.clients, c)
	return c
}

// subscribe opens the connection that gets the announcements, and returns its
// name at the server.
func (l *link) subscribe(ctx context.Context, server *redis.Client) (id int64, err error) {
	client := l.client(server, func(o *redis.Options) {
		before := o.OnConnect
		o.OnConnect = func(ctx context.Context, c *redis.Conn) (err error) {
			if before != nil {
				if err := before(ctx, c); err != nil {
					return err
				}
			}
			id, err = c.ClientID(ctx).Result()
			return err
		}
	})
	ctx, cancel := context.WithTimeout(ctx, l.patience())
	defer cancel()
	l.subscriber = client.Subscribe(ctx, channel)
	reply, err := l.subscriber.ReceiveTimeout(ctx, l.patience())
	if err != nil {
		return 0, final(err)
	}
	if _, ok := reply.(*redis.Subscription); !ok || id == 0 {
		return 0, refused{fmt.Errorf("the server answers a subscription with %T", reply)}
	}
	return id, nil
}

// patience is the time for opening a connection.
func (l *link) patience() time.Duration { return max(l.t.o.Timeout, time.Second) }

// track opens the connection for which the server keeps track of changes.
func (l *link) track(ctx context.Context, server *redis.Client, subscriber int64) (*redis.Client, error) {
	args := []any{"client", "tracking", "on", "redirect", subscriber, "bcast", "noloop"}
	for _, prefix := range append(l.t.o.Prefixes, l.beats) {
		args = append(args, "prefix", prefix)
	}
	var once atomic.Bool
	client := l.client(server, func(o *redis.Options) {
		dial, before := o.Dialer, o.OnConnect
		o.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
			if once.Swap(true) {
				return nil, errors.New("the connection that tracks is gone") // what it would have announced is lost
			}
			c, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return watch(c, func(err error) { l.lose(fmt.Errorf("the connection that tracks: %w", err)) }), nil
		}
		o.OnConnect = func(ctx context.Context, c *redis.Conn) error {
			if before != nil {
				if err := before(ctx, c); err != nil {
					return err
				}
			}
			return c.Process(ctx, redis.NewCmd(ctx, args...))
		}
	})
	ctx, cancel := context.WithTimeout(ctx, l.patience())
	defer cancel()
	if err := client.Ping(ctx).Err(); err != nil {
		return nil, final(err)
	}
	return client, nil
}

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

// ownKeys returns the prefix of keys that the server has: in a Cluster with a
// tag in one of its slots.
func (l *link) ownKeys(ctx context.Context, server *redis.Client) (string, error) {
	if _, ok := l.t.client.(*redis.ClusterClient); !ok {
		return l.t.o.Beats, nil
	}
	slots, err := server.ClusterSlots(ctx).Result()
	if err != nil {
		return "", err
	}
	me, err := server.Do(ctx, "cluster", "myid").Text()
	if err != nil {
		return "", err
	}
	has := func(slot int) bool {
		for _, s := range slots {
			if len(s.Nodes) > 0 && s.Nodes[0].ID == me && s.Start <= slot && slot <= s.End {
				return true
			}
		}
		return false
	}
	for i := range 1 << 20 {
		if tag := strconv.Itoa(i); has(slotOf(tag)) {
			return l.t.o.Beats + "{" + tag + "}", nil
		}
	}
	return "", errors.New("the server has no slots")
}

// receive reads announcements until the connection breaks.
func (l *link) receive() error {
	for {
		message, err := l.subscriber.Receive(context.Background())
		switch message := message.(type) {
		case *redis.Message:
			for _, key := range message.PayloadSlice {
				if number, ours := strings.CutPrefix(key, l.beats); ours {
					l.cameBack(number)
					continue
				}
				l.t.o.Changed(key)
			}
			if message.PayloadSlice == nil {
				l.t.o.ChangedAll()
			}
			continue
		case *redis.Subscription, *redis.Pong:
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

// beatLife is how long the key of a beat lives.
const beatLife = 10 * time.Second

func (l *link) beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.t.o.Lease())
	defer cancel()
	l.mu.Lock()
	l.number++
	number := l.number
	l.sent[number] = l.t.since()
	l.mu.Unlock()
	if err := l.beater.Set(ctx, l.beats+strconv.Itoa(number), "", beatLife).Err(); err != nil {
		l.mu.Lock()
		delete(l.sent, number)
		l.mu.Unlock()
		if _, answered := errors.AsType[redis.Error](err); answered && ctx.Err() == nil {
			l.lose(fmt.Errorf("write a beat: %w", err)) // READONLY, MOVED: it is no master any more
		}
	}
}

// cameBack learns that a beat was announced.
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
	if ok { // else it is the end of a key's life
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

// slotOf returns the slot of a hash tag: CRC16 (XMODEM) modulo 16384, by the
// specification of Redis Cluster.
func slotOf(tag string) int {
	var crc uint16
	for i := range len(tag) {
		crc ^= uint16(tag[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc % 16384)
}
