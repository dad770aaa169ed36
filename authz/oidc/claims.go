package oidc

import (
	"fmt"
	"slices"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

// Claims say in which claims a provider keeps the identity. A name is that of a
// top-level claim, or else a dotted path into nested objects, such as
// realm_access.roles. The zero value means sub, email, roles, org_id and
// organizations; in any other an empty UserID is sub, and another empty field
// takes nothing from the claims.
type Claims struct {
	UserID        string // a non-empty string or, except for sub, an integer
	Email         string // a string
	Roles         string // an array of strings, or one string: one role
	Organization  string // a string or an integer
	Organizations string // an array of strings, or one string
}

var defaultClaims = Claims{
	UserID: "sub", Email: "email", Roles: "roles", Organization: "org_id", Organizations: "organizations",
}

// names are the claims that are mapped.
func (c Claims) names() []string {
	return slices.DeleteFunc(
		[]string{c.UserID, c.Email, c.Roles, c.Organization, c.Organizations},
		func(name string) bool { return name == "" },
	)
}

// claimSet are the claims about a user, numbers as [json.Number].
type claimSet map[string]any

// denied reports whether the claim says false, in the way of JSON or as the
// text that some providers write.
func (s claimSet) denied(name string) bool {
	v := s[name]
	return v == false || v == "false"
}

// user maps claims: those of the ID token, and for what it doesn't have those
// of the userinfo endpoint.
func (c Claims) user(idToken, userInfo claimSet, prefix string) (u authz.User, err error) {
	from := func(name string) (p claim.Path, claims claimSet) {
		p = claim.NewPath(name)
		if p.In(idToken) == nil {
			return p, userInfo
		}
		return p, idToken
	}
	id := func(name string) (string, error) { p, claims := from(name); return p.ID(claims) }
	list := func(name string) ([]string, error) { p, claims := from(name); return p.List(claims) }
	if u.ID, err = id(c.UserID); err != nil {
		return u, err
	}
	if u.ID == "" {
		return u, fmt.Errorf("claim %s, the user's id, is missing or empty", claim.Quote(c.UserID))
	}
	u.ID = prefix + u.ID
	email, claims := from(c.Email)
	if u.Email, err = email.Text(claims); err != nil {
		return u, err
	}
	// An address that the provider has not verified may be anybody's.
	if idToken.denied("email_verified") || userInfo.denied("email_verified") {
		u.Email = ""
	}
	if u.Roles, err = list(c.Roles); err != nil {
		return u, err
	}
	if u.Organizations, err = list(c.Organizations); err != nil {
		return u, err
	}
	if u.Organization, err = id(c.Organization); err != nil {
		return u, err
	}
	if u.Organization == "" && len(u.Organizations) > 0 {
		u.Organization = u.Organizations[0]
	}
	return u, nil
}
