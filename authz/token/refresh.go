package token

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// RefreshTokens makes and reads refresh tokens. The text of one is
//
//	family "." generation "." secret "." mac
//
// family is random and names all tokens that come from one login; it is the
// sid of their access tokens, and no secret. generation counts the rotations.
// secret is random in the first token; in its successor it is an HMAC of the
// whole text before. mac is an HMAC of all that stands before it: a token that
// we did not make is known as such without asking anybody. All of it is
// base64url without padding, but for the generation.
//
// So the same token has the same successor, every time and on every replica,
// though the store has no more of either than a SHA-256: who reads the store
// can make no token, and who reads our keys can't either without a token to
// begin with.
//
// The two HMAC keys come, by HKDF-SHA256, from the private part of each signing
// key of access tokens: the first one makes tokens, all are tried to read them.
// While the signing keys change, a replica that has the new key first and one
// that still has it second make different successors of the same token. The
// store keeps the one that was there first, and [RefreshTokens.Descendant] finds
// it with either key; only a replica that lacks the other's key can't. That is
// why a new key has to be listed everywhere before it signs.
//
// Safe for concurrent use. It prints as its name, since what is inside it are
// keys.
type RefreshTokens struct{ keys []*refreshKey }

// refreshKey is what a signing key gives for refresh tokens.
type refreshKey struct{ mac, successor []byte }

// The parts of a text: bytes before they are encoded, and the rotations that a
// family may see (at a thousand a second, those of eleven days).
const (
	familyBytes      = 16
	secretBytes      = sha256.Size
	lastGeneration   = 999_999_999
	generationDigits = 9
)

// refreshLength is the most that a text has.
var refreshLength = base64.RawURLEncoding.EncodedLen(familyBytes) + 1 + generationDigits + 2*(1+base64.RawURLEncoding.EncodedLen(secretBytes))

// Bounds of the search for a descendant. Forty tabs that refresh at once are
// one generation; a client that goes through more than 128 within the grace is
// broken. The work, in successors made, takes some milliseconds.
const (
	mostGenerations = 128
	mostSuccessors  = 4096
)

// What the HMACs are for. The labels end in a byte that no text has, so none
// can be read as the beginning of another message.
const (
	macLabel       = "gatehouse refresh token v1\x00"
	successorLabel = "gatehouse refresh successor v1\x00"
)

func newRefreshTokens(keys []*SigningKey) (*RefreshTokens, error) {
	r := &RefreshTokens{}
	for _, k := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(k.private)
		if err != nil {
			return nil, fmt.Errorf("derive the keys of refresh tokens from %v: %w", k, err)
		}
		mac, err := hkdf.Key(sha256.New, der, nil, "gatehouse refresh tokens v1: mac", sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("derive the keys of refresh tokens from %v: %w", k, err)
		}
		successor, err := hkdf.Key(sha256.New, der, nil, "gatehouse refresh tokens v1: successor", sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("derive the keys of refresh tokens from %v: %w", k, err)
		}
		r.keys = append(r.keys, &refreshKey{mac: mac, successor: successor})
	}
	return r, nil
}

// String returns how many keys there are.
func (r *RefreshTokens) String() string {
	return fmt.Sprintf("refresh tokens of %d keys", len(r.keys))
}

// GoString is String.
func (r *RefreshTokens) GoString() string { return r.String() }

// First returns the first token of a new family.
func (r *RefreshTokens) First() authz.RefreshToken {
	var family [familyBytes]byte
	var secret [secretBytes]byte
	_, _ = rand.Read(family[:]) // never fails
	_, _ = rand.Read(secret[:])
	return r.keys[0].token(base64.RawURLEncoding.EncodeToString(family[:]), 0, secret[:])
}

// Parse returns the token that has this text, and
// [authz.ReasonRefreshInvalid] for any text that is not, to the byte, one that
// we made with one of our keys. The error shows nothing of the text.
func (r *RefreshTokens) Parse(text string) (authz.RefreshToken, error) {
	if len(text) > refreshLength {
		return authz.RefreshToken{}, authz.Refuse(authz.ReasonRefreshInvalid, "the refresh token has %d bytes, none of ours has more than %d", len(text), refreshLength)
	}
	t, signed, mac, ok := split(text)
	if !ok {
		return authz.RefreshToken{}, authz.Refuse(authz.ReasonRefreshInvalid, "the refresh token is malformed")
	}
	for _, k := range r.keys {
		if subtle.ConstantTimeCompare(k.sum(signed), mac) == 1 {
			return t, nil
		}
	}
	return authz.RefreshToken{}, authz.Refuse(authz.ReasonRefreshInvalid, "the refresh token was made with none of our keys")
}

