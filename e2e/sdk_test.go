package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/sdktest"
)

// startSDKServices runs the services of the directory sdk, with the packages as they would
// be published, and returns where each listens. They admit the internal key.
func startSDKServices(t *testing.T, key string) map[string]string {
	t.Helper()
	node, python3, python := proctest.Need(t, "node"), sdktest.Python3(t), sdktest.Python(t)
	modules := sdktest.Installed(t)
	wheel, _ := sdktest.Distributions(t)
	addresses := map[string]string{}
	ports := proctest.FreePorts(t, 4)
	for i, service := range []struct{ name, program, file string }{
		{"express", node, "express.mjs"},
		{"fastify", node, "fastify.mjs"},
		{"wsgi", python3, "wsgi.py"},
		{"asgi", python, "asgi.py"},
	} {
		file := filepath.Join("sdk", service.file)
		if service.program == node { // beside the modules, so that it finds them
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			file = filepath.Join(modules, service.file)
			require.NoError(t, os.WriteFile(file, text, 0o600))
		}
		p := proctest.Start(t, service.program, []string{file}, proc.Options{Output: journal, Env: []string{
			fmt.Sprintf("PORT=%d", ports[i]), "KEY_SHA256=" + sha256Hex(key), "PYTHONPATH=" + wheel, "PYTHONDONTWRITEBYTECODE=1",
		}})
		addresses[service.name] = proc.Local(ports[i])
		require.NoError(t, p.Ready(t.Context(), proc.TCP(addresses[service.name])))
	}
	return addresses
}

// byHeader sends requests to one of these services, by the header x-sdk.
func byHeader(services map[string]string) []edit {
	var edits []edit
	for name, address := range services {
		edits = append(edits, func(config map[string]any) error {
			text, err := yaml.Dump(config)
			if err != nil {
				return err
			}
			var copied map[string]any
			if err := yaml.Load(text, &copied); err != nil {
				return err
			}
			var cluster any
			err = inCluster("user_service", func(c map[string]any) {
				c["name"] = name
				cluster = c
			})(copied)
			if err != nil {
				return err
			}
			resources := config["static_resources"].(map[string]any)
			resources["clusters"] = append(resources["clusters"].([]any), cluster)
			return endpoints(name, address)(config)
		}, routesFirst(fmt.Sprintf(`
- match: {prefix: "/", headers: [{name: x-sdk, string_match: {exact: %s}}]}
  route: {cluster: %s, timeout: 15s}
`, name, name)))
	}
	return edits
}

