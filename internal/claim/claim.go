// Package claim reads the claims of tokens: the one rule by which names of
// claims are understood, wherever the tokens come from.
//
// Claims are a decoded JSON object, its numbers [json.Number].
package claim

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Path names a claim: that of a top-level claim, or else a dotted path into
// nested objects, such as realm_access.roles; so a claim named
// https://example.com/roles works too, and where both exist the top-level claim
// wins. It is taken apart once.
type Path struct {
	name  string
	parts []string // nil when there is no dot in it
}

// NewPath returns the path of a name. "" names nothing.
func NewPath(name string) Path {
	p := Path{name: name}
	if strings.Contains(name, ".") {
		p.parts = strings.Split(name, ".")
	}
	return p
}

// String returns the name, quoted for messages.
func (p Path) String() string { return Quote(p.name) }

// In returns the claim, nil when it is absent or null, or the path names none.
func (p Path) In(claims map[string]any) any {
	if p.name == "" {
		return nil
	}
	if v, ok := claims[p.name]; ok || p.parts == nil {
		return v
	}
	var v any = claims
	for _, part := range p.parts {
		object, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = object[part]
	}
	return v
}

// ID returns a claim that names something: a string or, except for sub, an
// integer in its decimal form. Absent is "".
func (p Path) ID(claims map[string]any) (string, error) {
	if n, ok := p.In(claims).(json.Number); ok && p.name != "sub" {
		if strings.ContainsAny(string(n), ".eE") || n == "-0" {
			return "", fmt.Errorf("claim %s is a number, but not an integer", p)
		}
		return string(n), nil
	}
	return p.Text(claims)
}

// Text returns a claim that is a string. Absent is "".
func (p Path) Text(claims map[string]any) (string, error) {
	switch v := p.In(claims).(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	default:
		return "", fmt.Errorf("claim %s is not a string", p)
	}
}

// List returns a claim that is an array of strings, or one string. Absent and ""
// are nil.
func (p Path) List(claims map[string]any) ([]string, error) {
	v := p.In(claims)
	if v == nil || v == "" {
		return nil, nil
	}
	list, ok := Strings(v)
	if !ok {
		return nil, fmt.Errorf("claim %s is neither a string nor an array of strings", p)
	}
	return list, nil
}

// Strings returns the value of a claim that is an array of strings, or one
// string.
func Strings(v any) (_ []string, ok bool) {
	switch v := v.(type) {
	case string:
		return []string{v}, true
	case []any:
		list := make([]string, len(v))
		for i := range v {
			s, ok := v[i].(string)
			if !ok {
				return nil, false
			}
			list[i] = s
		}
		return list, true
	default:
		return nil, false
	}
}

// Registered returns a registered claim that must be a string where it stands.
// Absent is "".
func Registered(claims map[string]any, name string) (string, error) {
	v, ok := claims[name]
	if !ok {
		return "", nil
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("claim %s is not a string", name)
	}
	return s, nil
}

// maxDate is the last second of the year 9999. What lies beyond is no date
// but an overflow to come, or milliseconds taken for seconds.
const maxDate = 253402300799

// Date returns a NumericDate (RFC 7519 section 2), which may have a fraction;
// the zero time when it is absent.
func Date(claims map[string]any, name string) (time.Time, error) {
	v, ok := claims[name]
	if !ok {
		return time.Time{}, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("claim %s is not a number", name)
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil || f < 0 || f > maxDate {
		return time.Time{}, fmt.Errorf("claim %s is not a date between 1970 and 9999", name)
	}
	seconds, fraction := math.Modf(f)
	return time.Unix(int64(seconds), int64(fraction*1e9)).UTC(), nil
}

// Decode reads one JSON object.
func Decode(data []byte) (map[string]any, error) {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.UseNumber()
	var claims map[string]any
	if err := d.Decode(&claims); err != nil {
		return nil, errors.New("the claims are no JSON object")
	}
	return claims, nil
}

// Quote makes a string from outside fit for a log: quoted, and of bounded
// length.
func Quote(s string) string {
	const limit = 64
	if len(s) > limit {
		return strconv.QuoteToASCII(s[:limit]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
