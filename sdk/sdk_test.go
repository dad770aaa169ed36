// Package sdk_test runs the tests of the packages for TypeScript and Python, so that
// 'go test ./...' covers them, and looks at what would be published.
package sdk_test

import (
	"archive/zip"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/sdktest"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(path))
	require.NoError(t, err)
	return string(text)
}

// count is the number that a test runner says behind a word.
func count(t *testing.T, pattern, output string) int {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(output)
	require.NotNil(t, m, "%s", output)
	n, err := strconv.Atoi(m[1])
	require.NoError(t, err)
	return n
}

func TestTypeScript(t *testing.T) {
	t.Parallel()
	dir := sdktest.TypeScript(t)
	tests, err := filepath.Glob(filepath.Join(dir, "build", "*.test.js")) // newer Nodes take no directory
	require.NoError(t, err)
	out := sdktest.Run(t, dir, []string{"USERCONTEXT_CONTRACT=" + sdktest.Contract(t)},
		proctest.Need(t, "node"), append([]string{"--test", "--test-reporter=tap"}, tests...)...)
	require.Greater(t, count(t, `(?m)^# pass (\d+)$`, out), 200)
	require.Zero(t, count(t, `(?m)^# fail (\d+)$`, out)+count(t, `(?m)^# skipped (\d+)$`, out))
}

// What npm would publish: the built package and its words, no test and no source.
func TestTypeScriptPackage(t *testing.T) {
	t.Parallel()
	files := sdktest.TarGz(t, sdktest.Packed(t))
	want := []string{"package/LICENSE", "package/README.md", "package/package.json"}
	for _, module := range []string{"current", "express", "fastify", "index", "usercontext", "verifier"} {
		want = append(want, "package/dist/"+module+".d.ts", "package/dist/"+module+".js")
	}
	slices.Sort(want)
	require.Equal(t, want, slices.Sorted(maps.Keys(files)))

	var about map[string]any
	require.NoError(t, json.Unmarshal(files["package/package.json"], &about))
	require.NotContains(t, about, "dependencies")
	require.Equal(t, "Apache-2.0", about["license"])
	for name, at := range about["exports"].(map[string]any) {
		for _, path := range at.(map[string]any) {
			require.Contains(t, files, "package/"+strings.TrimPrefix(path.(string), "./"), name)
		}
	}
	for name, content := range files {
		if strings.HasSuffix(name, ".js") {
			for _, m := range regexp.MustCompile(`(?m)(?:from|import\() *"([^".][^"]*)"`).FindAllStringSubmatch(string(content), -1) {
				require.Regexp(t, "^node:", m[1], "%s imports what isn't Node's own", name)
			}
		}
	}
	// The oldest that can require() it, as most Express applications do.
	require.Contains(t, read(t, "typescript/package.json"), `"node": ">=20.19"`)
	require.NotContains(t, read(t, "typescript/package-lock.json"), `"resolved"`, "the lock file names a registry: see .npmrc")
}

func TestPython(t *testing.T) {
	t.Parallel()
	python := sdktest.Python3(t)
	out := sdktest.Run(t, "python", []string{
		"PYTHONPATH=src", "PYTHONDONTWRITEBYTECODE=1", "USERCONTEXT_CONTRACT=" + sdktest.Contract(t),
	}, python, "-W", "error", "-m", "unittest", "discover", "-s", ".", "-t", ".")
	require.GreaterOrEqual(t, count(t, `(?m)^Ran (\d+) tests`, out), 26)
	require.Regexp(t, `(?m)^OK$`, out, "none is skipped")
}

// The extra that verifies assertions, by a Python that has what it needs.
func TestPythonAssertions(t *testing.T) {
	t.Parallel()
	python := cryptographic(t)
	out := sdktest.Run(t, "python", []string{
		"PYTHONPATH=src", "PYTHONDONTWRITEBYTECODE=1", "USERCONTEXT_CONTRACT=" + sdktest.Contract(t),
	}, python, "-W", "error", "-m", "unittest", "tests.test_assertion")
	require.GreaterOrEqual(t, count(t, `(?m)^Ran (\d+) tests`, out), 4)
	require.Regexp(t, `(?m)^OK$`, out, "none is skipped")
}

