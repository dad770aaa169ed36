package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session/internal/tracking"
)

// The revocation feed tells services with long-lived streams what has ended.
//
// There is no journal of events. A revocation is a mark (keys.go), written in one step
// with all else that the call changes, in the cluster slot of what it is about, and
// kept longer than what it ends: the mark is the event. So there is no moment at which
// a revocation has happened and its event has not been written, in a Cluster neither;
// an event is as safe from a failover as the revocation is, by confirm_replicas, and a
// revocation that is lost with a master has no event. Redis keeps nothing for the feed
// but the marks, and nobody who writes need know of it: an Express application that
// removes a record, an operator with redis-cli, the command line, a replica of an older
// version.
//
//	Redis announces a key        package tracking: in order, whoever changed it
//	the key is pending           once, however often it is announced
//	the worker reads it          from the master, in pipelines: an event is what Redis
//	                             holds, never what somebody was about to write
//	a mark, or a record gone     an event: with the next number, in the ring and to
//	                             everybody who follows
//
// What the announcements prove for the cache they prove here: up to the last beat that
// came back, everything that was acknowledged is known. Without a beat for as long as
// the cache's lease (two and a half heartbeats), or while pending keys can't be read
// for as long, followers are told lag; when the same connections prove themselves again,
// and all that is pending was read, live. When a connection broke (a failover, a
// restart, slots that moved) nobody knows what was missed, and what was removed
// meanwhile left no mark: reset. The ring begins anew then.
//
// A place in the feed is "<Unix ms>.<replica>.<number>". The replica that gave it goes on
// behind its number. Another one has heard of the same changes, at about the same time:
// it tells everything again that it heard since [feedOverlap] before that time, if it has
// listened, and missed nothing, for so long; events may be repeated, since nothing ends
// twice. The clocks of the replicas may differ by less than that. Else: reset.
//
// Nothing is done while nobody follows: an announcement costs an atomic load. A replica
// begins to listen when somebody follows there, or at any other replica: they note that
// in the key gatehouse:feed. It goes on for [feedMemory] after the last of them.

const (
	// feedOverlap is what replicas may differ in: their clocks, and how late they hear.
	feedOverlap = 30 * time.Second
	// feedMemory is how long events are kept at most.
	feedMemory = 10 * time.Minute
	// mostFeedEvents is how many are kept at most, some 250 bytes each. A follower that is
	// behind by more is cut off.
	mostFeedEvents = 20_000
	// mostFeedPending is how many keys may wait to be read. With more of them, reading
	// them is given up, and followers ask anew.
	mostFeedPending = 200_000
	// feedBatch is how many are read in one pipeline.
	feedBatch = 250
	// longestFeedID is how long the id of a user or a token can be that is told. No
	// request holds a longer one, and a client must be able to bound an event.
	longestFeedID = 32 << 10
	// feedPart is how many events are copied for a follower at once.
	feedPart = 64

	feedTick     = 100 * time.Millisecond
	feedInterest = 15 * time.Second // between two looks at whether anybody follows
)

// ErrFeedUnsupported is why nothing can be followed: the server doesn't announce what
// changes, or the store has no feed.
var ErrFeedUnsupported = errors.New("the store doesn't announce what changes, so there is no revocation feed: it takes a Redis with client-side caching (CLIENT TRACKING)")

// FeedStats are the figures of the feed since the store was made.
type FeedStats struct {
	Followers int
	Live      bool                     // announcements come, and were read; false while nobody listens
	Listening bool                     // somebody follows, here or elsewhere, or did a short while ago
	Events    map[authz.FeedKind]int64 // by kind; those to one follower alone not counted
	Cut       int64                    // followers that were too far behind
}

// feedKey is a key that is pending: what it is about.
type feedKey struct {
	kind byte // kindSession for a record, kindToken, kindFamily, or one of these
	id   string
}

const (
	feedDead    = 'd' // a session's mark
	feedMark    = 'b' // a user's
	feedProfile = 'p'
)

