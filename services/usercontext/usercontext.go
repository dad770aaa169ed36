package usercontext

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The headers in which the gate passes the identity on, and the one in which
// services show their key to each other, unless [Options] say otherwise.
const (
	HeaderUserID         = "x-user-id"
	HeaderEmail          = "x-user-email"
	HeaderRoles          = "x-user-roles"
	HeaderOrganizationID = "x-org-id"
	HeaderInternalKey    = "x-internal-api-key"
)

// DefaultMaxBytes bounds the identity headers of one request, all values
// together. It is twice what the gate writes at most by default.
const DefaultMaxBytes = 16 << 10

// Why a request has no user that could be acted on. Errors of this package
// wrap one of them; their text names headers but never repeats a value.
var (
	// ErrAnonymous: no identity header at all. The gate let the request
	// through without an identity, as the route's policy allows.
	ErrAnonymous = errors.New("no user: the gate passed no identity on")
	// ErrMalformed: headers that the gate cannot have written.
	ErrMalformed = errors.New("malformed identity headers")
	// ErrForbidden: a known caller who may not do this, or a caller without
	// the internal key.
	ErrForbidden = errors.New("forbidden")
)

// servicePrefix marks the ids of callers that authenticated with an internal
// API key at the gate.
const servicePrefix = "service:"

// User is who is calling, as the gate found out. The JSON form is the one in
// which Gatehouse's auth API answers a user.
type User struct {
	// ID is never empty in a User that this package returned without error.
	ID string `json:"userId"`
	// Email is "" when the gate knows none.
	Email string `json:"email"`
	// Roles is never nil, so it is [] in JSON. It is shared by everyone who
	// asks the same context: don't modify it.
	Roles []string `json:"roles"`
	// OrganizationID is the organization that the user works in now; "" when
	// there is none.
	OrganizationID string `json:"organizationId"`
}

// Service returns the name of the service that is calling, when the caller
// is no person but showed an internal API key at the gate: its id is then
// "service:" followed by the name of the key.
func (u User) Service() (name string, ok bool) {
	name, ok = strings.CutPrefix(u.ID, servicePrefix)
	if !ok || name == "" {
		return "", false
	}
	return name, true
}

// HasRole reports whether the user has at least one of the roles. It is
// false when none are asked for, and the empty string is no role, so a
// forgotten setting opens nothing. Roles are compared byte for byte.
func (u User) HasRole(anyOf ...string) bool {
	return slices.ContainsFunc(anyOf, func(role string) bool {
		return role != "" && slices.Contains(u.Roles, role)
	})
}

type contextKey struct{}

// NewContext returns a context that carries the user; a user without an ID
// makes it carry none, whatever ctx carried. The middleware calls it; so does
// a test of a handler, which then needs no headers.
func NewContext(ctx context.Context, user User) context.Context {
	if user.Roles == nil {
		user.Roles = []string{}
	}
	return context.WithValue(ctx, contextKey{}, user)
}

// FromContext returns the user that [Require] or [Optional] read. Without
// one, or behind Optional for an anonymous caller, ok is false and the user
// has no ID and no roles.
func FromContext(ctx context.Context) (user User, ok bool) {
	user, _ = ctx.Value(contextKey{}).(User)
	if user.ID == "" {
		return nobody(), false
	}
	return user, true
}

type assertionKey struct{}

// AssertionFromContext returns the assertion that the middleware of a [Reader] with a
// Verifier verified, for its SessionID above all.
func AssertionFromContext(ctx context.Context) (a Assertion, ok bool) {
	a, ok = ctx.Value(assertionKey{}).(Assertion)
	return a, ok && !a.Expires.IsZero()
}

// NewAssertionContext is [NewContext] with a whole assertion, for middleware of other
// kinds and for tests of handlers.
func NewAssertionContext(ctx context.Context, a Assertion) context.Context {
	return NewContext(context.WithValue(ctx, assertionKey{}, a), a.User)
}

func nobody() User { return User{Roles: []string{}} }

