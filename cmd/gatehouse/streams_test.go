package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// logReader reads the standard error of a server, and can leave off.
type logReader struct {
	log    *buffer
	pipe   *os.File
	resume chan struct{}
	ended  chan struct{}
}

// pipedLog returns a pipe for a standard error, and what reads it.
func pipedLog(t *testing.T) (*os.File, *logReader) {
	t.Helper()
	from, to, err := os.Pipe()
	require.NoError(t, err)
	r := &logReader{log: &buffer{}, pipe: from, resume: make(chan struct{}, 1), ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		for {
			_, err := io.Copy(r.log, from)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			<-r.resume
		}
	}()
	t.Cleanup(func() { // after that of the server
		_ = to.Close()
		r.read(t)
		<-r.ended
		_ = from.Close()
	})
	return to, r
}

// leaveOff has nothing read until read.
func (r *logReader) leaveOff(t *testing.T) {
	t.Helper()
	require.NoError(t, r.pipe.SetReadDeadline(time.Now().Add(-time.Second)))
}

func (r *logReader) read(t *testing.T) {
	t.Helper()
	require.NoError(t, r.pipe.SetReadDeadline(time.Time{}))
	select {
	case r.resume <- struct{}{}:
	default:
	}
}

// wordy are headers of a request whose refusal makes a long line.
var wordy = map[string]string{"x-request-id": strings.Repeat("i", 500)}

const refusing = "redis: {url: 'embedded://'}\nsessions: {secrets: [0123456789abcdef0123456789abcdef]}\npolicies: {user: {credentials: [session]}}\ndefault_policy: user\n"

// Nobody who asks the gate waits for who reads its log.
func TestALogThatNobodyReads(t *testing.T) {
	t.Parallel()
	stderr, reader := pipedLog(t)
	s := startLogging(t, write(t, "gatehouse.yaml", anywhere(refusing)), stderr, reader.log)
	conn := s.dial(t)
	defer func() { require.NoError(t, conn.Close()) }()
	dropped := func() int {
		n, err := strconv.Atoi(s.metric(t, "gatehouse_log_dropped_lines_total"))
		require.NoError(t, err)
		return n
	}
	change := func() int { status, _ := s.level(t, http.MethodPut, `{"level":"info"}`); return status }
	require.Equal(t, http.StatusOK, change())
	require.Zero(t, dropped())

	reader.leaveOff(t)
	refused := 0
	for dropped() == 0 {
		for range 500 {
			require.Nil(t, seenByService(t, conn, wordy))
			refused++
		}
		require.Less(t, refused, 20_000, "somebody reads on")
	}
	require.Equal(t, http.StatusOK, change(), "a change is made all the same")
	failures := s.metric(t, "gatehouse_audit_failures_total")
	require.NotEqual(t, "0", failures)
	status, _ := get(t, "http://"+s.ops+"/readyz")
	require.Equal(t, http.StatusOK, status)

	t.Logf("%d refusals and a change were answered, %d lines dropped", refused, dropped())

	reader.read(t)
	told := func() (lines int) {
		for line := range strings.Lines(reader.log.String()) {
			var entry struct {
				Msg   string
				Lines int
			}
			if strings.HasSuffix(line, "\n") {
				require.NoError(t, json.Unmarshal([]byte(line), &entry), line)
				lines += entry.Lines
			}
		}
		return lines
	}
	until(t, "the log tells how many lines are missing", func() bool { n := dropped(); return n > 0 && told() == n })
	until(t, "the audit log is written again", func() bool {
		return change() == http.StatusOK && strings.Contains(reader.log.String(), `"the audit log can be written again"`)
	})

	s.signal()
	require.Equal(t, exitOK, s.wait(t))
	s.log.await(t, nil, func(e map[string]any) bool { return e["msg"] == "stopped" })
	require.GreaterOrEqual(t, strings.Count(reader.log.String(), `"msg":"check"`)+told(), refused, "what was not dropped is there")
}

// Who must not change what can't be written down doesn't, and the end of a server doesn't
// wait for a reader either.
func TestAnAuditLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	stderr, reader := pipedLog(t)
	s := startLogging(t, write(t, "gatehouse.yaml", anywhere(refusing+"audit: {file: stderr, on_failure: refuse}\n")), stderr, reader.log)
	change := func() (int, string) { return s.level(t, http.MethodPut, `{"level":"debug"}`) }
	var status int
	until(t, "a change", func() bool { status, _ = change(); return status == http.StatusOK }) // not at once on a machine that is busy

	reader.leaveOff(t)
	conn := s.dial(t)
	for i := 0; status == http.StatusOK; i++ {
		require.Less(t, i, 1000, "somebody reads on")
		for range 20 {
			require.Nil(t, seenByService(t, conn, wordy))
		}
		var body string
		if status, body = change(); status != http.StatusOK {
			require.Equal(t, http.StatusServiceUnavailable, status)
			require.Contains(t, body, "nothing was changed")
		}
	}
	require.NoError(t, conn.Close())
	s.signal()
	require.Equal(t, exitOK, s.wait(t))
}
