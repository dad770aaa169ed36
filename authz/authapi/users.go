package authapi

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
)

// revokeAll ends everything that a user holds.
func (a *API) revokeAll(ctx context.Context, c *call) (reply, error) {
	if _, err := a.authenticateAdmin(ctx, c); err != nil {
		return reply{}, err
	}
	var body userBody
	if err := c.readJSON(body.fields()); err != nil {
		return reply{}, err
	}
	if body.userID == "" {
		return reply{}, badRequest("no userId")
	}
	c.user = body.userID
	user := slog.String("user", clip(body.userID, 512))
	if err := a.permit(ctx, c, "revoke_all", user); err != nil {
		return reply{}, err
	}
	sessions, err := a.o.Store.RevokeUser(ctx, body.userID)
	a.auditSome(ctx, c, "revoke_all", err, sessions, user)
	if err != nil {
		return reply{}, err
	}
	return message("Revoked %d sessions", sessions), nil
}

// heldJSON is a session, as an administrator sees it.
type heldJSON struct {
	loginJSON
	OrganizationID string   `json:"organizationId"`
	Roles          []string `json:"roles"`
}

// accountJSON is a user, as an administrator sees it.
type accountJSON struct {
	userJSON
	Organizations []string `json:"organizations"`
	Disabled      bool     `json:"disabled"`
}

// userSessions lists what a user holds, and who the user is.
func (a *API) userSessions(ctx context.Context, c *call) (reply, error) {
	caller, err := a.authenticateAdmin(ctx, c)
	if err != nil {
		return reply{}, err
	}
	id := c.params["id"]
	c.user = id
	all, err := Holdings(ctx, a.o.Store, id)
	if err != nil {
		return reply{}, err
	}
	current := a.currentHandles(c, caller)
	held := make([]heldJSON, len(all.Sessions))
	for i, s := range all.Sessions {
		held[i] = heldJSON{loginOf(s, current), s.Organization, list(s.Roles)}
	}
	return ok(struct {
		User     accountJSON `json:"user"`
		Sessions []heldJSON  `json:"sessions"`
		Tokens   []loginJSON `json:"tokens"`
	}{
		accountJSON{userOf(all.User.Identity), list(all.User.Organizations), all.Standing.Disabled()},
		held, loginsOf(all.Families, current),
	}), nil
}

// changeUser changes a user in the profile and in every session.
func (a *API) changeUser(ctx context.Context, c *call) (reply, error) {
	if _, err := a.authenticateAdmin(ctx, c); err != nil {
		return reply{}, err
	}
	var body changeBody
	if err := c.readJSON(body.fields()); err != nil {
		return reply{}, err
	}
	id := c.params["id"]
	c.user = id
	change := body.change()
	what := Changes(change)
	if what == nil {
		return reply{}, badRequest("nothing to change: organizationId, roles or disabled")
	}
	attrs := []slog.Attr{slog.String("user", clip(id, 512)), slog.String("changes", strings.Join(what, ","))}
	if err := a.permit(ctx, c, "change_user", attrs...); err != nil {
		return reply{}, err
	}
	sessions, err := a.o.Store.ChangeUser(ctx, id, change)
	a.auditSome(ctx, c, "change_user", err, sessions, attrs...)
	if err != nil {
		return reply{}, err
	}
	return ok(struct {
		Changed int `json:"changed"`
	}{sessions}), nil
}

// endUserSession ends one session or refresh family of a user.
func (a *API) endUserSession(ctx context.Context, c *call) (reply, error) {
	if _, err := a.authenticateAdmin(ctx, c); err != nil {
		return reply{}, err
	}
	c.user = c.params["id"]
	return a.endHandle(ctx, c, c.params["id"], c.params["handle"])
}

const (
	maxQuery = 1024 // bytes of what is searched for
	maxFound = 50
)

// foundJSON is a user, as the user store has it.
type foundJSON struct {
	userJSON
	Organizations []string `json:"organizations"`
}

// findUsers finds users in the user store. How they are now, their profiles
// say: see userSessions.
func (a *API) findUsers(ctx context.Context, c *call) (reply, error) {
	if _, err := a.authenticateAdmin(ctx, c); err != nil {
		return reply{}, err
	}
	values, err := query(c)
	if err != nil {
		return reply{}, err
	}
	text := strings.TrimSpace(values.Get("query"))
	if len(text) > maxQuery {
		return reply{}, badRequest("a query of %d bytes", len(text))
	}
	users, err := a.finder.FindUsers(ctx, text, maxFound)
	if err != nil {
		return reply{}, err
	}
	found := make([]foundJSON, len(users))
	for i, u := range users {
		found[i] = foundJSON{userOf(u.Identity), list(u.Organizations)}
	}
	return ok(struct {
		Users []foundJSON `json:"users"`
	}{found}), nil
}

// query returns the parameters of a call's query. None may be there twice.
func query(c *call) (url.Values, error) {
	values, err := parseForm(c.request.Query)
	if err != nil {
		return nil, badRequest("query: %w", err)
	}
	return values, nil
}
