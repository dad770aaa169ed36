package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// hello is a product that is built in a second.
var hello = product{
	Name: "hello", Module: "example.com/hello", Main: "./cmd/hello", Tags: "timetzdata", Papers: []string{"LICENSE", noticesFile},
	Targets: gatehouse.Targets,
}

const helloSource = `package main

import (
	"fmt"
	"runtime/debug"
)

func main() {
	info, _ := debug.ReadBuildInfo()
	fmt.Println(info.Main.Version)
}
`

// helloRepository is hello, committed once; the commit's time is that of the test.
func helloRepository(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "hello")
	for name, content := range map[string]string{
		"go.mod":            "module example.com/hello\n\ngo 1.26.0\n",
		"cmd/hello/main.go": helloSource,
		"LICENSE":           mit,
		"deploy/Dockerfile": "ARG GO_VERSION=" + strings.TrimPrefix(runtime.Version(), "go") + "\n",
		".gitignore":        "/dist/\n",
	} {
		put(t, filepath.Join(dir, name), content)
	}
	require.NoError(t, licenses(t.Context(), hello, dir, true, io.Discard))
	mustGit(t, dir, "init", "--quiet", "--initial-branch", "main")
	mustGit(t, dir, "add", ".")
	mustGit(t, dir, "commit", "--quiet", "--message", "hello")
	return dir
}

func put(t *testing.T, file, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
}

func mustGit(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := git(t.Context(), dir, append([]string{"-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"}, args...)...)
	require.NoError(t, err)
	return out
}

const mit = `MIT License

Copyright (c) 2026 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`

const mpl = `This Source Code Form is subject to the terms of the Mozilla Public
License, v. 2.0. If a copy of the MPL was not distributed with this
file, You can obtain one at https://mozilla.org/MPL/2.0/.
`

func TestReleaseIsTheSameWhereverItIsBuilt(t *testing.T) {
	here := helloRepository(t)
	// Elsewhere: another path, files of another age and mode, tags of its own, the
	// version's tag already there, and what git ignores lying about.
	there := filepath.Join(t.TempDir(), "some", "where", "else")
	mustGit(t, here, "clone", "--quiet", here, there)
	mustGit(t, there, "tag", "v1.2.3")
	mustGit(t, there, "tag", "v1.9.9")
	require.NoError(t, os.Chtimes(filepath.Join(there, "LICENSE"), time.Time{}, time.Unix(1, 0)))
	put(t, filepath.Join(there, "dist", "cmd", "hello", "other.go"), "package main\n")

	builds := map[string]map[string]string{}
	for _, root := range []string{here, there} {
		dist := filepath.Join(root, "dist", "v1.2.3")
		require.NoError(t, release(t.Context(), hello, root, "v1.2.3", dist, io.Discard))
		builds[root] = contents(t, dist)
	}
	require.Equal(t, builds[here], builds[there])
	require.Len(t, builds[here], 5)

	for name, content := range builds[here] {
		if name != sumsFile {
			require.Contains(t, builds[here][sumsFile], fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(content)), name))
		}
	}

	stamp := mustGit(t, here, "show", "--no-patch", "--format=%ct", "HEAD")
	for _, target := range hello.Targets {
		dir := "hello_v1.2.3_linux_" + target.Arch
		program := unpacked(t, builds[here][dir+".tar.gz"], dir, stamp)
		require.NoError(t, static(program, target))
		if runtime.GOOS == target.OS && runtime.GOARCH == target.Arch {
			file := filepath.Join(t.TempDir(), "hello")
			require.NoError(t, os.WriteFile(file, program, 0o755))
			out, err := exec.CommandContext(t.Context(), file).Output()
			require.NoError(t, err)
			require.Equal(t, "v1.2.3\n", string(out))
		}
		for _, other := range hello.Targets {
			if other != target {
				require.ErrorContains(t, static(program, other), "it is for")
			}
		}
		validate(t, []byte(builds[here][dir+".cdx.json"]))
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	files := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		files[e.Name()] = string(text)
	}
	return files
}

// unpacked returns the program of an archive, in which nothing may be what the
// machine or the moment decide.
func unpacked(t *testing.T, archive, dir, stamp string) []byte {
	t.Helper()
	zipped, err := gzip.NewReader(strings.NewReader(archive))
	require.NoError(t, err)
	require.True(t, zipped.ModTime.IsZero())
	require.Empty(t, zipped.Name)
	var names []string
	var program []byte
	for packed := tar.NewReader(zipped); ; {
		h, err := packed.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		names = append(names, fmt.Sprintf("%s %04o", h.Name, h.Mode))
		require.Zero(t, h.Uid)
		require.Zero(t, h.Gid)
		require.Empty(t, h.Uname+h.Gname)
		require.Equal(t, stamp, fmt.Sprint(h.ModTime.Unix()))
		if h.Name == dir+"/hello" {
			program, err = io.ReadAll(packed)
			require.NoError(t, err)
		}
	}
	require.Equal(t, []string{dir + "/ 0755", dir + "/LICENSE 0644", dir + "/THIRD_PARTY_NOTICES 0644", dir + "/hello 0755"}, names)
	return program
}

