package recent

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

type told struct{ n int }

func (t *told) Record(context.Context, *authz.Request, *authz.Decision, error, time.Duration) { t.n++ }

// newLog returns a log whose clock stands until it is moved.
func newLog() (l *Log, r Recorder, clock *time.Time) {
	l = New()
	now := time.Unix(1_800_000_000, 0)
	l.now = func() time.Time { return now }
	return l, l.With(&told{}), &now
}

func request(t *testing.T, target string, headers authz.HeaderMap) *authz.Request {
	t.Helper()
	r, err := authz.NewRequest(authz.RequestParts{Method: "GET", Authority: "gateway.example.com:8443", Target: target, Headers: headers})
	require.NoError(t, err)
	return r
}

func policyNamed(name string) *authz.Policy { return &authz.Policy{Name: name} }

func TestARefusalIsKeptWithWhatItMeans(t *testing.T) {
	t.Parallel()
	l, r, clock := newLog()
	req := request(t, "/users/%61dmin?token=secret", authz.HeaderMap{"x-request-id": "r-1", "cookie": "sessionId=secret", "authorization": "Bearer secret"})
	d := &authz.Decision{
		Policy: policyNamed("admin"), Kind: authz.KindSession, Reason: authz.ReasonRole,
		Principal: &authz.Principal{Identity: authz.Identity{ID: "bob"}, Kind: authz.KindSession, SessionID: "secret-session-id"},
	}
	r.Record(t.Context(), req, d, authz.Refuse(authz.ReasonRole, "none of the roles"), 1500*time.Microsecond)
	list := l.Since(0)
	require.Equal(t, l.Replica(), list.Replica)
	require.Len(t, list.Decisions, 1)
	kept := list.Decisions[0]
	require.NotEmpty(t, kept.Means)
	require.NotEmpty(t, kept.Do)
	last := kept.Steps[len(kept.Steps)-1]
	require.Equal(t, authapi.DecisionStep{Stage: "condition", Name: "roles", Outcome: "refused", Detail: "role: none of the roles"}, last)
	require.NotContains(t, fmt.Sprintf("%+v", list), "secret")
	kept.Means, kept.Do, kept.Steps = "", "", nil
	require.Equal(t, authapi.Decision{
		Number: 1, Time: *clock, Denied: true, Reason: authz.ReasonRole, Detail: "role: none of the roles", Policy: "admin", Credential: authz.KindSession,
		Method: "GET", Host: "gateway.example.com:8443", Path: "/users/%61dmin", Status: 403, RequestID: "r-1",
		User: "bob", Session: authz.Handle("secret-session-id"), Took: 1500 * time.Microsecond,
	}, kept)
}

// The gate decides most requests in memory that the next one uses again.
func TestWhatIsKeptIsACopy(t *testing.T) {
	t.Parallel()
	l, r, _ := newLog()
	leave, ok := l.Listen()
	require.True(t, ok)
	defer leave()
	shared := request(t, "/first", authz.HeaderMap{})
	d := &authz.Decision{Reason: authz.ReasonAuthenticated, Principal: &authz.Principal{Identity: authz.Identity{ID: "alice"}}}
	r.Record(t.Context(), shared, d, nil, 0)
	*shared = *request(t, "/second", authz.HeaderMap{})
	d.Principal.ID = "mallory"
	kept := l.Since(0).Decisions[0]
	require.Equal(t, []string{"/first", "alice", "allow"}, []string{kept.Path, kept.User, map[bool]string{true: "deny", false: "allow"}[kept.Denied]})
	require.Empty(t, kept.Steps)
}

func allowed(t *testing.T, r Recorder) {
	t.Helper()
	r.Record(t.Context(), request(t, "/", authz.HeaderMap{}), &authz.Decision{Reason: authz.ReasonAnonymous}, nil, 0)
}

func denied(t *testing.T, r Recorder, reason authz.Reason) {
	t.Helper()
	r.Record(t.Context(), request(t, "/", authz.HeaderMap{}), &authz.Decision{Reason: reason}, authz.Refuse(reason, "no"), 0)
}

