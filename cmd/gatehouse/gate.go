package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/condition"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/limit"
	"github.com/gatehouse-auth/gatehouse/authz/oidc"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/authz/users"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
	"github.com/gatehouse-auth/gatehouse/internal/tracing/traced"
)

// gate is everything that decides, built from one configuration. It listens
// nowhere.
type gate struct {
	authorizer *authz.Authorizer
	client     redis.UniversalClient
	store      *session.Store
	signer     *session.Signer // nil: there are no session secrets
	apiKeys    *authz.APIKeys
	own        *token.Issuer     // nil: we issue no tokens
	assertions *token.Assertions // nil: we sign no identities
	verifier   *token.Verifier
	remoteKeys []namedKeys
	jwks       []byte // our public keys, as JSON
	warnings   []string
	warm
}

// warm are the parts of a gate that the next one takes over where their keys in the
// configuration, and the files that these name, stay the same. The zero value has
// none.
type warm struct {
	parts     parts // all of them, in the order in which they were taken
	clients   *part[*storeClient]
	stores    *part[*session.Store]
	tokens    *part[tokens]
	signs     *part[*token.Assertions]
	fetched   map[keySource]*part[*token.RemoteKeys]
	users     *part[*users.File] // nil: there is no user store
	providers map[string]*part[*oidc.Provider]
}

// namedKeys are an issuer's keys that are fetched.
type namedKeys struct {
	issuer string
	keys   *token.RemoteKeys
}

// newGate builds the parts from top to bottom. From those of the gate before it
// takes what it can; files are the contents by which it knows. It reads keys from
// files, and asks neither Redis nor an issuer.
func newGate(cfg *config.Config, files contents, before warm, in instruments) (_ *gate, err error) {
	g := &gate{}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	if err := g.takeStore(cfg, files, before, in.log); err != nil {
		return nil, err
	}
	policies, err := policySet(cfg)
	if err != nil {
		return nil, err
	}
	g.apiKeys = authz.NewAPIKeys(apiKeys(cfg), nil)
	if g.signer, err = newSigner(cfg); err != nil {
		return nil, err
	}
	var cookies authz.CookieVerifier = noCookies{}
	if g.signer != nil {
		cookies = g.signer
	}
	if err := g.takeTokens(cfg, files, before); err != nil {
		return nil, err
	}
	if err := g.takeAssertions(cfg, files, before); err != nil {
		return nil, err
	}
	if err := g.takeUsers(cfg, files, before); err != nil {
		return nil, err
	}
	if err := g.takeProviders(cfg, before); err != nil {
		return nil, err
	}
	if in.store != nil {
		redisguard.Of(g.client).Record(func(c redisguard.Call) { in.store.Record(c.Purpose, c.Command, c.Outcome, c.Sent, c.Took) })
	}
	store := timedStore{g.store, in.steps}
	authenticators := []authz.Authenticator{
		g.apiKeys,
		authz.NewSessions(cfg.Sessions.Cookie.Name, cookies, store),
		authz.NewBearer(timedVerifier{g.verifier, in.steps}, store),
	}
	limiter, err := newLimiter(g.client, cfg)
	if err != nil {
		return nil, err
	}
	o := authz.Options{TrustedOrigins: origins(cfg), Limiter: timedLimiter{limiter, in.steps}, Took: in.took()}
	if g.assertions != nil {
		o.Asserter = g.assertions
	}
	g.authorizer = authz.NewAuthorizer(policies, o, authenticators...)
	return g, nil
}

// ping asks whether the store is in reach.
func (g *gate) ping(ctx context.Context) error { return g.store.Ping(ctx) }

// outOfReach reports whether that is what a ping found. That too many ask, or that this
// process had no time to, doesn't say so.
func outOfReach(err error) bool {
	return err != nil && authz.ReasonOf(err) != authz.ReasonOverloaded
}

// close lets go of the parts. Those that no other gate has end.
func (g *gate) close() error { return g.parts.drop() }

