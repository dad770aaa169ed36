// Package recent keeps the last decisions of a replica, for people who ask why a request
// was denied:
//
//	log := recent.New()
//	door.Recorder = log.With(recorder)
//	api.Decisions = log
//
// Refusals are kept always, and what a policy that only observes would refuse. Requests
// that pass are kept while somebody listens, and a while longer: until then they cost one
// look at a flag. Of each reason a few are kept a second, and refusals beyond that are
// counted: what floods the gate neither costs it much nor pushes out what is rare.
//
// Nothing is written anywhere, and no credential is kept: of the request its method, host
// and path, of the caller the user's id and a handle, all of them as the log shows them
// (package logging): without what is a secret by its looks.
package recent

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/internal/explain"
	"github.com/gatehouse-auth/gatehouse/internal/logging"
)

const (
	keepDenied  = 200
	keepAllowed = 100
	// perSecond is how many of each reason are kept in a second.
	perSecond = 20
	// mostListeners bounds those who listen at once.
	mostListeners = 16
	// longest is what is kept of a text that a request brought.
	longest = 512
)

// linger is how long decisions that allow are kept when nobody listens any more: who
// listens comes again every few seconds.
const linger = 30 * time.Second

// Log keeps decisions. It is safe for concurrent use.
type Log struct {
	replica string
	all     atomic.Bool // whether those that allow are kept
	budgets map[authz.Reason]*budget
	leftOut atomic.Uint64
	done    chan struct{}
	now     func() time.Time
	linger  time.Duration

	mu        sync.Mutex
	number    uint64
	denied    ring
	allowed   ring
	listeners int
	forget    *time.Timer // turns all off
	closed    bool
}

// New returns a log that keeps nothing yet. Its name is another one each time.
func New() *Log {
	var name [4]byte
	_, _ = rand.Read(name[:]) // never fails
	l := &Log{
		replica: hex.EncodeToString(name[:]), budgets: map[authz.Reason]*budget{}, done: make(chan struct{}), now: time.Now, linger: linger,
		denied: ring{most: keepDenied}, allowed: ring{most: keepAllowed},
	}
	for _, r := range authz.Reasons() {
		l.budgets[r] = &budget{}
	}
	return l
}

// Replica is the name of this replica in ids of decisions.
func (l *Log) Replica() string { return l.replica }

// Close sends those who listen away.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.done)
	}
}

// Done implements [authapi.Decisions].
func (l *Log) Done() <-chan struct{} { return l.done }

// Listen implements [authapi.Decisions].
func (l *Log) Listen() (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.listeners == mostListeners {
		return nil, false
	}
	l.listeners++
	l.all.Store(true)
	if l.forget != nil {
		l.forget.Stop()
		l.forget = nil
	}
	return sync.OnceFunc(l.leave), true
}

func (l *Log) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listeners--; l.listeners > 0 {
		return
	}
	var forget *time.Timer
	forget = time.AfterFunc(l.linger, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.forget == forget { // else somebody has come
			l.all.Store(false)
		}
	})
	l.forget = forget
}

// Since implements [authapi.Decisions].
func (l *Log) Since(number uint64) authapi.DecisionList {
	l.mu.Lock()
	all := append(l.denied.since(number), l.allowed.since(number)...)
	l.mu.Unlock()
	sort.Slice(all, func(i, j int) bool { return all[i].Number < all[j].Number })
	list := authapi.DecisionList{Replica: l.replica, LeftOut: l.leftOut.Load(), Decisions: make([]authapi.Decision, len(all))}
	for i, d := range all {
		list.Decisions[i] = explained(d)
	}
	return list
}

// explained adds what follows from the reason.
func explained(d authapi.Decision) authapi.Decision {
	m := explain.MeaningOf(why(&d))
	d.Means, d.Do = m.Means, m.Do
	if !d.Denied && d.WouldDeny == "" {
		return d
	}
	known := explain.Known{Policy: d.Policy, Kind: d.Credential, Reason: why(&d), Error: d.Detail, User: d.User}
	for _, s := range known.Steps() {
		d.Steps = append(d.Steps, authapi.DecisionStep{Stage: s.Stage, Name: s.Name, Outcome: s.Outcome, Detail: s.Detail})
	}
	return d
}

