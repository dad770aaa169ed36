package attack

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// Arrival is a request as the service saw it.
type Arrival struct {
	Method string
	// Path is what came, without the query and without scheme and host.
	Path     string
	Headers  map[string][]string // by names in lower case
	Trailers map[string][]string
}

// parseEcho reads the answer of an echo service: this project's, or one of those
// that are used for the purpose (httpbin and go-httpbin, ealen/echo-server,
// mendhak/http-https-echo, traefik/whoami). ok is false where it is none.
func parseEcho(body string) (a *Arrival, ok bool) {
	if strings.HasPrefix(strings.TrimSpace(body), "{") {
		return parseJSONEcho(body)
	}
	return parseTextEcho(body)
}

// fieldsOf takes one value or a list of them.
type fieldsOf map[string][]string

func (f *fieldsOf) UnmarshalJSON(text []byte) error {
	var raw map[string]any
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	*f = fieldsOf{}
	for name, value := range raw {
		name = strings.ToLower(name)
		switch value := value.(type) {
		case string:
			(*f)[name] = append((*f)[name], value)
		case []any:
			for _, v := range value {
				if s, isText := v.(string); isText {
					(*f)[name] = append((*f)[name], s)
				}
			}
		}
	}
	return nil
}

func parseJSONEcho(body string) (*Arrival, bool) {
	var e struct {
		Method      string          `json:"method"`
		Path        string          `json:"path"`
		URL         string          `json:"url"`
		OriginalURL string          `json:"originalUrl"`
		Headers     fieldsOf        `json:"headers"`
		Trailers    fieldsOf        `json:"trailers"`
		Request     json.RawMessage `json:"request"`
		HTTP        json.RawMessage `json:"http"`
	}
	if json.Unmarshal([]byte(body), &e) != nil {
		return nil, false
	}
	var nested struct { // ealen/echo-server
		Headers     fieldsOf `json:"headers"`
		Method      string   `json:"method"`
		OriginalURL string   `json:"originalUrl"`
	}
	a := &Arrival{Method: e.Method, Headers: e.Headers, Trailers: e.Trailers}
	if a.Headers == nil && json.Unmarshal(e.Request, &nested) == nil && json.Unmarshal(e.HTTP, &nested) == nil {
		a.Headers, a.Method = nested.Headers, nested.Method
	}
	for _, target := range []string{e.Path, e.OriginalURL, nested.OriginalURL, e.URL} {
		if target != "" {
			a.Path = pathOf(target)
			break
		}
	}
	return a, a.Headers != nil && a.Path != ""
}

// parseTextEcho reads what traefik/whoami answers: lines about the host, then the
// request as it was on the wire.
func parseTextEcho(body string) (*Arrival, bool) {
	var a *Arrival
	lines := bufio.NewScanner(strings.NewReader(body))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if a == nil {
			method, rest, _ := strings.Cut(line, " ")
			target, version, _ := lastCut(rest, " ")
			if strings.HasPrefix(version, "HTTP/") && method != "" {
				a = &Arrival{Method: method, Path: pathOf(target), Headers: map[string][]string{}}
			}
			continue
		}
		if name, value, found := strings.Cut(line, ":"); found {
			name = strings.ToLower(name)
			a.Headers[name] = append(a.Headers[name], strings.TrimSpace(value))
		}
	}
	return a, a != nil
}

