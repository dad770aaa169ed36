package config

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func specSample(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/spec.yaml")
	require.NoError(t, err)
	return string(text)
}

// lines returns an error or warnings, one string per line.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// The sample of the specification, as it stands there, has only what can't be
// right in a sample: files that nobody made, a hash that is the word hex; and
// what this version has no engine for.
func TestSpecSample(t *testing.T) {
	_, warnings, err := parse("gatehouse.yaml", []byte(specSample(t)), environment(testEnvironment), memFiles{})
	require.Equal(t, []string{
		`gatehouse.yaml:23:25: tokens.signing_keys[0].file: keys/current.pem: no such file or directory; create the file or correct the path`,
		`gatehouse.yaml:23:51: tokens.signing_keys[1].file: keys/previous.pem: no such file or directory; create the file or correct the path`,
		`gatehouse.yaml:54:15: users.file: users.yaml: no such file or directory; create the file or correct the path`,
		`gatehouse.yaml:55:36: api_keys[0].sha256: expected the SHA-256 of the key as 64 hexadecimal digits; printf %s "$KEY" | sha256sum prints it`,
		`gatehouse.yaml:56:96: oidc.providers.corp.client_secret_file: secret: no such file or directory; create the file or correct the path`,
	}, lines(err))
	require.Equal(t, []Warning{{
		File: "gatehouse.yaml", Line: 47, Column: 43, Key: "policies.trial.mode",
		Message: "policy trial only observes: requests that it would deny pass",
	}}, warnings)
}

// availableSample is the sample with its placeholders filled and without what
// this version has no engine for.
func availableSample(t *testing.T) string {
	t.Helper()
	return strings.NewReplacer(
		`"hex"`, `"`+strings.Repeat("0A", 32)+`"`,
	).Replace(specSample(t))
}

func TestSpecSampleLoadsFromDisk(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "keys"), 0o700))
	for _, name := range []string{"keys/current.pem", "keys/previous.pem", "users.yaml"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("client-secret\n"), 0o600))
	file := filepath.Join(dir, "gatehouse.yaml")
	require.NoError(t, os.WriteFile(file, []byte(availableSample(t)), 0o600))

	c, warnings, err := Load(file, environment(testEnvironment))
	require.NoError(t, err)
	require.Len(t, warnings, 1, "the observing policy")

	require.Equal(t, "https://gateway.example.com", c.Server.HTTP.PublicURL)
	require.Equal(t, 1, c.Server.HTTP.TrustedHops)
	require.Equal(t, "env-session-secret-0123456789", c.Sessions.Secrets[0].Reveal())
	require.Equal(t, []SigningKey{{File(filepath.Join(dir, "keys/current.pem"))}, {File(filepath.Join(dir, "keys/previous.pem"))}}, c.Tokens.SigningKeys)
	require.Equal(t, "realm_access.roles", c.Issuers[0].Claims.Roles)
	require.Equal(t, "client-secret", c.OIDC.Providers["corp"].ClientSecret.Reveal())
	require.Equal(t, []string{"user", "public", "admin", "banking", "web", "tolerant", "internal", "trial", "partner"}, c.PolicyNames())
	require.Equal(t, []authz.Kind{authz.KindSession, authz.KindBearer}, c.Policies["user"].Credentials)
	require.Equal(t, []string{"admin"}, c.Policies["admin"].Roles.Any)
	require.Equal(t, authz.FreshnessStrict, c.Policies["banking"].Freshness)
	require.Equal(t, authz.FreshnessCached, c.Policies["user"].Freshness)
	require.Equal(t, 15*time.Minute, c.Policies["banking"].MaxAuthAge)
	require.Equal(t, UnauthenticatedRedirect, c.Policies["web"].OnUnauthenticated)
	require.Equal(t, "/login", c.Policies["web"].LoginURL)
	require.Equal(t, ModeObserve, c.Policies["trial"].Mode)
	require.Equal(t, []Route{{Path: "/admin/*", Policy: "admin"}}, c.Routes)
	require.Equal(t, RateLimit{By: ByUser, Limit: 100, Per: time.Minute, Burst: 20, OnOutage: OnOutageAllow}, c.RateLimits["partner"])
	require.Equal(t, []string{"partner"}, c.RateLimitNames())
	require.Equal(t, []string{"corp"}, c.ProviderNames())
	require.Equal(t, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), c.APIKeys[0].Expires)
	require.Equal(t, byte(0x0a), c.APIKeys[0].Hash()[31])
	require.Equal(t, []string{
		file,
		filepath.Join(dir, "keys/current.pem"), filepath.Join(dir, "keys/previous.pem"),
		filepath.Join(dir, "users.yaml"), filepath.Join(dir, "secret"),
	}, c.Files())
}

