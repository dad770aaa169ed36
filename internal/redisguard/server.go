package redisguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"
	"weak"

	"github.com/redis/go-redis/v9"
)

const (
	// mostFailures in a row are taken for chance, and so is any number of them within
	// chance of an answer.
	mostFailures = 5
	chance       = 100 * time.Millisecond
	// probeInterval is how often a silent server is asked whether it answers, and so
	// how much longer than it an outage lasts; mostProbes wait for an answer at once: a
	// server that was cut off may answer on a new connection only.
	probeInterval = 50 * time.Millisecond
	mostProbes    = 4
	// probeKey is asked for. A PING is answered by servers, too, that serve no key.
	probeKey = "gatehouse:probe"
	// forgotten is after how long a silent server that nobody needs is asked no more: one
	// that a Cluster has replaced.
	forgotten = time.Minute
	// mostWaiting lookups, and as many of each other kind that may be refused, may wait
	// for each connection that lookups have, at once.
	mostWaiting = 64
	// gap is how long there is nobody who comes and has to wait, at most, when it counts
	// as a standstill of the server that nobody is answered.
	gap = 10 * time.Millisecond
)

// errBroken is in refusals by the breaker.
var errBroken = fmt.Errorf("%w: the store has not answered for a while, and is asked all the time whether it does", errRefused)

// server is one server: whether it answers, and who waits for it.
type server struct {
	g      *Guard
	name   string
	began  time.Time
	shares [shares]bulkhead
	client atomic.Pointer[weak.Pointer[redis.Client]] // the latest

	clients int // that there are; g.mu guards it

	failures atomic.Int32 // in a row
	answered atomic.Int64 // when it answered last, since began
	asked    atomic.Int64 // when it was asked first after that
	stood    atomic.Int64 // see pulse, at that moment
	open     atomic.Bool  // it doesn't answer
	needed   atomic.Int64 // when somebody was refused last, since began
}

func newServer(g *Guard, name string) *server {
	s := &server{g: g, name: name, began: time.Now()}
	for i, turns := range g.turns() {
		b := &s.shares[i]
		b.turns, b.most, b.began = make(chan struct{}, turns), g.most(), s.began
	}
	return s
}

func (s *server) now() time.Duration { return time.Since(s.began) }

// keeps reports whether a command is one by which a client keeps itself informed of a
// Cluster. Others wait for the answer, so it must not wait for theirs.
func keeps(name string) bool { return name == "cluster" || name == "command" }

