package authz_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func TestMarkCoversWhatIsNotNewer(t *testing.T) {
	t.Parallel()
	marked := authz.Standing{RevokedBefore: now}
	for made, covered := range map[time.Time]bool{
		{}:                            false, // carries no time
		now.Add(-time.Hour):           true,
		now:                           true,
		now.Add(time.Millisecond):     false,
		now.Add(365 * 24 * time.Hour): false,
	} {
		require.Equal(t, covered, marked.Covers(made), "%v", made)
		require.False(t, authz.Standing{}.Covers(made), "%v without a mark", made)
	}
}

func TestLoginIsPutBehindTheMark(t *testing.T) {
	t.Parallel()
	require.Equal(t, now, authz.Standing{}.Behind(now))
	require.Equal(t, now, authz.Standing{RevokedBefore: ago(time.Second)}.Behind(now))
	for _, ahead := range []time.Duration{0, time.Millisecond, time.Minute} {
		marked := authz.Standing{RevokedBefore: now.Add(ahead)}
		got := marked.Behind(now)
		require.Equal(t, now.Add(ahead+time.Millisecond), got)
		require.False(t, marked.Covers(got))
	}
}

func TestDisabledIsTheProfilesWord(t *testing.T) {
	t.Parallel()
	require.False(t, authz.Standing{}.Disabled())
	require.False(t, authz.Standing{Profile: &authz.Profile{}}.Disabled())
	require.True(t, authz.Standing{Profile: &authz.Profile{Disabled: true}}.Disabled())
}

func TestProfileWinsFieldByField(t *testing.T) {
	t.Parallel()
	u := authz.User{Identity: alice, Organizations: []string{"org-1"}}
	require.Equal(t, u, (*authz.Profile)(nil).Over(u))
	require.Equal(t, u, (&authz.Profile{Disabled: true}).Over(u))
	empty, none := "", []string{}
	require.Equal(t,
		authz.User{Identity: authz.Identity{ID: "alice", Roles: none}, Organizations: none},
		(&authz.Profile{Email: &empty, Roles: &none, Organization: &empty, Organizations: none}).Over(u),
		"what is empty wins, too")
	email := "other@example.com"
	changed := u
	changed.Email = email
	require.Equal(t, changed, (&authz.Profile{Email: &email}).Over(u))
}
