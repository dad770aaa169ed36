package token_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

func pemOf(blockType string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der})
}

func certificate(private crypto.Signer) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "idp"},
		NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour), // a container of the key, whatever its dates
	}
	return pemOf("CERTIFICATE", must(x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)))
}

func TestParsePEM(t *testing.T) {
	rsaPublic := rsaKey().Public().(*rsa.PublicKey)
	weakExponent := &rsa.PublicKey{N: rsaPublic.N, E: 1}
	for name, test := range map[string]struct {
		data    []byte
		message string // "": a key
	}{
		"PKIX, RSA":     {publicPEM(rsaKey()), ""},
		"PKIX, EC":      {publicPEM(p521Key()), ""},
		"PKIX, Ed25519": {publicPEM(edKey()), ""},
		"PKCS #1":       {pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(rsaPublic)), ""},
		"certificate":   {certificate(rsaKey()), ""},
		"text around":   {append([]byte("subject=idp\n"), append(publicPEM(rsaKey()), "the end\n"...)...), ""},

		"RSA of 1024 bits":      {publicPEM(weakRSAKey()), "1024 bits"},
		"certificate of it":     {certificate(weakRSAKey()), "1024 bits"},
		"RSA with exponent 1":   {pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(weakExponent)), "exponent 1"},
		"EC on P-224":           {publicPEM(p224Key()), "unsupported curve"},
		"X25519":                {pemOf("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(must(ecdh.X25519().GenerateKey(rand.Reader)).Public()))), "ecdh"},
		"Ed25519, a weak point": {pemOf("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(ed25519.PublicKey(make([]byte, 32))))), "low-order"},
		"private, PKCS #8":      {pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(rsaKey()))), "openssl pkey -pubout"},
		"private, SEC 1":        {pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(p256Key().(*ecdsa.PrivateKey)))), "private key"},
		"two keys":              {append(publicPEM(rsaKey()), publicPEM(p256Key())...), "several PEM blocks"},
		"something else":        {pemOf("X509 CRL", []byte("x")), `"X509 CRL"`},
		"garbage inside":        {pemOf("PUBLIC KEY", []byte("garbage")), "parse PUBLIC KEY"},
		"not PEM":               {[]byte(jwk(rsaKey(), nil)), "no PEM block"},
		"empty":                 {nil, "no PEM block"},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := token.ParsePEM(test.data, "k1")
			if test.message != "" {
				require.Nil(t, found)
				require.ErrorContains(t, err, test.message)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "k1", found.ID())
		})
	}
}

func TestParseJWKSLeavesOut(t *testing.T) {
	private := `"` + b64(make([]byte, 32)) + `"`
	for name, test := range map[string]struct {
		jwk     string
		message string // "": a key
	}{
		"RSA":                              {jwk(rsaKey(), nil), ""},
		"P-256":                            {jwk(p256Key(), nil), ""},
		"P-384":                            {jwk(p384Key(), nil), ""},
		"P-521":                            {jwk(p521Key(), nil), ""},
		"Ed25519":                          {jwk(edKey(), nil), ""},
		"use sig, key_ops and alg":         {jwk(rsaKey(), object{"use": `"sig"`, "key_ops": `["verify"]`, "alg": `"RS256"`}), ""},
		"certificates that nobody can use": {jwk(rsaKey(), object{"x5c": `["garbage"]`, "x5t": `"garbage"`, "x5u": `"::"`}), ""},
		"unknown members":                  {jwk(rsaKey(), object{"ext": `true`, "nbf": `1`}), ""},

		"oct":                   {`{"kty":"oct","k":"c2VjcmV0"}`, "secret"},
		"oct without k":         {`{"kty":"oct"}`, "symmetric"},
		"private RSA":           {jwk(rsaKey(), object{"d": private}), "private"},
		"private EC":            {jwk(p256Key(), object{"d": private}), "private"},
		"RSA of 1024 bits":      {jwk(weakRSAKey(), nil), "1024 bits"},
		"RSA, e is 1":           {jwk(rsaKey(), object{"e": `"AQ"`}), "bad e value"},
		"RSA, e is even":        {jwk(rsaKey(), object{"e": `"BA"`}), "exponent 4"},
		"RSA, n no string":      {jwk(rsaKey(), object{"n": `{}`}), "cannot unmarshal"},
		"RSA without n":         {jwk(rsaKey(), object{"n": ""}), "missing"},
		"P-224":                 {`{"kty":"EC","crv":"P-224","x":"AA","y":"AA"}`, "unsupported elliptic curve"},
		"secp256k1":             {jwk(p256Key(), object{"crv": `"secp256k1"`}), "unsupported elliptic curve"},
		"P-256 named P-384":     {jwk(p256Key(), object{"crv": `"P-384"`}), "wrong length"},
		"a point off the curve": {jwk(p256Key(), object{"x": jwkMember(otherP256(), "x")}), "not on declared curve"},
		"X25519":                {jwk(edKey(), object{"crv": `"X25519"`}), "unsupported key type"},
		"Ed448":                 {jwk(edKey(), object{"crv": `"Ed448"`}), "unsupported key type"},
		"Ed25519, a weak point": {jwk(edKey(), object{"x": private}), "low-order"},
		"AKP":                   {`{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}`, "no usable key"},
		"unknown kty":           {`{"kty":"QUANTUM"}`, "unsupported key type"},
		"no kty":                {`{}`, "missing json web key type"},
		"no object":             {`"key"`, "missing json web key type"},
		"use enc":               {jwk(rsaKey(), object{"use": `"enc"`}), "its use is"},
		"use a list":            {jwk(rsaKey(), object{"use": `["sig"]`}), "use is not a string"},
		"key_ops sign only":     {jwk(rsaKey(), object{"key_ops": `["sign"]`}), "key_ops"},
		"key_ops a string":      {jwk(rsaKey(), object{"key_ops": `"verify"`}), "key_ops"},
		"alg of another type":   {jwk(rsaKey(), object{"alg": `"ES256"`}), "does not fit"},
		"alg of another curve":  {jwk(p256Key(), object{"alg": `"ES384"`}), "does not fit"},
		"alg HS256":             {jwk(rsaKey(), object{"alg": `"HS256"`}), "does not fit"},
		"alg for encryption":    {jwk(rsaKey(), object{"alg": `"RSA-OAEP"`}), "does not fit"},
		"kid a number":          {jwk(rsaKey(), object{"kid": `1`}), "kid is not a string"},
	} {
		t.Run(name, func(t *testing.T) {
			alone, err := token.ParseJWKS([]byte(jwks(test.jwk)))
			beside, errBeside := token.ParseJWKS([]byte(jwks(test.jwk, jwk(otherP256(), kid("good")))))
			require.NoError(t, errBeside)
			if test.message == "" {
				require.NoError(t, err)
				require.Len(t, alone, 1)
				require.Len(t, beside, 2)
				return
			}
			require.ErrorContains(t, err, test.message)
			require.Nil(t, alone)
			require.Len(t, beside, 1)
			require.Equal(t, "good", beside[0].ID())
		})
	}
}

