package session_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// The client's own log of failed connections is what these tests provoke.
func TestMain(m *testing.M) {
	logging.Disable()
	os.Exit(m.Run())
}

// backend is a kind of store server. start gives the URL of a new one that
// runs until tb ends, or until it is cut.
type backend struct {
	name  string
	start func(tb testing.TB) (url string, cut func())
}

var backends = []backend{
	{"embedded", startEmbedded},
	{"redis", startRedis},
	{"socket", startSocket},
	{"sentinel", startSentinel},
	{"cluster", startCluster},
}

// embedded and the real thing are enough where the topology makes no
// difference.
var twoBackends = backends[:2]

func startEmbedded(testing.TB) (url string, cut func()) { return "embedded://", nil }

func startRedis(tb testing.TB) (url string, cut func()) {
	tb.Helper()
	r := proctest.StartRedis(tb)
	return "redis://" + r.Addr, func() { _ = r.Stop() }
}

func startSocket(tb testing.TB) (url string, cut func()) {
	tb.Helper()
	// Not tb.TempDir: the path of a socket is 107 bytes at most.
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // as said above
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, os.RemoveAll(dir)) })
	r := proctest.StartRedis(tb, "--unixsocket", filepath.Join(dir, "s"), "--requirepass", "p@ss/word:%")
	return "unix://:p%40ss%2Fword%3A%25@" + filepath.Join(dir, "s") + "?db=3", func() { _ = r.Stop() }
}

func startSentinel(tb testing.TB) (url string, cut func()) {
	tb.Helper()
	master := proctest.StartRedis(tb)
	port := proctest.FreePort(tb)
	config := filepath.Join(tb.TempDir(), "sentinel.conf")
	require.NoError(tb, os.WriteFile(config, fmt.Appendf(nil,
		"port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor the-master 127.0.0.1 %d 1\n", port, filepath.Dir(config), master.Port), 0o600))
	sentinel := proctest.Start(tb, proctest.Need(tb, "redis-sentinel"), []string{config}, proc.Options{})
	ready(tb, sentinel, proc.Local(port))
	return fmt.Sprintf("redis+sentinel://%s,%s/the-master/2", proc.Local(port), "127.0.0.1:1"), func() { _ = master.Stop() }
}

func ready(tb testing.TB, p *proc.Process, addr string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(tb, p.Ready(ctx, proc.RedisPing(addr)))
}

func startCluster(tb testing.TB) (url string, cut func()) {
	tb.Helper()
	url, cut, _ = startMasters(tb)
	return url, cut
}

// startMasters starts three masters with a third of the slots each.
func startMasters(tb testing.TB, args ...string) (url string, cut func(), masters []*proc.Redis) {
	tb.Helper()
	const nodes, slots = 3, 16384
	servers := make([]*proc.Redis, nodes)
	clients := make([]*redis.Client, nodes)
	addresses := make([]string, nodes)
	buses := proctest.FreePorts(tb, nodes)
	for i := range servers {
		servers[i] = proctest.StartRedis(tb, append([]string{"--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(buses[i])}, args...)...)
		clients[i] = redis.NewClient(&redis.Options{Addr: servers[i].Addr, Protocol: 2, DisableIdentity: true})
		addresses[i] = servers[i].Addr
		defer func() { _ = clients[i].Close() }()
		require.NoError(tb, clients[i].Do(tb.Context(), "cluster", "addslotsrange", i*slots/nodes, (i+1)*slots/nodes-1).Err())
		require.NoError(tb, clients[0].Do(tb.Context(), "cluster", "meet", "127.0.0.1", servers[i].Port, buses[i]).Err())
	}
	for _, c := range clients {
		require.Eventually(tb, func() bool {
			info, err := c.ClusterInfo(tb.Context()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		}, 30*time.Second, 20*time.Millisecond)
	}
	return "redis+cluster://" + strings.Join(addresses, ","), func() {
		for _, s := range servers {
			_ = s.Stop()
		}
	}, servers
}

// server is a running backend that tests share one after the other: each
// connects anew and finds it empty.
type server struct {
	t    *testing.T // with whose end it ends
	kind backend
	url  string
	cut  func()
}

func newServer(t *testing.T, kind backend) *server {
	t.Helper()
	return &server{t: t, kind: kind}
}

// connect returns a client of the server, which is empty, and what cuts it
// off: for good, so that the next one to connect starts a new server.
func (s *server) connect(tb testing.TB, o session.OpenOptions) (client redis.UniversalClient, cut func()) {
	tb.Helper()
	if s.url == "" {
		s.url, s.cut = s.kind.start(s.t)
	}
	o.Logger = slog.New(slog.DiscardHandler)
	client, err := session.Open(s.url, o)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = client.Close() })
	if s.cut == nil { // an embedded server is its client's alone
		return client, func() { _ = client.Close() }
	}
	flush := func(ctx context.Context, c *redis.Client) error { return c.FlushAll(ctx).Err() }
	if cluster, ok := client.(*redis.ClusterClient); ok {
		require.NoError(tb, cluster.ForEachMaster(tb.Context(), flush))
	} else {
		require.NoError(tb, client.FlushAll(tb.Context()).Err())
	}
	return client, func() {
		s.cut()
		s.url, s.cut = "", nil
	}
}

// onBackends runs a test on several kinds of server.
func onBackends(t *testing.T, kinds []backend, test func(s *server)) {
	t.Helper()
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			test(newServer(t, kind))
		})
	}
}
