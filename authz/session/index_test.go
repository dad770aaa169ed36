package session_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// living is what most of these tests are about: everything on.
var living = session.Options{Rolling: true, Profiles: true}

// login makes a session of u.
func (f fixture) login(t *testing.T, change ...func(*authz.Login)) (id string) {
	t.Helper()
	l := authz.Login{Identity: authz.Identity{ID: "u", Email: "u@example.com", Roles: []string{"user"}, Organization: "o1"}}
	for _, change := range change {
		change(&l)
	}
	id, err := f.Create(t.Context(), l)
	require.NoError(t, err)
	return id
}

func as(userID string) func(*authz.Login) { return func(l *authz.Login) { l.ID = userID } }

// foreign saves a session as Express would that knows nothing of us.
func (f fixture) foreign(t *testing.T, id, userID string) {
	t.Helper()
	f.set(t, "sess:"+id, fmt.Sprintf(`{"cookie":{"originalMaxAge":86400000},"userId":%q,"cart":[1]}`, userID), 24*time.Hour)
}

func (f fixture) handles(t *testing.T, userID string, sweep bool) []string {
	t.Helper()
	logins, err := f.UserSessions(t.Context(), userID, sweep)
	require.NoError(t, err)
	handles := []string{}
	for _, l := range logins {
		handles = append(handles, l.Handle)
	}
	return handles
}

func handlesOf(ids ...string) []string {
	handles := []string{}
	for _, id := range ids {
		handles = append(handles, authz.Handle(id))
	}
	return handles
}

// gone expects a session to be refused, for good.
func (f fixture) gone(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		_, err := f.Session(t.Context(), id, authz.ReadOptions{})
		requireReason(t, authz.ReasonSessionRevoked, err)
		f.set(t, "sess:"+id, `{"userId":"u"}`, time.Hour)
		_, err = f.Session(t.Context(), id, authz.ReadOptions{})
		requireReason(t, authz.ReasonSessionRevoked, err)
		require.False(t, f.exists(t, "sess:"+id), "a late save is removed")
	}
}

func sessionsAreListed(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	require.Empty(t, f.handles(t, "u", false))

	start := f.clock.Now()
	ours := f.login(t, func(l *authz.Login) {
		l.Organizations = []string{"o1", "o2"}
		l.AuthTime = start.Add(-time.Hour)
		l.Device = authz.Device{Address: "192.0.2.7", UserAgent: "Firefox é " + strings.Repeat("x", 300)}
	})
	f.login(t, as("somebody else"))
	f.clock.Advance(time.Minute)
	f.foreign(t, "theirs", "u")
	f.foreign(t, "unseen", "u")
	f.session(t, "theirs")
	require.Empty(t, f.writes.all())

	logins, err := f.UserSessions(t.Context(), "u", false)
	require.NoError(t, err)
	require.Len(t, logins, 2, "what the gate saw and what was made here")
	theirs := logins[0]
	require.Equal(t, authz.Handle("theirs"), theirs.Handle, "the latest first")
	require.Equal(t, authz.User{Identity: authz.Identity{ID: "u"}}, theirs.User)
	require.Zero(t, theirs.Device)
	require.Zero(t, theirs.Created)
	require.WithinDuration(t, f.clock.Now(), theirs.LastSeen, 0)
	got := logins[1]
	require.Equal(t, authz.Handle(ours), got.Handle)
	require.Equal(t, authz.User{
		Identity:      authz.Identity{ID: "u", Email: "u@example.com", Roles: []string{"user"}, Organization: "o1"},
		Organizations: []string{"o1", "o2"},
	}, got.User)
	require.Equal(t, "192.0.2.7", got.Address)
	require.Equal(t, "Firefox é "+strings.Repeat("x", 245), got.UserAgent, "256 bytes")
	require.WithinDuration(t, start, got.Created, 0)
	require.WithinDuration(t, start, got.LastSeen, 0, "the login was a use")
	require.WithinDuration(t, f.clock.Now().Add(24*time.Hour), got.Expires, time.Minute)

	require.Equal(t, handlesOf("theirs", ours, "unseen"), f.handles(t, "u", true), "a sweep finds the others")
	require.Equal(t, handlesOf("theirs", ours, "unseen"), f.handles(t, "u", false), "and notes them")
	require.Empty(t, f.handles(t, "nobody", true))
}

