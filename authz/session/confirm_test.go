package session_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authztest"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// confirming waits for a replica, and not for long.
var confirming = session.Options{Profiles: true, ConfirmReplicas: 1, Timeout: 700 * time.Millisecond}

// openStore is a store on a server of a test's own.
func openStore(t *testing.T, url string, o session.Options) fixture {
	t.Helper()
	client, err := session.Open(url, session.OpenOptions{Timeout: o.Timeout})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	f := fixture{clock: authztest.NewClock(), client: client, writes: &writeErrors{}}
	o.Now, o.OnWriteError = f.clock.Now, f.writes.add
	f.Store = session.New(client, o)
	return f
}

// openConfirming is a store that waits for replicas, and not for long. What is prepared and
// looked at goes by another one, of the same clock, that has time for a busy machine.
func openConfirming(t *testing.T, url string, o session.Options) (f, patient fixture) {
	t.Helper()
	f = openStore(t, url, o)
	o.Timeout = patience
	patient = openStore(t, url, o)
	patient.clock, patient.writes, f.client = f.clock, f.writes, patient.client
	o.Now, o.OnWriteError = f.clock.Now, f.writes.add
	patient.Store = session.New(patient.client, o)
	return f, patient
}

// replica runs a replica of a server, and returns when it has all of it.
func replica(t *testing.T, master *proc.Redis) (*proc.Redis, *redis.Client) {
	t.Helper()
	quickly(t, master.Addr)
	r := proctest.StartRedis(t, "--replicaof", "127.0.0.1 "+fmt.Sprint(master.Port))
	t.Cleanup(func() { _ = r.Signal(syscall.SIGCONT) }) // or it can't end
	client := redis.NewClient(&redis.Options{Addr: r.Addr, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	synchronized(t, master.Addr)
	return r, client
}

// quickly has a master not wait for more replicas before it sends its data.
func quickly(t *testing.T, addr string) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, DisableIdentity: true})
	defer func() { _ = client.Close() }()
	require.NoError(t, client.ConfigSet(t.Context(), "repl-diskless-sync-delay", "0").Err())
}

// synchronized returns when a master counts its replica among those that can
// confirm.
func synchronized(t *testing.T, master string) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: master, Protocol: 2, DisableIdentity: true})
	defer func() { _ = client.Close() }()
	require.Eventually(t, func() bool {
		info, err := client.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "state=online")
	}, 30*time.Second, 10*time.Millisecond)
}

// revocations are all calls that wait for replicas. Each one can be made again
// and again; mark is a key that it leaves.
func revocations(f fixture) map[string]func(ctx context.Context) (mark string, err error) {
	until := f.clock.Now().Add(time.Hour)
	yes := true
	return map[string]func(ctx context.Context) (string, error){
		"Revoke": func(ctx context.Context) (string, error) {
			return "gatehouse:dead:{sess:a}", f.Revoke(ctx, "a")
		},
		"RevokeToken": func(ctx context.Context) (string, error) {
			return "revoked:j", f.RevokeToken(ctx, "j", until)
		},
		"RevokeFamily": func(ctx context.Context) (string, error) {
			return "gatehouse:dead:{refresh:f}", f.RevokeFamily(ctx, "f", until)
		},
		"RevokeUserBefore": func(ctx context.Context) (string, error) {
			return "gatehouse:before:{user:before}", f.RevokeUserBefore(ctx, "before", f.clock.Now())
		},
		"RevokeUser": func(ctx context.Context) (string, error) {
			_, err := f.RevokeUser(ctx, "w")
			return "gatehouse:dead:{sess:w}", err
		},
		"RevokeHandle": func(ctx context.Context) (string, error) {
			_, err := f.RevokeHandle(ctx, "handled", authz.Handle("h"))
			return "gatehouse:dead:{sess:h}", err
		},
		"End": func(ctx context.Context) (string, error) {
			return "gatehouse:dead:{sess:e}", f.End(ctx, authz.Ending{SessionID: "e", Family: "ef", TokenID: "ej", TokenUntil: until})
		},
		"EndProviderLogin": func(ctx context.Context) (string, error) {
			_, err := f.EndProviderLogin(ctx, authz.ProviderLogin{Issuer: "i", Subject: "s"}, "once", until)
			return "", err
		},
		"ChangeUser": func(ctx context.Context) (string, error) {
			_, err := f.ChangeUser(ctx, "locked", authz.UserChange{Disabled: &yes})
			return "user:locked", err
		},
		"ChangeUser in sessions as well": func(ctx context.Context) (string, error) {
			_, err := f.ChangeUser(ctx, "changed", authz.UserChange{Disabled: &yes, Roles: &[]string{}})
			return "user:changed", err
		},
	}
}

