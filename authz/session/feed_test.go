package session_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authztest"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// ear is somebody who follows the feed.
type ear struct {
	t      *testing.T
	events <-chan authz.FeedEvent
	where  func() string
	stop   func()
	last   authz.FeedEvent
}

func listen(t *testing.T, s *session.Store, place string) *ear {
	t.Helper()
	e := &ear{t: t}
	var err error
	e.events, e.where, e.stop, err = s.Follow(place)
	require.NoError(t, err)
	t.Cleanup(e.stop)
	return e
}

// next returns the next event.
func (e *ear) next() authz.FeedEvent {
	e.t.Helper()
	select {
	case got, ok := <-e.events:
		require.True(e.t, ok, "cut off")
		return got
	case <-time.After(30 * time.Second):
		require.FailNow(e.t, "no event came")
		return authz.FeedEvent{}
	}
}

// told returns the next event that tells something: where heartbeats come often, one is late
// on a busy machine at times.
func (e *ear) told() authz.FeedEvent {
	e.t.Helper()
	got := e.next()
	for got.Kind == authz.FeedLag || got.Kind == authz.FeedLive {
		got = e.next()
	}
	return got
}

// is requires an event, but for its place and time, and returns it. The one before may be
// repeated.
func (e *ear) is(want authz.FeedEvent) authz.FeedEvent {
	e.t.Helper()
	got, plain := e.plain()
	for plain == e.last && plain != want {
		got, plain = e.plain()
	}
	e.last = want
	require.Equal(e.t, want, plain)
	return got
}

func (e *ear) plain() (got, plain authz.FeedEvent) {
	e.t.Helper()
	got = e.next()
	plain = got
	plain.ID, plain.Time = "", time.Time{}
	return got, plain
}

// until returns the events up to one, that one left out.
func (e *ear) until(want authz.FeedEvent) (before []authz.FeedEvent) {
	e.t.Helper()
	for {
		got := e.next()
		got.ID, got.Time = "", time.Time{}
		if got == want {
			return before
		}
		before = append(before, got)
	}
}

func (e *ear) reset(reason string) {
	e.t.Helper()
	e.is(authz.FeedEvent{Kind: authz.FeedReset, Reason: reason})
}

// place is where it is when it has taken everything.
func (e *ear) place() (place string) {
	e.t.Helper()
	require.Eventually(e.t, func() bool { place = e.where(); return place != "" }, 30*time.Second, time.Millisecond)
	return place
}

func (e *ear) live() string { e.t.Helper(); return e.is(authz.FeedEvent{Kind: authz.FeedLive}).ID }

func sessionEnded(id, user, reason string) authz.FeedEvent {
	return authz.FeedEvent{Kind: authz.FeedSessionEnded, Session: authz.Handle(id), UserID: user, Reason: reason}
}

