package session

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Those who follow the revocation feed, and their places in it.

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
