package chaos

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// baseConfig is what every Gatehouse here starts from.
const baseConfig = `
server: {http: {public_url: "https://gateway.example.com"}, drain: 0s}
redis: {timeout: 400ms}
log: {level: error, format: json}
tokens: {audiences: [api], signing_keys: [{file: signing.pem}]}
policies:
  user: {credentials: [session, bearer]}
  strict: {credentials: [session, bearer], freshness: strict}
default_policy: user
`

// patientConfig is that of a Gatehouse to which a Redis that stands still for a moment is no
// outage.
const patientConfig = `redis: {timeout: 5s}`

// The key of internal callers, and whose tokens are accepted beside Gatehouse's
// own.
const (
	internalKey = "chaos-internal-key-of-the-tests"
	issuer      = "https://issuer.example.com"
)

// secrets are what a group of replicas shares.
type secrets struct {
	dir    string
	cookie string
	key    *ecdsa.PrivateKey // of issuer, and of our own tokens
}

func newSecrets(t *testing.T) secrets {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	s := secrets{t.TempDir(), rand.Text() + rand.Text(), key}
	for name, block := range map[string]*pem.Block{
		"signing.pem": {Type: "PRIVATE KEY", Bytes: private},
		"issuer.pem":  {Type: "PUBLIC KEY", Bytes: public},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), pem.EncodeToMemory(block), 0o600))
	}
	return s
}

// gate is a running Gatehouse.
type gate struct {
	*proc.Process
	secrets

	check, http, ops string // addresses
	file             string // of the configuration
	conn             *grpc.ClientConn
}

// startGate runs a Gatehouse for the store at a URL until the test ends, with these
// YAML texts over baseConfig, and waits until it is ready.
func startGate(t *testing.T, s secrets, redisURL string, config ...string) *gate {
	t.Helper()
	ports := proctest.FreePorts(t, 3)
	g := &gate{secrets: s, check: proc.Local(ports[0]), http: proc.Local(ports[1]), ops: proc.Local(ports[2])}
	sum := sha256.Sum256([]byte(internalKey))
	own := fmt.Sprintf(`
server: {check: {listen: %q}, http: {listen: %q}, ops: {listen: %q}}
redis: {url: %q}
sessions: {secrets: [%q]}
issuers: [{issuer: %q, public_key_file: issuer.pem, audiences: [api], algorithms: [ES256]}]
api_keys: [{name: chaos, sha256: %q, auth_api: true}]
`, g.check, g.http, g.ops, redisURL, s.cookie, issuer, hex.EncodeToString(sum[:]))
	text, err := proc.MergeYAML(append([]string{baseConfig, own}, config...)...)
	require.NoError(t, err)
	g.file = filepath.Join(s.dir, fmt.Sprintf("gatehouse-%d.yaml", ports[2]))
	require.NoError(t, os.WriteFile(g.file, text, 0o600))
	g.launch(t)
	g.conn = g.connect(t)
	return g
}

// connect makes a connection to the check listener, which lasts until the test ends.
func (g *gate) connect(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+g.check, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// again is the same Gatehouse by another connection.
func (g *gate) again(t *testing.T) *gate {
	t.Helper()
	other := *g
	other.conn = g.connect(t)
	return &other
}

// launch runs the process, for the first time or again, and waits until it is ready.
func (g *gate) launch(t *testing.T) {
	t.Helper()
	binary, err := gatehouseBinary()
	require.NoError(t, err)
	g.Process = proctest.Start(t, binary, []string{"serve", g.file}, proc.Options{Grace: patience})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, g.Ready(ctx, proc.HTTP("http://"+g.ops+"/readyz")))
}

// ask makes a check at the check listener.
func (g *gate) ask(ctx context.Context, c *credential) answer {
	reply, err := authv3.NewAuthorizationClient(g.conn).Check(ctx, c.request())
	if err != nil {
		return answer{err: err}
	}
	if denied := reply.GetDeniedResponse(); denied != nil {
		return answer{status: int(denied.GetStatus().GetCode())}
	}
	a := answer{status: http.StatusOK}
	for _, o := range reply.GetOkResponse().GetHeaders() {
		if o.GetHeader().GetKey() == "x-user-id" {
			a.user = o.GetHeader().GetValue()
		}
	}
	return a
}

// request is what Envoy asks about a request with the credential.
func (c *credential) request() *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.1"},
		}}},
		ContextExtensions: map[string]string{"policy": c.policy},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: http.MethodGet, Path: "/", Host: "gateway.example.com", Scheme: "https", Headers: c.headers,
		}},
	}}
}

// call calls the auth API as an internal caller, unless headers say otherwise, and
// decodes the answer into reply, which may be nil.
func (g *gate) call(ctx context.Context, method, path string, body, reply any, headers map[string]string) (status int, err error) {
	status, text, err := g.send(ctx, method, path, body, headers)
	if err == nil && reply != nil && status < 300 {
		err = json.Unmarshal(text, reply)
	}
	return status, err
}

// send calls the auth API as call does, and returns the answer as it is.
func (g *gate) send(ctx context.Context, method, path string, body any, headers map[string]string) (status int, answer []byte, err error) {
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return 0, nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+g.http+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if headers == nil {
		headers = map[string]string{"x-internal-api-key": internalKey}
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// session begins a session, as soon as that can be done.
func (g *gate) session(t *testing.T, user string) (c *credential) {
	t.Helper()
	patiently(t, http.StatusCreated, func() (status int, err error) {
		c, status, err = g.login(t.Context(), user)
		return status, err
	})
	return c
}

// login begins a session, if it can be done now.
func (g *gate) login(ctx context.Context, user string) (c *credential, status int, err error) {
	var reply struct {
		Cookie string `json:"cookie"`
	}
	status, err = g.call(ctx, http.MethodPost, "/auth/sessions", map[string]any{
		"userId": user, "email": user + "@example.com", "roles": []string{"member"}, "organizationId": "org-1",
	}, &reply, nil)
	return &credential{
		name: "the session of " + user, user: user, policy: "user",
		headers: map[string]string{"cookie": "sessionId=" + reply.Cookie},
	}, status, err
}

// sessions begins sessions of as many users.
func (g *gate) sessions(t *testing.T, n int) (all []*credential) {
	t.Helper()
	for i := range n {
		all = append(all, g.session(t, fmt.Sprintf("user-%d", i)))
	}
	return all
}

// token makes an access token of the outside issuer.
func (s secrets) token(t *testing.T, user string) *credential {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, nil)
	require.NoError(t, err)
	text, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: issuer, Subject: user, Audience: jwt.Audience{"api"}, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(time.Now()), Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
	}).Serialize()
	require.NoError(t, err)
	return &credential{
		name: "the token of " + user, user: user, policy: "user",
		headers: map[string]string{"authorization": "Bearer " + text},
	}
}

// strict is the same credential under a policy that asks Redis each time.
func (c *credential) strict() *credential { return c.under("strict") }

// metrics returns what the ops listener tells.
func (g *gate) metrics(t *testing.T) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.ops+"/metrics", http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(text)
}
