package session_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

func everythingOfAUserEnds(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	ours := []string{f.login(t), f.login(t)}
	theirs := []string{"seen", "unseen", "numbered"}
	f.foreign(t, "seen", "u")
	f.foreign(t, "unseen", "u")
	f.set(t, "sess:numbered", `{"userId":"u","email":"a@b"}`, 0)
	f.session(t, "seen")
	c := f.family(t, "f")
	others := []string{f.login(t, as("v")), "v", "nobody"}
	f.foreign(t, "v", "v")
	f.set(t, "sess:nobody", `{"cart":["u"]}`, time.Hour)
	otherFamily := newChain("g")
	require.NoError(t, f.CreateFamily(t.Context(), authz.Family{ID: "g", UserID: "v", Hash: otherFamily.token(0).Hash}))

	f.clock.Advance(time.Second)
	n, err := f.RevokeUser(t.Context(), "u")
	require.NoError(t, err)
	require.Equal(t, 5, n)
	require.Empty(t, f.handles(t, "u", true))
	for _, id := range append(ours, theirs...) {
		require.False(t, f.exists(t, "sess:"+id))
	}
	f.gone(t, append(ours, theirs...)...)
	f.notRotated(t, c, 0, authz.ReasonRefreshInvalid)
	f.familyGone(t, "f")
	require.Zero(t, f.indexed(t, indexOfU))
	require.Zero(t, f.indexed(t, "gatehouse:families:{user:u}"))
	standing, err := f.UserStanding(t.Context(), "u")
	require.NoError(t, err)
	require.True(t, standing.Covers(f.clock.Now()), "access tokens that are out there")

	for _, id := range others[:2] {
		f.session(t, id)
	}
	require.True(t, f.exists(t, "sess:nobody"))
	require.Equal(t, 1, f.rotate(t, otherFamily, 0))

	n, err = f.RevokeUser(t.Context(), "u")
	require.NoError(t, err)
	require.Zero(t, n)

	// The clock stands still, and who logs in now gets in.
	again := f.login(t)
	f.session(t, again)
	require.Equal(t, handlesOf(again), f.handles(t, "u", true))
	n, err = f.RevokeUser(t.Context(), "u")
	require.NoError(t, err)
	require.Equal(t, 1, n)
	f.gone(t, again)
}

