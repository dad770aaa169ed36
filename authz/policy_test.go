package authz_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func TestPermits(t *testing.T) {
	t.Parallel()
	user := &authz.Principal{Identity: alice, Kind: authz.KindSession}
	token := &authz.Principal{Identity: alice, Kind: authz.KindBearer, Issuer: issuer, Audiences: []string{"api", "web"}}
	nobody := &authz.Principal{Identity: authz.Identity{ID: "n"}, Kind: authz.KindSession}
	condition := func(ok bool, err error) func(*authz.Request, *authz.Principal) (bool, error) {
		return func(*authz.Request, *authz.Principal) (bool, error) { return ok, err }
	}
	for name, tt := range map[string]struct {
		policy    authz.Policy
		principal *authz.Principal
		want      authz.Reason
	}{
		"asks nothing": {authz.Policy{}, nobody, ""},

		"any role, has one":                     {authz.Policy{RolesAny: []string{"auditor", "admin"}}, user, ""},
		"any role, has none of them":            {authz.Policy{RolesAny: []string{"auditor", "root"}}, user, authz.ReasonRole},
		"any role, has none at all":             {authz.Policy{RolesAny: []string{"admin"}}, nobody, authz.ReasonRole},
		"any role, another case":                {authz.Policy{RolesAny: []string{"Admin"}}, user, authz.ReasonRole},
		"any role, a part of one":               {authz.Policy{RolesAny: []string{"adm"}}, user, authz.ReasonRole},
		"an empty role is no role":              {authz.Policy{RolesAny: []string{""}}, nobody, authz.ReasonRole},
		"all roles":                             {authz.Policy{RolesAll: []string{"user", "admin"}}, user, ""},
		"all roles but one":                     {authz.Policy{RolesAll: []string{"user", "auditor"}}, user, authz.ReasonRole},
		"any and all":                           {authz.Policy{RolesAny: []string{"admin"}, RolesAll: []string{"user"}}, user, ""},
		"any, not all":                          {authz.Policy{RolesAny: []string{"admin"}, RolesAll: []string{"auditor"}}, user, authz.ReasonRole},
		"all, not any":                          {authz.Policy{RolesAny: []string{"auditor"}, RolesAll: []string{"admin"}}, user, authz.ReasonRole},
		"organization":                          {authz.Policy{Organizations: []string{"org-9", "org-1"}}, user, ""},
		"another organization":                  {authz.Policy{Organizations: []string{"org-2"}}, user, authz.ReasonOrganization},
		"no organization":                       {authz.Policy{Organizations: []string{"org-1"}}, nobody, authz.ReasonOrganization},
		"an organization that they may also be": {authz.Policy{Organizations: []string{"org-3"}}, &authz.Principal{Identity: alice, Organizations: []string{"org-3"}}, authz.ReasonOrganization},

		"issuer":                             {authz.Policy{Issuers: []string{"https://x", issuer}}, token, ""},
		"another issuer":                     {authz.Policy{Issuers: []string{"https://x"}}, token, authz.ReasonIssuer},
		"issuer with a slash":                {authz.Policy{Issuers: []string{issuer + "/"}}, token, authz.ReasonIssuer},
		"issuers do not concern a session":   {authz.Policy{Issuers: []string{"https://x"}}, user, ""},
		"audience":                           {authz.Policy{Audiences: []string{"x", "web"}}, token, ""},
		"another audience":                   {authz.Policy{Audiences: []string{"x"}}, token, authz.ReasonAudience},
		"audiences do not concern a session": {authz.Policy{Audiences: []string{"x"}}, user, ""},

		"condition true":             {authz.Policy{Condition: condition(true, nil)}, user, ""},
		"condition false":            {authz.Policy{Condition: condition(false, nil)}, user, authz.ReasonCondition},
		"condition fails":            {authz.Policy{Condition: condition(false, errors.New("no such key"))}, user, authz.ReasonCondition},
		"condition true but failing": {authz.Policy{Condition: condition(true, errors.New("no such key"))}, user, authz.ReasonCondition},
		"condition after the roles":  {authz.Policy{RolesAny: []string{"x"}, Condition: condition(false, nil)}, user, authz.ReasonRole},
		// The reason of an error from inside must not become the answer.
		"condition fails with a reason": {authz.Policy{Condition: condition(false, errStore)}, user, authz.ReasonCondition},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireReason(t, tt.want, tt.policy.Permits(get(t), tt.principal))
		})
	}
}

func TestConditionSeesRequestAndPrincipal(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	asked := 0
	p := authz.Policy{Credentials: []authz.Kind{authz.KindSession}, Condition: func(r *authz.Request, p *authz.Principal) (bool, error) {
		asked++
		return r.Path == "/orders" && r.Query == "id=7" && p.ID == "alice" && p.Session["theme"] == "dark", nil
	}}
	_, err := g.decide(p, request(t, "GET", "/%6frders?id=7", "cookie", "sessionId=signed.alice"))
	require.NoError(t, err)
	require.Equal(t, 1, asked)
}

func TestMaxAuthAge(t *testing.T) {
	t.Parallel()
	every := []authz.Kind{authz.KindSession, authz.KindBearer, authz.KindAPIKey}
	for name, tt := range map[string]struct {
		age    time.Duration // of authTime; negative: none
		max    time.Duration
		tooOld bool
	}{
		"no maximum":            {age: 1000 * time.Hour},
		"no maximum, no time":   {age: -1},
		"young enough":          {age: 5 * time.Minute, max: 15 * time.Minute},
		"exactly old enough":    {age: 15 * time.Minute, max: 15 * time.Minute},
		"too old by little":     {age: 15*time.Minute + 1, max: 15 * time.Minute, tooOld: true},
		"too old":               {age: time.Hour, max: 15 * time.Minute, tooOld: true},
		"does not say how old":  {age: -1, max: 15 * time.Minute, tooOld: true},
		"too old for a short 1": {age: time.Second, max: time.Nanosecond, tooOld: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			var authTime time.Time
			if tt.age >= 0 {
				authTime = ago(tt.age)
			}
			g.sessions.sessions["s"] = &authz.Session{Identity: alice, AuthTime: authTime}
			g.tokens.tokens["t"] = &authz.Token{Identity: alice, AuthTime: authTime, IssuedAt: now}
			policy := authz.Policy{Credentials: every, MaxAuthAge: tt.max, RolesAny: []string{"admin"}}
			for _, credential := range []struct {
				headers []string
				reason  authz.Reason
			}{
				{[]string{"cookie", "sessionId=signed.s"}, authz.ReasonSessionStale},
				{[]string{"authorization", "Bearer t"}, authz.ReasonTokenStale},
			} {
				want := credential.reason
				if !tt.tooOld {
					want = ""
				}
				_, err := g.decide(policy, get(t, credential.headers...))
				requireReason(t, want, err)

				// The age is asked first: a stale principal is not told of roles.
				policy := policy
				policy.RolesAny = []string{"nobody has this"}
				if want == "" {
					want = authz.ReasonRole
				}
				_, err = g.decide(policy, get(t, credential.headers...))
				requireReason(t, want, err)
			}
		})
	}
}

// An API key tells no time of login: under a maximum it is too old.
func TestMaxAuthAgeRefusesAPIKeys(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	_, err := g.decide(authz.Policy{Credentials: []authz.Kind{authz.KindAPIKey}, MaxAuthAge: time.Hour}, get(t, "x-internal-api-key", apiKey))
	requireReason(t, authz.ReasonTokenStale, err)
}
