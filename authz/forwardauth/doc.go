// Package forwardauth is the door for proxies that ask by HTTP: nginx
// (auth_request), Traefik (forwardAuth), Caddy (forward_auth) and what is built
// on them, over an [authz.Authorizer].
//
//	mux.Handle(forwardauth.Path, forwardauth.NewHandler(authorizer, forwardauth.Options{TrustedHops: 1}))
//
// The proxy sends a request of its own, with the headers of the client's and a
// few that say which request is meant ([Handler] lists them). The answer is 200
// with the identity as response headers, which the proxy puts on the request in
// place of the client's, or the refusal that the client gets.
//
// What is decided is what those headers say, so all depends on the proxy
// overwriting them. The door refuses whatever shows that it does not: a header
// that is missing or there twice, and two that contradict each other. Paths that
// two servers could read differently are refused as everywhere, which closes the
// gap between the path that a proxy routes by and the one that it asks about.
//
// The package listens nowhere, and leaves TLS to its caller. deploy/forward-auth
// has configurations of the proxies.
package forwardauth
