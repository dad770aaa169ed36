package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Who made a mistake is told what to run next.
func TestErrorsSayWhatToRunNext(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	nobody := deskFile(t, deskConfig("redis://127.0.0.1:1", "", ""))
	typo := write(t, "gatehouse.yaml", "sesions: {}\n")
	gateway := write(t, "envoy.yaml", "static_resources: {}\n")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	inUse := write(t, "gatehouse.yaml", "server: {check: {listen: '"+taken.Addr().String()+"'}}\npolicies: {p: {anonymous: true}}\ndefault_policy: p\n")
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string // the end of what is said
	}{
		{"command", []string{"sesions", "list"}, exitUsage, `unknown command "sesions" for "gatehouse"; did you mean 'gatehouse sessions'?`},
		{"command below", []string{"keys", "rotat"}, exitUsage, `unknown command "rotat" for "gatehouse keys"; did you mean 'gatehouse keys rotate'?`},
		{"command that is near nothing", []string{"xyzzy"}, exitUsage, `unknown command "xyzzy" for "gatehouse"; see 'gatehouse --help'`},
		{"flag", []string{"serve", "--confg", "x"}, exitUsage, "unknown flag: --confg; did you mean --config?"},
		{"flag of a command below", []string{"sessions", "list", "bob", "--jsn"}, exitUsage, "unknown flag: --jsn; did you mean --json?"},
		{"flag that is near nothing", []string{"serve", "--xyzzy"}, exitUsage, "unknown flag: --xyzzy; see 'gatehouse serve --help'"},
		{"short word that is near nothing", []string{"init", "--dir", "gate"}, exitUsage, "unknown flag: --dir; see 'gatehouse init --help'"},
		{"number without a unit", []string{"tokens", "mint", "--user", "bob", "--ttl", "5"}, exitUsage, `gatehouse: --ttl "5": it is a number with a unit, such as 500ms, 90s, 15m or 24h`},
		{"two letters swapped", []string{"demo", "--prot", "1"}, exitUsage, "unknown flag: --prot; did you mean --port?"},
		{"short flag", []string{"serve", "-x"}, exitUsage, "see 'gatehouse serve --help'"},
		{"no configuration", []string{"serve"}, exitFailed, "gatehouse: 'gatehouse init' writes one to begin with"},
		{"no configuration of that name", []string{"sessions", "list", "bob", "-c", "nowhere.yaml"}, exitFailed, "gatehouse: 'gatehouse init' writes one to begin with"},
		{"misspelt key, serve", []string{"serve", typo}, exitFailed, "unknown key; did you mean sessions?"},
		{"misspelt key, check", []string{"config", "check", typo}, exitFailed, "unknown key; did you mean sessions?"},
		{"directory", []string{"config", "check", filepath.Dir(typo)}, exitFailed, "gatehouse: name the file in it: " + typo},
		{"no Redis", []string{"sessions", "list", "bob", "-c", nobody}, exitFailed, "connection refused; start it, or correct redis.url; of a server that runs, 'gatehouse ready' says whether it has reached it"},
		{"port in use", []string{"serve", inUse}, exitFailed, "is in use: stop the program that has it ('gatehouse ready' says whether it is a Gatehouse), or choose another one"},
		{"port of the echo in use", []string{"attack", "echo", "--listen", taken.Addr().String()}, exitFailed, "--listen: address " + taken.Addr().String() + " is in use: stop the program that has it ('gatehouse ready' says whether it is a Gatehouse), or choose another one"},
		{"no host to listen on", []string{"attack", "echo", "--listen", "3000"}, exitUsage, `--listen "3000": write HOST:PORT, as in 127.0.0.1:8101`},
		{"no server", []string{"ready", "--ops", "127.0.0.1:1"}, exitFailed, "is the server running ('gatehouse serve'), and is that its server.ops.listen?"},
		{"no server to explain", []string{"explain", "--server", "127.0.0.1:1", "http://gw/"}, exitUsage, "is the server running ('gatehouse serve'), and is that its server.ops.listen?"},
		{"no gateway's configuration", []string{"envoy", "lint", "nowhere.yaml"}, exitFailed, "no such file or directory; 'gatehouse init' writes one to begin with"},
		{"nobody to attack", []string{"attack", "--target", "http://127.0.0.1:1"}, exitUsage, "; start the gateway first, or 'gatehouse demo', which prints an attack on itself"},
		{"no user", []string{"tokens", "mint", "-c", nobody}, exitUsage, "As in 'gatehouse tokens mint --user alice'"},
		{"no token", []string{"tokens", "inspect", "-c", nobody}, exitUsage, "as in 'pbpaste | gatehouse tokens inspect'"},
		{"no keys", []string{"tokens", "mint", "--user", "bob", "-c", write(t, "gatehouse.yaml", "policies: {p: {anonymous: true}}\n")}, exitFailed, "'gatehouse keys new' makes one"},
		{"no case", []string{"init"}, exitUsage, "sessions, jwt, both, api-keys or oidc; see 'gatehouse init --help'"},
		{"no argument", []string{"sessions", "list"}, exitUsage, "gatehouse: USER is missing: it is 'gatehouse sessions list USER'; see 'gatehouse sessions list --help'"},
		{"no arguments", []string{"sessions", "set"}, exitUsage, "USER and KEY=VALUE… are missing: it is 'gatehouse sessions set USER KEY=VALUE…'; see 'gatehouse sessions set --help'"},
		{"one of two arguments", []string{"sessions", "show", "bob"}, exitUsage, "HANDLE is missing: it is 'gatehouse sessions show USER HANDLE'; see 'gatehouse sessions show --help'"},
		{"too many arguments", []string{"tokens", "inspect", "secret", "secret"}, exitUsage, "gatehouse: too many arguments: it is 'gatehouse tokens inspect [TOKEN|-]'; see 'gatehouse tokens inspect --help'"},
		{"argument for a flag", []string{"tokens", "mint", "alice"}, exitUsage, "too many arguments: it is 'gatehouse tokens mint --user ID'; see 'gatehouse tokens mint --help'"},
		{"argument of a command without any", []string{"demo", "x"}, exitUsage, "gatehouse: it takes no arguments; see 'gatehouse demo --help'"},
		{"no word of some", []string{"completion"}, exitUsage, "it takes one argument: bash, zsh, fish or powershell; see 'gatehouse completion --help'"},
		{"gateway as an argument", []string{"attack", "http://127.0.0.1:1"}, exitUsage, "name the gateway by --target, as in --target http://127.0.0.1:8080"},
		{"no token to revoke", []string{"tokens", "revoke", "-c", nobody}, exitUsage, "as in 'pbpaste | gatehouse tokens revoke'"},
		{"file for a directory", []string{"keys", "rotate", typo}, exitUsage, "is a file: name the directory that current.pem is in, as in 'gatehouse keys rotate keys'"},
		{"directory for files", []string{"envoy", "lint", dir + "/"}, exitFailed, "is a directory; name the files in it, all of one gateway at once, as in " + dir + "/*.yaml"},
		{"other extension", []string{"serve", strings.TrimSuffix(typo, ".yaml") + ".yml"}, exitFailed, "gatehouse: there is " + typo + ": name that"},
		{"gateway's configuration", []string{"config", "check", gateway}, exitFailed, "gatehouse: that is a gateway's configuration, which 'gatehouse envoy lint " + gateway + "' reads"},
	} {
		c := gatehouse(t, nil, tc.args...)
		require.Equal(t, tc.code, c.code, "%s: %s", tc.name, c.stderr)
		require.True(t, strings.HasSuffix(c.stderr, tc.want+"\n"), "%s: %s", tc.name, c.stderr)
	}

	// What init wrote is found, from where it was run.
	c := gatehouse(t, nil, "init", "--for", "api-keys")
	require.Equal(t, exitOK, c.code)
	require.Contains(t, c.stdout, "\nNext, each in a terminal of its own; Redis has to run:\n")
	c = gatehouse(t, nil, "init", "embedded", "--for", "api-keys", "--store", "embedded://")
	require.Equal(t, exitOK, c.code)
	require.Contains(t, c.stdout, "\nNext, each in a terminal of its own:\n")
	require.FileExists(t, filepath.Join(defaultInitDir, defaultConfigFile))
	for _, tc := range []struct{ typed, want string }{
		{"serve", "gatehouse serve gate/gatehouse.yaml"},
		{"config check", "gatehouse config check gate/gatehouse.yaml"},
		{"tokens inspect x", "gatehouse tokens inspect --config gate/gatehouse.yaml"},
	} {
		c := gatehouse(t, nil, strings.Fields(tc.typed)...)
		require.Contains(t, c.stderr, "there is one in gate: name it, as in '"+tc.want+"', or run this there")
	}
	t.Chdir(defaultInitDir)
	require.Equal(t, exitOK, gatehouse(t, nil, "config", "check").code)
}
