package session_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest/line"
)

// changes collects what OnServer is told.
type changes struct {
	mu  sync.Mutex
	all []session.ServerChange
}

func (c *changes) add(change session.ServerChange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, change)
}

// answers are the changes so far: whether the server answers.
func (c *changes) answers() (answers []bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, change := range c.all {
		answers = append(answers, change.Answers)
	}
	return answers
}

// guardedStore is a store whose Redis is behind a line, and a client around it.
type guardedStore struct {
	*session.Store
	lag    *line.Line
	direct *redis.Client
	told   *changes
	writes *writeErrors
}

const guardedPool = 20

func newGuarded(t *testing.T, o session.Options) guardedStore {
	t.Helper()
	r := proctest.StartRedis(t)
	g := guardedStore{lag: line.New(t, r.Addr), told: &changes{}, writes: &writeErrors{}}
	g.direct = redis.NewClient(&redis.Options{Addr: r.Addr, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = g.direct.Close() })
	client, err := session.Open("redis://"+g.lag.Addr, session.OpenOptions{Timeout: o.Timeout, PoolSize: guardedPool, OnServer: g.told.add})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	o.Profiles, o.OnWriteError = true, g.writes.add
	g.Store = session.New(client, o)
	if o.Cache != nil {
		run(t, g.Store)
		awaitLive(t, g.Store)
	}
	return g
}

func (g guardedStore) put(t *testing.T, id, record string) {
	t.Helper()
	require.NoError(t, g.direct.Set(t.Context(), "sess:"+id, record, time.Hour).Err())
}

// knock asks for a session that is not there.
func (g guardedStore) knock(ctx context.Context) authz.Reason {
	_, err := g.Session(ctx, fmt.Sprint("nobody-", knocked.Add(1)), authz.ReadOptions{})
	return authz.ReasonOf(err)
}

var knocked atomic.Int64

// silence has the server be silent, and asks until the store knows.
func (g guardedStore) silence(t *testing.T) {
	t.Helper()
	g.lag.Hold()
	require.Eventually(t, func() bool {
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { g.knock(t.Context()) })
		}
		all.Wait()
		return g.GuardStats().Silent == 1
	}, patience, time.Millisecond)
}

// A Redis that answers just within the deadline, and many more requests than it can
// answer so: few wait, and as many are answered as can be; sessions that are known
// are answered from the cache; a revocation is done; and when Redis is fast again, so
// is everything.
//
// It is not parallel: others would make a busy machine's Gatehouse as slow as Redis.
func TestFewWaitForASlowRedis(t *testing.T) {
	for range 5 {
		if fewWait(t) {
			return
		}
	}
	t.Skip("no verdict: this machine is so busy that Redis seemed silent each time")
}

