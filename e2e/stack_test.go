package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// The ports of the shipped Envoy configurations; the addresses of clusters are
// replaced by name.
const (
	portGateway = 8080
	portTLS     = 8443
	portAdmin   = 9901
)

// baseConfig is what every test's configuration starts from. The policies are
// those that the routes of the shipped Envoy configuration name; the others
// are chosen by Gatehouse's own routes, below /p, which extraRoutes opens.
// There is no default policy.
const baseConfig = `
server:
  http: {public_url: "https://gateway.example.com", trusted_hops: 1}
  drain: 0s
redis: {timeout: 5s}
log: {level: debug, format: json}
tokens: {issuer: "https://gateway.example.com", audiences: [api]}
policies:
  user: {credentials: [session, bearer]}
  admin: {credentials: [session, bearer], roles: {any: [admin]}}
  public: {credentials: [session, bearer], anonymous: true}
  banking: {credentials: [session], freshness: strict, max_auth_age: 15m}
  internal: {credentials: [api_key]}
  session: {credentials: [session]}
  bearer: {credentials: [bearer]}
  any: {credentials: [api_key, bearer, session]}
  open: {anonymous: true}
  web: {credentials: [session], on_unauthenticated: redirect, login_url: /login, organizations: [org-1]}
  nocsrf: {credentials: [session], csrf: false}
  trial: {credentials: [session], roles: {all: [nobody-has-it]}, mode: observe}
routes:
- {path: /p/session/*, policy: session}
- {path: /p/bearer/*, policy: bearer}
- {path: /p/any/*, policy: any}
- {path: /p/open/*, policy: open}
- {path: /p/web/*, policy: web}
- {path: /p/nocsrf/*, policy: nocsrf}
- {path: /p/trial/*, policy: trial}
- {path: /p/user/*, policy: user}
- {path: /p/admin/*, policy: admin}
- {host: "*.tenants.example.com", policy: session}
- {path: /p/reports, methods: [GET], policy: session}
- {path: /users/admin/*, policy: admin}
- {path: /users/*, policy: user}
- {path: /public/*, policy: public}
`

// extraRoutes are what a user might add to the shipped file: a route whose
// policy Gatehouse chooses, one that names a policy which does not exist, and
// one that skips the check and forgets to take the identity headers out.
const extraRoutes = `
- match: {path_separated_prefix: /p}
  route: {cluster: user_service, timeout: 15s}
- match: {path_separated_prefix: /misnamed}
  route: {cluster: user_service, timeout: 15s}
  typed_per_filter_config:
    envoy.filters.http.ext_authz:
      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
      check_settings: {context_extensions: {policy: no-such-policy}}
- match: {path_separated_prefix: /skipped}
  route: {cluster: user_service, timeout: 15s}
  typed_per_filter_config:
    envoy.filters.http.ext_authz:
      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
      disabled: true
`

// options configure a stack.
type options struct {
	config   string   // YAML over baseConfig
	replicas int      // of Gatehouse; 0 for 1
	hurried  bool     // gateways wait for Gatehouse no longer than the shipped files say
	socket   bool     // the check listener is a Unix socket
	env      []string // of the replicas, beside the test's
}

// stack is Gatehouse with everything that it needs around it, but for the
// gateways, which are started by need.
type stack struct {
	dir      string
	hurried  bool // see options
	redis    *proc.Redis
	store    *redis.Client // the tests' own way into Redis
	replicas []*replica
	recorder *recorder // what most gateways have in place of the services
	own      keyPair   // the key of Gatehouse's own tokens
	pem      keyPair   // of the issuer pemIssuer, known by a PEM file
	idp      *idp      // serves the keys of the other issuers
	ends     []func() error
	gateways map[string]*gateway // of the shared stack, by variant
}

// replica is one running Gatehouse.
type replica struct {
	*proc.Process
	dir              string
	check, http, ops string // addresses
	config           []byte
	env              []string
}

// gateway is a running Envoy in front of a stack.
type gateway struct {
	*proc.Envoy
	*stack
	addr    string
	tlsAddr string      // of the second listener, where there is one
	tls     *tls.Config // of the client; nil for plain HTTP
}

