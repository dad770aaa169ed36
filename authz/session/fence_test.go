//go:build unix

package session_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// Nothing is asked of a master that more than half of the Sentinels don't vouch
// for, though it answers: there may be another one by now.
func TestAMasterNeedsTheWordOfTheSentinels(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinels(t, redistest.SentinelOptions{Sentinels: 3})
	b := openAt(t, set, set.URL())
	read := func() error { return b.read(t) }
	set.Sentinels[0].Freeze()
	time.Sleep(session.WordBound + 100*time.Millisecond) // what they said before
	require.Eventually(t, func() bool { return read() == nil }, endsByItself, 20*time.Millisecond, "two of three are enough")
	set.Sentinels[1].Freeze()
	var err error
	require.Eventually(t, func() bool {
		err = inTime(t, read)
		return err != nil
	}, endsByItself, 20*time.Millisecond, "one of three is not")
	requireReason(t, authz.ReasonStoreUnavailable, err)
	require.NoError(t, set.Nodes[0].Client().Ping(t.Context()).Err(), "the master could answer")
	for range 3 {
		requireReason(t, authz.ReasonStoreUnavailable, inTime(t, read))
	}
	requireReason(t, authz.ReasonStoreUnavailable, inTime(t, func() error { return b.Revoke(t.Context(), b.id) }))
	set.Sentinels[0].Thaw()
	require.Eventually(t, func() bool { return read() == nil }, endsByItself, 20*time.Millisecond)
}

// Who names one of three knows the others from it, and can do without it.
func TestTheSentinelOfTheURLMayGo(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinels(t, redistest.SentinelOptions{Sentinels: 3})
	b := openAt(t, set, "redis+sentinel://"+set.Sentinels[0].Addr+"/"+redistest.MasterName)
	set.Sentinels[0].Kill()
	time.Sleep(session.WordBound + 100*time.Millisecond) // what it said
	b.works(t)
}

// A new process doesn't wait for a Sentinel that hangs: the command line has two seconds
// for all.
func TestNobodyWaitsForASentinelThatHangs(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinels(t, redistest.SentinelOptions{Sentinels: 3})
	set.Sentinels[1].Freeze()
	ask := func() error {
		client, err := session.Open(set.URL(), session.OpenOptions{Timeout: 30 * time.Second})
		require.NoError(t, err)
		defer func() { _ = client.Close() }()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return client.Ping(ctx).Err()
	}
	err := ask()
	for range 5 { // who waits for it has never time enough; on a busy machine others have not, once
		if err != nil {
			err = ask()
		}
	}
	require.NoError(t, err)
}

// Right after a failover those that answer don't agree for a moment. Who waited for
// one that hangs until it was over would be told of it seconds later.
func TestNobodyWaitsForASentinelThatHangsWhileOthersDisagree(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinels(t, redistest.SentinelOptions{Sentinels: 3})
	other := redistest.StartRedis(t, redistest.Options{})
	client, err := session.Open(set.URL(), session.OpenOptions{Timeout: 30 * time.Second})
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	require.NoError(t, client.Ping(t.Context()).Err())
	ping := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return client.Ping(ctx).Err()
	}

	set.Sentinels[1].Freeze()
	s := set.Sentinels[2]
	s.Do("sentinel", "remove", redistest.MasterName)
	s.Do("sentinel", "monitor", redistest.MasterName, "127.0.0.1", other.Port, 2)
	// The frozen one is awaited once. A question of three seconds tells only one of three
	// that wait for a second each.
	told := 0
	require.Eventually(t, func() bool {
		err = ping()
		if told++; err == nil || errors.Is(err, context.DeadlineExceeded) {
			told = 0
		}
		return told == 3
	}, endsByItself, 20*time.Millisecond)
	require.ErrorContains(t, err, "Sentinels say so")
}

// The Sentinels are asked as the client asks them: with their password, by TLS,
// and with a certificate.
func TestSentinelsAreAskedWithTheirPassword(t *testing.T) {
	t.Parallel()
	tls := redistest.NewTLS(t)
	set := redistest.StartSentinels(t, redistest.SentinelOptions{
		Replicas: 1, Sentinels: 3, SentinelPassword: "of-the-sentinels",
		Options: redistest.Options{Password: "of-redis", TLS: tls, ClientCertificates: true},
	})
	client, err := session.Open(set.URL(), session.OpenOptions{
		Timeout: time.Second, SentinelPassword: "of-the-sentinels",
		TLS: session.TLSOptions{CAFile: tls.CAFile, CertFile: tls.ClientCertFile, KeyFile: tls.ClientKeyFile},
	})
	require.NoError(t, err)
	store := session.New(client, session.Options{Timeout: time.Second})
	var id string
	require.Eventually(t, func() bool {
		id, err = store.Create(t.Context(), authz.Login{Identity: authz.Identity{ID: "u"}})
		return err == nil
	}, endsByItself, 20*time.Millisecond)
	set.Failover()
	require.Eventually(t, func() bool {
		_, err := store.Session(t.Context(), id, authz.ReadOptions{})
		return err == nil
	}, endsByItself, 20*time.Millisecond)

	// What was opened for that ends with the client.
	require.Positive(t, connections(t, set))
	require.NoError(t, client.Close())
	require.Eventually(t, func() bool { return connections(t, set) == 0 }, endsByItself, 20*time.Millisecond)
}

// connections counts those of Gatehouse to the Sentinels.
func connections(t *testing.T, set *redistest.Sentinels) (n int) {
	t.Helper()
	for _, s := range set.Sentinels {
		list, err := s.Client().ClientList(t.Context()).Result()
		require.NoError(t, err)
		n += strings.Count(list, "name=gatehouse")
	}
	return n
}