// problem puts an error to the place in the configuration that led to it.
func problem(cfg *config.Config, key string, err error) error {
	return config.Problems{cfg.Problem(key, "%v", err)}
}

// storeClient is the client of the store. The passwords that stand in files are for
// its new connections only, so that it can stay when they are rotated.
type storeClient struct {
	redis.UniversalClient
	passwords atomic.Pointer[passwords]
}

// passwords are those that stand in files; "" for those that don't.
type passwords struct{ redis, sentinel string }

func passwordsInFiles(cfg *config.Config) (p passwords) {
	if cfg.Redis.PasswordFile != "" {
		p.redis = cfg.Redis.Password.Reveal()
	}
	if cfg.Redis.Sentinel.PasswordFile != "" {
		p.sentinel = cfg.Redis.Sentinel.Password.Reveal()
	}
	return p
}

// openOptions are how the store is opened, without the passwords that stand in files.
func openOptions(cfg *config.Config) session.OpenOptions {
	r := cfg.Redis
	o := session.OpenOptions{
		Username:         r.Username,
		Timeout:          r.Timeout,
		SentinelUsername: r.Sentinel.Username,
		TLS: session.TLSOptions{
			CAFile:     string(r.TLS.CAFile),
			CertFile:   string(r.TLS.CertFile), // read again for each connection
			KeyFile:    string(r.TLS.KeyFile),
			ServerName: r.TLS.ServerName,
		},
	}
	if r.Sentinel.PasswordFile == "" {
		o.SentinelPassword = r.Sentinel.Password.Reveal()
	}
	return o
}

// openStore opens the store.
func openStore(cfg *config.Config, log *slog.Logger) (*storeClient, error) {
	c := &storeClient{}
	p := passwordsInFiles(cfg)
	c.passwords.Store(&p)
	o := openOptions(cfg)
	o.Logger = log
	o.Hook = traced.Redis{}
	o.OnServer = func(c session.ServerChange) { logServer(log, c) }
	if cfg.Redis.PasswordFile != "" {
		o.CurrentPassword = func() string { return c.passwords.Load().redis }
	}
	if cfg.Redis.Sentinel.PasswordFile != "" {
		o.CurrentSentinelPassword = func() string { return c.passwords.Load().sentinel }
	}
	var err error
	c.UniversalClient, err = session.Open(cfg.Redis.URL.Reveal(), o)
	return c, err
}

// pingAll reports whether every server that has keys of its own, and that answers,
// accepts us; one of them must. A master of a Cluster that is dead says nothing of a
// password, and may be dead for long.
func (c *storeClient) pingAll(ctx context.Context) error {
	cluster, ok := c.UniversalClient.(*redis.ClusterClient)
	if !ok {
		return c.Ping(ctx).Err()
	}
	var mu sync.Mutex
	accepted := false
	var silent []error
	refused := cluster.ForEachMaster(ctx, func(ctx context.Context, server *redis.Client) error {
		err := server.Ping(ctx).Err()
		var answer redis.Error
		if errors.As(err, &answer) && !redis.IsLoadingError(err) { // which comes after the login
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			silent = append(silent, err)
		} else {
			accepted = true
		}
		return nil
	})
	switch {
	case refused != nil || accepted:
		return refused
	case len(silent) == 0: // there are no masters
		return c.Ping(ctx).Err()
	}
	return errors.Join(silent...)
}

// usePasswords has new connections made with the passwords of this gate's
// configuration.
func (g *gate) usePasswords(cfg *config.Config) {
	p := passwordsInFiles(cfg)
	g.clients.value.passwords.Store(&p)
}

