package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

// minRSABits is the least that RFC 7518 section 3.3 allows. maxRSABits keeps
// one verification from costing what a thousand others do; in key sets go-jose
// draws that line at 4096 already.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// A KeySet holds the public keys of one issuer. Implementations are safe for
// concurrent use.
//
// Keys returns those keys that may verify a token with this kid and alg, as
// the package comment says; kid is "" for a token without one. No keys and no
// error mean that the issuer has no such key; an error means that it could not
// be found out. It may block until ctx ends. As long as a key stands it should
// be the same *Key in each answer: a verifier's cache goes by that.
type KeySet interface {
	Keys(ctx context.Context, kid, alg string) ([]*Key, error)
}

// Key is a public key, and what it may be used for. Made by [NewKey] and the
// parsers of this package, read-only.
type Key struct {
	id         string
	anyID      bool // a PEM key without a kid
	public     crypto.PublicKey
	algorithms []jose.SignatureAlgorithm
}

// NewKey returns a key with this kid ("" for none), for one algorithm (""
// for all that fit its type). The key must be an [*rsa.PublicKey] of 2048 to
// 8192 bits, an [*ecdsa.PublicKey] on P-256, P-384 or P-521, or an
// [ed25519.PublicKey].
func NewKey(public crypto.PublicKey, kid, alg string) (*Key, error) {
	fitting, err := algorithmsOf(public)
	if err != nil {
		return nil, err
	}
	if alg != "" {
		if !slices.Contains(fitting, jose.SignatureAlgorithm(alg)) {
			return nil, fmt.Errorf("alg %s does not fit the key; those that do are %v", claim.Quote(alg), fitting)
		}
		fitting = []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)}
	}
	return &Key{id: kid, public: public, algorithms: fitting}, nil
}

// ID returns the key's kid, "" when it has none.
func (k *Key) ID() string { return k.id }

func (k *Key) fits(alg jose.SignatureAlgorithm) bool { return slices.Contains(k.algorithms, alg) }

// algorithmsOf returns the algorithms that go with a key, the one to sign
// with first, or why it can't be trusted with any.
func algorithmsOf(public crypto.PublicKey) ([]jose.SignatureAlgorithm, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits; use %d to %d", bits, minRSABits, maxRSABits)
		}
		if key.E < 3 || key.E%2 == 0 {
			return nil, fmt.Errorf("an RSA key with exponent %d; use 65537", key.E)
		}
		return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}, nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return []jose.SignatureAlgorithm{jose.ES256}, nil
		case elliptic.P384():
			return []jose.SignatureAlgorithm{jose.ES384}, nil
		case elliptic.P521():
			return []jose.SignatureAlgorithm{jose.ES512}, nil
		}
		return nil, errors.New("an EC key on an unsupported curve; use P-256, P-384 or P-521")
	case ed25519.PublicKey:
		if _, err := (jose.JSONWebKey{Key: key}).MarshalJSON(); err != nil { // go-jose knows the weak points
			return nil, err
		}
		return []jose.SignatureAlgorithm{jose.EdDSA}, nil
	default:
		return nil, fmt.Errorf("a key of type %T; use RSA, EC or Ed25519", public)
	}
}

// StaticKeys are keys that never change.
type StaticKeys []*Key

// Keys implements [KeySet]. It neither blocks nor fails.
func (s StaticKeys) Keys(_ context.Context, kid, alg string) ([]*Key, error) {
	var found, standIns []*Key
	for i, k := range s {
		switch {
		case !k.fits(jose.SignatureAlgorithm(alg)):
		case kid == "" || k.id == kid:
			found = s.with(found, i)
		case k.anyID:
			standIns = s.with(standIns, i)
		}
	}
	if len(found) == 0 && len(standIns) == 1 {
		return standIns, nil
	}
	return found, nil
}

// renewed returns the new keys, with the old one in place of each that is the same:
// so what was verified by it stays remembered.
func (s StaticKeys) renewed(keys StaticKeys) StaticKeys {
	all := slices.Clone(keys)
	for i, k := range all {
		if old := slices.IndexFunc(s, k.equal); old >= 0 {
			all[i] = s[old]
		}
	}
	return all
}

func (k *Key) equal(other *Key) bool {
	public, ok := k.public.(interface{ Equal(x crypto.PublicKey) bool })
	return ok && public.Equal(other.public) && k.id == other.id && k.anyID == other.anyID && slices.Equal(k.algorithms, other.algorithms)
}

// with appends a key to some; one alone, which is the rule and asked for by each
// check, is a part of s.
func (s StaticKeys) with(some []*Key, i int) []*Key {
	if some == nil {
		return s[i : i+1 : i+1]
	}
	return append(some, s[i])
}

// FileKeys are keys from files, which can be read again. Safe for concurrent
// use.
type FileKeys struct {
	load func() (StaticKeys, error)
	keys atomic.Pointer[StaticKeys]
}

// PEMFile names a file with one public key or certificate.
type PEMFile struct {
	Path  string
	KeyID string // the kid of its tokens; "" when it is not known
}

