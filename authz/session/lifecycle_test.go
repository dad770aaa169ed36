package session_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

func createdSessionsAreFound(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, session.Options{})
	n := session.NewSession{
		Identity:      authz.Identity{ID: "7", Email: "e@example.com", Roles: []string{"a"}, Organization: "o"},
		Organizations: []string{"o", "p"},
		AuthTime:      f.clock.Now().Add(-time.Minute),
		TTL:           time.Hour,
		Values:        map[string]any{"cart": []int{1}, "a.b": json.RawMessage(`{"c":12345678901234567890}`)},
	}
	id, err := f.Create(t.Context(), n)
	require.NoError(t, err)
	about(t, time.Hour, f.ttl(t, "sess:"+id))
	got := f.session(t, id)
	require.Equal(t, n.Identity, got.Identity)
	require.Equal(t, n.Organizations, got.Organizations)
	require.WithinDuration(t, n.AuthTime, got.AuthTime, 0)
	require.Equal(t, []any{json.Number("1")}, got.Values["cart"])
	require.Equal(t, map[string]any{"c": json.Number("12345678901234567890")}, got.Values["a.b"])
	require.Equal(t, map[string]any{
		"originalMaxAge": json.Number("3600000"), "expires": f.clock.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05.000Z"),
		"secure": true, "httpOnly": true, "path": "/", "sameSite": "strict",
	}, got.Values["cookie"])

	second, err := f.Create(t.Context(), session.NewSession{Identity: authz.Identity{ID: "7"}})
	require.NoError(t, err)
	require.NotEqual(t, id, second)
	about(t, 24*time.Hour, f.ttl(t, "sess:"+second))
	require.WithinDuration(t, f.clock.Now(), f.session(t, second).AuthTime, 0)
	require.Equal(t, authz.Identity{ID: "7", Roles: []string{}}, f.session(t, second).Identity)
}

func TestCreatedSessionsAreFoundWhereFieldsAreNamed(t *testing.T) {
	f := newServer(t, backends[0]).store(t, session.Options{Fields: session.Fields{
		UserID: "passport.user.id", Email: "passport.user.mail", Roles: "access.roles", AuthTime: "at",
	}})
	n := session.NewSession{Identity: authz.Identity{ID: "u", Email: "m", Roles: []string{"r"}}, AuthTime: time.UnixMilli(1700000000001)}
	id, err := f.Create(t.Context(), n)
	require.NoError(t, err)
	got := f.session(t, id)
	require.Equal(t, n.Identity, got.Identity)
	require.Equal(t, map[string]any{"user": map[string]any{"id": "u", "mail": "m"}}, got.Values["passport"])
	require.Equal(t, json.Number("1700000000.001"), got.Values["at"])

	n.Values = map[string]any{"passport": 1}
	_, err = f.Create(t.Context(), n)
	require.ErrorContains(t, err, `"passport", where the identity stands`)
}

func TestCreateRefusesWhatIsNoSession(t *testing.T) {
	f := newServer(t, backends[0]).store(t, session.Options{})
	someone := authz.Identity{ID: "u"}
	for want, n := range map[string]session.NewSession{
		"no user id":         {},
		"time to live":       {Identity: someone, TTL: -time.Second},
		"400h to":            {Identity: someone, TTL: 401 * 24 * time.Hour},
		`a "userId"`:         {Identity: someone, Values: map[string]any{"userId": "root"}},
		`a "cookie"`:         {Identity: someone, Values: map[string]any{"cookie": 1}},
		`a "roles"`:          {Identity: someone, Values: map[string]any{"roles": "admin"}},
		`a "email"`:          {Identity: someone, Values: map[string]any{"email": "not given, but its place"}},
		`value "x"`:          {Identity: someone, Values: map[string]any{"x": func() {}}},
		`a "organizationId"`: {Identity: someone, Values: map[string]any{"organizationId": 1}},
		`a "gatehouse"`:      {Identity: someone, Values: map[string]any{"gatehouse": 1}},
	} {
		if want == "400h to" {
			want = "want 1ms to"
		}
		_, err := f.Create(t.Context(), n)
		require.ErrorContains(t, err, want)
	}
	keys, err := f.client.DBSize(t.Context()).Result()
	require.NoError(t, err)
	require.Zero(t, keys)
}

