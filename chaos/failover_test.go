package chaos

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// Documented in docs/cache.md: two and a half heartbeats.
const cacheLease = 1250 * time.Millisecond

// failoverConfig is that of the Gatehouse in a failover. The last two policies
// have a grace.
const failoverConfig = `
redis: {confirm_replicas: 2}
policies:
  tolerant: {credentials: [session, bearer], on_store_outage: serve_stale, stale_for: 30s}
  accepting: {credentials: [bearer], on_store_outage: accept_bearer}
`

// changes are revocations and logins that go on while something is broken.
type changes struct {
	gate    *gate
	victims []*victim
	stop    context.CancelFunc
	group   sync.WaitGroup

	mu       sync.Mutex
	outcomes map[callOutcome]int
	logins   map[int]int // by status
	wrong    []string
}

// prepareChanges makes the victims, and shows all of them to the load.
func prepareChanges(t *testing.T, g *gate, first, n int) *changes {
	t.Helper()
	c := &changes{gate: g, outcomes: map[callOutcome]int{}, logins: map[int]int{}}
	for i := range n {
		c.victims = append(c.victims, ways[i%len(ways)](t, g, first+i))
	}
	return c
}

// prepareChanges does so, and sees to it that the replicas have them. On a machine that is
// busy enough the Sentinels choose another master in the middle of that, and logins are
// lost with the old one: then it is done again.
func (n *network) prepareChanges(t *testing.T, g *gate, first, count int) *changes {
	t.Helper()
	for range 5 {
		master := n.Master()
		c := prepareChanges(t, g, first, count)
		n.replicated(t)
		if n.Master() == master {
			return c
		}
		t.Log("the Sentinels have chosen another master, though nothing was wrong")
	}
	t.Skip("no verdict: this machine is so busy that the Sentinels change the master again and again")
	return nil
}

func (c *changes) shown() (all []*credential) {
	for _, v := range c.victims {
		for _, one := range v.shown {
			all = append(all, one, one.strict())
		}
	}
	return all
}

// start makes a change after each pause, until all are made.
func (c *changes) start(t *testing.T, l *load, pause time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c.stop = cancel
	t.Cleanup(c.end)
	for i, v := range c.victims {
		c.group.Go(func() {
			select {
			case <-time.After(time.Duration(i) * pause):
			case <-ctx.Done():
				return
			}
			o, why := v.end(context.WithoutCancel(ctx))
			fresh, status, err := c.gate.login(context.WithoutCancel(ctx), fmt.Sprintf("late-%d", now()))
			c.mu.Lock()
			defer c.mu.Unlock()
			c.outcomes[o]++
			c.logins[status]++
			if o == failed && why[:3] != "503" && why[:3] != "500" {
				c.wrong = append(c.wrong, v.way+": "+why)
			}
			if err == nil && status == http.StatusCreated {
				fresh.ends() // it may be lost: nobody waits for the replicas with a login
				l.add(fresh)
			}
		})
	}
}

// end waits for the changes that are being made.
func (c *changes) end() {
	c.stop()
	c.group.Wait()
}

// finish demands that none got an answer that it must not get.
func (c *changes) finish(t *testing.T) string {
	t.Helper()
	c.group.Wait()
	require.Empty(t, c.wrong)
	for status := range c.logins {
		require.Contains(t, []int{http.StatusCreated, http.StatusServiceUnavailable}, status, "a login")
	}
	return fmt.Sprintf("%d revocations acknowledged, %d not confirmed, %d refused; %d logins made, %d refused",
		c.outcomes[acknowledged], c.outcomes[unconfirmed], c.outcomes[failed], c.logins[http.StatusCreated], c.logins[http.StatusServiceUnavailable])
}

