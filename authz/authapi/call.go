package authapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/inbound"
)

// call is one request on its way.
type call struct {
	w       http.ResponseWriter // for reading the body and for the console only
	r       *http.Request
	request *authz.Request // the canonical form
	op      *operation     // nil until it is known, and for what is none
	params  map[string]string
	body    func() ([]byte, error)
	// decision is about the caller, as far as it got; refusals are answered by
	// it.
	decision authz.Decision

	// What the log is told, ids and handles only.
	caller    string // who calls, when that is known
	user      string // whom it is about
	session   string // handle
	reason    string
	err       error
	stack     string
	told      bool // the audit log was told of it
	permitted bool // the audit log may have a line that it was begun
}

// newCall brings a request into canonical form. The call is never nil.
func (a *API) newCall(w http.ResponseWriter, r *http.Request) (*call, error) {
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") { // a proxy's form, or a request that no server read
		target = r.URL.RequestURI()
	}
	request, err := authz.NewRequest(authz.RequestParts{
		Method:    r.Method,
		Authority: r.Host,
		Target:    target,
		Address:   inbound.ClientAddress(r, a.o.TrustedHops),
		Headers:   inbound.Headers(r.Header),
	})
	c := &call{w: w, r: r, request: request}
	c.body = sync.OnceValues(c.receiveBody)
	return c, err
}

func (c *call) header(name string) string {
	value, _ := c.request.Headers.Header(name)
	return value
}

// cookie returns the first cookie of a name; "" counts as none.
func (c *call) cookie(name string) string {
	value, _ := authz.FirstCookie(c.header("cookie"), name)
	return value
}

// address is the client's, "" for unknown.
func (c *call) address() string {
	if !c.request.Address.IsValid() {
		return ""
	}
	return c.request.Address.String()
}

// authenticate returns who calls, under one of our policies.
func (a *API) authenticate(ctx context.Context, c *call, policy string) (*authz.Principal, error) {
	r := *c.request
	r.PolicyName, r.HasPolicyName = policy, true
	d, err := a.authorizer.Authorize(ctx, &r)
	c.decision = *d
	if d.Principal != nil { // also of one who may not
		c.caller = d.Principal.ID
		if d.Principal.SessionID != "" {
			c.session = authz.Handle(d.Principal.SessionID)
		}
	}
	if err != nil {
		return nil, err
	}
	return d.Principal, nil
}

// user authenticates whoever acts for themselves.
func (a *API) authenticateUser(ctx context.Context, c *call) (*authz.Principal, error) {
	p, err := a.authenticate(ctx, c, callerPolicy)
	if err == nil {
		c.user = p.ID
	}
	return p, err
}

// authenticateAdmin authenticates who may act for others: an internal caller
// or an administrator. A key that is there decides.
func (a *API) authenticateAdmin(ctx context.Context, c *call) (*authz.Principal, error) {
	if _, ok := c.request.Headers.Header(authz.HeaderAPIKey); ok {
		return a.authenticateKey(c)
	}
	return a.authenticate(ctx, c, adminPolicy)
}

// authenticateKey authenticates an internal caller.
func (a *API) authenticateKey(c *call) (*authz.Principal, error) {
	c.decision.Kind = authz.KindAPIKey
	presented, ok := c.request.Headers.Header(authz.HeaderAPIKey)
	if !ok || a.o.APIKeys == nil {
		return nil, authz.Refuse(authz.ReasonAPIKeyUnknown, "this takes an internal key, and there is none")
	}
	key, err := a.o.APIKeys.Lookup(presented)
	if err != nil {
		return nil, err
	}
	c.caller = authz.ServicePrefix + key.Name
	if !key.AuthAPI {
		return nil, authz.Refuse(authz.ReasonAPIKeyPolicy, "key %q may not call the auth API", key.Name)
	}
	return &authz.Principal{Identity: authz.Identity{ID: c.caller}, Kind: authz.KindAPIKey, APIKey: key.Name}, nil
}

// crossSite refuses a call that a page of another site had the browser send.
func (a *API) crossSite(c *call) error { return a.o.TrustedOrigins.CrossSite(c.request) }

// Reasons that deserve more attention than a refusal usually does.
var (
	mistakes = []string{string(authz.ReasonInternal), string(authz.ReasonProfileMalformed)}
	outages  = []string{string(authz.ReasonStoreUnavailable), string(authz.ReasonIssuerUnavailable), string(authz.ReasonOverloaded), string(authz.ReasonNotConfirmed), string(authz.ReasonAuditUnavailable)}
)

func (c *call) level(status int) slog.Level {
	level := LevelOf(c.reason)
	if level == slog.LevelInfo && status < 400 && c.request.SafeMethod() {
		return slog.LevelDebug
	}
	return level
}

// LevelOf is the level of the line of a call that was refused for a reason, a word of
// [authz.Reason] or one that only this API has.
func LevelOf(reason string) slog.Level {
	switch {
	case slices.Contains(mistakes, reason):
		return slog.LevelError
	case slices.Contains(outages, reason):
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// note logs and counts a call that was answered: never a query, a header's
// value, a name or an address of email.
func (a *API) note(ctx context.Context, c *call, status int, took time.Duration) {
	name := unknownCall
	if c.op != nil {
		name = c.op.name
	}
	if a.o.Recorder != nil {
		a.o.Recorder.RecordCall(name, status, took)
		if c.reason != "" {
			a.o.Recorder.RecordRefusal(name, c.reason)
		}
	}
	c.trace(ctx, name)
	if errors.Is(c.err, errShed) {
		return
	}
	attrs := []slog.Attr{slog.String("call", name), slog.Int("status", status)}
	for _, a := range [...]struct{ key, value string }{
		{"reason", c.reason},
		{"caller", c.caller},
		{"user", c.user},
		{"session", c.session},
		{"address", c.address()},
		{"request_id", c.header("x-request-id")},
	} {
		if a.value != "" {
			attrs = append(attrs, slog.String(a.key, clip(a.value, 512)))
		}
	}
	attrs = append(attrs, slog.Duration("took", took))
	if c.err != nil {
		attrs = append(attrs, slog.String("error", clip(c.err.Error(), 512)))
	}
	if c.stack != "" {
		attrs = append(attrs, slog.String("stack", clip(c.stack, 8<<10)))
	}
	a.o.Log.LogAttrs(ctx, c.level(status), "auth", attrs...)
}

// trace names the call in its span, if there is one: what of a path stands for an id is
// not told.
func (c *call) trace(ctx context.Context, name string) {
	s := trace.SpanFromContext(ctx)
	if !s.IsRecording() {
		return
	}
	s.SetAttributes(attribute.String("gatehouse.call", name))
	if c.reason != "" {
		s.SetAttributes(attribute.String("gatehouse.reason", c.reason))
	}
	if c.op != nil && c.op.path != "" {
		s.SetName(c.op.method + " " + c.op.path)
		s.SetAttributes(semconv.HTTPRoute(c.op.path))
	}
}

// unknownCall is the name of what is no call of ours.
const unknownCall = "unknown"

// Actions are those that a [Recorder] is told, and that stand in audit lines.
var Actions = []string{
	"login", "oidc_login", "create_session", "token_login",
	"logout", "oidc_logout", "end_session", "revoke", "revoke_all",
	"switch_organization", "change_user", "refresh_token_reused",
}

// clip bounds what a request can make the log hold.
func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
