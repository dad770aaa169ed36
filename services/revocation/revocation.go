package revocation

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Kind is what an event says. There may be others one day, which mean nothing to who
// doesn't know them.
type Kind string

// The kinds of events.
const (
	SessionEnded  Kind = "session.ended"  // a session, by Session
	UserRevoked   Kind = "user.revoked"   // all that a user had until Before
	UserDisabled  Kind = "user.disabled"  // a user is locked out
	TokenRevoked  Kind = "token.revoked"  // an access token, by TokenID
	FamilyRevoked Kind = "family.revoked" // a login of an app, by Session, and its access tokens

	Reset Kind = "reset" // what ended before is not known in full
	Lag   Kind = "lag"   // what ends may be told late from now on
	Live  Kind = "live"  // what ends is told as it happens
)

// Event is an event of the feed. What its kind doesn't have is zero.
type Event struct {
	Kind    Kind      `json:"-"`
	Session string    `json:"sid"` // the handle that the auth API shows, and the sid of x-identity-assertion
	UserID  string    `json:"userId"`
	TokenID string    `json:"jti"`
	Reason  string    `json:"reason"`
	Time    time.Time `json:"time"`
	Before  time.Time `json:"before"`
	Expires time.Time `json:"expiresAt"` // when what was revoked has run out anyway
}

// Stream says whose a stream is: as much of it as the service knows. With a Session, the
// end of the user's other sessions doesn't end it; without one, the end of any of them
// does, as far as the feed knows whose it was.
type Stream struct {
	UserID  string // x-user-id
	Session string // the sid of x-identity-assertion
	TokenID string // the jti of an access token
}

// Why a stream's context has ended: see [context.Cause]. What was revoked is an [*EndedError].
var (
	// ErrReset: what the feed missed is not known. The client may come back at once.
	ErrReset = errors.New("the revocation feed can't say what it missed")
	// ErrBlind: the feed was not heard for longer than MaxBlind.
	ErrBlind = errors.New("the revocation feed was not heard for too long")
	// ErrNobody: a stream of nobody, of which no event could tell.
	ErrNobody = errors.New("the stream says neither whose nor which it is")
)

// EndedError is why a context ended: the event.
type EndedError struct{ Event Event }

func (e *EndedError) Error() string { return "revoked: " + string(e.Event.Kind) }

// Options configure a [Feed].
type Options struct {
	// URL of the feed: .../auth/feed, through the gateway or at Gatehouse itself.
	URL string
	// Key is an internal key with auth_api: true.
	Key string
	// CurrentKey, where not nil, is asked for the key of each connection, so that it can
	// be rotated.
	CurrentKey func() string
	// Transport; default a clone of [http.DefaultTransport].
	Transport http.RoundTripper
	// MaxBlind is how long streams go on while the feed isn't heard; default 30s.
	MaxBlind time.Duration
	// InsecureIgnoreBlindness has them go on for ever.
	InsecureIgnoreBlindness bool
	// Spread is over how long streams end after a reset, or in blindness, so that not all
	// clients come back at once; default 5s, negative for at once.
	Spread time.Duration
	// OnBlind is told when the feed isn't heard, from the first attempt on, with why; again
	// when it is refused by another 4xx, which doesn't pass by itself; and when the feed is
	// heard, with nil. It must not block.
	OnBlind func(err error)
}

const (
	defaultMaxBlind = 30 * time.Second
	defaultSpread   = 5 * time.Second

	// silence is when a connection counts as dead: the feed says something every 10 s.
	silence = 25 * time.Second
	// longestWait is the longest between two attempts, but for jitter, and shortestWait
	// the least that the feed can ask for.
	longestWait, shortestWait = 15 * time.Second, 100 * time.Millisecond
	// largestEvent is what an event can have, in bytes: more than the longest token that
	// the gate takes, were all of it an id. largestPlace is what a place can.
	largestEvent, largestPlace = 256 << 10, 1 << 10
	// A stream may be registered a while after the gate admitted it: what ended in
	// between is remembered for so long. Of a user that is less, since who logs in again
	// must not be taken for the one who was revoked.
	memory, userMemory = time.Minute, 5 * time.Second
	mostRemembered     = 100_000
	// skew is what the service's clock and the gate's may differ in.
	skew = time.Minute
)

