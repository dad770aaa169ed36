package usercontext

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// HeaderAssertion is the header in which the gate passes the identity on signed, where
// a route's policy says assertion.
const HeaderAssertion = "x-identity-assertion"

// ErrUnverified says that the identity headers are not vouched for: there is no assertion, or
// none that is valid, for this service, and says the same as the headers. It deserves
// an alarm, as [ErrMalformed] does: somebody reached the service around the gate, or
// the gate's configuration and the service's differ.
var ErrUnverified = errors.New("the identity is not signed by the gate")

// ErrKeysUnavailable says that the gate's public keys could not be had, so nobody knows whether
// the signature is right. The caller may try again.
var ErrKeysUnavailable = errors.New("the gate's keys can't be had")

const (
	assertionType = "gatehouse-identity+jwt"
	// DefaultLeeway is how far the clocks of gate and service may differ.
	DefaultLeeway = 10 * time.Second
	maxLeeway     = time.Minute
	// maxLife bounds exp - iat: the gate signs for five minutes at most.
	maxLife = 5 * time.Minute
	// maxAssertion bounds an assertion, in bytes.
	maxAssertion = 16 << 10
	maxJWKS      = 256 << 10
	maxKeys      = 64
)

// VerifierOptions configure a [Verifier]. Issuer, Audience and one of JWKSURL and Keys
// are required.
type VerifierOptions struct {
	Issuer   string // the gate's identity.assertion.issuer, exactly
	Audience string // the name of this service, as the gate's policy has it
	// JWKSURL is where the gate publishes its keys: /.well-known/jwks.json at its HTTP
	// listener. It must be https, but on this host, for who changes the keys on their
	// way is believed.
	JWKSURL string
	// Keys are the keys themselves, by kid, instead.
	Keys map[string]*ecdsa.PublicKey
	// InsecurePlainHTTP lets JWKSURL be http on another host, where the network between
	// vouches for it.
	InsecurePlainHTTP bool
	// Leeway is how far the clocks may differ; zero is [DefaultLeeway], at most a minute.
	Leeway time.Duration
	// Client fetches the keys; nil is one that follows no redirects.
	Client *http.Client
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// Verifier checks that the gate vouches for the identity headers, so that a service
// need not believe its network: use it as [Options].Verifier. Safe for concurrent use.
//
// Keys that are fetched are kept. A kid that is not among them has them fetched
// again, and old ones are refreshed beside the requests; however many unknown kids
// arrive, there is one fetch at a time, and a pause after each. Where the gate's HTTP
// listener is out of reach, the keys that are known go on being good for a day.
type Verifier struct {
	o      VerifierOptions
	client *http.Client

	mu       sync.Mutex
	keys     map[string]*ecdsa.PublicKey
	fetched  time.Time     // the last success
	tried    time.Time     // the last try
	fetching chan struct{} // closed when the fetch under way has ended; nil for none
	err      error         // of the last try
}

// When keys are fetched.
const (
	refreshAfter = 5 * time.Minute
	keepFor      = 24 * time.Hour
	pause        = 10 * time.Second // between two tries
	fetchTimeout = 5 * time.Second
)

// NewVerifier returns a verifier. It fetches nothing yet.
func NewVerifier(o VerifierOptions) (*Verifier, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Leeway == 0 {
		o.Leeway = DefaultLeeway
	}
	switch {
	case o.Issuer == "":
		return nil, errors.New("usercontext: Verifier: give Issuer, the gate's identity.assertion.issuer")
	case o.Audience == "":
		return nil, errors.New("usercontext: Verifier: give Audience, the name of this service in the gate's policy")
	case (o.JWKSURL == "") == (len(o.Keys) == 0):
		return nil, errors.New("usercontext: Verifier: give one of JWKSURL and Keys")
	case o.Leeway < 0 || o.Leeway > maxLeeway:
		return nil, fmt.Errorf("usercontext: Verifier: a leeway of %v; give up to %v", o.Leeway, maxLeeway)
	}
	v := &Verifier{o: o, client: o.Client}
	if len(o.Keys) > 0 {
		v.keys = make(map[string]*ecdsa.PublicKey, len(o.Keys))
		for kid, key := range o.Keys {
			if kid == "" || key == nil || key.Curve != elliptic.P256() {
				return nil, errors.New("usercontext: Verifier: Keys are ECDSA keys on P-256, each by its kid")
			}
			v.keys[kid] = key
		}
		return v, nil
	}
	u, err := url.Parse(o.JWKSURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("usercontext: Verifier: JWKSURL is no URL such as https://gateway.example.com/.well-known/jwks.json")
	}
	if u.Scheme == "http" && !o.InsecurePlainHTTP && !slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname()) {
		return nil, errors.New("usercontext: Verifier: JWKSURL is http on another host, where anybody on the way can change the keys: make it https, or say InsecurePlainHTTP")
	}
	if v.client == nil {
		v.client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return v, nil
}

// Assertion is a verified assertion.
type Assertion struct {
	User User
	// SessionID is the handle of the session, or of the token's refresh family, by
	// which Gatehouse's auth API lists it; "" for none. It opens nothing.
	SessionID string
	Issued    time.Time
	Expires   time.Time
}

func unverified(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUnverified, fmt.Errorf(format, args...))
}

