package lint_test

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/envoy/lint"
)

//go:generate go test -count=1 -run Fresh . -args -update

var update = flag.Bool("update", false, "write testdata, and the table in docs/envoy-lint.md")

// A fixture says what the files of a rule, testdata/CODE.bad.yaml and
// CODE.good.yaml, change in a base that is clean. So a new rule that asks for one
// more setting changes the base, not each of the files.
type fixture struct {
	base    string   // in testdata/base; "" for envoy
	bad     []edit   // what turns the base into a file that breaks the rule
	good    []edit   // the same done well; none where the base shows it
	also    []string // rules that the bad file can't help breaking
	refused bool     // Envoy refuses the bad file
	options lint.Options
}

// An edit puts a text in the place of another one, which stands there once.
type edit struct{ old, text string }

func (f fixture) files(t *testing.T, code string) map[string][]byte {
	t.Helper()
	base := f.base
	if base == "" {
		base = "envoy"
	}
	text, err := os.ReadFile(filepath.Join("testdata", "base", base+".yaml"))
	require.NoError(t, err)
	out := map[string][]byte{}
	for kind, edits := range map[string][]edit{"bad": f.bad, "good": f.good} {
		_, rest, _ := strings.Cut(string(text), "\n") // the comment that says that it is the base
		for _, e := range edits {
			require.Equal(t, 1, strings.Count(rest, e.old), "%s: %q stands there once", code, e.old)
			rest = strings.Replace(rest, e.old, e.text, 1)
		}
		out[code+"."+kind+".yaml"] = []byte("# Code generated from base/" + base + ".yaml by fixtures_test.go; DO NOT EDIT.\n" + rest)
	}
	return out
}

func TestFixturesAreFresh(t *testing.T) {
	want := map[string][]byte{}
	for code, f := range fixtures {
		maps.Copy(want, f.files(t, code))
	}
	there, err := filepath.Glob("testdata/GH*.yaml")
	require.NoError(t, err)
	for _, path := range there {
		if _, ok := want[filepath.Base(path)]; !ok && *update {
			require.NoError(t, os.Remove(path))
		} else {
			require.True(t, ok, "%s belongs to no rule: run 'make generate'", path)
		}
	}
	for name, text := range want {
		path := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.WriteFile(path, text, 0o600))
		}
		is, err := os.ReadFile(path)
		require.NoError(t, err, "run 'make generate'")
		require.True(t, bytes.Equal(text, is), "%s: run 'make generate'", path)
	}
}

// Places at which fixtures change the base.
const (
	managerEnd = "          stat_prefix: gateway\n"
	before     = "          # before\n"
	after      = "          # after\n"
	listeners  = "  # more listeners\n"
	clusters   = "  clusters:\n"
	firstRoute = "              - name: auth\n"

	skip = `                typed_per_filter_config:
                  envoy.filters.http.ext_authz: {"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true}
`
	perRoute = `"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute`
	router   = `{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}`
	grpc     = `              grpc_service: {envoy_grpc: {cluster_name: gatehouse}, timeout: 1s}
`
	checkEndpoint = "address: 127.0.0.1, port_value: 9001"
	allowed       = "patterns: [{exact: cookie}, {exact: authorization}, {exact: x-internal-api-key}, {exact: origin}, {prefix: sec-fetch-}, {exact: upgrade}]"
	adminMatch    = "match: {path_separated_prefix: /users/admin, case_sensitive: false}"
	identity      = `              - remove_on_match: {key_matcher: {safe_regex: {regex: "x[^a-z0-9](user[^a-z0-9](id|email|roles)|org[^a-z0-9]id)"}}}
`
	overrides = `              - remove_on_match: {key_matcher: {safe_regex: {regex: "x-http-method(-override)?|x-method-override|x-(original|rewrite)-ur[il]"}}}
`
	usersRoute = `                match: {path_separated_prefix: /users}
                route: {cluster: users}
`
	istioGRPC = `      envoyExtAuthzGrpc:
        service: gatehouse.auth.svc.cluster.local
        port: 9001
        failOpen: false
`
	istioHTTP = `      envoyExtAuthzHttp:
        service: gatehouse.auth.svc.cluster.local
        port: 8081
        pathPrefix: /check
        includeRequestHeadersInCheck: [cookie, authorization, x-internal-api-key, origin, sec-fetch-*, upgrade]
        headersToUpstreamOnAllow: [x-user-id, x-user-email, x-user-roles, x-org-id]
`
	egGRPC    = "    grpc: {backendRefs: [{name: gatehouse, port: 9001}]}\n"
	egHTTP    = "    http: {path: /check, backendRefs: [{name: gatehouse, port: 8081}], headersToBackend: [x-user-id, x-user-email, x-user-roles, x-org-id]}\n"
	egHeaders = "headersToExtAuth: [cookie, authorization, x-internal-api-key, origin, sec-fetch-site, upgrade]"
	egLast    = "  headers: {withUnderscoresAction: RejectRequest}\n"
	egTarget  = "  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: eg}]\n  extAuth:"
)

