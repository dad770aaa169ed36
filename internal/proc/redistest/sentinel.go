//go:build unix

package redistest

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// MasterName is how the Sentinels call the set that they watch.
const MasterName = "the-master"

// SentinelOptions configure [StartSentinels].
type SentinelOptions struct {
	Options

	Replicas  int // 0 for none
	Sentinels int // 0 for one; more than half of them must agree
	// SentinelPassword is what the Sentinels ask for; "" for nothing. "default"
	// is the user.
	SentinelPassword string
	// SentinelConfig are further lines of sentinel.conf.
	SentinelConfig []string
	// DownAfter is how long a master may be silent; 0 for 500 ms. Production has
	// 5 to 30 s.
	DownAfter time.Duration
}

// Sentinels are a master with replicas, and Sentinels that watch it.
type Sentinels struct {
	Nodes     []*Node // the first one begins as master
	Sentinels []*Node

	tb       testing.TB
	password string
	tls      *TLS
}

// StartSentinels starts a set, and returns when all replicas are in line and all
// Sentinels know all of it: from then on a failover can succeed.
func StartSentinels(tb testing.TB, o SentinelOptions) *Sentinels {
	tb.Helper()
	s := &Sentinels{tb: tb, password: o.Password, tls: o.TLS}
	s.Nodes = append(s.Nodes, startNode(tb, o.Options))
	for range o.Replicas {
		s.Nodes = append(s.Nodes, startNode(tb, o.Options, fmt.Sprintf("replicaof 127.0.0.1 %d", s.Nodes[0].Port)))
	}
	s.Nodes[0].awaitReplicas(o.Replicas)
	number := max(o.Sentinels, 1)
	for range number {
		s.Sentinels = append(s.Sentinels, startSentinel(tb, o, s.Nodes[0], number/2+1))
	}
	for _, n := range s.Sentinels {
		s.awaitKnowledge(n, number-1)
	}
	return s
}

func startSentinel(tb testing.TB, o SentinelOptions, master *Node, quorum int) *Node {
	tb.Helper()
	downAfter := o.DownAfter
	if downAfter == 0 {
		downAfter = 500 * time.Millisecond
	}
	lines := []string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d %d", MasterName, master.Port, quorum),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", MasterName, downAfter.Milliseconds()),
		fmt.Sprintf("sentinel failover-timeout %s 5000", MasterName),
	}
	if o.Password != "" {
		lines = append(lines, fmt.Sprintf("sentinel auth-pass %s %s", MasterName, o.Password))
	}
	if o.SentinelPassword != "" {
		lines = append(lines, "requirepass "+o.SentinelPassword, "sentinel sentinel-pass "+o.SentinelPassword)
	}
	if o.TLS != nil {
		lines = append(lines, "tls-replication yes") // how a Sentinel connects
	}
	own := o.Options
	own.Password = o.SentinelPassword
	// redis-sentinel is the same program by another name, which may not be there.
	return start(tb, own, proctest.Need(tb, "redis-server"), "sentinel.conf", append(lines, o.SentinelConfig...), "--sentinel")
}

// awaitKnowledge has a Sentinel look around faster than it does by itself, until
// it knows the others and the replicas.
func (s *Sentinels) awaitKnowledge(n *Node, others int) {
	s.tb.Helper()
	n.Do("sentinel", "debug", "publish-period", 100, "info-period", 100)
	await(s.tb, "the Sentinel at "+n.Addr+" knows the others and the replicas", func() bool {
		reply, err := n.Client().Do(s.tb.Context(), "sentinel", "master", MasterName).Slice()
		if err != nil {
			return false
		}
		facts := map[string]string{}
		for i := 0; i+1 < len(reply); i += 2 {
			facts[fmt.Sprint(reply[i])] = fmt.Sprint(reply[i+1])
		}
		return facts["flags"] == "master" && facts["num-other-sentinels"] == fmt.Sprint(others) && facts["num-slaves"] == fmt.Sprint(len(s.Nodes)-1)
	})
	n.Do("sentinel", "debug", "publish-period", 2000, "info-period", 10000)
}

// URL is for session.Open. The password of the Sentinels is no part of it.
func (s *Sentinels) URL() string {
	var hosts []string
	for _, n := range s.Sentinels {
		hosts = append(hosts, n.Addr)
	}
	return url("redis+sentinel", s.tls, s.password, hosts...) + "/" + MasterName
}

// Master is who the Sentinels say it is: the first one that answers.
func (s *Sentinels) Master() *Node {
	s.tb.Helper()
	for _, sentinel := range s.Sentinels {
		host, err := sentinel.Client().Do(s.tb.Context(), "sentinel", "get-master-addr-by-name", MasterName).StringSlice()
		if err != nil || len(host) != 2 {
			continue
		}
		for _, n := range s.Nodes {
			if n.Addr == net.JoinHostPort(host[0], host[1]) {
				return n
			}
		}
	}
	s.tb.Fatal("no Sentinel knows the master")
	return nil
}

// Replicas are all nodes but the master, those that are down included.
func (s *Sentinels) Replicas() []*Node {
	s.tb.Helper()
	master := s.Master()
	var replicas []*Node
	for _, n := range s.Nodes {
		if n != master {
			replicas = append(replicas, n)
		}
	}
	return replicas
}

// AwaitOther waits until every Sentinel that answers names another master, and
// that one takes itself for it. It returns it.
func (s *Sentinels) AwaitOther(old *Node) *Node {
	s.tb.Helper()
	var master *Node
	await(s.tb, "there is another master than "+old.Addr, func() bool {
		for _, sentinel := range s.Sentinels {
			host, err := sentinel.Client().Do(s.tb.Context(), "sentinel", "get-master-addr-by-name", MasterName).StringSlice()
			if err == nil && strings.Join(host, ":") == old.Addr {
				return false
			}
		}
		master = s.Master()
		role, err := master.Client().Do(s.tb.Context(), "role").Slice()
		return master != old && err == nil && len(role) > 0 && role[0] == "master"
	})
	return master
}

// Failover has the Sentinels make a replica the master while the old one lives,
// and returns the new one.
func (s *Sentinels) Failover() *Node {
	s.tb.Helper()
	old := s.Master()
	await(s.tb, "the Sentinels begin a failover", func() bool {
		// NOGOODSLAVE, INPROG: not yet, or not any more
		return s.Sentinels[0].Client().Do(s.tb.Context(), "sentinel", "failover", MasterName).Err() == nil
	})
	return s.AwaitOther(old)
}
