//go:build ignore

// Writes schema.json, the committed copy of the JSON Schema; "go generate"
// runs it in this directory.
package main

import (
	"log"
	"os"

	"github.com/gatehouse-auth/gatehouse/authz/config"
)

func main() {
	if err := os.WriteFile("schema.json", config.Schema(), 0o644); err != nil { //nolint:gosec // G306: published
		log.Fatal(err)
	}
}
