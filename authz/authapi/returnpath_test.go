package authapi_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

func TestReturnPath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/": "/", "/orders": "/orders", "/orders?page=2&x=y#top": "/orders?page=2&x=y#top", "/a b": "/a%20b", "/é": "/%C3%A9", "/\xff": "/%FF", `/"<>'`: "/%22%3C%3E'", "/%2f%2fevil": "/%2f%2fevil",
		"/a//b": "/a//b", "/.//evil.example.org": "/.//evil.example.org", "/@evil": "/@evil", "/:80": "/:80", "/http://evil": "/http://evil", "/?//evil": "/?//evil", "/?x=\u2028": "/?x=%E2%80%A8",
	} {
		got, ok := authapi.ReturnPath(path)
		require.True(t, ok, path)
		require.Equal(t, want, got)
	}
	for _, elsewhere := range []string{
		"", "orders", "//evil", "///evil", `/\evil`, `\\evil`, `/a\b`, "/\t/evil", "/\n/evil", "/\r\nSet-Cookie: a=b", "\t/evil", " /evil", "http://evil", "https:evil", "javascript:x", "?a", "#a", "/\x00", "/\x7f",
		"/" + strings.Repeat("a", 2048),
	} {
		_, ok := authapi.ReturnPath(elsewhere)
		require.False(t, ok, "%q", elsewhere)
	}
}

// FuzzReturnPath: wherever a browser is sent, it stays on this origin, both by
// RFC 3986 as net/url has it, and by the WHATWG's rules as browsers have them.
func FuzzReturnPath(f *testing.F) {
	for _, seed := range []string{
		"/", "//evil.example.org", `/\evil.example.org`, "/\t/evil.example.org", "/\n\\evil", "https://evil.example.org", `\\evil`, "/a/../..//evil", "/.//evil", "/%2f/evil", "/a?b#c", "/é\xff", "javascript:alert(1)", "/;//evil", "/@evil", "/%09/evil",
	} {
		f.Add(seed)
	}
	const origin = "https://gateway.example.com"
	base, err := url.Parse(origin + "/auth/oidc/corp/callback?state=x")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, s string) {
		path, ok := authapi.ReturnPath(s)
		if !ok {
			return
		}
		for _, c := range []byte(path) {
			require.True(t, c > ' ' && c < 0x7f && c != '\\' && c != '"', "%q can't stand in a header and an attribute", path)
		}
		require.True(t, strings.HasPrefix(path, "/"))
		again, ok := authapi.ReturnPath(path)
		require.True(t, ok || len(path) > 2048, "it is one of its own kind")
		if ok {
			require.Equal(t, path, again)
		}
		require.Equal(t, "gateway.example.com", browserHost(t, path), "%q", path)
		if target, err := base.Parse(path); err == nil { // net/url takes no malformed escapes
			require.Equal(t, origin, target.Scheme+"://"+target.Host, "%q", path)
		}
	})
}

// browserHost returns the host that a browser goes to for a reference on
// https://gateway.example.com: the steps of the WHATWG's URL parser up to where
// the host is known, for a base of a special scheme.
func browserHost(t *testing.T, reference string) string {
	t.Helper()
	// Leading and trailing C0 controls and spaces, then every tab and newline.
	s := strings.TrimFunc(reference, func(r rune) bool { return r <= ' ' })
	s = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(s)
	// Scheme state: a letter, then letters, digits, "+", "-" and ".", then ":".
	if scheme, rest, ok := strings.Cut(s, ":"); ok && isScheme(scheme) {
		if !strings.EqualFold(scheme, "https") {
			return "another scheme"
		}
		s = rest // special relative or authority state
		if !strings.HasPrefix(strings.ReplaceAll(s, `\`, "/"), "//") {
			return "gateway.example.com"
		}
	}
	// Relative state and relative slash state: for special schemes a backslash is
	// a slash; two of them begin the authority, of which all slashes are skipped.
	slashes := 0
	for slashes < len(s) && (s[slashes] == '/' || s[slashes] == '\\') {
		slashes++
	}
	if slashes < 2 {
		return "gateway.example.com"
	}
	host := s[slashes:]
	if end := strings.IndexAny(host, `/\?#`); end >= 0 {
		host = host[:end]
	}
	return "elsewhere: " + host
}

func isScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || (c < '0' || c > '9') && !strings.ContainsRune("+-.", rune(c))) {
			return false
		}
	}
	return s != ""
}

// The rules of the test know a way out when they see one.
func TestBrowserHostOfTheTest(t *testing.T) {
	t.Parallel()
	for reference, elsewhere := range map[string]bool{
		"/a": false, "a": false, "?a": false, "/a//b": false, "/%2f/b": false, "https:/a": false,
		"//b": true, "///b": true, `/\b`: true, `\/b`: true, `\\b`: true, "/\t/b": true, "\n//b": true, "https://b": true, "https:\\\\b": true, "javascript:a": true, "h\nttp://b": true,
	} {
		require.Equal(t, elsewhere, browserHost(t, reference) != "gateway.example.com", "%q", reference)
	}
}
