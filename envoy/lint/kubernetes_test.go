package lint_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/envoy/lint"
)

// shipped returns the files of a directory in deploy, with one text put in the
// place of another one in one of them.
func shipped(t *testing.T, dir, file, old, text string) []lint.Source {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "..", "deploy", dir, "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	changed := file == ""
	var out []lint.Source
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		if filepath.Base(path) == file {
			require.Equal(t, 1, strings.Count(string(data), old), "%s: %q stands there once", path, old)
			data, changed = []byte(strings.Replace(string(data), old, text, 1)), true
		}
		out = append(out, lint.Source{Name: filepath.Base(path), Data: data})
	}
	require.True(t, changed, "%s is not there", file)
	return out
}

// without leaves a file out.
func without(sources []lint.Source, name string) []lint.Source {
	return slices.DeleteFunc(sources, func(s lint.Source) bool { return s.Name == name })
}

// What Gatehouse ships for Kubernetes is clean: all there is to say is that the
// values of its own chart are not looked at.
func TestShippedKubernetesObjectsAreClean(t *testing.T) {
	for _, dir := range []string{"istio", "envoy-gateway"} {
		findings := lint.Lint(shipped(t, dir, "", "", ""), lint.Options{})
		require.Len(t, findings, 1, "%+v", findings)
		require.Equal(t, "GH006", findings[0].Code)
		require.Equal(t, "values.yaml", findings[0].File)
		require.Empty(t, lint.Lint(without(shipped(t, dir, "", "", ""), "values.yaml"), lint.Options{}))
	}
}

