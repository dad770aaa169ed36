// Package upstream is what the two demo services share: JSON answers, the
// echo, and a server that starts and stops well.
package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

// WriteJSON answers 200 with v as JSON. The answers depend on who asks, so
// no cache may keep them.
func WriteJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil { // the services answer plain structs only
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // the client is gone, and with it who could be told
}

// Context returns the user for the "user" member of an answer: null when the
// caller is anonymous.
func Context(ctx context.Context) *usercontext.User {
	user, ok := usercontext.FromContext(ctx)
	if !ok {
		return nil
	}
	return &user
}

// Health answers /healthz.
func Health(w http.ResponseWriter, _ *http.Request) {
	WriteJSON(w, map[string]string{"status": "alive"})
}

// JSONErrors serves mux, and answers in JSON where mux would answer in text:
// 404 {"error":"Not found"} and 405 {"error":"Method not allowed"}. A path
// that mux would redirect to its clean form is not found: the gate refuses
// such paths, and a service should not be the one that guesses.
func JSONErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isClean(r.URL.EscapedPath()) {
			usercontext.WriteError(w, http.StatusNotFound, "Not found")
			return
		}
		handler, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		// Without a pattern, the handler only says why there is none.
		why := answerHead{header: http.Header{}}
		handler.ServeHTTP(&why, r)
		if why.status != http.StatusMethodNotAllowed {
			usercontext.WriteError(w, http.StatusNotFound, "Not found")
			return
		}
		w.Header().Set("Allow", why.header.Get("Allow"))
		usercontext.WriteError(w, http.StatusMethodNotAllowed, "Method not allowed")
	})
}

func isClean(p string) bool {
	clean := path.Clean("/" + p)
	return p == clean || p == clean+"/"
}

// answerHead is a ResponseWriter that keeps status and headers only.
type answerHead struct {
	header http.Header
	status int
}

func (a *answerHead) Header() http.Header         { return a.header }
func (a *answerHead) WriteHeader(status int)      { a.status = status }
func (a *answerHead) Write(p []byte) (int, error) { return len(p), nil }

// Under reports whether a request's path is prefix or below it.
func Under(r *http.Request, prefix string) bool {
	rest, ok := strings.CutPrefix(r.URL.Path, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

// Echoed is the answer of an echo.
type Echoed struct {
	Service string `json:"service"`
	// User is who the identity headers name; null for an anonymous caller,
	// and when they are malformed.
	User *usercontext.User `json:"user"`
	// Malformed says what is wrong with the identity headers, for which any
	// other route answers 400; absent when nothing is.
	Malformed string `json:"malformed,omitempty"`
	Method    string `json:"method"`
	Host      string `json:"host"`
	Path      string `json:"path"`  // as it was sent, without the query
	Query     string `json:"query"` // as it was sent
	// Headers has every header that arrived, by its name in lower case.
	Headers map[string][]string `json:"headers"`
	// Trailers likewise; absent when there are none.
	Trailers map[string][]string `json:"trailers,omitempty"`
}

// mostEchoed is how much of a body is read for the sake of the trailers behind it.
const mostEchoed = 1 << 20

// Echo answers with the request as it arrived, whatever its method. It
// exists for demonstrations and tests, to show what the gate lets through
// and what it adds: a service of your own should have no such route.
//
// Identity headers are shown as they are, those with misspelt names too. Of
// credentials it shows only that they arrived, as "(present, N bytes)", so
// that a page which displays the answer gives none away.
func Echo(service string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := Echoed{
			Service: service,
			Method:  r.Method,
			Host:    r.Host,
			Path:    r.URL.EscapedPath(),
			Query:   r.URL.RawQuery,
			Headers: shown(r.Header),
		}
		user, err := usercontext.FromHeaders(r.Header) //nolint:contextcheck // asks nobody without a verifier
		switch {
		case err == nil:
			answer.User = &user
		case !errors.Is(err, usercontext.ErrAnonymous):
			answer.Malformed = err.Error()
		}
		if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, mostEchoed)); err == nil && len(r.Trailer) > 0 {
			answer.Trailers = shown(r.Trailer) // they are known at the body's end
		}
		WriteJSON(w, answer)
	})
}

// shown returns headers by their names in lower case, without what is secret.
func shown(header http.Header) map[string][]string {
	fields := make(map[string][]string, len(header))
	for name, values := range header {
		name = strings.ToLower(name)
		for _, value := range values {
			if isCredential(name) {
				value = fmt.Sprintf("(present, %d bytes)", len(value))
			}
			fields[name] = append(fields[name], value)
		}
	}
	return fields
}

// isCredential reports whether a header holds a credential, also when its
// name is spelt with underscores.
func isCredential(name string) bool {
	switch strings.ReplaceAll(name, "_", "-") {
	case "authorization", "proxy-authorization", "cookie", usercontext.HeaderInternalKey:
		return true
	}
	return false
}

// Reader returns a reader of the default headers that logs what it refuses
// as malformed or for want of the internal key.
func Reader(log *slog.Logger) *usercontext.Reader {
	reader, err := usercontext.NewReader(usercontext.Options{
		OnRefusal: func(ctx context.Context, err error) {
			if !errors.Is(err, usercontext.ErrAnonymous) {
				log.LogAttrs(ctx, slog.LevelWarn, "request refused", slog.String("cause", err.Error()))
			}
		},
	})
	if err != nil { // the default names are good ones
		panic(err)
	}
	return reader
}

// How long [Serve] waits.
const (
	drainTimeout = 10 * time.Second
	// Longer than Envoy keeps an idle upstream connection, an hour by
	// default, so that Envoy is the one who closes it: a request that meets
	// the close of the other side ends as a 503 of nobody's making.
	idleTimeout = 2 * time.Hour
)

// Serve serves h on the listener until ctx ends, then lets the requests that
// are under way finish, for ten seconds at most. It closes the listener.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	return serve(ctx, ln, h, log, drainTimeout)
}

func serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger, drain time.Duration) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    128 << 10, // above the 60 KiB that Envoy accepts
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := server.Shutdown(patience); err != nil {
		_ = server.Close() // cuts off those who were not done in time
		return fmt.Errorf("stop: requests were still under way after %v: %w", drain, err)
	}
	return nil
}

// ListenAndServe is [Serve] on a TCP address, which it announces on stdout
// in one line.
func ListenAndServe(ctx context.Context, name, address string, h http.Handler, log *slog.Logger, stdout io.Writer) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err // names the address
	}
	_, _ = fmt.Fprintf(stdout, "%s listens on %s\n", name, ln.Addr())
	return Serve(ctx, ln, h, log)
}
