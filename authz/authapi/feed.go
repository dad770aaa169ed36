package authapi

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// The revocation feed, as server-sent events (WHATWG HTML, section 9.2): for services
// that hold streams open, with an internal key.

const (
	feedCall  = "feed"
	feedBeat  = 10 * time.Second // between two comments; the connection is dead without one
	mostFeeds = 256              // of one replica
)

// feedEvent is the data of an event.
type feedEvent struct {
	Session string `json:"sid,omitempty"`
	UserID  string `json:"userId,omitempty"`
	TokenID string `json:"jti,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Time    moment `json:"time"`
	Before  moment `json:"before,omitzero"`
	Expires moment `json:"expiresAt,omitzero"`
}

// following is somebody who follows the feed.
type following struct {
	events  <-chan authz.FeedEvent
	where   func() string
	stop    func()
	ended   <-chan struct{} // the feed of this API
	allowed func() bool     // the key is good
}

// feed answers GET /auth/feed. What can fail has failed before the stream begins.
func (a *API) feed(_ context.Context, c *call) (reply, error) {
	if _, err := a.authenticateKey(c); err != nil {
		return reply{}, err
	}
	if c.r.Method == http.MethodHead {
		return streaming(nil), nil
	}
	select {
	case <-a.feedsEnd:
		return reply{}, authz.Refuse(authz.ReasonOverloaded, "draining: another replica has the feed")
	default:
	}
	if a.feeds.Add(1) > mostFeeds {
		a.feeds.Add(-1)
		return reply{}, authz.Refuse(authz.ReasonOverloaded, "%d follow the feed here already", mostFeeds)
	}
	events, where, stop, err := a.o.Feed.Follow(c.header("last-event-id"))
	if err != nil {
		a.feeds.Add(-1)
		return reply{}, &answered{status: http.StatusNotFound, body: bodyNotFound, reason: errNotFound.reason, err: err}
	}
	f := &following{events: events, where: where, ended: a.feedsEnd}
	f.stop = func() { stop(); a.feeds.Add(-1) }
	f.allowed = func() bool { _, err := a.authenticateKey(c); return err == nil }
	return streaming(f.serve), nil
}

// EndFeeds ends the streams of the revocation feed, which last as long as nobody ends
// them: clients go on elsewhere, or here with another API. New ones are refused.
func (a *API) EndFeeds() { a.endFeeds() }

// serve sends what happens until the client goes, or is too slow, or the feed ends.
func (f *following) serve(ctx context.Context, to *events) {
	defer f.stop()
	// Clients that wait for the same moment to come back would all come at once.
	if !to.send(fmt.Sprintf("retry: %d\n\n", 500+rand.IntN(1500))) { //nolint:gosec // G404: spreads, and hides nothing
		return
	}
	beat := time.NewTicker(feedBeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.ended:
			to.send(": draining\n\n")
			return
		case e, ok := <-f.events:
			if !ok || !to.send(feedLines(e)) {
				return
			}
		case <-beat.C:
			if !f.allowed() || !to.send(cmp.Or(idLine(f.where()), ":\n")+"\n") {
				return
			}
		}
	}
}

// feedLines are an event on the wire.
func feedLines(e authz.FeedEvent) string {
	return eventLines(e.ID, string(e.Kind), feedEvent{
		Session: e.Session, UserID: e.UserID, TokenID: e.TokenID, Reason: e.Reason,
		Time: moment(e.Time), Before: moment(e.Before), Expires: moment(e.Expires),
	})
}
