package chaos

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// metric sums what Gatehouse says of a metric, over all its labels that hold a text.
func (g *gate) metric(t *testing.T, name, label string) (sum float64) {
	t.Helper()
	for line := range strings.Lines(g.metrics(t)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if bare, _, _ := strings.Cut(series, "{"); bare != name || !strings.Contains(series, label) {
			continue
		}
		var v float64
		_, err := fmt.Sscan(value, &v)
		require.NoError(t, err)
		sum += v
	}
	return sum
}

// weight is what a process holds.
type weight struct{ goroutines, rss float64 }

func (g *gate) weigh(t *testing.T) weight {
	t.Helper()
	return weight{g.metric(t, "go_goroutines", ""), g.metric(t, "process_resident_memory_bytes", "")}
}

func (w weight) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f MB", w.goroutines, w.rss/1e6)
}

// used is the processor time that it has taken so far; where the system doesn't tell,
// all time.
func (g *gate) used(t *testing.T) time.Duration {
	t.Helper()
	used, err := proc.CPUTime(g.PID())
	if errors.Is(err, errors.ErrUnsupported) {
		return now()
	}
	require.NoError(t, err)
	return used
}

// heaviest watches the weight for a time.
func (g *gate) heaviest(t *testing.T, d time.Duration) (most weight) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		w := g.weigh(t)
		most.goroutines, most.rss = max(most.goroutines, w.goroutines), max(most.rss, w.rss)
	}
	return most
}

// Ten times as many checks as one processor can answer, half of them from memory and
// half with a question to Redis: as good as all are answered in time, accepted or shed,
// for each second of the processor half as many are accepted as can be, or more, and
// when it is over, it is over. Whom the machine gives the processor to is another matter.
func TestOverload(t *testing.T) {
	begin(t, "redis-server")
	// What Gatehouse may hold then. Without a bound it was 12,000 goroutines and
	// 700 MB after two seconds, and the cache was lost.
	const mostGoroutines, mostBytes = 3000, 400e6
	const connections, breaker = 8, 1024 // as the shipped Envoy has it
	r := proctest.StartRedis(t)
	t.Setenv("GOMAXPROCS", "1")
	g := startGate(t, newSecrets(t), "redis://"+r.Addr, `server: {check: {max_concurrent: 256}}`)
	all := g.sessions(t, 100)
	for _, c := range all {
		all = append(all, c.strict())
	}
	checks := floodChecks(t, g, all)
	run := func(o floodOptions, d time.Duration) (*flood, span10, weight, time.Duration) {
		o.connections = connections
		used := g.used(t)
		f := startFlood(t, g.check, checks, o)
		most := g.heaviest(t, d)
		f.end(t)
		return f, f.sum(0, time.Hour), most, g.used(t) - used
	}

	length := of(time.Second, 10*time.Second)
	_, closed, _, used := run(floodOptions{most: 64}, length)
	rate := int(float64(closed.accepted) / length.Seconds())
	require.Positive(t, rate)
	possible := float64(closed.accepted) / used.Seconds()
	calm := floodOptions{rate: max(rate/4, 1), most: breaker}
	_, before, idle, _ := run(calm, length)

	shedBefore := g.metric(t, "gatehouse_decisions_total", `reason="overloaded"`)
	over := of(2*time.Second, 20*time.Second)
	broken := time.Now()
	f, during, most, used := run(floodOptions{rate: 10 * rate, most: breaker}, over)
	mended := time.Now()
	answered := during.accepted + during.shed + during.unknown + during.late
	goodput := float64(during.accepted) / used.Seconds()
	require.Positive(t, during.shed, "the overload is not felt")
	require.LessOrEqual(t, during.unknown+during.late, answered/of(10, 100), "of %d", answered) // late by our own clock
	require.GreaterOrEqual(t, g.metric(t, "gatehouse_decisions_total", `reason="overloaded"`)-shedBefore, float64(during.shed))
	require.Less(t, most.goroutines, float64(mostGoroutines))
	require.Less(t, most.rss, float64(mostBytes))

	// It recovers without help: there is a second in which all is well again.
	var after span10
	awaitFor(t, 2*patience, "it doesn't recover", func() bool {
		_, after, _, _ = run(calm, time.Second)
		return after.accepted == after.offered
	})
	recovery := time.Since(mended) - time.Second
	_, closed, _, used = run(floodOptions{most: 64}, length)
	possible = min(possible, float64(closed.accepted)/used.Seconds())
	share := int(100 * goodput / possible)
	require.Greater(t, share, of(20, 35), "percent: refusing keeps it from answering") // a second is little to measure by
	rest := g.weigh(t)
	require.Less(t, rest.goroutines, idle.goroutines+100, "goroutines were left over")
	require.Zero(t, g.metric(t, "gatehouse_checks_in_flight", ""))

	results.add(t, result{
		fault:    "ten times the load that one processor bears",
		requests: during.offered - during.held, refused: during.shed + during.unknown, wrong: during.wrong,
		window: mended.Sub(broken), recovery: recovery,
		note: fmt.Sprintf("sustained %d/s; of %d offered %d were held by their callers, %d accepted (%d %% of what that processor time can do), %d shed, %d unknown, %d late; p99 of the accepted %s before (at a quarter of it), %s during, %s after; %v at most, %v idle",
			rate, during.offered, during.held, during.accepted, share, during.shed, during.unknown, during.late,
			millis(before.percentile(.99)), millis(during.percentile(.99)), millis(after.percentile(.99)), most, idle),
	})
	if t.Failed() || testing.Verbose() {
		f.log(t)
	}
}