// Feed follows the revocation feed. Safe for concurrent use.
type Feed struct {
	o      Options
	client *http.Client

	mu       sync.Mutex
	streams  map[*stream]struct{}
	blind    time.Time // since when; zero: it isn't
	why      error
	told     bool        // OnBlind knows of it
	refusal  int         // the status that it knows of
	timer    *time.Timer // ends streams in blindness
	recent   map[string]remembered
	order    []string // of recent
	lastID   string
	watching bool
}

type stream struct {
	Stream
	since time.Time
	end   context.CancelCauseFunc
	ends  bool // it has begun to end
}

type remembered struct {
	event Event
	at    time.Time
}

// New returns a feed that nobody watches yet. It connects to nothing.
func New(o Options) (*Feed, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("revocation feed: want a URL such as https://gateway.example.com/auth/feed")
	case o.Key == "" && o.CurrentKey == nil:
		return nil, errors.New("revocation feed: no key; it takes an internal key with auth_api: true")
	}
	o.MaxBlind, o.Spread = cmp.Or(o.MaxBlind, defaultMaxBlind), cmp.Or(o.Spread, defaultSpread)
	if o.CurrentKey == nil {
		key := o.Key
		o.CurrentKey = func() string { return key }
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	}
	if o.OnBlind == nil {
		o.OnBlind = func(error) {}
	}
	return &Feed{
		o: o, streams: map[*stream]struct{}{}, recent: map[string]remembered{}, blind: time.Now(), why: errNotWatched,
		client: &http.Client{
			Transport:     o.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the key is for the URL alone
		},
	}, nil
}

var errNotWatched = errors.New("nobody watches the revocation feed yet")

// Watch follows the feed until ctx ends, and returns why that was. It goes on through
// whatever happens to connections. on, where not nil, is told of each event, one after the
// other; streams have ended by then. It may be called again when it has returned.
func (f *Feed) Watch(ctx context.Context, on func(Event)) error {
	f.mu.Lock()
	if f.watching {
		f.mu.Unlock()
		return errors.New("revocation feed: it is watched already")
	}
	f.watching = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.watching = false
		f.mu.Unlock()
		f.lost(context.Cause(ctx))
	}()
	failures := 0
	for {
		began := time.Now()
		retry, live, err := f.connect(ctx, on)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f.lost(err)
		if failures++; live {
			failures = 0
		}
		wait := min(retry<<min(failures, 10), longestWait)
		wait = wait/2 + rand.N(wait) //nolint:gosec // G404: spreads, and hides nothing
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(max(wait-time.Since(began), wait/4)):
		}
	}
}

// connect follows one connection to its end, which always is an error. live reports
// whether it was of use.
func (f *Feed) connect(ctx context.Context, on func(Event)) (retry time.Duration, live bool, err error) {
	retry = time.Second
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dead := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer dead.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.o.URL, http.NoBody)
	if err != nil {
		return retry, false, err
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Accept-Encoding", "identity") // what is packed on the way comes when there is enough of it
	request.Header.Set("X-Internal-Api-Key", f.o.CurrentKey())
	f.mu.Lock()
	if f.lastID != "" {
		request.Header.Set("Last-Event-ID", f.lastID)
	}
	f.mu.Unlock()
	answer, err := f.client.Do(request)
	if err != nil {
		return retry, false, cmp.Or(silent(ctx), err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
		return retry, false, &refusedError{answer.StatusCode}
	}
	var block sse
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, largestEvent)
	for lines.Scan() {
		dead.Reset(silence)
		if line := strings.TrimSuffix(lines.Text(), "\r"); line != "" {
			if !block.add(line) {
				return retry, live, errLarge
			}
			continue
		}
		if block.retry > 0 {
			retry = block.retry
		}
		if block.event != "" {
			e := Event{Kind: Kind(block.event)}
			if err := json.Unmarshal([]byte(strings.Join(block.data, "\n")), &e); err != nil {
				return retry, live, fmt.Errorf("revocation feed: an event that is no JSON object: %w", err)
			}
			live = live || e.Kind == Live
			f.take(e)
			if on != nil {
				on(e)
			}
		}
		if block.id != "" { // after the event was taken
			f.mu.Lock()
			f.lastID = block.id
			f.mu.Unlock()
		}
		block = sse{}
	}
	return retry, live, cmp.Or(silent(ctx), lines.Err(), io.EOF)
}

