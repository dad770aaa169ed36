package e2e

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2/hpack"
)

// What becomes of a request that tries to bring an identity of its own.
type fate int

const (
	overruled fate = iota // it is served, as whom the credential says and nobody else
	rejected              // 400, and no service sees it
	dropped               // the stream or connection is reset
)

// spoofs are the headers of HTTP/1.1 requests that bring an identity. Envoy
// makes one line of a folded one (RFC 9112 section 5.2) and drops a bare CR,
// so that these carry no header of their own.
var spoofs = []struct {
	name    string
	head    string // after the request line
	shipped fate
	bare    fate // where Envoy's own defences are off
}{
	{name: "the plain name", head: "x-user-id: root"},
	{name: "upper case", head: "X-USER-ID: root"},
	{name: "mixed case", head: "X-uSeR-iD: root\nx-User-ROLES: [\"admin\"]"},
	{name: "all four and the key", head: "x-user-id: root\nx-user-email: r@evil.example\nx-user-roles: [\"admin\"]\nx-org-id: evil\nx-internal-api-key: guess"},
	{name: "underscores", head: "x_user_id: root", shipped: rejected},
	{name: "underscores in upper case", head: "X_USER_ID: root", shipped: rejected},
	{name: "underscore, then hyphen", head: "x_user-id: root", shipped: rejected},
	{name: "hyphen, then underscore", head: "x-user_id: root", shipped: rejected},
	{name: "underscores in every name", head: "x_user_id: root\nx_user_email: r\nx_user_roles: [\"admin\"]\nx_org_id: evil", shipped: rejected},
	{name: "mixed spellings side by side", head: "x-user-id: a\nx_user_id: b\nX-User_Id: c\nX_User-Id: d", shipped: rejected},
	{name: "underscores in the key's name", head: "x_internal_api_key: k\nx-internal_api-key: k\nx_internal-api_key: k", shipped: rejected},
	{name: "an organization by underscore", head: "X-Org_Id: evil", shipped: rejected},
	{name: "twice", head: "x-user-id: root\nx-user-id: toor"},
	{name: "twice, cases differ", head: "x-user-id: root\nX-User-Id: toor\nX-USER-ID: third"},
	{name: "forty times", head: strings.TrimSuffix(strings.Repeat("x-user-roles: [\"admin\"]\n", 40), "\n")},
	{name: "an empty value", head: "x-user-id:\nx-user-roles:\nx-org-id: "},
	{name: "a list in one value", head: "x-user-id: bob, root\nx-user-roles: [\"member\"],[\"admin\"]"},
	{name: "spaces around the value", head: "x-user-id:    root   \nx-user-roles:\t[\"admin\"]\t"},
	{name: "the right values", head: "x-user-id: bob\nx-user-roles: [\"member\"]"},
	{name: "bytes that are not ASCII", head: "x-user-id: r\u00f6\u00f6t\nx-org-id: \xff\xfe"},
	{name: "quotes and percent signs", head: "x-user-id: \"root\"\nx-user-email: %0d%0ax-user-roles: admin"},
	{name: "a long value", head: "x-user-id: " + strings.Repeat("r", 8000)},
	{name: "nominated as hop-by-hop", head: "Connection: close, x-user-id"},
	{name: "sent and nominated", head: "x-user-id: root\nConnection: close, x-user-id, x-user-email, x-user-roles, x-org-id"},
	{name: "nominated twice, in other cases", head: "Connection: close, X-User-Id\nConnection: X-USER-ROLES"},
	{name: "nominated with an underscore", head: "Connection: close, x_user_id"},
	{name: "nominated by Proxy-Connection", head: "Proxy-Connection: x-user-id"},
	{name: "nominated by Keep-Alive", head: "Keep-Alive: x-user-id=1"},
	{name: "upgrade to HTTP/2", head: "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\nx-user-id: root"},
	{name: "a header that promises a trailer", head: "Trailer: x-user-id\nTE: trailers"},
	{name: "what another gateway would set", head: "x-forwarded-user: root\nx-remote-user: root\nremote-user: root\nx-user-id: root"},
	{name: "another request's path", head: "x-original-url: /p/open\nx-rewrite-url: /p/open\nx-user-id: root"},
	{name: "folded into another line", head: "x-other: 1\n x-user-id: root"},
	{name: "folded value", head: "x-user-id: ro\n\tot"},
	{name: "a space before the colon", head: "x-user-id : root", shipped: rejected, bare: rejected},
	{name: "a tab before the colon", head: "x-user-id\t: root", shipped: rejected, bare: rejected},
	{name: "a space before the name", head: "x-other: 1\n\tx-user-id: root"},
	{name: "a NUL in the value", head: "x-user-id: ro\x00ot", shipped: rejected, bare: rejected},
	{name: "a NUL in the name", head: "x-user\x00-id: root", shipped: rejected, bare: rejected},
	{name: "a bare CR in another value", head: "x-other: 1\rx-user-id: root"},
	{name: "no colon", head: "x-user-id", shipped: rejected, bare: rejected},
}

