//go:build ignore

// This program writes compose/envoy.yaml.
package main

import (
	"log"
	"os"

	"github.com/gatehouse-auth/gatehouse/deploy"
)

func main() {
	shipped, err := os.ReadFile("../envoy/envoy.yaml")
	if err != nil {
		log.Fatal(err)
	}
	text, err := deploy.ComposeEnvoy(shipped)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("compose/envoy.yaml", text, 0o644); err != nil { //nolint:gosec // G306: for Envoy to read, no secret in it
		log.Fatal(err)
	}
}
