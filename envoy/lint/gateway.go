package lint

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Full names of messages that are looked for.
const (
	typeExtAuthz  = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
	typeManager   = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	nameExtAuthz  = "envoy.filters.http.ext_authz"
	extAuthzInUse = typeExtAuthz + "PerRoute"
)

// gateway is one Envoy's configuration, as far as it is at hand.
type gateway struct {
	listeners   []listenerAt
	tables      map[string]tableAt // route configurations
	clusters    map[string]clusterAt
	filters     map[string]filterAt // from extension discovery
	admin       *bootstrapv3.Admin
	adminNode   *node
	allClusters bool // there are no clusters but these
	runtime     runtime

	asked   []string            // clusters that checks go to by gRPC
	reached map[string][]string // what addresses has found
	exitsOf map[string][]string // what exits has found
}

type (
	listenerAt struct {
		*listenerv3.Listener
		n *node
	}
	clusterAt struct {
		*clusterv3.Cluster
		n *node
	}
	tableAt struct {
		*routev3.RouteConfiguration
		n      *node
		inline bool // it stands in a connection manager, too
		used   *bool
	}
)

func newGateway() *gateway {
	return &gateway{tables: map[string]tableAt{}, clusters: map[string]clusterAt{}, filters: map[string]filterAt{}, runtime: runtime{}}
}

func (g *gateway) addListener(a *anypb.Any, n *node) {
	if m, ok := message(a).(*listenerv3.Listener); ok {
		g.listeners = append(g.listeners, listenerAt{m, n})
	}
}

func (g *gateway) addRoutes(a *anypb.Any, n *node, inline bool) {
	if m, ok := message(a).(*routev3.RouteConfiguration); ok {
		g.addRouteConfiguration(m, n, inline)
	}
}

func (g *gateway) addRouteConfiguration(m *routev3.RouteConfiguration, n *node, inline bool) {
	g.tables[m.GetName()] = tableAt{m, n, inline, new(bool)}
}

func (g *gateway) addAnyCluster(a *anypb.Any, n *node) {
	if m, ok := message(a).(*clusterv3.Cluster); ok {
		g.addCluster(m, n)
	}
}

func (g *gateway) addCluster(m *clusterv3.Cluster, n *node) {
	g.clusters[m.GetName()] = clusterAt{m, n}
}

func (g *gateway) addFilter(a *anypb.Any, n *node) {
	if m, ok := message(a).(*corev3.TypedExtensionConfig); ok {
		g.filters[m.GetName()] = filterAt{n: n, config: message(m.GetTypedConfig()), configNode: n.at("typed_config")}
	}
}

// filterAt is one HTTP filter of a chain.
type filterAt struct {
	*hcmv3.HttpFilter
	n          *node
	config     proto.Message // nil when it was not read
	configNode *node
	missing    bool // its settings come from somewhere else
}

// typeName is the type of the filter's settings.
func (f filterAt) typeName() string {
	if f.configNode != nil {
		return f.configNode.typeName
	}
	return ""
}

// check is an ext_authz filter.
type check struct {
	filterAt
	index       int
	settings    *extauthzv3.ExtAuthz // nil when they come from somewhere else
	node        *node                // of settings
	conditional bool                 // inside of a matcher
}

// manager is an HTTP connection manager with what belongs to it.
type manager struct {
	*hcmv3.HttpConnectionManager
	n       *node
	gateway *gateway
	filters []filterAt
	checks  []check
	tables  []tableAt
	missing []string // names of route configurations that are not here
	strip   stripper
}

