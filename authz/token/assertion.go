package token

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// AssertionAlgorithm is the alg of assertions.
const AssertionAlgorithm = string(jose.ES256)

// Lives of an assertion. It is renewed when half of it is over, and the rest has to do
// for its way, a slow service and clocks that differ.
const (
	DefaultAssertionTTL = time.Minute
	MinAssertionTTL     = 10 * time.Second
	MaxAssertionTTL     = 5 * time.Minute
)

// AssertionOptions say what assertions look like.
type AssertionOptions struct {
	Issuer string        // iss
	Keys   []*SigningKey // for ES256; the first signs, the others are published
	TTL    time.Duration // default [DefaultAssertionTTL]
	// Entries bounds how many assertions are remembered, and how much memory they take:
	// 1.5 KiB each, on average. Zero is 20,000, and less than zero none.
	Entries int
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// Assertions signs identities for services: it is the [authz.Asserter]. One that it
// signed is used again for half its life, for the same identity by the same
// credential, so that most requests cost no signature. Safe for concurrent use.
type Assertions struct {
	o      AssertionOptions
	signer jose.Signer
	seed   maphash.Seed
	shards [assertionShards]assertionShard
}

// assertionShards is so many that processors seldom wait for each other.
const assertionShards = 32

// assertionSize is what an assertion takes on average, at most, in bytes. It is plenty: 20
// roles or so. Who has hundreds is remembered in the place of others.
const assertionSize = 1536

type assertionShard struct {
	mu      sync.RWMutex
	entries map[uint64]*assertion
	size    int // of all of them, in bytes
}

// assertion is one that was signed, and all that it depends on. What of the principal
// is no claim tells credentials apart: one that was made after a revocation has an
// assertion that is newer than that.
type assertion struct {
	id, email, organization, audience string
	login, tokenID, issued            string
	roles                             []string

	signed       string
	from, before int64 // when it may be used, in Unix nanoseconds by the clock on the wall
	size         int   // what it takes, in bytes
}

// NewAssertions returns what signs. It fails when something is missing, a key is not
// for ES256, or two keys have one kid.
func NewAssertions(o AssertionOptions) (*Assertions, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.TTL = cmp.Or(o.TTL, DefaultAssertionTTL)
	o.Entries = cmp.Or(o.Entries, 20_000)
	switch {
	case o.Issuer == "":
		return nil, errors.New("the issuer of assertions has no name; give its URL")
	case len(o.Keys) == 0:
		return nil, errors.New("assertions need a signing key; make one with: gatehouse keys new --for assertion")
	case o.TTL < MinAssertionTTL || o.TTL > MaxAssertionTTL:
		return nil, fmt.Errorf("assertions that live %v; use %v to %v", o.TTL, MinAssertionTTL, MaxAssertionTTL)
	}
	for _, k := range o.Keys {
		if k.Algorithm() != AssertionAlgorithm {
			return nil, fmt.Errorf("%v can't sign assertions, which are %s; make another one with: gatehouse keys new --for assertion", k, AssertionAlgorithm)
		}
	}
	a := &Assertions{o: o, seed: maphash.MakeSeed()}
	var err error
	if a.o.Keys, err = distinctKeys(o.Keys); err != nil {
		return nil, err
	}
	if a.signer, err = a.o.Keys[0].signer(jose.ContentType(authz.AssertionType)); err != nil {
		return nil, err
	}
	for i := range a.shards {
		a.shards[i].entries = map[uint64]*assertion{}
	}
	return a, nil
}

// JWKS is the JWK set of the keys of both, as JSON; either may be nil. It fails where
// they have a key in common: a service that takes assertions by key would take the
// access tokens of clients.
func JWKS(own *Issuer, a *Assertions) ([]byte, error) {
	var keys []*SigningKey
	if own != nil {
		keys = append(keys, own.o.Keys...)
	}
	if a != nil {
		for _, k := range a.o.Keys {
			if slices.ContainsFunc(keys, func(other *SigningKey) bool { return k.same(other) || k.ID() == other.ID() }) {
				return nil, fmt.Errorf("%v signs access tokens, too; make another one for assertions with: gatehouse keys new --for assertion", k)
			}
		}
		keys = append(keys, a.o.Keys...)
	}
	return publicJWKS(keys)
}

// KeyIDs are the kids of the keys; the first signs.
func (a *Assertions) KeyIDs() []string {
	ids := make([]string, len(a.o.Keys))
	for i, k := range a.o.Keys {
		ids[i] = k.ID()
	}
	return ids
}

// claimText is a claim that is a text, "" for none.
func claimText(p *authz.Principal, name string) string {
	text, _ := p.Claims[name].(string)
	return text
}

// wanted is what an assertion for somebody would depend on. Its texts are the
// principal's.
func wanted(p *authz.Principal, audience string) assertion {
	w := assertion{id: p.ID, email: p.Email, organization: p.Organization, audience: audience, roles: p.Roles, login: p.SessionID}
	if p.Kind == authz.KindBearer {
		w.login, w.tokenID = claimText(p, "sid"), claimText(p, "jti")
		issued, _ := p.Claims["iat"].(json.Number)
		w.issued = string(issued)
	}
	return w
}

func (a *Assertions) hash(w *assertion) uint64 {
	var h maphash.Hash
	h.SetSeed(a.seed)
	for _, text := range [...]string{w.id, w.email, w.organization, w.audience, w.login, w.tokenID, w.issued} {
		_, _ = h.WriteString(text)
		_ = h.WriteByte(0xff) // in no valid text
	}
	for _, role := range w.roles {
		_, _ = h.WriteString(role)
		_ = h.WriteByte(0xff)
	}
	return h.Sum64()
}

// covers reports whether two depend on the same.
func (e *assertion) covers(w *assertion) bool {
	return e.id == w.id && e.email == w.email && e.organization == w.organization && e.audience == w.audience &&
		e.login == w.login && e.tokenID == w.tokenID && e.issued == w.issued && slices.Equal(e.roles, w.roles)
}

// Assert implements [authz.Asserter]: sub, email, roles and org as in the identity
// headers, sid the handle of the session or of the token's refresh family, as the auth
// API lists it, and iss, aud, iat, exp.
func (a *Assertions) Assert(p *authz.Principal, audience string) (string, error) {
	w := wanted(p, audience)
	hash := a.hash(&w)
	shard := &a.shards[hash%assertionShards]
	now := a.o.Now()
	shard.mu.RLock()
	e := shard.entries[hash]
	shard.mu.RUnlock()
	// A clock that was set back is no reason to go on with what seems to come from
	// the future.
	if e != nil && e.covers(&w) && e.from <= now.UnixNano() && now.UnixNano() < e.before {
		return e.signed, nil
	}
	signed, err := a.sign(p, audience, now)
	if err != nil || a.o.Entries < 0 {
		return signed, err
	}
	shard.keep(hash, w.kept(signed, now, a.o.TTL/2), max(a.o.Entries/assertionShards, 1))
	return signed, nil
}

// kept is an assertion that outlives the request.
func (e *assertion) kept(signed string, now time.Time, use time.Duration) *assertion {
	k := *e
	for _, text := range [...]*string{&k.id, &k.email, &k.organization, &k.audience, &k.login, &k.tokenID, &k.issued} {
		*text = strings.Clone(*text)
	}
	k.roles = make([]string, len(e.roles))
	for i, role := range e.roles {
		k.roles[i] = strings.Clone(role)
	}
	k.signed, k.from, k.before = signed, now.UnixNano(), now.Add(use).UnixNano()
	k.size = 320 + len(signed) // itself, and its place in the map
	for _, text := range [...]string{k.id, k.email, k.organization, k.audience, k.login, k.tokenID, k.issued} {
		k.size += len(text)
	}
	for _, role := range k.roles {
		k.size += 16 + max(len(role), 8) // as it is allocated
	}
	return &k
}

// keep remembers an assertion. Where there are too many, or they take too much, those go
// that are too old, or else any. One that would take the place of a quarter of them all
// is not worth it.
func (s *assertionShard) keep(hash uint64, e *assertion, most int) {
	budget := most * assertionSize
	if e.size > max(budget/4, assertionSize) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(hash) // its own predecessor
	full := func() bool { return len(s.entries) >= most || s.size+e.size > budget }
	if full() {
		for h, other := range s.entries {
			if other.before <= e.from {
				s.forget(h)
			}
		}
		for h := range s.entries {
			if !full() {
				break
			}
			s.forget(h)
		}
	}
	s.entries[hash] = e
	s.size += e.size
}

// forget forgets an assertion, if it is there.
func (s *assertionShard) forget(hash uint64) {
	if e := s.entries[hash]; e != nil {
		delete(s.entries, hash)
		s.size -= e.size
	}
}

// sign makes an assertion.
func (a *Assertions) sign(p *authz.Principal, audience string, now time.Time) (string, error) {
	valid := func(s string) string { return strings.ToValidUTF8(s, "\uFFFD") } // as the headers have it
	roles := p.Roles
	if roles == nil {
		roles = []string{}
	}
	payload, err := json.Marshal(struct {
		Issuer       string   `json:"iss"`
		Audience     string   `json:"aud"`
		Subject      string   `json:"sub"`
		Email        string   `json:"email,omitempty"`
		Roles        []string `json:"roles"`
		Organization string   `json:"org,omitempty"`
		Session      string   `json:"sid,omitempty"`
		IssuedAt     int64    `json:"iat"`
		Expires      int64    `json:"exp"`
	}{
		a.o.Issuer, audience, valid(p.ID), valid(p.Email), roles, valid(p.Organization), p.Handle(),
		now.Unix(), now.Add(a.o.TTL).Unix(),
	})
	if err != nil {
		return "", err
	}
	jws, err := a.signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}
