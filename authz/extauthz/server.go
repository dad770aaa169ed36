package extauthz

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Recorder learns of every decision: the one place where a request is logged
// and counted. err is the refusal, nil for an allowed request.
type Recorder interface {
	Record(ctx context.Context, r *authz.Request, d *authz.Decision, err error, took time.Duration)
}

// Options configure a [Server]. The zero value is usable.
type Options struct {
	Headers        authz.IdentityHeaders // zero: authz.DefaultIdentityHeaders
	MaxHeaderBytes int                   // budget of the identity headers; 0: none
	// StripCredentials keeps the session cookie and a bearer token from the
	// services. Other cookies pass.
	StripCredentials bool
	SessionCookie    string // name, for StripCredentials
	Recorder         Recorder
}

// Server implements envoy.service.auth.v3.Authorization.
type Server struct {
	authv3.UnimplementedAuthorizationServer
	authorizer *authz.Authorizer
	o          Options
	spellings  []string
}

// NewServer returns the door to an authorizer.
func NewServer(a *authz.Authorizer, o Options) *Server {
	if o.Headers == (authz.IdentityHeaders{}) {
		o.Headers = authz.DefaultIdentityHeaders
	}
	return &Server{authorizer: a, o: o, spellings: o.Headers.ClientSpellings()}
}

// Check implements the service. It never returns an error.
func (s *Server) Check(ctx context.Context, req *authv3.CheckRequest) (response *authv3.CheckResponse, _ error) {
	start := time.Now()
	defer func() {
		// Beyond what decide catches: a bug in a recorder or in a reply must
		// be a refusal too, and leave the process alive.
		if p := recover(); p != nil {
			d := &authz.Decision{Reason: authz.ReasonInternal}
			response = deniedResponse(d, authz.AnswerTo(d, &authz.Request{Headers: authz.HeaderMap(nil)}, authz.Refuse(authz.ReasonInternal, "panic: %v", p)))
		}
	}()
	ctx, cancel := withMargin(ctx, start)
	defer cancel()
	r, d, set, err := s.decide(ctx, req)
	if err != nil {
		d.Reason = authz.ReasonOf(err)
		response = deniedResponse(d, authz.AnswerTo(d, r, err))
	} else {
		response = okResponse(d, set, s.remove(r, d, set))
	}
	if s.o.Recorder != nil {
		s.o.Recorder.Record(ctx, r, d, err, time.Since(start))
	}
	return response, nil
}

// longestDecision bounds a decision for a caller that sets no deadline.
const longestDecision = 2 * time.Second

// withMargin ends the context a fifth before the caller gives up. Whoever
// waits longer answers nobody: Envoy has made a gRPC error out of it by then,
// and lets the request pass under failure_mode_allow. So a store or an issuer
// that is slower than the gateway's patience must become our own 503 before.
func withMargin(ctx context.Context, now time.Time) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithDeadline(ctx, now.Add(longestDecision))
	}
	return context.WithDeadline(ctx, deadline.Add(-deadline.Sub(now)/5))
}

// decide returns the headers to set, or the refusal. A panic below it is a
// refusal too: Envoy must not be left with a gRPC error.
func (s *Server) decide(ctx context.Context, req *authv3.CheckRequest) (r *authz.Request, d *authz.Decision, set []authz.Header, err error) {
	r, d = &authz.Request{Headers: authz.HeaderMap(nil)}, &authz.Decision{} //nolint:wastedassign // what a panic returns
	defer func() {
		if p := recover(); p != nil {
			err = authz.Refuse(authz.ReasonInternal, "panic: %v", p)
		}
	}()
	if r, err = newRequest(req); err != nil {
		return r, d, nil, err
	}
	if d, err = s.authorizer.Authorize(ctx, r); err != nil {
		return r, d, nil, err
	}
	if d.Principal != nil {
		set, err = s.o.Headers.Encode(d.Principal.Identity, s.o.MaxHeaderBytes)
		switch {
		case err != nil && d.Policy.Observe: // refuses nothing: goes on without identity
			d.Observed, d.Reason = cmp.Or(d.Observed, err), authz.ReasonAnonymous
		case err != nil:
			return r, d, nil, err
		}
	}
	if cookie, ok := s.strippedCookie(r); ok && cookie != "" {
		set = append(set, authz.Header{Name: "cookie", Value: cookie})
	}
	return r, d, set, nil
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

// remove lists every client spelling of an identity header that is not set,
// the API key, and the credentials that are to be stripped. All spellings,
// whether the client sent them or not: Envoy may not have shown us all
// headers.
func (s *Server) remove(r *authz.Request, d *authz.Decision, set []authz.Header) []string {
	remove := slices.DeleteFunc(slices.Clone(s.spellings), func(name string) bool {
		return slices.ContainsFunc(set, func(h authz.Header) bool { return h.Name == name })
	})
	if cookie, ok := s.strippedCookie(r); ok && cookie == "" {
		remove = append(remove, "cookie")
	}
	if s.stripsBearer(r, d) {
		remove = append(remove, "authorization")
	}
	return remove
}

// stripsBearer reports whether the request shows a bearer token that the
// policy accepts, be it that another credential decided. Another scheme, or a
// token that only the service accepts, is none of ours.
func (s *Server) stripsBearer(r *authz.Request, d *authz.Decision) bool {
	if !s.o.StripCredentials || d.Policy == nil || !slices.Contains(d.Policy.Credentials, authz.KindBearer) {
		return false
	}
	_, present := (*authz.Bearer)(nil).Credential(r)
	return present
}

func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
