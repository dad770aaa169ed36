package extauthz

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Why checks are shed, see [Admission].
const (
	ShedLate  = "late"  // half of the caller's patience was over when it was its turn
	ShedQueue = "queue" // memory can't answer it, and all wait for a processor
	ShedLimit = "limit" // memory can't answer it, and too many such checks are under way
	ShedGone  = "gone"  // it was late, and nobody waited for an answer any more
)

// Sheddings are all of them.
var Sheddings = []string{ShedLate, ShedQueue, ShedLimit, ShedGone}

// Times of an [Admission].
const (
	// lateShare is the part of the caller's patience that a check may have waited
	// when its turn comes. With retries, an Envoy's patience for one try is often
	// half of what it tells.
	lateShare = 2
	// A queue is a burst, and nothing to mind, as long as some check waits for less
	// than queueTarget in each queueInterval. Else it stands, and only makes all
	// wait: then what waited for more than queueMost is shed if it needs more than
	// memory. (So CoDel has it, RFC 8289, for the queues of routers.)
	queueTarget   = 20 * time.Millisecond
	queueMost     = 2 * queueTarget
	queueInterval = 100 * time.Millisecond
	// waitedAbove is how long a check waits before that is anything to mind: then
	// readers of connections give way, each time that they have read so many checks.
	waitedAbove = 5 * time.Millisecond
	yieldEach   = 32
	// waitedPrecision is how precisely it is known how long a check waited, where its
	// deadline tells. Less is not told.
	waitedPrecision = time.Millisecond
	// messageTime is how long a check may take, from its headers on, however long
	// the caller would wait: for its message, too, which may never come.
	messageTime = 10 * time.Second
)

// Admission keeps a gRPC server answering when more checks come than it can answer.
// It knows how long they wait between their arrival and their turn:
//
//	a := &extauthz.Admission{}
//	server := grpc.NewServer(append(a.ServerOptions(), extauthz.ServerOption())...)
//	extauthz.RegisterDoor(server, door, a)
//
// What a check costs is most of all its way through grpc. To refuse one saves little
// of that, and nothing against an answer from memory; so such an answer is given for
// as long as it can be of use. Shed is what would cost more, and what waited too
// long. The queue is kept short by reading no more than can be answered: the rest
// stays with the callers, who can tell at once that they have too much under way.
//
// A check that is shed is refused with 503, whatever its policy, mode: observe
// included. It is never a gRPC error, which is an allow with Envoy's
// failure_mode_allow. Only who has given up gets no answer, and is told of as of one that
// was shed ([ShedGone]), if it had waited for so long that it would have been. Of those
// who have given up grpc drops many before their turn, of which nothing is known.
//
// The zero value is ready, for one server. Fields must be set before it serves.
type Admission struct {
	// Recorder learns of each check that is shed, as of one of which nothing is
	// known but how long it waited. nil for none.
	Recorder Recorder
	// Shed is told why a check was shed, nil for nobody.
	Shed func(why string)

	// usual is how long the first caller waits. Nearly all say the same, and of those
	// the deadline tells when they arrived; for others that is noted.
	usual atomic.Int64

	queue    standingQueue
	busy     atomic.Int64 // until when checks are known to wait for a processor; 0: they don't
	readings atomic.Int64 // while they do
	waiting  atomic.Int64 // checks under way that memory could not answer
}

// processStart is what the times of an Admission are counted from.
var processStart = time.Now()

func sinceStart() time.Duration { return time.Since(processStart) }

// arrivalKey is for a check's [arrival], where it is noted.
type arrivalKey struct{}

type arrival struct {
	at time.Duration
	// patience is how long we take the caller to wait, who tells nothing, or more
	// than is good; 0: its deadline tells.
	patience time.Duration
}

// ServerOptions are for the server. They set its tap handle and its buffer pool.
func (a *Admission) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InTapHandle(a.arrive),
		experimental.BufferPool(patientPool{mem.DefaultBufferPool(), a}),
	}
}

// arrive notes when the headers of a check were read, and bounds how long its
// handler lives: a call that brings no deadline, and never its message, would
// keep one as long as the connection.
func (a *Admission) arrive(ctx context.Context, call *tap.Info) (context.Context, error) {
	if call.FullMethodName != checkMethod {
		return ctx, nil // the health service's Watch is to last
	}
	note, most := arrival{at: sinceStart()}, messageTime
	deadline, told := ctx.Deadline()
	patience := time.Until(deadline)
	switch {
	case told && patience <= messageTime:
		a.usual.CompareAndSwap(0, int64(patience.Round(time.Millisecond)))
		if off := patience - time.Duration(a.usual.Load()); -time.Millisecond < off && off < time.Millisecond {
			return ctx, nil // its deadline tells
		}
		return context.WithValue(ctx, arrivalKey{}, note), nil
	case told:
		note.patience = messageTime
	default:
		note.patience, most = longestDecision, 2*longestDecision
	}
	// The end of it is an error; so it is well behind the time at which a check that
	// waits is shed.
	ctx, end := context.WithTimeout(ctx, most) //nolint:gosec // G118: it ends with its parent, which grpc cancels when the call ends
	_ = end
	return context.WithValue(ctx, arrivalKey{}, note), nil
}

