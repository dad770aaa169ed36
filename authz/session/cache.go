package session

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session/internal/table"
	"github.com/gatehouse-auth/gatehouse/authz/session/internal/tracking"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// The coherent cache. What was read stays in a table (facts.go), as long as
// Redis is known to announce what changes (package tracking). An announcement
// takes out what it is about, whoever made the change; what was being read at
// that moment is not kept either.
//
//	answer from the table    the lease runs, the entry is of this epoch, and its
//	                         own deadline, from the time to live that was read
//	                         with it, has not come: Redis announces the end of a
//	                         key late, or never
//	ask Redis                all else; and "fresh" reads always
//
// Absence is kept like presence: a session that is not there, a token that is
// not revoked, a user without a mark.

// CacheOptions configure the cache. The zero value of a field is its default.
type CacheOptions struct {
	// MaxEntries bounds the sessions, each with its user; a token with its
	// family and user counts as one and a half. Default 200,000.
	MaxEntries int
	// Heartbeat is the time between two proofs that changes are announced.
	// What the cache answers was true two and a half of it ago, at the worst,
	// when announcements stop coming; else within a millisecond, as a rule.
	// Default 500ms.
	Heartbeat time.Duration
	// OmitRecords keeps the identity of each session without the rest of its
	// record: [authz.Session] Values, and so [authz.Principal] Session, are nil
	// in answers from the cache, and where Redis is asked for a record that was read
	// before. Right where no condition looks into them.
	OmitRecords bool
	// OnState is told when the cache can be used, or can't any more.
	OnState func(CacheState)
}

const (
	defaultMaxEntries = 200_000
	defaultHeartbeat  = 500 * time.Millisecond
)

// CacheState says whether the cache can be used.
type CacheState struct {
	Live bool // changes are announced, and the cache answers
	// Unsupported: the server does not announce changes, so it is asked every
	// time.
	Unsupported bool
	Err         error // why it can't be used
}

// CacheStats are the figures of the cache since the store was made.
type CacheStats struct {
	Hits          int64 // answers without asking Redis
	Misses        int64 // questions to Redis that the cache could not answer
	Shared        int64 // answers that waited for another one's question
	Stale         int64 // old answers given by leave of a policy
	Invalidations int64 // announced changes
	Flushes       int64 // announcements that everything has changed
	Drops         int64 // times that nothing in it could be trusted any more
	Evicted       int64 // entries that had to make place
	Entries       int
	Bytes         int64
}

// The kinds of names in the table.
const (
	kindSession = 's' // by id: record, dead mark, time of use
	kindUser    = 'u' // by id: mark and profile
	kindToken   = 't' // by jti: whether it was revoked
	kindFamily  = 'f' // by name: whether it was revoked
)

type cache struct {
	store       *Store
	table       *table.Table
	tracker     *tracking.Tracker
	keepRecords bool

	renewing atomic.Bool // by the writer: one at a time

	mu      sync.Mutex
	flights map[question]*flight

	waiting    atomic.Int32 // for a flight
	turnedAway atomic.Int64 // since too many waited

	hits, misses, shared, stale, invalidations, flushes, drops atomic.Int64
}

// question is what is asked: about a session, or about a token.
type question struct {
	session string
	passive bool // whoever asks for all then doesn't touch the session
	token   authz.TokenRef
}

// isAbout reports whether what is kept under a name, which is none of a session's,
// is or may be a part of the answer.
func (q question) isAbout(n table.Name) bool {
	switch n.Kind {
	case kindToken:
		return q.token.TokenID == n.ID
	case kindFamily:
		return q.token.Family == n.ID
	case kindUser: // whose session it is, the answer will tell
		return q.session != "" || q.token.UserID == n.ID
	}
	return false
}

// flight is a question under way that others wait for.
type flight struct {
	epoch uint32
	done  chan struct{}
	// Set before done is closed:
	session  *loaded
	standing authz.Standing
	err      error
}

func newCache(s *Store, o CacheOptions) *cache {
	if o.MaxEntries == 0 {
		o.MaxEntries = defaultMaxEntries
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = defaultHeartbeat
	}
	c := &cache{store: s, table: table.New(2*o.MaxEntries, sizeOf(o)), keepRecords: !o.OmitRecords, flights: map[question]*flight{}}
	var wasLive atomic.Bool
	c.tracker = s.newTracker(o.Heartbeat, c.changed, c.changedAll, func(st tracking.State) {
		if wasLive.Swap(st.Live) && !st.Live {
			c.drops.Add(1)
		}
		if o.OnState != nil {
			o.OnState(cacheState(st))
		}
	})
	return c
}

