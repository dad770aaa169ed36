package examples_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/examples"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/services/demopage"
)

// cases are the directories here that hold a policy.
var cases = []string{"federated-sso", "high-security", "internal-services", "mobile-app", "single-page-app", "third-party-api"}

// patience bounds a script; none of them takes nearly as long when all is well.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if binDir, err = os.MkdirTemp("", "gatehouse-examples-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(binDir) }()
	return m.Run()
}

var binDir string

// build builds what the scripts run, once.
var build = sync.OnceValues(func() (string, error) {
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", binDir+string(filepath.Separator), "./cmd/gatehouse", "./examples/stack")
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build the programs under test: %w\n%s", err, out)
	}
	return binDir, err
})

func programs(t *testing.T) string {
	t.Helper()
	dir, err := build()
	require.NoError(t, err)
	return dir
}

// TestScripts runs what a person would run.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("six gateways take half a minute: run the tests without -short")
	}
	for _, program := range []string{"envoy", "redis-server"} {
		proctest.Need(t, program)
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed: the scripts are not run")
	}
	if reason := curlLacks(t); reason != "" {
		t.Skip(reason)
	}
	env := []string{"EXAMPLES_BIN=" + programs(t), "GATEWAY="}
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat(filepath.Join(name, "providers.json")); err == nil {
				needProvider(t)
			}
			script := filepath.Join(name, "e2e.sh")
			p := proctest.Start(t, bash, []string{script}, proc.Options{Env: env})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			select {
			case <-p.Done():
			case <-ctx.Done():
				require.Fail(t, "the script does not end")
			}
			require.NoError(t, p.Stop())
			// It went through to its end: each step has been told.
			for _, step := range stepsOf(t, script) {
				require.Contains(t, p.Output(), step)
			}
			require.NotContains(t, p.Output(), "NOT OK")
			require.NotRegexp(t, `eyJ[A-Za-z0-9_-]{20}|s%3A|s:[A-Za-z0-9_-]{20}`, p.Output(), "no credential is printed")
		})
	}
}

// curlLacks says why the scripts can't run with this curl, "" where they can.
func curlLacks(t *testing.T) string {
	t.Helper()
	curl, err := exec.LookPath("curl")
	if err != nil {
		return "curl is not installed: the scripts are not run"
	}
	out, err := exec.CommandContext(t.Context(), curl, "--version").Output()
	require.NoError(t, err)
	version := regexp.MustCompile(`^curl (\d+)\.(\d+)`).FindSubmatch(out)
	require.NotNil(t, version, "%s", out)
	major, minor := number(t, version[1]), number(t, version[2])
	if major < 7 || major == 7 && minor < 82 {
		return fmt.Sprintf("curl is %d.%d: the scripts want 7.82, which has --json", major, minor)
	}
	return ""
}

func number(t *testing.T, text []byte) int {
	t.Helper()
	n, err := strconv.Atoi(string(text))
	require.NoError(t, err)
	return n
}

// needProvider skips where the OpenID provider can't run.
func needProvider(t *testing.T) {
	t.Helper()
	proctest.Need(t, "node")
	dir := os.Getenv("GATEHOUSE_NODE_MODULES")
	if dir == "" {
		dir = filepath.Join("..", "e2e", "express", "node_modules")
	}
	if _, err := os.Stat(filepath.Join(dir, "oidc-provider")); err != nil {
		const message = "oidc-provider is not installed: run scripts/tools.sh node, or set GATEHOUSE_NODE_MODULES"
		if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
			t.Fatal(message)
		}
		t.Skip(message)
	}
}

func stepsOf(t *testing.T, script string) []string {
	t.Helper()
	var steps []string
	for _, match := range regexp.MustCompile(`(?m)^step "(.*)"$`).FindAllStringSubmatch(read(t, script), -1) {
		steps = append(steps, match[1])
	}
	require.NotEmpty(t, steps, script)
	return steps
}

