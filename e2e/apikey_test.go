package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAPIKeys: callers inside show a key, and the service sees who they are but
// never the key.
func TestAPIKeys(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		billing := identity{"service:billing", "", "[]", ""}
		for name, header := range map[string]string{
			"the old key, while it is rotated": apiKey(apiKeys.billing),
			"the new key":                      apiKey(apiKeys.billingNew),
			"a name in capitals":               "X-INTERNAL-API-KEY: " + apiKeys.billing,
			"spaces around":                    "x-internal-api-key:   " + apiKeys.billing + "  ",
		} {
			t.Run(name, func(t *testing.T) {
				r := g.get(t, "/users/internal/x", header, "x-user-id: root", "x-user-email: r@example.com", "x-user-roles: [\"admin\"]", "x-org-id: o")
				requireAllowed(t, r, billing)
			})
		}
		for name, headers := range map[string][]string{
			"wrong":                        {apiKey("wrong-key-of-nobody")},
			"empty":                        {"x-internal-api-key:"},
			"expired":                      {apiKey(apiKeys.expired)},
			"not for this policy":          {apiKey(apiKeys.elsewhere)},
			"cut short":                    {apiKey(apiKeys.billing[1:])},
			"its hash":                     {apiKey(sha256Hex(apiKeys.billing))},
			"in another case":              {apiKey(strings.ToLower(apiKeys.billing))},
			"two of them":                  {apiKey(apiKeys.billing), apiKey(apiKeys.billing)},
			"a wrong one, then a good one": {apiKey("wrong-key-of-nobody"), apiKey(apiKeys.billing)},
			"with a scheme":                {apiKey("Bearer " + apiKeys.billing)},
			"bytes":                        {apiKey("\xff\xfe")},
		} {
			t.Run(name, func(t *testing.T) {
				r := g.get(t, "/users/internal/x", append(headers, cookie(g.login(t, alice)))...)
				requireDenied(t, r, 403, forbidden)
			})
		}
		for name, headers := range map[string][]string{
			"none":              {},
			"a session instead": {cookie(g.login(t, alice))},
			"a token instead":   {bearer(g.pem.issue(claimsOf(pemIssuer, alice)))},
			"as a bearer token": {bearer(apiKeys.billing)},
			"as a cookie":       {"Cookie: x-internal-api-key=" + apiKeys.billing},
			"in another header": {"x-api-key: " + apiKeys.billing},
		} {
			t.Run(name, func(t *testing.T) {
				requireDenied(t, g.get(t, "/users/internal/x", headers...), 401, noToken)
			})
		}
		requireAllowed(t, g.get(t, "/p/any", apiKey(apiKeys.elsewhere)), identity{"service:elsewhere", "", "[]", ""})

		// Beside another credential it decides nothing, and travels on nowhere.
		for path, as := range map[string]identity{"/users/me": bob, "/orders": bob, "/public/hello": bob, "/p/session": bob, "/p/open": nobody} {
			requireAllowed(t, g.get(t, path, cookie(g.login(t, bob)), apiKey(apiKeys.billing)), as)
		}
		for _, path := range []string{"/", "/demo/x"} {
			r := g.get(t, path, apiKey(apiKeys.billing))
			require.Equal(t, 200, r.status)
			require.Empty(t, r.arrived.identity())
		}
	})
}

// Every spelling of the key's name that a CGI server would fold into it.
func TestAPIKeyTravelsInNoSpelling(t *testing.T) {
	g := sharedGateway(t, defenceOff)
	session := cookie(g.login(t, bob))
	for _, name := range []string{
		"x_internal_api_key", "x-internal_api_key", "x_internal-api_key", "x_internal_api-key",
		"x-internal-api_key", "x-internal_api-key", "x_internal-api-key", "X_INTERNAL_API_KEY",
	} {
		requireAllowed(t, g.get(t, "/users/me", session, name+": "+apiKeys.billing), bob)
		requireAllowed(t, g.get(t, "/p/open", name+": "+apiKeys.billing), nobody)
		// Nor is it taken for a key.
		requireDenied(t, g.get(t, "/users/internal/x", name+": "+apiKeys.billing), 401, noToken)
	}
}
