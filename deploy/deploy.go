// Package deploy holds what puts Gatehouse into containers; it is no library.
// README.md has the story. The Go code makes compose/envoy.yaml out of the
// gateway configuration that is shipped and tested:
//
//	text, err := deploy.ComposeEnvoy(shipped)
//
// so that the two differ in addresses and in nothing else.
package deploy

import (
	"bytes"
	"fmt"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

//go:generate go run envoy_gen.go

// composeAddresses is where things are in the network of docker-compose.yml.
// The admin interface is not among them: it stays on the loopback of Envoy's
// own container.
var composeAddresses = map[string]string{
	"127.0.0.1:8080": "0.0.0.0:8080",
	"127.0.0.1:9001": "gatehouse:9001", // a name for all replicas
	"127.0.0.1:8081": "gatehouse:8081",
	"127.0.0.1:8101": "user-service:8101",
	"127.0.0.1:8102": "order-service:8102",
	"127.0.0.1:8103": "demo-page:8103",
}

const composeEnvoyHeader = `# Code generated from envoy/envoy.yaml by deploy/envoy_gen.go; DO NOT EDIT.
#
# The same gateway with the addresses of docker-compose.yml. Change the other
# file and run 'make generate'.

`

// ComposeEnvoy returns a gateway configuration with the addresses of the
// compose stack. It fails when the configuration lacks one of the addresses
// that are replaced.
func ComposeEnvoy(shipped []byte) ([]byte, error) {
	text, err := proc.RewriteAddresses(shipped, composeAddresses)
	if err != nil {
		return nil, fmt.Errorf("make the compose stack's Envoy configuration: %w", err)
	}
	return bytes.Join([][]byte{[]byte(composeEnvoyHeader), text}, nil), nil
}
