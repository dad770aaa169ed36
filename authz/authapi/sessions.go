package authapi

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/inbound"
)

// meJSON is the caller, as the gate tells it to services, and what else the
// caller may know.
type meJSON struct {
	userJSON
	Credential    authz.Kind `json:"credential"`
	Organizations []string   `json:"organizations"`
}

// me answers who calls.
func (a *API) me(ctx context.Context, c *call) (reply, error) {
	p, err := a.authenticateUser(ctx, c)
	if err != nil {
		return reply{}, err
	}
	organizations, err := a.organizations(ctx, p)
	if err != nil {
		return reply{}, err
	}
	return ok(meJSON{userOf(p.Identity), p.Kind, list(organizations)}), nil
}

// organizations are those that the caller may switch to: the profile's where it
// has a list, else the session's.
func (a *API) organizations(ctx context.Context, p *authz.Principal) ([]string, error) {
	if p.Kind != authz.KindSession { // a token's principal has the profile's
		return p.Organizations, nil
	}
	standing, err := a.o.Store.UserStanding(ctx, p.ID)
	if err != nil {
		return nil, err
	}
	return standing.Profile.Over(authz.User{Organizations: p.Organizations}).Organizations, nil
}

// switchOrganization changes the organization that the caller works in: of a
// session in its record, for tokens in the profile.
func (a *API) switchOrganization(ctx context.Context, c *call) (reply, error) {
	p, err := a.authenticateUser(ctx, c)
	if err != nil {
		return reply{}, err
	}
	var body organizationBody
	if err := c.readJSON(body.fields()); err != nil {
		return reply{}, err
	}
	if body.organization == nil {
		return reply{}, badRequest("no organizationId")
	}
	may, err := a.organizations(ctx, p)
	if err != nil {
		return reply{}, err
	}
	if !slices.Contains(may, *body.organization) {
		return reply{}, authz.Refuse(authz.ReasonOrganization, "none of the user's %d organizations", len(may))
	}
	what := []slog.Attr{slog.String("user", p.ID), slog.String("session", c.session), slog.String("organization", clip(*body.organization, 512))}
	if err := a.permit(ctx, c, "switch_organization", what...); err != nil {
		return reply{}, err
	}
	if p.Kind == authz.KindSession {
		err = a.o.Store.SwitchOrganization(ctx, p.SessionID, *body.organization)
	} else {
		err = a.o.Store.SwitchProfile(ctx, p.ID, *body.organization)
	}
	a.audit(ctx, c, "switch_organization", err, what...)
	if err != nil {
		return reply{}, err
	}
	p.Organization = *body.organization
	return ok(userOf(p.Identity)), nil
}

// loginJSON is a session or a refresh family, as its owner sees it.
type loginJSON struct {
	Handle    string `json:"handle"`
	Current   bool   `json:"current"`
	CreatedAt moment `json:"createdAt"`
	LastSeen  moment `json:"lastSeen"`
	Address   string `json:"address"`
	UserAgent string `json:"userAgent"`
}

func loginOf(l authz.ActiveLogin, current []string) loginJSON {
	return loginJSON{
		Handle: l.Handle, Current: slices.Contains(current, l.Handle), CreatedAt: moment(l.Created), LastSeen: moment(l.LastSeen),
		Address: l.Address, UserAgent: l.UserAgent,
	}
}

func loginsOf(all []authz.ActiveLogin, current []string) []loginJSON {
	logins := make([]loginJSON, len(all))
	for i, l := range all {
		logins[i] = loginOf(l, current)
	}
	return logins
}

// currentHandles are those of what the call itself came with.
func (a *API) currentHandles(c *call, p *authz.Principal) []string {
	var handles []string
	if p.SessionID != "" {
		handles = append(handles, authz.Handle(p.SessionID))
	}
	if sid, ok := p.Claims["sid"].(string); ok && sid != "" {
		handles = append(handles, authz.Handle(sid))
	}
	if refresh, ok := a.parseRefresh(c.cookie(refreshCookie)); ok {
		handles = append(handles, authz.Handle(refresh.Family))
	}
	return handles
}

// ownSessions lists the caller's sessions and refresh families.
func (a *API) ownSessions(ctx context.Context, c *call) (reply, error) {
	p, err := a.authenticateUser(ctx, c)
	if err != nil {
		return reply{}, err
	}
	sessions, err := a.o.Store.UserSessions(ctx, p.ID, false)
	if err != nil {
		return reply{}, err
	}
	families, err := a.o.Store.UserFamilies(ctx, p.ID)
	if err != nil {
		return reply{}, err
	}
	current := a.currentHandles(c, p)
	if p.SessionID != "" && !slices.ContainsFunc(sessions, func(l authz.ActiveLogin) bool { return l.Handle == current[0] }) {
		// Another program made it, and nobody has written it down yet.
		sessions = slices.Insert(sessions, 0, authz.ActiveLogin{Handle: current[0], Created: p.AuthTime, LastSeen: a.o.Now()})
	}
	return ok(struct {
		Sessions []loginJSON `json:"sessions"`
		Tokens   []loginJSON `json:"tokens"`
	}{loginsOf(sessions, current), loginsOf(families, current)}), nil
}

