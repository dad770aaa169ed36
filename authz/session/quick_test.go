package session_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// quickStore asks as the gate does: from memory first, and the long way where
// that doesn't know. So all that the tests of a store demand, they demand of both.
type quickStore struct{ *session.Store }

// Session implements [authz.SessionStore].
func (s quickStore) Session(ctx context.Context, id string, o authz.ReadOptions) (*authz.Session, error) {
	var m authz.Memory
	if got, ok := s.CachedSession(id, o, &m); ok {
		m.Hits.Add(1)
		return got, nil
	}
	return s.Store.Session(ctx, id, o)
}

// TokenStanding implements [authz.StandingStore].
func (s quickStore) TokenStanding(ctx context.Context, ref authz.TokenRef, o authz.ReadOptions) (authz.Standing, error) {
	var m authz.Memory
	if got, ok := s.CachedStanding(ref, o, &m); ok {
		m.Hits.Add(1)
		return *got, nil
	}
	return s.Store.TokenStanding(ctx, ref, o)
}

func (f fixture) Session(ctx context.Context, id string, o authz.ReadOptions) (*authz.Session, error) {
	return quickStore{f.Store}.Session(ctx, id, o)
}

func (f fixture) TokenStanding(ctx context.Context, ref authz.TokenRef, o authz.ReadOptions) (authz.Standing, error) {
	return quickStore{f.Store}.TokenStanding(ctx, ref, o)
}

// What is there is answered from memory by the gate's first question, and is what
// the long way answers from the cache.
func TestBothWaysToTheCacheAgree(t *testing.T) {
	onBackends(t, announcing, func(s *server) {
		t := s.t
		f := s.cached(t, session.Options{Rolling: true})
		f.set(t, "sess:id", `{"userId":"u","email":"e","roles":["a"],"organizationId":"o","organizations":["o","p"],"authTime":1700000000.25}`, time.Hour)
		f.set(t, "user:u", `{"email":"other","roles":[],"organizationId":"p","disabled":false}`, 0)
		f.set(t, "sess:none", `{"cart":1}`, time.Hour)
		f.settle(t)
		ref := authz.TokenRef{UserID: "u", TokenID: "j", Family: "f"}
		for range 2 { // the first renews
			f.session(t, "id")
			_, err := f.TokenStanding(t.Context(), ref, authz.ReadOptions{})
			require.NoError(t, err)
			f.settle(t)
		}
		var m, n authz.Memory
		require.Eventually(t, func() bool {
			f.session(t, "id")
			_, ok := f.CachedSession("id", authz.ReadOptions{}, &m)
			return ok
		}, 10*time.Second, time.Millisecond)
		got, ok := f.CachedSession("id", authz.ReadOptions{}, &m)
		require.True(t, ok)
		want, err := f.Store.Session(t.Context(), "id", authz.ReadOptions{})
		require.NoError(t, err)
		require.Equal(t, want, got)
		standing, ok := f.CachedStanding(ref, authz.ReadOptions{}, &n)
		require.True(t, ok)
		wantStanding, err := f.Store.TokenStanding(t.Context(), ref, authz.ReadOptions{})
		require.NoError(t, err)
		require.Equal(t, wantStanding, *standing)

		for _, o := range []authz.ReadOptions{{Fresh: true}, {Passive: true}} {
			_, ok = f.CachedSession("id", o, &m)
			require.False(t, ok)
		}
		_, ok = f.CachedStanding(ref, authz.ReadOptions{Fresh: true}, &n)
		require.False(t, ok)
		_, err = f.Session(t.Context(), "none", authz.ReadOptions{})
		requireReason(t, authz.ReasonSessionAnonymous, err)
		_, ok = f.CachedSession("none", authz.ReadOptions{}, &m) // a refusal is for the long way
		require.False(t, ok)
	})
}

// A session that was not used for too long is not let in from memory, be it that
// its use need not be noted again yet.
func TestIdleSessionsAreNotAnsweredFromMemory(t *testing.T) {
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	f := newServer(t, backends[1]).cached(t, session.Options{Now: now, IdlePrecision: time.Hour})
	f.set(t, "sess:id", `{"userId":"u"}`, 10*time.Hour)
	f.settle(t)
	o := authz.ReadOptions{IdleTimeout: 10 * time.Minute}
	var m authz.Memory
	require.Eventually(t, func() bool {
		_, err := f.Session(t.Context(), "id", o)
		_, ok := f.CachedSession("id", o, &m)
		return err == nil && ok
	}, 10*time.Second, time.Millisecond)
	ahead.Store(int64(11 * time.Minute))
	_, ok := f.CachedSession("id", o, &m)
	require.False(t, ok)
	_, err := f.Session(t.Context(), "id", o)
	requireReason(t, authz.ReasonSessionIdle, err)
}

