package authapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// operation is one method of one path.
type operation struct {
	name   string // in the log and in metrics
	method string
	path   string // {name} stands for one segment
	handle func(context.Context, *call) (reply, error)

	// longest is how long it may take from when its body is there; 0 is quick. All of
	// them are shorter than the 15 seconds after which our gateway configurations give
	// up, which count from then, too; or, with Envoy, the 35 seconds for all of it.
	longest time.Duration
	// finishes: what has begun is brought to its end, though the client has
	// left. Else nothing more is done for nobody.
	finishes bool
	// document: it asks nobody, so there is place for any number of them.
	document bool
	// placeless: it asks nobody before it refuses or begins a stream, for which it has
	// places of its own.
	placeless bool
	// changes is what the audit log calls the change that it makes; "" for none.
	changes string
	// failure is the body, with status 500, that stands for every 503.
	failure string
	// needs are the parts of the configuration without which it isn't there.
	needs string
}

// absent is the answer to a call that this configuration doesn't have: the client's is
// that of any other path, and the log says what it lacks.
func (op *operation) absent() error {
	if op.needs == "" {
		return errNotFound
	}
	return &answered{
		status: http.StatusNotFound, body: bodyNotFound, reason: errNotFound.reason,
		err: fmt.Errorf("the call %s is not there: it needs %s in the configuration", op.name, op.needs),
	}
}

const (
	quick    = 5 * time.Second
	provider = 10 * time.Second // an OpenID provider is asked
	sweep    = 14 * time.Second // all records of the store are looked through
)

func (op *operation) deadline() time.Duration {
	if op.longest == 0 {
		return quick
	}
	return op.longest
}

// available returns the operations that the parts allow, and those that are missing.
func (a *API) available() (available, missing []*operation) {
	available, missing = a.everyOperation()
	for _, op := range missing {
		// Where the path has another call, the answer would be that the method
		// is wrong.
		if slices.ContainsFunc(available, func(other *operation) bool { return other.path == op.path }) {
			op.handle = func(context.Context, *call) (reply, error) { return reply{}, op.absent() }
			available = append(available, op)
		}
	}
	return available, missing
}

// CallNames are the names that a [Recorder] is told, sorted.
func CallNames() []string {
	names := []string{consoleCall, unknownCall}
	available, missing := (&API{}).everyOperation()
	for _, op := range append(available, missing...) {
		names = append(names, op.name)
	}
	slices.Sort(names)
	return names
}

