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
	const never, ms = 0, time.Millisecond
	for name, tc := range map[string]struct {
		patience, waited time.Duration
		left             bool // the caller, at last
		shed             bool
		code             codes.Code
		gone             bool // and told of, since it would have been shed
	}{
		"in time":                              {patience: time.Second, waited: 400 * ms},
		"late":                                 {patience: time.Second, waited: 600 * ms, shed: true},
		"nobody waits any more":                {patience: time.Second, waited: 1100 * ms, code: codes.DeadlineExceeded, gone: true},
		"nobody waits, by its own word":        {patience: time.Second, waited: 600 * ms, left: true, code: codes.Canceled, gone: true},
		"who left early was not kept waiting":  {patience: time.Second, waited: 400 * ms, left: true, code: codes.Canceled},
		"who tells no deadline has 2 s":        {patience: never, waited: 900 * ms},
		"which is late":                        {patience: never, waited: 1100 * ms, shed: true},
		"though the caller may still be there": {patience: never, waited: 5 * time.Second, shed: true},
		"or has left":                          {patience: never, waited: 3 * time.Second, left: true, code: codes.Canceled, gone: true},
		"who has a day has 10 s":               {patience: 24 * time.Hour, waited: 4 * time.Second},
		"late of these":                        {patience: 24 * time.Hour, waited: 6 * time.Second, shed: true},
		"and after them":                       {patience: 24 * time.Hour, waited: 11 * time.Second, shed: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			told, recorded := map[string]int{}, &recording{}
			a := &extauthz.Admission{Shed: func(why string) { told[why]++ }, Recorder: recorded}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tc.patience != never {
				ctx, cancel = context.WithTimeout(ctx, tc.patience)
				defer cancel()
			}
			arrived, err := extauthz.Arrive(a, ctx, "/envoy.service.auth.v3.Authorization/Check")
			require.NoError(t, err)
			time.Sleep(tc.waited)
			if tc.left {
				cancel()
			}
			decided, reply, err := extauthz.Turn(a, arrived)
			require.Equal(t, tc.code, status.Code(err), name)
			if !tc.shed {
				require.Nil(t, reply, name)
				if tc.gone {
					require.Equal(t, map[string]int{extauthz.ShedGone: 1}, told, name)
					require.Equal(t, []recordedDecision{{authz.ReasonOverloaded, tc.waited, nil}}, recorded.all, name)
				} else {
					require.Empty(t, told, name)
					require.Empty(t, recorded.all, name)
				}
				deadline, ok := decided.Deadline()
				require.True(t, ok, name)
				if tc.patience == never && err == nil {
					require.LessOrEqual(t, time.Until(deadline), 2500*ms-tc.waited, name)
				}
				return
			}
			var shed authv3.CheckResponse
			require.NoError(t, proto.Unmarshal(reply, &shed), name)
			requireShed(t, &shed)
			require.Equal(t, map[string]int{extauthz.ShedLate: 1}, told, name)
		})
	}
}

// recordedDecision is what a recorder was told: the end of the context, too.
type recordedDecision struct {
	reason authz.Reason
	took   time.Duration
	over   error
}

type recording struct{ all []recordedDecision }

func (r *recording) Record(ctx context.Context, _ *authz.Request, d *authz.Decision, _ error, took time.Duration) {
	r.all = append(r.all, recordedDecision{d.Reason, took, ctx.Err()})
}

// What a check takes begins with its arrival: its wait for a processor counts, where that
// is known, and by more than it is known precisely.
func TestTheWaitForAProcessorCounts(t *testing.T) {
	t.Parallel()
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: []authz.Policy{{Name: "open", Anonymous: true}, {Name: "p", Credentials: []authz.Kind{authz.KindBearer}}}, Default: "open",
	})
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		policy string
		waited time.Duration
		want   time.Duration
	}{
		"answered from memory": {"open", 450 * time.Millisecond, 450 * time.Millisecond},
		"the long way":         {"p", 450 * time.Millisecond, 450 * time.Millisecond},
		"at once":              {"open", 300 * time.Microsecond, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, recorded := &extauthz.Admission{}, &recording{}
			s := extauthz.NewServer(authz.NewAuthorizer(policies, authz.Options{}), extauthz.Options{Recorder: recorded, Admission: a})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			ctx, err := extauthz.Arrive(a, ctx, "/envoy.service.auth.v3.Authorization/Check")
			require.NoError(t, err)
			time.Sleep(tc.waited)
			request, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
				ContextExtensions: map[string]string{"policy": tc.policy},
				Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/"}},
			}})
			require.NoError(t, err)
			_, err = extauthz.Handle(a, s, ctx, request)
			require.NoError(t, err)
			require.Len(t, recorded.all, 1, name)
			require.Equal(t, tc.want, recorded.all[0].took, name)
		})
	}
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

