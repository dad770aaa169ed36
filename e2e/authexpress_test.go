package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAuthAPIAndExpress: the auth API and an Express application share their
// sessions in both directions.
func TestAuthAPIAndExpress(t *testing.T) {
	nodeModules(t)
	s := start(t, options{})
	g := s.gateway(t)
	app := s.startExpress(t, object{"secret": []string{secretCurrent, secretPrevious}}, object{})
	jar := func(b *browser) string { return "sessionId=" + b.cookies["sessionId"].value }
	admin := g.browse()
	admin.logIn(t, alicesLogin)

	t.Run("Express reads, changes and destroys what Gatehouse made", func(t *testing.T) {
		b := g.browse()
		b.logIn(t, bobsLogin)
		seen, set := app.do(t, "GET", "/me", jar(b), nil)
		require.Equal(t, "bob", seen["userId"])
		require.Equal(t, "bob@example.com", seen["email"])
		require.Equal(t, []any{"member"}, seen["roles"])
		if set != "" { // a rolling application sends the cookie again: the same one
			require.Equal(t, jar(b), set)
		}
		app.do(t, "POST", "/touch", jar(b), object{"cart": []int{1, 2, 3}, "organizationId": "org-2"})
		moved := bobsLogin.identity()
		moved.org = "org-2"
		requireAllowed(t, b.open(t, "/users/me"), moved)
		require.Equal(t, "org-2", b.open(t, "/auth/me").json(t)["organizationId"])
		// What it keeps there survives a change by Gatehouse.
		require.Equal(t, 200, b.request(t, "PATCH", "/auth/session", object{"organizationId": "org-1"}).status)
		seen, _ = app.do(t, "GET", "/me", jar(b), nil)
		require.Equal(t, []any{1.0, 2.0, 3.0}, seen["cart"])
		require.Equal(t, "org-1", seen["organizationId"])
		app.do(t, "POST", "/logout", jar(b), nil)
		requireDenied(t, b.open(t, "/users/me"), 401, invalidSession)
		requireAnswer(t, b.open(t, "/auth/me"), 401, invalidSession)
	})
	t.Run("Gatehouse reads, lists, changes and ends what Express made", func(t *testing.T) {
		id, header := app.login(t, bob, object{"cart": []int{7}, "organizations": []string{"org-1", "org-2"}})
		b := g.browse()
		b.cookies["sessionId"] = keptCookie{strings.TrimPrefix(header, "Cookie: sessionId="), "/"}
		require.Equal(t, "bob", b.open(t, "/auth/me").json(t)["userId"])
		require.NotEmpty(t, list(b.open(t, "/auth/sessions").json(t)["sessions"]))
		require.Equal(t, 200, b.request(t, "PATCH", "/auth/session", object{"organizationId": "org-2"}).status)
		seen, _ := app.do(t, "GET", "/me", jar(b), nil)
		require.Equal(t, "org-2", seen["organizationId"])
		require.Equal(t, []any{7.0}, seen["cart"])
		requireAnswer(t, b.copy().post(t, "/auth/logout", nil), 200, loggedOut)
		seen, _ = app.do(t, "GET", "/me", jar(b), nil)
		require.Nil(t, seen["userId"])
		require.Zero(t, s.store.Exists(t.Context(), "sess:"+id).Val())
	})
	t.Run("revoked is revoked, also for a request of Express that was under way", func(t *testing.T) {
		id, header := app.login(t, bob, nil)
		app.login(t, bob, nil) // which the gate never sees
		text, err := s.store.Get(t.Context(), "sess:"+id).Result()
		require.NoError(t, err)
		r := admin.post(t, "/auth/revoke-all-sessions", object{"userId": "bob"})
		requireAnswer(t, r, 200, `{"message":"Revoked 2 sessions"}`)
		requireDenied(t, g.get(t, "/users/me", header), 401, invalidSession)
		// express-session saves what it had in memory.
		require.NoError(t, s.store.Set(t.Context(), "sess:"+id, text, 0).Err())
		requireDenied(t, g.get(t, "/users/me", header), 401, invalidSession)
		var record object
		require.NoError(t, json.Unmarshal([]byte(text), &record))
		require.Equal(t, "bob", record["userId"])
		// A new login of Express is a new session; one that says to the
		// millisecond when it was, since in whole seconds it could be older.
		_, header = app.login(t, bob, object{"authTime": float64(time.Now().UnixMilli()) / 1e3})
		requireAllowed(t, g.get(t, "/users/me", header), bob)
	})
}
