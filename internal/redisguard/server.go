package redisguard

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// mostFailures in a row are taken for chance, and so is any number of them within
	// chance of an answer.
	mostFailures = 5
	chance       = 100 * time.Millisecond
	// probeInterval is how often a silent server is asked whether it answers, and so
	// how much longer than it an outage lasts.
	probeInterval = 50 * time.Millisecond
	// forgotten is after how long nobody cares for the silence of a server that nobody
	// asks: one that a Cluster has replaced.
	forgotten = time.Minute
	// mostWaiting lookups, and as many touches, may wait for each connection that
	// lookups have, at once.
	mostWaiting = 64
)

// errBroken is in refusals by the breaker.
var errBroken = errors.New("the store has not answered for a while, and another request is asking whether it does")

// server is one server: whether it answers, and who waits for it.
type server struct {
	g      *Guard
	name   string
	began  time.Time
	shares [2]bulkhead // of lookups and touches

	failures atomic.Int32 // in a row
	answered atomic.Int64 // when it answered last, since began
	open     atomic.Bool  // it doesn't answer
	probe    atomic.Int64 // when the next one may ask whether it does
	asked    atomic.Int64 // when somebody wanted to ask it last while it didn't answer
}

func newServer(g *Guard, name string) *server {
	s := &server{g: g, name: name, began: time.Now()}
	for p, turns := range map[purpose]int{lookup: g.lookupTurns(), touch: g.touchTurns()} {
		b := &s.shares[shareOf(p)]
		b.turns, b.most = make(chan struct{}, turns), g.most()
	}
	return s
}

func shareOf(p purpose) int {
	if p == touch {
		return 1
	}
	return 0
}

func (s *server) now() time.Duration { return time.Since(s.began) }

// silent reports whether requests are refused since the server doesn't answer.
func (s *server) silent() bool {
	return s.open.Load() && s.now()-time.Duration(s.asked.Load()) < forgotten
}

// ask sends something if it may. sent is false where that was never tried.
func (s *server) ask(ctx context.Context, m mark, send func(context.Context) error) (sent bool, err error) {
	probing, ok := s.admits()
	if !ok {
		return false, s.refuse(m.purpose, refusal("%w", errBroken))
	}
	b := &s.shares[shareOf(m.purpose)]
	if err := b.enter(ctx); err != nil {
		return false, s.refuse(m.purpose, err)
	}
	defer b.leave()
	if !probing && s.open.Load() { // while this one waited for its turn
		return false, s.refuse(m.purpose, refusal("%w", errBroken))
	}
	began := s.now()
	err = send(inner(ctx))
	s.judge(ctx, m, began, b, err)
	return true, err
}

func (s *server) refuse(p purpose, err error) error {
	s.g.count(p, err)
	return err
}

// judge learns from how a command went.
func (s *server) judge(ctx context.Context, m mark, began time.Duration, b *bulkhead, err error) {
	now := s.now()
	switch outcomeOf(ctx, m, err) {
	case answer:
		b.took(now - began)
		s.answers(now)
	case silence:
		if late(err) {
			b.took(now - began)
		}
		s.fails(now, err)
	case unknown:
	}
}

// admits reports whether the server may be asked: while it is silent, by one every
// probeInterval.
func (s *server) admits() (probing, ok bool) {
	if !s.open.Load() {
		return false, true
	}
	now := int64(s.now())
	s.asked.Store(now)
	next := s.probe.Load()
	ok = now >= next && s.probe.CompareAndSwap(next, now+int64(probeInterval))
	return ok, ok
}

func (s *server) answers(now time.Duration) {
	if s.failures.Load() != 0 {
		s.failures.Store(0)
	}
	last := s.answered.Swap(int64(now))
	if s.open.Load() && s.open.CompareAndSwap(true, false) {
		s.g.tell(Change{Server: s.name, Answers: true, After: now - time.Duration(last)})
	}
}

