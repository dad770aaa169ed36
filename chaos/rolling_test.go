package chaos

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// Two replicas behind Envoy are restarted, one after the other, while requests go
// on at a steady rate; and Envoy is told to reconnect every other second, too. No
// request may fail: not one 503.
func TestRollingRestart(t *testing.T) {
	begin(t, "redis-server", "envoy")
	s := newSecrets(t)
	r := proctest.StartRedis(t)
	const drains = `server: {drain: 3s, check: {max_connection_age: 2s}}`
	gates := []*gate{startGate(t, s, "redis://"+r.Addr, drains), startGate(t, s, "redis://"+r.Addr, drains)}
	gw := startGateway(t, gates...)
	all := gates[0].sessions(t, 20)
	for _, c := range all[:10] {
		all = append(all, s.token(t, c.user))
	}
	l := startLoad(t, gw, loadOptions{rate: of(300, 1000)}, all...)
	broken := now()
	for range of(1, 10) {
		for _, g := range gates {
			require.NoError(t, g.Signal(syscall.SIGTERM))
			<-g.Done()
			g.launch(t)
			gw.sees(t, g)
		}
	}
	result := l.finish(t, fmt.Sprintf("rolling restart of two replicas, %d times", of(1, 10)), broken, now())
	require.Zero(t, result.refused, "a restart in order is felt by nobody")
	results.add(t, result)
}

// One of two replicas is killed, or hangs, and comes back. Envoy asks the other one.
func TestReplicaIsLost(t *testing.T) {
	begin(t, "redis-server", "envoy")
	s := newSecrets(t)
	r := proctest.StartRedis(t)
	gates := []*gate{startGate(t, s, "redis://"+r.Addr), startGate(t, s, "redis://"+r.Addr)}
	gw := startGateway(t, gates...)
	all := gates[0].sessions(t, 20)
	for _, tc := range []struct {
		fault      string
		harm, heal func(g *gate)
	}{
		{"a replica is killed, and started again", func(g *gate) { g.Kill(); <-g.Done() }, func(g *gate) { g.launch(t) }},
		{
			"a replica hangs (SIGSTOP, SIGCONT)",
			func(g *gate) { require.NoError(t, g.Signal(syscall.SIGSTOP)) },
			func(g *gate) { require.NoError(t, g.Signal(syscall.SIGCONT)) },
		},
	} {
		l := startLoad(t, gw, loadOptions{rate: of(300, 1000)}, all...)
		broken := now()
		for range of(1, 5) {
			for _, g := range gates {
				tc.harm(g)
				l.flows(t, 100)
				tc.heal(g)
				gw.sees(t, g)
			}
		}
		results.add(t, l.finish(t, tc.fault, broken, now()))
	}
}

// peer is an HTTP/2 client that sends nothing but what keeps the connection, and
// notes when it is told that the server goes away.
type peer struct {
	conn net.Conn
	mu   sync.Mutex
	told time.Duration // of the first GOAWAY
	code http2.ErrCode
	gone time.Duration // the connection's end
}

// newPeer connects, until the test ends.
func newPeer(t *testing.T, addr string) *peer {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write([]byte(http2.ClientPreface))
	require.NoError(t, err)
	p := &peer{conn: conn}
	framer := http2.NewFramer(conn, conn)
	require.NoError(t, framer.WriteSettings())
	go p.read(framer)
	return p
}

func (p *peer) read(framer *http2.Framer) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.gone = now()
	}()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = framer.WritePing(true, frame.Data)
			}
		case *http2.GoAwayFrame:
			p.mu.Lock()
			if p.told == 0 {
				p.told, p.code = now(), frame.ErrCode
			}
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// ends waits until the connection is closed.
func (p *peer) ends(t *testing.T) (told, gone time.Duration, code http2.ErrCode) {
	t.Helper()
	await(t, "the connection stays open", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		told, gone, code = p.told, p.gone, p.code
		return gone != 0
	})
	return told, gone, code
}

