package authz_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// The headers that present each credential.
var (
	aliceSession  = []string{"cookie", "sessionId=signed.alice"}
	forgedSession = []string{"cookie", "sessionId=forged"}
	deadSession   = []string{"cookie", "sessionId=signed.dead"}
	emptySession  = []string{"cookie", "sessionId="}
	aliceToken    = []string{"authorization", "Bearer alice-token"}
	forgedToken   = []string{"authorization", "Bearer forged"}
	bareScheme    = []string{"authorization", "Bearer"}
	basicAuth     = []string{"authorization", "Basic YTpi"}
	goodKey       = []string{"x-internal-api-key", apiKey}
	wrongKey      = []string{"x-internal-api-key", "wrong"}
	emptyKey      = []string{"x-internal-api-key", ""}
)

func with(headers ...[]string) []string {
	var all []string
	for _, h := range headers {
		all = append(all, h...)
	}
	return all
}

func kinds(k ...authz.Kind) []authz.Kind { return k }

// The first kind of the policy's list that is present decides. An invalid
// credential is never followed by another try.
func TestTheFirstKindThatIsPresentDecides(t *testing.T) {
	t.Parallel()
	const (
		s = authz.KindSession
		b = authz.KindBearer
		k = authz.KindAPIKey
	)
	for name, tt := range map[string]struct {
		kinds   []authz.Kind
		headers []string
		kind    authz.Kind
		reason  authz.Reason
	}{
		"session alone":                    {kinds(s), aliceSession, s, ""},
		"session before bearer":            {kinds(s, b), with(aliceSession, forgedToken), s, ""},
		"bearer before session":            {kinds(b, s), with(forgedSession, aliceToken), b, ""},
		"only bearer presented":            {kinds(s, b), aliceToken, b, ""},
		"only key presented":               {kinds(s, b, k), goodKey, k, ""},
		"another scheme is no bearer":      {kinds(b, s), with(basicAuth, aliceSession), s, ""},
		"another cookie is no session":     {kinds(s, b), with([]string{"cookie", "a=b"}, aliceToken), b, ""},
		"a kind that the policy ignores":   {kinds(b), with(forgedSession, wrongKey, aliceToken), b, ""},
		"forged session, valid token":      {kinds(s, b), with(forgedSession, aliceToken), s, authz.ReasonSessionForged},
		"dead session, valid token":        {kinds(s, b), with(deadSession, aliceToken), s, authz.ReasonSessionUnknown},
		"empty session, valid token":       {kinds(s, b), with(emptySession, aliceToken), s, authz.ReasonSessionForged},
		"forged token, valid session":      {kinds(b, s), with(forgedToken, aliceSession), b, authz.ReasonTokenInvalid},
		"scheme without token, session":    {kinds(b, s), with(bareScheme, aliceSession), b, authz.ReasonTokenInvalid},
		"wrong key, valid session":         {kinds(k, s), with(wrongKey, aliceSession), k, authz.ReasonAPIKeyUnknown},
		"empty key, valid session":         {kinds(k, s), with(emptyKey, aliceSession), k, authz.ReasonAPIKeyUnknown},
		"none of the kinds presented":      {kinds(s), with(aliceToken, goodKey), "", authz.ReasonNoCredential},
		"nothing presented":                {kinds(s, b, k), nil, "", authz.ReasonNoCredential},
		"the policy accepts nobody":        {nil, with(aliceSession, aliceToken, goodKey), "", authz.ReasonNoCredential},
		"a kind that nothing resolves":     {kinds("mtls", s), aliceSession, "", authz.ReasonInternal},
		"… is refused only when its turn":  {kinds(s, "mtls"), aliceSession, s, ""},
		"… and when nothing was presented": {kinds(s, "mtls"), nil, "", authz.ReasonInternal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := newGate(t).decide(authz.Policy{Credentials: tt.kinds}, get(t, tt.headers...))
			requireReason(t, tt.reason, err)
			require.Equal(t, tt.kind, d.Kind)
			require.Equal(t, "p", d.Policy.Name)
			require.NoError(t, d.Observed)
			if tt.reason == "" {
				require.Equal(t, authz.ReasonAuthenticated, d.Reason)
				require.Equal(t, tt.kind, d.Principal.Kind)
				return
			}
			require.Equal(t, tt.reason, d.Reason)
			require.Nil(t, d.Principal)
		})
	}
}

