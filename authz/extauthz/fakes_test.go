package extauthz_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
)

var now = time.Date(2026, time.November, 21, 12, 0, 0, 0, time.UTC)

// errStore is a store's word that it can't answer.
var errStore = authz.Refuse(authz.ReasonStoreUnavailable, "connection refused")

// cookies takes "signed." before an id for its signature.
type cookies struct{}

func (cookies) Verify(value string) (string, bool) { return strings.CutPrefix(value, "signed.") }

// people is every store and verifier of the tests: who is called what, and
// what happens when they call. It is only read.
type people map[string]authz.Identity

var everybody = people{
	"alice":    {ID: "alice", Email: "alice@example.com", Roles: []string{"admin", "user"}, Organization: "org-1"},
	"bob":      {ID: "bob", Email: "bob@example.com", Roles: []string{"user"}},
	"jörg":     {ID: "j\u00f6rg 100%", Email: "j\u00f6rg@b\u00fccher.example", Roles: []string{"pr\u00fcfer", "\U0001f600"}, Organization: "R&D\r\nx-user-id: root"},
	"legacy":   {ID: "l\xe9gacy", Roles: []string{"\xff"}, Organization: "\xff"}, // no UTF-8
	"long":     {ID: "long", Organization: strings.Repeat("o", 8192)},
	"disabled": {ID: "disabled"},
	"wordy":    {ID: "wordy"},
	"visitor":  {}, // a session of nobody
}

// find returns whose id it is. Some ids are not people but accidents.
func (p people) find(id string) (authz.Identity, authz.Standing, error) {
	switch id {
	case "outage":
		return authz.Identity{}, authz.Standing{}, errStore
	case "panic":
		panic("the store has a bug")
	case "revoked":
		return authz.Identity{ID: id}, authz.Standing{Revoked: true}, nil
	case "disabled":
		return p[id], authz.Standing{Profile: &authz.Profile{Disabled: true}}, nil
	}
	identity, ok := p[id]
	if !ok {
		return identity, authz.Standing{}, authz.Refuse(authz.ReasonSessionUnknown, "no record")
	}
	return identity, authz.Standing{}, nil
}

func (p people) Session(ctx context.Context, id string, _ authz.ReadOptions) (*authz.Session, error) {
	if id == "slow" { // a store that never answers
		<-ctx.Done()
		return nil, authz.Refuse(authz.ReasonStoreUnavailable, "%w", ctx.Err())
	}
	identity, standing, err := p.find(id)
	if err != nil {
		return nil, err
	}
	return &authz.Session{Identity: identity, Standing: standing, AuthTime: now.Add(-time.Hour), Values: recordOf(id)}, nil
}

// recordOf is what applications keep in a session.
func recordOf(id string) map[string]any {
	switch id {
	case "alice":
		return map[string]any{"userId": id, "plan": "pro", "tenant": map[string]any{"id": "t 1", "seats": json.Number("12")}, "beta": true, "tags": []any{"a", "\u00fc", json.Number("1")}}
	case "legacy":
		return map[string]any{"userId": id, "plan": "\xff", "tags": map[string]any{"b": "<\xff>", "a": nil}}
	case "wordy":
		return map[string]any{"userId": id, "tags": []any{strings.Repeat("t", 8192)}}
	case "jörg":
		return map[string]any{"userId": id, "plan": "a\r\nx-user-id: root, 100%", "tenant": map[string]any{"id": ""}}
	}
	return map[string]any{"userId": id}
}

func (p people) Verify(_ context.Context, raw string) (*authz.Token, error) {
	id, ok := strings.CutPrefix(raw, "token-of-")
	if !ok || strings.ContainsAny(id, " ,") {
		return nil, authz.Refuse(authz.ReasonTokenInvalid, "no such token")
	}
	identity := authz.Identity{ID: id}
	if known, ok := p[id]; ok {
		identity.ID = known.ID
	}
	return &authz.Token{Identity: identity, TokenID: id, Issuer: "https://idp.example.com", IssuedAt: now.Add(-time.Hour), Claims: map[string]any{"scope": "orders:read orders:write", "plan": "free"}}, nil
}

func (p people) TokenStanding(_ context.Context, ref authz.TokenRef, _ authz.ReadOptions) (authz.Standing, error) {
	identity, standing, err := p.find(ref.TokenID)
	if err != nil {
		return authz.Standing{}, err
	}
	if standing.Profile == nil {
		standing.Profile = &authz.Profile{Email: &identity.Email, Roles: &identity.Roles, Organization: &identity.Organization}
	}
	return standing, nil
}

