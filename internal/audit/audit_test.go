package audit_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/internal/audit"
	"github.com/gatehouse-auth/gatehouse/internal/logging"
)

func lines(t *testing.T, text string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var entry map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &entry), line)
		delete(entry, "time")
		all = append(all, entry)
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

func open(t *testing.T, o audit.Options) (*audit.Log, *bytes.Buffer) {
	t.Helper()
	var told bytes.Buffer
	o.Log = logging.New(&told, logging.Options{})
	l, err := audit.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l, &told
}

func TestLinesOfAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	l, told := open(t, audit.Options{File: path})
	require.NoError(t, l.Permit(t.Context(), slog.String("action", "login")))
	l.Record(t.Context(), authapi.OutcomeApplied, slog.String("action", "login"), slog.String("user", "al\u202eice\n{}"), slog.String("token", "eyJhbGciOiJub25lIn0.e30."))
	require.Equal(t, []map[string]any{{
		"level": "INFO", "msg": "audit", "log": "audit", "action": "login", "user": "al\u202eice\n{}", "token": "[secret]", "outcome": "applied",
	}}, lines(t, read(t, path)), "and none before the change")
	require.NotContains(t, read(t, path), "\u202e")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.Empty(t, told.String())

	// A file that is there is continued, and its mode is the operator's.
	require.NoError(t, os.Chmod(path, 0o644))
	second, told := open(t, audit.Options{File: path})
	second.Record(t.Context(), authapi.OutcomeRefused)
	require.Len(t, lines(t, read(t, path)), 2)
	require.Contains(t, told.String(), "others can read the audit log")
}

// What rotates logs renames the file and asks for another one.
func TestReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	l, _ := open(t, audit.Options{File: path, Strict: true})
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 50 {
				l.Record(t.Context(), authapi.OutcomeApplied)
			}
		})
	}
	require.NoError(t, os.Rename(path, path+".1"))
	require.NoError(t, l.Reopen())
	writers.Wait()
	l.Record(t.Context(), authapi.OutcomeApplied, slog.Bool("last", true))
	after := lines(t, read(t, path))
	require.Len(t, append(lines(t, read(t, path+".1")), after...), 201, "no line is lost")
	require.Equal(t, true, after[len(after)-1]["last"])

	require.NoError(t, os.Rename(path, path+".2"))
	require.NoError(t, os.Mkdir(path, 0o700))
	require.ErrorContains(t, l.Reopen(), "is no file")
	l.Record(t.Context(), authapi.OutcomeApplied)
	require.Len(t, lines(t, read(t, path+".2")), len(after)+1, "it goes where it went before")
}

// Lines are where somebody looks for them, though nobody said that the file was moved,
// and what is not is not passed off as written.
func TestTheFileIsFollowed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	l, told := open(t, audit.Options{File: path, Strict: true})
	l.Record(t.Context(), authapi.OutcomeApplied)
	require.NoError(t, os.Remove(path))
	require.NoError(t, l.Permit(t.Context()))
	require.Len(t, lines(t, read(t, path)), 1)
	require.NoError(t, os.Rename(path, path+".1"))
	require.NoError(t, l.Permit(t.Context()))
	require.Len(t, lines(t, read(t, path)), 1)
	require.Len(t, lines(t, read(t, path+".1")), 1)
	require.Empty(t, told.String())

	require.NoError(t, os.Rename(path, path+".2"))
	require.NoError(t, os.Mkdir(path, 0o700)) // by mistake
	require.NoError(t, l.Permit(t.Context()))
	require.NoError(t, l.Permit(t.Context()))
	require.Len(t, lines(t, read(t, path+".2")), 3)
	require.Equal(t, 1, strings.Count(told.String(), "its lines go where it was moved to"))
	require.NoError(t, os.Remove(path+".2"))
	require.ErrorContains(t, l.Permit(t.Context()), "removed, and can't be made again")
	require.NoError(t, os.Remove(path))
	require.NoError(t, l.Permit(t.Context()))
	require.Len(t, lines(t, read(t, path)), 1)
}

// A strict log has the change on the disk before it is made.
func TestStrict(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	l, _ := open(t, audit.Options{File: path, Strict: true})
	require.NoError(t, l.Permit(t.Context(), slog.String("action", "login")))
	require.Equal(t, "begun", lines(t, read(t, path))[0]["outcome"])
	l.Record(t.Context(), authapi.OutcomeNotConfirmed, slog.String("action", "login"))
	require.Equal(t, "not_confirmed", lines(t, read(t, path))[1]["outcome"])
}

// On a full disk a change is told of in the log, or refused; both are counted.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skip("this system has no " + full)
	}
	l, told := open(t, audit.Options{File: full})
	require.NoError(t, l.Permit(t.Context()))
	l.Record(t.Context(), authapi.OutcomeApplied, slog.String("action", "login"), slog.String("user", "alice"))
	entry := lines(t, told.String())[0]
	require.Equal(t, "ERROR", entry["level"])
	require.Contains(t, entry["error"], syscall.ENOSPC.Error())
	require.Equal(t, map[string]any{"action": "login", "user": "alice", "outcome": "applied"}, entry["audit"], "the line is not lost")
	require.InDelta(t, 1, count(t, l, "gatehouse_audit_failures_total"), 0)
	require.InDelta(t, 0, count(t, l, "gatehouse_audit_lines_total"), 0)

	l, told = open(t, audit.Options{File: full, Strict: true})
	for range 3 {
		require.ErrorIs(t, l.Permit(t.Context()), syscall.ENOSPC)
	}
	require.Len(t, lines(t, told.String()), 1, "said once")
}

// A line that was cut off takes no other one with it, whoever began it, and what is well
// again is told.
func TestATornLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	const half = `{"time":"202`
	require.NoError(t, os.WriteFile(path, []byte(half), 0o600)) // a power failure
	l, told := open(t, audit.Options{File: path})
	l.Record(t.Context(), authapi.OutcomeApplied)
	require.NoError(t, os.WriteFile(path, []byte(read(t, path)+half), 0o600)) // another process
	l.Record(t.Context(), authapi.OutcomeApplied)
	l.Record(t.Context(), authapi.OutcomeApplied)
	text := read(t, path)
	require.Equal(t, 2, strings.Count(text, half+"\n"))
	require.Len(t, lines(t, strings.ReplaceAll(text, half+"\n", "")), 3)

	require.NoError(t, l.Close())
	l.Record(t.Context(), authapi.OutcomeApplied)
	require.NoError(t, l.Reopen())
	l.Record(t.Context(), authapi.OutcomeApplied)
	require.Contains(t, told.String(), "can be written again")
}

func TestNoFileIsTheLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l, _ := open(t, audit.Options{Writer: &out, Text: true})
	l.Record(t.Context(), authapi.OutcomeApplied, slog.String("user", "a b"))
	require.Contains(t, out.String(), `level=INFO msg=audit log=audit user="a b" outcome=applied`+"\n")
	require.NoError(t, l.Reopen())
	require.NoError(t, l.Close())
}

func count(t *testing.T, l *audit.Log, name string) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	require.NoError(t, reg.Register(l))
	all, err := reg.Gather()
	require.NoError(t, err)
	for _, m := range all {
		if m.GetName() == name {
			return m.GetMetric()[0].GetCounter().GetValue()
		}
	}
	require.Fail(t, name)
	return 0
}
