package session_test

import (
	"context"
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
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// The client's own log of failed connections is what these tests provoke.
func TestMain(m *testing.M) {
	logging.Disable()
	proctest.AtOnce(4)
	os.Exit(m.Run())
}

// backend is a kind of store server. start starts a new one that runs until tb
// ends, or until it is cut.
type backend struct {
	name  string
	start func(tb testing.TB) place
	user  bool // the store may do no more than docs/redis.md allows it
	// suiteOnly: what is particular to it are the connections, and starting it takes
	// seconds.
	suiteOnly bool
}

// place is where a store is, and how one logs in there.
type place struct {
	url   string
	login session.OpenOptions
	// admin is how other programs log in; zero: as the store does.
	admin *place
	cut   func() // nil: an embedded server is its client's alone
}

var backends = []backend{
	{name: "embedded", start: startEmbedded},
	{name: "redis", start: startRedis},
	{name: "socket", start: startSocket},
	{name: "sentinel", start: startSentinel},
	{name: "cluster", start: startCluster},
}

// guarded are those with TLS, certificates, users, and replicas.
var guarded = []backend{
	{name: "TLS", start: startTLS},
	{name: "client certificate", start: startClientCertificate},
	{name: "ACL user", start: startUser, user: true},
	{name: "sentinel with TLS and users", start: startGuardedSentinels, user: true, suiteOnly: true},
	{name: "cluster with TLS, a user and replicas", start: startGuardedCluster, user: true},
}

// withUsers are those of them that run without the cache, too; for the others the suite
// with it is enough.
var withUsers = guarded[2:4]

// embedded and the real thing are enough where the topology makes no
// difference.
var twoBackends = backends[:2]

func startEmbedded(testing.TB) place { return place{url: "embedded://"} }

func startRedis(tb testing.TB) place {
	tb.Helper()
	r := proctest.StartRedis(tb)
	return place{url: "redis://" + r.Addr, cut: func() { _ = r.Stop() }}
}

func startSocket(tb testing.TB) place {
	tb.Helper()
	// Not tb.TempDir: the path of a socket is 107 bytes at most.
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // as said above
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, os.RemoveAll(dir)) })
	r := proctest.StartRedis(tb, "--unixsocket", filepath.Join(dir, "s"), "--requirepass", "p@ss/word:%")
	return place{url: "unix://:p%40ss%2Fword%3A%25@" + filepath.Join(dir, "s") + "?db=3", cut: func() { _ = r.Stop() }}
}

// One of the three Sentinels that the URL names is not there.
func startSentinel(tb testing.TB) place {
	tb.Helper()
	set := redistest.StartSentinels(tb, redistest.SentinelOptions{Sentinels: 2})
	return place{
		url: strings.Replace(set.URL(), "/"+redistest.MasterName, ",127.0.0.1:1/"+redistest.MasterName+"/2", 1),
		cut: set.Nodes[0].Kill,
	}
}

func startCluster(tb testing.TB) place {
	tb.Helper()
	cluster := redistest.StartCluster(tb, redistest.ClusterOptions{NodeTimeout: calm})
	return place{url: cluster.URL(), cut: func() { killAll(cluster.Nodes) }}
}

func killAll(nodes []*redistest.Node) {
	for _, n := range nodes {
		n.Kill()
	}
}

func startTLS(tb testing.TB) place {
	tb.Helper()
	certificates := redistest.NewTLS(tb)
	n := redistest.StartRedis(tb, redistest.Options{TLS: certificates})
	return place{url: n.URL(), login: session.OpenOptions{TLS: session.TLSOptions{CAFile: certificates.CAFile}}, cut: n.Kill}
}

func startClientCertificate(tb testing.TB) place {
	tb.Helper()
	certificates := redistest.NewTLS(tb)
	n := redistest.StartRedis(tb, redistest.Options{TLS: certificates, ClientCertificates: true})
	return place{url: n.URL(), login: session.OpenOptions{TLS: own(certificates)}, cut: n.Kill}
}

// own shows our certificate, and knows the servers by their name.
func own(t *redistest.TLS) session.TLSOptions {
	return session.TLSOptions{CAFile: t.CAFile, CertFile: t.ClientCertFile, KeyFile: t.ClientKeyFile, ServerName: redistest.ServerName}
}

// calm is how long servers are waited for where no failover is wanted: a busy machine
// must not look like a dead server.
const calm = time.Minute

const userPassword = "the password of the gatehouse"

// grant gives the user of docs/redis.md to servers, and returns the login.
func grant(tb testing.TB, nodes ...*redistest.Node) session.OpenOptions {
	tb.Helper()
	for _, n := range nodes {
		n.Do(documented(tb, "ACL SETUSER gatehouse ", userPassword)...)
		tb.Cleanup(func() {
			refused, err := n.Client().Do(context.Background(), "acl", "log").Slice()
			if err == nil && len(refused) > 0 { // else it was killed
				tb.Errorf("refused by ACL at %s: %v", n.Addr, refused)
			}
		})
	}
	return session.OpenOptions{Username: "gatehouse", Password: userPassword}
}

