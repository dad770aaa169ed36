package authz

import (
	"net/url"
	"strings"
)

// Answer is what a refused client gets: the same by every door.
type Answer struct {
	Status int
	Body   string // JSON; "" with a redirect
	// WWWAuthenticate is the challenge of RFC 6750 section 3; "" for none.
	WWWAuthenticate string
	// RetryAfter is in seconds; 0 for none.
	RetryAfter int
	// RateLimitPolicy and RateLimit are the values of these headers; "" for none.
	RateLimitPolicy, RateLimit string
	// Location is where a browser is sent instead; "" for none.
	Location string
}

// The bodies that a refused client can get.
//
//nolint:gosec // G101: words about credentials
const (
	bodyBadRequest  = `{"error":"Bad request"}`
	bodyNoToken     = `{"error":"No token provided"}`
	bodyToken       = `{"error":"Invalid token"}`
	bodySession     = `{"error":"Invalid session"}`
	bodyForbidden   = `{"error":"Forbidden"}`
	bodyTooMany     = `{"error":"Too many requests"}`
	bodyUnavailable = `{"error":"Authentication unavailable"}`

	bodyLogin        = `{"error":"Invalid credentials"}`
	bodyRefresh      = `{"error":"Invalid refresh token"}`
	bodyNotConfirmed = `{"error":"Not confirmed"}`
)

// answerTo is the one table from reasons to what the client gets. It has no
// default, so that the linter finds a reason that is missing; a reason of
// nobody's is a bug, and refused like one.
func answerTo(reason Reason, kind Kind) (status int, body string) {
	switch reason {
	case ReasonBadPath, ReasonBadHost, ReasonBadRequest:
		return 400, bodyBadRequest
	case ReasonNoCredential:
		return 401, bodyNoToken
	case ReasonTokenInvalid, ReasonTokenExpired, ReasonTokenRevoked, ReasonTokenStale, ReasonCredentialInvalid:
		return 401, bodyToken
	case ReasonSessionForged, ReasonSessionUnknown, ReasonSessionExpired, ReasonSessionRevoked,
		ReasonSessionMalformed, ReasonSessionAnonymous, ReasonSessionStale, ReasonSessionIdle:
		return 401, bodySession
	case ReasonUserDisabled:
		if kind == KindSession {
			return 401, bodySession
		}
		return 401, bodyToken
	case ReasonPasswordWrong, ReasonLoginRefused:
		return 401, bodyLogin
	case ReasonRefreshInvalid, ReasonRefreshReused:
		return 401, bodyRefresh
	case ReasonAPIKeyUnknown, ReasonAPIKeyExpired, ReasonAPIKeyPolicy, ReasonRole, ReasonOrganization,
		ReasonIssuer, ReasonAudience, ReasonCondition, ReasonCrossSite, ReasonIdentityTooLong,
		ReasonNoPolicy, ReasonPolicyUnknown, ReasonNoAudience:
		return 403, bodyForbidden
	case ReasonRateLimited:
		return 429, bodyTooMany
	case ReasonStoreUnavailable, ReasonIssuerUnavailable, ReasonProfileMalformed, ReasonOverloaded, ReasonInternal, ReasonAuditUnavailable:
		return 503, bodyUnavailable
	case ReasonNotConfirmed:
		return 503, bodyNotConfirmed
	case ReasonAuthenticated, ReasonAnonymous: // not refusals: an error with one of them is a bug
	}
	return 503, bodyUnavailable
}

// AnswerTo returns what the client gets for a refusal of [Authorizer.Authorize].
func AnswerTo(d *Decision, r *Request, err error) Answer {
	reason := ReasonOf(err)
	status, body := answerTo(reason, d.Kind)
	a := Answer{Status: status, Body: body}
	switch {
	case status == 401 && d.redirects() && r.navigation():
		return Answer{Status: 302, Location: loginLocation(d.Policy.LoginURL, r)}
	case status == 401 && d.Kind == KindBearer:
		a.WWWAuthenticate = `Bearer error="invalid_token"`
	case status == 401 && d.Kind == "" && d.Policy.accepts(KindBearer):
		a.WWWAuthenticate = `Bearer realm="gatehouse"` // the scheme alone is no challenge: section 3 asks for a parameter
	case status == 403 && d.Kind == KindBearer:
		a.WWWAuthenticate = `Bearer error="insufficient_scope"`
	case status == 429:
		a.RetryAfter = d.Quota.RetryAfter()
	case status == 503:
		a.RetryAfter = 1
	}
	if d.Quota.known() {
		a.RateLimitPolicy, a.RateLimit = string(d.Quota.AppendPolicy(nil)), string(d.Quota.AppendState(nil))
	}
	return a
}

// redirects reports whether the policy sends to a login page who showed what
// this client did. A bearer token is an API client's: it gets its challenge.
func (d *Decision) redirects() bool {
	return d.Policy != nil && d.Policy.LoginURL != "" && (d.Kind == "" || d.Kind == KindSession)
}

// navigation reports whether a person's browser asks for a page, so that a
// redirect to a login page makes sense. Never for an unsafe method, a script's
// request or a subresource.
func (r *Request) navigation() bool {
	if r.Method != "GET" && r.Method != "HEAD" || r.header("x-requested-with") != "" {
		return false
	}
	if mode, ok := r.Headers.Header("sec-fetch-mode"); ok {
		dest, hasDest := r.Headers.Header("sec-fetch-dest")
		return mode == "navigate" && (!hasDest || dest == "document")
	}
	return strings.Contains(r.header("accept"), "text/html")
}

// loginLocation adds where the browser wanted to go. Only the path: the
// target stays within this origin.
func loginLocation(login string, r *Request) string {
	target := r.RawPath
	if r.Query != "" {
		target += "?" + r.Query
	}
	separator := "?"
	if strings.Contains(login, "?") {
		separator = "&"
	}
	return login + separator + "return_to=" + url.QueryEscape(target)
}
