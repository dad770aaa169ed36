package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"
)

// condition is how a replica is: what hostile bytes may have left behind in it.
type condition struct {
	goroutines, collections int
	heap                    int // bytes, with little garbage among them
}

// tidy has garbage collected often, so that what is in use shows.
var tidy = []string{"GOGC=10"}

func (r *replica) condition(t *testing.T) condition {
	t.Helper()
	text, err := r.metrics(t.Context())
	require.NoError(t, err)
	value := func(name string) int {
		m := regexp.MustCompile(`(?m)^` + name + ` ([0-9.e+]+)$`).FindStringSubmatch(text)
		require.NotNil(t, m, "no metric %s", name)
		f, err := strconv.ParseFloat(m[1], 64)
		require.NoError(t, err)
		return int(f)
	}
	return condition{value("go_goroutines"), value("go_gc_duration_seconds_count"), value("go_memstats_heap_alloc_bytes")}
}

// settled is the condition of a tidy replica when it has no more goroutines than that,
// or in the end, and memory was collected since, pools included.
func (r *replica) settled(t *testing.T, goroutines int) condition {
	t.Helper()
	now := r.condition(t)
	for deadline := time.Now().Add(patience); now.goroutines > goroutines && time.Now().Before(deadline); now = r.condition(t) {
		time.Sleep(50 * time.Millisecond)
	}
	enough, left := now.collections+3, now.goroutines
	waitFor(t, func() bool { // asking for it is what makes garbage
		now = r.condition(t)
		return now.collections >= enough
	})
	now.goroutines = left
	return now
}

// unharmed requires that a tidy replica is as it was before it was sent so many bytes:
// no goroutine waits for a client that is gone, what was sent is not kept, and it never
// panicked.
func (r *replica) unharmed(t *testing.T, before condition, since, sent int) {
	t.Helper()
	require.Greater(t, sent, 8<<20, "too little, beside what differs by chance")
	most := before.goroutines + 5
	now := r.settled(t, most)
	t.Logf("%d bytes sent, the heap grew by %d", sent, now.heap-before.heap)
	require.LessOrEqual(t, now.goroutines, most, "goroutines are left over")
	require.Less(t, now.heap, before.heap+sent/2, "memory is left over")
	require.NotContains(t, journal.since(since), "panic")
	require.NotContains(t, journal.since(since), "goroutine ")
}

