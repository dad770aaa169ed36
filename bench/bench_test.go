package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// TestMain lets the test binary be the other servers, as bench itself is.
func TestMain(m *testing.M) {
	if args := os.Args[1:]; isServer(args) {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err := runServer(ctx, args, os.Stdout)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const shippedEnvoy = "../envoy/envoy.yaml"

// The whole of it with few requests: every scenario runs through the real
// Envoy and is decided as it should be, or the run fails.
func TestBenchRunsEveryScenario(t *testing.T) {
	proctest.Need(t, "envoy")
	proctest.Need(t, "redis-server")
	dir := t.TempDir()
	gatehouse, file := filepath.Join(dir, "gatehouse"), filepath.Join(dir, "out.json")
	out, err := exec.Command("go", "build", "-o", gatehouse, "../cmd/gatehouse").CombinedOutput()
	require.NoError(t, err, "%s", out)

	var stdout, stderr bytes.Buffer
	err = run(t.Context(), []string{
		"-gatehouse", gatehouse, "-envoy", shippedEnvoy, "-json", file, "-users", "20,30",
		"-connections", "2,4", "-rounds", "2", "-requests", "100", "-duration", "20s", "-warmup", "5s",
	}, &stdout, &stderr)
	require.NoError(t, err, stderr.String())

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var got report
	require.NoError(t, json.Unmarshal(text, &got))
	require.Len(t, got.Parts, 2)
	for n, p := range got.Parts {
		require.Equal(t, []int{2, 4}[n], p.Load.Connections)
		require.Len(t, p.Scenarios, len(scenarios)+1)
		for i, s := range p.Scenarios {
			if i < len(scenarios) {
				require.Equal(t, scenarios[i].name, s.Name)
			}
			require.Len(t, s.Rounds, 2)
			for _, f := range s.Rounds {
				require.Equal(t, 100, f.Requests)
				require.Positive(t, f.P50)
				require.GreaterOrEqual(t, f.P99, f.P50)
				for _, process := range []string{"envoy", "redis", "server", generator} {
					require.Contains(t, f.CPU, process)
				}
				if s.Name == baseUsual {
					require.InDelta(t, 1000, f.CommandsEach["get"], 1e-6, "one GET per request")
				}
			}
			require.Positive(t, s.To[baseNoop].P50)
			require.Contains(t, stdout.String(), s.Title)
		}
	}
	require.Len(t, got.Wire, 3)
	nothing, cookie, token := got.Wire[0], got.Wire[1], got.Wire[2]
	require.Equal(t, nothing.HTTP1+wireCalls*int64(cookie.Header), cookie.HTTP1)
	require.Equal(t, nothing.HTTP1+wireCalls*int64(token.Header), token.HTTP1)
	require.Greater(t, token.HTTP2First, cookie.HTTP2First)
	require.Less(t, token.HTTP2First, token.HTTP1)
	require.LessOrEqual(t, token.HTTP2Next, token.HTTP2First)
	require.Len(t, got.Memory, 4)
	many := got.Memory[3]
	require.Equal(t, "gatehouse_30", many.Process)
	require.Equal(t, 30, many.Sessions)
	require.GreaterOrEqual(t, many.Entries, 30.0)
	for _, m := range got.Memory {
		require.Positive(t, m.RSS)
		require.Positive(t, m.Bytes)
		require.True(t, m.Coherent)
	}
	require.NotEmpty(t, got.Machine.Envoy)
	require.NotEmpty(t, got.Machine.Redis)
	require.NotEmpty(t, got.Machine.Gatehouse)
}

// Every kind of write is seen, with announcements and without.
func TestBenchMeasuresFreshness(t *testing.T) {
	proctest.Need(t, "envoy")
	proctest.Need(t, "redis-server")
	dir := t.TempDir()
	gatehouse, file := filepath.Join(dir, "gatehouse"), filepath.Join(dir, "out.json")
	out, err := exec.Command("go", "build", "-o", gatehouse, "../cmd/gatehouse").CombinedOutput()
	require.NoError(t, err, "%s", out)

	var stdout, stderr bytes.Buffer
	err = run(t.Context(), []string{
		"-gatehouse", gatehouse, "-envoy", shippedEnvoy, "-json", file, "-users", "20",
		"-connections", "2", "-freshness", "-writes", "23", "-tries", "3",
	}, &stdout, &stderr)
	require.NoError(t, err, stderr.String())
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var got report
	require.NoError(t, json.Unmarshal(text, &got))
	require.Empty(t, got.Parts)
	require.Len(t, got.Freshness.Runs, 2)
	for _, r := range got.Freshness.Runs {
		require.Equal(t, 23, r.Writes, r.Condition)
		require.GreaterOrEqual(t, r.Waited, 25.0)
		require.Len(t, r.Kinds, kinds)
		for _, k := range r.Kinds {
			require.Equal(t, 1, k.Tries, k.Write)
		}
	}
	require.Equal(t, 3, got.Freshness.Frozen.Tries)
	require.Equal(t, 3, got.Freshness.Expiry.Tries)
	require.Contains(t, stdout.String(), "With the announcements frozen: ")
}

// A filter that does not decide, or decides otherwise, must not be measured as
// if it did.
func TestBenchRefusesToMeasureSomethingElse(t *testing.T) {
	proctest.Need(t, "envoy")
	proctest.Need(t, "redis-server")
	none := scenarios[0]
	require.Equal(t, baseNone, none.name)
	unchecked := none
	unchecked.name, unchecked.counter = "unchecked", "ext_authz.ok"
	allowed := scenario{
		name: "allowed", filter: "ext_authz", server: checkServer{program: programNoop},
		status: http.StatusUnauthorized, counter: "ext_authz.ok",
	}
	l := load{Connections: 2, Requests: 50, Duration: 10 * time.Second}
	s, err := startStack(t.Context(), stackOptions{
		dir: t.TempDir(), gatehouse: "unused", shipped: shippedEnvoy, scenarios: []scenario{none, unchecked, allowed}, sessions: 1,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.stop()) })

	_, err = measureWindow(t.Context(), s, none, none.target(s.creds, 1), l, time.Second, nil)
	require.NoError(t, err)
	_, err = measureWindow(t.Context(), s, unchecked, unchecked.target(s.creds, 1), l, time.Second, nil)
	require.ErrorContains(t, err, "of 100 requests Envoy's counter http.unchecked.ext_authz.ok saw 0")
	_, err = measureWindow(t.Context(), s, allowed, allowed.target(s.creds, 1), l, time.Second, nil)
	require.ErrorContains(t, err, `warm-up: 50 of 50 answers were not the expected 401; one of them: 200 "hello\n"`)
}

func TestMissingBinaryIsExplained(t *testing.T) {
	proctest.Need(t, "redis-server")
	_, err := startStack(t.Context(), stackOptions{
		dir: t.TempDir(), gatehouse: filepath.Join(t.TempDir(), "none"), shipped: shippedEnvoy, sessions: 1,
		scenarios: []scenario{{name: "session", filter: "ext_authz", server: checkServer{program: programGatehouse}}},
	})
	require.ErrorContains(t, err, "run make build first, or set -gatehouse")
}

// What is measured is the filter that users run: the shipped one, but for two
// settings.
func TestShippedFilterIsMeasured(t *testing.T) {
	shipped, err := shippedFilter(shippedEnvoy)
	require.NoError(t, err)
	text, err := envoyConfig{Shipped: shipped}.ExtAuthz("somewhere")
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &got))
	typed := func(filter map[string]any) (config, service map[string]any) {
		config = filter["typed_config"].(map[string]any)
		return config, config["grpc_service"].(map[string]any)
	}
	wantConfig, wantService := typed(shipped)
	gotConfig, gotService := typed(got)
	require.Equal(t, false, gotConfig["failure_mode_allow"])
	require.Equal(t, "somewhere", gotService["envoy_grpc"].(map[string]any)["cluster_name"])
	require.NotEqual(t, "somewhere", wantService["envoy_grpc"].(map[string]any)["cluster_name"], "the shipped one is untouched")
	for _, service := range []map[string]any{wantService, gotService} {
		delete(service["envoy_grpc"].(map[string]any), "cluster_name")
		delete(service, "timeout")
		if retry, ok := service["retry_policy"].(map[string]any); ok {
			delete(retry["retry_back_off"].(map[string]any), "max_interval")
		}
	}
	want, err := json.Marshal(wantConfig)
	require.NoError(t, err)
	rest, err := json.Marshal(gotConfig)
	require.NoError(t, err)
	require.JSONEq(t, string(want), string(rest))
}

func TestShippedFilterMustBeThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	require.NoError(t, os.WriteFile(file, []byte("static_resources: {listeners: [{name: a}]}\n"), 0o600))
	_, err := shippedFilter(file)
	require.ErrorContains(t, err, "has no HTTP filter envoy.filters.http.ext_authz")
	_, err = shippedFilter(file + "x")
	require.ErrorContains(t, err, "-envoy")
}

func TestCredentialsAreShownInTurn(t *testing.T) {
	c, err := newCredentials(3, time.Now())
	require.NoError(t, err)
	for _, s := range append(slices.Clone(scenarios), manySessions(2)) {
		seen := map[string]bool{}
		to := s.target(c, 3)
		for range to.shown.len() {
			text := string(to.next(nil))
			require.True(t, strings.HasSuffix(text, "\r\n\r\n"), s.name)
			require.Equal(t, strings.Count(text, "\n"), strings.Count(text, "\r\n"), s.name)
			require.False(t, seen[text], "%s sends the same credential twice in a turn", s.name)
			seen[text] = true
		}
		require.NotEmpty(t, seen, s.name)
	}
	require.Equal(t, 3, scenarios[0].target(c, 3).shown.len())
	require.Equal(t, 2, scenarios[0].target(c, 2).shown.len())
	require.Equal(t, 2, manySessions(2).target(c, 3).shown.len())
}

