package e2e

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// express is the running application of express/app.mjs.
type express struct{ url string }

// modulesDir returns where the Node modules are, if they are anywhere.
func modulesDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_NODE_MODULES")
	if dir == "" {
		dir = filepath.Join("express", "node_modules")
	}
	dir, err := filepath.Abs(dir)
	require.NoError(t, err)
	return dir
}

// nodeModules returns the directory with the Node modules. Where there are
// none the test is skipped, or fails where CI is set.
func nodeModules(t *testing.T) string {
	t.Helper()
	dir := modulesDir(t)
	if _, err := os.Stat(filepath.Join(dir, "express-session")); err != nil {
		const message = "express-session is not installed: run npm ci in e2e/express, or set GATEHOUSE_NODE_MODULES"
		if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
			t.Fatal(message)
		}
		t.Skip(message)
	}
	return dir
}

// startExpress runs the application on a stack's Redis until the test ends.
// session and store are options of express-session and connect-redis.
func (s *stack) startExpress(t *testing.T, session, store object) *express {
	t.Helper()
	modules := nodeModules(t)
	p := proctest.Start(t, proctest.Need(t, "node"), []string{filepath.Join("express", "app.mjs")}, proc.Options{Env: []string{
		"GATEHOUSE_NODE_MODULES=" + modules, "REDIS_URL=redis://" + s.redis.Addr,
		"SESSION=" + mustJSON(t, session), "STORE=" + mustJSON(t, store),
	}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	line, err := p.AwaitLine(ctx, func(line string) bool { return strings.HasPrefix(line, "listening on ") })
	require.NoError(t, err)
	return &express{"http://127.0.0.1:" + strings.TrimPrefix(line, "listening on ")}
}

// do makes a request with the cookies of a browser, as a Cookie header, and
// returns the answer and the cookie that Express sets, "" for none.
func (e *express) do(t *testing.T, method, path, cookies string, body object) (answer object, set string) {
	t.Helper()
	if body == nil {
		body = object{}
	}
	request, err := http.NewRequestWithContext(t.Context(), method, e.url+path, strings.NewReader(mustJSON(t, body)))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Forwarded-Proto", "https")
	if cookies != "" {
		request.Header.Set("Cookie", cookies)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, "%s", text)
	require.NoError(t, json.Unmarshal(text, &answer))
	for _, c := range response.Cookies() {
		set = c.Name + "=" + c.Value
		journal.secret("a cookie of Express", c.Value)
		if at := strings.LastIndexByte(c.Value, '.'); at > 0 {
			journal.secret("a session id of Express", strings.TrimPrefix(c.Value[:at], "s%3A"))
		}
	}
	return answer, set
}

// login returns the id and the Cookie header line of a new session.
func (e *express) login(t *testing.T, user identity, more object) (id, header string) {
	t.Helper()
	fields := with(user.record(), more)
	delete(fields, "cookie")
	answer, set := e.do(t, "POST", "/login", "", fields)
	require.NotEmpty(t, set)
	return answer["id"].(string), "Cookie: " + set
}

// expiries returns what counts how often anybody has set the life of a key since
// it was last asked.
func (s *stack) expiries(t *testing.T, key string) (count func() int) {
	t.Helper()
	const channel = "__keyspace@0__:"
	require.NoError(t, s.store.ConfigSet(t.Context(), "notify-keyspace-events", "Kg").Err())
	subscription := s.store.Subscribe(t.Context(), channel+key)
	t.Cleanup(func() { _ = subscription.Close() })
	_, err := subscription.Receive(t.Context()) // that it is subscribed
	require.NoError(t, err)
	return func() int {
		t.Helper()
		const mark = "that is all up to now"
		require.NoError(t, s.store.Publish(t.Context(), channel+key, mark).Err())
		n := 0
		for {
			message, err := subscription.ReceiveMessage(t.Context())
			require.NoError(t, err)
			switch message.Payload {
			case mark:
				return n
			case "expire":
				n++
			}
		}
	}
}

// TestExpress is the story of an Express application and a gate that share a
// Redis and know nothing else of each other.
func TestExpress(t *testing.T) {
	nodeModules(t)
	s := start(t, options{config: `
policies:
  idle: {credentials: [session], idle_timeout: 2s}
routes:
- {path: /p/session/*, policy: session}
- {path: /p/idle/*, policy: idle}
`})
	g := s.gateway(t)
	app := s.startExpress(t, object{"secret": []string{secretCurrent, secretPrevious}}, object{})
	cookies := func(header string) string { return strings.TrimPrefix(header, "Cookie: ") }
	ttl := func(t *testing.T, id string) time.Duration {
		t.Helper()
		d, err := s.store.PTTL(t.Context(), "sess:"+id).Result()
		require.NoError(t, err)
		return d
	}
	raw := func(t *testing.T, id string) string {
		t.Helper()
		text, err := s.store.Get(t.Context(), "sess:"+id).Result()
		require.NoError(t, err)
		return text
	}
	const day = 24 * time.Hour

	t.Run("its sessions are honoured, with exactly the four headers", func(t *testing.T) {
		_, session := app.login(t, bob, nil)
		for _, path := range []string{"/users/me", "/orders", "/public/hello", "/banking/1", "/p/session"} {
			r := g.get(t, path, session, "x-user-id: root")
			requireAllowed(t, r, bob)
			require.Equal(t, []string{cookies(session)}, r.arrived.values("cookie"))
		}
		requireDenied(t, g.get(t, "/users/admin/stats", session), 403, forbidden)
		_, admin := app.login(t, alice, nil)
		requireAllowed(t, g.get(t, "/users/admin/stats", admin), alice)
	})

	t.Run("what it changes is seen at the next request", func(t *testing.T) {
		_, session := app.login(t, bob, nil)
		for i := range 5 {
			requireDenied(t, g.get(t, "/users/admin/stats", session), 403, forbidden)
			requireAllowed(t, g.get(t, "/users/me", session), bob)
			promoted := alice
			promoted.org = "org-" + strconv.Itoa(i)
			app.do(t, "POST", "/touch", cookies(session), object{
				"userId": "alice", "email": alice.email, "roles": json.RawMessage(alice.roles), "organizationId": promoted.org,
			})
			requireAllowed(t, g.get(t, "/users/admin/stats", session), promoted)
			app.do(t, "POST", "/touch", cookies(session), object{
				"userId": "bob", "email": bob.email, "roles": json.RawMessage(bob.roles), "organizationId": bob.org,
			})
		}
	})

	t.Run("who logs out there is out here, at the next request", func(t *testing.T) {
		_, session := app.login(t, bob, nil)
		for range 3 {
			requireAllowed(t, g.get(t, "/users/me", session), bob)
		}
		app.do(t, "POST", "/logout", cookies(session), nil)
		requireDenied(t, g.get(t, "/users/me", session), 401, invalidSession)
		requireAllowed(t, g.get(t, "/public/hello", session), nobody)
	})

	t.Run("a session in which nobody logged in is none", func(t *testing.T) {
		_, set := app.do(t, "POST", "/touch", "", object{"cart": []int{1, 2}})
		require.NotEmpty(t, set)
		requireDenied(t, g.get(t, "/users/me", "Cookie: "+set), 401, invalidSession)
		requireAllowed(t, g.get(t, "/public/hello", "Cookie: "+set), nobody)
		app.do(t, "POST", "/touch", set, object{"userId": "bob", "email": bob.email, "roles": []string{"member"}, "organizationId": "org-1"})
		requireAllowed(t, g.get(t, "/users/me", "Cookie: "+set), bob)
	})

	t.Run("using a session renews it and keeps what else is in it", func(t *testing.T) {
		id, session := app.login(t, bob, object{"cart": []any{1, object{"n": 2.5}}, "flash": "é\u2028<&>", "big": 9007199254740991})
		require.NoError(t, s.store.PExpire(t.Context(), "sess:"+id, time.Hour).Err())
		before := raw(t, id)
		requireAllowed(t, g.get(t, "/users/me", session), bob)
		require.InDelta(t, day, ttl(t, id), float64(time.Minute))
		require.Equal(t, before, raw(t, id))
		answer, _ := app.do(t, "GET", "/me", cookies(session), nil)
		require.Equal(t, []any{1.0, object{"n": 2.5}}, answer["cart"])
		require.Equal(t, "é\u2028<&>", answer["flash"])
	})

	t.Run("but at most once per touch_interval", func(t *testing.T) {
		id, session := app.login(t, bob, nil)
		renewals := s.expiries(t, "sess:"+id)
		for range 20 {
			requireAllowed(t, g.get(t, "/users/me", session), bob)
		}
		require.Zero(t, renewals(), "a session that was just made is renewed")

		require.NoError(t, s.store.PExpire(t.Context(), "sess:"+id, day-2*time.Minute).Err())
		require.Equal(t, 1, renewals(), "our own")
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				for range 5 {
					g.get(t, "/users/me", session)
				}
			})
		}
		clients.Wait()
		require.Equal(t, 1, renewals())
		require.InDelta(t, day, ttl(t, id), float64(time.Minute))
	})

	t.Run("Redis tells when a session ends, not what its record says", func(t *testing.T) {
		id, session := app.login(t, bob, nil)
		var record object
		require.NoError(t, json.Unmarshal([]byte(raw(t, id)), &record))
		past := maps.Clone(record)
		past["cookie"] = with(record["cookie"].(object), object{"expires": "2020-01-01T00:00:00.000Z"})
		require.NoError(t, s.store.Set(t.Context(), "sess:"+id, mustJSON(t, past), time.Hour).Err())
		requireAllowed(t, g.get(t, "/users/me", session), bob)

		id, session = app.login(t, bob, nil)
		requireAllowed(t, g.get(t, "/users/me", session), bob)
		require.NoError(t, s.store.PExpire(t.Context(), "sess:"+id, 50*time.Millisecond).Err())
		require.Eventually(t, func() bool {
			return s.store.Exists(context.Background(), "sess:"+id).Val() == 0
		}, patience, 5*time.Millisecond)
		requireDenied(t, g.get(t, "/users/me", session), 401, invalidSession)
	})

	t.Run("its own maxAge counts where it has one", func(t *testing.T) {
		short := s.startExpress(t, object{
			"secret": secretCurrent, "cookie": object{"maxAge": 600000, "secure": true},
		}, object{})
		id, session := short.login(t, bob, nil)
		require.InDelta(t, 10*time.Minute, ttl(t, id), float64(10*time.Second))
		require.NoError(t, s.store.PExpire(t.Context(), "sess:"+id, 5*time.Minute).Err())
		requireAllowed(t, g.get(t, "/users/me", session), bob)
		require.InDelta(t, 10*time.Minute, ttl(t, id), float64(10*time.Second))
	})

	t.Run("a secret that was rotated out still verifies, another never", func(t *testing.T) {
		previous := s.startExpress(t, object{"secret": secretPrevious}, object{})
		_, session := previous.login(t, bob, nil)
		requireAllowed(t, g.get(t, "/users/me", session), bob)
		// The application with both secrets knows it, too.
		answer, _ := app.do(t, "GET", "/me", cookies(session), nil)
		require.Equal(t, "bob", answer["userId"])

		stranger := s.startExpress(t, object{"secret": "a secret of somebody else's"}, object{})
		_, session = stranger.login(t, bob, nil)
		requireDenied(t, g.get(t, "/users/me", session), 401, invalidSession)
	})

	t.Run("an unused session ends where the policy says so, a used one does not", func(t *testing.T) {
		waitFor(t, func() bool { return g.endsUnused(t, app) })
	})
}

