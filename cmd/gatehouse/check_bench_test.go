package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/internal/logging"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/recent"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// checkBench is everything that a check goes through but grpc, on a real Redis.
type checkBench struct {
	server *extauthz.Door
	gate   *gate
	key    *ecdsa.PrivateKey // of the issuer
}

const benchAPIKey = "a-key-that-only-the-benchmark-has"

func newCheckBench(tb testing.TB, policies ...string) *checkBench {
	tb.Helper()
	return newLoggedCheckBench(tb, slog.New(slog.DiscardHandler), policies...)
}

// newLoggedCheckBench is newCheckBench with a log.
func newLoggedCheckBench(tb testing.TB, log *slog.Logger, policies ...string) *checkBench {
	tb.Helper()
	proctest.Need(tb, "redis-server")
	r, err := proc.StartRedis(tb.Context(), proc.RedisOptions{Dir: tb.TempDir()})
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = r.Stop() })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(tb, err)
	keyFile := filepath.Join(tb.TempDir(), "issuer.pem")
	require.NoError(tb, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	signs, err := token.GenerateKey(token.AssertionAlgorithm)
	require.NoError(tb, err)
	signsFile := filepath.Join(tb.TempDir(), "assertion.pem")
	require.NoError(tb, os.WriteFile(signsFile, signs, 0o600))
	b := newChecks(tb, `
identity: {assertion: {issuer: "https://gateway.example.com", signing_keys: [{file: `+signsFile+`}]}}
redis: {url: "redis://`+r.Addr+`/0", timeout: 5s, cache: {heartbeat: 1m}}
sessions: {secrets: [0123456789abcdef0123456789abcdef]}
issuers: [{issuer: https://idp.example.com, public_key_file: `+keyFile+`, algorithms: [ES256], audiences: [api]}]
api_keys: [{name: bench, sha256: `+fmt.Sprintf("%x", sha256.Sum256([]byte(benchAPIKey)))+`, policies: [api_key]}]
policies:
  session: {credentials: [session]}
  signed: {credentials: [session], assertion: {audience: orders}}
  bearer: {credentials: [bearer]}
  api_key: {credentials: [api_key]}
  limited: {credentials: [session], rate_limit: many}
`+strings.Join(policies, "\n")+`
rate_limits: {many: {by: user, limit: 1000000, per: 1s}}
default_policy: session
`, log)
	b.key = key
	return b
}

// newChecks is what answers checks by a configuration. Its cache is coherent.
func newChecks(tb testing.TB, config string, log *slog.Logger) *checkBench {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "gatehouse.yaml")
	require.NoError(tb, os.WriteFile(file, []byte(config), 0o600))
	c, err := configFile{file, func(string) (string, bool) { return "", false }}.load()
	require.NoError(tb, err)
	g, err := newGeneration(c, nil, instrumentsFor(log, prometheus.NewRegistry()))
	require.NoError(tb, err)
	current := &live{}
	current.replace(g)
	ctx := tb.Context()
	g.parts.start(func(run func(context.Context) error) func() {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			assert.NoError(tb, run(ctx))
		}()
		return func() { <-ended }
	})
	tb.Cleanup(func() { require.NoError(tb, g.close()) })
	require.Eventually(tb, func() bool { st, _ := current.cacheState(); return st.Live }, 10*time.Second, time.Millisecond)
	return &checkBench{gate: g.gate, server: extauthz.NewDoor(current)}
}

// instrumentsFor are those of a server.
func instrumentsFor(log *slog.Logger, reg *prometheus.Registry) instruments {
	latest := recent.New()
	return instruments{
		log: log, decisions: latest.With(telemetry.NewRecorder(log, reg)), recent: latest, calls: telemetry.NewCalls(reg),
		steps: telemetry.NewSteps(reg), store: telemetry.NewStoreCalls(reg),
	}
}

// session makes a session and returns a check that shows it, as Envoy sends it.
func (c *checkBench) session(tb testing.TB, user int) []byte {
	tb.Helper()
	return c.sessionUnder(tb, "session", user)
}

