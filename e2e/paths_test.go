package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// oddPaths are request targets that servers read differently, and what becomes
// of them when Bob, who is no administrator, shows his session.
var oddPaths = []struct {
	target string
	// shipped is what the gateway does: the target that arrives, or a status.
	shipped string
	// direct is what Gatehouse says when Envoy hands the target over as it is:
	// the policy that lets it pass, or a status; "" where Envoy never would.
	direct string
}{
	// Nothing odd, for comparison.
	{"/users/me", "/users/me", "user"},
	{"/users/me/", "/users/me/", "user"},
	{"/users", "/users", "user"},
	{"/users/admin", "403", "403"},
	{"/users/admin/stats", "403", "403"},
	{"/users/administrator", "/users/administrator", "user"},
	{"/usersx", "404", "403"},
	{"/USERS/me", "404", "403"},

	// Empty segments.
	{"//users/me", "/users/me", "400"},
	{"/users//me", "/users/me", "400"},
	{"/users/me//", "/users/me/", "400"},
	{"/users//admin/stats", "403", "400"},
	{"//", "404", "400"},

	// Dot segments.
	{"/users/./me", "/users/me", "400"},
	{"/users/x/../me", "/users/me", "400"},
	{"/../users/me", "/users/me", "400"},
	{"/users/..", "/", "400"},
	{"/users/.", "/users/", "400"},
	{"/public/../users/admin/stats", "403", "400"},
	{"/public/./../users/./admin/stats", "403", "400"},
	{"/public/%2e%2e/users/admin/stats", "403", "400"},
	{"/public/%2E%2E/users/admin/stats", "403", "400"},
	{"/public/.%2e/users/admin/stats", "403", "400"},
	{"/users/%2e/me", "/users/me", "400"},
	{"/users/me%2ejson", "/users/me.json", "400"},
	{"/users/...", "/users/...", "user"},
	{"/users/.hidden", "/users/.hidden", "user"},
	{"/users/..hidden", "/users/..hidden", "user"},

	// Other separators.
	{`/public\..\users\admin\stats`, "403", "400"},
	{`/users\admin\stats`, "403", "400"},
	{`/users/x\me`, "/users/x/me", "400"},
	{"/users%2fadmin", "400", "400"},
	{"/users%2Fadmin", "400", "400"},
	{"/users%5cadmin", "400", "400"},
	{"/public/..%2fusers/admin", "400", "400"},
	{"/public/..%5cusers/admin", "400", "400"},
	{"/public/%2e%2e%2fusers/admin", "400", "400"},

	// Escaped twice and more.
	{"/public/%252e%252e/users/admin", "400", "400"},
	{"/users/%252fadmin", "400", "400"},
	{"/users/%255cadmin", "400", "400"},
	{"/users/%25252fadmin", "400", "400"},
	{"/users/%%32%66admin", "400", "400"},
	{"/users/%2561dmin", "/users/%2561dmin", "user"}, // a letter: nobody's separator

	// Escapes that mean the same.
	{"/users/%61dmin/stats", "403", "403"},
	{"/%75sers/admin", "403", "403"},
	{"/users/%61d%6d%69n", "403", "403"},
	{"/users/%7Ebob", "/users/~bob", "user"},

	// Escapes that don't.
	{"/users/%20me", "/users/%20me", "user"},
	{"/users/me%23x", "/users/me%23x", "user"},
	{"/users/me%3Fx=1", "/users/me%3Fx=1", "user"},
	{"/users/%C3%A9", "/users/%C3%A9", "user"},
	{"/users/%E9", "/users/%E9", "user"},
	{"/users/%3Bme", "/users/%3Bme", "user"},

	// Escapes that are none.
	{"/users/%", "400", "400"},
	{"/users/%4", "400", "400"},
	{"/users/%zz", "400", "400"},
	{"/users/%u002e%u002e/admin", "400", "400"},
	{"/users/%-1", "400", "400"},

	// Parameters.
	{"/users/admin;x", "400", "400"},
	{"/users/admin;x=1/stats", "400", "400"},
	{"/users;x/admin", "400", "400"},
	{"/users/..;/users/admin", "400 or 403", "400"}, // Envoy 1.39 resolves these, too
	{"/users/.;/admin", "400 or 403", "400"},
	{"/public/..%3b/users/admin", "400", "400"},

	// Fragments, NUL, control bytes, spaces.
	{"/users/me#x", "400", "400"},
	{"/users/me#/../admin", "400", "400"},
	{"/users/%00", "400", "400"},
	{"/users/admin%00.png", "400", "400"},
	{"/users/\x01", "400", "400"},
	{"/users/\tme", "400", "400"},
	{"/users/me\x7f", "400", "400"},
	{"/users/a b", "400", "400"},
	{"/users/\xe9", "400", ""}, // no string of a protobuf message

	// Other forms of target.
	{"users/me", "400", "400"},
	{"*", "400", "400"},
	{"http://gateway.example.com/users/me", "/users/me", ""},
	{"http://other.example.com/public/../users/admin", "403", ""},
	{"?x=/users/me", "400", "400"},

	// A query is data.
	{"/users/me?", "/users/me?", "user"},
	{"/users/me?next=/../%2f//;%00\\", "/users/me?next=/../%2f//;%00\\", "user"},
	{"/users/me?x=1#y", "400", "400"},
}

