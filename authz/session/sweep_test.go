package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

func quoted(t *testing.T, text string) string {
	t.Helper()
	quoted, err := json.Marshal(text)
	require.NoError(t, err)
	return string(quoted)
}

// However another program wrote the user's id, the gate would take it for the
// user's, and a sweep must find it; nothing else.
func TestSweepFindsWhatTheGateWouldTakeForTheUsers(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		for userID, records := range map[string]map[string]bool{
			"42": {
				`{"userId":42}`: true, `{"userId":"42"}`: true, `{"userId":"\u0034\u0032"}`: true, `{"userId":"4\u0032","x":"\\"}`: true,
				`{"userId":420}`: false, `{"userId":4,"x":42}`: false, `{"userId":42.0}`: false, `{"userId":"42 "}`: false, `{"x":{"userId":42}}`: false,
			},
			"a/b":     {`{"userId":"a\/b"}`: true, `{"userId":"a/b"}`: true, `{"userId":"A/B"}`: false},
			"a\uFFFD": {"{\"userId\":\"a\xff\"}": true, `{"userId":"a\ud800"}`: true, "{\"userId\":\"a\uFFFD\"}": true, `{"userId":"a"}`: false},
			"u":       {`{"userId":"v","userId":"u"}`: true, `{"userId":"u","userId":"v"}`: false, `{"userId":["u"]}`: false, `["u"]`: false, `u`: false, ``: false},
		} {
			for record, want := range records {
				f := s.store(t, living)
				f.set(t, "sess:id", record, time.Hour)
				n, err := f.RevokeUser(t.Context(), userID)
				require.NoError(t, err)
				if want {
					require.Equal(t, 1, n, record)
					f.gone(t, "id")
				} else {
					require.Zero(t, n, record)
					require.True(t, f.exists(t, "sess:id"), record)
				}
			}
		}
	})
}

// The prefix is no pattern, and what lies beside it is none of ours.
func TestSweepLooksAtSessionRecordsOnly(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		for _, prefix := range []string{"sess:", "s[e]ss*:", `a\b?:`, "{app}:sess:", "^s$:"} {
			f := s.store(t, session.Options{Prefix: prefix})
			beside := []string{"sess", "sesss:x", "ss:x", "sess*:x", "ab?:x", "app:sess:x", "xsess:x", "s:"}
			for _, key := range beside {
				if !strings.HasPrefix(key, prefix) {
					f.set(t, key, `{"userId":"u"}`, time.Hour)
				}
			}
			f.set(t, prefix+"id", `{"userId":"u"}`, time.Hour)
			f.set(t, prefix+"a:b", `{"userId":"u"}`, time.Hour)
			require.NoError(t, f.client.HSet(t.Context(), prefix+"hash", "userId", "u").Err())
			n, err := f.RevokeUser(t.Context(), "u")
			require.NoError(t, err)
			require.Equal(t, 2, n, prefix)
			for _, key := range beside {
				require.True(t, strings.HasPrefix(key, prefix) || f.exists(t, key), key)
			}
		}
	})
}

// Many more records than one step takes; the server is never asked for all of
// them at once.
func TestSweepIsManySmallSteps(t *testing.T) {
	f := newServer(t, backends[1]).store(t, living)
	const records = 3000
	pipe := f.client.Pipeline()
	for i := range records {
		pipe.Set(t.Context(), fmt.Sprint("sess:", i), fmt.Sprintf(`{"userId":"u%d"}`, i%1000), time.Hour)
	}
	_, err := pipe.Exec(t.Context())
	require.NoError(t, err)
	trips := &roundTrips{}
	f.client.AddHook(trips)
	n, err := f.RevokeUser(t.Context(), "u7")
	require.NoError(t, err)
	require.Equal(t, 3, n)
	count, names := trips.take()
	scans, most := 0, 0
	for _, name := range names {
		require.NotEqual(t, "keys", name)
		if name == "scan" {
			scans++
		}
	}
	for _, batch := range trips.batches() {
		most = max(most, batch)
	}
	require.GreaterOrEqual(t, scans, records/400)
	require.LessOrEqual(t, most, 50)
	require.Less(t, count, 60)
}