// Verify checks one assertion, and not whether the identity headers agree with it:
// [Reader.FromHeaders] does. It may wait for the gate's keys. The error wraps
// [ErrUnverified] or [ErrKeysUnavailable], and holds nothing of the assertion.
func (v *Verifier) Verify(ctx context.Context, raw string) (Assertion, error) {
	if len(raw) > maxAssertion {
		return Assertion{}, unverified("%d bytes where at most %d are accepted", len(raw), maxAssertion)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return Assertion{}, unverified("not a signed JWT")
	}
	var header struct {
		Algorithm string `json:"alg"`
		Type      string `json:"typ"`
		KeyID     string `json:"kid"`
	}
	members, err := decodePart(parts[0], &header)
	switch {
	case err != nil:
		return Assertion{}, unverified("header: %w", err)
	case header.Algorithm != "ES256":
		return Assertion{}, unverified("alg is not ES256")
	case header.Type != assertionType:
		return Assertion{}, unverified("typ is not %s", assertionType)
	case header.KeyID == "":
		return Assertion{}, unverified("no kid")
	case len(members) != 3: // crit, jwk, jku and the like
		return Assertion{}, unverified("header: more than alg, typ and kid")
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(signature) != 64 {
		return Assertion{}, unverified("not a signature of ES256")
	}
	key, err := v.key(ctx, header.KeyID)
	if err != nil {
		return Assertion{}, err
	}
	digest := sha256.Sum256([]byte(raw[:len(parts[0])+1+len(parts[1])]))
	if !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return Assertion{}, unverified("wrong signature")
	}
	return v.claims(parts[1])
}

// claims checks what was signed.
func (v *Verifier) claims(part string) (a Assertion, err error) {
	var c struct {
		Issuer       string    `json:"iss"`
		Audience     string    `json:"aud"`
		Subject      string    `json:"sub"`
		Email        string    `json:"email"`
		Roles        *[]string `json:"roles"`
		Organization string    `json:"org"`
		Session      string    `json:"sid"`
		Issued       int64     `json:"iat"`
		Expires      int64     `json:"exp"`
	}
	if _, err := decodePart(part, &c); err != nil {
		return a, unverified("claims: %w", err)
	}
	now := v.o.Now()
	a = Assertion{
		User:      User{ID: c.Subject, Email: c.Email, Roles: []string{}, OrganizationID: c.Organization},
		SessionID: c.Session, Issued: time.Unix(c.Issued, 0), Expires: time.Unix(c.Expires, 0),
	}
	switch {
	case c.Issuer != v.o.Issuer:
		return Assertion{}, unverified("iss is another one")
	case c.Audience != v.o.Audience:
		return Assertion{}, unverified("aud is another service")
	case c.Subject == "" || c.Roles == nil:
		return Assertion{}, unverified("sub or roles are missing")
	case c.Issued <= 0 || c.Expires <= c.Issued || a.Expires.Sub(a.Issued) > maxLife:
		return Assertion{}, unverified("iat and exp make no sense")
	case a.Issued.After(now.Add(v.o.Leeway)):
		return Assertion{}, unverified("signed in the future: set the clocks of gate and service")
	case !now.Before(a.Expires.Add(v.o.Leeway)):
		return Assertion{}, unverified("expired")
	}
	a.User.Roles = append(a.User.Roles, *c.Roles...)
	return a, nil
}

