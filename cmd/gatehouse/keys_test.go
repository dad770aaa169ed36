package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

// kid returns the name of the key in a file.
func kid(t *testing.T, path string) string {
	t.Helper()
	key, err := token.LoadSigningKey(path, "")
	require.NoError(t, err)
	return key.ID()
}

func TestKeysNew(t *testing.T) {
	t.Chdir(t.TempDir())
	c := gatehouse(t, nil, "keys", "new")
	require.Equal(t, exitOK, c.code, c.stderr)
	path := filepath.Join("keys", "current.pem")
	require.Contains(t, c.stdout, kid(t, path))
	require.Contains(t, c.stdout, "RS256")
	require.Contains(t, c.stdout, "signing_keys: [{file: keys/current.pem}]")
	require.NotContains(t, c.stdout, "PRIVATE")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	before, err := os.ReadFile(path)
	require.NoError(t, err)
	c = gatehouse(t, nil, "keys", "new")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "not overwritten")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)

	for _, alg := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA"} {
		c := gatehouse(t, nil, "keys", "new", "deep/er/"+alg+".pem", "--alg", alg)
		require.Equal(t, exitOK, c.code, c.stderr)
		key, err := token.LoadSigningKey("deep/er/"+alg+".pem", "")
		require.NoError(t, err)
		require.Equal(t, alg, key.Algorithm())
	}
	c = gatehouse(t, nil, "keys", "new", "--alg", "ES256", "--out", "-")
	require.Equal(t, exitOK, c.code, c.stderr)
	_, err = token.ParseSigningKey([]byte(c.stdout), "")
	require.NoError(t, err, "nothing but the key")
	require.Contains(t, c.stderr, "ES256")
	require.NotContains(t, c.stderr, "PRIVATE")
}

// Keys for assertions have a directory, an algorithm and a place in the configuration
// of their own.
func TestKeysForAssertions(t *testing.T) {
	t.Chdir(t.TempDir())
	c := gatehouse(t, nil, "keys", "new", "--for", "assertion")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Contains(t, c.stdout, "ES256")
	require.Contains(t, c.stdout, "  identity:\n    assertion:\n      signing_keys: [{file: keys/assertion/current.pem}]\n")
	first := kid(t, "keys/assertion/current.pem")

	c = gatehouse(t, nil, "keys", "rotate", "--for", "assertion")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, first, kid(t, "keys/assertion/previous.pem"))
	require.Contains(t, c.stdout, "signing_keys: [{file: keys/assertion/current.pem}, {file: keys/assertion/next.pem}, {file: keys/assertion/previous.pem}]")
	key, err := token.LoadSigningKey("keys/assertion/next.pem", "")
	require.NoError(t, err)
	require.Equal(t, "ES256", key.Algorithm())

	c = gatehouse(t, nil, "keys", "rotate", "--for", "assertion")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "replicas that have not read the files again may sign with it until")
	old := time.Now().Add(-61 * time.Minute)
	require.NoError(t, os.Chtimes("keys/assertion/previous.pem", old, old))
	c = gatehouse(t, nil, "keys", "rotate", "--for", "assertion")
	require.Equal(t, exitOK, c.code, c.stderr)

	for _, args := range [][]string{
		{"keys", "new", "--for", "assertion", "--alg", "RS256", "a.pem"}, {"keys", "rotate", "--for", "assertion", "--alg", "EdDSA"}, {"keys", "new", "--for", "cookies", "a.pem"},
	} {
		c := gatehouse(t, nil, args...)
		require.Equal(t, exitUsage, c.code, args)
		require.NoFileExists(t, "a.pem")
	}
	// Those of access tokens are left alone, though both are PEM.
	require.Equal(t, exitOK, gatehouse(t, nil, "keys", "rotate").code)
	before := kid(t, "keys/current.pem")
	c = gatehouse(t, nil, "keys", "rotate", "--for", "assertion", "keys")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "nothing was changed")
	require.Equal(t, before, kid(t, "keys/current.pem"))
}

