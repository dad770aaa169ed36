package authapi

import (
	"bytes"
	"context"
	_ "embed"
)

//go:embed openapi.yaml
var openAPI []byte

// OpenAPI returns the description of the API, OpenAPI 3.1 in YAML.
func OpenAPI() []byte { return bytes.Clone(openAPI) }

// serveOpenAPI serves the description.
func (a *API) serveOpenAPI(_ context.Context, c *call) (reply, error) { return a.openAPI.serve(c), nil }

// serveJWKS serves the keys with which everybody can verify our tokens.
func (a *API) serveJWKS(_ context.Context, c *call) (reply, error) { return a.jwks.serve(c), nil }
