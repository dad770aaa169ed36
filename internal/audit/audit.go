// Package audit keeps the audit log: one line for each change, with who made it, what,
// to whom, from where, and what came of it. docs/logging.md has the fields.
//
// Lines are those of package logging: nothing in them can be forged, and no credential
// is in them. A line is one write to the end of the file, so several processes may
// share one.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/internal/logging"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// Message is that of every line, and what stands under [Key].
const Message = "audit"

// Key is the member that tells lines of the audit log from others in the same stream.
const Key = "log"

// Begun is the outcome of a change that is about to be made; only a strict log has it.
const Begun authapi.Outcome = "begun"

// Options of a log.
type Options struct {
	// File is where the lines go, "" for Writer.
	File string
	// Strict has each change written down, and on the disk, before it is made: what
	// can't be is not made.
	Strict bool
	// Writer takes the lines where there is no file, in the format of Text.
	Writer io.Writer
	Text   bool
	// Log is told of failures, with the line that could not be written.
	Log *slog.Logger
}

// Log is an audit log, that of [authapi.Options] for instance. It is safe for concurrent use.
type Log struct {
	o        Options
	handler  slog.Handler
	lines    prometheus.Counter
	failures prometheus.Counter

	mu      sync.Mutex
	file    *os.File // nil: there is none
	failing bool
	astray  bool // the file was moved away, and none can be opened in its place
}

// Open returns the log. The file is made where it is missing, for its owner alone.
func Open(o Options) (*Log, error) {
	l := &Log{
		o:        o,
		lines:    prometheus.NewCounter(prometheus.CounterOpts{Name: telemetry.AuditLines.Name, Help: telemetry.AuditLines.Help}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: telemetry.AuditFailures.Name, Help: telemetry.AuditFailures.Help}),
	}
	if o.File == "" {
		l.handler = logging.NewHandler(o.Writer, logging.Options{Text: o.Text})
		return l, nil
	}
	l.handler = logging.NewHandler(appender{l}, logging.Options{})
	return l, l.Reopen()
}

// Describe implements [prometheus.Collector].
func (l *Log) Describe(to chan<- *prometheus.Desc) {
	l.lines.Describe(to)
	l.failures.Describe(to)
}

// Collect implements [prometheus.Collector].
func (l *Log) Collect(to chan<- prometheus.Metric) {
	l.lines.Collect(to)
	l.failures.Collect(to)
}

// Reopen opens the file again, which somebody may have renamed: what rotates logs does.
// Where it can't, lines go where they went before.
func (l *Log) Reopen() error {
	if l.o.File == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reopen()
}

// reopen is Reopen; l.mu is held. What was written to the file before is on the disk
// when it returns, for those who wait for that.
func (l *Log) reopen() error {
	file, err := open(l.o.File)
	if err != nil {
		return err
	}
	before := l.file
	l.file = file
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o027 != 0 && l.o.Log != nil {
		l.o.Log.Warn("others can read the audit log, or write to it: take that away with chmod, or have it made anew",
			slog.String("file", l.o.File), slog.String("mode", info.Mode().Perm().String()))
	}
	if before == nil {
		return nil
	}
	return errors.Join(synced(before), before.Close())
}

// open opens the file for reading, too, where it may: to see whether the last line is whole.
func open(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() && info.Mode()&fs.ModeCharDevice == 0 {
		return nil, fmt.Errorf("%s is no file: name one, or stdout or stderr", path) // to open a pipe would wait for its reader
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // G304: the operator names the file
	if errors.Is(err, fs.ErrPermission) && info != nil {
		file, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0) //nolint:gosec // as above
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: make the directory, writable for this user", err)
	}
	if err != nil || info != nil {
		return file, err
	}
	if err := settle(file, filepath.Dir(path)); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// settle has a new file be there after a power failure, and belong to whom the directory
// does: a command of root must not take it from the server.
func settle(file *os.File, directory string) error {
	d, err := os.Open(directory) //nolint:gosec // as above
	if err != nil {
		return nil //nolint:nilerr // one that may not be read can't be synced
	}
	defer func() { _ = d.Close() }()
	if info, err := d.Stat(); err == nil {
		if err := hand(file, info); err != nil {
			return err
		}
	}
	return synced(d)
}

// Close closes the file. What is recorded afterwards fails.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := errors.Join(synced(l.file), l.file.Close())
	l.file = nil
	return err
}

// appender writes lines to the file.
type appender struct{ l *Log }

