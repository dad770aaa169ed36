package usercontext_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

func TestAKeyWithoutValuesIsNoHeader(t *testing.T) {
	user, err := usercontext.FromHeaders(http.Header{"X-User-Id": {"alice"}, "X-User-Roles": {}})
	require.NoError(t, err)
	require.Equal(t, usercontext.User{ID: "alice", Roles: []string{}}, user)
	_, err = usercontext.FromHeaders(nil)
	require.ErrorIs(t, err, usercontext.ErrAnonymous)
}

func TestErrorsRepeatNoValues(t *testing.T) {
	for _, header := range []http.Header{
		{"X-User-Id": {"hush%"}},
		{"X-User-Id": {"hush%00"}},
		{"X-User-Id": {"hush hush"}},
		{"X-User-Id": {"hush", "hush"}},
		{"X-User-Id": {"alice"}, "X-User-Roles": {"hush"}},
		{"X-User-Id": {"alice"}, "X-User-Roles": {`["hush\n"]`}},
		{"X-User-Id": {"alice"}, "X-User-Roles": {`[{"hush":1}]`}},
		{"X_user_id": {"hush"}},
		{"X-User-Email": {"hush"}},
	} {
		_, err := usercontext.FromHeaders(header)
		require.ErrorIs(t, err, usercontext.ErrMalformed)
		require.NotContains(t, err.Error(), "hush")
	}
}

func TestNewReaderRefusesImpossibleNames(t *testing.T) {
	for _, tc := range []struct {
		options usercontext.Options
		want    string
	}{
		{usercontext.Options{UserID: "x user"}, "not a header name"},
		{usercontext.Options{Email: "x-ümail"}, "not a header name"},
		{usercontext.Options{InternalKey: "x-key:"}, "not a header name"},
		{usercontext.Options{UserID: "X-Org-Id"}, "UserID and OrganizationID both name"},
		{usercontext.Options{Email: "x-who", Roles: "X_WHO"}, "Email and Roles both name"},
		{usercontext.Options{InternalKey: "x_user_id"}, "UserID and InternalKey both name"},
		{usercontext.Options{MaxBytes: -1}, "MaxBytes is -1"},
	} {
		_, err := usercontext.NewReader(tc.options)
		require.ErrorContains(t, err, tc.want)
	}
}

func TestService(t *testing.T) {
	for id, want := range map[string]string{
		"service:billing": "billing",
		"service:a:b":     "a:b",
		"service:":        "",
		"service":         "",
		"Service:billing": "",
		"alice":           "",
		"":                "",
	} {
		name, ok := usercontext.User{ID: id}.Service()
		require.Equal(t, want, name, id)
		require.Equal(t, want != "", ok, id)
	}
}

func TestHasRole(t *testing.T) {
	user := usercontext.User{ID: "alice", Roles: []string{"member", "auditor", ""}}
	for _, tc := range []struct {
		anyOf []string
		want  bool
	}{
		{[]string{"member"}, true},
		{[]string{"admin", "auditor"}, true},
		{[]string{"admin"}, false},
		{[]string{"Member"}, false},
		{[]string{"mem"}, false},
		{[]string{""}, false},
		{nil, false},
	} {
		require.Equal(t, tc.want, user.HasRole(tc.anyOf...), "%q", tc.anyOf)
	}
	require.False(t, usercontext.User{}.HasRole("member"))
}

func TestContext(t *testing.T) {
	nobody := usercontext.User{Roles: []string{}}

	user, ok := usercontext.FromContext(context.Background())
	require.False(t, ok)
	require.Equal(t, nobody, user)

	ctx := usercontext.NewContext(context.Background(), usercontext.User{ID: "alice"})
	user, ok = usercontext.FromContext(ctx)
	require.True(t, ok)
	require.Equal(t, usercontext.User{ID: "alice", Roles: []string{}}, user, "roles are never nil")

	user, ok = usercontext.FromContext(usercontext.NewContext(ctx, usercontext.User{Roles: []string{"admin"}}))
	require.False(t, ok, "a user without an id hides the outer one")
	require.Equal(t, nobody, user)
}

func TestUserJSON(t *testing.T) {
	user, err := usercontext.FromHeaders(http.Header{"X-User-Id": {"alice"}})
	require.NoError(t, err)
	got, err := json.Marshal(user)
	require.NoError(t, err)
	require.JSONEq(t, `{"userId":"alice","email":"","roles":[],"organizationId":""}`, string(got))
}

