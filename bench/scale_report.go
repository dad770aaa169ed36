package main

import (
	"fmt"
	"strconv"
	"strings"
)

// scaleReport is the result of -scale.
type scaleReport struct {
	Window float64    `json:"seconds"` // of one measurement
	Writes []writeRow `json:"writes"`
	// Lines say what a write takes of Redis, by the number of replicas.
	Lines  []costLine  `json:"lines"`
	Rates  []rateRow   `json:"rates"`
	Knees  []knee      `json:"knees"`
	Beats  beatsReport `json:"beats"`
	Memory redisMemory `json:"memory"`
}

// writeRow is what a write costs that so many replicas hear of, where as many
// are made as fit.
type writeRow struct {
	Write    string         `json:"write"`
	Replicas int            `json:"replicas"`
	Rounds   []writeFigures `json:"rounds"`
	Median   writeFigures   `json:"median"`
}

type writeFigures struct {
	Writes    int64   `json:"writes"`
	PerSecond float64 `json:"writes_per_second"`
	// Processor time in µs: of Redis and of the writer per write, of one
	// replica per announcement.
	Redis   float64 `json:"redis_us"`
	Writer  float64 `json:"writer_us"`
	Replica float64 `json:"replica_us"`
	Lost    int64   `json:"caches_lost"`
	Others  float64 `json:"others"` // as in figures
}

// costLine is the straight line through the medians of a write: so much without
// a replica, and so much more for each, in µs.
type costLine struct {
	Write string  `json:"write"`
	Alone float64 `json:"alone_us"`
	Each  float64 `json:"each_replica_us"`
}

// rateRow is one steady rate of writes with so many replicas. It has fewer
// rounds than others, or none, where a lower rate was not kept.
type rateRow struct {
	Replicas int           `json:"replicas"`
	Rate     int           `json:"rate"`
	Rounds   []rateFigures `json:"rounds"`
	Median   rateFigures   `json:"median"` // but for Max and Lost, which are the most
}

type rateFigures struct {
	PerSecond float64 `json:"writes_per_second"` // that were made
	// From the acknowledgement of a write to the moment at which the replica
	// had dropped the session, over all replicas.
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
	// Percent of a core.
	Redis   float64 `json:"redis_percent"`
	Replica float64 `json:"replica_percent"`
	Busy    float64 `json:"busy_percent"` // of the machine, whoever used it
	// Answered is the percentage of lookups of another session that the cache
	// answered, Lost how often a cache had to be dropped.
	Answered float64 `json:"answered_percent"`
	Lost     int64   `json:"caches_lost"`
	Others   float64 `json:"others"`
}

// What a rate must keep to.
const (
	slowestP99 = 25.0 // ms
	fullRedis  = 95.0 // percent of a core
	keptShare  = 0.98 // of the rate
)

// kept reports whether there was nothing that more writes would have to wait
// for: the rate was made, and Redis has something left.
func (f rateFigures) kept(rate int) bool {
	t := f.trouble(rate)
	return t != troubleMade && t != troubleRedis
}

// What ends the rates.
const (
	troubleMade  = "fewer writes were made than asked"
	troubleLost  = "a cache was dropped"
	troubleP99   = "p99 above 25 ms"
	troubleRedis = "Redis full"
)

// trouble says what is wrong with a rate, "" for nothing.
func (f rateFigures) trouble(rate int) string {
	switch {
	case f.Redis >= fullRedis:
		return troubleRedis
	case f.PerSecond < keptShare*float64(rate):
		return troubleMade
	case f.Lost > 0:
		return troubleLost
	case f.P99 > slowestP99:
		return troubleP99
	}
	return ""
}

// knee is how many writes per second so many replicas bear.
type knee struct {
	Replicas int    `json:"replicas"`
	Rate     int    `json:"rate"`    // the highest that was in order, with all lower ones; 0: none
	Next     int    `json:"next"`    // the one above it; 0: it is the highest that was asked for
	Trouble  string `json:"trouble"` // of the next one
	Full     bool   `json:"full"`    // the machine was at that rate
}

// fullMachine is from how much on the parts wait for each other for a processor,
// in percent of the machine.
const fullMachine = 90.0

// kneeOf looks for it among the rates of one number of replicas, in ascending
// order.
func kneeOf(rows []rateRow) (k knee) {
	for _, row := range rows {
		k.Replicas = row.Replicas
		if len(row.Rounds) == 0 {
			return k
		}
		if t := row.Median.trouble(row.Rate); t != "" {
			k.Next, k.Trouble, k.Full = row.Rate, t, row.Median.Busy >= fullMachine
			return k
		}
		k.Rate = row.Rate
	}
	return k
}

