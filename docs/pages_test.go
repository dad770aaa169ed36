package docs_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
// in PATH. See package pagetest. Pages may read the repository, in REPOSITORY.
func TestPages(t *testing.T) {
	repository, err := filepath.Abs("..")
	require.NoError(t, err)
	// A page's home is empty; what Go has compiled and downloaded is not there.
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE", "GOMODCACHE").Output()
	require.NoError(t, err)
	caches := strings.Split(strings.TrimSpace(string(out)), "\n")
	require.Len(t, caches, 2)
	for name, page := range pages(t) {
		if !page.Runs {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("pages are run without -short")
			}
			if strings.Contains(read(t, name), "$NODE_MODULES") {
				if _, err := os.Stat(filepath.Join(nodeModules(t), "express")); err != nil {
					missing(t, "the Node modules are not installed (scripts/tools.sh node): the page is not run")
				}
			}
			t.Parallel()
			require.NoError(t, gatehouse())
			env := []string{"NODE_MODULES=" + nodeModules(t), "REPOSITORY=" + repository, "GOCACHE=" + caches[0], "GOMODCACHE=" + caches[1]}
			if strings.Contains(read(t, name), "$USERCONTEXT") {
				env = append(env, "USERCONTEXT="+filepath.Join(sdktest.Installed(t), "node_modules", "@gatehouse-auth"))
			}
			pagetest.Run(t, filepath.Join(repository, name), pagetest.Options{Path: []string{binDir}, Env: env})
		})
	}
}
