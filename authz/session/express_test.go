package session_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// expressApp is the running application of testdata/app.cjs.
type expressApp struct {
	*proc.Process
	url string
}

func startExpress(t *testing.T, redisURL string) expressApp {
	t.Helper()
	modules := nodeModules(t)
	p := proctest.Start(t, proctest.Need(t, "node"), []string{"testdata/app.cjs"}, proc.Options{Env: []string{
		"GATEHOUSE_NODE_MODULES=" + modules, "REDIS_URL=" + redisURL, `SECRETS=["current","previous"]`,
	}})
	app := expressApp{Process: p}
	app.url = "http://127.0.0.1:" + app.await(t, "listening on ")
	return app
}

// await waits until the application printed a line with a prefix, and returns
// the rest of it.
func (e expressApp) await(t *testing.T, prefix string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	line, err := e.AwaitLine(ctx, func(line string) bool { return strings.HasPrefix(line, prefix) })
	require.NoError(t, err)
	return strings.TrimPrefix(line, prefix)
}

// request has a session cookie, "" for none.
func (e expressApp) request(t *testing.T, method, path, cookie, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, e.url+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	if cookie != "" {
		req.Header.Set("Cookie", "sessionId="+cookie)
	}
	return req
}

// do makes a request and returns the reply and the cookie that it sets.
func (e expressApp) do(t *testing.T, method, path, cookie, body string) (reply map[string]any, set string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(e.request(t, method, path, cookie, body))
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", text)
	require.NoError(t, json.Unmarshal(text, &reply))
	if header := resp.Header.Get("Set-Cookie"); header != "" {
		set, _, _ = strings.Cut(strings.TrimPrefix(header, "sessionId="), ";")
	}
	return reply, set
}

