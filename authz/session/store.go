package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// Options configure a [Store]. The zero value of a field is its default.
type Options struct {
	// Prefix of the keys of session records. Default "sess:". It must not
	// begin like the other keys that Gatehouse reads, nor be the beginning of
	// one; braces in it must be a cluster hash tag.
	Prefix string
	// TTL is how long a record lives that does not say so itself, by its
	// cookie.originalMaxAge. Default 24h.
	TTL time.Duration
	// Rolling renews the life of a record with each use, at most once per
	// TouchInterval (default 1m) over all replicas. Records that live less
	// than two intervals are renewed when half of their life is gone, since
	// they would end in the middle of their use otherwise.
	Rolling       bool
	TouchInterval time.Duration
	// Fields name where the identity stands in a record.
	Fields Fields
	// Profiles reads user:<id> beside each session and token.
	Profiles bool
	// IdlePrecision keeps the time of the last gated request of every session
	// that precise, for policies with an idle timeout: the least of what
	// [IdlePrecision] says for them. Zero: no policy has one, and the time is
	// kept to the TouchInterval, for lists.
	IdlePrecision time.Duration
	// AccessTTL is the life of our access tokens, default 15m: a revoked
	// refresh family is remembered longer than that. RefreshTTL is the life of
	// a refresh family after its last rotation, default 168h. RefreshGrace is
	// how long after its first use a refresh token may be used again; zero is
	// the default, 10s, and negative is not at all.
	AccessTTL, RefreshTTL, RefreshGrace time.Duration
	// ConfirmReplicas is how many replicas must hold a revocation before it is
	// acknowledged: an error with [authz.ReasonNotConfirmed] says that it was
	// made, and that fewer of them said in time that they have it. Zero waits
	// for none. All that a master has is the number with which no failover undoes
	// what was acknowledged: with fewer, one that doesn't have it may be promoted. An
	// embedded store has none.
	ConfirmReplicas int
	// Timeout bounds each call of the store as a whole. Default 100ms. Calls
	// that look through many records have it for each step. Waiting for
	// replicas has it twice more, once for its turn. The client must respect the deadline of a
	// context (ContextTimeoutEnabled), as those of [Open] do.
	Timeout time.Duration
	// Cache keeps what was read for as long as the server announces changes;
	// nil: every question goes to Redis. [Store.Run] must run for it.
	Cache *CacheOptions
	// Feed has [Store.Follow] tell what ends. [Store.Run] must run for it.
	Feed bool
	// Cookie is what created records say about theirs. Express sends it again
	// when it renews a session.
	Cookie Cookie
	// Now is the clock; default [time.Now].
	Now func() time.Time
	// OnWriteError, where not nil, is told of writes that failed beside a read
	// that did not: a session was found, or refused, but its renewal, its time
	// of use, its place in the index, or the removal of its record was lost. It
	// must be safe for concurrent use. Of what was left out since the server
	// doesn't answer it isn't told: [Store.GuardStats] count that.
	OnWriteError func(error)
}

// Cookie describes the session cookie as express-session keeps it in a record.
type Cookie struct {
	InsecureHTTP bool   // not secure: sent without TLS, too
	SameSite     string // "strict" (default), "lax" or "none"
}

// IdlePrecision returns how precisely the time of use must be kept for an idle
// timeout: to the touch interval (zero: its default) or a tenth of the
// timeout, whichever is less.
func IdlePrecision(timeout, touchInterval time.Duration) time.Duration {
	return max(min(cmp.Or(touchInterval, defaultTouchInterval), timeout/10), time.Millisecond)
}

const (
	defaultPrefix        = "sess:"
	defaultTTL           = 24 * time.Hour
	defaultTouchInterval = time.Minute
	defaultTimeout       = 100 * time.Millisecond
	defaultAccessTTL     = 15 * time.Minute
	defaultRefreshTTL    = 7 * 24 * time.Hour
	defaultRefreshGrace  = 10 * time.Second
)

