package oidc

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	stateBytes    = 24
	nonceBytes    = 24
	verifierBytes = 32 // the length that RFC 7636 section 4.1 recommends
	flowHead      = 8 + stateBytes + nonceBytes + verifierBytes

	// maxReturnTo keeps the cookie under the 4096 bytes that browsers take.
	maxReturnTo = 2048
	maxSealed   = 4096
)

// flow is a login that has begun: what its end must know.
type flow struct {
	begun    time.Time // in whole seconds
	state    [stateBytes]byte
	nonce    [nonceBytes]byte
	verifier [verifierBytes]byte // the PKCE code verifier
	returnTo string
}

func newFlow(now time.Time, returnTo string) flow {
	f := flow{begun: time.Unix(now.Unix(), 0), returnTo: returnTo}
	for _, b := range [][]byte{f.state[:], f.nonce[:], f.verifier[:]} {
		_, _ = rand.Read(b) // never fails: it ends the program instead
	}
	return f
}

// text is how random bytes stand in a URL or a token.
func text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// flowName is what a flow's cookie is called after, "" when state is none that
// we could have made. It tells nothing of the state.
func flowName(state string) string {
	if b, err := base64.RawURLEncoding.DecodeString(state); err != nil || len(b) != stateBytes || text(b) != state {
		return ""
	}
	sum := sha256.Sum256([]byte("gatehouse oidc flow\x00" + state))
	return hex.EncodeToString(sum[:6])
}

// marshal writes a flow: all of fixed length but the last.
func (f flow) marshal() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, flowHead+len(f.returnTo)), uint64(f.begun.Unix())) //nolint:gosec // G115: a number there and back
	return slices.Concat(b, f.state[:], f.nonce[:], f.verifier[:], []byte(f.returnTo))
}

func parseFlow(b []byte) (f flow, ok bool) {
	if len(b) < flowHead {
		return flow{}, false
	}
	f.begun = time.Unix(int64(binary.BigEndian.Uint64(b)), 0) //nolint:gosec // G115: a number there and back
	b = b[8:]
	b = b[copy(f.state[:], b):]
	b = b[copy(f.nonce[:], b):]
	b = b[copy(f.verifier[:], b):]
	f.returnTo = string(b)
	return f, true
}

// sealer seals flows with AES-256-GCM, so that a browser can keep them and
// neither read nor make them.
type sealer struct {
	bound string        // what a sealed flow is for, beside its name
	keys  []cipher.AEAD // the first seals, all open
}

// newSealer derives its keys (RFC 5869): the secrets sign cookies, too, and one
// key must not do two things. bound ties what is sealed to one provider.
func newSealer(secrets [][]byte, bound ...string) (*sealer, error) {
	s := &sealer{bound: strings.Join(bound, "\x00")}
	for i, secret := range secrets {
		if len(secret) == 0 {
			return nil, fmt.Errorf("sealing key %d is empty", i)
		}
		key, err := hkdf.Key(sha256.New, secret, nil, "gatehouse oidc login flow", 32)
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, err
		}
		s.keys = append(s.keys, aead)
	}
	return s, nil
}

func (s *sealer) context(name string) []byte { return []byte(name + "\x00" + s.bound) }

func (s *sealer) seal(name string, f flow) string {
	return text(s.keys[0].Seal(nil, nil, f.marshal(), s.context(name))) //nolint:gosec // G407: this AEAD draws its nonces itself
}

// open returns what was sealed under that name. It takes the very text that
// seal returned and no other spelling of it.
func (s *sealer) open(name, sealed string) (flow, bool) {
	if len(sealed) > maxSealed {
		return flow{}, false
	}
	b, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || text(b) != sealed {
		return flow{}, false
	}
	for _, key := range s.keys {
		if plain, err := key.Open(nil, nil, b, s.context(name)); err == nil {
			return parseFlow(plain)
		}
	}
	return flow{}, false
}
