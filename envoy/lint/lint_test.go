package lint_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/envoy/lint"
)

// read lints files of testdata.
func read(t *testing.T, o lint.Options, paths ...string) []lint.Finding {
	t.Helper()
	var sources []lint.Source
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		sources = append(sources, lint.Source{Name: path, Data: text})
	}
	return lint.Lint(sources, o)
}

func codes(findings []lint.Finding) []string {
	out := []string{}
	for _, f := range findings {
		out = append(out, f.Code)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// It ranges over the rules, so a new one without fixtures fails.
func TestEachRuleHasAFileThatBreaksItAndOneThatDoesNot(t *testing.T) {
	require.Greater(t, len(lint.Rules()), 25)
	for _, rule := range lint.Rules() {
		t.Run(rule.Code, func(t *testing.T) {
			f, ok := fixtures[rule.Code]
			require.True(t, ok, "%s has no entry in fixtures_test.go", rule.Code)
			bad := filepath.Join("testdata", rule.Code+".bad.yaml")
			findings := read(t, f.options, bad)
			want := append([]string{rule.Code}, f.also...)
			slices.Sort(want)
			require.Equal(t, want, codes(findings), "%+v", findings)
			for _, one := range findings {
				require.Equal(t, bad, one.File)
				require.NotEmpty(t, one.Message)
				require.NotEmpty(t, one.Remedy)
				if one.Code == rule.Code {
					require.Equal(t, rule.Severity, one.Severity)
				}
			}
			good := read(t, f.options, filepath.Join("testdata", rule.Code+".good.yaml"))
			require.NotContains(t, codes(good), rule.Code)
			for _, code := range codes(good) {
				require.Contains(t, f.also, code)
			}
		})
	}
	require.Len(t, fixtures, len(lint.Rules()), "a fixture of no rule")
}

// Gatehouse's own files have to be as good as it asks of others. The compose
// stack lives in a network of containers on one machine, which is worth a note.
func TestShippedFilesAreClean(t *testing.T) {
	for _, path := range []string{
		"../envoy.yaml", "../envoy-socket.yaml", "../envoy-tls.yaml", "../../examples/envoy.yaml",
		"../../examples/rate-limits/envoy-local.yaml", "../../examples/rate-limits/envoy-global.yaml",
	} {
		require.Empty(t, read(t, lint.Options{}, path))
	}
	require.Equal(t, []string{"GH117"}, codes(read(t, lint.Options{}, "../../deploy/compose/envoy.yaml")))
	for _, base := range []string{"envoy", "istio", "envoy-gateway"} {
		require.Empty(t, read(t, lint.Options{}, "testdata/base/"+base+".yaml"))
	}
}

func lintText(text string) []lint.Finding {
	return lint.Lint([]lint.Source{{Name: "f.yaml", Data: []byte(text)}}, lint.Options{})
}

func base(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "base", name+".yaml"))
	require.NoError(t, err)
	return string(text)
}

