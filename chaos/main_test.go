package chaos

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

var (
	full       = flag.Bool("full", false, "the long form of each fault")
	reportFile = flag.String("report", "", "write the table of results to this `file`")
)

// runDir is where the binary is; it is gone after the run.
var runDir string

func TestMain(m *testing.M) {
	flag.Parse()
	logging.Disable() // the tests' own clients lose their servers all the time
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gatehouse-chaos-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	runDir = dir
	defer func() { _ = os.RemoveAll(dir) }()
	if *reportFile == "" {
		return m.Run()
	}
	if err := results.start(*reportFile); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := results.finish(code); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// begin takes a test into the report, and skips it where it can't run: without its
// programs, or in the quick run under the race detector, for which the tests of the
// packages are the right ones.
func begin(t *testing.T, programs ...string) {
	t.Helper()
	tr := results.begin(t)
	skip := func(why string) {
		tr.skipped = why
		t.Skip(why)
	}
	if testing.Short() {
		skip("faults take their time: run the tests without -short")
	}
	for _, p := range programs {
		if _, err := proc.Find(p); err != nil {
			tr.skipped = err.Error()
		}
		proctest.Need(t, p)
	}
}

// beginLong is begin for what has no short form.
func beginLong(t *testing.T, why string, programs ...string) {
	t.Helper()
	begin(t, programs...)
	if !*full {
		t.Skip("in the long form only: " + why)
	}
}

// of returns how much of something there is to be: in the short form, or in the
// long one.
func of[T int | string | time.Duration](short, long T) T {
	if *full {
		return long
	}
	return short
}

// gatehouseBinary builds gatehouse, once.
var gatehouseBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(runDir, "gatehouse")
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", path, "../cmd/gatehouse")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build gatehouse: %w\n%s", err, output.Bytes())
	}
	return path, nil
})
