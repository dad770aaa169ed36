package authz

import (
	"net/netip"
	"strings"
)

// CanonicalHost returns the host in the form that routes are matched on:
// lower case, without port, without one trailing dot. The empty host stays
// empty. It refuses, with ReasonBadHost, what is neither a name nor an
// address: user information, spaces, percent signs, a port that is no number.
func CanonicalHost(authority string) (string, error) {
	host := authority
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return "", Refuse(ReasonBadHost, "unclosed bracket in host")
		}
		if !validPort(host[end+1:]) {
			return "", Refuse(ReasonBadHost, "malformed port in host")
		}
		addr, err := netip.ParseAddr(host[1:end])
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", Refuse(ReasonBadHost, "no IPv6 address between the brackets of the host")
		}
		return "[" + addr.String() + "]", nil
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		if !validPort(host[i:]) {
			return "", Refuse(ReasonBadHost, "malformed port in host")
		}
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	lower := false
	for i := range len(host) {
		c := host[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		case 'A' <= c && c <= 'Z':
			lower = true
		case c == '.' && i > 0 && host[i-1] != '.':
		default:
			return "", Refuse(ReasonBadHost, "host has byte %#02x at offset %d", c, i)
		}
	}
	if strings.HasSuffix(host, ".") || (host == "" && authority != "") {
		return "", Refuse(ReasonBadHost, "empty label in host")
	}
	if lower {
		host = strings.ToLower(host)
	}
	return host, nil
}

// validPort reports whether s is "" or a colon and a decimal port.
func validPort(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' || len(s) > 6 {
		return false
	}
	n := 0
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n <= 65535
}

// CanonicalPath returns a raw path, query cut off, in the form that routes
// are matched on: every escape decoded, once. It refuses, with ReasonBadPath,
// each path that different servers could read differently, rather than
// guessing which of them stands behind the gate:
//
//   - not starting with a slash (OPTIONS *, CONNECT, the empty path);
//   - an empty segment inside (//) or a segment . or .., also when a path
//     parameter (;) follows the dots, as Tomcat drops it;
//   - a backslash, a fragment, a control byte, a space;
//   - an escaped dot, slash or backslash, escaped once or several times, an
//     escaped NUL, or a percent sign that no two hexadecimal digits follow.
//
// Other escapes pass, whether the bytes are UTF-8 or not.
func CanonicalPath(raw string) (string, error) {
	if raw == "" || raw[0] != '/' {
		return "", Refuse(ReasonBadPath, "path does not start with a slash")
	}
	escaped, percent := false, false
	segment := 1 // where the current segment begins
	for i := 1; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '/':
			if i == segment {
				return "", Refuse(ReasonBadPath, "empty segment at offset %d", i)
			}
			if dotSegment(raw[segment:i]) {
				return "", Refuse(ReasonBadPath, "dot segment at offset %d", segment)
			}
			segment = i + 1
		case c == '\\', c == '#', c <= ' ', c == 0x7f:
			return "", Refuse(ReasonBadPath, "path has byte %#02x at offset %d", c, i)
		case c == '%':
			b, ok := unhex(raw[i+1:])
			if !ok {
				return "", Refuse(ReasonBadPath, "malformed escape at offset %d", i)
			}
			if ambiguousEscape(b) {
				return "", Refuse(ReasonBadPath, "escaped byte %#02x at offset %d", b, i)
			}
			escaped = true
			percent = percent || b == '%'
			i += 2
		}
	}
	if dotSegment(raw[segment:]) {
		return "", Refuse(ReasonBadPath, "dot segment at offset %d", segment)
	}
	if !escaped {
		return raw, nil
	}
	path := decodeOnce(raw)
	if percent && escapedAgain(path) {
		return "", Refuse(ReasonBadPath, "dot, slash or backslash escaped more than once")
	}
	return path, nil
}

// dotSegment reports whether s is . or .., alone or before a parameter, whose
// semicolon may be escaped: a proxy in between can unescape it.
func dotSegment(s string) bool {
	if s == "" || s[0] != '.' {
		return false
	}
	rest := strings.TrimLeft(s, ".")
	if len(s)-len(rest) > 2 {
		return false
	}
	return rest == "" || rest[0] == ';' || len(rest) >= 3 && strings.EqualFold(rest[:3], "%3b")
}

func ambiguousEscape(b byte) bool { return b == '.' || b == '/' || b == '\\' || b == 0 }

// escapedAgain reports whether decoding s, a path that was decoded once,
// makes a dot, slash or backslash in the end, however often that takes and
// whichever of the characters are escaped: %2f, %252f, %%32%66. It unescapes
// from the left whatever the last bytes form together, so one pass is enough.
func escapedAgain(s string) bool {
	decoded := make([]byte, 0, len(s))
	for i := range len(s) {
		decoded = append(decoded, s[i])
		for n := len(decoded); n >= 3 && decoded[n-3] == '%'; n = len(decoded) {
			b, ok := unhex(string(decoded[n-2:]))
			if !ok {
				break
			}
			if b != 0 && ambiguousEscape(b) {
				return true
			}
			decoded = append(decoded[:n-3], b)
		}
	}
	return false
}

// decodeOnce decodes the escapes of a path that was found well-formed.
func decodeOnce(raw string) string {
	var b strings.Builder
	b.Grow(len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			b.WriteByte(raw[i])
			continue
		}
		c, _ := unhex(raw[i+1:])
		b.WriteByte(c)
		i += 2
	}
	return b.String()
}

// unhex reads the two hexadecimal digits that s begins with.
func unhex(s string) (byte, bool) {
	if len(s) < 2 {
		return 0, false
	}
	hi, lo := hexValue(s[0]), hexValue(s[1])
	if hi > 15 || lo > 15 {
		return 0, false
	}
	return hi<<4 | lo, true
}

func hexValue(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// indexControl returns the offset of the first control byte or space, -1 for
// none.
func indexControl(s string) int {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return i
		}
	}
	return -1
}