func TestExpressAndGatehouseShareSessions(t *testing.T) {
	nodeModules(t)
	s := newServer(t, backends[1])
	f := s.store(t, session.Options{Rolling: true, Profiles: true, Cookie: session.Cookie{InsecureHTTP: true}})
	app := startExpress(t, s.url)
	signer := newSigner(t, "current", "previous")
	raw := func(t *testing.T, id string) string {
		t.Helper()
		text, err := f.client.Get(t.Context(), "sess:"+id).Result()
		require.NoError(t, err)
		return text
	}
	login := func(t *testing.T, body string) (id, cookie string) {
		t.Helper()
		_, cookie = app.do(t, "POST", "/login", "", body)
		id, ok := signer.Verify(cookie)
		require.True(t, ok, cookie)
		return id, cookie
	}

	t.Run("a session of Express is found, by the cookie that it set", func(t *testing.T) {
		id, _ := login(t, `{"userId":7,"email":"e@example.com","roles":["admin"],"organizationId":"org","cart":[1,2]}`)
		got := f.session(t, id)
		require.Equal(t, authz.Identity{ID: "7", Email: "e@example.com", Roles: []string{"admin"}, Organization: "org"}, got.Identity)
		require.Equal(t, []any{json.Number("1"), json.Number("2")}, got.Values["cart"])
	})

	t.Run("a session of ours is one of Express, to the letter", func(t *testing.T) {
		n := session.NewSession{
			Identity: authz.Identity{ID: "u", Email: "é<&>@example.com", Roles: []string{"a", "b"}, Organization: "org"},
			AuthTime: time.UnixMilli(1700000000123),
			Values:   map[string]any{"cart": map[string]any{"n": 1}},
		}
		id, err := f.Create(t.Context(), n)
		require.NoError(t, err)
		require.Regexp(t, `^[\w-]{32}$`, id)
		got, set := app.do(t, "GET", "/session", signer.Sign(id), "")
		require.Empty(t, set, "Express made a new session: it did not know ours")
		require.Equal(t, "u", got["userId"])
		require.Equal(t, map[string]any{"n": 1.0}, got["cart"])

		theirs, _ := login(t, `{"userId":"u","email":"é<&>@example.com","roles":["a","b"],"organizationId":"org","authTime":1700000000.123,"cart":{"n":1}}`)
		require.Len(t, theirs, len(id))
		// What depends on the moment: Express takes its time between two looks
		// at the clock, and then writes a life of 86399999.
		moment := regexp.MustCompile(`"originalMaxAge":86(400000|399\d{3}),"expires":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`)
		require.Regexp(t, moment, raw(t, id))
		require.Regexp(t, moment, raw(t, theirs))
		ours := regexp.MustCompile(`,"gatehouse":\{"createdAt":[\d.]+\}\}$`)
		require.Regexp(t, ours, raw(t, id), "and has one member more")
		require.Equal(t, moment.ReplaceAllString(raw(t, theirs), ""), ours.ReplaceAllString(moment.ReplaceAllString(raw(t, id), ""), "}"))
	})

	t.Run("a secret that was rotated out still verifies there", func(t *testing.T) {
		id, err := f.Create(t.Context(), session.NewSession{Identity: authz.Identity{ID: "u"}})
		require.NoError(t, err)
		got, _ := app.do(t, "GET", "/session", newSigner(t, "previous").Sign(id), "")
		require.Equal(t, "u", got["userId"])
	})

	t.Run("changes of either are seen by the other", func(t *testing.T) {
		id, cookie := login(t, `{"userId":"u","organizationId":"org-1","big":9007199254740991,"s":"\u2028é"}`)
		app.do(t, "POST", "/set", cookie, `{"organizationId":"org-2","roles":"admin"}`)
		got := f.session(t, id)
		require.Equal(t, "org-2", got.Organization)
		require.Equal(t, []string{"admin"}, got.Roles)

		before := raw(t, id)
		require.NoError(t, f.Update(t.Context(), id, func(r *session.Record) error { return r.Set("organizationId", "org-3") }))
		require.Equal(t, strings.Replace(before, `"org-2"`, `"org-3"`, 1), raw(t, id), "nothing else changes")
		theirs, _ := app.do(t, "GET", "/session", cookie, "")
		require.Equal(t, "org-3", theirs["organizationId"])
		require.Equal(t, "\u2028é", theirs["s"])
	})

	t.Run("a session that Express touched lives on, whatever its record says", func(t *testing.T) {
		id, cookie := login(t, `{"userId":"u"}`)
		require.NoError(t, f.client.PExpire(t.Context(), "sess:"+id, time.Minute).Err())
		before := raw(t, id)
		app.do(t, "GET", "/session", cookie, "")
		about(t, 24*time.Hour, f.ttl(t, "sess:"+id))
		require.Equal(t, before, raw(t, id), "touch leaves cookie.expires stale")
		f.session(t, id)
	})

	t.Run("a session that we renewed is known to Express", func(t *testing.T) {
		id, cookie := login(t, `{"userId":"u"}`)
		require.NoError(t, f.client.PExpire(t.Context(), "sess:"+id, time.Minute).Err())
		f.session(t, id)
		about(t, 24*time.Hour, f.ttl(t, "sess:"+id))
		got, _ := app.do(t, "GET", "/session", cookie, "")
		require.Equal(t, "u", got["userId"])
	})

	t.Run("logging out there is over here", func(t *testing.T) {
		id, cookie := login(t, `{"userId":"u"}`)
		f.session(t, id)
		app.do(t, "POST", "/logout", cookie, "")
		_, err := f.Session(t.Context(), id, authz.ReadOptions{})
		requireReason(t, authz.ReasonSessionUnknown, err)
	})

	t.Run("revoking here is over there", func(t *testing.T) {
		id, cookie := login(t, `{"userId":"u"}`)
		require.NoError(t, f.Revoke(t.Context(), id))
		got, _ := app.do(t, "GET", "/session", cookie, "")
		require.NotContains(t, got, "userId")
	})

	// hold begins a request that has the session in memory, and returns what
	// lets it save that.
	held := 0
	hold := func(t *testing.T, cookie string) (release func()) {
		t.Helper()
		held++
		request := app.request(t, "POST", "/hold", cookie, "")
		done := make(chan error, 1)
		go func() {
			resp, err := http.DefaultClient.Do(request)
			if err == nil {
				// Express sends its headers first, then saves, then ends.
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			done <- err
		}()
		app.await(t, fmt.Sprint("holding ", held))
		return func() {
			t.Helper()
			app.do(t, "POST", "/release", "", "")
			require.NoError(t, <-done)
		}
	}

	t.Run("a request that was under way brings nothing back", func(t *testing.T) {
		id, cookie := login(t, `{"userId":"u"}`)
		release := hold(t, cookie)
		require.NoError(t, f.Revoke(t.Context(), id))
		release()
		require.Contains(t, raw(t, id), `"held":true`, "the request saved its session after the revocation")
		_, err := f.Session(t.Context(), id, authz.ReadOptions{})
		requireReason(t, authz.ReasonSessionRevoked, err)
		require.False(t, f.exists(t, "sess:"+id))
	})

	t.Run("sessions that the gate saw are listed, the others are found", func(t *testing.T) {
		seen, _ := login(t, `{"userId":"lister","email":"l@example.com"}`)
		unseen, _ := login(t, `{"userId":"lister"}`)
		f.session(t, seen)
		require.Equal(t, handlesOf(seen), f.handles(t, "lister", false))
		require.Equal(t, handlesOf(seen, unseen), f.handles(t, "lister", true))
	})

	t.Run("everything of a user ends, also what the gate never saw, and a late save brings nothing back", func(t *testing.T) {
		ours, err := f.Create(t.Context(), session.NewSession{Identity: authz.Identity{ID: "everywhere"}})
		require.NoError(t, err)
		seen, _ := login(t, `{"userId":"everywhere"}`)
		f.session(t, seen)
		unseen, cookie := login(t, `{"userId":"everywhere","cart":[1]}`)
		other, otherCookie := login(t, `{"userId":"everywhere else"}`)
		release := hold(t, cookie)
		n, err := f.RevokeUser(t.Context(), "everywhere")
		require.NoError(t, err)
		require.Equal(t, 3, n)
		got, _ := app.do(t, "GET", "/session", cookie, "")
		require.NotContains(t, got, "userId", "Express does not know it any more")
		release()
		require.Contains(t, raw(t, unseen), `"held":true`)
		for _, id := range []string{ours, seen, unseen} {
			_, err := f.Session(t.Context(), id, authz.ReadOptions{})
			requireReason(t, authz.ReasonSessionRevoked, err)
			require.False(t, f.exists(t, "sess:"+id))
		}
		f.session(t, other)
		got, _ = app.do(t, "GET", "/session", otherCookie, "")
		require.Equal(t, "everywhere else", got["userId"])
	})

	t.Run("an administrator's change is seen there, and leaves what is not ours", func(t *testing.T) {
		id, cookie := login(t, `{"userId":"changed","organizationId":1,"cart":[{"n":1}]}`)
		organization, roles := "2", []string{"admin"}
		n, err := f.ChangeUser(t.Context(), "changed", authz.UserChange{Organization: &organization, Roles: &roles})
		require.NoError(t, err)
		require.Equal(t, 1, n)
		got, _ := app.do(t, "GET", "/session", cookie, "")
		require.EqualValues(t, 2, got["organizationId"])
		require.Equal(t, []any{"admin"}, got["roles"])
		require.Equal(t, []any{map[string]any{"n": 1.0}}, got["cart"])
		require.NoError(t, f.SwitchOrganization(t.Context(), id, "3"))
		got, _ = app.do(t, "GET", "/session", cookie, "")
		require.EqualValues(t, 3, got["organizationId"])
	})

	t.Run("what we know of a session stays when Express changes it", func(t *testing.T) {
		provider := authz.ProviderLogin{Issuer: "https://idp.example.com", Subject: "s"}
		id, err := f.Create(t.Context(), session.NewSession{
			Identity: authz.Identity{ID: "device"}, Device: authz.Device{Address: "192.0.2.7", UserAgent: "é"}, Provider: provider,
		})
		require.NoError(t, err)
		app.do(t, "POST", "/set", signer.Sign(id), `{"cart":1}`)
		logins, err := f.UserSessions(t.Context(), "device", false)
		require.NoError(t, err)
		require.Len(t, logins, 1)
		require.Equal(t, authz.Device{Address: "192.0.2.7", UserAgent: "é"}, logins[0].Device)
		n, err := f.EndProviderLogin(t.Context(), provider, "j", f.clock.Now())
		require.NoError(t, err)
		require.Equal(t, 1, n)
		got, _ := app.do(t, "GET", "/session", signer.Sign(id), "")
		require.NotContains(t, got, "userId")
	})
}