// One thing less, and it is found where it is missing.
func TestBrokenKubernetesObjects(t *testing.T) {
	const (
		gateNotPaths = "notPaths: [/auth, /auth/*, /.well-known/jwks.json]"
		cors         = "  mergeType: StrategicMerge # keeps all that the Gateway's policy says\n"
	)
	for name, tc := range map[string]struct {
		dir, file, old, text string
		code, at, line       string // the finding, and the file and the text of its line
		message              string
	}{
		"a header less in the VirtualService": {
			"istio", "gateway.yaml", "x-user-roles, x-org-id", "x-user-roles",
			"GH514", "gateway.yaml", "remove: &client [", "/auth is not checked, and route auth of VirtualService public leaves a client's own x-org-id",
		},
		"a route that removes nothing": {
			"istio", "gateway.yaml", "remove: &client [x-user-id, x-user-email, x-user-roles, x-org-id,", "remove: &client [",
			"GH514", "gate.yaml", gateNotPaths, "/auth is not checked, and route auth of VirtualService public leaves a client's own x-user-id",
		},
		"a path more in notPaths": {
			"istio", "gate.yaml", gateNotPaths, "notPaths: [/auth, /auth/*, /.well-known/jwks.json, /users/*]",
			"GH514", "gate.yaml", "/users/*]", "/users/* is not checked, and route users-strict of VirtualService public leaves",
		},
		"a path that no route takes out": {
			"istio", "gate.yaml", "/auth/*", "/auth*",
			"GH514", "gate.yaml", "/auth*", "/auth* is not checked, and the routes here",
		},
		"everything in notPaths": {
			"istio", "gate.yaml", gateNotPaths, `notPaths: ["*"]`,
			"GH514", "gate.yaml", `"*"`, "* is not checked, and route users-strict",
		},
		"a path less in the VirtualService": {
			"istio", "gateway.yaml", "        - uri: {prefix: /auth/}\n", "",
			"GH514", "gate.yaml", gateNotPaths, "/auth/* is not checked",
		},
		"an open route before the one that removes": {
			"istio", "gateway.yaml", "    - name: auth\n", "    - name: early\n      match: [{uri: {regex: '/auth/v[0-9]/.*'}}]\n      route: [{destination: {host: x}}]\n    - name: auth\n",
			"GH514", "gate.yaml", gateNotPaths, "/auth/* is not checked, and route early of VirtualService public",
		},
		"a gateway that lets underscores through": {
			"istio", "gateway-values.yaml", "profile: EDGE", "profile: EDGE\n      httpHeadersWithUnderscoresAction: ALLOW",
			"GH514", "gateway.yaml", "remove: &client", "x_user-id",
		},
		"a VirtualService that says who it is": {
			"istio", "gateway.yaml", "      headers: {request: {remove: *method}}\n      route: *users\n", "      headers: {request: {remove: *method, set: {X-User_Id: root}}}\n      route: *users\n",
			"GH113", "gateway.yaml", "X-User_Id: root", "X-User_Id is set here",
		},
		"an HTTPRoute that says who it is": {
			"envoy-gateway", "routes.yaml", "{remove: [x-user-id,", "{set: [{name: x-user-id, value: root}], remove: [x-user-id,",
			"GH113", "routes.yaml", "value: root", "x-user-id is set here",
		},
		"a header less in the HTTPRoute": {
			"envoy-gateway", "routes.yaml", "x-user-roles, x-org-id", "x-user-roles",
			"GH602", "routes.yaml", "remove: [x-user-id", "HTTPRoute gatehouse-auth is not checked, and this leaves a client's own x-org-id",
		},
		"an HTTPRoute that removes nothing": {
			"envoy-gateway", "routes.yaml", "{remove: [x-user-id, x-user-email, x-user-roles, x-org-id, x-identity-assertion]}", "{}",
			"GH602", "routes.yaml", "name: gatehouse-auth}]", "with a client's own identity headers",
		},
		"a rule more in the HTTPRoute": {
			"envoy-gateway", "routes.yaml", "      backendRefs: [{name: gatehouse, port: 8081}]\n", "      backendRefs: [{name: gatehouse, port: 8081}]\n    - backendRefs: [{name: gatehouse, port: 8081}]\n",
			"GH602", "routes.yaml", "name: gatehouse-auth}]", "with a client's own identity headers",
		},
		"the unchecked policy on another route": {
			"envoy-gateway", "routes.yaml", "name: gatehouse-auth}]\n  authorization", "name: shop}]\n  authorization",
			"GH602", "routes.yaml", "name: shop}]", "the check is gone there",
		},
		"no mergeType": {
			"envoy-gateway", "routes.yaml", cors, "",
			"GH605", "routes.yaml", "extAuth:", "403",
		},
		"a mergeType that is none": {
			"envoy-gateway", "routes.yaml", cors, "  mergeType: Replace\n",
			"GH604", "routes.yaml", "extAuth:", "10 s",
		},
		"failOpen in a merged policy": {
			"envoy-gateway", "routes.yaml", "value: admin}]\n", "value: admin}]\n    failOpen: true\n",
			"GH601", "routes.yaml", "failOpen: true", "the request passes",
		},
		"a null in a merged policy": {
			"envoy-gateway", "routes.yaml", "value: admin}]\n", "value: admin}]\n    timeout: null\n",
			"GH604", "routes.yaml", "extAuth:", "10 s",
		},
		"merged with a policy that is somewhere else": {
			"envoy-gateway", "security.yaml", "kind: Gateway, name: public}", "kind: Gateway, name: other}",
			"GH604", "routes.yaml", "extAuth:", "10 s",
		},
		"a gateway that lets underscores through to an unchecked route": {
			"envoy-gateway", "gateway.yaml", "withUnderscoresAction: RejectRequest", "withUnderscoresAction: Allow",
			"GH602", "routes.yaml", "remove: [x-user-id", "x_user-id",
		},
	} {
		t.Run(name, func(t *testing.T) {
			sources := shipped(t, tc.dir, tc.file, tc.old, tc.text)
			findings := lint.Lint(sources, lint.Options{})
			i := slices.IndexFunc(findings, func(f lint.Finding) bool { return f.Code == tc.code && strings.Contains(f.Message, tc.message) })
			require.GreaterOrEqual(t, i, 0, "%+v", findings)
			f := findings[i]
			require.Equal(t, tc.at, f.File)
			if strings.HasPrefix(name, "a header less") {
				require.Len(t, findings, 2, "it is said once: %+v", findings) // and GH006
			}
			file := sources[slices.IndexFunc(sources, func(s lint.Source) bool { return s.Name == tc.at })]
			require.Contains(t, strings.Split(string(file.Data), "\n")[f.Line-1], tc.line)
		})
	}
}

