package authz

import (
	"errors"
	"math"
	"slices"
	"strings"
)

// Route leads requests to a policy. Empty fields match everything.
type Route struct {
	Host    string   // exact, "*.example.com" for every name below, or "*"
	Path    string   // exact, or a prefix ending in "*"; "/admin/*" covers /admin too
	Methods []string // upper case
	Policy  string
}

// pattern is a route as it is matched.
type pattern struct {
	host   string // exact; ".example.com" for "*.example.com"; "" for any
	path   string // exact, or the prefix without the star; "" for any
	exact  bool   // path is exact
	method []string
}

// pattern brings a route into canonical form.
func (r Route) pattern() (p pattern, err error) {
	p.method = r.Methods
	if host := r.Host; host != "" && host != "*" {
		name, below := strings.CutPrefix(host, "*.")
		if p.host, err = CanonicalHost(name); err != nil {
			return p, err
		}
		if below && p.host == "" {
			return p, errors.New("host *. names no domain")
		}
		if below {
			p.host = "." + p.host
		}
	}
	if r.Path == "" || r.Path == "*" || r.Path == "/*" {
		return p, nil
	}
	path, prefix := strings.CutSuffix(r.Path, "*")
	p.exact = !prefix
	p.path, err = CanonicalPath(path)
	return p, err
}

// routeTable finds the first route that matches a request. What that costs
// depends on how long host and path of the request are, not on how many routes
// there are: hosts are looked up by name, paths in a tree of prefixes, and each
// place knows the first route for whatever leads there.
type routeTable struct {
	hosts map[string]*hostRoutes // by [pattern].host
}

// hostRoutes are the routes of one host pattern.
type hostRoutes struct {
	exact    map[string]first // by path
	prefixes prefixNode       // its root is the empty prefix: any path
	byPath   first            // of those that look at the path
}

// first says which route comes first, by method.
type first struct {
	any     int            // of the routes for all methods
	methods map[string]int // of those for this one; nil for none
}

// none stands behind every route.
const none = math.MaxInt

func (f *first) of(method string) int {
	if i, ok := f.methods[method]; ok && i < f.any {
		return i
	}
	return f.any
}

// add notes a route, which comes behind those that were added before or not.
func (f *first) add(i int, methods []string) {
	if len(methods) == 0 {
		f.any = min(f.any, i)
		return
	}
	if f.methods == nil {
		f.methods = make(map[string]int, len(methods))
	}
	for _, m := range methods {
		if earlier, ok := f.methods[m]; !ok || i < earlier {
			f.methods[m] = i
		}
	}
}

// merge adds what other knows.
func (f *first) merge(other *first) {
	f.any = min(f.any, other.any)
	for m, i := range other.methods {
		f.add(i, []string{m})
	}
}

func nothing() first { return first{any: none} }

// prefixNode is a node of a radix tree. Its prefix is what the labels from the
// root make.
type prefixNode struct {
	label    string
	first    first         // of this prefix and, when the tree is built, of those that it begins with
	children []*prefixNode // in the order of their labels' first bytes, which differ
}

func (n *prefixNode) child(c byte) (int, bool) {
	return slices.BinarySearchFunc(n.children, c, func(n *prefixNode, c byte) int { return int(n.label[0]) - int(c) })
}

// find returns the node of a prefix, made if need be.
func (n *prefixNode) find(prefix string) *prefixNode {
	for prefix != "" {
		i, ok := n.child(prefix[0])
		if !ok {
			child := &prefixNode{label: prefix, first: nothing()}
			n.children = slices.Insert(n.children, i, child)
			return child
		}
		child := n.children[i]
		common := commonPrefix(child.label, prefix)
		if common < len(child.label) { // the two part here
			upper := &prefixNode{label: child.label[:common], first: nothing(), children: []*prefixNode{child}}
			child.label = child.label[common:]
			n.children[i] = upper
			child = upper
		}
		n, prefix = child, prefix[common:]
	}
	return n
}

// longest returns the node of the longest prefix that path begins with.
func (n *prefixNode) longest(path string) *prefixNode {
	for path != "" {
		i, ok := n.child(path[0])
		if !ok {
			break
		}
		child := n.children[i]
		if !strings.HasPrefix(path, child.label) {
			break
		}
		n, path = child, path[len(child.label):]
	}
	return n
}

// inherit lets every node know what its prefixes know.
func (n *prefixNode) inherit() {
	for _, child := range n.children {
		child.first.merge(&n.first)
		child.inherit()
	}
}

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func newRouteTable(patterns []pattern) *routeTable {
	t := &routeTable{hosts: make(map[string]*hostRoutes)}
	for i, p := range patterns {
		h := t.hosts[p.host]
		if h == nil {
			h = &hostRoutes{exact: make(map[string]first), prefixes: prefixNode{first: nothing()}, byPath: nothing()}
			t.hosts[p.host] = h
		}
		if p.path != "" {
			h.byPath.add(i, p.method)
		}
		if p.exact {
			h.addExact(p.path, i, p.method)
			continue
		}
		h.prefixes.find(p.path).first.add(i, p.method)
		if base, below := strings.CutSuffix(p.path, "/"); below && base != "" {
			h.addExact(base, i, p.method)
		}
	}
	for _, h := range t.hosts {
		h.prefixes.inherit()
	}
	return t
}