// everyOperation returns those that the parts allow, and the others.
func (a *API) everyOperation() (available, missing []*operation) {
	const (
		get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete

		userSessions = "/auth/users/{id}/sessions"
	)
	o := a.o
	sessions, passwords := o.Cookies != nil, o.UserStore != nil
	tokens := o.AccessTokens != nil
	single := sessions && len(o.Providers) > 0
	for _, row := range []struct {
		on bool
		operation
	}{
		{sessions && passwords, operation{name: "login", method: post, path: "/auth/login", handle: a.login, changes: "login", needs: "sessions and users"}},
		{tokens && passwords, operation{name: "token", method: post, path: "/auth/token", handle: a.token, changes: "token_login", needs: "tokens.signing_keys and users"}},
		{tokens, operation{name: "refresh", method: post, path: "/auth/refresh", handle: a.refresh, finishes: true, changes: "refresh", needs: "tokens.signing_keys"}},
		{true, operation{name: "logout", method: post, path: "/auth/logout", handle: a.logout, finishes: true, failure: bodyLogoutFailed, changes: "logout"}},
		{true, operation{name: "revoke_all", method: post, path: "/auth/revoke-all-sessions", handle: a.revokeAll, longest: sweep, finishes: true, changes: "revoke_all"}},
		{true, operation{name: "revoke", method: post, path: "/auth/revoke", handle: a.revoke, finishes: true, changes: "revoke"}},
		{true, operation{name: "introspect", method: post, path: "/auth/introspect", handle: a.introspect}},

		{true, operation{name: "me", method: get, path: "/auth/me", handle: a.me}},
		{true, operation{name: "switch_organization", method: patch, path: "/auth/session", handle: a.switchOrganization, finishes: true, changes: "switch_organization"}},
		{true, operation{name: "sessions", method: get, path: "/auth/sessions", handle: a.ownSessions}},
		{true, operation{name: "end_session", method: del, path: "/auth/sessions/{handle}", handle: a.endOwnSession, finishes: true, changes: "end_session"}},
		{sessions, operation{name: "create_session", method: post, path: "/auth/sessions", handle: a.createSession, changes: "create_session", needs: "sessions"}},

		{a.finder != nil, operation{name: "find_users", method: get, path: "/auth/users", handle: a.findUsers, needs: "users"}},
		{true, operation{name: "user_sessions", method: get, path: userSessions, handle: a.userSessions, longest: sweep}},
		{true, operation{name: "change_user", method: patch, path: userSessions, handle: a.changeUser, longest: sweep, finishes: true, changes: "change_user"}},
		{true, operation{name: "end_user_session", method: del, path: userSessions + "/{handle}", handle: a.endUserSession, longest: sweep, finishes: true, changes: "end_session"}},

		{o.Decisions != nil, operation{name: "decisions", method: get, path: "/auth/decisions", handle: a.decisions}},
		{o.Status != nil, operation{name: "status", method: get, path: "/auth/status", handle: a.status}},

		{single, operation{name: "oidc_login", method: get, path: "/auth/oidc/{provider}/login", handle: a.oidcLogin, longest: provider, needs: "sessions and oidc"}},
		{single, operation{name: "oidc_callback", method: get, path: "/auth/oidc/{provider}/callback", handle: a.oidcCallback, longest: provider, changes: "oidc_login", needs: "sessions and oidc"}},
		{single, operation{name: "oidc_logout", method: post, path: "/auth/oidc/{provider}/backchannel-logout", handle: a.backchannelLogout, longest: provider, finishes: true, changes: "oidc_logout", needs: "sessions and oidc"}},

		{o.Feed != nil, operation{name: feedCall, method: get, path: "/auth/feed", handle: a.feed, placeless: true, needs: "a Redis that announces changes"}},

		{true, operation{name: "jwks", method: get, path: "/.well-known/jwks.json", handle: a.serveJWKS, document: true}},
		{true, operation{name: "openapi", method: get, path: "/auth/openapi.yaml", handle: a.serveOpenAPI, document: true}},
	} {
		if row.on {
			available = append(available, &row.operation)
		} else {
			missing = append(missing, &row.operation)
		}
	}
	return available, missing
}

// route finds the operation of a call. Paths are compared decoded, as the gate
// compares them, methods as they are sent.
func (a *API) route(c *call) (*operation, map[string]string, error) {
	var allow []string
	for _, op := range a.operations {
		params, ok := op.match(c.request.Path)
		if !ok {
			continue
		}
		method := c.r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if op.method != method {
			allow = append(allow, op.method)
			if op.method == http.MethodGet {
				allow = append(allow, http.MethodHead)
			}
			continue
		}
		for name, value := range params {
			if !utf8.ValidString(value) {
				return op, nil, authz.Refuse(authz.ReasonBadPath, "%s in the path is not UTF-8", name)
			}
		}
		return op, params, nil
	}
	if allow == nil {
		for _, op := range a.missing {
			if _, ok := op.match(c.request.Path); ok && op.method == c.r.Method {
				return nil, nil, op.absent()
			}
		}
		return nil, nil, errNotFound
	}
	slices.Sort(allow)
	return nil, nil, methodNotAllowed(strings.Join(allow, ", "))
}

// match returns what stands for the names in the operation's path. No segment
// is empty and none holds a slash: canonical paths have neither.
func (op *operation) match(path string) (params map[string]string, ok bool) {
	pattern := op.path
	for {
		wanted, morePattern, inPattern := strings.Cut(pattern, "/")
		got, morePath, inPath := strings.Cut(path, "/")
		if inPattern != inPath {
			return nil, false
		}
		switch name, isName := strings.CutPrefix(wanted, "{"); {
		case !isName && got != wanted, isName && got == "":
			return nil, false
		case isName:
			if params == nil {
				params = map[string]string{}
			}
			params[strings.TrimSuffix(name, "}")] = got
		}
		if !inPattern {
			return params, true
		}
		pattern, path = morePattern, morePath
	}
}

// Operation is a call of the API.
type Operation struct {
	Name   string // in the log and in metrics
	Method string
	Path   string // {name} stands for one segment
	Change string // the action in the audit log; "" for what changes nothing
}

// Operations are the calls that the API's parts allow.
func (a *API) Operations() []Operation {
	all := make([]Operation, len(a.operations))
	for i, op := range a.operations {
		all[i] = Operation{op.name, op.method, op.path, op.changes}
	}
	return all
}