// Successor returns the token that follows t, which Parse or one of the other
// methods returned: with the first of our keys, the same one each time. What
// follows the 999,999,999th is refused by Parse, and its family ends there.
func (r *RefreshTokens) Successor(t authz.RefreshToken) authz.RefreshToken {
	return r.keys[0].follow(t)
}

// Descendant returns the token of a later generation that came from t and has
// this hash; ok is false when none of our keys leads to it, or when it is more
// than 128 generations away.
//
// Each step may have been made by any of our keys. Chains with few changes of
// keys are tried first, and the work is bounded: with three keys every chain of
// up to six steps is found, and of the longer ones those in which the key
// changed seldom.
func (r *RefreshTokens) Descendant(t authz.RefreshToken, generation int, hash [32]byte) (_ authz.RefreshToken, ok bool) {
	steps := generation - t.Generation
	if steps < 1 || steps > mostGenerations || generation > lastGeneration {
		return authz.RefreshToken{}, false
	}
	s := search{keys: r.keys, hash: hash, left: mostSuccessors}
	for changes := range steps {
		for _, k := range r.keys {
			if found, ok := s.from(t, k, steps, changes); ok {
				return found, true
			}
		}
		if len(r.keys) == 1 || s.left == 0 {
			break
		}
	}
	return authz.RefreshToken{}, false
}

// search looks for the token with a hash among those that follow from one.
type search struct {
	keys []*refreshKey
	hash [32]byte
	left int // successors that it may still make
}

// from looks at the chains of so many steps from t on whose first step is made
// by key, and in which the key changes exactly so many times.
func (s *search) from(t authz.RefreshToken, key *refreshKey, steps, changes int) (authz.RefreshToken, bool) {
	if changes >= steps || s.left == 0 {
		return authz.RefreshToken{}, false
	}
	s.left--
	t = key.follow(t)
	if steps == 1 {
		return t, subtle.ConstantTimeCompare(t.Hash[:], s.hash[:]) == 1
	}
	for _, k := range s.keys {
		changes := changes
		if k != key {
			changes--
		}
		if changes < 0 {
			continue
		}
		if found, ok := s.from(t, k, steps-1, changes); ok {
			return found, true
		}
	}
	return authz.RefreshToken{}, false
}

// split takes a text apart: the token that it is if its mac is right, what the
// mac is of, and the mac.
func split(text string) (t authz.RefreshToken, signed string, mac []byte, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 4 {
		return t, "", nil, false
	}
	generation, err := strconv.Atoi(parts[1])
	if err != nil || generation < 0 || generation > lastGeneration || strconv.Itoa(generation) != parts[1] {
		return t, "", nil, false
	}
	_, familyOK := canonical(parts[0], familyBytes)
	_, secretOK := canonical(parts[2], secretBytes)
	mac, ok = canonical(parts[3], secretBytes)
	if !familyOK || !secretOK || !ok {
		return t, "", nil, false
	}
	return tokenOf(parts[0], generation, text), text[:strings.LastIndexByte(text, '.')], mac, true
}

// canonical decodes base64url of so many bytes. Go skips line ends in it, and
// ignores trailing bits unless told not to; what we would not write ourselves
// is not taken.
func canonical(text string, size int) ([]byte, bool) {
	bytes, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return bytes, err == nil && len(bytes) == size && len(text) == base64.RawURLEncoding.EncodedLen(size)
}

func tokenOf(family string, generation int, text string) authz.RefreshToken {
	return authz.RefreshToken{Family: family, Generation: generation, Hash: sha256.Sum256([]byte(text)), Text: text}
}

// token makes the token of a secret.
func (k *refreshKey) token(family string, generation int, secret []byte) authz.RefreshToken {
	signed := family + "." + strconv.Itoa(generation) + "." + base64.RawURLEncoding.EncodeToString(secret)
	return tokenOf(family, generation, signed+"."+base64.RawURLEncoding.EncodeToString(k.sum(signed)))
}

// follow makes the successor of a token.
func (k *refreshKey) follow(t authz.RefreshToken) authz.RefreshToken {
	return k.token(t.Family, t.Generation+1, hmacOf(k.successor, successorLabel, t.Text))
}

func (k *refreshKey) sum(signed string) []byte { return hmacOf(k.mac, macLabel, signed) }

func hmacOf(key []byte, label, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(label))
	h.Write([]byte(message))
	return h.Sum(nil)
}