// documented is the command of docs/redis.md that begins like this, with a
// password for the placeholder.
func documented(tb testing.TB, begin, password string) (command []any) {
	tb.Helper()
	page, err := os.ReadFile("../../docs/redis.md")
	require.NoError(tb, err)
	text := strings.ReplaceAll(string(page), "\\\n", " ")
	i := strings.Index(text, begin)
	require.GreaterOrEqual(tb, i, 0, "docs/redis.md has no %q", begin)
	line, _, _ := strings.Cut(text[i:], "\n")
	require.Contains(tb, line, ">PASSWORD")
	for word := range strings.FieldsSeq(line) {
		command = append(command, strings.Trim(strings.ReplaceAll(word, "PASSWORD", password), "'"))
	}
	return command
}

func startUser(tb testing.TB) place {
	tb.Helper()
	n := redistest.StartRedis(tb, redistest.Options{Password: "admin"})
	return place{url: "redis://" + n.Addr, login: grant(tb, n), admin: &place{url: n.URL()}, cut: n.Kill}
}

// grantAtSentinels gives the other user of docs/redis.md to the Sentinels, and
// completes the login.
func grantAtSentinels(tb testing.TB, o *session.OpenOptions, sentinels ...*redistest.Node) {
	tb.Helper()
	for _, n := range sentinels {
		n.Do(documented(tb, "ACL SETUSER gatehouse-sentinel ", userPassword)...)
	}
	o.SentinelUsername, o.SentinelPassword = "gatehouse-sentinel", userPassword
}

func startGuardedSentinels(tb testing.TB) place {
	tb.Helper()
	certificates := redistest.NewTLS(tb)
	set := redistest.StartSentinels(tb, redistest.SentinelOptions{
		Options:  redistest.Options{TLS: certificates, ClientCertificates: true, Password: "admin"},
		Replicas: 1, SentinelPassword: "sentinels", DownAfter: calm,
	})
	login := grant(tb, set.Nodes...)
	grantAtSentinels(tb, &login, set.Sentinels...)
	login.TLS = own(certificates)
	admin := session.OpenOptions{SentinelPassword: "sentinels", TLS: login.TLS}
	return place{
		url: strings.Replace(set.URL(), ":admin@", "", 1), login: login,
		admin: &place{url: set.URL(), login: admin}, cut: func() { killAll(append(set.Sentinels, set.Nodes...)) },
	}
}

func startGuardedCluster(tb testing.TB) place {
	tb.Helper()
	certificates := redistest.NewTLS(tb)
	cluster := redistest.StartCluster(tb, redistest.ClusterOptions{
		Options:  redistest.Options{TLS: certificates, ClientCertificates: true, Password: "admin"},
		Replicas: 1, NodeTimeout: calm,
	})
	login := grant(tb, cluster.Nodes...)
	login.TLS = own(certificates)
	return place{
		url: strings.Replace(cluster.URL(), ":admin@", "", 1), login: login,
		admin: &place{url: cluster.URL(), login: session.OpenOptions{TLS: login.TLS}},
		cut:   func() { killAll(cluster.Nodes) },
	}
}

// server is a running backend that tests share one after the other: each
// connects anew and finds it empty.
type server struct {
	t    *testing.T // with whose end it ends
	kind backend
	place
}

func newServer(t *testing.T, kind backend) *server {
	t.Helper()
	return &server{t: t, kind: kind}
}

// open returns a client that logs in as the store does.
func (p place) open(tb testing.TB, timeout time.Duration) redis.UniversalClient {
	tb.Helper()
	o := p.login
	o.Timeout, o.Logger = timeout, slog.New(slog.DiscardHandler)
	client, err := session.Open(p.url, o)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// connect returns a client of the server, which is empty, for other programs, and
// what cuts it off: for good, so that the next one to connect starts a new server.
func (s *server) connect(tb testing.TB, timeout time.Duration) (client redis.UniversalClient, cut func()) {
	tb.Helper()
	if s.url == "" {
		s.place = s.kind.start(s.t)
	}
	admin := s.place
	if s.admin != nil {
		admin = *s.admin
	}
	client = admin.open(tb, timeout)
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
		s.place = place{}
	}
}

// login returns a client that logs in as the store does; the client itself, where
// other programs log in the same way.
func (s *server) login(tb testing.TB, client redis.UniversalClient, timeout time.Duration) redis.UniversalClient {
	tb.Helper()
	if s.admin == nil {
		return client
	}
	return s.open(tb, timeout)
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
