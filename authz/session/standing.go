package session

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session/internal/table"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// What stands for and against tokens.

// TokenStanding implements [authz.StandingStore]: from the cache in no round
// trip, else in one; in none for a token without anything to ask about.
func (s *Store) TokenStanding(ctx context.Context, ref authz.TokenRef, o authz.ReadOptions) (authz.Standing, error) {
	if ref == (authz.TokenRef{}) {
		return authz.Standing{}, nil
	}
	if s.cache == nil {
		return s.askStanding(ctx, ref, nil)
	}
	return s.cache.standingOf(ctx, ref, o)
}

// askStanding asks Redis about a token, and has the answer kept.
func (s *Store) askStanding(ctx context.Context, ref authz.TokenRef, k *keeper) (authz.Standing, error) {
	ctx, cancel := redisguard.Lookup(ctx, s.o.Timeout)
	defer cancel()
	pipe := s.client.Pipeline()
	var keep []func(answered bool)
	answered := false
	defer func() {
		for _, kept := range keep {
			kept(answered)
		}
	}()
	var marks []*redis.DurationCmd
	mark := func(kind byte, id, key string) {
		kept := k.begin(kind, id)
		ttl := pipe.PTTL(ctx, key)
		marks = append(marks, ttl)
		keep = append(keep, func(answered bool) {
			if !answered {
				kept(nil, 0)
				return
			}
			kept(markFacts(ttl.Val()))
		})
	}
	if ref.TokenID != "" {
		mark(kindToken, ref.TokenID, revokedTokenKey(ref.TokenID))
	}
	if ref.Family != "" {
		mark(kindFamily, ref.Family, revokedFamilyKey(ref.Family))
	}
	var user standing
	var userErr error
	read := func() {}
	if ref.UserID != "" {
		kept := k.begin(kindUser, ref.UserID)
		reply := s.readUserReply(ctx, pipe, ref.UserID)
		read = func() { user, userErr = s.judgeUser(reply()) }
		keep = append(keep, func(answered bool) {
			if !answered || userErr != nil {
				kept(nil, 0)
				return
			}
			kept(userFacts(user.Standing, user.refused), user.ttl)
		})
	}
	err := exec(ctx, pipe)
	if err == nil {
		read()
		answered = true
	}
	switch {
	case err != nil:
		return authz.Standing{}, unavailable("read the token's standing", err)
	case userErr != nil:
		return authz.Standing{}, userErr
	}
	for _, ttl := range marks {
		user.Revoked = user.Revoked || ttl.Val() != ttlAbsent
	}
	return user.answer()
}

// CachedStanding implements [authz.CachedStandingStore].
func (s *Store) CachedStanding(ref authz.TokenRef, o authz.ReadOptions, m *authz.Memory) (*authz.Standing, bool) {
	c := s.cache
	if c == nil || o.Fresh {
		return nil, false
	}
	epoch, live := c.live()
	if !live {
		return nil, false
	}
	m.Bytes = m.Bytes[:0]
	st, ok := c.cachedStanding(ref, epoch, s.o.Now(), m)
	if !ok || st.refused != nil {
		return nil, false
	}
	m.Hits = &c.hits
	m.Standing = st.Standing
	return &m.Standing, true
}

// standingOf returns what stands for and against a token, from the table as far
// as it has it.
func (c *cache) standingOf(ctx context.Context, ref authz.TokenRef, o authz.ReadOptions) (authz.Standing, error) {
	s := c.store
	now := s.o.Now()
	epoch, live := c.tracker.Live()
	if !live {
		c.misses.Add(1)
		st, err := s.askStanding(ctx, ref, nil)
		if err != nil && o.StaleFor > 0 && authz.ReasonOf(err) == authz.ReasonStoreUnavailable {
			if epoch, age := c.tracker.Proven(); age <= o.StaleFor {
				if st, ok := c.cachedStanding(ref, epoch, now, &authz.Memory{}); ok {
					c.stale.Add(1)
					st.Stale = true
					return st.answer()
				}
			}
		}
		return st, err
	}
	settled := c.tracker.Settled()
	if !o.Fresh && settled {
		if st, ok := c.cachedStanding(ref, epoch, now, &authz.Memory{}); ok {
			c.hits.Add(1)
			return st.answer()
		}
	}
	ask := func(ctx context.Context, ref authz.TokenRef) (authz.Standing, error) {
		c.misses.Add(1)
		return s.askStanding(ctx, ref, &keeper{c: c, epoch: epoch, now: now})
	}
	if o.Fresh || !settled {
		return ask(ctx, ref)
	}
	q := question{token: authz.TokenRef{
		TokenID: strings.Clone(ref.TokenID), Family: strings.Clone(ref.Family), UserID: strings.Clone(ref.UserID),
	}}
	f, _, err := c.share(ctx, q, epoch, func(ctx context.Context, f *flight) { f.standing, f.err = ask(ctx, q.token) })
	if err != nil {
		return authz.Standing{}, err
	}
	return f.standing, f.err
}

// answer is the standing, or why it can't be told.
func (st standing) answer() (authz.Standing, error) {
	if st.refused != nil {
		return authz.Standing{}, st.refused
	}
	return st.Standing, nil
}

// cachedStanding returns what the table has about a token.
func (c *cache) cachedStanding(ref authz.TokenRef, epoch uint32, now time.Time, m *authz.Memory) (st standing, ok bool) {
	ms := now.UnixMilli()
	var memory [8]byte
	revoked := false
	for _, n := range [...]table.Name{{Kind: kindToken, ID: ref.TokenID}, {Kind: kindFamily, ID: ref.Family}} {
		if n.ID == "" {
			continue
		}
		value, _, ok := c.table.Get(n, ms, epoch, memory[:0])
		if !ok || len(value) != 1 {
			return st, false
		}
		revoked = revoked || value[0] != factClear
	}
	if ref.UserID != "" && !c.user(ref.UserID, epoch, ms, &st, m) {
		return st, false
	}
	st.Revoked = revoked
	return st, true
}

// keeper keeps the parts of an answer about a token.
type keeper struct {
	c     *cache
	epoch uint32
	now   time.Time
}

func (k *keeper) begin(kind byte, id string) func(facts []byte, ttl time.Duration) {
	if k == nil {
		return func([]byte, time.Duration) {}
	}
	r := k.c.table.Begin(table.Name{Kind: kind, ID: strings.Clone(id)})
	redirects := k.c.tracker.Redirects()
	return func(facts []byte, ttl time.Duration) {
		if k.c.tracker.Redirects() != redirects {
			facts = nil
		}
		k.c.table.End(r, facts, until(k.now, ttl), k.epoch)
	}
}

// markFacts say whether a mark is there, and for how long that is so.
func markFacts(ttl time.Duration) ([]byte, time.Duration) {
	if ttl == ttlAbsent {
		return []byte{factClear}, absenceLife
	}
	return []byte{factRevoked}, ttl
}
