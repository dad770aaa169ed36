package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/attack"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

const (
	attackersCookie = "s%3Aan-ordinary-session.with-its-signature"
	attackersToken  = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.bm8tc2lnbmF0dXJl"
)

// nakedEcho runs the kit's echo, with nothing in front of it: the weakest gateway.
func nakedEcho(t *testing.T) (target string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- attack.ServeEcho(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
	return "http://" + listener.Addr().String()
}

// file writes a text for a command to read.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestAttackTellsWhatReachesTheService(t *testing.T) {
	t.Parallel()
	variables := map[string]string{"GATEHOUSE_ATTACK_COOKIE": "sessionId=" + attackersCookie, "GATEHOUSE_ATTACK_TOKEN": attackersToken}
	c := gatehouse(t, variables, "attack", "--target", nakedEcho(t), "--skip", "smuggling")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stdout, "\nheader-spoofing\n")
	require.Regexp(t, `  broken +spoof-plain +200  GET /users/echo x-identity-assertion=gatehouse-attack x-org-id=gatehouse-attack x-user-email=`, c.stdout)
	require.Contains(t, c.stdout, "  spoof-underscores (high): underscores for hyphens\n      broken   the identity headers say something else")
	require.Contains(t, c.stdout, "      from     CVE-2025-64484 (OAuth2 Proxy); CWE-290; RFC 3875 section 4.1.18\n")
	require.Contains(t, c.stdout, "Note: /users/echo is served without a credential")
	require.Contains(t, c.stdout, "Note: with a credential, none of the headers x-user-id, x-user-email, x-user-roles, x-org-id, x-identity-assertion arrives")
	require.Regexp(t, `  skipped +token-expired +-  no signing key was given`, c.stdout)
	require.Regexp(t, `  skipped +h2-spoof-plain +-  the target speaks no HTTP/2`, c.stdout)
	require.Regexp(t, `  inconclusive +hop-identity +200  no identity header arrives`, c.stdout)
	require.Regexp(t, `^gatehouse: attack: \d+ cases: \d+ held, \d+ broken, \d+ skipped, \d+ inconclusive\n$`, c.stderr)
	for _, secret := range append(strings.Split(attackersToken, "."), attackersCookie, "an-ordinary-session") {
		require.NotContains(t, c.stdout+c.stderr, secret)
	}
}

func TestAttackForPrograms(t *testing.T) {
	t.Parallel()
	target := nakedEcho(t)
	c := gatehouse(t, nil, "attack", "--target", target, "--only", "no-credential,method-options,cookie-empty", "--format", "json")
	require.Equal(t, exitFailed, c.code)
	var report struct {
		Version, Held, Broken, Skipped int
		Target                         string
		Cases                          []struct{ ID, Verdict, Reached, Reason string }
	}
	require.NoError(t, json.Unmarshal([]byte(c.stdout), &report))
	require.Equal(t, []int{1, 0, 2, 1}, []int{report.Version, report.Held, report.Broken, report.Skipped})
	require.Equal(t, target, report.Target)
	require.Equal(t, "OPTIONS /users/echo as nobody", report.Cases[1].Reached)
	require.Equal(t, "no cookie was given", report.Cases[2].Reason)

	// What is skipped is no failure, unless it is to be one.
	args := []string{"attack", "--target", target, "--only", "cookie-empty"}
	require.Equal(t, exitOK, gatehouse(t, nil, args...).code)
	require.Equal(t, exitFailed, gatehouse(t, nil, append(args, "--strict")...).code)
}

func TestAttackListsItsCases(t *testing.T) {
	t.Parallel()
	c := gatehouse(t, nil, "attack", "--list", "--only", "path-confusion")
	require.Equal(t, exitOK, c.code)
	require.Contains(t, c.stdout, "path-confusion    path-dot-dot                        high    from the public path up to the protected one\n")
	require.NotContains(t, c.stdout, "spoof-plain")
	var cases []attack.Case
	c = gatehouse(t, nil, "attack", "--list", "--format", "json")
	require.NoError(t, json.Unmarshal([]byte(c.stdout), &cases))
	require.Len(t, cases, len(attack.List()))
}

