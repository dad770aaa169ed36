package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

//go:generate go run schema_gen.go

// Config is a whole configuration. Each field is a key of the file, and its
// tags are that key's specification:
//
//	yaml      the key
//	doc       what it means, for people: documentation and JSON Schema
//	default   its value where the file gives none, written as YAML
//	enum      the words that it takes
//	format    the rule for its text, by a name in formats
//	keys      the same for the keys of a map
//	min, max  bounds of numbers and durations
//	required  the file must give it
//	unique    no element of the list twice
//	nonempty  a list that is given has an element
//
// For a list, enum and format speak of its elements.
//
// A Config that [Load] returned is valid. It is not changed afterwards and
// safe for concurrent use.
type Config struct {
	Server        Server               `yaml:"server" doc:"The listeners."`
	Redis         Redis                `yaml:"redis" doc:"Where sessions, revocations and profiles are."`
	Sessions      Sessions             `yaml:"sessions" doc:"The session cookie and the session records."`
	Tokens        Tokens               `yaml:"tokens" doc:"The tokens that Gatehouse issues; none without signing keys."`
	Issuers       []Issuer             `yaml:"issuers" doc:"Outside issuers whose tokens are accepted beside Gatehouse's own."`
	Identity      Identity             `yaml:"identity" doc:"How the services behind the gate learn who is calling."`
	Policies      map[string]Policy    `yaml:"policies" keys:"name" doc:"What routes ask for, by a name of your choice."`
	Routes        []Route              `yaml:"routes" doc:"Which requests get which policy, where the gateway's route names none; the first match decides."`
	DefaultPolicy string               `yaml:"default_policy" doc:"The policy of requests that no route matches. Without it they are denied."`
	RateLimits    map[string]RateLimit `yaml:"rate_limits" keys:"name" doc:"Limits that policies refer to by name."`
	Users         Users                `yaml:"users" doc:"The user store behind login with a password."`
	APIKeys       []APIKey             `yaml:"api_keys" doc:"Keys of internal callers. Several may share a name, so that one can be rotated."`
	OIDC          OIDC                 `yaml:"oidc" doc:"Login through OpenID Connect."`
	Log           Log                  `yaml:"log" doc:"What is logged, and how."`
	Audit         Audit                `yaml:"audit" doc:"The audit log: a line for each change, with who, what and whom."`
	Tracing       Tracing              `yaml:"tracing" doc:"Traces with OpenTelemetry; none without an endpoint."`

	source *source
}

// source is what a Config remembers of its file. It is behind a pointer, out
// of sight of everything that prints a Config.
type source struct {
	file   string
	dir    string
	places map[string]place
	order  map[string][]string // names of a section's entries, as they stand in the file
	files  []string
}

// Path resolves a path of the configuration: a relative one is relative to
// the configuration's directory.
func (c *Config) Path(path string) string { return c.source.path(path) }

func (s *source) path(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(s.dir, path)
}

// Files returns the configuration's own file and every file that it names, in
// the order of their first use: what a reload has to watch.
func (c *Config) Files() []string {
	return append([]string{c.source.file}, c.source.files...)
}

// Problem returns what is wrong with a key in the form that [Load] reports,
// with the key's place in the file: for what only shows when the
// configuration is used, such as a key file that holds no key. Where the file
// doesn't have the key, the place is that of the nearest one around it. Keys
// are written as in messages: tokens.signing_keys[0].file, and a name with a
// dot in it as in policies["a.b"].mode.
func (c *Config) Problem(key, format string, args ...any) Problem {
	return c.source.problem(key, fmt.Sprintf(format, args...))
}

