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
	code := m.Run()
	if *reportFile != "" {
		if err := results.write(*reportFile); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// begin skips a fault where it can't run: without its programs, or in the quick
// run under the race detector, for which the tests of the packages are the right
// ones.
func begin(t *testing.T, programs ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("faults take their time: run the tests without -short")
	}
	for _, p := range programs {
		proctest.Need(t, p)
	}
}

// of returns how much of something there is to be: in the short form, or in the
// long one.
func of[T int | time.Duration](short, long T) T {
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