// The revocation feed tells of whatever ends, whoever ends it, on every kind of server.
func TestFeedTellsWhatEnds(t *testing.T) {
	onBackends(t, slices.Concat(announcing, guarded[2:3]), func(s *server) {
		t := s.t
		f := s.cached(t, session.Options{Feed: true})
		another := session.New(f.own, session.Options{Timeout: patience, Profiles: true})
		ctx := t.Context()
		e := listen(t, f.Store, "")
		e.reset(authz.FeedReasonNew)
		e.live()

		ours := f.login(t)
		require.NoError(t, another.Revoke(ctx, ours))
		got := e.is(sessionEnded(ours, "u", authz.FeedReasonRevoked))
		require.NotEmpty(t, got.ID)
		require.NotContains(t, got.ID, ours)

		// An Express application removes its record. Whose it was, the cache remembers.
		f.foreign(t, "expressed", "x")
		f.settle(t)
		_, err := f.Session(ctx, "expressed", authz.ReadOptions{})
		require.NoError(t, err)
		require.NoError(t, f.client.Del(ctx, "sess:expressed").Err())
		e.is(sessionEnded("expressed", "x", authz.FeedReasonGone))
		f.foreign(t, "unseen", "x")
		require.NoError(t, f.client.Del(ctx, "sess:unseen").Err())
		e.is(sessionEnded("unseen", "", authz.FeedReasonGone))

		// A login in place of another session.
		old := f.login(t)
		f.login(t, func(l *authz.Login) { l.Replaces = old })
		e.is(sessionEnded(old, "u", authz.FeedReasonRevoked))

		require.NoError(t, another.RevokeToken(ctx, "jti-1", time.Now().Add(time.Hour)))
		got = e.next()
		require.Equal(t, authz.FeedTokenRevoked, got.Kind)
		require.Equal(t, "jti-1", got.TokenID)
		require.WithinDuration(t, time.Now().Add(time.Hour), got.Expires, time.Minute)
		f.set(t, "revoked:by-hand", "x", time.Hour)
		require.Equal(t, "by-hand", e.next().TokenID)

		c := f.family(t, "fam-1")
		require.NoError(t, another.RevokeFamily(ctx, c.family, time.Now().Add(time.Hour)))
		got = e.next()
		require.Equal(t, authz.FeedFamilyRevoked, got.Kind)
		require.Equal(t, authz.Handle("fam-1"), got.Session)
		require.Equal(t, "u", got.UserID)
		reused := session.New(f.own, session.Options{Timeout: patience, RefreshGrace: -1})
		stolen := fixture{Store: reused, client: f.client, own: f.own}
		c = stolen.family(t, "fam-2")
		stolen.rotate(t, c, 0)
		stolen.notRotated(t, c, 0, authz.ReasonRefreshReused)
		stolen.notRotated(t, c, 0, authz.ReasonRefreshInvalid)
		got = e.next()
		require.Equal(t, []string{authz.Handle("fam-2"), "u"}, []string{got.Session, got.UserID})

		// A user locked out, and let in.
		off, on := true, false
		_, err = another.ChangeUser(ctx, "v", authz.UserChange{Disabled: &off})
		require.NoError(t, err)
		e.is(authz.FeedEvent{Kind: authz.FeedUserDisabled, UserID: "v"})
		_, err = another.ChangeUser(ctx, "v", authz.UserChange{Disabled: &on})
		require.NoError(t, err)

		// All that a user has, that of another program included.
		one := f.login(t, as("w"))
		f.foreign(t, "two", "w")
		n, err := another.RevokeUser(ctx, "w")
		require.NoError(t, err)
		require.Equal(t, 2, n)
		seen := map[string]bool{}
		for range 3 {
			got := e.next()
			require.Equal(t, "w", got.UserID)
			if got.Kind == authz.FeedUserRevoked {
				require.WithinDuration(t, time.Now(), got.Before, time.Minute)
			}
			seen[got.Session] = true
		}
		require.Equal(t, map[string]bool{"": true, authz.Handle(one): true, authz.Handle("two"): true}, seen)

		// What is no end: writes, renewals, marks that run out.
		f.foreign(t, "lives", "x")
		require.NoError(t, f.client.Expire(ctx, "sess:lives", time.Hour).Err())
		require.NoError(t, f.client.Del(ctx, "revoked:by-hand").Err())
		require.NoError(t, another.Revoke(ctx, "lives"))
		e.is(sessionEnded("lives", "x", authz.FeedReasonRevoked))
		// A late save by a program that has it in memory brings nothing back, and tells
		// nobody again.
		f.foreign(t, "lives", "x")
		require.NoError(t, another.Revoke(ctx, "last"))
		e.is(sessionEnded("last", "", authz.FeedReasonRevoked))
		st, _ := f.FeedStats()
		require.Equal(t, 1, st.Followers)
		require.True(t, st.Live)
		require.Equal(t, int64(2), st.Events[authz.FeedFamilyRevoked])
	})
}

