package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/envoy/lint"
)

// lintFixture is a file of the linter's own tests.
func lintFixture(name string) string {
	return filepath.Join("..", "..", "envoy", "lint", "testdata", name)
}

func TestLintExitCodes(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
	}{
		{[]string{lintFixture("GH101.good.yaml")}, exitOK},
		{[]string{lintFixture("GH101.good.yaml"), "--strict"}, exitOK},
		{[]string{lintFixture("GH101.bad.yaml")}, exitFailed},
		{[]string{lintFixture("GH101.bad.yaml"), "--ignore", "GH101"}, exitOK},
		{[]string{lintFixture("GH101.bad.yaml"), lintFixture("GH301.bad.yaml"), "--ignore", "gh101,GH301"}, exitOK},
		{[]string{lintFixture("GH132.bad.yaml")}, exitOK}, // a warning
		{[]string{lintFixture("GH132.bad.yaml"), "--strict"}, exitFailed},
		{[]string{lintFixture("GH134.bad.yaml"), "--strict"}, exitOK}, // a note
		{[]string{lintFixture("nowhere.yaml")}, exitFailed},
		{[]string{lintFixture("GH101.good.yaml"), "--config", lintFixture("nowhere.yaml")}, exitFailed},
		{[]string{}, exitUsage},
		{[]string{lintFixture("GH101.good.yaml"), "--format", "xml"}, exitUsage},
		{[]string{lintFixture("GH101.good.yaml"), "--ignore", "GH999"}, exitUsage},
		{[]string{lintFixture("GH001.bad.yaml"), "--ignore", "GH001"}, exitUsage},
		{[]string{lintFixture("GH101.good.yaml"), lintFixture("GH101.good.yaml")}, exitUsage},
		{[]string{lintFixture("GH101.good.yaml"), "./" + lintFixture("GH101.good.yaml")}, exitUsage},
		{[]string{"-", "-"}, exitUsage},
		{[]string{"--rules", "GH999"}, exitUsage},
		{[]string{"--rules", "--format", "sarif"}, exitUsage},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			c := gatehouse(t, nil, append([]string{"envoy", "lint"}, tc.args...)...)
			require.Equal(t, tc.code, c.code, "%s%s", c.stdout, c.stderr)
			if tc.code != exitOK {
				problem, _ := strings.CutSuffix(c.stderr, "gatehouse: 'gatehouse init' writes one to begin with\n") // where there is no configuration
				require.Equal(t, 1, strings.Count(problem, "\n"), "one line: %s", c.stderr)
				require.True(t, strings.HasPrefix(c.stderr, "gatehouse: ") || strings.Contains(c.stderr, "nowhere.yaml"), c.stderr)
			}
		})
	}
}

// Whoever names a file in a repository that somebody else lints must not write
// findings of his own.
func TestLintFileNamesStayOnTheirLine(t *testing.T) {
	text, err := os.ReadFile(lintFixture("GH101.bad.yaml"))
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "a\x1b[2K\nb.yaml")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	c := gatehouse(t, nil, "envoy", "lint", file)
	require.Equal(t, exitFailed, c.code)
	require.NotContains(t, c.stdout, "\x1b")
	require.Contains(t, c.stdout, "a\ufffd[2K\ufffdb.yaml:33:15: error GH101")
	c = gatehouse(t, nil, "envoy", "lint", file+"\x1b[2K\nother")
	require.Equal(t, exitFailed, c.code)
	require.Equal(t, 1, strings.Count(c.stderr, "\n"), c.stderr)
	require.NotContains(t, c.stderr, "\x1b")
}

func TestLintTextSaysWhereWhatAndHow(t *testing.T) {
	file := lintFixture("GH101.bad.yaml")
	c := gatehouse(t, nil, "envoy", "lint", file, lintFixture("GH132.bad.yaml"), "--ignore", "GH132")
	require.Equal(t, file+`:33:15: error GH101: When the check fails, the request passes.
    in      listener gateway, filter envoy.filters.http.ext_authz
    at      static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.failure_mode_allow
    attack  Whoever makes the check fail is let in: with a flood of requests, with one that takes too long, or by waiting for a restart. Services then see the identity headers that the client wrote.
    remedy  Refuse what could not be checked.
            failure_mode_allow: false

1 error in 2 files; 1 ignored (GH132)
`, c.stdout)
	require.Equal(t, "gatehouse: lint: 1 error in 2 files; 1 ignored (GH132)\n", c.stderr)
}

func TestLintJSON(t *testing.T) {
	c := gatehouse(t, nil, "envoy", "lint", "--format", "json", lintFixture("GH101.bad.yaml"), lintFixture("GH132.bad.yaml"))
	var report struct {
		Version, Errors, Warnings, Notes, Ignored int
		Files                                     []string
		Findings                                  []map[string]any
	}
	require.NoError(t, json.Unmarshal([]byte(c.stdout), &report))
	require.Equal(t, 1, report.Version)
	require.Equal(t, []int{1, 1, 0, 0}, []int{report.Errors, report.Warnings, report.Notes, report.Ignored})
	require.Len(t, report.Files, 2)
	for _, key := range []string{"code", "severity", "file", "line", "column", "place", "within", "message", "attack", "remedy"} {
		require.Contains(t, report.Findings[0], key)
	}
	clean := gatehouse(t, nil, "envoy", "lint", "--format", "json", lintFixture("GH101.good.yaml"))
	require.Contains(t, clean.stdout, `"findings": []`)
}

