package extauthz_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
)

// requireShed demands the answer that sheds: an outage's, to the byte.
func requireShed(t *testing.T, reply *authv3.CheckResponse) {
	t.Helper()
	require.Equal(t, int32(codes.Unavailable), reply.GetStatus().GetCode())
	denied := reply.GetDeniedResponse()
	require.EqualValues(t, 503, denied.GetStatus().GetCode())
	require.Equal(t, `{"error":"Authentication unavailable"}`, denied.GetBody())
	headers := map[string]string{}
	for _, h := range denied.GetHeaders() {
		headers[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	require.Equal(t, map[string]string{"cache-control": "no-store", "content-type": "application/json", "retry-after": "1"}, headers)
	require.Equal(t, "overloaded", reply.GetDynamicMetadata().GetFields()["reason"].GetStringValue())
	require.Equal(t, "deny", reply.GetDynamicMetadata().GetFields()["decision"].GetStringValue())
}

func TestShedWhenHalfOfThePatienceIsOver(t *testing.T) {
	t.Parallel()
	told := map[string]int{}
	a := &extauthz.Admission{Shed: func(why string) { told[why]++ }}
	second, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	reply, err := extauthz.Turn(a, second, 20*time.Second)
	require.NoError(t, err)
	require.Nil(t, reply, "it is answered")

	reply, err = extauthz.Turn(a, second, 61*time.Second) // of 121
	require.NoError(t, err)
	require.NotNil(t, reply)
	var shed authv3.CheckResponse
	require.NoError(t, proto.Unmarshal(reply, &shed))
	requireShed(t, &shed)
	require.Equal(t, map[string]int{extauthz.ShedLate: 1}, told)

	gone, giveUp := context.WithCancel(t.Context())
	giveUp()
	reply, err = extauthz.Turn(a, gone, time.Second)
	require.Equal(t, codes.Canceled, status.Code(err), "nobody waits for an answer")
	require.Nil(t, reply)
	require.Len(t, told, 1, "and none was shed")

	reply, err = extauthz.Turn(a, t.Context(), 900*time.Millisecond)
	require.NoError(t, err)
	require.Nil(t, reply)
	reply, err = extauthz.Turn(a, t.Context(), 1100*time.Millisecond)
	require.NoError(t, err)
	require.NotNil(t, reply, "who tells no deadline gets two seconds")
}

// Whether a check's arrival is noted or follows from its deadline, as for callers
// that wait as long as the first one, it is the same.
func TestArrivalIsKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &extauthz.Admission{}
		for _, patience := range []time.Duration{time.Second, time.Second, 200 * time.Millisecond, 5 * time.Second, time.Second, time.Hour, 0} {
			ctx, cancel := context.WithCancel(t.Context())
			if patience > 0 {
				ctx, cancel = context.WithTimeout(ctx, patience)
			}
			ctx, err := extauthz.Arrive(a, ctx, "/envoy.service.auth.v3.Authorization/Check")
			require.NoError(t, err)
			time.Sleep(70 * time.Millisecond)
			require.Equal(t, 70*time.Millisecond, extauthz.Waited(a, ctx), patience)
			cancel()
		}
	})
}

// A burst makes some wait, a queue that stands makes all.
func TestQueueStands(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, tc := range map[string]struct {
		waits  []time.Duration // one each 10 ms
		stands bool
	}{
		"a burst":                      {[]time.Duration{300 * ms, 200 * ms, 100 * ms, 1 * ms}, false},
		"for an interval":              {[]time.Duration{50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms}, true},
		"one of which waited for less": {[]time.Duration{50 * ms, 50 * ms, 50 * ms, 50 * ms, 5 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms, 50 * ms}, false},
	} {
		q := extauthz.NewQueue()
		at := time.Hour
		for _, waited := range tc.waits {
			at += 10 * ms
			q.Note(at, waited)
		}
		require.Equal(t, tc.stands, q.Stands(), name)
		q.Note(at+time.Second, 50*ms)
		require.False(t, q.Stands(), "%s: a second without a check ends it", name)
	}
}

// serveAdmission serves a door behind an admission, and returns a client.
func serveAdmission(t *testing.T, a *extauthz.Admission, o extauthz.Options, kinds ...authz.Authenticator) authv3.AuthorizationClient {
	t.Helper()
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: []authz.Policy{{Name: "p", Credentials: []authz.Kind{authz.KindBearer}}, {Name: "open", Anonymous: true}}, Default: "p",
	})
	require.NoError(t, err)
	o.Admission = a
	door := extauthz.NewDoor(always{extauthz.NewServer(authz.NewAuthorizer(policies, authz.Options{}, kinds...), o)})
	server := grpc.NewServer(append(a.ServerOptions(), extauthz.ServerOption())...)
	extauthz.RegisterDoor(server, door, a)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); require.NoError(t, <-done) })
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return authv3.NewAuthorizationClient(conn)
}

