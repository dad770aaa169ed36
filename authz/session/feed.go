package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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
