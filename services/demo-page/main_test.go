package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/services/internal/upstream"
)

const secret = "a secret that signs cookies in tests"

func signingKey(t *testing.T) string {
	t.Helper()
	key, err := token.GenerateKey("ES256")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "key.pem")
	require.NoError(t, os.WriteFile(path, key, 0o600))
	return path
}

func process(environment map[string]string, stdout io.Writer) upstream.Process {
	return upstream.Process{
		Env: func(name string) string { return environment[name] }, Stdout: stdout, Stderr: io.Discard,
	}
}

func TestMissingSettingsAreNamed(t *testing.T) {
	complete := map[string]string{"SIGNING_KEY_FILE": signingKey(t), "SESSION_SECRET": secret, "REDIS_URL": "redis://127.0.0.1:1"}
	for missing := range complete {
		environment := map[string]string{}
		for name, value := range complete {
			if name != missing {
				environment[name] = value
			}
		}
		require.ErrorContains(t, run(t.Context(), process(environment, io.Discard)), missing)
	}
}

func TestLoginMakesASessionThatTheStoreFinds(t *testing.T) {
	address := proc.Local(proctest.FreePort(t))
	client, err := session.Open("embedded://"+address, session.OpenOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()

	ctx, stop := context.WithCancel(t.Context())
	stdout, w := io.Pipe()
	key := signingKey(t)
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, process(map[string]string{
			"LISTEN": "127.0.0.1:0", "SIGNING_KEY_FILE": key, "SESSION_SECRET": secret, "REDIS_URL": "redis://" + address,
		}, w))
	}()
	defer func() {
		stop()
		require.NoError(t, <-done)
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	base := "http://" + strings.TrimSpace(strings.TrimPrefix(line, "demo-page listens on "))

	response, err := http.Post(base+"/demo/login", "application/json", strings.NewReader(`{"user":"alice"}`))
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	require.Equal(t, 200, response.StatusCode)
	require.Len(t, response.Cookies(), 1)

	signer, err := session.NewSigner([]string{secret})
	require.NoError(t, err)
	id, ok := signer.Verify(response.Cookies()[0].Value)
	require.True(t, ok)
	found, err := session.New(client, session.Options{}).Session(t.Context(), id, authz.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, "alice", found.ID)
}
