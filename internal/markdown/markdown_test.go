package markdown_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/markdown"
)

func TestParagraph(t *testing.T) {
	t.Parallel()
	words := strings.Repeat("füße ", 60)
	for name, text := range map[string]string{"paragraph": markdown.Paragraph(words), "item": markdown.Item(words)} {
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		require.Len(t, lines, 3, name)
		for i, line := range lines {
			require.LessOrEqual(t, utf8.RuneCountInString(line), markdown.Width, name)
			if i < len(lines)-1 {
				require.Greater(t, utf8.RuneCountInString(line)+len(" füße"), markdown.Width, "%s: there was room for a word", name)
			}
		}
		require.Equal(t, strings.Fields(words), strings.Fields(strings.TrimPrefix(text, "- ")), name)
	}
	require.Equal(t, "a b\n", markdown.Paragraph("  a\n\tb "))
	require.Equal(t, "- a b\n", markdown.Item("a b"))
	long := strings.Repeat("x", 2*markdown.Width)
	require.Equal(t, "a\n"+long+"\nb\n", markdown.Paragraph("a "+long+" b"), "no word is cut")
	require.True(t, strings.HasPrefix(strings.Split(markdown.Item(words), "\n")[1], "  füße"))
}

func TestUpper(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "", "a b": "A b", "über": "Über", "A": "A", "`x`": "`x`"} {
		require.Equal(t, want, markdown.Upper(text))
	}
}