// endOwnSession ends one of the caller's sessions or refresh families.
func (a *API) endOwnSession(ctx context.Context, c *call) (reply, error) {
	p, err := a.authenticateUser(ctx, c)
	if err != nil {
		return reply{}, err
	}
	handle := c.params["handle"]
	if p.SessionID != "" && handle == authz.Handle(p.SessionID) { // which no index need have
		what := []slog.Attr{slog.String("user", p.ID), slog.String("session", handle)}
		if err := a.permit(ctx, c, "end_session", what...); err != nil {
			return reply{}, err
		}
		err := a.o.Store.End(ctx, authz.Ending{SessionID: p.SessionID})
		a.audit(ctx, c, "end_session", err, what...)
		if err != nil {
			return reply{}, err
		}
		answer := message(sessionEnded)
		answer.cookies = []string{a.sessionLine("")}
		return answer, nil
	}
	answer, err := a.endHandle(ctx, c, p.ID, handle)
	if refresh, ok := a.parseRefresh(c.cookie(refreshCookie)); err == nil && ok && handle == authz.Handle(refresh.Family) {
		answer.cookies = []string{a.refreshLine("")}
	}
	return answer, err
}

const sessionEnded = "Session ended"

func (a *API) endHandle(ctx context.Context, c *call, userID, handle string) (reply, error) {
	what := []slog.Attr{slog.String("user", clip(userID, 512)), slog.String("session", onlyHandle(handle))}
	if err := a.permit(ctx, c, "end_session", what...); err != nil {
		return reply{}, err
	}
	found, err := a.o.Store.RevokeHandle(ctx, userID, handle)
	if found || err != nil {
		a.audit(ctx, c, "end_session", err, what...)
	}
	switch {
	case err != nil:
		return reply{}, err
	case !found:
		return reply{}, errNotFound
	}
	return message(sessionEnded), nil
}

// futureSkew is how far a login service's clock may be ahead.
const futureSkew = 5 * time.Minute

// createSession begins a session for a user whom a login service has
// authenticated.
func (a *API) createSession(ctx context.Context, c *call) (reply, error) {
	if _, err := a.authenticateKey(c); err != nil {
		return reply{}, err
	}
	var body newSessionBody
	if err := c.readJSON(body.fields()); err != nil {
		return reply{}, err
	}
	l, err := a.loginOf(body)
	if err != nil {
		return reply{}, err
	}
	c.user = l.ID
	standing, err := a.o.Store.UserStanding(ctx, l.ID)
	switch {
	case err != nil:
		return reply{}, err
	case standing.Disabled():
		return reply{}, &answered{status: http.StatusForbidden, body: bodyForbidden, err: authz.Refuse(authz.ReasonUserDisabled, "the profile is disabled")}
	case standing.Covers(l.AuthTime): // a login that was under way when everything was revoked
		return reply{}, &answered{
			status: http.StatusForbidden, body: bodyForbidden,
			err: authz.Refuse(authz.ReasonSessionRevoked, "the user authenticated before everything of theirs was revoked"),
		}
	}
	expires := a.o.Now().Add(a.o.SessionTTL)
	signed, _, err := a.begin(ctx, c, "create_session", l, standing)
	if err != nil {
		return reply{}, err
	}
	answer := withJSON(http.StatusCreated, struct {
		Cookie    string `json:"cookie"`
		ExpiresAt moment `json:"expiresAt"`
	}{signed, moment(expires)})
	answer.cookies = []string{a.sessionLine(signed)}
	return answer, nil
}

// loginOf checks what a login service says about a user.
func (a *API) loginOf(body newSessionBody) (authz.Login, error) {
	l := authz.Login{
		Identity:      authz.Identity{ID: body.userID, Email: body.email, Roles: body.roles, Organization: body.organization},
		Organizations: body.organizations,
		Device:        authz.Device{UserAgent: userAgent(body.userAgent)},
	}
	if !ValidUserID(l.ID) {
		return l, badRequest("no userId, or one that no user may have")
	}
	if body.address != "" {
		address := inbound.ParseAddress(body.address)
		if !address.IsValid() {
			return l, badRequest("address is none")
		}
		l.Device.Address = address.String()
	}
	now := a.o.Now()
	if body.authTime.After(now.Add(futureSkew)) {
		return l, badRequest("authTime is in the future")
	}
	if !body.authTime.IsZero() {
		l.AuthTime = body.authTime
		if l.AuthTime.After(now) {
			l.AuthTime = now
		}
	}
	for name, value := range body.data {
		if a.reserved(name) {
			return l, badRequest("data has a member of a name that is taken")
		}
		if l.Values == nil {
			l.Values = make(map[string]any, len(body.data))
		}
		l.Values[name] = value
	}
	return l, nil
}

// reserved reports whether the identity, the cookie or what Gatehouse keeps
// stands under this member of a record.
func (a *API) reserved(name string) bool {
	return name == "cookie" || name == "gatehouse" || slices.ContainsFunc(a.o.RecordFields, func(field string) bool {
		first, _, _ := strings.Cut(field, ".")
		return name == field || name == first
	})
}