func (h *hostRoutes) addExact(path string, i int, methods []string) {
	f, ok := h.exact[path]
	if !ok {
		f = nothing()
	}
	f.add(i, methods)
	h.exact[path] = f
}

// covering calls visit with the routes of each host pattern that takes every
// request for host, which can be a pattern, too.
func (t *routeTable) covering(host string, visit func(*hostRoutes)) {
	if h := t.hosts[""]; h != nil {
		visit(h)
	}
	if h := t.hosts[host]; h != nil && host != "" {
		visit(h)
	}
	for i := 1; i < len(host); i++ {
		if host[i] != '.' {
			continue
		}
		if h := t.hosts[host[i:]]; h != nil {
			visit(h)
		}
	}
}

// match returns the first route that matches, [none] where there is none. It
// refuses where the path has a parameter and would choose the route.
func (t *routeTable) match(r *Request) (route int, err error) {
	route = none
	parameter := strings.IndexByte(r.RawPath, ';') >= 0
	byPath := none
	t.covering(r.Host, func(h *hostRoutes) {
		if parameter {
			byPath = min(byPath, h.byPath.of(r.Method))
			route = min(route, h.prefixes.first.of(r.Method))
			return
		}
		route = min(route, h.prefixes.longest(r.Path).first.of(r.Method))
		if f, ok := h.exact[r.Path]; ok {
			route = min(route, f.of(r.Method))
		}
	})
	if byPath < route {
		return none, Refuse(ReasonBadPath, "path parameter where a route is chosen by path")
	}
	return route, nil
}

// A RouteConflict is a route that doesn't get all the requests that it names,
// since earlier ones lead them to another policy, and nothing says that this is
// meant. Routes are counted from 0.
type RouteConflict struct {
	Route int
	// Earlier are the routes that come first, in their order.
	Earlier []int
	// Never is true where the route gets no request at all. This is reported
	// whichever policies the routes lead to.
	Never bool
	// Methods are those of the requests that it doesn't get; nil for all.
	Methods []string
	// Host and Path are a pattern for these requests, as in a [Route]; where the
	// routes only overlap, for those that the first of Earlier takes: a route with
	// it, before both, would say which policy is meant.
	Host, Path string

	crosses bool // neither is the wider one
}

// Overlaps reports whether neither the route nor the earlier ones are the wider
// ones.
func (x *RouteConflict) Overlaps() bool { return x.crosses }

// RouteConflicts returns what is doubtful about the order of routes, at most as
// many as asked for: routes that are never reached; routes that an earlier,
// wider one takes some methods from; and pairs that overlap although neither is
// the wider one, such as a host and a prefix. A narrower route before a wider one
// is how routes are meant to be written, and no conflict; nor is a single path that
// stands before a host. Routes that are not
// valid are passed over.
func RouteConflicts(routes []Route, most int) []RouteConflict {
	patterns := make([]pattern, len(routes))
	for i, r := range routes {
		p, err := r.pattern()
		if err != nil {
			p = pattern{host: "!"} // no request has this host
		}
		patterns[i] = p
	}
	c := conflicts{routes: routes, patterns: patterns, table: newRouteTable(patterns), most: most}
	for i := range patterns {
		if patterns[i].host != "!" && !c.shadowed(i) {
			break
		}
	}
	c.crossings()
	slices.SortStableFunc(c.found, func(a, b RouteConflict) int { return a.Route - b.Route })
	return c.found
}

type conflicts struct {
	routes   []Route
	patterns []pattern
	table    *routeTable
	most     int
	found    []RouteConflict
}

// add reports whether there is room for more.
func (c *conflicts) add(x RouteConflict) bool {
	if len(c.found) < c.most {
		c.found = append(c.found, x)
	}
	return len(c.found) < c.most
}

// wider returns the first routes that take every request for a host and a path,
// both of them patterns.
func (c *conflicts) wider(host, path string, exact bool) first {
	f := nothing()
	c.table.covering(host, func(h *hostRoutes) {
		f.merge(&h.prefixes.longest(path).first)
		if e, ok := h.exact[path]; ok && exact {
			f.merge(&e)
		}
	})
	return f
}

