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
	Started time.Time `json:"started"`
	Machine machine   `json:"machine"`
	Users   int       `json:"users"`
	Rounds  int       `json:"rounds"`
	Seed    uint64    `json:"seed"` // of the order of the scenarios
	// Parts are the loads, measured in the same rounds.
	Parts  []partReport   `json:"parts"`
	Memory []memoryReport `json:"memory"`
	Wire   []wireReport   `json:"wire"`
	// Freshness is nil when it was not asked for.
	Freshness *freshnessReport `json:"freshness"`
	// Scale is nil when it was not asked for; else it is alone.
	Scale *scaleReport `json:"scale,omitempty"`
}

// partReport is one load.
type partReport struct {
	Load      loadReport       `json:"load"`
	Scenarios []scenarioReport `json:"scenarios"`
}

func newPartReport(p part) partReport {
	r := partReport{Load: loadReport{
		Connections: p.load.Connections, Rate: p.load.Rate,
		Requests: p.load.Requests, Seconds: p.load.Duration.Seconds(), Sweep: p.sweep,
	}}
	for _, sc := range p.scenarios {
		r.Scenarios = append(r.Scenarios, scenarioReport{Name: sc.name, Title: sc.title, Status: sc.status, Sessions: sc.server.sessions})
	}
	return r
}

// loadReport is the load of each window.
type loadReport struct {
	Connections int     `json:"connections"`
	Rate        float64 `json:"rate"`     // requests per second; 0: closed loop
	Requests    int     `json:"requests"` // bounds of a window; 0: none
	Seconds     float64 `json:"seconds"`
	Sweep       bool    `json:"sweep"` // one of several, shown in one table
}

// shape names the load.
func (l loadReport) shape() string {
	if l.Rate > 0 {
		return fmt.Sprintf("%v requests/s", l.Rate)
	}
	return "closed loop"
}

// scenarioReport is one row.
type scenarioReport struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	Status int    `json:"status"` // of every answer
	// Sessions is how many were shown where it isn't the number of users.
	Sessions int       `json:"sessions,omitempty"`
	Rounds   []figures `json:"rounds"`
	// Median has each figure's median over the rounds.
	Median figures `json:"median"`
	// To has, for each base that ran, the median over the rounds of this
	// scenario's figures divided by the base's in the same round.
	To map[string]ratios `json:"to"`
	// Added is what the check adds, see added.
	Added added `json:"added"`
}

// added is what a request costs more than without a filter, by process, in
// milliseconds of CPU per 1,000 requests: medians over the rounds. Noise can
// make Envoy's part of a cheap filter less than 0.
type added struct {
	Envoy  float64 `json:"envoy"`
	Server float64 `json:"server"`
	Redis  float64 `json:"redis"`
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
	// The processes are envoy, server (that of this scenario), redis and
	// generator.
	CPU map[string]float64 `json:"cpu_ms_per_1000"`
	// Commands are those that Redis executed per 1,000 requests, with those
	// within scripts; without the beats of Gatehouses that took no part.
	Commands     float64            `json:"redis_commands_per_1000"`
	CommandsEach map[string]float64 `json:"redis_commands_each"`
	// Others is the share of the machine's processor time, 0 to 1, that other
	// processes took meanwhile.
	Others float64 `json:"others"`
}

// ratios compare two scenarios. A ratio that is not known is 0: a window was
// too short for its CPU time to be seen, or no filter was not measured.
type ratios struct {
	P50    float64 `json:"p50"`
	P99    float64 `json:"p99"`
	CPU    float64 `json:"cpu"`    // of all processes together, see figures.cpu
	Server float64 `json:"server"` // of the check server
	Added  float64 `json:"added"`  // of all processes, less that of no filter
}

// newFigures turns a window and the CPU times that it took into figures.
func newFigures(o outcome, cpu map[string]time.Duration) figures {
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
	for i := range r.Parts {
		r.Parts[i].summarize()
	}
}

