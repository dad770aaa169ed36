package lint_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/envoy/lint"
)

// read lints files of testdata.
func read(t *testing.T, o lint.Options, paths ...string) []lint.Finding {
	t.Helper()
	var sources []lint.Source
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		sources = append(sources, lint.Source{Name: path, Data: text})
	}
	return lint.Lint(sources, o)
}

func codes(findings []lint.Finding) []string {
	out := []string{}
	for _, f := range findings {
		out = append(out, f.Code)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// It ranges over the rules, so a new one without fixtures fails.
func TestEachRuleHasAFileThatBreaksItAndOneThatDoesNot(t *testing.T) {
	require.Greater(t, len(lint.Rules()), 25)
	for _, rule := range lint.Rules() {
		t.Run(rule.Code, func(t *testing.T) {
			f, ok := fixtures[rule.Code]
			require.True(t, ok, "%s has no entry in fixtures_test.go", rule.Code)
			bad := filepath.Join("testdata", rule.Code+".bad.yaml")
			findings := read(t, f.options, bad)
			want := append([]string{rule.Code}, f.also...)
			slices.Sort(want)
			require.Equal(t, want, codes(findings), "%+v", findings)
			for _, one := range findings {
				require.Equal(t, bad, one.File)
				require.NotEmpty(t, one.Message)
				require.NotEmpty(t, one.Remedy)
				if one.Code == rule.Code {
					require.Equal(t, rule.Severity, one.Severity)
				}
			}
			good := read(t, f.options, filepath.Join("testdata", rule.Code+".good.yaml"))
			require.NotContains(t, codes(good), rule.Code)
			for _, code := range codes(good) {
				require.Contains(t, f.also, code)
			}
		})
	}
	require.Len(t, fixtures, len(lint.Rules()), "a fixture of no rule")
}
