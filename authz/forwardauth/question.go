package forwardauth

import (
	"net/http"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// The headers by which proxies say which request they ask about, as package http
// spells them.
const (
	forwardedMethod = "X-Forwarded-Method"
	forwardedURI    = "X-Forwarded-Uri"
	forwardedHost   = "X-Forwarded-Host"
	originalMethod  = "X-Original-Method"
	originalURL     = "X-Original-Url"
	originalURI     = "X-Original-Uri"
)

// question is the request that a proxy asks about, nothing interpreted.
type question struct {
	method, authority string
	target            string // path and query
	// subrequest: the proxy asks by X-Original-…, as nginx does. It hands on
	// neither the status nor the body of a refusal by itself.
	subrequest bool
}

// said is a header's value, and whether the header is there at all.
type said struct {
	value string
	given bool
}

// readQuestion finds the request that is asked about, or refuses with
// ReasonBadRequest. authority is that of the proxy's own request.
//
// Every header that is there must agree with what is decided on. Proxies pass on
// what clients send unless they are told otherwise, so a header that says
// something else may be the client's; and which of them is, can't be told.
func readQuestion(h http.Header, authority string) (question, error) {
	headers := map[string]said{}
	for _, name := range [...]string{forwardedMethod, forwardedURI, forwardedHost, originalMethod, originalURL, originalURI} {
		switch values := h[name]; len(values) {
		case 0:
		case 1:
			headers[name] = said{values[0], true}
		default:
			return question{}, refuse("%s is there %d times: the proxy must overwrite the client's", name, len(values))
		}
	}
	urlAuthority, urlTarget, err := splitURL(headers[originalURL])
	if err != nil {
		return question{}, err
	}

	var q question
	var method, host said
	forwarded := headers[forwardedURI].given
	switch {
	case forwarded && headers[forwardedMethod].given && headers[forwardedHost].given,
		forwarded && !headers[originalURL].given && !headers[originalURI].given:
		q.target, method, host = headers[forwardedURI].value, headers[forwardedMethod], headers[forwardedHost]
	case headers[originalURL].given:
		q.target, method, host = urlTarget.value, headers[originalMethod], urlAuthority
	case headers[originalURI].given:
		q.target, method, host = headers[originalURI].value, headers[originalMethod], said{authority, true}
	default:
		return question{}, refuse("nothing says which request is meant: the proxy must send X-Forwarded-Method, X-Forwarded-Uri and X-Forwarded-Host (Traefik, Caddy), or X-Original-Method and X-Original-URL (nginx)")
	}
	if !method.given || !host.given {
		return question{}, refuse("half of the request is missing: the proxy must send X-Forwarded-Method and X-Forwarded-Host with X-Forwarded-Uri, or X-Original-Method with X-Original-URL")
	}
	if !token(method.value) {
		return question{}, refuse("the method is none")
	}
	q.method, q.authority = method.value, host.value
	q.subrequest = !forwarded

	for _, other := range []struct {
		name   string
		said   said
		agrees bool
	}{
		{forwardedMethod, headers[forwardedMethod], headers[forwardedMethod].value == q.method},
		{originalMethod, headers[originalMethod], headers[originalMethod].value == q.method},
		{forwardedURI, headers[forwardedURI], headers[forwardedURI].value == q.target},
		{originalURI, headers[originalURI], headers[originalURI].value == q.target},
		{originalURL, headers[originalURL], urlTarget.value == q.target && strings.EqualFold(urlAuthority.value, q.authority)},
		{forwardedHost, headers[forwardedHost], strings.EqualFold(headers[forwardedHost].value, q.authority)},
	} {
		if other.said.given && !other.agrees {
			return question{}, refuse("%s says something else than another header: one of them is the client's, and the proxy must overwrite both", other.name)
		}
	}
	return q, nil
}

// splitURL cuts an absolute URL into authority and target without decoding
// anything.
func splitURL(url said) (authority, target said, err error) {
	if !url.given {
		return said{}, said{}, nil
	}
	scheme, rest, ok := strings.Cut(url.value, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return said{}, said{}, refuse("X-Original-URL is no absolute http or https URL")
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	return said{rest[:end], true}, said{rest[end:], true}, nil
}

// token reports whether s is a token of RFC 9110 section 5.6.2, as methods are.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	})
}

func refuse(format string, args ...any) error {
	return authz.Refuse(authz.ReasonBadRequest, "forward-auth: "+format, args...)
}
