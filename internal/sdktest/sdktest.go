// Package sdktest builds the packages of sdk/ for tests: not in place, because tests of
// several Go packages do it at the same time, and as they would be published, because
// that is what has to work.
//
// A test that needs Node, Python or what they install is skipped where that is missing,
// with a message that says how to get it; where the environment variable CI is true it
// fails instead.
package sdktest

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// patience bounds every command: a compiler on a busy machine.
const patience = 3 * time.Minute

// Root is the directory of the repository.
func Root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	require.NoError(tb, err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		require.NotEqual(tb, dir, filepath.Dir(dir), "no go.mod above the working directory")
		dir = filepath.Dir(dir)
	}
}

// Contract is the path of the cases that all languages have in common.
func Contract(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(Root(tb), "services", "usercontext", "testdata", "contract.json")
}

// NodeModules is where what the tests in Node need is installed.
func NodeModules(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("GATEHOUSE_SDK_NODE_MODULES")
	if dir == "" {
		dir = filepath.Join(Root(tb), "sdk", "typescript", "node_modules")
	}
	if _, err := os.Stat(filepath.Join(dir, "typescript")); err != nil { //nolint:gosec // G703: who runs the tests says where it is
		Missing(tb, "typescript is not installed: run scripts/tools.sh node (or npm ci in sdk/typescript), or set GATEHOUSE_SDK_NODE_MODULES")
	}
	return dir
}

// Missing skips a test that needs what isn't installed, and fails it where CI says that
// all of it should be.
func Missing(tb testing.TB, message string) {
	tb.Helper()
	if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
		tb.Fatal(message)
	}
	tb.Skip(message)
}

// Python is the Python that scripts/tools.sh made for these tests. It has mypy, flit_core,
// uvicorn and, on most platforms, cryptography.
func Python(tb testing.TB) string {
	tb.Helper()
	return proctest.Need(tb, "sdk-python")
}

// Python3 is the system's Python, where it is one that the package is for.
func Python3(tb testing.TB) string {
	tb.Helper()
	python := proctest.Need(tb, "python3")
	if Run(tb, ".", nil, python, "-c", "import sys; print(sys.version_info >= (3, 10))") != "True\n" {
		Missing(tb, python+" is older than 3.10: install a newer Python, or set GATEHOUSE_PYTHON3 to its path")
	}
	return python
}

// Run runs a program to its end, which must be a good one, and returns what it printed.
func Run(tb testing.TB, dir string, env []string, program string, args ...string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // G204: programs of the tests
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), env...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	const most = 8000
	text := string(out)
	require.NoError(tb, err, "%s %s\n%s", program, strings.Join(args, " "), text[max(0, len(text)-most):])
	return text
}

// Clone returns a directory in which somebody cloned the repository, as gatehouse, as far
// as sdk/ goes. 'npm ci' has been run there.
func Clone(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	sdk := filepath.Join(dir, "gatehouse", "sdk")
	copyTree(tb, filepath.Join(Root(tb), "sdk"), sdk)
	require.NoError(tb, os.Symlink(NodeModules(tb), filepath.Join(sdk, "typescript", "node_modules")))
	return dir
}

// TypeScript returns a directory with the package for Node, built, and its tests in build.
func TypeScript(tb testing.TB) string {
	tb.Helper()
	dir := built(tb)
	tsc(tb, dir, "tsconfig.test.json")
	return dir
}

// built is the package without tests.
func built(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	copyTree(tb, filepath.Join(Root(tb), "sdk", "typescript"), dir)
	require.NoError(tb, os.Symlink(NodeModules(tb), filepath.Join(dir, "node_modules")))
	tsc(tb, dir, "tsconfig.json")
	return dir
}

func tsc(tb testing.TB, dir, project string) {
	tb.Helper()
	Run(tb, dir, nil, proctest.Need(tb, "node"), filepath.Join("node_modules", "typescript", "bin", "tsc"), "-p", project)
}

// Packed returns the package for Node as it would be published: a .tgz file.
func Packed(tb testing.TB) string {
	tb.Helper()
	npm := proctest.Need(tb, "npm")
	source, dir := built(tb), tb.TempDir()
	// Of no registry, and nothing of the user's.
	env := []string{"npm_config_cache=" + filepath.Join(dir, "cache"), "npm_config_offline=true", "npm_config_update_notifier=false"}
	Run(tb, source, env, npm, "pack", "--ignore-scripts", "--silent", "--pack-destination", dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	require.NoError(tb, err)
	require.Len(tb, files, 1)
	return files[0]
}

// Installed returns a directory in which programs find the package for Node, as it would
// be published, Express and Fastify.
func Installed(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	modules := filepath.Join(dir, "node_modules")
	for name, content := range TarGz(tb, Packed(tb)) {
		file := filepath.Join(modules, "@gatehouse-auth", "usercontext", strings.TrimPrefix(name, "package/"))
		require.NoError(tb, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(tb, os.WriteFile(file, content, 0o600))
	}
	for _, name := range []string{"express", "fastify"} {
		require.NoError(tb, os.Symlink(filepath.Join(NodeModules(tb), name), filepath.Join(modules, name)))
	}
	return dir
}

// Distributions builds the package for Python as it would be published. A wheel may stand
// in PYTHONPATH.
func Distributions(tb testing.TB) (wheel, sdist string) {
	tb.Helper()
	python := Python(tb)
	source, dir := tb.TempDir(), tb.TempDir()
	copyTree(tb, filepath.Join(Root(tb), "sdk", "python"), source)
	const build = "import sys; from flit_core import buildapi as b; print(b.build_wheel(sys.argv[1])); print(b.build_sdist(sys.argv[1]))"
	names := strings.Fields(Run(tb, source, nil, python, "-c", build, dir))
	require.Len(tb, names, 2)
	return filepath.Join(dir, names[0]), filepath.Join(dir, names[1])
}

// copyTree copies what is ours: nothing that was built or installed.
func copyTree(tb testing.TB, from, to string) {
	tb.Helper()
	generated := []string{"node_modules", "dist", "build", "__pycache__", ".mypy_cache"}
	require.NoError(tb, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if slices.Contains(generated, d.Name()) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		content, err := os.ReadFile(path) //nolint:gosec // G304: our own files
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o600) //nolint:gosec // G703: below a directory of the test
	}))
}

// TarGz returns the files of an archive.
func TarGz(tb testing.TB, path string) map[string][]byte {
	tb.Helper()
	file, err := os.Open(path) //nolint:gosec // G304: of this test
	require.NoError(tb, err)
	defer func() { _ = file.Close() }()
	unzipped, err := gzip.NewReader(file)
	require.NoError(tb, err)
	archive := tar.NewReader(unzipped)
	files := map[string][]byte{}
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(tb, err)
		if header.Typeflag != tar.TypeReg {
			continue
		}
		content, err := io.ReadAll(archive)
		require.NoError(tb, err)
		files[header.Name] = content
	}
}
