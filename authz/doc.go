// Package authz decides one question: may this request pass, and as whom?
//
// It knows nothing of Envoy, Redis, HTTP servers or YAML. A door (package
// extauthz) turns the outside world into a [Request]; an [Authorizer] answers
// with a [Decision] or an error that carries a [Reason]; the door turns that
// into a reply. Adapters (packages session and token) fetch what the answer
// needs, behind the small interfaces that this package declares.
//
//	policies, err := authz.NewPolicySet(authz.PolicySetOptions{
//		Policies: []authz.Policy{{Name: "user", Credentials: []authz.Kind{authz.KindSession}}},
//		Default:  "user",
//	})
//	a := authz.NewAuthorizer(policies, authz.Options{}, authz.NewSessions("sessionId", signer, store))
//	decision, err := a.Authorize(ctx, request)
//
// The steps of one decision, in their order: the canonical request
// ([CanonicalPath], [CanonicalHost]), the policy ([PolicySet.Match]), the
// credential (an [Authenticator] per [Kind]), the identity (a [Principal]),
// the conditions ([Policy.Permits]). Every step that can't be taken with
// certainty refuses: the zero value of everything here is the strict one.
//
// A credential kind of your own is an [Authenticator] handed to
// [NewAuthorizer] beside the built-in ones; examples/custom-credential is a
// whole program with one.
//
// The package imports the standard library only.
package authz
