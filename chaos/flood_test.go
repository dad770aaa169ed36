package chaos

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// The load of load_test.go waits for each answer, and its gRPC client costs more
// than Gatehouse. A flood does neither: its checks are written when it is time for
// them, whatever became of those before, from bytes that were made once; and an
// answer is compared with the bytes of the right one.

// floodCheck is a check, in both of its forms.
type floodCheck struct {
	frames []byte // HEADERS and DATA; their stream ids are at streamAt
	data   int    // length of the latter's payload, which takes from the window
	right  []byte // CheckResponse
}

// Where the id of the stream stands in a frame, and how long the frame's head is.
const (
	streamAt  = 5
	frameHead = 9
)

// callerPatience is how long the callers wait: as long as the shipped Envoy.
const callerPatience = time.Second

// floodChecks makes the checks of credentials, and learns their right answers, which
// the judge of load_test.go would take.
func floodChecks(t *testing.T, g *gate, all []*credential) (checks []floodCheck) {
	t.Helper()
	timeout := fmt.Sprintf("%dm", callerPatience.Milliseconds())
	for _, c := range all {
		message, err := proto.Marshal(c.request())
		require.NoError(t, err)
		checks = append(checks, newFloodCheck(t, timeout, message))
	}
	// The first answer to a credential may differ from the later ones.
	for range 2 {
		f := startFlood(t, g.check, checks, floodOptions{connections: 1, most: 1, learn: true})
		for i := range checks {
			f.callers[0].send(nil, time.Now(), 1, i)
			await(t, "a check that is never answered", func() bool { return f.open.Load() == 0 })
		}
		f.end(t)
	}
	for i, c := range all {
		var reply authv3.CheckResponse
		require.NoError(t, proto.Unmarshal(checks[i].right, &reply))
		require.NotNil(t, reply.GetOkResponse(), c.name)
		require.True(t, bytes.Contains(checks[i].right, userHeader(c.user)), c.name)
	}
	return checks
}

// userHeader is how an answer has the user's id.
func userHeader(user string) []byte {
	text, _ := proto.Marshal(&corev3.HeaderValue{Key: "x-user-id", Value: user}) // two short texts
	return text
}

// newFloodCheck makes a check; without a message its headers only.
func newFloodCheck(t *testing.T, timeout string, message []byte) floodCheck {
	t.Helper()
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	encoder.SetMaxDynamicTableSizeLimit(0)
	encoder.SetMaxDynamicTableSize(0)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":path", Value: authv3.Authorization_Check_FullMethodName},
		{Name: ":authority", Value: "gatehouse"},
		{Name: "te", Value: "trailers"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "grpc-timeout", Value: timeout},
	} {
		if f.Value != "" {
			require.NoError(t, encoder.WriteField(f))
		}
	}
	var frames bytes.Buffer
	framer := http2.NewFramer(&frames, nil)
	require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true}))
	if message == nil {
		return floodCheck{frames: frames.Bytes()}
	}
	data := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	require.NoError(t, framer.WriteData(1, true, append(data, message...)))
	return floodCheck{frames: frames.Bytes(), data: len(data) + len(message)}
}

// check is the check of a number.
func (f *flood) check(which int) floodCheck {
	if f.o.make != nil {
		return f.o.make(which)
	}
	return f.checks[which%len(f.checks)]
}

// right reports whether an answer is the right one for a check.
func (f *flood) right(which int, message []byte) bool {
	if f.o.user != nil {
		return bytes.Contains(message, userHeader(f.o.user(which)))
	}
	return bytes.Equal(message, f.checks[which%len(f.checks)].right)
}

// floodOptions configure a flood.
type floodOptions struct {
	rate        int // checks per second; 0: each after an answer
	connections int
	most        int                        // checks under way at once; what is above is not sent, as Envoy's circuit breaker does
	each        int                        // closed loop: so many checks, each another one; 0: until it is stopped
	make        func(which int) floodCheck // where there are too many checks to hold, with
	user        func(which int) string     // whose they are
	learn       bool                       // takes answers for the right ones, and sends nothing by itself
	mute        bool                       // sends nothing by itself, and wants no answers: ends are right
}

