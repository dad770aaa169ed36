package authapi_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

// desk is a replica's decisions, and how it is.
type desk struct {
	mu        sync.Mutex
	list      []authapi.Decision
	leftOut   uint64
	listening int
	most      int
	done      chan struct{}
}

func newDesk() *desk { return &desk{most: 1, done: make(chan struct{})} }

func (d *desk) Listen() (leave func(), ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listening == d.most {
		return nil, false
	}
	d.listening++
	return func() { d.mu.Lock(); defer d.mu.Unlock(); d.listening-- }, true
}

func (d *desk) listeners() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.listening
}

func (d *desk) Since(number uint64) authapi.DecisionList {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := authapi.DecisionList{Replica: "0a1b2c3d", LeftOut: d.leftOut}
	for _, one := range d.list {
		if one.Number > number {
			list.Decisions = append(list.Decisions, one)
		}
	}
	return list
}

func (d *desk) Done() <-chan struct{} { return d.done }

// decided adds a refusal.
func (d *desk) decided(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, authapi.Decision{
		Number: uint64(len(d.list) + 1), Time: time.Unix(1_800_000_000, 0), Denied: true, Reason: authz.ReasonRole, Policy: "admin",
		Credential: authz.KindSession, Method: "GET", Host: "gateway.example.com", Path: path, Status: 403, Took: time.Millisecond,
		Means: "Means.", Do: "Do.", Detail: "role: none", User: "bob", Session: "handle", RequestID: "r-1",
		Steps: []authapi.DecisionStep{{Stage: "condition", Name: "roles", Outcome: "refused", Detail: "role: none"}},
	})
}

// watched returns a bench with decisions and a status.
func watched(t *testing.T) (*bench, *desk) {
	t.Helper()
	d := newDesk()
	return newBench(t, func(o *authapi.Options) { o.Decisions = d }), d
}

const aDecision = `{"id":"0a1b2c3d-1","time":"2027-01-15T08:00:00.000Z","decision":"deny","reason":"role","wouldDeny":"","means":"Means.","do":"Do.","detail":"role: none",` +
	`"steps":[{"stage":"condition","name":"roles","outcome":"refused","detail":"role: none"}],"policy":"admin","credential":"session","method":"GET",` +
	`"host":"gateway.example.com","path":"/one","status":403,"requestId":"r-1","user":"bob","session":"handle","degraded":"","tookMicroseconds":1000}`

func TestDecisionsAreListed(t *testing.T) {
	t.Parallel()
	b, d := watched(t)
	admin, _ := b.logIn(t, alice)
	requireAnswer(t, b.get(t, "/auth/decisions", admin...), 200, `{"replica":"0a1b2c3d","leftOut":0,"decisions":[]}`)
	d.decided("/one")
	d.leftOut = 7
	want := `{"replica":"0a1b2c3d","leftOut":7,"decisions":[` + aDecision + `]}`
	for _, caller := range [][]string{admin, bearer(b.app(t, alice).access), key(keyOfBackend)} {
		requireAnswer(t, b.get(t, "/auth/decisions", caller...), 200, want)
	}
	require.Equal(t, "decisions 200", b.recorder.last())
	requireAnswer(t, b.get(t, "/auth/decisions", join(admin, []string{"Accept", "application/json, text/event-streams"})...), 200, want)
	require.Zero(t, d.listeners())
}

// What others do is for administrators, by whatever they show, and for no page of
// another site.
func TestOnlyAdministratorsWatch(t *testing.T) {
	t.Parallel()
	b, d := watched(t)
	admin, id := b.logIn(t, alice)
	member, _ := b.logIn(t, bob)
	asStream := []string{"Accept", "text/event-stream"}
	for _, target := range []string{"/auth/decisions", "/auth/status"} {
		for _, more := range [][]string{nil, asStream} {
			requireAnswer(t, b.get(t, target, more...), 401, noToken)
			requireAnswer(t, b.get(t, target, join(member, more)...), 403, forbidden)
			requireAnswer(t, b.get(t, target, join(bearer(b.app(t, bob).access), more)...), 403, forbidden)
			requireAnswer(t, b.get(t, target, join(key(keyOfServices), more)...), 403, forbidden)
			requireAnswer(t, b.get(t, target, join(key("guess"), more)...), 403, forbidden)
			for name, page := range pages {
				if !page.may {
					requireAnswer(t, b.get(t, target, join(admin, more, page.headers)...), 403, forbidden)
				} else if more == nil {
					require.Equal(t, 200, b.get(t, target, join(admin, page.headers)...).status, name)
				}
			}
			require.Equal(t, 200, b.get(t, target, join(key(keyOfBackend), evil)...).status, "a key relies on no cookie")
			d.most = 0 // streams would last
		}
		d.most = 1
		b.store.expect(1, authz.Refuse(authz.ReasonStoreUnavailable, "away"))
		require.Equal(t, 503, b.get(t, target, admin...).status)
		b.store.expect(0, nil)
	}
	require.NoError(t, b.options.Store.End(t.Context(), authz.Ending{SessionID: id}))
	require.Equal(t, 401, b.get(t, "/auth/decisions", admin...).status, "a session that has ended shows nothing")
}

