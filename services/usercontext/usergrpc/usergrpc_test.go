package usergrpc_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
	"github.com/gatehouse-auth/gatehouse/services/usercontext/usergrpc"
)

const (
	checkMethod = "/grpc.health.v1.Health/Check" // unary
	watchMethod = "/grpc.health.v1.Health/Watch" // a stream
)

// service is a real gRPC service with one method of each kind, which keeps
// the user that its handlers saw.
type service struct {
	healthpb.UnimplementedHealthServer
	mu   sync.Mutex
	seen []usercontext.User
}

func (s *service) saw(ctx context.Context) {
	user, _ := usercontext.FromContext(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, user)
}

func (s *service) users() []usercontext.User {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]usercontext.User(nil), s.seen...)
}

func (s *service) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s.saw(ctx)
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

func (s *service) Watch(_ *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	s.saw(stream.Context())
	return stream.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING})
}

// start serves the service behind the guards, and returns a client of it and
// the errors that an interceptor outside the guards saw.
func start(t *testing.T, guards ...usergrpc.Guard) (*service, healthpb.HealthClient, func() []error) {
	t.Helper()
	var mu sync.Mutex
	var outer []error
	note := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		outer = append(outer, err)
	}
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(
			func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
				res, err := handler(ctx, req)
				note(err)
				return res, err
			},
			usergrpc.UnaryServerInterceptor(guards...)),
		grpc.ChainStreamInterceptor(
			func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
				err := handler(srv, stream)
				note(err)
				return err
			},
			usergrpc.StreamServerInterceptor(guards...)),
	)
	s := &service{}
	healthpb.RegisterHealthServer(server, s)
	ln := bufconn.Listen(1 << 16)
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return s, healthpb.NewHealthClient(conn), func() []error {
		mu.Lock()
		defer mu.Unlock()
		return append([]error(nil), outer...)
	}
}

// call makes one call of each kind, and returns how each ended.
func call(t *testing.T, client healthpb.HealthClient, pairs ...string) (unary, stream error) {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), pairs...)
	_, unary = client.Check(ctx, &healthpb.HealthCheckRequest{})
	watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	_, stream = watch.Recv()
	return unary, stream
}

func requireStatus(t *testing.T, err error, code codes.Code, message string) {
	t.Helper()
	require.Equal(t, code, status.Code(err), "%v", err)
	require.Equal(t, message, status.Convert(err).Message())
}