// What a file doesn't say, another one may: without that one nothing is certain.
func TestKubernetesObjectsThatAreElsewhere(t *testing.T) {
	alone := func(dir, name string, o lint.Options) []lint.Finding {
		return lint.Lint(without(shipped(t, dir, "", "", ""), name), o)
	}
	require.Equal(t, []string{"GH006", "GH515"}, codes(alone("istio", "gateway.yaml", lint.Options{})))
	require.Equal(t, []string{"GH006", "GH514"}, codes(alone("istio", "gateway-values.yaml", lint.Options{})), "nothing says that x_user_id is refused")
	require.Equal(t, []string{"GH006", "GH602"}, codes(lint.Lint(shipped(t, "envoy-gateway", "routes.yaml", "metadata: {name: gatehouse-auth, namespace: auth}", "metadata: {name: another, namespace: auth}"), lint.Options{})))

	// The names are those of Gatehouse's configuration.
	own := lint.Options{IdentityHeaders: authz.IdentityHeaders{ID: "x-caller", Email: "x-user-email", Roles: "x-user-roles", Organization: "x-org-id"}}
	require.Contains(t, codes(alone("istio", "values.yaml", own)), "GH514")
	require.Contains(t, codes(alone("envoy-gateway", "values.yaml", own)), "GH602")
}

// Files about something else are worth a note beside others, and an error where
// there are no others.
func TestFilesAboutSomethingElse(t *testing.T) {
	file := func(name, text string) lint.Source { return lint.Source{Name: name, Data: []byte(text)} }
	gate := file("gate.yaml", base(t, "istio"))
	values := file("values.yaml", "replicas: 2\nresources: {limits: {cpu: 1}}\nextra: &x {a: 1}\nmore: {<<: *x}\n")
	object := file("network.yaml", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n")
	route := file("route.yaml", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {http: []}\n")

	findings := lint.Lint([]lint.Source{gate, values, object, route}, lint.Options{})
	require.Len(t, findings, 2, "%+v", findings)
	for i, want := range []string{"Helm values", "ConfigMap, NetworkPolicy"} {
		require.Equal(t, "GH006", findings[i].Code)
		require.Equal(t, lint.Note, findings[i].Severity)
		require.Contains(t, findings[i].Message, want)
	}
	for _, one := range []lint.Source{values, object, route} {
		require.Equal(t, []string{"GH002"}, codes(lint.Lint([]lint.Source{one}, lint.Options{})))
	}
	require.Len(t, lint.Lint([]lint.Source{values, object, route}, lint.Options{}), 3)
	// Not even beside others: what was meant to be looked at.
	for _, text := range []string{"", "static_resource: {}\n", "kind: SecurityPolicy\napiversion: x\n", "- 1\n", "metadata: {}\napiVersion: v1\n"} {
		require.Equal(t, []string{"GH002"}, codes(lint.Lint([]lint.Source{gate, file("f", text)}, lint.Options{})), text)
	}
	// A route of a mesh says nothing about an Envoy.
	require.Equal(t, []string{"GH006"}, codes(lint.Lint([]lint.Source{file("envoy.yaml", base(t, "envoy")), route}, lint.Options{})))
}

// Which requests a VirtualService's routes take, and which a policy leaves out.
func TestPathsOfIstio(t *testing.T) {
	const removes = "headers: {request: {remove: [x-user-id, x-user-email, x-user-roles, x-org-id, x-identity-assertion]}}"
	const to = "route: [{destination: {host: a}}]"
	route := func(match, what string) string { return "  - {" + match + what + ", " + to + "}\n" }
	rest := "  - {" + to + "}\n"
	for name, tc := range map[string]struct {
		rules, http string
		open        bool
	}{
		"one path":                      {"[/auth]", route("match: [{uri: {exact: /auth}}], ", removes) + rest, false},
		"one path below a prefix":       {"[/auth]", route("match: [{uri: {prefix: /}}], ", removes), false},
		"a prefix that is wider":        {"[/auth/*]", route("match: [{uri: {prefix: /auth}}], ", removes) + rest, false},
		"a prefix that is narrower":     {"[/auth/*]", route("match: [{uri: {prefix: /auth/v1/}}], ", removes) + rest, true},
		"a prefix, but for a method":    {"[/auth/*]", route("match: [{uri: {prefix: /auth/}, method: {exact: GET}}], ", removes) + rest, true},
		"in any case":                   {"[/auth/*]", route("match: [{uri: {prefix: /AUTH/}, ignoreUriCase: true}], ", removes) + rest, false},
		"in another case":               {"[/auth/*]", route("match: [{uri: {prefix: /AUTH/}}], ", removes) + rest, true},
		"a regex that is the prefix":    {"[/auth/*]", route("match: [{uri: {regex: '/auth/.*'}}], ", removes) + rest, false},
		"a regex for something else":    {"[/auth/*]", route("match: [{uri: {regex: '(?i)/users/.*'}}], ", "name: users") + route("match: [{uri: {prefix: /auth/}}], ", removes), false},
		"a regex for some of it":        {"[/auth/*]", route("match: [{uri: {regex: '(?i)/[a-b]uth/.*'}}], ", "name: some") + route("match: [{uri: {prefix: /auth/}}], ", removes), true},
		"a regex that is none":          {"[/auth/*]", route("match: [{uri: {regex: '('}}], ", "name: some") + route("match: [{uri: {prefix: /auth/}}], ", removes), true},
		"an end":                        {`["*.css"]`, route("match: [{uri: {prefix: /static/}}], ", removes) + rest, true},
		"an end, everything removed":    {`["*.css"]`, "  - {" + removes + ", " + to + "}\n", false},
		"a template":                    {`["/auth/{*}/x"]`, route("match: [{uri: {prefix: /auth/}}], ", removes) + rest, false},
		"a template elsewhere":          {`["/{*}/x"]`, route("match: [{uri: {prefix: /auth/}}], ", removes) + rest, true},
		"by the destination":            {"[/auth]", "  - {match: [{uri: {exact: /auth}}], route: [{destination: {host: a}, " + removes + "}]}\n" + rest, false},
		"by one destination of two":     {"[/auth]", "  - {match: [{uri: {exact: /auth}}], route: [{destination: {host: a}, " + removes + "}, {destination: {host: b}}]}\n" + rest, true},
		"a redirect":                    {"[/auth]", "  - {match: [{uri: {exact: /auth}}], redirect: {uri: /x}}\n" + rest, false},
		"nobody takes it":               {"[/auth]", route("match: [{uri: {exact: /authx}}], ", removes), true},
		"a second rule, which is wider": {"[/auth]}}]}, {to: [{operation: {methods: [GET]", route("match: [{uri: {exact: /auth}}], ", removes) + rest, false},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(base(t, "istio"), "    extensionProviders:\n", "    defaultConfig: {connectionSettings: {httpHeadersWithUnderscoresAction: REJECT_REQUEST}}\n    extensionProviders:\n", 1)
			text = strings.Replace(text, "rules: [{}]", "rules: [{to: [{operation: {notPaths: "+tc.rules+"}}]}]", 1) +
				"---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n  gateways: [g]\n  http:\n" + tc.http
			want := []string{}
			if tc.open {
				want = append(want, "GH514")
			}
			require.Equal(t, want, codes(lintText(text)), text)
		})
	}
}

