package session

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// embedded is a client of a store within this process.
type embedded struct {
	*redis.Client
	server *miniredis.Miniredis
	once   sync.Once
	stop   chan struct{}
	done   chan struct{}
}

// openEmbedded starts a store within this process. Without an address it
// listens on a free port of 127.0.0.1 and, since every user of the machine can
// connect there, asks for a password that nobody knows.
func openEmbedded(u storeURL, o OpenOptions) (redis.UniversalClient, error) {
	address := "127.0.0.1:0"
	if len(u.hosts) > 0 {
		address = u.hosts[0]
		if u.password == "" && !loopback(address) {
			return nil, errors.New("embedded store: others could reach it and it has no password; listen on 127.0.0.1 or write embedded://:password@host:port")
		}
	} else {
		u.password = cmp.Or(u.password, rand.Text())
	}
	server := miniredis.NewMiniRedis()
	if u.password != "" {
		server.RequireUserAuth(cmp.Or(u.username, "default"), u.password)
	}
	if err := server.StartAddr(address); err != nil {
		return nil, fmt.Errorf("embedded store: %w", err)
	}
	u.hosts = []string{server.Addr()}
	e := &embedded{
		Client: redis.NewClient(clientOptions(u, o).Simple()),
		server: server,
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go e.run()
	cmp.Or(o.Logger, slog.Default()).Warn(
		"EMBEDDED STORE: NOT FOR PRODUCTION. All sessions and revocations are forgotten when this process ends, and no other replica sees them. Set redis.url to a Redis.",
		slog.String("address", server.Addr()))
	return e, nil
}

func loopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().IsLoopback()
}

// clockStep is how late the embedded store notices that a key has expired.
const clockStep = 50 * time.Millisecond

// run lets time pass for the store, whose clock stands still by itself.
func (e *embedded) run() {
	defer close(e.done)
	ticker := time.NewTicker(clockStep)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-e.stop:
			return
		case now := <-ticker.C:
			e.server.FastForward(now.Sub(last))
			last = now
		}
	}
}

// Close closes the client and ends the store, which forgets everything.
func (e *embedded) Close() error {
	err := redis.ErrClosed
	e.once.Do(func() {
		err = e.Client.Close()
		close(e.stop)
		<-e.done
		e.server.Close()
	})
	return err
}