// Who comes back goes on where it was: at the same replica exactly, at another one with
// some of it again.
func TestFeedGoesOn(t *testing.T) {
	onBackends(t, announcing[:1], func(s *server) {
		t := s.t
		clock := authztest.NewClock()
		o := session.Options{Feed: true, Now: clock.Now}
		f := s.cached(t, o)
		o.Timeout, o.Cache = patience, &session.CacheOptions{}
		other := session.New(f.own, o)
		run(t, other)
		awaitLive(t, other)
		ctx := t.Context()
		end := func(id string) authz.FeedEvent {
			require.NoError(t, f.Revoke(ctx, id))
			return sessionEnded(id, "", authz.FeedReasonRevoked)
		}
		e := listen(t, f.Store, "")
		e.reset(authz.FeedReasonNew)
		place := e.live()
		first, second := end("1"), end("2")
		e.is(first)
		mid := e.is(second).ID
		third := end("3")
		e.is(third)
		e.stop()
		again := listen(t, f.Store, mid)
		again.is(third)
		require.NotEmpty(t, again.live())
		all := listen(t, f.Store, place)
		all.is(first)
		all.is(second)
		all.is(third)
		all.live()

		// The other replica listens as soon as it learns that somebody follows, and
		// knows nothing of before.
		session.ShareInterest(ctx, other)
		st, _ := other.FeedStats()
		require.False(t, st.Listening)
		session.ShareInterest(ctx, f.Store)
		session.ShareInterest(ctx, other)
		st, _ = other.FeedStats()
		require.True(t, st.Listening)
		elsewhere := listen(t, other, all.place())
		elsewhere.reset(authz.FeedReasonUnknown)
		elsewhere.live()

		clock.Advance(time.Minute)
		fourth := end("4")
		all.is(fourth)
		again.is(fourth)
		elsewhere.is(fourth)
		moved := listen(t, other, all.place())
		moved.is(fourth) // a second time, to be on the safe side
		moved.live()
		clock.Advance(2 * time.Minute)
		fifth := end("5")
		at := all.is(fifth).ID
		elsewhere.is(fifth)
		late := listen(t, other, at)
		late.is(fifth)
		late.live()

		for _, place := range []string{"x", "1.2", "-1.x.2", "1.x.y", "99999999999999999999.x.1", at + ".1", fmt.Sprint(clock.Now().Add(time.Hour).UnixMilli(), ".x.1"), "1.x.1"} {
			who := listen(t, other, place)
			who.reset(authz.FeedReasonUnknown)
			who.live()
		}

		// After ten minutes it is forgotten.
		clock.Advance(11 * time.Minute)
		require.Eventually(t, func() bool {
			who := listen(t, f.Store, mid)
			defer who.stop()
			return who.next().Kind == authz.FeedReset
		}, 20*time.Second, 10*time.Millisecond)
	})
}

// A follower that takes nothing costs nothing, and is cut off when what it has not taken
// is forgotten. One that comes back gets all that it missed, however much.
func TestFeedCutsWhoIsSlow(t *testing.T) {
	onBackends(t, announcing[:1], func(s *server) {
		t := s.t
		f := s.cached(t, session.Options{Feed: true})
		quick, slow := listen(t, f.Store, ""), listen(t, f.Store, "")
		quick.reset(authz.FeedReasonNew)
		quick.live()
		const events, mid = session.MostFeedEvents + 10, session.MostFeedEvents - 5000
		pipe := f.client.Pipeline()
		for i := range events {
			pipe.Set(t.Context(), fmt.Sprintf("revoked:%05d", i), "1", time.Hour)
		}
		_, err := pipe.Exec(t.Context())
		require.NoError(t, err)
		place := ""
		for i := range events {
			got := quick.told()
			require.Equal(t, fmt.Sprintf("%05d", i), got.TokenID)
			if i == mid {
				place = got.ID
			}
		}
		require.Empty(t, slow.where())
		back := listen(t, f.Store, place)
		for i := mid + 1; i < events; i++ {
			require.Equal(t, fmt.Sprintf("%05d", i), back.told().TokenID)
		}
		for e := range slow.events {
			place = e.ID
			require.Empty(t, e.TokenID)
		}
		listen(t, f.Store, place).reset(authz.FeedReasonUnknown)
		st, _ := f.FeedStats()
		require.Equal(t, int64(1), st.Cut)
	})
}

