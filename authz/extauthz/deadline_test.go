package extauthz_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
)

// hanging is a credential kind whose source never answers.
type hanging struct{}

func (hanging) Kind() authz.Kind                         { return authz.KindBearer }
func (hanging) Credential(*authz.Request) (string, bool) { return "", true }
func (hanging) Authenticate(ctx context.Context, _ string, _ *authz.Policy) (*authz.Principal, error) {
	<-ctx.Done()
	return nil, authz.Refuse(authz.ReasonIssuerUnavailable, "wait for keys: %w", ctx.Err())
}

// An answer after the gateway gave up is none: Envoy has made a gRPC error of
// it, and failure_mode_allow makes an allow of that.
func TestAnswersBeforeTheGatewayGivesUp(t *testing.T) {
	t.Parallel()
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: []authz.Policy{{Name: "p", Credentials: []authz.Kind{authz.KindBearer}}}, Default: "p",
	})
	require.NoError(t, err)
	server := extauthz.NewServer(authz.NewAuthorizer(policies, authz.Options{}, hanging{}), extauthz.Options{})
	request := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/"},
	}}}

	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		response, err := server.Check(ctx, request)
		require.NoError(t, err)
		require.NoError(t, ctx.Err(), "there was time left for the reply to travel")
		require.EqualValues(t, 503, response.GetDeniedResponse().GetStatus().GetCode())

		// Without a deadline of the caller's it ends by itself.
		response, err = server.Check(t.Context(), request)
		require.NoError(t, err)
		require.EqualValues(t, 503, response.GetDeniedResponse().GetStatus().GetCode())
	})
}

func TestHeaderNamesInAnyCase(t *testing.T) {
	t.Parallel()
	server := newServer(t)
	for _, name := range []string{"cookie", "Cookie", "COOKIE"} {
		request := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
			Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/", Headers: map[string]string{name: "sessionId=forged", "X-Other": "x"}},
		}}}
		response, err := server.Check(t.Context(), request)
		require.NoError(t, err)
		require.JSONEq(t, `{"error":"Invalid session"}`, response.GetDeniedResponse().GetBody(), name)
	}
}

// buggy is a recorder with a bug.
type buggy struct{}

func (buggy) Record(context.Context, *authz.Request, *authz.Decision, error, time.Duration) {
	panic("the recorder has a bug")
}

// brokenTracer has a bug, beyond what a decision catches.
type brokenTracer struct{}

func (brokenTracer) Start(context.Context) (context.Context, func()) { panic("the tracer has a bug") }

// A bug anywhere on the way of a check is counted and logged as one.
func TestABugIsRecorded(t *testing.T) {
	t.Parallel()
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{Policies: []authz.Policy{{Name: "open", Anonymous: true}}, Default: "open"})
	require.NoError(t, err)
	recorded := &recording{}
	server := extauthz.NewServer(authz.NewAuthorizer(policies, authz.Options{}), extauthz.Options{Recorder: recorded, Tracer: brokenTracer{}})
	response, err := server.Check(t.Context(), &authv3.CheckRequest{})
	require.NoError(t, err)
	require.EqualValues(t, 503, response.GetDeniedResponse().GetStatus().GetCode())
	reply, err := server.Answer(t.Context(), nil, nil)
	require.NoError(t, err)
	var answered authv3.CheckResponse
	require.NoError(t, proto.Unmarshal(reply, &answered))
	require.EqualValues(t, 503, answered.GetDeniedResponse().GetStatus().GetCode())
	require.Len(t, recorded.all, 2)
	for _, told := range recorded.all {
		require.Equal(t, authz.ReasonInternal, told.reason)
	}
}

func TestPanicOfARecorderRefuses(t *testing.T) {
	t.Parallel()
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{Policies: []authz.Policy{{Name: "open", Anonymous: true}}, Default: "open"})
	require.NoError(t, err)
	server := extauthz.NewServer(authz.NewAuthorizer(policies, authz.Options{}), extauthz.Options{Recorder: buggy{}})
	for name, message := range map[string]*authv3.CheckRequest{
		"of nothing": {},
		"of what memory would allow": {Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
			Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/"},
		}}},
	} {
		response, err := server.Check(t.Context(), message)
		require.NoError(t, err, name)
		require.EqualValues(t, 503, response.GetDeniedResponse().GetStatus().GetCode(), name)

		// And by the way that serve takes: a panic there would end the process.
		request, err := proto.Marshal(message)
		require.NoError(t, err)
		reply, err := server.Answer(t.Context(), request, nil)
		require.NoError(t, err, name)
		var answered authv3.CheckResponse
		require.NoError(t, proto.Unmarshal(reply, &answered))
		require.EqualValues(t, 503, answered.GetDeniedResponse().GetStatus().GetCode(), name)
	}
}