// always is a server that no other one follows.
type always struct{ s *extauthz.Server }

func (a always) Acquire() (*extauthz.Server, extauthz.Releaser) { return a.s, nobody{} }

type nobody struct{}

func (nobody) Release() {}

// held is a credential kind that answers when it is let.
type held struct {
	begun atomic.Int64
	let   chan struct{}
}

func (*held) Kind() authz.Kind                         { return authz.KindBearer }
func (*held) Credential(*authz.Request) (string, bool) { return "", true }
func (h *held) Authenticate(ctx context.Context, _ string, _ *authz.Policy) (*authz.Principal, error) {
	h.begun.Add(1)
	select {
	case <-h.let:
	case <-ctx.Done():
	}
	return nil, authz.Refuse(authz.ReasonTokenInvalid, "x")
}

func TestTooManyAtOnceAreShed(t *testing.T) {
	t.Parallel()
	var limit atomic.Int64
	a := &extauthz.Admission{Shed: func(why string) {
		if why == extauthz.ShedLimit {
			limit.Add(1)
		}
	}}
	slow := &held{let: make(chan struct{})}
	client := serveAdmission(t, a, extauthz.Options{MaxConcurrent: 2, Recorder: buggy{}}, slow)
	asks := func(policy string) *authv3.CheckRequest {
		return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			ContextExtensions: map[string]string{"policy": policy},
			Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/"}},
		}}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
	defer cancel()
	answered := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := client.Check(ctx, asks("p"))
			answered <- err
		}()
	}
	require.Eventually(t, func() bool { return slow.begun.Load() == 2 }, 5*time.Second, time.Millisecond)
	require.Equal(t, 2, a.Waiting())

	reply, err := client.Check(ctx, asks("p"))
	require.NoError(t, err, "an answer, and no gRPC error, though the recorder has a bug")
	requireShed(t, reply)
	require.EqualValues(t, 1, limit.Load())
	require.EqualValues(t, 2, slow.begun.Load())

	close(slow.let)
	for range 2 {
		require.NoError(t, <-answered)
	}
	require.Eventually(t, func() bool { return a.Waiting() == 0 }, 5*time.Second, time.Millisecond)
	_, err = client.Check(ctx, asks("p"))
	require.NoError(t, err)
	require.EqualValues(t, 3, slow.begun.Load(), "there is place again")
}

// What memory answers takes no place.
func TestAnswersFromMemoryTakeNoPlace(t *testing.T) {
	t.Parallel()
	a := &extauthz.Admission{}
	slow := &held{let: make(chan struct{})}
	client := serveAdmission(t, a, extauthz.Options{MaxConcurrent: 1}, slow)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = client.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/"}},
		}})
	}()
	require.Eventually(t, func() bool { return slow.begun.Load() == 1 }, 5*time.Second, time.Millisecond)
	reply, err := client.Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{"policy": "open"},
		Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/"}},
	}})
	require.NoError(t, err)
	require.NotNil(t, reply.GetOkResponse())
	cancel() // who gives up gives its place back
	<-gone
	require.Eventually(t, func() bool { return a.Waiting() == 0 }, 5*time.Second, time.Millisecond)
}

// However long a caller would wait, a check whose message doesn't come ends.
func TestNoCheckLastsForEver(t *testing.T) {
	t.Parallel()
	a := &extauthz.Admission{}
	day, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
	defer cancel()
	second, cancelSecond := context.WithTimeout(t.Context(), time.Second)
	defer cancelSecond()
	for name, tc := range map[string]struct {
		ctx  context.Context //nolint:containedctx // what the case is about
		most time.Duration
	}{
		"no deadline": {t.Context(), 2500 * time.Millisecond},
		"a day":       {day, 10 * time.Second},
		"a second":    {second, time.Second},
	} {
		ctx, err := extauthz.Arrive(a, tc.ctx, "/envoy.service.auth.v3.Authorization/Check")
		require.NoError(t, err)
		deadline, ok := ctx.Deadline()
		require.True(t, ok, name)
		require.LessOrEqual(t, time.Until(deadline), tc.most, name)
	}
	ctx, err := extauthz.Arrive(a, t.Context(), "/grpc.health.v1.Health/Watch")
	require.NoError(t, err)
	_, bounded := ctx.Deadline()
	require.False(t, bounded, "a watch lasts")
}