// Long after a session has ended, a program that still has it in memory may save its record,
// and its mark runs out: nothing ends by that.
func TestFeedTellsAnEndOnce(t *testing.T) {
	onBackends(t, announcing[:1], func(s *server) {
		t := s.t
		clock := authztest.NewClock()
		f := s.cached(t, session.Options{Feed: true, Now: clock.Now})
		ctx := t.Context()
		e := listen(t, f.Store, "")
		e.reset(authz.FeedReasonNew)
		place := e.live()
		f.foreign(t, "late", "u")
		require.NoError(t, f.Revoke(ctx, "late"))
		e.is(sessionEnded("late", "u", authz.FeedReasonRevoked))
		clock.Advance(11 * time.Minute) // what was told is forgotten
		require.Eventually(t, func() bool {
			back := listen(t, f.Store, place)
			defer back.stop()
			return back.next().Kind == authz.FeedReset
		}, 20*time.Second, 10*time.Millisecond)
		f.foreign(t, "late", "u")
		f.settle(t)
		require.NoError(t, f.client.Del(ctx, "gatehouse:dead:{sess:late}").Err())
		require.NoError(t, f.Revoke(ctx, "then"))
		got := e.told()
		got.ID, got.Time = "", time.Time{}
		require.Equal(t, sessionEnded("then", "", authz.FeedReasonRevoked), got)
	})
}

// An id that no request can hold is not told: a client that bounds what an event may have
// would come to the same one again and again.
func TestFeedTellsNoEndlessID(t *testing.T) {
	onBackends(t, announcing[:1], func(s *server) {
		t := s.t
		f := s.cached(t, session.Options{Feed: true})
		e := listen(t, f.Store, "")
		e.reset(authz.FeedReasonNew)
		e.live()
		long := strings.Repeat("x", 40<<10)
		f.set(t, "revoked:"+long, "1", time.Hour)
		f.set(t, "gatehouse:before:{user:"+long+"}", "1", time.Hour)
		f.set(t, "gatehouse:dead:{sess:x}", "1\n"+long, time.Hour)
		e.is(sessionEnded("x", "", authz.FeedReasonRevoked))
	})
}

// A replica that has stopped listening, since nobody followed for long, knows nothing of
// what happened meanwhile: whoever comes back with the place of the last event is told so.
func TestFeedKnowsWhenItDidNotListen(t *testing.T) {
	onBackends(t, announcing[:1], func(s *server) {
		t := s.t
		clock := authztest.NewClock()
		f := s.cached(t, session.Options{Feed: true, Now: clock.Now})
		ctx := t.Context()
		e := listen(t, f.Store, "")
		e.reset(authz.FeedReasonNew)
		e.live()
		require.NoError(t, f.Revoke(ctx, "1"))
		place := e.is(sessionEnded("1", "", authz.FeedReasonRevoked)).ID
		e.stop()
		clock.Advance(11 * time.Minute)
		require.NoError(t, f.client.Del(ctx, "gatehouse:feed").Err()) // it has run out
		session.ShareInterest(ctx, f.Store)
		st, _ := f.FeedStats()
		require.False(t, st.Listening)
		require.NoError(t, f.Revoke(ctx, "2"))
		listen(t, f.Store, place).reset(authz.FeedReasonUnknown)
	})
}