// Validate says what is wrong with the options; nil when nothing is.
func (o Options) Validate() error {
	var errs []error
	if o.Prefix != "" {
		if problem := badPrefix(o.Prefix); problem != "" {
			errs = append(errs, fmt.Errorf("prefix %q: %s", o.Prefix, problem))
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"TTL", o.TTL},
		{"TouchInterval", o.TouchInterval},
		{"IdlePrecision", o.IdlePrecision},
		{"Timeout", o.Timeout},
		{"AccessTTL", o.AccessTTL},
		{"RefreshTTL", o.RefreshTTL},
		{"RefreshGrace", max(o.RefreshGrace, 0)},
	} {
		if d.value < 0 || d.value > 0 && d.value < time.Millisecond {
			errs = append(errs, fmt.Errorf("%s is %v: Redis counts in milliseconds, so it must be one at least, or 0 for the default", d.name, d.value))
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"TTL", o.TTL}, {"AccessTTL", o.AccessTTL}, {"RefreshTTL", o.RefreshTTL}, {"RefreshGrace", o.RefreshGrace}} {
		if d.value > markLife {
			errs = append(errs, fmt.Errorf("%s is %v: the most is %v, the life of a revocation mark", d.name, d.value, markLife))
		}
	}
	if c := o.Cache; c != nil {
		if c.MaxEntries < 0 {
			errs = append(errs, fmt.Errorf("Cache.MaxEntries is %d: want 1 or more, or 0 for the default", c.MaxEntries))
		}
		if c.Heartbeat < 0 || c.Heartbeat > 0 && c.Heartbeat < time.Millisecond {
			errs = append(errs, fmt.Errorf("Cache.Heartbeat is %v: want a millisecond or more, or 0 for the default", c.Heartbeat))
		}
	}
	if o.ConfirmReplicas < 0 {
		errs = append(errs, fmt.Errorf("ConfirmReplicas is %d: want 0 or more", o.ConfirmReplicas))
	}
	errs = append(errs, o.Fields.validate())
	switch o.Cookie.SameSite {
	case "", "strict", "lax", "none":
	default:
		errs = append(errs, fmt.Errorf("Cookie.SameSite is %q: want strict, lax or none", o.Cookie.SameSite))
	}
	return errors.Join(errs...)
}

func (o Options) withDefaults() Options {
	o.Prefix = cmp.Or(o.Prefix, defaultPrefix)
	o.TTL = cmp.Or(o.TTL, defaultTTL)
	o.TouchInterval = cmp.Or(o.TouchInterval, defaultTouchInterval)
	o.IdlePrecision = cmp.Or(o.IdlePrecision, o.TouchInterval)
	o.AccessTTL = cmp.Or(o.AccessTTL, defaultAccessTTL)
	o.RefreshTTL = cmp.Or(o.RefreshTTL, defaultRefreshTTL)
	if o.RefreshGrace = cmp.Or(o.RefreshGrace, defaultRefreshGrace); o.RefreshGrace < 0 {
		o.RefreshGrace = -time.Millisecond // which is one that scripts see, too
	}
	o.Fields = o.Fields.withDefaults()
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Cookie.SameSite = cmp.Or(o.Cookie.SameSite, "strict")
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.OnWriteError == nil {
		o.OnWriteError = func(error) {}
	}
	return o
}

// Store keeps sessions, refresh families, revocation marks and profiles in
// Redis, alone, behind Sentinel or as a Cluster. It implements
// [authz.SessionStore] and [authz.StandingStore]. Safe for concurrent use.
//
// Errors carry an [authz.Reason], but for those that say that a call made no
// sense (no user id, say). No error holds an id, a record or a key.
type Store struct {
	client   redis.UniversalClient
	single   singleClient // the same where it has one server, nil for a Cluster
	o        Options
	sweeping chan struct{} // holds a value while there is a sweep
	seed     maphash.Seed  // of sum
	cache    *cache        // nil: none
	feed     *feed         // nil: none
	guard    *redisguard.Guard
}

var (
	_ authz.SessionStore  = (*Store)(nil)
	_ authz.StandingStore = (*Store)(nil)

	_ authz.CachedSessionStore   = (*Store)(nil)
	_ authz.CachedStandingStore  = (*Store)(nil)
	_ authz.MemoryCookieVerifier = (*Signer)(nil)
)

// New returns a store. It doesn't connect. It panics for options that
// [Options.Validate] refuses. Closing the client is the caller's business.
func New(client redis.UniversalClient, o Options) *Store {
	if err := o.Validate(); err != nil {
		panic("session: " + err.Error())
	}
	single, _ := client.(singleClient)
	s := &Store{
		client: client, single: single, o: o.withDefaults(), sweeping: make(chan struct{}, 1), seed: maphash.MakeSeed(),
		guard: redisguard.Of(client),
	}
	if o.Feed {
		s.feed = newFeed(s)
	}
	if o.Cache != nil {
		s.cache = newCache(s, *o.Cache)
	}
	if s.feed != nil {
		s.feed.tracker = s.tracker()
	}
	return s
}

// Ping reports whether the store can be reached, as checks find it: while it is known to
// be silent, it isn't asked. An error with [authz.ReasonOverloaded] says nothing against
// it.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := redisguard.Watch(ctx, s.o.Timeout)
	defer cancel()
	if err := s.client.Ping(ctx).Err(); err != nil {
		return unavailable("ping", err)
	}
	return nil
}

