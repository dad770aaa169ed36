// Package proctest lets tests run real programs: Envoy, Redis, Node.
//
//	redis := proctest.StartRedis(t)
//	envoy := proctest.StartEnvoy(t, config, proc.EnvoyOptions{})
//
// Every process ends with its test. What it printed is logged when the test
// fails. A test that needs a program which is not installed is skipped with a
// message that says how to get it; where the environment variable CI is true
// it fails instead, so that a pipeline that lost its Envoy can't pass.
package proctest

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// Need returns the path of a program as [proc.Find] does. A missing one skips
// the test, or fails it under CI.
func Need(tb testing.TB, program string) string {
	tb.Helper()
	path, err := proc.Find(program)
	if err != nil {
		missing(tb, err)
	}
	return path
}

// NeedHeavy is [Need] for a program that takes minutes to install and is no
// part of 'make test': a missing one skips the test under CI too. install is
// the command that installs it.
func NeedHeavy(tb testing.TB, program, install string) string {
	tb.Helper()
	path, err := proc.Find(program)
	if notFound := new(proc.NotFoundError); errors.As(err, &notFound) {
		tb.Skipf("%s is not installed, and not by 'make test': run '%s', or set GATEHOUSE_%s to its path",
			program, install, strings.ToUpper(strings.ReplaceAll(program, "-", "_")))
	}
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// missing ends the test: by a skip where a program is not installed, by a
// failure where something is wrong or CI runs.
func missing(tb testing.TB, err error) {
	tb.Helper()
	ci, _ := strconv.ParseBool(os.Getenv("CI"))
	if notFound := new(proc.NotFoundError); errors.As(err, &notFound) && !ci {
		tb.Skip(err)
	}
	tb.Fatal(err)
}

// Start runs a program until the test ends.
func Start(tb testing.TB, path string, args []string, o proc.Options) *proc.Process {
	tb.Helper()
	p, err := proc.Start(lifetime(tb), path, args, o)
	if err != nil {
		missing(tb, err)
	}
	endWith(tb, p)
	return p
}

// StartRedis runs a redis-server with these additional arguments until the
// test ends.
func StartRedis(tb testing.TB, args ...string) *proc.Redis {
	tb.Helper()
	r, err := proc.StartRedis(lifetime(tb), proc.RedisOptions{Dir: tb.TempDir(), Args: args})
	if err != nil {
		missing(tb, err)
	}
	endWith(tb, r.Process)
	return r
}

// StartEnvoy runs Envoy until the test ends. An empty o.Dir is a temporary
// directory.
func StartEnvoy(tb testing.TB, config []byte, o proc.EnvoyOptions) *proc.Envoy {
	tb.Helper()
	if o.Dir == "" {
		o.Dir = tb.TempDir()
	}
	e, err := proc.StartEnvoy(lifetime(tb), config, o)
	if err != nil {
		missing(tb, err)
	}
	endWith(tb, e.Process)
	return e
}

// lifetime is not tb.Context: that one is done before the first cleanup runs,
// and would end all processes at once. Cleanups end them one by one, last
// started first.
func lifetime(tb testing.TB) context.Context {
	tb.Helper()
	return context.WithoutCancel(tb.Context())
}

// endWith stops p when the test is over.
func endWith(tb testing.TB, p *proc.Process) {
	tb.Helper()
	tb.Cleanup(func() {
		if err := p.Stop(); err != nil {
			tb.Log(err)
		}
		if tb.Failed() {
			tb.Logf("output of process %d:\n%s", p.PID(), p.Output())
		}
	})
}

// FreePort is [proc.FreePort].
func FreePort(tb testing.TB) int {
	tb.Helper()
	return FreePorts(tb, 1)[0]
}

// FreePorts is [proc.FreePorts].
func FreePorts(tb testing.TB, n int) []int {
	tb.Helper()
	ports, err := proc.FreePorts(n)
	if err != nil {
		tb.Fatal(err)
	}
	return ports
}