// newStack starts Redis and Gatehouse. Other tests of this machine look for free
// ports at the same moment: a stack that met one of them is started again.
func newStack(ctx context.Context, o options) (s *stack, err error) {
	for range 3 {
		if s, err = tryStack(ctx, o); err == nil || !strings.Contains(err.Error(), "is in use") {
			break
		}
	}
	return s, err
}

func tryStack(ctx context.Context, o options) (_ *stack, err error) {
	dir, err := os.MkdirTemp(runDir, "stack-")
	if err != nil {
		return nil, err
	}
	s := &stack{dir: dir, hurried: o.hurried, gateways: map[string]*gateway{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.redis, err = proc.StartRedis(ctx, proc.RedisOptions{Dir: dir, Output: journal}); err != nil {
		return nil, err
	}
	s.atEnd(func() error { return stopUnlessEnded(s.redis.Process) }) // whichever it is by then
	s.store = redis.NewClient(&redis.Options{Addr: s.redis.Addr})
	s.atEnd(s.store.Close)
	if s.recorder, err = newRecorder(ctx); err != nil {
		return nil, err
	}
	s.atEnd(s.recorder.stop)
	s.idp = newIDP()
	s.atEnd(s.idp.stop)
	s.own, s.pem = keys.own(), keys.pem()
	for name, content := range map[string][]byte{
		"signing.pem": s.own.private(), "pem.pem": s.pem.public(), "users.yaml": usersYAML(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	for range max(1, o.replicas) {
		r, err := s.newReplica(o)
		if err != nil {
			return nil, err
		}
		if err := r.launch(ctx); err != nil {
			return nil, err
		}
		s.replicas = append(s.replicas, r)
		s.atEnd(func() error { return r.stop(ctx) })
		if err := r.await(ctx, "/readyz"); err != nil {
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

// newReplica chooses ports and writes the configuration.
func (s *stack) newReplica(o options) (*replica, error) {
	ports, err := proc.FreePorts(3)
	if err != nil {
		return nil, err
	}
	r := &replica{dir: s.dir, env: o.env, check: proc.Local(ports[0]), http: proc.Local(ports[1]), ops: proc.Local(ports[2])}
	if o.socket {
		r.check = "unix://" + filepath.Join(s.dir, "check.sock")
	}
	addresses := fmt.Sprintf(`
server: {check: {listen: %q}, http: {listen: %q}, ops: {listen: %q}}
redis: {url: "redis://%s/0"}
sessions: {secrets: [%q, %q]}
tokens: {signing_keys: [{file: signing.pem}]}
users: {file: users.yaml}
issuers:
- {issuer: %q, public_key_file: pem.pem, audiences: [api], claims: {roles: realm_access.roles}}
- {issuer: %q, jwks_url: %q, audiences: [api, other]}
- {issuer: %q, discovery: true, audiences: [api]}
- {issuer: %q, jwks_url: %q, audiences: [api]}
api_keys: %s
`, r.check, r.http, r.ops, s.redis.Addr, secretCurrent, secretPrevious,
		pemIssuer, jwksIssuer, s.idp.url()+"/jwks", s.idp.url(), deadIssuer, "http://"+proc.Local(1)+"/jwks",
		apiKeysYAML())
	if r.config, err = proc.MergeYAML(baseConfig, addresses, o.config); err != nil {
		return nil, err
	}
	return r, nil
}

// launch runs the replica.
func (r *replica) launch(ctx context.Context) error {
	bin, err := binaries()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(r.ops)
	if err != nil {
		return err
	}
	file := filepath.Join(r.dir, "gatehouse-"+port+".yaml")
	if err := os.WriteFile(file, r.config, 0o600); err != nil {
		return err
	}
	r.Process, err = proc.Start(ctx, filepath.Join(bin, "gatehouse"), []string{"serve", file}, proc.Options{Env: r.env, Output: journal, Grace: patience})
	return err
}

// await waits until the ops listener answers 200 at a path.
func (r *replica) await(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return r.Ready(ctx, proc.HTTP("http://"+r.ops+path))
}

// restart starts a replica again that has ended, and waits until the ops
// listener answers 200 at a path: /healthz where it can't be ready.
func (r *replica) restart(t *testing.T, path string) error {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if err := r.launch(ctx); err != nil {
		return err
	}
	return r.await(ctx, path)
}

// stop takes the metrics down for the journal and ends the replica in order.
func (r *replica) stop(ctx context.Context) error {
	select {
	case <-r.Done():
		return nil
	default:
	}
	_, err := r.metrics(ctx)
	return errors.Join(err, r.Stop())
}

// stopUnlessEnded stops a process that no test has ended, in whatever way.
func stopUnlessEnded(p *proc.Process) error {
	select {
	case <-p.Done():
		return nil
	default:
		return p.Stop()
	}
}

// metrics returns what the ops listener tells, and puts it into the journal.
func (r *replica) metrics(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.ops+"/metrics", http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	journal.measured(text)
	return string(text), err
}

// newGateway starts Envoy with the shipped configuration in front of the
// stack: on free ports, with extraRoutes, and with the recorder in place of the
// services; then the edits.
func (s *stack) newGateway(ctx context.Context, shipped string, edits ...edit) (_ *gateway, err error) {
	ports, err := proc.FreePorts(3)
	if err != nil {
		return nil, err
	}
	listeners := map[int]int{portGateway: ports[0], portAdmin: ports[1]}
	if shipped == envoy.ConfigTLS {
		listeners[portTLS] = ports[2]
	}
	edits = append([]edit{
		s.waits,
		routesFirst(extraRoutes),
		endpoints("user_service", s.recorder.addr()),
		endpoints("order_service", s.recorder.addr()),
		endpoints("demo", s.recorder.addr()),
		endpoints("gatehouse", s.checks()...),
		endpoints("gatehouse_http", s.replicas[0].http),
	}, edits...)
	text, err := edited(shipped, edits...)
	if err != nil {
		return nil, err
	}
	if text, err = proc.RewritePorts(text, listeners); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.dir, "envoy-")
	if err != nil {
		return nil, err
	}
	e, err := proc.StartEnvoy(ctx, text, proc.EnvoyOptions{Dir: dir, Output: journal})
	if err != nil {
		return nil, err
	}
	s.atEnd(e.Stop)
	g := &gateway{Envoy: e, stack: s, addr: proc.Local(ports[0]), tlsAddr: proc.Local(ports[2])}
	for _, r := range s.replicas {
		if err := g.sees(ctx, r.check); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// waits has Envoy wait for its checks for longer than the second that it has as shipped: a
// machine that stands still for so long is no outage that a test is about, unless it says so.
func (s *stack) waits(config map[string]any) error {
	if s.hurried {
		return nil
	}
	found := 0
	each(config, func(m map[string]any) {
		if to, ok := m["envoy_grpc"].(map[string]any); !ok || to["cluster_name"] != "gatehouse" {
			return
		}
		m["timeout"] = "20s"
		if policy, ok := m["retry_policy"].(map[string]any); ok {
			policy["retry_back_off"].(map[string]any)["max_interval"] = "10s" // the time of one try
		}
		found++
	})
	if found != 1 {
		return fmt.Errorf("the Envoy configuration has %d services named gatehouse, not one: adapt the test", found)
	}
	return inCluster("gatehouse", func(cluster map[string]any) { cluster["connect_timeout"] = "5s" })(config)
}

func (s *stack) checks() []string {
	var all []string
	for _, r := range s.replicas {
		all = append(all, r.check)
	}
	return all
}

// sees waits until Envoy finds a replica healthy.
func (g *gateway) sees(ctx context.Context, check string) error {
	return g.awaits(ctx, "gatehouse::"+strings.TrimPrefix(check, "unix://")+"::health_flags::healthy")
}

// awaits waits until the admin interface's list of clusters holds text.
func (g *gateway) awaits(ctx context.Context, text string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return g.Ready(ctx, func(ctx context.Context) error {
		list, err := g.admin(ctx, "/clusters")
		if err == nil && !strings.Contains(list, text) {
			err = fmt.Errorf("no %q in\n%s", text, list)
		}
		return err
	})
}

// admin asks Envoy's admin interface.
func (g *gateway) admin(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.Admin+path, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// need skips the test where a program is missing.
func need(t *testing.T) {
	t.Helper()
	proctest.Need(t, "envoy")
	proctest.Need(t, "redis-server")
}

// start runs a stack of the test's own.
func start(t *testing.T, o options) *stack {
	t.Helper()
	need(t)
	s, err := newStack(context.WithoutCancel(t.Context()), o)
	require.NoError(t, err)
	before := journal.len()
	t.Cleanup(func() {
		require.NoError(t, s.stop())
		logFailure(t, before)
	})
	return s
}

// logFailure shows the end of what the programs printed during a failed test.
func logFailure(t *testing.T, since int) {
	t.Helper()
	const most = 4000
	if text := journal.since(since); t.Failed() {
		t.Logf("the programs' output during the test:\n%s", text[max(0, len(text)-most):])
	}
}

// gateway starts an Envoy of the test's own.
func (s *stack) gateway(t *testing.T, edits ...edit) *gateway {
	t.Helper()
	g, err := s.newGateway(context.WithoutCancel(t.Context()), envoy.Config, edits...)
	require.NoError(t, err)
	return g
}

// sharedStacks are those that tests which change nothing share. They last as
// long as the run.
var sharedStacks shared

type shared struct {
	mu    sync.Mutex
	stack *stack
	err   error
}

// The gateways in front of the shared stack.
const (
	asShipped  = "as shipped"
	headerMap  = "encode_raw_headers: false"
	defenceOff = "without Envoy's own defences"
	failOpen   = "failure_mode_allow: true"
)

// variants are edits of the shipped file.
var variants = map[string][]edit{
	asShipped: nil,
	// Envoy's default form of headers.
	headerMap: {inType("ExtAuthz", map[string]any{"encode_raw_headers": false})},
	// Gatehouse's own second wall has to hold alone: paths arrive as they were
	// sent, and so does every header.
	defenceOff: {
		inType("HttpConnectionManager", map[string]any{
			"normalize_path": false, "merge_slashes": false, "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
			"early_header_mutation_extensions": nil,
			"common_http_protocol_options":     map[string]any{"headers_with_underscores_action": "ALLOW"},
		}),
	},
	failOpen: {inType("ExtAuthz", map[string]any{"failure_mode_allow": true})},
}

// sharedGateway returns a gateway in front of the shared stack.
func sharedGateway(t *testing.T, variant string) *gateway {
	t.Helper()
	need(t)
	edits, ok := variants[variant]
	require.True(t, ok, variant)
	sharedStacks.mu.Lock()
	defer sharedStacks.mu.Unlock()
	// Not the test's context: the stack outlives the test.
	ctx := context.WithoutCancel(t.Context())
	if sharedStacks.stack == nil && sharedStacks.err == nil {
		sharedStacks.stack, sharedStacks.err = newStack(ctx, options{})
	}
	require.NoError(t, sharedStacks.err)
	s := sharedStacks.stack
	g := s.gateways[variant]
	if g == nil {
		var err error
		g, err = s.newGateway(ctx, envoy.Config, edits...)
		require.NoError(t, err)
		s.gateways[variant] = g
	}
	before := journal.len()
	t.Cleanup(func() { logFailure(t, before) })
	return g
}

// stop returns what ends the shared stacks.
func (s *shared) stop() []func() error {
	if s.stack == nil {
		return nil
	}
	return []func() error{s.stack.stop}
}

func port(address string) int {
	n, err := strconv.Atoi(address[strings.LastIndexByte(address, ':')+1:])
	if err != nil {
		panic(err)
	}
	return n
}

// startRedis starts an empty Redis in the place of one that was killed.
func (s *stack) startRedis(t *testing.T) {
	t.Helper()
	r, err := proc.StartRedis(context.WithoutCancel(t.Context()), proc.RedisOptions{Dir: s.dir, Port: s.redis.Port, Output: journal})
	require.NoError(t, err)
	s.redis = r
}

// freezeRedis stops Redis from answering, its connections open; thaw ends it.
func (s *stack) freezeRedis(t *testing.T) (thaw func()) {
	t.Helper()
	require.NoError(t, s.redis.Signal(syscall.SIGSTOP))
	return func() { require.NoError(t, s.redis.Signal(syscall.SIGCONT)) }
}

// eventually asks until the reply has the status, and returns it. It is for
// what takes effect a moment later, such as that a program which was just
// started is reached.
func eventually(t *testing.T, status int, ask func() reply) reply {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		r := ask()
		if r.status == status {
			return r
		}
		select {
		case <-tick.C:
		case <-timeout:
			require.FailNow(t, "not in time", "status %d; the last reply: %s", status, r.line())
		}
	}
}
