package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// idp is an OpenID provider where everybody is alice.
type idp struct {
	*httptest.Server
	key    *ecdsa.PrivateKey
	logins sync.Map // of nonces by code
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	p := &idp{key: key}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer := map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/jwks",
			"id_token_signing_alg_values_supported": []string{"ES256"},
		}
		switch r.URL.Path {
		case "/jwks":
			answer = map[string]any{"keys": []any{jose.JSONWebKey{Key: p.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}}
		case "/token":
			nonce, _ := p.logins.Load(r.FormValue("code"))
			answer = map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": p.sign(t, "JWT", map[string]any{"nonce": nonce})}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *idp) sign(t *testing.T, typ string, more map[string]any) string {
	t.Helper()
	claims := map[string]any{"iss": p.URL, "sub": "alice", "aud": "web", "sid": "session-1", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	maps.Copy(claims, more)
	text, err := json.Marshal(claims)
	require.NoError(t, err)
	o := (&jose.SignerOptions{}).WithType(jose.ContentType(typ))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: p.key, KeyID: "1"}}, o)
	require.NoError(t, err)
	signed, err := signer.Sign(text)
	require.NoError(t, err)
	raw, err := signed.CompactSerialize()
	require.NoError(t, err)
	return raw
}

// auditFile is the audit log of a test.
type auditFile struct {
	path string
	seen int
}

// more returns the lines since the last look, and waits for one at least.
func (a *auditFile) more(t *testing.T, what string) (lines []map[string]any) {
	t.Helper()
	until(t, "a line about "+what, func() bool {
		text, err := os.ReadFile(a.path)
		return err == nil && len(text) > a.seen && text[len(text)-1] == '\n'
	})
	text, err := os.ReadFile(a.path)
	require.NoError(t, err)
	for line := range strings.Lines(string(text[a.seen:])) {
		var entry map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &entry), line)
		require.Equal(t, []any{"audit", "audit", "INFO"}, []any{entry["msg"], entry["log"], entry["level"]}, line)
		require.NotEmpty(t, entry["time"], line)
		require.NotEmpty(t, entry["action"], line)
		lines = append(lines, entry)
	}
	a.seen = len(text)
	return lines
}

