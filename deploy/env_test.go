package deploy_test

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/token"
)

// secrets are the variables that scripts/compose-env.sh writes.
var secrets = []string{"SESSION_SECRET", "REDIS_PASSWORD", "INTERNAL_API_KEY", "INTERNAL_API_KEY_SHA256", "SIGNING_KEY_FILE"}

// env is what scripts/compose-env.sh made.
type env struct {
	file, key string
	values    map[string]string
}

// makeEnv runs scripts/compose-env.sh.
func makeEnv(t *testing.T) env {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: scripts/compose-env.sh needs it for the signing key")
	}
	dir := t.TempDir()
	e := env{file: filepath.Join(dir, ".env"), key: filepath.Join(dir, "secrets", "signing-key.pem")}
	out, err := composeEnv(t, e)
	require.NoError(t, err, out)
	e.values = readEnv(t, e.file)
	return e
}

func composeEnv(t *testing.T, e env) (output string, err error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../scripts/compose-env.sh", e.file, e.key).CombinedOutput()
	return string(out), err
}

func readEnv(t *testing.T, file string) map[string]string {
	t.Helper()
	values := map[string]string{}
	for line := range strings.Lines(string(read(t, file))) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		require.True(t, ok, "a line without =")
		values[name] = value
	}
	return values
}

func TestComposeEnvWritesFreshSecrets(t *testing.T) {
	e := makeEnv(t)
	require.Len(t, e.values, len(secrets))
	for _, name := range []string{"SESSION_SECRET", "REDIS_PASSWORD", "INTERNAL_API_KEY"} {
		// Hexadecimal digits need no escape in a URL, in YAML, in redis.conf.
		require.Regexp(t, `^[0-9a-f]{64}$`, e.values[name], name)
	}
	require.NotEqual(t, e.values["SESSION_SECRET"], e.values["REDIS_PASSWORD"])
	require.NotEqual(t, e.values["REDIS_PASSWORD"], e.values["INTERNAL_API_KEY"])
	sum := sha256.Sum256([]byte(e.values["INTERNAL_API_KEY"]))
	require.Equal(t, hex.EncodeToString(sum[:]), e.values["INTERNAL_API_KEY_SHA256"])
	require.Equal(t, e.key, e.values["SIGNING_KEY_FILE"])

	key, err := token.LoadSigningKey(e.key, "")
	require.NoError(t, err)
	require.NotNil(t, key)

	other := makeEnv(t)
	for _, name := range secrets {
		require.NotEqual(t, e.values[name], other.values[name], "%s is the same twice", name)
	}
	require.NotEqual(t, read(t, e.key), read(t, other.key))
}

func TestComposeEnvKeepsSecretsFromOthers(t *testing.T) {
	e := makeEnv(t)
	mode := func(path string) os.FileMode {
		info, err := os.Stat(path)
		require.NoError(t, err)
		return info.Mode().Perm()
	}
	require.Equal(t, os.FileMode(0o600), mode(e.file))
	// The key is read by the containers' user, who is nobody here; the directory
	// is what keeps everybody else out.
	require.Equal(t, os.FileMode(0o700), mode(filepath.Dir(e.key)))
	require.Equal(t, os.FileMode(0o444), mode(e.key))

	entries, err := os.ReadDir(filepath.Dir(e.file))
	require.NoError(t, err)
	require.Len(t, entries, 2, "a temporary file is left over")
	entries, err = os.ReadDir(filepath.Dir(e.key))
	require.NoError(t, err)
	require.Len(t, entries, 1, "a temporary file is left over")
}

func TestComposeEnvNeverOverwrites(t *testing.T) {
	e := makeEnv(t)
	file, key := read(t, e.file), read(t, e.key)

	out, err := composeEnv(t, e)
	require.ErrorAs(t, err, new(*exec.ExitError), "it must fail: %s", out)
	require.Contains(t, out, "stays as it is")
	require.Equal(t, file, read(t, e.file))
	require.Equal(t, key, read(t, e.key))
	for _, name := range []string{"SESSION_SECRET", "REDIS_PASSWORD", "INTERNAL_API_KEY"} {
		require.NotContains(t, out, e.values[name], "a secret on the terminal")
	}

	// A new env file takes the key that is there: tokens stay valid.
	require.NoError(t, os.Remove(e.file))
	out, err = composeEnv(t, e)
	require.NoError(t, err, out)
	require.Equal(t, key, read(t, e.key))
	require.NotEqual(t, file, read(t, e.file))
}

// composeCommand is docker-compose, or docker with its plugin.
func composeCommand(t *testing.T) []string {
	t.Helper()
	if path, err := exec.LookPath("docker-compose"); err == nil {
		return []string{path}
	}
	if path, err := exec.LookPath("docker"); err == nil {
		if exec.CommandContext(t.Context(), path, "compose", "version").Run() == nil {
			return []string{path, "compose"}
		}
	}
	// Not even under CI is this a failure: 'make test' doesn't install it.
	t.Skip("neither docker-compose nor 'docker compose' is installed, so nobody but these tests has read docker-compose.yml")
	return nil
}

// composeConfig runs 'docker-compose config -q' with an env file.
func composeConfig(t *testing.T, values map[string]string) (output string, err error) {
	t.Helper()
	var text strings.Builder
	for name, value := range values {
		text.WriteString(name + "=" + value + "\n")
	}
	file := filepath.Join(t.TempDir(), "env")
	require.NoError(t, os.WriteFile(file, []byte(text.String()), 0o600))
	command := append(composeCommand(t), "--project-directory", "..", "-f", composeFile, "--env-file", file, "config", "-q")
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	for _, v := range os.Environ() { // what the developer has set must not stand in
		if name, _, _ := strings.Cut(v, "="); !strings.Contains(strings.Join(secrets, " "), name) {
			cmd.Env = append(cmd.Env, v)
		}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestComposeFileIsValid(t *testing.T) {
	e := makeEnv(t)
	out, err := composeConfig(t, e.values)
	require.NoError(t, err, out)
	require.Empty(t, out, "a warning")
}

func TestComposeRefusesToStartWithoutASecret(t *testing.T) {
	e := makeEnv(t)
	for _, name := range secrets {
		t.Run(name, func(t *testing.T) {
			values := maps.Clone(e.values)
			delete(values, name)
			out, err := composeConfig(t, values)
			require.Error(t, err)
			require.Contains(t, out, "make compose-env", "the error says what to do")
		})
	}
}
