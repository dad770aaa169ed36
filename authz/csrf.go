package authz

import (
	"net/url"
	"slices"
	"strings"
)

// Origins are the web origins whose pages may send unsafe requests with a
// session cookie, beside the origin that the request itself is for. Each as
// a browser writes it: scheme, host, and port where it isn't the scheme's own.
type Origins []string

// CrossSite refuses an unsafe request that a page of another site had the
// browser send (ReasonCrossSite), by Sec-Fetch-Site and Origin. A request with
// neither passes: no browser sent it.
//
// Sec-Fetch-Site can't be set by a page, so it decides where it is there;
// same-site is not enough, since a neighbouring host may be another tenant's.
// Opening a WebSocket counts as unsafe: a GET, but any page may send it and
// then talk with the user's rights.
func (o Origins) CrossSite(r *Request) error {
	if r.SafeMethod() && !strings.EqualFold(r.header("upgrade"), "websocket") {
		return nil
	}
	site, hasSite := r.Headers.Header("sec-fetch-site")
	origin, hasOrigin := r.Headers.Header("origin")
	switch {
	case !hasSite && !hasOrigin,
		hasSite && (site == "same-origin" || site == "none"),
		hasOrigin && slices.Contains(o, strings.ToLower(origin)),
		!hasSite && sameOrigin(origin, r.Authority):
		return nil
	}
	return Refuse(ReasonCrossSite, "origin %q, sec-fetch-site %q", origin, site)
}

// sameOrigin reports whether an Origin header names the authority that the
// request is for. The scheme is the gateway's business: plain HTTP requests
// for a site that has TLS never get here.
func sameOrigin(origin, authority string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || authority == "" {
		return false
	}
	return strings.EqualFold(withoutDefaultPort(u.Host, u.Scheme), withoutDefaultPort(authority, u.Scheme))
}

func withoutDefaultPort(host, scheme string) string {
	switch scheme {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
}
