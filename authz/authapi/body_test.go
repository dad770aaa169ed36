package authapi_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

func TestObjects(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for text, good := range map[string]bool{
		`{}`: true, ` { } `: true, `{"a":1}`: true, `{"a":[{"b":1},{"b":2}]}`: true, `{"a":{"b":1},"c":{"b":1}}`: true, `{"a":"\ud83d\ude00"}`: true, `{"a":"\\ud800"}`: true,
		`{"a":"\u00e9\n\"\\\/"}`: true, `{"é":1}`: true, `{"a":"\uffff"}`: true, `{"a":"\\\\u"}`: true, `{"a":"\ue000"}`: true,
		``: false, ` `: false, `null`: false, `[]`: false, `"a"`: false, `1`: false, `{`: false, `{}}`: false, `{} {}`: false, `{}x`: false, `{"a":1,}`: false, `{a:1}`: false, `{'a':1}`: false,
		`{"a":1,"a":1}`: false, `{"a":1,"\u0061":1}`: false, `{"a":{"b":1,"b":1}}`: false, `{"a":[{"b":1,"b":1}]}`: false,
		`{"a":"\ud800"}`: false, `{"a":"\udc00"}`: false, `{"a":"\udc00\ud800"}`: false, `{"a":"\ud800\u0061"}`: false, `{"a":"\ud800x"}`: false, `{"\ud800":1}`: false, `{"a":"\ud83d\\ude00"}`: false,
		`{"a":"\ud800\n"}`: false, `{"a":"\udc00\udc00"}`: false, `{"a":"\ud800xudc00"}`: false, `{"a":"\udfff"}`: false, `{"a":"\udbff"}`: false, `{"a":"\udbff\udbff"}`: false,
		`{"a":"\ud800\udc00\udbff\udfff"}`: true, `{"a":"\ud7ff\ue000"}`: true, `{"a":"\ud800\ue000"}`: false, `{"a":"\ud800\ud800\udc00"}`: false,
		"{\"a\":\"\xff\"}": false, "{\"a\":\"\xed\xa0\x80\"}": false, "\xef\xbb\xbf{}": false, "{\"a\":\"\n\"}": false, `{"a":01}`: false, `{"a":NaN}`: false, `{"a":1}/**/`: false,
		deep(32): true, deep(33): false, deep(20_000): false, `{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`: true, `{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`: false,
	} {
		_, err := authapi.CheckObject([]byte(text))
		require.Equal(t, good, err == nil, "%.80s: %v", text, err)
	}
}

// The bounds, to the byte.
func TestBounds(t *testing.T) {
	t.Parallel()
	text := func(n int) string { return strings.Repeat("x", n) }
	for name, tt := range map[string]struct {
		body  string // with % for the value
		most  int
		value func(n int) string
	}{
		"email":           {`{"email":"%","password":"x"}`, 1024, text},
		"password":        {`{"email":"x","password":"%"}`, 4096, text},
		"userId":          {`{"userId":"%"}`, 512, text},
		"userId, digits":  {`{"userId":%}`, 512, func(n int) string { return strings.Repeat("1", n) }},
		"a refresh token": {`{"refreshToken":"%"}`, 32 << 10, text},
		"a role":          {`{"roles":["%"]}`, 512, text},
		"an organization": {`{"organizationId":"%"}`, 512, text},
	} {
		decode := authapi.Bodies[map[string]string{
			"email": "login", "password": "token", "userId": "revoke all", "userId, digits": "create", "a refresh token": "refresh", "a role": "change", "an organization": "switch",
		}[name]]
		_, err := decode([]byte(strings.ReplaceAll(tt.body, "%", tt.value(tt.most))))
		require.NoError(t, err, name)
		_, err = decode([]byte(strings.ReplaceAll(tt.body, "%", tt.value(tt.most+1))))
		require.Error(t, err, name)
	}
	for seconds, good := range map[string]bool{"0": false, "0.001": true, "4294967295": true, "4294967296": false} {
		_, err := authapi.Bodies["create"]([]byte(`{"userId":"a","authTime":` + seconds + `}`))
		require.Equal(t, good, err == nil, seconds)
	}
}

// Every decoder takes what another JSON library reads in the same way, and what
// it takes is within bounds.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{"email":"bob@example.com","password":"x","client":"mobile"}`, `{"refreshToken":null}`, `{"token":"x","token_type_hint":"y"}`, `{"userId":7}`, `{"organizationId":"org-1"}`,
		`{"roles":["a"],"disabled":true,"organizationId":""}`, `{"userId":"a","email":null,"roles":[],"organizations":["a",1],"authTime":1.5,"address":"::1","userAgent":"x","data":{"a":{"b":[1]}}}`,
		`{"email":"\ud83d\ude00","password":"\u0000"}`, `{"email":"a","Email":"b"}`, `{"a":1,"a":2}`, `[]`, ``, `{"userId":-0}`, `{"userId":1e3}`, "{\"email\":\"\xff\"}", `{"authTime":1e308,"userId":"a"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, decode := range authapi.Bodies {
			got, err := decode([]byte(text))
			if err != nil {
				require.NotContains(t, err.Error(), "\n")
				require.Less(t, len(err.Error()), 100, "errors don't quote")
				continue
			}
			// encoding/json with all its leniency agrees on what is there.
			var members map[string]any
			d := json.NewDecoder(strings.NewReader(text))
			d.UseNumber()
			require.NoError(t, d.Decode(&members), name)
			require.False(t, d.More())
			require.True(t, utf8.ValidString(text))
			for member, value := range members {
				if _, known := got[member]; !known && authapi.Lenient[name] {
					continue
				}
				require.Contains(t, got, member, "an unknown member was taken")
				checkMember(t, member, got[member], value)
			}
		}
	})
}

// checkMember compares what was taken with what was sent.
func checkMember(t *testing.T, member string, got, sent any) {
	t.Helper()
	within := func(s string) {
		require.True(t, utf8.ValidString(s))
		require.LessOrEqual(t, len(s), 64<<10)
		if member == "userId" || member == "organizationId" {
			require.LessOrEqual(t, len(s), 512)
			require.NotContains(t, s, "\n")
		}
	}
	switch got := got.(type) {
	case string:
		within(got)
		if sent != nil {
			require.Equal(t, fmt.Sprint(sent), got)
		}
	case *string:
		require.NotNil(t, got)
		within(*got)
		require.Equal(t, sent, *got)
	case *bool:
		require.Equal(t, sent, *got)
	case *[]string:
		require.Len(t, *got, len(sent.([]any)))
	case []string:
		if sent != nil {
			require.Len(t, got, len(sent.([]any)))
			for i, s := range got {
				within(s)
				require.Equal(t, fmt.Sprint(sent.([]any)[i]), s)
			}
		}
	}
}

// A form has each parameter once, or is none.
func FuzzForm(f *testing.F) {
	for _, seed := range []string{"token=x", "token=a%20b&token_type_hint=c", "token=x&token=y", "token=%zz", "token=%ff", "a;b", "", "=", "token"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := authapi.ParseForm(text, "token")
		if err != nil {
			require.Empty(t, token)
			return
		}
		require.True(t, utf8.ValidString(token))
		names := 0
		for pair := range strings.SplitSeq(text, "&") {
			name, _, _ := strings.Cut(pair, "=")
			if name == "token" {
				names++
			}
		}
		require.LessOrEqual(t, names, 1)
	})
}
