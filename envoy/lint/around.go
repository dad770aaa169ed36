package lint

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

func unmarshalJSON(text []byte, m proto.Message) error { return protojson.Unmarshal(text, m) }

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// admin looks at Envoy's admin interface.
func (l *linter) admin(g *gateway) {
	a := g.admin.GetAddress().GetSocketAddress()
	if a == nil || isLoopback(a.GetAddress()) {
		return
	}
	l.report(codeAdmin, g.adminNode.near("address", "socket_address", "address"), "The admin interface listens on %s.", a.GetAddress())
}

// toAdmin reports whether a cluster leads to the admin interface.
func (l *linter) toAdmin(g *gateway, cluster string) bool {
	admin := addressOf(g.admin.GetAddress())
	if admin == "" {
		return false
	}
	return slices.ContainsFunc(g.clusters[cluster].addresses(), func(address string) bool { return sameService(address, admin) })
}

// sameService compares host:port, where all names of loopback are one.
func sameService(a, b string) bool {
	host := func(address string) (string, string) {
		i := strings.LastIndexByte(address, ':')
		if i < 0 {
			return address, ""
		}
		host := strings.Trim(address[:i], "[]")
		if isLoopback(host) || host == "0.0.0.0" || host == "::" || host == "" {
			host = "loopback"
		}
		return host, address[i:]
	}
	hostA, portA := host(a)
	hostB, portB := host(b)
	return hostA == hostB && portA == portB
}

// adminRoutes reports routes to the admin interface, and to what else must not
// be reached from outside. Statistics alone are what control planes publish.
func (l *linter) adminRoutes(g *gateway, t tableAt) {
	for _, leaves := range t.hosts() {
		for _, one := range leaves {
			switch {
			case one.answers:
			case l.toAdmin(g, one.cluster):
				if path := one.match.text; one.match.kind == matchUnknown || one.match.kind == matchRegex || !strings.HasPrefix(path, "/stats") && path != "/ready" {
					l.report(codeInside, one.n, "%s leads to Envoy's admin interface.", one.what())
				}
			case l.private(g, one.cluster) != "":
				l.report(codeInside, one.n, "%s leads to Gatehouse's own %s.", one.what(), l.private(g, one.cluster))
			}
		}
	}
}

// private returns the address of Gatehouse that a cluster leads to and no
// request may reach, "" for none.
func (l *linter) private(g *gateway, cluster string) string {
	if l.options.Gatehouse == nil {
		return ""
	}
	for _, address := range g.clusters[cluster].addresses() {
		for _, private := range l.options.Gatehouse.Private {
			if sameService(address, private) {
				return private
			}
		}
	}
	return ""
}
