package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/users"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// The test binary is the gatehouse that a shell calls.
func init() {
	if os.Getenv("GATEHOUSE_TEST_AS_COMMAND") == "1" {
		os.Exit(run(context.Background(), os.Args[1:], environment{lookup: os.LookupEnv, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}))
	}
}

// completions asks as the scripts do.
func completions(t *testing.T, args ...string) []string {
	t.Helper()
	c := gatehouse(t, nil, append([]string{"__complete"}, args...)...)
	require.Equal(t, exitOK, c.code, c.stderr)
	return strings.Split(strings.TrimSuffix(c.stdout, "\n"), "\n")
}

func TestCompletionKnowsWhatCanBeKnownWithoutAsking(t *testing.T) {
	t.Parallel()
	// Nobody is there to ask, and the secret is not in the environment.
	file := deskFile(t, strings.Replace(deskConfig("redis://127.0.0.1:1", "", ""), testSecret, "${NOT_IN_THE_ENVIRONMENT}", 1))
	c := []string{"-c", file}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{append([]string{"sessions", "list"}, append(c, "")...), []string{"alice\talice@example.com", "bob\tbob@example.com", ":4"}},
		{append([]string{"sessions", "revoke"}, append(c, "b")...), []string{"bob\tbob@example.com", ":4"}},
		{append([]string{"sessions", "revoke"}, append(c, "bob", "")...), []string{":4"}},
		{append([]string{"sessions", "show"}, append(c, "bob", "")...), []string{":4"}},
		{append([]string{"sessions", "set"}, append(c, "bob", "")...), []string{"organizationId=", "roles=", "disabled=", ":6"}},
		{append([]string{"sessions", "set"}, append(c, "bob", "roles=x", "")...), []string{"organizationId=", "disabled=", ":6"}},
		{append([]string{"sessions", "set"}, append(c, "bob", "roles=")...), []string{"roles=admin", "roles=auditor", "roles=member", ":4"}},
		{append([]string{"sessions", "set"}, append(c, "bob", "roles=admin,m")...), []string{"roles=admin,member", ":4"}},
		{append([]string{"sessions", "set"}, append(c, "bob", "disabled=")...), []string{"disabled=false", "disabled=true", ":4"}},
		{append([]string{"sessions", "set"}, append(c, "bob", "organizationId=")...), []string{"organizationId=org-1", "organizationId=org-2", ":4"}},
		{append([]string{"tokens", "mint"}, append(c, "--user", "")...), []string{"alice\talice@example.com", "bob\tbob@example.com", ":4"}},
		{append([]string{"tokens", "mint"}, append(c, "--audience", "m")...), []string{"mobile", ":4"}},
		{[]string{"sessions", "list", "-c", filepath.Join(t.TempDir(), "nowhere.yaml"), ""}, []string{":4"}},
		{[]string{"sessions", "list", "-c", ""}, []string{"yaml", "yml", ":8"}},
		{[]string{"serve", ""}, []string{"yaml", "yml", ":8"}},
		{[]string{"config", "check", ""}, []string{"yaml", "yml", ":8"}},
		{[]string{"keys", "new", "--alg", ""}, []string{"RS256", "ES256", "ES384", "ES512", "EdDSA", ":4"}},
		{[]string{"keys", "rotate", "--dir", ""}, []string{":16"}},
		{[]string{"demo", "--store", ""}, []string{"auto", "redis", "embedded", ":4"}},
		{append([]string{"explain"}, append(c, "--policy", "")...), []string{"user", ":4"}},
		{[]string{"explain", "--server", ""}, []string{":4"}},
		{[]string{"envoy", "lint", "--config", ""}, []string{"yaml", "yml", ":8"}},
		{[]string{"envoy", "lint", "--format", ""}, []string{"text", "json", "sarif", ":4"}},
		{[]string{"init", "--for", ""}, []string{"sessions", "jwt", "both", "api-keys", "oidc", ":4"}},
		{[]string{"init", "--express-secret-file", ""}, []string{":0"}}, // any file
		{[]string{"init", ""}, []string{":16"}},
		{[]string{"completion", ""}, []string{"bash", "zsh", "fish", "powershell", ":4"}},
		{[]string{"tokens", "inspect", ""}, []string{":4"}},
	} {
		require.Equal(t, test.want, completions(t, test.args...), test.args)
	}
}

