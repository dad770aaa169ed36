// Package usergrpc does for gRPC servers what package usercontext does for
// HTTP: it reads the user whom the gate passed on, from the metadata of the
// same names, and refuses what the gate cannot have written. Handlers get
// the user with [usercontext.FromContext].
//
//	guards := []usergrpc.Guard{
//		usergrpc.Except([]string{"/grpc.health.v1.Health/"}, usergrpc.Require),
//		usergrpc.Only([]string{"/shop.v1.Orders/Purge"}, usergrpc.RequireRole("admin")),
//	}
//	server := grpc.NewServer(
//		grpc.ChainUnaryInterceptor(usergrpc.UnaryServerInterceptor(guards...)),
//		grpc.ChainStreamInterceptor(usergrpc.StreamServerInterceptor(guards...)),
//	)
//
// A refusal is a status of code InvalidArgument ("Bad request"),
// Unauthenticated ("No token provided") or PermissionDenied ("Forbidden"),
// as 400, 401 and 403 are in usercontext. The client learns no more. An
// interceptor further out, which logs, finds the cause by errors.Is and in
// the error's text; neither holds a header's value.
//
// What usercontext says about trust holds here too: the server must be
// reachable through the gate only.
package usergrpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// Guard admits or refuses one call. It returns the context to go on with, or
// a status error. A handler may call one directly, in place of an
// interceptor.
type Guard func(ctx context.Context) (context.Context, error)

// UnaryServerInterceptor returns an interceptor that admits the calls that
// every guard admits, asked in their order. Without guards it is
// [Require].
func UnaryServerInterceptor(guards ...Guard) grpc.UnaryServerInterceptor {
	admit := all(guards)
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, err := admit(ctx)
		if err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}

// StreamServerInterceptor is [UnaryServerInterceptor] for streams. A stream
// is admitted once, when it begins: the user's later revocation doesn't end
// it.
func StreamServerInterceptor(guards ...Guard) grpc.StreamServerInterceptor {
	admit := all(guards)
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, err := admit(stream.Context())
		if err != nil {
			return err
		}
		return handler(srv, &streamWithContext{stream, ctx})
	}
}

// streamWithContext exists because a grpc.ServerStream hands its context out
// but takes no other.
type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // the interface asks for it
}

func (s *streamWithContext) Context() context.Context { return s.ctx }

func all(guards []Guard) Guard {
	if len(guards) == 0 {
		return Require
	}
	return func(ctx context.Context) (context.Context, error) {
		for _, guard := range guards {
			var err error
			if ctx, err = guard(ctx); err != nil {
				return nil, err
			}
		}
		return ctx, nil
	}
}

// Only returns a guard that asks the others for these methods and admits all
// other calls. A method is written /package.Service/Method, all of a service
// /package.Service/. Another form would match nothing and so leave open what
// it was meant to guard: Only panics. Where the method is not known, the
// guards are asked.
func Only(methods []string, guards ...Guard) Guard {
	mustBeMethods(methods)
	admit := all(guards)
	return func(ctx context.Context) (context.Context, error) {
		if method, known := grpc.Method(ctx); known && !matches(methods, method) {
			return ctx, nil
		}
		return admit(ctx)
	}
}

// Except returns a guard that admits calls of these methods, written as for
// [Only], and asks the others for all other calls, and where the method is
// not known.
func Except(methods []string, guards ...Guard) Guard {
	mustBeMethods(methods)
	admit := all(guards)
	return func(ctx context.Context) (context.Context, error) {
		if method, known := grpc.Method(ctx); known && matches(methods, method) {
			return ctx, nil
		}
		return admit(ctx)
	}
}

func mustBeMethods(methods []string) {
	for _, m := range methods {
		parts := strings.Split(m, "/")
		if len(parts) != 3 || parts[0] != "" || parts[1] == "" {
			panic(fmt.Sprintf("usergrpc: %q is no method: write /package.Service/Method, or /package.Service/ for all of a service", m))
		}
	}
}

func matches(methods []string, method string) bool {
	for _, m := range methods {
		if m == method || strings.HasSuffix(m, "/") && strings.HasPrefix(method, m) {
			return true
		}
	}
	return false
}

// Guards are the guards that read metadata, with the names, limits and clock
// of a [usercontext.Reader]. The Reader's OnRefusal is not called: a refusal
// is an error that an outer interceptor sees. The zero value reads the
// default names.
type Guards struct{ reader *usercontext.Reader }

