package deploy_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// Objects that are shipped, beside the chart's.
var shippedObjects = []string{
	"envoy-gateway/gateway.yaml", "envoy-gateway/routes.yaml", "envoy-gateway/security.yaml",
	"istio/gate.yaml", "istio/gateway.yaml",
}

// crds returns the directory with the schemas of custom objects, which
// scripts/tools.sh takes from the modules of those who define them.
func crds(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_CRDS")
	if dir == "" {
		dir = "../.tools/crds"
	}
	if _, err := os.Stat(filepath.Join(dir, "istio.yaml")); err != nil {
		t.Skip("the schemas of custom objects are not installed: run 'scripts/tools.sh crds', or set GATEHOUSE_CRDS to their directory")
	}
	return dir
}

// validate holds objects against the schemas of Kubernetes, offline.
func validate(t *testing.T, files ...string) (output string, err error) {
	t.Helper()
	path := proctest.NeedHeavy(t, "kubectl-validate", "scripts/tools.sh kubectl-validate")
	args := append([]string{"--version", "1.30", "--local-crds", crds(t)}, files...)
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(t.TempDir(), "none"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestShippedObjectsAreValid(t *testing.T) {
	out, err := validate(t, shippedObjects...)
	require.NoError(t, err, out)
	require.Equal(t, len(shippedObjects), strings.Count(out, "OK"), out)

	// It would have noticed.
	for _, c := range []struct{ file, from, to, message string }{
		{"envoy-gateway/security.yaml", "failOpen: false", "failOpened: false", "failOpened"},
		{"envoy-gateway/security.yaml", "statusOnError: 503", "statusOnError: 200", "statusOnError"},
		{"envoy-gateway/gateway.yaml", "RejectRequest # the", "Reject # the", "escapedSlashesAction"},
		{"istio/gate.yaml", "action: CUSTOM", "action: ASK", "action"},
		{"istio/gate.yaml", "notPaths", "notPath", "notPath"},
	} {
		text := string(read(t, c.file))
		require.Contains(t, text, c.from)
		broken := filepath.Join(t.TempDir(), "broken.yaml")
		require.NoError(t, os.WriteFile(broken, []byte(strings.Replace(text, c.from, c.to, 1)), 0o600))
		out, err := validate(t, broken)
		require.Error(t, err, out)
		require.Contains(t, out, c.message)
	}
}

func TestChartObjectsAreValid(t *testing.T) {
	for name, values := range map[string]string{
		"required": "", "everything": everything, "ops on loopback": `config: {server: {ops: {listen: "127.0.0.1:9090"}}}`,
		"Istio": string(read(t, "istio/values.yaml")), "Envoy Gateway": string(read(t, "envoy-gateway/values.yaml")),
	} {
		t.Run(name, func(t *testing.T) {
			m := render(t, required, values)
			var objects []string
			for object := range strings.SplitSeq(m.text, "\n---\n") {
				// The schema of these is in no Go module.
				if !strings.Contains(object, "kind: ServiceMonitor") && !strings.Contains(object, "kind: PodMonitor") {
					objects = append(objects, object)
				}
			}
			file := filepath.Join(t.TempDir(), "objects.yaml")
			require.NoError(t, os.WriteFile(file, []byte(strings.Join(objects, "\n---\n")), 0o600))
			out, err := validate(t, file)
			require.NoError(t, err, out)

			broken := strings.Replace(strings.Join(objects, "\n---\n"), "readOnlyRootFilesystem", "readOnlyRoot", 1)
			require.NoError(t, os.WriteFile(file, []byte(broken), 0o600))
			out, err = validate(t, file)
			require.Error(t, err)
			require.Contains(t, out, "readOnlyRoot")
		})
	}
}

// TestValuesFitTheChart: without helm, what can be said of the values that
// Istio and Envoy Gateway are shipped with.
func TestValuesFitTheChart(t *testing.T) {
	for _, file := range []string{"istio/values.yaml", "envoy-gateway/values.yaml"} {
		require.NoError(t, valuesSchema(t).Validate(asJSON(t, read(t, file))), file)
	}
}

// policyExtension finds the policies that a gateway names.
var policyExtension = regexp.MustCompile(`\{name: policy, type: Value, value: ([\w-]+)\}`)

// TestObjectsNameWhatTheChartMakes: Services, ports, labels and policies that
// the objects refer to are there.
func TestObjectsNameWhatTheChartMakes(t *testing.T) {
	for name, tls := range map[string]bool{"istio": false, "envoy-gateway": true} {
		t.Run(name, func(t *testing.T) {
			m := render(t, `image: {repository: registry.example.com/gatehouse}`, string(read(t, name+"/values.yaml")))
			c := m.load(t, everythingSecret(t))
			require.Equal(t, tls, c.Server.Check.TLS.Enabled(), "in a mesh, TLS is the sidecars'")
			require.Equal(t, 9001, m.services["gatehouse-check"].Spec.Ports[0].Port)
			require.Equal(t, 8081, m.services["gatehouse"].Spec.Ports[0].Port)

			var text strings.Builder
			for _, file := range shippedObjects {
				if strings.HasPrefix(file, name+"/") {
					text.Write(read(t, file))
				}
			}
			for _, policy := range policyExtension.FindAllStringSubmatch(text.String(), -1) {
				require.Contains(t, c.Policies, policy[1])
			}
			// What the gateway's own name for a policy says, the routes say too.
			for _, policy := range []string{"admin", "internal", "banking", "public"} {
				require.Contains(t, c.Policies, policy)
			}
			require.Equal(t, "user", c.DefaultPolicy)
			require.Equal(t, 1, c.Server.HTTP.TrustedHops)
		})
	}
}

// TestPodRuns starts Gatehouse as the chart's pod does, with its arguments,
// environment and files, and asks it what the kubelet asks.
func TestPodRuns(t *testing.T) {
	redis := proctest.StartRedis(t)
	ports := proctest.FreePorts(t, 3)
	for name, c := range map[string]struct{ opsHost, values string }{
		"the kubelet asks": {"", ""},
		"a process asks":   {"127.0.0.1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			ops := fmt.Sprintf("%s:%d", c.opsHost, ports[2])
			m := render(t, required, fmt.Sprintf(`config: {server: {check: {listen: ":%d"}, http: {listen: ":%d"}, ops: {listen: "%s"}, drain: 0s}}`, ports[0], ports[1], ops))
			secret := map[string]string{"session-secrets": "0123456789abcdef", "redis-url": "redis://" + redis.Addr + "/0"}
			startPod(t, m, secret)
			container := m.container(t)
			for kind, p := range map[string]probe{"startup": container.StartupProbe, "liveness": container.LivenessProbe, "readiness": container.ReadinessProbe} {
				require.Eventually(t, func() bool {
					if p.Exec != nil {
						cmd := exec.CommandContext(t.Context(), gatehouse(t), p.Exec.Command[1:]...)
						return cmd.Run() == nil
					}
					return proc.HTTP(fmt.Sprintf("http://127.0.0.1:%d%s", ports[2], p.HTTPGet.Path))(t.Context()) == nil
				}, 10*time.Second, 50*time.Millisecond, kind)
			}
		})
	}
}

// startPod runs the container of a rendered Deployment as a process here.
func startPod(t *testing.T, m manifests, secret map[string]string) *proc.Process {
	t.Helper()
	// Not on every address of this machine.
	m.files["gatehouse.yaml"] = strings.ReplaceAll(m.files["gatehouse.yaml"], "listen: :", "listen: 127.0.0.1:")
	dir, env := m.mount(t, secret)
	var environment []string
	for name, value := range env {
		environment = append(environment, name+"="+value)
	}
	args := m.container(t).Args
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "/etc/gatehouse/", dir+"/")
	}
	return proctest.Start(t, gatehouse(t), args, proc.Options{Env: environment})
}

// gatehouse is the program under test, built once.
func gatehouse(t *testing.T) string {
	t.Helper()
	path, err := buildGatehouse()
	require.NoError(t, err)
	return path
}

var buildGatehouse = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binDir, "gatehouse")
	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", path, "../cmd/gatehouse").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build gatehouse: %w\n%s", err, out)
	}
	return path, nil
})

// binDir is removed when all tests are done.
var binDir string

func TestMain(m *testing.M) {
	code, err := func() (int, error) {
		dir, err := os.MkdirTemp("", "gatehouse-deploy")
		if err != nil {
			return 1, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		binDir = dir
		return m.Run(), nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}
