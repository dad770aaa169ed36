package token

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/claim"
)

const (
	// MaxLength is the longest token that is looked at, in bytes.
	MaxLength = 8192
	// DefaultLeeway is how far clocks may differ, unless an issuer's options
	// say otherwise.
	DefaultLeeway = 30 * time.Second
)

// algorithms are all that an issuer may be allowed: the asymmetric ones of
// RFC 7518 section 3.1, and EdDSA of RFC 8037 with Ed25519.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512,
	jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512,
	jose.EdDSA,
}

// forbiddenHeaders would let a token bring its own key (jwk, jku, x5u, x5c),
// change what is signed (b64, RFC 7797), ask for extensions (crit), or be
// something else than a plain JWS (zip, enc).
var forbiddenHeaders = []string{"crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc"}

// IssuerOptions say whose tokens are accepted, and on what terms.
type IssuerOptions struct {
	// Issuer is compared with the iss claim byte by byte.
	Issuer string
	Keys   KeySet
	// Audiences: aud must name one of them. When there are none, aud is not
	// looked at but for its type, which is safe only if the issuer makes
	// tokens for nobody else.
	Audiences []string
	// Algorithms are names of RFC 7518: RS, PS or ES with 256, 384 or 512, and
	// EdDSA. Default: RS256 alone.
	Algorithms []string
	// Types are the values of typ that are accepted, in any case, with or
	// without "application/"; "" accepts a token without one. Default: "",
	// "JWT" and "at+jwt". It is what keeps other JWTs of the issuer, such as
	// logout tokens, from being taken for access tokens.
	Types []string
	// Leeway for exp, nbf, iat and auth_time. Zero means [DefaultLeeway],
	// negative means none.
	Leeway time.Duration
	Claims ClaimNames
	// UserIDPrefix stands before the ids that the issuer gives, so that it
	// can't speak for somebody else's users.
	UserIDPrefix string
	// OwnTokens: sid is the refresh family. Elsewhere it names a session of
	// the issuer's, which is nothing to us.
	OwnTokens bool
}

// VerifierOptions are the zero value in production, but for the cache.
type VerifierOptions struct {
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
	// CacheEntries is how many verified tokens are remembered, so that the
	// next use of one costs no signature verification; 0 remembers none. An
	// entry counts only while its key is still the issuer's and its exp has
	// not passed. The tokens themselves are not kept, only hashes and claims.
	CacheEntries int
}

// Verifier verifies the tokens of several issuers. Safe for concurrent use.
type Verifier struct {
	issuers map[string]*issuer
	now     func() time.Time
	cache   *cache // nil: none
	refused *cache // of tokens with a signature that is wrong; apart, so that a flood of them pushes nothing out
}

var _ authz.CachedTokenVerifier = (*Verifier)(nil)

// issuer is IssuerOptions made ready.
type issuer struct {
	name         string
	keys         KeySet
	audiences    []string
	algorithms   []jose.SignatureAlgorithm
	types        []string
	leeway       time.Duration
	ownTokens    bool
	userID       claim.Path
	userIDPrefix string
	email        claim.Path
	roles        claim.Path
	organization claim.Path
}

// NewVerifier returns a verifier of the tokens of these issuers; with none of
// them it refuses every token. Its error names everything that is wrong.
func NewVerifier(issuers []IssuerOptions, o VerifierOptions) (*Verifier, error) {
	v := &Verifier{
		issuers: make(map[string]*issuer, len(issuers)),
		now:     o.Now,
		cache:   newCache(o.CacheEntries),
		refused: newCache((o.CacheEntries + 9) / 10),
	}
	if v.now == nil {
		v.now = time.Now
	}
	var errs []error
	for _, o := range issuers {
		i, err := newIssuer(o)
		if _, twice := v.issuers[o.Issuer]; twice {
			err = errors.Join(err, errors.New("is listed twice"))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("issuer %q: %w", o.Issuer, err))
		}
		v.issuers[o.Issuer] = i
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return v, nil
}

