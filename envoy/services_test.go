package envoy_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/envoy/lint"
)

// A gateway for other services has all that the shipped one has, but the demo.
func TestForServices(t *testing.T) {
	text, err := envoy.ForServices(
		[]envoy.Service{{Name: "shop", Address: "127.0.0.1:3000"}, {Name: "orders", Address: "[::1]:4000"}},
		[]envoy.Route{
			{Name: "orders-admin", Path: "/orders/admin", AnyCase: true, Policy: "admin", Service: "orders"},
			{Name: "orders", Path: "/orders", Policy: "user", Service: "orders"},
			{Name: "shop", Path: "/", Policy: "user", Service: "shop"},
		},
	)
	require.NoError(t, err)
	for _, demo := range []string{"user_service", "order_service", "cluster: demo", "/banking"} {
		require.NotContains(t, text, demo)
	}
	// Every line of the shipped file up to the demo's routes, and of Gatehouse's own
	// clusters.
	_, shipped, _ := strings.Cut(envoy.Config, "\nadmin:\n")
	upToRoutes, _, _ := strings.Cut(shipped, "              - name: demo-page\n")
	_, rest, _ := strings.Cut(shipped, "\n  clusters:\n")
	clusters, _, _ := strings.Cut(rest, "  # ---- The services.")
	require.Contains(t, text, upToRoutes)
	require.Contains(t, text, clusters)
	require.Contains(t, text, "match: {path_separated_prefix: /orders/admin, case_sensitive: false}")
	require.Contains(t, text, "match: {prefix: /}")
	require.Contains(t, text, `address: "::1", port_value: 4000`)
	findings := lint.Lint([]lint.Source{{Name: "envoy.yaml", Data: []byte(text)}}, lint.Options{Gatehouse: &lint.Gatehouse{
		Policies: []string{"admin", "user"}, Kinds: []authz.Kind{authz.KindSession}, Private: []string{"127.0.0.1:9001", "127.0.0.1:9090"},
	}})
	require.Empty(t, findings)

	_, err = envoy.ForServices([]envoy.Service{{Name: "shop", Address: "nowhere"}}, nil)
	require.ErrorContains(t, err, "the address of the service shop")
}
