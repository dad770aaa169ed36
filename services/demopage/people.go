package demopage

import (
	"context"
	"fmt"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

// User is somebody to be in the demo.
type User struct {
	authz.Identity
	Organizations []string // those that the user may switch to
}

// Alice administrates, Bob is a member. user-service knows the same two.
var (
	Alice = User{authz.Identity{ID: "alice", Email: "alice@example.com", Roles: []string{"admin"}, Organization: "org-1"}, []string{"org-1", "org-2"}}
	Bob   = User{authz.Identity{ID: "bob", Email: "bob@example.com", Roles: []string{"member"}, Organization: "org-2"}, []string{"org-1", "org-2"}}
)

// People makes sessions and tokens for the demo's users, straight in the
// store that Gatehouse reads: as a login service of one's own could.
type People struct {
	Store  *session.Store
	Signer *session.Signer
	Issuer *token.Issuer
}

// Prepare writes the users' profiles, which the identity of their tokens comes
// from. It can be repeated.
func (p People) Prepare(ctx context.Context) error {
	for _, u := range []User{Alice, Bob} {
		profile := authz.Profile{Email: &u.Email, Roles: &u.Roles, Organization: &u.Organization, Organizations: u.Organizations}
		if err := p.Store.SaveProfile(ctx, u.ID, profile); err != nil {
			return fmt.Errorf("write the profile of %s: %w", u.ID, err)
		}
	}
	return nil
}

// Session makes a session and returns the signed cookie value.
func (p People) Session(ctx context.Context, u User) (cookie string, err error) {
	id, err := p.Store.Create(ctx, session.NewSession{Identity: u.Identity, Organizations: u.Organizations})
	if err != nil {
		return "", fmt.Errorf("make a session for %s: %w", u.ID, err)
	}
	return p.Signer.Sign(id), nil
}

// Login is [Options.Login].
func (p People) Login(ctx context.Context, user string) (cookie string, ok bool, err error) {
	for _, u := range []User{Alice, Bob} {
		if u.ID == user {
			cookie, err = p.Session(ctx, u)
			return cookie, true, err
		}
	}
	return "", false, nil
}

// Logout is [Options.Logout].
func (p People) Logout(ctx context.Context, cookie string) error {
	id, ok := p.Signer.Verify(cookie)
	if !ok {
		return nil
	}
	return p.Store.Revoke(ctx, id)
}

// Token makes an access token.
func (p People) Token(u User) (string, error) {
	raw, _, err := p.Issuer.Mint(token.Claims{Subject: u.ID})
	return raw, err
}

// RevokedToken makes an access token and revokes it.
func (p People) RevokedToken(ctx context.Context, u User) (string, error) {
	raw, minted, err := p.Issuer.Mint(token.Claims{Subject: u.ID})
	if err != nil {
		return "", err
	}
	return raw, p.Store.RevokeToken(ctx, minted.TokenID, minted.Expires.Add(token.DefaultLeeway))
}