// A VirtualService counts where the policy's gateway can be its own, and what it
// hands on is followed.
func TestWhichVirtualServiceCounts(t *testing.T) {
	good, err := os.ReadFile("testdata/GH514.good.yaml")
	require.NoError(t, err)
	with := func(more string, changes ...string) []string {
		return codes(lintText(strings.NewReplacer(changes...).Replace(string(good)) + more))
	}
	gateway := func(label string) string {
		return "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: public, namespace: istio-system}\nspec: {selector: {istio: " + label + "}}\n"
	}
	require.Empty(t, with(gateway("ingressgateway")))
	require.Equal(t, []string{"GH515"}, with(gateway("another")))
	require.Equal(t, []string{"GH515"}, with("", "gateways: [public]", "gateways: [mesh]"))
	require.Equal(t, []string{"GH515"}, with("", "  selector: {matchLabels: {istio: ingressgateway}}", "  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]"))

	// Another host of the same gateway.
	other := "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: other, namespace: istio-system}\nspec: {gateways: [istio-system/public], http: [{name: all, route: [{destination: {host: a}}]}]}\n"
	require.Equal(t, []string{"GH514"}, with(other))

	const route = "    route: [{destination: {host: gatehouse.auth.svc.cluster.local, port: {number: 8081}}}]"
	delegate := []string{route, "    delegate: {name: part, namespace: auth}"}
	require.Equal(t, []string{"GH515"}, with("", delegate...))
	part := func(remove string) string {
		return "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: part, namespace: auth}\nspec: {http: [{name: p, headers: {request: {remove: [" + remove + "]}}, route: [{destination: {host: a}}]}]}\n"
	}
	require.Empty(t, with(part("x-user-id, x-user-email, x-user-roles, x-org-id"), delegate...))
	require.Equal(t, []string{"GH514"}, with(part("x-user-id"), delegate...))
}