// newTracker returns what has Redis tell which keys changed. The feed is told first.
func (s *Store) newTracker(heartbeat time.Duration, changed func(key string), changedAll func(), onState func(tracking.State)) *tracking.Tracker {
	client := s.client
	if behind, ok := client.(*sentinelClient); ok {
		client = behind.Client
	}
	o := tracking.Options{
		Prefixes:  []string{s.o.Prefix, prefixUser, prefixRevoked, markDead, markBefore},
		Heartbeat: heartbeat, Timeout: s.o.Timeout, Changed: changed, ChangedAll: changedAll, OnState: onState,
	}
	if f := s.feed; f != nil {
		o.Changed = func(key string) { f.heard(key); changed(key) }
		o.ChangedAll = func() { f.heardAll(); changedAll() }
	}
	return tracking.New(client, o)
}

// tracker is that of the cache; in a store without one, another for the feed alone.
func (s *Store) tracker() *tracking.Tracker {
	if s.cache != nil {
		return s.cache.tracker
	}
	return s.newTracker(defaultHeartbeat, func(string) {}, func() {}, nil)
}

// sizeOf is the size of an entry on average, for a bound: above what they take.
// A session has two, one of them of the user.
func sizeOf(o CacheOptions) int {
	if o.OmitRecords {
		return 400
	}
	return 2 << 10
}

func cacheState(st tracking.State) CacheState {
	return CacheState{Live: st.Live, Unsupported: st.Refused, Err: st.Err}
}

// Run keeps the cache coherent, and the feed going, until ctx ends. Without it, and in a store
// without a cache, every question goes to Redis. Behind Sentinel it also sees to it
// that a master that was replaced is heard no longer than a heartbeat, whether there
// is a cache or not.
func (s *Store) Run(ctx context.Context) error {
	if behind, ok := s.client.(*sentinelClient); ok {
		every := defaultHeartbeat
		if s.o.Cache != nil && s.o.Cache.Heartbeat > 0 {
			every = s.o.Cache.Heartbeat
		}
		var watching sync.WaitGroup
		watching.Go(func() { behind.masters.watch(ctx, every) })
		defer watching.Wait()
	}
	var working sync.WaitGroup
	defer working.Wait()
	if s.feed != nil {
		working.Go(func() { s.feed.run(ctx) })
	}
	switch {
	case s.cache != nil:
		return s.cache.tracker.Run(ctx)
	case s.feed != nil:
		return s.feed.track(ctx)
	}
	<-ctx.Done()
	return nil
}

// CacheState returns whether the cache can be used; ok is false for a store
// without one.
func (s *Store) CacheState() (st CacheState, ok bool) {
	if s.cache == nil {
		return st, false
	}
	return cacheState(s.cache.tracker.State()), true
}

// CacheProofAge returns how long ago everything was known that had changed until then,
// by which the cache lives; before the first time, since it was made. ok is false for a
// store without a cache.
func (s *Store) CacheProofAge() (age time.Duration, ok bool) {
	if s.cache == nil {
		return 0, false
	}
	_, age = s.cache.tracker.Proven()
	return age, true
}

// CacheStats returns the figures of the cache; zero for a store without one.
func (s *Store) CacheStats() CacheStats {
	c := s.cache
	if c == nil {
		return CacheStats{}
	}
	t := c.table.Stats()
	return CacheStats{
		Hits: c.hits.Load(), Misses: c.misses.Load(), Shared: c.shared.Load(), Stale: c.stale.Load(),
		Invalidations: c.invalidations.Load(), Flushes: c.flushes.Load(), Drops: c.drops.Load(),
		Evicted: t.Evicted, Entries: t.Entries, Bytes: t.Bytes,
	}
}

// changed is told of each key that changed.
func (c *cache) changed(key string) {
	c.invalidations.Add(1)
	if n, ok := c.store.nameOf(key); ok {
		c.drop(n)
	}
}

func (c *cache) changedAll() {
	c.flushes.Add(1)
	c.table.DropAll()
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.flights)
}

