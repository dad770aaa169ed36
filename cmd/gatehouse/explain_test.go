package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/internal/explain"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// explained is a Redis with one of each credential, and a configuration of all.
type explained struct {
	client                 *redis.Client
	config                 string // text
	file                   string
	session, bearer, key   string // header lines
	sessionID, cookieValue string
	token                  string
}

func newExplained(t *testing.T) *explained {
	t.Helper()
	proctest.Need(t, "redis-server")
	address := proctest.StartRedis(t).Addr
	e := &explained{client: redis.NewClient(&redis.Options{Addr: address}), sessionID: "explained-session-id"}
	t.Cleanup(func() { _ = e.client.Close() })
	keyFile := filepath.Join(t.TempDir(), "signing.pem")
	require.Equal(t, exitOK, gatehouse(t, nil, "keys", "new", keyFile).code)
	assertionFile := filepath.Join(t.TempDir(), "assertion.pem")
	require.Equal(t, exitOK, gatehouse(t, nil, "keys", "new", "--for", "assertion", assertionFile).code)
	const apiKey = "a long key of the billing service"
	sum := sha256.Sum256([]byte(apiKey))
	e.config = `redis: {url: "redis://` + address + `", timeout: 1s}
sessions: {secrets: ["` + testSecret + `"], ttl: 2h}
tokens: {issuer: "https://gateway.example.com", signing_keys: [{file: "` + keyFile + `"}]}
identity: {assertion: {signing_keys: [{file: "` + assertionFile + `"}]}}
api_keys: [{name: billing, sha256: "` + hex.EncodeToString(sum[:]) + `", policies: [internal]}]
rate_limits: {few: {by: user, limit: 1, per: 1h}}
policies:
  public: {anonymous: true}
  user: {credentials: [session, bearer], idle_timeout: 30m}
  signed: {credentials: [session], assertion: {audience: orders, from_route: true}}
  few: {credentials: [session], rate_limit: few}
  internal: {credentials: [api_key]}
  reports: {credentials: [bearer], audiences: [reports]}
  web: {credentials: [session], on_unauthenticated: redirect, login_url: /login}
  trial: {credentials: [session], roles: {any: [nobody]}, mode: observe}
  admin:
    credentials: [bearer]
    roles: {any: [admin], all: [admin, root]}
    condition: 'request.method == "GET" && "root" in identity.roles'
routes:
- {path: /admin/*, policy: admin}
- {path: /orders/*, policy: user}
`
	e.file = write(t, "gatehouse.yaml", e.config)
	e.session = "cookie: " + cookie(t, e.sessionID)["cookie"]
	e.cookieValue = strings.TrimPrefix(e.session, "cookie: sessionId=")
	e.key = "x-internal-api-key: " + apiKey
	signing, err := token.LoadSigningKey(keyFile, "")
	require.NoError(t, err)
	issuer, err := token.NewIssuer(token.MintOptions{
		Issuer: "https://gateway.example.com", Audiences: []string{"https://gateway.example.com"}, TTL: time.Hour, Keys: []*token.SigningKey{signing},
	})
	require.NoError(t, err)
	e.token, _, err = issuer.Mint(token.Claims{Subject: "u2"})
	require.NoError(t, err)
	e.bearer = "authorization: Bearer " + e.token
	ctx := t.Context()
	require.NoError(t, e.client.Set(ctx, "sess:"+e.sessionID, `{"cookie":{"originalMaxAge":7200000},"userId":"u1","email":"u1@example.com","roles":["clerk"]}`, time.Hour).Err())
	require.NoError(t, e.client.Set(ctx, "user:u2", `{"email":"u2@example.com","roles":["admin"]}`, 0).Err())
	return e
}

// secrets are what no output may hold.
func (e *explained) secrets() []string {
	return []string{e.sessionID, e.cookieValue, e.token, strings.Split(e.token, ".")[2], strings.TrimPrefix(e.key, "x-internal-api-key: "), testSecret, "query-secret"}
}