// Place returns where the file has a key: file:line:column.
func (c *Config) Place(key string) string {
	p := c.source.problem(key, "")
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// PolicyNames returns the names of the policies as they stand in the file.
func (c *Config) PolicyNames() []string { return slices.Clone(c.source.order["policies"]) }

// RateLimitNames returns the names of the rate limits as they stand in the
// file.
func (c *Config) RateLimitNames() []string { return slices.Clone(c.source.order["rate_limits"]) }

// ProviderNames returns the names of the OIDC providers as they stand in the
// file.
func (c *Config) ProviderNames() []string { return slices.Clone(c.source.order["oidc.providers"]) }

// Server has the listeners.
type Server struct {
	Check CheckServer   `yaml:"check" doc:"Envoy's external authorization (gRPC), with gRPC health and reflection."`
	HTTP  HTTPServer    `yaml:"http" doc:"Auth API, JWKS, console and forward-auth."`
	Ops   OpsServer     `yaml:"ops" doc:"Metrics and health. Keep it out of the gateway's reach."`
	Drain time.Duration `yaml:"drain" default:"20s" doc:"After SIGTERM it is not ready any more and goes on answering for so long, until every gateway has noticed; then it closes connections and stops."`
}

// CheckServer is the listener that Envoy asks.
type CheckServer struct {
	Listen Address `yaml:"listen" format:"listen" default:"127.0.0.1:9001" doc:"host:port, or unix:///path/to.sock."`
	TLS    TLS     `yaml:"tls" doc:"Serve TLS; with client_ca_file, mutual TLS."`
	// MaxConnectionAge is asked of grpc, which adds a tenth either way.
	MaxConnectionAge time.Duration `yaml:"max_connection_age" default:"10m" min:"1s" max:"24h" doc:"A connection is closed in order after so long, give or take a tenth, so that gateways spread over replicas that came later. Calls in flight are answered."`
	MaxConcurrent    int           `yaml:"max_concurrent" default:"4096" min:"1" max:"1000000" doc:"How many checks may be under way that memory could not answer: most of them wait for Redis or an issuer, and hold up to 30 KiB each. More are refused at once, with 503; what memory answers is not counted."`
}

// HTTPServer is the listener of the auth API.
type HTTPServer struct {
	Listen      Address `yaml:"listen" format:"listen" default:"127.0.0.1:8081" doc:"host:port, or unix:///path/to.sock."`
	TLS         TLS     `yaml:"tls" doc:"Serve TLS; with client_ca_file, mutual TLS."`
	PublicURL   string  `yaml:"public_url" format:"origin" doc:"Scheme and host under which browsers reach the gateway."`
	TrustedHops int     `yaml:"trusted_hops" default:"0" min:"0" max:"64" doc:"How many proxies in front append to X-Forwarded-For; the client's address is that many entries from the right. 0 takes the peer's address."`

	MaxConcurrent int `yaml:"max_concurrent" default:"4096" min:"1" max:"1000000" doc:"How many requests may be under way: of forward-auth, and as many of the auth API, which count when all of them has come. More are refused at once, with 503; documents, such as public keys, are not counted."`
}

// OpsServer is the operators' listener.
type OpsServer struct {
	Listen Address `yaml:"listen" format:"listen" default:"127.0.0.1:9090" doc:"host:port, or unix:///path/to.sock."`
}

// TLS is the server side of TLS. [Load] makes sure that certificate and key
// are given together, and that the files can be read.
type TLS struct {
	CertFile     File `yaml:"cert_file" doc:"PEM file with the certificate and its chain."`
	KeyFile      File `yaml:"key_file" doc:"PEM file with the private key."`
	ClientCAFile File `yaml:"client_ca_file" doc:"PEM file with the authorities of client certificates, which are then required."`
}

// Enabled reports whether the listener serves TLS.
func (t TLS) Enabled() bool { return t.CertFile != "" }

// Address is where a listener listens: host:port or unix:///path.
type Address string

// Network splits the address into the arguments of [net.Listen]: "tcp" and
// host:port, or "unix" and the path.
func (a Address) Network() (network, address string) {
	if path, ok := strings.CutPrefix(string(a), unixScheme); ok {
		return "unix", path
	}
	return "tcp", string(a)
}

const unixScheme = "unix://"

// File is the path of a file. In the configuration it is relative to the
// configuration's directory; [Load] resolves it, and makes sure that the file
// is there and can be read. "" is no file.
type File string

// Redis says where the store is and how to reach it.
type Redis struct {
	URL             SecretURL     `yaml:"url" format:"redis_url" default:"redis://127.0.0.1:6379/0" doc:"redis://[user:password@]host:port/db; redis+sentinel://host,host/master/db; redis+cluster://host,host; each with rediss for TLS; unix:///path/to.sock?db=0; embedded:// keeps everything in this process, for a demo only."`
	Username        string        `yaml:"username" format:"redis_user" doc:"The ACL user, instead of one in the URL."`
	PasswordFile    File          `yaml:"password_file" doc:"File with the password, instead of one in the URL. A new one is used for new connections, without a restart and without losing the cache."`
	Sentinel        Sentinel      `yaml:"sentinel" doc:"For redis+sentinel: how we log in at the Sentinels, which have users of their own."`
	TLS             RedisTLS      `yaml:"tls" doc:"For the rediss schemes: whom to trust, and the client's own certificate. For the Sentinels, too."`
	Timeout         time.Duration `yaml:"timeout" default:"100ms" min:"1ms" doc:"Deadline of one operation on the path of a request."`
	ConfirmReplicas int           `yaml:"confirm_replicas" default:"0" min:"0" max:"64" doc:"Replicas that must hold a revocation before it is acknowledged. So that no failover undoes it: all that a master has."`
	Cache           Cache         `yaml:"cache" doc:"The cache in the process, which Redis keeps coherent."`

	// Password is what PasswordFile holds; zero when there is none, or when
	// it is in the URL.
	Password Secret `yaml:"-"`
}

// Sentinel is the login at the Sentinels.
type Sentinel struct {
	Username     string `yaml:"username" format:"redis_user" doc:"The ACL user of the Sentinels; without it their user default."`
	Password     Secret `yaml:"password" doc:"The password of the Sentinels."`
	PasswordFile File   `yaml:"password_file" doc:"File with it, instead. A new one is used for new connections, without a restart."`
}

// RedisTLS is the client side of TLS towards Redis.
type RedisTLS struct {
	CAFile     File   `yaml:"ca_file" doc:"PEM file with the authorities of the servers' certificates; without it the system's."`
	CertFile   File   `yaml:"cert_file" doc:"PEM file with the client's certificate. It is read again for new connections."`
	KeyFile    File   `yaml:"key_file" doc:"PEM file with the client's private key."`
	ServerName string `yaml:"server_name" format:"host_name" doc:"What the servers' certificates are for, where that is not the host connected to: nodes of a Cluster and masters behind Sentinel are often known by address only."`
}

// Cache bounds the coherent cache.
type Cache struct {
	Enabled    bool          `yaml:"enabled" default:"true" doc:"false asks Redis for every request."`
	MaxEntries int           `yaml:"max_entries" default:"200000" min:"1" max:"100000000" doc:"Sessions, each with its user, kept at most."`
	Heartbeat  time.Duration `yaml:"heartbeat" default:"500ms" min:"10ms" max:"1m" doc:"How often the invalidation channel must prove that it lives. It bounds how stale an answer can be while the network is split."`
}

// Sessions describes cookie and records of sessions.
type Sessions struct {
	Cookie         Cookie        `yaml:"cookie" doc:"The session cookie."`
	Secrets        []Secret      `yaml:"secrets" doc:"Keys that sign the cookie, at least 16 bytes each. The first signs, all verify."`
	SecretsFile    File          `yaml:"secrets_file" doc:"File with such keys, one per line; they come after those of secrets."`
	Prefix         string        `yaml:"prefix" format:"redis_prefix" default:"'sess:'" doc:"What the Redis keys of session records begin with."`
	TTL            time.Duration `yaml:"ttl" default:"24h" min:"1s" max:"9600h" doc:"Life of a session, or of its last renewal."`
	Rolling        bool          `yaml:"rolling" default:"true" doc:"Use renews a session."`
	TouchInterval  time.Duration `yaml:"touch_interval" default:"1m" min:"1ms" doc:"A session is renewed at most once per interval. Where it isn't given and ttl is a minute or less, a tenth of ttl."`
	TrustedOrigins []string      `yaml:"trusted_origins" format:"origin" unique:"true" doc:"Origins beside public_url that may send state-changing requests with the cookie."`
	Fields         SessionFields `yaml:"fields" doc:"Names of the fields of a session record."`
}

// Cookie describes the session cookie.
type Cookie struct {
	Name     string   `yaml:"name" format:"cookie_name" default:"sessionId" doc:"Name of the cookie."`
	Secure   bool     `yaml:"secure" default:"true" doc:"Browsers send it over TLS only. false is for development."`
	SameSite SameSite `yaml:"same_site" enum:"strict,lax,none" default:"strict" doc:"On which cross-site requests browsers send it."`
}

// SameSite is the SameSite attribute of a cookie.
type SameSite string

// The values of [Cookie.SameSite].
const (
	SameSiteStrict SameSite = "strict"
	SameSiteLax    SameSite = "lax"
	SameSiteNone   SameSite = "none"
)

// HTTP returns the attribute as net/http has it.
func (s SameSite) HTTP() http.SameSite {
	switch s {
	case SameSiteNone:
		return http.SameSiteNoneMode
	case SameSiteLax:
		return http.SameSiteLaxMode
	case SameSiteStrict:
	}
	return http.SameSiteStrictMode
}

// SessionFields names the fields of a session record.
type SessionFields struct {
	UserID        string `yaml:"user_id" format:"field" default:"userId" doc:"The user's id."`
	Email         string `yaml:"email" format:"field" default:"email" doc:"The user's email address."`
	Roles         string `yaml:"roles" format:"field" default:"roles" doc:"The user's roles, a list."`
	OrgID         string `yaml:"org_id" format:"field" default:"organizationId" doc:"The organization that the user works in."`
	Organizations string `yaml:"organizations" format:"field" default:"organizations" doc:"Organizations that the user may switch to."`
	AuthTime      string `yaml:"auth_time" format:"field" default:"authTime" doc:"When the user authenticated, in Unix seconds."`
}

// Tokens describes the tokens that Gatehouse issues.
type Tokens struct {
	Issuer       string        `yaml:"issuer" format:"issuer" doc:"The iss claim; where it isn't given, server.http.public_url."`
	Audiences    []string      `yaml:"audiences" unique:"true" doc:"The aud claim; where it isn't given, the issuer."`
	SigningKeys  []SigningKey  `yaml:"signing_keys" doc:"The first signs, all are published and verify."`
	AccessTTL    time.Duration `yaml:"access_ttl" default:"15m" min:"1s" doc:"Life of an access token; less than refresh_ttl. The gate takes it for 30s more, since clocks differ."`
	RefreshTTL   time.Duration `yaml:"refresh_ttl" default:"168h" min:"1s" doc:"Life of a refresh token, renewed with each rotation."`
	RefreshGrace time.Duration `yaml:"refresh_grace" default:"10s" doc:"For so long after its first use a refresh token gets the same successor again; later it revokes its family. Less than refresh_ttl."`
}

// SigningKey is one key pair.
type SigningKey struct {
	File File `yaml:"file" required:"true" doc:"PEM file with the private key."`
}

// Issuer is an outside issuer of tokens. Exactly one of JWKSURL, Discovery,
// JWKSFile and PublicKeyFile is given.
type Issuer struct {
	Issuer        string        `yaml:"issuer" format:"issuer" required:"true" doc:"The iss claim, exactly."`
	JWKSURL       string        `yaml:"jwks_url" format:"url" doc:"Where its keys are."`
	Discovery     bool          `yaml:"discovery" default:"false" doc:"Find its keys by OpenID Connect discovery below the issuer's URL."`
	JWKSFile      File          `yaml:"jwks_file" doc:"File with its keys as a JWK set."`
	PublicKeyFile File          `yaml:"public_key_file" doc:"PEM file with its one public key."`
	Audiences     []string      `yaml:"audiences" unique:"true" nonempty:"true" doc:"One of these must be in the aud claim."`
	Algorithms    []string      `yaml:"algorithms" enum:"RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,ES512,EdDSA" default:"[RS256]" unique:"true" nonempty:"true" doc:"Signature algorithms that are accepted."`
	Types         []string      `yaml:"types" unique:"true" nonempty:"true" doc:"Values of the typ header that are accepted, instead of none, JWT and at+jwt."`
	Leeway        time.Duration `yaml:"leeway" default:"30s" max:"5m" doc:"How far the issuer's clock may be off."`
	Claims        Claims        `yaml:"claims" doc:"Where the identity is in the claims: names, or dotted paths such as realm_access.roles."`
	UserIDPrefix  string        `yaml:"user_id_prefix" format:"prefix" doc:"Stands before the id that the issuer gives, as in partner:. Without it the issuer speaks for every id: that of another issuer's user, or of one of your own."`
}

// Claims maps claims to the identity.
type Claims struct {
	UserID string `yaml:"user_id" format:"claim" default:"sub" doc:"The user's id."`
	Email  string `yaml:"email" format:"claim" default:"email" doc:"The user's email address."`
	Roles  string `yaml:"roles" format:"claim" default:"roles" doc:"The user's roles, a list."`
	OrgID  string `yaml:"org_id" format:"claim" default:"org_id" doc:"The user's organization."`
}

// Identity says how services learn who is calling.
type Identity struct {
	Headers          IdentityHeaders `yaml:"headers" doc:"Names of the identity headers. Client-sent ones of these names never get through."`
	Profiles         bool            `yaml:"profiles" default:"true" doc:"What user:<id> in Redis says wins over a token's claims."`
	StripCredentials bool            `yaml:"strip_credentials" default:"false" doc:"Services don't see the credential that was checked; other cookies stay."`
	MaxHeaderBytes   int             `yaml:"max_header_bytes" default:"8192" min:"1" max:"1048576" doc:"Names and values of the identity headers, and of a policy's headers and metadata, together; beyond it the request is denied."`
	Assertion        IdentityKeys    `yaml:"assertion" doc:"What signs the identity for services whose policy says assertion; nothing without signing keys."`
}

// IdentityKeys says how the identity is signed.
type IdentityKeys struct {
	Issuer      string        `yaml:"issuer" format:"issuer" doc:"The iss claim; where it isn't given, tokens.issuer, or else server.http.public_url."`
	SigningKeys []SigningKey  `yaml:"signing_keys" doc:"Keys for ES256, none of which signs access tokens. The first signs, all are published."`
	TTL         time.Duration `yaml:"ttl" default:"1m" min:"10s" max:"5m" doc:"How long an assertion is good for; a new one is made when half of that is over."`
}

// IdentityHeaders names the identity headers, in lower case.
type IdentityHeaders struct {
	UserID string `yaml:"user_id" format:"header" default:"x-user-id" doc:"The user's id."`
	Email  string `yaml:"email" format:"header" default:"x-user-email" doc:"The user's email address."`
	Roles  string `yaml:"roles" format:"header" default:"x-user-roles" doc:"The user's roles, a JSON array."`
	OrgID  string `yaml:"org_id" format:"header" default:"x-org-id" doc:"The user's organization."`
}

// Authz returns the names as package authz has them.
func (h IdentityHeaders) Authz() authz.IdentityHeaders {
	return authz.IdentityHeaders{ID: h.UserID, Email: h.Email, Roles: h.Roles, Organization: h.OrgID}
}

// Policy says which credentials a route accepts and what it asks of the
// caller.
type Policy struct {
	Credentials       []authz.Kind    `yaml:"credentials" enum:"session,bearer,api_key" unique:"true" doc:"Kinds of credential that are accepted. The first kind that a request has decides."`
	Anonymous         bool            `yaml:"anonymous" default:"false" doc:"Let requests without a valid credential through, with no identity."`
	Roles             Roles           `yaml:"roles" doc:"Roles that the caller must have."`
	Organizations     []string        `yaml:"organizations" unique:"true" nonempty:"true" doc:"The caller must work in one of these."`
	Condition         string          `yaml:"condition" doc:"A CEL expression over request, identity, claims and session that must be true."`
	Issuers           []string        `yaml:"issuers" unique:"true" nonempty:"true" doc:"A token must come from one of these; without it, from any that is configured."`
	Audiences         []string        `yaml:"audiences" unique:"true" nonempty:"true" doc:"A token must be for one of these."`
	Freshness         authz.Freshness `yaml:"freshness" enum:"cached,strict" default:"cached" doc:"strict asks Redis for every request."`
	MaxAuthAge        time.Duration   `yaml:"max_auth_age" min:"1ms" doc:"The caller must have authenticated no longer ago."`
	IdleTimeout       time.Duration   `yaml:"idle_timeout" min:"1ms" doc:"A session that was not used for so long ends."`
	CSRF              bool            `yaml:"csrf" default:"true" doc:"Refuse state-changing requests of other sites that carry the session cookie."`
	OnUnauthenticated Unauthenticated `yaml:"on_unauthenticated" enum:"json,redirect" default:"json" doc:"redirect sends a browser's navigation to login_url; anything else always gets the JSON answer."`
	LoginURL          string          `yaml:"login_url" format:"local_url" doc:"The login page, a path of the same origin."`
	OnStoreOutage     authz.Outage    `yaml:"on_store_outage" enum:"deny,serve_stale,accept_bearer" default:"deny" doc:"While Redis is out of reach: deny answers 503; serve_stale takes cached sessions for stale_for; accept_bearer takes valid tokens without knowing whether they were revoked."`
	StaleFor          time.Duration   `yaml:"stale_for" min:"1ms" doc:"How old an answer may be under serve_stale."`
	RateLimit         string          `yaml:"rate_limit" doc:"Name of an entry of rate_limits."`
	Headers           Attributes      `yaml:"headers" keys:"header" format:"attribute" doc:"Further headers for the service, by name: each is a claim of the token, a field of the session's record or of the identity, such as claims.plan, session.tenant.id or identity.kind. Client-sent ones of these names never get through, whatever the policy."`
	Metadata          Attributes      `yaml:"metadata" keys:"metadata" format:"attribute" doc:"Further fields of Envoy's dynamic metadata, by name, from the same sources. All are text."`
	Assertion         Assertion       `yaml:"assertion" doc:"Have the identity signed for the service, in x-identity-assertion."`
	Mode              Mode            `yaml:"mode" enum:"enforce,observe" default:"enforce" doc:"observe lets everything through; what it would deny is logged and counted."`
}

// Assertion says for which service a policy has the identity signed.
type Assertion struct {
	Audience  string `yaml:"audience" format:"audience" doc:"The service, by the name that it expects in the aud claim."`
	FromRoute bool   `yaml:"from_route" default:"false" doc:"The gateway's route names the service, in the context extension assertion_audience; where it names none, audience, or else the request is denied."`
}

// Attributes are what a policy tells of the caller, by the names under which it
// does. [authz.ParseAttribute] reads the values.
type Attributes map[string]string

// Roles asks for roles.
type Roles struct {
	Any []string `yaml:"any" unique:"true" nonempty:"true" doc:"At least one of these."`
	All []string `yaml:"all" unique:"true" nonempty:"true" doc:"Every one of these."`
}

// Unauthenticated says what a browser without a valid credential gets.
type Unauthenticated string

// The values of [Policy.OnUnauthenticated].
const (
	UnauthenticatedJSON     Unauthenticated = "json"
	UnauthenticatedRedirect Unauthenticated = "redirect"
)

// Mode says whether a policy's refusals count.
type Mode string

// The values of [Policy.Mode].
const (
	ModeEnforce Mode = "enforce"
	ModeObserve Mode = "observe"
)

// Route leads requests to a policy. What it leaves out matches everything.
type Route struct {
	Host    string   `yaml:"host" format:"host" doc:"Host name, or *.example.com for every name below; without port."`
	Path    string   `yaml:"path" format:"route_path" doc:"Exact path, or a prefix that ends in *; /admin/* covers /admin too."`
	Methods []string `yaml:"methods" format:"method" nonempty:"true" doc:"HTTP methods."`
	Policy  string   `yaml:"policy" required:"true" doc:"Name of an entry of policies."`
}

// RateLimit is a limit of requests.
type RateLimit struct {
	By       LimitBy       `yaml:"by" enum:"user,session,org,api_key,address" default:"address" doc:"What is counted; requests without such a value count by address. The address is the one that Envoy reports as the source; of IPv6 it is the /64."`
	Limit    int           `yaml:"limit" required:"true" min:"1" max:"1000000000" doc:"Requests per time span."`
	Per      time.Duration `yaml:"per" required:"true" min:"1ms" doc:"The time span."`
	Burst    int           `yaml:"burst" min:"1" max:"1000000000" doc:"Requests at once at most; limit where it isn't given."`
	OnOutage OnOutage      `yaml:"on_outage" enum:"allow,deny" default:"deny" doc:"While the store of the counters is out of reach: deny answers 503, allow lets requests pass uncounted."`
}

// LimitBy says what a rate limit counts.
type LimitBy string

// The values of [RateLimit.By].
const (
	ByUser         LimitBy = "user"
	BySession      LimitBy = "session"
	ByOrganization LimitBy = "org"
	ByAPIKey       LimitBy = "api_key"
	ByAddress      LimitBy = "address"
)

// OnOutage says what a rate limit does without its store.
type OnOutage string

// The values of [RateLimit.OnOutage].
const (
	OnOutageAllow OnOutage = "allow"
	OnOutageDeny  OnOutage = "deny"
)

// Users is the user store.
type Users struct {
	File File `yaml:"file" doc:"YAML file with users, their password hashes, roles and organizations."`
}

// APIKey is one key of an internal caller.
type APIKey struct {
	Name     string    `yaml:"name" format:"name" required:"true" doc:"Name of the caller; services see service:<name> as the user's id."`
	SHA256   string    `yaml:"sha256" format:"sha256" required:"true" doc:"SHA-256 of the key, in hexadecimal digits."`
	Policies []string  `yaml:"policies" unique:"true" doc:"Policies that the key may use."`
	AuthAPI  bool      `yaml:"auth_api" default:"false" doc:"The key may call the internal part of the auth API."`
	Expires  time.Time `yaml:"expires" doc:"When the key stops working: a date, from whose midnight (UTC) on it doesn't, or an RFC 3339 time."`
}

// Hash returns the hash as bytes. It panics on an APIKey that [Load] has not
// checked.
func (k APIKey) Hash() [sha256.Size]byte {
	b, err := hex.DecodeString(k.SHA256)
	if err != nil {
		panic("config: an API key's hash that was not validated: " + err.Error())
	}
	return [sha256.Size]byte(b)
}

// OIDC has the OpenID providers.
type OIDC struct {
	Providers map[string]OIDCProvider `yaml:"providers" keys:"segment" doc:"Providers by the name that they have in /auth/oidc/{provider}/login. At the provider, register {public_url}/auth/oidc/{provider}/callback to come back to, and {public_url}/auth/oidc/{provider}/backchannel-logout."`
}

// OIDCProvider is one OpenID provider.
type OIDCProvider struct {
	Issuer           string     `yaml:"issuer" format:"url" required:"true" doc:"Issuer URL, exactly as the provider writes it; discovery finds the rest below it."`
	ClientID         string     `yaml:"client_id" required:"true" doc:"Gatehouse's id at the provider."`
	ClientSecret     Secret     `yaml:"client_secret" doc:"Gatehouse's secret at the provider; none for a public client."`
	ClientSecretFile File       `yaml:"client_secret_file" doc:"File with that secret, instead."`
	Scopes           []string   `yaml:"scopes" format:"scope" default:"[openid, profile, email]" unique:"true" nonempty:"true" doc:"What the provider is asked for; openid is one of them."`
	Claims           OIDCClaims `yaml:"claims" doc:"Where the identity is in the claims of the ID token and the userinfo endpoint: names, or dotted paths such as realm_access.roles."`
	UserIDPrefix     string     `yaml:"user_id_prefix" format:"prefix" doc:"Stands before the id that the provider gives, as in corp:. Two users of one id are one user, wherever they come from: another provider, users.file, an issuer's tokens."`
}

// OIDCClaims maps a provider's claims to the identity.
type OIDCClaims struct {
	UserID        string `yaml:"user_id" format:"claim" default:"sub" doc:"The user's id. Take one that no user can choose."`
	Email         string `yaml:"email" format:"claim" default:"email" doc:"The user's email address; left out where email_verified is false."`
	Roles         string `yaml:"roles" format:"claim" default:"roles" doc:"The user's roles, a list."`
	OrgID         string `yaml:"org_id" format:"claim" default:"org_id" doc:"The organization that the user works in; where there is none, the first of organizations."`
	Organizations string `yaml:"organizations" format:"claim" default:"organizations" doc:"Organizations that the user may switch to, a list."`
}

// Log says what is logged.
type Log struct {
	Level         LogLevel  `yaml:"level" enum:"debug,info,warn,error" default:"info" doc:"The least level that is logged."`
	Format        LogFormat `yaml:"format" enum:"json,text" default:"json" doc:"json, one object per line, or text for people."`
	SampleAllowed Ratio     `yaml:"sample_allowed" default:"0" doc:"The share of allowed requests that have a line at level info, from 0 to 1; who is refused always has one. The request's id decides, as in Envoy's runtime filter."`
}

// Ratio is a share, from 0 for none to 1 for all.
type Ratio float64

// Audit says where the audit log goes.
type Audit struct {
	// File is a resolved path, [AuditStdout] or [AuditStderr]; "" is the log.
	File      string         `yaml:"file" format:"auditfile" doc:"A file, which is made with mode 0600 and opened again on SIGHUP, or stdout, or stderr. Without it the lines go to the log, whatever its level."`
	OnFailure AuditOnFailure `yaml:"on_failure" enum:"continue,refuse" default:"continue" doc:"When a line can't be written, because the disk is full for instance: continue makes the change, and tells in the log and a metric; refuse answers 503 before the change is made."`
}

// The words that [Audit.File] takes.
const (
	AuditStdout = "stdout"
	AuditStderr = "stderr"
)

// AuditOnFailure says what becomes of a change that can't be written down.
type AuditOnFailure string

// The values of [Audit.OnFailure].
const (
	AuditContinue AuditOnFailure = "continue"
	AuditRefuse   AuditOnFailure = "refuse"
)

// LogLevel is the least level that is logged.
type LogLevel string

// The values of [Log.Level].
const (
	LevelDebug LogLevel = "debug"
	LevelInfo  LogLevel = "info"
	LevelWarn  LogLevel = "warn"
	LevelError LogLevel = "error"
)

// Slog returns the level as log/slog has it.
func (l LogLevel) Slog() slog.Level {
	switch l {
	case LevelDebug:
		return slog.LevelDebug
	case LevelWarn:
		return slog.LevelWarn
	case LevelError:
		return slog.LevelError
	case LevelInfo:
	}
	return slog.LevelInfo
}

// LogFormat is the form of a log line.
type LogFormat string

// The values of [Log.Format].
const (
	LogJSON LogFormat = "json"
	LogText LogFormat = "text"
)
