package chaos

import (
	"context"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// A Redis alone that hangs: nothing closes a connection, nothing answers.
func TestRedisHangs(t *testing.T) {
	begin(t, "redis-server")
	r := proctest.StartRedis(t)
	g := startGate(t, newSecrets(t), "redis://"+r.Addr)
	all := g.sessions(t, 10)
	for _, c := range all[:5] {
		all = append(all, c.strict(), g.token(t, c.user))
	}
	l := startLoad(t, g, loadOptions{rate: 500}, all...)
	broken := now()
	require.NoError(t, r.Signal(syscall.SIGSTOP))
	l.fails(t)
	mended := now()
	require.NoError(t, r.Signal(syscall.SIGCONT))
	results.add(t, l.finish(t, "Redis hangs (SIGSTOP, SIGCONT)", broken, mended))
}

// A Redis alone that is killed, and started again with what it had on disk.
func TestRedisIsKilled(t *testing.T) {
	begin(t, "redis-server")
	dir := t.TempDir()
	args := []string{"--appendonly", "yes", "--appendfsync", "always"}
	ctx := context.WithoutCancel(t.Context())
	first, err := proc.StartRedis(ctx, proc.RedisOptions{Dir: dir, Args: args})
	require.NoError(t, err)
	t.Cleanup(first.Kill)
	g := startGate(t, newSecrets(t), "redis://"+first.Addr)
	l := startLoad(t, g, loadOptions{rate: 500}, g.sessions(t, 20)...)
	broken := now()
	first.Kill()
	<-first.Done()
	l.fails(t)
	mended := now()
	again, err := proc.StartRedis(ctx, proc.RedisOptions{Dir: dir, Args: args, Port: first.Port})
	require.NoError(t, err)
	t.Cleanup(func() { _ = again.Stop() })
	results.add(t, l.finish(t, "Redis is killed, and started again", broken, mended))
}
