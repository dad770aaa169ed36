package e2e

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gatehouse-auth/gatehouse/envoy"
)

// judged is a check that Envoy made, and what Gatehouse said.
type judged struct {
	id                   string // of the request
	method, host, target string
	headers              []field
	route                string // by which Envoy would forward the request, as its context extension says
	status               int    // 200 for an allow
	policy               string
	user                 string
}

// spy stands between a gateway and Gatehouse and remembers what passes: so a test can
// tell that what was checked is what arrived, and that nothing arrived unchecked.
type spy struct {
	authv3.UnimplementedAuthorizationServer
	gatehouse authv3.AuthorizationClient
	mu        sync.Mutex
	checks    map[string][]judged // by the request's id
}

func (s *spy) Check(ctx context.Context, request *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	response, err := s.gatehouse.Check(ctx, request)
	if err != nil {
		return nil, err
	}
	h := request.GetAttributes().GetRequest().GetHttp()
	j := judged{
		method: h.GetMethod(), host: h.GetHost(), target: h.GetPath(), status: 200,
		route: request.GetAttributes().GetContextExtensions()["route"],
	}
	for _, f := range h.GetHeaderMap().GetHeaders() {
		value := f.GetValue()
		if len(f.GetRawValue()) > 0 {
			value = string(f.GetRawValue())
		}
		j.headers = append(j.headers, field{f.GetKey(), value})
		if f.GetKey() == "x-request-id" {
			j.id = value
		}
	}
	if denied := response.GetDeniedResponse(); denied != nil {
		j.status = int(denied.GetStatus().GetCode())
	}
	metadata := response.GetDynamicMetadata().AsMap()
	j.policy, _ = metadata["policy"].(string)
	j.user, _ = metadata["user"].(string)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[j.id] = append(s.checks[j.id], j)
	return response, nil
}

// of returns the checks of a request.
func (s *spy) of(id string) []judged {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checks[id]
}

// every returns all checks.
func (s *spy) every() []judged {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []judged
	for _, list := range s.checks {
		all = append(all, list...)
	}
	return all
}

// watched is a gateway of the test's own with a spy behind it.
type watched struct {
	*gateway
	*spy
}

// watchedGateway starts an Envoy whose checks are watched.
func (s *stack) watchedGateway(t *testing.T, edits ...edit) watched {
	t.Helper()
	eye := &spy{gatehouse: authv3.NewAuthorizationClient(s.replicas[0].connect(t)), checks: map[string][]judged{}}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, eye)
	healthv1.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	// The same stack, but for where its checks go.
	behind := *s
	spied := *s.replicas[0]
	spied.check = listener.Addr().String()
	behind.replicas, behind.ends = []*replica{&spied}, nil
	g, err := behind.newGateway(context.WithoutCancel(t.Context()), envoy.Config, edits...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Stop()) })
	s.recorder.keep()
	return watched{g, eye}
}

// id returns the id under which Envoy asked about a request that arrived.
func (a *arrival) id() string { return strings.Join(a.values("x-request-id"), ",") }
