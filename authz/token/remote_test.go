package token_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/internal/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/tracing/otlptest"
)

// fakeClock is moved by hand.
type fakeClock struct{ nanos atomic.Int64 }

func newClock() *fakeClock {
	c := &fakeClock{}
	c.nanos.Store(now.UnixNano())
	return c
}

func (c *fakeClock) Now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *fakeClock) Advance(d time.Duration) { c.nanos.Add(int64(d)) }

// publisher serves a key set, and counts.
type publisher struct {
	*httptest.Server
	fetches atomic.Int32

	mu      sync.Mutex
	respond http.HandlerFunc
}

func publish(tb testing.TB, keys ...string) *publisher {
	tb.Helper()
	p := &publisher{}
	p.set(keys...)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.fetches.Add(1)
		p.mu.Lock()
		respond := p.respond
		p.mu.Unlock()
		respond(w, r)
	}))
	tb.Cleanup(p.Close)
	return p
}

func (p *publisher) set(keys ...string) { p.answer(http.StatusOK, jwks(keys...)) }

func (p *publisher) answer(status int, body string) {
	p.handle(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func (p *publisher) handle(respond http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.respond = respond
}

// remote returns the key set of p, on a clock, and a verifier that uses it.
func (p *publisher) remote(tb testing.TB, o token.RemoteOptions) (*token.RemoteKeys, *token.Verifier, *fakeClock) {
	tb.Helper()
	c := newClock()
	o.Now = c.Now
	o.Cooldown = cmp.Or(o.Cooldown, 30*time.Second)
	keys, err := token.FetchJWKS(p.URL, o)
	require.NoError(tb, err)
	return keys, verifier(tb, token.IssuerOptions{Issuer: idp, Keys: keys}), c
}

var (
	oldToken = sync.OnceValue(func() string { return rs256(object{"kid": `"old"`}, nil) })
	newToken = sync.OnceValue(func() string {
		return compact(otherRSAKey(), "RS256", goodHeader.with(object{"kid": `"new"`}), goodClaims.with(nil))
	})
)

func TestRemoteKeysAreFetchedWhenNeeded(t *testing.T) {
	for name, header := range map[string]object{"with a kid": {"kid": `"old"`}, "without a kid": {"kid": ""}} {
		t.Run(name, func(t *testing.T) {
			p := publish(t, jwk(rsaKey(), kid("old")))
			keys, v, _ := p.remote(t, token.RemoteOptions{})
			require.Zero(t, p.fetches.Load())
			require.Equal(t, token.Snapshot{}, keys.Snapshot())
			for range 3 {
				accepted(t, v, rs256(header, nil))
			}
			require.EqualValues(t, 1, p.fetches.Load())
			require.Equal(t, token.Snapshot{Keys: 1, LastSuccess: now, LastAttempt: now}, keys.Snapshot())
		})
	}
}

// Nobody is asked for one who doesn't wait: 'tokens inspect --offline' says so.
func TestNoKeysAreFetchedForWhoIsGone(t *testing.T) {
	p := publish(t, jwk(rsaKey(), kid("old")))
	keys, v, _ := p.remote(t, token.RemoteOptions{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		_, err := keys.Keys(ended, "old", "RS256")
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Zero(t, keys.Snapshot())
	accepted(t, v, rs256(object{"kid": `"old"`}, nil))
	require.EqualValues(t, 1, p.fetches.Load())
}

// A fetch that somebody waits for is in his trace. Not so one that was due, of which a
// request was only the occasion.
func TestOnlyFetchesThatAreWaitedForAreTraced(t *testing.T) {
	collector, err := otlptest.Start(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(collector.Stop)
	tracer, err := tracing.New(tracing.Options{Endpoint: collector.Addr, InsecurePlaintext: true, Sample: 1})
	require.NoError(t, err)
	p := publish(t, jwk(rsaKey(), kid("old")))
	keys, _, c := p.remote(t, token.RemoteOptions{})
	ctx, end := tracer.Start(t.Context())
	for range 2 {
		found, err := keys.Keys(ctx, "old", "RS256")
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.Eventually(t, func() bool { return keys.Snapshot().LastSuccess.Equal(c.Now()) }, 10*time.Second, time.Millisecond)
		c.Advance(time.Hour)
	}
	require.EqualValues(t, 2, p.fetches.Load())
	end()
	require.NoError(t, tracer.Shutdown(t.Context()))
	spans := collector.Spans()
	require.Len(t, spans, 2, "%v", spans)
	require.Equal(t, "GET jwks", spans[0].Name)
	require.Equal(t, spans[1].ID, spans[0].Parent)
}

func TestRotationWithoutRestart(t *testing.T) {
	p := publish(t, jwk(rsaKey(), kid("old")))
	_, v, c := p.remote(t, token.RemoteOptions{})
	accepted(t, v, oldToken())

	p.set(jwk(rsaKey(), kid("old")), jwk(otherRSAKey(), kid("new")))
	c.Advance(30 * time.Second)
	accepted(t, v, newToken())
	accepted(t, v, oldToken())
	require.EqualValues(t, 2, p.fetches.Load())

	// The issuer withdraws the old key; the next unknown kid brings the news.
	p.set(jwk(otherRSAKey(), kid("new")))
	accepted(t, v, oldToken())
	c.Advance(30 * time.Second)
	refused(t, v, rs256(object{"kid": `"unknown"`}, nil), authz.ReasonTokenInvalid, "no key for kid")
	refused(t, v, oldToken(), authz.ReasonTokenInvalid, "no key for kid")
	accepted(t, v, newToken())
}

// Thousands of made-up kids are one fetch to the issuer, in each cool-down.
func TestUnknownKidsCannotHammer(t *testing.T) {
	p := publish(t, jwk(rsaKey(), kid("old")))
	keys, v, c := p.remote(t, token.RemoteOptions{})
	accepted(t, v, oldToken())
	c.Advance(time.Minute)

	hammer := func() {
		var wg sync.WaitGroup
		for n := range 16 {
			wg.Go(func() {
				for m := range 250 {
					found, err := keys.Keys(context.Background(), fmt.Sprintf("%d-%d", n, m), "RS256")
					if len(found) != 0 || err != nil {
						t.Errorf("%v, %v", found, err)
					}
				}
			})
		}
		wg.Wait()
	}
	hammer()
	require.EqualValues(t, 2, p.fetches.Load())
	c.Advance(29 * time.Second)
	hammer()
	refused(t, v, newToken(), authz.ReasonTokenInvalid, "no key for kid")
	require.EqualValues(t, 2, p.fetches.Load())
	c.Advance(time.Second)
	hammer()
	require.EqualValues(t, 3, p.fetches.Load())
	accepted(t, v, oldToken())
}

func TestWrongAlgorithmsCannotHammer(t *testing.T) {
	p := publish(t, jwk(rsaKey(), kid("old")))
	keys, _, _ := p.remote(t, token.RemoteOptions{})
	for range 100 {
		for _, alg := range []string{"ES256", "EdDSA", "HS256", "none"} {
			found, err := keys.Keys(t.Context(), "old", alg)
			require.NoError(t, err)
			require.Empty(t, found)
		}
	}
	require.EqualValues(t, 1, p.fetches.Load())
}

// Whatever goes wrong with an issuer: its tokens of known keys stay valid,
// and of an unknown key nobody says that it is wrong.
func TestOutageKeepsTheLastKeys(t *testing.T) {
	set := jwks(jwk(otherRSAKey(), kid("new")))
	for name, respond := range map[string]http.HandlerFunc{
		"500":       status(http.StatusInternalServerError, set),
		"404":       status(http.StatusNotFound, set),
		"204":       status(http.StatusNoContent, ""),
		"HTML":      status(http.StatusOK, "<html>"),
		"empty":     status(http.StatusOK, ""),
		"empty set": status(http.StatusOK, `{"keys":[]}`),
		"no set":    status(http.StatusOK, `{}`),
		"unusable":  status(http.StatusOK, jwks(`{"kty":"oct","k":"AAAA"}`, jwk(weakRSAKey(), kid("new")))),
		"cut off":   status(http.StatusOK, set[:len(set)-1]),
		"set twice": status(http.StatusOK, set+set),
		"too long":  status(http.StatusOK, set+strings.Repeat(" ", 1<<20)),
		"hung up":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"loop":      func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) },
		"other scheme": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		},
		"too slow": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			p := publish(t, jwk(rsaKey(), kid("old")))
			keys, v, c := p.remote(t, token.RemoteOptions{})
			accepted(t, v, oldToken())
			p.handle(respond)
			c.Advance(time.Minute)
			refused(t, v, newToken(), authz.ReasonIssuerUnavailable, "keys of issuer")
			refused(t, v, newToken(), authz.ReasonIssuerUnavailable, "keys of issuer")
			accepted(t, v, oldToken())

			found := keys.Snapshot()
			require.Error(t, found.LastError)
			require.Equal(t, token.Snapshot{
				Keys: 1, LastSuccess: now, LastAttempt: now.Add(time.Minute), LastError: found.LastError, Failures: 1,
			}, found)

			p.set(jwk(otherRSAKey(), kid("new")))
			c.Advance(time.Second)
			accepted(t, v, newToken())
			require.NoError(t, keys.Snapshot().LastError)
		})
	}
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func TestNeverAnyKeysBacksOff(t *testing.T) {
	p := publish(t)
	p.answer(http.StatusBadGateway, "")
	_, v, c := p.remote(t, token.RemoteOptions{})
	want := int32(0)
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		want++
		refused(t, v, oldToken(), authz.ReasonIssuerUnavailable, "answered 502")
		require.Equal(t, want, p.fetches.Load())
		c.Advance(pause*time.Second - 1)
		refused(t, v, oldToken(), authz.ReasonIssuerUnavailable, "answered 502")
		require.Equal(t, want, p.fetches.Load(), "before the pause of %v is over", pause)
		c.Advance(1)
	}
	p.set(jwk(rsaKey(), kid("old")))
	accepted(t, v, oldToken())
}

