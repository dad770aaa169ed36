package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/internal/upstream"
)

func env(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

func hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// start runs the service until the test ends, and returns its URL.
func start(t *testing.T, p upstream.Process) string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	stdout, w := io.Pipe()
	p.Stdout = w
	done := make(chan error, 1)
	go func() {
		err := run(ctx, p)
		_ = w.CloseWithError(fmt.Errorf("run ended: %w", err))
		done <- err
	}()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
	line := make([]byte, 200)
	n, err := stdout.Read(line)
	require.NoError(t, err)
	address, ok := strings.CutPrefix(strings.TrimSpace(string(line[:n])), "user-service listens on ")
	require.True(t, ok, "%s", line[:n])
	return "http://" + address
}

func get(t *testing.T, url, key string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if key != "" {
		req.Header.Set("x-internal-api-key", key)
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(content)
}

func TestRun(t *testing.T) {
	var stderr bytes.Buffer
	url := start(t, upstream.Process{Stderr: &stderr, Env: env(map[string]string{
		"LISTEN":                  "127.0.0.1:0",
		"INTERNAL_API_KEY_SHA256": hash("current") + "@2999-01-01, " + hash("next") + "," + hash("last") + "@2020-01-01",
	})})
	require.Empty(t, stderr.String())

	status, body := get(t, url+"/healthz", "")
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"status":"alive"}`, body)
	for key, want := range map[string]int{"current": 200, "next": 200, "last": 403, "": 403} {
		status, _ := get(t, url+"/users/internal/alice", key)
		require.Equal(t, want, status, key)
	}
}

func TestRunWithoutKeysSaysSo(t *testing.T) {
	var stderr bytes.Buffer
	url := start(t, upstream.Process{Stderr: &stderr, Args: []string{"--listen", "127.0.0.1:0"}, Env: env(nil)})
	require.Contains(t, stderr.String(), "set INTERNAL_API_KEY_SHA256")
	status, _ := get(t, url+"/users/internal/alice", "current")
	require.Equal(t, 403, status)
}

func TestRunRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	for name, tc := range map[string]struct {
		env  map[string]string
		args []string
		want string
	}{
		"a key in place of its hash": {env: map[string]string{"INTERNAL_API_KEY_SHA256": "hush"}, want: "INTERNAL_API_KEY_SHA256: "},
		"an empty entry":             {env: map[string]string{"INTERNAL_API_KEY_SHA256": hash("a") + ","}, want: "INTERNAL_API_KEY_SHA256: "},
		"a taken address":            {env: map[string]string{"LISTEN": taken.Addr().String()}, want: taken.Addr().String()},
		"an unknown flag":            {args: []string{"--key", "hush"}, want: "-key"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), upstream.Process{Args: tc.args, Env: env(tc.env), Stdout: io.Discard, Stderr: io.Discard})
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "hush")
		})
	}
}