// gateway looks at one Envoy.
func (l *linter) gateway(g *gateway) {
	l.admin(g)
	var (
		managers []*manager
		tunnels  []tunnel
	)
	for _, listener := range g.listeners {
		for i, f := range listener.GetListenerFilters() {
			if proxy, ok := message(f.GetTypedConfig()).(*proxyv3.ProxyProtocol); ok && proxy.GetAllowRequestsWithoutProxyProtocol() {
				l.report(codeRemoteAddress, listener.n.near("listener_filters").item(i).near("typed_config", "allow_requests_without_proxy_protocol"),
					"Connections come with or without the PROXY protocol: who reaches this listener directly writes any address into it.")
			}
		}
	}
	sidecar := slices.ContainsFunc(g.listeners, func(at listenerAt) bool { return at.GetTrafficDirection() == corev3.TrafficDirection_INBOUND })
	for _, listener := range g.listeners {
		m, t := g.chains(listener)
		if sidecar && listener.GetTrafficDirection() == corev3.TrafficDirection_OUTBOUND {
			// The way out of a service, which is nobody's way in. (A gateway of
			// Istio's has nothing but such listeners.)
			m = slices.DeleteFunc(m, func(one *manager) bool { return len(one.checks) == 0 })
			t = nil
		}
		if listener.isInner() && (g.allClusters || g.isReached(listener.GetName())) {
			// Whether somebody gets in by it is for the listeners in front to say.
			for _, one := range m {
				if len(one.checks) == 0 {
					for _, table := range one.tables {
						l.adminRoutes(g, table)
					}
				}
			}
			m = slices.DeleteFunc(m, func(one *manager) bool { return len(one.checks) == 0 })
			t = nil
		}
		managers, tunnels = append(managers, m...), append(tunnels, t...)
	}
	behind := services{}
	for _, m := range managers {
		if len(m.checks) == 0 {
			continue
		}
		for _, c := range m.checks {
			if name := c.settings.GetGrpcService().GetEnvoyGrpc().GetClusterName(); name != "" {
				g.asked = append(g.asked, name)
			}
		}
		for _, leaf := range m.leaves() {
			if off, _ := leaf.unchecked(m.checks); off == nil {
				behind.add(g, leaf.cluster, leaf.n)
			}
		}
	}
	for _, m := range managers {
		l.manager(m, behind)
	}
	for _, t := range tunnels {
		for _, cluster := range t.clusters {
			if checked, what := behind.shares(g, cluster); checked != nil {
				l.report(codeDirect, t.n, "This passes connections on to %s, which %s reaches only through the check.", what, nameOf(checked, "another listener"))
				break
			}
		}
	}
	for _, name := range sortedKeys(g.tables) {
		if table := g.tables[name]; !table.inline && !*table.used {
			l.looseTable(g, table)
		}
	}
}

// tunnel is a network filter that passes bytes on.
type tunnel struct {
	n        *node
	clusters []string
}

// chains takes a listener apart.
func (g *gateway) chains(listener listenerAt) (managers []*manager, tunnels []tunnel) {
	chain := func(c *listenerv3.FilterChain, n *node) {
		for i, f := range c.GetFilters() {
			at := n.at("filters").item(i).near("typed_config")
			switch m := message(f.GetTypedConfig()).(type) {
			case *hcmv3.HttpConnectionManager:
				managers = append(managers, g.newManager(m, at))
			case *tcpv3.TcpProxy:
				t := tunnel{n: at}
				if m.GetCluster() != "" {
					t.clusters = append(t.clusters, m.GetCluster())
				}
				for _, w := range m.GetWeightedClusters().GetClusters() {
					t.clusters = append(t.clusters, w.GetName())
				}
				tunnels = append(tunnels, t)
			}
		}
	}
	for i, c := range listener.GetFilterChains() {
		chain(c, listener.n.at("filter_chains").item(i))
	}
	if c := listener.GetDefaultFilterChain(); c != nil {
		chain(c, listener.n.at("default_filter_chain"))
	}
	if m, ok := message(listener.GetApiListener().GetApiListener()).(*hcmv3.HttpConnectionManager); ok {
		managers = append(managers, g.newManager(m, listener.n.near("api_listener", "api_listener")))
	}
	return managers, tunnels
}

func (g *gateway) newManager(hcm *hcmv3.HttpConnectionManager, n *node) *manager {
	m := &manager{HttpConnectionManager: hcm, n: n, gateway: g}
	m.filters = g.chain(hcm.GetHttpFilters(), n.at("http_filters"))
	m.checks = checksOf(m.filters)
	m.strip = m.stripper()

	table := func(name string) {
		if t, ok := g.tables[name]; ok {
			*t.used = true
			m.tables = append(m.tables, t)
			return
		}
		m.missing = append(m.missing, name)
	}
	switch {
	case hcm.GetRouteConfig() != nil:
		m.tables = append(m.tables, tableAt{hcm.GetRouteConfig(), n.near("route_config"), true, new(bool)})
	case hcm.GetRds() != nil:
		table(hcm.GetRds().GetRouteConfigName())
	case hcm.GetScopedRoutes() != nil:
		scopes := hcm.GetScopedRoutes().GetScopedRouteConfigurationsList().GetScopedRouteConfigurations()
		at := n.at("scoped_routes", "scoped_route_configurations_list", "scoped_route_configurations")
		for i, s := range scopes {
			if inline := s.GetRouteConfiguration(); inline != nil {
				m.tables = append(m.tables, tableAt{inline, at.item(i).near("route_configuration"), true, new(bool)})
				continue
			}
			table(s.GetRouteConfigurationName())
		}
		if len(scopes) == 0 {
			m.missing = append(m.missing, hcm.GetScopedRoutes().GetName())
		}
	}
	return m
}