// await waits for the turn of an order, or of what is repeatable, as long as that has
// time, and for so long at most. It refuses nobody before. Only when its turn comes in
// the last eighth of its time it isn't sent: it would hardly be answered, cost the
// connection, and make those behind it as late.
func (s *server) await(ctx context.Context, b *bulkhead, atMost time.Duration) (leave func(), err error) {
	came := time.Now()
	in := ctx
	if atMost > 0 {
		var cancel context.CancelFunc
		in, cancel = context.WithTimeout(ctx, atMost)
		defer cancel()
	}
	if err := b.await(in); err != nil {
		return nil, s.tooLate(came, err)
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < deadline.Sub(came)/8 {
		b.release()
		return nil, s.tooLate(came, context.DeadlineExceeded)
	}
	return b.release, nil
}

// tooLate is that an order had no turn while it had time.
func (s *server) tooLate(came time.Time, err error) error {
	err = fmt.Errorf("%w: %w", ErrNoTurn, err)
	if s.answersOthers(came.Sub(s.began), err) {
		return fmt.Errorf("%w: %w", ErrOverloaded, err)
	}
	return err
}

// needsKeys reports whether the answer to a command says that the server serves keys.
// Others are answered, too, while it is still loading.
func needsKeys(name string) bool {
	switch name {
	case "auth", "client", "config", "hello", "info", "select":
		return false
	}
	return true
}

// ask sends something if it may. sent is false where that was never tried.
func (s *server) ask(ctx context.Context, m mark, send func(context.Context) error) (sent bool, err error) {
	if s.open.Load() {
		s.needed.Store(int64(s.now()))
		return false, s.refuse(m.purpose, errBroken)
	}
	b := &s.shares[shareOf(m.purpose)]
	leave, err := s.enter(ctx, m, b)
	if err != nil {
		return false, s.refuse(m.purpose, err)
	}
	defer leave()
	if s.open.Load() { // while this one waited for its turn
		return false, s.refuse(m.purpose, errBroken)
	}
	if err := over(ctx); err != nil { // which is never the server's doing
		return false, s.refuse(m.purpose, crowded("its time was over before it was asked: %w", err))
	}
	began, stood := s.now(), ours.stood()
	if s.asked.Load() <= s.answered.Load() {
		s.asked.Store(int64(began))
		s.stood.Store(int64(stood))
	}
	err = send(inner(ctx))
	if now := s.now(); gaveUp(err) && m.stoodStill(now-began-(ours.stood()-stood)) && s.ran(now) < m.timeout {
		return true, s.refuse(m.purpose, fmt.Errorf("%w: this process stood still meanwhile: %w", ErrOverloaded, err))
	}
	s.judge(ctx, m, began, b, err)
	if late(err) && s.answersOthers(began, err) {
		err = s.refuse(m.purpose, fmt.Errorf("%w: others are answered: %w", ErrOverloaded, err))
	}
	return true, err
}

// enter waits for a turn.
func (s *server) enter(ctx context.Context, m mark, b *bulkhead) (leave func(), err error) {
	if m.purpose != repeatable {
		return b.leave, b.enter(ctx)
	}
	// Many may come at the same moment who all get an answer: the tabs of a browser.
	if leave, err = s.await(ctx, b, 0); err != nil {
		err = crowded("it was not its turn in time: %w", err)
	}
	return leave, err
}

// stoodStill reports whether it may lie at this process that something was not answered:
// it stood still since that was asked for, and has waited for no more than this beside
// that. Who waits for half of the timeout with a process that runs sees others answered,
// be it after a standstill, or nobody is.
func (m mark) stoodStill(waited time.Duration) bool {
	return waited < m.timeout/2 && ours.stood() > m.stood
}

// ran is for how long this process has run while the server owed it an answer and gave
// none: one that is well answers as soon as we run, however little that is each time.
func (s *server) ran(now time.Duration) time.Duration {
	return now - time.Duration(s.asked.Load()) - (ours.stood() - time.Duration(s.stood.Load()))
}

// over is why there is no time left to ask, nil where there is. The clock knows that
// before the context does.
func over(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil && time.Until(deadline) <= 0 {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// answersOthers reports whether what came too late, or never to a connection, is no
// sign of an outage.
func (s *server) answersOthers(began time.Duration, err error) bool {
	return errors.Is(err, redis.ErrPoolTimeout) || time.Duration(s.answered.Load()) > began
}

func (s *server) refuse(p purpose, err error) error {
	s.g.count(p, err)
	return err
}

// judge learns from how a command went that was sent at began.
func (s *server) judge(ctx context.Context, m mark, began time.Duration, b *bulkhead, err error) {
	now := s.now()
	switch outcomeOf(ctx, m, now-began, err) {
	case answer:
		if over(ctx) == nil { // else it lay there, for as long as this process stood still
			b.took(now - began)
		}
		s.answers(now)
	case silence:
		if late(err) {
			b.took(now - began)
		}
		s.fails(began, now, m, err) //nolint:contextcheck // it begins what outlives the request
	case unknown:
	}
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

// fails learns that what was sent at began was not answered. Where others were in the
// meantime, the server is slow, or busy with that one. See [Repeatable] for what never
// says anything.
func (s *server) fails(began, now time.Duration, m mark, err error) {
	if m.purpose == repeatable {
		return
	}
	last := time.Duration(s.answered.Load())
	if last > began || s.failures.Add(1) < mostFailures || now-last < chance {
		return
	}
	if s.open.Load() || !s.open.CompareAndSwap(false, true) {
		return
	}
	s.needed.Store(int64(now))
	s.g.opened.Add(1)
	s.g.tell(Change{Server: s.name, Err: err, After: now - last})
	go s.probe(m.timeout)
}

// probe asks a silent server whether it answers, until it does, or nobody needs it any
// more. So no request has to wait for that.
func (s *server) probe(timeout time.Duration) {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	free := make(chan struct{}, mostProbes)
	for s.open.Load() {
		<-ticker.C
		client := s.client.Load().Value()
		if client == nil || s.now()-time.Duration(s.needed.Load()) > forgotten {
			s.forget()
			return
		}
		select {
		case free <- struct{}{}:
		default:
			continue
		}
		go func() {
			defer func() { <-free }()
			ctx, cancel := context.WithTimeout(inner(context.Background()), timeout)
			defer cancel()
			err := client.Get(ctx, probeKey).Err()
			switch {
			case errors.Is(err, redis.ErrClosed):
				s.forget()
			case kindOf(err) == answer && s.open.Load():
				s.answers(s.now())
			}
		}()
	}
}

// forget is that nobody knows whether the server answers.
func (s *server) forget() {
	s.failures.Store(0)
	s.open.Store(false)
}

type outcome int

const (
	unknown outcome = iota
	answer
	silence
)

// outcomeOf says what an error tells about the server after so long a time. Whoever gave
// up soon says nothing about it. Half of our own deadline is not soon: callers may never
// have more patience than that.
func outcomeOf(ctx context.Context, m mark, waited time.Duration, err error) outcome {
	o := kindOf(err)
	if o != silence || waited >= m.timeout/2 {
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
var outages = []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN The cluster is down", "BUSY ", "ERR max number of clients"}

func kindOf(err error) outcome {
	if err == nil {
		return answer
	}
	if errors.Is(err, redis.ErrClosed) || errors.Is(err, redis.ErrPoolTimeout) { // which is about our connections
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

// gaveUp reports whether somebody waited no longer, for whatever reason.
func gaveUp(err error) bool { return late(err) || errors.Is(err, context.Canceled) }

// bulkhead bounds who waits for a server.
type bulkhead struct {
	turns    chan struct{} // one for each connection of its share; nil: no turns
	most     int32
	began    time.Time
	within   atomic.Int32 // who has a turn, or waits for one
	orders   atomic.Int32 // those of them who came by await
	takes    atomic.Int64 // how long an answer takes as a rule
	last     atomic.Int64 // how long the last one took
	progress atomic.Int64 // when a turn was taken or given back last, since began
	queued   atomic.Int64 // when somebody came last who had to wait, since began
}

func (b *bulkhead) progresses() { b.progress.Store(int64(time.Since(b.began))) }

// enter waits for a turn. It refuses at once those who would not be answered in time,
// as long as answers take now.
func (b *bulkhead) enter(ctx context.Context) error {
	within := b.within.Add(1)
	if within > b.most {
		b.within.Add(-1)
		return errFull
	}
	if b.turns == nil {
		return nil
	}
	if rounds := (int(within) - 1) / cap(b.turns); rounds > 0 {
		takes := max(b.usual(), b.stalled())
		if tooLate(ctx, time.Duration(rounds+1)*takes) {
			b.within.Add(-1)
			return crowded("the store takes %v to answer, and %d requests wait for it already", takes.Round(time.Millisecond/10), within-1)
		}
	}
	select {
	case b.turns <- struct{}{}:
		b.progresses()
		return nil
	default:
	}
	if b.orders.Load() > 0 { // which take long here
		b.within.Add(-1)
		return crowded("revocations that wait for replicas have its turns")
	}
	select {
	case b.turns <- struct{}{}:
	case <-ctx.Done():
		b.within.Add(-1)
		return crowded("it was not its turn in time: %w", ctx.Err())
	}
	b.progresses()
	if takes := max(b.usual(), time.Duration(b.last.Load())); tooLate(ctx, takes) { // an answer that comes too late costs the connection, too
		b.leave()
		return crowded("the store takes %v to answer, and its turn came too late for that", takes.Round(time.Millisecond/10))
	}
	return nil
}

// stalled is how long all have been waiting for an answer: it takes that long at least.
// It counts while somebody comes all the time who sees it. Else it may be that this
// process stood still, and that the answers lie there.
func (b *bulkhead) stalled() time.Duration {
	now := time.Since(b.began)
	if now-time.Duration(b.queued.Swap(int64(now))) > gap {
		b.progress.Store(int64(now))
	}
	return now - time.Duration(b.progress.Load())
}

// tooLate reports whether what takes so long, and by chance somewhat longer, ends
// behind the deadline.
func tooLate(ctx context.Context, takes time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return ok && takes+takes/4 > time.Until(deadline)
}

func (b *bulkhead) leave() {
	if b.turns != nil {
		b.progresses()
		<-b.turns
	}
	b.within.Add(-1)
}

// await waits for the turn of an order.
func (b *bulkhead) await(ctx context.Context) error {
	b.within.Add(1)
	b.orders.Add(1)
	select {
	case b.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		b.orders.Add(-1)
		b.within.Add(-1)
		return ctx.Err()
	}
}

// release gives the turn of an order back.
func (b *bulkhead) release() {
	<-b.turns
	b.orders.Add(-1)
	b.within.Add(-1)
}

// usual is how long an answer takes as a rule.
func (b *bulkhead) usual() time.Duration { return time.Duration(b.takes.Load()) }

// took learns how long an answer took. One that is late may be alone in that, so it
// counts for four times the rule at most; some in a row make another rule. Updates
// that get lost don't matter.
func (b *bulkhead) took(d time.Duration) {
	b.last.Store(int64(d))
	takes := b.usual()
	d = min(d, 4*takes+time.Millisecond)
	b.takes.Store(int64(takes + (d-takes)/2))
}
