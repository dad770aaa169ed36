package token_test

import (
	"context"
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
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

const (
	idp   = "https://idp.example.com"
	other = "https://other.example.com"
)

// now is the time in tests.
var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

// The keys of tests, each made when it is first needed.
var (
	rsaKey      = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSAKey = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	weakRSAKey  = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 1024)) })
	p224Key     = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)) })
	p256Key     = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	otherP256   = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	p384Key     = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	p521Key     = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	edKey       = sync.OnceValue(func() crypto.Signer {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	})
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// signature signs with Go's own crypto: go-jose must not be its own referee.
func signature(key crypto.Signer, alg, input string) []byte {
	if key, ok := key.(ed25519.PrivateKey); ok {
		return ed25519.Sign(key, []byte(input))
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	h := hash.New()
	h.Write([]byte(input))
	digest := h.Sum(nil)
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if alg[:2] == "PS" {
			return must(rsa.SignPSS(rand.Reader, key, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		}
		return must(rsa.SignPKCS1v15(nil, key, hash, digest))
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		must(r, err)
		size := (key.Curve.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	}
	panic(fmt.Sprintf("no way to sign with a %T", key))
}

// compact signs a header and a payload, both as they are.
func compact(key crypto.Signer, alg, header, payload string) string {
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	return input + "." + b64(signature(key, alg, input))
}

// object is JSON with every member as it is written: values are JSON already.
type object map[string]string

// with returns a copy with other members; "" removes one.
func (o object) with(changes object) string {
	o = maps.Clone(o)
	maps.Copy(o, changes)
	var members []string
	for name, value := range o {
		if value != "" {
			members = append(members, fmt.Sprintf("%q:%s", name, value))
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}

// at is a NumericDate, so far from now.
func at(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }

// goodHeader and goodClaims make a token that idp's verifier accepts; what a
// test changes in them is what it is about.
var (
	goodHeader = object{"alg": `"RS256"`, "kid": `"r1"`, "typ": `"at+jwt"`}
	goodClaims = object{
		"iss": `"` + idp + `"`, "sub": `"user-1"`, "aud": `"api"`, "jti": `"token-1"`,
		"iat": at(-time.Minute), "exp": at(time.Minute),
	}
)

// rs256 signs good header and claims with these changes.
func rs256(header, claims object) string {
	return compact(rsaKey(), "RS256", goodHeader.with(header), goodClaims.with(claims))
}

func key(tb testing.TB, private crypto.Signer, kid, alg string) *token.Key {
	tb.Helper()
	k, err := token.NewKey(private.Public(), kid, alg)
	require.NoError(tb, err)
	return k
}

func verifier(tb testing.TB, issuers ...token.IssuerOptions) *token.Verifier {
	tb.Helper()
	v, err := token.NewVerifier(issuers, token.VerifierOptions{Now: clock})
	require.NoError(tb, err)
	return v
}

// everything is what the tests' main verifier trusts: two issuers, whose keys
// have the same kids.
func everything(tb testing.TB) []token.IssuerOptions {
	tb.Helper()
	return []token.IssuerOptions{
		{
			Issuer: idp, Audiences: []string{"api", "admin"},
			Algorithms: []string{"RS256", "PS256", "ES256", "EdDSA"},
			Keys: token.StaticKeys{
				key(tb, rsaKey(), "r1", ""), key(tb, p256Key(), "e1", ""), key(tb, edKey(), "o1", ""),
				key(tb, p384Key(), "e384", ""), key(tb, otherRSAKey(), "rs512only", "RS512"),
			},
		},
		{
			Issuer: other, Audiences: []string{"api"},
			Keys: token.StaticKeys{key(tb, otherRSAKey(), "r1", "")},
		},
	}
}

// refused verifies raw and requires this refusal, whose message must say what
// is wrong and must be fit for a log.
func refused(tb testing.TB, v authz.TokenVerifier, raw string, reason authz.Reason, message string) {
	tb.Helper()
	found, err := v.Verify(context.Background(), raw)
	require.Error(tb, err)
	require.Nil(tb, found)
	require.Equal(tb, reason, authz.ReasonOf(err), err.Error())
	require.ErrorContains(tb, err, message)
	require.Less(tb, len(err.Error()), 300, "unbounded message")
	for part := range strings.SplitSeq(raw, ".") {
		if len(part) > 20 {
			require.NotContains(tb, err.Error(), part)
		}
	}
	for _, r := range err.Error() {
		require.True(tb, unicode.IsPrint(r), "unquoted %q in %q", r, err.Error())
	}
}

func accepted(tb testing.TB, v authz.TokenVerifier, raw string) *authz.Token {
	tb.Helper()
	found, err := v.Verify(context.Background(), raw)
	require.NoError(tb, err)
	require.NotNil(tb, found)
	return found
}

func publicPEM(private crypto.Signer) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(private.Public()))})
}

// jwk returns a public JWK, written without go-jose.
func jwk(private crypto.Signer, changes object) string {
	switch public := private.Public().(type) {
	case *rsa.PublicKey:
		return object{"kty": `"RSA"`, "n": `"` + b64(public.N.Bytes()) + `"`, "e": `"AQAB"`}.with(changes)
	case *ecdsa.PublicKey:
		point := must(public.Bytes())[1:]
		return object{
			"kty": `"EC"`, "crv": `"` + public.Params().Name + `"`,
			"x": `"` + b64(point[:len(point)/2]) + `"`, "y": `"` + b64(point[len(point)/2:]) + `"`,
		}.with(changes)
	case ed25519.PublicKey:
		return object{"kty": `"OKP"`, "crv": `"Ed25519"`, "x": `"` + b64(public) + `"`}.with(changes)
	}
	panic(fmt.Sprintf("no JWK of a %T", private))
}

func jwks(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

func kid(s string) object { return object{"kid": string(must(json.Marshal(s)))} }