// sessionUnder is session, under a policy.
func (c *checkBench) sessionUnder(tb testing.TB, policy string, user int) []byte {
	tb.Helper()
	l := session.NewSession{}
	l.ID, l.Email, l.Organization = fmt.Sprint("user-", user), fmt.Sprintf("user-%d@example.com", user), "org-1"
	l.Roles = []string{"member", "sales"}
	id, err := c.gate.store.Create(tb.Context(), l)
	require.NoError(tb, err)
	return benchCheck(tb, policy, "cookie", "theme=dark; sessionId="+c.gate.signer.Sign(id))
}

// bearer makes a token and returns a check that shows it.
func (c *checkBench) bearer(tb testing.TB, user int) []byte {
	tb.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: c.key}, nil)
	require.NoError(tb, err)
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": "https://idp.example.com", "aud": "api", "sub": fmt.Sprint("user-", user), "jti": fmt.Sprint("token-", user),
		"email": "user@example.com", "roles": []string{"member", "sales"}, "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
	}).Serialize()
	require.NoError(tb, err)
	return benchCheck(tb, "bearer", "authorization", "Bearer "+token)
}

func apiKeyCheck(tb testing.TB) []byte {
	tb.Helper()
	return benchCheck(tb, "api_key", "x-internal-api-key", benchAPIKey)
}

// benchCheck is a check as Envoy sends it.
func benchCheck(tb testing.TB, policy, header, value string) []byte {
	tb.Helper()
	data, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 40000}},
		}}},
		Destination: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 8080}},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "1234567890123456789", Method: "GET", Path: "/orders/42?expand=items", Host: "gateway.example.com", Scheme: "http", Protocol: "HTTP/1.1",
			Headers: map[string]string{
				":authority": "gateway.example.com", ":path": "/orders/42?expand=items", ":method": "GET", ":scheme": "http",
				"user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "accept": "application/json", "accept-language": "en-GB,en;q=0.9",
				header: value, "x-request-id": "2b9b7c0e-51c3-4b5b-9df1-6f3d6ad2f2a1", "sec-fetch-site": "same-origin",
			},
		}},
		ContextExtensions: map[string]string{"policy": policy},
		MetadataContext:   &corev3.Metadata{}, RouteMetadataContext: &corev3.Metadata{},
	}})
	require.NoError(tb, err)
	return data
}

// commands is how many commands Redis has executed.
func (c *checkBench) commands(tb testing.TB) (n int) {
	tb.Helper()
	info, err := c.gate.client.Info(tb.Context(), "stats").Result()
	require.NoError(tb, err)
	for line := range strings.Lines(info) {
		if _, err := fmt.Sscanf(line, "total_commands_processed:%d", &n); err == nil {
			return n
		}
	}
	require.Fail(tb, "no total_commands_processed")
	return 0
}

