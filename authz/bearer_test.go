package authz_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

func TestBearerCredential(t *testing.T) {
	t.Parallel()
	b := authz.NewBearer(nil, nil)
	require.Equal(t, authz.KindBearer, b.Kind())
	for header, tt := range map[string]struct {
		token   string
		present bool
	}{
		"Bearer abc":            {"abc", true},
		"bearer abc":            {"abc", true},
		"BEARER abc":            {"abc", true},
		"Bearer   abc":          {"abc", true},
		"  Bearer abc\t ":       {"abc", true},
		"Bearer":                {"", true}, // shown, and invalid
		"Bearer ":               {"", true},
		"bearer \t":             {"", true},
		"Bearer a b":            {"a b", true}, // shown, and invalid
		"Bearer abc,Bearer def": {"abc,Bearer def", true},
		"Bearer abc, Basic xyz": {"abc, Basic xyz", true},
		"":                      {"", false},
		" ":                     {"", false},
		"abc":                   {"", false},
		"Basic YTpi":            {"", false},
		"Bearerabc":             {"", false},
		"BearerX abc":           {"", false},
		"X-Bearer abc":          {"", false},
		"Digest x, Bearer abc":  {"", false},
		"Basic a,Bearer abc":    {"", false},
		"DPoP abc":              {"", false},
	} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			token, present := b.Credential(get(t, "authorization", header))
			require.Equal(t, tt.present, present)
			if present {
				require.Equal(t, tt.token, token)
			}
		})
	}
	_, present := b.Credential(get(t, "proxy-authorization", "Bearer abc", "cookie", "authorization=Bearer abc"))
	require.False(t, present)
	_, present = b.Credential(request(t, "GET", "/?access_token=abc"))
	require.False(t, present, "no token in a query: RFC 6750 section 2.3 warns of it")
}

func TestBearerPrincipal(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	d, err := g.decide(authz.Policy{Credentials: []authz.Kind{authz.KindBearer}}, get(t, "authorization", "Bearer alice-token"))
	require.NoError(t, err)
	require.Equal(t, &authz.Principal{
		Identity: alice, Kind: authz.KindBearer, AuthTime: ago(2 * time.Minute), Issuer: issuer,
		Audiences: []string{"api", "web"}, Claims: map[string]any{"scope": "orders:read"},
	}, d.Principal)
	require.Equal(t, authz.TokenRef{UserID: "alice", TokenID: "jti-1", Family: "family-1"}, g.standing.ref)
}

func TestBearerRules(t *testing.T) {
	t.Parallel()
	issued := time.Date(2026, time.November, 21, 11, 0, 0, 0, time.UTC) // iat counts whole seconds
	for name, tt := range map[string]struct {
		issuedAt, authTime time.Time
		standing           authz.Standing
		want               authz.Reason
	}{
		"nothing against it":                      {issued, issued, authz.Standing{}, ""},
		"revoked by name":                         {issued, issued, authz.Standing{Revoked: true}, authz.ReasonTokenRevoked},
		"older than the mark":                     {issued, issued, authz.Standing{RevokedBefore: issued.Add(time.Second)}, authz.ReasonTokenRevoked},
		"of the second of the mark":               {issued, issued, authz.Standing{RevokedBefore: issued.Add(999 * time.Millisecond)}, authz.ReasonTokenRevoked},
		"younger than the mark":                   {issued, issued, authz.Standing{RevokedBefore: issued.Add(-time.Nanosecond)}, ""},
		"issued after the mark, login before":     {issued, issued.Add(-time.Hour), authz.Standing{RevokedBefore: issued.Add(-time.Minute)}, ""},
		"without a time, the mark does not apply": {time.Time{}, time.Time{}, authz.Standing{RevokedBefore: now}, ""},
		"without a time, revoked by name":         {time.Time{}, time.Time{}, authz.Standing{Revoked: true}, authz.ReasonTokenRevoked},
		"disabled":                                {issued, issued, authz.Standing{Profile: &authz.Profile{Disabled: true}}, authz.ReasonUserDisabled},
		"revoked and disabled":                    {issued, issued, authz.Standing{Revoked: true, Profile: &authz.Profile{Disabled: true}}, authz.ReasonTokenRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			g.tokens.tokens["t"] = &authz.Token{Identity: alice, IssuedAt: tt.issuedAt, AuthTime: tt.authTime}
			g.standing.standing = tt.standing
			d, err := g.decide(authz.Policy{Credentials: []authz.Kind{authz.KindBearer}}, get(t, "authorization", "Bearer t"))
			requireReason(t, tt.want, err)
			require.Equal(t, tt.want != "", d.Principal == nil)
		})
	}
}