// The same setting, in each of the forms in which Envoy's configuration comes.
func TestForms(t *testing.T) {
	const broken = "failure_mode_allow: true"
	bootstrap := strings.Replace(base(t, "envoy"), "failure_mode_allow: false", broken, 1)
	var doc struct {
		StaticResources struct {
			Listeners []any `yaml:"listeners"`
			Clusters  []any `yaml:"clusters"`
		} `yaml:"static_resources"`
	}
	require.NoError(t, yaml.Load([]byte(bootstrap), &doc))
	asJSON := func(v any) string {
		text, err := json.MarshalIndent(v, "", "\t")
		require.NoError(t, err)
		return string(text)
	}
	asYAML := func(v any) string {
		text, err := yaml.Dump(v)
		require.NoError(t, err)
		return string(text)
	}
	var whole any
	require.NoError(t, yaml.Load([]byte(bootstrap), &whole))
	listener := doc.StaticResources.Listeners[0].(map[string]any)
	typed := func(kind string, of any) map[string]any {
		out := map[string]any{"@type": "type.googleapis.com/envoy.config." + kind}
		maps.Copy(out, of.(map[string]any))
		return out
	}
	resources := []any{typed("listener.v3.Listener", listener)}
	for _, c := range doc.StaticResources.Clusters {
		resources = append(resources, typed("cluster.v3.Cluster", c))
	}
	dump := map[string]any{"configs": []any{
		map[string]any{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": []any{
			map[string]any{"name": "gateway", "active_state": map[string]any{"version_info": "7", "listener": resources[0]}},
		}},
		map[string]any{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "version_info": "7", "dynamic_active_clusters": wrapped("cluster", resources[1:])},
	}}
	// The routes come by RDS.
	rds := deepCopy(t, dump)
	manager := find(rds, "route_config")
	table := manager["route_config"]
	delete(manager, "route_config")
	manager["rds"] = map[string]any{"route_config_name": "gateway", "config_source": map[string]any{"ads": map[string]any{}}}
	rds["configs"] = append(rds["configs"].([]any), map[string]any{
		"@type":                 "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
		"dynamic_route_configs": wrapped("route_config", []any{typed("route.v3.RouteConfiguration", table)}),
	})
	untyped := asYAML(listener)
	for _, c := range doc.StaticResources.Clusters {
		untyped += "---\n" + asYAML(c)
	}
	for name, text := range map[string]string{
		"bootstrap, JSON":          asJSON(whole),
		"bootstrap in a ConfigMap": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: envoy}\ndata:\n  envoy.yaml: |\n    " + strings.ReplaceAll(bootstrap, "\n", "\n    "),
		"config_dump":              asJSON(dump),
		"config_dump with RDS":     asJSON(rds),
		"a list of resources":      asYAML(resources),
		"a discovery response":     asYAML(map[string]any{"version_info": "7", "resources": resources}),
		"a delta":                  asJSON(map[string]any{"system_version_info": "7", "resources": wrapped("resource", resources)}),
		"documents without types":  untyped,
		"camelCase":                strings.NewReplacer("failure_mode_allow", "failureModeAllow", "normalize_path", "normalizePath", "http_filters", "httpFilters", "static_resources", "staticResources").Replace(bootstrap),
		"a merge key and an alias": strings.Replace(bootstrap, broken, "<<: &x {failure_mode_allow: true}", 1),
		"a TypedStruct": strings.NewReplacer(`"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz`+"\n", `"@type": type.googleapis.com/xds.type.v3.TypedStruct
              type_url: type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              value:
               failure_mode_allow: true
               `+"PLACEHOLDER\n").Replace(bootstrap),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "a TypedStruct" { // move what follows below value
				text = indentAfter(text, "               PLACEHOLDER\n", "          # after\n")
			}
			want := []string{"GH101"}
			if name == "a merge key and an alias" {
				want = []string{"GH008", "GH101"}
			}
			findings := lintText(text)
			require.Equal(t, want, codes(findings), "%+v", findings)
			lines := strings.Split(text, "\n")
			at := findings[slices.IndexFunc(findings, func(f lint.Finding) bool { return f.Code == "GH101" })]
			require.Regexp(t, `(?i)failure_?mode_?allow`, lines[at.Line-1], "line %d", at.Line)
			if !strings.Contains(name, "ConfigMap") {
				require.Regexp(t, `^"?(?i)failure_?mode_?allow`, lines[at.Line-1][at.Column-1:], "column %d", at.Column)
			}
		})
	}
}

// wrapped puts each element below a key.
func wrapped(key string, list []any) []any {
	var out []any
	for _, one := range list {
		out = append(out, map[string]any{key: one})
	}
	return out
}

func deepCopy(t *testing.T, m map[string]any) map[string]any {
	t.Helper()
	text, err := json.Marshal(m)
	require.NoError(t, err)
	var out map[string]any
	require.NoError(t, json.Unmarshal(text, &out))
	return out
}

// find returns the mapping that has a key.
func find(v any, key string) map[string]any {
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v[key]; ok {
			return v
		}
		for _, one := range v {
			if m := find(one, key); m != nil {
				return m
			}
		}
	case []any:
		for _, one := range v {
			if m := find(one, key); m != nil {
				return m
			}
		}
	}
	return nil
}

// indentAfter moves the lines between two texts to the right, and takes the
// first text out.
func indentAfter(text, from, to string) string {
	before, rest, _ := strings.Cut(text, from)
	inner, after, _ := strings.Cut(rest, to)
	inner = strings.Replace(inner, "              failure_mode_allow: true\n", "", 1)
	inner = " " + strings.TrimSuffix(strings.ReplaceAll(inner, "\n", "\n "), " ")
	return before + inner + to + after
}