// rounds returns those of the scenario with this name, nil when it didn't run.
func (p *partReport) rounds(name string) []figures {
	for _, s := range p.Scenarios {
		if s.Name == name {
			return s.Rounds
		}
	}
	return nil
}

func (p *partReport) summarize() {
	none := p.rounds(baseNone)
	for i := range p.Scenarios {
		s := &p.Scenarios[i]
		s.Median = medianFigures(s.Rounds)
		s.To = map[string]ratios{}
		for _, name := range bases {
			if base := p.rounds(name); len(base) == len(s.Rounds) && len(base) > 0 {
				s.To[name] = medianRatios(s.Rounds, base, none)
			}
		}
		if len(none) != len(s.Rounds) {
			continue
		}
		over := func(process string) float64 {
			values := make([]float64, len(none))
			for n, f := range s.Rounds {
				values[n] = f.CPU[process] - none[n].CPU[process]
			}
			return median(values)
		}
		s.Added = added{Envoy: over("envoy"), Server: over("server"), Redis: over("redis")}
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
		Commands:  over(func(f figures) float64 { return f.Commands }),
	}
	if len(rounds) > 0 {
		for name := range rounds[0].CPU {
			m.CPU[name] = over(func(f figures) float64 { return f.CPU[name] })
		}
	}
	return m
}

