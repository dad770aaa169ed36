package forwardauth_test

import (
	"bufio"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/forwardauth"
)

const (
	badRequest  = `{"error":"Bad request"}`
	noToken     = `{"error":"No token provided"}`
	badToken    = `{"error":"Invalid token"}`
	badSession  = `{"error":"Invalid session"}`
	forbidden   = `{"error":"Forbidden"}`
	tooMany     = `{"error":"Too many requests"}`
	unavailable = `{"error":"Authentication unavailable"}`
)

// recorded is one decision.
type recorded struct {
	request  *authz.Request
	decision *authz.Decision
	err      error
}

type recorder struct{ all []recorded }

func (r *recorder) Record(_ context.Context, request *authz.Request, d *authz.Decision, err error, _ time.Duration) {
	r.all = append(r.all, recorded{request, d, err})
}

// newHandler returns a door with a budget of 8 KiB and one trusted hop.
func newHandler(tb testing.TB) *forwardauth.Handler {
	tb.Helper()
	return forwardauth.NewHandler(newAuthorizer(tb), forwardauth.Options{MaxHeaderBytes: 8192, TrustedHops: 1})
}

// check asks with these header lines, "name: value", as a proxy's connection
// would bring them.
func check(h http.Handler, target string, lines ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, http.NoBody)
	r.Host = "gateway.example.com"
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// forwarded and original ask about a request as Traefik and Caddy do, and as
// nginx does.
func forwarded(method, target string, more ...string) []string {
	return append([]string{"X-Forwarded-Method: " + method, "X-Forwarded-Uri: " + target, "X-Forwarded-Host: gateway.example.com"}, more...)
}

func original(method, target string, more ...string) []string {
	return append([]string{"X-Original-Method: " + method, "X-Original-URL: https://gateway.example.com" + target}, more...)
}

const (
	alice = "Cookie: sessionId=signed.alice"
	bob   = "Cookie: sessionId=signed.bob"
)