// log writes what became of the checks of each second.
func (f *flood) log(t *testing.T) {
	t.Helper()
	for at := time.Duration(0); at < time.Duration(len(f.spans))*100*time.Millisecond; at += time.Second {
		s := f.sum(at, at+time.Second)
		t.Logf("%v: %d offered, %d held, %d accepted, %d shed, %d unknown, %d late, %d wrong; p50 %v, p99 %v",
			at, s.offered, s.held, s.accepted, s.shed, s.unknown, s.late, s.wrong, s.percentile(.5), s.percentile(.99))
	}
}

// Thousands of checks whose message never comes, and thousands of connections that
// say nothing: both are held by others' mistakes or malice, and neither may last, or
// keep anybody from being served.
func TestTenThousandStreams(t *testing.T) {
	begin(t, "redis-server")
	const perConnection = 100
	connections := of(20, 100)
	idle := of(500, 5000)
	r := proctest.StartRedis(t)
	g := startGate(t, newSecrets(t), "redis://"+r.Addr)
	l := startLoad(t, g, loadOptions{rate: 200}, g.sessions(t, 20)...)
	rest := g.weigh(t)

	broken := now()
	for range idle {
		conn, err := net.Dial("tcp", g.check)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		_, err = io.WriteString(conn, http2.ClientPreface)
		require.NoError(t, err)
		require.NoError(t, http2.NewFramer(conn, nil).WriteSettings())
	}
	await(t, "they are not connected", func() bool { return g.weigh(t).goroutines > rest.goroutines+2*float64(idle) })
	l.flows(t, 20)
	withIdle := g.weigh(t)

	// They tell no deadline; in the long form, some tell a day.
	patient := []floodCheck{newFloodCheck(t, "", nil)}
	if *full {
		patient = append(patient, newFloodCheck(t, "86400S", nil))
	}
	f := startFlood(t, g.check, patient, floodOptions{connections: connections, most: math.MaxInt32, mute: true})
	for _, c := range f.callers {
		c.send(nil, time.Now(), perConnection, 0)
	}
	require.Zero(t, f.sum(0, time.Hour).held, "all were sent")
	var most weight
	awaitFor(t, 2*patience, "checks without a message last", func() bool {
		w := g.weigh(t)
		most.goroutines, most.rss = max(most.goroutines, w.goroutines), max(most.rss, w.rss)
		return f.open.Load() == 0
	})
	mended := now()
	f.end(t)
	streams := float64(connections * perConnection)
	require.Greater(t, most.goroutines, withIdle.goroutines+streams/4, "the streams were not felt")
	require.Less(t, most.goroutines, withIdle.goroutines+streams+float64(5*connections)+500)
	require.Less(t, most.rss-withIdle.rss, 100e3*streams+50e6, "more than 100 kB for a stream")
	require.Less(t, withIdle.rss-rest.rss, 150e3*float64(idle)+50e6, "more than 150 kB for a connection")
	await(t, "goroutines were left over", func() bool { return g.weigh(t).goroutines < withIdle.goroutines+100 })

	result := l.finish(t, fmt.Sprintf("%d checks without a message, %d silent connections", connections*perConnection, idle), broken, mended)
	result.note = fmt.Sprintf("%v at rest, %v with the connections, %v with the streams, which all ended; p99 of others' checks %v before, %v meanwhile",
		rest, withIdle, most, l.percentile(.99, 0, broken), l.percentile(.99, broken, mended))
	results.add(t, result)
}