// replicated waits until the replicas have all that was written so far.
func (n *network) replicated(t *testing.T) {
	t.Helper()
	await(t, "the replicas are behind", func() bool {
		c := n.Master().Client().Conn()
		defer func() { _ = c.Close() }()
		if c.Set(t.Context(), "chaos:replicated", 1, time.Minute).Err() != nil {
			return false
		}
		replicas, err := c.Do(t.Context(), "wait", len(n.Nodes)-1, 1000).Int()
		return err == nil && replicas == len(n.Nodes)-1
	})
}

// masterFault is something that happens to a master.
type masterFault struct {
	name     string
	breaks   func(t *testing.T, n *network, master *redistest.Node)
	fails    bool                                                   // the Sentinels make another one the master
	mends    func(t *testing.T, n *network, master *redistest.Node) // nil: nothing to mend before all is well
	restores func(t *testing.T, n *network, old *redistest.Node)    // makes the set whole, under load
}

var masterFaults = []masterFault{
	{
		name: "master killed", fails: true,
		breaks:   func(_ *testing.T, _ *network, m *redistest.Node) { m.Kill() },
		restores: func(t *testing.T, n *network, old *redistest.Node) { n.restart(t, old) },
	},
	{
		name: "master frozen, and thawed after the failover", fails: true,
		breaks:   func(_ *testing.T, _ *network, m *redistest.Node) { m.Freeze() },
		restores: func(_ *testing.T, _ *network, old *redistest.Node) { old.Thaw() },
	},
	{
		name: "master cut off from everybody", fails: true,
		breaks: func(t *testing.T, n *network, m *redistest.Node) {
			n.redis[m].swallow()
			isolate(t, m)
		},
		restores: func(t *testing.T, n *network, old *redistest.Node) {
			n.redis[old].mend()
			rejoin(t, old)
		},
	},
	{
		name:   "only Gatehouse cut off from the master (black hole)",
		breaks: func(_ *testing.T, n *network, m *redistest.Node) { n.redis[m].swallow() },
		mends:  func(_ *testing.T, n *network, m *redistest.Node) { n.redis[m].mend() },
	},
	{
		name:   "only Gatehouse cut off from the master (reset)",
		breaks: func(_ *testing.T, n *network, m *redistest.Node) { n.redis[m].sever() },
		mends:  func(_ *testing.T, n *network, m *redistest.Node) { n.redis[m].mend() },
	},
	{
		name: "master killed, and Gatehouse cut off from its heirs", fails: true,
		breaks: func(_ *testing.T, n *network, m *redistest.Node) {
			for node, l := range n.redis {
				if node != m {
					l.swallow()
				}
			}
			m.Kill()
		},
		mends: func(_ *testing.T, n *network, m *redistest.Node) {
			n.AwaitOther(m)
			for _, l := range n.redis {
				l.mend()
			}
		},
		restores: func(t *testing.T, n *network, old *redistest.Node) { n.restart(t, old) },
	},
	{
		name: "master killed, and a Sentinel with it", fails: true,
		breaks: func(_ *testing.T, n *network, m *redistest.Node) {
			n.sentinels[0].swallow()
			m.Kill()
		},
		restores: func(t *testing.T, n *network, old *redistest.Node) {
			n.sentinels[0].mend()
			n.restart(t, old)
		},
	},
}