func TestOneFetchForAllWhoWait(t *testing.T) {
	p := publish(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	p.handle(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-answer
		status(http.StatusOK, jwks(jwk(rsaKey(), kid("old"))))(w, r)
	})
	_, v, _ := p.remote(t, token.RemoteOptions{})

	// The one who causes the fetch gives up; the others get their answer.
	impatient, giveUp := context.WithCancel(t.Context())
	gaveUp := make(chan error)
	go func() {
		_, err := v.Verify(impatient, oldToken())
		gaveUp <- err
	}()
	<-asked
	giveUp()
	err := <-gaveUp
	require.Equal(t, authz.ReasonIssuerUnavailable, authz.ReasonOf(err))
	require.ErrorIs(t, err, context.Canceled)

	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if _, err := v.Verify(context.Background(), oldToken()); err != nil {
				t.Error(err)
			}
		})
	}
	close(answer)
	wg.Wait()
	require.EqualValues(t, 1, p.fetches.Load())
}

func TestCacheControl(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"":                                15 * time.Minute,
		"no-store":                        15 * time.Minute,
		"max-age=3600":                    time.Hour,
		"public, MAX-AGE=600, s-maxage=1": 10 * time.Minute,
		`max-age="120"`:                   2 * time.Minute,
		"max-age=0":                       time.Minute,
		"max-age=59":                      time.Minute,
		"max-age=86401":                   24 * time.Hour,
		"max-age=999999999999999999999":   15 * time.Minute,
		"max-age=-1":                      15 * time.Minute,
		"max-age=x":                       15 * time.Minute,
		"max-age":                         15 * time.Minute,
	} {
		t.Run(value, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &inMemory{answer: answer{body: jwks(jwk(rsaKey(), kid("old"))), header: http.Header{"Cache-Control": {value}}}}
				keys, err := token.FetchJWKS("https://idp.example.com/jwks", token.RemoteOptions{Client: s.client()})
				require.NoError(t, err)
				need := func() {
					found, err := keys.Keys(t.Context(), "old", "RS256")
					require.NoError(t, err)
					require.Len(t, found, 1)
					synctest.Wait()
				}
				need()
				time.Sleep(want - time.Nanosecond) // in the bubble: the clock jumps
				need()
				require.Equal(t, 1, s.count())
				time.Sleep(time.Nanosecond)
				need()
				require.Equal(t, 2, s.count())
			})
		})
	}
}

