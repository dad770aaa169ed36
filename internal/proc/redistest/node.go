//go:build unix

package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// patience bounds what is waited for: far more than it takes on a busy machine.
const patience = 60 * time.Second

// Options are what all servers of a topology have in common. The zero value is
// a server without TLS that lets everybody in.
type Options struct {
	// Password of the user "default", for replication, too; "" for none.
	Password string
	// TLS is spoken, and nothing else, by everybody with everybody.
	TLS *TLS
	// ClientCertificates asks every client for a certificate of TLS's authority.
	ClientCertificates bool
	// Config are further lines of redis.conf.
	Config []string
}

// Node is a server: a redis-server or a Sentinel.
type Node struct {
	Port int
	Addr string // host:port
	ID   string // of a Cluster's node; "" for others

	tb       testing.TB
	program  string
	args     []string
	password string
	tls      *TLS

	mu      sync.Mutex
	process *proc.Process
	client  *redis.Client
}

// StartRedis starts one server.
func StartRedis(tb testing.TB, o Options) *Node {
	tb.Helper()
	return startNode(tb, o)
}

// URL is for session.Open.
func (n *Node) URL() string { return url("redis", n.tls, n.password, n.Addr) }

func url(scheme string, tls *TLS, password string, hosts ...string) string {
	if tls != nil {
		scheme = strings.Replace(scheme, "redis", "rediss", 1)
	}
	if password != "" {
		password = ":" + password + "@"
	}
	return scheme + "://" + password + strings.Join(hosts, ",")
}

// startNode starts a redis-server with further lines of configuration.
func startNode(tb testing.TB, o Options, lines ...string) *Node {
	tb.Helper()
	all := []string{`save ""`, "appendonly no", "repl-diskless-sync-delay 0", "repl-timeout 5"}
	if o.Password != "" {
		all = append(all, "requirepass "+o.Password, "masterauth "+o.Password)
	}
	if o.TLS != nil {
		all = append(all, "tls-replication yes")
	}
	all = append(append(all, lines...), o.Config...)
	return start(tb, o, proctest.Need(tb, "redis-server"), "redis.conf", all)
}

// start starts a server with a file of configuration, which it may rewrite, and
// returns when it answers.
func start(tb testing.TB, o Options, program, name string, lines []string, args ...string) *Node {
	tb.Helper()
	port := proctest.FreePort(tb)
	dir := tb.TempDir()
	listen := fmt.Sprintf("port %d", port)
	if o.TLS != nil {
		listen = o.TLS.server(port, o.ClientCertificates)
	}
	lines = append([]string{"bind 127.0.0.1", "dir " + dir, listen}, lines...)
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	n := &Node{
		Port: port, Addr: proc.Local(port), tb: tb, program: program,
		args: append([]string{file}, args...), password: o.Password, tls: o.TLS,
	}
	n.run()
	return n
}

// run starts the process, anew where there was one.
func (n *Node) run() {
	n.tb.Helper()
	p := proctest.Start(n.tb, n.program, n.args, proc.Options{})
	n.tb.Cleanup(func() { _ = p.Signal(syscall.SIGCONT) }) // or it can't end
	client := redis.NewClient(n.options())
	n.tb.Cleanup(func() { _ = client.Close() })
	n.mu.Lock()
	n.process, n.client = p, client
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.tb.Context()), patience)
	defer cancel()
	err := p.Ready(ctx, func(ctx context.Context) error {
		err := client.Ping(ctx).Err()
		if answered(err, "MASTERDOWN", "NOPERM") {
			return nil
		}
		return err
	})
	if err != nil {
		n.tb.Fatal(err)
	}
}

func answered(err error, prefixes ...string) bool {
	answer, ok := errors.AsType[redis.Error](err)
	for _, p := range prefixes {
		if ok && strings.HasPrefix(answer.Error(), p) {
			return true
		}
	}
	return false
}

// options are those of a client of a test's own, for this server and no other.
func (n *Node) options() *redis.Options {
	o := &redis.Options{
		Addr: n.Addr, Password: n.password, Protocol: 2, DisableIdentity: true,
		DialTimeout: time.Second, ReadTimeout: 5 * time.Second, ContextTimeoutEnabled: true, MaxRetries: -1, PoolSize: 4,
	}
	if n.tls != nil {
		o.TLSConfig = n.tls.Config()
	}
	return o
}

// Client is connected to this server, whatever its part, as the user "default".
func (n *Node) Client() *redis.Client {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.client
}

// Process is the running program, or the last one that ran.
func (n *Node) Process() *proc.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// Do runs a command that must succeed.
func (n *Node) Do(args ...any) *redis.Cmd {
	n.tb.Helper()
	cmd := n.Client().Do(n.tb.Context(), args...)
	if cmd.Err() != nil && !errors.Is(cmd.Err(), redis.Nil) {
		n.tb.Fatalf("%v at %s: %v", args, n.Addr, cmd.Err())
	}
	return cmd
}

// Kill ends the server by SIGKILL, and returns when it has ended.
func (n *Node) Kill() { n.Process().Kill() }

// Freeze stops the server by SIGSTOP: it keeps its connections, accepts new ones
// (the kernel does), and answers nothing until [Node.Thaw].
func (n *Node) Freeze() {
	n.tb.Helper()
	proctest.Freeze(n.tb, n.Process())
}

// Thaw lets a frozen server go on.
func (n *Node) Thaw() {
	n.tb.Helper()
	if err := n.Process().Signal(syscall.SIGCONT); err != nil {
		n.tb.Fatal(err)
	}
}

// Restart ends the server, if it still runs, and starts it at the same address,
// empty, with the same configuration: that which it wrote itself included.
func (n *Node) Restart() {
	n.tb.Helper()
	n.Kill()
	n.run()
}

// await returns when a condition holds.
func await(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	const interval = 10 * time.Millisecond
	for end := time.Now().Add(patience); !holds(); time.Sleep(interval) {
		if time.Now().After(end) {
			tb.Fatalf("waited in vain: %s", what)
		}
	}
}

// awaitReplicas returns when a master, which has no keys yet, has that many replicas
// that follow it. ("online" they are before: a master sends nothing to one that it
// synchronized without a disk until that one has acknowledged, which takes a second.)
func (n *Node) awaitReplicas(replicas int) {
	n.tb.Helper()
	if replicas == 0 {
		return
	}
	await(n.tb, fmt.Sprintf("%d replicas of %s follow it", replicas, n.Addr), func() bool {
		pipe := n.Client().Pipeline()
		pipe.FlushAll(n.tb.Context()) // a write to no slot
		follow := pipe.Do(n.tb.Context(), "wait", replicas, time.Second.Milliseconds())
		_, err := pipe.Exec(n.tb.Context())
		following, _ := follow.Int()
		return err == nil && following >= replicas
	})
}