// GuardStats are the figures of what keeps requests from waiting for servers that
// don't answer, or not all of them in time.
type GuardStats = redisguard.Stats

// GuardStats returns the figures of the store's client since it was made; zero for
// an embedded store, which needs no guard.
func (s *Store) GuardStats() GuardStats {
	g := s.guard.Stats()
	if c := s.cache; c != nil {
		g.Waiting += int(c.waiting.Load())
		g.Full += c.turnedAway.Load()
	}
	return g
}

// deadline bounds a step.
func (s *Store) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if repeatable, _ := ctx.Value(repeatableKey{}).(bool); repeatable {
		return redisguard.Repeatable(ctx, s.o.Timeout)
	}
	return context.WithTimeout(ctx, s.o.Timeout)
}

type repeatableKey struct{}

// repeatable is the context of steps that take nothing away, and before which nothing has
// changed: each may be refused when too many ask. All others are orders, which are not,
// and don't wait behind these.
func repeatable(ctx context.Context) context.Context {
	return context.WithValue(ctx, repeatableKey{}, true)
}

// order is the context of steps that are orders, whatever they are part of.
func order(ctx context.Context) context.Context {
	return context.WithValue(ctx, repeatableKey{}, false)
}

// Session implements [authz.SessionStore]. From the cache it takes no round
// trip, else one (two in a Cluster, for a session that it sees for the first
// time), and another one when a renewal or the time of use is due, only after
// the session and its user were found in order, since a refused session must not
// be kept alive by whoever tries it. That one never fails the request. It also
// notes the session in the user's index, so that it can be listed and found,
// whoever made it.
//
// An idle timeout counts from the last request for the session that came
// through here, under whatever policy, but for passive ones. It ends a session
// up to the precision of [IdlePrecision] early, never late. A session without
// such a request starts counting with its login, or, where its record doesn't
// say when that was, with this request; but when its record says that the user
// authenticated longer ago than the time of a request would be remembered, it
// was idle all along.
//
// A read-only question is answered from the cache, where that has the session, and
// leaves nothing behind.
func (s *Store) Session(ctx context.Context, id string, o authz.ReadOptions) (*authz.Session, error) {
	keys, ok := s.keys(id)
	if !ok {
		return nil, authz.Refuse(authz.ReasonSessionUnknown, "an id that no session of ours can have")
	}
	now := s.o.Now()
	if s.cache != nil && !o.Fresh && (!o.Passive || o.ReadOnly) {
		if epoch, live := s.cache.live(); live {
			l, touch, ok := s.cache.session(id, epoch, now, o)
			// Another replica may have seen a request that this one hasn't.
			if ok && (o.IdleTimeout == 0 || l.found == nil || l.found.idle(now) <= o.IdleTimeout) {
				s.cache.hits.Add(1)
				if o.ReadOnly {
					authz.TraceFrom(ctx).None(authz.StageProof, "store", "not asked: the cache has the session")
					return s.admit(ctx, id, keys, l, o, false)
				}
				due := touch <= now.UnixMilli() && s.cache.claimTouch(id, now)
				return s.admit(ctx, id, keys, l, o, due)
			}
		}
	}
	l, first, err := s.ask(ctx, id, keys, o)
	if err != nil {
		if s.cache != nil && o.StaleFor > 0 && authz.ReasonOf(err) == authz.ReasonStoreUnavailable {
			if l, ok := s.cache.old(id, now, o); ok {
				session, err := s.admit(ctx, id, keys, l, o, false)
				if session != nil {
					session.Stale = true
				}
				return session, err
			}
		}
		return nil, err
	}
	return s.admit(ctx, id, keys, l, o, first)
}

// ask asks Redis for a session. first is false for those who only waited for
// another one's question: that one touches the session.
func (s *Store) ask(ctx context.Context, id string, keys recordKeys, o authz.ReadOptions) (l *loaded, first bool, err error) {
	if s.cache == nil {
		l, err = s.load(ctx, keys, nil)
		return l, true, err
	}
	l, first, err = s.cache.loadSession(ctx, id, keys, o)
	if first && err == nil && !o.Passive {
		s.cache.claimTouch(id, s.o.Now())
	}
	return l, first, err
}