// LoadPEM reads public keys from PEM files, one from each (see [ParsePEM]).
func LoadPEM(files ...PEMFile) (*FileKeys, error) {
	return loadFiles(func() (StaticKeys, error) {
		var keys StaticKeys
		if len(files) == 0 {
			return nil, errors.New("no public key file is named")
		}
		for _, f := range files {
			data, err := os.ReadFile(f.Path)
			if err != nil {
				return nil, fmt.Errorf("read public key: %w", err)
			}
			key, err := ParsePEM(data, f.KeyID)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.Path, err)
			}
			keys = append(keys, key)
		}
		return keys, nil
	})
}

// LoadJWKS reads a JWK set from a file (see [ParseJWKS]).
func LoadJWKS(path string) (*FileKeys, error) {
	return loadFiles(func() (StaticKeys, error) {
		data, err := os.ReadFile(path) //nolint:gosec // the operator's own configuration names it
		if err != nil {
			return nil, fmt.Errorf("read key set: %w", err)
		}
		keys, err := ParseJWKS(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return keys, nil
	})
}

func loadFiles(load func() (StaticKeys, error)) (*FileKeys, error) {
	f := &FileKeys{load: load}
	if err := f.Reload(); err != nil {
		return nil, err
	}
	return f, nil
}

// Reload reads the files again. When it fails the keys stay as they are.
func (f *FileKeys) Reload() error {
	keys, err := f.load()
	if err != nil {
		return err
	}
	f.keys.Store(&keys)
	return nil
}

// Keys implements [KeySet]. It neither blocks nor fails.
func (f *FileKeys) Keys(ctx context.Context, kid, alg string) ([]*Key, error) {
	return f.keys.Load().Keys(ctx, kid, alg)
}

// ParsePEM reads a public key ("PUBLIC KEY" or "RSA PUBLIC KEY") or the key of
// a certificate, which must be the only one in data. With kid "" the key is
// tried for tokens with any kid. A private key is an error: it does not belong
// where tokens are only verified.
func ParsePEM(data []byte, kid string) (*Key, error) {
	block, err := onlyBlock(data)
	if err != nil {
		return nil, err
	}
	var public crypto.PublicKey
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			public = cert.PublicKey
		}
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("a private key where a public key is wanted; make one with: openssl pkey -pubout")
	default:
		return nil, fmt.Errorf("a PEM block %s where PUBLIC KEY or CERTIFICATE is wanted", claim.Quote(block.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", block.Type, err)
	}
	key, err := NewKey(public, kid, "")
	if err != nil {
		return nil, err
	}
	key.anyID = kid == ""
	return key, nil
}

// onlyBlock returns the one PEM block in data, not counting the EC PARAMETERS
// that openssl writes in front of a key.
func onlyBlock(data []byte) (*pem.Block, error) {
	var found *pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "EC PARAMETERS" {
			continue
		}
		if found != nil {
			return nil, errors.New("several PEM blocks; keep one key or certificate in a file")
		}
		found = block
	}
	if found == nil {
		return nil, errors.New("no PEM block in it")
	}
	return found, nil
}

// ParseJWKS reads a JWK set (RFC 7517 section 5). Keys that can't verify
// tokens are left out: of an unsupported type or curve, too weak, malformed,
// for another use, operation or algorithm, symmetric; and private ones, since
// whoever can read the set could sign with them. A set of which nothing is
// left is an error.
func ParseJWKS(data []byte) (StaticKeys, error) {
	set, err := decodeObject(data)
	if err != nil {
		return nil, fmt.Errorf("parse key set: %w", err)
	}
	list, ok := set["keys"].([]any)
	if !ok {
		return nil, errors.New("parse key set: no array named keys")
	}
	var keys StaticKeys
	var skipped error
	for _, v := range list {
		members, _ := v.(map[string]any)
		key, err := keyOfJWK(members)
		if err != nil {
			skipped = err
			continue
		}
		keys = append(keys, key)
	}
	switch {
	case len(keys) > 0:
		return keys, nil
	case skipped != nil:
		return nil, fmt.Errorf("no usable key among %d; the last one: %w", len(list), skipped)
	default:
		return nil, errors.New("the key set is empty")
	}
}

func keyOfJWK(members map[string]any) (*Key, error) {
	for _, secret := range []string{"k", "d", "p", "q", "dp", "dq", "qi", "oth", "priv"} {
		if _, ok := members[secret]; ok {
			return nil, errors.New("it is a secret or private key")
		}
	}
	var text [3]string
	for n, name := range [...]string{"kid", "alg", "use"} {
		v, present := members[name]
		s, ok := v.(string)
		if present && !ok {
			return nil, fmt.Errorf("%s is not a string", name)
		}
		text[n] = s
	}
	if _, present := members["use"]; present && text[2] != "sig" {
		return nil, fmt.Errorf("its use is %s, not \"sig\"", claim.Quote(text[2]))
	}
	if ops, present := members["key_ops"]; present {
		if list, ok := ops.([]any); !ok || !slices.Contains(list, any("verify")) {
			return nil, errors.New("its key_ops do not list verify")
		}
	}
	// Only what makes the key: go-jose would judge x5c and x5t too, and a
	// certificate that Go can't parse is no reason to do without the key.
	material := make(map[string]any, 4)
	for _, name := range []string{"kty", "crv", "n", "e", "x", "y"} {
		if v, ok := members[name]; ok {
			material[name] = v
		}
	}
	data, err := json.Marshal(material)
	if err != nil {
		return nil, err
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(data); err != nil {
		return nil, errors.New(claim.Quote(err.Error()))
	}
	return NewKey(jwk.Key, text[0], text[1])
}
