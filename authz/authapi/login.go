package authapi

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// login begins a session with email address and password.
func (a *API) login(ctx context.Context, c *call) (reply, error) {
	if err := a.crossSite(c); err != nil {
		return reply{}, err
	}
	var body credentialsBody
	if err := c.readJSON(body.fields()); err != nil {
		return reply{}, err
	}
	user, standing, err := a.checkPassword(ctx, c, body)
	if err != nil {
		return reply{}, err
	}
	l := authz.Login{Identity: user.Identity, Organizations: user.Organizations, Device: c.device(), Replaces: a.sessionID(c)}
	signed, l, err := a.begin(ctx, c, "login", l, standing)
	if err != nil {
		return reply{}, err
	}
	answer := ok(userOf(l.Identity))
	answer.cookies = []string{a.sessionLine(signed)}
	return answer, nil
}

// checkPassword returns whose email address and password these are, as the user
// store has the user, and the user's standing. Who is locked out gets the same
// refusal as who has the wrong password, and as many tries.
func (a *API) checkPassword(ctx context.Context, c *call, body credentialsBody) (*authz.User, authz.Standing, error) {
	none := authz.Standing{}
	if body.email == nil || body.password == nil {
		return nil, none, badRequest("a login takes email and password")
	}
	email := strings.TrimSpace(*body.email)
	account := fold(email)
	if a.o.Guesses != nil {
		retryAfter, err := a.o.Guesses.Attempt(ctx, account, c.address())
		if err != nil {
			c.decision.Quota.Next = time.Duration(retryAfter) * time.Second
			return nil, none, err
		}
	}
	user, standing, err := a.vouch(ctx, c, email, *body.password)
	if a.o.Guesses == nil {
		return user, standing, err
	}
	switch {
	case err == nil:
		err = a.o.Guesses.Succeeded(ctx, account, c.address())
	case authz.ReasonOf(err) != authz.ReasonPasswordWrong:
		err = errors.Join(err, a.o.Guesses.Undecided(context.WithoutCancel(ctx), account, c.address()))
	}
	if err != nil {
		return nil, none, err
	}
	return user, standing, nil
}

// vouch has the user store say whose email address and password these are.
func (a *API) vouch(ctx context.Context, c *call, email, password string) (*authz.User, authz.Standing, error) {
	none := authz.Standing{}
	user, err := a.o.UserStore.Authenticate(ctx, email, password)
	if err != nil {
		return nil, none, err
	}
	if user == nil || !ValidUserID(user.ID) {
		return nil, none, authz.Refuse(authz.ReasonInternal, "the user store vouches for a user without an id, or with one that no user may have")
	}
	c.user = user.ID
	standing, err := a.o.Store.UserStanding(ctx, user.ID)
	if err != nil {
		return nil, none, err
	}
	if standing.Disabled() {
		return nil, none, authz.Refuse(authz.ReasonPasswordWrong, "the profile is disabled")
	}
	return user, standing, nil
}

// fold brings the spellings of an email address together that a user store
// could take for one account, so that no spelling gives further guesses.
func fold(email string) string { return strings.ToLower(strings.ToUpper(email)) }

// ValidUserID reports whether a user may have this id. Ids of internal callers
// are theirs alone.
func ValidUserID(id string) bool {
	return id != "" && utf8.ValidString(id) && !strings.HasPrefix(id, authz.ServicePrefix)
}

// begin makes a session of a login, as the user's profile has the user, and
// returns the signed cookie and the login as it was made.
func (a *API) begin(ctx context.Context, c *call, action string, l authz.Login, standing authz.Standing) (signed string, _ authz.Login, err error) {
	user := standing.Profile.Over(authz.User{Identity: l.Identity, Organizations: l.Organizations})
	l.Identity, l.Organizations = user.Identity, user.Organizations
	if l.AuthTime.IsZero() {
		l.AuthTime = a.o.Now()
	}
	l.TTL = a.o.SessionTTL
	if err := a.permit(ctx, c, action, slog.String("user", clip(l.ID, 512))); err != nil {
		return "", l, err
	}
	id, err := a.o.Store.Create(ctx, l)
	if id != "" {
		c.session = authz.Handle(id)
	}
	attrs := []slog.Attr{slog.String("user", clip(l.ID, 512)), slog.String("session", c.session)}
	if l.Replaces != "" {
		attrs = append(attrs, slog.String("replaces", authz.Handle(l.Replaces)))
	}
	a.audit(ctx, c, action, err, attrs...)
	if err != nil {
		return "", l, err
	}
	return a.o.Cookies.Sign(id), l, nil
}

