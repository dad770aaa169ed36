// Package demopage serves the page at the gateway's root in the demo: who am
// I, call a service, try to cheat, log out.
//
// It stands in for a login service: it hands out prepared sessions to
// whoever asks, which is what a demo is for and nothing else. The page and
// its script know nothing of sessions; all they do goes through the gateway.
package demopage

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
)

//go:embed static
var static embed.FS

// Options tell the page about the gate that it demonstrates.
type Options struct {
	// Store says in two or three words where sessions are.
	Store string
	// RevokedToken is a token that was good once, for the visitor to try.
	RevokedToken string
	// CookieName is the session cookie's name; "" means sessionId.
	CookieName string
	// SecureCookie marks the cookie for TLS only.
	SecureCookie bool
	// Login creates a session for one of the demo's users and returns the
	// signed cookie value. ok is false for a user that the demo doesn't have.
	Login func(ctx context.Context, user string) (cookie string, ok bool, err error)
	// Logout ends the session behind a cookie value; a value that is no
	// session's is none of its business.
	Logout func(ctx context.Context, cookie string) error
	Log    *slog.Logger // nil discards
}

// New returns the handler of /, /demo/… and /healthz.
func New(o Options) http.Handler {
	if o.CookieName == "" {
		o.CookieName = "sessionId"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &page{o: o}
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic("demopage: " + err.Error()) // the files are compiled in
	}
	mux := http.NewServeMux()
	mux.Handle("GET /demo/", http.StripPrefix("/demo/", http.FileServerFS(files)))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, files, "/index.html")
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /demo/state", p.state)
	mux.HandleFunc("POST /demo/login", p.login)
	mux.HandleFunc("POST /demo/logout", p.logout)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusNotFound, "Not found") })

	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, "Forbidden")
	}))
	return secure(crossOrigin.Handler(mux))
}

// secure sets the headers of a page that loads nothing from elsewhere.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

type page struct{ o Options }

func (p *page) state(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"store": p.o.Store, "revokedToken": p.o.RevokedToken})
}

func (p *page) login(w http.ResponseWriter, r *http.Request) {
	var body struct {
		User string `json:"user"`
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1024))
	if err := decoder.Decode(&body); err != nil {
		refuse(w, http.StatusBadRequest, "Bad request")
		return
	}
	cookie, ok, err := p.o.Login(r.Context(), body.User)
	switch {
	case err != nil:
		p.o.Log.Error("demo login", slog.Any("error", err))
		refuse(w, http.StatusServiceUnavailable, "Authentication unavailable")
	case !ok:
		refuse(w, http.StatusNotFound, "Not found")
	default:
		p.setCookie(w, cookie, 24*60*60)
		answer(w, http.StatusOK, map[string]string{"user": body.User})
	}
}

func (p *page) logout(w http.ResponseWriter, r *http.Request) {
	if value, ok := rawCookie(r, p.o.CookieName); ok {
		if err := p.o.Logout(r.Context(), value); err != nil {
			p.o.Log.Error("demo logout", slog.Any("error", err))
			refuse(w, http.StatusInternalServerError, "Logout failed")
			return
		}
	}
	p.setCookie(w, "", -1)
	answer(w, http.StatusOK, map[string]string{"message": "Logged out successfully"})
}

func (p *page) setCookie(w http.ResponseWriter, value string, maxAge int) {
	//nolint:gosec // G124: Secure is the demo's setting, it runs without TLS
	http.SetCookie(w, &http.Cookie{
		Name: p.o.CookieName, Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: p.o.SecureCookie, SameSite: http.SameSiteStrictMode,
	})
}

func rawCookie(r *http.Request, name string) (string, bool) {
	cookie, err := r.Cookie(name)
	if err != nil {
		return "", false
	}
	return strings.TrimSpace(cookie.Value), true
}

func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"error": message})
}

func answer(w http.ResponseWriter, status int, body map[string]string) {
	text, err := json.Marshal(body)
	if err != nil {
		panic("demopage: strings have a JSON form: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // the client left: nothing to do
}
