package explain_test

import (
	"context"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/explain"
)

func TestEveryReasonHasAMeaning(t *testing.T) {
	t.Parallel()
	for _, reason := range authz.Reasons() {
		m := explain.MeaningOf(reason)
		require.Regexp(t, `^[A-Z].*\.$`, m.Means, reason)
		allowed := reason == authz.ReasonAuthenticated || reason == authz.ReasonAnonymous
		require.Equal(t, allowed, m.Do == "", reason)
		if !allowed {
			require.Regexp(t, "^[`A-Z].*[.?]$", m.Do, reason)
		}
		last := steps(explain.Known{Policy: "p", Kind: authz.KindSession, Reason: reason, Error: "why"})
		require.Contains(t, last[len(last)-1], "refused", reason)
		require.Equal(t, 1, strings.Count(strings.Join(last, "\n"), "refused"), reason)
	}
	require.Empty(t, explain.MeaningOf("no such reason").Means)
}

func steps(k explain.Known) []string {
	var all []string
	for _, s := range k.Steps() {
		all = append(all, s.Stage+" "+s.Outcome)
	}
	return all
}

// What is told of a refusal that is over is what a trace of the same request tells:
// the stages that were passed, and the one that refused.
func TestStepsAreThoseOfATrace(t *testing.T) {
	t.Parallel()
	now := time.Now()
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{
		Policies: []authz.Policy{
			{Name: "user", Credentials: []authz.Kind{authz.KindSession, authz.KindAPIKey}},
			{Name: "admin", Credentials: []authz.Kind{authz.KindSession}, RolesAny: []string{"admin"}},
			{Name: "org", Credentials: []authz.Kind{authz.KindSession}, Organizations: []string{"org-9"}},
			{Name: "recent", Credentials: []authz.Kind{authz.KindSession}, MaxAuthAge: time.Minute},
			{Name: "limited", Credentials: []authz.Kind{authz.KindSession}, RateLimit: "few"},
			{Name: "nobody", Anonymous: true, RateLimit: "few"},
		},
	})
	require.NoError(t, err)
	keys := authz.NewAPIKeys([]authz.APIKey{{Name: "billing", SHA256: sha256.Sum256([]byte("key")), Policies: []string{"internal"}}}, nil)
	a := authz.NewAuthorizer(policies, authz.Options{Limiter: usedUp{}}, authz.NewSessions("sessionId", signed{}, records{now}), keys)
	for name, tt := range map[string]struct {
		policy string
		header authz.HeaderMap
		method string
		want   authz.Reason
	}{
		"no policy":       {"", nil, "GET", authz.ReasonNoPolicy},
		"unknown policy":  {"typo", nil, "GET", authz.ReasonPolicyUnknown},
		"nothing shown":   {"user", nil, "GET", authz.ReasonNoCredential},
		"a forged cookie": {"user", authz.HeaderMap{"cookie": "sessionId=forged"}, "GET", authz.ReasonSessionForged},
		"an old cookie":   {"user", authz.HeaderMap{"cookie": "sessionId=ok.gone"}, "GET", authz.ReasonSessionUnknown},
		"unused":          {"user", authz.HeaderMap{"cookie": "sessionId=ok.idle"}, "GET", authz.ReasonSessionIdle},
		"a visitor":       {"user", authz.HeaderMap{"cookie": "sessionId=ok.visitor"}, "GET", authz.ReasonSessionAnonymous},
		"revoked":         {"user", authz.HeaderMap{"cookie": "sessionId=ok.revoked"}, "GET", authz.ReasonSessionRevoked},
		"locked out":      {"user", authz.HeaderMap{"cookie": "sessionId=ok.disabled"}, "GET", authz.ReasonUserDisabled},
		"no role":         {"admin", authz.HeaderMap{"cookie": "sessionId=ok.alice"}, "GET", authz.ReasonRole},
		"elsewhere":       {"org", authz.HeaderMap{"cookie": "sessionId=ok.alice"}, "GET", authz.ReasonOrganization},
		"long ago":        {"recent", authz.HeaderMap{"cookie": "sessionId=ok.alice"}, "GET", authz.ReasonSessionStale},
		"another site":    {"user", authz.HeaderMap{"cookie": "sessionId=ok.alice", "sec-fetch-site": "cross-site"}, "POST", authz.ReasonCrossSite},
		"too often":       {"limited", authz.HeaderMap{"cookie": "sessionId=ok.alice"}, "GET", authz.ReasonRateLimited},
		"too often, by nobody": {
			"nobody", nil, "GET", authz.ReasonRateLimited,
		},
		"another key":     {"user", authz.HeaderMap{"x-internal-api-key": "other"}, "GET", authz.ReasonAPIKeyUnknown},
		"another's key":   {"user", authz.HeaderMap{"x-internal-api-key": "key"}, "GET", authz.ReasonAPIKeyPolicy},
		"the store":       {"user", authz.HeaderMap{"cookie": "sessionId=ok.outage"}, "GET", authz.ReasonStoreUnavailable},
		"a broken record": {"user", authz.HeaderMap{"cookie": "sessionId=ok.broken"}, "GET", authz.ReasonSessionMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			headers := tt.header
			if headers == nil {
				headers = authz.HeaderMap{}
			}
			r, err := authz.NewRequest(authz.RequestParts{
				Method: tt.method, Authority: "gateway.example.com", Target: "/x", Headers: headers, PolicyName: tt.policy, HasPolicyName: tt.policy != "",
			})
			require.NoError(t, err)
			var trace authz.Trace
			d, err := a.Authorize(authz.WithTrace(t.Context(), &trace), r)
			require.Error(t, err)
			require.Equal(t, tt.want, authz.ReasonOf(err))
			passed := map[string]bool{}
			refusedBy := ""
			for _, s := range trace.Steps {
				switch {
				case s.Outcome == authz.OutcomeRefused && refusedBy == "":
					refusedBy = string(s.Stage)
				case s.Outcome == authz.OutcomeOK && refusedBy == "":
					passed[string(s.Stage)] = true
				}
			}
			k := explain.Known{Kind: d.Kind, Reason: tt.want, Error: err.Error()}
			if d.Policy != nil {
				k.Policy = d.Policy.Name
			}
			told := k.Steps()
			refusal := told[len(told)-1]
			require.Equal(t, err.Error(), refusal.Detail)
			if tt.want != authz.ReasonStoreUnavailable { // found wherever it is asked
				if refusedBy != "" { // what no step is about is told by the reason alone
					require.Equal(t, refusedBy, refusal.Stage)
				}
			}
			for _, s := range told[:len(told)-1] {
				if s.Stage == "revocation" || s.Stage == "condition" { // may have nothing to pass
					continue
				}
				require.True(t, passed[s.Stage], "%s is told and was not passed: %+v", s.Stage, trace.Steps)
			}
		})
	}
}

