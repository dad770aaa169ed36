package authz_test

import (
	"context"
	"crypto/sha256"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// now is the time at which every test here takes place.
var now = time.Date(2026, time.November, 21, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

func ago(d time.Duration) time.Time { return now.Add(-d) }

// errStore is a store's word that it can't answer.
var errStore = authz.Refuse(authz.ReasonStoreUnavailable, "connection refused")

// sessionStore is a [authz.SessionStore] over a map that counts its calls.
type sessionStore struct {
	sessions map[string]*authz.Session
	err      error
	calls    atomic.Int32
	options  authz.ReadOptions // of the last call
}

func (s *sessionStore) Session(_ context.Context, id string, o authz.ReadOptions) (*authz.Session, error) {
	s.calls.Add(1)
	s.options = o
	if s.err != nil {
		return nil, s.err
	}
	if session := s.sessions[id]; session != nil {
		return session, nil
	}
	return nil, authz.Refuse(authz.ReasonSessionUnknown, "no record")
}

// standingStore is a [authz.StandingStore] that holds one standing against
// everybody and counts its calls.
type standingStore struct {
	standing authz.Standing
	err      error
	calls    atomic.Int32
	ref      authz.TokenRef    // of the last call
	options  authz.ReadOptions // of the last call
}

func (s *standingStore) TokenStanding(_ context.Context, ref authz.TokenRef, o authz.ReadOptions) (authz.Standing, error) {
	s.calls.Add(1)
	s.ref, s.options = ref, o
	return s.standing, s.err
}

// tokenVerifier is an [authz.TokenVerifier] over a map that counts its calls.
type tokenVerifier struct {
	tokens map[string]*authz.Token
	err    error
	calls  atomic.Int32
}

func (v *tokenVerifier) Verify(_ context.Context, raw string) (*authz.Token, error) {
	v.calls.Add(1)
	if v.err != nil {
		return nil, v.err
	}
	if token := v.tokens[raw]; token != nil {
		return token, nil
	}
	return nil, authz.Refuse(authz.ReasonTokenInvalid, "no such token")
}

// cookieVerifier takes "signed." before an id for its signature.
type cookieVerifier struct{}

func (cookieVerifier) Verify(value string) (string, bool) { return strings.CutPrefix(value, "signed.") }

// limiter is an [authz.Limiter] that gives one answer and counts its calls.
type limiter struct {
	quota     authz.Quota
	err       error
	calls     int
	name      string           // of the last call's limit
	principal *authz.Principal // of the last call
}

func (l *limiter) Allow(_ context.Context, limit string, _ *authz.Request, p *authz.Principal) (authz.Quota, error) {
	l.calls++
	l.name, l.principal = limit, p
	return l.quota, l.err
}

func (l *limiter) Peek(context.Context, string, *authz.Request, *authz.Principal) (authz.Quota, error) {
	return l.quota, l.err
}

// The people of the tests.
var (
	alice = authz.Identity{ID: "alice", Email: "alice@example.com", Roles: []string{"admin", "user"}, Organization: "org-1"}
	bob   = authz.Identity{ID: "bob", Email: "bob@example.com", Roles: []string{"user"}, Organization: "org-2"}
)

const (
	issuer = "https://idp.example.com"
	apiKey = "internal-key-of-billing"
)

// gate is an authorizer with everything behind it replaced by fakes.
type gate struct {
	t        testing.TB
	sessions *sessionStore
	standing *standingStore
	tokens   *tokenVerifier
	limiter  *limiter
	asserter authz.Asserter
	origins  authz.Origins
	keys     []authz.APIKey
}

// newGate returns a gate that knows alice and bob, each by session and token,
// and one API key.
func newGate(tb testing.TB) *gate {
	tb.Helper()
	return &gate{
		t: tb,
		sessions: &sessionStore{sessions: map[string]*authz.Session{
			"alice": {Identity: alice, Organizations: []string{"org-1", "org-3"}, AuthTime: ago(time.Minute), Values: map[string]any{"userId": "alice", "theme": "dark"}},
			"bob":   {Identity: bob, AuthTime: ago(time.Hour)},
		}},
		standing: &standingStore{},
		tokens: &tokenVerifier{tokens: map[string]*authz.Token{
			"alice-token": {
				Identity: alice, TokenID: "jti-1", Family: "family-1", Issuer: issuer, Audiences: []string{"api", "web"},
				IssuedAt: ago(time.Minute), AuthTime: ago(2 * time.Minute), Expires: now.Add(time.Minute), Claims: map[string]any{"scope": "orders:read"},
			},
			"bob-token": {Identity: bob, Issuer: "https://other.example.com", Audiences: []string{"other"}, IssuedAt: ago(time.Hour), AuthTime: ago(time.Hour)},
		}},
		limiter: &limiter{},
		keys: []authz.APIKey{
			{Name: "billing", SHA256: sha256.Sum256([]byte(apiKey)), Policies: []string{"p"}},
		},
	}
}

// authorizer returns the gate's authorizer with p, named "p", as its only and
// default policy.
func (g *gate) authorizer(p authz.Policy) *authz.Authorizer {
	g.t.Helper()
	p.Name = "p"
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{Policies: []authz.Policy{p}, Default: "p"})
	require.NoError(g.t, err)
	return authz.NewAuthorizer(policies, authz.Options{TrustedOrigins: g.origins, Limiter: g.limiter, Asserter: g.asserter, Now: clock},
		authz.NewSessions("sessionId", cookieVerifier{}, g.sessions),
		authz.NewBearer(g.tokens, g.standing),
		authz.NewAPIKeys(g.keys, clock),
	)
}

// decide authorizes one request under p.
func (g *gate) decide(p authz.Policy, r *authz.Request) (*authz.Decision, error) {
	g.t.Helper()
	return g.authorizer(p).Authorize(g.t.Context(), r)
}

// storeCalls is how often any store was asked.
func (g *gate) storeCalls() int { return int(g.sessions.calls.Load() + g.standing.calls.Load()) }

// request returns the canonical form of a request for app.example.com; headers
// are name, value, name, value.
func request(tb testing.TB, method, target string, headers ...string) *authz.Request {
	tb.Helper()
	r, err := authz.NewRequest(authz.RequestParts{
		Method: method, Authority: "app.example.com", Target: target, Headers: headerMap(headers...),
	})
	require.NoError(tb, err)
	return r
}

func get(tb testing.TB, headers ...string) *authz.Request {
	tb.Helper()
	return request(tb, "GET", "/", headers...)
}

func headerMap(headers ...string) authz.HeaderMap {
	m := make(authz.HeaderMap, len(headers)/2)
	for i := 0; i < len(headers); i += 2 {
		m[headers[i]] = headers[i+1]
	}
	return m
}

// requireReason asserts that err is a refusal with exactly this reason; ""
// stands for no error.
func requireReason(tb testing.TB, want authz.Reason, err error) {
	tb.Helper()
	if want == "" {
		require.NoError(tb, err)
		return
	}
	require.Error(tb, err)
	require.Equal(tb, want, authz.ReasonOf(err), "%v", err)
}