// For returns the guards of a reader.
func For(reader *usercontext.Reader) Guards { return Guards{reader} }

// Require is the [Guard] that admits authenticated callers, and puts the
// [usercontext.User] into the context. Malformed metadata is refused with
// InvalidArgument, none at all with Unauthenticated.
func Require(ctx context.Context) (context.Context, error) { return Guards{}.Require(ctx) }

// Require is the function [Require] for these guards' metadata.
func (g Guards) Require(ctx context.Context) (context.Context, error) {
	a, err := g.user(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	return usercontext.NewAssertionContext(ctx, a), nil
}

// Optional is the [Guard] that admits anonymous callers too, for whom
// [usercontext.FromContext] finds no user. Malformed metadata is refused
// with InvalidArgument.
func Optional(ctx context.Context) (context.Context, error) { return Guards{}.Optional(ctx) }

// Optional is the function [Optional] for these guards' metadata.
func (g Guards) Optional(ctx context.Context) (context.Context, error) {
	a, err := g.user(ctx)
	if err != nil && !errors.Is(err, usercontext.ErrAnonymous) {
		return nil, refuse(err)
	}
	return usercontext.NewAssertionContext(ctx, a), nil
}

// RequireRole returns a guard that admits users with at least one of the
// roles, and refuses others with PermissionDenied; with no roles, or empty
// ones, everybody. It comes after [Require] or [Optional], which read the
// user; without a user in the context it refuses with Unauthenticated.
func RequireRole(anyOf ...string) Guard {
	return func(ctx context.Context) (context.Context, error) {
		user, ok := usercontext.FromContext(ctx)
		if !ok {
			return nil, refuse(usercontext.ErrAnonymous)
		}
		if !user.HasRole(anyOf...) {
			return nil, refuse(fmt.Errorf("%w: none of the roles that the method asks for", usercontext.ErrForbidden))
		}
		return ctx, nil
	}
}

// RequireInternalKey returns a guard for calls from service to service that
// don't come through the gate: it admits those whose metadata holds one of
// the keys, by the rules of [usercontext.RequireInternalKey], and refuses
// others with PermissionDenied.
func RequireInternalKey(keys ...usercontext.Key) Guard {
	return Guards{}.RequireInternalKey(keys...)
}

// RequireInternalKey is the function [RequireInternalKey] for these guards'
// metadata and clock.
func (g Guards) RequireInternalKey(keys ...usercontext.Key) Guard {
	check := usercontext.CheckInternalKey
	if g.reader != nil {
		check = g.reader.CheckInternalKey
	}
	return func(ctx context.Context) (context.Context, error) {
		if err := check(headers(ctx), keys...); err != nil {
			return nil, refuse(err)
		}
		return ctx, nil
	}
}

func (g Guards) user(ctx context.Context) (usercontext.Assertion, error) {
	if g.reader != nil {
		return g.reader.Verified(ctx, headers(ctx))
	}
	user, err := usercontext.FromHeaders(headers(ctx)) //nolint:contextcheck // without a Verifier nothing is waited for
	return usercontext.Assertion{User: user}, err
}

// headers returns the metadata, whose keys are in lower case, as headers;
// usercontext reads keys in any case.
func headers(ctx context.Context) http.Header {
	md, _ := metadata.FromIncomingContext(ctx)
	return http.Header(md)
}

// refusal is a status for the client around a cause for the log.
type refusal struct {
	status *status.Status
	cause  error
}

func refuse(cause error) error {
	switch {
	case errors.Is(cause, usercontext.ErrAnonymous):
		return &refusal{status.New(codes.Unauthenticated, "No token provided"), cause}
	case errors.Is(cause, usercontext.ErrMalformed):
		return &refusal{status.New(codes.InvalidArgument, "Bad request"), cause}
	case errors.Is(cause, usercontext.ErrKeysUnavailable):
		return &refusal{status.New(codes.Unavailable, "Authentication unavailable"), cause}
	}
	return &refusal{status.New(codes.PermissionDenied, "Forbidden"), cause}
}

func (r *refusal) Error() string              { return r.cause.Error() }
func (r *refusal) Unwrap() error              { return r.cause }
func (r *refusal) GRPCStatus() *status.Status { return r.status }
