package token

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

// DefaultAccessTTL is how long a minted token lives unless MintOptions say
// otherwise.
const DefaultAccessTTL = 15 * time.Minute

// SigningKey is a private key of ours. It prints as its kid.
type SigningKey struct {
	public  *Key
	private crypto.Signer
}

// LoadSigningKey reads a signing key from a PEM file (see [ParseSigningKey]).
func LoadSigningKey(path, kid string) (*SigningKey, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the operator's own configuration names it
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	key, err := ParseSigningKey(data, kid)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// ParseSigningKey reads a private key, unencrypted, as PKCS #8, PKCS #1 or
// SEC 1 in PEM: RSA of at least 2048 bits, EC on P-256, P-384 or P-521, or
// Ed25519. Its type decides the algorithm: RS256, ES256, ES384, ES512 or
// EdDSA. With kid "" the key is named by its thumbprint (RFC 7638, SHA-256).
func ParseSigningKey(data []byte, kid string) (*SigningKey, error) {
	block, err := onlyBlock(data)
	if err != nil {
		return nil, err
	}
	var parsed any
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block %s where an unencrypted PRIVATE KEY is wanted", claim.Quote(block.Type))
	}
	if err != nil {
		// Old OpenSSL files say so in a header and keep the block's type.
		return nil, fmt.Errorf("parse %s (it must not be encrypted): %w", block.Type, err)
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T, which can't sign; use RSA, EC or Ed25519", parsed)
	}
	fitting, err := algorithmsOf(private.Public())
	if err != nil {
		return nil, err
	}
	if kid == "" {
		jwk := jose.JSONWebKey{Key: private.Public()}
		thumbprint, err := jwk.Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, err
		}
		kid = base64.RawURLEncoding.EncodeToString(thumbprint)
	}
	// Verification is pinned to the algorithm that we sign with.
	public, err := NewKey(private.Public(), kid, string(fitting[0]))
	return &SigningKey{public: public, private: private}, err
}

// ID returns the kid.
func (k *SigningKey) ID() string { return k.public.id }

// Algorithm returns the alg of what the key signs.
func (k *SigningKey) Algorithm() string { return string(k.public.algorithms[0]) }

// String returns the kid and the algorithm.
func (k *SigningKey) String() string { return "signing key " + k.ID() + " (" + k.Algorithm() + ")" }

// GoString is String: %#v would print the key.
func (k *SigningKey) GoString() string { return k.String() }

// same reports whether two keys are the same key.
func (k *SigningKey) same(other *SigningKey) bool {
	public, ok := k.private.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(other.private.Public())
}

// signer signs tokens of a type with the key.
func (k *SigningKey) signer(typ jose.ContentType) (jose.Signer, error) {
	s, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.Algorithm()), Key: jose.JSONWebKey{Key: k.private, KeyID: k.ID()}},
		(&jose.SignerOptions{}).WithType(typ),
	)
	if err != nil {
		return nil, fmt.Errorf("use %v: %w", k, err)
	}
	return s, nil
}

