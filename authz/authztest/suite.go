package authztest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Store is what [StoreSuite] tests: how the core reads, and how Gatehouse
// revokes.
type Store interface {
	authz.SessionStore
	authz.StandingStore
	Revoke(ctx context.Context, id string) error
	RevokeToken(ctx context.Context, jti string, until time.Time) error
	RevokeFamily(ctx context.Context, family string, until time.Time) error
	RevokeUserBefore(ctx context.Context, userID string, t time.Time) error
}

// Bench is one store on the bench, with the hands of those who write to it
// without asking Gatehouse. Every bench is new and empty, or at least holds
// nothing of an earlier one.
type Bench struct {
	Store Store
	Clock *Clock // the store's
	// Save writes a session record; zero ttl: it does not expire.
	Save func(t *testing.T, id string, s authz.Session, ttl time.Duration)
	// Destroy removes a session record.
	Destroy func(t *testing.T, id string)
	// SaveProfile writes the profile of a user, or removes it: nil.
	SaveProfile func(t *testing.T, userID string, p *authz.Profile)
	// Expire lets the life of a session record end.
	Expire func(t *testing.T, id string)
	// Cut puts the store out of reach, for good.
	Cut func(t *testing.T)
}

// StoreSuite tests the rules of [authz.SessionStore] and
// [authz.StandingStore] on benches that open gives. The store must keep the
// time of use, to a tenth of an idle timeout of five minutes.
func StoreSuite(t *testing.T, open func(t *testing.T) Bench) {
	t.Helper()
	for name, rule := range map[string]func(t *testing.T, b Bench){
		"a session is found with all that its record says":       sessionFound,
		"an unknown session is unknown":                          sessionUnknown,
		"a session of nobody is anonymous":                       sessionAnonymous,
		"a destroyed session is unknown at once":                 sessionDestroyed,
		"a change by another program is seen at once":            sessionChanged,
		"an expired session is over":                             sessionExpired,
		"a session without expiry is found":                      sessionWithoutExpiry,
		"a revoked session is over":                              sessionRevoked,
		"a late save brings nothing back":                        sessionSavedLate,
		"an unknown session can be revoked before it is saved":   sessionRevokedUnseen,
		"revoking a session leaves the others":                   sessionRevokedAlone,
		"the user's mark comes with sessions and tokens":         userRevoked,
		"the user's mark never moves back":                       userMarkForward,
		"a token is revoked by its id or its family":             tokenRevoked,
		"the marks of tokens, families and sessions don't mix":   marksApart,
		"a token without anything to look up stands":             tokenBare,
		"a profile comes with sessions and tokens":               profileFound,
		"what a profile leaves out is nil, what is empty is not": profileFields,
		"an idle session ends":                                   sessionIdle,
		"a request of any policy is a use":                       sessionUsed,
		"a refused session is not kept alive":                    sessionRefusedIdle,
		"a store out of reach knows nothing":                     storeCut,
		"a caller who gave up learns nothing":                    callerGone,
	} {
		t.Run(name, func(t *testing.T) { rule(t, open(t)) })
	}
}

var fresh = authz.ReadOptions{Fresh: true}

func alice(b Bench) authz.Session {
	return authz.Session{
		Identity: authz.Identity{
			ID: "alice", Email: "alice@example.com", Roles: []string{"admin", "sales"}, Organization: "org-1",
		},
		Organizations: []string{"org-1", "org-2"},
		AuthTime:      b.Clock.Now().Add(-time.Hour),
	}
}

// found returns the session of an id, which must be there.
func found(t *testing.T, b Bench, id string) *authz.Session {
	t.Helper()
	s, err := b.Store.Session(t.Context(), id, fresh)
	require.NoError(t, err)
	require.NotNil(t, s)
	return s
}

// refused expects a session to be refused for one of the reasons.
func refused(t *testing.T, b Bench, id string, o authz.ReadOptions, reasons ...authz.Reason) {
	t.Helper()
	s, err := b.Store.Session(t.Context(), id, o)
	require.Nil(t, s)
	require.Error(t, err)
	require.Contains(t, reasons, authz.ReasonOf(err), "%v", err)
}

