package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/services/demopage"
)

const (
	composeFile   = "../docker-compose.yml"
	gatehouseFile = "compose/gatehouse.yaml"
	dockerfile    = "Dockerfile"
)

// compose is docker-compose.yml. It is read strictly, and what a service could
// use to get out of its box is not here: privileged, cap_add, devices, pid,
// ipc, network_mode, userns_mode and the like can't come in unnoticed.
type compose struct {
	Services map[string]service           `yaml:"services"`
	Networks map[string]network           `yaml:"networks"`
	Volumes  map[string]map[string]string `yaml:"volumes"`

	Hardening  any `yaml:"x-hardening"`
	Health     any `yaml:"x-health"`
	StoreHosts any `yaml:"x-store-hosts"`
	Redis      any `yaml:"x-redis"`
	Sentinel   any `yaml:"x-sentinel"`
}

type service struct {
	Image       string               `yaml:"image"`
	Profiles    []string             `yaml:"profiles"`
	Build       map[string]string    `yaml:"build"`
	User        string               `yaml:"user"`
	Scale       int                  `yaml:"scale"`
	Entrypoint  []string             `yaml:"entrypoint"`
	Command     []string             `yaml:"command"`
	Environment map[string]string    `yaml:"environment"`
	Volumes     []string             `yaml:"volumes"`
	Tmpfs       []string             `yaml:"tmpfs"`
	Ports       []string             `yaml:"ports"`
	Networks    attached             `yaml:"networks"`
	ExtraHosts  []string             `yaml:"extra_hosts"`
	DependsOn   map[string]condition `yaml:"depends_on"`
	Healthcheck healthcheck          `yaml:"healthcheck"`
	Restart     string               `yaml:"restart"`
	StopGrace   time.Duration        `yaml:"stop_grace_period"`
	ReadOnly    bool                 `yaml:"read_only"`
	CapDrop     []string             `yaml:"cap_drop"`
	SecurityOpt []string             `yaml:"security_opt"`
	Logging     logging              `yaml:"logging"`
	MemLimit    string               `yaml:"mem_limit"`
	CPUs        float64              `yaml:"cpus"`
	PidsLimit   int                  `yaml:"pids_limit"`
}

type condition struct {
	Condition string `yaml:"condition"`
}

type healthcheck struct {
	Test        []string      `yaml:"test"`
	Interval    time.Duration `yaml:"interval"`
	Timeout     time.Duration `yaml:"timeout"`
	StartPeriod time.Duration `yaml:"start_period"`
	Retries     int           `yaml:"retries"`
}

type logging struct {
	Driver  string            `yaml:"driver"`
	Options map[string]string `yaml:"options"`
}

type network struct {
	Internal bool `yaml:"internal"`
	IPAM     struct {
		Config []map[string]string `yaml:"config"`
	} `yaml:"ipam"`
}

// attached are the networks of a service, each with the service's fixed
// address there, "" for none. Compose takes a list, too.
type attached map[string]string

func (a *attached) UnmarshalYAML(n *yaml.Node) error {
	*a = attached{}
	if n.Kind == yaml.SequenceNode {
		for _, name := range n.Content {
			(*a)[name.Value] = ""
		}
		return nil
	}
	var byName map[string]map[string]string
	if err := n.Decode(&byName); err != nil {
		return err
	}
	for name, options := range byName {
		(*a)[name] = options["ipv4_address"]
	}
	return nil
}

func readCompose(t *testing.T) compose {
	t.Helper()
	var c compose
	require.NoError(t, yaml.Load(read(t, composeFile), &c, yaml.WithKnownFields()))
	require.Len(t, c.Services, 12, "a service that these tests don't know")
	return c
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return text
}

