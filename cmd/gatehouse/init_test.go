package main

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/config"
)

// tree is every file below a directory, with its text.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(text)
		return err
	}))
	return files
}

func TestInitWritesEachCase(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args  []string
		files []string // beside those that each case has
	}{
		{[]string{"--for", "sessions"}, []string{"secrets/session-secrets"}},
		{[]string{"--for", "sessions", "--users"}, []string{"secrets/session-secrets", "secrets/first-login.json", "users.yaml"}},
		{[]string{"--for", "jwt"}, []string{"keys/current.pem", "keys/next.pem"}},
		{[]string{"--for", "jwt", "--issuer", "https://idp.example.com", "--audience", "api"}, []string{"keys/current.pem", "keys/next.pem"}},
		{[]string{"--for", "both"}, []string{"secrets/session-secrets", "keys/current.pem", "keys/next.pem"}},
		{[]string{"--for", "api-keys"}, nil},
		{[]string{"--for", "oidc", "--issuer", "https://idp.example.com", "--client-id", "gate"}, []string{"secrets/session-secrets"}},
		{[]string{"--for", "api-keys", "--store", "rediss://ops:p%40ss@redis.example.com:6380/0"}, []string{"secrets/redis-password"}},
		{[]string{"--for", "api-keys", "--store", "redis+cluster://127.0.0.1:7000,127.0.0.2:7000"}, nil},
		{[]string{"--for", "sessions", "--upstream", "a=[::1]:3000/", "--upstream", "b=b.example.com:80/api/b", "--public", "/api/b/docs", "--public", "/assets", "--port", "8443"}, []string{"secrets/session-secrets"}},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "gate")
			c := gatehouse(t, nil, append([]string{"init", dir}, tc.args...)...)
			require.Equal(t, exitOK, c.code, c.stderr)
			files := tree(t, dir)
			want := append([]string{".gitignore", "README.md", "envoy.yaml", "gatehouse.yaml", "secrets/backoffice.header"}, tc.files...)
			var got []string
			for name := range files {
				got = append(got, name)
			}
			require.ElementsMatch(t, want, got)
			for name, text := range files {
				info, err := os.Stat(filepath.Join(dir, name))
				require.NoError(t, err)
				if !strings.HasPrefix(name, "secrets/") && !strings.HasPrefix(name, "keys/") && name != "users.yaml" {
					continue
				}
				require.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), name)
				if name == "users.yaml" {
					continue
				}
				// What is secret is there and nowhere else.
				for line := range strings.Lines(text) {
					secret := strings.TrimSpace(strings.TrimPrefix(line, "x-internal-api-key: "))
					require.NotContains(t, c.stdout+c.stderr, secret)
					for other, there := range files {
						if other != name && !strings.HasPrefix(name, "keys/") {
							require.NotContains(t, there, secret, "%s is in %s", name, other)
						}
					}
				}
			}
			require.NotContains(t, files["gatehouse.yaml"]+files["README.md"], "p%40ss")
			require.NotContains(t, files["gatehouse.yaml"]+files["README.md"]+files["envoy.yaml"], "{{")
			c = gatehouse(t, nil, "config", "check", filepath.Join(dir, "gatehouse.yaml"))
			require.Equal(t, exitOK, c.code, c.stderr)
			require.Empty(t, c.stderr, "no warning")
			c = gatehouse(t, nil, "envoy", "lint", "--strict", "--config", filepath.Join(dir, "gatehouse.yaml"), filepath.Join(dir, "envoy.yaml"))
			require.Equal(t, exitOK, c.code, c.stdout)
		})
	}
}