var filterOff = edit{"          - name: envoy.filters.http.ext_authz\n", "          - name: envoy.filters.http.ext_authz\n            disabled: true\n"}

// header is an entry of request_headers_to_add.
func header(name string) string {
	return `{header: {key: ` + name + `, value: "%REQ(x-user)%"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}`
}

func filter(name, typeName, settings string) string {
	return "          - name: envoy.filters.http." + name + "\n            typed_config: {\"@type\": type.googleapis.com/" + typeName + settings + "}\n"
}

func tls(validation string) string {
	return `    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: gatehouse
        common_tls_context: {` + validation + `}
`
}

const gatehouseCluster = "  - name: gatehouse\n    type: STATIC\n"

// secondListener is another way in, without a check.
func secondListener(filters string) string {
	return `  - name: second
    address: {socket_address: {address: 127.0.0.1, port_value: 8082}}
    filter_chains:
    - filters:
` + filters
}

func plainManager(route string) string {
	return `      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: second
          http_filters: [` + router + `]
          route_config: {virtual_hosts: [{name: second, domains: ["*"], routes: [{match: {prefix: /}, ` + route + `}]}]}
`
}

// transcoder makes gRPC of JSON, method and path included.
var transcoder = filter("grpc_json_transcoder", "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder", `, proto_descriptor_bin: ""`)

const (
	lua     = "envoy.extensions.filters.http.lua.v3.Lua"
	luaCode = `, default_source_code: {inline_string: "function envoy_on_request(h) end"}`
	cache   = `, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.cache.simple_http_cache.v3.SimpleHttpCacheConfig}`

	metrics = `  - name: metrics
    type: STATIC
    load_assignment:
      cluster_name: metrics
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}}]}]
`
	orders = `  - name: orders
    type: STATIC
    load_assignment:
      cluster_name: orders
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8102}}}}]}]
`
	trusted = "validation_context: {trusted_ca: {filename: ca.crt}"
	names   = "match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: gatehouse}}]"

	allIdentity = "{prefix: x-user-}, {exact: x-org-id}"
)

func httpService(upstream string) string {
	return `              http_service:
                server_uri: {uri: "http://127.0.0.1:8081", cluster: gatehouse_http, timeout: 1s}
                path_prefix: /check
                authorization_response: {allowed_upstream_headers: {patterns: [` + upstream + `]}}
`
}

// anywhere is a cluster that goes where the client says.
const (
	anywhere      = "  - {name: anywhere, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {use_http_header: true}}\n"
	anywhereRoute = "              - name: anywhere\n                match: {path_separated_prefix: /anywhere}\n                route: {cluster: anywhere}\n"
)

// rewritten is a public route, which the service sees below another path.
func rewritten(to string) string {
	return "              - name: public\n                match: {path_separated_prefix: /public}\n                route: {cluster: users, prefix_rewrite: " + to + "}\n" +
		"                typed_per_filter_config: {envoy.filters.http.ext_authz: {" + perRoute + ", check_settings: {context_extensions: {policy: public}}}}\n"
}

// corsPolicy is a policy of its own for one route.
func corsPolicy(more string) string {
	return `---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: orders}
spec:
` + more + `  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: orders}]
  cors: {allowOrigins: ["https://shop.example.com"]}
`
}

// uncheckedRoute is one on purpose.
const uncheckedRoute = `---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: auth}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: auth}]
  authorization: {defaultAction: Allow}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: auth}
spec:
  parentRefs: [{name: eg}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /auth}}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-user-id, x-user-email, x-user-roles, x-org-id]}}]
    backendRefs: [{name: gatehouse, port: 8081}]
`

