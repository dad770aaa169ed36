package authz_test

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// accepted are raw paths and what routes are matched on.
var accepted = []struct{ raw, want string }{
	{"/", "/"},
	{"/a", "/a"},
	{"/a/", "/a/"},
	{"/a/b/c", "/a/b/c"},
	{"/admin", "/admin"},
	{"/Admin", "/Admin"}, // paths have case, hosts don't
	{"/-._~!$&'()*+,=:@", "/-._~!$&'()*+,=:@"},
	{"/a.b", "/a.b"},
	{"/.a", "/.a"},
	{"/a.", "/a."},
	{"/..a", "/..a"},
	{"/a..", "/a.."},
	{"/...", "/..."},
	{"/.../x", "/.../x"},
	{"/....;x", "/....;x"},
	{"/.well-known/jwks.json", "/.well-known/jwks.json"},
	{"/a;b", "/a;b"}, // Match refuses it where it would choose by path
	{"/a;b=c/d", "/a;b=c/d"},
	{"/a[1]{2}|^`\"<>", "/a[1]{2}|^`\"<>"},
	{"/\u00e9", "/\u00e9"},
	{"/\xe9", "/\xe9"},
	{"/\u202e", "/\u202e"},

	// Unreserved characters, decoded once.
	{"/%61dmin", "/admin"},
	{"/%61%64%6d%69%6E", "/admin"},
	{"/%41dmin", "/Admin"},
	{"/%2d%5f%7e%7E", "/-_~~"},
	{"/%30%39", "/09"},
	{"/a%2Db/%5Fc", "/a-b/_c"},

	// Every other escape passes, decoded once too.
	{"/%20", "/ "},
	{"/%C3%A9", "/\u00e9"},
	{"/%c3%a9", "/\u00e9"},
	{"/%E9", "/\xe9"}, // Latin-1
	{"/%ff%fe", "/\xff\xfe"},
	{"/%c0%ae", "/\xc0\xae"}, // overlong: no dot to a decoder of this century
	{"/%c0%af", "/\xc0\xaf"},
	{"/%3B", "/;"},
	{"/a%3bb", "/a;b"},
	{"/%3F", "/?"},
	{"/%23", "/#"},
	{"/%40%3a%2C", "/@:,"},
	{"/%0a", "/\n"},
	{"/%0d%0a", "/\r\n"},
	{"/%01", "/\x01"},
	{"/%7f", "/\x7f"},
	{"/%22%3c%3e", "/\"<>"},

	// Escaped percent signs that hide nothing.
	{"/%25", "/%"},
	{"/100%25", "/100%"},
	{"/%2561dmin", "/%61dmin"}, // only once
	{"/%25252561", "/%252561"},
	{"/%25zz", "/%zz"},
	{"/%25%25", "/%%"},
	{"/%252", "/%2"},
	{"/%25/2e", "/%/2e"},
	{"/%25a2e", "/%a2e"},
	{"/%2500", "/%00"},
	{"/%2520", "/%20"},
	{"/%253b", "/%3b"},
}

