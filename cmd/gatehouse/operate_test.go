package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/authz/token"
	"github.com/gatehouse-auth/gatehouse/authz/users"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// desk is where an operator works: a Redis, and a configuration of it.
type desk struct {
	redis  *proc.Redis
	client *redis.Client
	store  *session.Store // for what a test prepares
	config string         // its text
	file   string
}

const (
	deskPassword = "the password of everybody here"
	deskKey      = "an internal key for tests"
	gatewayURL   = "https://gateway.example.com"
)

// deskFiles are made once: keys and hashes take their time.
var deskFiles = sync.OnceValues(func() (files map[string]string, err error) {
	hash, err := users.Hash(deskPassword)
	if err != nil {
		return nil, err
	}
	files = map[string]string{"users.yaml": "users:\n" +
		"- {id: alice, email: alice@example.com, password_hash: '" + hash + "', roles: [admin], organizations: [org-1, org-2]}\n" +
		"- {id: bob, email: bob@example.com, password_hash: '" + hash + "', roles: [member, auditor], organizations: [org-2]}\n"}
	for _, name := range []string{"current.pem", "other.pem"} {
		key, err := token.GenerateKey("ES256")
		if err != nil {
			return nil, err
		}
		files[name] = string(key)
	}
	return files, nil
})

// newDesk starts a Redis. more is added to the configuration; redisOptions to its
// section redis, unhurried unless there are some.
func newDesk(t *testing.T, redisOptions, more string) *desk {
	t.Helper()
	d := &desk{redis: proctest.StartRedis(t)}
	d.client = redis.NewClient(&redis.Options{Addr: d.redis.Addr})
	t.Cleanup(func() { _ = d.client.Close() })
	d.store = session.New(d.client, session.Options{Profiles: true, Timeout: patience})
	d.config = deskConfig("redis://"+d.redis.Addr, cmp.Or(redisOptions, ", "+unhurried), more)
	d.file = deskFile(t, d.config)
	return d
}

func deskConfig(url, redisOptions, more string) string {
	return anywhere(`redis: {url: "` + url + `"` + redisOptions + `}
sessions: {secrets: ["` + testSecret + `"]}
tokens: {issuer: "` + gatewayURL + `", audiences: [api, mobile], signing_keys: [{file: current.pem}]}
users: {file: users.yaml}
api_keys: [{name: backend, sha256: "` + keyHash(deskKey) + `", auth_api: true}]
policies: {user: {credentials: [session, bearer]}}
default_policy: user
` + more)
}

