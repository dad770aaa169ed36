package deploy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/deploy"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

const chartDir = "helm/gatehouse"

// The tests without helm: what is generated is fresh, and the files fit each
// other.

func TestChartIsFresh(t *testing.T) {
	schema, err := deploy.ChartSchema(read(t, "helm/values.schema.json"), config.Schema())
	require.NoError(t, err)
	require.Equal(t, string(schema), string(read(t, chartDir+"/values.schema.json")), "run 'make generate'")

	readme, err := deploy.ChartReadme(read(t, chartDir+"/README.md"), read(t, chartDir+"/values.yaml"))
	require.NoError(t, err)
	require.Equal(t, string(readme), string(read(t, chartDir+"/README.md")), "run 'make generate'")
}

// TestChartTemplatesParse finds what the template language itself refuses, and
// functions that helm doesn't have.
func TestChartTemplatesParse(t *testing.T) {
	// Those of helm and sprig that the chart uses.
	known := template.FuncMap{}
	for name := range strings.FieldsSeq(`add addf ceil contains deepCopy default dict fail floor float64 fromYaml
		get hasKey hasPrefix hasSuffix include int int64 kindIs list merge mulf nindent omit quote regexFind
		regexFindAll regexMatch replace set sha256sum ternary toString toYaml trimSuffix trunc`) {
		known[name] = func(...any) string { return "" }
	}
	files, err := filepath.Glob(chartDir + "/templates/*")
	require.NoError(t, err)
	require.Greater(t, len(files), 10)
	all := template.New("chart").Funcs(known)
	for _, file := range files {
		_, err := all.New(file).Parse(string(read(t, file)))
		require.NoError(t, err)
	}
	for _, m := range regexp.MustCompile(`include "([\w.]+)"`).FindAllStringSubmatch(all.Lookup(chartDir+"/templates/deployment.yaml").Root.String(), -1) {
		require.NotNil(t, all.Lookup(m[1]), "template %s", m[1])
	}
}

// valuesSchema is what helm validates values against.
func valuesSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(read(t, chartDir+"/values.schema.json")))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("values.schema.json", document))
	schema, err := c.Compile("values.schema.json")
	require.NoError(t, err)
	return schema
}

func asJSON(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	require.NoError(t, yaml.Unmarshal(text, &v))
	b, err := json.Marshal(v)
	require.NoError(t, err)
	v, err = jsonschema.UnmarshalJSON(bytes.NewReader(b))
	require.NoError(t, err)
	return v
}

func TestChartDefaultsFitTheirSchema(t *testing.T) {
	require.NoError(t, valuesSchema(t).Validate(asJSON(t, read(t, chartDir+"/values.yaml"))))
}

// TestChartDefaultsHoldNoSecret: what is in values.yaml is in every release.
func TestChartDefaultsHoldNoSecret(t *testing.T) {
	var values struct {
		Image   struct{ Repository string }
		Secrets struct {
			ExistingSecret string            `yaml:"existingSecret"`
			TrialValues    map[string]string `yaml:"trialValues"`
		}
		NetworkPolicy struct {
			Enabled  bool
			Gateways []any
		} `yaml:"networkPolicy"`
	}
	require.NoError(t, yaml.Unmarshal(read(t, chartDir+"/values.yaml"), &values))
	require.Empty(t, values.Secrets.ExistingSecret)
	require.Empty(t, values.Secrets.TrialValues)
	require.Empty(t, values.Image.Repository, "somebody else's image of that name would take its place")
	require.True(t, values.NetworkPolicy.Enabled)
	require.Empty(t, values.NetworkPolicy.Gateways, "a guess would let somebody in")
}

// badValues are refused by the schema, so by every helm command, with the
// place of the mistake.
var badValues = map[string]struct{ values, place string }{
	"a typo at the top":                  {`replicas: 3`, "replicas"},
	"a typo below":                       {`networkPolicy: {gateway: []}`, "gateway"},
	"a typo in gatehouse.yaml":           {`config: {redis: {uri: x}}`, "uri"},
	"a wrong word in gatehouse.yaml":     {`config: {policies: {user: {credentials: [cookie]}}}`, "credentials"},
	"a number as text":                   {`replicaCount: "2"`, "replicaCount"},
	"no pods":                            {`replicaCount: 0`, "replicaCount"},
	"a digest that is a tag":             {`image: {digest: v1.2.3}`, "digest"},
	"a tag in the repository":            {`image: {repository: "registry.example.com/gatehouse:1"}`, "repository"},
	"a peer that is a label":             {`networkPolicy: {gateways: [{app: envoy}]}`, "gateways"},
	"a peer that is everybody":           {`networkPolicy: {gateways: [{}]}`, "gateways"},
	"an environment variable's name":     {`secrets: {env: {"REDIS-URL": redis-url}}`, "REDIS-URL"},
	"a probe that helm would not refuse": {`probes: {readiness: {period: 5}}`, "period"},
	"a port out of range":                {`service: {check: {port: 70000}}`, "port"},
	"config as a list":                   {`config: [server]`, "config"},
}

func TestChartSchemaRefusesBadValues(t *testing.T) {
	schema := valuesSchema(t)
	for name, c := range badValues {
		t.Run(name, func(t *testing.T) {
			err := schema.Validate(asJSON(t, []byte(c.values)))
			require.ErrorContains(t, err, c.place)
		})
	}
}

// The tests with helm.