func TestEveryServiceIsConfined(t *testing.T) {
	for name, s := range readCompose(t).Services {
		t.Run(name, func(t *testing.T) {
			user, group, _ := strings.Cut(s.User, ":")
			for _, id := range []string{user, group} {
				n, err := strconv.Atoi(id)
				require.NoError(t, err, "user: a number and a number, which no image can give another meaning")
				require.Positive(t, n, "root")
			}
			require.True(t, s.ReadOnly, "read_only")
			require.Equal(t, []string{"ALL"}, s.CapDrop, "cap_drop")
			require.Equal(t, []string{"no-new-privileges:true"}, s.SecurityOpt, "security_opt")
			require.Positive(t, bytesOf(t, s.MemLimit), "mem_limit")
			require.Positive(t, s.CPUs, "cpus")
			require.Positive(t, s.PidsLimit, "pids_limit")
			require.Equal(t, "unless-stopped", s.Restart, "restart")
			require.Positive(t, s.StopGrace, "stop_grace_period")
			require.NotEmpty(t, s.Logging.Options["max-size"], "a log must not fill the disk")
			require.NotEmpty(t, s.Logging.Options["max-file"], "a log must not fill the disk")
			for _, v := range s.Volumes {
				// The file may be named by a variable, with colons in its message.
				if strings.HasPrefix(v, "./") || strings.HasPrefix(v, "$") {
					require.True(t, strings.HasSuffix(v, ":ro"), "%s comes from the host and must be read-only", v)
				}
				require.NotContains(t, v, "docker.sock")
			}
		})
	}
}

var memory = regexp.MustCompile(`^([0-9]+)([kmg])$`)

func bytesOf(t *testing.T, limit string) int64 {
	t.Helper()
	m := memory.FindStringSubmatch(limit)
	require.NotNil(t, m, "%q is no size such as 64m", limit)
	n, err := strconv.ParseInt(m[1], 10, 64)
	require.NoError(t, err)
	return n << map[string]int{"k": 10, "m": 20, "g": 30}[m[2]]
}

func TestEveryServiceTellsItsHealthAndStartsAfterThoseItNeeds(t *testing.T) {
	c := readCompose(t)
	for name, s := range c.Services {
		t.Run(name, func(t *testing.T) {
			h := s.Healthcheck
			require.NotEmpty(t, h.Test)
			require.Contains(t, []string{"CMD", "CMD-SHELL"}, h.Test[0], "NONE would be no check")
			require.Greater(t, len(h.Test), 1)
			require.Positive(t, h.Interval)
			require.Positive(t, h.Timeout)
			require.Positive(t, h.Retries)
			for other, d := range s.DependsOn {
				require.Contains(t, c.Services, other)
				require.Equal(t, "service_healthy", d.Condition, "that %s was started says nothing", other)
			}
		})
	}

	// What has to be there before: everything in front of it is healthy then.
	for name, needs := range map[string][]string{
		"envoy":         {"demo-page", "gatehouse", "order-service", "user-service"},
		"gatehouse":     {"sentinel-1", "sentinel-2", "sentinel-3"},
		"demo-page":     nil,
		"order-service": {"user-service"},
		"user-service":  nil,
		"sentinel-1":    {"redis-1", "redis-2"},
		"sentinel-2":    {"redis-1", "redis-2"},
		"sentinel-3":    {"redis-1", "redis-2"},
		"redis-2":       {"redis-1"},
		"redis-1":       nil,
		"prometheus":    {"gatehouse"},
		"grafana":       {"prometheus"},
	} {
		var got []string
		for other := range c.Services[name].DependsOn {
			got = append(got, other)
		}
		slices.Sort(got)
		require.Equal(t, needs, got, name)
	}
}

// What is to be looked at is published on loopback, and only for who asks for it.
func TestOnlyTheGatewayIsPublished(t *testing.T) {
	published := map[string]string{
		"envoy":      "127.0.0.1:${GATEWAY_PORT:-8080}:8080",
		"prometheus": "127.0.0.1:${PROMETHEUS_PORT:-9091}:9090",
		"grafana":    "127.0.0.1:${GRAFANA_PORT:-3000}:3000",
	}
	for name, s := range readCompose(t).Services {
		var profiles []string
		if name == "prometheus" || name == "grafana" {
			profiles = []string{"observability"}
		}
		require.Equal(t, profiles, s.Profiles, name)
		if port, ok := published[name]; ok {
			require.Equal(t, []string{port}, s.Ports, name)
		} else {
			require.Empty(t, s.Ports, name)
		}
	}
}

