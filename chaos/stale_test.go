package chaos

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// What docs/cache.md promises of the coherent cache: whatever happens to the
// connections between Gatehouse and Redis, what was revoked is refused two and a
// half heartbeats after the revocation was acknowledged, at the latest. It is
// counted from the acknowledgement to the sending of the check: how long the check
// itself takes is another matter, and a Gatehouse that is stopped in the middle of
// one still answers it with what was right when it came.

// harm is what is done to a connection.
type harm struct {
	name   string
	toxic  string // toxiproxy's; "" for a proxy that is closed
	how    func(s *staleness) map[string]int64
	resets bool // the connection ends by a reset
}

func with(name string, value int64) func(*staleness) map[string]int64 {
	return func(*staleness) map[string]int64 { return map[string]int64{name: value} }
}

var harms = []harm{
	{name: "reset", toxic: "reset_peer", how: with("timeout", 0), resets: true},
	{name: "black hole, closed at last", toxic: "timeout", how: with("timeout", 0)},
	{name: "black hole, all comes late", toxic: "latency", how: with("latency", time.Hour.Milliseconds())},
	{name: "nothing comes, then it closes", toxic: "timeout", how: func(s *staleness) map[string]int64 {
		return map[string]int64{"timeout": s.upTo(s.bound).Milliseconds() + 1}
	}},
	{name: "slow, with jitter", toxic: "latency", how: func(s *staleness) map[string]int64 {
		ms := s.bound.Milliseconds()
		return map[string]int64{"latency": ms * 6 / 10, "jitter": ms * 4 / 10}
	}},
	{name: "narrow (1 KB/s)", toxic: "bandwidth", how: with("rate", 1)},
	{name: "in crumbs", toxic: "slicer", how: func(s *staleness) map[string]int64 {
		return map[string]int64{"average_size": 8, "size_variation": 4, "delay": s.bound.Microseconds() / 20}
	}},
	{name: "cut in the middle of a message", toxic: "limit_data", how: func(s *staleness) map[string]int64 {
		return map[string]int64{"bytes": 1 + s.random.Int64N(150)}
	}, resets: true},
	{name: "closed, and nobody listens"},
}

// directions are those of the data that a harm is done to. A closed proxy has none.
var directions = [][]string{{downstream}, {upstream}, {downstream, upstream}}

// phase says when the harm is done, and when the revocation is.
type phase struct {
	name string
	do   func(*round)
}

var phases = []phase{
	{"all was well", func(r *round) {
		r.strike()
		time.Sleep(r.upTo(r.bound))
		r.revoke()
	}},
	{"the announcement is on its way", func(r *round) {
		r.poison(subscriber, toxic{Type: "latency", Stream: downstream, Attributes: map[string]int64{"latency": r.bound.Milliseconds() / 2}})
		r.revoke()
		r.strike()
	}},
	{"half of the announcement is there", func(r *round) {
		r.poison(subscriber, toxic{Type: "slicer", Stream: downstream, Attributes: map[string]int64{
			"average_size": 10, "size_variation": 2, "delay": r.bound.Microseconds() / 20,
		}})
		r.revoke()
		time.Sleep(r.upTo(r.bound / 4))
		r.strike()
	}},
	{"it connects", func(r *round) {
		a := r.relay.hold([]string{subscriber, tracker}[r.random.IntN(2)])
		defer r.relay.release(a)
		r.relay.kill(subscriber)
		r.arrives(a)
		r.strike()
		r.relay.release(a)
		r.revoke()
	}},
	{"before the first beat", func(r *round) {
		connecting := r.relay.hold(tracker)
		defer r.relay.release(connecting)
		r.relay.kill(subscriber)
		r.arrives(connecting)
		beating := r.relay.hold(prober)
		defer r.relay.release(beating)
		r.relay.release(connecting)
		r.arrives(beating)
		r.strike()
		r.relay.release(beating)
		r.revoke()
	}},
	{"a second time, while it recovers", func(r *round) {
		r.strike()
		time.Sleep(r.bound)
		r.heal()
		time.Sleep(r.upTo(r.heartbeat))
		r.strike()
		r.revoke()
	}},
	{"the lease runs out", func(r *round) {
		r.strike()
		time.Sleep(2*r.heartbeat + r.upTo(r.heartbeat*7/10))
		r.revoke()
		time.Sleep(r.upTo(r.heartbeat / 2))
		r.heal()
	}},
	{"it has just come back", func(r *round) {
		r.strike()
		time.Sleep(r.bound + r.heartbeat)
		r.heal()
		r.gate.coherent(r.t)
		r.revoke()
		r.strike()
	}},
}