func TestFailover(t *testing.T) {
	begin(t, "redis-server")
	const victims = 24
	n := startNetwork(t)
	s := newSecrets(t)
	g := startGate(t, s, n.throughLines(), s.passwords(t, victims*len(masterFaults)), graceConfig, failoverConfig)
	all := g.sessions(t, 10)
	for _, c := range all {
		all = append(all, c.strict(), s.token(t, c.user))
	}
	graced := []*credential{all[0].under("tolerant"), all[1].under("tolerant")}
	for _, c := range all {
		if c.headers["authorization"] != "" {
			graced = append(graced, c.under("tolerant"), c.under("accepting"))
		}
	}
	for i, fault := range masterFaults[:of(2, len(masterFaults))] { // killed and frozen at least
		t.Run(fault.name, func(t *testing.T) {
			ch := n.prepareChanges(t, g, i*victims, victims)
			l := startLoad(t, g, loadOptions{rate: 500, stale: cacheLease}, append(ch.shown(), all...)...)
			l.warm(t)
			gracedLoad := startLoad(t, g, loadOptions{rate: 100, clients: 16, stale: cacheLease}, graced...)
			n.replicated(t)
			master := n.Master()
			ch.start(t, l, 150*time.Millisecond)
			time.Sleep(300 * time.Millisecond)
			broken := now()
			fault.breaks(t, n, master)
			l.fails(t)
			var mended time.Duration
			if fault.mends != nil {
				time.Sleep(3 * time.Second)
				fault.mends(t, n, master)
				mended = now()
			}
			var promoted time.Duration
			if fault.fails {
				n.AwaitOther(master)
				promoted = now() - broken
			}
			l.flows(t, 50)
			if fault.restores != nil {
				fault.restores(t, n, master)
				n.whole(t)
			}
			note := ch.finish(t)
			r := l.finish(t, "Sentinel: "+fault.name, broken, mended)
			withGrace := gracedLoad.finish(t, "", broken, mended)
			// Tokens are let in, and sessions that the policy remembers.
			require.Less(t, withGrace.refused, withGrace.requests/10, "of %d with grace", withGrace.requests)
			r.requests += withGrace.requests
			if fault.fails {
				note = fmt.Sprintf("the Sentinels took %v; %s", span(promoted), note)
			}
			r.note = fmt.Sprintf("%s; of %d checks with grace %d were refused", note, withGrace.requests, withGrace.refused)
			results.add(t, r)
		})
	}
}

// splitBound is how long after its acknowledgement on the other side of a split
// network a revocation can be missed (docs/high-availability.md): what the Sentinels
// said counts for 2 s, and an answer may take the timeout. What the cache has counts
// for its lease beside that.
const splitBound = 2*time.Second + 400*time.Millisecond

// A Gatehouse and the old master are on one side of a split network, the Sentinels
// and the replicas on the other one, where another Gatehouse revokes: the first
// must not go on believing the old master.
func TestSplitNetwork(t *testing.T) {
	beginLong(t, "authz/session has a short test of it", "redis-server")
	n := startNetwork(t)
	s := newSecrets(t)
	config := s.passwords(t, 2*len(ways))
	const one = "redis: {confirm_replicas: 1}" // there is no more of them on the other side
	here := startGate(t, s, n.throughLines(), config, graceConfig, one)
	there := startGate(t, s, n.url(), config, graceConfig, one)
	ch := prepareChanges(t, there, 0, 2*len(ways))
	all := here.sessions(t, 10)
	for _, c := range all {
		all = append(all, c.strict())
	}
	l := startLoad(t, here, loadOptions{rate: 500, stale: splitBound + cacheLease, strictStale: splitBound}, append(ch.shown(), all...)...)
	elsewhere := startLoad(t, there, loadOptions{rate: 100, stale: cacheLease}, append(ch.shown(), all...)...)
	l.warm(t)
	n.replicated(t)
	master := n.Master()
	broken := now()
	for _, line := range n.sentinels {
		line.swallow()
	}
	for node, line := range n.redis {
		if node != master {
			line.swallow()
		}
	}
	isolate(t, master)
	n.AwaitOther(master)
	elsewhere.flows(t, 20)
	ch.start(t, elsewhere, 50*time.Millisecond)
	ch.group.Wait()
	time.Sleep(10 * time.Second)
	for _, line := range n.sentinels {
		line.mend()
	}
	for _, line := range n.redis {
		line.mend()
	}
	rejoin(t, master)
	mended := now()
	note := ch.finish(t)
	require.Positive(t, ch.outcomes[acknowledged])
	results.add(t, elsewhere.finish(t, "Sentinel: split network, the side of the Sentinels", broken, 0))
	r := l.finish(t, "Sentinel: split network, the side of the old master", broken, mended)
	require.Positive(t, r.refused, "the split is not felt")
	r.note = note
	results.add(t, r)
}