type feed struct {
	store   *Store
	tracker *tracking.Tracker
	boot    string // names this process in places

	listens atomic.Bool // listening, for those who only want to know

	mu        sync.Mutex
	listening bool
	quietAt   time.Time // when nobody followed any more
	live      bool
	epoch     uint32
	known     bool          // an epoch was live since it listens
	spoilt    string        // why there must be a reset; "" for not
	pending   []feedPending // in the order in which they were announced
	queued    map[feedKey]struct{}
	reading   time.Time // since when what is being read was pending; zero: nothing
	ring      []authz.FeedEvent
	first     int64     // number of the first event in the ring
	since     time.Time // everything that was heard of since then is in the ring
	whole     time.Time // up to when everything was known, when that could be said last
	followers map[*follower]struct{}
	ended     map[string]int64 // sessions and families marked dead: the number of their event, in the ring
	counts    map[authz.FeedKind]int64
	cut       int64

	wake chan struct{}
}

type feedPending struct {
	feedKey
	since time.Time
}

// follower is somebody who follows. It holds a place in the ring, and no events of its
// own but a part of them: many may be far behind at the same time.
type follower struct {
	events chan authz.FeedEvent
	wake   chan struct{} // there is something new
	gone   chan struct{} // it follows no longer

	// Under the feed's lock.
	place int64            // number of the last event that its goroutine took
	began int64            // and of the last one when it came
	reset *authz.FeedEvent // comes first; nil for not
	state *authz.FeedEvent // comes behind the one that was last then; nil for not, or not any more
	idle  bool             // it has got everything
}

func newFeed(s *Store) *feed {
	return &feed{
		store: s, boot: rand.Text()[:10], wake: make(chan struct{}, 1), first: 1,
		queued: map[feedKey]struct{}{}, followers: map[*follower]struct{}{}, ended: map[string]int64{},
		counts: map[authz.FeedKind]int64{},
	}
}

// heard is told of each key that changed.
func (f *feed) heard(key string) {
	if !f.listens.Load() {
		return
	}
	about, ok := f.store.feedKeyOf(key)
	if !ok {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.listening {
		return
	}
	if len(f.pending) >= mostFeedPending {
		f.spoilt = authz.FeedReasonFlushed
		f.unqueue()
	}
	if _, there := f.queued[about]; !there {
		f.queued[about] = struct{}{}
		about.id = strings.Clone(about.id) // not the whole announcement's
		f.pending = append(f.pending, feedPending{about, f.store.o.Now()})
	}
	f.stir()
}

// heardAll is told that all keys may have changed.
func (f *feed) heardAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spoilt = authz.FeedReasonFlushed
	f.stir()
}

func (f *feed) stir() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// feedKeyOf returns what a key is about.
func (s *Store) feedKeyOf(key string) (feedKey, bool) {
	if id, ok := strings.CutPrefix(key, prefixUser); ok {
		return feedKey{feedProfile, id}, s.o.Profiles
	}
	n, ok := s.nameOf(key)
	switch {
	case n.Kind == kindUser:
		n.Kind = feedMark
	case n.Kind == kindSession && strings.HasPrefix(key, markDead):
		n.Kind = feedDead
	}
	return feedKey{n.Kind, n.ID}, ok
}

// run reads what is pending, until ctx ends.
func (f *feed) run(ctx context.Context) {
	tick, interest := time.NewTicker(feedTick), time.NewTicker(feedInterest)
	defer tick.Stop()
	defer interest.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		case <-tick.C:
		case <-interest.C:
			f.shareInterest(ctx)
		}
		for f.readSome(ctx) {
		}
		f.mu.Lock()
		f.judge()
		f.mu.Unlock()
	}
}