// inMemory is a transport that can live in a synctest bubble. It answers with
// what it was told last.
type inMemory struct {
	mu      sync.Mutex
	fetches int
	answer
}

type answer struct {
	body   string
	header http.Header
	err    error
	took   time.Duration
}

func (s *inMemory) client() *http.Client { return &http.Client{Transport: s} }

func (s *inMemory) tell(a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = a
}

func (s *inMemory) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetches
}

func (s *inMemory) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.fetches++
	a := s.answer
	s.mu.Unlock()
	select {
	case <-time.After(a.took):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	if a.err != nil {
		return nil, a.err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: a.header, Body: io.NopCloser(strings.NewReader(a.body)), Request: req}, nil
}

func TestRunRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &inMemory{answer: answer{body: jwks(jwk(rsaKey(), kid("old"))), took: time.Second}}
		keys, err := token.FetchJWKS("https://idp.example.com/jwks", token.RemoteOptions{Client: s.client()})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- keys.Run(ctx) }()

		// at once, then every 15 minutes after an answer, nobody asking
		after := func(d time.Duration, fetches int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			require.Equal(t, fetches, s.count())
		}
		after(0, 1)
		after(15*time.Minute, 1)
		after(time.Second, 2)
		require.Equal(t, 1, keys.Snapshot().Keys)

		// A key that is gone from the set is refused, with no unknown kid involved.
		renewed := answer{body: jwks(jwk(otherRSAKey(), kid("new")))}
		s.tell(renewed)
		after(15*time.Minute+time.Second, 3)
		found, err := keys.Keys(ctx, "new", "RS256")
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.Equal(t, 3, s.count())

		// An outage: 1 s, 2 s, 4 s between the tries, and back to the rule.
		s.tell(answer{err: errors.New("down")})
		after(15*time.Minute, 4)
		after(time.Second-1, 4)
		after(1, 5)
		after(2*time.Second, 6)
		after(4*time.Second, 7)
		_, err = keys.Keys(ctx, "unknown", "RS256") // does not shorten the pause
		require.ErrorContains(t, err, "down")
		require.Equal(t, 7, s.count())
		require.Equal(t, 4, keys.Snapshot().Failures)
		require.ErrorContains(t, keys.Snapshot().LastError, "down")
		require.Equal(t, 1, keys.Snapshot().Keys)
		s.tell(renewed)
		after(8*time.Second, 8)
		require.Zero(t, keys.Snapshot().Failures)
		after(14*time.Minute, 8)
		after(time.Minute, 9)

		// It ends while it waits for an answer, too.
		s.tell(answer{took: time.Hour})
		after(15*time.Minute, 10)
		cancel()
		require.NoError(t, <-done)
		time.Sleep(5 * time.Second) // the fetch itself ends with its timeout
	})
}