// What another replica knows of a session's use is learned once.
func TestUseAtAnotherReplicaIsLearnedOnce(t *testing.T) {
	f := newServer(t, backends[1]).cached(t, session.Options{IdlePrecision: time.Minute})
	seen := func(ago time.Duration) {
		f.set(t, "gatehouse:seen:{sess:id}", fmt.Sprint(time.Now().Add(-ago).UnixMilli()), time.Hour)
	}
	f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
	seen(20 * time.Minute)
	f.settle(t)
	_, err := f.Session(t.Context(), "id", authz.ReadOptions{Passive: true})
	require.NoError(t, err)
	seen(5 * time.Second)
	before := f.CacheStats().Misses
	for range 100 {
		_, err := f.Session(t.Context(), "id", authz.ReadOptions{IdleTimeout: 10 * time.Minute})
		require.NoError(t, err)
	}
	require.LessOrEqual(t, f.CacheStats().Misses-before, int64(2))
}

// A passive read neither counts as a use nor keeps the next one from being noted;
// and a use is noted though its client has gone away.
func TestEveryUseIsNoted(t *testing.T) {
	f := newServer(t, backends[1]).cached(t, session.Options{IdlePrecision: time.Minute})
	const mark = "gatehouse:seen:{sess:id}"
	seen := func() string {
		t.Helper()
		text, err := f.client.Get(t.Context(), mark).Result()
		require.NoError(t, err)
		return text
	}
	old := fmt.Sprint(time.Now().Add(-20 * time.Minute).UnixMilli())
	for range 2 {
		f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
		f.set(t, mark, old, time.Hour)
		f.settle(t)
		_, err := f.Session(t.Context(), "id", authz.ReadOptions{Passive: true})
		require.NoError(t, err)
		require.Equal(t, old, seen())
		f.session(t, "id")
		require.NotEqual(t, old, seen())

		f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
		f.set(t, mark, old, time.Hour)
		f.settle(t)
		ctx, leave := context.WithCancel(t.Context())
		f.afterNext(t, leave)
		_, err = f.Session(ctx, "id", authz.ReadOptions{})
		require.NoError(t, err)
		require.NotEqual(t, old, seen())
	}
}

// A time that lay ahead when the record was read counts when it has come: the
// user's mark covers the session then, from the cache, too.
func TestTimesThatLieAheadAreNotForgotten(t *testing.T) {
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	f := newServer(t, backends[1]).cached(t, session.Options{Now: now})
	f.set(t, "sess:id", fmt.Sprintf(`{"userId":"u","authTime":%d}`, time.Now().Add(10*time.Minute).Unix()), 24*time.Hour)
	f.settle(t)
	for range 3 {
		require.Zero(t, f.session(t, "id").AuthTime)
	}
	ahead.Store(int64(20 * time.Minute))
	f.set(t, "gatehouse:before:{user:u}", fmt.Sprint(now().UnixMilli()), time.Hour)
	f.settle(t)
	for range 3 {
		got := f.session(t, "id")
		require.True(t, got.Standing.Covers(got.MadeAt()))
	}
}

// Values that conditions need are there, however often the same record is read.
func TestFreshReadsKeepValuesForConditions(t *testing.T) {
	f := newServer(t, backends[1]).cached(t, session.Options{Cache: &session.CacheOptions{}})
	f.set(t, "sess:id", `{"userId":"u","plan":"paid"}`, time.Hour)
	f.settle(t)
	for range 3 {
		got, err := f.Session(t.Context(), "id", authz.ReadOptions{Fresh: true})
		require.NoError(t, err)
		require.Equal(t, "paid", got.Values["plan"])
	}
}