// takeStore takes the client of the store, and the store over it.
func (g *gate) takeStore(cfg *config.Config, files contents, before warm, log *slog.Logger) (err error) {
	from := []any{
		cfg.Redis.URL.Reveal(), openOptions(cfg), files.of(cfg.Redis.TLS.CAFile),
		cfg.Redis.PasswordFile != "", cfg.Redis.Sentinel.PasswordFile != "",
	}
	g.clients, err = take(&g.parts, before.clients, from, func(p *part[*storeClient]) error {
		client, err := openStore(cfg, log)
		if err != nil {
			return problem(cfg, "redis", err)
		}
		p.value, p.end = client, client.Close
		return nil
	})
	if err != nil {
		return err
	}
	g.client = g.clients.value.UniversalClient
	o := storeOptions(cfg)
	o.Feed = true
	from = []any{from, o}
	g.stores, err = take(&g.parts, before.stores, from, func(p *part[*session.Store]) error {
		if err := o.Validate(); err != nil {
			return problem(cfg, "sessions", err)
		}
		p.value = session.New(g.client, tellingStore(o, log))
		p.run = p.value.Run
		return nil
	})
	if err != nil {
		return err
	}
	g.store = g.stores.value
	return nil
}

// storeOptions are those of the store, without what it tells the log.
func storeOptions(cfg *config.Config) session.Options {
	s := cfg.Sessions
	o := session.Options{
		Prefix:        s.Prefix,
		TTL:           s.TTL,
		Rolling:       s.Rolling,
		TouchInterval: s.TouchInterval,
		Fields: session.Fields{
			UserID: s.Fields.UserID, Email: s.Fields.Email, Roles: s.Fields.Roles, Organization: s.Fields.OrgID,
			Organizations: s.Fields.Organizations, AuthTime: s.Fields.AuthTime,
		},
		Profiles:        cfg.Identity.Profiles,
		IdlePrecision:   idlePrecision(cfg),
		Timeout:         cfg.Redis.Timeout,
		ConfirmReplicas: cfg.Redis.ConfirmReplicas,
		AccessTTL:       cfg.Tokens.AccessTTL,
		RefreshTTL:      cfg.Tokens.RefreshTTL,
		RefreshGrace:    refreshGrace(cfg),
		Cookie:          session.Cookie{InsecureHTTP: !s.Cookie.Secure, SameSite: string(s.Cookie.SameSite)},
	}
	if c := cfg.Redis.Cache; c.Enabled {
		o.Cache = &session.CacheOptions{MaxEntries: c.MaxEntries, Heartbeat: c.Heartbeat, OmitRecords: !somePolicyReadsRecords(cfg)}
	}
	return o
}

// tellingStore adds what a store tells the log.
func tellingStore(o session.Options, log *slog.Logger) session.Options {
	o.OnWriteError = func(err error) {
		log.Warn("a session was answered for, and what its use should have changed was not written", slog.Any("error", err))
	}
	if o.Cache != nil {
		cache := *o.Cache
		cache.OnState = func(st session.CacheState) { logCache(log, st) }
		o.Cache = &cache
	}
	return o
}

// somePolicyReadsRecords reports whether a policy may look into the session's record.
func somePolicyReadsRecords(cfg *config.Config) bool {
	for _, p := range cfg.Policies {
		if readsRecord(p) {
			return true
		}
	}
	return false
}

// readsRecord reports whether what a policy asks or tells may be in the session's
// record.
func readsRecord(p config.Policy) bool {
	const record = "session"
	for _, told := range []config.Attributes{p.Headers, p.Metadata} {
		for _, attribute := range told {
			if strings.HasPrefix(attribute, record+".") {
				return true
			}
		}
	}
	return strings.Contains(p.Condition, record)
}

func logCache(log *slog.Logger, st session.CacheState) {
	switch {
	case st.Live:
		log.Info("cache coherent: Redis announces what changes")
	case st.Unsupported:
		log.Warn("no cache: the store doesn't announce changes, so it is asked every time", slog.Any("error", st.Err))
	default:
		log.Warn("cache dropped: Redis is asked every time until it announces changes again", slog.Any("error", st.Err))
	}
}

func logServer(log *slog.Logger, c session.ServerChange) {
	if c.Answers {
		log.Info("a Redis server answers again", slog.String("server", c.Server), slog.Duration("after", c.After.Round(time.Millisecond)))
		return
	}
	log.Warn("a Redis server doesn't answer: what needs it is refused at once until it does",
		slog.String("server", c.Server), slog.Duration("since", c.After.Round(time.Millisecond)), slog.Any("error", c.Err))
}