// drop takes a name out. Nobody waits any more for the question about it that is
// under way.
func (c *cache) drop(n table.Name) {
	c.table.Drop(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.Kind == kindSession { // the most of them, by far
		delete(c.flights, question{session: n.ID})
		delete(c.flights, question{session: n.ID, passive: true})
		return
	}
	for q := range c.flights {
		if q.isAbout(n) {
			delete(c.flights, q)
		}
	}
}

// nameOf returns under which name the facts are kept that a key has a part in.
// It is the inverse of keys.go.
func (s *Store) nameOf(key string) (table.Name, bool) {
	if id, ok := strings.CutPrefix(key, s.o.Prefix); ok {
		return table.Name{Kind: kindSession, ID: id}, true
	}
	if id, ok := strings.CutPrefix(key, prefixUser); ok {
		return table.Name{Kind: kindUser, ID: id}, true
	}
	if jti, ok := strings.CutPrefix(key, prefixRevoked); ok {
		return table.Name{Kind: kindToken, ID: jti}, true
	}
	if tag, ok := strings.CutPrefix(key, markBefore+"{"+prefixUser); ok && strings.HasSuffix(tag, "}") {
		return table.Name{Kind: kindUser, ID: tag[:len(tag)-1]}, true
	}
	about, ok := strings.CutPrefix(key, markDead)
	if !ok {
		return table.Name{}, false
	}
	if id, ok := strings.CutPrefix(about, s.o.Prefix); ok { // a prefix with a tag of its own
		return table.Name{Kind: kindSession, ID: id}, true
	}
	if len(about) < 2 || about[0] != '{' || about[len(about)-1] != '}' {
		return table.Name{}, false
	}
	about = about[1 : len(about)-1]
	if family, ok := strings.CutPrefix(about, prefixRefresh); ok {
		return table.Name{Kind: kindFamily, ID: family}, true
	}
	id, ok := strings.CutPrefix(about, s.o.Prefix)
	return table.Name{Kind: kindSession, ID: id}, ok
}

// textOfBytes is string(b) without a copy, for bytes that nobody changes as long
// as the string is used.
func textOfBytes(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) } //nolint:gosec // G103: as said

// session returns what the table has about a session and its user, in memory of
// its own.
func (c *cache) session(id string, epoch uint32, now time.Time, o authz.ReadOptions) (l *loaded, touch int64, ok bool) {
	m := &authz.Memory{}
	f := &found{Session: &m.Session}
	touch, ok, refused := c.read(id, epoch, now, o, f, m)
	if !ok || refused != nil {
		return &loaded{refused: refused}, 0, ok
	}
	l = &loaded{found: f}
	if f.ID == "" {
		return l, touch, true
	}
	return l, touch, c.user(f.ID, epoch, now.UnixMilli(), &l.standing, m)
}

// read fills f with what the table has about a session: alive, or refused.
func (c *cache) read(id string, epoch uint32, now time.Time, o authz.ReadOptions, f *found, m *authz.Memory) (touch int64, ok bool, refused error) {
	ms := now.UnixMilli()
	value, deadline, ok := c.table.Get(table.Name{Kind: kindSession, ID: id}, ms, epoch, m.Bytes[:0])
	m.Bytes = value
	if !ok {
		return 0, false, nil
	}
	*f.Session = authz.Session{Identity: authz.Identity{Roles: f.Roles}, Organizations: f.Organizations}
	if touch, refused = c.store.readSession(textOfBytes(value), f); refused != nil {
		return 0, authz.ReasonOf(refused) != authz.ReasonInternal, refused
	}
	f.ttl = ttlNever
	if deadline != math.MaxInt64 {
		f.ttl = time.Duration(deadline-ms) * time.Millisecond
	}
	if c.keepRecords && !o.OmitRecord && f.ID != "" {
		var err error
		if f.Values, err = decodeObject(f.text); err != nil {
			return 0, false, nil
		}
	}
	return touch, true, nil
}

// user fills st with what the table has about a user.
func (c *cache) user(userID string, epoch uint32, ms int64, st *standing, m *authz.Memory) bool {
	value, _, ok := c.table.Get(table.Name{Kind: kindUser, ID: userID}, ms, epoch, m.Bytes)
	if !ok {
		return false
	}
	facts := value[len(m.Bytes):]
	m.Bytes = value
	st.refused = readUserFacts(textOfBytes(facts), &st.Standing, m)
	return st.refused == nil || authz.ReasonOf(st.refused) != authz.ReasonInternal
}