// validate holds a bill of materials against CycloneDX's own schema.
func validate(t *testing.T, bill []byte) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	require.NoError(t, err)
	dir := filepath.Join(strings.TrimSpace(string(out)), "schema")
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	for name, file := range map[string]string{
		"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json", "jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		require.NoError(t, err)
		require.NoError(t, compiler.AddResource("http://cyclonedx.org/schema/"+name, schema))
	}
	schema, err := compiler.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	require.NoError(t, err)
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(bill))
	require.NoError(t, err)
	require.NoError(t, schema.Validate(document))

	document.(map[string]any)["components"] = "none"
	require.Error(t, schema.Validate(document), "a schema that says yes to everything")
}

// TestBillOfMaterialsOfGatehouse: complete, with a licence for everything, and who
// needs whom.
func TestBillOfMaterialsOfGatehouse(t *testing.T) {
	if testing.Short() {
		t.Skip("builds gatehouse; 'make test' does")
	}
	root := filepath.Join("..", "..")
	file := filepath.Join(t.TempDir(), "gatehouse")
	target := gatehouse.Targets[0]
	_, err := goCommand(t.Context(), root, buildEnv(target), "build", "-trimpath", "-buildvcs=false", "-tags", gatehouse.Tags, "-ldflags", "-s -w", "-o", file, gatehouse.Main)
	require.NoError(t, err)
	program, err := os.ReadFile(file)
	require.NoError(t, err)
	modules, err := linked(t.Context(), root, target, gatehouse.Tags, gatehouse.Main)
	require.NoError(t, err)
	text, err := materials(gatehouse, program, modules, commit{time: time.Unix(1_800_000_000, 0)})
	require.NoError(t, err)
	validate(t, text)

	var bill cyclonedx.BOM
	require.NoError(t, json.Unmarshal(text, &bill))
	require.Equal(t, "gatehouse", bill.Metadata.Component.Name)
	require.Equal(t, "2027-01-15T08:00:00Z", bill.Metadata.Timestamp)
	byName := map[string]cyclonedx.Component{}
	for _, c := range *bill.Components {
		byName[c.Name] = c
		require.NotEmpty(t, *c.Licenses, c.Name)
		require.NotEmpty(t, c.Version, c.Name)
	}
	require.Equal(t, strings.TrimPrefix(runtime.Version(), "go"), strings.TrimPrefix(byName["std"].PackageURL, "pkg:golang/std@"))
	require.Contains(t, byName, "google.golang.org/grpc")
	require.NotContains(t, byName, "github.com/stretchr/testify", "only tests need it")
	needs := map[string][]string{}
	for _, d := range *bill.Dependencies {
		if d.Dependencies != nil {
			needs[d.Ref] = *d.Dependencies
		}
	}
	require.Contains(t, needs[bill.Metadata.Component.BOMRef], byName["google.golang.org/grpc"].BOMRef)
	require.Contains(t, needs[byName["github.com/alicebob/miniredis/v2"].BOMRef], byName["github.com/yuin/gopher-lua"].BOMRef)

	// A program and a list of modules that don't belong together.
	without := slices.DeleteFunc(slices.Clone(modules), func(m module) bool { return m.Path == "github.com/yuin/gopher-lua" })
	_, err = materials(gatehouse, program, without, commit{})
	require.ErrorContains(t, err, "github.com/yuin/gopher-lua")
	more := append(slices.Clone(modules), module{Path: "example.com/more", Version: "v1.0.0"})
	_, err = materials(gatehouse, program, more, commit{})
	require.ErrorContains(t, err, "example.com/more")
}