// deskFile writes a configuration and what belongs to it.
func deskFile(t *testing.T, text string) string {
	t.Helper()
	files, err := deskFiles()
	require.NoError(t, err)
	dir := t.TempDir()
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	path := filepath.Join(dir, "gatehouse.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// run runs a command on the desk's configuration.
func (d *desk) run(t *testing.T, args ...string) command {
	t.Helper()
	return d.pipe(t, "", args...)
}

// pipe does, with something on standard input.
func (d *desk) pipe(t *testing.T, stdin string, args ...string) command {
	t.Helper()
	return piped(t, stdin, append(args, "--config", d.file)...)
}

func piped(t *testing.T, stdin string, args ...string) command {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr buffer
	code := run(ctx, args, environment{
		lookup: func(string) (string, bool) { return "", false },
		stdin:  strings.NewReader(stdin), stdout: &stdout, stderr: &stderr,
	})
	require.NoError(t, ctx.Err(), "it did not end by itself")
	return command{code, stdout.String(), stderr.String()}
}

// ok runs a command that must succeed, and returns what it prints.
func (d *desk) ok(t *testing.T, args ...string) string {
	t.Helper()
	c := d.run(t, args...)
	require.Equal(t, exitOK, c.code, c.stderr)
	return c.stdout
}

// audited returns what a command recorded, but for what differs from machine to
// machine.
func (c command) audited(t *testing.T) map[string]any {
	t.Helper()
	var found map[string]any
	for line := range strings.Lines(c.stderr) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == "audit" {
			require.Nil(t, found, "one record: %s", c.stderr)
			found = entry
		}
	}
	require.NotNil(t, found, c.stderr)
	require.Equal(t, "INFO", found["level"])
	require.Regexp(t, `^os:.+`, found["by"])
	require.NotEmpty(t, found["time"])
	require.Equal(t, "audit", found["log"])
	if found["outcome"] == "applied" {
		delete(found, "outcome")
	}
	for _, name := range []string{"time", "level", "msg", "log", "by", "host", "sudo_user"} {
		delete(found, name)
	}
	return found
}

// express saves a session as Express would.
func (d *desk) express(t *testing.T, id, members string, ttl time.Duration) {
	t.Helper()
	text := `{"cookie":{"originalMaxAge":` + fmt.Sprint(ttl.Milliseconds()) + `,"expires":"2026-01-01T00:00:00.000Z","httpOnly":true,"path":"/"},` + members + `}`
	require.NoError(t, d.client.Set(t.Context(), "sess:"+id, text, ttl).Err())
}

// serve runs a server on the desk's configuration.
func (d *desk) serve(t *testing.T) *running {
	t.Helper()
	// Its files are relative to the configuration, which start writes elsewhere.
	dir := filepath.Dir(d.file)
	text := d.config
	for _, name := range []string{"current.pem", "users.yaml"} {
		text = strings.ReplaceAll(text, "file: "+name, "file: "+filepath.Join(dir, name))
	}
	r := start(t, text)
	until(t, "ready", func() bool { status, _ := get(t, "http://"+r.ops+"/readyz"); return status == 200 })
	return r
}

// call calls the auth API and returns status, body and cookie.
func (r *running) call(t *testing.T, method, path, body string, headers map[string]string) (status int, answer, setCookie string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+r.http+path, strings.NewReader(body))
	require.NoError(t, err)
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	setCookie, _, _ = strings.Cut(response.Header.Get("Set-Cookie"), ";")
	return response.StatusCode, string(text), setCookie
}

// logIn logs a user of the desk in, and returns the headers of the session.
func (r *running) logIn(t *testing.T, user string) map[string]string {
	t.Helper()
	status, body, cookie := r.call(t, "POST", "/auth/login", `{"email":"`+user+`@example.com","password":"`+deskPassword+`"}`, nil)
	require.Equal(t, 200, status, body)
	return map[string]string{"cookie": cookie}
}

// app logs a user in for tokens.
func (r *running) app(t *testing.T, user string) (access, refresh string) {
	t.Helper()
	status, body, _ := r.call(t, "POST", "/auth/token", `{"email":"`+user+`@example.com","password":"`+deskPassword+`","client":"mobile"}`, nil)
	require.Equal(t, 200, status, body)
	var tokens struct{ AccessToken, RefreshToken string }
	require.NoError(t, json.Unmarshal([]byte(body), &tokens))
	return tokens.AccessToken, tokens.RefreshToken
}

func bearerOf(raw string) map[string]string {
	return map[string]string{"authorization": "Bearer " + raw}
}

// seenByService asks for a check, and returns the headers that a service gets; nil for
// a denial.
func seenByService(t *testing.T, conn *grpc.ClientConn, headers map[string]string) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	response, err := authv3.NewAuthorizationClient(conn).Check(ctx, checkRequest(headers))
	require.NoError(t, err)
	if response.GetDeniedResponse() != nil {
		return nil
	}
	found := map[string]string{}
	for _, h := range response.GetOkResponse().GetHeaders() {
		found[h.GetHeader().GetKey()] = h.GetHeader().GetValue() + string(h.GetHeader().GetRawValue())
	}
	return found
}

