package authapi_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/limit"
	"github.com/gatehouse-auth/gatehouse/authz/oidc"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/authz/users"
)

// The real parts fit the interfaces.
var (
	_ authapi.Store         = (*session.Store)(nil)
	_ authapi.Cookies       = (*session.Signer)(nil)
	_ authapi.AccessTokens  = (*token.Issuer)(nil)
	_ authapi.RefreshTokens = (*token.RefreshTokens)(nil)
	_ authapi.UserStore     = (*users.File)(nil)
	_ authapi.UserFinder    = (*users.File)(nil)
	_ authapi.Guesses       = (*limit.Guesses)(nil)
	_ authapi.Provider      = (*oidc.Provider)(nil)
)

// newRealBench returns an API over the real parts and the embedded store.
func newRealBench(t *testing.T) (*bench, redis.UniversalClient) {
	t.Helper()
	client, err := session.Open("embedded://", session.OpenOptions{Timeout: 5 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	signer, err := session.NewSigner([]string{"the session secret of this test"})
	require.NoError(t, err)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	signing, err := token.ParseSigningKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), "")
	require.NoError(t, err)
	issuer, err := token.NewIssuer(token.MintOptions{Issuer: "https://gateway.example.com", Audiences: []string{"api"}, Keys: []*token.SigningKey{signing}})
	require.NoError(t, err)
	verifier, err := token.NewVerifier([]token.IssuerOptions{issuer.Trust()}, token.VerifierOptions{CacheEntries: 100})
	require.NoError(t, err)
	var file strings.Builder
	file.WriteString("users:\n")
	for _, who := range []account{alice, bob, carol} {
		hash, err := users.Hash(who.password)
		require.NoError(t, err)
		file.WriteString("- {id: " + who.ID + ", email: " + who.Email + ", password_hash: \"" + hash + "\", roles: [" + strings.Join(who.Roles, ", ") + "], organizations: [" + strings.Join(who.Organizations, ", ") + "]}\n")
	}
	known, err := users.Parse("users.yaml", []byte(file.String()))
	require.NoError(t, err)
	b := newBench(t, func(o *authapi.Options) {
		o.Store = session.New(client, session.Options{Rolling: true, Profiles: true, Timeout: 5 * time.Second})
		o.Cookies, o.AccessTokens, o.RefreshTokens, o.Verifier, o.JWKS = signer, issuer, issuer.RefreshTokens(), verifier, issuer.PublicJWKS()
		o.UserStore, o.Guesses, o.Now = known, limit.NewGuesses(client, limit.GuessOptions{Account: 3, Timeout: 5 * time.Second}), nil
	})
	return b, client
}

func (b *bench) realLogIn(t *testing.T, who account, headers ...string) []string {
	t.Helper()
	a := b.post(t, "/auth/login", credentials(who), headers...)
	require.Equal(t, 200, a.status, a.body)
	return []string{"Cookie", "sessionId=" + a.cookie("sessionId")}
}

