package lint

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rolev3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// check looks at one ext_authz filter.
func (l *linter) check(m *manager, c check) {
	if c.GetIsOptional() {
		l.report(codeOptional, c.n.near("is_optional"), "An Envoy that lacks ext_authz leaves the check out and says nothing.")
	}
	if c.conditional {
		l.report(codeConditional, c.node, "A matcher decides which requests are checked.")
	}
	if c.settings == nil {
		l.report(codeElsewhere, c.n.near("config_discovery"), "The settings of %s are not in these files.", c.GetName())
		return
	}
	s, n := c.settings, c.node
	if s.GetFailureModeAllow() {
		l.report(codeFailOpen, n.near("failure_mode_allow"), "When the check fails, the request passes.")
	}
	if s.GetShadowMode() {
		l.report(codeShadow, n.near("shadow_mode"), "Refusals are written down, and the request passes.")
	}
	l.partial(m, c)
	if s.GetTransportApiVersion() == corev3.ApiVersion_V2 { //nolint:staticcheck // SA1019: it is why we ask
		l.report(codeTransport, n.near("transport_api_version"), "Envoy speaks V2 no more and refuses the file.")
	}
	if s.GetStatusOnError() == nil || s.GetStatusOnError().GetCode() < 500 {
		status := cmp.Or(int32(s.GetStatusOnError().GetCode()), 403)
		l.report(codeStatusOnError, n.near("status_on_error"), "A check that fails is answered with %d, as if it had been made.", status)
	}
	switch {
	case s.GetClearRouteCache():
		l.rerouted(m, n.near("clear_route_cache"), "the check")
	case len(s.GetClearRouteCacheHeaders()) > 0:
		l.rerouted(m, n.near("clear_route_cache_headers"), "the check, when the answer has one of these headers")
	}
	if body := s.GetWithRequestBody(); body != nil {
		l.report(codeBody, n.near("with_request_body"), "Envoy holds up to %d bytes of each request's body until the check is done; Gatehouse doesn't look at it.", body.GetMaxRequestBytes())
	}
	if !s.GetValidateMutations() {
		l.report(codeValidate, n.near("validate_mutations"), "Envoy takes headers of the answer as they are, valid or not.")
	}
	l.mutationRules(s, n)
	l.allowedHeaders(m, s, n)
	if !s.GetEncodeRawHeaders() {
		l.report(codeRawHeaders, n.near("encode_raw_headers"), "Repeated headers are joined, and bytes that are not UTF-8 replaced, before the check sees them.")
	}
	l.perRouteServices(m, c)

	switch service := s.GetServices().(type) {
	case *extauthzv3.ExtAuthz_GrpcService:
		l.asks(m.gateway, service.GrpcService, n.near("grpc_service"))
	case *extauthzv3.ExtAuthz_HttpService:
		l.httpService(m, service.HttpService, n.near("http_service"))
	default:
		l.report(codeNobody, n, "Neither grpc_service nor http_service says who is asked; Envoy takes that, and crashes at the first request.")
	}
}

// forgotten reports routes that don't switch on a check that is off where no
// route does so, as with the control planes that switch it on for every single
// route. A route that takes the identity headers out itself has not forgotten it.
func (l *linter) forgotten(m *manager, checks []check) {
	if !slices.ContainsFunc(checks, func(c check) bool { return c.GetDisabled() }) {
		return
	}
	own := stripper{underscores: m.early().underscores}
	for _, one := range m.leaves() {
		if off, offLevel := one.unchecked(checks); off == nil || offLevel >= 0 || len(one.strip(own).left(l.spellings())) == 0 {
			continue
		}
		l.report(codeFilterDisabled, one.n, "The check is off where a route doesn't switch it on, and %s doesn't.", lower(one.what()))
	}
}

// rerouted reports that the route is chosen again.
func (l *linter) rerouted(m *manager, n *node, after string) {
	if at := readsHeaders(m); at != nil {
		l.report(codeReroutedByHeader, n, "The route is chosen again after %s, and %s is chosen by what a request's headers or metadata say.", after, nameOf(at, "a route"))
		return
	}
	l.report(codeClearRouteCache, n, "The route is chosen again after %s.", after)
}

