// Package scripts holds tests of the scripts in this directory.
package scripts

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// targets finds every fuzz target, "./package FuzzName", and every directory of a
// corpus, likewise, by walking the tree.
func targets(t *testing.T) (found, corpora []string) {
	t.Helper()
	root := ".."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && strings.HasPrefix(name, ".") && name != ".." || name == "node_modules" || name == "tools" {
				return fs.SkipDir
			}
			if dir, isCorpus := strings.CutSuffix(filepath.Dir(path), "/testdata/fuzz"); isCorpus {
				corpora = append(corpora, "./"+strings.TrimPrefix(dir, "../")+" "+name)
			}
			return nil
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Fuzz") {
				found = append(found, "./"+strings.TrimPrefix(filepath.Dir(path), "../")+" "+f.Name.Name)
			}
		}
		return nil
	})
	require.NoError(t, err)
	slices.Sort(found)
	return found, corpora
}

// 'make fuzz' forgets no target: what it finds by looking at text is what the parser
// of Go finds.
func TestEveryFuzzTargetIsFound(t *testing.T) {
	t.Parallel()
	want, _ := targets(t)
	require.Greater(t, len(want), 40)
	out, err := exec.CommandContext(t.Context(), "bash", "fuzz.sh", "--list").Output()
	require.NoError(t, err)
	require.ElementsMatch(t, want, strings.Split(strings.TrimSpace(string(out)), "\n"))
}

// Every target has a corpus, which 'go test' runs: small, so that it does so quickly.
// And no corpus outlives its target.
func TestEveryFuzzTargetHasACorpus(t *testing.T) {
	t.Parallel()
	const mostFiles, mostBytes = 60, 16 << 10
	found, corpora := targets(t)
	for _, target := range found {
		dir, name, _ := strings.Cut(target, " ")
		files, err := os.ReadDir(filepath.Join("..", dir, "testdata", "fuzz", name))
		require.NoError(t, err, "%s has no corpus: commit some inputs with telling names, and some that 'make fuzz' found", target)
		require.NotEmpty(t, files, target)
		require.LessOrEqual(t, len(files), mostFiles, target)
		for _, f := range files {
			text, err := os.ReadFile(filepath.Join("..", dir, "testdata", "fuzz", name, f.Name()))
			require.NoError(t, err)
			require.LessOrEqual(t, len(text), mostBytes, "%s: %s", target, f.Name())
			require.True(t, strings.HasPrefix(string(text), "go test fuzz v1\n"), "%s: %s", target, f.Name())
		}
	}
	for _, corpus := range corpora {
		require.Contains(t, found, corpus, "the corpus of no target")
	}
}

// fakeGo is a go command that knows of two packages, and whose fuzzing ends as told.
const fakeGo = `#!/usr/bin/env bash
case "$1" in
list) echo "$PWD/scripts fake_test.txt"; exit ;;
esac
echo "fuzz: elapsed: 3s, execs: 70 (23/sec), new interesting: 1 (total: 9)"
case "$*" in
*FuzzGood*) echo "fuzz: elapsed: 10s, execs: 12345 (1/sec), new interesting: 7 (total: 9)"; echo PASS ;;
*FuzzBad*) printf -- '--- FAIL: FuzzBad (0.1s)\n        a property\n\n    Failing input written to testdata/fuzz/FuzzBad/0123abcd\n    To re-run:\nFAIL\n'; exit 1 ;;
*) echo "build failed"; exit 2 ;;
esac
`

// A line for each target, and for one that fails its input and how to see it again.
func TestFuzzSaysWhatFailed(t *testing.T) {
	dir := t.TempDir()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	// The script finds targets in files; these are in none of Go's.
	scripts := filepath.Join(dir, "scripts")
	require.NoError(t, os.Mkdir(scripts, 0o700))
	script, err := os.ReadFile(filepath.Join(root, "scripts", "fuzz.sh"))
	require.NoError(t, err)
	for name, text := range map[string]string{
		filepath.Join(scripts, "fuzz.sh"):       string(script),
		filepath.Join(scripts, "fake_test.txt"): "func FuzzGood(f *testing.F) {\nfunc FuzzBad(f *testing.F) {\nfunc FuzzUgly(f *testing.F) {\nfunc FuzzNot(x int) {\n",
		filepath.Join(dir, "go"):                fakeGo,
	} {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o700))
	}
	run := func(only string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", filepath.Join(scripts, "fuzz.sh"))
		cmd.Env = append(os.Environ(), "GO="+filepath.Join(dir, "go"), "FUZZ="+only, "FUZZTIME=1s", "FUZZ_PARALLEL=")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("")
	require.ErrorAs(t, err, new(*exec.ExitError), out)
	require.Regexp(t, `(?m)^ok +scripts +FuzzGood +12345 executions, +7 new inputs$`, out)
	require.Regexp(t, `(?m)^FAIL +scripts +FuzzBad +70 executions`, out)
	require.Contains(t, out, "a property")
	require.Contains(t, out, "the failing input is ./scripts/testdata/fuzz/FuzzBad/0123abcd")
	require.Contains(t, out, `go test ./scripts -run='^FuzzBad$/^0123abcd$'`)
	require.Regexp(t, `(?m)^FAIL +scripts +FuzzUgly`, out)
	require.Contains(t, out, "build failed")
	require.Contains(t, out, "2 of 3 fuzz targets failed")
	require.NotContains(t, out, "FuzzNot")

	out, err = run("Good")
	require.NoError(t, err, out)
	require.Contains(t, out, "1 fuzz targets, 1s each: no failure")
	out, err = run("NoSuch")
	require.ErrorAs(t, err, new(*exec.ExitError))
	require.Contains(t, out, "no fuzz target matches FUZZ=NoSuch")
}
