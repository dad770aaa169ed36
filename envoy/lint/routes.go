package lint

import (
	"regexp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// level is one place at which a filter can be set for a route: the route
// configuration, the virtual host, the route, or one of its weighted clusters.
type level struct {
	n         *node
	perFilter map[string]*anypb.Any
	remove    []string // request_headers_to_remove
}

// leaf is one way that a request can take: a route to a cluster, or one of the
// weighted clusters of a route.
type leaf struct {
	route   *routev3.Route
	host    *node
	n       *node   // of the route, or of the weighted cluster
	levels  []level // from the route configuration inwards
	cluster string  // "" where a header or an extension names it
	match   matcher
	index   int // of the route in its virtual host
	answers bool
}

// leaves returns all ways to a cluster.
func (m *manager) leaves() []leaf {
	var out []leaf
	for _, t := range m.tables {
		for _, host := range t.hosts() {
			for _, leaf := range host {
				if !leaf.answers {
					out = append(out, leaf)
				}
			}
		}
	}
	return out
}

// hosts returns the leaves of each virtual host, in the order in which routes
// are tried; those that Envoy answers itself are among them.
func (t tableAt) hosts() [][]leaf {
	var out [][]leaf
	table := level{t.n, t.GetTypedPerFilterConfig(), t.GetRequestHeadersToRemove()}
	for i, vh := range t.GetVirtualHosts() {
		hostNode := t.n.near("virtual_hosts").item(i)
		host := level{hostNode, vh.GetTypedPerFilterConfig(), vh.GetRequestHeadersToRemove()}
		var leaves []leaf
		for j, r := range vh.GetRoutes() {
			n := hostNode.near("routes").item(j)
			one := leaf{
				route: r, host: hostNode, n: n, index: j, match: matcherOf(r.GetMatch()),
				levels:  []level{table, host, {n, r.GetTypedPerFilterConfig(), r.GetRequestHeadersToRemove()}},
				cluster: r.GetRoute().GetCluster(), answers: r.GetRoute() == nil,
			}
			leaves = append(leaves, one.weighted()...)
		}
		out = append(out, append(leaves, hidden(hostNode, table, host)...))
	}
	return out
}

// hidden returns the ways of routes in a matcher tree. Which requests take them
// is not known.
func hidden(hostNode *node, table, host level) []leaf {
	tree := hostNode.at("matcher")
	if tree == nil {
		return nil
	}
	var out []leaf
	add := func(r *routev3.Route, n *node) {
		one := leaf{
			route: r, host: hostNode, n: n, index: -1 - len(out), match: matcher{conditional: true}, cluster: r.GetRoute().GetCluster(),
			answers: r.GetRoute() == nil, levels: []level{table, host, {n, r.GetTypedPerFilterConfig(), r.GetRequestHeadersToRemove()}},
		}
		out = append(out, one.weighted()...)
	}
	for _, n := range tree.find("envoy.config.route.v3.Route") {
		if r, ok := n.again().(*routev3.Route); ok {
			add(r, n)
		}
	}
	for _, n := range tree.find("envoy.config.route.v3.RouteList") {
		if list, ok := n.again().(*routev3.RouteList); ok {
			for i, r := range list.GetRoutes() {
				add(r, n.near("routes").item(i))
			}
		}
	}
	return out
}

// weighted returns the way of each of the weighted clusters; the leaf itself
// where there are none.
func (f leaf) weighted() []leaf {
	clusters := f.route.GetRoute().GetWeightedClusters().GetClusters()
	if len(clusters) == 0 {
		return []leaf{f}
	}
	out := make([]leaf, 0, len(clusters))
	for i, w := range clusters {
		part := f
		part.n = f.n.near("route", "weighted_clusters", "clusters").item(i)
		part.cluster = w.GetName()
		part.levels = append(slices.Clone(f.levels), level{part.n, w.GetTypedPerFilterConfig(), w.GetRequestHeadersToRemove()})
		out = append(out, part)
	}
	return out
}

// setting is what the levels say about a filter.
type setting struct {
	given    bool
	off      *node // where it is switched off; nil when it isn't
	offLevel int
	policy   string
	policyAt *node
}

// of reads what the levels say about the filter of a name. There are two switches,
// and both have to be on: Envoy's own, FilterConfig, which any settings at an
// inner level turn on again, and that of ext_authz, which only its own settings
// do. Context extensions are merged.
func (f leaf) of(filter string) setting {
	var (
		s        setting
		own      *node // where ext_authz's own switch is off
		ownLevel int
	)
	for i, at := range f.levels {
		a, ok := at.perFilter[filter]
		if !ok {
			continue
		}
		n := at.n.near("typed_per_filter_config", filter)
		s.given, s.off = true, nil
		m := message(a)
		if generic, ok := m.(*routev3.FilterConfig); ok {
			if generic.GetDisabled() {
				s.off, s.offLevel = n.near("disabled"), i
				continue
			}
			m, n = message(generic.GetConfig()), n.near("config")
		}
		settings, ok := m.(*extauthzv3.ExtAuthzPerRoute)
		if !ok {
			continue
		}
		own = nil
		if settings.GetDisabled() {
			own, ownLevel = n.near("disabled"), i
		}
		if policy, ok := settings.GetCheckSettings().GetContextExtensions()[policyKey]; ok {
			s.policy, s.policyAt = policy, n.near("check_settings", "context_extensions", policyKey)
		}
	}
	if s.off == nil && own != nil {
		s.off, s.offLevel = own, ownLevel
	}
	return s
}

// policyKey is the context extension that names a policy.
const policyKey = "policy"

// unchecked returns where the leaf skips one of the checks, nil when it passes
// all of them, and by which level: -1 for a check that is off where nothing else
// is said. Where that is so of all checks, one is enough: some control planes
// have a filter for each policy, and switch on the one that a route has.
func (f leaf) unchecked(checks []check) (off *node, offLevel int) {
	on := false
	for _, c := range checks {
		s := f.of(c.name())
		switch {
		case s.off != nil:
			if off == nil || offLevel < 0 {
				off, offLevel = s.off, s.offLevel
			}
		case c.GetDisabled() && !s.given:
			if off == nil {
				off, offLevel = c.n.near("disabled"), -1
			}
		default:
			on = true
		}
	}
	if on && allOff(checks) {
		return nil, 0
	}
	return off, offLevel
}

// allOff reports whether all checks are off where a route doesn't switch them on.
func allOff(checks []check) bool {
	return !slices.ContainsFunc(checks, func(c check) bool { return !c.GetDisabled() })
}

// alternatives reports whether no route has more than one of the checks.
func (m *manager) alternatives() bool {
	return allOff(m.checks) && !slices.ContainsFunc(m.leaves(), func(one leaf) bool {
		on := 0
		for _, c := range m.checks {
			if s := one.of(c.name()); s.given && s.off == nil {
				on++
			}
		}
		return on > 1
	})
}

// name is by which per-route settings refer to the filter.
func (c check) name() string { return c.GetName() }

// demand is what a leaf asks of a request: "" stands for what Gatehouse decides
// by itself.
type demand struct {
	unchecked bool
	policy    string
}

func (f leaf) demand(checks []check) demand {
	if off, _ := f.unchecked(checks); off != nil {
		return demand{unchecked: true}
	}
	for _, c := range checks {
		if s := f.of(c.name()); s.policyAt != nil {
			return demand{policy: s.policy}
		}
	}
	return demand{}
}

func (d demand) String() string {
	switch {
	case d.unchecked:
		return "no check"
	case d.policy != "":
		return "policy " + d.policy
	}
	return "no policy of its own"
}

// strip is what gets taken out of a request on this way.
func (f leaf) strip(of stripper) stripper {
	for _, at := range f.levels {
		of = of.and(at.remove)
	}
	return of
}

// matcher is the part of a route's match that is about the path.
type matcher struct {
	kind        matchKind
	text        string
	re          *regexp.Regexp
	fold        bool // in any case
	conditional bool // it asks for more than a path
}

type matchKind int

const (
	matchUnknown matchKind = iota
	matchPath
	matchPrefix
	matchSeparatedPrefix
	matchRegex
)

func matcherOf(m *routev3.RouteMatch) matcher {
	out := matcher{
		fold: m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue(),
		conditional: len(m.GetHeaders()) > 0 || len(m.GetQueryParameters()) > 0 || m.GetGrpc() != nil || m.GetTlsContext() != nil ||
			m.GetRuntimeFraction() != nil || len(m.GetDynamicMetadata()) > 0 || len(m.GetCookies()) > 0 || len(m.GetFilterState()) > 0,
	}
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Path:
		out.kind, out.text = matchPath, p.Path
	case *routev3.RouteMatch_Prefix:
		out.kind, out.text = matchPrefix, p.Prefix
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.kind, out.text = matchSeparatedPrefix, p.PathSeparatedPrefix
	case *routev3.RouteMatch_SafeRegex:
		if re, err := regexp.Compile(`^(?:` + p.SafeRegex.GetRegex() + `)$`); err == nil {
			out.kind, out.re, out.fold = matchRegex, re, false
			if literal, err := regexp.Compile(strings.TrimPrefix(p.SafeRegex.GetRegex(), "^")); err == nil {
				out.text, _ = literal.LiteralPrefix()
			}
		}
	}
	return out
}

