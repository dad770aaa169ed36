package usercontext_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// A service of two routes, one of them for administrators. The requests are
// as the gate passes them on.
func Example() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		user, _ := usercontext.FromContext(r.Context())
		fmt.Fprintf(w, "orders of %s, for %s", user.OrganizationID, user.ID)
	})
	mux.Handle("GET /orders/report", usercontext.RequireRole("admin")(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "all of them") })))
	service := usercontext.Require(mux)

	ask := func(path string, header http.Header) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header = header
		w := httptest.NewRecorder()
		service.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	bob := http.Header{"X-User-Id": {"bob"}, "X-User-Roles": {`["member"]`}, "X-Org-Id": {"org-2"}}
	ask("/orders", bob)
	ask("/orders/report", bob)
	ask("/orders", nil)
	ask("/orders", http.Header{"X-User-Id": {"bob", "alice"}})
	// Output:
	// 200 orders of org-2, for bob
	// 403 {"error":"Forbidden"}
	// 401 {"error":"No token provided"}
	// 400 {"error":"Bad request"}
}

func ExampleFromHeaders() {
	header := http.Header{}
	header.Set("x-user-id", "J%C3%BCrgen")
	header.Set("x-user-roles", `["pr\u00fcfer"]`)
	user, err := usercontext.FromHeaders(header)
	fmt.Println(user.ID, user.Roles, err)

	header.Set("x-user-roles", "admin")
	_, err = usercontext.FromHeaders(header)
	fmt.Println(errors.Is(err, usercontext.ErrMalformed), err)

	_, err = usercontext.FromHeaders(nil)
	fmt.Println(errors.Is(err, usercontext.ErrAnonymous))
	// Output:
	// Jürgen [prüfer] <nil>
	// true malformed identity headers: x-user-roles: not a JSON array of strings
	// true
}

// A page for everybody that greets those who are known.
func ExampleOptional() {
	hello := usercontext.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, ok := usercontext.FromContext(r.Context()); ok {
			fmt.Fprintf(w, "hello, %s", user.ID)
			return
		}
		fmt.Fprint(w, "hello, whoever you are")
	}))
	for _, header := range []http.Header{nil, {"X-User-Id": {"alice"}}} {
		r := httptest.NewRequest(http.MethodGet, "/hello", nil)
		r.Header = header
		w := httptest.NewRecorder()
		hello.ServeHTTP(w, r)
		fmt.Println(w.Body)
	}
	// Output:
	// hello, whoever you are
	// hello, alice
}

// A handler's test needs no headers.
func ExampleNewContext() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		user, _ := usercontext.FromContext(r.Context())
		fmt.Fprint(w, user.ID)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	w := httptest.NewRecorder()
	handler(w, r.WithContext(usercontext.NewContext(r.Context(), usercontext.User{ID: "alice"})))
	fmt.Println(w.Body)
	// Output: alice
}

// While a key is rotated, the old and the new one are both valid.
func ExampleRequireInternalKey() {
	var keys []usercontext.Key
	for _, text := range []string{
		"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08@2020-01-01", // has expired
		"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",            // printf foo | sha256sum
	} {
		key, err := usercontext.ParseKey(text)
		if err != nil {
			fmt.Println(err)
			return
		}
		keys = append(keys, key)
	}
	internal := usercontext.RequireInternalKey(keys...)(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "for services only") }))
	for _, key := range []string{"foo", "test"} {
		r := httptest.NewRequest(http.MethodGet, "/internal", nil)
		r.Header.Set("x-internal-api-key", key)
		w := httptest.NewRecorder()
		internal.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 for services only
	// 403 {"error":"Forbidden"}
}
