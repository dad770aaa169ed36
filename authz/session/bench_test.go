package session_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// One read of a session, one of many callers, from the two usual stores. What
// a Check without a cache costs at least.
func BenchmarkSession(b *testing.B) {
	for _, kind := range twoBackends {
		b.Run(kind.name, func(b *testing.B) {
			url := kind.start(b).url
			client, err := session.Open(url, session.OpenOptions{Timeout: patience, Logger: quiet})
			require.NoError(b, err)
			defer func() { _ = client.Close() }()
			store := session.New(client, session.Options{Rolling: true, Profiles: true, Timeout: patience})
			ids := make([]string, 100)
			for i := range ids {
				ids[i], err = store.Create(b.Context(), session.NewSession{
					Identity: authz.Identity{ID: fmt.Sprint("user-", i), Email: "user@example.com", Roles: []string{"a", "b"}, Organization: "org-1"},
					AuthTime: time.Now(),
				})
				require.NoError(b, err)
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := store.Session(b.Context(), ids[i%len(ids)], authz.ReadOptions{}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// Looking through the records of other users, which is what the end of all that
// a user has takes its time for.
func BenchmarkSweep(b *testing.B) {
	const records = 100_000
	url := startRedis(b).url
	client, err := session.Open(url, session.OpenOptions{Timeout: patience, Logger: quiet})
	require.NoError(b, err)
	defer func() { _ = client.Close() }()
	for i := 0; i < records; {
		pipe := client.Pipeline()
		for range 1000 {
			pipe.Set(b.Context(), fmt.Sprint("sess:", i), fmt.Sprintf(
				`{"cookie":{"originalMaxAge":86400000,"expires":"2027-01-01T00:00:00.000Z","secure":true,"httpOnly":true,"path":"/"},"userId":"user-%d","email":"user-%d@example.com","roles":["a","b"],"organizationId":"org-1"}`, i, i), time.Hour)
			i++
		}
		_, err := pipe.Exec(b.Context())
		require.NoError(b, err)
	}
	store := session.New(client, session.Options{Timeout: patience})
	for b.Loop() {
		_, err := store.UserSessions(b.Context(), "nobody", true)
		require.NoError(b, err)
	}
	b.ReportMetric(records*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
