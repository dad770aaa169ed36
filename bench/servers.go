package main

import (
	"context"
	"fmt"
	"io"
	"net"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// noopServer allows everything without a look at it: what any ext_authz server
// written with grpc-go costs at least.
type noopServer struct {
	authv3.UnimplementedAuthorizationServer
}

func (noopServer) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
	}, nil
}

// noopPrefix is what the no-op server prints before its address.
const noopPrefix = "listening on "

// runNoop serves on a free port of loopback until ctx is done.
func runNoop(ctx context.Context, stdout io.Writer) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, noopServer{})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if _, err := fmt.Fprintf(stdout, "%s%s\n", noopPrefix, l.Addr()); err != nil {
		return err
	}
	return server.Serve(l)
}