// TestEveryChangeIsAudited makes every change that there is, by the API's own table of
// calls and the tree of commands: one that is new has to be added here.
func TestEveryChangeIsAudited(t *testing.T) {
	proctest.Need(t, "redis-server")
	provider := newIDP(t)
	log := &auditFile{path: filepath.Join(t.TempDir(), "audit.log")}
	d := newDesk(t, "", "audit: {file: "+log.path+"}\noidc: {providers: {corp: {issuer: '"+provider.URL+"', client_id: web, user_id_prefix: 'corp:'}}}\n")
	d.config = strings.Replace(d.config, `http: {listen: "127.0.0.1:0"}`, `http: {listen: "127.0.0.1:0", public_url: "`+gatewayURL+`"}`, 1)
	d.config = strings.Replace(d.config, "tokens: {", "tokens: {refresh_grace: 10ms, ", 1)
	require.NoError(t, os.WriteFile(d.file, []byte(d.config), 0o600))
	r := d.serve(t)
	internal := map[string]string{"x-internal-api-key": deskKey}
	login := func(user string) string {
		return `{"email":"` + user + `@example.com","password":"` + deskPassword + `","client":"mobile"}`
	}
	form := map[string]string{"content-type": "application/x-www-form-urlencoded"}

	// What each call does, and what stands in its line, besides the action.
	calls := map[string]func(t *testing.T) map[string]any{
		"login": func(t *testing.T) map[string]any {
			t.Helper()
			status, _, _ := r.call(t, "POST", "/auth/login", login("alice"), map[string]string{"x-request-id": "r-1", "user-agent": "test\u202e/1"})
			require.Equal(t, 200, status)
			return map[string]any{"user": "alice", "request_id": "r-1", "address": "127.0.0.1", "user_agent": "test\u202e/1"}
		},
		"token": func(t *testing.T) map[string]any {
			t.Helper()
			status, _, _ := r.call(t, "POST", "/auth/token", login("alice"), nil)
			require.Equal(t, 200, status)
			return map[string]any{"user": "alice"}
		},
		"refresh": func(t *testing.T) map[string]any { // used twice, too late
			t.Helper()
			_, refresh := r.app(t, "bob")
			body := `{"refreshToken":"` + refresh + `"}`
			status, _, _ := r.call(t, "POST", "/auth/refresh", body, nil)
			require.Equal(t, 200, status)
			log.more(t, "refresh")
			until(t, "reuse", func() bool {
				status, _, _ := r.call(t, "POST", "/auth/refresh", body, nil)
				return status == 401 // when the grace is over
			})
			return map[string]any{"action": "refresh_token_reused", "user": "bob"}
		},
		"logout": func(t *testing.T) map[string]any {
			t.Helper()
			session := r.logIn(t, "bob")
			handle := handleOfCookie(t, session)
			log.more(t, "login")
			status, _, _ := r.call(t, "POST", "/auth/logout", "", session)
			require.Equal(t, 200, status)
			return map[string]any{"session": handle}
		},
		"revoke_all": func(t *testing.T) map[string]any {
			t.Helper()
			status, _, _ := r.call(t, "POST", "/auth/revoke-all-sessions", `{"userId":"nobody"}`, internal)
			require.Equal(t, 200, status)
			return map[string]any{"user": "nobody", "by": "service:backend", "sessions": 0.0}
		},
		"revoke": func(t *testing.T) map[string]any {
			t.Helper()
			access, _ := r.app(t, "bob")
			log.more(t, "login")
			status, _, _ := r.call(t, "POST", "/auth/revoke", `{"token":"`+access+`"}`, nil)
			require.Equal(t, 200, status)
			return map[string]any{"user": "bob"}
		},
		"switch_organization": func(t *testing.T) map[string]any {
			t.Helper()
			session := r.logIn(t, "alice")
			handle := handleOfCookie(t, session)
			log.more(t, "login")
			status, body, _ := r.call(t, "PATCH", "/auth/session", `{"organizationId":"org-2"}`, session)
			require.Equal(t, 200, status, body)
			return map[string]any{"user": "alice", "by": "alice", "session": handle, "organization": "org-2"}
		},
		"end_session": func(t *testing.T) map[string]any {
			t.Helper()
			session := r.logIn(t, "bob")
			handle := handleOfCookie(t, session)
			log.more(t, "login")
			status, _, _ := r.call(t, "DELETE", "/auth/sessions/"+handle, "", session)
			require.Equal(t, 200, status)
			return map[string]any{"user": "bob", "by": "bob", "session": handle}
		},
		"create_session": func(t *testing.T) map[string]any {
			t.Helper()
			status, _, _ := r.call(t, "POST", "/auth/sessions", `{"userId":"dora"}`, internal)
			require.Equal(t, 201, status)
			return map[string]any{"user": "dora", "by": "service:backend"}
		},
		"change_user": func(t *testing.T) map[string]any {
			t.Helper()
			status, _, _ := r.call(t, "PATCH", "/auth/users/dora/sessions", `{"roles":["r"]}`, internal)
			require.Equal(t, 200, status)
			return map[string]any{"user": "dora", "by": "service:backend", "changes": "roles", "sessions": 1.0}
		},
		"end_user_session": func(t *testing.T) map[string]any {
			t.Helper()
			handle := handleOfCookie(t, r.logIn(t, "bob"))
			log.more(t, "login")
			status, _, _ := r.call(t, "DELETE", "/auth/users/bob/sessions/"+handle, "", internal)
			require.Equal(t, 200, status)
			return map[string]any{"user": "bob", "by": "service:backend", "session": handle}
		},
		"oidc_callback": func(t *testing.T) map[string]any {
			t.Helper()
			client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.http+"/auth/oidc/corp/login?return_to=/auth/openapi.yaml", http.NoBody)
			require.NoError(t, err)
			response, err := client.Do(request)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			location, err := response.Location()
			require.NoError(t, err)
			provider.logins.Store("code-1", location.Query().Get("nonce"))
			cookie, _, _ := strings.Cut(response.Header.Get("Set-Cookie"), ";")
			status, body, _ := r.call(t, "GET", "/auth/oidc/corp/callback?"+url.Values{"code": {"code-1"}, "state": {location.Query().Get("state")}}.Encode(), "", map[string]string{"cookie": cookie})
			require.Equal(t, 200, status, body) // of the page that it leads to
			return map[string]any{"user": "corp:alice"}
		},
		"oidc_logout": func(t *testing.T) map[string]any {
			t.Helper()
			raw := provider.sign(t, "logout+jwt", map[string]any{"jti": "1", "events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}})
			status, body, _ := r.call(t, "POST", "/auth/oidc/corp/backchannel-logout", "logout_token="+raw, form)
			require.Equal(t, 200, status, body)
			return map[string]any{"provider": "corp", "sessions": 1.0}
		},
	}
	from := configFile{path: d.file, lookup: func(string) (string, bool) { return "", false }}
	c, err := from.load()
	require.NoError(t, err)
	g, err := newGeneration(c, nil, instruments{log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = g.close() })
	api, err := g.newAuthAPI(c.cfg, instruments{})
	require.NoError(t, err)
	made := map[string]bool{}
	for _, op := range api.Operations() {
		if op.Change == "" {
			continue
		}
		require.Contains(t, calls, op.Name, "a call that changes something, and no test that it is audited")
		want := calls[op.Name](t)
		if want["action"] == nil {
			want["action"] = op.Change
		}
		requireLine(t, log.more(t, op.Name), want, "applied")
		made[op.Name] = true
	}
	require.Len(t, made, len(calls), "calls that are no more")

	// Every command, but for those that are known to change nothing.
	for _, args := range [][]string{
		{"sessions", "set", "dora", "roles=a"},
		{"sessions", "revoke", "dora", "--before", "2026-01-01", "--yes"},
		{"sessions", "revoke", "dora", "--all", "--yes"},
		{"tokens", "mint", "--user", "bob"},
		{"tokens", "revoke", "--jti", "x"},
		{"keys", "new", filepath.Join(t.TempDir(), "new.pem")},
		{"keys", "rotate", filepath.Join(t.TempDir(), "keys")},
	} {
		command := d.run(t, args...)
		require.Equal(t, exitOK, command.code, command.stderr)
		name := strings.Join(args[:2], " ")
		require.Equal(t, name, command.audited(t)["command"], "standard error has it, too")
		requireLine(t, log.more(t, name), map[string]any{"command": name, "by": osUser()}, "applied")
		made["gatehouse "+name] = true
	}
	// init and man write files of their own, for a gate that isn't there yet.
	harmless := []string{
		" init", " man", " version",
		"", " serve", " config", " config check", " config schema", " keys", " password", " password hash", " demo", " ready", " sessions", " sessions list", " sessions show",
		" tokens", " tokens inspect", " explain", " envoy", " envoy lint", " attack", " attack echo", " completion", " completion bash", " completion fish", " completion zsh", " completion powershell",
	}
	for _, cmd := range everyCommand(rootCommand(environment{})) {
		name := cmd.CommandPath()
		require.True(t, made[name] || slices.Contains(harmless, strings.TrimPrefix(name, "gatehouse")), "%s: does it change anything?", name)
	}

	// The server itself.
	text, err := os.ReadFile(r.file)
	require.NoError(t, err)
	save(t, r.file, string(text)+"log: {level: warn, sample_allowed: 0.5}\n")
	requireLine(t, log.more(t, "reload"), map[string]any{"action": "config_reload", "by": "file", "generation": 2.0, "changed": []any{"log.level", "log.sample_allowed"}}, "applied")
	save(t, r.file, string(text)+"log: {level: loud}\n")
	requireLine(t, log.more(t, "reload"), map[string]any{"action": "config_reload", "by": "file", "reason": "config_invalid"}, "refused")
	status, _ := r.level(t, http.MethodPut, `{"level":"debug","for":"5m"}`)
	require.Equal(t, 200, status)
	requireLine(t, log.more(t, "level"), map[string]any{"action": "log_level", "by": "ops", "to": "debug", "address": "127.0.0.1"}, "applied")

	// What was refused, and by whom.
	status, _, _ = r.call(t, "POST", "/auth/login", `{"email":"alice@example.com","password":"wrong"}`, nil)
	require.Equal(t, 401, status)
	requireLine(t, log.more(t, "refusal"), map[string]any{"action": "login", "reason": "password_wrong"}, "refused")
	status, _, _ = r.call(t, "POST", "/auth/revoke-all-sessions", `{"userId":"alice"}`, r.logIn(t, "bob"))
	require.Equal(t, 403, status)
	requireLine(t, log.more(t, "refusal"), map[string]any{"action": "revoke_all", "by": "bob", "reason": "role"}, "refused")

	all, err := os.ReadFile(log.path)
	require.NoError(t, err)
	for _, secret := range []string{deskPassword, deskKey, testSecret, "eyJ", "s%3A", "alice@example.com", "sessionId="} {
		require.NotContains(t, string(all), secret)
	}
	require.NotContains(t, r.log.String(), `"msg":"audit"`, "they have a place of their own")
}

// requireLine: one of the lines says all of this.
func requireLine(t *testing.T, lines []map[string]any, want map[string]any, outcome authapi.Outcome) {
	t.Helper()
	want["outcome"] = string(outcome)
	require.True(t, slices.ContainsFunc(lines, func(line map[string]any) bool {
		for name, value := range want {
			if got, ok := line[name]; !ok || !jsonEqual(got, value) {
				return false
			}
		}
		return true
	}), "want %v\nof   %v", want, lines)
}

func jsonEqual(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// level asks the ops listener about the level.
func (r *running) level(t *testing.T, method, body string, headers ...string) (status int, answer string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.ops+levelPath, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			request.Host = headers[i+1]
		}
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}

// On a full disk the change is made, and told of in the log; or, by on_failure: refuse,
// refused before it is made.
func TestAuditOnAFullDisk(t *testing.T) {
	proctest.Need(t, "redis-server")
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("this system has no /dev/full")
	}
	d := newDesk(t, "", "audit: {file: /dev/full}\n")
	r := d.serve(t)
	session := r.logIn(t, "alice")
	for _, action := range []string{"config_load", "login"} {
		entry := r.log.await(t, r.done, func(e map[string]any) bool {
			line, _ := e["audit"].(map[string]any)
			return e["level"] == "ERROR" && line["action"] == action
		})
		require.Contains(t, entry["error"], syscall.ENOSPC.Error())
	}
	require.Equal(t, "2", r.metric(t, "gatehouse_audit_failures_total"))
	c := d.run(t, "sessions", "set", "alice", "roles=x")
	require.Equal(t, exitOK, c.code)
	require.Contains(t, c.stderr, "a line of the audit log could not be written")

	d.config = strings.Replace(d.config, "audit: {file: /dev/full}", "audit: {file: /dev/full, on_failure: refuse}", 1)
	require.NoError(t, os.WriteFile(d.file, []byte(d.config), 0o600))
	strict := d.serve(t)
	status, body, cookie := strict.call(t, "POST", "/auth/login", `{"email":"bob@example.com","password":"`+deskPassword+`"}`, nil)
	require.Equal(t, 503, status)
	require.Equal(t, `{"error":"Authentication unavailable"}`, body)
	require.Empty(t, cookie)
	strict.log.await(t, strict.done, func(e map[string]any) bool { return e["reason"] == string(authz.ReasonAuditUnavailable) })
	status, _, _ = strict.call(t, "POST", "/auth/revoke-all-sessions", `{"userId":"alice"}`, map[string]string{"x-internal-api-key": deskKey})
	require.Equal(t, 503, status)
	status, _, _ = strict.call(t, "GET", "/auth/me", "", session)
	require.Equal(t, 200, status, "nothing was changed")
	status, answer := strict.level(t, http.MethodPut, `{"level":"debug"}`)
	require.Equal(t, 503, status)
	require.Contains(t, answer, "nothing was changed")
	save(t, strict.file, strings.Replace(string(mustRead(t, strict.file)), "default_policy: user", "default_policy: user\nlog: {level: debug}", 1))
	until(t, "rejected", func() bool { return strict.config(t).State == "rejected" })
	require.Contains(t, strict.config(t).Error, "audit log")
	c = d.run(t, "sessions", "revoke", "alice", "--all", "--yes")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "nothing was done, since audit.on_failure is refuse")
	status, _, _ = strict.call(t, "GET", "/auth/me", "", session)
	require.Equal(t, 200, status)
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return text
}

