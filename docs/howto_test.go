package docs_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/pagetest"
)

// TestHowTosAreRun: none of these pages falls out of TestPages because its first line is
// misspelt.
func TestHowTosAreRun(t *testing.T) {
	names, err := filepath.Glob(filepath.Join("how-to", "*.md"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(names), 3)
	for _, name := range append(names, "getting-started.md") {
		page, err := pagetest.Parse(read(t, "docs/"+filepath.ToSlash(name)))
		require.NoError(t, err, name)
		require.True(t, page.Runs, "%s has no line <!-- run: needs=… ports=… -->", name)
	}
}
