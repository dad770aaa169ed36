package config

// What people need beside the keys: the head of the page, and examples. A test has each
// example pass 'gatehouse config check'.

const referenceHead = "<!-- Made from authz/config. 'make generate' writes it. -->\n<!-- all checked: cmd/gatehouse TestConfigurationExamplesAreRight -->\n" + `# Configuration

Every key of the file that ` + "`gatehouse serve`" + ` reads, from the same source as its JSON Schema
(` + "`gatehouse config schema`" + `). ` + "`gatehouse config check FILE`" + ` says everything that is wrong with one, with line, column and key.
To begin with, ` + "`gatehouse init`" + ` [writes one](../getting-started.md). An editor with a YAML language server completes and
checks keys where the file begins with ` + "`# yaml-language-server: $schema=schema.json`" + `.

## Sections

All of them are optional. A file without [policies](#policies) denies every request.

`

const referenceRules = `
## How the file is read

- It is YAML: one document, UTF-8, at most 1 MiB. A key that is unknown or given twice, and a value of another type, is an
  error: a number where text is expected wants quotes, ` + "`yes` is not `true`, `15`" + ` is not a duration. Anchors and merge keys
  (` + "`<<`" + `) work.
- A key that isn't given has its default, and so has one whose value is null.
- A duration is a number with a unit, such as ` + "`500ms`, `15m`, `24h` or `1h30m`" + `. A day is ` + "`24h`" + `.
- ` + "`${NAME}`" + ` in a text is the environment variable of that name. One that isn't set is an error. ` + "`$${`" + ` is a literal ` + "`${`" + `. Numbers,
  booleans, durations, dates and words of a fixed list are never replaced.
- The path of a file is relative to the directory of the configuration. The file must be there. A secret that is read
  from a file ends before the line end at its end.
- No secret is shown by any message, command or log.

<a id="reload"></a>

## Reload

The file, and every file that it names, is read again [when it changes](../reload.md). For each key stands what a change does:

| reloaded | |
|---|---|
| at once | counts for the next request |
| for new connections | connections that are open stay as they are. A password counts when Redis has accepted it once |
| at once, with an empty cache | counts for the next request; the [cache](../cache.md) begins anew. A change elsewhere does the same where it is the first or the last that has a policy look into ` + "`session`" + `, or alters the shortest ` + "`idle_timeout`" + ` |
| by a new client of the store | new connections to Redis, and an empty cache, as soon as the store that the file names now has answered once |
| at the next start | the log and ` + "`/readyz`" + ` list the keys that wait. So do TLS on a listener that had none, or has none any more, and all of an embedded store |

A file with a mistake in it changes nothing: what ran before goes on.
`

// guide is what stands below a key beside its description.
type guide struct {
	more    string // a paragraph in Markdown
	example string // a whole configuration
}

