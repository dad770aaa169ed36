package authz_test

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// remembering is a store and a verifier that know everything from memory, too,
// as far as they are asked.
type remembering struct {
	sessions map[string]authz.Session
	tokens   map[string]authz.Token
	standing map[string]authz.Standing
}

func (r *remembering) Session(_ context.Context, id string, o authz.ReadOptions) (*authz.Session, error) {
	s, ok := r.sessions[id]
	switch {
	case !ok:
		return nil, authz.Refuse(authz.ReasonSessionUnknown, "unknown")
	case o.IdleTimeout > 0 && quickNow.Sub(s.LastSeen) > o.IdleTimeout:
		return nil, authz.Refuse(authz.ReasonSessionIdle, "idle")
	}
	return &s, nil
}

func (r *remembering) CachedSession(id string, o authz.ReadOptions, m *authz.Memory) (*authz.Session, bool) {
	s, err := r.Session(context.Background(), id, o)
	if err != nil || o.Fresh {
		return nil, false
	}
	m.Session = *s
	return &m.Session, true
}

func (r *remembering) TokenStanding(_ context.Context, ref authz.TokenRef, _ authz.ReadOptions) (authz.Standing, error) {
	st := r.standing[ref.UserID]
	st.Revoked = strings.HasPrefix(ref.TokenID, "revoked")
	return st, nil
}

func (r *remembering) CachedStanding(ref authz.TokenRef, o authz.ReadOptions, m *authz.Memory) (*authz.Standing, bool) {
	m.Standing, _ = r.TokenStanding(context.Background(), ref, o)
	return &m.Standing, !o.Fresh
}

func (r *remembering) Verify(_ context.Context, raw string) (*authz.Token, error) {
	t, ok := r.tokens[raw]
	if !ok {
		return nil, authz.Refuse(authz.ReasonTokenInvalid, "unknown")
	}
	return &t, nil
}

func (r *remembering) Remembered(raw string) (*authz.Token, bool) {
	t, err := r.Verify(context.Background(), raw)
	return t, err == nil
}

// counting counts the signatures that it checks.
type counting struct{ n int }

func (c *counting) Verify(value string) (string, bool) {
	c.n++
	return strings.CutPrefix(value, "signed.")
}

// Where the store is to be asked in any case, Quick does nothing that Authorize
// would do again.
func TestQuickLeavesStrictPoliciesAlone(t *testing.T) {
	t.Parallel()
	store := &remembering{sessions: map[string]authz.Session{"id": {Identity: authz.Identity{ID: "alice"}}}}
	for freshness, want := range map[authz.Freshness]int{authz.FreshnessStrict: 0, authz.FreshnessCached: 1} {
		policies, err := authz.NewPolicySet(authz.PolicySetOptions{
			Policies: []authz.Policy{{Name: "p", Credentials: []authz.Kind{authz.KindSession}, Freshness: freshness}}, Default: "p",
		})
		require.NoError(t, err)
		cookies := &counting{}
		a := authz.NewAuthorizer(policies, authz.Options{}, authz.NewSessions("sessionId", cookies, store))
		var d authz.Decision
		decided, err := a.Quick(t.Context(), time.Now().Add(time.Minute), request(t, "GET", "/", "cookie", "sessionId=signed.id"), &d)
		require.NoError(t, err)
		require.Equal(t, want == 1, decided)
		require.Equal(t, want, cookies.n)
	}
}

var quickNow = time.Unix(1_800_000_000, 0)