// What rotates logs renames the file and sends SIGHUP.
func TestAuditLogIsRotated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	g := start(t, onePolicy("embedded://")+"\naudit: {file: "+path+"}\n")
	note := func() { status, _ := g.level(t, http.MethodPut, `{"level":"debug"}`); require.Equal(t, 200, status) }
	note()
	require.NoError(t, os.Rename(path, path+".1"))
	note()
	hangUp(t)
	g.log.await(t, g.done, func(e map[string]any) bool { return e["msg"] == "configuration read again: it is what runs" })
	note()
	require.Regexp(t, `^{[^\n]*"action":"config_load","by":"os:[^\n]*"hash":"[0-9a-f]+","outcome":"applied"}\n{[^\n]*"log_level"[^\n]*}\n$`, string(mustRead(t, path+".1")))
	require.Len(t, strings.Split(strings.TrimSpace(string(mustRead(t, path))), "\n"), 2, "what came before the signal is not in the old one")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	c := gatehouse(t, nil, "serve", write(t, "gatehouse.yaml", onePolicy("embedded://")+"\naudit: {file: none/audit.log}\n"))
	require.Equal(t, exitFailed, c.code)
	require.Regexp(t, `gatehouse\.yaml:\d+:\d+: audit\.file: .*make the directory`, c.stderr)
}

