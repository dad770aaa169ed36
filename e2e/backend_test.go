package e2e

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// TestExamplesOfTrustedBackends runs the two programs of
// examples/trusted-backend as they are.
func TestExamplesOfTrustedBackends(t *testing.T) {
	g := sharedGateway(t, asShipped)
	example := filepath.Join("..", "examples", "trusted-backend")
	modules := modulesDir(t)
	for name, start := range map[string]func(t *testing.T) (program string, args []string){
		"Node": func(t *testing.T) (string, []string) {
			t.Helper()
			nodeModules(t)
			return proctest.Need(t, "node"), []string{filepath.Join(example, "express.mjs")}
		},
		"Go": func(t *testing.T) (string, []string) {
			t.Helper()
			bin, err := binaries()
			require.NoError(t, err)
			return filepath.Join(bin, "trusted-backend"), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			password := journal.secret("a password", rand.Text())
			program, args := start(t)
			p := proctest.Start(t, program, args, proc.Options{Output: journal, Env: []string{
				"GATEHOUSE_NODE_MODULES=" + modules, "GATEHOUSE_URL=http://" + g.replicas[0].http,
				"GATEHOUSE_KEY=" + apiKeys.backend, "ERINS_PASSWORD=" + password,
			}})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			line, err := p.AwaitLine(ctx, func(line string) bool { return strings.HasPrefix(line, "listening on ") })
			require.NoError(t, err)
			login := func(body object) reply {
				t.Helper()
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
					"http://127.0.0.1:"+strings.TrimPrefix(line, "listening on ")+"/login", strings.NewReader(mustJSON(t, body)))
				require.NoError(t, err)
				request.Header.Set("Content-Type", "application/json")
				request.Header.Set("User-Agent", "example/1.0")
				response, err := http.DefaultClient.Do(request)
				require.NoError(t, err)
				defer func() { _ = response.Body.Close() }()
				_, err = io.Copy(io.Discard, response.Body)
				require.NoError(t, err)
				return reply{status: response.StatusCode, header: response.Header}
			}
			require.Equal(t, 401, login(object{"email": "erin@example.com", "password": "nobody's password"}).status)
			r := login(object{"email": "erin@example.com", "password": password})
			require.Equal(t, 200, r.status)
			b := g.browse()
			b.keep(r)
			requireAllowed(t, b.open(t, "/users/me"), identity{"erin", "erin@example.com", `["member"]`, "org-1"})
			require.Equal(t, "example/1.0", list(b.open(t, "/auth/sessions").json(t)["sessions"])[0]["userAgent"])
			requireAnswer(t, b.post(t, "/auth/logout", nil), 200, loggedOut)

			require.Equal(t, 200, g.browse().request(t, "PATCH", "/auth/users/erin/sessions", object{"disabled": true}, apiKey(apiKeys.backend)).status)
			r = login(object{"email": "erin@example.com", "password": password})
			require.Equal(t, 403, r.status)
			require.Empty(t, r.header.Values("set-cookie"))
			require.Equal(t, 200, g.browse().request(t, "PATCH", "/auth/users/erin/sessions", object{"disabled": false}, apiKey(apiKeys.backend)).status)
		})
	}
}
