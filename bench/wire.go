package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// wireReport is what a client writes for pages of wireCalls requests over one
// connection to Envoy, in bytes.
type wireReport struct {
	Shown  string `json:"shown"`  // the credential
	Header int    `json:"header"` // its header in a request of HTTP/1.1; 0 for none
	HTTP1  int64  `json:"http1"`  // a page over HTTP/1.1
	// Over HTTP/2 a header that was sent before is a reference of a byte or
	// two, while it has a place in the table of the connection. So the first
	// page, with the connection's own start, and each further one.
	HTTP2First int64 `json:"http2_first_page"`
	HTTP2Next  int64 `json:"http2_next_page"`
}

const (
	wireCalls = 20
	// usualToken is how long tokens of providers are that carry roles, groups
	// and a profile.
	usualToken = 1800
)

// measureWire sends pages with nothing, a session cookie and a usual token
// through the listener without a filter.
func measureWire(ctx context.Context, s *stack) ([]wireReport, error) {
	token, err := s.creds.longToken(usualToken)
	if err != nil {
		return nil, err
	}
	addr := proc.Local(s.ports[baseNone])
	var all []wireReport
	for _, c := range []struct{ title, header string }{
		{"nothing", ""},
		{"session cookie", "cookie: " + cookieName + "=" + string(s.creds.cookies.at(0)) + "\r\n"},
		{fmt.Sprintf("token of %s B", thousands(len(token))), bearerBefore + token + "\r\n"},
	} {
		r := wireReport{Shown: c.title, Header: len(c.header)}
		if r.HTTP1, err = http1Page(ctx, addr, c.header); err != nil {
			return nil, fmt.Errorf("page over HTTP/1.1: %w", err)
		}
		if r.HTTP2First, r.HTTP2Next, err = http2Pages(ctx, addr, c.header); err != nil {
			return nil, fmt.Errorf("page over HTTP/2: %w", err)
		}
		all = append(all, r)
	}
	return all, nil
}

// longToken makes a token of about so many bytes, not less.
func (c *credentials) longToken(size int) (string, error) {
	for pad := 0; ; {
		token, err := c.token(0, "wire", time.Now(), map[string]any{"groups": strings.Repeat("g", pad)})
		if err != nil || len(token) >= size {
			return token, err
		}
		pad += max((size-len(token))*3/4, 1) // three bytes are four in base64
	}
}

// call is one of a page's requests, with this header line.
func call(i int, header string) string {
	request := strings.Replace(pageRequest, "/orders/42?", fmt.Sprintf("/orders/%d?", 10+i), 1)
	return crlf(request) + header + "\r\n"
}

// counted counts what is written.
type counted struct {
	net.Conn
	written *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

func dialCounted(ctx context.Context, addr string, written *atomic.Int64) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return counted{c, written}, nil
}

func http1Page(ctx context.Context, addr, header string) (int64, error) {
	var written atomic.Int64
	c, err := dialCounted(ctx, addr, &written)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(answerGrace)); err != nil {
		return 0, err
	}
	conn := conn{Conn: c, in: bufio.NewReader(c)}
	for i := range wireCalls {
		status, err := conn.exchange([]byte(call(i, header)))
		if err != nil {
			return 0, err
		}
		if status != http.StatusOK {
			return 0, fmt.Errorf("answered with %d", status)
		}
	}
	return written.Load(), nil
}

func http2Pages(ctx context.Context, addr, header string) (first, next int64, err error) {
	var written atomic.Int64
	var http2Only http.Protocols
	http2Only.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols: &http2Only,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialCounted(ctx, addr, &written)
		},
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, answerGrace)
	defer cancel()
	page := func() (int64, error) {
		before := written.Load()
		for i := range wireCalls {
			req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(call(i, header))))
			if err != nil {
				return 0, err
			}
			req.URL.Scheme, req.URL.Host, req.RequestURI = "http", req.Host, ""
			resp, err := transport.RoundTrip(req.WithContext(ctx))
			if err != nil {
				return 0, err
			}
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				return 0, err
			}
			if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
				return 0, fmt.Errorf("answered with %s %s", resp.Proto, resp.Status)
			}
		}
		return written.Load() - before, nil
	}
	if first, err = page(); err != nil {
		return 0, 0, err
	}
	next, err = page()
	return first, next, err
}
