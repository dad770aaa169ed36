//go:build unix

package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
)

// failoverHeartbeat is that of the stores here, and failoverLease what docs/cache.md
// allows for it: the most that an answer is behind where announcements don't come.
const (
	failoverHeartbeat = 200 * time.Millisecond
	failoverLease     = 5 * failoverHeartbeat / 2
)

// history checks what lookups say of sessions whose records are written all the time,
// by another program. A write counts from its acknowledgement on: by the master alone,
// or by replicas, too, where the master may be lost.
type history struct {
	store *session.Store
	ids   []string

	mu          sync.Mutex
	acked       map[string][]time.Time // when the write of each version was acknowledged; zero: never
	lookups     int
	unavailable int
	writes      int
	late        map[string]int // lookups that saw an older version, by how
	worst       time.Duration  // behind the acknowledgement of what they should have seen
	wrong       []string
	gap         time.Duration // the longest time without an answer for one of them
	lastAnswer  map[string]time.Time
}

// follow writes and looks up until stop is called.
func follow(t *testing.T, store *session.Store, ids []string, write func(ctx context.Context, id, record string) error) (h *history, stop func()) {
	t.Helper()
	h = &history{store: store, ids: ids, acked: map[string][]time.Time{}, late: map[string]int{}, lastAnswer: map[string]time.Time{}}
	for _, id := range ids {
		h.acked[id] = []time.Time{{}} // version 0 is none
		h.lastAnswer[id] = time.Now()
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var workers sync.WaitGroup
	for _, id := range ids {
		workers.Go(func() {
			for ctx.Err() == nil {
				h.write(ctx, id, write)
				time.Sleep(3 * time.Millisecond)
			}
		})
		for range 2 {
			workers.Go(func() {
				for ctx.Err() == nil {
					h.look(ctx, id)
					time.Sleep(200 * time.Microsecond)
				}
			})
		}
	}
	return h, func() {
		cancel()
		workers.Wait()
	}
}

func (h *history) write(ctx context.Context, id string, write func(ctx context.Context, id, record string) error) {
	h.mu.Lock()
	version := len(h.acked[id])
	h.acked[id] = append(h.acked[id], time.Time{})
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := write(ctx, id, fmt.Sprintf(`{"userId":"u","roles":["%d"]}`, version))
	if err != nil { // it may have been made or not
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked[id][version] = time.Now()
	h.writes++
}

// look looks a session up, and compares with what was acknowledged before.
func (h *history) look(ctx context.Context, id string) {
	start := time.Now()
	s, err := h.store.Session(ctx, id, authz.ReadOptions{})
	if ctx.Err() != nil {
		return
	}
	seen := 0
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lookups++
	switch {
	case err == nil:
		seen, _ = strconv.Atoi(s.Roles[0])
	case slices.Contains(noAnswer, authz.ReasonOf(err)):
		h.unavailable++
		return
	case authz.ReasonOf(err) != authz.ReasonSessionUnknown:
		h.wrong = append(h.wrong, err.Error())
		return
	}
	h.gap = max(h.gap, time.Since(h.lastAnswer[id]))
	h.lastAnswer[id] = time.Now()
	for _, at := range h.acked[id][seen+1:] { // the first one counts
		if at.IsZero() || !at.Before(start) {
			continue
		}
		behind := start.Sub(at)
		h.worst = max(h.worst, behind)
		switch {
		case behind < time.Millisecond:
			h.late["by less than a millisecond"]++
		case behind < failoverLease:
			h.late["within the lease"]++
		default:
			h.late["too late"]++
			h.wrong = append(h.wrong, fmt.Sprintf("%s: version %d was seen %v after another one was acknowledged (%v)", id, seen, behind, err))
		}
		return
	}
}

// settled waits until lookups see what is written now, from the cache, and have for
// some writes. Meanwhile it does something else, too.
func (h *history) settled(t *testing.T, meanwhile func()) {
	t.Helper()
	awaitLive(t, h.store)
	defer func() {
		const some = 20
		enough := h.writesSoFar() + some
		require.Eventually(t, func() bool {
			meanwhile()
			return h.writesSoFar() >= enough
		}, 30*time.Second, 10*time.Millisecond, "writes go on")
	}()
	for _, id := range h.ids {
		h.mu.Lock()
		least := len(h.acked[id])
		h.mu.Unlock()
		require.Eventually(t, func() bool {
			meanwhile()
			s, err := h.store.Session(t.Context(), id, authz.ReadOptions{})
			if err != nil {
				return false
			}
			seen, err := strconv.Atoi(s.Roles[0])
			return err == nil && seen >= least
		}, 30*time.Second, 10*time.Millisecond, "lookups see new writes")
	}
	hits := h.store.CacheStats().Hits
	require.Eventually(t, func() bool { return h.store.CacheStats().Hits > hits }, 30*time.Second, time.Millisecond)
}

func (h *history) writesSoFar() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.writes
}

// judge fails for every wrong answer, and tells what was seen since the last time.
func (h *history) judge(t *testing.T, what string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	t.Logf("%s: %d lookups, %d wrong, %d unavailable, older answers %v (worst %v), longest time without an answer %v; %d writes",
		what, h.lookups, len(h.wrong), h.unavailable, h.late, h.worst, h.gap, h.writes)
	require.Empty(t, h.wrong[:min(len(h.wrong), 5)], what)
	require.Positive(t, h.lookups, what)
	h.lookups, h.unavailable, h.writes, h.worst, h.gap, h.late = 0, 0, 0, 0, 0, map[string]int{}
}

// failing is a store as it is in production, which gives up quickly.
func failing(t *testing.T, url string, login session.OpenOptions, o session.Options) *session.Store {
	t.Helper()
	login.Timeout, login.Logger = 300*time.Millisecond, quiet
	client, err := session.Open(url, login)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	o.Timeout = login.Timeout
	store := session.New(client, o)
	run(t, store)
	return store
}

var errUnconfirmed = errors.New("too few replicas have it")

// confirmed writes to a server, and waits for replicas to have it.
func confirmed(ctx context.Context, server *redis.Client, key, value string, replicas int) error {
	pipe := server.Pipeline()
	pipe.Set(ctx, key, value, time.Hour)
	wait := pipe.Do(ctx, "wait", replicas, 1000)
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	if n, _ := wait.Int(); n < replicas {
		return errUnconfirmed
	}
	return nil
}

// Behind Sentinel: a failover that was asked for, a master that dies, one that is
// frozen and comes back. The cache follows by itself; what was acknowledged with all
// replicas is seen by each lookup that begins later, or it says that it doesn't know.
// (One of two replicas is not enough: the other one may be promoted.)
func TestCacheFollowsTheMaster(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinels(t, redistest.SentinelOptions{Replicas: 2, Sentinels: 3, DownAfter: time.Second})
	store := failing(t, set.URL(), session.OpenOptions{}, session.Options{Cache: &session.CacheOptions{Heartbeat: failoverHeartbeat}})
	awaitLive(t, store)

	// The other program connects to the master by itself, whichever it is.
	var mu sync.Mutex
	master, replicas := set.Master(), 2
	is := func(n *redistest.Node, itsReplicas int) {
		mu.Lock()
		defer mu.Unlock()
		master, replicas = n, itsReplicas
	}
	// Where the machine stands still for a second, the Sentinels replace the heir, too.
	asks := func() {
		n := set.Master()
		mu.Lock()
		defer mu.Unlock()
		master = n
	}
	h, stop := follow(t, store, []string{"id"}, func(ctx context.Context, id, record string) error {
		mu.Lock()
		server, all := master.Client(), replicas
		mu.Unlock()
		return confirmed(ctx, server, "sess:"+id, record, all)
	})
	defer stop()
	h.settled(t, asks)
	h.judge(t, "nothing happens")

	old := set.Master()
	is(set.Failover(), 2)
	h.settled(t, asks)
	h.judge(t, "a failover that was asked for")
	require.Eventually(t, func() bool { // of the client and of the cache
		clients, err := old.Client().ClientList(t.Context()).Result()
		return err == nil && !strings.Contains(clients, "name=gatehouse")
	}, 30*time.Second, 10*time.Millisecond, "nobody listens to the old master any more")

	old = set.Master()
	old.Kill()
	is(set.AwaitOther(old), 1)
	h.settled(t, asks)
	h.judge(t, "a master that dies")

	old = set.Master()
	old.Freeze()
	is(set.AwaitOther(old), 0)
	h.settled(t, asks)
	h.judge(t, "a master that is frozen")
	old.Thaw()
	h.settled(t, asks)
	time.Sleep(3 * failoverLease)
	h.judge(t, "and goes on")
	stop()
}

// A master that was frozen while another one took its place goes on as if nothing had
// happened, until a Sentinel demotes it, some ten seconds later, or never where none
// reaches it. The announcement of the change is lost. What it says isn't listened to
// any more before that, whether there is a cache or not: it still is a master when it
// is heard for the last time, and when all connections to it have been given up.
func TestOldMasterThatGoesOnIsNotHeard(t *testing.T) {
	t.Parallel()
	for name, cache := range map[string]*session.CacheOptions{"without a cache": nil, "with a cache": {Heartbeat: failoverHeartbeat}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := redistest.StartSentinels(t, redistest.SentinelOptions{Replicas: 1})
			set.Sentinels[0].Do("acl", "setuser", "deaf", "on", ">pw", "+@all", "-subscribe")
			store := failing(t, set.URL(), session.OpenOptions{SentinelUsername: "deaf", SentinelPassword: "pw"}, session.Options{Cache: cache})
			old := set.Master()
			require.NoError(t, confirmed(t.Context(), old.Client(), "sess:id", `{"userId":"u"}`, 1))
			if cache != nil {
				awaitLive(t, store)
			}
			var lookups sync.WaitGroup // for connections that are idle later
			for range 8 {
				lookups.Go(func() { _, _ = store.Session(t.Context(), "id", authz.ReadOptions{Fresh: true}) })
			}
			lookups.Wait()

			old.Freeze()
			heir := set.AwaitOther(old)
			heir.Do("del", "sess:id") // by whoever revokes it
			revoked := time.Now()
			old.Thaw()
			var last time.Duration
			for unknown := 0; unknown < 100; {
				begun := time.Since(revoked)
				_, err := store.Session(t.Context(), "id", authz.ReadOptions{Fresh: unknown%2 == 0})
				switch {
				case err == nil:
					last, unknown = begun, 0
				case authz.ReasonOf(err) == authz.ReasonSessionUnknown:
					unknown++
				default:
					requireNoAnswer(t, err)
				}
			}
			t.Logf("it was heard for %v after the revocation", last)
			require.Eventually(t, func() bool {
				clients, err := old.Client().ClientList(t.Context()).Result()
				return err == nil && !strings.Contains(clients, "name=gatehouse")
			}, 30*time.Second, time.Millisecond)
			role, err := old.Do("role").Slice()
			require.NoError(t, err)
			require.Equal(t, "master", role[0], "it would still answer: no Sentinel has ended its connections")
		})
	}
}

