package main

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net/http"
	"sync/atomic"

	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// live is the generation that answers now. Everything that serves takes it from
// here, for one request at a time:
//
//	g, held := l.acquire()
//	defer held.Release()
//
// Between the two g stays whole, though it may be replaced meanwhile. Nobody waits
// for anybody: neither a request for a reload nor a reload for requests.
type live struct {
	now      atomic.Pointer[generation]
	http     underWay // of all generations
	shedHTTP func()   // is told of each request that was shed there; may be nil
}

// leases count who holds a generation. There are several counters, each on a cache
// line of its own: with one, all processors would wait for it at each request.
type leases [16]lease

type lease struct {
	n atomic.Int64
	_ [56]byte
}

// Release gives back what [live.acquire] gave. Once.
func (l *lease) Release() { l.n.Add(-1) }

// idle reports whether nobody holds the generation. Of one that was replaced that
// stays true: whoever takes it from then on notices, and gives it back unused.
func (l *leases) idle() bool {
	for i := range l {
		if l[i].n.Load() != 0 {
			return false
		}
	}
	return true
}

// acquire returns the current generation and what is released after its use.
func (l *live) acquire() (*generation, *lease) {
	for {
		g := l.now.Load()
		held := &g.leases[rand.Uint32()%uint32(len(g.leases))] //nolint:gosec // G404: spreads, and hides nothing
		held.n.Add(1)
		if l.now.Load() == g {
			return g, held
		}
		held.Release() // replaced in between, and closed perhaps
	}
}

// replace makes next the current generation. What was before is to be closed when
// it is idle ([generation.awaitIdle]).
func (l *live) replace(next *generation) { l.now.Store(next) }

// Acquire implements [extauthz.Current].
func (l *live) Acquire() (*extauthz.Server, extauthz.Releaser) {
	g, held := l.acquire()
	return g.check, held
}

// checkTLS are the TLS settings of the check listener, nil where it began without:
// those of the current generation, for each connection.
func (l *live) checkTLS() *tls.Config {
	return l.tls(func(g *generation) *tls.Config { return g.checkTLS.value })
}

// httpTLS is the same for the http listener.
func (l *live) httpTLS() *tls.Config {
	return l.tls(func(g *generation) *tls.Config { return g.httpTLS.value })
}

func (l *live) tls(of func(*generation) *tls.Config) *tls.Config {
	g, held := l.acquire()
	defer held.Release()
	first := of(g)
	if first == nil {
		return nil
	}
	c := first.Clone() // says which protocols there are
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		g, held := l.acquire()
		defer held.Release()
		return of(g), nil
	}
	return c
}

// ping asks whether the store is in reach.
func (l *live) ping(ctx context.Context) error {
	g, held := l.acquire()
	defer held.Release()
	return g.ping(ctx)
}

// cacheState says whether the cache can be used; ok is false where there is none.
func (l *live) cacheState() (st session.CacheState, ok bool) {
	g, held := l.acquire()
	defer held.Release()
	return g.store.CacheState()
}

// silentServers is how many Redis servers don't answer requests.
func (l *live) silentServers() int {
	g, held := l.acquire()
	defer held.Release()
	return g.store.GuardStats().Silent
}

// ServeHTTP is the http listener's door.
func (l *live) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g, held := l.acquire()
	defer held.Release()
	w, r, end := g.traced(w, r)
	defer end()
	if g.http.serve(w, r, &l.http) && l.shedHTTP != nil {
		l.shedHTTP()
	}
}
