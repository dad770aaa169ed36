package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/authztest"
	"github.com/gatehouse-auth/gatehouse/authz/oidc"
)

var _ authapi.Provider = (*oidc.Provider)(nil)

const (
	clientID     = "web"
	clientSecret = "client secret: +/%&"
	redirectURL  = "https://gateway.example.com/auth/oidc/corp/callback"
	sealingKey   = "session-secret-0123456789"
)

// The keys of tests, each made when it is first needed.
var (
	rsaKey      = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSAKey = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey       = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	edKey       = sync.OnceValue(func() crypto.Signer {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	})
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// object is a JSON object. In changes of one, nil removes a member.
type object map[string]any

func (o object) with(changes object) object {
	o = maps.Clone(o)
	for name, value := range changes {
		if value == nil {
			delete(o, name)
		} else {
			o[name] = value
		}
	}
	return o
}

// key is a key that an issuer signs with.
type key struct {
	private crypto.Signer
	alg     string
	kid     string
}

func (k key) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.private.Public(), KeyID: k.kid, Algorithm: k.alg, Use: "sig"}
}

// sign makes a JWT. Members of header take the place of those that stand there
// anyway.
func (k key) sign(header, claims object) string {
	o := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{}}
	for name, value := range header {
		o.ExtraHeaders[jose.HeaderKey(name)] = value
	}
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.alg), Key: jose.JSONWebKey{Key: k.private, KeyID: k.kid}}, o))
	return must(must(signer.Sign(must(json.Marshal(claims)))).CompactSerialize())
}

// issuer is a provider made by hand, which a test can make do wrong.
type issuer struct {
	*httptest.Server
	clock *authztest.Clock

	mu        sync.Mutex
	signs     key
	published []key
	discovery object // changes of the discovery document
	header    object // changes of the ID token
	claims    object
	userInfo  object // nil: as ID token
	tokens    object // changes of the token response
	rawToken  string // instead of the ID token
	codes     map[string]url.Values
	requests  map[string]int                                           // by path
	before    func(w http.ResponseWriter, r *http.Request) (done bool) // every answer
	secrets   []string                                                 // all that no error may show
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	first := key{rsaKey(), "RS256", "r1"}
	i := &issuer{
		clock: authztest.NewClock(), signs: first, published: []key{first},
		codes: map[string]url.Values{}, requests: map[string]int{}, secrets: []string{clientSecret, url.QueryEscape(clientSecret), sealingKey},
	}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

// change changes what the issuer does.
func (i *issuer) change(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
}

// count returns how often a path was asked for.
func (i *issuer) count(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requests[path]
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.requests[r.URL.Path]++
	before := i.before
	i.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		i.reply(w, object{
			"issuer": i.URL, "authorization_endpoint": i.URL + "/authorize?tenant=1", "token_endpoint": i.URL + "/token",
			"userinfo_endpoint": i.URL + "/userinfo", "jwks_uri": i.URL + "/jwks",
			"id_token_signing_alg_values_supported": []string{"RS256", "ES256", "EdDSA", "HS256", "none"},
		}.with(i.discovery))
	case "/jwks":
		var set jose.JSONWebKeySet
		for _, k := range i.published {
			set.Keys = append(set.Keys, k.public())
		}
		_ = json.NewEncoder(w).Encode(set)
	case "/token":
		i.token(w, r)
	case "/userinfo":
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer access-") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		i.reply(w, object{"sub": "alice"}.with(i.userInfo))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (i *issuer) reply(w http.ResponseWriter, o object) { _ = json.NewEncoder(w).Encode(o) }

// token is the token endpoint: it takes a code once, from the client and the
// verifier that it was made for.
func (i *issuer) token(w http.ResponseWriter, r *http.Request) {
	fail := func(code string) {
		w.WriteHeader(http.StatusBadRequest)
		i.reply(w, object{"error": code, "error_description": "no: " + r.FormValue("code") + clientSecret})
	}
	name, secret, basic := r.BasicAuth()
	if !basic {
		name, secret = url.QueryEscape(r.FormValue("client_id")), url.QueryEscape(r.FormValue("client_secret"))
	}
	i.secrets = append(i.secrets, r.FormValue("code_verifier"))
	request, known := i.codes[r.FormValue("code")]
	delete(i.codes, r.FormValue("code"))
	sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	switch {
	case name != clientID || secret != url.QueryEscape(clientSecret):
		fail("invalid_client")
		return
	case r.FormValue("grant_type") != "authorization_code" || r.FormValue("redirect_uri") != redirectURL:
		fail("invalid_request")
		return
	case !known || b64(sum[:]) != request.Get("code_challenge"):
		fail("invalid_grant")
		return
	}
	access := "access-" + b64([]byte(request.Get("nonce")))
	raw := i.rawToken
	if raw == "" {
		raw = i.signs.sign(i.header, i.idToken(request.Get("nonce")))
	}
	i.secrets = append(i.secrets, access, raw)
	i.reply(w, object{"access_token": access, "token_type": "Bearer", "expires_in": 60, "id_token": raw}.with(i.tokens))
}

// idToken are the claims of an ID token.
func (i *issuer) idToken(nonce string) object {
	now := i.clock.Now()
	return object{
		"iss": i.URL, "sub": "alice", "aud": clientID, "nonce": nonce, "sid": "session-1",
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "auth_time": now.Add(-time.Hour).Unix(),
		"email": "alice@example.com", "email_verified": true, "roles": []string{"admin", "member"},
		"org_id": "org-1", "organizations": []string{"org-1", "org-2"},
	}.with(i.claims)
}

// provider returns our side of the issuer.
func (i *issuer) provider(t *testing.T, changes ...func(*oidc.Options)) *oidc.Provider {
	t.Helper()
	o := oidc.Options{
		Name: "corp", Issuer: i.URL, ClientID: clientID, ClientSecret: clientSecret, RedirectURL: redirectURL,
		SealingKeys: [][]byte{[]byte(sealingKey)}, Now: i.clock.Now,
	}
	for _, change := range changes {
		change(&o)
	}
	p, err := oidc.New(o)
	require.NoError(t, err)
	return p
}

// login is a login that has begun.
type login struct {
	location *url.URL
	flow     string
	sealed   string
}

func begin(t *testing.T, p *oidc.Provider, returnTo string) login {
	t.Helper()
	location, flow, sealed, err := p.Begin(t.Context(), returnTo)
	require.NoError(t, err)
	return login{must(url.Parse(location)), flow, sealed}
}

// authorize is what the user does at the provider. It returns the callback.
func (i *issuer) authorize(l login) url.Values {
	request := l.location.Query()
	code := "code-" + rand.Text()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.codes[code] = request
	i.secrets = append(i.secrets, code, l.sealed)
	return url.Values{"code": {code}, "state": {request.Get("state")}}
}

// finish logs in from beginning to end.
func (i *issuer) finish(t *testing.T, p *oidc.Provider) (authz.Login, error) {
	t.Helper()
	l := begin(t, p, "/")
	found, _, err := p.Finish(t.Context(), i.authorize(l), l.sealed)
	return found, err
}

// requireRefused requires a refusal with this reason, whose message says so and
// shows no secret.
func (i *issuer) requireRefused(t *testing.T, reason authz.Reason, message string, err error) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, reason, authz.ReasonOf(err), err.Error())
	require.ErrorContains(t, err, message)
	require.Less(t, len(err.Error()), 500, "unbounded message")
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, secret := range i.secrets {
		if secret != "" {
			require.NotContains(t, err.Error(), secret)
		}
	}
}