// identity are the headers of an answer that a proxy is told to take.
func identity(r *httptest.ResponseRecorder) string {
	var all []string
	for _, name := range []string{"X-User-Id", "X-User-Email", "X-User-Roles", "X-Org-Id"} {
		all = append(all, r.Header().Values(name)...)
	}
	return strings.Join(all, " ")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	const (
		isAlice = `alice alice@example.com ["admin","user"] org-1`
		isBob   = `bob bob@example.com ["user"]`
	)
	for name, tt := range map[string]struct {
		method, target string
		headers        []string
		query          string
		status         int
		body           string
		identity       string
		header         map[string]string
	}{
		"a session":                      {target: "/", headers: []string{alice}, status: 200, identity: isAlice},
		"a session, any method":          {method: "PROPFIND", target: "/", headers: []string{alice}, status: 200, identity: isAlice},
		"no organization":                {target: "/", headers: []string{bob}, status: 200, identity: isBob},
		"the first of two cookies":       {target: "/", headers: []string{bob, alice}, status: 200, identity: isBob},
		"a token":                        {target: "/", headers: []string{"Authorization: Bearer token-of-bob"}, status: 200, identity: isBob},
		"a key":                          {target: "/internal/x", headers: []string{"x-internal-api-key: " + apiKey}, status: 200, identity: "service:billing []"},
		"nobody, where that is welcome":  {target: "/public/x", headers: []string{alice}, status: 200},
		"nobody, by choice":              {target: "/optional/x", status: 200},
		"nobody, with a dead session":    {target: "/optional/x", headers: []string{"Cookie: sessionId=signed.zoe"}, status: 200},
		"somebody, where nobody may be":  {target: "/optional/x", headers: []string{alice}, status: 200, identity: isAlice},
		"an identity of the client's":    {target: "/public/x", headers: []string{"X-User-Id: root", "X-Org-Id: evil"}, status: 200},
		"an identity that is encoded":    {target: "/", headers: []string{"Cookie: sessionId=signed.jörg"}, status: 200, identity: `j%C3%B6rg%20100%25 j%C3%B6rg@b%C3%BCcher.example ["pr\u00fcfer"] R&D%0D%0Ax-user-id:%20root`},
		"only observed":                  {target: "/trial/x", headers: []string{bob}, status: 200, identity: isBob},
		"only observed, nobody":          {target: "/trial/x", status: 200},
		"only observed, too long":        {target: "/trial/x", headers: []string{"Cookie: sessionId=signed.long"}, status: 200},
		"a query is data":                {target: "/public/x?a=/../%2f//;", status: 200},
		"the policy of the proxy":        {target: "/admin/x", query: "policy=public", status: 200},
		"the policy of the proxy denies": {target: "/public/x", query: "policy=admin", headers: []string{bob}, status: 403, body: forbidden},
		"a policy with an odd name":      {target: "/", query: "policy=gr%C3%B6%C3%9Fe+1", headers: []string{alice}, status: 200, identity: isAlice},
		"an escaped letter":              {target: "/%61dmin/x", headers: []string{bob}, status: 403, body: forbidden},
		"a limit by address, not met":    {target: "/limited/x", headers: []string{bob, "X-Forwarded-For: 198.51.100.1, 203.0.113.9"}, status: 200, identity: isBob},
		"an address of the client's":     {target: "/limited/x", headers: []string{bob, "X-Forwarded-For: 203.0.113.9, 198.51.100.1"}, status: 429, body: tooMany, header: map[string]string{"Retry-After": "17"}},

		"no credential":              {target: "/", status: 401, body: noToken, header: map[string]string{"Www-Authenticate": `Bearer realm="gatehouse"`}},
		"no credential, no token":    {target: "/admin/x", status: 401, body: noToken},
		"a forged session":           {target: "/", headers: []string{"Cookie: sessionId=alice"}, status: 401, body: badSession},
		"an unknown session":         {target: "/", headers: []string{"Cookie: sessionId=signed.zoe"}, status: 401, body: badSession},
		"a bad token":                {target: "/", headers: []string{"Authorization: Bearer x"}, status: 401, body: badToken, header: map[string]string{"Www-Authenticate": `Bearer error="invalid_token"`}},
		"a wrong key":                {target: "/internal/x", headers: []string{"x-internal-api-key: x"}, status: 403, body: forbidden},
		"a key by another spelling":  {target: "/internal/x", headers: []string{"x_internal_api_key: " + apiKey}, status: 401, body: noToken},
		"a role that is missing":     {target: "/admin/x", headers: []string{bob}, status: 403, body: forbidden},
		"an identity that is long":   {target: "/", headers: []string{"Cookie: sessionId=signed.long"}, status: 403, body: forbidden},
		"the store is out":           {target: "/", headers: []string{"Cookie: sessionId=signed.outage"}, status: 503, body: unavailable, header: map[string]string{"Retry-After": "1"}},
		"the store has a bug":        {target: "/", headers: []string{"Cookie: sessionId=signed.panic"}, status: 503, body: unavailable, header: map[string]string{"Retry-After": "1"}},
		"a condition has a bug":      {target: "/panics/x", headers: []string{alice}, status: 503, body: unavailable, header: map[string]string{"Retry-After": "1"}},
		"a navigation":               {target: "/web/x?tab=1", headers: []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, status: 302, header: map[string]string{"Location": "/login?return_to=%2Fweb%2Fx%3Ftab%3D1"}},
		"a navigation by form":       {method: "POST", target: "/web/x", headers: []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, status: 401, body: noToken},
		"another site's form":        {method: "POST", target: "/", headers: []string{alice, "Origin: https://evil.example"}, status: 403, body: forbidden},
		"our own form":               {method: "POST", target: "/", headers: []string{alice, "Origin: https://gateway.example.com"}, status: 200, identity: isAlice},
		"another site's WebSocket":   {target: "/", headers: []string{alice, "Origin: https://evil.example", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}, status: 403, body: forbidden},
		"another site's, by Upgrade": {target: "/", headers: []string{alice, "Origin: https://evil.example", "Upgrade: websocket"}, status: 403, body: forbidden},
		"another site's, by HTTP/2":  {target: "/", headers: []string{alice, "Origin: https://evil.example", "Sec-WebSocket-Version: 13"}, status: 403, body: forbidden},
		"our own WebSocket":          {target: "/", headers: []string{alice, "Origin: https://gateway.example.com", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}, status: 200, identity: isAlice},

		"a path of two meanings":        {target: "/public/../admin/x", headers: []string{alice}, status: 400, body: badRequest},
		"an empty segment":              {target: "//admin/x", headers: []string{alice}, status: 400, body: badRequest},
		"an escaped slash":              {target: "/public%2fx", headers: []string{alice}, status: 400, body: badRequest},
		"a parameter":                   {target: "/public;/x", headers: []string{alice}, status: 400, body: badRequest},
		"the policy does not heal that": {target: "/public/../x", query: "policy=public", status: 400, body: badRequest},

		"an unknown policy":           {target: "/public/x", query: "policy=no-such", status: 403, body: forbidden},
		"an empty policy":             {target: "/public/x", query: "policy=", status: 403, body: forbidden},
		"two policies":                {target: "/public/x", query: "policy=public&policy=public", status: 403, body: forbidden},
		"another parameter":           {target: "/public/x", query: "policy=public&mode=x", status: 403, body: forbidden},
		"a parameter in another case": {target: "/public/x", query: "Policy=public", status: 403, body: forbidden},
		"a query of two meanings":     {target: "/public/x", query: "policy=public;policy=admin", status: 403, body: forbidden},
		"a query that is malformed":   {target: "/public/x", query: "policy=%zz", status: 403, body: forbidden},
	} {
		if tt.method == "" {
			tt.method = "GET"
		}
		for dialect, ask := range map[string]func(method, target string, more ...string) []string{"forwarded": forwarded, "original": original} {
			t.Run(name+", "+dialect, func(t *testing.T) {
				t.Parallel()
				r := check(newHandler(t), "/check?"+tt.query, ask(tt.method, tt.target, tt.headers...)...)
				require.Equal(t, tt.status, r.Code)
				require.Equal(t, tt.body, r.Body.String())
				require.Equal(t, tt.identity, identity(r))
				require.Equal(t, "no-store", r.Header().Get("Cache-Control"))
				require.Empty(t, r.Header().Values("Set-Cookie"))
				if tt.body != "" {
					require.Equal(t, "application/json", r.Header().Get("Content-Type"))
				}
				for _, name := range []string{"Www-Authenticate", "Retry-After", "Location"} {
					require.Equal(t, tt.header[name], r.Header().Get(name), name)
				}
				if dialect == "forwarded" {
					for name := range r.Header() {
						require.NotContains(t, name, "X-Gatehouse-", "it would reach the client")
					}
					return
				}
				require.NotEmpty(t, r.Header().Get("X-Gatehouse-Reason"))
				require.Equal(t, strconv.Itoa(tt.status), r.Header().Get("X-Gatehouse-Status"))
				require.Equal(t, tt.body, r.Header().Get("X-Gatehouse-Body"))
			})
		}
	}
}

