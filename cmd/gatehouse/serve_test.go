package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

const testSecret = "a secret that signs cookies in tests"

// unhurried, in the section redis, has a slow moment of this machine be no outage, and no
// reason to ask Redis about what is in the cache.
const unhurried = "timeout: 5s, cache: {heartbeat: 5s}"

// onePolicy is a configuration with one policy, in front of a Redis.
func onePolicy(redisURL string) string {
	return anywhere(`redis: {url: "` + redisURL + `", ` + unhurried + `}
sessions: {secrets: ["` + testSecret + `"]}
policies: {user: {credentials: [session]}}
default_policy: user
log: {level: debug}`)
}

// cookie returns the Cookie header of a session id.
func cookie(t *testing.T, id string) map[string]string {
	t.Helper()
	signer, err := session.NewSigner([]string{testSecret})
	require.NoError(t, err)
	return map[string]string{"cookie": "sessionId=" + signer.Sign(id)}
}

func healthOf(t *testing.T, conn *grpc.ClientConn, service string) healthv1.HealthCheckResponse_ServingStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	response, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
	require.NoError(t, err)
	return response.GetStatus()
}

func TestRedisThatIsDownAtStartIsWaitedFor(t *testing.T) {
	proctest.Need(t, "redis-server")
	port := proctest.FreePort(t)
	g := start(t, onePolicy("redis://"+proc.Local(port)))
	conn := g.dial(t)
	known := cookie(t, "id-1")

	status, body := get(t, "http://"+g.ops+"/readyz")
	require.Equal(t, 503, status)
	require.Contains(t, body, `"status":"starting"`)
	status, _ = get(t, "http://"+g.ops+"/healthz")
	require.Equal(t, 200, status, "it lives")
	for _, service := range []string{"", authv3.Authorization_ServiceDesc.ServiceName} {
		require.Equal(t, healthv1.HealthCheckResponse_NOT_SERVING, healthOf(t, conn, service))
	}
	status, body = ask(t, conn, known)
	require.Equal(t, 503, status)
	require.Equal(t, `{"error":"Authentication unavailable"}`, body)
	status, _ = ask(t, conn, nil)
	require.Equal(t, 401, status, "a request without a credential needs no store")

	server, err := proc.StartRedis(t.Context(), proc.RedisOptions{Dir: t.TempDir(), Port: port})
	require.NoError(t, err)
	defer server.Kill()
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer func() { _ = client.Close() }()
	require.NoError(t, client.Set(t.Context(), "sess:id-1", `{"cookie":{"originalMaxAge":60000},"userId":"u1","roles":[]}`, time.Minute).Err())

	until(t, "ready once Redis is there", func() bool { status, _ := get(t, "http://"+g.ops+"/readyz"); return status == 200 })
	require.Equal(t, healthv1.HealthCheckResponse_SERVING, healthOf(t, conn, ""))
	status, _ = ask(t, conn, known)
	require.Zero(t, status, "allowed")

	server.Kill()
	until(t, "the store's end shows in the detail", func() bool {
		_, body := get(t, "http://"+g.ops+"/readyz")
		var detail readyDetail
		return json.Unmarshal([]byte(body), &detail) == nil && detail.Store.State == "down"
	})
	status, _ = get(t, "http://"+g.ops+"/readyz")
	require.Equal(t, 200, status, "an outage of the store takes no replica out of rotation")
	require.Equal(t, healthv1.HealthCheckResponse_SERVING, healthOf(t, conn, ""))
	status, _ = ask(t, conn, known)
	require.Equal(t, 503, status)
}

