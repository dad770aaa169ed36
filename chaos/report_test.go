package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// result is a line of the report.
type result struct {
	fault    string
	requests int           // that were answered, or should have been
	wrong    int           // answers that must not be
	refused  int           // answers that it can't be known now: 503
	window   time.Duration // from the first of these to the last
	recovery time.Duration // from the end of the fault to the last of these; see verdict.recovery
	note     string
}

// table collects the results of a run.
type table struct {
	mu   sync.Mutex
	rows []result
}

var results table

// add reports a result.
func (all *table) add(t *testing.T, r result) {
	t.Helper()
	all.mu.Lock()
	all.rows = append(all.rows, r)
	all.mu.Unlock()
	t.Log(r.line())
}

const (
	head = "| fault | requests | wrong answers | 503 | window | recovery | |\n"
	rule = "|---|---:|---:|---:|---:|---:|---|\n"
)

func (r result) line() string {
	return fmt.Sprintf("| %s | %d | %d | %d | %s | %s | %s |", r.fault, r.requests, r.wrong, r.refused, span(r.window), span(r.recovery), r.note)
}

// span writes a time as people read it, and none as a dash.
func span(d time.Duration) string {
	switch {
	case d <= 0:
		return "–"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// write writes the table, in the order of the tests.
func (all *table) write(file string) error {
	all.mu.Lock()
	defer all.mu.Unlock()
	var text strings.Builder
	text.WriteString(head + rule)
	for _, r := range all.rows {
		text.WriteString(r.line() + "\n")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text.String()), 0o600)
}

func TestReport(t *testing.T) {
	var all table
	all.add(t, result{fault: "Redis is killed", requests: 1200, refused: 30, window: 1234567 * time.Microsecond, note: "started again"})
	file := filepath.Join(t.TempDir(), "below", "report.md")
	require.NoError(t, all.write(file))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, head+rule+"| Redis is killed | 1200 | 0 | 30 | 1.23s | – | started again |\n", string(text))
}