func TestOddPathsThroughEnvoy(t *testing.T) {
	require.GreaterOrEqual(t, len(oddPaths), 40)
	for _, variant := range []string{asShipped, headerMap} {
		g := sharedGateway(t, variant)
		session := cookie(g.login(t, bob))
		for _, tc := range oddPaths {
			t.Run(variant+tc.target, func(t *testing.T) {
				r := g.get(t, tc.target, session)
				switch tc.shipped {
				case "400":
					requireDenied(t, r, http.StatusBadRequest, badRequest)
				case "403":
					requireDenied(t, r, http.StatusForbidden, forbidden)
				case "400 or 403":
					require.Contains(t, []string{"400" + badRequest, "403" + forbidden}, strconv.Itoa(r.status)+r.body)
					require.Nil(t, r.arrived)
				case "404":
					require.Equal(t, http.StatusNotFound, r.status)
					require.Nil(t, r.arrived)
				default:
					require.Equal(t, http.StatusOK, r.status, r.line())
					require.Equal(t, tc.shipped, r.arrived.target, "another path arrives than was checked")
					if r.arrived.target != "/" { // the demo page is open, and checks nobody
						require.Equal(t, bob.fields(), r.arrived.identity())
					}
				}
			})
		}
	}
}

// Behind an Envoy that does not normalise, Gatehouse refuses what it would have
// to guess at.
func TestOddPathsAtTheCheckListener(t *testing.T) {
	g := sharedGateway(t, asShipped)
	session := cookie(g.login(t, bob))
	for _, tc := range oddPaths {
		if tc.direct == "" {
			continue
		}
		t.Run(tc.target, func(t *testing.T) {
			c := g.replicas[0].ask(t, "GET", tc.target, session)
			switch tc.direct {
			case "400":
				require.Equal(t, 400, c.status)
				require.Equal(t, badRequest, c.body)
			case "403":
				require.Equal(t, 403, c.status)
				require.Equal(t, forbidden, c.body)
			default:
				require.Equal(t, 200, c.status)
				require.Equal(t, tc.direct, c.metadata["policy"])
				require.Equal(t, "bob", c.headers["x-user-id"])
			}
		})
	}
	c := g.replicas[0].ask(t, "OPTIONS", "*", session)
	require.Equal(t, 400, c.status)
}

func TestOddPathsThroughAnEnvoyThatDoesNotNormalise(t *testing.T) {
	g := sharedGateway(t, defenceOff)
	session := cookie(g.login(t, bob))
	for _, tc := range oddPaths {
		if tc.direct != "400" {
			continue
		}
		t.Run(tc.target, func(t *testing.T) {
			r := g.get(t, tc.target, session)
			require.Nil(t, r.arrived)
			if strings.HasPrefix(tc.target, "/users/") || strings.HasPrefix(tc.target, "/public/") {
				requireDenied(t, r, http.StatusBadRequest, badRequest)
				return
			}
			require.Contains(t, []int{400, 404}, r.status, r.line()) // no route
		})
	}
}

