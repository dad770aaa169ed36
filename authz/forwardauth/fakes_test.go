package forwardauth_test

import (
	"context"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

const apiKey = "key-of-billing"

// cookies takes "signed." before an id for its signature.
type cookies struct{}

func (cookies) Verify(value string) (string, bool) { return strings.CutPrefix(value, "signed.") }

// people is every store and verifier of the tests. Some ids are not people but
// accidents.
type people map[string]authz.Identity

var everybody = people{
	"alice": {ID: "alice", Email: "alice@example.com", Roles: []string{"admin", "user"}, Organization: "org-1"},
	"bob":   {ID: "bob", Email: "bob@example.com", Roles: []string{"user"}},
	"jörg":  {ID: "j\u00f6rg 100%", Email: "j\u00f6rg@b\u00fccher.example", Roles: []string{"pr\u00fcfer"}, Organization: "R&D\r\nx-user-id: root"},
	"long":  {ID: "long", Organization: strings.Repeat("o", 8192)},
}

func (p people) find(ctx context.Context, id string) (authz.Identity, error) {
	switch id {
	case "outage":
		return authz.Identity{}, authz.Refuse(authz.ReasonStoreUnavailable, "connection refused")
	case "panic":
		panic("the store has a bug")
	case "slow":
		<-ctx.Done()
		return authz.Identity{}, authz.Refuse(authz.ReasonStoreUnavailable, "%w", ctx.Err())
	}
	identity, ok := p[id]
	if !ok {
		return identity, authz.Refuse(authz.ReasonSessionUnknown, "no record")
	}
	return identity, nil
}

func (p people) Session(ctx context.Context, id string, _ authz.ReadOptions) (*authz.Session, error) {
	identity, err := p.find(ctx, id)
	if err != nil {
		return nil, err
	}
	return &authz.Session{Identity: identity}, nil
}

func (p people) Verify(_ context.Context, raw string) (*authz.Token, error) {
	id, ok := strings.CutPrefix(raw, "token-of-")
	if !ok {
		return nil, authz.Refuse(authz.ReasonTokenInvalid, "no such token")
	}
	return &authz.Token{Identity: p[id], TokenID: id, Issuer: "https://idp.example.com"}, nil
}

func (p people) TokenStanding(ctx context.Context, ref authz.TokenRef, _ authz.ReadOptions) (authz.Standing, error) {
	_, err := p.find(ctx, ref.TokenID)
	return authz.Standing{}, err
}

// limiter lets a single address through.
type limiter struct{}

func (limiter) Allow(_ context.Context, limit string, r *authz.Request, _ *authz.Principal) (authz.Quota, error) {
	q := authz.Quota{Limit: limit, Requests: 10, Per: time.Minute, Burst: 10, Next: 17 * time.Second}
	if r.Address.String() == "203.0.113.9" {
		q.Remaining = 4
		return q, nil
	}
	return q, authz.Refuse(authz.ReasonRateLimited, "too often")
}

func (l limiter) Peek(ctx context.Context, limit string, r *authz.Request, p *authz.Principal) (authz.Quota, error) {
	return l.Allow(ctx, limit, r, p)
}

func panics(*authz.Request, *authz.Principal) (bool, error) { panic("the condition has a bug") }

func newAuthorizer(tb testing.TB) *authz.Authorizer {
	tb.Helper()
	session := []authz.Kind{authz.KindSession}
	both := []authz.Kind{authz.KindSession, authz.KindBearer}
	tenant, err := authz.ParseAttribute("identity.org")
	require.NoError(tb, err)
	nothing, err := authz.ParseAttribute("session.nothing")
	require.NoError(tb, err)
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: []authz.Policy{
			{Name: "user", Credentials: both},
			{Name: "admin", Credentials: session, RolesAny: []string{"admin"}},
			{Name: "web", Credentials: session, LoginURL: "/login"},
			{Name: "api", Credentials: []authz.Kind{authz.KindBearer}},
			{Name: "internal", Credentials: []authz.Kind{authz.KindAPIKey}},
			{Name: "public", Anonymous: true},
			{Name: "optional", Anonymous: true, Credentials: both},
			{Name: "trial", Credentials: session, RolesAny: []string{"admin"}, Observe: true},
			{Name: "limited", Credentials: session, RateLimit: "partner"},
			{Name: "telling", Credentials: session, Headers: []authz.Extra{{Name: "x-tenant", From: tenant}, {Name: "x-nothing", From: nothing}}},
			{Name: "panics", Credentials: session, Condition: panics},
			{Name: "größe 1", Credentials: session},
		},
		Routes: []authz.Route{
			{Host: "api.example.com", Policy: "api"},
			{Path: "/admin/*", Policy: "admin"},
			{Path: "/web/*", Policy: "web"},
			{Path: "/internal/*", Policy: "internal"},
			{Path: "/public/*", Policy: "public"},
			{Path: "/optional/*", Policy: "optional"},
			{Path: "/trial/*", Policy: "trial"},
			{Path: "/limited/*", Policy: "limited"},
			{Path: "/telling/*", Policy: "telling"},
			{Path: "/panics/*", Policy: "panics"},
			{Path: "/safe/*", Methods: []string{"GET"}, Policy: "public"},
		},
		Default: "user",
	})
	require.NoError(tb, err)
	return authz.NewAuthorizer(policies, authz.Options{Limiter: limiter{}},
		authz.NewSessions("sessionId", cookies{}, everybody),
		authz.NewBearer(everybody, everybody),
		authz.NewAPIKeys([]authz.APIKey{
			{Name: "billing", SHA256: sha256.Sum256([]byte(apiKey)), Policies: []string{"internal"}},
		}, time.Now),
	)
}
