package lint

import (
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	dfpfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
)

// What a client's headers choose beside the path: the cluster, the address, the
// virtual host, the policy. And tunnels, in which it says what nobody looks at.

// clusterByHeader reports a route whose cluster the client names. Only what is
// taken out before the route is chosen comes in time.
func (l *linter) clusterByHeader(one leaf, early stripper) {
	header := one.route.GetRoute().GetClusterHeader()
	if header == "" || early.strips(header) {
		return
	}
	l.report(codeClusterHeader, one.n.near("route", "cluster_header"), "The client names the cluster by its header %s.", header)
}

// originalDst is the header that names an address where none is configured.
const originalDst = "x-envoy-original-dst-host"

// addressByClient reports clusters that go where the request says.
func (l *linter) addressByClient(one leaf, strip stripper, g *gateway) {
	c, ok := g.clusters[one.cluster]
	if !ok {
		return
	}
	at := one.routeNode().near("route", "cluster")
	if one.n != one.routeNode() {
		at = one.n.near("name")
	}
	if c.GetType() == clusterv3.Cluster_ORIGINAL_DST && c.GetOriginalDstLbConfig().GetUseHttpHeader() {
		header := c.GetOriginalDstLbConfig().GetHttpHeaderName()
		if header == "" {
			header = originalDst
		}
		if !strip.strips(header) {
			l.report(codeAddress, at, "Cluster %s goes to the address in the client's header %s.", one.cluster, header)
		}
	}
	if _, ok := message(c.GetClusterType().GetTypedConfig()).(*dfpv3.ClusterConfig); ok && one.anyHost() && !one.rewritesHost() {
		l.report(codeAddress, at, "Cluster %s goes to the host that the client's request names.", one.cluster)
	}
}

// anyHost reports whether the virtual host takes hosts that it doesn't name.
func (f leaf) anyHost() bool {
	return slices.ContainsFunc(f.host.at("domains").strings(), func(domain string) bool { return strings.Contains(domain, "*") })
}

// rewritesHost reports whether the route says which host is meant.
func (f leaf) rewritesHost() bool {
	if f.route.GetRoute().GetHostRewriteLiteral() != "" {
		return true
	}
	for _, at := range f.levels {
		for _, a := range at.perFilter {
			if own, ok := message(a).(*dfpfilterv3.PerRouteConfig); ok && own.GetHostRewriteLiteral() != "" {
				return true
			}
		}
	}
	return false
}

// hostByHeader reports a route that gives the service another host than the one
// that was checked.
func (l *linter) hostByHeader(one leaf, strip stripper) {
	header := one.route.GetRoute().GetHostRewriteHeader()
	if header == "" || strip.strips(header) {
		return
	}
	l.report(codeHostHeader, one.routeNode().near("route", "host_rewrite_header"), "The service sees the host that the client's header %s names; the check has seen another.", header)
}

// tableByHeader reports virtual hosts and route configurations that a header
// chooses.
func (l *linter) tableByHeader(m *manager) {
	early := m.early() // what filters take out, comes too late
	for _, t := range m.tables {
		if header := t.GetVhostHeader(); header != "" && !early.strips(header) {
			l.report(codeVirtualHost, t.n.near("vhost_header"), "The client's header %s chooses the virtual host.", header)
		}
	}
	for i, fragment := range m.GetScopedRoutes().GetScopeKeyBuilder().GetFragments() {
		header := fragment.GetHeaderValueExtractor().GetName()
		if isHostHeader(header) || header == "" || early.strips(header) {
			continue
		}
		l.report(codeVirtualHost, m.n.near("scoped_routes", "scope_key_builder", "fragments").item(i).near("header_value_extractor"), "The client's header %s chooses the routes.", header)
	}
}

func isHostHeader(name string) bool {
	name = strings.ToLower(name)
	return name == "host" || name == ":authority"
}

// leftOut reports a route with a policy that a client is under only when it
// sends a certain header, cookie or parameter: without it, another route takes
// the same path.
func (l *linter) leftOut(leaves []leaf, i int, checks []check) {
	one := leaves[i]
	what := clientsChoice(one.route.GetMatch())
	base := one.match.base()
	if what == "" || base == "" {
		return
	}
	path := base
	if !one.match.covers(path) {
		path += "/x"
	}
	mine := one.demand(checks)
	if other, theirs, ok := l.taker(leaves, i, path, checks); ok && theirs != mine && !mine.unchecked && !theirs.unchecked {
		l.report(codeLeftOut, one.routeNode().near("match"), "%s is for requests with %s; for all others %s takes %s, with %s instead of %s.", one.what(), what, lower(other.what()), path, theirs, mine)
	}
}

