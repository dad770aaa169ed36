package docs_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/internal/pagetest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// notRun are the reasons for which a block may be left alone, and how many are. Whoever
// adds one, or a reason, says so here; a page that is run is better.
var notRun = map[string]int{
	"the test has the programs already":        1,
	"the test has these modules already":       1,
	"it is for a cluster with Istio":           1,
	"it is a part of a Deployment of your own": 1,
	"it needs a release":                       1,
}

// general are tests of this package that take what is marked with their name, on
// whatever page.
var general = []string{
	"TestVerbsOfMakeOnPages", "TestConfigurationsOnPages", "TestEnvoySnippetsOnPages",
	"TestClusterCommandsOnPages", "TestCommandLinesOnPages", "TestGoSnippetsOnPages",
}

// unwritten is what pages don't say that are written by measurements.
var unwritten = map[string]string{"docs/performance.md": "<!-- all checked: docs TestVerbsOfMakeOnPages -->\n"}

// walk calls f with each file below the root that is ours, by its path from there.
func walk(t *testing.T, f func(name string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := d.Name(); d.IsDir() && name != ".." && (strings.HasPrefix(base, ".") || slices.Contains([]string{"node_modules", "dist", "bin", "testdata"}, base)) {
			return fs.SkipDir
		}
		if name, err = filepath.Rel("..", name); err == nil && d.Type().IsRegular() {
			f(filepath.ToSlash(name))
		}
		return err
	}))
}

// pages are all pages of the repository, by their path from the root.
func pages(t *testing.T) map[string]pagetest.Page {
	t.Helper()
	all := map[string]pagetest.Page{}
	walk(t, func(name string) {
		if strings.HasSuffix(name, ".md") {
			page, err := pagetest.Parse(unwritten[name] + read(t, name))
			require.NoError(t, err, name)
			all[name] = page
		}
	})
	require.Greater(t, len(all), 40)
	return all
}

// TestEverySnippetIsRun: each block of each page is run by TestPages, or checked by a test
// that there is and that knows the page, or it says why neither is possible.
func TestEverySnippetIsRun(t *testing.T) {
	tests, texts := map[pagetest.Test]bool{}, map[string]string{} // the latter by directory
	function := regexp.MustCompile(`(?m)^func ((?:Test|Example)\w+)\(`)
	walk(t, func(name string) {
		if !strings.HasSuffix(name, ".go") {
			return
		}
		text, dir := read(t, name), path.Dir(name)
		if strings.HasSuffix(name, "_test.go") {
			for _, m := range function.FindAllStringSubmatch(text, -1) {
				tests[pagetest.Test{Dir: dir, Name: m[1]}] = true
			}
		}
		texts[dir] += text
	})
	left := map[string]int{}
	for name, page := range pages(t) {
		for _, b := range page.Blocks {
			require.True(t, page.Runs, "%s:%d: no test runs this: give the page a run line, or the block the test that checks it, or a reason", name, b.Line)
		}
		for _, b := range page.Others {
			if b.NotRun != "" {
				left[b.NotRun]++
				require.Contains(t, notRun, b.NotRun, "%s:%d: that is no reason", name, b.Line)
				continue
			}
			require.True(t, tests[b.Checked], "%s:%d is checked by %s in %s, which is no test", name, b.Line, b.Checked.Name, b.Checked.Dir)
			if b.Checked.Dir == "docs" && slices.Contains(general, b.Checked.Name) || b.Checked.Dir == path.Dir(name) {
				continue
			}
			known := path.Base(name)
			if known == "README.md" && path.Dir(name) != "." {
				known = path.Base(path.Dir(name))
			}
			require.Contains(t, texts[b.Checked.Dir], known, "%s:%d: the tests in %s don't know this page", name, b.Line, b.Checked.Dir)
		}
	}
	require.Equal(t, notRun, left)
}

// marked is a block that a page leaves to one of the tests here.
type marked struct {
	page string
	pagetest.Other
}

