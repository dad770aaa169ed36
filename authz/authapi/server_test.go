package authapi_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// pipes is a listener whose connections are pipes, so that time is the test's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// A client that sends its body a byte at a time holds a call no longer than five
// seconds, whatever that may take then; the connection's next call is not the worse for
// it.
func TestSlowBodyIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		listener := &pipes{make(chan net.Conn), make(chan struct{})}
		server := &http.Server{Handler: b.api, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute}
		go func() { _ = server.Serve(listener) }()
		defer func() { _ = server.Close() }()
		client, side := net.Pipe()
		defer func() { _ = client.Close() }()
		listener.conns <- side
		in := bufio.NewReader(client)
		send := func(text string) {
			_, err := io.WriteString(client, text)
			require.NoError(t, err)
		}
		answer := func(method string) (int, string) {
			r, err := http.ReadResponse(in, &http.Request{Method: method})
			require.NoError(t, err)
			defer func() { _ = r.Body.Close() }()
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			return r.StatusCode, string(body)
		}
		body := `{"email":"bob@example.com","password":"` + bob.password + `"}`
		for range 2 { // whole bodies, with more time in between than a call has
			send(fmt.Sprintf("POST /auth/login HTTP/1.1\r\nHost: gateway.example.com\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
			status, text := answer("POST")
			require.Equal(t, 200, status, text)
			time.Sleep(20 * time.Second)
		}
		send("HEAD /auth/me HTTP/1.1\r\nHost: gateway.example.com\r\n\r\n")
		status, text := answer("HEAD")
		require.Equal(t, 401, status)
		require.Empty(t, text)

		send("POST /auth/revoke-all-sessions HTTP/1.1\r\nHost: gateway.example.com\r\nContent-Length: 1000\r\n\r\n" + `{"userId":`)
		start := time.Now()
		status, text = answer("POST")
		require.Equal(t, 401, status)
		require.Equal(t, noToken, text)
		require.Equal(t, 5*time.Second, time.Since(start))
	})
}

// Over a real connection an answer is what the handler made: no header more
// that means something, none encoded anew.
func TestAnswersOnTheWire(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: b.api, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() {
		require.NoError(t, server.Shutdown(context.Background()))
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	exchange := func(text string) (head []string, body string) {
		_, err := io.WriteString(conn, text)
		require.NoError(t, err)
		length := 0
		for {
			line, err := in.ReadString('\n')
			require.NoError(t, err)
			line = line[:len(line)-2]
			if line == "" {
				break
			}
			_, _ = fmt.Sscanf(line, "Content-Length: %d", &length)
			head = append(head, line)
		}
		if text[:4] == "HEAD" {
			return head, ""
		}
		raw := make([]byte, length)
		_, err = io.ReadFull(in, raw)
		require.NoError(t, err)
		return head, string(raw)
	}
	login := fmt.Sprintf(`{"email":"bob@example.com","password":%q}`, bob.password)
	head, body := exchange(fmt.Sprintf("POST /auth/login HTTP/1.1\r\nHost: gateway.example.com\r\nContent-Length: %d\r\n\r\n%s", len(login), login))
	require.Equal(t, "HTTP/1.1 200 OK", head[0])
	require.Contains(t, head, "Set-Cookie: sessionId=s%3Asession-id-1.signature%2B; Path=/; Max-Age=86400; Expires="+b.clock.Now().Add(24*time.Hour).UTC().Format(http.TimeFormat)+"; HttpOnly; Secure; SameSite=Strict")
	require.JSONEq(t, `{"userId":"bob","email":"Bob@example.com","roles":["user"],"organizationId":"org-1"}`, body)
	head, body = exchange("POST /auth/revoke HTTP/1.1\r\nHost: gateway.example.com\r\nContent-Length: 13\r\n\r\n" + `{"token":"x"}`)
	require.Equal(t, "HTTP/1.1 200 OK", head[0])
	require.Len(t, head, 5, "status, caching, sniffing, length and date: %q", head)
	require.Empty(t, body)
	get, _ := exchange("GET /.well-known/jwks.json HTTP/1.1\r\nHost: gateway.example.com\r\n\r\n")
	same, _ := exchange("HEAD /.well-known/jwks.json HTTP/1.1\r\nHost: gateway.example.com\r\n\r\n")
	require.Equal(t, get[:5], same[:5])
	head, _ = exchange("GET /auth/../auth/me HTTP/1.1\r\nHost: gateway.example.com\r\n\r\n")
	require.Equal(t, "HTTP/1.1 400 Bad Request", head[0], "not redirected")
	head, _ = exchange("GET http://gateway.example.com/auth/me HTTP/1.1\r\nHost: other.example.com\r\n\r\n")
	require.Equal(t, "HTTP/1.1 401 Unauthorized", head[0])
}
