package envoy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gatehouse-auth/gatehouse/envoy"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// The ports of the shipped file.
const (
	portGateway = 8080
	portAdmin   = 9901
	portCheck   = 9001
	portAuthAPI = 8081
	portUsers   = 8101
	portOrders  = 8102
	portDemo    = 8103
)

// patience bounds every wait in these tests.
const patience = 30 * time.Second

// check is what a stand-in for Gatehouse answers.
type check func(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error)

// gatehouse stands in for the check listener: it answers as the test says and
// remembers what it was asked.
type gatehouse struct {
	authv3.UnimplementedAuthorizationServer
	mu     sync.Mutex
	answer check
	asked  []*authv3.CheckRequest
}

func (g *gatehouse) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	g.mu.Lock()
	g.asked = append(g.asked, req)
	answer := g.answer
	g.mu.Unlock()
	return answer(ctx, req)
}

// answers replaces the answer and forgets what was asked.
func (g *gatehouse) answers(c check) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer, g.asked = c, nil
}

func (g *gatehouse) requests() []*authv3.CheckRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked
}

// serve runs a check listener on a port until the test, or stop, ends it.
func (g *gatehouse) serve(t *testing.T, port int, options ...grpc.ServerOption) (stop func()) {
	t.Helper()
	server, done := g.listen(t, port, options...)
	stop = func() {
		server.Stop()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// listen starts a check listener; done is closed when it has ended.
func (g *gatehouse) listen(t *testing.T, port int, options ...grpc.ServerOption) (server *grpc.Server, done chan struct{}) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", proc.Local(port))
	require.NoError(t, err)
	return g.listenOn(t, listener, options...)
}

func (g *gatehouse) listenOn(t *testing.T, listener net.Listener, options ...grpc.ServerOption) (server *grpc.Server, done chan struct{}) {
	t.Helper()
	server = grpc.NewServer(options...)
	authv3.RegisterAuthorizationServer(server, g)
	healthv1.RegisterHealthServer(server, health.NewServer())
	done = make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(server.Stop)
	return server, done
}

// seen is what a service received.
type seen struct {
	Service string
	Method  string
	Path    string // with the query
	Host    string
	Header  http.Header
	Trailer http.Header
}

// service echoes what it received.
func service(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("content-type", "application/json")
		w.Header().Set("x-powered-by", "Express")
		_ = json.NewEncoder(w).Encode(seen{name, r.Method, r.RequestURI, r.Host, r.Header, r.Trailer})
	})
}

// gateway is a real Envoy with a shipped configuration, on free ports, with
// stand-ins around it.
type gateway struct {
	*gatehouse
	envoy     *proc.Envoy
	addr      string
	ports     map[int]int // shipped port → port in this test
	services  map[int]*httptest.Server
	stopCheck func()
}

// edit changes a configuration before Envoy gets it, to take one defence away
// and see whether the next one holds.
type edit func(t *testing.T, config string) string

// replace is an edit of text that must be there.
func replace(old, text string) edit {
	return func(t *testing.T, config string) string {
		t.Helper()
		require.Contains(t, config, old, "the shipped file has changed: adapt the test")
		return strings.ReplaceAll(config, old, text)
	}
}

// cut is an edit that takes out everything from one text up to another.
func cut(from, upTo string) edit {
	return func(t *testing.T, config string) string {
		t.Helper()
		before, rest, found := strings.Cut(config, from)
		require.True(t, found, "the shipped file has changed: no %q", from)
		_, after, found := strings.Cut(rest, upTo)
		require.True(t, found, "the shipped file has changed: no %q", upTo)
		return before + upTo + after
	}
}

// waits is an edit that has Envoy wait for its checks for longer than a second: a machine
// that stands still for so long is no outage.
func waits(t *testing.T, config string) string {
	t.Helper()
	for old, text := range map[string]string{
		"\n                timeout: 1s\n": "\n                timeout: 20s\n",
		"max_interval: 0.5s}":             "max_interval: 20s}", "connect_timeout: 0.25s": "connect_timeout: 5s",
	} {
		config = replace(old, text)(t, config)
	}
	return config
}

func startGateway(t *testing.T, edits ...edit) *gateway {
	t.Helper()
	return startHurriedGateway(t, append([]edit{waits}, edits...)...)
}

