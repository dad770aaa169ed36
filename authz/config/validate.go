package config

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// validator checks what decoded values mean together, and completes the
// Config. It leaves alone what was not decoded.
type validator struct {
	*decoder
	c        *Config
	warnings []Problem
}

func (v *validator) config() {
	if v.broken[""] {
		return
	}
	v.server()
	v.redis()
	v.sessions()
	v.tokens()
	v.issuers()
	v.identity()
	v.policies()
	v.routes()
	v.rateLimits()
	v.apiKeys()
	v.users()
	v.oidc()
	v.audit()
	v.tracing()
}

// given reports whether the file has a value for key.
func (v *validator) given(key string) bool {
	_, ok := v.source.places[key]
	return ok
}

// firstGiven returns the first of the keys that the file has, else the first.
func (v *validator) firstGiven(keys ...string) string {
	if i := slices.IndexFunc(keys, v.given); i >= 0 {
		return keys[i]
	}
	return keys[0]
}

// raw returns what the file has for key, as it stands there.
func (v *validator) raw(key string) string { return quote(v.source.places[key].raw) }

func (v *validator) line(key string) int { return v.source.at(key).line }

func (v *validator) warn(key, format string, args ...any) {
	v.warnings = append(v.warnings, v.source.problem(key, fmt.Sprintf(format, args...)))
}

// intactAll reports whether all of the keys are intact.
func (v *validator) intactAll(keys ...string) bool {
	return !slices.ContainsFunc(keys, func(k string) bool { return !v.intact(k) })
}

// refersToPolicy checks that the name that key has is that of a policy.
func (v *validator) refersToPolicy(key, name string) {
	if _, defined := v.c.Policies[name]; name != "" && !defined && !v.broken["policies"] {
		v.undefined(key, "policies", v.c.PolicyNames())
	}
}

// undefined refuses the name that key has, since the section has only these.
func (v *validator) undefined(key, section string, names []string) {
	const most = 10
	switch meant := didYouMean(v.source.places[key].raw, names); {
	case meant != "":
		v.refuse(key, "%s is not in %s; did you mean %s?", v.raw(key), section, meant)
	case len(names) == 0:
		v.refuse(key, "%s is not in %s, which is empty; define it there", v.raw(key), section)
	case len(names) > most:
		v.refuse(key, "%s is not in %s; define it there, or name another", v.raw(key), section)
	default:
		v.refuse(key, "%s is not in %s; define it there, or name %s", v.raw(key), section, list(names))
	}
}

// together checks that of two files that need each other neither is alone.
func (v *validator) together(key string, cert, private File) {
	switch {
	case !v.intact(key):
	case cert != "" && private == "":
		v.refuse(key, "cert_file without its key_file; give both")
	case cert == "" && private != "":
		v.refuse(key, "key_file without its cert_file; give both")
	}
}

func (v *validator) server() {
	s := v.c.Server
	listeners := []struct {
		key     string
		address Address
	}{
		{"server.check.listen", s.Check.Listen},
		{"server.http.listen", s.HTTP.Listen},
		{"server.ops.listen", s.Ops.Listen},
	}
	for i, l := range listeners {
		for _, earlier := range listeners[:i] {
			if v.intactAll(l.key, earlier.key) && collide(l.address, earlier.address) {
				v.refuse(v.firstGiven(l.key, earlier.key), "%s and %s would share an address; give each its own", earlier.key, l.key)
				break
			}
		}
	}
	v.serverTLS("server.check.tls", s.Check.TLS)
	v.serverTLS("server.http.tls", s.HTTP.TLS)
}

func (v *validator) serverTLS(key string, t TLS) {
	if v.given(key) && v.intact(key) && t.CertFile == "" && t.KeyFile == "" {
		v.refuse(key, "TLS without a certificate; give cert_file and key_file, or take tls out")
		return
	}
	v.together(key, t.CertFile, t.KeyFile)
}

// collide reports whether two listeners can't both be opened. Port 0 is a
// port of the system's choice.
func collide(a, b Address) bool {
	networkA, addressA := a.Network()
	networkB, addressB := b.Network()
	if networkA != networkB || networkA == "unix" {
		return addressA == addressB
	}
	hostA, portA, _ := cutPort(addressA)
	hostB, portB, _ := cutPort(addressB)
	return portA == portB && portA != "0" && (strings.EqualFold(hostA, hostB) || takes(hostA, hostB) || takes(hostB, hostA))
}

