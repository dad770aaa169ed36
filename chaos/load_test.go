package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long the tests wait for what must come, and how long a check
// may take until there is no answer: longer than Gatehouse's own deadlines.
const (
	patience      = 30 * time.Second
	checkPatience = 10 * time.Second
)

// await waits until something is so, as long as the tests' patience lasts.
func await(t *testing.T, otherwise string, so func() bool) {
	t.Helper()
	awaitFor(t, patience, otherwise, so)
}

// awaitFor waits until something is so, for a time at the most.
func awaitFor(t *testing.T, most time.Duration, otherwise string, so func() bool) {
	t.Helper()
	end := time.Now().Add(most)
	for pause := 50 * time.Microsecond; !so(); pause = min(2*pause, 10*time.Millisecond) {
		require.True(t, time.Now().Before(end), otherwise)
		time.Sleep(pause)
	}
}

// loadOptions configure a load. Rate is required.
type loadOptions struct {
	rate    int           // checks per second
	clients int           // that share the rate, each with one check at a time; 0 for 32
	stale   time.Duration // see judge

	strictStale time.Duration // the same under the policy that asks Redis each time
}

// load is a steady stream of checks of credentials, chosen at random.
type load struct {
	door  door
	o     loadOptions
	stop  context.CancelFunc
	group sync.WaitGroup
	known atomic.Pointer[[]*credential]

	mu      sync.Mutex
	records []record
	samples []string // of wrong answers
}

// record is one check.
type record struct {
	sent, took time.Duration
	verdict    verdict
}

// startLoad starts a load, which ends with the test at the latest, and waits
// until it flows.
func startLoad(t *testing.T, d door, o loadOptions, credentials ...*credential) *load {
	t.Helper()
	require.NotEmpty(t, credentials)
	if o.clients == 0 {
		o.clients = 32
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{door: d, o: o, stop: cancel}
	l.known.Store(&credentials)
	t.Cleanup(l.end)
	results.judges(t, l.judged)
	pause := time.Duration(o.clients) * time.Second / time.Duration(o.rate)
	for i := range o.clients {
		l.group.Go(func() { l.client(ctx, time.Duration(i)*pause/time.Duration(o.clients), pause) })
	}
	l.flows(t, 20)
	return l
}

// add adds credentials to a load that runs.
func (l *load) add(more ...*credential) {
	all := append(slices.Clone(*l.known.Load()), more...)
	l.known.Store(&all)
}

// replace has a load that runs check other credentials.
func (l *load) replace(credentials ...*credential) { l.known.Store(&credentials) }

// client makes a check per pause. What a slow answer made it miss is left out.
func (l *load) client(ctx context.Context, delay, pause time.Duration) {
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		all := *l.known.Load()
		l.check(ctx, all[rand.IntN(len(all))])
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// check makes one check.
func (l *load) check(ctx context.Context, c *credential) {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkPatience)
	defer cancel()
	over, sent := c.over(), now()
	a := l.door.ask(call, c)
	got := now()
	stale := l.o.stale
	if c.policy == "strict" {
		stale = l.o.strictStale
	}
	v, why := judge(c, a, over, sent, got, stale)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, record{sent, got - sent, v})
	if v == wrong && len(l.samples) < 10 {
		l.samples = append(l.samples, fmt.Sprintf("%v: %s: %s", sent, c.name, why))
	}
}

// since returns the records of checks that were sent at that time or later.
func (l *load) since(from time.Duration) (records []record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if r.sent >= from {
			records = append(records, r)
		}
	}
	return records
}

// flows waits until the last n checks, sent from now on, were all right.
func (l *load) flows(t *testing.T, n int) {
	t.Helper()
	l.flowsWithin(t, patience, n)
}

// flowsWithin is flows with less patience.
func (l *load) flowsWithin(t *testing.T, most time.Duration, n int) {
	t.Helper()
	from := now()
	awaitFor(t, most, "the load doesn't flow, or not again", func() bool {
		records := l.since(from)
		if len(records) < n {
			return false
		}
		last := records[len(records)-n:]
		return !slices.ContainsFunc(last, func(r record) bool { return r.verdict != right })
	})
}

// warm has each credential checked once, so that the cache knows it.
func (l *load) warm(t *testing.T) {
	t.Helper()
	for _, c := range *l.known.Load() {
		l.check(t.Context(), c)
	}
}

// fails waits until a check was refused with 503: the fault is felt.
func (l *load) fails(t *testing.T) {
	t.Helper()
	from := now()
	await(t, "the fault is not felt", func() bool {
		return slices.ContainsFunc(l.since(from), func(r record) bool { return r.verdict == unknown })
	})
}

