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

func ExampleUnaryServerInterceptor() {
	guards := []usergrpc.Guard{
		usergrpc.Except([]string{"/grpc.health.v1.Health/"}, usergrpc.Require),
		usergrpc.Only([]string{"/shop.v1.Orders/Purge"}, usergrpc.RequireRole("admin")),
	}
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(usergrpc.UnaryServerInterceptor(guards...)),
		grpc.ChainStreamInterceptor(usergrpc.StreamServerInterceptor(guards...)),
	)
	server.Stop()
	// Output:
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
	fmt.Println(handler(metadata.NewIncomingContext(context.Background(), metadata.Pairs("x-user-id", "alice"))))
	fmt.Println(status.Code(handler(context.Background())))
	// Output:
	// hello, alice
	// <nil>
	// Unauthenticated
}