func standing(t *testing.T, b Bench, ref authz.TokenRef) authz.Standing {
	t.Helper()
	got, err := b.Store.TokenStanding(t.Context(), ref, fresh)
	require.NoError(t, err)
	return got
}

func sessionFound(t *testing.T, b Bench) {
	t.Helper()
	want := alice(b)
	b.Save(t, "id", want, time.Hour)
	got := found(t, b, "id")
	require.Equal(t, want.Identity, got.Identity)
	require.Equal(t, want.Organizations, got.Organizations)
	require.WithinDuration(t, want.AuthTime, got.AuthTime, 0)
	require.Zero(t, got.Standing)
	require.False(t, got.Stale)
}

func sessionUnknown(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), time.Hour)
	for _, id := range []string{"other", "", "i", "id ", "ID", "id{}", "{id}", "../id", "*", "id\x00"} {
		refused(t, b, id, fresh, authz.ReasonSessionUnknown)
	}
}

func sessionAnonymous(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", authz.Session{}, time.Hour)
	refused(t, b, "id", fresh, authz.ReasonSessionAnonymous)
}

func sessionDestroyed(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), time.Hour)
	found(t, b, "id")
	b.Destroy(t, "id")
	refused(t, b, "id", fresh, authz.ReasonSessionUnknown)
	b.Save(t, "id", alice(b), time.Hour) // destroying is not revoking
	found(t, b, "id")
}

func sessionChanged(t *testing.T, b Bench) {
	t.Helper()
	s := alice(b)
	b.Save(t, "id", s, time.Hour)
	require.Equal(t, "org-1", found(t, b, "id").Organization)
	s.Organization, s.Roles = "org-2", nil
	b.Save(t, "id", s, time.Hour)
	got := found(t, b, "id")
	require.Equal(t, "org-2", got.Organization)
	require.Empty(t, got.Roles)
}

func sessionExpired(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), time.Hour)
	found(t, b, "id")
	b.Expire(t, "id")
	refused(t, b, "id", fresh, authz.ReasonSessionExpired, authz.ReasonSessionUnknown)
}

func sessionWithoutExpiry(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), 0)
	found(t, b, "id")
}

func sessionRevoked(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), time.Hour)
	require.NoError(t, b.Store.Revoke(t.Context(), "id"))
	refused(t, b, "id", fresh, authz.ReasonSessionRevoked)
	require.NoError(t, b.Store.Revoke(t.Context(), "id"), "a second time")
	refused(t, b, "id", fresh, authz.ReasonSessionRevoked)
}

func sessionSavedLate(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), time.Hour)
	require.NoError(t, b.Store.Revoke(t.Context(), "id"))
	for range 3 {
		b.Save(t, "id", alice(b), time.Hour)
		refused(t, b, "id", fresh, authz.ReasonSessionRevoked)
	}
}

func sessionRevokedUnseen(t *testing.T, b Bench) {
	t.Helper()
	require.NoError(t, b.Store.Revoke(t.Context(), "id"))
	b.Save(t, "id", alice(b), time.Hour)
	refused(t, b, "id", fresh, authz.ReasonSessionRevoked)
}

func sessionRevokedAlone(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), time.Hour)
	b.Save(t, "id2", alice(b), time.Hour)
	require.NoError(t, b.Store.Revoke(t.Context(), "id"))
	found(t, b, "id2")
}

func userRevoked(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), time.Hour)
	at := b.Clock.Now()
	require.NoError(t, b.Store.RevokeUserBefore(t.Context(), "alice", at))
	require.WithinDuration(t, at, found(t, b, "id").Standing.RevokedBefore, 0)
	require.WithinDuration(t, at, standing(t, b, authz.TokenRef{UserID: "alice"}).RevokedBefore, 0)
	require.Zero(t, standing(t, b, authz.TokenRef{UserID: "bob"}), "another user")
}

