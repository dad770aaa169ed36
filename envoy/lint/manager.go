package lint

import (
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	keyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/api_key_auth/v3"
	basicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/basic_auth/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	mutationfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	transformv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/transform/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	customv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/custom_header/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

// loose is the check that a route configuration without a connection manager
// refers to.
func loose(name string, n *node) check {
	return check{filterAt: filterAt{HttpFilter: &hcmv3.HttpFilter{Name: name}, n: n, missing: true}, node: n}
}

// manager looks at one connection manager.
func (l *linter) manager(m *manager, behind services) {
	if len(m.checks) == 0 {
		l.unprotected(m, behind)
		return
	}
	l.checked = m.checks[0].n
	alternatives := m.alternatives()
	for i, c := range m.checks {
		if i > 0 && !alternatives {
			l.report(codeSecondCheck, c.n.near("name"), "A second ext_authz filter, after %s: each has its own settings, and per-route settings go to the one whose name they have.", m.checks[0].name())
		}
		l.check(m, c)
	}
	l.forgotten(m, m.checks)
	l.filters(m)
	l.identityBefore(m)
	l.upstreamFilters(m)
	l.upgrades(m)
	l.tunnels(m)
	l.tableByHeader(m)
	l.httpSettings(m)
	for _, t := range m.tables {
		l.table(t, m.checks, m.strips(), behind, m.gateway)
		l.strangers(m, t)
		l.adminRoutes(m.gateway, t)
	}
	for _, t := range m.tables {
		l.hiddenRoutes(t)
	}
	for _, name := range m.missing {
		l.report(codeElsewhere, m.n.near("rds", "route_config_name"), "The routes %q are not in these files; what they skip is not known.", name)
	}
}

// hiddenRoutes notes routes that are there, or elsewhere, and are not looked at.
func (l *linter) hiddenRoutes(t tableAt) {
	if t.GetVhds() != nil {
		l.report(codeElsewhere, t.n.near("vhds"), "Virtual hosts that are looked up on demand are not in these files; what they skip is not known.")
	}
	for i, host := range t.GetVirtualHosts() {
		if host.GetMatcher() != nil {
			l.report(codeUnread, t.n.near("virtual_hosts").item(i).near("matcher"), "Which requests take which route of a matcher tree is not looked at.")
		}
	}
}

// unprotected looks at a connection manager without a check.
func (l *linter) unprotected(m *manager, behind services) {
	var ways []leaf
	for _, one := range m.leaves() {
		if !l.toAdmin(m.gateway, one.cluster) && !m.gateway.checkedLater(one.cluster) {
			ways = append(ways, one)
		}
	}
	for _, t := range m.tables {
		l.adminRoutes(m.gateway, t)
	}
	for _, one := range ways {
		if checked, what := behind.shares(m.gateway, one.cluster); checked != nil {
			l.report(codeDirect, one.n, "%s reaches %s without a check; %s reaches it with one.", one.what(), what, nameOf(checked, "another listener"))
			return
		}
	}
	if len(ways) > 0 {
		l.report(codeNoCheck, m.n.near("http_filters"), "There is no ext_authz filter, but a way to %s.", named(ways[0].cluster))
	}
}

func named(cluster string) string {
	if cluster == "" {
		return "a cluster"
	}
	return "cluster " + cluster
}

// strangers reports per-route settings of the check under a name that no filter
// has. Envoy takes them and never looks at them.
func (l *linter) strangers(m *manager, t tableAt) {
	names := make([]string, len(m.filters))
	for i, f := range m.filters {
		names[i] = f.GetName()
	}
	for _, n := range t.n.find(extAuthzInUse) {
		at := n
		for at.parent != nil && at.parent.name != "typed_per_filter_config" {
			at = at.parent
		}
		if at.parent != nil && !slices.Contains(names, at.name) {
			l.report(codeStranger, at, "No filter is named %q, so nobody reads this; the check's name is %q.", at.name, m.checks[0].name())
		}
	}
}

// Filters by what they can do to the check, by the last part of their type's
// package.
var (
	// answering filters serve a request themselves, out of what they keep or
	// fetch.
	answering = map[string]string{
		"cache": "answers from its cache", "cache_v2": "answers from its cache", "file_server": "serves files",
		"aws_lambda": "calls a function", "mcp_router": "calls other servers",
	}
	// programs do what somebody has written.
	programs = []string{"lua", "wasm", "ext_proc", "dynamic_modules", "golang", "golang_filter"}
	// rerouting filters change method or path and have the route chosen again.
	rerouting = []string{"grpc_json_transcoder", "grpc_json_reverse_transcoder", "mcp_json_rest_bridge"}
)

// sort of filter: the package of its type, without version.
func (f filterAt) sort() string {
	parts := strings.Split(f.typeName(), ".")
	if len(parts) < 3 {
		return ""
	}
	return parts[len(parts)-3]
}

// filters looks at what stands before and after the check.
func (l *linter) filters(m *manager) {
	first, last := m.checks[0].index, m.checks[len(m.checks)-1].index
	for i, whole := range m.filters {
		if whole.GetDisabled() {
			continue
		}
		for _, f := range whole.parts() {
			sort, at := f.sort(), f.n.near("name")
			switch {
			case i < first:
				switch {
				case answering[sort] != "":
					l.report(codeAnswersFirst, at, "%s comes before the check and %s.", f.GetName(), answering[sort])
				case slices.Contains(programs, sort):
					l.report(codeProgramFirst, at, "%s comes before the check; whatever is programmed there can answer, or change what is checked.", f.GetName())
				}
			case i > last:
				switch {
				case slices.Contains(rerouting, sort):
					l.report(codeReroutes, at, "%s comes after the check, changes the path and has the route chosen again.", f.GetName())
				case slices.Contains(programs, sort):
					l.report(codeProgramAfter, at, "%s comes after the check; whatever is programmed there can change the identity, the path and the route.", f.GetName())
				}
				if clears := f.configNode.findTrue("clear_route_cache"); clears != nil {
					l.rerouted(m, clears, f.GetName())
				}
				l.setsIdentity(f)
			}
		}
		if i > last {
			l.routesSetIdentity(m, whole)
		}
	}
}

// parts are the filter itself, and those that it runs when a condition is met.
func (f filterAt) parts() []filterAt {
	parts := []filterAt{f}
	switch f.config.(type) {
	case *matchingv3.ExtensionWithMatcher, *compositev3.Composite:
		for _, n := range f.configNode.filtersBelow() {
			parts = append(parts, filterAt{HttpFilter: f.HttpFilter, n: f.n, config: n.again(), configNode: n})
		}
	}
	return parts
}

// filtersBelow returns the settings of HTTP filters below a node.
func (n *node) filtersBelow() []*node {
	var found []*node
	for _, below := range slices.Concat(n.fieldsOf(), n.list()) {
		if below == n {
			continue // list takes one value for a list of one
		}
		if strings.HasPrefix(below.typeName, "envoy.extensions.filters.http.") {
			found = append(found, below)
		}
		found = append(found, below.filtersBelow()...)
	}
	return found
}

// findTrue returns a switch that is on, in or below n; nil for none.
func (n *node) findTrue(name string) *node {
	if n == nil {
		return nil
	}
	if n.name == name && n.isTrue() {
		return n
	}
	for _, below := range slices.Concat(n.fields, n.items) {
		if found := below.findTrue(name); found != nil {
			return found
		}
	}
	return nil
}

// routesSetIdentity looks at what routes have a header_mutation filter after the
// check write.
func (l *linter) routesSetIdentity(m *manager, f filterAt) {
	if _, ok := f.config.(*mutationfilterv3.HeaderMutation); !ok {
		return
	}
	for _, t := range m.tables {
		for _, n := range t.n.find(perRouteMutation) {
			at := n
			for at.parent != nil && at.parent.name != "typed_per_filter_config" {
				at = at.parent
			}
			if own, ok := n.again().(*mutationfilterv3.HeaderMutationPerRoute); ok && at.name == f.GetName() {
				l.writesIdentity(own.GetMutations().GetRequestMutations(), n.at("mutations", "request_mutations"), afterCheck)
			}
		}
	}
}

const (
	perRouteMutation = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"
	afterCheck       = "after the check, whoever the check has found"
)

// writesIdentity reports mutations that write an identity header.
func (l *linter) writesIdentity(mutations []*mutationv3.HeaderMutation, at *node, when string) {
	for i, mutation := range mutations {
		if name := mutation.GetAppend().GetHeader().GetKey(); l.isIdentity(name) {
			l.report(codeIdentitySet, at.item(i), "%s is set here, %s.", name, when)
		}
	}
}

// identityBefore reports identity headers that are written before the check. It
// overwrites them; where it is skipped they stay.
func (l *linter) identityBefore(m *manager) {
	var open *leaf
	for _, one := range m.leaves() {
		if off, _ := one.unchecked(m.checks); off != nil {
			open = &one
			break
		}
	}
	if open == nil {
		return
	}
	when := "before the check, which " + lower(open.what()) + " skips"
	for i, extension := range m.GetEarlyHeaderMutationExtensions() {
		if early, ok := message(extension.GetTypedConfig()).(*earlyv3.HeaderMutation); ok {
			l.writesIdentity(early.GetMutations(), m.n.near("early_header_mutation_extensions").item(i).near("typed_config", "mutations"), when)
		}
	}
	for _, f := range m.filters[:m.checks[0].index] {
		if filter, ok := f.config.(*mutationfilterv3.HeaderMutation); ok {
			l.writesIdentity(filter.GetMutations().GetRequestMutations(), f.configNode.near("mutations", "request_mutations"), when)
		}
	}
}

// upstreamFilters looks at filters that run when a cluster has been chosen.
func (l *linter) upstreamFilters(m *manager) {
	look := func(filters []*hcmv3.HttpFilter, n *node) {
		for _, f := range m.gateway.chain(filters, n) {
			if !f.GetDisabled() {
				l.setsIdentity(f)
			}
		}
	}
	for _, f := range m.filters {
		if router, ok := f.config.(*routerv3.Router); ok {
			look(router.GetUpstreamHttpFilters(), f.configNode.near("upstream_http_filters"))
		}
	}
	seen := map[string]bool{}
	for _, one := range m.leaves() {
		c, ok := m.gateway.clusters[one.cluster]
		if !ok || seen[one.cluster] {
			continue
		}
		seen[one.cluster] = true
		if options, ok := message(c.GetTypedExtensionProtocolOptions()[httpOptions]).(*httpv3.HttpProtocolOptions); ok {
			look(options.GetHttpFilters(), c.n.near("typed_extension_protocol_options", httpOptions, "http_filters"))
		}
	}
}

// setsIdentity looks for identity headers among what a filter after the check
// writes.
func (l *linter) setsIdentity(f filterAt) {
	switch config := f.config.(type) {
	case *mutationfilterv3.HeaderMutation:
		l.writesIdentity(config.GetMutations().GetRequestMutations(), f.configNode.near("mutations", "request_mutations"), afterCheck)
	case *transformv3.TransformConfig:
		l.writesIdentity(config.GetRequestTransformation().GetHeadersMutations(), f.configNode.near("request_transformation", "headers_mutations"), afterCheck)
	case *basicv3.BasicAuth:
		if name := config.GetForwardUsernameHeader(); l.isIdentity(name) {
			l.report(codeIdentitySet, f.configNode.near("forward_username_header"), "%s is set here, after the check, whoever the check has found.", name)
		}
	case *keyv3.ApiKeyAuth:
		if name := config.GetForwarding().GetHeader(); l.isIdentity(name) {
			l.report(codeIdentitySet, f.configNode.near("forwarding", "header"), "%s is set here, after the check, whoever the check has found.", name)
		}
	case *jwtv3.JwtAuthentication:
		for _, name := range sortedKeys(config.GetProviders()) {
			provider, at := config.GetProviders()[name], f.configNode.near("providers", name)
			for i, claim := range provider.GetClaimToHeaders() {
				if l.isIdentity(claim.GetHeaderName()) {
					l.report(codeIdentitySet, at.near("claim_to_headers").item(i), "%s is set here, after the check, from a token that Gatehouse may have refused or replaced.", claim.GetHeaderName())
				}
			}
			if l.isIdentity(provider.GetForwardPayloadHeader()) {
				l.report(codeIdentitySet, at.near("forward_payload_header"), "%s is set here, after the check.", provider.GetForwardPayloadHeader())
			}
		}
	}
}

// upgrades looks for upgrades with filters of their own.
func (l *linter) upgrades(m *manager) {
	for i, u := range m.GetUpgradeConfigs() {
		if len(u.GetFilters()) == 0 {
			continue // those of all requests
		}
		at := m.n.near("upgrade_configs").item(i)
		checks := checksOf(m.gateway.chain(u.GetFilters(), at.at("filters")))
		if len(checks) == 0 {
			l.report(codeUpgrade, at.near("filters"), "Upgrades to %s have filters of their own, and no ext_authz among them.", u.GetUpgradeType())
		}
		l.forgotten(m, checks)
		for _, c := range checks {
			l.check(m, c)
		}
	}
}

// httpSettings looks at how requests are read before they are checked.
func (l *linter) httpSettings(m *manager) {
	common := m.GetCommonHttpProtocolOptions()
	if !m.GetNormalizePath().GetValue() {
		l.report(codeNormalize, m.n.near("normalize_path"), "Paths are not normalised: /a/../b is routed as it is written.")
	}
	if !m.GetMergeSlashes() {
		l.report(codeSlashes, m.n.near("merge_slashes"), "Repeated slashes are not merged: //admin is no /admin for a route, but for many services.")
	}
	switch action := m.GetPathWithEscapedSlashesAction(); action {
	case hcmv3.HttpConnectionManager_REJECT_REQUEST, hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		l.report(codeEscapedSlashes, m.n.near("path_with_escaped_slashes_action"), "Escaped slashes are unescaped and forwarded: a proxy in front, or a log, has seen another path.")
	case hcmv3.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT, hcmv3.HttpConnectionManager_KEEP_UNCHANGED:
		l.report(codeEscapedSlashes, m.n.near("path_with_escaped_slashes_action"), "Escaped slashes are kept: /users%%2fadmin is one segment for a route, and two for many services.")
	}
	if common.GetHeadersWithUnderscoresAction() == corev3.HttpProtocolOptions_ALLOW {
		l.report(codeUnderscores, m.n.near("common_http_protocol_options", "headers_with_underscores_action"), "Headers with underscores get through.")
	}
	if left := m.early().left(l.spellings()); len(left) > 0 {
		l.report(codeNotEarly, m.n.near("early_header_mutation_extensions"), "A client's own %s are still there when the route is chosen and the filters begin.", some(left))
	}
	if left := m.strip.left(l.dotted()); len(left) > 0 {
		l.report(codeDots, m.n.near("early_header_mutation_extensions"), "A client's own %s get through.", some(left))
	}
	strip := m.strip
	for _, t := range m.tables {
		strip = strip.and(t.GetRequestHeadersToRemove())
	}
	if left := strip.left(overrides); len(left) > 0 {
		l.report(codeOverrides, m.n.near("early_header_mutation_extensions"), "A client's own %s get through to the services.", some(left))
	}
	if !m.GetUseRemoteAddress().GetValue() && len(m.GetOriginalIpDetectionExtensions()) == 0 {
		l.report(codeRemoteAddress, m.n.near("use_remote_address"), "The client's address is what its own x-forwarded-for says.")
	}
	for i, extension := range m.GetOriginalIpDetectionExtensions() {
		if custom, ok := message(extension.GetTypedConfig()).(*customv3.CustomHeaderConfig); ok {
			l.report(codeRemoteAddress, m.n.near("original_ip_detection_extensions").item(i), "The client's address is what the header %s says: true only where a proxy in front, and nobody else, can reach this listener and overwrites it.", custom.GetHeaderName())
		}
	}
	switch details := m.GetForwardClientCertDetails(); details {
	case hcmv3.HttpConnectionManager_FORWARD_ONLY, hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY, hcmv3.HttpConnectionManager_APPEND_FORWARD:
		l.report(codeClientCert, m.n.near("forward_client_cert_details"), "%s lets a client's own x-forwarded-client-cert through.", details)
	case hcmv3.HttpConnectionManager_SANITIZE, hcmv3.HttpConnectionManager_SANITIZE_SET:
	}
	if m.GetHttpProtocolOptions().GetAllowChunkedLength() {
		l.report(codeSmuggling, m.n.near("http_protocol_options", "allow_chunked_length"), "Requests with both Content-Length and Transfer-Encoding are accepted.")
	}
	if m.GetHttpProtocolOptions().GetEnableTrailers() {
		l.report(codeTrailers, m.n.near("http_protocol_options", "enable_trailers"), "Trailers of requests get through: they arrive after the check.")
	}
}
