package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/forwardauth"
)

// Proxies that ask by HTTP find the door on the http listener, with the engine,
// the log and the metrics of the other one.
func TestForwardAuthIsServed(t *testing.T) {
	g := start(t, onePolicy("embedded://"))
	check := func(path string, headers map[string]string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.http+path, http.NoBody)
		require.NoError(t, err)
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(body)
	}
	question := map[string]string{"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/orders?page=2", "X-Forwarded-Host": "gateway.example.com"}
	status, body := check("/check", question)
	require.Equal(t, 401, status)
	require.Equal(t, `{"error":"No token provided"}`, body)
	status, body = check("/check?policy=no-such", question)
	require.Equal(t, 403, status)
	require.Equal(t, `{"error":"Forbidden"}`, body)
	status, body = check("/check", nil)
	require.Equal(t, 400, status)
	require.Equal(t, `{"error":"Bad request"}`, body)
	status, _ = check("/check/", question)
	require.Equal(t, 404, status, "the auth API's")

	_, metrics := get(t, "http://"+g.ops+"/metrics")
	require.Contains(t, metrics, `gatehouse_decisions_total{credential="",decision="deny",policy="user",reason="no_credential"} 1`)
	require.Contains(t, metrics, `gatehouse_decisions_total{credential="",decision="deny",policy="",reason="policy_unknown"} 1`)
	entry := g.log.await(t, g.done, func(e map[string]any) bool { return e["reason"] == "bad_request" })
	require.Contains(t, entry["error"], "the proxy must send")
	require.NotContains(t, g.log.String(), "page=2")
}

// More requests at once than the http listener takes are refused at its door, each
// in the form that it asked for, and those under way are not harmed.
func TestHTTPListenerSheds(t *testing.T) {
	started, leave, left, release := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	sheds := 0
	l := &live{shedHTTP: func() { sheds++ }}
	l.replace(&generation{leases: &leases{}, http: &httpDoor{
		forward: forwardauth.NewHandler(nil, forwardauth.Options{}),
		auth: authFunc(func(w http.ResponseWriter, _ *http.Request, places authapi.Places) {
			if !places.Enter() {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			close(started)
			<-leave
			places.Leave()
			close(left)
			<-release
			w.WriteHeader(http.StatusNoContent)
		}),
		most: 1,
	}})
	done := make(chan *httptest.ResponseRecorder)
	go func() {
		w := httptest.NewRecorder()
		l.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/auth/login", http.NoBody))
		done <- w
	}()
	<-started
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/check", http.NoBody)
	l.ServeHTTP(w, r)
	require.Equal(t, http.StatusBadRequest, w.Code, "calls take no place of questions")
	w = httptest.NewRecorder()
	l.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/auth/login", http.NoBody))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, 1, sheds)

	l.http.forward.Add(1) // one that lasts
	w, r = httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/check", http.NoBody)
	for name, value := range map[string]string{"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/orders", "X-Forwarded-Host": "gateway.example.com"} {
		r.Header.Set(name, value)
	}
	l.ServeHTTP(w, r)
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, `{"error":"Authentication unavailable"}`, w.Body.String())
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.Equal(t, 2, sheds)

	// nginx sees no more of a refusal than its headers.
	w, r = httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/check", http.NoBody)
	r.Header.Set("X-Original-Method", "GET")
	r.Header.Set("X-Original-URL", "https://gateway.example.com/orders")
	l.ServeHTTP(w, r)
	require.Equal(t, "503", w.Header().Get("X-Gatehouse-Status"))
	require.Equal(t, "overloaded", w.Header().Get("X-Gatehouse-Reason"))
	require.Equal(t, `{"error":"Authentication unavailable"}`, w.Header().Get("X-Gatehouse-Body"))

	leave <- struct{}{} // what streams on
	<-left
	require.Zero(t, l.http.auth.Load())

	close(release)
	require.Equal(t, http.StatusNoContent, (<-done).Code)
	require.Zero(t, l.http.auth.Load())
	require.EqualValues(t, 1, l.http.forward.Load())
}

// authFunc is a function as the auth API.
type authFunc func(w http.ResponseWriter, r *http.Request, places authapi.Places)

func (f authFunc) Serve(w http.ResponseWriter, r *http.Request, places authapi.Places) {
	f(w, r, places)
}

// A GET has no body that anybody reads, and its answer doesn't wait for one.
func TestABodyThatNobodyReadsIsNotWaitedFor(t *testing.T) {
	g := start(t, onePolicy("embedded://"))
	conn, err := net.Dial("tcp", g.http)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "GET /auth/openapi.yaml HTTP/1.1\r\nHost: gateway.example.com\r\nContent-Length: 100\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second))) // the listener reads for 30
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode)
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Greater(t, len(text), 2048, "what is shorter is sent before the server looks for the body")
}

// Calls that are never sent to their end keep nobody out, up to four times as many as
// there may be under way. Then the memory for more is saved.
func TestUnfinishedCallsKeepNobodyOut(t *testing.T) {
	for range 10 {
		if unfinishedCallsKeepNobodyOut(t) {
			return
		}
	}
	t.Skip("no verdict: this machine is so busy that no body was waited for long enough")
}

// unfinishedCallsKeepNobodyOut reports whether this machine was quick enough to tell.
func unfinishedCallsKeepNobodyOut(t *testing.T) (counts bool) {
	t.Helper()
	const waitedFor = 4 * time.Second // a body is for five
	g := start(t, strings.Replace(onePolicy("embedded://"), `http: {listen: "127.0.0.1:0"}`, `http: {listen: "127.0.0.1:0", max_concurrent: 2}`, 1))
	unfinished := func() (status string, end func()) {
		conn, err := net.Dial("tcp", g.http)
		require.NoError(t, err)
		_, err = fmt.Fprintf(conn, "POST /auth/logout HTTP/1.1\r\nHost: gateway.example.com\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n")
		require.NoError(t, err)
		status, err = bufio.NewReader(conn).ReadString('\n')
		require.NoError(t, err)
		return status, func() { _ = conn.Close() }
	}
	post := func(body string) int {
		response, err := http.Post("http://"+g.http+"/auth/logout", "application/json", strings.NewReader(body))
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode
	}
	began := time.Now()
	for i := range 2*receivingMore - 1 {
		status, ends := unfinished()
		defer ends()
		require.Equal(t, "HTTP/1.1 100 Continue\r\n", status, "the body of call %d is waited for", i)
	}
	require.Equal(t, http.StatusOK, post(`{}`))

	status, end := unfinished()
	defer end()
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", status)
	status, ends := unfinished()
	defer ends()
	posted := post(`{}`)
	if time.Since(began) > waitedFor { // the first may be waited for no more
		return false
	}
	require.Equal(t, "HTTP/1.1 500 Internal Server Error\r\n", status, "logout's answer where there is no place, and at once")
	require.Equal(t, http.StatusInternalServerError, posted)
	require.Equal(t, http.StatusOK, post(``), "no body, nothing to wait for")
	code, _ := get(t, "http://"+g.http+"/.well-known/jwks.json")
	require.Equal(t, http.StatusOK, code)
	_, metrics := get(t, "http://"+g.ops+"/metrics")
	require.Contains(t, metrics, "gatehouse_http_shed_total 2\n")

	end()
	require.Eventually(t, func() bool { return post(`{}`) == http.StatusOK }, patience, 10*time.Millisecond, "there is place again")
	return true
}
