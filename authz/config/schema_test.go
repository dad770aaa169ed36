package config

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

func compileSchema(tb testing.TB) *jsonschema.Schema {
	tb.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	require.NoError(tb, err)
	c := jsonschema.NewCompiler()
	require.NoError(tb, c.AddResource("schema.json", doc))
	s, err := c.Compile("schema.json") // also validates it against the meta-schema of its $schema
	require.NoError(tb, err)
	return s
}

func TestSchemaFileIsFresh(t *testing.T) {
	committed, err := os.ReadFile("schema.json")
	require.NoError(t, err)
	require.Equal(t, string(committed), string(Schema()), "schema.json is not what the structs say; run go generate in this directory")
}

func TestSchemaAcceptsSpecSample(t *testing.T) {
	text, err := os.ReadFile("testdata/spec.yaml")
	require.NoError(t, err)
	// The sample has the word "hex" where a hash belongs.
	text = bytes.Replace(text, []byte(`"hex"`), []byte(`"`+strings.Repeat("0a", 32)+`"`), 1)
	require.NoError(t, compileSchema(t).Validate(plain(t, text)))
}

func TestSchemaAcceptsDefaultsThatItStates(t *testing.T) {
	// Every default in the schema must itself be valid, and lead to the same
	// configuration as leaving the key out.
	doc := map[string]any{}
	collectDefaults(t, reflect.TypeFor[Config](), doc)
	require.NoError(t, compileSchema(t).Validate(doc))
	require.Equal(t, "127.0.0.1:9001", doc["server"].(map[string]any)["check"].(map[string]any)["listen"])
}

func collectDefaults(t *testing.T, typ reflect.Type, into map[string]any) {
	t.Helper()
	for _, f := range fieldsOf(typ) {
		ft := typ.Field(f.index).Type
		switch {
		case f.fallback != nil:
			into[f.key] = jsonOf(f.fallback)
		case ft.Kind() == reflect.Struct && !isScalar(ft):
			inner := map[string]any{}
			collectDefaults(t, ft, inner)
			into[f.key] = inner
		}
	}
}

func TestSchemaRefuses(t *testing.T) {
	s := compileSchema(t)
	for _, text := range []string{
		"unknown: 1",
		"server: {unknown: 1}",
		"server: {check: {tls: {unknown: x}}}",
		"sessions: {cookie: {unknown: x}}",
		"issuers: [{issuer: https://a.example, unknown: x}]",
		"issuers: [{issuer: https://a.example, claims: {unknown: x}}]",
		"policies: {p: {unknown: x}}",
		"policies: {p: {roles: {unknown: [x]}}}",
		"policies: {'a b': {}}",
		"routes: [{policy: p, unknown: x}]",
		"routes: [{path: /a}]",
		"routes: [{policy: null}]",
		"rate_limits: {l: {limit: 1, per: 1s, unknown: 1}}",
		"policies: {p: {headers: {x_plan: claims.plan}}}",
		"policies: {p: {headers: {x-plan: plan}}}",
		"policies: {p: {headers: {x-plan: ~}}}",
		"policies: {p: {metadata: {'a b': claims.plan}}}",
		"rate_limits: {l: {limit: 0, per: 1s}}",
		"api_keys: [{name: a, sha256: hex}]",
		"oidc: {providers: {p: {issuer: https://a.example, client_id: a, unknown: 1}}}",
		"log: {level: loud}",
		"policies: {p: {credentials: [cookie]}}",
		"policies: {p: {credentials: [session, session]}}",
		"policies: {p: {roles: {any: []}}}",
		"policies: {p: {max_auth_age: 7d}}",
		"policies: {p: {max_auth_age: 15}}",
		"server: {http: {trusted_hops: -1}}",
		"redis: {url: 'http://x'}",
		"default_policy: ''",
	} {
		require.Error(t, s.Validate(plain(t, []byte(text))), text)
	}
}

func TestSchemaKnowsVariables(t *testing.T) {
	s := compileSchema(t)
	for _, text := range []string{
		`api_keys: [{name: "${NAME}", sha256: "${HASH}"}]`,
		`server: {check: {listen: "${HOST}:${PORT}"}, http: {public_url: "${URL}"}}`,
		`redis: {url: "${REDIS_URL}"}`,
	} {
		require.NoError(t, s.Validate(plain(t, []byte(text))), text)
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	var walk func(reflect.Type, string)
	walk = func(typ reflect.Type, key string) {
		for _, f := range fieldsOf(typ) {
			at := child(key, f.key)
			require.NotEmpty(t, f.doc, at)
			require.True(t, strings.HasSuffix(f.doc, "."), "%s: a sentence", at)
			ft := typ.Field(f.index).Type
			if ft.Kind() == reflect.Slice || ft.Kind() == reflect.Map {
				ft = ft.Elem()
			}
			if ft.Kind() == reflect.Struct && !isScalar(ft) {
				walk(ft, at)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
}
