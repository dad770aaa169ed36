package proc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// roleVariable turns the test binary into one of the programs below.
const roleVariable = "GATEHOUSE_PROC_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "parent" {
		parentThatIsKilled()
		return
	}
	os.Exit(m.Run())
}

// parentThatIsKilled starts a child that ignores polite signals, says so, and
// waits for its own end.
func parentThatIsKilled() {
	if _, err := proc.Start(context.Background(), "/bin/sh", []string{"-c", "trap '' TERM HUP; exec sleep 600"}, proc.Options{}); err != nil {
		_, _ = os.Stdout.WriteString(err.Error())
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString("started\n")
	select {}
}

func shell(t *testing.T, script string, o proc.Options) *proc.Process {
	t.Helper()
	p, err := proc.Start(t.Context(), "/bin/sh", []string{"-c", script}, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Stop() })
	return p
}

func TestOutputOfBothStreamsIsKeptInOrder(t *testing.T) {
	var also bytes.Buffer
	p := shell(t, `echo one; echo two >&2; echo "$GREETING in $PWD"; printf end`, proc.Options{
		Dir: "/", Env: []string{"GREETING=hello"}, Output: &also,
	})
	<-p.Done()
	require.Equal(t, "one\ntwo\nhello in /\nend", p.Output())
	require.Equal(t, p.Output(), also.String())
}

func TestStartNamesTheProgramThatIsMissing(t *testing.T) {
	_, err := proc.Start(t.Context(), "/nowhere/redis-server", nil, proc.Options{})
	require.ErrorContains(t, err, "start redis-server")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAwaitLine(t *testing.T) {
	is := func(want string) func(string) bool { return func(line string) bool { return line == want } }

	p := shell(t, `echo early; read x; echo late; exec sleep 600`, proc.Options{})
	line, err := p.AwaitLine(t.Context(), is("late"))
	require.NoError(t, err, "stdin is empty, so read returns at once")
	require.Equal(t, "late", line)
	line, err = p.AwaitLine(t.Context(), is("early"))
	require.NoError(t, err, "lines that were printed before count")
	require.Equal(t, "early", line)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.AwaitLine(ctx, is("never"))
	require.ErrorIs(t, err, context.Canceled)

	p = shell(t, `printf 'a line\nno newline'`, proc.Options{})
	_, err = p.AwaitLine(t.Context(), is("no newline"))
	require.NoError(t, err, "the last line is whole when the process has ended")
	_, err = p.AwaitLine(t.Context(), is("never"))
	require.ErrorContains(t, err, "ended without the awaited line; its last output:\n  a line\n  no newline")
}

func TestReadyReportsAnEarlyEnd(t *testing.T) {
	p := shell(t, `echo "bad configuration"; exit 3`, proc.Options{})
	err := p.Ready(t.Context(), func(context.Context) error { return errors.New("nothing there") })
	require.ErrorContains(t, err, "sh ended before it was ready: exit status 3; its last output:\n  bad configuration")

	p = shell(t, `exit 0`, proc.Options{})
	err = p.Ready(t.Context(), func(context.Context) error { return errors.New("nothing there") })
	require.ErrorContains(t, err, "ended before it was ready: exit status 0")
}

func TestReadyReportsTheLastProbe(t *testing.T) {
	p := shell(t, `exec sleep 600`, proc.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	refused := errors.New("refused")
	err := p.Ready(ctx, func(context.Context) error { return refused })
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, refused)
}

func TestProbes(t *testing.T) {
	status := http.StatusServiceUnavailable
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "PRE_INITIALIZING\n")
	}))
	defer server.Close()
	require.ErrorContains(t, proc.HTTP(server.URL)(t.Context()), "503 Service Unavailable: PRE_INITIALIZING")
	status = http.StatusOK
	require.NoError(t, proc.HTTP(server.URL)(t.Context()))
	require.NoError(t, proc.TCP(server.Listener.Addr().String())(t.Context()))
	require.ErrorContains(t, proc.RedisPing(server.Listener.Addr().String())(t.Context()), "answers HTTP/1.1 400")

	port, err := proc.FreePort()
	require.NoError(t, err)
	for _, probe := range []proc.Probe{proc.TCP(proc.Local(port)), proc.HTTP("http://" + proc.Local(port)), proc.RedisPing(proc.Local(port))} {
		require.ErrorIs(t, probe(t.Context()), syscall.ECONNREFUSED)
	}
}

