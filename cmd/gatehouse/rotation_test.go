//go:build unix

package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// stream checks a session again and again, from the cache and under a policy that
// asks Redis each time, until stop is called: that returns how many checks there
// were. All must have been allowed.
func stream(t *testing.T, conn *grpc.ClientConn) (stop func() int64) {
	t.Helper()
	var workers sync.WaitGroup
	var sent atomic.Int64
	var wrong sync.Map // status, reason and error to number
	done := make(chan struct{})
	for i := range 4 {
		workers.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
				request := checkRequest(cookie(t, "id-a"))
				request.Attributes.Request.Http.Path = []string{"/orders", "/strict"}[i%2]
				sent.Add(1)
				response, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), request)
				if response.GetOkResponse() == nil {
					reason := response.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
					n, _ := wrong.LoadOrStore(fmt.Sprint(response.GetDeniedResponse().GetStatus().GetCode(), reason, err), &atomic.Int64{})
					n.(*atomic.Int64).Add(1)
				}
			}
		})
	}
	return func() int64 {
		close(done)
		workers.Wait()
		wrong.Range(func(status, n any) bool {
			t.Errorf("%d of %d checks: %v", n.(*atomic.Int64).Load(), sent.Load(), status)
			return true
		})
		return sent.Load()
	}
}

func (r *running) coherent(t *testing.T) {
	t.Helper()
	until(t, "the cache is coherent", func() bool { return r.metric(t, "gatehouse_cache_coherent") == "1" })
}

// rotating is the configuration of a store with a user of its own.
func rotating(redis string) string {
	return anywhere(`redis: {` + redis + `, timeout: 5s, cache: {heartbeat: 400ms}}
sessions: {secrets: ["` + testSecret + `"]}
policies: {user: {credentials: [session]}, strict: {credentials: [session], freshness: strict}}
routes: [{path: /strict, policy: strict}]
default_policy: user`)
}

const aliceRecord = `{"cookie":{"originalMaxAge":3600000},"userId":"alice","roles":["a"]}`