// leavesOut has the proxies refuse headers with underscores.
var leavesOut = edit{"    extensionProviders:\n", "    defaultConfig: {connectionSettings: {profile: EDGE}}\n    extensionProviders:\n"}

const leftOut = `  rules: [{to: [{operation: {notPaths: [/auth, /auth/*]}}]}]
`

// virtualService is what takes the paths that are left out.
func virtualService(remove string) string {
	return leftOut + `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: public, namespace: istio-system}
spec:
  hosts: [gateway.example.com]
  gateways: [public]
  http:
  - name: auth
    match: [{uri: {exact: /auth}}, {uri: {prefix: /auth/}}]
    headers: {request: {remove: [` + remove + `]}}
    route: [{destination: {host: gatehouse.auth.svc.cluster.local, port: {number: 8081}}}]
  - name: rest
    route: [{destination: {host: shop.shop.svc.cluster.local}}]
`
}

func gatehouse(g lint.Gatehouse) lint.Options { return lint.Options{Gatehouse: &g} }

var fixtures = map[string]fixture{
	// ---- The file.
	"GH001": {refused: true, bad: []edit{{"merge_slashes: true", "merge_slashes: [true"}}},
	"GH002": {base: "istio", bad: []edit{
		{"kind: ConfigMap", "kind: Secret"}, {"kind: AuthorizationPolicy", "kind: RequestAuthentication"},
	}},
	"GH003": {
		refused: true,
		bad:     []edit{{managerEnd, managerEnd + "          strip_trailing_host_dots: true\n"}},
		good:    []edit{{managerEnd, managerEnd + "          strip_trailing_host_dot: true\n"}},
	},
	"GH004": {
		refused: true,
		bad:     []edit{{managerEnd, managerEnd + "          request_timeout: 60\n"}},
		good:    []edit{{managerEnd, managerEnd + "          request_timeout: 60s\n"}},
	},
	"GH005": {
		bad:  []edit{{"failure_mode_allow: false", "failure_mode_allow: true\n              failure_mode_allow: false"}},
		good: nil,
	},
	"GH006": {base: "istio", bad: []edit{{"apiVersion: security.istio.io/v1", `apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: more, namespace: istio-system}
spec: {configPatches: []}
---
apiVersion: security.istio.io/v1`}}},
	"GH007": {base: "istio", bad: []edit{{"kind: ConfigMap", "kind: Secret"}}},
	"GH008": {
		refused: true,
		bad:     []edit{{"  - name: users\n    type: STATIC\n", "  - name: users\n    <<: {type: STATIC}\n"}},
	},

	// ---- The check.
	"GH101": {bad: []edit{{"failure_mode_allow: false", "failure_mode_allow: yes # a bool, for Envoy too"}}},
	"GH102": {
		bad: []edit{{listeners, secondListener(plainManager("route: {cluster: orders}"))}, {clusters, clusters + orders}},
		// Nothing but the way to TLS.
		good: []edit{{listeners, secondListener(plainManager("redirect: {https_redirect: true}"))}},
	},
	"GH103": {
		bad: []edit{filterOff, {firstRoute, `              - name: orders
                match: {path_separated_prefix: /orders}
                route: {cluster: gatehouse_http}
` + firstRoute}},
		good: []edit{filterOff}, // every route says what it wants
	},
	"GH104": {
		bad:  []edit{{grpc, grpc + "              filter_enabled: {default_value: {numerator: 99, denominator: HUNDRED}}\n"}},
		good: []edit{{grpc, grpc + "              filter_enabled: {default_value: {numerator: 1000000, denominator: MILLION}}\n"}},
	},
	"GH105": {bad: []edit{{grpc, grpc + "              shadow_mode: true\n"}}},
	"GH106": {
		bad: []edit{
			{`            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
`, `            typed_config:
              "@type": type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher
              xds_matcher:
                matcher_tree:
                  input: {name: header, typed_config: {"@type": type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: x-skip}}
                  exact_match_map: {map: {"yes": {action: {name: skip, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter}}}}}
              extension_config:
               name: envoy.filters.http.ext_authz
               typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
`},
			{"              transport_api_version: V3\n", "                transport_api_version: V3\n"},
			{"              failure_mode_allow: false\n", "                failure_mode_allow: false\n"},
			{"              status_on_error:", "                status_on_error:"},
			{"              clear_route_cache:", "                clear_route_cache:"},
			{"              validate_mutations:", "                validate_mutations:"},
			{"              decoder_header_mutation_rules:", "                decoder_header_mutation_rules:"},
			{"              encode_raw_headers:", "                encode_raw_headers:"},
			{"              allowed_headers:\n                patterns:", "                allowed_headers:\n                  patterns:"},
			{grpc, "  " + grpc},
		},
	},
	"GH107": {bad: []edit{{"          - name: envoy.filters.http.ext_authz\n", "          - name: envoy.filters.http.ext_authz\n            is_optional: true\n"}}},
	"GH108": {
		bad:  []edit{{managerEnd, managerEnd + "          upgrade_configs: [{upgrade_type: websocket, filters: [" + router + "]}]\n"}},
		good: []edit{{managerEnd, managerEnd + "          upgrade_configs: [{upgrade_type: websocket}]\n"}},
	},
	"GH109": {
		bad:  []edit{{before, filter("cache", "envoy.extensions.filters.http.cache.v3.CacheConfig", cache)}},
		good: []edit{{after, filter("cache", "envoy.extensions.filters.http.cache.v3.CacheConfig", cache)}},
	},
	"GH110": {bad: []edit{{before, filter("lua", lua, luaCode)}}},
	"GH111": {
		bad:  []edit{{after, transcoder}},
		good: []edit{{before, transcoder}},
	},
	"GH112": {bad: []edit{{after, filter("lua", lua, luaCode)}}},
	"GH113": {
		bad:  []edit{{usersRoute, usersRoute + "                request_headers_to_add: [" + header("X-User_Id") + "]\n"}},
		good: []edit{{usersRoute, usersRoute + "                request_headers_to_add: [" + header("x-colour") + "]\n"}},
	},
	"GH114": {bad: []edit{{before, filter("ext_authz.opa", "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", `, transport_api_version: V3,
              status_on_error: {code: ServiceUnavailable}, validate_mutations: true, encode_raw_headers: true,
              decoder_header_mutation_rules: {disallow_system: true}, allowed_headers: {`+allowed+`},
              grpc_service: {envoy_grpc: {cluster_name: gatehouse}, timeout: 1s}`)}}},
	"GH115": {bad: []edit{{"envoy_grpc: {cluster_name: gatehouse}", "envoy_grpc: {cluster_name: gatehuose}"}}},
	"GH116": {
		bad:  []edit{{checkEndpoint, "address: 10.0.0.7, port_value: 9001"}},
		good: []edit{{"socket_address: {" + checkEndpoint + "}", "pipe: {path: /run/gatehouse/check.sock}"}},
	},
	"GH117": {bad: []edit{{gatehouseCluster, "  - name: gatehouse\n    type: STRICT_DNS\n"}, {checkEndpoint, "address: gatehouse, port_value: 9001"}}},
	"GH118": {
		bad:  []edit{{checkEndpoint, "address: 10.0.0.7, port_value: 9001"}, {gatehouseCluster, gatehouseCluster + tls("")}},
		good: []edit{{checkEndpoint, "address: 10.0.0.7, port_value: 9001"}, {gatehouseCluster, gatehouseCluster + tls(trusted+", "+names+"}")}},
	},
	"GH119": {
		bad:  []edit{{checkEndpoint, "address: 10.0.0.7, port_value: 9001"}, {gatehouseCluster, gatehouseCluster + tls(trusted+"}")}},
		good: []edit{{checkEndpoint, "address: 10.0.0.7, port_value: 9001"}, {gatehouseCluster, gatehouseCluster + tls(trusted+", "+names+"}")}},
	},
	"GH120": {bad: []edit{{"explicit_http_config: {http2_protocol_options: {}}", "explicit_http_config: {http_protocol_options: {}}"}}},
	"GH121": {refused: true, bad: []edit{{"transport_api_version: V3", "transport_api_version: V2"}}},
	"GH122": {bad: []edit{{"timeout: 1s}", "timeout: 30s}"}}},
	"GH123": {bad: []edit{{"              status_on_error: {code: ServiceUnavailable}\n", ""}}},
	"GH124": {bad: []edit{{grpc, httpService(allIdentity)}}},
	"GH125": {
		also: []string{"GH124"},
		bad:  []edit{{grpc, httpService("{exact: x-user-id}")}},
		good: []edit{{grpc, httpService(allIdentity)}},
	},
	"GH126": {bad: []edit{{"clear_route_cache: false", "clear_route_cache: true"}, {
		"                match: {path_separated_prefix: /users}\n",
		"                match: {path_separated_prefix: /users, headers: [{name: x-user-roles, string_match: {contains: beta}}]}\n",
	}}},
	"GH127": {bad: []edit{{"clear_route_cache: false", "clear_route_cache: true"}}},
	"GH128": {bad: []edit{{"{exact: authorization}, ", ""}}},
	"GH129": {
		bad: []edit{{", {exact: origin}, {prefix: sec-fetch-}", ""}},
	},
	"GH130": {bad: []edit{{"              allowed_headers:\n                " + allowed + "\n", ""}}},
	"GH131": {bad: []edit{{grpc, grpc + "              with_request_body: {max_request_bytes: 65536}\n"}}},
	"GH132": {bad: []edit{{"validate_mutations: true", "validate_mutations: false"}}},
	"GH133": {bad: []edit{{"disallow_system: true, ", ""}}},
	"GH134": {bad: []edit{{"encode_raw_headers: true", "encode_raw_headers: false"}}},
	"GH135": {
		bad: []edit{{"check_settings: {context_extensions: {policy: admin}}", "check_settings: {context_extensions: {policy: admin}, grpc_service: {envoy_grpc: {cluster_name: users}}}"}},
	},

	// ---- The routes.
	"GH201": {
		bad:  []edit{{identity, "              - remove: x-user-id\n"}, {"              - name: auth\n", "              - name: auth\n                request_headers_to_remove: [x-user-email, x-user-roles]\n"}},
		also: []string{"GH305", "GH311"},
		good: []edit{{"              - name: auth\n", "              - name: auth\n                request_headers_to_remove: [x-user-id, x-user-email, x-user-roles, x-org-id]\n"}},
	},
	"GH202": {
		bad: []edit{{"                route: {cluster: gatehouse_http}\n" + skip, "                route: {cluster: gatehouse_http}\n"}, {"              domains: [\"*\"]\n", `              domains: ["*"]
              typed_per_filter_config:
                envoy.filters.http.ext_authz: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}
`}},
	},
	"GH203": {
		bad: []edit{{firstRoute, "              - name: health\n                match: {path: /users/health}\n                route: {cluster: users}\n" + skip + firstRoute}},
		good: []edit{{firstRoute, `              - name: health
                match: {path: /users/health, case_sensitive: false}
                route: {cluster: users}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz: {` + perRoute + `, check_settings: {context_extensions: {policy: public}}}
` + firstRoute}},
	},
	"GH204": {bad: []edit{{`                  envoy.filters.http.ext_authz:
                    ` + perRoute + `
                    check_settings: {context_extensions: {policy: admin}}`, `                  gatehouse:
                    ` + perRoute + `
                    check_settings: {context_extensions: {policy: admin}}`}}},
	"GH205": {
		options: gatehouse(lint.Gatehouse{Policies: []string{"user", "admin"}, Fallback: true}),
		bad:     []edit{{"policy: admin", "policy: admins"}},
	},
	"GH206": {
		options: gatehouse(lint.Gatehouse{Policies: []string{"user", "admin"}}),
		bad:     []edit{{"{policy: admin}", "{}"}, {"{policy: user}", "{}"}},
	},
	"GH207": {bad: []edit{{"match: {path_separated_prefix: /auth}", "match: {prefix: /auth}"}}},
	"GH208": {bad: []edit{{adminMatch, "match: {prefix: /users/admin/, case_sensitive: false}"}}},
	"GH209": {bad: []edit{{adminMatch, "match: {path_separated_prefix: /users/admin}"}}},
	"GH210": {bad: []edit{{firstRoute, `              - name: everything
                match: {prefix: /users}
                route: {cluster: users}
` + firstRoute}}},
	"GH211": {bad: []edit{{`              - name: refuse-path-parameters
                match: {safe_regex: {regex: ".*;.*"}}
                direct_response: {status: 400}
`, ""}, {usersRoute, strings.Replace(usersRoute, "path_separated_prefix", "prefix", 1)}}, also: []string{"GH207"}},
	"GH212": {
		bad:  []edit{{usersRoute, strings.Replace(usersRoute, "cluster: users", "cluster_header: x-cluster", 1)}},
		good: []edit{{usersRoute, strings.Replace(usersRoute, "cluster: users", "cluster_header: x-cluster", 1)}, {identity, identity + "              - remove: x-cluster\n"}},
	},
	"GH213": {
		bad: []edit{{firstRoute, anywhereRoute + firstRoute}, {clusters, clusters + anywhere}},
		good: []edit{
			{firstRoute, anywhereRoute + firstRoute},
			{clusters, clusters + anywhere},
			{identity, identity + "              - remove: x-envoy-original-dst-host\n"},
		},
	},
	"GH214": {
		bad:  []edit{{"            name: gateway\n", "            name: gateway\n            vhost_header: x-vhost\n"}},
		good: []edit{{"            name: gateway\n", "            name: gateway\n            vhost_header: x-vhost\n"}, {identity, identity + "              - remove: x-vhost\n"}},
	},
	"GH215": {
		bad:  []edit{{firstRoute, rewritten("/") + firstRoute}},
		good: []edit{{firstRoute, rewritten("/public") + firstRoute}},
	},
	"GH216": {
		bad:  []edit{{adminMatch, strings.TrimSuffix(adminMatch, "}") + `, headers: [{name: x-api-version, string_match: {exact: "2"}}]}`}},
		good: []edit{{adminMatch, strings.TrimSuffix(adminMatch, "}") + `, headers: [{name: ":method", string_match: {exact: DELETE}}]}`}},
	},
	"GH217": {
		bad:  []edit{{usersRoute, strings.Replace(usersRoute, "cluster: users", "cluster: users, host_rewrite_header: x-host", 1)}},
		good: []edit{{usersRoute, strings.Replace(usersRoute, "cluster: users", "cluster: users, host_rewrite_literal: users.example.com", 1)}},
	},

	// ---- How requests are read.
	"GH301": {bad: []edit{{"normalize_path: true", "normalize_path: false"}}},
	"GH302": {bad: []edit{{"          merge_slashes: true\n", ""}}},
	"GH303": {
		bad:  []edit{{"path_with_escaped_slashes_action: REJECT_REQUEST", "path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD"}},
		good: []edit{{"path_with_escaped_slashes_action: REJECT_REQUEST", "path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT"}},
	},
	"GH304": {
		bad:  []edit{{"headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW"}},
		good: []edit{{"headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: DROP_HEADER"}},
	},
	"GH305": {
		also: []string{"GH311"},
		bad:  []edit{{identity, ""}, {"                route: {cluster: gatehouse_http}\n", "                route: {cluster: gatehouse_http}\n                request_headers_to_remove: [x-user-id, x-user-email, x-user-roles, x-org-id]\n"}},
		good: []edit{{identity, "              - remove_on_match: {key_matcher: {prefix: x-user-}}\n              - remove: x-org-id\n"}},
	},
	"GH306": {bad: []edit{{overrides, ""}}},
	"GH307": {
		bad:  []edit{{"use_remote_address: true", "use_remote_address: false\n          xff_num_trusted_hops: 1"}},
		good: []edit{{"use_remote_address: true", "use_remote_address: true\n          xff_num_trusted_hops: 1"}},
	},
	"GH308": {bad: []edit{{"forward_client_cert_details: SANITIZE", "forward_client_cert_details: ALWAYS_FORWARD_ONLY"}}},
	"GH309": {
		bad:  []edit{{managerEnd, managerEnd + "          http_protocol_options: {allow_chunked_length: true}\n"}},
		good: []edit{{managerEnd, managerEnd + "          http_protocol_options: {allow_chunked_length: false}\n"}},
	},
	"GH310": {
		bad:  []edit{{managerEnd, managerEnd + "          http_protocol_options: {enable_trailers: true}\n"}},
		good: []edit{{managerEnd, managerEnd + "          http_protocol_options: {enable_trailers: false}\n"}},
	},
	"GH311": {
		bad:  []edit{{identity, strings.ReplaceAll(identity, "[^a-z0-9]", "[-_]")}},
		good: []edit{{identity, strings.ReplaceAll(identity, "[^a-z0-9]", "[-_.]")}},
	},

	// ---- What is around.
	"GH401": {
		bad: []edit{{listeners, secondListener(`      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: users}
`)}},
		good: []edit{{listeners, secondListener(`      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: gatehouse_http}
`)}},
	},
	"GH402": {
		bad:  []edit{{"address: 127.0.0.1, port_value: 9901", "address: 0.0.0.0, port_value: 9901"}},
		good: []edit{{"{socket_address: {address: 127.0.0.1, port_value: 9901}}", "{pipe: {path: /run/envoy/admin.sock}}"}},
	},
	"GH403": {
		bad:  []edit{{firstRoute, "              - name: metrics\n                match: {path_separated_prefix: /envoy}\n                route: {cluster: metrics, prefix_rewrite: /}\n" + firstRoute}, {clusters, clusters + metrics}},
		good: []edit{{firstRoute, "              - name: metrics\n                match: {path: /stats/prometheus}\n                route: {cluster: metrics}\n" + firstRoute}, {clusters, clusters + metrics}},
	},
	"GH404": {
		bad:  []edit{{managerEnd, managerEnd + "          upgrade_configs: [{upgrade_type: h2c}]\n"}},
		good: []edit{{managerEnd, managerEnd + "          upgrade_configs: [{upgrade_type: websocket}]\n"}},
	},

	// ---- Istio.
	"GH501": {base: "istio", bad: []edit{{"failOpen: false", "failOpen: true"}}},
	"GH502": {base: "istio", bad: []edit{{"provider: {name: gatehouse}", "provider: {name: gatehose}"}}},
	"GH503": {base: "istio", bad: []edit{{"  rules: [{}]\n", ""}}},
	"GH504": {
		base: "istio",
		bad:  []edit{{"rules: [{}]", `rules: [{to: [{operation: {paths: ["/orders/*"]}}]}]`}},
		good: []edit{{"rules: [{}]", `rules: [{to: [{operation: {paths: ["/orders/*"]}}]}, {}]`}},
	},
	"GH505": {base: "istio", bad: []edit{{"        timeout: 1s\n", ""}}},
	"GH506": {base: "istio", bad: []edit{{"        statusOnError: \"503\"\n", ""}}},
	"GH507": {base: "istio", bad: []edit{{istioGRPC, istioHTTP}}},
	"GH508": {
		base: "istio", also: []string{"GH507"},
		bad:  []edit{{istioGRPC, strings.Replace(istioHTTP, "x-internal-api-key, ", "", 1)}},
		good: []edit{{istioGRPC, istioHTTP}},
	},
	"GH509": {
		base: "istio", also: []string{"GH507"},
		bad:  []edit{{istioGRPC, strings.Replace(istioHTTP, ", upgrade", "", 1)}},
		good: []edit{{istioGRPC, istioHTTP}},
	},
	"GH510": {
		base: "istio", also: []string{"GH507"},
		bad:  []edit{{istioGRPC, strings.Replace(istioHTTP, ", x-org-id", "", 1)}},
		good: []edit{{istioGRPC, strings.Replace(istioHTTP, "x-user-id, x-user-email, x-user-roles", "x-user-*", 1)}},
	},
	"GH511": {base: "istio", bad: []edit{{"failOpen: false", "clearRouteCache: true"}}},
	"GH512": {base: "istio", bad: []edit{{"failOpen: false", "includeRequestBodyInCheck: {maxRequestBytes: 65536}"}}},
	"GH513": {
		base: "istio",
		bad:  []edit{{"    pathNormalization: {normalization: MERGE_SLASHES}\n", ""}},
		good: []edit{{"MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"}},
	},
	"GH514": {
		base: "istio",
		bad:  []edit{leavesOut, {"  rules: [{}]\n", virtualService("x-user-id, x-user-email, x-user-roles")}},
		good: []edit{leavesOut, {"  rules: [{}]\n", virtualService("x-user-id, x-user-email, x-user-roles, x-org-id")}},
	},
	"GH515": {
		base: "istio",
		bad:  []edit{leavesOut, {"  rules: [{}]\n", leftOut}},
		good: []edit{leavesOut, {"  rules: [{}]\n", virtualService("x-user-id, x-user-email, x-user-roles, x-org-id")}},
	},

	// ---- Envoy Gateway.
	"GH601": {base: "envoy-gateway", bad: []edit{{"failOpen: false", "failOpen: true"}}},
	"GH602": {
		base: "envoy-gateway",
		bad:  []edit{{egLast, egLast + corsPolicy("")}},
		good: []edit{{egLast, egLast + corsPolicy("  mergeType: StrategicMerge\n") + uncheckedRoute}},
	},
	"GH603": {base: "envoy-gateway", bad: []edit{{egTarget, strings.Replace(strings.Replace(egTarget, "kind: Gateway", "kind: HTTPRoute", 1), "name: eg", "name: orders", 1)}}},
	"GH604": {base: "envoy-gateway", bad: []edit{{"    timeout: 1s\n", ""}}},
	"GH605": {base: "envoy-gateway", bad: []edit{{"    statusOnError: 503\n", ""}}},
	"GH606": {base: "envoy-gateway", bad: []edit{{egGRPC, egHTTP}}},
	"GH607": {base: "envoy-gateway", bad: []edit{{egHeaders, strings.Replace(egHeaders, "authorization, ", "", 1)}}},
	"GH608": {base: "envoy-gateway", bad: []edit{{egHeaders, strings.Replace(egHeaders, ", upgrade", "", 1)}}},
	"GH609": {
		base: "envoy-gateway", also: []string{"GH606"},
		bad:  []edit{{egGRPC, strings.Replace(egHTTP, ", x-user-roles", "", 1)}},
		good: []edit{{egGRPC, egHTTP}},
	},
	"GH610": {base: "envoy-gateway", bad: []edit{{"failOpen: false", "recomputeRoute: true"}}},
	"GH611": {base: "envoy-gateway", bad: []edit{{"failOpen: false", "bodyToExtAuth: {maxRequestBytes: 65536}"}}},
	"GH612": {
		base: "envoy-gateway",
		bad:  []edit{{"path: {escapedSlashesAction: RejectRequest}", "path: {disableMergeSlashes: true}"}},
		good: []edit{{"  path: {escapedSlashesAction: RejectRequest}\n", ""}},
	},
	"GH613": {
		base: "envoy-gateway",
		bad:  []edit{{"withUnderscoresAction: RejectRequest", "withUnderscoresAction: Allow"}},
		good: []edit{{"withUnderscoresAction: RejectRequest", "withUnderscoresAction: DropHeader"}},
	},
}