// server serves the API over a real connection, as streams need.
func (b *bench) server(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(b.api)
	t.Cleanup(s.Close)
	return s.URL
}

// listen opens a stream of decisions.
func listen(ctx context.Context, t *testing.T, url string, headers ...string) *http.Response {
	t.Helper()
	return stream(ctx, t, url+"/auth/decisions", headers...)
}

// stream opens one.
func stream(ctx context.Context, t *testing.T, url string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, "GET", url, http.NoBody)
	require.NoError(t, err)
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// event reads the next one.
func event(t *testing.T, from *bufio.Reader) string {
	t.Helper()
	var b strings.Builder
	for {
		line, err := from.ReadString('\n')
		require.NoError(t, err, b.String())
		if line == "\n" {
			return b.String()
		}
		b.WriteString(line)
	}
}

func TestDecisionsAreStreamed(t *testing.T) {
	t.Parallel()
	b, d := watched(t)
	d.decided("/one")
	url := b.server(t)
	response := listen(t.Context(), t, url, key(keyOfBackend)...)
	require.Equal(t, 200, response.StatusCode)
	require.Equal(t, []string{"text/event-stream", "no-store", "nosniff", "no"}, []string{
		response.Header.Get("Content-Type"), response.Header.Get("Cache-Control"), response.Header.Get("X-Content-Type-Options"), response.Header.Get("X-Accel-Buffering"),
	})
	from := bufio.NewReader(response.Body)
	require.Equal(t, "event: state\ndata: {\"replica\":\"0a1b2c3d\",\"leftOut\":0}\n", event(t, from))
	require.Equal(t, "id: 0a1b2c3d-1\nevent: decision\ndata: "+aDecision+"\n", event(t, from))
	d.decided("/two\nevent: decision\ndata: forged")
	second := event(t, from)
	require.Contains(t, second, "id: 0a1b2c3d-2\n")
	require.Contains(t, second, `"path":"/two\nevent: decision\ndata: forged"`, "in one line")
	d.mu.Lock()
	d.leftOut = 3
	d.mu.Unlock()
	require.Equal(t, "event: state\ndata: {\"replica\":\"0a1b2c3d\",\"leftOut\":3}\n", event(t, from))

	// One more is too many.
	refused := listen(t.Context(), t, url, key(keyOfBackend)...) //nolint:bodyclose // by listen
	require.Equal(t, 503, refused.StatusCode)
	require.Equal(t, "1", refused.Header.Get("Retry-After"))

	// Who leaves makes place, and goes on where it was.
	require.NoError(t, response.Body.Close())
	require.Eventually(t, func() bool { return d.listeners() == 0 }, time.Minute, time.Millisecond)
	for after, first := range map[string]string{
		"0a1b2c3d-1": "id: 0a1b2c3d-2", "0a1b2c3d-0": "id: 0a1b2c3d-1", "ffffffff-2": "id: 0a1b2c3d-1", "0a1b2c3d-": "id: 0a1b2c3d-1", "x": "id: 0a1b2c3d-1", "0a1b2c3d--1": "id: 0a1b2c3d-1",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		response = listen(ctx, t, url, append(key(keyOfBackend), "Last-Event-ID", after)...) //nolint:bodyclose // by listen
		from = bufio.NewReader(response.Body)
		require.Contains(t, event(t, from), "event: state\n")
		require.Contains(t, event(t, from), first, after)
		cancel()
		require.Eventually(t, func() bool { return d.listeners() == 0 }, time.Minute, time.Millisecond)
	}
}

// underWay are places that are counted.
type underWay struct{ entered, left atomic.Int32 }

