package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// load is the shape of the load: how many connections send how many requests
// for how long, and when.
type load struct {
	// Connections are HTTP/1.1 connections that are kept open; each has at
	// most one request under way.
	Connections int
	// Rate is in requests per second, over all connections. 0 is a closed
	// loop: each connection sends its next request when it has the answer to
	// the last one.
	Rate float64
	// Requests and Duration bound a window; 0 is no bound. One of them is
	// given.
	Requests int
	Duration time.Duration
}

// answerGrace is how long an answer may take beyond the end of a window.
const answerGrace = 10 * time.Second

// outcome is what one window of load showed.
type outcome struct {
	Elapsed time.Duration
	// Latencies has one entry per request, in ascending order.
	Latencies []time.Duration
}

// perSecond is the throughput.
func (o outcome) perSecond() float64 {
	if o.Elapsed <= 0 {
		return 0
	}
	return float64(len(o.Latencies)) / o.Elapsed.Seconds()
}

// percentile returns the smallest latency that at least the share q of the
// requests did not exceed (nearest rank), 0 when there were none.
func (o outcome) percentile(q float64) time.Duration {
	if len(o.Latencies) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(o.Latencies))))
	return o.Latencies[min(max(rank, 1), len(o.Latencies))-1]
}

// client sends load over its connections, which stay open from window to
// window. It is not safe for concurrent use.
type client struct {
	addr  string
	conns []*conn
}

// dialClient opens n connections.
func dialClient(ctx context.Context, addr string, n int) (*client, error) {
	c := &client{addr: addr}
	var d net.Dialer
	for range n {
		nc, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.conns = append(c.conns, &conn{Conn: nc, in: bufio.NewReaderSize(nc, 8<<10)})
	}
	return c, nil
}

func (c *client) close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// run sends one window of load and waits for its last answer. Any answer but
// the expected one is an error, and so is a connection that ends: the figures
// of such a window would be those of something else.
func (c *client) run(ctx context.Context, t *target, l load) (outcome, error) {
	w := &window{target: t, load: l, start: time.Now()}
	if l.Duration > 0 {
		deadline := w.start.Add(l.Duration + answerGrace)
		for _, conn := range c.conns {
			if err := conn.SetDeadline(deadline); err != nil {
				return outcome{}, err
			}
		}
	}
	// Whoever waits for an answer is woken by a deadline that has passed.
	stop := context.AfterFunc(ctx, func() {
		for _, conn := range c.conns {
			_ = conn.SetDeadline(time.Unix(1, 0)) // fails only on a closed connection, which is what we want
		}
	})
	defer stop()

	workers := make([]worker, len(c.conns))
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { workers[i].run(ctx, w, c.conns[i]) })
	}
	wg.Wait()
	elapsed := time.Since(w.start)

	var (
		latencies  []time.Duration
		unexpected int
		example    string
		failed     error
	)
	for i := range workers {
		latencies = append(latencies, workers[i].latencies...)
		unexpected += workers[i].unexpected
		if example == "" {
			example = workers[i].example
		}
		if failed == nil {
			failed = workers[i].err
		}
	}
	switch {
	case ctx.Err() != nil:
		return outcome{}, ctx.Err()
	case unexpected > 0:
		return outcome{}, fmt.Errorf("%d of %d answers were not the expected %d; one of them: %s",
			unexpected, len(latencies), t.status, example)
	case failed != nil:
		return outcome{}, failed
	}
	slices.Sort(latencies)
	return outcome{Elapsed: elapsed, Latencies: latencies}, nil
}

// window is what the workers of one window share.
type window struct {
	*target
	load  load
	start time.Time
	next  atomic.Int64
	over  atomic.Bool // a worker failed: the others needn't go on
}

// take returns the number of the next request and when it is due, counted
// from the start of the window. ok is false when the window is over.
func (w *window) take() (n int, due time.Duration, ok bool) {
	n = int(w.next.Add(1) - 1)
	if w.load.Rate > 0 {
		due = time.Duration(float64(n) / w.load.Rate * float64(time.Second))
	} else {
		due = time.Since(w.start)
	}
	ok = !w.over.Load() &&
		(w.load.Requests <= 0 || n < w.load.Requests) &&
		(w.load.Duration <= 0 || due < w.load.Duration)
	return n, due, ok
}

