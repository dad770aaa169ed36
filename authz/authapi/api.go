package authapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/flood"
)

// Recorder counts calls. The names of calls come from a closed list.
type Recorder interface {
	// RecordCall is called once for every request, after its answer.
	RecordCall(call string, status int, took time.Duration)
	// RecordRefusal is called once for every request that was refused. The reason is one
	// of [authz.Reasons], or not_found or method_not_allowed.
	RecordRefusal(call, reason string)
	// RecordChange is called once for every change, with the action of its audit line,
	// which comes from a closed list: a change that could not be confirmed, too.
	RecordChange(action string)
}

// SameSite is that attribute of the session cookie.
type SameSite string

// The values of [SessionCookie.SameSite].
const (
	SameSiteStrict SameSite = "Strict"
	SameSiteLax    SameSite = "Lax"
	SameSiteNone   SameSite = "None"
)

// SessionCookie says how the session cookie is set. The zero value is what a
// browser guards best.
type SessionCookie struct {
	Name string // default sessionId; the prefixes __Host- and __Secure- work
	// InsecureHTTP leaves the attribute Secure out of every cookie of the API,
	// so that browsers send them without TLS, where everybody on the way can
	// read them.
	InsecureHTTP bool
	SameSite     SameSite // default Strict
}

// Options are the parts of an [API] and its settings. A part that is nil takes
// the calls with it that need it: they are 404.
type Options struct {
	// Store is required.
	Store Store
	// Cookies signs and verifies session cookies. nil: there are no sessions.
	Cookies       Cookies
	SessionCookie SessionCookie
	// SessionTTL is the life of a session and its cookie; default 24h.
	SessionTTL time.Duration
	// RecordFields name where the identity stands in the record of a session, as
	// members or dotted paths: what POST /auth/sessions may not put there as
	// further data. Default: userId, email, roles, organizationId, organizations
	// and authTime. The members cookie and gatehouse are never free.
	RecordFields []string

	// AccessTokens and RefreshTokens make our own tokens. Either nil: there are
	// none.
	AccessTokens  AccessTokens
	RefreshTokens RefreshTokens
	// RefreshTTL is the life of the cookie with the refresh token; default 168h.
	RefreshTTL time.Duration
	// Verifier verifies bearer tokens, ours and those of other issuers. nil:
	// nobody can call with one.
	Verifier Verifier
	// AdminIssuers are the issuers whose tokens can be an administrator's: our
	// own, as a rule. What an outside issuer calls an admin is one of its own.
	// Empty: administrators come with a session.
	AdminIssuers []string
	// Leeway is the longest time after its exp for which the verifier takes a
	// token; a revocation by name lasts for as long.
	Leeway time.Duration

	// UserStore knows passwords; where it is a [UserFinder] too, administrators
	// find users. nil: nobody logs in with a password.
	UserStore UserStore
	// Guesses slows down who guesses passwords. nil: nobody does.
	Guesses Guesses
	// Providers are the OpenID providers by their names in the path: letters,
	// digits, "-", "_" and ".".
	Providers map[string]Provider
	// APIKeys are those of internal callers. nil: there are none.
	APIKeys *authz.APIKeys

	// Feed tells services what ends. nil: they can't follow.
	Feed Feed

	// TrustedOrigins may send unsafe requests with the user's cookies, beside
	// the origin that a request is for.
	TrustedOrigins authz.Origins
	// TrustedHops is the number of our own proxies in front, each of which has
	// added its peer to X-Forwarded-For: the client is that many entries from
	// the right. 0: the client is the peer of the connection.
	TrustedHops int

	// JWKS are the public keys, as JSON. nil: an empty set.
	JWKS []byte
	// Decisions are those that administrators see. nil: nobody does.
	Decisions Decisions
	// Status says how this replica is. nil: nobody is told.
	Status func(context.Context) Status
	// Console serves /auth/console and what is below it. nil: 404.
	Console http.Handler

	Recorder Recorder         // nil: nothing is counted
	Log      *slog.Logger     // nil: nothing is logged
	Audit    Audit            // nil: the lines go to Log
	Now      func() time.Time // nil: time.Now
}

const (
	defaultSessionTTL = 24 * time.Hour
	defaultRefreshTTL = 7 * 24 * time.Hour
)

