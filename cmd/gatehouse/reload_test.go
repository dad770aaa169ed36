//go:build unix

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/users"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// config returns what /readyz says of the configuration.
func (r *running) config(t *testing.T) configDetail {
	t.Helper()
	_, body := get(t, "http://"+r.ops+"/readyz")
	var detail readyDetail
	require.NoError(t, json.Unmarshal([]byte(body), &detail))
	return detail.Config
}

// applies waits until a change has made another generation.
func (r *running) applies(t *testing.T, change func()) configDetail {
	t.Helper()
	before := r.config(t).Generation
	change()
	var now configDetail
	until(t, "the change is applied", func() bool {
		now = r.config(t)
		return now.Generation > before && now.State == "current"
	})
	return now
}

// rejects waits until a change was refused.
func (r *running) rejects(t *testing.T, change func()) configDetail {
	t.Helper()
	before := r.config(t)
	change()
	var now configDetail
	until(t, "the change is rejected", func() bool {
		now = r.config(t)
		return now.State == "rejected" && now.Error != before.Error
	})
	require.Equal(t, before.Generation, now.Generation, "what runs goes on")
	require.Equal(t, before.Hash, now.Hash)
	require.Equal(t, before.Loaded, now.Loaded)
	return now
}

// metric returns the value of a series, "" where there is none.
func (r *running) metric(t *testing.T, series string) string {
	t.Helper()
	_, text := get(t, "http://"+r.ops+"/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// hangUp sends the signal that daemons get for a reload.
func hangUp(t *testing.T) {
	t.Helper()
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
}

func save(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// saveOver writes another file and gives it the name.
func saveOver(t *testing.T, path, text string) {
	t.Helper()
	save(t, path+".new", text)
	require.NoError(t, os.Rename(path+".new", path))
}

// openPolicy is a configuration in which the default policy lets everybody
// through, or nobody.
func openPolicy(open bool) string {
	return anywhere(`redis: {url: "embedded://"}
policies: {all: {anonymous: true}}
` + map[bool]string{true: "default_policy: all"}[open])
}

// However a file comes to have another content, it takes effect.
func TestEveryWayToChangeAFileIsNoticed(t *testing.T) {
	// Kubernetes mounts a ConfigMap as links through ..data, which it replaces.
	configMap := func(t *testing.T, dir, version, text string) {
		t.Helper()
		require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		save(t, filepath.Join(dir, version, "gatehouse.yaml"), text)
		require.NoError(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	for name, test := range map[string]struct {
		prepare func(t *testing.T, dir string) (file string)
		change  func(t *testing.T, dir, text string)
		slow    bool // what is not yet whole may be seen where the machine is busy
	}{
		"written in place": {change: func(t *testing.T, dir, text string) {
			t.Helper()
			save(t, dir+"/gatehouse.yaml", text)
		}},
		"written bit by bit": {slow: true, change: func(t *testing.T, dir, text string) {
			t.Helper()
			f, err := os.Create(dir + "/gatehouse.yaml")
			require.NoError(t, err)
			for part := range slices.Chunk([]byte(text), 20) {
				_, err := f.Write(part)
				require.NoError(t, err)
				time.Sleep(5 * time.Millisecond)
			}
			require.NoError(t, f.Close())
		}},
		"renamed over": {change: func(t *testing.T, dir, text string) {
			t.Helper()
			saveOver(t, dir+"/gatehouse.yaml", text)
		}},
		"an editor's save with a backup": {change: func(t *testing.T, dir, text string) {
			t.Helper()
			require.NoError(t, os.Rename(dir+"/gatehouse.yaml", dir+"/gatehouse.yaml~"))
			save(t, dir+"/gatehouse.yaml", text)
			require.NoError(t, os.Remove(dir+"/gatehouse.yaml~"))
		}},
		"a ConfigMap": {
			prepare: func(t *testing.T, dir string) string {
				t.Helper()
				configMap(t, dir, "..2026_01", openPolicy(false))
				require.NoError(t, os.Symlink("..data/gatehouse.yaml", dir+"/gatehouse.yaml"))
				return dir + "/gatehouse.yaml"
			},
			change: func(t *testing.T, dir, text string) {
				t.Helper()
				before, err := os.Readlink(dir + "/..data")
				require.NoError(t, err)
				configMap(t, dir, before+"x", text)
				require.NoError(t, os.RemoveAll(filepath.Join(dir, before)))
			},
		},
		"a link to a link in another directory": {
			prepare: func(t *testing.T, dir string) string {
				t.Helper()
				for _, d := range []string{"a", "b", "c"} {
					require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o700))
				}
				save(t, dir+"/c/file", openPolicy(false))
				require.NoError(t, os.Symlink(dir+"/c/file", dir+"/b/link"))
				require.NoError(t, os.Symlink("../b/link", dir+"/a/gatehouse.yaml"))
				return dir + "/a/gatehouse.yaml"
			},
			change: func(t *testing.T, dir, text string) {
				t.Helper()
				saveOver(t, dir+"/c/file", text)
			},
		},
		"the directory is replaced": {
			prepare: func(t *testing.T, dir string) string {
				t.Helper()
				require.NoError(t, os.Mkdir(dir+"/conf", 0o700))
				save(t, dir+"/conf/gatehouse.yaml", openPolicy(false))
				return dir + "/conf/gatehouse.yaml"
			},
			change: func(t *testing.T, dir, text string) {
				t.Helper()
				require.NoError(t, os.Mkdir(dir+"/next", 0o700))
				save(t, dir+"/next/gatehouse.yaml", text)
				require.NoError(t, os.RemoveAll(dir+"/old"))
				require.NoError(t, os.Rename(dir+"/conf", dir+"/old"))
				require.NoError(t, os.Rename(dir+"/next", dir+"/conf"))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "gatehouse.yaml")
			if test.prepare != nil {
				file = test.prepare(t, dir)
			} else {
				save(t, file, openPolicy(false))
			}
			g := startAt(t, file)
			conn := g.dial(t)
			for i := range 4 { // what is watched must follow the links
				open := i%2 == 0
				before := g.config(t).Generation
				now := g.applies(t, func() { test.change(t, dir, openPolicy(open)) })
				if test.slow {
					until(t, "applied as a whole", func() bool { status, _ := ask(t, conn, nil); return open == (status == 0) })
					continue
				}
				require.Equal(t, before+1, now.Generation, "one change, one generation")
				status, _ := ask(t, conn, nil)
				require.Equal(t, open, status == 0)
			}
			if test.slow {
				return
			}
			require.Equal(t, "4", g.metric(t, `gatehouse_config_reloads_total{result="applied"}`))
			require.Equal(t, "0", g.metric(t, `gatehouse_config_reloads_total{result="rejected"}`))
		})
	}
}

func TestHangUpReadsTheConfigurationAgain(t *testing.T) {
	g := start(t, openPolicy(false))
	hangUp(t)
	g.log.await(t, g.done, func(e map[string]any) bool { return e["msg"] == "configuration read again: it is what runs" })
	require.Equal(t, "1", g.metric(t, `gatehouse_config_reloads_total{result="unchanged"}`))
	require.Equal(t, 1, g.config(t).Generation)
	g.applies(t, func() {
		save(t, g.file, openPolicy(true))
		hangUp(t)
	})
	status, _ := ask(t, g.dial(t), nil)
	require.Zero(t, status)
}

// Without notifications, as on a network file system, files are compared.
func TestFilesAreComparedWhereNoNotificationComes(t *testing.T) {
	file := write(t, "gatehouse.yaml", openPolicy(false))
	from := configFile{path: file}
	c, err := from.load()
	require.NoError(t, err)
	log, _ := newLogger(c.cfg.Log, io.Discard)
	first, err := newGeneration(c, nil, instruments{log: log})
	require.NoError(t, err)
	current := &live{}
	current.replace(first)
	ctx, cancel := context.WithCancel(t.Context())
	var background sync.WaitGroup
	r := &reloader{
		file: from, in: instruments{log: log}, live: current, health: newConfigHealth(prometheus.NewRegistry(), first),
		poll: 10 * time.Millisecond, watcher: &watcher{},
		spawn: func(run func(context.Context) error) func() {
			ctx, cancel := context.WithCancel(ctx)
			background.Go(func() { _ = run(ctx) })
			return cancel
		},
	}
	background.Go(func() { r.run(ctx) })
	save(t, file, openPolicy(true))
	until(t, "applied", func() bool {
		g, held := current.acquire()
		defer held.Release()
		return g.number == 2
	})
	cancel()
	background.Wait()
	require.NoError(t, current.now.Load().close())
}

// setHeaders sends one check and returns the status, 0 for allowed, and the headers
// that the service gets.
func setHeaders(t *testing.T, conn *grpc.ClientConn, change func(*authv3.AttributeContext_HttpRequest)) (status int, set map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request := checkRequest(map[string]string{})
	change(request.Attributes.Request.Http)
	response, err := authv3.NewAuthorizationClient(conn).Check(ctx, request)
	require.NoError(t, err)
	set = map[string]string{}
	for _, h := range response.GetOkResponse().GetHeaders() {
		set[h.GetHeader().GetKey()] = h.GetHeader().GetValue() + string(h.GetHeader().GetRawValue())
	}
	return int(response.GetDeniedResponse().GetStatus().GetCode()), set
}

// as asks with a session cookie.
func as(t *testing.T, conn *grpc.ClientConn, id string) int {
	t.Helper()
	status, _ := ask(t, conn, cookie(t, id))
	return status
}

// post calls the auth API.
func (r *running) post(t *testing.T, path, body string) (status int, answer string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.http+path, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}

// reloadStore is a Redis with the sessions of alice, who has role a, and bob, who
// has role b.
func reloadStore(t *testing.T) (client *redis.Client, url string) {
	t.Helper()
	proctest.Need(t, "redis-server")
	server := proctest.StartRedis(t)
	client = redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = client.Close() })
	for id, user := range map[string]string{"id-a": "alice", "id-b": "bob"} {
		record := fmt.Sprintf(`{"cookie":{"originalMaxAge":3600000},"userId":%q,"roles":[%q]}`, user, id[3:])
		require.NoError(t, client.Set(t.Context(), "sess:"+id, record, time.Hour).Err())
	}
	return client, "redis://" + server.Addr
}

