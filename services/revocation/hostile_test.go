package revocation_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/revocation"
)

// What a feed sends that is none, or goes mad, takes no memory without end, and doesn't
// keep the client from coming back.
func TestHostileFeed(t *testing.T) {
	t.Parallel()
	flood := func(w http.ResponseWriter, r *http.Request, lines string) {
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte(lines)); err != nil {
				return
			}
		}
	}
	for name, send := range map[string]func(w http.ResponseWriter, r *http.Request){
		"an endless line":  func(w http.ResponseWriter, r *http.Request) { flood(w, r, strings.Repeat("x", 1<<16)) },
		"an endless event": func(w http.ResponseWriter, r *http.Request) { flood(w, r, "data: "+strings.Repeat("x", 1000)+"\n") },
		"a large event": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Repeat("data: "+strings.Repeat(" ", 1000)+"\n", 300) + "event: live\ndata: {}\n\n"))
		},
		"no event": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("event: live\ndata: [\n\n")) },
		"a place too long": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("id: " + strings.Repeat("x", 60_000) + "\nevent: x\ndata: {}\n\n"))
		},
		"no place": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("id: \x01\nevent: x\ndata: {}\n\n"))
		},
		"a page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("event: live\ndata: {}\n\n"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				if asked.Add(1) == 1 {
					if name != "a page" {
						_, _ = w.Write([]byte("retry: 1\n\n"))
					}
					send(w, r)
					return
				}
				_, _ = fmt.Fprintf(w, "event: live\ndata: {\"reason\":%q}\n\n", r.Header.Get("Accept-Encoding"))
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}))
			t.Cleanup(s.Close)
			feed, err := revocation.New(revocation.Options{URL: s.URL, Key: "k"})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			events := make(chan revocation.Event, 10)
			go func() { _ = feed.Watch(ctx, func(e revocation.Event) { events <- e }) }()
			var m runtime.MemStats
			end := time.After(30 * time.Second)
			for live := false; !live; {
				select {
				case e := <-events:
					live = e.Kind == revocation.Live
					require.True(t, !live || asked.Load() > 1, "that was no event")
					if live {
						require.Equal(t, "identity", e.Reason, "what is packed comes late")
					}
				case <-end:
					_, why := feed.Blind()
					require.FailNow(t, "it doesn't come back", "%v", why)
				}
			}
			runtime.ReadMemStats(&m)
			require.Less(t, m.HeapAlloc, uint64(64<<20))
		})
	}
}
