package authz_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func TestSuspectOfNothing(t *testing.T) {
	t.Parallel()
	for _, err := range []error{nil, errors.New("x"), authz.Refuse(authz.ReasonRole, "none"), fmt.Errorf("a: %w", errors.Join(errors.New("b")))} {
		user, handle := authz.Suspect(err)
		require.Empty(t, user+handle)
	}
}

// A session that is over, and a token that was revoked, are refused without a
// principal; the log tells all the same whose they are.
func TestSuspectOfARefusedCredential(t *testing.T) {
	t.Parallel()
	_, err := session(t, &authz.Session{Identity: alice, Standing: authz.Standing{Revoked: true}}, authz.Policy{})
	requireReason(t, authz.ReasonSessionRevoked, err)
	user, handle := authz.Suspect(fmt.Errorf("wrapped: %w", err))
	require.Equal(t, []string{alice.ID, authz.Handle("s")}, []string{user, handle})
	require.Equal(t, "session_revoked: the session falls under the user's revocation mark", err.Error())

	store := &sessionStore{err: authz.Refuse(authz.ReasonSessionExpired, "over")}
	_, err = authz.NewSessions("sessionId", cookieVerifier{}, store).Authenticate(t.Context(), "signed.s", &authz.Policy{})
	requireReason(t, authz.ReasonSessionExpired, err)
	user, handle = authz.Suspect(err)
	require.Equal(t, []string{"", authz.Handle("s")}, []string{user, handle})

	_, err = authz.NewSessions("sessionId", cookieVerifier{}, store).Authenticate(t.Context(), "forged", &authz.Policy{})
	requireReason(t, authz.ReasonSessionForged, err)
	user, handle = authz.Suspect(err)
	require.Empty(t, user+handle, "what nobody signed is nobody's")
}
