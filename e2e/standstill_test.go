package e2e

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A part of the machine that stands still for a second or two is no outage to these tests,
// but where they say so: who is let in is let in, later.
func TestAStandstillFoolsNoTest(t *testing.T) {
	s := start(t, options{})
	g := s.gateway(t)
	for name, signal := range map[string]func(os.Signal) error{"Redis": s.redis.Signal, "Gatehouse": s.replicas[0].Signal, "Envoy": g.Signal} {
		session := cookie(s.login(t, bob))
		require.NoError(t, signal(syscall.SIGSTOP))
		time.AfterFunc(1200*time.Millisecond, func() { _ = signal(syscall.SIGCONT) })
		r := g.get(t, "/banking/1", session)
		require.Equal(t, 200, r.status, "%s: %s", name, r.line())
	}
}