const rulesPage = "../../docs/envoy-lint.md"

// The table in docs/envoy-lint.md is that of the rules.
func TestTheTableOfRulesIsFresh(t *testing.T) {
	text, err := os.ReadFile(rulesPage)
	require.NoError(t, err)
	const begin, end = "<!-- rules: 'make generate' writes this table -->\n", "<!-- end of rules -->"
	before, rest, ok := strings.Cut(string(text), begin)
	require.True(t, ok)
	_, after, ok := strings.Cut(rest, end)
	require.True(t, ok)
	want := before + begin + rulesTable() + end + after
	if *update {
		require.NoError(t, os.WriteFile(rulesPage, []byte(want), 0o600))
		return
	}
	require.Equal(t, want, string(text), "run 'make generate'")
}

func rulesTable() string {
	var b strings.Builder
	groups := map[string]string{
		"GH0": "The file", "GH1": "The check", "GH2": "The routes", "GH3": "How requests are read",
		"GH4": "What is around", "GH5": "Istio", "GH6": "Envoy Gateway",
	}
	group := ""
	for _, r := range lint.Rules() {
		if r.Code[:3] != group {
			group = r.Code[:3]
			b.WriteString("\n### " + groups[group] + "\n\n| code | | what | what somebody does with it | what closes it |\n|---|---|---|---|---|\n")
		}
		remedy := r.Remedy
		if r.Setting != "" && !strings.Contains(r.Setting, "\n") && len(r.Setting) < 120 {
			remedy += " `" + r.Setting + "`"
		}
		cell := strings.NewReplacer("|", `\|`).Replace
		b.WriteString("| " + r.Code + " | " + string(r.Severity) + " | " + cell(r.Title) + " | " + cell(r.Attack) + " | " + cell(remedy) + " |\n")
	}
	b.WriteString("\n")
	return b.String()
}
