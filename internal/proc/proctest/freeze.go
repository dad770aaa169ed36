//go:build unix

package proctest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// Freeze stops a process by SIGSTOP, and returns when it stands still: the signal takes a
// moment, in which it would still answer. SIGCONT ends that.
func Freeze(tb testing.TB, p *proc.Process) {
	tb.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		tb.Fatal(err)
	}
	const patience = 10 * time.Second
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
		if errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") T ") { // no /proc: as good as known
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("process %d doesn't stand still", p.PID())
		}
	}
}
