package usercontext

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

var (
	errNotUTF8 = errors.New("not UTF-8 after decoding")
	errControl = errors.New("control character")
	errRoles   = errors.New("not a JSON array of strings")
)

// decodeText undoes the gate's encoding of id, email and organization: bytes
// outside visible ASCII, and %, are written as %XX. Escapes of other visible
// characters, which the gate has no need of, are decoded too.
func decodeText(value string) (string, error) {
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c >= 0x7f {
			return "", fmt.Errorf("byte %d is not visible ASCII", i)
		}
	}
	if strings.Contains(value, "%") {
		var b strings.Builder
		b.Grow(len(value))
		for i := 0; i < len(value); i++ {
			if value[i] != '%' {
				b.WriteByte(value[i])
				continue
			}
			// Bytes are checked one by one, because ParseUint alone would
			// take a sign.
			if len(value)-i < 3 || !isHex(value[i+1]) || !isHex(value[i+2]) {
				return "", fmt.Errorf("malformed escape at byte %d", i)
			}
			c, err := strconv.ParseUint(value[i+1:i+3], 16, 8)
			if err != nil {
				return "", fmt.Errorf("malformed escape at byte %d", i)
			}
			b.WriteByte(byte(c))
			i += 2
		}
		value = b.String()
	}
	if !utf8.ValidString(value) {
		return "", errNotUTF8
	}
	if strings.ContainsFunc(value, unicode.IsControl) {
		return "", errControl
	}
	return value, nil
}

// decodeRoles reads a JSON array of strings that is written in ASCII. It is
// stricter than encoding/json, which reads null as a string and half a
// surrogate pair as U+FFFD: two different roles must never read as one.
func decodeRoles(value string) ([]string, error) {
	for i := range len(value) {
		if c := value[i]; c < ' ' || c >= 0x7f {
			return nil, fmt.Errorf("byte %d is not printable ASCII", i)
		}
	}
	var elements []*string
	if err := json.Unmarshal([]byte(value), &elements); err != nil {
		return nil, errRoles // err might quote the value
	}
	if elements == nil { // null
		return nil, errRoles
	}
	if hasLoneSurrogate(value) {
		return nil, errNotUTF8
	}
	roles := make([]string, 0, len(elements))
	for _, role := range elements {
		if role == nil {
			return nil, errRoles
		}
		if strings.ContainsFunc(*role, unicode.IsControl) {
			return nil, errControl
		}
		roles = append(roles, *role)
	}
	return roles, nil
}

// hasLoneSurrogate reports whether valid JSON text holds a \u escape of half
// a surrogate pair.
func hasLoneSurrogate(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		i++ // the escaped character
		high, ok := escapedUnit(text, i)
		if !ok {
			continue
		}
		i += 4
		if !utf16.IsSurrogate(high) {
			continue
		}
		low, ok := escapedUnit(text, i+2)
		if !ok || text[i+1] != '\\' || utf16.DecodeRune(high, low) == unicode.ReplacementChar {
			return true
		}
		i += 6
	}
	return false
}

// escapedUnit reads the four digits of \uXXXX whose u is at i.
func escapedUnit(text string, i int) (rune, bool) {
	if i >= len(text) || text[i] != 'u' || len(text)-i < 5 {
		return 0, false
	}
	unit, err := strconv.ParseUint(text[i+1:i+5], 16, 16)
	return rune(unit), err == nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// foldsTo reports whether a server that doesn't distinguish case, nor - from
// _, would take key for name, which is in lower case.
func foldsTo(key, name string) bool {
	if len(key) != len(name) {
		return false
	}
	for i := range len(key) {
		if fold(key[i]) != fold(name[i]) {
			return false
		}
	}
	return true
}

func fold(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '_':
		return '-'
	}
	return c
}

// isToken reports whether s is a token by RFC 9110 section 5.6.2, as header
// names are.
func isToken(s string) bool {
	const chars = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return s != "" && strings.Trim(s, chars) == ""
}
