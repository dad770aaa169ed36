package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

const chromeOnLinux = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36"

func TestSessionsList(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	ago := func(d time.Duration) string { return fmt.Sprint(time.Now().Add(-d).Unix()) }
	const minute, hour, day = time.Minute, time.Hour, 24 * time.Hour
	d.express(t, "express-1", `"userId":"bob","email":"bob@example.com","roles":["member"],"organizationId":"org-2","authTime":`+ago(3*day+5*minute), 5*hour+30*minute)
	d.express(t, "ours-1", `"userId":"bob","email":"bob@example.com","roles":["member","auditor"],"organizationId":"org-1","authTime":`+ago(2*hour+5*minute)+
		`,"gatehouse":{"createdAt":`+ago(2*hour+5*minute)+`,"address":"2001:db8::1","userAgent":"`+chromeOnLinux+`"}`, 3*day+hour)
	d.express(t, "others-1", `"userId":"alice","note":"bob"`, hour)
	require.NoError(t, d.client.Set(t.Context(), "sess:endless", `{"userId":"bob"}`, 0).Err())
	require.NoError(t, d.store.CreateFamily(t.Context(), authz.Family{
		ID: "family-1", UserID: "bob", AuthTime: time.Now(), Created: time.Now().Add(-40*minute - 30*time.Second), LastUsed: time.Now().Add(-10*minute - 30*time.Second),
		Device: authz.Device{Address: "192.0.2.7", UserAgent: "okhttp/4.12"},
	}))
	h := authz.Handle
	require.Equal(t, `bob  bob@example.com  roles member,auditor  organization org-1
HANDLE                KIND     CREATED  SEEN     EXPIRES  ADDRESS      ORG    ROLES       DEVICE
`+h("ours-1")+`  session  2h ago   2h ago   in 3d    2001:db8::1  org-1  member,au…  Chrome on…
`+h("express-1")+`  session  3d ago   -        in 5h    -            org-2  member      -
`+h("endless")+`  session  -        -        never    -            -      -           -
`+h("family-1")+`  refresh  40m ago  10m ago  in 6d    192.0.2.7    -      -           okhttp
`, d.ok(t, "sessions", "list", "bob"))

	require.Equal(t, exitOK, d.run(t, "sessions", "set", "bob", "disabled=true").code)
	require.Contains(t, d.ok(t, "sessions", "list", "bob"), "organization org-1  LOCKED OUT (disabled)\n")

	c := d.run(t, "sessions", "list", "alice@example.com")
	require.Equal(t, exitOK, c.code)
	require.Equal(t, "alice@example.com\nno sessions and no logins for tokens\n", c.stdout)
	require.Equal(t, "warning: \"alice@example.com\" is an email address; the id of that user is \"alice\"\n", c.stderr)
	c = d.run(t, "sessions", "list", "zoe")
	require.Equal(t, "warning: nobody is known by the id \"zoe\": no profile, no session, no token login\n", c.stderr)
}

// The command and the API tell the same, under the same names.
func TestSessionsListIsWhatTheAPIAnswers(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	g := d.serve(t)
	g.logIn(t, "alice")
	g.app(t, "alice")
	d.express(t, "express-1", `"userId":"alice","roles":"auditor"`, time.Hour)
	key := map[string]string{"x-internal-api-key": deskKey}
	status, body, _ := g.call(t, "GET", "/auth/users/alice/sessions", "", key)
	require.Equal(t, 200, status)
	var answered, printed map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &answered))
	require.NoError(t, json.Unmarshal([]byte(d.ok(t, "sessions", "list", "alice", "--json")), &printed))
	for _, kind := range []string{"sessions", "tokens"} {
		require.NotEmpty(t, answered[kind])
		for _, l := range answered[kind].([]any) {
			delete(l.(map[string]any), "current")
		}
		for _, l := range printed[kind].([]any) {
			require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, l.(map[string]any)["expiresAt"])
			delete(l.(map[string]any), "expiresAt")
		}
	}
	require.Equal(t, answered, printed)
	require.JSONEq(t, `{"user":{"userId":"zoe","email":"","roles":[],"organizationId":"","organizations":[],"disabled":false},"sessions":[],"tokens":[]}`,
		d.ok(t, "sessions", "list", "zoe", "--json"))
}