// clientsChoice names what a match asks for and a client can leave out as it
// likes; "" for nothing. Method and host are what was checked.
func clientsChoice(m *routev3.RouteMatch) string {
	for _, h := range m.GetHeaders() {
		if name := h.GetName(); !strings.HasPrefix(name, ":") && !isHostHeader(name) {
			return "a certain header " + name
		}
	}
	for _, q := range m.GetQueryParameters() {
		return "a certain parameter " + q.GetName()
	}
	for _, c := range m.GetCookies() {
		return "a certain cookie " + c.GetName()
	}
	return ""
}

// servicePath is the path at which a service sees what a match is about.
func (f leaf) servicePath() string {
	if rewrite := f.route.GetRoute().GetPrefixRewrite(); rewrite != "" {
		return strings.TrimRight(rewrite, "/")
	}
	return f.match.base()
}

// rewriting returns the leaves that give the service another path, by index.
func rewriting(leaves []leaf) []int {
	var out []int
	for i := range leaves {
		if leaves[i].route.GetRoute().GetPrefixRewrite() != "" {
			out = append(out, i)
		}
	}
	return out
}

// around reports a rewrite by which a route leads to what another one guards.
func (l *linter) around(leaves []leaf, i int, rewriting []int, checks []check) {
	one := &leaves[i]
	if len(rewriting) == 0 || one.match.kind != matchPrefix && one.match.kind != matchSeparatedPrefix {
		return
	}
	rewrites, mine := one.route.GetRoute().GetPrefixRewrite() != "", demand{}
	above := one.servicePath()
	for j := range leaves {
		if !rewrites { // only a rewrite of the other's is left
			if j >= len(rewriting) {
				break
			}
			j = rewriting[j]
		}
		other := &leaves[j]
		if other.answers || other.index == one.index || other.cluster != one.cluster || other.match.conditional {
			continue
		}
		rest, below := strings.CutPrefix(other.servicePath(), above)
		if !below || !strings.HasPrefix(rest, "/") {
			continue
		}
		if mine == (demand{}) {
			mine = one.demand(checks)
		}
		theirs := other.demand(checks)
		if theirs == mine || mine.unchecked || theirs.unchecked || l.anonymous(theirs) {
			continue // the unchecked are reported by the service that they share
		}
		path := strings.TrimRight(one.match.text, "/") + rest
		if taken := slices.IndexFunc(leaves, func(c leaf) bool { return !c.match.conditional && c.match.covers(path) }); taken < 0 || leaves[taken].index != one.index {
			continue
		}
		l.report(codeRewrite, one.routeNode().near("route", "prefix_rewrite"), "%s leads by %s to what %s guards: with %s instead of %s.", one.what(), path, lower(other.what()), mine, theirs)
		return
	}
}

// tunnels reports ways by which bytes reach a service that nobody looks at.
func (l *linter) tunnels(m *manager) {
	for i, u := range m.GetUpgradeConfigs() {
		if u.GetEnabled() == nil || u.GetEnabled().GetValue() {
			l.smuggles(u.GetUpgradeType(), m.n.near("upgrade_configs").item(i))
		}
	}
	for _, one := range m.leaves() {
		if m.gateway.checkedLater(one.cluster) {
			continue
		}
		own := one.route.GetRoute().GetUpgradeConfigs()
		for i, u := range own {
			if u.GetEnabled() == nil || u.GetEnabled().GetValue() {
				l.smuggles(u.GetUpgradeType(), one.routeNode().near("route", "upgrade_configs").item(i))
			}
		}
		if one.route.GetMatch().GetConnectMatcher() != nil && m.connects(own) {
			l.report(codeTunnel, one.routeNode().near("match"), "%s opens a tunnel to %s: what is in it is not checked.", one.what(), named(one.cluster))
		}
	}
}

// connects reports whether a route takes CONNECT.
func (m *manager) connects(own []*routev3.RouteAction_UpgradeConfig) bool {
	isConnect := func(name string) bool { return strings.HasPrefix(strings.ToUpper(name), "CONNECT") }
	for _, u := range own {
		if isConnect(u.GetUpgradeType()) {
			return u.GetEnabled() == nil || u.GetEnabled().GetValue()
		}
	}
	for _, u := range m.GetUpgradeConfigs() {
		if isConnect(u.GetUpgradeType()) {
			return u.GetEnabled() == nil || u.GetEnabled().GetValue()
		}
	}
	return false
}

// smuggles reports upgrades to something in which further requests fit.
func (l *linter) smuggles(upgrade string, at *node) {
	for _, prefix := range []string{"h2c", "tls/", "http/"} {
		if strings.HasPrefix(strings.ToLower(upgrade), prefix) {
			l.report(codeTunnel, at, "After an upgrade to %s a client sends further requests to the service on the same connection, and Envoy passes them on as bytes.", upgrade)
		}
	}
}