// beatsReport is what replicas cost that have nothing to do: each.
type beatsReport struct {
	Replicas int     `json:"replicas"`
	Commands float64 `json:"commands_per_second"`
	Redis    float64 `json:"redis_percent"` // of a core
	Replica  float64 `json:"replica_percent"`
}

// summarize fills in medians, lines and knees.
func (r *scaleReport) summarize() {
	for i := range r.Writes {
		row := &r.Writes[i]
		over := func(get func(writeFigures) float64) float64 { return medianOf(row.Rounds, get) }
		row.Median = writeFigures{
			Writes:    int64(over(func(f writeFigures) float64 { return float64(f.Writes) })),
			PerSecond: over(func(f writeFigures) float64 { return f.PerSecond }),
			Redis:     over(func(f writeFigures) float64 { return f.Redis }),
			Writer:    over(func(f writeFigures) float64 { return f.Writer }),
			Replica:   over(func(f writeFigures) float64 { return f.Replica }),
			Others:    over(func(f writeFigures) float64 { return f.Others }),
		}
		for _, f := range row.Rounds {
			row.Median.Lost = max(row.Median.Lost, f.Lost)
		}
	}
	for _, write := range scaleWrites {
		var x, y []float64
		for _, row := range r.Writes {
			if row.Write == write {
				x, y = append(x, float64(row.Replicas)), append(y, row.Median.Redis)
			}
		}
		if alone, each, ok := lineThrough(x, y); ok {
			r.Lines = append(r.Lines, costLine{write, alone, each})
		}
	}
	var same []rateRow
	for i := range r.Rates {
		row := &r.Rates[i]
		row.Median = medianRate(row.Rounds)
		same = append(same, *row)
		if i+1 == len(r.Rates) || r.Rates[i+1].Replicas != row.Replicas {
			r.Knees = append(r.Knees, kneeOf(same))
			same = nil
		}
	}
}

func medianRate(rounds []rateFigures) rateFigures {
	over := func(get func(rateFigures) float64) float64 { return medianOf(rounds, get) }
	m := rateFigures{
		PerSecond: over(func(f rateFigures) float64 { return f.PerSecond }),
		P50:       over(func(f rateFigures) float64 { return f.P50 }),
		P99:       over(func(f rateFigures) float64 { return f.P99 }),
		Redis:     over(func(f rateFigures) float64 { return f.Redis }),
		Replica:   over(func(f rateFigures) float64 { return f.Replica }),
		Busy:      over(func(f rateFigures) float64 { return f.Busy }),
		Answered:  over(func(f rateFigures) float64 { return f.Answered }),
		Others:    over(func(f rateFigures) float64 { return f.Others }),
	}
	for _, f := range rounds {
		m.Max, m.Lost = max(m.Max, f.Max), max(m.Lost, f.Lost)
	}
	return m
}

func medianOf[F any](rounds []F, get func(F) float64) float64 {
	values := make([]float64, len(rounds))
	for i, f := range rounds {
		values[i] = get(f)
	}
	return median(values)
}

// lineThrough returns the line that is nearest to some points (least squares).
// ok is false where there is none: they must differ in x.
func lineThrough(x, y []float64) (at0, slope float64, ok bool) {
	var meanX, meanY float64
	for i := range x {
		meanX += x[i] / float64(len(x))
		meanY += y[i] / float64(len(x))
	}
	var up, across float64
	for i := range x {
		up += (x[i] - meanX) * (y[i] - meanY)
		across += (x[i] - meanX) * (x[i] - meanX)
	}
	if across == 0 {
		return 0, 0, false
	}
	slope = up / across
	return meanY - slope*meanX, slope, true
}

// others is the mean share of the machine that other processes took.
func (r *scaleReport) others() float64 {
	sum, n := 0.0, 0
	for _, row := range r.Writes {
		for _, f := range row.Rounds {
			sum, n = sum+f.Others, n+1
		}
	}
	for _, row := range r.Rates {
		for _, f := range row.Rounds {
			sum, n = sum+f.Others, n+1
		}
	}
	return sum / float64(max(n, 1))
}