// chain pairs filters with their nodes.
func (g *gateway) chain(filters []*hcmv3.HttpFilter, n *node) []filterAt {
	out := make([]filterAt, 0, len(filters))
	for i, f := range filters {
		at := filterAt{HttpFilter: f, n: n.item(i), config: message(f.GetTypedConfig()), configNode: n.item(i).at("typed_config")}
		if f.GetConfigDiscovery() != nil {
			found, ok := g.filters[f.GetName()]
			at.config, at.configNode, at.missing = found.config, found.configNode, !ok
			if !ok && f.GetConfigDiscovery().GetDefaultConfig() != nil {
				at.config, at.configNode = message(f.GetConfigDiscovery().GetDefaultConfig()), n.item(i).at("config_discovery", "default_config")
			}
		}
		out = append(out, at)
	}
	return out
}

// checksOf finds the ext_authz filters of a chain, those inside of a matcher
// included.
func checksOf(filters []filterAt) []check {
	var checks []check
	for i, f := range filters {
		switch settings := f.config.(type) {
		case *extauthzv3.ExtAuthz:
			checks = append(checks, check{f, i, settings, f.configNode, false})
			continue
		case nil:
		}
		if f.missing && slices.ContainsFunc(f.GetConfigDiscovery().GetTypeUrls(), func(url string) bool { return url[strings.LastIndexByte(url, '/')+1:] == typeExtAuthz }) {
			checks = append(checks, check{f, i, nil, f.n, false})
			continue
		}
		if inside := f.configNode.find(typeExtAuthz); len(inside) > 0 {
			settings, _ := inside[0].again().(*extauthzv3.ExtAuthz)
			checks = append(checks, check{f, i, settings, inside[0], true})
		}
	}
	return checks
}

// again decodes a part of a document that was decoded before; nil when that
// fails.
func (n *node) again() proto.Message {
	w := &jsonWriter{}
	w.value(n)
	a := new(anypb.Any)
	if unmarshalJSON(w.out, a) != nil {
		return nil
	}
	return message(a)
}

// services are what a gateway's clusters lead to, by cluster and by address:
// two clusters of one address are one service.
type services map[string]*node

func (s services) add(g *gateway, cluster string, n *node) {
	if cluster == "" {
		return
	}
	s["cluster "+cluster] = n
	for _, address := range g.addresses(cluster) {
		s[address] = n
	}
}

// shares returns what of s a cluster leads to as well, and its name; nil for
// nothing.
func (s services) shares(g *gateway, cluster string) (n *node, what string) {
	if cluster == "" {
		return nil, ""
	}
	if n := s["cluster "+cluster]; n != nil {
		return n, "cluster " + cluster
	}
	for _, address := range g.addresses(cluster) {
		if n := s[address]; n != nil {
			return n, address + " (cluster " + cluster + ")"
		}
	}
	return nil, ""
}

// addressOf returns host:port, or the path of a Unix socket, or "".
func addressOf(a *corev3.Address) string {
	switch {
	case a.GetPipe() != nil:
		return a.GetPipe().GetPath()
	case a.GetSocketAddress() != nil:
		return strings.ToLower(a.GetSocketAddress().GetAddress()) + ":" + strconv.FormatUint(uint64(a.GetSocketAddress().GetPortValue()), 10)
	}
	return ""
}

// isLoopback reports whether only this machine reaches a host.
func isLoopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// nameOf names the things around a node.
func nameOf(n *node, otherwise string) string {
	if name := n.within(); name != "" {
		return name
	}
	return otherwise
}