// Every spoof is tried as somebody, and as nobody where nobody is welcome: on a
// policy that takes credentials and on one that looks at none. The service sees
// the four headers of the credential's owner, each once, or none of them.
func TestSpoofedIdentityNeverArrives(t *testing.T) {
	require.GreaterOrEqual(t, len(spoofs), 25)
	for _, variant := range []string{asShipped, headerMap, defenceOff} {
		g := sharedGateway(t, variant)
		session := cookie(g.login(t, bob))
		token := bearer(g.pem.issue(claimsOf(pemIssuer, bob)))
		for _, caller := range []struct {
			name, path, credential string
			as                     identity
		}{
			{"session", "/users/me", session, bob},
			{"token", "/orders/1", token, bob},
			{"nobody, credentials welcome", "/public/hello", "", nobody},
			{"nobody, no credentials looked at", "/p/open/x", "", nobody},
			{"session, no credentials looked at", "/p/open/x", session, nobody},
			{"nobody, under observation", "/p/trial/x", "", nobody},
		} {
			for _, spoof := range spoofs {
				t.Run(variant+"/"+caller.name+"/"+spoof.name, func(t *testing.T) {
					head := "GET " + caller.path + " HTTP/1.1\n" + spoof.head
					if caller.credential != "" {
						head += "\n" + caller.credential
					}
					want := spoof.shipped
					if variant == defenceOff {
						want = spoof.bare
					}
					r := g.send(t, head)
					if want == rejected {
						require.Equal(t, http.StatusBadRequest, r.status, r.line())
						require.Nil(t, r.arrived)
						return
					}
					requireAllowed(t, r, caller.as)
					for _, nominated := range append(r.arrived.values("connection"), r.arrived.values("Connection")...) {
						require.NotContains(t, strings.ToLower(nominated), "x-", "the service, or a proxy before it, is told to drop the identity")
					}
				})
			}
		}
	}
}

// A refused request reaches no service, whatever identity it brought along.
func TestSpoofedIdentityOpensNothing(t *testing.T) {
	g := sharedGateway(t, asShipped)
	const root = "x-user-id: root\nx-user-email: root@example.com\nx-user-roles: [\"admin\"]\nx-org-id: org-1\n"
	session := cookie(g.login(t, bob))
	for _, tc := range []struct {
		path, credential string
		status           int
		body             string
	}{
		{"/users/me", "", 401, noToken},
		{"/users/admin/stats", "", 401, noToken},
		{"/users/admin/stats", session, 403, forbidden},
		{"/users/internal/bob", session, 401, noToken},
		{"/users/me", cookie("s%3Aforged.forged"), 401, invalidSession},
		{"/users/me", bearer("a.b.c"), 401, invalidToken},
		{"/misnamed/x", session, 403, forbidden},
		{"/p/unknown", session, 403, forbidden},
	} {
		requireDenied(t, g.get(t, tc.path, root+"x-other: 1", cmp(tc.credential)), tc.status, tc.body)
	}
}