func userMarkForward(t *testing.T, b Bench) {
	t.Helper()
	at := b.Clock.Now()
	for _, step := range []struct {
		set, want time.Time
	}{
		{at, at},
		{at.Add(-time.Minute), at},
		{at.Add(time.Second), at.Add(time.Second)},
		{at, at.Add(time.Second)},
	} {
		require.NoError(t, b.Store.RevokeUserBefore(t.Context(), "alice", step.set))
		require.WithinDuration(t, step.want, standing(t, b, authz.TokenRef{UserID: "alice"}).RevokedBefore, 0)
	}
}

func tokenRevoked(t *testing.T, b Bench) {
	t.Helper()
	until := b.Clock.Now().Add(time.Hour)
	require.NoError(t, b.Store.RevokeToken(t.Context(), "jti", until))
	require.NoError(t, b.Store.RevokeFamily(t.Context(), "family", until))
	for _, tc := range []struct {
		ref  authz.TokenRef
		want bool
	}{
		{authz.TokenRef{UserID: "alice", TokenID: "jti", Family: "family"}, true},
		{authz.TokenRef{UserID: "alice", TokenID: "jti", Family: "family2"}, true},
		{authz.TokenRef{UserID: "alice", TokenID: "jti2", Family: "family"}, true},
		{authz.TokenRef{UserID: "alice", TokenID: "jti2", Family: "family2"}, false},
		{authz.TokenRef{TokenID: "jti"}, true},
		{authz.TokenRef{Family: "family"}, true},
		{authz.TokenRef{UserID: "alice"}, false},
	} {
		require.Equal(t, tc.want, standing(t, b, tc.ref).Revoked, "%+v", tc.ref)
	}
}

func marksApart(t *testing.T, b Bench) {
	t.Helper()
	until := b.Clock.Now().Add(time.Hour)
	require.NoError(t, b.Store.RevokeToken(t.Context(), "a", until))
	require.NoError(t, b.Store.RevokeFamily(t.Context(), "b", until))
	require.NoError(t, b.Store.Revoke(t.Context(), "c"))
	b.Save(t, "a", alice(b), time.Hour)
	b.Save(t, "b", alice(b), time.Hour)
	found(t, b, "a")
	found(t, b, "b")
	require.Zero(t, standing(t, b, authz.TokenRef{UserID: "a", TokenID: "b", Family: "a"}))
	require.Zero(t, standing(t, b, authz.TokenRef{UserID: "b", TokenID: "c", Family: "c"}))
}

func tokenBare(t *testing.T, b Bench) {
	t.Helper()
	require.Zero(t, standing(t, b, authz.TokenRef{}))
}

func profileFound(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), time.Hour)
	email, roles, organization := "a@example.com", []string{"auditor"}, "org-9"
	want := &authz.Profile{
		Email: &email, Roles: &roles, Organization: &organization,
		Organizations: []string{"org-9", "org-1"}, Disabled: true,
	}
	b.SaveProfile(t, "alice", want)
	require.Equal(t, want, found(t, b, "id").Standing.Profile)
	require.Equal(t, want, standing(t, b, authz.TokenRef{UserID: "alice"}).Profile)
	require.Equal(t, "alice@example.com", found(t, b, "id").Email, "the record is the session's identity")

	b.SaveProfile(t, "alice", nil)
	require.Nil(t, found(t, b, "id").Standing.Profile)
	require.Nil(t, standing(t, b, authz.TokenRef{UserID: "alice"}).Profile)
}

func profileFields(t *testing.T, b Bench) {
	t.Helper()
	empty, none := "", []string{}
	b.SaveProfile(t, "alice", &authz.Profile{Email: &empty, Roles: &none})
	p := standing(t, b, authz.TokenRef{UserID: "alice"}).Profile
	require.NotNil(t, p)
	require.NotNil(t, p.Email)
	require.Empty(t, *p.Email)
	require.NotNil(t, p.Roles)
	require.Empty(t, *p.Roles)
	require.Nil(t, p.Organization)
	require.False(t, p.Disabled)
}

const idleTimeout = 5 * time.Minute

