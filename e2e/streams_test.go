package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// recipe is the first block of YAML of docs/streams.md: the route.
func recipe(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "streams.md"))
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(page), "```yaml\n")
	require.True(t, ok)
	text, _, _ := strings.Cut(rest, "```")
	require.Contains(t, text, "cluster: stream_service")
	return strings.Replace(text, "cluster: stream_service", "cluster: order_service", 1)
}

// A stream through a real Envoy, with the route of docs/streams.md, ends when its session
// does, and at the latest when the gateway says so. The service is examples/streams.
func TestStreamsEndWithTheirSession(t *testing.T) {
	need(t)
	bin := filepath.Join(t.TempDir(), "streams")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./examples/streams")
	build.Dir = ".."
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	s := start(t, options{})
	ports, err := proc.FreePorts(1)
	require.NoError(t, err)
	key := filepath.Join(s.dir, "feed.key")
	require.NoError(t, os.WriteFile(key, []byte(apiKeys.backend+"\n"), 0o600))
	service := proctest.Start(t, bin, nil, proc.Options{Env: []string{
		"LISTEN=" + proc.Local(ports[0]), "FEED_URL=http://" + s.replicas[0].http + "/auth/feed", "FEED_KEY_FILE=" + key,
	}})
	require.NoError(t, service.Ready(t.Context(), proc.TCP(proc.Local(ports[0]))))

	ours := endpoints("order_service", proc.Local(ports[0]))
	long := s.gateway(t, routesFirst(recipe(t)), ours)
	bounded := strings.Replace(recipe(t), "max_stream_duration: 900s", "max_stream_duration: 3s", 1)
	require.NotEqual(t, recipe(t), bounded)
	short := s.gateway(t, routesFirst(bounded), ours)

	revoke := func(path, cookie, body string) time.Time {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.replicas[0].http+path, strings.NewReader(body))
		require.NoError(t, err)
		request.Header.Set("Cookie", cookie)
		if body != "" {
			request.Header.Set("X-Internal-Api-Key", apiKeys.backend)
			request.Header.Set("Content-Type", "application/json")
		}
		answer, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		_ = answer.Body.Close()
		require.Equal(t, http.StatusOK, answer.StatusCode)
		return time.Now()
	}
	newSession := func(user string) string {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.replicas[0].http+"/auth/sessions", strings.NewReader(`{"userId":"`+user+`"}`))
		require.NoError(t, err)
		request.Header.Set("X-Internal-Api-Key", apiKeys.backend)
		request.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer func() { _ = answer.Body.Close() }()
		var made struct{ Cookie string }
		require.NoError(t, json.NewDecoder(answer.Body).Decode(&made))
		pair, _, _ := strings.Cut(made.Cookie, ";")
		if !strings.HasPrefix(pair, "sessionId=") {
			pair = "sessionId=" + pair
		}
		return pair
	}
	stream := func(g *gateway, cookie string) *http.Response { // closed at the end of the test
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.addr+"/streams", http.NoBody)
		require.NoError(t, err)
		request.Header.Set("Cookie", cookie)
		answer, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		t.Cleanup(func() { _ = answer.Body.Close() })
		return answer
	}
	// rest is what comes after the first tick until the stream ends.
	rest := func(answer *http.Response) (text string, ended time.Time) {
		lines := bufio.NewScanner(answer.Body)
		for lines.Scan() {
			text += lines.Text() + "\n"
		}
		return text, time.Now()
	}

	for name, end := range map[string]func(cookie, user string) time.Time{
		"logout": func(cookie, _ string) time.Time { return revoke("/auth/logout", cookie, "") },
		"administrator": func(_, user string) time.Time {
			return revoke("/auth/revoke-all-sessions", "", `{"userId":"`+user+`"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			user := "streamer-" + name
			cookie, other := newSession(user), newSession("bystander-"+name)
			mine, theirs := stream(long, cookie), stream(long, other) //nolint:bodyclose // stream sees to it
			require.Equal(t, http.StatusOK, mine.StatusCode)
			require.Equal(t, http.StatusOK, theirs.StatusCode)
			first := make([]byte, 6)
			_, err := mine.Body.Read(first)
			require.NoError(t, err)
			revoked := end(cookie, user)
			text, ended := rest(mine)
			require.Contains(t, text, "event: end\ndata: revoked: ")
			t.Logf("the stream ended %v after the call was answered", ended.Sub(revoked))
			again := stream(long, cookie) //nolint:bodyclose // stream sees to it
			require.Equal(t, http.StatusUnauthorized, again.StatusCode, "it comes back, and the gate refuses it")
			_, err = bufio.NewReader(theirs.Body).ReadString('\n')
			require.NoError(t, err)
			others := stream(long, other) //nolint:bodyclose // stream sees to it
			require.Equal(t, http.StatusOK, others.StatusCode)
		})
	}
	t.Run("a WebSocket", func(t *testing.T) {
		socket := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
			w.WriteHeader(http.StatusSwitchingProtocols)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			for err == nil { // busy, so that only max_stream_duration can end it
				_, err = conn.Write([]byte("\x81\x04tick"))
				time.Sleep(100 * time.Millisecond)
			}
		}))
		defer socket.Close()
		g := s.gateway(t, routesFirst(bounded), endpoints("order_service", socket.Listener.Addr().String()))
		handshake := func(cookie string) *http.Response {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.addr+"/streams", http.NoBody)
			require.NoError(t, err)
			for name, value := range map[string]string{
				"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Cookie": cookie,
			} {
				request.Header.Set(name, value)
			}
			answer, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			t.Cleanup(func() { _ = answer.Body.Close() })
			return answer
		}
		require.Equal(t, http.StatusUnauthorized, handshake("").StatusCode) //nolint:bodyclose // handshake sees to it
		answer := handshake(newSession("socket"))                           //nolint:bodyclose // as above
		require.Equal(t, http.StatusSwitchingProtocols, answer.StatusCode)
		text, _ := rest(answer)
		require.Contains(t, text, "tick")
	})
	t.Run("gRPC", func(t *testing.T) {
		server := grpc.NewServer()
		healthv1.RegisterHealthServer(server, health.NewServer())
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		go func() { _ = server.Serve(listener) }()
		defer server.Stop()
		route := strings.Replace(bounded, "path_separated_prefix: /streams", "path_separated_prefix: /grpc.health.v1.Health", 1)
		g := s.gateway(t, routesFirst(route), endpoints("order_service", listener.Addr().String()), inCluster("order_service", func(cluster map[string]any) {
			each(cluster, func(m map[string]any) {
				if _, there := m["explicit_http_config"]; there {
					m["explicit_http_config"] = map[string]any{"http2_protocol_options": map[string]any{}}
				}
			})
		}))
		conn, err := grpc.NewClient("passthrough:"+g.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(host))
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		watch := func(headers ...string) (first, ended error) {
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), headers...), patience)
			defer cancel()
			stream, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{})
			require.NoError(t, err)
			if _, first = stream.Recv(); first != nil {
				return first, nil
			}
			_, ended = stream.Recv()
			return nil, ended
		}
		first, _ := watch()
		require.Equal(t, codes.Unauthenticated, status.Code(first), "%v", first)
		first, ended := watch("cookie", newSession("caller"))
		require.NoError(t, first)
		require.Equal(t, codes.Internal, status.Code(ended), "%v", ended)
	})
	t.Run("the gateway's bound", func(t *testing.T) {
		cookie := newSession("bounded")
		text, _ := rest(stream(short, cookie)) //nolint:bodyclose // stream sees to it
		require.Contains(t, text, "data: ")
		require.NotContains(t, text, "event: end")
		require.Equal(t, http.StatusOK, stream(short, cookie).StatusCode) //nolint:bodyclose // stream sees to it
	})
}
