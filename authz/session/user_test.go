//go:build unix

package session_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/limit"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// The user of docs/redis.md does all that Gatehouse does, what is tried in silence
// included, and nothing that isn't: the suites run as that user, too.
func TestUserOfTheDocsIsRefusedNothing(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinels(t, redistest.SentinelOptions{
		Options: redistest.Options{Password: "admin"}, Replicas: 1, SentinelPassword: "sentinels", DownAfter: calm,
	})
	login := grant(t, set.Nodes...)
	grantAtSentinels(t, &login, set.Sentinels...)
	p := place{url: "redis+sentinel://" + set.Sentinels[0].Addr + "/" + redistest.MasterName, login: login}
	client := p.open(t, patience)
	clock := time.Now()
	options := session.Options{
		Profiles: true, Rolling: true, TTL: time.Hour, TouchInterval: time.Minute, Timeout: patience, ConfirmReplicas: 1,
		Now: func() time.Time { return clock }, Cache: &session.CacheOptions{},
		OnWriteError: func(err error) { t.Errorf("%v", err) },
	}
	store := session.New(client, options)
	run(t, store)
	awaitLive(t, store)

	// A renewal goes by the connection whose writes are not announced.
	master := set.Master()
	require.NoError(t, master.Client().Set(t.Context(), "sess:id", `{"userId":"u"}`, 50*time.Minute).Err())
	require.Eventually(t, func() bool {
		_, err := store.Session(t.Context(), "id", authz.ReadOptions{})
		require.NoError(t, err)
		left, err := master.Client().TTL(t.Context(), "sess:id").Result()
		require.NoError(t, err)
		return left > 59*time.Minute
	}, 20*time.Second, time.Millisecond)

	// WAIT, for all that ends something.
	require.NoError(t, store.Revoke(t.Context(), "id"))
	_, err := store.RevokeUser(t.Context(), "u") // looks through all sessions
	require.NoError(t, err)

	// Limits of requests, and of guesses at passwords.
	limiter, err := limit.New(client, map[string]limit.Limit{"l": {By: limit.User, Requests: 1, Per: time.Hour}}, limit.Options{Timeout: patience})
	require.NoError(t, err)
	quota, err := limiter.Allow(t.Context(), "l", &authz.Request{}, &authz.Principal{Identity: authz.Identity{ID: "u"}})
	require.NoError(t, err)
	require.Equal(t, "l", quota.Limit)
	guesses := limit.NewGuesses(client, limit.GuessOptions{Timeout: patience})
	_, err = guesses.Attempt(t.Context(), "u", "127.0.0.1")
	require.NoError(t, err)
	require.NoError(t, guesses.Succeeded(t.Context(), "u", "127.0.0.1"))

	for _, n := range append(set.Nodes, set.Sentinels...) {
		refused, err := n.Do("acl", "log").Slice()
		require.NoError(t, err)
		require.Empty(t, refused, n.Addr)
	}

	// And no more.
	for _, command := range [][]any{
		{"get", "other"},
		{"set", "other", "x"},
		{"flushall"},
		{"keys", "*"},
		{"config", "get", "*"},
		{"acl", "list"},
		{"client", "list"},
		{"subscribe", "other"},
		{"shutdown"},
		{"replicaof", "no", "one"},
		{"monitor"},
		{"script", "flush"},
		{"publish", "__redis__:invalidate", "x"},
	} {
		err := client.Do(t.Context(), command...).Err()
		require.True(t, redis.HasErrorPrefix(err, "NOPERM"), "%v: %v", command, err)
	}
	set.Master().Do("acl", "log", "reset") // else the end of the test would find these
}