// Large records don't leave the server that are another user's, nor do they all
// at once that are the user's; and one hiccup doesn't end the walk.
func TestSweepOfLargeRecords(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		o := living
		o.Timeout = patience
		f := s.store(t, o)
		large := strings.Repeat("x", 300<<10)
		for i := range 40 {
			f.set(t, fmt.Sprint("sess:", i), fmt.Sprintf(`{"userId":"u%d","x":%q}`, i%2, large), time.Hour)
		}
		failed := map[string]bool{}
		f.client.AddHook(&roundTrips{fail: func(names []string) error {
			if first := names[0]; (first == "scan" || first == "evalsha") && !failed[first] {
				failed[first] = true
				return errors.New("a hiccup")
			}
			return nil
		}})
		n, err := f.RevokeUser(t.Context(), "u1")
		require.NoError(t, err)
		require.Equal(t, 20, n)
		require.True(t, f.exists(t, "sess:0"))
		require.Len(t, failed, 2)
	})
}

// A cursor of one server is nothing to another one: a sweep that was under way
// while Redis was replaced begins again.
func TestSweepBeginsAgainOnAnotherServer(t *testing.T) {
	port := proctest.FreePort(t)
	proctest.Need(t, "redis-server")
	start := func() *proc.Redis {
		t.Helper()
		r, err := proc.StartRedis(context.WithoutCancel(t.Context()), proc.RedisOptions{Dir: t.TempDir(), Port: port})
		require.NoError(t, err)
		t.Cleanup(func() { _ = r.Stop() })
		return r
	}
	client, err := session.Open("redis://"+proc.Local(port), session.OpenOptions{Timeout: patience})
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	store := session.New(client, session.Options{Timeout: patience})
	fill := func() {
		t.Helper()
		pipe := client.Pipeline()
		for i := range 2000 {
			pipe.Set(t.Context(), fmt.Sprint("sess:", i), `{"userId":"u"}`, time.Hour)
		}
		_, err := pipe.Exec(t.Context())
		require.NoError(t, err)
	}
	server := start()
	fill()
	scans := 0
	trips := &roundTrips{}
	trips.fail = func(names []string) error {
		if names[0] != "scan" {
			return nil
		}
		if scans++; scans == 3 {
			trips.mu.Unlock()
			defer trips.mu.Lock()
			require.NoError(t, server.Stop())
			start()
			require.Eventually(t, func() bool { return store.Ping(t.Context()) == nil }, 20*time.Second, 10*time.Millisecond)
			fill()
		}
		return nil
	}
	client.AddHook(trips)
	n, err := store.RevokeUser(t.Context(), "u")
	require.NoError(t, err)
	require.Equal(t, 2000, n)
}

func TestSweepsTakeTurnsAndEndWithTheirCallers(t *testing.T) {
	f := newServer(t, backends[0]).store(t, living)
	f.foreign(t, "id", "u")
	scanning, release := make(chan struct{}), make(chan struct{})
	trips := &roundTrips{}
	trips.fail = func(names []string) error {
		if names[0] == "scan" {
			trips.mu.Unlock()
			defer trips.mu.Lock()
			scanning <- struct{}{}
			<-release
		}
		return nil
	}
	f.client.AddHook(trips)
	done := make(chan error, 2)
	go func() { _, err := f.RevokeUser(t.Context(), "u"); done <- err }()
	<-scanning

	ctx, cancel := context.WithCancel(t.Context())
	go func() { _, err := f.ChangeUser(ctx, "v", authz.UserChange{Roles: &[]string{}}); done <- err }()
	cancel() // while it waits for its turn, or before
	err := <-done
	requireReason(t, authz.ReasonStoreUnavailable, err)
	require.ErrorIs(t, err, context.Canceled)

	close(release)
	require.NoError(t, <-done)
	f.gone(t, "id")
}

func TestSweepThatFailsChangesNothing(t *testing.T) {
	for _, broken := range []string{"scan", "evalsha"} {
		f := newServer(t, backends[0]).store(t, living)
		id := f.login(t)
		f.foreign(t, "theirs", "u")
		f.client.AddHook(&roundTrips{fail: func(names []string) error {
			if names[0] == broken {
				return errors.New("cut off")
			}
			return nil
		}})
		_, err := f.RevokeUser(t.Context(), "u")
		requireReason(t, authz.ReasonStoreUnavailable, err)
		_, err = f.ChangeUser(t.Context(), "u", authz.UserChange{Roles: &[]string{"admin"}})
		requireReason(t, authz.ReasonStoreUnavailable, err)
		require.True(t, f.exists(t, "sess:"+id))
		require.True(t, f.exists(t, "sess:theirs"))
		require.False(t, f.exists(t, "gatehouse:before:{user:u}"))
		require.False(t, f.exists(t, "user:u"))
	}
}