// Each of these is a whole configuration that says nothing.
func TestEmptyConfigurationIsAllDefaults(t *testing.T) {
	for _, text := range []string{
		"", "\n", "# only a comment\n", "---\n", "{}", "null", "~", "\ufeff",
		"server:\nredis: ~\nsessions: {cookie: , fields: null}\nissuers:\npolicies:\nroutes: null\nlog: {level: }\n",
	} {
		c, warnings := mustParse(t, text)
		require.Len(t, warnings, 1, text)
		require.Contains(t, warnings[0].String(), "no policies")
		require.Equal(t, Server{
			Check: CheckServer{Listen: "127.0.0.1:9001", MaxConnectionAge: 10 * time.Minute, MaxConcurrent: 4096},
			HTTP:  HTTPServer{Listen: "127.0.0.1:8081", MaxConcurrent: 4096},
			Ops:   OpsServer{Listen: "127.0.0.1:9090"},
			Drain: 20 * time.Second,
		}, c.Server)
		require.Equal(t, Redis{
			URL:     NewSecretURL("redis://127.0.0.1:6379/0"),
			Timeout: 100 * time.Millisecond,
			Cache:   Cache{Enabled: true, MaxEntries: 200000, Heartbeat: 500 * time.Millisecond},
		}, c.Redis)
		require.Equal(t, Sessions{
			Cookie:        Cookie{Name: "sessionId", Secure: true, SameSite: SameSiteStrict},
			Prefix:        "sess:",
			TTL:           24 * time.Hour,
			Rolling:       true,
			TouchInterval: time.Minute,
			Fields: SessionFields{
				UserID: "userId", Email: "email", Roles: "roles", OrgID: "organizationId",
				Organizations: "organizations", AuthTime: "authTime",
			},
		}, c.Sessions)
		require.Equal(t, Tokens{AccessTTL: 15 * time.Minute, RefreshTTL: 168 * time.Hour, RefreshGrace: 10 * time.Second}, c.Tokens)
		require.Equal(t, Identity{
			Headers:        IdentityHeaders{UserID: "x-user-id", Email: "x-user-email", Roles: "x-user-roles", OrgID: "x-org-id"},
			Profiles:       true,
			MaxHeaderBytes: 8192,
			Assertion:      IdentityKeys{TTL: time.Minute},
		}, c.Identity)
		require.Equal(t, authz.DefaultIdentityHeaders, c.Identity.Headers.Authz())
		require.Equal(t, Log{Level: LevelInfo, Format: LogJSON}, c.Log)
		require.Equal(t, Audit{OnFailure: AuditContinue}, c.Audit)
		require.Empty(t, c.Issuers)
		require.Empty(t, c.Policies)
		require.Empty(t, c.Routes)
		require.Empty(t, c.DefaultPolicy)
		require.Empty(t, c.APIKeys)
		require.Equal(t, []string{"dir/gatehouse.yaml"}, c.Files())
	}
}

