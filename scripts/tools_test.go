package scripts

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Who asks for what isn't there gets the whole of what the script says of itself.
func TestUsageOfToolsIsWhole(t *testing.T) {
	script, err := os.ReadFile("tools.sh")
	require.NoError(t, err)
	_, text, _ := strings.Cut(string(script), "\n# ")
	text, _, _ = strings.Cut(text, "\nset ")
	said, err := exec.CommandContext(t.Context(), "bash", "tools.sh", "what-is-not-there").CombinedOutput()
	require.Error(t, err)
	require.Equal(t, strings.ReplaceAll(strings.ReplaceAll(text, "\n# ", "\n"), "\n#\n", "\n\n")+"\n", string(said))
}