func TestInterceptors(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	reader, err := usercontext.NewReader(usercontext.Options{
		UserID: "x-auth-subject", InternalKey: "x-service-key", Now: func() time.Time { return now },
	})
	require.NoError(t, err)
	other := usergrpc.For(reader)
	key, expired := usercontext.HashKey("current"), usercontext.HashKey("last")
	expired.Expires = now

	nobody := usercontext.User{Roles: []string{}}
	alice := usercontext.User{ID: "alice", Email: "alice@example.com", Roles: []string{"admin"}, OrganizationID: "org-1"}
	aliceMD := []string{"x-user-id", "alice", "x-user-email", "alice@example.com", "x-user-roles", `["admin"]`, "x-org-id", "org-1"}
	bobMD := []string{"x-user-id", "bob"}
	admin := usergrpc.RequireRole("admin", "root")

	for _, tc := range []struct {
		name    string
		guards  []usergrpc.Guard
		md      []string
		code    codes.Code
		message string
		user    usercontext.User
	}{
		{"without guards: require, a user", nil, aliceMD, codes.OK, "", alice},
		{"without guards: require, nobody", nil, nil, codes.Unauthenticated, "No token provided", nobody},
		{"require, a user", []usergrpc.Guard{usergrpc.Require}, aliceMD, codes.OK, "", alice},
		{"require, nobody", []usergrpc.Guard{usergrpc.Require}, nil, codes.Unauthenticated, "No token provided", nobody},
		{"require, id twice", []usergrpc.Guard{usergrpc.Require}, append(bobMD, aliceMD...), codes.InvalidArgument, "Bad request", nobody},
		{"require, underscores", []usergrpc.Guard{usergrpc.Require}, []string{"x_user_id", "alice"}, codes.InvalidArgument, "Bad request", nobody},
		{"optional, a user", []usergrpc.Guard{usergrpc.Optional}, aliceMD, codes.OK, "", alice},
		{"optional, nobody", []usergrpc.Guard{usergrpc.Optional}, nil, codes.OK, "", nobody},
		{"optional, malformed", []usergrpc.Guard{usergrpc.Optional}, []string{"x-user-roles", "[]"}, codes.InvalidArgument, "Bad request", nobody},

		{"role, has it", []usergrpc.Guard{usergrpc.Require, admin}, aliceMD, codes.OK, "", alice},
		{"role, has it not", []usergrpc.Guard{usergrpc.Require, admin}, bobMD, codes.PermissionDenied, "Forbidden", nobody},
		{"role, nobody", []usergrpc.Guard{usergrpc.Optional, admin}, nil, codes.Unauthenticated, "No token provided", nobody},
		{"role, nobody read the user", []usergrpc.Guard{admin}, aliceMD, codes.Unauthenticated, "No token provided", nobody},
		{"role, none named", []usergrpc.Guard{usergrpc.Require, usergrpc.RequireRole()}, aliceMD, codes.PermissionDenied, "Forbidden", nobody},

		{"key", []usergrpc.Guard{usergrpc.RequireInternalKey(expired, key)}, []string{"x-internal-api-key", "current"}, codes.OK, "", nobody},
		{"key, wrong", []usergrpc.Guard{usergrpc.RequireInternalKey(key)}, []string{"x-internal-api-key", "hush"}, codes.PermissionDenied, "Forbidden", nobody},
		{"key, missing", []usergrpc.Guard{usergrpc.RequireInternalKey(key)}, aliceMD, codes.PermissionDenied, "Forbidden", nobody},
		{"key, twice", []usergrpc.Guard{usergrpc.RequireInternalKey(key)}, []string{"x-internal-api-key", "current", "x-internal-api-key", "current"}, codes.PermissionDenied, "Forbidden", nobody},

		{"other names, a user", []usergrpc.Guard{other.Require}, []string{"x-auth-subject", "bob", "x-user-id", "alice"}, codes.OK, "", usercontext.User{ID: "bob", Roles: []string{}}},
		{"other names, nobody", []usergrpc.Guard{other.Require}, bobMD, codes.Unauthenticated, "No token provided", nobody},
		{"other names, optional", []usergrpc.Guard{other.Optional}, bobMD, codes.OK, "", nobody},
		{"other names, key", []usergrpc.Guard{other.RequireInternalKey(key)}, []string{"x-service-key", "current"}, codes.OK, "", nobody},
		{"other names, expired key", []usergrpc.Guard{other.RequireInternalKey(key, expired)}, []string{"x-service-key", "last"}, codes.PermissionDenied, "Forbidden", nobody},
		{"other names, key where it was", []usergrpc.Guard{other.RequireInternalKey(key)}, []string{"x-internal-api-key", "current"}, codes.PermissionDenied, "Forbidden", nobody},
	} {
		t.Run(tc.name, func(t *testing.T) {
			service, client, outer := start(t, tc.guards...)
			unary, stream := call(t, client, tc.md...)
			requireStatus(t, unary, tc.code, tc.message)
			requireStatus(t, stream, tc.code, tc.message)
			if tc.code == codes.OK {
				require.Equal(t, []usercontext.User{tc.user, tc.user}, service.users())
				return
			}
			require.Empty(t, service.users(), "the handlers must not run")
			require.NotEmpty(t, outer())
			for _, err := range outer() {
				require.True(t, errors.Is(err, usercontext.ErrAnonymous) ||
					errors.Is(err, usercontext.ErrMalformed) || errors.Is(err, usercontext.ErrForbidden), "%v", err)
				require.NotContains(t, err.Error(), "hush")
			}
		})
	}
}

func TestOnlyAndExcept(t *testing.T) {
	for _, tc := range []struct {
		name          string
		guard         usergrpc.Guard
		unary, stream codes.Code
	}{
		{"only the method", usergrpc.Only([]string{checkMethod}), codes.Unauthenticated, codes.OK},
		{"only another method", usergrpc.Only([]string{"/grpc.health.v1.Health/Che"}), codes.OK, codes.OK},
		{"only the service", usergrpc.Only([]string{"/grpc.health.v1.Health/"}, usergrpc.Require), codes.Unauthenticated, codes.Unauthenticated},
		{"only another service", usergrpc.Only([]string{"/grpc.health.v1.Healthy/"}), codes.OK, codes.OK},
		{"except the method", usergrpc.Except([]string{watchMethod}), codes.Unauthenticated, codes.OK},
		{"except both methods", usergrpc.Except([]string{watchMethod, checkMethod}, usergrpc.Require), codes.OK, codes.OK},
		{"except the service", usergrpc.Except([]string{"/grpc.health.v1.Health/"}, usergrpc.Require), codes.OK, codes.OK},
		{"except nothing", usergrpc.Except(nil), codes.Unauthenticated, codes.Unauthenticated},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, client, _ := start(t, tc.guard)
			unary, stream := call(t, client)
			require.Equal(t, tc.unary, status.Code(unary))
			require.Equal(t, tc.stream, status.Code(stream))
		})
	}
}

func TestUnknownMethodIsGuarded(t *testing.T) {
	ctx := context.Background() // of no call, so without a method
	_, err := usergrpc.Only([]string{checkMethod})(ctx)
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	_, err = usergrpc.Except([]string{checkMethod})(ctx)
	require.Equal(t, codes.Unauthenticated, status.Code(err))
}

func TestMethodsThatMatchNothingPanic(t *testing.T) {
	for _, m := range []string{"", "/", "//", "//Check", "Check", "grpc.health.v1.Health/Check", "/grpc.health.v1.Health", "/a/b/c"} {
		require.Panics(t, func() { usergrpc.Only([]string{checkMethod, m}) }, m)
		require.Panics(t, func() { usergrpc.Except([]string{checkMethod, m}) }, m)
	}
}
