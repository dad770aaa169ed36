package main

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

func TestCPUTimesNameEveryProcess(t *testing.T) {
	p := proctest.Start(t, proctest.Need(t, "sleep"), []string{"60"}, proc.Options{})
	s := &stack{processes: []namedProcess{{"sleep", p}}}
	times, err := s.cpuTimes()
	require.NoError(t, err)
	require.Contains(t, times, "sleep")
	require.Positive(t, times[generator], "this process has run tests")
	require.Greater(t, times[wholeMachine], times[generator])
}

func TestSpent(t *testing.T) {
	cores := time.Duration(runtime.NumCPU())
	before := map[string]time.Duration{"envoy": 5 * time.Second, generator: time.Second, wholeMachine: time.Hour}
	after := map[string]time.Duration{
		"envoy": 7 * time.Second, generator: 2 * time.Second,
		wholeMachine: time.Hour + 3*time.Second + cores*time.Second,
	}
	cpu, others := spent(before, after, 4*time.Second)
	require.Equal(t, map[string]time.Duration{"envoy": 2 * time.Second, generator: time.Second}, cpu)
	require.InDelta(t, 0.25, others, 1e-9, "a second of each core in four")

	after[wholeMachine] = before[wholeMachine]
	_, others = spent(before, after, 4*time.Second)
	require.Zero(t, others, "never less than nothing")
}

func TestParseMachineTime(t *testing.T) {
	got, err := parseMachineTime("cpu  100 20 3 9999 500 600 700 4 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
	require.NoError(t, err)
	require.Equal(t, 1270*time.Millisecond, got)
	for _, bad := range []string{"", "cpu0 1 1 1 1 1 1 1 1", "cpu 1 2 3", "cpu  1 x 3 4 5 6 7 8 9 10"} {
		_, err := parseMachineTime(bad)
		require.ErrorContains(t, err, "unexpected form of /proc/stat", bad)
	}
}
