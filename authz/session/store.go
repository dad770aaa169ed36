package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
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
	// for none. An embedded store has none.
	ConfirmReplicas int
	// Timeout bounds each call of the store as a whole. Default 100ms. Calls
	// that look through many records have it for each step. Waiting for
	// replicas has it once more. The client must respect the deadline of a
	// context (ContextTimeoutEnabled), as those of [Open] do.
	Timeout time.Duration
	// Cookie is what created records say about theirs. Express sends it again
	// when it renews a session.
	Cookie Cookie
	// Now is the clock; default [time.Now].
	Now func() time.Time
	// OnWriteError, where not nil, is told of writes that failed beside a read
	// that did not: a session was found, or refused, but its renewal, its time
	// of use, its place in the index, or the removal of its record was lost. It
	// must be safe for concurrent use.
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
}

var (
	_ authz.SessionStore  = (*Store)(nil)
	_ authz.StandingStore = (*Store)(nil)
)

// New returns a store. It doesn't connect. It panics for options that
// [Options.Validate] refuses. Closing the client is the caller's business.
func New(client redis.UniversalClient, o Options) *Store {
	if err := o.Validate(); err != nil {
		panic("session: " + err.Error())
	}
	single, _ := client.(singleClient)
	return &Store{client: client, single: single, o: o.withDefaults(), sweeping: make(chan struct{}, 1)}
}

// Ping reports whether the store can be reached.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	if err := s.client.Ping(ctx).Err(); err != nil {
		return unavailable("ping", err)
	}
	return nil
}

func (s *Store) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.o.Timeout)
}

// Session implements [authz.SessionStore]. It takes two round trips; a third
// one when a renewal or the time of use is due, and only after the session and
// its user were found in order, since a refused session must not be kept alive
// by whoever tries it. That third one never fails the request.
//
// The third one also notes the session in the user's index, so that it can be
// listed and found, whoever made it.
//
// An idle timeout counts from the last request for the session that came
// through here, under whatever policy, but for passive ones. It ends a session up to the precision
// of [IdlePrecision] early, never late. A session without such a request
// starts counting with this one; but when its record says that the user
// authenticated longer ago than the time of a request would be remembered, it
// was idle all along.
func (s *Store) Session(ctx context.Context, id string, o authz.ReadOptions) (*authz.Session, error) {
	keys, ok := s.keys(id)
	if !ok {
		return nil, authz.Refuse(authz.ReasonSessionUnknown, "an id that no session of ours can have")
	}
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	found, err := s.find(ctx, keys, o)
	if err != nil {
		return nil, err
	}
	if o.IdleTimeout > 0 && found.idle(s.o.Now()) > o.IdleTimeout {
		s.end(ctx, keys)
		return nil, authz.Refuse(authz.ReasonSessionIdle, "unused for longer than %v", o.IdleTimeout)
	}
	if found.ID == "" {
		return nil, authz.Refuse(authz.ReasonSessionAnonymous, "the record has no %s: nobody logged in", s.o.Fields.UserID)
	}
	if err := s.stand(ctx, &found.Standing, found.ID); err != nil {
		return nil, err
	}
	if !lost(found.Session) {
		s.revive(ctx, id, keys, found, o.Passive)
	}
	return found.Session, nil
}

// lost reports whether the user lost this session: those that the core will
// refuse must not be kept alive.
func lost(session *authz.Session) bool {
	return session.Standing.Disabled() || session.Standing.Covers(session.MadeAt())
}

// found is a live record.
type found struct {
	*authz.Session
	ttl       time.Duration // what is left of its life; negative: no end
	life      time.Duration // what it is renewed to
	memory    time.Duration // how long its time of use is remembered
	precision time.Duration // of the time of use
}