// limits has a limit that lets nobody through, one that does, and one that can't
// count.
type limits struct{}

func (limits) Allow(_ context.Context, limit string, _ *authz.Request, _ *authz.Principal) (authz.Quota, error) {
	q := authz.Quota{Limit: limit, Requests: 100, Per: time.Minute, Burst: 20}
	switch limit {
	case "roomy":
		q.Remaining, q.Next = 3, 400*time.Millisecond
		return q, nil
	case "uncounted":
		q.Uncounted = errStore
		return q, nil
	case "panics":
		panic("the limiter has a bug")
	}
	q.Next = 16500 * time.Millisecond
	return q, authz.Refuse(authz.ReasonRateLimited, "too often")
}

func (l limits) Peek(ctx context.Context, limit string, r *authz.Request, p *authz.Principal) (authz.Quota, error) {
	return l.Allow(ctx, limit, r, p)
}

// The keys of internal callers. The second is not UTF-8: Envoy's two header
// forms show it differently.
const (
	apiKey    = "key-of-billing"
	legacyKey = "key-\xff"
)

func panics(*authz.Request, *authz.Principal) (bool, error) { panic("the condition has a bug") }

// newAuthorizer returns an authorizer for the people above, with a policy of
// each sort: by route, by name, and "user" by default.
func newAuthorizer(tb testing.TB) *authz.Authorizer {
	tb.Helper()
	return newAuthorizerOf(tb, everybody)
}

// told is something that a policy tells.
func told(name, attribute string) authz.Extra {
	from, err := authz.ParseAttribute(attribute)
	if err != nil {
		panic(err)
	}
	return authz.Extra{Name: name, From: from}
}

// directory is who knows everybody.
type directory interface {
	authz.SessionStore
	authz.StandingStore
	authz.TokenVerifier
}

// knowing knows everybody from memory, but for accidents.
type knowing struct{ people }

func (k knowing) CachedSession(id string, o authz.ReadOptions, m *authz.Memory) (*authz.Session, bool) {
	if id == "slow" {
		return nil, false
	}
	s, err := k.Session(context.Background(), id, o)
	if err != nil {
		return nil, false
	}
	m.Session = *s
	return &m.Session, true
}

func (k knowing) CachedStanding(ref authz.TokenRef, o authz.ReadOptions, m *authz.Memory) (*authz.Standing, bool) {
	st, err := k.TokenStanding(context.Background(), ref, o)
	m.Standing = st
	return &m.Standing, err == nil
}

func (k knowing) Remembered(raw string) (*authz.Token, bool) {
	t, err := k.Verify(context.Background(), raw)
	return t, err == nil
}

// newAuthorizerOf is newAuthorizer with another directory.
func newAuthorizerOf(tb testing.TB, known directory) *authz.Authorizer {
	tb.Helper()
	return newAuthorizerWith(tb, known, nil)
}

// telling are policies, to choose by name, that tell more than the identity.
func telling() []authz.Policy {
	session := []authz.Kind{authz.KindSession}
	return []authz.Policy{
		{Name: "told", Credentials: []authz.Kind{authz.KindSession, authz.KindBearer}, Anonymous: true, Headers: []authz.Extra{
			told("x-kind", "identity.kind"), told("x-plan", "session.plan"), told("x-scope", "claims.scope"), told("x-tags", "session.tags"), told("x-tenant-id", "session.tenant.id"),
		}, Metadata: []authz.Extra{told("beta", "session.beta"), told("plan", "session.plan"), told("tags", "session.tags")}},
		{Name: "told-too", Credentials: session, RateLimit: "roomy", Headers: []authz.Extra{told("x-seats", "session.tenant.seats"), told("x-tenant-id", "identity.org")}},
		{Name: "told-limited", Credentials: session, RateLimit: "partner", Metadata: []authz.Extra{told("plan", "session.plan")}},
		{
			Name: "told-trial", Credentials: session, RolesAny: []string{"admin"}, Observe: true,
			Headers: []authz.Extra{told("x-tags", "session.tags")}, Metadata: []authz.Extra{told("tags", "session.tags")},
		},
	}
}

// newTelling is newAuthorizerOf with those.
func newTelling(tb testing.TB, known directory) *authz.Authorizer {
	tb.Helper()
	return newAuthorizerWith(tb, known, telling())
}

// signs is an asserter whose signature anybody can make. It can't sign for "broken".
type signs struct{}

func (signs) Assert(p *authz.Principal, audience string) (string, error) {
	if audience == "broken" {
		return "", errors.New("the key is gone")
	}
	return "signed." + string(authz.AppendValue(nil, p.ID)) + "." + audience, nil
}

