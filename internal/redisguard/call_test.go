package redisguard_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// calls remembers what was told of commands.
type calls struct {
	mu  sync.Mutex
	all []redisguard.Call
}

func (c *calls) record(call redisguard.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, call)
}

// take returns the calls since the last time, as purpose, command and outcome, but for
// what opens connections.
func (c *calls) take(t *testing.T) (told []string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.all {
		if call.Purpose == "connection" {
			continue
		}
		if call.Outcome != "canceled" { // which may be before and after
			require.Equal(t, call.Outcome != "refused", call.Sent, call)
		}
		told = append(told, call.Purpose+" "+call.Command+" "+call.Outcome)
	}
	c.all = nil
	return told
}

// Every command is told once, by what it was for and what came of it, and never by its
// key.
func TestCommandsAreTold(t *testing.T) {
	t.Parallel()
	r := proctest.StartRedis(t)
	client := redis.NewClient(&redis.Options{Addr: r.Addr, MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	told := &calls{}
	redisguard.Of(client).Record(told.record)
	lookup, done := redisguard.Lookup(t.Context(), patience)
	defer done()
	touch, done := redisguard.Touch(t.Context(), patience)
	defer done()

	require.NoError(t, client.Set(t.Context(), "key", "value", time.Minute).Err())
	require.ErrorIs(t, client.Get(lookup, "none").Err(), redis.Nil)
	require.Error(t, client.EvalSha(lookup, "0123456789012345678901234567890123456789", nil).Err())
	require.Error(t, client.HGet(lookup, "key", "x").Err())
	_, err := client.Pipelined(touch, func(p redis.Pipeliner) error { p.Get(touch, "key"); return p.TTL(touch, "key").Err() })
	require.NoError(t, err)
	_, err = client.TxPipelined(t.Context(), func(p redis.Pipeliner) error { return p.Get(t.Context(), "key").Err() })
	require.NoError(t, err)
	require.Equal(t, []string{
		"order set ok", "lookup get ok", "lookup evalsha again", "lookup hget error", "touch pipeline ok", "order transaction ok",
	}, told.take(t))

	gone, leave := context.WithCancel(lookup)
	leave()
	require.Error(t, client.Get(gone, "key").Err())
	require.Equal(t, []string{"lookup get canceled"}, told.take(t), "nobody waits for it")
	require.Equal(t, redisguard.Stats{}, redisguard.Of(client).Stats(), "which says nothing about the server")

	watch, done := redisguard.Watch(t.Context(), patience)
	defer done()
	require.NoError(t, client.Ping(watch).Err())
	require.Equal(t, []string{"watch ping ok"}, told.take(t))

	// What takes long by itself is a client of its own, and told all the same.
	long := redisguard.Long(client, patience, patience)
	require.NoError(t, long.Ping(t.Context()).Err())
	require.Equal(t, []string{"order ping ok"}, told.take(t))
}

// A server that says nothing, and one that isn't there.
func TestCommandsThatFailAreTold(t *testing.T) {
	t.Parallel()
	addr, hangUp := mute(t)
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, ReadTimeout: 50 * time.Millisecond, DisableIdentity: true, Protocol: 2})
	t.Cleanup(func() { _ = client.Close() })
	told := &calls{}
	redisguard.Of(client).Record(told.record)
	require.Error(t, client.Get(t.Context(), "key").Err())
	require.Equal(t, []string{"order get timeout"}, told.take(t))
	hangUp()
	require.Error(t, client.Get(t.Context(), "key").Err())
	require.Equal(t, []string{"order get unreachable"}, told.take(t))

	// Once it is known that nobody answers, it isn't asked.
	ask := func() error {
		ctx, cancel := redisguard.Lookup(t.Context(), 50*time.Millisecond)
		defer cancel()
		return client.Get(ctx, "key").Err()
	}
	require.Eventually(t, func() bool { // on a busy machine some are too late first, which is another refusal
		err, calls := ask(), told.take(t)
		return redisguard.Refused(err) && slices.Equal(calls, []string{"lookup get refused"})
	}, patience, time.Millisecond)
}