// With the cache, without it, and with a server that doesn't announce, checks are
// answered by what the store says; readiness tells which it is.
func TestStateOfTheCacheIsTold(t *testing.T) {
	proctest.Need(t, "redis-server")
	r := proctest.StartRedis(t)
	client := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer func() { _ = client.Close() }()
	asked := func() string {
		t.Helper()
		text, err := client.Info(t.Context(), "commandstats").Result()
		require.NoError(t, err)
		for line := range strings.Lines(text) {
			if calls, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
				calls, _, _ = strings.Cut(calls, ",")
				return calls
			}
		}
		return ""
	}
	require.NoError(t, client.Do(t.Context(), "ACL", "SETUSER", "plain", "on", ">password", "~*", "&*", "+@all", "-client|tracking").Err())
	for name, test := range map[string]struct {
		url, cache, state string
		remembers         bool
	}{
		"coherent":    {"redis://" + r.Addr, "heartbeat: 5s", "coherent", true},
		"off":         {"redis://" + r.Addr, "enabled: false", "off", false},
		"unsupported": {"redis://plain:password@" + r.Addr, "heartbeat: 5s", "unsupported", false},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, strings.Replace(onePolicy(test.url), unhurried, `timeout: 5s, cache: {`+test.cache+`}`, 1))
			until(t, "the state is known", func() bool {
				_, body := get(t, "http://"+g.ops+"/readyz")
				var detail readyDetail
				return json.Unmarshal([]byte(body), &detail) == nil && detail.Status == "ready" && detail.Cache.State == test.state
			})
			conn := g.dial(t)
			require.NoError(t, client.Set(t.Context(), "sess:id-1", `{"userId":"u1","roles":[]}`, time.Minute).Err())
			until(t, "it is let in", func() bool { status, _ := ask(t, conn, cookie(t, "id-1")); return status == 0 })
			for range 3 { // renewals and the time of use are written by now
				_, _ = ask(t, conn, cookie(t, "id-1"))
			}
			before := asked()
			for range 5 {
				status, _ := ask(t, conn, cookie(t, "id-1"))
				require.Zero(t, status)
			}
			require.Equal(t, test.remembers, asked() == before, "whether Redis was asked")
			require.NoError(t, client.Del(t.Context(), "sess:id-1").Err())
			until(t, "its end counts", func() bool { status, _ := ask(t, conn, cookie(t, "id-1")); return status == 401 })
		})
	}
}

func TestDrainAnswersWhileNotServing(t *testing.T) {
	for drain := 700 * time.Millisecond; ; drain *= 3 {
		if drainAnswers(t, drain) {
			return
		}
		require.Less(t, drain, patience, "it does not wait")
	}
}

// drainAnswers asks a server that drains. It is false where this machine was too slow to
// ask in that time.
func drainAnswers(t *testing.T, drain time.Duration) bool {
	t.Helper()
	g := start(t, fmt.Sprintf(`
server:
  check: {listen: "127.0.0.1:0"}
  http: {listen: "127.0.0.1:0"}
  ops: {listen: "127.0.0.1:0"}
  drain: %v
redis: {url: "embedded://"}
policies: {open: {anonymous: true}}
default_policy: open
`, drain))
	conn := g.dial(t)
	until(t, "ready", func() bool { return healthOf(t, conn, "") == healthv1.HealthCheckResponse_SERVING })

	began := time.Now()
	g.signal()
	var told string // what it says of itself
	check, health, checks := &authv3.CheckResponse{}, &healthv1.HealthCheckResponse{}, errors.New("not asked")
	for checks != nil && time.Since(began) < drain {
		var err error
		if health, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil || health.GetStatus() == healthv1.HealthCheckResponse_SERVING {
			continue
		}
		response, err := http.Get("http://" + g.ops + "/readyz")
		if err != nil {
			continue
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		told = fmt.Sprint(response.StatusCode, " ", string(body), err)
		check, checks = authv3.NewAuthorizationClient(conn).Check(t.Context(), checkRequest(nil))
	}
	ended := false
	select {
	case <-g.done:
		ended = true
	default:
	}
	late := time.Since(began) >= drain
	require.Equal(t, exitOK, g.wait(t))
	took := time.Since(began)
	_, err := net.DialTimeout("tcp", g.check, time.Second)
	require.Error(t, err, "the listener is closed")
	if late {
		return false
	}
	require.NoError(t, checks)
	require.Equal(t, healthv1.HealthCheckResponse_NOT_SERVING, health.GetStatus())
	require.Contains(t, told, "503 ")
	require.Contains(t, told, `"status":"draining"`)
	require.NotNil(t, check.GetOkResponse(), "checks are still answered")
	require.False(t, ended, "it did not wait")
	require.GreaterOrEqual(t, took, drain)
	return true
}

func TestUnixSocket(t *testing.T) {
	// t.TempDir can be longer than a socket's path may be.
	dir, err := os.MkdirTemp("", "gh") //nolint:usetesting // see above
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "check.sock")
	text := `
server:
  check: {listen: "unix://` + socket + `"}
  http: {listen: "127.0.0.1:0"}
  ops: {listen: "127.0.0.1:0"}
  drain: 0s
redis: {url: "embedded://"}
policies: {open: {anonymous: true}}
default_policy: open
`
	// What a killed process leaves behind must not keep the next one out.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	require.NoError(t, err)
	stale.SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())

	g := start(t, text)
	require.Equal(t, "unix://"+socket, g.check)
	code, _ := ask(t, g.dial(t), nil)
	require.Zero(t, code)
	info, err := os.Stat(socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o660), info.Mode().Perm())

	second := gatehouse(t, nil, "serve", write(t, "gatehouse.yaml", text))
	require.Equal(t, exitFailed, second.code)
	require.Contains(t, lastLine(second.stderr), "in use")
	code, _ = ask(t, g.dial(t), nil)
	require.Zero(t, code, "the first one still has its socket")

	g.signal()
	require.Equal(t, exitOK, g.wait(t))
	require.NoFileExists(t, socket)

	require.NoError(t, os.WriteFile(socket, []byte("precious"), 0o600))
	third := gatehouse(t, nil, "serve", write(t, "gatehouse.yaml", text))
	require.Equal(t, exitFailed, third.code)
	require.Contains(t, lastLine(third.stderr), "is no socket")
	require.FileExists(t, socket)
}

func TestTLSAndMutualTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	certFile, keyFile := ca.issue(t, "gatehouse")
	serve := func(more string) *running {
		return start(t, `
server:
  check: {listen: "127.0.0.1:0", tls: {cert_file: "`+certFile+`", key_file: "`+keyFile+`"`+more+`}}
  http: {listen: "127.0.0.1:0"}
  ops: {listen: "127.0.0.1:0"}
  drain: 0s
redis: {url: "embedded://"}
policies: {open: {anonymous: true}}
default_policy: open
`)
	}
	check := func(g *running, config *tls.Config) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		conn := g.dial(t, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		_, err := authv3.NewAuthorizationClient(conn).Check(ctx, checkRequest(nil))
		return err
	}

	plain := serve("")
	require.NoError(t, check(plain, &tls.Config{RootCAs: ca.pool(), MinVersion: tls.VersionTLS12}))
	require.Equal(t, codes.Unavailable, status.Code(check(plain, &tls.Config{RootCAs: other.pool(), MinVersion: tls.VersionTLS12})), "the client finds an impostor")

	mutual := serve(`, client_ca_file: "` + ca.file + `"`)
	require.NoError(t, check(mutual, ca.clientTLS(t)))
	require.Equal(t, codes.Unavailable, status.Code(check(mutual, &tls.Config{RootCAs: ca.pool(), MinVersion: tls.VersionTLS12})), "no certificate, no answer")
	stranger := other.clientTLS(t)
	stranger.RootCAs = ca.pool()
	require.Equal(t, codes.Unavailable, status.Code(check(mutual, stranger)), "somebody else's certificate")
}

func TestReflectionListsTheServices(t *testing.T) {
	g := start(t, anywhere(`redis: {url: "embedded://"}`))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := reflectionv1.NewServerReflectionClient(g.dial(t)).ServerReflectionInfo(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}))
	response, err := stream.Recv()
	require.NoError(t, err)
	var names []string
	for _, s := range response.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	require.Contains(t, names, "envoy.service.auth.v3.Authorization")
	require.Contains(t, names, "grpc.health.v1.Health")
}

func TestMetricsCountDecisions(t *testing.T) {
	g := start(t, onePolicy("embedded://"))
	conn := g.dial(t)
	code, body := ask(t, conn, nil)
	require.Equal(t, 401, code)
	require.Equal(t, `{"error":"No token provided"}`, body)
	code, body = ask(t, conn, map[string]string{"cookie": "sessionId=s%3Aforged.AAAA"})
	require.Equal(t, 401, code)
	require.Equal(t, `{"error":"Invalid session"}`, body)
	_, metrics := get(t, "http://"+g.ops+"/metrics")
	require.Contains(t, metrics, `gatehouse_decisions_total{credential="",decision="deny",policy="user",reason="no_credential"} 1`)
	require.Contains(t, metrics, `gatehouse_decisions_total{credential="session",decision="deny",policy="user",reason="session_forged"} 1`)
	require.Contains(t, metrics, `gatehouse_decision_duration_seconds_count{decision="deny"} 2`)
	require.Regexp(t, `(?m)^gatehouse_build_info\{goversion="go1\.[^"]+",revision="[^"]*",version="[^"]+"\} 1$`, metrics)

	status, _ := get(t, "http://"+g.http+"/auth/me")
	require.Equal(t, 401, status)
	status, _ = get(t, "http://"+g.http+"/auth/anything/"+strings.Repeat("x", 50))
	require.Equal(t, 404, status)
	_, metrics = get(t, "http://"+g.ops+"/metrics")
	require.Contains(t, metrics, `gatehouse_auth_calls_total{call="me",status="401"} 1`)
	require.Contains(t, metrics, `gatehouse_auth_calls_total{call="unknown",status="404"} 1`)
	require.Contains(t, metrics, `gatehouse_auth_call_duration_seconds_count{call="me"} 1`)
	require.NotContains(t, metrics, "xxxx", "what a client makes up is no label")
}