func newAuthorizerWith(tb testing.TB, known directory, more []authz.Policy) *authz.Authorizer {
	tb.Helper()
	session, bearer, key := []authz.Kind{authz.KindSession}, []authz.Kind{authz.KindBearer}, []authz.Kind{authz.KindAPIKey}
	all := []authz.Policy{
		{Name: "signed", Credentials: []authz.Kind{authz.KindSession, authz.KindBearer}, Anonymous: true, Assertion: authz.Assertion{Audience: "orders"}},
		{Name: "signed-key", Credentials: key, Assertion: authz.Assertion{Audience: "orders"}},
		{Name: "signed-by-route", Credentials: session, Assertion: authz.Assertion{FromRoute: true}},
		{Name: "signed-either", Credentials: session, Assertion: authz.Assertion{Audience: "orders", FromRoute: true}},
		{Name: "signed-trial", Credentials: session, RolesAny: []string{"admin"}, Observe: true, Assertion: authz.Assertion{FromRoute: true}},
		{Name: "user", Credentials: []authz.Kind{authz.KindSession, authz.KindBearer}},
		{Name: "admin", Credentials: session, RolesAny: []string{"admin"}},
		{Name: "web", Credentials: []authz.Kind{authz.KindSession, authz.KindBearer}, LoginURL: "/login"},
		{Name: "api", Credentials: bearer},
		{Name: "internal", Credentials: key},
		{Name: "public", Anonymous: true},
		{Name: "optional", Anonymous: true, Credentials: []authz.Kind{authz.KindSession, authz.KindBearer}},
		{Name: "trial", Credentials: session, RolesAny: []string{"admin"}, Observe: true},
		{Name: "limited", Credentials: session, RateLimit: "partner"},
		{Name: "roomy", Credentials: session, Anonymous: true, RateLimit: "roomy"},
		{Name: "uncounted", Credentials: session, RateLimit: "uncounted"},
		{Name: "limited-trial", Credentials: session, RateLimit: "partner", Observe: true},
		{Name: "roomy-trial", Credentials: session, RateLimit: "roomy", Observe: true},
		{Name: "limit-panics", Credentials: session, RateLimit: "panics"},
		{Name: "recent", Credentials: session, MaxAuthAge: time.Minute},
		{Name: "panics", Credentials: session, Condition: panics},
		{Name: "trial-panics", Credentials: session, Condition: panics, Observe: true},
	}
	all = append(all, more...)
	for i := range all {
		all[i].Freshness = authz.FreshnessCached
	}
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: all,
		Routes: []authz.Route{
			{Host: "api.example.com", Policy: "api"},
			{Path: "/admin/*", Policy: "admin"},
			{Path: "/web/*", Policy: "web"},
			{Path: "/internal/*", Policy: "internal"},
			{Path: "/public/*", Policy: "public"},
			{Path: "/optional/*", Policy: "optional"},
			{Path: "/trial/*", Policy: "trial"},
			{Path: "/limited/*", Policy: "limited"},
			{Path: "/roomy/*", Policy: "roomy"},
			{Path: "/uncounted/*", Policy: "uncounted"},
			{Path: "/limited-trial/*", Policy: "limited-trial"},
			{Path: "/roomy-trial/*", Policy: "roomy-trial"},
			{Path: "/limit-panics/*", Policy: "limit-panics"},
			{Path: "/recent/*", Policy: "recent"},
			{Path: "/panics/*", Policy: "panics"},
			{Path: "/trial-panics/*", Policy: "trial-panics"},
		},
		Default: "user",
	})
	require.NoError(tb, err)
	clock := func() time.Time { return now }
	return authz.NewAuthorizer(policies, authz.Options{Limiter: limits{}, Asserter: signs{}, Now: clock},
		authz.NewSessions("sessionId", cookies{}, known),
		authz.NewBearer(known, known),
		authz.NewAPIKeys([]authz.APIKey{
			{Name: "billing", SHA256: sha256.Sum256([]byte(apiKey)), Policies: []string{"internal", "signed-key"}},
			{Name: "legacy", SHA256: sha256.Sum256([]byte(legacyKey)), Policies: []string{"internal", "signed-key"}},
		}, clock),
	)
}

// newServer returns a door that strips credentials and has a budget of 8 KiB.
func newServer(tb testing.TB) *extauthz.Server {
	tb.Helper()
	return extauthz.NewServer(newAuthorizer(tb), extauthz.Options{
		MaxHeaderBytes: 8192, StripCredentials: true, SessionCookie: "sessionId",
	})
}