// fewWait doesn't count where the machine stood still for longer than a revocation has
// beside its round trips.
func fewWait(t *testing.T) (counts bool) {
	t.Helper()
	const timeout, slow = 2 * time.Second, 700 * time.Millisecond
	g := newGuarded(t, session.Options{Timeout: timeout, Cache: &session.CacheOptions{Heartbeat: 5 * time.Second}})
	g.put(t, "known", `{"userId":"u"}`)
	require.Eventually(t, func() bool {
		_, err := g.Session(t.Context(), "known", authz.ReadOptions{})
		return err == nil && g.CacheStats().Hits > 0
	}, patience, time.Millisecond)
	g.put(t, "revoked", `{"userId":"v"}`)
	// A new connection takes some round trips, of which there will be time for one.
	g.lag.Delay(20 * time.Millisecond)
	client := session.ClientOf(g.Store).(*redis.Client)
	var conns []*redis.Conn
	for range guardedPool {
		conns = append(conns, client.Conn())
		require.NoError(t, conns[len(conns)-1].Ping(t.Context()).Err())
	}
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	require.EqualValues(t, guardedPool, client.PoolStats().IdleConns)
	require.Equal(t, authz.ReasonSessionUnknown, g.knock(t.Context())) // brings the scripts there
	require.NoError(t, g.End(t.Context(), authz.Ending{SessionID: "other"}))

	g.lag.Delay(slow)
	longest := g.lag.Watch(t)
	var asking sync.WaitGroup
	var mostWaiting int
	var unknowable error // why what is known was not told
	var unknown, refused, other atomic.Int64
	const beats, learnt, perBeat = 700, 500, 10 // some 2,000 a second
	revoked := make(chan error, 1)
	for beat := range beats {
		for range perBeat {
			asking.Go(func() {
				counter := &other
				if reason := g.knock(t.Context()); reason == authz.ReasonSessionUnknown {
					counter = &unknown
				} else if reason == authz.ReasonOverloaded { // an outage would open what on_store_outage says
					counter = &refused
				}
				counter.Add(1)
			})
		}
		if beat == learnt {
			go func() { revoked <- g.End(context.Background(), authz.Ending{SessionID: "revoked"}) }()
		}
		if beat > learnt { // how slow Redis is; and who came before that has gone
			mostWaiting = max(mostWaiting, g.GuardStats().Waiting)
		}
		if got, err := g.Session(t.Context(), "known", authz.ReadOptions{}); err == nil {
			require.Equal(t, "u", got.ID)
		} else {
			unknowable = err
		}
		time.Sleep(5 * time.Millisecond)
	}
	asking.Wait()
	err := <-revoked
	stood := longest() - slow
	if stood >= timeout/8 && (err != nil || unknowable != nil || other.Load() > 0 || g.GuardStats().Opened > 0) {
		t.Logf("the line stood still for %v", stood)
		return false
	}
	require.NoError(t, err)
	require.NoError(t, unknowable, "the cache has it")
	require.Zero(t, other.Load())
	require.Positive(t, unknown.Load(), "as many as can be are answered")
	require.Positive(t, refused.Load())
	s := g.GuardStats()
	t.Logf("%d answered, %d refused, at most %d waited: %+v", unknown.Load(), refused.Load(), mostWaiting, s)
	require.Zero(t, s.Waiting)
	// Without a bound there would be some thousands of them.
	require.LessOrEqual(t, mostWaiting, 2*guardedPool)
	require.NotZero(t, g.direct.Exists(t.Context(), "gatehouse:dead:{sess:revoked}").Val())

	g.lag.Delay(0)
	require.Eventually(t, func() bool { return g.knock(t.Context()) == authz.ReasonSessionUnknown }, patience, time.Millisecond)
	require.Eventually(t, func() bool { // where this machine stands still, so does the line, once more
		var again sync.WaitGroup
		var unanswered atomic.Int64
		for range guardedPool {
			again.Go(func() {
				for range 50 {
					if g.knock(t.Context()) != authz.ReasonSessionUnknown {
						unanswered.Add(1)
					}
				}
			})
		}
		again.Wait()
		return unanswered.Load() == 0
	}, 3*patience, time.Millisecond, "all are answered again")
	require.Empty(t, g.told.answers(), "it answered all the time")
	return true
}