func (a appender) Write(line []byte) (int, error) {
	a.l.mu.Lock()
	defer a.l.mu.Unlock()
	if a.l.file == nil {
		return 0, fs.ErrClosed
	}
	if err := a.l.follow(); err != nil {
		return 0, err
	}
	text := line
	if torn(a.l.file) {
		text = append([]byte{'\n'}, line...)
	}
	if _, err := a.l.file.Write(text); err != nil {
		return 0, err
	}
	return len(line), nil
}

// follow sees to it that lines are where somebody looks for them: a file that was
// removed is made again, and one that was moved has another in its place, whether a
// signal said so or not. Where none can be opened, lines go to the one that was moved,
// but not to one that is gone. l.mu is held.
func (l *Log) follow() error {
	ours, err := l.file.Stat()
	if err != nil {
		return err
	}
	if !ours.Mode().IsRegular() {
		return nil
	}
	if there, err := os.Stat(l.o.File); err == nil && os.SameFile(ours, there) {
		l.astray = false
		return nil
	}
	err = l.reopen()
	switch {
	case err == nil:
		l.astray = false
	case links(ours) == 0:
		return fmt.Errorf("the file was removed, and can't be made again: %w", err)
	case !l.astray && l.o.Log != nil:
		l.astray = true
		l.o.Log.Error("the audit log was moved, and can't be opened again: its lines go where it was moved to",
			slog.String("file", l.o.File), slog.Any("error", err))
	}
	return nil
}

// torn reports whether the file ends in the middle of a line: by a disk that became full,
// a power failure, or another process. No line is lost with it.
func torn(file *os.File) bool {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	last := make([]byte, 1)
	_, err = file.ReadAt(last, info.Size()-1)
	return err == nil && last[0] != '\n'
}

// sync waits until the lines so far are on the disk.
func (l *Log) sync() error {
	l.mu.Lock()
	file := l.file
	l.mu.Unlock()
	if file == nil {
		return nil
	}
	err := synced(file)
	if errors.Is(err, fs.ErrClosed) { // reopened meanwhile, which did it
		return nil
	}
	return err
}

// synced is Sync for files that know what that is.
func synced(file *os.File) error {
	err := file.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}

// write waits for the disk where something was, or is to be, changed: with what is
// refused anybody could have others wait.
func (l *Log) write(ctx context.Context, o authapi.Outcome, attrs []slog.Attr) error {
	r := slog.NewRecord(time.Now(), slog.LevelInfo, Message, 0)
	r.AddAttrs(slog.String(Key, Message))
	r.AddAttrs(attrs...)
	r.AddAttrs(slog.String("outcome", string(o)))
	err := l.handler.Handle(ctx, r)
	if err == nil && l.o.Strict && o != authapi.OutcomeRefused {
		err = l.sync()
	}
	if err != nil {
		l.failures.Inc()
		return err
	}
	l.lines.Inc()
	return nil
}

// Permit implements [authapi.Audit]. It is called before a change is made, with what is
// known of it. Where the log is strict it writes that down, and an error says that it
// could not: the change must not be made then. Else it does nothing.
func (l *Log) Permit(ctx context.Context, attrs ...slog.Attr) error {
	if !l.o.Strict {
		return nil
	}
	err := l.write(ctx, Begun, attrs)
	l.tell(ctx, err, nil)
	return err
}

// Record writes down what came of a change. A line that can't be written goes to the
// log, with the reason.
func (l *Log) Record(ctx context.Context, o authapi.Outcome, attrs ...slog.Attr) {
	l.tell(ctx, l.write(ctx, o, attrs), append(slices.Clip(attrs), slog.String("outcome", string(o))))
}

// tell has the log know of failures: each that leaves out a line, and else the first and
// the end of them.
func (l *Log) tell(ctx context.Context, err error, line []slog.Attr) {
	l.mu.Lock()
	first, recovered := err != nil && !l.failing, err == nil && l.failing
	l.failing = err != nil
	l.mu.Unlock()
	switch {
	case l.o.Log == nil:
	case line != nil && err != nil:
		l.o.Log.LogAttrs(ctx, slog.LevelError, "a line of the audit log could not be written: here it is",
			slog.Any("error", err), slog.GroupAttrs(Message, line...))
	case first:
		l.o.Log.LogAttrs(ctx, slog.LevelError, "the audit log can't be written: changes are refused until it can", slog.Any("error", err))
	case recovered:
		l.o.Log.LogAttrs(ctx, slog.LevelWarn, "the audit log can be written again")
	}
}
