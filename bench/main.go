package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, errUsage):
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// errUsage is a mistake in the arguments that has been reported already.
var errUsage = errors.New("usage")

// options are the flags.
type options struct {
	parts     []part
	scenarios []scenario // of all parts
	freshness *freshnessOptions
	scale     *scaleOptions // nothing else is measured then
	warmup    time.Duration
	rounds    int
	users     int
	sessions  int // the most that any scenario shows
	seed      uint64
	json      string
	svg       string
	gatehouse string
	shipped   string
}

// part is one table of the report: scenarios under one load.
type part struct {
	load      load
	scenarios []scenario
	sweep     bool // one of several numbers of connections
}

// What -sweep measures unless told otherwise.
const (
	sweepScenarios   = "none,noop,usual,session"
	sweepConnections = "1,8,32,128,256"
)

// Bounds of the flags.
const (
	maxUsers       = 1_000_000
	maxConnections = 10_000
)

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./bench [flags]     (make bench builds bin/gatehouse first)")
		flags.PrintDefaults()
	}
	var l load
	connections := flags.String("connections", "32", "keep-alive HTTP/1.1 connections; several `numbers`, separated by commas, are measured beside each other")
	rates := flags.String("rate", "0", "requests per second, whatever the answers; 0: as fast as they come; or several `numbers`")
	flags.DurationVar(&l.Duration, "duration", 4*time.Second, "of one scenario in one round, at most")
	flags.IntVar(&l.Requests, "requests", 0, "of one scenario in one round, at most; 0: only -duration counts")
	flags.DurationVar(&o.warmup, "warmup", 500*time.Millisecond, "before each measurement, not measured")
	flags.IntVar(&o.rounds, "rounds", 5, "in each of which every scenario runs once")
	users := flags.String("users", "1000", "sessions, and tokens (at most 1,000), that are used in turn, up to a million; of several `numbers`, the first is for all scenarios, and each other one for a Gatehouse of its own")
	flags.Uint64Var(&o.seed, "seed", 0, "of the order of scenarios; 0: a new one")
	names := flags.String("scenarios", "", "comma-separated `names`; all without it")
	sweep := flags.Bool("sweep", false, "throughput by connections: "+sweepConnections+" of them with "+sweepScenarios+", where -connections and -scenarios don't say otherwise")
	freshness := flags.Bool("freshness", false, "only how soon writes by another client count; beside the load of -connections and -rate, too")
	writes := flags.Int("writes", 10_000, "for -freshness: `number` of writes, idle and under load each")
	tries := flags.Int("tries", 200, "for -freshness: `number` of writes with frozen announcements, and of sessions that end")
	scale := flags.Bool("scale", false, "only what grows with replicas, writes and sessions; without Envoy, about three minutes; with -rounds, -duration and -users of its own: 3, 1s and 20,000")
	replicas := flags.String("replicas", scaleReplicas, "for -scale: `numbers` of replicas that hear of writes")
	writeRates := flags.String("write-rates", scaleRates, "for -scale: `numbers` of writes per second")
	all := flags.Bool("all", false, "all of it: saturated and at 1,000 requests/s, -sweep, 1,000 to a million sessions, -freshness; about 40 minutes")
	quick := flags.Bool("quick", false, "2 rounds of 1 s, for a first look: -rounds, -duration and -warmup don't count")
	flags.StringVar(&o.json, "json", "", "write everything that was measured to this `file`")
	flags.StringVar(&o.svg, "svg", "", "draw what a check adds, by process, into this `file`")
	flags.StringVar(&o.gatehouse, "gatehouse", filepath.Join("bin", "gatehouse"), "the built `binary`")
	flags.StringVar(&o.shipped, "envoy", filepath.Join("envoy", "envoy.yaml"), "Envoy configuration `file` whose ext_authz filter is measured")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, errUsage // the flag package has said why
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if *all {
		if !given["rate"] {
			*rates = "0,1000"
		}
		if !given["users"] {
			*users = "1000,200000,1000000"
		}
	}
	if *sweep {
		if !given["connections"] {
			*connections = sweepConnections
		}
		if !given["scenarios"] {
			*names = sweepScenarios
		}
	}
	if *quick {
		o.rounds, l.Duration, o.warmup = 2, time.Second, 300*time.Millisecond
		if !given["writes"] {
			*writes = 1000
		}
		if !given["tries"] {
			*tries = 40
		}
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	err := o.plan(l, *names, *connections, *rates, *users, *sweep)
	if err == nil && *scale {
		err = o.planScale(*replicas, *writeRates, l.Duration, given)
	}
	switch {
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("there is no argument %q", flags.Arg(0))
	case o.rounds < 1 || o.warmup <= 0 || l.Duration <= 0:
		err = errors.New("-rounds, -duration and -warmup must be more than 0")
	case l.Requests < 0:
		err = errors.New("-requests must not be negative")
	case *writes < 1 || *tries < 1 || *writes > 1_000_000 || *tries > 100_000:
		err = errors.New("-writes and -tries must be more than 0, and at most 1,000,000 and 100,000")
	case *all && (*sweep || *freshness):
		err = errors.New("-all is -sweep and -freshness, too")
	case *scale && (*all || *sweep || *freshness || o.svg != ""):
		err = errors.New("-scale is a run of its own, without -all, -sweep, -freshness and -svg")
	default:
		if *freshness || *all {
			const wait = 25 * time.Millisecond
			o.freshness = &freshnessOptions{writes: *writes, tries: *tries, wait: wait, load: o.parts[0].load}
		}
		switch {
		case *all:
			err = o.plan(l, sweepScenarios, sweepConnections, "0", "1000", true)
		case *freshness && !*sweep:
			o.parts, o.scenarios = nil, nil
		}
		if err == nil {
			return o, nil
		}
	}
	fmt.Fprintf(stderr, "bench: %v\n", err)
	flags.Usage()
	return o, errUsage
}

