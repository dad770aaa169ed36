package authz

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"
)

// User is somebody whom a user store or an OpenID provider vouches for.
type User struct {
	Identity
	Organizations []string // those that the user may switch to; nil: nobody keeps a list
}

// Device is where a login came from: for its owner to recognize it by, never
// for a decision.
type Device struct {
	Address   string // of the client; "" unknown
	UserAgent string // as the client gave it; "" unknown
}

// ProviderLogin is a login as an OpenID provider knows it, so that the
// provider can end it (OpenID Connect Back-Channel Logout 1.0).
type ProviderLogin struct {
	Issuer    string // "": no provider
	Subject   string // sub
	SessionID string // sid; "" where the provider gives none
}

// Login is a user who has just authenticated: what a session is made of.
type Login struct {
	Identity
	Organizations []string
	// AuthTime is when the user authenticated; zero means now.
	AuthTime time.Time
	// TTL is the life of the session, and what it is renewed to; zero means
	// that of the store.
	TTL time.Duration
	// Values are further members of the session's record, with what
	// encoding/json makes of each. None may stand where the identity or the
	// cookie does.
	Values   map[string]any
	Device   Device
	Provider ProviderLogin
	// Replaces is the id of the session that this one takes the place of: the
	// old one ends with the creation of the new one. "" for none.
	Replaces string
}

// ActiveLogin is a session, or a refresh family, as its owner or an
// administrator sees it.
type ActiveLogin struct {
	Handle string // [Handle] of its id
	User          // of a family the id only: its identity is the profile
	Device
	Created  time.Time // zero: unknown
	LastSeen time.Time // zero: unknown
	Expires  time.Time // zero: never
}

// Handle is the name of a session or a refresh family that may be shown: in
// lists, logs and URLs. It is a hash of the id and opens nothing. None begins with
// a hyphen: on a command line that would be an option.
func Handle(id string) string {
	sum := sha256.Sum256([]byte("gatehouse handle\x00" + id))
	handle := base64.RawURLEncoding.EncodeToString(sum[:15])
	if handle[0] == '-' {
		return "_" + handle[1:]
	}
	return handle
}

// UserChange is what an administrator changes about a user while the user's
// sessions and tokens live. Nil leaves as it is.
type UserChange struct {
	Organization *string
	Roles        *[]string
	Disabled     *bool
}

// Ending names what a logout ends. Empty fields end nothing.
type Ending struct {
	SessionID  string
	Family     string
	TokenID    string    // jti of an access token
	TokenUntil time.Time // from when on no verifier takes that token any more
}

// ErrRefreshReused is in the refusal of a refresh token that was used before: its family
// is revoked, whether or not enough replicas have confirmed that.
var ErrRefreshReused = errors.New("a refresh token that was used before: its family is revoked")

// RefreshToken is a refresh token of ours that is authentic; whether it is
// still good is the store's to say. It prints without its text, in logs and
// JSON as well.
type RefreshToken struct {
	Family     string
	Generation int               // 0 for the first token of a family
	Hash       [sha256.Size]byte // SHA-256 of its text: all of it that a store may keep
	Text       string            // what the client holds; a secret
}

// String returns the handle of the family and the generation.
func (t RefreshToken) String() string {
	return "refresh token " + Handle(t.Family) + "/" + strconv.Itoa(t.Generation)
}

// Format writes String, whatever the verb.
func (t RefreshToken) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// MarshalText returns String.
func (t RefreshToken) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// LogValue returns String.
func (t RefreshToken) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Family is a refresh family: all refresh tokens that come from one login by
// rotation. One of them is current.
type Family struct {
	ID       string
	UserID   string
	AuthTime time.Time // when the user authenticated
	Created  time.Time
	LastUsed time.Time
	Expires  time.Time
	Device   Device
	// Generation and Hash are those of the current token.
	Generation int
	Hash       [sha256.Size]byte
}

// Grant is what an access token of ours is issued for.
type Grant struct {
	UserID   string
	Family   string    // sid; "" for none
	AuthTime time.Time // auth_time; zero for unknown
	// After is the user's revocation mark: the token's iat, which counts whole
	// seconds, is put behind it. Zero for none.
	After time.Time
}