func TestEntriesHaveDefaults(t *testing.T) {
	c, _ := mustParse(t, `
issuers: [{issuer: https://idp.example.com, jwks_url: https://idp.example.com/jwks, audiences: [api], claims: {roles: groups, email: ~}}]
policies: {open: {anonymous: true}, closed: }
rate_limits: {l: {limit: 7, per: 1s}}
server: {http: {public_url: https://gateway.example.com}}
sessions: {secrets: [0123456789abcdef]}
oidc: {providers: {corp: {issuer: https://idp.example.com, client_id: web, claims: {roles: groups}}, other: {issuer: https://idp.example.com, client_id: web, scopes: [openid, offline_access], user_id_prefix: "other:"}}}
`)
	require.Equal(t, []Issuer{{
		Issuer: "https://idp.example.com", JWKSURL: "https://idp.example.com/jwks", Audiences: []string{"api"},
		Algorithms: []string{"RS256"}, Leeway: 30 * time.Second,
		Claims: Claims{UserID: "sub", Email: "email", Roles: "groups", OrgID: "org_id"},
	}}, c.Issuers)
	claims := OIDCClaims{UserID: "sub", Email: "email", Roles: "groups", OrgID: "org_id", Organizations: "organizations"}
	corp := OIDCProvider{Issuer: "https://idp.example.com", ClientID: "web", Scopes: []string{"openid", "profile", "email"}, Claims: claims}
	other := corp
	other.Scopes, other.Claims.Roles, other.UserIDPrefix = []string{"openid", "offline_access"}, "roles", "other:"
	require.Equal(t, map[string]OIDCProvider{"corp": corp, "other": other}, c.OIDC.Providers)
	closed := Policy{
		Freshness: authz.FreshnessCached, CSRF: true, OnUnauthenticated: UnauthenticatedJSON,
		OnStoreOutage: authz.OutageDeny, Mode: ModeEnforce,
	}
	open := closed
	open.Anonymous = true
	require.Equal(t, map[string]Policy{"open": open, "closed": closed}, c.Policies)
	require.Equal(t, RateLimit{By: ByAddress, Limit: 7, Per: time.Second, Burst: 7, OnOutage: OnOutageDeny}, c.RateLimits["l"])
}

func TestValuesAreNormalised(t *testing.T) {
	c, _ := mustParse(t, `
server: {http: {public_url: "HTTPS://Gateway.Example.com:443"}}
sessions: {trusted_origins: ["http://APP.example.com:80", "https://app.example.com:8443"]}
policies: {p: {anonymous: true}}
routes: [{host: "API.Example.com.", methods: [get, M-Search], policy: p}, {host: "*.Example.com", policy: p}]
api_keys: [{name: k, sha256: "`+strings.Repeat("AB", 32)+`", policies: [p], expires: 2027-01-31T12:00:00+02:00}]
`)
	require.Equal(t, "https://gateway.example.com", c.Server.HTTP.PublicURL)
	require.Equal(t, []string{"http://app.example.com", "https://app.example.com:8443"}, c.Sessions.TrustedOrigins)
	require.Equal(t, Route{Host: "api.example.com", Methods: []string{"GET", "M-SEARCH"}, Policy: "p"}, c.Routes[0])
	require.Equal(t, "*.example.com", c.Routes[1].Host)
	require.Equal(t, strings.Repeat("ab", 32), c.APIKeys[0].SHA256)
	require.Equal(t, time.Date(2027, 1, 31, 10, 0, 0, 0, time.UTC), c.APIKeys[0].Expires)
}

func TestAuditAndSample(t *testing.T) {
	for text, want := range map[string]Audit{
		"audit: {file: stdout}":                                {File: AuditStdout, OnFailure: AuditContinue},
		"audit: {file: logs/audit.log, on_failure: refuse}":    {File: "dir/logs/audit.log", OnFailure: AuditRefuse},
		"audit: {file: /var/log/gatehouse/audit.log}":          {File: "/var/log/gatehouse/audit.log", OnFailure: AuditContinue},
		"log: {sample_allowed: 0.25}\naudit: {file: stderr}\n": {File: AuditStderr, OnFailure: AuditContinue},
	} {
		c, _ := mustParse(t, text)
		require.Equal(t, want, c.Audit, text)
		require.Equal(t, strings.Contains(text, "sample"), c.Log.SampleAllowed == 0.25, text)
		require.Equal(t, []string{"dir/gatehouse.yaml"}, c.Files(), "the audit log is no part of the configuration")
	}
}

