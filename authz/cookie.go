package authz

import "strings"

// FirstCookie returns the value of the first cookie of a name, as it stands
// in the header, surrounding white space cut off. The first one decides, as
// in Express, whatever the later ones hold.
//
// Envoy joins HTTP/2 cookie crumbs by "; " and repeated HTTP/1 Cookie headers
// by a comma, so both end a cookie. A cookie name is compared byte by byte.
func FirstCookie(header, name string) (value string, ok bool) {
	for header != "" {
		pair := header
		if i := strings.IndexAny(header, ";,"); i >= 0 {
			pair, header = header[:i], header[i+1:]
		} else {
			header = ""
		}
		k, v, found := strings.Cut(pair, "=")
		if found && trimOWS(k) == name {
			return trimOWS(v), true
		}
	}
	return "", false
}

// WithoutCookie returns the header with every cookie of a name taken out, the
// others in their order and untouched. What a comma joined ends up joined by
// "; ", so that the result is one well-formed header; a comma inside another
// cookie's value stays.
func WithoutCookie(header, name string) string {
	var kept []string
	for header != "" {
		var pair string
		pair, header = cutCookie(header)
		if k, _, _ := strings.Cut(pair, "="); pair != "" && trimOWS(k) != name {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "; ")
}

// cutCookie cuts the first pair off a header: at a semicolon, or at a comma
// that a name and an equals sign follow.
func cutCookie(header string) (pair, rest string) {
	for i := range len(header) {
		switch header[i] {
		case ';':
			return trimOWS(header[:i]), header[i+1:]
		case ',':
			rest := header[i+1:]
			if end := strings.IndexAny(rest, "=;,"); end >= 0 && rest[end] == '=' {
				return trimOWS(header[:i]), rest
			}
		}
	}
	return trimOWS(header), ""
}

func trimOWS(s string) string { return strings.Trim(s, " \t") }
