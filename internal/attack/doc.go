// Package attack tries a published list of attacks on a gateway that has an echo
// service behind it, and tells of each what reached the service.
//
//	report, err := attack.Run(ctx, attack.Options{
//		Target: target, Protected: "/users/echo", Public: "/public/echo",
//		Cookie: "sessionId=…",
//	})
//
// The list is data, attacks.yaml: a request as it stands on the wire, what must
// hold, why, and the public weakness that it comes from. A case holds when the
// request was refused, or when what reached the service says nothing but the
// truth. What the truth is, the gateway says itself before the first attack: how
// an ordinary request arrives with a credential, and without one.
//
// Requests are written byte by byte and frame by frame, because client libraries
// tidy up the very things that an attacker sends. They go to the target alone, one
// at a time, and change nothing: GET, HEAD, OPTIONS, and POST with a few bytes.
//
// The package knows nothing of Gatehouse. What no case looks at: how a gateway
// behaves when its own parts fail, timing, load, and whatever a service does with
// what it is told.
package attack