func revokedSessionsAreCountedOnce(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	covered := f.login(t)
	f.clock.Advance(time.Second)
	require.NoError(t, f.RevokeUserBefore(t.Context(), "u", f.clock.Now()))
	f.clock.Advance(time.Second)
	dead, expired, lived := f.login(t), f.login(t), f.login(t)
	require.NoError(t, f.Revoke(t.Context(), dead))
	f.foreign(t, dead, "u") // saved late
	require.NoError(t, f.client.Del(t.Context(), "sess:"+expired).Err())
	n, err := f.RevokeUser(t.Context(), "u")
	require.NoError(t, err)
	require.Equal(t, 1, n)
	f.gone(t, covered, dead, expired, lived)

	// Two at the same time share what there is.
	for i := range 20 {
		f.foreign(t, fmt.Sprint("id", i), "u")
	}
	counts := make([]int, 4)
	var wg sync.WaitGroup
	stores := []*session.Store{f.Store, f.another(living)}
	for i := range counts {
		wg.Go(func() {
			var err error
			if counts[i], err = stores[i%2].RevokeUser(t.Context(), "u"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 20, counts[0]+counts[1]+counts[2]+counts[3])
}

// More than one script takes at once.
func TestManySessionsOfAUserEnd(t *testing.T) {
	onBackends(t, []backend{backends[0], backends[1], backends[4]}, func(s *server) {
		t := s.t
		f := s.store(t, living)
		const many = 2500
		pipe := f.client.Pipeline()
		for i := range many {
			pipe.Set(t.Context(), fmt.Sprint("sess:", i), `{"userId":"u","organizationId":"o1"}`, time.Hour)
		}
		_, err := pipe.Exec(t.Context())
		require.NoError(t, err)
		organization := "o2"
		n, err := f.ChangeUser(t.Context(), "u", authz.UserChange{Organization: &organization})
		require.NoError(t, err)
		require.Equal(t, many, n)
		require.Equal(t, "o2", f.session(t, "0").Organization)
		require.Len(t, f.handles(t, "u", true), many)
		n, err = f.RevokeUser(t.Context(), "u")
		require.NoError(t, err)
		require.Equal(t, many, n)
		f.gone(t, "0", fmt.Sprint(many-1))
		require.Zero(t, f.indexed(t, indexOfU))
	})
}

// Logins and applications that save all the time while everything is revoked:
// what was there before ends, what comes after lives, and nothing in between
// can be used that is neither.
func revocationAgainstLogins(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	var before []string
	for range 10 {
		before = append(before, f.login(t))
	}
	f.foreign(t, "theirs", "u")
	f.clock.Advance(time.Second)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var during []string
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			id, err := f.Create(t.Context(), authz.Login{Identity: authz.Identity{ID: "u"}, Replaces: before[0]})
			if err != nil {
				t.Error(err)
			}
			during = append(during, id)
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := f.client.Set(t.Context(), "sess:theirs", `{"userId":"u"}`, time.Hour).Err(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range 5 {
		if _, err := f.RevokeUser(t.Context(), "u"); err != nil {
			t.Error(err)
		}
		for _, id := range append(before, "theirs") {
			_, err := f.Session(t.Context(), id, authz.ReadOptions{})
			if reason := authz.ReasonOf(orUnknown(err)); reason != authz.ReasonSessionRevoked {
				t.Error(reason)
			}
		}
	}
	close(stop)
	wg.Wait()
	after := f.login(t)
	f.session(t, after)
	_, err := f.RevokeUser(t.Context(), "u")
	require.NoError(t, err)
	for _, id := range append(during, after) {
		got, err := f.Session(t.Context(), id, authz.ReadOptions{})
		if err == nil {
			require.True(t, got.Standing.Covers(got.MadeAt()), "refused by the core")
		}
	}
	require.Empty(t, f.handles(t, "u", true))
}

func orUnknown(err error) error {
	if err == nil {
		return authz.Refuse(authz.ReasonAuthenticated, "let through")
	}
	return err
}

// between has something happen once, right before the n-th script of a client
// is sent.
func (f fixture) between(n int, happen func()) {
	trips := &roundTrips{}
	trips.fail = func(names []string) error {
		if names[0] != "evalsha" {
			return nil
		}
		if n--; n == 0 {
			trips.mu.Unlock()
			defer trips.mu.Lock()
			happen()
		}
		return nil
	}
	f.client.AddHook(trips)
}

// Everything is revoked between the two steps of a login: it begins again, and
// is one after that.
func TestLoginThatIsRevokedWhileItIsMade(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, living)
		f.login(t) // loads the scripts
		f.between(2, func() {
			n, err := f.another(living).RevokeUser(t.Context(), "u")
			require.NoError(t, err)
			require.Equal(t, 1, n)
		})
		id := f.login(t)
		got := f.session(t, id)
		require.False(t, got.Standing.Covers(got.MadeAt()))
		require.Equal(t, handlesOf(id), f.handles(t, "u", false))
	})
}

// With more records than can be looked through in the time, what needs no
// looking for ends all the same, and nobody is told that it was all.
func TestRevokeUserThatRunsOutOfTime(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, living)
		id := f.login(t)
		f.foreign(t, "unseen", "u")
		late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		n, err := f.RevokeUser(late, "u")
		requireReason(t, authz.ReasonStoreUnavailable, err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, n)
		f.gone(t, id)
		require.True(t, f.exists(t, "sess:unseen"))
		n, err = f.RevokeUser(t.Context(), "u")
		require.NoError(t, err)
		require.LessOrEqual(t, n, 1)
		f.gone(t, "unseen")
	})
}

// What was found has ended, however late it is then.
func TestDeadlineBehindTheSweep(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		for _, held := range []string{"zrange", "get", "evalsha"} {
			f := s.store(t, living)
			id := f.login(t)
			f.foreign(t, "foreign", "u")
			late, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			scanned := false
			f.client.AddHook(&roundTrips{fail: func(names []string) error {
				scanned = scanned || names[0] == "scan"
				if scanned && names[0] == held && (held != "evalsha" || len(names) > 1) {
					<-late.Done()
				}
				return nil
			}})
			n, err := f.RevokeUser(late, "u")
			require.NoError(t, err, held)
			require.Equal(t, 2, n, held)
			f.gone(t, id)
			f.gone(t, "foreign")
		}
	})
}

// A user's records may be larger than what can be read at once.
func TestLargeSessionsEnd(t *testing.T) {
	f := newServer(t, backends[1]).store(t, session.Options{})
	text := `{"cookie":{"originalMaxAge":null},"userId":"u","cart":[` + strings.Repeat(`"`+strings.Repeat("n", 797)+`",`, 1500) + `{}]}`
	for i := range 40 {
		f.set(t, fmt.Sprint("sess:", i), text, time.Hour)
	}
	n, err := f.RevokeUser(t.Context(), "u")
	require.NoError(t, err)
	require.Equal(t, 40, n)
	// What ends them looks at their beginning only: to read all of them in one
	// script would hold up everybody who waits for the server.
	stats, err := f.client.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	require.Contains(t, stats, "cmdstat_getrange:calls=40,")
}