// cmp gives a header that means nothing in place of none.
func cmp(header string) string {
	if header == "" {
		return "x-none: 1"
	}
	return header
}

// A route that skips the check hands out no identity either, although nobody
// told it to take the headers out.
func TestSpoofedIdentityOnRoutesThatSkipTheCheck(t *testing.T) {
	g := sharedGateway(t, asShipped)
	session := cookie(g.login(t, bob))
	for _, path := range []string{"/skipped/x", "/demo/x", "/"} {
		for _, spoof := range spoofs {
			t.Run(path+"/"+spoof.name, func(t *testing.T) {
				r := g.send(t, "GET "+path+" HTTP/1.1\n"+session+"\n"+spoof.head)
				if spoof.shipped == rejected {
					require.Equal(t, http.StatusBadRequest, r.status, r.line())
					require.Nil(t, r.arrived)
					return
				}
				require.Equal(t, http.StatusOK, r.status, r.line())
				for _, f := range r.arrived.identity() {
					require.Equal(t, "x-internal-api-key", f.name, "only a key, which no service takes for an identity, may pass a route that nobody stripped it from")
					require.Equal(t, "/skipped/x", path)
				}
			})
		}
	}
}

// Trailers come after the check.
func TestIdentityInTrailersNeverArrives(t *testing.T) {
	const chunked = "Transfer-Encoding: chunked\nTrailer: x-user-id\n\n3\r\nabc\r\n0\r\nx-user-id: root\r\nx_user_roles: [\"admin\"]\r\n\r\n"
	for _, variant := range []string{asShipped, defenceOff} {
		g := sharedGateway(t, variant)
		session := cookie(g.login(t, bob))
		for path, as := range map[string]identity{"/users/me": bob, "/p/open/x": nobody} {
			r := g.send(t, "POST "+path+" HTTP/1.1\n"+session+"\n"+chunked)
			requireAllowed(t, r, as)
			require.Equal(t, "abc", r.arrived.body)
			require.Empty(t, r.arrived.trailers)

			r = g.http2(t, h2{
				path: path, body: "abc",
				fields:   []hpack.HeaderField{{Name: "cookie", Value: strings.TrimPrefix(session, "Cookie: ")}},
				trailers: []hpack.HeaderField{{Name: "x-user-id", Value: "root"}},
			})
			if r.status == 0 {
				require.Nil(t, r.arrived)
				continue
			}
			requireAllowed(t, r, as)
			require.Empty(t, r.arrived.trailers)
		}
	}
}

