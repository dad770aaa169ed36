package proc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// DefaultGrace is how long a process may take to end after it was asked to.
const DefaultGrace = 5 * time.Second

// Options configure a process. The zero value is usable.
type Options struct {
	Dir    string        // working directory; "" for ours
	Env    []string      // KEY=value, in addition to our environment
	Output io.Writer     // gets stdout and stderr too, as they are written; may be nil
	Grace  time.Duration // between SIGTERM and SIGKILL; 0 for DefaultGrace
}

// Process is a running program, or one that has ended. Its methods are safe
// for concurrent use.
type Process struct {
	name   string
	cmd    *exec.Cmd
	cancel context.CancelFunc
	output *tail
	done   chan struct{}
	err    error // why it ended; read only after done is closed
}

// Start runs a program until it ends by itself, ctx is done or
// [Process.Stop] is called. In the last two cases it gets SIGTERM, and SIGKILL
// when the grace is over.
//
// The process leads a process group of its own, so that Ctrl-C at a terminal
// reaches only us and we stop our processes in the order we want. What is left
// of the group when the process has ended is killed.
func Start(ctx context.Context, path string, args []string, o Options) (*Process, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &Process{
		name:   filepath.Base(path),
		cancel: cancel,
		output: newTail(),
		done:   make(chan struct{}),
	}
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // G204: running programs is what this package is for
	cmd.Dir = o.Dir
	cmd.Env = append(os.Environ(), o.Env...)
	cmd.Stdout = io.Writer(p.output)
	if o.Output != nil {
		cmd.Stdout = io.MultiWriter(p.output, o.Output)
	}
	cmd.Stderr = cmd.Stdout // the same value: exec then uses one pipe and one writer at a time
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return terminate(cmd.Process) }
	cmd.WaitDelay = o.Grace
	if o.Grace <= 0 {
		cmd.WaitDelay = DefaultGrace
	}
	p.cmd = cmd

	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		cancel()
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	return p, nil
}

// run starts the process and waits for its end on one and the same thread:
// Linux sends the parent-death signal when the thread that forked ends, which
// can be long before the process that it belongs to (golang.org/issue/27505).
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	killGroup(p.cmd.Process.Pid)
	p.cancel()
	p.output.close()
	close(p.done)
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and all its output is there.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output returns what the process printed so far, stdout and stderr in the
// order of their writing: the last MiB of it, beginning with a whole line.
func (p *Process) Output() string { return p.output.String() }

// AwaitLine returns the first line of the output, printed already or still to
// come, for which match is true. It fails when the process ends without one,
// or ctx is done.
func (p *Process) AwaitLine(ctx context.Context, match func(line string) bool) (string, error) {
	for {
		text, more := p.output.snapshot()
		for line := range strings.Lines(text) {
			line, whole := strings.CutSuffix(line, "\n")
			if (whole || more == nil) && match(line) {
				return line, nil
			}
		}
		if more == nil {
			return "", fmt.Errorf("%s ended without the awaited line%s", p.name, p.lastWords())
		}
		select {
		case <-more:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for a line of %s: %w%s", p.name, ctx.Err(), p.lastWords())
		}
	}
}

// Ready waits until probe succeeds. It fails when the process ends first, or
// ctx is done; the error then holds the probe's last error and the last lines
// of output.
func (p *Process) Ready(ctx context.Context, probe Probe) error {
	const interval = 10 * time.Millisecond
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %w%s", p.name, cmp.Or(p.err, errEnded), p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w)%s", p.name, ctx.Err(), err, p.lastWords())
		case <-tick.C:
		}
	}
}

var errEnded = errors.New("exit status 0")

// Signal sends a signal, os.ErrProcessDone when the process has ended.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// Stop asks the process to end, kills it when the grace is over, and returns
// when it has ended. The error says that it had to be killed, or had ended
// before by itself with a failure. Calling it again is harmless.
func (p *Process) Stop() error {
	p.cancel()
	<-p.done
	if p.err == nil || errors.Is(p.err, context.Canceled) || terminated(p.cmd.ProcessState) {
		return nil
	}
	return fmt.Errorf("stop %s: %w", p.name, p.err)
}

// Kill ends the process at once, as a crash would, and returns when it has
// ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only when it has ended already
	<-p.done
}

// lastWords returns the last lines of the output for an error message.
func (p *Process) lastWords() string {
	const lines = 20
	text := strings.TrimRight(p.Output(), "\n")
	if text == "" {
		return ""
	}
	all := strings.Split(text, "\n")
	return "; its last output:\n  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