// A profile wins over the claims, field by field: what it doesn't have leaves
// the claim, what it has empty empties it.
func TestProfileWinsOverClaims(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		profile       *authz.Profile
		want          authz.Identity
		organizations []string
	}{
		"none":         {nil, alice, nil},
		"says nothing": {&authz.Profile{}, alice, nil},
		"email": {
			&authz.Profile{Email: new("new@example.com")},
			authz.Identity{ID: "alice", Email: "new@example.com", Roles: alice.Roles, Organization: "org-1"},
			nil,
		},
		"empty email": {
			&authz.Profile{Email: new("")},
			authz.Identity{ID: "alice", Roles: alice.Roles, Organization: "org-1"},
			nil,
		},
		"roles": {
			&authz.Profile{Roles: new([]string{"auditor"})},
			authz.Identity{ID: "alice", Email: alice.Email, Roles: []string{"auditor"}, Organization: "org-1"},
			nil,
		},
		"no roles any more": {
			&authz.Profile{Roles: new([]string{})},
			authz.Identity{ID: "alice", Email: alice.Email, Roles: []string{}, Organization: "org-1"},
			nil,
		},
		"roles are null, which is none": {
			&authz.Profile{Roles: new([]string)},
			authz.Identity{ID: "alice", Email: alice.Email, Organization: "org-1"},
			nil,
		},
		"organization": {
			&authz.Profile{Organization: new("org-3"), Organizations: []string{"org-1", "org-3"}},
			authz.Identity{ID: "alice", Email: alice.Email, Roles: alice.Roles, Organization: "org-3"},
			[]string{"org-1", "org-3"},
		},
		"no organization any more": {
			&authz.Profile{Organization: new("")},
			authz.Identity{ID: "alice", Email: alice.Email, Roles: alice.Roles},
			nil,
		},
		"everything": {
			&authz.Profile{Email: new("e"), Roles: new([]string{"r"}), Organization: new("o"), Organizations: []string{"o"}},
			authz.Identity{ID: "alice", Email: "e", Roles: []string{"r"}, Organization: "o"},
			[]string{"o"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			g.standing.standing.Profile = tt.profile
			d, err := g.decide(authz.Policy{Credentials: []authz.Kind{authz.KindBearer}}, get(t, "authorization", "Bearer alice-token"))
			require.NoError(t, err)
			require.Equal(t, tt.want, d.Principal.Identity)
			require.Equal(t, tt.organizations, d.Principal.Organizations)
			require.Equal(t, alice, g.tokens.tokens["alice-token"].Identity, "a verified token may be cached: it must not change")
		})
	}
}

// What the profile says now is what conditions see, with the old token.
func TestConditionsSeeTheProfile(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	admins := authz.Policy{Credentials: []authz.Kind{authz.KindBearer}, RolesAny: []string{"admin"}, Organizations: []string{"org-1"}}
	alicesToken := get(t, "authorization", "Bearer alice-token")
	_, err := g.decide(admins, alicesToken)
	require.NoError(t, err)
	g.standing.standing.Profile = &authz.Profile{Roles: new([]string{"user"})}
	_, err = g.decide(admins, alicesToken)
	requireReason(t, authz.ReasonRole, err)
	g.standing.standing.Profile = &authz.Profile{Organization: new("org-2")}
	_, err = g.decide(admins, alicesToken)
	requireReason(t, authz.ReasonOrganization, err)
}

// Revocation that can't be looked up is no revocation that isn't there.
func TestBearerWhenTheStoreIsOut(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		outage   authz.Outage
		err      error
		want     authz.Reason
		degraded authz.Outage
	}{
		"deny by default":               {"", errStore, authz.ReasonStoreUnavailable, ""},
		"deny":                          {authz.OutageDeny, errStore, authz.ReasonStoreUnavailable, ""},
		"serve_stale is the store's":    {authz.OutageServeStale, errStore, authz.ReasonStoreUnavailable, ""},
		"accept_bearer":                 {authz.OutageAcceptBearer, errStore, "", authz.OutageAcceptBearer},
		"accept_bearer, wrapped":        {authz.OutageAcceptBearer, fmt.Errorf("standing: %w", errStore), "", authz.OutageAcceptBearer},
		"accept_bearer, deadline":       {authz.OutageAcceptBearer, authz.Refuse(authz.ReasonStoreUnavailable, "%w", context.DeadlineExceeded), "", authz.OutageAcceptBearer},
		"accept_bearer, store is there": {authz.OutageAcceptBearer, nil, "", ""},

		"accept_bearer, broken profile": {authz.OutageAcceptBearer, authz.Refuse(authz.ReasonProfileMalformed, "x"), authz.ReasonProfileMalformed, ""},
		"accept_bearer, a bug":          {authz.OutageAcceptBearer, errors.New("x"), authz.ReasonInternal, ""},
		"accept_bearer, overload":       {authz.OutageAcceptBearer, authz.Refuse(authz.ReasonOverloaded, "x"), authz.ReasonOverloaded, ""},
		"accept_bearer, issuer":         {authz.OutageAcceptBearer, authz.Refuse(authz.ReasonIssuerUnavailable, "x"), authz.ReasonIssuerUnavailable, ""},
		"accept_bearer, caller gone":    {authz.OutageAcceptBearer, authz.Refuse(authz.ReasonStoreUnavailable, "%w", context.Canceled), authz.ReasonStoreUnavailable, ""},
		"accept_bearer, revoked":        {authz.OutageAcceptBearer, authz.Refuse(authz.ReasonTokenRevoked, "x"), authz.ReasonTokenRevoked, ""},
		"an unknown word":               {"accept_everything", errStore, authz.ReasonStoreUnavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t)
			g.standing.err = tt.err
			// Whatever comes beside an error is not to be believed.
			if tt.err != nil {
				g.standing.standing.Profile = &authz.Profile{Roles: new([]string{"root"})}
			}
			policy := authz.Policy{Credentials: []authz.Kind{authz.KindBearer}, OnStoreOutage: tt.outage}
			d, err := g.decide(policy, get(t, "authorization", "Bearer alice-token"))
			requireReason(t, tt.want, err)
			if tt.want == "" {
				require.Equal(t, tt.degraded, d.Principal.Degraded)
				require.Equal(t, alice, d.Principal.Identity)
			}

			// An invalid token stays invalid.
			_, err = g.decide(policy, get(t, "authorization", "Bearer forged"))
			requireReason(t, authz.ReasonTokenInvalid, err)
		})
	}
}