func (e *explained) explain(t *testing.T, args ...string) command {
	t.Helper()
	c := gatehouse(t, nil, append([]string{"explain"}, args...)...)
	for _, secret := range e.secrets() {
		require.NotContains(t, c.stdout+c.stderr, secret)
	}
	return c
}

func TestExplain(t *testing.T) {
	e := newExplained(t)
	require.NoError(t, e.client.Set(t.Context(), "gatehouse:before:{user:u3}", time.Now().UnixMilli(), time.Hour).Err())
	for name, tt := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"a session": {
			[]string{"https://gw.example.com/orders/%37?token=query-secret&b=1", "-H", e.session},
			exitOK,
			[]string{
				"ALLOWED: authenticated", "GET gw.example.com/orders/7", "sent as /orders/%37", "query, without its values: token, b",
				"by routes[1], the first one that matches, " + e.file + ":22:3", "session        shown, and decides", "bearer         not shown",
				"signature      made by one of the secrets", "user's mark    nothing of user \"u1\"", `user "u1", email "u1@example.com", roles ["clerk"]`,
				"x-user-id: u1", `x-user-roles: ["clerk"]`, "without x-org-id",
			},
		},
		"a signed identity": {
			[]string{"--policy", "signed", "gw/x", "-H", e.session},
			exitOK,
			[]string{
				"assertion      signed for orders", `x-identity-assertion: (signed) {"iss":"https://gateway.example.com","aud":"orders","sub":"u1","email":"u1@example.com","roles":["clerk"],"sid":"`,
				"x_identity_assertion", "x-identity_assertion",
			},
		},
		"a signed identity, for the service of a route": {
			[]string{"--policy", "signed", "--audience", "billing", "gw/x", "-H", e.session}, exitOK, []string{`"aud":"billing"`},
		},
		"a signed identity, for a service without a name": {
			[]string{"--policy", "signed", "--audience", "", "gw/x", "-H", e.session}, exitFailed, []string{"DENIED: no_audience", "NO assertion"},
		},
		"a cookie of another name": {
			[]string{"https://gw/orders/1", "-b", "connect.sid=s%3Ax.y"},
			exitFailed,
			[]string{"DENIED: no_credential", `session        not shown: no cookie is named "sessionId"`, `bearer         not shown: no header authorization with "Bearer"`},
		},
		"a forged cookie": {
			[]string{"curl", "https://gw/orders/1", "-b", "sessionId=s%3Ax.y", "-H", e.bearer},
			exitFailed,
			[]string{"DENIED: session_forged", "NO signature", "bearer         shown, too, and not looked at", `401 {"error":"Invalid session"}`},
		},
		"a token that lacks a role": {
			[]string{"--policy", "admin", "gw/x", "-H", e.bearer},
			exitFailed,
			[]string{
				"DENIED: role", "named by the gateway's route", `ok form           alg "RS256"`, "ok iss            https://gateway.example.com",
				"ok signature", "token's mark   not there", "ok profile        not disabled", `ok roles.any      ["admin"], of ["admin"]`,
				`NO roles.all      role: role "root" is missing`, "NO condition", `ok condition.part request.method == "GET"`, `NO condition.part "root" in identity.roles: false`,
				`www-authenticate: Bearer error="insufficient_scope"`,
				"what that means, and what to do\n  The caller has none, or not all, of the roles",
			},
		},
		"another audience": {
			[]string{"--policy", "reports", "gw/x", "-H", e.bearer},
			exitFailed,
			[]string{`NO audiences      ["https://gateway.example.com"], of ["reports"]: audience: the policy lists none`},
		},
		"an API key": {
			[]string{"--policy", "internal", "--address", "192.0.2.9", "gw/x", "-H", e.key},
			exitOK,
			[]string{`key            "billing", which doesn't expire`, "x-user-id: service:billing", "from 192.0.2.9"},
		},
		"a kind that isn't accepted": {
			[]string{"--policy", "internal", "gw/x", "-H", e.session},
			exitFailed,
			[]string{"DENIED: no_credential", "session        shown, and not among the kinds"},
		},
		"observed":      {[]string{"--policy", "trial", "gw/x", "-H", e.session}, exitOK, []string{"the policy only observes; it would deny: role", "what that means"}},
		"nobody":        {[]string{"--policy", "public", "gw/x"}, exitOK, []string{"ALLOWED: anonymous", "without x-user-id"}},
		"an odd path":   {[]string{"--policy", "public", "gw/a//b"}, exitFailed, []string{"DENIED: bad_path", "the request is refused", "empty segment", "400"}},
		"no such name":  {[]string{"--policy", "nobody", "gw/a"}, exitFailed, []string{"DENIED: policy_unknown", `NO policy`}},
		"no route":      {[]string{"gw/nothing"}, exitFailed, []string{"DENIED: no_policy", "\n     (where the gateway's route names another, as in Envoy's context_extensions: --policy NAME)\n"}},
		"to a login":    {[]string{"--policy", "web", "gw/a?x=query-secret", "-H", "accept: text/html"}, exitFailed, []string{"302", "location: /login?return_to=%2Fa%3F…"}},
		"a bare token":  {[]string{"--policy", "public", "gw/reset?query-secret"}, exitOK, []string{"query, without its values: …"}},
		"a JSON report": {[]string{"--json", "--policy", "public", "gw/x"}, exitOK, []string{`"decision": "allow"`}},
	} {
		t.Run(name, func(t *testing.T) {
			c := e.explain(t, append([]string{"--config", e.file}, tt.args...)...)
			require.Equal(t, tt.code, c.code, c.stdout+c.stderr)
			require.Empty(t, c.stderr)
			require.NotRegexp(t, `eyJ\S*\.eyJ\S*\.`, c.stdout, "nothing that could be shown to a service")
			for _, part := range tt.want {
				require.Contains(t, c.stdout, part)
			}
			if slices.Contains(tt.args, "--policy") {
				require.NotContains(t, c.stdout, "--policy NAME")
			}
		})
	}
}