// worker is one connection's part of a window.
type worker struct {
	latencies  []time.Duration
	unexpected int
	example    string // the first unexpected answer
	err        error
}

func (k *worker) run(ctx context.Context, w *window, c *conn) {
	for {
		n, due, ok := w.take()
		if !ok {
			return
		}
		// A request that had to wait for a free connection counts from when it
		// was due, otherwise a server that stalls would hide the queue that it
		// causes. One that is late only because this process woke up late
		// counts from now: timers are no finer than a millisecond.
		sent := w.start.Add(due)
		if w.load.Rate > 0 && time.Until(sent) > 0 {
			if !pause(ctx, time.Until(sent)) {
				return
			}
			sent = time.Now()
		}
		c.out = w.target.next(c.out[:0])
		status, err := c.exchange(c.out)
		if err != nil {
			w.over.Store(true)
			k.err = fmt.Errorf("request %d: %w", n+1, err)
			return
		}
		k.latencies = append(k.latencies, time.Since(sent))
		if status != w.status {
			k.unexpected++
			if k.example == "" {
				k.example = fmt.Sprintf("%d %q", status, c.body)
			}
		}
	}
}

// pause waits, and reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// conn is one HTTP/1.1 connection. It knows as much of HTTP as Envoy's direct
// responses need, and allocates nothing, so that the generator takes little of
// the processor that it shares with what it measures.
type conn struct {
	net.Conn
	in   *bufio.Reader
	out  []byte // the last request
	body []byte // the start of the last answer's body
	echo []byte // the last answer's header echoHeader
}

// echoHeader tells which organization the service would have seen, where a
// listener tells it.
const echoHeader = "x-seen-organization"

const (
	maxHeaders  = 100
	keepOfBody  = 200
	maxBodySize = 1 << 20
)

var (
	errClosing  = errors.New("the server closes the connection after its answer")
	errEncoding = errors.New("the answer has no Content-Length")
)

// exchange sends one request and reads its answer.
func (c *conn) exchange(request []byte) (status int, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	line, err := c.line()
	if err != nil {
		return 0, fmt.Errorf("read the status line: %w", err)
	}
	status, ok := parseStatus(line)
	if !ok {
		return 0, fmt.Errorf("not a status line of HTTP/1.1: %q", line)
	}
	length := -1
	c.echo = c.echo[:0]
	for range maxHeaders {
		if line, err = c.line(); err != nil {
			return 0, fmt.Errorf("read a header: %w", err)
		}
		if len(line) == 0 {
			if length < 0 {
				return 0, errEncoding
			}
			return status, c.readBody(length)
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case isHeader(name, "content-length"):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 || length > maxBodySize {
				return 0, fmt.Errorf("content-length %q", value)
			}
		case isHeader(name, echoHeader):
			c.echo = append(c.echo, value...)
		case isHeader(name, "connection") && isHeader(value, "close"):
			return 0, errClosing
		}
	}
	return 0, fmt.Errorf("more than %d headers in the answer", maxHeaders)
}

// line returns the next line without its end. It is valid until the next read.
func (c *conn) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func (c *conn) readBody(length int) error {
	start, err := c.in.Peek(min(length, keepOfBody))
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	c.body = append(c.body[:0], start...)
	if _, err := c.in.Discard(length); err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	return nil
}

func parseStatus(line []byte) (int, bool) {
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if !ok || len(rest) < 3 || len(rest) > 3 && rest[3] != ' ' {
		return 0, false
	}
	status := 0
	for _, c := range rest[:3] {
		if c < '0' || c > '9' {
			return 0, false
		}
		status = status*10 + int(c-'0')
	}
	return status, status >= 200
}

// isHeader compares without case and without the allocation of a conversion.
func isHeader(name []byte, want string) bool {
	return len(name) == len(want) && bytes.EqualFold(name, []byte(want))
}
