package orderservice_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/orderservice"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
	"github.com/gatehouse-auth/gatehouse/services/userservice"
)

const internal = "demo-internal-key"

func header(id, roles, organization string) http.Header {
	return http.Header{"X-User-Id": {id}, "X-User-Roles": {roles}, "X-Org-Id": {organization}}
}

func parse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u
}

func serve(t *testing.T, h http.Handler) *url.URL {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return parse(t, server.URL)
}

func ask(t *testing.T, service http.Handler, method, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	service.ServeHTTP(w, r)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	return w
}

func requireBadGateway(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	want := `{"error":"Bad gateway"}`
	require.Equal(t, http.StatusBadGateway, w.Code)
	require.Equal(t, want, w.Body.String())
}

// users is the real user-service, and counts what it was asked.
func users(t *testing.T) (base *url.URL, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var paths []string
	service := userservice.New(userservice.Options{InternalKeys: []usercontext.Key{usercontext.HashKey(internal)}})
	base = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		paths = append(paths, r.URL.Path)
		mu.Unlock()
		service.ServeHTTP(w, r)
	}))
	return base, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(paths)
	}
}

type listing struct {
	Service string           `json:"service"`
	User    usercontext.User `json:"user"`
	Orders  []struct {
		ID             string            `json:"id"`
		OrganizationID string            `json:"organizationId"`
		Buyer          map[string]string `json:"buyer"`
	} `json:"orders"`
}

func TestOrdersOfTheCallersOrganization(t *testing.T) {
	base, asked := users(t)
	service := orderservice.New(orderservice.Options{UserService: base, InternalKey: internal})
	alice := map[string]string{"id": "alice", "displayName": "Alice Archer"}
	bob := map[string]string{"id": "bob", "displayName": "Bob Baker"}

	for _, tc := range []struct {
		organization string
		ids          []string
		buyers       []map[string]string
	}{
		{"org-1", []string{"ord-1001", "ord-1002", "ord-1003"}, []map[string]string{alice, bob, alice}},
		{"org-2", []string{"ord-2001", "ord-2002"}, []map[string]string{bob, alice}},
	} {
		before := len(asked())
		w := ask(t, service, "GET", "/orders", header("bob", `["member"]`, tc.organization))
		require.Equal(t, 200, w.Code, w.Body)
		var got listing
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
		require.Equal(t, "order-service", got.Service)
		require.Equal(t, usercontext.User{ID: "bob", Roles: []string{"member"}, OrganizationID: tc.organization}, got.User)
		var ids []string
		var buyers []map[string]string
		for _, o := range got.Orders {
			require.Equal(t, tc.organization, o.OrganizationID)
			ids, buyers = append(ids, o.ID), append(buyers, o.Buyer)
		}
		require.Equal(t, tc.ids, ids)
		require.Equal(t, tc.buyers, buyers)
		require.ElementsMatch(t, []string{"/users/internal/alice", "/users/internal/bob"}, asked()[before:], "each buyer once")
	}
}

