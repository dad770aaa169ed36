package session_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

func (f fixture) text(t *testing.T, key string) string {
	t.Helper()
	text, err := f.client.Get(t.Context(), key).Result()
	require.NoError(t, err)
	return text
}

func changesReachAllOfAUser(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	ours := f.login(t)
	f.set(t, "sess:seen", `{"cookie":{"x":1.0},"userId":"u","organizationId":7,"roles":"user","cart":["a",{}],"n":1e400}`, time.Hour)
	f.set(t, "sess:unseen", `{"userId":"u"}`, 0)
	f.foreign(t, "other", "v")
	f.session(t, "seen")
	f.set(t, "user:u", `{"theme":"dark","roles":["user"]}`, time.Hour)
	dead := f.login(t)
	require.NoError(t, f.Revoke(t.Context(), dead))
	f.foreign(t, dead, "u")
	other := f.text(t, "sess:other")

	organization, roles := "8", []string{"admin", "user"}
	n, err := f.ChangeUser(t.Context(), "u", authz.UserChange{Organization: &organization, Roles: &roles})
	require.NoError(t, err)
	require.Equal(t, 3, n)
	for _, id := range []string{ours, "seen", "unseen"} {
		got := f.session(t, id)
		require.Equal(t, "8", got.Organization)
		require.Equal(t, roles, got.Roles)
		require.Equal(t, organization, *got.Standing.Profile.Organization)
		require.Equal(t, roles, *got.Standing.Profile.Roles)
		require.False(t, got.Standing.Disabled())
	}
	require.Equal(t, `{"cookie":{"x":1.0},"userId":"u","organizationId":8,"roles":["admin","user"],"cart":["a",{}],"n":1e400}`, f.text(t, "sess:seen"), "a number stays one")
	require.Equal(t, `{"theme":"dark","roles":["admin","user"],"organizationId":"8"}`, f.text(t, "user:u"))
	require.Equal(t, `{"userId":"u","organizationId":"8","roles":["admin","user"]}`, f.text(t, "sess:unseen"))
	require.Equal(t, other, f.text(t, "sess:other"))
	about(t, time.Hour, f.ttl(t, "user:u"))
	require.Negative(t, f.ttl(t, "sess:unseen"))

	n, err = f.ChangeUser(t.Context(), "u", authz.UserChange{Organization: &organization})
	require.NoError(t, err)
	require.Equal(t, 3, n, "those that have it already, too")
	organization, roles = "acme", nil
	n, err = f.ChangeUser(t.Context(), "u", authz.UserChange{Organization: &organization, Roles: &roles})
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.Equal(t, "acme", f.session(t, "seen").Organization)
	require.Empty(t, f.session(t, "seen").Roles)

	for _, locked := range []bool{true, false} {
		n, err = f.ChangeUser(t.Context(), "u", authz.UserChange{Disabled: &locked})
		require.NoError(t, err)
		require.Equal(t, 3, n)
		require.Equal(t, locked, f.session(t, ours).Standing.Disabled())
		standing, err := f.UserStanding(t.Context(), "u")
		require.NoError(t, err)
		require.Equal(t, locked, standing.Disabled())
	}

	n, err = f.ChangeUser(t.Context(), "new", authz.UserChange{Roles: &roles})
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, `{"roles":[],"gatehouse":{"partial":true}}`, f.text(t, "user:new"), "for tokens; a login completes it")
}

