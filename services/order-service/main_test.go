package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/internal/upstream"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
	"github.com/gatehouse-auth/gatehouse/services/userservice"
)

func env(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

// start runs the service until the test ends, and returns its URL.
func start(t *testing.T, variables map[string]string) string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	stdout, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, upstream.Process{Env: env(variables), Stdout: w, Stderr: io.Discard})
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
	address, ok := strings.CutPrefix(strings.TrimSpace(string(line[:n])), "order-service listens on ")
	require.True(t, ok, "%s", line[:n])
	return "http://" + address
}

func TestServiceToService(t *testing.T) {
	users := httptest.NewServer(userservice.New(userservice.Options{InternalKeys: []usercontext.Key{usercontext.HashKey("the-key")}}))
	t.Cleanup(users.Close)
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte("the-key\n"), 0o600))

	for _, tc := range []struct {
		name   string
		key    map[string]string
		status int
		body   string
	}{
		{"key in a file", map[string]string{"INTERNAL_API_KEY_FILE": file}, 200, `"buyer":{"id":"bob","displayName":"Bob Baker"}`},
		{"key in the environment", map[string]string{"INTERNAL_API_KEY": "the-key"}, 200, `"buyer":{"id":"bob","displayName":"Bob Baker"}`},
		{"wrong key", map[string]string{"INTERNAL_API_KEY": "hush"}, 502, `{"error":"Bad gateway"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.key["LISTEN"], tc.key["USER_SERVICE_URL"] = "127.0.0.1:0", users.URL
			url := start(t, tc.key)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/orders", nil)
			require.NoError(t, err)
			req.Header.Set("x-user-id", "alice")
			req.Header.Set("x-org-id", "org-1")
			res, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.Equal(t, tc.status, res.StatusCode)
			require.Contains(t, string(body), tc.body)
		})
	}
}

func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	const key = "INTERNAL_API_KEY"
	for name, tc := range map[string]struct {
		env  map[string]string
		args []string
		want string
	}{
		"no key":           {want: "the internal key is missing"},
		"key and file":     {env: map[string]string{key: "hush", key + "_FILE": write("one", "hush")}, want: "keep one of them"},
		"no such file":     {env: map[string]string{key + "_FILE": filepath.Join(dir, "none")}, want: "INTERNAL_API_KEY_FILE: open "},
		"empty file":       {env: map[string]string{key + "_FILE": write("empty", "\n")}, want: "one line of visible ASCII"},
		"two lines":        {env: map[string]string{key + "_FILE": write("two", "hush\nhush\n")}, want: "one line of visible ASCII"},
		"key with a space": {env: map[string]string{key: "hush hush"}, want: "INTERNAL_API_KEY: the key must be one line"},
		"key on a flag":    {args: []string{"--internal-api-key", "hush"}, want: "internal-api-key"},
		"URL without host": {env: map[string]string{key: "hush", "USER_SERVICE_URL": "http://"}, want: "USER_SERVICE_URL: "},
		"no HTTP":          {env: map[string]string{key: "hush", "USER_SERVICE_URL": "localhost:8101"}, want: "USER_SERVICE_URL: "},
		"no URL":           {env: map[string]string{key: "hush", "USER_SERVICE_URL": "http://[hush"}, want: "USER_SERVICE_URL: "},
		"password in URL":  {env: map[string]string{key: "hush", "USER_SERVICE_URL": "http://u:hush@h"}, want: "USER_SERVICE_URL: "},
		"query in URL":     {env: map[string]string{key: "hush", "USER_SERVICE_URL": "http://h?x"}, want: "USER_SERVICE_URL: "},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), upstream.Process{Args: tc.args, Env: env(tc.env), Stdout: io.Discard, Stderr: io.Discard})
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "hush")
			require.NotContains(t, err.Error(), "\n")
		})
	}
}
