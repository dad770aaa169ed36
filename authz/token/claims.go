package token

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

// ClaimNames say in which claims an issuer keeps the identity. A name is that
// of a top-level claim, or else a dotted path into nested objects, such as
// realm_access.roles; so a claim named https://example.com/roles works too,
// and where both exist the top-level claim wins. The zero value means sub, email,
// roles and org_id; in any other, an empty UserID is sub, and another empty
// field takes nothing from the claims.
type ClaimNames struct {
	UserID       string // a non-empty string or, except for sub, an integer
	Email        string // a string
	Roles        string // an array of strings, or one string: one role
	Organization string // a string or an integer
}

var defaultClaims = ClaimNames{UserID: "sub", Email: "email", Roles: "roles", Organization: "org_id"}

// pastDate is a date that can't lie ahead of now, but for the leeway.
func (i *issuer) pastDate(claims map[string]any, name string, now time.Time) (time.Time, error) {
	t, err := claim.Date(claims, name)
	if err != nil {
		return time.Time{}, err
	}
	if t.After(now.Add(i.leeway)) {
		return time.Time{}, fmt.Errorf("claim %s lies %v %w", name, t.Sub(now), errAhead)
	}
	return t, nil
}

// errAhead marks what will be right by and by.
var errAhead = errors.New("ahead")

// read judges the claims of a token whose signature is good, and maps them;
// only whether exp has passed is left to the caller.
func (i *issuer) read(claims map[string]any, now time.Time) (t authz.Token, err error) {
	t = authz.Token{Issuer: i.name, Claims: claims}
	if t.Expires, err = claim.Date(claims, "exp"); err != nil {
		return t, err
	}
	if t.Expires.IsZero() {
		return t, errors.New("no exp claim")
	}
	if _, err = i.pastDate(claims, "nbf", now); err != nil {
		return t, err
	}
	if t.IssuedAt, err = i.pastDate(claims, "iat", now); err != nil {
		return t, err
	}
	if t.AuthTime, err = i.pastDate(claims, "auth_time", now); err != nil {
		return t, err
	}
	if t.AuthTime.IsZero() {
		t.AuthTime = t.IssuedAt
	}
	if t.Audiences, err = i.audience(claims); err != nil {
		return t, err
	}
	if t.TokenID, err = claim.Registered(claims, "jti"); err != nil {
		return t, err
	}
	if i.ownTokens {
		if t.TokenID == "" { // jti is optional for outside issuers only: ours could not be revoked
			return t, errors.New("claim jti is missing or empty, which our own tokens have")
		}
		if t.Family, err = claim.Registered(claims, "sid"); err != nil {
			return t, err
		}
	}
	t.Identity, err = i.identity(claims)
	return t, err
}

func (i *issuer) audience(claims map[string]any) ([]string, error) {
	var audiences []string
	if v, ok := claims["aud"]; ok {
		if audiences, ok = claim.Strings(v); !ok {
			return nil, errors.New("claim aud is neither a string nor an array of strings")
		}
	}
	ours := func(a string) bool { return slices.Contains(i.audiences, a) }
	if len(i.audiences) > 0 && !slices.ContainsFunc(audiences, ours) {
		return nil, fmt.Errorf("claim aud names none of the audiences that are accepted of this issuer, %q, but %s", i.audiences, claim.Quote(strings.Join(audiences, " ")))
	}
	return audiences, nil
}

func (i *issuer) identity(claims map[string]any) (id authz.Identity, err error) {
	if id.ID, err = i.userID.ID(claims); err != nil {
		return id, err
	}
	if id.ID == "" {
		return id, fmt.Errorf("claim %s, the user's id, is missing or empty", i.userID)
	}
	id.ID = i.userIDPrefix + id.ID
	if id.Email, err = i.email.Text(claims); err != nil {
		return id, err
	}
	if id.Roles, err = i.roles.List(claims); err != nil {
		return id, err
	}
	id.Organization, err = i.organization.ID(claims)
	return id, err
}
