// Package envoy holds the gateway configurations that Gatehouse ships, for
// programs that run them: the demo command, the benchmarks and the tests.
package envoy

import _ "embed" // for the two files

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
