package authapi

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// The bodies that only the auth API has; the others are those of
// [authz.AnswerTo].
//
//nolint:gosec // G101: words about credentials
const (
	bodyNotFound         = `{"error":"Not found"}`
	bodyMethodNotAllowed = `{"error":"Method not allowed"}`
	bodyNoRefreshToken   = `{"error":"No refresh token"}`
	bodyLogoutFailed     = `{"error":"Logout failed"}`
	bodyForbidden        = `{"error":"Forbidden"}`
	bodyUnsupported      = `{"error":"unsupported_token_type"}` // RFC 7009 section 2.2.1

	jsonType = "application/json"
)

// reply is what a call answers. It is written in one place, after everything
// that can fail.
type reply struct {
	status  int
	kind    string // Content-Type; "" where there is no body
	body    string
	cookies []string       // lines of Set-Cookie
	header  []authz.Header // further ones
	cache   string         // Cache-Control; "" is no-store
	// stream writes what follows, for as long as it takes; nil: nothing does.
	stream func(ctx context.Context, to *events)
}

// write writes the answer; to HEAD, all but the body. What a stream writes comes behind it.
func (r reply) write(w http.ResponseWriter, method string) {
	h := w.Header()
	if r.cache == "" {
		r.cache = "no-store"
	}
	h.Set("Cache-Control", r.cache)
	h.Set("X-Content-Type-Options", "nosniff")
	for _, line := range r.cookies {
		h.Add("Set-Cookie", line)
	}
	for _, header := range r.header {
		h.Set(header.Name, header.Value)
	}
	if r.kind != "" {
		h.Set("Content-Type", r.kind)
	}
	if r.status != http.StatusNotModified && r.kind != eventStream {
		h.Set("Content-Length", strconv.Itoa(len(r.body)))
	}
	w.WriteHeader(r.status)
	if method != http.MethodHead && r.body != "" {
		_, _ = w.Write([]byte(r.body)) // the client left: nothing to do
	}
}

// ok answers 200 with the JSON of v.
func ok(v any) reply { return withJSON(http.StatusOK, v) }

func withJSON(status int, v any) reply {
	text, err := json.Marshal(v)
	if err != nil {
		panic("authapi: an answer has no JSON form: " + err.Error()) // they are strings, numbers, lists and objects of those
	}
	return reply{status: status, kind: jsonType, body: string(text)}
}

// message answers 200 in words.
func message(format string, args ...any) reply {
	return ok(struct {
		Message string `json:"message"`
	}{fmt.Sprintf(format, args...)})
}

// answered is a refusal with another answer than the table of reasons has.
type answered struct {
	status int
	body   string
	allow  string // for 405
	reason string // for the log; "" is that of err
	err    error  // may be nil
}

func (e *answered) Error() string {
	if e.err == nil {
		return e.reason
	}
	return e.err.Error()
}

func (e *answered) Unwrap() error { return e.err }

var errNotFound = &answered{status: http.StatusNotFound, body: bodyNotFound, reason: "not_found"}

func methodNotAllowed(allow string) error {
	return &answered{status: http.StatusMethodNotAllowed, body: bodyMethodNotAllowed, allow: allow, reason: "method_not_allowed"}
}

func badRequest(format string, args ...any) error {
	return authz.Refuse(authz.ReasonBadRequest, format, args...)
}

// refusal is the answer to an error. It has the cookies of what the operation
// returned with it, and nothing else of that; an answer that says that
// something is not known touches no cookie.
func (a *API) refusal(c *call, partial reply, err error) reply {
	c.err = err
	r := reply{kind: jsonType, cookies: partial.cookies}
	if e, ok := errors.AsType[*answered](err); ok {
		r.status, r.body = e.status, e.body
		c.reason = e.reason
		if c.reason == "" {
			c.reason = string(authz.ReasonOf(e.err))
		}
		if e.allow != "" {
			r.header = append(r.header, authz.Header{Name: "Allow", Value: e.allow})
		}
		return r
	}
	c.reason = string(authz.ReasonOf(err))
	answer := authz.AnswerTo(&c.decision, c.request, err)
	r.status, r.body = answer.Status, answer.Body
	if r.status == http.StatusServiceUnavailable {
		r.cookies = nil
	}
	if r.status == http.StatusServiceUnavailable && c.op != nil && c.op.failure != "" {
		r.status, r.body = http.StatusInternalServerError, c.op.failure
		return r
	}
	if answer.WWWAuthenticate != "" {
		r.header = append(r.header, authz.Header{Name: "WWW-Authenticate", Value: answer.WWWAuthenticate})
	}
	if answer.RetryAfter > 0 {
		r.header = append(r.header, authz.Header{Name: "Retry-After", Value: strconv.Itoa(answer.RetryAfter)})
	}
	return r
}

// afterPanic is the answer to a bug.
func (a *API) afterPanic(c *call, p any) reply {
	c.stack = string(debug.Stack())
	return a.refusal(c, reply{}, authz.Refuse(authz.ReasonInternal, "panic: %v", p))
}

// document is a body that is the same for everybody and may be kept.
type document struct {
	kind string
	etag string
	body string
}

func newDocument(kind string, body []byte) document {
	sum := sha256.Sum256(body)
	return document{kind: kind, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:15]) + `"`, body: string(body)}
}

// serve answers with the document, or with 304 to who has this version of it
// (RFC 9110 section 13.1.2).
func (d document) serve(c *call) reply {
	r := reply{status: http.StatusOK, kind: d.kind, body: d.body, cache: "public, max-age=300", header: []authz.Header{{Name: "ETag", Value: d.etag}}}
	known, _ := c.request.Headers.Header("if-none-match")
	for tag := range strings.SplitSeq(known, ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || strings.TrimPrefix(tag, "W/") == d.etag {
			r.status, r.kind, r.body = http.StatusNotModified, "", ""
			break
		}
	}
	return r
}

// userJSON is a user, as every call answers it.
type userJSON struct {
	UserID         string   `json:"userId"`
	Email          string   `json:"email"`
	Roles          []string `json:"roles"`
	OrganizationID string   `json:"organizationId"`
}

func userOf(id authz.Identity) userJSON {
	return userJSON{UserID: id.ID, Email: id.Email, Roles: list(id.Roles), OrganizationID: id.Organization}
}

// list is an array in JSON, also when there is nothing in it.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// moment is a time in JSON: RFC 3339 in UTC, with milliseconds; null for
// unknown.
type moment time.Time

// MarshalJSON implements [json.Marshaler].
func (m moment) MarshalJSON() ([]byte, error) {
	if time.Time(m).IsZero() {
		return []byte("null"), nil
	}
	return []byte(time.Time(m).UTC().Format(`"2006-01-02T15:04:05.000Z"`)), nil
}
