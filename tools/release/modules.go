package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// module is one that is compiled into a program.
type module struct {
	Path, Version string
	Main          bool
	Dir           string
	Packages      []string // directories of the packages that are compiled in, sorted
	Needs         []string // paths of the modules that these import, sorted
}

// standard is the path under which the standard library is listed, as scanners
// for vulnerabilities know it.
const standard = "std"

// linked returns the modules of packages, as a build for the target would link
// them, sorted by path. The standard library is one of them.
func linked(ctx context.Context, root string, t target, tags string, packages ...string) ([]module, error) {
	args := append([]string{"list", "-deps", "-tags", tags, "-json=ImportPath,Dir,Standard,Imports,ImportMap,Module"}, packages...)
	text, err := goCommand(ctx, root, buildEnv(t), args...)
	if err != nil {
		return nil, err
	}
	type listed struct {
		ImportPath, Dir string
		Standard        bool
		Imports         []string
		ImportMap       map[string]string
		Module          *struct {
			Path, Version, Dir string
			Main               bool
			Replace            *struct{ Path string }
		}
	}
	var all []listed
	owner := map[string]string{} // module by package
	found := map[string]*module{}
	for decoder := json.NewDecoder(bytes.NewReader(text)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read what 'go list' says: %w", err)
		}
		all = append(all, p)
		if p.Standard {
			owner[p.ImportPath] = standard
			if found[standard] == nil {
				found[standard] = &module{Path: standard}
			}
			continue
		}
		if p.Module == nil {
			return nil, fmt.Errorf("package %s belongs to no module", p.ImportPath)
		}
		if p.Module.Replace != nil {
			return nil, fmt.Errorf("module %s is replaced in go.mod: a release takes what was published", p.Module.Path)
		}
		owner[p.ImportPath] = p.Module.Path
		m := found[p.Module.Path]
		if m == nil {
			m = &module{Path: p.Module.Path, Version: p.Module.Version, Main: p.Module.Main, Dir: p.Module.Dir}
			found[m.Path] = m
		}
		m.Packages = append(m.Packages, p.Dir)
	}
	needs := map[string]map[string]bool{}
	for _, p := range all {
		from := owner[p.ImportPath]
		for _, name := range p.Imports {
			if name == "C" || name == "unsafe" {
				continue
			}
			to, ok := owner[cmp.Or(p.ImportMap[name], name)]
			if !ok {
				return nil, fmt.Errorf("package %s imports %s, which 'go list' doesn't know", p.ImportPath, name)
			}
			if to == from {
				continue
			}
			if needs[from] == nil {
				needs[from] = map[string]bool{}
			}
			needs[from][to] = true
		}
	}
	var modules []module
	for _, path := range slices.Sorted(maps.Keys(found)) {
		m := found[path]
		slices.Sort(m.Packages)
		m.Needs = slices.Sorted(maps.Keys(needs[path]))
		modules = append(modules, *m)
	}
	if i := slices.IndexFunc(modules, func(m module) bool { return m.Path == standard }); i >= 0 {
		about, err := goCommand(ctx, root, buildEnv(t), "env", "GOROOT", "GOVERSION")
		if err != nil {
			return nil, err
		}
		goroot, version, _ := strings.Cut(strings.TrimSpace(string(about)), "\n")
		modules[i].Version, modules[i].Dir = version, goroot
		// Some distributions leave Go's own licence out. The same authors give out
		// golang.org/x/sys under the same text.
		if _, err := readFile(goroot, "LICENSE"); err != nil {
			if sys := found["golang.org/x/sys"]; sys != nil {
				modules[i].Dir = sys.Dir
			}
		}
	}
	return modules, nil
}

// goCommand runs go in dir and returns its standard output.
func goCommand(ctx context.Context, dir string, env []string, args ...string) ([]byte, error) {
	return command(ctx, dir, env, "go", args...)
}

func command(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // G204: go and git, by callers in this package
	cmd.Dir = dir
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// readFile reads the file whose path is the elements, joined.
func readFile(elements ...string) ([]byte, error) {
	return os.ReadFile(filepath.Join(elements...)) //nolint:gosec // G304: files of the repository, of modules, and what was built
}

// buildEnv is the environment in which programs are built and listed for the
// target: the user's, without what would change the result.
func buildEnv(t target) []string {
	env := withoutGit()
	env = slices.DeleteFunc(env, func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "GOFLAGS", "GOEXPERIMENT", "GODEBUG", "GOFIPS140", "GOWORK", "GOOS", "GOARCH", "GOAMD64", "GOARM64", "CGO_ENABLED", "PWD":
			return true
		}
		return false
	})
	return append(env,
		"GOFLAGS=-mod=readonly", // not empty: empty would leave it to 'go env -w'
		"GOWORK=off", "CGO_ENABLED=0",
		"GOOS="+t.OS, "GOARCH="+t.Arch, "GOAMD64=v1", "GOARM64=v8.0")
}

// withoutGit is the environment without what a git hook would leave in it, which
// names another repository than the one we mean.
func withoutGit() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool {
		for _, name := range []string{"GIT_DIR=", "GIT_WORK_TREE=", "GIT_INDEX_FILE=", "GIT_COMMON_DIR=", "GIT_PREFIX=", "GIT_OBJECT_DIRECTORY="} {
			if strings.HasPrefix(e, name) {
				return true
			}
		}
		return false
	})
}

// within tells whether path is dir or below it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
