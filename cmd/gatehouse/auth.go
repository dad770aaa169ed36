package main

import (
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/authapi/console"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/authz/limit"
	"github.com/gatehouse-auth/gatehouse/authz/oidc"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/authz/users"
)

// newAuthAPI returns the auth API over the gate's parts. It asks neither Redis
// nor a provider.
func (g *gate) newAuthAPI(cfg *config.Config, in instruments) (*authapi.API, error) {
	s := cfg.Sessions
	o := authapi.Options{
		Store: g.store,
		Feed:  g.store,
		SessionCookie: authapi.SessionCookie{
			Name: s.Cookie.Name, InsecureHTTP: !s.Cookie.Secure, SameSite: sameSite(s.Cookie.SameSite),
		},
		SessionTTL:     s.TTL,
		RecordFields:   []string{s.Fields.UserID, s.Fields.Email, s.Fields.Roles, s.Fields.OrgID, s.Fields.Organizations, s.Fields.AuthTime},
		RefreshTTL:     cfg.Tokens.RefreshTTL,
		Verifier:       g.verifier,
		Leeway:         longestLeeway(cfg),
		APIKeys:        g.apiKeys,
		Guesses:        limit.NewGuesses(g.client, limit.GuessOptions{Timeout: cfg.Redis.Timeout}),
		TrustedOrigins: origins(cfg),
		TrustedHops:    cfg.Server.HTTP.TrustedHops,
		JWKS:           g.jwks,
		Console:        console.Handler(console.Options{Providers: cfg.ProviderNames(), WithoutPasswords: cfg.Users.File == ""}),
		Recorder:       in.calls,
		Log:            in.log,
	}
	if in.audit != nil { // never a nil pointer in an interface
		o.Audit = in.audit
	}
	if in.recent != nil {
		o.Decisions = in.recent
	}
	if in.overview != nil {
		o.Status = in.overview.tell
	}
	if g.signer != nil { // never a nil pointer in an interface
		o.Cookies = g.signer
	}
	if g.own != nil {
		o.AccessTokens, o.RefreshTokens = g.own, g.own.RefreshTokens()
		o.AdminIssuers = []string{cfg.Tokens.Issuer}
	}
	if g.users != nil {
		o.UserStore = g.users.value
	}
	o.Providers = make(map[string]authapi.Provider, len(g.providers))
	for name, p := range g.providers {
		o.Providers[name] = p.value
	}
	return authapi.New(o)
}

// takeUsers takes the user store, if there is one.
func (g *gate) takeUsers(cfg *config.Config, files contents, before warm) (err error) {
	file := cfg.Users.File
	if file == "" {
		return nil
	}
	g.users, err = take(&g.parts, before.users, []any{file, files.of(file)}, func(p *part[*users.File]) error {
		if p.value, err = users.Load(string(file)); err != nil {
			return problem(cfg, "users.file", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	g.warnings = append(g.warnings, g.users.value.Warnings()...)
	return nil
}

func sameSite(s config.SameSite) authapi.SameSite {
	switch s {
	case config.SameSiteLax:
		return authapi.SameSiteLax
	case config.SameSiteNone:
		return authapi.SameSiteNone
	case config.SameSiteStrict:
	}
	return authapi.SameSiteStrict
}

// longestLeeway is how long after its exp some verifier of ours may still take
// a token.
func longestLeeway(cfg *config.Config) time.Duration {
	longest := token.DefaultLeeway
	for _, i := range cfg.Issuers {
		longest = max(longest, i.Leeway)
	}
	return longest
}

// takeProviders takes the OpenID providers of the configuration.
func (g *gate) takeProviders(cfg *config.Config, before warm) error {
	g.providers = make(map[string]*part[*oidc.Provider], len(cfg.OIDC.Providers))
	var sealing [][]byte
	for _, secret := range cfg.Sessions.Secrets {
		sealing = append(sealing, []byte(secret.Reveal()))
	}
	for _, name := range cfg.ProviderNames() {
		p := cfg.OIDC.Providers[name]
		o := oidc.Options{
			Name:         name,
			Issuer:       p.Issuer,
			ClientID:     p.ClientID,
			ClientSecret: p.ClientSecret.Reveal(),
			RedirectURL:  strings.TrimSuffix(cfg.Server.HTTP.PublicURL, "/") + "/auth/oidc/" + name + "/callback",
			Scopes:       p.Scopes,
			Claims: oidc.Claims{
				UserID: p.Claims.UserID, Email: p.Claims.Email, Roles: p.Claims.Roles,
				Organization: p.Claims.OrgID, Organizations: p.Claims.Organizations,
			},
			UserIDPrefix: p.UserIDPrefix,
			SealingKeys:  sealing,
		}
		provider, err := take(&g.parts, before.providers[name], o, func(p *part[*oidc.Provider]) (err error) {
			if p.value, err = oidc.New(o); err != nil {
				return problem(cfg, "oidc.providers."+name, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		g.providers[name] = provider
	}
	return nil
}