// flood is many checks.
type flood struct {
	o       floodOptions
	checks  []floodCheck
	callers []*caller
	open    atomic.Int64 // under way
	stopped atomic.Bool
	group   sync.WaitGroup // of the writers
	readers sync.WaitGroup
	began   time.Time

	mu      sync.Mutex
	spans   []span10          // of a tenth of a second each
	samples []string          // of wrong answers
	reasons map[string]string // of refusals that were looked at, by their bytes
}

// span10 is what became of the checks that were due in a tenth of a second.
type span10 struct {
	offered  int
	held     int // by the caller, which has too many under way: its breaker
	accepted int
	shed     int // answered with 503, because there were too many
	unknown  int // answered with 503, because the store was out of reach
	late     int // not answered in time
	wrong    int
	times    [400]uint32 // of the accepted ones, see bucketOf
}

// bucketOf numbers times, sixteen to each doubling.
func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 1))
	log := bits.Len64(us) - 1
	if log < 4 {
		return int(us)
	}
	return min((log-3)*16+int(us>>(log-4)&15), 399)
}

// upTo is the longest time in a bucket.
func upTo(bucket int) time.Duration {
	if bucket < 16 {
		return time.Duration(bucket) * time.Microsecond
	}
	log := bucket/16 + 3
	return time.Duration((16+bucket%16+1)<<(log-4)) * time.Microsecond
}

func (s *span10) add(o *span10) {
	s.offered += o.offered
	s.held += o.held
	s.accepted += o.accepted
	s.shed += o.shed
	s.unknown += o.unknown
	s.late += o.late
	s.wrong += o.wrong
	for i, n := range o.times {
		s.times[i] += n
	}
}

// percentile is the time that the p-th part of the accepted took at most.
func (s *span10) percentile(p float64) time.Duration {
	rank := int(math.Ceil(p * float64(s.accepted)))
	for i, n := range s.times {
		if rank -= int(n); rank <= 0 {
			return upTo(i)
		}
	}
	return 0
}

// sum is what became of the checks that were due in a time since the flood began.
func (f *flood) sum(from, to time.Duration) (all span10) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.spans {
		if at := time.Duration(i) * 100 * time.Millisecond; at >= from && at < to {
			all.add(&f.spans[i])
		}
	}
	return all
}

// at returns the span of a time; f.mu is held.
func (f *flood) at(due time.Time) *span10 {
	i := int(due.Sub(f.began) / (100 * time.Millisecond))
	for len(f.spans) <= i {
		f.spans = append(f.spans, span10{})
	}
	return &f.spans[i]
}

// caller is one connection.
type caller struct {
	f    *flood
	conn net.Conn

	mu      sync.Mutex
	changed sync.Cond
	window  int // what the server takes yet, in bytes
	streams int // that the server takes at once
	open    int
	next    uint32             // id of a stream
	waiting map[uint32]waiting // by stream
}

// waiting is a check that was sent.
type waiting struct {
	due    time.Time
	check  int
	judged bool
}

