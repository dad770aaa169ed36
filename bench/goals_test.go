package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGoalsStandSideBySide(t *testing.T) {
	r := sample()
	r.Parts[0].Scenarios[2].Median.Commands = 3
	slow := sample().Parts[0]
	slow.Load.Rate = 1000
	for i := range slow.Scenarios[2].Rounds {
		slow.Scenarios[2].Rounds[i].CPU["server"] = 40
	}
	swept := sample().Parts[0]
	swept.Load.Sweep = true
	r.Parts = []partReport{swept, r.Parts[0], slow}
	r.Parts[2].summarize()
	var b strings.Builder
	r.writeGoals(&b)
	require.Equal(t, `
Goals. What misses its limit is bold.

| what                              | closed loop, 32 connections | limit | 1000 requests/s, 32 connections | limit |
|-----------------------------------|----------------------------:|------:|--------------------------------:|------:|
| server CPU, session ÷ no-op       |                        0.53 |  0.60 |                        **1.50** |  0.75 |
| added CPU, session ÷ no-op        |                        0.55 |  0.80 |                        **0.88** |  0.80 |
| p99, session ÷ no-op              |                        0.62 |     – |                            0.62 |  1.00 |
| Redis commands per 1,000, session |                        3.00 | 10.00 |                            0.00 | 10.00 |
`, b.String())

	b.Reset()
	(&report{Parts: []partReport{swept}}).writeGoals(&b)
	require.Empty(t, b.String(), "a sweep has no goals")
}

func TestManySessionsMayCostATenthMore(t *testing.T) {
	r := sample()
	many := r.Parts[0].Scenarios[2]
	many.Name, many.Sessions = manyName(200_000), 200_000
	r.Parts[0].Scenarios = append(r.Parts[0].Scenarios, many)
	r.summarize()
	var b strings.Builder
	r.writeGoals(&b)
	require.Contains(t, b.String(), "| server CPU, 200,000 sessions ÷ 1,000 |                        1.00 |  1.10 |")
}
