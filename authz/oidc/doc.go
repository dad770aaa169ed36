// Package oidc logs people in through OpenID providers: the authorization code
// flow with PKCE, state and nonce, and back-channel logout.
//
//	corp, err := oidc.New(oidc.Options{
//		Name: "corp", Issuer: "https://idp.example.com", ClientID: "web", ClientSecret: secret,
//		RedirectURL: "https://gateway.example.com/auth/oidc/corp/callback",
//		SealingKeys: [][]byte{sessionSecret},
//	})
//	location, flow, sealed, err := corp.Begin(ctx, "/orders")   // send the browser there, with a cookie
//	login, returnTo, err := corp.Finish(ctx, query, sealed)     // it came back: who is it?
//	ended, jti, until, err := corp.LogoutToken(ctx, raw)        // the provider ended a login
//
// Nothing is kept here between the two halves of a login: what the second one
// must know travels in the browser, sealed, in a cookie for each flow, so that
// several tabs don't disturb each other and any replica can finish what
// another one began.
//
// # What makes a login believable
//
// The state in the callback is the one that this browser keeps, so nobody can
// slip somebody else's login under it. The iss parameter (RFC 9207) names our
// issuer, so no other provider's answer is taken for this one's. The code was
// issued for our PKCE verifier, the ID token for our nonce, so neither was
// lifted from another login. The ID token is signed by a key of the issuer with
// an algorithm that the issuer announces (RSA, ECDSA or EdDSA; never none,
// never HMAC), is for this client, and has not expired.
//
// What the ID token leaves out of the mapped claims is asked of the userinfo
// endpoint, whose answer must be about the same subject.
//
// # Outages
//
// Discovery happens when it is first needed; [New] asks nobody. While the
// issuer is out of reach one request in a few seconds tries again, all others
// are refused at once with [authz.ReasonIssuerUnavailable]. Once discovery has
// succeeded, what it said stays good while the issuer is away, and is renewed
// now and then in the background. Every fetch is bounded in time and size.
//
// # What it leaves out
//
// Sessions, cookies and redirects are package authapi's. The provider's access
// and refresh tokens are not kept; front-channel logout, encrypted ID tokens,
// private_key_jwt and dynamic registration are not supported.
package oidc
