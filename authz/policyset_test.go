package authz_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// newPolicySet returns a set with these routes and one policy of each name
// that they lead to, beside "default" and "named".
func newPolicySet(tb testing.TB, fallback string, routes ...authz.Route) *authz.PolicySet {
	tb.Helper()
	names := map[string]bool{"default": true, "named": true}
	for _, r := range routes {
		names[r.Policy] = true
	}
	o := authz.PolicySetOptions{Routes: routes, Default: fallback}
	for name := range names {
		o.Policies = append(o.Policies, authz.Policy{Name: name})
	}
	s, err := authz.NewPolicySet(o)
	require.NoError(tb, err)
	return s
}

// match returns the name of the policy of a request, written as
// "METHOD host/path", or the reason of the refusal.
func match(tb testing.TB, s *authz.PolicySet, line string) string {
	tb.Helper()
	method, rest, _ := strings.Cut(line, " ")
	host, path, _ := strings.Cut(rest, "/")
	r, err := authz.NewRequest(authz.RequestParts{Method: method, Authority: host, Target: "/" + path})
	require.NoError(tb, err)
	return matched(s, r)
}

func matched(s *authz.PolicySet, r *authz.Request) string {
	p, err := s.Match(r)
	if err != nil {
		return string(authz.ReasonOf(err))
	}
	return p.Name
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		route authz.Route
		yes   []string
		no    []string
	}{
		"prefix below a slash covers the name itself": {
			authz.Route{Path: "/admin/*"},
			[]string{"GET h/admin", "GET h/admin/", "GET h/admin/x", "GET h/admin/x/y", "POST h/admin", "GET h/admin?x=1", "GET h/%61dmin", "GET h/%61dmin/x", "GET h/admin/..x", "GET h/admin?/../"},
			[]string{"GET h/", "GET h/administrator", "GET h/admi", "GET h/Admin", "GET h/ADMIN/x", "GET h/x/admin", "GET h/admin.html", "GET h/admin%20", "GET h/?/admin/"},
		},
		"prefix without a slash": {
			authz.Route{Path: "/admin*"},
			[]string{"GET h/admin", "GET h/administrator", "GET h/admin/x", "GET h/admin.html"},
			[]string{"GET h/", "GET h/admi"},
		},
		"exact path": {
			authz.Route{Path: "/login"},
			[]string{"GET h/login", "POST h/login?next=/", "GET h/lo%67in"},
			[]string{"GET h/login/", "GET h/login/x", "GET h/", "GET h/loginx", "GET h/Login"},
		},
		"exact path with a slash at its end": {
			authz.Route{Path: "/docs/"},
			[]string{"GET h/docs/"},
			[]string{"GET h/docs", "GET h/docs/x"},
		},
		"the root alone": {
			authz.Route{Path: "/"},
			[]string{"GET h/", "GET h/?x"},
			[]string{"GET h/a"},
		},
		"a route may be written with escapes": {
			authz.Route{Path: "/caf%C3%A9/*"},
			[]string{"GET h/caf%C3%A9", "GET h/caf%c3%a9/x", "GET h/caf\u00e9/x"},
			[]string{"GET h/cafe", "GET h/caf%E9"},
		},
		"a star inside is a star": {
			authz.Route{Path: "/a*b"},
			[]string{"GET h/a*b", "GET h/a%2ab"},
			[]string{"GET h/axb", "GET h/ab"},
		},
		"every path":             {authz.Route{Path: "*"}, []string{"GET h/", "GET h/a/b"}, nil},
		"every path, with slash": {authz.Route{Path: "/*"}, []string{"GET h/", "GET h/a/b"}, nil},
		"nothing named":          {authz.Route{}, []string{"GET h/", "PATCH x.example/a/b"}, nil},
		"host": {
			authz.Route{Host: "api.example.com"},
			[]string{"GET api.example.com/", "GET API.Example.com./x", "GET api.example.com:8443/"},
			[]string{"GET example.com/", "GET x.api.example.com/", "GET api.example.com.evil.test/", "GET xapi.example.com/", "GET /"},
		},
		"host of another spelling": {
			authz.Route{Host: "API.Example.com.:443"},
			[]string{"GET api.example.com/"},
			[]string{"GET example.com/"},
		},
		"IPv6 host": {
			authz.Route{Host: "[2001:db8::1]"},
			[]string{"GET [2001:DB8:0::1]:80/"},
			[]string{"GET [2001:db8::2]/"},
		},
		"host wildcard": {
			authz.Route{Host: "*.Example.com"},
			[]string{"GET a.example.com/", "GET a.b.example.com/", "GET A.EXAMPLE.COM.:80/"},
			[]string{"GET example.com/", "GET notexample.com/", "GET a.example.com.evil.test/", "GET /", "GET com/"},
		},
		"methods": {
			authz.Route{Methods: []string{"POST", "PUT"}},
			[]string{"POST h/", "PUT h/", "post h/"},
			[]string{"GET h/", "HEAD h/", "PATCH h/", "POSTS h/"},
		},
		"all of them": {
			authz.Route{Host: "h", Path: "/a/*", Methods: []string{"GET"}},
			[]string{"GET h/a/b", "GET h/a"},
			[]string{"POST h/a/b", "GET x/a/b", "GET h/b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.route.Policy = "routed"
			s := newPolicySet(t, "default", tt.route)
			for _, line := range tt.yes {
				require.Equal(t, "routed", match(t, s, line), line)
			}
			for _, line := range tt.no {
				require.Equal(t, "default", match(t, s, line), line)
			}
			if name != "nothing named" && name != "every path" && name != "every path, with slash" {
				require.NotEmpty(t, tt.no)
			}
		})
	}
}

