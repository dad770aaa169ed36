// Package envoy holds the gateway configurations that Gatehouse ships, for
// programs that run them: the demo command, the benchmarks and the tests.
package envoy

import (
	"bytes"
	_ "embed" // for the files
	"fmt"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

//go:generate go run socket_gen.go

// Config is envoy.yaml: the gateway with plain HTTP. Package proc rewrites its
// ports and addresses.
//
//go:embed envoy.yaml
var Config string

// ConfigTLS is envoy-tls.yaml: the same gateway with TLS for clients and
// mutual TLS towards the check listener. It names certificates below
// envoy/certs, which scripts/certs.sh makes.
//
//go:embed envoy-tls.yaml
var ConfigTLS string

// ConfigSocket is envoy-socket.yaml: the gateway of [Config], which reaches
// the check listener by a Unix socket, [Socket]. It is what [OverSocket] makes.
//
//go:embed envoy-socket.yaml
var ConfigSocket string

// Socket is the path of the check listener's socket in [ConfigSocket].
const Socket = "/run/gatehouse/check.sock"

// checkAddress is where the check listener is in [Config].
const checkAddress = "127.0.0.1:9001"

const socketHeader = `# Code generated from envoy.yaml by socket_gen.go; DO NOT EDIT.
#
# The same gateway for an Envoy that shares a host, or a pod, with Gatehouse: the
# check goes over a Unix socket, which costs a little less than TCP and is open
# to no other user of the host. In Gatehouse's configuration:
#
#   server: {check: {listen: unix:///run/gatehouse/check.sock}}
#
#   envoy -c envoy/envoy-socket.yaml
#
# Change envoy.yaml and run 'make generate'. What it says about itself follows.

`

// OverSocket returns a gateway configuration that reaches the check listener
// by the Unix socket at path, in place of 127.0.0.1:9001. It fails when the
// configuration has no such address.
func OverSocket(config []byte, path string) ([]byte, error) {
	text, err := proc.RewriteAddresses(config, map[string]string{checkAddress: "unix:" + path})
	if err != nil {
		return nil, fmt.Errorf("make the configuration for a socket: %w", err)
	}
	return bytes.Join([][]byte{[]byte(socketHeader), text}, nil), nil
}
