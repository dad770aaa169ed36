package forwardauth

import (
	"cmp"
	"context"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/inbound"
)

// Path is where proxies ask.
const Path = "/check"

// longestDecision bounds a decision. Proxies should wait a little longer: what
// they make of no answer is no 503.
const longestDecision = 2 * time.Second

// The headers of an answer for a proxy that drops status and body of a refusal,
// and for its log. Only those that ask by X-Original-… get them: others hand
// every header of a refusal on to the client.
const (
	headerStatus = "x-gatehouse-status"
	headerBody   = "x-gatehouse-body"
	headerReason = "x-gatehouse-reason"
	headerPolicy = "x-gatehouse-policy"
)

// Recorder learns of every decision: the one place where a request is logged
// and counted. err is the refusal, nil for an allowed request. took counts from the
// moment at which the headers of the proxy's request were read.
type Recorder interface {
	Record(ctx context.Context, r *authz.Request, d *authz.Decision, err error, took time.Duration)
}

// Options configure a [Handler]. The zero value is usable.
type Options struct {
	Headers        authz.IdentityHeaders // zero: authz.DefaultIdentityHeaders
	MaxHeaderBytes int                   // budget of the identity headers; 0: none
	// TrustedHops is the number of our own proxies in front, each of which has
	// added its peer to X-Forwarded-For. 0: the client is the peer, which is the
	// proxy.
	TrustedHops int
	// StripCredentials answers with the headers cookie and authorization as the
	// service may see them: without the session cookie, and without a bearer
	// token. One that is not in the answer is to be removed. The proxy must be
	// told to take them.
	StripCredentials bool
	SessionCookie    string // name, for StripCredentials
	Recorder         Recorder
}

// Handler answers proxies. It is safe for concurrent use.
//
// The request that is asked about is told by one of these, and never guessed:
//
//   - X-Forwarded-Method, X-Forwarded-Uri and X-Forwarded-Host;
//   - X-Original-Method and X-Original-URL, which is absolute;
//   - X-Original-Method and X-Original-URI, which is path and query; the host is
//     then that of the proxy's own request.
//
// The query may hold policy=NAME, once, and nothing else: the policy that the
// proxy's configuration names. Without it the routes of the policy set decide.
// The method of the proxy's request does not matter and its body is not read.
type Handler struct {
	authorizer *authz.Authorizer
	o          Options
}

// NewHandler returns the door to an authorizer.
func NewHandler(a *authz.Authorizer, o Options) *Handler {
	if o.Headers == (authz.IdentityHeaders{}) {
		o.Headers = authz.DefaultIdentityHeaders
	}
	return &Handler{authorizer: a, o: o}
}

// answer is what the proxy gets.
type answer struct {
	status int
	header []authz.Header
	body   string // JSON
}

// ServeHTTP answers one question. It never sets a cookie.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	write(w, r, h.answer(r, time.Now()))
}

// Shed answers a question without deciding it, there being too many: with 503.
func (h *Handler) Shed(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	q, _ := readQuestion(r.Header, r.Host) // as far as it can be read: how to answer
	request, d := &authz.Request{Headers: clientHeaders{inbound.Headers(r.Header)}}, &authz.Decision{}
	err := authz.Refuse(authz.ReasonOverloaded, "more requests than can be answered")
	write(w, r, denied(q, request, d, err))
	if h.o.Recorder != nil {
		h.o.Recorder.Record(r.Context(), request, d, err, time.Since(start))
	}
}

// write writes an answer.
func write(w http.ResponseWriter, r *http.Request, a answer) {
	header := w.Header()
	for _, field := range a.header {
		header.Set(field.Name, field.Value)
	}
	header.Set("Cache-Control", "no-store")
	if a.body != "" {
		header.Set("Content-Type", "application/json")
	}
	header.Set("Content-Length", strconv.Itoa(len(a.body)))
	if r.ContentLength != 0 {
		// A proxy that leaves the client's Content-Length in sends no body after
		// it. The server would wait for that before it answers.
		header.Set("Connection", "close")
	}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(a.body)) // who doesn't wait for it gets no permission
	}
}

// answer decides. A panic is a refusal: a proxy must not be left to make
// something of a broken connection.
func (h *Handler) answer(r *http.Request, start time.Time) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			a = h.panicked(r, p, start)
		}
	}()
	ctx, cancel := context.WithDeadline(r.Context(), start.Add(longestDecision))
	defer cancel()
	q, request, d, set, err := h.decide(ctx, r)
	if err != nil {
		a = denied(q, request, d, err)
	} else {
		a = h.allowed(q, request, d, set)
	}
	if h.o.Recorder != nil {
		h.o.Recorder.Record(ctx, request, d, err, time.Since(start))
	}
	return a
}

// panicked is the refusal for a bug beyond what decide catches, and recorded: unless it is
// the recorder that has the bug.
func (h *Handler) panicked(r *http.Request, p any, start time.Time) (a answer) {
	request, d := &authz.Request{Headers: authz.HeaderMap(nil)}, &authz.Decision{}
	err := authz.Refuse(authz.ReasonInternal, "panic: %v", p)
	a = denied(question{}, request, d, err)
	defer func() { _ = recover() }()
	if h.o.Recorder != nil {
		h.o.Recorder.Record(r.Context(), request, d, err, time.Since(start))
	}
	return a
}

