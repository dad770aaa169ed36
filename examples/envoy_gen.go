//go:build ignore

// This program writes envoy.yaml.
package main

import (
	"log"
	"os"

	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/examples"
)

func main() {
	text, err := examples.Gateway([]byte(envoy.Config))
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("envoy.yaml", text, 0o644); err != nil { //nolint:gosec // G306: for Envoy to read, no secret in it
		log.Fatal(err)
	}
}