// What is completed is run with the line.
func TestCompletionOffersNothingThatAShellWouldRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hash, err := users.Hash("a password")
	require.NoError(t, err)
	var list strings.Builder
	for i, id := range []string{"plain-1_x@example.com", "$(touch x)", "`x`", "a;b", "a b", "a|b", "a>b", "a&b", "a*", "~root", "it's", `a\b`, "日本"} {
		fmt.Fprintf(&list, "- {id: %q, email: u%d@example.com, password_hash: '%s', roles: [%q]}\n", id, i, hash, id)
	}
	require.NoError(t, os.WriteFile(dir+"/users.yaml", []byte("users:\n"+list.String()), 0o600))
	require.NoError(t, os.WriteFile(dir+"/gatehouse.yaml", []byte("users: {file: users.yaml}\n"), 0o600))
	require.Equal(t, []string{"plain-1_x@example.com\tu0@example.com", "日本\tu12@example.com", ":4"}, completions(t, "sessions", "list", "-c", dir+"/gatehouse.yaml", ""))
	require.Equal(t, []string{"roles=plain-1_x@example.com", "roles=日本", ":4"}, completions(t, "sessions", "set", "-c", dir+"/gatehouse.yaml", "bob", "roles="))
}

func TestCompletionScripts(t *testing.T) {
	t.Parallel()
	for shell, want := range map[string]string{
		"bash": "complete -o default -o nospace -F __start_gatehouse gatehouse", "zsh": "#compdef gatehouse",
		"fish": "complete -c gatehouse", "powershell": "Register-ArgumentCompleter -CommandName 'gatehouse'",
	} {
		c := gatehouse(t, nil, "completion", shell)
		require.Equal(t, exitOK, c.code)
		require.Contains(t, c.stdout, want)
		require.Empty(t, c.stderr)
	}
	c := gatehouse(t, nil, "--help")
	require.Equal(t, 1, strings.Count(c.stdout, "  completion "))
}

// bashCompletes is what bash runs: the script, the one function of the package
// bash-completion that the script calls, and a TAB behind the words.
const bashCompletes = `
source <(gatehouse completion bash) || exit 1
complete -p gatehouse || exit 1
_get_comp_words_by_ref() {
	words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
	cur=${words[cword]} prev=${words[cword-1]}
}
COMP_WORDS=(gatehouse "$@") COMP_CWORD=$# COMP_LINE="gatehouse $*" COMP_TYPE=63
COMP_POINT=${#COMP_LINE}
__start_gatehouse 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"
`

func TestBashCompletes(t *testing.T) {
	t.Parallel()
	bash := proctest.Need(t, "bash")
	bin := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	wrapper := "#!/bin/sh\nGATEHOUSE_TEST_AS_COMMAND=1 exec '" + self + "' \"$@\"\n"
	require.NoError(t, os.WriteFile(filepath.Join(bin, "gatehouse"), []byte(wrapper), 0o700))
	file := deskFile(t, deskConfig("redis://127.0.0.1:1", "", ""))
	for line, want := range map[string][]string{
		"sess":                        {"sessions"},
		"tokens ":                     {"inspect", "mint", "revoke"},
		"sessions list a":             {"alice"},
		"sessions set bob d":          {"disabled="},
		"sessions set bob disabled=t": {"true"}, // bash completes what stands behind =
		"keys new --alg ES5":          {"ES512"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		words := append([]string{"--norc", "--noprofile", "-c", bashCompletes, "bash"}, strings.Split(line, " ")...)
		cmd := exec.CommandContext(ctx, bash, words...)
		// The race detector has programs wait for a second at their end.
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GATEHOUSE_CONFIG="+file, "GORACE=atexit_sleep_ms=0")
		out, err := cmd.Output()
		cancel()
		require.NoError(t, err, string(out))
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		require.Contains(t, lines[0], "-F __start_gatehouse gatehouse")
		for i := range lines { // descriptions stand behind, where there are several
			lines[i], _, _ = strings.Cut(strings.TrimSpace(lines[i]), " ")
		}
		require.Equal(t, want, lines[1:], line)
	}
}

// What is completed is run with the line: a name that a shell would run isn't offered.
func TestCompletionOffersNoAudienceToBeRun(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gatehouse.yaml")
	require.NoError(t, os.WriteFile(file, []byte("tokens: {audiences: ['$(touch x)', 'a b', mobile]}\n"), 0o600))
	require.Equal(t, []string{"mobile", ":4"}, completions(t, "tokens", "mint", "-c", file, "--audience", ""))
}