// acknowledged makes a call until it is confirmed, as a caller would: a busy
// machine may not confirm in time.
func acknowledged(t *testing.T, name string, call func(ctx context.Context) (mark string, err error)) (mark string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		mark, err := call(t.Context())
		if err == nil {
			return mark
		}
		require.Contains(t, append([]authz.Reason{authz.ReasonNotConfirmed}, noAnswer...), authz.ReasonOf(err), "%s: %v", name, err)
		require.True(t, time.Now().Before(deadline), "%s is never confirmed", name)
	}
}

// answered makes a call until there is an answer, be it that it isn't confirmed: in the time
// that stores have here a busy machine may give none.
func answered(t *testing.T, call func(ctx context.Context) (mark string, err error)) (mark string, err error) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		mark, err = call(t.Context())
		if !slices.Contains(noAnswer, authz.ReasonOf(err)) {
			return mark, err
		}
		require.True(t, time.Now().Before(end), "%v", err)
	}
}

// endsByItself is more than any call takes that gives up in time.
const endsByItself = 20 * time.Second

// prepareRevocations makes what they end, with a store that does not wait.
func prepareRevocations(t *testing.T, f fixture) {
	t.Helper()
	for id, userID := range map[string]string{"a": "u", "w": "w", "h": "handled", "e": "u", "l": "locked", "c": "changed"} {
		f.foreign(t, id, userID)
		f.session(t, id)
	}
	f.login(t, func(l *authz.Login) { l.Provider = authz.ProviderLogin{Issuer: "i", Subject: "s"} })
}