// What the proxy must say, and what shows that a client said it.
func TestQuestion(t *testing.T) {
	t.Parallel()
	const method, uri, host = "X-Forwarded-Method: GET", "X-Forwarded-Uri: /public/x", "X-Forwarded-Host: gateway.example.com"
	const origMethod, origURI, origURL = "X-Original-Method: GET", "X-Original-URI: /public/x", "X-Original-URL: https://gateway.example.com/public/x"
	for name, tt := range map[string]struct {
		headers []string
		asked   string // method, authority and target; "" for 400
	}{
		"Traefik and Caddy":                 {[]string{method, uri, host}, "GET gateway.example.com /public/x"},
		"ingress-nginx":                     {[]string{origMethod, origURL}, "GET gateway.example.com /public/x"},
		"nginx, host by Host":               {[]string{origMethod, origURI}, "GET gateway.example.com /public/x"},
		"all of them":                       {[]string{method, uri, host, origMethod, origURI, origURL}, "GET gateway.example.com /public/x"},
		"both, hosts in another case":       {[]string{method, uri, "X-Forwarded-Host: Gateway.EXAMPLE.com", origMethod, origURL}, "GET Gateway.EXAMPLE.com /public/x"},
		"nginx with a host of its own":      {[]string{origMethod, origURI, host}, "GET gateway.example.com /public/x"},
		"X-Forwarded-Proto means nothing":   {[]string{origMethod, origURL, "X-Forwarded-Proto: ftp", "X-Forwarded-Port: 1"}, "GET gateway.example.com /public/x"},
		"a port":                            {[]string{origMethod, "X-Original-URL: http://gateway.example.com:8080/public/x?a=b"}, "GET gateway.example.com:8080 /public/x?a=b"},
		"an IPv6 address":                   {[]string{origMethod, "X-Original-URL: HTTPS://[2001:db8::1]:443/public/x"}, "GET [2001:db8::1]:443 /public/x"},
		"no host at all":                    {[]string{origMethod, "X-Original-URL: http:///public/x"}, "GET  /public/x"},
		"a method in lower case":            {[]string{"X-Forwarded-Method: get", uri, host}, "GET gateway.example.com /public/x"},
		"a URL in the query":                {[]string{method, uri + "?to=https://evil.example/", host}, "GET gateway.example.com /public/x?to=https://evil.example/"},
		"a slash in the query of a URL":     {[]string{origMethod, origURL + "?to=/a?b#"}, ""},
		"nothing":                           {nil, ""},
		"no method":                         {[]string{uri, host}, ""},
		"no method for nginx":               {[]string{origURL}, ""},
		"no method for nginx's path":        {[]string{origURI}, ""},
		"no path":                           {[]string{method, host}, ""},
		"no path for nginx":                 {[]string{origMethod}, ""},
		"no host":                           {[]string{method, uri}, ""},
		"halves of two":                     {[]string{method, origURL}, ""},
		"halves of two, the other way":      {[]string{origMethod, uri, host}, ""},
		"an empty path":                     {[]string{method, "X-Forwarded-Uri: ", host}, ""},
		"an empty method":                   {[]string{"X-Forwarded-Method: ", uri, host}, ""},
		"two methods in one":                {[]string{"X-Forwarded-Method: GET,POST", uri, host}, ""},
		"two hosts in one":                  {[]string{method, uri, "X-Forwarded-Host: gateway.example.com, evil.example"}, ""},
		"method twice":                      {[]string{method, method, uri, host}, ""},
		"path twice":                        {[]string{method, uri, uri, host}, ""},
		"path twice, differing":             {[]string{method, uri, "x-forwarded-uri: /admin", host}, ""},
		"host twice":                        {[]string{method, uri, host, host}, ""},
		"nginx's method twice":              {[]string{origMethod, origMethod, origURL}, ""},
		"nginx's path twice":                {[]string{origMethod, origURI, origURI}, ""},
		"nginx's URL twice":                 {[]string{origMethod, origURL, origURL}, ""},
		"another path beside nginx's":       {[]string{origMethod, origURL, "X-Forwarded-Uri: /admin/x"}, ""},
		"another method beside nginx's":     {[]string{"X-Original-Method: POST", origURL, method}, ""},
		"another host beside nginx's":       {[]string{origMethod, origURL, "X-Forwarded-Host: evil.example"}, ""},
		"another host beside nginx's path":  {[]string{origMethod, origURI, "X-Forwarded-Host: evil.example"}, ""},
		"another host, by its port":         {[]string{origMethod, origURL, "X-Forwarded-Host: gateway.example.com:8443"}, ""},
		"another path beside Traefik's":     {[]string{method, uri, host, "X-Original-URI: /admin/x", origMethod}, ""},
		"another URL beside Traefik's":      {[]string{method, uri, host, "X-Original-URL: https://gateway.example.com/admin", origMethod}, ""},
		"another URL's host beside them":    {[]string{method, uri, host, "X-Original-URL: https://evil.example/public/x", origMethod}, ""},
		"another method beside Traefik's":   {[]string{method, uri, host, "X-Original-Method: POST"}, ""},
		"an empty one beside Traefik's":     {[]string{method, uri, host, "X-Original-URI: "}, ""},
		"nginx's two differ":                {[]string{origMethod, origURL, "X-Original-URI: /admin/x"}, ""},
		"a URL that is a path":              {[]string{origMethod, "X-Original-URL: /public/x"}, ""},
		"a URL without a scheme":            {[]string{origMethod, "X-Original-URL: //gateway.example.com/public/x"}, ""},
		"a URL of another scheme":           {[]string{origMethod, "X-Original-URL: ftp://gateway.example.com/public/x"}, ""},
		"a URL without a path":              {[]string{origMethod, "X-Original-URL: https://gateway.example.com"}, ""},
		"a URL whose host has a query":      {[]string{origMethod, "X-Original-URL: https://gateway.example.com?x=/public/x"}, ""},
		"a URL whose host has a fragment":   {[]string{origMethod, "X-Original-URL: https://gateway.example.com#/public/x"}, ""},
		"a URL whose host has a user":       {[]string{origMethod, "X-Original-URL: https://evil.example@gateway.example.com/public/x"}, ""},
		"a URL whose host has a backslash":  {[]string{origMethod, `X-Original-URL: https://evil.example\gateway.example.com/public/x`}, ""},
		"an absolute URL where a path goes": {[]string{method, "X-Forwarded-Uri: https://gateway.example.com/public/x", host}, ""},
		"OPTIONS *":                         {[]string{"X-Forwarded-Method: OPTIONS", "X-Forwarded-Uri: *", host}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log recorder
			h := forwardauth.NewHandler(newAuthorizer(t), forwardauth.Options{Recorder: &log})
			r := check(h, "/check?policy=public", tt.headers...)
			require.Len(t, log.all, 1)
			seen := log.all[0]
			if tt.asked == "" {
				require.Equal(t, 400, r.Code)
				require.Equal(t, badRequest, r.Body.String())
				require.Error(t, seen.err)
				return
			}
			require.Equal(t, 200, r.Code, seen.err)
			target := seen.request.RawPath
			if seen.request.Query != "" {
				target += "?" + seen.request.Query
			}
			require.Equal(t, tt.asked, seen.request.Method+" "+seen.request.Authority+" "+target)
		})
	}
}