// endsUnused uses one session for longer than the idle_timeout of 2 s, and another one not.
// It is false where this machine stood still meanwhile, so that the one wasn't used either.
func (g *gateway) endsUnused(t *testing.T, app *express) bool {
	t.Helper()
	const timeout, most = 2 * time.Second, time.Second
	_, used := app.login(t, bob, nil)
	_, unused := app.login(t, alice, nil)
	begin := time.Now()
	r := g.get(t, "/p/idle", unused)
	if time.Since(begin) > most {
		return false
	}
	requireAllowed(t, r, alice)
	last := begin
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for time.Since(begin) < timeout+most {
		now := time.Now()
		r := g.get(t, "/p/idle", used)
		if time.Since(last) > most {
			return false
		}
		requireAllowed(t, r, bob)
		last = now
		<-tick.C
	}
	requireDenied(t, g.get(t, "/p/idle", unused), 401, invalidSession)
	requireDenied(t, g.get(t, "/users/me", unused), 401, invalidSession) // it has ended for all
	return true
}

// TestExpressWithNamesOfItsOwn: an application that was there first keeps its
// names, and the gate learns them.
func TestExpressWithNamesOfItsOwn(t *testing.T) {
	nodeModules(t)
	s := start(t, options{config: `
sessions:
  prefix: "shop:sess:"
  cookie: {name: connect.sid}
  fields: {user_id: uid, email: mail, roles: groups, org_id: tenant}
identity:
  headers: {user_id: x-auth-user, email: x-auth-mail, roles: x-auth-groups, org_id: x-auth-tenant}
  strip_credentials: true
`})
	g := s.gateway(t)
	app := s.startExpress(t, object{"secret": secretCurrent, "name": "connect.sid"}, object{"prefix": "shop:sess:"})
	_, set := app.do(t, "POST", "/login", "", object{"uid": 7, "mail": "e@example.com", "groups": []string{"a", "b"}, "tenant": "t-1", "userId": "not-me"})

	r := g.get(t, "/users/me", "Cookie: theme=dark; "+set+"; lang=de", "x-auth-user: root", "X-Auth-Groups: [\"root\"]")
	require.Equal(t, 200, r.status, r.line())
	for name, want := range map[string][]string{
		"x-auth-user": {"7"}, "x-auth-mail": {"e@example.com"}, "x-auth-groups": {`["a","b"]`}, "x-auth-tenant": {"t-1"},
		"cookie": {"theme=dark; lang=de"}, // the session cookie only
	} {
		require.Equal(t, want, r.arrived.values(name), name)
	}
	require.Empty(t, r.arrived.identity(), "the default names are nobody's here")

	r = g.get(t, "/users/me", "Cookie: "+set)
	require.Equal(t, 200, r.status)
	require.Empty(t, r.arrived.values("cookie"))

	r = g.get(t, "/users/me", bearer(g.pem.issue(claimsOf(pemIssuer, bob))), "Cookie: theme=dark")
	require.Equal(t, 200, r.status)
	require.Equal(t, []string{"bob"}, r.arrived.values("x-auth-user"))
	require.Empty(t, r.arrived.values("authorization"))
	require.Equal(t, []string{"theme=dark"}, r.arrived.values("cookie"))

	requireDenied(t, g.get(t, "/users/me", cookie(g.login(t, bob))), 401, noToken)
}
