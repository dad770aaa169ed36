package token_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

const gateway = "https://gateway.example.com"

func signingKey(tb testing.TB, private crypto.Signer, kid string) *token.SigningKey {
	tb.Helper()
	k, err := token.ParseSigningKey(pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(private))), kid)
	require.NoError(tb, err)
	return k
}

func ours(tb testing.TB, keys ...*token.SigningKey) *token.Issuer {
	tb.Helper()
	i, err := token.NewIssuer(token.MintOptions{Issuer: gateway, Audiences: []string{"api"}, Keys: keys, Now: clock})
	require.NoError(tb, err)
	return i
}

// decoded returns header and claims of a token, read without the package.
func decoded(tb testing.TB, raw string) (header, claims map[string]any) {
	tb.Helper()
	parts := strings.Split(raw, ".")
	require.Len(tb, parts, 3)
	for n, into := range []*map[string]any{&header, &claims} {
		data, err := base64.RawURLEncoding.DecodeString(parts[n])
		require.NoError(tb, err)
		require.NoError(tb, json.Unmarshal(data, into))
	}
	return header, claims
}

func TestMintEveryAlgorithm(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "key.pem")
			require.NoError(t, os.WriteFile(file, must(token.GenerateKey(alg)), 0o600))
			k, err := token.LoadSigningKey(file, "")
			require.NoError(t, err)
			require.Equal(t, alg, k.Algorithm())

			i := ours(t, k)
			raw, minted, err := i.Mint(token.Claims{Subject: "user-1", Family: "family-1", AuthTime: now.Add(-time.Hour)})
			require.NoError(t, err)
			require.Equal(t, now, minted.IssuedAt)
			require.Equal(t, now.Add(15*time.Minute), minted.Expires)
			require.NotEmpty(t, minted.TokenID)

			header, claims := decoded(t, raw)
			require.Equal(t, map[string]any{"alg": alg, "typ": "at+jwt", "kid": k.ID()}, header)
			require.Equal(t, map[string]any{
				"iss": gateway, "sub": "user-1", "aud": "api", "jti": minted.TokenID, "sid": "family-1",
				"iat": float64(now.Unix()), "exp": float64(now.Add(15 * time.Minute).Unix()), "auth_time": float64(now.Add(-time.Hour).Unix()),
			}, claims)

			found := accepted(t, verifier(t, i.Trust()), raw)
			require.Equal(t, authz.Identity{ID: "user-1"}, found.Identity)
			require.Equal(t, "family-1", found.Family)
			require.Equal(t, minted.TokenID, found.TokenID)
			require.Equal(t, minted.IssuedAt, found.IssuedAt)
			require.Equal(t, minted.Expires, found.Expires)
			require.Equal(t, now.Add(-time.Hour), found.AuthTime)

			published := must(token.ParseJWKS(i.PublicJWKS()))
			accepted(t, verifier(t, token.IssuerOptions{Issuer: gateway, Keys: published, Algorithms: []string{alg}}), raw)
		})
	}
}

func TestMintSaysNoMoreThanItMust(t *testing.T) {
	i, err := token.NewIssuer(token.MintOptions{
		Issuer: gateway, Audiences: []string{"api", "web"}, Keys: []*token.SigningKey{signingKey(t, edKey(), "k1")},
		TTL: time.Minute, Now: func() time.Time { return now.Add(999 * time.Millisecond) },
	})
	require.NoError(t, err)
	raw, minted, err := i.Mint(token.Claims{Subject: "user-1", TokenID: "given"})
	require.NoError(t, err)
	require.Equal(t, token.Minted{TokenID: "given", IssuedAt: now, Expires: now.Add(time.Minute)}, minted)
	require.Equal(t, time.Minute, i.TTL())
	_, claims := decoded(t, raw)
	require.Equal(t, map[string]any{
		"iss": gateway, "sub": "user-1", "aud": []any{"api", "web"}, "jti": "given",
		"iat": float64(now.Unix()), "exp": float64(now.Unix() + 60),
	}, claims)
}

