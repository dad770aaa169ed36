package lint

import (
	"slices"
	"strings"
	"time"
)

// mesh is what is at hand of Istio's configuration.
type mesh struct {
	configs     []*node // mesh configurations
	policies    []*node // AuthorizationPolicies
	services    []*node // VirtualServices
	gateways    []*node // Gateways
	connections []*node // connectionSettings of proxies
}

// asks reports whether some policy has requests checked.
func (m *mesh) asks() bool { return slices.ContainsFunc(m.policies, isCustom) }

func isCustom(policy *node) bool {
	return strings.EqualFold(policy.at("spec", "action").string(), "CUSTOM")
}

func (m *mesh) config(n *node) {
	if n.isMapping() {
		n.toCamelCase()
		m.configs = append(m.configs, n)
		m.proxy(n.at("defaultConfig"))
	}
}

// subcharts reads Helm values of a chart that has Istio's below a name, and
// returns how many of them there are.
func (m *mesh) subcharts(n *node) int {
	known := 0
	for _, f := range n.fields {
		if config := f.at("meshConfig"); config.isMapping() {
			m.config(config)
			known++
		}
	}
	return known
}

// toCamelCase gives the keys in and below a mesh configuration the names that
// rules use. Istio takes the names of proto fields, too.
func (n *node) toCamelCase() {
	for _, f := range n.fields {
		if words := strings.Split(f.name, "_"); len(words) > 1 {
			for i, word := range words[1:] {
				if word != "" {
					words[i+1] = strings.ToUpper(word[:1]) + word[1:]
				}
			}
			f.name = strings.Join(words, "")
		}
		f.toCamelCase()
	}
	n.replaceFields(n.fields)
	for _, item := range n.items {
		item.toCamelCase()
	}
}

// Istio's two kinds of provider that ask somebody.
const (
	grpcProvider = "envoyExtAuthzGrpc"
	httpProvider = "envoyExtAuthzHttp"
)

// mesh looks at Istio.
func (l *linter) mesh(m *mesh) {
	defined := map[string]bool{}
	asks := false
	for _, config := range m.configs {
		for _, provider := range config.at("extensionProviders").list() {
			defined[provider.at("name").string()] = true
			switch {
			case provider.at(grpcProvider) != nil:
				asks = true
				l.istioProvider(provider.at(grpcProvider), false)
			case provider.at(httpProvider) != nil:
				asks = true
				l.istioProvider(provider.at(httpProvider), true)
			}
		}
		if asks {
			l.istioPaths(config)
		}
	}
	if m.asks() {
		for _, vs := range m.services {
			l.setByMesh(vs)
		}
	}
	for _, policy := range m.policies {
		if isCustom(policy) {
			l.istioPolicy(m, policy, defined)
		}
	}
}

func (l *linter) istioProvider(p *node, overHTTP bool) {
	l.usesRoutes(p)
	if p.at("failOpen").isTrue() {
		l.report(codeIstioFailOpen, p.at("failOpen"), "When the check fails, the request passes.")
	}
	if p.at("clearRouteCache").isTrue() {
		l.report(codeIstioClearRoute, p.at("clearRouteCache"), "The route is chosen again after the check.")
	}
	l.duration(codeIstioTimeout, p.near("timeout"), p.at("timeout"), "600 s")
	if status := p.at("statusOnError").string(); !strings.HasPrefix(status, "5") {
		l.report(codeIstioStatus, p.near("statusOnError"), "A check that fails is answered with 403, as if the caller were known and not allowed.")
	}
	if body := p.at("includeRequestBodyInCheck"); body != nil {
		l.report(codeIstioBody, body, "Envoy holds each request's body until the check is done; Gatehouse doesn't look at it.")
	}
	if !overHTTP {
		return
	}
	l.report(codeIstioHTTP, p, "The check goes over HTTP.")
	sent := p.either("includeRequestHeadersInCheck", "includeHeadersInCheck")
	l.hidden(orElse(sent, p), func(header string) bool { return istioMatches(sent.strings(), header) }, true, codeIstioHidden, codeIstioCrossSite)
	taken := p.at("headersToUpstreamOnAllow")
	l.upstreamHeaders(orElse(taken, p), codeIstioIdentity, func(header string) bool { return istioMatches(taken.strings(), header) })
}

