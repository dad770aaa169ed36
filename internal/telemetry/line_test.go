package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

func request(t *testing.T, headers authz.HeaderMap) *authz.Request {
	t.Helper()
	r, err := authz.NewRequest(authz.RequestParts{Method: "GET", Authority: "a.example", Target: "/orders", Headers: headers})
	require.NoError(t, err)
	return r
}

func recorder() (*telemetry.Recorder, *bytes.Buffer) {
	out := &bytes.Buffer{}
	return telemetry.NewRecorder(slog.New(slog.NewJSONHandler(out, nil)), prometheus.NewRegistry()), out
}

// A line leads to the session that it is about, whether it was refused for what the
// user may not do or for what has become of the session.
func TestLinesLeadToTheSession(t *testing.T) {
	t.Parallel()
	const id = "an-id-that-nobody-must-see"
	for _, test := range []struct {
		name string
		d    authz.Decision
		err  error
		want []any // user and session
	}{
		{"role", authz.Decision{Principal: &authz.Principal{Identity: authz.Identity{ID: "alice"}, SessionID: id}}, authz.Refuse(authz.ReasonRole, "none"), []any{"alice", authz.Handle(id)}},
		{"token", authz.Decision{Principal: &authz.Principal{Identity: authz.Identity{ID: "bob"}, Claims: map[string]any{"sid": id}}}, authz.Refuse(authz.ReasonRole, "none"), []any{"bob", authz.Handle(id)}},
		{"key", authz.Decision{Principal: &authz.Principal{Identity: authz.Identity{ID: "service:x"}}}, authz.Refuse(authz.ReasonRole, "none"), []any{"service:x", nil}},
		{"nobody", authz.Decision{}, authz.Refuse(authz.ReasonNoCredential, "none"), []any{nil, nil}},
	} {
		r, out := recorder()
		test.d.Reason = authz.ReasonOf(test.err)
		r.Record(t.Context(), request(t, nil), &test.d, test.err, time.Millisecond)
		var line map[string]any
		require.NoError(t, json.Unmarshal(out.Bytes(), &line), test.name)
		require.Equal(t, test.want, []any{line["user"], line["session"]}, test.name)
		require.NotContains(t, out.String(), id)
	}
}

// The sample is the one that Envoy's runtime filter takes.
func TestSampledAllows(t *testing.T) {
	t.Parallel()
	allowed := &authz.Decision{Reason: authz.ReasonAuthenticated, Kind: authz.KindSession, Principal: &authz.Principal{Identity: authz.Identity{ID: "alice"}, SessionID: "x"}}
	lines := func(share float64, id string) (n int) {
		r, out := recorder()
		r.SetSample(share)
		r.Record(t.Context(), request(t, authz.HeaderMap{"x-request-id": id}), allowed, nil, time.Millisecond)
		if out.Len() > 0 {
			require.Contains(t, out.String(), `"level":"INFO"`)
			require.Contains(t, out.String(), `"sampled":true`)
			require.Contains(t, out.String(), `"session":"`+authz.Handle("x")+`"`)
		}
		return bytes.Count(out.Bytes(), []byte("\n"))
	}
	// 0x000f423f is 999,999, and 0x000f4240 begins anew.
	for _, test := range []struct {
		share float64
		id    string
		want  int
	}{
		{0, "00000000-0000-4000-8000-000000000000", 0},
		{1, "000f423f-0000-4000-8000-000000000000", 1},
		{0.999999, "000f423f-0000-4000-8000-000000000000", 0},
		{0.000001, "000f4240-0000-4000-8000-000000000000", 1},
		{0.000001, "00000001-0000-4000-8000-000000000000", 0},
		{0.1, "0001869F-0000-4000-8000-000000000000", 1},
		{0.1, "000186a0-0000-4000-8000-000000000000", 0},
		{1, "", 1},
		{1, "mine", 1},
		{-1, "mine", 0},
		{2, "mine", 1},
	} {
		require.Equal(t, test.want, lines(test.share, test.id), "%v of %s", test.share, test.id)
	}
	// Ids of others are spread as evenly, and always the same ones.
	n := 0
	for i := range 2000 {
		id := fmt.Sprintf("request-%d", i)
		first := lines(0.5, id)
		require.Equal(t, first, lines(0.5, id))
		n += first
	}
	require.InDelta(t, 1000, n, 150)

	r, out := recorder()
	r.SetSample(1)
	r.Record(t.Context(), request(t, nil), &authz.Decision{Reason: authz.ReasonRole}, authz.Refuse(authz.ReasonRole, "none"), 0)
	require.NotContains(t, out.String(), "sampled", "a refusal has its line anyway")
}

// What is not sampled costs nothing.
func TestSamplingAllocatesNothing(t *testing.T) {
	r, out := recorder()
	r.SetSample(0.000001)
	req := request(t, authz.HeaderMap{"x-request-id": "00000001-0000-4000-8000-000000000000"})
	d := &authz.Decision{Reason: authz.ReasonAnonymous}
	r.Record(t.Context(), req, d, nil, time.Millisecond)
	require.Zero(t, testing.AllocsPerRun(100, func() { r.Record(t.Context(), req, d, nil, time.Millisecond) }))
	require.Zero(t, out.Len())
}

