package e2e

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Everything here is written after the documents that say how it must look
// (express-session's sources, RFC 7515 to 7519), not after Gatehouse's code.

// The secrets of the session cookie: the one that signs, and the one before.
var (
	secretCurrent  = journal.secret("the session secret", rand.Text()+rand.Text())
	secretPrevious = journal.secret("the previous session secret", rand.Text()+rand.Text())
)

// signed returns a session id as express-session puts it into the cookie.
func signed(id, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(id))
	signature := base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
	journal.secret("a cookie's signature", signature)
	journal.secret("a cookie's signature", url.QueryEscape(signature))
	journal.secret("a session id", id)
	return "s%3A" + id + "." + strings.NewReplacer("+", "%2B", "/", "%2F").Replace(signature)
}

func cookie(value string) string { return "Cookie: sessionId=" + value }

func newSessionID() string { return "e2e" + rand.Text() + "AAA" }

// alice and bob are the users of most tests.
var (
	alice = identity{"alice", "alice@example.com", `["admin","member"]`, "org-1"}
	bob   = identity{"bob", "bob@example.com", `["member"]`, "org-1"}
)

// record is a session record as express-session writes it.
func (i identity) record() map[string]any {
	return map[string]any{
		"cookie": map[string]any{
			"originalMaxAge": 86400000, "expires": time.Now().Add(24 * time.Hour).UTC().Format("2006-01-02T15:04:05.000Z"),
			"secure": true, "httpOnly": true, "path": "/", "sameSite": "strict",
		},
		"userId": i.id, "email": i.email, "roles": json.RawMessage(i.roles), "organizationId": i.org,
		"authTime": time.Now().Unix(),
	}
}

// session writes a record and returns the session's id.
func (s *stack) session(t *testing.T, record map[string]any) (id string) {
	t.Helper()
	id = newSessionID()
	require.NoError(t, s.store.Set(t.Context(), "sess:"+id, mustJSON(t, record), 24*time.Hour).Err())
	return id
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}

// login makes a session and returns the value of its cookie.
func (s *stack) login(t *testing.T, user identity) string {
	t.Helper()
	return signed(s.session(t, user.record()), secretCurrent)
}

// The API keys of the base configuration, by what is the matter with them.
var apiKeys = struct{ billing, billingNew, expired, elsewhere, backend, backendOld string }{
	journal.secret("an API key", rand.Text()), journal.secret("an API key", rand.Text()),
	journal.secret("an API key", rand.Text()), journal.secret("an API key", rand.Text()),
	journal.secret("an API key", rand.Text()), journal.secret("an API key", rand.Text()),
}

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func apiKeysYAML() string {
	return fmt.Sprintf(`
- {name: billing, sha256: %q, policies: [internal, any]}
- {name: billing, sha256: %q, policies: [internal, any]}
- {name: old, sha256: %q, policies: [internal, any], expires: 2020-01-01}
- {name: elsewhere, sha256: %q, policies: [any]}
- {name: backend, sha256: %q, auth_api: true}
- {name: backend, sha256: %q, auth_api: true, expires: 2020-01-01}
`, sha256Hex(apiKeys.billing), sha256Hex(apiKeys.billingNew), sha256Hex(apiKeys.expired), sha256Hex(apiKeys.elsewhere),
		sha256Hex(apiKeys.backend), sha256Hex(apiKeys.backendOld))
}

func apiKey(key string) string { return "x-internal-api-key: " + key }

// The issuers of the base configuration: Gatehouse itself, one with a PEM
// file, one with a JWKS URL, one that can't be reached. The one with discovery
// has an URL that is known at run time only.
const (
	ownIssuer  = "https://gateway.example.com"
	pemIssuer  = "https://pem.idp.example.com"
	jwksIssuer = "https://jwks.idp.example.com"
	deadIssuer = "https://dead.idp.example.com"
)

// keyPair is an RSA key with a name.
type keyPair struct {
	kid string
	*rsa.PrivateKey
}

func newKeyPair(kid string) keyPair {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return keyPair{kid, key}
}

// keys are made once: making one takes a good part of a second.
var keys = struct{ own, pem, jwks, next func() keyPair }{
	sync.OnceValue(func() keyPair { return newKeyPair("") }),
	sync.OnceValue(func() keyPair { return newKeyPair("") }),
	sync.OnceValue(func() keyPair { return newKeyPair("jwks-1") }),
	sync.OnceValue(func() keyPair { return newKeyPair("jwks-2") }),
}