func TestMistakesAreNamedAtTheirPlace(t *testing.T) {
	envoyBase := base(t, "envoy")
	change := func(old, text string) string {
		require.Equal(t, 1, strings.Count(envoyBase, old), old)
		return strings.Replace(envoyBase, old, text, 1)
	}
	for name, tc := range map[string]struct{ text, code, place, message string }{
		"empty":                {"", "GH002", "1:1", "empty"},
		"only a comment":       {"# nothing\n", "GH002", "1:1", "empty"},
		"something else":       {"a: 1\n", "GH002", "1:1", "Nothing here"},
		"a scalar":             {"hello\n", "GH002", "1:1", "Nothing here"},
		"broken YAML":          {"a: [1,\nb: 2\n", "GH001", "", "not valid YAML"},
		"broken JSON":          {`{"static_resources": {"listeners": [`, "GH001", "1:37", "ends in the middle"},
		"tabs":                 {"a:\n\tb: 1\n", "GH001", "2:", "not indented with tabs"},
		"a template":           {"a: {{ .Values.x }}\nb: [\n", "GH001", "", "helm template"},
		"not UTF-8":            {"a: \xff\n", "GH001", "1:4", "UTF-8"},
		"an alias in itself":   {"a: &a [*a]\n", "GH001", "1:8", "inside of what it stands for"},
		"aliases of aliases":   {bomb, "GH001", "", "aliases stand for more than"},
		"nested deep":          {strings.Repeat("[", 300) + strings.Repeat("]", 300), "GH001", "", "200 levels"},
		"unknown field":        {change("normalize_path:", "normalise_path:"), "GH003", "14:11", "did you mean normalize_path?"},
		"field of another":     {change("stat_prefix: gateway", "shadow_mode: true\n          stat_prefix: gateway"), "GH003", "13:11", "HttpConnectionManager has no field shadow_mode."},
		"wrong type":           {change("merge_slashes: true", "merge_slashes: 3"), "GH004", "15:11", "bool"},
		"wrong duration":       {change("timeout: 1s}", "timeout: 500ms}"), "GH004", "41:69", "500ms"},
		"wrong enum":           {change("REJECT_REQUEST\n          common", "REJECT\n          common"), "GH004", "16:11", `"REJECT"`},
		"a list for a mapping": {change("route_config:\n", "route_config: []\n          x:\n"), "GH004", "", "unexpected token ["},
		"no type":              {change(`typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}`, "typed_config: {stat_prefix: x}"), "GH004", "44:13", `"@type" is missing`},
		"an unknown type": {
			change(`                match: {path_separated_prefix: /auth}`, `                match: {path_match_policy: {name: own, typed_config: {"@type": type.googleapis.com/com.example.Own}}}`),
			"GH006", "", "com.example.Own",
		},
		"one field twice": {change("merge_slashes: true", "merge_slashes: true\n          mergeSlashes: true"), "GH005", "16:11", "merge_slashes is given twice"},
		"a secret": {
			"resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  name: s\n  generic_secret: {secret: {inline_string: 31337}}\n",
			"GH004", "4:29", "string field inlineString.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			findings := lintText(tc.text)
			at := slices.IndexFunc(findings, func(f lint.Finding) bool { return f.Code == tc.code })
			require.GreaterOrEqual(t, at, 0, "%+v", findings)
			f := findings[at]
			require.Contains(t, f.Message, tc.message)
			require.NotContains(t, f.Message, "31337")
			require.True(t, strings.HasPrefix(fmt.Sprintf("%d:%d", f.Line, f.Column), tc.place), "%d:%d", f.Line, f.Column)
		})
	}
}

// Nine levels of nine aliases each.
var bomb = func() string {
	text := "a0: &a0 [x]\n"
	for i := range 9 {
		text += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 9), ", "))
	}
	return text
}()

// Two mistakes are two findings, and neither hides what rules have to say.
func TestOneMistakeHidesNoOther(t *testing.T) {
	text := strings.NewReplacer(
		"merge_slashes: true", "merge_slashes: [1]",
		"use_remote_address: true", "use_remote_addresses: true",
		"failure_mode_allow: false", "failure_mode_allow: true",
	).Replace(base(t, "envoy"))
	require.Equal(t, []string{"GH003", "GH004", "GH101", "GH302", "GH307"}, codes(lintText(text)))
}

