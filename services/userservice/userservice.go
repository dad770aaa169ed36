// Package userservice is the first of the two demo services behind the gate:
// profiles. It shows how little a service has to know. It reads who is
// calling from the headers that the gate sets, through package usercontext,
// and neither verifies tokens nor knows of Redis.
//
//	handler := userservice.New(userservice.Options{
//		InternalKeys: []usercontext.Key{key},
//	})
//	http.ListenAndServe("127.0.0.1:8101", handler)
//
// Every answer but an error and /healthz has a member "user": the caller as
// the service read it from the headers, or null. The services' README lists
// the routes.
//
// It is a demonstration: its data is made up and in memory, and the
// echoes tell the caller what arrived, which a service of your own should not.
package userservice

import (
	"log/slog"
	"net/http"

	"github.com/gatehouse-auth/gatehouse/services/internal/upstream"
	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// Name is what the service calls itself in its answers.
const Name = "user-service"

// Options configure the service.
type Options struct {
	// InternalKeys are the keys of the services that may ask for other users'
	// display names. Without any, nobody may.
	InternalKeys []usercontext.Key
	// Log gets a line for each request with malformed identity headers or
	// without the internal key; nil discards.
	Log *slog.Logger
}

// profile is what the service knows about a user beyond what the gate says.
type profile struct {
	DisplayName   string   `json:"displayName"`
	Title         string   `json:"title"`
	Organizations []string `json:"organizations"`
	MemberSince   string   `json:"memberSince"` // a date
}

// The users of the demo. The gate's user store has a third one, of whom this
// service knows nothing.
var profiles = map[string]profile{
	"alice": {DisplayName: "Alice Archer", Title: "Head of purchasing", Organizations: []string{"org-1", "org-2"}, MemberSince: "2021-03-01"},
	"bob":   {DisplayName: "Bob Baker", Title: "Buyer", Organizations: []string{"org-1", "org-2"}, MemberSince: "2023-09-15"},
}

// New returns the service. It holds no resources.
func New(o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	reader := upstream.Reader(o.Log)
	admin := usercontext.RequireRole("admin")
	internal := reader.RequireInternalKey(o.InternalKeys...)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", upstream.Health)
	mux.Handle("GET /public/hello", reader.Optional(http.HandlerFunc(hello)))
	mux.Handle("GET /users/me", reader.Require(http.HandlerFunc(me)))
	mux.Handle("GET /users/admin/stats", reader.Require(admin(http.HandlerFunc(stats))))
	mux.Handle("GET /users/internal/{id}", internal(reader.Optional(http.HandlerFunc(displayName))))
	routes := upstream.JSONErrors(mux)

	echo := upstream.Echo(Name)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Beside the mux, because it takes every method and every path, those
		// that the mux would redirect included.
		if upstream.Under(r, "/users/echo") || upstream.Under(r, "/public/echo") {
			echo.ServeHTTP(w, r)
			return
		}
		routes.ServeHTTP(w, r)
	})
}

func hello(w http.ResponseWriter, r *http.Request) {
	user := upstream.Context(r.Context())
	message := "Hello, whoever you are."
	if user != nil {
		message = "Hello, " + user.ID + "."
		if known, ok := profiles[user.ID]; ok {
			message = "Hello, " + known.DisplayName + "."
		}
	}
	upstream.WriteJSON(w, struct {
		Service string            `json:"service"`
		User    *usercontext.User `json:"user"`
		Message string            `json:"message"`
	}{Name, user, message})
}

func me(w http.ResponseWriter, r *http.Request) {
	user := upstream.Context(r.Context())
	// A caller whom the demo has no data for (a service, a user of a real
	// identity provider) is a caller all the same.
	var known *profile
	if p, ok := profiles[user.ID]; ok {
		known = &p
	}
	upstream.WriteJSON(w, struct {
		Service string            `json:"service"`
		User    *usercontext.User `json:"user"`
		Profile *profile          `json:"profile"`
	}{Name, user, known})
}

func stats(w http.ResponseWriter, r *http.Request) {
	organizations := map[string]int{}
	for _, p := range profiles {
		for _, id := range p.Organizations {
			organizations[id]++
		}
	}
	upstream.WriteJSON(w, struct {
		Service       string            `json:"service"`
		User          *usercontext.User `json:"user"`
		Users         int               `json:"users"`
		Organizations map[string]int    `json:"usersByOrganization"`
	}{Name, upstream.Context(r.Context()), len(profiles), organizations})
}

func displayName(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	known, ok := profiles[id]
	if !ok {
		usercontext.WriteError(w, http.StatusNotFound, "Not found")
		return
	}
	upstream.WriteJSON(w, struct {
		Service     string            `json:"service"`
		User        *usercontext.User `json:"user"` // null: the caller is a service
		ID          string            `json:"id"`
		DisplayName string            `json:"displayName"`
	}{Name, upstream.Context(r.Context()), id, known.DisplayName})
}
