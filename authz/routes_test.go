package authz_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// matches is what a route means, said a second time and one condition after the
// other.
func matches(route authz.Route, r *authz.Request) bool {
	if below, ok := strings.CutPrefix(route.Host, "*."); ok {
		if name, found := strings.CutSuffix(r.Host, "."+below); !found || name == "" {
			return false
		}
	} else if route.Host != "" && route.Host != "*" && route.Host != r.Host {
		return false
	}
	if len(route.Methods) > 0 && !slices.Contains(route.Methods, r.Method) {
		return false
	}
	prefix, isPrefix := strings.CutSuffix(route.Path, "*")
	switch {
	case route.Path == "":
		return true
	case isPrefix:
		return strings.HasPrefix(r.Path, prefix) || r.Path+"/" == prefix
	}
	return r.Path == route.Path
}

func pick(rng *rand.Rand, from []string) string { return from[rng.IntN(len(from))] }

// someRoutes are few words in many combinations, so that they meet.
func someRoutes(rng *rand.Rand, n int) []authz.Route {
	hosts := []string{"", "", "*", "a.example", "b.a.example", "*.example", "*.a.example", "example"}
	paths := []string{"", "*", "/*", "/", "/a", "/a/", "/a/*", "/a*", "/ab", "/ab*", "/a/b", "/a/b/*", "/a/b/c", "/abc/*", "/b/*", "/a/bc*"}
	methods := [][]string{nil, nil, {"GET"}, {"POST"}, {"GET", "POST"}, {"PUT", "GET"}}
	routes := make([]authz.Route, n)
	for i := range routes {
		routes[i] = authz.Route{
			Host: pick(rng, hosts), Path: pick(rng, paths), Methods: methods[rng.IntN(len(methods))], Policy: "p" + strconv.Itoa(i),
		}
	}
	return routes
}

// someRequests are all that these routes tell apart.
func someRequests(tb testing.TB) []*authz.Request {
	tb.Helper()
	var all []*authz.Request
	for _, host := range []string{"", "a.example", "b.a.example", "c.b.a.example", "x.example", "example", "xa.example", "other"} {
		for _, path := range []string{"/", "/a", "/a/", "/ab", "/abc", "/abc/", "/abc/d", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/d", "/a/bc", "/a/bcd/e", "/b", "/b/x", "/c"} {
			for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
				r, err := authz.NewRequest(authz.RequestParts{Method: method, Authority: host, Target: path})
				require.NoError(tb, err)
				all = append(all, r)
			}
		}
	}
	return all
}

func firstMatch(routes []authz.Route, r *authz.Request) int {
	return slices.IndexFunc(routes, func(route authz.Route) bool { return matches(route, r) })
}

// The table finds what trying one route after the other finds.
func TestRouteTableMatchesInOrder(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	requests := someRequests(t)
	for range 300 {
		routes := someRoutes(rng, 1+rng.IntN(20))
		s := newPolicySet(t, "default", routes...)
		for _, r := range requests {
			want := "default"
			if i := firstMatch(routes, r); i >= 0 {
				want = routes[i].Policy
			}
			require.Equal(t, want, matched(s, r), "%s %s%s by %+v", r.Method, r.Host, r.Path, routes)
		}
	}
}

// What is said of conflicts is true of the requests: a route that never matches
// gets none. And nothing is kept quiet: one that a single earlier route leaves
// nothing to is said to never match.
func TestRouteConflictsTellTheTruth(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	requests := someRequests(t)
	never, partly, crossing := 0, 0, 0
	for range 300 {
		routes := someRoutes(rng, 1+rng.IntN(8))
		conflicts := authz.RouteConflicts(routes, 1000)
		for _, c := range conflicts {
			for _, i := range c.Earlier {
				require.Less(t, i, c.Route)
			}
			taken := 0
			for _, r := range requests {
				if !matches(routes[c.Route], r) {
					continue
				}
				first := firstMatch(routes, r)
				region := authz.Route{Host: c.Host, Path: c.Path, Methods: c.Methods}
				switch {
				case c.Never:
					require.NotEqual(t, c.Route, first, "%+v of %+v", c, routes)
					taken++
				case matches(region, r):
					require.Less(t, first, c.Route, "%+v of %+v", c, routes)
					taken++
				}
			}
			require.Positive(t, taken, "%+v of %+v", c, routes)
			switch {
			case c.Never:
				never++
			case !c.Overlaps():
				partly++
			default:
				crossing++
			}
		}
		for i := range routes {
			said := slices.ContainsFunc(conflicts, func(c authz.RouteConflict) bool { return c.Route == i && c.Never })
			reached := slices.ContainsFunc(requests, func(r *authz.Request) bool { return firstMatch(routes, r) == i })
			if said {
				require.False(t, reached)
			}
			swallowed := slices.ContainsFunc(routes[:i], func(earlier authz.Route) bool {
				return !slices.ContainsFunc(requests, func(r *authz.Request) bool { return matches(routes[i], r) && !matches(earlier, r) })
			})
			if swallowed {
				require.True(t, said, "%d of %+v", i, routes)
			}
		}
	}
	require.NotZero(t, never)
	require.NotZero(t, partly)
	require.NotZero(t, crossing)
}

