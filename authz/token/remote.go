package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/claim"
	"github.com/gatehouse-auth/gatehouse/internal/tracing/traced"
)

const (
	maxBody      = 1 << 20 // of a key set or discovery document, in bytes
	maxRedirects = 3
	maxError     = 500 // bytes of an error, which may quote what the issuer answered
	minInterval  = time.Minute
	maxInterval  = 24 * time.Hour
	firstRetry   = time.Second
)

// RemoteOptions may be left at the zero value.
type RemoteOptions struct {
	// Client does the fetching. It brings what a private CA or a proxy needs;
	// its redirect policy is tightened. nil means [http.DefaultClient].
	Client *http.Client
	// Timeout of one fetch, discovery included. Default 5 s.
	Timeout time.Duration
	// Interval between refreshes, unless the answer's Cache-Control says
	// max-age, of which 1 minute to 24 hours are believed. Default 15 minutes.
	Interval time.Duration
	// Cooldown is how long a token with an unknown kid fetches nothing after
	// the last one that did. Default 10 s. Also the longest pause before a
	// failed fetch is repeated; the first is 1 s, and each next one doubles.
	Cooldown time.Duration
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// RemoteKeys are the keys that an issuer publishes over HTTP. They are fetched
// when they are first needed, or by [RemoteKeys.Run]; once they are due, they
// are refreshed in the background; and a token that none of them fits has them
// fetched at once, at most once per cool-down, or when a failed fetch is due to
// be repeated. The last good keys stay until a fetch brings others, however
// long the issuer is out of reach. Safe for concurrent use.
type RemoteKeys struct {
	issuer string // of which the discovery document must speak; "" without discovery
	url    string // of the key set or the discovery document
	client *http.Client
	o      RemoteOptions

	state atomic.Pointer[remoteState]

	mu     sync.Mutex
	flight *flight   // the fetch under way, of which there is never more than one
	cooled time.Time // from then on an unknown kid may cause a fetch again
}

// remoteState is what is known after a fetch; never changed once it is stored.
type remoteState struct {
	keys StaticKeys
	due  time.Time // when to fetch next; zero: at once
	Snapshot
}

// flight is one fetch, which any number of callers may wait for.
type flight struct {
	done   chan struct{}
	demand bool // somebody waits for a key; guarded by RemoteKeys.mu
}

// Snapshot is the condition of a remote key set, for metrics and logs.
type Snapshot struct {
	Keys        int       // usable ones
	LastSuccess time.Time // zero: never
	LastAttempt time.Time // when the last fetch ended; zero: never
	LastError   error     // of the last fetch; nil when it was good
	Failures    int       // since the last good fetch
}

// FetchJWKS returns the key set at an http or https URL. Nothing is fetched
// yet.
func FetchJWKS(jwksURL string, o RemoteOptions) (*RemoteKeys, error) {
	if err := checkURL(jwksURL); err != nil {
		return nil, err
	}
	return newRemoteKeys("", jwksURL, o), nil
}

// Discover returns the key set of an OpenID provider (OpenID Connect Discovery
// 1.0 section 4). The issuer in its discovery document must be the very same;
// an https issuer can't send us to an http key set. Nothing is fetched yet.
func Discover(issuer string, o RemoteOptions) (*RemoteKeys, error) {
	if err := checkURL(issuer); err != nil {
		return nil, err
	}
	if strings.ContainsAny(issuer, "?#") {
		return nil, fmt.Errorf("issuer %q has a query or fragment, so it can't be discovered; give the URL of its key set", issuer)
	}
	return newRemoteKeys(issuer, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", o), nil
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("not a URL") // err would tell all of it, a password included
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("%q is not an http or https URL", u.Redacted())
	}
	return nil
}

func newRemoteKeys(issuer, location string, o RemoteOptions) *RemoteKeys {
	o.Client = cmp.Or(o.Client, http.DefaultClient)
	o.Timeout = cmp.Or(max(o.Timeout, 0), 5*time.Second)
	o.Interval = cmp.Or(max(o.Interval, 0), 15*time.Minute)
	o.Cooldown = cmp.Or(max(o.Cooldown, 0), 10*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	client := *o.Client
	client.CheckRedirect = redirectPolicy(o.Client.CheckRedirect)
	client.Transport = traced.Transport(client.Transport, "jwks")
	r := &RemoteKeys{issuer: issuer, url: location, client: &client, o: o}
	r.state.Store(&remoteState{})
	return r
}

// redirectPolicy follows few redirects, and none that leaves TLS; what is
// left the client's own policy decides.
func redirectPolicy(own func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		if req.URL.Scheme != "https" && (req.URL.Scheme != "http" || via[len(via)-1].URL.Scheme == "https") {
			return errors.New("a redirect away from TLS or HTTP")
		}
		if own != nil {
			return own(req, via)
		}
		return nil
	}
}

// Snapshot returns the condition of the key set.
func (r *RemoteKeys) Snapshot() Snapshot { return r.state.Load().Snapshot }

// Keys implements [KeySet]. It blocks only when no known key matches, and then
// for one fetch at most, which a ctx that has ended doesn't begin. Its error means
// that the last fetch failed, so that nobody knows whether the issuer has such a key.
func (r *RemoteKeys) Keys(ctx context.Context, kid, alg string) ([]*Key, error) {
	s := r.state.Load()
	found, _ := s.keys.Keys(ctx, kid, alg)
	if len(found) > 0 {
		if !r.o.Now().Before(s.due) {
			r.begin(context.Background(), false) //nolint:contextcheck // in the background: nobody waits for it, and it is in nobody's trace
		}
		return found, nil
	}
	if err := ctx.Err(); err != nil { // who doesn't wait has nobody asked, and learns nothing by luck
		return nil, fmt.Errorf("waiting for them: %w", err)
	}
	if f := r.begin(ctx, true); f != nil {
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for them: %w", ctx.Err())
		}
	}
	s = r.state.Load()
	if found, _ = s.keys.Keys(ctx, kid, alg); len(found) == 0 && s.LastError != nil {
		return nil, s.LastError
	}
	return found, nil
}

