//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/examples"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/services/demopage"
	"github.com/gatehouse-auth/gatehouse/services/orderservice"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
	"github.com/gatehouse-auth/gatehouse/services/userservice"
)

// patience bounds the start of each part.
const patience = 30 * time.Second

// stack is a running example. Its parts stop in the reverse order of their
// start.
type stack struct {
	example   string // its directory
	dir       string // everything that is written
	gatehouse *proc.Process
	env       environment // of scripts
	secrets   environment // of Gatehouse, in addition
	ports     struct{ gateway, admin, check, http, ops, users, orders, page int }
	redisAddr string
	ends      []func() error
}

// environment is variables by name.
type environment map[string]string

func (e environment) list() []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(e)) {
		lines = append(lines, name+"="+e[name])
	}
	return lines
}

func newStack(ctx context.Context, example string) (_ *stack, err error) {
	if example, err = filepath.Abs(example); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gatehouse-"+filepath.Base(example)+"-")
	if err != nil {
		return nil, err
	}
	s := &stack{example: example, dir: dir, env: environment{}, secrets: environment{}}
	s.atEnd(func() error { return os.RemoveAll(dir) })
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	// Not ctx: when it ends, stop still wants to end the parts one by one.
	ctx = context.WithoutCancel(ctx)
	if err := s.prepare(); err != nil {
		return nil, err
	}
	config, err := s.configuration()
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return s.startRedis(ctx, config) },
		func() error { return s.startProviders(ctx) },
		func() error { return s.startGatehouse(ctx, config) },
		func() error { return s.startServices(ctx) },
		func() error { return s.startEnvoy(ctx) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *stack) atEnd(end func() error) { s.ends = append(s.ends, end) }

// stop ends everything, last started first.
func (s *stack) stop() error {
	var errs []error
	for _, end := range slices.Backward(s.ends) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// log opens a file for what a part prints.
func (s *stack) log(name string) (*os.File, error) {
	f, err := os.Create(filepath.Join(s.dir, name+".log")) //nolint:gosec // G304: the names are ours
	if err == nil {
		s.atEnd(f.Close)
	}
	return f, err
}

// prepare chooses ports and makes secrets and users.
func (s *stack) prepare() error {
	ports, err := proc.FreePorts(8)
	if err != nil {
		return err
	}
	p := &s.ports
	for i, port := range []*int{&p.gateway, &p.admin, &p.check, &p.http, &p.ops, &p.users, &p.orders, &p.page} {
		*port = ports[i]
	}
	s.env["GATEWAY"] = "http://" + proc.Local(p.gateway)
	s.secrets["PUBLIC_URL"] = s.env["GATEWAY"]
	s.secrets["SESSION_SECRET"] = rand.Text() + rand.Text()
	for _, name := range []string{"BACKOFFICE_KEY", "BILLING_KEY"} {
		key := rand.Text()
		sum := sha256.Sum256([]byte(key))
		s.env[name], s.secrets[name+"_SHA256"] = key, hex.EncodeToString(sum[:])
	}
	return os.WriteFile(filepath.Join(s.dir, "users.yaml"), []byte(demopage.UsersFile), 0o600)
}

// configuration is the example's, with try.yaml and addresses over it.
func (s *stack) configuration() (map[string]any, error) {
	addresses := fmt.Sprintf(`
server: {check: {listen: %q}, http: {listen: %q}, ops: {listen: %q}, drain: 0s}
log: {level: debug, format: text}
`, proc.Local(s.ports.check), proc.Local(s.ports.http), proc.Local(s.ports.ops))
	// One machine has all of it here, and is busy with it: who is slow is waited for longer
	// than the default, which is for production.
	all := map[string]any{"redis": map[string]any{"timeout": "2s"}}
	for _, name := range []string{"gatehouse.yaml", "try.yaml", ""} {
		text := []byte(addresses)
		if name != "" {
			var err error
			text, err = os.ReadFile(filepath.Join(s.example, name)) //nolint:gosec // G304: who calls us names the example
			if errors.Is(err, fs.ErrNotExist) && name == "try.yaml" {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("no example: %w", err)
			}
		}
		var one map[string]any
		if err := yaml.Load(text, &one); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		overlay(all, one)
	}
	return all, nil
}

// overlay merges mappings; anything else is replaced by what over says.
func overlay(under, over map[string]any) {
	for key, value := range over {
		below, isMap := under[key].(map[string]any)
		above, areMaps := value.(map[string]any)
		if isMap && areMaps {
			overlay(below, above)
			continue
		}
		under[key] = value
	}
}

// startRedis runs a Redis and, where revocations are confirmed by one, its
// replica.
func (s *stack) startRedis(ctx context.Context, config map[string]any) error {
	one, err := s.oneRedis(ctx, "redis", "--repl-diskless-sync-delay", "0")
	if err != nil {
		return err
	}
	s.redisAddr = one.Addr
	s.secrets["REDIS_URL"] = "redis://" + one.Addr + "/0"
	s.env["REDIS_PID"] = strconv.Itoa(one.PID())
	store, _ := config["redis"].(map[string]any)
	if confirm, ok := store["confirm_replicas"].(int); !ok || confirm == 0 {
		return nil
	}
	replica, err := s.oneRedis(ctx, "replica", "--replicaof", "127.0.0.1 "+strconv.Itoa(one.Port))
	if err != nil {
		return err
	}
	s.env["REPLICA_PID"] = strconv.Itoa(replica.PID())
	client := redis.NewClient(&redis.Options{Addr: one.Addr})
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return replica.Ready(ctx, func(ctx context.Context) error {
		info, err := client.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "state=online") {
			err = errors.New("the replica is not in sync yet")
		}
		return err
	})
}

