package lint_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/envoy/lint"
)

// variant is a rule broken, or kept, in another way than its fixture does.
type variant struct {
	edits []edit
	want  []string
}

func (v variant) text(t *testing.T) string {
	t.Helper()
	text := base(t, "envoy")
	for _, e := range v.edits {
		require.Equal(t, 1, strings.Count(text, e.old), "%q stands there once", e.old)
		text = strings.Replace(text, e.old, e.text, 1)
	}
	return text
}

const (
	filterConfig = `"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig`
	hostEnd      = "              domains: [\"*\"]\n"
	usersPolicy  = `                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    ` + perRoute + `
                    check_settings: {context_extensions: {policy: user}}
`
	runtimeKey   = "              filter_enabled: {default_value: {numerator: 100, denominator: HUNDRED}, runtime_key: check.enabled}\n"
	admin        = "admin:\n"
	mutation     = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
	setsUser     = `{append: {header: {key: X-User-ID, value: "%REQ(x-u)%"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}`
	secondAlias  = "  - name: users2\n    type: STRICT_DNS\n    load_assignment:\n      cluster_name: users2\n      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost., port_value: 8101}}}}]}]\n"
	aggregate    = `  - {name: all, lb_policy: CLUSTER_PROVIDED, cluster_type: {name: envoy.clusters.aggregate, typed_config: {"@type": type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [users]}}}` + "\n"
	forwardProxy = `  - {name: any, lb_policy: CLUSTER_PROVIDED, cluster_type: {name: envoy.clusters.dynamic_forward_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig, dns_cache_config: {name: dns}}}}` + "\n"
	proxyFilter  = `          - {name: envoy.filters.http.dynamic_forward_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig, dns_cache_config: {name: dns}}}` + "\n"
	internals    = "bootstrap_extensions: [{name: envoy.bootstrap.internal_listener, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener}}]\n"
	innerCluster = "  - name: inner\n    load_assignment:\n      cluster_name: inner\n      endpoints: [{lb_endpoints: [{endpoint: {address: {envoy_internal_address: {server_listener_name: inner}}}}]}]\n"
	address      = "    address: {socket_address: {address: 127.0.0.1, port_value: 8080}}\n"
	connect      = "              - name: tunnel\n                match: {connect_matcher: {}}\n                route: {cluster: users, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}\n"
	condition    = `{"@type": type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher,
              xds_matcher: {on_no_match: {action: {name: skip, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter}}}},
              extension_config: {name: inner, typed_config: {"@type": type.googleapis.com/`
	headerInput = `input: {name: header, typed_config: {"@type": type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: ":path"}}`
	tree        = `              matcher: {matcher_tree: {` + headerInput + `, prefix_match_map: {map: {/users: {action: {name: route, typed_config: {"@type": type.googleapis.com/envoy.config.route.v3.Route, name: hidden, match: {prefix: /}, route: {cluster: users}`
)

// marks has requests checked that an RBAC filter marks: as Istio writes it, all
// but these.
func marks(but string) []edit {
	return []edit{
		{before, filter("rbac", "envoy.extensions.filters.http.rbac.v3.RBAC", `, shadow_rules_stat_prefix: istio_ext_authz_, shadow_rules: {action: DENY, policies: {
              istio-ext-authz-gatehouse: {permissions: [{and_rules: {rules: [{not_rule: {or_rules: {rules: [`+but+`]}}}]}}], principals: [{and_ids: {ids: [{any: true}]}}]}}}`)},
		{grpc, grpc + "              filter_enabled_metadata: {filter: envoy.filters.http.rbac, path: [{key: istio_ext_authz_shadow_effective_policy_id}], value: {string_match: {prefix: istio-ext-authz-gatehouse}}}\n"},
	}
}

// ownRemoval takes the identity headers out on the route auth, and not before.
var ownRemoval = []edit{{identity, ""}, {"              - name: auth\n", "              - name: auth\n                request_headers_to_remove: [x-user-id, x-user-email, x-user-roles, x-org-id]\n"}}

func tunnelTo(cluster string) string {
	return `      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: ` + cluster + "}\n"
}