func TestKeysRotate(t *testing.T) {
	t.Chdir(t.TempDir())
	file := func(name string) string { return filepath.Join("keys", name) }
	c := gatehouse(t, nil, "keys", "rotate", "--alg", "ES256")
	require.Equal(t, exitOK, c.code, c.stderr)
	current, next := kid(t, file("current.pem")), kid(t, file("next.pem"))
	require.NotEqual(t, current, next)
	require.Equal(t, current, kid(t, file("previous.pem")), "so that it can be listed from the beginning")
	require.Contains(t, c.stdout, "signing_keys: [{file: "+file("current.pem")+"}, {file: "+file("next.pem")+"}, {file: "+file("previous.pem")+"}]\n")
	for _, name := range []string{"current.pem", "previous.pem"} {
		require.NoError(t, os.Chmod(file(name), 0o640))
	}
	first := time.Now().Add(-8 * 24 * time.Hour)
	require.NoError(t, os.Chtimes(file("previous.pem"), first, first))

	c = gatehouse(t, nil, "keys", "rotate")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, next, kid(t, file("current.pem")))
	require.Equal(t, current, kid(t, file("previous.pem")))
	third := kid(t, file("next.pem"))
	require.NotContains(t, []string{current, next}, third)
	key, err := token.LoadSigningKey(file("next.pem"), "")
	require.NoError(t, err)
	require.Equal(t, "ES256", key.Algorithm(), "as the others")
	for _, name := range []string{"current.pem", "previous.pem"} {
		info, err := os.Stat(file(name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o640), info.Mode().Perm(), name)
	}

	// Too soon: refresh tokens live on the previous key.
	c = gatehouse(t, nil, "keys", "rotate")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "--force")
	require.Equal(t, next, kid(t, file("current.pem")))
	old := time.Now().Add(-8 * 24 * time.Hour)
	require.NoError(t, os.Chtimes(file("previous.pem"), old, old))
	c = gatehouse(t, nil, "keys", "rotate", "--keep", "336h")
	require.Equal(t, exitFailed, c.code)
	c = gatehouse(t, nil, "keys", "rotate")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, third, kid(t, file("current.pem")))
	require.Equal(t, next, kid(t, file("previous.pem")))
	c = gatehouse(t, nil, "keys", "rotate", "--force", "--alg", "EdDSA")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, third, kid(t, file("previous.pem")))
	c = gatehouse(t, nil, "keys", "rotate", "--force")
	require.Equal(t, exitOK, c.code, c.stderr)
	for _, name := range []string{"current.pem", "next.pem"} {
		key, err := token.LoadSigningKey(file(name), "")
		require.NoError(t, err)
		require.Equal(t, "EdDSA", key.Algorithm(), "a change of algorithm lasts")
	}

	entries, err := os.ReadDir("keys")
	require.NoError(t, err)
	require.Len(t, entries, 3, "nothing is left behind")
}

// With one key so far, or two as in the simplest configuration, rotate rotates,
// and says what that means for servers that run.
func TestKeysRotateWithoutNext(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	c := gatehouse(t, nil, "keys", "new", file("current.pem"), "--alg", "ES256")
	require.Equal(t, exitOK, c.code, c.stderr)
	first := kid(t, file("current.pem"))
	c = gatehouse(t, nil, "keys", "rotate", dir)
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, first, kid(t, file("previous.pem")))
	second := kid(t, file("current.pem"))
	require.NotContains(t, []string{first, kid(t, file("next.pem"))}, second)
	require.Contains(t, c.stdout, "all at once")
}

// A key that no running server knows need not sign at once: --prepare makes it
// and nothing else.
func TestKeysRotatePrepareOnlyPublishes(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	c := gatehouse(t, nil, "keys", "new", file("current.pem"), "--alg", "ES256")
	require.Equal(t, exitOK, c.code, c.stderr)
	first := kid(t, file("current.pem"))
	c = gatehouse(t, nil, "keys", "rotate", dir, "--prepare")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, first, kid(t, file("current.pem")))
	require.Equal(t, first, kid(t, file("previous.pem")))
	next := kid(t, file("next.pem"))
	require.Contains(t, c.stdout, next)
	require.Contains(t, c.stdout, "signing_keys: [{file: "+file("current.pem")+"}, {file: "+file("next.pem")+"}, {file: "+file("previous.pem")+"}]\n")
	require.Contains(t, c.stdout, "rotate when all of them publish the next key")
	c = gatehouse(t, nil, "keys", "rotate", dir, "--prepare")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, next, kid(t, file("next.pem")), "a second time")
	require.NoError(t, os.Remove(file("previous.pem")))
	c = gatehouse(t, nil, "keys", "rotate", dir, "--prepare")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, []string{first, next, first}, []string{kid(t, file("current.pem")), kid(t, file("next.pem")), kid(t, file("previous.pem"))})

	c = gatehouse(t, nil, "keys", "rotate", dir)
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, next, kid(t, file("current.pem")))
	require.Equal(t, first, kid(t, file("previous.pem")))
	require.Contains(t, c.stdout, "{file: "+file("previous.pem")+"}]\n")
}