// The form was validated against the schema of OASIS; here is what consumers
// look at.
func TestLintSARIF(t *testing.T) {
	c := gatehouse(t, nil, "envoy", "lint", "--format", "sarif", lintFixture("GH101.bad.yaml"), lintFixture("GH134.bad.yaml"), "--ignore", "GH134")
	var log struct {
		Schema  string `json:"$schema"`
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct {
					Name  string
					Rules []struct {
						ID                   string
						ShortDescription     struct{ Text string }
						Help                 struct{ Text, Markdown string }
						DefaultConfiguration struct{ Level string }
					}
				}
			}
			Results []struct {
				RuleID    string
				RuleIndex int
				Level     string
				Message   struct{ Text string }
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           struct{ StartLine, StartColumn int }
					}
				}
				Suppressions []struct{ Kind string }
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(c.stdout), &log))
	require.Equal(t, "2.1.0", log.Version)
	require.NotEmpty(t, log.Schema)
	require.Len(t, log.Runs, 1)
	rules := log.Runs[0].Tool.Driver.Rules
	require.Len(t, rules, len(lint.Rules()))
	for _, rule := range rules {
		require.NotEmpty(t, rule.ShortDescription.Text)
		require.NotEmpty(t, rule.Help.Text)
		require.Contains(t, []string{"error", "warning", "note"}, rule.DefaultConfiguration.Level)
	}
	require.Len(t, log.Runs[0].Results, 2)
	first := log.Runs[0].Results[0]
	require.Equal(t, "GH101", first.RuleID)
	require.Equal(t, "GH101", rules[first.RuleIndex].ID)
	require.Equal(t, "error", first.Level)
	require.Empty(t, first.Suppressions)
	at := first.Locations[0].PhysicalLocation
	require.Equal(t, filepath.ToSlash(lintFixture("GH101.bad.yaml")), at.ArtifactLocation.URI)
	require.Equal(t, 33, at.Region.StartLine)
	require.Equal(t, "external", log.Runs[0].Results[1].Suppressions[0].Kind)
}

func TestLintReadsStandardInput(t *testing.T) {
	text, err := os.ReadFile(lintFixture("GH101.bad.yaml"))
	require.NoError(t, err)
	var stdout, stderr buffer
	code := run(t.Context(), []string{"envoy", "lint", "-"}, environment{
		lookup: func(string) (string, bool) { return "", false },
		stdin:  strings.NewReader(string(text)), stdout: &stdout, stderr: &stderr,
	})
	require.Equal(t, exitFailed, code)
	require.Contains(t, stdout.String(), "stdin:33:15: error GH101")
}

// With Gatehouse's configuration, names are compared, and its own identity
// headers count.
func TestLintKnowsGatehousesConfiguration(t *testing.T) {
	policies := "policies:\n  public: {anonymous: true}\n  admin: {anonymous: true}\n  internal: {anonymous: true}\n  banking: {anonymous: true}\n"
	file := write(t, "envoy.yaml", envoy.Config)
	good := write(t, "gatehouse.yaml", policies+"  user: {anonymous: true}\n")
	c := gatehouse(t, nil, "envoy", "lint", "--strict", file, "--config", good)
	require.Equal(t, exitOK, c.code, c.stdout)

	c = gatehouse(t, nil, "envoy", "lint", file, "--config", write(t, "gatehouse.yaml", policies+"  users: {anonymous: true}\n"))
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stdout, `GH205: There is no policy "user" in Gatehouse's configuration; did you mean users?`)

	c = gatehouse(t, nil, "envoy", "lint", file, "--config", write(t, "gatehouse.yaml", policies+"  user: {anonymous: true}\nidentity: {headers: {user_id: x-caller}}\n"))
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stdout, "GH201: Route auth skips the check and leaves a client's own x-caller in the request.")

	// A header that a policy adds is trusted like the identity's.
	more := policies + "  user: {credentials: [bearer], headers: {x-plan: claims.plan}}\n"
	c = gatehouse(t, nil, "envoy", "lint", file, "--config", write(t, "gatehouse.yaml", more))
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stdout, "GH201: Route auth skips the check and leaves a client's own x-plan in the request.")
	stripped := strings.Replace(envoy.Config, "x[^a-z0-9](user", "x[^a-z0-9](plan|user", 1)
	require.NotEqual(t, envoy.Config, stripped)
	c = gatehouse(t, nil, "envoy", "lint", write(t, "envoy.yaml", stripped), "--config", write(t, "gatehouse.yaml", more))
	require.NotContains(t, c.stdout, "x-plan", "as envoy/README.md says")

	// A route to the ops listener.
	c = gatehouse(t, nil, "envoy", "lint", file, "--config", write(t, "gatehouse.yaml", policies+"  user: {anonymous: true}\nserver: {ops: {listen: '127.0.0.1:8103'}}\n"))
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stdout, "GH403: Route demo-page leads to Gatehouse's own 127.0.0.1:8103.")
}

func TestLintListsAndExplainsRules(t *testing.T) {
	c := gatehouse(t, nil, "envoy", "lint", "--rules")
	require.Equal(t, len(lint.Rules()), strings.Count(c.stdout, "\n"))
	require.Contains(t, c.stdout, "GH101  error    A check that fails lets the request pass\n")
	c = gatehouse(t, nil, "envoy", "lint", "--rules", "gh101")
	require.Contains(t, c.stdout, "failure_mode_allow: false")
	c = gatehouse(t, nil, "envoy", "lint", "--rules", "--format", "json")
	var rules []lint.Rule
	require.NoError(t, json.Unmarshal([]byte(c.stdout), &rules))
	require.Equal(t, lint.Rules(), rules)
}

func TestLintExplainsItself(t *testing.T) {
	for _, args := range [][]string{{"envoy"}, {"envoy", "lint"}} {
		c := gatehouse(t, nil, append(args, "--help")...)
		require.Equal(t, exitOK, c.code)
		require.Contains(t, c.stdout, "Usage:")
		require.Empty(t, c.stderr)
	}
}