// The HTTP listener, asked without a gateway: whatever arrives is answered as HTTP has
// it, or the connection is closed. It says nothing of its own failures, because there
// are none, and it takes no length for another one.
func TestHostileBytesAtTheHTTPListener(t *testing.T) {
	s := start(t, options{env: tidy})
	r := s.replicas[0]
	direct := gateway{stack: s, addr: r.http}
	session := cookie(s.login(t, bob))
	requireAnswers := func() {
		reply := direct.get(t, "/auth/me", session)
		require.Equal(t, 200, reply.status, reply.line())
		require.Contains(t, reply.body, `"userId":"bob"`)
	}
	requireAnswers()
	before, since := r.settled(t, math.MaxInt), journal.len()

	texts := []string{
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "PRI * HTTP/2.0\n\nSM\n\n", "\x00", "GET", "\n\n\n\n", strings.Repeat("A", 70_000), "GET /auth/me HTTP/1.1\n" + strings.Repeat("X: y\n", 20_000),
		"OPTIONS * HTTP/1.1\nHost: h\n\n", "GET /auth/../auth/me HTTP/1.1\nHost: h\n$S\n\n", "GET /auth//me HTTP/1.1\nHost: h\n$S\n\n", "GET http://evil.example/auth/me HTTP/1.1\nHost: h\n$S\n\n",
		"POST /auth/login HTTP/1.1\nHost: h\nContent-Length: 99999999\n\n{", "POST /auth/login HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\nffffffffffffffff\n{",
		"POST /auth/login HTTP/1.1\nHost: h\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n10000\n" + strings.Repeat("[", 65536) + "\n0\n\n",
		"GET /check HTTP/1.1\nHost: h\nX-Forwarded-Uri: \x01\n\n", "GET /check HTTP/1.1\nHost: h\nX-Forwarded-Uri: /\nX-Forwarded-Uri: /admin\n\n", "GET /check HTTP/1.1\nHost: h\nX-Forwarded-Method: GET\nX-Forwarded-Uri: //\nX-Forwarded-Host: a@b\n\n",
		"GET /auth/console/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\nHost: h\n\n", "GET /auth/console/..%2f..%2fetc/passwd HTTP/1.1\nHost: h\n\n", "GET /auth/oidc/%00/login HTTP/1.1\nHost: h\n\n",
		"GET /auth/me HTTP/1.1\nHost: h\nCookie: " + strings.Repeat("a=b; ", 10_000) + "\n\n", "GET /auth/me HTTP/1.1\nHost: h\nAuthorization: Bearer " + strings.Repeat("e", 60_000) + "\n\n",
		"GET /auth/me HTTP/1.1\nHost: h\nAuthorization: Bearer " + strings.Repeat("eyJhbGciOiJub25lIn0.", 400) + "\n\n", "GET /auth/me HTTP/1.1\nHost: h\nX-User-Id: root\nX-Forwarded-User: root\n\n",
	}
	for _, tc := range smuggling {
		texts = append(texts, strings.ReplaceAll(tc.text, "/users/me", "/auth/me"))
	}
	// As many bytes as would show if they were kept.
	for range 100 {
		texts = append(texts,
			"GET /auth/me HTTP/1.1\nHost: h\nConnection: close\nAuthorization: Bearer "+strings.Repeat("e", 60_000)+"\n\n",
			"POST /auth/login HTTP/1.1\nHost: h\nConnection: close\nContent-Length: 60000\n\n"+strings.Repeat("[", 60_000))
	}
	found := make([][]int, len(texts))
	errs := make([]error, len(texts))
	var sent atomic.Int64
	inParallel(len(texts), func(i int) {
		request := onWire(texts[i], session)
		sent.Add(int64(len(request)))
		found[i], errs[i] = direct.statuses(t.Context(), request, silenceOnly)
	})
	for i, text := range texts {
		require.NoError(t, errs[i])
		for _, status := range found[i] {
			require.True(t, status < 500 || status == 501 || status == 505, "%.200q is answered %v", text, found[i])
		}
		if !strings.Contains(text, "$S") {
			require.NotContains(t, found[i], 200, "%.200q shows no credential", text)
		}
	}
	requireAnswers()
	r.unharmed(t, before, since, int(sent.Load()))
}

// message is one gRPC message on the wire.
func message(flag byte, length int, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(length)), data...)
}

// checkHead is the head of a check, with some more behind it.
func checkHead(more ...string) []string {
	return append([]string{
		":method", "POST", ":scheme", "http", ":path", "/envoy.service.auth.v3.Authorization/Check", ":authority", "gatehouse", "content-type", "application/grpc", "te", "trailers",
	}, more...)
}