// Nobody waits for a Redis that is silent.
// It is told once, whatever comes. Revocations go on trying.
func TestASilentRedisIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, session.Options{Timeout: 100 * time.Millisecond, Cache: &session.CacheOptions{Heartbeat: 50 * time.Millisecond}})
	g.put(t, "known", `{"userId":"u"}`)
	require.Eventually(t, func() bool {
		_, err := g.Session(t.Context(), "known", authz.ReadOptions{})
		return err == nil && g.CacheStats().Hits > 0
	}, patience, time.Millisecond)
	for range 2 {
		g.silence(t)
		before := g.GuardStats()
		const requests = 2000
		for range requests {
			require.Equal(t, authz.ReasonStoreUnavailable, g.knock(t.Context()))
		}
		after := g.GuardStats()
		require.EqualValues(t, requests, after.Broken-before.Broken, "all were refused at once")
		require.Equal(t, before.Opened, after.Opened)
		require.Equal(t, 1, after.Silent)
		// By leave of a policy what was known is still told, and nothing is written: when the
		// cache's lease is over.
		require.Eventually(t, func() bool {
			got, err := g.Session(t.Context(), "known", authz.ReadOptions{StaleFor: time.Hour})
			return err == nil && got.Stale
		}, patience, time.Millisecond)
		for range 100 {
			got, err := g.Session(t.Context(), "known", authz.ReadOptions{StaleFor: time.Hour})
			require.NoError(t, err)
			require.True(t, got.Stale)
			got2, err := g.TokenStanding(t.Context(), authz.TokenRef{UserID: "u"}, authz.ReadOptions{StaleFor: time.Hour})
			require.NoError(t, err)
			require.True(t, got2.Stale)
		}
		ended := make(chan error, 1)
		go func() { ended <- g.End(context.Background(), authz.Ending{SessionID: "known"}) }()
		requireReason(t, authz.ReasonStoreUnavailable, <-ended)

		g.lag.Release()
		require.Eventually(t, func() bool {
			for range 100 {
				if g.knock(t.Context()) != authz.ReasonSessionUnknown { // this machine is busy, too
					return false
				}
			}
			return g.GuardStats().Silent == 0
		}, 3*patience, time.Millisecond, "all are answered again")
		g.put(t, "known", `{"userId":"u"}`)
		require.NoError(t, g.direct.Del(t.Context(), "gatehouse:dead:{sess:known}").Err())
		awaitLive(t, g.Store)
		require.Eventually(t, func() bool {
			hits := g.CacheStats().Hits
			_, err := g.Session(t.Context(), "known", authz.ReadOptions{})
			return err == nil && g.CacheStats().Hits > hits
		}, patience, time.Millisecond)
	}
	// Where the machine stands still there is an outage more, which ends, too.
	require.Eventually(t, func() bool {
		return g.knock(t.Context()) == authz.ReasonSessionUnknown && g.GuardStats().Silent == 0
	}, patience, time.Millisecond)
	opened := g.GuardStats().Opened
	require.GreaterOrEqual(t, opened, int64(2))
	require.Equal(t, slices.Repeat([]bool{false, true}, int(opened)), g.told.answers())
	for _, change := range g.told.all {
		require.Equal(t, g.lag.Addr, change.Server)
		require.Equal(t, change.Answers, change.Err == nil)
		require.Positive(t, change.After)
	}
}

// A ping, or what else is answered, tells that Redis is back before the next request.
func TestAnyAnswerEndsTheSilence(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, session.Options{Timeout: 100 * time.Millisecond})
	answered := func() bool { return g.knock(t.Context()) == authz.ReasonSessionUnknown }
	require.Eventually(t, answered, patience, time.Millisecond)
	g.silence(t)
	g.lag.Release()
	require.Eventually(t, func() bool { return g.Ping(t.Context()) == nil }, patience, time.Millisecond)
	require.Zero(t, g.GuardStats().Silent)
	broken := g.GuardStats().Broken
	answered() // in time or not: it is asked
	require.Equal(t, broken, g.GuardStats().Broken)
	require.Eventually(t, answered, patience, time.Millisecond)
}

// Requests that have hardly waited, and keys of a type that nobody expects, say nothing
// against Redis.
func TestWhatIsNoSilence(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, session.Options{Timeout: patience}) // far more than twice of what they have
	require.NoError(t, g.direct.RPush(t.Context(), "sess:list", "x").Err())
	require.Equal(t, authz.ReasonSessionUnknown, g.knock(t.Context()))
	g.lag.Hold()
	for range 10 { // more than are taken for chance
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		reason := g.knock(ctx)
		if reason != authz.ReasonOverloaded { // this machine is busy
			require.Equal(t, authz.ReasonStoreUnavailable, reason)
		}
		cancel()
	}
	require.Zero(t, g.GuardStats().Opened)
	g.lag.Release()
	require.Eventually(t, func() bool { return g.Ping(t.Context()) == nil }, patience, time.Millisecond)
	for range 100 {
		_, err := g.Session(t.Context(), "list", authz.ReadOptions{})
		requireReason(t, authz.ReasonSessionMalformed, err)
	}
	require.Zero(t, g.GuardStats().Opened)
	require.Empty(t, g.told.answers())
}

