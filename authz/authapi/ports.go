package authapi

import (
	"context"
	"net/url"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// This file has what the API needs from others, one interface for each: the
// store (package session), our own tokens (package token), the user store
// (package users), the guess limit (package limit) and OpenID providers
// (package oidc).
//
// Every method may block until its context ends. Errors carry an
// [authz.Reason]: ReasonStoreUnavailable where the store is out of reach, and
// ReasonNotConfirmed where the change was made and the replicas that were asked
// for have not confirmed it. A method that changes several things changes all
// of them or none, as far as the store can promise it.

// Sessions makes, lists, changes and ends sessions.
type Sessions interface {
	// Create makes a session and returns its id. With Login.Replaces, the
	// session of that id ends in the same step.
	Create(ctx context.Context, l authz.Login) (id string, err error)
	// UserSessions lists the live sessions of a user, the latest first. sweep
	// looks through all records of the store, in small steps, for those that
	// another program made and that the gate never saw; without it, only what
	// the user's index has is found.
	UserSessions(ctx context.Context, userID string, sweep bool) ([]authz.ActiveLogin, error)
	// SwitchOrganization changes the organization of one session.
	// ReasonSessionUnknown and ReasonSessionRevoked when it is gone.
	SwitchOrganization(ctx context.Context, sessionID, organization string) error
}

// Users changes what is kept for users.
type Users interface {
	// UserStanding returns the user's mark and profile.
	UserStanding(ctx context.Context, userID string) (authz.Standing, error)
	// CompleteProfile makes the user's profile where there is none, or
	// completes what ChangeUser made of it.
	CompleteProfile(ctx context.Context, u authz.User) error
	// SwitchProfile changes the organization in the user's profile.
	SwitchProfile(ctx context.Context, userID, organization string) error
	// ChangeUser changes the profile and every session of a user, those too
	// that the gate never saw, and returns the number of sessions. Where ctx
	// runs out before everything was looked through, what is known has changed,
	// and the error says that it may not be all. ReasonBadRequest for a lock-out
	// where profiles are off.
	ChangeUser(ctx context.Context, userID string, c authz.UserChange) (sessions int, err error)
	// RevokeUser ends all sessions, refresh families and access tokens of a
	// user, whoever made them, and returns the number of sessions that lived.
	// Where ctx runs out before everything was looked through, what is known
	// has ended, and the error says that it may not be all.
	RevokeUser(ctx context.Context, userID string) (sessions int, err error)
	// RevokeHandle ends the session or the refresh family of the user that has
	// this handle; found is false when there is none.
	RevokeHandle(ctx context.Context, userID, handle string) (found bool, err error)
}

// Families keeps refresh families.
type Families interface {
	// CreateFamily keeps a new family; its Generation and Hash are those of its
	// first token.
	CreateFamily(ctx context.Context, f authz.Family) error
	// Family returns a live family; ReasonRefreshInvalid when there is none.
	Family(ctx context.Context, id string) (authz.Family, error)
	// UserFamilies lists the live families of a user, the latest first.
	UserFamilies(ctx context.Context, userID string) ([]authz.ActiveLogin, error)
	// RotateFamily uses a token: next is the hash of its successor. The family
	// that it returns says which token is current now. That is the successor,
	// or, when the token was used before and within the grace, the latest
	// token that came from it. A token used again after the grace revokes its
	// family, in the same step: [authz.ErrRefreshReused], with ReasonRefreshReused,
	// or ReasonNotConfirmed where too few replicas hold it. ReasonRefreshInvalid for a
	// family that is unknown, expired or revoked, and for a token that is not
	// of it.
	RotateFamily(ctx context.Context, t authz.RefreshToken, next [32]byte) (authz.Family, error)
}

// Endings ends what a client gives back.
type Endings interface {
	// End ends all that e names, in one step.
	End(ctx context.Context, e authz.Ending) error
	// RevokeToken revokes an access token by its jti.
	RevokeToken(ctx context.Context, jti string, until time.Time) error
	// EndProviderLogin ends the sessions that came from a provider's login: of
	// the SessionID where it is given, else of the Subject. tokenID is the jti
	// of the provider's request, which counts once until the given time; a
	// second one changes nothing and is no error.
	EndProviderLogin(ctx context.Context, l authz.ProviderLogin, tokenID string, until time.Time) (sessions int, err error)
}

// Feed is the revocation feed.
type Feed interface {
	// Follow tells what has ended behind a place (the ID of an event, or of where; "" for
	// none), and what ends from then on, until stop is called. It never blocks. events is
	// closed where the listener is too slow, or the feed ends. where is the place up to
	// which all is in events that were taken, "" while that can't be said. An error says
	// that there is no feed.
	Follow(place string) (events <-chan authz.FeedEvent, where func() string, stop func(), err error)
}

// Store is everything that the API asks of the store.
type Store interface {
	authz.SessionStore
	authz.StandingStore
	Sessions
	Users
	Families
	Endings
}

// Cookies signs and verifies session cookies.
type Cookies interface {
	authz.CookieVerifier
	// Sign returns the value of a cookie for an id, ready for Set-Cookie.
	Sign(id string) string
}

// Verifier verifies bearer tokens.
type Verifier interface {
	authz.TokenVerifier
	// VerifyExpired does as Verify does, but takes a token, too, whose exp has
	// passed: to end what it belongs to.
	VerifyExpired(ctx context.Context, raw string) (*authz.Token, error)
}

// AccessTokens issues our own access tokens.
type AccessTokens interface {
	Issue(g authz.Grant) (raw string, expires time.Time, err error)
}

// RefreshTokens makes and reads refresh tokens. It keeps nothing.
type RefreshTokens interface {
	// First returns the first token of a new family.
	First() authz.RefreshToken
	// Parse returns the token of a text, ReasonRefreshInvalid unless we made it.
	Parse(text string) (authz.RefreshToken, error)
	// Successor returns the token that follows: the same one each time.
	Successor(t authz.RefreshToken) authz.RefreshToken
	// Descendant returns the token of a later generation that came from t and
	// has this hash; ok is false when none of our keys leads to it.
	Descendant(t authz.RefreshToken, generation int, hash [32]byte) (_ authz.RefreshToken, ok bool)
}

// UserStore knows who has a password. It is the one method that a team
// implements to bring its own users.
type UserStore interface {
	// Authenticate returns the user with this email address and password, or an
	// error: ReasonPasswordWrong for any pair that is not one, after the same
	// time whether or not there is such a user; ReasonOverloaded when it has
	// too much to do; ReasonStoreUnavailable when it can't know.
	Authenticate(ctx context.Context, email, password string) (*authz.User, error)
}

// UserFinder is what a UserStore may implement, too: the console finds users
// with it.
type UserFinder interface {
	// FindUsers returns at most limit users whose id, email address or
	// organization holds the text, whatever its case, in a stable order.
	FindUsers(ctx context.Context, text string, limit int) ([]authz.User, error)
}

// Guesses slows down who guesses passwords.
type Guesses interface {
	// Attempt counts a try before the password is looked at. ReasonRateLimited,
	// with how many seconds to wait, when there were too many for this account
	// or from this address.
	Attempt(ctx context.Context, account, address string) (retryAfter int, err error)
	// Succeeded takes the try back: the password was right.
	Succeeded(ctx context.Context, account, address string) error
	// Undecided takes the try back: whether the password is right could not be
	// known.
	Undecided(ctx context.Context, account, address string) error
}

// Provider is an OpenID provider.
type Provider interface {
	// Begin starts a login that ends at returnTo, a path of this origin. The
	// browser goes to location; it keeps sealed, which nobody else can read or
	// make, in a cookie that is named after flow (a few letters and digits).
	// ReasonIssuerUnavailable when the provider can't be reached.
	Begin(ctx context.Context, returnTo string) (location, flow, sealed string, err error)
	// Flow returns the flow that a callback belongs to; "" for none.
	Flow(query url.Values) string
	// Finish takes the provider's callback. ReasonBadRequest when it does not
	// fit what the browser kept, ReasonLoginRefused when the provider refuses
	// or what it says proves nobody, ReasonIssuerUnavailable.
	Finish(ctx context.Context, query url.Values, sealed string) (l authz.Login, returnTo string, err error)
	// LogoutToken verifies a logout token (OpenID Connect Back-Channel Logout
	// 1.0 section 2.6). ReasonBadRequest for one that is not valid.
	LogoutToken(ctx context.Context, raw string) (l authz.ProviderLogin, tokenID string, expires time.Time, err error)
}
