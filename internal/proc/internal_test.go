package proc

import (
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTailKeepsTheEndInWholeLines(t *testing.T) {
	out := newTail()
	line := strings.Repeat("x", 99) + "\n"
	for range 3 * tailSize / len(line) {
		_, err := out.Write([]byte(line))
		require.NoError(t, err)
		require.LessOrEqual(t, len(out.data), 2*tailSize)
	}
	_, err := out.Write([]byte("the end\n"))
	require.NoError(t, err)
	text := out.String()
	require.LessOrEqual(t, len(text), tailSize)
	require.Greater(t, len(text), tailSize-2*len(line))
	require.True(t, strings.HasPrefix(text, line), "begins within a line")
	require.True(t, strings.HasSuffix(text, "the end\n"))
}

func TestTailOfOneEndlessLine(t *testing.T) {
	out := newTail()
	_, err := out.Write([]byte(strings.Repeat("x", 3*tailSize)))
	require.NoError(t, err)
	require.Len(t, out.String(), tailSize)
}

// Neither this process nor another one that asks is given a port that somebody has.
func TestAPortIsGivenOnce(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("skipped: nothing reserves ports here")
	}
	port, err := FreePort()
	require.NoError(t, err)
	_, ok := reserve(port) // as another process does
	require.False(t, ok)
}
