package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
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
// and strictly, are asked about it all the time.
func TestAcknowledgedMeansRevoked(t *testing.T) {
	begin(t, "redis-server")
	rounds := of(2, 200)
	n := startNetwork(t)
	s := newSecrets(t)
	config := s.passwords(t, rounds)
	var gates []*gate
	for range 2 {
		gates = append(gates, startGate(t, s, n.url(), config, graceConfig, fmt.Sprintf("redis: {confirm_replicas: %d}", len(n.Nodes)-1)))
	}
	control := gates[0].session(t, "nobody-revokes-me")
	var loads []*load
	for _, g := range gates {
		loads = append(loads, startLoad(t, g, loadOptions{rate: 250, clients: 16, stale: cacheLease}, control, control.strict()))
	}
	var victims []*victim // whose revocation was acknowledged
	var all []killRound
	var windows []time.Duration
	started := now()
	for i := range rounds {
		// The short form begins with the kill right after the acknowledgement.
		prepare, moment := ways[of(3*i, i)%len(ways)], moments[of(2-i, i+i/len(ways))%len(moments)]
		v := prepare(t, gates[i%len(gates)], i)
		shown := []*credential{control, control.strict()}
		for _, c := range v.shown {
			shown = append(shown, c, c.strict())
		}
		for _, l := range loads {
			l.replace(shown...)
			l.warm(t)
		}
		n.replicated(t)
		broken := now()
		r := revokeAndKill(t, n, v, moment.least+rand.N(moment.spread+1), moment.acknowledged)
		r.way, r.moment = v.way, moment.name
		for _, l := range loads {
			l.flows(t, 10)
			windows = append(windows, l.result("", broken, 0).window)
		}
		if r.outcome == acknowledged {
			victims = append(victims, v)
		} else {
			r.lost = slices.ContainsFunc(v.shown, func(c *credential) bool { return strictly(t, gates[0], c) == http.StatusOK })
		}
		if v.refresh != "" {
			requireNoRefresh(t, gates, v, r.outcome)
		}
		n.whole(t)
		all = append(all, r)
		if i%20 == 19 {
			t.Logf("%d rounds, %v each", i+1, span((now()-started)/time.Duration(i+1)))
		}
	}
	// None has come back, at the end of all.
	for _, v := range victims {
		for _, c := range v.shown {
			for _, g := range gates {
				require.Equal(t, http.StatusUnauthorized, strictly(t, g, c), c.name)
				require.NotEqual(t, http.StatusOK, g.ask(t.Context(), c).status, c.name)
			}
		}
		if v.refresh != "" {
			requireNoRefresh(t, gates, v, acknowledged)
		}
	}
	report(t, all)
	slices.Sort(windows)
	r := loads[0].finish(t, fmt.Sprintf("master killed at the moment of a revocation, %d times", rounds), started, 0)
	other := loads[1].finish(t, "", started, 0)
	r.requests, r.refused = r.requests+other.requests, r.refused+other.refused
	r.window, r.recovery = windows[len(windows)-1], 0
	r.note = fmt.Sprintf("%s; half of the windows at most %v", summary(all), span(windows[len(windows)/2]))
	results.add(t, r)
	require.NotEmpty(t, victims, "no revocation was acknowledged: nothing is proven")
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
