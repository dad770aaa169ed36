// Package session keeps sessions, refresh families, revocation marks and
// profiles in Redis, and checks the signature of session cookies. Records and
// cookies are those of express-session with connect-redis: either side may
// create, read, change or destroy a session, and the other one honours it.
//
//	signer, err := session.NewSigner([]string{secret, previousSecret})
//	client, err := session.Open("redis://127.0.0.1:6379/0", session.OpenOptions{})
//	store := session.New(client, session.Options{Rolling: true, Profiles: true})
//	sessions := authz.NewSessions("sessionId", signer, store) // an authz.Authenticator
//	bearer := authz.NewBearer(verifier, store)                // marks and profiles for tokens
//	id, err := store.Create(ctx, authz.Login{…})               // somebody logged in
//	n, err := store.RevokeUser(ctx, userID)                   // and everywhere out
//
// A session is as good as three facts together: its record exists, it is not
// marked dead, and it is not older than its user's mark. A revocation writes
// the mark that covers it, so another program that saves the record a moment
// later brings nothing back. The time to live that Redis keeps is the truth
// about expiry; what the record says about it (cookie.expires) is often stale,
// since express-session renews the one without the other.
//
// Whatever can't be known is an error with [authz.ReasonStoreUnavailable], or
// [authz.ReasonOverloaded] where too many ask; that a key does not exist is believed only when Redis says so. A call that
// changes several things changes all of them or none, when Redis is one server
// (alone, behind Sentinel, embedded); in a Cluster it takes ordered steps that
// can be repeated. A revocation can wait until replicas hold it
// ([Options] ConfirmReplicas).
//
// What a user has is in an index, which logins and the gate keep. What another
// program made and the gate never saw is found by looking through all records,
// in small steps and never on the way of a request.
//
// Keys and their lives are described in keys.go. The server must be Redis 6 or
// newer. Its user must be allowed scripts and SCAN, WAIT where replicas are to
// confirm, CLIENT TRACKING and GETREDIR for the cache, and should be allowed INFO,
// by which a sweep, and the cache, notice that the server is another one.
//
// With [Options] Cache, what was read stays in memory for as long as Redis is
// proven to announce what changes (cache.go); [Store.Run] must run for it.
package session