// Requests that pass are kept for who listens, and for who comes again in time.
func TestWhatPassesIsKeptWhileSomebodyListens(t *testing.T) {
	t.Parallel()
	l, r, _ := newLog()
	l.linger = time.Millisecond
	allowed(t, r)
	require.Empty(t, l.Since(0).Decisions)
	first, _ := l.Listen()
	second, _ := l.Listen()
	allowed(t, r)
	require.Len(t, l.Since(0).Decisions, 1)
	first()
	first() // once
	allowed(t, r)
	require.Len(t, l.Since(0).Decisions, 2, "there is another one")
	second()
	require.Eventually(t, func() bool { return !l.all.Load() }, time.Minute, time.Millisecond)
	allowed(t, r)
	require.Len(t, l.Since(0).Decisions, 2)

	l.linger = time.Hour
	leave, _ := l.Listen()
	leave()
	allowed(t, r)
	require.Len(t, l.Since(0).Decisions, 3, "whoever listened comes again")
	again, _ := l.Listen()
	require.Nil(t, l.forget)
	again()
}

// What a policy would refuse is kept like a refusal.
func TestObservedRefusalsAreKept(t *testing.T) {
	t.Parallel()
	l, r, _ := newLog()
	d := &authz.Decision{Reason: authz.ReasonAnonymous, Policy: policyNamed("trial"), Observed: authz.Refuse(authz.ReasonNoCredential, "nothing")}
	r.Record(t.Context(), request(t, "/", authz.HeaderMap{}), d, nil, 0)
	kept := l.Since(0).Decisions[0]
	require.False(t, kept.Denied)
	require.Equal(t, authz.ReasonNoCredential, kept.WouldDeny)
	require.Equal(t, authz.ReasonAnonymous, kept.Reason)
	require.Zero(t, kept.Status)
	require.Equal(t, "refused", kept.Steps[len(kept.Steps)-1].Outcome)
}

// A flood is counted; what is rare is kept beside it.
func TestAFloodPushesNothingOut(t *testing.T) {
	t.Parallel()
	l, r, clock := newLog()
	denied(t, r, authz.ReasonRole)
	for range 10_000 {
		denied(t, r, authz.ReasonSessionForged)
	}
	list := l.Since(0)
	require.Len(t, list.Decisions, 1+perSecond)
	require.Equal(t, authz.ReasonRole, list.Decisions[0].Reason)
	require.EqualValues(t, 10_000-perSecond, list.LeftOut)
	*clock = clock.Add(time.Second)
	denied(t, r, authz.ReasonSessionForged)
	require.Len(t, l.Since(0).Decisions, 2+perSecond)

	leave, _ := l.Listen()
	defer leave()
	for range 1000 {
		allowed(t, r)
	}
	require.Len(t, l.Since(0).Decisions, 2+2*perSecond)
	require.Equal(t, list.LeftOut, l.Since(0).LeftOut, "that many requests pass is no news")
}

// It would, with what is kept in a second alone: in ten seconds all places are taken.
func TestALongFloodPushesNothingOut(t *testing.T) {
	t.Parallel()
	l, r, clock := newLog()
	denied(t, r, authz.ReasonRole)
	for range 60 {
		for range perSecond {
			denied(t, r, authz.ReasonSessionForged)
		}
		*clock = clock.Add(time.Second)
	}
	denied(t, r, authz.ReasonRole)
	all := l.Since(0).Decisions
	require.Len(t, all, keepDenied)
	require.Equal(t, authz.ReasonRole, all[0].Reason)
	require.EqualValues(t, 1, all[0].Number)
	require.Equal(t, authz.ReasonRole, all[keepDenied-1].Reason)
	require.EqualValues(t, 60*perSecond+2-(keepDenied-1), all[1].Number-1, "of the flood the last ones")
}

func TestTheLastOnesAreKeptInTheirOrder(t *testing.T) {
	t.Parallel()
	l, r, clock := newLog()
	leave, _ := l.Listen()
	defer leave()
	for i := range 2*keepDenied + 7 {
		denied(t, r, authz.ReasonRole)
		if i%3 == 0 {
			allowed(t, r)
		}
		*clock = clock.Add(time.Second)
	}
	all := l.Since(0).Decisions
	require.Len(t, all, keepDenied+keepAllowed)
	for i := 1; i < len(all); i++ {
		require.Greater(t, all[i].Number, all[i-1].Number)
	}
	newest := all[len(all)-1].Number
	require.Empty(t, l.Since(newest).Decisions)
	require.Empty(t, l.Since(newest+1000).Decisions)
	require.Equal(t, all[len(all)-5:], l.Since(newest-5).Decisions)
}