// helm runs helm, offline and without a home.
func helm(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	path := proctest.NeedHeavy(t, "helm", "make tools-kubernetes")
	cmd := exec.CommandContext(t.Context(), path, args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+filepath.Join(home, "none"))
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), errors.New(problems.String() + out.String() + err.Error())
	}
	return out.String(), nil
}

// required are the values that have no default.
const required = `
image: {repository: registry.example.com/team/gatehouse}
secrets: {existingSecret: gatehouse}
networkPolicy:
  gateways: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateways}}, podSelector: {matchLabels: {app: envoy}}}]
`

// manifests is what the chart makes of values.
type manifests struct {
	text     string
	kinds    map[string][]string // names
	pods     deployment
	services map[string]kubeService
	policy   *networkPolicy
	budget   *budget
	scaler   *scaler
	files    map[string]string // of the ConfigMap
	secret   map[string]string
	account  *serviceAccount
	monitors []monitor
}

// Objects are read strictly: what could get a pod out of its box, such as
// hostNetwork, can't come in unnoticed.
type (
	meta struct {
		Name        string            `yaml:"name"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
	}
	header struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
		Metadata   meta   `yaml:"metadata"`
	}
	selector struct {
		MatchLabels map[string]string `yaml:"matchLabels"`
	}
	deployment struct {
		header `yaml:",inline"`
		Spec   struct {
			Replicas *int `yaml:"replicas"`
			Strategy struct {
				Type          string         `yaml:"type"`
				RollingUpdate map[string]int `yaml:"rollingUpdate"`
			} `yaml:"strategy"`
			Selector selector `yaml:"selector"`
			Template struct {
				Metadata meta    `yaml:"metadata"`
				Spec     podSpec `yaml:"spec"`
			} `yaml:"template"`
		} `yaml:"spec"`
	}
	podSpec struct {
		ServiceAccountName string         `yaml:"serviceAccountName"`
		AutomountToken     *bool          `yaml:"automountServiceAccountToken"`
		EnableServiceLinks *bool          `yaml:"enableServiceLinks"`
		TerminationGrace   int            `yaml:"terminationGracePeriodSeconds"`
		SecurityContext    map[string]any `yaml:"securityContext"`
		ImagePullSecrets   []any          `yaml:"imagePullSecrets"`
		PriorityClassName  string         `yaml:"priorityClassName"`
		NodeSelector       any            `yaml:"nodeSelector"`
		Affinity           any            `yaml:"affinity"`
		Tolerations        any            `yaml:"tolerations"`
		TopologySpread     []topology     `yaml:"topologySpreadConstraints"`
		Containers         []container    `yaml:"containers"`
		Volumes            []volume       `yaml:"volumes"`
	}
	topology struct {
		MaxSkew           int      `yaml:"maxSkew"`
		TopologyKey       string   `yaml:"topologyKey"`
		WhenUnsatisfiable string   `yaml:"whenUnsatisfiable"`
		LabelSelector     selector `yaml:"labelSelector"`
		MatchLabelKeys    []string `yaml:"matchLabelKeys"`
	}
	container struct {
		Name            string   `yaml:"name"`
		Image           string   `yaml:"image"`
		ImagePullPolicy string   `yaml:"imagePullPolicy"`
		Args            []string `yaml:"args"`
		Env             []struct {
			Name      string `yaml:"name"`
			Value     string `yaml:"value"`
			ValueFrom struct {
				SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
			} `yaml:"valueFrom"`
		} `yaml:"env"`
		EnvFrom []any `yaml:"envFrom"`
		Ports   []struct {
			Name          string `yaml:"name"`
			ContainerPort int    `yaml:"containerPort"`
			Protocol      string `yaml:"protocol"`
		} `yaml:"ports"`
		StartupProbe    probe                        `yaml:"startupProbe"`
		LivenessProbe   probe                        `yaml:"livenessProbe"`
		ReadinessProbe  probe                        `yaml:"readinessProbe"`
		Resources       map[string]map[string]string `yaml:"resources"`
		SecurityContext map[string]any               `yaml:"securityContext"`
		VolumeMounts    []struct {
			Name      string `yaml:"name"`
			MountPath string `yaml:"mountPath"`
			ReadOnly  bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	probe struct {
		HTTPGet *struct {
			Path string `yaml:"path"`
			Port string `yaml:"port"`
		} `yaml:"httpGet"`
		Exec *struct {
			Command []string `yaml:"command"`
		} `yaml:"exec"`
		PeriodSeconds    int `yaml:"periodSeconds"`
		TimeoutSeconds   int `yaml:"timeoutSeconds"`
		FailureThreshold int `yaml:"failureThreshold"`
	}
	volume struct {
		Name      string                 `yaml:"name"`
		ConfigMap *struct{ Name string } `yaml:"configMap"`
		Secret    *struct {
			SecretName  string `yaml:"secretName"`
			DefaultMode int    `yaml:"defaultMode"`
		} `yaml:"secret"`
		EmptyDir map[string]any `yaml:"emptyDir"`
	}
	kubeService struct {
		header `yaml:",inline"`
		Spec   struct {
			Type                     string            `yaml:"type"`
			ClusterIP                string            `yaml:"clusterIP"`
			PublishNotReadyAddresses bool              `yaml:"publishNotReadyAddresses"`
			Selector                 map[string]string `yaml:"selector"`
			Ports                    []struct {
				Name        string `yaml:"name"`
				Port        int    `yaml:"port"`
				TargetPort  string `yaml:"targetPort"`
				Protocol    string `yaml:"protocol"`
				AppProtocol string `yaml:"appProtocol"`
			} `yaml:"ports"`
		} `yaml:"spec"`
	}
	networkPolicy struct {
		header `yaml:",inline"`
		Spec   struct {
			PodSelector selector      `yaml:"podSelector"`
			PolicyTypes []string      `yaml:"policyTypes"`
			Ingress     []networkRule `yaml:"ingress"`
			Egress      []networkRule `yaml:"egress"`
		} `yaml:"spec"`
	}
	networkRule struct {
		From  []any         `yaml:"from"`
		To    []any         `yaml:"to"`
		Ports []networkPort `yaml:"ports"`
	}
	networkPort struct {
		Protocol string `yaml:"protocol"`
		Port     int    `yaml:"port"`
	}
	budget struct {
		header `yaml:",inline"`
		Spec   struct {
			MaxUnavailable             any      `yaml:"maxUnavailable"`
			MinAvailable               any      `yaml:"minAvailable"`
			UnhealthyPodEvictionPolicy string   `yaml:"unhealthyPodEvictionPolicy"`
			Selector                   selector `yaml:"selector"`
		} `yaml:"spec"`
	}
	scaler struct {
		header `yaml:",inline"`
		Spec   struct {
			ScaleTargetRef map[string]string `yaml:"scaleTargetRef"`
			MinReplicas    int               `yaml:"minReplicas"`
			MaxReplicas    int               `yaml:"maxReplicas"`
			Metrics        []any             `yaml:"metrics"`
			Behavior       any               `yaml:"behavior"`
		} `yaml:"spec"`
	}
	serviceAccount struct {
		header         `yaml:",inline"`
		AutomountToken *bool `yaml:"automountServiceAccountToken"`
	}
	monitor struct {
		header `yaml:",inline"`
		Spec   struct {
			Selector  selector            `yaml:"selector"`
			Endpoints []map[string]string `yaml:"endpoints"`
			Pods      []map[string]string `yaml:"podMetricsEndpoints"`
		} `yaml:"spec"`
	}
)

// renderText returns what the chart makes of values, by 'helm template'.
func renderText(t *testing.T, release string, values ...string) (string, error) {
	t.Helper()
	args := []string{"template", release, chartDir, "--namespace", "auth"}
	for _, v := range values {
		file := filepath.Join(t.TempDir(), "values.yaml")
		require.NoError(t, os.WriteFile(file, []byte(v), 0o600))
		args = append(args, "--values", file)
	}
	return helm(t, args...)
}

func render(t *testing.T, values ...string) manifests {
	t.Helper()
	return renderAs(t, "gatehouse", values...)
}

func renderAs(t *testing.T, release string, values ...string) manifests {
	t.Helper()
	text, err := renderText(t, release, values...)
	require.NoError(t, err)
	m := manifests{text: text, kinds: map[string][]string{}, services: map[string]kubeService{}}
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var n yaml.Node
		if err := d.Decode(&n); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		var h header
		require.NoError(t, n.Decode(&h))
		if h.Kind == "" {
			continue // a template that made nothing
		}
		m.kinds[h.Kind] = append(m.kinds[h.Kind], h.Metadata.Name)
		one, err := yaml.Marshal(&n)
		require.NoError(t, err)
		strict := func(into any) {
			t.Helper()
			require.NoError(t, yaml.Load(one, into, yaml.WithKnownFields()), "%s %s", h.Kind, h.Metadata.Name)
		}
		switch h.Kind {
		case "Deployment":
			strict(&m.pods)
		case "Service":
			var s kubeService
			strict(&s)
			m.services[h.Metadata.Name] = s
		case "NetworkPolicy":
			m.policy = new(networkPolicy)
			strict(m.policy)
		case "PodDisruptionBudget":
			m.budget = new(budget)
			strict(m.budget)
		case "HorizontalPodAutoscaler":
			m.scaler = new(scaler)
			strict(m.scaler)
		case "ServiceAccount":
			m.account = new(serviceAccount)
			strict(m.account)
		case "ConfigMap":
			var c struct {
				header `yaml:",inline"`
				Data   map[string]string `yaml:"data"`
			}
			strict(&c)
			m.files = c.Data
		case "Secret":
			var s struct {
				header     `yaml:",inline"`
				Type       string            `yaml:"type"`
				StringData map[string]string `yaml:"stringData"`
			}
			strict(&s)
			m.secret = s.StringData
		case "ServiceMonitor", "PodMonitor":
			var s monitor
			strict(&s)
			m.monitors = append(m.monitors, s)
		default:
			require.Fail(t, "an object that these tests don't know", h.Kind)
		}
	}
	return m
}

func (m manifests) container(t *testing.T) container {
	t.Helper()
	require.Len(t, m.pods.Spec.Template.Spec.Containers, 1)
	return m.pods.Spec.Template.Spec.Containers[0]
}

// load reads the ConfigMap's gatehouse.yaml as a pod would: files of the Secret
// below the mount, variables from its keys.
func (m manifests) load(t *testing.T, secret map[string]string) *config.Config {
	t.Helper()
	c, err := m.tryLoad(t, secret)
	require.NoError(t, err)
	return c
}

func (m manifests) tryLoad(t *testing.T, secret map[string]string) (*config.Config, error) {
	t.Helper()
	dir, env := m.mount(t, secret)
	c, _, err := config.Load(filepath.Join(dir, "config/gatehouse.yaml"), func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	})
	return c, err
}

// mount lays out what a pod sees at /etc/gatehouse, elsewhere, and returns the
// environment.
func (m manifests) mount(t *testing.T, secret map[string]string) (dir string, env map[string]string) {
	t.Helper()
	dir = t.TempDir()
	files := map[string]string{}
	c := m.container(t)
	for _, v := range c.VolumeMounts {
		require.True(t, v.ReadOnly, v.Name)
		i := slices.IndexFunc(m.pods.Spec.Template.Spec.Volumes, func(o volume) bool { return o.Name == v.Name })
		require.GreaterOrEqual(t, i, 0, "volume %s", v.Name)
		place, ok := strings.CutPrefix(v.MountPath, "/etc/gatehouse/")
		require.True(t, ok, v.MountPath)
		contents := secret
		if m.pods.Spec.Template.Spec.Volumes[i].ConfigMap != nil {
			contents = m.files
		}
		for name, text := range contents {
			files[filepath.Join(place, name)] = strings.ReplaceAll(text, "/etc/gatehouse/", dir+"/")
		}
	}
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	env = map[string]string{}
	for _, e := range c.Env {
		if key := e.ValueFrom.SecretKeyRef.Key; key != "" {
			require.Contains(t, secret, key)
			env[e.Name] = secret[key]
			continue
		}
		env[e.Name] = e.Value
	}
	require.Equal(t, []string{"serve", "--config", "/etc/gatehouse/config/gatehouse.yaml"}, c.Args)
	return dir, env
}

var trialSecret = map[string]string{
	"session-secrets": "0123456789abcdef0123456789abcdef",
	"redis-url":       "redis://:pass@redis.store.svc:6379/0",
}

func TestChartLints(t *testing.T) {
	out, err := helm(t, "lint", "--strict", chartDir)
	require.NoError(t, err)
	require.NotContains(t, out, "[WARNING]")
	require.NotContains(t, out, "[ERROR]")
}

func TestChartWithWhatIsRequired(t *testing.T) {
	m := render(t, required)
	require.Equal(t, map[string][]string{
		"ConfigMap": {"gatehouse"}, "Deployment": {"gatehouse"}, "NetworkPolicy": {"gatehouse"},
		"PodDisruptionBudget": {"gatehouse"}, "Service": {"gatehouse-check", "gatehouse"}, "ServiceAccount": {"gatehouse"},
	}, m.kinds)

	d := m.pods.Spec
	require.Equal(t, 2, *d.Replicas)
	require.Equal(t, "RollingUpdate", d.Strategy.Type)
	require.Equal(t, map[string]int{"maxUnavailable": 0, "maxSurge": 1}, d.Strategy.RollingUpdate)
	require.NotContains(t, d.Template.Metadata.Annotations, "gatehouse/config", "a changed file is read, not restarted for")

	c := m.load(t, trialSecret)
	require.Equal(t, "user", c.DefaultPolicy)
	require.GreaterOrEqual(t, d.Template.Spec.TerminationGrace, int(c.Server.Drain.Seconds())+10)

	container := m.container(t)
	require.Equal(t, "registry.example.com/team/gatehouse:0.1.0", container.Image)
	var limit string
	for _, e := range container.Env {
		if e.Name == "GOMEMLIMIT" {
			limit = e.Value
		}
	}
	require.Equal(t, strconv.Itoa(256<<20*4/5), limit)
	require.NotContains(t, container.Resources["limits"], "cpu")
	require.Empty(t, m.secret)
}

func TestChartPodIsConfined(t *testing.T) {
	for name, values := range map[string]string{"required": "", "everything": everything} {
		t.Run(name, func(t *testing.T) {
			m := render(t, required, values)
			pod, c := m.pods.Spec.Template.Spec, m.container(t)
			require.Equal(t, map[string]any{
				"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
				"seccompProfile": map[string]any{"type": "RuntimeDefault"},
			}, pod.SecurityContext)
			require.Equal(t, map[string]any{
				"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
				"capabilities": map[string]any{"drop": []any{"ALL"}},
			}, c.SecurityContext)
			require.False(t, *pod.AutomountToken, "Gatehouse asks Kubernetes nothing")
			require.False(t, *m.account.AutomountToken)
			require.False(t, *pod.EnableServiceLinks)
			require.Equal(t, m.account.Metadata.Name, pod.ServiceAccountName)
			for _, v := range pod.Volumes {
				if v.Secret != nil {
					require.Equal(t, 0o440, v.Secret.DefaultMode, "the group reads, nobody else")
				}
			}
		})
	}
	// The image's user, as the chart says it.
	require.Contains(t, string(read(t, dockerfile)), "USER 65532:65532")
}

// everything switches on what is off.
const everything = `
commonLabels: {team: identity}
podLabels: {tier: edge}
podAnnotations: {example.com/note: "yes"}
imagePullSecrets: [{name: registry}]
image: {digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
config:
  server:
    check: {tls: {cert_file: /etc/gatehouse/tls/check/tls.crt, key_file: /etc/gatehouse/tls/check/tls.key, client_ca_file: /etc/gatehouse/tls/check/ca.crt}}
    http: {public_url: "https://gateway.example.com", trusted_hops: 1, tls: {cert_file: /etc/gatehouse/tls/http/tls.crt, key_file: /etc/gatehouse/tls/http/tls.key}}
    drain: 1m30s
  redis: {tls: {ca_file: /etc/gatehouse/tls/redis/ca.crt}, cache: {max_entries: 1000000}}
  tokens: {issuer: "https://gateway.example.com", signing_keys: [{file: /etc/gatehouse/secrets/signing-key.pem}]}
  issuers: [{issuer: "https://idp.example.com", jwks_url: "https://idp.example.com/jwks", audiences: [api]}]
  api_keys: [{name: billing, sha256: "${BILLING_SHA256}", policies: [internal], auth_api: true, expires: 2127-01-01}]
  policies: {internal: {credentials: [api_key]}, banking: {credentials: [session], freshness: strict, max_auth_age: 15m}}
secrets: {env: {BILLING_SHA256: billing-sha256}}
tls: {check: {secretName: gatehouse-check-tls}, http: {secretName: gatehouse-http-tls}, redis: {secretName: redis-tls}}
networkPolicy:
  http: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: login}}}]
  monitoring: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
  egress:
    redis: {to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: store}}}], ports: [6379, 26379]}
    extra: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{protocol: TCP, port: 4317}]}]
