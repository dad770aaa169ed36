package main

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sample is a run of two rounds; the second was on a slower machine.
func sample() *report {
	window := func(p50, p99, envoy, check float64) figures {
		return figures{
			Requests: 1000, PerSecond: 1000 / p50, P50: p50, P99: p99, Others: 0.03,
			CPU: map[string]float64{"envoy": envoy, "server": check, "redis": 0, generator: 10},
		}
	}
	r := &report{
		Started: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC),
		Machine: machine{CPU: "Abacus 3000", Cores: 2, Kernel: "6.1", LoadAvg: "0.01", Go: "1.26.0", Envoy: "1.40.0", Redis: "7.0.15"},
		Users:   1000,
		Rounds:  2,
		Parts: []partReport{{
			Load: loadReport{Connections: 32, Seconds: 4},
			Scenarios: []scenarioReport{
				{Name: baseNone, Title: "no filter", Status: 200, Rounds: []figures{window(1, 2, 20, 0), window(2, 4, 40, 0)}},
				{Name: baseNoop, Title: "no-op server", Status: 200, Rounds: []figures{window(3, 8, 60, 20), window(6, 20, 120, 40)}},
				{Name: "session", Title: "Gatehouse", Status: 200, Rounds: []figures{window(2, 6, 40, 11), window(4, 10, 90, 20)}},
			},
		}},
		Memory: []memoryReport{{Process: "gatehouse", Sessions: 200000, RSS: 123456789, Entries: 200000, Bytes: 57e6, Coherent: true}},
	}
	r.summarize()
	return r
}

func TestMarkdown(t *testing.T) {
	var got bytes.Buffer
	require.NoError(t, sample().writeMarkdown(&got))
	require.Equal(t, `Machine: 2 cores (Abacus 3000), kernel 6.1, load average before the run 0.01. Go 1.26.0, Envoy 1.40.0 (one worker), Redis 7.0.15, Gatehouse unknown.

Goals. What misses its limit is bold.

| what                              | closed loop, 32 connections | limit | at a rate | limit |
|-----------------------------------|----------------------------:|------:|----------:|------:|
| server CPU, session ÷ no-op       |                        0.53 |  0.60 |         – |  0.75 |
| added CPU, session ÷ no-op        |                        0.55 |  0.80 |         – |  0.80 |
| p99, session ÷ no-op              |                        0.62 |     – |         – |  1.00 |
| Redis commands per 1,000, session |                        0.00 | 10.00 |         – | 10.00 |

Load: closed loop over 32 connections, 1000 users; 2 rounds of at most 4 s per scenario.

Ratios: how many times as much as without a filter, as with a no-op server, and as with the usual server. Added is the CPU of all processes, less that of no filter.

| scenario     | CPU ÷ no filter | server CPU ÷ no-op | added CPU ÷ no-op | added CPU ÷ usual | p50 ÷ no-op | p99 ÷ no-op | p99 ÷ usual |
|--------------|----------------:|-------------------:|------------------:|------------------:|------------:|------------:|------------:|
| no filter    |            1.00 |                  – |                 – |                 – |        0.33 |        0.23 |           – |
| no-op server |            4.00 |               1.00 |              1.00 |                 – |        1.00 |        1.00 |           – |
| Gatehouse    |            2.65 |               0.53 |              0.55 |                 – |        0.67 |        0.62 |           – |

Figures: latency in ms; CPU in ms per 1,000 requests, in all and by process, the load generator's on top; commands that Redis executed per 1,000 requests.

| scenario     | requests/s |  p50 |  p99 |  CPU | Envoy | check server | Redis | (generator) | Redis commands |
|--------------|-----------:|-----:|-----:|-----:|------:|-------------:|------:|------------:|---------------:|
| no filter    |        750 | 1.50 | 3.00 | 30.0 |  30.0 |            0 |     0 |        10.0 |              0 |
| no-op server |        250 | 4.50 | 14.0 |  120 |  90.0 |         30.0 |     0 |        10.0 |              0 |
| Gatehouse    |        375 | 3.00 | 8.00 | 80.5 |  65.0 |         15.5 |     0 |        10.0 |              0 |

Largest difference between two rounds of one scenario: p50 67 %, p99 86 %, CPU 73 %.
Other processes took 3 % of the machine meanwhile.

Memory of Gatehouse after the last window.

| process   | sessions shown | resident, MB | cache entries | cache, MB | bytes per entry | bytes per session shown | coherent |
|-----------|---------------:|-------------:|--------------:|----------:|----------------:|------------------------:|---------:|
| gatehouse |        200,000 |          123 |       200,000 |      57.0 |             285 |                     285 |      yes |
`, got.String())
}

func TestMarkdownSaysWhoDidNotKeepUp(t *testing.T) {
	r := sample()
	r.Parts[0].Load.Rate, r.Parts[0].Load.Requests = 500, 1000
	var got bytes.Buffer
	require.NoError(t, r.writeMarkdown(&got))
	require.Contains(t, got.String(), "Load: 500 requests/s over 32 connections, 1000 users; 2 rounds of at most 1000 requests and 4 s per scenario.")
	require.Contains(t, got.String(), "\nno-op server did not keep up with 500 requests/s")
	require.NotContains(t, got.String(), "no filter did not keep up")
}

