package lint

import (
	"slices"
	"strings"
)

// envoyGateway is what is at hand of Envoy Gateway's configuration.
type envoyGateway struct {
	policies []*node // SecurityPolicies
	clients  []*node // ClientTrafficPolicies
	routes   []*node // HTTPRoutes and GRPCRoutes
}

// asks reports whether some policy has requests checked.
func (e *envoyGateway) asks() bool {
	return slices.ContainsFunc(e.policies, func(p *node) bool { return p.at("spec", "extAuth") != nil })
}

// target is what a policy is attached to.
type target struct {
	kind, section string
	n             *node
}

func targets(spec *node) []target {
	var out []target
	for _, key := range []string{"targetRef", "targetRefs", "targetSelectors"} {
		for _, ref := range spec.at(key).list() {
			out = append(out, target{ref.at("kind").string(), ref.at("sectionName").string(), ref})
		}
	}
	return out
}

func (t target) isRoute() bool { return strings.HasSuffix(t.kind, "Route") }

// envoyGateway looks at Envoy Gateway.
func (l *linter) envoyGateway(e *envoyGateway) {
	if !e.asks() {
		// Without a check somewhere in these files, nothing can be said about what
		// it depends on.
		return
	}
	wide := false // a whole gateway is checked
	for _, policy := range e.policies {
		spec := policy.at("spec")
		if spec.at("extAuth") != nil && slices.ContainsFunc(targets(spec), func(t target) bool { return !t.isRoute() && t.section == "" }) {
			wide = true
		}
	}
	for _, policy := range e.policies {
		spec := policy.at("spec")
		ext := spec.at("extAuth")
		if ext != nil {
			parents := e.parents(policy)
			for _, parent := range parents {
				l.extAuth(extAuth{ext, parent.at("spec", "extAuth")})
			}
			if len(parents) == 0 {
				l.extAuth(extAuth{own: ext})
			}
			l.narrow(spec, wide)
			continue
		}
		for _, t := range targets(spec) {
			if wide && !merges(spec) && (t.isRoute() || t.section != "") {
				l.egOverride(e, policy, t)
			}
		}
	}
	for _, route := range e.routes {
		for _, rule := range route.at("spec", "rules").list() {
			for _, n := range append([]*node{rule}, rule.at("backendRefs").list()...) {
				l.setByRoute(n)
			}
		}
	}
	for _, client := range e.clients {
		l.clientTraffic(client.at("spec"))
	}
}

// narrow reports a check that hangs on routes alone.
func (l *linter) narrow(spec *node, wide bool) {
	all := targets(spec)
	if wide || len(all) == 0 {
		return
	}
	for _, t := range all {
		l.report(codeEGNarrow, t.n, "The check is attached to %s %s only; no SecurityPolicy here attaches it to a whole Gateway.", t.kind, t.n.at("name").string())
	}
}

// merges reports whether a policy is put together with that of the Gateway.
func merges(spec *node) bool {
	return slices.Contains([]string{"StrategicMerge", "JSONMerge"}, spec.at("mergeType").string())
}

// extAuth is a check, with what it takes over from the one of the Gateway.
type extAuth struct{ own, parent *node }

// at returns a setting. A null takes away what would be taken over.
func (e extAuth) at(name string) *node {
	n := e.own.at(name)
	if n == nil {
		n = e.parent.at(name)
	}
	if n != nil && n.shape == nullShape {
		return nil
	}
	return n
}

// near is at, or the check itself.
func (e extAuth) near(name string) *node { return orElse(e.at(name), e.own) }

// parents returns the policies of Gateways with which one of a route is merged.
func (e *envoyGateway) parents(policy *node) []*node {
	var out []*node
	if !merges(policy.at("spec")) {
		return nil
	}
	for _, t := range targets(policy.at("spec")) {
		route := e.route(policy, t)
		for _, other := range e.policies {
			attached := other.at("spec", "extAuth") != nil && slices.ContainsFunc(targets(other.at("spec")), func(to target) bool {
				return !to.isRoute() && (route == nil || attaches(route, namespace(other), to))
			})
			if t.isRoute() && attached && !slices.Contains(out, other) {
				out = append(out, other)
			}
		}
	}
	return out
}

// attaches reports whether a route is one of a Gateway.
func attaches(route *node, in string, gateway target) bool {
	return slices.ContainsFunc(route.at("spec", "parentRefs").list(), func(ref *node) bool {
		from := ref.at("namespace").string()
		if from == "" {
			from = namespace(route)
		}
		section := ref.at("sectionName").string()
		return ref.at("name").string() == gateway.n.at("name").string() && from == in &&
			(section == "" || gateway.section == "" || section == gateway.section)
	})
}

// route returns the route that a policy is attached to, nil where it is not here.
func (e *envoyGateway) route(policy *node, t target) *node {
	name := t.n.at("name").string()
	i := slices.IndexFunc(e.routes, func(r *node) bool {
		return r.at("kind").string() == t.kind && name != "" && r.at("metadata", "name").string() == name && namespace(r) == namespace(policy)
	})
	if i < 0 {
		return nil
	}
	return e.routes[i]
}

// egOverride looks at a policy that takes the check away. That is fine for a
// route that takes the identity headers out by itself.
func (l *linter) egOverride(e *envoyGateway, policy *node, t target) {
	gone := func(why string) {
		l.report(codeEGOverride, t.n, "This policy replaces the one of the Gateway for %s %s, and has no extAuth: the check is gone there%s.", t.kind, t.n.at("name").string(), why)
	}
	if !t.isRoute() {
		gone("")
		return
	}
	route := e.route(policy, t)
	if route == nil {
		gone(", and the route is not in these files")
		return
	}
	rules := route.at("spec", "rules").list()
	if t.section != "" {
		rules = slices.DeleteFunc(slices.Clone(rules), func(r *node) bool { return r.at("name").string() != t.section })
		if len(rules) == 0 {
			gone(", and no rule here has the name " + t.section)
		}
	}
	for _, rule := range rules {
		left, at := l.ruleLeaves(rule, e.refusesUnderscores())
		switch {
		case len(left) == 0:
		case at == nil:
			gone(", with a client's own identity headers in the request")
		default:
			l.report(codeEGOverride, at, "%s %s is not checked, and this leaves a client's own %s in the request.", t.kind, t.n.at("name").string(), some(left))
		}
	}
}

