package authz

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// Most requests show a credential that was shown before and that nothing has
// changed about. Quick decides them from memory: without waiting for anything,
// and without garbage. It only ever allows. Whatever it can't allow, a refusal
// included, is for [Authorizer.Authorize], which decides it from the beginning;
// so all that Quick has to get right is that the other one would allow, too.
//
// A rate limit is what memory can't know. What it lets pass is counted, so that
// whoever is behind a limit costs its one question and no more; and who was counted
// is not counted again, so the limiter's refusal is final.

// Memory is what an answer from memory is made of. It is used again for the next
// one, so an answer is good until then.
type Memory struct {
	// Bytes hold the texts, ID that of the session id. Those who fill Memory
	// may replace both.
	Bytes, ID []byte
	Session   Session
	Standing  Standing

	// What Profile and its fields point to.
	Profile             Profile
	Email, Organization string
	Roles               []string

	// Hits is where those who fill Memory have it counted that their answer decided a
	// request: what it doesn't decide is asked again. nil: nowhere.
	Hits *atomic.Int64
}

// CachedSessionStore is a [SessionStore] that may know without asking.
//
// CachedSession returns a session that is alive and whose user's standing is
// known, made in m, exactly as Session would return it; ok is false for
// anything else, and where using the session calls for a write. It never blocks.
type CachedSessionStore interface {
	SessionStore
	CachedSession(id string, o ReadOptions, m *Memory) (s *Session, ok bool)
}

// CachedStandingStore is a [StandingStore] that may know without asking: ok is
// false where it doesn't. It never blocks.
type CachedStandingStore interface {
	StandingStore
	CachedStanding(ref TokenRef, o ReadOptions, m *Memory) (s *Standing, ok bool)
}

// MemoryCookieVerifier is a [CookieVerifier] that can make the id in memory of
// the caller's, which it may replace by more.
type MemoryCookieVerifier interface {
	CookieVerifier
	VerifyIn(value string, memory *[]byte) (id string, ok bool)
}

// CachedTokenVerifier is a [TokenVerifier] that may remember a token.
//
// Remembered returns what Verify would return, without verifying anything; ok is
// false where it doesn't remember. The token must not be changed.
type CachedTokenVerifier interface {
	TokenVerifier
	Remembered(raw string) (t *Token, ok bool)
}

// quick is an authenticator that may know from memory. It fills d.Principal, or
// returns false and leaves the rest to Authenticate.
type quick interface {
	quick(value string, p *Policy, d *Decision) bool
}

// Reset makes a decision ready for another request. Its memory stays.
func (d *Decision) Reset() {
	d.Policy, d.Kind, d.Principal, d.Reason, d.Observed, d.Quota = nil, "", nil, "", nil, Quota{}
	d.Extra, d.Metadata = d.Extra[:0], d.Metadata[:0]
	d.memory.Hits = nil
}

// Quick decides a canonical request from memory, into d, which was reset. decided
// is false where it can't: that means nothing at all, and leaves d in any state.
// The error is a refusal of the rate limit, for whose answer Quick waits until the
// deadline, or of what signs the identity; without a limit ctx is not used.
//
// The principal and its texts are good until d is used for another request.
func (a *Authorizer) Quick(ctx context.Context, deadline time.Time, r *Request, d *Decision) (decided bool, err error) {
	if !a.remembers(r, d) {
		return false, nil
	}
	if hits := d.memory.Hits; hits != nil {
		hits.Add(1)
	}
	if d.Policy.RateLimit != "" {
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		if err := a.count(ctx, r, d); err != nil {
			d.Reason = ReasonOf(err)
			return true, err
		}
	}
	if err := a.tell(nil, r, d); err != nil {
		d.Reason = ReasonOf(err)
		return true, err
	}
	return true, nil
}

// remembers reports whether memory allows a request, but for its rate limit.
func (a *Authorizer) remembers(r *Request, d *Decision) bool {
	p, err := a.policies.Match(r)
	if err != nil || p.Observe {
		return false
	}
	d.Policy = p
	for _, kind := range p.Credentials {
		auth := a.authenticators[kind]
		if auth == nil {
			return false
		}
		value, present := auth.Credential(r)
		if !present {
			continue
		}
		q, ok := auth.(quick)
		if !ok || !q.quick(value, p, d) {
			return false
		}
		d.Kind, d.Reason = kind, ReasonAuthenticated
		return d.Principal.ID != "" && !impersonates(kind, d.Principal.ID) &&
			p.recent(d.Principal, a.o.Now()) == nil && a.permits(nil, r, d) == nil
	}
	d.Reason = ReasonAnonymous
	return p.Anonymous && p.permitsNobody(nil, r) == nil
}

// quick implements quick.
func (s *Sessions) quick(value string, p *Policy, d *Decision) bool {
	o := p.readOptions()
	if s.cached == nil || o.Fresh { // then all of it would be done twice
		return false
	}
	var id string
	var ok bool
	if s.inMemory != nil {
		id, ok = s.inMemory.VerifyIn(value, &d.memory.ID)
	} else {
		id, ok = s.verifier.Verify(value)
	}
	if !ok {
		return false
	}
	session, ok := s.cached.CachedSession(id, o, &d.memory)
	if !ok || session.Stale || refuseSession(session) != nil {
		return false
	}
	d.Principal = &d.principal
	fillFromSession(d.Principal, id, session)
	return true
}

// quick implements quick.
func (b *Bearer) quick(raw string, p *Policy, d *Decision) bool {
	o := p.readOptions()
	verifier, ok := b.verifier.(CachedTokenVerifier)
	if !ok || b.cached == nil || o.Fresh { // as above
		return false
	}
	token, ok := verifier.Remembered(raw)
	if !ok {
		return false
	}
	standing, ok := b.cached.CachedStanding(token.ref(), o, &d.memory)
	if !ok || refuseToken(token, standing) != nil {
		return false
	}
	d.Principal = &d.principal
	fillFromToken(d.Principal, token, standing)
	return true
}

// quick implements quick.
func (a *APIKeys) quick(presented string, p *Policy, d *Decision) bool {
	key, err := a.Lookup(presented)
	if err != nil || !slices.Contains(key.Policies, p.Name) {
		return false
	}
	d.Principal = &d.principal
	*d.Principal = Principal{Identity: Identity{ID: key.id}, Kind: KindAPIKey, APIKey: key.Name}
	return true
}
