package oidc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/tracing/traced"
)

const (
	maxBody      = 1 << 20 // of any answer, in bytes
	maxHeader    = 64 << 10
	maxRedirects = 3
	maxError     = 300 // bytes of an error, which may quote what the issuer answered
)

// clients are the ways to the provider.
type clients struct {
	read *http.Client // discovery and keys: few redirects, none away from TLS
	call *http.Client // what carries a code, a secret or a token: no redirects
}

func newClients(base *http.Client, timeout time.Duration) clients {
	var c http.Client
	if base != nil {
		c = *base
	}
	if c.Timeout <= 0 || c.Timeout > timeout {
		c.Timeout = timeout
	}
	c.Jar = nil
	c.Transport = bounded{next: traced.Transport(transport(c.Transport), "oidc")}
	read, call := c, c
	read.CheckRedirect = fewRedirects
	call.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return clients{read: &read, call: &call}
}

// transport is the given one, or else one of our own that reads no endless
// headers.
func transport(given http.RoundTripper) http.RoundTripper {
	if given != nil {
		return given
	}
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t = t.Clone()
		t.MaxResponseHeaderBytes = maxHeader
		return t
	}
	return http.DefaultTransport
}

func fewRedirects(req *http.Request, via []*http.Request) error {
	switch last := via[len(via)-1].URL; {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case last.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("a redirect away from TLS")
	}
	return nil
}

// bounded reads an answer whole before it is looked at, so that its size and
// the time that it takes are bounded for whatever asks. An answer that is no
// success is an error that tells the status alone: bodies of errors repeat what
// was sent, and what was sent is secret. Only of POST, which is for the token
// endpoint, is it handed on: its body says why.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	switch redirect := res.Header.Get("Location") != "" && res.StatusCode/100 == 3; {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", err)
	case len(body) > maxBody:
		return nil, fmt.Errorf("answered more than %d bytes", maxBody)
	case req.Method == http.MethodGet && res.StatusCode != http.StatusOK && !redirect:
		return nil, fmt.Errorf("answered %d", res.StatusCode)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	res.ContentLength = int64(len(body))
	return res, nil
}

// How long an issuer is left alone after its keys were fetched, or could not be.
const (
	keysPause = 5 * time.Second
	keysRetry = 3 * time.Second
)

// cooled answers from memory what it fetched, or failed to fetch, a moment ago.
// It stands before the key set: anybody can send logout tokens, and each with a
// key that nobody knows would cost the issuer a request.
type cooled struct {
	client *http.Client
	now    func() time.Time

	mu     sync.Mutex
	until  time.Time
	status int
	header http.Header
	body   []byte
	err    error
}

func (c *cooled) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.now().Before(c.until) {
		c.fetch(req)
		pause := keysPause
		if c.err != nil {
			pause = keysRetry
		}
		c.until = c.now().Add(pause)
	}
	if c.err != nil {
		return nil, c.err
	}
	return &http.Response{
		Status: http.StatusText(c.status), StatusCode: c.status, Header: c.header.Clone(), Request: req,
		ContentLength: int64(len(c.body)), Body: io.NopCloser(bytes.NewReader(c.body)),
	}, nil
}

func (c *cooled) fetch(req *http.Request) {
	res, err := c.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the client around us says the rest once more
		}
		c.err = err
		return
	}
	defer res.Body.Close()
	c.status, c.header = res.StatusCode, res.Header
	c.body, c.err = io.ReadAll(res.Body)
}

// forget has the next one fetch anew, unless the issuer was out of reach just
// now.
func (c *cooled) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.until = time.Time{}
	}
}

// endpoint checks a URL that discovery names: a web address, over TLS if the
// issuer's is, and nobody's password.
func endpoint(name, location string, tls bool) error {
	u, err := url.Parse(location)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("%s is no http or https URL", name)
	case tls && u.Scheme != "https":
		return fmt.Errorf("%s leaves TLS", name)
	}
	return nil
}

// clip shortens an error that may quote what an issuer answered. Nothing can be
// unwrapped from a long one.
func clip(err error) error {
	if text := err.Error(); len(text) > maxError {
		return errors.New(strings.ToValidUTF8(text[:maxError], "") + "…")
	}
	return err
}
