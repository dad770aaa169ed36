package deploy_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/envoy/lint"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// istioFiles writes what istio-translate is given, changed by pairs of old and
// new text, and returns its arguments.
func istioFiles(t *testing.T, changes ...string) []string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	var istiod struct {
		MeshConfig map[string]any `yaml:"meshConfig"`
	}
	require.NoError(t, yaml.Unmarshal(read(t, "istio/istiod-values.yaml"), &istiod))
	mesh, err := yaml.Marshal(istiod.MeshConfig)
	require.NoError(t, err)
	var gateway struct {
		PodAnnotations map[string]string `yaml:"podAnnotations"`
	}
	require.NoError(t, yaml.Unmarshal(read(t, "istio/gateway-values.yaml"), &gateway))
	require.NotEmpty(t, gateway.PodAnnotations["proxy.istio.io/config"])

	istio := string(read(t, "istio/gateway.yaml")) + "\n---\n" + string(read(t, "istio/gate.yaml"))
	objects := clusterObjects() + `---
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system}
spec: {clusterIP: 10.0.0.9, selector: {istio: ingressgateway}, ports: [{name: https, port: 443, targetPort: 443, protocol: TCP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: user-service-1, namespace: shop, labels: {app: user-service}}
spec: {serviceAccountName: user-service, containers: [{name: main, image: user-service}]}
status: {phase: Running, podIP: 10.0.0.3, podIPs: [{ip: 10.0.0.3}]}
`
	for i := 0; i < len(changes); i += 2 {
		require.Contains(t, istio+objects, changes[i])
		istio = strings.Replace(istio, changes[i], changes[i+1], 1)
		objects = strings.ReplaceAll(objects, changes[i], changes[i+1])
	}
	return []string{
		"-mesh", write("mesh.yaml", string(mesh)), "-proxy", write("proxy.yaml", gateway.PodAnnotations["proxy.istio.io/config"]),
		"-istio", write("istio.yaml", istio), "-kubernetes", write("kubernetes.yaml", objects),
	}
}

// istio returns what Istio makes of our objects.
func istio(t *testing.T, args []string) xds {
	t.Helper()
	path := proctest.NeedHeavy(t, "istio-translate", "scripts/tools.sh istio")
	file := filepath.Join(t.TempDir(), "xds.json")
	log, err := exec.CommandContext(t.Context(), path, append([]string{"-out", file}, args...)...).CombinedOutput()
	require.NoError(t, err, string(log))
	var all struct{ Listeners, Routes, Clusters, Endpoints []node }
	require.NoError(t, json.Unmarshal(read(t, file), &all))
	x := xds{listeners: all.Listeners, clusters: all.Clusters, routes: map[string]node{}, endpoints: map[string]node{}}
	for _, r := range all.Routes {
		x.routes[r.text("name")] = r
	}
	for _, e := range all.Endpoints {
		x.endpoints[e.text("clusterName")] = e
	}
	return x
}

// lintIstio returns the errors that lint finds in what Istio has made.
func lintIstio(t *testing.T, x xds) (errors []string) {
	t.Helper()
	var resources []node
	for _, r := range x.routes {
		resources = append(resources, r)
	}
	text, err := json.Marshal(slices.Concat(x.listeners, x.clusters, resources))
	require.NoError(t, err)
	for _, f := range lint.Lint([]lint.Source{{Name: "xds.json", Data: text}}, lint.Options{}) {
		if f.Severity == lint.Error {
			errors = append(errors, f.Code+" "+f.Message)
		}
	}
	return errors
}

// TestLintSeesWhatIstioLeavesOut: in what comes out of the objects.
func TestLintSeesWhatIstioLeavesOut(t *testing.T) {
	require.Empty(t, lintIstio(t, istio(t, istioFiles(t))))
	wider := lintIstio(t, istio(t, istioFiles(t, "/.well-known/jwks.json]}}]", "/.well-known/jwks.json, /orders/*]}}]")))
	require.NotEmpty(t, wider)
	for _, one := range wider {
		require.Contains(t, one, "GH201 Route orders takes /orders/*, which is not checked, and leaves a client's own x-user-id")
	}
	less := lintIstio(t, istio(t, istioFiles(t, "x-user-roles, x-org-id", "x-user-roles")))
	require.NotEmpty(t, less)
	for _, one := range less {
		require.Regexp(t, "^GH201 Route auth takes .* x-org-id in the request", one)
	}
}

// TestIstio runs what Istio makes of the objects.
func TestIstio(t *testing.T) {
	x := istio(t, istioFiles(t))
	manager, _ := x.gateway(t)

	require.Equal(t, true, manager["normalizePath"])
	require.Equal(t, true, manager["mergeSlashes"])
	require.Equal(t, "REJECT_REQUEST", manager["pathWithEscapedSlashesAction"])
	require.Equal(t, "REJECT_REQUEST", manager.sub("commonHttpProtocolOptions")["headersWithUnderscoresAction"])
	require.Equal(t, true, manager["useRemoteAddress"])
	require.Contains(t, []any{nil, "SANITIZE"}, manager["forwardClientCertDetails"])
	require.Equal(t, "10s", manager["requestHeadersTimeout"])

	var filters []string
	for _, f := range manager.list("httpFilters") {
		filters = append(filters, f.text("name"))
		if f.text("name") != "envoy.filters.http.ext_authz" {
			continue
		}
		c := f.sub("typedConfig")
		require.NotContains(t, c, "failureModeAllow", "false")
		require.NotContains(t, c, "clearRouteCache", "false")
		require.NotContains(t, c, "allowedHeaders", "all of them reach Gatehouse")
		require.Equal(t, "ServiceUnavailable", c.sub("statusOnError").text("code"))
		require.Equal(t, "1s", c.sub("grpcService").text("timeout"))
		require.NotContains(t, c.sub("grpcService"), "retryPolicy", "the page says that there is none")
		require.Equal(t, "outbound|9001||gatehouse-check.auth.svc.cluster.local", c.sub("grpcService", "envoyGrpc").text("clusterName"))
	}
	rbac, check, router := indexOf(filters, "envoy.filters.http.rbac"), indexOf(filters, "envoy.filters.http.ext_authz"), indexOf(filters, "envoy.filters.http.router")
	require.True(t, 0 <= rbac && rbac < check && check < router && router == len(filters)-1, filters)

	testGateway(t, startStack(t, x, "istio/values.yaml", nil))
}