const hostile = "evil\u001b[31m\u009b2J\u202e\nok\u0007\x7f"

// What others wrote into the store does nothing to a terminal.
func TestNothingOfTheStoreReachesATerminalAsMoreThanText(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	quoted, err := json.Marshal(hostile)
	require.NoError(t, err)
	text := string(quoted)
	d.express(t, "id-1", `"userId":"bob","email":`+text+`,"roles":[`+text+`,"日本語"],"organizationId":`+text+`,`+text+`:`+text+
		`,"gatehouse":{"createdAt":1,"address":`+text+`,"userAgent":`+text+`}`, time.Hour)
	d.express(t, "id-2", `"userId":`+text, time.Hour)
	harmless := func(c command) {
		t.Helper()
		require.Equal(t, exitOK, c.code, c.stderr)
		for _, r := range c.stdout + c.stderr {
			require.True(t, r == '\n' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) && r != '\u202e', "%q in %q", r, c.stdout)
		}
	}
	list := d.run(t, "sessions", "list", "bob")
	harmless(list)
	require.Contains(t, list.stdout, `evil\x1b[31m\u009b2J\u202e\x0aok\x07\x7f`)
	require.Contains(t, list.stdout, "日本語")
	for line := range strings.Lines(list.stdout[strings.Index(list.stdout, "HANDLE"):]) {
		require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSpace(line)), 100)
	}
	for _, args := range [][]string{
		{"sessions", "list", "bob", "--json"},
		{"sessions", "show", "bob", authz.Handle("id-1")},
		{"sessions", "show", "bob", authz.Handle("id-1"), "--json"},
		{"sessions", "list", hostile},
		{"sessions", "revoke", hostile, authz.Handle("id-2")},
		{"sessions", "revoke", hostile, "--all", "--yes"},
		{"sessions", "set", hostile, "roles=x"},
		{"tokens", "mint", "--user", hostile},
		{"tokens", "revoke", "--jti", hostile},
	} {
		harmless(d.run(t, args...))
	}
	var printed struct{ Sessions []struct{ UserAgent string } }
	require.NoError(t, json.Unmarshal([]byte(d.ok(t, "sessions", "list", "bob", "--json")), &printed))
	require.Equal(t, hostile, printed.Sessions[0].UserAgent, "JSON loses nothing")
}

