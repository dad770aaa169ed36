package usercontext_test

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// contract is testdata/contract.json: what this package and those of sdk/typescript and
// sdk/python make of the headers that arrive. All three run the same cases.
type contract struct {
	Users []struct {
		Name        string
		Options     caseOptions
		Headers     pairs
		Want        string
		User        *caseUser
		Service     string
		RequireRole *[]string
	}
	Keys []struct {
		Name     string
		Now      time.Time
		Options  caseOptions
		Keys     []string
		Headers  pairs
		Admitted bool
	}
	Texts []struct {
		Text, SHA256, Refused string
		Expires               time.Time
	}
	Impossible []caseOptions
}

type caseOptions struct {
	Names    struct{ UserID, Email, Roles, OrganizationID, InternalKey string }
	MaxBytes int
}

func (o caseOptions) options() usercontext.Options {
	return usercontext.Options{
		UserID: o.Names.UserID, Email: o.Names.Email, Roles: o.Names.Roles, OrganizationID: o.Names.OrganizationID,
		InternalKey: o.Names.InternalKey, MaxBytes: o.MaxBytes,
	}
}

type caseUser struct {
	UserID, Email  text
	Roles          []string
	OrganizationID text
}

func (u caseUser) user() usercontext.User {
	return usercontext.User{ID: string(u.UserID), Email: string(u.Email), Roles: u.Roles, OrganizationID: string(u.OrganizationID)}
}

// text is a string, or one that is repeated.
type text string

func (s *text) UnmarshalJSON(data []byte) error {
	var long struct {
		Repeat string
		Times  int
	}
	if json.Unmarshal(data, &long) == nil {
		*s = text(strings.Repeat(long.Repeat, long.Times))
		return nil
	}
	return json.Unmarshal(data, (*string)(s))
}

// pairs are the lines of a head, in their order.
type pairs [][2]text

// header keeps the names as they were sent. net/http writes them in canonical form, so
// the map of a case that has a name in two spellings is one that gRPC or a test can make.
func (p pairs) header() http.Header {
	h := http.Header{}
	for _, pair := range p {
		value := make([]byte, 0, len(pair[1]))
		for _, c := range string(pair[1]) {
			value = append(value, byte(c))
		}
		name := string(pair[0])
		h[name] = append(h[name], string(value))
	}
	return h
}

func readContract() contract {
	var c contract
	data, err := os.ReadFile("testdata/contract.json")
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		panic(err)
	}
	return c
}

var cases = readContract()

// malformedHeaders are what the gate cannot have written, by the names of the cases.
var malformedHeaders = func() map[string]http.Header {
	all := map[string]http.Header{}
	for _, c := range cases.Users {
		if c.Want == "malformed" && c.Options == (caseOptions{}) && c.RequireRole == nil {
			all[c.Name] = c.Headers.header()
		}
	}
	return all
}()

func TestContractUsers(t *testing.T) {
	require.Greater(t, len(malformedHeaders), 60)
	names := map[string]bool{}
	for _, tc := range cases.Users {
		require.False(t, names[tc.Name], "two cases are called %q", tc.Name)
		names[tc.Name] = true
		t.Run(tc.Name, func(t *testing.T) {
			reader, err := usercontext.NewReader(tc.Options.options())
			require.NoError(t, err)
			header := tc.Headers.header()
			user, err := reader.FromHeaders(header)
			handler := reader.Require(whoami)
			if tc.RequireRole != nil {
				handler = reader.Require(usercontext.RequireRole(*tc.RequireRole...)(whoami))
			}
			status, body := ask(t, handler, header)
			switch tc.Want {
			case "user":
				require.NoError(t, err)
				require.Equal(t, tc.User.user(), user)
				service, ok := user.Service()
				require.Equal(t, tc.Service, service)
				require.Equal(t, tc.Service != "", ok)
				require.Equal(t, 200, status)
				require.JSONEq(t, mustJSON(t, user), body)
			case "anonymous":
				require.ErrorIs(t, err, usercontext.ErrAnonymous)
				require.NotErrorIs(t, err, usercontext.ErrMalformed)
				require.Equal(t, usercontext.User{Roles: []string{}}, user)
				require.Equal(t, 401, status)
				requireExactly(t, unauthenticated, body)
			case "malformed":
				require.ErrorIs(t, err, usercontext.ErrMalformed)
				require.NotErrorIs(t, err, usercontext.ErrAnonymous)
				require.Equal(t, usercontext.User{Roles: []string{}}, user)
				require.Equal(t, 400, status)
				requireExactly(t, badRequest, body)
			case "forbidden":
				require.NoError(t, err)
				require.Equal(t, 403, status)
				requireExactly(t, forbidden, body)
			default:
				t.Fatalf("nobody knows what %q is", tc.Want)
			}
		})
	}
}

func TestContractKeys(t *testing.T) {
	for _, tc := range cases.Keys {
		t.Run(tc.Name, func(t *testing.T) {
			options := tc.Options.options()
			options.Now = func() time.Time { return tc.Now }
			reader, err := usercontext.NewReader(options)
			require.NoError(t, err)
			var keys []usercontext.Key
			for _, text := range tc.Keys {
				key, err := usercontext.ParseKey(text)
				require.NoError(t, err)
				keys = append(keys, key)
			}
			header := tc.Headers.header()
			err = reader.CheckInternalKey(header, keys...)
			status, body := ask(t, reader.RequireInternalKey(keys...)(whoami), header)
			if tc.Admitted {
				require.NoError(t, err)
				require.Equal(t, 200, status)
				requireExactly(t, nullJSON, body)
				return
			}
			require.ErrorIs(t, err, usercontext.ErrForbidden)
			for _, values := range header {
				for _, value := range values {
					require.True(t, value == "" || !strings.Contains(err.Error(), value), "%v", err)
				}
			}
			require.Equal(t, 403, status)
			requireExactly(t, forbidden, body)
		})
	}
}

func TestContractTexts(t *testing.T) {
	for _, tc := range cases.Texts {
		key, err := usercontext.ParseKey(tc.Text)
		if tc.Refused != "" {
			require.Error(t, err, tc.Refused)
			require.Equal(t, usercontext.Key{}, key, tc.Refused)
			require.NotContains(t, err.Error(), "hush", tc.Refused)
			continue
		}
		require.NoError(t, err, tc.Text)
		require.Equal(t, tc.SHA256, hex.EncodeToString(key.SHA256[:]))
		require.True(t, tc.Expires.Equal(key.Expires), tc.Text)
	}
}

func TestContractImpossibleOptions(t *testing.T) {
	for _, options := range cases.Impossible {
		_, err := usercontext.NewReader(options.options())
		require.Error(t, err, "%+v", options)
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}