// judged counts the checks so far, and the wrong answers among them.
func (l *load) judged() (requests, wrong int) {
	r := l.result("", 0, 0)
	return r.requests, r.wrong
}

// end ends the load. It can be called twice.
func (l *load) end() {
	l.stop()
	l.group.Wait()
}

// finish ends the load, demands that no answer was wrong, and returns what the
// fault did that began and ended at those times. Where nobody ended it, mended is 0.
func (l *load) finish(t *testing.T, fault string, broken, mended time.Duration) result {
	t.Helper()
	l.flows(t, 50)
	l.end()
	require.Empty(t, l.samples, "wrong answers (the first ones)")
	return l.result(fault, broken, mended)
}

// result sums up. The window is from the sending of the first check that was
// refused with 503, after it broke, until the answer to the last one; the recovery
// is what of it came after the end of the fault, or, where nobody ended it, after
// its beginning.
func (l *load) result(fault string, broken, mended time.Duration) result {
	all := l.since(0)
	r := result{fault: fault, requests: len(all)}
	var first, last time.Duration
	for _, one := range all {
		switch one.verdict {
		case wrong:
			r.wrong++
		case unknown:
			r.refused++
			if one.sent < broken {
				continue
			}
			if first == 0 || one.sent < first {
				first = one.sent
			}
			last = max(last, one.sent+one.took)
		case right:
		}
	}
	r.window = last - first
	if mended == 0 {
		mended = broken
	}
	r.recovery = max(last-mended, 0)
	return r
}

// percentile returns how long the right answers to the checks took that were sent
// in a time: the p-th part of them at most so long. 0 where there were none.
func (l *load) percentile(p float64, from, to time.Duration) time.Duration {
	var times []time.Duration
	for _, r := range l.since(from) {
		if r.verdict == right && r.sent < to {
			times = append(times, r.took)
		}
	}
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(int(p*float64(len(times))), len(times)-1)]
}

// The judge must be able to say all that it can say.
func TestJudge(t *testing.T) {
	const ending, over, stale = 10 * time.Second, 11 * time.Second, time.Second
	alive := &credential{user: "alice"}
	dead := &credential{user: "alice"}
	dead.begins.Store(int64(ending))
	dead.done.Store(int64(over))
	for _, tc := range []struct {
		what      string
		c         *credential
		a         answer
		sent, got time.Duration
		want      verdict
	}{
		{"good, and let in", alive, answer{status: 200, user: "alice"}, 1, 2, right},
		{"good, and let in as another", alive, answer{status: 200, user: "bob"}, 1, 2, wrong},
		{"good, and let in as nobody", alive, answer{status: 200}, 1, 2, wrong},
		{"good, and called bad", alive, answer{status: 401}, 1, 2, wrong},
		{"not known", alive, answer{status: 503}, 1, 2, unknown},
		{"forbidden", alive, answer{status: 403}, 1, 2, wrong},
		{"no answer", alive, answer{err: http.ErrServerClosed}, 1, 2, wrong},
		{"called bad before its end began", dead, answer{status: 401}, ending - 2, ending - 1, wrong},
		{"called bad while its end began", dead, answer{status: 401}, ending - 2, ending + 1, right},
		{"called bad after its end", dead, answer{status: 401}, over + 1, over + 2, right},
		{"let in while it ended", dead, answer{status: 200, user: "alice"}, ending + 1, over + 1, right},
		{"let in within the bound", dead, answer{status: 200, user: "alice"}, over + stale, over + stale + 1, right},
		{"let in after the bound", dead, answer{status: 200, user: "alice"}, over + stale + 1, over + stale + 2, wrong},
	} {
		got, why := judge(tc.c, tc.a, tc.c.over(), tc.sent, tc.got, stale)
		require.Equal(t, tc.want, got, "%s: %s", tc.what, why)
	}
}

func TestWindow(t *testing.T) {
	l := &load{records: []record{
		{1, 1, right},
		{5, 1, unknown}, // before the fault: counted, not part of it
		{20, 5, unknown},
		{30, 12, unknown},
		{31, 2, right},
		{60, 1, right},
	}}
	r := l.result("it breaks", 10, 35)
	require.Equal(t, result{fault: "it breaks", requests: 6, refused: 3, window: 22, recovery: 7}, r)
	require.Equal(t, time.Duration(32), l.result("for good", 10, 0).recovery)
	require.Equal(t, time.Duration(2), l.percentile(0.99, 0, 40))
}
