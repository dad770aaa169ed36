package browser_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/services/demopage"
)

// patience bounds every wait; the whole takes about a minute.
const patience = 5 * time.Minute

// chromium returns the path of a Chromium.
func chromium(t *testing.T) string {
	t.Helper()
	if os.Getenv("GATEHOUSE_CHROMIUM") == "" {
		for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
			if path, err := exec.LookPath(name); err == nil {
				return path
			}
		}
	}
	return proctest.Need(t, "chromium")
}

// nodeModules returns the directory with playwright-core.
func nodeModules(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_NODE_MODULES")
	if dir == "" {
		dir = filepath.Join("..", "express", "node_modules")
	}
	dir, err := filepath.Abs(dir)
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(dir, "playwright-core")); err != nil {
		const message = "playwright-core is not installed: run npm ci in e2e/express, or set GATEHOUSE_NODE_MODULES"
		if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
			t.Fatal(message)
		}
		t.Skip(message)
	}
	return dir
}

// demo is a running `gatehouse demo`.
type demo struct{ dir, gateway, redis string }

// startDemo runs the built program until the test ends.
func startDemo(t *testing.T) demo {
	t.Helper()
	proctest.Need(t, "envoy")
	proctest.Need(t, "redis-server")
	bin := filepath.Join(t.TempDir(), "gatehouse")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/gatehouse")
	build.Dir = filepath.Join("..", "..")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	d := demo{dir: filepath.Join(t.TempDir(), "demo")}
	port := strconv.Itoa(proctest.FreePort(t))
	d.gateway = "http://127.0.0.1:" + port
	p := proctest.Start(t, bin, []string{"demo", "--store", "redis", "--dir", d.dir, "--port", port}, proc.Options{Grace: patience})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = p.AwaitLine(ctx, func(line string) bool { return strings.HasPrefix(line, "Ctrl-C") })
	require.NoError(t, err, "%s", p.Output())

	cfg, _, err := config.Load(filepath.Join(d.dir, "gatehouse.yaml"), os.LookupEnv)
	require.NoError(t, err)
	d.redis = cfg.Redis.URL.Reveal()
	return d
}

// TestBrowser runs the scripts one after the other: they change the same
// people.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser takes more than a minute: run without -short")
	}
	node, chromium, modules := proctest.Need(t, "node"), chromium(t), nodeModules(t)
	d := startDemo(t)
	scripts := []string{"demo.mjs", "console.mjs"}
	environment := append(os.Environ(),
		"GATEWAY="+d.gateway, "REDIS_URL="+d.redis, "CHROMIUM="+chromium, "GATEHOUSE_NODE_MODULES="+modules, "NODE_NO_WARNINGS=1")
	if directory := os.Getenv("SCREENSHOTS"); directory != "" {
		directory, err := filepath.Abs(filepath.Join("..", "..", directory))
		require.NoError(t, err)
		scripts = append([]string{"screenshots.mjs"}, scripts...) // while little has happened
		environment = append(environment, "SCREENSHOTS="+directory)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(script, ".mjs"), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, node, "--test-reporter=spec", script)
			cmd.Env = environment
			out, err := cmd.CombinedOutput()
			if testing.Verbose() || err != nil {
				t.Logf("%s", out)
			}
			require.NoError(t, err)
			require.Contains(t, string(out), "fail 0")
			require.NotContains(t, string(out), "pass 0")
		})
	}
	d.logsNoPassword(t)
}

// logsNoPassword: what people type into the forms is in no log.
func (d demo) logsNoPassword(t *testing.T) {
	t.Helper()
	secrets := []string{"nobody's password", "eyJhbGciOi", "sessionId=", "s%3A"} // the beginnings of tokens and cookies
	for _, p := range demopage.People() {
		secrets = append(secrets, p.Password)
	}
	for name, witness := range map[string]string{"gatehouse.log": "call=login", "envoy.log": "/auth/login"} {
		text, err := os.ReadFile(filepath.Join(d.dir, name))
		require.NoError(t, err)
		require.True(t, bytes.Contains(text, []byte(witness)), "%s tells of the calls", name)
		for _, secret := range secrets {
			require.False(t, bytes.Contains(text, []byte(secret)), "%q is in %s", secret, name)
		}
	}
}
