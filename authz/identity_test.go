package authz_test

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func TestIdentityHeaders(t *testing.T) {
	t.Parallel()
	h := authz.DefaultIdentityHeaders
	for name, tt := range map[string]struct {
		identity authz.Identity
		want     []authz.Header
	}{
		"everything": {alice, []authz.Header{
			{Name: "x-user-id", Value: "alice"},
			{Name: "x-user-email", Value: "alice@example.com"},
			{Name: "x-org-id", Value: "org-1"},
			{Name: "x-user-roles", Value: `["admin","user"]`},
		}},
		"roles are there without any": {authz.Identity{ID: "u"}, []authz.Header{
			{Name: "x-user-id", Value: "u"}, {Name: "x-user-roles", Value: "[]"},
		}},
		"an empty list of roles": {authz.Identity{ID: "u", Roles: []string{}}, []authz.Header{
			{Name: "x-user-id", Value: "u"}, {Name: "x-user-roles", Value: "[]"},
		}},
		"beyond ASCII": {authz.Identity{ID: "u\u0308ber", Email: "j\u00f6rg@b\u00fccher.example", Organization: "\U0001f600", Roles: []string{"pr\u00fcfer", "\U0001f600"}}, []authz.Header{
			{Name: "x-user-id", Value: "u%CC%88ber"},
			{Name: "x-user-email", Value: "j%C3%B6rg@b%C3%BCcher.example"},
			{Name: "x-org-id", Value: "%F0%9F%98%80"},
			{Name: "x-user-roles", Value: `["pr\u00fcfer","\ud83d\ude00"]`},
		}},
		"percent signs": {authz.Identity{ID: "100%", Email: "%41@x", Organization: "%", Roles: []string{"50%"}}, []authz.Header{
			{Name: "x-user-id", Value: "100%25"},
			{Name: "x-user-email", Value: "%2541@x"},
			{Name: "x-org-id", Value: "%25"},
			{Name: "x-user-roles", Value: `["50%"]`},
		}},
		"nothing splits a header": {authz.Identity{ID: "a\r\nx-user-roles: [\"admin\"]", Email: "a\x00b", Organization: " o ", Roles: []string{"a\nb", "\x7f", `"`, `\`}}, []authz.Header{
			{Name: "x-user-id", Value: `a%0D%0Ax-user-roles:%20["admin"]`},
			{Name: "x-user-email", Value: "a%00b"},
			{Name: "x-org-id", Value: "%20o%20"},
			{Name: "x-user-roles", Value: `["a\nb","\u007f","\"","\\"]`},
		}},
		"the edges of visible ASCII": {authz.Identity{ID: "!~\x7f\x1f", Roles: []string{"a b", "!~\x7f\x1f", "\uffff\U00010000\U0010ffff"}}, []authz.Header{
			{Name: "x-user-id", Value: "!~%7F%1F"}, {Name: "x-user-roles", Value: `["a\u0020b","!~\u007f\u001f","\uffff\ud800\udc00\udbff\udfff"]`},
		}},
		"no UTF-8": {authz.Identity{ID: "a\xffb", Roles: []string{"a\xffb"}}, []authz.Header{
			{Name: "x-user-id", Value: "a%EF%BF%BDb"}, {Name: "x-user-roles", Value: `["a\ufffdb"]`},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := h.Encode(tt.identity, 0)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestIdentityHeadersHaveABudget(t *testing.T) {
	t.Parallel()
	h := authz.DefaultIdentityHeaders
	// Names and values: 9+2, 12+2.
	id := authz.Identity{ID: "ab"}
	const size = 9 + 2 + 12 + 2
	for budget, fits := range map[int]bool{0: true, size: true, size + 1: true, size - 1: false, 1: false} {
		got, err := h.Encode(id, budget)
		if fits {
			require.NoError(t, err, budget)
			require.Len(t, got, 2)
			continue
		}
		requireReason(t, authz.ReasonIdentityTooLong, err)
		require.Empty(t, got, "a part of an identity is another identity")
	}
	// What counts is the size on the wire, not that of the value.
	_, err := h.Encode(authz.Identity{ID: strings.Repeat("\u00fc", 50)}, 200)
	requireReason(t, authz.ReasonIdentityTooLong, err)
}

// replacements are replacement characters in a row.
var replacements = regexp.MustCompile("\ufffd+")

// decodeIdentity reads identity headers as a service does.
func decodeIdentity(tb testing.TB, headers []authz.Header) authz.Identity {
	tb.Helper()
	var id authz.Identity
	for _, h := range headers {
		for i := range len(h.Value) {
			require.True(tb, h.Value[i] > ' ' && h.Value[i] < 0x7f, "%s: byte %#02x is not visible ASCII", h.Name, h.Value[i])
		}
		if h.Name == "x-user-roles" {
			require.NoError(tb, json.Unmarshal([]byte(h.Value), &id.Roles))
			continue
		}
		value, err := url.PathUnescape(h.Value)
		require.NoError(tb, err)
		switch h.Name {
		case "x-user-id":
			id.ID = value
		case "x-user-email":
			id.Email = value
		case "x-org-id":
			id.Organization = value
		default:
			require.Fail(tb, "unexpected header", h.Name)
		}
	}
	return id
}

func FuzzIdentityHeaders(f *testing.F) {
	f.Add("alice", "alice@example.com", "org-1", "admin", "user")
	f.Add("100%", "%41", " ", "a\nb", "\u2028")
	f.Add("\U0001f600", "\xff", "\xed\xa0\x80", "\x7f", "<&>")
	f.Add("", "\x00", "a,b", "", "\ufffd")
	f.Fuzz(func(t *testing.T, id, email, organization, role1, role2 string) {
		want := authz.Identity{ID: id, Email: email, Organization: organization, Roles: []string{role1, role2}}
		headers, err := authz.DefaultIdentityHeaders.Encode(want, 0)
		require.NoError(t, err)
		got := decodeIdentity(t, headers)

		// The loss is that of bytes which are not UTF-8, and no other.
		valid := func(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
		require.Equal(t, valid(id), got.ID)
		require.Equal(t, valid(email), got.Email)
		require.Equal(t, valid(organization), got.Organization)
		// encoding/json replaces bytes one by one, ToValidUTF8 runs of them.
		squeezed := func(s string) string { return replacements.ReplaceAllString(valid(s), "\ufffd") }
		require.Len(t, got.Roles, 2)
		require.Equal(t, squeezed(role1), squeezed(got.Roles[0]))
		require.Equal(t, squeezed(role2), squeezed(got.Roles[1]))
	})
}

func TestClientSpellings(t *testing.T) {
	t.Parallel()
	spellings := authz.DefaultIdentityHeaders.ClientSpellings()
	require.Equal(t, []string{"x-user-id", "x-user-email", "x-user-roles", "x-org-id", "x-internal-api-key"}, spellings[:5])
	require.ElementsMatch(t, []string{
		"x-user-id", "x_user-id", "x-user_id", "x_user_id",
		"x-user-email", "x_user-email", "x-user_email", "x_user_email",
		"x-user-roles", "x_user-roles", "x-user_roles", "x_user_roles",
		"x-org-id", "x_org-id", "x-org_id", "x_org_id",
		"x-internal-api-key", "x_internal-api-key", "x-internal_api-key", "x-internal-api_key",
		"x_internal_api-key", "x_internal-api_key", "x-internal_api_key", "x_internal_api_key",
	}, spellings)
}

// A CGI server folds a name that is configured with underscores just as well.
func TestClientSpellingsOfConfiguredNames(t *testing.T) {
	t.Parallel()
	h := authz.IdentityHeaders{ID: "uid", Email: "x_mail", Roles: "roles-", Organization: "x-my_org"}
	spellings := h.ClientSpellings()
	require.Equal(t, []string{"uid", "x_mail", "roles-", "x-my_org", "x-internal-api-key"}, spellings[:5])
	require.Len(t, spellings, 1+2+2+4+8)
	for _, name := range []string{"x-mail", "roles_", "x_my_org", "x-my-org", "x_my-org"} {
		require.Contains(t, spellings, name)
	}
	slices.Sort(spellings)
	require.Len(t, slices.Compact(spellings), 1+2+2+4+8, "each once")
}

// Nine bytes that are no UTF-8 are one U+FFFD, which is nine bytes long when it is
// encoded: the same length, and not the same text. Found by FuzzGateToService.
func TestARunOfBadBytesIsEncodedThoughItsLengthStays(t *testing.T) {
	t.Parallel()
	const bad = "\xa9\xf6\x9f\xa1\xf2\xee\xf3\xf8\xae"
	headers, err := authz.DefaultIdentityHeaders.Encode(authz.Identity{ID: "u", Organization: bad}, 0)
	require.NoError(t, err)
	require.Contains(t, headers, authz.Header{Name: "x-org-id", Value: "%EF%BF%BD"})
}

// What is counted is what is written, and that is what the libraries write.
func FuzzHeaderValues(f *testing.F) {
	for _, seed := range []string{"", "plain", "a b%c", "é\x00\xff\xfe\uFFFD\xff", `"\<>&`, "\b\f\n\r\t\u2028😀\x7f"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		value := string(authz.AppendValue(nil, s))
		require.Len(t, value, authz.ValueLength(s))
		headers, err := authz.DefaultIdentityHeaders.Encode(authz.Identity{ID: s}, 0)
		require.NoError(t, err)
		if s != "" {
			require.Equal(t, value, headers[0].Value, "the two doors write the same")
		}
		back, err := url.PathUnescape(value)
		require.NoError(t, err)
		require.Equal(t, strings.ToValidUTF8(s, "\uFFFD"), back)
		for _, c := range []byte(value) {
			require.True(t, c > ' ' && c < 0x7f)
		}
		for _, roles := range [][]string{{}, {s}, {s, "x", s}} {
			text := authz.AppendRoles(nil, roles)
			require.Len(t, text, authz.RolesLength(roles))
			want, err := json.Marshal(roles)
			require.NoError(t, err)
			require.JSONEq(t, string(want), string(text))
			for _, c := range text {
				require.True(t, c > ' ' && c < 0x7f)
			}
		}
	})
}