func TestPoliciesAndRoutesChangeUnderWay(t *testing.T) {
	_, url := reloadStore(t)
	text := func(more string) string {
		return anywhere(`redis: {url: "` + url + `", timeout: 5s}
sessions: {secrets: ["` + testSecret + `"]}
log: {level: debug}
` + more)
	}
	g := start(t, text(`policies: {user: {credentials: [session]}}
default_policy: user`))
	conn := g.dial(t)
	until(t, "it is let in", func() bool { return as(t, conn, "id-b") == 0 })

	g.applies(t, func() {
		save(t, g.file, text(`policies: {user: {credentials: [session], roles: {any: [a]}}}
default_policy: user`))
	})
	require.Equal(t, 403, as(t, conn, "id-b"), "a policy")
	require.Zero(t, as(t, conn, "id-a"))

	g.applies(t, func() {
		save(t, g.file, text(`policies: {user: {credentials: [session], roles: {any: [a]}}, open: {anonymous: true}}
routes: [{path: /orders, policy: open}]
default_policy: user`))
	})
	status, _ := ask(t, conn, nil)
	require.Zero(t, status, "a route")

	g.applies(t, func() {
		save(t, g.file, text(`policies: {open: {anonymous: true}, user: {credentials: [session], mode: observe, csrf: false}}
default_policy: user`))
	})
	for _, part := range []string{"policy user only observes now", "asks for no roles any more", "pages of other sites act"} {
		g.log.await(t, g.done, func(e map[string]any) bool {
			warning, _ := e["warning"].(string)
			return e["level"] == "WARN" && strings.Contains(warning, part)
		})
	}
	g.applies(t, func() { save(t, g.file, text(`policies: {open: {anonymous: true}}`)) })
	for _, part := range []string{"policy user is gone", "default_policy is gone"} {
		g.log.await(t, g.done, func(e map[string]any) bool {
			warning, _ := e["warning"].(string)
			return e["level"] == "WARN" && strings.Contains(warning, part)
		})
	}
	status, _ = ask(t, conn, nil)
	require.Equal(t, 403, status)
}

func TestKeysOfCallersComeAndGo(t *testing.T) {
	key := func(name string) string {
		sum := sha256.Sum256([]byte("key of " + name))
		return "{name: " + name + ", sha256: " + hex.EncodeToString(sum[:]) + ", policies: [internal]}"
	}
	text := func(keys ...string) string {
		return anywhere(`redis: {url: "embedded://"}
api_keys: [` + strings.Join(keys, ", ") + `]
policies: {internal: {credentials: [api_key]}}
default_policy: internal`)
	}
	g := start(t, text(key("billing")))
	conn := g.dial(t)
	caller := func(name string) int {
		status, _ := ask(t, conn, map[string]string{"x-internal-api-key": "key of " + name})
		return status
	}
	require.Zero(t, caller("billing"))
	require.Equal(t, 403, caller("reports"))
	g.applies(t, func() { save(t, g.file, text(key("billing"), key("reports"))) })
	require.Zero(t, caller("billing"))
	require.Zero(t, caller("reports"))
	g.applies(t, func() { save(t, g.file, text(key("reports"))) })
	require.Equal(t, 403, caller("billing"))
	require.Zero(t, caller("reports"))
}

