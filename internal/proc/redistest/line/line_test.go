package line_test

import (
	"bufio"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest/line"
)

func client(t *testing.T, addr string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// two sends two commands at once, and reports which of them are answered.
func two(t *testing.T, c *redis.Client) (first, second bool) {
	t.Helper()
	pipe := c.Pipeline()
	a, b := pipe.Incr(t.Context(), "a"), pipe.Incr(t.Context(), "b")
	_, err := pipe.Exec(t.Context()) // it has the error of each of them set
	require.Equal(t, b.Val() != 0, err == nil)
	return a.Val() != 0, b.Val() != 0
}

func TestALineIsCut(t *testing.T) {
	server := proctest.StartRedis(t)
	l := line.New(t, server.Addr)
	direct := client(t, server.Addr)
	for _, test := range []struct {
		name  string
		cut   line.Cut
		a, b  string // what there is then
		first bool   // is answered
		works bool   // at once
	}{
		{"at the first", line.Cut{At: 1}, "", "", false, false},
		{"at the second", line.Cut{At: 2}, "1", "", true, false},
		{"behind the first", line.Cut{At: 1, Taken: true}, "1", "", false, false},
		{"behind the second", line.Cut{At: 2, Taken: true}, "1", "1", true, false},
		{"behind the second, and heals", line.Cut{At: 2, Taken: true, Heals: true}, "1", "1", true, true},
		{"at the first, and heals", line.Cut{At: 1, Heals: true}, "", "", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			direct.FlushAll(t.Context())
			c := client(t, l.Addr)
			require.NoError(t, c.Ping(t.Context()).Err())
			l.Arm(test.cut)
			require.NoError(t, c.Ping(t.Context()).Err(), "it isn't counted")
			first, second := two(t, c)
			require.Equal(t, test.first, first)
			require.False(t, second)
			require.Equal(t, test.cut.At, l.Commands())
			require.Equal(t, test.a, direct.Get(t.Context(), "a").Val())
			require.Equal(t, test.b, direct.Get(t.Context(), "b").Val())
			c = client(t, l.Addr)
			require.Equal(t, test.works, c.Ping(t.Context()).Err() == nil)
			require.True(t, l.Mend())
			require.False(t, l.Mend())
			first, second = two(t, client(t, l.Addr))
			require.True(t, first)
			require.True(t, second)
		})
	}
}

func TestALineHolds(t *testing.T) {
	server := proctest.StartRedis(t)
	l := line.New(t, server.Addr)
	c, direct := client(t, l.Addr), client(t, server.Addr)
	require.NoError(t, c.Ping(t.Context()).Err())
	l.Hold()
	require.Eventually(t, func() bool { // on a busy machine its time may be over before it is sent
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		err := c.Incr(ctx, "a").Err()
		require.Error(t, err)
		return strings.HasPrefix(err.Error(), "read ") && strings.HasSuffix(err.Error(), "timeout")
	}, 10*time.Second, time.Millisecond)
	require.Empty(t, direct.Get(t.Context(), "a").Val())
	l.Release()
	require.Eventually(t, func() bool { return direct.Get(t.Context(), "a").Val() != "" }, 10*time.Second, time.Millisecond, "it arrives late")
	require.NoError(t, c.Ping(t.Context()).Err())
	l.Hold() // which doesn't keep the test from ending
	go c.Ping(context.WithoutCancel(t.Context()))
}

// Answers are late all together, not one after the other, in their order.
func TestALineIsSlow(t *testing.T) {
	l := line.New(t, proctest.StartRedis(t).Addr)
	c := client(t, l.Addr)
	require.NoError(t, c.Ping(t.Context()).Err())
	const delay, commands = 100 * time.Millisecond, 100
	l.Delay(delay)
	begun := time.Now()
	pipe := c.Pipeline()
	for range commands {
		pipe.Incr(t.Context(), "n")
	}
	replies, err := pipe.Exec(t.Context())
	took := time.Since(begun)
	require.NoError(t, err, "one after the other they would take longer than the client waits")
	for i, reply := range replies {
		require.EqualValues(t, i+1, reply.(*redis.IntCmd).Val())
	}
	require.GreaterOrEqual(t, took, delay)
}

func TestAnnouncementsPass(t *testing.T) {
	server := proctest.StartRedis(t)
	l := line.New(t, server.Addr)
	c, direct := client(t, l.Addr), client(t, server.Addr)
	announcements := c.Subscribe(t.Context(), "x")
	defer func() { _ = announcements.Close() }()
	_, err := announcements.Receive(t.Context())
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, direct.Publish(t.Context(), "x", "y").Err())
		message, err := announcements.ReceiveMessage(t.Context())
		require.NoError(t, err)
		require.Equal(t, "y", message.Payload)
	}
	l.Arm(line.Cut{At: 1})
	require.Error(t, c.Incr(t.Context(), "a").Err())
	_, err = announcements.ReceiveTimeout(t.Context(), 10*time.Second)
	require.Error(t, err, "all connections are cut")
}

func TestTheProtocolIsRead(t *testing.T) {
	for _, text := range []string{"+OK\r\n", ":1\r\n", "$-1\r\n", "*-1\r\n", "*0\r\n", "$2\r\nab\r\n", "*2\r\n$1\r\na\r\n*1\r\n:1\r\n", "-ERR 3\r\n"} {
		got, err := line.Message(bufio.NewReader(strings.NewReader(text + "rest")))
		require.NoError(t, err)
		require.Equal(t, text, string(got))
	}
	for _, text := range []string{"", "*2\r\n:1\r\n", "$5\r\nab\r\n", "$x\r\n"} {
		_, err := line.Message(bufio.NewReader(strings.NewReader(text)))
		require.Error(t, err, "%q", text)
	}
	for name, text := range map[string]string{"GET": "*2\r\n$3\r\nget\r\n$1\r\nk\r\n", "PING": "*1\r\n$4\r\nPING\r\n", "": "+OK\r\n"} {
		require.Equal(t, name, line.Name([]byte(text)))
	}
}
