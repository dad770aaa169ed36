package chaos

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// result is a row of the report.
type result struct {
	fault    string
	requests int           // that were answered, or should have been
	wrong    int           // answers that must not be
	refused  int           // answers that it can't be known now: 503
	window   time.Duration // from the first of these to the last
	recovery time.Duration // from the end of the fault to the last of these; see verdict.recovery
	note     string
}

// table collects what came of the faults of a run. The file is written whenever
// something is known, so that it tells what there was to tell whatever happens then.
type table struct {
	file string // "" for none
	head string // what was run, and where

	mu      sync.Mutex
	began   time.Time
	rows    []result
	trials  []*trial
	code    int // of the run
	ended   bool
	failure error // to write
}

var results table

// trial is a test that breaks something.
type trial struct {
	test    string
	skipped string                         // why
	judges  []func() (requests, wrong int) // what was asked and misjudged so far
	rows    int
	outcome string  // "" as long as it runs
	passes  bool    // as it seems: a panic looks the same to a test's cleanups
	own     *result // its row, where it added none
}

// The outcomes of a trial.
const (
	passed  = "passed"
	failing = "FAILED"
	skipped = "SKIPPED"
	pending = "DID NOT END"
)

// begin notes a trial, which has a row from now on, whatever comes of it.
func (all *table) begin(t *testing.T) *trial {
	t.Helper()
	tr := &trial{test: t.Name()}
	all.change(func() {
		all.settle()
		all.trials = append(all.trials, tr)
	})
	t.Cleanup(func() {
		switch {
		case t.Failed():
			all.end(tr, failing)
		case t.Skipped():
			all.end(tr, skipped)
		default:
			all.end(tr, passed)
		}
	})
	return tr
}

// end notes what came of a trial.
func (all *table) end(tr *trial, outcome string) {
	all.change(func() {
		r := result{fault: tr.test}
		for _, judged := range tr.judges {
			requests, wrong := judged()
			r.requests, r.wrong = r.requests+requests, r.wrong+wrong
		}
		tr.judges = nil
		switch outcome {
		case passed:
			tr.passes = true
			if tr.rows == 0 {
				r.note, tr.own = passed, &r
			}
			return
		case failing:
			r.note = "**" + failing + "**: the output tells why"
		case skipped:
			r.note = skipped + ": " + cmp.Or(tr.skipped, "the output tells why")
		}
		tr.outcome = outcome
		all.rows = append(all.rows, r)
	})
}

// settle has the trials that seemed to pass have passed: the run goes on. Those that
// added no row get one. all.mu is held.
func (all *table) settle() {
	for _, tr := range all.trials {
		if !tr.passes || tr.outcome != "" {
			continue
		}
		tr.outcome = passed
		if tr.own != nil {
			all.rows = append(all.rows, *tr.own)
		}
	}
}

// judges has a trial that fails tell how many answers were wrong.
func (all *table) judges(t *testing.T, judged func() (requests, wrong int)) {
	t.Helper()
	all.change(func() {
		if tr := all.trial(t); tr != nil {
			tr.judges = append(tr.judges, judged)
		}
	})
}

// trial returns the one that a test belongs to; nil if there is none.
func (all *table) trial(t *testing.T) *trial {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	if i := slices.IndexFunc(all.trials, func(tr *trial) bool { return tr.test == name }); i >= 0 {
		return all.trials[i]
	}
	return nil
}

// add reports a result.
func (all *table) add(t *testing.T, r result) {
	t.Helper()
	all.change(func() {
		all.rows = append(all.rows, r)
		if tr := all.trial(t); tr != nil {
			tr.rows++
		}
	})
	t.Log(r.line())
}

// change changes the table, and writes it.
func (all *table) change(do func()) {
	all.mu.Lock()
	defer all.mu.Unlock()
	do()
	if all.file != "" {
		all.failure = cmp.Or(all.failure, all.write())
	}
}

// start begins the report of a run. An older one is gone.
func (all *table) start(file string) error {
	all.file, all.head, all.began = file, surroundings(), time.Now()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	all.change(func() {})
	return all.failure
}

// finish ends it with the code of the run.
func (all *table) finish(code int) error {
	all.change(func() {
		all.settle()
		all.ended, all.code = true, code
	})
	return all.failure
}

func (all *table) write() error { return os.WriteFile(all.file, []byte(all.text()), 0o600) }

const (
	columns = "| fault | requests | wrong answers | 503 | window | recovery | |\n"
	rule    = "|---|---:|---:|---:|---:|---:|---|\n"
)