// A request without a credential costs nobody anything.
func TestNoCredentialNeverAsksAStore(t *testing.T) {
	t.Parallel()
	for _, headers := range [][]string{
		nil, basicAuth, {"cookie", "theme=dark"}, {"cookie", "SessionId=signed.alice; xsessionId=signed.alice"}, {"authorization", ""},
	} {
		g := newGate(t)
		_, err := g.decide(authz.Policy{Credentials: kinds(authz.KindSession, authz.KindBearer, authz.KindAPIKey)}, get(t, headers...))
		requireReason(t, authz.ReasonNoCredential, err)
		require.Zero(t, g.storeCalls())
		require.Zero(t, g.tokens.calls.Load())
	}
}

// One question for one credential.
func TestACredentialAsksOnce(t *testing.T) {
	t.Parallel()
	for _, headers := range [][]string{aliceSession, aliceToken} {
		g := newGate(t)
		_, err := g.decide(authz.Policy{Credentials: kinds(authz.KindSession, authz.KindBearer, authz.KindAPIKey)}, get(t, headers...))
		require.NoError(t, err)
		require.Equal(t, 1, g.storeCalls())
	}
	g := newGate(t)
	_, err := g.decide(authz.Policy{Credentials: kinds(authz.KindAPIKey)}, get(t, goodKey...))
	require.NoError(t, err)
	require.Zero(t, g.storeCalls())
}

// A refused request path asks nobody either.
func TestNoPolicyAsksNobody(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	r, err := authz.NewRequest(authz.RequestParts{Method: "GET", Target: "/", Headers: headerMap(aliceSession...), PolicyName: "missing", HasPolicyName: true})
	require.NoError(t, err)
	d, err := g.authorizer(authz.Policy{Credentials: kinds(authz.KindSession)}).Authorize(t.Context(), r)
	requireReason(t, authz.ReasonPolicyUnknown, err)
	require.NotNil(t, d)
	require.Equal(t, authz.ReasonPolicyUnknown, d.Reason)
	require.Nil(t, d.Policy)
	require.Zero(t, g.storeCalls())
}

