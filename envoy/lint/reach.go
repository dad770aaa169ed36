package lint

import (
	"net/netip"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
)

// addresses returns what a cluster leads to, in forms of which equal ones are
// one service: host:port, the path of a socket, the name under which endpoints
// are looked up. It looks through clusters of clusters, and through internal
// listeners as far as those let requests on without a check of their own.
func (g *gateway) addresses(cluster string) []string {
	if known, ok := g.reached[cluster]; ok {
		return known
	}
	var out []string
	g.follow(cluster, map[string]bool{}, &out)
	if g.reached == nil {
		g.reached = map[string][]string{}
	}
	g.reached[cluster] = out
	return out
}

func (g *gateway) follow(cluster string, seen map[string]bool, out *[]string) {
	c, ok := g.clusters[cluster]
	if !ok || seen[cluster] {
		return
	}
	seen[cluster] = true
	if c.GetType() == clusterv3.Cluster_EDS {
		service := c.GetEdsClusterConfig().GetServiceName()
		if service == "" {
			service = cluster
		}
		*out = append(*out, "endpoints "+service)
	}
	for _, part := range c.parts() {
		*out = append(*out, "cluster "+part)
		g.follow(part, seen, out)
	}
	for _, address := range c.endpoints() {
		*out = append(*out, sameHost(address))
	}
	for _, name := range c.innerListeners() {
		*out = append(*out, "internal listener "+name)
		exits, _ := g.exits(name)
		for _, exit := range exits {
			*out = append(*out, "cluster "+exit)
			g.follow(exit, seen, out)
		}
	}
}

// parts are the clusters of which an aggregate cluster consists.
func (c clusterAt) parts() []string {
	if aggregate, ok := message(c.GetClusterType().GetTypedConfig()).(*aggregatev3.ClusterConfig); ok {
		return aggregate.GetClusters()
	}
	return nil
}

// endpoints returns the cluster's endpoints as host:port or the path of a
// socket.
func (c clusterAt) endpoints() []string {
	var out []string
	for _, group := range c.GetLoadAssignment().GetEndpoints() {
		for _, endpoint := range group.GetLbEndpoints() {
			if address := addressOf(endpoint.GetEndpoint().GetAddress()); address != "" {
				out = append(out, address)
			}
		}
	}
	return out
}

// innerListeners returns the internal listeners among the cluster's endpoints.
func (c clusterAt) innerListeners() []string {
	var out []string
	for _, group := range c.GetLoadAssignment().GetEndpoints() {
		for _, endpoint := range group.GetLbEndpoints() {
			if name := endpoint.GetEndpoint().GetAddress().GetEnvoyInternalAddress().GetServerListenerName(); name != "" {
				out = append(out, name)
			}
		}
	}
	return out
}

// exits returns the clusters to which an internal listener passes requests
// without a check; ok is false for one that is not here.
func (g *gateway) exits(listener string) (clusters []string, ok bool) {
	i := slices.IndexFunc(g.listeners, func(at listenerAt) bool { return at.isInner() && at.GetName() == listener })
	if i < 0 {
		return nil, false
	}
	if known, ok := g.exitsOf[listener]; ok {
		return known, true
	}
	managers, tunnels := g.chains(g.listeners[i])
	for _, m := range managers {
		if len(m.checks) > 0 {
			continue // what its routes skip is for itself to say
		}
		for _, one := range m.leaves() {
			if one.cluster != "" {
				clusters = append(clusters, one.cluster)
			}
		}
	}
	for _, t := range tunnels {
		clusters = append(clusters, t.clusters...)
	}
	if g.exitsOf == nil {
		g.exitsOf = map[string][]string{}
	}
	g.exitsOf[listener] = clusters
	return clusters, true
}

// isInner reports whether only this Envoy's own clusters reach the listener.
func (at listenerAt) isInner() bool { return at.GetInternalListener() != nil }

// isReached reports whether a cluster leads to this internal listener.
func (g *gateway) isReached(listener string) bool {
	for _, c := range g.clusters {
		if slices.Contains(c.innerListeners(), listener) {
			return true
		}
	}
	return false
}

// checkedLater reports whether a cluster leads to internal listeners only, all of
// which have a check.
func (g *gateway) checkedLater(cluster string) bool {
	names := g.clusters[cluster].innerListeners()
	return len(names) > 0 && len(g.clusters[cluster].endpoints()) == 0 && !slices.ContainsFunc(names, func(name string) bool {
		exits, ok := g.exits(name)
		return !ok || len(exits) > 0
	})
}

// sameHost gives all names of this machine, and all forms of an address, one
// spelling.
func sameHost(address string) string {
	i := strings.LastIndexByte(address, ':')
	if i < 0 || strings.HasPrefix(address, "/") || strings.HasPrefix(address, "@") {
		return address // a Unix socket
	}
	host := strings.TrimSuffix(strings.Trim(address[:i], "[]"), ".")
	if isLoopback(host) {
		host = "loopback"
	} else if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return host + address[i:]
}