// decodePart decodes a part of a JWT, which must be a JSON object without a member
// twice, into a struct, and returns its members' names. Names are compared exactly,
// which encoding/json does not.
func decodePart(part string, into any) (names []string, err error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil || strings.ContainsAny(part, "\r\n") {
		return nil, errors.New("not base64url")
	}
	if !utf8.Valid(data) || hasLoneSurrogate(string(data)) {
		return nil, errors.New("not UTF-8")
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errors.New("not JSON")
		}
		text, _ := name.(string)
		if slices.ContainsFunc(names, func(other string) bool { return strings.EqualFold(other, text) }) {
			return nil, errors.New("a member is there twice")
		}
		if text != strings.ToLower(text) {
			return nil, errors.New("a member with capitals")
		}
		names = append(names, text)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errors.New("not JSON")
		}
		if string(value) == "null" {
			return nil, errors.New("a member is null")
		}
	}
	if json.Unmarshal(data, into) != nil {
		return nil, errors.New("a member of another type")
	}
	return names, nil
}

// key returns the key of a kid.
func (v *Verifier) key(ctx context.Context, kid string) (*ecdsa.PublicKey, error) {
	if v.o.JWKSURL == "" {
		if key := v.keys[kid]; key != nil {
			return key, nil
		}
		return nil, unverified("signed by a key that is not known")
	}
	for {
		v.mu.Lock()
		now := v.o.Now()
		key, known := v.keys[kid]
		age := now.Sub(v.fetched)
		if known && age >= keepFor {
			key, known = nil, false
		}
		stale := age >= refreshAfter
		// A clock that was set back must not stop all fetching.
		rested := now.Sub(v.tried) >= pause || now.Before(v.tried)
		if (!known || stale) && v.fetching == nil && rested {
			v.tried, v.fetching = now, make(chan struct{})
			go v.fetch(v.fetching) //nolint:gosec,contextcheck // G118: it outlives the request, for all who wait; fetchTimeout bounds it
		}
		fetching, err := v.fetching, v.err
		v.mu.Unlock()
		switch {
		case known:
			return key, nil
		case fetching != nil:
			select {
			case <-fetching:
				// Either it is there now, or the pause keeps from another try.
			case <-ctx.Done():
				return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, ctx.Err())
			}
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, err)
		default:
			return nil, unverified("signed by a key that the gate doesn't publish")
		}
	}
}

// fetch fetches the keys, whoever waits for it or has gone.
func (v *Verifier) fetch(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	keys, err := v.download(ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
	if err == nil {
		v.keys, v.fetched = keys, v.o.Now()
	}
	v.fetching = nil
	close(done)
}

func (v *Verifier) download(ctx context.Context) (map[string]*ecdsa.PublicKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.o.JWKSURL, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the JWKS URL answers %d", resp.StatusCode)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/html" {
		return nil, errors.New("the JWKS URL answers with a page")
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS+1))
	if err != nil {
		return nil, err
	}
	return parseJWKS(data)
}

// parseJWKS takes the keys for ES256 out of a JWK set (RFC 7517); those of other
// algorithms are not ours.
func parseJWKS(data []byte) (map[string]*ecdsa.PublicKey, error) {
	var set struct {
		Keys []struct {
			Type      string `json:"kty"`
			Curve     string `json:"crv"`
			Algorithm string `json:"alg"`
			Use       string `json:"use"`
			KeyID     string `json:"kid"`
			X         string `json:"x"`
			Y         string `json:"y"`
		} `json:"keys"`
	}
	if len(data) > maxJWKS || json.Unmarshal(data, &set) != nil || set.Keys == nil || len(set.Keys) > maxKeys {
		return nil, errors.New("the JWKS URL answers with no JWK set of reasonable size")
	}
	keys := map[string]*ecdsa.PublicKey{}
	for _, k := range set.Keys {
		if k.Type != "EC" || k.Curve != "P-256" || k.Algorithm != "ES256" || k.Use != "sig" || k.KeyID == "" {
			continue
		}
		x, errX := base64.RawURLEncoding.DecodeString(k.X)
		y, errY := base64.RawURLEncoding.DecodeString(k.Y)
		if errX != nil || errY != nil || len(x) != 32 || len(y) != 32 {
			return nil, errors.New("the JWK set has a malformed key")
		}
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
		if err != nil {
			return nil, errors.New("the JWK set has a key that is none")
		}
		if _, again := keys[k.KeyID]; again {
			return nil, errors.New("the JWK set has two keys of one kid")
		}
		keys[k.KeyID] = key
	}
	return keys, nil
}

// same reports whether two are the same user, roles in the same order included.
func (u User) same(other User) bool {
	return u.ID == other.ID && u.Email == other.Email && u.OrganizationID == other.OrganizationID && slices.Equal(u.Roles, other.Roles)
}