// refreshGrace translates a configured zero, which means none.
func refreshGrace(cfg *config.Config) time.Duration {
	if cfg.Tokens.RefreshGrace == 0 {
		return -1
	}
	return cfg.Tokens.RefreshGrace
}

// idlePrecision is how precisely the time of use must be kept for the
// strictest of the policies; 0 when none asks for it.
func idlePrecision(cfg *config.Config) time.Duration {
	var least time.Duration
	for _, p := range cfg.Policies {
		if p.IdleTimeout == 0 {
			continue
		}
		precision := session.IdlePrecision(p.IdleTimeout, cfg.Sessions.TouchInterval)
		if least == 0 || precision < least {
			least = precision
		}
	}
	return least
}

// noCookies verifies session cookies where there are no secrets: none.
type noCookies struct{}

func (noCookies) Verify(string) (string, bool) { return "", false }

// newSigner returns the signer of session cookies, nil when there are no
// secrets.
func newSigner(cfg *config.Config) (*session.Signer, error) {
	if len(cfg.Sessions.Secrets) == 0 {
		return nil, nil
	}
	var secrets []string
	for _, s := range cfg.Sessions.Secrets {
		secrets = append(secrets, s.Reveal())
	}
	return session.NewSigner(secrets)
}

// newIssuer returns the issuer of our own tokens, nil when there are no
// signing keys.
func newIssuer(cfg *config.Config) (*token.Issuer, error) {
	if len(cfg.Tokens.SigningKeys) == 0 {
		return nil, nil
	}
	o := token.MintOptions{Issuer: cfg.Tokens.Issuer, Audiences: cfg.Tokens.Audiences, TTL: cfg.Tokens.AccessTTL}
	for i, k := range cfg.Tokens.SigningKeys {
		key, err := token.LoadSigningKey(string(k.File), "")
		if err != nil {
			return nil, problem(cfg, fmt.Sprintf("tokens.signing_keys[%d].file", i), err)
		}
		o.Keys = append(o.Keys, key)
	}
	issuer, err := token.NewIssuer(o)
	if err != nil {
		return nil, problem(cfg, "tokens", err)
	}
	return issuer, nil
}

// tokens are our own tokens, and the verifier of these and of those of the issuers
// of the configuration. It remembers what it verified.
type tokens struct {
	own      *token.Issuer
	verifier *token.Verifier
}

func (g *gate) takeTokens(cfg *config.Config, files contents, before warm) (err error) {
	if err := g.takeFetchedKeys(cfg, before); err != nil {
		return err
	}
	var keys []config.File
	for _, k := range cfg.Tokens.SigningKeys {
		keys = append(keys, k.File)
	}
	for _, o := range cfg.Issuers {
		keys = append(keys, o.JWKSFile, o.PublicKeyFile)
	}
	from := []any{cfg.Tokens, cfg.Issuers, files.of(keys...)}
	g.tokens, err = take(&g.parts, before.tokens, from, func(p *part[tokens]) error {
		p.value, err = g.newTokens(cfg)
		return err
	})
	if err != nil {
		return err
	}
	g.own, g.verifier = g.tokens.value.own, g.tokens.value.verifier
	return nil
}

