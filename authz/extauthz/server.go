package extauthz

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Recorder learns of every decision: the one place where a request is logged
// and counted. err is the refusal, nil for an allowed request. took counts from the
// check's arrival, its wait for a processor included where an [Admission] knows it.
// Nothing of r and d
// may be used when Record has returned, their texts included: the memory is used
// for the next request. What is to be kept is copied (strings.Clone).
type Recorder interface {
	Record(ctx context.Context, r *authz.Request, d *authz.Decision, err error, took time.Duration)
}

// Tracer has checks traced. Start begins the span of a check, of which ctx is that of the
// call; the context that it returns is what the check is decided in, and what the
// recorder gets. end, never nil, ends the span. It is called for every check, so for one
// that isn't traced it should do nothing.
type Tracer interface {
	Start(ctx context.Context) (_ context.Context, end func())
}

// Options configure a [Server]. The zero value is usable.
type Options struct {
	Headers        authz.IdentityHeaders // zero: authz.DefaultIdentityHeaders
	MaxHeaderBytes int                   // budget of what is told of a principal, see authz.Decision.Size; 0: none
	// StripCredentials keeps the session cookie and a bearer token from the
	// services. Other cookies pass.
	StripCredentials bool
	SessionCookie    string // name, for StripCredentials
	Recorder         Recorder
	Tracer           Tracer // nil: nothing is traced
	// MaxConcurrent bounds how many checks may be under way that memory could not
	// answer, and that may wait for Redis or an issuer; 0: no bound. More are shed.
	// Admission counts them, and is needed for it.
	MaxConcurrent int
	Admission     *Admission
}

// Server implements envoy.service.auth.v3.Authorization.
type Server struct {
	authv3.UnimplementedAuthorizationServer
	authorizer *authz.Authorizer
	o          Options
	spellings  []string
	removals   [8][]byte // see encodeRemovals
	extra      []removal // of the headers that policies add
}

// NewServer returns the door to an authorizer.
func NewServer(a *authz.Authorizer, o Options) *Server {
	if o.Headers == (authz.IdentityHeaders{}) {
		o.Headers = authz.DefaultIdentityHeaders
	}
	s := &Server{authorizer: a, o: o, spellings: a.ClientSpellings(o.Headers)}
	s.encodeRemovals()
	return s
}

// Check implements the service for servers that read and write the generated
// types. It never returns an error.
func (s *Server) Check(ctx context.Context, req *authv3.CheckRequest) (response *authv3.CheckResponse, _ error) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			response = s.panicked(ctx, p, start)
		}
	}()
	ctx, end := s.traced(ctx)
	defer end()
	ctx, cancel := withMargin(ctx, start)
	defer cancel()
	r, d, known, err := s.decide(ctx, func() (*authz.Request, error) { return newRequest(req) })
	if err != nil {
		response = s.denied(r, d, err)
	} else {
		response = s.allowed(r, d, known)
	}
	s.record(ctx, r, d, err, start)
	return response, nil
}

// Answer answers a CheckRequest in wire format, and appends the CheckResponse to
// reply. The error is that the request is no such message. Servers with [Register]
// need not call it.
func (s *Server) Answer(ctx context.Context, request, reply []byte) ([]byte, error) {
	w := wireRequests.Get().(*wireRequest)
	defer w.release()
	w.bytes = append(w.bytes, request...)
	if err := w.read(); err != nil {
		return reply, err
	}
	return s.answer(ctx, w, reply), nil
}

// Explanation is a decision that was traced, and the answer to it.
type Explanation struct {
	Request  *authz.Request // as far as it could be read
	Decision *authz.Decision
	Trace    *authz.Trace
	Err      error // why the request is refused; nil where it passes
	Response *authv3.CheckResponse
	Took     time.Duration
}

// Explain decides a request and answers it as Check does, and tells every step. It
// changes nothing, and nothing is recorded.
func (s *Server) Explain(ctx context.Context, parts authz.RequestParts) *Explanation {
	start := time.Now()
	ctx, cancel := withMargin(ctx, start)
	defer cancel()
	e := &Explanation{Trace: &authz.Trace{}}
	var known bool
	e.Request, e.Decision, known, e.Err = s.decide(authz.WithTrace(ctx, e.Trace), func() (*authz.Request, error) { return authz.NewRequest(parts) })
	if e.Err != nil {
		e.Response = s.denied(e.Request, e.Decision, e.Err)
	} else {
		e.Response = s.allowed(e.Request, e.Decision, known)
	}
	e.Took = time.Since(start)
	return e
}

