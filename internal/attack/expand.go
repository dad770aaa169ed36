package attack

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// mark is in every value that an attacker makes up; address is one that no client
// has (RFC 5737).
const (
	mark        = "gatehouse-attack"
	markAddress = "203.0.113.66"
)

// idHeader carries the number by which an answer is known to be the echo of a
// request.
const idHeader = "x-gatehouse-attack"

// missingError says what a case needs that was not given: it is skipped.
type missingError struct{ what string }

func (e missingError) Error() string { return e.what }

// expander puts values into the placeholders of a case.
type expander struct {
	o        *Options
	id       string
	token    string // of the case
	body     string // of the case, filled
	callback func() (string, error)
}

var placeholder = regexp.MustCompile(`\{([a-z][a-z-]*)(?: ([^{}]*))?\}`)

// text returns a text with its placeholders filled.
func (e *expander) text(s string) (string, error) {
	var failed error
	out := placeholder.ReplaceAllStringFunc(s, func(p string) string {
		m := placeholder.FindStringSubmatch(p)
		value, err := e.value(m[1], m[2])
		if err != nil && failed == nil {
			failed = err
		}
		return value
	})
	return out, failed
}

// lines returns a line with its placeholders filled: once for each identity header
// where it names {identity}.
func (e *expander) lines(line string) ([]string, error) {
	if !identityForm.MatchString(line) {
		text, err := e.text(line)
		return []string{text}, err
	}
	var all []string
	for _, name := range e.o.Headers {
		var failed error
		spelt := identityForm.ReplaceAllStringFunc(line, func(p string) string {
			s, err := spell(name, identityForm.FindStringSubmatch(p)[1])
			failed = errors.Join(failed, err)
			return s
		})
		if failed != nil {
			return nil, failed
		}
		text, err := e.text(spelt)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, nil
}

var identityForm = regexp.MustCompile(`\{identity(?: ([a-z-]+))?\}`)

// spell writes a header's name in another way that some server takes for the same.
func spell(name, way string) (string, error) {
	switch way {
	case "":
		return name, nil
	case "upper":
		return strings.ToUpper(name), nil
	case "underscore":
		return strings.ReplaceAll(name, "-", "_"), nil
	case "first-underscore":
		return strings.Replace(name, "-", "_", 1), nil
	case "last-underscore":
		if i := strings.LastIndexByte(name, '-'); i >= 0 {
			return name[:i] + "_" + name[i+1:], nil
		}
		return name, nil
	case "dot":
		return strings.ReplaceAll(name, "-", "."), nil
	case "long-s": // upper case of it is S
		return strings.NewReplacer("s", "\u017f", "k", "\u212a", "i", "\u0131").Replace(name), nil
	}
	return "", fmt.Errorf("no way to spell a header is called %q", way)
}

func (e *expander) value(name, arg string) (string, error) {
	switch name {
	case "host":
		return e.o.authority(), nil
	case "id":
		return e.id, nil
	case "evil":
		return mark, nil
	case "address":
		return markAddress, nil
	case "public":
		return pathForm(e.o.Public, arg)
	case "protected":
		return pathForm(e.o.Protected, arg)
	case "up":
		return strings.Repeat(arg, strings.Count(strings.TrimSuffix(e.o.Public, "/"), "/")), nil
	case "identities":
		names := make([]string, len(e.o.Headers))
		for i, h := range e.o.Headers {
			spelt, err := spell(h, arg)
			if err != nil {
				return "", err
			}
			names[i] = spelt
		}
		return strings.Join(names, ", "), nil
	case "first-identity":
		return e.o.Headers[0], nil
	case "identity-lines":
		var b strings.Builder
		for _, h := range e.o.Headers {
			b.WriteString(h + ": " + mark + "\r\n")
		}
		return b.String(), nil
	case "long":
		return strings.Repeat("a", 8<<10), nil
	case "length":
		return strconv.Itoa(len(e.body)), nil
	case "hidden":
		return e.hidden(), nil
	case "hidden-size":
		return strconv.FormatInt(int64(len(e.hidden())), 16), nil
	case "hidden-size-line":
		return strconv.Itoa(len(strconv.FormatInt(int64(len(e.hidden())), 16)) + len("\r\n")), nil
	case "credential":
		return e.credential()
	case "cookie-name", "cookie", "cookie-value":
		if e.o.Cookie == "" {
			return "", missingError{"no cookie was given"}
		}
		return e.cookie(name, arg)
	case "token":
		return e.token, nil
	case "genuine-token":
		if e.o.Token == "" {
			return "", missingError{"no token was given"}
		}
		return e.o.Token, nil
	case "callback":
		return e.callback()
	}
	return "", fmt.Errorf("no placeholder is called {%s}", name)
}

// hidden is a request that hides in the body of another one.
func (e *expander) hidden() string {
	return "GET " + e.o.Protected + " HTTP/1.1\r\nHost: " + e.o.authority() + "\r\n" + idHeader + ": " + e.id + "\r\n\r\n"
}

// credential is the header line of whichever credential was given.
func (e *expander) credential() (string, error) {
	switch {
	case e.o.Cookie != "":
		return "Cookie: " + e.o.Cookie, nil
	case e.o.Token != "":
		return "Authorization: Bearer " + e.o.Token, nil
	}
	return "", missingError{"no credential was given"}
}

func (e *expander) cookie(what, form string) (string, error) {
	name, value := e.o.sessionCookie()
	switch what {
	case "cookie":
		return name + "=" + value, nil
	case "cookie-name":
		return nameForm(name, form)
	}
	return valueForm(value, form)
}

func nameForm(name, form string) (string, error) {
	switch form {
	case "":
		return name, nil
	case "first-encoded":
		return fmt.Sprintf("%%%02x", name[0]) + name[1:], nil
	}
	return "", fmt.Errorf("no form of a cookie's name is called %q", form)
}

// valueForm returns a changed value of a session cookie. What is behind the last
// dot is taken for its signature, as express-session, cookie-session, itsdangerous
// and JWTs have it.
func valueForm(value, form string) (string, error) {
	dot := strings.LastIndexByte(value, '.')
	needsSignature := func() error {
		if dot <= 0 || dot == len(value)-1 {
			return missingError{"the cookie has nothing behind a dot that could be its signature"}
		}
		return nil
	}
	switch form {
	case "":
		return value, nil
	case "flipped":
		return flip(value, (max(dot, 0)+len(value))/2), nil
	case "truncated":
		return value[:len(value)-len(value)/4-1], nil
	case "other-id":
		return flip(value, dot/2), needsSignature()
	case "unsigned":
		return value[:max(dot, 0)], needsSignature()
	case "empty-signature":
		return value[:dot+1], needsSignature()
	case "plain":
		id := value[:max(dot, 0)]
		for _, prefix := range []string{"s%3A", "s%3a", "s:"} {
			id = strings.TrimPrefix(id, prefix)
		}
		return id, needsSignature()
	}
	return "", fmt.Errorf("no form of a cookie's value is called %q", form)
}

// flip changes the character at a place.
func flip(s string, at int) string {
	b := []byte(s)
	if len(b) == 0 {
		return "A"
	}
	at = min(at, len(b)-1)
	if b[at] == 'A' {
		b[at] = 'B'
	} else {
		b[at] = 'A'
	}
	return string(b)
}

// pathForm writes a path in another way.
func pathForm(path, form string) (string, error) {
	way, arg, _ := strings.Cut(form, " ")
	switch way {
	case "":
		return path, nil
	case "upper":
		return strings.ToUpper(path), nil
	case "noslash":
		return path[1:], nil
	case "slashes": // but the first
		return path[:1] + strings.ReplaceAll(path[1:], "/", arg), nil
	case "first-encoded":
		return fmt.Sprintf("/%%%02x", path[1]) + path[2:], nil
	case "first-double-encoded":
		return fmt.Sprintf("/%%25%02x", path[1]) + path[2:], nil
	}
	return "", fmt.Errorf("no form of a path is called %q", form)
}