func TestTheFirstRouteThatMatchesDecides(t *testing.T) {
	t.Parallel()
	s := newPolicySet(t, "default",
		authz.Route{Path: "/admin/health", Methods: []string{"GET"}, Policy: "health"},
		authz.Route{Path: "/admin/*", Policy: "admin"},
		authz.Route{Host: "api.example.com", Policy: "api"},
		authz.Route{Path: "/*", Methods: []string{"POST"}, Policy: "post"},
		authz.Route{Path: "/admin/never", Policy: "never"},
	)
	for line, want := range map[string]string{
		"GET h/admin/health":              "health",
		"POST h/admin/health":             "admin",
		"GET h/admin/never":               "admin",
		"GET api.example.com/admin":       "admin",
		"GET api.example.com/x":           "api",
		"POST api.example.com/x":          "api",
		"POST h/x":                        "post",
		"GET h/x":                         "default",
		"GET h/":                          "default",
		"GET h/%61dmin/%68ealth":          "health",
		"GET api.example.com:1/admin/x":   "admin",
		"DELETE other.example/admin/x?y":  "admin",
		"DELETE other.example/administer": "default",
	} {
		require.Equal(t, want, match(t, s, line), line)
	}
}

func TestNothingMatchesAndNoDefaultRefuses(t *testing.T) {
	t.Parallel()
	s := newPolicySet(t, "", authz.Route{Path: "/a", Policy: "a"})
	require.Equal(t, "a", match(t, s, "GET h/a"))
	require.Equal(t, "no_policy", match(t, s, "GET h/b"))

	empty, err := authz.NewPolicySet(authz.PolicySetOptions{})
	require.NoError(t, err)
	require.Equal(t, "no_policy", match(t, empty, "GET h/"))
}

// The name that the gateway gives wins over routes and default; a name that
// does not exist refuses, and an empty name is a name that does not exist.
func TestTheGatewaysPolicyWins(t *testing.T) {
	t.Parallel()
	s := newPolicySet(t, "default", authz.Route{Path: "/a;x", Policy: "routed"}, authz.Route{Path: "/*", Policy: "routed"})
	for name, want := range map[string]string{
		"named": "named", "default": "default", "routed": "routed",
		"": "policy_unknown", "nobody": "policy_unknown", "Named": "policy_unknown", " named": "policy_unknown", "*": "policy_unknown",
	} {
		for _, path := range []string{"/", "/a", "/a;x"} {
			r, err := authz.NewRequest(authz.RequestParts{Method: "GET", Authority: "h", Target: path, PolicyName: name, HasPolicyName: true})
			require.NoError(t, err)
			require.Equal(t, want, matched(s, r), "%q for %s", name, path)
		}
	}

	// Without HasPolicyName, PolicyName is not looked at.
	r, err := authz.NewRequest(authz.RequestParts{Method: "GET", Authority: "h", Target: "/b", PolicyName: "named"})
	require.NoError(t, err)
	require.Equal(t, "routed", matched(s, r))
}