// The operator of a proxy that sends nothing learns what it must send; the
// client doesn't.
func TestTheLogSaysWhatTheProxyMustSend(t *testing.T) {
	t.Parallel()
	var log recorder
	h := forwardauth.NewHandler(newAuthorizer(t), forwardauth.Options{Recorder: &log})
	require.Equal(t, badRequest, check(h, "/check", alice).Body.String())
	check(h, "/check", "X-Original-URI: /x?secret=1", alice)
	check(h, "/check", append(forwarded("GET", "/x"), "X-Original-URI: /y?secret=1")...)
	check(h, "/check?Policy=user", forwarded("GET", "/x")...)
	for i, want := range []string{"X-Forwarded-Method, X-Forwarded-Uri and X-Forwarded-Host", "X-Original-Method with X-Original-URL", "the proxy must overwrite", "policy=NAME"} {
		require.ErrorContains(t, log.all[i].err, want)
		require.NotContains(t, log.all[i].err.Error(), "secret")
		require.Nil(t, log.all[i].decision.Policy)
	}
	require.Equal(t, authz.ReasonBadRequest, log.all[0].decision.Reason)
	require.Equal(t, authz.ReasonPolicyUnknown, log.all[3].decision.Reason)
}

func TestEveryDecisionIsRecordedOnce(t *testing.T) {
	t.Parallel()
	var log recorder
	h := forwardauth.NewHandler(newAuthorizer(t), forwardauth.Options{Recorder: &log})
	check(h, "/check", forwarded("GET", "/", alice)...)
	check(h, "/check", forwarded("GET", "/admin/x", bob)...)
	check(h, "/check", forwarded("GET", "/trial/x", bob)...)
	check(h, "/check", forwarded("GET", "/panics/x", bob)...)
	var got []string
	for _, r := range log.all {
		got = append(got, string(r.decision.Reason))
		require.Equal(t, r.err == nil, slices.Contains([]authz.Reason{authz.ReasonAuthenticated, authz.ReasonAnonymous}, r.decision.Reason))
	}
	require.Equal(t, []string{"authenticated", "role", "authenticated", "internal"}, got)
	require.Error(t, log.all[2].decision.Observed)
}

