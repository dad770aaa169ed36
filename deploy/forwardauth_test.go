package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Gatehouse names the headers; whoever adds one there must add it here.
var identityHeaders = authz.DefaultIdentityHeaders.ClientSpellings()[:4]

// Every file of deploy/forward-auth takes each identity header from the answer,
// and keeps a client's own from the services. That it does, e2e tries on the
// real programs; ingress-nginx has none there.
func TestForwardAuthNamesEveryIdentityHeader(t *testing.T) {
	for file, lines := range map[string]func(header string) []string{
		"nginx.conf": func(h string) []string {
			v := "$gatehouse_" + strings.ReplaceAll(strings.TrimPrefix(h, "x-"), "-", "_")
			return []string{
				"auth_request_set " + v + " $upstream_http_" + strings.ReplaceAll(h, "-", "_") + ";",
				"proxy_set_header " + h + " " + v + ";", "proxy_set_header " + h + ` "";`,
			}
		},
		"Caddyfile":            func(h string) []string { return []string{"request_header -" + h, h} },
		"traefik-dynamic.yaml": func(h string) []string { return []string{h + `: ""`, h} },
		"ingress-nginx.yaml":   func(h string) []string { return []string{h} },
	} {
		text := strings.ToLower(string(read(t, "forward-auth/"+file)))
		for _, header := range identityHeaders {
			for _, line := range lines(header) {
				require.Contains(t, text, line, file)
			}
		}
		require.Contains(t, text, authz.HeaderAPIKey, file)
	}
}

func TestForwardAuthForIngressNginx(t *testing.T) {
	decoder := yaml.NewDecoder(bytes.NewReader(read(t, "forward-auth/ingress-nginx.yaml")))
	var kinds []string
	for {
		var object struct {
			Kind     string
			Metadata struct {
				Name        string
				Annotations map[string]string
			}
			Data map[string]string
		}
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		kinds = append(kinds, object.Kind+" "+object.Metadata.Name)
		switch object.Metadata.Name {
		case "orders":
			const prefix = "nginx.ingress.kubernetes.io/"
			require.Equal(t, strings.Join(append(slices.Clone(identityHeaders), "x-identity-assertion"), ","), object.Metadata.Annotations[prefix+"auth-response-headers"])
			require.Contains(t, object.Metadata.Annotations[prefix+"auth-url"], ":8081/check?policy=user")
			require.Len(t, object.Metadata.Annotations, 2)
		case "ingress-nginx-controller":
			// It passes every upgrade on, h2c included.
			require.Contains(t, object.Data["server-snippet"], `if ($http_upgrade !~* "^(websocket)?$") {`)
		case "only-the-gateway-says":
			for name, value := range object.Data {
				require.Empty(t, value, name)
			}
			require.Contains(t, object.Data, authz.HeaderAPIKey)
		}
	}
	require.Equal(t, []string{"Ingress orders", "ConfigMap ingress-nginx-controller", "ConfigMap only-the-gateway-says"}, kinds)
}
