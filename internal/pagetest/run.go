package pagetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// Options say how a page is run.
type Options struct {
	// Path holds directories with programs that come first.
	Path []string
	// Env is added to the environment: "NAME=value".
	Env []string
	// Patience bounds the whole; zero: five minutes.
	Patience time.Duration
}

// envoy starts Envoy so that several can run on a machine, as those of pages do at a time.
const envoy = `#!/bin/sh
case "$*" in *--use-dynamic-base-id*) exec %[1]s "$@" ;; esac
exec %[1]s --use-dynamic-base-id "$@"
`

// Run does what the page tells, and fails where that fails, or where something else comes
// out. The directory in which it was done is gone after the test.
func Run(t *testing.T, file string, o Options) {
	t.Helper()
	text, err := os.ReadFile(filepath.Clean(file))
	require.NoError(t, err)
	page, err := Parse(string(text))
	require.NoError(t, err, file)
	require.NotEmpty(t, page.Blocks, "%s: there is nothing to run", file)
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed: pages are not run")
	}
	bin := t.TempDir()
	for _, program := range page.Needs {
		path, err := filepath.Abs(proctest.Need(t, program))
		require.NoError(t, err)
		if program == "envoy" {
			require.NoError(t, os.WriteFile(filepath.Join(bin, program), []byte(fmt.Sprintf(envoy, quote(path))), 0o700)) //nolint:gosec // G306: a program
			continue
		}
		require.NoError(t, os.Symlink(path, filepath.Join(bin, program)))
	}
	o.Path = append([]string{bin}, o.Path...)
	var free []string
	for _, port := range proctest.FreePorts(t, len(page.Ports)) {
		free = append(free, strconv.Itoa(port))
	}
	require.NoError(t, page.do(t.Context(), bash, t.TempDir(), t.TempDir(), free, o), file)
}

// do runs the page in a directory.
func (p Page) do(ctx context.Context, bash, dir, home string, ports []string, o Options) error {
	steps := p.steps(exchanger(p.Ports, ports))
	program := filepath.Join(home, "page.sh")
	if err := os.WriteFile(program, []byte(script(steps, p.Ports, ports)), 0o600); err != nil {
		return err
	}
	if o.Patience == 0 {
		o.Patience = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, o.Patience)
	defer cancel()
	path := strings.Join(append(o.Path, os.Getenv("PATH")), string(filepath.ListSeparator))
	var all bytes.Buffer
	shell, err := proc.Start(ctx, bash, []string{program}, proc.Options{
		Dir: dir, Output: &all, Env: append([]string{"PATH=" + path, "HOME=" + home, "TERMINALS=" + home, "NO_COLOR=1"}, o.Env...),
	})
	if err != nil {
		return err
	}
	<-shell.Done()
	failed := shell.Stop()
	said := outputs(all.String())
	if len(said) == 0 {
		return fmt.Errorf("nothing was run: %w\n%s", failed, all.String())
	}
	back := exchanger(ports, p.Ports)
	if done := len(said) - 1; done < len(steps) {
		if ctx.Err() != nil {
			failed = ctx.Err()
		}
		return fmt.Errorf("line %d fails:\n%s\n%s\n%w%s", steps[done].line, back(steps[done].script), back(said[done]), failed, back(terminals(home)))
	}
	for i, s := range steps {
		if s.checks && !fits(back(s.wants), back(said[i])) {
			return fmt.Errorf("line %d:\n%s\nis to print\n%s\nand prints\n%s%s", s.line, back(s.script), back(s.wants), back(said[i]), back(terminals(home)))
		}
	}
	return nil
}

// terminals is how what ran in the background ended, or went on.
func terminals(home string) string {
	const enough = 2000
	var all strings.Builder
	files, _ := filepath.Glob(filepath.Join(home, "[0-9]*"))
	for _, file := range files {
		text, _ := os.ReadFile(filepath.Clean(file)) //nolint:gosec // G703: below the home of the page
		if len(text) > enough {
			text = text[len(text)-enough:]
		}
		fmt.Fprintf(&all, "\n\nterminal %s:\n%s", filepath.Base(file), text)
	}
	return all.String()
}