type broken struct{}

func (broken) Record(context.Context, *authz.Request, *authz.Decision, error, time.Duration) {
	panic("the recorder has a bug")
}

// once is a recorder that has a bug, but not the second time.
type once struct {
	recorder
	met bool
}

func (o *once) Record(ctx context.Context, r *authz.Request, d *authz.Decision, err error, took time.Duration) {
	if !o.met {
		o.met = true
		panic("a bug beyond the decision")
	}
	o.recorder.Record(ctx, r, d, err, took)
}

// A bug anywhere on the way of a question is counted and logged as one.
func TestABugIsRecorded(t *testing.T) {
	t.Parallel()
	var log once
	h := forwardauth.NewHandler(newAuthorizer(t), forwardauth.Options{Recorder: &log})
	require.Equal(t, http.StatusServiceUnavailable, check(h, "/check?policy=public", "X-Original-Method: GET", "X-Original-URL: https://a.example/").Code)
	require.Len(t, log.all, 1)
	require.Equal(t, authz.ReasonInternal, log.all[0].decision.Reason)
}

func TestABugInTheRecorderIsARefusal(t *testing.T) {
	t.Parallel()
	h := forwardauth.NewHandler(newAuthorizer(t), forwardauth.Options{Recorder: broken{}})
	r := check(h, "/check", forwarded("GET", "/", alice)...)
	require.Equal(t, 503, r.Code)
	require.Equal(t, unavailable, r.Body.String())
	require.Empty(t, identity(r))
}

