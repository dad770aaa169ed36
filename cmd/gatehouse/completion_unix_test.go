//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/users"
)

// Whoever presses TAB waits for no named pipe, and for no file without an end.
func TestCompletionWaitsForNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "gatehouse.yaml")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	hash, err := users.Hash("a password")
	require.NoError(t, err)
	list := "users:\n- {id: alice, email: alice@example.com, password_hash: '" + hash + "'}\n"
	small := filepath.Join(dir, "small.yaml")
	require.NoError(t, os.WriteFile(small, []byte(list), 0o600))
	require.NoError(t, os.WriteFile(file, []byte("users: {file: small.yaml}\n"), 0o600))
	require.Equal(t, []string{"alice\talice@example.com", ":4"}, completions(t, "sessions", "list", "-c", file, ""))
	huge := filepath.Join(dir, "huge.yaml")
	require.NoError(t, os.WriteFile(huge, []byte(list+"#"+strings.Repeat("x", 1<<20)), 0o600))
	for _, list := range []string{huge, pipe, "/dev/zero", dir} {
		require.NoError(t, os.WriteFile(file, []byte("users: {file: "+list+"}\n"), 0o600))
		require.Equal(t, []string{":4"}, completions(t, "sessions", "list", "-c", file, ""), list)
	}
	require.Equal(t, []string{":4"}, completions(t, "sessions", "list", "-c", pipe, ""))
}