// The level is lent for a while, goes back by itself, and a reload has the last word.
func TestLogLevelIsLent(t *testing.T) {
	g := start(t, anywhere("redis: {url: 'embedded://'}\npolicies: {open: {anonymous: true}}\ndefault_policy: open\nlog: {level: info}\n"))
	level := func() string { _, body := g.level(t, http.MethodGet, ""); return body }
	require.Equal(t, `{"level":"info","configured":"info"}`+"\n", level())
	conn := g.dial(t)
	_, _ = ask(t, conn, nil)
	require.NotContains(t, g.log.String(), `"msg":"check"`)

	status, body := g.level(t, http.MethodPut, `{"level":"debug","for":"2s"}`)
	require.Equal(t, 200, status)
	require.Regexp(t, `^{"level":"debug","configured":"info","until":"20`, body)
	_, _ = ask(t, conn, nil)
	g.log.await(t, g.done, func(e map[string]any) bool { return e["msg"] == "check" })
	g.log.await(t, g.done, func(e map[string]any) bool { return e["msg"] == levelIsBack })
	require.Equal(t, `{"level":"info","configured":"info"}`+"\n", level())

	status, _ = g.level(t, http.MethodPut, `{"level":"error"}`)
	require.Equal(t, 200, status)
	require.Contains(t, g.log.String(), `"msg":"log level changed","to":"error"`, "who silences the log is in it")
	for range 2 { // the second time there is nothing to change
		status, _ = g.level(t, http.MethodDelete, "")
		require.Equal(t, 200, status)
	}
	require.Contains(t, level(), `{"level":"info"`)
	_, _ = g.level(t, http.MethodPut, `{"level":"debug"}`)
	save(t, g.file, strings.Replace(string(mustRead(t, g.file)), "level: info", "level: warn", 1))
	hangUp(t)
	until(t, "the file's level", func() bool { return level() == `{"level":"warn","configured":"warn"}`+"\n" })

	for _, wrong := range []string{"", "{", `{"level":"loud"}`, `{"level":"debug","for":"0s"}`, `{"level":"debug","for":"25h"}`, `{"level":"debug","for":5}`, `{"level":"debug","x":1}`, `{"level":"DEBUG"}`} {
		status, body := g.level(t, http.MethodPut, wrong)
		require.Equal(t, 400, status, wrong)
		require.Contains(t, body, `{"error":"`)
	}
	refused := 1 // the last one below
	for _, header := range []string{
		"Origin", "Sec-Fetch-Site", "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-Ip", "X-Request-Id",
		"X-Envoy-External-Address", "X-Envoy-Expected-Rq-Timeout-Ms", "Via",
	} {
		for _, method := range []string{http.MethodPut, http.MethodDelete} {
			status, _ := g.level(t, method, `{"level":"error"}`, header, "https://evil.example")
			require.Equal(t, 403, status, header)
			refused++
		}
	}
	status, _ = g.level(t, http.MethodPut, `{"level":"error"}`, "Host", "evil.example")
	require.Equal(t, 421, status, "a name that was made to lead here")
	status, _ = g.level(t, http.MethodPost, `{"level":"debug"}`)
	require.Equal(t, 405, status)
	status, _ = get(t, "http://"+g.http+levelPath)
	require.Equal(t, 404, status, "only the ops listener has it")
	require.Contains(t, level(), `{"level":"warn"`)
	audited := func(outcome string) (n int) {
		for line := range strings.Lines(g.log.String()) {
			var e map[string]any
			if json.Unmarshal([]byte(line), &e) == nil && e["action"] == "log_level" && e["outcome"] == outcome {
				count, _ := e["count"].(float64)
				n += max(1, int(count))
			}
		}
		return n
	}
	require.Equal(t, 4, audited("applied"), "each change is audited, whatever the level")
	until(t, "refused tries are told, or counted", func() bool { return audited("refused") == refused })
}