// Who asks first for others, too, waits no longer than it has time. The question goes on,
// and its answer is kept.
func TestWhoAsksFirstGivesUpInTime(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, session.Options{Timeout: time.Hour, Cache: &session.CacheOptions{Heartbeat: patience}})
	ref := authz.TokenRef{UserID: "u", TokenID: "j", Family: "f"}
	g.put(t, "id", `{"userId":"u"}`)
	require.NoError(t, g.direct.Set(t.Context(), "revoked:j", "", time.Hour).Err())
	require.Equal(t, authz.ReasonSessionUnknown, g.knock(t.Context())) // brings the scripts there
	g.lag.Hold()
	for g.GuardStats().Waiting < 2 { // on a busy machine somebody's time is over before they ask
		ctx, cancel := context.WithTimeout(t.Context(), 160*time.Millisecond)
		defer cancel()
		told := make(chan error, 2)
		go func() { _, err := g.Session(ctx, "id", authz.ReadOptions{}); told <- err }()
		go func() { _, err := g.TokenStanding(ctx, ref, authz.ReadOptions{}); told <- err }()
		for range cap(told) {
			select {
			case err := <-told:
				requireReason(t, authz.ReasonOverloaded, err) // an outage would open what on_store_outage says
			case <-time.After(patience):
				g.lag.Release()
				require.Fail(t, "they wait for the store")
			}
		}
	}
	before := g.CacheStats()
	g.lag.Release()
	got, err := g.Session(t.Context(), "id", authz.ReadOptions{})
	require.NoError(t, err)
	require.Equal(t, "u", got.ID)
	standing, err := g.TokenStanding(t.Context(), ref, authz.ReadOptions{})
	require.NoError(t, err)
	require.True(t, standing.Revoked)
	require.Equal(t, before.Misses, g.CacheStats().Misses)
}

// A bug where somebody asks for others, too, and may give up before it is answered, ends
// neither the process nor later questions, and is no outage.
func TestPanicInAQuestion(t *testing.T) {
	t.Parallel()
	f := newServer(t, backends[1]).cached(t, session.Options{Timeout: time.Hour})
	f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
	f.settle(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// Right behind a heartbeat that came late everybody asks alone: the panic is the caller's
	// own then, for which its server has a remedy.
	var err error
	require.Eventually(t, func() (shared bool) {
		f.afterNext(t, func() { panic("a bug") })
		defer func() { shared = recover() == nil }()
		_, err = f.Store.Session(ctx, "other", authz.ReadOptions{})
		return true
	}, patience, time.Millisecond)
	requireReason(t, authz.ReasonInternal, err)
	require.ErrorContains(t, err, "a bug")
	require.Zero(t, f.GuardStats().Waiting)
	_, err = f.Store.Session(ctx, "other", authz.ReadOptions{})
	requireReason(t, authz.ReasonSessionUnknown, err)
}

// That somebody gave up before another one's question was answered is no outage, as
// long as it isn't known that the server is silent.
func TestWhoGivesUpWaitingForAnother(t *testing.T) {
	t.Parallel()
	const timeout = 4 * time.Second
	g := newGuarded(t, session.Options{Timeout: timeout, Cache: &session.CacheOptions{Heartbeat: patience}})
	require.Equal(t, authz.ReasonSessionUnknown, g.knock(t.Context()))
	g.lag.Hold()
	var first sync.WaitGroup
	defer first.Wait()
	defer g.lag.Release()
	first.Go(func() { _, _ = g.Session(context.Background(), "id", authz.ReadOptions{}) })
	require.Eventually(t, func() bool { return g.GuardStats().Waiting == 1 }, patience, time.Millisecond)
	join := func() authz.Reason {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := g.Session(ctx, "id", authz.ReadOptions{})
		return authz.ReasonOf(err)
	}
	shared := g.CacheStats().Shared
	require.Eventually(t, func() bool { // on a busy machine its time may be over before it joins
		require.Equal(t, authz.ReasonOverloaded, join())
		return g.CacheStats().Shared == shared+1
	}, timeout, time.Millisecond)
	gone, leave := context.WithCancel(t.Context())
	leave()
	require.Equal(t, authz.ReasonOverloaded, g.knock(gone), "it was never asked")

	for end := time.Now().Add(6 * timeout); g.GuardStats().Silent == 0; { // on a busy machine not at once
		require.True(t, time.Now().Before(end), "nobody noticed")
		var others sync.WaitGroup // with less patience than the first one
		for range 10 {
			others.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), timeout*5/8)
				defer cancel()
				_, _ = g.Session(ctx, "id", authz.ReadOptions{Fresh: true})
			})
		}
		others.Wait()
	}
	first.Wait() // who asks anew is told at once
	require.Equal(t, authz.ReasonStoreUnavailable, join())
}

