package authz_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// session authenticates the cookie value "signed.s" with a store that holds
// one session.
func session(tb testing.TB, s *authz.Session, p authz.Policy) (*authz.Principal, error) {
	tb.Helper()
	store := &sessionStore{sessions: map[string]*authz.Session{"s": s}}
	return authz.NewSessions("sessionId", cookieVerifier{}, store).Authenticate(tb.Context(), "signed.s", &p)
}

func TestSessionPrincipal(t *testing.T) {
	t.Parallel()
	values := map[string]any{"userId": "alice", "theme": "dark"}
	p, err := session(t, &authz.Session{Identity: alice, Organizations: []string{"org-1", "org-3"}, AuthTime: ago(time.Minute), LastSeen: now, Values: values}, authz.Policy{})
	require.NoError(t, err)
	require.Equal(t, &authz.Principal{
		Identity: alice, Kind: authz.KindSession, SessionID: "s", Organizations: []string{"org-1", "org-3"}, AuthTime: ago(time.Minute), Session: values,
	}, p)
}

func TestSessionRules(t *testing.T) {
	t.Parallel()
	login := time.Date(2026, time.November, 21, 11, 0, 0, 0, time.UTC) // sessions count whole seconds
	for name, tt := range map[string]struct {
		authTime time.Time
		standing authz.Standing
		want     authz.Reason
	}{
		"nothing against it":                        {login, authz.Standing{}, ""},
		"revoked by name":                           {login, authz.Standing{Revoked: true}, authz.ReasonSessionRevoked},
		"older than the mark":                       {login, authz.Standing{RevokedBefore: login.Add(time.Hour)}, authz.ReasonSessionRevoked},
		"of the second of the mark":                 {login, authz.Standing{RevokedBefore: login}, authz.ReasonSessionRevoked},
		"of the second of the mark, fraction later": {login, authz.Standing{RevokedBefore: login.Add(time.Millisecond)}, authz.ReasonSessionRevoked},
		"younger than the mark":                     {login, authz.Standing{RevokedBefore: login.Add(-time.Nanosecond)}, ""},
		"without a time, the mark does not apply":   {time.Time{}, authz.Standing{RevokedBefore: now}, ""},
		"without a time, revoked by name":           {time.Time{}, authz.Standing{Revoked: true}, authz.ReasonSessionRevoked},
		"disabled":                                  {login, authz.Standing{Profile: &authz.Profile{Disabled: true}}, authz.ReasonUserDisabled},
		"revoked and disabled":                      {login, authz.Standing{Revoked: true, Profile: &authz.Profile{Disabled: true}}, authz.ReasonSessionRevoked},
		"a profile that says nothing":               {login, authz.Standing{Profile: &authz.Profile{}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := session(t, &authz.Session{Identity: alice, AuthTime: tt.authTime, Standing: tt.standing}, authz.Policy{})
			requireReason(t, tt.want, err)
			require.Equal(t, tt.want != "", p == nil)
		})
	}
}

// A session's identity is that of its record: the profile wins over token
// claims only.
func TestProfileDoesNotChangeASession(t *testing.T) {
	t.Parallel()
	profile := &authz.Profile{Email: new("new@example.com"), Roles: new([]string{"root"}), Organization: new("org-9"), Organizations: []string{"org-9"}}
	p, err := session(t, &authz.Session{Identity: alice, Organizations: []string{"org-1"}, Standing: authz.Standing{Profile: profile}}, authz.Policy{})
	require.NoError(t, err)
	require.Equal(t, alice, p.Identity)
	require.Equal(t, []string{"org-1"}, p.Organizations)
}

// With saveUninitialized, express-session gives a signed cookie and a record
// to each visitor. Whoever has one has not logged in.
func TestSessionOfNobodyIsRefused(t *testing.T) {
	t.Parallel()
	p, err := session(t, &authz.Session{Identity: authz.Identity{Email: "a@b", Roles: []string{"admin"}, Organization: "o"}, Values: map[string]any{"cart": 1}}, authz.Policy{})
	requireReason(t, authz.ReasonSessionAnonymous, err)
	require.Nil(t, p)
}

func TestForgedCookieNeverAsksTheStore(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"", "alice", "signed", "Signed.alice", `"signed.alice"`, "s:alice.sig"} {
		g := newGate(t)
		d, err := g.decide(authz.Policy{Credentials: []authz.Kind{authz.KindSession}}, get(t, "cookie", "sessionId="+value))
		requireReason(t, authz.ReasonSessionForged, err)
		require.Equal(t, authz.KindSession, d.Kind)
		require.Nil(t, d.Principal)
		require.Zero(t, g.storeCalls())
	}
}

