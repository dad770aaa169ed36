package authz

import (
	"context"
	"time"
)

// Kind is a kind of credential, by its name in a policy.
type Kind string

// The built-in kinds.
const (
	KindSession Kind = "session"
	KindBearer  Kind = "bearer"
	KindAPIKey  Kind = "api_key"
)

// Identity is who a principal is, as the services behind the gate learn it.
type Identity struct {
	ID           string
	Email        string
	Roles        []string // nil and empty mean the same: none
	Organization string   // the one that the user works in now
}

// Principal is an authenticated caller: the identity, and what conditions
// may ask about the credential that proved it.
type Principal struct {
	Identity
	Kind Kind

	SessionID     string         // of a session; not for logs, though it opens nothing without a signature
	Organizations []string       // those that the user may switch to; sessions and profiles may list them
	AuthTime      time.Time      // when the user authenticated; zero when the credential doesn't say
	Session       map[string]any // the session record, for conditions; nil for other kinds
	Issuer        string         // of a token; else ""
	Audiences     []string       // of a token; else nil
	Claims        map[string]any // of a token, verified; else nil
	APIKey        string         // name of the key; else ""

	// Degraded is how the principal came about without the store, by leave
	// of the policy; "" normally.
	Degraded Outage
}

// Profile is the record of a user that outlives sessions and tokens: the
// living identity behind tokens, and the switch that locks a user out.
//
// A nil field was not in the record, and leaves to a token's claims what it
// doesn't say; an empty one was, and wins over them.
type Profile struct {
	Email         *string
	Roles         *[]string
	Organization  *string
	Organizations []string
	Disabled      bool
}

// Standing is what the store holds against a credential or for its user.
type Standing struct {
	// Revoked: this credential, or the refresh family that it belongs to,
	// was revoked by name.
	Revoked bool
	// RevokedBefore is the user's mark: every credential that was made no
	// later than this is revoked. Zero when there is none.
	RevokedBefore time.Time
	// Profile is nil when the user has none.
	Profile *Profile
	// Stale: the store is out of reach, and this was true no longer ago than
	// [ReadOptions.StaleFor].
	Stale bool
}

// predates reports whether a credential made at t falls under the mark. A
// credential that carries no time is not touched by it. A token's iat counts
// whole seconds, so a token of the very second of the mark may be older than
// it, and is taken to be.
func (s Standing) predates(t time.Time) bool {
	if s.RevokedBefore.IsZero() || t.IsZero() {
		return false
	}
	return !t.After(s.RevokedBefore)
}

// Session is one session record as a store found it.
type Session struct {
	Identity
	Organizations []string
	AuthTime      time.Time      // when the user authenticated; zero when the record doesn't say
	Created       time.Time      // when the session was made; zero when the record doesn't say
	LastSeen      time.Time      // of the last gated request, as precise as TouchInterval; zero when unknown
	Values        map[string]any // the whole record, decoded; numbers are [json.Number]
	Standing      Standing
	Stale         bool // served from memory while the store is out of reach
}

// Token is what a verifier found in a bearer token that is authentic, in
// time and from a known issuer.
type Token struct {
	Identity                 // by the issuer's claim mapping
	TokenID   string         // jti; may be "" for outside issuers
	Family    string         // sid of our own tokens: the refresh family; else ""
	Issuer    string         // iss
	Audiences []string       // aud
	IssuedAt  time.Time      // iat; zero when absent
	AuthTime  time.Time      // auth_time, else iat
	Expires   time.Time      // exp
	Claims    map[string]any // all of them; numbers are [json.Number]
}

// ReadOptions say how a policy wants a store to be read.
type ReadOptions struct {
	// Fresh asks the store itself, never a cache.
	Fresh bool
	// StaleFor allows an answer that was true at most this long ago when the
	// store is out of reach. Zero allows none.
	StaleFor time.Duration
	// IdleTimeout, when not zero, ends a session that was not used for so
	// long; the store keeps the time of use precise enough for it.
	IdleTimeout time.Duration
	// Passive reads are no use of the session that an idle timeout counts from.
	Passive bool
	// ReadOnly reads leave no trace: they renew nothing and end nothing. They
	// are passive, too.
	ReadOnly bool
	// OmitRecord leaves the Values of a session away where that is cheaper.
	OmitRecord bool
}

// A SessionStore finds sessions.
//
// Session returns the record of a session id together with the standing of
// its user. Its refusals are ReasonSessionUnknown (no such record),
// ReasonSessionExpired, ReasonSessionRevoked (marked dead),
// ReasonSessionIdle, ReasonSessionMalformed, ReasonProfileMalformed,
// ReasonStoreUnavailable and ReasonOverloaded (too many ask, and the store is as
// fast as ever); it never returns two nils. It may block until ctx
// ends or the store's own deadline passes, whichever is first.
type SessionStore interface {
	Session(ctx context.Context, id string, o ReadOptions) (*Session, error)
}

// A CookieVerifier checks the value of a session cookie, as it stands in the
// Cookie header, and returns the session id in it; ok is false for anything
// that no current secret signed. It is pure and takes constant time in the
// signature.
type CookieVerifier interface {
	Verify(value string) (id string, ok bool)
}

// A TokenVerifier verifies one bearer token in compact form: header,
// algorithm, key, signature, times, issuer, audience. Revocation is not its
// business. Its refusals are ReasonTokenInvalid, ReasonTokenExpired and
// ReasonIssuerUnavailable.
type TokenVerifier interface {
	Verify(ctx context.Context, raw string) (*Token, error)
}

// TokenRef names what can be revoked about a token.
type TokenRef struct {
	UserID  string
	TokenID string // "" when the token has none
	Family  string // "" when the token has none
}

// A StandingStore knows whether a token or its user was revoked. Its
// refusals are ReasonStoreUnavailable, ReasonOverloaded and ReasonProfileMalformed.
type StandingStore interface {
	TokenStanding(ctx context.Context, ref TokenRef, o ReadOptions) (Standing, error)
}
