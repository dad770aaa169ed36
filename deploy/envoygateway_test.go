package deploy_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/envoy/lint"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// translate returns what Envoy Gateway makes of our objects, changed by pairs of
// old and new text, and more of them.
func translate(t *testing.T, more string, changes ...string) []byte {
	t.Helper()
	path := proctest.NeedHeavy(t, "egctl", "scripts/tools.sh egctl")
	certificates := newAuthority(t)
	certificates.issue(t, "client", "gateway.example.com")
	var b strings.Builder
	for _, file := range []string{"gateway.yaml", "security.yaml", "routes.yaml"} {
		b.WriteString("---\n" + string(read(t, "envoy-gateway/"+file)))
	}
	// egctl knows no EndpointSlices, which a headless Service needs.
	b.WriteString(strings.Replace(clusterObjects(), "clusterIP: None", "clusterIP: 10.0.0.1", 1))
	file := func(name string) string {
		return base64.StdEncoding.EncodeToString(read(t, filepath.Join(certificates.dir, name)))
	}
	for _, name := range []string{"gateway-tls", "gateway-client-tls"} {
		b.WriteString("---\napiVersion: v1\nkind: Secret\nmetadata: {name: " + name + ", namespace: gateways}\ntype: kubernetes.io/tls\n" +
			"data: {tls.crt: " + file("client.crt") + ", tls.key: " + file("client.key") + "}\n")
	}
	b.WriteString("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: gatehouse-ca, namespace: auth}\ndata:\n  ca.crt: |\n    " +
		strings.ReplaceAll(strings.TrimSpace(string(read(t, filepath.Join(certificates.dir, "ca.crt")))), "\n", "\n    ") + "\n---\n" + more)
	text := b.String()
	// egctl forgets the labels of namespaces, so that no selector matches.
	changes = append(changes, "namespaces: {from: Selector, selector: {matchLabels: {gateway: public}}}", "namespaces: {from: All}")
	for i := 0; i < len(changes); i += 2 {
		require.Contains(t, text, changes[i])
		text = strings.Replace(text, changes[i], changes[i+1], 1)
	}
	input := filepath.Join(t.TempDir(), "objects.yaml")
	require.NoError(t, os.WriteFile(input, []byte(text), 0o600))
	cmd := exec.CommandContext(t.Context(), path, "x", "translate", "--from", "gateway-api", "--to", "xds", "-o", "json", "-f", input)
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	require.NoError(t, err, problems.String())
	return out
}

// envoyGateway reads what [translate] returned.
func envoyGateway(t *testing.T, text []byte) xds {
	t.Helper()
	var dump struct {
		XDS map[string]struct{ Configs []map[string]any } `json:"xds"`
	}
	require.NoError(t, json.Unmarshal(text, &dump))
	require.Contains(t, dump.XDS, "gateways/public")
	x := xds{routes: map[string]node{}, endpoints: map[string]node{}}
	for _, config := range dump.XDS["gateways/public"].Configs {
		c := node(config)
		for _, l := range c.list("dynamicListeners") {
			x.listeners = append(x.listeners, l.sub("activeState", "listener"))
		}
		for _, l := range c.list("dynamicActiveClusters") {
			x.clusters = append(x.clusters, l.sub("cluster"))
		}
		for _, r := range c.list("dynamicRouteConfigs") {
			x.routes[r.sub("routeConfig").text("name")] = r.sub("routeConfig")
		}
		for _, e := range c.list("dynamicEndpointConfigs") {
			x.endpoints[e.sub("endpointConfig").text("clusterName")] = e.sub("endpointConfig")
		}
	}
	return x
}

func gatewayCertificates(t *testing.T) *authority {
	t.Helper()
	a := newAuthority(t)
	a.issue(t, "server", "gatehouse-check.auth.svc")
	a.issue(t, "client", "gateway.example.com")
	return a
}