// Whoever else writes at the same time: nothing gets lost.
func concurrentChangesAllCount(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	ids := []string{"a", "b", "c"}
	for _, id := range ids {
		f.set(t, "sess:"+id, `{"userId":"u","n":0,"organizationId":"","roles":[]}`, time.Hour)
	}
	f.set(t, "user:u", `{"n":0}`, 0)
	add := func(r *session.Record) error {
		text, _ := r.Get("n")
		n, err := strconv.Atoi(string(text))
		return errors.Join(err, r.Set("n", n+1))
	}
	stores := []*session.Store{f.Store, f.another(living)}
	const each = 15
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() {
			for range each {
				if err := stores[i%2].Update(t.Context(), id, add); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range each {
			if err := stores[0].UpdateProfile(t.Context(), "u", add); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 2 {
		wg.Go(func() {
			for j := range each {
				organization, roles := fmt.Sprint("o", i, j), []string{fmt.Sprint("r", i, j)}
				n, err := stores[i].ChangeUser(t.Context(), "u", authz.UserChange{Organization: &organization, Roles: &roles})
				if err != nil || n != len(ids) {
					t.Error(n, err)
				}
			}
		})
	}
	wg.Wait()
	all := map[string]bool{}
	for _, key := range []string{"sess:a", "sess:b", "sess:c", "user:u"} {
		text := f.text(t, key)
		require.Contains(t, text, fmt.Sprintf(`"n":%d`, each), key)
		_, change, _ := strings.Cut(text, `"organizationId":`)
		all[change[:strings.IndexByte(change, ',')]] = true
	}
	if _, ok := f.client.(*redis.ClusterClient); !ok { // there, record follows record
		require.Len(t, all, 1, "each change is one step: %v", all)
	}
}

// A record that changes or goes between the read and the write.
func TestChangeUserAgainstOthers(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		organization := "o2"
		for name, tc := range map[string]struct {
			others func(f fixture)
			want   string // the record afterwards
			n      int
		}{
			"changed":   {func(f fixture) { f.set(t, "sess:id", `{"userId":"u","x":1}`, time.Minute) }, `{"userId":"u","x":1,"organizationId":"o2"}`, 2},
			"destroyed": {func(f fixture) { require.NoError(t, f.client.Del(t.Context(), "sess:id").Err()) }, ``, 1},
			"revoked":   {func(f fixture) { require.NoError(t, f.another(living).Revoke(t.Context(), "id")) }, ``, 1},
			"revoked and saved again": {func(f fixture) {
				require.NoError(t, f.another(living).Revoke(t.Context(), "id"))
				f.set(t, "sess:id", `{"userId":"u"}`, time.Minute)
			}, `{"userId":"u"}`, 1},
			"another user's": {func(f fixture) { f.set(t, "sess:id", `{"userId":"v"}`, time.Minute) }, `{"userId":"v"}`, 1},
			"the profile":    {func(f fixture) { require.NoError(t, f.client.Set(t.Context(), "user:u", `{"x":1}`, 0).Err()) }, `{"userId":"u","organizationId":"o2"}`, 2},
		} {
			f := s.store(t, living)
			f.set(t, "sess:id", `{"userId":"u"}`, time.Minute)
			f.set(t, "sess:other", `{"userId":"u"}`, time.Minute)
			trips := &roundTrips{}
			once := false
			trips.fail = func(names []string) error {
				if !once && names[0] == "evalsha" {
					once = true
					trips.mu.Unlock()
					defer trips.mu.Lock()
					tc.others(f)
				}
				return nil
			}
			f.client.AddHook(trips)
			n, err := f.ChangeUser(t.Context(), "u", authz.UserChange{Organization: &organization})
			require.NoError(t, err, name)
			require.True(t, once, name)
			require.Equal(t, tc.n, n, name)
			text, _ := f.client.Get(t.Context(), "sess:id").Result()
			require.Equal(t, tc.want, text, name)
			require.Equal(t, `{"userId":"u","organizationId":"o2"}`, f.text(t, "sess:other"), name)
			require.Contains(t, f.text(t, "user:u"), `"organizationId":"o2"`, name)
		}
	})
}

func TestChangeUserRefusals(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		yes, organization := true, "o2"
		f := s.store(t, living)
		_, err := f.ChangeUser(t.Context(), "u", authz.UserChange{})
		require.ErrorContains(t, err, "nothing to change")

		f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
		f.set(t, "user:u", `[]`, 0)
		for _, c := range []authz.UserChange{{Disabled: &yes}, {Organization: &organization}, {Disabled: &yes, Organization: &organization}} {
			_, err = f.ChangeUser(t.Context(), "u", c)
			requireReason(t, authz.ReasonProfileMalformed, err)
		}
		require.Equal(t, `{"userId":"u"}`, f.text(t, "sess:id"))
		require.Equal(t, `[]`, f.text(t, "user:u"))

		// There is no place for the change in one of the records.
		f = s.store(t, session.Options{Profiles: true, Fields: session.Fields{Organization: "a.b"}})
		f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
		f.set(t, "sess:odd", `{"userId":"u","a":"x"}`, time.Hour)
		_, err = f.ChangeUser(t.Context(), "u", authz.UserChange{Organization: &organization})
		requireReason(t, authz.ReasonSessionMalformed, err)
		require.Equal(t, `{"userId":"u"}`, f.text(t, "sess:id"))
		require.False(t, f.exists(t, "user:u"))

		// The same, found only when a record changes meanwhile: nothing was
		// written before that was known.
		f = s.store(t, session.Options{Profiles: true, Fields: session.Fields{Organization: "a.b"}})
		f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
		f.set(t, "user:u", `{"email":"e"}`, 0)
		_, err = f.ChangeUser(t.Context(), "nobody", authz.UserChange{Organization: &organization}) // loads the script
		require.NoError(t, err)
		f.between(1, func() { f.set(t, "sess:id", `{"userId":"u","a":"x"}`, time.Hour) })
		_, err = f.ChangeUser(t.Context(), "u", authz.UserChange{Organization: &organization})
		requireReason(t, authz.ReasonSessionMalformed, err)
		require.Equal(t, `{"email":"e"}`, f.text(t, "user:u"))

		// user:<id> may be anything, where profiles are off.
		f = s.store(t, session.Options{})
		f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
		f.set(t, "user:u", `not ours`, 0)
		_, err = f.ChangeUser(t.Context(), "u", authz.UserChange{Disabled: &yes})
		require.ErrorContains(t, err, "profiles are off")
		require.ErrorContains(t, f.SwitchProfile(t.Context(), "u", "o"), "profiles are off")
		require.NoError(t, f.CompleteProfile(t.Context(), authz.User{Identity: authz.Identity{ID: "u"}}))
		n, err := f.ChangeUser(t.Context(), "u", authz.UserChange{Organization: &organization})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, `not ours`, f.text(t, "user:u"))
		standing, err := f.UserStanding(t.Context(), "u")
		require.NoError(t, err)
		require.Nil(t, standing.Profile)
	})
}

