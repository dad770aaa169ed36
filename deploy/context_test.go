package deploy_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// ignored tells whether .dockerignore keeps a file from the builder: the last
// pattern that matches the file, or a directory above it, decides. It knows
// the patterns that the file uses: those without **, and **/name.
func ignored(patterns []string, file string) bool {
	out := false
	for _, p := range patterns {
		p, back := strings.CutPrefix(p, "!")
		for at := file; at != "."; at = path.Dir(at) {
			pattern, name := p, at
			if rest, anywhere := strings.CutPrefix(p, "**/"); anywhere {
				pattern, name = rest, path.Base(at)
			}
			if matched, err := path.Match(pattern, name); err == nil && matched {
				out = !back
				break
			}
		}
	}
	return out
}

func dockerignore(t *testing.T) []string {
	t.Helper()
	var patterns []string
	for line := range strings.Lines(string(read(t, "../.dockerignore"))) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			patterns = append(patterns, line)
		}
	}
	return patterns
}

// TestBuilderGetsWhatItCompiles: a package that moves, or a file that is newly
// embedded, must not break the images, which nobody builds every day.
func TestBuilderGetsWhatItCompiles(t *testing.T) {
	patterns := dockerignore(t)
	commands := regexp.MustCompile(`\./(cmd|services|deploy)/[\w-]+`).FindAllString(string(read(t, dockerfile)), -1)
	require.Len(t, commands, 5)

	root, err := filepath.Abs("..")
	require.NoError(t, err)
	args := append([]string{"list", "-deps", "-json=Dir,Standard,Module,GoFiles,EmbedFiles"}, commands...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := cmd.Output()
	require.NoError(t, err)

	files := []string{"go.mod", "go.sum", "LICENSE", "THIRD_PARTY_NOTICES"}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			Dir                 string
			Module              struct{ Main bool }
			GoFiles, EmbedFiles []string
		}
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if !p.Module.Main {
			continue
		}
		dir, err := filepath.Rel(root, p.Dir)
		require.NoError(t, err)
		for _, f := range append(p.GoFiles, p.EmbedFiles...) {
			files = append(files, path.Join(filepath.ToSlash(dir), f))
		}
	}
	require.Contains(t, files, "cmd/gatehouse/main.go")
	for _, f := range files {
		require.False(t, ignored(patterns, f), "%s is needed to build the images, and .dockerignore keeps it from the builder", f)
	}
}

// TestBuilderGetsNoSecrets: what the builder gets stays in its cache.
func TestBuilderGetsNoSecrets(t *testing.T) {
	patterns := dockerignore(t)
	for _, f := range []string{
		".env", ".env.local", "deploy/.env", "services/demo-page/.env", "deploy/compose/secrets/signing-key.pem", "services/key.pem",
		".git/config", ".tools/bin/golangci-lint", "bin/gatehouse", "e2e/express/node_modules/x/index.js", "docker-compose.yml",
	} {
		require.True(t, ignored(patterns, f), f)
	}
}