func TestRouteConflicts(t *testing.T) {
	t.Parallel()
	get, post := []string{"GET"}, []string{"POST"}
	for name, tt := range map[string]struct {
		routes []authz.Route
		want   []authz.RouteConflict
	}{
		"the narrower first is how it is done": {
			[]authz.Route{{Path: "/a/b", Policy: "x"}, {Path: "/a/*", Policy: "y"}, {Host: "h", Policy: "z"}, {Policy: "u"}}[:2], nil,
		},
		"methods tell two apart": {[]authz.Route{{Path: "/a", Methods: get, Policy: "x"}, {Path: "/a", Policy: "y"}}, nil},
		"methods tell two apart that name none of each other's": {
			[]authz.Route{{Path: "/a", Methods: get, Policy: "x"}, {Path: "/a", Methods: post, Policy: "y"}, {Path: "/a", Policy: "z"}}, nil,
		},
		"two name the same method": {
			[]authz.Route{{Path: "/a", Methods: []string{"GET", "POST"}, Policy: "open"}, {Path: "/a", Methods: []string{"POST", "DELETE"}, Policy: "admin"}},
			[]authz.RouteConflict{{Route: 1, Earlier: []int{0}, Methods: post, Path: "/a"}},
		},
		"behind everything": {
			[]authz.Route{{Policy: "x"}, {Path: "/admin/*", Policy: "y"}},
			[]authz.RouteConflict{{Route: 1, Earlier: []int{0}, Never: true, Path: "/admin/*"}},
		},
		"behind two that share it": {
			[]authz.Route{{Path: "/a*", Methods: get, Policy: "x"}, {Path: "/a/*", Methods: post, Policy: "x"}, {Path: "/a/b", Methods: []string{"GET", "POST"}, Policy: "y"}},
			[]authz.RouteConflict{{Route: 2, Earlier: []int{0, 1}, Never: true, Path: "/a/b"}},
		},
		"a wider one takes a method": {
			[]authz.Route{{Path: "/admin/*", Methods: get, Policy: "user"}, {Path: "/admin/keys", Policy: "admin"}},
			[]authz.RouteConflict{{Route: 1, Earlier: []int{0}, Methods: get, Path: "/admin/keys"}},
		},
		"of the same policy that is no matter": {
			[]authz.Route{{Path: "/admin/*", Methods: get, Policy: "admin"}, {Path: "/admin/keys", Policy: "admin"}}, nil,
		},
		"a path and a host": {
			[]authz.Route{{Path: "/health/*", Policy: "open"}, {Host: "*.example.com", Policy: "user"}},
			[]authz.RouteConflict{{Route: 1, Earlier: []int{0}, Host: "*.example.com", Path: "/health/*"}},
		},
		"one path before a host is an exception": {
			[]authz.Route{{Path: "/health", Policy: "open"}, {Host: "*.example.com", Policy: "user"}}, nil,
		},
		"one path behind a host is overlooked": {
			[]authz.Route{{Host: "h", Policy: "user"}, {Path: "/metrics", Policy: "admin"}},
			[]authz.RouteConflict{{Route: 1, Earlier: []int{0}, Host: "h", Path: "/metrics"}},
		},
		"a path and a host, decided": {
			[]authz.Route{{Host: "*.example.com", Path: "/health/*", Policy: "open"}, {Path: "/health/*", Policy: "open"}, {Host: "*.example.com", Policy: "user"}}, nil,
		},
		"a host and a path": {
			[]authz.Route{{Host: "h", Methods: post, Policy: "user"}, {Path: "/admin/*", Policy: "admin"}},
			[]authz.RouteConflict{{Route: 1, Earlier: []int{0}, Methods: post, Host: "h", Path: "/admin/*"}},
		},
		"paths and a host": {
			[]authz.Route{{Path: "/a/*", Policy: "x"}, {Path: "/b/*", Policy: "y"}, {Host: "h", Policy: "z"}},
			[]authz.RouteConflict{{Route: 2, Earlier: []int{0, 1}, Host: "h", Path: "/a/*"}},
		},
		"no method of both": {[]authz.Route{{Host: "h", Methods: post, Policy: "user"}, {Path: "/admin/*", Methods: get, Policy: "admin"}}, nil},
		"no path of both":   {[]authz.Route{{Host: "h", Path: "/a/*", Policy: "user"}, {Path: "/admin/*", Policy: "admin"}}, nil},
		"not a route":       {[]authz.Route{{Path: "nonsense", Policy: "user"}, {Path: "nonsense", Policy: "admin"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []authz.RouteConflict
			for _, c := range authz.RouteConflicts(tt.routes, 10) {
				require.Equal(t, strings.Contains(name, "host"), c.Overlaps())
				got = append(got, authz.RouteConflict{Route: c.Route, Earlier: c.Earlier, Never: c.Never, Methods: c.Methods, Host: c.Host, Path: c.Path})
			}
			require.Equal(t, tt.want, got)
		})
	}

	same := slices.Repeat([]authz.Route{{Policy: "x"}}, 100)
	require.Len(t, authz.RouteConflicts(same, 7), 7)
}

func TestRoutesThatCoverOthers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b authz.Route
		want bool
	}{
		{authz.Route{}, authz.Route{Host: "a", Path: "/b", Methods: []string{"GET"}}, true},
		{authz.Route{Path: "/*"}, authz.Route{Path: "/a"}, true},
		{authz.Route{Path: "/*"}, authz.Route{}, true},
		{authz.Route{Path: "/a"}, authz.Route{}, false},
		{authz.Route{Path: "/a*"}, authz.Route{}, false},
		{authz.Route{Path: "/admin/*"}, authz.Route{Path: "/admin"}, true},
		{authz.Route{Path: "/admin/*"}, authz.Route{Path: "/admin/x*"}, true},
		{authz.Route{Path: "/admin/*"}, authz.Route{Path: "/admin*"}, false},
		{authz.Route{Path: "/admin/*"}, authz.Route{Path: "/admi"}, false},
		{authz.Route{Path: "/admin*"}, authz.Route{Path: "/admin/*"}, true},
		{authz.Route{Path: "/admin"}, authz.Route{Path: "/admin/*"}, false},
		{authz.Route{Path: "/admin"}, authz.Route{Path: "/%61dmin"}, true},
		{authz.Route{Path: "/admin"}, authz.Route{Path: "/admin/"}, false},
		{authz.Route{Host: "a.example"}, authz.Route{Host: "a.example"}, true},
		{authz.Route{Host: "a.example"}, authz.Route{}, false},
		{authz.Route{Host: "*.example"}, authz.Route{Host: "a.example"}, true},
		{authz.Route{Host: "*.example"}, authz.Route{Host: "*.a.example"}, true},
		{authz.Route{Host: "*.example"}, authz.Route{Host: "example"}, false},
		{authz.Route{Host: "*.a.example"}, authz.Route{Host: "*.example"}, false},
		{authz.Route{Methods: []string{"GET"}}, authz.Route{}, false},
		{authz.Route{Methods: []string{"GET", "PUT"}}, authz.Route{Methods: []string{"PUT"}}, true},
		{authz.Route{Methods: []string{"GET"}}, authz.Route{Methods: []string{"GET", "PUT"}}, false},
	} {
		conflicts := authz.RouteConflicts([]authz.Route{tt.a, tt.b}, 1)
		require.Equal(t, tt.want, len(conflicts) == 1 && conflicts[0].Never, "%+v before %+v", tt.a, tt.b)
	}
}