// track has Redis announce changes to the feed alone, while it listens: for a store
// without a cache.
func (f *feed) track(ctx context.Context) error {
	tick := time.NewTicker(feedTick)
	defer tick.Stop()
	tracks := func() {}
	defer func() { tracks() }()
	running := false
	for {
		if listens := f.listens.Load(); listens != running {
			tracks()
			running, tracks = listens, func() {}
			if listens {
				own, cancel := context.WithCancel(ctx)
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					_ = f.tracker.Run(own) // has no error
				}()
				tracks = func() { cancel(); <-ended }
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// shareInterest has all replicas listen while somebody follows at one of them.
func (f *feed) shareInterest(ctx context.Context) {
	f.mu.Lock()
	here, listening, quiet := len(f.followers) > 0, f.listening, f.quietAt
	f.mu.Unlock()
	s := f.store
	ctx, cancel := s.deadline(repeatable(ctx))
	defer cancel()
	if here {
		_ = s.client.Set(ctx, keyFeed, "1", feedMemory).Err() // tried again in a while
		return
	}
	n, err := s.client.Exists(ctx, keyFeed).Result()
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case n == 1 && !listening:
		f.listen()
	case n == 0 && listening && len(f.followers) == 0 && s.o.Now().Sub(quiet) > feedMemory:
		f.listening, f.live, f.known = false, false, false
		f.listens.Store(false)
		f.unqueue()
		f.forget()
	}
}

// listen begins to listen. Nothing of before is known.
func (f *feed) listen() {
	if f.listening {
		return
	}
	f.listening, f.quietAt, f.spoilt = true, f.store.o.Now(), ""
	f.known, f.live, f.whole = false, false, time.Time{}
	f.listens.Store(true)
	f.forget()
	f.judge()
}

// unqueue gives up reading what is pending.
func (f *feed) unqueue() {
	f.pending = nil
	clear(f.queued)
}

// forget empties the ring. It leaves a number out: what comes now doesn't follow on what
// was told last, and who has that for a place has missed something. Those who follow
// are told so by an event.
func (f *feed) forget() {
	f.first += int64(len(f.ring)) + 1
	f.ring = nil
	for w := range f.followers {
		w.place, w.state = f.last(), nil
	}
	f.since = f.store.o.Now()
	clear(f.ended)
}

// judge tells followers what they can rely on.
func (f *feed) judge() {
	if !f.listening {
		return
	}
	now := f.store.o.Now()
	if f.tracker.State().Refused {
		for w := range f.followers { // who asks again is told
			f.drop(w)
		}
		return
	}
	epoch, live := f.tracker.Live()
	if oldest := f.oldest(); !oldest.IsZero() && now.Sub(oldest) > f.tracker.Lease() {
		live = false
	}
	if live && f.known && epoch != f.epoch && f.spoilt == "" {
		f.spoilt = authz.FeedReasonMissed
	}
	if !live {
		if f.live {
			f.live = false
			f.tell(authz.FeedEvent{Kind: authz.FeedLag})
		}
		return
	}
	if f.spoilt != "" || !f.known {
		f.forget()
		reason := cmp.Or(f.spoilt, authz.FeedReasonMissed)
		news := f.known || len(f.followers) > 0 // who came while Redis was out of reach
		f.spoilt, f.epoch, f.known = "", epoch, true
		if news {
			f.tell(authz.FeedEvent{Kind: authz.FeedReset, Reason: reason})
		}
	}
	if !f.live {
		f.live = true
		f.tell(authz.FeedEvent{Kind: authz.FeedLive})
	}
	for len(f.ring) > 0 && now.Sub(f.ring[0].Time) > feedMemory {
		f.evict()
	}
}

// oldest is since when something is pending; zero for nothing.
func (f *feed) oldest() time.Time {
	if f.reading.IsZero() && len(f.pending) > 0 {
		return f.pending[0].since
	}
	return f.reading // which came before
}

func (f *feed) evict() {
	e := f.ring[0]
	if f.ended[e.Session] == f.first {
		delete(f.ended, e.Session)
	}
	f.ring[0] = authz.FeedEvent{}
	f.ring = f.ring[1:]
	f.first++
	f.since = e.Time.Add(time.Millisecond) // another one of that moment may be gone, too
}

// tell gives an event the next number and tells everybody.
func (f *feed) tell(e authz.FeedEvent) {
	f.counts[e.Kind]++
	e.Time = f.store.o.Now()
	f.ring = append(f.ring, e)
	number := f.first + int64(len(f.ring)) - 1
	last := &f.ring[len(f.ring)-1]
	last.ID = f.placeOf(number)
	if e.Kind == authz.FeedSessionEnded && e.Reason == authz.FeedReasonRevoked || e.Kind == authz.FeedFamilyRevoked {
		f.ended[e.Session] = number
	}
	for w := range f.followers {
		w.idle = false
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	if len(f.ring) > mostFeedEvents {
		f.evict()
	}
}

// last is the number of the last event.
func (f *feed) last() int64 { return f.first + int64(len(f.ring)) - 1 }

// serve gives a follower what it has not got, until it is dropped.
func (f *feed) serve(w *follower) {
	defer close(w.events)
	for {
		part, more := f.part(w)
		if !more {
			select {
			case <-w.wake:
			case <-w.gone:
				return
			}
		}
		for _, e := range part {
			select {
			case w.events <- e:
			case <-w.gone:
				return
			}
		}
	}
}

// part returns what comes next for a follower, and takes it as given; more is false where
// there was nothing. One that is so far behind that this has been forgotten is cut off.
func (f *feed) part(w *follower) (part []authz.FeedEvent, more bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := w.place + 1 - f.first
	if _, there := f.followers[w]; there && n < 0 {
		f.cut++
		f.drop(w)
	}
	if n < 0 {
		return nil, false
	}
	w.idle = n == int64(len(f.ring)) && w.reset == nil && w.state == nil
	if w.reset != nil {
		part, w.reset = append(part, *w.reset), nil
	}
	for _, e := range f.ring[n:min(n+feedPart, int64(len(f.ring)))] {
		if w.place == w.began && w.state != nil {
			break
		}
		w.place++
		// Of before, only what can be relied on at the end is told.
		if w.place > w.began || e.Kind != authz.FeedLag && e.Kind != authz.FeedLive {
			part = append(part, e)
		}
	}
	if w.place == w.began && w.state != nil {
		part, w.state = append(part, *w.state), nil
	}
	return part, !w.idle
}

func (f *feed) drop(w *follower) {
	if _, there := f.followers[w]; !there {
		return
	}
	delete(f.followers, w)
	close(w.gone)
	if len(f.followers) == 0 {
		f.quietAt = f.store.o.Now()
	}
}

// placeOf is the place behind an event. Its time is that up to which everything is known
// and was told: while there must be a reset that nobody was told of yet, one of before.
func (f *feed) placeOf(number int64) string {
	if epoch, age := f.tracker.Proven(); f.known && epoch == f.epoch && f.spoilt == "" {
		f.whole = f.store.o.Now().Add(-age)
	}
	at := f.whole
	if oldest := f.oldest(); !oldest.IsZero() && oldest.Before(at) {
		at = oldest
	}
	return fmt.Sprintf("%d.%s.%d", max(at.UnixMilli(), 1), f.boot, number)
}

// parsePlace takes a place apart; ok is false for what is none.
func parsePlace(text string) (at time.Time, boot string, number int64, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return at, "", 0, false
	}
	ms, err := strconv.ParseInt(parts[0], 10, 64)
	number, err2 := strconv.ParseInt(parts[2], 10, 64)
	return time.UnixMilli(ms), parts[1], number, errors.Join(err, err2) == nil && ms > 0 && number >= 0
}

// Follow tells what has ended behind a place in the revocation feed (the ID of an event,
// or of where), and goes on until stop is called. The first event is reset where the
// place is not known, or "", or too much has been forgotten since; then comes what was
// missed, then live or lag, then what happens. events is closed for who is behind by more
// than is kept. where returns the place up to which all was taken from events, "" while that can't be said.
//
// [Store.Run] must run, and [Options] Feed be set. The error is [ErrFeedUnsupported].
func (s *Store) Follow(place string) (events <-chan authz.FeedEvent, where func() string, stop func(), err error) {
	f := s.feed
	if f == nil {
		return nil, nil, nil, ErrFeedUnsupported
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listen() // a server that has refused is asked again while somebody wants it
	if f.tracker.State().Refused {
		return nil, nil, nil, ErrFeedUnsupported
	}
	f.judge()
	missed, reset := f.behind(place)
	w := &follower{
		events: make(chan authz.FeedEvent), wake: make(chan struct{}, 1), gone: make(chan struct{}),
		place: f.last() - int64(len(missed)), began: f.last(),
	}
	now := s.o.Now()
	if reset != "" {
		w.reset = &authz.FeedEvent{ID: f.placeOf(w.began), Kind: authz.FeedReset, Reason: reset, Time: now}
	}
	w.state = &authz.FeedEvent{Kind: authz.FeedLag, Time: now}
	if f.live {
		w.state.Kind, w.state.ID = authz.FeedLive, f.placeOf(w.began)
	}
	f.followers[w] = struct{}{}
	go f.serve(w)
	return w.events, func() string { return f.where(w) }, func() { f.mu.Lock(); defer f.mu.Unlock(); f.drop(w) }, nil
}

// behind returns the events behind a place, or why that can't be.
func (f *feed) behind(place string) (missed []authz.FeedEvent, reset string) {
	if place == "" {
		return nil, authz.FeedReasonNew
	}
	at, boot, number, ok := parsePlace(place)
	switch {
	case !ok || at.After(f.store.o.Now().Add(feedOverlap)):
		return nil, authz.FeedReasonUnknown
	case boot == f.boot:
		n := number + 1 - f.first
		if n < 0 || n > int64(len(f.ring)) {
			return nil, authz.FeedReasonUnknown
		}
		return f.ring[n:], ""
	default:
		from := at.Add(-feedOverlap)
		if !f.known || from.Before(f.since) {
			return nil, authz.FeedReasonUnknown
		}
		n, _ := slices.BinarySearchFunc(f.ring, from, func(e authz.FeedEvent, t time.Time) int { return e.Time.Compare(t) })
		return f.ring[n:], ""
	}
}

func (f *feed) where(w *follower) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, there := f.followers[w]; !there || !f.live || f.spoilt != "" || !w.idle {
		return ""
	}
	if epoch, live := f.tracker.Live(); !live || epoch != f.epoch {
		return ""
	}
	return f.placeOf(w.place)
}

// FeedStats returns the figures of the feed; ok is false for a store without one.
func (s *Store) FeedStats() (st FeedStats, ok bool) {
	f := s.feed
	if f == nil {
		return st, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return FeedStats{
		Followers: len(f.followers), Live: f.live, Listening: f.listening, Events: maps.Clone(f.counts), Cut: f.cut,
	}, true
}

// readSome reads a part of what is pending, and reports whether there is more to read at
// once.
func (f *feed) readSome(ctx context.Context) bool {
	f.mu.Lock()
	n := min(len(f.pending), feedBatch)
	keys := f.pending[:n:n]
	f.pending = f.pending[n:]
	for _, k := range keys { // what is announced from now on is read again
		delete(f.queued, k.feedKey)
	}
	if n > 0 {
		f.reading = keys[0].since
	}
	f.mu.Unlock()
	if n == 0 {
		return false
	}
	events, err := f.read(ctx, keys)
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.reading = time.Time{} }()
	if err != nil { // the next tick tries again
		f.pending = slices.Concat(keys, f.pending)
		for _, k := range keys {
			f.queued[k.feedKey] = struct{}{}
		}
		return false
	}
	for _, e := range events {
		if _, told := f.ended[e.Session]; told && e.Session != "" {
			continue // its record was announced behind its mark
		}
		if max(len(e.UserID), len(e.TokenID)) > longestFeedID {
			if e.Session == "" {
				continue
			}
			e.UserID = ""
		}
		f.tell(e)
	}
	return len(f.pending) > 0
}

// read asks Redis what became of the keys.
func (f *feed) read(ctx context.Context, keys []feedPending) (events []authz.FeedEvent, err error) {
	s := f.store
	ctx, cancel := s.deadline(repeatable(ctx))
	defer cancel()
	pipe := s.client.Pipeline()
	var reads []func() (authz.FeedEvent, bool)
	for _, k := range keys {
		if read := f.ask(ctx, pipe, k.feedKey); read != nil {
			reads = append(reads, read)
		}
	}
	if len(reads) == 0 {
		return nil, nil
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, err
	}
	for _, read := range reads {
		if e, ok := read(); ok {
			events = append(events, e)
		}
	}
	return events, nil
}

// ask adds the question about a key to a pipeline, and returns what makes an event of the
// answer; nil for what is no key of ours.
func (f *feed) ask(ctx context.Context, pipe redis.Pipeliner, k feedKey) func() (authz.FeedEvent, bool) {
	s := f.store
	switch k.kind {
	case kindSession, feedDead:
		keys, ok := s.keys(k.id)
		if !ok {
			return nil
		}
		record, dead := pipe.Exists(ctx, keys.record), pipe.Get(ctx, keys.dead)
		return func() (authz.FeedEvent, bool) {
			e := authz.FeedEvent{Kind: authz.FeedSessionEnded, Session: authz.Handle(k.id), Reason: authz.FeedReasonRevoked}
			mark, marked, _ := textOf(dead)
			if !marked {
				e.Reason = authz.FeedReasonGone
			}
			e.UserID = cmp.Or(markUser(mark), s.lastUser(k.id))
			// A late save of a record brings nothing back, and ends nothing again. Nor does a
			// mark that has run out.
			return e, marked && k.kind == feedDead || record.Val() == 0 && k.kind == kindSession
		}
	case kindFamily:
		dead := revokedFamilyKey(k.id)
		mark, ttl := pipe.Get(ctx, dead), pipe.PTTL(ctx, dead)
		return func() (authz.FeedEvent, bool) {
			text, marked, _ := textOf(mark)
			return authz.FeedEvent{
				Kind: authz.FeedFamilyRevoked, Session: authz.Handle(k.id), UserID: markUser(text), Expires: s.expiry(ttl.Val()),
			}, marked
		}
	case kindToken:
		ttl := pipe.PTTL(ctx, revokedTokenKey(k.id))
		return func() (authz.FeedEvent, bool) {
			return authz.FeedEvent{Kind: authz.FeedTokenRevoked, TokenID: k.id, Expires: s.expiry(ttl.Val())}, ttl.Val() != ttlAbsent
		}
	case feedMark:
		mark := pipe.Get(ctx, beforeKey(k.id))
		return func() (authz.FeedEvent, bool) {
			before, err := timeOf(mark)
			if err != nil { // the gate lets nobody pass whose mark it can't read
				before = s.o.Now()
			}
			return authz.FeedEvent{Kind: authz.FeedUserRevoked, UserID: k.id, Before: before}, !before.IsZero()
		}
	case feedProfile:
		profile := pipe.Get(ctx, profileKey(k.id))
		return func() (authz.FeedEvent, bool) {
			p, err := profileIn(replyOf(profile))
			// Nor does it let pass whose profile it can't read.
			return authz.FeedEvent{Kind: authz.FeedUserDisabled, UserID: k.id}, err != nil || p != nil && p.Disabled
		}
	}
	return nil
}

// expiry is when a mark ends that has so much left; zero for never. In its last
// millisecond a mark has nothing left, which is not never.
func (s *Store) expiry(ttl time.Duration) time.Time {
	if ttl < 0 {
		return time.Time{}
	}
	return s.o.Now().Add(ttl)
}

// lastUser is whose session it was, where the cache remembers; else "".
func (s *Store) lastUser(id string) string {
	if s.cache == nil || id == "" {
		return ""
	}
	if last := s.cache.last(id); last != nil {
		return last.ID
	}
	return ""
}

// markUser is the user in a dead mark; "" for one without.
func markUser(mark string) string {
	_, user, _ := strings.Cut(mark, "\n")
	return user
}