// takes reports whether host stands for every address that other can be: no
// host and [::] do, 0.0.0.0 does for all but IPv6 addresses.
func takes(host, other string) bool {
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "" || err == nil && addr.IsUnspecified() && (addr.Is6() || !strings.HasPrefix(other, "["))
}

func (v *validator) redis() {
	r := &v.c.Redis
	if r.PasswordFile != "" {
		r.Password = NewSecret(v.secret("redis.password_file", r.PasswordFile))
	}
	v.sentinel(&r.Sentinel)
	v.together("redis.tls", r.TLS.CertFile, r.TLS.KeyFile)
	if !v.intact("redis.url") {
		return
	}
	scheme, rest, _ := strings.Cut(r.URL.Reveal(), "://")
	if scheme == "embedded" {
		v.warn("redis.url", "the embedded store is not for production: what it holds ends with the process, and no other replica sees it; give the URL of a Redis for that")
		if r.ConfirmReplicas > 0 {
			v.refuse("redis.confirm_replicas", "embedded:// has no replicas; take this out")
		}
	}
	if n := sentinelsIn(scheme, rest); n == 1 || n == 2 {
		v.warn("redis.url", "names %d of the Sentinels: Gatehouse knows of no others when it begins, and would believe these alone when they have begun anew, cut off from the rest, and name a master that was replaced; name all of them, which should be three or five", n)
	}
	if v.given("redis.tls") && !strings.HasPrefix(scheme, "rediss") {
		with := "take this out"
		if strings.HasPrefix(scheme, "redis") {
			with = "write " + strings.Replace(scheme, "redis", "rediss", 1) + "://"
		}
		v.refuse("redis.tls", "the connection has no TLS, since redis.url begins with %s://; %s", scheme, with)
	}
	if v.given("redis.sentinel") && plainRedisScheme(scheme) != "redis+sentinel" {
		v.refuse("redis.sentinel", "redis.url begins with %s://, which has no Sentinels; take this out, or write redis+sentinel://", scheme)
	}
	var user, password string
	if userinfo, _, ok := strings.Cut(rest, "@"); ok {
		user, password, _ = strings.Cut(userinfo, ":")
	}
	if r.PasswordFile != "" && password != "" {
		v.refuse("redis.password_file", "redis.url has a password too; keep one of them")
	}
	if r.Username != "" && user != "" {
		v.refuse("redis.username", "redis.url has a user too; keep one of them")
	}
	// Without a password nobody would be told of the user, and Redis would take us
	// for its user default.
	if r.PasswordFile == "" && password == "" && (r.Username != "" || user != "") {
		v.refuse(v.firstGiven("redis.username", "redis.url"), "a user without a password; give redis.password_file (for a user with nopass any word will do)")
	}
}

// sentinelsIn counts the Sentinels that a URL names; 0 where it names none.
func sentinelsIn(scheme, rest string) int {
	if plainRedisScheme(scheme) != "redis+sentinel" {
		return 0
	}
	hosts, _, _ := strings.Cut(rest, "/")
	hosts = hosts[strings.LastIndexByte(hosts, '@')+1:]
	named := map[string]bool{}
	for host := range strings.SplitSeq(hosts, ",") {
		named[strings.TrimSuffix(host, ":26379")] = true
	}
	return len(named)
}

func (v *validator) sentinel(s *Sentinel) {
	switch {
	case !v.intact("redis.sentinel"):
	case !s.Password.IsZero() && s.PasswordFile != "":
		v.refuse("redis.sentinel.password_file", "redis.sentinel.password is there too; keep one of them")
	case s.PasswordFile != "":
		s.Password = NewSecret(v.secret("redis.sentinel.password_file", s.PasswordFile))
	case s.Username != "" && s.Password.IsZero():
		v.refuse("redis.sentinel.username", "a user without a password; give password_file or password")
	}
}

// Session secrets shorter than this can be guessed.
const shortSecret = 16