func TestRevocationsWaitForReplicas(t *testing.T) {
	t.Parallel()
	master := proctest.StartRedis(t)
	replica, onReplica := replica(t, master)
	f, patient := openConfirming(t, "redis://"+master.Addr, confirming)
	prepareRevocations(t, patient)

	proctest.Freeze(t, replica.Process)
	for name, revoke := range revocations(f) {
		for range 2 { // once more finds its work done, and must not take that for confirmed
			start := time.Now()
			mark, err := answered(t, revoke)
			requireReason(t, authz.ReasonNotConfirmed, err)
			require.Less(t, time.Since(start), endsByItself, name)
			require.True(t, mark == "" || f.exists(t, mark), "%s is made all the same", name)
		}
	}
	var family string
	_, err := answered(t, func(ctx context.Context) (string, error) {
		family += "reused" // each time another one
		c := newChain(family)
		require.NoError(t, patient.CreateFamily(ctx, authz.Family{ID: family, UserID: "u", Hash: c.token(0).Hash}), "which is no revocation")
		patient.rotate(t, c, 0) //nolint:contextcheck // has the test's own
		f.clock.Advance(time.Minute)
		_, err := f.RotateFamily(ctx, c.token(0), c.token(1).Hash)
		return "", err
	})
	requireReason(t, authz.ReasonNotConfirmed, err)
	require.ErrorIs(t, err, authz.ErrRefreshReused, "the theft is not lost")
	patient.familyGone(t, family)
	patient.login(t)
	_, err = patient.ChangeUser(t.Context(), "u", authz.UserChange{Roles: &[]string{"r"}})
	require.NoError(t, err, "which is no revocation")

	require.NoError(t, replica.Signal(syscall.SIGCONT))
	synchronized(t, master.Addr)
	for name, revoke := range revocations(f) {
		mark := acknowledged(t, name, revoke)
		if mark != "" {
			n, err := onReplica.Exists(t.Context(), mark).Result()
			require.NoError(t, err)
			require.EqualValues(t, 1, n, "%s is acknowledged: the replica has it", name)
		}
	}
	patient.session(t, patient.login(t))
	require.NotEmpty(t, f.allKeys(t, "gatehouse:confirm:*"))
	for _, key := range f.allKeys(t, "gatehouse:confirm:*") {
		about(t, time.Minute, f.ttl(t, key))
	}

	// The master dies right behind the acknowledgement.
	f.foreign(t, "last", "u")
	acknowledged(t, "last", func(ctx context.Context) (string, error) { return "", f.Revoke(ctx, "last") })
	master.Kill()
	n, err := onReplica.Exists(t.Context(), "gatehouse:dead:{sess:last}").Result()
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

func TestRevocationsWithoutAReplicaAreNotConfirmed(t *testing.T) {
	t.Parallel()
	f, patient := openConfirming(t, "redis://"+proctest.StartRedis(t).Addr, session.Options{Profiles: true, ConfirmReplicas: 2, Timeout: confirming.Timeout})
	prepareRevocations(t, patient)
	for name, revoke := range revocations(f) {
		mark, err := answered(t, revoke)
		requireReason(t, authz.ReasonNotConfirmed, err)
		require.True(t, mark == "" || f.exists(t, mark), name)
		require.Contains(t, err.Error(), "fewer than 2 replicas")
	}
	for _, id := range []string{"a", "w", "h", "e"} {
		patient.gone(t, id)
	}
}

// One replica of two is not enough, however quickly it confirms.
func TestOneReplicaOfTwoDoesNotConfirm(t *testing.T) {
	t.Parallel()
	master := proctest.StartRedis(t)
	_, first := replica(t, master)
	both := confirming
	both.ConfirmReplicas = 2
	f, patient := openConfirming(t, "redis://"+master.Addr, both)
	prepareRevocations(t, patient)
	for name, revoke := range revocations(f) {
		mark, err := answered(t, revoke)
		requireReason(t, authz.ReasonNotConfirmed, err)
		require.True(t, mark == "" || f.exists(t, mark), name)
	}
	_, second := replica(t, master)
	for name, revoke := range revocations(f) {
		mark := acknowledged(t, name, revoke)
		for _, on := range []*redis.Client{first, second} {
			n, err := on.Exists(t.Context(), mark).Result()
			require.NoError(t, err)
			require.True(t, mark == "" || n == 1, "%s is acknowledged: both have it", name)
		}
	}
}

// A server that hangs is an outage, not a doubt, and takes no longer than
// three times the timeout.
func TestRevocationAtAMasterThatHangs(t *testing.T) {
	t.Parallel()
	master := proctest.StartRedis(t)
	t.Cleanup(func() { _ = master.Signal(syscall.SIGCONT) })
	f, patient := openConfirming(t, "redis://"+master.Addr, confirming)
	prepareRevocations(t, patient)
	proctest.Freeze(t, master.Process)
	for name, revoke := range revocations(f) {
		start := time.Now()
		err := inTime(t, func() error { _, err := revoke(t.Context()); return err })
		requireReason(t, authz.ReasonStoreUnavailable, err)
		require.Less(t, time.Since(start), endsByItself, name)
	}
}

// A user of the server who may not WAIT revokes, and is told that nobody knows
// who has it.
func TestWaitThatIsRefusedIsNoConfirmation(t *testing.T) {
	t.Parallel()
	for _, refused := range []string{"wait", "set"} {
		master := proctest.StartRedis(t)
		replica(t, master)
		admin := redis.NewClient(&redis.Options{Addr: master.Addr, Protocol: 2, DisableIdentity: true})
		defer func() { _ = admin.Close() }()
		require.NoError(t, admin.Do(t.Context(), "acl", "setuser", "app", "on", ">pw", "~*", "+@all", "-"+refused).Err())
		o := confirming
		o.Timeout = patience // nobody waits
		f := openStore(t, "redis://app:pw@"+master.Addr, o)
		if refused == "set" { // which the scripts need, too
			requireReason(t, authz.ReasonStoreUnavailable, f.Revoke(t.Context(), "a"))
			require.False(t, f.exists(t, "gatehouse:dead:{sess:a}"))
			continue
		}
		requireReason(t, authz.ReasonNotConfirmed, f.Revoke(t.Context(), "a"))
		require.True(t, f.exists(t, "gatehouse:dead:{sess:a}"))
	}
}

// In a Cluster each master's own replica confirms what lies there.
func TestRevocationsWaitForTheReplicasOfACluster(t *testing.T) {
	t.Parallel()
	url := startCluster(t).url
	f, patient := openConfirming(t, url, confirming)
	prepareRevocations(t, patient)
	const users, sessions = 4, 12
	for user := range users { // whose sessions lie at every master
		for i := range sessions {
			f.foreign(t, fmt.Sprintf("%d-of-many%d", i, user), fmt.Sprint("many", user))
		}
	}
	for name, revoke := range revocations(f) {
		mark, err := answered(t, revoke)
		requireReason(t, authz.ReasonNotConfirmed, err)
		require.True(t, mark == "" || f.exists(t, mark), name)
	}

	cluster, ok := f.client.(*redis.ClusterClient)
	require.True(t, ok)
	replicas := clusterReplicas(t, cluster)
	for name, revoke := range revocations(f) {
		acknowledged(t, name, revoke)
	}
	n := 0
	for _, r := range replicas {
		keys, err := r.client.Keys(t.Context(), "gatehouse:dead:*").Result()
		require.NoError(t, err)
		n += len(keys)
	}
	require.Len(t, f.allKeys(t, "gatehouse:dead:*"), n)

	// All but one: what lies at that one's master is in doubt, the rest is not.
	proctest.Freeze(t, replicas[0].Process)
	confirmed, doubted := 0, 0
	for i := range 12 {
		_, err := answered(t, func(ctx context.Context) (string, error) { return "", f.Revoke(ctx, fmt.Sprint("id", i)) })
		if err == nil {
			confirmed++
			continue
		}
		requireReason(t, authz.ReasonNotConfirmed, err)
		doubted++
	}
	require.Positive(t, confirmed)
	require.Positive(t, doubted)
	// Nor is it enough that the other masters' replicas confirm their part, or a later one.
	for user := range users {
		tries, n := 0, 0
		_, err := answered(t, func(ctx context.Context) (_ string, err error) {
			tries++
			n, err = f.RevokeUser(ctx, fmt.Sprint("many", user))
			return "", err
		})
		requireReason(t, authz.ReasonNotConfirmed, err)
		if tries == 1 { // else a part was ended before
			require.Equal(t, sessions, n)
		}
	}
	require.NoError(t, replicas[0].Signal(syscall.SIGCONT))
	for user := range users {
		acknowledged(t, "RevokeUser", func(ctx context.Context) (string, error) {
			_, err := f.RevokeUser(ctx, fmt.Sprint("many", user))
			return "", err
		})
	}
}

type clusterReplica struct {
	*proc.Redis
	client *redis.Client
}

// clusterMaster is a master of a Cluster, as its replicas and its slots name it.
type clusterMaster struct{ host, id string }

func mastersOf(t *testing.T, cluster *redis.ClusterClient) []clusterMaster {
	t.Helper()
	var mu sync.Mutex
	var masters []clusterMaster
	require.NoError(t, cluster.ForEachMaster(t.Context(), func(ctx context.Context, c *redis.Client) error {
		id, err := c.ClusterMyID(ctx).Result()
		mu.Lock()
		defer mu.Unlock()
		masters = append(masters, clusterMaster{c.Options().Addr, id})
		return err
	}))
	return masters
}

// clusterReplicas gives each master of a Cluster a replica.
func clusterReplicas(t *testing.T, cluster *redis.ClusterClient) []clusterReplica {
	t.Helper()
	masters := mastersOf(t, cluster)
	var replicas []clusterReplica
	buses := proctest.FreePorts(t, len(masters))
	meet := redis.NewClient(&redis.Options{Addr: masters[0].host, Protocol: 2, DisableIdentity: true})
	defer func() { _ = meet.Close() }()
	for i, m := range masters {
		quickly(t, m.host)
		r := proctest.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", fmt.Sprint(buses[i]))
		t.Cleanup(func() { _ = r.Signal(syscall.SIGCONT) })
		client := redis.NewClient(&redis.Options{Addr: r.Addr, Protocol: 2, DisableIdentity: true})
		t.Cleanup(func() { _ = client.Close() })
		require.NoError(t, meet.Do(t.Context(), "cluster", "meet", "127.0.0.1", r.Port, buses[i]).Err())
		require.Eventually(t, func() bool {
			return client.Do(t.Context(), "cluster", "replicate", m.id).Err() == nil
		}, 30*time.Second, 20*time.Millisecond)
		synchronized(t, m.host)
		replicas = append(replicas, clusterReplica{Redis: r, client: client})
	}
	return replicas
}

// A slot that moved since the client looked: the revocation follows it, by a
// connection that nothing can be confirmed on.
func TestRevocationFollowsASlotThatMoved(t *testing.T) {
	t.Parallel()
	url := startCluster(t).url
	f, patient := openConfirming(t, url, session.Options{ConfirmReplicas: 1, Timeout: time.Second})
	require.NoError(t, patient.CompleteProfile(t.Context(), authz.User{Identity: authz.Identity{ID: "u"}}))
	f.foreign(t, "other", "u")
	_, err := answered(t, func(ctx context.Context) (string, error) { // loads the state
		_, err := f.Store.Session(ctx, "other", authz.ReadOptions{})
		return "", err
	})
	require.NoError(t, err)
	cluster, ok := f.client.(*redis.ClusterClient)
	require.True(t, ok)
	slot, err := cluster.ClusterKeySlot(t.Context(), "sess:moved").Result()
	require.NoError(t, err)
	old, err := cluster.MasterForKey(t.Context(), "sess:moved")
	require.NoError(t, err)
	oldID, err := old.ClusterMyID(t.Context()).Result()
	require.NoError(t, err)
	masters := mastersOf(t, cluster)
	newID := masters[slices.IndexFunc(masters, func(m clusterMaster) bool { return m.id != oldID })].id
	require.NoError(t, cluster.ForEachMaster(t.Context(), func(ctx context.Context, c *redis.Client) error {
		return c.Do(ctx, "cluster", "setslot", slot, "node", newID).Err()
	}))
	_, err = answered(t, func(ctx context.Context) (string, error) { return "", f.Revoke(ctx, "moved") })
	requireReason(t, authz.ReasonNotConfirmed, err)
	require.True(t, f.exists(t, "gatehouse:dead:{sess:moved}"))
}