func TestWhatIsNotReleased(t *testing.T) {
	refused := func(t *testing.T, root, version, because string) {
		t.Helper()
		dist := filepath.Join(root, "dist", "new")
		require.ErrorContains(t, release(t.Context(), hello, root, version, dist, io.Discard), because)
		require.NoDirExists(t, dist)
	}
	root := helloRepository(t)
	t.Run("version", func(t *testing.T) {
		for _, version := range []string{"1.2.3", "v1", "v1.2", "latest", "v1.2.3+build", "v2.0.0", "v1.2.3/../x"} {
			refused(t, root, version, "is no version such as v1.2.3")
		}
		refused(t, root, "", "say which version")
	})
	t.Run("another Go", func(t *testing.T) {
		root := helloRepository(t)
		put(t, filepath.Join(root, "deploy", "Dockerfile"), "ARG GO_VERSION=1.2.3\n")
		refused(t, root, "v1.2.3", "releases are built by go1.2.3")
	})
	t.Run("changed file", func(t *testing.T) {
		root := helloRepository(t)
		put(t, filepath.Join(root, "LICENSE"), mit+"\n")
		refused(t, root, "v1.2.3", "M LICENSE")
	})
	t.Run("new file", func(t *testing.T) {
		root := helloRepository(t)
		put(t, filepath.Join(root, "cmd", "hello", "more.go"), "package main\n")
		refused(t, root, "v1.2.3", "?? cmd/hello/more.go")
	})
	t.Run("version of another commit", func(t *testing.T) {
		root := helloRepository(t)
		mustGit(t, root, "tag", "v1.2.3")
		mustGit(t, root, "commit", "--quiet", "--allow-empty", "--message", "more")
		refused(t, root, "v1.2.3", "is the tag of another commit")
	})
	t.Run("not ours to overwrite", func(t *testing.T) {
		home := t.TempDir()
		put(t, filepath.Join(home, "letters.txt"), "dear")
		require.ErrorContains(t, release(t.Context(), hello, root, "v1.2.3", home, io.Discard), "letters.txt")
		require.Equal(t, map[string]string{"letters.txt": "dear"}, contents(t, home))
	})
	t.Run("settings of one machine", func(t *testing.T) {
		t.Setenv("GOENV", filepath.Join(t.TempDir(), "env"))
		put(t, os.Getenv("GOENV"), "GOFIPS140=latest\n")
		refused(t, root, "v1.2.3", "unset that")
	})
}

func TestRehearsalBuildsTwiceAndLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles parts of the standard library twice; 'make test' does")
	}
	root := helloRepository(t)
	t.Setenv("TMPDIR", t.TempDir())
	one := hello
	one.Targets = []target{{OS: "linux", Arch: runtime.GOARCH}}
	var out bytes.Buffer
	require.NoError(t, rehearse(t.Context(), one, root, "v1.2.3", &out))
	require.Equal(t, 2, strings.Count(out.String(), "nothing cached"))
	require.Contains(t, out.String(), "both builds are the same to the byte")
	require.Contains(t, out.String(), "hello_v1.2.3_linux_"+runtime.GOARCH+".tar.gz")
	require.Empty(t, contents(t, os.Getenv("TMPDIR")))
	require.NoDirExists(t, filepath.Join(root, "dist"))
}

// What two builds are to differ in, what they start sees; and it ends with them.
func TestSurroundingsOfRehearsalsDiffer(t *testing.T) {
	see := func() []string {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", `umask; echo "$LANG $LC_ALL"; date +%z`).Output()
		require.NoError(t, err)
		return append(strings.Fields(string(out)), time.Unix(0, 0).Format("-0700"))
	}
	before := see()
	var seen [][]string
	for _, s := range farApart {
		back, err := s.enter()
		require.NoError(t, err)
		seen = append(seen, see())
		back()
		require.Equal(t, before, see())
	}
	require.Len(t, seen[0], 5)
	for i := range seen[0] {
		require.NotEqual(t, seen[0][i], seen[1][i])
	}
}

func TestDynamicProgramIsRefused(t *testing.T) {
	shell, err := exec.LookPath("sh")
	require.NoError(t, err)
	program, err := os.ReadFile(shell)
	require.NoError(t, err)
	if !bytes.HasPrefix(program, []byte("\x7fELF")) {
		t.Skip("the shell of this system is no ELF program: there is no dynamic one to try")
	}
	require.ErrorContains(t, static(program, target{OS: "linux", Arch: runtime.GOARCH}), "dynamically")
}