// find reads the record and what is held against it, in one round trip. The
// order within it does not matter: a revocation that was acknowledged before
// this call left its mark before it, so the mark is seen whenever it is read.
func (s *Store) find(ctx context.Context, keys recordKeys, o authz.ReadOptions) (*found, error) {
	precision := s.o.IdlePrecision
	if o.IdleTimeout > 0 {
		precision = IdlePrecision(o.IdleTimeout, precision)
	}
	pipe := s.client.Pipeline()
	record := pipe.Get(ctx, keys.record)
	ttl := pipe.PTTL(ctx, keys.record)
	dead := pipe.Exists(ctx, keys.dead)
	seen := pipe.Get(ctx, keys.seen)
	if err := exec(ctx, pipe); err != nil {
		return nil, unavailable("read session", err)
	}
	text, exists, err := textOf(record)
	if dead.Val() != 0 {
		if exists {
			s.end(ctx, keys) // another program saved it again
		}
		return nil, errDead()
	}
	switch {
	case err != nil:
		return nil, authz.Refuse(authz.ReasonSessionMalformed, "the record: %w", err)
	case !exists || ttl.Val() == ttlAbsent:
		return nil, authz.Refuse(authz.ReasonSessionUnknown, "there is no record of that id")
	case ttl.Val() == 0:
		return nil, authz.Refuse(authz.ReasonSessionExpired, "the record's time to live is over")
	}
	session, err := s.o.Fields.decodeRecord(text, s.o.Now())
	if err != nil {
		return nil, authz.Refuse(authz.ReasonSessionMalformed, "the record: %w", err)
	}
	f := &found{Session: session, ttl: ttl.Val(), precision: precision}
	f.life, f.memory = s.lives(session.Values, f.ttl)
	if f.LastSeen, err = timeOf(seen); err != nil && o.IdleTimeout > 0 {
		return nil, unavailable("read the time of use", err)
	}
	return f, nil
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

// revive renews a session that was just used, where that is due. A passive use
// doesn't count as the last one.
func (s *Store) revive(ctx context.Context, id string, keys recordKeys, f *found, passive bool) {
	var life, interval time.Duration
	if s.o.Rolling && f.ttl >= 0 {
		life, interval = f.life, min(s.o.TouchInterval, f.life/2)
	}
	now := s.o.Now()
	renew := life > 0 && life-f.ttl >= interval
	note := !passive && (f.LastSeen.IsZero() || now.Sub(f.LastSeen) >= f.precision)
	if !renew && !note {
		return
	}
	var calls []*scriptCall
	if note || renew {
		slack := min(max(f.precision, s.o.TouchInterval), f.memory/4)
		calls = append(calls, s.enter(keysOf(f.ID).sessions, id, f.memory, slack, now))
		for _, hash := range ourValuesIn(f.Values).provider {
			calls = append(calls, s.enter(providerKey(hash), id, f.memory, slack, now))
		}
	}
	calls = append(calls, &scriptCall{
		script: reviveScript,
		keys:   []string{keys.record, keys.dead, keys.seen},
		args: []any{
			life.Milliseconds(), interval.Milliseconds(),
			now.UnixMilli(), f.precision.Milliseconds(), f.memory.Milliseconds(), passive,
		},
	})
	if _, err := s.send(ctx, calls, false); err != nil {
		s.o.OnWriteError(fmt.Errorf("renew session: %w", err))
	}
}

// end ends a session that is refused in any case.
func (s *Store) end(ctx context.Context, keys recordKeys) {
	if _, err := s.apply(ctx, "end session", false, []slot{{finish(keys, false, 0)}}); err != nil {
		s.o.OnWriteError(err)
	}
}

// stand reads what the store holds for or against a user into standing, in one
// round trip.
func (s *Store) stand(ctx context.Context, standing *authz.Standing, userID string) error {
	pipe := s.client.Pipeline()
	read := s.readUser(ctx, pipe, userID)
	if err := exec(ctx, pipe); err != nil {
		return unavailable("read the user's standing", err)
	}
	return read(standing)
}

// readUser adds the reads about a user to a pipeline, and returns what takes
// their results when it was executed.
func (s *Store) readUser(ctx context.Context, pipe redis.Pipeliner, userID string) func(*authz.Standing) error {
	before := pipe.Get(ctx, beforeKey(userID))
	var profile *redis.StringCmd
	if s.o.Profiles {
		profile = pipe.Get(ctx, profileKey(userID))
	}
	return func(standing *authz.Standing) (err error) {
		if standing.RevokedBefore, err = timeOf(before); err != nil {
			return unavailable("read the user's mark", err)
		}
		if profile == nil {
			return nil
		}
		standing.Profile, err = profileOf(profile)
		return err
	}
}

// profileOf returns the profile that a GET gave, nil when there is none.
func profileOf(cmd *redis.StringCmd) (*authz.Profile, error) {
	text, exists, err := textOf(cmd)
	if err == nil && !exists {
		return nil, nil
	}
	var p *authz.Profile
	if err == nil {
		p, err = decodeProfile(text)
	}
	if err != nil {
		return nil, authz.Refuse(authz.ReasonProfileMalformed, "the profile: %w", err)
	}
	return p, nil
}

// TokenStanding implements [authz.StandingStore], in one round trip; in none
// for a token without anything to ask about.
func (s *Store) TokenStanding(ctx context.Context, ref authz.TokenRef, _ authz.ReadOptions) (authz.Standing, error) {
	if ref == (authz.TokenRef{}) {
		return authz.Standing{}, nil
	}
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	pipe := s.client.Pipeline()
	var revoked []*redis.IntCmd
	if ref.TokenID != "" {
		revoked = append(revoked, pipe.Exists(ctx, revokedTokenKey(ref.TokenID)))
	}
	if ref.Family != "" {
		revoked = append(revoked, pipe.Exists(ctx, revokedFamilyKey(ref.Family)))
	}
	readUser := func(*authz.Standing) error { return nil }
	if ref.UserID != "" {
		readUser = s.readUser(ctx, pipe, ref.UserID)
	}
	if err := exec(ctx, pipe); err != nil {
		return authz.Standing{}, unavailable("read the token's standing", err)
	}
	var standing authz.Standing
	for _, mark := range revoked {
		standing.Revoked = standing.Revoked || mark.Val() != 0
	}
	if err := readUser(&standing); err != nil {
		return authz.Standing{}, err
	}
	return standing, nil
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

func unavailable(step string, err error) error {
	return authz.Refuse(authz.ReasonStoreUnavailable, "%s: %w", step, err)
}