func innerListener(filters string) string {
	return "  - name: inner\n    internal_listener: {}\n    filter_chains:\n    - filters:\n" + filters
}

func eds(name string) string {
	return "  - {name: " + name + ", type: EDS, eds_cluster_config: {eds_config: {ads: {}}, service_name: users.svc}}\n"
}

var variants = map[string]variant{
	// Envoy's switch doesn't turn on what the one of ext_authz has turned off.
	"a host off, a route on by the other switch": {[]edit{
		{hostEnd, hostEnd + "              typed_per_filter_config: {envoy.filters.http.ext_authz: {" + perRoute + ", disabled: true}}\n"},
		{usersPolicy, "                typed_per_filter_config: {envoy.filters.http.ext_authz: {" + filterConfig + ", config: {}}}\n"},
	}, []string{"GH202", "GH203"}},
	"a host off, a route on by the same switch": {[]edit{
		{hostEnd, hostEnd + "              typed_per_filter_config: {envoy.filters.http.ext_authz: {" + filterConfig + ", disabled: true}}\n"},
		{usersPolicy, "                typed_per_filter_config: {envoy.filters.http.ext_authz: {" + filterConfig + ", config: {}}}\n"},
	}, []string{"GH202"}},
	"off in a runtime layer": {[]edit{
		{grpc, grpc + runtimeKey},
		{admin, "layered_runtime: {layers: [{name: static, static_layer: {check: {enabled: {numerator: 0, denominator: HUNDRED}}}}]}\n" + admin},
	}, []string{"GH104"}},
	"off in a runtime layer, as a number": {[]edit{
		{grpc, grpc + runtimeKey}, {admin, "layered_runtime: {layers: [{name: static, static_layer: {check.enabled: 0}}]}\n" + admin},
	}, []string{"GH104"}},
	"on in a runtime layer": {[]edit{
		{grpc, grpc + strings.Replace(runtimeKey, "numerator: 100", "numerator: 1", 1)}, {admin, "layered_runtime: {layers: [{name: static, static_layer: {check.enabled: 100}}]}\n" + admin},
	}, []string{}},
	"the refusal of the rest is off in a runtime layer": {[]edit{
		{grpc, grpc + strings.Replace(runtimeKey, "numerator: 100", "numerator: 10", 1) + "              deny_at_disable: {default_value: true, runtime_key: check.deny}\n"},
		{admin, "layered_runtime: {layers: [{name: static, static_layer: {check.deny: false}}]}\n" + admin},
	}, []string{"GH104"}},
	"the rest is refused": {[]edit{
		{grpc, grpc + strings.Replace(runtimeKey, "numerator: 100", "numerator: 10", 1) + "              deny_at_disable: {default_value: true, runtime_key: check.deny}\n"},
	}, []string{}},

	"the route again, for some headers of the answer": {[]edit{{"clear_route_cache: false", "clear_route_cache_headers: [x-tier]"}}, []string{"GH127"}},
	"the route again, by another filter":              {[]edit{{after, filter("set_filter_state", "envoy.extensions.filters.http.set_filter_state.v3.Config", `, clear_route_cache: true`)}}, []string{"GH127"}},
	"another filter, before the check":                {[]edit{{before, filter("set_filter_state", "envoy.extensions.filters.http.set_filter_state.v3.Config", `, clear_route_cache: true`)}}, []string{}},

	"a program on a condition, before the check": {[]edit{{before, "          - name: lua\n            typed_config: " + condition + lua + luaCode + "}}}\n"}}, []string{"GH110"}},
	"a program on a condition, after the check":  {[]edit{{after, "          - name: lua\n            typed_config: " + condition + lua + luaCode + "}}}\n"}}, []string{"GH112"}},

	"identity by a route's mutation": {[]edit{
		{after, filter("header_mutation", "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation", "")},
		{usersPolicy, usersPolicy + `                  envoy.filters.http.header_mutation: {"@type": ` + mutation + "PerRoute, mutations: {request_mutations: [" + setsUser + "]}}\n"},
	}, []string{"GH113"}},
	"identity at the door, and a route without a check": {[]edit{{identity, "              - " + setsUser + "\n" + identity}}, []string{"GH113"}},
	"identity by a cluster's filter": {[]edit{{"  - name: users\n    type: STATIC\n", `  - name: users
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http_protocol_options: {}}
        http_filters:
        - {name: envoy.filters.http.header_mutation, typed_config: {"@type": ` + mutation + `, mutations: {request_mutations: [` + setsUser + `]}}}
        - {name: envoy.filters.http.upstream_codec, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec}}
`}}, []string{"GH113"}},

	// A filter takes the identity headers out, but not on the route that skips the
	// check.
	"taken out by a filter, which a route switches off": {[]edit{
		{identity, ""},
		{before, filter("header_mutation", "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation", ", mutations: {request_mutations: [{remove_on_match: {key_matcher: {safe_regex: {regex: \"x[^a-z0-9](user|org)[^a-z0-9].*\"}}}}]}")},
		{skip, skip + "                  envoy.filters.http.header_mutation: {" + filterConfig + ", disabled: true}\n"},
	}, []string{"GH201", "GH305"}},
	"taken out by a filter on every route": {[]edit{
		{identity, ""},
		{before, filter("header_mutation", "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation", ", mutations: {request_mutations: [{remove_on_match: {key_matcher: {safe_regex: {regex: \"x[^a-z0-9](user|org)[^a-z0-9].*\"}}}}]}")},
	}, []string{"GH305"}},
	"taken out by the route's own mutation": {[]edit{
		{identity, ""},
		{before, filter("header_mutation", "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation", "")},
		{skip, skip + `                  envoy.filters.http.header_mutation: {"@type": ` + mutation + `PerRoute, mutations: {request_mutations: [{remove_on_match: {key_matcher: {safe_regex: {regex: "x.(user|org).*"}}}}]}}` + "\n"},
	}, []string{"GH305", "GH311"}},

	// Too late: the route has been chosen.
	"cluster_header, taken out by a filter": {[]edit{
		{usersRoute, strings.Replace(usersRoute, "cluster: users", "cluster_header: x-cluster", 1)},
		{before, filter("header_mutation", "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation", ", mutations: {request_mutations: [{remove: x-cluster}]}")},
	}, []string{"GH212"}},
	"an address, taken out by the route": {[]edit{
		{firstRoute, anywhereRoute + "                request_headers_to_remove: [X-Envoy-Original-Dst-Host]\n" + firstRoute}, {clusters, clusters + anywhere},
	}, []string{}},
	"an address in a header of one's own": {[]edit{
		{firstRoute, anywhereRoute + firstRoute},
		{clusters, clusters + strings.Replace(anywhere, "use_http_header: true", "use_http_header: true, http_header_name: x-to", 1)},
		{identity, identity + "              - remove: x-envoy-original-dst-host\n"},
	}, []string{"GH213"}},
	"a forward proxy": {[]edit{
		{firstRoute, strings.Replace(anywhereRoute, "cluster: anywhere", "cluster: any", 1) + firstRoute}, {clusters, clusters + forwardProxy}, {after, proxyFilter},
	}, []string{"GH213"}},
	"a forward proxy to one host": {[]edit{
		{firstRoute, strings.Replace(anywhereRoute, "cluster: anywhere", "cluster: any, host_rewrite_literal: example.com", 1) + firstRoute}, {clusters, clusters + forwardProxy}, {after, proxyFilter},
	}, []string{}},

	"a rewrite the other way round": {[]edit{
		{adminMatch + "\n                route: {cluster: users}", "match: {path_separated_prefix: /admin, case_sensitive: false}\n                route: {cluster: users, prefix_rewrite: /users/admin}"},
	}, []string{"GH215"}},
	"a rewrite below another service": {[]edit{
		{firstRoute, strings.Replace(rewritten("/"), "cluster: users", "cluster: orders", 1) + firstRoute}, {clusters, clusters + orders},
	}, []string{}},
	"a policy by a parameter": {[]edit{{adminMatch, strings.TrimSuffix(adminMatch, "}") + `, query_parameters: [{name: admin, present_match: true}]}`}}, []string{"GH216"}},
	"a canary with the same policy": {[]edit{{firstRoute, `              - name: canary
                match: {path_separated_prefix: /users/admin, case_sensitive: false, headers: [{name: x-canary, present_match: true}]}
                route: {cluster: users}
                typed_per_filter_config: {envoy.filters.http.ext_authz: {` + perRoute + `, check_settings: {context_extensions: {policy: admin}}}}
` + firstRoute}}, []string{}},
	"parameters of a path are left out": {[]edit{
		{"              - name: refuse-path-parameters\n                match: {safe_regex: {regex: \".*;.*\"}}\n                direct_response: {status: 400}\n", ""},
		{"            name: gateway\n", "            name: gateway\n            ignore_path_parameters_in_path_matching: true\n"},
	}, []string{}},
	"a matcher tree": {[]edit{
		{listeners, "  - name: second\n    address: {socket_address: {address: 127.0.0.1, port_value: 8082}}\n" + secondChain(tree+`, typed_per_filter_config: {envoy.filters.http.ext_authz: {`+perRoute+`, disabled: true}}}}}}}}}`+"\n")},
	}, []string{"GH006", "GH203"}},

	"optional PROXY protocol":  {[]edit{{address, address + `    listener_filters: [{name: envoy.filters.listener.proxy_protocol, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, allow_requests_without_proxy_protocol: true}}]` + "\n"}}, []string{"GH307"}},
	"PROXY protocol":           {[]edit{{address, address + `    listener_filters: [{name: envoy.filters.listener.proxy_protocol, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}]` + "\n"}}, []string{}},
	"an address by any header": {[]edit{{"          use_remote_address: true\n", `          original_ip_detection_extensions: [{name: real-ip, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig, header_name: x-real-ip}}]` + "\n"}}, []string{"GH307"}},

	"another name of the same machine": {[]edit{{listeners, secondListener(tunnelTo("users2"))}, {clusters, clusters + secondAlias}}, []string{"GH401"}},
	"an aggregate of the service":      {[]edit{{listeners, secondListener(tunnelTo("all"))}, {clusters, clusters + aggregate}}, []string{"GH401"}},
	"endpoints of the same service": {[]edit{
		{listeners, secondListener(tunnelTo("users2"))},
		{clusters, clusters + eds("users2")},
		{"  - name: users\n    type: STATIC\n    load_assignment:\n      cluster_name: users\n      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8101}}}}]}]\n", eds("users")},
	}, []string{"GH401"}},
	"an internal listener to the service": {[]edit{
		{admin, internals + admin}, {listeners, secondListener(tunnelTo("inner")) + innerListener(tunnelTo("users"))}, {clusters, clusters + innerCluster},
	}, []string{"GH401"}},
	"an internal listener behind the check": {[]edit{
		{admin, internals + admin},
		{listeners, innerListener(plainManager("route: {cluster: users}"))},
		{clusters, clusters + innerCluster},
		{usersRoute, strings.Replace(usersRoute, "cluster: users", "cluster: inner", 1)},
		{adminMatch + "\n                route: {cluster: users}", adminMatch + "\n                route: {cluster: inner}"},
	}, []string{}},
	"a listener in front of the one that checks": {[]edit{
		{admin, internals + admin},
		{listeners, secondListener(plainManager("route: {cluster: inner}"))},
		{clusters, clusters + innerCluster},
		{"  - name: gateway\n" + address, "  - name: inner\n    internal_listener: {}\n"},
	}, []string{}},

	"where the check is asked": {[]edit{{firstRoute, "              - name: ask\n                match: {prefix: /envoy.service.auth.v3.Authorization/}\n                route: {cluster: gatehouse}\n" + firstRoute}}, []string{"GH403"}},
	"CONNECT":                  {[]edit{{firstRoute, connect + firstRoute}}, []string{"GH404"}},
	"CONNECT, switched off":    {[]edit{{firstRoute, strings.Replace(connect, "connect_config: {}", "enabled: false", 1) + firstRoute}}, []string{}},
	"h2c on one route":         {[]edit{{usersRoute, strings.Replace(usersRoute, "cluster: users", "cluster: users, upgrade_configs: [{upgrade_type: H2C}]", 1)}}, []string{"GH404"}},

	// What Istio marks for the check.
	"marked, but for paths that a route takes the headers out of": {
		append(marks("{url_path: {path: {exact: /auth}}}, {url_path: {path: {prefix: /auth/}}}"), ownRemoval...), []string{"GH305", "GH311"},
	},
	"marked, but for paths of a route that doesn't": {
		append(marks("{url_path: {path: {exact: /auth}}}, {url_path: {path: {prefix: /users/}}}"), ownRemoval...), []string{"GH201", "GH305", "GH311"},
	},
	"marked, but for paths in any case": {marks("{url_path: {path: {exact: /auth, ignore_case: true}}}"), []string{"GH104"}},
	"marked, but for a header":          {marks("{header: {name: x-skip, present_match: true}}"), []string{"GH104"}},
}

