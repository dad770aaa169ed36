package proctest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// verdict records how a test would have ended.
type verdict struct {
	testing.TB
	skipped, failed string
}

func (v *verdict) Helper() {}

func (v *verdict) Skip(args ...any) {
	v.skipped = fmt.Sprint(args...)
	runtime.Goexit()
}

func (v *verdict) Skipf(format string, args ...any) { v.Skip(fmt.Sprintf(format, args...)) }

func (v *verdict) Fatal(args ...any) {
	v.failed = fmt.Sprint(args...)
	runtime.Goexit()
}

func TestHeavyProgramsSkipInAPipelineToo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CI", "true")
	need := func() verdict {
		v := &verdict{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			NeedHeavy(v, "no-such-program", "make it")
		}()
		<-done
		return *v
	}
	t.Setenv("GATEHOUSE_NO_SUCH_PROGRAM", "")
	require.Equal(t, "no-such-program is not installed, and not by 'make test': run 'make it', or set GATEHOUSE_NO_SUCH_PROGRAM to its path", need().skipped)
	t.Setenv("GATEHOUSE_NO_SUCH_PROGRAM", "typo")
	require.Contains(t, need().failed, "GATEHOUSE_NO_SUCH_PROGRAM", "a wrong setting is no reason to skip a test")
}

func TestMissingProgramsSkipButNotInAPipeline(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("GATEHOUSE_NO_SUCH_PROGRAM", "")
	const message = "no-such-program is not installed: run scripts/tools.sh, or set GATEHOUSE_NO_SUCH_PROGRAM to its path"
	for _, tc := range []struct {
		ci              string
		skipped, failed string
	}{
		{"", message, ""},
		{"false", message, ""},
		{"true", "", message},
		{"1", "", message},
	} {
		t.Setenv("CI", tc.ci)
		v := &verdict{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			Need(v, "no-such-program")
		}()
		<-done
		require.Equal(t, tc.skipped, v.skipped, "CI=%q", tc.ci)
		require.Equal(t, tc.failed, v.failed, "CI=%q", tc.ci)
	}
}

func TestStartRedis(t *testing.T) {
	r := StartRedis(t, "--requirepass", "secret")
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.Addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "AUTH secret\r\nCONFIG GET save\r\n")
	require.NoError(t, err)
	in := bufio.NewReader(conn)
	for _, want := range []string{"+OK", "*2", "$4", "save", "$0", ""} {
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, want+"\r\n", line)
	}
	require.NoError(t, r.Stop())
	require.Error(t, proc.RedisPing(r.Addr)(context.Background()))
}

func TestStartEnvoy(t *testing.T) {
	port := FreePort(t)
	e := StartEnvoy(t, fmt.Appendf(nil, `admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}`, port), proc.EnvoyOptions{})
	require.Equal(t, proc.Local(port), e.Admin)
	require.NoError(t, proc.HTTP("http://"+e.Admin+"/ready")(t.Context()))
	busy, err := proc.CPUTime(e.PID())
	require.NoError(t, err)
	require.Positive(t, busy, "the pid is Envoy's own, not that of a script around it")
	require.NoError(t, e.Stop())
}

func TestStartEnvoyShowsWhatEnvoySaid(t *testing.T) {
	Need(t, "envoy")
	_, err := proc.StartEnvoy(t.Context(), []byte("admin: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}\nno_such_field: 1"), proc.EnvoyOptions{Dir: t.TempDir()})
	require.ErrorContains(t, err, "no_such_field")
	_, err = proc.StartEnvoy(t.Context(), []byte("static_resources: {}"), proc.EnvoyOptions{Dir: t.TempDir()})
	require.ErrorContains(t, err, "neither an admin address nor a listener")
}
