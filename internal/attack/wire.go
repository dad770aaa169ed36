package attack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// answer is what came back for one request.
type answer struct {
	status  int      // 0: the connection or stream was closed without an answer
	echo    *Arrival // of this request; nil where it did not arrive, or nobody knows
	foreign bool     // the echo of another request came as the answer
	more    []*Arrival
	late    bool // no answer in time
	garbage bool // something that is no HTTP
}

const (
	mostAnswer = 1 << 20
	// moreTime is how long further answers on the connection are waited for at least,
	// where a request may have been taken for two; see patience.
	moreTime = 300 * time.Millisecond
)

// patience is how long further answers are waited for: twice as long as the target took
// for its slowest answer, since one that is slow about ordinary requests is slow about
// hidden ones, too.
func (o *Options) patience() time.Duration { return min(max(moreTime, 2*o.slowest), o.timeout()) }

// dial connects to the target and nowhere else.
func (o *Options) dial(ctx context.Context, protocols ...string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout())
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", o.address())
	if err != nil {
		return nil, err
	}
	if o.Target.Scheme == "https" {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if o.TLS != nil {
			config = o.TLS.Clone()
		}
		config.NextProtos = protocols
		if config.ServerName == "" {
			config.ServerName = o.Target.Hostname()
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		conn = secure
	}
	return conn, conn.SetDeadline(time.Now().Add(o.timeout()))
}

// send writes an HTTP/1 request as it stands and reads what comes back. more says
// that further answers are waited for.
func (o *Options) send(ctx context.Context, id string, lines []string, body string, more bool) (answer, error) {
	conn, err := o.dial(ctx, "http/1.1")
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_, _ = io.WriteString(conn, strings.Join(complete(lines, o.authority(), id), "\r\n")+"\r\n\r\n"+body) // a refusal may come before the end of it
	method, _, _ := strings.Cut(lines[0], " ")
	in := bufio.NewReader(conn)
	asked := time.Now()
	a, again := readAnswer(in, method, id)
	if !a.late { // some attacks have a gateway wait for more
		o.slowest = max(o.slowest, time.Since(asked))
	}
	for again && more {
		_ = conn.SetReadDeadline(time.Now().Add(o.patience()))
		next, goesOn := readAnswer(in, http.MethodGet, id)
		if next.echo != nil {
			a.more = append(a.more, next.echo)
		}
		again = goesOn
	}
	return a, ctx.Err()
}

// complete adds what a request needs, and what the case does not say.
func complete(lines []string, host, id string) []string {
	has := func(name string) bool {
		return slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(strings.ToLower(l), name+":") })
	}
	all := slices.Clone(lines)
	if !has("host") {
		all = append(all, "Host: "+host)
	}
	if !has("connection") {
		all = append(all, "Connection: close")
	}
	return append(all, idHeader+": "+id)
}

// readAnswer reads one answer; again says that the connection may bring another.
func readAnswer(in *bufio.Reader, method, id string) (a answer, again bool) {
	for {
		response, err := http.ReadResponse(in, &http.Request{Method: method})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return answer{late: true}, false
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), isReset(err):
			return answer{}, false
		case err != nil:
			return answer{garbage: true}, false
		}
		if response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
			continue // an interim answer
		}
		a.status = response.StatusCode
		if a.status == http.StatusSwitchingProtocols {
			return a, false
		}
		text, err := io.ReadAll(io.LimitReader(response.Body, mostAnswer))
		_ = response.Body.Close()
		a.recognize(string(text), id)
		return a, err == nil && !response.Close
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// recognize looks for the echo of the request in an answer's body.
func (a *answer) recognize(body, id string) {
	arrival, ok := parseEcho(body)
	switch {
	case ok && arrival.isEchoOf(id):
		a.echo = arrival
	case ok && len(arrival.Headers[strings.ToLower(idHeader)]) > 0:
		a.foreign = true
		a.echo = arrival
	}
}

// sendHTTP2 writes one request frame by frame: over TLS where the target has it,
// else with prior knowledge (RFC 9113 section 3.3).
func (o *Options) sendHTTP2(ctx context.Context, id string, request HTTP2) (answer, error) {
	conn, err := o.dial(ctx, "h2")
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := writeHTTP2(conn, framer, o.completeHTTP2(request, id)); err != nil {
		if isReset(err) {
			return answer{}, nil
		}
		return answer{}, err
	}
	return readHTTP2(framer, id), ctx.Err()
}

