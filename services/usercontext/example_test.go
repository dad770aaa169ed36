package usercontext_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

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

func ExampleRequire() {
	service := usercontext.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := usercontext.FromContext(r.Context()) // there is one: Require saw to that
		fmt.Fprintf(w, "hello, %s", user.ID)
	}))
	for _, header := range []http.Header{{"X-User-Id": {"alice"}}, nil} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header = header
		w := httptest.NewRecorder()
		service.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 hello, alice
	// 401 {"error":"No token provided"}
}

// RequireRole goes inside Require, around some of the routes.
func ExampleRequireRole() {
	mux := http.NewServeMux()
	auditors := usercontext.RequireRole("admin", "auditor")
	mux.Handle("GET /audit", auditors(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "what happened") })))
	service := usercontext.Require(mux)
	for _, roles := range []string{`["auditor"]`, `["member"]`} {
		r := httptest.NewRequest(http.MethodGet, "/audit", nil)
		r.Header = http.Header{"X-User-Id": {"alice"}, "X-User-Roles": {roles}}
		w := httptest.NewRecorder()
		service.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 what happened
	// 403 {"error":"Forbidden"}
}

func ExampleFromContext() {
	ctx := usercontext.NewContext(context.Background(), usercontext.User{ID: "alice", OrganizationID: "org-1"})
	user, ok := usercontext.FromContext(ctx)
	fmt.Println(user.ID, user.OrganizationID, ok)
	user, ok = usercontext.FromContext(context.Background())
	fmt.Printf("%q %v\n", user.ID, ok)
	// Output:
	// alice org-1 true
	// "" false
}

func ExampleUser_HasRole() {
	user := usercontext.User{ID: "alice", Roles: []string{"member", "auditor"}}
	fmt.Println(user.HasRole("admin", "auditor"))
	fmt.Println(user.HasRole("admin"))
	fmt.Println(user.HasRole()) // none asked for: a forgotten setting opens nothing
	// Output:
	// true
	// false
	// false
}

func ExampleUser_Service() {
	for _, id := range []string{"service:billing", "alice"} {
		name, ok := usercontext.User{ID: id}.Service()
		fmt.Printf("%q %v\n", name, ok)
	}
	// Output:
	// "billing" true
	// "" false
}

// Without middleware, as in a server that is no net/http.
func ExampleCheckInternalKey() {
	key := usercontext.HashKey("foo")
	fmt.Println(usercontext.CheckInternalKey(http.Header{"X-Internal-Api-Key": {"foo"}}, key))
	err := usercontext.CheckInternalKey(http.Header{"X-Internal-Api-Key": {"bar"}}, key)
	fmt.Println(errors.Is(err, usercontext.ErrForbidden), err)
	// Output:
	// <nil>
	// true forbidden: x-internal-api-key is none of the 1 keys, or has expired
}

func ExampleHashKey() {
	fmt.Printf("%x\n", usercontext.HashKey("foo").SHA256)
	// Output: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
}

func ExampleParseKey() {
	key, err := usercontext.ParseKey("2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae@2027-01-01")
	fmt.Println(key.Expires, err)
	_, err = usercontext.ParseKey("foo") // the key, where its hash should be
	fmt.Println(err)
	// Output:
	// 2027-01-01 00:00:00 +0000 UTC <nil>
	// usercontext: a key is given as its SHA-256 hash: 64 hexadecimal digits, not 3 characters of another kind
}

// The gate's identity.headers were changed, and refusals are to be in the log.
func ExampleNewReader() {
	reader, err := usercontext.NewReader(usercontext.Options{
		UserID:    "x-auth-subject",
		OnRefusal: func(_ context.Context, err error) { fmt.Println("log:", err) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	service := reader.Require(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Add("x-auth-subject", "alice")
	r.Header.Add("x-auth-subject", "root")
	service.ServeHTTP(httptest.NewRecorder(), r)

	_, err = usercontext.NewReader(usercontext.Options{UserID: "x-who", Email: "X_Who"})
	fmt.Println(err)
	// Output:
	// log: malformed identity headers: x-auth-subject is there more than once
	// usercontext: UserID and Email both name the header x_who: give each its own
}

func ExampleReader() {
	reader, err := usercontext.NewReader(usercontext.Options{InternalKey: "x-service-key"})
	if err != nil {
		fmt.Println(err)
		return
	}
	internal := reader.RequireInternalKey(usercontext.HashKey("foo"))(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "for services only") }))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("x-service-key", "foo")
	w := httptest.NewRecorder()
	internal.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)

	user, err := reader.FromHeaders(http.Header{"X-User-Id": {"alice"}})
	fmt.Println(user.ID, err)
	// Output:
	// 200 for services only
	// alice <nil>
}

// A handler that finds a reason of its own answers in the gate's form.
func ExampleWriteError() {
	w := httptest.NewRecorder()
	usercontext.WriteError(w, http.StatusConflict, "Order was shipped")
	fmt.Println(w.Code, w.Header().Get("Content-Type"), w.Body)
	// Output: 409 application/json {"error":"Order was shipped"}
}

// A service that believes what the gate signed for it, whoever else can reach it.
func ExampleNewVerifier() {
	verifier, err := usercontext.NewVerifier(usercontext.VerifierOptions{
		Issuer: "https://gateway.example.com", Audience: "orders",
		JWKSURL: "https://gateway.example.com/.well-known/jwks.json",
	})
	if err != nil {
		panic(err)
	}
	reader, err := usercontext.NewReader(usercontext.Options{Verifier: verifier})
	if err != nil {
		panic(err)
	}
	orders := reader.Require(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "orders") }))

	around := httptest.NewRequest(http.MethodGet, "/orders", http.NoBody)
	around.Header.Set("x-user-id", "alice")
	answer := httptest.NewRecorder()
	orders.ServeHTTP(answer, around)
	fmt.Println(answer.Code, answer.Body)
	// Output: 403 {"error":"Forbidden"}
}

// A handler that wants the session of its caller is tested without the gate's keys.
func ExampleNewAssertionContext() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := usercontext.AssertionFromContext(r.Context())
		fmt.Fprint(w, a.User.ID, " ", a.SessionID, " ", ok)
	})
	request := httptest.NewRequest(http.MethodGet, "/orders", http.NoBody)
	signed := usercontext.Assertion{User: usercontext.User{ID: "alice"}, SessionID: "a-handle", Expires: time.Now().Add(time.Minute)}
	request = request.WithContext(usercontext.NewAssertionContext(request.Context(), signed))
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	fmt.Println(answer.Body)
	// Output: alice a-handle true
}

// Without a verifier in front of the handler nothing is vouched for.
func ExampleAssertionFromContext() {
	request := httptest.NewRequest(http.MethodGet, "/orders", http.NoBody)
	a, ok := usercontext.AssertionFromContext(request.Context())
	fmt.Printf("%q %v\n", a.SessionID, ok)
	// Output: "" false
}

// Services that don't speak HTTP check the assertion that they were handed.
func ExampleVerifier_Verify() {
	verifier, err := usercontext.NewVerifier(usercontext.VerifierOptions{
		Issuer: "https://gateway.example.com", Audience: "orders",
		JWKSURL: "https://gateway.example.com/.well-known/jwks.json",
	})
	if err != nil {
		panic(err)
	}
	_, err = verifier.Verify(context.Background(), "what.somebody.made")
	fmt.Println(errors.Is(err, usercontext.ErrUnverified))
	// Output: true
}