func (o Options) withDefaults() Options {
	o.SessionCookie.Name = cmp.Or(o.SessionCookie.Name, "sessionId")
	o.SessionCookie.SameSite = cmp.Or(o.SessionCookie.SameSite, SameSiteStrict)
	o.SessionTTL = cmp.Or(o.SessionTTL, defaultSessionTTL)
	o.RefreshTTL = cmp.Or(o.RefreshTTL, defaultRefreshTTL)
	if o.RecordFields == nil {
		o.RecordFields = []string{"userId", "email", "roles", "organizationId", "organizations", "authTime"}
	}
	if o.JWKS == nil {
		o.JWKS = []byte(`{"keys":[]}`)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Audit == nil {
		o.Audit = logAudit{o.Log}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// problems says everything that is wrong with the options.
func (o Options) problems() error {
	var errs []error
	report := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	report(o.Store == nil, "no store")
	report((o.AccessTokens == nil) != (o.RefreshTokens == nil), "access tokens and refresh tokens go together: one of them is missing")
	report(o.SessionTTL < time.Second, "a session that lives for %v: want at least 1s", o.SessionTTL)
	report(o.RefreshTTL < time.Second, "a refresh token that lives for %v: want at least 1s", o.RefreshTTL)
	report(o.Leeway < 0, "a leeway of %v: want 0 or more", o.Leeway)
	report(o.TrustedHops < 0, "%d trusted hops: want 0 or more", o.TrustedHops)

	c := o.SessionCookie
	report(!cookieToken(c.Name), "session cookie: %q is not a name for a cookie", c.Name)
	report(c.Name == refreshCookie || strings.HasPrefix(c.Name, flowCookie), "session cookie: the name %q is taken", c.Name)
	report(c.SameSite != SameSiteStrict && c.SameSite != SameSiteLax && c.SameSite != SameSiteNone,
		"session cookie: SameSite is %q, want Strict, Lax or None", c.SameSite)
	report(c.InsecureHTTP && c.SameSite == SameSiteNone, "session cookie: browsers refuse SameSite=None without Secure")
	report(c.InsecureHTTP && (strings.HasPrefix(c.Name, "__Host-") || strings.HasPrefix(c.Name, "__Secure-")),
		"session cookie: browsers refuse the name %q without Secure", c.Name)
	for _, name := range slices.Sorted(maps.Keys(o.Providers)) {
		report(!providerName(name), "provider %q: the name stands in a path; letters, digits, -, _ and . are good", name)
		report(o.Providers[name] == nil, "provider %q is nil", name)
	}
	return errors.Join(errs...)
}

func providerName(name string) bool {
	return name != "" && strings.Trim(name, ".") != "" && !strings.ContainsFunc(name, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !strings.ContainsRune("-_.", c)
	})
}

// API is the auth API. It is safe for concurrent use.
type API struct {
	o          Options
	operations []*operation
	missing    []*operation // what the configuration has no parts for
	authorizer *authz.Authorizer
	bearer     *authz.Bearer // nil where there is no verifier
	finder     UserFinder    // nil where the user store finds nobody
	revoker    Revoker
	refusals   *flood.Bound[refusals] // lines about those who aren't known
	jwks       document
	openAPI    document

	feeds    atomic.Int64 // who follows
	feedsEnd <-chan struct{}
	endFeeds func()
}

// The policies of the API.
const (
	callerPolicy = "caller"
	adminPolicy  = "administrator"
	adminRole    = "admin"
)

// New returns the API. Its error names everything that is wrong with the
// options. It starts nothing and asks nobody.
func New(o Options) (*API, error) {
	o = o.withDefaults()
	if err := o.problems(); err != nil {
		return nil, fmt.Errorf("auth API: %w", err)
	}
	a := &API{
		o:       o,
		jwks:    newDocument("application/jwk-set+json", o.JWKS),
		openAPI: newDocument("application/yaml", openAPI),
	}
	end := make(chan struct{})
	a.feedsEnd, a.endFeeds = end, sync.OnceFunc(func() { close(end) })
	a.refusals = flood.New(a.recordRefusals)
	a.finder, _ = o.UserStore.(UserFinder)
	a.revoker = Revoker{Store: o.Store, Verifier: o.Verifier, RefreshTokens: o.RefreshTokens, Leeway: o.Leeway}
	var kinds []authz.Kind
	var authenticators []authz.Authenticator
	if o.Cookies != nil {
		kinds = append(kinds, authz.KindSession)
		authenticators = append(authenticators, authz.NewSessions(o.SessionCookie.Name, o.Cookies, o.Store))
	}
	if o.Verifier != nil {
		kinds = append(kinds, authz.KindBearer)
		a.bearer = authz.NewBearer(o.Verifier, o.Store)
		authenticators = append(authenticators, a.bearer)
	}
	admin := authz.Policy{
		Name: adminPolicy, Credentials: kinds, Freshness: authz.FreshnessStrict, Passive: true, RolesAny: []string{adminRole}, Issuers: o.AdminIssuers,
	}
	if len(o.AdminIssuers) == 0 { // no list would be every issuer
		admin.Credentials = slices.DeleteFunc(slices.Clone(kinds), func(k authz.Kind) bool { return k == authz.KindBearer })
	}
	policies, err := authz.NewPolicySet(authz.PolicySetOptions{Policies: []authz.Policy{
		{Name: callerPolicy, Credentials: kinds, Freshness: authz.FreshnessStrict, Passive: true},
		admin,
	}})
	if err != nil {
		return nil, fmt.Errorf("auth API: %w", err)
	}
	a.authorizer = authz.NewAuthorizer(policies, authz.Options{TrustedOrigins: o.TrustedOrigins, Now: o.Now}, authenticators...)
	a.operations, a.missing = a.available()
	return a, nil
}

// ServeHTTP answers one call.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.Serve(w, r, anyNumber{}) }

// Places are there for so many calls at once. Each method is called once for a call, at
// most. Where it reports false, the call is shed: with 503, logout with its 500.
type Places interface {
	// Receive takes a place for a call whose body is still to come, and is told by
	// received when that is over, well or not.
	Receive() (received func(), ok bool)
	// Enter takes a place for a call that is there as a whole, so that nobody holds one
	// by sending slowly. Who serves the call gives it back.
	Enter() bool
	// Leave gives it back earlier, if there was one: for a stream, which would hold it for
	// as long as it goes on. Of streams there are so many as their operation allows.
	Leave()
}

// anyNumber are places for any number of calls.
type anyNumber struct{}

func (anyNumber) Receive() (received func(), ok bool) { return func() {}, true }
func (anyNumber) Enter() bool                         { return true }
func (anyNumber) Leave()                              {}

// Serve answers one call where there may be too many at once. What asks nobody, such as
// the public keys, the console's files and paths that don't exist, needs no place. Shed
// calls are counted and have no line in the log: there would be too many.
func (a *API) Serve(w http.ResponseWriter, r *http.Request, places Places) {
	start := time.Now()
	c, err := a.newCall(w, r)
	if err == nil && a.o.Console != nil && consolePath(c.request.Path) {
		a.serveConsole(r.Context(), c, start)
		return
	}
	answer := a.serve(r.Context(), c, places, err)
	a.auditRefusal(context.WithoutCancel(r.Context()), c, answer.status)
	answer.write(w, r.Method)
	a.note(r.Context(), c, answer.status, time.Since(start))
	if answer.stream != nil { // whose end may be far away
		places.Leave()
		to := streamTo(w)
		answer.stream(r.Context(), to)
		to.end()
	}
}

// serve returns the answer of a call that came about with err. A panic is an
// answer, too.
func (a *API) serve(ctx context.Context, c *call, places Places, err error) (answer reply) {
	defer func() {
		if p := recover(); p != nil {
			answer = a.afterPanic(c, p)
		}
	}()
	if err != nil {
		return a.refusal(c, reply{}, err)
	}
	c.op, c.params, err = a.route(c)
	if err != nil {
		return a.refusal(c, reply{}, err)
	}
	if !c.receive(places) || !c.op.document && !c.op.placeless && !places.Enter() {
		return a.refusal(c, reply{}, errShed)
	}
	ctx, cancel := c.op.context(ctx) // what sending the body took is no time of ours
	defer cancel()
	answer, err = c.op.handle(ctx, c)
	if err != nil {
		return a.refusal(c, answer, err)
	}
	return answer
}

// errShed refuses a call for which there is no place.
var errShed = authz.Refuse(authz.ReasonOverloaded, "more calls than can be answered")

// context is that of the operation: with its deadline, and for one that must
// not stop half-way, whether or not the client waits for it.
func (op *operation) context(ctx context.Context) (context.Context, context.CancelFunc) {
	if op.finishes {
		ctx = context.WithoutCancel(ctx)
	}
	return context.WithTimeout(ctx, op.deadline())
}

func consolePath(path string) bool {
	return path == consolePrefix || strings.HasPrefix(path, consolePrefix+"/")
}

const (
	consolePrefix = "/auth/console"
	consoleCall   = "console"
)

// serveConsole hands the request over.
func (a *API) serveConsole(ctx context.Context, c *call, start time.Time) {
	c.op = &operation{name: consoleCall, method: http.MethodGet, path: consolePrefix}
	w := &watchedWriter{ResponseWriter: c.w}
	defer func() {
		if p := recover(); p != nil {
			answer := a.afterPanic(c, p)
			if w.status == 0 {
				answer.write(w, c.r.Method)
			}
		}
		a.note(ctx, c, cmp.Or(w.status, http.StatusOK), time.Since(start))
	}()
	a.o.Console.ServeHTTP(w, c.r)
}

// watchedWriter remembers the status.
type watchedWriter struct {
	http.ResponseWriter
	status int
}

func (w *watchedWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *watchedWriter) Write(b []byte) (int, error) {
	w.status = cmp.Or(w.status, http.StatusOK)
	return w.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