func (m marked) lines() (all []string) {
	for line := range strings.Lines(strings.ReplaceAll(m.Text, "\\\n", " ")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}

func blocksFor(t *testing.T, test string) (all []marked) {
	t.Helper()
	require.Contains(t, general, test)
	for name, page := range pages(t) {
		for _, b := range page.Others {
			if b.Checked == (pagetest.Test{Dir: "docs", Name: test}) {
				all = append(all, marked{name, b})
			}
		}
	}
	require.NotEmpty(t, all)
	slices.SortFunc(all, func(a, b marked) int {
		if a.page != b.page {
			return strings.Compare(a.page, b.page)
		}
		return a.Line - b.Line
	})
	return all
}

// TestVerbsOfMakeOnPages: the verbs are there, with the variables that are given to them,
// and so are the scripts.
func TestVerbsOfMakeOnPages(t *testing.T) {
	makefile := read(t, "Makefile")
	for _, b := range blocksFor(t, "TestVerbsOfMakeOnPages") {
		for _, line := range b.lines() {
			line, _, _ = strings.Cut(strings.TrimPrefix(line, "$ "), "  ")
			command, arguments, _ := strings.Cut(line, " ")
			if command == "go" { // run or test a package
				dir := regexp.MustCompile(`\./\S+`).FindString(arguments)
				require.NotEmpty(t, dir, "%s:%d: %s", b.page, b.Line, line)
				require.DirExists(t, filepath.Join("..", dir), "%s:%d: %s", b.page, b.Line, line)
				continue
			}
			if command == "envoy" { // the e2e tests run these files
				require.FileExists(t, filepath.Join("..", strings.TrimPrefix(arguments, "-c ")), "%s:%d: %s", b.page, b.Line, line)
				continue
			}
			if command != "make" {
				info, err := os.Stat(filepath.Join("..", command))
				require.NoError(t, err, "%s:%d: %s", b.page, b.Line, line)
				require.NotZero(t, info.Mode()&0o100, "%s:%d: %s is not executable", b.page, b.Line, command)
				continue
			}
			verb, arguments, _ := strings.Cut(arguments, " ")
			require.Regexp(t, "(?m)^"+regexp.QuoteMeta(verb)+":", makefile, "%s:%d", b.page, b.Line)
			for _, m := range regexp.MustCompile(`\b([A-Z_]+)=`).FindAllStringSubmatch(arguments, -1) {
				require.Contains(t, makefile, "$("+m[1]+")", "%s:%d", b.page, b.Line)
			}
		}
	}
}

// run runs the program as a page's reader would.
func run(t *testing.T, dir string, env []string, args ...string) (string, error) {
	t.Helper()
	require.NoError(t, gatehouse())
	cmd := exec.CommandContext(t.Context(), filepath.Join(binDir, "gatehouse"), args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var (
	called = regexp.MustCompile(`(?:^|[|&;(] ?|bin/)gatehouse ([^|;&)#]*)`)
	flag   = regexp.MustCompile(`^--?[a-z][a-z-]*`)
	word   = regexp.MustCompile(`^[a-z]+$`)
)

// TestCommandLinesOnPages: the commands are there, with the flags that are given to them.
func TestCommandLinesOnPages(t *testing.T) {
	helps := map[string]string{}
	help := func(command string) string {
		if _, known := helps[command]; !known {
			// Of a command that isn't there, the one above it tells.
			out, err := run(t, t.TempDir(), nil, append(strings.Fields(command), "--help")...)
			if err != nil || !regexp.MustCompile(`(?m)^  gatehouse `+command+`( |$)`).MatchString(out) {
				out = ""
			}
			helps[command] = out
		}
		return helps[command]
	}
	for _, b := range blocksFor(t, "TestCommandLinesOnPages") {
		found := 0
		for _, line := range b.lines() {
			prompted := strings.HasPrefix(line, "$ ")
			if b.Language == "console" && !prompted {
				continue // what it prints
			}
			for _, m := range called.FindAllStringSubmatch(strings.TrimPrefix(line, "$ "), -1) {
				found++
				words := strings.Fields(m[1])
				command := words[0]
				require.NotEmpty(t, help(command), "%s:%d: gatehouse has no command %s", b.page, b.Line, command)
				for words = words[1:]; len(words) > 0 && word.MatchString(words[0]) && help(command+" "+words[0]) != ""; words = words[1:] {
					command += " " + words[0]
				}
				if command != "attack" && strings.Contains(help(command), "Available Commands:") {
					require.Fail(t, "not a whole command", "%s:%d: gatehouse %s", b.page, b.Line, m[1])
				}
				for _, w := range words {
					if command == "explain" && (w == "curl" || strings.HasPrefix(w, "http")) {
						break // what follows is curl's
					}
					if f := flag.FindString(w); f != "" {
						require.Regexp(t, `(?m)^ .*`+f+`\b`, help(command), "%s:%d: gatehouse %s", b.page, b.Line, command)
					}
				}
			}
		}
		require.Positive(t, found, "%s:%d: no command of gatehouse", b.page, b.Line)
	}
}

// TestConfigurationsOnPages: each snippet of a configuration is valid, beside what it leaves
// out and with the files that it names.
func TestConfigurationsOnPages(t *testing.T) {
	for _, b := range blocksFor(t, "TestConfigurationsOnPages") {
		dir := t.TempDir()
		require.Equal(t, "yaml", b.Language, "%s:%d", b.page, b.Line)
		text := strings.NewReplacer(
			`sha256: "…"`, `sha256: "`+strings.Repeat("5e", 32)+`"`,
			`$argon2id$v=19$m=19456,t=2,p=1$…`, "$argon2id$v=19$m=19456,t=2,p=1$c29tZSBzYWx0IGZvciBpdA$"+strings.Repeat("A", 42)+"A",
		).Replace(b.Text)
		require.NotContains(t, text, "…", "%s:%d", b.page, b.Line)
		var snippet map[string]any
		require.NoError(t, yaml.Load([]byte(text), &snippet), "%s:%d", b.page, b.Line)
		if _, ok := snippet["users"].([]any); ok {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "users.yaml"), []byte(text), 0o600))
			snippet = map[string]any{"users": map[string]any{"file": "users.yaml"}}
		}
		if condition, ok := snippet["condition"]; ok {
			snippet = map[string]any{"policies": map[string]any{"snippet": map[string]any{"credentials": []any{"bearer"}, "condition": condition}}}
		}
		var whole map[string]any
		require.NoError(t, yaml.Load([]byte(aroundSnippets), &whole))
		overlay(whole, snippet)
		writeNamedFiles(t, dir, redistest.NewTLS(t), whole, "")
		out, err := yaml.Dump(whole)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "gatehouse.yaml"), out, 0o600))
		said, err := run(t, dir, []string{"SESSION_SECRET=a secret of this test, and a long one"}, "config", "check", "gatehouse.yaml")
		require.NoError(t, err, "%s:%d: %s\n%s", b.page, b.Line, said, out)
	}
}

