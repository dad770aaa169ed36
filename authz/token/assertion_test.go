package token_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/token"
)

// assertions are what signs, on a clock that the test moves.
func assertions(tb testing.TB, at *time.Time, o token.AssertionOptions) *token.Assertions {
	tb.Helper()
	o.Issuer = "https://gateway.example.com"
	if o.Keys == nil {
		o.Keys = []*token.SigningKey{signingKey(tb, p256Key(), "a-1")}
	}
	o.Now = func() time.Time { return *at }
	a, err := token.NewAssertions(o)
	require.NoError(tb, err)
	return a
}

func assertFor(tb testing.TB, a *token.Assertions, p authz.Principal) string {
	tb.Helper()
	raw, err := a.Assert(&p, "orders")
	require.NoError(tb, err)
	return raw
}

func alice() authz.Principal {
	return authz.Principal{
		Identity:  authz.Identity{ID: "alice", Email: "alice@example.com", Roles: []string{"admin", "member"}, Organization: "org-1"},
		Kind:      authz.KindSession,
		SessionID: "the-session-of-alice",
	}
}

// ofToken is a principal with a token of ours.
func ofToken(jti, family string, issued int64) authz.Principal {
	p := alice()
	p.Kind, p.SessionID = authz.KindBearer, ""
	p.Claims = map[string]any{"jti": jti, "sid": family, "iat": json.Number(fmt.Sprint(issued))}
	return p
}

func TestAssertionSaysWhoCalls(t *testing.T) {
	t.Parallel()
	at := now
	a := assertions(t, &at, token.AssertionOptions{})
	raw := assertFor(t, a, alice())
	header, claims := decoded(t, raw)
	require.Equal(t, map[string]any{"alg": "ES256", "kid": "a-1", "typ": "gatehouse-identity+jwt"}, header)
	require.Equal(t, map[string]any{
		"iss": "https://gateway.example.com", "aud": "orders", "sub": "alice", "email": "alice@example.com",
		"roles": []any{"admin", "member"}, "org": "org-1", "sid": authz.Handle("the-session-of-alice"),
		"iat": float64(now.Unix()), "exp": float64(now.Unix() + 60),
	}, claims)
	require.NotContains(t, raw, "the-session-of-alice")

	// What there isn't is not said, but roles, as in the headers.
	_, claims = decoded(t, assertFor(t, a, authz.Principal{Identity: authz.Identity{ID: "service:billing"}, Kind: authz.KindAPIKey}))
	require.Equal(t, map[string]any{
		"iss": "https://gateway.example.com", "aud": "orders", "sub": "service:billing", "roles": []any{},
		"iat": float64(now.Unix()), "exp": float64(now.Unix() + 60),
	}, claims)

	// The login of a token is its refresh family.
	_, claims = decoded(t, assertFor(t, a, ofToken("j", "the-family", 1)))
	require.Equal(t, authz.Handle("the-family"), claims["sid"])
}

// What is no UTF-8 becomes what the identity headers say.
func TestAssertionSaysWhatTheHeadersSay(t *testing.T) {
	t.Parallel()
	at := now
	p := authz.Principal{Identity: authz.Identity{ID: "a\xff\xfeb", Email: "\xc3", Roles: []string{"\xff\xfe", "<ü>"}, Organization: "o\n"}, Kind: authz.KindAPIKey}
	_, claims := decoded(t, assertFor(t, assertions(t, &at, token.AssertionOptions{}), p))
	require.Equal(t, "a\ufffdb", claims["sub"])
	require.Equal(t, "\ufffd", claims["email"])
	require.Equal(t, []any{"\ufffd\ufffd", "<ü>"}, claims["roles"])
	require.Equal(t, "o\n", claims["org"])
}

