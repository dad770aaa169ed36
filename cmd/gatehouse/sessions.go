package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

func sessionsCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List, show, change and end the sessions of a user",
		Long: `Works on the Redis of the configuration, whether or not a server runs; running
servers see every change with the next request. Each change writes a line to standard
error, in the form of the auth API's audit log: who did what to whom.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().BoolP("quiet", "q", false, "don't say how far long work is")
	cmd.AddCommand(sessionsListCommand(env), sessionsShowCommand(env), sessionsSetCommand(env), sessionsRevokeCommand(env))
	return cmd
}

// jsonFlag lets a command print JSON.
func jsonFlag(cmd *cobra.Command, target *bool) {
	cmd.Flags().BoolVar(target, "json", false, "print JSON")
}

// What lists and shows print as JSON: the members of the auth API, and a few more.
type (
	heldUserJSON struct {
		UserID         string   `json:"userId"`
		Email          string   `json:"email"`
		Roles          []string `json:"roles"`
		OrganizationID string   `json:"organizationId"`
		Organizations  []string `json:"organizations"`
		Disabled       bool     `json:"disabled"`
	}
	heldLoginJSON struct {
		Handle    string  `json:"handle"`
		CreatedAt instant `json:"createdAt"`
		LastSeen  instant `json:"lastSeen"`
		ExpiresAt instant `json:"expiresAt"`
		Address   string  `json:"address"`
		UserAgent string  `json:"userAgent"`
	}
	heldSessionJSON struct {
		heldLoginJSON
		OrganizationID string   `json:"organizationId"`
		Roles          []string `json:"roles"`
	}
	shownJSON struct {
		Kind string `json:"kind"`
		heldLoginJSON
		UserID         string         `json:"userId"`
		Email          string         `json:"email,omitempty"`
		Roles          []string       `json:"roles,omitempty"`
		OrganizationID string         `json:"organizationId,omitempty"`
		Organizations  []string       `json:"organizations,omitempty"`
		AuthTime       *instant       `json:"authTime,omitempty"`
		Record         map[string]any `json:"record,omitempty"`
		Hidden         []string       `json:"hidden,omitempty"`
		Problem        string         `json:"problem,omitempty"`
	}
)

// The kinds of what a user holds.
const (
	kindSession = "session"
	kindRefresh = "refresh" // a refresh family: a login for tokens
)

func loginJSON(l authz.ActiveLogin) heldLoginJSON {
	return heldLoginJSON{l.Handle, instant(l.Created), instant(l.LastSeen), instant(l.Expires), l.Address, l.UserAgent}
}

// list is an array in JSON, also when there is nothing in it.
func list(s []string) []string { return append([]string{}, s...) }

func sessionsListCommand(env environment) *cobra.Command {
	var file configFlag
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list USER",
		Short: "List what a user holds: sessions, and logins for tokens",
		Long: `Lists the sessions of a user that live, and the refresh families, each of which is one
login for tokens, the latest first. Sessions that another program made, and that the
gate never saw, are found by looking through all records, in small steps: that takes
about a second for 200,000 of them.

A handle names a session to the other commands, and opens nothing. A session shows the
organization and the roles of its record; of tokens, the profile is the identity, which
is in the first line.

