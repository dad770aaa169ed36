package authz_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func key(name, secret string, expires time.Time, policies ...string) authz.APIKey {
	return authz.APIKey{Name: name, SHA256: sha256.Sum256([]byte(secret)), Policies: policies, Expires: expires}
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	never := time.Time{}
	keys := authz.NewAPIKeys([]authz.APIKey{
		key("billing", "old", now.Add(time.Hour), "p", "q"),
		key("billing", "new", never, "p", "q"),
		key("reports", "reports-key", never, "q"),
		key("nothing", "useless-key", never),
		key("gone", "gone-key", ago(time.Second), "p"),
		key("now", "now-key", now, "p"),
		key("soon", "soon-key", now.Add(time.Nanosecond), "p"),
		key("empty", "", never, "p"), // the hash of nothing
		{Name: "zero", Policies: []string{"p"}},
		// One key twice: expired, then prolonged.
		key("renewed", "twice", ago(time.Hour), "p"),
		key("renewed", "twice", never, "p"),
		// … and the other way round.
		key("kept", "thrice", never, "p"),
		key("kept", "thrice", ago(time.Hour)),
	}, clock)
	for name, tt := range map[string]struct {
		presented string
		caller    string
		reason    authz.Reason
	}{
		"the old one while it is rotated": {presented: "old", caller: "billing"},
		"the new one":                     {presented: "new", caller: "billing"},
		"not for this policy":             {presented: "reports-key", reason: authz.ReasonAPIKeyPolicy},
		"for no policy":                   {presented: "useless-key", reason: authz.ReasonAPIKeyPolicy},
		"expired":                         {presented: "gone-key", reason: authz.ReasonAPIKeyExpired},
		"expires this moment":             {presented: "now-key", reason: authz.ReasonAPIKeyExpired},
		"expires in a moment":             {presented: "soon-key", caller: "soon"},
		"prolonged":                       {presented: "twice", caller: "renewed"},
		"listed again as expired":         {presented: "thrice", caller: "kept"},
		"wrong":                           {presented: "wrong", reason: authz.ReasonAPIKeyUnknown},
		"empty":                           {presented: "", reason: authz.ReasonAPIKeyUnknown},
		"of another case":                 {presented: "NEW", reason: authz.ReasonAPIKeyUnknown},
		"with a space":                    {presented: "new ", reason: authz.ReasonAPIKeyUnknown},
		"two joined":                      {presented: "new,new", reason: authz.ReasonAPIKeyUnknown},
		"a name for a key":                {presented: "billing", reason: authz.ReasonAPIKeyUnknown},
		"a beginning":                     {presented: "ne", reason: authz.ReasonAPIKeyUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := keys.Authenticate(t.Context(), tt.presented, &authz.Policy{Name: "p"})
			requireReason(t, tt.reason, err)
			if tt.reason != "" {
				require.Nil(t, p)
				if len(tt.presented) > 2 && tt.presented != "billing" {
					require.NotContains(t, err.Error(), tt.presented, "the error holds the key")
				}
				return
			}
			require.Equal(t, &authz.Principal{
				Identity: authz.Identity{ID: "service:" + tt.caller}, Kind: authz.KindAPIKey, APIKey: tt.caller,
			}, p)
		})
	}
}

func TestAPIKeyLookup(t *testing.T) {
	t.Parallel()
	callers := []authz.APIKey{
		{Name: "ops", SHA256: sha256.Sum256([]byte("ops-key")), AuthAPI: true, Policies: []string{"p"}},
		{Name: "billing", SHA256: sha256.Sum256([]byte("billing-key"))},
	}
	keys := authz.NewAPIKeys(callers, nil)
	callers[1].AuthAPI = true // the authenticator's keys are its own

	ops, err := keys.Lookup("ops-key")
	require.NoError(t, err)
	require.Equal(t, "ops", ops.Name)
	require.True(t, ops.AuthAPI)
	billing, err := keys.Lookup("billing-key")
	require.NoError(t, err)
	require.False(t, billing.AuthAPI)
	_, err = keys.Lookup("other")
	requireReason(t, authz.ReasonAPIKeyUnknown, err)
	_, err = authz.NewAPIKeys(nil, nil).Lookup("ops-key")
	requireReason(t, authz.ReasonAPIKeyUnknown, err)
}

func TestAPIKeyIsPresentAsSoonAsTheHeaderIs(t *testing.T) {
	t.Parallel()
	keys := authz.NewAPIKeys(nil, nil)
	require.Equal(t, authz.KindAPIKey, keys.Kind())
	for value, r := range map[string]*authz.Request{
		"":  get(t, "x-internal-api-key", ""),
		"k": get(t, "x-internal-api-key", "k"),
	} {
		got, present := keys.Credential(r)
		require.True(t, present)
		require.Equal(t, value, got)
	}
	_, present := keys.Credential(get(t, "x-api-key", "k", "authorization", "k"))
	require.False(t, present)
}