// answer appends the reply to a request.
func (s *Server) answer(ctx context.Context, w *wireRequest, to []byte) (reply []byte) {
	start := time.Now()
	arrived := start.Add(-w.waited)
	defer func() {
		if p := recover(); p != nil {
			reply = appendMessage(to, s.panicked(ctx, p, arrived))
		}
	}()
	ctx, end := s.traced(ctx)
	defer end()
	if reply, ok := s.quick(ctx, w, to, start); ok {
		return reply
	}
	if a := s.o.Admission; a != nil {
		if why := a.enter(ctx, s.o.MaxConcurrent); why != "" {
			return a.shed(ctx, to, why, time.Since(arrived))
		}
		defer a.leave()
	}
	ctx, cancel := withMargin(ctx, start)
	defer cancel()
	r, d, known, err := s.decide(ctx, func() (*authz.Request, error) { return wireRequestOf(w) })
	switch {
	case err != nil:
		reply = appendMessage(to, s.denied(r, d, err))
	case s.o.StripCredentials:
		reply = appendMessage(to, s.allowed(r, d, known))
	default:
		reply = s.appendAllowed(to, d, known)
	}
	s.record(ctx, r, d, err, arrived)
	return reply
}

// work is what a check is decided in, and used again.
type work struct {
	request  authz.Request
	decision authz.Decision
}

var works = sync.Pool{New: func() any { return &work{} }}

// traced begins the span of a check, if there is a tracer.
func (s *Server) traced(ctx context.Context) (_ context.Context, end func()) {
	if s.o.Tracer == nil {
		return ctx, func() {}
	}
	return s.o.Tracer.Start(ctx)
}

// quick answers from memory what can be allowed from there, but for a rate limit;
// ok is false for all else, of which nothing was recorded.
func (s *Server) quick(ctx context.Context, w *wireRequest, to []byte, start time.Time) (reply []byte, ok bool) {
	defer func() {
		if recover() != nil { // a bug, which the long way meets again, and tells
			reply, ok = nil, false
		}
	}()
	k := works.Get().(*work)
	defer works.Put(k)
	r, d := &k.request, &k.decision
	d.Reset()
	if r.Read(w.parts()) != nil || !w.http {
		return nil, false
	}
	decided, err := s.authorizer.Quick(ctx, margin(ctx, start), r, d)
	if !decided {
		return nil, false
	}
	if err == nil && d.Principal != nil {
		err = s.fits(d)
	}
	switch {
	case err != nil:
		reply = appendMessage(to, s.denied(r, d, err))
	case s.o.StripCredentials:
		reply = appendMessage(to, s.allowed(r, d, d.Principal != nil))
	default:
		reply = s.appendAllowed(to, d, d.Principal != nil)
	}
	s.record(ctx, r, d, err, start.Add(-w.waited))
	return reply, true
}

// wireRequestOf brings a check into canonical form, as [newRequest] does.
func wireRequestOf(w *wireRequest) (*authz.Request, error) {
	r, err := authz.NewRequest(w.parts())
	if !w.http {
		return r, errNoHTTP()
	}
	return r, err
}

func errNoHTTP() error {
	return authz.Refuse(authz.ReasonBadRequest, "the check holds no HTTP request")
}

func (s *Server) denied(r *authz.Request, d *authz.Decision, err error) *authv3.CheckResponse {
	d.Reason = authz.ReasonOf(err)
	return deniedResponse(d, authz.AnswerTo(d, r, err))
}

// panicked is the refusal for a bug beyond what decide catches, in a recorder or
// in a reply: the process stays alive.
func panicked(p any) *authv3.CheckResponse {
	d := &authz.Decision{Reason: authz.ReasonInternal}
	return deniedResponse(d, authz.AnswerTo(d, &authz.Request{Headers: authz.HeaderMap(nil)}, authz.Refuse(authz.ReasonInternal, "panic: %v", p)))
}

// panicked is the same, and recorded: unless it is the recorder that has the bug.
func (s *Server) panicked(ctx context.Context, p any, arrived time.Time) *authv3.CheckResponse {
	func() {
		defer func() { _ = recover() }()
		s.record(ctx, unread, &authz.Decision{Reason: authz.ReasonInternal}, authz.Refuse(authz.ReasonInternal, "panic: %v", p), arrived)
	}()
	return panicked(p)
}