func TestTouchIntervalFollowsShortTTL(t *testing.T) {
	c, _ := mustParse(t, "sessions: {ttl: 20s}")
	require.Equal(t, 2*time.Second, c.Sessions.TouchInterval)
	c, _ = mustParse(t, "sessions: {ttl: 2m}")
	require.Equal(t, time.Minute, c.Sessions.TouchInterval)
}

func TestVariables(t *testing.T) {
	const hash = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA"
	for _, tt := range []struct{ name, text, want string }{
		{"replaced", "${ISSUER}", "https://idp.example.com"},
		{"within text", "${ISSUER}/realms/${ISSUER}x", "https://idp.example.com/realms/https://idp.example.comx"},
		{"escape", "$${ISSUER}", "${ISSUER}"},
		{"escape after a dollar", "$$${ISSUER}", "$${ISSUER}"},
		{"dollar alone", "cost: 5$", "cost: 5$"},
		{"dollars", "$$ $x $ISSUER $", "$$ $x $ISSUER $"},
		{"password hash", hash, hash},
		{"not replaced again", "${NESTED}", "${SESSION_SECRET}"},
		{"can't inject", "${INJECTION}", "x, evil: true}\nserver: {drain: 1s}"},
		{"empty within text", "a${EMPTY}b", "ab"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := expand(tt.text, environment(testEnvironment))
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
			// Also through YAML, and with neither keys nor comments replaced.
			c, _ := mustParse(t, "# ${UNSET}\npolicies: {p: {credentials: [session], organizations: ['"+tt.text+"']}} # ${UNSET}\nsessions: {secrets: ['"+tt.text+"']}\n")
			require.Equal(t, []string{tt.want}, c.Policies["p"].Organizations)
			require.Equal(t, tt.want, c.Sessions.Secrets[0].Reveal())
			require.Equal(t, 20*time.Second, c.Server.Drain)
		})
	}
	_, err := expand("${ISSUER}", nil)
	require.ErrorContains(t, err, "ISSUER is not set")
}

func TestAliasesAndMergeKeys(t *testing.T) {
	c, _ := mustParse(t, `
sessions: {secrets: [&s 0123456789abcdef], trusted_origins: &none []}
policies:
  base: &base {credentials: [session], organizations: &orgs [a, b]}
  again: *base
  merged: {<<: *base, organizations: [c]}
  list: {<<: [{freshness: strict}, *base], credentials: [session]}
  first: {<<: [{freshness: strict}, {freshness: cached}], credentials: [session], organizations: *orgs}
`)
	require.Equal(t, c.Policies["base"], c.Policies["again"])
	require.Equal(t, []string{"c"}, c.Policies["merged"].Organizations)
	require.Equal(t, []authz.Kind{authz.KindSession}, c.Policies["merged"].Credentials)
	require.Equal(t, authz.FreshnessStrict, c.Policies["list"].Freshness)
	require.Equal(t, []string{"a", "b"}, c.Policies["list"].Organizations)
	require.Equal(t, authz.FreshnessStrict, c.Policies["first"].Freshness)
	require.Equal(t, []string{"base", "again", "merged", "list", "first"}, c.PolicyNames())
}

func TestAliasesCannotExplode(t *testing.T) {
	for name, text := range map[string]string{
		"one large node, often": "policies:\n  a: {organizations: &l [" + strings.Repeat("x, ", 100) + "]}\n" +
			"issuers: [" + strings.Repeat("{audiences: *l}, ", 200) + "]",
		"small nodes, often": "issuers: [&i {issuer: a}, " + strings.Repeat("*i, ", 10_000) + "]",
		"merge of itself":    "policies: &p\n  <<: [*p, *p]\n",
		"nested merges":      "policies:\n  a: &a {<<: [*a, *a, *a]}\n  b: {<<: [*a, *a, *a, *a]}\n",
	} {
		_, _, err := parseTest(text)
		require.ErrorContains(t, err, "aliases stand for more than 10000 nodes", name)
		require.Equal(t, 1, strings.Count(err.Error(), "aliases stand for"), name)
	}
	_, _, err := parseTest("server: &s {check: *s}")
	require.ErrorContains(t, err, "server.check.check: unknown key", "an alias of itself ends where the types do")
}

