package revocation_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/revocation"
)

// once answers one request with a text, and then ends everything.
type once struct {
	text string
	end  context.CancelFunc
}

var errOnce = errors.New("answered before")

func (o *once) RoundTrip(r *http.Request) (*http.Response, error) {
	if o.text == "" {
		o.end()
		return nil, errOnce
	}
	body := ending{strings.NewReader(o.text), o.end}
	o.text = ""
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: body, Request: r}, nil
}

// ending ends everything when nobody reads on.
type ending struct {
	io.Reader
	end context.CancelFunc
}

func (e ending) Close() error {
	e.end()
	return nil
}

// FuzzWatch states that whatever a feed sends is an event only where a block of its lines
// says so: of the kind of its event line, however often, and none without the empty line
// that ends it.
func FuzzWatch(f *testing.F) {
	for _, seed := range []string{
		"event: live\ndata: {}\n\n", "retry: 5\n\nid: 1.a.2\nevent: session.ended\ndata: {\"sid\":\"h\"}\n\n", ": beat\n\n", "event: live\ndata: {\n\n", "event: live\ndata: []\n\n",
		"event: lag\ndata: {}", "event: user.revoked\ndata: {\"userId\":\"u\",\ndata: \"before\":\"2027-01-01T00:00:00Z\"}\n\n", "event: x\r\ndata: {}\r\n\r\n", "data: {\"kind\":\"live\"}\n\n",
		"id: \x00\nevent: reset\ndata: {}\n\n", "event: live\nevent: lag\ndata: null\n\n", "retry: -1\nretry: 99999999999999999999\n\n", strings.Repeat("data: x\n", 100),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" {
			return
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		feed, err := revocation.New(revocation.Options{URL: "http://127.0.0.1/auth/feed", Key: "k", Transport: &once{text, cancel}, Spread: -1})
		require.NoError(t, err)
		var kinds []string
		require.ErrorIs(t, feed.Watch(ctx, func(e revocation.Event) { kinds = append(kinds, string(e.Kind)) }), context.Canceled)
		said := map[string]int{}
		for line := range strings.Lines(text) {
			if name, kind, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); name == "event" {
				said[strings.TrimPrefix(kind, " ")]++
			}
		}
		for _, kind := range kinds {
			said[kind]--
			require.GreaterOrEqual(t, said[kind], 0, "%q in %q", kind, text)
		}
		require.LessOrEqual(t, len(kinds), strings.Count(text, "\n\n")+strings.Count(text, "\n\r\n"))
	})
}