// checkedRoutes returns for each route of a gateway whether it is checked, and
// the policy that it names.
func checkedRoutes(routes node) map[string]string {
	checked := map[string]string{}
	for _, host := range routes.list("virtualHosts") {
		for _, r := range host.list("routes") {
			how := "not checked"
			if r["directResponse"] != nil {
				status, _ := json.Marshal(r.sub("directResponse")["status"])
				how = string(status)
			}
			for filter := range r.sub("typedPerFilterConfig") {
				if strings.HasPrefix(filter, "envoy.filters.http.ext_authz/") {
					how = "checked"
					if policy := r.sub("typedPerFilterConfig", filter, "checkSettings", "contextExtensions").text("policy"); policy != "" {
						how += " as " + policy
					}
				}
			}
			name := r.text("name")
			if match := r.sub("match"); match != nil {
				name = match.text("path") + match.text("pathSeparatedPrefix") + match.text("prefix") + match.sub("safeRegex").text("regex")
			}
			checked[name] = how
		}
	}
	return checked
}

// TestEnvoyGateway runs what Envoy Gateway makes of the objects.
func TestEnvoyGateway(t *testing.T) {
	text := translate(t, "")
	certificates := gatewayCertificates(t)
	x := envoyGateway(t, text)
	manager, routes := x.gateway(t)

	require.Equal(t, true, manager["normalizePath"])
	require.Equal(t, true, manager["mergeSlashes"])
	require.Equal(t, "REJECT_REQUEST", manager["pathWithEscapedSlashesAction"])
	require.Equal(t, "REJECT_REQUEST", manager.sub("commonHttpProtocolOptions")["headersWithUnderscoresAction"])
	require.Equal(t, true, manager["useRemoteAddress"])
	require.NotContains(t, manager.sub("httpProtocolOptions"), "enableTrailers")
	require.NotContains(t, manager, "upgradeConfigs")

	require.Equal(t, map[string]string{
		"/auth": "not checked", "/.well-known/jwks.json": "not checked",
		"/users": "checked", "/public": "checked", "/orders": "checked", "/banking": "checked",
		"(?i)/users/admin(/.*)?": "checked as admin", "(?i)/users/internal(/.*)?": "checked as internal",
	}, checkedRoutes(routes))

	buffered := map[string]any{}
	for _, host := range routes.list("virtualHosts") {
		for _, r := range host.list("routes") {
			if b := r.sub("typedPerFilterConfig", "envoy.filters.http.buffer"); b != nil {
				buffered[r.sub("match").text("path")+r.sub("match").text("pathSeparatedPrefix")] = b.sub("buffer")["maxRequestBytes"]
			}
		}
	}
	require.Equal(t, map[string]any{"/auth": 65536., "/.well-known/jwks.json": 65536.}, buffered, "whole calls of the auth API; services get bodies as they come")

	filters := 0
	last := ""
	for _, f := range manager.list("httpFilters") {
		last = f.text("name")
		if !strings.HasPrefix(last, "envoy.filters.http.ext_authz/") {
			continue
		}
		filters++
		c := f.sub("typedConfig")
		require.NotContains(t, c, "failureModeAllow", "false")
		require.NotContains(t, c, "clearRouteCache", "false")
		require.NotContains(t, c, "withRequestBody")
		require.Equal(t, "ServiceUnavailable", c.sub("statusOnError").text("code"))
		require.Equal(t, "1s", c.sub("grpcService").text("timeout"), "merged into the routes' own policies, too")
		require.Equal(t, "connect-failure,refused-stream,reset,unavailable", c.sub("grpcService", "retryPolicy").text("retryOn"))
		require.Len(t, c.sub("allowedHeaders").list("patterns"), 13)
	}
	linted := lint.Lint([]lint.Source{{Name: "xds.json", Data: text}}, lint.Options{})
	require.False(t, slices.ContainsFunc(linted, func(f lint.Finding) bool { return f.Severity == lint.Error }), "%+v", linted)
	require.Equal(t, 3, filters, "the Gateway's, and those of two routes")
	require.Equal(t, "envoy.filters.http.router", last)

	testGateway(t, startStack(t, x, "envoy-gateway/values.yaml", certificates))

	t.Run("somebody else answers in Gatehouse's place", func(t *testing.T) {
		certificates := gatewayCertificates(t)
		certificates.issue(t, "server", "somebody-else.auth.svc")
		s := startStack(t, envoyGateway(t, text), "envoy-gateway/values.yaml", certificates)
		status, _ := s.ask(t, "/users/me", s.session(t, "alice"))
		require.Equal(t, http.StatusServiceUnavailable, status, "a name that is not Gatehouse's")
	})
}

