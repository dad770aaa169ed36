package main

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	feeds "github.com/gatehouse-auth/gatehouse/services/revocation"
)

// A service follows what ends through a reload of the configuration, which begins its
// stream anew without losing anything, and until the server has drained, which its stream
// doesn't hold up.
func TestServiceFollowsWhatEnds(t *testing.T) {
	proctest.Need(t, "redis-server")
	d := newDesk(t, "", "")
	r := d.serve(t)
	states := make(chan error, 100)
	feed, err := feeds.New(feeds.Options{
		URL: "http://" + r.http + "/auth/feed", Key: deskKey, OnBlind: func(err error) { states <- err },
	})
	require.NoError(t, err)
	events := make(chan feeds.Event, 100)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() { watched <- feed.Watch(ctx, func(e feeds.Event) { events <- e }) }()
	// On a busy machine it may be blind for a moment at any time.
	sees := func(blind bool) {
		for (<-states != nil) != blind {
		}
	}
	hears := func(kind feeds.Kind) feeds.Event {
		for {
			e := <-events
			if e.Kind == kind || e.Kind != feeds.Lag && e.Kind != feeds.Live {
				require.Equal(t, kind, e.Kind)
				return e
			}
		}
	}
	sees(false)
	hears(feeds.Reset)
	for (<-events).Kind != feeds.Live { // Redis may announce nothing yet, which is a lag and another beginning
	}
	until(t, "it is counted", func() bool { return r.metric(t, "gatehouse_feed_followers") == "1" }) // blind for a moment, it comes again

	bob := r.logIn(t, "bob")
	stream, stop := feed.Until(t.Context(), feeds.Stream{UserID: "bob"})
	defer stop()
	status, _, _ := r.call(t, "POST", "/auth/logout", "", bob)
	require.Equal(t, 200, status)
	<-stream.Done()
	ended := hears(feeds.SessionEnded)
	require.Equal(t, "bob", ended.UserID)
	id, _, _ := strings.Cut(strings.TrimPrefix(bob["cookie"], "sessionId=s%3A"), ".")
	require.Equal(t, authz.Handle(id), ended.Session)

	// The command line is another process.
	d.ok(t, "sessions", "revoke", "alice", "--all", "--yes")
	require.Equal(t, "alice", hears(feeds.UserRevoked).UserID)

	r.applies(t, func() {
		text, err := os.ReadFile(r.file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(r.file, append(text, "log: {level: debug}\n"...), 0o600))
	})
	sees(true)
	carol := r.logIn(t, "bob")
	status, _, _ = r.call(t, "POST", "/auth/logout", "", carol)
	require.Equal(t, 200, status)
	sees(false)
	kinds := map[feeds.Kind]int{}
	for kinds[feeds.Live] == 0 || kinds[feeds.SessionEnded] == 0 {
		kinds[(<-events).Kind]++
	}
	require.Zero(t, kinds[feeds.Reset], "it went on where it was")
	require.NotEqual(t, "0", r.metric(t, `gatehouse_feed_events_total{event="session.ended"}`))

	r.signal()
	require.Zero(t, r.wait(t))
	sees(true)
	cancel()
	require.ErrorIs(t, <-watched, context.Canceled)
	require.NotContains(t, r.log.String(), id)
	require.NotContains(t, r.log.String(), deskKey)
}