func (k keyPair) private() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k.PrivateKey)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (k keyPair) public() []byte {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func (k keyPair) jwk() map[string]any {
	return map[string]any{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": k.kid,
		"n": base64.RawURLEncoding.EncodeToString(k.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.E)).Bytes()),
	}
}

// rs256 signs.
func (k keyPair) rs256(input string) []byte {
	sum := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(rand.Reader, k.PrivateKey, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return signature
}

// object is a JSON object.
type object = map[string]any

// with returns a copy with members set, or, for nil, taken out.
func with(o, changes object) object {
	all := object{}
	for _, m := range []object{o, changes} {
		for k, v := range m {
			all[k] = v
			if v == nil {
				delete(all, k)
			}
		}
	}
	return all
}

// segment is a part of a token: JSON, or a text that stands for itself.
func segment(v any) string {
	text, isText := v.(string)
	if !isText {
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(v); err != nil {
			panic(err)
		}
		text = strings.TrimSpace(b.String())
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// token puts a token together from header and claims, each an object or the
// very text, and whatever signs.
func token(header, claims any, sign func(input string) []byte) string {
	input := segment(header) + "." + segment(claims)
	signature := base64.RawURLEncoding.EncodeToString(sign(input))
	journal.secret("a token's signature", signature)
	return journal.secret("a token", input+"."+signature)
}

// claimsOf returns the claims of an ordinary access token of a user.
func claimsOf(issuer string, user identity) object {
	now := time.Now().Unix()
	claims := object{
		"iss": issuer, "sub": user.id, "aud": "api", "iat": now, "exp": now + 300, "jti": rand.Text(),
		"email": user.email, "org_id": user.org, "roles": json.RawMessage(user.roles),
	}
	if issuer == pemIssuer {
		claims["realm_access"] = object{"roles": claims["roles"]}
		delete(claims, "roles")
	}
	return claims
}

// issue returns an access token of this key's owner.
func (k keyPair) issue(claims object) string {
	header := object{"alg": "RS256", "typ": "at+jwt"}
	if k.kid != "" {
		header["kid"] = k.kid
	}
	return token(header, claims, k.rs256)
}

func bearer(token string) string { return "Authorization: Bearer " + token }

// idp publishes keys over HTTP, as an issuer does.
type idp struct {
	server  *httptest.Server
	fetches atomic.Int64 // of the key set

	mu   sync.Mutex
	keys []keyPair
}

func newIDP() *idp {
	i := &idp{keys: []keyPair{keys.jwks()}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		i.fetches.Add(1)
		i.mu.Lock()
		defer i.mu.Unlock()
		set := []object{}
		for _, k := range i.keys {
			set = append(set, k.jwk())
		}
		_ = json.NewEncoder(w).Encode(object{"keys": set})
	})
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(object{"issuer": i.url(), "jwks_uri": i.url() + "/jwks"})
	})
	i.server = httptest.NewServer(mux)
	return i
}

// publishes replaces the key set.
func (i *idp) publishes(keys ...keyPair) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

func (i *idp) url() string { return i.server.URL }

func (i *idp) stop() error {
	i.server.Close()
	return nil
}

// commands returns how often Redis ran each command, but for those that keep a
// connection or the tests themselves going, and EXISTS, by which each replica looks every
// 15 s whether somebody follows the feed.
func (s *stack) commands(ctx context.Context) (map[string]int, error) {
	text, err := s.store.Info(ctx, "commandstats").Result()
	if err != nil {
		return nil, err
	}
	ignored := []string{"ping", "info", "client", "hello", "command", "subscribe", "psubscribe", "auth", "select", "config", "exists"}
	counts := map[string]int{}
	for line := range strings.Lines(text) {
		rest, isCommand := strings.CutPrefix(strings.TrimSpace(line), "cmdstat_")
		name, stats, found := strings.Cut(rest, ":calls=")
		if !isCommand || !found {
			continue
		}
		family, _, _ := strings.Cut(name, "|")
		if slices.Contains(ignored, family) {
			continue
		}
		var n int
		if _, err := fmt.Sscanf(stats, "%d", &n); err != nil {
			return nil, errors.Join(err, errors.New(line))
		}
		counts[name] = n
	}
	return counts, nil
}
