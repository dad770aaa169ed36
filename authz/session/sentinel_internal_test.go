package session

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// newMasters knows of the Sentinels that a URL names.
func newMasters(t *testing.T, named ...string) *masters {
	t.Helper()
	m := openSentinel(storeURL{kind: kindSentinel, master: "m", hosts: named},
		OpenOptions{}, clientOptions(storeURL{}, OpenOptions{})).masters
	t.Cleanup(func() { _ = m.close() })
	return m
}

// of is what Sentinels say, each of which knows of so many.
func of(all int, master string, epoch int64, ids ...string) (answers []naming) {
	for _, id := range ids {
		answers = append(answers, naming{id: id, master: master, epoch: epoch, all: all})
	}
	return answers
}

// heard is a question that was answered so, each Sentinel at an address that is its id.
func heard(m *masters, answers ...naming) *poll {
	p := newPoll(len(answers))
	for _, n := range answers {
		m.hear(p, n.id, n)
	}
	return p
}

// believes has it answered and believed, and reports whether it is the word of the
// Sentinels.
func believes(t *testing.T, m *masters, answers ...naming) (word bool) {
	t.Helper()
	p := heard(m, answers...)
	require.NoError(t, m.believe(p))
	return p.agreed
}

// line is a connection that remembers whether it was closed.
type line struct {
	net.Conn
	closed bool
}

func (l *line) Close() error {
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	return nil
}

func TestConnectionsToAnotherMasterAreClosed(t *testing.T) {
	m := newMasters(t, "a")
	believes(t, m, of(3, "old:1", 1, "a", "b", "c")...)
	conn := &line{}
	placed, err := m.place(conn, "old:1")
	require.NoError(t, err)
	believes(t, m, of(3, "old:1", 1, "a")...)
	require.False(t, conn.closed)
	believes(t, m, of(3, "new:1", 2, "b")...)
	require.True(t, conn.closed, "one that knows more is believed")
	require.Empty(t, m.placed)
	require.NoError(t, placed.Close(), "the pool closes it, too")

	late := &line{}
	_, err = m.place(late, "old:1")
	require.ErrorIs(t, err, errMoved, "it was being opened")
	require.True(t, late.closed)
}

// A Sentinel that was cut off knows the old master; more than half of them that know of
// nothing newer have been set up anew.
func TestOlderConfigurationIsBelievedToAMajorityOnly(t *testing.T) {
	m := newMasters(t, "a", "b", "c")
	believes(t, m, of(3, "new:1", 7, "a", "b", "c")...)
	older := func(answers ...naming) {
		t.Helper()
		require.ErrorContains(t, m.believe(heard(m, answers...)), "older configuration")
		require.Equal(t, "new:1", m.master)
	}
	older(of(3, "old:1", 6, "c")...)
	older(of(1, "old:1", 0, "a")...) // begun anew: it knows no others
	older(append(of(3, "other:1", 1, "a"), of(3, "old:1", 0, "b")...)...)
	believes(t, m, of(3, "other:1", 0, "a", "b")...)
	require.Equal(t, "other:1", m.master)
}

// One that begins anew on the small side of a split network knows no others, and names
// the master of its configuration: it isn't believed alone, neither by who names all
// of them nor by who learnt of them.
func TestASentinelThatBeginsAnewIsNotBelievedAlone(t *testing.T) {
	anew := of(1, "old:1", 9, "a")
	for name, m := range map[string]*masters{
		"named":             newMasters(t, "a", "b", "c"),
		"answered":          newMasters(t, "a"),
		"answered, of five": newMasters(t, "a"),
	} {
		t.Run(name, func(t *testing.T) {
			others := []string{"a", "b", "c"}
			switch name {
			case "answered, of five":
				others = append(others, "d", "e")
				fallthrough
			case "answered":
				require.True(t, believes(t, m, of(len(others), "new:1", 1, others...)...))
			}
			require.False(t, believes(t, m, anew...))
			require.False(t, believes(t, m, anew...), "nor later")
			both := of(2, "old:1", 9, "a", "b")
			require.Equal(t, len(others) == 3, believes(t, m, both...))
		})
	}
	require.True(t, believes(t, newMasters(t, "a"), anew...), "who knows of no other can't tell")
}