// tokenAnswer is what a token login and a refresh answer.
type tokenAnswer struct {
	AccessToken  string `json:"accessToken"`
	ExpiresIn    int64  `json:"expiresIn"` // seconds
	RefreshToken string `json:"refreshToken,omitempty"`
}

// issue makes an access token, without the refresh token beside it. It changes
// nothing anywhere, and is done before what does: a token that can't be issued
// leaves all as it was.
func (a *API) issue(g authz.Grant) (tokenAnswer, error) {
	raw, expires, err := a.o.AccessTokens.Issue(g)
	if err != nil {
		return tokenAnswer{}, authz.Refuse(authz.ReasonInternal, "issue an access token: %w", err)
	}
	return tokenAnswer{AccessToken: raw, ExpiresIn: int64(math.Ceil(expires.Sub(a.o.Now()).Seconds()))}, nil
}

// token begins a refresh family with email address and password.
func (a *API) token(ctx context.Context, c *call) (reply, error) {
	if err := a.crossSite(c); err != nil {
		return reply{}, err
	}
	var body credentialsBody
	if err := c.readJSON(body.tokenFields()); err != nil {
		return reply{}, err
	}
	user, standing, err := a.checkPassword(ctx, c, body)
	if err != nil {
		return reply{}, err
	}
	answer, first, err := a.grant(ctx, c, user, standing)
	switch {
	case err != nil && authz.ReasonOf(err) == authz.ReasonRefreshInvalid:
		// Everything of the user was revoked at this moment. It is the login that
		// doesn't count; no refresh token was shown.
		return reply{}, authz.Refuse(authz.ReasonPasswordWrong, "revoked while it began: %w", err)
	case err != nil:
		return reply{}, err
	case body.client == clientMobile:
		answer.RefreshToken = first.Text
		return ok(answer), nil
	}
	r := ok(answer)
	r.cookies = []string{a.refreshLine(first.Text)}
	return r, nil
}

// grant makes the tokens of a user who has just authenticated, and keeps their
// family. The profile comes first: it is the identity of the tokens, which must
// not be there without it.
func (a *API) grant(ctx context.Context, c *call, user *authz.User, standing authz.Standing) (tokenAnswer, authz.RefreshToken, error) {
	now := standing.Behind(a.o.Now())
	first := a.o.RefreshTokens.First()
	answer, err := a.issue(authz.Grant{UserID: user.ID, Family: first.Family, AuthTime: now, After: standing.RevokedBefore})
	if err != nil {
		return answer, first, err
	}
	c.session = authz.Handle(first.Family)
	what := []slog.Attr{slog.String("user", clip(user.ID, 512)), slog.String("family", c.session)}
	if err := a.permit(ctx, c, "token_login", what...); err != nil {
		return answer, first, err
	}
	if err := a.o.Store.CompleteProfile(ctx, *user); err != nil {
		return answer, first, err
	}
	err = a.o.Store.CreateFamily(ctx, a.family(user.ID, first, now, c.device()))
	a.audit(ctx, c, "token_login", err, what...)
	return answer, first, err
}

func (a *API) family(userID string, first authz.RefreshToken, now time.Time, d authz.Device) authz.Family {
	return authz.Family{
		ID: first.Family, UserID: userID, AuthTime: now, Created: now, LastUsed: now, Expires: now.Add(a.o.RefreshTTL), Device: d,
		Generation: first.Generation, Hash: first.Hash,
	}
}
