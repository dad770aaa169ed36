package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/internal/upstream"
)

func TestPageIsServedWithNothingButAnAddress(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stdout, w := io.Pipe()
	environment := map[string]string{"LISTEN": "127.0.0.1:0", "STORE": "a heap of paper"}
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, upstream.Process{Env: func(name string) string { return environment[name] }, Stdout: w, Stderr: io.Discard})
	}()
	defer func() {
		stop()
		require.NoError(t, <-done)
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	base := "http://" + strings.TrimSpace(strings.TrimPrefix(line, "demo-page listens on "))

	for path, text := range map[string]string{"/": "<title>Gatehouse demo</title>", "/demo/state": "a heap of paper", "/healthz": "alive"} {
		response, err := http.Get(base + path)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, 200, response.StatusCode, path)
		require.Contains(t, string(body), text)
	}
}