// A semicolon is refused where a route is chosen by path, since servers differ
// on where the path ends; where it chooses nothing, it is nobody's business.
func TestPathParameters(t *testing.T) {
	t.Parallel()
	const refused = "bad_path"
	byPath := newPolicySet(t, "default", authz.Route{Path: "/admin/*", Policy: "admin"})
	byHost := newPolicySet(t, "default", authz.Route{Host: "api.example.com", Policy: "api"})
	everything := newPolicySet(t, "default", authz.Route{Path: "/*", Methods: []string{"GET"}, Policy: "all"})
	mixed := newPolicySet(t, "",
		authz.Route{Host: "api.example.com", Policy: "api"},
		authz.Route{Host: "app.example.com", Path: "/admin/*", Methods: []string{"POST"}, Policy: "admin"},
		authz.Route{Host: "app.example.com", Policy: "app"},
	)
	for _, tt := range []struct {
		set  *authz.PolicySet
		line string
		want string
	}{
		{byPath, "GET h/admin;x", refused},
		{byPath, "GET h/admin;/x", refused},
		{byPath, "GET h/;/admin", refused},
		{byPath, "GET h/x;y=z", refused},
		{byPath, "GET h/admin/x;y", refused},
		{byPath, "GET h/x?a;b", "default"},
		{byPath, "GET h/admin?a;b", "admin"},
		{byPath, "GET h/x%3By", "default"}, // an escape like any other
		{byPath, "GET h/admin/x%3by", "admin"},
		{byHost, "GET h/x;y", "default"},
		{byHost, "GET api.example.com/x;y", "api"},
		{everything, "GET h/x;y", "all"},
		{everything, "POST h/x;y", "default"},
		{mixed, "POST api.example.com/x;y", "api"},
		{mixed, "POST app.example.com/x;y", refused},
		{mixed, "GET app.example.com/x;y", "app"}, // no way of reading the path leads to admin
		{mixed, "POST other.example.com/x;y", "no_policy"},
	} {
		require.Equal(t, tt.want, match(t, tt.set, tt.line), tt.line)
	}
}

func TestNewPolicySetNamesEverythingThatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: []authz.Policy{{Name: "a"}, {Name: "a"}, {Name: ""}},
		Routes: []authz.Route{
			{Path: "/x", Policy: "a"},
			{Path: "/x", Policy: "missing"},
			{Path: "x", Policy: "a"},
			{Path: "/a/../b", Policy: "a"},
			{Path: "/a//*", Policy: "a"},
			{Path: "/a%2fb", Policy: "a"},
			{Host: "a b", Policy: "a"},
			{Host: "*.a*", Policy: "a"},
			{Host: "*.", Policy: "a"},
			{Host: "a.*.example.com", Policy: "a"},
		},
		Default: "gone",
	})
	require.Error(t, err)
	for _, part := range []string{
		`policy "a": `, `policy "": `, `default policy "gone"`, `route 2: policy "missing"`,
		"route 3: ", "route 4: ", "route 5: ", "route 6: ", "route 7: ", "route 8: ", "route 9: ", "route 10: ",
	} {
		require.Contains(t, err.Error(), part)
	}
	require.NotContains(t, err.Error(), "route 1: ")
}

func TestStarIsEveryHost(t *testing.T) {
	t.Parallel()
	set, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: []authz.Policy{{Name: "all"}},
		Routes:   []authz.Route{{Host: "*", Path: "*", Policy: "all"}},
	})
	require.NoError(t, err)
	for _, line := range []string{"GET a.example.com/x", "GET /"} {
		require.Equal(t, "all", match(t, set, line))
	}
}

func TestPolicyByName(t *testing.T) {
	t.Parallel()
	s := newPolicySet(t, "default")
	require.Equal(t, "named", s.Policy("named").Name)
	require.Nil(t, s.Policy("nobody"))
	require.Nil(t, s.Policy(""))
}
