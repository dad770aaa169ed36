package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProbe(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/well":
			_, _ = w.Write([]byte("alive"))
		case "/moved":
			http.Redirect(w, r, "/well", http.StatusFound)
		case "/empty":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	t.Setenv("HTTP_PROXY", gone.URL) // must not matter

	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"200 is well", []string{server.URL + "/well"}, 0, ""},
		{"503 is not", []string{server.URL + "/ill"}, 1, "503 Service Unavailable"},
		{"another page is no answer", []string{server.URL + "/moved"}, 1, "302 Found"},
		{"nor is nothing", []string{server.URL + "/empty"}, 1, "204 No Content"},
		{"nobody there", []string{gone.URL}, 1, "connection refused"},
		{"no URL", []string{"::"}, 1, "missing protocol scheme"},
		{"no argument", nil, 2, "usage: probe URL"},
		{"two arguments", []string{server.URL, server.URL}, 2, "usage: probe URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stderr strings.Builder
			require.Equal(t, c.code, run(t.Context(), c.args, &stderr), stderr.String())
			if c.says == "" {
				require.Empty(t, stderr.String())
				return
			}
			require.Contains(t, stderr.String(), c.says)
			require.Equal(t, 1, strings.Count(stderr.String(), "\n"), "one line")
		})
	}
}