// What a server says that is still loading is silence, until it says something else.
// That it lets itself be connected to doesn't count.
func TestAServerThatLoadsIsSilent(t *testing.T) {
	t.Parallel()
	var loading atomic.Bool
	loading.Store(true)
	addr := fakeRedis(t, func(command string) string {
		switch name, _, _ := strings.Cut(command, " "); {
		case loading.Load() && name != "HELLO" && name != "CLIENT":
			return "-LOADING Redis is loading the dataset in memory"
		case name == "GET":
			return "$-1"
		case name == "PTTL":
			return ":-2"
		}
		return "" // what a client needs to connect, and no scripts
	})
	told := &changes{}
	client, err := session.Open("redis://"+addr, session.OpenOptions{Timeout: patience, OnServer: told.add})
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	g := guardedStore{Store: session.New(client, session.Options{Timeout: patience})}
	require.Eventually(t, func() bool {
		require.Equal(t, authz.ReasonStoreUnavailable, g.knock(t.Context()))
		return g.GuardStats().Silent == 1
	}, patience, time.Millisecond)
	until := time.Now().Add(300 * time.Millisecond)
	for time.Now().Before(until) {
		require.Equal(t, authz.ReasonStoreUnavailable, g.knock(t.Context()))
	}
	require.Equal(t, []bool{false}, told.answers())
	loading.Store(false)
	require.Eventually(t, func() bool { return g.knock(t.Context()) == authz.ReasonSessionUnknown }, patience, time.Millisecond)
	require.Equal(t, []bool{false, true}, told.answers())
}

// A Redis that was restarted is asked at once, not when the client's pool looks next.
func TestARestartedRedisIsAskedAtOnce(t *testing.T) {
	t.Parallel()
	r := proctest.StartRedis(t)
	told := &changes{}
	client, err := session.Open("redis://"+r.Addr, session.OpenOptions{Timeout: patience, PoolSize: 2, OnServer: told.add})
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	g := guardedStore{Store: session.New(client, session.Options{Timeout: patience})}
	require.Equal(t, authz.ReasonSessionUnknown, g.knock(t.Context()))
	require.NoError(t, r.Stop())
	require.Eventually(t, func() bool {
		require.Equal(t, authz.ReasonStoreUnavailable, g.knock(t.Context()))
		return g.GuardStats().Silent == 1
	}, patience, time.Millisecond)
	for range 100 {
		require.Equal(t, authz.ReasonStoreUnavailable, g.knock(t.Context()))
	}
	again, err := proc.StartRedis(context.WithoutCancel(t.Context()), proc.RedisOptions{Dir: t.TempDir(), Port: r.Port})
	require.NoError(t, err)
	defer func() { _ = again.Stop() }()
	back := time.Now()
	require.Eventually(t, func() bool { return g.knock(t.Context()) == authz.ReasonSessionUnknown }, patience, time.Millisecond)
	t.Logf("answered %v after Redis was back", time.Since(back))
	require.Equal(t, []bool{false, true}, told.answers())
}