func (*underWay) Receive() (received func(), ok bool) { return func() {}, true }
func (p *underWay) Enter() bool                       { p.entered.Add(1); return true }
func (p *underWay) Leave()                            { p.left.Add(1) }

// A stream holds no place of a call for as long as it goes on: a few of them would leave
// none for logins.
func TestStreamsHoldNoPlace(t *testing.T) {
	t.Parallel()
	for path, entered := range map[string]int32{"/auth/decisions": 1, "/auth/feed": 0} {
		b, _ := watched(t)
		b.feed.open = true
		places := &underWay{}
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.api.Serve(w, r, places) }))
		t.Cleanup(s.Close)
		ctx, cancel := context.WithCancel(t.Context())
		response := stream(ctx, t, s.URL+path, key(keyOfBackend)...) //nolint:bodyclose // by stream
		require.Equal(t, 200, response.StatusCode)
		require.Equal(t, "no", response.Header.Get("X-Accel-Buffering"), "nginx would hold it back")
		event(t, bufio.NewReader(response.Body)) // it has begun, and goes on
		require.Equal(t, []int32{entered, 1}, []int32{places.entered.Load(), places.left.Load()}, path)
		cancel()
	}
}

// A replica that shuts down waits for nobody who listens.
func TestStreamsEndWhenTheReplicaDoes(t *testing.T) {
	t.Parallel()
	b, d := watched(t)
	response := listen(t.Context(), t, b.server(t), key(keyOfBackend)...) //nolint:bodyclose // by listen
	from := bufio.NewReader(response.Body)
	event(t, from)
	close(d.done)
	_, err := from.ReadString('\n')
	require.ErrorContains(t, err, "EOF")
	require.Eventually(t, func() bool { return d.listeners() == 0 }, time.Minute, time.Millisecond)
	require.Equal(t, "decisions 200", b.recorder.last())
}

// A stream ends by itself, and in order: the client takes it for no failure, and has the
// connection for what comes next.
func TestStreamsEndByThemselves(t *testing.T) {
	t.Parallel()
	b, d := watched(t)
	url := b.server(t)
	response := listen(t.Context(), t, url, key(keyOfBackend)...)
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, "event: state\ndata: {\"replica\":\"0a1b2c3d\",\"leftOut\":0}\n\n", string(text))
	require.Eventually(t, func() bool { return d.listeners() == 0 }, time.Minute, time.Millisecond)
	response, err = http.Get(url + "/.well-known/jwks.json")
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	require.Equal(t, 200, response.StatusCode)
}

// HEAD of a stream begins none.
func TestHEADOfAStream(t *testing.T) {
	t.Parallel()
	b, d := watched(t)
	a := b.call(t, "HEAD", "/auth/decisions", nil, append(key(keyOfBackend), "Accept", "text/event-stream")...)
	require.Equal(t, 200, a.status)
	require.Equal(t, "text/event-stream", a.header.Get("Content-Type"))
	require.Zero(t, d.listeners())
}

var aStatus = authapi.Status{
	Replica: authapi.ReplicaStatus{Name: "0a1b2c3d", State: "ready", Started: authapi.Moment(time.Unix(1_800_000_000, 0))},
	Config:  authapi.ConfigStatus{State: "current", Generation: 1, Loaded: authapi.Moment(time.Unix(1_800_000_000, 0)), PendingRestart: []string{}},
	Policies: []authapi.PolicyStatus{{
		Name: "user", Mode: "enforce", Denied: map[string]uint64{"role": 1}, Observed: map[string]uint64{}, Degraded: map[string]uint64{},
	}},
	Load:    authapi.LoadStatus{Shed: map[string]uint64{}},
	Cache:   authapi.CacheStatus{State: "off"},
	Store:   authapi.StoreStatus{State: "unknown", Outcomes: map[string]uint64{}, Refused: map[string]uint64{}},
	Issuers: []authapi.IssuerStatus{{Issuer: "https://idp.example.com", LastFetch: authapi.Moment(time.Unix(1_800_000_000, 0))}},
}

func TestStatus(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := b.get(t, "/auth/status", key(keyOfBackend)...)
	require.Equal(t, 200, a.status)
	require.Equal(t, "status 200", b.recorder.last())
	o := a.json(t)
	require.Equal(t, "2027-01-15T08:00:00.000Z", o["replica"].(object)["started"])
	require.Nil(t, o["store"].(object)["checked"], "never looked at")
}
