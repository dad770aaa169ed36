package yamltext_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/internal/yamltext"
)

func TestBadCharacter(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]*yamltext.Fault{
		"":                       nil,
		"a: b\r\n\tc: \u0085é\n": nil,
		"a: b\nü: \xff":          {Line: 2, Column: 4, Message: "not UTF-8; save the file in this encoding"},
		"a: \x00":                {Line: 1, Column: 4, Message: "control character U+0000; take it out"},
		"a\n\n\u009b":            {Line: 3, Column: 1, Message: "control character U+009B; take it out"},
	} {
		require.Equal(t, want, yamltext.BadCharacter([]byte(text)), "%q", text)
	}
}

func TestSyntax(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text, message string
		line          int
	}{
		"a bracket":  {text: "a: 1\nb: [1, 2\nc: 3\n", line: 3, message: "that begins on line 2"},
		"a tab":      {text: "a:\n\tb: 1\n", line: 2, message: "; use spaces: YAML is not indented with tabs"},
		"a secret":   {text: "a: *geheim\n", line: 1, message: "refers to an anchor, and there is none of this name"},
		"two colons": {text: "a: b: c\n", line: 1, message: "not valid YAML: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			loader, err := yaml.NewLoader(strings.NewReader(tt.text))
			require.NoError(t, err)
			var doc yaml.Node
			err = loader.Load(&doc)
			require.Error(t, err)
			f := yamltext.Syntax([]byte(tt.text), err)
			require.Contains(t, f.Message, tt.message)
			require.NotContains(t, f.Message, "\n")
			require.NotContains(t, f.Message, "geheim")
			require.Equal(t, tt.line, f.Line, f)
			require.Positive(t, f.Column)
		})
	}
}

func TestSays(t *testing.T) {
	t.Parallel()
	f := yamltext.Fault{Line: 2}
	require.True(t, f.Says([]byte("a\nb ${X}"), "${"))
	require.False(t, f.Says([]byte("a ${X}\nb"), "${"))
	require.False(t, f.Says([]byte("a ${X}"), "${"))
}