// encodeText and encodeRoles write headers as SPEC section 10 says the gate
// does. They are written for the test, apart from the decoder.
func encodeText(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= 0x20 || c >= 0x7f || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func encodeRoles(t *testing.T, roles []string) string {
	t.Helper()
	plain, err := json.Marshal(roles)
	require.NoError(t, err)
	var b strings.Builder
	for _, r := range string(plain) {
		if r < 0x7f {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

func clean(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// What the gate wrote is what is read, or refused where a service must not
// read it: control characters and bytes that are no UTF-8.
func FuzzFromHeadersRoundTrip(f *testing.F) {
	f.Add("alice", "alice@example.com", "admin\nmember", "org-1")
	f.Add("Jürgen 100%", "", "", "")
	f.Add("😀", "%41", "\"\\\n\u2028", "a,b;c=\"d\"")
	f.Add("", "x", "admin", "")
	f.Add("a\x00", "\xff", "\ufffd", "\u0085")
	f.Fuzz(func(t *testing.T, id, email, lines, org string) {
		roles := []string{}
		if lines != "" {
			roles = strings.Split(lines, "\n")
		}
		header := http.Header{"X-User-Id": {encodeText(id)}}
		for name, value := range map[string]string{"X-User-Email": email, "X-Org-Id": org} {
			if value != "" {
				header[name] = []string{encodeText(value)}
			}
		}
		// json.Marshal replaces what is no UTF-8, so such roles would come
		// back as what was really written.
		for i := range roles {
			roles[i] = strings.ToValidUTF8(roles[i], "\ufffd")
		}
		header["X-User-Roles"] = []string{encodeRoles(t, roles)}
		size := 0
		for _, values := range header {
			size += len(values[0])
		}

		got, err := usercontext.FromHeaders(header)

		readable := id != "" && clean(id) && clean(email) && clean(org) &&
			!slices.ContainsFunc(roles, func(r string) bool { return !clean(r) }) &&
			size <= usercontext.DefaultMaxBytes
		if !readable {
			require.ErrorIs(t, err, usercontext.ErrMalformed)
			require.Equal(t, usercontext.User{Roles: []string{}}, got)
			return
		}
		require.NoError(t, err)
		require.Equal(t, usercontext.User{ID: id, Email: email, Roles: roles, OrganizationID: org}, got)
	})
}

// Whatever arrives, either it is one canonical user, whose headers read the
// same again, or there is an error and nobody.
func FuzzFromHeaders(f *testing.F) {
	f.Add("X-User-Id", "alice", "X-User-Roles", `["admin"]`)
	for _, header := range malformedHeaders {
		pairs := []string{}
		for name, values := range header {
			for _, value := range values {
				pairs = append(pairs, name, value)
			}
		}
		if len(pairs) == 2 {
			pairs = append(pairs, "Accept", "*/*")
		}
		if len(pairs) == 4 {
			f.Add(pairs[0], pairs[1], pairs[2], pairs[3])
		}
	}
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		header := http.Header{}
		header.Add(name1, value1)
		header.Add(name2, value2)

		got, err := usercontext.FromHeaders(header)

		require.NotNil(t, got.Roles)
		if err != nil {
			require.Equal(t, usercontext.User{Roles: []string{}}, got)
			require.NotEqual(t, strings.Contains(err.Error(), "malformed"), strings.Contains(err.Error(), "no user"))
			return
		}
		require.NotEmpty(t, got.ID)
		for _, text := range append([]string{got.ID, got.Email, got.OrganizationID}, got.Roles...) {
			require.True(t, clean(text), "%q", text)
		}
		byStandardLibrary, err := url.PathUnescape(header.Get("X-User-Id"))
		require.NoError(t, err)
		require.Equal(t, byStandardLibrary, got.ID)

		again, err := usercontext.FromHeaders(http.Header{
			"X-User-Id": {encodeText(got.ID)}, "X-User-Email": {encodeText(got.Email)},
			"X-User-Roles": {encodeRoles(t, got.Roles)}, "X-Org-Id": {encodeText(got.OrganizationID)},
		})
		if len(value1)+len(value2) > usercontext.DefaultMaxBytes/6 {
			return // \u003c for < may make the canonical form longer than is accepted
		}
		require.NoError(t, err)
		require.Equal(t, got, again)
	})
}