// ruleLeaves returns the identity headers that a route's rule lets through, and
// where it takes out others; nil where it takes out none.
func (l *linter) ruleLeaves(rule *node, underscores bool) (left []string, at *node) {
	modifiers := func(n *node) (removes []*node) {
		for _, filter := range n.at("filters").list() {
			if remove := filter.at("requestHeaderModifier", "remove"); filter.at("type").string() == "RequestHeaderModifier" && remove != nil {
				removes = append(removes, remove)
			}
		}
		return removes
	}
	if slices.ContainsFunc(rule.at("filters").list(), func(f *node) bool { return f.at("type").string() == "RequestRedirect" }) {
		return nil, nil
	}
	for _, backend := range rule.at("backendRefs").list() { // without one, nobody is asked
		s := stripper{underscores: underscores}
		removes := append(modifiers(backend), modifiers(rule)...)
		for _, remove := range removes {
			s = s.and(remove.strings())
		}
		mine := s.left(l.spellings())
		if len(mine) == 0 || len(left) > 0 {
			continue
		}
		left = mine
		if i := slices.IndexFunc(removes, func(n *node) bool { return slices.ContainsFunc(n.strings(), l.isIdentity) }); i >= 0 {
			at = removes[i]
		}
	}
	return left, at
}

// setByRoute reports identity headers that a route writes, after the check or
// without one.
func (l *linter) setByRoute(n *node) {
	for _, filter := range n.at("filters").list() {
		for _, how := range []string{"set", "add"} {
			for _, header := range filter.at("requestHeaderModifier", how).list() {
				if name := header.at("name").string(); l.isIdentity(name) {
					l.report(codeIdentitySet, header, "%s is set here, %s.", name, afterCheck)
				}
			}
		}
	}
}

// refusesUnderscores reports whether headers with underscores are refused, which
// is Envoy Gateway's default.
func (e *envoyGateway) refusesUnderscores() bool {
	return !slices.ContainsFunc(e.clients, func(c *node) bool {
		return c.at("spec", "headers", "withUnderscoresAction").string() == "Allow"
	})
}

func (l *linter) extAuth(e extAuth) {
	if e.at("failOpen").isTrue() {
		l.report(codeEGFailOpen, e.at("failOpen"), "When the check fails, or its configuration is invalid, the request passes.")
	}
	if e.at("recomputeRoute").isTrue() {
		l.report(codeEGRecompute, e.at("recomputeRoute"), "The route is chosen again after the check.")
	}
	l.duration(codeEGTimeout, e.near("timeout"), e.at("timeout"), "10 s")
	if status := e.at("statusOnError").string(); !strings.HasPrefix(status, "5") {
		l.report(codeEGStatus, e.near("statusOnError"), "A check that fails is answered with 403, as if the caller were known and not allowed.")
	}
	if body := e.at("bodyToExtAuth"); body != nil {
		l.report(codeEGBody, body, "Envoy holds each request's body until the check is done; Gatehouse doesn't look at it.")
	}
	sent, overHTTP := e.at("headersToExtAuth"), e.at("http")
	if sent != nil || overHTTP != nil {
		names := sent.strings()
		l.hidden(e.near("headersToExtAuth"), func(header string) bool {
			return overHTTP != nil && header == "authorization" ||
				slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, header) })
		}, true, codeEGHidden, codeEGCrossSite)
	}
	if overHTTP != nil {
		l.report(codeEGHTTP, overHTTP, "The check goes over HTTP.")
		taken := overHTTP.at("headersToBackend")
		l.upstreamHeaders(orElse(taken, overHTTP), codeEGIdentity, func(header string) bool {
			return slices.ContainsFunc(taken.strings(), func(name string) bool { return strings.EqualFold(name, header) })
		})
	}
	l.extAuthPolicies(e)
}

// extAuthPolicies compares the policies that are named with those that there
// are.
func (l *linter) extAuthPolicies(e extAuth) {
	l.usesRoutes(e.own)
	for _, extension := range e.at("contextExtensions").list() {
		if extension.at("name").string() != policyKey {
			continue
		}
		l.named = true
		if value := extension.at("value"); value != nil { // a valueRef is elsewhere
			l.policyName(value, value.string())
		}
	}
}

func (l *linter) clientTraffic(spec *node) {
	path := spec.at("path")
	switch action := path.at("escapedSlashesAction").string(); action {
	case "KeepUnchanged":
		l.report(codeEGPaths, path.at("escapedSlashesAction"), "Escaped slashes are kept: /users%%2fadmin is one segment for a route, and two for many services.")
	case "UnescapeAndForward":
		l.report(codeEGPaths, path.at("escapedSlashesAction"), "Escaped slashes are unescaped and forwarded: a proxy in front, or a log, has seen another path.")
	}
	if path.at("disableMergeSlashes").isTrue() {
		l.report(codeEGPaths, path.at("disableMergeSlashes"), "Repeated slashes are not merged: //admin is no /admin for a route, but for many services.")
	}
	if action := spec.at("headers", "withUnderscoresAction"); action.string() == "Allow" {
		l.report(codeEGUnderscores, action, "Headers with underscores get through.")
	}
}
