package redisguard

import (
	"net"

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
