package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// A connection that says nothing for a while is taken to say nothing more: where an
// answer has come, and where none needs to come. A test that gives up early sees less,
// and never fails for it: what matters is what the service received.
const (
	silenceAfter = 300 * time.Millisecond
	silenceOnly  = 2 * time.Second // Envoy closes a second after the protocol was broken
)

// firstWait is how long to wait for the first answer.
func firstWait(statuses []int) time.Duration {
	if slices.Contains(statuses, 0) {
		return silenceOnly
	}
	return patience
}

// smuggled is the request that must never reach a service: nobody's, and hidden in
// what some parser may take for the body, or the rest, of another.
const smuggled = "GET /users/admin/stats?smuggled HTTP/1.1\r\nHost: gateway.example.com\r\nx-user-id: root\r\n\r\n"

// smuggling are requests over HTTP/1.1 in which one parser finds another end than the
// next one. $S is a session's Cookie line; every \n of the text is \r\n on the wire,
// but \N is a bare line feed and \R a bare carriage return.
var smuggling = []struct {
	name, text string
	// statuses are what the first answer may be; 0: closed without one.
	statuses []int
}{
	// Two lengths, RFC 9112 section 6.
	{"CL.TE", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: $L\nTransfer-Encoding: chunked\n\n0\n\n$SMUGGLED", rejects},
	{"TE.CL", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\nContent-Length: 4\n\n5c\n$SMUGGLED\n0\n\n", rejects},
	{"CL.0", "GET /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: $L\n\n$SMUGGLED", serves},
	{"0.CL", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: 0\n\n$SMUGGLED", serves},
	{"a body without a length", "POST /users/me HTTP/1.1\nHost: h\n$S\n\n$SMUGGLED", serves},
	{"two lengths", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: 0\nContent-Length: $L\n\n$SMUGGLED", rejects},
	{"two equal lengths", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: 0\nContent-Length: 0\n\n$SMUGGLED", rejects},
	{"a list of lengths", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: 0, 0\n\n$SMUGGLED", rejects},
	{"a signed length", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: +0\n\n$SMUGGLED", rejects},
	{"a negative length", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: -1\n\n$SMUGGLED", rejects},
	{"a hexadecimal length", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: 0x10\n\n$SMUGGLED", rejects},
	{"an enormous length", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: 99999999999999999999999\n\n$SMUGGLED", rejects},
	{"a length that overflows to 0", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: 18446744073709551616\n\n$SMUGGLED", rejects},
	{"a length with a parameter", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: 0;x\n\n$SMUGGLED", rejects},
	{"an empty length", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length:\n\n$SMUGGLED", rejects},
	{"a length in two words", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: 0 0\n\n$SMUGGLED", rejects},
	{"a length with an underscore", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent_Length: $L\n\n$SMUGGLED", rejects},
	{"a space before the colon", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length : $L\n\n$SMUGGLED", rejects},
	{"a length after a NUL", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: \x000\n\n$SMUGGLED", rejects},
	{"a folded length", "POST /users/me HTTP/1.1\nHost: h\n$S\nContent-Length:\n 0\n\n$SMUGGLED", either},

	// Transfer codings, written oddly.
	{"an unknown coding", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: xchunked\n\n0\n\n$SMUGGLED", refuses},
	{"identity", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: identity\nContent-Length: $L\n\n$SMUGGLED", refuses},
	{"chunked, then identity", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked, identity\n\n0\n\n$SMUGGLED", refuses},
	{"identity, then chunked", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: identity, chunked\n\n0\n\n$SMUGGLED", refuses},
	{"gzip, then chunked", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: gzip, chunked\n\n0\n\n$SMUGGLED", refuses},
	{"chunked twice", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked, chunked\n\n0\n\n$SMUGGLED", refuses},
	{"two lines, one unknown", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\nTransfer-Encoding: x\n\n0\n\n$SMUGGLED", refuses},
	{"two lines, the first unknown", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: x\nTransfer-Encoding: chunked\n\n0\n\n$SMUGGLED", refuses},
	{"capitals", "POST /users/me HTTP/1.1\nHost: h\n$S\nTRANSFER-ENCODING: CHUNKED\n\n0\n\n$SMUGGLED", serves},
	{"a tab", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding:\tchunked\n\n0\n\n$SMUGGLED", serves},
	{"a vertical tab", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: \x0bchunked\nContent-Length: $L\n\n0\n\n$SMUGGLED", refuses},
	{"a byte that is no ASCII", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\xa0\nContent-Length: $L\n\n0\n\n$SMUGGLED", refuses},
	{"a NUL behind it", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\x00\nContent-Length: $L\n\n0\n\n$SMUGGLED", refuses},
	{"quoted", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: \"chunked\"\nContent-Length: $L\n\n0\n\n$SMUGGLED", refuses},
	{"an empty coding", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding:\nContent-Length: $L\n\n0\n\n$SMUGGLED", refuses},
	{"folded", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding:\n chunked\nContent-Length: $L\n\n0\n\n$SMUGGLED", refuses},
	{"a space before its colon", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding : chunked\nContent-Length: $L\n\n0\n\n$SMUGGLED", rejects},
	{"a space before its name", "POST /users/me HTTP/1.1\nHost: h\n$S\n Transfer-Encoding: chunked\nContent-Length: $L\n\n0\n\n$SMUGGLED", either},
	{"behind a bare line feed", "POST /users/me HTTP/1.1\nHost: h\n$S\nX: x\\NTransfer-Encoding: chunked\nContent-Length: $L\n\n0\n\n$SMUGGLED", either},
	{"behind a bare carriage return", "POST /users/me HTTP/1.1\nHost: h\n$S\nX: x\\RTransfer-Encoding: chunked\nContent-Length: $L\n\n0\n\n$SMUGGLED", either},
	{"an underscore", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer_Encoding: chunked\nContent-Length: $L\n\n0\n\n$SMUGGLED", rejects},
	{"HTTP/1.0 with a coding", "POST /users/me HTTP/1.0\nHost: h\n$S\nTransfer-Encoding: chunked\n\n0\n\n$SMUGGLED", refuses},

	// Chunks, RFC 9112 section 7.1.
	{"an extension", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n3;a=b;c=\"d\"\nabc\n0;e\n\n", serves},
	{"an extension that ends in a bare line feed", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n3;\\Nabc\n60\n$SMUGGLED\n0\n\n", either},
	{"an extension with a bare carriage return", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n3;a\\Rb\nabc\n0\n\n$SMUGGLED", either},
	{"a size that ends in a bare line feed", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n3\\Nabc\n0\n\n$SMUGGLED", either},
	{"data that ends in a bare line feed", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n3\nabc\\N0\n\n$SMUGGLED", either},
	{"data longer than its size", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n1\nabc\n0\n\n$SMUGGLED", either},
	{"a size with 0x", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n0x3\nabc\n0\n\n$SMUGGLED", either},
	{"a signed size", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n+3\nabc\n0\n\n$SMUGGLED", either},
	{"a negative size", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n-1\nabc\n0\n\n$SMUGGLED", either},
	{"a size that overflows", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n10000000000000003\nabc\n0\n\n$SMUGGLED", either},
	{"no size", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n\nabc\n0\n\n$SMUGGLED", either},
	{"a last chunk of many zeros", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n3\nabc\n000000000000000000000\n\n", either},
	{"a request for a trailer", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n0\nGET /users/admin/stats?smuggled HTTP/1.1\nHost: h\n\n$SMUGGLED", either},
	{"a length for a trailer", "POST /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n0\nContent-Length: $L\n\n$SMUGGLED", serves},

	// The request line and the lines of the head.
	{"bare line feeds", "GET /users/me HTTP/1.1\\NHost: h\\N$S\\N\\N$SMUGGLED", either},
	{"an empty line first", "\n\nGET /users/me HTTP/1.1\nHost: h\n$S\n\n$SMUGGLED", either},
	{"two spaces", "GET  /users/me HTTP/1.1\nHost: h\n$S\n\n", either},
	{"a tab for a space", "GET\t/users/me\tHTTP/1.1\nHost: h\n$S\n\n", either},
	{"two targets", "GET /users/me /users/admin/stats HTTP/1.1\nHost: h\n$S\n\n", refuses},
	{"HTTP/0.9", "GET /users/me\n$S\n\n", refuses},
	{"no version", "GET /users/me \nHost: h\n$S\n\n", refuses},
	{"HTTP/1.2", "GET /users/me HTTP/1.2\nHost: h\n$S\n\n", either},
	{"HTTP/2.0 in words", "GET /users/me HTTP/2.0\nHost: h\n$S\n\n", refuses},
	{"the preface of HTTP/2, later", "GET /users/me HTTP/1.1\nHost: h\n$S\n\nPRI * HTTP/2.0\n\nSM\n\n", serves},
	{"a version with leading zeros", "GET /users/me HTTP/01.1\nHost: h\n$S\n\n", refuses},
	{"a method in lower case", "get /users/me HTTP/1.1\nHost: h\n$S\n\n", either},
	{"a method of its own", "SMUGGLE /users/me HTTP/1.1\nHost: h\n$S\n\n", either},
	{"a method with a line feed", "GE\\NT /users/me HTTP/1.1\nHost: h\n$S\n\n", refuses},
	{"a target with a carriage return", "GET /users/me\\R HTTP/1.1\nHost: h\n$S\n\n", either},
	{"a target that is a whole request", "GET /users/me?\\R\\NHost:x\\R\\N\\R\\NGET /users/admin/stats HTTP/1.1\nHost: h\n$S\n\n", refuses},
	{"CONNECT", "CONNECT /users/me HTTP/1.1\nHost: h\n$S\n\n$SMUGGLED", refuses},
	{"CONNECT to a service", "CONNECT 127.0.0.1:8101 HTTP/1.1\nHost: 127.0.0.1:8101\n$S\n\n$SMUGGLED", refuses},
	{"TRACE", "TRACE /users/me HTTP/1.1\nHost: h\n$S\n\n", either},
	{"a body for GET", "GET /users/me HTTP/1.1\nHost: h\n$S\nTransfer-Encoding: chunked\n\n0\n\n$SMUGGLED", serves},
	{"a body for HEAD", "HEAD /users/me HTTP/1.1\nHost: h\n$S\nContent-Length: $L\n\n$SMUGGLED", serves},
	{"waiting for 100", "POST /users/me HTTP/1.1\nHost: h\n$S\nExpect: 100-continue\nContent-Length: $L\n\n$SMUGGLED", []int{100, 200}},
	{"another expectation", "POST /users/me HTTP/1.1\nHost: h\n$S\nExpect: x\nContent-Length: $L\n\n$SMUGGLED", either},
	{"an upgrade to h2c", "GET /users/me HTTP/1.1\nHost: h\n$S\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n\n$SMUGGLED", either},
	{"an upgrade to a WebSocket", "GET /users/me HTTP/1.1\nHost: h\n$S\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n\n$SMUGGLED", refuses},
	{"a length that is nominated away", "POST /users/me HTTP/1.1\nHost: h\n$S\nConnection: Content-Length\nContent-Length: $L\n\n$SMUGGLED", either},
	{"a coding that is nominated away", "POST /users/me HTTP/1.1\nHost: h\n$S\nConnection: Transfer-Encoding\nTransfer-Encoding: chunked\n\n0\n\n$SMUGGLED", either},
	{"no host", "GET /users/me HTTP/1.1\n$S\n\n", refuses},
	{"two hosts", "GET /users/me HTTP/1.1\nHost: h\nHost: admin.example.com\n$S\n\n", refuses},
	{"two hosts, one with a space", "GET /users/me HTTP/1.1\nHost: h\nHost : admin.example.com\n$S\n\n", refuses},
	{"a folded host", "GET /users/me HTTP/1.1\nHost:\n h\n$S\n\n", either},
	{"an absolute form with another host", "GET http://other.example.com/users/me HTTP/1.1\nHost: h\n$S\n\n", serves},

	// Several requests on one connection: each is checked by itself.
	{"three in a row", "GET /users/me HTTP/1.1\nHost: h\n$S\n\n$SMUGGLEDGET /users/me HTTP/1.1\nHost: h\n$S\n\n", serves},
	{"a session does not stay", "GET /users/me HTTP/1.1\nHost: h\n$S\n\nGET /users/me?smuggled HTTP/1.1\nHost: h\n\n", serves},

	// Large ones.
	{"a header of 70,000 bytes", "GET /users/me HTTP/1.1\nHost: h\n$S\nX-Long: $LONG\n\n$SMUGGLED", []int{431}},
	{"a name of 70,000 bytes", "GET /users/me HTTP/1.1\nHost: h\n$S\n$LONG: x\n\n$SMUGGLED", []int{431}},
	{"a target of 70,000 bytes", "GET /users/me?$LONG HTTP/1.1\nHost: h\n$S\n\n$SMUGGLED", []int{414, 431, 400}},
	{"200 headers", "GET /users/me HTTP/1.1\nHost: h\n$S\n$MANY\n$SMUGGLED", []int{431}},
	{"a cookie that is no UTF-8", "GET /users/me HTTP/1.1\nHost: h\nCookie: a=\xff\xfe\n$S\n\n", serves},
	{"another session behind it", "GET /users/me HTTP/1.1\nHost: h\n$S\nCookie: sessionId=s%3Aother.x\n\n", serves},
	{"another session before it", "GET /users/me HTTP/1.1\nHost: h\nCookie: sessionId=s%3Aother.x\n$S\n\n", refuses},
}

// What the first answer may be.
var (
	rejects = []int{400}
	serves  = []int{200}
	refuses = []int{0, 400, 401, 403, 404, 405, 426, 501, 503, 505} // 503: on a busy machine
	either  = append([]int{200}, refuses...)
)

// onWire is a request of smuggling as bytes.
func onWire(text, session string) []byte {
	text = strings.ReplaceAll(text, "$SMUGGLED", "\x01")
	text = strings.NewReplacer(
		"\\N", "\n", "\\R", "\r", "\n", "\r\n", "$S", session,
		"$LONG", strings.Repeat("x", 70_000), "$MANY", strings.Repeat("X-Many: 1\r\n", 200),
	).Replace(text)
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	length := len(strings.ReplaceAll(body, "\x01", smuggled))
	head = strings.ReplaceAll(head, "$L", strconv.Itoa(length))
	return []byte(strings.ReplaceAll(head+"\r\n\r\n"+body, "\x01", smuggled))
}

// statuses writes bytes and returns the status of each answer until nothing more
// comes.
func (g *gateway) statuses(ctx context.Context, request []byte, wait time.Duration) (all []int, err error) {
	err = g.exchange(ctx, request, &wait, func(conn io.Reader) func() error {
		in := bufio.NewReader(conn)
		return func() error {
			response, err := http.ReadResponse(in, &http.Request{Method: method(request)})
			if err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			all = append(all, response.StatusCode)
			wait = silenceAfter
			return nil
		}
	})
	return all, err
}

// exchange writes bytes on a connection of their own, and has what comes back read
// piece by piece, until that fails, or nothing comes for as long as wait says by then.
// Its error is that it could not connect.
func (g *gateway) exchange(ctx context.Context, request []byte, wait *time.Duration, reads func(conn io.Reader) (next func() error)) error {
	conn, err := g.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = conn.Write(request) // the other side may have heard enough
	}()
	next := reads(conn)
	for err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(*wait))
		err = next()
	}
	_ = conn.Close()
	<-written
	return nil
}

// inParallel does something for each of n cases, some at a time: most of them wait.
func inParallel(n int, each func(i int)) {
	var clients sync.WaitGroup
	next := make(chan int)
	for range 48 {
		clients.Go(func() {
			for i := range next {
				each(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	clients.Wait()
}

func method(request []byte) string {
	if bytes.HasPrefix(request, []byte("HEAD ")) {
		return "HEAD"
	}
	return "GET"
}

// requireChecked requires that what arrived is what was checked: each request once,
// allowed, the same in method, target and host, as the user whom the check found; and
// that each says how long it is in one way only.
func requireChecked(t *testing.T, w watched, arrivals []*arrival) {
	t.Helper()
	seen := map[string]bool{}
	for _, a := range arrivals {
		line := fmt.Sprintf("%s %s %q", a.method, a.target, a.headers)
		require.NotContains(t, a.target, "smuggled", line)
		require.False(t, seen[a.id()], "two arrived for one check: %s", line)
		seen[a.id()] = true
		checks := w.of(a.id())
		require.NotEmpty(t, checks, "it was not checked: %s", line)
		c := checks[len(checks)-1]
		require.Equal(t, 200, c.status, "it was refused: %s", line)
		require.Equal(t, []string{c.method, c.target, c.host}, []string{a.method, a.target, strings.Join(a.values("host"), ",")}, "another request was checked: %s", line)
		require.Equal(t, "bob", c.user)
		require.Equal(t, bob.fields(), a.identity(), line)
		lengths, codings := a.values("content-length"), a.values("transfer-encoding")
		require.LessOrEqual(t, len(lengths)+len(codings), 1, "its length can be read in two ways: %s", line)
		for _, coding := range codings {
			require.Equal(t, "chunked", coding)
		}
		require.Empty(t, a.trailers, line)
	}
}

// Whatever is sent over HTTP/1.1, no request reaches a service but those that were
// checked, each as it was checked; and whoever comes next on a connection to a service
// gets their own answer.
func TestNoRequestIsSmuggledPastTheCheck(t *testing.T) {
	s := start(t, options{})
	for _, variant := range []string{asShipped, defenceOff} {
		w := s.watchedGateway(t, variants[variant]...)
		session := cookie(w.login(t, bob))
		found := make([][]int, len(smuggling))
		errs := make([]error, len(smuggling))
		inParallel(len(smuggling), func(i int) {
			tc := smuggling[i]
			found[i], errs[i] = w.statuses(t.Context(), onWire(tc.text, session), firstWait(tc.statuses))
		})
		for i, tc := range smuggling {
			t.Run(variant+"/"+tc.name, func(t *testing.T) {
				require.NoError(t, errs[i])
				first := 0
				if len(found[i]) > 0 {
					first = found[i][0]
				}
				want := tc.statuses
				if variant == defenceOff && strings.Contains(tc.name, "underscore") {
					want = serves // it says nothing about the length, to anybody
				}
				require.Contains(t, want, first, "all answers: %v", found[i])
			})
		}
		arrivals := s.recorder.every()
		require.NotEmpty(t, arrivals)
		requireChecked(t, w, arrivals)
		for range len(smuggling) {
			r := w.get(t, "/users/me?victim", session)
			requireAllowed(t, r, bob)
			require.Equal(t, "/users/me?victim", r.arrived.target)
			require.Empty(t, r.arrived.body)
		}
		requireChecked(t, w, s.recorder.every())
	}
}

// wire2 is what is sent over HTTP/2, frame by frame.
type wire2 struct {
	*http2.Framer
	out     *bytes.Buffer
	encoder *hpack.Encoder
	block   bytes.Buffer
}

func newWire2() *wire2 {
	w := &wire2{out: &bytes.Buffer{}}
	w.out.WriteString(http2.ClientPreface)
	w.Framer = http2.NewFramer(w.out, nil)
	w.AllowIllegalWrites = true
	w.encoder = hpack.NewEncoder(&w.block)
	_ = w.WriteSettings() // to memory, as all of it
	return w
}

// fragment encodes headers: name, value, name, value.
func (w *wire2) fragment(pairs ...string) []byte {
	w.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = w.encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return slices.Clone(w.block.Bytes())
}

// headers sends a head in one frame.
func (w *wire2) headers(stream uint32, end bool, pairs ...string) {
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.fragment(pairs...), EndHeaders: true, EndStream: end})
}

// raw sends any frame.
func (w *wire2) raw(kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte) {
	_ = w.WriteRawFrame(kind, flags, stream, payload)
}

// head is a good request's, with some more behind it.
func head2(session string, more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":authority", host, ":path", "/users/me", "cookie", session}, more...)
}

// replaced gives a header of a head another value; nil takes it out.
func replaced(head []string, name string, values ...string) []string {
	var all []string
	for i := 0; i < len(head); i += 2 {
		if head[i] != name {
			all = append(all, head[i], head[i+1])
			continue
		}
		for _, v := range values {
			all = append(all, name, v)
		}
	}
	return all
}

// smuggling2 are requests over HTTP/2 that break its rules, or that would break those of
// HTTP/1.1 on their way to the service. session is the cookie.
var smuggling2 = []struct {
	name string
	send func(w *wire2, session string)
	// statuses are what the answer of the first stream may be; 0: reset or closed.
	statuses []int
}{
	{"nothing odd", func(w *wire2, s string) { w.headers(1, true, head2(s)...) }, serves},
	{"a body longer than its length", func(w *wire2, s string) {
		w.headers(1, false, replaced(head2(s, "content-length", "3"), ":method", "POST")...)
		_ = w.WriteData(1, true, []byte("abc"+smuggled))
	}, either},
	{"a body shorter than its length", func(w *wire2, s string) {
		w.headers(1, false, replaced(head2(s, "content-length", "500"), ":method", "POST")...)
		_ = w.WriteData(1, true, []byte("abc"))
	}, either},
	{"a length and no body", func(w *wire2, s string) { w.headers(1, true, head2(s, "content-length", "9")...) }, either},
	{"two lengths", func(w *wire2, s string) {
		w.headers(1, false, replaced(head2(s, "content-length", "3", "content-length", "0"), ":method", "POST")...)
		_ = w.WriteData(1, true, []byte("abc"))
	}, refuses},
	{"a length that is none", func(w *wire2, s string) {
		w.headers(1, false, replaced(head2(s, "content-length", "3;x"), ":method", "POST")...)
		_ = w.WriteData(1, true, []byte("abc"))
	}, refuses},
	{"H2.TE", func(w *wire2, s string) {
		w.headers(1, false, replaced(head2(s, "transfer-encoding", "chunked"), ":method", "POST")...)
		_ = w.WriteData(1, true, []byte("0\r\n\r\n"+smuggled))
	}, refuses},
	{"H2.TE by a line break", func(w *wire2, s string) {
		w.headers(1, false, replaced(head2(s, "x", "x\r\ntransfer-encoding: chunked"), ":method", "POST")...)
		_ = w.WriteData(1, true, []byte("0\r\n\r\n"+smuggled))
	}, refuses},
	{"a line break in a name", func(w *wire2, s string) {
		w.headers(1, true, head2(s, "x: 1\r\nx-user-id", "root")...)
	}, refuses},
	{"a colon in a name", func(w *wire2, s string) { w.headers(1, true, head2(s, "x-user-id: root", "x")...) }, refuses},
	{"a whole request in a path", func(w *wire2, s string) {
		w.headers(1, true, replaced(head2(s), ":path", "/users/me HTTP/1.1\r\nHost: h\r\n\r\n"+smuggled)...)
	}, refuses},
	{"a path with a space", func(w *wire2, s string) { w.headers(1, true, replaced(head2(s), ":path", "/users/me HTTP/1.1")...) }, refuses},
	{"a path with a line feed", func(w *wire2, s string) { w.headers(1, true, replaced(head2(s), ":path", "/users/me\n")...) }, refuses},
	{"an empty path", func(w *wire2, s string) { w.headers(1, true, replaced(head2(s), ":path", "")...) }, refuses},
	{"no path", func(w *wire2, s string) { w.headers(1, true, replaced(head2(s), ":path")...) }, refuses},
	{"a path without a slash", func(w *wire2, s string) { w.headers(1, true, replaced(head2(s), ":path", "users/me")...) }, refuses},
	{"an absolute path", func(w *wire2, s string) { w.headers(1, true, replaced(head2(s), ":path", "http://h/users/me")...) }, refuses},
	{"two paths", func(w *wire2, s string) {
		w.headers(1, true, replaced(head2(s), ":path", "/users/me", "/users/admin/stats")...)
	}, refuses},
	{"a whole request in a method", func(w *wire2, s string) {
		w.headers(1, true, replaced(head2(s), ":method", "GET /users/admin/stats?smuggled HTTP/1.1\r\nHost: h\r\n\r\nGET")...)
	}, refuses},
	{"a method with a space", func(w *wire2, s string) {
		w.headers(1, true, replaced(head2(s), ":method", "GET /users/admin/stats?smuggled")...)
	}, refuses},
	{"an empty method", func(w *wire2, s string) { w.headers(1, true, replaced(head2(s), ":method", "")...) }, refuses},
	{"two methods", func(w *wire2, s string) { w.headers(1, true, replaced(head2(s), ":method", "GET", "DELETE")...) }, refuses},
	{"a line break in the authority", func(w *wire2, s string) {
		w.headers(1, true, replaced(head2(s), ":authority", "h\r\nx-user-id: root")...)
	}, refuses},
	{"two authorities", func(w *wire2, s string) {
		w.headers(1, true, replaced(head2(s), ":authority", "h", "admin.example.com")...)
	}, refuses},
	{"a host beside the authority", func(w *wire2, s string) { w.headers(1, true, head2(s, "host", "admin.example.com")...) }, either},
	{"a host and no authority", func(w *wire2, s string) { w.headers(1, true, replaced(head2(s, "host", "h"), ":authority")...) }, either},
	{"no host at all", func(w *wire2, s string) { w.headers(1, true, replaced(head2(s), ":authority")...) }, refuses},
	{"user information in the authority", func(w *wire2, s string) {
		w.headers(1, true, replaced(head2(s), ":authority", "admin.example.com@h")...)
	}, refuses},
	{"an odd scheme", func(w *wire2, s string) {
		w.headers(1, true, replaced(head2(s), ":scheme", "http://h/users/admin?")...)
	}, either},
	{"no scheme", func(w *wire2, s string) { w.headers(1, true, replaced(head2(s), ":scheme")...) }, either},
	{"a pseudo-header behind a header", func(w *wire2, s string) { w.headers(1, true, append([]string{"cookie", s}, head2(s)...)...) }, refuses},
	{"an unknown pseudo-header", func(w *wire2, s string) { w.headers(1, true, append([]string{":x-user-id", "root"}, head2(s)...)...) }, refuses},
	{"the pseudo-header of answers", func(w *wire2, s string) { w.headers(1, true, append([]string{":status", "200"}, head2(s)...)...) }, refuses},
	{"capitals", func(w *wire2, s string) { w.headers(1, true, head2(s, "Content-Length", "0")...) }, refuses},
	{"an empty name", func(w *wire2, s string) { w.headers(1, true, head2(s, "", "x")...) }, refuses},
	{"a connection header", func(w *wire2, s string) { w.headers(1, true, head2(s, "connection", "cookie")...) }, refuses},
	{"an upgrade header", func(w *wire2, s string) { w.headers(1, true, head2(s, "upgrade", "websocket")...) }, refuses},
	{"te: chunked", func(w *wire2, s string) { w.headers(1, true, head2(s, "te", "chunked")...) }, either},
	{"CONNECT", func(w *wire2, s string) {
		w.headers(1, false, ":method", "CONNECT", ":authority", "127.0.0.1:8101", "cookie", s)
	}, refuses},
	{"CONNECT with a path", func(w *wire2, s string) {
		w.headers(1, false, replaced(head2(s), ":method", "CONNECT")...)
		_ = w.WriteData(1, true, []byte(smuggled))
	}, refuses},
	{"extended CONNECT", func(w *wire2, s string) {
		w.headers(1, false, append([]string{":protocol", "websocket"}, replaced(head2(s), ":method", "CONNECT")...)...)
		_ = w.WriteData(1, true, []byte(smuggled))
	}, refuses},
	{"a thousand empty DATA frames", func(w *wire2, s string) {
		w.headers(1, false, replaced(head2(s), ":method", "POST")...)
		for range 1000 {
			_ = w.WriteData(1, false, nil)
		}
		_ = w.WriteData(1, true, []byte("x"))
	}, either},
	{"a request for trailers", func(w *wire2, s string) {
		w.headers(1, false, replaced(head2(s), ":method", "POST")...)
		_ = w.WriteData(1, false, []byte("x"))
		w.headers(1, true, ":method", "GET", ":path", "/users/admin/stats?smuggled", "x-user-id", "root")
	}, refuses},
	{"an identity for trailers", func(w *wire2, s string) {
		w.headers(1, false, replaced(head2(s), ":method", "POST")...)
		_ = w.WriteData(1, false, []byte("x"))
		w.headers(1, true, "x-user-id", "root", "content-length", "500", "transfer-encoding", "chunked")
	}, either},
	{"two heads on a stream", func(w *wire2, s string) {
		w.headers(1, false, head2(s)...)
		w.headers(1, true, replaced(head2(s), ":path", "/users/admin/stats?smuggled")...)
	}, refuses},
	{"DATA before a head", func(w *wire2, s string) {
		_ = w.WriteData(1, false, []byte(smuggled))
		w.headers(1, true, head2(s)...)
	}, refuses},
	{"DATA on a stream that is over", func(w *wire2, s string) {
		w.headers(1, true, head2(s)...)
		_ = w.WriteData(1, true, []byte(smuggled))
	}, either},
	{"DATA for the connection", func(w *wire2, s string) {
		w.raw(http2.FrameData, 0, 0, []byte(smuggled))
		w.headers(1, true, head2(s)...)
	}, refuses},
	{"an even stream", func(w *wire2, s string) { w.headers(2, true, head2(s)...) }, refuses},
	{"streams that go back", func(w *wire2, s string) {
		w.headers(5, true, head2(s)...)
		w.headers(3, true, head2(s)...)
	}, either},
	{"a head in pieces", func(w *wire2, s string) {
		block := w.fragment(head2(s)...)
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:7], EndStream: true})
		_ = w.WriteContinuation(1, false, block[7:20])
		_ = w.WriteContinuation(1, false, nil)
		_ = w.WriteContinuation(1, true, block[20:])
	}, either},
	{"another stream in between", func(w *wire2, s string) {
		block := w.fragment(head2(s)...)
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:7], EndStream: true})
		_ = w.WriteContinuation(3, true, block[7:])
	}, refuses},
	{"a flood of CONTINUATION", func(w *wire2, s string) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.fragment(head2(s)...), EndStream: true})
		for i := range 2000 {
			_ = w.WriteContinuation(1, false, w.fragment("x-"+strconv.Itoa(i), strings.Repeat("y", 200)))
		}
	}, refuses},
	{"a flood of empty CONTINUATION", func(w *wire2, s string) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.fragment(head2(s)...), EndStream: true})
		for range 2000 {
			_ = w.WriteContinuation(1, false, nil)
		}
	}, refuses},
	{"a table that explodes", func(w *wire2, s string) {
		// One field of 4,000 bytes, then a byte for each time that it comes again.
		block := append(w.fragment(head2(s, "x-bomb", strings.Repeat("y", 4000))...), bytes.Repeat([]byte{0xbe}, 15_000)...)
		w.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1, block)
	}, append([]int{431}, refuses...)},
	{"an index out of the table", func(w *wire2, s string) {
		w.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1, append(w.fragment(head2(s)...), 0xff, 0xff, 0xff, 0x0f))
	}, refuses},
	{"an integer without an end", func(w *wire2, s string) {
		w.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1, append(w.fragment(head2(s)...), bytes.Repeat([]byte{0xff}, 40)...))
	}, refuses},
	{"a table larger than allowed", func(w *wire2, s string) {
		w.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1, append([]byte{0x3f, 0xe1, 0xff, 0xff, 0x07}, w.fragment(head2(s)...)...))
	}, refuses},
	{"a head cut short", func(w *wire2, s string) {
		block := w.fragment(head2(s)...)
		w.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1, block[:len(block)-5])
	}, refuses},
	{"more padding than frame", func(w *wire2, s string) {
		w.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream|http2.FlagHeadersPadded, 1, append([]byte{255}, w.fragment(head2(s)...)[:20]...))
	}, refuses},
	{"a stream that depends on itself", func(w *wire2, s string) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.fragment(head2(s)...), EndHeaders: true, EndStream: true, Priority: http2.PriorityParam{StreamDep: 1}})
	}, either},
	{"a frame too large", func(w *wire2, s string) {
		w.headers(1, false, replaced(head2(s), ":method", "POST")...)
		w.raw(http2.FrameData, http2.FlagDataEndStream, 1, bytes.Repeat([]byte("x"), 20_000))
	}, refuses},
	{"a flood of resets", func(w *wire2, s string) {
		for stream := uint32(3); stream < 603; stream += 2 {
			w.headers(stream, true, head2(s)...)
			_ = w.WriteRSTStream(stream, http2.ErrCodeCancel)
		}
	}, refuses},
	{"a flood of pings and settings", func(w *wire2, s string) {
		for range 2000 {
			_ = w.WritePing(false, [8]byte{})
			_ = w.WriteSettings()
		}
		w.headers(1, true, head2(s)...)
	}, either},
	{"a window of nothing, grown too far", func(w *wire2, s string) {
		_ = w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		_ = w.WriteWindowUpdate(0, 1<<31-1)
		w.headers(1, true, head2(s)...)
	}, refuses},
	{"a promise from a client", func(w *wire2, s string) {
		w.raw(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, append(binary.BigEndian.AppendUint32(nil, 2), w.fragment(head2(s)...)...))
	}, refuses},
	{"a head without an end", func(w *wire2, s string) { w.headers(1, false, head2(s)...) }, either},
	{"the first cookie of two decides", func(w *wire2, s string) {
		w.headers(1, true, append(replaced(head2(s), "cookie"), "cookie", "sessionId=s%3Aother.x", "cookie", s)...)
	}, refuses},
	{"a cookie cut in two", func(w *wire2, s string) {
		w.headers(1, true, append(replaced(head2(s), "cookie"), "cookie", s[:20], "cookie", s[20:])...)
	}, refuses},
	{"HTTP/1.1 behind the preface", func(w *wire2, _ string) { w.out.WriteString(smuggled) }, refuses},
}

// takenByOldEnvoys are those that Envoy before 1.37 takes for a request like any other:
// what reaches the check and the service is the same all the same.
var takenByOldEnvoys = []string{"a pseudo-header behind a header"}

// statuses2 writes bytes and returns the status of each stream that was answered until
// nothing more comes.
func (g *gateway) statuses2(ctx context.Context, request []byte, wait time.Duration) (all map[uint32]int, err error) {
	all = map[uint32]int{}
	err = g.exchange(ctx, request, &wait, func(conn io.Reader) func() error {
		framer := newReader2(conn)
		return func() error {
			frame, err := framer.ReadFrame()
			if err != nil && !errors.As(err, new(http2.StreamError)) {
				return err
			}
			switch frame := frame.(type) {
			case *http2.MetaHeadersFrame:
				wait = silenceAfter
				if status, err := strconv.Atoi(frame.PseudoValue("status")); err == nil && all[frame.StreamID] == 0 {
					all[frame.StreamID] = status
				}
			case *http2.RSTStreamFrame:
				wait = silenceAfter
				all[frame.StreamID] = all[frame.StreamID] //nolint:staticcheck // SA4018: an entry, be it 0
			}
			return nil
		}
	})
	return all, err
}

// newReader2 reads frames, with heads decoded.
func newReader2(conn io.Reader) *http2.Framer {
	framer := http2.NewFramer(io.Discard, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return framer
}

// The same over HTTP/2.
func TestNoRequestIsSmuggledPastTheCheckOverHTTP2(t *testing.T) {
	s := start(t, options{})
	version, err := proc.VersionOfEnvoy(t.Context())
	require.NoError(t, err)
	for _, variant := range []string{asShipped, defenceOff} {
		w := s.watchedGateway(t, variants[variant]...)
		session := w.login(t, bob)
		found := make([]map[uint32]int, len(smuggling2))
		errs := make([]error, len(smuggling2))
		inParallel(len(smuggling2), func(i int) {
			tc, out := smuggling2[i], newWire2()
			tc.send(out, "sessionId="+session)
			found[i], errs[i] = w.statuses2(t.Context(), out.out.Bytes(), firstWait(tc.statuses))
		})
		for i, tc := range smuggling2 {
			if slices.Contains(takenByOldEnvoys, tc.name) && version.Before(proc.EnvoyVersion{Major: 1, Minor: 37}) {
				tc.statuses = either
			}
			t.Run(variant+"/"+tc.name, func(t *testing.T) {
				require.NoError(t, errs[i])
				require.Contains(t, tc.statuses, found[i][1], "all answers: %v", found[i])
			})
		}
		arrivals := s.recorder.every()
		require.NotEmpty(t, arrivals)
		requireChecked(t, w, arrivals)
		for range len(smuggling2) {
			r := w.get(t, "/users/me?victim", cookie(session))
			requireAllowed(t, r, bob)
			require.Equal(t, "/users/me?victim", r.arrived.target)
		}
		requireChecked(t, w, s.recorder.every())
	}
}