var banking = authz.ReadOptions{Fresh: true, IdleTimeout: idleTimeout}

func sessionIdle(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), 24*time.Hour)
	for range 3 { // the first one has no use before it, and counts from there
		_, err := b.Store.Session(t.Context(), "id", banking)
		require.NoError(t, err)
		b.Clock.Advance(idleTimeout - idleTimeout/10)
	}
	found(t, b, "id")
	b.Clock.Advance(idleTimeout + time.Second)
	refused(t, b, "id", banking, authz.ReasonSessionIdle)
	refused(t, b, "id", banking, authz.ReasonSessionRevoked)
	refused(t, b, "id", fresh, authz.ReasonSessionRevoked) // ended for all policies
	b.Save(t, "id", alice(b), 24*time.Hour)
	refused(t, b, "id", banking, authz.ReasonSessionRevoked)
}

func sessionUsed(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), 24*time.Hour)
	_, err := b.Store.Session(t.Context(), "id", banking)
	require.NoError(t, err)
	b.Clock.Advance(4 * time.Minute)
	found(t, b, "id")
	b.Clock.Advance(4 * time.Minute)
	s, err := b.Store.Session(t.Context(), "id", banking)
	require.NoError(t, err)
	require.WithinDuration(t, b.Clock.Now().Add(-4*time.Minute), s.LastSeen, 0)
}

func sessionRefusedIdle(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), 24*time.Hour)
	_, err := b.Store.Session(t.Context(), "id", banking)
	require.NoError(t, err)
	b.SaveProfile(t, "alice", &authz.Profile{Disabled: true})
	b.Clock.Advance(4 * time.Minute)
	require.True(t, found(t, b, "id").Standing.Profile.Disabled)
	b.SaveProfile(t, "alice", nil)
	b.Clock.Advance(4 * time.Minute)
	refused(t, b, "id", banking, authz.ReasonSessionIdle)
}

func storeCut(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), time.Hour)
	require.NoError(t, b.Store.RevokeToken(t.Context(), "jti", b.Clock.Now().Add(time.Hour)))
	b.Cut(t)
	for _, id := range []string{"id", "unknown"} {
		refused(t, b, id, fresh, authz.ReasonStoreUnavailable)
		refused(t, b, id, authz.ReadOptions{}, authz.ReasonStoreUnavailable)
		refused(t, b, id, banking, authz.ReasonStoreUnavailable)
	}
	for _, ref := range []authz.TokenRef{{TokenID: "jti"}, {Family: "f"}, {UserID: "alice"}} {
		_, err := b.Store.TokenStanding(t.Context(), ref, fresh)
		require.Error(t, err)
		require.Equal(t, authz.ReasonStoreUnavailable, authz.ReasonOf(err), "%v", err)
	}
	for _, err := range []error{
		b.Store.Revoke(t.Context(), "id"),
		b.Store.RevokeToken(t.Context(), "jti", b.Clock.Now().Add(time.Hour)),
		b.Store.RevokeFamily(t.Context(), "f", b.Clock.Now().Add(time.Hour)),
		b.Store.RevokeUserBefore(t.Context(), "alice", b.Clock.Now()),
	} {
		require.Error(t, err, "a revocation that was not written must not be acknowledged")
		require.Equal(t, authz.ReasonStoreUnavailable, authz.ReasonOf(err), "%v", err)
	}
}

func callerGone(t *testing.T, b Bench) {
	t.Helper()
	b.Save(t, "id", alice(b), time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	notKnown := []authz.Reason{authz.ReasonStoreUnavailable, authz.ReasonOverloaded}
	s, err := b.Store.Session(ctx, "unknown", fresh)
	require.Nil(t, s)
	require.Contains(t, notKnown, authz.ReasonOf(err), "%v", err)
	require.ErrorIs(t, err, context.Canceled)
	_, err = b.Store.TokenStanding(ctx, authz.TokenRef{TokenID: "jti"}, fresh)
	require.Contains(t, notKnown, authz.ReasonOf(err), "%v", err)
}
