package usercontext_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// The gate's own encoder and names against this package, which shares no
// code with it.

func TestNamesAreTheGates(t *testing.T) {
	require.Equal(t, authz.IdentityHeaders{
		ID: usercontext.HeaderUserID, Email: usercontext.HeaderEmail,
		Roles: usercontext.HeaderRoles, Organization: usercontext.HeaderOrganizationID,
	}, authz.DefaultIdentityHeaders)
	require.Equal(t, authz.HeaderAPIKey, usercontext.HeaderInternalKey)
}

// What the gate removes as a client's spelling of an identity header is what
// this package refuses, should it arrive all the same.
func TestClientSpellingsAreRefused(t *testing.T) {
	spellings := authz.DefaultIdentityHeaders.ClientSpellings()
	require.NotEmpty(t, spellings)
	for _, name := range spellings {
		header := http.Header{}
		header.Set("x-user-id", "alice")
		header.Add(name, "alice") // for x-user-id itself: a second one
		switch {
		case strings.ReplaceAll(name, "_", "-") == authz.HeaderAPIKey:
			header.Set(authz.HeaderAPIKey, "the-key")
			err := usercontext.CheckInternalKey(header, usercontext.HashKey("the-key"))
			require.Equal(t, name == authz.HeaderAPIKey, err == nil, name)
		case name == usercontext.HeaderEmail || name == usercontext.HeaderOrganizationID:
			_, err := usercontext.FromHeaders(header)
			require.NoError(t, err, name)
		default: // misspelt, twice, or roles that are no array
			_, err := usercontext.FromHeaders(header)
			require.ErrorIs(t, err, usercontext.ErrMalformed, name)
		}
	}
}

func FuzzGateToService(f *testing.F) {
	f.Add("alice", "alice@example.com", "admin\x1fmember", "org-1")
	f.Add("Jürgen 100%", "", "", "組織")
	f.Add("service:billing", "", "", "")
	f.Add("😀", "a,b;c=\"d\"", "\"\\\x1f\u2028\x1f😀\x1f</script>", "%41")
	f.Add("a\nb", "\x7f", "\u0085", "\xff")
	f.Fuzz(func(t *testing.T, id, email, list, org string) {
		var roles []string
		if list != "" {
			roles = strings.Split(list, "\x1f")
		}
		headers, err := authz.DefaultIdentityHeaders.Encode(
			authz.Identity{ID: id, Email: email, Roles: roles, Organization: org}, usercontext.DefaultMaxBytes)
		if err != nil {
			require.Equal(t, authz.ReasonIdentityTooLong, authz.ReasonOf(err))
			return
		}
		arrived := http.Header{}
		for _, h := range headers {
			arrived.Add(h.Name, h.Value)
		}

		got, err := usercontext.FromHeaders(arrived)

		// The gate writes U+FFFD for bytes that are no UTF-8, one for a run of
		// them in text and one for each in JSON.
		text := func(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
		want := usercontext.User{ID: text(id), Email: text(email), Roles: []string{}, OrganizationID: text(org)}
		for _, role := range roles {
			want.Roles = append(want.Roles, string([]rune(role)))
		}
		control := func(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }
		if id == "" || slices.ContainsFunc(append([]string{id, email, org}, want.Roles...), control) {
			require.ErrorIs(t, err, usercontext.ErrMalformed)
			require.Equal(t, usercontext.User{Roles: []string{}}, got)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}
