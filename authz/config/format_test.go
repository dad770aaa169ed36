package config

import (
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/session"
)

var formatCases = map[string]struct{ good, bad []string }{
	"listen": {
		[]string{"127.0.0.1:9001", ":9001", "localhost:0", "[::1]:65535", "[fe80::1%eth0]:80", "gate.internal:1", "0.0.0.0:80", "unix:///run/x.sock", "unix:///" + strings.Repeat("x", 106)},
		[]string{"", "9001", "localhost", "h:", "h:-1", "h:+1", "h:01", "h:65536", "::1:80", "[::1]", "[::1", "[1.2.3.4]:80", "a b:80", "unix://x", "unix:///", "unix:///a/../b", "unix:///a/", "unix:///a\nb", "http://h:80", "h:80/"},
	},
	"origin": {
		[]string{"https://a.example", "http://localhost:3000", "https://[::1]:8443", "HTTPS://A.example"},
		[]string{"", "*", "null", "a.example", "https://", "https:a", "ftp://a", "https://a/b", "https://a?x", "https://a?", "https://a#", "https://u@a", "https://u:p@a", "https://a:0", "https://a:65536", "https://a:x", "https://a b", "https://ä.example", "https://a\tb", "//a"},
	},
	"url": {
		[]string{"https://idp.example.com/jwks", "http://127.0.0.1:8080/a?b=c", "https://a"},
		[]string{"", "/jwks", "file:///etc/passwd", "https:///jwks", "https://u:p@a/", "https://a/#x", "https://a/%zz", "https://a/\x00", "mailto:a@b"},
	},
	"issuer": {
		[]string{"https://idp.example.com/realms/x", "https://idp.example.com/", "accounts.example.com", "urn:example:issuer"},
		[]string{"", "a b", "https://", "https://u:p@a", "http:a", "https://a#b", "ä"},
	},
	"cookie_name":  {[]string{"sessionId", "__Host-sid", "a.b"}, []string{"", "a b", "a;b", "a=b", "a,b", "ä", "a\n"}},
	"field":        {[]string{"userId", "user id", "a.b"}, []string{"cookie", "a\nb"}},
	"claim":        {[]string{"sub", "realm_access.roles", "https://example.com/roles"}, []string{"a..b", ".a", "a.", "a\nb"}},
	"header":       {[]string{"x-user-id", "X-User-Id", "user", "a-b-c-d-e-f-g"}, []string{"", "x_user", "-x", "x-", "x--y", "a-b-c-d-e-f-g-h", "host", "cookie", "authorization", "te", "connection", ":path", "x-internal-api-key", "x-identity-assertion", "x-forwarded-for", "x-envoy-internal", "sec-fetch-site", "grpc-status", "content-length", "a b", "x-real-ip", "x-http-method-override", "x-original-url"}},
	"audience":     {[]string{"orders", "https://orders.internal/v1", strings.Repeat("x", 255)}, []string{"", "a b", "ä", "a\n", strings.Repeat("x", 256)}},
	"attribute":    {[]string{"claims.plan", "claims.https://example.com/plan", "session.tenant.id", "session.gatehouses", "identity.id", "identity.roles"}, []string{"", "plan", "claims", "claims.", "claims..a", "session.a.", "identity.name", "identity.id.x", "request.path", "session.a\nb", "session.gatehouse", "session.gatehouse.device"}},
	"metadata":     {[]string{"plan", "tenant.id", "Plan"}, []string{"", "a b", ".a", "user", "organization", "decision", "reason", "policy", "credential", "degraded", "would_deny"}},
	"name":         {[]string{"user", "A_b-c.d", "1", strings.Repeat("x", 64)}, []string{"", "a b", "-a", ".a", "a/b", "ä", strings.Repeat("x", 65)}},
	"segment":      {[]string{"corp", "a-B_1", "-", strings.Repeat("x", 64)}, []string{"", "a.b", "a/b", "a b", "ä", "a\n", strings.Repeat("x", 65)}},
	"scope":        {[]string{"openid", "https://a.example/b?c", "urn:a:[b]"}, []string{"", "a b", `a"b`, `a\b`, "ä", "a\n"}},
	"prefix":       {[]string{"corp:", "a|b/"}, []string{"", "a b", "ä", "a\n"}},
	"redis_prefix": {[]string{"sess:", "{app}:sess:"}, []string{"", "a b", "ä", "a\n"}},
	"host":         {[]string{"a.example", "A.example.", "*.a.example", "127.0.0.1", "localhost", "*"}, []string{"", "*.", "a.*", "*a.example", "*.*.a", "a:80", "[::1]", "https://a", "a/b", "a b", ".a", "a..b"}},
	"route_path":   {[]string{"/", "/*", "/admin/*", "/a*", "/a%20b", "/ä", "/.well-known/*", "*"}, []string{"", "a", "/a/*/b", "/**", "//", "/a//b", "/a/./b", "/../a", "/a%2fb", "/a%zz", "/a?b", "/a#b", `/a\b`, "/a b", "/a;b", "/a%3Bb", "/a%00"}},
	"method":       {[]string{"GET", "get", "M-SEARCH"}, []string{"", "*", "GET,POST", "G T", "-", "GET-"}},
	"local_url":    {[]string{"/", "/login", "/login?next=%2F", "/a/b"}, []string{"", "login", "//evil.example", `/\evil.example`, "/\t/evil.example", "https://evil.example", "/a#b", "/ä", "/a b", "/../a", "javascript:alert(1)"}},
	"auditfile":    {[]string{"stdout", "stderr", "audit.log", "/var/log/a b/audit.log"}, []string{"/var/log/", "a\nb", "a\x00"}},
	"sha256":       {[]string{strings.Repeat("0a", 32), strings.Repeat("0A", 32)}, []string{"", "0a", strings.Repeat("0g", 32), strings.Repeat("0a", 33)}},
	"redis_url":    {redisURLs, badRedisURLs},
	"redis_user":   {[]string{"gatehouse", "app@corp"}, []string{"", "a b", "ä", "a\n"}},
	"collector":    {[]string{"otel-collector:4317", "127.0.0.1:4317", "[::1]:4317", "localhost:1"}, []string{"", "otel-collector", ":4317", "a:0", "a:65536", "a:04317", "a:x", "http://a:4317", "https://a", "dns:///a:4317", "a b:1", "a/b:1", "::1:4317", "[fe80::1%eth0]:4317"}},
	"resource":     {[]string{"deployment.environment.name", "k8s.pod.name", "host_id", strings.Repeat("x", 128)}, []string{"", "a b", ".a", "1a", "a=b", "ä", "service.name", "service.version", strings.Repeat("x", 129)}},
	"host_name":    {[]string{"redis", "redis-0.redis.svc", "10.0.0.1", "::1", "fe80::1", "_a"}, []string{"", "redis:6379", "[::1]", "a b", ".a", "a.", "-a", "ä"}},
}

