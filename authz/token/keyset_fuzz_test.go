package token_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/token"
)

// FuzzParseJWKS states that what is taken out of a key set is good: public, of a
// kind and a size that may be trusted, for the algorithms of its kind and no HMAC;
// that go-jose, which reads sets in its own way, finds the same public key in it;
// and that nothing is taken from a set without one that fits.
func FuzzParseJWKS(f *testing.F) {
	// RSA is in the corpus: a worker of the fuzzer would make its own keys, slowly.
	f.Add([]byte(jwks(jwk(p256Key(), kid("b")), jwk(p384Key(), nil), jwk(p521Key(), nil), jwk(edKey(), kid("")))))
	f.Add([]byte(jwks(jwk(p224Key(), nil), jwk(p256Key(), object{"d": `"AQ"`}))))
	for _, text := range []string{
		`{"keys":[]}`, `{"keys":{}}`, `{}`, `[]`, `{"keys":[null,1,{}]}`, `{"keys":[{"kty":"oct","k":"AQ"}]}`, `{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"}]}`,
		`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`, `{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`,
		`{"keys":[],"keys":[]}`, `{"keys":[{"kty":"RSA","kid":7}]}`, `{"keys":[{"kty":"RSA","key_ops":["sign"]}]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := token.ParseJWKS(data)
		if err != nil {
			require.Empty(t, keys)
			require.NotContains(t, err.Error(), "\n", "it goes to a log")
			require.Less(t, len(err.Error()), 400)
			return
		}
		require.NotEmpty(t, keys)
		var set struct{ Keys []json.RawMessage }
		require.NoError(t, json.Unmarshal(data, &set))
		require.LessOrEqual(t, len(keys), len(set.Keys))
		for _, k := range keys {
			fitting := 0
			for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"} {
				found, err := token.StaticKeys{k}.Keys(t.Context(), k.ID(), alg)
				require.NoError(t, err)
				fitting += len(found)
			}
			require.Positive(t, fitting, "a key for nothing")
			for _, alg := range []string{"HS256", "HS384", "HS512", "none", ""} {
				found, _ := token.StaticKeys{k}.Keys(t.Context(), k.ID(), alg)
				require.Empty(t, found)
			}
			public := token.PublicOf(k)
			switch key := public.(type) {
			case *rsa.PublicKey:
				require.GreaterOrEqual(t, key.N.BitLen(), 2048)
				require.LessOrEqual(t, key.N.BitLen(), 8192)
				require.Equal(t, 1, key.E&1)
			case *ecdsa.PublicKey:
				_, err := key.ECDH()
				require.NoError(t, err, "not on its curve")
			case ed25519.PublicKey:
				require.Len(t, key, ed25519.PublicKeySize)
			default:
				require.Failf(t, "another kind of key", "%T", public)
			}
			agree := false
			for _, raw := range set.Keys {
				var theirs jose.JSONWebKey
				if theirs.UnmarshalJSON(raw) == nil && theirs.IsPublic() {
					agree = agree || public.(interface{ Equal(crypto.PublicKey) bool }).Equal(theirs.Key)
				}
			}
			// go-jose refuses a whole key for a certificate or a name beside it.
			if !agree && !bytes.Contains(data, []byte("x5")) && !bytes.Contains(data, []byte(`\u`)) {
				require.Fail(t, "go-jose finds no such key")
			}
		}
	})
}

// FuzzParsePEM states that of a file no key is taken but the one that it holds, and
// never a private one.
func FuzzParsePEM(f *testing.F) {
	for _, key := range []crypto.Signer{p256Key(), edKey(), p224Key()} {
		f.Add(publicPEM(key))
	}
	for _, text := range []string{"", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := token.ParsePEM(data, "")
		if err != nil {
			require.Nil(t, key)
			return
		}
		der, err := x509.MarshalPKIXPublicKey(token.PublicOf(key))
		require.NoError(t, err)
		again, err := token.ParsePEM(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "")
		require.NoError(t, err)
		require.Equal(t, token.PublicOf(key), token.PublicOf(again))
		require.NotContains(t, string(data), "-----BEGIN PRIVATE KEY-----\n", "beside a private one")
	})
}

// FuzzDiscover states that a discovery document sends us nowhere but where an
// issuer may: only the very issuer's own document counts, and over TLS if the
// issuer is; and that whatever Cache-Control says, keys are fresh for a minute to
// a day.
func FuzzDiscover(f *testing.F) {
	f.Add(`{"issuer":"https://idp.example.com","jwks_uri":"https://keys.example.com/jwks"}`, "max-age=600", true)
	f.Add(`{"issuer":"https://idp.example.com/","jwks_uri":"https://keys.example.com/jwks"}`, "max-age=0", true)
	f.Add(`{"issuer":"https://idp.example.com","jwks_uri":"http://keys.example.com/jwks"}`, `public, MAX-AGE="99999999999"`, true)
	f.Add(`{"issuer":"http://idp.example.com","jwks_uri":"file:///etc/passwd"}`, "no-store", false)
	f.Add(`{"issuer":"http://idp.example.com","jwks_uri":"http://u:p@169.254.169.254/"}`, "max-age=-1", false)
	f.Add(`{"issuer":"http://idp.example.com","issuer":"x","jwks_uri":"//x"}`, ",,=,max-age", false)
	set := jwks(jwk(p256Key(), kid("k")))
	f.Fuzz(func(t *testing.T, document, cacheControl string, tls bool) {
		issuer := "http://idp.example.com"
		if tls {
			issuer = "https://idp.example.com"
		}
		var asked []string
		client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			body := set
			if len(asked) == 0 {
				body = document
			}
			asked = append(asked, r.URL.String())
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{"Cache-Control": {cacheControl}}, Body: io.NopCloser(strings.NewReader(body)), Request: r,
			}, nil
		})}
		c := newClock()
		remote, err := token.Discover(issuer, token.RemoteOptions{Client: client, Now: c.Now})
		require.NoError(t, err)
		keys, err := remote.Keys(t.Context(), "k", "ES256")
		require.Equal(t, issuer+"/.well-known/openid-configuration", asked[0])
		if err != nil {
			require.Less(t, len(err.Error()), 600)
			require.Empty(t, keys)
		}
		if len(asked) == 1 {
			require.Error(t, err)
			return
		}
		require.Len(t, asked, 2)
		require.True(t, strings.HasPrefix(asked[1], "https://") || !tls && strings.HasPrefix(asked[1], "http://"), "sent to %q", asked[1])
		var says struct{ Issuer string }
		require.NoError(t, json.Unmarshal([]byte(document), &says))
		require.Equal(t, issuer, says.Issuer)
		require.NoError(t, err)
		require.Len(t, keys, 1)

		c.Advance(time.Minute - time.Second)
		_, _ = remote.Keys(t.Context(), "k", "ES256")
		require.Len(t, asked, 2, "keys are fresh for a minute")
	})
}

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
