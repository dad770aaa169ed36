package main

import (
	"fmt"
	"slices"
	"strings"
)

// goal is a ratio that Gatehouse must keep to, on a machine that is fully busy
// and at a fixed rate. A limit of 0 is none.
type goal struct {
	what              string
	scenario, base    string
	get               func(scenarioReport, ratios) float64
	saturated, atRate float64
}

// goals are what was set out to be reached before it was measured.
var goals = []goal{
	{"server CPU, session ÷ no-op", baseSession, baseNoop, serverRatio, 0.60, 0.75},
	{"server CPU, session ÷ no-op behind the same filter", baseSession, baseLean, serverRatio, 0, 0},
	{"server CPU, bearer token ÷ no-op", "bearer", baseNoop, serverRatio, 0.70, 0.80},
	{"server CPU, strict session ÷ no-op", "strict", baseNoop, serverRatio, 1.2, 1.2},
	{"added CPU, session ÷ no-op", baseSession, baseNoop, addedRatio, 0.80, 0.80},
	{"added CPU, session ÷ no-op behind the same filter", baseSession, baseLean, addedRatio, 0, 0},
	{"added CPU, session ÷ no-op with the same filter and reply", baseSession, baseReply, addedRatio, 0, 0},
	{"added CPU, session ÷ usual server", baseSession, baseUsual, addedRatio, 0.55, 0.55},
	{"p99, session ÷ no-op", baseSession, baseNoop, func(_ scenarioReport, r ratios) float64 { return r.P99 }, 0, 1},
	{"Redis commands per 1,000, session", baseSession, "", func(s scenarioReport, _ ratios) float64 { return s.Median.Commands }, 10, 10},
}

func serverRatio(_ scenarioReport, r ratios) float64 { return r.Server }
func addedRatio(_ scenarioReport, r ratios) float64  { return r.Added }

// manyGoals are about numbers of sessions: as many as a cache holds by default may
// cost a tenth more than the number of users.
func (r *report) manyGoals() []goal {
	const most, within = 1.1, 200_000
	var all []goal
	for _, p := range r.Parts[:min(1, len(r.Parts))] {
		for _, s := range p.Scenarios {
			if s.Sessions > 0 {
				what := fmt.Sprintf("server CPU, %s sessions ÷ %s", thousands(s.Sessions), thousands(r.Users))
				limit := most
				if s.Sessions > within {
					limit = 0
				}
				all = append(all, goal{what, s.Name, baseSession, serverRatio, limit, limit})
			}
		}
	}
	return all
}

// measured returns a goal's figure in a part; ok is false when it was not
// measured.
func (g goal) measured(p *partReport) (v float64, ok bool) {
	if p == nil {
		return 0, false
	}
	for _, s := range p.Scenarios {
		if s.Name == g.scenario {
			r, compared := s.To[g.base]
			v = g.get(s, r)
			return v, g.base == "" || compared && v > 0
		}
	}
	return 0, false
}

// writeGoals sets the first saturated load beside the first at a rate.
func (r *report) writeGoals(b *strings.Builder) {
	var saturated, atRate *partReport
	for i := range r.Parts {
		switch p := &r.Parts[i]; {
		case p.Load.Sweep:
		case p.Load.Rate == 0 && saturated == nil:
			saturated = p
		case p.Load.Rate > 0 && atRate == nil:
			atRate = p
		}
	}
	var rows []goal
	for _, g := range append(slices.Clone(goals), r.manyGoals()...) {
		_, a := g.measured(saturated)
		_, b := g.measured(atRate)
		if a || b {
			rows = append(rows, g)
		}
	}
	if len(rows) == 0 {
		return
	}
	heads := []string{"saturated", "at a rate"}
	for i, p := range []*partReport{saturated, atRate} {
		if p != nil {
			heads[i] = fmt.Sprintf("%s, %d connections", p.Load.shape(), p.Load.Connections)
		}
	}
	b.WriteString("\nGoals. What misses its limit is bold.\n\n")
	table(b, []string{"what", heads[0], "limit", heads[1], "limit"}, rows, func(g goal) []string {
		left, leftLimit := g.cell(saturated, g.saturated)
		right, rightLimit := g.cell(atRate, g.atRate)
		return []string{g.what, left, leftLimit, right, rightLimit}
	})
}

// cell shows a figure and its limit.
func (g goal) cell(p *partReport, limit float64) (figure, most string) {
	figure, most = unknown, unknown
	if limit > 0 {
		most = ratio(limit)
	}
	if v, ok := g.measured(p); ok {
		figure = fmt.Sprintf("%.2f", v)
		if limit > 0 && v > limit {
			figure = "**" + figure + "**"
		}
	}
	return figure, most
}