// aroundSnippets is what snippets of a configuration may leave out.
const aroundSnippets = `
server: {http: {public_url: "https://gateway.example.com"}}
redis: {url: "redis://127.0.0.1:6379/0"}
sessions: {secrets: ["a secret of this test, and a long one"]}
issuers: [{issuer: "https://idp.example.com", jwks_url: "https://idp.example.com/jwks", audiences: [api]}]
policies:
  user:   {credentials: [session]}
  admin:  {credentials: [session], roles: {any: [admin]}}
  read:   {credentials: [session]}
  write:  {credentials: [session]}
default_policy: user
`

// overlay lays maps over each other.
func overlay(whole, over map[string]any) {
	for key, value := range over {
		below, isMap := value.(map[string]any)
		if has, ok := whole[key].(map[string]any); ok && isMap {
			overlay(has, below)
		} else {
			whole[key] = value
		}
	}
}

// writeNamedFiles writes each file that a configuration names and that isn't there.
func writeNamedFiles(t *testing.T, dir string, certificates *redistest.TLS, value any, key string) {
	t.Helper()
	switch value := value.(type) {
	case map[string]any:
		for name, below := range value {
			writeNamedFiles(t, dir, certificates, below, name)
		}
	case []any:
		for _, below := range value {
			writeNamedFiles(t, dir, certificates, below, key)
		}
	case string:
		if key != "file" && !strings.HasSuffix(key, "_file") {
			return
		}
		file := filepath.Join(dir, value)
		if _, err := os.Stat(file); err == nil {
			return
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		text := []byte("a secret of this test, and a long one\n")
		from := map[string]string{"ca_file": certificates.CAFile, "cert_file": certificates.ClientCertFile, "key_file": certificates.ClientKeyFile}[key]
		switch {
		case from != "":
			text = []byte(readFile(t, from))
		case value == "users.yaml":
			text = []byte("users: []\n")
		case strings.HasSuffix(value, ".pem"):
			_, err := run(t, dir, nil, "keys", "new", value, "--alg", "ES256")
			require.NoError(t, err)
			return
		}
		require.NoError(t, os.WriteFile(file, text, 0o600))
	}
}

// part reports whether all of want is in have, with other things beside it in maps and lists.
func part(want, have any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, ok := have.(map[string]any)
		for key, value := range want {
			ok = ok && part(value, have[key])
		}
		return ok
	case []any:
		have, ok := have.([]any)
		for _, value := range want {
			ok = ok && slices.ContainsFunc(have, func(h any) bool { return part(value, h) })
		}
		return ok
	}
	return want == have
}