// Each thing that revokes is named.
func TestExplainNamesWhatRevoked(t *testing.T) {
	e := newExplained(t)
	for name, tt := range map[string]struct {
		key, value string
		args       []string
		want       string
	}{
		"the session's mark": {"gatehouse:dead:{sess:" + e.sessionID + "}", "1", []string{"gw/orders/1", "-H", e.session}, "NO record         session_revoked"},
		"the user's mark":    {"gatehouse:before:{user:u2}", future(), []string{"gw/orders/1", "-H", e.bearer}, "NO user's mark"},
		"the profile":        {"user:u2", `{"disabled":true}`, []string{"gw/orders/1", "-H", e.bearer}, "NO profile        it says disabled"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			before, err := e.client.Get(ctx, tt.key).Result()
			existed := err == nil
			require.NoError(t, e.client.Set(ctx, tt.key, tt.value, time.Hour).Err())
			c := e.explain(t, append([]string{"--config", e.file}, tt.args...)...)
			require.Equal(t, exitFailed, c.code)
			require.Contains(t, c.stdout, tt.want)
			if existed {
				require.NoError(t, e.client.Set(ctx, tt.key, before, 0).Err())
			} else {
				require.NoError(t, e.client.Del(ctx, tt.key).Err())
			}
		})
	}
}

func future() string { return time.Now().Add(time.Hour).Format("20060102") + "00000" }

