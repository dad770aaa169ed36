package authapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// refresh uses a refresh token: for its successor and a new access token.
func (a *API) refresh(ctx context.Context, c *call) (reply, error) {
	var body refreshBody
	if err := c.readOptionalJSON(body.fields()); err != nil {
		return reply{}, err
	}
	text, fromCookie := body.token, false
	if text == "" {
		text, fromCookie = c.cookie(refreshCookie), true
	}
	if text == "" {
		return reply{}, &answered{status: http.StatusUnauthorized, body: bodyNoRefreshToken, err: authz.Refuse(authz.ReasonNoCredential, "no refresh token")}
	}
	if fromCookie {
		if err := a.crossSite(c); err != nil {
			return reply{}, err
		}
	}
	answer, successor, err := a.rotate(ctx, c, text)
	switch {
	case err != nil && fromCookie && dead(err):
		return reply{cookies: []string{a.refreshLine("")}}, err
	case err != nil:
		return reply{}, err
	case fromCookie:
		r := ok(answer)
		r.cookies = []string{a.refreshLine(successor)}
		return r, nil
	}
	answer.RefreshToken = successor
	return ok(answer), nil
}

// dead reports whether a refresh token is certainly of no use any more. Of a
// user who is locked out it may be, once the user is let in again.
func dead(err error) bool {
	reason := authz.ReasonOf(err)
	return (reason == authz.ReasonRefreshInvalid || reason == authz.ReasonRefreshReused) && !errors.Is(err, errLockedOut)
}

var errLockedOut = authz.Refuse(authz.ReasonRefreshInvalid, "the profile is disabled")

// rotate uses a refresh token. The access token is made before the rotation: a
// refresh that fails has changed nothing.
func (a *API) rotate(ctx context.Context, c *call, text string) (_ tokenAnswer, successor string, err error) {
	used, err := a.o.RefreshTokens.Parse(text)
	if err != nil {
		return tokenAnswer{}, "", err
	}
	c.session = authz.Handle(used.Family)
	family, err := a.o.Store.Family(ctx, used.Family)
	if err != nil {
		return tokenAnswer{}, "", err
	}
	c.user = family.UserID
	standing, err := a.o.Store.UserStanding(ctx, family.UserID)
	switch {
	case err != nil:
		return tokenAnswer{}, "", err
	case standing.Covers(family.Created):
		return tokenAnswer{}, "", authz.Refuse(authz.ReasonRefreshInvalid, "the family falls under the user's revocation mark")
	case standing.Disabled():
		return tokenAnswer{}, "", errLockedOut
	}
	answer, err := a.issue(authz.Grant{UserID: family.UserID, Family: family.ID, AuthTime: family.AuthTime, After: standing.RevokedBefore})
	if err != nil {
		return tokenAnswer{}, "", err
	}
	next := a.o.RefreshTokens.Successor(used)
	current, err := a.o.Store.RotateFamily(ctx, used, next.Hash)
	if err != nil {
		if errors.Is(err, authz.ErrRefreshReused) || authz.ReasonOf(err) == authz.ReasonRefreshReused {
			a.audit(ctx, c, "refresh_token_reused", revokedBy(err), slog.String("user", family.UserID), slog.String("family", c.session))
		}
		return tokenAnswer{}, "", err
	}
	if current.Generation == next.Generation && current.Hash == next.Hash {
		return answer, next.Text, nil
	}
	// It was used before, and what came from it is current now.
	descendant, known := a.o.RefreshTokens.Descendant(used, current.Generation, current.Hash)
	if !known {
		return tokenAnswer{}, "", authz.Refuse(authz.ReasonInternal, "no key here leads to the current refresh token of the family: have all replicas the same signing keys?")
	}
	return answer, descendant.Text, nil
}

// revokedBy is what came of the revocation of a family whose token was used again, by the
// refusal of that token: it was made, and may not be confirmed.
func revokedBy(refusal error) error {
	if authz.ReasonOf(refusal) == authz.ReasonRefreshReused {
		return nil
	}
	return authz.Refuse(authz.ReasonNotConfirmed, "revoke refresh family: %w", refusal)
}

// presentedToken reads the token out of a form or JSON.
func (c *call) presentedToken() (string, error) {
	var body tokenBody
	if c.isForm() {
		form, err := c.readForm()
		if err != nil {
			return "", err
		}
		body.token = form.Get("token") // further parameters are ignored: RFC 6749 section 3.2
	} else if err := c.readJSON(body.fields()); err != nil {
		return "", err
	}
	if body.token == "" {
		return "", badRequest("no token")
	}
	return body.token, nil
}

func (a *API) parseRefresh(text string) (t authz.RefreshToken, ok bool) {
	return parseRefresh(a.o.RefreshTokens, text)
}

// verify returns an access token, nil for what is none or has expired. The
// error is about what can't be known.
func (a *API) verify(ctx context.Context, raw string) (*authz.Token, error) {
	if a.o.Verifier == nil || raw == "" {
		return nil, nil //nolint:nilnil // nobody's token is an answer here
	}
	return known(a.o.Verifier.Verify(ctx, raw))
}

// verifyExpired does the same, but returns an expired one, too.
func (a *API) verifyExpired(ctx context.Context, raw string) (*authz.Token, error) {
	if a.o.Verifier == nil || raw == "" {
		return nil, nil //nolint:nilnil // as above
	}
	return known(a.o.Verifier.VerifyExpired(ctx, raw))
}