// scenario is a round to come. frozen is one in which Gatehouse itself stops.
type scenario struct {
	number     int
	turn       int // counts on when all phases were
	harm       harm
	roles      []string
	directions []string
	phase      phase
	frozen     bool
}

func (s scenario) String() string {
	if s.frozen {
		return fmt.Sprintf("round %d: Gatehouse is frozen", s.number)
	}
	return fmt.Sprintf("round %d: %s, of %s, %s, when %s", s.number, s.harm.name, strings.Join(s.roles, " and "), strings.Join(s.directions, " and "), s.phase.name)
}

// scenarios are each harm of each set of roles in each phase, and some rounds of a
// frozen Gatehouse. The directions take turns.
func scenarios() (all []scenario) {
	for _, h := range harms {
		for set := 1; set < 1<<len(roles); set++ {
			var some []string
			for i, role := range roles {
				if set&(1<<i) != 0 {
					some = append(some, role)
				}
			}
			for _, p := range phases {
				n := len(all)
				all = append(all, scenario{number: n, turn: n / len(phases), harm: h, roles: some, directions: directions[(n+n/len(phases))%len(directions)], phase: p})
			}
		}
	}
	for range 40 {
		all = append(all, scenario{number: len(all), frozen: true})
	}
	return all
}

// sample takes n of all, evenly, so that each harm and each phase is among them.
func sample[T any](all []T, n int) (some []T) {
	for i := range n {
		some = append(some, all[i*len(all)/n+i%(len(all)/n)])
	}
	return some
}

// staleness is one Gatehouse with its Redis, and the load on it, for many rounds.
type staleness struct {
	gate      *gate
	relay     *relay
	redis     *redis.Client  // not through the relay
	other     *session.Store // another Gatehouse
	load      *load          // of what may be in the cache
	strict    *load          // of policies that ask each time
	heartbeat time.Duration
	bound     time.Duration

	// In this round:
	random  *rand.Rand
	longest atomic.Int64 // from an acknowledged end to the sending of a check that passed
	refused atomic.Int64 // 503
	asked   atomic.Int64
}

// newRandom is the same each time, so that a round can be played again.
func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// upTo is a time from 0 to a bound, at random.
func (s *staleness) upTo(d time.Duration) time.Duration {
	return time.Duration(s.random.Int64N(int64(d) + 1))
}

// ask makes a check and notes what came of it.
func (s *staleness) ask(ctx context.Context, c *credential) answer {
	over, sent := c.over(), now()
	a := s.gate.ask(ctx, c)
	s.asked.Add(1)
	switch {
	case a.status == http.StatusServiceUnavailable:
		s.refused.Add(1)
	case a.status == http.StatusOK && over != 0:
		for stale := int64(sent - over); ; {
			longest := s.longest.Load()
			if stale <= longest || s.longest.CompareAndSwap(longest, stale) {
				break
			}
		}
	}
	return a
}

// startStaleness starts a Gatehouse and the load on it.
func startStaleness(t *testing.T, heartbeat time.Duration, config ...string) *staleness {
	t.Helper()
	server := proctest.StartRedis(t)
	s := &staleness{
		relay: newRelay(t, server.Addr), redis: redis.NewClient(&redis.Options{Addr: server.Addr}),
		heartbeat: heartbeat, bound: heartbeat * 5 / 2,
	}
	t.Cleanup(func() { _ = s.redis.Close() })
	s.other = session.New(s.redis, session.Options{Profiles: true, Rolling: true, Timeout: patience})
	config = append(config, fmt.Sprintf("redis: {cache: {heartbeat: %v}}", heartbeat))
	s.gate = startGate(t, newSecrets(t), "redis://"+s.relay.address, config...)
	s.load = startLoad(t, s, loadOptions{rate: 400, clients: 16, stale: s.bound}, s.gate.session(t, "first"))
	s.strict = startLoad(t, s, loadOptions{rate: 50, clients: 2}, s.gate.session(t, "second").strict())
	return s
}