// GenerateKey returns a new signing key as PKCS #8 in PEM, for RS256 (2048
// bits), ES256, ES384, ES512 or EdDSA.
func GenerateKey(alg string) ([]byte, error) {
	var key any
	var err error
	switch alg {
	case string(jose.RS256):
		key, err = rsa.GenerateKey(rand.Reader, minRSABits)
	case string(jose.ES256):
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case string(jose.ES384):
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case string(jose.ES512):
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case string(jose.EdDSA):
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("can't make a key for %s; choose RS256, ES256, ES384, ES512 or EdDSA", claim.Quote(alg))
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// MintOptions say what our own access tokens look like.
type MintOptions struct {
	Issuer    string        // iss
	Audiences []string      // aud; at least one (RFC 9068 section 2.2)
	Keys      []*SigningKey // the first signs; the others are still accepted
	TTL       time.Duration // default [DefaultAccessTTL]; at least a second
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// Issuer mints access tokens. Safe for concurrent use.
type Issuer struct {
	o       MintOptions
	signer  jose.Signer
	keys    StaticKeys
	jwks    []byte
	refresh *RefreshTokens
}

// NewIssuer returns an issuer. It fails when something is missing or two
// different keys have the same kid. The same key listed twice counts once: that
// is how the files of "gatehouse keys rotate" look in the middle of it.
func NewIssuer(o MintOptions) (*Issuer, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.TTL = cmp.Or(o.TTL, DefaultAccessTTL)
	o.Audiences = slices.Clone(o.Audiences)
	switch {
	case o.Issuer == "":
		return nil, errors.New("the issuer of our tokens has no name; give its URL")
	case len(o.Audiences) == 0 || slices.Contains(o.Audiences, ""):
		return nil, errors.New("our tokens need an audience, and an empty one is none")
	case len(o.Keys) == 0:
		return nil, errors.New("our tokens need a signing key; make one with: gatehouse keys new")
	case o.TTL < time.Second:
		return nil, fmt.Errorf("a token that lives %v has expired when it arrives; use at least a second", o.TTL)
	}
	i := &Issuer{o: o}
	var err error
	if i.o.Keys, err = distinctKeys(o.Keys); err != nil {
		return nil, err
	}
	for _, k := range i.o.Keys {
		i.keys = append(i.keys, k.public)
	}
	if i.jwks, err = publicJWKS(i.o.Keys); err != nil {
		return nil, err
	}
	if i.signer, err = o.Keys[0].signer("at+jwt"); err != nil {
		return nil, err
	}
	if i.refresh, err = newRefreshTokens(i.o.Keys); err != nil {
		return nil, err
	}
	return i, nil
}

// distinctKeys are the keys, each once. Two keys of one kid are an error.
func distinctKeys(keys []*SigningKey) (distinct []*SigningKey, err error) {
	for _, k := range keys {
		n := slices.IndexFunc(distinct, func(other *SigningKey) bool { return other.ID() == k.ID() })
		switch {
		case n < 0:
			distinct = append(distinct, k)
		case !k.same(distinct[n]):
			return nil, fmt.Errorf("two signing keys have the kid %q", k.ID())
		}
	}
	return distinct, nil
}

// publicJWKS is the JWK set of the keys, as JSON.
func publicJWKS(keys []*SigningKey) ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.public.public, KeyID: k.ID(), Algorithm: k.Algorithm(), Use: "sig"})
	}
	text, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("publish signing keys: %w", err)
	}
	return text, nil
}

// Claims are what differs from token to token. Nothing personal: email, roles
// and organization are looked up when the token is used.
type Claims struct {
	Subject  string    // sub: the user's id; required
	Family   string    // sid: the refresh family; "" for none
	AuthTime time.Time // auth_time: when the user authenticated; zero for unknown
	TokenID  string    // jti; "" for a new random one
	// After is a moment that iat, in whole seconds, has to lie behind: the
	// user's revocation mark. Zero for none.
	After time.Time
	// Further are more claims, with what encoding/json makes of each. None may be
	// one of the others, nor nbf.
	Further map[string]any
}

// ours are the claims that [Issuer.Mint] writes itself, and the one that would
// put off what they say.
var ours = []string{"iss", "sub", "aud", "exp", "iat", "jti", "sid", "auth_time", "nbf"}

// Minted is what the caller of Mint may want to keep of a token.
type Minted struct {
	TokenID  string
	IssuedAt time.Time // in whole seconds, as the token says it
	Expires  time.Time
}

// mostAhead is how far iat may lie ahead of the clock, so that it lies behind
// [Claims].After: the clocks of the machines that write marks and mint tokens
// differ, and iat counts whole seconds. Our own verifier takes no more.
const mostAhead = DefaultLeeway