// covers reports whether a path, without query, matches.
func (m *matcher) covers(path string) bool {
	text := m.text
	if m.fold {
		if len(path) < len(text) {
			return false
		}
		text, path = strings.ToLower(text), strings.ToLower(path)
	}
	switch m.kind {
	case matchPath:
		return path == text
	case matchPrefix:
		return strings.HasPrefix(path, text)
	case matchSeparatedPrefix:
		return strings.HasPrefix(path, text) && (len(path) == len(text) || path[len(text)] == '/')
	case matchRegex:
		return m.re.MatchString(path)
	case matchUnknown:
	}
	return false
}

// base is the path that a match is about, without the slash at its end; "" when
// it is about no particular one.
func (m *matcher) base() string {
	base := strings.TrimRight(m.text, "/")
	if m.kind == matchRegex && m.text != base+"/" && !m.re.MatchString(base) {
		return "" // a literal beginning that is no path of its own
	}
	return base
}

// table looks at the routes of one route configuration behind these checks.
func (l *linter) table(t tableAt, checks []check, strip strips, behind services, g *gateway) {
	hosts := t.hosts()
	l.openLevels(t, checks)
	for _, leaves := range hosts {
		rewrites := rewriting(leaves)
		for i, one := range leaves {
			if one.answers {
				continue
			}
			off, offLevel := one.unchecked(checks)
			stripped := one.strip(strip.on(one))
			if off != nil {
				l.skips(one, off, offLevel, stripped, behind, g)
			} else {
				l.policies(one, checks)
			}
			l.clusterByHeader(one, strip.early)
			l.addressByClient(one, stripped, g)
			l.hostByHeader(one, stripped)
			l.loosePrefix(one, checks)
			switch {
			case off != nil:
			case one.match.conditional:
				l.leftOut(leaves, i, checks)
			default:
				l.neighbours(leaves, i, checks, t.GetIgnorePathParametersInPathMatching())
				l.around(leaves, i, rewrites, checks)
			}
		}
	}
	l.headersAdded(t, hosts)
}

