package redisguard

import (
	"context"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// Servers is how many servers a guard has in mind.
func (g *Guard) Servers() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.servers)
}

// Watch is what happens to a node of a Cluster that becomes known.
func (g *Guard) Watch(node *redis.Client) { g.watch(node) }

// Patiently is a connection as the client has it.
func Patiently(c net.Conn) net.Conn { return patiently(c) }

// UsualAfter is how long lookups take as a rule for a server that answered one at once,
// asked with ctx so long ago.
func UsualAfter(ctx context.Context, asked time.Duration) time.Duration {
	s := newServer(&Guard{}, "")
	s.began = s.began.Add(-asked)
	b := &s.shares[shareOf(lookup)]
	s.judge(ctx, mark{purpose: lookup, timeout: time.Hour}, 0, b, nil)
	return b.usual()
}