// routesOfSize are n routes of a kind that a platform has: hosts of tenants,
// each with some paths, and the last ones for everybody.
func routesOfSize(n int) []authz.Route {
	routes := make([]authz.Route, 0, n)
	for i := 0; len(routes) < n; i++ {
		host := fmt.Sprintf("tenant%d.example.com", i/10)
		routes = append(routes, authz.Route{Host: host, Path: fmt.Sprintf("/service%d/*", i), Methods: []string{"GET", "POST"}, Policy: "named"})
	}
	return append(routes[:n-1], authz.Route{Path: "/api/v1/*", Policy: "default"})
}

// What a match costs doesn't grow with the number of routes. The first figure
// is of the route that comes last.
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000, 10_000} {
		s := newPolicySet(b, "default", routesOfSize(n)...)
		for name, host := range map[string]string{"last": "other.example.com", "host": "tenant0.example.com"} {
			r, err := authz.NewRequest(authz.RequestParts{Method: "GET", Authority: host, Target: "/api/v1/orders/17"})
			require.NoError(b, err)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.Match(r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkRouteConflicts(b *testing.B) {
	separate := routesOfSize(10_000)
	for i := range separate { // none of one policy with another
		separate[i].Policy = strconv.Itoa(i)
	}
	var crossing []authz.Route // of many hosts and many paths; each crossing is decided before
	for i := range 100 {
		for j := range 98 {
			crossing = append(crossing, authz.Route{Host: fmt.Sprintf("t%d.example.com", i), Path: fmt.Sprintf("/p%d/*", j), Policy: "decided"})
		}
	}
	for j := range 98 {
		crossing = append(crossing, authz.Route{Path: fmt.Sprintf("/p%d/*", j), Policy: "path"})
	}
	for i := range 100 {
		crossing = append(crossing, authz.Route{Host: fmt.Sprintf("t%d.example.com", i), Policy: "host"})
	}
	for name, routes := range map[string][]authz.Route{"separate": separate, "crossing": crossing} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				authz.RouteConflicts(routes, 20)
			}
		})
	}
}