// openLevels reports route configurations and virtual hosts that switch the
// check off for everything in them.
func (l *linter) openLevels(t tableAt, checks []check) {
	for _, leaves := range t.hosts() {
		for _, one := range leaves {
			for _, c := range checks {
				for i, at := range one.levels[:2] {
					outer := leaf{levels: one.levels[:i+1]}.of(c.name())
					if outer.off != nil && outer.offLevel == i {
						l.report(codeOpenByDefault, outer.off, "The check is off for every route of %s, those that somebody adds tomorrow included.", []string{"this route configuration", "virtual host " + at.n.title()}[i])
					}
				}
			}
		}
	}
}

// skips looks at a way that leads past the check.
func (l *linter) skips(one leaf, off *node, offLevel int, strip stripper, behind services, g *gateway) {
	at := one.n
	if offLevel == len(one.levels)-1 {
		at = off
	}
	if left := strip.left(l.spellings()); len(left) > 0 {
		l.report(codeIdentityLeft, at, "%s skips the check and leaves a client's own %s in the request.", one.what(), some(left))
	}
	if checked, what := behind.shares(g, one.cluster); checked != nil {
		l.report(codeSharedService, at, "%s reaches %s without a check; %s reaches it with one.", one.what(), what, nameOf(checked, "another route"))
	}
}