// Nothing is renewed, noted, counted or ended by an explanation; and a running
// server explains by what it has in its cache.
func TestExplainChangesNothing(t *testing.T) {
	e := newExplained(t)
	ctx := t.Context()
	g := start(t, anywhere(e.config))
	state := func() map[string]string {
		keys, err := e.client.Keys(ctx, "*").Result()
		require.NoError(t, err)
		all := map[string]string{}
		for _, key := range keys {
			if strings.HasPrefix(key, "gatehouse:ping") {
				continue
			}
			dump, err := e.client.Dump(ctx, key).Result()
			require.NoError(t, err)
			ttl, err := e.client.PExpireTime(ctx, key).Result()
			require.NoError(t, err)
			all[key] = dump + ttl.String()
		}
		return all
	}
	// Unused for longer than idle_timeout: a request would end it.
	idle := "idle-session"
	require.NoError(t, e.client.Set(ctx, "sess:"+idle, `{"cookie":{"originalMaxAge":7200000},"userId":"u1","createdAt":1700000000000,"authTime":1700000000}`, time.Hour).Err())
	// Ended, and saved again by another program; nearly over, so that a request would
	// renew it; of a user who is locked out; and one that can't be read.
	const record = `{"cookie":{"originalMaxAge":7200000},"userId":"u1","createdAt":1700000000000}`
	for id, text := range map[string]string{"saved-again": record, "nearly-over": record, "locked-out": strings.Replace(record, "u1", "u4", 1), "unreadable": "{"} {
		require.NoError(t, e.client.Set(ctx, "sess:"+id, text, time.Minute).Err())
	}
	require.NoError(t, e.client.Set(ctx, "gatehouse:dead:{sess:saved-again}", "1", time.Hour).Err())
	require.NoError(t, e.client.Set(ctx, "user:u4", `{"disabled":true}`, 0).Err())
	before := state()
	require.NotEmpty(t, before)
	for _, from := range [][]string{{"--config", e.file}, {"--server", g.ops}} {
		for range 3 {
			require.Equal(t, exitOK, e.explain(t, append(from, "--policy", "few", "gw/x", "-H", e.session)...).code)
			require.Equal(t, exitOK, e.explain(t, append(from, "gw/orders/1", "-H", e.session)...).code)
			require.Equal(t, exitOK, e.explain(t, append(from, "gw/orders/1", "-H", e.bearer)...).code)
			c := e.explain(t, append(from, "gw/orders/1", "-H", "cookie: "+cookie(t, idle)["cookie"])...)
			require.Equal(t, exitFailed, c.code)
			require.Contains(t, c.stdout, "session_idle")
			for id, reason := range map[string]string{
				"saved-again": "session_revoked", "nearly-over": "authenticated", "locked-out": "user_disabled", "unreadable": "session_malformed", "none": "session_unknown",
			} {
				c := e.explain(t, append(from, "--policy", "web", "gw/x", "-H", "cookie: "+cookie(t, id)["cookie"])...)
				require.Contains(t, c.stdout, ": "+reason, id)
			}
		}
	}
	require.Equal(t, before, state())

	// Nor does it take anything from the request that comes next: that is noted.
	conn := g.dial(t)
	status, _ := setHeaders(t, conn, func(r *authv3.AttributeContext_HttpRequest) { r.Path, r.Headers = "/orders/1", cookie(t, e.sessionID) })
	require.Zero(t, status)
	until(t, "its use is noted", func() bool { return e.client.Exists(ctx, "gatehouse:seen:{sess:"+e.sessionID+"}").Val() == 1 })

	c := e.explain(t, "--server", g.ops, "--json", "gw/orders/1", "-H", e.session)
	var report explain.Report
	require.NoError(t, json.Unmarshal([]byte(c.stdout), &report))
	require.Equal(t, "user", report.Policy)
	require.NotNil(t, report.Route)
	require.Equal(t, 1, *report.Route)
	require.Contains(t, report.RouteAt, "gatehouse.yaml:")
}