// A service with a path for administrators, or for programs inside, is theirs, and no
// path is there twice.
func TestInitKeepsServicesForAdministrators(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		upstreams []string
		want      []string // lines of the table
	}{
		{[]string{"admin=127.0.0.1:4000", "app=127.0.0.1:3000/"}, []string{
			"/admin/internal` and below | `internal` | admin", "/admin` and below | `admin` | admin",
			"/internal` and below | `internal` | app", "/` whatever else | `user` | app",
		}},
		{[]string{"app=127.0.0.1:3000/", "x=127.0.0.1:4000/Internal", "v=127.0.0.1:4001/api/ADMIN/v2", "z=127.0.0.1:4002/api"}, []string{
			"/api/ADMIN/v2/internal` and below | `internal` | v", "/api/ADMIN/v2` and below | `admin` | v",
			"/Internal` and below | `internal` | x",
			"/api/admin` and below | `admin` | z", "/api/internal` and below | `internal` | z", "/api` and below | `user` | z",
			"/admin` and below | `admin` | app", "/` whatever else | `user` | app",
		}},
		{[]string{"app=127.0.0.1:3000/", "b=127.0.0.1:4000/admins"}, []string{
			"/admins/admin` and below | `admin` | b", "/admins/internal` and below | `internal` | b", "/admins` and below | `user` | b",
			"/admin` and below | `admin` | app", "/internal` and below | `internal` | app", "/` whatever else | `user` | app",
		}},
	} {
		dir := filepath.Join(t.TempDir(), "gate")
		args := []string{"init", dir, "--for", "sessions"}
		for _, u := range tc.upstreams {
			args = append(args, "--upstream", u)
		}
		c := gatehouse(t, nil, args...)
		require.Equal(t, exitOK, c.code, c.stderr)
		var got []string
		for line := range strings.Lines(tree(t, dir)["README.md"]) {
			if strings.HasPrefix(line, "| `/") {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(line, "| `"), " |\n"))
			}
		}
		require.Equal(t, tc.want, got)
		require.Contains(t, c.stdout, "curl -i http://127.0.0.1:8080/\n", "what is tried is for whoever is logged in")
	}
	dir := filepath.Join(t.TempDir(), "gate")
	require.Equal(t, exitOK, gatehouse(t, nil, "init", dir, "--for", "api-keys", "--upstream", "admin=127.0.0.1:4000").code, "all of it is for programs anyway")
}

// Each line of the configuration that sets something has a comment, there or above.
func TestInitExplainsEachLine(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "gate")
	require.Equal(t, exitOK, gatehouse(t, nil, "init", dir, "--for", "both", "--users", "--issuer", "https://idp.example.com", "--audience", "a").code)
	text, err := os.ReadFile(filepath.Join(dir, "gatehouse.yaml"))
	require.NoError(t, err)
	above := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		trimmed := strings.TrimSpace(line)
		section := strings.HasSuffix(trimmed, ":") // what it has is explained
		deeper := strings.HasPrefix(line, "    ")  // a part of what is explained above
		switch {
		case strings.HasPrefix(trimmed, "#"):
			above = true
		case trimmed == "":
			above = false
		default:
			require.True(t, above || section || deeper || strings.Contains(line, " # "), "what is this for? %s", line)
			above = above && section
		}
	}
}

func TestInitTakesOverExpress(t *testing.T) {
	t.Parallel()
	secret := write(t, "secret", "the new secret of the application\nthe old secret of the application\n")
	dir := filepath.Join(t.TempDir(), "gate")
	c := gatehouse(t, nil, "init", dir, "--for", "sessions", "--express-secret-file", secret, "--express-cookie", "sid")
	require.Equal(t, exitOK, c.code, c.stderr)
	cfg, _, err := config.Load(filepath.Join(dir, "gatehouse.yaml"), nil)
	require.NoError(t, err)
	require.Equal(t, "sid", cfg.Sessions.Cookie.Name)
	require.False(t, cfg.Identity.StripCredentials, "the application needs its cookie")
	require.Len(t, cfg.Sessions.Secrets, 2)
	require.Equal(t, "the new secret of the application", cfg.Sessions.Secrets[0].Reveal(), "it signs")
	require.NotContains(t, c.stdout+c.stderr, "secret of the application")
}

