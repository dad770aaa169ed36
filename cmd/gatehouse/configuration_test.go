//go:build unix

package main

import (
	"crypto/x509"
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/config"
)

//go:generate go test -count=1 -run ^TestConfigurationPageIsFresh$ . -write-configuration

var writeConfiguration = flag.Bool("write-configuration", false, "write docs/reference/configuration.md")

const configurationFile = "../../docs/reference/configuration.md"

// The page has what the configuration's tags say, and of each key what a reload does with
// it, which is tried.
func TestConfigurationPageIsFresh(t *testing.T) {
	t.Parallel()
	want := config.Reference(reloads(t))
	if *writeConfiguration {
		require.NoError(t, os.WriteFile(configurationFile, []byte(want), 0o644))
		return
	}
	page, err := os.ReadFile(configurationFile)
	require.NoError(t, err)
	require.Equal(t, want, string(page), "run 'make generate'")
}

// The page has each key that the schema has, by a way that doesn't go through the code
// that writes the page.
func TestConfigurationPageHasEveryKeyOfTheSchema(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(configurationFile)
	require.NoError(t, err)
	type schema struct {
		Description          string
		Properties           map[string]json.RawMessage
		Items                json.RawMessage
		AdditionalProperties json.RawMessage
	}
	keys := 0
	var walk func(at string, text json.RawMessage)
	walk = func(at string, text json.RawMessage) {
		var s schema
		if json.Unmarshal(text, &s) != nil { // additionalProperties: false
			return
		}
		for name, inner := range s.Properties {
			key := name
			if at != "" {
				key = at + "." + name
			}
			heading := regexp.MustCompile("(?m)^<a id=\"" + regexp.QuoteMeta(config.Anchor(key)) + "\"></a>\n\n###? `" + regexp.QuoteMeta(key) + "`$")
			require.Len(t, heading.FindAllString(string(page), -1), 1, "%s has one heading", key)
			keys++
			walk(key, inner)
		}
		if s.Items != nil {
			walk(at+"[]", s.Items)
		}
		if s.AdditionalProperties != nil {
			walk(at+".<name>", s.AdditionalProperties)
		}
	}
	walk("", config.Schema())
	require.Greater(t, keys, 150)

	// A link to a key leads to one key.
	anchors := regexp.MustCompile(`<a id="([^"]+)">`).FindAllStringSubmatch(string(page), -1)
	seen := map[string]bool{}
	for _, m := range anchors {
		require.False(t, seen[m[1]], "two places have the anchor %s", m[1])
		seen[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(string(page), -1) {
		require.True(t, seen[m[1]], "nothing has the anchor %s", m[1])
	}
}

// Each example is a configuration that runs, and about which there is nothing to say but
// that an excerpt has no policies.
func TestConfigurationExamplesAreRight(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(configurationFile)
	require.NoError(t, err)
	examples := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	require.Greater(t, len(examples), 20)
	secret := map[string]string{"SESSION_SECRET": "the secret of these examples"}
	for _, m := range examples {
		f := newFixtures(t)
		path := f.configuration(t, "gatehouse.yaml", m[1], secret)
		c := gatehouse(t, secret, "config", "check", path)
		require.Equal(t, exitOK, c.code, "%s\n%s", m[1], c.stderr)
		for line := range strings.Lines(c.stderr) {
			require.Contains(t, line, "there are no policies", m[1])
		}
	}
}

// everyFile names a file by each key that can, and has an entry wherever there are some.
const everyFile = `
server:
  check: {tls: {cert_file: tls/check.pem, key_file: tls/check.key, client_ca_file: tls/check-ca.pem}}
  http: {public_url: https://gateway.example.com, tls: {cert_file: tls/http.pem, key_file: tls/http.key, client_ca_file: tls/http-ca.pem}}
redis:
  url: rediss+sentinel://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3/mymaster/0
  username: gatehouse
  password_file: redis-password
  sentinel: {username: gatehouse, password_file: sentinel-password}
  tls: {ca_file: tls/redis-ca.pem, cert_file: tls/redis.pem, key_file: tls/redis.key}
sessions: {secrets_file: session-secrets}
tokens: {signing_keys: [{file: keys/current.pem}]}
issuers: [{issuer: https://idp.example.com, jwks_file: jwks.json, audiences: [api]}]
identity: {assertion: {signing_keys: [{file: keys/assertion.pem}]}}
policies: {user: {credentials: [session, bearer], idle_timeout: 1h, assertion: {audience: orders}}}
routes: [{path: /, policy: user}]
default_policy: user
rate_limits: {orders: {limit: 10, per: 1s}}
users: {file: users.yaml}
api_keys: [{name: billing, sha256: 0a3666a0710c08aa6d0de92ce72beeb5b93124cce1bf3701c9d6cdeb543cb73e, auth_api: true}]
oidc: {providers: {corp: {issuer: https://idp.example.com, client_id: gateway, client_secret_file: corp-secret}}}
tracing:
  otlp: {endpoint: "127.0.0.1:1", headers_file: headers, tls: {ca_file: tls/collector-ca.pem, cert_file: tls/collector.pem, key_file: tls/collector.key}}
`

// others are values of keys that can't just be any other ones.
var others = map[string]any{
	"server.check.listen":          config.Address("127.0.0.1:19001"),
	"server.http.listen":           config.Address("127.0.0.1:18081"),
	"server.ops.listen":            config.Address("127.0.0.1:19090"),
	"server.http.public_url":       "https://other.example.com",
	"redis.url":                    config.NewSecretURL("rediss+sentinel://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3/mymaster/1"),
	"tokens.issuer":                "https://other.example.com",
	"issuers[].issuer":             "https://other.example.com",
	"issuers[].jwks_url":           "https://other.example.com/jwks",
	"issuers[].algorithms":         []string{"ES256"},
	"identity.assertion.issuer":    "https://other.example.com",
	"policies.<name>.credentials":  []authz.Kind{authz.KindSession},
	"policies.<name>.condition":    `request.method == "GET"`,
	"policies.<name>.headers":      config.Attributes{"x-user-kind": "identity.kind"},
	"policies.<name>.metadata":     config.Attributes{"kind": "identity.kind"},
	"policies.<name>.login_url":    "/login",
	"policies.<name>.rate_limit":   "orders",
	"policies.<name>.idle_timeout": time.Minute,
	"routes[].host":                "www.example.com",
	"routes[].path":                "/other",
	"routes[].methods":             []string{"GET"},
	"routes[].policy":              "user",
	"default_policy":               "",
	"api_keys[].sha256":            strings.Repeat("0a", 32),
	"oidc.providers.<name>.issuer": "https://other.example.com",
	"oidc.providers.<name>.scopes": []string{"openid"},
	"tracing.otlp.endpoint":        "127.0.0.1:2",
	"tracing.attributes":           map[string]string{"deployment.environment.name": "test"},
}

// readPerConnection are files whose contents nothing compares, since they are read
// for each connection.
var readPerConnection = []string{"redis.tls.cert_file", "redis.tls.key_file"}

// reloads tries what a change of each key does: it builds the generation that a reload
// would put in place, and looks what of the one before is left.
func reloads(t *testing.T) map[string]config.Reloads {
	t.Helper()
	in := instruments{log: slog.New(slog.DiscardHandler)}
	f := newFixtures(t)
	path := f.configuration(t, "gatehouse.yaml", everyFile, nil)
	load := func() loadedConfig {
		cfg, _, err := config.Load(path, nil)
		require.NoError(t, err)
		files, sum, err := readContents(cfg.Files())
		require.NoError(t, err)
		return loadedConfig{cfg: cfg, files: files, sum: sum}
	}
	build := func(c loadedConfig, before *generation) *generation {
		g, err := newGeneration(c, before, in)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, g.close()) })
		return g
	}
	begin := load()
	first := build(begin, nil)
	// of returns what becomes of a change after that.
	of := func(c loadedConfig, running *generation) config.Reload {
		switch next := build(c, running); {
		case len(next.pending) > 0:
			return config.ReloadRestart
		case next.clients != running.clients:
			return config.ReloadClient
		case next.stores != running.stores:
			return config.ReloadCache
		case next.checkTLS != running.checkTLS, next.httpTLS != running.httpTLS, passwordsInFiles(next.cfg) != passwordsInFiles(running.cfg):
			return config.ReloadConnections
		}
		return config.ReloadNow
	}
	all := map[string]config.Reloads{}
	for _, k := range config.Keys() {
		if k.Section {
			continue
		}
		c, running := load(), first
		if k.Name == "redis.sentinel.password" { // in place of the file
			without := load()
			without.cfg.Redis.Sentinel.PasswordFile = ""
			c.cfg.Redis.Sentinel.PasswordFile = ""
			running = build(without, nil)
		}
		var r config.Reloads
		file := ""
		change(t, reflect.ValueOf(c.cfg).Elem(), k.Name, k.Name, func(v reflect.Value) {
			if v.Type() == reflect.TypeFor[config.File]() {
				file = v.String()
			}
			f.another(t, k.Name, v)
		})
		r.Value = of(c, running)
		if file != "" {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			save(t, file, string(text)+"\n") // which is another password, and else means the same
			r.Contents = of(load(), running)
			save(t, file, string(text))
			if slices.Contains(readPerConnection, k.Name) {
				require.Equal(t, config.ReloadNow, r.Contents, "%s: something depends on what is in it", k.Name)
				r.Contents = config.ReloadConnections
			}
		}
		all[k.Name] = r
	}
	return all
}