// While the queue stands, who waited long and needs more than memory is shed; who did
// not wait, or is answered from memory, is not.
func TestAQueueThatStandsIsShed(t *testing.T) {
	t.Parallel()
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: []authz.Policy{{Name: "p", Credentials: []authz.Kind{authz.KindBearer}}, {Name: "open", Anonymous: true}}, Default: "p",
	})
	require.NoError(t, err)
	asks := func(policy string) []byte {
		request, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			ContextExtensions: map[string]string{"policy": policy},
			Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/"}},
		}})
		require.NoError(t, err)
		return request
	}
	synctest.Test(t, func(t *testing.T) {
		var shed []string
		a := &extauthz.Admission{Shed: func(why string) { shed = append(shed, why) }}
		slow := &held{let: make(chan struct{})}
		close(slow.let)
		server := extauthz.NewServer(authz.NewAuthorizer(policies, authz.Options{}, slow), extauthz.Options{Admission: a})
		check := func(policy string, waits time.Duration) *authv3.CheckResponse {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			ctx, err := extauthz.Arrive(a, ctx, authv3.Authorization_Check_FullMethodName)
			require.NoError(t, err)
			time.Sleep(waits)
			reply, err := extauthz.Handle(a, server, ctx, asks(policy))
			require.NoError(t, err)
			var answered authv3.CheckResponse
			require.NoError(t, proto.Unmarshal(reply, &answered))
			return &answered
		}
		check("p", 60*time.Millisecond)
		require.EqualValues(t, 1, slow.begun.Load(), "a burst is no queue that stands")
		extauthz.Stand(a)
		requireShed(t, check("p", 60*time.Millisecond))
		require.Equal(t, []string{extauthz.ShedQueue}, shed)
		require.EqualValues(t, 1, slow.begun.Load(), "nobody was asked")
		require.Zero(t, a.Waiting())
		require.NotNil(t, check("open", 60*time.Millisecond).GetOkResponse(), "memory answers who is in time")
		check("p", 30*time.Millisecond)
		require.EqualValues(t, 2, slow.begun.Load(), "who waited for less is answered")
		require.Len(t, shed, 1)
	})
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

// What memory answers takes no place, also where credentials are taken out.
func TestAnswersFromMemoryTakeNoPlace(t *testing.T) {
	t.Parallel()
	for _, strip := range []bool{false, true} {
		a := &extauthz.Admission{}
		slow := &held{let: make(chan struct{})}
		client := serveAdmission(t, a, extauthz.Options{MaxConcurrent: 1, StripCredentials: strip, SessionCookie: "sessionId"}, slow)
		// Who tells no deadline is shed after a second without a processor.
		waits, end := context.WithTimeout(t.Context(), time.Minute)
		defer end()
		ctx, cancel := context.WithCancel(waits)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = client.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
				Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/"}},
			}})
		}()
		require.Eventually(t, func() bool { return slow.begun.Load() == 1 }, 5*time.Second, time.Millisecond)
		reply, err := client.Check(waits, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			ContextExtensions: map[string]string{"policy": "open"},
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
				Method: "GET", Path: "/", Headers: map[string]string{"cookie": "a=1; sessionId=secret", "authorization": "Bearer x"},
			}},
		}})
		require.NoError(t, err)
		require.NotNil(t, reply.GetOkResponse())
		set := map[string]string{}
		for _, h := range reply.GetOkResponse().GetHeaders() {
			set[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
		}
		if strip {
			require.Equal(t, map[string]string{"cookie": "a=1"}, set)
		} else {
			require.Empty(t, set)
		}
		cancel() // who gives up gives its place back
		<-gone
		require.Eventually(t, func() bool { return a.Waiting() == 0 }, 5*time.Second, time.Millisecond)
	}
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
		"no deadline": {t.Context(), 4 * time.Second},
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