func TestOtherTargets(t *testing.T) {
	g := sharedGateway(t, asShipped)
	session := cookie(g.login(t, bob))
	for _, tc := range []struct {
		request  string
		statuses []int
	}{
		{"OPTIONS * HTTP/1.1", []int{400}},
		// 400 by the check, or no route that would ask it.
		{"CONNECT gateway.example.com:443 HTTP/1.1", []int{400, 404}},
		{"GET /users/me /users/admin HTTP/1.1", []int{400}},
		{"GET /users/me", []int{400, 426}}, // HTTP/0.9
		{"GET /users/me HTTP/1.0", []int{426}},
		{"GET /users/me HTTP/3.0", []int{426}},
	} {
		t.Run(tc.request, func(t *testing.T) {
			r := g.send(t, tc.request+"\n"+session)
			require.Nil(t, r.arrived)
			require.Contains(t, tc.statuses, r.status, r.line())
		})
	}
}

// Routes of Gatehouse's own choose by host, path and method, the host without
// port, trailing dot and case.
func TestRoutesOfTheConfiguration(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		session := cookie(g.login(t, bob))
		for _, tc := range []struct {
			method, target, host string
			status               int
		}{
			{"GET", "/p/elsewhere", "a.tenants.example.com", 200},
			{"GET", "/p/elsewhere", "A.Tenants.EXAMPLE.com:8080", 200},
			{"GET", "/p/elsewhere", "a.tenants.example.com.", 200},
			{"GET", "/p/elsewhere", "tenants.example.com", 403},
			{"GET", "/p/elsewhere", "a.tenants.example.com.evil.example", 403},
			{"GET", "/p/elsewhere", "eviltenants.example.com", 403},
			{"GET", "/p/reports", host, 200},
			{"POST", "/p/reports", host, 403},
			{"GET", "/p/reports/1", host, 403},
			{"GET", "/p/session", host, 200},
			{"GET", "/p/session/", host, 200},
			{"GET", "/p/sessions", host, 403},
			{"GET", "/p", host, 403},
		} {
			r := g.do(t, tc.method, tc.target, "Host: "+tc.host, session)
			require.Equal(t, tc.status, r.status, "%v: %s", tc, r.line())
			if tc.status == 200 {
				requireAllowed(t, r, bob)
				continue
			}
			requireDenied(t, r, tc.status, forbidden)
		}
	})
}

// Over HTTP/2, bytes beyond ASCII come in without an escape. Those that are no UTF-8 Envoy
// shows to the check as "!", in either form of its headers: the one difference between what
// is judged and what arrives. It must lead to no other policy.
func TestBytesInPathsAreJudgedAsEnvoyShowsThem(t *testing.T) {
	s := start(t, options{})
	for variant, cases := range map[string][]struct {
		target, judged, arrives string // "" where nothing does
	}{
		asShipped: {
			{"/users/\xff", "/users/%FF", "/users/%FF"},
			{"/users/\xc3\xa9", "/users/%C3%A9", "/users/%C3%A9"},
			{"/users/me?q=\xff", "/users/me?q=!", "/users/me?q=\xff"},
			{"/users/admin/\xff", "/users/admin/%FF", ""},
		},
		defenceOff: {
			{"/users/\xff", "/users/!", "/users/\xff"},
			{"/users/\xc3\xa9", "/users/\xc3\xa9", "/users/\xc3\xa9"},
			{"/users/admin/\xff", "/users/admin/!", ""},
			{"/users/admin/\xc3\xa9?\xff", "/users/admin/\xc3\xa9?!", ""},
		},
	} {
		w := s.watchedGateway(t, variants[variant]...)
		session := w.login(t, bob)
		for _, tc := range cases {
			t.Run(fmt.Sprintf("%s/%q", variant, tc.target), func(t *testing.T) {
				s.recorder.every() // what came before
				status, arrives := http.StatusOK, []string{tc.arrives}
				if tc.arrives == "" {
					status, arrives = http.StatusForbidden, nil
				}
				out := newWire2()
				out.headers(1, true, replaced(head2("sessionId="+session), ":path", tc.target)...)
				statuses, err := w.statuses2(t.Context(), out.out.Bytes(), firstWait([]int{status}))
				require.NoError(t, err)
				require.Equal(t, map[uint32]int{1: status}, statuses)
				require.True(t, slices.ContainsFunc(w.every(), func(j judged) bool { return j.target == tc.judged && j.status == status }))
				var arrived []string
				for _, a := range s.recorder.every() {
					arrived = append(arrived, a.target)
				}
				require.Equal(t, arrives, arrived)
			})
		}
	}
}