func FuzzLint(f *testing.F) {
	for _, pattern := range []string{"testdata/base/*.yaml", "testdata/GH?0[15].*.yaml", "testdata/GH51[45].*.yaml", "testdata/GH602.*.yaml"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(f, err)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(f, err)
			f.Add(string(text))
		}
	}
	for _, text := range []string{
		"", "null", "[]", "{}", "[[1]]", "---\n---\n", "a: &a {<<: *a}", "resources: [{}]", "configs: [{}]", `{"@type":""}`,
		"filter_chains: [null]", "virtual_hosts: [{routes: [{}]}]", "load_assignment: {}", "meshConfig: {extensionProviders: [{envoyExtAuthzHttp: {}}]}",
		"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nspec: {action: CUSTOM, rules: [{to: [{}]}]}",
		"apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: SecurityPolicy\nspec: {extAuth: {http: {}}}", "kind: List\napiVersion: v1\nitems: [1]",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		known := lint.Gatehouse{Policies: []string{"user"}, Private: []string{"127.0.0.1:9090"}}
		for _, one := range lint.Lint([]lint.Source{{Name: "f", Data: []byte(text)}}, lint.Options{Gatehouse: &known}) {
			require.Positive(t, one.Line)
			require.Positive(t, one.Column)
			require.NotEmpty(t, one.Code)
			require.Equal(t, "f", one.File)
		}
	})
}

// What the README tells people to paste.
func TestExamplesOfTheREADMEAreClean(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	found := 0
	for block := range strings.SplitSeq(string(text), "```yaml\n") {
		block, _, _ = strings.Cut(block, "```")
		if !strings.Contains(block, "kind: AuthorizationPolicy") && !strings.Contains(block, "kind: SecurityPolicy") {
			continue
		}
		found++
		require.Empty(t, lintText(strings.ReplaceAll(block, "\n   ", "\n")[3:]))
	}
	require.Equal(t, 2, found)
}

// Istio checks those requests that an RBAC filter before has marked. A policy
// that fits all of them marks all of them.
func TestIstiosWayOfCheckingAllRequests(t *testing.T) {
	rbac := func(permission string) string {
		return filter("rbac", "envoy.extensions.filters.http.rbac.v3.RBAC", `, shadow_rules_stat_prefix: istio_ext_authz_,
              shadow_rules: {action: DENY, policies: {all: {permissions: [`+permission+`], principals: [{and_ids: {ids: [{any: true}]}}]}}}`)
	}
	const marked = `              filter_enabled_metadata: {filter: envoy.filters.http.rbac, path: [{key: istio_ext_authz_shadow_effective_policy_id}], value: {string_match: {prefix: istio-ext-authz}}}
`
	text := func(permission string) string {
		return strings.NewReplacer(before, rbac(permission), grpc, grpc+marked).Replace(base(t, "envoy"))
	}
	require.Empty(t, lintText(text("{and_rules: {rules: [{any: true}]}}")))
	require.Equal(t, []string{"GH104"}, codes(lintText(text("{and_rules: {rules: [{url_path: {path: {prefix: /admin}}}]}}"))))
	// Its gateways call their listeners outbound; so does the other side of a
	// sidecar, which has inbound ones beside them.
	gatewayText := strings.Replace(base(t, "envoy"), "  - name: gateway\n    address", "  - name: gateway\n    traffic_direction: OUTBOUND\n    address", 1)
	require.Equal(t, []string{"GH101"}, codes(lintText(strings.Replace(gatewayText, "failure_mode_allow: false", "failure_mode_allow: true", 1))))
	out := strings.Replace(secondListener(plainManager("route: {cluster: orders}")), "  - name: second\n", "  - name: second\n    traffic_direction: OUTBOUND\n", 1)
	require.Equal(t, []string{"GH102"}, codes(lintText(strings.NewReplacer(listeners, out, clusters, clusters+orders).Replace(gatewayText))))
	sidecar := strings.Replace(gatewayText, "OUTBOUND", "INBOUND", 1)
	require.Empty(t, lintText(strings.NewReplacer(listeners, out, clusters, clusters+orders).Replace(sidecar)))
}

