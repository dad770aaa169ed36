package revocation_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/revocation"
)

// gate is a feed whose connections a test holds, in a bubble of its own time.
type gate struct {
	mu     sync.Mutex
	status int
	asked  []string // Last-Event-ID of each request
	keys   []string
	body   *io.PipeWriter
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, r.Header.Get("Last-Event-ID"))
	g.keys = append(g.keys, r.Header.Get("X-Internal-Api-Key"))
	if g.status != 200 {
		return &http.Response{StatusCode: g.status, Header: http.Header{"Location": {"http://elsewhere.example.com/"}}, Body: http.NoBody}, nil
	}
	body, w := io.Pipe()
	g.body = w
	context.AfterFunc(r.Context(), func() { _ = w.CloseWithError(r.Context().Err()) })
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: body}, nil
}

func (g *gate) send(t *testing.T, text string) {
	t.Helper()
	g.mu.Lock()
	w := g.body
	g.mu.Unlock()
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	synctest.Wait()
}

func (g *gate) event(t *testing.T, id, kind, data string) {
	t.Helper()
	g.send(t, fmt.Sprintf("id: %s\nevent: %s\ndata: {%s}\n\n", id, kind, data))
}

func (g *gate) requests() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.asked...)
}

// watched runs a test with a feed that is watched.
func watched(t *testing.T, o revocation.Options, test func(t *testing.T, g *gate, f *revocation.Feed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{status: 200}
		o.URL, o.Key, o.Transport = "http://gateway.example.com/auth/feed", "the key", g
		f, err := revocation.New(o)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Watch(ctx, nil) }()
		synctest.Wait()
		test(t, g, f)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// why is why a context has ended, "" while it hasn't.
func why(ctx context.Context) string {
	if ctx.Err() == nil {
		return ""
	}
	return context.Cause(ctx).Error()
}

func TestStreamsEnd(t *testing.T) {
	t.Parallel()
	begun := map[string]revocation.Stream{
		"user": {UserID: "u"}, "session": {UserID: "u", Session: "s"}, "only session": {Session: "s"},
		"other session": {UserID: "u", Session: "x"}, "token": {UserID: "u", Session: "f", TokenID: "j"}, "other user": {UserID: "v", Session: "y"},
	}
	for name, tt := range map[string]struct{ kind, data, ends string }{
		"session":             {"session.ended", `"sid":"s","userId":"u","reason":"revoked"`, "user, session, only session"},
		"session of somebody": {"session.ended", `"sid":"s"`, "session, only session"},
		"family":              {"family.revoked", `"sid":"f","userId":"u"`, "user, token"},
		"token":               {"token.revoked", `"jti":"j"`, "token"},
		"disabled":            {"user.disabled", `"userId":"u"`, "user, session, other session, token"},
		"revoked":             {"user.revoked", `"userId":"u","before":"2000-01-01T00:00:00Z"`, "user, session, other session, token"},
		"revoked long ago":    {"user.revoked", `"userId":"u","before":"1999-12-31T00:00:00Z"`, ""},
		"nothing":             {"user.disabled", `"userId":""`, ""},
		"what is new":         {"session.changed", `"sid":"s","userId":"u"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			watched(t, revocation.Options{}, func(t *testing.T, g *gate, f *revocation.Feed) {
				contexts := map[string]context.Context{}
				for name, s := range begun {
					ctx, stop := f.Until(t.Context(), s)
					defer stop()
					contexts[name] = ctx
				}
				g.event(t, "1", "live", "")
				g.event(t, "2", tt.kind, tt.data)
				late := map[string]context.Context{} // that were admitted before, and come now
				for name, s := range begun {
					ctx, stop := f.Until(t.Context(), s)
					defer stop()
					late[name] = ctx
				}
				for name := range begun {
					want := ""
					for end := range strings.SplitSeq(tt.ends, ", ") {
						if end == name {
							want = "revoked: " + tt.kind
						}
					}
					require.Equal(t, want, why(contexts[name]), name)
					require.Equal(t, want, why(late[name]), "%s, late", name)
				}
			})
		})
	}
}

// Who logs in again is not taken for who was revoked; an event that comes again neither.
func TestWhoLogsInAgainStays(t *testing.T) {
	t.Parallel()
	watched(t, revocation.Options{}, func(t *testing.T, g *gate, f *revocation.Feed) {
		g.event(t, "1", "live", "")
		data := `"userId":"u","before":"` + time.Now().Format(time.RFC3339Nano) + `"`
		g.event(t, "2", "user.revoked", data)
		time.Sleep(6 * time.Second)
		again, stop := f.Until(t.Context(), revocation.Stream{UserID: "u"})
		defer stop()
		g.event(t, "2", "user.revoked", data)
		require.Empty(t, why(again))
		stop()
		require.Equal(t, context.Canceled, context.Cause(again))

		nobody, stop := f.Until(t.Context(), revocation.Stream{})
		defer stop()
		require.ErrorIs(t, context.Cause(nobody), revocation.ErrNobody)
		parent, cancel := context.WithCancel(t.Context())
		child, stop := f.Until(parent, revocation.Stream{UserID: "u"})
		defer stop()
		cancel()
		require.Error(t, child.Err())
	})
}

// It comes back by itself and goes on where it was, after whatever breaks.
func TestComesBack(t *testing.T) {
	t.Parallel()
	var told []error
	o := revocation.Options{OnBlind: func(err error) { told = append(told, err) }}
	watched(t, o, func(t *testing.T, g *gate, f *revocation.Feed) {
		since, reason := f.Blind()
		require.False(t, since.IsZero())
		require.Error(t, reason)
		g.send(t, "retry: 100\n\n: comment\r\n\r\n")
		g.event(t, "1", "reset", `"reason":"new"`)
		g.event(t, "2", "live", "")
		since, reason = f.Blind()
		require.Zero(t, since)
		require.NoError(t, reason)
		g.send(t, "id: 3\n\n")
		_ = g.body.Close()
		time.Sleep(time.Second)
		require.Equal(t, []string{"", "3"}, g.requests())
		g.event(t, "4", "live", "")
		time.Sleep(time.Minute) // nothing comes, not even heartbeats
		require.Equal(t, "4", g.requests()[2])
		g.event(t, "5", "live", "")
		g.send(t, "id: 6\nevent: x\ndata: no JSON\n\n")
		time.Sleep(5 * time.Second)
		require.Equal(t, "5", g.requests()[len(g.requests())-1], "what wasn't taken comes again")
		g.event(t, "7", "live", "")
		g.event(t, "8", "lag", "")
		_, reason = f.Blind()
		require.Error(t, reason)
		g.mu.Lock()
		g.status = 403
		g.mu.Unlock()
		_ = g.body.Close()
		before := len(g.requests())
		time.Sleep(time.Hour)
		require.Less(t, len(g.requests())-before, 500)
		_, reason = f.Blind()
		require.ErrorContains(t, reason, "auth_api: true")
		g.mu.Lock()
		g.status = 302 // the key doesn't go elsewhere
		g.mu.Unlock()
		time.Sleep(time.Minute)
		_, reason = f.Blind()
		require.ErrorContains(t, reason, "302")
		for _, key := range g.keys {
			require.Equal(t, "the key", key)
		}
	})
	require.NoError(t, told[0])
	require.ErrorIs(t, told[1], io.EOF)
}

// A wrong key or URL is told at once, and not at each attempt.
func TestFeedThatWasNeverHeardIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{status: 503}
		var told []error
		f, err := revocation.New(revocation.Options{
			URL: "http://gateway.example.com/auth/fed", Key: "wrong", Transport: g, OnBlind: func(err error) { told = append(told, err) },
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Watch(ctx, nil) }()
		set := func(status int) {
			g.mu.Lock()
			g.status = status
			g.mu.Unlock()
		}
		answers := func(status int) {
			set(status)
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		answers(503)
		answers(403)
		answers(503)
		answers(403)
		answers(404)
		set(200)
		for before := len(g.requests()); len(g.requests()) == before; synctest.Wait() { // a feed that says nothing is left
			time.Sleep(100 * time.Millisecond)
		}
		g.event(t, "1", "live", "")
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.Len(t, told, 5)
		require.ErrorContains(t, told[0], "503")
		require.ErrorContains(t, told[1], "is the key good, and has it auth_api: true?")
		require.ErrorContains(t, told[2], "is the URL right")
		require.NoError(t, told[3])
		require.ErrorIs(t, told[4], context.Canceled)
	})
}

func TestResetAndBlindness(t *testing.T) {
	t.Parallel()
	watched(t, revocation.Options{}, func(t *testing.T, g *gate, f *revocation.Feed) {
		g.event(t, "1", "live", "")
		var all []context.Context
		for range 20 {
			ctx, stop := f.Until(t.Context(), revocation.Stream{UserID: "u"})
			defer stop()
			all = append(all, ctx)
		}
		g.event(t, "2", "reset", `"reason":"missed"`)
		after, stop := f.Until(t.Context(), revocation.Stream{UserID: "u"})
		defer stop()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, ctx := range all {
			require.ErrorIs(t, context.Cause(ctx), revocation.ErrReset)
		}
		require.Empty(t, why(after))

		g.event(t, "3", "lag", "")
		for range 4 { // of 5 s
			g.send(t, ":\n\n")
			time.Sleep(5 * time.Second)
		}
		require.Empty(t, why(after))
		g.event(t, "4", "live", "")
		time.Sleep(20 * time.Second)
		require.Empty(t, why(after), "it was blind for less than it may be")
		g.event(t, "5", "lag", "")
		for range 9 {
			g.send(t, ":\n\n")
			time.Sleep(4 * time.Second)
		}
		require.ErrorIs(t, context.Cause(after), revocation.ErrBlind)
		late, stop := f.Until(t.Context(), revocation.Stream{UserID: "u"})
		defer stop()
		time.Sleep(6 * time.Second)
		require.ErrorIs(t, context.Cause(late), revocation.ErrBlind)
	})
	watched(t, revocation.Options{InsecureIgnoreBlindness: true}, func(t *testing.T, _ *gate, f *revocation.Feed) {
		ctx, stop := f.Until(t.Context(), revocation.Stream{UserID: "u"})
		defer stop()
		time.Sleep(time.Hour)
		require.Empty(t, why(ctx))
	})
	watched(t, revocation.Options{Spread: -1}, func(t *testing.T, g *gate, f *revocation.Feed) {
		ctx, stop := f.Until(t.Context(), revocation.Stream{UserID: "u"})
		defer stop()
		g.event(t, "1", "reset", "")
		require.ErrorIs(t, context.Cause(ctx), revocation.ErrReset)
		require.ErrorContains(t, f.Watch(t.Context(), nil), "watched already")
	})
}

func TestOptionsThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, o := range []revocation.Options{{}, {URL: "gateway/auth/feed", Key: "k"}, {URL: "ftp://gateway/auth/feed", Key: "k"}, {URL: "http://user:secret-in-it@%zz", Key: "k"}, {URL: "http://gateway/auth/feed"}} {
		_, err := revocation.New(o)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
}
