package e2e

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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// host is the name under which the gateway is asked.
const host = "gateway.example.com"

// idHeader carries a number by which a request is found again at the service.
const idHeader = "x-e2e-id"

var lastID atomic.Int64

func nextID() string { return strconv.FormatInt(lastID.Add(1), 10) }

// field is one header line.
type field struct{ name, value string }

// arrival is a request as a service received it: what was on the wire, in its
// order, nothing folded, joined or renamed.
type arrival struct {
	method, target string
	headers        []field
	body           string
	trailers       []field
}

// values returns the values of a header, whatever the case of its name.
func (a *arrival) values(name string) []string {
	var values []string
	for _, h := range a.headers {
		if strings.EqualFold(h.name, name) {
			values = append(values, h.value)
		}
	}
	return values
}

// identityNames are the headers that only the gate may set, and the one that
// it must never let through.
var identityNames = []string{"x-user-id", "x-user-email", "x-user-roles", "x-org-id", "x-internal-api-key"}

// identity returns every header and trailer that some server could read as one
// of identityNames, sorted, in lower case.
func (a *arrival) identity() []field {
	var found []field
	for _, h := range slices.Concat(a.headers, a.trailers) {
		name := strings.Map(func(c rune) rune {
			if c < '0' || '9' < c && c < 'a' || 'z' < c {
				return '-'
			}
			return c
		}, strings.ToLower(strings.TrimSpace(h.name)))
		if slices.Contains(identityNames, name) {
			found = append(found, field{strings.ToLower(h.name), h.value})
		}
	}
	slices.SortFunc(found, func(a, b field) int { return strings.Compare(a.name+a.value, b.name+b.value) })
	return found
}

// identity is what the four headers say.
type identity struct{ id, email, roles, org string }

// fields are the headers that must have arrived, exactly: those without a
// value not at all, the others once.
func (i identity) fields() []field {
	var all []field
	for _, f := range []field{{"x-org-id", i.org}, {"x-user-email", i.email}, {"x-user-id", i.id}, {"x-user-roles", i.roles}} {
		if f.value != "" {
			all = append(all, f)
		}
	}
	return all
}

// nobody has no identity headers.
var nobody = identity{}

// recorder is a service that remembers every request as it was on the wire.
type recorder struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu       sync.Mutex
	arrivals map[string]*arrival // by idHeader
	keeps    bool                // all of them, too
	all      []*arrival          // in their order, where kept
	conns    map[net.Conn]struct{}
	closed   bool
}

func newRecorder(ctx context.Context) (*recorder, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &recorder{listener: listener, arrivals: map[string]*arrival{}, conns: map[net.Conn]struct{}{}}
	r.wg.Go(r.accept)
	return r, nil
}

func (r *recorder) addr() string { return r.listener.Addr().String() }

func (r *recorder) stop() error {
	err := r.listener.Close()
	if errors.Is(err, net.ErrClosed) { // by a test
		err = nil
	}
	r.mu.Lock()
	r.closed = true
	for conn := range r.conns {
		err = errors.Join(err, conn.Close())
	}
	r.mu.Unlock()
	r.wg.Wait()
	return err
}

func (r *recorder) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		if r.closed {
			_ = conn.Close()
		} else {
			r.conns[conn] = struct{}{}
			r.wg.Go(func() { r.serve(conn) })
		}
		r.mu.Unlock()
	}
}

func (r *recorder) serve(conn net.Conn) {
	defer func() {
		r.mu.Lock()
		if _, open := r.conns[conn]; open {
			delete(r.conns, conn)
			_ = conn.Close()
		}
		r.mu.Unlock()
	}()
	in := bufio.NewReader(conn)
	for {
		a, err := readArrival(in)
		if err != nil {
			return // the gateway closed the connection
		}
		r.mu.Lock()
		for _, id := range a.values(idHeader) {
			r.arrivals[id] = a
		}
		if r.keeps {
			r.all = append(r.all, a)
		}
		r.mu.Unlock()
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nserved"); err != nil {
			return
		}
	}
}

// arrived returns the request with that id, nil when it did not arrive.
func (r *recorder) arrived(id string) *arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.arrivals[id]
}

// keep has the recorder remember every request, also those without an id.
func (r *recorder) keep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keeps = true
}

// every returns all requests that arrived since it was asked last.
func (r *recorder) every() []*arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

func readArrival(in *bufio.Reader) (*arrival, error) {
	head, err := readLines(in)
	if err != nil || len(head) == 0 {
		return nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	a := &arrival{headers: fields(head[1:])}
	a.method, a.target, _ = strings.Cut(strings.TrimSuffix(head[0], " HTTP/1.1"), " ")
	switch length := a.values("content-length"); {
	case len(length) > 0:
		n, err := strconv.Atoi(length[0])
		if err != nil {
			return nil, err
		}
		body := make([]byte, n)
		_, err = io.ReadFull(in, body)
		a.body = string(body)
		return a, err
	case slices.Contains(a.values("transfer-encoding"), "chunked"):
		err = a.readChunks(in)
	}
	return a, err
}

func (a *arrival) readChunks(in *bufio.Reader) error {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(strings.TrimRight(line, "\r\n"), 16, 32)
		if err != nil {
			return err
		}
		if n == 0 {
			trailers, err := readLines(in)
			a.trailers = fields(trailers)
			return err
		}
		chunk := make([]byte, n+2)
		if _, err := io.ReadFull(in, chunk); err != nil {
			return err
		}
		a.body += string(chunk[:n])
	}
}