// Whoever calls it wrongly, or on something that is no echo, learns what to do.
func TestAttackSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	echo := nakedEcho(t)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>Hello")) }))
	t.Cleanup(page.Close)
	login := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/public") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"path": r.URL.Path, "headers": r.Header})
	}))
	t.Cleanup(login.Close)
	fickle := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-User-Id", r.Header.Get("X-Gatehouse-Attack"))
		_ = json.NewEncoder(w).Encode(map[string]any{"path": r.URL.Path, "headers": r.Header})
	}))
	t.Cleanup(fickle.Close)
	cookie, several, token, empty := file(t, "sessionId="+attackersCookie), file(t, "a=1; b=2"), file(t, attackersToken), file(t, "\n")
	for _, tc := range []struct {
		args []string
		says string
	}{
		{nil, "name the gateway by --target"},
		{[]string{"--target", "127.0.0.1:8080"}, "scheme, host and port"},
		{[]string{"--target", "http://127.0.0.1:1"}, "can't be reached"},
		{[]string{"--target", echo + "/users"}, "scheme, host and port"},
		{[]string{"--target", echo, "--protected", "users"}, "begins with /"},
		{[]string{"--target", echo, "--protected", "/public/echo/x"}, "must not lie one below the other"},
		{[]string{"--target", echo, "--header-names", "x user"}, "no name of a header"},
		{[]string{"--target", echo, "--only", "nonesuch"}, "no case and no category \"nonesuch\""},
		{[]string{"--target", echo, "--format", "xml"}, "text or json"},
		{[]string{"--target", echo, "--cookie-file", "no-such-file"}, "no-such-file"},
		{[]string{"--target", echo, "--cookie-file", empty}, "is empty"},
		{[]string{"--target", echo, "--cookie-file", token}, "name=value"},
		{[]string{"--target", echo, "--cookie-file", several}, "which one is the session's"},
		{[]string{"--target", echo, "--token-file", file(t, "Bearer "+attackersToken)}, "leave the word Bearer out"},
		{[]string{"--target", echo, "--signing-key-file", token}, "no private key"},
		{[]string{"--target", echo, "--ca-file", token}, "no certificate"},
		{[]string{"--target", page.URL}, "no echo answers at /public/echo without a credential (it answers 200 OK)"},
		{[]string{"--target", login.URL, "--cookie-file", cookie}, "no echo answers at /users/echo with the cookie (it answers 401 Unauthorized)"},
		{[]string{"--target", fickle.URL, "--token-file", token}, "leave out those that change with every request"},
		{[]string{"argument"}, "unknown command"},
	} {
		c := gatehouse(t, nil, append([]string{"attack"}, tc.args...)...)
		require.Equal(t, exitUsage, c.code, "%v: %s", tc.args, c.stderr)
		require.Contains(t, c.stderr, tc.says, "%v", tc.args)
		require.NotContains(t, c.stderr, attackersToken)
		require.NotContains(t, c.stderr, attackersCookie)
	}
}

// Over TLS, with a certificate that nobody knows, under another name.
func TestAttackOverTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "example.com" || !strings.HasPrefix(r.URL.Path, "/public/echo") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"path": r.URL.EscapedPath(), "headers": r.Header, "method": r.Method})
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	target := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	args := []string{"attack", "--target", target, "--host", "example.com", "--only", "no-credential,h2-path-twice"}
	require.Equal(t, exitUsage, gatehouse(t, nil, args...).code)
	c := gatehouse(t, nil, append(args, "--insecure", "--strict")...)
	require.Equal(t, exitOK, c.code, c.stderr+c.stdout)
}

func TestAttackEcho(t *testing.T) {
	t.Parallel()
	address := "127.0.0.1:" + strconv.Itoa(proctest.FreePort(t))
	ctx, stop := context.WithCancel(t.Context())
	var stdout, stderr buffer
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"attack", "echo", "--listen", address}, environment{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr})
	}()
	require.Eventually(t, func() bool { return strings.Contains(stdout.String(), address) }, patience, patience/1000)
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte("GET /a//b HTTP/1.1\r\nHost: h\r\nX_User-Id : root\r\nCookie: sessionId=hush\r\n\r\n"))
	require.NoError(t, err)
	text := make([]byte, 4096)
	n, err := conn.Read(text)
	require.NoError(t, err)
	require.Contains(t, string(text[:n]), `"path":"/a//b"`)
	require.Contains(t, string(text[:n]), `"x_user-id":["root"]`)
	require.Contains(t, string(text[:n]), `"cookie":["(present, 14 bytes)"]`)
	stop()
	require.Equal(t, exitOK, <-done, stderr.String())
}

// The line that the demo prints holds all that is attacked with.
func TestAttackOnTheDemo(t *testing.T) {
	proctest.Need(t, "envoy")
	dir := filepath.Join(t.TempDir(), "demo")
	ctx, stop := context.WithCancel(t.Context())
	var stdout, stderr buffer
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"demo", "--store", "embedded", "--dir", dir, "--port", strconv.Itoa(proctest.FreePort(t))},
			environment{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr})
	}()
	line := regexp.MustCompile(`(?m)^\S+ (attack --target .*)$`)
	require.Eventually(t, func() bool { return line.MatchString(stdout.String()) }, patience, patience/1000, stderr.String())
	args := strings.Fields(strings.ReplaceAll(line.FindStringSubmatch(stdout.String())[1], "'", ""))
	c := gatehouse(t, nil, append(args, "--strict", "--skip", "http2")...) // which has its time in e2e
	require.Equal(t, exitOK, c.code, c.stdout+c.stderr)
	require.NotContains(t, c.stdout, "skipped")
	stop()
	require.Equal(t, exitOK, <-done, stderr.String())
}
