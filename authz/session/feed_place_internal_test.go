package session

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session/internal/tracking"
)

// A place says up to when everything is known. Between a gap and the reset that tells of it
// that is no later than before the gap: another replica would leave the gap out.
func TestPlacesDontReachBeyondAGap(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f := newFeed(&Store{o: Options{Now: func() time.Time { return now }}})
	f.tracker = tracking.New(redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}), tracking.Options{})
	place := func() time.Time {
		t.Helper()
		at, boot, number, ok := parsePlace(f.placeOf(7))
		require.True(t, ok)
		require.Equal(t, f.boot, boot)
		require.Equal(t, int64(7), number)
		return at
	}
	require.Equal(t, int64(1), place().UnixMilli(), "nothing is known yet")
	f.known = true
	before := place()
	require.WithinDuration(t, now, before, time.Minute)
	for name, gap := range map[string]func(on bool){
		"other connections": func(on bool) { f.epoch = map[bool]uint32{true: 1}[on] },
		"emptied":           func(on bool) { f.spoilt = map[bool]string{true: authz.FeedReasonFlushed}[on] },
	} {
		gap(true)
		now = now.Add(time.Hour)
		require.Equal(t, before, place(), name)
		gap(false)
		now = now.Add(-time.Hour)
	}
	now = now.Add(time.Hour)
	require.True(t, place().After(before))
}