// partial looks for requests that the filter lets through unasked.
func (l *linter) partial(m *manager, c check) {
	s, n := c.settings, c.node
	deny, _ := m.gateway.runtime.on(s.GetDenyAtDisable())
	if deny {
		return
	}
	if enabled := s.GetFilterEnabled(); enabled != nil {
		switch part, whole, layer := m.gateway.runtime.share(enabled); {
		case part >= whole:
		case layer != nil:
			l.report(codePartial, layer, "Only %d of %d requests are checked, whatever filter_enabled says: this is its runtime key.", part, whole)
		default:
			l.report(codePartial, n.near("filter_enabled"), "Only %d of %d requests are checked.", part, whole)
		}
	}
	if s.GetFilterEnabledMetadata() == nil || m.allMarked(c) {
		return
	}
	if left := m.unmarked(c); len(left) > 0 && len(m.missing) == 0 {
		l.unmarkedRoutes(m, left)
	} else {
		l.report(codePartial, n.near("filter_enabled_metadata"), "Only requests with certain metadata are checked.")
	}
}

// allMarked reports whether an RBAC filter before the check marks every request
// for it: that is how Istio does what an AuthorizationPolicy says.
func (m *manager) allMarked(c check) bool {
	for _, f := range m.filters[:min(c.index, len(m.filters))] {
		rbac, ok := f.config.(*rbacv3.RBAC)
		if !ok || f.GetDisabled() || c.settings.GetFilterEnabledMetadata().GetFilter() != "envoy.filters.http.rbac" {
			continue
		}
		for _, policy := range rbac.GetShadowRules().GetPolicies() {
			if slices.ContainsFunc(policy.GetPermissions(), anyPermission) && slices.ContainsFunc(policy.GetPrincipals(), anyPrincipal) &&
				policy.GetCondition() == nil {
				return true
			}
		}
	}
	return false
}

// unmarked returns the paths that such an RBAC filter leaves out, if it leaves
// out nothing else: that is how Istio does what notPaths say.
func (m *manager) unmarked(c check) []paths {
	for _, f := range m.filters[:min(c.index, len(m.filters))] {
		rbac, ok := f.config.(*rbacv3.RBAC)
		if !ok || f.GetDisabled() || c.settings.GetFilterEnabledMetadata().GetFilter() != "envoy.filters.http.rbac" {
			continue
		}
		for _, name := range sortedKeys(rbac.GetShadowRules().GetPolicies()) {
			policy := rbac.GetShadowRules().GetPolicies()[name]
			if !slices.ContainsFunc(policy.GetPrincipals(), anyPrincipal) || policy.GetCondition() != nil {
				continue
			}
			for _, p := range policy.GetPermissions() {
				if left := pathsWithout(p); len(left) > 0 {
					return left
				}
			}
		}
	}
	return nil
}

// pathsWithout returns the paths for which a permission doesn't hold, nil when it
// asks for something else, too.
func pathsWithout(p *rolev3.Permission) []paths {
	if and := p.GetAndRules().GetRules(); len(and) == 1 {
		return pathsWithout(and[0])
	}
	not := []*rolev3.Permission{p.GetNotRule()}
	if or := p.GetNotRule().GetOrRules().GetRules(); len(or) > 0 {
		not = or
	}
	var out []paths
	for _, one := range not {
		matcher := one.GetUrlPath().GetPath()
		switch {
		case matcher.GetIgnoreCase():
			return nil
		case matcher.GetExact() != "":
			out = append(out, paths{onePath, matcher.GetExact()})
		case matcher.GetPrefix() != "":
			out = append(out, paths{pathsBelow, matcher.GetPrefix()})
		case matcher.GetSuffix() != "":
			out = append(out, paths{pathsAbove, matcher.GetSuffix()})
		default:
			return nil
		}
	}
	return out
}

