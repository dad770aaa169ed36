package tracing_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/tracing/traced"
)

// What Redis is asked is told by its name, and what became of it; never of what it was.
func TestQuestionsToRedisAreBelowTheRequest(t *testing.T) {
	proctest.Need(t, "redis-server")
	server, err := proc.StartRedis(t.Context(), proc.RedisOptions{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop() })
	client, err := session.Open("redis://"+server.Addr, session.OpenOptions{Hook: traced.Redis{}, Timeout: 5 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })

	c := collect(t)
	tracer := newTracer(t, tracing.Options{Endpoint: c.Addr, Sample: 1})
	ctx, end := tracer.Start(t.Context())
	require.NoError(t, client.Set(ctx, "hunter2", "hunter2", 0).Err())
	require.ErrorIs(t, client.Get(ctx, "hunter2:missing").Err(), redis.Nil)
	require.Error(t, client.LPush(ctx, "hunter2", "hunter2").Err())
	require.NoError(t, redis.NewScript("return redis.call('get', KEYS[1])").Run(ctx, client, []string{"hunter2"}).Err())
	_, err = client.Pipelined(ctx, func(p redis.Pipeliner) error { p.Get(ctx, "hunter2"); return nil })
	require.NoError(t, err)
	_, err = client.Pipelined(ctx, func(p redis.Pipeliner) error { p.Get(ctx, "hunter2"); p.TTL(ctx, "hunter2"); return nil })
	require.NoError(t, err)
	_, err = client.TxPipelined(ctx, func(p redis.Pipeliner) error { p.Get(ctx, "hunter2"); p.TTL(ctx, "hunter2"); return nil })
	require.NoError(t, err)
	require.NoError(t, client.Get(t.Context(), "hunter2").Err(), "of no request, and without a span")
	require.NoError(t, server.Stop())
	require.Error(t, client.Get(ctx, "hunter2").Err())
	end()
	shutdown(t, tracer)

	spans := c.Spans()
	check := spans[len(spans)-1]
	require.Equal(t, checkMethod, check.Name)
	var told []string
	for _, s := range spans[:len(spans)-1] {
		if s.Name == "HELLO" || s.Name == "CLIENT" {
			require.NotEqual(t, check.ID, s.Parent, "below the command for which the connection was opened")
			continue
		}
		require.Equal(t, check.ID, s.Parent)
		require.Equal(t, "CLIENT", s.Kind)
		require.Equal(t, "redis", s.Attributes["db.system.name"])
		require.Equal(t, s.Name, s.Attributes["db.operation.name"])
		told = append(told, s.Name+" "+s.Attributes["db.operation.batch.size"]+s.Status+s.Attributes["error.type"])
	}
	require.Equal(t, []string{
		"SET ", "GET ", "LPUSH ERRORWRONGTYPE", "EVALSHA ", "EVAL ", "GET ", "PIPELINE 2", "MULTI 2", "GET ERRORconnection",
	}, told)
	for _, s := range spans {
		require.NotContains(t, s.String()+s.StatusMessage, "hunter2")
	}
}
