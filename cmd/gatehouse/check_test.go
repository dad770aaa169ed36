package main

import (
	"context"
	"net"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
)

// Who watches the health, or looks what there is to call, doesn't keep the server from
// stopping in order.
func TestStreamsEndWithTheServer(t *testing.T) {
	s := newCheckServer(extauthz.NewDoor(nil), &extauthz.Admission{}, config.CheckServer{MaxConnectionAge: time.Hour}, nil)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.serve(l) }()
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	watch, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = watch.Recv()
	require.NoError(t, err)

	look, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, look.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}))
		_, err = look.Recv()
		require.NoError(t, err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s.stop(ctx)
	require.NoError(t, ctx.Err(), "it was stopped by force, when the time was over")
	require.NoError(t, <-served)
	_, err = watch.Recv()
	require.Error(t, err)
	_, err = look.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
}

// slowCredential answers when it is let.
type slowCredential struct{ begun, let chan struct{} }

func (slowCredential) Kind() authz.Kind                         { return authz.KindBearer }
func (slowCredential) Credential(*authz.Request) (string, bool) { return "", true }
func (c slowCredential) Authenticate(ctx context.Context, _ string, _ *authz.Policy) (*authz.Principal, error) {
	close(c.begun)
	select {
	case <-c.let:
		return nil, authz.Refuse(authz.ReasonTokenInvalid, "it was let")
	case <-ctx.Done():
		return nil, authz.Refuse(authz.ReasonStoreUnavailable, "it was not")
	}
}

// oneServer answers all checks.
type oneServer struct{ server *extauthz.Server }

func (o oneServer) Acquire() (*extauthz.Server, extauthz.Releaser) { return o.server, &lease{} }

// A connection that has reached its age takes nothing new, and answers what it has: a
// check that breaks off is an error for Envoy, and an allow under failure_mode_allow.
func TestChecksInFlightOutliveTheAgeOfTheirConnection(t *testing.T) {
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{Policies: []authz.Policy{{Name: "p", Credentials: []authz.Kind{authz.KindBearer}}}, Default: "p"})
	require.NoError(t, err)
	slow := slowCredential{make(chan struct{}), make(chan struct{})}
	door := extauthz.NewDoor(oneServer{extauthz.NewServer(authz.NewAuthorizer(policies, authz.Options{}, slow), extauthz.Options{})})
	s := newCheckServer(door, &extauthz.Admission{}, config.CheckServer{MaxConnectionAge: time.Second}, nil)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.serve(l) }()
	defer func() {
		s.grpc.Stop()
		require.NoError(t, <-served)
	}()
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()

	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
	defer cancel()
	type answer struct {
		reply *authv3.CheckResponse
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		reply, err := authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/"}},
		}})
		answered <- answer{reply, err}
	}()
	<-slow.begun
	require.True(t, conn.WaitForStateChange(ctx, connectivity.Ready), "GOAWAY")
	time.Sleep(100 * time.Millisecond) // who breaks off, does it by now
	close(slow.let)
	a := <-answered
	require.NoError(t, a.err)
	require.EqualValues(t, 401, a.reply.GetDeniedResponse().GetStatus().GetCode())
}
