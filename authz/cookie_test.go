package authz_test

import (
	_ "embed"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func TestFirstCookie(t *testing.T) {
	t.Parallel()
	const absent = "\x00absent"
	for name, tt := range map[string]struct{ header, want string }{
		"alone":                               {"sessionId=a", "a"},
		"among others":                        {"theme=dark; sessionId=a; lang=de", "a"},
		"the first of two decides":            {"sessionId=a; sessionId=b", "a"},
		"the first decides, though empty":     {"sessionId=; sessionId=b", ""},
		"the first of two headers decides":    {"sessionId=a,sessionId=b", "a"},
		"in the second of two headers":        {"theme=dark,sessionId=a", "a"},
		"in the second, with a space":         {"theme=dark, sessionId=a", "a"},
		"crumbs, then a second header":        {"a=1; b=2,sessionId=a; c=3", "a"},
		"crumbs without a space":              {"a=1;sessionId=a;c=3", "a"},
		"as it stands":                        {"sessionId=s%3Aid.sig%2B", "s%3Aid.sig%2B"},
		"quotes stay":                         {`sessionId="a"`, `"a"`},
		"equals signs belong to the value":    {"sessionId=a=b==", "a=b=="},
		"white space around":                  {" sessionId \t=\t a b \t;x", "a b"},
		"after a name without a value":        {"sessionId; sessionId=a", "a"},
		"after empty pairs":                   {";;, ;sessionId=a", "a"},
		"empty header":                        {"", absent},
		"no value sign":                       {"sessionId", absent},
		"only as a value":                     {"x=sessionId", absent},
		"only inside a value":                 {"x=sessionId=a", absent},
		"another case":                        {"SessionId=a; sessionid=b", absent},
		"as a prefix":                         {"sessionIdx=a; sessionId2=b; sessionId.sig=c", absent},
		"as a suffix":                         {"xsessionId=a; __Host-sessionId=b; x-sessionId=c", absent},
		"escaped":                             {"%73essionId=a", absent},
		"quoted":                              {`"sessionId"=a`, absent},
		"other white space is part of a name": {"\vsessionId=a;\u00a0sessionId=b;\nsessionId=c", absent},
		"look-alikes before the right one":    {"xsessionId=1; sessionIdx=2; sessionId=3", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok := authz.FirstCookie(tt.header, "sessionId")
			if tt.want == absent {
				require.False(t, ok)
				require.Empty(t, got)
				return
			}
			require.True(t, ok)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestWithoutCookie(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ header, want string }{
		"alone":                          {"sessionId=a", ""},
		"first":                          {"sessionId=a; theme=dark", "theme=dark"},
		"middle":                         {"theme=dark; sessionId=a; lang=de", "theme=dark; lang=de"},
		"last":                           {"theme=dark; sessionId=a", "theme=dark"},
		"every one of them":              {"sessionId=a; x=1; sessionId=b,sessionId=c; y=2", "x=1; y=2"},
		"none":                           {"theme=dark; lang=de", "theme=dark; lang=de"},
		"joined by a comma":              {"theme=dark,sessionId=a", "theme=dark"},
		"joined by a comma, before":      {"sessionId=a,theme=dark", "theme=dark"},
		"what a comma joined":            {"a=1,b=2", "a=1; b=2"},
		"a comma in another value stays": {`cart=1,2,3; sessionId=a; list="x, y"`, `cart=1,2,3; list="x, y"`},
		"a comma in its own value goes":  {"sessionId=a,b,c; x=1", "x=1"},
		"an empty value":                 {"sessionId=; x=1", "x=1"},
		"without a value":                {"sessionId; x=1", "x=1"},
		"white space around":             {"x=1 ;\t sessionId \t= a ; y=2", "x=1; y=2"},
		"a quoted value":                 {`sessionId="a"; x=1`, "x=1"},
		"a pair without a name stays":    {"=1; flag; sessionId=a", "=1; flag"},
		"empty pairs":                    {";; ,sessionId=a;;x=1;", "x=1"},
		"look-alikes stay":               {"sessionIdx=1; xsessionId=2; SessionId=3; sessionId.sig=4; sessionId=5", "sessionIdx=1; xsessionId=2; SessionId=3; sessionId.sig=4"},
		"bytes of others are untouched":  {"x=\u00e9\xff%20\"; sessionId=a", "x=\u00e9\xff%20\""},
		"empty":                          {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, authz.WithoutCookie(tt.header, "sessionId"))
		})
	}
}

// cookieAnswer is what the npm module cookie read out of a Cookie header.
type cookieAnswer struct {
	Header string  `json:"header"`
	Value  *string `json:"value"` // nil: no cookie of the name
}

//go:embed testdata/cookie-answers.json
var cookieAnswersJSON []byte

func cookieAnswers(tb testing.TB) []cookieAnswer {
	tb.Helper()
	var answers []cookieAnswer
	require.NoError(tb, json.Unmarshal(cookieAnswersJSON, &answers))
	require.Greater(tb, len(answers), 300)
	return answers
}

// The cookie that Gatehouse reads must be the one that Express behind it
// reads: with two of that name, an attacker who can plant one would have the
// gate and the application see different sessions.
func TestFirstCookieIsTheOneThatExpressReads(t *testing.T) {
	t.Parallel()
	for _, answer := range cookieAnswers(t) {
		got, ok := authz.FirstCookie(answer.Header, "sessionId")
		require.Equal(t, answer.Value != nil, ok, "%q", answer.Header)
		if ok {
			require.Equal(t, *answer.Value, unquoted(got), "%q", answer.Header)
		}
	}
}

// unquoted takes off what the npm module takes off: quotes around a value.
// FirstCookie leaves that to who reads the value.
func unquoted(s string) string {
	if s == `"` {
		return ""
	}
	if strings.HasPrefix(s, `"`) && strings.HasSuffix(s, `"`) {
		return s[1 : len(s)-1]
	}
	return s
}

func FuzzCookies(f *testing.F) {
	for _, answer := range cookieAnswers(f)[:60] {
		f.Add(answer.Header, "sessionId")
	}
	f.Add("a=1,2,sessionId=3,x;y=sessionId=4,sessionId", "sessionId")
	f.Add("a=x,,sessionId=1, ,=2;=,", "")
	f.Fuzz(func(t *testing.T, header, name string) {
		stripped := authz.WithoutCookie(header, name)
		_, found := authz.FirstCookie(stripped, name)
		require.False(t, found, "%q is still in %q", name, stripped)
		require.LessOrEqual(t, len(stripped), 2*len(header))
		require.Equal(t, stripped, authz.WithoutCookie(stripped, name), "stripping twice")
		for pair := range strings.SplitSeq(stripped, ";") { // as a server reads it that knows of no comma
			key, _, ok := strings.Cut(pair, "=")
			require.False(t, ok && strings.Trim(key, " \t") == name, "%q is still in %q", name, stripped)
		}

		// Every other cookie is read as before.
		for _, other := range []string{"a", "y"} {
			if other == name {
				continue
			}
			want, had := authz.FirstCookie(header, other)
			got, has := authz.FirstCookie(stripped, other)
			require.Equal(t, had, has, "%q of %q in %q", other, header, stripped)
			require.Equal(t, want, got, "%q of %q in %q", other, header, stripped)
		}
	})
}