// The users file and the signing keys are files that the configuration names: they
// change while it stays the same.
func TestUsersAndSigningKeysChangeUnderWay(t *testing.T) {
	dir := t.TempDir()
	usersWith := func(password string) string {
		hash, err := users.Hash(password)
		require.NoError(t, err)
		return "users: [{id: alice, email: alice@example.com, password_hash: '" + hash + "'}]\n"
	}
	save(t, dir+"/users.yaml", usersWith("old password"))
	previous, next := string(mustKey(t)), string(mustKey(t))
	save(t, dir+"/current.pem", previous)
	save(t, dir+"/previous.pem", previous)
	save(t, dir+"/gatehouse.yaml", anywhere(`redis: {url: "embedded://", timeout: 5s}
tokens: {issuer: "https://g.example", signing_keys: [{file: current.pem}, {file: previous.pem}]}
users: {file: users.yaml}
policies: {user: {credentials: [bearer]}}
default_policy: user`))
	g := startAt(t, dir+"/gatehouse.yaml")
	conn := g.dial(t)
	login := func(password string) (status int, accessToken string) {
		status, body := g.post(t, "/auth/token", `{"email":"alice@example.com","password":"`+password+`","client":"mobile"}`)
		var answer struct{ AccessToken string }
		require.NoError(t, json.Unmarshal([]byte(body), &answer))
		return status, answer.AccessToken
	}
	bearer := func(accessToken string) int {
		status, _ := ask(t, conn, map[string]string{"authorization": "Bearer " + accessToken})
		return status
	}
	keyID := func(accessToken string) string {
		parsed, err := jwt.ParseSigned(accessToken, []jose.SignatureAlgorithm{jose.ES256})
		require.NoError(t, err)
		return parsed.Headers[0].KeyID
	}
	status, before := login("old password")
	require.Equal(t, 200, status)
	require.Zero(t, bearer(before))

	first := g.config(t).Hash
	now := g.applies(t, func() { saveOver(t, dir+"/users.yaml", usersWith("new password")) })
	status, _ = login("old password")
	require.Equal(t, 401, status)
	status, _ = login("new password")
	require.Equal(t, 200, status)
	entry := g.log.await(t, g.done, func(e map[string]any) bool { return e["msg"] == "configuration applied" })
	require.Equal(t, []any{dir + "/users.yaml"}, entry["files"])
	require.Regexp(t, "^[0-9a-f]{12}$", now.Hash)
	require.Equal(t, now.Hash, entry["hash"])
	require.NotEqual(t, first, now.Hash)

	g.applies(t, func() { saveOver(t, dir+"/current.pem", next) })
	_, after := login("new password")
	require.NotEqual(t, keyID(before), keyID(after), "the new key signs")
	require.Zero(t, bearer(before), "and the previous one is still good")
	require.Zero(t, bearer(after))
	_, published := get(t, "http://"+g.http+"/.well-known/jwks.json")
	require.Contains(t, published, keyID(before))
	require.Contains(t, published, keyID(after))
	require.NotContains(t, g.log.String(), "tokens are refused")

	g.applies(t, func() {
		third := string(mustKey(t))
		save(t, dir+"/current.pem", third)
		save(t, dir+"/previous.pem", third)
	})
	require.Equal(t, 401, bearer(after))
	g.log.await(t, g.done, func(e map[string]any) bool {
		warning, _ := e["warning"].(string)
		return strings.Contains(warning, "its tokens are refused")
	})
	for _, secret := range []string{"password_hash", "$argon2id$", "old password", "new password", "PRIVATE KEY", before, after} {
		require.NotContains(t, g.log.String(), secret)
	}
}

func TestKeysOfIssuersChangeUnderWay(t *testing.T) {
	dir := t.TempDir()
	publish := func(kid string) *ecdsa.PrivateKey {
		der, _ := pem.Decode(mustKey(t))
		parsed, err := x509.ParsePKCS8PrivateKey(der.Bytes)
		require.NoError(t, err)
		key := parsed.(*ecdsa.PrivateKey)
		set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: kid, Algorithm: "ES256", Use: "sig"}}})
		require.NoError(t, err)
		saveOver(t, dir+"/jwks.json", string(set))
		return key
	}
	issue := func(kid string, key *ecdsa.PrivateKey) map[string]string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", kid))
		require.NoError(t, err)
		raw, err := jwt.Signed(signer).Claims(map[string]any{
			"iss": "https://idp.example.com", "aud": "api", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix(),
		}).Serialize()
		require.NoError(t, err)
		return map[string]string{"authorization": "Bearer " + raw}
	}
	first := issue("one", publish("one"))
	save(t, dir+"/gatehouse.yaml", anywhere(`redis: {url: "embedded://", timeout: 5s}
issuers: [{issuer: "https://idp.example.com", jwks_file: jwks.json, audiences: [api], algorithms: [ES256]}]
policies: {user: {credentials: [bearer]}}
default_policy: user`))
	g := startAt(t, dir+"/gatehouse.yaml")
	conn := g.dial(t)
	status, _ := ask(t, conn, first)
	require.Zero(t, status)
	var second map[string]string
	g.applies(t, func() { second = issue("two", publish("two")) })
	status, _ = ask(t, conn, second)
	require.Zero(t, status)
	status, _ = ask(t, conn, first)
	require.Equal(t, 401, status, "though it was verified before")
}

// Keys that were fetched are not fetched again because something else changed.
func TestFetchedKeysOutliveReloads(t *testing.T) {
	block, _ := pem.Decode(mustKey(t))
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	key := parsed.(*ecdsa.PrivateKey)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "one", Algorithm: "ES256", Use: "sig"}}})
	require.NoError(t, err)
	var fetched atomic.Int64
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		_, _ = w.Write(set)
	}))
	defer idp.Close()
	text := func(path, audience, policy string) string {
		return anywhere(`redis: {url: "embedded://", timeout: 5s}
issuers: [{issuer: "https://idp.example.com", jwks_url: "` + idp.URL + path + `", audiences: [` + audience + `], algorithms: [ES256]}]
policies: {user: {credentials: [bearer]` + policy + `}}
default_policy: user`)
	}
	g := start(t, text("/one", "api", ""))
	conn := g.dial(t)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "one"))
	require.NoError(t, err)
	raw, err := jwt.Signed(signer).Claims(map[string]any{
		"iss": "https://idp.example.com", "aud": "api", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix(),
	}).Serialize()
	require.NoError(t, err)
	status := func() int {
		status, _ := ask(t, conn, map[string]string{"authorization": "Bearer " + raw})
		return status
	}
	require.Zero(t, status())
	require.EqualValues(t, 1, fetched.Load())
	g.applies(t, func() { save(t, g.file, text("/one", "api", ", roles: {any: [a]}")) })
	require.Equal(t, 403, status())
	g.applies(t, func() { save(t, g.file, text("/one", "other", "")) })
	require.Equal(t, 401, status(), "another verifier, with the same keys")
	g.applies(t, func() { save(t, g.file, text("/one", "api", "")) })
	require.Zero(t, status())
	require.EqualValues(t, 1, fetched.Load())
	g.applies(t, func() { save(t, g.file, text("/two", "api", "")) })
	require.Zero(t, status())
	require.EqualValues(t, 2, fetched.Load(), "from another place")
}

func TestSessionSecretsRotate(t *testing.T) {
	_, url := reloadStore(t)
	dir := t.TempDir()
	const next = "the next secret that signs cookies"
	save(t, dir+"/secrets", testSecret+"\n")
	save(t, dir+"/gatehouse.yaml", anywhere(`redis: {url: "`+url+`", timeout: 5s}
sessions: {secrets_file: secrets}
policies: {user: {credentials: [session]}}
default_policy: user`))
	g := startAt(t, dir+"/gatehouse.yaml")
	conn := g.dial(t)
	newer := func() int {
		signer, err := session.NewSigner([]string{next})
		require.NoError(t, err)
		status, _ := ask(t, conn, map[string]string{"cookie": "sessionId=" + signer.Sign("id-a")})
		return status
	}
	require.Zero(t, as(t, conn, "id-a"))
	require.Equal(t, 401, newer())
	g.applies(t, func() { save(t, dir+"/secrets", next+"\n"+testSecret+"\n") })
	require.Zero(t, as(t, conn, "id-a"))
	require.Zero(t, newer())
	require.NotContains(t, g.log.String(), "logged out")
	g.applies(t, func() { save(t, dir+"/secrets", next+"\n") })
	require.Equal(t, 401, as(t, conn, "id-a"))
	require.Zero(t, newer())
	g.applies(t, func() { save(t, dir+"/secrets", "a third secret that signs cookies") })
	g.log.await(t, g.done, func(e map[string]any) bool {
		warning, _ := e["warning"].(string)
		return strings.Contains(warning, "is logged out")
	})
	for _, secret := range []string{testSecret, next, "a third secret"} {
		require.NotContains(t, g.log.String(), secret)
	}
}