// Valid gives identity, invalid gives none, unknowable refuses.
func TestAnonymous(t *testing.T) {
	t.Parallel()
	every := kinds(authz.KindSession, authz.KindBearer, authz.KindAPIKey)
	revoked := authz.Standing{Revoked: true}
	for name, tt := range map[string]struct {
		headers  []string
		arrange  func(*gate)
		policy   authz.Policy
		identity string
		want     authz.Reason
	}{
		"valid session":           {headers: aliceSession, identity: "alice"},
		"valid token":             {headers: aliceToken, identity: "alice"},
		"valid key":               {headers: goodKey, identity: "service:billing"},
		"nothing":                 {},
		"forged session":          {headers: forgedSession},
		"forged session, token":   {headers: with(forgedSession, aliceToken)}, // no second try
		"unknown session":         {headers: deadSession},
		"forged token":            {headers: forgedToken},
		"wrong key":               {headers: wrongKey},
		"revoked session":         {headers: aliceSession, arrange: func(g *gate) { g.sessions.sessions["alice"].Standing = revoked }},
		"session of nobody":       {headers: aliceSession, arrange: func(g *gate) { g.sessions.sessions["alice"].ID = "" }},
		"malformed session":       {headers: aliceSession, arrange: func(g *gate) { g.sessions.err = authz.Refuse(authz.ReasonSessionMalformed, "x") }},
		"expired session":         {headers: aliceSession, arrange: func(g *gate) { g.sessions.err = authz.Refuse(authz.ReasonSessionExpired, "x") }},
		"idle session":            {headers: aliceSession, arrange: func(g *gate) { g.sessions.err = authz.Refuse(authz.ReasonSessionIdle, "x") }},
		"revoked token":           {headers: aliceToken, arrange: func(g *gate) { g.standing.standing = revoked }},
		"expired token":           {headers: aliceToken, arrange: func(g *gate) { g.tokens.err = authz.Refuse(authz.ReasonTokenExpired, "x") }},
		"disabled user":           {headers: aliceToken, arrange: func(g *gate) { g.standing.standing.Profile = &authz.Profile{Disabled: true} }},
		"stale login":             {headers: aliceSession, policy: authz.Policy{MaxAuthAge: 1}},
		"session store out":       {headers: aliceSession, arrange: func(g *gate) { g.sessions.err = errStore }, want: authz.ReasonStoreUnavailable},
		"token store out":         {headers: aliceToken, arrange: func(g *gate) { g.standing.err = errStore }, want: authz.ReasonStoreUnavailable},
		"issuer out":              {headers: aliceToken, arrange: func(g *gate) { g.tokens.err = authz.Refuse(authz.ReasonIssuerUnavailable, "x") }, want: authz.ReasonIssuerUnavailable},
		"malformed profile":       {headers: aliceSession, arrange: func(g *gate) { g.sessions.err = authz.Refuse(authz.ReasonProfileMalformed, "x") }, want: authz.ReasonProfileMalformed},
		"a bug":                   {headers: aliceSession, arrange: func(g *gate) { g.sessions.err = io.EOF }, want: authz.ReasonInternal},
		"store out, forged":       {headers: forgedSession, arrange: func(g *gate) { g.sessions.err = errStore }},
		"store out, nothing":      {arrange: func(g *gate) { g.sessions.err, g.standing.err = errStore, errStore }},
		"valid, without the role": {headers: aliceSession, policy: authz.Policy{RolesAny: []string{"root"}}, want: authz.ReasonRole},
		"valid, wrong issuer":     {headers: aliceToken, policy: authz.Policy{Issuers: []string{"https://x"}}, want: authz.ReasonIssuer},
		"a key of other policies": {headers: goodKey, arrange: func(g *gate) { g.keys[0].Policies = nil }, want: authz.ReasonAPIKeyPolicy},
		"nobody, roles asked":     {policy: authz.Policy{RolesAny: []string{"root"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			if tt.arrange != nil {
				tt.arrange(g)
			}
			tt.policy.Anonymous, tt.policy.Credentials = true, every
			d, err := g.decide(tt.policy, get(t, tt.headers...))
			requireReason(t, tt.want, err)
			if tt.want != "" {
				require.Equal(t, tt.want, d.Reason)
				return
			}
			if tt.identity == "" {
				require.Nil(t, d.Principal)
				require.Equal(t, authz.ReasonAnonymous, d.Reason)
				return
			}
			require.Equal(t, tt.identity, d.Principal.ID)
			require.Equal(t, authz.ReasonAuthenticated, d.Reason)
		})
	}
}

// Every reason either proves that there is no valid credential, or refuses an
// anonymous request too: a new reason must be put on one of the two sides.
func TestAnonymousOverEveryReason(t *testing.T) {
	t.Parallel()
	proof := map[authz.Reason]bool{authz.ReasonAPIKeyUnknown: true, authz.ReasonAPIKeyExpired: true}
	for _, reason := range authz.Reasons() {
		g := newGate(t)
		g.sessions.err = &authz.Error{Reason: reason}
		d, err := g.decide(authz.Policy{Anonymous: true, Credentials: kinds(authz.KindSession)}, get(t, aliceSession...))
		if answers[reason].status == 401 || proof[reason] {
			require.NoError(t, err, reason)
			require.Nil(t, d.Principal, reason)
			require.Equal(t, authz.ReasonAnonymous, d.Reason, reason)
		} else {
			requireReason(t, reason, err)
		}
	}
}

// {anonymous: true} with no kinds looks at no credential and never fails with
// a store.
func TestPublicLooksAtNoCredential(t *testing.T) {
	t.Parallel()
	for _, headers := range [][]string{nil, aliceSession, forgedSession, aliceToken, forgedToken, goodKey, wrongKey, with(aliceSession, aliceToken, goodKey)} {
		g := newGate(t)
		g.sessions.err, g.standing.err, g.tokens.err = errStore, errStore, errStore
		for _, method := range []string{"GET", "POST"} {
			d, err := g.decide(authz.Policy{Anonymous: true}, request(t, method, "/", with(headers, []string{"sec-fetch-site", "cross-site"})...))
			require.NoError(t, err)
			require.Nil(t, d.Principal)
			require.Empty(t, d.Kind)
		}
		require.Zero(t, g.storeCalls())
		require.Zero(t, g.tokens.calls.Load())
	}
}

// Nobody meets the condition as nobody, not as nil.
func TestConditionOnNobody(t *testing.T) {
	t.Parallel()
	for _, headers := range [][]string{nil, forgedSession} {
		for want, ok := range map[authz.Reason]bool{"": true, authz.ReasonCondition: false} {
			p := authz.Policy{Anonymous: true, Credentials: kinds(authz.KindSession), Condition: func(_ *authz.Request, p *authz.Principal) (bool, error) {
				return ok && p.ID == "" && p.Roles == nil && p.Kind == "", nil
			}}
			d, err := newGate(t).decide(p, get(t, headers...))
			requireReason(t, want, err)
			require.Nil(t, d.Principal)
		}
	}
}

// Observe decides everything and refuses nothing; what it would have refused
// is there for the log.
func TestObserve(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		policy   authz.Policy
		method   string
		headers  []string
		arrange  func(*gate)
		would    authz.Reason
		identity string
	}{
		"would allow":      {headers: aliceSession, identity: "alice"},
		"no credential":    {would: authz.ReasonNoCredential},
		"forged":           {headers: forgedSession, would: authz.ReasonSessionForged},
		"revoked token":    {headers: aliceToken, arrange: func(g *gate) { g.standing.standing.Revoked = true }, would: authz.ReasonTokenRevoked},
		"store out":        {headers: aliceSession, arrange: func(g *gate) { g.sessions.err = errStore }, would: authz.ReasonStoreUnavailable},
		"stale login":      {headers: aliceSession, policy: authz.Policy{MaxAuthAge: 1}, would: authz.ReasonSessionStale},
		"without the role": {headers: aliceSession, policy: authz.Policy{RolesAny: []string{"root"}}, would: authz.ReasonRole, identity: "alice"},
		"cross site":       {method: "POST", headers: with(aliceSession, []string{"origin", "https://evil.test"}), would: authz.ReasonCrossSite, identity: "alice"},
		"limited":          {headers: aliceSession, policy: authz.Policy{RateLimit: "l"}, arrange: func(g *gate) { g.limiter.err = authz.Refuse(authz.ReasonRateLimited, "x") }, would: authz.ReasonRateLimited, identity: "alice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			if tt.arrange != nil {
				tt.arrange(g)
			}
			if tt.method == "" {
				tt.method = "GET"
			}
			tt.policy.Observe, tt.policy.Credentials = true, kinds(authz.KindSession, authz.KindBearer)
			d, err := g.decide(tt.policy, request(t, tt.method, "/", tt.headers...))
			require.NoError(t, err)
			if tt.would == "" {
				require.NoError(t, d.Observed)
			} else {
				requireReason(t, tt.would, d.Observed)
			}
			if tt.identity == "" {
				require.Nil(t, d.Principal)
				require.Equal(t, authz.ReasonAnonymous, d.Reason)
			} else {
				require.Equal(t, tt.identity, d.Principal.ID)
				require.Equal(t, authz.ReasonAuthenticated, d.Reason)
			}

			// Not observed, the same request is refused for the same reason.
			tt.policy.Observe = false
			_, err = g.decide(tt.policy, request(t, tt.method, "/", tt.headers...))
			requireReason(t, tt.would, err)
		})
	}
}

