package authapi_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

func TestParseUserChange(t *testing.T) {
	c, err := authapi.ParseUserChange([]byte(`{"organizationId":7,"roles":[],"disabled":false}`))
	require.NoError(t, err)
	organization, disabled := "7", false
	require.Equal(t, authz.UserChange{Organization: &organization, Roles: &[]string{}, Disabled: &disabled}, c)
	require.Equal(t, authapi.UserChangeFields(), authapi.Changes(c))
	c, err = authapi.ParseUserChange([]byte(`{}`))
	require.NoError(t, err)
	require.Equal(t, authz.UserChange{}, c)
	require.Empty(t, authapi.Changes(c))
	for _, text := range []string{`{"email":"x"}`, `{"roles":["secret","secret\u0001"]}`, `{"roles":[""]}`, `{"disabled":"secret"}`, `[]`, ``} {
		_, err = authapi.ParseUserChange([]byte(text))
		require.Error(t, err, text)
		require.NotContains(t, err.Error(), "secret")
	}
}

// What the API answers with an empty 200, whoever runs a command is told.
func TestRevokerSaysWhatItEnded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	r := authapi.Revoker{Store: b.store, Verifier: b.access, RefreshTokens: b.refresh}
	_, err := r.Revoke(t.Context(), "nonsense")
	require.Equal(t, authz.ReasonTokenInvalid, authz.ReasonOf(err))
	revoked, err := r.Revoke(t.Context(), app.access)
	require.NoError(t, err)
	require.Equal(t, authapi.Revoked{UserID: "bob", TokenID: "jti-1"}, revoked)
	revoked, err = r.Revoke(t.Context(), app.refresh)
	require.NoError(t, err)
	require.Equal(t, authapi.Revoked{Family: "family1"}, revoked)
	require.False(t, b.works(t, bearer(app.access)))

	revoked, err = r.Revoke(t.Context(), b.outside(t, "outside.without.jti", ""))
	require.Equal(t, authz.ReasonBadRequest, authz.ReasonOf(err))
	require.NotEmpty(t, revoked.UserID)
	_, err = authapi.Revoker{Store: b.store}.Revoke(t.Context(), app.access)
	require.Equal(t, authz.ReasonTokenInvalid, authz.ReasonOf(err), "there are no tokens")
}