func TestLimitsOriginsAndHeadersChangeUnderWay(t *testing.T) {
	_, url := reloadStore(t)
	text := func(limit, origins, header, level string) string {
		return anywhere(fmt.Sprintf(`redis: {url: %q, timeout: 5s}
sessions: {secrets: [%q], trusted_origins: [%s]}
identity: {headers: {user_id: %s}}
rate_limits: {orders: {by: user, per: 1h, %s}}
policies: {user: {credentials: [session]}, limited: {credentials: [session], rate_limit: orders}}
routes: [{path: /limited, policy: limited}]
default_policy: user
log: {level: %s}`, url, testSecret, origins, header, limit, level))
	}
	g := start(t, text("limit: 1", "", "x-user-id", "info"))
	conn := g.dial(t)
	limited := func() int {
		status, _ := setHeaders(t, conn, func(r *authv3.AttributeContext_HttpRequest) { r.Path, r.Headers = "/limited", cookie(t, "id-a") })
		return status
	}
	crossSite := func() int {
		status, _ := setHeaders(t, conn, func(r *authv3.AttributeContext_HttpRequest) {
			r.Method, r.Headers = "POST", cookie(t, "id-a")
			r.Headers["origin"] = "https://app.example.com"
		})
		return status
	}
	require.Zero(t, limited())
	require.Equal(t, 429, limited())
	require.Equal(t, 403, crossSite())

	g.applies(t, func() {
		save(t, g.file, text("limit: 2", `"https://app.example.com"`, "x-uid", "debug"))
	})
	require.Zero(t, limited())
	require.Zero(t, crossSite())
	status, set := setHeaders(t, conn, func(r *authv3.AttributeContext_HttpRequest) { r.Headers = cookie(t, "id-a") })
	require.Zero(t, status)
	require.Equal(t, "alice", set["x-uid"])
	require.NotContains(t, set, "x-user-id")
	g.log.await(t, g.done, func(e map[string]any) bool { return e["msg"] == "check" && e["decision"] == "allow" })
	g.log.await(t, g.done, func(e map[string]any) bool {
		warning, _ := e["warning"].(string)
		return strings.Contains(warning, "identity.headers have other names")
	})
	entry := g.log.await(t, g.done, func(e map[string]any) bool { return e["msg"] == "configuration applied" })
	require.Equal(t, []any{"sessions.trusted_origins", "identity.headers.user_id", "rate_limits.orders", "log.level"}, entry["changed"])
}

func TestCertificatesOfListenersRotate(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	renew := func(name string) {
		certFile, keyFile := ca.issue(t, name)
		for from, to := range map[string]string{certFile: "tls.crt", keyFile: "tls.key"} {
			text, err := os.ReadFile(from)
			require.NoError(t, err)
			save(t, filepath.Join(dir, to), string(text))
		}
	}
	renew("first")
	save(t, dir+"/gatehouse.yaml", `
server:
  check: {listen: "127.0.0.1:0", tls: {cert_file: tls.crt, key_file: tls.key}}
  http: {listen: "127.0.0.1:0", tls: {cert_file: tls.crt, key_file: tls.key}}
  ops: {listen: "127.0.0.1:0"}
  drain: 0s
redis: {url: "embedded://"}
policies: {open: {anonymous: true}}
default_policy: open
`)
	g := startAt(t, dir+"/gatehouse.yaml")
	trust := &tls.Config{RootCAs: ca.pool(), MinVersion: tls.VersionTLS12}
	old := g.dial(t, grpc.WithTransportCredentials(credentials.NewTLS(trust)))
	status, _ := ask(t, old, nil)
	require.Zero(t, status)
	shown := func(address string, protocol string) string {
		c := trust.Clone()
		c.NextProtos = []string{protocol}
		conn, err := (&tls.Dialer{Config: c}).DialContext(t.Context(), "tcp", address)
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		state := conn.(*tls.Conn).ConnectionState()
		require.Equal(t, protocol, state.NegotiatedProtocol)
		return state.PeerCertificates[0].Subject.CommonName
	}
	require.Equal(t, "first", shown(g.check, "h2"))
	require.Equal(t, "first", shown(g.http, "http/1.1"))

	g.applies(t, func() { renew("second") })
	require.Equal(t, "second", shown(g.check, "h2"))
	require.Equal(t, "second", shown(g.http, "http/1.1"))
	require.Equal(t, "second", shown(g.http, "h2"))
	status, _ = ask(t, old, nil)
	require.Zero(t, status, "connections stay")
	status, _ = ask(t, g.dial(t, grpc.WithTransportCredentials(credentials.NewTLS(trust))), nil)
	require.Zero(t, status)

	require.Contains(t, g.rejects(t, func() { save(t, dir+"/tls.key", string(mustKey(t))) }).Error, "server.check.tls")
	require.Equal(t, "second", shown(g.check, "h2"))
	g.applies(t, func() { renew("third") })
	require.Equal(t, "third", shown(g.check, "h2"))
}

// What needs another store gets one, and only that.
// A client whose authority is gone doesn't get in, by a session of TLS that it
// resumes neither.
func TestClientsOfAnAuthorityThatIsGoneStayOut(t *testing.T) {
	ca, other, dir := newAuthority(t), newAuthority(t), t.TempDir()
	put := func(from, to string) {
		text, err := os.ReadFile(from)
		require.NoError(t, err)
		save(t, filepath.Join(dir, to), string(text))
	}
	certFile, keyFile := ca.issue(t, "gatehouse")
	put(certFile, "tls.crt")
	put(keyFile, "tls.key")
	put(ca.file, "clients.pem")
	save(t, dir+"/gatehouse.yaml", `
server:
  check: {listen: "127.0.0.1:0", tls: {cert_file: tls.crt, key_file: tls.key, client_ca_file: clients.pem}}
  http: {listen: "127.0.0.1:0"}
  ops: {listen: "127.0.0.1:0"}
  drain: 0s
redis: {url: "embedded://"}
policies: {open: {anonymous: true}}
default_policy: open
`)
	g := startAt(t, dir+"/gatehouse.yaml")
	certFile, keyFile = ca.issue(t, "envoy")
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	require.NoError(t, err)
	connect := func(c *tls.Config) (resumed bool, err error) {
		conn, err := (&tls.Dialer{Config: c}).DialContext(t.Context(), "tcp", g.check)
		if err != nil {
			return false, err
		}
		defer func() { _ = conn.Close() }()
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = io.ReadFull(conn, make([]byte, 9)) // the server's settings, behind its ticket
		return conn.(*tls.Conn).ConnectionState().DidResume, err
	}
	clients := map[uint16]*tls.Config{}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		clients[version] = &tls.Config{
			RootCAs: ca.pool(), Certificates: []tls.Certificate{pair}, ClientSessionCache: tls.NewLRUClientSessionCache(1),
			MinVersion: version, MaxVersion: version, NextProtos: []string{"h2"},
		}
		_, err := connect(clients[version])
		require.NoError(t, err)
		resumed, err := connect(clients[version])
		require.NoError(t, err)
		require.True(t, resumed)
	}
	g.applies(t, func() { put(other.file, "clients.pem") })
	for version, c := range clients {
		_, err := connect(c)
		require.Error(t, err, tls.VersionName(version))
	}
}

