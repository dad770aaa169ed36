package proc_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

const gateway = `
admin:
  address:
    socket_address: {address: 127.0.0.1, port_value: 9901}
static_resources:
  clusters:
  - name: users # the port 8101 in this comment and in the next line stays
    alt_stat_name: "8101"
    endpoint: &users
      socket_address:
        address: 127.0.0.1
        port_value: 8101
  - name: orders
    endpoint: {socket_address: {address: 127.0.0.1, port_value: 8102}}
  - name: users-too
    endpoint: *users
`

// ports reads what became of the configuration, aliases resolved.
func ports(t *testing.T, config []byte) map[string]any {
	t.Helper()
	var c struct {
		StaticResources struct {
			Clusters []struct {
				Name     string
				Stat     string `yaml:"alt_stat_name"`
				Endpoint struct {
					Pipe          map[string]string
					SocketAddress struct {
						Address string
						Port    int `yaml:"port_value"`
					} `yaml:"socket_address"`
				}
			}
		} `yaml:"static_resources"`
	}
	require.NoError(t, yaml.Load(config, &c), "%s", config)
	got := map[string]any{}
	for _, cluster := range c.StaticResources.Clusters {
		if a := cluster.Endpoint; a.Pipe != nil {
			got[cluster.Name] = a.Pipe["path"]
		} else {
			got[cluster.Name] = []any{a.SocketAddress.Address, a.SocketAddress.Port}
		}
		if cluster.Name == "users" {
			require.Equal(t, "8101", cluster.Stat)
		}
	}
	return got
}

func TestRewritePortsExchangesPortsAtOnce(t *testing.T) {
	out, err := proc.RewritePorts([]byte(gateway), map[int]int{8101: 8102, 8102: 8101, 9901: 1234})
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"users":     []any{"127.0.0.1", 8102},
		"orders":    []any{"127.0.0.1", 8101},
		"users-too": []any{"127.0.0.1", 8102},
	}, ports(t, out))
	require.Contains(t, string(out), "1234")
}

func TestRewriteAddresses(t *testing.T) {
	out, err := proc.RewriteAddresses([]byte(gateway), map[string]string{
		"127.0.0.1:8101": "user-service:80",
		"127.0.0.1:8102": "unix:/run/orders.sock",
	})
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"users":     []any{"user-service", 80},
		"orders":    "/run/orders.sock",
		"users-too": []any{"user-service", 80},
	}, ports(t, out))
}

func TestRewriteToASocketNeedsNoNames(t *testing.T) {
	const clusters = `
- name: a
  type: STRICT_DNS
  load_assignment: {endpoints: [{address: {socket_address: {address: 127.0.0.1, port_value: 1}}}]}
- name: b
  type: STRICT_DNS
  load_assignment: {endpoints: [{address: {socket_address: {address: 127.0.0.1, port_value: 2}}}]}
`
	out, err := proc.RewriteAddresses([]byte(clusters), map[string]string{"127.0.0.1:1": "unix:/run/a.sock"})
	require.NoError(t, err)
	var got []struct{ Name, Type string }
	require.NoError(t, yaml.Load(out, &got))
	require.Equal(t, []struct{ Name, Type string }{{"a", "STATIC"}, {"b", "STRICT_DNS"}}, got)
}

func TestRewriteRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		config string
		ports  map[int]int
		want   string
	}{
		"a port that is not there":   {gateway, map[int]int{8101: 1, 8201: 2}, "no address with port 8201"},
		"what is no YAML":            {"a: [", nil, "read Envoy configuration"},
		"an address without a port":  {"socket_address: {address: 127.0.0.1}", nil, "line 1: socket_address without address or port_value"},
		"a port that is a reference": {"socket_address: {address: 127.0.0.1, port_value: http}", nil, `line 1: port_value is no number: "http"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := proc.RewritePorts([]byte(tc.config), tc.ports)
			require.ErrorContains(t, err, tc.want)
		})
	}
	_, err := proc.RewriteAddresses([]byte(gateway), map[string]string{"localhost:8101": "users:80"})
	require.ErrorContains(t, err, "no address localhost:8101")
	_, err = proc.RewriteAddresses([]byte(gateway), map[string]string{"127.0.0.1:8101": "users"})
	require.ErrorContains(t, err, "replacement for 127.0.0.1:8101")
}