// A token that passes by what was known of its user before the store went away
// says so.
func TestTokenByAnOldStandingSaysSo(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	g.standing.standing.Stale = true
	policy := authz.Policy{Credentials: []authz.Kind{authz.KindBearer}, OnStoreOutage: authz.OutageServeStale, StaleFor: time.Minute}
	d, err := g.decide(policy, get(t, "authorization", "Bearer alice-token"))
	require.NoError(t, err)
	require.Equal(t, authz.OutageServeStale, d.Principal.Degraded)
	g.standing.standing.Revoked = true
	_, err = g.decide(policy, get(t, "authorization", "Bearer alice-token"))
	requireReason(t, authz.ReasonTokenRevoked, err)
}

// accept_bearer is about the revocation of a token, not about sessions, and
// not about an issuer whose keys are not to be had.
func TestAcceptBearerAcceptsNothingElse(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	g.sessions.err, g.standing.err = errStore, errStore
	policy := authz.Policy{Credentials: []authz.Kind{authz.KindSession, authz.KindBearer}, OnStoreOutage: authz.OutageAcceptBearer}
	_, err := g.decide(policy, get(t, "cookie", "sessionId=signed.alice"))
	requireReason(t, authz.ReasonStoreUnavailable, err)
	_, err = g.decide(policy, get(t, "cookie", "sessionId=signed.alice", "authorization", "Bearer alice-token"))
	requireReason(t, authz.ReasonStoreUnavailable, err)
	g.tokens.err = authz.Refuse(authz.ReasonIssuerUnavailable, "no keys")
	_, err = g.decide(policy, get(t, "authorization", "Bearer alice-token"))
	requireReason(t, authz.ReasonIssuerUnavailable, err)
}

// A token that is no good is not worth a question to the store.
func TestInvalidTokenNeverAsksTheStore(t *testing.T) {
	t.Parallel()
	for _, reason := range []authz.Reason{authz.ReasonTokenInvalid, authz.ReasonTokenExpired, authz.ReasonIssuerUnavailable} {
		g := newGate(t)
		g.tokens.err = authz.Refuse(reason, "x")
		d, err := g.decide(authz.Policy{Credentials: []authz.Kind{authz.KindBearer}}, get(t, "authorization", "Bearer x"))
		requireReason(t, reason, err)
		require.Equal(t, authz.KindBearer, d.Kind)
		require.Zero(t, g.storeCalls())
	}
}

// authorization is RFC 6750 section 2.1, with the lenience of RFC 9110: the scheme
// in any case, and white space around and in between.
var authorization = regexp.MustCompile(`(?is)^[ \t]*bearer(?:[ \t]*| [ \t]*(.*?)[ \t]*)$`)

// FuzzAuthorization states that what is taken for a bearer token is what the
// grammar says, with no white space around it, and that the way in which others
// write the header changes nothing.
func FuzzAuthorization(f *testing.F) {
	for _, seed := range []string{"Bearer a.b.c", "bearer  a", "BEARER", "Bearer ", "Basic YTpi", "Bearer\ta", " \tBearer a b \t", "Bearer a,Bearer b", "", "Bearera", "\u212aearer x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		token, present := authz.NewBearer(nil, nil).Credential(&authz.Request{Headers: headerMap("authorization", header)})
		m := authorization.FindStringSubmatch(header)
		require.Equal(t, m != nil, present, "%q", header)
		if !present {
			return
		}
		require.Equal(t, m[1], token)
		require.Equal(t, strings.Trim(token, " \t"), token)
		again, present := authz.NewBearer(nil, nil).Credential(&authz.Request{Headers: headerMap("authorization", "\tbEARER   "+token+" ")})
		require.True(t, present)
		require.Equal(t, token, again)
	})
}
