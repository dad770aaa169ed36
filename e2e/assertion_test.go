package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	signing "github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// saveKey writes a new key for assertions, in one step.
func saveKey(t *testing.T, path string) {
	t.Helper()
	text, err := signing.GenerateKey(signing.AssertionAlgorithm)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path+".new", text, 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// verifyingService is a service that believes nothing but what the gate signed for it.
type verifyingService struct {
	*httptest.Server
	mu   sync.Mutex
	last http.Header // of the last request, verified or not
	why  error       // of the last refusal
}

// newVerifyingService starts a service that takes assertions for orders, by the keys that the
// gateway publishes, for which it asks with its first request.
func newVerifyingService(t *testing.T, jwks func() string) *verifyingService {
	t.Helper()
	s := &verifyingService{}
	var once sync.Once
	var reader *usercontext.Reader
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, _ := usercontext.AssertionFromContext(r.Context())
		_ = json.NewEncoder(w).Encode(object{"user": a.User, "sid": a.SessionID})
	})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() {
			v, err := usercontext.NewVerifier(usercontext.VerifierOptions{Issuer: ownIssuer, Audience: "orders", JWKSURL: jwks()})
			if err == nil {
				reader, err = usercontext.NewReader(usercontext.Options{Verifier: v, OnRefusal: func(_ context.Context, err error) {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.why = err
				}})
			}
			if err != nil {
				panic(err)
			}
		})
		s.mu.Lock()
		s.last, s.why = r.Header.Clone(), nil
		s.mu.Unlock()
		reader.Optional(handler).ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *verifyingService) seen() (http.Header, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.why
}

// around is a request that reaches the service without the gateway.
func (s *verifyingService) around(t *testing.T, header http.Header) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/p/signed", http.NoBody)
	require.NoError(t, err)
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// TestSignedIdentity: behind a real Envoy a service verifies who calls, whatever a client
// sends; reached around it, it refuses; and the keys are rotated under way.
func TestSignedIdentity(t *testing.T) {
	dir := t.TempDir()
	current, previous := filepath.Join(dir, "current.pem"), filepath.Join(dir, "previous.pem")
	saveKey(t, current)
	saveKey(t, previous)
	s := start(t, options{config: fmt.Sprintf(`
identity: {assertion: {issuer: %q, signing_keys: [{file: %q}, {file: %q}]}}
policies:
  signed: {credentials: [session, bearer], anonymous: true, assertion: {audience: orders}}
  by-route: {credentials: [session], assertion: {from_route: true}}
`, ownIssuer, current, previous)})
	var g *gateway
	service := newVerifyingService(t, func() string { return "http://" + g.addr + "/.well-known/jwks.json" })
	route := func(path, extensions string) string {
		return fmt.Sprintf(`
- match: {path_separated_prefix: %s}
  route: {cluster: user_service, timeout: 15s}
  typed_per_filter_config:
    envoy.filters.http.ext_authz:
      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
      check_settings: {context_extensions: {%s}}
`, path, extensions)
	}
	g = s.gateway(t, endpoints("user_service", service.Listener.Addr().String()), routesFirst(
		route("/p/signed", "policy: signed")+route("/p/route", "policy: by-route, assertion_audience: orders")+
			route("/p/elsewhere", "policy: by-route, assertion_audience: billing")+route("/p/nowhere", "policy: by-route")))
	session := cookie(g.login(t, bob))
	isBob := object{"userId": "bob", "email": "bob@example.com", "roles": []any{"member"}, "organizationId": "org-1"}
	ask := func(path string, headers ...string) (status int, body object) {
		r := g.get(t, path, headers...)
		body = object{}
		_ = json.Unmarshal([]byte(r.body), &body)
		return r.status, body
	}

	_, sessions := ask("/auth/sessions", session)
	handle := sessions["sessions"].([]any)[0].(object)["handle"]
	for _, path := range []string{"/p/signed", "/p/route"} {
		status, body := ask(path, session, "x-identity-assertion: root", "X-Identity-Assertion: root")
		_, why := service.seen()
		require.NoError(t, why)
		require.Equal(t, 200, status)
		require.Equal(t, isBob, body["user"])
		require.Equal(t, handle, body["sid"], "as the auth API lists the session")
	}
	passed, _ := service.seen()
	require.Len(t, passed.Values(authz.HeaderAssertion), 1)

	// A client who has seen one gets nowhere with it: not past the gate, nor as another
	// user, nor for another service.
	requireBadToken(t, g.get(t, "/p/bearer", bearer(passed.Get(authz.HeaderAssertion))))
	status, body := ask("/p/signed", "x-identity-assertion: "+passed.Get(authz.HeaderAssertion), "x-user-id: bob", `x-user-roles: ["member"]`)
	require.Equal(t, 200, status, "as nobody")
	require.Empty(t, body["user"].(object)["userId"])
	status, _ = ask("/p/elsewhere", session)
	require.Equal(t, 403, status)
	_, why := service.seen()
	require.ErrorIs(t, why, usercontext.ErrUnverified)
	requireDenied(t, g.get(t, "/p/nowhere", session), 403, forbidden)

	// Around the gateway.
	plain := http.Header{}
	for _, name := range []string{"x-user-id", "x-user-email", "x-user-roles", "x-org-id"} {
		plain.Set(name, passed.Get(name))
	}
	require.Equal(t, 403, service.around(t, plain), "no signature")
	signed := plain.Clone()
	signed.Set(authz.HeaderAssertion, passed.Get(authz.HeaderAssertion))
	require.Equal(t, 200, service.around(t, signed), "the whole of it is what the gate said")
	for name, value := range map[string]string{"x-user-id": "alice", "x-user-roles": `["admin"]`, "x-org-id": "org-2", authz.HeaderAssertion: passed.Get(authz.HeaderAssertion) + "x"} {
		changed := signed.Clone()
		changed.Set(name, value)
		require.Equal(t, 403, service.around(t, changed), name)
	}

	// Rotation: what is new signs, what was signed before is still taken.
	old, err := os.ReadFile(current)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(previous+".new", old, 0o600))
	require.NoError(t, os.Rename(previous+".new", previous))
	saveKey(t, current)
	fresh, err := signing.LoadSigningKey(current, "")
	require.NoError(t, err)
	eventually(t, 200, func() reply {
		if r := g.get(t, "/.well-known/jwks.json"); !jsonHolds(r.body, fresh.ID()) {
			return reply{}
		}
		return g.get(t, "/p/signed", session)
	})
	require.Equal(t, 200, service.around(t, signed))
}

// jsonHolds reports whether a JWK set has a key.
func jsonHolds(text, kid string) bool {
	var set struct {
		Keys []struct{ Kid string }
	}
	if json.Unmarshal([]byte(text), &set) != nil {
		return false
	}
	for _, k := range set.Keys {
		if k.Kid == kid {
			return true
		}
	}
	return false
}