var errLarge = fmt.Errorf("revocation feed: an event of more than %d KiB", largestEvent>>10)

var errSilent = errors.New("revocation feed: nothing came for too long")

func silent(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return nil
}

// refusedError is an answer that is no feed.
type refusedError struct{ status int }

func (e *refusedError) Error() string {
	return fmt.Sprintf("revocation feed: it answered %d, %s", e.status, hint(e.status))
}

// hint says what to do about a status.
func hint(status int) string {
	switch status {
	case http.StatusForbidden, http.StatusUnauthorized:
		return "is the key good, and has it auth_api: true?"
	case http.StatusNotFound:
		return "is the URL right, and the store a Redis, not an embedded one?"
	case http.StatusServiceUnavailable:
		return "it is tried again"
	}
	return "is the URL right?"
}

// sse is a block of lines (WHATWG HTML, section 9.2.6).
type sse struct {
	id, event string
	data      []string // lines
	size      int
	retry     time.Duration
}

// add reports whether that is not too much.
func (b *sse) add(line string) bool {
	if b.size += len(line); b.size > largestEvent {
		return false
	}
	name, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch name {
	case "id":
		if isPlace(value) { // else one of before does
			b.id = value
		}
	case "event":
		b.event = value
	case "data":
		b.data = append(b.data, value)
	case "retry":
		if ms, err := strconv.Atoi(value); err == nil && ms > 0 {
			b.retry = max(min(time.Duration(ms)*time.Millisecond, longestWait), shortestWait)
		}
	}
	return true
}

// isPlace reports whether a place can be sent back: one that can't would keep the client
// away for ever.
func isPlace(id string) bool {
	return len(id) <= largestPlace && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' })
}

// take does what an event asks for.
func (f *Feed) take(e Event) {
	if e.Kind == Lag {
		f.lost(errLag)
		return
	}
	if e.Kind == Live {
		f.found()
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Kind == Reset {
		for s := range f.streams {
			f.endLater(s, ErrReset)
		}
		return
	}
	for _, name := range names(e) {
		if known, again := f.recent[name]; again && e.Kind == UserRevoked && !e.Before.After(known.event.Before) {
			return // told again; who logged in since then stays
		}
		f.remember(name, e)
	}
	for s := range f.streams {
		if s.endedBy(e) {
			f.end(s, &EndedError{e})
		}
	}
}

var errLag = errors.New("revocation feed: Gatehouse doesn't hear its store")

// names are what an event is remembered by.
func names(e Event) (names []string) {
	switch {
	case e.TokenID != "":
		names = append(names, "t"+e.TokenID)
	case e.Session != "":
		names = append(names, "s"+e.Session)
		if e.UserID != "" {
			names = append(names, "o"+e.UserID) // of one of the user's
		}
	case e.UserID != "":
		names = append(names, "u"+e.UserID)
	}
	return names
}

// endedBy reports whether the event is about the stream.
func (s *stream) endedBy(e Event) bool {
	switch {
	case e.Kind == TokenRevoked:
		return e.TokenID != "" && e.TokenID == s.TokenID
	case e.Kind == SessionEnded, e.Kind == FamilyRevoked:
		if s.Session != "" {
			return e.Session == s.Session
		}
		return e.UserID != "" && e.UserID == s.UserID
	case e.UserID == "" || e.UserID != s.UserID:
		return false
	case e.Kind == UserRevoked: // the gate admits nothing that is older, so what came later isn't
		return !s.since.After(e.Before.Add(skew))
	}
	return e.Kind == UserDisabled
}

// remember keeps what has ended for streams that are still on their way here.
func (f *Feed) remember(name string, e Event) {
	now := time.Now()
	if _, again := f.recent[name]; !again {
		f.order = append(f.order, name)
	}
	f.recent[name] = remembered{e, now}
	for len(f.order) > 0 && (now.Sub(f.recent[f.order[0]].at) > 10*memory || len(f.order) > mostRemembered) {
		delete(f.recent, f.order[0])
		f.order = f.order[1:]
	}
}

// Until returns a context that ends with ctx, and when the stream's session, user or token
// is revoked: also where that happened while the request was on its way here, for a minute
// ([UserRevoked]: five seconds). [context.Cause] says why. The caller calls stop at the
// stream's end.
func (f *Feed) Until(ctx context.Context, st Stream) (_ context.Context, stop context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	s := &stream{Stream: st, since: time.Now(), end: end}
	f.mu.Lock()
	defer f.mu.Unlock()
	if st == (Stream{}) {
		end(ErrNobody)
	} else if e, ended := f.endedBefore(s); ended {
		end(&EndedError{e})
	}
	if ctx.Err() == nil {
		f.streams[s] = struct{}{}
		f.watchBlindness()
	}
	return ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.end(s, context.Canceled)
	}
}