// SIGTERM: not ready, for gRPC and HTTP; checks are answered all through the drain;
// GOAWAY; the check in flight is answered; the connection ends; the process ends.
func TestDrainOrder(t *testing.T) {
	begin(t, "redis-server")
	const drain = time.Second
	r := proctest.StartRedis(t)
	g := startGate(t, newSecrets(t), "redis://"+r.Addr, fmt.Sprintf("server: {drain: %v}", drain))
	c := g.session(t, "alice")
	require.Equal(t, http.StatusOK, g.ask(t.Context(), c).status)

	watch, err := healthv1.NewHealthClient(g.conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	require.NoError(t, err)
	state := func() healthv1.HealthCheckResponse_ServingStatus {
		reply, err := watch.Recv()
		require.NoError(t, err)
		return reply.GetStatus()
	}
	require.Equal(t, healthv1.HealthCheckResponse_SERVING, state())
	p := newPeer(t, g.check)

	require.NoError(t, g.Signal(syscall.SIGTERM))
	require.Equal(t, healthv1.HealthCheckResponse_NOT_SERVING, state())
	notServing := now()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.ops+"/readyz", http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)

	// New connections and old ones are served while the gateways make up their
	// minds. The last checks before GOAWAY wait for a Redis that hangs.
	inFlight := make(chan answer, 1)
	answered := 0
	for now() < notServing+drain*3/4 {
		require.Equal(t, http.StatusOK, g.ask(t.Context(), c).status)
		answered++
		time.Sleep(10 * time.Millisecond)
	}
	require.NoError(t, r.Signal(syscall.SIGSTOP))
	t.Cleanup(func() { _ = r.Signal(syscall.SIGCONT) })
	go func() { inFlight <- g.ask(context.WithoutCancel(t.Context()), c.strict()) }()
	a := <-inFlight
	inFlightAnswered := now()
	require.NoError(t, a.err, "a check in flight has its answer")
	require.Equal(t, http.StatusServiceUnavailable, a.status)

	told, gone, code := p.ends(t)
	require.NotZero(t, told, "the connection ended without GOAWAY")
	require.Equal(t, http2.ErrCodeNo, code)
	require.Greater(t, told, notServing)
	require.Greater(t, gone, told)
	require.NotZero(t, answered)
	require.GreaterOrEqual(t, told-notServing, drain*9/10, "GOAWAY comes when the drain is over, not before")
	<-g.Done()
	require.NoError(t, g.Stop(), "it ended by itself, without an error")
	results.add(t, result{
		fault: "SIGTERM under load", requests: answered + 1, refused: 1,
		note: fmt.Sprintf("NOT_SERVING, %s on GOAWAY, the check in flight answered %s after it", span(told-notServing), span(inFlightAnswered-told)),
	})
}

// Connections that were opened together are not closed together, and each in order.
func TestConnectionAgeHasJitter(t *testing.T) {
	begin(t, "redis-server")
	const age, connections = 2 * time.Second, 100
	r := proctest.StartRedis(t)
	g := startGate(t, newSecrets(t), "redis://"+r.Addr, fmt.Sprintf("server: {check: {max_connection_age: %v}}", age))
	l := startLoad(t, g, loadOptions{rate: 200}, g.sessions(t, 5)...)
	peers := make([]*peer, connections)
	for i := range peers {
		peers[i] = newPeer(t, g.check)
	}
	ages := make([]time.Duration, connections)
	opened := now()
	for i, p := range peers {
		told, _, code := p.ends(t)
		require.NotZero(t, told, "closed without GOAWAY")
		require.Equal(t, http2.ErrCodeNo, code)
		ages[i] = told - opened
	}
	spread := slices.Max(ages) - slices.Min(ages)
	require.Greater(t, spread, age/20, "all of them come back at the same moment")
	result := l.finish(t, fmt.Sprintf("%d connections reach their age of %v", connections, age), opened, 0)
	require.Zero(t, result.refused)
	result.note = "GOAWAY spread over " + span(spread)
	results.add(t, result)
}