// within reports whether want is a part of anything in have, at whatever depth.
func within(want, have any) bool {
	if part(want, have) {
		return true
	}
	switch have := have.(type) {
	case map[string]any:
		for _, below := range have {
			if within(want, below) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(have, func(below any) bool { return within(want, below) })
	}
	return false
}

// holder returns the first map in there that has a list by that name, and the list's first map.
func holder(have any, name string) (first map[string]any) {
	var below []any
	switch have := have.(type) {
	case map[string]any:
		if list, ok := have[name].([]any); ok {
			return list[0].(map[string]any)
		}
		for _, key := range slices.Sorted(maps.Keys(have)) {
			below = append(below, have[key])
		}
	case []any:
		below = have
	}
	for _, b := range below {
		if first = holder(b, name); first != nil {
			return first
		}
	}
	return nil
}

// TestEnvoySnippetsOnPages: what a page shows of Envoy's configuration is a part of the
// shipped one, or, where it is a route or a log's filter, may be added to it.
func TestEnvoySnippetsOnPages(t *testing.T) {
	for _, b := range blocksFor(t, "TestEnvoySnippetsOnPages") {
		var shipped map[string]any
		require.NoError(t, yaml.Load([]byte(read(t, "envoy/envoy.yaml")), &shipped))
		var snippet any
		require.NoError(t, yaml.Load([]byte(b.Text), &snippet), "%s:%d", b.page, b.Line)
		routes, isList := snippet.([]any)
		setting, _ := snippet.(map[string]any)
		switch {
		case isList && routes[0].(map[string]any)["match"] != nil:
			host := holder(shipped, "virtual_hosts")
			host["routes"] = append(routes, host["routes"].([]any)...)
		case setting["filter"] != nil:
			holder(shipped, "access_log")["filter"] = setting["filter"]
		default:
			require.True(t, within(snippet, shipped), "%s:%d: envoy/envoy.yaml has no such thing", b.page, b.Line)
			continue
		}
		text, err := yaml.Dump(shipped)
		require.NoError(t, err)
		file := filepath.Join(t.TempDir(), "envoy.yaml")
		require.NoError(t, os.WriteFile(file, text, 0o600))
		said, err := run(t, filepath.Dir(file), nil, "envoy", "lint", "--strict", file)
		require.NoError(t, err, "%s:%d: %s", b.page, b.Line, said)
		out, err := exec.CommandContext(t.Context(), proctest.Need(t, "envoy"), "--mode", "validate", "-c", file).CombinedOutput()
		require.NoError(t, err, "%s:%d: %s", b.page, b.Line, out)
	}
}

// TestClusterCommandsOnPages: what is for a cluster, or for Docker, names files that are there,
// and the chart takes the values that are given to it.
func TestClusterCommandsOnPages(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	var charts [][]string // arguments of helm template
	for _, b := range blocksFor(t, "TestClusterCommandsOnPages") {
		if b.Language == "yaml" {
			file := filepath.Join(t.TempDir(), "values.yaml")
			require.NoError(t, os.WriteFile(file, []byte(b.Text), 0o600))
			charts = append(charts, []string{"gatehouse", "deploy/helm/gatehouse", "-f", file})
			continue
		}
		for _, line := range b.lines() {
			line, _, _ = strings.Cut(line, "   #")
			for command := range strings.SplitSeq(line, " && ") {
				words := strings.Fields(command)
				require.Contains(t, []string{"helm", "kubectl", "docker", "make", "curl", "for"}, words[0], "%s:%d", b.page, b.Line)
				for i, w := range words {
					if w == "-f" || w == "--values" {
						if words[i+1] == "values.yaml" { // the reader's own, of which the page shows the smallest
							continue
						}
						require.FileExists(t, filepath.Join(root, words[i+1]), "%s:%d: %s", b.page, b.Line, command)
					}
					if w == "--target" {
						require.Contains(t, read(t, "deploy/Dockerfile"), " AS "+words[i+1]+"\n", "%s:%d: %s", b.page, b.Line, command)
					}
					if w == "--profile" {
						require.Contains(t, read(t, "docker-compose.yml"), "profiles: ["+words[i+1]+"]", "%s:%d: %s", b.page, b.Line, command)
					}
				}
				if words[0] == "helm" && words[1] == "install" && !slices.Contains(words, "values.yaml") {
					require.DirExists(t, filepath.Join(root, words[3]))
					charts = append(charts, words[2:])
				}
			}
		}
	}
	require.Greater(t, len(charts), 2)
	for _, arguments := range charts {
		helm := exec.CommandContext(t.Context(), proctest.NeedHeavy(t, "helm", "make tools-kubernetes"), append([]string{"template"}, arguments...)...)
		helm.Dir = root
		out, err := helm.CombinedOutput()
		require.NoError(t, err, "%s\n%s", strings.Join(arguments, " "), out)
	}
}

// TestGoSnippetsOnPages: what a page shows of a program is in it, and what it shows of a
// service compiles.
func TestGoSnippetsOnPages(t *testing.T) {
	for _, b := range blocksFor(t, "TestGoSnippetsOnPages") {
		programs, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(path.Dir(b.page)), "*.go"))
		require.NoError(t, err)
		if len(programs) > 0 {
			text := ""
			for _, program := range programs {
				text += readFile(t, program)
			}
			for _, line := range b.lines() {
				require.Contains(t, text, line, "%s:%d", b.page, b.Line)
			}
			continue
		}
		dir := t.TempDir()
		file := filepath.Join(dir, "main.go")
		require.NoError(t, os.WriteFile(file, []byte(fmt.Sprintf(aroundGo, b.Text)), 0o600))
		cmd := exec.CommandContext(t.Context(), "go", "vet", file)
		cmd.Dir = ".."
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s:%d: %s", b.page, b.Line, out)
	}
}

