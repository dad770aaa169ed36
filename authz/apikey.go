package authz

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"
)

// ServicePrefix begins the id of an internal caller, and of nobody else.
const ServicePrefix = "service:"

// APIKey is one key of an internal caller, known by its hash only. Several
// keys may have one name, so that the old one stays valid while callers move
// to the new one.
type APIKey struct {
	Name     string
	SHA256   [sha256.Size]byte
	Policies []string  // names of the policies that the key may use; empty: none
	AuthAPI  bool      // the key may call the internal part of the auth API
	Expires  time.Time // zero: never

	id string // of its principal
}

// APIKeys authenticates internal callers by the header x-internal-api-key.
// It is read-only after construction and safe for concurrent use.
type APIKeys struct {
	keys []APIKey
	now  func() time.Time
}

// NewAPIKeys returns the authenticator of these keys. now is the clock; nil
// means [time.Now].
func NewAPIKeys(keys []APIKey, now func() time.Time) *APIKeys {
	if now == nil {
		now = time.Now
	}
	keys = slices.Clone(keys)
	for i := range keys {
		keys[i].id = ServicePrefix + keys[i].Name
	}
	return &APIKeys{keys: keys, now: now}
}

// Kind returns KindAPIKey.
func (*APIKeys) Kind() Kind { return KindAPIKey }

// Credential returns the presented key.
func (*APIKeys) Credential(r *Request) (string, bool) { return r.Headers.Header(HeaderAPIKey) }

func (*APIKeys) looks() string { return "no header " + HeaderAPIKey }

// Lookup returns the key that was presented, ReasonAPIKeyUnknown or
// ReasonAPIKeyExpired. It compares hashes, all of them, in constant time.
func (a *APIKeys) Lookup(presented string) (APIKey, error) {
	sum := sha256.Sum256(unsafe.Slice(unsafe.StringData(presented), len(presented))) //nolint:gosec // G103: it is only read
	found, live := -1, false
	now := a.now()
	for i := range a.keys {
		if subtle.ConstantTimeCompare(sum[:], a.keys[i].SHA256[:]) == 1 && !live {
			found, live = i, a.keys[i].live(now)
		}
	}
	switch {
	case found < 0 || presented == "":
		return APIKey{}, Refuse(ReasonAPIKeyUnknown, "no key has this hash")
	case !live:
		return APIKey{}, Refuse(ReasonAPIKeyExpired, "key %q expired at %v", a.keys[found].Name, a.keys[found].Expires)
	}
	return a.keys[found], nil
}

func (k *APIKey) summary() string {
	if k.Expires.IsZero() {
		return fmt.Sprintf("%q, which doesn't expire", k.Name)
	}
	return fmt.Sprintf("%q, until %s", k.Name, moment(k.Expires))
}

func (k *APIKey) live(now time.Time) bool { return k.Expires.IsZero() || now.Before(k.Expires) }

// Authenticate implements [Authenticator]. The principal's id is
// [ServicePrefix] and the key's name; it has no roles.
func (a *APIKeys) Authenticate(ctx context.Context, presented string, p *Policy) (*Principal, error) {
	t := TraceFrom(ctx)
	began := t.now()
	key, err := a.Lookup(presented)
	if err != nil {
		t.Add(StageProof, "key", began, err, "")
		return nil, err
	}
	if !slices.Contains(key.Policies, p.Name) {
		err := &Error{ReasonAPIKeyPolicy, errors.New("key " + key.Name + " may not use policy " + p.Name)}
		t.Add(StageProof, "key", began, err, "")
		return nil, err
	}
	if t != nil {
		t.Add(StageProof, "key", began, nil, "%s", key.summary())
	}
	return &Principal{
		Identity: Identity{ID: key.id},
		Kind:     KindAPIKey,
		APIKey:   key.Name,
	}, nil
}