// unmarkedRoutes reports routes that take unchecked paths and leave identity
// headers in.
func (l *linter) unmarkedRoutes(m *manager, left []paths) {
	strip := m.strips()
	for _, t := range m.tables {
		for _, leaves := range t.hosts() {
			for _, p := range left {
				for i, one := range leaves {
					if !p.meets(one.match) {
						continue
					}
					if names := one.strip(strip.on(one)).left(l.spellings()); !one.answers && len(names) > 0 {
						l.report(codeIdentityLeft, one.n, "%s takes %s, which is not checked, and leaves a client's own %s in the request.", one.what(), p, some(names))
					}
					last := i+1 == len(leaves) || leaves[i+1].index != one.index // of the weighted clusters
					if last && !one.match.conditional && p.within(one.match) {
						break
					}
				}
			}
		}
	}
}

func anyPermission(p *rolev3.Permission) bool {
	if and := p.GetAndRules().GetRules(); len(and) > 0 {
		return !slices.ContainsFunc(and, func(one *rolev3.Permission) bool { return !anyPermission(one) })
	}
	return p.GetAny() || slices.ContainsFunc(p.GetOrRules().GetRules(), anyPermission)
}

func anyPrincipal(p *rolev3.Principal) bool {
	if and := p.GetAndIds().GetIds(); len(and) > 0 {
		return !slices.ContainsFunc(and, func(one *rolev3.Principal) bool { return !anyPrincipal(one) })
	}
	return p.GetAny() || slices.ContainsFunc(p.GetOrIds().GetIds(), anyPrincipal)
}

func denominator(d typev3.FractionalPercent_DenominatorType) uint64 {
	switch d {
	case typev3.FractionalPercent_TEN_THOUSAND:
		return 10_000
	case typev3.FractionalPercent_MILLION:
		return 1_000_000
	case typev3.FractionalPercent_HUNDRED:
	}
	return 100
}

// readsHeaders returns a route that is chosen by more than path and host, nil
// when there is none.
func readsHeaders(m *manager) *node {
	for _, t := range m.tables {
		for _, leaves := range t.hosts() {
			for _, one := range leaves {
				match := one.route.GetMatch()
				if len(match.GetHeaders()) > 0 || len(match.GetDynamicMetadata()) > 0 || len(match.GetFilterState()) > 0 || one.route.GetRoute().GetClusterHeader() != "" {
					return one.routeNode()
				}
			}
		}
	}
	return nil
}

// mutationRules looks at what the answer may do to the request.
func (l *linter) mutationRules(s *extauthzv3.ExtAuthz, n *node) {
	rules, at := s.GetDecoderHeaderMutationRules(), n.near("decoder_header_mutation_rules")
	switch {
	case rules == nil:
		l.report(codeMutationRules, at, "The answer may change every header, method, path and host included.")
	case rules.GetAllowAllRouting().GetValue():
		l.report(codeMutationRules, at.near("allow_all_routing"), "The answer may change the host for which the route was chosen.")
	case !rules.GetDisallowSystem().GetValue() && !rules.GetDisallowAll().GetValue():
		l.report(codeMutationRules, at.near("disallow_system"), "The answer may change method and path.")
	}
}

// allowedHeaders looks at what Gatehouse gets to see.
func (l *linter) allowedHeaders(m *manager, s *extauthzv3.ExtAuthz, n *node) {
	allowed, at := s.GetAllowedHeaders(), n.near("allowed_headers")
	sees := func(header string) bool {
		if matchesAny(s.GetDisallowedHeaders(), header) {
			return false
		}
		if allowed == nil {
			return s.GetHttpService() == nil || header == "authorization"
		}
		return matchesAny(allowed, header) || s.GetHttpService() != nil && header == "authorization"
	}
	if old := s.GetHttpService().GetAuthorizationRequest().GetAllowedHeaders(); allowed == nil && old != nil { //nolint:staticcheck // SA1019: still in use in files
		allowed, at = old, n.near("http_service", "authorization_request", "allowed_headers")
	}
	if allowed == nil && s.GetHttpService() == nil && s.GetDisallowedHeaders() == nil {
		l.report(codeAllHeaders, at, "All headers of a request go to the check.")
		return
	}
	l.hidden(at, sees, takesWebSockets(m), codeHiddenCredential, codeHiddenCrossSite)
}

