package deploy_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/deploy"
)

const (
	shippedEnvoy = "../envoy/envoy.yaml"
	composeEnvoy = "compose/envoy.yaml"
)

func TestComposeEnvoyIsFresh(t *testing.T) {
	want, err := deploy.ComposeEnvoy(read(t, shippedEnvoy))
	require.NoError(t, err)
	require.Equal(t, string(want), string(read(t, composeEnvoy)), "run 'make generate'")
}

// TestComposeEnvoyDiffersInAddressesOnly compares what the files mean, anchors
// and merges resolved.
func TestComposeEnvoyDiffersInAddressesOnly(t *testing.T) {
	var shipped, composed any
	require.NoError(t, yaml.Load(read(t, shippedEnvoy), &shipped))
	require.NoError(t, yaml.Load(read(t, composeEnvoy), &composed))

	var changes []string
	compare(t, "", shipped, composed, &changes)
	slices.Sort(changes)
	require.Equal(t, []string{
		"127.0.0.1:8080 → 0.0.0.0:8080",
		"127.0.0.1:8081 → gatehouse:8081",
		"127.0.0.1:8101 → user-service:8101",
		"127.0.0.1:8102 → order-service:8102",
		"127.0.0.1:8103 → demo-page:8103",
		"127.0.0.1:9001 → gatehouse:9001",
	}, slices.Compact(changes), "the admin interface, too, stays on loopback")
}

// compare walks both at once and collects socket addresses that differ; any
// other difference fails the test.
func compare(t *testing.T, path string, a, b any, changes *[]string) {
	t.Helper()
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		require.True(t, ok, path)
		if from, to := address(a), address(b); from != "" {
			if from != to {
				*changes = append(*changes, from+" → "+to)
			}
			return
		}
		require.Len(t, b, len(a), path)
		for key := range a {
			require.Contains(t, b, key, path)
			compare(t, path+"."+key, a[key], b[key], changes)
		}
	case []any:
		b, ok := b.([]any)
		require.True(t, ok, path)
		require.Len(t, b, len(a), path)
		for i := range a {
			compare(t, fmt.Sprintf("%s[%d]", path, i), a[i], b[i], changes)
		}
	default:
		require.Equal(t, a, b, path)
	}
}

// address is the address in a mapping that has exactly a socket_address's two
// keys, else "".
func address(m map[string]any) string {
	host, port := m["address"], m["port_value"]
	if host == nil || port == nil || len(m) != 2 {
		return ""
	}
	return fmt.Sprintf("%v:%v", host, port)
}

func TestComposeEnvoyNeedsEveryAddress(t *testing.T) {
	_, err := deploy.ComposeEnvoy([]byte(`
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
`))
	require.ErrorContains(t, err, "127.0.0.1:8081")
}