func (s *stack) oneRedis(ctx context.Context, name string, args ...string) (*proc.Redis, error) {
	log, err := s.log(name)
	if err != nil {
		return nil, err
	}
	r, err := proc.StartRedis(ctx, proc.RedisOptions{Dir: s.dir, Args: args, Output: log})
	if err != nil {
		return nil, err
	}
	s.atEnd(func() error { return stop(r.Process) })
	return r, nil
}

// stop ends a process that the script has not ended or frozen.
func stop(p *proc.Process) error {
	select {
	case <-p.Done():
		return nil
	default:
	}
	_ = p.Signal(syscall.SIGCONT) // fails when it has ended just now
	return p.Stop()
}

// startProviders runs the OpenID providers of the example. What it says about
// them may name ${PUBLIC_URL} and make secrets: ${…_SECRET}.
func (s *stack) startProviders(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(s.example, "providers.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	text = []byte(os.Expand(string(text), func(name string) string {
		if s.secrets[name] == "" && strings.HasSuffix(name, "_SECRET") {
			s.secrets[name] = rand.Text()
			s.env[name] = s.secrets[name]
		}
		return s.secrets[name]
	}))
	var providers map[string]map[string]any
	if err := json.Unmarshal(text, &providers); err != nil {
		return fmt.Errorf("providers.json: %w", err)
	}
	node, err := proc.Find("node")
	if err != nil {
		return err
	}
	modules, err := s.modules()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(providers)) {
		url, err := s.startProvider(ctx, name, node, append(jsonValues(providers[name]), "GATEHOUSE_NODE_MODULES="+modules))
		if err != nil {
			return err
		}
		variable := strings.ToUpper(name) + "_URL"
		s.env[variable], s.secrets[variable] = url, url
	}
	return nil
}

func (s *stack) startProvider(ctx context.Context, name, node string, env []string) (issuer string, err error) {
	log, err := s.log(name)
	if err != nil {
		return "", err
	}
	script := filepath.Join(filepath.Dir(s.example), "..", "internal", "oidctest", "provider.mjs")
	p, err := proc.Start(ctx, node, []string{script}, proc.Options{Env: env, Output: log})
	if err != nil {
		return "", err
	}
	s.atEnd(func() error { return stop(p) })
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	const listening = "listening on "
	line, err := p.AwaitLine(ctx, func(line string) bool { return strings.HasPrefix(line, listening) })
	return strings.TrimPrefix(line, listening), err
}

// modules is where the provider's Node modules are.
func (s *stack) modules() (string, error) {
	dir := os.Getenv("GATEHOUSE_NODE_MODULES")
	if dir == "" {
		dir = filepath.Join(filepath.Dir(s.example), "..", "e2e", "express", "node_modules")
	}
	if _, err := os.Stat(filepath.Join(dir, "oidc-provider")); err != nil { //nolint:gosec // G703: who calls us names the directory
		return "", errors.New("oidc-provider is not installed: run scripts/tools.sh node, or set GATEHOUSE_NODE_MODULES")
	}
	return filepath.Abs(dir)
}