// plan turns lists into parts and scenarios.
func (o *options) plan(l load, names, connections, rates, users string, sweep bool) error {
	chosen, err := chooseScenarios(names)
	if err != nil {
		return err
	}
	conns, err := numbers("-connections", connections, 1, maxConnections)
	if err != nil {
		return err
	}
	perSecond, err := numbers("-rate", rates, 0, 1_000_000)
	if err != nil {
		return err
	}
	counts, err := numbers("-users", users, 1, maxUsers)
	if err != nil {
		return err
	}
	if len(o.parts) == 0 { // else the sweep of -all
		o.users, o.sessions, o.scenarios = counts[0], slices.Max(counts), slices.Clone(chosen)
		for _, n := range counts[1:] {
			o.scenarios = append(o.scenarios, manySessions(n))
		}
		chosen = o.scenarios
	}
	for _, rate := range perSecond {
		for _, n := range conns {
			p := part{load: l, scenarios: chosen, sweep: sweep}
			p.load.Connections, p.load.Rate = n, float64(rate)
			o.parts = append(o.parts, p)
		}
	}
	return nil
}

// planScale makes the options of -scale. What is not given, or is quick, has
// defaults of its own.
func (o *options) planScale(replicas, rates string, window time.Duration, given map[string]bool) (err error) {
	s := &scaleOptions{sessions: o.users, rounds: o.rounds, window: window, seed: o.seed}
	if s.replicas, err = numbers("-replicas", replicas, 0, mostReplicas); err != nil {
		return err
	}
	if s.rates, err = numbers("-write-rates", rates, 1, mostRate); err != nil {
		return err
	}
	slices.Sort(s.rates) // so that those above one that is not kept are left out
	if !given["rounds"] && !given["quick"] {
		s.rounds = scaleRounds
	}
	if !given["duration"] && !given["quick"] {
		s.window = scaleWindow
	}
	if !given["users"] {
		s.sessions = scaleSessions
	}
	o.scale, o.parts, o.scenarios = s, nil, nil
	return nil
}

