package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
	"google.golang.org/grpc"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// example returns a file of an example.
func example(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "examples", path))
	require.NoError(t, err)
	return string(text)
}

// exampleConfig is an example's configuration of Gatehouse, but for the addresses
// and secrets, which are the stack's own.
func exampleConfig(t *testing.T, path string) string {
	t.Helper()
	var config map[string]any
	require.NoError(t, yaml.Load([]byte(example(t, path)), &config))
	for _, own := range []string{"server", "redis", "sessions"} {
		delete(config, own)
	}
	text, err := yaml.Dump(config)
	require.NoError(t, err)
	return string(text)
}

// exampleGateway runs an example's Envoy in front of the stack, with the recorder
// in place of the services.
func (s *stack) exampleGateway(t *testing.T, path string, edits ...edit) *gateway {
	t.Helper()
	ports, err := proc.FreePorts(2)
	require.NoError(t, err)
	text, err := edited(example(t, path), append(edits, s.waits, endpoints("gatehouse", s.checks()...), endpoints("services", s.recorder.addr()))...)
	require.NoError(t, err)
	text, err = proc.RewritePorts(text, map[int]int{portGateway: ports[0], portAdmin: ports[1]})
	require.NoError(t, err)
	e, err := proc.StartEnvoy(context.WithoutCancel(t.Context()), text, proc.EnvoyOptions{Dir: t.TempDir(), Output: journal})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Stop()) })
	return &gateway{Envoy: e, stack: s, addr: proc.Local(ports[0])}
}

// member makes a session of somebody with a plan, "" for none, and returns its
// cookie.
func (s *stack) member(t *testing.T, id, org, plan string) string {
	t.Helper()
	record := identity{id, id + "@example.com", "[]", org}.record()
	if plan != "" {
		record["plan"] = plan
	}
	return cookie(signed(s.session(t, record), secretCurrent))
}

// passes asks until the gateway refuses, and returns how often it didn't.
func (g *gateway) passes(t *testing.T, path string, headers ...string) (n int) {
	t.Helper()
	for {
		r := g.get(t, path, headers...)
		if r.status == 429 {
			require.Equal(t, `{"error":"Too many requests"}`, r.body)
			require.Equal(t, []string{"application/json"}, r.header.Values("content-type"))
			require.Equal(t, "0", r.header.Get("x-ratelimit-remaining"))
			require.Nil(t, r.arrived)
			return n
		}
		require.Equal(t, 200, r.status, r.line())
		n++
		require.Less(t, n, 100, "no limit")
	}
}

// TestEnvoysOwnRateLimits: the examples count by what Gatehouse tells of the
// caller, and Gatehouse asks Redis for nothing.
func TestEnvoysOwnRateLimits(t *testing.T) {
	s := start(t, options{config: exampleConfig(t, "rate-limits/config.yaml")})
	for name, newGateway := range map[string]func(*testing.T) *gateway{
		"local": func(t *testing.T) *gateway { return s.exampleGateway(t, "rate-limits/envoy-local.yaml") },
		"global": func(t *testing.T) *gateway {
			service := startRateLimitService(t, example(t, "rate-limits/ratelimit.yaml"))
			return s.exampleGateway(t, "rate-limits/envoy-global.yaml", endpoints("ratelimit", service.addr))
		},
		"the real service": func(t *testing.T) *gateway {
			return s.exampleGateway(t, "rate-limits/envoy-global.yaml", endpoints("ratelimit", s.realRateLimitService(t)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t)
			spoof := []string{"x-plan: pro", "x-user-id: another", "x-forwarded-for: 203.0.113.9"}
			with := func(credential string) []string { return append([]string{credential}, spoof...) }
			free, freeAgain, pro := s.member(t, "free-"+name, "org-"+name, ""), s.member(t, "free-"+name, "org-"+name, "free"), s.member(t, "pro-"+name, "org-"+name, "pro")
			odd := s.member(t, "odd-"+name, "org-odd-"+name, "gold")

			require.Equal(t, 5, g.passes(t, "/x", with(free)...), "who has no plan is on the free one")
			require.Zero(t, g.passes(t, "/x", with(freeAgain)...), "by another session, the same user")
			require.Equal(t, 20, g.passes(t, "/x", with(pro)...))
			require.Equal(t, 20, g.passes(t, "/x", with(odd)...), "a plan that is not listed is no way out")
			require.Equal(t, 3, g.passes(t, "/public", spoof...), "nobody counts by address")
			require.Equal(t, 401, g.get(t, "/x").status, "who is refused by Gatehouse is not counted")

			// The organization has used 25 of its 30, and refused ones count where
			// the limiter asks for all limits at once.
			colleague := s.member(t, "colleague-"+name, "org-"+name, "pro")
			require.LessOrEqual(t, g.passes(t, "/x", with(colleague)...), 5)

			own := s.member(t, "own-"+name, "org-own-"+name, "pro")
			for range 5 {
				r := g.get(t, "/reports", own)
				require.Equal(t, 200, r.status, r.line())
				require.Equal(t, []string{`"reports";q=5;w=3600`}, r.header.Values("ratelimit-policy"))
			}
			require.Equal(t, 429, g.get(t, "/reports", own).status, "Gatehouse's own limit, beside Envoy's")
		})
	}
	keys, err := s.store.Keys(t.Context(), "rate:gatehouse:limit:*").Result()
	require.NoError(t, err)
	for _, key := range keys {
		require.True(t, strings.HasPrefix(key, "rate:gatehouse:limit:reports:"), "counted by Envoy, and not by Gatehouse: %s", key)
	}
	require.GreaterOrEqual(t, len(keys), 2)
}