// TestServicesOfEachLanguage: what Express, Fastify, a WSGI and an ASGI server read with our
// packages is what the session says, through a real gateway.
func TestServicesOfEachLanguage(t *testing.T) {
	need(t)
	key := journal.secret("an internal key of a service", newSessionID())
	services := startSDKServices(t, key)
	shared := sharedGateway(t, asShipped)
	g := shared.gateway(t, byHeader(services)...)

	ask := func(t *testing.T, g *gateway, path string, headers ...string) (status int, body object) {
		t.Helper()
		r := g.get(t, path, headers...)
		require.NotEmpty(t, r.body, r.line())
		require.NoError(t, json.Unmarshal([]byte(r.body), &body), r.line())
		return r.status, body
	}
	malformed, noUser, noRole := object{"error": "Bad request"}, object{"error": "No token provided"}, object{"error": "Forbidden"}
	people := map[string]identity{
		"plain":              bob,
		"nothing but an id":  {"carol", "", `[]`, ""},
		"UTF-8":              {"Jürgen Müller 100%", "jürgen@example.com", `["prüfer","組織","😀"]`, "組織-1"},
		"of other planes":    {"😀\u2028\u00a0", "", `["\u2028"]`, "🏢"},
		"percent signs":      {"%41%zz%", "100%25@example.com", `["%41","%"]`, "%2C"},
		"quotes":             {`a"b'c\d;e=f`, `"a b"@example.com`, `["\"","\\","a,b","]","[\"admin\"]"]`, `{"x":1}`},
		"what looks like it": {"service", "x-user-id: root", `["admin,member"]`, "null"},
		"long":               {strings.Repeat("é", 500), "", `["` + strings.Repeat("r", 2000) + `"]`, "o"},
		"commas":             {"Doe, Jane", "", `["a"]`, "org-1,org-2"},
	}
	sessions := map[string]string{}
	for name, person := range people {
		sessions[name] = cookie(g.login(t, person))
	}

	for _, name := range slices.Sorted(maps.Keys(services)) {
		t.Run(name, func(t *testing.T) {
			to := "x-sdk: " + name
			for who, person := range people {
				status, said := ask(t, g, "/auth/me", sessions[who])
				require.Equal(t, 200, status)
				if nested, ok := said["user"].(object); ok {
					said = nested
				}
				want := object{}
				for _, field := range []string{"userId", "email", "roles", "organizationId"} {
					require.Contains(t, said, field)
					want[field] = said[field]
				}
				require.Equal(t, person.id, want["userId"])
				require.JSONEq(t, person.roles, mustJSON(t, want["roles"]))
				for _, path := range []string{"/p/session/here", "/public/here"} {
					status, body := ask(t, g, path, to, sessions[who], "x-user-id: root", `X-User-Roles: ["admin"]`)
					if name == "wsgi" && who == "commas" {
						// It might as well have been two headers.
						require.Equal(t, 400, status)
						require.Equal(t, malformed, body)
						continue
					}
					require.Equal(t, 200, status, "%s: %v", who, body)
					require.Equal(t, object{"user": want, "service": nil}, body, who)
				}
			}

			status, body := ask(t, g, "/public/here", to, "x-user-id: root", "x-org-id: org-1", apiKey("nobody's"))
			require.Equal(t, 200, status, body)
			require.Equal(t, object{"user": nil, "service": nil}, body, "anonymous, whatever the client says")
			status, body = ask(t, g, "/p/any/here", to, apiKey(apiKeys.billing))
			require.Equal(t, 200, status, body)
			require.Equal(t, "billing", body["service"])
			require.Equal(t, object{"userId": "service:billing", "email": "", "roles": []any{}, "organizationId": ""}, body["user"])
			status, body = ask(t, g, "/p/any/admins", to, cookie(g.login(t, alice)))
			require.Equal(t, 200, status, body)
			status, body = ask(t, g, "/p/any/admins", to, sessions["plain"])
			require.Equal(t, 403, status)
			require.Equal(t, noRole, body)

			// Around the gate.
			direct := &gateway{stack: shared.stack, addr: services[name]}
			status, body = ask(t, direct, "/p/session/here")
			require.Equal(t, 401, status)
			require.Equal(t, noUser, body)
			for _, lines := range [][]string{
				{"x-user-id: alice", "x-user-id: bob"},
				{"x-user-id: alice", "x_user_id: bob"},
				{"x-user-id: alice", "X-User-Id:"},
				{"x-user-id: alice", `x-user-roles: ["a"]`, `x-user-roles: ["b"]`},
				{"x-org-id: org-1"},
				{"x-user-id: %"},
			} {
				for _, path := range []string{"/p/session/here", "/public/here"} {
					status, body = ask(t, direct, path, lines...)
					require.Equal(t, 400, status, lines)
					require.Equal(t, malformed, body, lines)
				}
			}
			status, body = ask(t, direct, "/internal", apiKey(key))
			require.Equal(t, 200, status, body)
			require.Equal(t, object{"user": nil, "service": nil}, body)
			for _, lines := range [][]string{{}, {apiKey("other")}, {apiKey(key), apiKey(key)}, {"x-user-id: service:billing"}} {
				status, body = ask(t, direct, "/internal", lines...)
				require.Equal(t, 403, status)
				require.Equal(t, noRole, body)
			}
		})
	}
}
