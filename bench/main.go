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
	"syscall"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// noopCommand is the argument that makes this program the no-op server.
const noopCommand = "noop"

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
	load      load
	warmup    time.Duration
	rounds    int
	users     int
	seed      uint64
	scenarios []scenario
	json      string
	gatehouse string
	shipped   string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./bench [flags]     (make bench builds bin/gatehouse first)")
		flags.PrintDefaults()
	}
	flags.IntVar(&o.load.Connections, "connections", 32, "keep-alive HTTP/1.1 `connections`")
	flags.Float64Var(&o.load.Rate, "rate", 0, "requests per second, whatever the answers; 0: as fast as they come")
	flags.DurationVar(&o.load.Duration, "duration", 4*time.Second, "of one scenario in one round, at most")
	flags.IntVar(&o.load.Requests, "requests", 0, "of one scenario in one round, at most; 0: only -duration counts")
	flags.DurationVar(&o.warmup, "warmup", 500*time.Millisecond, "before each measurement, not measured")
	flags.IntVar(&o.rounds, "rounds", 5, "in each of which every scenario runs once")
	flags.IntVar(&o.users, "users", 1000, "sessions, and tokens, that are used in turn")
	flags.Uint64Var(&o.seed, "seed", 0, "of the order of scenarios; 0: a new one")
	names := flags.String("scenarios", "", "comma-separated `names`; all without it")
	quick := flags.Bool("quick", false, "2 rounds of 1 s, for a first look: -rounds, -duration and -warmup don't count")
	flags.StringVar(&o.json, "json", "", "write everything that was measured to this `file`")
	flags.StringVar(&o.gatehouse, "gatehouse", filepath.Join("bin", "gatehouse"), "the built `binary`")
	flags.StringVar(&o.shipped, "envoy", filepath.Join("envoy", "envoy.yaml"), "Envoy configuration `file` whose ext_authz filter is measured")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, errUsage // the flag package has said why
	}
	if *quick {
		o.rounds, o.load.Duration, o.warmup = 2, time.Second, 300*time.Millisecond
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	var err error
	o.scenarios, err = chooseScenarios(*names)
	switch {
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("there is no argument %q", flags.Arg(0))
	case o.load.Connections < 1 || o.rounds < 1 || o.users < 1 || o.warmup <= 0 || o.load.Duration <= 0:
		err = errors.New("-connections, -rounds, -users, -duration and -warmup must be more than 0")
	case o.load.Rate < 0 || o.load.Requests < 0:
		err = errors.New("-rate and -requests must not be negative")
	default:
		return o, nil
	}
	fmt.Fprintf(stderr, "bench: %v\n", err)
	flags.Usage()
	return o, errUsage
}

// run is main without the process: tests call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	if len(args) == 1 && args[0] == noopCommand {
		return runNoop(ctx, stdout)
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
	s, err := startStack(ctx, stackOptions{
		dir: dir, gatehouse: o.gatehouse, shipped: o.shipped, scenarios: o.scenarios, users: o.users,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()

	r, err := measure(ctx, s, o, stderr)
	if err != nil {
		if ctx.Err() == nil { // not because somebody stopped us
			fmt.Fprint(stderr, s.lastWords(ctx))
		}
		return err
	}
	if o.json != "" {
		if err := writeJSONFile(o.json, r); err != nil {
			return err
		}
	}
	return r.writeMarkdown(stdout)
}

func writeJSONFile(name string, r *report) (err error) {
	f, err := os.Create(name) //nolint:gosec // G304: the file that the user names
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return r.writeJSON(f)
}

// measure runs all rounds. progress gets a line per window.
func measure(ctx context.Context, s *stack, o options, progress io.Writer) (*report, error) {
	r := &report{
		Started: time.Now().UTC().Truncate(time.Second),
		Machine: newMachine(ctx, s, o.gatehouse),
		Load: loadReport{
			Connections: o.load.Connections, Rate: o.load.Rate,
			Requests: o.load.Requests, Seconds: o.load.Duration.Seconds(), Users: o.users,
		},
		Rounds: o.rounds,
		Seed:   o.seed,
	}
	targets := make([]target, len(o.scenarios))
	for i, sc := range o.scenarios {
		targets[i] = sc.target(s.creds)
		r.Scenarios = append(r.Scenarios, scenarioReport{Name: sc.name, Title: sc.title, Status: sc.status})
	}
	order := rand.New(rand.NewPCG(o.seed, 0)) //nolint:gosec // G404: shuffles scenarios
	for round := range o.rounds {
		for _, i := range order.Perm(len(o.scenarios)) {
			sc := o.scenarios[i]
			f, err := measureWindow(ctx, s, sc, targets[i], o)
			if err != nil {
				return nil, fmt.Errorf("round %d, %s: %w", round+1, sc.name, err)
			}
			r.Scenarios[i].Rounds = append(r.Scenarios[i].Rounds, f)
			fmt.Fprintf(progress, "round %d/%d  %-16s %6.0f requests/s  p50 %s ms  p99 %s ms\n",
				round+1, o.rounds, sc.name, f.PerSecond, digits(f.P50), digits(f.P99))
		}
	}
	r.summarize()
	return r, nil
}

// measureWindow measures one scenario once, after a warm-up over the same
// connections.
func measureWindow(ctx context.Context, s *stack, sc scenario, t target, o options) (figures, error) {
	c, err := dialClient(ctx, proc.Local(s.ports[sc.name]), o.load.Connections)
	if err != nil {
		return figures{}, err
	}
	defer func() { _ = c.close() }()
	counted, err := envoyStats(ctx, s.envoy.Admin)
	if err != nil {
		return figures{}, err
	}
	warm := o.load
	warm.Duration = o.warmup
	warmed, err := c.run(ctx, t, warm)
	if err != nil {
		return figures{}, fmt.Errorf("warm-up: %w", err)
	}
	before, err := s.cpuTimes()
	if err != nil {
		return figures{}, err
	}
	out, err := c.run(ctx, t, o.load)
	if err != nil {
		return figures{}, err
	}
	after, err := s.cpuTimes()
	if err != nil {
		return figures{}, err
	}
	cpu, others := spent(before, after, out.Elapsed)
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
	f := newFigures(out, cpu)
	f.Others = others
	return f, nil
}