// secondChain is a listener's filter chain with the base's check and other routes.
func secondChain(routes string) string {
	return strings.NewReplacer("ALLOWED", allowed, "ROUTER", router).Replace(`    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: second
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: REJECT_REQUEST
          common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}
          use_remote_address: true
          early_header_mutation_extensions:
          - name: envoy.http.early_header_mutation.header_mutation
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
              mutations: [{remove_on_match: {key_matcher: {safe_regex: {regex: "x.*"}}}}]
          http_filters:
          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              status_on_error: {code: ServiceUnavailable}
              validate_mutations: true
              decoder_header_mutation_rules: {disallow_system: true}
              encode_raw_headers: true
              allowed_headers: {ALLOWED}
              grpc_service: {envoy_grpc: {cluster_name: gatehouse}, timeout: 1s}
          - ROUTER
          route_config:
            name: second
            virtual_hosts:
            - name: second
              domains: ["*"]
`) + routes
}

func TestVariants(t *testing.T) {
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			findings := lintText(v.text(t))
			require.Equal(t, v.want, codes(findings), "%+v", findings)
		})
	}
}

// The settings of the filter are elsewhere. Its type may come without a host.
func TestSettingsFromDiscovery(t *testing.T) {
	text := base(t, "envoy")
	head, rest, ok := strings.Cut(text, "          - name: envoy.filters.http.ext_authz\n")
	require.True(t, ok)
	_, tail, ok := strings.Cut(rest, after)
	require.True(t, ok)
	for _, url := range []string{"type.googleapis.com/", ""} {
		findings := lintText(head + `          - name: envoy.filters.http.ext_authz
            config_discovery:
              config_source: {ads: {}}
              type_urls: [` + url + `envoy.extensions.filters.http.ext_authz.v3.ExtAuthz]
` + after + tail)
		require.Equal(t, []string{"GH007"}, codes(findings), "%+v", findings)
	}
}

