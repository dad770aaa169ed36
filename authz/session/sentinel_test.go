//go:build unix

package session_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// behind are Sentinels without replicas, and a store that finds the master by those that
// its URL names.
type behind struct {
	*redistest.Sentinels
	fixture
	id string // of a session
}

func openBehind(t *testing.T, sentinels int, named ...int) behind {
	t.Helper()
	set := redistest.StartSentinels(t, redistest.SentinelOptions{Sentinels: sentinels})
	var hosts []string
	for _, i := range named {
		hosts = append(hosts, set.Sentinels[i].Addr)
	}
	return openAt(t, set, "redis+sentinel://"+strings.Join(hosts, ",")+"/"+redistest.MasterName)
}

// openAt is for a URL. Who logs in has more patience than who looks.
func openAt(t *testing.T, set *redistest.Sentinels, url string) behind {
	t.Helper()
	b := behind{set, openStore(t, url, session.Options{Timeout: 500 * time.Millisecond}), openStore(t, url, session.Options{Timeout: patience}).login(t)}
	require.Eventually(t, func() bool { return b.read(t) == nil }, endsByItself, 20*time.Millisecond)
	return b
}

func (b behind) read(t *testing.T) error {
	t.Helper()
	_, err := b.Session(t.Context(), b.id, authz.ReadOptions{Fresh: true})
	return err
}

// works waits until it works again, and stays so for longer than one word counts. A read
// that fails has it wait anew: on a busy machine one is too late at times.
func (b behind) works(t *testing.T) {
	t.Helper()
	var err error
	since, began := time.Time{}, time.Now()
	for since.IsZero() || time.Since(since) < session.WordBound+200*time.Millisecond {
		require.Less(t, time.Since(began), endsByItself, "it doesn't go on working, at last: %v", err)
		switch failure := b.read(t); {
		case failure != nil:
			err, since = failure, time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// refuses waits until it refuses, for the reason that is wanted, and stays so.
func (b behind) refuses(t *testing.T, want ...string) {
	t.Helper()
	var err error
	require.Eventually(t, func() bool {
		err = b.read(t)
		if err == nil || authz.ReasonOf(err) == authz.ReasonOverloaded { // it lies at this process
			return false
		}
		for _, text := range want {
			if !strings.Contains(err.Error(), text) {
				return false
			}
		}
		return true
	}, endsByItself, 20*time.Millisecond, "want %q", want)
	requireReason(t, authz.ReasonStoreUnavailable, err)
	t.Log(err)
	for range 10 {
		require.Error(t, b.read(t))
	}
}

// forget has Sentinels forget all others, as one that begins anew, and find those that
// live.
func (b behind) forget(sentinels ...*redistest.Node) {
	for _, s := range sentinels {
		s.Do("sentinel", "reset", redistest.MasterName)
		s.Do("sentinel", "debug", "publish-period", 100)
	}
}

// who waits until Sentinels know of so many.
func (b behind) who(t *testing.T, all int, sentinels ...*redistest.Node) {
	t.Helper()
	for _, s := range sentinels {
		require.Eventually(t, func() bool {
			reply, err := s.Do("sentinel", "sentinels", redistest.MasterName).Slice()
			return err == nil && len(reply) == all-1
		}, endsByItself, 20*time.Millisecond)
	}
}

// The only Sentinel that the URL names is alone, and knows nobody any more: that is how
// it is on the small side of a split network, with the old master, when it has begun
// anew.
func TestTheOnlyOneThatTheURLNamesIsNotBelievedAlone(t *testing.T) {
	t.Parallel()
	b := openBehind(t, 3, 0)
	b.works(t)
	for _, s := range b.Sentinels.Sentinels { // of which it learnt
		require.Eventually(t, func() bool {
			_ = b.read(t)
			list, err := s.Client().ClientList(t.Context()).Result()
			return err == nil && strings.Contains(list, "name=gatehouse")
		}, endsByItself, 20*time.Millisecond, "who answers later than the others is heard, too")
	}
	b.Sentinels.Sentinels[1].Kill()
	b.Sentinels.Sentinels[2].Kill()
	b.forget(b.Sentinels.Sentinels[0])
	b.who(t, 1, b.Sentinels.Sentinels[0])
	b.refuses(t, "1 of 3 Sentinels say so, and more than half must", b.Sentinels.Sentinels[1].Addr+": ", b.Sentinels.Sentinels[2].Addr+": ",
		"connection refused", "SENTINEL RESET "+redistest.MasterName)
	b.Sentinels.Sentinels[2].Restart()
	b.works(t) // which it hadn't forgotten
}

// Of five Sentinels two are taken away, and of the three that are left another one: no
// restart is needed, as long as more than half of those that there were agree.
func TestSentinelsAreTakenAway(t *testing.T) {
	t.Parallel()
	b := openBehind(t, 5, 0, 1, 2, 3, 4)
	all := b.Sentinels.Sentinels
	for _, left := range []int{3, 2} {
		for _, s := range all[left:] {
			s.Kill()
		}
		b.works(t)
		b.forget(all[:left]...)
		b.who(t, left, all[:left]...)
		b.works(t)
	}
	all[1].Kill()
	b.forget(all[0])
	b.refuses(t, "1 of 2 Sentinels say so")
	// Another URL is another client, for which a reload is enough.
	f := openStore(t, "redis+sentinel://"+all[0].Addr+"/"+redistest.MasterName, session.Options{Timeout: 500 * time.Millisecond})
	require.Eventually(t, func() bool { return f.client.Ping(t.Context()).Err() == nil }, endsByItself, 20*time.Millisecond)
}

// Who is named by two names counts once.
func TestASentinelOfTwoNamesCountsOnce(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinels(t, redistest.SentinelOptions{Sentinels: 3})
	s := set.Sentinels[0]
	set.Sentinels[1].Kill()
	set.Sentinels[2].Kill()
	url := fmt.Sprintf("redis+sentinel://%s,localhost:%d/%s", s.Addr, s.Port, redistest.MasterName)
	f := openStore(t, url, session.Options{Timeout: 500 * time.Millisecond})
	says := func(client redis.UniversalClient, want string) (err error) {
		t.Helper()
		require.Eventually(t, func() bool { // before, the question may take longer than we wait
			err = client.Ping(t.Context()).Err()
			return strings.Contains(fmt.Sprint(err), want)
		}, endsByItself, 20*time.Millisecond, want)
		return err
	}
	require.Error(t, says(f.client, "1 of 3 Sentinels say so"))

	// An address alone doesn't say who it is.
	s.Do("acl", "setuser", "shy", "on", ">secret", "+@all", "-sentinel|myid")
	client, err := session.Open(url, session.OpenOptions{Timeout: 500 * time.Millisecond, SentinelUsername: "shy", SentinelPassword: "secret"})
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	err = says(client, s.Addr+": doesn't say who it is, so it can't be counted: NOPERM")
	require.NotContains(t, err.Error(), "secret")
}
