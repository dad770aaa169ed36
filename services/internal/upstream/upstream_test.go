package upstream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/services/usercontext"
)

var quiet = slog.New(slog.DiscardHandler)

func TestJSONErrors(t *testing.T) {
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, r *http.Request) { WriteJSON(w, map[string]string{"id": r.PathValue("id")}) }
	mux.HandleFunc("GET /things", ok)
	mux.HandleFunc("GET /things/{id}", ok)
	mux.HandleFunc("PUT /things/{id}", ok)
	mux.HandleFunc("GET /tree/", ok)
	handler := JSONErrors(mux)

	const notFound, notAllowed = `{"error":"Not found"}`, `{"error":"Method not allowed"}`
	for _, tc := range []struct {
		method, target string
		status         int
		allow, body    string
	}{
		{"GET", "/things", 200, "", `{"id":""}`},
		{"GET", "/things/a%2Fb?x=//", 200, "", `{"id":"a/b"}`},
		{"PUT", "/things/1", 200, "", `{"id":"1"}`},
		{"GET", "/tree/a/", 200, "", `{"id":""}`},
		{"GET", "/", 404, "", notFound},
		{"GET", "/thing", 404, "", notFound},
		{"GET", "/things/", 404, "", notFound},
		{"GET", "/things/1/2", 404, "", notFound},
		{"GET", "//things", 404, "", notFound},
		{"GET", "/x/../things", 404, "", notFound},
		{"GET", "/things/./1", 404, "", notFound},
		{"POST", "/things", 405, "GET, HEAD", notAllowed},
		{"DELETE", "/things/1", 405, "GET, HEAD, PUT", notAllowed},
	} {
		t.Run(tc.method+" "+tc.target, func(t *testing.T) {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(tc.method, tc.target, nil))
			require.Equal(t, tc.status, w.Code)
			require.Equal(t, tc.allow, w.Header().Get("Allow"))
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			require.Equal(t, tc.body, w.Body.String())
		})
	}
}

func TestWriteJSONIsNotCached(t *testing.T) {
	w := httptest.NewRecorder()
	WriteJSON(w, map[string]int{"n": 1})
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
}

func TestUnder(t *testing.T) {
	for path, want := range map[string]bool{
		"/users/echo":     true,
		"/users/echo/":    true,
		"/users/echo/a/b": true,
		"/users/echoes":   false,
		"/users":          false,
		"/orders/echo":    false,
	} {
		require.Equal(t, want, Under(httptest.NewRequest("GET", path, nil), "/users/echo"), path)
	}
}

func echo(t *testing.T, r *http.Request) Echoed {
	t.Helper()
	w := httptest.NewRecorder()
	Echo("a-service").ServeHTTP(w, r)
	require.Equal(t, 200, w.Code)
	var got Echoed
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	return got
}

func TestEchoShowsWhatArrived(t *testing.T) {
	r := httptest.NewRequest("PATCH", "http://gateway.example.com/users/echo/a%2Fb?x=1&y=%20", nil)
	r.Header = http.Header{
		"X-User-Id": {"alice"}, "X-User-Roles": {`["admin"]`}, "X-Org-Id": {"org-1"},
		"X-Many": {"1", "2"}, "X-Html": {"<b>"},
	}
	require.Equal(t, Echoed{
		Service: "a-service",
		User:    &usercontext.User{ID: "alice", Roles: []string{"admin"}, OrganizationID: "org-1"},
		Method:  "PATCH",
		Host:    "gateway.example.com",
		Path:    "/users/echo/a%2Fb",
		Query:   "x=1&y=%20",
		Headers: map[string][]string{
			"x-user-id": {"alice"}, "x-user-roles": {`["admin"]`}, "x-org-id": {"org-1"},
			"x-many": {"1", "2"}, "x-html": {"<b>"},
		},
	}, echo(t, r))
}

func TestEchoShowsTrailers(t *testing.T) {
	server := httptest.NewServer(Echo("a-service"))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-User-Id, Cookie\r\nConnection: close\r\n\r\n"+
		"3\r\nabc\r\n0\r\nX-User-Id: root\r\nCookie: hush\r\n\r\n")
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	var got Echoed
	require.NoError(t, json.NewDecoder(response.Body).Decode(&got))
	require.Equal(t, map[string][]string{"x-user-id": {"root"}, "cookie": {"(present, 4 bytes)"}}, got.Trailers)
}

func TestEchoKeepsCredentialsToItself(t *testing.T) {
	r := httptest.NewRequest("GET", "/users/echo", nil)
	r.Header = http.Header{
		"Authorization":       {"Bearer hush"},
		"Proxy-Authorization": {"hush"},
		"Cookie":              {"sessionId=hush", "hush"},
		"X-Internal-Api-Key":  {"hush"},
		"X_internal_api_key":  {"hush"},
		"Accept":              {"*/*"},
	}
	got := echo(t, r)
	require.Equal(t, map[string][]string{
		"authorization":       {"(present, 11 bytes)"},
		"proxy-authorization": {"(present, 4 bytes)"},
		"cookie":              {"(present, 14 bytes)", "(present, 4 bytes)"},
		"x-internal-api-key":  {"(present, 4 bytes)"},
		"x_internal_api_key":  {"(present, 4 bytes)"},
		"accept":              {"*/*"},
	}, got.Headers)
	require.Nil(t, got.User)
	require.Empty(t, got.Malformed, "anonymous is not malformed")
}