func TestMarkdownSaysThatTheMachineWasNotQuiet(t *testing.T) {
	const warning = "The machine was not quiet"
	var got bytes.Buffer
	r := sample()
	require.NoError(t, r.writeMarkdown(&got))
	require.NotContains(t, got.String(), warning)
	r.Parts[0].Scenarios[1].Rounds[0].Others = 0.5
	require.NoError(t, r.writeMarkdown(&got))
	require.Contains(t, got.String(), "Other processes took 11 % of the machine meanwhile.\n\n**"+warning)
}

func TestRatiosNeedTheirBase(t *testing.T) {
	r := sample()
	r.Parts[0].Scenarios = r.Parts[0].Scenarios[1:]
	r.summarize()
	require.NotContains(t, r.Parts[0].Scenarios[0].To, baseNone)
	var got bytes.Buffer
	require.NoError(t, r.writeMarkdown(&got))
	require.Contains(t, got.String(), "| no-op server |               – |               1.00 |                 – |                 – |        1.00 |")
}

// A window too short for the kernel's clock has no CPU time: its ratios are
// unknown, not infinite, which JSON could not hold.
func TestRatioToNothingIsUnknown(t *testing.T) {
	r := sample()
	for i := range r.Parts[0].Scenarios[0].Rounds {
		r.Parts[0].Scenarios[0].Rounds[i].CPU = map[string]float64{"envoy": 0, generator: 10}
	}
	r.summarize()
	require.Equal(t, ratios{P50: 3, P99: 4.5}, r.Parts[0].Scenarios[1].To[baseNone])
	var got bytes.Buffer
	require.NoError(t, r.writeJSON(&got))
}

func TestJSONHoldsEveryRound(t *testing.T) {
	var text bytes.Buffer
	require.NoError(t, sample().writeJSON(&text))
	var got report
	require.NoError(t, json.Unmarshal(text.Bytes(), &got))
	require.Equal(t, *sample(), got)
	require.Contains(t, text.String(), `"cpu_ms_per_1000": {`)
}

func TestNewFigures(t *testing.T) {
	o := outcome{Elapsed: 2 * time.Second}
	for i := range 1000 {
		o.Latencies = append(o.Latencies, time.Duration(i+1)*10*time.Microsecond)
	}
	got := newFigures(o, map[string]time.Duration{"envoy": 80 * time.Millisecond, generator: 10 * time.Millisecond})
	require.Equal(t, figures{
		Requests: 1000, PerSecond: 500, P50: 5, P99: 9.9, Max: 10,
		CPU: map[string]float64{"envoy": 80, generator: 10},
	}, got)
	require.InDelta(t, 80, got.cpu(), 0, "the generator is not what is measured")
	require.False(t, math.IsNaN(newFigures(outcome{}, map[string]time.Duration{"envoy": 0}).cpu()))
}

func TestMedian(t *testing.T) {
	require.Zero(t, median(nil))
	require.InDelta(t, 3, median([]float64{9, 1, 3}), 0)
	require.InDelta(t, 4, median([]float64{5, 9, 1, 3}), 0)
}

func TestDigits(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0004: "0", 0.1234: "0.123", 0.9996: "1.00", 4.5678: "4.57", 9.996: "10.0", 45.67: "45.7", 99.96: "100", 1234.5: "1234",
	} {
		require.Equal(t, want, digits(v), "%v", v)
	}
}

func TestChooseScenarios(t *testing.T) {
	all, err := chooseScenarios("")
	require.NoError(t, err)
	require.Len(t, all, len(scenarios))
	some, err := chooseScenarios("session,none")
	require.NoError(t, err)
	require.Equal(t, []string{"none", "session"}, []string{some[0].name, some[1].name}, "in the order of the table")
	_, err = chooseScenarios("none,sesion")
	require.ErrorContains(t, err, `there is no "sesion"; there are none,jwt_authn,`)
}

func TestArgumentsAreChecked(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"-rounds 0", "must be more than 0"},
		{"-requests -1", "must not be negative"},
		{"-users 1000001", "-users: expected different whole numbers from 1 to 1000000, separated by commas, not \"1000001\""},
		{"-connections 1,8,1", "-connections: expected different"},
		{"-writes 0", "-writes and -tries must be more than 0"},
		{"-all -sweep", "-all is -sweep and -freshness, too"},
		{"-duration 0s", "must be more than 0"},
		{"-rate -1", "-rate: expected different whole numbers from 0 to 1000000"},
		{"-scenarios x", `there is no "x"`},
		{"quick", `there is no argument "quick"`},
		{"-fast", "flag provided but not defined: -fast"},
	} {
		var stderr bytes.Buffer
		err := run(t.Context(), strings.Fields(tc.args), &bytes.Buffer{}, &stderr)
		require.ErrorIs(t, err, errUsage, tc.args)
		require.Contains(t, stderr.String(), tc.want)
		require.Contains(t, stderr.String(), "usage: go run ./bench")
	}
}

