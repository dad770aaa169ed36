package tracking

import (
	"context"
	"net"
	"runtime"
	"weak"

	"github.com/redis/go-redis/v9"
)

// Redirects counts the answers of a Cluster's servers that sent a command
// elsewhere. What was read while the count went up may come from a server that
// has no slots yet, or any more, and that nobody tracks: it is not to be kept.
func (t *Tracker) Redirects() int64 { return t.redirects.Load() }

// watchRedirects hooks into the connections to all servers, those that are known
// later, too.
func (t *Tracker) watchRedirects(cluster *redis.ClusterClient) {
	cluster.OnNewNode(t.hook)
}

// hook adds the hook to a server's client, once. It keeps no client alive: in a
// Cluster, servers come and go.
func (t *Tracker) hook(c *redis.Client) {
	id := weak.Make(c)
	t.mu.Lock()
	known := t.hooked[id]
	t.hooked[id] = true
	t.mu.Unlock()
	if known {
		return
	}
	runtime.AddCleanup(c, t.unhook, id)
	c.AddHook(redirectHook{t})
}

func (t *Tracker) unhook(id weak.Pointer[redis.Client]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.hooked, id)
}

type redirectHook struct{ t *Tracker }

func (redirectHook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h redirectHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		h.note(err)
		return err
	}
}

func (h redirectHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		h.note(err)
		for _, cmd := range cmds {
			h.note(cmd.Err())
		}
		return err
	}
}

func (h redirectHook) note(err error) {
	if err == nil {
		return
	}
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	if moved || ask || redis.IsTryAgainError(err) {
		h.t.redirects.Add(1)
	}
}