func TestMarksOutliveTheRecordsOwnAge(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		for record, want := range map[string]time.Duration{
			`{"cookie":{"originalMaxAge":864000000},"userId":"u"}`:                 480 * time.Hour,
			`{"cookie":{"originalMaxAge": 864000000 },"userId":"u"}`:               480 * time.Hour,
			`{"cookie":{"originalMaxAge":null},"userId":"u","originalMaxAge":"x"}`: 48 * time.Hour,
			`{"cookie":{"originalMaxAge":1},"x":{"originalMaxAge":864000000}}`:     480 * time.Hour,
			`not JSON`: 48 * time.Hour,
		} {
			f := s.store(t, session.Options{})
			f.set(t, "sess:id", record, time.Hour)
			require.NoError(t, f.Revoke(t.Context(), "id"))
			about(t, want, f.ttl(t, "gatehouse:dead:{sess:id}"))
		}
	})
}

func TestSessionThatGoesWhileAllAreRevokedIsNotCounted(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, living)
		f.login(t)
		id := f.login(t)
		f.between(1, func() { require.NoError(t, f.client.Del(t.Context(), "sess:"+id).Err()) })
		n, err := f.RevokeUser(t.Context(), "u")
		require.NoError(t, err)
		require.Equal(t, 1, n)
		f.gone(t, id)
	})
}

func oneEndsByItsHandle(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	first, second := f.login(t), f.login(t)
	f.family(t, "f")
	f.foreign(t, "unseen", "u")
	end := func(userID, handle string) bool {
		t.Helper()
		found, err := f.RevokeHandle(t.Context(), userID, handle)
		require.NoError(t, err)
		return found
	}
	require.False(t, end("u", authz.Handle("unknown")))
	require.False(t, end("u", ""))
	require.False(t, end("u", first), "an id is no handle")
	require.False(t, end("v", authz.Handle(first)), "of another user")
	f.session(t, first)
	require.True(t, end("u", authz.Handle(first)))
	f.gone(t, first)
	require.False(t, end("u", authz.Handle(first)), "a second time")
	f.session(t, second)
	require.True(t, end("u", authz.Handle("f")))
	f.familyGone(t, "f")
	require.False(t, end("u", authz.Handle("f")))

	require.False(t, end("u", authz.Handle("unseen")), "only a sweep finds it")
	require.Contains(t, f.handles(t, "u", true), authz.Handle("unseen"))
	require.True(t, end("u", authz.Handle("unseen")))
	f.gone(t, "unseen")

	// An old index names a session that is somebody else's now.
	f.foreign(t, second, "v")
	require.False(t, end("u", authz.Handle(second)))
	f.session(t, second)
}

func logoutEndsAllThatItNames(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	id, other := f.login(t), f.login(t)
	f.family(t, "f")
	f.family(t, "g")
	until := f.clock.Now().Add(time.Hour)
	require.NoError(t, f.End(t.Context(), authz.Ending{SessionID: id, Family: "f", TokenID: "j", TokenUntil: until}))
	f.gone(t, id)
	f.familyGone(t, "f")
	about(t, 20*time.Minute, f.ttl(t, "gatehouse:dead:{refresh:f}"))
	about(t, time.Hour, f.ttl(t, "revoked:j"))
	f.session(t, other)
	_, err := f.Family(t.Context(), "g")
	require.NoError(t, err)

	require.NoError(t, f.End(t.Context(), authz.Ending{SessionID: id, Family: "f", TokenID: "j", TokenUntil: until}), "a second time")
	require.NoError(t, f.End(t.Context(), authz.Ending{}))
	require.NoError(t, f.End(t.Context(), authz.Ending{SessionID: "{}"}))
	require.NoError(t, f.End(t.Context(), authz.Ending{SessionID: "never seen", Family: "nor this"}))
	f.gone(t, "never seen")
	f.familyGone(t, "nor this")
	require.NoError(t, f.client.HSet(t.Context(), "sess:hash", "a", "b").Err())
	require.NoError(t, f.End(t.Context(), authz.Ending{SessionID: "hash"}))
	f.gone(t, "hash")
}

func aLoginReplacesAnother(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	old := f.login(t)
	id := f.login(t, func(l *authz.Login) { l.Replaces = old })
	f.gone(t, old)
	f.session(t, id)
	for _, none := range []string{"", "{}", "unknown"} {
		f.session(t, f.login(t, func(l *authz.Login) { l.Replaces = none }))
	}
	// Another user's, as after a switch of accounts.
	f.login(t, as("v"), func(l *authz.Login) { l.Replaces = id })
	f.gone(t, id)
}