// A failed fetch on demand is repeated by Run, though the next refresh was
// far away.
func TestRunRepeatsAFailedDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &inMemory{answer: answer{body: jwks(jwk(rsaKey(), kid("old")))}}
		keys, err := token.FetchJWKS("https://idp.example.com/jwks", token.RemoteOptions{Client: s.client()})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- keys.Run(ctx) }()
		synctest.Wait()
		s.tell(answer{err: errors.New("down")})
		_, err = keys.Keys(ctx, "new", "RS256")
		require.ErrorContains(t, err, "down")
		s.tell(answer{body: jwks(jwk(rsaKey(), kid("old")))})
		time.Sleep(time.Minute)
		synctest.Wait()
		require.NoError(t, keys.Snapshot().LastError)
		require.Equal(t, 3, s.count())
		cancel()
		require.NoError(t, <-done)
	})
}

// Who joins a refresh that is under way has had their fetch: the cool-down
// counts from there.
func TestJoiningARefreshStartsTheCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &inMemory{answer: answer{body: jwks(jwk(rsaKey(), kid("old"))), took: time.Second}}
		keys, err := token.FetchJWKS("https://idp.example.com/jwks", token.RemoteOptions{Client: s.client()})
		require.NoError(t, err)
		unknown := func() {
			t.Helper()
			found, err := keys.Keys(t.Context(), "unknown", "RS256")
			require.NoError(t, err)
			require.Empty(t, found)
		}
		unknown()
		time.Sleep(15 * time.Minute)
		_, err = keys.Keys(t.Context(), "old", "RS256") // starts the refresh that is due
		require.NoError(t, err)
		unknown()
		unknown()
		require.Equal(t, 2, s.count())
	})
}

func TestFetchHasATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &inMemory{answer: answer{took: time.Hour}}
		keys, err := token.FetchJWKS("https://idp.example.com/jwks", token.RemoteOptions{Client: s.client()})
		require.NoError(t, err)
		start := time.Now()
		_, err = keys.Keys(t.Context(), "old", "RS256")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(start))
	})
}

func TestRedirects(t *testing.T) {
	set := jwks(jwk(rsaKey(), kid("old")))
	plain := httptest.NewServer(status(http.StatusOK, set))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/once":
			http.Redirect(w, r, "/jwks", http.StatusFound)
		case "/thrice":
			http.Redirect(w, r, "/twice", http.StatusMovedPermanently)
		case "/twice":
			http.Redirect(w, r, "/once", http.StatusTemporaryRedirect)
		case "/four":
			http.Redirect(w, r, "/thrice", http.StatusFound)
		case "/plain":
			http.Redirect(w, r, plain.URL, http.StatusFound)
		default:
			status(http.StatusOK, set)(w, r)
		}
	}))
	defer secure.Close()
	up := httptest.NewServer(http.RedirectHandler(secure.URL, http.StatusFound))
	defer up.Close()

	for name, test := range map[string]struct{ url, message string }{
		"none":          {secure.URL, ""},
		"one":           {secure.URL + "/once", ""},
		"three":         {secure.URL + "/thrice", ""},
		"four":          {secure.URL + "/four", "more than 3 redirects"},
		"http to https": {up.URL, ""},
		"https to http": {secure.URL + "/plain", "away from TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := token.FetchJWKS(test.url, token.RemoteOptions{Client: secure.Client()})
			require.NoError(t, err)
			found, err := keys.Keys(t.Context(), "old", "RS256")
			if test.message != "" {
				require.ErrorContains(t, err, test.message)
				require.Empty(t, found)
				return
			}
			require.NoError(t, err)
			require.Len(t, found, 1)
		})
	}

	t.Run("the client's own policy counts too", func(t *testing.T) {
		client := *secure.Client()
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return errors.New("not at all") }
		keys, err := token.FetchJWKS(secure.URL+"/once", token.RemoteOptions{Client: &client})
		require.NoError(t, err)
		_, err = keys.Keys(t.Context(), "old", "RS256")
		require.ErrorContains(t, err, "not at all")
	})
}

// provider is an OpenID provider at a path of its own.
func provider(t *testing.T, start func(http.Handler) *httptest.Server, document func(base string) string) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	s := start(mux)
	t.Cleanup(s.Close)
	mux.HandleFunc("GET /realm/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, document(s.URL))
	})
	mux.HandleFunc("GET /keys", status(http.StatusOK, jwks(jwk(rsaKey(), kid("old")))))
	return s
}

