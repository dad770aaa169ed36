package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// report is the result of a run, as -json writes it.
type report struct {
	Started   time.Time        `json:"started"`
	Machine   machine          `json:"machine"`
	Load      loadReport       `json:"load"`
	Rounds    int              `json:"rounds"`
	Seed      uint64           `json:"seed"` // of the order of the scenarios
	Scenarios []scenarioReport `json:"scenarios"`
}

// loadReport is the load of each window.
type loadReport struct {
	Connections int     `json:"connections"`
	Rate        float64 `json:"rate"`     // requests per second; 0: closed loop
	Requests    int     `json:"requests"` // bounds of a window; 0: none
	Seconds     float64 `json:"seconds"`
	Users       int     `json:"users"`
}

// scenarioReport is one row.
type scenarioReport struct {
	Name   string    `json:"name"`
	Title  string    `json:"title"`
	Status int       `json:"status"` // of every answer
	Rounds []figures `json:"rounds"`
	// Median has each figure's median over the rounds.
	Median figures `json:"median"`
	// To has, for each base that ran, the median over the rounds of this
	// scenario's figures divided by the base's in the same round.
	To map[string]ratios `json:"to"`
}

// figures are what one window showed.
type figures struct {
	Requests  int     `json:"requests"`
	PerSecond float64 `json:"requests_per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
	// CPU is in milliseconds per 1,000 requests (microseconds per request), by
	// process: user and system time of all its threads. It is known in steps
	// of 10 ms per window.
	CPU map[string]float64 `json:"cpu_ms_per_1000"`
	// Others is the share of the machine's processor time, 0 to 1, that other
	// processes took meanwhile.
	Others float64 `json:"others"`
}

// ratios compare two scenarios. A ratio that is not known is 0: a window was
// too short for its CPU time to be seen.
type ratios struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	CPU float64 `json:"cpu"` // of all processes together, see figures.cpu
}

// newFigures turns a window and the CPU times that it took into figures.
func newFigures(o outcome, cpu map[string]time.Duration) figures {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	f := figures{
		Requests:  len(o.Latencies),
		PerSecond: o.perSecond(),
		P50:       ms(o.percentile(0.50)),
		P99:       ms(o.percentile(0.99)),
		Max:       ms(o.percentile(1)),
		CPU:       make(map[string]float64, len(cpu)),
	}
	for name, used := range cpu {
		if f.Requests > 0 {
			f.CPU[name] = ms(used) * 1000 / float64(f.Requests)
		}
	}
	return f
}

// cpu is what the request cost in all: every process but the load generator.
func (f figures) cpu() float64 {
	sum := 0.0
	for name, used := range f.CPU {
		if name != generator {
			sum += used
		}
	}
	return sum
}

// summarize fills in medians and ratios.
func (r *report) summarize() {
	base := func(name string) []figures {
		for _, s := range r.Scenarios {
			if s.Name == name {
				return s.Rounds
			}
		}
		return nil
	}
	for i := range r.Scenarios {
		s := &r.Scenarios[i]
		s.Median = medianFigures(s.Rounds)
		s.To = map[string]ratios{}
		for _, name := range []string{baseNone, baseNoop} {
			if b := base(name); len(b) == len(s.Rounds) && len(b) > 0 {
				s.To[name] = medianRatios(s.Rounds, b)
			}
		}
	}
}

func medianFigures(rounds []figures) figures {
	over := func(get func(figures) float64) float64 {
		values := make([]float64, len(rounds))
		for i, f := range rounds {
			values[i] = get(f)
		}
		return median(values)
	}
	m := figures{
		Requests:  int(over(func(f figures) float64 { return float64(f.Requests) })),
		PerSecond: over(func(f figures) float64 { return f.PerSecond }),
		P50:       over(func(f figures) float64 { return f.P50 }),
		P99:       over(func(f figures) float64 { return f.P99 }),
		Max:       over(func(f figures) float64 { return f.Max }),
		Others:    over(func(f figures) float64 { return f.Others }),
		CPU:       map[string]float64{},
	}
	if len(rounds) > 0 {
		for name := range rounds[0].CPU {
			m.CPU[name] = over(func(f figures) float64 { return f.CPU[name] })
		}
	}
	return m
}

func medianRatios(rounds, base []figures) ratios {
	over := func(get func(figures) float64) float64 {
		var values []float64
		for i := range rounds {
			if b := get(base[i]); b > 0 {
				values = append(values, get(rounds[i])/b)
			}
		}
		return median(values)
	}
	return ratios{
		P50: over(func(f figures) float64 { return f.P50 }),
		P99: over(func(f figures) float64 { return f.P99 }),
		CPU: over(figures.cpu),
	}
}

// median returns the middle value, the mean of the two middle ones of an even
// number, 0 of none. It sorts its argument.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}

// others returns the mean share that other processes took over all windows.
func (r *report) others() float64 {
	sum, n := 0.0, 0
	for _, s := range r.Scenarios {
		for _, f := range s.Rounds {
			sum += f.Others
			n++
		}
	}
	return sum / float64(max(n, 1))
}

// spread returns by how much a figure differed between two rounds of one
// scenario, as a share of its median: that of the scenario where it differed
// most.
func (r *report) spread(get func(figures) float64) float64 {
	most := 0.0
	for _, s := range r.Scenarios {
		values := make([]float64, len(s.Rounds))
		for i, f := range s.Rounds {
			values[i] = get(f)
		}
		if m := median(values); m > 0 {
			most = max(most, (slices.Max(values)-slices.Min(values))/m)
		}
	}
	return most
}

func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeMarkdown writes the tables: ratios first, since they hold on other
// machines too.
func (r *report) writeMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s\n\n", r.Machine.markdown(), r.describeLoad())

	b.WriteString("Ratios: how many times as much as without a filter, and as with a no-op server.\n\n")
	table(&b, []string{
		"scenario",
		"p50 ÷ no filter", "p99 ÷ no filter", "CPU ÷ no filter",
		"p50 ÷ no-op", "p99 ÷ no-op", "CPU ÷ no-op",
	}, r.Scenarios, func(s scenarioReport) []string {
		none, noop := s.To[baseNone], s.To[baseNoop]
		return []string{
			s.Title,
			ratio(none.P50), ratio(none.P99), ratio(none.CPU),
			ratio(noop.P50), ratio(noop.P99), ratio(noop.CPU),
		}
	})

	b.WriteString("\nFigures: latency in ms; CPU in ms per 1,000 requests, in all and by process. The load generator's comes on top.\n\n")
	table(&b, []string{
		"scenario", "requests/s", "p50", "p99",
		"CPU", "Envoy", "check server", "Redis", "(generator)",
	}, r.Scenarios, func(s scenarioReport) []string {
		m := s.Median
		return []string{
			s.Title, strconv.FormatFloat(math.Round(m.PerSecond), 'f', -1, 64), digits(m.P50), digits(m.P99),
			digits(m.cpu()), digits(m.CPU["envoy"]), digits(m.CPU[clusterNoop] + m.CPU[clusterGatehouse]),
			digits(m.CPU["redis"]), digits(m.CPU[generator]),
		}
	})

	fmt.Fprintf(&b, "\nLargest difference between two rounds of one scenario: p50 %.0f %%, p99 %.0f %%, CPU %.0f %%.\n",
		100*r.spread(func(f figures) float64 { return f.P50 }),
		100*r.spread(func(f figures) float64 { return f.P99 }),
		100*r.spread(figures.cpu))
	fmt.Fprintf(&b, "Other processes took %.0f %% of the machine meanwhile.\n", 100*r.others())
	if r.others() > quiet {
		b.WriteString("\n**The machine was not quiet: trust the ratios of CPU, not the latencies.**\n")
	}
	for _, s := range r.Scenarios {
		// Less than that is no longer the load that was asked for.
		const kept = 0.98
		if r.Load.Rate > 0 && s.Median.PerSecond < kept*r.Load.Rate {
			fmt.Fprintf(&b, "\n%s did not keep up with %v requests/s: its latencies are those of a growing queue.\n", s.Title, r.Load.Rate)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *report) describeLoad() string {
	l := r.Load
	shape := "closed loop"
	if l.Rate > 0 {
		shape = fmt.Sprintf("%v requests/s", l.Rate)
	}
	var bounds []string
	if l.Requests > 0 {
		bounds = append(bounds, fmt.Sprintf("%d requests", l.Requests))
	}
	if l.Seconds > 0 {
		bounds = append(bounds, fmt.Sprintf("%v s", l.Seconds))
	}
	return fmt.Sprintf("Load: %s over %d connections, %d users; %d rounds of at most %s per scenario.",
		shape, l.Connections, l.Users, r.Rounds, strings.Join(bounds, " and "))
}

// table writes a Markdown table whose first column is text and whose others
// are numbers, padded so that it can be read in a terminal too.
func table(b *strings.Builder, head []string, rows []scenarioReport, cells func(scenarioReport) []string) {
	lines := [][]string{head}
	for _, row := range rows {
		lines = append(lines, cells(row))
	}
	width := make([]int, len(head))
	for _, line := range lines {
		for i, cell := range line {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	for n, line := range lines {
		for i, cell := range line {
			pad := strings.Repeat(" ", width[i]-len([]rune(cell)))
			if i == 0 {
				b.WriteString("| " + cell + pad)
			} else {
				b.WriteString(" | " + pad + cell)
			}
		}
		b.WriteString(" |\n")
		if n == 0 {
			b.WriteString("|" + strings.Repeat("-", width[0]+2))
			for _, w := range width[1:] {
				b.WriteString("|" + strings.Repeat("-", w+1) + ":")
			}
			b.WriteString("|\n")
		}
	}
}

const (
	unknown = "–"
	// quiet is how much others may take of the machine before latencies are
	// those of a queue for the processor.
	quiet = 0.05
)

func ratio(r float64) string {
	if r == 0 {
		return unknown
	}
	return strconv.FormatFloat(r, 'f', 2, 64)
}

// digits shows three of them: more would pretend a precision that is not
// there.
func digits(v float64) string {
	switch {
	case v < 0.0005:
		return "0"
	case v >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 0.9995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}