// What does not live is not listed, whatever the index has.
func onlyTheLivingAreListed(t *testing.T, s *server) {
	t.Helper()
	for name, end := range map[string]func(f fixture, id string){
		"revoked":   func(f fixture, id string) { require.NoError(t, f.Revoke(t.Context(), id)) },
		"destroyed": func(f fixture, id string) { require.NoError(t, f.client.Del(t.Context(), "sess:"+id).Err()) },
		"expired": func(f fixture, id string) {
			require.NoError(t, f.client.PExpire(t.Context(), "sess:"+id, time.Millisecond).Err())
			require.Eventually(t, func() bool { return !f.exists(t, "sess:"+id) }, 10*time.Second, time.Millisecond)
		},
		"revoked and saved late": func(f fixture, id string) {
			require.NoError(t, f.Revoke(t.Context(), id))
			f.foreign(t, id, "u")
		},
		"covered by the user's mark": func(f fixture, _ string) {
			require.NoError(t, f.RevokeUserBefore(t.Context(), "u", f.clock.Now()))
		},
		"another user's by now": func(f fixture, id string) { f.foreign(t, id, "v") },
		"nobody's by now":       func(f fixture, id string) { f.set(t, "sess:"+id, `{}`, time.Hour) },
		"no JSON":               func(f fixture, id string) { f.set(t, "sess:"+id, `{`, time.Hour) },
		"no text": func(f fixture, id string) {
			require.NoError(t, f.client.Del(t.Context(), "sess:"+id).Err())
			require.NoError(t, f.client.HSet(t.Context(), "sess:"+id, "userId", "u").Err())
		},
	} {
		f := s.store(t, living)
		id := f.login(t)
		f.clock.Advance(time.Second)
		require.Len(t, f.handles(t, "u", false), 1)
		end(f, id)
		require.Empty(t, f.handles(t, "u", false), name)
		require.Empty(t, f.handles(t, "u", true), name)
	}
}

// The gate refuses such a record, another program may not: whoever looks for
// the user's sessions must see it.
func TestMalformedRecordsAreListedByTheirUser(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, living)
		f.set(t, "sess:id", `{"userId":"u","roles":1,"email":"x"}`, time.Hour)
		_, err := f.Session(t.Context(), "id", authz.ReadOptions{})
		requireReason(t, authz.ReasonSessionMalformed, err)
		logins, err := f.UserSessions(t.Context(), "u", true)
		require.NoError(t, err)
		require.Len(t, logins, 1)
		require.Equal(t, authz.User{Identity: authz.Identity{ID: "u"}}, logins[0].User)
		n, err := f.RevokeUser(t.Context(), "u")
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}

func TestWhatRecordsSayAboutDevicesIsNotTrusted(t *testing.T) {
	f := newServer(t, backends[0]).store(t, living)
	for record, want := range map[string]authz.ActiveLogin{
		`"gatehouse":1`:  {},
		`"gatehouse":[]`: {},
		`"gatehouse":{"createdAt":{},"address":1,"provider":{}}`: {},
		`"gatehouse":{"createdAt":99999999999}`:                  {},
		`"gatehouse":{"createdAt":1700000000.5,"address":"a"}`:   {Created: time.UnixMilli(1700000000500), Device: authz.Device{Address: "a"}},
		`"gatehouse":{"provider":["x","{}",1,null]}`:             {},
		fmt.Sprintf(`"gatehouse":{"address":%q,"userAgent":%q}`, strings.Repeat("é", 200), strings.Repeat("a", 999)): {
			Device: authz.Device{Address: strings.Repeat("é", 128), UserAgent: strings.Repeat("a", 256)},
		},
		`"authTime":1700000000`: {Created: time.Unix(1700000000, 0)},
	} {
		f.set(t, "sess:id", `{"userId":"u",`+record+`}`, 0)
		f.session(t, "id")
		logins, err := f.UserSessions(t.Context(), "u", false)
		require.NoError(t, err)
		require.Len(t, logins, 1, record)
		require.Equal(t, want.Device, logins[0].Device, record)
		require.WithinDuration(t, want.Created, logins[0].Created, 0, record)
		require.Zero(t, logins[0].Expires, "it has no end")
	}
	require.Empty(t, f.writes.all())
	keys, err := f.client.Keys(t.Context(), "gatehouse:provider:*").Result()
	require.NoError(t, err)
	require.Empty(t, keys)
}

