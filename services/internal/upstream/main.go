package upstream

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Process is what a service's run function gets from the process that it
// runs in, so that a test can run it without one.
type Process struct {
	Args   []string // without the program's name
	Env    func(name string) string
	Stdout io.Writer
	Stderr io.Writer // for the log
}

// Log returns the service's log, on Stderr.
func (p Process) Log() *slog.Logger { return slog.New(slog.NewTextHandler(p.Stderr, nil)) }

// Flags is a set of flags whose defaults come from the environment. A
// variable that is set to nothing counts as not set.
type Flags struct {
	set *flag.FlagSet
	p   Process
}

// NewFlags returns an empty set.
func NewFlags(name string, p Process) *Flags {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(io.Discard) // errors are returned, and are one line
	return &Flags{set, p}
}

// String defines a flag; variable is the environment's name for it.
func (f *Flags) String(name, variable, standard, usage string) *string {
	value := f.p.Env(variable)
	if value == "" {
		value = standard
	}
	return f.set.String(name, value, fmt.Sprintf("%s (environment: %s)", usage, variable))
}

// Parse reads the arguments. [flag.ErrHelp] means that help was asked for,
// and was given on Stdout.
func (f *Flags) Parse() error {
	if err := f.set.Parse(f.p.Args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			_, _ = fmt.Fprintf(f.p.Stdout, "Usage of %s:\n", f.set.Name())
			f.set.SetOutput(f.p.Stdout)
			f.set.PrintDefaults()
		}
		return err
	}
	if f.set.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: everything is a flag", f.set.Arg(0))
	}
	return nil
}

// Main runs a service until it fails or the process gets SIGINT or SIGTERM,
// and returns the exit code: 0, or 1 after an error, which it prints in one
// line.
func Main(name string, run func(context.Context, Process) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return exit(ctx, name, Process{os.Args[1:], os.Getenv, os.Stdout, os.Stderr}, run)
}

func exit(ctx context.Context, name string, p Process, run func(context.Context, Process) error) int {
	err := run(ctx, p)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	_, _ = fmt.Fprintf(p.Stderr, "%s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", " "))
	return 1
}
