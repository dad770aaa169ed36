package session

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// The client of a master that Sentinels name.
//
// go-redis has such a client, too, but it believes the first Sentinel that answers,
// keeps the password of Sentinels for good, and can be left with a connection to the
// old master: one that was being opened while the others were closed. An old master
// that was only frozen, or cut off from its Sentinels, goes on answering, and what it
// answers is from before the failover: revoked sessions live there. So
//
//   - each connection is opened at the master that the Sentinels name at that moment,
//     all of those that can be reached: the newest configuration counts, unless more
//     than half of them go on naming another;
//   - when another master is named, all connections to other servers are closed, and
//     one that was being opened is thrown away;
//   - [Store.Run] asks anew with each heartbeat, and when a Sentinel announces a
//     change: that bounds how long an old master can be heard, idle connections and
//     lost announcements notwithstanding.
//
// What is left is a network that is split with Gatehouse, the old master and less than
// half of the Sentinels on one side, from before the failover: there nobody knows of it.
// See sentinel_fence.go for that; sentinel_ask.go for how they are asked, and
// sentinel_vote.go for what is believed.

// sentinelClient is a client of the master.
type sentinelClient struct {
	*redis.Client
	masters *masters
}

// masters knows who the master is, and has all connections to it.
type masters struct {
	name   string
	server func(ctx context.Context, network, address string) (net.Conn, error)
	client func(address string) *redis.Client // of a Sentinel
	word   atomic.Pointer[word]
	last   atomic.Pointer[poll] // nil: none has answered yet

	mu        sync.Mutex
	sentinels map[string]*sentinel // by address
	named     []string             // those that the URL names
	asking    *inquiry             // that is under way
	master    string               // address; "" before the first answer
	epoch     int64                // of the configuration that named it
	asked     time.Time            // when it was named last
	most      int                  // Sentinels that answered one question; see sentinel_vote.go
	counted   bool                 // they said how many there are: what the URL names counts no more
	placed    map[*placed]struct{}
	closed    bool
}

// sentinel is one of them.
type sentinel struct {
	*redis.Client
	id     string    // "": not known yet
	silent bool      // didn't answer last time: not waited for, where another one answers
	apart  time.Time // since when it names a newer configuration than the word of the others; zero: it doesn't
}

// openSentinel returns a client with these options, which are those of a server.
func openSentinel(u storeURL, o OpenOptions, options *redis.UniversalOptions) *sentinelClient {
	timeout := options.ReadTimeout
	m := &masters{
		name: u.master, named: u.hosts, placed: map[*placed]struct{}{}, sentinels: map[string]*sentinel{},
		server: redis.NewDialer(&redis.Options{DialTimeout: options.DialTimeout, TLSConfig: options.TLSConfig}),
		client: func(address string) *redis.Client {
			return redis.NewClient(&redis.Options{
				Addr: address, ClientName: options.ClientName, Protocol: options.Protocol, TLSConfig: options.TLSConfig,
				CredentialsProvider:   credentials(o.SentinelUsername, o.SentinelPassword, o.CurrentSentinelPassword),
				ContextTimeoutEnabled: true, ReadTimeout: timeout, WriteTimeout: timeout,
				DialTimeout: options.DialTimeout, DialerRetries: 1, MaxRetries: 1, PoolSize: 2, PipelinePoolSize: -1,
				DisableIdentity: options.DisableIdentity, MaintNotificationsConfig: options.MaintNotificationsConfig,
			})
		},
	}
	for _, address := range u.hosts {
		m.sentinels[address] = &sentinel{Client: m.client(address)}
	}
	plain := options.Simple()
	plain.Addr = "master " + m.name + " of the Sentinels" // for messages: it is never dialled
	plain.TLSConfig = nil                                 // ours
	plain.Dialer = m.dial
	return &sentinelClient{Client: redis.NewClient(plain), masters: m}
}

// Inner returns the client of the master alone, for those who look into it.
func (c *sentinelClient) Inner() *redis.Client { return c.Client }

// Close closes the client and its connections to the Sentinels.
func (c *sentinelClient) Close() error {
	return errors.Join(c.Client.Close(), c.masters.close())
}

func (m *masters) close() error {
	m.mu.Lock()
	m.closed = true
	all := m.sentinels
	m.sentinels = nil
	m.mu.Unlock()
	var errs []error
	for _, s := range all {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// dial opens a connection to the master.
func (m *masters) dial(ctx context.Context, network, _ string) (conn net.Conn, err error) {
	for range 3 { // it rarely moves once
		var address string
		if address, err = m.locate(ctx); err != nil {
			return nil, err
		}
		if conn, err = m.server(ctx, network, address); err != nil {
			return nil, err
		}
		if conn, err = m.place(conn, address); !errors.Is(err, errMoved) {
			break
		}
	}
	return conn, err
}
