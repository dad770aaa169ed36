package lint

import (
	"slices"
	"strings"
)

// envoyGateway is what is at hand of Envoy Gateway's configuration.
type envoyGateway struct {
	policies []*node // SecurityPolicies
	clients  []*node // ClientTrafficPolicies
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
	asks := slices.ContainsFunc(e.policies, func(p *node) bool { return p.at("spec", "extAuth") != nil })
	if !asks {
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
			l.extAuth(ext)
			l.narrow(spec, wide)
			continue
		}
		for _, t := range targets(spec) {
			if wide && spec.at("mergeType") == nil && (t.isRoute() || t.section != "") {
				l.report(codeEGOverride, t.n, "This policy replaces the one of the Gateway for %s %s, and has no extAuth: the check is gone there.", t.kind, t.n.at("name").string())
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

func (l *linter) extAuth(e *node) {
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
		l.hidden(orElse(sent, e), func(header string) bool {
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
func (l *linter) extAuthPolicies(e *node) {
	l.usesRoutes(e)
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