func (v *validator) sessions() {
	s := &v.c.Sessions
	for i, secret := range s.Secrets {
		v.secretLength(element("sessions.secrets", i), "", secret)
	}
	if s.SecretsFile != "" {
		v.secretsFile(s)
	}
	if v.intactAll("sessions.ttl", "sessions.touch_interval") {
		switch {
		case s.TouchInterval < s.TTL:
		case v.given("sessions.touch_interval"):
			v.warn("sessions.touch_interval", "%v is not less than sessions.ttl, %v, so sessions are renewed when half of their life is gone; give a shorter one", s.TouchInterval, s.TTL)
		default:
			s.TouchInterval = s.TTL / 10
		}
	}
	if err := (session.Options{Prefix: s.Prefix}).Validate(); err != nil && v.intact("sessions.prefix") {
		v.refuse("sessions.prefix", "not for session records: it overlaps keys that mean something else (revoked:, refresh:, user:, gatehouse:), or has braces that are no cluster hash tag; take another, such as sess:")
	}
	v.cookie(s.Cookie)
	v.distinct("sessions.fields", "field", []entry{
		{"user_id", s.Fields.UserID},
		{"email", s.Fields.Email},
		{"roles", s.Fields.Roles},
		{"org_id", s.Fields.OrgID},
		{"organizations", s.Fields.Organizations},
		{"auth_time", s.Fields.AuthTime},
	})
}

func (v *validator) secretsFile(s *Sessions) {
	const key = "sessions.secrets_file"
	var secrets []Secret
	for i, line := range strings.Split(v.secret(key, s.SecretsFile), "\n") {
		if secret := NewSecret(strings.TrimSuffix(line, "\r")); !secret.IsZero() {
			secrets = append(secrets, secret)
			v.secretLength(key, fmt.Sprintf("line %d ", i+1), secret)
		}
	}
	if len(secrets) == 0 && v.intact(key) {
		v.refuse(key, "the file has empty lines only; put the secrets in it, one per line")
		v.markBroken(key)
	}
	s.Secrets = append(s.Secrets, secrets...)
}

func (v *validator) secretLength(key, where string, s Secret) {
	if n := len(s.Reveal()); 0 < n && n < shortSecret {
		v.warn(key, "%shas only %d bytes, which can be guessed; openssl rand -base64 32 prints a good secret", where, n)
	}
}

func (v *validator) cookie(c Cookie) {
	const name, secure, sameSite = "sessions.cookie.name", "sessions.cookie.secure", "sessions.cookie.same_site"
	if !v.intact("sessions.cookie") {
		return
	}
	// Browsers compare these prefixes without case (RFC 6265bis section 5.4).
	lower := strings.ToLower(c.Name)
	prefixed := strings.HasPrefix(lower, "__host-") || strings.HasPrefix(lower, "__secure-")
	switch {
	case !c.Secure && prefixed:
		v.refuse(name, "browsers refuse a cookie of this name without secure: true; set it, or choose another name")
	case !c.Secure && c.SameSite == SameSiteNone:
		v.refuse(v.firstGiven(sameSite, secure), "browsers refuse a cookie with same_site: none without secure: true; set it, or say lax or strict")
	case !c.Secure:
		v.warn(secure, "INSECURE: browsers will send session cookies over plain HTTP, for anybody on the way to read; take this out, unless you develop on this machine alone")
	case strings.HasPrefix(v.c.Server.HTTP.PublicURL, "http://") && !loopbackURL(v.c.Server.HTTP.PublicURL):
		v.warn("server.http.public_url", "browsers never send a secure cookie to an http:// address; serve the gateway over https")
	}
	if lower == "refreshtoken" {
		v.refuse(name, "the refresh token has the cookie of this name; choose another")
	}
}

// entry is a key and its value, for messages.
type entry struct{ key, value string }

// distinct checks that no two keys of a section have the same value.
func (v *validator) distinct(section, what string, entries []entry) {
	if !v.intact(section) {
		return
	}
	for i, e := range entries {
		for _, earlier := range entries[:i] {
			if e.value == earlier.value {
				key := v.firstGiven(child(section, e.key), child(section, earlier.key))
				v.refuse(key, "%s and %s have the same %s; give each its own", earlier.key, e.key, what)
			}
		}
	}
}