// shadowed looks for routes before this one that are as wide or wider.
func (c *conflicts) shadowed(route int) (room bool) {
	p := &c.patterns[route]
	f := c.wider(p.host, p.path, p.exact)
	methods := p.method
	if len(methods) == 0 {
		if f.any < route {
			return c.add(RouteConflict{Route: route, Earlier: []int{f.any}, Never: true, Host: c.routes[route].Host, Path: c.routes[route].Path})
		}
		for m := range f.methods {
			methods = append(methods, m)
		}
		slices.Sort(methods)
	}
	x := RouteConflict{Route: route, Host: c.routes[route].Host, Path: c.routes[route].Path}
	same := true
	for _, m := range methods {
		if i := f.of(m); i < route {
			same = same && c.routes[i].Policy == c.routes[route].Policy
			x.Methods = append(x.Methods, m)
			if !slices.Contains(x.Earlier, i) {
				x.Earlier = append(x.Earlier, i)
			}
		}
	}
	slices.Sort(x.Earlier)
	switch {
	case len(x.Methods) > 0 && len(x.Methods) == len(p.method):
		x.Never, x.Methods = true, nil
		return c.add(x)
	case len(x.Methods) > 0 && !same && !c.asWritten(route, x):
		return c.add(x)
	}
	return len(c.found) < c.most
}

// asWritten reports whether the earlier routes have the very host and path of
// this one, which is for the rest of the methods: these are what the two are told
// apart by. Where it names a method of theirs, too, that is no rest.
func (c *conflicts) asWritten(route int, x RouteConflict) bool {
	p := &c.patterns[route]
	return len(p.method) == 0 && !slices.ContainsFunc(x.Earlier, func(i int) bool {
		e := &c.patterns[i]
		return e.host != p.host || e.path != p.path || e.exact != p.exact
	})
}

// crossings looks for pairs of which one has the wider host and the other the
// wider path.
func (c *conflicts) crossings() {
	byHost := make(map[string][]int)
	for i, p := range c.patterns {
		byHost[p.host] = append(byHost[p.host], i)
	}
	for i, p := range c.patterns {
		for _, host := range widerHosts(p.host) {
			for _, j := range byHost[host] {
				if widerPath(&p, &c.patterns[j]) && !c.crossing(i, j) {
					return
				}
			}
		}
	}
}

// crossing is for a route with the narrower host and the wider path, and one the
// other way round.
func (c *conflicts) crossing(host, path int) (room bool) {
	room = len(c.found) < c.most
	a, b := &c.patterns[host], &c.patterns[path]
	methods := common(a.method, b.method)
	if c.routes[host].Policy == c.routes[path].Policy || methods == nil && (a.method != nil || b.method != nil) {
		return room
	}
	earlier, later := min(host, path), max(host, path)
	if path < host && b.exact { // one path, named before the rest: an exception, and meant
		return room
	}
	if c.decided(a.host, b, methods, earlier) {
		return room
	}
	x := RouteConflict{Route: later, Earlier: []int{earlier}, Methods: methods, Host: c.routes[host].Host, Path: c.routes[path].Path, crosses: true}
	for i := range c.found { // one for all that cross the same route
		if f := &c.found[i]; f.crosses && f.Route == later {
			if earlier < f.Earlier[0] {
				f.Methods, f.Host, f.Path = x.Methods, x.Host, x.Path
			}
			f.Earlier = append(f.Earlier, earlier)
			slices.Sort(f.Earlier)
			return room
		}
	}
	return c.add(x)
}

// decided reports whether routes before route say what becomes of requests for
// a host, a path and methods.
func (c *conflicts) decided(host string, path *pattern, methods []string, route int) bool {
	before := func(of func(*first) int) bool {
		least := none
		c.table.covering(host, func(h *hostRoutes) {
			least = min(least, of(&h.prefixes.longest(path.path).first))
			if e, ok := h.exact[path.path]; ok && path.exact {
				least = min(least, of(&e))
			}
		})
		return least < route
	}
	if len(methods) == 0 {
		return before(func(f *first) int { return f.any })
	}
	return !slices.ContainsFunc(methods, func(m string) bool {
		return !before(func(f *first) int { return f.of(m) })
	})
}

// widerHosts are the patterns that take every host that host takes, and others.
func widerHosts(host string) []string {
	if host == "" {
		return nil
	}
	wider := []string{""}
	for i := 1; i < len(host); i++ {
		if host[i] == '.' {
			wider = append(wider, host[i:])
		}
	}
	return wider
}

// widerPath reports whether a takes every path that b takes, and others.
func widerPath(a, b *pattern) bool {
	switch {
	case a.exact || a.path == b.path && !b.exact:
		return false
	case strings.HasPrefix(b.path, a.path):
		return true
	}
	return b.exact && b.path+"/" == a.path // "/admin/*" takes /admin
}

// common returns the methods of both, where none listed are all of them.
func common(a, b []string) []string {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	var both []string
	for _, m := range a {
		if slices.Contains(b, m) {
			both = append(both, m)
		}
	}
	return both
}
