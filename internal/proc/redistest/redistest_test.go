//go:build unix

package redistest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

func answers(t *testing.T, n *redistest.Node) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	return n.Client().Ping(ctx).Err() == nil
}

func TestRedisDiesFreezesAndComesBack(t *testing.T) {
	t.Parallel()
	n := redistest.StartRedis(t, redistest.Options{TLS: redistest.NewTLS(t), ClientCertificates: true, Password: "secret"})
	require.Contains(t, n.URL(), "rediss://:secret@127.0.0.1:")
	n.Do("set", "key", "value")
	n.Freeze()
	require.False(t, answers(t, n))
	n.Thaw()
	require.Eventually(t, func() bool { return answers(t, n) }, 20*time.Second, time.Millisecond)
	n.Kill()
	require.False(t, answers(t, n))
	n.Restart()
	exists, err := n.Do("exists", "key").Int()
	require.NoError(t, err)
	require.Zero(t, exists)
}

func TestSentinelsFailOver(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinels(t, redistest.SentinelOptions{
		Options:  redistest.Options{TLS: redistest.NewTLS(t), ClientCertificates: true, Password: "secret"},
		Replicas: 2, Sentinels: 3, SentinelPassword: "another",
	})
	first := s.Master()
	require.Same(t, s.Nodes[0], first)
	require.Len(t, s.Replicas(), 2)
	second := s.Failover()
	require.NotSame(t, first, second)
	second.Kill()
	third := s.AwaitOther(second)
	require.NotSame(t, second, third)
	third.Do("set", "key", "value")
}

func TestClusterFailsOverAndMovesSlots(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, redistest.ClusterOptions{
		Options:  redistest.Options{TLS: redistest.NewTLS(t), Password: "secret"},
		Replicas: 1,
	})
	require.Len(t, c.Masters(), 3)
	first := c.Owner("key")
	first.Do("set", "key", "value")
	second := c.Failover("key")
	require.Same(t, first, c.Replicas(second)[0])
	second.Kill()
	third := c.AwaitOther("key", second)
	require.Same(t, first, third)

	var to *redistest.Node
	for _, n := range c.Masters() {
		if n != third {
			to = n
		}
	}
	slot := c.Slot("key")
	c.BeginMove(slot, third, to)
	require.Equal(t, 1, c.MoveKeys(slot, 10, third, to))
	c.EndMove(slot, third, to)
	require.Same(t, to, c.AwaitOther("key", third))
	value, err := to.Do("get", "key").Text()
	require.NoError(t, err)
	require.Equal(t, "value", value)
}
