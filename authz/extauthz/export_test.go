package extauthz

import (
	"context"
	"math"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/tap"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Requests reads a check in both ways. Only one of the errors may be nil where
// the two differ about what is a message.
func Requests(request []byte, message *authv3.CheckRequest) (fromWire, fromMessage *authz.Request, errWire, errMessage, notWire error) {
	w := &wireRequest{bytes: request}
	if notWire = w.read(); notWire == nil {
		fromWire, errWire = wireRequestOf(w)
	}
	fromMessage, errMessage = newRequest(message)
	return fromWire, fromMessage, errWire, errMessage, notWire
}

// Parts are the parts of a check.
func Parts(message *authv3.CheckRequest) authz.RequestParts { return parts(message) }

// Arrive is a call's arrival at an admission.
func Arrive(a *Admission, ctx context.Context, method string) (context.Context, error) { //nolint:revive // as methods have it
	return a.arrive(ctx, &tap.Info{FullMethodName: method})
}

// Turn is the turn of a check that arrived with ctx; the reply is nil where it is not shed.
func Turn(a *Admission, ctx context.Context) (_ context.Context, reply []byte, err error) { //nolint:revive // as methods have it
	ctx, _, shed, err := a.turn(ctx)
	if shed != nil {
		reply = shed.bytes
	}
	return ctx, reply, err
}

// Handle is the handler of a check that arrived with ctx.
func Handle(a *Admission, s *Server, ctx context.Context, request []byte) (reply []byte, err error) { //nolint:revive // as methods have it
	r, err := handler(a)(s, ctx, func(v any) error {
		return codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(request)}, v)
	}, nil)
	if err != nil {
		return nil, err
	}
	return r.(*wireReply).bytes, nil
}

// Waited is how long ago a check arrived; -1 where that is not known.
func Waited(a *Admission, ctx context.Context) time.Duration { //nolint:revive // as methods have it
	if waited, _, known := a.arrived(ctx, sinceStart()); known {
		return waited
	}
	return -1
}

// Queue is what tells a queue that stands.
type Queue struct{ q standingQueue }

// NewQueue returns one without a history.
func NewQueue() *Queue { return &Queue{} }

// Note notes how long a check waited.
func (q *Queue) Note(now, waited time.Duration) { q.q.note(now, waited) }

// Stands reports whether the queue stands.
func (q *Queue) Stands() bool { return q.q.standing.Load() }

// Stand has the queue of an admission stand, whatever comes.
func Stand(a *Admission) {
	a.queue.until.Store(math.MaxInt64)
	a.queue.standing.Store(true)
}
