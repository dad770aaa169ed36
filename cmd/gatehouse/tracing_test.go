//go:build unix

package main

import (
	"crypto/tls"
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
