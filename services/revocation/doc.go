// Package revocation is how a Go service with long-lived streams (WebSocket, server-sent
// events, gRPC) learns at once that a session has ended. The gate authenticates a
// request when it arrives; a stream that was admitted goes on for hours. This package
// follows the revocation feed of Gatehouse's auth API and ends the context of each
// stream whose session, user or token is revoked:
//
//	feed, err := revocation.New(revocation.Options{URL: "https://gateway.example.com/auth/feed", Key: key})
//	go feed.Watch(ctx, nil)
//
//	func (s *server) events(w http.ResponseWriter, r *http.Request) {
//		user, _ := usercontext.FromContext(r.Context())
//		ctx, stop := feed.Until(r.Context(), revocation.Stream{UserID: user.ID})
//		defer stop()
//		for {
//			select {
//			case <-ctx.Done(): // revoked, or the client has gone
//				return
//			case m := <-s.messages:
//				send(w, m)
//			}
//		}
//	}
//
// # What it knows, and what not
//
// It goes on where it was when a connection breaks, at whatever replica, so that nothing
// is lost by that. Events may come twice. When it can't know what it missed (Redis failed
// over, or it was away for more than some minutes), the feed says so by a reset, and all
// streams end, spread over some seconds: their clients come back through the gate, which
// checks them anew. A stream that is registered right after the reset counts as one of
// those: register streams as soon as their requests arrive.
//
// While it hears nothing it is blind: [Feed.Blind] says since when, [Options.OnBlind] is
// told, and after [Options.MaxBlind] streams end.
//
// A session that runs out by itself is told of when Redis removes it, which may be a
// while later. The gateway should bound the life of streams all the same: the page
// docs/streams.md has how.
//
// # Trust
//
// The internal key opens all that administrators may do in the auth API: keep it as a
// secret. It is never sent anywhere but to the URL; redirects are not followed.
package revocation