// refused are raw paths that two servers could read differently.
var refused = []string{
	// No path of this server.
	"", "*", "a", "a/b", "admin/", "http://example.com/", "example.com:443", "?", " /", "\x00/", ".", "..",
	"%2f", "%2fadmin",

	// Empty segments.
	"//", "//a", "/a//b", "/a//", "///", "//evil.example.com/", "/a///b", "//..//",

	// Dot segments.
	"/.", "/..", "/./", "/../", "/a/.", "/a/..", "/a/./b", "/a/../b", "/../admin", "/a/b/../..", "/.//", "/..//",

	// Dot segments with a parameter, as Tomcat reads them.
	"/.;", "/..;", "/..;/admin", "/.;x/admin", "/a/..;x=y/b", "/a/..;/..;/b", "/..;;",
	"/..%3b/admin", "/..%3B/admin", "/a/.%3bx/b", "/a/..%3b",

	// Encoded dots: always, also where they make no dot segment.
	"/%2e", "/%2E", "/%2e%2e", "/%2e%2E/admin", "/.%2e/", "/%2e./", "/a%2eb", "/index%2Ehtml", "/a/%2e/b",

	// Encoded slashes and backslashes, and backslashes as they are.
	"/%2f", "/%2F", "/a%2fb", "/a%2Fadmin", "/%2f%2f", "/..%2fadmin", "/a/%2f",
	"/%5c", "/%5C", "/a%5cb", "/..%5c..%5c", "/\\", "/a\\b", "/..\\admin", "\\", "\\admin",

	// The same, escaped again.
	"/%252e", "/%252E%252e/admin", "/%252f", "/a%252Fb", "/%255c", "/%255C",
	"/%25252e", "/%25252f", "/%2525252525255c", "/a%25252525252e",
	// … with the escape itself escaped, in whole or in part.
	"/%25%32%65", "/%25%32%66", "/%252%65", "/%25%32e", "/%25%35%63", "/%25%32%46",
	"/%%32%65", "/%25%2532%2565", "/%2525%32%65", "/%25%32%35%32%65", "/%25%325%32%65", "/%25%32%35%32%66admin",

	// Fragments.
	"/#", "/a#b", "/#/admin", "/admin#",

	// NUL, control bytes, spaces.
	"/%00", "/a%00b", "/admin%00.jpg", "/\x00", "/\x01", "/\t", "/\n", "/a\r\nb", "/\x1f", "/\x7f", "/ ", "/a b", "/a ",

	// Malformed escapes.
	"/%", "/a%", "/%2", "/%a", "/%zz", "/%2g", "/%g2", "/%%", "/%%30", "/%u002e", "/%-1", "/%+2", "/%2/e", "/%\xe9\xe9", "/a%2", "/%0x",
}

func TestCanonicalPath(t *testing.T) {
	t.Parallel()
	for _, tt := range accepted {
		t.Run(strconv.QuoteToASCII(tt.raw), func(t *testing.T) {
			t.Parallel()
			got, err := authz.CanonicalPath(tt.raw)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
			requireUnambiguous(t, tt.raw, got)
		})
	}
}

func TestCanonicalPathRefusesWhatServersReadDifferently(t *testing.T) {
	t.Parallel()
	for _, raw := range refused {
		t.Run(strconv.QuoteToASCII(raw), func(t *testing.T) {
			t.Parallel()
			got, err := authz.CanonicalPath(raw)
			requireReason(t, authz.ReasonBadPath, err)
			require.Empty(t, got)
			require.NotContains(t, err.Error(), "%!", "malformed message")
		})
	}
}

// Each byte is tried by itself, as it is and escaped, within a segment.
func TestCanonicalPathEveryByte(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		b := string([]byte{byte(c)})
		_, err := authz.CanonicalPath("/a" + b + "b")
		require.Equal(t, c <= ' ' || c == 0x7f || c == '\\' || c == '#' || c == '%', err != nil, "byte %#02x", c)

		for _, format := range []string{"/a%%%02xb", "/a%%%02Xb"} {
			raw := fmt.Sprintf(format, c)
			got, err := authz.CanonicalPath(raw)
			ambiguous := c == 0 || c == '.' || c == '/' || c == '\\'
			require.Equal(t, ambiguous, err != nil, raw)
			if !ambiguous {
				require.Equal(t, "/a"+b+"b", got, raw)
			}
		}
	}
}

// Hexadecimal digits are 0-9, a-f and A-F, and nothing beside them.
func TestCanonicalPathHexadecimalDigits(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		b := string([]byte{byte(c)})
		digit := strings.Contains("0123456789abcdefABCDEF", b)
		for raw, escape := range map[string]string{"/%4" + b: "4" + b, "/%" + b + "1": b + "1"} {
			got, err := authz.CanonicalPath(raw)
			if !digit {
				requireReason(t, authz.ReasonBadPath, err)
				continue
			}
			require.NoError(t, err, raw)
			value, err := strconv.ParseUint(escape, 16, 8)
			require.NoError(t, err)
			require.Equal(t, "/"+string([]byte{byte(value)}), got, raw)
		}
	}
}

