package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// lines collects a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// take returns how many lines there were of each message and reason, and the count
// of the last one that has one.
func (l *lines) take(t *testing.T) (seen map[string]int, count int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	seen = map[string]int{}
	for line := range strings.Lines(l.text.String()) {
		var fields struct {
			Level, Msg, Reason string
			Count              int
		}
		require.NoError(t, json.Unmarshal([]byte(line), &fields))
		seen[fields.Level+" "+fields.Msg+" "+fields.Reason]++
		count = fields.Count
	}
	l.text.Reset()
	return seen, count
}

// A log line for each request of an outage would be an overload of its own; but who
// is refused has a line always.
func TestFloodsAreLoggedByTheirNumber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &lines{}
		reg := prometheus.NewRegistry()
		r := telemetry.NewRecorder(slog.New(slog.NewJSONHandler(out, nil)), reg)
		record := func(n int, reason authz.Reason) {
			for range n {
				r.Record(context.Background(), &authz.Request{Headers: authz.HeaderMap(nil)}, &authz.Decision{Reason: reason}, authz.Refuse(reason, "x"), time.Millisecond)
			}
		}
		record(1000, authz.ReasonOverloaded)
		record(5, authz.ReasonStoreUnavailable)
		record(1000, authz.ReasonSessionForged)
		seen, _ := out.take(t)
		require.Equal(t, map[string]int{
			"WARN check overloaded": 10, "WARN check store_unavailable": 5, "INFO check session_forged": 1000,
		}, seen)

		time.Sleep(time.Second)
		synctest.Wait()
		seen, count := out.take(t)
		require.Equal(t, map[string]int{"WARN checks not logged one by one overloaded": 1}, seen)
		require.Equal(t, 990, count)

		record(3, authz.ReasonOverloaded)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		seen, _ = out.take(t)
		require.Equal(t, map[string]int{"WARN check overloaded": 3}, seen, "none was left out")

		families, err := reg.Gather()
		require.NoError(t, err)
		counted := 0.0
		for _, f := range families {
			if f.GetName() == "gatehouse_decisions_total" {
				for _, m := range f.GetMetric() {
					counted += m.GetCounter().GetValue()
				}
			}
		}
		require.InDelta(t, 2008, counted, 0, "all of them")
	})
}

// What an outage lets pass comes by the thousand; who is refused, or would be, during
// one has a line all the same.
func TestFloodsHideNoRefusal(t *testing.T) {
	t.Parallel()
	const many = 100
	stale := &authz.Principal{Degraded: authz.OutageServeStale}
	uncounted := authz.Quota{Limit: "partner", Uncounted: errors.New("no answer")}
	for name, tc := range map[string]struct {
		decision authz.Decision
		refused  bool
		lines    int
		level    string
	}{
		"let through by grace":           {authz.Decision{Principal: stale, Reason: authz.ReasonAuthenticated}, false, 10, "INFO"},
		"let through uncounted":          {authz.Decision{Quota: uncounted, Reason: authz.ReasonAuthenticated}, false, 10, "WARN"},
		"let through uncounted, unknown": {authz.Decision{Quota: uncounted, Reason: authz.ReasonAnonymous}, false, 10, "WARN"},
		"known by grace, and forbidden":  {authz.Decision{Principal: stale, Reason: authz.ReasonRole}, true, many, "INFO"},
		"known by grace, and too many":   {authz.Decision{Principal: stale, Reason: authz.ReasonRateLimited}, true, many, "INFO"},
		"known by grace, and too long":   {authz.Decision{Principal: stale, Reason: authz.ReasonIdentityTooLong}, true, many, "ERROR"},
		"known by grace, and observed": {authz.Decision{
			Principal: stale, Reason: authz.ReasonAuthenticated, Observed: authz.Refuse(authz.ReasonRole, "x"),
		}, false, many, "INFO"},
		"uncounted, and observed": {authz.Decision{
			Quota: uncounted, Reason: authz.ReasonAuthenticated, Observed: authz.Refuse(authz.ReasonRole, "x"),
		}, false, many, "WARN"},
		"observed, and unknowable": {authz.Decision{Reason: authz.ReasonAnonymous, Observed: authz.Refuse(authz.ReasonStoreUnavailable, "x")}, false, 10, "INFO"},
	} {
		synctest.Test(t, func(t *testing.T) { // all of them within a second
			out := &lines{}
			r := telemetry.NewRecorder(slog.New(slog.NewJSONHandler(out, nil)), prometheus.NewRegistry())
			var err error
			if tc.refused {
				err = authz.Refuse(tc.decision.Reason, "x")
			}
			for range many {
				r.Record(t.Context(), &authz.Request{Headers: authz.HeaderMap(nil)}, &tc.decision, err, time.Millisecond)
			}
			seen, _ := out.take(t)
			require.Equal(t, map[string]int{tc.level + " check " + string(tc.decision.Reason): tc.lines}, seen, name)
		})
	}
}

// A flood of one level leaves the lines of others alone, and none ends unsaid.
func TestFloodsAreToldApartAndToldAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &lines{}
		r := telemetry.NewRecorder(slog.New(slog.NewJSONHandler(out, nil)), prometheus.NewRegistry())
		outage := authz.Refuse(authz.ReasonStoreUnavailable, "x")
		for range 12 {
			r.Record(t.Context(), &authz.Request{Headers: authz.HeaderMap(nil)}, &authz.Decision{Reason: authz.ReasonAnonymous, Observed: outage}, nil, 0)
		}
		for range 13 {
			r.Record(t.Context(), &authz.Request{Headers: authz.HeaderMap(nil)}, &authz.Decision{Reason: authz.ReasonStoreUnavailable}, outage, 0)
		}
		seen, _ := out.take(t)
		require.Equal(t, map[string]int{"INFO check anonymous": 10, "WARN check store_unavailable": 10}, seen)

		r.Flush()
		summaries := map[string]int{
			"INFO checks not logged one by one store_unavailable": 1, "WARN checks not logged one by one store_unavailable": 1,
		}
		seen, _ = out.take(t)
		require.Equal(t, summaries, seen, "at the end of the program")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		seen, _ = out.take(t)
		require.Empty(t, seen, "and not again")
	})
}