func (f fixture) indexed(t *testing.T, index string) int {
	t.Helper()
	n, err := f.client.ZCard(t.Context(), index).Result()
	require.NoError(t, err)
	return int(n)
}

const indexOfU = "gatehouse:sessions:{user:u}"

func TestIndexLivesAsLongAsWhatItPointsTo(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		const day = 24 * time.Hour
		f := s.store(t, living)
		f.login(t)
		about(t, 2*day, f.ttl(t, indexOfU))
		f.login(t, func(l *authz.Login) { l.TTL = 10 * day })
		about(t, 20*day, f.ttl(t, indexOfU))
		f.login(t)
		about(t, 20*day, f.ttl(t, indexOfU))
		f.set(t, "sess:endless", `{"userId":"u"}`, 0)
		f.session(t, "endless")
		about(t, 400*day, f.ttl(t, indexOfU))
		require.Equal(t, 4, f.indexed(t, indexOfU))

		// In use it is put off, once for each interval, also where the time of
		// use is kept more precisely.
		precise := living
		precise.IdlePrecision = time.Second
		f = s.store(t, precise)
		id := f.login(t)
		first, err := f.client.ZScore(t.Context(), indexOfU, id).Result()
		require.NoError(t, err)
		for _, step := range []struct{ advance, want time.Duration }{
			{time.Minute, time.Minute}, {59 * time.Second, time.Minute}, {time.Second, 2 * time.Minute},
		} {
			f.clock.Advance(step.advance)
			f.session(t, id)
			score, err := f.client.ZScore(t.Context(), indexOfU, id).Result()
			require.NoError(t, err)
			require.InDelta(t, first+float64(step.want.Milliseconds()), score, 0)
		}
	})
}

// Logins that are ended, replaced or run out leave nothing behind for long.
func TestIndexesDoNotGrowWithoutBound(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, living)
		kept := f.login(t)
		old := kept
		for range 30 {
			id := f.login(t, func(l *authz.Login) { l.Replaces = old })
			require.Equal(t, 1, f.indexed(t, indexOfU))
			f.gone(t, old)
			old = id
		}
		for range 30 {
			require.NoError(t, f.End(t.Context(), authz.Ending{SessionID: f.login(t)}))
			require.NoError(t, f.Revoke(t.Context(), f.login(t)))
			require.NoError(t, f.CreateFamily(t.Context(), authz.Family{ID: "f", UserID: "u"}))
			require.NoError(t, f.End(t.Context(), authz.Ending{Family: "f"}))
			require.NoError(t, f.client.Del(t.Context(), "gatehouse:dead:{refresh:f}").Err())
		}
		require.Equal(t, 1, f.indexed(t, indexOfU))
		require.Zero(t, f.indexed(t, "gatehouse:families:{user:u}"))

		// Abandoned ones are forgotten twice their life after their last use.
		provider := authz.ProviderLogin{Issuer: "https://idp.example.com", Subject: "s"}
		for range 10 {
			for range 10 {
				f.login(t, func(l *authz.Login) { l.Provider = provider })
			}
			require.LessOrEqual(t, f.indexed(t, indexOfU), 31)
			f.clock.Advance(24 * time.Hour)
		}
		keys, err := f.client.Keys(t.Context(), "gatehouse:provider:*").Result()
		require.NoError(t, err)
		require.Len(t, keys, 1)
		require.LessOrEqual(t, f.indexed(t, keys[0]), 30)
		about(t, 48*time.Hour, f.ttl(t, keys[0]))
	})
}