// Options configure a [Reader]. The zero value is what the gate does by
// default.
type Options struct {
	// Names of the headers, in any case; they must be those of the gate's
	// identity.headers. Empty means the default. The gate protects the names
	// that it was configured with and no others, so a service that listens
	// to different ones believes the client.
	UserID, Email, Roles, OrganizationID string
	// InternalKey is the name of the header with the internal key.
	InternalKey string
	// MaxBytes bounds the identity headers, all values together, in bytes.
	// Zero means [DefaultMaxBytes]. It should be no less than the gate's
	// identity.max_header_bytes.
	MaxBytes int
	// Verifier, when not nil, checks that the gate vouches for the headers, in
	// [HeaderAssertion], and that these say the same. Without one that header is not
	// looked at.
	Verifier *Verifier
	// Now is the clock by which keys expire; nil means [time.Now].
	Now func() time.Time
	// OnRefusal, when not nil, learns of every request that the Reader's
	// middleware refuses, for the log: err wraps [ErrAnonymous],
	// [ErrMalformed], [ErrForbidden], [ErrUnverified] or [ErrKeysUnavailable] and holds
	// no header values. ErrMalformed and ErrUnverified deserve an alarm: somebody reached the service around the
	// gate. It may be called concurrently.
	OnRefusal func(ctx context.Context, err error)
}

// Reader reads the identity headers. The functions of this package are those
// of a Reader with zero [Options]. It is safe for concurrent use.
type Reader struct {
	names       [headerCount]string // lower case
	internalKey string              // lower case
	maxBytes    int
	now         func() time.Time
	onRefusal   func(context.Context, error)
	verifier    *Verifier // nil: nothing is verified
}

// The identity headers, as indices into Reader.names.
const (
	headerUserID = iota
	headerEmail
	headerRoles
	headerOrganizationID
	headerCount
)