autoscaling: {enabled: true, minReplicas: 3}
podDisruptionBudget: {minAvailable: 2}
metrics: {enabled: true, serviceMonitor: {enabled: true, labels: {release: prometheus}}, podMonitor: {enabled: true}}
resources: {limits: {memory: 1.5Gi}}
priorityClassName: system-cluster-critical
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: edge, operator: Exists, effect: NoSchedule}]
affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app.kubernetes.io/name: gatehouse}}}]}}
restartOnConfigChange: true
extraEnv: [{name: GODEBUG, value: madvdontneed=1}]
extraEnvFrom: [{configMapRef: {name: more}}]
serviceAccount: {annotations: {example.com/role: none}}
`

func everythingSecret(t *testing.T) map[string]string {
	t.Helper()
	secret := map[string]string{
		"billing-sha256":  strings.Repeat("ab", 32),
		"signing-key.pem": string(read(t, makeEnv(t).key)),
		"redis-url":       "rediss://redis.store.svc:6379/0",
		"session-secrets": "0123456789abcdef0123456789abcdef\nfedcba9876543210fedcba9876543210\n",
		// Not looked into when a configuration is loaded.
		"tls.crt": "certificate", "tls.key": "key", "ca.crt": "authority",
	}
	return secret
}

func TestChartWithEverything(t *testing.T) {
	m := render(t, required, everything)
	require.ElementsMatch(t, []string{
		"ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget",
		"PodMonitor", "Service", "ServiceAccount", "ServiceMonitor",
	}, keys(m.kinds))

	c := m.load(t, everythingSecret(t))
	require.Equal(t, 1000000, c.Redis.Cache.MaxEntries, "numbers stay numbers on their way through helm")
	require.Equal(t, 2127, c.APIKeys[0].Expires.Year())
	require.Len(t, c.Sessions.Secrets, 2, "rotation: two lines of one key")
	require.Contains(t, c.Policies, "user", "a map is merged with the defaults")

	require.Equal(t, "registry.example.com/team/gatehouse@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", m.container(t).Image)
	require.Nil(t, m.pods.Spec.Replicas, "the autoscaler counts")
	require.Equal(t, 90+15, m.pods.Spec.Template.Spec.TerminationGrace)
	require.Equal(t, map[string]string{"apiVersion": "apps/v1", "kind": "Deployment", "name": "gatehouse"}, m.scaler.Spec.ScaleTargetRef)
	require.Equal(t, 2, m.budget.Spec.MinAvailable)
	require.Nil(t, m.budget.Spec.MaxUnavailable)
	require.Less(t, m.budget.Spec.MinAvailable, m.scaler.Spec.MinReplicas)

	template := m.pods.Spec.Template.Metadata
	require.Equal(t, "edge", template.Labels["tier"])
	require.Equal(t, "yes", template.Annotations["example.com/note"])
	require.NotEmpty(t, template.Annotations["gatehouse/config"])
	changed := render(t, required, everything, "config: {server: {drain: 1m31s}}")
	require.NotEqual(t, template.Annotations["gatehouse/config"], changed.pods.Spec.Template.Metadata.Annotations["gatehouse/config"])

	// Monitors find what they look for.
	ops := m.services["gatehouse-ops"]
	require.Equal(t, "None", ops.Spec.ClusterIP)
	for _, s := range m.monitors {
		if s.Kind == "PodMonitor" {
			require.Subset(t, template.Labels, s.Spec.Selector.MatchLabels)
			require.Equal(t, "ops", s.Spec.Pods[0]["port"])
			continue
		}
		require.Equal(t, "prometheus", s.Metadata.Labels["release"])
		require.Subset(t, ops.Metadata.Labels, s.Spec.Selector.MatchLabels)
		require.NotSubset(t, m.services["gatehouse"].Metadata.Labels, s.Spec.Selector.MatchLabels, "it would scrape the auth API")
		require.Equal(t, ops.Spec.Ports[0].Name, s.Spec.Endpoints[0]["port"])
	}
}

func keys(m map[string][]string) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	return all
}

// TestChartPartsFitTogether: selectors match the pods, Services lead to ports
// that are there, probes too.
func TestChartPartsFitTogether(t *testing.T) {
	for name, c := range map[string]struct{ release, values string }{
		"required":        {"gatehouse", ""},
		"everything":      {"gatehouse", everything},
		"another release": {"edge", ""},
		"another name":    {"edge", "fullnameOverride: guard"},
		"another chart":   {"edge", "nameOverride: guard"},
		"a long name":     {strings.Repeat("g", 53), ""},
		"other ports":     {"gatehouse", `config: {server: {check: {listen: "0.0.0.0:7001"}, http: {listen: "[::]:7002"}, ops: {listen: ":7003"}}}`},
		"its own labels":  {"gatehouse", `commonLabels: {app.kubernetes.io/name: mine}`},
	} {
		t.Run(name, func(t *testing.T) {
			m := renderAs(t, c.release, required, c.values)
			pod := m.pods.Spec.Template.Metadata.Labels
			selectors := map[string]map[string]string{
				"Deployment": m.pods.Spec.Selector.MatchLabels, "NetworkPolicy": m.policy.Spec.PodSelector.MatchLabels,
				"PodDisruptionBudget": m.budget.Spec.Selector.MatchLabels,
			}
			for _, s := range m.services {
				selectors["Service "+s.Metadata.Name] = s.Spec.Selector
			}
			for _, s := range m.pods.Spec.Template.Spec.TopologySpread {
				selectors["topology "+s.TopologyKey] = s.LabelSelector.MatchLabels
			}
			require.Len(t, selectors, 3+len(m.services)+2)
			for of, s := range selectors {
				require.Equal(t, m.pods.Spec.Selector.MatchLabels, s, of)
				require.Len(t, s, 2, of)
				require.Subset(t, pod, s, of)
				require.NotContains(t, s, "app.kubernetes.io/version", "a selector can't change")
			}

			ports := map[string]int{}
			for _, p := range m.container(t).Ports {
				ports[p.Name] = p.ContainerPort
			}
			loaded := m.load(t, everythingSecret(t))
			for name, listen := range map[string]config.Address{
				"check": loaded.Server.Check.Listen, "http": loaded.Server.HTTP.Listen, "ops": loaded.Server.Ops.Listen,
			} {
				require.True(t, strings.HasSuffix(string(listen), ":"+strconv.Itoa(ports[name])), "%s: %s", name, listen)
			}
			for name, s := range m.services {
				require.LessOrEqual(t, len(name), 63)
				for _, p := range s.Spec.Ports {
					require.Contains(t, ports, p.TargetPort, name)
				}
			}
			for _, p := range []probe{m.container(t).StartupProbe, m.container(t).LivenessProbe, m.container(t).ReadinessProbe} {
				require.Equal(t, "ops", p.HTTPGet.Port)
			}

			fullname := m.pods.Metadata.Name
			check := m.services[fullname+"-check"]
			require.Equal(t, "None", check.Spec.ClusterIP)
			require.False(t, check.Spec.PublishNotReadyAddresses, "a pod that isn't ready, or drains, is asked nothing")
			require.Equal(t, "grpc", check.Spec.Ports[0].AppProtocol)
			require.Equal(t, "check", check.Spec.Ports[0].TargetPort)
			require.Equal(t, "http", m.services[fullname].Spec.Ports[0].TargetPort)
			require.Empty(t, m.services[fullname].Spec.ClusterIP)

			// Only the check and http ports are open to the gateway, and ops in no
			// Service unless somebody wants metrics.
			for _, rule := range m.policy.Spec.Ingress {
				require.NotEmpty(t, rule.From, "everybody")
				require.NotEmpty(t, rule.Ports, "every port")
			}
			gateway := m.policy.Spec.Ingress[0]
			require.Equal(t, []networkPort{{"TCP", ports["check"]}, {"TCP", ports["http"]}}, gateway.Ports)
			for name, s := range m.services {
				if name != fullname+"-ops" {
					require.NotEqual(t, "ops", s.Spec.Ports[0].TargetPort)
				}
			}
		})
	}
}

func TestChartProbes(t *testing.T) {
	c := render(t, required).container(t)
	require.Equal(t, "/healthz", c.StartupProbe.HTTPGet.Path)
	require.Equal(t, "/healthz", c.LivenessProbe.HTTPGet.Path, "with /readyz a Redis that is gone would restart every pod")
	require.Equal(t, "/readyz", c.ReadinessProbe.HTTPGet.Path)

	// Nobody outside the pod reaches a loopback address: not the kubelet either.
	for _, listen := range []string{"127.0.0.1:9090", "localhost:9090", "[::1]:9090", "unix:///tmp/ops.sock"} {
		m := render(t, required, `config: {server: {ops: {listen: "`+listen+`"}}}`)
		c := m.container(t)
		require.Equal(t, []string{"/gatehouse", "ready", "--ops", listen, "--live"}, c.StartupProbe.Exec.Command)
		require.Equal(t, []string{"/gatehouse", "ready", "--ops", listen, "--live"}, c.LivenessProbe.Exec.Command)
		require.Equal(t, []string{"/gatehouse", "ready", "--ops", listen}, c.ReadinessProbe.Exec.Command)
		require.Nil(t, c.ReadinessProbe.HTTPGet)
		require.Len(t, c.Ports, 2)
	}
}

func TestChartNetworkPolicy(t *testing.T) {
	egress := func(m manifests) map[string]int {
		to := map[string]int{}
		for _, rule := range m.policy.Spec.Egress {
			require.NotEmpty(t, rule.Ports)
			for _, p := range rule.Ports {
				to[p.Protocol+" "+strconv.Itoa(p.Port)] = len(rule.To)
			}
		}
		return to
	}
	m := render(t, required)
	require.Equal(t, []string{"Ingress", "Egress"}, m.policy.Spec.PolicyTypes)
	require.Len(t, m.policy.Spec.Ingress, 1, "no http client, no Prometheus")
	require.Equal(t, map[string]int{"UDP 53": 1, "TCP 53": 1, "TCP 6379": 0}, egress(m), "no issuer is asked for keys: nothing on 443")

	m = render(t, required, everything)
	require.Len(t, m.policy.Spec.Ingress, 3)
	require.Equal(t, map[string]int{"UDP 53": 1, "TCP 53": 1, "TCP 6379": 1, "TCP 26379": 1, "TCP 443": 0, "TCP 4317": 1}, egress(m))

	// Issuers whose keys are in a file are asked nothing.
	m = render(t, required, `config: {issuers: [{issuer: "https://i", public_key_file: /etc/gatehouse/secrets/i.pem}]}`)
	require.NotContains(t, egress(m), "TCP 443")
	for _, values := range []string{
		`config: {issuers: [{issuer: "https://i", discovery: true}]}`,
		`config: {oidc: {providers: {corp: {issuer: "https://i", client_id: web, client_secret_file: /etc/gatehouse/secrets/c}}}}`,
	} {
		require.Contains(t, egress(render(t, required, values)), "TCP 443", values)
	}

	// The collector of traces can be reached where there is one.
	const traced = `config: {tracing: {otlp: {endpoint: "otel-collector.monitoring.svc:14317", insecure: true}}}`
	require.Equal(t, map[string]int{"UDP 53": 1, "TCP 53": 1, "TCP 6379": 0, "TCP 14317": 0}, egress(render(t, required, traced)))
	m = render(t, required, traced, `networkPolicy: {egress: {collector: {to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}], ports: [4317]}}}`)
	require.Equal(t, map[string]int{"UDP 53": 1, "TCP 53": 1, "TCP 6379": 0, "TCP 4317": 1}, egress(m), "the pods' port, where the Service has another")
	const hidden = `{secrets: {env: {COLLECTOR: collector}}, config: {tracing: {otlp: {endpoint: "${COLLECTOR}", insecure: true}}}}`
	require.Contains(t, egress(render(t, required, hidden, `networkPolicy: {egress: {collector: {ports: [4317]}}}`)), "TCP 4317")
	require.Nil(t, render(t, required, hidden, `networkPolicy: {enabled: false, gateways: []}`).policy, "where nothing is closed, no port need be known")

	m = render(t, required, `networkPolicy: {egress: {enabled: false}}`)
	require.Equal(t, []string{"Ingress"}, m.policy.Spec.PolicyTypes, "with Egress and no rule nothing could be reached")
	require.Nil(t, render(t, required, `networkPolicy: {enabled: false, gateways: []}`).policy)
}

// TestChartTakesAWholeFile: the text reaches the pod as it is.
func TestChartTakesAWholeFile(t *testing.T) {
	text := "# mine\n\nserver: {check: {listen: \":9001\"}, http: {listen: \":8081\"}, ops: {listen: \":9090\"}, drain: 7s}\n" +
		"redis: {url: \"${REDIS_URL}\"}   # from the Secret\nsessions: {secrets_file: /etc/gatehouse/secrets/session-secrets}\n" +
		"policies:\n  z: {credentials: [session]}\n  a: {anonymous: true}\nroutes:\n- {path: /a/*, policy: a}\ndefault_policy: z\n"
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	value, err := yaml.Marshal(map[string]string{"config": text})
	require.NoError(t, err)
	m := render(t, required, string(value))
	require.Equal(t, text, m.files["gatehouse.yaml"])
	require.Equal(t, 7+15, m.pods.Spec.Template.Spec.TerminationGrace)
	require.Equal(t, []string{"z", "a"}, m.load(t, trialSecret).PolicyNames())
	require.NotContains(t, m.load(t, trialSecret).Policies, "user", "nothing of the defaults is left")

	values := filepath.Join(t.TempDir(), "values.yaml")
	require.NoError(t, os.WriteFile(values, []byte(required), 0o600))
	bySet, err := helm(t, "template", "gatehouse", chartDir, "--namespace", "auth", "--values", values, "--set-file", "config="+file)
	require.NoError(t, err)
	require.Equal(t, m.text, bySet)
}

func TestChartMakesASecretForTrials(t *testing.T) {
	m := render(t, required, `
