package authapi

import (
	"strconv"
	"strings"
	"time"
)

const (
	refreshCookie = "refreshToken"
	refreshPath   = "/auth"

	flowCookie = "oidc_" // and the flow
	flowTTL    = 10 * time.Minute
)

// cookie is one to set. Values are written as they are: they hold nothing that
// would need encoding, and what a signature covers must not be encoded again.
type cookie struct {
	name, value string
	path        string
	sameSite    SameSite
	life        time.Duration // 0: it is cleared
}

// line returns the value of a Set-Cookie header. Max-Age counts; Expires is for
// clients that don't know it.
func (a *API) line(c cookie) string {
	if !cookieValue(c.value) {
		panic("authapi: the value of cookie " + c.name + " has bytes that no cookie may have")
	}
	expires := time.Unix(0, 0)
	if c.life > 0 {
		expires = a.o.Now().Add(c.life)
	}
	var b strings.Builder
	b.WriteString(c.name + "=" + c.value + "; Path=" + c.path)
	b.WriteString("; Max-Age=" + strconv.FormatInt(int64(c.life/time.Second), 10))
	b.WriteString("; Expires=" + expires.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"))
	b.WriteString("; HttpOnly")
	if !a.o.SessionCookie.InsecureHTTP {
		b.WriteString("; Secure")
	}
	b.WriteString("; SameSite=" + string(c.sameSite))
	return b.String()
}

// sessionLine sets the session cookie to a signed value; "" clears it.
func (a *API) sessionLine(signed string) string {
	c := cookie{name: a.o.SessionCookie.Name, value: signed, path: "/", sameSite: a.o.SessionCookie.SameSite}
	if signed != "" {
		c.life = a.o.SessionTTL
	}
	return a.line(c)
}

// refreshLine sets the cookie with the refresh token; "" clears it. Only the
// API sees it.
func (a *API) refreshLine(token string) string {
	c := cookie{name: refreshCookie, value: token, path: refreshPath, sameSite: SameSiteStrict}
	if token != "" {
		c.life = a.o.RefreshTTL
	}
	return a.line(c)
}

// flowLine sets the cookie of a login at a provider; "" clears it. Lax: the
// callback is a navigation that another site began.
func (a *API) flowLine(provider, flow, sealed string) string {
	c := cookie{name: flowCookie + flow, value: sealed, path: "/auth/oidc/" + provider, sameSite: SameSiteLax}
	if sealed != "" {
		c.life = flowTTL
	}
	return a.line(c)
}

// sessionID returns the id in the session cookie that was presented, alive or
// not; "" for none and for a forged one.
func (a *API) sessionID(c *call) string {
	if a.o.Cookies == nil {
		return ""
	}
	id, ok := a.o.Cookies.Verify(c.cookie(a.o.SessionCookie.Name))
	if !ok {
		return ""
	}
	return id
}

// cookieToken reports whether s can be the name of a cookie (RFC 6265 section
// 4.1.1).
func cookieToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	})
}

// cookieValue reports whether s can be the value of one.
func cookieValue(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`,;\"`, r)
	})
}
