package session

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// What becomes of the keys that Redis announces: each is read, and may be an event.

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