func TestAnOutageTellsNoStageThatMayNotHaveBeenReached(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"policy ok", "credential ok", " refused"}, steps(explain.Known{Policy: "p", Kind: authz.KindBearer, Reason: authz.ReasonStoreUnavailable}))
	require.Equal(t, []string{"request refused"}, steps(explain.Known{Reason: authz.ReasonOverloaded}))
	require.Equal(t, []string{"request refused"}, steps(explain.Known{Reason: authz.ReasonBadPath}))
}

type signed struct{}

func (signed) Verify(value string) (id string, ok bool) { return strings.CutPrefix(value, "ok.") }

type records struct{ now time.Time }

func (s records) Session(_ context.Context, id string, _ authz.ReadOptions) (*authz.Session, error) {
	session := &authz.Session{Identity: authz.Identity{ID: "alice", Organization: "org-1"}, AuthTime: s.now.Add(-time.Hour)}
	switch id {
	case "gone":
		return nil, authz.Refuse(authz.ReasonSessionUnknown, "there is none")
	case "idle":
		return nil, authz.Refuse(authz.ReasonSessionIdle, "unused")
	case "broken":
		return nil, authz.Refuse(authz.ReasonSessionMalformed, "not JSON")
	case "outage":
		return nil, authz.Refuse(authz.ReasonStoreUnavailable, "no answer")
	case "visitor":
		session.Identity = authz.Identity{}
	case "revoked":
		session.Standing.RevokedBefore = s.now
	case "disabled":
		session.Standing.Profile = &authz.Profile{Disabled: true}
	}
	return session, nil
}

type usedUp struct{}

func (usedUp) Allow(context.Context, string, *authz.Request, *authz.Principal) (authz.Quota, error) {
	return authz.Quota{}, authz.Refuse(authz.ReasonRateLimited, "used up")
}

func (l usedUp) Peek(ctx context.Context, name string, r *authz.Request, p *authz.Principal) (authz.Quota, error) {
	return l.Allow(ctx, name, r, p)
}
