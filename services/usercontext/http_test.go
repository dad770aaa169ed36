package usercontext_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// whoami answers the user of the context, or null.
var whoami = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	var answer any
	if user, ok := usercontext.FromContext(r.Context()); ok {
		answer = user
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
})

func ask(t *testing.T, h http.Handler, header http.Header) (status int, body string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	return w.Code, w.Body.String()
}

const (
	aliceJSON = `{"userId":"alice","email":"","roles":["member"],"organizationId":""}` + "\n"
	nullJSON  = "null\n"

	unauthenticated = `{"error":"No token provided"}`
	forbidden       = `{"error":"Forbidden"}`
	badRequest      = `{"error":"Bad request"}`
)

// requireExactly compares byte for byte: the error bodies are a contract, so
// JSON that means the same is not enough.
func requireExactly(t *testing.T, want, got string) {
	t.Helper()
	require.Equal(t, want, got)
}

func TestMiddleware(t *testing.T) {
	alice := http.Header{"X-User-Id": {"alice"}, "X-User-Roles": {`["member"]`}}
	for _, tc := range []struct {
		name    string
		handler http.Handler
		header  http.Header
		status  int
		body    string
	}{
		{"require, a user", usercontext.Require(whoami), alice, 200, aliceJSON},
		{"require, nobody", usercontext.Require(whoami), nil, 401, unauthenticated},
		{"optional, a user", usercontext.Optional(whoami), alice, 200, aliceJSON},
		{"optional, nobody", usercontext.Optional(whoami), nil, 200, nullJSON},

		{"role, the right one", usercontext.Require(usercontext.RequireRole("member")(whoami)), alice, 200, aliceJSON},
		{"role, one of them", usercontext.Require(usercontext.RequireRole("admin", "member")(whoami)), alice, 200, aliceJSON},
		{"role, another", usercontext.Require(usercontext.RequireRole("admin")(whoami)), alice, 403, forbidden},
		{"role, none named", usercontext.Require(usercontext.RequireRole()(whoami)), alice, 403, forbidden},
		{"role, nobody", usercontext.Optional(usercontext.RequireRole("member")(whoami)), nil, 401, unauthenticated},
		{"role, headers but no one who read them", usercontext.RequireRole("member")(whoami), alice, 401, unauthenticated},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, body := ask(t, tc.handler, tc.header)
			require.Equal(t, tc.status, status)
			requireExactly(t, tc.body, body)
		})
	}
}

func TestMiddlewareRefusesMalformed(t *testing.T) {
	for name, handler := range map[string]http.Handler{
		"require":  usercontext.Require(whoami),
		"optional": usercontext.Optional(whoami),
	} {
		for what, header := range malformedHeaders {
			t.Run(name+" "+what, func(t *testing.T) {
				status, body := ask(t, handler, header)
				require.Equal(t, 400, status)
				requireExactly(t, badRequest, body)
			})
		}
	}
}

func TestOptionalHidesAnOuterUser(t *testing.T) {
	inner := usercontext.Optional(whoami)
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := usercontext.NewContext(r.Context(), usercontext.User{ID: "mallory"})
		inner.ServeHTTP(w, r.WithContext(ctx))
	})
	_, body := ask(t, outer, nil)
	requireExactly(t, nullJSON, body)
}

// The headers as a client's bytes make them, not as a map in a test does.
func TestHeadersOnTheWire(t *testing.T) {
	server := httptest.NewServer(usercontext.Require(whoami))
	t.Cleanup(server.Close)
	for _, tc := range []struct {
		name   string
		set    func(http.Header)
		status int
	}{
		{"well", func(h http.Header) { h.Set("x-user-id", "alice") }, 200},
		{"twice", func(h http.Header) { h.Add("x-user-id", "alice"); h.Add("x-user-id", "bob") }, 400},
		{"with underscores", func(h http.Header) { h["x_user_id"] = []string{"alice"} }, 400},
		{"in other case", func(h http.Header) { h["X-USER-ID"] = []string{"alice"} }, 200},
		{"nothing", func(http.Header) {}, 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			require.NoError(t, err)
			tc.set(req.Header)
			res, err := server.Client().Do(req)
			require.NoError(t, err)
			defer res.Body.Close()
			require.Equal(t, tc.status, res.StatusCode)
		})
	}
}

// What no text can say: testdata/contract.json has the other cases.
func TestKeysThatWereNeverSet(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	reader, err := usercontext.NewReader(usercontext.Options{Now: func() time.Time { return now }})
	require.NoError(t, err)
	last := usercontext.HashKey("last-key")
	last.Expires = now.Add(time.Nanosecond)
	shown := http.Header{"X-Internal-Api-Key": {"last-key"}}
	require.NoError(t, reader.CheckInternalKey(shown, last))
	last.Expires = now
	require.ErrorIs(t, reader.CheckInternalKey(shown, last), usercontext.ErrForbidden)
	require.ErrorIs(t, reader.CheckInternalKey(shown, usercontext.Key{}), usercontext.ErrForbidden)
	require.ErrorIs(t, reader.CheckInternalKey(http.Header{"X-Internal-Api-Key": {""}}, usercontext.HashKey("")), usercontext.ErrForbidden)
	require.ErrorIs(t, reader.CheckInternalKey(http.Header{"X-Internal-Api-Key": {string(last.SHA256[:])}}, last), usercontext.ErrForbidden)
}

func TestRequireInternalKeyByDefaultOptions(t *testing.T) {
	key := usercontext.HashKey("current-key")
	key.Expires = time.Now().Add(time.Hour)
	handler := usercontext.RequireInternalKey(key)(whoami)

	status, _ := ask(t, handler, http.Header{"X-Internal-Api-Key": {"current-key"}})
	require.Equal(t, 200, status)

	key.Expires = time.Now().Add(-time.Hour)
	status, body := ask(t, usercontext.RequireInternalKey(key)(whoami), http.Header{"X-Internal-Api-Key": {"current-key"}})
	require.Equal(t, 403, status)
	requireExactly(t, forbidden, body)
	require.ErrorIs(t, usercontext.CheckInternalKey(http.Header{}, key), usercontext.ErrForbidden)
}

func TestOnRefusal(t *testing.T) {
	var refusals []error
	reader, err := usercontext.NewReader(usercontext.Options{
		OnRefusal: func(ctx context.Context, err error) {
			require.NotNil(t, ctx)
			refusals = append(refusals, err)
		},
	})
	require.NoError(t, err)

	ask(t, reader.Require(whoami), nil)
	ask(t, reader.Optional(whoami), nil)
	ask(t, reader.Optional(whoami), http.Header{"X-User-Id": {"%"}})
	ask(t, reader.RequireInternalKey()(whoami), http.Header{"X-Internal-Api-Key": {"hush"}})
	ask(t, reader.Require(whoami), http.Header{"X-User-Id": {"alice"}})

	require.Len(t, refusals, 3)
	require.ErrorIs(t, refusals[0], usercontext.ErrAnonymous)
	require.ErrorIs(t, refusals[1], usercontext.ErrMalformed)
	require.ErrorIs(t, refusals[2], usercontext.ErrForbidden)
	for _, err := range refusals {
		require.NotContains(t, err.Error(), "hush")
	}
}

func TestWriteError(t *testing.T) {
	w := httptest.NewRecorder()
	usercontext.WriteError(w, http.StatusTeapot, `a "quoted" word`)
	res := w.Result()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusTeapot, res.StatusCode)
	require.Equal(t, "application/json", res.Header.Get("Content-Type"))
	requireExactly(t, `{"error":"a \"quoted\" word"}`, string(body))
}