func (o *Options) completeHTTP2(request HTTP2, id string) HTTP2 {
	method := http.MethodGet
	if request.Body != "" || request.Trailers != nil {
		method = http.MethodPost
	}
	var pseudo [][2]string
	for _, f := range [][2]string{
		{":method", method}, {":scheme", o.Target.Scheme}, {":authority", o.authority()}, {":path", o.Protected},
	} {
		if !slices.ContainsFunc(request.Fields, func(named [2]string) bool { return named[0] == f[0] }) {
			pseudo = append(pseudo, f)
		}
	}
	// Those that the case names stand where it names them, among them.
	named := 0
	for named < len(request.Fields) && strings.HasPrefix(request.Fields[named][0], ":") {
		named++
	}
	request.Fields = slices.Concat(pseudo, request.Fields[:named], [][2]string{{idHeader, id}}, request.Fields[named:])
	return request
}

func writeHTTP2(conn io.Writer, framer *http2.Framer, request HTTP2) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encode := func(fields [][2]string) ([]byte, error) {
		block.Reset()
		for _, f := range fields {
			if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				return nil, err
			}
		}
		return bytes.Clone(block.Bytes()), nil
	}
	head, err := encode(request.Fields)
	if err != nil {
		return err
	}
	ends := request.Body == "" && request.Trailers == nil
	_, err = io.WriteString(conn, http2.ClientPreface)
	errs := []error{err, framer.WriteSettings(), framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: head, EndHeaders: true, EndStream: ends,
	})}
	if !ends {
		errs = append(errs, framer.WriteData(1, request.Trailers == nil, []byte(request.Body)))
	}
	if request.Trailers != nil {
		trailers, err := encode(request.Trailers)
		errs = append(errs, err, framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: trailers, EndHeaders: true, EndStream: true,
		}))
	}
	return errors.Join(errs...)
}

// readHTTP2 reads the answer on stream 1. That the stream or the connection is
// ended without one is a refusal; what came of one before its end counts.
func readHTTP2(framer *http2.Framer, id string) (a answer) {
	var body strings.Builder
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			a.late = a.status == 0 && errors.Is(err, os.ErrDeadlineExceeded)
			a.recognize(body.String(), id)
			return a
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = framer.WriteSettingsAck() // if that fails, so will the next read
			}
		case *http2.MetaHeadersFrame:
			for _, f := range frame.Fields {
				if status, err := strconv.Atoi(f.Value); f.Name == ":status" && err == nil && status >= 200 { // no interim answer
					a.status = status
				}
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			if body.Len() < mostAnswer {
				body.Write(frame.Data())
			}
			ended = frame.StreamEnded()
		case *http2.RSTStreamFrame:
			ended = true // after an answer, it only says that nobody reads the rest
		case *http2.GoAwayFrame:
			// Many say goodbye before they answer what they have: that is no refusal.
			ended = frame.ErrCode != http2.ErrCodeNo || frame.LastStreamID < 1
		}
		if ended {
			a.recognize(body.String(), id)
			return a
		}
	}
}

// askHTTP2 sends an ordinary GET over HTTP/2.
func (o *Options) askHTTP2(ctx context.Context, path string) (answer, error) {
	return o.sendHTTP2(ctx, newID(), HTTP2{Fields: [][2]string{{":path", path}}})
}

// speaksHTTP2 reports whether the target answers in HTTP/2.
func (o *Options) speaksHTTP2(ctx context.Context) bool {
	conn, err := o.dial(ctx, "h2")
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	framer := http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil || framer.WriteSettings() != nil {
		return false
	}
	frame, err := framer.ReadFrame()
	_, settings := frame.(*http2.SettingsFrame)
	return err == nil && settings
}

// callback listens where the target could reach this machine, and tells whether
// anybody came.
type callback struct {
	url  string
	hits chan struct{}
	stop func()
}

func (o *Options) listenForCallback(ctx context.Context, jwks []byte) (*callback, error) {
	conn, err := o.dial(ctx)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	_ = conn.Close()
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen for what the gateway fetches: %w", err)
	}
	c := &callback{url: "http://" + listener.Addr().String() + "/keys", hits: make(chan struct{}, 1)}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case c.hits <- struct{}{}:
		default:
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(jwks) // whoever fetches it has been found out
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends with Close
	}()
	c.stop = func() {
		_ = server.Close()
		<-done
	}
	return c, nil
}

func (c *callback) hit() bool {
	select {
	case <-c.hits:
		return true
	default:
		return false
	}
}