func TestLicencesOfModules(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		papers []string // what has to come along, with what it was found to be
		err    string
	}{
		"one":               {files: map[string]string{"LICENSE": mit}, papers: []string{"example.com/m/LICENSE [MIT]"}},
		"none":              {files: map[string]string{"main.go": "package m"}, err: "example.com/m has no licence file"},
		"elsewhere only":    {files: map[string]string{"used/LICENSE": mit}, err: "example.com/m has no licence file"},
		"notice only":       {files: map[string]string{"NOTICE": "by us"}, err: "example.com/m has no licence file"},
		"code of that name": {files: map[string]string{"license.go": mit, "license_test.go": mit}, err: "has no licence file"},
		"unknown":           {files: map[string]string{"LICENSE": "Do what we would do.\n"}, err: "example.com/m/LICENSE: 0 % of it"},
		"copyleft":          {files: map[string]string{"LICENSE": mpl}, err: "example.com/m/LICENSE: MPL-2.0 is no licence"},
		"both, one not allowed": {
			files: map[string]string{"LICENSE": mit, "LICENSE.other": mpl},
			err:   "example.com/m/LICENSE.other: MPL-2.0 is no licence",
		},
		"in one file": {files: map[string]string{"COPYING": mit + "\n" + mpl}, err: "MPL-2.0 is no licence"},
		"with a notice": {
			files:  map[string]string{"LICENCE.md": mit, "NOTICE.txt": "by us"},
			papers: []string{"example.com/m/LICENCE.md [MIT]", "example.com/m/NOTICE.txt []"},
		},
		"of a package, and one above it": {
			files:  map[string]string{"LICENSE": mit, "used/LICENSE": mit, "used/deep/x.go": "package x"},
			papers: []string{"example.com/m/LICENSE [MIT]", "example.com/m/used/LICENSE [MIT]"},
		},
		"of a package that isn't linked": {
			files:  map[string]string{"LICENSE": mit, "unused/LICENSE": mpl},
			papers: []string{"example.com/m/LICENSE [MIT]"},
		},
		"of a package, not allowed": {
			files: map[string]string{"LICENSE": mit, "used/COPYING": mpl},
			err:   "example.com/m/used/COPYING: MPL-2.0 is no licence",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, content := range c.files {
				put(t, filepath.Join(dir, file), content)
			}
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "used", "deep"), 0o755))
			all, err := papers(module{Path: "example.com/m", Dir: dir, Packages: []string{filepath.Join(dir, "used", "deep")}})
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			var got []string
			for _, p := range all {
				got = append(got, fmt.Sprint(p.Path, " ", p.IDs))
			}
			require.Equal(t, c.papers, got)
		})
	}
}

func TestNoticesThatAreOldAreRefused(t *testing.T) {
	root := helloRepository(t)
	var out bytes.Buffer
	require.NoError(t, licenses(t.Context(), hello, root, false, &out))
	require.Equal(t, "licences of 1 linked modules are allowed: BSD-3-Clause\n", out.String())
	text, err := os.ReadFile(filepath.Join(root, noticesFile))
	require.NoError(t, err)
	require.Contains(t, string(text), "std/LICENSE")
	require.Contains(t, string(text), "The Go Authors")
	put(t, filepath.Join(root, noticesFile), string(text)+"\n")
	require.ErrorContains(t, licenses(t.Context(), hello, root, false, &out), "make generate")
	require.NoError(t, os.Remove(filepath.Join(root, noticesFile)))
	require.ErrorContains(t, licenses(t.Context(), hello, root, false, &out), "make generate")
}

func TestDifferentBuildsAreTold(t *testing.T) {
	a := map[string][]byte{"one": []byte("1"), "two": []byte("2")}
	require.NoError(t, same(a, map[string][]byte{"one": []byte("1"), "two": []byte("2")}))
	require.ErrorContains(t, same(a, map[string][]byte{"one": []byte("1"), "two": []byte("3")}), "differ in two")
	require.ErrorContains(t, same(a, map[string][]byte{"one": []byte("1")}), "differ in two")
	require.ErrorContains(t, same(map[string][]byte{"one": []byte("1")}, a), "differ in two")
}

func TestUsage(t *testing.T) {
	for args, because := range map[string]string{
		"":                "say what to do",
		"publish":         `"publish" is none of`,
		"build v1.2.3":    `"v1.2.3" is too much`,
		"build -nonsense": "not defined",
	} {
		require.ErrorContains(t, run(context.Background(), strings.Fields(args), io.Discard), because, args)
	}
}

// The archive has a manual page for each command, and completion for three shells, the same
// whenever they are made.
func TestArchivesHaveHelp(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	help := func() map[string]string {
		entries, err := helpOf(t.Context(), gatehouse, root, t.TempDir(), nil)
		require.NoError(t, err)
		files := map[string]string{}
		for _, e := range entries {
			files[e.Name] = string(e.Content)
		}
		return files
	}
	files := help()
	for name, text := range map[string]string{
		"man/man1/gatehouse.1":               ".TH GATEHOUSE 1 ",
		"man/man1/gatehouse-sessions-list.1": "gatehouse\\-sessions\\-list",
		"completion/bash/gatehouse":          "bash completion",
		"completion/zsh/_gatehouse":          "#compdef gatehouse",
		"completion/fish/gatehouse.fish":     "fish completion",
	} {
		require.Contains(t, files[name], text, name)
	}
	require.Equal(t, files, help())
}