func TestSessionsShow(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	const id = "an-id-of-express-that-is-not-shown"
	d.express(t, id, `"userId":7,"email":"seven@example.com","roles":["member"],"cart":[{"sku":"a","amount":2}],"self":"`+id+`",`+
		`"csrfToken":"secret-1","passport":{"user":7,"access_token":"secret-2","expires":9},"pending":false,"password":"","apiKeys":["secret-3"],`+
		`"idToken":null,"hasPassword":true,"note":"eyJhbGciOiJub25lIn0.eyJzdWIiOiJzZWNyZXQtNCJ9.secret-5","signed":"s:abc.secret/6+=","cookies":"a=secret-6",`+
		`"back":"https://x.example/a?code=secret-7","feed":"https://u:secret-8@x.example/","home":"https://x.example/a?page=1&token="`, time.Hour)
	handle := authz.Handle(id)
	text := d.ok(t, "sessions", "show", "7", handle)
	require.Contains(t, text, "handle     "+handle+"\nkind       session\nuser       7\nemail      seven@example.com\nroles      member\ncreated    unknown\n")
	require.Regexp(t, `expires    20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ \(in 59m\)\n`, text)
	require.Contains(t, text, "not shown, since they are secret by their names or looks: apiKeys, back, cookies, csrfToken, feed, note, passport.access_token, signed\n")

	var shown map[string]any
	require.NoError(t, json.Unmarshal([]byte(d.ok(t, "sessions", "show", "7", handle, "--json")), &shown))
	delete(shown, "expiresAt")
	text2, err := json.Marshal(shown)
	require.NoError(t, err)
	require.JSONEq(t, `{"kind":"session","handle":"`+handle+`","createdAt":null,"lastSeen":null,"address":"","userAgent":"","userId":"7","email":"seven@example.com",
		"roles":["member"],"authTime":null,"hidden":["apiKeys","back","cookies","csrfToken","feed","note","passport.access_token","signed"],
		"record":{"cookie":{"originalMaxAge":3600000,"expires":"2026-01-01T00:00:00.000Z","httpOnly":true,"path":"/"},"userId":7,"email":"seven@example.com","roles":["member"],
		"cart":[{"sku":"a","amount":2}],"self":"[session id]","csrfToken":"[not shown]","passport":{"user":7,"access_token":"[not shown]","expires":9},"pending":false,"password":"",
		"apiKeys":"[not shown]","idToken":null,"hasPassword":true,"note":"[not shown]","signed":"[not shown]","cookies":"[not shown]",
		"back":"[not shown]","feed":"[not shown]","home":"https://x.example/a?page=1&token="}}`, string(text2))
	for _, out := range []string{text, string(text2)} {
		require.NotContains(t, out, "secret-")
		require.NotContains(t, out, id)
	}

	require.NoError(t, d.store.CreateFamily(t.Context(), authz.Family{ID: "family-1", UserID: "7", Device: authz.Device{UserAgent: "App/1"}}))
	text = d.ok(t, "sessions", "show", "7", authz.Handle("family-1"))
	require.Contains(t, text, "kind        refresh\n")
	require.Contains(t, text, "user agent  App/1\n")
	require.NotContains(t, text, "record")
	require.NotContains(t, text, "family-1")

	d.express(t, "malformed", `"userId":"7","roles":5`, time.Hour)
	require.Contains(t, d.ok(t, "sessions", "show", "7", authz.Handle("malformed")), "the gate refuses this record: roles is not an array of strings or one string")

	c := d.run(t, "sessions", "show", "alice", handle)
	require.Equal(t, exitFailed, c.code)
	require.Equal(t, `gatehouse: "alice" has no session and no login for tokens with the handle `+handle+": it has ended, or is somebody else's; 'gatehouse sessions list' shows what there is\n", c.stderr)
	c = d.run(t, "sessions", "show", "7", id)
	require.Equal(t, exitUsage, c.code)
	require.NotContains(t, c.stderr, id, "an id that was pasted is not repeated")
}

// A running server sees what a command changes: in a session of its own, in one of
// Express that it never saw, and in tokens.
func TestSessionsSetCountsAtOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	g := d.serve(t)
	conn := g.dial(t)
	bob := g.logIn(t, "bob")
	access, _ := g.app(t, "bob")
	d.express(t, "express-1", `"userId":"bob","roles":["member"],"organizationId":"org-2"`, time.Hour)
	require.Equal(t, `["member","auditor"]`, seenByService(t, conn, bob)["x-user-roles"])
	all := []map[string]string{bob, bearerOf(access), cookie(t, "express-1")}
	have := func(roles, organization string) {
		t.Helper()
		for _, headers := range all {
			until(t, "the change is seen", func() bool {
				id := seenByService(t, conn, headers)
				return id["x-user-roles"] == roles && id["x-org-id"] == organization
			})
		}
	}
	c := d.run(t, "sessions", "set", "bob", "roles=owner,auditor", "organizationId=org-1")
	require.Equal(t, command{exitOK, "Changed 2 sessions\n", c.stderr}, c)
	require.Equal(t, map[string]any{"action": "change_user", "user": "bob", "changes": "organizationId,roles", "sessions": 2.0, "command": "sessions set"}, c.audited(t))
	have(`["owner","auditor"]`, "org-1")
	require.JSONEq(t, `{"changed":2}`, d.ok(t, "sessions", "set", "bob", `roles=["a,b","c"]`, "--json"))
	have(`["a,b","c"]`, "org-1")
	d.ok(t, "sessions", "set", "bob", "roles=", "organizationId=")
	have(`[]`, "")

	d.ok(t, "sessions", "set", "bob", "disabled=true")
	for _, headers := range all {
		until(t, "locked out", func() bool { return seenByService(t, conn, headers) == nil })
	}
	d.ok(t, "sessions", "set", "bob", "disabled=false")
	have(`[]`, "")
}