func TestSessionStoreRefusalsAreKept(t *testing.T) {
	t.Parallel()
	for _, reason := range []authz.Reason{
		authz.ReasonSessionUnknown, authz.ReasonSessionExpired, authz.ReasonSessionRevoked, authz.ReasonSessionIdle,
		authz.ReasonSessionMalformed, authz.ReasonProfileMalformed, authz.ReasonStoreUnavailable,
	} {
		g := newGate(t)
		g.sessions.err = fmt.Errorf("load: %w", authz.Refuse(reason, "cause"))
		_, err := g.decide(authz.Policy{Credentials: []authz.Kind{authz.KindSession}}, get(t, "cookie", "sessionId=signed.alice"))
		requireReason(t, reason, err)
	}
	g := newGate(t)
	g.sessions.err = context.DeadlineExceeded
	_, err := g.decide(authz.Policy{Credentials: []authz.Kind{authz.KindSession}}, get(t, "cookie", "sessionId=signed.alice"))
	requireReason(t, authz.ReasonInternal, err)
}

func TestSessionCredential(t *testing.T) {
	t.Parallel()
	s := authz.NewSessions("sid", cookieVerifier{}, nil)
	require.Equal(t, authz.KindSession, s.Kind())
	for name, tt := range map[string]struct {
		headers []string
		want    string
		present bool
	}{
		"no header":                {nil, "", false},
		"another cookie":           {[]string{"cookie", "sessionId=a"}, "", false},
		"the cookie":               {[]string{"cookie", "a=b; sid=c"}, "c", true},
		"empty is present":         {[]string{"cookie", "sid="}, "", true},
		"the first of several":     {[]string{"cookie", "sid=a; sid=b"}, "a", true},
		"a header of another name": {[]string{"cookie2", "sid=a", "set-cookie", "sid=b", "authorization", "sid=c"}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, present := s.Credential(get(t, tt.headers...))
			require.Equal(t, tt.present, present)
			require.Equal(t, tt.want, got)
		})
	}
}

// What a policy says about freshness and outages reaches the store; the zero
// policy asks for the strict reading.
func TestReadOptions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		policy authz.Policy
		want   authz.ReadOptions
	}{
		"zero":                        {authz.Policy{}, authz.ReadOptions{Fresh: true}},
		"strict":                      {authz.Policy{Freshness: authz.FreshnessStrict}, authz.ReadOptions{Fresh: true}},
		"cached":                      {authz.Policy{Freshness: authz.FreshnessCached}, authz.ReadOptions{}},
		"an unknown word":             {authz.Policy{Freshness: "lax"}, authz.ReadOptions{Fresh: true}},
		"idle timeout":                {authz.Policy{Freshness: authz.FreshnessCached, IdleTimeout: time.Minute}, authz.ReadOptions{IdleTimeout: time.Minute}},
		"stale where it is allowed":   {authz.Policy{OnStoreOutage: authz.OutageServeStale, StaleFor: time.Second}, authz.ReadOptions{Fresh: true, StaleFor: time.Second}},
		"no record":                   {authz.Policy{OmitRecord: true}, authz.ReadOptions{Fresh: true, OmitRecord: true}},
		"stale_for alone":             {authz.Policy{StaleFor: time.Second}, authz.ReadOptions{Fresh: true}},
		"stale_for and deny":          {authz.Policy{OnStoreOutage: authz.OutageDeny, StaleFor: time.Second}, authz.ReadOptions{Fresh: true}},
		"stale_for and accept_bearer": {authz.Policy{OnStoreOutage: authz.OutageAcceptBearer, StaleFor: time.Second}, authz.ReadOptions{Fresh: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			tt.policy.Credentials = []authz.Kind{authz.KindSession, authz.KindBearer}
			_, err := g.decide(tt.policy, get(t, "cookie", "sessionId=signed.alice"))
			require.NoError(t, err)
			require.Equal(t, tt.want, g.sessions.options)
			_, err = g.decide(tt.policy, get(t, "authorization", "Bearer alice-token"))
			require.NoError(t, err)
			require.Equal(t, tt.want, g.standing.options)
		})
	}
}

func TestStaleSessionSaysSo(t *testing.T) {
	t.Parallel()
	p, err := session(t, &authz.Session{Identity: alice, Stale: true}, authz.Policy{OnStoreOutage: authz.OutageServeStale, StaleFor: time.Minute})
	require.NoError(t, err)
	require.Equal(t, authz.OutageServeStale, p.Degraded)

	// Old news is no reason to forget older news.
	_, err = session(t, &authz.Session{Identity: alice, Stale: true, Standing: authz.Standing{Revoked: true}}, authz.Policy{OnStoreOutage: authz.OutageServeStale, StaleFor: time.Minute})
	requireReason(t, authz.ReasonSessionRevoked, err)
}