// cryptographic is a Python with what the optional extra asks for: the system's, or the one
// of scripts/tools.sh.
func cryptographic(t *testing.T) string {
	t.Helper()
	python := sdktest.Python3(t)
	for _, python := range []string{python, sdktest.Python(t)} {
		if sdktest.Run(t, ".", nil, python, "-c", "import importlib.util; print(importlib.util.find_spec('cryptography') is not None)") == "True\n" {
			return python
		}
	}
	sdktest.Missing(t, "no Python here has the package cryptography: run scripts/tools.sh sdk-python, apt-get install python3-cryptography, or set GATEHOUSE_PYTHON3 to a Python that has it")
	return ""
}

func TestPythonTypes(t *testing.T) {
	t.Parallel()
	out := sdktest.Run(t, "python", nil, sdktest.Python(t), "-m", "mypy", "--strict", "--cache-dir", t.TempDir(), "src", "tests")
	require.Contains(t, out, "Success: no issues found")
}

// What would be published: the package, its types and its words.
func TestPythonPackage(t *testing.T) {
	t.Parallel()
	wheel, sdist := sdktest.Distributions(t)
	archive, err := zip.OpenReader(wheel)
	require.NoError(t, err)
	defer func() { _ = archive.Close() }()
	var names []string
	for _, f := range archive.File {
		names = append(names, f.Name)
	}
	const info = "gatehouse_usercontext-0.0.0.dist-info/"
	require.ElementsMatch(t, []string{
		"gatehouse_usercontext/__init__.py", "gatehouse_usercontext/_core.py", "gatehouse_usercontext/asgi.py",
		"gatehouse_usercontext/assertion.py",
		"gatehouse_usercontext/py.typed", "gatehouse_usercontext/wsgi.py",
		info + "METADATA", info + "RECORD", info + "WHEEL", info + "licenses/LICENSE",
	}, names)

	files := sdktest.TarGz(t, sdist)
	const root = "gatehouse_usercontext-0.0.0/"
	require.Equal(t, []string{
		root + "LICENSE", root + "PKG-INFO", root + "README.md", root + "pyproject.toml",
		root + "src/gatehouse_usercontext/__init__.py", root + "src/gatehouse_usercontext/_core.py",
		root + "src/gatehouse_usercontext/asgi.py", root + "src/gatehouse_usercontext/assertion.py", root + "src/gatehouse_usercontext/py.typed",
		root + "src/gatehouse_usercontext/wsgi.py", // no tests: they need contract.json, which is the repository's
	}, slices.Sorted(maps.Keys(files)))
	metadata := string(files[root+"PKG-INFO"])
	for _, line := range regexp.MustCompile(`(?m)^Requires-Dist: .*$`).FindAllString(metadata, -1) {
		require.Contains(t, line, `extra == "assertion"`, "nothing is needed but for the extra")
	}
	require.Contains(t, metadata, "License-Expression: Apache-2.0")
	require.Contains(t, metadata, "Requires-Python: >=3.10")

	out := sdktest.Run(t, t.TempDir(), []string{"PYTHONPATH=" + wheel}, sdktest.Python3(t),
		"-c", `from gatehouse_usercontext import asgi, wsgi, read_user; print(read_user([("x-user-id", "alice")]))`)
	require.Contains(t, out, "User(id='alice'")
}

// Packages are given out by themselves, so the licence comes along.
func TestLicences(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"typescript/LICENSE", "python/LICENSE"} {
		require.Equal(t, read(t, "../LICENSE"), read(t, path), path)
	}
}

// Links of the pages, but for those into the web: there are none.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"../docs/services.md", "typescript/README.md", "python/README.md"} {
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(read(t, page), -1) {
			_, err := os.Stat(filepath.Join(filepath.Dir(page), m[1]))
			require.NoError(t, err, "%s links to %s", page, m[1])
		}
	}
}
