package session_test

import (
	"runtime"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// However many connections lie in the pool when the server, or what is in between, ends all
// of them: nobody is refused for it, with TLS neither.
func TestConnectionsThatHaveEndedCostNobodyAnAnswer(t *testing.T) {
	certificates := redistest.NewTLS(t)
	for name, test := range map[string]struct {
		server redistest.Options
		login  session.OpenOptions
	}{
		"plain": {},
		"TLS":   {redistest.Options{TLS: certificates}, session.OpenOptions{TLS: session.TLSOptions{CAFile: certificates.CAFile}}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "TLS" && runtime.GOOS != "linux" {
				t.Skip("skipped: here it is not known whether a connection with TLS has ended")
			}
			n := redistest.StartRedis(t, test.server)
			login := test.login
			login.Timeout, login.PoolSize = patience, 20
			client, err := session.Open(n.URL(), login)
			require.NoError(t, err)
			t.Cleanup(func() { _ = client.Close() })
			store := session.New(client, session.Options{Timeout: patience})
			for range 10 {
				var idle []*redis.Conn
				for range 8 {
					c := client.(*redis.Client).Conn()
					idle = append(idle, c)
					require.NoError(t, c.Ping(t.Context()).Err())
				}
				for _, c := range idle {
					require.NoError(t, c.Close())
				}
				require.GreaterOrEqual(t, client.PoolStats().IdleConns, uint32(8))
				n.Do("client", "kill", "type", "normal", "skipme", "yes")
				_, err := store.Session(t.Context(), "nobody", authz.ReadOptions{})
				requireReason(t, authz.ReasonSessionUnknown, err)
			}
		})
	}
}