func TestInitRefuses(t *testing.T) {
	t.Parallel()
	short := write(t, "secret", "keyboard cat\n")
	empty := write(t, "empty", "\n")
	oidc := []string{"--for", "oidc", "--issuer", "https://idp.example.com"}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "--for is missing: what do requests come with? sessions, jwt, both, api-keys or oidc; see 'gatehouse init --help'"},
		{[]string{"--for", "session"}, `--for "session": it is sessions, jwt`},
		{[]string{"--for", "sessions", "--port", "0"}, "--port 0 is no port"},
		{[]string{"--for", "sessions", "--port", "9001"}, "--port 9001: that port is Gatehouse's for checks: choose another one for the gateway"},
		{[]string{"--for", "sessions", "--port", "8081"}, "Gatehouse's for /auth"},
		{[]string{"--for", "sessions", "--port", "9090"}, "Gatehouse's for metrics and health"},
		{[]string{"--for", "sessions", "--port", "9901"}, "Envoy's for its administration"},
		{[]string{"--for", "sessions", "--port", "6379"}, "the store's (--store)"},
		{[]string{"--for", "sessions", "--port", "3000"}, "the service app is at 127.0.0.1:3000, and port 3000 of this machine is the gateway's (--port): one of the two needs another port"},
		{[]string{"--for", "sessions", "--upstream", "a=localhost:8080"}, "the service a is at localhost:8080, and port 8080 of this machine is the gateway's (--port)"},
		{[]string{"--for", "sessions", "--upstream", "a=127.0.0.1:8081"}, "the service a is at 127.0.0.1:8081, and port 8081 of this machine is Gatehouse's"},
		{[]string{"--for", "sessions", "--upstream", "a=[::1]:9090"}, "the service a is at [::1]:9090, and port 9090"},
		{[]string{"--for", "sessions", "--upstream", "a=127.0.0.1:9901"}, "is Envoy's for its administration"},
		{[]string{"--for", "sessions", "--upstream", "a=127.0.0.1:6379"}, "is the store's (--store)"},
		{[]string{"--for", "sessions", "--store", "redis+cluster://:secretword@127.0.0.1:7000,127.0.0.1:9001"}, "--store: port 9001 of this machine is Gatehouse's for checks"},
		{[]string{"--for", "sessions", "--store", "127.0.0.1:6379"}, "--store: "},
		{[]string{"--for", "sessions", "--store", "embedded://:secretword@127.0.0.1:0"}, "--store: embedded:// without a password"},
		{[]string{"--for", "sessions", "--upstream", "orders"}, "write NAME=HOST:PORT, as in orders=127.0.0.1:4000"},
		{[]string{"--for", "sessions", "--upstream", "orders=127.0.0.1:99999"}, "write NAME=HOST:PORT"},
		{[]string{"--for", "sessions", "--upstream", "Orders=127.0.0.1:1"}, "the name has small letters"},
		{[]string{"--for", "sessions", "--upstream", "gatehouse=127.0.0.1:1"}, "a cluster of this name already"},
		{[]string{"--for", "sessions", "--upstream", "on=127.0.0.1:1"}, "on is no text in YAML"},
		{[]string{"--for", "sessions", "--upstream", "a=bad}host:1"}, "neither a host name nor an address"},
		{[]string{"--for", "sessions", "--upstream", "a=127.0.0.1:1/a/../b"}, "a path has letters"},
		{[]string{"--for", "sessions", "--upstream", "a=127.0.0.1:1/a, policy: public}"}, "a path has letters"},
		{[]string{"--for", "sessions", "--upstream", "auth=127.0.0.1:1"}, "/auth is the auth API's"},
		{[]string{"--for", "sessions", "--upstream", "a=127.0.0.1:1", "--upstream", "a=127.0.0.1:2/b"}, "the name a is there twice"},
		{[]string{"--for", "sessions", "--upstream", "a=127.0.0.1:1", "--upstream", "b=127.0.0.1:2/A"}, "a has the path /a already"},
		{[]string{"--for", "sessions", "--upstream", "a=127.0.0.1:1", "--public", "/b"}, "--public /b: no service has that path"},
		{[]string{"--for", "sessions", "--public", "/"}, "--public / opens all of app"},
		{[]string{"--for", "sessions", "--public", "/Admin/x"}, "lies below what is for administrators"},
		{[]string{"--for", "sessions", "--upstream", "admin=127.0.0.1:1", "--upstream", "b=127.0.0.1:2/", "--public", "/admin/x"}, "lies below what is for administrators"},
		{[]string{"--for", "sessions", "--upstream", "admin=127.0.0.1:1", "--upstream", "b=127.0.0.1:2/", "--public", "/Admin/x"}, "lies below what is for administrators"},
		{[]string{"--for", "sessions", "--upstream", "x=127.0.0.1:1/api/Admin"}, "x is for administrators or programs inside alone"},
		{[]string{"--for", "sessions", "--public", "/a", "--public", "/a"}, "--public /a is there twice"},
		{[]string{"--for", "api-keys", "--public", "/a"}, "--public has no use"},
		{[]string{"--for", "api-keys", "--users"}, "--users has no use with --for api-keys"},
		{[]string{"--for", "sessions", "--express-secret-file", short}, "a secret of 12 bytes can be guessed, and init begins nothing with less than 16"},
		{[]string{"--for", "sessions", "--express-secret-file", empty}, "it is empty"},
		{[]string{"--for", "sessions", "--express-secret-file", empty + "-not"}, "no such file or directory; put the secret alone into a file"},
		{[]string{"--for", "jwt", "--express-secret-file", write(t, "s", strings.Repeat("x", 32))}, "--for sessions, or both"},
		{[]string{"--for", "sessions", "--users", "--express-secret-file", write(t, "s", strings.Repeat("x", 32))}, "leave one of the two out"},
		{[]string{"--for", "sessions", "--express-cookie", "sid"}, "--express-cookie needs --express-secret-file"},
		{[]string{"--for", "sessions", "--issuer", "https://idp.example.com"}, "--issuer has no use with --for sessions"},
		{[]string{"--for", "jwt", "--issuer", "https://idp.example.com"}, "--audience is missing"},
		{[]string{"--for", "oidc"}, "--issuer is missing"},
		{oidc, "--client-id is missing"},
		{append(oidc, "--client-id", "g", "--users"), "--users has no use with --for oidc"},
		{[]string{"--for", "oidc", "--issuer", "idp example", "--client-id", "g"}, "--issuer: "},
		{[]string{"--for", "oidc", "--issuer", "https://idp.example.com/?x=1", "--client-id", "g"}, "an https:// URL without query\n"},
		{[]string{"--for", "jwt", "--client-id", "g"}, "they are for oidc"},
	} {
		dir := t.TempDir()
		c := gatehouse(t, nil, append([]string{"init", filepath.Join(dir, "gate")}, tc.args...)...)
		require.Equal(t, exitUsage, c.code, "%v: %s", tc.args, c.stderr)
		require.Contains(t, c.stderr, tc.want, "%v", tc.args)
		require.NotContains(t, c.stderr, "mistake of gatehouse")
		require.NotContains(t, c.stderr, "keyboard cat")
		require.NotContains(t, c.stderr, "secretword")
		require.Empty(t, tree(t, dir))
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "README.md"), []byte("mine"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "secrets"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secrets", "mine"), []byte("mine, too"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), []byte("stays"), 0o600))
	before := tree(t, dir)
	c := gatehouse(t, nil, "init", dir, "--for", "sessions")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "nothing was written")
	require.Contains(t, c.stderr, "README.md, secrets already; name another directory, as in 'gatehouse init my-gate', or add --force")
	require.Equal(t, before, tree(t, dir))

	c = gatehouse(t, nil, "init", dir, "--for", "sessions", "--force")
	require.Equal(t, exitOK, c.code, c.stderr)
	after := tree(t, dir)
	require.Contains(t, after["README.md"], "# Your gate")
	require.NotContains(t, after, "secrets/mine")
	require.Equal(t, "stays", after["other"])
	kept := 0
	for name, text := range after {
		if strings.HasPrefix(name, "replaced-") && (text == "mine" || text == "mine, too") {
			kept++
		}
		require.NotContains(t, name, ".gatehouse-init-")
	}
	require.Equal(t, 2, kept)
	require.Contains(t, c.stdout, "What was there is in "+dir+"/replaced-")
	require.Contains(t, after[".gitignore"], "/replaced-*/")

	file := filepath.Join(dir, "other")
	c = gatehouse(t, nil, "init", file, "--for", "sessions")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "is there and is no directory: name another one")
}