func newIssuer(o IssuerOptions) (*issuer, error) {
	if o.Claims == (ClaimNames{}) {
		o.Claims = defaultClaims
	}
	i := &issuer{
		name:         o.Issuer,
		keys:         o.Keys,
		audiences:    slices.Clone(o.Audiences),
		leeway:       max(cmp.Or(o.Leeway, DefaultLeeway), 0),
		ownTokens:    o.OwnTokens,
		userID:       claim.NewPath(cmp.Or(o.Claims.UserID, defaultClaims.UserID)),
		userIDPrefix: o.UserIDPrefix,
		email:        claim.NewPath(o.Claims.Email),
		roles:        claim.NewPath(o.Claims.Roles),
		organization: claim.NewPath(o.Claims.Organization),
	}
	var errs []error
	if o.Issuer == "" {
		errs = append(errs, errors.New("has no name; give the iss claim of its tokens"))
	}
	if o.Keys == nil {
		errs = append(errs, errors.New("has no keys"))
	}
	for _, name := range o.Algorithms {
		alg := jose.SignatureAlgorithm(name)
		if !slices.Contains(algorithms, alg) {
			errs = append(errs, fmt.Errorf("algorithm %q is not one of %v", name, algorithms))
		}
		i.algorithms = append(i.algorithms, alg)
	}
	if len(i.algorithms) == 0 {
		i.algorithms = []jose.SignatureAlgorithm{jose.RS256}
	}
	for _, t := range o.Types {
		i.types = append(i.types, mediaType(t))
	}
	if len(i.types) == 0 {
		i.types = []string{"", "jwt", "at+jwt"}
	}
	return i, errors.Join(errs...)
}

// mediaType folds the spellings of a typ or cty (RFC 7515 section 4.1.9).
func mediaType(s string) string {
	return strings.TrimPrefix(strings.ToLower(s), "application/")
}

// Verify implements [authz.TokenVerifier]. It blocks while an issuer's keys
// are fetched, which happens when there are none yet, or none of the token's
// kid; it stops waiting when ctx ends. The result's slices and maps may be
// shared with other calls: they must not be changed.
func (v *Verifier) Verify(ctx context.Context, raw string) (*authz.Token, error) {
	now := v.now()
	e, err := v.entry(ctx, raw, now)
	if err != nil {
		return nil, err
	}
	// That a token has expired is said only of one that is right in all else.
	if err := e.issuer.expired(&e.token, now); err != nil {
		authz.TraceFrom(ctx).Add(authz.StageProof, "exp", time.Time{}, err, "")
		return nil, err
	}
	if trace := authz.TraceFrom(ctx); trace != nil {
		late := ""
		if !now.Before(e.token.Expires) {
			late = fmt.Sprintf(", which has passed, and for %v more doesn't count: clocks differ", e.issuer.leeway)
		}
		trace.Add(authz.StageProof, "exp", time.Time{}, nil, "%s%s", e.token.Expires.UTC().Format(time.RFC3339), late)
	}
	t := e.token
	return &t, nil
}

func (i *issuer) expired(t *authz.Token, now time.Time) error {
	if now.Before(t.Expires.Add(i.leeway)) { // RFC 7519 section 4.1.4: "on or after"
		return nil
	}
	return authz.Refuse(authz.ReasonTokenExpired, "expired at %v", t.Expires)
}

// Remembered implements [authz.CachedTokenVerifier].
func (v *Verifier) Remembered(raw string) (*authz.Token, bool) {
	if len(raw) > MaxLength {
		return nil, false
	}
	e, ok := v.cache.get(raw)
	if !ok || e.refused != nil || !e.holds(remembering) || !v.now().Before(e.token.Expires.Add(e.issuer.leeway)) {
		return nil, false
	}
	return &e.token, true
}

