package chaos

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

const password = "correct horse battery staple"

// passwords writes a users file beside the other secrets, with so many users whose
// hashes cost next to nothing, and returns the configuration that names it.
func (s secrets) passwords(t *testing.T, n int) string {
	t.Helper()
	hash, err := argon2id.CreateHash(password, &argon2id.Params{Memory: 8, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32})
	require.NoError(t, err)
	var text strings.Builder
	text.WriteString("users:\n")
	for i := range n {
		fmt.Fprintf(&text, "  - {id: mobile-%d, email: mobile-%d@example.com, password_hash: %q, roles: [member]}\n", i, i, hash)
	}
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "users.yaml"), []byte(text.String()), 0o600))
	return "users: {file: users.yaml}"
}

// mobileUser is the i-th user of passwords.
func mobileUser(i int) string { return fmt.Sprintf("mobile-%d", i) }

// victim is a user with what is to be revoked.
type victim struct {
	way     string
	shown   []*credential // that end with it
	refresh string        // a refresh token that ends with it; "" for none
	revoke  func(ctx context.Context) (status int, answer []byte, err error)
	done    int // the status of the acknowledgement
}

// callOutcome is what came of a revocation.
type callOutcome string

const (
	acknowledged callOutcome = "acknowledged"
	unconfirmed  callOutcome = "not confirmed" // made, but too few replicas said that they have it
	failed       callOutcome = "refused"       // the store was out of reach, or nobody answered
)

// end revokes, and keeps book of it in the credentials.
func (v *victim) end(ctx context.Context) (callOutcome, string) {
	for _, c := range v.shown {
		c.ends()
	}
	status, answer, err := v.revoke(ctx)
	switch {
	case err != nil:
		return failed, err.Error()
	case status == v.done:
		for _, c := range v.shown {
			c.ended()
		}
		return acknowledged, ""
	case strings.Contains(string(answer), "Not confirmed"), strings.Contains(string(answer), "Logout failed"):
		return unconfirmed, fmt.Sprintf("%d %s", status, answer)
	}
	return failed, fmt.Sprintf("%d %s", status, answer)
}

// refreshes tries the refresh token at a Gatehouse, and reports whether it was
// accepted, and whether that is known.
func (v *victim) refreshes(ctx context.Context, g *gate) (accepted, known bool) {
	status, _, err := g.send(ctx, http.MethodPost, "/auth/refresh", map[string]string{"refreshToken": v.refresh}, map[string]string{})
	return status == http.StatusOK, err == nil && (status == http.StatusOK || status == http.StatusUnauthorized)
}

// patiently makes a call until it isn't refused with 503 any more: a fault that was
// mended may still be felt, and a busy machine can make the Sentinels change the
// master when nobody asked them to.
func patiently(t *testing.T, want int, call func() (status int, err error)) {
	t.Helper()
	await(t, "it is refused with 503", func() bool {
		status, err := call()
		require.NoError(t, err)
		if status != http.StatusServiceUnavailable {
			require.Equal(t, want, status)
		}
		return status == want
	})
}

// login is a refresh family and an access token of it.
type login struct {
	access  *credential
	refresh string
}

// mobile logs the i-th user of passwords in, as a mobile app does.
func (g *gate) mobile(t *testing.T, i int) login {
	t.Helper()
	var reply struct{ AccessToken, RefreshToken string }
	user := mobileUser(i)
	patiently(t, http.StatusOK, func() (int, error) {
		return g.call(t.Context(), http.MethodPost, "/auth/token", map[string]string{
			"email": user + "@example.com", "password": password, "client": "mobile",
		}, &reply, map[string]string{})
	})
	return login{&credential{
		name: "the access token of " + user, user: user, policy: "user",
		headers: map[string]string{"authorization": "Bearer " + reply.AccessToken},
	}, reply.RefreshToken}
}

// refreshed logs in and refreshes once. One that failed half-way would be taken for
// a theft if it was repeated, so another login is.
func (g *gate) refreshed(t *testing.T, i int) (m login, successor string) {
	t.Helper()
	await(t, "nobody can refresh", func() bool {
		m = g.mobile(t, i)
		var reply struct{ RefreshToken string }
		status, err := g.call(t.Context(), http.MethodPost, "/auth/refresh", map[string]string{"refreshToken": m.refresh}, &reply, map[string]string{})
		successor = reply.RefreshToken
		return err == nil && status == http.StatusOK
	})
	return m, successor
}

func (c *credential) bearer() string {
	return strings.TrimPrefix(c.headers["authorization"], "Bearer ")
}

// current returns the handle of a session.
func (g *gate) current(t *testing.T, c *credential) string {
	t.Helper()
	var reply struct {
		Sessions []struct {
			Handle  string
			Current bool
		}
	}
	patiently(t, http.StatusOK, func() (int, error) {
		return g.call(t.Context(), http.MethodGet, "/auth/sessions", nil, &reply, c.headers)
	})
	for _, s := range reply.Sessions {
		if s.Current {
			return s.Handle
		}
	}
	require.Fail(t, "no session is the current one")
	return ""
}