func providersEndTheirLogins(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	const issuer = "https://idp.example.com"
	by := func(issuer, sub, sid string) func(*authz.Login) {
		return func(l *authz.Login) { l.Provider = authz.ProviderLogin{Issuer: issuer, Subject: sub, SessionID: sid} }
	}
	until := f.clock.Now().Add(2 * time.Minute)
	jti := 0
	end := func(l authz.ProviderLogin) int {
		t.Helper()
		jti++
		n, err := f.EndProviderLogin(t.Context(), l, fmt.Sprint("jti", jti), until)
		require.NoError(t, err)
		return n
	}
	one, two := f.login(t, by(issuer, "s", "1")), f.login(t, by(issuer, "s", "2"))
	otherSub, otherIssuer := f.login(t, by(issuer, "x", "1x")), f.login(t, by("https://other.example.com", "s", "1"))
	none := f.login(t)

	require.Zero(t, end(authz.ProviderLogin{Issuer: issuer, SessionID: "3"}))
	require.Zero(t, end(authz.ProviderLogin{Issuer: issuer, Subject: "1"}), "no subject")
	require.Equal(t, 1, end(authz.ProviderLogin{Issuer: issuer, Subject: "s", SessionID: "1"}), "the session alone, where it is named")
	f.gone(t, one)
	f.session(t, two)
	again := f.login(t, by(issuer, "s", "3"))
	require.Equal(t, 2, end(authz.ProviderLogin{Issuer: issuer, Subject: "s"}))
	f.gone(t, two, again)
	for _, id := range []string{otherSub, otherIssuer, none} {
		f.session(t, id)
	}

	// A request counts once, whoever sends it again.
	later := f.login(t, by(issuer, "s", "4"))
	for i := range jti {
		n, err := f.EndProviderLogin(t.Context(), authz.ProviderLogin{Issuer: issuer, Subject: "s"}, fmt.Sprint("jti", i+1), until)
		require.NoError(t, err)
		require.Zero(t, n)
	}
	f.session(t, later)
	keys := f.allKeys(t, "gatehouse:logout:*")
	require.Len(t, keys, jti)
	for _, key := range keys {
		about(t, 2*time.Minute, f.ttl(t, key))
	}
	n, err := f.EndProviderLogin(t.Context(), authz.ProviderLogin{Issuer: "https://other.example.com", SessionID: "1"}, "jti1", until)
	require.NoError(t, err)
	require.Equal(t, 1, n, "the ids of another provider are its own")
	f.gone(t, otherIssuer)

	// Forty at once are one.
	counts := make([]int, 40)
	var wg sync.WaitGroup
	for i := range counts {
		wg.Go(func() {
			var err error
			if counts[i], err = f.EndProviderLogin(t.Context(), authz.ProviderLogin{Issuer: issuer, Subject: "s"}, "once", until); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	require.Equal(t, 1, total)
	f.gone(t, later)

	for _, l := range []authz.ProviderLogin{{}, {Issuer: issuer}, {Subject: "s", SessionID: "1"}} {
		_, err := f.EndProviderLogin(t.Context(), l, "x", until)
		require.ErrorContains(t, err, "end provider login")
	}
	_, err = f.EndProviderLogin(t.Context(), authz.ProviderLogin{Issuer: issuer, Subject: "s"}, "", until)
	require.ErrorContains(t, err, "end provider login")
	for _, key := range f.allKeys(t, "gatehouse:*") {
		require.NotContains(t, key, "idp.example.com", "the provider's names are hashed")
	}
}

// However long a session is used, the provider's logout finds it.
func TestProviderLoginsAreFoundAsLongAsTheyLive(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, living)
		provider := authz.ProviderLogin{Issuer: "https://idp.example.com", Subject: "s", SessionID: "1"}
		id := f.login(t, func(l *authz.Login) { l.Provider = provider })
		for range 10 {
			f.clock.Advance(23 * time.Hour)
			f.session(t, id)
			f.login(t, as("v"), func(l *authz.Login) { l.Provider = provider }) // prunes
		}
		// Express keeps our member when it changes the record.
		require.NoError(t, f.Update(t.Context(), id, func(r *session.Record) error { return r.Set("cart", 1) }))
		n, err := f.EndProviderLogin(t.Context(), provider, "j", f.clock.Now())
		require.NoError(t, err)
		require.Greater(t, n, 1)
		f.gone(t, id)
	})
}
