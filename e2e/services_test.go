package e2e

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// startServices runs the two demo services and returns what puts them behind a
// gateway.
func (s *stack) startServices(t *testing.T) []edit {
	t.Helper()
	bin, err := binaries()
	require.NoError(t, err)
	ports := proctest.FreePorts(t, 2)
	users, orders := proc.Local(ports[0]), proc.Local(ports[1])
	key := apiKeys.billing
	for _, service := range []struct {
		name, address string
		env           []string
	}{
		{"user-service", users, []string{"LISTEN=" + users, "INTERNAL_API_KEY_SHA256=" + sha256Hex(key)}},
		{"order-service", orders, []string{"LISTEN=" + orders, "USER_SERVICE_URL=http://" + users, "INTERNAL_API_KEY=" + key}},
	} {
		p := proctest.Start(t, filepath.Join(bin, service.name), nil, proc.Options{Env: service.env, Output: journal})
		require.NoError(t, p.Ready(t.Context(), proc.HTTP("http://"+service.address+"/healthz")))
	}
	return []edit{endpoints("user_service", users), endpoints("order_service", orders)}
}

// TestServices: what services make of the identity, the way a user of the demo
// sees it.
func TestServices(t *testing.T) {
	shared := sharedGateway(t, asShipped)
	g := shared.gateway(t, shared.startServices(t)...)
	session, admin := cookie(g.login(t, bob)), cookie(g.login(t, alice))
	token := bearer(g.pem.issue(claimsOf(pemIssuer, bob)))
	ask := func(path string, headers ...string) (status int, body object) {
		r := g.get(t, path, headers...)
		require.NoError(t, json.Unmarshal([]byte(r.body), &body), r.line())
		return r.status, body
	}
	isBob := object{"userId": "bob", "email": "bob@example.com", "roles": []any{"member"}, "organizationId": "org-1"}

	for _, credential := range []string{session, token} {
		status, body := ask("/users/me", credential, "x-user-id: root")
		require.Equal(t, 200, status)
		require.Equal(t, isBob, body["user"])
		require.Equal(t, "Bob Baker", body["profile"].(object)["displayName"])
	}
	status, body := ask("/orders", token)
	require.Equal(t, 200, status)
	require.Equal(t, isBob, body["user"])
	list := body["orders"].([]any)
	require.NotEmpty(t, list)
	for _, order := range list {
		order := order.(object)
		require.Equal(t, "org-1", order["organizationId"])
		// The name comes from user-service, by the internal key.
		require.NotEmpty(t, order["buyer"].(object)["displayName"])
	}
	status, _ = ask("/users/admin/stats", admin)
	require.Equal(t, 200, status)
	status, body = ask("/users/admin/stats", session)
	require.Equal(t, 403, status)
	require.Equal(t, object{"error": "Forbidden"}, body)
	status, body = ask("/public/hello")
	require.Equal(t, 200, status)
	require.Nil(t, body["user"])
	status, body = ask("/public/hello", session)
	require.Equal(t, 200, status)
	require.Equal(t, isBob, body["user"])
	status, body = ask("/banking/ord-1001", session) // a route that rewrites the path
	require.Equal(t, 200, status)
	require.Equal(t, isBob, body["user"])

	// What arrives, said by the service itself.
	status, body = ask("/users/echo/anything", session, "x-user-id: root", "X-User-Roles: [\"admin\"]", apiKey(apiKeys.billing))
	require.Equal(t, 200, status)
	require.Equal(t, isBob, body["user"])
	require.NotContains(t, body, "malformed")
	headers := body["headers"].(object)
	for name, value := range map[string]string{"x-user-id": "bob", "x-user-email": "bob@example.com", "x-user-roles": `["member"]`, "x-org-id": "org-1"} {
		require.Equal(t, []any{value}, headers[name])
	}
	require.NotContains(t, headers, "x-internal-api-key")
}
