package authz

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

// Attribute names something about a principal: claims.PATH, session.PATH or
// identity.FIELD. A path is the name of a member, or names joined by dots that lead
// into nested objects; a member whose own name has the dots in it comes first.
//
// Text, numbers and true or false are what they are; lists and objects are JSON.
// What is absent, null or empty text has no value, and neither have the claims of a
// caller without a token or the record of one without a session.
type Attribute struct{ source, path string }

const (
	sourceClaims   = "claims"
	sourceSession  = "session"
	sourceIdentity = "identity"
)

// identityFields are those of identity, by the names that conditions know too.
var identityFields = []string{"id", "email", "roles", "org", "kind"}

// ParseAttribute reads the name of an attribute. The error says what is expected.
func ParseAttribute(name string) (Attribute, error) {
	source, path, _ := strings.Cut(name, ".")
	a := Attribute{source: source, path: path}
	switch source {
	case sourceIdentity:
		if !slices.Contains(identityFields, path) {
			return Attribute{}, errors.New("identity has id, email, roles, org and kind, as in identity.kind")
		}
	case sourceClaims, sourceSession:
		if slices.Contains(strings.Split(path, "."), "") || strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return Attribute{}, errors.New("expected names joined by dots behind " + source + ", as in " + source + ".plan")
		}
	default:
		return Attribute{}, errors.New("expected claims., session. or identity. and a name, as in claims.plan or session.tenant.id")
	}
	return a, nil
}

// String returns the name.
func (a Attribute) String() string { return a.source + "." + a.path }

// Kind is the kind of credential that alone has the attribute, "" where every
// identity has it.
func (a Attribute) Kind() Kind {
	switch a.source {
	case sourceClaims:
		return KindBearer
	case sourceSession:
		return KindSession
	}
	return ""
}

// Path is what stands behind the source: plan of session.plan.
func (a Attribute) Path() string { return a.path }

// header is the value as a header can carry it, "" for none. Text is encoded as an
// id is, JSON as roles are.
func (a Attribute) header(p *Principal) string {
	text, isJSON := a.value(p)
	if isJSON {
		return text
	}
	return percentEncode(text)
}

// text is the value as UTF-8, "" for none.
func (a Attribute) text(p *Principal) string {
	text, _ := a.value(p)
	return strings.ToValidUTF8(text, "\uFFFD")
}

func (a Attribute) value(p *Principal) (text string, isJSON bool) {
	switch a.source {
	case sourceClaims:
		return valueText(member(p.Claims, a.path))
	case sourceSession:
		return valueText(member(p.Session, a.path))
	}
	switch a.path {
	case "id":
		return p.ID, false
	case "email":
		return p.Email, false
	case "org":
		return p.Organization, false
	case "kind":
		return string(p.Kind), false
	case "roles":
		return encodeRoles(p.Roles), true
	}
	return "", false
}

// member returns what is at a path, nil when there is nothing.
func member(values map[string]any, path string) any {
	if v, ok := values[path]; ok {
		return v
	}
	head, rest, dotted := strings.Cut(path, ".")
	if !dotted {
		return nil
	}
	child, _ := values[head].(map[string]any)
	return member(child, rest)
}

// valueText writes a decoded JSON value.
func valueText(v any) (text string, isJSON bool) {
	switch v := v.(type) {
	case nil:
		return "", false
	case string:
		return v, false
	case json.Number:
		return v.String(), false
	case bool:
		if v {
			return "true", false
		}
		return "false", false
	}
	b, err := json.Marshal(v)
	if err != nil { // of no JSON document
		return "", false
	}
	return visibleJSON(b), true
}

// visibleJSON has nothing but visible ASCII. json.Marshal writes all else within
// strings only, where it can be escaped.
func visibleJSON(b []byte) string {
	const hex = "0123456789abcdef"
	visible := func(c rune) bool { return c > ' ' && c < 0x7f }
	if bytes.IndexFunc(b, func(c rune) bool { return !visible(c) }) < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b)+16)
	unit := func(c rune) { out = append(out, '\\', 'u', hex[c>>12&15], hex[c>>8&15], hex[c>>4&15], hex[c&15]) }
	for _, c := range string(b) {
		switch {
		case visible(c):
			out = append(out, byte(c)) //nolint:gosec // G115: as visible says
		case c > 0xffff:
			unit(0xd800 + (c-0x10000)>>10)
			unit(0xdc00 + (c-0x10000)&0x3ff)
		default:
			unit(c)
		}
	}
	return string(out)
}