// change applies a function to the value of a key, in the first entry of a list or a map.
func change(t *testing.T, v reflect.Value, key, rest string, do func(reflect.Value)) {
	t.Helper()
	if rest == "" {
		do(v)
		return
	}
	if inner, ok := strings.CutPrefix(rest, "[]."); ok {
		require.NotZero(t, v.Len(), "%s: there is no entry", key)
		change(t, v.Index(0), key, inner, do)
		return
	}
	if inner, ok := strings.CutPrefix(rest, "<name>."); ok {
		require.NotZero(t, v.Len(), "%s: there is no entry", key)
		name := v.MapKeys()[0]
		entry := reflect.New(v.Type().Elem()).Elem()
		entry.Set(v.MapIndex(name))
		change(t, entry, key, inner, do)
		v.SetMapIndex(name, entry)
		return
	}
	name := rest[:strings.IndexAny(rest+".", ".[")]
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("yaml") == name {
			change(t, v.Field(i), key, strings.TrimPrefix(rest[len(name):], "."), do)
			return
		}
	}
	require.Fail(t, "no such key", "%s: there is no %s in %s", key, name, v.Type())
}

// another gives a key another value.
func (f *fixtures) another(t *testing.T, key string, v reflect.Value) {
	t.Helper()
	before := reflect.ValueOf(v.Interface())
	if other, ok := others[key]; ok {
		v.Set(reflect.ValueOf(other))
		return
	}
	switch x := v.Addr().Interface().(type) {
	case *config.File:
		other := f.dir + "/keys/other.pub.pem" // the one that a key names which the configuration doesn't have
		if *x != "" {
			other = string(*x) + ".copy"
			f.copyTo(t, string(*x), other)
		}
		f.make(t, other)
		*x = config.File(other)
	case *config.Secret:
		*x = config.NewSecret("another secret, long enough")
	case *[]config.Secret:
		*x = append(*x, config.NewSecret("another secret, long enough"))
	case *config.Ratio:
		*x += 0.5
	case *time.Time:
		*x = time.Now().Add(time.Hour)
	default:
		switch kind := v.Kind(); {
		case kind == reflect.Bool:
			v.SetBool(!v.Bool())
		case v.CanInt():
			v.SetInt(v.Int() + 1)
		case kind == reflect.String:
			v.SetString(anotherWord(key, v.String()))
		case kind == reflect.Slice:
			require.Equal(t, reflect.String, v.Type().Elem().Kind(), key)
			v.Set(reflect.Append(v, reflect.ValueOf("other").Convert(v.Type().Elem())))
		default:
			require.Fail(t, "no other value", "%s: %s", key, v.Type())
		}
	}
	require.NotEqual(t, before.Interface(), v.Interface(), "%s has no other value", key)
}