func TestLogHoldsReasonsAndNoSecrets(t *testing.T) {
	g := start(t, onePolicy("embedded://"))
	secret := cookie(t, "the-session-id")
	secret["authorization"] = "Bearer the-token"
	secret["x-internal-api-key"] = "the-api-key"
	code, _ := ask(t, g.dial(t), secret)
	require.Equal(t, 401, code)
	entry := g.log.await(t, g.done, func(e map[string]any) bool { return e["msg"] == "check" })
	require.Equal(t, "deny", entry["decision"])
	require.Equal(t, "session_unknown", entry["reason"])
	require.Equal(t, "user", entry["policy"])
	require.Equal(t, "/orders", entry["path"], "without the query")
	for _, text := range []string{"the-session-id", "the-token", "the-api-key", testSecret, "page=2"} {
		require.NotContains(t, g.log.String(), text)
	}
}

func TestPublicKeysAreServed(t *testing.T) {
	g := start(t, anywhere(`redis: {url: "embedded://"}`))
	status, body := get(t, "http://"+g.http+"/.well-known/jwks.json")
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"keys":[]}`, body)
	status, body = get(t, "http://"+g.http+"/nothing")
	require.Equal(t, 404, status)
	require.Equal(t, `{"error":"Not found"}`, body)
	status, _ = get(t, "http://"+g.http+"/metrics")
	require.Equal(t, 404, status, "ops is elsewhere")
}

func TestConditionsAndRateLimitsOfPolicies(t *testing.T) {
	g := start(t, anywhere(`redis: {url: "embedded://", timeout: 5s}
policies:
  orders: {anonymous: true, condition: 'request.path == "/orders"', rate_limit: slow}
  nothing: {anonymous: true, condition: 'identity.id == "root"'}
routes: [{host: closed.example.com, policy: nothing}]
default_policy: orders
rate_limits: {slow: {by: address, limit: 2, per: 1h}}`))
	client := authv3.NewAuthorizationClient(g.dial(t))
	check := func(host string) *authv3.CheckResponse {
		request := checkRequest(nil)
		request.Attributes.Request.Http.Host = host
		response, err := client.Check(t.Context(), request)
		require.NoError(t, err)
		return response
	}
	require.Equal(t, `{"error":"Forbidden"}`, check("closed.example.com").GetDeniedResponse().GetBody())
	require.NotNil(t, check("").GetOkResponse())
	require.NotNil(t, check("").GetOkResponse())
	denied := check("").GetDeniedResponse()
	require.EqualValues(t, 429, denied.GetStatus().GetCode())
	require.Equal(t, `{"error":"Too many requests"}`, denied.GetBody())
	headers := map[string]string{}
	for _, h := range denied.GetHeaders() {
		headers[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	seconds, err := strconv.Atoi(headers["retry-after"])
	require.NoError(t, err)
	require.InDelta(t, 1800, seconds, 60)
}

// A check that is larger than grpc-go's default is still an answer: a gRPC
// error would be an allow under failure_mode_allow.
func TestLargeChecksAreAnswered(t *testing.T) {
	g := start(t, onePolicy("embedded://"))
	request := checkRequest(nil)
	request.Attributes.Request.Http.RawBody = make([]byte, 8<<20)
	conn := g.dial(t)
	response, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), request, grpc.MaxCallSendMsgSize(16<<20))
	require.NoError(t, err)
	require.EqualValues(t, 401, response.GetDeniedResponse().GetStatus().GetCode())
}

func TestSessionKindWithoutSecretsRefusesCookies(t *testing.T) {
	key := write(t, "key.pem", string(mustKey(t)))
	g := start(t, anywhere(`redis: {url: "embedded://"}
tokens: {issuer: "https://g.example", signing_keys: [{file: `+key+`}]}
policies: {user: {credentials: [session, bearer]}}
default_policy: user`))
	conn := g.dial(t)
	code, body := ask(t, conn, map[string]string{"cookie": "sessionId=s%3Aid.signature"})
	require.Equal(t, 401, code)
	require.Equal(t, `{"error":"Invalid session"}`, body)
	code, body = ask(t, conn, map[string]string{"authorization": "Bearer x"})
	require.Equal(t, 401, code)
	require.Equal(t, `{"error":"Invalid token"}`, body)
}

func mustKey(t *testing.T) []byte {
	t.Helper()
	key, err := token.GenerateKey("ES256")
	require.NoError(t, err)
	return key
}