func TestSecretFiles(t *testing.T) {
	c, _ := mustParse(t, "redis: {url: 'redis+sentinel://h/m', password_file: secret, sentinel: {username: app, password_file: secret}}\nsessions: {secrets_file: secrets}")
	require.Equal(t, "file-secret-value", c.Redis.Password.Reveal())
	require.Equal(t, "file-secret-value", c.Redis.Sentinel.Password.Reveal())
	require.Equal(t, File("dir/secret"), c.Redis.PasswordFile)
	require.Len(t, c.Sessions.Secrets, 2)
	require.Equal(t, "first-secret-of-the-file", c.Sessions.Secrets[0].Reveal())
}

func TestPathIsRelativeToTheConfiguration(t *testing.T) {
	c, _ := mustParse(t, "users: {file: users.yaml}")
	require.Equal(t, "dir/x/y.pem", c.Path("x/y.pem"))
	require.Equal(t, "/x/y.pem", c.Path("/x/y.pem"))
	require.Equal(t, File("dir/users.yaml"), c.Users.File)
}

func TestProblemFindsThePlace(t *testing.T) {
	c, _ := mustParse(t, "tokens:\n  issuer: https://a.example\n  signing_keys:\n    - {file: keys/current.pem}\n  audiences: [api]\n")
	require.Equal(t, "dir/gatehouse.yaml:4:14: tokens.signing_keys[0].file: no key in dir/keys/current.pem",
		c.Problem("tokens.signing_keys[0].file", "no key in %s", c.Tokens.SigningKeys[0].File).String())
	require.Equal(t, "dir/gatehouse.yaml:1:1: tokens.access_ttl: odd", c.Problem("tokens.access_ttl", "odd").String())
	require.Equal(t, "dir/gatehouse.yaml:1:1: server.check.listen: in use", c.Problem("server.check.listen", "in use").String())
}

func TestListenersThatCollide(t *testing.T) {
	for _, tt := range []struct {
		a, b Address
		want bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true},
		{"127.0.0.1:1", "127.0.0.1:2", false},
		{"127.0.0.1:1", "127.0.0.2:1", false},
		{":1", "127.0.0.1:1", true},
		{"[::1]:1", ":1", true},
		{"[::]:1", "127.0.0.1:1", true},
		{"0.0.0.0:1", "127.0.0.1:1", true},
		{"0.0.0.0:1", "localhost:1", true},
		{"0.0.0.0:1", "[::1]:1", false},
		{"0.0.0.0:1", "[::]:1", true},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"unix:///a", "unix:///a", true},
		{"unix:///a", "unix:///b", false},
		{"unix:///a:1", ":1", false},
	} {
		require.Equal(t, tt.want, collide(tt.a, tt.b), "%s and %s", tt.a, tt.b)
		require.Equal(t, tt.want, collide(tt.b, tt.a), "%s and %s", tt.b, tt.a)
	}
}

func TestServerTLS(t *testing.T) {
	c, _ := mustParse(t, "server: {check: {tls: {cert_file: cert.pem, key_file: key.pem, client_ca_file: ca.pem}}}")
	require.Equal(t, TLS{CertFile: "dir/cert.pem", KeyFile: "dir/key.pem", ClientCAFile: "dir/ca.pem"}, c.Server.Check.TLS)
	require.True(t, c.Server.Check.TLS.Enabled())
	require.False(t, c.Server.HTTP.TLS.Enabled())
}

func TestAddressNetwork(t *testing.T) {
	network, address := Address("unix:///run/gatehouse/check.sock").Network()
	require.Equal(t, "unix", network)
	require.Equal(t, "/run/gatehouse/check.sock", address)
	network, address = Address("[::1]:9001").Network()
	require.Equal(t, "tcp", network)
	require.Equal(t, "[::1]:9001", address)
}