// Mint returns a new access token (RFC 9068): sub, jti, iat, exp, iss and aud,
// and sid and auth_time when they are given. iat is now, or, where that is not
// later than After, the first whole second that is; exp counts from it. It
// fails when that second is more than half a minute ahead.
func (i *Issuer) Mint(c Claims) (string, Minted, error) {
	if c.Subject == "" {
		return "", Minted{}, errors.New("mint token: no subject")
	}
	if !utf8.ValidString(c.Subject + c.Family + c.TokenID) {
		return "", Minted{}, errors.New("mint token: not valid UTF-8") // JSON would make it somebody else's
	}
	if c.TokenID == "" {
		c.TokenID = rand.Text()
	}
	issued := i.o.Now().Truncate(time.Second)
	if !c.After.IsZero() && !issued.After(c.After) {
		now := issued
		issued = c.After.Truncate(time.Second).Add(time.Second).In(now.Location())
		if ahead := issued.Sub(now); ahead > mostAhead {
			return "", Minted{}, fmt.Errorf("mint token: the mark that it has to be newer than lies %v ahead; set the clocks of this machine and of those that revoke", ahead)
		}
	}
	m := Minted{TokenID: c.TokenID, IssuedAt: issued, Expires: issued.Add(i.o.TTL).Truncate(time.Second)}
	claims := struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience any    `json:"aud"`
		Expires  int64  `json:"exp"`
		IssuedAt int64  `json:"iat"`
		TokenID  string `json:"jti"`
		Family   string `json:"sid,omitempty"`
		AuthTime int64  `json:"auth_time,omitempty"`
	}{
		Issuer: i.o.Issuer, Subject: c.Subject, Audience: i.o.Audiences,
		Expires: m.Expires.Unix(), IssuedAt: issued.Unix(), TokenID: c.TokenID, Family: c.Family,
	}
	if len(i.o.Audiences) == 1 {
		claims.Audience = i.o.Audiences[0] // RFC 7519 section 4.1.3, and shorter
	}
	if !c.AuthTime.IsZero() {
		claims.AuthTime = c.AuthTime.Unix()
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", Minted{}, fmt.Errorf("mint token: %w", err)
	}
	if payload, err = withFurther(payload, c.Further); err != nil {
		return "", Minted{}, fmt.Errorf("mint token: %w", err)
	}
	jws, err := i.signer.Sign(payload)
	if err != nil {
		return "", Minted{}, fmt.Errorf("mint token: %w", err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		return "", Minted{}, fmt.Errorf("mint token: %w", err)
	}
	if len(raw) > MaxLength {
		return "", Minted{}, fmt.Errorf("mint token: it would have %d bytes, and nobody accepts more than %d", len(raw), MaxLength)
	}
	return raw, m, nil
}

// FreeClaim reports why [Claims].Further must not have a claim of this name; nil
// when it may.
func FreeClaim(name string) error {
	if name == "" || slices.Contains(ours, name) {
		return fmt.Errorf("claim %s is not free: it says what the token is", claim.Quote(name))
	}
	return nil
}

// withFurther adds claims at the end of those that there are.
func withFurther(payload []byte, further map[string]any) ([]byte, error) {
	if len(further) == 0 {
		return payload, nil
	}
	for name := range further {
		if err := FreeClaim(name); err != nil {
			return nil, err
		}
	}
	more, err := json.Marshal(further)
	if err != nil {
		return nil, err
	}
	payload = append(payload[:len(payload)-1], ',')
	payload = append(payload, more[1:]...)
	// What encoding/json writes may still be what no verifier takes.
	if _, err := decodeObject(payload); err != nil {
		return nil, fmt.Errorf("further claims: %w", err)
	}
	return payload, nil
}

// Issue mints the access token of a grant, for the auth API. A token without
// a family can be revoked by its jti or its user alone.
func (i *Issuer) Issue(g authz.Grant) (raw string, expires time.Time, err error) {
	raw, m, err := i.Mint(Claims{Subject: g.UserID, Family: g.Family, AuthTime: g.AuthTime, After: g.After})
	return raw, m.Expires, err
}

// RefreshTokens returns what makes and reads the refresh tokens that go with
// our access tokens. Their keys come from the signing keys.
func (i *Issuer) RefreshTokens() *RefreshTokens { return i.refresh }

// TTL returns how long a minted token lives.
func (i *Issuer) TTL() time.Duration { return i.o.TTL }

// PublicJWKS returns the JWK set of all keys, current and previous, as JSON.
func (i *Issuer) PublicJWKS() []byte { return slices.Clone(i.jwks) }

// KeySet returns the public keys, for a verifier.
func (i *Issuer) KeySet() StaticKeys { return i.keys }

// Trust returns the options with which a [Verifier] accepts our tokens.
func (i *Issuer) Trust() IssuerOptions {
	var algorithms []string
	for _, k := range i.o.Keys {
		if !slices.Contains(algorithms, k.Algorithm()) {
			algorithms = append(algorithms, k.Algorithm())
		}
	}
	return IssuerOptions{
		Issuer: i.o.Issuer, Keys: i.keys, Audiences: i.o.Audiences, Algorithms: algorithms, OwnTokens: true,
	}
}