// NewReader returns a Reader, or an error when a name is not a possible
// header name or two of them are the same; `-` and `_` count as the same, as
// they do for CGI and WSGI servers.
func NewReader(o Options) (*Reader, error) {
	r := &Reader{maxBytes: o.MaxBytes, now: o.Now, onRefusal: o.OnRefusal, verifier: o.Verifier}
	if r.maxBytes == 0 {
		r.maxBytes = DefaultMaxBytes
	}
	if r.maxBytes < 0 {
		return nil, fmt.Errorf("usercontext: MaxBytes is %d: give a positive number of bytes, or 0 for the default", o.MaxBytes)
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.onRefusal == nil {
		r.onRefusal = func(context.Context, error) {}
	}
	seen := make(map[string]string, headerCount+1)
	for _, n := range []struct {
		field, name, standard string
		to                    *string
	}{
		{"UserID", o.UserID, HeaderUserID, &r.names[headerUserID]},
		{"Email", o.Email, HeaderEmail, &r.names[headerEmail]},
		{"Roles", o.Roles, HeaderRoles, &r.names[headerRoles]},
		{"OrganizationID", o.OrganizationID, HeaderOrganizationID, &r.names[headerOrganizationID]},
		{"InternalKey", o.InternalKey, HeaderInternalKey, &r.internalKey},
	} {
		name := n.name
		if name == "" {
			name = n.standard
		}
		if !isToken(name) {
			return nil, fmt.Errorf("usercontext: %s: %q is not a header name", n.field, name)
		}
		name = strings.ToLower(name)
		folded := strings.ReplaceAll(name, "_", "-")
		if other, taken := seen[folded]; taken {
			return nil, fmt.Errorf("usercontext: %s and %s both name the header %s: give each its own", other, n.field, name)
		}
		seen[folded] = n.field
		*n.to = name
	}
	return r, nil
}

var defaultReader = func() *Reader {
	r, err := NewReader(Options{})
	if err != nil {
		panic(err)
	}
	return r
}()

// FromHeaders reads the user from the headers that the gate set. It returns
// a user with an ID, or an error that wraps [ErrAnonymous] (no identity
// header at all) or [ErrMalformed], and then a user without ID and roles.
//
// The map's keys may be in any case, so it reads gRPC metadata as well. Only
// what the gate can have written is accepted; see the package comment. In
// particular:
//   - Id, email and organization are visible ASCII in which %XX stands for
//     the bytes of other characters in UTF-8. They are decoded once, and
//     must be UTF-8 without control characters afterwards.
//   - Roles are a JSON array of strings in ASCII. A missing header means no
//     roles; an empty one is malformed.
//   - An empty email or organization is the same as a missing one. An empty
//     or missing id beside any other identity header is malformed.
//   - A name with `_` in place of `-` is malformed, even alone: the gate
//     removes those.
func FromHeaders(h http.Header) (User, error) { return defaultReader.FromHeaders(h) }

// FromHeaders is the function [FromHeaders] for this Reader's headers. With a Verifier
// it is [Reader.Verified] without the assertion, and waits for the gate's keys for some
// seconds at most.
func (r *Reader) FromHeaders(h http.Header) (User, error) {
	a, err := r.Verified(context.Background(), h)
	return a.User, err
}

// Verified reads the user and, with a Verifier, checks that the gate signed that it is
// the one: else the error wraps [ErrUnverified], or [ErrKeysUnavailable] where nobody
// can tell. Without a Verifier it is FromHeaders, and the assertion has the user alone.
func (r *Reader) Verified(ctx context.Context, h http.Header) (Assertion, error) {
	user, err := r.plain(h)
	if r.verifier == nil || err != nil && !errors.Is(err, ErrAnonymous) {
		return Assertion{User: user}, err
	}
	refused := Assertion{User: nobody()}
	raw, there, doubled := assertionIn(h)
	switch {
	case doubled != nil:
		return refused, doubled
	case !there && err != nil: // nobody calls, and nobody says otherwise
		return refused, err
	case !there:
		return refused, unverified("no %s", HeaderAssertion)
	case err != nil:
		return refused, unverified("%s without the identity headers", HeaderAssertion)
	}
	a, err := r.verifier.Verify(ctx, raw)
	if err != nil {
		return refused, err
	}
	if !a.User.same(user) {
		return refused, unverified("the identity headers say something else than what is signed")
	}
	return a, nil
}

// assertionIn picks the assertion out, which may be there once.
func assertionIn(h http.Header) (raw string, there bool, err error) {
	for key, values := range h {
		switch {
		case !foldsTo(key, HeaderAssertion):
		case !strings.EqualFold(key, HeaderAssertion):
			return "", false, fmt.Errorf("%w: a header is spelt like %s with - and _ exchanged", ErrMalformed, HeaderAssertion)
		case len(values) > 1 || len(values) == 1 && there:
			return "", false, fmt.Errorf("%w: %s is there more than once", ErrMalformed, HeaderAssertion)
		case len(values) == 1:
			raw, there = values[0], true
		}
	}
	return raw, there, nil
}

// plain reads the user from the identity headers, and believes them.
func (r *Reader) plain(h http.Header) (User, error) {
	headers, err := r.identityHeaders(h)
	if err != nil {
		return nobody(), err
	}
	if headers == (identity{}) {
		return nobody(), ErrAnonymous
	}
	if headers[headerUserID].value == "" {
		return nobody(), fmt.Errorf("%w: identity headers without a value of %s", ErrMalformed, r.names[headerUserID])
	}
	user := nobody()
	for _, text := range []struct {
		index int
		to    *string
	}{
		{headerUserID, &user.ID},
		{headerEmail, &user.Email},
		{headerOrganizationID, &user.OrganizationID},
	} {
		if *text.to, err = decodeText(headers[text.index].value); err != nil {
			return nobody(), r.malformed(text.index, err)
		}
	}
	if headers[headerRoles].present {
		if user.Roles, err = decodeRoles(headers[headerRoles].value); err != nil {
			return nobody(), r.malformed(headerRoles, err)
		}
	}
	return user, nil
}

func (r *Reader) malformed(header int, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrMalformed, r.names[header], err)
}

// identity holds the raw values of the identity headers of one request.
type identity [headerCount]struct {
	value   string
	present bool // an empty value is present all the same
}

// identityHeaders picks the identity headers out, each of which may be there
// once, and refuses names that servers with CGI roots would take for theirs.
func (r *Reader) identityHeaders(h http.Header) (identity, error) {
	var found identity
	size := 0
	for key, values := range h {
		for i, name := range r.names {
			if !foldsTo(key, name) {
				continue
			}
			if !strings.EqualFold(key, name) {
				return identity{}, fmt.Errorf("%w: a header is spelt like %s with - and _ exchanged", ErrMalformed, name)
			}
			for _, value := range values {
				if found[i].present {
					return identity{}, fmt.Errorf("%w: %s is there more than once", ErrMalformed, name)
				}
				found[i].value, found[i].present = value, true
				size += len(value)
			}
		}
	}
	if size > r.maxBytes {
		return identity{}, fmt.Errorf("%w: %d bytes where at most %d are accepted", ErrMalformed, size, r.maxBytes)
	}
	return found, nil
}