func TestWordsOfOtherPackages(t *testing.T) {
	require.Equal(t, http.SameSiteStrictMode, SameSiteStrict.HTTP())
	require.Equal(t, http.SameSiteLaxMode, SameSiteLax.HTTP())
	require.Equal(t, http.SameSiteNoneMode, SameSiteNone.HTTP())
	require.Equal(t, http.SameSiteStrictMode, SameSite("").HTTP(), "the zero value is the strict one")
	require.Equal(t, slog.LevelDebug, LevelDebug.Slog())
	require.Equal(t, slog.LevelInfo, LevelInfo.Slog())
	require.Equal(t, slog.LevelWarn, LevelWarn.Slog())
	require.Equal(t, slog.LevelError, LevelError.Slog())
}

func TestLoadRefusesWhatIsNoConfiguration(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, "long.yaml")
	require.NoError(t, os.WriteFile(long, []byte("#"+strings.Repeat("x", maxConfigBytes)), 0o600))
	full := filepath.Join(dir, "full.yaml")
	require.NoError(t, os.WriteFile(full, []byte("#"+strings.Repeat("x", maxConfigBytes-1)), 0o600))

	_, _, err := Load(filepath.Join(dir, "missing.yaml"), nil)
	require.Equal(t, Problems{{
		File:    filepath.Join(dir, "missing.yaml"),
		Message: "cannot read the configuration: no such file or directory; correct the path or create the file",
	}}, err)
	_, _, err = Load(dir, nil)
	require.ErrorContains(t, err, "is a directory")
	_, _, err = Load(long, nil)
	require.ErrorContains(t, err, "longer than 1048576 bytes")
	_, _, err = Load(full, nil)
	require.NoError(t, err)
	_, _, err = Parse("x", []byte("#"+strings.Repeat("x", maxConfigBytes)), nil)
	require.ErrorContains(t, err, "longer than 1048576 bytes")
}

func TestFilesOnDiskAreChecked(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "long"), []byte(strings.Repeat("x", maxSecretBytes+1)), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "there"), nil, 0o600))
	name := filepath.Join(dir, "gatehouse.yaml")
	_, _, err := Parse(name, []byte("users: {file: folder}\nredis: {password_file: long}\ntokens: {audiences: [a], issuer: x,\n#\n  signing_keys: [{file: missing}, {file: there}]}"), nil)
	require.Equal(t, []string{
		name + ":1:15: users.file: " + dir + "/folder: is a directory; create the file or correct the path",
		name + ":2:24: redis.password_file: cannot read the secret: longer than 65536 bytes; put a secret alone into the file",
		name + ":5:25: tokens.signing_keys[0].file: " + dir + "/missing: no such file or directory; create the file or correct the path",
	}, lines(err))
	require.NoError(t, osFiles{}.readable(os.DevNull), "what is no regular file is only looked at")
}

// What a configuration names is known although it is refused: a reload waits
// for the file that is missing.
func TestFilesOfARefusedConfiguration(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "gatehouse.yaml")
	require.NoError(t, os.WriteFile(name, []byte(`
users: {file: "${USERS}"}
tokens: {signing_keys: [{file: missing.pem}, {file: /elsewhere/missing.pem}, {file: missing.pem}]}
redis: {password_file: folder, unknown: 1}
`), 0o600))
	env := func(name string) (string, bool) { return "users.yaml", name == "USERS" }
	_, _, err := Load(name, env)
	require.Error(t, err)
	require.Equal(t, []string{
		name, filepath.Join(dir, "users.yaml"), filepath.Join(dir, "missing.pem"), "/elsewhere/missing.pem", filepath.Join(dir, "folder"),
	}, Files(name, env))
	require.NoError(t, os.WriteFile(name, []byte("{"), 0o600))
	require.Equal(t, []string{name}, Files(name, env))
	require.Equal(t, []string{name + ".gone"}, Files(name+".gone", env))
}