// ways are the calls that revoke. Each prepares the i-th user of passwords.
var ways = []func(t *testing.T, g *gate, i int) *victim{
	func(t *testing.T, g *gate, i int) *victim {
		session := g.session(t, mobileUser(i))
		return &victim{way: "logout of a session", shown: []*credential{session}, done: http.StatusOK, revoke: func(ctx context.Context) (int, []byte, error) {
			return g.send(ctx, http.MethodPost, "/auth/logout", nil, session.headers)
		}}
	},
	func(t *testing.T, g *gate, i int) *victim {
		m := g.mobile(t, i)
		return &victim{way: "logout of a mobile app", shown: []*credential{m.access}, refresh: m.refresh, done: http.StatusOK, revoke: func(ctx context.Context) (int, []byte, error) {
			return g.send(ctx, http.MethodPost, "/auth/logout", map[string]string{"refreshToken": m.refresh}, m.access.headers)
		}}
	},
	func(t *testing.T, g *gate, i int) *victim {
		session, other := g.session(t, mobileUser(i)), g.session(t, mobileUser(i))
		path := "/auth/sessions/" + g.current(t, session)
		return &victim{way: "DELETE /auth/sessions/{handle}", shown: []*credential{session}, done: http.StatusOK, revoke: func(ctx context.Context) (int, []byte, error) {
			return g.send(ctx, http.MethodDelete, path, nil, other.headers)
		}}
	},
	func(t *testing.T, g *gate, i int) *victim {
		m := g.mobile(t, i)
		return &victim{way: "/auth/revoke of an access token", shown: []*credential{m.access}, done: http.StatusOK, revoke: func(ctx context.Context) (int, []byte, error) {
			return g.send(ctx, http.MethodPost, "/auth/revoke", map[string]string{"token": m.access.bearer()}, map[string]string{})
		}}
	},
	func(t *testing.T, g *gate, i int) *victim {
		m := g.mobile(t, i)
		return &victim{way: "/auth/revoke of a refresh token", shown: []*credential{m.access}, refresh: m.refresh, done: http.StatusOK, revoke: func(ctx context.Context) (int, []byte, error) {
			return g.send(ctx, http.MethodPost, "/auth/revoke", map[string]string{"token": m.refresh}, map[string]string{})
		}}
	},
	func(t *testing.T, g *gate, i int) *victim {
		user := mobileUser(i)
		m := g.mobile(t, i)
		all := []*credential{g.session(t, user), m.access, g.token(t, user)}
		return &victim{way: "/auth/revoke-all-sessions", shown: all, refresh: m.refresh, done: http.StatusOK, revoke: func(ctx context.Context) (int, []byte, error) {
			return g.send(ctx, http.MethodPost, "/auth/revoke-all-sessions", map[string]string{"userId": user}, nil)
		}}
	},
	func(t *testing.T, g *gate, i int) *victim {
		user := mobileUser(i)
		m := g.mobile(t, i)
		all := []*credential{g.session(t, user), m.access, g.token(t, user)}
		return &victim{way: "PATCH …/sessions {disabled: true}", shown: all, refresh: m.refresh, done: http.StatusOK, revoke: func(ctx context.Context) (int, []byte, error) {
			return g.send(ctx, http.MethodPatch, "/auth/users/"+user+"/sessions", map[string]bool{"disabled": true}, nil)
		}}
	},
	func(t *testing.T, g *gate, i int) *victim {
		m, successor := g.refreshed(t, i)
		time.Sleep(10 * grace) // a copy that comes later is a theft
		return &victim{way: "a refresh token used again", shown: []*credential{m.access}, refresh: successor, done: http.StatusUnauthorized, revoke: func(ctx context.Context) (int, []byte, error) {
			return g.send(ctx, http.MethodPost, "/auth/refresh", map[string]string{"refreshToken": m.refresh}, map[string]string{})
		}}
	},
}

// grace is within which a refresh token can be used again here.
const (
	grace       = 5 * time.Millisecond
	graceConfig = "tokens: {refresh_grace: 5ms}"
)

// Each way ends what it is to end, and nothing before.
func TestWaysOfRevoking(t *testing.T) {
	begin(t, "redis-server")
	s := newSecrets(t)
	g := startGate(t, s, "redis://"+proctest.StartRedis(t).Addr, s.passwords(t, len(ways)), graceConfig, patientConfig)
	for i, prepare := range ways {
		v := prepare(t, g, i)
		for _, c := range v.shown {
			for _, c := range []*credential{c, c.strict()} {
				a := g.ask(t.Context(), c)
				require.Equal(t, answer{status: http.StatusOK, user: c.user}, a, "%s: %s", v.way, c.name)
			}
		}
		o, why := v.end(t.Context())
		require.Equal(t, acknowledged, o, "%s: %s", v.way, why)
		for _, c := range v.shown {
			for _, c := range []*credential{c, c.strict()} {
				require.Equal(t, http.StatusUnauthorized, g.ask(t.Context(), c).status, "%s: %s", v.way, c.name)
			}
		}
		if v.refresh != "" {
			accepted, known := v.refreshes(t.Context(), g)
			require.True(t, known && !accepted, v.way)
		}
	}
}
