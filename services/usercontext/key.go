package usercontext

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Key is an internal API key as the service that checks it knows it: only
// its hash, so that neither the service's configuration nor its memory gives
// the key away. The key itself should be random and long (32 bytes of
// crypto/rand); a plain hash is no protection for a word that can be
// guessed.
type Key struct {
	SHA256  [sha256.Size]byte // of the key's bytes, as they are sent
	Expires time.Time         // valid before this moment; zero: does not expire
}

// HashKey returns the Key of a raw key that does not expire. Programs that
// hold the raw key themselves use it, such as tests and demonstrations.
func HashKey(raw string) Key { return Key{SHA256: sha256.Sum256([]byte(raw))} }

// expiry is what all languages take: package time takes more than RFC 3339.
var expiry = regexp.MustCompile(`^[1-9]\d{3}-\d\d-\d\d(T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d))?$`)

// ParseKey reads a Key as an operator writes it: the SHA-256 hash in 64
// hexadecimal digits, and optionally @ and the moment it expires, by RFC
// 3339 or as a date, which means its beginning in UTC:
//
//	9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08@2027-01-01
//
// The hash of the empty string is refused: it is what a script computes
// whose variable was not set. Errors don't repeat the text.
func ParseKey(text string) (Key, error) {
	digits, expires, limited := strings.Cut(text, "@")
	var key Key
	sum, err := hex.DecodeString(digits)
	if err != nil || len(sum) != len(key.SHA256) {
		return Key{}, fmt.Errorf("usercontext: a key is given as its SHA-256 hash: 64 hexadecimal digits, not %d characters of another kind", len(digits))
	}
	copy(key.SHA256[:], sum)
	if key == HashKey("") {
		return Key{}, errors.New("usercontext: this is the SHA-256 hash of an empty key: hash the key itself")
	}
	if !limited {
		return key, nil
	}
	layout := time.RFC3339
	if len(expires) == len(time.DateOnly) {
		layout = time.DateOnly
	}
	key.Expires, err = time.Parse(layout, expires)
	if err != nil || !expiry.MatchString(expires) {
		return Key{}, errors.New("usercontext: a key expires at a date such as 2027-01-01 or a time such as 2027-01-01T12:00:00Z")
	}
	return key, nil
}

// CheckInternalKey reports whether the headers show one of the keys, for
// callers that are no HTTP middleware; see [RequireInternalKey] for the
// rules. The error wraps [ErrForbidden] and never holds the key.
func CheckInternalKey(h http.Header, keys ...Key) error {
	return defaultReader.CheckInternalKey(h, keys...)
}

// CheckInternalKey is the function [CheckInternalKey] for this Reader's
// header and clock.
func (r *Reader) CheckInternalKey(h http.Header, keys ...Key) error {
	var shown []string
	for name, values := range h {
		if !foldsTo(name, r.internalKey) {
			continue
		}
		if !strings.EqualFold(name, r.internalKey) {
			return fmt.Errorf("%w: a header is spelt like %s with - and _ exchanged", ErrForbidden, r.internalKey)
		}
		shown = append(shown, values...)
	}
	switch {
	case len(shown) == 0:
		return fmt.Errorf("%w: no %s", ErrForbidden, r.internalKey)
	case len(shown) > 1:
		return fmt.Errorf("%w: %s is there more than once", ErrForbidden, r.internalKey)
	case shown[0] == "":
		return fmt.Errorf("%w: empty %s", ErrForbidden, r.internalKey)
	}
	// Every key is compared, whichever matches, and hashes rather than keys
	// are, so the time taken depends on nothing secret.
	sum := sha256.Sum256([]byte(shown[0]))
	now := r.now()
	valid := 0
	for _, key := range keys {
		match := subtle.ConstantTimeCompare(sum[:], key.SHA256[:])
		if key.Expires.IsZero() || now.Before(key.Expires) {
			valid |= match
		}
	}
	if valid != 1 {
		return fmt.Errorf("%w: %s is none of the %d keys, or has expired", ErrForbidden, r.internalKey, len(keys))
	}
	return nil
}