func known(token *authz.Token, err error) (*authz.Token, error) {
	if err != nil {
		switch authz.ReasonOf(err) { //nolint:exhaustive // these two say that it is no token; others say that it isn't known
		case authz.ReasonTokenInvalid, authz.ReasonTokenExpired:
			return nil, nil //nolint:nilnil // as above
		}
		return nil, err
	}
	return token, nil
}

// until is when the last verifier takes the token no more.
func (a *API) until(t *authz.Token) time.Time { return t.Expires.Add(a.o.Leeway) }

// revoke ends a token (RFC 7009): an access token alone, a refresh token with
// its family. Whoever has the token may; what is no token needs no revoking.
func (a *API) revoke(ctx context.Context, c *call) (reply, error) {
	raw, err := c.presentedToken()
	if err != nil {
		return reply{}, err
	}
	done := reply{status: http.StatusOK}
	revoker := a.revoker
	revoker.Permit = func(ctx context.Context, r Revoked) error { return a.permit(ctx, c, "revoke", r.Attrs()...) }
	revoked, err := revoker.Revoke(ctx, raw)
	c.user = revoked.UserID
	switch {
	case revoked.Family != "":
		c.session = authz.Handle(revoked.Family)
		a.audit(ctx, c, "revoke", err, revoked.Attrs()...)
		return done, err
	case revoked.TokenID != "":
		a.audit(ctx, c, "revoke", err, revoked.Attrs()...)
		return done, err
	case revoked.UserID != "":
		return reply{}, &answered{status: http.StatusBadRequest, body: bodyUnsupported, err: err}
	}
	_, err = known(nil, err)
	return done, err
}

// introspection is the answer of RFC 7662 section 2.2. The subject is the user
// id, as the services behind the gate learn it.
type introspection struct {
	Active    bool     `json:"active"`
	Subject   string   `json:"sub,omitempty"`
	Issuer    string   `json:"iss,omitempty"`
	Audiences []string `json:"aud,omitempty"`
	Expires   int64    `json:"exp,omitempty"`
	IssuedAt  int64    `json:"iat,omitempty"`
	TokenID   string   `json:"jti,omitempty"`
	Family    string   `json:"sid,omitempty"`
	Type      string   `json:"token_type,omitempty"`
}

// introspect tells an internal caller whether a token is good right now.
func (a *API) introspect(ctx context.Context, c *call) (reply, error) {
	if _, err := a.authenticateKey(c); err != nil {
		return reply{}, err
	}
	raw, err := c.presentedToken()
	if err != nil {
		return reply{}, err
	}
	var found introspection
	if refresh, ok := a.parseRefresh(raw); ok {
		found, err = a.introspectRefresh(ctx, c, refresh)
	} else {
		found, err = a.introspectAccess(ctx, c, raw)
	}
	if err != nil && !proves(err) {
		return reply{}, err
	}
	return ok(found), nil
}

// proves reports whether an error proves that a credential is not good; others
// say that it isn't known.
func proves(err error) bool {
	status := authz.AnswerTo(&authz.Decision{}, &authz.Request{Headers: authz.HeaderMap(nil)}, err).Status
	return status == http.StatusUnauthorized
}

func (a *API) introspectRefresh(ctx context.Context, c *call, t authz.RefreshToken) (introspection, error) {
	family, err := a.o.Store.Family(ctx, t.Family)
	if err != nil {
		return introspection{}, err
	}
	c.user = family.UserID
	standing, err := a.o.Store.UserStanding(ctx, family.UserID)
	if err != nil {
		return introspection{}, err
	}
	current := family.Generation == t.Generation && family.Hash == t.Hash
	if !current || standing.Covers(family.Created) || standing.Disabled() {
		return introspection{}, nil
	}
	issued := family.LastUsed
	if issued.IsZero() {
		issued = family.Created
	}
	return introspection{Active: true, Subject: family.UserID, Expires: unix(family.Expires), IssuedAt: unix(issued)}, nil
}

func (a *API) introspectAccess(ctx context.Context, c *call, raw string) (introspection, error) {
	token, err := a.verify(ctx, raw)
	if err != nil || token == nil {
		return introspection{}, err
	}
	c.user = token.ID
	if !a.o.Now().Before(token.Expires) { // the gate has some leeway, exp has none
		return introspection{}, nil
	}
	// What stands against it is the gate's to say.
	if _, err := a.bearer.Authenticate(ctx, raw, &authz.Policy{}); err != nil {
		return introspection{}, err
	}
	if !ValidUserID(token.ID) {
		return introspection{}, nil
	}
	return introspection{
		Active: true, Subject: token.ID, Issuer: token.Issuer, Audiences: slices.Clone(token.Audiences),
		Expires: unix(token.Expires), IssuedAt: unix(token.IssuedAt), TokenID: token.TokenID, Family: token.Family, Type: "Bearer",
	}, nil
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// bearerToken returns the token in the Authorization header; "" for none.
func (c *call) bearerToken() string {
	token, present := (*authz.Bearer)(nil).Credential(c.request)
	if !present {
		return ""
	}
	return strings.TrimSpace(token)
}