// Envoy Gateway has a filter for each policy, all of them off, and switches one
// of them on for each route.
func TestChecksThatRoutesSwitchOn(t *testing.T) {
	const perRoute = `{"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, check_settings: {}}`
	check := func(name string) string {
		return `        - name: envoy.filters.http.ext_authz/` + name + `
          disabled: true
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
            status_on_error: {code: ServiceUnavailable}
            transport_api_version: V3
            validate_mutations: true
            encode_raw_headers: true
            decoder_header_mutation_rules: {disallow_system: true}
            allowed_headers: {patterns: [{exact: cookie}, {exact: authorization}, {exact: x-internal-api-key}, {exact: origin}, {exact: upgrade}]}
            grpc_service: {envoy_grpc: {cluster_name: gatehouse}, timeout: 1s}
`
	}
	route := func(name, more string) string {
		return "            - {name: " + name + ", match: {path_separated_prefix: /" + name + "}, route: {cluster: " + name + "}" + more + "}\n"
	}
	on := func(names ...string) string {
		var parts []string
		for _, name := range names {
			parts = append(parts, "envoy.filters.http.ext_authz/"+name+": "+perRoute)
		}
		return ", typed_per_filter_config: {" + strings.Join(parts, ", ") + "}"
	}
	const removes = ", request_headers_to_remove: [x-user-id, x-user-email, x-user-roles, x-org-id]"
	const head = `- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: gateways/public/https
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: https
        normalize_path: true
        merge_slashes: true
        path_with_escaped_slashes_action: REJECT_REQUEST
        common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}
        use_remote_address: true
`
	const early = `        early_header_mutation_extensions:
        - name: e
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
            mutations: [{remove_on_match: {key_matcher: {prefix: x}}}]
`
	for name, tc := range map[string]struct {
		routes string
		early  bool
		want   []string
		at     string
	}{
		"all routes switch one on": {route("shop", on("gatehouse")) + route("admin", on("admin")), true, nil, ""},
		"one that doesn't": {
			route("shop", on("gatehouse")) + route("admin", "") + route("orders", on("admin")), true,
			[]string{"GH103"},
			"name: admin",
		},
		"two that don't":                      {route("shop", "") + route("admin", ""), true, []string{"GH103"}, "name: shop"},
		"one that removes the headers":        {route("shop", on("gatehouse")) + route("auth", removes), true, nil, ""},
		"one that removes some of them":       {route("shop", on("gatehouse")) + route("auth", strings.Replace(removes, ", x-org-id", "", 1)), true, []string{"GH103"}, "name: auth"},
		"one that doesn't, and nobody does":   {route("shop", on("gatehouse")) + route("admin", ""), false, []string{"GH103", "GH201", "GH305", "GH306", "GH311"}, "name: admin"},
		"one that answers by itself":          {route("shop", on("gatehouse")) + "            - {match: {prefix: /}, direct_response: {status: 404}}\n", true, nil, ""},
		"both on one route":                   {route("shop", on("gatehouse", "admin")), true, []string{"GH114"}, ""},
		"settings of a filter that isn't one": {route("shop", on("nobody")), true, []string{"GH103", "GH204"}, "name: shop"},
	} {
		t.Run(name, func(t *testing.T) {
			text := head
			if tc.early {
				text += early
			}
			text += "        http_filters:\n" + check("gatehouse") + check("admin") + "        - " + router + "\n" +
				"        route_config:\n          virtual_hosts:\n          - name: v\n            domains: [gateway.example.com]\n            routes:\n" + tc.routes
			findings := lintText(text + `- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: gatehouse
  type: STATIC
  load_assignment: {cluster_name: gatehouse, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9001}}}}]}]}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {http2_protocol_options: {}}
`)
			require.Equal(t, append([]string{}, tc.want...), codes(findings), "%+v", findings)
			if tc.at != "" {
				i := slices.IndexFunc(findings, func(f lint.Finding) bool { return f.Code == "GH103" })
				require.Contains(t, strings.Split(text, "\n")[findings[i].Line-1], tc.at)
			}
			if name == "two that don't" {
				require.Len(t, findings, 2)
			}
		})
	}
}
