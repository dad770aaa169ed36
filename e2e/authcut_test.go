package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// cutter stands between Gatehouse and Redis, passes commands on one by one, and
// from a chosen command on cuts every connection, as a Redis does that is
// stopped in the middle of something.
type cutter struct {
	listener net.Listener
	redis    string
	wg       sync.WaitGroup

	mu    sync.Mutex
	left  int // commands until the cut; negative: no cut
	cut   bool
	conns map[net.Conn]struct{}
}

func newCutter(t *testing.T, redis string) *cutter {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cutter{listener: listener, redis: redis, left: -1, conns: map[net.Conn]struct{}{}}
	c.wg.Go(c.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		c.arm(0)
		c.passes()
		c.wg.Wait()
	})
	return c
}

func (c *cutter) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.wg.Go(func() { c.serve(conn) })
	}
}

// arm has the connection cut in place of the n-th command from now, 0 for
// the next one.
func (c *cutter) arm(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = n
}

// heal lets everything through again and reports whether it was cut.
func (c *cutter) heal() (wasCut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wasCut = c.cut
	c.left, c.cut = -1, false
	return wasCut
}

// passes says whether one more command passes; if not, it cuts all connections.
// What keeps the connections and the readiness going is not counted.
func (c *cutter) passes(command ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	background := len(command) > 0 && (command[0] == "PING" || command[0] == "CLIENT" || command[0] == "HELLO" || command[0] == "SELECT")
	if !c.cut && (c.left < 0 || background) {
		return true
	}
	if !c.cut && c.left > 0 {
		c.left--
		return true
	}
	c.cut = true
	for conn := range c.conns {
		_ = conn.Close()
	}
	clear(c.conns)
	return false
}

func (c *cutter) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", c.redis)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	c.mu.Lock()
	if c.cut {
		c.mu.Unlock()
		return
	}
	c.conns[client], c.conns[server] = struct{}{}, struct{}{}
	c.mu.Unlock()
	c.wg.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	in := bufio.NewReader(client)
	for {
		raw, name, err := readCommand(in)
		if err != nil || !c.passes(name) {
			return
		}
		if _, err := io.WriteString(server, raw); err != nil {
			return
		}
	}
}

// readCommand reads one command as clients send it: an array of bulk strings.
func readCommand(in *bufio.Reader) (raw, name string, err error) {
	head, err := in.ReadString('\n')
	if err != nil {
		return "", "", err
	}
	parts, err := strconv.Atoi(strings.TrimRight(strings.TrimPrefix(head, "*"), "\r\n"))
	if err != nil {
		return "", "", err
	}
	raw = head
	for i := range parts {
		size, err := in.ReadString('\n')
		if err != nil {
			return "", "", err
		}
		n, err := strconv.Atoi(strings.TrimRight(strings.TrimPrefix(size, "$"), "\r\n"))
		if err != nil {
			return "", "", errors.Join(err, fmt.Errorf("in %q", size))
		}
		bulk := make([]byte, n+2)
		if _, err := io.ReadFull(in, bulk); err != nil {
			return "", "", err
		}
		if i == 0 {
			name = strings.ToUpper(string(bulk[:n]))
		}
		raw += size + string(bulk)
	}
	return raw, name, nil
}

