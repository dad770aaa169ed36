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

	"github.com/redis/go-redis/v9"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// stack is everything that is measured, running. Its processes end with
// [stack.stop], and with this process in any case.
type stack struct {
	envoy     *proc.Envoy
	processes []namedProcess    // in the order of their start
	ports     map[string]int    // of the scenarios' listeners
	ops       map[string]string // host:port of the ops listeners of Gatehouses, by their names
	creds     *credentials
	redis     *redis.Client // one connection, opened before anything is counted
	redisAddr string
	proxy     *freezer // before Redis, for check servers that are proxied
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
	sessions  int // and tokens, see newCredentials
}

// trouble finds the counters of Envoy that say why a check failed.
var trouble = regexp.MustCompile(`ext_authz\.(error|timeout|invalid|failure)|^cluster\..*(reset|retry|timeout|overflow|fail|destroy|5xx|cx_total|goaway|protocol_error|tx_flush)`)

// startTimeout bounds how long Gatehouse and the no-op server may take to be
// ready.
const startTimeout = 30 * time.Second

// startStack starts what the scenarios need and returns when each process is
// ready.
func startStack(ctx context.Context, o stackOptions) (s *stack, err error) {
	s = &stack{ports: map[string]int{}, ops: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	now := time.Now()
	if s.creds, err = newCredentials(o.sessions, now); err != nil {
		return s, err
	}
	server, err := proc.StartRedis(ctx, proc.RedisOptions{Dir: o.dir})
	if err != nil {
		return s, err
	}
	s.add("redis", server.Process)
	s.redisAddr = server.Addr
	if err := s.creds.store(ctx, server.Addr, now); err != nil {
		return s, err
	}
	s.redis = redis.NewClient(&redis.Options{Addr: server.Addr, PoolSize: 1})
	if err := s.redis.Ping(ctx).Err(); err != nil {
		return s, err
	}
	clusters := map[string]address{}
	for _, sc := range o.scenarios {
		name := sc.server.name()
		if _, started := clusters[name]; started || name == "" {
			continue
		}
		start := s.startPlain
		if sc.server.program == programGatehouse {
			start = s.startGatehouse
		}
		if clusters[name], err = start(ctx, sc.server, o); err != nil {
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
	if s.proxy != nil {
		errs = append(errs, s.proxy.close())
	}
	if s.redis != nil {
		errs = append(errs, s.redis.Close())
	}
	return errors.Join(errs...)
}

const unixScheme = "unix://"

// socket is the path of a check server's Unix socket.
func socket(dir string, server checkServer) string {
	return filepath.Join(dir, server.name()+".sock")
}

// startPlain runs this program again as one of the servers without Gatehouse.
func (s *stack) startPlain(ctx context.Context, server checkServer, o stackOptions) (address, error) {
	self, err := os.Executable()
	if err != nil {
		return address{}, err
	}
	args := []string{server.program, "127.0.0.1:0"}
	if server.unix {
		args[1] = unixScheme + socket(o.dir, server)
	}
	if server.program == programUsual {
		args = append(args, s.redisAddr)
	}
	p, err := proc.Start(ctx, self, args, proc.Options{})
	if err != nil {
		return address{}, err
	}
	s.add(server.name(), p)
	listens, err := awaitListening(ctx, p)
	if err != nil {
		return address{}, err
	}
	if server.unix {
		return address{Pipe: socket(o.dir, server)}, nil
	}
	_, text, err := net.SplitHostPort(listens)
	if err != nil {
		return address{}, err
	}
	port, err := strconv.Atoi(text)
	return address{Port: port}, err
}

// awaitListening waits until one of our own servers listens, and returns where.
func awaitListening(ctx context.Context, p *proc.Process) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	line, err := p.AwaitLine(ctx, func(line string) bool { return strings.HasPrefix(line, listeningOn) })
	return strings.TrimPrefix(line, listeningOn), err
}

// entriesFor is the size of a cache that can hold so many sessions: each has
// an entry, and so has its user.
func entriesFor(sessions int) int { return 2*sessions + 10_000 }

// startGatehouse runs the built binary with its defaults, but for a longer
// deadline for Redis: see the package comment on timeouts. One that is shown a
// number of sessions of its own may keep all of them in its cache, and renews
// each once an hour only: with the default of a minute, most requests of a
// short window would be the first of their session for a minute, and the
// renewals would be measured, not the cache.
func (s *stack) startGatehouse(ctx context.Context, server checkServer, o stackOptions) (address, error) {
	if _, err := os.Stat(o.gatehouse); err != nil {
		return address{}, fmt.Errorf("run make build first, or set -gatehouse: %w", err)
	}
	binary, err := filepath.Abs(o.gatehouse)
	if err != nil {
		return address{}, err
	}
	ports, err := proc.FreePorts(3)
	if err != nil {
		return address{}, err
	}
	check, listen := address{Port: ports[0]}, proc.Local(ports[0])
	if server.unix {
		check = address{Pipe: socket(o.dir, server)}
		listen = unixScheme + check.Pipe
	}
	http, ops := proc.Local(ports[1]), proc.Local(ports[2])
	store := s.redisAddr
	if server.proxied {
		if s.proxy, err = newFreezer(ctx, s.redisAddr); err != nil {
			return address{}, err
		}
		store = s.proxy.addr()
	}
	cache, sessions := map[string]any{}, map[string]any{
		"secrets": []string{s.creds.secret},
		"rolling": !server.proxied, // sessions whose end is measured must have one
	}
	if server.sessions > 0 {
		cache["max_entries"] = entriesFor(server.sessions)
		sessions["touch_interval"] = "1h"
	}
	keyFile := filepath.Join(o.dir, "issuer.pem")
	if err := os.WriteFile(keyFile, s.creds.publicKey, 0o600); err != nil {
		return address{}, err
	}
	config, err := yaml.Dump(map[string]any{
		"server": map[string]any{
			"check": map[string]any{"listen": listen},
			"http":  map[string]any{"listen": http},
			"ops":   map[string]any{"listen": ops},
			"drain": "0s",
		},
		"redis":    map[string]any{"url": "redis://" + store + "/0", "timeout": "5s", "cache": cache},
		"sessions": sessions,
		"issuers": []any{map[string]any{
			"issuer": issuer, "public_key_file": keyFile, "audiences": []string{audience},
		}},
		"rate_limits": map[string]any{
			// So much that nothing is refused: each request asks the limiter.
			"large": map[string]any{"by": "session", "limit": 1_000_000, "per": "1s"},
		},
		"policies": map[string]any{
			"session": map[string]any{"credentials": []string{"session"}},
			"bearer":  map[string]any{"credentials": []string{"bearer"}},
			"api_key": map[string]any{"credentials": []string{"api_key"}},
			"strict":  map[string]any{"credentials": []string{"session"}, "freshness": "strict"},
			"limited": map[string]any{"credentials": []string{"session"}, "rate_limit": "large"},
		},
		"api_keys": []any{map[string]any{
			"name": "bench", "sha256": s.creds.apiKeyHash(), "policies": []string{"api_key"},
		}},
	})
	if err != nil {
		return address{}, err
	}
	configFile := filepath.Join(o.dir, server.name()+".yaml")
	if err := os.WriteFile(configFile, config, 0o600); err != nil {
		return address{}, err
	}
	var env []string
	if server.oneProcessor {
		env = []string{"GOMAXPROCS=1"}
	}
	p, err := proc.Start(ctx, binary, []string{"serve", "--config", configFile}, proc.Options{Env: env})
	if err != nil {
		return address{}, err
	}
	s.add(server.name(), p)
	s.ops[server.name()] = ops
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return check, p.Ready(ctx, proc.HTTP("http://"+ops+"/readyz"))
}

func (s *stack) startEnvoy(ctx context.Context, o stackOptions, clusters map[string]address) error {
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
	for name, at := range clusters {
		c.Clusters = append(c.Clusters, envoyCluster{Name: name, address: at})
	}
	for i, sc := range o.scenarios {
		s.ports[sc.name] = ports[i+1]
		l := envoyListener{
			Name: sc.name, Port: ports[i+1],
			Filter: sc.filter, Cluster: sc.server.name(), Plain: sc.plain, Policy: sc.policy, TokenCache: sc.tokenCache,
		}
		if sc.echo {
			l.Echo = echoHeader
		}
		c.Listeners = append(c.Listeners, l)
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
