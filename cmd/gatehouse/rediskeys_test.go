//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/internal/oidctest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

const redisKeysFile = "../../docs/reference/redis.md"

// keyOnPage is what docs/reference/redis.md says of a key.
type keyOnPage struct {
	name    string
	pattern *regexp.Regexp
	kind    string // as TYPE says; none: nobody writes it
	ends    bool   // it has a TTL
}

// keysOnPage reads the page: a heading, and the rows of its table.
func keysOnPage(t *testing.T) (keys []keyOnPage) {
	t.Helper()
	page, err := os.ReadFile(redisKeysFile)
	require.NoError(t, err)
	section := regexp.MustCompile("(?m)^### `([^`]+)`\n\n\\| \\| \\|\n\\|---\\|---\\|\n\\| type \\| (\\w+).* \\|\n\\| holds \\| .+ \\|\n\\| TTL \\| (.+) \\|\n\\| written by \\| .+ \\|$")
	for _, m := range section.FindAllStringSubmatch(string(page), -1) {
		pattern := regexp.MustCompile(`\\?<[a-z]+\\?>`).ReplaceAllString(regexp.QuoteMeta(m[1]), ".+")
		keys = append(keys, keyOnPage{m[1], regexp.MustCompile("^" + pattern + "$"), m[2], !strings.HasPrefix(m[3], "none")})
	}
	require.Len(t, keys, strings.Count(string(page), "\n### `"), "a section has another form")
	return keys
}

// The page has every key that Gatehouse reads or writes: a real server answers checks and
// every call of its auth API, and each key that its commands name, or its scripts, or that
// is there at any time, is on the page, is of the type that it says, and ends where it says
// so. And each key of the page was seen.
func TestRedisKeysAreOnThePage(t *testing.T) {
	t.Parallel()
	page := keysOnPage(t)
	seen := map[string]string{} // by name on the page, one that was seen
	onPage := func(key string) keyOnPage {
		t.Helper()
		var found []keyOnPage
		for _, k := range page {
			if k.pattern.MatchString(key) {
				found = append(found, k)
			}
		}
		require.Len(t, found, 1, "%s: the page has no key like that, or several", key)
		seen[found[0].name] = key
		return found[0]
	}

	s := newSpied(t)
	s.everything(t, func(client *redis.Client) { // after each call
		iter := client.Scan(t.Context(), 0, "*", 1000).Iterator()
		for iter.Next(t.Context()) {
			key := iter.Val()
			what := onPage(key)
			kind, err := client.Type(t.Context(), key).Result()
			require.NoError(t, err)
			ttl, err := client.PTTL(t.Context(), key).Result()
			require.NoError(t, err)
			if kind == "none" || ttl == -2 { // it has ended meanwhile
				continue
			}
			require.Equal(t, what.kind, kind, key)
			// The reply to PTTL is 0 in a key's last millisecond, and -1 where it has no end.
			require.Equal(t, what.ends, ttl >= 0, "%s has a TTL of %v", key, ttl)
		}
		require.NoError(t, iter.Err())
	})
	for key := range s.monitored(t) {
		onPage(key)
	}
	for _, k := range page {
		require.NotEmpty(t, seen[k.name], "nobody reads or writes %s", k.name)
	}
}

// spied is a server whose Redis is listened to.
type spied struct {
	*running
	desk     *desk
	monitor  *bufio.Reader
	mu       sync.Mutex
	commands [][]string
	issuer   string // of OpenID logins
	handled  atomic.Int32
}

func newSpied(t *testing.T) *spied {
	t.Helper()
	s := &spied{}
	var ours atomic.Pointer[url.URL]
	relay := httptest.NewServer(&httputil.ReverseProxy{ // the provider must know our address before we do
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(ours.Load()) },
		ModifyResponse: func(*http.Response) error { s.handled.Add(1); return nil },
	})
	t.Cleanup(relay.Close)
	s.issuer = oidctest.Start(t, filepath.Join("..", "..", "e2e", "express", "node_modules"), map[string]any{
		"CLIENTS": []any{map[string]any{
			"client_id": "web", "client_secret": deskPassword, "redirect_uris": []string{gatewayURL + "/auth/oidc/corp/callback"},
			"backchannel_logout_uri": relay.URL + "/auth/oidc/corp/backchannel-logout", "backchannel_logout_session_required": true,
		}},
		"ACCOUNTS": map[string]any{"dora": map[string]any{"email": "dora@example.com"}},
	})
	s.desk = newDesk(t, ", confirm_replicas: 1, timeout: 10s", "") // this machine may be busy
	require.NoError(t, s.desk.client.ConfigSet(t.Context(), "repl-diskless-sync-delay", "0").Err())
	proctest.StartRedis(t, "--replicaof", "127.0.0.1 "+strings.TrimPrefix(s.desk.redis.Addr, "127.0.0.1:"))
	until(t, "there is a replica", func() bool {
		info, err := s.desk.client.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "state=online")
	})
	s.listen(t)
	s.desk.config = strings.ReplaceAll(s.desk.config, `http: {listen: "127.0.0.1:0"}`, `http: {listen: "127.0.0.1:0", public_url: "`+gatewayURL+`"}`)
	s.desk.config = strings.ReplaceAll(s.desk.config, "user: {credentials: [session, bearer]}",
		"user: {credentials: [session, bearer], rate_limit: orders, idle_timeout: 1h}") + `
rate_limits: {orders: {by: user, limit: 1000, per: 1m}}
oidc: {providers: {corp: {issuer: "` + s.issuer + `", client_id: web, client_secret: "` + deskPassword + `"}}}
`
	s.running = s.desk.serve(t)
	ours.Store(&url.URL{Scheme: "http", Host: s.http})
	return s
}

