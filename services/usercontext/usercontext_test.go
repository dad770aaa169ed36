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

func TestFromHeadersReadsWhatTheGateWrites(t *testing.T) {
	for _, tc := range []struct {
		name   string
		header http.Header
		want   usercontext.User
	}{
		{
			name: "everything",
			header: http.Header{
				"X-User-Id": {"alice"}, "X-User-Email": {"alice@example.com"},
				"X-User-Roles": {`["admin","member"]`}, "X-Org-Id": {"org-1"},
			},
			want: usercontext.User{ID: "alice", Email: "alice@example.com", Roles: []string{"admin", "member"}, OrganizationID: "org-1"},
		},
		{
			name:   "id alone: no roles",
			header: http.Header{"X-User-Id": {"alice"}},
			want:   usercontext.User{ID: "alice", Roles: []string{}},
		},
		{
			name:   "no roles, as the gate says it",
			header: http.Header{"X-User-Id": {"alice"}, "X-User-Roles": {"[]"}},
			want:   usercontext.User{ID: "alice", Roles: []string{}},
		},
		{
			name: "escapes, in either case of hex",
			header: http.Header{
				"X-User-Id": {"J%C3%BCrgen%20100%25"}, "X-User-Email": {"j%c3%bcrgen@example.com"},
				"X-User-Roles": {`["pr\u00fcfer","team lead","\ud83d\ude00","\\ud800","100%25"]`}, "X-Org-Id": {"%E7%B5%84%E7%B9%94"},
			},
			want: usercontext.User{
				ID: "Jürgen 100%", Email: "jürgen@example.com",
				Roles: []string{"prüfer", "team lead", "😀", `\ud800`, "100%25"}, OrganizationID: "組織",
			},
		},
		{
			name:   "decoded once",
			header: http.Header{"X-User-Id": {"%2541"}},
			want:   usercontext.User{ID: "%41", Roles: []string{}},
		},
		{
			name:   "an escape that was not needed",
			header: http.Header{"X-User-Id": {"%61lice"}},
			want:   usercontext.User{ID: "alice", Roles: []string{}},
		},
		{
			name:   "plus is plus",
			header: http.Header{"X-User-Id": {"a+b"}},
			want:   usercontext.User{ID: "a+b", Roles: []string{}},
		},
		{
			name:   "an empty email or organization is none",
			header: http.Header{"X-User-Id": {"alice"}, "X-User-Email": {""}, "X-Org-Id": {""}},
			want:   usercontext.User{ID: "alice", Roles: []string{}},
		},
		{
			name:   "keys in lower case, as in gRPC metadata",
			header: http.Header{"x-user-id": {"alice"}, "x-user-roles": {`["member"]`}},
			want:   usercontext.User{ID: "alice", Roles: []string{"member"}},
		},
		{
			name:   "a key without values is no header",
			header: http.Header{"X-User-Id": {"alice"}, "X-User-Roles": {}},
			want:   usercontext.User{ID: "alice", Roles: []string{}},
		},
		{
			name:   "other headers mean nothing",
			header: http.Header{"X-User-Id": {"alice"}, "X-User-Name": {"%", "%"}, "X_user": {"bob"}, "Xuserid": {"bob"}},
			want:   usercontext.User{ID: "alice", Roles: []string{}},
		},
		{
			name:   "as long as is accepted",
			header: http.Header{"X-User-Id": {strings.Repeat("a", usercontext.DefaultMaxBytes-2)}, "X-User-Roles": {"[]"}},
			want:   usercontext.User{ID: strings.Repeat("a", usercontext.DefaultMaxBytes-2), Roles: []string{}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			user, err := usercontext.FromHeaders(tc.header)
			require.NoError(t, err)
			require.Equal(t, tc.want, user)
		})
	}
}