// What names of directories can do.
func TestInitDirectories(t *testing.T) {
	t.Chdir(t.TempDir())
	c := gatehouse(t, nil, "init", "", "--for", "sessions")
	require.Equal(t, exitUsage, c.code)
	require.Contains(t, c.stderr, "the directory has no name: leave it out for gate, or name one")

	c = gatehouse(t, nil, "init", "--for", "sessions", "--", "-x")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Contains(t, c.stdout, "  cd ./-x && gatehouse serve gatehouse.yaml\n")

	require.NoError(t, os.Symlink("nowhere", "link"))
	c = gatehouse(t, nil, "init", "link", "--for", "sessions")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "link is a link to what is not there: make that directory first")

	c = gatehouse(t, nil, "init", "new", "--for", "oidc", "--issuer", "https://idp.example.com", "--client-id", "a${HOME}b$${c}")
	require.Equal(t, exitOK, c.code, c.stderr)
	cfg, _, err := config.Load("new/gatehouse.yaml", nil)
	require.NoError(t, err)
	require.Equal(t, "a${HOME}b$${c}", cfg.OIDC.Providers["corp"].ClientID)

	// Twice in a second: what was there first is not lost.
	second := placement{dir: "new", force: true, now: func() time.Time { return time.Unix(0, 0) }}
	for n, want := range []string{"new/replaced-19700101T000000Z", "new/replaced-19700101T000000Z-2", "new/replaced-19700101T000000Z-3"} {
		made := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(made, "a"), nil, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join("new", "a"), []byte{byte('0' + n)}, 0o600))
		aside, err := second.into(made, []string{"a"}, []string{"a"})
		require.NoError(t, err)
		require.Equal(t, want, aside)
		require.Equal(t, string(rune('0'+n)), tree(t, aside)["a"])
	}
}