func TestCacheStaysWarmUnlessItsKeysChange(t *testing.T) {
	client, url := reloadStore(t)
	text := func(redisMore, sessionsMore, policy string) string {
		return anywhere(`redis: {url: "` + url + `"` + redisMore + `}
sessions: {secrets: ["` + testSecret + `"]` + sessionsMore + `}
policies: {user: {credentials: [session]` + policy + `}}
default_policy: user`)
	}
	reads := func() (n int) {
		info, err := client.Info(t.Context(), "commandstats").Result()
		require.NoError(t, err)
		for line := range strings.Lines(info) {
			if calls, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
				calls, _, _ = strings.Cut(calls, ",")
				n, err = strconv.Atoi(calls)
				require.NoError(t, err)
			}
		}
		return n
	}
	g := start(t, text(", "+unhurried, "", ""))
	conn := g.dial(t)
	warm := func() {
		until(t, "the cache is coherent", func() bool {
			_, body := get(t, "http://"+g.ops+"/readyz")
			return strings.Contains(body, `"cache":{"state":"coherent"}`)
		})
		for range 3 {
			require.Zero(t, as(t, conn, "id-a"))
		}
	}
	warm()
	before := reads()
	for i := range 3 {
		g.applies(t, func() { save(t, g.file, text(", "+unhurried, "", fmt.Sprintf(", organizations: [org-%d]", i))) })
		require.Equal(t, 403, as(t, conn, "id-a"))
	}
	g.applies(t, func() { save(t, g.file, text(", "+unhurried, "", "")) })
	for range 10 {
		require.Zero(t, as(t, conn, "id-a"))
	}
	require.Equal(t, before, reads(), "nothing was asked again")
	require.Equal(t, "1", g.metric(t, "gatehouse_cache_coherent"))

	for name, change := range map[string][3]string{
		"redis.timeout":              {", timeout: 4s, cache: {heartbeat: 5s}", "", ""},
		"redis.cache":                {", timeout: 5s, cache: {heartbeat: 5s, max_entries: 1000}", "", ""},
		"sessions.ttl":               {", " + unhurried, ", ttl: 2h", ""},
		"sessions.fields":            {", " + unhurried, ", fields: {org_id: org}", ""},
		"a condition about sessions": {", " + unhurried, "", ", condition: 'session.userId == identity.id'"},
		"idle precision":             {", " + unhurried, "", ", idle_timeout: 30s"},
	} {
		g.applies(t, func() { save(t, g.file, text(change[0], change[1], change[2])) })
		warm()
		require.Greater(t, reads(), before, name)
		g.applies(t, func() { save(t, g.file, text(", "+unhurried, "", "")) })
		warm()
		before = reads()
	}
	require.NoError(t, client.Set(t.Context(), "other:id-a", `{"userId":"other","roles":[]}`, time.Hour).Err())
	g.applies(t, func() { save(t, g.file, text(", "+unhurried, ", prefix: 'other:'", "")) })
	_, set := setHeaders(t, conn, func(r *authv3.AttributeContext_HttpRequest) { r.Headers = cookie(t, "id-a") })
	require.Equal(t, "other", set["x-user-id"], "the record of the other prefix")
	require.NoError(t, client.Del(t.Context(), "other:id-a").Err())
	until(t, "the new store hears of changes", func() bool { return as(t, conn, "id-a") == 401 })
}

// A slow store is waited for as long as redis.timeout says now.
func TestTimeoutOfTheStoreChangesUnderWay(t *testing.T) {
	client, url := reloadStore(t)
	text := func(timeout string) string {
		return anywhere(`redis: {url: "` + url + `", timeout: ` + timeout + `}
sessions: {secrets: ["` + testSecret + `"]}
policies: {user: {credentials: [session], freshness: strict}}
default_policy: user`)
	}
	g := start(t, text("50ms"))
	conn := g.dial(t)
	until(t, "it is let in", func() bool { return as(t, conn, "id-a") == 0 })
	slow := func() int {
		require.NoError(t, client.Do(t.Context(), "CLIENT", "PAUSE", 600, "ALL").Err())
		defer func() { _ = client.Do(t.Context(), "CLIENT", "UNPAUSE").Err() }()
		return as(t, conn, "id-a")
	}
	until(t, "it isn't waited for", func() bool { return slow() == 503 }) // a busy machine may ask when the pause is over
	g.applies(t, func() { save(t, g.file, text("5s")) })
	require.Zero(t, slow())
}

func TestABadConfigurationChangesNothing(t *testing.T) {
	_, url := reloadStore(t)
	dir := t.TempDir()
	good := anywhere(`redis: {url: "` + url + `", timeout: 5s}
sessions: {secrets: ["` + testSecret + `"]}
policies: {user: {credentials: [session]}}
default_policy: user`)
	save(t, dir+"/gatehouse.yaml", good)
	g := startAt(t, dir+"/gatehouse.yaml")
	conn := g.dial(t)
	serves := func() {
		until(t, "it is let in", func() bool { return as(t, conn, "id-a") == 0 })
		status, _ := get(t, "http://"+g.ops+"/readyz")
		require.Equal(t, 200, status, "ready all the same")
	}
	until(t, "ready", func() bool { status, _ := get(t, "http://"+g.ops+"/readyz"); return status == 200 })
	serves()
	require.Equal(t, "1", g.metric(t, "gatehouse_config_last_reload_successful"))
	loaded := g.metric(t, "gatehouse_config_loaded_timestamp_seconds")
	require.NotEmpty(t, loaded)

	rejected := 0
	for _, bad := range []struct {
		name, text string // text "": the file is deleted
		error      string // in /readyz
		problems   []string
	}{
		{"unknown keys", good + "polices: {}\nlog: {level: loud}\n", dir + "/gatehouse.yaml:10:1: polices: unknown key; did you mean policies? (and 1 more)", []string{":10:1: polices: ", ":11:14: log.level: "}},
		{"broken YAML", good + "log: {level: [", "", nil},
		{"a file that isn't there", good + "users: {file: users.yaml}", "users.file: " + dir + "/users.yaml: no such file", nil},
		{"empty", "", "no such file", nil},
		{"cut off", "\n", "policies: there are no policies", nil},
		{"a store that isn't there", strings.Replace(good, url, "redis://127.0.0.1:1", 1), "redis: the store that the configuration leads to now can't be reached", nil},
	} {
		t.Run(bad.name, func(t *testing.T) {
			detail := g.rejects(t, func() {
				if bad.text == "" {
					require.NoError(t, os.Remove(g.file))
					return
				}
				save(t, g.file, bad.text)
			})
			rejected++
			require.Contains(t, detail.Error, bad.error)
			require.Equal(t, 1, detail.Generation)
			require.Equal(t, "0", g.metric(t, "gatehouse_config_last_reload_successful"))
			require.Equal(t, loaded, g.metric(t, "gatehouse_config_loaded_timestamp_seconds"))
			if bad.name != "a store that isn't there" { // which is tried again
				require.Equal(t, strconv.Itoa(rejected), g.metric(t, `gatehouse_config_reloads_total{result="rejected"}`))
			}
			entry := g.log.await(t, g.done, func(e map[string]any) bool {
				problems, _ := e["problems"].([]any)
				if e["level"] != "ERROR" || len(problems) < len(bad.problems) {
					return false
				}
				for i, p := range bad.problems {
					if !strings.Contains(problems[i].(string), p) {
						return false
					}
				}
				return strings.Contains(problems[0].(string), strings.TrimSuffix(bad.error, " (and 1 more)"))
			})
			require.Contains(t, entry["msg"], "what ran before goes on")
			serves()
			save(t, g.file, good)
			until(t, "it recovers", func() bool { return g.config(t).State == "current" })
			require.Empty(t, g.config(t).Error)
			require.Equal(t, "1", g.metric(t, "gatehouse_config_last_reload_successful"))
			require.Equal(t, 1, g.config(t).Generation, "nothing was built anew")
		})
	}
	g.rejects(t, func() { save(t, g.file, good+"users: {file: users.yaml}") })
	g.applies(t, func() { save(t, dir+"/users.yaml", "users: []") })
	serves()
	g.rejects(t, func() { require.NoError(t, os.Remove(dir+"/users.yaml")) })
	serves()
	g.rejects(t, func() { save(t, dir+"/users.yaml", "users: [{id: 1}]") })
	g.applies(t, func() { save(t, dir+"/users.yaml", "users: [] # none yet") })
	g.log.await(t, g.done, func(e map[string]any) bool { // as at the start
		warning, _ := e["warning"].(string)
		return strings.Contains(warning, "users.file: wrong passwords are counted by the address of the peer")
	})
}