func TestFromHeadersAnonymous(t *testing.T) {
	for name, header := range map[string]http.Header{
		"nil":   nil,
		"other": {"Accept": {"*/*"}, "X-User": {"alice"}, "Authorization": {"Bearer x"}},
	} {
		t.Run(name, func(t *testing.T) {
			user, err := usercontext.FromHeaders(header)
			require.ErrorIs(t, err, usercontext.ErrAnonymous)
			require.NotErrorIs(t, err, usercontext.ErrMalformed)
			require.Equal(t, usercontext.User{Roles: []string{}}, user)
		})
	}
}

// malformedHeaders are what the gate cannot have written.
var malformedHeaders = map[string]http.Header{
	"id twice":             {"X-User-Id": {"alice", "bob"}},
	"id twice, the same":   {"X-User-Id": {"alice", "alice"}},
	"id twice, other case": {"X-User-Id": {"alice"}, "x-user-id": {"alice"}},
	"email twice":          {"X-User-Id": {"alice"}, "X-User-Email": {"a@example.com", "b@example.com"}},
	"roles twice":          {"X-User-Id": {"alice"}, "X-User-Roles": {`["member"]`, `["admin"]`}},
	"organization twice":   {"X-User-Id": {"alice"}, "X-Org-Id": {"org-1", ""}},

	"id empty":                    {"X-User-Id": {""}},
	"id empty beside others":      {"X-User-Id": {""}, "X-Org-Id": {"org-1"}},
	"email without id":            {"X-User-Email": {"alice@example.com"}},
	"roles without id":            {"X-User-Roles": {`["admin"]`}},
	"empty roles array, no id":    {"X-User-Roles": {`[]`}},
	"organization without id":     {"X-Org-Id": {"org-1"}},
	"empty organization, no id":   {"X-Org-Id": {""}},
	"underscores":                 {"X_user_id": {"alice"}},
	"underscores beside the true": {"X-User-Id": {"alice"}, "X_user_id": {"admin"}},
	"one underscore":              {"X-User-Id": {"alice"}, "X-User_roles": {`["admin"]`}},
	"underscores, upper case":     {"X_USER_EMAIL": {"a@example.com"}},
	"underscores, organization":   {"X-User-Id": {"alice"}, "x_org_id": {"org-2"}},

	"escape cut short":        {"X-User-Id": {"alice%"}},
	"escape of one digit":     {"X-User-Id": {"alice%4"}},
	"escape, no hex":          {"X-User-Id": {"%zz"}},
	"escape with a sign":      {"X-User-Id": {"%+1"}},
	"escape in email":         {"X-User-Id": {"alice"}, "X-User-Email": {"a%@example.com"}},
	"escape in organization":  {"X-User-Id": {"alice"}, "X-Org-Id": {"%C3%"}},
	"raw UTF-8":               {"X-User-Id": {"jürgen"}},
	"raw space":               {"X-User-Id": {"alice smith"}},
	"raw tab":                 {"X-User-Id": {"alice\t"}},
	"raw DEL":                 {"X-User-Id": {"alice\x7f"}},
	"half a character":        {"X-User-Id": {"%C3"}},
	"overlong slash":          {"X-User-Id": {"%C0%AF"}},
	"surrogate in UTF-8":      {"X-User-Id": {"%ED%A0%80"}},
	"Latin-1":                 {"X-User-Id": {"alice"}, "X-User-Email": {"%FC@example.com"}},
	"NUL":                     {"X-User-Id": {"alice%00"}},
	"line break":              {"X-User-Id": {"alice%0D%0Ax-org-id:1"}},
	"C1 control":              {"X-User-Id": {"alice"}, "X-Org-Id": {"%C2%85"}},
	"DEL":                     {"X-User-Id": {"alice%7F"}},
	"roles empty":             {"X-User-Id": {"alice"}, "X-User-Roles": {""}},
	"roles as a list":         {"X-User-Id": {"alice"}, "X-User-Roles": {"admin,member"}},
	"roles as a string":       {"X-User-Id": {"alice"}, "X-User-Roles": {`"admin"`}},
	"roles as an object":      {"X-User-Id": {"alice"}, "X-User-Roles": {`{"admin":true}`}},
	"roles null":              {"X-User-Id": {"alice"}, "X-User-Roles": {`null`}},
	"a role of null":          {"X-User-Id": {"alice"}, "X-User-Roles": {`["admin",null]`}},
	"a role of number":        {"X-User-Id": {"alice"}, "X-User-Roles": {`["admin",1]`}},
	"a role of array":         {"X-User-Id": {"alice"}, "X-User-Roles": {`[["admin"]]`}},
	"roles cut short":         {"X-User-Id": {"alice"}, "X-User-Roles": {`["admin"`}},
	"roles with a rest":       {"X-User-Id": {"alice"}, "X-User-Roles": {`["member"]["admin"]`}},
	"roles, trailing comma":   {"X-User-Id": {"alice"}, "X-User-Roles": {`["member",]`}},
	"roles joined by a proxy": {"X-User-Id": {"alice"}, "X-User-Roles": {`["member"],["admin"]`}},
	"roles, raw UTF-8":        {"X-User-Id": {"alice"}, "X-User-Roles": {`["prüfer"]`}},
	"roles, tab":              {"X-User-Id": {"alice"}, "X-User-Roles": {"[\t]"}},
	"roles, half a pair":      {"X-User-Id": {"alice"}, "X-User-Roles": {`["\ud83d"]`}},
	"roles, pair reversed":    {"X-User-Id": {"alice"}, "X-User-Roles": {`["\ude00\ud83d"]`}},
	"roles, pair interrupted": {"X-User-Id": {"alice"}, "X-User-Roles": {`["\ud83dx\ude00"]`}},
	"roles, half and escape":  {"X-User-Id": {"alice"}, "X-User-Roles": {`["\ud83d\n"]`}},
	"roles, control":          {"X-User-Id": {"alice"}, "X-User-Roles": {`["admin\u0000"]`}},
	"roles, line break":       {"X-User-Id": {"alice"}, "X-User-Roles": {`["admin\n"]`}},

	"one byte too long":  {"X-User-Id": {strings.Repeat("a", usercontext.DefaultMaxBytes+1)}},
	"too long together":  {"X-User-Id": {"a"}, "X-Org-Id": {strings.Repeat("o", usercontext.DefaultMaxBytes)}},
	"too long and empty": {"X-User-Email": {strings.Repeat("o", usercontext.DefaultMaxBytes+1)}},
}