// Where one of the files can't be put in its place, those before it are taken back.
func TestInitIsAllOrNothing(t *testing.T) {
	t.Parallel()
	dir, made := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("old"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b"), []byte("of somebody else, meanwhile"), 0o600))
	for _, name := range []string{"a", "b"} {
		require.NoError(t, os.WriteFile(filepath.Join(made, name), []byte("new"), 0o600))
	}
	before := tree(t, dir)
	_, err := placement{dir: dir, force: true, now: time.Now}.into(made, []string{"a", "b"}, []string{"a"})
	require.ErrorContains(t, err, "has been made by somebody else just now")
	require.Equal(t, before, tree(t, dir))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2, "no directory for what is replaced is left")

	ctx, cancel := context.WithCancel(t.Context()) // Ctrl-C
	cancel()
	var stderr buffer
	target := filepath.Join(dir, "gate")
	code := run(ctx, []string{"init", target, "--for", "sessions"}, environment{
		lookup: func(string) (string, bool) { return "", false }, stdin: strings.NewReader(""), stdout: &stderr, stderr: &stderr,
	})
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr.String(), "nothing was written: interrupted")
	require.Equal(t, before, tree(t, dir))
}

// The password of the first user is the one that the users file has.
func TestInitFirstLogin(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "gate")
	require.Equal(t, exitOK, gatehouse(t, nil, "init", dir, "--for", "sessions", "--users").code)
	var login struct{ Email, Password string }
	require.NoError(t, json.Unmarshal([]byte(tree(t, dir)["secrets/first-login.json"]), &login))
	require.Equal(t, "admin@example.com", login.Email)
	require.GreaterOrEqual(t, len(login.Password), 20)
}