var (
	redisURLs = []string{
		"redis://127.0.0.1:6379/0", "redis://h", "redis://h/", "redis://h:1/15", "redis://:p@h", "redis://u:p%40%2F@h:1/2", "redis://u:@h",
		"rediss://h:1", "redis://[::1]:6379/1", "redis://[::1]", "redis+sentinel://h1:26379,h2:26379/mymaster/0", "redis+sentinel://h/m", "rediss+sentinel://u:p@h1,h2/m/1",
		"redis+cluster://h1,h2:7000", "rediss+cluster://h1", "redis+cluster://h1/", "unix:///run/redis.sock", "unix:///run/redis.sock?db=3", "unix://u:p@/run/x",
	}
	badRedisURLs = []string{
		"", "redis", "redis:h", "http://h", "redis://", "redis:///0", "redis://h,g", "redis://h/x", "redis://h/-1", "redis://h/0/1", "redis://h:x", "redis://h:65536",
		"redis://h:", "redis://u@h", "redis://:%zz@h", "redis://h/0?a=b", "redis://h#x", "redis+sentinel://h", "redis+sentinel://h/", "redis+sentinel://h/m/x",
		"redis+cluster://h/0", "redis+cluster://h,/", "unix://h/x", "unix://", "unix:///x?a=b", "unix:///x?db=a", "unix:///%zz", "redis://a b", "rediss+unix://x", "redissx://h",
	}
)

func TestFormats(t *testing.T) {
	for name, f := range formats {
		cases := formatCases[name]
		require.NotEmpty(t, cases.good, "%s has no cases", name)
		pattern := regexp.MustCompile(f.pattern)
		for _, s := range cases.good {
			normal, err := f.check(s)
			require.NoError(t, err, "%s: %q", name, s)
			require.Regexp(t, pattern, s, "the schema must accept what is accepted")
			again, err := f.check(normal)
			require.NoError(t, err, "%s: %q", name, normal)
			require.Equal(t, normal, again, "the normal form is one")
		}
		for _, s := range cases.bad {
			if s == "" {
				continue // refused before formats are asked
			}
			_, err := f.check(s)
			require.Error(t, err, "%s: %q", name, s)
			require.NotContains(t, err.Error(), "\n")
		}
	}
}

// The configuration accepts the store's URLs that the store accepts. An
// embedded one would be started by the question.
func TestRedisURLsAreThoseOfSession(t *testing.T) {
	for _, u := range redisURLs {
		client, err := session.Open(u, session.OpenOptions{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err, u)
		require.NoError(t, client.Close())
	}
	for _, u := range badRedisURLs {
		_, err := session.Open(u, session.OpenOptions{})
		require.Error(t, err, u)
	}
	for _, u := range []string{"embedded://", "embedded://127.0.0.1:7000", "embedded://:p@0.0.0.0:7000"} {
		_, err := checkRedisURL(u)
		require.NoError(t, err, u)
	}
}

func TestMessagesQuoteOnOneLine(t *testing.T) {
	require.Equal(t, `"a\nb"`, quote("a\nb"))
	require.Equal(t, `"`+strings.Repeat("é", 40)+`…"`, quote(strings.Repeat("é", 50)))
	require.Equal(t, "a", list([]string{"a"}))
	require.Equal(t, "a or b", list([]string{"a", "b"}))
	require.Equal(t, "a, b or c", list([]string{"a", "b", "c"}))
}