// One master of a Cluster that is gone takes nothing with it but its own keys.
func TestADeadMasterIsAloneInItsSilence(t *testing.T) {
	t.Parallel()
	proctest.Need(t, "redis-server")
	masters := redistest.StartCluster(t, redistest.ClusterOptions{
		Options: redistest.Options{Config: []string{"cluster-require-full-coverage no"}}, NodeTimeout: calm,
	})
	told := &changes{}
	client, err := session.Open(masters.URL(), session.OpenOptions{Timeout: patience, OnServer: told.add})
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	cluster := client.(*redis.ClusterClient)
	store := session.New(client, session.Options{Timeout: patience})
	perMaster := map[string][]string{}
	for i := range 60 {
		id := fmt.Sprint(i)
		node, err := cluster.MasterForKey(t.Context(), "sess:"+id)
		require.NoError(t, err)
		perMaster[node.Options().Addr] = append(perMaster[node.Options().Addr], id)
	}
	require.Len(t, perMaster, 3)
	read := func(id string) error {
		_, err := store.Session(t.Context(), id, authz.ReadOptions{})
		return err
	}
	dead := masters.Nodes[1]
	dead.Kill()
	require.Eventually(t, func() bool {
		requireReason(t, authz.ReasonStoreUnavailable, read(perMaster[dead.Addr][0]))
		return store.GuardStats().Silent == 1
	}, patience, time.Millisecond)
	for range 20 {
		for addr, ids := range perMaster {
			for _, id := range ids {
				if addr == dead.Addr {
					requireReason(t, authz.ReasonStoreUnavailable, read(id))
				} else {
					requireReason(t, authz.ReasonSessionUnknown, read(id))
				}
			}
		}
	}
	require.Equal(t, 1, store.GuardStats().Silent)
	require.Equal(t, []bool{false}, told.answers())
	require.Equal(t, dead.Addr, told.all[0].Server)
}

// A session that is known is answered while Redis is silent and announcements may
// still be relied on, though its time of use is to be written. That is left out, and
// not told for each request.
func TestNoWriteWaitsForASilentRedis(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	g := newGuarded(t, session.Options{
		Timeout: 100 * time.Millisecond, Cache: &session.CacheOptions{Heartbeat: patience},
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	const sessions = 300
	read := func(i int) error {
		_, err := g.Session(t.Context(), fmt.Sprint(i), authz.ReadOptions{})
		return err
	}
	for i := range sessions {
		g.put(t, fmt.Sprint(i), `{"userId":"u"}`)
	}
	// Each read notes when it was, which makes the cache forget the session once more.
	require.Eventually(t, func() bool {
		misses := g.CacheStats().Misses
		for i := range sessions {
			if read(i) != nil { // on a busy machine it may come late
				return false
			}
		}
		return g.CacheStats().Misses == misses
	}, patience, time.Millisecond)
	g.silence(t)
	used := time.Now()
	ahead.Store(int64(2 * time.Minute)) // all were used a while ago
	before, failed := g.GuardStats(), len(g.writes.all())
	for i := range sessions {
		require.NoError(t, read(i))
	}
	left := g.GuardStats().Skipped - before.Skipped
	require.EqualValues(t, sessions, left)
	require.Len(t, g.writes.all(), failed)
	g.lag.Release()
	require.Eventually(t, func() bool { return g.Ping(t.Context()) == nil }, patience, time.Millisecond)
	require.Eventually(t, func() bool { // a busy machine may be too late for it once more
		ahead.Add(int64(2 * time.Second)) // when it is tried again
		_ = read(0)
		seen, err := g.direct.Get(t.Context(), "gatehouse:seen:{sess:0}").Int64()
		return err == nil && time.UnixMilli(seen).After(used.Add(time.Minute))
	}, patience, time.Millisecond)
}
