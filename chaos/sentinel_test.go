package chaos

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// The user as whom Gatehouse speaks to Redis, so that the others can be locked out.
const gateUser = "gatehouse"

// network is a Redis behind Sentinels, and lines from one Gatehouse to each part.
type network struct {
	*redistest.Sentinels
	redis     map[*redistest.Node]*line
	sentinels []*line
}

// startNetwork starts a master, two replicas, three Sentinels that notice soon that
// the master is down, and the lines.
func startNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{redis: map[*redistest.Node]*line{}}
	users := []string{"user " + gateUser + " on >pw ~* &* +@all", "user replica0 on >pw +@all", "user replica1 on >pw +@all", "user replica2 on >pw +@all"}
	n.Sentinels = redistest.StartSentinels(t, redistest.SentinelOptions{
		Replicas: 2, Sentinels: 3, DownAfter: 600 * time.Millisecond,
		Options:        redistest.Options{Config: users},
		SentinelConfig: []string{fmt.Sprintf("sentinel failover-timeout %s 2000", redistest.MasterName)},
	})
	for _, s := range n.Sentinels.Sentinels {
		// Who comes back must not take itself for the master for long: four such
		// periods, 8 s in production.
		s.Do("sentinel", "debug", "publish-period", 200)
		n.sentinels = append(n.sentinels, newLine(t, s.Addr))
	}
	for _, node := range n.Nodes {
		n.redis[node] = newLine(t, node.Addr)
	}
	for _, l := range n.sentinels {
		for i, s := range n.Sentinels.Sentinels {
			l.rename(n.sentinels[i], s.Port)
		}
		for node, other := range n.redis {
			l.rename(other, node.Port)
		}
	}
	return n
}

// url is for a Gatehouse beside the servers, throughLines for the one that reaches
// all of them through the lines.
func (n *network) url() string { return n.urlOf(n.addresses()) }

func (n *network) throughLines() string {
	var hosts []string
	for _, l := range n.sentinels {
		hosts = append(hosts, l.addr)
	}
	return n.urlOf(hosts)
}

func (n *network) addresses() (hosts []string) {
	for _, s := range n.Sentinels.Sentinels {
		hosts = append(hosts, s.Addr)
	}
	return hosts
}

func (n *network) urlOf(hosts []string) string {
	return "redis+sentinel://" + gateUser + ":pw@" + strings.Join(hosts, ",") + "/" + redistest.MasterName
}

// ownUsers has each replica speak to its master as a user of its own.
func (n *network) ownUsers(t *testing.T) {
	t.Helper()
	for i, node := range n.Nodes {
		node.Do("config", "set", "masteruser", fmt.Sprint("replica", i), "masterauth", "pw")
	}
	n.Master().Do("client", "kill", "type", "replica") // they come again
	n.whole(t)
}

// detach has a replica not hear its master any more, while both live and the
// Sentinels see both. ownUsers must have been called.
func (n *network) detach(t *testing.T, replica *redistest.Node) {
	t.Helper()
	user := fmt.Sprint("replica", slices.Index(n.Nodes, replica))
	master := n.Master()
	master.Do("acl", "setuser", user, "off")
	master.Do("client", "kill", "user", user)
}

// admin is connected to a server as the user who is never locked out.
func admin(t *testing.T, node *redistest.Node) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: node.Addr, Username: gateUser, Password: "pw", Protocol: 2, DisableIdentity: true, MaxRetries: -1, ReadTimeout: patience})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// isolate cuts a server off from the other servers and from the Sentinels: it
// speaks with nobody any more but with Gatehouse.
func isolate(t *testing.T, node *redistest.Node) {
	t.Helper()
	isolateFromSentinels(t, node)
	require.NoError(t, admin(t, node).Do(t.Context(), "client", "kill", "type", "replica").Err())
}

// isolateFromSentinels has it answer the Sentinels no more, and the replicas only
// where they have users of their own.
func isolateFromSentinels(t *testing.T, node *redistest.Node) {
	t.Helper()
	c := admin(t, node)
	for _, command := range [][]any{{"acl", "setuser", "default", "off"}, {"client", "kill", "user", "default"}} {
		require.NoError(t, c.Do(t.Context(), command...).Err())
	}
}

// rejoin ends what isolate did.
func rejoin(t *testing.T, node *redistest.Node) {
	t.Helper()
	require.NoError(t, admin(t, node).Do(t.Context(), "acl", "setuser", "default", "on").Err())
}

// restart starts a server that was killed again, as a replica of the master, as it
// would where it keeps its configuration on disk.
func (n *network) restart(t *testing.T, node *redistest.Node) {
	t.Helper()
	node.Restart()
	await(t, "it becomes no replica", func() bool { // the Sentinels may end the connection
		return node.Client().Do(t.Context(), "replicaof", "127.0.0.1", n.Master().Port).Err() == nil
	})
}

// whole waits until the master has two replicas in line, and the Sentinels see
// nothing wrong with any of them, which they look after more often meanwhile.
func (n *network) whole(t *testing.T) {
	t.Helper()
	look := func(every int) {
		for _, s := range n.Sentinels.Sentinels {
			s.Do("sentinel", "debug", "info-period", every)
		}
	}
	look(50)
	defer look(10000)
	await(t, "the set is not whole again", func() bool {
		master := n.Master()
		info, err := master.Client().Info(t.Context(), "replication").Result()
		if err != nil || strings.Count(info, "state=online") != len(n.Nodes)-1 {
			return false
		}
		for _, s := range n.Sentinels.Sentinels {
			replicas := redis.NewMapStringStringSliceCmd(t.Context(), "sentinel", "replicas", redistest.MasterName)
			if s.Client().Process(t.Context(), replicas) != nil || len(replicas.Val()) != len(n.Nodes)-1 {
				return false
			}
			for _, r := range replicas.Val() {
				if r["flags"] != "slave" || r["master-link-status"] != "ok" || r["master-port"] != strconv.Itoa(master.Port) {
					return false
				}
			}
		}
		return true
	})
}