// TestNetworksSeparate: who can talk to whom is what the networks are for.
func TestNetworksSeparate(t *testing.T) {
	c := readCompose(t)
	members := map[string][]string{}
	for name, s := range c.Services {
		for n := range s.Networks {
			require.Contains(t, c.Networks, n)
			members[n] = append(members[n], name)
		}
	}
	for _, m := range members {
		slices.Sort(m)
	}
	require.Equal(t, map[string][]string{
		"public":   {"envoy"},
		"gate":     {"envoy", "gatehouse", "prometheus"},
		"services": {"demo-page", "envoy", "order-service", "user-service"},
		"store":    {"gatehouse", "redis-1", "redis-2", "sentinel-1", "sentinel-2", "sentinel-3"},

		"observability": {"grafana", "prometheus"},
	}, members)
	for name, n := range c.Networks {
		require.Equal(t, name != "public" && name != "observability", n.Internal, "network %s", name)
	}
}

// TestStoreNamesOutliveTheirContainers: Sentinel can't fail over from a master
// whose name doesn't resolve (redis/redis#12753), and the name that Docker gives
// a container goes with it.
func TestStoreNamesOutliveTheirContainers(t *testing.T) {
	c := readCompose(t)
	var hosts []string
	var net string
	for _, name := range []string{"redis-1", "redis-2", "sentinel-1", "sentinel-2", "sentinel-3"} {
		address := c.Services[name].Networks["store"]
		require.NotEmpty(t, address, "%s needs a fixed address", name)
		hosts = append(hosts, name+":"+address)

		i := strings.LastIndexByte(address, '.')
		last, err := strconv.Atoi(address[i+1:])
		require.NoError(t, err)
		require.Less(t, last, 128, "the upper half is given to others, and might be taken")
		net = address[:i]
	}
	require.Equal(t, []map[string]string{{"subnet": net + ".0/24", "ip_range": net + ".128/25"}}, c.Networks["store"].IPAM.Config)
	for name, s := range c.Services {
		if _, ok := s.Networks["store"]; ok {
			require.Equal(t, hosts, s.ExtraHosts, name)
		}
	}
}

func TestImagesArePinned(t *testing.T) {
	version := regexp.MustCompile(`[:v-][0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?(@sha256:[0-9a-f]{64})?$`)
	targets := regexp.MustCompile(`(?m)^FROM .* AS (\S+)$`)
	text := string(read(t, dockerfile))
	var stages []string
	for _, m := range targets.FindAllStringSubmatch(text, -1) {
		stages = append(stages, m[1])
	}
	for name, s := range readCompose(t).Services {
		if s.Build == nil {
			require.Regexp(t, version, s.Image, name)
			continue
		}
		require.Empty(t, s.Image, "%s is built here; a name would let somebody else's image of that name take its place", name)
		require.Equal(t, map[string]string{"context": ".", "dockerfile": "deploy/Dockerfile", "target": name}, s.Build)
		require.Contains(t, stages, name)
	}

	args := regexp.MustCompile(`(?m)^ARG (\w+)=(\S+)$`)
	expanded := text
	for _, m := range args.FindAllStringSubmatch(text, -1) {
		expanded = strings.ReplaceAll(expanded, "${"+m[1]+"}", m[2])
	}
	froms := regexp.MustCompile(`(?m)^FROM (\S+)`).FindAllStringSubmatch(expanded, -1)
	require.NotEmpty(t, froms)
	for _, m := range froms {
		if from := m[1]; from != "scratch" && !slices.Contains(stages, from) {
			require.Regexp(t, version, from)
		}
	}
	require.NotRegexp(t, `(?m)^USER (root|0)`, text)
}

