package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// stack is everything that is measured, running. Its processes end with
// [stack.stop], and with this process in any case.
type stack struct {
	envoy     *proc.Envoy
	processes []namedProcess // in the order of their start
	ports     map[string]int // of the scenarios' listeners
	creds     *credentials
	redisAddr string
}

type namedProcess struct {
	name string
	*proc.Process
}

// stackOptions says what to run.
type stackOptions struct {
	dir       string // for configurations; required
	gatehouse string // the binary
	shipped   string // Envoy configuration that has the ext_authz filter
	scenarios []scenario
	users     int // sessions, and tokens
}

// trouble finds the counters of Envoy that say why a check failed.
var trouble = regexp.MustCompile(`ext_authz\.(error|timeout|invalid|failure)|^cluster\..*(reset|retry|timeout|overflow|fail|destroy|5xx|cx_total|goaway|protocol_error|tx_flush)`)

// startTimeout bounds how long Gatehouse and the no-op server may take to be
// ready.
const startTimeout = 30 * time.Second

// startStack starts what the scenarios need and returns when each process is
// ready.
func startStack(ctx context.Context, o stackOptions) (s *stack, err error) {
	s = &stack{ports: map[string]int{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	now := time.Now()
	if s.creds, err = newCredentials(o.users, now); err != nil {
		return s, err
	}
	redis, err := proc.StartRedis(ctx, proc.RedisOptions{Dir: o.dir})
	if err != nil {
		return s, err
	}
	s.add("redis", redis.Process)
	s.redisAddr = redis.Addr
	if err := s.creds.store(ctx, redis.Addr, now); err != nil {
		return s, err
	}
	clusters := map[string]int{}
	for _, sc := range o.scenarios {
		if _, started := clusters[sc.cluster]; started || sc.cluster == "" {
			continue
		}
		start := s.startGatehouse
		if sc.cluster == clusterNoop {
			start = s.startNoop
		}
		if clusters[sc.cluster], err = start(ctx, o); err != nil {
			return s, err
		}
	}
	return s, s.startEnvoy(ctx, o, clusters)
}

func (s *stack) add(name string, p *proc.Process) {
	s.processes = append(s.processes, namedProcess{name, p})
}

// stop ends the processes, the one started last first.
func (s *stack) stop() error {
	var errs []error
	for len(s.processes) > 0 {
		last := s.processes[len(s.processes)-1]
		s.processes = s.processes[:len(s.processes)-1]
		errs = append(errs, last.Stop())
	}
	return errors.Join(errs...)
}

// startNoop runs this program again as the no-op server.
func (s *stack) startNoop(ctx context.Context, _ stackOptions) (port int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	p, err := proc.Start(ctx, self, []string{noopCommand}, proc.Options{})
	if err != nil {
		return 0, err
	}
	s.add(clusterNoop, p)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	line, err := p.AwaitLine(ctx, func(line string) bool { return strings.HasPrefix(line, noopPrefix) })
	if err != nil {
		return 0, err
	}
	_, text, err := net.SplitHostPort(strings.TrimPrefix(line, noopPrefix))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// startGatehouse runs the built binary with its defaults, but for a longer
// deadline for Redis: see the package comment on timeouts.
func (s *stack) startGatehouse(ctx context.Context, o stackOptions) (port int, err error) {
	if _, err := os.Stat(o.gatehouse); err != nil {
		return 0, fmt.Errorf("run make build first, or set -gatehouse: %w", err)
	}
	binary, err := filepath.Abs(o.gatehouse)
	if err != nil {
		return 0, err
	}
	ports, err := proc.FreePorts(3)
	if err != nil {
		return 0, err
	}
	check, http, ops := ports[0], ports[1], ports[2]
	keyFile := filepath.Join(o.dir, "issuer.pem")
	if err := os.WriteFile(keyFile, s.creds.publicKey, 0o600); err != nil {
		return 0, err
	}
	config, err := yaml.Dump(map[string]any{
		"server": map[string]any{
			"check": map[string]any{"listen": proc.Local(check)},
			"http":  map[string]any{"listen": proc.Local(http)},
			"ops":   map[string]any{"listen": proc.Local(ops)},
			"drain": "0s",
		},
		"redis":    map[string]any{"url": "redis://" + s.redisAddr + "/0", "timeout": "5s"},
		"sessions": map[string]any{"secrets": []string{s.creds.secret}},
		"issuers": []any{map[string]any{
			"issuer": issuer, "public_key_file": keyFile, "audiences": []string{audience},
		}},
		"policies": map[string]any{
			"session": map[string]any{"credentials": []string{"session"}},
			"bearer":  map[string]any{"credentials": []string{"bearer"}},
			"api_key": map[string]any{"credentials": []string{"api_key"}},
		},
		"api_keys": []any{map[string]any{
			"name": "bench", "sha256": s.creds.apiKeyHash(), "policies": []string{"api_key"},
		}},
	})
	if err != nil {
		return 0, err
	}
	configFile := filepath.Join(o.dir, "gatehouse.yaml")
	if err := os.WriteFile(configFile, config, 0o600); err != nil {
		return 0, err
	}
	p, err := proc.Start(ctx, binary, []string{"serve", "--config", configFile}, proc.Options{})
	if err != nil {
		return 0, err
	}
	s.add(clusterGatehouse, p)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return check, p.Ready(ctx, proc.HTTP("http://"+proc.Local(ops)+"/readyz"))
}

func (s *stack) startEnvoy(ctx context.Context, o stackOptions, clusters map[string]int) error {
	shipped, err := shippedFilter(o.shipped)
	if err != nil {
		return err
	}
	ports, err := proc.FreePorts(len(o.scenarios) + 1)
	if err != nil {
		return err
	}
	c := envoyConfig{
		AdminPort: ports[0],
		Shipped:   shipped,
		Issuer:    issuer,
		Audience:  audience,
		JWKS:      s.creds.jwks,
	}
	for name, port := range clusters {
		c.Clusters = append(c.Clusters, envoyCluster{Name: name, Port: port})
	}
	for i, sc := range o.scenarios {
		s.ports[sc.name] = ports[i+1]
		c.Listeners = append(c.Listeners, envoyListener{
			Name: sc.name, Port: ports[i+1],
			Filter: sc.filter, Cluster: sc.cluster, Policy: sc.policy, TokenCache: sc.tokenCache,
		})
	}
	text, err := c.render()
	if err != nil {
		return err
	}
	if s.envoy, err = proc.StartEnvoy(ctx, text, proc.EnvoyOptions{Dir: o.dir, Concurrency: 1}); err != nil {
		return err
	}
	s.add("envoy", s.envoy.Process)
	return nil
}

// lastWords returns what went wrong by Envoy's counters, and the last lines
// that the processes printed, for whoever has to find the cause.
func (s *stack) lastWords(ctx context.Context) string {
	const lines = 10
	var b strings.Builder
	stats, err := envoyStats(ctx, s.envoy.Admin)
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	for _, name := range slices.Sorted(maps.Keys(stats)) {
		if stats[name] > 0 && trouble.MatchString(name) {
			fmt.Fprintf(&b, "envoy counted %s: %d\n", name, stats[name])
		}
	}
	for _, p := range s.processes {
		text := strings.TrimSpace(p.Output())
		if text == "" {
			continue
		}
		all := strings.Split(text, "\n")
		fmt.Fprintf(&b, "last output of %s:\n  %s\n", p.name, strings.Join(all[max(0, len(all)-lines):], "\n  "))
	}
	return b.String()
}