// One assertion does for half its life, and for as long as all that it says, and the
// credential, stay the same.
func TestAssertionIsUsedAgain(t *testing.T) {
	t.Parallel()
	at := now
	a := assertions(t, &at, token.AssertionOptions{})
	first := assertFor(t, a, alice())
	for name, change := range map[string]func(*authz.Principal){
		"id":            func(p *authz.Principal) { p.ID = "bob" },
		"email":         func(p *authz.Principal) { p.Email = "" },
		"roles":         func(p *authz.Principal) { p.Roles = []string{"admin"} },
		"roles, joined": func(p *authz.Principal) { p.Roles = []string{"adminmember"} },
		"organization":  func(p *authz.Principal) { p.Organization = "org-2" },
		"session":       func(p *authz.Principal) { p.SessionID = "another" },
		"parts that move": func(p *authz.Principal) {
			p.ID, p.Email = p.ID+"alice@", "example.com"
		},
	} {
		p := alice()
		change(&p)
		require.NotEqual(t, first, assertFor(t, a, p), name)
	}
	raw, err := a.Assert(new(alice()), "billing")
	require.NoError(t, err)
	require.NotEqual(t, first, raw, "another service")

	at = now.Add(30*time.Second - time.Nanosecond)
	require.Equal(t, first, assertFor(t, a, alice()))
	at = now.Add(30 * time.Second)
	second := assertFor(t, a, alice())
	require.NotEqual(t, first, second)
	_, claims := decoded(t, second)
	require.EqualValues(t, now.Unix()+90, claims["exp"])

	at = now.Add(-time.Second) // the clock was set back
	_, claims = decoded(t, assertFor(t, a, alice()))
	require.EqualValues(t, now.Unix()-1, claims["iat"])
}

// Whoever logs in again after all was revoked has an assertion that is newer than that.
func TestAnotherTokenHasAnotherAssertion(t *testing.T) {
	t.Parallel()
	at := now
	a := assertions(t, &at, token.AssertionOptions{})
	first := assertFor(t, a, ofToken("j-1", "f", 1))
	require.Equal(t, first, assertFor(t, a, ofToken("j-1", "f", 1)))
	require.NotEqual(t, first, assertFor(t, a, ofToken("j-2", "f", 1)))
	require.NotEqual(t, first, assertFor(t, a, ofToken("j-1", "g", 1)))
	require.NotEqual(t, first, assertFor(t, a, ofToken("j-1", "f", 2)))
}

// The texts of a principal are overwritten by the next request.
func TestAssertionKeepsNothingOfThePrincipal(t *testing.T) {
	t.Parallel()
	at := now
	a := assertions(t, &at, token.AssertionOptions{})
	roles := []string{"admin", "member"}
	p := alice()
	p.Roles = roles
	first := assertFor(t, a, p)
	roles[0] = "nobody"
	require.Equal(t, first, assertFor(t, a, alice()))
	require.NotEqual(t, first, assertFor(t, a, p))
}

func TestAssertionsAreBounded(t *testing.T) {
	t.Parallel()
	at := now
	a := assertions(t, &at, token.AssertionOptions{Entries: 64})
	kept := func() (n int) {
		for i := range 1000 {
			p := alice()
			p.ID = fmt.Sprint(i)
			before := a.Kept()
			assertFor(t, a, p)
			require.LessOrEqual(t, a.Kept(), max(before+1, 64))
		}
		return a.Kept()
	}
	require.LessOrEqual(t, kept(), 64)
	at = at.Add(time.Hour)
	require.LessOrEqual(t, kept(), 64)

	none := assertions(t, &at, token.AssertionOptions{Entries: -1})
	assertFor(t, none, alice())
	require.Zero(t, none.Kept())
}

// However many roles people have, what is remembered takes no more than it is said to.
func TestAssertionsOfManyRolesAreBounded(t *testing.T) {
	t.Parallel()
	at := now
	for _, many := range []int{1, 40, 1000} {
		a := assertions(t, &at, token.AssertionOptions{Entries: 32 * 16})
		roles := make([]string, many)
		for i := range roles {
			roles[i] = fmt.Sprint("the role with the number ", i)
		}
		for i := range 150 {
			p := alice()
			p.ID, p.Roles = fmt.Sprint(i), roles
			raw := assertFor(t, a, p)
			kept, size := a.Kept(), a.Size()
			require.LessOrEqual(t, size, 32*16*1536)
			require.GreaterOrEqual(t, size, kept*len(raw))
			require.Equal(t, many <= 40, kept > 0, "worth it")
		}
		at = at.Add(time.Hour)
		for i := range 150 { // in the place of those
			p := alice()
			p.ID, p.Roles = fmt.Sprint(i), roles[:1]
			assertFor(t, a, p)
			first := assertFor(t, a, p)
			require.Equal(t, first, assertFor(t, a, p))
		}
	}
}

// Many at once get each what is theirs.
func TestAssertingConcurrently(t *testing.T) {
	t.Parallel()
	at := now
	a := assertions(t, &at, token.AssertionOptions{Entries: 64})
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 100 {
				p := alice()
				p.ID = fmt.Sprint(i * g % 40)
				raw, err := a.Assert(&p, "orders")
				_, claims := decoded(t, raw)
				assert.Equal(t, []any{nil, p.ID}, []any{err, claims["sub"]})
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, a.Kept(), 64)
}