func TestSecretsHaveNoDefaults(t *testing.T) {
	// Variables that a user may set, and that are no secrets.
	defaults := map[string]string{"GATEWAY_PORT": "8080", "PROMETHEUS_PORT": "9091", "GRAFANA_PORT": "3000", "STORE_NET": "10.213.77"}
	variable := regexp.MustCompile(`\$\{(\w+)([^}]*)\}|\$(\w+)`)
	used := map[string]bool{}
	for _, m := range variable.FindAllStringSubmatch(withoutComments(t, composeFile), -1) {
		name, rest := m[1], m[2]
		require.Empty(t, m[3], "write ${%s…}", m[3])
		if standard, ok := defaults[name]; ok {
			require.Equal(t, ":-"+standard, rest, name)
			continue
		}
		require.Equal(t, ":?run 'make compose-env'", rest, "%s must be given, and not be empty", name)
		used[name] = true
	}
	for _, name := range secrets {
		require.True(t, used[name], "%s is written to .env, for whom?", name)
		delete(used, name)
	}
	require.Empty(t, used, "scripts/compose-env.sh doesn't write these")

	// And none is in the file itself.
	for name, s := range readCompose(t).Services {
		for key, value := range s.Environment {
			if strings.HasSuffix(key, "_FILE") {
				continue
			}
			if regexp.MustCompile(`SECRET|PASSWORD|KEY|TOKEN|AUTH`).MatchString(key) {
				require.Regexp(t, `^\$\{\w+:\?`, value, "%s of %s", key, name)
			}
		}
	}
}

func withoutComments(t *testing.T, path string) string {
	t.Helper()
	return regexp.MustCompile(`(?m)(^| )#.*$`).ReplaceAllString(string(read(t, path)), "")
}

// TestEachServiceGetsOnlyItsOwnSecrets: what isn't given can't leak.
func TestEachServiceGetsOnlyItsOwnSecrets(t *testing.T) {
	got := map[string][]string{}
	for name, s := range readCompose(t).Services {
		text := strings.Join(append(values(s.Environment), s.Volumes...), "\n")
		for _, secret := range secrets {
			if strings.Contains(text, "${"+secret+":") {
				got[name] = append(got[name], secret)
			}
		}
	}
	redis := []string{"REDIS_PASSWORD"}
	require.Equal(t, map[string][]string{
		"gatehouse":     {"SESSION_SECRET", "REDIS_PASSWORD", "INTERNAL_API_KEY_SHA256", "SIGNING_KEY_FILE"},
		"user-service":  {"INTERNAL_API_KEY_SHA256"},
		"order-service": {"INTERNAL_API_KEY"},
		"redis-1":       redis, "redis-2": redis, "sentinel-1": redis, "sentinel-2": redis, "sentinel-3": redis,
	}, got)
}

