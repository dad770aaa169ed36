package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

// fieldsOf are the names of attributes in the code: slog.String("name", and those of
// tables, {"name", value}.
func fieldsOf(t *testing.T, files ...string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(file)))
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`(?:slog\.[A-Z]\w*\(|\{)"([a-z_]+)", (?:[a-zA-Z]+[.(]|[a-z]\w*[,)}])`).FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
	}
	return names
}

// documented are the names in the first column of the table below a heading.
func documented(t *testing.T, page, heading string) map[string]bool {
	t.Helper()
	_, rest, found := strings.Cut(page, "\n"+heading+"\n")
	require.True(t, found, heading)
	names := map[string]bool{}
	inTable := false
	for line := range strings.Lines(rest) {
		if strings.HasPrefix(line, "| field |") {
			inTable = true
		} else if inTable && !strings.HasPrefix(line, "|") {
			return names
		}
		if cell, _, ok := strings.Cut(strings.TrimPrefix(line, "|"), "|"); ok && inTable {
			for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cell, -1) {
				names[m[1]] = true
			}
		}
	}
	require.Fail(t, "no table below "+heading)
	return nil
}

// The page has the fields that the code writes, no more and no less.
func TestLoggingPageHasEveryField(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/logging.md")
	require.NoError(t, err)
	page := string(text)
	const api, cmd = "authz/authapi/", "cmd/gatehouse/"
	for _, line := range []struct {
		heading string
		files   []string
		more    []string // that this test can't find
		others  []string // in these files, and of other lines
	}{
		{"### A check", []string{"internal/telemetry/telemetry.go", "internal/telemetry/flood.go"}, nil, nil},
		{"### A call of the auth API", []string{api + "call.go"}, nil, nil},
		{
			"## The audit log",
			[]string{
				api + "audit.go", api + "sessions.go", api + "users.go", api + "login.go", api + "logout.go", api + "tokens.go", api + "operate.go", api + "oidc.go",
				cmd + "clerk.go", cmd + "operate.go", cmd + "sessions.go", cmd + "tokens.go", cmd + "keys.go", cmd + "loglevel.go", cmd + "reload.go",
				"internal/audit/audit.go",
			},
			[]string{"time", "level", "msg", "log"},
			[]string{"error", "mode", "warning", "keys", "problems", "header"},
		},
	} {
		want := fieldsOf(t, line.files...)
		for _, name := range line.more {
			want[name] = true
		}
		for _, name := range line.others {
			delete(want, name)
		}
		require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(documented(t, page, line.heading))), line.heading)
	}
	outcomes := []authapi.Outcome{authapi.OutcomeApplied, authapi.OutcomeNotConfirmed, authapi.OutcomeRefused, authapi.OutcomeFailed, "begun"}
	for _, o := range outcomes {
		require.Contains(t, page, "`"+string(o)+"`")
	}

	// Each action is named.
	actions := map[string]bool{}
	for _, dir := range []string{"../../authz/authapi", "."} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			code, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, m := range regexp.MustCompile(`(?:(?:audit|permit|record|recordSome|begin)\((?:ctx|cmd\.Context\(\)), (?:c, )?|changes: |slog\.String\("action", )"([a-z_]+)"`).FindAllStringSubmatch(string(code), -1) {
				actions[m[1]] = true
			}
		}
	}
	_, list, found := strings.Cut(page, "| `command`, `host`")
	require.True(t, found)
	_, list, _ = strings.Cut(list, "\n\n")
	list, _, _ = strings.Cut(list, " are the actions.")
	var named []string
	for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(list, -1) {
		named = append(named, m[1])
	}
	slices.Sort(named)
	require.Equal(t, slices.Sorted(maps.Keys(actions)), named)
}
