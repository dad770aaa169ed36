package extauthz

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Why checks are shed, see [Admission].
const (
	ShedLate  = "late"  // half of the caller's patience was over when it was its turn
	ShedQueue = "queue" // memory can't answer it, and all wait for a processor
	ShedLimit = "limit" // memory can't answer it, and too many such checks are under way
)

// Sheddings are all of them.
var Sheddings = []string{ShedLate, ShedQueue, ShedLimit}

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
	// yieldAbove is how long a check may wait for a processor before connections
	// are read more slowly, and mostYields how often one reading can be put off.
	yieldAbove = 2 * time.Millisecond
	mostYields = 64
	// messageTime is how long a check may take, from its headers on, however long
	// the caller would wait: for its message, too, which may never come.
	messageTime = 10 * time.Second
)

// Admission keeps a gRPC server answering when more checks come than it can answer.
// It knows how long they wait between their arrival and their turn:
//
//	a := &extauthz.Admission{}
//	server := grpc.NewServer(a.ServerOption(), extauthz.ServerOption())
//	extauthz.RegisterDoor(server, door, a)
//	server.Serve(a.Listener(l))
//
// What a check costs is most of all its way through grpc. To refuse one saves little
// of that, and nothing against an answer from memory; so such an answer is given for
// as long as it can be of use. Shed is what would cost more, and what waited too
// long. The queue is kept short by reading no more than can be answered: the rest
// stays with the callers, who can tell at once that they have too much under way.
//
// A check that is shed is refused with 503, whatever its policy, mode: observe
// included. It is never a gRPC error, which is an allow with Envoy's
// failure_mode_allow. Only who has given up gets no answer.
//
// The zero value is ready, for one server. Fields must be set before it serves.
type Admission struct {
	// Recorder learns of each check that is shed, as of one of which nothing is
	// known. nil for none.
	Recorder Recorder
	// Shed is told why a check was shed, nil for nobody.
	Shed func(why string)

	queue   standingQueue
	busy    atomic.Int64 // until when checks are known to wait for a processor
	waiting atomic.Int64 // checks under way that memory could not answer
}

// processStart is what the times of an Admission are counted from.
var processStart = time.Now()

func sinceStart() time.Duration { return time.Since(processStart) }

// arrivalKey is for the time of a check's arrival.
type arrivalKey struct{}

// ServerOption is for the server, which can have one tap handle
// ([grpc.InTapHandle]): this.
func (a *Admission) ServerOption() grpc.ServerOption { return grpc.InTapHandle(a.arrive) }

// arrive notes when the headers of a check were read, and bounds how long its
// handler lives: a call that brings no deadline, and never its message, would
// keep one as long as the connection.
func (a *Admission) arrive(ctx context.Context, call *tap.Info) (context.Context, error) {
	if call.FullMethodName != checkMethod {
		return ctx, nil // the health service's Watch is to last
	}
	most := messageTime
	deadline, told := ctx.Deadline()
	if !told {
		most = longestDecision * 5 / 4 // which leaves longestDecision, see margin
	}
	if !told || time.Until(deadline) > most {
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, most)
		_ = end // it ends with its parent, which grpc cancels when the call ends
	}
	return context.WithValue(ctx, arrivalKey{}, sinceStart()), nil
}

// turn is called when the handler of a check begins. It returns a reply where the
// check is shed, and an error where nobody waits for one any more.
func (a *Admission) turn(ctx context.Context) (shed *wireReply, err error) {
	arrived, ok := ctx.Value(arrivalKey{}).(time.Duration)
	if !ok {
		return nil, nil
	}
	now := sinceStart()
	waited := now - arrived
	if waited > yieldAbove {
		a.busy.Store(int64(now + yieldAbove))
	}
	a.queue.note(now, waited)
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	patience := longestDecision
	if deadline, ok := ctx.Deadline(); ok {
		patience = waited + time.Until(deadline)
	}
	if waited <= patience/lateShare {
		return nil, nil
	}
	r := wireReplies.Get().(*wireReply)
	r.bytes = a.shed(ctx, r.bytes[:0], ShedLate, waited)
	return r, nil
}

// enter takes a place for a check that memory could not answer, of so many (0: any
// number), or says why there is none.
func (a *Admission) enter(ctx context.Context, limit int) (why string) {
	arrived, ok := ctx.Value(arrivalKey{}).(time.Duration)
	if ok && a.queue.standing.Load() && sinceStart()-arrived > queueMost {
		return ShedQueue
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

// shed appends the reply to a check that is shed. Bugs of those who are told change
// nothing about it.
func (a *Admission) shed(ctx context.Context, to []byte, why string, waited time.Duration) (reply []byte) {
	defer func() {
		if recover() != nil {
			reply = append(to, shedReply...)
		}
	}()
	if a.Shed != nil {
		a.Shed(why)
	}
	if a.Recorder != nil {
		a.Recorder.Record(ctx, unread, &overloaded, errOverloaded, waited)
	}
	return append(to, shedReply...)
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

// Listener returns a listener whose connections are read no faster than checks come
// to their turn. Each check that was read is a goroutine, and thousands of them make
// all others wait that want to run: the cache's heartbeat, too, without which Redis
// is asked about everything. What is not read waits in the socket, and at last with
// the caller.
func (a *Admission) Listener(l net.Listener) net.Listener { return patientListener{l, a} }

type patientListener struct {
	net.Listener
	a *Admission
}

// Accept implements [net.Listener].
func (l patientListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return patientConn{c, l.a}, nil
}

type patientConn struct {
	net.Conn
	a *Admission
}

// Read implements [net.Conn].
func (c patientConn) Read(b []byte) (int, error) {
	for range mostYields {
		if c.a.busy.Load() < int64(sinceStart()) {
			break
		}
		runtime.Gosched() // behind all that wait now
	}
	return c.Conn.Read(b)
}