// With more records than can be looked through in the time, what needs no
// looking for changes all the same, and nobody is told that it was all; but for
// a lock-out, which is all of it.
func TestChangeUserThatRunsOutOfTime(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, living)
		id := f.login(t)
		f.foreign(t, "unseen", "u")
		late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		n, err := f.ChangeUser(late, "u", authz.UserChange{Roles: &[]string{"new"}})
		requireReason(t, authz.ReasonStoreUnavailable, err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, n)
		require.Equal(t, []string{"new"}, f.session(t, id).Roles)
		require.Equal(t, []string{"new"}, *f.session(t, id).Standing.Profile.Roles)
		require.NotContains(t, f.text(t, "sess:unseen"), "new")

		late, cancel = context.WithTimeout(t.Context(), patience/4)
		defer cancel()
		f.client.AddHook(&roundTrips{fail: func(names []string) error {
			if names[0] == "scan" {
				<-late.Done()
				return late.Err()
			}
			return nil
		}})
		yes := true
		n, err = f.ChangeUser(late, "u", authz.UserChange{Disabled: &yes})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.True(t, f.session(t, id).Standing.Disabled())
	})
}

// A lock-out does not wait until all records were looked at.
func TestLockingOutComesBeforeTheSweep(t *testing.T) {
	f := newServer(t, backends[0]).store(t, living)
	id := f.login(t)
	f.client.AddHook(&roundTrips{fail: func(names []string) error {
		if names[0] == "scan" {
			return errors.New("cut off")
		}
		return nil
	}})
	yes := true
	_, err := f.ChangeUser(t.Context(), "u", authz.UserChange{Disabled: &yes})
	requireReason(t, authz.ReasonStoreUnavailable, err)
	require.True(t, f.session(t, id).Standing.Disabled())
}

func organizationsAreSwitched(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	id := f.login(t)
	before := f.text(t, "sess:"+id)
	require.NoError(t, f.SwitchOrganization(t.Context(), id, "o2"))
	require.Equal(t, strings.Replace(before, `"o1"`, `"o2"`, 1), f.text(t, "sess:"+id))
	require.Equal(t, "o2", f.session(t, id).Organization)
	f.set(t, "sess:numbered", `{"userId":"u","organizationId":7}`, time.Hour)
	for _, organization := range []string{"8", "-1", "1e3", "08", "1.0", "acme", "9"} {
		require.NoError(t, f.SwitchOrganization(t.Context(), "numbered", organization))
		require.Equal(t, organization, f.session(t, "numbered").Organization)
	}
	requireReason(t, authz.ReasonSessionUnknown, f.SwitchOrganization(t.Context(), "unknown", "o2"))
	require.NoError(t, f.Revoke(t.Context(), id))
	requireReason(t, authz.ReasonSessionRevoked, f.SwitchOrganization(t.Context(), id, "o2"))

	f.set(t, "user:u", `{"organizationId":"o1","x":1}`, time.Hour)
	require.NoError(t, f.SwitchProfile(t.Context(), "u", "o2"))
	require.Equal(t, `{"organizationId":"o2","x":1}`, f.text(t, "user:u"))
	about(t, time.Hour, f.ttl(t, "user:u"))
}

func profilesAreCompleted(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	u := authz.User{
		Identity:      authz.Identity{ID: "u", Email: "e", Roles: []string{"r"}, Organization: "o"},
		Organizations: []string{"o", "p"},
	}
	for before, want := range map[string]string{
		"":                       `{"email":"e","roles":["r"],"organizationId":"o","organizations":["o","p"]}`,
		`{}`:                     `{"email":"e","roles":["r"],"organizationId":"o","organizations":["o","p"]}`,
		`{"x":1,"email":"mine"}`: `{"x":1,"email":"mine"}`,
		`{"disabled":false,"gatehouse":{"partial":true}}`:                            `{"disabled":false,"email":"e","roles":["r"],"organizationId":"o","organizations":["o","p"]}`,
		`{"roles":[],"email":null,"organizationId":"","gatehouse":{"partial":true}}`: `{"roles":[],"email":null,"organizationId":"","organizations":["o","p"]}`,
		`{"disabled":false,"gatehouse":{"partial":"true"}}`:                          `{"disabled":false,"gatehouse":{"partial":"true"}}`,
	} {
		require.NoError(t, f.client.Del(t.Context(), "user:u").Err())
		if before != "" {
			f.set(t, "user:u", before, 0)
		}
		require.NoError(t, f.CompleteProfile(t.Context(), u))
		require.Equal(t, want, f.text(t, "user:u"))
	}
	require.NoError(t, f.CompleteProfile(t.Context(), authz.User{Identity: authz.Identity{ID: "bare"}}))
	require.Equal(t, `{"roles":[]}`, f.text(t, "user:bare"))
	f.set(t, "user:u", `{`, 0)
	requireReason(t, authz.ReasonProfileMalformed, f.CompleteProfile(t.Context(), u))
}
