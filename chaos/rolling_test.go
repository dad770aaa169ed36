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

	"github.com/gatehouse-auth/gatehouse/envoy"
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
	start := func() *gate { return startGate(t, s, "redis://"+r.Addr, drains, of(patientConfig, "")) }
	gates := []*gate{start(), start()}
	// In the short form a machine that stands still for a second doesn't count.
	gw := startGatewayOf(t, of(patientEnvoy(t), envoy.Config), gates...)
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
	opened time.Duration // before it could be

	mu   sync.Mutex
	told time.Duration // of the first GOAWAY
	code http2.ErrCode
	gone time.Duration // the connection's end
}

// newPeer connects, until the test ends.
func newPeer(t *testing.T, addr string) *peer {
	t.Helper()
	p := &peer{opened: now()}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write([]byte(http2.ClientPreface))
	require.NoError(t, err)
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

// goesAway waits for GOAWAY.
func (p *peer) goesAway(t *testing.T) (told time.Duration, code http2.ErrCode) {
	t.Helper()
	await(t, "there is no GOAWAY", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		told, code = p.told, p.code
		require.True(t, told != 0 || p.gone == 0, "the connection ended without GOAWAY")
		return told != 0
	})
	return told, code
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

// SIGTERM under load: not ready, for gRPC and HTTP; checks on old connections and new
// ones are answered in the drain; GOAWAY, and no new connections; what is in
// flight is answered, a login as well, though somebody watches the health; the
// connections end; the process ends.
func TestDrainOrder(t *testing.T) {
	begin(t, "redis-server")
	for drain := 2 * time.Second; drain <= 16*time.Second; drain *= 2 {
		if r, inTime := drainsInOrder(t, drain); inTime {
			results.add(t, r)
			return
		}
	}
	require.Fail(t, "this machine is too slow to try it")
}

// drainsInOrder is that with a drain, which must be long enough for what is to be done
// within it: else it was too late to try.
func drainsInOrder(t *testing.T, drain time.Duration) (r result, inTime bool) {
	t.Helper()
	server := proctest.StartRedis(t)
	g := startGate(t, newSecrets(t), "redis://"+server.Addr, fmt.Sprintf("{server: {drain: %v}, redis: {timeout: 10s}}", drain))
	c := g.session(t, "alice")
	l := startLoad(t, g, loadOptions{rate: 300}, c, c.strict(), g.session(t, "bob"))

	watch, err := healthv1.NewHealthClient(g.conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	require.NoError(t, err)
	state := func() healthv1.HealthCheckResponse_ServingStatus {
		reply, err := watch.Recv()
		require.NoError(t, err)
		return reply.GetStatus()
	}
	require.Equal(t, healthv1.HealthCheckResponse_SERVING, state())
	p := newPeer(t, g.check)

	signalled := now()
	require.NoError(t, g.Signal(syscall.SIGTERM))
	require.Equal(t, healthv1.HealthCheckResponse_NOT_SERVING, state())
	notServing := now()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.ops+"/readyz", http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)

	// The gateways make up their minds, which takes half of the drain.
	answered := 0
	for late := g.again(t); now() < signalled+drain/2; answered++ {
		if a := late.ask(t.Context(), c); now() < signalled+drain {
			require.Equal(t, answer{status: http.StatusOK, user: c.user}, a, "by a new connection, in the drain")
		}
	}
	l.end()
	for _, check := range l.since(signalled) {
		if check.sent+check.took < signalled+drain {
			require.Equal(t, right, check.verdict, "checks are answered in the drain: %v", l.samples)
			answered++
		}
	}

	// A check and a login are in flight as long as Redis hangs: until there is GOAWAY,
	// and nobody can connect any more.
	require.NoError(t, server.Signal(syscall.SIGSTOP))
	t.Cleanup(func() { _ = server.Signal(syscall.SIGCONT) })
	type ending struct {
		status int
		err    error
		at     time.Duration
	}
	check, login := make(chan ending, 1), make(chan ending, 1)
	go func() {
		a := g.ask(context.WithoutCancel(t.Context()), c.strict())
		check <- ending{a.status, a.err, now()}
	}()
	go func() {
		_, status, err := g.login(context.WithoutCancel(t.Context()), "carol")
		login <- ending{status, err, now()}
	}()
	if now() > signalled+drain*3/4 {
		return result{}, false
	}
	told, code := p.goesAway(t)
	require.Equal(t, http2.ErrCodeNo, code)
	require.GreaterOrEqual(t, told-signalled, drain, "GOAWAY comes when the drain is over, not before")
	for _, addr := range []string{g.check, g.http} {
		await(t, "somebody listens yet", func() bool {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		})
	}
	mended := now()
	require.NoError(t, server.Signal(syscall.SIGCONT))
	for name, one := range map[string]struct {
		came   chan ending
		status int
	}{"check": {check, http.StatusOK}, "login": {login, http.StatusCreated}} {
		got := <-one.came
		require.NoError(t, got.err, "a %s in flight has its answer", name)
		require.Equal(t, one.status, got.status, name)
		require.Greater(t, got.at, mended, "the %s was in flight", name)
		answered++
	}
	_, gone, _ := p.ends(t)
	require.Greater(t, gone, told)
	<-g.Done()
	require.NoError(t, g.Stop(), "it ended by itself, without an error")
	return result{
		fault: "SIGTERM under load", requests: answered,
		note: fmt.Sprintf("NOT_SERVING, %s on GOAWAY and no new connections, then a check and a login in flight answered, the end %s after that", span(told-notServing), span(now()-mended)),
	}, true
}

// Connections that were opened together are not closed together: some are before
// their age and some after it. And each in order.
func TestConnectionAgeHasJitter(t *testing.T) {
	begin(t, "redis-server")
	const age, connections = 2 * time.Second, 100
	r := proctest.StartRedis(t)
	g := startGate(t, newSecrets(t), "redis://"+r.Addr, fmt.Sprintf("server: {check: {max_connection_age: %v}}", age), patientConfig)
	l := startLoad(t, g, loadOptions{rate: 200}, g.sessions(t, 5)...)
	began := now()
	peers := make([]*peer, connections)
	var least, most time.Duration
	for tries := 0; ; tries++ {
		for i := range peers {
			peers[i] = newPeer(t, g.check)
		}
		ages := make([]time.Duration, connections)
		for i, p := range peers {
			told, _, code := p.ends(t)
			require.NotZero(t, told, "closed without GOAWAY")
			require.Equal(t, http2.ErrCodeNo, code)
			ages[i] = told - p.opened
		}
		least, most = slices.Min(ages), slices.Max(ages)
		if least < age { // without jitter none can; but all may, where it is read late
			break
		}
		require.Less(t, tries, 5, "none comes back before its age")
	}
	require.Greater(t, most, age)
	result := l.finish(t, fmt.Sprintf("%d connections reach their age of %v", connections, age), began, 0)
	require.Zero(t, result.refused)
	result.note = fmt.Sprintf("GOAWAY after %s to %s", span(least), span(most))
	results.add(t, result)
}