// Whoever logs in again right after a revocation of all that they had must get
// in: the mark must not catch the new session.
func TestLoginRightAfterRevocationOfTheUser(t *testing.T) {
	f := newServer(t, backends[0]).store(t, session.Options{})
	before, err := f.Create(t.Context(), session.NewSession{Identity: authz.Identity{ID: "u"}})
	require.NoError(t, err)
	require.NoError(t, f.RevokeUserBefore(t.Context(), "u", f.clock.Now()))
	f.clock.Advance(time.Millisecond)
	after, err := f.Create(t.Context(), session.NewSession{Identity: authz.Identity{ID: "u"}})
	require.NoError(t, err)
	old, recent := f.session(t, before), f.session(t, after)
	require.False(t, old.MadeAt().After(old.Standing.RevokedBefore))
	require.True(t, recent.MadeAt().After(recent.Standing.RevokedBefore))
}

// Two clocks differ, or the user proved who they are to a provider long ago:
// a login after the revocation is a login. A mark far in the future is no
// clock's fault.
func TestLoginIsPutBehindTheUsersMark(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		for _, tc := range []struct{ mark, authTime, made time.Duration }{
			{0, 0, time.Millisecond},
			{time.Minute, 0, time.Minute + time.Millisecond},
			{0, -time.Hour, time.Millisecond},
			{-2 * time.Hour, -time.Hour, 0},
			{time.Hour, 0, 0},
		} {
			f := s.store(t, session.Options{})
			now := f.clock.Now()
			require.NoError(t, f.RevokeUserBefore(t.Context(), "u", now.Add(tc.mark)))
			got := f.session(t, f.login(t, func(l *authz.Login) { l.AuthTime = now.Add(tc.authTime) }))
			require.WithinDuration(t, now.Add(tc.authTime), got.AuthTime, 0, "the truth, for policies that ask for a recent one")
			require.WithinDuration(t, now.Add(tc.made), got.MadeAt(), 0)
			require.Equal(t, tc.mark == time.Hour, got.Standing.Covers(got.MadeAt()))
		}
	})
}

func TestUpdateRefusals(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, session.Options{})
		change := func(r *session.Record) error { return r.Set("x", 1) }
		for _, tc := range []struct {
			name    string
			prepare func()
			want    authz.Reason
		}{
			{"absent", func() {}, authz.ReasonSessionUnknown},
			{"malformed", func() { f.set(t, "sess:id", "[]", time.Hour) }, authz.ReasonSessionMalformed},
			{"empty", func() { f.set(t, "sess:id", "", time.Hour) }, authz.ReasonSessionMalformed},
			{"revoked", func() { require.NoError(t, f.Revoke(t.Context(), "id")) }, authz.ReasonSessionRevoked},
			{"saved again", func() { f.set(t, "sess:id", `{"userId":"u"}`, time.Hour) }, authz.ReasonSessionRevoked},
		} {
			tc.prepare()
			requireReason(t, tc.want, f.Update(t.Context(), "id", change))
		}
		requireReason(t, authz.ReasonSessionUnknown, f.Update(t.Context(), "{}", change))
		require.NoError(t, f.client.HSet(t.Context(), "sess:hash", "a", "b").Err())
		requireReason(t, authz.ReasonSessionMalformed, f.Update(t.Context(), "hash", change))

		f.set(t, "sess:other", `{"userId":"u"}`, time.Hour)
		sentinel := errors.New("changed my mind")
		require.ErrorIs(t, f.Update(t.Context(), "other", func(r *session.Record) error {
			require.NoError(t, r.Set("x", 1))
			return sentinel
		}), sentinel)
		text, err := f.client.Get(t.Context(), "sess:other").Result()
		require.NoError(t, err)
		require.JSONEq(t, `{"userId":"u"}`, text)
	})
}

// Between the read and the write: whatever another one did wins or is seen,
// and never gets lost.
func TestUpdateAgainstOthers(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		for _, tc := range []struct {
			name   string
			others func(f fixture)
			want   string // the record afterwards; "" for none
			reason authz.Reason
		}{
			{"changed", func(f fixture) { f.set(t, "sess:id", `{"userId":"v"}`, time.Minute) }, `{"userId":"v","x":1}`, ""},
			{"changed into what it was", func(f fixture) { f.set(t, "sess:id", `{"userId":"u"}`, time.Minute) }, `{"userId":"u","x":1}`, ""},
			{"destroyed", func(f fixture) { require.NoError(t, f.client.Del(t.Context(), "sess:id").Err()) }, "", authz.ReasonSessionUnknown},
			{"revoked", func(f fixture) { require.NoError(t, f.Revoke(t.Context(), "id")) }, "", authz.ReasonSessionRevoked},
			{"revoked and saved again", func(f fixture) {
				require.NoError(t, f.Revoke(t.Context(), "id"))
				f.set(t, "sess:id", `{"userId":"u"}`, time.Minute)
			}, `{"userId":"u"}`, authz.ReasonSessionRevoked},
		} {
			f := s.store(t, session.Options{})
			f.set(t, "sess:id", `{"userId":"u"}`, time.Minute)
			first := true
			err := f.Update(t.Context(), "id", func(r *session.Record) error {
				if first {
					first = false
					tc.others(f)
				}
				return r.Set("x", 1)
			})
			if tc.reason == "" {
				require.NoError(t, err, tc.name)
				about(t, time.Minute, f.ttl(t, "sess:id"))
			} else {
				requireReason(t, tc.reason, err)
			}
			text, _ := f.client.Get(t.Context(), "sess:id").Result()
			require.Equal(t, tc.want, text, tc.name)
		}
	})
}

