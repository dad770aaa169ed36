package session

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func newMasters(t *testing.T) *masters {
	t.Helper()
	m := openSentinel(storeURL{kind: kindSentinel, master: "m", hosts: []string{"127.0.0.1:1"}},
		OpenOptions{}, clientOptions(storeURL{}, OpenOptions{})).masters
	t.Cleanup(func() { _ = m.close() })
	return m
}

// of is what Sentinels say, of which so many of three answered.
func of(master string, epoch int64, answered ...string) naming {
	n := naming{master: master, epoch: epoch, all: 3, because: map[string]bool{}}
	for _, id := range answered {
		n.because[id] = true
	}
	return n
}

// line is a connection that remembers whether it was closed.
type line struct {
	net.Conn
	closed bool
}

func (l *line) Close() error {
	l.closed = true
	return nil
}

func TestConnectionsToAnotherMasterAreClosed(t *testing.T) {
	m := newMasters(t)
	require.NoError(t, m.believe(of("old:1", 1, "a", "b", "c")))
	conn := &line{}
	_, err := m.place(conn, "old:1")
	require.NoError(t, err)
	require.NoError(t, m.believe(of("old:1", 1, "a")))
	require.False(t, conn.closed)
	require.NoError(t, m.believe(of("new:1", 2, "b")), "one that knows more is believed")
	require.True(t, conn.closed)
	require.Empty(t, m.placed)

	late := &line{}
	_, err = m.place(late, "old:1")
	require.ErrorIs(t, err, errMoved, "it was being opened")
	require.True(t, late.closed)
}

// A Sentinel that was cut off knows the old master; more than half of them that know of
// nothing newer have been set up anew.
func TestOlderConfigurationIsBelievedToAMajorityOnly(t *testing.T) {
	m := newMasters(t)
	require.NoError(t, m.believe(of("new:1", 7, "a", "b", "c")))
	require.ErrorContains(t, m.believe(of("old:1", 6, "c")), "older configuration")
	require.Equal(t, "new:1", m.master)
	require.NoError(t, m.believe(of("other:1", 0, "a", "b")))
	require.Equal(t, "other:1", m.master)
}

func TestSentinelsComeAndGo(t *testing.T) {
	m := newMasters(t)
	known := func() (addresses []string) {
		for address := range m.sentinels {
			addresses = append(addresses, address)
		}
		return addresses
	}
	n := of("a:1", 1, "a")
	n.others = []string{"127.0.0.1:2", "127.0.0.1:3"}
	require.NoError(t, m.believe(n))
	require.ElementsMatch(t, []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, known())
	n.others = []string{"127.0.0.1:3"}
	require.NoError(t, m.believe(n))
	require.ElementsMatch(t, []string{"127.0.0.1:1", "127.0.0.1:3"}, known(), "those of the URL stay")
	require.NoError(t, m.close())
	require.NoError(t, m.believe(n))
	require.Empty(t, known())
	_, err := m.locate(context.Background())
	require.Error(t, err)
}

func TestNoSentinelIsInReach(t *testing.T) {
	client, err := Open("redis+sentinel://127.0.0.1:1,127.0.0.1:2/the-master", OpenOptions{Timeout: time.Second})
	require.NoError(t, err)
	err = client.Ping(t.Context()).Err()
	require.ErrorContains(t, err, "no Sentinel names the master: ")
	require.ErrorContains(t, err, "127.0.0.1:2: ")
	require.NoError(t, client.Close())
	require.ErrorIs(t, client.Ping(t.Context()).Err(), redis.ErrClosed)
}