// Whichever replica has the files of before a rotation and whichever those of
// after it: each takes what the other signs, in any order of restarts.
func TestNoReplicaRefusesATokenDuringARotation(t *testing.T) {
	dir := t.TempDir()
	load := func() *token.Issuer {
		var keys []*token.SigningKey
		for _, name := range []string{"current.pem", "next.pem", "previous.pem"} {
			key, err := token.LoadSigningKey(filepath.Join(dir, name), "")
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			require.NoError(t, err)
			keys = append(keys, key)
		}
		issuer, err := token.NewIssuer(token.MintOptions{Issuer: "https://g.example", Audiences: []string{"api"}, Keys: keys})
		require.NoError(t, err)
		return issuer
	}
	accepts := func(reader, maker *token.Issuer) {
		t.Helper()
		raw, _, err := maker.Issue(authz.Grant{UserID: "bob"})
		require.NoError(t, err)
		v, err := token.NewVerifier([]token.IssuerOptions{reader.Trust()}, token.VerifierOptions{})
		require.NoError(t, err)
		_, err = v.Verify(t.Context(), raw)
		require.NoError(t, err)
		made := maker.RefreshTokens().First()
		_, err = reader.RefreshTokens().Parse(made.Text)
		require.NoError(t, err)
		after := maker.RefreshTokens().Successor(made)
		found, ok := reader.RefreshTokens().Descendant(made, 1, after.Hash)
		require.True(t, ok)
		require.Equal(t, after, found)
	}
	require.Equal(t, exitOK, gatehouse(t, nil, "keys", "new", filepath.Join(dir, "current.pem"), "--alg", "ES256").code)
	before := load()
	for _, args := range [][]string{{"--prepare"}, {}, {"--force", "--alg", "EdDSA"}, {"--force"}, {"--force", "--alg", "RS256"}} {
		require.Equal(t, exitOK, gatehouse(t, nil, append([]string{"keys", "rotate", dir}, args...)...).code)
		after := load()
		accepts(before, after)
		accepts(after, before)
		before = after
	}
}

// Wherever a rotation was interrupted, the next call finishes it, drops no key
// and rotates once.
func TestKeysRotateFinishesWhatWasInterrupted(t *testing.T) {
	keys := map[string]string{}
	for _, name := range []string{"a", "b", "old"} {
		c := gatehouse(t, nil, "keys", "new", "-", "--alg", "ES256")
		require.Equal(t, exitOK, c.code)
		keys[name] = c.stdout
	}
	for name, files := range map[string][3]string{
		"before the first step":         {"a", "b", "old"},
		"previous holds the current":    {"a", "b", "a"},
		"current holds the next":        {"b", "b", "a"},
		"without a previous key":        {"a", "b", ""},
		"without one, in the middle":    {"b", "b", "a"},
		"the last step is what is left": {"b", "b", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for i, file := range []string{"current.pem", "next.pem", "previous.pem"} {
				if files[i] != "" {
					require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(keys[files[i]]), 0o600))
				}
			}
			old := time.Now().Add(-8 * 24 * time.Hour)
			if files[2] == "old" {
				require.NoError(t, os.Chtimes(filepath.Join(dir, "previous.pem"), old, old))
			}
			c := gatehouse(t, nil, "keys", "rotate", dir)
			require.Equal(t, exitOK, c.code, c.stderr)
			for file, want := range map[string]string{"current.pem": "b", "previous.pem": "a"} {
				text, err := os.ReadFile(filepath.Join(dir, file))
				require.NoError(t, err)
				require.Equal(t, keys[want], string(text), file)
			}
			next, err := os.ReadFile(filepath.Join(dir, "next.pem"))
			require.NoError(t, err)
			require.NotContains(t, []string{keys["a"], keys["b"], keys["old"]}, string(next))
		})
	}
}

