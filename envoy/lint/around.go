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
	return slices.ContainsFunc(g.addresses(cluster), func(address string) bool { return sameService(address, admin) })
}

// sameService compares host:port, where all names of loopback are one.
func sameService(a, b string) bool {
	return anyHost(sameHost(a)) == anyHost(sameHost(b))
}

// anyHost takes "all addresses of this machine" for loopback.
func anyHost(address string) string {
	for _, all := range []string{"0.0.0.0:", ":::", ":"} {
		if port, ok := strings.CutPrefix(address, all); ok {
			return "loopback:" + port
		}
	}
	return address
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
			case l.asked(g, one.cluster):
				l.report(codeInside, one.n, "%s leads to where the check is asked: a client can ask it, too, about whom it likes.", one.what())
			case l.private(g, one.cluster) != "":
				l.report(codeInside, one.n, "%s leads to Gatehouse's own %s.", one.what(), l.private(g, one.cluster))
			}
		}
	}
}

// asked reports whether a cluster leads to where an ext_authz filter asks by
// gRPC.
func (l *linter) asked(g *gateway, cluster string) bool {
	if cluster == "" {
		return false
	}
	for _, check := range g.asked {
		if check == cluster {
			return true
		}
		for _, address := range g.addresses(check) {
			if slices.Contains(g.addresses(cluster), address) {
				return true
			}
		}
	}
	return false
}

// private returns the address of Gatehouse that a cluster leads to and no
// request may reach, "" for none.
func (l *linter) private(g *gateway, cluster string) string {
	if l.options.Gatehouse == nil {
		return ""
	}
	for _, address := range g.addresses(cluster) {
		for _, private := range l.options.Gatehouse.Private {
			if sameService(address, private) {
				return private
			}
		}
	}
	return ""
}