func (s *server) fails(now time.Duration, err error) {
	last := time.Duration(s.answered.Load())
	if s.failures.Add(1) < mostFailures || now-last < chance {
		return
	}
	if s.open.Load() || !s.open.CompareAndSwap(false, true) {
		return
	}
	s.probe.Store(int64(now + probeInterval))
	s.asked.Store(int64(now))
	s.g.opened.Add(1)
	s.g.tell(Change{Server: s.name, Err: err, After: now - last})
}

// overhear learns from a command that is not guarded that a silent server answers.
// Of those that open a connection nothing can be learnt: they are answered while a
// server is still loading.
func (s *server) overhear(m mark, name string, err error) {
	if m.purpose == inside || !s.open.Load() || kindOf(err) != answer {
		return
	}
	switch name {
	case "ping", "get", "set", "multi", "eval", "evalsha":
		s.answers(s.now())
	}
}

type outcome int

const (
	unknown outcome = iota
	answer
	silence
)

// outcomeOf says what an error tells about the server. Whoever gave up before our own
// deadline says nothing about it.
func outcomeOf(ctx context.Context, m mark, err error) outcome {
	o := kindOf(err)
	if o != silence {
		return o
	}
	if errors.Is(err, context.Canceled) || errors.Is(ctx.Err(), context.Canceled) {
		return unknown
	}
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(m.deadline) && late(err) {
		return unknown
	}
	return silence
}

// outages are what a server says that serves nothing right now. What else it says is
// about a key, or about us.
var outages = []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY", "BUSY ", "ERR max number of clients"}

func kindOf(err error) outcome {
	if err == nil {
		return answer
	}
	if errors.Is(err, redis.ErrClosed) {
		return unknown
	}
	said, ok := errors.AsType[redis.Error](err)
	if !ok {
		return silence
	}
	for _, outage := range outages {
		if strings.HasPrefix(said.Error(), outage) {
			return silence
		}
	}
	return answer
}

// late reports whether time ran out.
func late(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, redis.ErrPoolTimeout)
}

// bulkhead bounds who waits for a server.
type bulkhead struct {
	turns  chan struct{} // one for each connection of its share; nil: no turns
	most   int32
	within atomic.Int32 // who has a turn, or waits for one
	takes  atomic.Int64 // how long an answer takes as a rule
}

// enter waits for a turn. It refuses at once those who would not be answered in time,
// as long as answers take now.
func (b *bulkhead) enter(ctx context.Context) error {
	within := b.within.Add(1)
	if within > b.most {
		b.within.Add(-1)
		return ErrOverloaded
	}
	if b.turns == nil {
		return nil
	}
	if rounds := (int(within) - 1) / cap(b.turns); rounds > 0 && b.late(ctx, rounds+1) {
		b.within.Add(-1)
		return refusal("the store takes %v to answer, and %d requests wait for it already", b.usual(), within-1)
	}
	select {
	case b.turns <- struct{}{}:
		return nil
	default:
	}
	select {
	case b.turns <- struct{}{}:
	case <-ctx.Done():
		b.within.Add(-1)
		return refusal("it was not its turn in time: %w", ctx.Err())
	}
	if b.late(ctx, 1) { // an answer that comes too late costs the connection, too
		b.leave()
		return refusal("the store takes %v to answer, and its turn came too late for that", b.usual())
	}
	return nil
}

// late reports whether the deadline comes before so many answers, one after the other.
func (b *bulkhead) late(ctx context.Context, answers int) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Duration(answers)*time.Duration(b.takes.Load()) > time.Until(deadline)
}

func (b *bulkhead) usual() time.Duration {
	return time.Duration(b.takes.Load()).Round(time.Millisecond / 10)
}

func (b *bulkhead) leave() {
	if b.turns != nil {
		<-b.turns
	}
	b.within.Add(-1)
}

// took learns how long an answer took. It takes many that are slow, and few that are
// fast, to change what is taken for the rule: one that is late says nothing about the
// next. Updates that get lost don't matter.
func (b *bulkhead) took(d time.Duration) {
	takes := b.takes.Load()
	more, weight := int64(d)-takes, int64(16)
	if more < 0 {
		weight = 4
	}
	b.takes.Store(takes + more/weight)
}