// clusterWriter is another program's client of a Cluster.
type clusterWriter struct {
	*redis.ClusterClient
	mu       sync.Mutex
	moving   bool           // slots: a write that was sent elsewhere counts without a replica
	replicas map[string]int // how many must have a write, by id
}

func (w *clusterWriter) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *clusterWriter) write(ctx context.Context, id, record string) error {
	w.mu.Lock()
	moving, replicas := w.moving, w.replicas[id]
	w.mu.Unlock()
	key := "sess:" + id
	master, err := w.MasterForKey(ctx, key)
	if err != nil {
		return err
	}
	if err = confirmed(ctx, master, key, record, replicas); err != nil {
		w.ReloadState(ctx)
	}
	if _, moved := redis.IsMovedError(err); moving && (moved || redis.HasErrorPrefix(err, "ASK")) {
		err = w.Set(ctx, key, record, time.Hour).Err()
	}
	return err
}

// In a Cluster: a failover that was asked for, a slot that moves and comes back, a master
// that dies, one that is frozen and comes back.
func TestCacheCoversEveryMaster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{Masters: 3, Replicas: 1, NodeTimeout: 2 * time.Second})
	store := failing(t, cluster.URL(), session.OpenOptions{}, session.Options{Cache: &session.CacheOptions{Heartbeat: failoverHeartbeat}})
	awaitLive(t, store)
	client, err := session.Open(cluster.URL(), session.OpenOptions{Timeout: 2 * time.Second, Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	w := &clusterWriter{ClusterClient: client.(*redis.ClusterClient), replicas: map[string]int{}}
	ids := oneForEach(t, cluster)
	for _, id := range ids {
		w.replicas[id] = 1
	}
	h, stop := follow(t, store, ids, w.write)
	defer stop()
	h.settled(t, func() {})
	h.judge(t, "nothing happens")

	cluster.Failover("sess:" + ids[0])
	h.settled(t, func() {})
	h.judge(t, "a failover that was asked for")

	w.set(func() { w.moving = true })
	slot := cluster.Slot("sess:" + ids[1])
	from, to := cluster.Owner("sess:"+ids[1]), cluster.Owner("sess:"+ids[2])
	for range 3 {
		cluster.BeginMove(slot, from, to)
		time.Sleep(failoverHeartbeat) // some lookups and writes
		for cluster.MoveKeys(slot, 1, from, to) > 0 {
			time.Sleep(failoverHeartbeat / 4) // as above: of what belongs together, some keys are here and some there
		}
		cluster.EndMove(slot, from, to)
		time.Sleep(failoverHeartbeat / 4) // while it is still coherent
		from, to = to, from
	}
	h.settled(t, func() {})
	h.judge(t, "a slot that moves, three times")
	w.set(func() { w.moving = false })

	old := cluster.Owner("sess:" + ids[0])
	old.Kill()
	cluster.AwaitOther("sess:"+ids[0], old)
	w.set(func() { w.replicas[ids[0]] = 0 })
	h.settled(t, func() {})
	h.judge(t, "a master that dies")

	old = cluster.Owner("sess:" + ids[2])
	old.Freeze()
	cluster.AwaitOther("sess:"+ids[2], old)
	w.set(func() { w.replicas[ids[2]] = 0; w.replicas[ids[1]] = 0 }) // where the slot may be now
	h.settled(t, func() {})
	h.judge(t, "a master that is frozen")
	old.Thaw()
	time.Sleep(3 * failoverLease)
	h.settled(t, func() {})
	h.judge(t, "and goes on")
	stop()
}

// oneForEach returns ids of sessions, one at each master.
func oneForEach(t *testing.T, cluster *redistest.Cluster) (ids []string) {
	t.Helper()
	seen := map[*redistest.Node]bool{}
	for i := 0; len(ids) < len(cluster.Masters()); i++ {
		id := fmt.Sprint("id-", i)
		if owner := cluster.Owner("sess:" + id); !seen[owner] {
			seen[owner] = true
			ids = append(ids, id)
		}
	}
	return ids
}
