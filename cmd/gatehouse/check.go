package main

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
)

const (
	// maxCheckBytes bounds one check, far above what gateways buffer.
	maxCheckBytes = 256 << 20
	// checkWorkers is how many checks are answered at once without a goroutine
	// being started for them.
	checkWorkers = 128
	// checkWindow is how many bytes of checks an Envoy may have under way, for
	// each of them and in all.
	checkWindow = 1 << 20
	// maxStreams is how many checks one connection may have under way. Who has more
	// keeps them, and knows how long they wait; an Envoy opens another connection.
	maxStreams = 1024
	// stopGrace bounds how long calls in flight may take after GOAWAY.
	stopGrace = 5 * time.Second
)

// checkServer is the gRPC server on the check listener.
type checkServer struct {
	grpc   *grpc.Server
	health *health.Server
	ending context.Context //nolint:containedctx // the end of streams: health watches and reflections have none of their own
	end    context.CancelFunc
}

// endStream ends a stream when the server stops: a call in flight has an end, a watch
// or an open reflection would use up the time that others have to finish.
func (s *checkServer) endStream(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.ending, cancel)()
	return handler(service, endingStream{stream, ctx})
}

type endingStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a stream is asked for it
}

func (s endingStream) Context() context.Context { return s.ctx }

// RecvMsg ends with the context, too: reflection waits for questions and for nothing
// else. Who still reads then ends with the stream.
func (s endingStream) RecvMsg(m any) error {
	received := make(chan error, 1)
	go func() { received <- s.ServerStream.RecvMsg(m) }()
	select {
	case err := <-received:
		return err
	case <-s.ctx.Done():
		return status.Error(codes.Unavailable, "the server stops, or the caller has left")
	}
}

func newCheckServer(door *extauthz.Door, admission *extauthz.Admission, o config.CheckServer, tlsConfig *tls.Config) *checkServer {
	options := append(admission.ServerOptions(),
		extauthz.ServerOption(),
		grpc.MaxConcurrentStreams(maxStreams),
		// A check that is too large is a gRPC error, which is an allow under
		// failure_mode_allow. Gatehouse reads no bodies, but a gateway may be
		// set to send them.
		grpc.MaxRecvMsgSize(maxCheckBytes),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      o.MaxConnectionAge, // grpc-go adds a jitter of a tenth either way
			MaxConnectionAgeGrace: stopGrace,
			Time:                  time.Minute,
			Timeout:               10 * time.Second,
		}),
		// Goroutines that wait for checks have their stacks already; where all
		// are busy, others are started as ever.
		grpc.NumStreamWorkers(checkWorkers),
		// A fixed window: checks are small, and grpc would measure the way to
		// Envoy by pings, all the time, to find a better one.
		grpc.InitialWindowSize(checkWindow),
		grpc.InitialConnWindowSize(checkWindow),
		// Envoys ping idle connections; grpc-go's default would call that abuse.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	if tlsConfig != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(tlsConfig)))
	}
	s := &checkServer{health: health.NewServer()}
	s.ending, s.end = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(append(options, grpc.StreamInterceptor(s.endStream))...)
	extauthz.RegisterDoor(s.grpc, door, admission)
	healthv1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.ready(false)
	return s
}

// ready sets what the health service tells, for the server as a whole and
// for the authorization service.
func (s *checkServer) ready(ready bool) {
	status := healthv1.HealthCheckResponse_NOT_SERVING
	if ready {
		status = healthv1.HealthCheckResponse_SERVING
	}
	for _, service := range []string{"", authv3.Authorization_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(service, status)
	}
}

func (s *checkServer) serve(l net.Listener) error { return s.grpc.Serve(l) }

// stop sends GOAWAY and waits for the calls in flight, until ctx ends.
func (s *checkServer) stop(ctx context.Context) {
	s.end()
	stopped := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		s.grpc.Stop()
		<-stopped
	}
}