// live reports whether the table may answer: changes are announced, and those
// that were have been worked off.
func (c *cache) live() (epoch uint32, ok bool) {
	epoch, ok = c.tracker.Live()
	return epoch, ok && c.tracker.Settled()
}

// CachedSession implements [authz.CachedSessionStore].
func (s *Store) CachedSession(id string, o authz.ReadOptions, m *authz.Memory) (*authz.Session, bool) {
	c := s.cache
	if c == nil || o.Fresh || o.Passive {
		return nil, false
	}
	epoch, live := c.live()
	if !live {
		return nil, false
	}
	now := s.o.Now()
	f := found{Session: &m.Session}
	touch, ok, refused := c.read(id, epoch, now, o, &f, m)
	if !ok || refused != nil || f.ID == "" || touch <= now.UnixMilli() || o.IdleTimeout > 0 && f.idle(now) > o.IdleTimeout {
		return nil, false
	}
	var user standing
	if !c.user(f.ID, epoch, now.UnixMilli(), &user, m) || user.refused != nil {
		return nil, false
	}
	m.Session.Standing = user.Standing
	m.Hits = &c.hits
	return &m.Session, true
}

// last is what was known of a session when it was looked at last, nil for nothing.
func (c *cache) last(id string) *found {
	last, ok := c.table.Last(table.Name{Kind: kindSession, ID: id})
	if !ok {
		return nil
	}
	f := &found{Session: &authz.Session{}}
	if _, err := c.store.readSession(textOfBytes(last), f); err != nil {
		return nil
	}
	if c.keepRecords { // their values are needed
		f.sum = 0
	}
	return f
}

// until is the deadline of what lives so long from now.
func until(now time.Time, ttl time.Duration) int64 {
	if ttl < 0 {
		return math.MaxInt64
	}
	return now.Add(ttl).UnixMilli()
}

// loadSession asks Redis for a session and keeps the answer. But for fresh reads it
// waits for another one's question if there is one under way.
func (c *cache) loadSession(ctx context.Context, id string, keys recordKeys, o authz.ReadOptions) (l *loaded, first bool, err error) {
	epoch, live := c.tracker.Live()
	if !live {
		c.misses.Add(1)
		l, err = c.store.load(ctx, keys, c.last(id))
		return l, true, err
	}
	name := table.Name{Kind: kindSession, ID: strings.Clone(id)}
	if o.Fresh || !c.tracker.Settled() { // there may be news about the question that is under way
		l, err = c.ask(ctx, name, keys, epoch)
		return l, true, err
	}
	f, first, err := c.share(ctx, question{session: name.ID, passive: o.Passive}, epoch, func(ctx context.Context, f *flight) {
		f.session, f.err = c.ask(ctx, name, keys, epoch)
	})
	if err != nil {
		return nil, false, err
	}
	return f.session, first, f.err
}

// share has a question asked once for all who have it at the same moment. first is
// true for the one who asked. The error is that ctx ended. ask may go on after that, and
// so must hold nothing that is the caller's.
func (c *cache) share(ctx context.Context, q question, epoch uint32, ask func(context.Context, *flight)) (f *flight, first bool, err error) {
	if ctx.Err() != nil { // whatever the store would do
		return nil, false, unavailable("ask the store", fmt.Errorf("%w: its time was over before it was asked: %w", redisguard.ErrOverloaded, ctx.Err()))
	}
	f, first = c.board(q, epoch)
	if !first {
		return f, false, c.wait(ctx, f)
	}
	f.err = authz.Refuse(authz.ReasonInternal, "the one who asked the store for all was stopped") // should it panic, which opens nothing
	// The others must not lose their answer because this client went away, nor must it
	// wait for longer than it has time.
	own := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > c.store.o.Timeout {
		defer c.land(q, f)
		ask(own, f)
		return f, true, nil
	}
	go func() {
		defer c.land(q, f)
		defer func() {
			if p := recover(); p != nil { // a bug, which must not end the process
				f.err = authz.Refuse(authz.ReasonInternal, "panic while the store was asked: %v", p)
			}
		}()
		ask(own, f)
	}()
	return f, true, c.await(ctx, f)
}

// board joins the flight of a question, or begins one.
func (c *cache) board(q question, epoch uint32) (f *flight, leads bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.flights[q]; ok && f.epoch == epoch {
		c.shared.Add(1)
		return f, false
	}
	f = &flight{epoch: epoch, done: make(chan struct{})}
	c.flights[q] = f
	return f, true
}