// unsigned is an asserter that can't sign, and counts how often it was asked to.
type unsigned struct{ asked int }

func (u *unsigned) Assert(*authz.Principal, string) (string, error) {
	u.asked++
	return "", errors.New("the key is gone")
}

// Who is observed and can't be told of is let pass untold, and asked for once.
func TestObserveAsksForAnAssertionOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		policy authz.Policy
		would  authz.Reason
	}{
		"would allow":      {would: authz.ReasonInternal},
		"without the role": {policy: authz.Policy{RolesAny: []string{"root"}}, would: authz.ReasonRole},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, signer := newGate(t), &unsigned{}
			g.asserter = signer
			tt.policy.Credentials, tt.policy.Assertion = kinds(authz.KindSession), authz.Assertion{Audience: "orders"}
			tt.policy.Observe = true
			d, err := g.decide(tt.policy, request(t, "GET", "/", aliceSession...))
			require.NoError(t, err)
			requireReason(t, tt.would, d.Observed)
			require.Equal(t, "alice", d.Principal.ID)
			require.Empty(t, d.Extra)
			require.Equal(t, 1, signer.asked)

			tt.policy.Observe = false
			_, err = g.decide(tt.policy, request(t, "GET", "/", aliceSession...))
			requireReason(t, tt.would, err)
		})
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	limited := authz.Policy{Credentials: kinds(authz.KindSession), RateLimit: "partner"}
	exceeded := authz.Refuse(authz.ReasonRateLimited, "x")

	t.Run("counts whom the policy permits", func(t *testing.T) {
		t.Parallel()
		g := newGate(t)
		_, err := g.decide(limited, get(t, aliceSession...))
		require.NoError(t, err)
		require.Equal(t, 1, g.limiter.calls)
		require.Equal(t, "partner", g.limiter.name)
		require.Equal(t, "alice", g.limiter.principal.ID)
	})
	t.Run("does not count who is refused anyway", func(t *testing.T) {
		t.Parallel()
		g := newGate(t)
		g.limiter.err = exceeded
		_, err := g.decide(limited, get(t, forgedSession...))
		requireReason(t, authz.ReasonSessionForged, err)
		p := limited
		p.RolesAny = []string{"root"}
		_, err = g.decide(p, get(t, aliceSession...))
		requireReason(t, authz.ReasonRole, err)
		require.Zero(t, g.limiter.calls)
	})
	t.Run("counts nobody too", func(t *testing.T) {
		t.Parallel()
		g := newGate(t)
		g.limiter.err, g.limiter.quota = exceeded, authz.Quota{Limit: "partner", Next: 7 * time.Second}
		p := limited
		p.Anonymous = true
		d, err := g.decide(p, get(t))
		requireReason(t, authz.ReasonRateLimited, err)
		require.Equal(t, g.limiter.quota, d.Quota)
		require.Nil(t, g.limiter.principal)
		require.Equal(t, 1, g.limiter.calls)
	})
	t.Run("refuses with the wait", func(t *testing.T) {
		t.Parallel()
		g := newGate(t)
		g.limiter.err, g.limiter.quota = exceeded, authz.Quota{Limit: "partner", Requests: 2, Per: time.Minute, Burst: 2, Next: 30 * time.Second}
		r := get(t, aliceSession...)
		d, err := g.decide(limited, r)
		requireReason(t, authz.ReasonRateLimited, err)
		require.Equal(t, authz.Answer{
			Status: 429, Body: tooMany, RetryAfter: 30, RateLimitPolicy: `"partner";q=2;w=60`, RateLimit: `"partner";r=0;t=30`,
		}, authz.AnswerTo(d, r, err))
	})
	t.Run("store out", func(t *testing.T) {
		t.Parallel()
		g := newGate(t)
		g.limiter.err = errStore
		_, err := g.decide(limited, get(t, aliceSession...))
		requireReason(t, authz.ReasonStoreUnavailable, err)
	})
	t.Run("not asked without a limit", func(t *testing.T) {
		t.Parallel()
		g := newGate(t)
		g.limiter.err = exceeded
		_, err := g.decide(authz.Policy{Credentials: kinds(authz.KindSession)}, get(t, aliceSession...))
		require.NoError(t, err)
		require.Zero(t, g.limiter.calls)
	})
	t.Run("a limit without a limiter refuses", func(t *testing.T) {
		t.Parallel()
		policies, err := authz.NewPolicySet(authz.PolicySetOptions{Policies: []authz.Policy{{Name: "p", Anonymous: true, RateLimit: "x"}}, Default: "p"})
		require.NoError(t, err)
		_, err = authz.NewAuthorizer(policies, authz.Options{}).Authorize(t.Context(), get(t))
		requireReason(t, authz.ReasonInternal, err)
	})
}