// anotherWord is another word of a fixed list, or a longer text.
func anotherWord(key, word string) string {
	i := slices.IndexFunc(config.Keys(), func(k config.Key) bool { return k.Name == key })
	if list, ok := strings.CutPrefix(config.Keys()[i].Type, "one of "); ok {
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(list, -1) {
			if m[1] != word {
				return m[1]
			}
		}
	}
	return word + "x"
}

// fixtures are files that configurations name: what is in one follows from its name.
type fixtures struct {
	dir string
	ca  *authority
}

func newFixtures(t *testing.T) *fixtures {
	t.Helper()
	return &fixtures{t.TempDir(), newAuthority(t)}
}

// configuration writes a configuration, and all files that it names.
func (f *fixtures) configuration(t *testing.T, name, text string, variables map[string]string) string {
	t.Helper()
	path := filepath.Join(f.dir, name)
	save(t, path, text)
	named := config.Files(path, func(name string) (string, bool) { v, ok := variables[name]; return v, ok })
	for _, file := range named[1:] {
		f.make(t, file)
	}
	return path
}

func (f *fixtures) make(t *testing.T, file string) {
	t.Helper()
	if _, err := os.Stat(file); err == nil {
		return
	}
	rel, err := filepath.Rel(f.dir, file)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	cert, key := f.ca.issue(t, "test")
	bare := strings.TrimSuffix(strings.TrimSuffix(file, ".pem"), ".key")
	switch base := filepath.Base(rel); {
	case strings.HasSuffix(base, "ca.pem"):
		f.copyTo(t, f.ca.file, file)
	case strings.HasPrefix(rel, "tls"+string(filepath.Separator)):
		f.copyTo(t, cert, bare+".pem")
		f.copyTo(t, key, bare+".key")
	case strings.HasSuffix(base, ".pub.pem"):
		der, err := x509.MarshalPKIXPublicKey(&f.ca.key.PublicKey)
		require.NoError(t, err)
		save(t, file, pemText("PUBLIC KEY", der))
	case strings.HasPrefix(rel, "keys"+string(filepath.Separator)):
		f.copyTo(t, key, file)
	case base == "jwks.json":
		set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &f.ca.key.PublicKey, KeyID: "1", Algorithm: "ES256"}}})
		require.NoError(t, err)
		save(t, file, string(set))
	case base == "users.yaml":
		save(t, file, "users: []\n")
	case strings.HasSuffix(base, "headers"):
		save(t, file, "x-collector-key: the key\n")
	default:
		require.Empty(t, filepath.Ext(base), "what is in a file of this name?")
		save(t, file, "a secret that is long enough\n")
	}
}

func (f *fixtures) copyTo(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	require.NoError(t, err)
	save(t, to, string(text))
}