// admit returns the session if it is one, and touches it where that is due.
func (s *Store) admit(ctx context.Context, id string, keys recordKeys, l *loaded, o authz.ReadOptions, touch bool) (*authz.Session, error) {
	if l.refused != nil {
		if l.saved && !o.ReadOnly {
			s.end(ctx, keys, "") // another program saved it again
		}
		return nil, l.refused
	}
	f := l.found
	if o.IdleTimeout > 0 {
		if f.seenErr != nil {
			return nil, unavailable("read the time of use", f.seenErr)
		}
		if f.idle(s.o.Now()) > o.IdleTimeout {
			if !o.ReadOnly {
				s.end(ctx, keys, f.ID)
			}
			return nil, authz.Refuse(authz.ReasonSessionIdle, "unused for longer than %v", o.IdleTimeout)
		}
	}
	if f.ID == "" {
		return nil, authz.Refuse(authz.ReasonSessionAnonymous, "the record has no %s: nobody logged in", s.o.Fields.UserID)
	}
	if l.standing.refused != nil {
		return nil, l.standing.refused
	}
	// Others may hold the same answer.
	session := *f.Session
	session.Standing = l.standing.Standing
	if touch && !o.ReadOnly && !revoked(&session) {
		s.revive(ctx, id, keys, f, o)
	}
	return &session, nil
}

// revoked reports whether the user lost this session: those that the core will
// refuse must not be kept alive.
func revoked(session *authz.Session) bool {
	return session.Standing.Disabled() || session.Standing.Covers(session.MadeAt())
}

// found is a live record.
type found struct {
	*authz.Session
	text     string        // of the record
	sum      uint64        // of the text, where it can be told by it again; else 0
	provider []string      // under which provider's login it is indexed
	ttl      time.Duration // what is left of its life; negative: no end
	life     time.Duration // what it is renewed to
	memory   time.Duration // how long its time of use is remembered
	seenErr  error         // why its time of use can't be read
}

// The two answers of PTTL that are no time.
const (
	ttlAbsent = -2 * time.Nanosecond // as go-redis gives them
	ttlNever  = -1 * time.Nanosecond
)

// idle returns how long the session was not used, as far as that is known.
func (f *found) idle(now time.Time) time.Duration {
	if !f.LastSeen.IsZero() {
		return now.Sub(f.LastSeen)
	}
	if !f.Created.IsZero() { // a login is a use
		return now.Sub(f.Created)
	}
	if made := f.MadeAt(); !made.IsZero() && now.Sub(made) > f.memory {
		return now.Sub(made)
	}
	return 0
}

// end ends a session of a user that is refused in any case.
func (s *Store) end(ctx context.Context, keys recordKeys, userID string) {
	ctx, cancel := redisguard.Touch(ctx, s.o.Timeout)
	defer cancel()
	_, err := s.apply(ctx, "end session", false, []slot{{finish(keys, false, 0, userID)}})
	s.lost(err)
}

// lost tells of a write beside a read that failed. What was left out, since the
// server doesn't answer, is counted elsewhere: one line for each request says
// nothing more.
func (s *Store) lost(err error) {
	if err != nil && !redisguard.Refused(err) {
		s.o.OnWriteError(err)
	}
}

// exec sends a pipeline. A nil error means that the server answered every
// command: with a value, with redis.Nil, or that the key holds another type.
// Nothing else may be looked at: the zero value of a command that was never
// answered must not pass for "no mark".
func exec(ctx context.Context, pipe redis.Pipeliner) error {
	cmds, err := pipe.Exec(ctx)
	if !answered(err) {
		return err
	}
	for _, cmd := range cmds {
		if !answered(cmd.Err()) {
			return cmd.Err()
		}
	}
	return nil
}

func answered(err error) bool { return err == nil || errors.Is(err, redis.Nil) || isWrongType(err) }

func isWrongType(err error) bool { return redis.HasErrorPrefix(err, "WRONGTYPE") }

var errWrongType = errors.New("its key does not hold a string")

// textOf returns what the GET of an executed pipeline found. The only error is
// errWrongType.
func textOf(cmd *redis.StringCmd) (text string, exists bool, err error) {
	switch {
	case errors.Is(cmd.Err(), redis.Nil):
		return "", false, nil
	case cmd.Err() != nil:
		return "", true, errWrongType
	}
	return cmd.Val(), true, nil
}

// timeOf returns the time in a mark of ours, zero when there is none. One that
// can't be read is an error: what it revokes is not known.
func timeOf(cmd *redis.StringCmd) (time.Time, error) {
	text, exists, err := textOf(cmd)
	if err != nil || !exists {
		return time.Time{}, err
	}
	return markTime(text)
}

func markTime(text string) (time.Time, error) {
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, errors.New("the mark is not a number of Unix milliseconds: correct or delete it")
	}
	return time.UnixMilli(ms), nil
}

// unavailable is that the store can't be asked: overloaded where that is not its
// fault.
func unavailable(step string, err error) error {
	if errors.Is(err, redisguard.ErrOverloaded) {
		return authz.Refuse(authz.ReasonOverloaded, "%s: %w", step, err)
	}
	return authz.Refuse(authz.ReasonStoreUnavailable, "%s: %w", step, err)
}
