package e2e

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// commandsOf returns the sh blocks of a page, in their order, as one script.
func commandsOf(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, blocks, page)
	script := "set -euo pipefail\n"
	for _, block := range blocks {
		script += block[1] + "\necho\n"
	}
	return script
}

// Every command of the page on the auth API, as a reader would run it.
func TestCommandsOfTheAuthPage(t *testing.T) {
	for _, program := range []string{"bash", "curl", "sed"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed: the commands of the page are not run", program)
		}
	}
	s := start(t, options{config: "sessions: {cookie: {secure: false}}\n"}) // curl keeps secure cookies from plain HTTP
	g := s.gateway(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", commandsOf(t, "../docs/auth-api.md"))
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "GATEWAY=http://"+g.addr, "KEY="+apiKeys.backend,
		"EMAIL="+bobsLogin.email, "PASSWORD="+bobsLogin.password,
		"ADMIN_EMAIL="+alicesLogin.email, "ADMIN_PASSWORD="+alicesLogin.password)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, answer := range []string{
		`"userId":"bob"`, `"credential":"session"`, `"credential":"bearer"`, `"active":false`, `"handle":`,
		`"organizationId":"org-2"`, `"message":"Logged out successfully"`, `"changed":`, `"message":"Revoked `, `"expiresAt":`,
	} {
		require.Contains(t, string(out), answer)
	}
	require.NotContains(t, string(out), `"error"`)
}