// appendMessage appends the bytes of a response.
func appendMessage(to []byte, m *authv3.CheckResponse) []byte {
	b, err := proto.MarshalOptions{}.MarshalAppend(to, m)
	if err != nil { // a string that is not UTF-8, which none of ours is
		b, err = proto.MarshalOptions{}.MarshalAppend(to, panicked(err))
	}
	if err != nil {
		panic(err)
	}
	return b
}

func (s *Server) record(ctx context.Context, r *authz.Request, d *authz.Decision, err error, arrived time.Time) {
	if s.o.Recorder != nil {
		s.o.Recorder.Record(ctx, r, d, err, time.Since(arrived))
	}
}

// longestDecision bounds a decision for a caller that sets no deadline.
const longestDecision = 2 * time.Second

// withMargin ends the context a fifth before the caller gives up. Whoever
// waits longer answers nobody: Envoy has made a gRPC error out of it by then,
// and lets the request pass under failure_mode_allow. So a store or an issuer
// that is slower than the gateway's patience must become our own 503 before.
func withMargin(ctx context.Context, now time.Time) (context.Context, context.CancelFunc) {
	return context.WithDeadline(ctx, margin(ctx, now))
}

// margin is when that is.
func margin(ctx context.Context, now time.Time) time.Time {
	deadline, ok := ctx.Deadline()
	if !ok {
		return now.Add(longestDecision)
	}
	return deadline.Add(-deadline.Sub(now) / 5)
}

// decide returns whether there is an identity to set, or the refusal. A panic
// below it is a refusal too: Envoy must not be left with a gRPC error.
func (s *Server) decide(ctx context.Context, read func() (*authz.Request, error)) (r *authz.Request, d *authz.Decision, known bool, err error) {
	r, d = &authz.Request{Headers: authz.HeaderMap(nil)}, &authz.Decision{} //nolint:wastedassign // what a panic returns
	defer func() {
		if p := recover(); p != nil {
			err = authz.Refuse(authz.ReasonInternal, "panic: %v", p)
		}
	}()
	if r, err = read(); err != nil {
		return r, d, false, err
	}
	if d, err = s.authorizer.Authorize(ctx, r); err != nil || d.Principal == nil {
		return r, d, false, err
	}
	err = s.fits(d)
	if err != nil && d.Policy.Observe { // refuses nothing: goes on without identity
		d.Observed, d.Reason = cmp.Or(d.Observed, err), authz.ReasonAnonymous
		return r, d, false, nil
	}
	return r, d, err == nil, err
}

// fits refuses a principal of whom more would be told than the budget allows; and
// then nothing is.
func (s *Server) fits(d *authz.Decision) error {
	err := d.Fits(&s.o.Headers, s.o.MaxHeaderBytes)
	if err != nil {
		d.Extra, d.Metadata = nil, nil
	}
	return err
}

// allowed lets the request through, as a message.
func (s *Server) allowed(r *authz.Request, d *authz.Decision, known bool) *authv3.CheckResponse {
	var set []authz.Header
	if known {
		set = d.Headers(s.o.Headers)
	}
	if cookie, ok := s.strippedCookie(r); ok && cookie != "" {
		set = append(set, authz.Header{Name: "cookie", Value: cookie})
	}
	return okResponse(d, set, s.remove(r, d, set))
}

// strippedCookie returns the Cookie header without the session cookie; ok is
// false where there is nothing to strip.
func (s *Server) strippedCookie(r *authz.Request) (string, bool) {
	if !s.o.StripCredentials {
		return "", false
	}
	header, _ := r.Headers.Header("cookie")
	if _, ok := authz.FirstCookie(header, s.o.SessionCookie); !ok {
		return "", false
	}
	return authz.WithoutCookie(header, s.o.SessionCookie), true
}

// remove lists every client spelling of an identity header, or of one that some
// policy adds, that is not set, the API key, and the credentials that are to be stripped. All spellings,
// whether the client sent them or not: Envoy may not have shown us all
// headers.
func (s *Server) remove(r *authz.Request, d *authz.Decision, set []authz.Header) []string {
	remove := unset(s.spellings, set)
	if cookie, ok := s.strippedCookie(r); ok && cookie == "" {
		remove = append(remove, "cookie")
	}
	if s.o.StripCredentials && d.ShowsBearer(r) {
		remove = append(remove, "authorization")
	}
	return remove
}

// unset are the names but for those that are set.
func unset(names []string, set []authz.Header) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(set, func(h authz.Header) bool { return h.Name == name })
	})
}

func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
