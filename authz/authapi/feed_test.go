package authapi_test

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

// feed is a revocation feed that tells what a test has it tell.
type feed struct {
	mu      sync.Mutex
	err     error
	events  []authz.FeedEvent // at the beginning
	open    bool              // it goes on
	places  []string          // that were asked for
	stopped int
}

func (f *feed) Follow(place string) (<-chan authz.FeedEvent, func() string, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.places = append(f.places, place)
	if f.err != nil {
		return nil, nil, nil, f.err
	}
	events := make(chan authz.FeedEvent, len(f.events))
	for _, e := range f.events {
		events <- e
	}
	if !f.open {
		close(events)
	}
	stop := func() { f.mu.Lock(); defer f.mu.Unlock(); f.stopped++ }
	return events, func() string { return "here" }, stop, nil
}

// keyUntil is the backend's key, until a time.
func keyUntil(t time.Time) authz.APIKey {
	return authz.APIKey{Name: "backend", AuthAPI: true, SHA256: sha256.Sum256([]byte(keyOfBackend)), Expires: t}
}

var withKey = []string{"X-Internal-Api-Key", keyOfBackend}

func TestFeed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	b.feed.events = []authz.FeedEvent{
		{ID: "1", Kind: authz.FeedReset, Reason: authz.FeedReasonNew, Time: at},
		{ID: "2", Kind: authz.FeedSessionEnded, Session: "handle", UserID: "bob\n\nevent: x", Reason: authz.FeedReasonRevoked, Time: at},
		{ID: "3", Kind: authz.FeedUserRevoked, UserID: "bob", Before: at.Add(-time.Second), Time: at},
		{ID: "4", Kind: authz.FeedTokenRevoked, TokenID: "jti", Expires: at.Add(time.Hour), Time: at},
		{Kind: authz.FeedLag, Time: at},
	}
	a := b.get(t, "/auth/feed", append([]string{"Last-Event-ID", "before"}, withKey...)...)
	require.Equal(t, 200, a.status)
	require.Equal(t, "text/event-stream", a.header.Get("Content-Type"))
	retry, rest, _ := strings.Cut(a.body, "\n\n")
	require.Regexp(t, `^retry: \d{3,4}$`, retry)
	require.Equal(t, `id: 1
event: reset
data: {"reason":"new","time":"2026-11-28T12:00:00.000Z"}

id: 2
event: session.ended
data: {"sid":"handle","userId":"bob\n\nevent: x","reason":"revoked","time":"2026-11-28T12:00:00.000Z"}

id: 3
event: user.revoked
data: {"userId":"bob","time":"2026-11-28T12:00:00.000Z","before":"2026-11-28T11:59:59.000Z"}

id: 4
event: token.revoked
data: {"jti":"jti","time":"2026-11-28T12:00:00.000Z","expiresAt":"2026-11-28T13:00:00.000Z"}

event: lag
data: {"time":"2026-11-28T12:00:00.000Z"}

`, rest)
	require.Equal(t, []string{"before"}, b.feed.places)
	require.Equal(t, 1, b.feed.stopped)
	require.Equal(t, "feed 200", b.recorder.last())
	require.Empty(t, b.call(t, "HEAD", "/auth/feed", nil, withKey...).body)
	require.Len(t, b.feed.places, 1)

	cookie, _ := b.logIn(t, alice)
	for _, headers := range [][]string{nil, {"X-Internal-Api-Key", keyOfServices}, {"X-Internal-Api-Key", keyExpired}, cookie} {
		requireAnswer(t, b.get(t, "/auth/feed", headers...), 403, forbidden)
	}
	b.feed.err = errors.New("no announcements")
	requireAnswer(t, b.get(t, "/auth/feed", withKey...), 404, notFound)
	b.feed.err = nil
	b.places = &places{} // full of calls, which feeds are not
	require.Equal(t, 200, b.get(t, "/auth/feed", withKey...).status)
	b.api.EndFeeds()
	b.api.EndFeeds()
	requireAnswer(t, b.get(t, "/auth/feed", withKey...), 503, unavailable)
	without := newBench(t, func(o *authapi.Options) { o.Feed = nil })
	requireAnswer(t, without.get(t, "/auth/feed", withKey...), 404, notFound)
}

// A stream outlives the server's deadlines for calls, and not a client that takes nothing,
// a key that ends, or the feed.
func TestFeedLastsAsLongAsItMay(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		how  func(*bench, net.Conn)
		last string
	}{
		"client stops reading": {func(*bench, net.Conn) { time.Sleep(time.Minute) }, ""},
		"client goes":          {func(_ *bench, c net.Conn) { _ = c.Close() }, ""},
		"key ends":             {func(b *bench, _ net.Conn) { b.clock.Advance(time.Hour) }, ""},
		"feed ends":            {func(b *bench, _ net.Conn) { b.api.EndFeeds() }, ": draining\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				o := b.options
				o.APIKeys = authz.NewAPIKeys([]authz.APIKey{keyUntil(b.clock.Now().Add(time.Minute))}, b.clock.Now)
				var err error
				b.api, err = authapi.New(o)
				require.NoError(t, err)
				b.feed.open = true
				listener := &pipes{make(chan net.Conn), make(chan struct{})}
				server := &http.Server{
					Handler: b.api, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second,
				}
				go func() { _ = server.Serve(listener) }()
				defer func() { _ = server.Close() }()
				client, side := net.Pipe()
				defer func() { _ = client.Close() }()
				listener.conns <- side
				_, err = fmt.Fprintf(client, "GET /auth/feed HTTP/1.1\r\nHost: gateway.example.com\r\nX-Internal-Api-Key: %s\r\n\r\n", keyOfBackend)
				require.NoError(t, err)
				answer, err := http.ReadResponse(bufio.NewReader(client), nil)
				require.NoError(t, err)
				defer func() { _ = answer.Body.Close() }()
				require.Equal(t, 200, answer.StatusCode)
				in := bufio.NewReader(answer.Body)
				line := func() string { text, _ := in.ReadString('\n'); return text }
				require.Contains(t, line(), "retry: ")
				require.Equal(t, "\n", line())
				start := time.Now()
				for range 60 { // ten minutes
					require.Equal(t, "id: here\n", line())
					require.Equal(t, "\n", line())
				}
				require.Equal(t, 10*time.Minute, time.Since(start))
				end.how(b, client)
				rest, _ := io.ReadAll(in)
				require.Equal(t, end.last, strings.TrimSuffix(string(rest), "\n"))
				synctest.Wait()
				b.feed.mu.Lock()
				defer b.feed.mu.Unlock()
				require.Equal(t, 1, b.feed.stopped)
			})
		})
	}
}