// startHurriedGateway is startGateway for one that waits no longer than the shipped file says.
func startHurriedGateway(t *testing.T, edits ...edit) *gateway {
	t.Helper()
	g := newGateway(t, portGateway, portAdmin, portCheck, portAuthAPI, portUsers, portOrders, portDemo)
	g.stopCheck = g.serve(t, g.ports[portCheck])
	g.start(t, envoy.Config, edits...)
	return g
}

// newGateway runs the services around a gateway; the first port is the
// gateway's own.
func newGateway(t *testing.T, shipped ...int) *gateway {
	t.Helper()
	proctest.Need(t, "envoy")
	g := &gateway{
		gatehouse: &gatehouse{answer: allow},
		ports:     map[int]int{},
		services:  map[int]*httptest.Server{},
	}
	for i, port := range proctest.FreePorts(t, len(shipped)) {
		g.ports[shipped[i]] = port
	}
	g.addr = proc.Local(g.ports[shipped[0]])
	for port, name := range map[int]string{portAuthAPI: "gatehouse_http", portUsers: "users", portOrders: "orders", portDemo: "demo"} {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", proc.Local(g.ports[port]))
		require.NoError(t, err)
		server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: service(name), ReadHeaderTimeout: time.Minute}}
		server.Start()
		t.Cleanup(server.Close)
		g.services[port] = server
	}
	return g
}

// start runs Envoy with an edited configuration on this test's ports.
func (g *gateway) start(t *testing.T, config string, edits ...edit) {
	t.Helper()
	for _, e := range edits {
		config = e(t, config)
	}
	rewritten, err := proc.RewritePorts([]byte(config), g.ports)
	require.NoError(t, err)
	g.envoy = proctest.StartEnvoy(t, rewritten, proc.EnvoyOptions{})
}

// reply is what the client got.
type reply struct {
	status int
	header http.Header
	body   string
	seen   *seen // what the service received; nil when it received nothing
}

// send writes a request byte for byte, so that a test can say what no client
// library would, and reads the answer. Lines end in \n here, \r\n there; Host
// and Connection are added.
func (g *gateway) send(t *testing.T, request string) reply {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", g.addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	head, body, _ := strings.Cut(request, "\n\n")
	if !strings.Contains(strings.ToLower(head), "\nhost:") {
		head += "\nHost: gateway.example.com"
	}
	if !strings.Contains(strings.ToLower(head), "\nconnection:") {
		head += "\nConnection: close"
	}
	_, err = io.WriteString(conn, strings.ReplaceAll(head+"\n\n", "\n", "\r\n")+body)
	require.NoError(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	return read(t, response)
}

// is says exactly what the client must have got.
func (r reply) is(t *testing.T, status int, body string) {
	t.Helper()
	require.Equal(t, status, r.status, r.body)
	require.Equal(t, body, r.body)
}

func (g *gateway) get(t *testing.T, path string, headers ...string) reply {
	t.Helper()
	return g.send(t, strings.Join(append([]string{"GET " + path + " HTTP/1.1"}, headers...), "\n"))
}

func read(t *testing.T, response *http.Response) reply {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	r := reply{status: response.StatusCode, header: response.Header, body: string(body)}
	if strings.HasPrefix(r.body, `{"Service":`) {
		r.seen = new(seen)
		require.NoError(t, json.Unmarshal(body, r.seen))
	}
	return r
}

// The answers of a stand-in.

func allow(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return allowWith(&authv3.OkHttpResponse{})(ctx, req)
}

func allowWith(ok *authv3.OkHttpResponse) check {
	return func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{
			Status:       &rpcstatus.Status{Code: int32(codes.OK)},
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
		}, nil
	}
}

func set(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

func deny(code codes.Code, status int, body string, headers ...*corev3.HeaderValueOption) check {
	return func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{
			Status: &rpcstatus.Status{Code: int32(code)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status:  &typev3.HttpStatus{Code: typev3.StatusCode(status)},
				Body:    body,
				Headers: append([]*corev3.HeaderValueOption{set("content-type", "application/json")}, headers...),
			}},
		}, nil
	}
}

// headersOf returns a check's headers in Envoy's raw form, in their order.
func headersOf(req *authv3.CheckRequest) []string {
	var headers []string
	for _, h := range req.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		headers = append(headers, fmt.Sprintf("%s: %s%s", h.GetKey(), h.GetValue(), h.GetRawValue()))
	}
	return headers
}