// numbers reads a comma-separated list of different numbers.
func numbers(name, list string, least, most int) ([]int, error) {
	var all []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most || slices.Contains(all, n) {
			return nil, fmt.Errorf("%s: expected different whole numbers from %d to %d, separated by commas, not %q", name, least, most, list)
		}
		all = append(all, n)
	}
	return all, nil
}

// run is main without the process: tests call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	if isServer(args) {
		return runServer(ctx, args, stdout)
	}
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gatehouse-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var r *report
	if o.scale != nil {
		r, err = runScale(ctx, *o.scale, dir, stderr)
	} else {
		r, err = runStack(ctx, o, dir, stderr)
	}
	if r == nil {
		return err
	}
	// What was measured is written, whatever does not end as it should.
	return errors.Join(err, writeReport(o, r, stdout))
}

func writeReport(o options, r *report, stdout io.Writer) error {
	if o.json != "" {
		if err := writeFile(o.json, r.writeJSON); err != nil {
			return err
		}
	}
	if o.svg != "" {
		if err := writeFile(o.svg, r.writeSVG); err != nil {
			return err
		}
	}
	return r.writeMarkdown(stdout)
}

// runStack measures requests through Envoy. With an error there may be a report
// all the same.
func runStack(ctx context.Context, o options, dir string, stderr io.Writer) (r *report, err error) {
	listeners := slices.Clone(o.scenarios)
	if o.freshness != nil {
		listeners = append(listeners, freshnessScenarios...)
	}
	s, err := startStack(ctx, stackOptions{
		dir: dir, gatehouse: o.gatehouse, shipped: o.shipped, scenarios: listeners, sessions: o.sessions,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()

	r, err = measure(ctx, s, o, stderr)
	if err != nil && ctx.Err() == nil { // not because somebody stopped us
		fmt.Fprint(stderr, s.lastWords(ctx))
	}
	return r, err
}

func writeFile(name string, write func(io.Writer) error) (err error) {
	f, err := os.Create(name) //nolint:gosec // G304: the file that the user names
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}

// measure runs all rounds. progress gets a line per window.
func measure(ctx context.Context, s *stack, o options, progress io.Writer) (*report, error) {
	r := &report{
		Started: time.Now().UTC().Truncate(time.Second),
		Machine: newMachine(ctx, s, o.gatehouse),
		Users:   o.users,
		Rounds:  o.rounds,
		Seed:    o.seed,
	}
	targets := map[string]*target{}
	for _, sc := range o.scenarios {
		targets[sc.name] = sc.target(s.creds, o.users)
	}
	type window struct {
		part     int
		scenario int // of the part
	}
	var windows []window
	for n, p := range o.parts {
		r.Parts = append(r.Parts, newPartReport(p))
		for i := range p.scenarios {
			windows = append(windows, window{n, i})
		}
	}
	if err := fillCaches(ctx, s, o, targets, progress); err != nil {
		return nil, err
	}
	idle, err := s.idleBeats(ctx)
	if err != nil {
		return nil, err
	}
	order := rand.New(rand.NewPCG(o.seed, 0)) //nolint:gosec // G404: shuffles scenarios
	for round := range o.rounds {
		for _, i := range order.Perm(len(windows)) {
			w := windows[i]
			p := o.parts[w.part]
			sc := p.scenarios[w.scenario]
			f, err := measureWindow(ctx, s, sc, targets[sc.name], p.load, o.warmup, idle)
			if err != nil {
				return nil, fmt.Errorf("round %d, %s: %w", round+1, sc.name, err)
			}
			rounds := &r.Parts[w.part].Scenarios[w.scenario].Rounds
			*rounds = append(*rounds, f)
			fmt.Fprintf(progress, "round %d/%d  %-16s %3d connections %7.0f requests/s  p50 %s ms  p99 %s ms\n",
				round+1, o.rounds, sc.name, p.load.Connections, f.PerSecond, digits(f.P50), digits(f.P99))
		}
	}
	if o.freshness != nil {
		beside := freshnessScenarios[len(freshnessScenarios)-1].target(s.creds, o.users)
		if r.Freshness, err = measureFreshness(ctx, s, *o.freshness, beside, progress); err != nil {
			return nil, fmt.Errorf("freshness: %w", err)
		}
	}
	if _, there := s.ports[baseNone]; there {
		if r.Wire, err = measureWire(ctx, s); err != nil {
			return nil, err
		}
	}
	if r.Memory, err = s.memory(ctx, o.users, o.scenarios); err != nil {
		return nil, err
	}
	r.summarize()
	return r, nil
}

// fillCaches shows every credential to each Gatehouse once, so that the first
// round is like the others.
func fillCaches(ctx context.Context, s *stack, o options, targets map[string]*target, progress io.Writer) error {
	type filled struct {
		server checkServer
		shows  credentialKind
	}
	done := map[filled]bool{}
	for _, sc := range o.scenarios {
		fill := filled{sc.server, sc.shows}
		if sc.server.program != programGatehouse || done[fill] {
			continue
		}
		done[fill] = true
		if err := s.awaitCoherent(ctx, sc.server.name()); err != nil {
			return err
		}
		const connections, most = 32, 20 * time.Minute
		c, err := dialClient(ctx, proc.Local(s.ports[sc.name]), connections)
		if err != nil {
			return err
		}
		n := targets[sc.name].shown.len()
		out, err := c.run(ctx, targets[sc.name], load{Requests: n, Duration: most})
		err = errors.Join(err, c.close())
		if err != nil {
			return fmt.Errorf("fill the cache with %s: %w", sc.name, err)
		}
		fmt.Fprintf(progress, "filled the cache of %s with %d credentials (%s) in %.1f s\n", sc.server.name(), n, sc.name, out.Elapsed.Seconds())
	}
	return nil
}

// measureWindow measures one scenario once, after a warm-up over the same
// connections.
func measureWindow(ctx context.Context, s *stack, sc scenario, t *target, l load, warmup time.Duration, idle beats) (figures, error) {
	c, err := dialClient(ctx, proc.Local(s.ports[sc.name]), l.Connections)
	if err != nil {
		return figures{}, err
	}
	defer func() { _ = c.close() }()
	counted, err := envoyStats(ctx, s.envoy.Admin)
	if err != nil {
		return figures{}, err
	}
	// As fast as possible at any rate, so that each credential is shown once:
	// what is due once a minute per session is not measured as if it were due
	// with every request of a short window.
	warmed, err := c.run(ctx, t, load{Connections: l.Connections, Duration: warmup, Requests: l.Requests})
	if err != nil {
		return figures{}, fmt.Errorf("warm-up: %w", err)
	}
	commandsBefore, err := s.commandCounts(ctx)
	if err != nil {
		return figures{}, err
	}
	before, err := s.cpuTimes()
	if err != nil {
		return figures{}, err
	}
	out, err := c.run(ctx, t, l)
	if err != nil {
		return figures{}, err
	}
	after, err := s.cpuTimes()
	if err != nil {
		return figures{}, err
	}
	cpu, others := spent(before, after, out.Elapsed)
	commandsAfter, err := s.commandCounts(ctx)
	if err != nil {
		return figures{}, err
	}
	now, err := envoyStats(ctx, s.envoy.Admin)
	if err != nil {
		return figures{}, err
	}
	sent := uint64(len(warmed.Latencies) + len(out.Latencies))
	for _, name := range sc.counters() {
		if saw := now[name] - counted[name]; saw != sent {
			return figures{}, fmt.Errorf("of %d requests Envoy's counter %s saw %d: what was measured is not what was meant", sent, name, saw)
		}
	}
	f := newFigures(out, cpuOf(cpu, sc.server.name()))
	f.Others = others
	bystanders := len(s.ops)
	if sc.server.program == programGatehouse {
		bystanders--
	}
	f.Commands, f.CommandsEach = idle.perThousand(commandsBetween(commandsBefore, commandsAfter), bystanders, out.Elapsed, f.Requests)
	return f, nil
}
