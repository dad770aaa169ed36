package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	// maxCookie bounds the work that a forged cookie can cause. Browsers keep
	// no cookie of more than 4,096 bytes (RFC 6265 section 6.1).
	maxCookie = 4096

	// signatureLen is a SHA-256 in base64 without padding.
	signatureLen = 43
)

// Signer signs and verifies the session cookie as express-session does: the
// value is "s:", the id, a dot and the HMAC-SHA256 of the id in base64 without
// padding, the whole of it encoded like a URI component. Safe for concurrent
// use.
type Signer struct {
	macs []*macPool
}

// NewSigner returns a signer. The first secret signs; every one verifies, so
// that secrets can be rotated. It fails without secrets and for an empty one.
func NewSigner(secrets []string) (*Signer, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no session secret: at least one is needed to sign and verify cookies")
	}
	s := &Signer{}
	for i, secret := range secrets {
		if secret == "" {
			return nil, fmt.Errorf("session secret %d is empty: anybody could sign with it", i+1)
		}
		s.macs = append(s.macs, newMACPool(secret))
	}
	return s, nil
}

// Sign returns the value of a session cookie for id, encoded and ready for a
// Set-Cookie header.
func (s *Signer) Sign(id string) string {
	var sig [signatureLen]byte
	s.macs[0].sign(&sig, id)
	return encodeURIComponent("s:" + id + "." + string(sig[:]))
}

// Verify implements [authz.CookieVerifier]. It accepts what express-session
// does, and nothing else: a value may be quoted and may have other characters
// percent-encoded than Express would, but the signature must be the very text
// that one of the secrets gives. An empty id is no id; values of more than 4
// KiB and such with control or non-ASCII bytes are refused unseen.
//
// The time that it takes depends on the length of the value and the number of
// secrets only, not on which secret fits or how much of the signature is
// right.
func (s *Signer) Verify(value string) (id string, ok bool) { return s.VerifyIn(value, new([]byte)) }

// VerifyIn does as Verify does. The id is part of the value or of the memory,
// which it may replace by more.
func (s *Signer) VerifyIn(value string, memory *[]byte) (id string, ok bool) {
	if len(value) > maxCookie || !plain(value) {
		return "", false
	}
	signed, ok := strings.CutPrefix(decodeURIComponent(unquote(value), memory), "s:")
	if !ok {
		return "", false
	}
	// Ids may hold dots, signatures can't: the last one separates them.
	dot := strings.LastIndexByte(signed, '.')
	if dot < 1 || len(signed)-dot-1 != signatureLen {
		return "", false
	}
	id = signed[:dot]
	var got, want [signatureLen]byte
	copy(got[:], signed[dot+1:])
	valid := false
	for _, mac := range s.macs {
		mac.sign(&want, id)
		// The encoded forms are compared: the last character of base64 has two
		// bits that decode to nothing, so several texts mean the same hash.
		if hmac.Equal(got[:], want[:]) {
			valid = true // and go on: the time must not tell which secret it was
		}
	}
	if !valid {
		return "", false
	}
	return id, true
}

// macPool computes HMACs with one secret. A hash that was reset does not
// process the secret again, so keeping them saves half of the work.
type macPool struct{ pool sync.Pool }

type mac struct {
	hash hash.Hash
	text []byte
	sum  [sha256.Size]byte
}

func newMACPool(secret string) *macPool {
	key := []byte(secret)
	return &macPool{sync.Pool{New: func() any { return &mac{hash: hmac.New(sha256.New, key)} }}}
}

func (p *macPool) sign(out *[signatureLen]byte, id string) {
	m := p.pool.Get().(*mac)
	m.text = append(m.text[:0], id...)
	m.hash.Reset()
	m.hash.Write(m.text)
	base64.RawStdEncoding.Encode(out[:], m.hash.Sum(m.sum[:0]))
	p.pool.Put(m)
}

// plain reports whether s is visible ASCII, space and tab included.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}

// unquote takes one pair of double quotes off, as the npm module cookie does.
func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// decodeURIComponent decodes as the JavaScript function does for the npm
// module cookie: a text with a malformed escape, or with escapes that are not
// UTF-8, stays as it is, in all of its parts. s must be ASCII. What it returns is
// s or part of the memory.
func decodeURIComponent(s string, memory *[]byte) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	b := append(slices.Grow((*memory)[:0], len(s)), s[:i]...)
	*memory = b
	for ; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return s
		}
		high, low := unhex(s[i+1]), unhex(s[i+2])
		if high > 15 || low > 15 {
			return s
		}
		b = append(b, high<<4|low)
		i += 2
	}
	if utf8.Valid(b) {
		return textOfBytes(b)
	}
	return s
}

// unhex returns the value of a hexadecimal digit, more than 15 for another
// character.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// encodeURIComponent encodes as the JavaScript function does (ECMA-262, 2025,
// section 19.2.6.4). The functions of net/url
// keep other characters.
func encodeURIComponent(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.!~*'()", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
