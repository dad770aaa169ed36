package chaos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// gateway is a real Envoy with the shipped configuration, in front of some
// replicas, and a service behind it that tells whom it was told. It is a door: what
// credentials ask for is the path of policy user.
type gateway struct {
	*proc.Envoy
	addr   string
	client *http.Client
}

// The addresses of the shipped file.
const (
	shippedGateway = "127.0.0.1:8080"
	shippedAdmin   = "127.0.0.1:9901"
	shippedHTTP    = "127.0.0.1:8081"
	shippedUsers   = "127.0.0.1:8101"
)

// startGateway runs Envoy until the test ends, and waits until it finds all
// replicas healthy.
func startGateway(t *testing.T, gates ...*gate) *gateway {
	t.Helper()
	return startGatewayOf(t, envoy.Config, gates...)
}

// patientEnvoy is the shipped configuration, but for how long checks are waited for.
func patientEnvoy(t *testing.T) string {
	t.Helper()
	config := envoy.Config
	for _, edit := range [][2]string{
		{"\n                timeout: 1s\n", "\n                timeout: 8s\n"}, {"max_interval: 0.5s}", "max_interval: 4s}"}, {"connect_timeout: 0.25s", "connect_timeout: 4s"},
	} {
		require.Equal(t, 1, strings.Count(config, edit[0]), "the shipped file has another form: adapt the test")
		config = strings.Replace(config, edit[0], edit[1], 1)
	}
	return config
}

// startGatewayOf is startGateway with a configuration of the shipped form.
func startGatewayOf(t *testing.T, config string, gates ...*gate) *gateway {
	t.Helper()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("x-user-id"))
	}))
	t.Cleanup(service.Close)

	const endpoint = "        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9001}}}\n"
	require.Equal(t, 1, strings.Count(config, endpoint), "the shipped file has another form: adapt the test")
	var endpoints strings.Builder
	addresses := map[string]string{
		shippedHTTP:  gates[0].http,
		shippedUsers: strings.TrimPrefix(service.URL, "http://"),
	}
	for i, g := range gates {
		endpoints.WriteString(strings.Replace(endpoint, "9001", fmt.Sprint(9001+i*1000), 1))
		addresses[fmt.Sprintf("127.0.0.1:%d", 9001+i*1000)] = g.check
	}
	ports := proctest.FreePorts(t, 2)
	addresses[shippedGateway], addresses[shippedAdmin] = proc.Local(ports[0]), proc.Local(ports[1])
	text, err := proc.RewriteAddresses([]byte(strings.Replace(config, endpoint, endpoints.String(), 1)), addresses)
	require.NoError(t, err)
	gw := &gateway{
		Envoy: proctest.StartEnvoy(t, text, proc.EnvoyOptions{}), addr: proc.Local(ports[0]),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}},
	}
	t.Cleanup(gw.client.CloseIdleConnections)
	for _, g := range gates {
		gw.sees(t, g)
	}
	return gw
}

// sees waits until Envoy finds a replica healthy.
func (gw *gateway) sees(t *testing.T, g *gate) {
	t.Helper()
	gw.awaits(t, "gatehouse::"+g.check+"::health_flags::healthy")
}

// awaits waits until Envoy's list of clusters holds a text.
func (gw *gateway) awaits(t *testing.T, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, gw.Ready(ctx, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+gw.Admin+"/clusters", http.NoBody)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		list, err := io.ReadAll(response.Body)
		if err == nil && !strings.Contains(string(list), text) {
			err = fmt.Errorf("no %q in\n%s", text, list)
		}
		return err
	}))
}

// ask sends a request through Envoy.
func (gw *gateway) ask(ctx context.Context, c *credential) answer {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+gw.addr+"/users/me", http.NoBody)
	if err != nil {
		return answer{err: err}
	}
	for name, value := range c.headers {
		request.Header.Set(name, value)
	}
	response, err := gw.client.Do(request)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return answer{status: response.StatusCode, user: string(body), err: err}
}