func takesWebSockets(m *manager) bool {
	for _, u := range m.GetUpgradeConfigs() {
		if strings.EqualFold(u.GetUpgradeType(), "websocket") {
			return true
		}
	}
	return false
}

// credentialHeaders are the headers in which credentials come, by kind.
var credentialHeaders = []struct {
	kind   authz.Kind
	header string
}{
	{authz.KindSession, "cookie"},
	{authz.KindBearer, "authorization"},
	{authz.KindAPIKey, authz.HeaderAPIKey},
}

// hidden reports credentials that Gatehouse doesn't get to see, and when it
// can't tell whether another site sent the request. A web socket opens with a
// GET, which is harmless by itself.
func (l *linter) hidden(at *node, sees func(header string) bool, webSockets bool, credential, crossSite string) {
	var headers []string
	session := false
	for _, c := range credentialHeaders {
		if known := l.options.Gatehouse; known != nil && !slices.Contains(known.Kinds, c.kind) {
			continue
		}
		if !sees(c.header) {
			headers = append(headers, c.header)
		} else if c.kind == authz.KindSession {
			session = true
		}
	}
	if len(headers) > 0 {
		l.report(credential, at, "Gatehouse doesn't see %s, so nobody can show such a credential.", some(headers))
	}
	switch {
	case !session:
	case !sees("origin") && !sees("sec-fetch-site"):
		l.report(crossSite, at, "Gatehouse sees neither origin nor sec-fetch-site, and takes every request for one that no browser sent.")
	case webSockets && !sees("upgrade"):
		l.report(crossSite, at, "Gatehouse doesn't see upgrade, and takes the opening of a web socket for a harmless GET.")
	}
}

// perRouteServices reports routes that ask somebody else.
func (l *linter) perRouteServices(m *manager, c check) {
	for _, one := range m.leaves() {
		for _, at := range one.levels {
			n := at.n.at("typed_per_filter_config", c.name())
			for _, settings := range n.find(extAuthzInUse) {
				if other := settings.at("check_settings").either("grpc_service", "http_service"); other != nil {
					l.report(codeOtherServer, other, "This route asks another server than the filter does.")
				}
				if body := settings.at("check_settings", "with_request_body"); body != nil {
					l.report(codeBody, body, "For this route Envoy holds bodies until the check is done; Gatehouse doesn't look at them.")
				}
			}
		}
	}
}

// asks looks at the way to Gatehouse over gRPC.
func (l *linter) asks(g *gateway, s *corev3.GrpcService, n *node) {
	l.checkTimeout(s.GetTimeout(), n.near("timeout"), "200 ms")
	switch target := s.GetTargetSpecifier().(type) {
	case *corev3.GrpcService_EnvoyGrpc_:
		at := n.near("envoy_grpc", "cluster_name")
		c, ok := l.checkCluster(g, target.EnvoyGrpc.GetClusterName(), at)
		if ok && !speaksHTTP2(c) {
			l.report(codeHTTP1, c.n, "The cluster speaks HTTP/1.1, gRPC needs HTTP/2: every check fails.")
		}
	case *corev3.GrpcService_GoogleGrpc_:
		google, at := target.GoogleGrpc, n.near("google_grpc")
		uri := google.GetTargetUri()
		creds := google.GetChannelCredentials()
		if strings.HasPrefix(uri, "unix:") || creds.GetSslCredentials() != nil || creds.GetGoogleDefault() != nil {
			return
		}
		host := uri[strings.LastIndexByte(uri, '/')+1:]
		if i := strings.LastIndexByte(host, ':'); i >= 0 {
			host = host[:i]
		}
		l.plaintext(at.near("target_uri"), strings.Trim(host, "[]"))
	default:
		l.report(codeNobody, n, "Neither envoy_grpc nor google_grpc says who is asked.")
	}
}

const longestCheck = 5 * time.Second