// Who misses the same token at the same moment, or a session under a policy with an
// idle timeout, asks once; fresh reads ask each for itself, and wait for nobody.
func TestWhoSharesAQuestion(t *testing.T) {
	f := newServer(t, backends[1]).cached(t, session.Options{})
	ref := authz.TokenRef{UserID: "u", TokenID: "j", Family: "f"}
	f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
	_, err := f.Session(t.Context(), "id", authz.ReadOptions{Fresh: true}) // loads the scripts
	require.NoError(t, err)
	for name, ask := range map[string]func(authz.ReadOptions) error{
		"token": func(o authz.ReadOptions) error {
			_, err := f.TokenStanding(t.Context(), ref, o)
			return err
		},
		"session, idle": func(o authz.ReadOptions) error {
			o.IdleTimeout = time.Hour
			_, err := f.Session(t.Context(), "id", o)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
			f.set(t, "user:u", `{"email":"x"}`, time.Hour)
			f.settle(t)
			before := f.CacheStats()
			asked, held := make(chan struct{}), make(chan struct{})
			f.afterNext(t, func() { close(asked); <-held })
			var wg sync.WaitGroup
			for range 40 {
				wg.Go(func() {
					if err := ask(authz.ReadOptions{}); err != nil {
						t.Error(err)
					}
				})
			}
			<-asked // or the next answer to come would be that of the fresh read, which then waited for itself
			require.Eventually(t, func() bool { return f.CacheStats().Shared == before.Shared+39 }, 10*time.Second, time.Millisecond)
			require.NoError(t, ask(authz.ReadOptions{Fresh: true}), "while the others wait")
			require.Equal(t, before.Misses+2, f.CacheStats().Misses)
			close(held)
			wg.Wait()
			require.Equal(t, before.Misses+2, f.CacheStats().Misses)
			require.NoError(t, ask(authz.ReadOptions{Fresh: true}))
			require.Equal(t, before.Misses+3, f.CacheStats().Misses)
		})
	}
}

// Nobody joins a question about a session that is from before a change of its user,
// nor one about a token from before its end.
func TestNobodyJoinsAQuestionFromBeforeAnEnd(t *testing.T) {
	f := newServer(t, backends[1]).cached(t, session.Options{})
	ref := authz.TokenRef{UserID: "u", TokenID: "j", Family: "f"}
	future := fmt.Sprint(time.Now().Add(time.Hour).UnixMilli())
	revokedSession := func() bool {
		got, err := f.Session(t.Context(), "id", authz.ReadOptions{})
		require.NoError(t, err)
		return got.Standing.Covers(got.MadeAt())
	}
	revokedToken := func() bool {
		got, err := f.TokenStanding(t.Context(), ref, authz.ReadOptions{})
		require.NoError(t, err)
		return got.Revoked || !got.RevokedBefore.IsZero()
	}
	for _, test := range []struct {
		key, value string
		revoked    func() bool
	}{
		{"gatehouse:before:{user:u}", future, revokedSession},
		{"gatehouse:before:{user:u}", future, revokedToken},
		{"revoked:j", "", revokedToken},
		{"gatehouse:dead:{refresh:f}", "1", revokedToken},
	} {
		require.NoError(t, f.client.Del(t.Context(), "gatehouse:before:{user:u}", "revoked:j", "gatehouse:dead:{refresh:f}").Err())
		f.set(t, "sess:id", fmt.Sprintf(`{"userId":"u","authTime":%d}`, time.Now().Unix()), time.Hour)
		f.settle(t)
		asked, answer := make(chan struct{}), make(chan struct{})
		f.afterNext(t, func() { close(asked); <-answer })
		first := make(chan bool, 1)
		go func() { first <- test.revoked() }()
		<-asked
		f.set(t, test.key, test.value, time.Hour)
		f.settle(t)
		require.True(t, test.revoked(), "%s", test.key)
		close(answer)
		<-first
		require.True(t, test.revoked(), "%s", test.key)
	}
}

// A bug in a renewal, which runs by itself, ends neither the process nor later
// renewals.
func TestPanicInARenewal(t *testing.T) {
	var broken atomic.Bool
	now := func() time.Time {
		if broken.Load() && slices.ContainsFunc(callers(), func(name string) bool { return strings.HasSuffix(name, ".renewThrough") }) {
			panic("a bug")
		}
		return time.Now()
	}
	f := newServer(t, backends[1]).cached(t, session.Options{Rolling: true, TTL: time.Hour, Now: now})
	f.set(t, "sess:id", `{"userId":"u"}`, 30*time.Minute)
	f.settle(t)
	broken.Store(true)
	f.session(t, "id")
	require.Eventually(t, func() bool { return len(f.writes.all()) == 1 }, 10*time.Second, time.Millisecond)
	require.ErrorContains(t, f.writes.all()[0], "a bug")
	broken.Store(false)
	f.set(t, "sess:id", `{"userId":"u"}`, 30*time.Minute)
	f.settle(t)
	f.session(t, "id")
	about(t, time.Hour, f.ttl(t, "sess:id"))
}

// callers are the names of the functions that led here.
func callers() (names []string) {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for {
		frame, more := frames.Next()
		names = append(names, frame.Function)
		if !more {
			return names
		}
	}
}