// The password of the store's user and our certificate are replaced under a steady
// stream of checks, as docs/redis.md says: none is refused for it.
func TestPasswordAndCertificateRotate(t *testing.T) {
	certificates, next := redistest.NewTLS(t), redistest.NewTLS(t)
	server := redistest.StartRedis(t, redistest.Options{TLS: certificates, ClientCertificates: true, Password: "admin"})
	server.Do("acl", "setuser", "app", "on", ">password-one", "~*", "&*", "+@all")
	server.Do("set", "sess:id-a", aliceRecord, "EX", "3600")
	dir := t.TempDir()
	save(t, dir+"/password", "password-one\n")
	copyFile(t, certificates.ClientCertFile, dir+"/client.pem")
	copyFile(t, certificates.ClientKeyFile, dir+"/client.key")
	save(t, dir+"/gatehouse.yaml", rotating(`url: "rediss://`+server.Addr+`", username: app, password_file: password,
  tls: {ca_file: "`+certificates.CAFile+`", cert_file: client.pem, key_file: client.key, server_name: `+redistest.ServerName+`}`))
	g := startAt(t, dir+"/gatehouse.yaml")
	g.coherent(t)
	conn := g.dial(t)
	until(t, "it is let in", func() bool { return as(t, conn, "id-a") == 0 })
	stop := stream(t, conn)
	killed := func() {
		t.Helper()
		server.Do("client", "kill", "user", "app")
		g.coherent(t)
		for range 20 { // all connections of the pool and those of the cache
			require.Zero(t, as(t, conn, "id-a"))
		}
	}
	// broken is how often the cache has lost its connections. That heartbeats came late, as
	// at a busy machine, isn't counted.
	broken := func() int {
		log := g.log.String()
		return strings.Count(log, `"msg":"cache dropped`) - strings.Count(log, "no beat has come back for too long")
	}
	// Some heartbeats, each of which logs in anew, come back in time.
	steady := func() {
		t.Helper()
		until(t, "heartbeats come back", func() bool {
			drops := g.metric(t, "gatehouse_cache_drops_total")
			time.Sleep(time.Second)
			return g.metric(t, "gatehouse_cache_coherent") == "1" && g.metric(t, "gatehouse_cache_drops_total") == drops
		})
	}

	// Both passwords are valid: nothing that was cached is lost.
	server.Do("acl", "setuser", "app", ">password-two")
	g.applies(t, func() { saveOver(t, dir+"/password", "password-two\n") })
	steady()
	require.Zero(t, broken())

	// The old one is gone, and so are all connections.
	server.Do("acl", "setuser", "app", "<password-one")
	killed()
	until(t, "it is noticed", func() bool { return broken() > 0 })

	// A password that Redis doesn't know changes nothing.
	steady()
	before := broken()
	g.rejects(t, func() { save(t, dir+"/password", "password-wrong\n") })
	until(t, "it is said why", func() bool { // at a busy machine the first try may be late
		return strings.Contains(g.config(t).Error, "with the new password the store can't be reached: WRONGPASS")
	})
	steady()
	require.Equal(t, before, broken())
	killed()
	save(t, dir+"/password", "password-two\n")
	until(t, "the old password is no change", func() bool { return g.config(t).State == "current" })

	// Another authority issues our certificate. While the files don't fit each other the
	// last ones that did are used.
	both := dir + "/both.pem"
	save(t, both, read(t, certificates.CAFile)+read(t, next.CAFile))
	server.Do("config", "set", "tls-ca-cert-file", both)
	copyFile(t, next.ClientCertFile, dir+"/client.pem")
	killed()
	copyFile(t, next.ClientKeyFile, dir+"/client.key")
	server.Do("config", "set", "tls-ca-cert-file", next.CAFile)
	killed()

	checks := stop()
	require.Greater(t, checks, int64(100))
	t.Attr("requests", strconv.FormatInt(checks, 10))
	t.Logf("%d checks, none refused", checks)

	// Announcements come by the new connections.
	server.Do("del", "sess:id-a")
	until(t, "the change is seen", func() bool { return as(t, conn, "id-a") == 401 })
	for _, secret := range []string{"password-one", "password-two", "password-wrong"} {
		require.NotContains(t, g.log.String(), secret)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	save(t, to, read(t, from))
}

// The Sentinels have a password of their own, which rotates, too: it is seen when
// they are needed.
func TestPasswordOfTheSentinelsRotates(t *testing.T) {
	set := redistest.StartSentinels(t, redistest.SentinelOptions{Replicas: 1, SentinelPassword: "admin"})
	watch := func(rule ...any) { set.Sentinels[0].Do(append([]any{"acl", "setuser", "watcher"}, rule...)...) }
	watch("on", ">password-one", "&*", "+@all")
	set.Master().Do("set", "sess:id-a", aliceRecord, "EX", "3600")
	dir := t.TempDir()
	save(t, dir+"/password", "password-one\n")
	save(t, dir+"/gatehouse.yaml", rotating(`url: "`+set.URL()+`", sentinel: {username: watcher, password_file: password}`))
	g := startAt(t, dir+"/gatehouse.yaml")
	g.coherent(t)
	conn := g.dial(t)
	until(t, "it is let in", func() bool { return as(t, conn, "id-a") == 0 })
	stop := stream(t, conn)
	watch(">password-two")
	g.applies(t, func() { saveOver(t, dir+"/password", "password-two\n") })
	watch("<password-one")
	set.Sentinels[0].Do("client", "kill", "user", "watcher")
	set.Master().Do("client", "kill", "type", "normal", "skipme", "yes")
	g.coherent(t)
	require.Zero(t, as(t, conn, "id-a"))
	require.Greater(t, stop(), int64(20))

	master := set.Failover()
	require.NotSame(t, set.Nodes[0], master)
	until(t, "the new master is followed", func() bool {
		clients, err := master.Client().ClientList(t.Context()).Result()
		return err == nil && strings.Contains(clients, "name=gatehouse") && as(t, conn, "id-a") == 0
	})
	g.coherent(t)
	master.Do("del", "sess:id-a")
	until(t, "a change at the new master is seen", func() bool { return as(t, conn, "id-a") == 401 })
}

// A master of a Cluster that is dead or hangs keeps no new password out, as long as the
// others accept it; one that doesn't know it does.
func TestPasswordRotatesThoughAMasterIsDead(t *testing.T) {
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Options: redistest.Options{Config: []string{"cluster-require-full-coverage no"}}})
	user := func(nodes []*redistest.Node, rule ...any) {
		for _, n := range nodes {
			n.Do(append([]any{"acl", "setuser", "app", "on", "~*", "&*", "+@all"}, rule...)...)
		}
	}
	dead := cluster.Owner("sess:id-a")
	others := slices.DeleteFunc(cluster.Masters(), func(n *redistest.Node) bool { return n == dead })
	user(cluster.Nodes, ">password-one")
	dir := t.TempDir()
	save(t, dir+"/password", "password-one\n")
	save(t, dir+"/gatehouse.yaml", rotating(`url: "redis+cluster://`+others[0].Addr+","+others[1].Addr+`", username: app, password_file: password`))
	g := startAt(t, dir+"/gatehouse.yaml")
	g.coherent(t)

	dead.Freeze()
	user(others, ">password-two")
	g.applies(t, func() { saveOver(t, dir+"/password", "password-two\n") })
	dead.Kill()
	user(others, ">password-three")
	g.applies(t, func() { saveOver(t, dir+"/password", "password-three\n") })
	user(others[:1], ">password-four")
	rejected := g.rejects(t, func() { saveOver(t, dir+"/password", "password-four\n") })
	require.Contains(t, rejected.Error, "with the new password the store can't be reached: WRONGPASS")
	require.NotContains(t, g.log.String(), "password-")
}

// An embedded store has its password for good, and a port that is taken while it runs:
// the new one isn't tried, and that is said.
func TestPasswordOfAnEmbeddedStoreWaits(t *testing.T) {
	dir := t.TempDir()
	save(t, dir+"/password", "password-one\n")
	save(t, dir+"/gatehouse.yaml", rotating(fmt.Sprintf(`url: "embedded://127.0.0.1:%d", password_file: password`, proctest.FreePort(t))))
	g := startAt(t, dir+"/gatehouse.yaml")
	conn := g.dial(t)
	require.Equal(t, 401, as(t, conn, "id-a"))
	g.applies(t, func() { saveOver(t, dir+"/password", "password-two\n") })
	until(t, "it is said", func() bool {
		return strings.Contains(g.log.String(), "the embedded store keeps the password that it has until the next start")
	})
	require.Equal(t, 401, as(t, conn, "id-a"))
	require.NotContains(t, g.log.String(), "password-")
}