func startFlood(t *testing.T, addr string, checks []floodCheck, o floodOptions) *flood {
	t.Helper()
	f := &flood{o: o, checks: checks, began: time.Now(), reasons: map[string]string{}}
	for range o.connections {
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		c := &caller{f: f, conn: conn, next: 1, waiting: map[uint32]waiting{}, window: 65535, streams: math.MaxInt}
		c.changed.L = &c.mu
		framer := http2.NewFramer(conn, nil)
		_, err = io.WriteString(conn, http2.ClientPreface)
		require.NoError(t, err)
		require.NoError(t, framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
		require.NoError(t, framer.WriteWindowUpdate(0, 1<<30))
		f.callers = append(f.callers, c)
		f.readers.Go(c.read)
	}
	t.Cleanup(f.close)
	results.judges(t, func() (requests, wrong int) {
		s := f.sum(0, time.Hour)
		return s.offered - s.held, s.wrong
	})
	if o.learn || o.mute {
		return f
	}
	for i, c := range f.callers {
		f.group.Go(func() {
			if o.rate == 0 {
				c.closedLoop(o.most/len(f.callers), i*o.each/len(f.callers), o.each/len(f.callers))
			} else {
				c.openLoop(i, float64(o.rate)/float64(len(f.callers)))
			}
		})
	}
	return f
}

// openLoop sends checks at a rate.
func (c *caller) openLoop(first int, rate float64) {
	began, sent := time.Now(), 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var buffer []byte
	for !c.f.stopped.Load() {
		<-tick.C
		now := time.Now()
		due := int(now.Sub(began).Seconds() * rate)
		if due > sent {
			buffer = c.send(buffer[:0], now, due-sent, first+sent)
			sent = due
		}
	}
}

// closedLoop keeps so many checks under way, from a first one on, of so many; 0 for
// no end.
func (c *caller) closedLoop(most, first, all int) {
	var buffer []byte
	sent := 0
	for !c.f.stopped.Load() && (all == 0 || sent < all) {
		c.mu.Lock()
		for c.open >= most && !c.f.stopped.Load() {
			c.changed.Wait()
		}
		n := most - c.open
		c.mu.Unlock()
		if all > 0 {
			n = min(n, all-sent)
		}
		buffer = c.send(buffer[:0], time.Now(), n, first+sent)
		sent += n
	}
}

// send sends n checks that are due now. What the server, or the caller's own
// breaker, doesn't take is not sent.
func (c *caller) send(buffer []byte, due time.Time, n, first int) []byte {
	held := 0
	c.mu.Lock()
	for i := range n {
		which := first + i
		one := c.f.check(which)
		if c.window < one.data || c.open >= c.streams || c.f.open.Load() >= int64(c.f.o.most) {
			held++
			continue
		}
		c.f.open.Add(1)
		c.open++
		c.window -= one.data
		buffer = appendFrames(buffer, one.frames, c.next)
		c.waiting[c.next] = waiting{due: due, check: which}
		c.next += 2
	}
	c.mu.Unlock()
	c.f.mu.Lock()
	s := c.f.at(due)
	s.offered += n
	s.held += held
	c.f.mu.Unlock()
	if _, err := c.conn.Write(buffer); err != nil {
		c.f.wrongf("write: %v", err)
	}
	return buffer
}

func appendFrames(buffer, frames []byte, stream uint32) []byte {
	at := len(buffer)
	buffer = append(buffer, frames...)
	for at < len(buffer) {
		binary.BigEndian.PutUint32(buffer[at+streamAt:], stream)
		at += frameHead + int(buffer[at])<<16 + int(buffer[at+1])<<8 + int(buffer[at+2])
	}
	return buffer
}

func (f *flood) wrongf(format string, args ...any) {
	if f.stopped.Load() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at(time.Now()).wrong++
	if len(f.samples) < 10 {
		f.samples = append(f.samples, fmt.Sprintf(format, args...))
	}
}

// read takes answers until the connection ends.
func (c *caller) read() {
	in := bufio.NewReaderSize(c.conn, 64<<10)
	var head [frameHead]byte
	payload := make([]byte, 16<<10)
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			c.f.wrongf("the connection ended: %v", err)
			return
		}
		length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if _, err := io.ReadFull(in, payload[:length]); err != nil {
			c.f.wrongf("the connection ended: %v", err)
			return
		}
		stream := binary.BigEndian.Uint32(head[streamAt:])
		c.frame(http2.FrameType(head[3]), http2.Flags(head[4]), stream, payload[:length])
	}
}