// The story of a user, told by the parts that production has.
func TestWithTheRealParts(t *testing.T) {
	t.Parallel()
	b, client := newRealBench(t)
	phone := b.realLogIn(t, bob, "User-Agent", "Phone")
	laptop := b.realLogIn(t, bob, "User-Agent", "Laptop")
	require.Equal(t, object{
		"userId": "bob", "email": "Bob@example.com", "roles": []any{"user"}, "organizationId": "org-1", "credential": "session", "organizations": []any{"org-1", "org-2"},
	}, b.get(t, "/auth/me", phone...).json(t))
	again := b.realLogIn(t, bob, phone...)
	require.False(t, b.works(t, phone))
	require.True(t, b.works(t, again))
	phone = again

	app := b.app(t, bob, "User-Agent", "App")
	require.Equal(t, "bearer", b.get(t, "/auth/me", bearer(app.access)...).json(t)["credential"])
	require.Len(t, b.get(t, "/auth/sessions", phone...).objects(t, "sessions"), 2)
	require.Equal(t, "App", b.get(t, "/auth/sessions", phone...).objects(t, "tokens")[0]["userAgent"])
	require.Equal(t, true, b.post(t, "/auth/introspect", object{"token": app.access}, key(keyOfBackend)...).json(t)["active"])
	require.Equal(t, true, b.post(t, "/auth/introspect", object{"token": app.refresh}, key(keyOfBackend)...).json(t)["active"])

	// Forty tabs.
	answers := make([]answer, 40)
	var tabs sync.WaitGroup
	for i := range answers {
		tabs.Go(func() { answers[i] = b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}) })
	}
	tabs.Wait()
	for _, a := range answers {
		require.Equal(t, 200, a.status, a.body)
		require.Equal(t, answers[0].json(t)["refreshToken"], a.json(t)["refreshToken"])
	}
	app = tokens{answers[0].json(t)["accessToken"].(string), answers[0].json(t)["refreshToken"].(string)}

	// Switch, for the session and for the tokens.
	require.Equal(t, 200, b.call(t, "PATCH", "/auth/session", object{"organizationId": "org-2"}, phone...).status)
	require.Equal(t, "org-2", b.get(t, "/auth/me", phone...).json(t)["organizationId"])
	require.Equal(t, "org-1", b.get(t, "/auth/me", laptop...).json(t)["organizationId"])
	require.Equal(t, 200, b.call(t, "PATCH", "/auth/session", object{"organizationId": "org-2"}, bearer(app.access)...).status)
	require.Equal(t, "org-2", b.get(t, "/auth/me", bearer(app.access)...).json(t)["organizationId"])
	requireAnswer(t, b.call(t, "PATCH", "/auth/session", object{"organizationId": "org-3"}, phone...), 403, forbidden)

	// An application made a session that Gatehouse never saw.
	require.NoError(t, client.Set(t.Context(), "sess:foreign", `{"cookie":{"originalMaxAge":86400000},"userId":"bob","roles":["user"]}`, time.Hour).Err())
	admin := b.realLogIn(t, alice)
	held := b.get(t, "/auth/users/bob/sessions", admin...)
	require.Len(t, held.objects(t, "sessions"), 3)
	require.NotContains(t, held.body, "foreign")
	requireAnswer(t, b.call(t, "PATCH", "/auth/users/bob/sessions", object{"roles": []string{"auditor"}, "organizationId": "org-9"}, admin...), 200, `{"changed":3}`)
	for _, headers := range [][]string{phone, laptop, bearer(app.access)} {
		me := b.get(t, "/auth/me", headers...).json(t)
		require.Equal(t, []any{"auditor"}, me["roles"])
		require.Equal(t, "org-9", me["organizationId"])
	}
	requireAnswer(t, b.call(t, "PATCH", "/auth/users/bob/sessions", object{"disabled": true}, admin...), 200, `{"changed":3}`)
	require.False(t, b.works(t, phone))
	require.False(t, b.works(t, bearer(app.access)))
	requireAnswer(t, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}), 401, invalidRefresh)
	requireAnswer(t, b.post(t, "/auth/login", credentials(bob)), 401, invalidCredentials)
	require.Equal(t, 200, b.call(t, "PATCH", "/auth/users/bob/sessions", object{"disabled": false}, admin...).status)
	require.True(t, b.works(t, phone))

	// End one, then all, and begin anew.
	handle := b.get(t, "/auth/sessions", phone...).objects(t, "tokens")[0]["handle"].(string)
	requireAnswer(t, b.call(t, "DELETE", "/auth/sessions/"+handle, nil, phone...), 200, sessionEnded)
	require.False(t, b.works(t, bearer(app.access)))
	requireAnswer(t, b.call(t, "DELETE", "/auth/sessions/"+handle, nil, phone...), 404, notFound)
	requireAnswer(t, b.post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}, admin...), 200, `{"message":"Revoked 3 sessions"}`)
	require.False(t, b.works(t, phone))
	require.False(t, b.works(t, laptop))
	phone = b.realLogIn(t, bob)
	app = b.app(t, bob)
	require.True(t, b.works(t, phone))
	require.True(t, b.works(t, bearer(app.access)))
	a := b.post(t, "/auth/refresh", object{"refreshToken": app.refresh})
	require.Equal(t, 200, a.status, a.body)
	requireAnswer(t, b.post(t, "/auth/logout", object{"refreshToken": a.json(t)["refreshToken"]}, join(phone, bearer(app.access))...), 200, loggedOut)
	require.False(t, b.works(t, phone))
	require.False(t, b.works(t, bearer(app.access)))

	// A trusted backend's user.
	a = b.post(t, "/auth/sessions", object{"userId": "dora", "data": object{"cart": []int{1}}}, key(keyOfBackend)...)
	require.Equal(t, 201, a.status, a.body)
	require.True(t, b.works(t, []string{"Cookie", "sessionId=" + a.json(t)["cookie"].(string)}))
	require.Len(t, b.get(t, "/auth/users?query=BOB", admin...).objects(t, "users"), 1)

	// Guessing.
	for range 3 {
		requireAnswer(t, b.post(t, "/auth/login", object{"email": carol.Email, "password": "wrong"}), 401, invalidCredentials)
	}
	requireAnswer(t, b.post(t, "/auth/login", credentials(carol)), 429, tooMany)
}