// TestShippedPolicies: each is a whole configuration without a warning, once
// the environment, keys and users are there.
func TestShippedPolicies(t *testing.T) {
	gatehouse := filepath.Join(programs(t), "gatehouse")
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			text := read(t, filepath.Join(name, "gatehouse.yaml"))
			dir := t.TempDir()
			for file, content := range map[string]string{"gatehouse.yaml": text, "users.yaml": demopage.UsersFile} {
				require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600))
			}
			command := func(args ...string) string {
				cmd := exec.CommandContext(t.Context(), gatehouse, args...)
				cmd.Dir, cmd.Env = dir, variables(t, text)
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s", out)
				return string(out)
			}
			command("keys", "rotate")
			require.Equal(t, "gatehouse.yaml: ok\n", command("config", "check", "gatehouse.yaml"))

			// What is laid over it to try it changes values and adds none: else the
			// script would try what is not shipped.
			if _, err := os.Stat(filepath.Join(name, "try.yaml")); err == nil {
				var shipped, over map[string]any
				require.NoError(t, yaml.Load([]byte(text), &shipped))
				require.NoError(t, yaml.Load([]byte(read(t, filepath.Join(name, "try.yaml"))), &over))
				requireKeys(t, shipped, over, "try.yaml")
			}

			// Nothing that is for development only is in what people copy.
			require.NotRegexp(t, `secure: false|embedded://|mode: observe|csrf: false|127\.0\.0\.1|localhost`, text)
		})
	}
}

// requireKeys requires of every key in over that shipped has it.
func requireKeys(t *testing.T, shipped, over map[string]any, path string) {
	t.Helper()
	for key, value := range over {
		require.Contains(t, shipped, key, path)
		if below, isMap := value.(map[string]any); isMap {
			requireKeys(t, shipped[key].(map[string]any), below, path+": "+key)
		}
	}
}

// variables gives each variable that a configuration takes a value of its kind.
func variables(t *testing.T, text string) []string {
	t.Helper()
	var env []string
	for i, match := range regexp.MustCompile(`\$\{([A-Z0-9_]+)\}`).FindAllStringSubmatch(text, -1) {
		name := match[1]
		if slices.ContainsFunc(env, func(line string) bool { return strings.HasPrefix(line, name+"=") }) {
			continue
		}
		value := ""
		switch {
		case name == "REDIS_URL":
			value = "redis://redis.example.com:6379/0"
		case strings.HasSuffix(name, "_URL"):
			value = fmt.Sprintf("https://%s.example.com", strings.ToLower(strings.TrimSuffix(name, "_URL")))
		case strings.HasSuffix(name, "_SHA256"):
			value = fmt.Sprintf("%064x", i+1)
		case strings.HasSuffix(name, "_SECRET"):
			value = fmt.Sprintf("a secret of this test, number %d", i)
		default:
			require.Fail(t, "no value", "say what %s stands for", name)
		}
		env = append(env, name+"="+value)
	}
	return env
}

// TestCommandsOfThePages: every command of a case's page is one of its script,
// in the same order, and what the page says that it answers is what the script
// expects.
func TestCommandsOfThePages(t *testing.T) {
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			script := strings.Split(read(t, filepath.Join(name, "e2e.sh")), "\n")
			at, answers := 0, 0
			for _, line := range tryLines(t, filepath.Join(name, "README.md")) {
				command, answer, _ := strings.Cut(line, "   # ")
				command = strings.TrimRight(command, " ")
				offset := slices.IndexFunc(script[at:], func(s string) bool { return strings.TrimSpace(s) == command })
				require.NotEqual(t, -1, offset, "%s\nis not in e2e.sh, or not in this order", command)
				at += offset + 1
				if answer == "" {
					continue
				}
				answers++
				status, text, _ := strings.Cut(answer, " ")
				expectation := regexp.MustCompile(`^expect(_soon)? ` + status + `( |$)`)
				require.Regexp(t, expectation, strings.TrimSpace(script[at]), "what the script expects after\n%s", command)
				require.Contains(t, script[at], strings.TrimSpace(strings.TrimSuffix(text, "…")), "after\n%s", command)
			}
			require.GreaterOrEqual(t, answers, 8, "a page shows what happens")
		})
	}
}