// askings are what is sent to the check listener, frame by frame.
var askings = []struct {
	name string
	send func(w *wire2)
}{
	{"nothing but the preface", func(*wire2) {}},
	{"an empty check", func(w *wire2) { w.check(message(0, 0, nil)) }},
	{"garbage", func(w *wire2) { w.check(message(0, 5, []byte("\xff\xff\xff\xff\xff"))) }},
	{"a check cut short", func(w *wire2) { w.check(message(0, 4, []byte{0x0a, 0x7f, 0x0a, 0x01})) }},
	{"fewer bytes than announced", func(w *wire2) { w.check(message(0, 100, []byte("abc"))) }},
	{"a prefix cut short", func(w *wire2) { w.check([]byte{0, 0}) }},
	{"no message", func(w *wire2) { w.check(nil) }},
	{"two messages", func(w *wire2) { w.check(append(message(0, 0, nil), message(0, 0, nil)...)) }},
	{"4 GiB announced", func(w *wire2) { w.check(message(0, 1<<32-1, []byte("abc"))) }},
	{"300 MiB announced", func(w *wire2) { w.check(message(0, 300<<20, bytes.Repeat([]byte("x"), 16_000))) }},
	{"200 MiB announced, and not sent", func(w *wire2) {
		w.headers(1, false, checkHead()...)
		_ = w.WriteData(1, false, message(0, 200<<20, bytes.Repeat([]byte("x"), 16_000)))
	}},
	{"compressed by nothing", func(w *wire2) { w.check(message(1, 3, []byte("abc"))) }},
	{"compressed by gzip", func(w *wire2) { w.check(message(1, 3, []byte("abc")), "grpc-encoding", "gzip") }},
	{"compressed by a name", func(w *wire2) { w.check(message(1, 3, []byte("abc")), "grpc-encoding", "../x") }},
	{"an unknown flag", func(w *wire2) { w.check(message(7, 0, nil)) }},
	{"another content type", func(w *wire2) {
		w.headers(1, false, replaced(checkHead(), "content-type", "application/json")...)
		_ = w.WriteData(1, true, []byte("{}"))
	}},
	{"no content type", func(w *wire2) {
		w.headers(1, false, replaced(checkHead(), "content-type")...)
		_ = w.WriteData(1, true, message(0, 0, nil))
	}},
	{"by GET", func(w *wire2) { w.headers(1, true, replaced(checkHead(), ":method", "GET")...) }},
	{"an unknown method", func(w *wire2) {
		w.headers(1, true, replaced(checkHead(), ":path", "/envoy.service.auth.v3.Authorization/Allow")...)
	}},
	{"an unknown service", func(w *wire2) { w.headers(1, true, replaced(checkHead(), ":path", "/x/y")...) }},
	{"no method", func(w *wire2) { w.headers(1, true, replaced(checkHead(), ":path", "x")...) }},
	{"no path", func(w *wire2) { w.headers(1, true, replaced(checkHead(), ":path")...) }},
	{"a timeout that is over", func(w *wire2) { w.check(message(0, 0, nil), "grpc-timeout", "0n") }},
	{"a timeout that is none", func(w *wire2) { w.check(message(0, 0, nil), "grpc-timeout", "-1x") }},
	{"an endless timeout", func(w *wire2) { w.check(message(0, 0, nil), "grpc-timeout", "99999999H") }},
	{"binary metadata that is none", func(w *wire2) { w.check(message(0, 0, nil), "x-bin", "%%%") }},
	{"5,000 headers", func(w *wire2) {
		w.headers(1, false, checkHead()...)
		block := w.fragment(checkHead()...)
		for i := range 5000 {
			block = append(block, w.fragment("x-"+strconv.Itoa(i), "y")...)
		}
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: block[:16_000], EndStream: true})
		for block = block[16_000:]; len(block) > 16_000; block = block[16_000:] {
			_ = w.WriteContinuation(3, false, block[:16_000])
		}
		_ = w.WriteContinuation(3, true, block)
	}},
	{"a flood of CONTINUATION", func(w *wire2) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.fragment(checkHead()...)})
		for i := range 3000 {
			_ = w.WriteContinuation(1, false, w.fragment("x-"+strconv.Itoa(i), strings.Repeat("y", 4000)))
		}
	}},
	{"a table that explodes", func(w *wire2) {
		block := append(w.fragment(checkHead("x-bomb", strings.Repeat("y", 4000))...), bytes.Repeat([]byte{0xbe}, 12_000)...)
		w.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1, block)
	}},
	{"a head that is no HPACK", func(w *wire2) {
		w.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1, bytes.Repeat([]byte{0xff}, 100))
	}},
	{"a flood of resets", func(w *wire2) {
		for stream := uint32(1); stream < 2001; stream += 2 {
			w.headers(stream, false, checkHead()...)
			_ = w.WriteRSTStream(stream, http2.ErrCodeCancel)
		}
	}},
	{"a thousand checks that never come", func(w *wire2) {
		for stream := uint32(1); stream < 2001; stream += 2 {
			w.headers(stream, false, checkHead()...)
		}
	}},
	{"a flood of pings and settings", func(w *wire2) {
		for range 1000 {
			_ = w.WritePing(false, [8]byte{})
			_ = w.WriteSettings()
		}
		w.check(message(0, 0, nil))
	}},
	{"a window grown too far", func(w *wire2) {
		_ = w.WriteWindowUpdate(0, 1<<31-1)
		w.check(message(0, 0, nil))
	}},
	{"DATA without a stream", func(w *wire2) { _ = w.WriteData(9, true, message(0, 0, nil)) }},
	{"a frame too large", func(w *wire2) {
		w.headers(1, false, checkHead()...)
		w.raw(http2.FrameData, http2.FlagDataEndStream, 1, bytes.Repeat([]byte("x"), 1<<20))
	}},
	{"frames of no kind", func(w *wire2) {
		for kind := range 255 {
			w.raw(http2.FrameType(kind+10), 0xff, 1, []byte("x"))
		}
		w.check(message(0, 0, nil))
	}},
	{"reflection that is left open", func(w *wire2) {
		for stream := uint32(1); stream < 201; stream += 2 {
			w.headers(stream, false, replaced(checkHead(), ":path", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")...)
			_ = w.WriteData(stream, false, message(0, 2, []byte{0x3a, 0x00}))
		}
	}},
	{"health that is watched and left", func(w *wire2) {
		for stream := uint32(1); stream < 201; stream += 2 {
			w.headers(stream, false, replaced(checkHead(), ":path", "/grpc.health.v1.Health/Watch")...)
			_ = w.WriteData(stream, true, message(0, 0, nil))
		}
	}},
	{"HTTP/1.1", func(w *wire2) {
		w.out.Reset()
		w.out.WriteString("POST /envoy.service.auth.v3.Authorization/Check HTTP/1.1\r\nHost: h\r\n\r\n")
	}},
	{"TLS", func(w *wire2) {
		w.out.Reset()
		w.out.WriteString("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 512))
	}},
	{"noise", func(w *wire2) { w.out.Reset(); w.out.WriteString(strings.Repeat("\xde\xad\xbe\xef", 5000)) }},
	{"half a preface", func(w *wire2) { w.out.Reset(); w.out.WriteString(http2.ClientPreface[:10]) }},
	{"nothing", func(w *wire2) { w.out.Reset() }},
}

// check sends a check on stream 1.
func (w *wire2) check(data []byte, more ...string) {
	w.headers(1, false, checkHead(more...)...)
	_ = w.WriteData(1, true, data)
}

// replies writes bytes and returns the messages on stream 1, and whether the call
// ended with an OK, until nothing more comes.
func (r *replica) replies(ctx context.Context, request []byte) (messages []byte, ok bool, err error) {
	wait := silenceOnly / 2
	err = (&gateway{addr: r.check}).exchange(ctx, request, &wait, func(conn io.Reader) func() error {
		framer := newReader2(conn)
		return func() error {
			frame, err := framer.ReadFrame()
			if err != nil {
				return err
			}
			switch frame := frame.(type) {
			case *http2.DataFrame:
				if frame.StreamID == 1 {
					messages = append(messages, frame.Data()...)
				}
			case *http2.MetaHeadersFrame:
				for _, f := range frame.RegularFields() {
					ok = ok || frame.StreamID == 1 && f.Name == "grpc-status" && f.Value == "0"
				}
			}
			return nil
		}
	})
	return messages, ok, err
}

// The check listener, asked by somebody who is no Envoy: nothing is an allow, and
// nothing is left behind.
func TestHostileBytesAtTheCheckListener(t *testing.T) {
	s := start(t, options{env: tidy})
	r := s.replicas[0]
	session := cookie(s.login(t, bob))
	require.Equal(t, 200, r.ask(t, "GET", "/users/me", session).status)
	before, since := r.settled(t, math.MaxInt), journal.len()

	messages := make([][]byte, len(askings))
	oks := make([]bool, len(askings))
	errs := make([]error, len(askings))
	var sent atomic.Int64
	inParallel(len(askings), func(i int) {
		w := newWire2()
		askings[i].send(w)
		sent.Add(int64(w.out.Len()))
		messages[i], oks[i], errs[i] = r.replies(t.Context(), w.out.Bytes())
	})
	answered := 0
	for i, tc := range askings {
		t.Run(tc.name, func(t *testing.T) {
			require.NoError(t, errs[i])
			if strings.Contains(tc.name, "left") {
				return // no checks
			}
			require.Equal(t, oks[i], len(messages[i]) > 0, "an OK without an answer, or the other way round")
			for rest := messages[i]; len(rest) > 0; {
				require.GreaterOrEqual(t, len(rest), 5)
				size := int(binary.BigEndian.Uint32(rest[1:]))
				reply := &authv3.CheckResponse{}
				require.NoError(t, proto.Unmarshal(rest[5:5+size], reply))
				require.NotNil(t, reply.GetDeniedResponse(), "no refusal: %v", reply)
				require.NotZero(t, reply.GetStatus().GetCode(), "Envoy takes a denied arm with status OK for an allow")
				rest = rest[5+size:]
				answered++
			}
		})
	}
	require.Positive(t, answered, "not even an empty check was answered: the test is no good any more")
	require.Equal(t, 200, r.ask(t, "GET", "/users/me", session).status)
	require.Equal(t, 401, r.ask(t, "GET", "/users/me").status)
	r.unharmed(t, before, since, int(sent.Load()))
}