// Issuing reports whether Gatehouse issues tokens.
func (t Tokens) Issuing() bool { return len(t.SigningKeys) > 0 }

func (v *validator) tokens() {
	t := &v.c.Tokens
	if v.intactAll("tokens.issuer", "tokens.signing_keys", "server.http.public_url") {
		if t.Issuing() && t.Issuer == "" {
			t.Issuer = v.c.Server.HTTP.PublicURL
		}
		switch {
		case t.Issuing() && t.Issuer == "":
			v.refuse("tokens.signing_keys", "signing keys without tokens.issuer; give it, usually the gateway's public URL")
		case !t.Issuing() && t.Issuer != "":
			v.warn("tokens.issuer", "without tokens.signing_keys no tokens are issued, and none of this issuer are accepted; give them")
		}
	}
	// A token must name an audience (RFC 9068 section 2.2). Where nobody says
	// which, it is for who issues it.
	if t.Issuing() && len(t.Audiences) == 0 && t.Issuer != "" {
		t.Audiences = []string{t.Issuer}
	}
	v.lives(*t)
	seen := map[File]int{}
	for i, k := range t.SigningKeys {
		if first, again := seen[k.File]; again && k.File != "" {
			v.refuse(element("tokens.signing_keys", i)+".file", "the same file as entry %d; keep one", first)
			continue
		}
		seen[k.File] = i
	}
}

// lives checks that what a refresh token is for lives shorter than itself.
func (v *validator) lives(t Tokens) {
	const access, refresh, grace = "tokens.access_ttl", "tokens.refresh_ttl", "tokens.refresh_grace"
	if v.intactAll(access, refresh) && t.AccessTTL >= t.RefreshTTL {
		v.refuse(v.firstGiven(access, refresh), "access tokens would live as long as the refresh token that renews them: access_ttl is %v, refresh_ttl %v; make access_ttl the shorter one", t.AccessTTL, t.RefreshTTL)
	}
	if v.intactAll(grace, refresh) && t.RefreshGrace >= t.RefreshTTL {
		v.refuse(v.firstGiven(grace, refresh), "a used refresh token would be good for all of its life: refresh_grace is %v, refresh_ttl %v; make refresh_grace some seconds", t.RefreshGrace, t.RefreshTTL)
	}
}

func (v *validator) issuers() {
	seen := map[string]string{}
	if t := v.c.Tokens.Issuer; t != "" {
		seen[t] = "tokens.issuer"
	}
	prefixes := map[string]string{} // to the first issuer that has it
	for i, issuer := range v.c.Issuers {
		key := element("issuers", i)
		if first, again := seen[issuer.Issuer]; again && issuer.Issuer != "" {
			v.refuse(key+".issuer", "the same issuer as %s on line %d; keep one", first, v.line(first))
		} else {
			seen[issuer.Issuer] = key + ".issuer"
		}
		v.issuerKeys(key, issuer)
		for j, typ := range issuer.Types {
			if assertionType(typ) {
				v.refuse(element(key+".types", j), "this is what services are shown by the gate, and no access token; take it out")
			}
		}
		if at := key + ".user_id_prefix"; seen[issuer.Issuer] == key+".issuer" && v.intact(at) {
			if first, again := prefixes[issuer.UserIDPrefix]; again {
				v.warn(v.firstGiven(at, key), "user ids have the same prefix as those of %s: each of the two speaks for the users of the other; give each its own user_id_prefix, unless both mean the same people", first)
			} else {
				prefixes[issuer.UserIDPrefix] = key
			}
		}
		if len(issuer.Audiences) == 0 && v.intact(key+".audiences") {
			v.warn(key, "no audiences: tokens that this issuer made for anybody else are accepted too (RFC 8725 section 3.9); list audiences")
		}
	}
}

// assertionType reports whether a typ is that of assertions, as typ is compared
// (RFC 7515 section 4.1.9).
func assertionType(typ string) bool {
	typ = strings.ToLower(typ)
	return strings.TrimPrefix(typ, "application/") == authz.AssertionType
}