func TestStopAsksFirst(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		want   string // last line of output
		err    string
	}{
		"handles it":             {`trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done`, "bye", ""},
		"ends by the signal":     {`echo up; exec sleep 600`, "up", ""},
		"reports it as a status": {`trap 'exit 143' TERM; echo up; while :; do sleep 0.01; done`, "up", ""},
		"fails on the way out":   {`trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done`, "up", "exit status 7"},
		"ignores it":             {`trap '' TERM; echo up; while :; do sleep 0.01; done`, "up", "killed"},
	} {
		t.Run(name, func(t *testing.T) {
			grace := 20 * time.Second
			if tc.err == "killed" {
				grace = 200 * time.Millisecond
			}
			p := shell(t, tc.script, proc.Options{Grace: grace})
			_, err := p.AwaitLine(t.Context(), func(line string) bool { return line == "up" })
			require.NoError(t, err)
			for range 2 {
				if err := p.Stop(); tc.err == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, tc.err)
				}
			}
			lines := strings.Split(strings.TrimSpace(p.Output()), "\n")
			require.Equal(t, tc.want, lines[len(lines)-1])
		})
	}
}

func TestStopReportsAnEarlierFailure(t *testing.T) {
	p := shell(t, `exit 3`, proc.Options{})
	<-p.Done()
	require.EqualError(t, p.Stop(), "stop sh: exit status 3")
}

func TestKillIsACrash(t *testing.T) {
	p := shell(t, `trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done`, proc.Options{})
	_, err := p.AwaitLine(t.Context(), func(line string) bool { return line == "up" })
	require.NoError(t, err)
	p.Kill()
	require.NotContains(t, p.Output(), "bye")
	require.ErrorIs(t, p.Signal(syscall.SIGHUP), os.ErrProcessDone)
}

// A process that leaves a background process behind, which holds the pipe of
// its output, must neither hang us nor leave anything.
func TestNothingOfTheGroupIsLeft(t *testing.T) {
	p := shell(t, `sleep 600 & echo $!; exec sleep 600`, proc.Options{Grace: 200 * time.Millisecond})
	line, err := p.AwaitLine(t.Context(), func(string) bool { return true })
	require.NoError(t, err)
	pid, err := strconv.Atoi(line)
	require.NoError(t, err)
	_ = p.Stop()
	require.Eventually(t, func() bool { return ended(pid) }, 5*time.Second, 5*time.Millisecond)
}

// ended reports whether a process that is not our child runs no more: gone, or
// a zombie that nobody has collected yet.
func ended(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return bytes.HasPrefix(state, []byte("Z")) || bytes.HasPrefix(state, []byte("X"))
}

func TestChildrenDieWithAKilledParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ties the life of a child to its parent's")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	alive, held, err := os.Pipe() // the parent and its child hold one end: EOF when both are gone
	require.NoError(t, err)
	defer func() { _ = alive.Close() }()

	parent := exec.CommandContext(t.Context(), self)
	parent.Env = append(os.Environ(), roleVariable+"=parent")
	parent.ExtraFiles = []*os.File{held}
	stdout, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	require.NoError(t, held.Close())
	line := make([]byte, len("started\n"))
	_, err = io.ReadFull(stdout, line)
	require.NoError(t, err)
	require.Equal(t, "started\n", string(line))

	require.NoError(t, parent.Process.Kill())
	require.Error(t, parent.Wait())
	require.NoError(t, alive.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = alive.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the child still runs")
}

func TestFreePortsDiffer(t *testing.T) {
	ports, err := proc.FreePorts(50)
	require.NoError(t, err)
	seen := map[int]bool{}
	for _, port := range ports {
		require.False(t, seen[port], "port %d twice", port)
		seen[port] = true
		require.Less(t, port, 32768, "the kernel hands out such ports to outgoing connections")
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", proc.Local(port))
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
}

func TestCPUTimeCountsThisProcess(t *testing.T) {
	before, err := proc.CPUTime(os.Getpid())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no CPU times on this system")
	}
	require.NoError(t, err)
	deadline := time.Now().Add(10 * time.Second)
	for sum := 0; ; sum++ {
		after, err := proc.CPUTime(os.Getpid())
		require.NoError(t, err)
		if after >= before+50*time.Millisecond {
			break
		}
		require.True(t, time.Now().Before(deadline), "busy for 10 s, yet only %v were counted", after-before)
	}

	_, err = proc.CPUTime(-1)
	require.ErrorIs(t, err, os.ErrNotExist)
}