// TestEnvoyGatewayPitfalls: the README warns of these, so they are as it says.
func TestEnvoyGatewayPitfalls(t *testing.T) {
	route := func(t *testing.T, name string, text []byte) string {
		t.Helper()
		_, routes := envoyGateway(t, text).gateway(t)
		checked := checkedRoutes(routes)
		require.Contains(t, checked, name)
		return checked[name]
	}
	t.Run("a route's own policy switches the check off", func(t *testing.T) {
		const cors = `apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: cors, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]
  cors: {allowOrigins: ["https://www.example.com"]}
`
		open := translate(t, cors)
		require.Equal(t, "not checked", route(t, "/users", open))
		// lint sees it, in what comes out and in what goes in.
		found := func(sources ...lint.Source) (places []string) {
			for _, f := range lint.Lint(sources, lint.Options{}) {
				if f.Severity == lint.Error {
					places = append(places, f.Code+" "+f.File+" "+f.Within)
				}
			}
			return places
		}
		out := found(lint.Source{Name: "xds.json", Data: open})
		require.Len(t, out, 4, "the four paths of the route")
		for _, one := range out {
			require.Contains(t, one, "GH103 xds.json")
			require.Contains(t, one, "httproute/shop/shop/rule/")
		}
		in := []lint.Source{{Name: "cors.yaml", Data: []byte(cors)}}
		for _, file := range []string{"gateway.yaml", "security.yaml", "routes.yaml"} {
			in = append(in, lint.Source{Name: file, Data: read(t, "envoy-gateway/"+file)})
		}
		require.Equal(t, []string{"GH602 cors.yaml SecurityPolicy cors"}, found(in...))
		merged := cors + "  mergeType: StrategicMerge\n"
		require.Equal(t, "checked", route(t, "/users", translate(t, merged)))
	})
	t.Run("a grant is missing", func(t *testing.T) {
		text := translate(t, "", "kind: SecurityPolicy, namespace: gateways}]", "kind: SecurityPolicy, namespace: elsewhere}]")
		require.Equal(t, "500", route(t, "/users", text), "refused, not let through")
	})
	t.Run("a grant is missing, and failOpen is true", func(t *testing.T) {
		text := translate(t, "", "kind: SecurityPolicy, namespace: gateways}]", "kind: SecurityPolicy, namespace: elsewhere}]", "failOpen: false", "failOpen: true")
		require.Equal(t, "not checked", route(t, "/users", text))
	})
	t.Run("no pod of Gatehouse is ready", func(t *testing.T) {
		text := translate(t, "", "clusterIP: 10.0.0.1", "clusterIP: None") // and egctl knows no EndpointSlices
		require.Equal(t, "500", route(t, "/users", text), "refused, not let through")
	})
	t.Run("Gatehouse's Service is missing", func(t *testing.T) {
		text := translate(t, "", "metadata: {name: gatehouse-check, namespace: auth}\nspec: {clusterIP", "metadata: {name: gatehouse-gone, namespace: auth}\nspec: {clusterIP")
		require.Equal(t, "500", route(t, "/users", text), "refused, not let through")
	})
}
