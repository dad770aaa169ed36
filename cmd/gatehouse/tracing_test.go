//go:build unix

package main

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/gatehouse-auth/gatehouse/internal/tracing/otlptest"
)

// Traces are turned on and off, and sent elsewhere, while requests come in; what was
// recorded before is sent all the same. So it is at the end of the program.
func TestTracingChangesUnderWay(t *testing.T) {
	ca := newAuthority(t)
	certFile, keyFile := ca.issue(t, "localhost")
	certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
	require.NoError(t, err)
	near, err := otlptest.Start(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	defer near.Stop()
	far, err := otlptest.Start(t.Context(), "127.0.0.1:0", grpc.Creds(credentials.NewServerTLSFromCert(&certificate)))
	require.NoError(t, err)
	defer far.Stop()

	dir := t.TempDir()
	path, headers := filepath.Join(dir, "gatehouse.yaml"), filepath.Join(dir, "headers")
	save(t, headers, "x-api-key: first")
	caFile := filepath.Join(dir, "ca.pem")
	text, err := os.ReadFile(ca.file)
	require.NoError(t, err)
	save(t, caFile, string(text))
	off := openPolicy(true)
	toNear := off + "\ntracing: {sample: 1, otlp: {insecure: true, endpoint: '" + near.Addr + "'}}\n"
	_, port, _ := strings.Cut(far.Addr, ":")
	toFar := off + "\ntracing: {sample: 1, otlp: {endpoint: 'localhost:" + port + "', tls: {ca_file: ca.pem}, headers_file: headers}}\n"

	save(t, path, off)
	g := startAt(t, path)
	conn := g.dial(t)
	check := func() {
		t.Helper()
		status, _ := ask(t, conn, nil)
		require.Zero(t, status)
	}
	check()
	g.applies(t, func() { saveOver(t, path, toNear) })
	check()
	g.applies(t, func() { saveOver(t, path, toFar) })
	until(t, "what was recorded before is sent", func() bool { return len(near.Spans()) > 0 })
	check()
	until(t, "it is sent to the other one", func() bool { return len(far.Spans()) == 1 })
	require.Equal(t, []string{"first"}, far.Headers()["x-api-key"])
	g.applies(t, func() { saveOver(t, headers, "x-api-key: second") })
	check()
	until(t, "with the new key", func() bool { return len(far.Spans()) == 2 })
	require.Equal(t, []string{"second"}, far.Headers()["x-api-key"])

	failure := g.rejects(t, func() { saveOver(t, caFile, "no certificate") })
	require.Contains(t, failure.Error, "tracing.otlp.tls")
	g.applies(t, func() { saveOver(t, caFile, string(text)); saveOver(t, path, off) })
	check()
	g.applies(t, func() { saveOver(t, path, toFar) })
	check()
	g.signal()
	require.Equal(t, exitOK, g.wait(t))
	require.Len(t, far.Spans(), 3, "the last one is sent at the end; the one while it was off was none")
	require.Len(t, near.Spans(), 1)
	require.NotContains(t, g.log.String(), "first")
	require.NotContains(t, g.log.String(), "second")
}

// How many proxies are in front says nothing of who wrote traceparent: one that doesn't
// trace hands on what a client made up, by which it would be recorded, or not, as it likes.
func TestWhoseTraceparentIsBelievedIsSaid(t *testing.T) {
	const trace, span = "11111111111111111111111111111111", "2222222222222222"
	for name, tc := range map[string]struct {
		settings, flags string
		spans           int
		parent          string
		links           []string
	}{
		"a client asks for a record": {"sample: 0", "01", 0, "", nil},
		"a client asks for none":     {"sample: 1", "00", 1, "", []string{trace + "/" + span}},
		"the proxy records":          {"sample: 0, trust_traceparent: true", "01", 1, span, nil},
		"the proxy doesn't":          {"sample: 1, trust_traceparent: true", "00", 0, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := otlptest.Start(t.Context(), "127.0.0.1:0")
			require.NoError(t, err)
			defer c.Stop()
			g := start(t, strings.Replace(openPolicy(true), "http: {", "http: {trusted_hops: 1, ", 1)+
				"tracing: {"+tc.settings+", otlp: {insecure: true, endpoint: '"+c.Addr+"'}}\n")
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.http+"/check", nil)
			require.NoError(t, err)
			for name, value := range map[string]string{
				"X-Original-Method": "GET", "X-Original-URL": "https://gateway.example.com/orders", "X-Forwarded-For": "192.0.2.1",
				"traceparent": "00-" + trace + "-" + span + "-" + tc.flags, "tracestate": "stranger=says-what-it-likes",
			} {
				r.Header.Set(name, value)
			}
			res, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, http.StatusOK, res.StatusCode)
			g.signal()
			require.Equal(t, exitOK, g.wait(t)) // and all is sent
			spans := c.Spans()
			require.Len(t, spans, tc.spans)
			for _, s := range spans {
				require.Equal(t, "GET /check", s.Name)
				require.Equal(t, tc.parent, s.Parent)
				require.Equal(t, tc.links, s.Links)
				require.Equal(t, tc.parent != "", s.Trace == trace)
			}
		})
	}
}
