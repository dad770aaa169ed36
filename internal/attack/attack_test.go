package attack

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func verifyES256(key *ecdsa.PublicKey, input string, signature []byte) bool {
	if len(signature) != 64 {
		return false
	}
	sum := sha256.Sum256([]byte(input))
	return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
}

var update = flag.Bool("update", false, "write testdata/weaknesses.txt and docs/attacks.md")

// weaknesses are gates that each have something wrong with them.
var weaknesses = [][]string{
	{"no check"},
	{"any header will do"},
	{"trusted callers"},
	{"trusts identity", "keeps identity"},
	{"keeps identity"},
	{"keeps identity of nobody"},
	{"names in lower case"},
	{"takes out the first"},
	{"exact names"},
	{"lenient syntax", "exact names"},
	{"writes the path decoded", "path as it stands"},
	{"trailers"},
	{"drops what Connection names"},
	{"passes on what the client says"},
	{"checks what the client says"},
	{"upgrades"},
	{"path as it stands"},
	{"exact paths"},
	{"resolved path"},
	{"patterns"},
	{"one method"},
	{"unsigned cookies"},
	{"uses the first cookie"},
	{"uses the last cookie"},
	{"no cross-site check"},
	{"sessions as tokens"},
	{"checks one, uses another"},
	{"unverified tokens"},
	{"algorithm none"},
	{"no signature"},
	{"psychic signatures"},
	{"HMAC"},
	{"keys of the token's"},
	{"JSON tokens"},
	{"encrypted tokens"},
	{"tokens in queries"},
	{"claims unread"},
	{"lenient framing"},
	{"lenient syntax", "keeps identity"},
	{"lenient HTTP/2", "exact names"},
	{"lenient HTTP/2", "names in lower case"},
	{"lenient HTTP/2", "drops what Connection names"},
}

func run(t *testing.T, o Options) *Report {
	t.Helper()
	report, err := Run(t.Context(), o)
	require.NoError(t, err)
	return report
}

func (r *Report) ids(v Verdict) []string {
	ids := []string{}
	for _, result := range r.Results {
		if result.Verdict == v {
			ids = append(ids, result.Case.ID)
		}
	}
	return ids
}

// Nothing is broken, skipped or inconclusive where nothing is wrong.
func TestStrictGateHoldsAll(t *testing.T) {
	t.Parallel()
	report := run(t, startGate(t).options())
	for _, r := range report.Results {
		require.Equal(t, Held, r.Verdict, "%s: %s", r.Line(), r.Reason)
	}
	require.Empty(t, report.Notes)
	require.Len(t, report.Results, len(List()))
}

const weaknessesFile = "testdata/weaknesses.txt"

// What is broken by each weakness stands in a file, for people to judge; and each
// case of the list is broken by one of them, so that none of them can't fail.
func TestEveryCaseCanFail(t *testing.T) {
	t.Parallel()
	texts := make([]string, len(weaknesses))
	broken := make([][]string, len(weaknesses))
	t.Run("gates", func(t *testing.T) {
		for i, weakness := range weaknesses {
			t.Run(strings.Join(weakness, ", "), func(t *testing.T) {
				t.Parallel()
				report := run(t, startGate(t, weakness...).options())
				broken[i] = report.ids(Broken)
				texts[i] = fmt.Sprintf("%s\n  %s\n", strings.Join(weakness, ", "), strings.Join(broken[i], "\n  "))
				require.NotEmpty(t, broken[i])
			})
		}
	})
	text := "# What is broken by each weakness of the gates in weak_test.go. Written by\n# go test -run TestEveryCaseCanFail -update\n\n" + strings.Join(texts, "\n")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(weaknessesFile, []byte(text), 0o644))
	}
	want, err := os.ReadFile(weaknessesFile)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
	var never []string
	for _, c := range List() {
		if !slices.ContainsFunc(broken, func(ids []string) bool { return slices.Contains(ids, c.ID) }) {
			never = append(never, c.ID)
		}
	}
	require.Empty(t, never, "no weak gate breaks these: they can't fail")
}

const pageFile = "../../docs/attacks.md"

