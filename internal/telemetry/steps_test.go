package telemetry_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// numbers returns how often each series was counted, or observed, by the values of its
// labels.
func numbers(t *testing.T, reg *prometheus.Registry, name string) map[string]int {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	all := map[string]int{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			key := ""
			for _, l := range m.GetLabel() {
				key += l.GetValue() + " "
			}
			all[key] = int(m.GetCounter().GetValue()) + int(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// A command that nobody thought of is counted, and adds no series of its own; what was
// never sent took no time.
func TestCommandsOfTheStoreAreAClosedList(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	c := telemetry.NewStoreCalls(reg)
	c.Record("lookup", "get", "ok", true, time.Millisecond)
	c.Record("lookup", "get", "refused", false, time.Second)
	for _, made := range []string{"made", "up", "sess:id"} {
		c.Record("order", made, "ok", true, time.Millisecond)
	}
	require.Equal(t, map[string]int{"get ok lookup ": 1, "get refused lookup ": 1, "other ok order ": 3}, numbers(t, reg, "gatehouse_store_commands_total"))
	took := numbers(t, reg, "gatehouse_store_command_duration_seconds")
	require.Equal(t, 1, took["lookup "])
	require.Equal(t, 3, took["order "])
}

// Steps that are in no list are not told, and where nobody wants to know, none are.
func TestStepsAreAClosedList(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	s := telemetry.NewSteps(reg)
	s.Took(telemetry.StepSession, time.Millisecond)
	s.Took("made up", time.Millisecond)
	s.Limited("few", "allowed")
	took := numbers(t, reg, "gatehouse_decision_step_duration_seconds")
	require.Len(t, took, 6, "all of them from the beginning")
	require.Equal(t, 1, took["session "])
	require.Equal(t, map[string]int{"few allowed ": 1}, numbers(t, reg, "gatehouse_rate_limit_decisions_total"))

	var nobody *telemetry.Steps
	nobody.Took(telemetry.StepSession, time.Millisecond)
	nobody.Limited("few", "allowed")
}

// What happens seldom has its zero before it happens: Prometheus sees an increase.
func TestReuseIsCountedFromZero(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	c := telemetry.NewCalls(reg)
	require.Equal(t, map[string]int{"": 0}, numbers(t, reg, "gatehouse_refresh_reuse_detections_total"))
	require.Equal(t, 0, numbers(t, reg, "gatehouse_auth_changes_total")["revoke_all "])
	c.RecordChange("refresh_token_reused")
	c.RecordChange("logout")
	require.Equal(t, map[string]int{"": 1}, numbers(t, reg, "gatehouse_refresh_reuse_detections_total"))
	require.Equal(t, 1, numbers(t, reg, "gatehouse_auth_changes_total")["logout "])
}