// In the steady state, checks leave Redis alone and make no garbage.
func TestCachedChecksAskNothingAndMakeNoGarbage(t *testing.T) {
	b := newCheckBench(t)
	const users = 1000
	sessions, tokens, signed := make([][]byte, users), make([][]byte, users), make([][]byte, users)
	for i := range users {
		sessions[i], tokens[i], signed[i] = b.session(t, i), b.bearer(t, i), b.sessionUnder(t, "signed", i)
	}
	for name, requests := range map[string][][]byte{"session": sessions, "session, signed": signed, "bearer": tokens, "api key": {apiKeyCheck(t)}} {
		t.Run(name, func(t *testing.T) {
			reply := make([]byte, 0, 4096)
			answer := func(i int) {
				if _, err := b.server.Answer(t.Context(), requests[i%len(requests)], reply); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 3 * len(requests) {
				answer(i)
			}
			var allowed authv3.CheckResponse
			response, err := b.server.Answer(t.Context(), requests[0], nil)
			require.NoError(t, err)
			require.NoError(t, proto.Unmarshal(response, &allowed))
			require.NotNil(t, allowed.GetOkResponse())
			before, began := b.commands(t), time.Now()
			for i := range cachedChecks {
				answer(i)
			}
			byTheClock := 50 * int(time.Since(began)/time.Second+1) // whatever is checked meanwhile: heartbeats and the like
			require.Less(t, b.commands(t)-before, cachedChecks/100+byTheClock, "ten commands for a thousand checks")

			if raceDetector {
				t.Skip("skipped: under the race detector pools forget on purpose, so garbage can't be counted")
			}
			i := 0
			require.Zero(t, testing.AllocsPerRun(5000, func() {
				answer(i)
				i++
			}))
		})
	}
}

// A rate limit costs one question, by the hash of its script, and nothing else: the
// session is known.
func TestLimitedChecksAskOnce(t *testing.T) {
	b := newCheckBench(t)
	request := b.sessionUnder(t, "limited", 1)
	answer := func() *authv3.CheckResponse {
		var response authv3.CheckResponse
		reply, err := b.server.Answer(t.Context(), request, nil)
		require.NoError(t, err)
		require.NoError(t, proto.Unmarshal(reply, &response))
		require.NotNil(t, response.GetOkResponse())
		return &response
	}
	for range 3 {
		answer()
	}
	require.NoError(t, b.gate.client.ConfigResetStat(t.Context()).Err())
	const checks = 500
	for range checks {
		require.Len(t, answer().GetOkResponse().GetResponseHeadersToAdd(), 2)
	}
	text, err := b.gate.client.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	calls := map[string]int{}
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		n, _, _ := strings.Cut(rest, ",")
		calls[name], _ = strconv.Atoi(n)
	}
	require.Equal(t, checks, calls["evalsha"])
	require.Equal(t, checks, calls["get"], "the script's own")
	require.Zero(t, calls["eval"])
}

// What one policy reads of the record costs no other one anything.
func TestARecordThatOnePolicyReadsMakesNoGarbageForOthers(t *testing.T) {
	b := newCheckBench(t, "  told: {credentials: [session], headers: {x-plan: session.plan, x-kind: identity.kind}, metadata: {plan: session.plan}}")
	l := session.NewSession{Values: map[string]any{"plan": "pro", "cart": []string{"a", "b"}}}
	l.ID = "alice"
	id, err := b.gate.store.Create(t.Context(), l)
	require.NoError(t, err)
	check := func(policy string) []byte {
		return benchCheck(t, policy, "cookie", "sessionId="+b.gate.signer.Sign(id))
	}
	told, untold := check("told"), check("session")
	for range 3 {
		var allowed authv3.CheckResponse
		response, err := b.server.Answer(t.Context(), told, nil)
		require.NoError(t, err)
		require.NoError(t, proto.Unmarshal(response, &allowed))
		set := map[string]string{}
		for _, h := range allowed.GetOkResponse().GetHeaders() {
			set[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
		}
		require.Equal(t, map[string]string{"x-user-id": "alice", "x-user-roles": "[]", "x-plan": "pro", "x-kind": "session"}, set)
		require.Equal(t, "pro", allowed.GetDynamicMetadata().GetFields()["plan"].GetStringValue())
		_, err = b.server.Answer(t.Context(), untold, nil)
		require.NoError(t, err)
	}
	if raceDetector {
		t.Skip("skipped: under the race detector pools forget on purpose, so garbage can't be counted")
	}
	reply := make([]byte, 0, 4096)
	require.Zero(t, testing.AllocsPerRun(5000, func() {
		if _, err := b.server.Answer(t.Context(), untold, reply); err != nil {
			t.Fatal(err)
		}
	}))
}

// One check of a cached session, from bytes to bytes.
func BenchmarkCheck(b *testing.B) {
	for _, sessions := range []int{1000, 200_000} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			bench := newCheckBench(b)
			bench.measure(b.Context(), b, many(min(sessions, 5000), func(i int) []byte { return bench.session(b, i) }))
		})
	}
}

// One check of a cached session, with and without the identity signed for the service.
func BenchmarkSignedCheck(b *testing.B) {
	for _, policy := range []string{"session", "signed"} {
		b.Run(policy, func(b *testing.B) {
			bench := newCheckBench(b)
			bench.measure(b.Context(), b, many(1000, func(i int) []byte { return bench.sessionUnder(b, policy, i) }))
		})
	}
}