// text is the page, with the rows in the order of their coming.
func (all *table) text() string {
	counts := map[string]int{}
	rows := slices.Clone(all.rows)
	for _, tr := range all.trials {
		outcome := cmp.Or(tr.outcome, pending)
		counts[outcome]++
		if tr.outcome == "" {
			rows = append(rows, result{fault: tr.test, note: "**" + pending + "**"})
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# Faults\n\n%s\n\n", all.head)
	if all.ended {
		verdict := "It ended well"
		if all.code != 0 {
			verdict = "**It failed**"
		}
		fmt.Fprintf(&text, "%s after %v: %d tests passed, %d failed, %d were skipped.\n\n", verdict, time.Since(all.began).Round(time.Second), counts[passed], counts[failing], counts[skipped])
	} else {
		fmt.Fprintf(&text, "**It has not ended, or not by itself.** So far %d tests passed, %d failed, %d were skipped.\n\n", counts[passed], counts[failing], counts[skipped])
	}
	text.WriteString(columns + rule)
	for _, r := range rows {
		text.WriteString(r.line() + "\n")
	}
	return text.String()
}

func (r result) line() string {
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |",
		cell(r.fault), number(r.requests, true), number(r.wrong, r.requests == 0 && r.wrong == 0), number(r.refused, r.requests == 0), span(r.window), span(r.recovery), cell(r.note))
}

// cell keeps a text in its cell.
func cell(text string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ").Replace(strings.TrimSpace(text))
}

// number writes a number, and 0 as a dash where it says that nothing was counted.
func number(n int, dash bool) string {
	if n == 0 && dash {
		return "–"
	}
	return strconv.Itoa(n)
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

// millis writes a time in milliseconds.
func millis(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 1, 64) + " ms"
}

// surroundings says what is run, and where.
func surroundings() string {
	form := "short"
	if *full {
		form = "long"
	}
	commit := said("git", `[0-9a-f]{7,}`, "rev-parse", "--short=12", "HEAD")
	if said("git", `.+`, "status", "--porcelain") != unknownVersion {
		commit += " with changes"
	}
	return fmt.Sprintf("Commit %s, %s, %s form. %d processors (%s/%s), %s, Envoy %s, Redis %s.",
		commit, time.Now().UTC().Format("2 January 2006 15:04 MST"), form, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(),
		said("envoy", `\d+\.\d+\.\d+`, "--version"), said("redis-server", `\d+\.\d+\.\d+`, "--version"))
}

const unknownVersion = "unknown"

// said is what a program says about itself that has a form.
func said(program, form string, args ...string) string {
	path, err := proc.Find(program)
	if err != nil {
		path = program
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		return unknownVersion
	}
	return cmp.Or(string(bytes.TrimSpace(regexp.MustCompile(form).Find(out))), unknownVersion)
}

// Whatever comes of a test has a row, while it runs already.
func TestReport(t *testing.T) {
	all := table{}
	require.NoError(t, all.start(filepath.Join(t.TempDir(), "below", "report.md")))
	rows := func() string {
		text, err := os.ReadFile(all.file)
		require.NoError(t, err)
		_, rows, found := strings.Cut(string(text), columns+rule)
		require.True(t, found)
		return rows
	}
	require.Regexp(t, `^Commit .+ processors`, all.head)
	const row = "| Redis is killed | 1200 | 0 | 30 | 1.23s | – | started \\| again |\n"
	const unended = "| TestReport | – | – | – | – | – | **DID NOT END** |\n"
	t.Run("fault", func(t *testing.T) { // it is of the trial of its parent
		all.trials = []*trial{{test: "TestReport"}}
		all.add(t, result{fault: "Redis is killed", requests: 1200, refused: 30, window: 1234567 * time.Microsecond, note: "started | again"})
		require.Equal(t, row+unended, rows())
		all.end(all.trials[0], passed)
		require.Equal(t, row+unended, rows(), "it may be a panic")
		all.change(all.settle)
		require.Equal(t, row, rows())
	})
	for outcome, want := range map[string]string{
		passed:  "| TestReport | 1300 | 0 | 0 | – | – | passed |\n",
		failing: "| TestReport | 1300 | 2 | 0 | – | – | **FAILED**: the output tells why |\n",
		skipped: "| TestReport | – | – | – | – | – | SKIPPED: no Redis |\n",
	} {
		tr := &trial{test: "TestReport"}
		all.rows, all.trials = nil, []*trial{tr}
		switch outcome {
		case skipped:
			tr.skipped = "no Redis"
		case failing:
			all.judges(t, func() (int, int) { return 1000, 2 })
			all.judges(t, func() (int, int) { return 300, 0 })
		case passed:
			all.judges(t, func() (int, int) { return 1300, 0 })
		}
		all.end(tr, outcome)
		all.change(all.settle)
		require.Equal(t, want, rows())
	}
	require.NoError(t, all.finish(1))
	text, err := os.ReadFile(all.file)
	require.NoError(t, err)
	require.Contains(t, string(text), "**It failed** after")
}
