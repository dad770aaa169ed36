package e2e

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// requireChallenge checks the www-authenticate header against RFC 6750 section
// 3: the scheme with at least one parameter, and the error code that belongs to
// the status; none for who showed no credential.
func requireChallenge(t *testing.T, r reply, code string) {
	t.Helper()
	require.Len(t, r.header.Values("www-authenticate"), 1)
	challenge := r.header.Get("www-authenticate")
	require.Regexp(t, `^Bearer [a-z_]+="[^"]*"(, ?[a-z_]+="[^"]*")*$`, challenge)
	found := regexp.MustCompile(`error="([^"]*)"`).FindStringSubmatch(challenge)
	if code == "" {
		require.Nil(t, found, challenge)
		return
	}
	require.NotNil(t, found, challenge)
	require.Equal(t, code, found[1])
}

// requireBadToken checks the one answer that every token gets which is not
// good.
func requireBadToken(t *testing.T, r reply) {
	t.Helper()
	requireDenied(t, r, 401, invalidToken)
	requireChallenge(t, r, "invalid_token")
}

func TestTokensOfEveryKindOfIssuer(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		for issuer, key := range map[string]keyPair{
			ownIssuer: g.own, pemIssuer: g.pem, jwksIssuer: keys.jwks(), g.idp.url(): keys.jwks(),
		} {
			claims := claimsOf(issuer, bob)
			if issuer == ownIssuer { // they need carry nothing but sub and jti
				claims = with(claims, object{"email": nil, "roles": nil, "org_id": nil})
				require.NoError(t, g.store.Set(t.Context(), "user:bob", mustJSON(t, object{
					"email": bob.email, "roles": json.RawMessage(bob.roles), "organizationId": bob.org,
				}), time.Minute).Err())
			}
			token := key.issue(claims)
			for _, path := range []string{"/users/me", "/orders", "/p/bearer"} {
				r := g.get(t, path, bearer(token), "x-user-id: root", "X-User-Roles: [\"admin\"]")
				requireAllowed(t, r, bob)
				require.Equal(t, []string{"Bearer " + token}, r.arrived.values("authorization"))
			}
			require.NoError(t, g.store.Del(t.Context(), "user:bob").Err())
			r := g.get(t, "/users/admin/stats", bearer(key.issue(claimsOf(issuer, bob))))
			requireDenied(t, r, 403, forbidden)
			requireChallenge(t, r, "insufficient_scope")
			// A session's policy takes no token.
			requireDenied(t, g.get(t, "/banking", bearer(token)), 401, noToken)
		}
	})
}

func TestSpellingsOfABearerHeader(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		token := g.pem.issue(claimsOf(pemIssuer, bob))
		for _, header := range []string{
			"Authorization: Bearer " + token, "authorization: bearer " + token, "AUTHORIZATION: BEARER " + token,
			"Authorization:   Bearer   " + token + "  ",
		} {
			requireAllowed(t, g.get(t, "/users/me", header), bob)
		}
		for _, header := range []string{
			"Authorization: Bearer", "Authorization: Bearer ", "Authorization: Bearer a b", "Authorization: Bearer " + token + " x",
			"Authorization: Bearer " + token + "," + token, "Authorization: Bearer token=" + token, "Authorization: Bearer \"" + token + "\"",
			"Authorization: Bearer Bearer " + token,
		} {
			requireBadToken(t, g.get(t, "/users/me", header))
		}
		if r := g.get(t, "/users/me", bearer(token), bearer(token)); r.status == http.StatusBadRequest { // nginx
			requireDenied(t, r, 400, badRequest)
		} else {
			requireBadToken(t, r) // two are one too many
		}
		// Elsewhere a token is none: neither RFC 6750's body nor its query is
		// taken, which would end up in logs.
		for _, headers := range [][]string{
			{"Authorization: " + token},
			{"Authorization: Token " + token},
			{"Authorization: DPoP " + token},
			{"Proxy-Authorization: Bearer " + token},
			{"X-Authorization: Bearer " + token},
			{"Cookie: token=" + token},
		} {
			r := g.get(t, "/users/me", headers...)
			requireDenied(t, r, 401, noToken)
			requireChallenge(t, r, "")
		}
		r := g.get(t, "/users/me?access_token="+token)
		requireDenied(t, r, 401, noToken)
		requireChallenge(t, r, "")
	})
}

