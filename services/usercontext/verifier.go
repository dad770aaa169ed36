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
	// Client fetches the keys; nil is that of net/http. Redirects are not followed, but
	// where it has a CheckRedirect that does.
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
	v := &Verifier{o: o}
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
	client := http.Client{}
	if o.Client != nil {
		client = *o.Client
	}
	if client.CheckRedirect == nil {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	v.client = &client
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
	header, err := decodePart(parts[0])
	if err != nil {
		return Assertion{}, unverified("header: %w", err)
	}
	var algorithm, typ, kid string
	err = errors.Join(header.take("alg", &algorithm), header.take("typ", &typ), header.take("kid", &kid))
	switch {
	case err != nil:
		return Assertion{}, unverified("header: %w", err)
	case algorithm != "ES256":
		return Assertion{}, unverified("alg is not ES256")
	case typ != assertionType:
		return Assertion{}, unverified("typ is not %s", assertionType)
	case kid == "":
		return Assertion{}, unverified("no kid")
	case len(header) != 3: // crit, jwk, jku and the like
		return Assertion{}, unverified("header: more than alg, typ and kid")
	}
	signature, err := decodeBase64URL(parts[2])
	if err != nil || len(signature) != 64 {
		return Assertion{}, unverified("not a signature of ES256")
	}
	key, err := v.key(ctx, kid)
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
func (v *Verifier) claims(part string) (Assertion, error) {
	c, err := decodePart(part)
	if err != nil {
		return Assertion{}, unverified("claims: %w", err)
	}
	var (
		a               = Assertion{User: User{Roles: []string{}}}
		issuer, service string
		roles           []*string
		issued, expires int64
	)
	err = errors.Join(
		c.take("iss", &issuer), c.take("aud", &service), c.take("sub", &a.User.ID), c.take("email", &a.User.Email),
		c.take("roles", &roles), c.take("org", &a.User.OrganizationID), c.take("sid", &a.SessionID),
		c.take("iat", &issued), c.take("exp", &expires),
	)
	now := v.o.Now()
	a.Issued, a.Expires = time.Unix(issued, 0), time.Unix(expires, 0)
	switch {
	case err != nil:
		return Assertion{}, unverified("claims: %w", err)
	case issuer != v.o.Issuer:
		return Assertion{}, unverified("iss is not %q: make Issuer what the gate has as identity.assertion.issuer", v.o.Issuer)
	case service != v.o.Audience:
		return Assertion{}, unverified("aud is not %q: make Audience what the gate's policy or route has as audience; or it was meant for another service", v.o.Audience)
	case a.User.ID == "" || roles == nil || slices.Contains(roles, nil):
		return Assertion{}, unverified("sub or roles are missing")
	case issued <= 0 || expires <= issued || expires-issued > int64(maxLife/time.Second):
		return Assertion{}, unverified("iat and exp make no sense")
	case a.Issued.After(now.Add(v.o.Leeway)):
		return Assertion{}, unverified("signed in the future: set the clocks of gate and service")
	case !now.Before(a.Expires.Add(v.o.Leeway)):
		return Assertion{}, unverified("expired")
	}
	for _, role := range roles {
		a.User.Roles = append(a.User.Roles, *role)
	}
	return a, nil
}

// members are those of a part of a JWT, by their exact names, which encoding/json takes
// for the same where only their case differs.
type members map[string]json.RawMessage

// take decodes a member, if it is there.
func (m members) take(name string, into any) error {
	if raw, there := m[name]; there && json.Unmarshal(raw, into) != nil {
		return fmt.Errorf("%s is of another type", name)
	}
	return nil
}

// decodeBase64URL decodes the one form that bytes have, without padding. Newlines are none
// of it, which encoding/base64 passes over.
func decodeBase64URL(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("not base64url")
	}
	return base64.RawURLEncoding.Strict().DecodeString(text)
}

// decodePart decodes a part of a JWT, which must be a JSON object without a member
// twice.
func decodePart(part string) (members, error) {
	data, err := decodeBase64URL(part)
	if err != nil {
		return nil, errors.New("not base64url")
	}
	if !utf8.Valid(data) || hasLoneSurrogate(string(data)) {
		return nil, errors.New("not UTF-8")
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	found := members{}
	for d.More() {
		token, err := d.Token()
		name, named := token.(string)
		var value json.RawMessage
		if err != nil || !named || d.Decode(&value) != nil {
			return nil, errors.New("not JSON")
		}
		if _, again := found[name]; again {
			return nil, errors.New("a member is there twice")
		}
		if string(value) == "null" {
			return nil, errors.New("a member is null")
		}
		found[name] = value
	}
	if !json.Valid(data) { // its end, and what is behind that
		return nil, errors.New("not JSON")
	}
	return found, nil
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
		// A clock that was set back must not stop all fetching.
		stale := age >= refreshAfter || age < 0
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
	// Names are compared exactly, and members that are not ours may be of any type.
	var set map[string]json.RawMessage
	var all []map[string]any
	if len(data) > maxJWKS || !utf8.Valid(data) || json.Unmarshal(data, &set) != nil ||
		json.Unmarshal(set["keys"], &all) != nil || all == nil || len(all) > maxKeys {
		return nil, errors.New("the JWKS URL answers with no JWK set of reasonable size")
	}
	keys := map[string]*ecdsa.PublicKey{}
	for _, k := range all {
		if k == nil {
			return nil, errors.New("the JWK set has a key that is none")
		}
		kid, _ := k["kid"].(string)
		if k["kty"] != "EC" || k["crv"] != "P-256" || k["alg"] != "ES256" || k["use"] != "sig" || kid == "" {
			continue
		}
		point := []byte{4}
		for _, name := range [...]string{"x", "y"} {
			text, _ := k[name].(string)
			coordinate, err := decodeBase64URL(text)
			if err != nil || len(coordinate) != 32 {
				return nil, errors.New("the JWK set has a malformed key")
			}
			point = append(point, coordinate...)
		}
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		if err != nil {
			return nil, errors.New("the JWK set has a key that is none")
		}
		if _, again := keys[kid]; again {
			return nil, errors.New("the JWK set has two keys of one kid")
		}
		keys[kid] = key
	}
	return keys, nil
}

// same reports whether two are the same user, roles in the same order included.
func (u User) same(other User) bool {
	return u.ID == other.ID && u.Email == other.Email && u.OrganizationID == other.OrganizationID && slices.Equal(u.Roles, other.Roles)
}