func values(m map[string]string) []string {
	var all []string
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// gatehouseConfig loads the stack's gatehouse.yaml as a replica would, with
// nothing but the environment that docker-compose.yml gives it.
func gatehouseConfig(t *testing.T) *config.Config {
	t.Helper()
	env := makeEnv(t)
	s := readCompose(t).Services["gatehouse"]
	lookup := func(name string) (string, bool) {
		value, ok := s.Environment[name]
		if !ok {
			return "", false
		}
		return regexp.MustCompile(`\$\{(\w+):([?-])([^}]*)\}`).ReplaceAllStringFunc(value, func(v string) string {
			name, rest, _ := strings.Cut(v[2:len(v)-1], ":")
			if value, ok := env.values[name]; ok {
				return value
			}
			return strings.TrimPrefix(rest, "-")
		}), true
	}
	text := string(read(t, gatehouseFile))
	const key = "/run/secrets/signing-key.pem"
	require.Contains(t, strings.Join(s.Volumes, "\n"), ":"+key+":ro")
	require.Contains(t, text, key)
	c, _, err := config.Parse(gatehouseFile, []byte(strings.ReplaceAll(text, key, env.key)), lookup)
	require.NoError(t, err)
	return c
}

func TestGatehouseConfiguration(t *testing.T) {
	c := gatehouseConfig(t)
	s := readCompose(t).Services["gatehouse"]

	require.GreaterOrEqual(t, s.Scale, 2, "replicas")
	// What comes after the drain: calls in flight, at most 5 s, and the rest.
	require.GreaterOrEqual(t, s.StopGrace, c.Server.Drain+10*time.Second, "stop_grace_period against server.drain")
	require.GreaterOrEqual(t, c.Server.Drain, 5*time.Second, "Envoy needs two health checks, 2 s apart, to notice")
	require.Equal(t, 1, c.Redis.ConfirmReplicas, "an acknowledged revocation is on both Redises")
	require.Contains(t, s.Healthcheck.Test, "ready")
	require.Equal(t, "http://localhost:8080", c.Server.HTTP.PublicURL)

	// Envoy adds the client to x-forwarded-for, and drops what the client says.
	require.Equal(t, 1, c.Server.HTTP.TrustedHops)

	// Each route's policy is there: otherwise it would answer 403 to all.
	named := regexp.MustCompile(`context_extensions: \{policy: ([\w-]+)\}`).FindAllStringSubmatch(string(read(t, shippedEnvoy)), -1)
	require.NotEmpty(t, named)
	for _, m := range named {
		require.Contains(t, c.Policies, m[1])
	}
}

// TestUsersAreThoseOfTheDemo, and the file says that it is for nothing else.
func TestUsersAreThoseOfTheDemo(t *testing.T) {
	text := string(read(t, "compose/users.yaml"))
	require.Equal(t, demopage.UsersFile, text, "copy services/demopage/users.yaml")
	require.Contains(t, text, "FOR THE DEMO ONLY")
	require.Equal(t, filepath.Join("compose", "users.yaml"), string(gatehouseConfig(t).Users.File))
	require.Contains(t, readCompose(t).Services["gatehouse"].Volumes, "./deploy/compose/users.yaml:/etc/gatehouse/users.yaml:ro")
}

// TestEnvoyShedsLoadBeforeItIsKilled: beyond mem_limit the kernel ends it.
func TestEnvoyShedsLoadBeforeItIsKilled(t *testing.T) {
	m := regexp.MustCompile(`max_heap_size_bytes: ([0-9]+)`).FindSubmatch(read(t, composeEnvoy))
	require.NotNil(t, m)
	heap, err := strconv.ParseInt(string(m[1]), 10, 64)
	require.NoError(t, err)
	limit := bytesOf(t, readCompose(t).Services["envoy"].MemLimit)
	require.Less(t, heap, limit*95/100)
}

// TestRedisForgetsNothing: what was acknowledged outlives a restart, and
// nothing is evicted.
func TestRedisForgetsNothing(t *testing.T) {
	settings := map[string]string{}
	for line := range strings.Lines(string(read(t, "compose/redis/redis.conf"))) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && key != "#" {
			settings[key] = value
		}
	}
	require.Equal(t, "yes", settings["appendonly"])
	require.Equal(t, "everysec", settings["appendfsync"])
	require.Equal(t, "noeviction", settings["maxmemory-policy"])
	require.Equal(t, "/data", settings["dir"])
	most := regexp.MustCompile(`^([0-9]+)mb$`).FindStringSubmatch(settings["maxmemory"])
	require.NotNil(t, most)
	for _, name := range []string{"redis-1", "redis-2"} {
		s := readCompose(t).Services[name]
		require.Contains(t, s.Volumes, name+":/data")
		require.LessOrEqual(t, bytesOf(t, most[1]+"m")*2, bytesOf(t, s.MemLimit), "a rewrite of the log can take as much again")
	}
	for _, name := range []string{"sentinel-1", "sentinel-2", "sentinel-3"} {
		require.Contains(t, readCompose(t).Services[name].Volumes, name+":/data", "what it knows has to outlive it")
	}
}

func TestMountedFilesExist(t *testing.T) {
	for name, s := range readCompose(t).Services {
		for _, v := range s.Volumes {
			if source, _, _ := strings.Cut(v, ":"); strings.HasPrefix(source, "./") {
				_, err := os.Stat(filepath.Join("..", source))
				require.NoError(t, err, "%s: docker would make a directory of this name", name)
			}
		}
	}
}
