package authz

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// HeaderAPIKey is where internal callers present their key. It never travels
// on to a service.
const HeaderAPIKey = "x-internal-api-key" //nolint:gosec // G101: a header's name

// IdentityHeaders names the headers by which services learn who called, in
// lower case.
type IdentityHeaders struct {
	ID, Email, Roles, Organization string
}

// DefaultIdentityHeaders are the names that services of Gatehouse expect.
var DefaultIdentityHeaders = IdentityHeaders{
	ID: "x-user-id", Email: "x-user-email", Roles: "x-user-roles", Organization: "x-org-id",
}

func (h IdentityHeaders) names() []string {
	return []string{h.ID, h.Email, h.Roles, h.Organization}
}

// Header is one header to set.
type Header struct{ Name, Value string }

// Encode returns the identity as headers: those with a value, and
// ReasonIdentityTooLong when names and values together exceed maxBytes (zero:
// no bound). Roles are always there, [] for none.
//
// No value can split or corrupt a header: id, email and organization have
// every byte outside visible ASCII, and the percent sign, percent-encoded
// (UTF-8); roles are a JSON array of strings with \u escapes for what is not
// visible ASCII. Bytes that are not UTF-8 become U+FFFD.
func (h IdentityHeaders) Encode(id Identity, maxBytes int) ([]Header, error) {
	headers := make([]Header, 0, 4)
	size := 0
	add := func(name, value string) {
		headers = append(headers, Header{name, value})
		size += len(name) + len(value)
	}
	for _, field := range [...]Header{{h.ID, id.ID}, {h.Email, id.Email}, {h.Organization, id.Organization}} {
		if field.Value != "" {
			add(field.Name, percentEncode(field.Value))
		}
	}
	add(h.Roles, encodeRoles(id.Roles))
	if maxBytes > 0 && size > maxBytes {
		return nil, Refuse(ReasonIdentityTooLong, "the identity headers take %d bytes, the budget is %d", size, maxBytes)
	}
	return headers, nil
}

func percentEncode(s string) string {
	plain := func(c byte) bool { return c > ' ' && c < 0x7f && c != '%' }
	s = strings.ToValidUTF8(s, "\uFFFD")
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:i])
	for ; i < len(s); i++ {
		if plain(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// encodeRoles writes roles as JSON that is visible ASCII only.
func encodeRoles(roles []string) string {
	if len(roles) == 0 {
		return "[]"
	}
	text, err := json.Marshal(roles)
	if err != nil {
		panic("authz: a slice of strings has no JSON form: " + err.Error()) // encoding/json promises one
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		c, n := utf8.DecodeRune(text[i:])
		switch {
		case c > ' ' && c < 0x7f:
			b.WriteByte(byte(c))
		case c > 0xffff:
			c -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(c>>10), 0xdc00+(c&0x3ff))
		default:
			fmt.Fprintf(&b, `\u%04x`, c)
		}
		i += n
	}
	return b.String()
}

// ClientSpellings returns every spelling under which a client could smuggle
// one of these headers, or an internal API key, to a service: each
// combination of "_" and "-", since WSGI and CGI servers fold the two. Case
// does not matter: gateways compare names without it. The names themselves
// come first, in the order id, email, roles, organization, API key.
func (h IdentityHeaders) ClientSpellings() []string {
	names := append(h.names(), HeaderAPIKey)
	spellings := slices.Clone(names)
	for _, name := range names {
		spellings = append(spellings, foldedSpellings(name)...)
	}
	return spellings
}

// foldedSpellings returns the spellings of name with at least one hyphen
// folded into an underscore, or the other way round.
func foldedSpellings(name string) []string {
	spellings := []string{""}
	for _, c := range []byte(name) {
		n := len(spellings)
		for i := range n {
			switch c {
			case '-':
				spellings = append(spellings, spellings[i]+"_")
			case '_':
				spellings = append(spellings, spellings[i]+"-")
			}
			spellings[i] += string(c)
		}
	}
	return spellings[1:]
}
