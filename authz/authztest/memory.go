package authztest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Memory is a store in memory: an [authz.SessionStore] and an
// [authz.StandingStore]. It keeps no rule of its own but those of
// [StoreSuite]. Safe for concurrent use.
type Memory struct {
	clock *Clock

	mu       sync.Mutex
	sessions map[string]memorySession
	dead     map[string]bool
	seen     map[string]time.Time
	profiles map[string]authz.Profile
	revoked  map[string]time.Time // by token id or family, until when
	before   map[string]time.Time // by user
	failure  error
	asked    int
}

type memorySession struct {
	authz.Session
	expires time.Time // zero: never
}

// NewMemory returns an empty store.
func NewMemory(clock *Clock) *Memory {
	return &Memory{
		clock:    clock,
		sessions: map[string]memorySession{},
		dead:     map[string]bool{},
		seen:     map[string]time.Time{},
		profiles: map[string]authz.Profile{},
		revoked:  map[string]time.Time{},
		before:   map[string]time.Time{},
	}
}

// Put saves a session as another program would, over a mark if need be: the
// mark still counts. Zero ttl: it does not expire.
func (m *Memory) Put(id string, s authz.Session, ttl time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	saved := memorySession{Session: s}
	if ttl != 0 {
		saved.expires = m.clock.Now().Add(ttl)
	}
	m.sessions[id] = saved
}

// Delete removes a session as another program would.
func (m *Memory) Delete(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, id)
}

// PutProfile saves the profile of a user; nil removes it.
func (m *Memory) PutProfile(userID string, p *authz.Profile) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p == nil {
		delete(m.profiles, userID)
		return
	}
	m.profiles[userID] = *p
}

// Fail makes every call fail as if the store were out of reach; nil heals it.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failure = err
}

// Asked returns how often Session and TokenStanding were called.
func (m *Memory) Asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

// lock takes the lock, or says that the store can't be reached.
func (m *Memory) lock(ctx context.Context) error {
	m.mu.Lock()
	err := m.failure
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		m.mu.Unlock()
		return authz.Refuse(authz.ReasonStoreUnavailable, "memory: %w", err)
	}
	return nil
}

// ask is lock for the calls that are counted.
func (m *Memory) ask(ctx context.Context) error {
	m.mu.Lock()
	m.asked++
	m.mu.Unlock()
	return m.lock(ctx)
}

// Session implements [authz.SessionStore].
func (m *Memory) Session(ctx context.Context, id string, o authz.ReadOptions) (*authz.Session, error) {
	if err := m.ask(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	s, ok := m.sessions[id]
	now := m.clock.Now()
	switch {
	case m.dead[id]:
		return nil, authz.Refuse(authz.ReasonSessionRevoked, "marked dead")
	case !ok:
		return nil, authz.Refuse(authz.ReasonSessionUnknown, "no such session")
	case !s.expires.IsZero() && !now.Before(s.expires):
		return nil, authz.Refuse(authz.ReasonSessionExpired, "its time is over")
	}
	s.LastSeen = m.seen[id]
	if o.IdleTimeout > 0 && !s.LastSeen.IsZero() && now.Sub(s.LastSeen) > o.IdleTimeout {
		m.dead[id] = true
		return nil, authz.Refuse(authz.ReasonSessionIdle, "unused for longer than %v", o.IdleTimeout)
	}
	if s.ID == "" {
		return nil, authz.Refuse(authz.ReasonSessionAnonymous, "nobody's")
	}
	s.Standing = m.standing(s.ID)
	disabled := s.Standing.Profile != nil && s.Standing.Profile.Disabled
	if before := s.Standing.RevokedBefore; !disabled && !o.Passive && !o.ReadOnly && (before.IsZero() || s.MadeAt().IsZero() || s.MadeAt().After(before)) {
		m.seen[id] = now
	}
	return &s.Session, nil
}

// TokenStanding implements [authz.StandingStore].
func (m *Memory) TokenStanding(ctx context.Context, ref authz.TokenRef, _ authz.ReadOptions) (authz.Standing, error) {
	if err := m.ask(ctx); err != nil {
		return authz.Standing{}, err
	}
	defer m.mu.Unlock()
	standing := m.standing(ref.UserID)
	now := m.clock.Now()
	for _, key := range []string{tokenKey(ref.TokenID), familyKey(ref.Family)} {
		until, ok := m.revoked[key]
		standing.Revoked = standing.Revoked || ok && now.Before(until)
	}
	return standing, nil
}

func (m *Memory) standing(userID string) authz.Standing {
	standing := authz.Standing{RevokedBefore: m.before[userID]}
	if p, ok := m.profiles[userID]; ok {
		p.Organizations = slices.Clone(p.Organizations)
		standing.Profile = &p
	}
	return standing
}

// Revoke marks a session dead and removes it.
func (m *Memory) Revoke(ctx context.Context, id string) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.dead[id] = true
	delete(m.sessions, id)
	return nil
}

// RevokeToken revokes a token by its id.
func (m *Memory) RevokeToken(ctx context.Context, jti string, until time.Time) error {
	return m.revoke(ctx, tokenKey(jti), until)
}

// RevokeFamily revokes a refresh family.
func (m *Memory) RevokeFamily(ctx context.Context, family string, until time.Time) error {
	return m.revoke(ctx, familyKey(family), until)
}

func tokenKey(jti string) string     { return "token " + jti }
func familyKey(family string) string { return "family " + family }

func (m *Memory) revoke(ctx context.Context, key string, until time.Time) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if until.After(m.revoked[key]) {
		m.revoked[key] = until
	}
	return nil
}

// RevokeUserBefore moves the user's mark forward.
func (m *Memory) RevokeUserBefore(ctx context.Context, userID string, t time.Time) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if t.After(m.before[userID]) {
		m.before[userID] = t
	}
	return nil
}

// Unsigned is an [authz.CookieVerifier] for tests: it takes "ok." and an id.
type Unsigned struct{}

// Verify implements [authz.CookieVerifier].
func (Unsigned) Verify(value string) (id string, ok bool) {
	id, ok = strings.CutPrefix(value, "ok.")
	return id, ok && id != ""
}