// One check of a cached session under a rate limit: its one round trip included.
func BenchmarkLimitedCheck(b *testing.B) {
	bench := newCheckBench(b)
	bench.measure(b.Context(), b, many(1000, func(i int) []byte { return bench.sessionUnder(b, "limited", i) }))
}

// One check that is refused, by what becomes of its line in the log.
func BenchmarkRefusedCheck(b *testing.B) {
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(b, err)
	defer func() { require.NoError(b, nowhere.Close()) }()
	queue := logging.NewQueue(nowhere)
	defer func() { require.NoError(b, queue.Close(patience)) }()
	for name, log := range map[string]*slog.Logger{
		"queued": logging.New(queue, logging.Options{}), "not logged": slog.New(slog.DiscardHandler), "json": logging.New(nowhere, logging.Options{}), "text": logging.New(nowhere, logging.Options{Text: true}),
	} {
		for credential, cookie := range map[string]string{"none": "theme=dark", "forged": "sessionId=s%3Abm90LWEtc2Vzc2lvbi1vZi1vdXJz.Zm9yZ2VkLWJ5LXNvbWVib2R5LXdobw"} {
			b.Run(credential+"/"+name, func(b *testing.B) {
				bench := newLoggedCheckBench(b, log)
				bench.measure(b.Context(), b, [][]byte{benchCheck(b, "session", "cookie", cookie)})
			})
		}
	}
}

// many are so many requests.
func many(n int, request func(int) []byte) [][]byte {
	requests := make([][]byte, n)
	for i := range requests {
		requests[i] = request(i)
	}
	return requests
}

// measure answers requests in turn, after each was answered twice.
func (c *checkBench) measure(ctx context.Context, b *testing.B, requests [][]byte) {
	b.Helper()
	reply := make([]byte, 0, 4096)
	answer := func(i int) {
		if _, err := c.server.Answer(ctx, requests[i%len(requests)], reply); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 2 * len(requests) {
		answer(i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		answer(i)
		i++
	}
}

// tracedConfig has traces sent to a collector that isn't there.
const tracedConfig = "\ntracing: {otlp: {endpoint: '127.0.0.1:1', insecure: true}}"

// fromGateway is the context of a check from a gateway that traces.
func fromGateway(tb testing.TB, flags string) context.Context {
	tb.Helper()
	return metadata.NewIncomingContext(tb.Context(), metadata.Pairs("traceparent", "00-11111111111111111111111111111111-2222222222222222-"+flags))
}

// What the gateway doesn't record costs a look at what it says; and where it says
// nothing, not even that.
func TestChecksThatAreNotRecordedMakeNearlyNoGarbage(t *testing.T) {
	b := newCheckBench(t, tracedConfig[1:])
	request := b.session(t, 1)
	reply := make([]byte, 0, 4096)
	for name, tc := range map[string]struct {
		from func(testing.TB) context.Context
		most float64
	}{
		"the gateway doesn't trace":     {func(tb testing.TB) context.Context { tb.Helper(); return tb.Context() }, 0},
		"the gateway doesn't record it": {func(tb testing.TB) context.Context { tb.Helper(); return fromGateway(tb, "00") }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := tc.from(t)
			answer := func() {
				if _, err := b.server.Answer(ctx, request, reply); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				answer()
			}
			if raceDetector {
				t.Skip("skipped: under the race detector pools forget on purpose, so garbage can't be counted")
			}
			require.LessOrEqual(t, testing.AllocsPerRun(5000, answer), tc.most)
		})
	}
}

// One check of a cached session, by what becomes of its trace.
func BenchmarkTracedCheck(b *testing.B) {
	for _, c := range []struct{ name, config, flags string }{
		{"off", "", "01"}, {"no parent", tracedConfig, ""}, {"not recorded", tracedConfig, "00"}, {"recorded", tracedConfig, "01"},
	} {
		b.Run(c.name, func(b *testing.B) {
			bench := newCheckBench(b, strings.TrimPrefix(c.config, "\n"))
			ctx := b.Context()
			if c.flags != "" {
				ctx = fromGateway(b, c.flags)
			}
			bench.measure(ctx, b, [][]byte{bench.session(b, 1)})
		})
	}
}