func (l *linter) checkTimeout(d *durationpb.Duration, at *node, otherwise string) {
	switch {
	case d == nil:
		l.report(codeTimeout, at, "No timeout is given for the check; it is %s.", otherwise)
	case d.AsDuration() <= 0:
		l.report(codeTimeout, at, "The check may take forever.")
	case d.AsDuration() > longestCheck:
		l.report(codeTimeout, at, "The check may take %s, and a request waits for it all the time.", d.AsDuration())
	}
}

// checkCluster looks at the cluster that leads to Gatehouse. ok is false when
// it isn't here.
func (l *linter) checkCluster(g *gateway, name string, at *node) (c clusterAt, ok bool) {
	c, ok = g.clusters[name]
	switch {
	case !ok && g.allClusters:
		l.report(codeNobody, at, "There is no cluster %q, so every check fails.", name)
		return c, false
	case !ok:
		l.report(codeElsewhere, at, "The cluster %q is not in these files; whether the way to Gatehouse is safe is not known.", name)
		return c, false
	}
	if l.tls(c) {
		return c, true
	}
	if len(c.GetLoadAssignment().GetEndpoints()) == 0 {
		l.report(codePlaintext, c.n, "The check goes in plain text to endpoints that are not in these files.")
	} else if hosts := c.remoteHosts(); len(hosts) > 0 {
		l.plaintext(c.n, hosts[0])
	}
	return c, true
}

// remoteHosts returns the endpoints that are not on this machine.
func (c clusterAt) remoteHosts() []string {
	var out []string
	for _, group := range c.GetLoadAssignment().GetEndpoints() {
		for _, endpoint := range group.GetLbEndpoints() {
			if a := endpoint.GetEndpoint().GetAddress().GetSocketAddress(); a != nil && !isLoopback(a.GetAddress()) {
				out = append(out, a.GetAddress())
			}
		}
	}
	return out
}

// plaintext reports a way to Gatehouse without TLS. A name without a dot is one
// of a container network, which may or may not end at this machine.
func (l *linter) plaintext(at *node, host string) {
	switch {
	case isLoopback(host):
	case !strings.ContainsAny(host, ".:"):
		l.report(codeContainerNetwork, at, "The check goes to %s in plain text. That is fine in a network of containers on one machine, and nowhere else.", host)
	default:
		l.report(codePlaintext, at, "The check goes to %s in plain text.", host)
	}
}

// unusedSocket is the name of what Envoy Gateway gives clusters of which each
// endpoint names its own.
const unusedSocket = "dummy.transport_socket"

// tls reports whether a cluster uses TLS, and what its certificates are worth.
func (l *linter) tls(c clusterAt) bool {
	type socket struct {
		m  *corev3.TransportSocket
		at *node
	}
	sockets := []socket{{c.GetTransportSocket(), c.n.at("transport_socket")}}
	for i, match := range c.GetTransportSocketMatches() {
		sockets = append(sockets, socket{match.GetTransportSocket(), c.n.near("transport_socket_matches").item(i).at("transport_socket")})
	}
	secure := false
	for _, s := range sockets {
		if s.m == nil || s.m.GetName() == unusedSocket && len(c.GetTransportSocketMatches()) > 0 {
			continue
		}
		switch settings := message(s.m.GetTypedConfig()).(type) {
		case *tlsv3.UpstreamTlsContext:
			secure = true
			l.upstreamTLS(settings, c, s.at.near("typed_config"))
		case *proxyv3.ProxyProtocolUpstreamTransport:
			inner, ok := message(settings.GetTransportSocket().GetTypedConfig()).(*tlsv3.UpstreamTlsContext)
			if ok {
				secure = true
				l.upstreamTLS(inner, c, s.at.near("typed_config", "transport_socket", "typed_config"))
			}
		case *rawv3.RawBuffer:
		default:
			secure = true // one that we don't know: said elsewhere
		}
	}
	return secure
}