// Sentinels that are gone for good count no more when more than half of those that there
// were say so.
func TestSentinelsBecomeFewer(t *testing.T) {
	all := []string{"a", "b", "c", "d", "e"}
	say := func(n int) []naming { return of(n, "x:1", 1, all[:n]...) }
	for name, m := range map[string]*masters{"named": newMasters(t, all...), "one named": newMasters(t, "a")} {
		t.Run(name, func(t *testing.T) {
			require.True(t, believes(t, m, say(5)...))
			require.False(t, believes(t, m, say(2)...), "two of five are cut off")
			require.True(t, believes(t, m, say(3)...), "three are more than half of five")
			require.True(t, believes(t, m, of(3, "x:1", 1, "b", "c")...), "and two of three")
			require.False(t, believes(t, m, of(3, "x:1", 1, "b")...))
			require.True(t, believes(t, m, say(2)...))
			require.False(t, believes(t, m, say(1)...), "who is left is cut off, perhaps")
			require.True(t, believes(t, m, say(2)...))
			require.True(t, believes(t, m, say(5)...), "others come")
			require.False(t, believes(t, m, say(2)...))
		})
	}
	t.Run("one is down that is still listed", func(t *testing.T) {
		m := newMasters(t, all...)
		require.True(t, believes(t, m, say(5)...))
		require.True(t, believes(t, m, of(5, "x:1", 1, "a", "b", "c")...))
		require.False(t, believes(t, m, say(2)...), "there are five")
	})
	t.Run("those that never answered are forgotten when they are listed no more", func(t *testing.T) {
		m := newMasters(t, "a", "b", "c")
		require.False(t, believes(t, m, of(9, "x:1", 1, "a", "b", "c")...))
		require.True(t, believes(t, m, say(3)...))
	})
}

// A Sentinel may be named by two names.
func TestASentinelCountsOnce(t *testing.T) {
	m := newMasters(t, "host", "a", "b", "c")
	p := newPoll(4)
	one := of(1, "x:1", 1, "1")[0]
	for _, address := range []string{"host", "a"} {
		m.sentinels[address].id = "1" // it told us
		m.hear(p, address, one)
	}
	require.False(t, p.agreed, "one of three")
	m.hear(p, "b", of(3, "x:1", 1, "2")[0])
	require.True(t, p.agreed, "two of three, though four are named")
	require.Equal(t, 3, p.of)
}

// Who reads it is told how many agree, what is with each of the others, and what to do.
func TestADoubtIsExplained(t *testing.T) {
	m := newMasters(t, "a:1", "b:1", "c:1", "d:1")
	p := newPoll(4)
	m.hear(p, "a:1", of(4, "x:1", 1, "1")[0])
	m.hear(p, "b:1", of(4, "y:1", 2, "2")[0])
	p.errs["d:1"], p.errs["c:1"] = errors.New("i/o timeout"), errors.New("NOAUTH")
	const remedy = "; have the others start; 'SENTINEL RESET m' at those that are left forgets those that are gone for good; if these are half of them, name those that are left in redis.url, and restart Gatehouse where it names just them already"
	require.Equal(t, "is x:1 the master? 1 of 4 Sentinels say so, and more than half must; b:1 names y:1; c:1: NOAUTH; d:1: i/o timeout"+remedy, m.doubt(p, "x:1"))

	p = heard(m, of(3, "x:1", 1, "1", "2", "3")...)
	p.at = p.at.Add(-3 * time.Second)
	require.Regexp(t, `^is x:1 the master\? The Sentinels said so 3(\.\d+)?s after they were asked, and that counts for 2s only$`, m.doubt(p, "x:1"))
}

// At one and the same configuration that master counts which most name, whoever answers
// first: else all connections to it would be closed each time that another one is faster.
func TestAtEqualEpochsTheMajorityIsBelieved(t *testing.T) {
	for _, ids := range [][]string{{"1", "2", "3"}, {"2", "3", "1"}, {"3", "1", "2"}} {
		a, b := of(3, "a:1", 4, ids[0], ids[1]), of(3, "b:1", 4, ids[2])[0]
		for name, order := range map[string][]naming{
			"the one is first":    {b, a[0], a[1]},
			"the one is between":  {a[0], b, a[1]},
			"the one is last":     {a[0], a[1], b},
			"half of it is older": {a[0], b, of(3, "a:1", 3, ids[1])[0]},
		} {
			t.Run(name+", and is "+ids[2], func(t *testing.T) {
				m := newMasters(t, ids...)
				require.True(t, believes(t, m, a...))
				conn := &line{}
				_, err := m.place(conn, "a:1")
				require.NoError(t, err)
				require.True(t, believes(t, m, order...))
				require.Equal(t, "a:1", m.master)
				require.False(t, conn.closed)
				require.True(t, m.vouched("a:1"))
			})
		}
	}
	t.Run("those that answer are too few", func(t *testing.T) {
		m := newMasters(t, "1", "2", "3", "4", "5", "6", "7")
		require.False(t, believes(t, m, of(7, "b:1", 4, "1")[0], of(7, "a:1", 4, "2")[0], of(7, "a:1", 4, "3")[0]))
		require.Equal(t, "a:1", m.master)
	})
}

// One that is wrong about how many there are keeps nobody from the master.
func TestOneThatKnowsTooManyStopsNobody(t *testing.T) {
	for _, wrong := range []int{1, 1000} {
		for i := range 3 { // whoever answers first
			m := newMasters(t, "1", "2", "3")
			answers := of(3, "x:1", 1, "1", "2", "3")
			answers[i].all = wrong
			require.True(t, believes(t, m, answers...))
			require.True(t, believes(t, m, answers...))
			require.False(t, believes(t, m, answers[:1]...))
		}
	}
	m := newMasters(t, "1", "2", "3", "4", "5")
	require.True(t, believes(t, m, of(5, "x:1", 1, "1", "2", "3", "4", "5")...))
	require.True(t, believes(t, m, append(of(2, "x:1", 1, "1", "2"), of(5, "x:1", 1, "3")...)...))
	require.False(t, believes(t, m, of(2, "x:1", 1, "1", "2")...), "two that began anew make no two of five: the third remembers them")
}