func concurrentUpdatesAllCount(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, session.Options{})
	f.set(t, "sess:id", `{"userId":"u","n":0}`, time.Hour)
	stores := []*session.Store{f.Store, f.another(session.Options{})}
	const writers, each = 8, 5
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range each {
				if err := stores[i%2].Update(t.Context(), "id", func(r *session.Record) error {
					text, _ := r.Get("n")
					n, err := strconv.Atoi(string(text))
					return errors.Join(err, r.Set("n", n+1))
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, json.Number(fmt.Sprint(writers*each)), f.session(t, "id").Values["n"])
	about(t, time.Hour, f.ttl(t, "sess:id"))
}

// requireText compares the profile of u to the letter, not as JSON.
func requireText(t *testing.T, f fixture, want string) {
	t.Helper()
	got, err := f.client.Get(t.Context(), "user:u").Bytes()
	require.NoError(t, err)
	require.Equal(t, []byte(want), got)
}

func saveProfileLeavesWhatItDoesNotKnow(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, session.Options{Profiles: true})
	_, ok, err := f.Profile(t.Context(), "u")
	require.NoError(t, err)
	require.False(t, ok)

	email, none := "e", []string(nil)
	require.NoError(t, f.SaveProfile(t.Context(), "u", authz.Profile{Email: &email, Roles: &none}))
	requireText(t, f, `{"email":"e","roles":[],"disabled":false}`)
	require.Negative(t, f.ttl(t, "user:u"))

	f.set(t, "user:u", `{"theme":"dark","roles":["a"],"email":"x"}`, time.Hour)
	require.NoError(t, f.SaveProfile(t.Context(), "u", authz.Profile{Email: &email, Organizations: []string{"o"}, Disabled: true}))
	requireText(t, f, `{"theme":"dark","roles":["a"],"email":"e","organizations":["o"],"disabled":true}`)
	about(t, time.Hour, f.ttl(t, "user:u"))
	p, ok, err := f.Profile(t.Context(), "u")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, authz.Profile{Email: &email, Roles: &[]string{"a"}, Organizations: []string{"o"}, Disabled: true}, p)

	organization := "o"
	require.NoError(t, f.SaveProfile(t.Context(), "u", authz.Profile{Organization: &organization}))
	p, _, err = f.Profile(t.Context(), "u")
	require.NoError(t, err)
	require.Equal(t, "o", *p.Organization)
	require.False(t, p.Disabled)

	f.set(t, "user:u", `{"disabled":tru`, 0)
	requireReason(t, authz.ReasonProfileMalformed, f.SaveProfile(t.Context(), "u", authz.Profile{}))
	requireText(t, f, `{"disabled":tru`)
	require.ErrorContains(t, f.SaveProfile(t.Context(), "", authz.Profile{}), "no user id")
}

func TestConcurrentProfileUpdatesAllCount(t *testing.T) {
	f := newServer(t, backends[1]).store(t, session.Options{})
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if err := f.UpdateProfile(t.Context(), "u", func(r *session.Record) error { return r.Set(fmt.Sprint("m", i), i) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	text, err := f.client.Get(t.Context(), "user:u").Bytes()
	require.NoError(t, err)
	var members map[string]int
	require.NoError(t, json.Unmarshal(text, &members))
	require.Len(t, members, 10)
}

// A store that is out of reach acknowledges nothing.
func TestWritesToAStoreOutOfReach(t *testing.T) {
	client, err := session.Open("redis://127.0.0.1:1", session.OpenOptions{Timeout: patience})
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	store := session.New(client, session.Options{Timeout: patience})
	_, errCreate := store.Create(t.Context(), session.NewSession{Identity: authz.Identity{ID: "u"}})
	_, _, errProfile := store.Profile(t.Context(), "u")
	change := func(*session.Record) error { return errors.New("must not be called") }
	for _, err := range []error{
		errCreate, errProfile,
		store.Update(t.Context(), "id", change),
		store.UpdateProfile(t.Context(), "u", change),
		store.SaveProfile(t.Context(), "u", authz.Profile{}),
		store.Revoke(t.Context(), "id"),
	} {
		requireReason(t, authz.ReasonStoreUnavailable, err)
	}
}