func indexOf(names []string, name string) int {
	for i, n := range names {
		if n == name {
			return i
		}
	}
	return -1
}

// TestIstioReachesEveryPod: a headless Service is endpoints for a gateway, not
// the original destination, which would be anything.
func TestIstioReachesEveryPod(t *testing.T) {
	x := istio(t, istioFiles(t))
	const name = "outbound|9001||gatehouse-check.auth.svc.cluster.local"
	for _, c := range x.clusters {
		if c.text("name") != name {
			continue
		}
		require.Equal(t, "EDS", c.text("type"))
		require.Equal(t, checkAddress, x.address(t, name))
		text, err := json.Marshal(c)
		require.NoError(t, err)
		require.Contains(t, string(text), "http2ProtocolOptions")
		require.Contains(t, string(text), `SubjectAltNames":[{"exact":"spiffe://cluster.local/ns/auth/sa/gatehouse"}]`, "the name of Gatehouse's service account is checked")
		return
	}
	require.Fail(t, "no such cluster")
}

// TestIstioClosesOtherWaysToTheServices reads what the sidecar of a service is
// told: it listens to nobody without a certificate of the mesh, and serves only
// the gateway and its neighbours.
func TestIstioClosesOtherWaysToTheServices(t *testing.T) {
	x := istio(t, append(istioFiles(t), "-sidecar", "10.0.0.3", "-namespace", "shop", "-labels", "app=user-service"))
	chains := 0
	for _, l := range x.listeners {
		if l.text("name") != "virtualInbound" {
			continue
		}
		for _, chain := range l.list("filterChains") {
			if chain.text("name") == "virtualInbound-blackhole" {
				continue // leads nowhere
			}
			chains++
			require.Equal(t, "tls", chain.sub("filterChainMatch").text("transportProtocol"), chain.text("name"))
			require.Equal(t, true, chain.sub("transportSocket", "typedConfig")["requireClientCertificate"], chain.text("name"))
		}
		served := 0
		connectionManagers(l, func(_, m node) {
			served++
			filters := m.list("httpFilters")
			var names []string
			for _, f := range filters {
				names = append(names, f.text("name"))
			}
			rbac := indexOf(names, "envoy.filters.http.rbac")
			require.True(t, 0 <= rbac && rbac < indexOf(names, "envoy.filters.http.router"), names)
			rules := filters[rbac].sub("typedConfig", "rules")
			require.NotContains(t, rules, "action", "ALLOW, so that what no policy names is denied")
			text, err := json.Marshal(rules["policies"])
			require.NoError(t, err)
			require.Len(t, rules.sub("policies"), 2)
			require.Contains(t, string(text), "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway")
			require.Contains(t, string(text), ".*/ns/shop/.*")
		})
		require.Positive(t, served)
	}
	require.Positive(t, chains)
}

// TestIstioDeniesWithoutGatehouse: a provider that Istio doesn't find is no
// reason to let anybody in.
func TestIstioDeniesWithoutGatehouse(t *testing.T) {
	x := istio(t, istioFiles(t, "{name: gatehouse-check, namespace: auth}", "{name: gatehouse-gone, namespace: auth}"))
	manager, _ := x.gateway(t)
	for _, f := range manager.list("httpFilters") {
		require.NotEqual(t, "envoy.filters.http.ext_authz", f.text("name"))
		if f.text("name") != "envoy.filters.http.rbac" {
			continue
		}
		rules := f.sub("typedConfig", "rules")
		require.Equal(t, "DENY", rules.text("action"))
		text, err := json.Marshal(rules)
		require.NoError(t, err)
		require.Contains(t, string(text), `"/auth/"`, "all but what is never checked")
		return
	}
	require.Fail(t, "nothing denies")
}

// TestIstioctlFindsNothing: Istio's own validation and analysis.
func TestIstioctlFindsNothing(t *testing.T) {
	path := proctest.NeedHeavy(t, "istioctl", "scripts/tools.sh istio")
	run := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
		return string(out), err
	}
	out, err := run("validate", "-f", "istio/gate.yaml", "-f", "istio/gateway.yaml")
	require.NoError(t, err, out)
	out, err = run("analyze", "--use-kube=false", "istio/gate.yaml", "istio/gateway.yaml")
	require.NoError(t, err, out)
	require.Contains(t, out, "No validation issues")

	// It would have noticed.
	broken := filepath.Join(t.TempDir(), "gate.yaml")
	require.NoError(t, os.WriteFile(broken, []byte(strings.Replace(string(read(t, "istio/gate.yaml")), "provider: {name: gatehouse}", "", 1)), 0o600))
	out, err = run("validate", "-f", broken)
	require.Error(t, err, out)
	require.Contains(t, out, "provider")
}
