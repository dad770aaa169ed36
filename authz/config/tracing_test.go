package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/config"
)

// aPolicy is what a configuration has at least, without a warning.
const aPolicy = "\npolicies: {open: {anonymous: true}}\ndefault_policy: open\n"

// inDir writes files beside a configuration and returns its path.
func inDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return filepath.Join(dir, "gatehouse.yaml")
}

func TestTracingIsOffUnlessThereIsACollector(t *testing.T) {
	c, warnings, err := config.Parse("gatehouse.yaml", []byte(aPolicy), nil)
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.False(t, c.Tracing.Enabled())
	require.Zero(t, c.Tracing.Sample)
	require.False(t, c.Tracing.OTLP.Insecure)
	require.False(t, c.Tracing.TrustTraceparent)
}

func TestTracing(t *testing.T) {
	path := inDir(t, map[string]string{
		"headers": "# of the vendor\nX-Api-Key: abc: def\n\nx-tenant: shop\r\n",
		"gatehouse.yaml": `
server: {http: {trusted_hops: 1}}
tracing:
  otlp: {endpoint: "${COLLECTOR}", headers_file: headers, tls: {server_name: otel.example.com}}
  sample: 0.25
  trust_traceparent: true
  service_name: gate
  attributes: {deployment.environment.name: production}
` + aPolicy,
	})
	c, warnings, err := config.Load(path, func(name string) (string, bool) { return "otel.example.com:4317", name == "COLLECTOR" })
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.True(t, c.Tracing.Enabled())
	require.Equal(t, "otel.example.com:4317", c.Tracing.OTLP.Endpoint)
	require.InDelta(t, 0.25, float64(c.Tracing.Sample), 0)
	require.True(t, c.Tracing.TrustTraceparent)
	require.Equal(t, "gate", c.Tracing.ServiceName)
	require.Equal(t, map[string]string{"deployment.environment.name": "production"}, c.Tracing.Attributes)
	require.Len(t, c.Tracing.OTLP.Headers, 2)
	require.Equal(t, "x-api-key", c.Tracing.OTLP.Headers[0].Name)
	require.Equal(t, "abc: def", c.Tracing.OTLP.Headers[0].Value.Reveal())
	require.Equal(t, "x-tenant", c.Tracing.OTLP.Headers[1].Name)
	require.Contains(t, c.Files(), filepath.Join(filepath.Dir(path), "headers"))
}

func TestTracingSaysWhatIsWrong(t *testing.T) {
	const to = "tracing: {otlp: {endpoint: 'otel:4317'"
	for name, tc := range map[string]struct {
		text, headers string
		want          []string // in the messages
	}{
		"no collector":         {"tracing: {sample: 0.1}", "", []string{"1:1: tracing: nothing is traced without tracing.otlp.endpoint"}},
		"a name alone":         {"tracing: {service_name: gate}", "", []string{"nothing is traced"}},
		"trust alone":          {"server: {http: {trusted_hops: 1}}\ntracing: {trust_traceparent: true}", "", []string{"nothing is traced"}},
		"trust in clients":     {to + "}, trust_traceparent: true}", "", []string{"1:61: tracing.trust_traceparent: with server.http.trusted_hops: 0 there is no proxy whose traceparent it could be, and clients would choose what is recorded"}},
		"in clients, said so":  {"server: {http: {trusted_hops: 0}}\n" + to + "}, trust_traceparent: true}", "", []string{"set server.http.trusted_hops to the number of proxies in front, or take trust_traceparent out"}},
		"trust in a proxy":     {"server: {http: {trusted_hops: 1}}\n" + to + "}, trust_traceparent: true}", "", nil},
		"a URL":                {"tracing: {otlp: {endpoint: 'http://otel:4317'}}", "", []string{"1:28: tracing.otlp.endpoint: expected host:port of the collector, as in otel-collector:4317, without a scheme; tracing.otlp.insecure: true is http"}},
		"no port":              {"tracing: {otlp: {endpoint: otel}}", "", []string{"with a port from 1 to 65535"}},
		"too much":             {to + "}, sample: 1.5}", "", []string{"tracing.sample: expected a share from 0 for none to 1 for all, such as 0.01 for one in a hundred, found \"1.5\""}},
		"negative":             {to + "}, sample: -0.5}", "", []string{"expected a share from 0 for none to 1 for all"}},
		"percent":              {to + "}, sample: 10%}", "", []string{"expected a share from 0 for none to 1 for all"}},
		"in quotes":            {to + "}, sample: '0.1'}", "", []string{"expected a share from 0 for none to 1 for all"}},
		"TLS and none":         {to + ", insecure: true, tls: {server_name: otel}}}", "", []string{"the connection has no TLS, since insecure is true"}},
		"half a certificate":   {to + ", tls: {cert_file: headers}}}", "x", []string{"cert_file without its key_file"}},
		"two names":            {to + "}, attributes: {service.name: x}}", "", []string{"the key for service.name is tracing.service_name"}},
		"an attribute's name":  {to + "}, attributes: {a b: x}}", "", []string{"the name of an attribute"}},
		"no such file":         {to + ", headers_file: missing}}", "", []string{"create the file or correct the path"}},
		"empty":                {to + ", headers_file: headers}}", "", []string{"the file is empty"}},
		"a comment only":       {to + ", headers_file: headers}}", "# nothing\n", []string{"the file has no header"}},
		"no header":            {to + ", headers_file: headers}}", "x-a: b\nBearer hunter2\n", []string{"line 2 is no header; write name: value"}},
		"gRPC's own":           {to + ", headers_file: headers}}", "grpc-timeout: hunter2\n", []string{"line 1: gRPC sets this header itself"}},
		"twice":                {to + ", headers_file: headers}}", "x-a: hunter2\nX-A: hunter2\n", []string{"line 2: this header is there already"}},
		"not ASCII":            {to + ", headers_file: headers}}", "x-a: hunter2\x01\n", []string{"line 1 is no header"}},
		"unknown":              {to + ", protocol: http}}", "", []string{"tracing.otlp.protocol: unknown key"}},
		"a key without TLS":    {to + ", insecure: true, headers_file: headers}}", "authorization: Bearer hunter2\n", []string{"warning: ", "the headers of headers_file are sent without TLS"}},
		"near, it is no worry": {"tracing: {otlp: {endpoint: 'localhost:4317', insecure: true, headers_file: headers}}", "authorization: Bearer hunter2\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := inDir(t, map[string]string{"headers": tc.headers, "gatehouse.yaml": tc.text + aPolicy})
			_, warnings, err := config.Load(path, nil)
			text := ""
			if err != nil {
				text = err.Error()
			}
			for _, w := range warnings {
				text += "\nwarning: " + config.Problem(w).String()
			}
			if tc.want == nil {
				require.Empty(t, text)
			}
			for _, want := range tc.want {
				require.Contains(t, text, want)
			}
			require.NotContains(t, text, "hunter2")
		})
	}
}