func TestAssertingFromMemoryMakesNoGarbage(t *testing.T) {
	a, err := token.NewAssertions(token.AssertionOptions{Issuer: "i", Keys: []*token.SigningKey{signingKey(t, p256Key(), "")}, TTL: 5 * time.Minute})
	require.NoError(t, err)
	session, bearer := alice(), ofToken("j", "f", 1)
	for _, p := range []*authz.Principal{&session, &bearer} {
		require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = a.Assert(p, "orders") }))
	}
}

// An assertion that a service lets out opens nothing at the gate, even where somebody
// made its key one of the issuer's: its type is none of an access token.
func TestAssertionIsNoAccessToken(t *testing.T) {
	t.Parallel()
	at := now
	k := signingKey(t, p256Key(), "a-1")
	a := assertions(t, &at, token.AssertionOptions{Keys: []*token.SigningKey{k}})
	raw, err := a.Assert(new(alice()), "api")
	require.NoError(t, err)
	// The very key is trusted here, the issuer is the same, and the audience fits.
	own := ours(t, k)
	v := verifier(t, own.Trust())
	refused(t, v, raw, authz.ReasonTokenInvalid, "typ")
	minted, _, err := own.Mint(token.Claims{Subject: "alice"})
	require.NoError(t, err)
	accepted(t, v, minted)
}

func TestJWKSOfBoth(t *testing.T) {
	t.Parallel()
	at := now
	own := ours(t, signingKey(t, rsaKey(), "t-1"))
	a := assertions(t, &at, token.AssertionOptions{Keys: []*token.SigningKey{signingKey(t, p256Key(), "a-1"), signingKey(t, otherP256(), "a-0")}})
	kids := func(own *token.Issuer, a *token.Assertions) (ids []string) {
		data, err := token.JWKS(own, a)
		require.NoError(t, err)
		var set struct {
			Keys []map[string]string `json:"keys"`
		}
		require.NoError(t, json.Unmarshal(data, &set))
		require.NotNil(t, set.Keys)
		for _, k := range set.Keys {
			require.Equal(t, "sig", k["use"])
			require.NotContains(t, k, "d")
			ids = append(ids, k["kid"]+" "+k["alg"])
		}
		return ids
	}
	require.Equal(t, []string{"t-1 RS256", "a-1 ES256", "a-0 ES256"}, kids(own, a))
	require.Equal(t, []string{"a-1 ES256", "a-0 ES256"}, kids(nil, a))
	require.Equal(t, []string{"t-1 RS256"}, kids(own, nil))
	require.Empty(t, kids(nil, nil))

	for _, shared := range []*token.SigningKey{signingKey(t, p256Key(), "t-2"), signingKey(t, otherP256(), "a-1")} {
		_, err := token.JWKS(ours(t, shared), a)
		require.ErrorContains(t, err, "signs access tokens, too")
	}
}

func TestNewAssertionsRefuses(t *testing.T) {
	t.Parallel()
	good := []*token.SigningKey{signingKey(t, p256Key(), "a")}
	for want, o := range map[string]token.AssertionOptions{
		"no name":               {Keys: good},
		"keys new":              {Issuer: "i"},
		"use 10s to 5m0s":       {Issuer: "i", Keys: good, TTL: 9 * time.Second},
		"live 5m1s":             {Issuer: "i", Keys: good, TTL: 5*time.Minute + time.Second},
		"which are ES256":       {Issuer: "i", Keys: []*token.SigningKey{good[0], signingKey(t, rsaKey(), "r")}},
		`two signing keys have`: {Issuer: "i", Keys: []*token.SigningKey{good[0], signingKey(t, otherP256(), "a")}},
		"(ES384) can't sign":    {Issuer: "i", Keys: []*token.SigningKey{signingKey(t, p384Key(), "e")}},
	} {
		_, err := token.NewAssertions(o)
		require.ErrorContains(t, err, want)
		require.NotContains(t, strings.ToLower(err.Error()), "private key")
	}
}

func BenchmarkAssert(b *testing.B) {
	a, err := token.NewAssertions(token.AssertionOptions{Issuer: "https://gateway.example.com", Keys: []*token.SigningKey{signingKey(b, p256Key(), "")}})
	require.NoError(b, err)
	p := alice()
	b.Run("remembered", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = a.Assert(&p, "orders")
		}
	})
	none, err := token.NewAssertions(token.AssertionOptions{Issuer: "https://gateway.example.com", Keys: []*token.SigningKey{signingKey(b, p256Key(), "")}, Entries: -1})
	require.NoError(b, err)
	b.Run("signed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = none.Assert(&p, "orders")
		}
	})
}