// The server of an embedded store listens where its configuration says.
func TestExplainBesideAnEmbeddedStore(t *testing.T) {
	var config net.ListenConfig
	server, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = server.Close() }()
	file := write(t, "gatehouse.yaml", "server: {ops: {listen: 127.0.0.1:9191}}\npolicies: {public: {anonymous: true}}\ndefault_policy: public\nredis: {url: 'embedded://"+server.Addr().String()+"'}\n")
	c := gatehouse(t, nil, "explain", "-c", file, "http://gw/")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Contains(t, c.stdout, "ALLOWED")
	require.Contains(t, c.stderr, "ask that server for sessions and revocations, by --server 127.0.0.1:9191")
}

func TestExplainIsForThisHostAndForNoWebPage(t *testing.T) {
	g := start(t, anywhere("policies: {public: {anonymous: true}}\ndefault_policy: public\nredis: {url: 'embedded://'}\n"))
	send := func(contentType, origin, body string, more ...string) int {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.ops+explainPath, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Content-Type", contentType)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		for i := 0; i < len(more); i += 2 {
			if more[i] == "Host" {
				r.Host = more[i+1]
			} else {
				r.Header.Set(more[i], more[i+1])
			}
		}
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode
	}
	const request = `{"method":"GET","authority":"gw","target":"/","headers":[]}`
	require.Equal(t, 200, send("application/json", "", request))
	require.Equal(t, 415, send("text/plain", "", request))
	require.Equal(t, 415, send("application/json", "https://evil.example", request))
	for _, host := range []string{"localhost:9090", "LOCALHOST", "127.0.0.1", "[::1]:9090", "[::1]", "gatehouse", "192.0.2.1:80"} {
		require.Equal(t, 200, send("application/json", "", request, "Host", host), host)
	}
	for _, host := range []string{"evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example", "gatehouse.evil.example"} {
		require.Equal(t, 421, send("application/json", "", request, "Host", host), host)
	}
	require.Equal(t, 403, send("application/json", "", request, "X-Forwarded-For", "127.0.0.1"))
	require.Equal(t, 400, send("application/json", "", `{"nonsense":1}`))
	require.Equal(t, 400, send("application/json", "", `{"address":"nonsense"}`))
	status, _ := get(t, "http://"+g.ops+explainPath)
	require.Equal(t, 405, status)
	status, _ = get(t, "http://"+g.http+explainPath)
	require.Equal(t, 404, status)

	for remote, here := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "@": true, "": true, "/run/x.sock": true,
		"192.0.2.1:1": false, "127.0.0.6:1": false, "[2001:db8::1]:1": false, "nonsense": false, "[::ffff:192.0.2.1]:1": false,
	} {
		require.Equal(t, here, fromThisHost(remote), remote)
	}
}

func TestExplainMistakes(t *testing.T) {
	broken := write(t, "gatehouse.yaml", "policies: {a: {nonsense: 1}}\n")
	for want, args := range map[string][]string{
		"no request: give a URL":             {},
		"no URL":                             {"curl"},
		"--address: address":                 {"--address", "x", "gw/"},
		"--timeout must be":                  {"--timeout", "0s", "gw/"},
		"leave --config out":                 {"--server", "127.0.0.1:1", "--config", "x", "gw/"},
		"is the server running":              {"--server", "127.0.0.1:1", "gw/"},
		"policies.a.nonsense":                {"--config", broken, "gw/"},
		"option --frobnicate of curl is not": {"gw/", "--frobnicate"},
		"behind the URL, or behind the word": {"-H", "cookie: a=b", "gw/"},
		"stand behind the URL":               {"--cookie=s3cr3t", "gw/"},
		"no flag of explain":                 {"-bsessionId=s3cr3t", "gw/"},
		"flag needs an argument: --policy":   {"--policy"},
	} {
		c := gatehouse(t, nil, append([]string{"explain"}, args...)...)
		require.Equal(t, exitUsage, c.code, want)
		require.Contains(t, c.stderr, want)
		require.NotContains(t, c.stderr, "s3cr3t")
		require.Empty(t, c.stdout)
	}
}
