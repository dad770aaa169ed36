package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// floodBench answers checks over a real Redis, and takes tokens of an issuer that
// publishes its keys and counts how often they are fetched.
type floodBench struct {
	*checkBench
	issuer  string
	key     *ecdsa.PrivateKey
	fetches *atomic.Int64
	began   time.Time
}

const (
	floodCool  = 10 * time.Second
	largeToken = 8 << 10
)

func newFloodBench(t *testing.T) *floodBench {
	t.Helper()
	r := proctest.StartRedis(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	f := &floodBench{key: key, fetches: &atomic.Int64{}}
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		f.fetches.Add(1)
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "known", Algorithm: "ES256", Use: "sig"}}})
	}))
	t.Cleanup(issuer.Close)
	f.issuer = issuer.URL
	f.checkBench = newChecks(t, `
redis: {url: "redis://`+r.Addr+`/0", timeout: 5s, cache: {heartbeat: 5s}}
sessions: {secrets: ["`+testSecret+`"]}
issuers: [{issuer: "`+issuer.URL+`", jwks_url: "`+issuer.URL+`/jwks", algorithms: [ES256], audiences: [api]}]
policies:
  either: {credentials: [session, bearer]}
default_policy: either
`, slog.New(slog.DiscardHandler))
	f.began = time.Now()
	return f
}

// answer returns the status of a check, 0 where it is allowed.
func (f *floodBench) answer(t *testing.T, header, value string) int {
	t.Helper()
	var response authv3.CheckResponse
	reply, err := f.server.Answer(t.Context(), benchCheck(t, "either", header, value), nil)
	require.NoError(t, err)
	require.NoError(t, proto.Unmarshal(reply, &response))
	if response.GetOkResponse() != nil {
		return 0
	}
	return int(response.GetDeniedResponse().GetStatus().GetCode())
}

// token is one of the issuer's.
func (f *floodBench) token(t *testing.T) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: f.key, KeyID: "known"}}, nil)
	require.NoError(t, err)
	token, err := jwt.Signed(signer).Claims(f.claims("alice")).Serialize()
	require.NoError(t, err)
	return token
}

func (f *floodBench) claims(user string) map[string]any {
	return map[string]any{"iss": f.issuer, "aud": "api", "sub": user, "jti": user, "exp": time.Now().Add(time.Hour).Unix()}
}

// unsigned looks like a token of the issuer, but for its signature.
func (f *floodBench) unsigned(t *testing.T, kid, user string) string {
	t.Helper()
	payload, err := json.Marshal(f.claims(user))
	require.NoError(t, err)
	part := base64.RawURLEncoding.EncodeToString
	return part(fmt.Appendf(nil, `{"alg":"ES256","kid":%q}`, kid)) + "." + part(payload)
}

// noise is another signature each time.
func noise() string {
	signature := make([]byte, 64)
	_, _ = rand.Read(signature)
	return "." + base64.RawURLEncoding.EncodeToString(signature)
}

// asked are the commands that Redis has got but for what keeps the cache coherent.
func (f *floodBench) asked(t *testing.T) map[string]int {
	t.Helper()
	text, err := f.gate.client.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	calls := map[string]int{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if ok {
			var n int
			_, _ = fmt.Sscanf(rest, "%d", &n)
			calls[name] = n
		}
	}
	maps.DeleteFunc(calls, func(name string, _ int) bool {
		switch name {
		case "info", "hello", "ping", "config|resetstat":
			return true
		}
		return strings.HasPrefix(name, "client|")
	})
	return calls
}

// heap is how much memory is in use, garbage not counted.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// alike runs a flood, and requires that it costs Redis nothing, nor memory, the
// issuer one fetch for each cool-down, and that others are still known without
// asking anybody.
func (f *floodBench) alike(t *testing.T, want int, attack func(i int) (header, value string)) {
	t.Helper()
	good := f.token(t)
	id, err := f.gate.store.Create(t.Context(), session.NewSession{Identity: authz.Identity{ID: "bob"}})
	require.NoError(t, err)
	cookie := "sessionId=" + f.gate.signer.Sign(id)
	known := func() {
		t.Helper()
		require.Zero(t, f.answer(t, "authorization", "Bearer "+good))
		require.Zero(t, f.answer(t, "cookie", cookie))
	}
	for range 3 {
		known()
	}
	require.NoError(t, f.gate.client.ConfigResetStat(t.Context()).Err())
	entries, fetched, began, before := f.gate.store.CacheStats().Entries, f.fetches.Load(), time.Now(), heap()
	for i := range floodChecks {
		header, value := attack(i)
		if status := f.answer(t, header, value); status != want {
			require.Equal(t, want, status, "check %d, %s of %d bytes", i, header, len(value))
		}
	}
	asked := f.asked(t)
	// Whether anybody follows the feed of revocations is looked at every 15 s.
	require.LessOrEqual(t, asked["exists"], 1+int(time.Since(began)/(15*time.Second)))
	delete(asked, "exists")
	require.Empty(t, asked, "Redis was asked nothing")
	require.LessOrEqual(t, f.fetches.Load()-fetched, 1+int64(time.Since(began)/floodCool))
	require.Equal(t, entries, f.gate.store.CacheStats().Entries)
	_, remembered := f.gate.verifier.Remembered(good)
	require.True(t, remembered, "others' tokens are not verified again")
	known()
	require.Less(t, heap()-before, int64(16<<20))
}

