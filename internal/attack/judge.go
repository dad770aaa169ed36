package attack

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// judge says what came of a case.
func (o *Options) judge(r *Result, out outcome, b *baseline) {
	r.Status = out.status
	if out.echo != nil && !out.foreign {
		r.Reached = o.reached(out.echo)
	}
	r.Verdict, r.Reason = o.verdict(r.Case.Expect, out, b)
}

func (o *Options) verdict(expect Expect, out outcome, b *baseline) (Verdict, string) {
	switch {
	case out.fetched:
		return Broken, "the gateway fetched a key from an address that the token names"
	case out.status == http.StatusSwitchingProtocols:
		return Broken, "the gateway switched protocols: what follows on the connection is not checked"
	case out.foreign:
		return Broken, "the answer belongs to another request"
	}
	for _, hidden := range out.more {
		if o.letsIn(hidden, b) {
			return Broken, "a second request, hidden in the first, was served: " + o.reached(hidden)
		}
	}
	for _, follower := range out.followers {
		if follower.foreign || follower.echo != nil && !reads(follower.echo.Path, o.Public) {
			return Broken, "the next client got the answer to this request"
		}
	}
	if out.echo != nil {
		return o.arrived(expect, out.echo, b)
	}
	switch {
	case out.late:
		return Inconclusive, "no answer in time"
	case out.garbage:
		return Inconclusive, "the answer is no HTTP"
	case out.status == http.StatusTooManyRequests:
		return Inconclusive, "asked too often; pause between requests"
	case out.status == 0, refuses(out.status):
		return Held, ""
	case out.method == http.MethodHead && out.status < 300 && expect.Refused:
		if out.status == b.refusal { // a login page, of which HEAD shows nothing
			return Inconclusive, fmt.Sprintf("answered %d, as refusals are, and as the service would", out.status)
		}
		return Broken, "answered as if the service had been asked"
	case out.status == b.refusal && out.status < 500: // a login page, say
		return Held, ""
	case out.method == http.MethodOptions && out.status < 300: // a preflight that the gateway answers itself
		return Held, ""
	case out.status >= 500:
		return Inconclusive, fmt.Sprintf("answered %d: the service may have been asked", out.status)
	}
	return Inconclusive, fmt.Sprintf("answered %d, but not by the echo", out.status)
}

// letsIn reports whether a request arrived at the protected path as nobody.
func (o *Options) letsIn(a *Arrival, b *baseline) bool {
	identity := a.identity(o.Headers)
	return reads(a.Path, o.Protected) && !slices.ContainsFunc(b.callers, func(c []string) bool { return len(c) > 0 && slices.Equal(c, identity) })
}

// arrived judges a request that reached the service.
func (o *Options) arrived(expect Expect, a *Arrival, b *baseline) (Verdict, string) {
	if expect.Refused {
		return Broken, "it reached the service"
	}
	if expect.Unprotected && o.letsIn(a, b) {
		return Broken, "it reached the service at a path that is, or that some servers read as, the protected one"
	}
	identity := a.identity(o.Headers)
	doubtful := false
	switch expect.Identity {
	case callerIdentity:
		if !slices.ContainsFunc(b.callers, func(c []string) bool { return slices.Equal(c, identity) }) {
			return Broken, "the identity headers say something else than for an ordinary request of the caller"
		}
		doubtful = len(identity) == 0
	case nobodyIdentity:
		if !slices.Equal(b.nobody, identity) {
			return Broken, "the identity headers say something else than for an ordinary request of nobody"
		}
	}
	for _, name := range expect.Absent {
		if len(a.values(name)) > 0 {
			return Broken, name + " reached the service"
		}
	}
	for _, name := range expect.Unsaid {
		if slices.ContainsFunc(a.values(name), func(v string) bool { return strings.Contains(v, mark) || strings.Contains(v, markAddress) }) {
			return Broken, name + " says what the client said"
		}
	}
	for _, prefix := range expect.Keeps {
		for name := range b.headers {
			if strings.HasPrefix(name, prefix) && len(a.values(name)) == 0 {
				return Broken, name + ", which the gateway sends otherwise, is gone"
			}
		}
	}
	if expect.Framing {
		if why := ambiguous(a); why != "" {
			return Broken, why
		}
	}
	if doubtful {
		return Inconclusive, "no identity header arrives with an ordinary request either"
	}
	return Held, ""
}

// ambiguous says why two servers could see two lengths in a request (RFC 9112
// section 6.3); "" where they can't.
func ambiguous(a *Arrival) string {
	length, coding := a.values("content-length"), a.values("transfer-encoding")
	switch {
	case len(length) > 0 && len(coding) > 0:
		return "it arrived with Content-Length and Transfer-Encoding"
	case len(coding) > 1 || len(coding) == 1 && !strings.EqualFold(coding[0], "chunked"):
		return "it arrived with a Transfer-Encoding other than chunked"
	case len(length) > 1 || len(length) == 1 && strings.Trim(length[0], "0123456789") != "":
		return "it arrived with a Content-Length that is no plain number"
	}
	return ""
}

const mostReached = 160

// reached is what reached the service, in short.
func (o *Options) reached(a *Arrival) string {
	text := strings.TrimSpace(a.Method + " " + a.Path)
	if identity := a.identity(o.Headers); len(identity) > 0 {
		text += " " + strings.Join(identity, " ")
	} else {
		text += " as nobody"
	}
	if runes := []rune(text); len(runes) > mostReached {
		text = string(runes[:mostReached-1]) + "…"
	}
	return text
}
