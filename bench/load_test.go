package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asks is a target of these paths in turn.
func asks(status int, paths ...string) *target {
	return newTarget("GET ", pack(paths...), " HTTP/1.1\r\nHost: test\r\n\r\n", status)
}

func newClient(t *testing.T, addr string, n int) *client {
	t.Helper()
	c, err := dialClient(t.Context(), addr, n)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.close() })
	return c
}

func TestEveryRequestIsSentOnceAndCounted(t *testing.T) {
	var a, b atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/a":
			a.Add(1)
		case "/b":
			b.Add(1)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 300))
	}))
	defer server.Close()
	c := newClient(t, server.Listener.Addr().String(), 4)
	to := asks(200, "/a", "/b", "/b")
	for range 2 { // over the same connections
		got, err := c.run(t.Context(), to, load{Requests: 300})
		require.NoError(t, err)
		require.Len(t, got.Latencies, 300)
		require.IsNonDecreasing(t, got.Latencies)
		require.Positive(t, got.Latencies[0])
		require.LessOrEqual(t, got.Latencies[299], got.Elapsed)
		require.InEpsilon(t, 300/got.Elapsed.Seconds(), got.perSecond(), 1e-9)
	}
	require.Equal(t, int64(200), a.Load())
	require.Equal(t, int64(400), b.Load())
}

func TestUnexpectedStatusFailsTheWindow(t *testing.T) {
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%10 == 0 {
			http.Error(w, "overloaded", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	c := newClient(t, server.Listener.Addr().String(), 2)
	_, err := c.run(t.Context(), asks(200, "/"), load{Requests: 50})
	require.EqualError(t, err, `5 of 50 answers were not the expected 200; one of them: 503 "overloaded\n"`)
}

func TestDurationEndsAClosedLoop(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	c := newClient(t, server.Listener.Addr().String(), 2)
	got, err := c.run(t.Context(), asks(200, "/"), load{Duration: 100 * time.Millisecond})
	require.NoError(t, err)
	require.NotEmpty(t, got.Latencies)
	require.GreaterOrEqual(t, got.Elapsed, 100*time.Millisecond)
}

func TestRateSpacesRequests(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	c := newClient(t, server.Listener.Addr().String(), 2)
	got, err := c.run(t.Context(), asks(200, "/"), load{Rate: 500, Duration: 200 * time.Millisecond})
	require.NoError(t, err)
	require.Len(t, got.Latencies, 100, "that many are due within the duration, however fast the server is")
	require.GreaterOrEqual(t, got.Elapsed, 198*time.Millisecond, "the last one is due 198 ms after the first")
}

// A server that stalls must not hide the requests that would have come in the
// meantime: they count from when they were due ("coordinated omission").
func TestRateCountsTheWaitForABusyConnection(t *testing.T) {
	const stall = 100 * time.Millisecond
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			select {
			case <-time.After(stall):
			case <-r.Context().Done():
			}
		}
	}))
	defer server.Close()
	c := newClient(t, server.Listener.Addr().String(), 1)
	got, err := c.run(t.Context(), asks(200, "/"), load{Rate: 1000, Requests: 100})
	require.NoError(t, err)
	require.Len(t, got.Latencies, 100)
	require.GreaterOrEqual(t, got.percentile(0.5), stall/3, "the fiftieth was due 50 ms into the stall")
}

func TestPercentileIsTheNearestRank(t *testing.T) {
	var hundred outcome
	for i := range 100 {
		hundred.Latencies = append(hundred.Latencies, time.Duration(i+1))
	}
	for _, tc := range []struct {
		of   outcome
		q    float64
		want time.Duration
	}{
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 0.991, 100},
		{hundred, 1, 100},
		{hundred, 0, 1},
		{outcome{Latencies: []time.Duration{7}}, 0.99, 7},
		{outcome{Latencies: []time.Duration{1, 2, 3}}, 0.5, 2},
		{outcome{}, 0.5, 0},
	} {
		require.Equal(t, tc.want, tc.of.percentile(tc.q), "%v of %d", tc.q, len(tc.of.Latencies))
	}
}

// answering accepts connections and answers every request with these bytes.
func answering(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				in := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(in); err != nil {
						return
					}
					if _, err := io.WriteString(c, answer); err != nil || answer == "" {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestWhatCannotBeMeasuredFails(t *testing.T) {
	for name, tc := range map[string]struct{ answer, want string }{
		"no answer":         {"", "request 1: read the status line: unexpected EOF"},
		"not HTTP/1.1":      {"HTTP/2 200\r\n\r\n", `request 1: not a status line of HTTP/1.1: "HTTP/2 200"`},
		"an interim answer": {"HTTP/1.1 100 Continue\r\n\r\n", "not a status line"},
		"a long code":       {"HTTP/1.1 2000 OK\r\n\r\n", "not a status line"},
		"chunked":           {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "no Content-Length"},
		"closing":           {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "closes the connection"},
		"no length":         {"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", `content-length "many"`},
		"negative length":   {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", `content-length "-1"`},
		"endless headers":   {"HTTP/1.1 200 OK\r\n" + strings.Repeat("a: b\r\n", 200), "more than 100 headers"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, answering(t, tc.answer), 1)
			_, err := c.run(t.Context(), asks(200, "/"), load{Requests: 3})
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestBodiesAreReadToTheirEnd(t *testing.T) {
	body := strings.Repeat("HTTP/1.1 503 not a status line\r\n", 1000)
	c := newClient(t, answering(t, fmt.Sprintf("HTTP/1.1 200\r\ncontent-LENGTH:%d\r\n\r\n%s", len(body), body)), 1)
	got, err := c.run(t.Context(), asks(200, "/"), load{Requests: 20})
	require.NoError(t, err)
	require.Len(t, got.Latencies, 20)
}

func TestCancelEndsAWindowThatWaitsForAnAnswer(t *testing.T) {
	asked := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	c := newClient(t, server.Listener.Addr().String(), 1)
	go func() {
		<-asked
		cancel()
	}()
	_, err := c.run(ctx, asks(200, "/"), load{Requests: 1})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, c.close()) // lets the handler end
}