// issuerKeys checks that an issuer's keys come from exactly one source.
func (v *validator) issuerKeys(key string, issuer Issuer) {
	var sources []string
	for _, s := range []struct {
		key   string
		given bool
	}{
		{"jwks_url", issuer.JWKSURL != ""},
		{"discovery", issuer.Discovery},
		{"jwks_file", issuer.JWKSFile != ""},
		{"public_key_file", issuer.PublicKeyFile != ""},
	} {
		if !v.intact(child(key, s.key)) {
			return
		}
		if s.given {
			sources = append(sources, s.key)
		}
	}
	switch {
	case len(sources) == 0:
		v.refuse(key, "no keys; give one of jwks_url, discovery: true, jwks_file and public_key_file")
		return
	case len(sources) > 1:
		v.refuse(child(key, sources[1]), "the keys come from %s already; keep one", sources[0])
		return
	}
	switch {
	case issuer.JWKSURL != "":
		v.plainHTTP(key+".jwks_url", issuer.JWKSURL)
	case issuer.Discovery && v.intact(key+".issuer"):
		if _, err := webURL(issuer.Issuer); err != nil || strings.Contains(issuer.Issuer, "?") {
			v.refuse(key+".discovery", "discovery needs an issuer that is an https:// URL without query; give jwks_url instead")
			return
		}
		v.plainHTTP(key+".issuer", issuer.Issuer)
	}
}

// plainHTTP warns of keys that are fetched without TLS from another machine.
func (v *validator) plainHTTP(key, text string) {
	if u, err := url.Parse(text); err == nil && u.Scheme == "http" && !loopbackURL(text) { // in any case
		v.warn(key, "fetched over plain http: whoever sits in between can sign tokens; use https")
	}
}

func loopbackURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	host := strings.ToLower(u.Hostname())
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host).IsLoopback()
}

func (v *validator) identity() {
	h := v.c.Identity.Headers
	v.distinct("identity.headers", "name", []entry{
		{"user_id", h.UserID}, {"email", h.Email}, {"roles", h.Roles}, {"org_id", h.OrgID},
	})
	v.assertion()
}

// Asserting reports whether the identity can be signed.
func (i Identity) Asserting() bool { return len(i.Assertion.SigningKeys) > 0 }

// assertion checks what signs the identity.
func (v *validator) assertion() {
	const keys = "identity.assertion.signing_keys"
	a := &v.c.Identity.Assertion
	if !v.intact(keys) || !v.c.Identity.Asserting() {
		return
	}
	if v.intactAll("identity.assertion.issuer", "tokens.issuer", "server.http.public_url") {
		a.Issuer = cmp.Or(a.Issuer, v.c.Tokens.Issuer, v.c.Server.HTTP.PublicURL)
		if a.Issuer == "" {
			v.refuse(keys, "signing keys without identity.assertion.issuer; give it, usually the gateway's public URL")
		}
	}
	seen := map[File]string{}
	for i, k := range v.c.Tokens.SigningKeys {
		seen[k.File] = element("tokens.signing_keys", i)
	}
	for i, k := range a.SigningKeys {
		key := element(keys, i)
		if first, again := seen[k.File]; again && k.File != "" {
			v.refuse(key+".file", "the same file as %s; give assertions keys of their own, each once, which 'gatehouse keys new --for assertion' makes", first)
			continue
		}
		seen[k.File] = key
	}
	if v.intact("policies") && !slices.ContainsFunc(slices.Collect(maps.Values(v.c.Policies)), Policy.asserts) {
		v.warn(keys, "no policy has the identity signed; give one assertion: {audience: NAME}, or take this out")
	}
}

// asserts reports whether the policy has the identity signed.
func (p Policy) asserts() bool { return p.Assertion != Assertion{} }

func (v *validator) rateLimits() {
	for name, limit := range v.c.RateLimits {
		if limit.Burst == 0 && v.intact(named("rate_limits", name)) {
			limit.Burst = limit.Limit
			v.c.RateLimits[name] = limit
		}
	}
}