// custom is an authenticator of a kind of its own.
type custom struct {
	kind      authz.Kind
	principal *authz.Principal
	err       error
}

func (c custom) Kind() authz.Kind { return c.kind }
func (c custom) Credential(r *authz.Request) (string, bool) {
	return r.Headers.Header("x-custom")
}

func (c custom) Authenticate(context.Context, string, *authz.Policy) (*authz.Principal, error) {
	return c.principal, c.err
}

func TestCustomAuthenticator(t *testing.T) {
	t.Parallel()
	carol := &authz.Principal{Identity: authz.Identity{ID: "carol"}, Kind: "custom"}
	for name, tt := range map[string]struct {
		authenticators []authz.Authenticator
		want           authz.Reason
	}{
		"one":                       {[]authz.Authenticator{custom{"custom", carol, nil}}, ""},
		"the later of two counts":   {[]authz.Authenticator{custom{"custom", nil, errors.New("x")}, custom{"custom", carol, nil}}, ""},
		"invalid":                   {[]authz.Authenticator{custom{"custom", nil, authz.Refuse(authz.ReasonCredentialInvalid, "x")}}, authz.ReasonCredentialInvalid},
		"an error without a reason": {[]authz.Authenticator{custom{"custom", nil, io.EOF}}, authz.ReasonInternal},
		"both":                      {[]authz.Authenticator{custom{"custom", carol, io.EOF}}, authz.ReasonInternal},
		"two nils":                  {[]authz.Authenticator{custom{"custom", nil, nil}}, authz.ReasonInternal},
		"a principal without an id": {[]authz.Authenticator{custom{"custom", &authz.Principal{}, nil}}, authz.ReasonInternal},
		"a user named as a service": {[]authz.Authenticator{custom{"custom", &authz.Principal{Identity: authz.Identity{ID: "service:x"}}, nil}}, authz.ReasonCredentialInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, anonymous := range []bool{false, true} {
				policies, err := authz.NewPolicySet(authz.PolicySetOptions{
					Policies: []authz.Policy{{Name: "p", Credentials: kinds("custom"), Anonymous: anonymous}}, Default: "p",
				})
				require.NoError(t, err)
				d, err := authz.NewAuthorizer(policies, authz.Options{}, tt.authenticators...).Authorize(t.Context(), get(t, "x-custom", "v"))
				if anonymous && tt.want == authz.ReasonCredentialInvalid {
					require.NoError(t, err)
					require.Nil(t, d.Principal)
					continue
				}
				requireReason(t, tt.want, err)
				require.Equal(t, tt.want == "", d.Principal == carol)
			}
		})
	}
}

