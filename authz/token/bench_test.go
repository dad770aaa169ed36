package token_test

import (
	"context"
	"crypto"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/token"
)

func BenchmarkVerify(b *testing.B) {
	for _, test := range []struct {
		alg     string
		private func() crypto.Signer
		cache   int
	}{{"RS256", rsaKey, 0}, {"ES256", p256Key, 0}, {"EdDSA", edKey, 0}, {"cached", rsaKey, 1}} {
		b.Run(test.alg, func(b *testing.B) {
			alg := test.alg
			if alg == "cached" {
				alg = "RS256"
			}
			v, err := token.NewVerifier([]token.IssuerOptions{{
				Issuer: idp, Keys: token.StaticKeys{key(b, test.private(), "k", "")}, Algorithms: []string{alg}, Audiences: []string{"api"},
			}}, token.VerifierOptions{Now: clock, CacheEntries: test.cache})
			require.NoError(b, err)
			raw := compact(test.private(), alg, goodHeader.with(object{"alg": `"` + alg + `"`, "kid": `"k"`}), goodClaims.with(object{
				"email": `"a@example.com"`, "realm_access": `{"roles":["user","admin"]}`, "org_id": `"org-1"`, "scope": `"openid profile"`,
			}))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(context.Background(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRefuse is what a forged token costs before any cryptography.
func BenchmarkRefuse(b *testing.B) {
	v := verifier(b, everything(b)...)
	raw := rs256(object{"alg": `"none"`}, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(context.Background(), raw); err == nil {
			b.Fatal("accepted")
		}
	}
}

func BenchmarkMint(b *testing.B) {
	i := ours(b, signingKey(b, rsaKey(), ""))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := i.Mint(token.Claims{Subject: "user-1"}); err != nil {
			b.Fatal(err)
		}
	}
}