// TestNoRateLimitServiceRefuses: as the example has it.
func TestNoRateLimitServiceRefuses(t *testing.T) {
	s := start(t, options{config: exampleConfig(t, "rate-limits/config.yaml")})
	g := s.exampleGateway(t, "rate-limits/envoy-global.yaml", endpoints("ratelimit", proc.Local(1)))
	r := g.get(t, "/x", s.member(t, "u", "o", "pro"))
	require.Equal(t, 503, r.status, r.line())
	require.Nil(t, r.arrived)
}

// realRateLimitService runs github.com/envoyproxy/ratelimit on the stack's Redis,
// where it is installed, and returns its address.
func (s *stack) realRateLimitService(t *testing.T) string {
	t.Helper()
	path, err := proc.Find("ratelimit")
	if err != nil {
		t.Skip("skipped: github.com/envoyproxy/ratelimit is not installed; set GATEHOUSE_RATELIMIT to its binary")
	}
	ports, err := proc.FreePorts(3)
	require.NoError(t, err)
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "config"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(root, "config", "gateway.yaml"), []byte(example(t, "rate-limits/ratelimit.yaml")), 0o600))
	p := proctest.Start(t, path, nil, proc.Options{Output: journal, Env: []string{
		"USE_STATSD=false", "RUNTIME_ROOT=" + root, "RUNTIME_SUBDIRECTORY=.", "RUNTIME_WATCH_ROOT=false", "REDIS_SOCKET_TYPE=tcp", "REDIS_URL=" + s.redis.Addr,
		"HOST=127.0.0.1", "GRPC_HOST=127.0.0.1", "DEBUG_HOST=127.0.0.1",
		fmt.Sprintf("PORT=%d", ports[0]), fmt.Sprintf("GRPC_PORT=%d", ports[1]), fmt.Sprintf("DEBUG_PORT=%d", ports[2]),
	}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, p.Ready(ctx, proc.HTTP("http://"+proc.Local(ports[0])+"/healthcheck")))
	return proc.Local(ports[1])
}

// rateLimitService stands in for github.com/envoyproxy/ratelimit: it reads the part
// of its configuration that the example has, and counts for ever.
type rateLimitService struct {
	ratelimitv3.UnimplementedRateLimitServiceServer
	addr   string
	domain string
	limits []limitDescriptor

	mu   sync.Mutex
	used map[string]int
}

type limitDescriptor struct {
	Key         string            `yaml:"key"`
	Value       string            `yaml:"value"`
	Descriptors []limitDescriptor `yaml:"descriptors"`
	RateLimit   struct {
		Unit            string `yaml:"unit"`
		RequestsPerUnit int    `yaml:"requests_per_unit"`
	} `yaml:"rate_limit"`
}

func startRateLimitService(t *testing.T, config string) *rateLimitService {
	t.Helper()
	var parsed struct {
		Domain      string            `yaml:"domain"`
		Descriptors []limitDescriptor `yaml:"descriptors"`
	}
	require.NoError(t, yaml.Load([]byte(config), &parsed))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &rateLimitService{addr: listener.Addr().String(), domain: parsed.Domain, limits: parsed.Descriptors, used: map[string]int{}}
	server := grpc.NewServer()
	ratelimitv3.RegisterRateLimitServiceServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return s
}

func (s *rateLimitService) ShouldRateLimit(_ context.Context, r *ratelimitv3.RateLimitRequest) (*ratelimitv3.RateLimitResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.GetDomain() != s.domain {
		return nil, fmt.Errorf("domain %q", r.GetDomain())
	}
	response := &ratelimitv3.RateLimitResponse{OverallCode: ratelimitv3.RateLimitResponse_OK}
	for _, d := range r.GetDescriptors() {
		level, most, name := s.limits, 0, ""
		for _, e := range d.GetEntries() {
			var found *limitDescriptor
			for i := range level { // the value itself, before every value
				if l := &level[i]; l.Key == e.GetKey() && (l.Value == e.GetValue() || l.Value == "" && found == nil) {
					found = l
				}
			}
			if found == nil {
				most = 0
				break
			}
			level, most, name = found.Descriptors, found.RateLimit.RequestsPerUnit, name+"|"+e.GetKey()+"="+e.GetValue()
		}
		status := &ratelimitv3.RateLimitResponse_DescriptorStatus{Code: ratelimitv3.RateLimitResponse_OK}
		if most > 0 {
			status.CurrentLimit = &ratelimitv3.RateLimitResponse_RateLimit{RequestsPerUnit: uint32(most), Unit: ratelimitv3.RateLimitResponse_RateLimit_HOUR}
			if s.used[name]++; s.used[name] > most {
				status.Code = ratelimitv3.RateLimitResponse_OVER_LIMIT
				response.OverallCode = ratelimitv3.RateLimitResponse_OVER_LIMIT
			}
		}
		response.Statuses = append(response.Statuses, status)
	}
	return response, nil
}
