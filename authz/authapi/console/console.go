// Package console serves the page on which administrators find a user, see
// and end the user's sessions, change roles and organization while they live,
// and revoke everything at once; and on which everybody sees their own.
//
//	mux.Handle("/auth/console", console.Handler(console.Options{}))
//	mux.Handle("/auth/console/", console.Handler(console.Options{}))
//
// It is files and nothing else: HTML, a style sheet and scripts, which work
// with the auth API as any other client would. So it has no rights of its own,
// and needs no authentication: what somebody may do is the API's to say.
// Whatever the API tells is shown as text, never as markup, and the content
// security policy holds the page to that.
//
// It leaves out what the API does not have: making users and passwords.
package console

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed static
var static embed.FS

// Path is where the console is served; nothing else works, because the page
// names its files by it.
const Path = "/auth/console"

// Options configure the console. The zero value is good.
type Options struct {
	// Title says which installation this is, such as "Staging", for those who
	// have several open. It is public. "" for none.
	Title string
	// Providers are the names of the OpenID providers that the login form
	// offers: each leads to /auth/oidc/{name}/login. They are public, too.
	Providers []string
	// WithoutPasswords leaves the fields for email address and password out, for
	// where nobody has a password.
	WithoutPasswords bool
}

// policy is the content security policy: the page loads its own files and
// talks to its own origin, no markup comes from text, and nobody frames it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Handler serves [Path] and everything below it. It answers GET and HEAD, and
// everything else with an error in JSON.
func Handler(o Options) http.Handler {
	files := load(o)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", policy)
		f, ok := files[r.URL.Path]
		switch {
		case !ok:
			refuse(w, http.StatusNotFound, "Not found")
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "Method not allowed")
		default:
			f.serve(w, r)
		}
	})
}

// file is one file of the console, as it is served.
type file struct {
	kind string // Content-Type
	etag string
	body []byte
}

// load returns the files by their paths.
func load(o Options) map[string]file {
	if o.Providers == nil {
		o.Providers = []string{}
	}
	settings, err := json.Marshal(struct {
		Title     string   `json:"title"`
		Providers []string `json:"providers"`
		Passwords bool     `json:"passwords"`
	}{o.Title, o.Providers, !o.WithoutPasswords})
	if err != nil {
		panic("console: strings have a JSON form: " + err.Error())
	}
	files := map[string]file{Path + "/settings.json": newFile("settings.json", settings)}
	entries, err := fs.ReadDir(static, "static")
	if err != nil {
		panic("console: " + err.Error()) // the files are compiled in
	}
	for _, entry := range entries {
		body, err := static.ReadFile("static/" + entry.Name())
		if err != nil {
			panic("console: " + err.Error())
		}
		files[Path+"/"+entry.Name()] = newFile(entry.Name(), body)
	}
	page := files[Path+"/index.html"]
	delete(files, Path+"/index.html") // one address is enough
	files[Path], files[Path+"/"] = page, page
	return files
}

// kinds has the media types of our files: those of the operating system, which
// package mime would take, are not always right.
var kinds = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".json": "application/json",
	".svg":  "image/svg+xml",
}

func newFile(name string, body []byte) file {
	kind, ok := kinds[path.Ext(name)]
	if !ok {
		panic("console: of what kind is " + name + "?")
	}
	sum := sha256.Sum256(body)
	return file{kind, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, body}
}

// serve answers with the file, or with 304 to who has this version of it.
// Browsers keep the files and ask each time whether they are still the same, so
// that the parts of the page always fit each other and the API.
func (f file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("Etag", f.etag)
	if matches(r.Header.Values("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.kind)
	h.Set("Content-Length", strconv.Itoa(len(f.body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(f.body) // the client left: nothing to do
	}
}

// matches compares weakly, as RFC 9110 section 13.1.2 says: gateways that
// compress make weak tags of ours.
func matches(wanted []string, etag string) bool {
	for w := range strings.SplitSeq(strings.Join(wanted, ","), ",") {
		w = strings.TrimSpace(w)
		if w == "*" || strings.TrimPrefix(w, "W/") == etag {
			return true
		}
	}
	return false
}

func refuse(w http.ResponseWriter, status int, message string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"error":"` + message + `"}`))
}