--json prints {"user", "sessions", "tokens"} as GET /auth/users/{id}/sessions does, with
expiresAt (null: never) and without current.`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: completeUser(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkUser(args[0]); err != nil {
				return err
			}
			return withStore(cmd, file, env, func(ctx context.Context, o *operator) error { return o.listSessions(ctx, args[0], asJSON) })
		},
	}
	file.register(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (o *operator) listSessions(ctx context.Context, userID string, asJSON bool) error {
	held, err := authapi.Holdings(ctx, o.store, userID)
	if err != nil {
		return err
	}
	if asJSON {
		return emitJSON(o.env.stdout, heldJSON(held))
	}
	o.doubt(ctx, userID, held.Known())
	fmt.Fprintln(o.env.stdout, userLine(held))
	if len(held.Sessions)+len(held.Families) == 0 {
		fmt.Fprintln(o.env.stdout, "no sessions and no logins for tokens")
		return nil
	}
	t := table{
		header:  []string{"HANDLE", "KIND", "CREATED", "SEEN", "EXPIRES", "ADDRESS", "ORG", "ROLES", "DEVICE"},
		shrinks: []bool{false, false, false, false, false, true, true, true, true},
	}
	now := time.Now()
	age := func(t time.Time, otherwise string) string {
		if t.IsZero() {
			return otherwise
		}
		return distance(t, now)
	}
	for _, row := range []struct {
		kind   string
		logins []authz.ActiveLogin
	}{{kindSession, held.Sessions}, {kindRefresh, held.Families}} {
		for _, l := range row.logins {
			t.add(l.Handle, row.kind, age(l.Created, ""), age(l.LastSeen, ""), age(l.Expires, "never"), l.Address, l.Organization, strings.Join(l.Roles, ","), deviceName(l.UserAgent))
		}
	}
	return t.write(o.env.stdout)
}

// userLine is one line about who a user is.
func userLine(held authapi.Held) string {
	u := held.User
	parts := []string{u.ID}
	for _, part := range []struct{ name, value string }{
		{"", u.Email},
		{"roles ", strings.Join(u.Roles, ",")},
		{"organization ", u.Organization},
		{"of ", strings.Join(u.Organizations, ",")},
	} {
		if part.value != "" {
			parts = append(parts, part.name+part.value)
		}
	}
	if held.Standing.Disabled() {
		parts = append(parts, "LOCKED OUT (disabled)")
	}
	return printable(strings.Join(parts, "  "))
}

func heldJSON(held authapi.Held) any {
	sessions, tokens := make([]heldSessionJSON, len(held.Sessions)), make([]heldLoginJSON, len(held.Families))
	for i, l := range held.Sessions {
		sessions[i] = heldSessionJSON{loginJSON(l), l.Organization, list(l.Roles)}
	}
	for i, l := range held.Families {
		tokens[i] = loginJSON(l)
	}
	u := held.User
	return struct {
		User     heldUserJSON      `json:"user"`
		Sessions []heldSessionJSON `json:"sessions"`
		Tokens   []heldLoginJSON   `json:"tokens"`
	}{heldUserJSON{u.ID, u.Email, list(u.Roles), u.Organization, list(u.Organizations), held.Standing.Disabled()}, sessions, tokens}
}

func sessionsShowCommand(env environment) *cobra.Command {
	var file configFlag
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show USER HANDLE",
		Short: "Show one session of a user, with its record",
		Long: `Shows one session, or refresh family, of a user, by its handle in 'sessions list':
times, device, and the record as the application and Gatehouse keep it, the cookie object
included.

