package proc_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// program writes something executable and returns its path.
func program(t *testing.T, content string, path ...string) string {
	t.Helper()
	file := filepath.Join(path...)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o750))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o700))
	return file
}

func TestFind(t *testing.T) {
	const elf = "\x7fELF"
	module := t.TempDir()
	program(t, "module example.com\n", module, "go.mod")
	elsewhere := t.TempDir()
	inPath := t.TempDir()
	below := filepath.Join(module, "a", "b")
	require.NoError(t, os.MkdirAll(below, 0o750))
	t.Chdir(below)
	t.Setenv("PATH", inPath)
	t.Setenv("GATEHOUSE_REDIS_SERVER", "")
	t.Setenv("GATEHOUSE_ENVOY", "")

	_, err := proc.Find("redis-server")
	require.EqualError(t, err, "redis-server is not installed: run scripts/tools.sh, or set GATEHOUSE_REDIS_SERVER to its path")
	notFound := new(proc.NotFoundError)
	require.ErrorAs(t, err, &notFound)

	want := program(t, elf, module, ".tools", "redis-server", "bin", "redis-server")
	got, err := proc.Find("redis-server")
	require.NoError(t, err)
	require.Equal(t, want, got, "from the module's .tools, two directories above")

	want = program(t, elf, inPath, "redis-server")
	got, err = proc.Find("redis-server")
	require.NoError(t, err)
	require.Equal(t, want, got, "PATH comes before .tools")

	want = program(t, elf, elsewhere, "redis-8")
	t.Setenv("GATEHOUSE_REDIS_SERVER", want)
	got, err = proc.Find("redis-server")
	require.NoError(t, err)
	require.Equal(t, want, got, "the variable comes before PATH")

	t.Setenv("GATEHOUSE_REDIS_SERVER", filepath.Join(elsewhere, "typo"))
	_, err = proc.Find("redis-server")
	require.ErrorContains(t, err, "GATEHOUSE_REDIS_SERVER", "no silent fallback to another one")
	require.NotErrorAs(t, err, &notFound, "a wrong setting is no reason to skip a test")
}

func TestFindEnvoyBehindItsPythonScript(t *testing.T) {
	const script, elf = "#!/usr/bin/python3\n", "\x7fELF"
	for name, tc := range map[string]struct {
		script, executable string
		found              bool // the executable, not the script
	}{
		"virtual environment": {"bin/envoy", "lib/python3.11/site-packages/envoy/_bin/envoy", true},
		"pip --target":        {"bin/envoy", "envoy/_bin/envoy", true},
		"some other script":   {"bin/envoy", "share/envoy", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			want := program(t, script, dir, tc.script)
			if executable := program(t, elf, dir, tc.executable); tc.found {
				want = executable
			}
			t.Setenv("GATEHOUSE_ENVOY", filepath.Join(dir, tc.script))
			got, err := proc.Find("envoy")
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}

	t.Run("installed by other means", func(t *testing.T) {
		want := program(t, elf, t.TempDir(), "bin", "envoy")
		t.Setenv("GATEHOUSE_ENVOY", want)
		got, err := proc.Find("envoy")
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}
