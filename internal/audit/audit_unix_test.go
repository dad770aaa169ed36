//go:build unix

package audit_test

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/audit"
)

// A new file belongs to whom the directory does, though a command of root made it.
func TestANewFileIsTheServers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can make files for others")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chown(dir, 4711, 4712))
	path := filepath.Join(dir, "audit.log")
	open(t, audit.Options{File: path})
	info, err := os.Stat(path)
	require.NoError(t, err)
	s, ok := info.Sys().(*syscall.Stat_t)
	require.True(t, ok)
	require.Equal(t, [2]uint32{4711, 4712}, [2]uint32{s.Uid, s.Gid})
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for path, want := range map[string]string{dir: "is no file", pipe: "is no file", filepath.Join(dir, "none", "audit.log"): "make the directory"} {
		_, err := audit.Open(audit.Options{File: path, Writer: io.Discard})
		require.ErrorContains(t, err, want)
	}
}
