package config

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// placeholder is what every secret prints as.
const placeholder = "[secret]"

// Secret is a text that must not be seen: it prints as a placeholder through
// fmt (every verb), encoding/json, YAML and log/slog. The zero value is no
// secret at all.
//
// The text is behind a pointer, so that fmt, which looks into unexported
// fields of foreign structs without asking their methods, finds an address.
// Two Secrets are therefore not to be compared with ==.
type Secret struct{ text *string }

// NewSecret returns text as a Secret.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text itself, "" for the zero value.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no secret, or an empty one.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// String returns the placeholder, "" when there is no secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return placeholder
}

// GoString is String.
func (s Secret) GoString() string { return s.String() }

// Format writes String, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { writeState(f, s.String()) }

// MarshalText returns String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON returns String as JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalYAML returns String.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue returns String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// SecretURL is a URL with a password in it: it prints without user name,
// password and query, through the same ways as [Secret].
type SecretURL struct{ secret Secret }

// NewSecretURL returns text as a SecretURL.
func NewSecretURL(text string) SecretURL { return SecretURL{NewSecret(text)} }

// Reveal returns the URL itself.
func (u SecretURL) Reveal() string { return u.secret.Reveal() }

// IsZero reports whether there is no URL.
func (u SecretURL) IsZero() bool { return u.secret.IsZero() }

// String returns the URL with *** for user name and password. Everything up
// to the last @ counts as such: a password with an unescaped slash must not
// show the rest of itself.
func (u SecretURL) String() string {
	scheme, rest, ok := strings.Cut(u.Reveal(), "://")
	if !ok {
		return u.secret.String()
	}
	userinfo := ""
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		userinfo, rest = "***@", rest[i+1:]
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest = rest[:i]
	}
	return scheme + "://" + userinfo + rest
}

// GoString is String.
func (u SecretURL) GoString() string { return u.String() }

// Format writes String, whatever the verb.
func (u SecretURL) Format(f fmt.State, _ rune) { writeState(f, u.String()) }

// MarshalText returns String.
func (u SecretURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// MarshalJSON returns String as JSON.
func (u SecretURL) MarshalJSON() ([]byte, error) { return json.Marshal(u.String()) }

// MarshalYAML returns String.
func (u SecretURL) MarshalYAML() (any, error) { return u.String(), nil }

// LogValue returns String.
func (u SecretURL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// writeState writes what fmt asked a Formatter for; fmt.State has nowhere to
// report an error to.
func writeState(f fmt.State, s string) { _, _ = io.WriteString(f, s) }