func TestMintedTokensDiffer(t *testing.T) {
	i := ours(t, signingKey(t, edKey(), ""))
	seen := map[string]bool{}
	for range 100 {
		_, minted, err := i.Mint(token.Claims{Subject: "user-1"})
		require.NoError(t, err)
		require.False(t, seen[minted.TokenID])
		require.GreaterOrEqual(t, len(minted.TokenID), 22) // 128 bits at least
		seen[minted.TokenID] = true
	}
}

func TestMintRefuses(t *testing.T) {
	i := ours(t, signingKey(t, edKey(), ""))
	for name, claims := range map[string]token.Claims{
		"no subject":                {},
		"subject no UTF-8":          {Subject: "user\xff"},
		"family no UTF-8":           {Subject: "user-1", Family: "\xff"},
		"token id no UTF-8":         {Subject: "user-1", TokenID: "\xff"},
		"longer than anybody reads": {Subject: strings.Repeat("x", 6000)},
	} {
		t.Run(name, func(t *testing.T) {
			raw, _, err := i.Mint(claims)
			require.Error(t, err)
			require.Empty(t, raw)
		})
	}
}

func TestMintedSubjectSurvives(t *testing.T) {
	i := ours(t, signingKey(t, edKey(), ""))
	v := verifier(t, i.Trust())
	for _, subject := range []string{"ä", "<&>\u2028", "\x00\n", `"\`, "😀", strings.Repeat("x", 5000)} {
		raw, _, err := i.Mint(token.Claims{Subject: subject})
		require.NoError(t, err)
		require.Equal(t, subject, accepted(t, v, raw).ID)
	}
}

// The first key signs, all verify: a key moves back, then out.
func TestSigningKeysRotate(t *testing.T) {
	oldKey, newKey := signingKey(t, rsaKey(), ""), signingKey(t, p256Key(), "2026-11")
	before, during, after := ours(t, oldKey), ours(t, newKey, oldKey), ours(t, newKey)
	oldRaw, _, err := before.Mint(token.Claims{Subject: "user-1"})
	require.NoError(t, err)
	newRaw, _, err := during.Mint(token.Claims{Subject: "user-1"})
	require.NoError(t, err)
	header, _ := decoded(t, newRaw)
	require.Equal(t, "2026-11", header["kid"])

	accepted(t, verifier(t, during.Trust()), oldRaw)
	accepted(t, verifier(t, during.Trust()), newRaw)
	refused(t, verifier(t, after.Trust()), oldRaw, authz.ReasonTokenInvalid, "alg")
	accepted(t, verifier(t, after.Trust()), newRaw)

	require.Len(t, must(token.ParseJWKS(during.PublicJWKS())), 2)
	require.Len(t, must(token.ParseJWKS(after.PublicJWKS())), 1)
	require.Len(t, during.KeySet(), 2)
}

func TestPublicJWKSHoldsNothingPrivate(t *testing.T) {
	i := ours(t, signingKey(t, rsaKey(), "r"), signingKey(t, p521Key(), "e"), signingKey(t, edKey(), "o"))
	var set struct{ Keys []map[string]any }
	require.NoError(t, json.Unmarshal(i.PublicJWKS(), &set))
	require.Len(t, set.Keys, 3)
	for n, members := range [][]string{{"n", "e"}, {"crv", "x", "y"}, {"crv", "x"}} {
		var names []string
		for name := range set.Keys[n] {
			names = append(names, name)
		}
		require.ElementsMatch(t, append(members, "kty", "kid", "alg", "use"), names)
		require.Equal(t, "sig", set.Keys[n]["use"])
	}
	i.PublicJWKS()[0] = 'x' // a copy
	require.Equal(t, byte('{'), i.PublicJWKS()[0])
}

// A key that signs RS256 does not accept PS256 of itself: nobody asked for it.
func TestTrustIsPinned(t *testing.T) {
	i := ours(t, signingKey(t, rsaKey(), "r1"))
	trust := i.Trust()
	require.Equal(t, []string{"RS256"}, trust.Algorithms)
	require.True(t, trust.OwnTokens)
	trust.Algorithms = append(trust.Algorithms, "PS256")
	ps := compact(rsaKey(), "PS256", goodHeader.with(object{"alg": `"PS256"`}), goodClaims.with(object{"iss": `"` + gateway + `"`}))
	refused(t, verifier(t, trust), ps, authz.ReasonTokenInvalid, "no key for kid")
}

func TestParseSigningKey(t *testing.T) {
	encrypted := "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
	ec := p384Key().(*ecdsa.PrivateKey)
	for name, test := range map[string]struct {
		data    []byte
		alg     string // "": refused
		message string
	}{
		"PKCS #1":                 {pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey().(*rsa.PrivateKey))), "RS256", ""},
		"SEC 1":                   {pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ec))), "ES384", ""},
		"SEC 1 behind parameters": {append(pemOf("EC PARAMETERS", []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22}), pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ec)))...), "ES384", ""},
		"PKCS #8":                 {pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(edKey()))), "EdDSA", ""},

		"RSA of 1024 bits":   {pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(weakRSAKey()))), "", "1024 bits"},
		"P-224":              {pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))))), "", "unsupported curve"},
		"X25519":             {pemOf("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(must(ecdh.X25519().GenerateKey(rand.Reader))))), "", "can't sign"},
		"public":             {publicPEM(rsaKey()), "", `"PUBLIC KEY"`},
		"encrypted":          {pemOf("ENCRYPTED PRIVATE KEY", []byte("x")), "", "unencrypted"},
		"encrypted, old way": {[]byte(encrypted), "", "must not be encrypted"},
		"two keys":           {append(must(token.GenerateKey("EdDSA")), must(token.GenerateKey("EdDSA"))...), "", "several PEM blocks"},
		"garbage":            {[]byte("garbage"), "", "no PEM block"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := token.ParseSigningKey(test.data, "")
			if test.alg == "" {
				require.Nil(t, k)
				require.ErrorContains(t, err, test.message)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.alg, k.Algorithm())
		})
	}
	_, err := token.LoadSigningKey(filepath.Join(t.TempDir(), "missing"), "")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// RFC 8037 appendix A.3: the thumbprint of the key in A.1.
func TestKidIsTheThumbprint(t *testing.T) {
	seed := must(base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
	k := signingKey(t, ed25519.NewKeyFromSeed(seed), "")
	require.Equal(t, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", k.ID())
	for _, printed := range []string{fmt.Sprint(k), fmt.Sprintf("%+v %#v %s", k, k, k)} {
		require.Contains(t, printed, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k (EdDSA)")
		require.NotContains(t, printed, "157 97") // the first bytes of the seed
	}
}

func TestGenerateKeyRefuses(t *testing.T) {
	for _, alg := range []string{"", "none", "HS256", "PS256", "RS512", "rs256"} {
		data, err := token.GenerateKey(alg)
		require.Nil(t, data)
		require.ErrorContains(t, err, "choose RS256")
	}
}

func TestNewIssuerRefuses(t *testing.T) {
	k := signingKey(t, edKey(), "k1")
	for name, test := range map[string]struct {
		o       token.MintOptions
		message string
	}{
		"no name":         {token.MintOptions{Audiences: []string{"api"}, Keys: []*token.SigningKey{k}}, "has no name"},
		"no audience":     {token.MintOptions{Issuer: gateway, Keys: []*token.SigningKey{k}}, "audience"},
		"empty audience":  {token.MintOptions{Issuer: gateway, Audiences: []string{""}, Keys: []*token.SigningKey{k}}, "audience"},
		"no keys":         {token.MintOptions{Issuer: gateway, Audiences: []string{"api"}}, "keys new"},
		"a kid twice":     {token.MintOptions{Issuer: gateway, Audiences: []string{"api"}, Keys: []*token.SigningKey{k, signingKey(t, rsaKey(), "k1")}}, `kid "k1"`},
		"no life at all":  {token.MintOptions{Issuer: gateway, Audiences: []string{"api"}, Keys: []*token.SigningKey{k}, TTL: time.Millisecond}, "at least a second"},
		"a negative life": {token.MintOptions{Issuer: gateway, Audiences: []string{"api"}, Keys: []*token.SigningKey{k}, TTL: -time.Minute}, "at least a second"},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := token.NewIssuer(test.o)
			require.Nil(t, i)
			require.ErrorContains(t, err, test.message)
		})
	}
}
