//go:build unix

package redistest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

const slots = 16384

// ClusterOptions configure [StartCluster].
type ClusterOptions struct {
	Options

	Masters  int // 0 for three
	Replicas int // of each master
	// NodeTimeout is how long a master may be silent; 0 for 1 s. Production has
	// 15 s.
	NodeTimeout time.Duration
}

// Cluster is a Redis Cluster, whose masters have the same number of slots each.
type Cluster struct {
	Nodes []*Node // those that begin as masters first

	tb       testing.TB
	password string
	tls      *TLS
}

// StartCluster starts a Cluster, and returns when all its nodes say that it
// works, and all replicas are in line.
func StartCluster(tb testing.TB, o ClusterOptions) *Cluster {
	tb.Helper()
	masters := o.Masters
	if masters == 0 {
		masters = 3
	}
	timeout := o.NodeTimeout
	if timeout == 0 {
		timeout = time.Second
	}
	c := &Cluster{tb: tb, password: o.Password, tls: o.TLS}
	buses := proctest.FreePorts(tb, masters*(1+o.Replicas))
	for i, bus := range buses {
		lines := []string{
			"cluster-enabled yes", fmt.Sprintf("cluster-port %d", bus), fmt.Sprintf("cluster-node-timeout %d", timeout.Milliseconds()),
			"cluster-replica-validity-factor 0", "cluster-allow-replica-migration no",
		}
		if o.TLS != nil {
			lines = append(lines, "tls-cluster yes")
		}
		n := startNode(tb, o.Options, lines...)
		n.ID, _ = n.Do("cluster", "myid").Text()
		n.Do("cluster", "set-config-epoch", i+1)
		if i < masters {
			n.Do("cluster", "addslotsrange", i*slots/masters, (i+1)*slots/masters-1)
		}
		c.Nodes = append(c.Nodes, n)
	}
	c.meet(buses, 2*timeout)
	for i, replica := range c.Nodes[masters:] {
		await(tb, "a replica knows its master", func() bool {
			return replica.Client().Do(tb.Context(), "cluster", "replicate", c.Nodes[i%masters].ID).Err() == nil
		})
	}
	c.AwaitOK()
	for i, replica := range c.Nodes[masters:] {
		c.awaitReplica(replica, c.Nodes[i%masters])
	}
	for _, n := range c.Nodes[:masters] {
		n.awaitReplicas(o.Replicas)
	}
	return c
}

// meet lets the first node meet the others, who then tell each other. Where a handshake
// takes longer than the node timeout, it can end with one side knowing the other and never
// the reverse (Redis 7.0 takes it for done); asked for once more, it is made good.
func (c *Cluster) meet(buses []int, again time.Duration) {
	c.tb.Helper()
	first := c.Nodes[0]
	var asked time.Time
	await(c.tb, "the first node knows all others, and they know it", func() bool {
		ask, all := time.Since(asked) > again, true
		for i, n := range c.Nodes[1:] {
			if first.knows(n) && n.knows(first) {
				continue
			}
			all = false
			if ask {
				first.Do("cluster", "meet", "127.0.0.1", n.Port, buses[i+1])
				asked = time.Now()
			}
		}
		return all
	})
}

// knows says whether a node has shaken hands with another one: until then it has no
// name for it.
func (n *Node) knows(other *Node) bool {
	nodes, err := n.Client().ClusterNodes(n.tb.Context()).Result()
	return err == nil && strings.Contains(nodes, other.ID)
}

// URL is for session.Open.
func (c *Cluster) URL() string {
	var hosts []string
	for _, n := range c.Nodes {
		hosts = append(hosts, n.Addr)
	}
	return url("redis+cluster", c.tls, c.password, hosts...)
}

// AwaitOK waits until all nodes that answer agree that all slots are served, and
// know all others. The state alone doesn't say so: without full coverage
// (cluster-require-full-coverage no) it is "ok" before a node has heard of the slots.
func (c *Cluster) AwaitOK() {
	c.tb.Helper()
	for _, n := range c.Nodes {
		await(c.tb, "the Cluster is whole in the eyes of "+n.Addr, func() bool {
			select {
			case <-n.Process().Done():
				return true
			default:
			}
			info, err := n.Client().ClusterInfo(c.tb.Context()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") &&
				strings.Contains(info, fmt.Sprintf("cluster_slots_assigned:%d\r", slots)) &&
				strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", len(c.Nodes)))
		})
	}
}

// view is a line of CLUSTER NODES.
type view struct {
	id, flags, master string
	slots             []string
}

// views are who does what, as a node sees it; none when it doesn't answer.
func (n *Node) views() (all []view) {
	text, err := n.Client().ClusterNodes(n.tb.Context()).Result()
	if err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 8 {
			all = append(all, view{id: f[0], flags: f[2], master: f[3], slots: f[8:]})
		}
	}
	return all
}

// views are those of the first node that answers and is not cut off.
func (c *Cluster) views() []view {
	c.tb.Helper()
	for _, n := range c.Nodes {
		if info, err := n.Client().ClusterInfo(c.tb.Context()).Result(); err != nil || !strings.Contains(info, "cluster_state:ok") {
			continue
		}
		if all := n.views(); len(all) > 0 {
			return all
		}
	}
	c.tb.Fatal("no node of the Cluster answers that it works")
	return nil
}

