package usergrpc_test

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
	"github.com/gatehouse-auth/gatehouse/services/usercontext/usergrpc"
)

// calledBy is the context of a call whose metadata the gate has written.
func calledBy(pairs ...string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.Pairs(pairs...))
}

// callOf is a context in which grpc.Method finds the method.
func callOf(ctx context.Context, method string) context.Context {
	return grpc.NewContextWithServerTransportStream(ctx, transport{method: method})
}

type transport struct {
	grpc.ServerTransportStream
	method string
}

func (t transport) Method() string { return t.method }

func ExampleUnaryServerInterceptor() {
	guards := []usergrpc.Guard{
		usergrpc.Except([]string{"/grpc.health.v1.Health/"}, usergrpc.Require),
		usergrpc.Only([]string{"/shop.v1.Orders/Purge"}, usergrpc.RequireRole("admin")),
	}
	interceptor := usergrpc.UnaryServerInterceptor(guards...)
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(interceptor),
		grpc.ChainStreamInterceptor(usergrpc.StreamServerInterceptor(guards...)),
	)
	defer server.Stop()

	// What happens to a call of the server:
	handler := func(ctx context.Context, _ any) (any, error) {
		user, _ := usercontext.FromContext(ctx)
		return "hello, " + user.ID, nil
	}
	for _, method := range []string{"/shop.v1.Orders/List", "/shop.v1.Orders/Purge"} {
		answer, err := interceptor(callOf(calledBy("x-user-id", "alice"), method), nil, nil, handler)
		fmt.Println(answer, status.Code(err))
	}
	// Output:
	// hello, alice OK
	// <nil> PermissionDenied
}

// stream is what a handler of a stream sees.
type stream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // the interface asks for it
}

func (s stream) Context() context.Context { return s.ctx }

func ExampleStreamServerInterceptor() {
	interceptor := usergrpc.StreamServerInterceptor() // without guards: Require
	handler := func(_ any, s grpc.ServerStream) error {
		user, _ := usercontext.FromContext(s.Context())
		fmt.Println("hello,", user.ID)
		return nil
	}
	fmt.Println(interceptor(nil, stream{ctx: calledBy("x-user-id", "alice")}, nil, handler))
	fmt.Println(status.Code(interceptor(nil, stream{ctx: context.Background()}, nil, handler)))
	// Output:
	// hello, alice
	// <nil>
	// Unauthenticated
}

// A guard can be called in a handler too.
func ExampleRequire() {
	handler := func(ctx context.Context) error {
		ctx, err := usergrpc.Require(ctx)
		if err != nil {
			return err
		}
		user, _ := usercontext.FromContext(ctx)
		fmt.Println("hello,", user.ID)
		return nil
	}
	fmt.Println(handler(calledBy("x-user-id", "alice")))
	fmt.Println(status.Code(handler(context.Background())))
	// Output:
	// hello, alice
	// <nil>
	// Unauthenticated
}

func ExampleOptional() {
	for _, ctx := range []context.Context{calledBy("x-user-id", "alice"), calledBy(), calledBy("x-user-id", "%")} {
		ctx, err := usergrpc.Optional(ctx)
		if err != nil {
			fmt.Println(status.Code(err))
			continue
		}
		user, ok := usercontext.FromContext(ctx)
		fmt.Printf("%q %v\n", user.ID, ok)
	}
	// Output:
	// "alice" true
	// "" false
	// InvalidArgument
}

// RequireRole comes after Require, which reads who it is.
func ExampleRequireRole() {
	auditors := usergrpc.RequireRole("admin", "auditor")
	for _, roles := range []string{`["auditor"]`, `["member"]`} {
		ctx, err := usergrpc.Require(calledBy("x-user-id", "alice", "x-user-roles", roles))
		if err == nil {
			_, err = auditors(ctx)
		}
		fmt.Println(status.Code(err))
	}
	// Output:
	// OK
	// PermissionDenied
}

func ExampleRequireInternalKey() {
	internal := usergrpc.RequireInternalKey(usercontext.HashKey("foo"))
	for _, key := range []string{"foo", "bar"} {
		_, err := internal(calledBy("x-internal-api-key", key))
		fmt.Println(status.Code(err))
	}
	// Output:
	// OK
	// PermissionDenied
}

func ExampleOnly() {
	guard := usergrpc.Only([]string{"/shop.v1.Orders/Purge", "/shop.v1.Admin/"}, usergrpc.Require)
	for _, method := range []string{"/shop.v1.Orders/List", "/shop.v1.Orders/Purge", "/shop.v1.Admin/Stats"} {
		_, err := guard(callOf(calledBy(), method))
		fmt.Println(method, status.Code(err))
	}
	// Output:
	// /shop.v1.Orders/List OK
	// /shop.v1.Orders/Purge Unauthenticated
	// /shop.v1.Admin/Stats Unauthenticated
}

func ExampleExcept() {
	guard := usergrpc.Except([]string{"/grpc.health.v1.Health/"}, usergrpc.Require)
	for _, method := range []string{"/grpc.health.v1.Health/Check", "/shop.v1.Orders/List"} {
		_, err := guard(callOf(calledBy(), method))
		fmt.Println(method, status.Code(err))
	}
	// Output:
	// /grpc.health.v1.Health/Check OK
	// /shop.v1.Orders/List Unauthenticated
}

// The gate's identity.headers were changed.
func ExampleFor() {
	reader, err := usercontext.NewReader(usercontext.Options{UserID: "x-auth-subject"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, err := usergrpc.For(reader).Require(calledBy("x-auth-subject", "alice"))
	if err != nil {
		fmt.Println(err)
		return
	}
	user, _ := usercontext.FromContext(ctx)
	fmt.Println(user.ID)
	// Output: alice
}

// The zero Guards read the default names.
func ExampleGuards() {
	var guards usergrpc.Guards
	_, err := guards.Require(calledBy("x-user-id", "alice", "x-user-id", "root"))
	fmt.Println(status.Code(err))
	// Output: InvalidArgument
}
