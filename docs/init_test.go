package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/oidctest"
	"github.com/gatehouse-auth/gatehouse/internal/pagetest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// What 'gatehouse init' writes runs as it is, and the page that comes with it is true:
// for each case, a real Redis, a real Envoy, and every line of the page.
func TestInit(t *testing.T) {
	if testing.Short() {
		t.Skip("pages are run without -short")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("the secret of an Express application\n"), 0o600))
	for name, tc := range map[string]struct {
		args     []string
		oidc     bool
		embedded bool
		paths    string // what each page must have tried
	}{
		"sessions":                      {args: []string{"--for", "sessions"}, paths: "/auth/sessions"},
		"sessions with users":           {args: []string{"--for", "sessions", "--users"}, paths: "/auth/login"},
		"sessions of Express":           {args: []string{"--for", "sessions", "--express-secret-file", secret}, paths: "/auth/sessions"},
		"sessions without Redis":        {args: []string{"--for", "sessions", "--users"}, embedded: true, paths: "/auth/login"},
		"jwt":                           {args: []string{"--for", "jwt"}, paths: "tokens mint"},
		"jwt with users":                {args: []string{"--for", "jwt", "--users"}, paths: "/auth/token"},
		"jwt without Redis":             {args: []string{"--for", "jwt"}, embedded: true, paths: "tokens mint"},
		"both with users":               {args: []string{"--for", "both", "--users", "--issuer", "https://idp.example.com", "--audience", "api"}, paths: "/auth/token"},
		"api-keys":                      {args: []string{"--for", "api-keys"}, paths: "service:backoffice"},
		"oidc":                          {args: []string{"--for", "oidc", "--client-id", "gateway"}, oidc: true, paths: "/auth/oidc/corp/login"},
		"sessions, of several services": {args: []string{"--for", "sessions", "--upstream", "shop=127.0.0.1:3000/shop/v1", "--public", "/shop/v1/assets"}, paths: "/shop/v1/admin"},
	} {
		t.Run(name, func(t *testing.T) {
			envoy := proctest.Need(t, "envoy")
			require.NotEmpty(t, envoy)
			require.NoError(t, gatehouse())
			args := append([]string{"init"}, tc.args...)
			ports := map[string]string{}
			for i, port := range proctest.FreePorts(t, 6) {
				ports[[]string{"8080", "9001", "8081", "9090", "9901", "3000"}[i]] = strconv.Itoa(port)
			}
			if tc.oidc {
				issuer := oidctest.Start(t, filepath.Join("..", "e2e", "express", "node_modules"), map[string]any{
					"CLIENTS": []any{map[string]any{
						"client_id": "gateway", "client_secret": "the secret of the gateway",
						"redirect_uris": []string{"http://127.0.0.1:" + ports["8080"] + "/auth/oidc/corp/callback"},
					}},
				})
				args = append(args, "--issuer", issuer, "--client-secret-file", secret)
			}
			if tc.embedded {
				args = append(args, "--store", "embedded://")
			} else {
				args = append(args, "--store", "redis://"+proctest.StartRedis(t).Addr+"/0")
			}
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), filepath.Join(binDir, "gatehouse"), args...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)

			// Ports that others may have are exchanged for free ones.
			number := regexp.MustCompile(`\b(8080|9001|8081|9090|9901|3000)\b`)
			gate := filepath.Join(dir, "gate")
			for _, file := range []string{"gatehouse.yaml", "envoy.yaml", "README.md"} {
				text, err := os.ReadFile(filepath.Join(gate, file))
				require.NoError(t, err)
				exchanged := number.ReplaceAllStringFunc(string(text), func(n string) string { return ports[n] })
				require.NoError(t, os.WriteFile(filepath.Join(gate, file), []byte(exchanged), 0o600))
			}
			page := readFile(t, filepath.Join(gate, "README.md"))
			require.Contains(t, page, tc.paths)
			// The terminals of the reader, who is slower than Envoy is at finding Gatehouse.
			for _, terminal := range [][2]string{{"gatehouse serve ", ports["9090"]}, {"envoy -c ", ports["8080"]}, {"gatehouse attack echo ", ports["3000"]}} {
				from := "```sh\n" + terminal[0]
				require.Equal(t, 1, strings.Count(page, from), terminal[0])
				page = strings.Replace(page, from, "```sh background port="+terminal[1]+"\n"+terminal[0], 1)
			}
			wait := "```sh\nfor ((i = 0; i < 200; i++)); do\n  curl -sf -o /dev/null http://127.0.0.1:" + ports["9090"] + "/readyz && " +
				"[[ $(curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:" + ports["8080"] + "/shop/v1) != 503 ]] && break\n  sleep 0.1\ndone\n```\n"
			page = strings.Replace(page, "## Try it\n", "## Try it\n\n"+wait, 1)
			file := filepath.Join(dir, "page.md")
			require.NoError(t, os.WriteFile(file, []byte("<!-- run: needs=envoy -->\n<!-- here: cd '"+gate+"'; patient gatehouse.yaml; patient envoy.yaml -->\n"+page), 0o600))
			pagetest.Run(t, file, pagetest.Options{Path: []string{binDir}})
		})
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