// Half of a file can be a configuration, too: one in which a policy asks for less.
func TestAConfigurationThatIsCutOffOpensNothing(t *testing.T) {
	_, url := reloadStore(t)
	file := t.TempDir() + "/gatehouse.yaml"
	whole := anywhere(`redis: {url: "` + url + `", timeout: 5s}
sessions: {secrets: ["` + testSecret + `"]}
default_policy: user
policies:
  user:
    credentials: [session]
    roles: {any: [nobody-has-it]}`)
	save(t, file, whole)
	g := startAt(t, file)
	conn := g.dial(t)
	until(t, "ready", func() bool { status, _ := get(t, "http://"+g.ops+"/readyz"); return status == 200 })
	require.NotZero(t, as(t, conn, "id-a"))

	opens := strings.TrimSuffix(whole, "\n    roles: {any: [nobody-has-it]}\n")
	for _, cut := range []string{opens, opens + "\n  "} {
		detail := g.rejects(t, func() { save(t, file, cut) })
		require.Equal(t, file+": "+errCutOff.Error(), detail.Error)
		require.NotZero(t, as(t, conn, "id-a"), "the policy asks for the role all the same")
		save(t, file, whole)
		until(t, "it recovers", func() bool { return g.config(t).State == "current" })
	}
	// Who means it ends the line.
	g.applies(t, func() { save(t, file, opens+"\n") })
	require.Zero(t, as(t, conn, "id-a"))
	// A file that was never ended is not judged by that, nor is JSON.
	g.applies(t, func() { save(t, file, opens+" # longer than it was, and not ended") })
	g.applies(t, func() { save(t, file, opens) })
}

func TestShapeOfTexts(t *testing.T) {
	t.Parallel()
	shape := func(text string) textShape {
		file := t.TempDir() + "/f"
		save(t, file, text)
		return shapeOf(file)
	}
	before := shape("policies:\n  a: {}\n")
	require.True(t, shape("policies:").cutOff(before))
	require.True(t, shape("").cutOff(before))
	require.False(t, shape("policies:\n").cutOff(before), "by lines")
	require.False(t, shape("policies:\n  a: {}\n  b: {}").cutOff(before), "it is longer")
	require.False(t, shape("policies:").cutOff(shape("policies:\n  a: {}")), "it never was ended")
	require.False(t, shape(`{"a": 1}`).cutOff(before), "of which no beginning can be read")
	require.False(t, shapeOf(t.TempDir()+"/none").cutOff(textShape{}))
}

// A store that the configuration leads to is used when it is there.
func TestAnotherStoreIsWaitedFor(t *testing.T) {
	_, first := reloadStore(t)
	port := proctest.FreePort(t)
	g := start(t, onePolicy(first))
	conn := g.dial(t)
	until(t, "it is let in", func() bool { return as(t, conn, "id-a") == 0 })
	g.rejects(t, func() { save(t, g.file, onePolicy("redis://"+proc.Local(port))) })
	require.Zero(t, as(t, conn, "id-a"))
	server, err := proc.StartRedis(t.Context(), proc.RedisOptions{Dir: t.TempDir(), Port: port})
	require.NoError(t, err)
	defer server.Kill()
	g.applies(t, func() { hangUp(t) })
	require.Equal(t, 401, as(t, conn, "id-a"), "the session is in the other store")
}

// What deserves a second look is said, and nothing else.
func TestDangersOfAChangeAreSaid(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one.pem", "two.pem"} {
		save(t, filepath.Join(dir, name), string(mustKey(t)))
	}
	const secrets = `secrets: ["secret number one, to sign with", "secret number two, to sign with"]`
	const behindProxy = "server: {http: {trusted_hops: 1}}\ntracing: {otlp: {endpoint: 'otel:4317'}"
	const basis = `redis: {url: "redis://user:one@127.0.0.1:1/0"}
sessions: {` + secrets + `}
tokens: {issuer: "https://g.example", signing_keys: [{file: one.pem}, {file: two.pem}]}
policies: {p: {credentials: [session, bearer]}, other: {anonymous: true}}
default_policy: p
`
	build := func(t *testing.T, text string) *generation {
		t.Helper()
		save(t, dir+"/gatehouse.yaml", text)
		c, err := configFile{path: dir + "/gatehouse.yaml"}.load()
		require.NoError(t, err)
		g, err := newGeneration(c, nil, instruments{log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, g.close()) })
		return g
	}
	policy := func(more string) string {
		return strings.Replace(basis, "{credentials: [session, bearer]}", "{credentials: [session, bearer], "+more+"}", 1) +
			"rate_limits: {slow: {limit: 1, per: 1s}}\n"
	}
	replaced := func(from, to string) string {
		require.Contains(t, basis, from)
		return strings.Replace(basis, from, to, 1)
	}
	for _, c := range []struct{ name, before, after, warning string }{
		{"a policy goes", basis, replaced(", other: {anonymous: true}", ""), "policy other is gone"},
		{"the default goes", basis, replaced("default_policy: p\n", ""), "default_policy is gone"},
		{"observe", basis, policy("mode: observe"), "policy p only observes now"},
		{"anonymous", basis, policy("anonymous: true"), "without a credential through"},
		{"no roles", policy("roles: {all: [a]}"), policy("roles: {}"), "asks for no roles"},
		{"another role", policy("roles: {any: [a]}"), policy("roles: {any: [b, a]}"), "one of these roles, too, now: b"},
		{"fewer roles", policy("roles: {all: [a, b]}"), policy("roles: {all: [b]}"), "these roles no more: a"},
		{"another organization", policy("organizations: [a]"), policy("organizations: [a, b]"), "these organizations, too, now: b"},
		{"another audience", policy("audiences: [a]"), policy("audiences: [b, a]"), "these audiences, too, now: b"},
		{"another credential", replaced("{credentials: [session, bearer]}", "{credentials: [bearer]}"), basis, "these credentials, too, now: session"},
		{"older answers", policy("on_store_outage: serve_stale, stale_for: 5s"), policy("on_store_outage: serve_stale, stale_for: 6s"), "older answers"},
		{"no organizations", policy("organizations: [a]"), policy(""), "every organization"},
		{"no issuers", policy("issuers: [https://g.example]"), policy(""), "every issuer"},
		{"no audiences", policy("audiences: [a]"), policy(""), "every audience"},
		{"no condition", policy("condition: 'true'"), policy(""), "no condition"},
		{"no csrf", basis, policy("csrf: false"), "pages of other sites"},
		{"cached", policy("freshness: strict"), policy(""), "does not ask Redis"},
		{"older logins", policy("max_auth_age: 5m"), policy("max_auth_age: 6m"), "longer ago"},
		{"no idle timeout", policy("idle_timeout: 5m"), policy(""), "idle for longer"},
		{"outages", basis, policy("on_store_outage: accept_bearer"), "out of reach"},
		{"no limit", policy("rate_limit: slow"), policy(""), "no rate limit"},
		{"insecure cookie", basis, replaced(secrets, secrets+", cookie: {secure: false}"), "cookie.secure is off"},
		{"another cookie", basis, replaced(secrets, secrets+", cookie: {name: sid}"), "under another name"},
		{"another prefix", basis, replaced(secrets, secrets+", prefix: 's:'"), "under another name"},
		{"the secret goes", basis, replaced(`"secret number one, to sign with", `, ""), "logged out"},
		{"the key goes", basis, replaced("{file: one.pem}, ", ""), "tokens are refused"},
		{"another store", basis, replaced("127.0.0.1:1/0", "127.0.0.1:1/1"), "another store"},
		{"fewer replicas", replaced("{url:", "{confirm_replicas: 2, url:"), basis, "confirm_replicas is less"},
		{"other headers", basis, basis + "identity: {headers: {roles: x-roles}}", "have other names"},
		{"a header more goes", policy("headers: {x-plan: claims.plan, x-b: claims.b}"), policy("headers: {x-b: claims.b}"), "no policy adds these headers any more, so Gatehouse doesn't take out what clients send in them: x-plan;"},
		{"uncounted", policy("rate_limit: slow"), strings.Replace(policy("rate_limit: slow"), "per: 1s", "per: 1s, on_outage: allow", 1), "rate limit slow lets requests pass uncounted"},
		{"unstripped", basis + "identity: {strip_credentials: true}", basis, "strip_credentials is off"},
		{"more hops", basis, basis + "server: {http: {trusted_hops: 1}}", "trusted_hops is more"},
		{"believed traces", basis + behindProxy + "}", basis + behindProxy + ", trust_traceparent: true}", "trust_traceparent is on"},

		{"a policy more", basis, replaced("policies: {", "policies: {new: {anonymous: true}, "), ""},
		{"another policy adds the header", policy("headers: {x-a: claims.a}"), replaced("other: {anonymous: true}", "other: {anonymous: true, credentials: [bearer], headers: {x-a: claims.a}}"), ""},
		{"fewer of each", policy("roles: {any: [a, b], all: [c]}, organizations: [a, b], audiences: [a, b]"), policy("roles: {any: [a], all: [c, d]}, organizations: [a], audiences: [b]"), ""},
		{"a stricter policy", basis, policy("freshness: strict, roles: {all: [a]}, max_auth_age: 1m, rate_limit: slow"), ""},
		{"a new secret in front", basis, replaced(`secrets: [`, `secrets: ["secret number three, to sign with", `), ""},
		{"an old secret goes", basis, replaced(`, "secret number two, to sign with"`, ""), ""},
		{"keys change places", basis, replaced("{file: one.pem}, {file: two.pem}", "{file: two.pem}, {file: one.pem}"), ""},
		{"another password", basis, replaced("user:one@", "user:two@"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			warnings := dangers(build(t, c.before), build(t, c.after))
			if c.warning == "" {
				require.Empty(t, warnings)
				return
			}
			require.Len(t, warnings, 1)
			require.Contains(t, warnings[0], c.warning)
			for _, secret := range []string{"secret number", "user:", "one@"} {
				require.NotContains(t, warnings[0], secret)
			}
		})
	}
}

