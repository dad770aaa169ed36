// Package usercontext is how a Go service behind the Gatehouse gate learns
// who is calling. The gate authenticates every request and passes the result
// on in four headers (x-user-id, x-user-email, x-user-roles, x-org-id); this
// package reads them, strictly, and hands a [User] to the handler:
//
//	mux := http.NewServeMux()
//	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
//		user, _ := usercontext.FromContext(r.Context())
//		listOrders(w, user.OrganizationID)
//	})
//	http.ListenAndServe("127.0.0.1:8102", usercontext.Require(mux))
//
// [Optional] is for routes that the gate also lets anonymous callers reach,
// [RequireRole] for routes of certain roles, [RequireInternalKey] for calls
// from service to service that don't come through the gate. Package usergrpc
// does the same for gRPC servers.
//
// # Trust
//
// The headers prove nothing by themselves: anyone who can open a connection
// to the service can write them. They are true because the gate overwrites
// or removes them on every request, so a service that uses this package must
// be reachable through the gate only: a loopback or Unix socket listener, a
// network policy, or mTLS that admits nobody but the gateway. What the gate
// could not have written (a header twice, a broken escape, roles that are no
// JSON array of strings, x_user_id beside x-user-id) therefore means that
// somebody went around it, and is refused with 400 rather than read as a
// user or as nobody.
//
// Where the network can't be relied on, the gate signs the identity for the
// service (assertion in its policy), and a [Verifier] checks that:
//
//	verifier, err := usercontext.NewVerifier(usercontext.VerifierOptions{
//		Issuer: "https://gateway.example.com", Audience: "orders",
//		JWKSURL: "https://gateway.example.com/.well-known/jwks.json",
//	})
//	reader, err := usercontext.NewReader(usercontext.Options{Verifier: verifier})
//	http.ListenAndServe(":8102", reader.Require(mux))
//
// # What it leaves out
//
// It verifies no tokens of clients, reads no cookies and knows no Redis: that is done by
// the time a request arrives. It does not ask whether the user was revoked a
// moment ago, which the gate did for this very request. It has no
// permissions beyond roles. It does not pass a user's identity on to other
// services: a call from service to service is made in the name of the
// service, with its internal key. Its 401 carries no WWW-Authenticate,
// because only the gate knows which credentials a route accepts.
package usercontext
