package docs_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/pagetest"
	"github.com/gatehouse-auth/gatehouse/internal/sdktest"
)

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	var err error
	if binDir, err = os.MkdirTemp("", "gatehouse-docs-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(binDir) }()
	return m.Run()
}

var binDir string

// gatehouse builds the program that the pages call, once.
var gatehouse = sync.OnceValue(func() error {
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", binDir+string(filepath.Separator), "./cmd/gatehouse")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build gatehouse: %w\n%s", err, out)
	}
	return nil
})

// nodeModules is where the modules are that pages would install.
func nodeModules(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("GATEHOUSE_NODE_MODULES"); dir != "" {
		return dir
	}
	dir, err := filepath.Abs(filepath.Join("..", "e2e", "express", "node_modules"))
	require.NoError(t, err)
	return dir
}

// missing skips, but not on CI, where 'make test' has installed everything.
func missing(t *testing.T, message string) {
	t.Helper()
	if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
		t.Fatal(message)
	}
	t.Skip(message)
}

// TestPages does what the pages tell that say so, in a directory of its own with gatehouse
// in PATH. See package pagetest.
func TestPages(t *testing.T) {
	var pages []string
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".md") {
			pages = append(pages, path)
		}
		return err
	}))
	for _, name := range pages {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		page, err := pagetest.Parse(string(text))
		if !page.Runs {
			continue
		}
		require.NoError(t, err, name)
		t.Run(name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("pages are run without -short")
			}
			if slices.Contains(page.Needs, "node") {
				if _, err := os.Stat(filepath.Join(nodeModules(t), "express")); err != nil {
					missing(t, "the Node modules are not installed (scripts/tools.sh node): the page is not run")
				}
			}
			t.Parallel()
			require.NoError(t, gatehouse())
			env := []string{"NODE_MODULES=" + nodeModules(t)}
			if strings.Contains(string(text), "$USERCONTEXT") {
				env = append(env, "USERCONTEXT="+filepath.Join(sdktest.Installed(t), "node_modules", "@gatehouse-auth"))
			}
			pagetest.Run(t, name, pagetest.Options{Path: []string{binDir}, Env: env})
		})
	}
}
