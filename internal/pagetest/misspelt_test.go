package pagetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// Nothing falls out of the test without a word.
func TestParseRefusesWhatItWouldMiss(t *testing.T) {
	for text, want := range map[string]string{
		"a\n<!-- run needs=envoy -->":     "line 2: is this meant for the test?",
		"<!-- wait: one\ntwo -->":         "line 1: is this meant for the test?",
		"<!--not run: so -->\n~~~go\n~~~": "line 1: is this meant for the test?",
	} {
		_, err := Parse(page(text))
		require.ErrorContains(t, err, want, text)
	}
}

func TestConsoleBeginsWithACommand(t *testing.T) {
	for _, text := range []string{"~~~console\nsaid\n$ true\n~~~", "~~~console\n$true\nsaid\n~~~"} {
		_, err := do(t, text)
		require.ErrorContains(t, err, "line 2 fails:\n", text)
		require.ErrorContains(t, err, "\na console block begins with a command, as in $ true\n", text)
	}
}

// A program that listens already would answer in place of the new one.
func TestTwoListenOnOnePort(t *testing.T) {
	proctest.Need(t, "redis-server")
	_, err := do(t, `<!-- run: ports=6399 -->
~~~sh background port=6399
redis-server --port 6399 --save '' --bind 127.0.0.1
~~~
~~~sh background port=6399
sleep 60
~~~
`)
	require.ErrorContains(t, err, "somebody listens on port 6399 already")
}

// What a page put into the background ends with the test, however that ends.
func TestNothingOutlivesTheTest(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere a process can outlive its parent")
	}
	if file := os.Getenv("PAGETEST_DIES"); file != "" {
		go func() {
			for {
				if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
					os.Exit(3) // as a panic, a timeout and Ctrl-C do
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		_, err := do(t, "~~~sh background\necho $$ >\"$PAGETEST_DIES\"; exec sleep 600\n~~~\n~~~sh\nsleep 600\n~~~")
		require.NoError(t, err)
	}
	file := filepath.Join(t.TempDir(), "pid")
	self := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNothingOutlivesTheTest$")
	self.Env = append(self.Environ(), "PAGETEST_DIES="+file)
	var exit *exec.ExitError
	out, err := self.CombinedOutput()
	require.ErrorAs(t, err, &exit, "%s", out)
	require.Equal(t, 3, exit.ExitCode(), "%s", out)
	pid, err := os.ReadFile(file)
	require.NoError(t, err)
	status := filepath.Join("/proc", strings.TrimSpace(string(pid)), "stat")
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(status)
		return err != nil || strings.Contains(string(text), ") Z")
	}, time.Minute, 50*time.Millisecond, "it lives on")
}