// finish ends the loads, which must be well.
func (s *staleness) finish(t *testing.T) {
	t.Helper()
	for _, l := range []*load{s.load, s.strict} {
		l.flows(t, 20)
		l.end()
		require.Empty(t, l.mistakes(), "wrong answers (the first ones)")
	}
	if hung := s.relay.made - len(roles); hung > 0 {
		t.Logf("toxiproxy hung %d times, and was worked around", hung)
	}
}

// mistakes are the first wrong answers.
func (l *load) mistakes() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.samples)
}

// round is a scenario that is played.
type round struct {
	*staleness
	scenario

	t      *testing.T
	victim *credential // a session
	token  *credential // a token that is revoked as well
	strict *credential // a session that is, and was never answered for by the cache
	good   []*credential
}

func (s *staleness) play(t *testing.T, sc scenario) (outcome outcome) {
	t.Helper()
	r := &round{staleness: s, scenario: sc, t: t}
	s.random = newRandom(uint64(sc.number))
	defer func() {
		if t.Failed() {
			t.Log(sc)
		}
	}()
	user := func(what string) string { return what + "-" + strconv.Itoa(sc.number) }
	r.victim, r.token = s.gate.session(t, user("victim")), s.gate.token(t, user("token"))
	r.strict = s.gate.session(t, user("strict")).strict()
	r.good = []*credential{s.gate.session(t, user("good")), s.gate.token(t, user("good-token")), s.gate.session(t, user("good-strict")).strict()}
	s.load.replace(r.victim, r.token, r.good[0], r.good[1])
	s.strict.replace(r.strict, r.good[2])
	s.gate.coherent(t)
	for _, c := range []*credential{r.victim, r.token} { // in the cache now
		r.settle(c, http.StatusOK)
	}
	before := s.gate.figures(t)
	s.asked.Store(0)
	s.refused.Store(0)
	s.longest.Store(0)

	if sc.frozen {
		r.freeze()
	} else {
		sc.phase.do(r)
	}
	time.Sleep(s.bound + s.heartbeat)
	r.heal()
	healed := now()
	s.gate.coherent(t)
	outcome.recovery = now() - healed
	for _, c := range []*credential{r.victim, r.token, r.strict} {
		r.settle(c, http.StatusUnauthorized)
	}
	for _, c := range r.good {
		if c.over() == 0 {
			r.settle(c, http.StatusOK)
		}
	}
	require.Empty(t, append(s.load.mistakes(), s.strict.mistakes()...), "wrong answers (the first ones)")
	after := s.gate.figures(t)
	outcome.harm, outcome.rounds = sc.harm.name, 1
	if sc.frozen {
		outcome.harm = frozenGate
	}
	outcome.requests, outcome.refused = int(s.asked.Load()), int(s.refused.Load())
	outcome.hits, outcome.drops = int(after.hits-before.hits), int(after.drops-before.drops)
	outcome.longest, outcome.share = time.Duration(s.longest.Load()), float64(s.longest.Load())/float64(s.bound)
	return outcome
}

const frozenGate = "Gatehouse itself is frozen (SIGSTOP, SIGCONT)"

// freeze stops Gatehouse, with whatever it is doing, and revokes meanwhile. Every
// other time checks are sent after the bound, too, that wait for it to go on.
func (r *round) freeze() {
	require.NoError(r.t, r.gate.Signal(syscall.SIGSTOP))
	time.Sleep(r.upTo(r.bound / 2))
	r.revoke()
	pause := r.upTo(r.bound)
	if r.number%2 == 0 {
		pause = r.bound + r.upTo(r.heartbeat)
	}
	time.Sleep(pause)
	require.NoError(r.t, r.gate.Signal(syscall.SIGCONT))
}

