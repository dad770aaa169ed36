// Package token verifies JWT bearer tokens (RFC 7519) of several issuers, and
// mints the access tokens (RFC 9068) of our own.
//
// A [Verifier] picks the issuer by the token's iss claim, the key by the
// issuer's [KeySet], and answers with an [authz.Token]:
//
//	keys, err := token.Discover("https://idp.example.com", token.RemoteOptions{})
//	go keys.Run(ctx) // refreshes in the background
//	verifier, err := token.NewVerifier([]token.IssuerOptions{
//		{Issuer: "https://idp.example.com", Keys: keys, Audiences: []string{"api"}},
//		own.Trust(),
//	}, token.VerifierOptions{})
//	t, err := verifier.Verify(ctx, raw)
//
// An [Issuer] is the other side: it signs with the first of its keys, and
// lists all of them for other verifiers.
//
//	key, err := token.LoadSigningKey("current.pem", "")
//	own, err := token.NewIssuer(token.MintOptions{
//		Issuer: "https://gateway.example.com", Audiences: []string{"api"}, Keys: []*token.SigningKey{key},
//	})
//	raw, minted, err := own.Mint(token.Claims{Subject: "user-1"})
//
// Its [RefreshTokens] make and recognize the refresh tokens that go with them,
// by keys that follow from the signing keys.
//
// The checklist is RFC 8725. The signatures themselves are go-jose's
// business; everything before and after them is decided here, because that is
// where verifiers differ:
//
//   - The compact form only, 8 KiB at most, in canonical base64url. Header and
//     payload are JSON objects in valid UTF-8, without duplicate members at any
//     depth and without anything behind them. go-jose looks for duplicates
//     among the members of the header only, and skips newlines in base64.
//   - The issuer's list decides the algorithm, and the key has to fit it. No
//     HMAC, no "none", no RSA key under 2048 bits.
//   - A token never brings its own key or extension: jwk, jku, x5u, x5c, crit,
//     b64 and zip are refused, whatever they say. x5t, a mere name, is ignored.
//   - exp is required. Dates are numbers between 1970 and 9999.
//
// # Which key
//
// A token with a kid is verified with the keys of that kid which fit its
// algorithm; several may share a kid. A key without a kid does not match it,
// with one exception: a PEM file has no room for a kid, so if no kid was given
// for it, it stands in for every kid, as long as it is the only such key that
// fits. A token without a kid (an empty one counts as none) needs an issuer
// with exactly one key for its algorithm.
//
// # What it leaves out
//
// Revocation is the store's business. Encrypted tokens (JWE), nested tokens
// and token introspection are not supported. Certificates, in PEM files or
// key sets, are containers of a key: nobody checks their dates or chains.
package token