// write writes the tables.
func (r *scaleReport) write(b *strings.Builder, rounds int) {
	fmt.Fprintf(b, "\nWhat a write costs that so many replicas hear of: one writer, as fast as it can, as a pipeline where nothing else is said; %d rounds of %v s. CPU in µs, that of a replica per announcement.\n\n", rounds, r.Window)
	table(b, []string{"write", "replicas", "writes/s", "Redis", "one replica", "(writer)"}, r.Writes, func(row writeRow) []string {
		m := row.Median
		replica := unknown
		if row.Replicas > 0 {
			replica = digits(m.Replica)
		}
		return []string{row.Write, strconv.Itoa(row.Replicas), whole(m.PerSecond), digits(m.Redis), replica, digits(m.Writer)}
	})
	for i, l := range r.Lines {
		if i == 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(b, "%s: about %s µs of Redis, and %s µs more for each replica.\n", l.Write, digits(l.Alone), digits(l.Each))
	}
	r.writeRates(b)
	r.writeMemory(b)
	if r.Beats.Replicas > 0 {
		fmt.Fprintf(b, "\nA replica that has nothing to do: %s commands per second, %s %% of a core of Redis, %s %% of its own (mean of %d).\n",
			digits(r.Beats.Commands), digits(r.Beats.Redis), digits(r.Beats.Replica), r.Beats.Replicas)
	}
	fmt.Fprintf(b, "\nOther processes took %.0f %% of the machine meanwhile.\n", 100*r.others())
	if r.others() > quiet {
		b.WriteString("\n**The machine was not quiet: trust the CPU, not the delays.**\n")
	}
}

func (r *scaleReport) writeRates(b *strings.Builder) {
	if len(r.Rates) == 0 {
		return
	}
	b.WriteString("\nA steady rate of SETs: time from the acknowledgement until a replica has dropped the session, in ms; CPU in percent of a core, busy in percent of the machine; lookups of another session meanwhile that the cache answered, in percent.\n\n")
	var rows []rateRow
	for _, row := range r.Rates {
		if len(row.Rounds) > 0 {
			rows = append(rows, row)
		}
	}
	table(b, []string{"replicas", "writes/s", "made", "p50", "p99", "max", "Redis", "one replica", "busy", "from the cache"}, rows, func(row rateRow) []string {
		m := row.Median
		return []string{
			strconv.Itoa(row.Replicas), thousands(row.Rate), whole(m.PerSecond), digits(m.P50), digits(m.P99), digits(m.Max),
			digits(m.Redis), digits(m.Replica), digits(m.Busy), digits(m.Answered),
		}
	})
	b.WriteString("\n")
	for _, k := range r.Knees {
		b.WriteString(k.text() + "\n")
	}
}

func (k knee) text() string {
	text := fmt.Sprintf("With %d replicas: %s writes/s", k.Replicas, thousands(k.Rate))
	if k.Replicas == 1 {
		text = strings.Replace(text, "replicas", "replica", 1)
	}
	if k.Next == 0 {
		return text + " and more."
	}
	text += fmt.Sprintf(", not %s (%s", thousands(k.Next), k.Trouble)
	if k.Full {
		text += "; the machine was full"
	}
	return text + ")."
}

func (r *scaleReport) writeMemory(b *strings.Builder) {
	m := r.Memory
	fmt.Fprintf(b, "\nMemory of Redis, bytes each, with %s sessions of as many users; a record is %d B of JSON.\n\n", thousands(m.Sessions), m.Text)
	type row struct {
		what  string
		bytes float64
		usage string
	}
	usage := func(parts ...string) string {
		var texts []string
		for _, part := range parts {
			texts = append(texts, thousands(int(m.Usage[part])))
		}
		return strings.Join(texts, " + ")
	}
	table(b, []string{"what", "used_memory", "MEMORY USAGE"}, []row{
		{"record, and its entry in the user's index", m.Record, usage(partRecord, partIndex)},
		{"profile of the user", m.Profile, usage(partUser)},
		{"time of use", m.Seen, usage(partSeen)},
		{"all of it", m.session(), usage(partRecord, partIndex, partUser, partSeen)},
		{"given back by a logout", m.Freed, unknown},
		{"default-mode tracking, per key that a client read", m.Remembered, unknown},
		{"the same, per further client", m.Further, unknown},
		{"broadcast mode, per key that a client read", m.Broadcast, unknown},
		{"broadcast mode, per replica", m.Replica, unknown},
	}, func(r row) []string { return []string{r.what, whole(max(r.bytes, 0)), r.usage} })
	fmt.Fprintf(b, "\nWith two clients in default mode Redis remembered %s keys and %s pairs of key and client.\n", thousands(int(m.Keys)), thousands(int(m.Items)))
	b.WriteString("\nWhat Redis does for one call while nobody listens: CPU in µs, and commands, those within scripts included.\n\n")
	table(b, []string{"call", "Redis", "commands"}, m.Calls, func(c callCost) []string {
		return []string{c.Call, digits(c.Redis), digits(c.Commands)}
	})
}