// strike does the harm.
func (r *round) strike() {
	ctx := r.t.Context()
	r.relay.resets.Store(r.harm.resets)
	for _, role := range r.roles {
		if r.harm.toxic == "" {
			require.NoError(r.t, r.relay.cut(ctx, role))
			continue
		}
		for _, direction := range r.directions {
			require.NoError(r.t, r.relay.poison(ctx, role, toxic{Type: r.harm.toxic, Stream: direction, Attributes: r.harm.how(r.staleness)}))
		}
	}
}

// poison adds a toxic before the harm that is to come.
func (r *round) poison(role string, before toxic) {
	require.NoError(r.t, r.relay.poison(r.t.Context(), role, before))
}

func (r *round) heal() {
	r.relay.resets.Store(false)
	require.NoError(r.t, r.relay.heal(r.t.Context()))
}

// arrives waits for a connection that is stopped.
func (r *round) arrives(a *arrival) {
	select {
	case <-a.here:
	case <-time.After(patience):
		r.relay.release(a)
		require.Fail(r.t, "nobody connects again", a.role)
	}
}

// settle waits until the answer about a credential is that, and no more 503.
func (r *round) settle(c *credential, want int) {
	r.t.Helper()
	await(r.t, c.name+" is not answered for", func() bool {
		got := r.gate.ask(r.t.Context(), c).status
		if got != http.StatusServiceUnavailable {
			require.Equal(r.t, want, got, c.name)
		}
		return got == want
	})
}

// revoke ends the three, each by another way than the round before, as others than
// this Gatehouse do, and straight at Redis.
func (r *round) revoke() {
	ctx, id := r.t.Context(), r.victim.id(r.t)
	end := func(c *credential, revoke func() error) {
		c.ends()
		require.NoError(r.t, revoke())
		c.ended()
	}
	disable := func(user string) func() error {
		return func() error { return r.redis.Set(ctx, "user:"+user, `{"disabled":true}`, 0).Err() }
	}
	markUser := func(user string) func() error {
		return func() error { _, err := r.other.RevokeUser(ctx, user); return err }
	}
	sessionWays := []func() error{
		func() error { return r.redis.Del(ctx, "sess:"+id).Err() },
		func() error { return r.other.Revoke(ctx, id) },
		markUser(r.victim.user),
		disable(r.victim.user),
		func() error { return r.redis.Set(ctx, "sess:"+id, `{"cookie":{}}`, time.Hour).Err() }, // logged out by Express
	}
	tokenWays := []func() error{
		func() error { return r.redis.Set(ctx, "revoked:"+r.token.id(r.t), "1", time.Hour).Err() },
		func() error { return r.other.RevokeToken(ctx, r.token.id(r.t), time.Now().Add(time.Hour)) },
		markUser(r.token.user),
		disable(r.token.user),
	}
	if r.number%13 == 12 { // all sessions end
		sessions := []*credential{r.victim, r.strict, r.good[0], r.good[2]}
		for _, c := range sessions {
			c.ends()
		}
		require.NoError(r.t, r.redis.FlushAll(ctx).Err())
		for _, c := range sessions {
			c.ended()
		}
	} else {
		end(r.victim, sessionWays[r.number%len(sessionWays)])
		end(r.strict, func() error { return r.redis.Del(ctx, "sess:"+r.strict.id(r.t)).Err() })
	}
	end(r.token, tokenWays[r.turn%len(tokenWays)])
}

// figures are what a Gatehouse tells of its cache.
type figures struct{ coherent, hits, drops float64 }

func (g *gate) figures(t *testing.T) (f figures) {
	t.Helper()
	for line := range strings.Lines(g.metrics(t)) {
		for name, value := range map[string]*float64{
			"gatehouse_cache_coherent": &f.coherent, `gatehouse_cache_answers_total{result="hit"}`: &f.hits,
			"gatehouse_cache_drops_total": &f.drops,
		} {
			if text, ok := strings.CutPrefix(line, name+" "); ok {
				var err error
				*value, err = strconv.ParseFloat(strings.TrimSpace(text), 64)
				require.NoError(t, err)
			}
		}
	}
	return f
}