func lastCut(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// pathOf is the path of a request target or URL, as it stands.
func pathOf(target string) string {
	if scheme, rest, found := strings.Cut(target, "://"); found && scheme != "" && !strings.ContainsAny(scheme, "/?") {
		slash := strings.IndexByte(rest, '/')
		if slash < 0 {
			return "/"
		}
		target = rest[slash:]
	}
	path, _, _ := strings.Cut(target, "?")
	return path
}

// values returns what arrived under a header's name in any spelling, trailers
// included.
func (a *Arrival) values(name string) []string {
	var all []string
	for _, fields := range []map[string][]string{a.Headers, a.Trailers} {
		for _, spelt := range slices.Sorted(keys(fields)) {
			if fold(spelt) == fold(name) {
				all = append(all, fields[spelt]...)
			}
		}
	}
	return all
}

func keys(m map[string][]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// fold returns what the most generous of servers makes of a header's name: CGI,
// WSGI and PHP take whatever is neither letter nor digit for an underscore, and
// some put names into upper case by the rules of Unicode.
func fold(name string) string {
	name, _, _ = strings.Cut(name, "\x00") // where a C program ends it
	return strings.Map(func(r rune) rune {
		r = unicode.ToLower(unicode.ToUpper(r))
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, strings.Trim(name, " \t"))
}

// identity is what arrived of the identity headers, for comparing and for people:
// "name=value", sorted, with the names as they came.
func (a *Arrival) identity(names []string) []string {
	var all []string
	for where, fields := range map[string]map[string][]string{"": a.Headers, "trailer ": a.Trailers} {
		for spelt, values := range fields {
			if !slices.ContainsFunc(names, func(n string) bool { return fold(n) == fold(spelt) }) {
				continue
			}
			for _, v := range values {
				all = append(all, where+spelt+"="+unsigned(v))
			}
		}
	}
	slices.Sort(all)
	return all
}

// unsigned is what a signed identity says, without what changes each time it is signed,
// and without the signature, which is nobody's to print. Any other value is what it is.
func unsigned(value string) string {
	parts := strings.Split(value, ".")
	if len(parts) != 3 {
		return value
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims map[string]any
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims["iat"] == nil {
		return value
	}
	delete(claims, "iat")
	delete(claims, "exp")
	text, err := json.Marshal(claims)
	if err != nil {
		return value
	}
	return "(signed) " + string(text)
}

// isEchoOf reports whether an answer is the echo of the request with this number.
func (a *Arrival) isEchoOf(id string) bool {
	return a != nil && slices.Contains(a.Headers[strings.ToLower(idHeader)], id)
}

// readings are the paths that servers make of one path: decoded once or twice,
// with \ for /, without what is behind ; or a NUL or #, with dot segments and empty
// segments resolved, in lower case, without what is at the end.
func readings(path string) []string {
	seen := map[string]bool{}
	queue := []string{path}
	const most = 400 // bounds the work that a strange path makes
	for len(queue) > 0 && len(seen) < most {
		p := queue[0]
		queue = queue[1:]
		if seen[p] {
			continue
		}
		seen[p] = true
		for _, read := range []func(string) string{
			decode, strings.ToLower, withoutParameters, resolve, merge, untilOdd, withoutEnd,
			func(s string) string { return strings.ReplaceAll(s, `\`, "/") },
			decodeUnicode, rooted,
		} {
			if q := read(p); q != p && q != "" {
				queue = append(queue, q)
			}
		}
	}
	return slices.Sorted(func(yield func(string) bool) {
		for p := range seen {
			if !yield(p) {
				return
			}
		}
	})
}

// decode decodes percent escapes once and leaves malformed ones alone.
func decode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// decodeUnicode decodes the %u002e of IIS and some frameworks.
func decodeUnicode(s string) string {
	return strings.NewReplacer("%u002e", ".", "%u002E", ".", "%u002f", "/", "%u002F", "/", "%u005c", `\`, "%u005C", `\`).Replace(s)
}

func withoutParameters(s string) string {
	segments := strings.Split(s, "/")
	for i := range segments {
		segments[i], _, _ = strings.Cut(segments[i], ";")
	}
	return strings.Join(segments, "/")
}

// resolve resolves dot segments (RFC 3986 section 5.2.4).
func resolve(s string) string {
	var out []string
	for i, segment := range strings.Split(s, "/") {
		switch {
		case segment == "." && i > 0:
		case segment == ".." && i > 0:
			if len(out) > 1 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, segment)
		}
	}
	return strings.Join(out, "/")
}

func merge(s string) string {
	for strings.Contains(s, "//") {
		s = strings.ReplaceAll(s, "//", "/")
	}
	return s
}

// untilOdd cuts a path where a C program, or a URL parser, would end it.
func untilOdd(s string) string {
	if i := strings.IndexAny(s, "\x00#?"); i >= 0 {
		return s[:i]
	}
	return s
}

// withoutEnd takes away white space at the end.
func withoutEnd(s string) string { return strings.TrimRight(s, " \t\r\n\v\f") }

// rooted is the path of a target without a slash, or with scheme and host.
func rooted(s string) string {
	if strings.HasPrefix(s, "/") {
		return s
	}
	if scheme, rest, found := strings.Cut(s, ":"); found && !strings.Contains(scheme, "/") {
		if strings.HasPrefix(rest, "//") {
			return pathOf("x:" + rest)
		}
		return "/" + strings.TrimPrefix(rest, "/")
	}
	return "/" + s
}

// reads reports whether some server reads a path as the other one, or as one below
// it.
func reads(path, as string) bool {
	as = strings.ToLower(strings.TrimSuffix(as, "/"))
	return slices.ContainsFunc(readings(path), func(p string) bool {
		rest, found := strings.CutPrefix(strings.ToLower(p), as)
		return found && (rest == "" || strings.ContainsAny(rest[:1], "/.;"))
	})
}

// refusals are statuses that say that the request went no further.
func refuses(status int) bool {
	return status >= 300 && status < 500 && status != http.StatusTooManyRequests ||
		status == http.StatusNotImplemented || status == http.StatusHTTPVersionNotSupported
}