// what names a leaf at the beginning of a sentence.
func (f leaf) what() string {
	if name := f.route.GetName(); name != "" {
		return "Route " + name
	}
	if f.match.text != "" {
		return "The route " + f.match.text
	}
	return "This route"
}

// policies looks at the policies that a leaf names.
func (l *linter) policies(one leaf, checks []check) {
	for _, c := range checks {
		s := one.of(c.name())
		if s.policyAt == nil {
			continue
		}
		l.named = true
		l.policyName(s.policyAt, s.policy)
	}
}

// policyName compares the name of a policy with those that there are.
func (l *linter) policyName(at *node, name string) {
	known := l.options.Gatehouse
	if known == nil || slices.Contains(known.Policies, name) {
		return
	}
	hint := "."
	if near := nearest(name, known.Policies); near != "" {
		hint = "; did you mean " + near + "?"
	}
	l.report(codePolicyUnknown, at, "There is no policy %q in Gatehouse's configuration%s", name, hint)
}

// loosePrefix reports a prefix that ends in the middle of a word.
func (l *linter) loosePrefix(one leaf, checks []check) {
	if one.match.kind != matchPrefix || one.match.text == "" || strings.HasSuffix(one.match.text, "/") {
		return
	}
	if d := one.demand(checks); d.unchecked || d.policy != "" {
		l.report(codePrefix, one.routeNode().near("match", "prefix"), "prefix: %s matches %sx too, with %s.", one.match.text, one.match.text, d)
	}
}

func (f leaf) routeNode() *node { return f.levels[2].n }

// neighbours looks for forms of a leaf's path that another route takes, one that
// asks for something else.
func (l *linter) neighbours(leaves []leaf, i int, checks []check, withoutParameters bool) {
	one := leaves[i]
	mine := one.demand(checks)
	base := one.match.base()
	if base == "" || l.anonymous(mine) {
		return
	}
	at := one.routeNode().near("match")

	if j := l.shadow(leaves, i); j >= 0 {
		if theirs := leaves[j].demand(checks); theirs != mine {
			l.report(codeShadowed, at, "%s is never reached: %s comes first and takes all of it, with %s instead of %s.", one.what(), lower(leaves[j].what()), theirs, mine)
		}
		return
	}
	// Servers behind the gateway read these forms as the path itself.
	if form := base; !one.match.covers(form) {
		if other, theirs, ok := l.taker(leaves, i, form, checks); ok && theirs != mine {
			l.report(codeSlash, at, "%s is not covered by %s: %s takes it, with %s instead of %s.", form, lower(one.what()), lower(other.what()), theirs, mine)
		}
	}
	if form := base + "/"; one.match.kind == matchPath && !one.match.covers(form) {
		if other, theirs, ok := l.taker(leaves, i, form, checks); ok && theirs.unchecked {
			l.report(codeSlash, at, "%s is not covered by %s: %s takes it, with %s instead of %s.", form, lower(one.what()), lower(other.what()), theirs, mine)
		}
	}
	below := "" // the path itself where that is covered, else one below it
	if !one.match.covers(base) {
		below = "/x"
	}
	if form := upperLast(base) + below; form != base+below && !one.match.covers(form) {
		if other, theirs, ok := l.taker(leaves, i, form, checks); ok && theirs != mine {
			l.report(codeCase, at, "%s is not covered by %s: %s takes it, with %s instead of %s.", form, lower(one.what()), lower(other.what()), theirs, mine)
		}
	}
	if form := base + ";x"; !withoutParameters && !one.match.covers(form) {
		if other, theirs, ok := l.taker(leaves, i, form, checks); ok && theirs != mine {
			l.report(codeParameters, at, "%s is not covered by %s: %s takes it, with %s instead of %s.", form, lower(one.what()), lower(other.what()), theirs, mine)
		}
	}
}