// A newer configuration is known to one Sentinel first: so it is believed, until it must
// have spread. Who then still is alone with it is wrong, and stops nobody.
func TestOneThatIsAloneWithItsConfigurationStopsNobody(t *testing.T) {
	m := newMasters(t, "1", "2", "3")
	start := time.Now()
	ask := func(after time.Duration, answers ...naming) *poll {
		t.Helper()
		p := newPoll(len(answers))
		p.at = start.Add(after)
		for _, n := range answers {
			m.hear(p, n.id, n)
		}
		require.NoError(t, m.believe(p))
		return p
	}
	others, wrong := of(3, "a:1", 4, "1", "2"), of(3, "b:1", 1e9, "3")[0]
	ask(0, append(others, of(3, "a:1", 4, "3")...)...)
	require.Equal(t, "a:1", m.master)
	for _, after := range []time.Duration{0, newsSpreads - 1} {
		require.True(t, ask(after, append(others, wrong)...).agreed)
		require.Equal(t, "b:1", m.master, "it may be a failover")
	}
	for _, order := range [][]naming{{wrong, others[0], others[1]}, {others[0], wrong, others[1]}, {others[0], others[1], wrong}} {
		require.True(t, ask(newsSpreads, order...).agreed)
		require.Equal(t, "a:1", m.master)
		wrong.epoch++ // that it says something else doesn't make it right
	}
	require.False(t, ask(newsSpreads, others[0], wrong).agreed)
	require.Equal(t, "b:1", m.master, "one of two is no majority")
	ask(newsSpreads, append(others, wrong)...)

	// Others are heard as before.
	ask(newsSpreads, others[0], of(3, "c:1", 5, "2")[0])
	require.Equal(t, "c:1", m.master)
	require.True(t, ask(newsSpreads, append(of(3, "c:1", 5, "1", "2"), wrong)...).agreed)
	require.Equal(t, "c:1", m.master)

	// It is one of them again when it says what they say, or something older.
	ask(newsSpreads, append(of(3, "c:1", 5, "1", "2"), of(3, "a:1", 4, "3")...)...)
	ask(2*newsSpreads, append(of(3, "c:1", 5, "1", "2"), of(3, "d:1", 6, "3")...)...)
	require.Equal(t, "d:1", m.master)
}

// Sentinels that were copied with their id count once, and who wonders why is told.
func TestSentinelsOfOneIDAreTold(t *testing.T) {
	m := newMasters(t, "a:1", "b:1", "c:1")
	p := newPoll(3)
	for _, address := range m.named {
		m.hear(p, address, of(3, "x:1", 1, "same")[0])
	}
	require.False(t, p.agreed)
	require.Contains(t, m.doubt(p, "x:1"), "1 of 3 Sentinels say so, and more than half must; a:1 and b:1 and c:1 have the same SENTINEL MYID and count once: ")
}

func TestSentinelsComeAndGo(t *testing.T) {
	m := newMasters(t, "a")
	known := func() (addresses []string) {
		for address := range m.sentinels {
			addresses = append(addresses, address)
		}
		return addresses
	}
	a := of(3, "x:1", 1, "a")[0]
	a.others = []string{"b", "c"}
	require.False(t, believes(t, m, a))
	require.ElementsMatch(t, []string{"a", "b", "c"}, known())
	b := of(3, "x:1", 1, "b")[0]
	b.others = []string{"a", "d"}
	require.True(t, believes(t, m, slices.Concat([]naming{b}, of(3, "x:1", 1, "d"))...))
	require.ElementsMatch(t, []string{"a", "b", "d"}, known(), "nobody lists itself, and those of the URL stay")
	require.False(t, believes(t, m, of(1, "x:1", 1, "a")...))
	require.ElementsMatch(t, []string{"a", "b", "d"}, known(), "one that begins anew has nobody forgotten")
	require.NoError(t, m.close())
	require.ErrorIs(t, m.believe(heard(m, b)), redis.ErrClosed)
	require.Empty(t, known())
	_, err := m.locate(context.Background())
	require.ErrorIs(t, err, redis.ErrClosed)
	require.NotContains(t, err.Error(), "%")
}

func TestNoSentinelIsInReach(t *testing.T) {
	client, err := Open("redis+sentinel://127.0.0.1:1,127.0.0.1:2/the-master", OpenOptions{Timeout: time.Second})
	require.NoError(t, err)
	err = client.Ping(t.Context()).Err()
	require.ErrorContains(t, err, "no Sentinel names the master: 127.0.0.1:1: ")
	require.ErrorContains(t, err, "; 127.0.0.1:2: ")
	require.NotContains(t, err.Error(), "\n")
	require.NoError(t, client.Close())
	require.ErrorIs(t, client.Ping(t.Context()).Err(), redis.ErrClosed)
}