// What Quick allows, Authorize allows, with the same outcome; and it is not so
// careful that it allows nothing.
func TestQuickAllowsOnlyWhatAuthorizeAllows(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(all ...string) string { return all[rnd.IntN(len(all))] }
	some := func(all ...string) (list []string) {
		for _, s := range all {
			if rnd.IntN(3) == 0 {
				list = append(list, s)
			}
		}
		return list
	}
	ago := func() time.Time {
		return []time.Time{{}, quickNow, quickNow.Add(-time.Minute), quickNow.Add(-time.Hour)}[rnd.IntN(4)]
	}
	standing := func() authz.Standing {
		st := authz.Standing{Revoked: rnd.IntN(20) == 0}
		if rnd.IntN(5) == 0 {
			st.RevokedBefore = quickNow.Add(-30 * time.Minute)
		}
		if rnd.IntN(2) == 0 {
			roles, org := some("admin", "member"), pick("o", "p", "")
			st.Profile = &authz.Profile{Roles: &roles, Organization: &org, Disabled: rnd.IntN(10) == 0, Organizations: some("o", "p")}
		}
		return st
	}
	allowed, limited := 0, 0
	for range 60_000 {
		store := &remembering{sessions: map[string]authz.Session{}, tokens: map[string]authz.Token{}, standing: map[string]authz.Standing{}}
		user := pick("alice", "alice", "alice", "service:billing", "")
		store.standing[user] = standing()
		store.sessions["id"] = authz.Session{
			Identity: authz.Identity{ID: user, Roles: some("admin", "member"), Organization: pick("o", "p", "")}, Organizations: some("o"),
			AuthTime: ago(), Created: ago(), LastSeen: ago(), Standing: standing(), Stale: rnd.IntN(20) == 0, Values: map[string]any{"plan": pick("pro", "")},
		}
		store.tokens["token"] = authz.Token{
			Identity: authz.Identity{ID: user, Roles: some("admin", "member")}, TokenID: pick("j", "revoked"), Issuer: pick("i", "j"), Audiences: some("a", "b"),
			IssuedAt: ago(), AuthTime: ago(), Claims: map[string]any{"plan": "free"},
		}
		p := authz.Policy{
			Name: "p", Anonymous: rnd.IntN(4) == 0, Observe: rnd.IntN(10) == 0, Passive: rnd.IntN(10) == 0,
			Freshness: []authz.Freshness{authz.FreshnessCached, authz.FreshnessCached, authz.FreshnessStrict, ""}[rnd.IntN(4)],
			RolesAny:  some("admin"), RolesAll: some("member"), Organizations: some("o"), Issuers: some("i"), Audiences: some("a"),
			InsecureSkipCSRF: rnd.IntN(3) == 0, LoginURL: pick("", "/login"),
		}
		if rnd.IntN(4) == 0 {
			p.Headers = []authz.Extra{{Name: "x-plan", From: attribute(t, pick("session.plan", "claims.plan"))}, {Name: "x-kind", From: attribute(t, "identity.kind")}}
			p.Metadata = []authz.Extra{{Name: "plan", From: attribute(t, pick("session.plan", "claims.plan"))}}
		}
		for _, kind := range rnd.Perm(4)[:rnd.IntN(4)] {
			p.Credentials = append(p.Credentials, []authz.Kind{authz.KindSession, authz.KindBearer, authz.KindAPIKey, "unknown"}[kind])
		}
		if rnd.IntN(3) == 0 {
			p.MaxAuthAge = 10 * time.Minute
		}
		if rnd.IntN(3) == 0 {
			p.IdleTimeout = 10 * time.Minute
		}
		if rnd.IntN(4) == 0 {
			p.Condition = func(r *authz.Request, p *authz.Principal) (bool, error) {
				return r.Path != "/no" && p.ID != "nobody", nil
			}
		}
		limits := &limiter{quota: authz.Quota{Limit: "l", Remaining: rnd.IntN(3)}}
		if rnd.IntN(4) == 0 {
			p.RateLimit = "l"
			limits.err = []error{nil, nil, authz.Refuse(authz.ReasonRateLimited, "too often"), errStore}[rnd.IntN(4)]
		}
		policies, err := authz.NewPolicySet(authz.PolicySetOptions{Policies: []authz.Policy{p}, Default: pick("p", "p", "")})
		require.NoError(t, err)
		keys := authz.NewAPIKeys([]authz.APIKey{
			{Name: "billing", SHA256: sha256.Sum256([]byte("key")), Policies: some("p"), Expires: ago()},
		}, func() time.Time { return quickNow.Add(-time.Second) })
		a := authz.NewAuthorizer(policies, authz.Options{Limiter: limits, Now: func() time.Time { return quickNow }},
			authz.NewSessions("sessionId", cookieVerifier{}, store), authz.NewBearer(store, store), keys)
		headers := authz.HeaderMap{}
		for name, value := range map[string]string{
			"cookie": "sessionId=" + pick("signed.id", "signed.other", "forged", ""), "authorization": pick("Bearer token", "Bearer other", "Basic x"),
			"x-internal-api-key": pick("key", "wrong"), "origin": pick("https://app.example.com", "https://evil.example"), "sec-fetch-site": pick("same-origin", "cross-site"),
		} {
			if rnd.IntN(2) == 0 {
				headers[name] = value
			}
		}
		parts := authz.RequestParts{Method: pick("GET", "POST"), Authority: "app.example.com", Target: pick("/", "/no"), Headers: headers}
		if rnd.IntN(4) == 0 {
			parts.PolicyName, parts.HasPolicyName = pick("p", "q"), true
		}
		r, err := authz.NewRequest(parts)
		require.NoError(t, err)
		var d authz.Decision
		decided, refused := a.Quick(t.Context(), time.Now().Add(time.Minute), r, &d)
		if decided {
			require.Equal(t, p.RateLimit != "", limits.calls == 1)
		} else {
			require.Zero(t, limits.calls, "counted by the one who decides")
		}
		want, err := a.Authorize(t.Context(), r)
		if p.RateLimit == "" { // which a traced decision doesn't count
			traced, tracedErr := a.Authorize(authz.WithTrace(t.Context(), &authz.Trace{}), r)
			require.Equal(t, err, tracedErr)
			require.Equal(t, want, traced)
		}
		if !decided {
			continue
		}
		require.Equal(t, err, refused)
		if err == nil {
			allowed++
		} else {
			require.Equal(t, limits.err, err, "nothing else is refused from memory")
			limited++
		}
		require.Equal(t, want.Principal, d.Principal)
		require.Equal(t, []any{want.Policy, want.Kind, want.Reason, want.Observed, want.Quota}, []any{d.Policy, d.Kind, d.Reason, d.Observed, d.Quota})
		require.Equal(t, [][]authz.Header{want.Extra, want.Metadata}, [][]authz.Header{d.Extra, d.Metadata})
	}
	require.Greater(t, allowed, 1000)
	require.Greater(t, limited, 100)
}