func (l *linter) upstreamTLS(s *tlsv3.UpstreamTlsContext, c clusterAt, n *node) {
	common, at := s.GetCommonTlsContext(), n.near("common_tls_context")
	validation := common.GetValidationContext()
	if combined := common.GetCombinedValidationContext(); combined != nil {
		validation = combined.GetDefaultValidationContext()
		if combined.GetValidationContextSdsSecretConfig() != nil && validation == nil {
			return // it comes from elsewhere, as a whole
		}
		if combined.GetValidationContextSdsSecretConfig() != nil {
			l.upstreamNames(s, validation, c, at)
			return
		}
	} else if common.GetValidationContextSdsSecretConfig() != nil {
		return
	}
	trusts := validation.GetTrustedCa() != nil || validation.GetSystemRootCerts() != nil || validation.GetCaCertificateProviderInstance() != nil ||
		len(validation.GetVerifyCertificateHash()) > 0 || len(validation.GetVerifyCertificateSpki()) > 0 || validation.GetCustomValidatorConfig() != nil
	if !trusts || validation.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED {
		l.report(codeNoCA, at, "Envoy takes any certificate for Gatehouse's.")
		return
	}
	if len(validation.GetVerifyCertificateHash())+len(validation.GetVerifyCertificateSpki()) == 0 && validation.GetCustomValidatorConfig() == nil {
		l.upstreamNames(s, validation, c, at)
	}
}

// upstreamNames looks whether the name in the certificate counts.
func (l *linter) upstreamNames(s *tlsv3.UpstreamTlsContext, validation *tlsv3.CertificateValidationContext, c clusterAt, at *node) {
	options, _ := message(c.GetTypedExtensionProtocolOptions()[httpOptions]).(*httpv3.HttpProtocolOptions)
	if len(validation.GetMatchTypedSubjectAltNames()) == 0 && len(validation.GetMatchSubjectAltNames()) == 0 && //nolint:staticcheck // SA1019: still in use in files
		!s.GetAutoSniSanValidation() && !options.GetUpstreamHttpProtocolOptions().GetAutoSanValidation() {
		l.report(codeNoSAN, at, "Whoever has any certificate of this authority can answer in Gatehouse's place.")
	}
}

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// speaksHTTP2 reports whether gRPC gets through to a cluster.
func speaksHTTP2(c clusterAt) bool {
	if c.GetHttp2ProtocolOptions() != nil { //nolint:staticcheck // SA1019: still in use in files
		return true
	}
	a := c.GetTypedExtensionProtocolOptions()[httpOptions]
	if a == nil {
		return false
	}
	options, ok := message(a).(*httpv3.HttpProtocolOptions)
	if !ok {
		return true // it could not be read, and that is said elsewhere
	}
	switch how := options.GetUpstreamProtocolOptions().(type) {
	case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_:
		return how.ExplicitHttpConfig.GetHttp2ProtocolOptions() != nil || how.ExplicitHttpConfig.GetHttp3ProtocolOptions() != nil
	case *httpv3.HttpProtocolOptions_AutoConfig:
		return true // agreed on by ALPN
	}
	return false
}

// httpService looks at the way to Gatehouse over HTTP.
func (l *linter) httpService(m *manager, s *extauthzv3.HttpService, n *node) {
	l.report(codeHTTPService, n, "The check goes over HTTP.")
	l.checkTimeout(s.GetServerUri().GetTimeout(), n.near("server_uri", "timeout"), "none")
	l.checkCluster(m.gateway, s.GetServerUri().GetCluster(), n.near("server_uri", "cluster"))
	l.upstreamHeaders(n.near("authorization_response", "allowed_upstream_headers"), codeHTTPIdentity, func(header string) bool {
		return matchesAny(s.GetAuthorizationResponse().GetAllowedUpstreamHeaders(), header)
	})
}

// upstreamHeaders reports identity headers that don't make it from the answer
// into the request.
func (l *linter) upstreamHeaders(at *node, code string, passes func(header string) bool) {
	var lost []string
	for _, name := range l.identityNames() {
		if !passes(name) {
			lost = append(lost, name)
		}
	}
	if len(lost) > 0 {
		l.report(code, at, "%s of the answer is not taken over, so the service gets the client's own.", some(lost))
	}
}