// Attacks by the list of RFC 8725, and those that were found since. Each gets
// the same answer, from which nothing can be learnt.
func TestAttackTokens(t *testing.T) {
	mac := func(secret []byte) func(string) []byte {
		return func(input string) []byte {
			m := hmac.New(sha256.New, secret)
			m.Write([]byte(input))
			return m.Sum(nil)
		}
	}
	none := func(string) []byte { return nil }
	everywhere(t, func(t *testing.T, g *gateway) {
		k, now := g.pem, time.Now().Unix()
		head := object{"alg": "RS256", "typ": "JWT"}
		claims := claimsOf(pemIssuer, alice)
		signed := func(header, payload any) string { return token(header, payload, k.rs256) }
		good := signed(head, claims)
		requireAllowed(t, g.get(t, "/users/me", bearer(good)), alice)
		parts := strings.Split(good, ".")
		attacker := keys.next()
		jwksHead := object{"alg": "RS256", "kid": keys.jwks().kid}
		jwksClaims := claimsOf(jwksIssuer, alice)
		requireAllowed(t, g.get(t, "/users/me", bearer(token(jwksHead, jwksClaims, keys.jwks().rs256))), alice)

		rs512 := func(input string) []byte {
			sum := sha512.Sum512([]byte(input))
			signature, err := rsa.SignPKCS1v15(rand.Reader, k.PrivateKey, crypto.SHA512, sum[:])
			require.NoError(t, err)
			return signature
		}
		ps256 := func(input string) []byte {
			sum := sha256.Sum256([]byte(input))
			signature, err := rsa.SignPSS(rand.Reader, k.PrivateKey, crypto.SHA256, sum[:], nil)
			require.NoError(t, err)
			return signature
		}
		for name, token := range map[string]string{
			// 2.1, 3.1, 3.2: the algorithm is the issuer's to choose.
			"alg none":                       token(object{"alg": "none"}, claims, none),
			"alg none, signature kept":       token(object{"alg": "none"}, claims, k.rs256),
			"alg None":                       token(object{"alg": "None"}, claims, none),
			"alg nOnE":                       token(object{"alg": "nOnE"}, claims, none),
			"alg empty":                      token(object{"alg": ""}, claims, none),
			"no alg":                         token(object{"typ": "JWT"}, claims, k.rs256),
			"alg null":                       token(`{"alg":null}`, claims, k.rs256),
			"alg a list":                     token(`{"alg":["RS256"]}`, claims, k.rs256),
			"HMAC with the PEM file":         token(object{"alg": "HS256"}, claims, mac(k.public())),
			"HMAC with the PEM file trimmed": token(object{"alg": "HS256"}, claims, mac([]byte(strings.TrimSpace(string(k.public()))))),
			"HMAC with the modulus":          token(object{"alg": "HS256", "kid": keys.jwks().kid}, jwksClaims, mac(keys.jwks().N.Bytes())),
			"HMAC with an empty secret":      token(object{"alg": "HS256"}, claims, mac(nil)),
			"RS512, which nobody allowed":    token(object{"alg": "RS512"}, claims, rs512),
			"PS256, which nobody allowed":    token(object{"alg": "PS256"}, claims, ps256),
			"PS256 called RS256":             token(head, claims, ps256),
			"alg in lower case":              token(object{"alg": "rs256"}, claims, k.rs256),

			// The signature.
			"no signature":             parts[0] + "." + parts[1] + ".",
			"two parts":                parts[0] + "." + parts[1],
			"another one's signature":  token(head, claims, attacker.rs256),
			"another issuer's key":     token(object{"alg": "RS256", "kid": keys.jwks().kid}, claims, keys.jwks().rs256),
			"signature of other words": parts[0] + "." + segment(with(claims, object{"sub": "root"})) + "." + parts[2],
			"a bit flipped":            parts[0] + "." + parts[1] + "." + flip(parts[2]),
			"signature padded":         good + "==",
			"standard base64":          good + "+/",
			"a space inside":           parts[0] + "." + parts[1] + ". " + parts[2],
			"a fourth part":            good + ".x",
			"an empty header":          "." + parts[1] + "." + parts[2],
			"JSON serialization":       `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
			"an encrypted token":       strings.Repeat(parts[2]+".", 4) + parts[2],

			// 2.5, 2.9, 3.10: keys come from the issuer, never with the token.
			"embedded jwk":               token(object{"alg": "RS256", "jwk": attacker.jwk()}, claims, attacker.rs256),
			"embedded jwk of the issuer": token(object{"alg": "RS256", "jwk": k.jwk()}, claims, k.rs256),
			"jku of an attacker":         token(object{"alg": "RS256", "jku": g.idp.url() + "/evil"}, claims, attacker.rs256),
			"jku of the issuer":          token(object{"alg": "RS256", "kid": keys.jwks().kid, "jku": g.idp.url() + "/jwks"}, jwksClaims, keys.jwks().rs256),
			"x5u":                        token(object{"alg": "RS256", "x5u": g.idp.url() + "/cert"}, claims, k.rs256),
			"x5c":                        token(object{"alg": "RS256", "x5c": []string{"MIIB"}}, claims, k.rs256),
			"unknown kid":                token(object{"alg": "RS256", "kid": "nobody"}, jwksClaims, keys.jwks().rs256),
			"kid as a path":              token(object{"alg": "RS256", "kid": "../../../../dev/null"}, jwksClaims, mac(nil)),
			"kid as SQL":                 token(object{"alg": "RS256", "kid": "' UNION SELECT 'key"}, jwksClaims, mac([]byte("key"))),
			"kid a number":               token(`{"alg":"RS256","kid":1}`, jwksClaims, keys.jwks().rs256),

			// 3.3, RFC 7515: what is not understood is refused.
			"unknown crit":      token(object{"alg": "RS256", "crit": []string{"x"}, "x": 1}, claims, k.rs256),
			"empty crit":        token(object{"alg": "RS256", "crit": []string{}}, claims, k.rs256),
			"crit exp":          token(object{"alg": "RS256", "crit": []string{"exp"}}, claims, k.rs256),
			"b64 false":         token(object{"alg": "RS256", "b64": false, "crit": []string{"b64"}}, claims, k.rs256),
			"b64 false, quiet":  token(object{"alg": "RS256", "b64": false}, claims, k.rs256),
			"compressed":        token(object{"alg": "RS256", "zip": "DEF"}, claims, k.rs256),
			"nested":            token(object{"alg": "RS256", "cty": "JWT"}, good, k.rs256),
			"header no object":  token(`"RS256"`, claims, k.rs256),
			"payload no object": signed(head, `["sub"]`),
			"payload empty":     signed(head, ``),
			"something behind":  signed(head, mustJSON(t, claims)+"{}"),
			"not UTF-8":         signed(head, strings.Replace(mustJSON(t, claims), "alice@", "al\xffice@", 1)),

			// Duplicate members: two readers, two answers.
			"alg twice": token(`{"alg":"RS256","alg":"none"}`, claims, k.rs256),
			"sub twice": signed(head, strings.Replace(mustJSON(t, claims), "{", `{"sub":"root",`, 1)),
			"exp twice": signed(head, strings.Replace(mustJSON(t, claims), "{", `{"exp":4102444800,`, 1)),

			// 3.8, 3.9, 3.11: issuer, audience, type.
			"no iss":            signed(head, with(claims, object{"iss": nil})),
			"unknown iss":       signed(head, with(claims, object{"iss": "https://evil.example"})),
			"iss with a slash":  signed(head, with(claims, object{"iss": pemIssuer + "/"})),
			"iss in capitals":   signed(head, with(claims, object{"iss": strings.ToUpper(pemIssuer)})),
			"iss a list":        signed(head, with(claims, object{"iss": []string{pemIssuer}})),
			"another issuer's":  signed(head, with(claims, object{"iss": jwksIssuer})),
			"our own name":      signed(head, with(claims, object{"iss": ownIssuer})),
			"no aud":            signed(head, with(claims, object{"aud": nil})),
			"another aud":       signed(head, with(claims, object{"aud": "other"})),
			"aud a part":        signed(head, with(claims, object{"aud": "ap"})),
			"aud an object":     signed(head, with(claims, object{"aud": object{"api": 1}})),
			"aud with a number": signed(head, with(claims, object{"aud": []any{"api", 1}})),
			"an ID token":       signed(object{"alg": "RS256", "typ": "id+jwt"}, claims),
			"a logout token":    signed(object{"alg": "RS256", "typ": "logout+jwt"}, claims),
			"a DPoP proof":      signed(object{"alg": "RS256", "typ": "dpop+jwt"}, claims),
			"an empty typ":      signed(object{"alg": "RS256", "typ": ""}, claims),
			"typ a number":      signed(`{"alg":"RS256","typ":1}`, claims),
			"no sub":            signed(head, with(claims, object{"sub": nil})),
			"sub empty":         signed(head, with(claims, object{"sub": ""})),
			"sub a number":      signed(head, with(claims, object{"sub": 0})),
			"sub an object":     signed(head, with(claims, object{"sub": object{"$gt": ""}})),
			"sub a service's":   signed(head, with(claims, object{"sub": "service:billing"})),
			"roles an object":   signed(head, with(claims, object{"realm_access": object{"roles": object{"admin": true}}})),
			"jti a number":      signed(head, with(claims, object{"jti": 1})),

			// Times.
			"no exp":            signed(head, with(claims, object{"exp": nil})),
			"exp null":          signed(head, strings.Replace(mustJSON(t, with(claims, object{"exp": nil})), "{", `{"exp":null,`, 1)),
			"exp a text":        signed(head, with(claims, object{"exp": "4102444800"})),
			"exp beyond reason": signed(head, with(claims, object{"exp": json.Number("1e99")})),
			"exp negative":      signed(head, with(claims, object{"exp": -1})),
			"expired":           signed(head, with(claims, object{"exp": now - 31})),
			"expired long ago":  signed(head, with(claims, object{"exp": now - 86400})),
			"nbf a text":        signed(head, with(claims, object{"nbf": "0"})),

			// Size.
			"more than 8 KiB": signed(head, with(claims, object{"padding": strings.Repeat("a", 8192)})),
			"deeply nested":   signed(head, `{"a":`+strings.Repeat("[", 3000)+strings.Repeat("]", 3000)+`}`),

			// No token at all.
			"a word":             "token",
			"dots":               "..",
			"a session's cookie": g.login(t, alice),
			"an API key":         apiKeys.billing,
			"bytes":              "\xff\xfe.\x80.\x81",
		} {
			t.Run(name, func(t *testing.T) {
				requireBadToken(t, g.get(t, "/users/me", bearer(token)))
				requireAllowed(t, g.get(t, "/public/hello", bearer(token)), nobody)
			})
		}
		// All those took a while: what is about the present is made now.
		now = time.Now().Unix()
		for name, token := range map[string]string{
			"not yet":         signed(head, with(claims, object{"nbf": now + 90})),
			"from the future": signed(head, with(claims, object{"iat": now + 90})),
		} {
			t.Run(name, func(t *testing.T) { requireBadToken(t, g.get(t, "/users/me", bearer(token))) })
		}
		for name, token := range map[string]string{
			"within the leeway": signed(head, with(claims, object{"exp": now - 5})),
			"nearly":            signed(head, with(claims, object{"nbf": now + 5, "iat": now + 5})),
			"several audiences": signed(head, with(claims, object{"aud": []string{"other", "api"}})),
			"no typ":            signed(object{"alg": "RS256"}, claims),
			"at+jwt":            signed(object{"alg": "RS256", "typ": "application/at+JWT"}, claims),
			"no jti":            signed(head, with(claims, object{"jti": nil})),
		} {
			t.Run(name, func(t *testing.T) { requireAllowed(t, g.get(t, "/users/me", bearer(token)), alice) })
		}
	})
}

// flip changes a character in the middle of a signature.
func flip(s string) string {
	b := []byte(s)
	if i := len(b) / 2; b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}

// A token is revoked by whoever may write to Redis, and counts so at once.
func TestRevokedTokens(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		claims := claimsOf(pemIssuer, bob)
		token := g.pem.issue(claims)
		other := g.pem.issue(claimsOf(pemIssuer, bob))
		for range 3 {
			requireAllowed(t, g.get(t, "/users/me", bearer(token)), bob)
			require.NoError(t, g.store.Set(t.Context(), "revoked:"+claims["jti"].(string), "anything", time.Minute).Err())
			requireBadToken(t, g.get(t, "/users/me", bearer(token)))
			requireAllowed(t, g.get(t, "/public/hello", bearer(token)), nobody)
			requireAllowed(t, g.get(t, "/users/me", bearer(other)), bob)
			require.NoError(t, g.store.Del(t.Context(), "revoked:"+claims["jti"].(string)).Err())
		}
		// An empty value revokes, too.
		require.NoError(t, g.store.Set(t.Context(), "revoked:"+claims["jti"].(string), "", time.Minute).Err())
		requireBadToken(t, g.get(t, "/users/me", bearer(token)))
	})
}

// What user:<id> says wins over the token, at the next request.
func TestProfilesWinOverClaims(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		claimed := identity{"dora", "dora@example.com", `["member"]`, "org-1"}
		token := bearer(g.pem.issue(claimsOf(pemIssuer, claimed)))
		session := cookie(g.login(t, claimed))
		profile := func(text string) {
			require.NoError(t, g.store.Set(t.Context(), "user:dora", text, time.Minute).Err())
		}
		requireAllowed(t, g.get(t, "/users/me", token), claimed)
		requireDenied(t, g.get(t, "/users/admin/stats", token), 403, forbidden)

		profile(`{"email":"new@example.com","roles":["admin"],"organizationId":"org-9"}`)
		requireAllowed(t, g.get(t, "/users/admin/stats", token), identity{"dora", "new@example.com", `["admin"]`, "org-9"})
		profile(`{"roles":[]}`)
		requireAllowed(t, g.get(t, "/users/me", token), identity{"dora", "dora@example.com", `[]`, "org-1"})
		requireDenied(t, g.get(t, "/users/admin/stats", token), 403, forbidden)
		profile(`{"organizationId":"org-10","somethingElse":{"a":1}}`)
		requireAllowed(t, g.get(t, "/users/me", token), identity{"dora", "dora@example.com", `["member"]`, "org-10"})

		requireAllowed(t, g.get(t, "/users/me", session), claimed)
		profile(`{"disabled":true}`)
		requireBadToken(t, g.get(t, "/users/me", token))
		requireDenied(t, g.get(t, "/users/me", session), 401, invalidSession)
		profile(`{"disabled":false}`)
		requireAllowed(t, g.get(t, "/users/me", token), claimed)
		requireAllowed(t, g.get(t, "/users/me", session), claimed)

		require.NoError(t, g.store.Del(t.Context(), "user:dora").Err())
		requireAllowed(t, g.get(t, "/users/me", token), claimed)
	})
}

// A new key of an issuer is taken up without a restart; what is signed with one
// that it withdrew is refused; and tokens with made-up kids can't make Gatehouse
// hammer the issuer.
func TestKeyRotation(t *testing.T) {
	s := start(t, options{})
	g := s.gateway(t)
	first, second := keys.jwks(), keys.next()
	issuers := []string{jwksIssuer, s.idp.url()}
	for _, issuer := range issuers {
		requireAllowed(t, g.get(t, "/users/me", bearer(first.issue(claimsOf(issuer, bob)))), bob)
		requireBadToken(t, g.get(t, "/p/bearer", bearer(newKid(first, "never-seen").issue(claimsOf(pemIssuer, bob)))))
	}
	s.idp.publishes(second, first)
	for _, issuer := range issuers {
		requireAllowed(t, g.get(t, "/users/me", bearer(second.issue(claimsOf(issuer, alice)))), alice)
		requireAllowed(t, g.get(t, "/users/me", bearer(first.issue(claimsOf(issuer, bob)))), bob)
	}
	fetches, began := s.idp.fetches.Load(), time.Now()
	for range 50 {
		for _, issuer := range issuers {
			requireBadToken(t, g.get(t, "/users/me", bearer(newKid(first, newSessionID()).issue(claimsOf(issuer, bob)))))
		}
	}
	const cool = 10 * time.Second // the default
	require.LessOrEqual(t, s.idp.fetches.Load(), fetches+int64(len(issuers))*(1+int64(time.Since(began)/cool)))

	// The issuer's outage changes nothing for keys that are known.
	require.NoError(t, s.idp.stop())
	for _, issuer := range issuers {
		requireAllowed(t, g.get(t, "/users/me", bearer(second.issue(claimsOf(issuer, alice)))), alice)
	}
}

func newKid(k keyPair, kid string) keyPair { return keyPair{kid, k.PrivateKey} }

// Nobody knows whether a token is good whose issuer was never reached.
func TestIssuerOutOfReach(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		token := bearer(newKid(g.pem, "k").issue(claimsOf(deadIssuer, bob)))
		requireDenied(t, g.get(t, "/users/me", token), 503, unavailable)
		requireDenied(t, g.get(t, "/public/hello", token), 503, unavailable)
		requireAllowed(t, g.get(t, "/users/me", bearer(g.pem.issue(claimsOf(pemIssuer, bob)))), bob)
	})
}

// What a policy asks of tokens beyond being good ones.
func TestPoliciesOfTokens(t *testing.T) {
	s := start(t, options{config: `
policies:
  partner: {credentials: [bearer], issuers: ["` + pemIssuer + `"]}
  other: {credentials: [bearer], audiences: [other]}
  recent: {credentials: [bearer], max_auth_age: 5m}
routes:
- {path: /p/partner/*, policy: partner}
- {path: /p/other/*, policy: other}
- {path: /p/recent/*, policy: recent}
`})
	g := s.gateway(t)
	k := keys.jwks()
	now := time.Now().Unix()
	requireAllowed(t, g.get(t, "/p/partner", bearer(s.pem.issue(claimsOf(pemIssuer, bob)))), bob)
	r := g.get(t, "/p/partner", bearer(k.issue(claimsOf(jwksIssuer, bob))))
	requireDenied(t, r, 403, forbidden)
	requireChallenge(t, r, "insufficient_scope")
	// One that no issuer vouches for is 401, not 403.
	requireBadToken(t, g.get(t, "/p/partner", bearer(k.issue(claimsOf("https://evil.example", bob)))))
	requireBadToken(t, g.get(t, "/p/partner", bearer(keys.next().issue(claimsOf(jwksIssuer, bob)))))

	requireAllowed(t, g.get(t, "/p/other", bearer(k.issue(with(claimsOf(jwksIssuer, bob), object{"aud": "other"})))), bob)
	requireDenied(t, g.get(t, "/p/other", bearer(k.issue(claimsOf(jwksIssuer, bob)))), 403, forbidden)

	requireAllowed(t, g.get(t, "/p/recent", bearer(s.pem.issue(claimsOf(pemIssuer, bob)))), bob)
	requireAllowed(t, g.get(t, "/p/recent", bearer(s.pem.issue(with(claimsOf(pemIssuer, bob), object{"iat": now - 3600, "auth_time": now})))), bob)
	for _, stale := range []object{{"iat": now - 3600}, {"auth_time": now - 3600}, {"iat": nil}} {
		requireBadToken(t, g.get(t, "/p/recent", bearer(s.pem.issue(with(claimsOf(pemIssuer, bob), stale)))))
	}
}

// The public keys are there for everybody, in the form that verifiers read.
func TestJWKSIsPublished(t *testing.T) {
	g := sharedGateway(t, asShipped)
	r := g.get(t, "/.well-known/jwks.json")
	require.Equal(t, http.StatusOK, r.status)
	var set struct{ Keys []object }
	require.NoError(t, json.Unmarshal([]byte(r.body), &set))
	require.Len(t, set.Keys, 1)
	for member, want := range g.own.jwk() {
		if member != "kid" {
			require.Equal(t, want, set.Keys[0][member])
		}
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		require.NotContains(t, set.Keys[0], private)
	}
	// With the kid that it publishes.
	own := newKid(g.own, set.Keys[0]["kid"].(string))
	requireAllowed(t, g.get(t, "/users/me", bearer(own.issue(with(claimsOf(ownIssuer, bob), object{"email": nil, "roles": nil, "org_id": nil})))), identity{"bob", "", "[]", ""})
}

// The mark by which everything of a user's that is older is revoked.
func TestRevokedBefore(t *testing.T) {
	everywhere(t, func(t *testing.T, g *gateway) {
		user := identity{"erik-" + newSessionID(), "e@example.com", `["member"]`, "org-1"}
		now := time.Now()
		claims := claimsOf(pemIssuer, user)
		old := bearer(g.pem.issue(with(claims, object{"iat": now.Add(-time.Hour).Unix()})))
		recent := bearer(g.pem.issue(with(claims, object{"iat": now.Unix() + 2})))
		oldSession := cookie(signed(g.session(t, with(user.record(), object{"authTime": now.Add(-time.Hour).Unix()})), secretCurrent))
		newSession := cookie(signed(g.session(t, with(user.record(), object{"authTime": now.Unix() + 2})), secretCurrent))
		for _, credential := range []string{old, recent, oldSession, newSession} {
			requireAllowed(t, g.get(t, "/users/me", credential), user)
		}
		require.NoError(t, g.revokeBefore(t.Context(), user.id, now))
		requireBadToken(t, g.get(t, "/users/me", old))
		requireDenied(t, g.get(t, "/users/me", oldSession), 401, invalidSession)
		requireAllowed(t, g.get(t, "/users/me", recent), user)
		requireAllowed(t, g.get(t, "/users/me", newSession), user)
	})
}

// revokeBefore sets the user's mark. Its name is Gatehouse's own business; it
// is written here as the operator's tools do it.
func (s *stack) revokeBefore(ctx context.Context, userID string, t time.Time) error {
	return session.New(s.store, session.Options{}).RevokeUserBefore(ctx, userID, t)
}