// upperLast puts the last segment of a path into capitals, so that a looser
// route for the path above it still matches.
func upperLast(path string) string {
	i := strings.LastIndexByte(path, '/') + 1
	return path[:i] + strings.ToUpper(path[i:])
}

func (l *linter) anonymous(d demand) bool {
	return l.options.Gatehouse != nil && d.policy != "" && slices.Contains(l.options.Gatehouse.Anonymous, d.policy)
}

// taker returns the leaf that takes a path, when it leads to the same service
// as leaf i; ok is false when that one is answered by Envoy, or stays with i.
func (l *linter) taker(leaves []leaf, i int, path string, checks []check) (other leaf, theirs demand, ok bool) {
	for j := range leaves { // they may be ten thousand, and large
		candidate := &leaves[j]
		if candidate.match.conditional || !candidate.match.covers(path) {
			continue
		}
		if candidate.index == leaves[i].index || candidate.answers || candidate.cluster != leaves[i].cluster {
			return leaf{}, demand{}, false
		}
		return *candidate, candidate.demand(checks), true
	}
	return leaf{}, demand{}, false
}

// shadow returns the index of an earlier leaf that takes everything that leaf i
// is meant for, -1 when there is none.
func (l *linter) shadow(leaves []leaf, i int) int {
	one := &leaves[i].match
	for j := range leaves[:i] {
		earlier := &leaves[j]
		m := &earlier.match
		if m.conditional || earlier.answers || earlier.index == leaves[i].index || one.fold && !m.fold {
			continue
		}
		switch {
		case m.kind == matchPath && one.kind == matchPath,
			m.kind == matchPrefix && one.kind != matchUnknown,
			m.kind == matchSeparatedPrefix && one.kind == matchSeparatedPrefix,
			m.kind == matchSeparatedPrefix && one.kind == matchPath,
			m.kind == matchSeparatedPrefix && one.kind == matchPrefix && strings.HasSuffix(one.text, "/"):
			if m.covers(one.text) {
				return j
			}
		}
	}
	return -1
}

func lower(sentence string) string {
	return strings.ToLower(sentence[:1]) + sentence[1:]
}

// headersAdded reports identity headers that a route sets after the check.
func (l *linter) headersAdded(t tableAt, hosts [][]leaf) {
	add := func(n *node) {
		for _, option := range n.at("request_headers_to_add").list() {
			if name := option.at("header", "key").string(); l.isIdentity(name) {
				l.report(codeIdentitySet, option, "%s is set here, after the check, whoever the check has found.", name)
			}
		}
	}
	add(t.n)
	for _, leaves := range hosts {
		for _, one := range leaves {
			add(one.host)
			add(one.routeNode())
			if one.n != one.routeNode() {
				add(one.n)
			}
		}
	}
}

// looseTable looks at a route configuration whose connection manager is
// elsewhere: the name of the filter is the one that its routes use.
func (l *linter) looseTable(g *gateway, t tableAt) {
	var names []string
	for _, n := range t.n.find(extAuthzInUse) {
		for ; n.parent != nil; n = n.parent {
			if n.parent.name == "typed_per_filter_config" {
				names = append(names, n.name)
				break
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		names = []string{nameExtAuthz}
	}
	for _, name := range names {
		checks := []check{loose(name, t.n)}
		l.table(t, checks, strips{on: func(leaf) stripper { return stripper{} }}, l.behind(g, t, checks), g)
	}
}

// behind returns the services that a route configuration reaches by the check.
func (l *linter) behind(g *gateway, t tableAt, checks []check) services {
	behind := services{}
	for _, leaves := range t.hosts() {
		for _, one := range leaves {
			if off, _ := one.unchecked(checks); off == nil && !one.answers {
				behind.add(g, one.cluster, one.n)
			}
		}
	}
	return behind
}