// Recorder is that of the doors.
type Recorder interface {
	Record(ctx context.Context, r *authz.Request, d *authz.Decision, err error, took time.Duration)
}

// With returns a recorder that tells next, and keeps what is to be kept.
func (l *Log) With(next Recorder) Recorder { return recorder{l, next} }

type recorder struct {
	log  *Log
	next Recorder
}

// Record implements [Recorder].
func (r recorder) Record(ctx context.Context, req *authz.Request, d *authz.Decision, err error, took time.Duration) {
	r.next.Record(ctx, req, d, err, took)
	if err != nil || d.Observed != nil || r.log.all.Load() {
		r.log.keep(req, d, err, took)
	}
}

// keep keeps a decision, unless there were too many like it in this second. What it
// keeps are copies: the request's memory is used again.
func (l *Log) keep(r *authz.Request, d *authz.Decision, err error, took time.Duration) {
	now, why := l.now(), d.Reason
	refusal := err
	if err == nil {
		refusal = d.Observed
	}
	if refusal != nil {
		why = authz.ReasonOf(refusal)
	}
	if b := l.budgets[why]; b == nil || !b.take(now.Unix()) {
		if refusal != nil {
			l.leftOut.Add(1)
		}
		return
	}
	kept := authapi.Decision{
		Time: now, Denied: err != nil, Reason: d.Reason, Credential: d.Kind, Took: took,
		Method: clip("method", r.Method), Host: clip("host", r.Authority), Path: clip("path", r.RawPath),
	}
	if r.Headers != nil {
		id, _ := r.Headers.Header("x-request-id")
		kept.RequestID = clip("request_id", id)
	}
	if d.Policy != nil {
		kept.Policy = d.Policy.Name
	}
	var user, handle string
	if d.Principal != nil {
		user, handle, kept.Degraded = d.Principal.ID, d.Principal.Handle(), d.Principal.Degraded
	} else {
		user, handle = authz.Suspect(refusal)
	}
	kept.User, kept.Session = clip("user", user), handle
	if refusal != nil {
		kept.Detail = clip("error", refusal.Error())
	}
	if err != nil {
		kept.Reason = why // the door may not have noted it yet
		kept.Status = authz.AnswerTo(d, r, err).Status
	} else if d.Observed != nil {
		kept.WouldDeny = why
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	kept.Number = l.number
	if refusal != nil {
		l.denied.add(&kept)
	} else {
		l.allowed.add(&kept)
	}
}

// clip returns a copy of a text as the log may show it under this name, of what is too
// long its beginning.
func clip(name, s string) string {
	s = logging.Redacted(nil, slog.String(name, s)).Value.String()
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return strings.Clone(s)
}

// budget counts what was kept in a second.
type budget struct{ second, taken atomic.Int64 }

// take reports whether one more may be kept. Where two begin a second at once, it may be
// one more than that.
func (b *budget) take(second int64) bool {
	if before := b.second.Load(); before != second && b.second.CompareAndSwap(before, second) {
		b.taken.Store(0)
	}
	return b.taken.Add(1) <= perSecond
}

// ring holds the last ones, in their order. Where there are too many, the oldest one goes
// of the reason that has the most: a flood pushes out itself.
type ring struct {
	most int
	all  []*authapi.Decision
	of   map[authz.Reason]int // how many
}

// why is what a decision is kept for.
func why(d *authapi.Decision) authz.Reason { return cmp.Or(d.WouldDeny, d.Reason) }

func (r *ring) add(d *authapi.Decision) {
	if r.of == nil {
		r.of = map[authz.Reason]int{}
	}
	r.all = append(r.all, d)
	r.of[why(d)]++
	if len(r.all) <= r.most {
		return
	}
	most := 0
	for _, n := range r.of {
		most = max(most, n)
	}
	i := slices.IndexFunc(r.all, func(one *authapi.Decision) bool { return r.of[why(one)] == most })
	r.of[why(r.all[i])]--
	r.all = slices.Delete(r.all, i, i+1)
}

// since returns copies of those behind a number, the first one first.
func (r *ring) since(number uint64) []authapi.Decision {
	i := len(r.all)
	for i > 0 && r.all[i-1].Number > number {
		i--
	}
	newer := make([]authapi.Decision, 0, len(r.all)-i)
	for _, d := range r.all[i:] {
		newer = append(newer, *d)
	}
	return newer
}
