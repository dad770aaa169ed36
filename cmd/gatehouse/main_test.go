package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// patience bounds every wait in these tests; none of them takes nearly as
// long when all is well.
const patience = 20 * time.Second

// buffer is a bytes.Buffer that can be read while somebody writes to it.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed at the next write
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.more != nil {
		close(b.more)
		b.more = nil
	}
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *buffer) snapshot() (string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.more == nil {
		b.more = make(chan struct{})
	}
	return b.text.String(), b.more
}

// await returns the first log entry for which match is true.
func (b *buffer) await(t *testing.T, done <-chan struct{}, match func(entry map[string]any) bool) map[string]any {
	t.Helper()
	timeout := time.After(patience)
	for {
		text, more := b.snapshot()
		for line := range strings.Lines(text) {
			var entry map[string]any
			if json.Unmarshal([]byte(line), &entry) == nil && match(entry) {
				return entry
			}
		}
		select {
		case <-more:
		case <-done:
			require.FailNow(t, "the server ended", b.String())
		case <-timeout:
			require.FailNow(t, "not logged in time", b.String())
		}
	}
}

// command is one finished command line.
type command struct {
	code           int
	stdout, stderr string
}

// gatehouse runs a command line to its end.
func gatehouse(t *testing.T, variables map[string]string, args ...string) command {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr buffer
	code := run(ctx, args, environment{
		lookup: func(name string) (string, bool) { v, ok := variables[name]; return v, ok },
		stdin:  strings.NewReader(""), stdout: &stdout, stderr: &stderr,
	})
	require.NoError(t, ctx.Err(), "it did not end by itself")
	return command{code, stdout.String(), stderr.String()}
}

// running is a server under test.
type running struct {
	file             string // its configuration
	log              *buffer
	check, http, ops string // addresses
	signal           context.CancelFunc
	done             chan struct{} // closed at its end
	code             int           // read only after done
}

// start runs "serve" with a configuration until the test ends. Listen
// addresses that the text leaves out are free ports.
func start(t *testing.T, text string) *running {
	t.Helper()
	return startAt(t, write(t, "gatehouse.yaml", text))
}

// startAt is start for a configuration that is there already.
func startAt(t *testing.T, path string) *running {
	t.Helper()
	log := &buffer{}
	return startLogging(t, path, log, log)
}

// startLogging is startAt with a standard error. What is written there gets into log.
func startLogging(t *testing.T, path string, stderr io.Writer, log *buffer) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{file: path, log: log, signal: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.code = run(ctx, []string{"serve", path}, environment{
			lookup: func(string) (string, bool) { return "", false },
			stdin:  strings.NewReader(""), stdout: io.Discard, stderr: stderr,
		})
	}()
	t.Cleanup(func() {
		cancel()
		r.wait(t)
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	for name, address := range map[string]*string{"check": &r.check, "http": &r.http, "ops": &r.ops} {
		entry := r.log.await(t, r.done, func(e map[string]any) bool { return e["msg"] == "listening" && e["listener"] == name })
		*address, _ = entry["address"].(string)
	}
	return r
}

// wait returns the exit code.
func (r *running) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		require.FailNow(t, "the server does not end", r.log.String())
	}
	return r.code
}

// dial connects to the check listener.
func (r *running) dial(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	if len(options) == 0 {
		options = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	target := r.check
	if path, ok := strings.CutPrefix(r.check, "unix://"); ok {
		target = "unix:" + path
	}
	conn, err := grpc.NewClient(target, append(options, grpc.WithUnaryInterceptor(waits))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// waits gives a call that has no deadline one: a check of which the server doesn't know how
// long it is waited for is shed after a second without a processor.
func waits(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	return call(ctx, method, request, reply, conn, options...)
}

// ask sends one check and returns the status that the client would get; 0
// means allowed.
func ask(t *testing.T, conn *grpc.ClientConn, headers map[string]string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	response, err := authv3.NewAuthorizationClient(conn).Check(ctx, checkRequest(headers))
	require.NoError(t, err)
	if denied := response.GetDeniedResponse(); denied != nil {
		return int(denied.GetStatus().GetCode()), denied.GetBody()
	}
	require.NotNil(t, response.GetOkResponse())
	return 0, ""
}

func checkRequest(headers map[string]string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Host: "gateway.example.com", Path: "/orders?page=2", Headers: headers,
		}},
	}}
}

// get fetches from the ops or http listener.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}

// until asks again and again until the answer is yes.
func until(t *testing.T, what string, yes func() bool) {
	t.Helper()
	require.Eventually(t, yes, patience, 10*time.Millisecond, what)
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// authority signs certificates for tests.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	file        string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{certificate, key, write(t, "ca.pem", pemText("CERTIFICATE", der))}
}

// issue returns the files of a certificate for name and 127.0.0.1.
func (a *authority) issue(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return write(t, "cert.pem", pemText("CERTIFICATE", der)), write(t, "key.pem", pemText("PRIVATE KEY", keyDER))
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

func (a *authority) clientTLS(t *testing.T) *tls.Config {
	t.Helper()
	certFile, keyFile := a.issue(t, "envoy")
	certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
	require.NoError(t, err)
	return &tls.Config{RootCAs: a.pool(), Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// anywhere is a configuration's server section on free ports.
func anywhere(more string) string {
	return fmt.Sprintf(`server:
  check: {listen: "127.0.0.1:0"}
  http: {listen: "127.0.0.1:0"}
  ops: {listen: "127.0.0.1:0"}
  drain: 0s
%s
`, more)
}
