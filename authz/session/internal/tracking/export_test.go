package tracking

import "github.com/redis/go-redis/v9"

// Hook is what happens for each server of a Cluster.
func Hook(t *Tracker, c *redis.Client) { t.hook(c) }

// Hooked returns of how many servers something is remembered.
func Hooked(t *Tracker) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.hooked)
}
