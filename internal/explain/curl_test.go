package explain_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/explain"
)

// line writes a request in one line, without curl's own user-agent.
func line(r *explain.Request) string {
	parts := []string{r.Method + " " + r.Authority + " " + r.Target}
	for _, h := range r.Headers {
		if h != [2]string{"user-agent", "curl"} {
			parts = append(parts, h[0]+"="+h[1])
		}
	}
	return strings.Join(parts, " | ")
}

func TestCurlCommands(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		`curl https://gw.example.com/users/1`:           "GET gw.example.com /users/1",
		`curl gw.example.com`:                           "GET gw.example.com /",
		`https://gw.example.com:8443/a//b/../c?x=1#top`: "GET gw.example.com:8443 /a//b/../c?x=1",
		`curl 'https://gw.example.com?x=1'`:             "GET gw.example.com /?x=1",
		`curl -X DELETE "https://gw/a b"`:               "DELETE gw /a b",
		`curl -sSXPOST -H'X-A: 1' -H "x-b:2" gw/a`:      "POST gw /a | x-a=1 | x-b=2",
		`curl -d a=1 gw/a`:                              "POST gw /a",
		`curl -d a=1 -X PUT gw/a`:                       "PUT gw /a",
		`curl -G -d a=1 --data b=2 gw/a?c=3`:            "GET gw /a?c=3&a=1&b=2",
		`curl --json '{}' gw/a`:                         "POST gw /a | content-type=application/json | accept=application/json",
		`curl -I gw/a`:                                  "HEAD gw /a",
		`curl -T file gw/a`:                             "PUT gw /a",
		`curl -F a=@file gw/a`:                          "POST gw /a",
		`curl -b 'a=1; b=2' gw/a`:                       "GET gw /a | cookie=a=1; b=2",
		`curl -u user:pass gw/a`:                        "GET gw /a | authorization=Basic dXNlcjpwYXNz",
		`curl http://user:p%40ss@gw/a`:                  "GET gw /a | authorization=Basic dXNlcjpwQHNz",
		`curl --oauth2-bearer tok gw/a`:                 "GET gw /a | authorization=Bearer tok",
		`curl -A me -e https://x/ gw/a`:                 "GET gw /a | user-agent=me | referer=https://x/",
		`curl -H 'Host: other.example' gw/a`:            "GET other.example /a",
		`curl -H 'accept:' -H 'x-empty;' gw/a`:          "GET gw /a | x-empty=",
		`curl --url gw/a --max-time 3 -o /dev/null -w '%{http_code}' --cacert ca.pem -k --compressed`: "GET gw /a | accept-encoding=deflate, gzip, br, zstd",
		"curl 'https://gw/a' \\\n  -H $'x-a: it\\'s' \\\n  -H 'x-b: \"q\"'\n":                         `GET gw /a | x-a=it's | x-b="q"`,
		`curl http://[::1]:8080/a`:       "GET [::1]:8080 /a",
		`curl -s gw/* | jq . > out.json`: "GET gw /*",
		`curl gw/{a}`:                    "GET gw /{a}",
	} {
		r, err := explain.ParseCommand(command)
		require.NoError(t, err, command)
		require.Equal(t, want, line(r), command)
	}
}

func TestCommandsThatAreNoRequest(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		``:                                     "no URL",
		`curl`:                                 "no URL",
		`curl -s`:                              "no URL",
		`curl a b`:                             "two URLs",
		`curl -X`:                              "option -X has no value",
		`curl --frobnicate a`:                  "option --frobnicate of curl is not known here",
		`curl -Z a`:                            "option -Z of curl is not known here",
		`curl ftp://gw/a`:                      "give one of http or https",
		`curl --cookie=a=1 gw/a`:               "option --cookie: put its value behind a space",
		`curl http://u:%zz@gw/a`:               "two hexadecimal digits",
		`curl http:///a`:                       "the URL has no host",
		`curl -b cookies.txt gw/a`:             "give the cookies themselves",
		`curl -H @headers.txt gw/a`:            "give the headers themselves",
		`curl -H nocolon gw/a`:                 "has no colon",
		`curl -H 'a b: c' gw/a`:                "a header with no name",
		"curl -H $'a: b\\nc: d' gw/a":          "a line break where none can be",
		`curl gw/a --next gw/b`:                "one request at a time",
		`curl -H "authorization: $TOKEN" gw/a`: "a variable, $TOKEN",
		`curl "$(cat url)"`:                    "has other commands",
		`A=1 curl gw/a`:                        "has other commands",
		`curl gw/a; curl gw/b`:                 "several commands",
		`curl gw/a && curl gw/b`:               "several commands",
		`if true; then curl gw/a; fi`:          "no curl command",
		`curl 'gw/a`:                           "the command can't be read",
	} {
		_, err := explain.ParseCommand(command)
		require.ErrorContains(t, err, want, command)
	}
}

// However a command is mistaken, what is said of it holds no credential.
func TestMistakesAreToldWithoutCredentials(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	for _, command := range []string{
		`curl gw/a -H 'cookie sessionId=s3cr3t'`, `curl gw/a -H 'authorization Bearer s3cr3t'`, `curl gw/a -H s3cr3t`,
		`curl gw/a --oauth2-bearer=s3cr3t`, `curl gw/a --cookie=sessionId=s3cr3t`, `curl gw/a --header='x-internal-api-key: s3cr3t'`,
		`curl gw/a -b s3cr3t`, `curl s3cr3t://gw/a`, `curl http://u:s3cr3t%zz@gw/a`, `curl gw/a 'sessionId=s3cr3t'`,
		`curl gw/a -H 'cookie: s3cr3t`, `curl gw/a -H cookie: s3cr3t; b`, `curl gw/a -H cookie=(s3cr3t)`, "curl gw/a -H `s3cr3t`",
		`curl gw/a -H $'cookie: s3cr3t\nb'`,
	} {
		_, err := explain.ParseCommand(command)
		require.Error(t, err, command)
		require.NotContains(t, err.Error(), secret, command)
	}
}

func TestRepeatedHeadersAreJoinedAsGatewaysDo(t *testing.T) {
	t.Parallel()
	r, err := explain.ParseWords([]string{"gw/a", "-H", "cookie: a=1", "-H", "Cookie: b=2", "-H", "accept: x", "-H", "accept: y"})
	require.NoError(t, err)
	parts, err := r.Parts()
	require.NoError(t, err)
	cookie, _ := parts.Headers.Header("cookie")
	accept, _ := parts.Headers.Header("accept")
	require.Equal(t, []string{"a=1; b=2", "x,y"}, []string{cookie, accept})
	require.False(t, parts.HasPolicyName)

	r.Address = "203.0.113.x"
	_, err = r.Parts()
	require.ErrorContains(t, err, "no IP address")
}

func FuzzParseCommand(f *testing.F) {
	for _, seed := range []string{`curl -sSXPOST 'http://u:p@h/a?b#c' -H "x: 1" -d a`, "curl $'a\\x00' -H", `-`, `curl -`, "{a,b}", "~/x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, command string) {
		r, err := explain.ParseCommand(command)
		if err == nil {
			require.NotEmpty(t, r.Method)
			require.True(t, strings.HasPrefix(r.Target, "/"), r.Target)
			_, err := r.Parts()
			require.NoError(t, err)
		}
	})
}