// Many connections are one table of many rows, beside the others.
func TestMarkdownOfASweep(t *testing.T) {
	r := sample()
	more := r.Parts[0]
	more.Load.Connections = 256
	r.Parts = append(r.Parts, more)
	for i := range r.Parts {
		r.Parts[i].Load.Sweep = true
	}
	r.Memory = nil
	var got bytes.Buffer
	require.NoError(t, r.writeMarkdown(&got))
	require.NotContains(t, got.String(), "Load: ")
	require.Contains(t, got.String(), `
| scenario     | connections |        load | requests/s |  p50 |  p99 |  CPU | check server | server CPU ÷ no-op | added CPU ÷ no-op | added CPU ÷ usual | p99 ÷ no-op |
|--------------|------------:|------------:|-----------:|-----:|-----:|-----:|-------------:|-------------------:|------------------:|------------------:|------------:|
| no filter    |          32 | closed loop |        750 | 1.50 | 3.00 | 30.0 |            0 |                  – |                 – |                 – |        0.23 |
`)
	require.Contains(t, got.String(), "\n| Gatehouse    |         256 | closed loop |")
}

func TestSweepIsTheDefaultOfItsLists(t *testing.T) {
	o, err := parseOptions([]string{"-sweep"}, io.Discard)
	require.NoError(t, err)
	require.Len(t, o.parts, 5)
	require.Equal(t, 256, o.parts[4].load.Connections)
	require.Equal(t, []string{baseNone, baseNoop, baseUsual, "session"}, namesOf(o.parts[4].scenarios))
	o, err = parseOptions(strings.Fields("-sweep -connections 4 -rate 0,1000 -scenarios none -users 1000,200000"), io.Discard)
	require.NoError(t, err)
	require.Len(t, o.parts, 2)
	require.Equal(t, []string{baseNone, "session_200000"}, namesOf(o.scenarios))
	require.Equal(t, 200000, o.sessions)
	require.InDelta(t, 1000, o.parts[1].load.Rate, 0)
}

func namesOf(scenarios []scenario) []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

func TestMarkdownOfFreshness(t *testing.T) {
	r := sample()
	r.Parts, r.Memory = nil, nil
	r.Freshness = &freshnessReport{
		Wait: 25,
		Runs: []freshnessRun{
			{Condition: "idle", Writes: 10000, Honoured: 9999, Waited: 26.1, Kinds: []distribution{{Write: "DEL", Tries: 100, Old: 2, P99: 0.3, Max: 0.41}}},
		},
		Frozen: frozenReport{Within: 1500, Honoured: 200, distribution: distribution{Write: "frozen", Tries: 200, Old: 200, P50: 660, P99: 900, Max: 1000}},
		Expiry: expiryReport{Tries: 200, Grace: 50, Refused: 199, Outlived: 61},
	}
	var got bytes.Buffer
	require.NoError(t, r.writeMarkdown(&got))
	_, text, _ := strings.Cut(got.String(), "Freshness: ")
	require.Equal(t, `writes by another client, whose old answer is in the cache, and a request through Envoy 25 ms after the acknowledgement.

| condition |                  honoured | longest wait, ms | old answers after new ones |
|-----------|--------------------------:|-----------------:|---------------------------:|
| idle      | 9,999 of 10,000 (99.99 %) |             26.1 |                          0 |

Time from the acknowledgement to the sending of the first request that gets the new answer, in ms, one request after the other.

| write  | condition | tries | first one got the old answer | p50 |   p99 |   max |
|--------|----------:|------:|-----------------------------:|----:|------:|------:|
| DEL    |      idle |   100 |                            2 |   0 | 0.300 | 0.410 |
| frozen |      idle |   200 |                          200 | 660 |   900 |  1000 |

With the announcements frozen: 200 of 200 (100.00 %) honoured within 1500 ms.
Sessions that end: 199 of 200 (99.50 %) refused not later than 50 ms after their time to live; the longest was let in 61.0 ms after it.
`, text)
}

func TestAllIsEverything(t *testing.T) {
	o, err := parseOptions([]string{"-all", "-quick"}, io.Discard)
	require.NoError(t, err)
	require.Len(t, o.parts, 2+5, "saturated, at a rate, and a sweep")
	require.Len(t, o.parts[0].scenarios, len(scenarios)+2)
	require.False(t, o.parts[1].sweep)
	require.Len(t, o.parts[6].scenarios, 4)
	require.NotNil(t, o.freshness)
	require.Equal(t, 1_000_000, o.sessions)

	o, err = parseOptions(strings.Fields("-freshness -connections 8"), io.Discard)
	require.NoError(t, err)
	require.Empty(t, o.parts)
	require.Equal(t, 8, o.freshness.load.Connections)
	require.Equal(t, 10_000, o.freshness.writes)
}
