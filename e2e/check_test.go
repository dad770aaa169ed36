package e2e

import (
	"context"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

// checked is the answer of the check listener, asked without an Envoy.
type checked struct {
	status   int // 200 for an allow
	body     string
	headers  map[string]string // set on the request, or on the refusal
	removed  []string
	metadata map[string]any
}

// connect opens a connection to the check listener, for the test's life.
func (r *replica) connect(t *testing.T) *grpc.ClientConn {
	t.Helper()
	target := "passthrough:///" + r.check
	if strings.HasPrefix(r.check, "unix://") {
		target = r.check
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask asks the check listener about a request as an Envoy that changes nothing
// would hand it over.
func (r *replica) ask(t *testing.T, method, target string, headers ...string) checked {
	t.Helper()
	all := map[string]string{}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		all[strings.ToLower(name)] = value
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reply, err := authv3.NewAuthorizationClient(r.connect(t)).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.1"},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: method, Path: target, Host: host, Scheme: "https", Headers: all,
		}},
	}})
	require.NoError(t, err, "a gRPC error is an allow under failure_mode_allow")
	c := checked{headers: map[string]string{}, metadata: reply.GetDynamicMetadata().AsMap()}
	options := reply.GetOkResponse().GetHeaders()
	if denied := reply.GetDeniedResponse(); denied != nil {
		require.NotEqual(t, int32(codes.OK), reply.GetStatus().GetCode(), "Envoy takes a denied arm with status OK for an allow")
		c.status, c.body, options = int(denied.GetStatus().GetCode()), denied.GetBody(), denied.GetHeaders()
	} else {
		require.NotNil(t, reply.GetOkResponse(), "Envoy takes an answer without an arm for an allow")
		require.NotNil(t, reply.GetStatus())
		require.Equal(t, int32(codes.OK), reply.GetStatus().GetCode())
		c.status, c.removed = 200, reply.GetOkResponse().GetHeadersToRemove()
	}
	for _, o := range options {
		require.Equal(t, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, o.GetAppendAction())
		require.NotContains(t, c.headers, o.GetHeader().GetKey(), "set twice")
		c.headers[o.GetHeader().GetKey()] = o.GetHeader().GetValue()
	}
	return c
}