// The page has the list as it is.
func TestPageIsFresh(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(pageFile)
	require.NoError(t, err)
	before, _, found := strings.Cut(string(text), pageMark)
	require.True(t, found)
	want := before + pageMark + page(List())
	if *update {
		require.NoError(t, os.WriteFile(pageFile, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(text), "run 'make generate'")
}

// The list is long enough, in the order of its categories, and says of each case
// where it comes from in a form that can be looked up.
func TestList(t *testing.T) {
	t.Parallel()
	cases := List()
	require.GreaterOrEqual(t, len(cases), 80)
	reference := regexp.MustCompile(`^(CVE-\d{4}-\d{4,} \([A-Za-z0-9 ./-]+\)|CWE-\d+|RFC \d+ section [0-9.]+|[A-Z0-9][A-Za-z0-9 .]+: .+)$`)
	seen := map[string]bool{}
	for _, c := range cases {
		seen[c.Category] = true
		for _, from := range c.From {
			require.Regexp(t, reference, from, c.ID)
		}
		require.Regexp(t, `\.$`, c.Why, c.ID)
		require.NotRegexp(t, `\.$`, c.Title, c.ID)
	}
	for _, category := range Categories() {
		require.True(t, seen[category], category)
		require.NotEmpty(t, aboutCategories[category])
	}
}

func TestListIsRefusedWhenItIsWrong(t *testing.T) {
	t.Parallel()
	const good = "{id: a-b, category: cookie, severity: high, title: t, why: w, from: [CWE-1], head: ['GET / HTTP/1.1'], expect: {refused: true}}"
	_, err := parseList([]byte("- " + good))
	require.NoError(t, err)
	for _, tc := range [][3]string{
		{"a-b", "A b", "kebab-case"},
		{"cookie", "biscuit", "category"},
		{"high", "dire", "severity"},
		{"title: t", "title: ''", "needed"},
		{"head: ['GET / HTTP/1.1']", "head: []", "either"},
		{"refused: true", "refused: false", "nothing is expected"},
		{"refused: true", "identity: root", "expect.identity"},
		{"refused: true", "refuse: true", "refuse"},
		{"GET /", "GET /{token}", "belong together"},
	} {
		_, err := parseList([]byte("- " + strings.Replace(good, tc[0], tc[1], 1)))
		require.ErrorContains(t, err, tc[2])
	}
	_, err = parseList([]byte("- " + good + "\n- " + good))
	require.ErrorContains(t, err, "twice")
}

func TestChoose(t *testing.T) {
	t.Parallel()
	cases, err := Choose(List(), []string{"cookie", "spoof-plain"}, []string{"cookie-empty"})
	require.NoError(t, err)
	ids := map[string]bool{}
	for _, c := range cases {
		ids[c.ID] = true
		require.True(t, c.Category == "cookie" || c.ID == "spoof-plain")
	}
	require.True(t, ids["spoof-plain"] && ids["cookie-quoted"] && !ids["cookie-empty"])
	_, err = Choose(List(), []string{"nonesuch"}, nil)
	require.ErrorContains(t, err, "nonesuch")
	_, err = Choose(List(), []string{"cookie"}, []string{"cookie"})
	require.ErrorContains(t, err, "no case is left")
}

// An echo may be any of those that are around.
func TestEchoesThatAreAround(t *testing.T) {
	t.Parallel()
	want := &Arrival{Method: "GET", Path: "/a%2fb/../c", Headers: map[string][]string{"x-user-id": {"bob"}, "x-many": {"1", "2"}}}
	for name, body := range map[string]string{
		"ours":       `{"service":"user-service","user":{"userId":"bob"},"method":"GET","host":"h","path":"/a%2fb/../c","query":"","headers":{"x-user-id":["bob"],"x-many":["1","2"]}}`,
		"go-httpbin": `{"args":{},"headers":{"X-User-Id":["bob"],"X-Many":["1","2"]},"method":"GET","origin":"127.0.0.1","url":"http://h/a%2fb/../c?x=/y","data":"","files":{}}`,
		"ealen":      `{"host":{"hostname":"h"},"http":{"method":"GET","baseUrl":"","originalUrl":"/a%2fb/../c?x=1","protocol":"http"},"request":{"params":{"0":"/c"},"query":{},"cookies":{},"body":{},"headers":{"x-user-id":"bob","x-many":["1","2"]}},"environment":{}}`,
		"mendhak":    `{"path":"/a%2fb/../c","headers":{"x-user-id":"bob","x-many":["1","2"]},"method":"GET","body":"","hostname":"h","query":{},"http":"1.1","request":"GET","os":{}}`,
		"whoami":     "Hostname: h\nIP: 127.0.0.1\nRemoteAddr: 127.0.0.1:1\nGET /a%2fb/../c?x=1 HTTP/1.1\nX-User-Id: bob\nX-Many: 1\nX-Many: 2\n\n",
	} {
		a, ok := parseEcho(body)
		require.True(t, ok, name)
		a.Trailers = nil
		require.Equal(t, want, a, name)
	}
	for _, body := range []string{"", "<html>", "{}", `{"error":"Not found"}`, `{"headers":{"a":"b"}}`, `{"headers":[]}`, "{", "GET / HTTP/1.1 is what I like"} {
		_, ok := parseEcho(body)
		require.False(t, ok && body != "GET / HTTP/1.1 is what I like", body)
	}
}

func TestReadings(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"/users/echo", "/users/echo/", "/users/echo/x", "//users/echo", "/users//echo", "/users/./echo", "/x/../users/echo", "/users%2fecho", "/users%252fecho",
		`/users\echo`, "/users%5cecho", "/%75sers/echo", "/%2575sers/echo", "/USERS/echo", "/users/echo;x", "/users;x/echo", "/;x/users/echo",
		"/public/..;/users/echo", "/public/..%3b/users/echo", "/public/..%2fusers/echo", "/public/%2e%2e/users/echo", "/public/%%32%65%%32%65/users/echo",
		"/public/%u002e%u002e/users/echo", "/users/echo%00.css", "/users/echo#x", "/users/echo%23x", "/users/echo%3fx", "/users/echo%20", "/users/echo%0a", "/users/echo.css",
		"users/echo", "http://h/users/echo", "http:/users/echo", "http:users/echo", `/public\..\users\echo`, "/../users/echo",
	} {
		require.True(t, reads(path, "/users/echo"), path)
	}
	for _, path := range []string{"/", "/users", "/users/echoes", "/public/echo", "/public/echo/users", "/users/x/echo", "/public/users/echo", "/users/echo/../x", "/public/...//users"} {
		require.Equal(t, path == "/users/echo/../x", reads(path, "/users/echo"), path) // it is, for who doesn't resolve
	}
}

// What an answer that is no echo says.
func TestVerdictsWithoutAnEcho(t *testing.T) {
	t.Parallel()
	o := Options{Protected: gateProtected, Public: gatePublic, Headers: []string{"x-user-id"}}
	refused, asCaller := Expect{Refused: true}, Expect{Identity: callerIdentity}
	for name, tc := range map[string]struct {
		expect Expect
		out    outcome
		want   Verdict
	}{
		"refused":                      {refused, outcome{answer: answer{status: 401}}, Held},
		"redirected":                   {refused, outcome{answer: answer{status: 302}}, Held},
		"closed":                       {asCaller, outcome{}, Held},
		"not implemented":              {refused, outcome{answer: answer{status: 501}}, Held},
		"the login page":               {refused, outcome{answer: answer{status: 203}}, Held},
		"another page":                 {refused, outcome{answer: answer{status: 200}}, Inconclusive},
		"a preflight":                  {refused, outcome{answer: answer{status: 204}, method: "OPTIONS"}, Held},
		"HEAD":                         {refused, outcome{answer: answer{status: 200}, method: "HEAD"}, Broken},
		"HEAD, refused":                {refused, outcome{answer: answer{status: 403}, method: "HEAD"}, Held},
		"HEAD of the login page":       {refused, outcome{answer: answer{status: 203}, method: "HEAD"}, Inconclusive},
		"too often":                    {refused, outcome{answer: answer{status: 429}}, Inconclusive},
		"an error":                     {refused, outcome{answer: answer{status: 502}}, Inconclusive},
		"late":                         {refused, outcome{answer: answer{late: true}}, Inconclusive},
		"no HTTP":                      {refused, outcome{answer: answer{garbage: true}}, Inconclusive},
		"another protocol":             {asCaller, outcome{answer: answer{status: 101}}, Broken},
		"a key was fetched":            {refused, outcome{answer: answer{status: 401}, fetched: true}, Broken},
		"another one's answer":         {asCaller, outcome{answer: answer{status: 200, foreign: true}}, Broken},
		"the next one got the answer":  {asCaller, outcome{followers: []answer{{echo: &Arrival{Path: gateProtected}}}}, Broken},
		"a second request":             {asCaller, outcome{answer: answer{status: 400, more: []*Arrival{{Path: gateProtected}}}}, Broken},
		"a second request, and nobody": {asCaller, outcome{answer: answer{status: 400, more: []*Arrival{{Path: gatePublic}}}}, Held},
	} {
		got, why := o.verdict(tc.expect, tc.out, &baseline{refusal: 203})
		require.Equal(t, tc.want, got, "%s: %s", name, why)
		require.Equal(t, tc.want == Held, why == "", name)
	}
}

// However a gateway answers over HTTP/2, what reached the service is found.
func TestMannersOfHTTP2(t *testing.T) {
	t.Parallel()
	cases := slices.DeleteFunc(List(), func(c Case) bool { return c.HTTP2 == nil })
	attacked := func(t *testing.T, weaknesses ...string) *Report {
		t.Helper()
		o := startGate(t, weaknesses...).options()
		o.Cases = cases
		return run(t, o)
	}
	broken := attacked(t, "lenient HTTP/2", "exact names").ids(Broken)
	require.NotEmpty(t, broken)
	for _, manner := range []string{"says goodbye first", "sends hints first", "cuts answers off"} {
		t.Run(manner, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, broken, attacked(t, "lenient HTTP/2", "exact names", manner).ids(Broken))
			report := attacked(t, manner)
			require.Len(t, report.ids(Held), len(cases))
			require.Empty(t, report.Notes)
		})
	}
	// Who serves nothing over it refuses nothing either.
	report := attacked(t, "resets HTTP/2")
	require.Len(t, report.ids(Skipped), len(cases))
	require.Equal(t, "an ordinary request over HTTP/2 doesn't reach the echo", report.Results[0].Reason)
	require.Len(t, report.Notes, 1)
	require.Contains(t, report.Notes[0], "serves nothing over it")
}