// jsonValues are environment variables whose values are JSON.
func jsonValues(values map[string]any) []string {
	env := environment{}
	for name, value := range values {
		text, err := json.Marshal(value)
		if err != nil {
			panic("stack: what was JSON has a JSON form: " + err.Error())
		}
		env[name] = string(text)
	}
	return env.list()
}

// startGatehouse writes the configuration and serves it with the program that
// is beside this one.
func (s *stack) startGatehouse(ctx context.Context, config map[string]any) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	program := filepath.Join(filepath.Dir(self), "gatehouse")
	if tokens, _ := config["tokens"].(map[string]any); tokens["signing_keys"] != nil {
		keys := exec.CommandContext(ctx, program, "keys", "rotate", filepath.Join(s.dir, "keys")) //nolint:gosec // G204: our own program
		if out, err := keys.CombinedOutput(); err != nil {
			return fmt.Errorf("make keys: %w: %s", err, out)
		}
	}
	text, err := yaml.Dump(config)
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, "gatehouse.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	log, err := s.log("gatehouse")
	if err != nil {
		return err
	}
	s.gatehouse, err = proc.Start(ctx, program, []string{"serve", file}, proc.Options{Env: s.secrets.list(), Output: log})
	if err != nil {
		return err
	}
	s.atEnd(func() error { return stop(s.gatehouse) })
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.gatehouse.Ready(ctx, proc.HTTP("http://"+proc.Local(s.ports.ops)+"/readyz"))
}

// startServices runs the services and the page in this process.
func (s *stack) startServices(ctx context.Context) error {
	internal := rand.Text() // from one service to the other
	for port, handler := range map[int]http.Handler{
		s.ports.users: userservice.New(userservice.Options{InternalKeys: []usercontext.Key{usercontext.HashKey(internal)}}),
		s.ports.orders: orderservice.New(orderservice.Options{
			UserService: &url.URL{Scheme: "http", Host: proc.Local(s.ports.users)},
			InternalKey: orderservice.Secret(internal),
		}),
		s.ports.page: demopage.New(demopage.Options{Store: "Redis"}),
	} {
		var listen net.ListenConfig
		l, err := listen.Listen(ctx, "tcp", proc.Local(port))
		if err != nil {
			return err
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: patience}
		go func() { _ = server.Serve(l) }() // ends with Close
		s.atEnd(server.Close)
	}
	return nil
}

// startEnvoy runs the gateway of the examples, and waits until it knows
// Gatehouse.
func (s *stack) startEnvoy(ctx context.Context) error {
	config := examples.Envoy
	for shipped, here := range map[string]string{
		"                timeout: 1s\n                # A replica that restarts": "                timeout: 8s\n                # A replica that restarts", "max_interval: 0.5s}": "max_interval: 4s}", // as Redis is waited for
	} {
		if strings.Count(config, shipped) != 1 {
			return fmt.Errorf("the gateway of the examples has %q not once: adapt the stack", shipped)
		}
		config = strings.Replace(config, shipped, here, 1)
	}
	text, err := proc.RewritePorts([]byte(config), map[int]int{
		8080: s.ports.gateway, 9901: s.ports.admin, 9001: s.ports.check, 8081: s.ports.http,
		8101: s.ports.users, 8102: s.ports.orders, 8103: s.ports.page,
	})
	if err != nil {
		return err
	}
	log, err := s.log("envoy")
	if err != nil {
		return err
	}
	e, err := proc.StartEnvoy(ctx, text, proc.EnvoyOptions{Dir: s.dir, Output: log})
	if err != nil {
		return err
	}
	s.atEnd(func() error { return stop(e.Process) })
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	healthy := []byte("gatehouse::" + proc.Local(s.ports.check) + "::health_flags::healthy")
	return e.Ready(ctx, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.Admin+"/clusters", http.NoBody)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		var list bytes.Buffer
		if _, err := list.ReadFrom(response.Body); err != nil {
			return err
		}
		if !bytes.Contains(list.Bytes(), healthy) {
			return errors.New("envoy does not find Gatehouse healthy yet")
		}
		return nil
	})
}
