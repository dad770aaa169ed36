package authapi_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

// FuzzCall states that whatever arrives at the API is answered as its description
// says, never by a failure of our own; and that who shows no credential, and no
// password, changes nothing in the store and learns of nobody. The lines are headers,
// by name and colon; $bob and $alice stand for their sessions.
func FuzzCall(f *testing.F) {
	f.Add("GET", "/auth/me", "Cookie:sessionId=$bob", "")
	f.Add("POST", "/auth/login", "Content-Type:application/json", `{"email":"bob@example.com","password":"password of bob"}`)
	f.Add("POST", "/auth/login", "Origin:https://evil.example", `{"email":"bob@example.com","password":["x"]}`)
	f.Add("POST", "/auth/revoke-all-sessions", "Cookie:sessionId=$alice\nX-User-Id:alice", `{"userId":"bob"}`)
	f.Add("POST", "/auth/revoke-all-sessions", "X-User-Id:alice\nX-User-Roles:[\"admin\"]", `{"userId":"bob"}`)
	f.Add("POST", "/auth/revoke", "Content-Type:application/x-www-form-urlencoded", "token=a&token_type_hint=refresh_token")
	f.Add("POST", "/auth/introspect", "X-Internal-Api-Key:guess", "token=x")
	f.Add("PATCH", "/auth/users/bob/sessions", "Authorization:Bearer x", `{"disabled":true}`)
	f.Add("DELETE", "/auth/sessions/%2e%2e", "Cookie:sessionId=$bob", "")
	f.Add("POST", "/auth/oidc/corp/backchannel-logout", "Content-Type:application/x-www-form-urlencoded", "logout_token=x")
	f.Add("GET", "/auth/oidc/corp/callback?state=x&code=y", "Cookie:flow=x", "")
	f.Add("GET", "/auth/oidc/corp/login?return_to=//evil.example", "", "")
	f.Add("HEAD", "/.well-known/jwks.json", "If-None-Match:*", "")
	f.Add("GET", "/auth/console/../me", "X-Forwarded-For:1\nForwarded:for=x", "")
	f.Add("POST", "/auth/logout", "Cookie:sessionId=s%3Ax.y; refreshToken=a.0.b.c", "{}")
	f.Add("POST", "/auth/refresh", "Content-Type:application/json", `{"refreshToken":"a.0.b.c"}`)
	f.Fuzz(func(t *testing.T, method, target, lines, body string) {
		probe, err := http.NewRequest(method, "http://h/", nil)
		if err != nil || !utf8.ValidString(target) || !strings.HasPrefix(target, "/") || probe.Method != method {
			return // net/http's server hands nothing of the kind over
		}
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		b := newBench(t)
		known := map[string]string{}
		for name, who := range map[string]account{"$bob": bob, "$alice": alice} {
			cookie, _ := b.logIn(t, who)
			known[name] = strings.TrimPrefix(cookie[1], "sessionId=")
		}
		before := b.store.snapshot(t)
		r := httptest.NewRequest(method, "/", strings.NewReader(body))
		r.RequestURI, r.URL, r.Host, r.RemoteAddr = target, u, "gateway.example.com", "192.0.2.1:40000"
		shown := false
		for line := range strings.SplitSeq(lines, "\n") {
			name, value, _ := strings.Cut(line, ":")
			for text, credential := range known {
				shown = shown || strings.Contains(value, text)
				value = strings.ReplaceAll(value, text, credential)
			}
			if strings.ContainsAny(name+value, "\r\n\x00") || name == "" {
				continue
			}
			r.Header.Add(name, value)
		}
		answered := b.serve(t, r, body)
		require.NotEqual(t, http.StatusInternalServerError, answered.status, answered.body)
		for _, credential := range known {
			require.NotContains(t, answered.body, credential)
		}
		if shown || strings.Contains(body, "password of") || strings.Contains(lines, "internal-key-of-") {
			return
		}
		require.Equal(t, before, b.store.snapshot(t), "somebody without a credential changed it")
		require.NotContains(t, answered.body, "@example.com")
		for _, line := range answered.header.Values("Set-Cookie") {
			require.NotContains(t, line, "sessionId=s", "a session for nobody")
		}
		require.NotEqual(t, http.StatusCreated, answered.status)
	})
}

// FuzzUserAgent states that what is kept of a user agent is short, text, and of one
// line, and is what was said as far as it goes.
func FuzzUserAgent(f *testing.F) {
	for _, seed := range []string{"", "Mozilla/5.0", "a\r\nb", "\xff\xfe", strings.Repeat("é", 300), "\u2028\x7f\x1b[31m"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		kept := authapi.UserAgent(s)
		require.LessOrEqual(t, len(kept), 256)
		require.True(t, utf8.ValidString(kept))
		require.NotContains(t, kept, "\n")
		require.NotContains(t, kept, "\x1b")
		require.Equal(t, kept, authapi.UserAgent(kept))
	})
}

// FuzzNames states that the names by which a cookie, a provider and a login are told
// apart hold nothing that could end a header, a cookie or a segment of a path.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{"sessionId", "corp", "abc123ABC456", "a b", "a;b", "a/b", "..", "", "é", "a=b", "a,b", `"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, ok := range map[string]bool{"cookie": authapi.CookieToken(s), "provider": authapi.ProviderName(s), "flow": authapi.FlowName(s)} {
			if !ok {
				continue
			}
			require.NotEmpty(t, s, name)
			if name != "cookie" {
				require.NotContains(t, []string{".", ".."}, s, name)
				require.Equal(t, url.PathEscape(s), s, name)
			}
			found := (&http.Cookie{Name: s, Value: "v"}).String()
			require.Equal(t, s+"=v", found, "%s: net/http writes no such cookie", name)
		}
		if authapi.CookieValue(s) {
			c, err := http.ParseSetCookie((&http.Cookie{Name: "n", Value: s}).String())
			require.NoError(t, err)
			require.Equal(t, s, c.Value)
		}
	})
}