// The same over HTTP/2, where names are lower case by definition and nothing
// but the peer's good will keeps line breaks out of values.
func TestSpoofedIdentityOverHTTP2(t *testing.T) {
	hf := func(pairs ...string) []hpack.HeaderField {
		var all []hpack.HeaderField
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
		}
		return all
	}
	spoofs := []struct {
		name          string
		fields        []hpack.HeaderField
		shipped, bare fate
	}{
		{"the plain name", hf("x-user-id", "root"), overruled, overruled},
		{"twice", hf("x-user-id", "root", "x-user-id", "toor"), overruled, overruled},
		{"all four and the key", hf("x-user-id", "root", "x-user-email", "r", "x-user-roles", `["admin"]`, "x-org-id", "evil", "x-internal-api-key", "guess"), overruled, overruled},
		{"empty", hf("x-user-id", "", "x-user-roles", ""), overruled, overruled},
		{"underscores", hf("x_user_id", "root"), dropped, overruled},
		{"mixed spelling", hf("x-user_id", "root", "x_user-roles", `["admin"]`), dropped, overruled},
		{"upper case", hf("X-User-Id", "root"), dropped, dropped},
		{"a line break in a value", hf("x-other", "1\r\nx-user-id: root"), dropped, dropped},
		{"a NUL in a value", hf("x-user-id", "ro\x00ot"), dropped, dropped},
		{"a pseudo-header of its own", hf(":x-user-id", "root"), dropped, dropped},
		{"a connection header", hf("connection", "x-user-id", "x-user-id", "root"), dropped, dropped},
		{"a second path", hf(":path", "/p/open/x"), dropped, dropped},
		{"an upgrade header", hf("upgrade", "h2c", "x-user-id", "root"), dropped, dropped},
		{"a space in the name", hf("x-user-id ", "root"), dropped, dropped},
	}
	type attempt struct {
		name  string
		g     *gateway
		h2    h2
		want  fate
		as    identity
		reply reply
		err   error
	}
	var attempts []*attempt
	for _, variant := range []string{asShipped, headerMap, defenceOff} {
		g := sharedGateway(t, variant)
		session := hf("cookie", "sessionId="+g.login(t, bob))
		for path, as := range map[string]identity{"/users/me": bob, "/p/open/x": nobody} {
			for _, spoof := range spoofs {
				a := &attempt{name: variant + "/" + path + "/" + spoof.name, g: g, want: spoof.shipped, as: as}
				if variant == defenceOff {
					a.want = spoof.bare
				}
				a.h2 = h2{path: path, fields: slices.Concat(session, spoof.fields)}
				attempts = append(attempts, a)
			}
		}
	}
	// All at once: Envoy takes a second until it closes a connection on which
	// the protocol was broken.
	var clients sync.WaitGroup
	for _, a := range attempts {
		clients.Go(func() { a.reply, a.err = a.g.tryHTTP2(t.Context(), a.h2) })
	}
	clients.Wait()
	for _, a := range attempts {
		t.Run(a.name, func(t *testing.T) {
			require.NoError(t, a.err)
			if a.want == overruled {
				requireAllowed(t, a.reply, a.as)
				return
			}
			require.Nil(t, a.reply.arrived, "the request reached a service")
			require.Contains(t, []int{0, http.StatusBadRequest}, a.reply.status, a.reply.line())
		})
	}
}

// A client that nominates its own credential as hop-by-hop takes it out of its
// request (RFC 9110 section 7.6.1): the check must not see one request and the
// service another.
func TestNominatedCredentialIsGoneForAll(t *testing.T) {
	for _, variant := range []string{asShipped, headerMap, defenceOff} {
		g := sharedGateway(t, variant)
		session := cookie(g.login(t, bob))
		token := bearer(g.pem.issue(claimsOf(pemIssuer, bob)))
		for _, tc := range []struct{ path, credential, nominated string }{
			{"/users/me", session, "cookie"},
			{"/users/me", session, "Cookie, x-user-id"},
			{"/users/me", token, "authorization"},
			{"/users/internal/x", apiKey(apiKeys.billing), "X-Internal-Api-Key"},
		} {
			requireDenied(t, g.get(t, tc.path, tc.credential, "Connection: close, "+tc.nominated), 401, noToken)
			r := g.get(t, "/p/open/x", tc.credential, "Connection: close, "+tc.nominated)
			requireAllowed(t, r, nobody)
			name, _, _ := strings.Cut(tc.credential, ":")
			require.Empty(t, r.arrived.values(strings.ToLower(name)))
		}
	}
}

// The shipped file opens no WebSockets, with which Envoy passes Connection, and
// what it nominates, on to the service.
func TestUpgradesAreRefused(t *testing.T) {
	g := sharedGateway(t, asShipped)
	r := g.get(t, "/users/me", cookie(g.login(t, bob)), "Connection: Upgrade, x-user-id", "Upgrade: websocket",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
	require.Equal(t, http.StatusForbidden, r.status)
	require.Nil(t, r.arrived)
}