Nothing secret is shown: no session id, which is replaced wherever it stands in the
record, and no value that is secret by its name (csrfToken, passport.secret) or by its
looks (a JWT, a private key). There is no flag to show them.`,
		Args:              usageArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: completeUser(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkUser(args[0]); err != nil {
				return err
			}
			if err := checkHandle(args[1]); err != nil {
				return err
			}
			return withStore(cmd, file, env, func(ctx context.Context, o *operator) error {
				return o.showSession(ctx, args[0], args[1], asJSON)
			})
		},
	}
	file.register(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// checkHandle is for a handle that somebody typed. What is none may be the id of a
// session, which is not repeated.
func checkHandle(handle string) error {
	if decoded, err := base64.RawURLEncoding.Strict().DecodeString(handle); err != nil || len(decoded) != 15 {
		return usageError{errors.New("a handle has 20 letters, digits, - and _, as 'gatehouse sessions list' shows it; one of the arguments is none")}
	}
	return nil
}

func (o *operator) showSession(ctx context.Context, userID, handle string, asJSON bool) error {
	held, ok, err := o.store.UserSession(ctx, userID, handle)
	if err != nil {
		return err
	}
	kind := kindSession
	if !ok {
		families, err := o.store.UserFamilies(ctx, userID)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(families, func(l authz.ActiveLogin) bool { return l.Handle == handle })
		if i < 0 {
			return noSuchHandle(userID, handle)
		}
		kind, held = kindRefresh, session.HeldSession{ActiveLogin: families[i]}
	}
	record, hidden := redacted(held.Values)
	if asJSON {
		return emitJSON(o.env.stdout, shownOf(kind, userID, held, record, hidden))
	}
	return o.writeShown(kind, userID, held, record, hidden)
}

func noSuchHandle(userID, handle string) error {
	return fmt.Errorf("%q has no session and no login for tokens with the handle %s: it has ended, or is somebody else's; 'gatehouse sessions list' shows what there is", userID, handle)
}

func shownOf(kind, userID string, held session.HeldSession, record map[string]any, hidden []string) shownJSON {
	shown := shownJSON{Kind: kind, heldLoginJSON: loginJSON(held.ActiveLogin), UserID: userID}
	if kind == kindRefresh {
		return shown
	}
	authTime := instant(held.AuthTime)
	shown.Email, shown.Roles, shown.OrganizationID, shown.Organizations = held.Email, held.Roles, held.Organization, held.Organizations
	shown.AuthTime, shown.Record, shown.Hidden = &authTime, record, hidden
	if held.Problem != nil {
		shown.Problem = held.Problem.Error()
	}
	return shown
}

func (o *operator) writeShown(kind, userID string, held session.HeldSession, record map[string]any, hidden []string) error {
	now := time.Now()
	var d details
	d.add("handle", held.Handle)
	d.add("kind", kind)
	d.add("user", userID)
	d.add("email", held.Email)
	d.add("roles", strings.Join(held.Roles, ", "))
	d.add("organization", held.Organization)
	d.add("organizations", strings.Join(held.Organizations, ", "))
	d.add("created", clock(held.Created, now, "unknown"))
	d.add("authenticated", clock(held.AuthTime, now, ""))
	d.add("last seen", clock(held.LastSeen, now, "unknown"))
	d.add("expires", clock(held.Expires, now, "never"))
	d.add("address", held.Address)
	d.add("user agent", held.UserAgent)
	if held.Problem != nil {
		d.add("refused", "the gate refuses this record: "+held.Problem.Error())
	}
	if err := d.write(o.env.stdout); err != nil || kind == kindRefresh {
		return err
	}
	text, err := jsonText(record, "")
	if err != nil {
		return err
	}
	fmt.Fprintf(o.env.stdout, "record\n%s\n", text)
	if len(hidden) > 0 {
		fmt.Fprintf(o.env.stdout, "not shown, since they are secret by their names or looks: %s\n", printable(strings.Join(hidden, ", ")))
	}
	return nil
}

func sessionsSetCommand(env environment) *cobra.Command {
	var file configFlag
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "set USER KEY=VALUE…",
		Short: "Change organization, roles or lock-out of a user, in all sessions at once",
		Long: `Changes a user in the profile and in every session, those included that the gate never
saw, and says how many sessions that were. The next request sees it, without a new login;
tokens follow the profile.

  organizationId=org-2      the organization that the user works in; nothing for none
  roles=admin,user          the roles, instead of those that there are
  roles=["a,b","c"]         the same as JSON, for roles with a comma
  roles=                    no roles
  disabled=true             locks the user out: no session, no token, no login
  disabled=false            lets the user in again