// Commands that change something ask nobody who could be out of reach but Redis,
// and say what to do when it is.
func TestOperatorsNeedARedis(t *testing.T) {
	t.Parallel()
	embedded := deskFile(t, deskConfig("embedded://", "", ""))
	nobody := deskFile(t, deskConfig("redis://:the-redis-password@"+proc.Local(proctest.FreePort(t)), "", ""))
	for _, args := range [][]string{
		{"sessions", "list", "alice"},
		{"sessions", "show", "alice", "abcdefghijklmnopqrst"},
		{"sessions", "set", "alice", "roles="},
		{"sessions", "revoke", "alice", "--all", "--yes"},
		{"sessions", "revoke", "alice", "--before", "2026-01-01", "--yes"},
		{"sessions", "revoke", "alice", "abcdefghijklmnopqrst"},
		{"tokens", "revoke", "--jti", "x"},
	} {
		c := gatehouse(t, nil, append(args, "-c", embedded)...)
		require.Equal(t, exitFailed, c.code, args)
		require.Contains(t, c.stderr, embedded+":6:14: redis.url: an embedded store lives within the process of its server", args)
		c = gatehouse(t, nil, append(args, "-c", nobody)...)
		require.Equal(t, exitFailed, c.code, args)
		require.Contains(t, c.stderr, "the store at redis://***@127.0.0.1:", args)
		require.Contains(t, c.stderr, "connection refused", args)
		require.NotContains(t, c.stderr, "the-redis-password")
		require.NotContains(t, c.stderr, "audit", "nothing was changed")
		require.Empty(t, c.stdout)
	}
}

func TestInterruptedBeforeAnything(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	d.express(t, "id-1", `"userId":"bob"`, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"sessions", "revoke", "bob", "--all", "--yes"}, {"sessions", "set", "bob", "roles=x"}} {
		var stdout, stderr buffer
		code := run(ctx, append(args, "-c", d.file), environment{
			lookup: func(string) (string, bool) { return "", false }, stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr,
		})
		require.Equal(t, exitFailed, code)
		require.Contains(t, stderr.String(), "interrupted: ")
		require.Empty(t, stdout.String())
	}
	require.Contains(t, d.ok(t, "sessions", "list", "bob"), "session")
}

// A change that too few replicas hold is made, and is no success.
func TestChangesWithoutConfirmation(t *testing.T) {
	t.Parallel()
	d := newDesk(t, ", confirm_replicas: 1, timeout: 1s", "")
	issuer := deskIssuer(t, "current.pem", time.Now())
	raw, _, err := issuer.Mint(token.Claims{Subject: "bob"})
	require.NoError(t, err)
	d.express(t, "id-1", `"userId":"bob"`, time.Hour)
	for _, test := range []struct {
		stdin, said string
		args        []string
	}{
		{"", "", []string{"sessions", "set", "bob", "disabled=true"}},
		{"", "Revoked 1 session of bob, and all tokens\n", []string{"sessions", "revoke", "bob", "--all", "--yes"}},
		{"", "Revoked 0 logins of bob, and the tokens made up to 2026-01-01T00:00:00Z\n", []string{"sessions", "revoke", "bob", "--before", "2026-01-01", "--yes"}},
		{raw, "Revoked the access token ", []string{"tokens", "revoke"}},
	} {
		c := d.pipe(t, test.stdin, test.args...)
		require.Equal(t, exitFailed, c.code, test.args)
		require.Contains(t, c.stderr, "run the same command again until it succeeds", test.args)
		require.Equal(t, false, c.audited(t)["confirmed"], test.args)
		require.True(t, strings.HasPrefix(c.stdout, test.said), c.stdout)
	}
}

// deskIssuer is an issuer with a key of the desk, whose clock stands still.
func deskIssuer(t *testing.T, file string, now time.Time) *token.Issuer {
	t.Helper()
	issuer, err := token.NewIssuer(token.MintOptions{
		Issuer: gatewayURL, Audiences: []string{"api", "mobile"}, Keys: []*token.SigningKey{deskSigningKey(t, file)}, Now: func() time.Time { return now },
	})
	require.NoError(t, err)
	return issuer
}

func keyHash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
