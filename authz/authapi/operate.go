package authapi

import (
	"context"
	"log/slog"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// This file has what calls of administrators do, for those who do it without a
// server: the command line works with the same.

// Held is what a user holds, and who the user is.
type Held struct {
	// User is as the profile says, and where that doesn't, as the latest session
	// does.
	User     authz.User
	Standing authz.Standing
	Sessions []authz.ActiveLogin // the latest first
	Families []authz.ActiveLogin // refresh families, the latest first
}

// Known reports whether anything in the store speaks of the user.
func (h Held) Known() bool {
	return h.Standing.Profile != nil || len(h.Sessions) > 0 || len(h.Families) > 0
}

// Holdings finds what a user holds. It looks through all records of the store,
// in small steps.
func Holdings(ctx context.Context, store interface {
	Sessions
	Users
	Families
}, userID string,
) (Held, error) {
	var h Held
	var err error
	if h.Standing, err = store.UserStanding(ctx, userID); err != nil {
		return Held{}, err
	}
	if h.Sessions, err = store.UserSessions(ctx, userID, true); err != nil {
		return Held{}, err
	}
	if h.Families, err = store.UserFamilies(ctx, userID); err != nil {
		return Held{}, err
	}
	h.User = authz.User{Identity: authz.Identity{ID: userID}}
	if len(h.Sessions) > 0 {
		h.User = h.Sessions[0].User
		h.User.ID = userID
	}
	h.User = h.Standing.Profile.Over(h.User)
	return h, nil
}

// UserChangeFields are the members of the object that [ParseUserChange] takes.
func UserChangeFields() []string { return []string{"organizationId", "roles", "disabled"} }

// ParseUserChange reads what PATCH /auth/users/{id}/sessions takes: an object
// with any of [UserChangeFields]. Its error quotes no value. An object without
// any of them changes nothing.
func ParseUserChange(object []byte) (authz.UserChange, error) {
	var body changeBody
	if err := body.fields().decode(object); err != nil {
		return authz.UserChange{}, err
	}
	return body.change(), nil
}

func (b *changeBody) change() authz.UserChange {
	return authz.UserChange{Organization: b.organization, Roles: b.roles, Disabled: b.disabled}
}

// Changes returns the members that a change has, in the order of
// [UserChangeFields].
func Changes(c authz.UserChange) []string {
	var names []string
	for i, changes := range [...]bool{c.Organization != nil, c.Roles != nil, c.Disabled != nil} {
		if changes {
			names = append(names, UserChangeFields()[i])
		}
	}
	return names
}

// Revoker ends the tokens that somebody shows (RFC 7009): an access token alone,
// a refresh token with its family.
type Revoker struct {
	Store         Endings
	Verifier      Verifier      // nil: there are no access tokens
	RefreshTokens RefreshTokens // nil: there are none
	// Leeway is the longest time after its exp for which the verifier takes a
	// token.
	Leeway time.Duration
	// Permit is called before a token is ended; its error is that of Revoke, and
	// nothing has ended then. nil: it may always be.
	Permit func(ctx context.Context, r Revoked) error
}

// Revoked is what a token was that a [Revoker] ended, or was to end. It holds no
// credential.
type Revoked struct {
	UserID  string // of an access token
	TokenID string // jti of an access token
	Family  string // of a refresh token: the id
}

// Revoke ends a token. Refusals: ReasonTokenInvalid and ReasonTokenExpired for
// what is none that needs it, ReasonBadRequest for one without a jti, which can
// only be revoked with all that its user has, and those of verifier and store;
// what the token is, is returned with an error, too, as far as it is known.
func (r Revoker) Revoke(ctx context.Context, raw string) (Revoked, error) {
	if refresh, ok := parseRefresh(r.RefreshTokens, raw); ok {
		revoked := Revoked{Family: refresh.Family}
		if err := r.permit(ctx, revoked); err != nil {
			return revoked, err
		}
		return revoked, r.Store.End(ctx, authz.Ending{Family: refresh.Family})
	}
	if r.Verifier == nil || raw == "" {
		return Revoked{}, authz.Refuse(authz.ReasonTokenInvalid, "no token that is known here")
	}
	token, err := r.Verifier.Verify(ctx, raw)
	if err != nil {
		return Revoked{}, err
	}
	revoked := Revoked{UserID: token.ID, TokenID: token.TokenID}
	if token.TokenID == "" {
		return revoked, badRequest("the token has no jti: revoke its user")
	}
	if err := r.permit(ctx, revoked); err != nil {
		return revoked, err
	}
	return revoked, r.Store.RevokeToken(ctx, token.TokenID, token.Expires.Add(r.Leeway))
}

func (r Revoker) permit(ctx context.Context, revoked Revoked) error {
	if r.Permit == nil {
		return nil
	}
	return r.Permit(ctx, revoked)
}

// Attrs are for the audit log: whose token it was, and handles.
func (r Revoked) Attrs() []slog.Attr {
	if r.Family != "" {
		return []slog.Attr{slog.String("family", authz.Handle(r.Family))}
	}
	return []slog.Attr{slog.String("user", clip(r.UserID, 512)), slog.String("token", authz.Handle(r.TokenID))}
}

// parseRefresh returns the refresh token of a text; ok is false for what is
// none of ours.
func parseRefresh(tokens RefreshTokens, text string) (t authz.RefreshToken, ok bool) {
	if tokens == nil || text == "" {
		return t, false
	}
	t, err := tokens.Parse(text)
	return t, err == nil
}
