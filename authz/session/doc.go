// Package session finds sessions, revocation marks and profiles in Redis, and
// checks the signature of session cookies. Records and cookies are those of
// express-session with connect-redis: either side may create, read, change or
// destroy a session, and the other one honours it.
//
//	signer, err := session.NewSigner([]string{secret, previousSecret})
//	client, err := session.Open("redis://127.0.0.1:6379/0", session.OpenOptions{})
//	store := session.New(client, session.Options{Rolling: true, Profiles: true})
//	sessions := authz.NewSessions("sessionId", signer, store) // an authz.Authenticator
//	bearer := authz.NewBearer(verifier, store)                // marks and profiles for tokens
//
// A session is as good as three facts together: its record exists, it is not
// marked dead, and it is not older than its user's mark. A revocation writes
// the mark that covers it, so another program that saves the record a moment
// later brings nothing back. The time to live that Redis keeps is the truth
// about expiry; what the record says about it (cookie.expires) is often stale,
// since express-session renews the one without the other.
//
// Whatever can't be known is an error with [authz.ReasonStoreUnavailable];
// that a key does not exist is believed only when Redis says so.
//
// Keys and their lives are described in keys.go. The server must be Redis 6 or
// newer and let its client run scripts.
//
// The package does not cache: [authz.ReadOptions] Fresh and StaleFor change
// nothing here.
package session