// A store that hangs is a 503 before the proxy loses patience.
func TestDecisionsEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/check", http.NoBody)
	for _, line := range forwarded("GET", "/", "Cookie: sessionId=signed.slow") {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	newHandler(t).ServeHTTP(w, r)
	require.Equal(t, 503, w.Code)
	require.NoError(t, ctx.Err())
}

func TestOtherHeaderNames(t *testing.T) {
	t.Parallel()
	h := forwardauth.NewHandler(newAuthorizer(t), forwardauth.Options{Headers: authz.IdentityHeaders{
		ID: "remote-user", Email: "remote-email", Roles: "remote-groups", Organization: "remote-org",
	}})
	r := check(h, "/check", forwarded("GET", "/", alice)...)
	require.Equal(t, "alice", r.Header().Get("Remote-User"))
	require.Equal(t, "alice@example.com", r.Header().Get("Remote-Email"))
	require.Equal(t, `["admin","user"]`, r.Header().Get("Remote-Groups"))
	require.Equal(t, "org-1", r.Header().Get("Remote-Org"))
	require.Empty(t, identity(r))
}

// The proxy learns what is left of cookie and authorization; it removes what is
// not in the answer.
func TestStripCredentials(t *testing.T) {
	t.Parallel()
	h := forwardauth.NewHandler(newAuthorizer(t), forwardauth.Options{StripCredentials: true, SessionCookie: "sessionId"})
	for name, tt := range map[string]struct {
		target                string
		headers               []string
		cookie, authorization string
	}{
		"the session cookie only":            {"/", []string{"Cookie: a=1; sessionId=signed.alice; b=2"}, "a=1; b=2", ""},
		"no other cookie":                    {"/", []string{alice}, "", ""},
		"every one of them":                  {"/", []string{"Cookie: sessionId=signed.alice; a=1", "Cookie: sessionId=x"}, "a=1", ""},
		"a token":                            {"/", []string{"Authorization: Bearer token-of-bob", "Cookie: a=1"}, "a=1", ""},
		"a token beside the session":         {"/", []string{"Authorization: Bearer token-of-bob", alice}, "", ""},
		"a token that the policy won't take": {"/admin/x", []string{"Authorization: Bearer token-of-bob", alice}, "", "Bearer token-of-bob"},
		"another scheme":                     {"/", []string{"Authorization: Basic YTpi", alice}, "", "Basic YTpi"},
		"nobody's":                           {"/public/x", []string{"Authorization: Basic YTpi", "Cookie: a=1"}, "a=1", "Basic YTpi"},
		"nothing":                            {"/public/x", nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := check(h, "/check", forwarded("GET", tt.target, tt.headers...)...)
			require.Equal(t, 200, r.Code)
			require.Equal(t, tt.cookie, r.Header().Get("Cookie"))
			require.Equal(t, tt.authorization, r.Header().Get("Authorization"))
			require.Empty(t, r.Header().Get("X-Internal-Api-Key"))

			r = check(newHandler(t), "/check", forwarded("GET", tt.target, tt.headers...)...)
			require.Empty(t, r.Header().Get("Cookie")+r.Header().Get("Authorization"), "not asked for")
		})
	}
	r := check(h, "/check", forwarded("GET", "/admin/x", bob, "Authorization: Basic YTpi")...)
	require.Equal(t, 403, r.Code)
	require.Empty(t, r.Header().Get("Authorization"), "a refusal reaches the client")
}

