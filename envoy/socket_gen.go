//go:build ignore

// This program writes envoy-socket.yaml.
package main

import (
	"log"
	"os"

	"github.com/gatehouse-auth/gatehouse/envoy"
)

func main() {
	text, err := envoy.OverSocket([]byte(envoy.Config), envoy.Socket)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("envoy-socket.yaml", text, 0o644); err != nil { //nolint:gosec // G306: for Envoy to read, no secret in it
		log.Fatal(err)
	}
}