func TestFromHeadersRefusesMalformed(t *testing.T) {
	for name, header := range malformedHeaders {
		t.Run(name, func(t *testing.T) {
			user, err := usercontext.FromHeaders(header)
			require.ErrorIs(t, err, usercontext.ErrMalformed)
			require.NotErrorIs(t, err, usercontext.ErrAnonymous)
			require.Equal(t, usercontext.User{Roles: []string{}}, user)
		})
	}
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

func TestReaderWithOtherNames(t *testing.T) {
	reader, err := usercontext.NewReader(usercontext.Options{UserID: "X-Auth-Subject", Roles: "x_auth_roles", MaxBytes: 20})
	require.NoError(t, err)

	user, err := reader.FromHeaders(http.Header{
		"X-Auth-Subject": {"alice"}, "X_auth_roles": {`["member"]`}, "X-Org-Id": {"o"},
		// Not headers of this reader, so clients may send what they like.
		"X-User-Id": {"bob"}, "X-User-Roles": {"?"},
	})
	require.NoError(t, err)
	require.Equal(t, usercontext.User{ID: "alice", Roles: []string{"member"}, OrganizationID: "o"}, user)

	_, err = reader.FromHeaders(http.Header{"X-User-Id": {"alice"}})
	require.ErrorIs(t, err, usercontext.ErrAnonymous, "the default name is not read")

	for name, header := range map[string]http.Header{
		"folds the other way": {"X-Auth-Subject": {"alice"}, "X-Auth-Roles": {`["admin"]`}},
		"too long":            {"X-Auth-Subject": {strings.Repeat("a", 21)}},
	} {
		_, err := reader.FromHeaders(header)
		require.ErrorIs(t, err, usercontext.ErrMalformed, name)
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