secrets:
  existingSecret: ""
  trialValues: {redis-url: "redis://redis:6379/0", session-secrets: 0123456789abcdef}`)
	require.Equal(t, []string{"gatehouse"}, m.kinds["Secret"])
	require.Equal(t, map[string]string{"redis-url": "redis://redis:6379/0", "session-secrets": "0123456789abcdef"}, m.secret)
	m.load(t, m.secret)
	for _, v := range m.pods.Spec.Template.Spec.Volumes {
		if v.Secret != nil {
			require.Equal(t, "gatehouse", v.Secret.SecretName)
		}
	}
}

// TestChartTakesOtherVolumes: secrets need not be a Secret of Kubernetes.
func TestChartTakesOtherVolumes(t *testing.T) {
	m := render(t, required, `
secrets: {existingSecret: "", env: {REDIS_URL: null}}
config: {redis: {url: "redis://redis.store.svc:6379/0"}}
extraVolumes: [{name: vault, emptyDir: {}}]
extraVolumeMounts: [{name: vault, mountPath: /etc/gatehouse/secrets, readOnly: true}]`)
	require.Len(t, m.pods.Spec.Template.Spec.Volumes, 2)
	m.load(t, map[string]string{"session-secrets": "0123456789abcdef"})
}

// TestChartRefuses what would start and not work, or work and be open.
func TestChartRefuses(t *testing.T) {
	for name, c := range map[string]struct{ values, message string }{
		"no image":                           {`image: {repository: ""}`, "image.repository is not set"},
		"no gateway":                         {`networkPolicy: {gateways: []}`, "networkPolicy.gateways is empty"},
		"no secret though files of it":       {`{secrets: {existingSecret: "", env: {REDIS_URL: null}}}`, "files below /etc/gatehouse/secrets"},
		"no secret though variables of it":   {`{secrets: {existingSecret: ""}, config: {sessions: {secrets_file: null}}}`, "secrets.env takes REDIS_URL"},
		"two secrets":                        {`secrets: {trialValues: {a: b}}`, "both set"},
		"check on loopback":                  {`config: {server: {check: {listen: "127.0.0.1:9001"}}}`, `write ":9001"`},
		"check on a socket":                  {`config: {server: {check: {listen: "unix:///run/check.sock"}}}`, `such as ":9001"`},
		"check where the default is":         {`config: {server: {check: null}}`, `server.check.listen is "127.0.0.1:9001"`},
		"http on loopback":                   {`config: {server: {http: {listen: "localhost:8081"}}}`, `write ":8081"`},
		"a port that is a variable":          {`config: {server: {check: {listen: ":${PORT}"}}}`, "the chart needs a port"},
		"a collector nobody knows where":     {`config: {tracing: {otlp: {endpoint: "${COLLECTOR}"}}}`, "give networkPolicy.egress.collector.ports"},
		"a store in each pod":                {`config: {redis: {url: "embedded://"}}`, "sessions and revocations of its own"},
		"no store":                           {`config: {redis: {url: null}}`, "redis.url is not set"},
		"killed while it drains":             {`terminationGracePeriodSeconds: 29`, "give at least 30"},
		"a budget that blocks":               {`podDisruptionBudget: {minAvailable: 2}`, "no node could ever be drained"},
		"a budget that blocks the scaler":    {`{podDisruptionBudget: {minAvailable: 2}, autoscaling: {enabled: true}}`, "no node could ever be drained"},
		"a scaler without a request":         {`{autoscaling: {enabled: true}, resources: {requests: {cpu: null}}}`, "resources.requests.cpu"},
		"a scaler upside down":               {`autoscaling: {enabled: true, minReplicas: 9}`, "more than autoscaling.maxReplicas"},
		"a monitor without a Service":        {`metrics: {serviceMonitor: {enabled: true}}`, "set metrics.enabled"},
		"metrics that nobody may fetch":      {`metrics: {enabled: true}`, "networkPolicy.monitoring is empty"},
		"metrics that nobody reaches":        {`{metrics: {enabled: true}, config: {server: {ops: {listen: "127.0.0.1:9090"}}}}`, `write ":9090"`},
		"a certificate that nobody uses":     {`tls: {check: {secretName: tls}}`, "server.check.tls"},
		"a certificate for Redis unused":     {`tls: {redis: {secretName: tls}}`, "(or ca.crt) in redis.tls"},
		"a certificate that nobody mounts":   {`config: {server: {check: {tls: {cert_file: /etc/gatehouse/tls/check/tls.crt, key_file: /etc/gatehouse/tls/check/tls.key}}}}`, "tls.check.secretName is not set"},
		"a text that is no YAML":             {"config: \"server: {\"", "config is no YAML"},
		"a drain that is no duration":        {"config: \"server: {drain: soon, check: {listen: ':1'}, http: {listen: ':2'}}\\nredis: {url: redis://r}\"", "such as 20s"},
		"a memory limit that is no size":     {`resources: {limits: {memory: lots}}`, "something like 256Mi"},
		"a text with its listeners left out": {"config: \"redis: {url: redis://r}\"", `write ":`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := renderText(t, "gatehouse", required, c.values)
			require.Error(t, err)
			require.ErrorContains(t, err, c.message)
			require.NotContains(t, err.Error(), "nil pointer")
		})
	}
	for name, c := range badValues {
		t.Run(name, func(t *testing.T) {
			_, err := renderText(t, "gatehouse", required, c.values)
			require.ErrorContains(t, err, c.place)
		})
	}
}

// TestChartSaysNothingSecret: the notes are on the screen of whoever installs.
func TestChartSaysNothingSecret(t *testing.T) {
	const secret = "0123456789abcdef"
	out, err := helm(t, "install", "gatehouse", chartDir, "--dry-run=client", "--namespace", "auth",
		"--set", "image.repository=registry.example.com/gatehouse",
		"--set", "networkPolicy.enabled=false",
		"--set", "secrets.trialValues.session-secrets="+secret, "--set", "secrets.trialValues.redis-url=redis://redis/0")
	require.NoError(t, err)
	_, notes, ok := strings.Cut(out, "NOTES:")
	require.True(t, ok)
	require.NotContains(t, notes, secret)
	require.Contains(t, notes, "gatehouse-check.auth.svc:9001")
	require.Contains(t, notes, "FOR TRIALS ONLY")
	require.Contains(t, notes, "There is no NetworkPolicy")
	require.Contains(t, notes, "travel without TLS")
}