func (v *validator) apiKeys() {
	seen := map[string]int{}
	for i, k := range v.c.APIKeys {
		key := element("api_keys", i)
		if first, again := seen[k.SHA256]; again && k.SHA256 != "" {
			v.refuse(key+".sha256", "the same key as entry %d; keep one", first)
		} else {
			seen[k.SHA256] = i
		}
		for j, name := range k.Policies {
			at := element(key+".policies", j)
			v.refersToPolicy(at, name)
			p, known := v.c.Policies[name]
			if known && v.intact(named("policies", name)+".credentials") && !slices.Contains(p.Credentials, authz.KindAPIKey) {
				v.warn(at, "policy %s takes no api_key, so this has no effect; add the kind to its credentials, or take this out", name)
			}
		}
		if len(k.Policies) == 0 && !k.AuthAPI && v.intact(key) {
			v.warn(key, "this key opens nothing; give it policies or auth_api: true")
		}
	}
}

// users checks that logging in with a password can come to something, and
// that guessing is counted per client.
func (v *validator) users() {
	const key = "users.file"
	if v.c.Users.File == "" || !v.intact(key) {
		return
	}
	if len(v.c.Sessions.Secrets) == 0 && !v.c.Tokens.Issuing() &&
		v.intactAll("sessions.secrets", "sessions.secrets_file", "tokens.signing_keys") {
		v.warn(key, "nobody can log in, since there is nothing to get for a password; give sessions.secrets for sessions, tokens.signing_keys for tokens, or both")
	}
	const hops = "server.http.trusted_hops"
	if v.c.Server.HTTP.TrustedHops == 0 && v.intact(hops) {
		v.warn(v.firstGiven(hops, key), "wrong passwords are counted by the address of the peer, which is the gateway's for everybody behind it: a guesser would slow down all; set server.http.trusted_hops to the number of proxies in front, which is 1 for Envoy alone")
	}
}

func (v *validator) oidc() {
	if len(v.c.OIDC.Providers) == 0 {
		return
	}
	const key = "oidc.providers"
	if v.c.Server.HTTP.PublicURL == "" && v.intact("server.http.public_url") {
		v.refuse(key, "providers send the browser back to server.http.public_url, which is not given; give it, as in https://gateway.example.com")
	}
	if len(v.c.Sessions.Secrets) == 0 && v.intactAll("sessions.secrets", "sessions.secrets_file") {
		v.refuse(key, "these logins end in a session, which can't be made without sessions.secrets; give them, or sessions.secrets_file")
	}
	prefixes := map[string]string{} // to the first provider that has it
	for _, name := range v.c.ProviderNames() {
		v.provider(name)
		prefix := v.c.OIDC.Providers[name].UserIDPrefix
		at := named(key, name)
		if !v.intact(at + ".user_id_prefix") {
			continue
		}
		if first, again := prefixes[prefix]; again {
			v.warn(v.firstGiven(at+".user_id_prefix", at), "user ids have the same prefix as those of provider %s: alice of one is alice of the other, with all that is hers; give each its own user_id_prefix, unless both mean the same people", first)
			continue
		}
		prefixes[prefix] = name
	}
}

func (v *validator) provider(name string) {
	key := named("oidc.providers", name)
	p := v.c.OIDC.Providers[name]
	if p.ClientSecretFile != "" {
		if v.given(key + ".client_secret") {
			v.refuse(key+".client_secret_file", "there is a client_secret too; keep one of them")
		}
		p.ClientSecret = NewSecret(v.secret(key+".client_secret_file", p.ClientSecretFile))
		v.c.OIDC.Providers[name] = p
	}
	v.plainHTTP(key+".issuer", p.Issuer)
	if at := key + ".issuer"; v.intact(at) && strings.Contains(p.Issuer, "?") {
		v.refuse(at, "discovery needs an issuer without query; write the issuer as the provider names itself")
	}
	if at := key + ".scopes"; v.intact(at) && !slices.Contains(p.Scopes, "openid") {
		v.refuse(at, "without the scope openid there is no ID token, so nobody can log in; add openid")
	}
}

// audit resolves the file, and refuses a strictness that can't be had.
func (v *validator) audit() {
	a := &v.c.Audit
	if !v.intactAll("audit.file", "audit.on_failure") {
		return
	}
	if a.OnFailure == AuditRefuse && a.File == "" {
		v.refuse("audit.on_failure", "refuse is about audit.file, and there is none; name a file, or leave this out")
	}
	if a.File != "" && a.File != AuditStdout && a.File != AuditStderr {
		a.File = v.source.path(a.File)
	}
}