// arrived is how long ago a check arrived, and how long we take its caller to wait
// in all; 0: its deadline tells.
func (a *Admission) arrived(ctx context.Context, now time.Duration) (waited, patience time.Duration, known bool) {
	if noted, ok := ctx.Value(arrivalKey{}).(arrival); ok {
		return now - noted.at, noted.patience, true
	}
	deadline, ok := ctx.Deadline()
	usual := time.Duration(a.usual.Load())
	return usual - (deadline.Sub(processStart) - now), 0, ok && usual != 0
}

// turn is called when the handler of a check begins. It returns the context that the
// check is decided in, and how long it waited, as far as that is known; a reply where it
// is shed, and an error where nobody waits for one any more.
func (a *Admission) turn(ctx context.Context) (_ context.Context, waited time.Duration, shed *wireReply, err error) {
	now := sinceStart()
	waited, patience, known := a.arrived(ctx, now)
	if !known {
		return ctx, 0, nil, nil
	}
	a.queue.note(now, waited)
	if waited > waitedAbove {
		a.busy.Store(int64(now + waitedAbove))
		most := patience
		if deadline, ok := ctx.Deadline(); ok && patience == 0 {
			most = waited + time.Until(deadline)
		}
		late := waited > most/lateShare
		// The end of our patience is not the caller's, to whom an error could be an
		// allow.
		if err := ctx.Err(); err != nil && (patience == 0 || errors.Is(err, context.Canceled)) {
			if late { // the gateway ends a call when its time is over: that looks the same as a client that left
				a.tell(context.WithoutCancel(ctx), ShedGone, waited)
			}
			return ctx, waited, nil, status.FromContextError(err).Err()
		}
		if late {
			r := wireReplies.Get().(*wireReply)
			r.bytes = a.shed(ctx, r.bytes[:0], ShedLate, waited)
			return ctx, waited, r, nil
		}
	}
	if patience == longestDecision {
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, (patience-waited)*5/4) //nolint:gosec // G118: as in arrive. Its margin leaves the rest of the patience
		_ = end
	}
	if waited < waitedPrecision {
		waited = 0
	}
	return ctx, waited, nil, nil
}

// enter takes a place for a check that memory could not answer, of so many (0: any
// number), or says why there is none.
func (a *Admission) enter(ctx context.Context, limit int) (why string) {
	if a.queue.standing.Load() {
		if waited, _, known := a.arrived(ctx, sinceStart()); known && waited > queueMost {
			return ShedQueue
		}
	}
	if n := a.waiting.Add(1); limit > 0 && n > int64(limit) {
		a.waiting.Add(-1)
		return ShedLimit
	}
	return ""
}

// leave gives the place back.
func (a *Admission) leave() { a.waiting.Add(-1) }

// Waiting is how many checks are under way that memory could not answer.
func (a *Admission) Waiting() int { return int(a.waiting.Load()) }

// shed appends the reply to a check that is shed.
func (a *Admission) shed(ctx context.Context, to []byte, why string, waited time.Duration) (reply []byte) {
	a.tell(ctx, why, waited)
	return append(to, shedReply...)
}

// tell tells of a check that is shed. Bugs of those who are told change nothing about it.
func (a *Admission) tell(ctx context.Context, why string, waited time.Duration) {
	defer func() { _ = recover() }()
	if a.Shed != nil {
		a.Shed(why)
	}
	if a.Recorder != nil {
		a.Recorder.Record(ctx, unread, &overloaded, errOverloaded, waited)
	}
}

// What is told of a check that is shed, and the answer to it.
var (
	unread        = &authz.Request{Headers: authz.HeaderMap(nil)}
	overloaded    = authz.Decision{Reason: authz.ReasonOverloaded}
	errOverloaded = authz.Refuse(authz.ReasonOverloaded, "more checks than can be answered")
	shedReply     = appendMessage(nil, deniedResponse(&overloaded, authz.AnswerTo(&overloaded, unread, errOverloaded)))
)

// standingQueue tells a queue that stands from a burst.
type standingQueue struct {
	until    atomic.Int64 // the end of the interval
	least    atomic.Int64 // that anybody waited in it
	standing atomic.Bool  // in the interval before
}

// note notes how long a check waited. An interval in which no check came to its turn
// is the end of any queue.
func (q *standingQueue) note(now, waited time.Duration) {
	end := q.until.Load()
	switch {
	case int64(now) < end:
		if int64(waited) < q.least.Load() {
			q.least.Store(int64(waited)) // of two at once either is near enough
		}
	case q.until.CompareAndSwap(end, int64(now+queueInterval)):
		least := q.least.Swap(int64(waited))
		q.standing.Store(least > int64(queueTarget) && int64(now)-end < int64(queueInterval))
	}
}

// patientPool has connections read no faster than checks come to their turn. Each
// check that was read is a goroutine, and thousands of them make all others wait that
// want to run: the cache's heartbeat, too, without which Redis is asked about
// everything. What is not read waits in the socket, and at last with the caller.
//
// It is a pool since grpc takes a buffer for each message when it reads it, where
// nothing is locked. A connection of another type than net's would cost more.
type patientPool struct {
	mem.BufferPool
	a *Admission
}

// Get implements [mem.BufferPool].
func (p patientPool) Get(length int) *[]byte {
	if busy := p.a.busy.Load(); busy != 0 {
		p.a.yield(busy)
	}
	return p.BufferPool.Get(length)
}

// yield lets those run that wait for a processor, for one in yieldEach readings.
func (a *Admission) yield(busy int64) {
	switch {
	case int64(sinceStart()) > busy:
		a.busy.CompareAndSwap(busy, 0)
	case a.readings.Add(1)%yieldEach == 0:
		runtime.Gosched()
	}
}