// aroundGo is what snippets of a service leave out.
const aroundGo = `package main

import (
	"fmt"
	"net/http"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

var (
	mux     = http.NewServeMux()
	reports = http.NotFoundHandler()
	remove  = func(http.ResponseWriter, *http.Request) { fmt.Print() }
	_       = usercontext.Require
)

func main() {
%s
}
`

// TestSizingAgreesWithScaling: the sum of the page gives the examples of the other page, which
// has the figures.
func TestSizingAgreesWithScaling(t *testing.T) {
	awk, err := exec.LookPath("awk")
	if err != nil {
		missing(t, "awk is not installed: the sum is not done")
	}
	var sum string
	for _, b := range pages(t)["docs/how-to/sizing.md"].Blocks {
		if b.Name == "size.awk" {
			sum = b.Text
		}
	}
	require.NotEmpty(t, sum)
	scaling := read(t, "docs/scaling.md")
	for theirs, ours := range map[string]string{"Redis, cores": "redis_cores", "Redis, memory": "redis_mb", "Gatehouse, memory": "gate_mb", "Gatehouse, cores": "gate_cores"} {
		require.Equal(t, factors(t, scaling, theirs), factors(t, sum, ours), "the factors of the other page")
	}
	sum += `END { printf "%.0f %.0f %.6f %.6f\n", renewals, reads, redis_cores, redis_mb }`
	number := func(cell string) string {
		return strings.NewReplacer(",", "", " M", "000000", "M", "000000").Replace(strings.TrimSpace(cell))
	}
	row := regexp.MustCompile(`(?m)^\| +([0-9,]+M?) \| +(\d+) \| +([0-9.]+) \| +([0-9,]+M?) in (\d+) min \| +([0-9,]+) \| +([0-9,]+) \| +[0-9,]+ \| +([0-9.]+) \| +([0-9.]+) (MB|GB) \|`)
	rows := row.FindAllStringSubmatch(scaling, -1)
	require.Len(t, rows, 6)
	for _, m := range rows {
		minutes, err := strconv.Atoi(m[5])
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), awk, "-v", "checks=1e9", "-v", "sessions="+number(m[1]), "-v", "replicas="+m[2], "-v", "logins="+m[3], "-v", "used="+number(m[4]),
			"-v", fmt.Sprintf("interval=%d", minutes*60), "-v", "max_entries=200000", "-v", "ttl=86400", sum)
		out, err := cmd.Output()
		require.NoError(t, err)
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		var renewals, reads, cores, mb float64
		_, err = fmt.Sscan(lines[len(lines)-1], &renewals, &reads, &cores, &mb)
		require.NoError(t, err, "%s", out)
		require.InDelta(t, figure(t, number(m[6])), renewals, 1, m[0])
		require.InDelta(t, figure(t, number(m[7])), reads, 1, m[0])
		require.InEpsilon(t, figure(t, m[8]), cores, 0.07, m[0])
		if m[10] == "GB" {
			mb /= 1000
		}
		require.InEpsilon(t, figure(t, m[9]), mb, 0.03, m[0])
	}
}

// factors are the numbers of a formula, in their order, but for those that change the unit.
func factors(t *testing.T, text, name string) []string {
	t.Helper()
	formula := regexp.MustCompile(`(?m)^ +` + name + ` += (.*)$`).FindStringSubmatch(text)
	require.NotNil(t, formula, name)
	numbers := regexp.MustCompile(`\b[0-9.]+\b`).FindAllString(regexp.MustCompile(` / 1e\d|2 \* ttl`).ReplaceAllString(formula[1], ""), -1)
	require.NotEmpty(t, numbers)
	return numbers
}

func figure(t *testing.T, text string) float64 {
	t.Helper()
	value, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err)
	return value
}
