package authz

import (
	"slices"
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
	if size := h.Size(id); maxBytes > 0 && size > maxBytes {
		return nil, Refuse(ReasonIdentityTooLong, "the identity headers take %d bytes, the budget is %d", size, maxBytes)
	}
	headers := make([]Header, 0, 4)
	for _, field := range [...]Header{{h.ID, id.ID}, {h.Email, id.Email}, {h.Organization, id.Organization}} {
		if field.Value != "" {
			headers = append(headers, Header{field.Name, percentEncode(field.Value)})
		}
	}
	return append(headers, Header{h.Roles, encodeRoles(id.Roles)}), nil
}

// Size is how many bytes the names and values of [IdentityHeaders.Encode] take.
func (h IdentityHeaders) Size(id Identity) int {
	size := len(h.Roles) + RolesLength(id.Roles)
	for _, field := range [...]Header{{h.ID, id.ID}, {h.Email, id.Email}, {h.Organization, id.Organization}} {
		if field.Value != "" {
			size += len(field.Name) + ValueLength(field.Value)
		}
	}
	return size
}

func percentEncode(s string) string {
	for i := range len(s) {
		if !plain(s[i]) {
			return string(AppendValue(nil, s))
		}
	}
	return s
}

// encodeRoles writes roles as JSON that is visible ASCII only.
func encodeRoles(roles []string) string { return string(AppendRoles(nil, roles)) }

func plain(c byte) bool { return c > ' ' && c < 0x7f && c != '%' }

// ValueLength is how many bytes [AppendValue] appends.
func ValueLength(s string) int {
	n := 0
	for i := 0; i < len(s); {
		if plain(s[i]) {
			n++
			i++
			continue
		}
		if invalidAt(s, i) {
			for i++; i < len(s) && invalidAt(s, i); i++ { // a run of them is one
			}
			n += 3 * len("\uFFFD")
			continue
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		n += 3 * size
		i += size
	}
	return n
}

// invalidAt reports whether the byte is part of no valid UTF-8.
func invalidAt(s string, i int) bool {
	c, size := utf8.DecodeRuneInString(s[i:])
	return c == utf8.RuneError && size == 1
}

const upperHex = "0123456789ABCDEF"

// AppendValue appends the value of an identity header as [IdentityHeaders.Encode]
// writes an id, an email address or an organization.
func AppendValue(b []byte, s string) []byte {
	escape := func(text string) {
		for i := range len(text) {
			b = append(b, '%', upperHex[text[i]>>4], upperHex[text[i]&15])
		}
	}
	for i := 0; i < len(s); {
		if plain(s[i]) {
			b = append(b, s[i])
			i++
			continue
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		if invalidAt(s, i) {
			for i++; i < len(s) && invalidAt(s, i); i++ { // a run of them is one
			}
			escape("\uFFFD")
			continue
		}
		escape(s[i : i+size])
		i += size
	}
	return b
}

// RolesLength is how many bytes [AppendRoles] appends.
func RolesLength(roles []string) int {
	n := 2 + max(len(roles)-1, 0)
	for _, role := range roles {
		n += 2
		for _, c := range role { // what is not UTF-8 is U+FFFD
			switch {
			case c == '"' || c == '\\':
				n += 2
			case c > ' ' && c < 0x7f && c != '<' && c != '>' && c != '&':
				n++
			case c == '\b' || c == '\f' || c == '\n' || c == '\r' || c == '\t':
				n += 2
			case c > 0xffff:
				n += 12
			default:
				n += 6
			}
		}
	}
	return n
}

// AppendRoles appends the value of the header with the roles as
// [IdentityHeaders.Encode] writes it: JSON that is visible ASCII only.
func AppendRoles(b []byte, roles []string) []byte {
	const hex = "0123456789abcdef"
	unit := func(c rune) { b = append(b, '\\', 'u', hex[c>>12&15], hex[c>>8&15], hex[c>>4&15], hex[c&15]) }
	b = append(b, '[')
	for i, role := range roles {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		for _, c := range role {
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', byte(c))
			case c > ' ' && c < 0x7f && c != '<' && c != '>' && c != '&':
				b = append(b, byte(c))
			case c == '\b':
				b = append(b, `\b`...)
			case c == '\f':
				b = append(b, `\f`...)
			case c == '\n':
				b = append(b, `\n`...)
			case c == '\r':
				b = append(b, `\r`...)
			case c == '\t':
				b = append(b, `\t`...)
			case c > 0xffff:
				unit(0xd800 + (c-0x10000)>>10)
				unit(0xdc00 + (c-0x10000)&0x3ff)
			default:
				unit(c)
			}
		}
		b = append(b, '"')
	}
	return append(b, ']')
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