// While no store can be reached, another address makes nothing worse.
func TestAnotherStoreIsTakenInAnOutage(t *testing.T) {
	ports := proctest.FreePorts(t, 2)
	text := func(port int) string {
		return onePolicy("redis://" + proc.Local(port))
	}
	g := start(t, text(ports[0]))
	conn := g.dial(t)
	require.Equal(t, 503, as(t, conn, "id-a"))
	g.applies(t, func() { save(t, g.file, text(ports[1])) })
	require.Equal(t, 503, as(t, conn, "id-a"))
	proctest.Need(t, "redis-server")
	server, err := proc.StartRedis(t.Context(), proc.RedisOptions{Dir: t.TempDir(), Port: ports[1]})
	require.NoError(t, err)
	defer server.Kill()
	until(t, "it is ready", func() bool { status, _ := get(t, "http://"+g.ops+"/readyz"); return status == 200 })
	until(t, "the store answers", func() bool { return as(t, conn, "id-a") == 401 })
}

// A store that too many ask at once is in reach: another one that nobody can reach would
// be an outage.
func TestAnOverloadedStoreIsNoOutage(t *testing.T) {
	server := proctest.StartRedis(t)
	build := func(url string) *generation {
		file := write(t, "gatehouse.yaml", strings.Replace(onePolicy(url), unhurried, "timeout: 1s", 1))
		c, err := configFile{path: file}.load()
		require.NoError(t, err)
		g, err := newGeneration(c, nil, instruments{log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, g.close()) })
		return g
	}
	before := build("redis://" + server.Addr)
	require.NoError(t, before.ping(t.Context()))
	var checks sync.WaitGroup
	asked := before.client.(*redis.Client).Options().PoolSize
	for range asked { // with all turns of checks
		checks.Go(func() {
			ctx, cancel := redisguard.Lookup(t.Context(), time.Hour)
			defer cancel()
			_ = before.client.BLPop(ctx, 0, "list").Err()
		})
	}
	until(t, "too many ask", func() bool {
		err := before.ping(t.Context())
		require.False(t, outOfReach(err), err)
		return authz.ReasonOf(err) == authz.ReasonOverloaded
	})

	err := build("redis://"+proc.Local(proctest.FreePort(t))).reach(t.Context(), before)
	require.ErrorContains(t, err, "can't be reached")
	require.ErrorContains(t, err, "connection refused", "which is why")
	require.Equal(t, authz.ReasonOverloaded, authz.ReasonOf(before.ping(t.Context())), "still")
	direct := redis.NewClient(&redis.Options{Addr: server.Addr, Protocol: 2, DisableIdentity: true})
	defer func() { _ = direct.Close() }()
	for range asked {
		require.NoError(t, direct.RPush(t.Context(), "list", "enough").Err())
	}
	checks.Wait()
}

// What can't change under way stays, the rest is applied, and both are said.
func TestKeysThatWaitForARestart(t *testing.T) {
	ca := newAuthority(t)
	certFile, keyFile := ca.issue(t, "gatehouse")
	g := start(t, openPolicy(false))
	conn := g.dial(t)
	port := proctest.FreePort(t)
	text := strings.Replace(openPolicy(true), `check: {listen: "127.0.0.1:0"}`,
		fmt.Sprintf(`check: {listen: "127.0.0.1:%d", tls: {cert_file: %q, key_file: %q}, max_connection_age: 1m}`, port, certFile, keyFile), 1)
	text = strings.Replace(text, "embedded://", "embedded://127.0.0.1:0", 1) + "log: {format: text}\n"
	detail := g.applies(t, func() { save(t, g.file, text) })
	waiting := []string{"server.check.listen", "server.check.tls.cert_file", "server.check.tls.key_file", "server.check.max_connection_age", "redis.url", "log.format"}
	require.Equal(t, waiting, detail.PendingRestart)
	status, _ := ask(t, conn, nil)
	require.Zero(t, status, "the policy")
	status, _ = ask(t, g.dial(t), nil)
	require.Zero(t, status, "the listener is where it was, without TLS")
	entry := g.log.await(t, g.done, func(e map[string]any) bool { return e["keys"] != nil })
	require.Equal(t, "WARN", entry["level"])
	require.Len(t, entry["keys"], len(waiting))

	detail = g.applies(t, func() { save(t, g.file, text+"# later\n") })
	require.Equal(t, waiting, detail.PendingRestart, "still")
	detail = g.applies(t, func() { save(t, g.file, openPolicy(false)) })
	require.Empty(t, detail.PendingRestart)
}

// A configuration from a pipe is read once, and never again.
func TestAConfigurationFromAPipeIsReadOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(file, 0o600))
	go func() {
		_ = os.WriteFile(file, []byte(openPolicy(true)), 0o600) // the test fails without it
	}()
	g := startAt(t, file)
	status, _ := ask(t, g.dial(t), nil)
	require.Zero(t, status)
	require.Equal(t, "current", g.config(t).State)
	require.Contains(t, g.rejects(t, func() { hangUp(t) }).Error, "can be read only once: restart")
	status, _ = ask(t, g.dial(t), nil)
	require.Zero(t, status)
}

