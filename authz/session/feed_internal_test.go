package session

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// FuzzFeedPlace states that whatever a client sends for its place gets a reset, or the
// end of what is in the ring, whole and in order; and that a place of ours gets just what
// came behind it.
func FuzzFeedPlace(f *testing.F) {
	now := time.UnixMilli(1_800_000_000_000)
	feed := newFeed(&Store{o: Options{Now: func() time.Time { return now }}})
	const first, events = 40, 20
	feed.boot, feed.first, feed.known, feed.since = "ours", first, true, now.Add(-10*time.Minute)
	for i := range events {
		feed.ring = append(feed.ring, authz.FeedEvent{
			Kind: authz.FeedSessionEnded, Session: fmt.Sprint(i), Time: now.Add(time.Duration(i-events) * 10 * time.Second),
		})
	}
	place := func(back time.Duration, boot string, number int64) string {
		return fmt.Sprintf("%d.%s.%d", now.Add(-back).UnixMilli(), boot, number)
	}
	for _, seed := range []string{
		"", ".", "..", place(0, "ours", first+events-1), place(0, "ours", first-1), place(0, "ours", first-2), place(0, "ours", first+events), place(0, "ours", 9223372036854775807),
		place(0, "ours", -1), place(time.Minute, "other", 1), place(time.Hour, "other", 1), place(-time.Hour, "other", 1), "9223372036854775807.other.1", "0.ours.45", "1.2.3.4", "+1.other.+1",
		"1800000000000.ours.045", "x\r\nid: y",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		missed, reset := feed.behind(text)
		if reset != "" {
			require.Empty(t, missed)
			return
		}
		require.LessOrEqual(t, len(missed), events)
		for i, e := range missed {
			require.Equal(t, feed.ring[events-len(missed)+i], e)
		}
		at, boot, number, ok := parsePlace(text)
		require.True(t, ok)
		if boot == feed.boot {
			require.Equal(t, int64(first+events-1), number+int64(len(missed)))
			return
		}
		heard := 0
		for _, e := range feed.ring {
			if !e.Time.Before(at.Add(-feedOverlap)) {
				heard++
			}
		}
		require.Len(t, missed, heard, "nothing since then is left out")
	})
}

func TestAMarksLastMillisecondIsAnEnd(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	s := &Store{o: Options{Now: func() time.Time { return now }}}
	for ttl, want := range map[time.Duration]time.Time{ttlAbsent: {}, ttlNever: {}, 0: now, time.Second: now.Add(time.Second)} {
		require.Equal(t, want, s.expiry(ttl), "%d", ttl)
	}
}