func (c *caller) frame(kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte) {
	switch kind { //nolint:exhaustive // the rest is of no interest
	case http2.FrameData:
		c.mu.Lock()
		w := c.waiting[stream]
		w.judged = true
		c.waiting[stream] = w
		c.mu.Unlock()
		c.f.judge(w, payload)
	case http2.FrameHeaders:
		if flags.Has(http2.FlagHeadersEndStream) {
			c.ended(stream, payload)
		}
	case http2.FrameRSTStream:
		c.ended(stream, nil)
	case http2.FrameWindowUpdate:
		if stream == 0 {
			c.mu.Lock()
			c.window += int(binary.BigEndian.Uint32(payload))
			c.mu.Unlock()
		}
	case http2.FrameSettings:
		if flags.Has(http2.FlagSettingsAck) {
			return
		}
		for ; len(payload) >= 6; payload = payload[6:] {
			if http2.SettingID(binary.BigEndian.Uint16(payload)) == http2.SettingMaxConcurrentStreams {
				c.mu.Lock()
				c.streams = int(binary.BigEndian.Uint32(payload[2:]))
				c.mu.Unlock()
			}
		}
		_ = http2.NewFramer(c.conn, nil).WriteSettingsAck()
	case http2.FramePing:
		if !flags.Has(http2.FlagPingAck) {
			_ = http2.NewFramer(c.conn, nil).WritePing(true, [8]byte(payload))
		}
	case http2.FrameGoAway:
		c.f.wrongf("GOAWAY")
	}
}

// ended notes that a stream ended, with trailers or without.
func (c *caller) ended(stream uint32, trailers []byte) {
	c.mu.Lock()
	w, known := c.waiting[stream]
	delete(c.waiting, stream)
	if known {
		c.open--
		c.f.open.Add(-1)
	}
	c.changed.Signal()
	c.mu.Unlock()
	switch {
	case !known || w.judged || c.f.o.mute:
	case time.Since(w.due) >= callerPatience:
		c.f.mu.Lock()
		c.f.at(w.due).late++
		c.f.mu.Unlock()
	default:
		fields, _ := hpack.NewDecoder(0, nil).DecodeFull(trailers)
		c.f.wrongf("no message, after %v: %v", time.Since(w.due), fields)
	}
}

// judge judges an answer.
func (f *flood) judge(w waiting, data []byte) {
	took := time.Since(w.due)
	message := data[min(5, len(data)):]
	if f.o.learn {
		f.checks[w.check%len(f.checks)].right = slices.Clone(message)
		return
	}
	right := f.right(w.check, message)
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.at(w.due)
	reason, why := "", ""
	if !right {
		var known bool
		if reason, known = f.reasons[string(message)]; !known {
			if reason, why = refused(message); reason != "" {
				f.reasons[string(message)] = reason
			}
		}
	}
	switch {
	case took >= callerPatience:
		s.late++
	case right:
		s.accepted++
		s.times[bucketOf(took)]++
	case reason == "overloaded":
		s.shed++
	case reason == "store_unavailable":
		s.unknown++
	default:
		s.wrong++
		if len(f.samples) < 10 {
			f.samples = append(f.samples, why)
		}
	}
}

// refused returns the reason of the 503 that an answer is, and "" for anything else.
func refused(message []byte) (reason, text string) {
	var reply authv3.CheckResponse
	if err := proto.Unmarshal(message, &reply); err != nil {
		return "", err.Error()
	}
	denied := reply.GetDeniedResponse()
	headers := map[string]string{}
	for _, h := range denied.GetHeaders() {
		headers[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	if codes.Code(reply.GetStatus().GetCode()) != codes.Unavailable ||
		denied.GetStatus().GetCode() != http.StatusServiceUnavailable ||
		denied.GetBody() != `{"error":"Authentication unavailable"}` ||
		headers["retry-after"] != "1" || headers["content-type"] != "application/json" {
		return "", reply.String()
	}
	return reply.GetDynamicMetadata().GetFields()["reason"].GetStringValue(), reply.String()
}

// end ends the flood and waits for the answers that are under way.
func (f *flood) end(t *testing.T) {
	t.Helper()
	f.stop()
	await(t, "checks that were never answered", func() bool { return f.open.Load() == 0 })
	f.close()
	require.Empty(t, f.samples, "wrong answers (the first ones)")
}

// stop ends the sending.
func (f *flood) stop() {
	f.stopped.Store(true)
	for _, c := range f.callers {
		c.changed.Broadcast()
	}
	f.group.Wait()
}

// close ends the connections. It can be called twice.
func (f *flood) close() {
	f.stop()
	for _, c := range f.callers {
		_ = c.conn.Close()
	}
	f.readers.Wait()
}