// remembering has ended: nobody waits for keys in it.
var remembering = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// VerifyExpired does as Verify does, but takes a token, too, whose exp has
// passed: to end what it belongs to, never to let anybody in.
func (v *Verifier) VerifyExpired(ctx context.Context, raw string) (*authz.Token, error) {
	e, err := v.entry(ctx, raw, v.now())
	if err != nil {
		return nil, err
	}
	t := e.token
	return &t, nil
}

// entry returns a token that was verified now, or before and still holds; it
// may have expired.
func (v *Verifier) entry(ctx context.Context, raw string, now time.Time) (*entry, error) {
	if len(raw) > MaxLength {
		return nil, invalid("%d bytes long; %d are allowed", len(raw), MaxLength)
	}
	if t := authz.TraceFrom(ctx); t != nil { // who wants to know why is told all of it
		e, err := v.verify(ctx, raw, now)
		if err == nil && e.refused != nil {
			err = e.refused
		}
		return e, err
	}
	if e, ok := v.cache.get(raw); ok && e.holds(ctx) {
		return e, nil
	}
	if e, ok := v.refused.get(raw); ok && e.holds(ctx) {
		return nil, e.refused
	}
	e, err := v.verify(ctx, raw, now)
	switch {
	case err != nil:
		return nil, err
	case e.refused != nil:
		v.refused.put(raw, e)
		return nil, e.refused
	}
	v.cache.put(raw, e)
	return e, nil
}

// verify does everything but look whether the token has expired. Of a token that
// will be refused at any time it returns that, to be remembered: so a flood of one
// costs no more than one that is right.
func (v *Verifier) verify(ctx context.Context, raw string, now time.Time) (*entry, error) {
	t := authz.TraceFrom(ctx)
	u, err := parse(raw)
	if err != nil {
		t.Add(authz.StageProof, "form", time.Time{}, err, "")
		return nil, err
	}
	if t != nil {
		t.Add(authz.StageProof, "form", time.Time{}, nil, "alg %s, kid %s, typ %s", claim.Quote(u.alg), claim.Quote(u.kid), claim.Quote(u.typ))
	}
	i, err := v.issuerOf(u)
	if err != nil {
		t.Add(authz.StageProof, "iss", time.Time{}, err, "")
		return &entry{refused: err}, nil
	}
	if t != nil {
		t.Add(authz.StageProof, "iss", time.Time{}, nil, "%s", i.name)
	}
	began := time.Now()
	key, tried, err := i.authenticate(ctx, raw, u)
	t.Add(authz.StageProof, "signature", began, err, "")
	switch {
	case err != nil && tried != nil:
		return &entry{issuer: i, kid: u.kid, alg: u.alg, refused: err, tried: tried}, nil
	case err != nil:
		return nil, err
	}
	e := &entry{issuer: i, key: key, kid: u.kid, alg: u.alg}
	if e.token, err = i.read(u.claims, now); err != nil {
		err = invalid("%w", err)
		t.Add(authz.StageProof, "claims", time.Time{}, err, "")
		if errors.Is(err, errAhead) {
			return nil, err
		}
		e.token, e.refused = authz.Token{}, err
		return e, nil
	}
	if t != nil {
		t.Add(authz.StageProof, "claims", time.Time{}, nil, "aud %q, iat %s", e.token.Audiences, e.token.IssuedAt.UTC().Format(time.RFC3339))
	}
	return e, nil
}

// unverified is a token taken apart. Nothing in it is true yet.
type unverified struct {
	alg     string
	kid     string // "" when there is none
	typ     string // as mediaType makes it; "" when there is none
	payload []byte
	claims  map[string]any
}

// parse takes a token apart, once, and refuses every form and every header
// that no issuer could make right.
func parse(raw string) (*unverified, error) {
	header, rest, _ := strings.Cut(raw, ".")
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok || signature == "" || strings.Contains(signature, ".") {
		return nil, invalid("not a JWS in compact form: three parts, none of them empty")
	}
	h, err := decodeSegment(header)
	if err != nil {
		return nil, invalid("header: %w", err)
	}
	u := &unverified{}
	if u.payload, err = decodeSegment(payload); err != nil {
		return nil, invalid("payload: %w", err)
	}
	if _, err = decodeSegment(signature); err != nil {
		return nil, invalid("signature: %w", err)
	}
	members, err := decodeObject(h)
	if err != nil {
		return nil, invalid("header: %w", err)
	}
	if err := u.readHeader(members); err != nil {
		return nil, invalid("header: %w", err)
	}
	if u.claims, err = decodeObject(u.payload); err != nil {
		return nil, invalid("payload: %w", err)
	}
	return u, nil
}