func (c *cache) land(q question, f *flight) {
	c.mu.Lock()
	if c.flights[q] == f {
		delete(c.flights, q)
	}
	c.mu.Unlock()
	close(f.done)
}

// wait waits for another one's question, unless too many do.
func (c *cache) wait(ctx context.Context, f *flight) error {
	defer c.waiting.Add(-1)
	if int(c.waiting.Add(1)) > c.store.guard.Most() {
		c.turnedAway.Add(1)
		return unavailable("wait for a question that is under way", redisguard.ErrOverloaded)
	}
	return c.await(ctx, f)
}

// await waits for an answer. That there was none while somebody had patience is no
// outage yet: the one who asked will tell.
func (c *cache) await(ctx context.Context, f *flight) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-f.done: // both at once, as after a standstill
		return nil
	default:
	}
	return unavailable("wait for a question that is under way",
		fmt.Errorf("%w: it is not known yet whether the store answers: %w", redisguard.ErrOverloaded, ctx.Err()))
}

// ask asks Redis for a session, and keeps what was not announced to have changed
// since.
func (c *cache) ask(ctx context.Context, name table.Name, keys recordKeys, epoch uint32) (*loaded, error) {
	c.misses.Add(1)
	last := c.last(name.ID)
	now := c.store.o.Now()
	if c.holds(name, last, epoch, now) { // asked all the same
		l, err := c.store.load(ctx, keys, last)
		switch {
		case err != nil:
		case l.refused != nil || l.found.sum != last.sum:
			c.drop(name) // the announcement is on its way
		default: // the time of use is not announced
			c.table.Change(name, now.UnixMilli(), epoch, func(facts []byte) { setSeen(facts, l.found.LastSeen) })
		}
		return l, err
	}
	redirects := c.tracker.Redirects()
	session, search := c.table.Begin(name), c.table.Search(kindUser)
	var facts []byte // nil: nothing is kept
	var deadline int64
	defer func() {
		c.table.Cancel(search)
		c.table.End(session, facts, deadline, epoch)
	}()
	l, err := c.store.load(ctx, keys, last)
	if err != nil || c.tracker.Redirects() != redirects {
		return l, err
	}
	facts, deadline = c.factsOf(l, now)
	if l.found != nil && l.found.ID != "" {
		user := table.Name{Kind: kindUser, ID: l.found.ID}
		c.table.EndAs(search, user, userFacts(l.standing.Standing, l.standing.refused), until(now, l.standing.ttl), epoch)
	}
	return l, nil
}

// holds reports whether the table would answer about a session, with what was read
// of it last.
func (c *cache) holds(n table.Name, last *found, epoch uint32, now time.Time) bool {
	ms := now.UnixMilli()
	return last != nil && last.sum != 0 && last.ID != "" && c.table.Holds(n, ms, epoch) &&
		c.table.Holds(table.Name{Kind: kindUser, ID: last.ID}, ms, epoch)
}

// factsOf returns what to keep of a session, nil for nothing, and how long. The
// time is one before the question, so that nothing is kept too long.
func (c *cache) factsOf(l *loaded, now time.Time) (facts []byte, deadline int64) {
	switch {
	case l.refused != nil && (l.saved || authz.ReasonOf(l.refused) == authz.ReasonSessionExpired): // it will be gone in a moment
		return nil, 0
	case l.refused != nil && l.deadFor >= 0:
		return refusedFacts(l.refused), until(now, l.deadFor)
	case l.refused != nil:
		return refusedFacts(l.refused), until(now, absenceLife)
	case l.found.seenErr != nil:
		return nil, 0
	case l.found.sum == 0: // one of its times lies ahead: it will be read otherwise by and by
		return nil, 0
	}
	return c.store.sessionFacts(l.found, now), until(now, l.found.ttl)
}

// absenceLife is how long it is kept that something is not there: announcements
// end that, too.
const absenceLife = time.Hour

// old returns what the table knew about a session when announcements stopped
// coming, if that is not longer ago than the policy allows.
func (c *cache) old(id string, now time.Time, o authz.ReadOptions) (*loaded, bool) {
	epoch, age := c.tracker.Proven()
	if age > o.StaleFor {
		return nil, false
	}
	l, _, ok := c.session(id, epoch, now, o)
	if ok {
		c.stale.Add(1)
	}
	return l, ok
}
