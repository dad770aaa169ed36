package usercontext_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// answers is a gate that publishes a text for its keys.
type answers string

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(a))), Request: r}, nil
}

func verifierOf(tb testing.TB, jwks string) *usercontext.Verifier {
	tb.Helper()
	v, err := usercontext.NewVerifier(usercontext.VerifierOptions{
		Issuer: gateIssuer, Audience: "orders", JWKSURL: "http://127.0.0.1/jwks.json",
		Client: &http.Client{Transport: answers(jwks)}, Now: func() time.Time { return time.Unix(signedAt, 0) },
	})
	require.NoError(tb, err)
	return v
}

// members are those of a JSON object, by their exact names; nil for what is none.
func members(text string) map[string]any {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var all map[string]any
	if d.Decode(&all) != nil || d.More() {
		return nil
	}
	return all
}

// FuzzVerifierVerify states that whatever the gate's key has signed is taken only for what
// it says by the exact names of its members, and only with a header of three members; and
// that nothing is taken once a byte of it is another.
func FuzzVerifierVerify(f *testing.F) {
	g := newGate(f, "one")
	for _, claims := range []string{
		signedClaims(nil), signedClaims(map[string]string{"aud": `["orders"]`}), signedClaims(map[string]string{"sub": `""`}), signedClaims(map[string]string{"exp": "1e10"}),
		strings.Replace(signedClaims(nil), `"aud"`, `"AUD"`, 1), strings.Replace(signedClaims(nil), `{`, `{"sub":"root",`, 1), signedClaims(nil) + `{}`, `null`, `[]`, ``,
	} {
		f.Add(g.header(), claims, uint16(7))
	}
	for _, header := range []string{
		`{"alg":"none","kid":"one","typ":"gatehouse-identity+jwt"}`, `{"alg":"ES256","kid":"one","typ":"JWT"}`, `{"alg":"ES256","kid":"two","typ":"gatehouse-identity+jwt"}`,
		`{"alg":"ES256","kid":"one","typ":"gatehouse-identity+jwt","crit":["x"]}`, `{"Alg":"ES256","kid":"one","typ":"gatehouse-identity+jwt"}`,
		`{"alg":"ES256","kid":"one","typ":"gatehouse-identity+jwt","alg":"ES256"}`,
	} {
		f.Add(header, signedClaims(nil), uint16(80))
	}
	v := verifierOf(f, g.jwks(f))
	f.Fuzz(func(t *testing.T, header, claims string, at uint16) {
		signed := g.signText(t, header, claims)
		a, err := v.Verify(t.Context(), signed)
		if err != nil {
			require.ErrorIs(t, err, usercontext.ErrUnverified)
			require.Equal(t, usercontext.Assertion{}, a)
			return
		}
		require.True(t, utf8.ValidString(claims))
		require.Equal(t, map[string]any{"alg": "ES256", "kid": "one", "typ": "gatehouse-identity+jwt"}, members(header))
		c := members(claims)
		require.Equal(t, []any{gateIssuer, "orders", a.User.ID}, []any{c["iss"], c["aud"], c["sub"]})
		require.NotEmpty(t, a.User.ID)
		for name, got := range map[string]string{"email": a.User.Email, "org": a.User.OrganizationID, "sid": a.SessionID} {
			want, _ := c[name].(string)
			require.Equal(t, want, got, name)
		}
		roles, ok := c["roles"].([]any)
		require.True(t, ok)
		require.Len(t, a.User.Roles, len(roles))
		require.True(t, a.Expires.After(time.Unix(signedAt, 0).Add(-usercontext.DefaultLeeway)))

		other := []byte(signed)
		i := int(at) % len(other)
		other[i] ^= 1
		_, err = v.Verify(t.Context(), string(other))
		require.ErrorIs(t, err, usercontext.ErrUnverified, "byte %d", i)
	})
}

// FuzzVerifierKeys states that of whatever the gate's address answers only a key for ES256
// verifies: the very one that signed, by its kid.
func FuzzVerifierKeys(f *testing.F) {
	g, other := newGate(f, "one"), newGate(f, "one")
	// The key is another one in each run: what stands for it in the corpus is exchanged.
	published := g.jwks(f)
	whole := func(text string) string { return strings.ReplaceAll(text, "JWKS", published) }
	for _, seed := range []string{
		"JWKS", other.jwks(f), `{"keys":[]}`, `{"keys":null}`, `null`, ``, `<html>`, `{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"one","x":"","y":""}]}`,
		`{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"one","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`,
		"JWKS JWKS", `{"keys":[{"kty":"oct","alg":"HS256","use":"sig","kid":"one","k":"AAAA"}]}`,
	} {
		f.Add(seed)
	}
	signed := g.at(f, signedAt)
	f.Fuzz(func(t *testing.T, text string) {
		jwks := whole(text)
		_, err := verifierOf(t, jwks).Verify(t.Context(), signed)
		if err != nil {
			require.True(t, bytes.Contains([]byte(err.Error()), []byte("key")) || strings.Contains(err.Error(), "JWK") || strings.Contains(err.Error(), "signature"), err)
			return
		}
		public, err := g.key.PublicKey.Bytes()
		require.NoError(t, err)
		require.Contains(t, jwks, b64(public[1:33]))
		require.Contains(t, jwks, b64(public[33:]))
	})
}