// tryLines returns the lines of the sh blocks below "Try it", which follow the
// stack's start.
func tryLines(t *testing.T, page string) []string {
	t.Helper()
	_, section, found := strings.Cut(read(t, page), "\n## Try it\n")
	require.True(t, found, "%s has no section Try it", page)
	section, _, _ = strings.Cut(section, "\n## ")
	var lines []string
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(section, -1) {
		for line := range strings.Lines(block[1]) {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
	}
	require.NotEmpty(t, lines, page)
	return lines
}

// TestPagesAreComplete: the index names every directory, each case has what it
// promises, and every setting of a policy is spoken of on its page.
func TestPagesAreComplete(t *testing.T) {
	index := read(t, "README.md")
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	var withPolicy []string
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if entry.Name() != "stack" {
			require.Contains(t, index, "("+entry.Name()+"/README.md)", "the index has no link")
		}
		if _, err := os.Stat(filepath.Join(entry.Name(), "gatehouse.yaml")); err == nil {
			withPolicy = append(withPolicy, entry.Name())
		}
	}
	require.Equal(t, cases, withPolicy)
	for _, name := range cases {
		page := read(t, filepath.Join(name, "README.md"))
		for _, section := range []string{"Choose it when", "Choose something else when", "What each setting does", "Try it", "For production"} {
			require.Contains(t, page, "\n## "+section+"\n", name)
		}
		var config map[string]any
		require.NoError(t, yaml.Load([]byte(read(t, filepath.Join(name, "gatehouse.yaml"))), &config))
		for _, policy := range config["policies"].(map[string]any) {
			for key := range policy.(map[string]any) {
				require.Contains(t, page, "`"+key, "%s says nothing of %s", name, key)
			}
		}
		info, err := os.Stat(filepath.Join(name, "e2e.sh"))
		require.NoError(t, err)
		require.NotZero(t, info.Mode()&0o100, "%s/e2e.sh is not executable", name)
	}
	require.Contains(t, read(t, filepath.Join("..", "README.md")), "(examples/README.md)")
}

func TestEnvoyIsFresh(t *testing.T) {
	want, err := examples.Gateway([]byte(envoy.Config))
	require.NoError(t, err)
	require.Equal(t, string(want), examples.Envoy, "run 'make generate'")
}

// TestGatewayDiffersInPoliciesOnly: of what keeps somebody out, nothing got
// lost.
func TestGatewayDiffersInPoliciesOnly(t *testing.T) {
	var shipped, ours map[string]any
	require.NoError(t, yaml.Load([]byte(envoy.Config), &shipped))
	require.NoError(t, yaml.Load([]byte(examples.Envoy), &ours))
	theirRoutes, ourRoutes := takeRoutes(t, shipped), takeRoutes(t, ours)
	require.Equal(t, shipped, ours)

	var added []string
	for _, name := range slices.Sorted(maps.Keys(ourRoutes)) {
		route := ourRoutes[name]
		was, there := theirRoutes[name]
		if !there {
			added = append(added, name)
			require.Equal(t, map[string]any{"status": 404}, route["direct_response"], name)
			continue
		}
		delete(theirRoutes, name)
		if disabled(was) {
			require.Equal(t, was, route, name)
			continue
		}
		delete(was, "typed_per_filter_config")
		delete(was["match"].(map[string]any), "case_sensitive")
		require.Equal(t, was, route, name)
	}
	require.Equal(t, []string{"users-admin-in-another-case", "users-internal-in-another-case"}, added)
	require.Empty(t, theirRoutes)
}

// takeRoutes takes the one list of routes out of a gateway, by name.
func takeRoutes(t *testing.T, config map[string]any) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	var take func(node any)
	take = func(node any) {
		switch node := node.(type) {
		case map[string]any:
			if routes, ok := node["routes"].([]any); ok {
				for _, route := range routes {
					route := route.(map[string]any)
					all[route["name"].(string)] = route
				}
				delete(node, "routes")
			}
			for _, child := range node {
				take(child)
			}
		case []any:
			for _, child := range node {
				take(child)
			}
		}
	}
	take(config)
	require.NotEmpty(t, all)
	return all
}

func disabled(route map[string]any) bool {
	filters, _ := route["typed_per_filter_config"].(map[string]any)
	check, _ := filters["envoy.filters.http.ext_authz"].(map[string]any)
	return check["disabled"] == true
}

func TestGatewayNeedsWhatItChanges(t *testing.T) {
	for want, change := range map[string]*strings.Replacer{
		"no anchor &skip":              strings.NewReplacer("&skip", "&jump", "*skip", "*jump"),
		"no route that names a policy": strings.NewReplacer("context_extensions", "other"),
		"something else above":         strings.NewReplacer("each by the policy that it names", "by policy"),
	} {
		_, err := examples.Gateway([]byte(change.Replace(envoy.Config)))
		require.ErrorContains(t, err, want)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}