func TestEchoShowsASpoofedNameThatCameThrough(t *testing.T) {
	r := httptest.NewRequest("GET", "/users/echo", nil)
	r.Header = http.Header{"X-User-Id": {"alice"}, "X_user_id": {"root"}}
	got := echo(t, r)
	require.Nil(t, got.User)
	require.Contains(t, got.Malformed, "x-user-id")
	require.Equal(t, []string{"root"}, got.Headers["x_user_id"])
}

func TestReaderLogsWhatDeservesIt(t *testing.T) {
	var log bytes.Buffer
	reader := Reader(slog.New(slog.NewTextHandler(&log, nil)))
	ask := func(header http.Header) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = header
		reader.Require(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
	}
	ask(nil)
	ask(http.Header{"X-User-Id": {"alice"}})
	require.Empty(t, log.String(), "neither a user nor an anonymous caller is news")
	ask(http.Header{"X-User-Id": {"hush%"}})
	require.Contains(t, log.String(), "malformed identity headers: x-user-id")
	require.NotContains(t, log.String(), "hush")
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func TestServeFinishesWhatIsUnderWay(t *testing.T) {
	ln := listen(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		WriteJSON(w, "done")
	})
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln, handler, quiet) }()

	type answer struct {
		body string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		res, err := http.Get("http://" + ln.Addr().String())
		if err != nil {
			answered <- answer{err: err}
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		answered <- answer{string(body), err}
	}()
	<-arrived
	stop()
	// The listener is closed first, while the request is still under way.
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, 5*time.Second, time.Millisecond)
	close(release)
	require.Equal(t, answer{body: `"done"`}, <-answered)
	require.NoError(t, <-served)
}

func TestServeCutsOffWhatDoesNotEnd(t *testing.T) {
	ln := listen(t)
	arrived := make(chan struct{})
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, ln, handler, quiet, time.Millisecond) }()
	cut := make(chan error, 1)
	go func() {
		res, err := http.Get("http://" + ln.Addr().String())
		if err == nil {
			_ = res.Body.Close()
		}
		cut <- err
	}()
	<-arrived
	stop()
	err := <-served
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "still under way after 1ms")
	require.Error(t, <-cut)
}

func TestServeReportsALostListener(t *testing.T) {
	ln := listen(t)
	require.NoError(t, ln.Close())
	require.ErrorIs(t, Serve(t.Context(), ln, http.NotFoundHandler(), quiet), net.ErrClosed)
}

func TestListenAndServe(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stdout, w := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- ListenAndServe(ctx, "a-service", "127.0.0.1:0", http.NotFoundHandler(), quiet, w) }()
	line := make([]byte, 100)
	n, err := stdout.Read(line)
	require.NoError(t, err)
	require.Regexp(t, `^a-service listens on 127\.0\.0\.1:[1-9][0-9]*\n$`, string(line[:n]))
	stop()
	require.NoError(t, <-served)

	taken := listen(t)
	err = ListenAndServe(t.Context(), "a-service", taken.Addr().String(), http.NotFoundHandler(), quiet, io.Discard)
	require.ErrorContains(t, err, taken.Addr().String())
}

func TestFlags(t *testing.T) {
	for _, tc := range []struct {
		name string
		env  map[string]string
		args []string
		want string
		err  string
	}{
		{name: "standard", want: "a"},
		{name: "environment", env: map[string]string{"LISTEN": "b"}, want: "b"},
		{name: "environment, empty", env: map[string]string{"LISTEN": ""}, want: "a"},
		{name: "flag before environment", env: map[string]string{"LISTEN": "b"}, args: []string{"--listen", "c"}, want: "c"},
		{name: "unknown flag", args: []string{"--port", "1"}, err: "port"},
		{name: "argument", args: []string{"8101"}, err: `unexpected argument "8101"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			flags := NewFlags("a-service", Process{Args: tc.args, Env: func(name string) string { return tc.env[name] }})
			got := flags.String("listen", "LISTEN", "a", "`address` to listen on")
			err := flags.Parse()
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				require.NotContains(t, err.Error(), "\n")
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, *got)
		})
	}
}

func TestExit(t *testing.T) {
	for _, tc := range []struct {
		err    error
		code   int
		stderr string
	}{
		{nil, 0, ""},
		{flag.ErrHelp, 0, ""},
		{errors.New("no\nluck"), 1, "a-service: no luck\n"},
	} {
		var stderr bytes.Buffer
		code := exit(t.Context(), "a-service", Process{Stderr: &stderr}, func(context.Context, Process) error { return tc.err })
		require.Equal(t, tc.code, code)
		require.Equal(t, tc.stderr, stderr.String())
	}
}

func TestHelp(t *testing.T) {
	var stdout bytes.Buffer
	flags := NewFlags("a-service", Process{Args: []string{"-h"}, Env: func(string) string { return "" }, Stdout: &stdout})
	flags.String("listen", "LISTEN", "127.0.0.1:1", "`address` to listen on")
	require.ErrorIs(t, flags.Parse(), flag.ErrHelp)
	require.Contains(t, stdout.String(), "-listen address")
	require.Contains(t, stdout.String(), "(environment: LISTEN)")
}
