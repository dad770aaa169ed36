//go:build ignore

// This program writes what is generated in the chart: values.schema.json, and
// the table of values in README.md.
package main

import (
	"log"
	"os"

	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/deploy"
)

func main() {
	write("helm/gatehouse/values.schema.json", func() ([]byte, error) {
		return deploy.ChartSchema(read("helm/values.schema.json"), config.Schema())
	})
	write("helm/gatehouse/README.md", func() ([]byte, error) {
		return deploy.ChartReadme(read("helm/gatehouse/README.md"), read("helm/gatehouse/values.yaml"))
	})
}

func read(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	return text
}

func write(path string, text func() ([]byte, error)) {
	made, err := text()
	if err != nil {
		log.Fatalf("%s: %v", path, err)
	}
	if err := os.WriteFile(path, made, 0o644); err != nil { //nolint:gosec // G306: no secret in it
		log.Fatal(err)
	}
}
