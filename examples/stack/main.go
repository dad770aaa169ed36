//go:build unix

// Command stack runs an example on this machine: its policy in a real
// Gatehouse, with a real Redis, a real Envoy, the demo services and, where the
// example has some, OpenID providers. It listens on free ports of loopback.
//
//	bin/stack examples/mobile-app                    # until Ctrl-C
//	bin/stack -script SCRIPT examples/mobile-app     # until the script ends, with its status
//
// It finds gatehouse beside itself. Whatever it started ends with it, even if
// it is killed (on Linux).
//
// An example is a directory with
//
//	gatehouse.yaml    the policy, as it is shipped; it takes SESSION_SECRET, PUBLIC_URL,
//	                  REDIS_URL and the like from the environment
//	try.yaml          laid over it here: shorter times, for people who wait (optional)
//	providers.json    OpenID providers by name, each with the environment of
//	                  internal/oidctest/provider.mjs (optional)
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "stack:", err)
		os.Exit(1)
	}
}

func run() error {
	script := flag.String("script", "", "run this bash script against it, then stop")
	timeout := flag.Duration("timeout", 3*time.Minute, "how long the script may take")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: stack [-script FILE [-timeout DURATION]] EXAMPLE")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		return errors.New("name the directory of one example, such as examples/mobile-app")
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(ctx, cancel) // a second Ctrl-C ends us at once
	if *script != "" {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, *timeout)
		defer stop()
	}
	s, err := start(ctx, flag.Arg(0))
	if err != nil {
		return err
	}
	if *script != "" {
		err = s.try(ctx, *script)
	} else {
		err = s.tell(ctx)
	}
	return errors.Join(err, s.stop())
}

// start starts a stack. Others look for free ports at the same moment: one that
// met them is started again.
func start(ctx context.Context, example string) (s *stack, err error) {
	for range 3 {
		if s, err = newStack(ctx, example); err == nil || !strings.Contains(err.Error(), "in use") {
			break
		}
	}
	return s, err
}

// try runs a script.
func (s *stack) try(ctx context.Context, script string) error {
	script, err := filepath.Abs(script)
	if err != nil {
		return err
	}
	bash, err := proc.Find("bash")
	if err != nil {
		return err
	}
	work := filepath.Join(s.dir, "work") // where cookies and tokens end up
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	p, err := proc.Start(ctx, bash, []string{script}, proc.Options{Dir: work, Env: s.env.list(), Output: os.Stdout, Grace: time.Second})
	if err != nil {
		return err
	}
	<-p.Done()
	switch err := p.Stop(); {
	case ctx.Err() != nil:
		return errors.New("the script was stopped: it took too long, or somebody had enough")
	case err != nil:
		return fmt.Errorf("%s: %w%s", filepath.Base(s.example), err, s.lastDecisions())
	}
	return nil
}

// lastDecisions is the end of Gatehouse's log, which says why.
func (s *stack) lastDecisions() string {
	const most = 10
	lines := strings.Split(strings.TrimSpace(s.gatehouse.Output()), "\n")
	return "; the last lines of Gatehouse's log:\n" + strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// tell says how to reach the stack, and waits until somebody has had enough.
func (s *stack) tell(ctx context.Context) error {
	file := filepath.Join(s.dir, "env")
	var b strings.Builder
	for _, line := range s.env.list() {
		name, value, _ := strings.Cut(line, "=")
		fmt.Fprintf(&b, "export %s='%s'\n", name, value)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return err
	}
	fmt.Printf(`%[1]s is up at %[2]s

  what the commands of its README.md want, for another terminal:   source %[3]s
  what Gatehouse decides:                                          tail -f %[4]s

Ctrl-C stops everything.
`, filepath.Base(s.example), s.env["GATEWAY"], file, filepath.Join(s.dir, "gatehouse.log"))
	<-ctx.Done()
	return nil
}