// medianRatios divides round by round. none are the rounds without a filter,
// as many or not at all.
func medianRatios(rounds, base, none []figures) ratios {
	over := func(get func(figures) float64) float64 {
		var values []float64
		for i := range rounds {
			if b := get(base[i]); b > 0 {
				values = append(values, get(rounds[i])/b)
			}
		}
		return median(values)
	}
	r := ratios{
		P50:    over(func(f figures) float64 { return f.P50 }),
		P99:    over(func(f figures) float64 { return f.P99 }),
		CPU:    over(figures.cpu),
		Server: over(func(f figures) float64 { return f.CPU["server"] }),
	}
	if len(none) == len(rounds) {
		var values []float64
		for i := range rounds {
			if b := base[i].cpu() - none[i].cpu(); b > 0 {
				values = append(values, (rounds[i].cpu()-none[i].cpu())/b)
			}
		}
		r.Added = max(median(values), 0)
	}
	return r
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
func (p *partReport) others() float64 {
	sum, n := 0.0, 0
	for _, s := range p.Scenarios {
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
func (p *partReport) spread(get func(figures) float64) float64 {
	most := 0.0
	for _, s := range p.Scenarios {
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
	if r.Scale != nil {
		b.WriteString(r.Machine.withoutEnvoy() + "\n")
		r.Scale.write(&b, r.Rounds)
		_, err := io.WriteString(w, b.String())
		return err
	}
	b.WriteString(r.Machine.markdown() + "\n")
	r.writeGoals(&b)
	swept := false
	for i := range r.Parts {
		p := &r.Parts[i]
		if p.Load.Sweep {
			swept = true
			continue
		}
		fmt.Fprintf(&b, "\n%s\n\n", p.describeLoad(r.Users, r.Rounds))
		p.writeRatios(&b)
		p.writeFigures(&b)
		p.writeQuality(&b)
	}
	if swept {
		r.writeSweep(&b)
	}
	r.writeMemory(&b)
	r.writeWire(&b)
	r.Freshness.write(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *partReport) writeRatios(b *strings.Builder) {
	b.WriteString("Ratios: how many times as much as without a filter, as with a no-op server, and as with the usual server. Added is the CPU of all processes, less that of no filter.\n\n")
	table(b, []string{
		"scenario", "CPU ÷ no filter",
		"server CPU ÷ no-op", "added CPU ÷ no-op", "added CPU ÷ usual",
		"p50 ÷ no-op", "p99 ÷ no-op", "p99 ÷ usual",
	}, p.Scenarios, func(s scenarioReport) []string {
		none, noop, usual := s.To[baseNone], s.To[baseNoop], s.To[baseUsual]
		return []string{
			s.Title, ratio(none.CPU),
			ratio(noop.Server), ratio(noop.Added), ratio(usual.Added),
			ratio(noop.P50), ratio(noop.P99), ratio(usual.P99),
		}
	})
}

func (p *partReport) writeFigures(b *strings.Builder) {
	b.WriteString("\nFigures: latency in ms; CPU in ms per 1,000 requests, in all and by process, the load generator's on top; commands that Redis executed per 1,000 requests.\n\n")
	table(b, []string{
		"scenario", "requests/s", "p50", "p99",
		"CPU", "Envoy", "check server", "Redis", "(generator)", "Redis commands",
	}, p.Scenarios, func(s scenarioReport) []string {
		m := s.Median
		return []string{
			s.Title, whole(m.PerSecond), digits(m.P50), digits(m.P99),
			digits(m.cpu()), digits(m.CPU["envoy"]), digits(m.CPU["server"]),
			digits(m.CPU["redis"]), digits(m.CPU[generator]), digits(m.Commands),
		}
	})
}

// writeQuality says how far the figures can be trusted.
func (p *partReport) writeQuality(b *strings.Builder) {
	fmt.Fprintf(b, "\nLargest difference between two rounds of one scenario: p50 %.0f %%, p99 %.0f %%, CPU %.0f %%.\n",
		100*p.spread(func(f figures) float64 { return f.P50 }),
		100*p.spread(func(f figures) float64 { return f.P99 }),
		100*p.spread(figures.cpu))
	fmt.Fprintf(b, "Other processes took %.0f %% of the machine meanwhile.\n", 100*p.others())
	if p.others() > quiet {
		b.WriteString("\n**The machine was not quiet: trust the ratios of CPU, not the latencies.**\n")
	}
	for _, s := range p.Scenarios {
		// Less than that is no longer the load that was asked for.
		const kept = 0.98
		if p.Load.Rate > 0 && s.Median.PerSecond < kept*p.Load.Rate {
			fmt.Fprintf(b, "\n%s did not keep up with %v requests/s: its latencies are those of a growing queue.\n", s.Title, p.Load.Rate)
		}
	}
}

// writeSweep writes one table for all loads that differ in connections.
func (r *report) writeSweep(b *strings.Builder) {
	type row struct {
		load loadReport
		scenarioReport
	}
	var rows []row
	others := 0.0
	for i := range r.Parts {
		if p := &r.Parts[i]; p.Load.Sweep {
			others = max(others, p.others())
			for _, s := range p.Scenarios {
				rows = append(rows, row{p.Load, s})
			}
		}
	}
	fmt.Fprintf(b, "\nBy connections, %d users, %d rounds. Latency in ms, CPU in ms per 1,000 requests; added is the CPU of all processes, less that of no filter.\n\n", r.Users, r.Rounds)
	table(b, []string{
		"scenario", "connections", "load", "requests/s", "p50", "p99", "CPU", "check server",
		"server CPU ÷ no-op", "added CPU ÷ no-op", "added CPU ÷ usual", "p99 ÷ no-op",
	}, rows, func(s row) []string {
		m, noop, usual := s.Median, s.To[baseNoop], s.To[baseUsual]
		return []string{
			s.Title, strconv.Itoa(s.load.Connections), s.load.shape(),
			whole(m.PerSecond), digits(m.P50), digits(m.P99), digits(m.cpu()), digits(m.CPU["server"]),
			ratio(noop.Server), ratio(noop.Added), ratio(usual.Added), ratio(noop.P99),
		}
	})
	fmt.Fprintf(b, "\nOther processes took at most %.0f %% of the machine, with any number of connections.\n", 100*others)
}

func (r *report) writeMemory(b *strings.Builder) {
	if len(r.Memory) == 0 {
		return
	}
	b.WriteString("\nMemory of Gatehouse after the last window.\n\n")
	table(b, []string{"process", "sessions shown", "resident, MB", "cache entries", "cache, MB", "bytes per entry", "bytes per session shown", "coherent"}, r.Memory, func(m memoryReport) []string {
		const mb = 1e6
		perEntry := unknown
		if m.Entries > 0 {
			perEntry = whole(m.Bytes / m.Entries)
		}
		perSession := whole(m.Bytes / float64(max(m.Sessions, 1)))
		coherent := "no"
		if m.Coherent {
			coherent = "yes"
		}
		return []string{
			m.Process, thousands(m.Sessions), digits(float64(m.RSS) / mb), thousands(int(m.Entries)), digits(m.Bytes / mb), perEntry, perSession, coherent,
		}
	})
}

func (r *report) writeWire(b *strings.Builder) {
	if len(r.Wire) == 0 {
		return
	}
	fmt.Fprintf(b, "\nBytes that a client writes for a page of %d calls over one connection.\n\n", wireCalls)
	table(b, []string{"shown with each call", "its header, B", "HTTP/1.1, B", "HTTP/2, first page, B", "HTTP/2, each further page, B"}, r.Wire, func(w wireReport) []string {
		return []string{w.Shown, thousands(w.Header), thousands(int(w.HTTP1)), thousands(int(w.HTTP2First)), thousands(int(w.HTTP2Next))}
	})
}

func (f *freshnessReport) write(b *strings.Builder) {
	if f == nil {
		return
	}
	share := func(n, of int) string {
		return fmt.Sprintf("%s of %s (%s %%)", thousands(n), thousands(of), strconv.FormatFloat(100*float64(n)/float64(max(of, 1)), 'f', 2, 64))
	}
	fmt.Fprintf(b, "\nFreshness: writes by another client, whose old answer is in the cache, and a request through Envoy %v ms after the acknowledgement.\n\n", f.Wait)
	table(b, []string{"condition", "honoured", "longest wait, ms", "old answers after new ones"}, f.Runs, func(r freshnessRun) []string {
		return []string{r.Condition, share(r.Honoured, r.Writes), digits(r.Waited), strconv.Itoa(r.WentBack)}
	})
	type row struct {
		condition string
		distribution
	}
	var rows []row
	for _, r := range f.Runs {
		for _, d := range r.Kinds {
			rows = append(rows, row{r.Condition, d})
		}
	}
	rows = append(rows, row{"idle", f.Frozen.distribution})
	b.WriteString("\nTime from the acknowledgement to the sending of the first request that gets the new answer, in ms, one request after the other.\n\n")
	table(b, []string{"write", "condition", "tries", "first one got the old answer", "p50", "p99", "max"}, rows, func(r row) []string {
		return []string{r.Write, r.condition, strconv.Itoa(r.Tries), strconv.Itoa(r.Old), digits(r.P50), digits(r.P99), digits(r.Max)}
	})
	fmt.Fprintf(b, "\nWith the announcements frozen: %s honoured within %v ms.\n", share(f.Frozen.Honoured, f.Frozen.Tries), f.Frozen.Within)
	fmt.Fprintf(b, "Sessions that end: %s refused not later than %v ms after their time to live; the longest was let in %s ms after it.\n",
		share(f.Expiry.Refused, f.Expiry.Tries), f.Expiry.Grace, digits(f.Expiry.Outlived))
}

func (p *partReport) describeLoad(users, rounds int) string {
	l := p.Load
	var bounds []string
	if l.Requests > 0 {
		bounds = append(bounds, fmt.Sprintf("%d requests", l.Requests))
	}
	if l.Seconds > 0 {
		bounds = append(bounds, fmt.Sprintf("%v s", l.Seconds))
	}
	return fmt.Sprintf("Load: %s over %d connections, %d users; %d rounds of at most %s per scenario.",
		l.shape(), l.Connections, users, rounds, strings.Join(bounds, " and "))
}

// table writes a Markdown table whose first column is text and whose others
// are numbers, padded so that it can be read in a terminal too.
func table[Row any](b *strings.Builder, head []string, rows []Row, cells func(Row) []string) {
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

// whole shows no digits behind the point.
func whole(v float64) string { return strconv.FormatFloat(math.Round(v), 'f', -1, 64) }

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