// egctl writes dumps below the names of gateways; kubectl writes lists.
func TestFormsOfTools(t *testing.T) {
	var whole map[string]any
	require.NoError(t, yaml.Load([]byte(strings.Replace(base(t, "envoy"), "normalize_path: true", "normalize_path: false", 1)), &whole))
	dump := map[string]any{"configs": []any{map[string]any{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": whole}}}
	text, err := yaml.Dump(map[string]any{"xds": map[string]any{"default/eg": dump}})
	require.NoError(t, err)
	require.Equal(t, []string{"GH301"}, codes(lintText(string(text))))
	text, err = yaml.Dump(map[string]any{"xds": map[string]any{"default/eg": dump["configs"].([]any)[0]}})
	require.NoError(t, err)
	require.Equal(t, []string{"GH301"}, codes(lintText(string(text))))

	var items []any
	for doc := range strings.SplitSeq(strings.Replace(base(t, "envoy-gateway"), "failOpen: false", "failOpen: true", 1), "---\n") {
		var one any
		require.NoError(t, yaml.Load([]byte(doc), &one))
		items = append(items, one)
	}
	text, err = yaml.Dump(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
	require.NoError(t, err)
	findings := lintText(string(text))
	require.Equal(t, []string{"GH601"}, codes(findings))
	require.Equal(t, "SecurityPolicy gatehouse", findings[0].Within)
	require.Equal(t, "items[0].spec.extAuth.failOpen", findings[0].Place)
}

// What is not in the files is said, so that "nothing found" is never "nothing
// looked at".
func TestWhatIsElsewhereIsSaid(t *testing.T) {
	for name, text := range map[string]string{
		"listeners":     "dynamic_resources: {lds_config: {ads: {}}, cds_config: {ads: {}}}\n",
		"routes":        byRDS(t),
		"the provider":  "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {action: CUSTOM, provider: {name: gatehouse}, rules: [{}]}\n",
		"virtual hosts": strings.Replace(base(t, "envoy"), "            virtual_hosts:\n", "            vhds: {config_source: {ads: {}}}\n            virtual_hosts:\n", 1),
		"the filter": strings.Replace(base(t, "envoy"), before, `          - name: extra
            config_discovery: {config_source: {ads: {}}, type_urls: [type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz]}
`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, codes(lintText(text)), "GH007")
		})
	}
}

// byRDS is the base with its routes somewhere else.
func byRDS(t *testing.T) string {
	t.Helper()
	var whole map[string]any
	require.NoError(t, yaml.Load([]byte(base(t, "envoy")), &whole))
	manager := find(whole, "route_config")
	delete(manager, "route_config")
	manager["rds"] = map[string]any{"route_config_name": "elsewhere", "config_source": map[string]any{"ads": map[string]any{}}}
	text, err := yaml.Dump(whole)
	require.NoError(t, err)
	return string(text)
}

// A name can't do anything to the terminal that it is printed on.
func TestNamesArePrintable(t *testing.T) {
	text := strings.Replace(base(t, "envoy"), "              - name: auth\n                match: {path_separated_prefix: /auth}", `              - name: "au\e]0;th\a"`+"\n                match: {prefix: /auth}", 1)
	findings := lintText(text)
	require.Equal(t, []string{"GH207"}, codes(findings))
	require.NotContains(t, findings[0].Within+findings[0].Message, "\x1b")
}

// A mesh configuration comes in many wrappings.
func TestFormsOfIstio(t *testing.T) {
	const config = `extensionProviders:
- name: gatehouse
  envoyExtAuthzGrpc: {service: gatehouse.auth.svc.cluster.local, port: 9001, timeout: 1s, statusOnError: "503", failOpen: true}
pathNormalization: {normalization: MERGE_SLASHES}
`
	below := func(indent string) string {
		return "\n" + indent + strings.ReplaceAll(strings.TrimSuffix(config, "\n"), "\n", "\n"+indent) + "\n"
	}
	for name, text := range map[string]string{
		"alone":         config,
		"Helm values":   "global: {}\nmeshConfig:" + below("  "),
		"IstioOperator": "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  meshConfig:" + below("    "),
		"Sail operator": "apiVersion: sailoperator.io/v1\nkind: Istio\nmetadata: {name: default}\nspec:\n  values:\n    meshConfig:" + below("      "),
		"ConfigMap":     "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: |" + below("    "),
	} {
		t.Run(name, func(t *testing.T) {
			findings := lintText(text)
			require.Equal(t, []string{"GH501"}, codes(findings), "%+v", findings)
			require.Contains(t, strings.Split(text, "\n")[findings[0].Line-1][findings[0].Column-1:], "failOpen: true")
		})
	}
	// The policy in one file, the provider in another.
	policy := "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {action: CUSTOM, provider: {name: %s}, rules: [{}]}\n"
	together := func(provider string) []string {
		return codes(lint.Lint([]lint.Source{
			{Name: "policy", Data: fmt.Appendf(nil, policy, provider)}, {Name: "mesh", Data: []byte(strings.Replace(config, ", failOpen: true", "", 1))},
		}, lint.Options{}))
	}
	require.Empty(t, together("gatehouse"))
	require.Equal(t, []string{"GH502"}, together("opa"))
}

// Istio sends no name of a policy, and Envoy Gateway does where it is told to.
func TestPoliciesOfIstioAndEnvoyGateway(t *testing.T) {
	known := func(text string, g lint.Gatehouse) []string {
		g.Kinds = []authz.Kind{authz.KindSession}
		return codes(lint.Lint([]lint.Source{{Name: "f", Data: []byte(text)}}, lint.Options{Gatehouse: &g}))
	}
	require.Equal(t, []string{"GH206"}, known(base(t, "istio"), lint.Gatehouse{Policies: []string{"user"}}))
	require.Empty(t, known(base(t, "istio"), lint.Gatehouse{Policies: []string{"user"}, Fallback: true}))
	eg := strings.Replace(base(t, "envoy-gateway"), "failOpen: false", "contextExtensions: [{name: policy, type: Value, value: user}]", 1)
	require.Empty(t, known(eg, lint.Gatehouse{Policies: []string{"user"}}))
	require.Equal(t, []string{"GH205"}, known(eg, lint.Gatehouse{Policies: []string{"users"}}))
	// Nobody shows a token here, so it may stay hidden.
	require.Empty(t, known(strings.Replace(eg, "authorization, ", "", 1), lint.Gatehouse{Policies: []string{"user"}}))
}

// What is found depends on where a path really goes.
func TestNeighbouringRoutes(t *testing.T) {
	routes := func(list string) string {
		text := base(t, "envoy")
		from, to := strings.Index(text, "              - name: refuse-path"), strings.Index(text, "  # more listeners")
		return text[:from] + list + text[to:]
	}
	route := func(match, action, policy string) string {
		return "              - match: {" + match + "}\n                " + action + "\n                typed_per_filter_config: {envoy.filters.http.ext_authz: {" +
			perRoute + ", check_settings: {context_extensions: {policy: " + policy + "}}}}\n"
	}
	const users, orders, refuse = "route: {cluster: users}", "route: {cluster: gatehouse_http}", "direct_response: {status: 404}"
	loose := route(`prefix: "/"`, users, "user")
	for name, tc := range map[string]struct {
		list string
		want []string
	}{
		"covered in every form":       {route(`safe_regex: {regex: "(?i)/admin([/;].*)?"}`, users, "admin") + loose, nil},
		"a regex without the path":    {route(`safe_regex: {regex: "^/admin/.*"}`, users, "admin") + loose, []string{"GH208", "GH209", "GH211"}},
		"the rest is another service": {route("prefix: /admin/", users, "admin") + route(`prefix: "/"`, orders, "user"), nil},
		"the rest is refused":         {route("prefix: /admin/", users, "admin") + route(`prefix: "/"`, refuse, "user"), nil},
		"the rest has the same":       {route("prefix: /admin/", users, "admin") + route(`prefix: "/"`, users, "admin"), nil},
		"refused in between":          {route("prefix: /admin/", users, "admin") + route(`safe_regex: {regex: "(?i)/admin.*"}`, refuse, "x") + loose, nil},
		"the looser one first":        {loose + route("path_separated_prefix: /admin", users, "admin"), []string{"GH210"}},
		"for some requests only":      {route(`prefix: "/", headers: [{name: x-beta, present_match: true}]`, users, "user") + route("path_separated_prefix: /admin", users, "user"), nil},
		"a loose prefix":              {route("prefix: /admin, case_sensitive: false", users, "admin") + loose, []string{"GH207"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, append([]string{}, tc.want...), codes(lintText(routes(tc.list))))
		})
	}
}