// A policy's name and a reason go to the log of a proxy that keeps them there.
func TestNotesForTheLog(t *testing.T) {
	t.Parallel()
	r := check(newHandler(t), "/check?policy=gr%C3%B6%C3%9Fe+1", original("GET", "/", alice)...)
	require.Equal(t, "authenticated", r.Header().Get("X-Gatehouse-Reason"))
	require.Equal(t, "gr%C3%B6%C3%9Fe%201", r.Header().Get("X-Gatehouse-Policy"))
	require.Empty(t, r.Header().Get("X-Gatehouse-Body"))

	// Behind Traefik a client that repeats the question in nginx's words gets no
	// more than others.
	r = check(newHandler(t), "/check", append(forwarded("GET", "/admin/x", bob), original("GET", "/admin/x")...)...)
	require.Equal(t, 403, r.Code)
	names := slices.Sorted(maps.Keys(r.Header()))
	require.Equal(t, []string{"Cache-Control", "Content-Length", "Content-Type"}, names)
}

// The body of a proxy's request is nobody's business: one that was announced and
// never comes keeps nobody waiting.
func TestBodiesAreNotRead(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newHandler(t))
	t.Cleanup(server.Close)
	for name, head := range map[string]string{
		"none":              "GET /check HTTP/1.1",
		"none, HEAD":        "HEAD /check HTTP/1.1",
		"announced":         "POST /check HTTP/1.1\r\nContent-Length: 1000",
		"announced, long":   "GET /check HTTP/1.1\r\nContent-Length: 100000000",
		"announced, chunks": "PUT /check HTTP/1.1\r\nTransfer-Encoding: chunked",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
			_, err = io.WriteString(conn, head+"\r\nHost: gateway.example.com\r\n"+strings.Join(forwarded("POST", "/admin/x", bob), "\r\n")+"\r\n\r\n")
			require.NoError(t, err)
			method, _, _ := strings.Cut(head, " ")
			r, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
			require.NoError(t, err)
			defer func() { _ = r.Body.Close() }()
			require.Equal(t, 403, r.StatusCode)
			require.Equal(t, int64(len(forbidden)), r.ContentLength)
			text, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			if method == "HEAD" {
				require.Empty(t, text)
				return
			}
			require.Equal(t, forbidden, string(text))
		})
	}
}