// An id that begins with service: is an internal caller's: services would take
// a user of that name for one.
func TestNoUserIsAService(t *testing.T) {
	t.Parallel()
	policy := authz.Policy{Credentials: kinds(authz.KindSession, authz.KindBearer, authz.KindAPIKey)}
	for id, refused := range map[string]bool{"service:billing": true, "service:": true, "service": false, "Service:x": false, "a service:x": false} {
		g := newGate(t)
		g.sessions.sessions["s"] = &authz.Session{Identity: authz.Identity{ID: id}}
		g.tokens.tokens["t"] = &authz.Token{Identity: authz.Identity{ID: id}}
		for want, headers := range map[authz.Reason][]string{
			authz.ReasonSessionMalformed: {"cookie", "sessionId=signed.s"},
			authz.ReasonTokenInvalid:     {"authorization", "Bearer t"},
		} {
			if !refused {
				want = ""
			}
			d, err := g.decide(policy, get(t, headers...))
			requireReason(t, want, err)
			require.Equal(t, refused, d.Principal == nil)
		}
	}
	d, err := newGate(t).decide(policy, get(t, goodKey...))
	require.NoError(t, err)
	require.Equal(t, authz.ServicePrefix+"billing", d.Principal.ID)
}

// One authorizer serves every request at a time; -race watches.
func TestAuthorizerIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	g.sessions.err = errStore // the fakes note what they were asked: leave them out
	a := g.authorizer(authz.Policy{Credentials: kinds(authz.KindAPIKey, authz.KindSession), Organizations: []string{""}})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if _, err := a.Authorize(context.Background(), get(t, goodKey...)); err != nil {
					t.Error(err)
				}
				if _, err := a.Authorize(context.Background(), get(t, forgedSession...)); authz.ReasonOf(err) != authz.ReasonSessionForged {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
