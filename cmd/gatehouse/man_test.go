package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// There is a page for each command, and man shows of it what --help does.
func TestManual(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "man1")
	c := gatehouse(t, nil, "man", dir)
	require.Equal(t, exitOK, c.code, c.stderr)
	commands := everyCommand(rootCommand(environment{}))
	pages, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, pages, len(commands))
	require.NotContains(t, gatehouse(t, nil, "--help").stdout, "manual", "it is for releases")
	for _, cmd := range commands {
		file := filepath.Join(dir, manName(cmd)+".1")
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(text), manPage(cmd), "the same at each time")
		for _, r := range string(text) {
			require.Less(t, r, rune(0x80), "%s: %q is not shown in every locale", cmd.CommandPath(), r)
		}
		if mandoc, err := exec.LookPath("mandoc"); err == nil {
			out, err := exec.CommandContext(t.Context(), mandoc, "-Tlint", "-Werror", file).CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
	}

	man, err := exec.LookPath("man")
	if err != nil {
		t.Skip("man is not installed (apt-get install man-db groff-base): the pages are written, and not shown")
	}
	if testing.Short() {
		commands = commands[:3]
	}
	for _, cmd := range commands {
		show := exec.CommandContext(t.Context(), man, "--warnings=w", "--local-file", filepath.Join(dir, manName(cmd)+".1"))
		show.Env = append(os.Environ(), "MANWIDTH=140", "LC_ALL=C.UTF-8", "PAGER=cat", "MANPAGER=cat", "MAN_KEEP_FORMATTING=")
		var said, warned strings.Builder
		show.Stdout, show.Stderr = &said, &warned
		if err := show.Run(); err != nil {
			t.Skipf("this man shows no local files: %v %s", err, warned.String())
		}
		require.Empty(t, warned.String(), cmd.CommandPath())
		shown := strings.Join(strings.Fields(said.String()), " ")
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example + "\n" + cmd.LocalFlags().FlagUsages() + cmd.InheritedFlags().FlagUsages()) {
			require.Contains(t, shown, strings.ReplaceAll(strings.Join(strings.Fields(line), " "), "…", "..."), "%s", cmd.CommandPath())
		}
	}
}