// Run keeps the keys fresh until ctx ends, and returns nil then. The first
// fetch is at once. One that is under way at the end is left to its timeout.
func (r *RemoteKeys) Run(ctx context.Context) error {
	for {
		// A fetch that was made on demand may bring the date forward: look at
		// it now and then.
		wait := min(r.state.Load().due.Sub(r.o.Now()), minInterval)
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		if f := r.begin(ctx, false); f != nil {
			select {
			case <-f.done:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// begin starts a fetch, or joins the one that is under way; nil when none is
// allowed now. The fetch belongs to all who wait for it: it goes on when ctx
// is cancelled.
func (r *RemoteKeys) begin(ctx context.Context, demand bool) *flight {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flight != nil {
		r.flight.demand = r.flight.demand || demand
		return r.flight
	}
	now, s := r.o.Now(), r.state.Load()
	due := !now.Before(s.due)
	if !due && (!demand || s.LastError != nil || now.Before(r.cooled)) {
		return nil
	}
	f := &flight{done: make(chan struct{}), demand: demand}
	r.flight = f
	ctx = context.WithoutCancel(ctx)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
		defer cancel()
		keys, fresh, err := r.fetch(ctx)
		r.end(f, keys, fresh, err)
	}()
	return f
}

func (r *RemoteKeys) end(f *flight, keys StaticKeys, fresh time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Now()
	s := *r.state.Load()
	if err != nil && len(err.Error()) > maxError {
		err = errors.New(err.Error()[:maxError] + "…")
	}
	s.LastAttempt, s.LastError = now, err
	if err != nil {
		s.Failures++
		s.due = now.Add(min(firstRetry<<min(s.Failures-1, 20), r.o.Cooldown))
	} else {
		s.Failures, s.LastSuccess, s.due = 0, now, now.Add(fresh)
		s.keys, s.Keys = s.keys.renewed(keys), len(keys)
	}
	if f.demand {
		r.cooled = now.Add(r.o.Cooldown)
	}
	r.state.Store(&s)
	r.flight = nil
	close(f.done)
}

// fetch returns the issuer's keys, at least one, and how long they are fresh.
func (r *RemoteKeys) fetch(ctx context.Context) (StaticKeys, time.Duration, error) {
	location := r.url
	if r.issuer != "" {
		var err error
		if location, err = r.discover(ctx); err != nil {
			return nil, 0, fmt.Errorf("discovery: %w", err)
		}
	}
	body, header, err := r.download(ctx, location)
	if err != nil {
		return nil, 0, fmt.Errorf("key set: %w", err)
	}
	keys, err := ParseJWKS(body)
	if err != nil {
		return nil, 0, fmt.Errorf("key set: %w", err)
	}
	return keys, r.fresh(header), nil
}

// discover returns the jwks_uri of the issuer's discovery document.
func (r *RemoteKeys) discover(ctx context.Context) (string, error) {
	body, _, err := r.download(ctx, r.url)
	if err != nil {
		return "", err
	}
	document, err := decodeObject(body)
	if err != nil {
		return "", err
	}
	if issuer, _ := document["issuer"].(string); issuer != r.issuer {
		return "", fmt.Errorf("the document is that of issuer %s, not of %q: write the issuer exactly as it names itself", claim.Quote(issuer), r.issuer)
	}
	location, _ := document["jwks_uri"].(string)
	if err := checkURL(location); err != nil {
		return "", fmt.Errorf("jwks_uri %s is not an http or https URL", claim.Quote(location))
	}
	if strings.HasPrefix(r.issuer, "https:") && !strings.HasPrefix(location, "https:") {
		return "", errors.New("jwks_uri leaves TLS")
	}
	return location, nil
}

func (r *RemoteKeys) download(ctx context.Context, location string) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := r.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s answered %d", res.Request.URL.Redacted(), res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err != nil {
		return nil, nil, err
	}
	if len(body) > maxBody {
		return nil, nil, fmt.Errorf("%s answered more than %d bytes", res.Request.URL.Redacted(), maxBody)
	}
	return body, res.Header, nil
}

// fresh reads max-age (RFC 9111 section 5.2.2.1).
func (r *RemoteKeys) fresh(h http.Header) time.Duration {
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if !strings.EqualFold(name, "max-age") {
			continue
		}
		if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
			return min(max(time.Duration(seconds)*time.Second, minInterval), maxInterval)
		}
	}
	return r.o.Interval
}