// A profile that can't be read has its user refused; what ends sessions still does.
func TestSessionsOfAMalformedProfile(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	require.NoError(t, d.client.Set(t.Context(), "user:bob", `{"roles":7}`, 0).Err())
	d.express(t, "id-1", `"userId":"bob"`, time.Hour)
	c := d.run(t, "sessions", "list", "bob")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "correct or delete the key user:ID in Redis")
	require.Equal(t, "Revoked 1 session of bob, and all tokens\n", d.ok(t, "sessions", "revoke", "bob", "--all", "--yes"))
	d.ok(t, "sessions", "set", "bob", "roles=member")
	d.ok(t, "sessions", "list", "bob")
}

func TestSessionsSetOfNobodyWarns(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	c := d.run(t, "sessions", "set", "zoe", "disabled=true")
	require.Equal(t, exitOK, c.code)
	require.Equal(t, "Changed 0 sessions\n", c.stdout)
	require.Contains(t, c.stderr, `warning: nobody is known by the id "zoe"`)
	require.NotContains(t, d.run(t, "sessions", "set", "alice", "disabled=true").stderr, "warning", "of the users file")

	off := newDesk(t, "", "identity: {profiles: false}")
	c = off.run(t, "sessions", "set", "bob", "disabled=true")
	require.Equal(t, exitFailed, c.code)
	require.Contains(t, c.stderr, "profiles are off")
}

func TestSessionsRevoke(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	g := d.serve(t)
	conn := g.dial(t)
	one, two, three := g.logIn(t, "bob"), g.logIn(t, "bob"), g.logIn(t, "bob")
	access, refresh := g.app(t, "bob")
	someone := g.logIn(t, "alice")
	d.express(t, "express-1", `"userId":"bob"`, time.Hour)
	d.express(t, "express-2", `"userId":"bob"`, time.Hour)
	passes := func(headers map[string]string) bool { return seenByService(t, conn, headers) != nil }
	gone := func(all ...map[string]string) {
		t.Helper()
		for _, headers := range all {
			until(t, "ended", func() bool { return !passes(headers) })
		}
	}
	for _, headers := range []map[string]string{one, two, three, someone, bearerOf(access)} {
		require.True(t, passes(headers))
	}

	// By handle, those included that the gate never saw.
	c := d.run(t, "sessions", "revoke", "bob", handleOfCookie(t, one), authz.Handle("express-1"), handleOfCookie(t, one))
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, "Revoked 2 logins of bob\n", c.stdout)
	require.Equal(t, 2, strings.Count(c.stderr, `"action":"end_session"`))
	gone(one, cookie(t, "express-1"))
	require.True(t, passes(two))
	c = d.run(t, "sessions", "revoke", "bob", handleOfCookie(t, one), handleOfCookie(t, someone), handleOfCookie(t, two))
	require.Equal(t, exitFailed, c.code, "two of them are not bob's")
	require.Equal(t, "Revoked 1 login of bob\n", c.stdout)
	require.Contains(t, c.stderr, handleOfCookie(t, one)+", "+handleOfCookie(t, someone))
	gone(two)
	require.True(t, passes(someone))

	// All of it.
	for _, args := range [][]string{{"--all"}, {"--all", "--json"}} {
		c = d.run(t, append([]string{"sessions", "revoke", "bob"}, args...)...)
		require.Equal(t, exitUsage, c.code)
		require.Equal(t, "gatehouse: standard input is no terminal to ask at: add --yes\n", c.stderr)
	}
	require.True(t, passes(three))
	c = d.run(t, "sessions", "revoke", "bob", "--all", "--yes")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, "Revoked 2 sessions of bob, and all tokens\n", c.stdout)
	require.Equal(t, map[string]any{"action": "revoke_all", "user": "bob", "sessions": 2.0, "command": "sessions revoke"}, c.audited(t))
	gone(three, bearerOf(access), cookie(t, "express-2"))
	status, _, _ := g.call(t, "POST", "/auth/refresh", `{"refreshToken":"`+refresh+`"}`, nil)
	require.Equal(t, 401, status)
	require.True(t, passes(someone))
	require.JSONEq(t, `{"revoked":0}`, d.ok(t, "sessions", "revoke", "bob", "--all", "-y", "--json"))
	require.NotContains(t, c.stderr, "warning")
	for _, args := range [][]string{{"--all", "--yes"}, {"--before", "2026-01-01", "--yes"}} {
		c = d.run(t, append([]string{"sessions", "revoke", "bbo"}, args...)...)
		require.Equal(t, exitOK, c.code)
		require.Contains(t, c.stderr, `warning: nobody is known by the id "bbo"`, "a mistyped id")
	}
	require.True(t, passes(g.logIn(t, "bob")), "who logs in again is in")
}

// handleOfCookie is the handle of the session of a cookie.
func handleOfCookie(t *testing.T, headers map[string]string) string {
	t.Helper()
	_, value, _ := strings.Cut(headers["cookie"], "=s%3A")
	id, _, ok := strings.Cut(value, ".")
	require.True(t, ok)
	return authz.Handle(id)
}

func TestSessionsRevokeBefore(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "")
	at := func(t time.Time) string { return fmt.Sprint(t.Unix()) }
	now := time.Now()
	d.express(t, "old", `"userId":"bob","authTime":`+at(now.Add(-2*time.Hour)), time.Hour)
	d.express(t, "new", `"userId":"bob","authTime":`+at(now.Add(-time.Minute)), time.Hour)
	d.express(t, "timeless", `"userId":"bob"`, time.Hour)
	require.NoError(t, d.store.CreateFamily(t.Context(), authz.Family{ID: "f", UserID: "bob", Created: now.Add(-3 * time.Hour), AuthTime: now.Add(-3 * time.Hour)}))
	before := now.Add(-time.Hour).UTC().Truncate(time.Second)
	c := d.run(t, "sessions", "revoke", "bob", "--before", before.Format(time.RFC3339))
	require.NotEqual(t, exitOK, c.code)
	require.Contains(t, c.stderr, "--yes")
	require.Contains(t, d.ok(t, "sessions", "list", "bob"), authz.Handle("old"), "nobody was asked")
	c = d.run(t, "sessions", "revoke", "bob", "--before", before.Format(time.RFC3339), "--yes")
	require.Equal(t, exitOK, c.code, c.stderr)
	require.Equal(t, "Revoked 2 logins of bob, and the tokens made up to "+before.Format(time.RFC3339)+"\n", c.stdout)
	require.Equal(t, map[string]any{"action": "revoke_before", "user": "bob", "before": before.Format(time.RFC3339), "command": "sessions revoke"}, c.audited(t))
	left := d.ok(t, "sessions", "list", "bob")
	require.NotContains(t, left, authz.Handle("old"))
	require.NotContains(t, left, authz.Handle("f"))
	require.Contains(t, left, authz.Handle("new"))
	require.Contains(t, left, authz.Handle("timeless"))
	for _, text := range []string{at(now), now.UTC().Format(time.DateOnly)} {
		require.Equal(t, exitOK, d.run(t, "sessions", "revoke", "bob", "--before", text, "--yes").code, text)
	}
	require.NotContains(t, d.ok(t, "sessions", "list", "bob"), authz.Handle("new"))
}
