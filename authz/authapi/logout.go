package authapi

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// logout ends whatever the client holds: the session, the refresh family, the
// access token. Nothing of it needs to be alive. What is no credential of ours
// is nothing to end. Where it isn't known what the token is, since its issuer
// is out of reach, all else ends, and the call fails.
//
// A call that relies on cookies, or on nothing, is refused cross-site: setting
// cookies is enough to log somebody out of the browser. One that brings its
// token is not, and then leaves the cookies alone.
func (a *API) logout(ctx context.Context, c *call) (reply, error) {
	var body refreshBody
	if err := c.readOptionalJSON(body.fields()); err != nil {
		return reply{}, err
	}
	bearer, fromCookie := c.bearerToken(), c.cookie(refreshCookie)
	relies := c.cookie(a.o.SessionCookie.Name) != "" || fromCookie != "" || body.token == "" && bearer == ""
	crossSite := a.crossSite(c)
	if crossSite != nil && relies {
		return reply{}, crossSite
	}
	token, unknown := a.verifyExpired(ctx, bearer)
	ending := authz.Ending{SessionID: a.sessionID(c)}
	var families []string
	for _, text := range []string{body.token, fromCookie} {
		if refresh, ok := a.parseRefresh(text); ok {
			families = append(families, refresh.Family)
		}
	}
	if token != nil {
		c.user = token.ID
		ending.TokenID, ending.TokenUntil = token.TokenID, a.until(token)
		if token.Family != "" {
			families = append(families, token.Family)
		}
	}
	if err := errors.Join(a.end(ctx, c, ending, families), unknown); err != nil {
		return reply{}, err
	}
	answer := message("Logged out successfully")
	if crossSite == nil {
		answer.cookies = a.cleared()
	}
	return answer, nil
}

// cleared takes the cookies out of the browser that are ours.
func (a *API) cleared() []string {
	var lines []string
	if a.o.Cookies != nil {
		lines = append(lines, a.sessionLine(""))
	}
	if a.o.RefreshTokens != nil {
		lines = append(lines, a.refreshLine(""))
	}
	return lines
}

// end ends it all in one step. Only a client that holds tokens of several
// logins makes it several: the further ones come first, and ending twice what
// has ended does no harm.
func (a *API) end(ctx context.Context, c *call, e authz.Ending, families []string) error {
	slices.Sort(families)
	families = slices.Compact(families)
	for len(families) > 1 {
		if err := a.endOne(ctx, c, authz.Ending{Family: families[0]}); err != nil {
			return err
		}
		families = families[1:]
	}
	if len(families) == 1 {
		e.Family = families[0]
	}
	if e.SessionID == "" && e.Family == "" && e.TokenID == "" {
		return nil
	}
	return a.endOne(ctx, c, e)
}

func (a *API) endOne(ctx context.Context, c *call, e authz.Ending) error {
	var attrs []slog.Attr
	for _, named := range [...]struct{ key, id string }{{"session", e.SessionID}, {"family", e.Family}, {"token", e.TokenID}} {
		if named.id != "" {
			attrs = append(attrs, slog.String(named.key, authz.Handle(named.id)))
		}
	}
	if e.SessionID != "" {
		c.session = authz.Handle(e.SessionID)
	}
	if err := a.permit(ctx, c, "logout", attrs...); err != nil {
		return err
	}
	err := a.o.Store.End(ctx, e)
	a.audit(ctx, c, "logout", err, attrs...)
	return err
}
