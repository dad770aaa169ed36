package deploy_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// stage is a part of the Dockerfile from one FROM to the next.
type stage struct {
	from  string
	lines []string // instructions, without comments, each on one line
}

func stages(t *testing.T) map[string]stage {
	t.Helper()
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(string(read(t, dockerfile)), "")
	text = strings.ReplaceAll(text, "\\\n", " ")
	all := map[string]stage{}
	var name string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := regexp.MustCompile(`^FROM (\S+) AS (\S+)$`).FindStringSubmatch(line); m != nil {
			name = m[2]
			all[name] = stage{from: m[1]}
			continue
		}
		if s := all[name]; line != "" && name != "" {
			s.lines = append(s.lines, line)
			all[name] = s
		}
	}
	require.Len(t, all, 7, "a stage that these tests don't know")
	return all
}

// TestImagesHoldNothingButPrograms: no shell, no package manager, nobody's files,
// and a user that is a number.
func TestImagesHoldNothingButPrograms(t *testing.T) {
	all := stages(t)
	for _, name := range []string{"gatehouse", "user-service", "order-service", "demo-page", "envoy"} {
		t.Run(name, func(t *testing.T) {
			bottom := all[name].from
			lines := all[name].lines
			if parent, ok := all[bottom]; ok {
				bottom, lines = parent.from, append(parent.lines, lines...)
			}
			if name == "envoy" {
				require.Regexp(t, `^envoyproxy/envoy:distroless-v`, bottom)
			} else {
				require.Equal(t, "scratch", bottom)
			}
			user := ""
			for _, line := range lines {
				instruction, rest, _ := strings.Cut(line, " ")
				switch instruction {
				case "USER":
					user = rest
				case "COPY":
					require.Regexp(t, `^(--from=build (/etc/ssl/certs/ca-certificates\.crt|/out/)|LICENSE THIRD_PARTY_NOTICES /licenses/$)`, rest)
				case "ENTRYPOINT", "CMD":
					require.True(t, strings.HasPrefix(rest, "["), "%s: this form needs a shell", line)
				case "ARG", "LABEL":
				default:
					t.Errorf("%s: what does an image need that for?", line)
				}
			}
			require.Equal(t, "65532:65532", user)
		})
	}
}

// TestImageBuildSaysWhatItIs: the linker ignores a variable that isn't there, so
// one that moves would leave every image without its version.
func TestImageBuildSaysWhatItIs(t *testing.T) {
	if testing.Short() {
		t.Skip("links gatehouse once more; 'make test' does")
	}
	build := strings.Join(stages(t)["build"].lines, "\n")
	m := regexp.MustCompile(`-ldflags="([^"]+)"`).FindStringSubmatch(build)
	require.NotNil(t, m)
	flags := strings.NewReplacer("$VERSION", "v1.2.3", "$REVISION", "0123456789abcdef").Replace(m[1])
	file := filepath.Join(t.TempDir(), "gatehouse")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags="+flags, "-o", file, "../cmd/gatehouse")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.CommandContext(t.Context(), file, "--version").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "gatehouse v1.2.3 (commit 0123456789abcdef, "+runtime.Version()+", "+runtime.GOOS+"/"+runtime.GOARCH+")\n", string(out))
}
