package token_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/token"
)

// An examination says what Verify says, and which step it was.
func TestExamineSaysWhichStepFails(t *testing.T) {
	v := verifier(t, everything(t)...)
	good := rs256(nil, nil)
	for name, test := range map[string]struct {
		raw       string
		step      string
		authentic bool
	}{
		"good":             {good, "", true},
		"expired":          {rs256(nil, object{"exp": at(-time.Hour)}), "expired", true},
		"audience":         {rs256(nil, object{"aud": `"nobody"`}), "content", true},
		"not yet":          {rs256(nil, object{"nbf": at(time.Hour)}), "content", true},
		"another key":      {compact(otherRSAKey(), "RS256", goodHeader.with(nil), goodClaims.with(nil)), "signature", false},
		"unknown kid":      {rs256(object{"kid": `"nobody"`}, nil), "signature", false},
		"algorithm":        {rs256(object{"alg": `"HS256"`}, nil), "signature", false},
		"unknown issuer":   {rs256(nil, object{"iss": `"https://nobody.example.com"`}), "issuer", false},
		"forbidden header": {rs256(object{"jku": `"x"`}, nil), "form", false},
		"twice":            {compact(rsaKey(), "RS256", goodHeader.with(nil), `{"sub":"a","sub":"b"}`), "form", false},
		"no JWT":           {"hello", "form", false},
		"too long":         {string(make([]byte, token.MaxLength+1)), "form", false},
	} {
		t.Run(name, func(t *testing.T) {
			e := v.Examine(t.Context(), test.raw)
			for step, err := range map[string]error{"form": e.Form, "issuer": e.Issuer, "signature": e.Signature, "content": e.Content, "expired": e.Expired} {
				require.Equal(t, step == test.step, err != nil, "%s: %v", step, err)
			}
			require.Equal(t, test.authentic, e.Authentic())
			_, err := v.Verify(t.Context(), test.raw)
			require.Equal(t, err, e.Err())
			require.Equal(t, test.step == "" || test.step == "expired", e.Token != nil)
		})
	}
}

func TestExamineShowsWhatIsInTheToken(t *testing.T) {
	v := verifier(t, everything(t)...)
	e := v.Examine(t.Context(), rs256(nil, object{"exp": at(-time.Hour)}))
	require.Equal(t, "at+jwt", e.Header["typ"])
	require.Equal(t, "user-1", e.Claims["sub"])
	require.Equal(t, "user-1", e.Token.ID)
	e = v.Examine(t.Context(), compact(rsaKey(), "RS256", `{"alg":"none"}`, `{"sub":"a","sub":"b"}`))
	require.Equal(t, map[string]any{"alg": "none"}, e.Header)
	require.Equal(t, map[string]any{"sub": "b"}, e.Claims, "also what no verifier would take")
	e = v.Examine(t.Context(), "a.b.c")
	require.Nil(t, e.Header)
	require.Nil(t, e.Claims)
}

// What was remembered as good is looked at again.
func TestExamineTakesNothingFromMemory(t *testing.T) {
	keys := &switching{}
	keys.set(key(t, rsaKey(), "r1", ""))
	v, err := token.NewVerifier([]token.IssuerOptions{{Issuer: idp, Audiences: []string{"api"}, Keys: keys}}, token.VerifierOptions{Now: clock, CacheEntries: 10})
	require.NoError(t, err)
	raw := rs256(nil, nil)
	accepted(t, v, raw)
	asked := keys.asked
	e := v.Examine(t.Context(), raw)
	require.NoError(t, e.Err())
	require.Greater(t, keys.asked, asked)
}

type switching struct {
	keys  []*token.Key
	asked int
}

func (s *switching) set(keys ...*token.Key) { s.keys = keys }

func (s *switching) Keys(context.Context, string, string) ([]*token.Key, error) {
	s.asked++
	return s.keys, nil
}

func TestMintWithFurtherClaims(t *testing.T) {
	i := ours(t, signingKey(t, rsaKey(), "k"))
	v := verifier(t, i.Trust())
	raw, _, err := i.Mint(token.Claims{Subject: "u", Further: map[string]any{"scope": "orders:read", "level": json.RawMessage(`3`), "a.b": []string{"x"}}})
	require.NoError(t, err)
	found := accepted(t, v, raw)
	require.Equal(t, "orders:read", found.Claims["scope"])
	require.Equal(t, json.Number("3"), found.Claims["level"])
	require.Equal(t, []any{"x"}, found.Claims["a.b"])
	require.Equal(t, "u", found.ID)

	for _, name := range []string{"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "sid", "auth_time", ""} {
		_, _, err = i.Mint(token.Claims{Subject: "u", Further: map[string]any{name: "x"}})
		require.ErrorContains(t, err, "is not free", name)
		require.Error(t, token.FreeClaim(name))
	}
	for name, value := range map[string]any{
		"twice": json.RawMessage(`{"a":1,"a":2}`), "half a surrogate pair": json.RawMessage(`"\ud800"`), "not JSON": json.RawMessage(`{`), "no JSON form": make(chan int),
	} {
		_, _, err = i.Mint(token.Claims{Subject: "u", Further: map[string]any{"x": value}})
		require.Error(t, err, name)
	}
	require.NoError(t, token.FreeClaim("scope"))
}