// decodeSegment is strict: no padding, no whitespace, no stray bits at the
// end (RFC 4648 section 3.5), so that a token has one spelling only.
func decodeSegment(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") { // which encoding/base64 skips
		return nil, errors.New("a line break in base64url")
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

func (u *unverified) readHeader(h map[string]any) error {
	for _, name := range forbiddenHeaders {
		if _, ok := h[name]; ok {
			return fmt.Errorf("%s is not accepted", name)
		}
	}
	var text [4]string
	for n, name := range [...]string{"alg", "kid", "typ", "cty"} {
		v, present := h[name]
		s, ok := v.(string)
		if present && !ok {
			return fmt.Errorf("%s is not a string", name)
		}
		text[n] = s
	}
	u.alg, u.kid, u.typ = text[0], text[1], mediaType(text[2])
	if _, present := h["typ"]; present && u.typ == "" {
		return errors.New("typ is empty")
	}
	if mediaType(text[3]) == "jwt" {
		return errors.New("a nested token (cty) is not accepted")
	}
	return nil
}

func (v *Verifier) issuerOf(u *unverified) (*issuer, error) {
	name, ok := u.claims["iss"].(string)
	if !ok {
		return nil, invalid("claim iss is missing or not a string")
	}
	i, ok := v.issuers[name]
	if !ok {
		return nil, invalid("issuer %s is not known", claim.Quote(name))
	}
	return i, nil
}

// authenticate checks what the header promises against the issuer's terms,
// then the signature, and returns the key that made it; where none did, tried are
// those that were asked.
func (i *issuer) authenticate(ctx context.Context, raw string, u *unverified) (key *Key, tried []*Key, err error) {
	if !slices.Contains(i.algorithms, jose.SignatureAlgorithm(u.alg)) {
		return nil, nil, invalid("alg %s is not one of %v, which are accepted of this issuer", claim.Quote(u.alg), i.algorithms)
	}
	if !slices.Contains(i.types, u.typ) {
		return nil, nil, invalid("typ %s is not accepted of this issuer", claim.Quote(u.typ))
	}
	keys, err := i.keys.Keys(ctx, u.kid, u.alg)
	switch {
	case err != nil:
		return nil, nil, authz.Refuse(authz.ReasonIssuerUnavailable, "keys of issuer %q: %w", i.name, err)
	case len(keys) == 0:
		return nil, nil, invalid("the issuer has no key for kid %s and alg %s", claim.Quote(u.kid), u.alg)
	case u.kid == "" && len(keys) > 1:
		return nil, nil, invalid("no kid, and the issuer has %d keys for alg %s", len(keys), u.alg)
	}
	if key, err = verifySignature(raw, u, keys); err != nil {
		return nil, keys, err
	}
	return key, nil, nil
}

func verifySignature(raw string, u *unverified, keys []*Key) (*Key, error) {
	alg := jose.SignatureAlgorithm(u.alg)
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{alg})
	if err != nil {
		return nil, invalid("not a JWS: %s", claim.Quote(err.Error()))
	}
	for _, k := range keys {
		if !k.fits(alg) { // a KeySet of somebody else's may be careless
			continue
		}
		if signed, err := jws.Verify(k.public); err == nil && bytes.Equal(signed, u.payload) {
			return k, nil
		}
	}
	return nil, invalid("the signature does not verify")
}

func invalid(format string, args ...any) error {
	return authz.Refuse(authz.ReasonTokenInvalid, format, args...)
}