func orElse(n, otherwise *node) *node {
	if n != nil {
		return n
	}
	return otherwise
}

// istioMatches applies Istio's patterns: abc, abc*, *abc.
func istioMatches(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		p = strings.ToLower(p)
		if prefix, ok := strings.CutSuffix(p, "*"); ok {
			return strings.HasPrefix(text, prefix)
		}
		if suffix, ok := strings.CutPrefix(p, "*"); ok {
			return strings.HasSuffix(text, suffix)
		}
		return p == text
	})
}

// duration looks at the timeout of a check.
func (l *linter) duration(code string, at, value *node, otherwise string) {
	switch d, err := time.ParseDuration(value.string()); {
	case value == nil:
		l.report(code, at, "No timeout is given for the check; it is %s.", otherwise)
	case err != nil:
		l.report(code, at, "The timeout %q is no duration.", value.string())
	case d <= 0:
		l.report(code, at, "The check may take forever.")
	case d > longestCheck:
		l.report(code, at, "The check may take %s, and a request waits for it all the time.", d)
	}
}

func (l *linter) istioPaths(config *node) {
	at := config.near("pathNormalization", "normalization")
	switch how := config.at("pathNormalization", "normalization").string(); how {
	case "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES":
	case "":
		l.report(codeIstioPaths, at, "Repeated slashes are not merged: the default is BASE.")
	default:
		l.report(codeIstioPaths, at, "%s leaves forms of a path that services read as one.", how)
	}
}

// limits are what makes a rule fit some requests only.
var limits = map[string][]string{
	"from": {"source"}, "to": {"operation"}, "when": {""},
}

func (l *linter) istioPolicy(m *mesh, policy *node, defined map[string]bool) {
	spec := policy.at("spec")
	l.usesRoutes(spec)
	provider := spec.at("provider", "name").string()
	switch {
	case provider == "":
		l.report(codeIstioProvider, spec.near("provider"), "action CUSTOM names no provider.")
	case len(m.configs) == 0:
		l.report(codeElsewhere, spec.at("provider", "name"), "The mesh configuration that defines %q is not in these files.", provider)
	case !defined[provider]:
		l.report(codeIstioProvider, spec.at("provider", "name"), "No provider %q is defined in the mesh configuration.", provider)
	}
	rules := spec.at("rules").list()
	if len(rules) == 0 {
		l.report(codeIstioNoRule, spec.near("rules"), "A policy without rules fits no request, so none is checked.")
		return
	}
	for _, rule := range rules {
		if !limited(rule) {
			return // one that fits all is enough
		}
	}
	if lists := notPaths(rules); len(lists) > 0 {
		l.istioUnchecked(m, policy, lists[0])
		return
	}
	l.report(codeIstioPartial, spec.at("rules"), "Only requests that fit these rules are checked; all others pass, with the identity headers that their client wrote.")
}

func limited(rule *node) bool {
	for key, inside := range limits {
		for _, limit := range rule.at(key).list() {
			for _, name := range inside {
				if name == "" || len(limit.at(name).fieldsOf()) > 0 {
					return true
				}
			}
		}
	}
	return false
}

// usesRoutes notes a check for which Gatehouse chooses the policy, unless one is
// named.
func (l *linter) usesRoutes(n *node) {
	if l.checked == nil {
		l.checked = n
	}
}

// fallback reports that nothing chooses a policy. It is called at the end.
func (l *linter) fallback() {
	if known := l.options.Gatehouse; known != nil && !known.Fallback && !l.named && l.checked != nil {
		l.report(codeNoPolicy, l.checked, "No route names a policy, and Gatehouse's configuration has neither routes nor default_policy: every request is refused.")
	}
}
