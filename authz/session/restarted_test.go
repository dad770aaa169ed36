package session_test

import (
	"runtime"
	"testing"
	"time"

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
		server    redistest.Options
		login     session.OpenOptions
		sentinels bool
	}{
		"plain":                {},
		"TLS":                  {redistest.Options{TLS: certificates}, session.OpenOptions{TLS: session.TLSOptions{CAFile: certificates.CAFile}}, false},
		"behind Sentinels":     {sentinels: true},
		"TLS behind Sentinels": {redistest.Options{TLS: certificates}, session.OpenOptions{TLS: session.TLSOptions{CAFile: certificates.CAFile}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if test.server.TLS != nil && runtime.GOOS != "linux" {
				t.Skip("skipped: here it is not known whether a connection with TLS has ended")
			}
			var n *redistest.Node
			var url string
			if test.sentinels {
				set := redistest.StartSentinels(t, redistest.SentinelOptions{Options: test.server, DownAfter: time.Minute})
				n, url = set.Nodes[0], set.URL()
			} else {
				n = redistest.StartRedis(t, test.server)
				url = n.URL()
			}
			login := test.login
			login.Timeout, login.PoolSize = patience, 20
			client, err := session.Open(url, login)
			require.NoError(t, err)
			t.Cleanup(func() { _ = client.Close() })
			store := session.New(client, session.Options{Timeout: patience})
			master, ok := client.(*redis.Client)
			if !ok {
				master = client.(interface{ Inner() *redis.Client }).Inner()
			}
			for range 10 {
				var idle []*redis.Conn
				for range 8 {
					c := master.Conn()
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