// Istio takes a mesh configuration in the names of proto fields, too.
func TestMeshConfigurationInSnakeCase(t *testing.T) {
	findings := lint.Lint([]lint.Source{{Name: "mesh.yaml", Data: []byte(`extension_providers:
- name: gatehouse
  envoy_ext_authz_grpc: {service: gatehouse.auth.svc.cluster.local, port: 9001, fail_open: true, timeout: 1s, status_on_error: "503"}
path_normalization: {normalization: MERGE_SLASHES}
`)}}, lint.Options{})
	require.Equal(t, []string{"GH501"}, codes(findings), "%+v", findings)
	require.Equal(t, 3, findings[0].Line)
}

func TestHelmValuesOfAnUmbrellaChart(t *testing.T) {
	findings := lintText(`istiod:
  meshConfig:
    extensionProviders:
    - name: gatehouse
      envoyExtAuthzGrpc: {service: gatehouse.auth.svc.cluster.local, port: 9001, failOpen: true, timeout: 1s, statusOnError: "503"}
    pathNormalization: {normalization: MERGE_SLASHES}
`)
	require.Equal(t, []string{"GH501"}, codes(findings), "%+v", findings)
	require.Equal(t, "istiod.meshConfig.extensionProviders[0].envoyExtAuthzGrpc.failOpen", findings[0].Place)
}
