package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// patience bounds every wait in these tests; none of them takes nearly as
// long when all is well.
const patience = 30 * time.Second

// runDir is the directory of this run; removed at its end.
var runDir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	var err error
	if runDir, err = os.MkdirTemp("", "gatehouse-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(runDir) }()

	proctest.AtOnce(4)
	code = m.Run()
	for _, stop := range sharedStacks.stop() {
		if err := stop(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: stop the shared stack:", err)
			code = 1
		}
	}
	// After everything has ended and its last words are there.
	if err := journal.holdsNoSecret(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: logs and metrics of the whole run:", err)
		code = 1
	}
	return code
}

// binaries builds the programs under test, once, and returns the directory
// that holds them. With the race detector on, they have it too.
var binaries = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(runDir, "bin")
	args := []string{"build", "-ldflags=-s -w"} // as they are released; it is faster, too
	if raceEnabled {
		args = append(args, "-race")
	}
	args = append(args, "-o", dir+string(filepath.Separator),
		"./cmd/gatehouse", "./services/user-service", "./services/order-service", "./examples/trusted-backend")
	cmd := exec.CommandContext(context.Background(), "go", args...)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs under test: %w\n%s", err, out)
	}
	return dir, nil
})
