package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/services/demopage"
)

// The demo tries each of its lines before it prints them, and fails when one
// gives another answer.
func TestDemoTellsTheTruth(t *testing.T) {
	proctest.Need(t, "envoy")
	for _, store := range []string{"embedded", "redis"} {
		t.Run(store, func(t *testing.T) {
			if store == "redis" {
				proctest.Need(t, "redis-server")
			}
			here, err := os.Getwd()
			require.NoError(t, err)
			dir, err := filepath.Rel(here, filepath.Join(t.TempDir(), "demo"))
			require.NoError(t, err)
			c := gatehouse(t, nil, "demo", "--check", "--store", store, "--dir", dir, "--port", strconv.Itoa(proctest.FreePort(t)))
			require.Equal(t, exitOK, c.code, c.stderr)
			require.Equal(t, 17, strings.Count(c.stdout, "\ncurl -i http://127.0.0.1:"))
			for _, answer := range []string{
				`→ 401 {"error":"Invalid token"}`, `→ 200 {"message":"Logged out successfully"}`,
				`→ 200 {"message":"Revoked 1 sessions"}`, `→ 401 {"error":"Invalid session"}`,
			} {
				require.Contains(t, c.stdout, answer)
			}
			for _, p := range demopage.People() {
				require.Contains(t, c.stdout, p.Email)
				require.Contains(t, c.stdout, p.Password)
			}
			require.FileExists(t, dir+"/gatehouse.yaml", "kept, since the directory was named")
			require.Equal(t, exitOK, gatehouse(t, nil, "config", "check", dir+"/gatehouse.yaml").code)
		})
	}
}

// A store that stood still for a moment has the demo ask once more. Any other answer than
// that of the line is one too many.
func TestDemoTriesAgainWhatCouldNotBeTold(t *testing.T) {
	t.Parallel()
	asked := 0
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if asked++; asked < 3 || string(body) != "all of it" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer gateway.Close()
	c := demoClient{base: gateway.URL}
	_, _, err := c.do(t.Context(), demoLine{path: "/", body: "all of it", status: http.StatusOK})
	require.NoError(t, err)
	require.Equal(t, 3, asked)
	_, _, err = c.do(t.Context(), demoLine{path: "/x", body: "all of it", status: http.StatusUnauthorized})
	require.ErrorContains(t, err, "/x answers 200 instead of 401")
	require.Equal(t, 4, asked)
}

// What somebody else made stays as it is; what a demo made is made anew, for its owner
// only, however far that one came.
func TestDemoOverwritesNothing(t *testing.T) {
	nothing, err := exec.LookPath("false")
	require.NoError(t, err)
	t.Setenv("GATEHOUSE_ENVOY", nothing)
	demo := func(dir string, more ...string) command {
		return gatehouse(t, nil, append([]string{"demo", "--check", "--store", "embedded", "--dir", dir}, more...)...)
	}
	private := func() string {
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o700))
		return dir
	}
	for _, name := range []string{"gatehouse.yaml", "users.yaml", signingKeyFile} {
		dir := private()
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte("precious: 1\n"), 0o600))
		c := demo(dir)
		require.Equal(t, exitFailed, c.code)
		require.Equal(t, "gatehouse: "+file+" is there, and no demo made it: name another --dir\n", c.stderr)
		require.Equal(t, map[string]string{name: "precious: 1\n"}, tree(t, dir))
	}

	// The first start fails, at the store and at Envoy; the next one is not refused.
	dir := filepath.Join(t.TempDir(), "demo")
	t.Run("without a store", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		c := demo(dir, "--store", "redis")
		require.Equal(t, exitFailed, c.code)
		require.Contains(t, c.stderr, "redis-server")
	})
	require.FileExists(t, filepath.Join(dir, signingKeyFile))
	for range 2 {
		c := demo(dir)
		require.Equal(t, exitFailed, c.code)
		require.NotContains(t, c.stderr, "no demo made it")
		require.Contains(t, c.stderr, "for its version")
	}
	require.Equal(t, exitOK, gatehouse(t, nil, "config", "check", filepath.Join(dir, "gatehouse.yaml")).code)

	// With a port that is taken nothing is touched.
	before := tree(t, dir)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	require.Contains(t, demo(dir, "--port", port).stderr, "port "+port+" is in use")
	require.Equal(t, before, tree(t, dir))

	// Others see nothing: not by a file of theirs, nor by an open directory.
	key := filepath.Join(dir, signingKeyFile)
	require.NoError(t, os.Chmod(key, 0o644))
	require.NotContains(t, demo(dir).stderr, "no demo made it")
	info, err := os.Stat(key)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	before = tree(t, dir)
	require.NoError(t, os.Chmod(dir, 0o750))
	c := demo(dir)
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, dir+" is open to others, and the demo keeps keys and logs there: name a --dir that isn't there yet, or close it, by 'chmod go= ")
	require.Equal(t, before, tree(t, dir))
}

func TestDemoRefusesAPortInUse(t *testing.T) {
	proctest.Need(t, "envoy")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	c := gatehouse(t, nil, "demo", "--check", "--port", port)
	require.Equal(t, exitFailed, c.code)
	require.Equal(t, "gatehouse: port "+port+" is in use: stop the program that has it, or choose another --port\n", c.stderr)
}

func TestDemoWithoutEnvoySaysWhatToDo(t *testing.T) {
	t.Setenv("GATEHOUSE_ENVOY", "")
	t.Setenv("PATH", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", "")
	t.Chdir(t.TempDir())
	c := gatehouse(t, nil, "demo")
	require.Equal(t, exitFailed, c.code)
	require.Equal(t, "gatehouse: the demo needs Envoy, and there is none in PATH: run 'gatehouse demo --install', which fetches Envoy 1.40.0, or set GATEHOUSE_ENVOY to the path of one\n", c.stderr)

	c = gatehouse(t, nil, "demo", "--install")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "install python3")
}

func TestDemoOpensThePage(t *testing.T) {
	proctest.Need(t, "envoy")
	if runtime.GOOS != "linux" {
		t.Skip("browsers are opened in another way here")
	}
	bin, opened := t.TempDir(), filepath.Join(t.TempDir(), "opened")
	require.NoError(t, os.WriteFile(filepath.Join(bin, "xdg-open"), []byte("#!/bin/sh\necho \"$1\" >"+opened+"\n"), 0o700))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	port := strconv.Itoa(proctest.FreePort(t))
	c := gatehouse(t, nil, "demo", "--check", "--open", "--store", "embedded", "--port", port)
	require.Equal(t, exitOK, c.code, c.stderr)
	page, err := os.ReadFile(opened)
	require.NoError(t, err)
	require.Equal(t, "http://127.0.0.1:"+port+"/\n", string(page))
}