// takeAssertions takes what signs identities, and the public keys of all that is signed
// here. What was signed before is used on where its keys stay the same.
func (g *gate) takeAssertions(cfg *config.Config, files contents, before warm) (err error) {
	a := cfg.Identity.Assertion
	var keys []config.File
	for _, k := range a.SigningKeys {
		keys = append(keys, k.File)
	}
	g.signs, err = take(&g.parts, before.signs, []any{a, files.of(keys...)}, func(p *part[*token.Assertions]) error {
		if !cfg.Identity.Asserting() {
			return nil
		}
		o := token.AssertionOptions{Issuer: a.Issuer, TTL: a.TTL}
		for i, k := range a.SigningKeys {
			key, err := token.LoadSigningKey(string(k.File), "")
			if err != nil {
				return problem(cfg, fmt.Sprintf("identity.assertion.signing_keys[%d].file", i), err)
			}
			o.Keys = append(o.Keys, key)
		}
		var err error
		if p.value, err = token.NewAssertions(o); err != nil {
			return problem(cfg, "identity.assertion", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	g.assertions = g.signs.value
	if g.jwks, err = token.JWKS(g.own, g.assertions); err != nil {
		return problem(cfg, "identity.assertion", err)
	}
	return nil
}

func (g *gate) newTokens(cfg *config.Config) (t tokens, err error) {
	var issuers []token.IssuerOptions
	if t.own, err = newIssuer(cfg); err != nil {
		return t, err
	}
	if t.own != nil {
		issuers = append(issuers, t.own.Trust())
	}
	for i, o := range cfg.Issuers {
		keys, err := g.keySet(o)
		if err != nil {
			return t, problem(cfg, fmt.Sprintf("issuers[%d]", i), err)
		}
		issuers = append(issuers, token.IssuerOptions{
			Issuer: o.Issuer, Keys: keys, Audiences: o.Audiences, Algorithms: o.Algorithms, Types: o.Types, Leeway: leeway(o),
			Claims:       token.ClaimNames{UserID: o.Claims.UserID, Email: o.Claims.Email, Roles: o.Claims.Roles, Organization: o.Claims.OrgID},
			UserIDPrefix: o.UserIDPrefix,
		})
	}
	t.verifier, err = token.NewVerifier(issuers, token.VerifierOptions{CacheEntries: rememberedTokens})
	return t, err
}

// rememberedTokens bounds how many verified tokens cost no second signature
// verification. One takes about 2 KiB.
const rememberedTokens = 20_000

// leeway translates a configured zero, which means none.
func leeway(o config.Issuer) time.Duration {
	if o.Leeway == 0 {
		return -1
	}
	return o.Leeway
}

// keySet returns the keys of an issuer from the one source that it names.
func (g *gate) keySet(o config.Issuer) (token.KeySet, error) {
	switch {
	case o.PublicKeyFile != "":
		return token.LoadPEM(token.PEMFile{Path: string(o.PublicKeyFile)})
	case o.JWKSFile != "":
		return token.LoadJWKS(string(o.JWKSFile))
	}
	return g.fetched[sourceOf(o)].value, nil
}

// keySource is from where an issuer's keys are fetched.
type keySource struct {
	issuer, url string // url: "" for discovery
}

func sourceOf(o config.Issuer) keySource { return keySource{o.Issuer, o.JWKSURL} }

// takeFetchedKeys takes the key sets of issuers that publish theirs over HTTP.
func (g *gate) takeFetchedKeys(cfg *config.Config, before warm) error {
	g.fetched = map[keySource]*part[*token.RemoteKeys]{}
	for i, o := range cfg.Issuers {
		if o.PublicKeyFile != "" || o.JWKSFile != "" {
			continue
		}
		source := sourceOf(o)
		p, err := take(&g.parts, before.fetched[source], source, func(p *part[*token.RemoteKeys]) (err error) {
			if source.url == "" {
				p.value, err = token.Discover(source.issuer, token.RemoteOptions{})
			} else {
				p.value, err = token.FetchJWKS(source.url, token.RemoteOptions{})
			}
			if err != nil {
				return problem(cfg, fmt.Sprintf("issuers[%d]", i), err)
			}
			p.run = p.value.Run
			return nil
		})
		if err != nil {
			return err
		}
		g.fetched[source] = p
		g.remoteKeys = append(g.remoteKeys, namedKeys{o.Issuer, p.value})
	}
	return nil
}

// origins are the origins that may send unsafe requests with the session
// cookie, in lower case as browsers write them.
func origins(cfg *config.Config) authz.Origins {
	all := slices.Clone(cfg.Sessions.TrustedOrigins)
	if cfg.Server.HTTP.PublicURL != "" {
		all = append(all, cfg.Server.HTTP.PublicURL)
	}
	for i := range all {
		all[i] = strings.ToLower(strings.TrimSuffix(all[i], "/"))
	}
	return all
}

// policySet compiles policies and routes.
func policySet(cfg *config.Config) (*authz.PolicySet, error) {
	o := authz.PolicySetOptions{Default: cfg.DefaultPolicy}
	for _, name := range cfg.PolicyNames() {
		p, err := policy(name, cfg.Policies[name])
		if err != nil {
			return nil, problem(cfg, "policies."+name, err)
		}
		o.Policies = append(o.Policies, p)
	}
	for _, r := range cfg.Routes {
		o.Routes = append(o.Routes, authz.Route{Host: r.Host, Path: r.Path, Methods: r.Methods, Policy: r.Policy})
	}
	return authz.NewPolicySet(o)
}

func policy(name string, p config.Policy) (authz.Policy, error) {
	compiled := authz.Policy{
		Name:             name,
		Credentials:      p.Credentials,
		Anonymous:        p.Anonymous,
		Observe:          p.Mode == config.ModeObserve,
		RolesAny:         p.Roles.Any,
		RolesAll:         p.Roles.All,
		Organizations:    p.Organizations,
		Issuers:          p.Issuers,
		Audiences:        p.Audiences,
		Freshness:        p.Freshness,
		MaxAuthAge:       p.MaxAuthAge,
		IdleTimeout:      p.IdleTimeout,
		InsecureSkipCSRF: !p.CSRF,
		OnStoreOutage:    p.OnStoreOutage,
		StaleFor:         p.StaleFor,
		RateLimit:        p.RateLimit,
		OmitRecord:       !readsRecord(p),
		Assertion:        authz.Assertion{Audience: p.Assertion.Audience, FromRoute: p.Assertion.FromRoute},
	}
	if p.OnUnauthenticated == config.UnauthenticatedRedirect {
		compiled.LoginURL = p.LoginURL
	}
	var err error
	if p.Condition != "" {
		if compiled.Condition, err = condition.Compile(p.Condition); err != nil {
			return compiled, fmt.Errorf("condition: %w", err)
		}
		if compiled.ConditionParts, err = condition.Parts(p.Condition); err != nil {
			return compiled, fmt.Errorf("condition: %w", err)
		}
	}
	if compiled.Headers, err = extras(p.Headers); err != nil {
		return compiled, fmt.Errorf("headers: %w", err)
	}
	if compiled.Metadata, err = extras(p.Metadata); err != nil {
		return compiled, fmt.Errorf("metadata: %w", err)
	}
	return compiled, nil
}

// extras compiles what a policy tells of the caller, sorted by name.
func extras(told config.Attributes) ([]authz.Extra, error) {
	all := make([]authz.Extra, 0, len(told))
	for _, name := range slices.Sorted(maps.Keys(told)) {
		from, err := authz.ParseAttribute(told[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, authz.Extra{Name: name, From: from})
	}
	return all, nil
}

func newLimiter(client redis.UniversalClient, cfg *config.Config) (*limit.Limiter, error) {
	limits := make(map[string]limit.Limit, len(cfg.RateLimits))
	for name, l := range cfg.RateLimits {
		limits[name] = limit.Limit{
			By: limit.By(l.By), Requests: l.Limit, Per: l.Per, Burst: l.Burst, AllowOnOutage: l.OnOutage == config.OnOutageAllow,
		}
	}
	limiter, err := limit.New(client, limits, limit.Options{Timeout: cfg.Redis.Timeout})
	if err != nil {
		return nil, problem(cfg, "rate_limits", err)
	}
	return limiter, nil
}

func apiKeys(cfg *config.Config) []authz.APIKey {
	keys := make([]authz.APIKey, len(cfg.APIKeys))
	for i, k := range cfg.APIKeys {
		keys[i] = authz.APIKey{Name: k.Name, SHA256: k.Hash(), Policies: k.Policies, AuthAPI: k.AuthAPI, Expires: k.Expires}
	}
	return keys
}