// Whatever was replaced ends: connections, goroutines, fetchers of keys.
func TestReloadsLeaveNothingBehind(t *testing.T) {
	client, url := reloadStore(t)
	text := func(i int) string {
		return anywhere(fmt.Sprintf(`redis: {url: %q, timeout: %dms}
sessions: {secrets: [%q]}
issuers: [{issuer: "https://idp.example.com/%d", jwks_url: "http://127.0.0.1:1/%d", audiences: [api]}]
policies: {user: {credentials: [session]}}
default_policy: user`, url, 5000+i, testSecret, i, i))
	}
	g := start(t, text(0))
	conn := g.dial(t)
	clients := func() int {
		list, err := client.ClientList(t.Context()).Result()
		require.NoError(t, err)
		return strings.Count(list, "name=gatehouse")
	}
	reload := func(i int) {
		g.applies(t, func() {
			save(t, g.file, text(i))
			hangUp(t)
		})
		require.Zero(t, as(t, conn, "id-a"))
	}
	settled := func() (goroutines, connections int) {
		until(t, "the cache is coherent", func() bool { return g.metric(t, "gatehouse_cache_coherent") == "1" })
		http.DefaultClient.CloseIdleConnections()
		return runtime.NumGoroutine(), clients()
	}
	for i := range 3 {
		reload(i + 1)
	}
	var goroutines, connections int
	until(t, "the first ones are closed", func() bool {
		goroutines, connections = settled()
		return connections <= 4
	})
	for i := range 25 {
		reload(i + 10)
	}
	until(t, "nothing is left of them", func() bool {
		g, c := settled()
		return g <= goroutines+3 && c <= connections+1
	})
	require.NotEmpty(t, g.metric(t, `gatehouse_issuer_keys{issuer="https://idp.example.com/34"}`))
	require.Empty(t, g.metric(t, `gatehouse_issuer_keys{issuer="https://idp.example.com/33"}`))
}

// A hundred reloads under a steady stream of checks: each is answered, and by one
// configuration as a whole.
func TestReloadStorm(t *testing.T) {
	_, url := reloadStore(t)
	// Of two configurations, alice's role is good in one, and bob's in the other, and
	// the header has another name. Every other change needs another store, too.
	role, header := [2]string{"a", "b"}, [2]string{"x-user-id", "x-uid"}
	text := func(n int) string {
		i := n % 2
		return anywhere(fmt.Sprintf(`redis: {url: %q, timeout: %ds}
sessions: {secrets: [%q]}
identity: {headers: {user_id: %s}}
policies: {user: {credentials: [session]}, flips: {credentials: [session], roles: {any: [%s]}}, open: {anonymous: true}}
routes: [{path: /flips, policy: flips}, {path: /open, policy: open}]
default_policy: user`, url, 5+n/2%2, testSecret, header[i], role[i]))
	}
	reloads, checks := 100, 20_000
	if raceDetector {
		reloads, checks = 30, 3_000
	}
	g := start(t, text(0))
	conn := g.dial(t)
	until(t, "it is let in", func() bool { return as(t, conn, "id-a") == 0 })

	cookies := [2]map[string]string{cookie(t, "id-a"), cookie(t, "id-b")}
	names := [2]string{"alice", "bob"}
	var phase atomic.Int64 // even: configuration phase/2%2 runs for sure; odd: that or the next
	var sent, exact atomic.Int64
	var wrong atomic.Pointer[string]
	blame := func(format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		wrong.CompareAndSwap(nil, &what)
	}
	stop := make(chan struct{})
	one := func(n int64) {
		who := int(n % 2)
		headers, path := cookies[who], "/orders"
		switch n / 2 % 4 {
		case 0, 1:
			path = "/flips"
		case 2:
			headers, path = nil, "/open"
		}
		request := checkRequest(headers)
		request.Attributes.Request.Http.Path = path
		before := phase.Load()
		response, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), request)
		if err != nil {
			blame("dropped: %v", err)
			return
		}
		stable := phase.Load() == before && before%2 == 0
		running := int(before / 2 % 2)
		set := map[string]string{}
		for _, h := range response.GetOkResponse().GetHeaders() {
			set[h.GetHeader().GetKey()] = h.GetHeader().GetValue() + string(h.GetHeader().GetRawValue())
		}
		allowed, status := response.GetOkResponse() != nil, response.GetDeniedResponse().GetStatus().GetCode()
		switch path {
		case "/open":
			if !allowed || set[header[0]]+set[header[1]] != "" {
				blame("%s: %v %v", path, status, set)
			}
			return
		case "/orders":
			if !allowed || set[header[0]]+set[header[1]] != names[who] {
				blame("%s: %v %v", path, status, set)
			}
			return
		}
		// Allowed under one configuration, as that one says it; or refused under the other.
		if allowed && (set[header[who]] != names[who] || set[header[1-who]] != "") || !allowed && status != 403 {
			blame("%s of %s: %v %v", path, names[who], status, set)
		}
		if stable {
			exact.Add(1)
			if allowed != (who == running) {
				blame("%s of %s under configuration %d: %v", path, names[who], running, status)
			}
		}
	}
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for wrong.Load() == nil {
				n := sent.Add(1)
				if n > int64(checks) {
					select {
					case <-stop: // all reloads are done
						return
					default:
					}
				}
				one(n)
			}
		})
	}
	for i := range reloads {
		// Spread over the requests.
		until(t, "requests flow", func() bool { return sent.Load() >= int64(checks*i/reloads) || wrong.Load() != nil })
		phase.Add(1)
		g.applies(t, func() {
			saveOver(t, g.file, text(i+1))
			hangUp(t)
		})
		phase.Add(1)
		some := sent.Load() + 100
		until(t, "requests flow", func() bool { return sent.Load() >= some || wrong.Load() != nil })
	}
	close(stop)
	workers.Wait()
	if w := wrong.Load(); w != nil {
		require.Fail(t, *w)
	}
	require.GreaterOrEqual(t, sent.Load(), int64(checks))
	require.Greater(t, exact.Load(), int64(checks/100), "some of them met a configuration that was known")
	require.Equal(t, strconv.Itoa(reloads), g.metric(t, `gatehouse_config_reloads_total{result="applied"}`))
	t.Logf("%d checks, %d reloads; %d checks at a moment when one answer only was right", sent.Load(), reloads, exact.Load())
}

// Of a generation that was replaced, whoever has it keeps it whole.
func TestAGenerationIsClosedAfterItsLastUse(t *testing.T) {
	closed := make([]atomic.Bool, 20_000)
	make1 := func(i int) *generation {
		g := &generation{gate: &gate{}, number: i, leases: &leases{}}
		p := &part[int]{value: i, end: func() error { closed[i].Store(true); return nil }}
		keep(&g.parts, p)
		return g
	}
	l := &live{}
	l.replace(make1(0))
	var users, closers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		users.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				g, held := l.acquire()
				for range 10 {
					if closed[g.number].Load() {
						t.Error("closed while in use")
					}
					runtime.Gosched()
				}
				held.Release()
			}
		})
	}
	for i := range len(closed) - 1 {
		before := l.now.Load()
		l.replace(make1(i + 1))
		closers.Go(func() {
			before.awaitIdle(t.Context())
			_ = before.close()
		})
		runtime.Gosched()
	}
	closers.Wait()
	close(stop)
	users.Wait()
	for i := range len(closed) - 1 {
		require.True(t, closed[i].Load())
	}
	require.False(t, closed[len(closed)-1].Load())
}

func BenchmarkAcquire(b *testing.B) {
	l := &live{}
	l.replace(&generation{leases: &leases{}})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, held := l.Acquire()
			held.Release()
		}
	})
}
