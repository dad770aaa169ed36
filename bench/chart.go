package main

import (
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
	"strings"
)

// Measures of the chart, in pixels.
const (
	chartWidth  = 860
	chartLabels = 270 // where the bars begin
	chartBars   = 520 // the longest bar
	chartRow    = 24
	chartBar    = 16 // its thickness
	chartHead   = 56 // above the first panel: title and legend
	panelHead   = 30
	panelFoot   = 34 // the axis
)

// chartParts are the pieces of a bar, in their order.
var chartParts = []struct {
	class, title string
	get          func(added) float64
}{
	{"envoy", "Envoy, above no filter", func(a added) float64 { return a.Envoy }},
	{"server", "check server", func(a added) float64 { return a.Server }},
	{"redis", "Redis", func(a added) float64 { return a.Redis }},
}

// The text has no background of its own: its colours are readable on white, and
// others on black, which a viewer in dark mode chooses.
const chartStyle = `<style>
text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:16px;font-weight:600}
.panel{font-weight:600}
.minor{font-size:11px;fill:#59636e}
.line{stroke:#d1d9e0;stroke-width:1}
.envoy{fill:#8c959f}
.server{fill:#0969da}
.redis{fill:#cf222e}
@media (prefers-color-scheme:dark){
text{fill:#f0f6fc}
.minor{fill:#9198a1}
.line{stroke:#3d444d}
.envoy{fill:#6e7681}
.server{fill:#4493f8}
.redis{fill:#ff7b72}
}
</style>
`

// writeSVG draws, for every load but those of a sweep, what each scenario adds
// to a request without a filter.
func (r *report) writeSVG(w io.Writer) error {
	var b strings.Builder
	y := chartHead
	for i := range r.Parts {
		if p := &r.Parts[i]; !p.Load.Sweep && p.rounds(baseNone) != nil {
			y = p.writePanel(&b, y)
		}
	}
	if y == chartHead {
		return fmt.Errorf("there is nothing to draw: it needs the scenario %s and another one, and no -sweep", baseNone)
	}
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="t d">
<title id="t">CPU that a check adds to a request</title>
<desc id="d">Stacked bars: CPU microseconds per request of Envoy above no filter, of the check server and of Redis.</desc>
%s<text class="title" x="0" y="18">CPU that a check adds to a request, µs</text>
%s%s</svg>
`, chartWidth, y, chartWidth, y, chartStyle, legend(), b.String())
	return err
}

func legend() string {
	var b strings.Builder
	x := 0
	for _, part := range chartParts {
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="30" width="12" height="12"/><text x="%d" y="41">%s</text>`+"\n",
			part.class, x, x+18, html.EscapeString(part.title))
		const perLetter = 8
		x += 40 + perLetter*len(part.title)
	}
	return b.String()
}

// writePanel draws one load below y and returns where it ends.
func (p *partReport) writePanel(b *strings.Builder, y int) int {
	const middle = 13 // of a row, where its text stands
	most := 0.0
	var rows []scenarioReport
	for _, s := range p.Scenarios {
		if s.Name == baseNone {
			continue
		}
		rows = append(rows, s)
		most = max(most, total(s.Added))
	}
	if len(rows) == 0 {
		return y
	}
	step := axisStep(most)
	end := max(math.Ceil(most/step), 1) * step
	scale := func(v float64) float64 { return chartBars * v / end }
	shape := fmt.Sprintf("%s, %d connections", p.Load.shape(), p.Load.Connections)
	fmt.Fprintf(b, `<text class="panel" x="0" y="%d">%s</text>`+"\n", y+18, html.EscapeString(shape))
	top := y + panelHead
	bottom := top + len(rows)*chartRow
	for v := 0.0; v <= end+step/2; v += step {
		x := pixels(chartLabels + scale(v))
		fmt.Fprintf(b, `<line class="line" x1="%s" y1="%d" x2="%s" y2="%d"/><text class="minor" x="%s" y="%d" text-anchor="middle">%s</text>`+"\n",
			x, top, x, bottom, x, bottom+14, strconv.FormatFloat(v, 'g', 6, 64))
	}
	for i, s := range rows {
		line := top + i*chartRow
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, chartLabels-10, line+middle+3, html.EscapeString(s.Title))
		x := float64(chartLabels)
		for _, part := range chartParts {
			width := scale(max(part.get(s.Added), 0))
			fmt.Fprintf(b, `<rect class="%s" x="%s" y="%d" width="%s" height="%d"/>`,
				part.class, pixels(x), line+(chartRow-chartBar)/2, pixels(width), chartBar)
			x += width
		}
		fmt.Fprintf(b, `<text x="%s" y="%d">%s</text>`+"\n", pixels(x+6), line+middle+3, digits(total(s.Added)))
	}
	return bottom + panelFoot
}

// total is the length of a bar: a part that is less than nothing, by noise, is
// not drawn.
func total(a added) float64 {
	sum := 0.0
	for _, part := range chartParts {
		sum += max(part.get(a), 0)
	}
	return sum
}

// axisStep returns a round distance, so that at most eight lines reach most.
func axisStep(most float64) float64 {
	const lines = 8
	if most <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most/lines)))
	for _, step := range []float64{1, 2, 5} {
		if most <= lines*step*power {
			return step * power
		}
	}
	return 10 * power
}

func pixels(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