// An index that holds something else hides sessions: nobody must believe it.
func TestUnreadableIndexesRefuse(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		for _, index := range []string{indexOfU, "gatehouse:families:{user:u}"} {
			f := s.store(t, living)
			f.set(t, index, "x", 0)
			_, err := f.UserSessions(t.Context(), "u", false)
			requireReason(t, authz.ReasonStoreUnavailable, err)
			_, err = f.RevokeUser(t.Context(), "u")
			requireReason(t, authz.ReasonStoreUnavailable, err)
			_, err = f.RevokeHandle(t.Context(), "u", "h")
			requireReason(t, authz.ReasonStoreUnavailable, err)
		}
		f := s.store(t, living)
		f.set(t, "gatehouse:before:{user:u}", "yesterday", 0)
		_, err := f.UserSessions(t.Context(), "u", false)
		requireReason(t, authz.ReasonStoreUnavailable, err)
		_, err = f.Create(t.Context(), authz.Login{Identity: authz.Identity{ID: "u"}})
		requireReason(t, authz.ReasonStoreUnavailable, err)
		requireReason(t, authz.ReasonStoreUnavailable, f.CreateFamily(t.Context(), authz.Family{ID: "f", UserID: "u"}))
		require.False(t, f.exists(t, "refresh:f"))
	})
}

// A session id that another user took over stays with that user.
func TestAnOldIndexEndsNobodyElse(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, living)
		id := f.login(t)
		f.foreign(t, id, "v")
		n, err := f.RevokeUser(t.Context(), "u")
		require.NoError(t, err)
		require.Zero(t, n)
		f.session(t, id)
		require.Zero(t, f.indexed(t, indexOfU))
		require.Equal(t, handlesOf(id), f.handles(t, "v", false))
	})
}

// Whatever characters an id is made of.
func everyUserID(t *testing.T, s *server) {
	t.Helper()
	for _, userID := range []string{"42", "-7", `a"b\c`, "{", "}", "{x}", "a}b{c}", "é\u2028", "*", "[a-z]?", " ", "\x00", "u:v", strings.Repeat("long", 100)} {
		f := s.store(t, living)
		ours, theirs := f.login(t, as(userID)), "theirs"
		f.foreign(t, "other", "u")
		f.set(t, "sess:"+theirs, fmt.Sprintf(`{"userId":%s}`, quoted(t, userID)), time.Hour)
		require.ElementsMatch(t, handlesOf(ours, theirs), f.handles(t, userID, true), userID)
		require.NoError(t, f.CreateFamily(t.Context(), authz.Family{ID: "f", UserID: userID}))
		roles := []string{"r"}
		n, err := f.ChangeUser(t.Context(), userID, authz.UserChange{Roles: &roles})
		require.NoError(t, err, userID)
		require.Equal(t, 2, n, userID)
		require.Equal(t, roles, f.session(t, theirs).Roles)
		n, err = f.RevokeUser(t.Context(), userID)
		require.NoError(t, err, userID)
		require.Equal(t, 2, n, userID)
		f.gone(t, ours, theirs)
		_, err = f.Family(t.Context(), "f")
		requireReason(t, authz.ReasonRefreshInvalid, err)
		f.session(t, "other")
	}
}

func TestCallsWithoutAUserAreRefused(t *testing.T) {
	f := newServer(t, backends[0]).store(t, living)
	_, listed := f.UserSessions(t.Context(), "", true)
	_, families := f.UserFamilies(t.Context(), "")
	_, revoked := f.RevokeUser(t.Context(), "")
	_, handle := f.RevokeHandle(t.Context(), "", "h")
	_, changed := f.ChangeUser(t.Context(), "", authz.UserChange{Disabled: new(bool)})
	_, standing := f.UserStanding(t.Context(), "")
	for _, err := range []error{
		listed, families, revoked, handle, changed, standing,
		f.SwitchProfile(t.Context(), "", "o"),
		f.CompleteProfile(t.Context(), authz.User{}),
	} {
		require.ErrorContains(t, err, "no user id")
	}
}