// listen begins to note each command that the server answers, scripts' own ones too.
func (s *spied) listen(t *testing.T) {
	t.Helper()
	conn, err := net.Dial("tcp", s.desk.redis.Addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write([]byte("MONITOR\r\n"))
	require.NoError(t, err)
	s.monitor = bufio.NewReader(conn)
	line, err := s.monitor.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "+OK\r\n", line)
	word := regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	go func() {
		for {
			line, err := s.monitor.ReadString('\n')
			if err != nil {
				return
			}
			var command []string
			for _, quoted := range word.FindAllString(line, -1) {
				if text, err := strconv.Unquote(quoted); err == nil {
					command = append(command, text)
				}
			}
			s.mu.Lock()
			s.commands = append(s.commands, command)
			s.mu.Unlock()
		}
	}()
}

// monitored are the keys that commands named, by Redis's own understanding of them, but
// for those of replication.
func (s *spied) monitored(t *testing.T) map[string]bool {
	t.Helper()
	s.mu.Lock()
	commands := slices.Clone(s.commands)
	s.mu.Unlock()
	require.Greater(t, len(commands), 100)
	keys := map[string]bool{}
	for _, command := range commands {
		if len(command) < 2 {
			continue
		}
		args := []any{"COMMAND", "GETKEYS"}
		for _, word := range command {
			args = append(args, word)
		}
		named, err := s.desk.client.Do(t.Context(), args...).StringSlice()
		if err != nil { // it has none
			require.Regexp(t, `no key arguments|Invalid number of arguments|Invalid command`, err.Error(), command[0])
			continue
		}
		for _, key := range named {
			keys[key] = true
		}
	}
	return keys
}