func (f *Feed) endedBefore(s *stream) (Event, bool) {
	for _, about := range []struct {
		name string
		life time.Duration
	}{{"t" + s.TokenID, memory}, {"s" + s.Session, memory}, {"u" + s.UserID, userMemory}, {"o" + s.UserID, userMemory}} {
		if r, known := f.recent[about.name]; known && s.since.Sub(r.at) < about.life && s.endedBy(r.event) {
			return r.event, true
		}
	}
	return Event{}, false
}

func (f *Feed) end(s *stream, why error) {
	delete(f.streams, s)
	s.end(why)
}

// endLater ends a stream within the spread.
func (f *Feed) endLater(s *stream, why error) {
	if f.o.Spread < 0 {
		f.end(s, why)
	}
	if s.ends || f.o.Spread < 0 {
		return
	}
	s.ends = true
	time.AfterFunc(rand.N(f.o.Spread), func() { //nolint:gosec // G404: spreads, and hides nothing
		f.mu.Lock()
		defer f.mu.Unlock()
		f.end(s, why)
	})
}

// Blind returns since when the feed isn't heard, and why; the zero time while it is.
func (f *Feed) Blind() (since time.Time, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.blind, f.why
}

// lost notes that the feed isn't heard.
func (f *Feed) lost(why error) {
	f.mu.Lock()
	if f.blind.IsZero() {
		f.blind = time.Now()
	}
	news := !f.told
	if refused, ok := errors.AsType[*refusedError](why); ok && refused.status/100 == 4 && refused.status != f.refusal {
		news, f.refusal = true, refused.status
	}
	f.why, f.told = why, true
	f.watchBlindness()
	f.mu.Unlock()
	if news {
		f.o.OnBlind(why)
	}
}

func (f *Feed) found() {
	f.mu.Lock()
	news := !f.blind.IsZero()
	f.blind, f.why, f.told, f.refusal = time.Time{}, nil, false, 0
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	f.mu.Unlock()
	if news {
		f.o.OnBlind(nil)
	}
}

// watchBlindness has streams end when the feed was not heard for too long.
func (f *Feed) watchBlindness() {
	if f.blind.IsZero() || f.timer != nil || f.o.InsecureIgnoreBlindness {
		return
	}
	since := f.blind
	f.timer = time.AfterFunc(max(f.o.MaxBlind-time.Since(since), 0), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.timer = nil
		if !f.blind.Equal(since) {
			f.watchBlindness()
			return
		}
		for s := range f.streams {
			f.endLater(s, ErrBlind)
		}
	})
}
