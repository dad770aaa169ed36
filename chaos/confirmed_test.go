package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// killRound is what came of one revocation whose master was killed.
type killRound struct {
	way     string
	moment  string // of the kill
	outcome callOutcome
	why     string
	lost    bool // not acknowledged, and after the failover the credential is good
}

// moments are when the master is killed, counted from the sending of a revocation:
// well before, while it is under way, and after its acknowledgement.
var moments = []struct {
	name          string
	least, spread time.Duration
	acknowledged  bool // counted from the acknowledgement
}{
	{"before", -40 * time.Millisecond, 38 * time.Millisecond, false},
	{"while", 0, 3 * time.Millisecond, false},
	{"right after", 0, 0, true},
	{"soon after", 0, 30 * time.Millisecond, true},
}

// A revocation that was acknowledged with redis.confirm_replicas is never lost,
// though the master is killed at that very moment. Two Gatehouses, from the cache
// and strictly, are asked about it all the time. Most of a round is waiting for the
// Sentinels, so several sets of servers take their turns at the same time.
func TestAcknowledgedMeansRevoked(t *testing.T) {
	begin(t, "redis-server")
	rounds := of(2, 200)
	turns := make(chan int, rounds)
	for i := range rounds {
		turns <- i
	}
	close(turns)
	var sets []*killSet
	var group sync.WaitGroup
	for i := range of(1, 3) {
		k := &killSet{}
		sets = append(sets, k)
		group.Go(func() {
			t.Run(fmt.Sprintf("set %d", i), func(t *testing.T) {
				k.start(t, rounds)
				for turn := range turns {
					k.play(t, turn)
				}
				k.finish(t)
			})
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	var all []killRound
	var windows []time.Duration
	sum := result{fault: fmt.Sprintf("master killed at the moment of a revocation, %d times", rounds)}
	for _, k := range sets {
		all, windows = append(all, k.rounds...), append(windows, k.windows...)
		sum.requests, sum.refused = sum.requests+k.sum.requests, sum.refused+k.sum.refused
	}
	require.Len(t, all, rounds)
	require.True(t, slices.ContainsFunc(all, func(r killRound) bool { return r.outcome == acknowledged }), "no revocation was acknowledged: nothing is proven")
	report(t, all)
	slices.Sort(windows)
	sum.window = windows[len(windows)-1]
	sum.note = fmt.Sprintf("%s; half of the windows at most %v", summary(all), span(windows[len(windows)/2]))
	results.add(t, sum)
}

// killSet is a Redis behind Sentinels whose masters are killed, and two Gatehouses.
type killSet struct {
	network *network
	gates   []*gate
	loads   []*load
	control *credential // which nobody revokes

	victims []*victim // whose revocation was acknowledged
	rounds  []killRound
	windows []time.Duration
	sum     result
}

func (k *killSet) start(t *testing.T, victims int) {
	t.Helper()
	k.network = startNetwork(t)
	s := newSecrets(t)
	config := s.passwords(t, victims)
	for range 2 {
		k.gates = append(k.gates, startGate(t, s, k.network.url(), config, graceConfig, fmt.Sprintf("redis: {confirm_replicas: %d}", len(k.network.Nodes)-1)))
	}
	k.control = k.gates[0].session(t, "nobody-revokes-me")
	for _, g := range k.gates {
		k.loads = append(k.loads, startLoad(t, g, loadOptions{rate: 200, clients: 16, stale: cacheLease}, k.control, k.control.strict()))
	}
}

// play plays the round of a number.
func (k *killSet) play(t *testing.T, i int) {
	t.Helper()
	// The short form begins with the kill right after the acknowledgement.
	prepare, moment := ways[of(3*i, i)%len(ways)], moments[of(2-i, i+i/len(ways))%len(moments)]
	v := prepare(t, k.gates[i%len(k.gates)], i)
	shown := []*credential{k.control, k.control.strict()}
	for _, c := range v.shown {
		shown = append(shown, c, c.strict())
	}
	for _, l := range k.loads {
		l.replace(shown...)
		l.warm(t)
	}
	k.network.replicated(t)
	broken := now()
	r := revokeAndKill(t, k.network, v, moment.least+rand.N(moment.spread+1), moment.acknowledged)
	r.way, r.moment = v.way, moment.name
	for _, l := range k.loads {
		l.flows(t, 10)
		k.windows = append(k.windows, l.result("", broken, 0).window)
	}
	if r.outcome == acknowledged {
		k.victims = append(k.victims, v)
	} else {
		r.lost = slices.ContainsFunc(v.shown, func(c *credential) bool { return strictly(t, k.gates[0], c) == http.StatusOK })
	}
	if v.refresh != "" {
		requireNoRefresh(t, k.gates, v, r.outcome)
	}
	k.network.whole(t)
	k.rounds = append(k.rounds, r)
}

// finish demands that nothing has come back, at the end of all.
func (k *killSet) finish(t *testing.T) {
	t.Helper()
	for _, v := range k.victims {
		for _, c := range v.shown {
			for _, g := range k.gates {
				require.Equal(t, http.StatusUnauthorized, strictly(t, g, c), c.name)
				require.NotEqual(t, http.StatusOK, g.ask(t.Context(), c).status, c.name)
			}
		}
		if v.refresh != "" {
			requireNoRefresh(t, k.gates, v, acknowledged)
		}
	}
	for _, l := range k.loads {
		r := l.finish(t, "", 0, 0)
		k.sum.requests, k.sum.refused = k.sum.requests+r.requests, k.sum.refused+r.refused
	}
}

// revokeAndKill revokes, kills the master some time before or after that, and waits
// for the next one; what was killed becomes its replica.
func revokeAndKill(t *testing.T, n *network, v *victim, delay time.Duration, afterAcknowledgement bool) (r killRound) {
	t.Helper()
	master := n.Master()
	switch {
	case afterAcknowledgement:
		r.outcome, r.why = v.end(t.Context())
		time.Sleep(delay)
		master.Kill()
	default:
		done := make(chan struct{})
		go func() {
			defer close(done)
			time.Sleep(-delay)
			r.outcome, r.why = v.end(context.WithoutCancel(t.Context()))
		}()
		time.Sleep(delay)
		master.Kill()
		<-done
	}
	n.AwaitOther(master)
	n.restart(t, master)
	return r
}

// requireNoRefresh demands that no Gatehouse accepts the refresh token, where its
// revocation was acknowledged.
func requireNoRefresh(t *testing.T, gates []*gate, v *victim, o callOutcome) {
	t.Helper()
	if o != acknowledged {
		return
	}
	for _, g := range gates {
		await(t, v.way, func() bool {
			accepted, known := v.refreshes(t.Context(), g)
			require.False(t, accepted, v.way)
			return known
		})
	}
}

// summary counts.
func summary(all []killRound) string {
	count := func(match func(killRound) bool) (n int) {
		for _, r := range all {
			if match(r) {
				n++
			}
		}
		return n
	}
	return fmt.Sprintf("%d acknowledged, none lost; %d not confirmed, %d of them lost; %d refused, %d of them not made",
		count(func(r killRound) bool { return r.outcome == acknowledged }),
		count(func(r killRound) bool { return r.outcome == unconfirmed }),
		count(func(r killRound) bool { return r.outcome == unconfirmed && r.lost }),
		count(func(r killRound) bool { return r.outcome == failed }),
		count(func(r killRound) bool { return r.outcome == failed && r.lost }))
}

// report prints the rounds by way and by moment.
func report(t *testing.T, all []killRound) {
	t.Helper()
	for _, by := range []func(killRound) string{func(r killRound) string { return r.way }, func(r killRound) string { return r.moment }} {
		groups := map[string][]killRound{}
		for _, r := range all {
			groups[by(r)] = append(groups[by(r)], r)
		}
		for name, group := range groups {
			t.Logf("%s: %s", name, summary(group))
		}
	}
}
