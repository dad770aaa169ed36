package e2e

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// follow reads the revocation feed through a gateway until it is live, and returns what
// reads the events behind.
func (g *gateway) follow(t *testing.T) (next func() (event string)) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.addr+"/auth/feed", http.NoBody)
	require.NoError(t, err)
	request.Host = host
	request.Header.Set("X-Internal-Api-Key", apiKeys.backend)
	answer, err := (&http.Transport{ResponseHeaderTimeout: patience}).RoundTrip(request)
	require.NoError(t, err)
	t.Cleanup(func() { _ = answer.Body.Close() })
	require.Equal(t, http.StatusOK, answer.StatusCode)
	lines := bufio.NewReader(answer.Body)
	stuck := time.AfterFunc(patience, func() { _ = answer.Body.Close() })
	t.Cleanup(func() { stuck.Stop() })
	next = func() string {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			require.NoError(t, err, "the feed was cut off, or is held back")
			if event, ok := strings.CutPrefix(line, "event: "); ok {
				return strings.TrimSpace(event)
			}
		}
	}
	for next() != "live" {
	}
	return next
}

// hears requires that the end of a session is told.
func (g *gateway) hears(t *testing.T, next func() string) {
	t.Helper()
	r := g.send(t, "POST /auth/logout HTTP/1.1\nContent-Length: 0\nOrigin: https://"+host+"\n"+cookie(g.login(t, bob))+"\n\n")
	require.Equal(t, 200, r.status, r.line())
	for next() != "session.ended" {
	}
}

// The shipped gateway cuts a call, but not the feed: here after a second.
func TestFeedThroughTheGateway(t *testing.T) {
	need(t)
	s := start(t, options{})
	hurried := 0
	g := s.gateway(t, func(config map[string]any) error {
		each(config, func(m map[string]any) {
			for name, value := range map[string]any{"timeout": "15s", "max_stream_duration": "35s"} {
				if m[name] == value {
					m[name] = "1s"
					hurried++
				}
			}
		})
		return nil
	})
	require.Positive(t, hurried)
	next := g.follow(t)
	time.Sleep(2 * time.Second)
	s.gateway(t).hears(t, next) // whose calls have the time that a busy machine may need
}

// Other proxies hold nothing of it back.
func TestFeedBehindProxies(t *testing.T) {
	behindProxies(t, func(t *testing.T, g *gateway) { g.hears(t, g.follow(t)) })
}

// Nor does an nginx that speaks HTTP/1.0 to what is behind it, as it does unless told
// otherwise: it would wait for a whole buffer.
func TestFeedBehindAnOlderNginx(t *testing.T) {
	nginx.need(t)
	s := start(t, options{})
	g, err := s.newProxy(context.WithoutCancel(t.Context()), nginx, map[string]string{"proxy_http_version 1.1;": "proxy_http_version 1.0;"})
	require.NoError(t, err)
	g.hears(t, g.follow(t))
}