func TestRoutes(t *testing.T) {
	base, _ := users(t)
	service := orderservice.New(orderservice.Options{UserService: base, InternalKey: internal})
	bob := header("bob", `["member"]`, "org-2")
	const bobJSON = `{"userId":"bob","email":"","roles":["member"],"organizationId":"org-2"}`
	malformed := http.Header{"X-User-Id": {"alice", "bob"}}

	for _, tc := range []struct {
		name, method, path string
		header             http.Header
		status             int
		body               string
	}{
		{"health", "GET", "/healthz", nil, 200, `{"status":"alive"}`},
		{
			"one", "GET", "/orders/ord-2001", bob, 200,
			`{"service":"order-service","user":` + bobJSON + `,"order":{"id":"ord-2001","organizationId":"org-2",` +
				`"buyer":{"id":"bob","displayName":"Bob Baker"},"item":"Coffee beans, 1 kg","quantity":40,"totalCents":75600,"currency":"EUR","placedOn":"2026-09-21"}}`,
		},
		{"another organization's", "GET", "/orders/ord-1001", bob, 404, `{"error":"Not found"}`},
		{"an admin of another organization", "GET", "/orders/ord-1001", header("alice", `["admin"]`, "org-2"), 404, `{"error":"Not found"}`},
		{"no such", "GET", "/orders/ord-9999", bob, 404, `{"error":"Not found"}`},
		{"one, without organization", "GET", "/orders/ord-1001", http.Header{"X-User-Id": {"bob"}}, 404, `{"error":"Not found"}`},
		{"one, anonymous", "GET", "/orders/ord-1001", nil, 401, `{"error":"No token provided"}`},
		{"one, malformed", "GET", "/orders/ord-1001", malformed, 400, `{"error":"Bad request"}`},

		{
			"list, without organization", "GET", "/orders",
			http.Header{"X-User-Id": {"bob"}},
			200,
			`{"service":"order-service","user":{"userId":"bob","email":"","roles":[],"organizationId":""},"orders":[]}`,
		},
		{
			"list, an organization without orders", "GET", "/orders", header("bob", "[]", "org-3"), 200,
			`{"service":"order-service","user":{"userId":"bob","email":"","roles":[],"organizationId":"org-3"},"orders":[]}`,
		},
		{"list, anonymous", "GET", "/orders", nil, 401, `{"error":"No token provided"}`},
		{"list, malformed", "GET", "/orders", malformed, 400, `{"error":"Bad request"}`},
		{"list, another method", "POST", "/orders", bob, 405, `{"error":"Method not allowed"}`},

		{"unknown", "GET", "/orders/", bob, 404, `{"error":"Not found"}`},
		{"unknown, below an order", "GET", "/orders/ord-2001/items", bob, 404, `{"error":"Not found"}`},
		{
			"echo", "POST", "/orders/echo",
			http.Header{"X-User-Id": {"bob"}, "Authorization": {"Bearer sixteen bytes"}},
			200,
			`{"service":"order-service","user":{"userId":"bob","email":"","roles":[],"organizationId":""},"method":"POST","host":"example.com",` +
				`"path":"/orders/echo","query":"","headers":{"x-user-id":["bob"],"authorization":["(present, 20 bytes)"]}}`,
		},
		{
			"echo, below", "GET", "/orders/echo/a/../b", nil, 200,
			`{"service":"order-service","user":null,"method":"GET","host":"example.com","path":"/orders/echo/a/../b","query":"","headers":{}}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := ask(t, service, tc.method, tc.path, tc.header)
			require.Equal(t, tc.status, w.Code, w.Body)
			if tc.status != http.StatusOK {
				require.Equal(t, tc.body, w.Body.String(), "errors are exact")
				return
			}
			require.JSONEq(t, tc.body, w.Body.String())
		})
	}
}

// Whatever goes wrong between the services is this one's trouble: the caller
// gets 502, never the other's 403, and the key shows up nowhere.
func TestUserServiceTrouble(t *testing.T) {
	genuine, _ := users(t)
	answers := func(h http.HandlerFunc) func(*testing.T) *url.URL {
		return func(t *testing.T) *url.URL { t.Helper(); return serve(t, h) }
	}
	for _, tc := range []struct {
		name string
		base func(*testing.T) *url.URL
		key  orderservice.Secret
		log  string
	}{
		{"wrong key", func(*testing.T) *url.URL { return genuine }, "hush-guess", "doesn't accept the internal key"},
		{"no key", func(*testing.T) *url.URL { return genuine }, "", "doesn't accept the internal key"},
		{"a key that is no header value", func(*testing.T) *url.URL { return genuine }, "hush\n", "invalid header field value"},
		{"not configured", func(*testing.T) *url.URL { return nil }, "hush", "not configured"},
		{"not there", func(t *testing.T) *url.URL {
			t.Helper()
			server := httptest.NewServer(http.NotFoundHandler())
			defer server.Close()
			return parse(t, server.URL)
		}, "hush", "connection refused"},
		{"broken", answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), "hush", "answered 500"},
		{"no JSON", answers(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }), "hush", "read the answer"},
		{"cut off", answers(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), "hush", "EOF"},
		{"too long", answers(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"id":"alice","displayName":"Alice"%*s}`, 64<<10, "")
		}), "hush", "read the answer"},
		{"someone else", answers(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"id":"mallory","displayName":"M"}`))
		}), "hush", "another user"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			service := orderservice.New(orderservice.Options{
				UserService: tc.base(t), InternalKey: tc.key, Log: slog.New(slog.NewTextHandler(&log, nil)),
			})
			for _, path := range []string{"/orders", "/orders/ord-1001"} {
				log.Reset()
				w := ask(t, service, "GET", path, header("alice", `["admin"]`, "org-1"))
				requireBadGateway(t, w)
				require.Contains(t, log.String(), tc.log)
				require.NotContains(t, log.String(), "hush")
				require.NotContains(t, fmt.Sprint(w.Header()), "hush")
			}
		})
	}
}

func TestUserServiceTooSlow(t *testing.T) {
	release := make(chan struct{})
	base := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(func() { close(release) }) // before the server closes, which waits for it
	service := orderservice.New(orderservice.Options{
		UserService: base, InternalKey: internal, Client: &http.Client{Timeout: 20 * time.Millisecond},
	})
	w := ask(t, service, "GET", "/orders", header("alice", "[]", "org-1"))
	requireBadGateway(t, w)
}

// net/http would carry the key along to wherever a redirect leads.
func TestTheKeyFollowsNoRedirect(t *testing.T) {
	var reached bool
	elsewhere := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	base := serve(t, http.RedirectHandler(elsewhere.String(), http.StatusTemporaryRedirect))
	for name, client := range map[string]*http.Client{"own client": nil, "given client": {}} {
		service := orderservice.New(orderservice.Options{UserService: base, InternalKey: internal, Client: client})
		w := ask(t, service, "GET", "/orders", header("alice", "[]", "org-1"))
		requireBadGateway(t, w)
		require.False(t, reached, name)
	}
}

func TestUnknownBuyerHasNoName(t *testing.T) {
	base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		usercontext.WriteError(w, http.StatusNotFound, "Not found")
	}))
	service := orderservice.New(orderservice.Options{UserService: base, InternalKey: internal})
	w := ask(t, service, "GET", "/orders/ord-1002", header("alice", "[]", "org-1"))
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Body.String(), `"buyer":{"id":"bob"}`)
}

// What one caller's answer holds must not stay in the data of the next.
func TestAnswersDoNotShareData(t *testing.T) {
	base, _ := users(t)
	good := orderservice.New(orderservice.Options{UserService: base, InternalKey: internal})
	require.Equal(t, 200, ask(t, good, "GET", "/orders", header("alice", "[]", "org-1")).Code)

	noNames := serve(t, http.NotFoundHandler())
	other := orderservice.New(orderservice.Options{UserService: noNames, InternalKey: internal})
	w := ask(t, other, "GET", "/orders", header("alice", "[]", "org-1"))
	require.Equal(t, 200, w.Code)
	require.NotContains(t, w.Body.String(), "displayName")
}

func TestSecretIsNotPrinted(t *testing.T) {
	options := orderservice.Options{InternalKey: "hush"}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", slog.Any("key", options.InternalKey), slog.Any("options", options))
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("key", options.InternalKey), slog.Any("options", map[string]any{"k": options.InternalKey}))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&log, verb+" ", options.InternalKey)
	}
	fmt.Fprintf(&log, "%v %+v %#v", options, options, options)
	require.NotContains(t, log.String(), "hush")
	require.NotContains(t, log.String(), "68757368", "in hex")
	require.Contains(t, log.String(), "[secret]")
}