func (c *Cluster) node(id string) *Node {
	c.tb.Helper()
	for _, n := range c.Nodes {
		if n.ID == id {
			return n
		}
	}
	c.tb.Fatalf("the Cluster has a node that is none of ours: %s", id)
	return nil
}

// Masters are those that have slots, in the order of Nodes.
func (c *Cluster) Masters() []*Node {
	c.tb.Helper()
	return c.those(func(v view) bool { return strings.Contains(v.flags, "master") && len(v.slots) > 0 })
}

func (c *Cluster) those(match func(view) bool) (nodes []*Node) {
	c.tb.Helper()
	views := c.views()
	for _, n := range c.Nodes {
		if slices.ContainsFunc(views, func(v view) bool { return v.id == n.ID && match(v) }) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Replicas are those of a master that live.
func (c *Cluster) Replicas(master *Node) []*Node {
	c.tb.Helper()
	return c.those(func(v view) bool { return v.master == master.ID && !strings.Contains(v.flags, "fail") })
}

// Owner is the master that has a key's slot.
func (c *Cluster) Owner(key string) *Node {
	c.tb.Helper()
	slot := c.Slot(key)
	id := ownerOf(slot, c.views())
	if id == "" {
		c.tb.Fatalf("slot %d has no owner", slot)
	}
	return c.node(id)
}

func ownerOf(slot int, views []view) (id string) {
	for _, v := range views {
		for _, s := range v.slots { // "7", "0-5460", or "[7->-…]" for one that moves
			from, to := 0, 0
			n, _ := fmt.Sscanf(s, "%d-%d", &from, &to)
			if n == 1 {
				to = from
			}
			if n > 0 && from <= slot && slot <= to {
				return v.id
			}
		}
	}
	return ""
}

// Slot is that of a key.
func (c *Cluster) Slot(key string) int {
	c.tb.Helper()
	for _, n := range c.Nodes {
		if slot, err := n.Client().ClusterKeySlot(c.tb.Context(), key).Result(); err == nil {
			return int(slot)
		}
	}
	c.tb.Fatal("no node of the Cluster answers")
	return 0
}

// Failover has a replica take the place of the living master that has a key's
// slot, and returns it. All nodes know then.
func (c *Cluster) Failover(key string) *Node {
	c.tb.Helper()
	master := c.Owner(key)
	replicas := c.Replicas(master)
	if len(replicas) == 0 {
		c.tb.Fatalf("%s has no replica", master.Addr)
	}
	replicas[0].Do("cluster", "failover")
	heir := c.AwaitOther(key, master)
	c.awaitReplica(master, heir)
	return heir
}

// awaitReplica waits until a node is a replica in the eyes of all that answer.
func (c *Cluster) awaitReplica(replica, of *Node) {
	c.tb.Helper()
	for _, n := range c.Nodes {
		await(c.tb, fmt.Sprintf("%s sees that %s is a replica of %s", n.Addr, replica.Addr, of.Addr), func() bool {
			views := n.views()
			return views == nil || slices.ContainsFunc(views, func(v view) bool { return v.id == replica.ID && v.master == of.ID })
		})
	}
}

// AwaitOther waits until another node than the old one has a key's slot, in its own
// eyes and in those of all others that answer, and returns it.
func (c *Cluster) AwaitOther(key string, old *Node) *Node {
	c.tb.Helper()
	slot := c.Slot(key)
	var heir *Node
	await(c.tb, fmt.Sprintf("all see that %s has slot %d no more", old.Addr, slot), func() bool {
		owner := ""
		for _, n := range c.Nodes {
			views := n.views()
			if views == nil {
				continue
			}
			id := ownerOf(slot, views)
			if id == "" || id == old.ID || owner != "" && owner != id {
				return false
			}
			owner = id
		}
		if owner == "" {
			return false
		}
		heir = c.node(owner)
		role, err := heir.Client().Do(c.tb.Context(), "role").Slice()
		return err == nil && len(role) > 0 && role[0] == "master"
	})
	return heir
}

// BeginMove opens the move of a slot to another master: the old owner sends those
// who ask for keys that it has no more to the new one.
func (c *Cluster) BeginMove(slot int, from, to *Node) {
	c.tb.Helper()
	to.Do("cluster", "setslot", slot, "importing", from.ID)
	from.Do("cluster", "setslot", slot, "migrating", to.ID)
}

// MoveKeys moves up to n keys of a slot, by MIGRATE, and returns how many there
// were.
func (c *Cluster) MoveKeys(slot, n int, from, to *Node) int {
	c.tb.Helper()
	keys, err := from.Do("cluster", "getkeysinslot", slot, n).StringSlice()
	if err != nil {
		c.tb.Fatal(err)
	}
	if len(keys) == 0 {
		return 0
	}
	args := []any{"migrate", "127.0.0.1", to.Port, "", 0, 5000}
	if c.password != "" {
		args = append(args, "auth", c.password)
	}
	args = append(args, "keys")
	for _, k := range keys {
		args = append(args, k)
	}
	from.Do(args...)
	return len(keys)
}

// EndMove tells all masters who has a slot now: the new owner first, as it must.
func (c *Cluster) EndMove(slot int, from, to *Node) {
	c.tb.Helper()
	to.Do("cluster", "setslot", slot, "node", to.ID)
	from.Do("cluster", "setslot", slot, "node", to.ID)
	for _, n := range c.Masters() {
		if n != from && n != to {
			n.Do("cluster", "setslot", slot, "node", to.ID)
		}
	}
}
