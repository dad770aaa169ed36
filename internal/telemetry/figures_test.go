package telemetry_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// The figures are those that the metrics tell.
func TestFigures(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	r := telemetry.NewRecorder(slog.New(slog.DiscardHandler), reg)
	req := request(t, nil)
	decide := func(policy string, reason authz.Reason, took time.Duration) {
		var err error
		if reason != authz.ReasonAuthenticated {
			err = authz.Refuse(reason, "no")
		}
		r.Record(t.Context(), req, &authz.Decision{Policy: &authz.Policy{Name: policy}, Reason: reason}, err, took)
	}
	for range 98 {
		decide("user", authz.ReasonAuthenticated, 40*time.Microsecond)
	}
	decide("user", authz.ReasonRole, 2*time.Millisecond)
	decide("admin", authz.ReasonRole, time.Hour)

	f, err := telemetry.ReadFigures(reg)
	require.NoError(t, err)
	require.InDelta(t, 100, f.Sum(telemetry.Decisions), 0)
	require.InDelta(t, 98, f.Sum(telemetry.Decisions, "policy", "user", "decision", "allow"), 0)
	require.Equal(t, map[string]uint64{"role": 1}, f.By("reason", telemetry.Decisions, "policy", "admin", "decision", "deny"))
	require.Equal(t, map[string]uint64{"user": 99, "admin": 1}, f.By("policy", telemetry.Decisions))
	require.Empty(t, f.By("reason", telemetry.Decisions, "policy", "nobody's"))
	require.EqualValues(t, 100, f.Count(telemetry.DecisionDuration))
	require.InDelta(t, 3600, f.Sum(telemetry.DecisionDuration), 1)
	require.InDelta(t, 50e-6, f.Within(0.5, telemetry.DecisionDuration), 1e-9)
	require.InDelta(t, 2.5e-3, f.Within(0.99, telemetry.DecisionDuration), 1e-9)
	require.Zero(t, f.Within(1, telemetry.DecisionDuration), "one took longer than all bounds")
	require.Zero(t, f.Within(0.5, telemetry.StoreCommandDuration), "nothing was measured")

	broken := prometheus.NewRegistry()
	broken.MustRegister(failing{})
	_, err = telemetry.ReadFigures(broken)
	require.ErrorContains(t, err, "broken")
}

// failing is a collector with a bug.
type failing struct{}

var failingDesc = prometheus.NewDesc("failing", "Fails.", nil, nil)

func (failing) Describe(ch chan<- *prometheus.Desc) { ch <- failingDesc }
func (failing) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(failingDesc, errors.New("broken"))
}