It is what PATCH /auth/users/{id}/sessions does. --json prints {"changed"}.`,
		Args:              usageArgs(cobra.MinimumNArgs(2)),
		ValidArgsFunction: completeChange(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkUser(args[0]); err != nil {
				return err
			}
			change, err := parseChange(args[1:])
			if err != nil {
				return err
			}
			return withStore(cmd, file, env, func(ctx context.Context, o *operator) error {
				return o.changeUser(ctx, args[0], change, asJSON)
			})
		},
	}
	file.register(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// parseChange makes the object of PATCH /auth/users/{id}/sessions of key=value
// pairs, so that the same is refused.
func parseChange(pairs []string) (authz.UserChange, error) {
	object := map[string]any{}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		switch {
		case !ok:
			return authz.UserChange{}, usageError{fmt.Errorf("%q is no KEY=VALUE", pair)}
		case !slices.Contains(authapi.UserChangeFields(), key):
			return authz.UserChange{}, usageError{fmt.Errorf("%q can't be set here; %s can", key, strings.Join(authapi.UserChangeFields(), ", "))}
		}
		if _, twice := object[key]; twice {
			return authz.UserChange{}, usageError{fmt.Errorf("%s is there twice", key)}
		}
		var err error
		if object[key], err = changeValue(key, value); err != nil {
			return authz.UserChange{}, err
		}
	}
	text, err := json.Marshal(object)
	if err != nil {
		return authz.UserChange{}, err
	}
	change, err := authapi.ParseUserChange(text)
	if err != nil {
		return change, usageError{err}
	}
	return change, nil
}

func changeValue(key, value string) (any, error) {
	switch {
	case key == "disabled":
		if value != "true" && value != "false" {
			return nil, usageError{fmt.Errorf("disabled=%s: write true or false", value)}
		}
		return value == "true", nil
	case key == "roles" && strings.HasPrefix(value, "["):
		if !json.Valid([]byte(value)) {
			return nil, usageError{errors.New(`roles: what begins with [ is a JSON array, as in 'roles=["a","b"]', in quotes because of the shell`)}
		}
		return json.RawMessage(value), nil
	case key == "roles" && value == "":
		return []string{}, nil
	case key == "roles":
		return strings.Split(value, ","), nil
	}
	return value, nil
}

func (o *operator) changeUser(ctx context.Context, userID string, change authz.UserChange, asJSON bool) error {
	known, err := o.known(ctx, userID)
	if err != nil {
		return err
	}
	what := []slog.Attr{slog.String("user", userID), slog.String("changes", strings.Join(authapi.Changes(change), ","))}
	if err := o.permit(ctx, "change_user", what...); err != nil {
		return err
	}
	sessions, err := o.store.ChangeUser(ctx, userID, change)
	o.recordSome(ctx, "change_user", err, sessions, what...)
	if err != nil {
		return err
	}
	if sessions == 0 && !known {
		if why := o.unknown(ctx, userID); why != "" {
			o.warn("%s; the change waits in a new profile", why)
		}
	}
	if asJSON {
		return emitJSON(o.env.stdout, struct {
			Changed int `json:"changed"`
		}{sessions})
	}
	fmt.Fprintf(o.env.stdout, "Changed %s\n", plural(sessions, "session"))
	return nil
}

func sessionsRevokeCommand(env environment) *cobra.Command {
	var file configFlag
	var r revocation
	var before string
	cmd := &cobra.Command{
		Use:   "revoke USER [HANDLE…]",
		Short: "End sessions of a user: some, all, or all up to a time",
		Long: `Ends what a user holds; the next request with it is refused. Choose one:

  HANDLE…          these sessions or refresh families, by their handles in 'sessions list';
                   with a family, the access tokens end that came from it
  --all            everything: sessions, whoever made them, refresh families and access
                   tokens, as POST /auth/revoke-all-sessions does
  --before TIME    what was made at that time or earlier: sessions whose records say when,
                   refresh families, and access tokens by their iat. TIME is as in
                   2026-01-31T12:00:00Z, a date, or Unix seconds, and not in the future.

The last two ask first, or take --yes where they can't.

The user can log in again; 'sessions set USER disabled=true' prevents that.

An exit code of 0 says that it is done, and that as many replicas hold it as
redis.confirm_replicas asks for. It can be repeated. --json prints {"revoked"}, the number
of sessions; with --before, of sessions and refresh families.`,
		Args:              usageArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeUser(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.userID = args[0]
			for _, handle := range args[1:] {
				if !slices.Contains(r.handles, handle) { // the second one would be missing
					r.handles = append(r.handles, handle)
				}
			}
			if err := r.check(before, time.Now()); err != nil {
				return err
			}
			return withStore(cmd, file, env, func(ctx context.Context, o *operator) error { return o.revoke(ctx, r) })
		},
	}
	file.register(cmd)
	jsonFlag(cmd, &r.asJSON)
	cmd.Flags().BoolVar(&r.all, "all", false, "everything that the user holds")
	cmd.Flags().StringVar(&before, "before", "", "what was made at this `TIME` or earlier")
	cmd.Flags().BoolVarP(&r.yes, "yes", "y", false, "don't ask")
	return cmd
}

// revocation is what 'sessions revoke' is to end.
type revocation struct {
	userID      string
	handles     []string
	all         bool
	before      time.Time
	yes, asJSON bool
}

func (r *revocation) check(before string, now time.Time) error {
	if err := checkUser(r.userID); err != nil {
		return err
	}
	ways := 0
	for _, chosen := range []bool{len(r.handles) > 0, r.all, before != ""} {
		if chosen {
			ways++
		}
	}
	if ways != 1 {
		return usageError{errors.New("say what to end, in one way: handles of 'gatehouse sessions list', --all, or --before TIME")}
	}
	for _, handle := range r.handles {
		if err := checkHandle(handle); err != nil {
			return err
		}
	}
	if before == "" {
		return nil
	}
	var err error
	if r.before, err = parseTime(before); err != nil {
		return usageError{fmt.Errorf("--before: %w", err)}
	}
	if r.before.After(now) {
		return usageError{errors.New("--before: a time in the future would refuse every new login until then; 'gatehouse sessions set USER disabled=true' locks a user out")}
	}
	return nil
}

func (o *operator) revoke(ctx context.Context, r revocation) error {
	switch {
	case r.all:
		return o.revokeAll(ctx, r)
	case !r.before.IsZero():
		return o.revokeBefore(ctx, r)
	}
	return o.revokeHandles(ctx, r)
}

func (o *operator) revokeAll(ctx context.Context, r revocation) error {
	what := fmt.Sprintf("This ends every session, refresh family and access token of the user %s.", r.userID)
	if err := confirm(ctx, o.env, r.yes, what, r.userID); err != nil {
		return err
	}
	known, err := o.known(ctx, r.userID)
	if err != nil {
		return err
	}
	if err := o.permit(ctx, "revoke_all", slog.String("user", r.userID)); err != nil {
		return err
	}
	sessions, err := o.store.RevokeUser(ctx, r.userID)
	o.recordSome(ctx, "revoke_all", err, sessions, slog.String("user", r.userID))
	o.doubt(ctx, r.userID, known || sessions > 0)
	return o.revoked(r, err, sessions, "Revoked %s of %s, and all tokens\n", plural(sessions, "session"), printable(r.userID))
}

// doubt warns whoever may have mistyped an id, and would believe that somebody's
// sessions have ended.
func (o *operator) doubt(ctx context.Context, userID string, known bool) {
	if known {
		return
	}
	if why := o.unknown(ctx, userID); why != "" {
		o.warn("%s", why)
	}
}

// revoked says how many there were, also when it is not confirmed.
func (o *operator) revoked(r revocation, err error, n int, format string, args ...any) error {
	switch {
	case err != nil && authz.ReasonOf(err) != authz.ReasonNotConfirmed:
		return err
	case r.asJSON:
		return errors.Join(err, emitJSON(o.env.stdout, struct {
			Revoked int `json:"revoked"`
		}{n}))
	}
	fmt.Fprintf(o.env.stdout, format, args...)
	return err
}

// revokeBefore moves the user's mark. What falls under it is counted by looking
// before and after.
func (o *operator) revokeBefore(ctx context.Context, r revocation) error {
	what := fmt.Sprintf("This ends what the user %s holds and was made at %s or earlier: sessions, refresh families and access tokens.", r.userID, r.before.UTC().Format(time.RFC3339))
	if err := confirm(ctx, o.env, r.yes, what, r.userID); err != nil {
		return err
	}
	was, known, err := o.handles(ctx, r.userID)
	if err != nil {
		return err
	}
	marked := []slog.Attr{slog.String("user", r.userID), slog.Time("before", r.before)}
	if err := o.permit(ctx, "revoke_before", marked...); err != nil {
		return err
	}
	err = o.store.RevokeUserBefore(ctx, r.userID, r.before)
	o.record(ctx, "revoke_before", err, marked...)
	if err != nil && authz.ReasonOf(err) != authz.ReasonNotConfirmed {
		return err
	}
	o.doubt(ctx, r.userID, known)
	is, _, lookErr := o.handles(ctx, r.userID)
	if lookErr != nil {
		return errors.Join(err, lookErr)
	}
	n := 0
	for handle := range was {
		if !is[handle] {
			n++
		}
	}
	return o.revoked(r, err, n, "Revoked %s of %s, and the tokens made up to %s\n",
		plural(n, "login"), printable(r.userID), r.before.UTC().Format(time.RFC3339))
}

// handles are those of all that a user holds.
func (o *operator) handles(ctx context.Context, userID string) (handles map[string]bool, known bool, err error) {
	held, err := authapi.Holdings(ctx, o.store, userID)
	if err != nil {
		return nil, false, err
	}
	handles = make(map[string]bool, len(held.Sessions)+len(held.Families))
	for _, l := range slices.Concat(held.Sessions, held.Families) {
		handles[l.Handle] = true
	}
	return handles, held.Known(), nil
}

// errNoLogin is that nothing has the handle, for the audit log.
var errNoLogin = authz.Refuse(authz.ReasonBadRequest, "no login has this handle")

func (o *operator) revokeHandles(ctx context.Context, r revocation) error {
	revoked, swept := 0, false
	var missing []string
	var failed error
	for _, handle := range r.handles {
		ended := []slog.Attr{slog.String("user", r.userID), slog.String("session", handle)}
		if failed = errors.Join(failed, o.permit(ctx, "end_session", ended...)); failed != nil && authz.ReasonOf(failed) != authz.ReasonNotConfirmed {
			break
		}
		found, err := o.store.RevokeHandle(ctx, r.userID, handle)
		if err == nil && !found && !swept {
			// The gate may never have seen it. Looking notes what there is.
			if _, err := o.store.UserSessions(ctx, r.userID, true); err != nil {
				o.record(ctx, "end_session", err, ended...)
				failed = err
				break
			}
			swept = true
			found, err = o.store.RevokeHandle(ctx, r.userID, handle)
		}
		ending := err
		if err == nil && !found {
			ending = errNoLogin
		}
		o.record(ctx, "end_session", ending, ended...)
		switch {
		case err != nil && authz.ReasonOf(err) != authz.ReasonNotConfirmed:
			failed = err
		case found:
			revoked++
			failed = errors.Join(failed, err)
		case err == nil:
			missing = append(missing, handle)
		default: // ended before, and not confirmed now
			failed = err
		}
		if failed != nil && authz.ReasonOf(failed) != authz.ReasonNotConfirmed {
			break
		}
	}
	if r.asJSON {
		failed = errors.Join(failed, emitJSON(o.env.stdout, struct {
			Revoked int `json:"revoked"`
		}{revoked}))
	} else if revoked > 0 {
		fmt.Fprintf(o.env.stdout, "Revoked %s of %s\n", plural(revoked, "login"), printable(r.userID))
	}
	if failed == nil && missing != nil {
		return noSuchHandle(r.userID, strings.Join(missing, ", "))
	}
	return failed
}