var guides = map[string]guide{
	"server": {example: `
server:
  check: {listen: "unix:///run/gatehouse/check.sock"}
  http: {listen: 0.0.0.0:8081, public_url: https://gateway.example.com, trusted_hops: 1}
  ops: {listen: 127.0.0.1:9090}
  drain: 20s
`},
	"server.check.tls": {example: `
server:
  check:
    listen: 0.0.0.0:9001
    tls: {cert_file: tls/check.pem, key_file: tls/check.key, client_ca_file: tls/gateways-ca.pem}
`},
	"server.check.max_concurrent": {more: "What becomes of more than that: [overload](../overload.md)."},
	"server.http.trusted_hops":    {more: "1 for Envoy alone in front. With 0 behind a gateway, all clients have the gateway's address, and one who guesses passwords slows down everybody."},
	"server.drain":                {more: "What a replica answers while it starts and stops: [Kubernetes](../kubernetes.md)."},
	"redis": {more: "Which user it takes, what happens when a master fails, how passwords are rotated: [Redis](../redis.md). What is written there: [keys in Redis](redis.md).", example: `
redis:
  url: rediss+sentinel://s1:26379,s2:26379,s3:26379/mymaster/0
  username: gatehouse
  password_file: redis-password
  sentinel: {username: gatehouse-sentinel, password_file: sentinel-password}
  tls: {ca_file: tls/redis-ca.pem, server_name: redis.internal}
  confirm_replicas: 1
`},
	"redis.url": {more: "In a password, `/` is written `%2F`, `@` is `%40`, `?` is `%3F` and `#` is `%23`.", example: `
redis:
  url: redis+cluster://node-1:6379,node-2:6379
`},
	"redis.confirm_replicas": {more: "A revocation that fewer hold is answered with 503 `Not confirmed`: [what an acknowledged revocation survives](../high-availability.md)."},
	"redis.cache":            {more: "How answers from memory stay right: [the coherent cache](../cache.md)."},
	"sessions": {example: `
sessions:
  secrets_file: session-secrets
  ttl: 24h
  cookie: {same_site: lax}
  trusted_origins: [https://app.example.com]
`},
	"sessions.secrets": {more: "For sessions of an Express application, its secret: [Express behind the gate](../how-to/express-session.md). `openssl rand -base64 32` prints a new one; changing it while everybody stays in: [rotation](../how-to/rotate.md).", example: `
sessions:
  secrets: ["${SESSION_SECRET}"]
`},
	"sessions.fields": {more: "For applications that write session records of their own.", example: `
sessions:
  secrets: ["${SESSION_SECRET}"]
  fields: {user_id: uid, org_id: tenant}
`},
	"tokens": {more: "`gatehouse keys new` makes a key, `gatehouse keys rotate` the next one: [keys and secrets](../auth-api.md#keys-and-secrets).", example: `
tokens:
  issuer: https://gateway.example.com
  audiences: [api]
  signing_keys:
    - {file: keys/current.pem}
    - {file: keys/previous.pem}
policies:
  api: {credentials: [bearer]}
default_policy: api
`},
	"issuers": {more: "Of `jwks_url`, `discovery`, `jwks_file` and `public_key_file` each entry has exactly one.", example: `
issuers:
  - issuer: https://idp.example.com
    discovery: true
    audiences: [api]
    claims: {roles: realm_access.roles}
  - issuer: https://partner.example.org
    jwks_url: https://partner.example.org/jwks.json
    audiences: [api]
    algorithms: [ES256, RS256]
    user_id_prefix: "partner:"
  - issuer: build-server
    public_key_file: keys/build-server.pub.pem
    audiences: [api]
    user_id_prefix: "build:"
policies:
  partner: {credentials: [bearer], issuers: [https://partner.example.org]}
  api: {credentials: [bearer]}
default_policy: api
`},
	"identity": {more: "How services read the headers: [who is calling](../services.md).", example: `
identity:
  headers: {user_id: x-auth-user}
  strip_credentials: true
`},
	"policies": {more: "Every field by what it is for, with more examples: [policies](../policies.md). Policies for the six usual cases, which run: [examples](../../examples/README.md).", example: `
sessions: {secrets: ["${SESSION_SECRET}"]}
policies:
  user: {credentials: [session]}
  public: {anonymous: true}
  admin: {credentials: [session], roles: {any: [admin]}}
  banking: {credentials: [session], freshness: strict, max_auth_age: 15m, idle_timeout: 5m}
  pages: {credentials: [session], on_unauthenticated: redirect, login_url: /login}
default_policy: user
`},
	"policies.<name>.condition": {more: "What it can ask: [conditions](../policies.md#conditions).", example: `
issuers:
  - {issuer: https://idp.example.com, discovery: true, audiences: [api]}
policies:
  read:
    credentials: [bearer]
    condition: request.method == "GET" && claims.scope.contains("orders:read")
default_policy: read
`},
	"policies.<name>.headers": {example: `
sessions: {secrets: ["${SESSION_SECRET}"]}
policies:
  user:
    credentials: [session]
    headers: {x-user-plan: session.plan, x-user-credential: identity.kind}
    metadata: {plan: session.plan}
default_policy: user
`},
	"policies.<name>.on_store_outage": {example: `
sessions: {secrets: ["${SESSION_SECRET}"]}
policies:
  catalogue: {credentials: [session], on_store_outage: serve_stale, stale_for: 30s}
default_policy: catalogue
`},
	"routes": {more: "How hosts and paths are compared: [routes](../policies.md#routes).", example: `
sessions: {secrets: ["${SESSION_SECRET}"]}
policies:
  user: {credentials: [session]}
  admin: {credentials: [session], roles: {any: [admin]}}
  public: {anonymous: true}
routes:
  - {path: /admin/*, policy: admin}
  - {host: www.example.com, path: /assets/*, methods: [GET, HEAD], policy: public}
default_policy: user
`},
	"rate_limits": {more: "How they count, and what clients learn: [rate limits](../rate-limits.md).", example: `
sessions: {secrets: ["${SESSION_SECRET}"]}
rate_limits:
  orders: {by: user, limit: 100, per: 1m, burst: 20, on_outage: allow}
policies:
  orders: {credentials: [session], rate_limit: orders}
default_policy: orders
`},
	"users": {more: "What is in the file, and how passwords are hashed (`gatehouse password hash`): [auth API](../auth-api.md).", example: `
server: {http: {trusted_hops: 1}}
sessions: {secrets: ["${SESSION_SECRET}"]}
users: {file: users.yaml}
`},
	"api_keys": {more: "Two entries of one name are both valid, so that callers can change over. The hash of a key: `printf %s \"$KEY\" | sha256sum`.", example: `
api_keys:
  - {name: billing, sha256: 0a3666a0710c08aa6d0de92ce72beeb5b93124cce1bf3701c9d6cdeb543cb73e, policies: [internal]}
  - name: login
    sha256: 5cb07bc21acda3c9bb3c3d9b6b20a9b2e1d2af5f7fbcdfaf0a8e59d5b2e4e7b3
    auth_api: true
    expires: 2035-01-01
policies:
  internal: {credentials: [api_key]}
default_policy: internal
`},
	"oidc": {more: "Login and logout with a provider: [auth API](../auth-api.md).", example: `
server: {http: {public_url: https://gateway.example.com}}
sessions: {secrets: ["${SESSION_SECRET}"]}
oidc:
  providers:
    corp:
      issuer: https://idp.example.com
      client_id: gateway
      client_secret_file: corp-secret
      user_id_prefix: "corp:"
`},
	"log": {more: "What is in each line: [logs](../logging.md). The level can be changed for a while [without a reload](../logging.md#the-level-while-it-runs).", example: `
log: {level: info, format: json, sample_allowed: 0.01}
`},
	"audit": {more: "What is in each line, and what each answer to a full disk means: [the audit log](../logging.md#the-audit-log).", example: `
audit: {file: /var/log/gatehouse/audit.log, on_failure: refuse}
`},
	"tracing": {more: "What is in a span, and how Envoy takes part: [traces](../tracing.md).", example: `
tracing:
  otlp:
    endpoint: otel-collector:4317
    tls: {ca_file: tls/collector-ca.pem}
    headers_file: collector-headers
  sample: 0.01
  attributes: {deployment.environment.name: production}
`},
}