// Keys are not changed behind the back of the audit log, though the shell doesn't have
// what the whole configuration needs, or its keys are only being made.
func TestKeysAreNotChangedUnrecorded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, keys := filepath.Join(dir, "audit.log"), filepath.Join(dir, "keys")
	configured := func(audit string) string {
		file := filepath.Join(dir, "gatehouse.yaml")
		save(t, file, "sessions: {secrets: ['${NOT_SET_HERE}']}\ntokens: {signing_keys: [{file: keys/current.pem}]}\naudit: "+audit+"\n")
		return file
	}
	file := configured("{file: audit.log, on_failure: refuse}")
	require.Equal(t, exitOK, gatehouse(t, nil, "keys", "rotate", keys, "--config", file).code)
	require.Regexp(t, `^{[^\n]*"key_rotate"[^\n]*"begun"}\n{[^\n]*"key_rotate"[^\n]*"applied"}\n$`, string(mustRead(t, path)))
	before := mustRead(t, filepath.Join(keys, "current.pem"))
	require.Equal(t, exitOK, gatehouse(t, nil, "keys", "rotate", keys, "--prepare", "--config", file).code)
	require.Equal(t, 2, strings.Count(string(mustRead(t, path)), "\n"), "nothing was there to prepare")

	for name, config := range map[string]string{
		"another variable that is missing": configured("{file: '${NOT_SET_HERE}', on_failure: refuse}"),
		"no configuration":                 filepath.Join(dir, "none.yaml"),
	} {
		c := gatehouse(t, nil, "keys", "rotate", keys, "--force", "--config", config)
		require.Equal(t, exitFailed, c.code, name)
		require.Regexp(t, `audit\.file|cannot read the configuration`, c.stderr, name)
	}
	save(t, file, "audit: {file: audit.log\n")
	require.Equal(t, exitFailed, gatehouse(t, nil, "keys", "rotate", keys, "--force", "--config", file).code)
	file = configured("{file: nowhere/audit.log, on_failure: refuse}")
	require.Equal(t, exitFailed, gatehouse(t, nil, "keys", "rotate", keys, "--force", "--config", file).code)
	require.Equal(t, before, mustRead(t, filepath.Join(keys, "current.pem")))
}

// What was begun and came to nothing has its end in the log.
func TestARevocationOfNothingIsAudited(t *testing.T) {
	proctest.Need(t, "redis-server")
	path := filepath.Join(t.TempDir(), "audit.log")
	d := newDesk(t, "", "audit: {file: "+path+", on_failure: refuse}\n")
	require.Equal(t, exitFailed, d.run(t, "sessions", "revoke", "dora", authz.Handle("no session"), "--yes").code)
	require.Regexp(t, `^{[^\n]*"end_session"[^\n]*"begun"}\n{[^\n]*"end_session"[^\n]*"reason":"not_found"[^\n]*"refused"}\n$`, string(mustRead(t, path)))
}
