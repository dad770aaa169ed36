// Package demopage serves the page at the gateway's root in the demo: log in
// with a session or a token, see who you are, call a service, try to cheat,
// switch organization, end your sessions, log out.
//
//	http.ListenAndServe("127.0.0.1:8103", demopage.New(demopage.Options{Store: "Redis"}))
//
// It is files and nothing else. Whatever the page does goes through the
// gateway, to the auth API and to the services, as it would for any other
// application; the server behind it holds no secret and knows no store.
package demopage

import (
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"
)

//go:embed static
var static embed.FS

// Options tell the page about the gate that it demonstrates.
type Options struct {
	// Store says in two or three words where sessions are.
	Store string
}

// New returns the handler of /, /demo/… and /healthz.
func New(o Options) http.Handler {
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic("demopage: " + err.Error()) // the files are compiled in
	}
	state := stateOf(o)
	mux := http.NewServeMux()
	mux.Handle("GET /demo/", http.StripPrefix("/demo/", http.FileServerFS(files)))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "/index.html")
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, []byte(`{"status":"alive"}`))
	})
	mux.HandleFunc("GET /demo/state", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, state)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, []byte(`{"error":"Not found"}`))
	})
	return secure(mux)
}

// stateOf is what the page asks for when it starts.
func stateOf(o Options) []byte {
	type person struct {
		Name     string `json:"name"`
		About    string `json:"about"`
		Email    string `json:"email"`
		Password string `json:"password"` // of the demo's people, who have no secrets
	}
	var state struct {
		Store  string   `json:"store"`
		People []person `json:"people"`
	}
	state.Store = o.Store
	for _, p := range People() {
		state.People = append(state.People, person{p.Name, p.About, p.Email, p.Password})
	}
	text, err := json.Marshal(state)
	if err != nil {
		panic("demopage: strings have a JSON form: " + err.Error())
	}
	return text
}

// policy lets the page load its own files and talk to its own origin; no form
// is ever sent by the browser itself, and no markup comes from text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// secure sets the headers of a page that loads nothing from elsewhere.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client left: nothing to do
}
