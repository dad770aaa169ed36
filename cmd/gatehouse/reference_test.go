package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

//go:generate go test -count=1 -run ^TestReferenceIsFresh$ . -write-reference

var writeReference = flag.Bool("write-reference", false, "write the reference of docs/cli.md")

const (
	referenceFile = "../../docs/cli.md"
	referenceMark = "<!-- What follows is what --help prints. 'make generate' writes it. -->\n"
)

// The page has what the commands say of themselves.
func TestReferenceIsFresh(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(referenceFile)
	require.NoError(t, err)
	before, _, found := strings.Cut(string(page), referenceMark)
	require.True(t, found, "%s has no line %s", referenceFile, referenceMark)
	var b strings.Builder
	b.WriteString(before + referenceMark)
	for _, cmd := range everyCommand(rootCommand(environment{})) {
		c := gatehouse(t, nil, append(strings.Fields(cmd.CommandPath())[1:], "--help")...)
		require.Equal(t, exitOK, c.code)
		fmt.Fprintf(&b, "\n### %s\n\n```text\n%s```\n", cmd.CommandPath(), c.stdout)
		for line := range strings.Lines(c.stdout) {
			require.LessOrEqual(t, len([]rune(line)), 121, "%s: too long for a page: %s", cmd.CommandPath(), line)
		}
	}
	if *writeReference {
		require.NoError(t, os.WriteFile(referenceFile, []byte(b.String()), 0o644))
		return
	}
	require.Equal(t, b.String(), string(page), "run 'make generate'")
}
