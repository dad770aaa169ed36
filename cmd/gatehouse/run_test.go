package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

func TestVersionSaysWhatIsRunning(t *testing.T) {
	for _, flag := range []string{"--version", "-v", "version"} {
		c := gatehouse(t, nil, flag)
		require.Equal(t, exitOK, c.code)
		require.Empty(t, c.stderr)
		require.Regexp(t, `^gatehouse \S+ \(commit \S+, go1\.\S+, \w+/\w+\)\n$`, c.stdout)
	}
}

func TestUsageMistakesExitTwo(t *testing.T) {
	for _, args := range [][]string{
		{"frobnicate"},
		{"serve", "--frobnicate"},
		{"serve", "a.yaml", "b.yaml"},
		{"serve", "a.yaml", "--config", "b.yaml"},
		{"config", "check", "a.yaml", "b.yaml"},
		{"config", "frobnicate"},
		{"config", "schema", "a.yaml"},
		{"demo", "extra"},
		{"demo", "--store", "etcd"},
		{"demo", "--port", "70000"},
		{"keys", "frobnicate"},
		{"keys", "new", "-", "--alg", "HS256"},
		{"keys", "new", "a", "--out", "b"},
		{"keys", "rotate", "a", "b"},
		{"password", "hash", "hunter2"},
		{"password", "frobnicate"},
		{"completion"},
		{"completion", "tcsh"},
		{"sessions", "frobnicate"},
		{"sessions", "list"},
		{"sessions", "list", "alice", "bob"},
		{"sessions", "list", ""},
		{"sessions", "list", "service:billing"},
		{"sessions", "show", "alice"},
		{"sessions", "show", "alice", "no handle"},
		{"sessions", "set", "alice"},
		{"sessions", "set", "alice", "roles"},
		{"sessions", "set", "alice", "email=x"},
		{"sessions", "set", "alice", "disabled=yes"},
		{"sessions", "set", "alice", "roles=a,,b"},
		{"sessions", "set", "alice", "roles=[a"},
		{"sessions", "set", "alice", "roles=[1]"},
		{"sessions", "set", "alice", "roles=a", "roles=b"},
		{"sessions", "revoke"},
		{"sessions", "revoke", "alice"},
		{"sessions", "revoke", "alice", "no handle"},
		{"sessions", "revoke", "alice", "abcdefghijklmnopqrst", "--all"},
		{"sessions", "revoke", "alice", "--all", "--before", "2026-01-01"},
		{"sessions", "revoke", "alice", "--before", "yesterday"},
		{"sessions", "revoke", "alice", "--before", "2999-01-01"},
		{"tokens", "frobnicate"},
		{"tokens", "mint"},
		{"tokens", "mint", "alice"},
		{"tokens", "inspect", "a", "b"},
		{"tokens", "inspect"},
		{"tokens", "revoke"},
		{"tokens", "revoke", "--user", "alice"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			c := gatehouse(t, nil, args...)
			require.Equal(t, exitUsage, c.code, c.stderr)
			require.Equal(t, 1, strings.Count(c.stderr, "\n"), "one line: %s", c.stderr)
			require.True(t, strings.HasPrefix(c.stderr, "gatehouse: "), c.stderr)
		})
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	for _, cmd := range everyCommand(rootCommand(environment{})) {
		c := gatehouse(t, nil, append(strings.Fields(cmd.CommandPath())[1:], "--help")...)
		require.Equal(t, exitOK, c.code)
		require.Contains(t, c.stdout, "Usage:")
		require.Empty(t, c.stderr)
	}
}

// everyCommand returns a command and all below it that have a help.
func everyCommand(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			all = append(all, everyCommand(sub)...)
		}
	}
	return all
}

func TestConfigurationIsFoundByArgumentFlagAndEnvironment(t *testing.T) {
	path := write(t, "gatehouse.yaml", "{}")
	for name, c := range map[string]command{
		"argument":    gatehouse(t, nil, "config", "check", path),
		"flag":        gatehouse(t, nil, "config", "check", "--config", path),
		"short flag":  gatehouse(t, nil, "config", "check", "-c", path),
		"environment": gatehouse(t, map[string]string{"GATEHOUSE_CONFIG": path}, "config", "check"),
		"both, equal": gatehouse(t, nil, "config", "check", path, "--config", path),
	} {
		require.Equal(t, exitOK, c.code, "%s: %s", name, c.stderr)
		require.Equal(t, path+": ok\n", c.stdout, name)
	}
	t.Chdir(t.TempDir())
	c := gatehouse(t, nil, "config", "check")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "gatehouse.yaml")
}