// slowServer allows, but takes its time for it.
type slowServer struct {
	noopServer
	calls atomic.Int64
	takes time.Duration
}

func (s *slowServer) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	s.calls.Add(1)
	select {
	case <-time.After(s.takes):
		return s.noopServer.Check(ctx, req)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Beside a busy compiler, checks took longer than one try may take by the
// shipped file: they were tried again, or answered with 503. In a benchmark
// they are slow, nothing else, and each request is checked once.
func TestSlowCheckIsLatencyNotRefusal(t *testing.T) {
	proctest.Need(t, "envoy")
	slow := &slowServer{takes: 1500 * time.Millisecond} // the shipped file allows a second for all tries
	addr := startFront(t, slow).addr
	const n = 16
	c := newClient(t, addr, n)
	got, err := c.run(t.Context(), asks(200, "/"), load{Requests: n})
	require.NoError(t, err)
	require.GreaterOrEqual(t, got.percentile(0.5), slow.takes)
	require.Equal(t, int64(n), slow.calls.Load(), "no second tries")
}

// flakyServer is out of order for its first call.
type flakyServer struct {
	noopServer
	calls atomic.Int64
}

func (s *flakyServer) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	if s.calls.Add(1) == 1 {
		return nil, status.Error(codes.Unavailable, "not yet")
	}
	return s.noopServer.Check(ctx, req)
}

// Envoy hides a failed check by a second one. Its figures would be those of
// two checks.
func TestSecondTriesFailTheRun(t *testing.T) {
	proctest.Need(t, "envoy")
	front := startFront(t, &flakyServer{})
	_, err := measureWindow(t.Context(), front.stack, front.scenario, asks(200, "/"),
		load{Connections: 1, Requests: 20, Duration: 10 * time.Second}, 5*time.Second, nil)
	require.ErrorContains(t, err, "of 40 requests Envoy's counter cluster.front.upstream_rq_total saw 41")
}

// front is an Envoy in front of a check server that runs in this process.
type front struct {
	stack    *stack
	scenario scenario
	addr     string
}

func startFront(t *testing.T, check authv3.AuthorizationServer) front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, check)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)

	shipped, err := shippedFilter(shippedEnvoy)
	require.NoError(t, err)
	sc := scenario{name: "front", filter: "ext_authz", server: checkServer{program: "front"}, status: 200, counter: "ext_authz.ok"}
	ports := proctest.FreePorts(t, 2)
	config, err := envoyConfig{
		AdminPort: ports[0],
		Shipped:   shipped,
		Listeners: []envoyListener{{Name: sc.name, Port: ports[1], Filter: sc.filter, Cluster: sc.server.name()}},
		Clusters:  []envoyCluster{{Name: sc.server.name(), address: address{Port: l.Addr().(*net.TCPAddr).Port}}},
	}.render()
	require.NoError(t, err)
	envoy := proctest.StartEnvoy(t, config, proc.EnvoyOptions{})
	return front{
		stack:    &stack{envoy: envoy, ports: map[string]int{sc.name: ports[1]}},
		scenario: sc,
		addr:     proc.Local(ports[1]),
	}
}