// A path of a hundred thousand escaped percent signs hides one slash: the
// answer must take no more than one pass.
func TestCanonicalPathDeepEscapes(t *testing.T) {
	t.Parallel()
	_, err := authz.CanonicalPath("/%" + strings.Repeat("25", 100_000) + "2f")
	requireReason(t, authz.ReasonBadPath, err)
	got, err := authz.CanonicalPath("/%" + strings.Repeat("25", 100_000) + "2g")
	require.NoError(t, err)
	require.Equal(t, "/%"+strings.Repeat("25", 99_999)+"2g", got)
}

// requireUnambiguous asserts what every accepted path promises.
func requireUnambiguous(tb testing.TB, raw, path string) {
	tb.Helper()
	require.True(tb, strings.HasPrefix(path, "/"))
	require.NotContains(tb, path, "//")
	require.NotContains(tb, path, `\`)
	require.NotContains(tb, path, "\x00")
	for segment := range strings.SplitSeq(path, "/") {
		name, _, _ := strings.Cut(segment, ";")
		require.NotContains(tb, []string{".", ".."}, name)
	}
	// However often a server behind decodes, it finds no more separators and
	// dots than there are to be seen.
	for _, c := range []string{"/", ".", `\`} {
		require.Equal(tb, strings.Count(raw, c), strings.Count(decodeAll(raw), c), "%q in %q", c, raw)
	}
}

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// decodeAll decodes escapes until there are none.
func decodeAll(s string) string {
	for {
		decoded := escape.ReplaceAllStringFunc(s, func(e string) string {
			b, _ := strconv.ParseUint(e[1:], 16, 8)
			return string([]byte{byte(b)})
		})
		if decoded == s {
			return s
		}
		s = decoded
	}
}

// escapeLetters escapes letters, digits, hyphen, underscore and tilde where
// they are no part of an escape already. Not dots: those are refused.
func escapeLetters(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%' && i+2 < len(s):
			b.WriteString(s[i : i+3])
			i += 2
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '~':
			fmt.Fprintf(&b, "%%%02x", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func FuzzCanonicalPath(f *testing.F) {
	for _, tt := range accepted {
		f.Add(tt.raw)
	}
	for _, raw := range refused {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if len(raw) > 256 {
			t.Skip("decodeAll takes a pass per layer")
		}
		path, err := authz.CanonicalPath(raw)
		if err != nil {
			requireReason(t, authz.ReasonBadPath, err)
			require.Empty(t, path)
			return
		}
		requireUnambiguous(t, raw, path)
		again, err := authz.CanonicalPath(escapeLetters(raw))
		require.NoError(t, err, "the same path with its letters escaped")
		require.Equal(t, path, again, "the same path with its letters escaped")
	})
}

func TestCanonicalHost(t *testing.T) {
	t.Parallel()
	for authority, want := range map[string]string{
		"":                             "",
		"example.com":                  "example.com",
		"EXAMPLE.com":                  "example.com",
		"example.com.":                 "example.com",
		"example.com:443":              "example.com",
		"example.com:0":                "example.com",
		"example.com:65535":            "example.com",
		"example.com:":                 "example.com",
		"Example.COM.:8443":            "example.com",
		"localhost":                    "localhost",
		"a_b.internal":                 "a_b.internal",
		"xn--bcher-kva.example":        "xn--bcher-kva.example",
		"127.0.0.1":                    "127.0.0.1",
		"127.0.0.1:80":                 "127.0.0.1",
		"[::1]":                        "[::1]",
		"[::1]:8080":                   "[::1]",
		"[::1]:":                       "[::1]",
		"[2001:DB8:0:0:0:0:0:1]":       "[2001:db8::1]",
		"[2001:db8::0001]:443":         "[2001:db8::1]",
		"[::ffff:192.0.2.1]":           "[::ffff:192.0.2.1]",
		"-a.example":                   "-a.example",
		strings.Repeat("a", 300):       strings.Repeat("a", 300),
		"0":                            "0",
		"svc.ns.svc.cluster.local":     "svc.ns.svc.cluster.local",
		"svc.ns.svc.cluster.local:80":  "svc.ns.svc.cluster.local",
		"svc.ns.svc.cluster.local.:80": "svc.ns.svc.cluster.local",
	} {
		t.Run(authority, func(t *testing.T) {
			t.Parallel()
			got, err := authz.CanonicalHost(authority)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestCanonicalHostRefusesWhatIsNoHost(t *testing.T) {
	t.Parallel()
	for _, authority := range []string{
		".", "..", ".example.com", "example..com", "example.com..", "example.com..:80", ":", ":80",
		"user@example.com", "user:pass@example.com", "a b", " example.com", "example.com ", "a/b", "a?b", "a#b", "a\\b", "a,b", "a%62", "*",
		"*.example.com", "b\u00fccher.example", "a\x00", "a\tb", "a\nb", "example.com:x", "example.com:-1", "example.com:+1", "example.com:65536", "example.com:000080",
		"example.com:80:80", "example.com: 80", "::1", "2001:db8::1", "[", "[]", "[::1", "[::1]x", "[::1]x:80", "[::1]:x", "[::1].", "[127.0.0.1]", "[example.com]", "[fe80::1%eth0]", "[fe80::1%25eth0]", "[::1]]", "[[::1]]", "]",
	} {
		t.Run(strconv.QuoteToASCII(authority), func(t *testing.T) {
			t.Parallel()
			got, err := authz.CanonicalHost(authority)
			requireReason(t, authz.ReasonBadHost, err)
			require.Empty(t, got)
		})
	}
}

// A host name is made of letters, digits, hyphens, underscores and dots.
func TestCanonicalHostEveryByte(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		b := string([]byte{byte(c)})
		got, err := authz.CanonicalHost("a" + b + "b")
		if regexp.MustCompile(`^[a-zA-Z0-9._-]$`).MatchString(b) {
			require.NoError(t, err, "byte %#02x", c)
			require.Equal(t, "a"+strings.ToLower(b)+"b", got)
		} else {
			requireReason(t, authz.ReasonBadHost, err)
		}
		_, err = authz.CanonicalHost("a:1" + b)
		require.Equal(t, b < "0" || b > "9", err != nil, "byte %#02x", c)
	}
}

func FuzzCanonicalHost(f *testing.F) {
	for _, authority := range []string{"", "example.com", "EXAMPLE.com.:80", "[::1]:80", "[2001:DB8::1]", "127.0.0.1", "a..b", "u@h", "[::ffff:1.2.3.4]", "a:1:2"} {
		f.Add(authority)
	}
	f.Fuzz(func(t *testing.T, authority string) {
		host, err := authz.CanonicalHost(authority)
		if err != nil {
			requireReason(t, authz.ReasonBadHost, err)
			require.Empty(t, host)
			return
		}
		again, err := authz.CanonicalHost(host)
		require.NoError(t, err)
		require.Equal(t, host, again, "canonical form of a canonical form")
		if inside, bracketed := strings.CutPrefix(host, "["); bracketed {
			addr, err := netip.ParseAddr(strings.TrimSuffix(inside, "]"))
			require.NoError(t, err)
			require.True(t, addr.Is6())
		} else {
			require.Regexp(t, `^([a-z0-9_-]+(\.[a-z0-9_-]+)*)?$`, host)
		}
		for _, spelling := range []string{strings.ToUpper(host), host + ":8080"} {
			if host == "" {
				continue
			}
			got, err := authz.CanonicalHost(spelling)
			require.NoError(t, err, spelling)
			require.Equal(t, host, got, spelling)
		}
		if _, _, err := net.SplitHostPort(authority); err == nil {
			withoutPort, err := authz.CanonicalHost(authority[:strings.LastIndexByte(authority, ':')])
			require.NoError(t, err)
			require.Equal(t, host, withoutPort, "the port is not part of it")
		}
	})
}
