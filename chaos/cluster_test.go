package chaos

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// clusterNetwork is a Cluster, and a line from Gatehouse to each of its nodes.
type clusterNetwork struct {
	*redistest.Cluster
	lines map[*redistest.Node]*line
}

func startClusterNetwork(t *testing.T) *clusterNetwork {
	t.Helper()
	n := &clusterNetwork{lines: map[*redistest.Node]*line{}}
	n.Cluster = redistest.StartCluster(t, redistest.ClusterOptions{
		Masters: 3, Replicas: 1, NodeTimeout: 1500 * time.Millisecond,
		// Else all masters refuse while one is missing.
		Options: redistest.Options{Config: []string{"cluster-require-full-coverage no"}},
	})
	for _, node := range n.Nodes {
		n.lines[node] = newLine(t, node.Addr)
	}
	for _, l := range n.lines {
		for node, other := range n.lines {
			l.rename(other, node.Port)
		}
	}
	return n
}

func (n *clusterNetwork) throughLines() string {
	var hosts []string
	for _, node := range n.Nodes {
		hosts = append(hosts, n.lines[node].addr)
	}
	return "redis+cluster://" + strings.Join(hosts, ",")
}

// touches reports whether a node has a key that a check of a session asks for.
func (n *clusterNetwork) touches(t *testing.T, node *redistest.Node, c *credential) bool {
	t.Helper()
	return n.Owner("sess:"+c.id(t)) == node || n.Owner("user:"+c.user) == node
}

// clusterFaults are what happens to one of three masters, in the order of a run.
var clusterFaults = []struct {
	name     string
	breaks   func(n *clusterNetwork, master *redistest.Node)
	fails    bool // its replica takes over
	mends    func(n *clusterNetwork, master *redistest.Node)
	restores func(n *clusterNetwork, master *redistest.Node)
}{
	{
		name: "master killed", fails: true,
		breaks:   func(_ *clusterNetwork, m *redistest.Node) { m.Kill() },
		restores: func(_ *clusterNetwork, m *redistest.Node) { m.Restart() },
	},
	{
		name: "master frozen, and thawed after the failover", fails: true,
		breaks:   func(_ *clusterNetwork, m *redistest.Node) { m.Freeze() },
		restores: func(_ *clusterNetwork, m *redistest.Node) { m.Thaw() },
	},
	{
		name:   "only Gatehouse cut off from a master (black hole)",
		breaks: func(n *clusterNetwork, m *redistest.Node) { n.lines[m].swallow() },
		mends:  func(n *clusterNetwork, m *redistest.Node) { n.lines[m].mend() },
	},
	{
		name:   "only Gatehouse cut off from a master (reset)",
		breaks: func(n *clusterNetwork, m *redistest.Node) { n.lines[m].sever() },
		mends:  func(n *clusterNetwork, m *redistest.Node) { n.lines[m].mend() },
	},
}

// One of three masters of a Cluster fails: what lies on the others goes on being
// answered.
func TestClusterFailover(t *testing.T) {
	beginLong(t, "each case takes a failover", "redis-server")
	const victims = 24
	n := startClusterNetwork(t)
	s := newSecrets(t)
	g := startGate(t, s, n.throughLines(), s.passwords(t, victims*len(clusterFaults)), graceConfig, "redis: {confirm_replicas: 1}")
	for i, fault := range clusterFaults {
		t.Run(fault.name, func(t *testing.T) {
			sessions := g.sessions(t, 30)
			master := n.Owner("user:user-0")
			var there, elsewhere []*credential
			for _, c := range sessions {
				if n.touches(t, master, c) {
					there = append(there, c, c.strict())
				} else {
					elsewhere = append(elsewhere, c, c.strict())
				}
			}
			ch := prepareChanges(t, g, i*victims, victims)
			l := startLoad(t, g, loadOptions{rate: 300, stale: cacheLease}, append(ch.shown(), there...)...)
			others := startLoad(t, g, loadOptions{rate: 200, clients: 16, stale: cacheLease}, elsewhere...)
			l.warm(t)
			others.warm(t)
			ch.start(t, l, 150*time.Millisecond)
			time.Sleep(300 * time.Millisecond)
			broken := now()
			fault.breaks(n, master)
			l.fails(t)
			others.flows(t, 20) // where nothing takes over, that is before it is mended
			var mended time.Duration
			if fault.mends != nil {
				time.Sleep(3 * time.Second)
				fault.mends(n, master)
				mended = now()
			}
			note := ""
			if fault.fails {
				n.AwaitOther("user:user-0", master)
				note = fmt.Sprintf("another master within %v; ", span(now()-broken))
			}
			l.flows(t, 50)
			if fault.restores != nil {
				fault.restores(n, master)
				n.AwaitOK()
			}
			note += ch.finish(t)
			r := l.finish(t, "Cluster: "+fault.name, broken, mended)
			r.note = note
			results.add(t, r)
			results.add(t, others.finish(t, "Cluster: "+fault.name+": what lies on the other masters", broken, mended))
		})
	}
}

// A Gatehouse without a cache learns who leads a Cluster by itself, too: it has no
// connections of the cache's whose end would tell it. The client's own habit is to
// look once a minute, so patience ends well before that.
func TestClusterFailoverWithoutACache(t *testing.T) {
	beginLong(t, "each case takes a failover", "redis-server")
	const soon = 20 * time.Second
	n := startClusterNetwork(t)
	g := startGate(t, newSecrets(t), n.throughLines(), "redis: {cache: {enabled: false}}")
	for _, fault := range clusterFaults {
		if !fault.fails {
			continue
		}
		t.Run(fault.name, func(t *testing.T) {
			all := g.sessions(t, 30)
			master := n.Owner("user:user-0")
			l := startLoad(t, g, loadOptions{rate: 300}, all...)
			broken := now()
			fault.breaks(n, master)
			l.fails(t)
			n.AwaitOther("user:user-0", master)
			promoted := now()
			l.flowsWithin(t, soon, 100)
			fault.restores(n, master)
			n.AwaitOK()
			r := l.finish(t, "Cluster without a cache: "+fault.name, broken, 0)
			r.note = fmt.Sprintf("another master within %s", span(promoted-broken))
			results.add(t, r)
		})
	}
}