// While Redis is silent the feed says so, and what it can't know afterwards, too.
func TestFeedInAnOutage(t *testing.T) {
	proctest.Need(t, "redis-server")
	t.Parallel()
	node := redistest.StartRedis(t, redistest.Options{})
	client, err := session.Open(node.URL(), session.OpenOptions{Timeout: patience})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	for name, o := range map[string]session.Options{
		"cache":    {Feed: true, Timeout: patience, Cache: &session.CacheOptions{}},
		"no cache": {Feed: true, Timeout: patience},
	} {
		t.Run(name, func(t *testing.T) {
			store := session.New(client, o)
			run(t, store)
			e := listen(t, store, "")
			e.until(authz.FeedEvent{Kind: authz.FeedLive})
			node.Freeze()
			e.is(authz.FeedEvent{Kind: authz.FeedLag})
			require.Empty(t, e.where())
			blind := listen(t, store, "")
			blind.reset(authz.FeedReasonNew)
			require.Empty(t, blind.is(authz.FeedEvent{Kind: authz.FeedLag}).ID)
			node.Thaw()
			require.NoError(t, client.Set(t.Context(), "revoked:after-"+name, "1", time.Hour).Err())
			// Whether the connections outlived it or not: either the change is told, or that
			// all is to be asked anew.
			told, live := false, false
			for !told || !live {
				got := e.next()
				if got.Kind == authz.FeedLive || got.Kind == authz.FeedLag {
					live = got.Kind == authz.FeedLive
					continue
				}
				require.True(t, got.Kind == authz.FeedReset || got.TokenID == "after-"+name, "%+v", got)
				told = true
			}

			node.Kill()
			e.until(authz.FeedEvent{Kind: authz.FeedLag})
			node.Restart()
			e.until(authz.FeedEvent{Kind: authz.FeedReset, Reason: authz.FeedReasonMissed})
			e.until(authz.FeedEvent{Kind: authz.FeedLive})
			require.NoError(t, store.RevokeToken(t.Context(), "then", time.Now().Add(time.Hour)))
			require.Equal(t, "then", e.told().TokenID)

			require.NoError(t, client.FlushAll(t.Context()).Err())
			require.Equal(t, authz.FeedReasonFlushed, e.told().Reason)
			require.NoError(t, store.RevokeToken(t.Context(), "then again", time.Now().Add(time.Hour)))
			require.Equal(t, "then again", e.told().TokenID)
		})
	}
}

// Who follows while Redis is out of reach is told when it comes.
func TestFeedBeforeRedisIsThere(t *testing.T) {
	proctest.Need(t, "redis-server")
	t.Parallel()
	node := redistest.StartRedis(t, redistest.Options{})
	node.Kill()
	client, err := session.Open(node.URL(), session.OpenOptions{Timeout: patience})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	store := session.New(client, session.Options{Feed: true, Timeout: patience, Cache: &session.CacheOptions{}})
	run(t, store)
	e := listen(t, store, "")
	e.reset(authz.FeedReasonNew)
	e.is(authz.FeedEvent{Kind: authz.FeedLag})
	node.Restart()
	e.reset(authz.FeedReasonMissed)
	e.live()
}

func TestNoFeedWithoutAnnouncements(t *testing.T) {
	t.Parallel()
	f := newServer(t, backends[0]).store(t, session.Options{})
	_, _, _, err := f.Follow("")
	require.ErrorIs(t, err, session.ErrFeedUnsupported)
	_, ok := f.FeedStats()
	require.False(t, ok)

	store := session.New(f.own, session.Options{Feed: true, Timeout: patience, Cache: &session.CacheOptions{}})
	run(t, store)
	require.Eventually(t, func() bool {
		events, _, stop, err := store.Follow("")
		if err != nil {
			return true
		}
		defer stop()
		for range events { // ends when the server has refused
		}
		return false
	}, 20*time.Second, time.Millisecond)
	_, _, _, err = store.Follow("")
	require.ErrorIs(t, err, session.ErrFeedUnsupported)
}