func TestListenersAreBoundedAndSentAway(t *testing.T) {
	t.Parallel()
	l, _, _ := newLog()
	var leave func()
	for range mostListeners {
		var ok bool
		leave, ok = l.Listen()
		require.True(t, ok)
	}
	_, ok := l.Listen()
	require.False(t, ok)
	leave()
	_, ok = l.Listen()
	require.True(t, ok)
	l.Close()
	l.Close()
	<-l.Done()
	leave()
	_, ok = l.Listen()
	require.False(t, ok)
}

// What the log hides isn't to be read here either.
func TestWhatTheLogHidesIsNotKept(t *testing.T) {
	t.Parallel()
	const (
		jwt    = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
		cookie = "s%3Aabcdefghijklmnop.c2lnbmF0dXJl"
	)
	for name, want := range map[string]struct {
		authority, target, id, detail string
		kept                          []string
	}{
		"a password in the host":   {authority: "alice:hunter2@gateway", target: "/a", kept: []string{"[secret]@gateway", "/a"}},
		"a token in the path":      {authority: "gateway", target: "/confirm/" + jwt, kept: []string{"gateway", "/confirm/[secret]"}},
		"a cookie in the path":     {authority: "gateway", target: "/a/" + cookie, kept: []string{"gateway", "/a/[secret]"}},
		"a password in the target": {authority: "gateway", target: "http://alice:hunter2@gateway/a", kept: []string{"gateway", "http://[secret]gateway/a"}},
		"a token for an id":        {authority: "gateway", target: "/a", id: jwt, kept: []string{"gateway", "/a"}},
		"a token in the error":     {authority: "gateway", target: "/a", detail: "what is " + jwt, kept: []string{"gateway", "/a"}},
	} {
		l, r, _ := newLog()
		req := &authz.Request{Method: "GET", Authority: want.authority, RawPath: want.target, Headers: authz.HeaderMap{"x-request-id": want.id}}
		r.Record(t.Context(), req, &authz.Decision{}, authz.Refuse(authz.ReasonRole, "%s", want.detail), 0)
		list := l.Since(0)
		require.Equal(t, want.kept, []string{list.Decisions[0].Host, list.Decisions[0].Path}, name)
		for _, secret := range []string{"hunter2", jwt, cookie} {
			require.NotContains(t, fmt.Sprintf("%+v", list), secret, name)
		}
	}
}

func TestLongTextsAreCut(t *testing.T) {
	t.Parallel()
	l, r, _ := newLog()
	long := "/" + strings.Repeat("é", 4000)
	req := &authz.Request{Method: "GET", RawPath: long, Authority: long, Headers: authz.HeaderMap{"x-request-id": long}}
	r.Record(t.Context(), req, &authz.Decision{}, authz.Refuse(authz.ReasonBadPath, "%s", long), 0)
	r.Record(t.Context(), &authz.Request{Headers: authz.HeaderMap(nil)}, &authz.Decision{}, authz.Refuse(authz.ReasonOverloaded, "x"), 0)
	kept := l.Since(0).Decisions[0]
	for _, text := range []string{kept.Path, kept.Host, kept.RequestID, kept.Detail} {
		require.LessOrEqual(t, len(text), longest+3)
		require.True(t, strings.HasSuffix(text, "é…"), text)
	}
}

// A request that passes, and that nobody listens to, costs the gate nothing.
func TestWhatNobodyListensToMakesNoGarbage(t *testing.T) {
	l, r, _ := newLog()
	req := request(t, "/", authz.HeaderMap{"x-request-id": "r-1"})
	d := &authz.Decision{Reason: authz.ReasonAnonymous}
	require.Zero(t, testing.AllocsPerRun(100, func() { r.Record(t.Context(), req, d, nil, 0) }))
	require.Empty(t, l.Since(0).Decisions)
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	l := New()
	r := l.With(discard{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 300 {
				denied(t, r, authz.ReasonRole)
				allowed(t, r)
				if leave, ok := l.Listen(); ok {
					l.Since(3)
					leave()
				}
			}
		})
	}
	all.Wait()
	require.NotEmpty(t, l.Since(0).Decisions)
}

type discard struct{}

func (discard) Record(context.Context, *authz.Request, *authz.Decision, error, time.Duration) {}