// A second answer on a connection is waited for as long as the target's own pace asks for.
func TestASlowTargetHidesNoSecondAnswer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			served <- err
			return
		}
		defer func() { _ = conn.Close() }()
		if _, err = http.ReadRequest(bufio.NewReader(conn)); err != nil {
			served <- err
			return
		}
		for _, echo := range []struct {
			after time.Duration
			path  string
		}{{time.Second, gatePublic}, {2 * moreTime, gateProtected}} {
			time.Sleep(echo.after)
			body, err := json.Marshal(Echoed{Service: echoName, Method: "GET", Path: echo.path, Headers: map[string][]string{strings.ToLower(idHeader): {"id"}}})
			if err == nil {
				_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			}
			if err != nil {
				served <- err
				return
			}
		}
		served <- nil
	}()
	o := Options{Target: &url.URL{Scheme: "http", Host: listener.Addr().String()}, Timeout: 20 * time.Second}
	a, err := o.send(t.Context(), "id", []string{"GET " + gatePublic + " HTTP/1.1"}, "", true)
	require.NoError(t, err)
	require.NoError(t, <-served)
	require.Equal(t, gatePublic, a.echo.Path)
	require.Len(t, a.more, 1)
	require.Equal(t, gateProtected, a.more[0].Path)
}

// A target that dies on the way is no reason to say nothing.
func TestTargetThatDies(t *testing.T) {
	t.Parallel()
	g := startGate(t)
	o := g.options()
	o.Progress = func(Result) { _ = g.listener.Close() }
	report := run(t, o)
	require.Equal(t, Held, report.Results[0].Verdict)
	require.Equal(t, Inconclusive, report.Results[1].Verdict)
	require.Contains(t, report.Results[1].Reason, "can't be reached any more")
}

// Nothing that comes back with a credential in it is told.
func TestReportsHaveNoCredentials(t *testing.T) {
	t.Parallel()
	g := startGate(t, "no check")
	o := g.options()
	o.Headers = append(o.Headers, "cookie", "authorization", "x-other") // as if they were the identity
	o.Cases = nil
	report := run(t, o)
	var b strings.Builder
	require.NoError(t, report.JSON(&b))
	for _, r := range report.Results {
		b.WriteString(r.Line() + r.Explain())
	}
	for _, secret := range append(strings.Split(o.Token, "."), g.cookie("bob")) {
		require.NotContains(t, b.String(), secret)
	}
	require.Equal(t, "a [credential] b [credential]", o.scrub("a "+g.cookie("bob")+" b "+o.Token))
}