// coherent waits until the cache answers, which must be asked meanwhile.
func (g *gate) coherent(t *testing.T) {
	t.Helper()
	first := g.figures(t)
	await(t, "the cache doesn't answer (again)", func() bool {
		f := g.figures(t)
		return f.coherent == 1 && f.hits > first.hits
	})
}

// outcome is what came of a round, or of several of one harm.
type outcome struct {
	harm                   string
	rounds, unsure, cached int // all; those with a 503; those with answers from the cache
	requests, refused      int
	hits, drops            int
	longest, recovery      time.Duration
	share                  float64 // of the bound
}

func (o *outcome) add(one outcome) {
	o.rounds += one.rounds
	if one.refused > 0 {
		o.unsure++
	}
	if one.hits > 0 {
		o.cached++
	}
	o.requests += one.requests
	o.refused += one.refused
	o.hits += one.hits
	o.drops += one.drops
	o.longest = max(o.longest, one.longest)
	o.share = max(o.share, one.share)
	o.recovery = max(o.recovery, one.recovery)
}

// id is that of a session, or of a token.
func (c *credential) id(t *testing.T) string {
	t.Helper()
	if cookie, ok := strings.CutPrefix(c.headers["cookie"], "sessionId=s%3A"); ok {
		id, _, _ := strings.Cut(cookie, ".")
		return id
	}
	parts := strings.Split(c.headers["authorization"], ".")
	require.Len(t, parts, 3)
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	var claims struct {
		ID string `json:"jti"`
	}
	require.NoError(t, json.Unmarshal(text, &claims))
	return claims.ID
}

// Whatever breaks between Gatehouse and Redis, and whenever: what was revoked is
// refused when the bound is over, what is good is not called bad, and all is well
// again by itself.
func TestStaleness(t *testing.T) {
	begin(t, "redis-server", "toxiproxy-server")
	todo := scenarios()
	if !*full {
		todo = sample(todo, 40)
	}
	newRandom(0).Shuffle( // so that the slow ones are not all at the end
		len(todo), func(i, j int) { todo[i], todo[j] = todo[j], todo[i] })
	queue := make(chan scenario, len(todo))
	for _, sc := range todo {
		queue <- sc
	}
	close(queue)

	sums := map[string]*outcome{}
	var mu sync.Mutex
	var group sync.WaitGroup
	for i := range of(5, 6) {
		heartbeat := 100 * time.Millisecond
		if *full && i == 0 {
			heartbeat = 500 * time.Millisecond // the default
		}
		interval := time.Minute // the default
		if i%2 == 1 {
			interval = 50 * time.Millisecond // sessions are renewed, by the connection that tracks, all the time
		}
		group.Go(func() {
			t.Run(fmt.Sprintf("Gatehouse %d", i), func(t *testing.T) {
				s := startStaleness(t, heartbeat, fmt.Sprintf("sessions: {touch_interval: %v}", interval))
				for sc := range queue {
					one := s.play(t, sc)
					mu.Lock()
					if sums[one.harm] == nil {
						sums[one.harm] = &outcome{harm: one.harm}
					}
					sums[one.harm].add(one)
					mu.Unlock()
				}
				s.finish(t)
			})
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	felt := 0
	for _, h := range append(slices.Clone(harms), harm{name: frozenGate}) {
		sum := sums[h.name]
		require.NotNil(t, sum, "%s was not tried", h.name)
		felt += sum.drops + sum.refused
		if *full {
			require.Positive(t, sum.drops+sum.refused, "%s was not felt", h.name)
		}
		results.add(t, sum.result())
	}
	require.Positive(t, felt, "no harm was felt")
}

// result is a line of the report.
func (o *outcome) result() result {
	name := "Lines to Redis: " + o.harm
	if o.harm == frozenGate {
		name = o.harm
	}
	return result{
		fault: name, requests: o.requests, refused: o.refused, recovery: o.recovery,
		note: fmt.Sprintf("%d rounds, %d with answers from the cache, %d with a 503, %d times not coherent; a revoked credential passed for %v at the most, %.0f %% of the bound",
			o.rounds, o.cached, o.unsure, o.drops, o.longest.Round(time.Millisecond), 100*o.share),
	}
}