// Each of these is one line that names the place and says what to do.
func TestBadConfigurationIsOneLineAndExitsOne(t *testing.T) {
	garbage := write(t, "garbage.pem", "this is no key")
	public := write(t, "public.pem", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
	tests := map[string]struct{ text, want string }{
		"broken YAML":          {"policies: {user: [", "not valid YAML"},
		"unknown key":          {"polices: {}", "1:1: polices: unknown key; did you mean policies?"},
		"missing environment":  {"sessions: {secrets: ['${NOT_SET}']}", "NOT_SET is not set"},
		"missing secret file":  {"sessions: {secrets_file: nowhere}", "nowhere: no such file"},
		"session, no secret":   {"policies: {user: {credentials: [session]}}", "sessions.secrets"},
		"unknown policy":       {"default_policy: user", "is not in policies"},
		"garbage signing key":  {"tokens: {issuer: https://g.example, audiences: [a], signing_keys: [{file: " + garbage + "}]}", "tokens.signing_keys[0].file"},
		"public signing key":   {"tokens: {issuer: https://g.example, audiences: [a], signing_keys: [{file: " + public + "}]}", "tokens.signing_keys[0].file"},
		"garbage issuer key":   {"issuers: [{issuer: https://i.example, public_key_file: " + garbage + "}]", "issuers[0]"},
		"garbage issuer JWKS":  {"issuers: [{issuer: https://i.example, jwks_file: " + garbage + "}]", "issuers[0]"},
		"garbage certificate":  {"server: {check: {tls: {cert_file: " + garbage + ", key_file: " + garbage + "}}}", "server.check.tls"},
		"wrong Redis scheme":   {"redis: {url: memcached://127.0.0.1}", "redis.url"},
		"broken condition":     {"policies: {user: {anonymous: true, condition: 'request.metod == 1'}}", "undefined field 'metod'"},
		"two listeners, alike": {"server: {check: {listen: '127.0.0.1:9001'}, http: {listen: '127.0.0.1:9001'}}", "give each its own"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := write(t, "gatehouse.yaml", test.text)
			for _, args := range [][]string{{"config", "check", path}, {"serve", path}} {
				c := gatehouse(t, nil, args...)
				require.Equal(t, exitFailed, c.code, "%v: %s", args, c.stderr)
				problem := lastLine(c.stderr)
				require.Contains(t, problem, test.want)
				require.Contains(t, problem, path+":", "says which file")
			}
		})
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	path := write(t, "gatehouse.yaml", "sessions: {ttl: soon}\npolicies: {a: {mode: maybe}}\ndefault_policy: b\n")
	c := gatehouse(t, nil, "serve", path)
	require.Equal(t, exitFailed, c.code)
	lines := strings.Split(strings.TrimSpace(c.stderr), "\n")
	require.Len(t, lines, 3, c.stderr)
	for i, line := range lines {
		require.True(t, strings.HasPrefix(line, fmt.Sprintf("%s:%d:", path, i+1)), line)
	}
}

func TestAddressInUseStartsNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	dir := t.TempDir()
	socket := dir + "/check.sock"
	path := write(t, "gatehouse.yaml", fmt.Sprintf(`
server:
  check: {listen: "unix://%s"}
  http: {listen: "127.0.0.1:0"}
  ops: {listen: "%s"}
`, socket, taken.Addr()))
	c := gatehouse(t, nil, "serve", path)
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, lastLine(c.stderr), "server.ops.listen: address "+taken.Addr().String()+" is in use")
	require.NotContains(t, c.stderr, "listening")
	require.NoFileExists(t, socket, "the listener that was opened first is closed again")
}

func TestSchemaIsPrintedAndIsJSON(t *testing.T) {
	c := gatehouse(t, nil, "config", "schema")
	require.Equal(t, exitOK, c.code)
	var schema map[string]any
	require.NoError(t, json.Unmarshal([]byte(c.stdout), &schema))
	require.Equal(t, "https://json-schema.org/draft/2020-12/schema", schema["$schema"])
	committed, err := os.ReadFile("../../authz/config/schema.json")
	require.NoError(t, err)
	require.JSONEq(t, string(committed), c.stdout)
}

func TestCheckPrintsWarnings(t *testing.T) {
	path := write(t, "gatehouse.yaml", "sessions: {cookie: {secure: false}}")
	c := gatehouse(t, nil, "config", "check", path)
	require.Equal(t, exitOK, c.code)
	require.Contains(t, c.stderr, "warning: "+path+":1:29: sessions.cookie.secure")
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