func TestForgedCookiesCostNothing(t *testing.T) {
	f := newFloodBench(t)
	other, err := session.NewSigner([]string{"a secret that signs nothing here, ever"})
	require.NoError(t, err)
	huge := strings.Repeat("x", 32<<10)
	f.alike(t, http.StatusUnauthorized, func(i int) (string, string) {
		id := fmt.Sprint("session-of-somebody-", i)
		value := ""
		switch i % 8 {
		case 0:
			value = other.Sign(id)
		case 1: // of another id
			value = strings.Replace(f.gate.signer.Sign(fmt.Sprint("session-of-somebody-", i+1)), fmt.Sprint(i+1), fmt.Sprint(i), 1)
		case 2:
			value = "s%3A" + id
		case 3:
			value = "s%3A" + id + "." + strings.Repeat("A", 43)
		case 4:
			value = "s%3A" + id + huge + ".A"
		case 5:
			value = "%zz" + id + "%"
		case 6:
			value = id + strings.Repeat(".", 4<<10)
		case 7:
			value = "s%3A." + fmt.Sprint(i)
		}
		return "cookie", "sessionId=" + value
	})
}

func TestUnknownKidsCostTheIssuerOneFetch(t *testing.T) {
	f := newFloodBench(t)
	f.alike(t, http.StatusUnauthorized, func(i int) (string, string) {
		return "authorization", "Bearer " + f.unsigned(t, fmt.Sprint("kid-", i), "alice") + noise()
	})
	require.LessOrEqual(t, f.fetches.Load(), 2+int64(time.Since(f.began)/floodCool))
}

func TestLargeTokensCostNothing(t *testing.T) {
	f := newFloodBench(t)
	// Tokens of just under the limit are verified; what is above it is not looked at.
	shortest := len(f.unsigned(t, "known", "") + noise())
	var tokens []string
	for _, bytes := range []int{largeToken - 64, largeToken + 64, 4 * largeToken} {
		user := strings.Repeat("u", (bytes-shortest)*3/8) // it stands there twice, in base64
		tokens = append(tokens, f.unsigned(t, "known", user))
	}
	within, above := 0, 0
	f.alike(t, http.StatusUnauthorized, func(i int) (string, string) {
		token := tokens[i%3] + noise()
		if len(token) <= largeToken {
			within++
		} else {
			above++
		}
		return "authorization", "Bearer " + token
	})
	require.Equal(t, (floodChecks+2)/3, within)
	require.Equal(t, floodChecks-within, above)
}

// A cookie that was good once, and is shown again and again: Redis is asked once, and
// says when it would be good again. So many that were good once are a question each,
// and none for the next round.
func TestCookiesOfFormerSessionsAreAskedForOnce(t *testing.T) {
	f := newFloodBench(t)
	cookies := make([]string, 1000)
	for i := range cookies {
		cookies[i] = "sessionId=" + f.gate.signer.Sign(fmt.Sprint("former-", i))
	}
	show := func(cookie string) {
		t.Helper()
		require.Equal(t, http.StatusUnauthorized, f.answer(t, "cookie", cookie))
	}
	require.NoError(t, f.gate.client.ConfigResetStat(t.Context()).Err())
	for range floodChecks {
		show(cookies[0])
	}
	asked := f.asked(t)
	require.LessOrEqual(t, asked["evalsha"], 20, "where the cache is in doubt for a moment, it is asked again")
	for range 3 {
		for _, cookie := range cookies {
			show(cookie)
		}
	}
	asked = f.asked(t)
	require.LessOrEqual(t, asked["evalsha"], len(cookies)*3/2)
	require.GreaterOrEqual(t, asked["evalsha"], len(cookies))

	require.NoError(t, f.gate.client.Set(t.Context(), "sess:former-0", `{"userId":"u"}`, time.Hour).Err())
	require.Eventually(t, func() bool { return f.answer(t, "cookie", cookies[0]) == 0 }, patience, time.Millisecond)
}