// TestCutInTheMiddle: Redis goes away at each of the commands of each call. The
// answer says so, and afterwards all of it has happened, or nothing.
func TestCutInTheMiddle(t *testing.T) {
	s := start(t, options{})
	c := newCutter(t, s.redis.Addr)
	r := s.replicas[0]
	require.NoError(t, r.Stop())
	config, err := proc.MergeYAML(string(r.config), fmt.Sprintf("redis: {url: %q}", "redis://"+c.listener.Addr().String()+"/0"))
	require.NoError(t, err)
	r.config = config
	require.NoError(t, r.restart(t, "/readyz"))
	g := s.gateway(t)
	admin := apiKey(apiKeys.backend)
	works := func(t *testing.T, r reply) bool {
		t.Helper()
		if r.status == 200 {
			require.NotNil(t, r.arrived)
			return true
		}
		require.Equal(t, 401, r.status, r.line())
		return false
	}
	// one reports whether all of these are the same, and what they are.
	one := func(t *testing.T, states ...bool) bool {
		t.Helper()
		for _, state := range states {
			require.Equal(t, states[0], state, "half of it has happened: %v", states)
		}
		return states[0]
	}

	for _, call := range []struct {
		name string
		// prepare sets the scene and returns the call and what is looked at
		// afterwards, with Redis back and whether the call was answered well.
		prepare func(t *testing.T) (do func() reply, look func(t *testing.T, done bool))
		failed  int
		body    string
	}{
		{"login", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b := g.browse()
			b.logIn(t, bobsLogin)
			old := b.copy()
			return func() reply { return b.post(t, "/auth/login", bobsLogin.credentials()) }, func(t *testing.T, done bool) {
				t.Helper()
				sessions := s.store.Keys(t.Context(), "sess:*").Val()
				require.Len(t, sessions, 1, "the old one or the new one")
				replaced := sessions[0] != "sess:"+old.sessionID(t)
				require.Equal(t, !replaced, works(t, old.open(t, "/users/me")))
				if done {
					require.True(t, replaced)
				} else {
					require.Equal(t, old.cookies, b.cookies)
				}
			}
		}, 503, unavailable},
		{"token", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b := g.browse()
			return func() reply { return b.post(t, "/auth/token", bobsLogin.credentials()) }, func(t *testing.T, done bool) {
				t.Helper()
				require.Equal(t, done, len(b.cookies) == 1)
				require.LessOrEqual(t, len(s.store.Keys(t.Context(), "refresh:*").Val()), 1)
				require.Equal(t, 200, b.post(t, "/auth/token", bobsLogin.credentials()).status)
			}
		}, 503, unavailable},
		{"refresh", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			a := g.app(t, bobsLogin)
			return func() reply { return a.renew(t) }, func(t *testing.T, _ bool) {
				t.Helper()
				require.Equal(t, 200, a.renew(t).status, "the same token again")
				require.Equal(t, 200, a.renew(t).status, "and its successor")
				requireAllowed(t, a.call(t, "/users/me"), bobsLogin.identity())
			}
		}, 503, unavailable},
		{"logout", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b := g.browse()
			b.logIn(t, bobsLogin)
			r := b.post(t, "/auth/token", bobsLogin.credentials())
			require.Equal(t, 200, r.status)
			access := journal.secret("an access token", text(r.json(t)["accessToken"]))
			before := b.copy()
			return func() reply { return b.post(t, "/auth/logout", nil, bearer(access)) }, func(t *testing.T, done bool) {
				t.Helper()
				session := works(t, before.open(t, "/users/me"))
				token := works(t, g.get(t, "/users/me", bearer(access)))
				refresh := before.post(t, "/auth/refresh", nil).status == 200
				alive := one(t, session, token, refresh)
				require.False(t, done && alive)
				if !done {
					require.Equal(t, before.copy().cookies["sessionId"], b.cookies["sessionId"], "a session that may live keeps its cookie")
				}
			}
		}, 500, logoutFailed},
		{"revoke everything", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b, a := g.browse(), g.app(t, bobsLogin)
			b.logIn(t, bobsLogin)
			express := cookie(s.login(t, bob))
			timeless := cookie(signed(s.session(t, with(bob.record(), object{"authTime": nil})), secretCurrent))
			do := func() reply {
				return g.browse().post(t, "/auth/revoke-all-sessions", object{"userId": "bob"}, admin)
			}
			return do, func(t *testing.T, done bool) {
				t.Helper()
				alive := one(t, works(t, b.open(t, "/users/me")), works(t, a.call(t, "/users/me")), works(t, g.get(t, "/users/me", express)),
					works(t, g.get(t, "/users/me", timeless)), a.renew(t).status == 200)
				require.False(t, done && alive)
			}
		}, 503, unavailable},
		{"an administrator's change", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b, a := g.browse(), g.app(t, bobsLogin)
			b.logIn(t, bobsLogin)
			express := cookie(s.login(t, bob))
			do := func() reply {
				return g.browse().request(t, "PATCH", "/auth/users/bob/sessions", object{"roles": []string{"admin"}, "organizationId": "org-5"}, admin)
			}
			return do, func(t *testing.T, done bool) {
				t.Helper()
				promoted := func(r reply) bool { return r.status == 200 }
				changed := one(t, promoted(b.open(t, "/users/admin/stats")), promoted(a.call(t, "/users/admin/stats")), promoted(g.get(t, "/users/admin/stats", express)))
				require.False(t, done && !changed)
			}
		}, 503, unavailable},
		{"switching the organization", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b := g.browse()
			b.logIn(t, bobsLogin)
			return func() reply { return b.request(t, "PATCH", "/auth/session", object{"organizationId": "org-2"}) }, func(t *testing.T, done bool) {
				t.Helper()
				org := b.open(t, "/auth/me").json(t)["organizationId"]
				require.Contains(t, []any{"org-1", "org-2"}, org)
				require.False(t, done && org != "org-2")
			}
		}, 503, unavailable},
		{"a session for a trusted backend", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b := g.browse()
			return func() reply { return b.post(t, "/auth/sessions", object{"userId": "dora"}, admin) }, func(t *testing.T, done bool) {
				t.Helper()
				require.Equal(t, done, len(b.cookies) == 1)
				require.LessOrEqual(t, len(s.store.Keys(t.Context(), "sess:*").Val()), 1)
			}
		}, 503, unavailable},
		{"ending one of one's own", func(t *testing.T) (func() reply, func(*testing.T, bool)) {
			t.Helper()
			b, other := g.browse(), g.browse()
			other.agent = "other"
			b.logIn(t, bobsLogin)
			other.logIn(t, bobsLogin)
			handle := ""
			for _, one := range list(b.open(t, "/auth/sessions").json(t)["sessions"]) {
				if one["userAgent"] == other.agent {
					handle = text(one["handle"])
				}
			}
			return func() reply { return b.request(t, "DELETE", "/auth/sessions/"+handle, nil) }, func(t *testing.T, done bool) {
				t.Helper()
				require.False(t, done && works(t, other.open(t, "/users/me")))
				require.True(t, works(t, b.open(t, "/users/me")))
			}
		}, 503, unavailable},
	} {
		t.Run(call.name, func(t *testing.T) {
			cuts := 0
			for at := 0; ; at++ {
				require.Less(t, at, 60, "this call takes more commands than any should")
				require.NoError(t, s.store.FlushDB(t.Context()).Err())
				do, look := call.prepare(t)
				c.arm(at)
				answer := do()
				wasCut := c.heal()
				eventually(t, 401, func() reply { return g.get(t, "/users/me", cookie(signed(newSessionID(), secretCurrent))) })
				done := answer.status < 300
				if !done {
					require.True(t, wasCut, answer.line())
					requireAnswer(t, answer, call.failed, call.body)
					require.Empty(t, answer.header.Values("set-cookie"))
				}
				look(t, done)
				if !wasCut {
					break
				}
				cuts++
			}
			require.Positive(t, cuts)
		})
	}
}