// jwkMember returns one member of a public JWK, as JSON.
func jwkMember(private crypto.Signer, name string) string {
	_, value, _ := strings.Cut(jwk(private, nil), `"`+name+`":`)
	value, _, _ = strings.Cut(value[1:], `"`)
	return `"` + value + `"`
}

func TestParseJWKSRefuses(t *testing.T) {
	for name, test := range map[string]struct{ data, message string }{
		"empty set":      {`{"keys":[]}`, "the key set is empty"},
		"no keys":        {`{}`, "no array named keys"},
		"a single key":   {jwk(rsaKey(), nil), "no array named keys"},
		"keys an object": {`{"keys":{}}`, "no array named keys"},
		"another case":   {`{"Keys":[` + jwk(rsaKey(), nil) + `]}`, "no array named keys"},
		"an array":       {`[` + jwk(rsaKey(), nil) + `]`, "not a JSON object"},
		"HTML":           {`<html>`, "invalid character"},
		"nothing":        {``, "unexpected EOF"},
		"keys twice":     {`{"keys":[],"keys":[]}`, "twice"},
		"a member twice": {`{"keys":[{"kty":"RSA","kty":"oct"}]}`, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := token.ParseJWKS([]byte(test.data))
			require.Nil(t, keys)
			require.ErrorContains(t, err, test.message)
		})
	}
}

func TestJWKWithoutUseOrWithAlgorithm(t *testing.T) {
	keys := must(token.ParseJWKS([]byte(jwks(jwk(rsaKey(), object{"kid": `"r1"`, "alg": `"PS256"`})))))
	v := verifier(t, token.IssuerOptions{Issuer: idp, Keys: keys, Algorithms: []string{"RS256", "PS256"}})
	refused(t, v, rs256(nil, nil), authz.ReasonTokenInvalid, "no key for kid")
	accepted(t, v, compact(rsaKey(), "PS256", goodHeader.with(object{"alg": `"PS256"`}), goodClaims.with(nil)))
}

func TestFilesReload(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	pemPath, setPath := write("key.pem", publicPEM(otherRSAKey())), write("jwks.json", []byte(jwks(jwk(otherRSAKey(), kid("r1")))))
	fromPEM, err := token.LoadPEM(token.PEMFile{Path: pemPath, KeyID: "r1"})
	require.NoError(t, err)
	fromSet, err := token.LoadJWKS(setPath)
	require.NoError(t, err)

	for name, test := range map[string]struct {
		keys interface {
			token.KeySet
			Reload() error
		}
		path string
		good []byte
	}{
		"PEM":  {fromPEM, pemPath, publicPEM(rsaKey())},
		"JWKS": {fromSet, setPath, []byte(jwks(jwk(rsaKey(), kid("r1"))))},
	} {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, token.IssuerOptions{Issuer: idp, Keys: test.keys})
			refused(t, v, rs256(nil, nil), authz.ReasonTokenInvalid, "does not verify")

			require.NoError(t, os.WriteFile(test.path, test.good, 0o600))
			refused(t, v, rs256(nil, nil), authz.ReasonTokenInvalid, "does not verify")
			require.NoError(t, test.keys.Reload())
			accepted(t, v, rs256(nil, nil))

			require.NoError(t, os.WriteFile(test.path, []byte("garbage"), 0o600))
			require.ErrorContains(t, test.keys.Reload(), test.path)
			accepted(t, v, rs256(nil, nil))
			require.NoError(t, os.Remove(test.path))
			require.ErrorIs(t, test.keys.Reload(), os.ErrNotExist)
			accepted(t, v, rs256(nil, nil))
		})
	}
}

func TestLoadFailures(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	fromPEM, err := token.LoadPEM(token.PEMFile{Path: missing})
	require.Nil(t, fromPEM)
	require.ErrorIs(t, err, os.ErrNotExist)
	fromPEM, err = token.LoadPEM()
	require.Nil(t, fromPEM)
	require.Error(t, err)
	fromSet, err := token.LoadJWKS(missing)
	require.Nil(t, fromSet)
	require.ErrorIs(t, err, os.ErrNotExist)
}