func TestDiscovery(t *testing.T) {
	for name, test := range map[string]struct {
		path     string // of the issuer that we are told
		document string // BASE is the server
		message  string // "": found
	}{
		"found":                      {"/realm", `{"issuer":"BASE/realm","jwks_uri":"BASE/keys","x":{}}`, ""},
		"found, with a slash":        {"/realm/", `{"issuer":"BASE/realm/","jwks_uri":"BASE/keys"}`, ""},
		"other issuer":               {"/realm", `{"issuer":"https://evil.example","jwks_uri":"BASE/keys"}`, `issuer "https://evil.example"`},
		"a slash more":               {"/realm", `{"issuer":"BASE/realm/","jwks_uri":"BASE/keys"}`, "exactly as it names itself"},
		"a slash less":               {"/realm/", `{"issuer":"BASE/realm","jwks_uri":"BASE/keys"}`, "exactly as it names itself"},
		"no issuer":                  {"/realm", `{"jwks_uri":"BASE/keys"}`, `issuer ""`},
		"issuer a list":              {"/realm", `{"issuer":["BASE/realm"],"jwks_uri":"BASE/keys"}`, `issuer ""`},
		"issuer in another case":     {"/realm", `{"Issuer":"BASE/realm","jwks_uri":"BASE/keys"}`, `issuer ""`},
		"issuer twice":               {"/realm", `{"issuer":"BASE/realm","issuer":"BASE/realm","jwks_uri":"BASE/keys"}`, "twice"},
		"no jwks_uri":                {"/realm", `{"issuer":"BASE/realm"}`, "not an http or https URL"},
		"jwks_uri a file":            {"/realm", `{"issuer":"BASE/realm","jwks_uri":"file:///etc/passwd"}`, "not an http or https URL"},
		"jwks_uri relative":          {"/realm", `{"issuer":"BASE/realm","jwks_uri":"/keys"}`, "not an http or https URL"},
		"jwks_uri without TLS":       {"/realm", `{"issuer":"BASE/realm","jwks_uri":"http://idp.example.com/keys"}`, "leaves TLS"},
		"jwks_uri that is not there": {"/realm", `{"issuer":"BASE/realm","jwks_uri":"BASE/none"}`, "answered 404"},
		"no document":                {"/other", ``, "answered 404"},
		"no JSON":                    {"/realm", `<html>`, "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			s := provider(t, httptest.NewTLSServer, func(base string) string { return strings.ReplaceAll(test.document, "BASE", base) })
			keys, err := token.Discover(s.URL+test.path, token.RemoteOptions{Client: s.Client()})
			require.NoError(t, err)
			found, err := keys.Keys(t.Context(), "old", "RS256")
			if test.message != "" {
				require.ErrorContains(t, err, test.message)
				require.Empty(t, found)
				return
			}
			require.NoError(t, err)
			require.Len(t, found, 1)
		})
	}
	t.Run("without TLS at all", func(t *testing.T) {
		s := provider(t, httptest.NewServer, func(base string) string { return `{"issuer":"` + base + `/realm","jwks_uri":"` + base + `/keys"}` })
		keys, err := token.Discover(s.URL+"/realm", token.RemoteOptions{})
		require.NoError(t, err)
		found, err := keys.Keys(t.Context(), "old", "RS256")
		require.NoError(t, err)
		require.Len(t, found, 1)
	})
}

func TestRemoteURLs(t *testing.T) {
	for _, bad := range []string{"", "idp.example.com", "/jwks", "file:///jwks", "ftp://idp.example.com", "https://", "https:idp", "http://[::1"} {
		_, err := token.FetchJWKS(bad, token.RemoteOptions{})
		require.ErrorContains(t, err, "URL", bad)
		_, err = token.Discover(bad, token.RemoteOptions{})
		require.ErrorContains(t, err, "URL", bad)
	}
	for _, bad := range []string{"https://idp.example.com?x=1", "https://idp.example.com#x"} {
		_, err := token.Discover(bad, token.RemoteOptions{})
		require.ErrorContains(t, err, "query or fragment")
	}
	for _, bad := range []string{"ftp://user:secret@idp.example.com", "https://user:secret@idp.example.com:x"} {
		_, err := token.FetchJWKS(bad, token.RemoteOptions{})
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestLastErrorIsBounded(t *testing.T) {
	p := publish(t)
	p.handle(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "gopher://"+strings.Repeat("x", 10000))
		w.WriteHeader(http.StatusFound)
	})
	keys, _, _ := p.remote(t, token.RemoteOptions{})
	_, err := keys.Keys(t.Context(), "old", "RS256")
	require.Error(t, err)
	require.Less(t, len(keys.Snapshot().LastError.Error()), 600)
}

// What happens at once must not race: uses, rotation, refreshes, looks.
func TestRemoteKeysConcurrently(t *testing.T) {
	p := publish(t, jwk(rsaKey(), kid("old")), jwk(otherRSAKey(), kid("new")))
	keys, v, c := p.remote(t, token.RemoteOptions{})
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for m := range 50 {
				if _, err := v.Verify(context.Background(), []string{oldToken(), newToken()}[m%2]); err != nil {
					t.Error(err)
				}
				_, _ = keys.Keys(context.Background(), fmt.Sprint(n, m), "RS256")
				_ = keys.Snapshot()
				c.Advance(time.Second)
			}
		})
	}
	wg.Wait()
}