func TestKeysRotateChangesNothingWhereItCanNot(t *testing.T) {
	dir := t.TempDir()
	require.Equal(t, exitOK, gatehouse(t, nil, "keys", "rotate", "--dir", dir, "--alg", "ES256").code)
	require.Equal(t, exitUsage, gatehouse(t, nil, "keys", "rotate", "--dir", dir, "elsewhere").code)
	before := kid(t, filepath.Join(dir, "current.pem"))
	c := gatehouse(t, nil, "keys", "rotate", dir, "--alg", "HS256")
	require.Equal(t, exitUsage, c.code)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "next.pem"), []byte("no key"), 0o600))
	c = gatehouse(t, nil, "keys", "rotate", dir)
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "next.pem")
	require.Equal(t, before, kid(t, filepath.Join(dir, "current.pem")))
	require.Equal(t, before, kid(t, filepath.Join(dir, "previous.pem")))

	require.NoError(t, os.Remove(filepath.Join(dir, "next.pem")))
	require.NoError(t, os.Rename(filepath.Join(dir, "current.pem"), filepath.Join(dir, "previous.pem")))
	c = gatehouse(t, nil, "keys", "rotate", dir)
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "current.pem is missing")
}

func TestPasswordHash(t *testing.T) {
	hash := func(stdin string) command {
		var stdout, stderr buffer
		code := run(t.Context(), []string{"password", "hash"}, environment{
			lookup: func(string) (string, bool) { return "", false }, stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr,
		})
		return command{code, stdout.String(), stderr.String()}
	}
	for _, stdin := range []string{"correct horse\n", "correct horse", "correct horse\r\n", "correct horse\nand more\n"} {
		c := hash(stdin)
		require.Equal(t, exitOK, c.code, c.stderr)
		require.Regexp(t, `^\$argon2id\$v=19\$m=19456,t=2,p=1\$\S+\n$`, c.stdout)
		require.NotContains(t, c.stdout+c.stderr, "correct")
		file := write(t, "users.yaml", "users:\n- id: a\n  email: a@example.com\n  password_hash: "+c.stdout)
		path := write(t, "gatehouse.yaml", "users: {file: "+file+"}\nsessions: {secrets: [0123456789abcdef]}\nserver: {http: {trusted_hops: 1}}\n")
		c = gatehouse(t, nil, "config", "check", path)
		require.Equal(t, exitOK, c.code, c.stderr)
	}
	for _, stdin := range []string{"", "\n", strings.Repeat("x", 2000)} {
		c := hash(stdin)
		require.Equal(t, exitFailed, c.code)
		require.Empty(t, c.stdout)
	}
	c := gatehouse(t, nil, "password", "hash", "hunter2")
	require.Contains(t, c.stderr, "argument")
	require.NotContains(t, c.stderr, "hunter2")
}

// A users file, keys and providers are part of what config check checks.
func TestConfigCheckReadsTheUsersFile(t *testing.T) {
	file := write(t, "users.yaml", "users:\n- id: a\n  email: a@example.com\n  password_hash: nothing\n")
	path := write(t, "gatehouse.yaml", "users: {file: "+file+"}\nsessions: {secrets: [0123456789abcdef]}\n")
	c := gatehouse(t, nil, "config", "check", path)
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "users.yaml:4:18: users[0].password_hash")

	const weak = "$argon2id$v=19$m=1024,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	require.NoError(t, os.WriteFile(file, []byte("users:\n- id: a\n  email: a@example.com\n  password_hash: "+weak+"\n"), 0o600))
	c = gatehouse(t, nil, "config", "check", path)
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Contains(t, c.stderr, "quickly guessed at")
}

// Two at once would each move what the other one has just moved.
func TestKeysAreRotatedByOneAtATime(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("skipped: directories can't be locked here")
	}
	dir := t.TempDir()
	require.Equal(t, exitOK, gatehouse(t, nil, "keys", "rotate", dir, "--alg", "ES256").code)
	const calls = 16
	results := make(chan command, calls)
	for range calls {
		go func() {
			var stdout, stderr buffer
			code := run(t.Context(), []string{"keys", "rotate", dir, "--force"}, environment{lookup: func(string) (string, bool) { return "", false }, stdout: &stdout, stderr: &stderr})
			results <- command{code, stdout.String(), stderr.String()}
		}()
	}
	rotated := 0
	for range calls {
		switch c := <-results; c.code {
		case exitOK:
			rotated++
		default:
			require.Contains(t, c.stderr, "right now")
		}
	}
	require.Positive(t, rotated)
	ids := []string{kid(t, filepath.Join(dir, "current.pem")), kid(t, filepath.Join(dir, "next.pem")), kid(t, filepath.Join(dir, "previous.pem"))}
	slices.Sort(ids)
	require.Len(t, slices.Compact(ids), 3)
}
