package authapi

import (
	"context"
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// provider returns the provider that the path names.
func (a *API) provider(c *call) (name string, _ Provider, _ error) {
	name = c.params["provider"]
	p, known := a.o.Providers[name]
	if !known {
		return name, nil, errNotFound
	}
	return name, p, nil
}

// noReferrer keeps what is in the address of a login from the next page's
// server.
var noReferrer = authz.Header{Name: "Referrer-Policy", Value: "no-referrer"}

func redirect(location string) reply {
	return reply{status: http.StatusFound, header: []authz.Header{{Name: "Location", Value: location}, noReferrer}}
}

// oidcLogin sends the browser to the provider. What the callback needs of it is
// in a cookie of its own for each login, so that several tabs don't disturb each
// other.
func (a *API) oidcLogin(ctx context.Context, c *call) (reply, error) {
	name, provider, err := a.provider(c)
	if err != nil {
		return reply{}, err
	}
	values, err := query(c)
	if err != nil {
		return reply{}, err
	}
	returnTo := "/"
	if values.Has("return_to") {
		path, ok := returnPath(values.Get("return_to"))
		if !ok {
			return reply{}, badRequest("return_to is no path of this origin")
		}
		returnTo = path
	}
	location, flow, sealed, err := provider.Begin(ctx, returnTo)
	if err != nil {
		return reply{}, err
	}
	if !flowName(flow) || sealed == "" || !cookieValue(sealed) {
		return reply{}, authz.Refuse(authz.ReasonInternal, "provider %q begins a login that fits no cookie", name)
	}
	answer := redirect(location)
	answer.cookies = []string{a.flowLine(name, flow, sealed)}
	return answer, nil
}

// oidcCallback is where the provider sends the browser back to: the end of a
// login, and the beginning of a session.
func (a *API) oidcCallback(ctx context.Context, c *call) (reply, error) {
	name, provider, err := a.provider(c)
	if err != nil {
		return reply{}, err
	}
	values, err := query(c)
	if err != nil {
		return reply{}, err
	}
	flow := provider.Flow(values)
	if !flowName(flow) {
		return reply{}, badRequest("the callback belongs to no login")
	}
	sealed := c.cookie(flowCookie + flow)
	if sealed == "" {
		return reply{}, badRequest("the callback belongs to no login of this browser, or to one that is over")
	}
	over := reply{cookies: []string{a.flowLine(name, flow, "")}}
	l, returnTo, err := provider.Finish(ctx, values, sealed)
	if err != nil {
		return over, err
	}
	if !ValidUserID(l.ID) {
		return over, authz.Refuse(authz.ReasonLoginRefused, "provider %q vouches for a user without an id, or with one that no user may have", name)
	}
	path, ok := returnPath(returnTo)
	if !ok {
		return over, authz.Refuse(authz.ReasonInternal, "provider %q returns to what is no path of this origin", name)
	}
	c.user = l.ID
	standing, err := a.o.Store.UserStanding(ctx, l.ID)
	if err != nil {
		return over, err
	}
	if standing.Disabled() {
		return over, authz.Refuse(authz.ReasonLoginRefused, "the profile is disabled")
	}
	l.Device, l.Replaces = c.device(), a.sessionID(c)
	signed, _, err := a.begin(ctx, c, "oidc_login", l, standing)
	if err != nil {
		return over, err
	}
	answer := a.arrival(c, path)
	answer.cookies = append(over.cookies, a.sessionLine(signed))
	return answer, nil
}

// flowName reports whether a flow can be part of a cookie's name. It comes from
// the address of the callback.
func flowName(flow string) bool {
	return flow != "" && len(flow) <= 64 && !strings.ContainsFunc(flow, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_'
	})
}

// arrival sends the browser on to a path of this origin. A redirect belongs to
// the navigation that the provider began, and browsers send no SameSite=Strict
// cookie with that: the user would arrive logged out. A page of ours that moves
// on begins a navigation of its own.
func (a *API) arrival(c *call, path string) reply {
	if a.o.SessionCookie.SameSite != SameSiteStrict || c.header("sec-fetch-site") != "cross-site" {
		return redirect(path)
	}
	escaped := html.EscapeString(path)
	return reply{
		status: http.StatusOK,
		kind:   "text/html; charset=utf-8",
		body: fmt.Sprintf(`<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Logged in</title>`+
			`<meta http-equiv="refresh" content="0;url=%s"></head><body><p>You are logged in. <a href="%s">Continue</a></p></body></html>`, escaped, escaped),
		header: []authz.Header{
			noReferrer,
			{Name: "Content-Security-Policy", Value: "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
		},
	}
}

const maxReturnPath = 2 << 10

// returnPath returns a path of this origin that a browser may be sent to, with
// its query and fragment, in visible ASCII; ok is false for everything that
// could lead elsewhere. It must begin with one slash; a second one, or a
// backslash, which browsers read as one, begins a host. Control bytes, which
// browsers drop, are refused wherever they stand.
func returnPath(s string) (_ string, ok bool) {
	if len(s) > maxReturnPath || !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") {
		return "", false
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c < ' ', c == 0x7f, c == '\\':
			return "", false
		case c == ' ', c > 0x7f, c == '"', c == '<', c == '>':
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), true
}

// maxLogoutToken bounds a token that a provider sends.
const maxLogoutToken = 32 << 10

// backchannelLogout takes a provider's word that a login of its own is over
// (OpenID Connect Back-Channel Logout 1.0 section 2.5).
func (a *API) backchannelLogout(ctx context.Context, c *call) (reply, error) {
	name, provider, err := a.provider(c)
	if err != nil {
		return reply{}, err
	}
	if !c.isForm() {
		return reply{}, badRequest("a logout token comes in a form")
	}
	form, err := c.readForm()
	if err != nil {
		return reply{}, err
	}
	raw := form.Get("logout_token")
	if raw == "" || len(raw) > maxLogoutToken {
		return reply{}, badRequest("no logout_token, or a very long one")
	}
	ended, tokenID, expires, err := provider.LogoutToken(ctx, raw)
	if err != nil {
		return reply{}, err
	}
	what := []slog.Attr{slog.String("provider", name)}
	if ended.Subject != "" { // the user, as the provider calls it
		what = append(what, slog.String("subject", clip(ended.Subject, 512)))
	}
	if err := a.permit(ctx, c, "oidc_logout", what...); err != nil {
		return reply{}, err
	}
	sessions, err := a.o.Store.EndProviderLogin(ctx, ended, tokenID, expires.Add(a.o.Leeway))
	a.auditSome(ctx, c, "oidc_logout", err, sessions, what...)
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK}, nil
}