// decide returns the headers to set for the service, or the refusal. Nothing that it
// returns is nil but the headers and the error.
func (h *Handler) decide(ctx context.Context, r *http.Request) (q question, request *authz.Request, d *authz.Decision, set []authz.Header, err error) {
	request, d = &authz.Request{Headers: clientHeaders{inbound.Headers(r.Header)}}, &authz.Decision{}
	defer func() {
		if p := recover(); p != nil {
			err = authz.Refuse(authz.ReasonInternal, "panic: %v", p)
		}
	}()
	if q, err = readQuestion(r.Header, r.Host); err != nil {
		return q, request, d, nil, err
	}
	policy, named, err := policyOf(r.URL.RawQuery)
	if err != nil {
		return q, request, d, nil, err
	}
	request, err = authz.NewRequest(authz.RequestParts{
		Method:        q.method,
		Authority:     q.authority,
		Target:        q.target,
		Address:       inbound.ClientAddress(r, h.o.TrustedHops),
		Headers:       request.Headers,
		PolicyName:    policy,
		HasPolicyName: named,
	})
	if err != nil {
		return q, request, d, nil, err
	}
	if d, err = h.authorizer.Authorize(ctx, request); err != nil || d.Principal == nil {
		return q, request, d, nil, err
	}
	err = d.Fits(&h.o.Headers, h.o.MaxHeaderBytes)
	switch {
	case err == nil:
		return q, request, d, d.Headers(h.o.Headers), nil
	case d.Policy.Observe: // refuses nothing: goes on without identity
		d.Observed, d.Reason = cmp.Or(d.Observed, err), authz.ReasonAnonymous
		return q, request, d, nil, nil
	}
	return q, request, d, nil, err
}

// policyOf reads the query of the proxy's request. What can't be understood
// there is a policy that does not exist: the proxy's configuration is wrong.
func policyOf(query string) (name string, named bool, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", false, authz.Refuse(authz.ReasonPolicyUnknown, "forward-auth: the query of %s can't be read: %w", Path, err)
	}
	for key, all := range values {
		if key != "policy" || len(all) != 1 {
			return "", false, authz.Refuse(authz.ReasonPolicyUnknown, "forward-auth: the query of %s may hold policy=NAME, once, and nothing else", Path)
		}
		name, named = all[0], true
	}
	return name, named, nil
}

// allowed lets the request through with exactly these identity headers. Those
// that are not there are to be removed from the client's request, as proxies do
// with a header that they were told to take from the answer.
func (h *Handler) allowed(q question, r *authz.Request, d *authz.Decision, set []authz.Header) answer {
	a := answer{status: http.StatusOK, header: slices.Concat(set, h.credentials(r, d), d.ClientHeaders())}
	a.note(q, d)
	return a
}

// credentials are the headers cookie and authorization as the service may see
// them; none without StripCredentials.
func (h *Handler) credentials(r *authz.Request, d *authz.Decision) []authz.Header {
	if !h.o.StripCredentials {
		return nil
	}
	var keep []authz.Header
	if cookie, _ := r.Headers.Header("cookie"); cookie != "" {
		if _, ours := authz.FirstCookie(cookie, h.o.SessionCookie); ours {
			cookie = authz.WithoutCookie(cookie, h.o.SessionCookie)
		}
		if cookie != "" {
			keep = append(keep, authz.Header{Name: "cookie", Value: cookie})
		}
	}
	if value, ok := r.Headers.Header("authorization"); ok && !d.ShowsBearer(r) {
		keep = append(keep, authz.Header{Name: "authorization", Value: value})
	}
	return keep
}

// denied is the refusal, as the client is to get it.
func denied(q question, r *authz.Request, d *authz.Decision, err error) answer {
	d.Reason = authz.ReasonOf(err)
	to := authz.AnswerTo(d, r, err)
	a := answer{status: to.Status, body: to.Body}
	add := func(name, value string) {
		if value != "" {
			a.header = append(a.header, authz.Header{Name: name, Value: value})
		}
	}
	add("www-authenticate", to.WWWAuthenticate)
	add("location", to.Location)
	if to.RetryAfter > 0 {
		add("retry-after", strconv.Itoa(to.RetryAfter))
	}
	add(authz.HeaderRateLimitPolicy, to.RateLimitPolicy)
	add(authz.HeaderRateLimit, to.RateLimit)
	a.note(q, d)
	return a
}

// note adds what a proxy needs that sees only the headers of an answer.
func (a *answer) note(q question, d *authz.Decision) {
	if !q.subrequest {
		return
	}
	a.header = append(a.header,
		authz.Header{Name: headerStatus, Value: strconv.Itoa(a.status)},
		authz.Header{Name: headerReason, Value: string(d.Reason)})
	if a.body != "" {
		a.header = append(a.header, authz.Header{Name: headerBody, Value: a.body})
	}
	if d.Policy != nil {
		a.header = append(a.header, authz.Header{Name: headerPolicy, Value: string(authz.AppendValue(nil, d.Policy.Name))})
	}
}

// clientHeaders are those of the client's request, as the proxy's shows them.
// Traefik and nginx take Upgrade out, since it is about one connection only;
// that a WebSocket is opened, which any page may do, still shows by the headers
// that go with it, and that no page can send for anything else (RFC 6455 section
// 4.1).
type clientHeaders struct{ inbound.Headers }

// Header implements [authz.Headers].
func (h clientHeaders) Header(name string) (string, bool) {
	value, ok := h.Headers.Header(name)
	if !ok && name == upgrade && h.opensWebSocket() {
		return "websocket", true
	}
	return value, ok
}

// All implements [authz.Headers].
func (h clientHeaders) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for name, value := range h.Headers.All() {
			if !yield(name, value) {
				return
			}
		}
		if _, given := h.Headers.Header(upgrade); !given && h.opensWebSocket() {
			yield(upgrade, "websocket")
		}
	}
}

const upgrade = "upgrade"

func (h clientHeaders) opensWebSocket() bool {
	for _, name := range [...]string{"sec-websocket-key", "sec-websocket-version"} {
		if _, ok := h.Headers.Header(name); ok {
			return true
		}
	}
	return false
}