// everything makes the server do all that it can: each call succeeds.
func (s *spied) everything(t *testing.T, look func(*redis.Client)) {
	t.Helper()
	key := map[string]string{"x-internal-api-key": deskKey, "content-type": "application/json"}
	do := func(status int, method, path, body string, headers map[string]string) (answer, cookie string) {
		t.Helper()
		got, answer, cookie := s.call(t, method, path, body, headers)
		require.Equal(t, status, got, "%s %s: %s", method, path, answer)
		look(s.desk.client)
		return answer, cookie
	}
	conn := s.dial(t)
	check := func(status int, headers map[string]string) {
		t.Helper()
		got, body := ask(t, conn, headers)
		require.Equal(t, status, got, body)
		look(s.desk.client)
	}

	// Documents, and a session of a backend's login.
	do(200, "GET", "/.well-known/jwks.json", "", nil)
	do(200, "GET", "/auth/openapi.yaml", "", nil)
	_, cookie := do(201, "POST", "/auth/sessions", `{"userId":"carol","roles":["member"]}`, key)
	check(0, map[string]string{"cookie": cookie})

	// Passwords, one of them wrong.
	do(401, "POST", "/auth/login", `{"email":"bob@example.com","password":"another"}`, nil)
	alice, bob := s.logIn(t, "alice"), s.logIn(t, "bob")
	check(0, bob)
	do(200, "GET", "/auth/me", "", bob)
	do(200, "GET", "/auth/sessions", "", bob)
	do(200, "PATCH", "/auth/session", `{"organizationId":"org-2"}`, alice)
	second := s.logIn(t, "alice")
	do(200, "DELETE", "/auth/sessions/"+handleOfCookie(t, second), "", alice)

	// Tokens.
	access, refresh := s.app(t, "bob")
	look(s.desk.client)
	check(0, bearerOf(access))
	answer, _ := do(200, "POST", "/auth/refresh", `{"refreshToken":"`+refresh+`"}`, nil)
	var renewed struct{ AccessToken, RefreshToken string }
	require.NoError(t, json.Unmarshal([]byte(answer), &renewed))
	form := map[string]string{"x-internal-api-key": deskKey, "content-type": "application/x-www-form-urlencoded"}
	do(200, "POST", "/auth/introspect", url.Values{"token": {access}}.Encode(), form)
	do(200, "POST", "/auth/revoke", url.Values{"token": {access}}.Encode(), form)
	check(401, bearerOf(access))

	// Administrators.
	do(200, "GET", "/auth/users?q=bo", "", alice)
	do(200, "GET", "/auth/status", "", alice)
	do(200, "GET", "/auth/decisions", "", alice)
	s.follow(t)
	look(s.desk.client)
	do(200, "GET", "/auth/users/bob/sessions", "", alice)
	do(200, "PATCH", "/auth/users/bob/sessions", `{"roles":["member"],"disabled":false}`, key)
	do(200, "DELETE", "/auth/users/bob/sessions/"+handleOfCookie(t, bob), "", alice)
	check(401, bob)

	// A provider: a login there, and its end.
	browser := oidctest.NewBrowser(t, strings.TrimPrefix(gatewayURL, "https://"))
	begun := s.open(t, "/auth/oidc/corp/login", "")
	look(s.desk.client)
	back, _ := browser.Visit(t, begun.Get("Location"), url.Values{"login": {"dora"}, "password": {"any"}})
	flow, _, _ := strings.Cut(begun.Get("Set-Cookie"), ";")
	require.Equal(t, "/", s.open(t, back.RequestURI(), flow).Get("Location"))
	look(s.desk.client)
	browser.Visit(t, s.issuer+"/session/end", url.Values{"logout": {"yes"}})
	until(t, "the provider has told us", func() bool { return s.handled.Load() > 0 })
	look(s.desk.client)

	// The ends.
	do(200, "POST", "/auth/revoke-all-sessions", `{"userId":"bob"}`, key)
	do(401, "POST", "/auth/refresh", `{"refreshToken":"`+renewed.RefreshToken+`"}`, nil)
	_, refresh = s.app(t, "bob")
	do(200, "POST", "/auth/logout", `{"refreshToken":"`+refresh+`"}`, nil)
	do(200, "POST", "/auth/logout", "", alice)
	s.requireEveryCall(t)

	// A Redis that is silent for a while, and a server that doesn't wait for it so long.
	s.desk.config = strings.ReplaceAll(s.desk.config, "timeout: 10s", "timeout: 50ms")
	hurried := s.desk.serve(t)
	conn = hurried.dial(t)
	until(t, "its silence is noticed", func() bool { // not where this machine asks when it is over
		require.NoError(t, s.desk.client.Do(t.Context(), "CLIENT", "PAUSE", 1500, "ALL").Err())
		for range 20 {
			_, _ = ask(t, conn, map[string]string{"cookie": cookie})
		}
		return hurried.metric(t, "gatehouse_store_silences_total") != "0"
	})
	until(t, "Redis answers again", func() bool { status, _ := ask(t, conn, map[string]string{"cookie": cookie}); return status == 0 })
	look(s.desk.client)
}

// follow follows what ends, until all replicas know that somebody does.
func (s *spied) follow(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.http+"/auth/feed", http.NoBody)
	require.NoError(t, err)
	request.Header.Set("X-Internal-Api-Key", deskKey)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	require.Equal(t, 200, response.StatusCode)
	until(t, "all know of it", func() bool { return s.desk.client.Exists(t.Context(), "gatehouse:feed").Val() == 1 })
}

// open opens a page that sends elsewhere, and returns the answer's header.
func (s *spied) open(t *testing.T, path, cookie string) http.Header {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.http+path, http.NoBody)
	require.NoError(t, err)
	request.Header.Set("Cookie", cookie)
	response, err := http.DefaultTransport.RoundTrip(request) // which doesn't go there
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	require.Equal(t, 302, response.StatusCode)
	return response.Header
}

// requireEveryCall: each call of the auth API was answered with success.
func (s *spied) requireEveryCall(t *testing.T) {
	t.Helper()
	_, text := get(t, "http://"+s.ops+"/metrics")
	for _, name := range authapi.CallNames() {
		if name == "console" || name == "unknown" { // files, and what is none
			continue
		}
		require.Regexp(t, fmt.Sprintf(`(?m)^gatehouse_auth_calls_total\{call="%s",status="[23]`, name), text)
	}
}