// readLines reads up to an empty line.
func readLines(in *bufio.Reader) ([]string, error) {
	var lines []string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if line == "" {
			return lines, nil
		}
		lines = append(lines, line)
	}
}

func fields(lines []string) []field {
	all := make([]field, len(lines))
	for i, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		all[i] = field{name, strings.TrimSpace(value)}
	}
	return all
}

// reply is what a client got.
type reply struct {
	status  int // 0: the connection or stream was closed without an answer
	header  http.Header
	body    string
	arrived *arrival // what the recorder received; nil when nothing arrived
}

// line says what a reply was, for messages.
func (r reply) line() string { return fmt.Sprintf("%d %v %q", r.status, r.header, r.body) }

// send writes a request as it stands, so that a test can say what no client
// library would, and reads the answer. Lines of the head are separated by \n
// here and by \r\n on the wire; a Host, an id and Connection: close are added
// where there is none. What follows an empty line is the body, byte by byte.
func (g *gateway) send(t *testing.T, request string) reply {
	t.Helper()
	head, body, _ := strings.Cut(request, "\n\n")
	lower := strings.ToLower(head)
	if !strings.Contains(lower, "\nhost:") {
		head += "\nHost: " + host
	}
	if !strings.Contains(lower, "\nconnection:") {
		head += "\nConnection: close"
	}
	id := nextID()
	head += "\n" + idHeader + ": " + id
	conn, err := g.dial(t.Context())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, strings.ReplaceAll(head+"\n\n", "\n", "\r\n")+body)
	require.NoError(t, err)
	method, _, _ := strings.Cut(head, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return reply{arrived: g.recorder.arrived(id)}
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return reply{response.StatusCode, response.Header, string(text), g.recorder.arrived(id)}
}

// get sends a GET with these header lines.
func (g *gateway) get(t *testing.T, target string, headers ...string) reply {
	t.Helper()
	return g.do(t, "GET", target, headers...)
}

func (g *gateway) do(t *testing.T, method, target string, headers ...string) reply {
	t.Helper()
	return g.send(t, strings.Join(append([]string{method + " " + target + " HTTP/1.1"}, headers...), "\n"))
}

func (g *gateway) dial(ctx context.Context) (net.Conn, error) {
	var conn net.Conn
	var err error
	if g.tls != nil {
		conn, err = (&tls.Dialer{Config: g.tls}).DialContext(ctx, "tcp", g.addr)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", g.addr)
	}
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(patience))
}

// h2 is one request over HTTP/2 without TLS, frame by frame: the fields are
// sent as they are, valid or not.
type h2 struct {
	path     string
	fields   []hpack.HeaderField // after the four pseudo-headers and the id
	body     string
	trailers []hpack.HeaderField
}

func (g *gateway) http2(t *testing.T, request h2) reply {
	t.Helper()
	r, err := g.tryHTTP2(t.Context(), request)
	require.NoError(t, err)
	return r
}

// tryHTTP2 is http2 for several requests at a time. That the gateway drops a
// request is a reply, not an error.
func (g *gateway) tryHTTP2(ctx context.Context, request h2) (reply, error) {
	conn, err := g.dial(ctx)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = conn.Close() }()
	id := nextID()
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := request.write(conn, framer, id); err != nil {
		return reply{}, err
	}
	r := readHTTP2(framer)
	r.arrived = g.recorder.arrived(id)
	return r, nil
}

func (request h2) write(conn net.Conn, framer *http2.Framer, id string) error {
	method := "GET"
	if request.body != "" || request.trailers != nil {
		method = "POST"
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encode := func(fields []hpack.HeaderField) ([]byte, error) {
		block.Reset()
		var errs []error
		for _, f := range fields {
			errs = append(errs, encoder.WriteField(f))
		}
		return slices.Clone(block.Bytes()), errors.Join(errs...)
	}
	head, err := encode(append([]hpack.HeaderField{
		{Name: ":method", Value: method},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: host},
		{Name: ":path", Value: request.path},
		{Name: idHeader, Value: id},
	}, request.fields...))
	if err != nil {
		return err
	}
	trailers, err := encode(request.trailers)
	if err != nil {
		return err
	}
	_, err = io.WriteString(conn, http2.ClientPreface)
	errs := []error{err, framer.WriteSettings(), framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: head, EndHeaders: true, EndStream: method == "GET",
	})}
	if method == "POST" {
		errs = append(errs, framer.WriteData(1, request.trailers == nil, []byte(request.body)))
	}
	if request.trailers != nil {
		errs = append(errs, framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: trailers, EndHeaders: true, EndStream: true,
		}))
	}
	return errors.Join(errs...)
}

// readHTTP2 reads the answer on stream 1.
func readHTTP2(framer *http2.Framer) reply {
	r := reply{header: http.Header{}}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return reply{} // closed without an answer
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = framer.WriteSettingsAck() // if that fails, so will the next read
			}
		case *http2.MetaHeadersFrame:
			for _, f := range frame.Fields {
				if f.Name == ":status" {
					r.status, _ = strconv.Atoi(f.Value) // 0 is what no test expects
					continue
				}
				r.header.Add(f.Name, f.Value)
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			r.body += string(frame.Data())
			ended = frame.StreamEnded()
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			// After an answer, it only says that nobody reads the rest of the
			// request.
			return r
		}
		if ended {
			return r
		}
	}
}

// crumbs is a request for /users/me with its cookies in several fields.
func crumbs(values ...string) h2 {
	request := h2{path: "/users/me"}
	for _, v := range values {
		request.fields = append(request.fields, hpack.HeaderField{Name: "cookie", Value: v})
	}
	return request
}