// Of a session that was refused for itself, the line tells whose it was.
func TestLinesOfARefusedSession(t *testing.T) {
	t.Parallel()
	r, out := recorder()
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{Policies: []authz.Policy{{Name: "p", Credentials: []authz.Kind{authz.KindSession}}}, Default: "p"})
	require.NoError(t, err)
	a := authz.NewAuthorizer(policies, authz.Options{}, authz.NewSessions("sessionId", plainCookies{}, oneSession{}))
	req := request(t, authz.HeaderMap{"cookie": "sessionId=an-id-of-alice"})
	d, err := a.Authorize(t.Context(), req)
	require.Error(t, err)
	r.Record(t.Context(), req, d, err, time.Millisecond)
	require.Contains(t, out.String(), `"reason":"session_revoked"`)
	require.Contains(t, out.String(), `"user":"alice","session":"`+authz.Handle("an-id-of-alice")+`"`)
	require.NotContains(t, out.String(), "an-id-of-alice")
}

type plainCookies struct{}

func (plainCookies) Verify(value string) (id string, ok bool) { return value, true }

type oneSession struct{}

func (oneSession) Session(context.Context, string, authz.ReadOptions) (*authz.Session, error) {
	return &authz.Session{Identity: authz.Identity{ID: "alice"}, Standing: authz.Standing{Revoked: true}}, nil
}

// Who goes away early makes no outage of it: no decision, and no warning. Who was kept
// waiting for most of the time does.
func TestWhoGoesAwayEarlyIsNoOutage(t *testing.T) {
	t.Parallel()
	gone, leave := context.WithTimeout(t.Context(), time.Hour)
	leave()
	goneLate, leave := context.WithCancel(deadlined{t.Context()})
	leave()
	late, end := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer end()
	outage := func() error { return authz.Refuse(authz.ReasonStoreUnavailable, "read session: %w", context.Canceled) }
	alice := &authz.Principal{Identity: authz.Identity{ID: "alice"}}
	degraded := &authz.Principal{Identity: authz.Identity{ID: "alice"}, Degraded: authz.OutageServeStale}
	for name, tc := range map[string]struct {
		ctx      context.Context //nolint:containedctx // of a call
		d        authz.Decision
		err      error
		canceled bool
	}{
		"the store was waited for":        {gone, authz.Decision{Reason: authz.ReasonStoreUnavailable}, outage(), true},
		"too many wait":                   {gone, authz.Decision{Reason: authz.ReasonOverloaded}, authz.Refuse(authz.ReasonOverloaded, "x"), true},
		"under a policy that observes":    {gone, authz.Decision{Reason: authz.ReasonAnonymous, Observed: outage()}, nil, true},
		"let in without the store":        {gone, authz.Decision{Reason: authz.ReasonAuthenticated, Principal: degraded}, nil, true},
		"let pass uncounted":              {gone, authz.Decision{Reason: authz.ReasonAuthenticated, Principal: alice, Quota: authz.Quota{Limit: "l", Uncounted: outage()}}, nil, true},
		"its time was over":               {late, authz.Decision{Reason: authz.ReasonStoreUnavailable}, outage(), false},
		"the gateway ended it at its end": {goneLate, authz.Decision{Reason: authz.ReasonStoreUnavailable}, outage(), false},
		"it is still there":               {t.Context(), authz.Decision{Reason: authz.ReasonOverloaded}, authz.Refuse(authz.ReasonOverloaded, "x"), false},
		"it was refused before it left":   {gone, authz.Decision{Reason: authz.ReasonRole, Principal: alice}, authz.Refuse(authz.ReasonRole, "x"), false},
		"it was allowed before it left":   {gone, authz.Decision{Reason: authz.ReasonAuthenticated, Principal: alice}, nil, false},
		"a bug is a bug":                  {gone, authz.Decision{Reason: authz.ReasonInternal}, authz.Refuse(authz.ReasonInternal, "x"), false},
	} {
		reg, out := prometheus.NewRegistry(), &bytes.Buffer{}
		r := telemetry.NewRecorder(slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})), reg)
		r.Record(tc.ctx, request(t, nil), &tc.d, tc.err, time.Millisecond)
		told := map[string]float64{}
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				told[f.GetName()] += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		decided := map[bool]float64{true: 0, false: 1}[tc.canceled]
		require.InDelta(t, decided, told["gatehouse_decisions_total"], 0, name)
		require.InDelta(t, decided, told["gatehouse_decision_duration_seconds"], 0, name)
		require.InDelta(t, 1-decided, told["gatehouse_checks_canceled_total"], 0, name)
		if tc.canceled {
			require.Contains(t, out.String(), `"level":"DEBUG"`, name)
			require.Contains(t, out.String(), `"canceled":true`, name)
			require.Zero(t, told["gatehouse_observed_denials_total"]+told["gatehouse_degraded_decisions_total"]+told["gatehouse_rate_limit_uncounted_total"], name)
		} else {
			require.NotContains(t, out.String(), `"canceled":`, name)
		}
	}
}

// deadlined is a context whose deadline is over, and which nobody has ended for it.
type deadlined struct{ context.Context } //nolint:containedctx // it is one

func (deadlined) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }
