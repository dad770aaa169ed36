package authapi_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
)

// Every call is one line and one count. What the lines may hold, they say here;
// that they hold no credential, the journal checks after each test.
func TestEveryCallIsLoggedAndCounted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	request := []string{"X-Request-Id", "request-1", "X-Forwarded-For", "203.0.113.9"}
	line := func(t *testing.T) object {
		t.Helper()
		o := b.log.last(t, "auth")
		require.Contains(t, o, "took")
		delete(o, "time")
		delete(o, "took")
		delete(o, "msg")
		return o
	}
	cookie, id := b.logIn(t, bob, request...)
	require.Equal(t, object{
		"level": "INFO", "call": "login", "status": 200.0, "user": "bob", "session": handle(id), "address": "203.0.113.9", "request_id": "request-1",
	}, line(t))
	require.Equal(t, "login 200", b.recorder.last())
	b.get(t, "/auth/me", cookie...)
	require.Equal(t, object{"level": "DEBUG", "call": "me", "status": 200.0, "caller": "bob", "user": "bob", "session": handle(id), "address": "192.0.2.1"}, line(t))
	b.post(t, "/auth/login", object{"email": bob.Email, "password": b.log.secret("a guess of mine")})
	require.Equal(t, object{"level": "INFO", "call": "login", "status": 401.0, "reason": "password_wrong", "error": "password_wrong: no such pair", "address": "192.0.2.1"}, line(t))
	b.get(t, "/auth/nothing?email=bob@example.com")
	require.Equal(t, object{"level": "INFO", "call": "unknown", "status": 404.0, "reason": "not_found", "error": "not_found", "address": "192.0.2.1"}, line(t))
	b.get(t, "/auth/login")
	require.Equal(t, "method_not_allowed", line(t)["reason"])
	require.Equal(t, "unknown 405", b.recorder.last())
	b.post(t, "/auth/refresh", nil)
	require.Equal(t, "no_credential", line(t)["reason"])
	b.call(t, "PATCH", "/auth/users/bob/sessions", object{"disabled": true}, key(keyOfBackend)...)
	require.Equal(t, object{"level": "INFO", "call": "change_user", "status": 200.0, "caller": "service:backend", "user": "bob", "address": "192.0.2.1"}, line(t))
	b.get(t, "/auth//me")
	require.Equal(t, "bad_path", line(t)["reason"])
	b.post(t, "/auth/login", `{"email":"secret-of-mine","password":"secret-of-mine","secret-of-mine":1`)
	require.Equal(t, "bad_request: body: not JSON", line(t)["error"])
	b.post(t, "/auth/login", `{"email":["secret-of-mine"],"password":"x"}`)
	require.Equal(t, "bad_request: body: email: wrong type", line(t)["error"])
	b.post(t, "/auth/login", `{"secret-of-mine":1}`)
	require.NotContains(t, line(t)["error"], "secret-of-mine")
	b.get(t, "/auth/users/"+strings.Repeat("x", 5000)+"/sessions", key(keyOfBackend)...)
	require.LessOrEqual(t, len(line(t)["user"].(string)), 520)
	require.NotContains(t, b.log.text.String(), "example.com", "an address of email")
}

func TestChangesAreAudited(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	last := func() object {
		o := b.log.last(t, "audit")
		require.Equal(t, "INFO", o["level"])
		require.Equal(t, "audit", o["log"])
		delete(o, "log")
		if o["outcome"] == "applied" {
			delete(o, "outcome")
		}
		for _, name := range []string{"time", "msg", "level", "address"} {
			require.Contains(t, o, name)
			delete(o, name)
		}
		return o
	}
	admin, adminID := b.logIn(t, alice)
	require.Equal(t, object{"action": "login", "user": "alice", "session": handle(adminID)}, last())
	cookie, id := b.logIn(t, bob)
	cookie2, id2 := b.logIn(t, bob, cookie...)
	require.Equal(t, object{"action": "login", "user": "bob", "session": handle(id2), "replaces": handle(id)}, last())
	app := b.app(t, bob)
	require.Equal(t, object{"action": "token_login", "user": "bob", "family": handle("family1")}, last())
	b.call(t, "PATCH", "/auth/session", object{"organizationId": "org-2"}, cookie2...)
	require.Equal(t, object{"action": "switch_organization", "by": "bob", "user": "bob", "session": handle(id2), "organization": "org-2"}, last())
	b.post(t, "/auth/revoke", object{"token": app.access})
	require.Equal(t, object{"action": "revoke", "user": "bob", "token": handle("jti-1")}, last())
	b.post(t, "/auth/revoke", object{"token": app.refresh})
	require.Equal(t, object{"action": "revoke", "family": handle("family1")}, last())
	b.post(t, "/auth/logout", nil, cookie2...)
	require.Equal(t, object{"action": "logout", "session": handle(id2)}, last())
	require.Equal(t, handle(id2), b.log.last(t, "auth")["session"])
	app = b.app(t, bob)
	b.post(t, "/auth/logout", nil, bearer(app.access)...)
	require.Equal(t, object{"action": "logout", "family": handle("family2"), "token": handle("jti-2")}, last())
	require.Equal(t, 201, b.post(t, "/auth/sessions", object{"userId": "dora"}, key(keyOfBackend)...).status)
	require.Equal(t, object{"action": "create_session", "by": "service:backend", "user": "dora", "session": handle("session-id-4")}, last())
	b.call(t, "PATCH", "/auth/users/dora/sessions", object{"roles": []string{"r"}, "disabled": false}, admin...)
	require.Equal(t, object{"action": "change_user", "by": "alice", "user": "dora", "changes": "roles,disabled", "sessions": 1.0}, last())
	b.call(t, "DELETE", "/auth/users/dora/sessions/"+handle("session-id-4"), nil, admin...)
	require.Equal(t, object{"action": "end_session", "by": "alice", "user": "dora", "session": handle("session-id-4")}, last())
	b.post(t, "/auth/revoke-all-sessions", object{"userId": "dora"}, admin...)
	require.Equal(t, object{"action": "revoke_all", "by": "alice", "user": "dora", "sessions": 0.0}, last())
	b.post(t, oidcLogout, "logout_token=logout-token-of-sub-bob", asForm...)
	require.Equal(t, object{"action": "oidc_logout", "provider": "corp", "subject": "sub-bob", "sessions": 0.0}, last())

	// What was asked for and refused, or did not happen, is told, too.
	b.post(t, "/auth/login", object{"email": "x", "password": "y"}, "User-Agent", "curl/8\x1b")
	require.Equal(t, object{"action": "login", "outcome": "refused", "reason": "password_wrong", "user_agent": "curl/8"}, last())
	b.call(t, "DELETE", "/auth/users/dora/sessions/an-id-of-a-session-and-no-handle", nil, admin...)
	require.Equal(t, object{"action": "end_session", "outcome": "refused", "reason": "not_found", "by": "alice", "user": "dora", "session": handle(adminID)}, last())
	b.post(t, "/auth/revoke-all-sessions", object{"userId": "dora"})
	require.Equal(t, object{"action": "revoke_all", "outcome": "refused", "reason": "no_credential"}, last())
	b.store.expect(1, errOut)
	b.post(t, "/auth/logout", nil, admin...)
	b.store.expect(0, nil)
	require.Equal(t, object{"action": "logout", "session": handle(adminID), "outcome": "failed", "reason": "store_unavailable"}, last())
	// What is no change, or no request, is not.
	n := len(b.log.lines(t, "audit"))
	b.post(t, "/auth/logout", nil)
	b.post(t, "/auth/login", "{")
	b.get(t, "/auth/me")
	b.get(t, "/auth/sessions", admin...)
	require.Len(t, b.log.lines(t, "audit"), n)
	// What could not be confirmed was done.
	b.store.expect(1, authz.Refuse(authz.ReasonNotConfirmed, "0 of 1"))
	b.store.lost = true
	b.post(t, "/auth/logout", nil, admin...)
	require.Equal(t, object{"action": "logout", "session": handle(adminID), "outcome": "not_confirmed", "reason": "not_confirmed", "confirmed": false}, last())
}

// A refresh token that was used again is told of, though too few replicas have heard that
// its family is revoked: the next try finds nothing any more.
func TestAReuseThatIsNotConfirmedIsAudited(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	app := b.app(t, bob)
	b.post(t, "/auth/refresh", object{"refreshToken": app.refresh})
	b.clock.Advance(grace + time.Second)
	b.store.expect(3, fmt.Errorf("%w: %w", authz.ErrRefreshReused, authz.Refuse(authz.ReasonNotConfirmed, "0 of 1")))
	b.store.lost = true
	require.Equal(t, 503, b.post(t, "/auth/refresh", object{"refreshToken": app.refresh}).status)
	require.Equal(t, []string{"Family", "UserStanding", "RotateFamily"}, b.store.called())
	line := b.log.last(t, "audit")
	require.Equal(t, "refresh_token_reused", line["action"])
	require.Equal(t, "not_confirmed", line["outcome"])
	require.Equal(t, handle("family1"), line["family"])
	require.Contains(t, b.recorder.changes, "refresh_token_reused")
}

// What came to a part of the sessions is told as what it is, as the command line does.
func TestAPartOfAChangeIsAudited(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.logIn(t, bob)
	b.store.expect(1, errOut)
	b.store.lost = true
	require.Equal(t, 503, b.post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}, key(keyOfBackend)...).status)
	line := b.log.last(t, "audit")
	require.Equal(t, "applied", line["outcome"])
	require.Equal(t, false, line["complete"])
	require.InDelta(t, 1, line["sessions"], 0)
	b.store.expect(1, errOut)
	b.post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}, key(keyOfBackend)...)
	require.Equal(t, "failed", b.log.last(t, "audit")["outcome"])
}

// What was begun has an end, though calls that are shed have no line as a rule.
func TestWhatWasPermittedHasAnEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store.expect(2, authz.Refuse(authz.ReasonOverloaded, "too many"))
	require.Equal(t, 503, b.post(t, "/auth/token", credentials(bob)).status)
	require.Equal(t, []string{"UserStanding", "CompleteProfile"}, b.store.called())
	line := b.log.last(t, "audit")
	require.Equal(t, "token_login", line["action"])
	require.Equal(t, "failed", line["outcome"])
}

// Nobody who isn't known fills the disk with lines, and how many are missing is there.
func TestRefusalsOfStrangersAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const tries = 200
	for range tries {
		require.Equal(t, 401, b.post(t, "/auth/refresh", object{"refreshToken": "x"}).status)
	}
	require.Eventually(t, func() bool {
		lines, told := 0, 0.0
		for _, line := range b.log.lines(t, "audit") {
			lines++
			if count, ok := line["count"].(float64); ok {
				require.Equal(t, "refused", line["outcome"])
				require.Equal(t, "refresh", line["action"])
				told += count - 1
			}
		}
		require.Less(t, lines, tries)
		return float64(lines)+told == tries
	}, 10*time.Second, 10*time.Millisecond)

	// Who is known is answerable for each.
	admin, _ := b.logIn(t, bob)
	before := len(b.log.lines(t, "audit"))
	for range 20 {
		require.Equal(t, 403, b.post(t, "/auth/revoke-all-sessions", object{"userId": "x"}, admin...).status)
	}
	require.Len(t, b.log.lines(t, "audit"), before+20)
}

// strict is an audit log that can't be written.
type strict struct{ asked []string }

func (s *strict) Permit(_ context.Context, attrs ...slog.Attr) error {
	s.asked = append(s.asked, attrs[0].Value.String())
	return errors.New("no space left on device")
}

func (s *strict) Record(_ context.Context, o authapi.Outcome, attrs ...slog.Attr) {
	s.asked = append(s.asked, attrs[0].Value.String()+" "+string(o))
}

// Where no change may be made that can't be written down, none is; and nobody is told of
// a session or a token that is not there.
func TestNoChangeWithoutItsLine(t *testing.T) {
	t.Parallel()
	log := &strict{}
	b := newBench(t)
	cookie, id := b.logIn(t, bob)
	app := b.app(t, bob)
	admin, _ := b.logIn(t, alice)
	b.strict(t, log)
	for _, test := range []struct {
		action, method, target string
		body                   any
		headers                []string
	}{
		{"login", "POST", "/auth/login", credentials(bob), nil},
		{"token_login", "POST", "/auth/token", with(credentials(bob), object{"client": "mobile"}), nil},
		{"logout", "POST", "/auth/logout", nil, cookie},
		{"revoke_all", "POST", "/auth/revoke-all-sessions", object{"userId": "bob"}, admin},
		{"revoke", "POST", "/auth/revoke", object{"token": app.access}, nil},
		{"revoke", "POST", "/auth/revoke", object{"token": app.refresh}, nil},
		{"switch_organization", "PATCH", "/auth/session", object{"organizationId": "org-2"}, cookie},
		{"end_session", "DELETE", "/auth/sessions/" + handle(id), nil, cookie},
		{"create_session", "POST", "/auth/sessions", object{"userId": "dora"}, key(keyOfBackend)},
		{"change_user", "PATCH", "/auth/users/bob/sessions", object{"disabled": true}, admin},
		{"end_session", "DELETE", "/auth/users/bob/sessions/" + handle(id), nil, admin},
		{"oidc_logout", "POST", oidcLogout, "logout_token=logout-token-of-sub-bob", asForm},
	} {
		log.asked = nil
		a := b.call(t, test.method, test.target, test.body, test.headers...)
		require.Contains(t, []int{500, 503}, a.status, test.target)
		require.Equal(t, []string{test.action}, log.asked, test.target)
		require.Contains(t, b.log.last(t, "auth")["error"], "no space left on device")
		require.Equal(t, "WARN", b.log.last(t, "auth")["level"])
	}
	require.True(t, b.works(t, cookie), "nothing was changed")
	require.True(t, b.works(t, bearer(app.access)))
}

// Whoever counts changes knows all of their names in advance.
func TestActionsAreThoseOfTheAuditLines(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	named := map[string]bool{}
	call := regexp.MustCompile(`a\.(?:audit|auditSome|begin)\(ctx, c, ("\w+"|\w+)`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range call.FindAllStringSubmatch(string(text), -1) {
			if action, err := strconv.Unquote(m[1]); err == nil {
				named[action] = true
			} else {
				require.Equal(t, "action", m[1], "%s: an action that no list can know", file)
			}
		}
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(named)), authapi.Actions)
}

// Whatever is no GET changes something, and says what the audit log calls it.
func TestEveryOperationSaysWhatItChanges(t *testing.T) {
	t.Parallel()
	reads := []string{"introspect"}
	for _, op := range newBench(t).api.Operations() {
		changes := op.Method != http.MethodGet && !slices.Contains(reads, op.Name) || op.Name == "oidc_callback"
		require.Equal(t, changes, op.Change != "", op.Name)
	}
}
