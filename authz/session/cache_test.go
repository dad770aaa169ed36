package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// announcing are the servers that announce changes.
var announcing = backends[1:]

// cached returns a store with a cache that is live. Its clock is the real one
// where the options have none. Its heartbeats are so rare that a slow moment of this
// machine makes none of them late, unless the options say how often they come.
func (s *server) cached(t *testing.T, o session.Options) fixture {
	t.Helper()
	client, cut := s.connect(t, patience)
	f := fixture{client: client, own: s.open(t, patience), writes: &writeErrors{}, cut: cut}
	if o.Cache == nil {
		o.Cache = &session.CacheOptions{OmitRecords: true}
	}
	if o.Cache.Heartbeat == 0 {
		o.Cache.Heartbeat = patience
	}
	if o.Timeout == 0 {
		o.Timeout = patience
	}
	o.OnWriteError, o.Profiles = f.writes.add, true // see settle
	f.Store = session.New(f.own, o)
	run(t, f.Store)
	awaitLive(t, f.Store)
	return f
}

// run keeps a store's cache coherent during the test.
func run(t *testing.T, s *session.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

func awaitLive(t *testing.T, s *session.Store) {
	t.Helper()
	require.Eventually(t, func() bool { st, ok := s.CacheState(); return ok && st.Live }, 20*time.Second, time.Millisecond)
}

// settle waits until the store knows all that the client has changed so far.
// Announcements of one server keep their order.
func (f fixture) settle(t *testing.T) {
	t.Helper()
	for _, user := range f.everywhere(t) {
		id := fmt.Sprint(user, settled.Add(1))
		f.set(t, "user:"+id, `{"email":"x"}`, time.Minute)
		ref := authz.TokenRef{UserID: id}
		require.Eventually(t, func() bool {
			_, err := f.TokenStanding(t.Context(), ref, authz.ReadOptions{})
			st, held := session.CachedUser(f.Store, id)
			return err == nil && held && st.Profile != nil
		}, 20*time.Second, 100*time.Microsecond)
		require.NoError(t, f.client.Del(t.Context(), "user:"+id).Err())
		require.Eventually(t, func() bool {
			st, held := session.CachedUser(f.Store, id)
			return !held || st.Profile == nil
		}, 20*time.Second, 100*time.Microsecond)
	}
}

var settled atomic.Int64

// everywhere returns the beginnings of user ids, one at least for each server.
func (f fixture) everywhere(t *testing.T) (users []string) {
	t.Helper()
	cluster, ok := f.client.(*redis.ClusterClient)
	if !ok {
		return []string{"settle-"}
	}
	seen := map[string]bool{}
	for i := 0; len(seen) < 3; i++ {
		tag := fmt.Sprintf("{%d}", i)
		node, err := cluster.MasterForKey(t.Context(), "user:"+tag)
		require.NoError(t, err)
		if addr := node.Options().Addr; !seen[addr] {
			seen[addr] = true
			users = append(users, tag)
		}
	}
	return users
}

// Everything that a store must do, it does from the cache.
func TestCachedStoreIsAStore(t *testing.T) {
	onBackends(t, slices.Concat(announcing, guarded), func(s *server) {
		authztest.StoreSuite(s.t, func(t *testing.T) authztest.Bench {
			t.Helper()
			clock := authztest.NewClock()
			options := session.Options{
				Rolling: true, Profiles: true, IdlePrecision: session.IdlePrecision(5*time.Minute, 0), Now: clock.Now,
			}
			f := s.cached(t, options)
			return authztest.Bench{
				Store: eager{f, t},
				Clock: clock,
				Save: func(t *testing.T, id string, s authz.Session, ttl time.Duration) {
					t.Helper()
					f.set(t, "sess:"+id, recordText(t, s, nil), ttl)
				},
				Destroy: func(t *testing.T, id string) {
					t.Helper()
					require.NoError(t, f.client.Del(t.Context(), "sess:"+id).Err())
				},
				SaveProfile: func(t *testing.T, userID string, p *authz.Profile) {
					t.Helper()
					if p == nil {
						require.NoError(t, f.client.Del(t.Context(), "user:"+userID).Err())
						return
					}
					require.NoError(t, f.SaveProfile(t.Context(), userID, *p))
				},
				Expire: func(t *testing.T, id string) {
					t.Helper()
					require.NoError(t, f.client.PExpire(t.Context(), "sess:"+id, time.Millisecond).Err())
					require.Eventually(t, func() bool { return !f.exists(t, "sess:"+id) }, 10*time.Second, time.Millisecond)
				},
				Cut: func(t *testing.T) {
					t.Helper()
					f.cut()
					require.Eventually(t, func() bool { st, _ := f.CacheState(); return !st.Live }, 10*time.Second, time.Millisecond)
				},
			}
		})
	})
}

// eager asks from the cache what was to be asked fresh, when the cache knows
// all: once to fill it, and once to be answered from it.
type eager struct {
	fixture
	t *testing.T
}

//nolint:contextcheck // settle has the test's own
func (e eager) Session(ctx context.Context, id string, o authz.ReadOptions) (*authz.Session, error) {
	if st, _ := e.CacheState(); st.Live {
		e.settle(e.t)
	}
	o.Fresh = false
	return e.fixture.Session(ctx, id, o)
}

//nolint:contextcheck // as above
func (e eager) TokenStanding(ctx context.Context, ref authz.TokenRef, o authz.ReadOptions) (authz.Standing, error) {
	if st, _ := e.CacheState(); st.Live {
		e.settle(e.t)
	}
	o.Fresh = false
	return e.fixture.TokenStanding(ctx, ref, o)
}

// A counted answer from the cache asks Redis nothing.
func TestHitsAskRedisNothing(t *testing.T) {
	onBackends(t, announcing, func(s *server) {
		t := s.t
		f := s.cached(t, session.Options{Rolling: true, Profiles: true})
		f.set(t, "sess:id", `{"userId":"u","email":"e","roles":["a"],"organizationId":"o","organizations":["o","p"],"authTime":1700000000.25}`, time.Hour)
		f.set(t, "user:u", `{"email":"other","roles":[],"disabled":false}`, 0)
		ref := authz.TokenRef{UserID: "u", TokenID: "j", Family: "f"}
		f.settle(t)
		want, err := f.Session(t.Context(), "id", authz.ReadOptions{Fresh: true})
		require.NoError(t, err)
		_, err = f.TokenStanding(t.Context(), ref, authz.ReadOptions{})
		require.NoError(t, err)
		f.session(t, "id") // renewed by now
		f.settle(t)
		f.session(t, "id")
		before := f.CacheStats()
		for range 1000 {
			got := f.session(t, "id")
			require.Equal(t, want.Identity, got.Identity)
			require.Equal(t, want.Organizations, got.Organizations)
			require.WithinDuration(t, want.AuthTime, got.AuthTime, 0)
			require.Equal(t, want.Standing.Profile, got.Standing.Profile)
			standing, err := f.TokenStanding(t.Context(), ref, authz.ReadOptions{})
			require.NoError(t, err)
			require.False(t, standing.Revoked)
			require.Equal(t, want.Standing.Profile, standing.Profile)
		}
		after := f.CacheStats()
		require.Equal(t, before.Misses, after.Misses)
		require.Equal(t, before.Hits+2000, after.Hits)
	})
}

// Every change by another program is seen, whatever it is.
func TestChangesByOthersAreSeen(t *testing.T) {
	onBackends(t, announcing, func(s *server) {
		t := s.t
		f := s.cached(t, session.Options{Rolling: true, Profiles: true})
		ctx := t.Context()
		ref := authz.TokenRef{UserID: "u", TokenID: "j", Family: "f"}
		reset := func() {
			t.Helper()
			for _, key := range []string{"gatehouse:dead:{sess:id}", "gatehouse:before:{user:u}", "user:u", "revoked:j", "gatehouse:dead:{refresh:f}"} {
				require.NoError(t, f.client.Del(ctx, key).Err())
			}
			f.set(t, "sess:id", `{"userId":"u","roles":["old"],"authTime":1700000000}`, time.Hour) //nolint:contextcheck // helpers have the test's own
			f.settle(t)                                                                            //nolint:contextcheck // as above
			for range 2 {
				require.Equal(t, []string{"old"}, f.session(t, "id").Roles) //nolint:contextcheck // helpers have the test's own
				standing, err := f.TokenStanding(ctx, ref, authz.ReadOptions{})
				require.NoError(t, err)
				require.Zero(t, standing)
			}
			f.settle(t) //nolint:contextcheck // as above
		}
		state := func() string {
			session, err := f.Session(ctx, "id", authz.ReadOptions{})
			if err != nil {
				return string(authz.ReasonOf(err))
			}
			standing, err := f.TokenStanding(ctx, ref, authz.ReadOptions{})
			require.NoError(t, err)
			return fmt.Sprint(session.Roles, session.Standing.RevokedBefore.Unix() > 0, session.Standing.Profile != nil, standing.Revoked, standing.Profile != nil, standing.RevokedBefore.Unix() > 0)
		}
		for name, tc := range map[string]struct {
			change func() error
			want   string
		}{
			"deleted":             {func() error { return f.client.Del(ctx, "sess:id").Err() }, "session_unknown"},
			"unlinked":            {func() error { return f.client.Unlink(ctx, "sess:id").Err() }, "session_unknown"},
			"changed":             {func() error { return f.client.Set(ctx, "sess:id", `{"userId":"u","roles":["new"]}`, time.Hour).Err() }, "[new] false false false false false"},
			"another user's":      {func() error { return f.client.Set(ctx, "sess:id", `{"userId":"v","roles":["new"]}`, time.Hour).Err() }, "[new] false false false false false"},
			"not JSON":            {func() error { return f.client.Set(ctx, "sess:id", `x`, time.Hour).Err() }, "session_malformed"},
			"appended to":         {func() error { return f.client.Append(ctx, "sess:id", `x`).Err() }, "session_malformed"},
			"renamed":             {func() error { return f.client.Rename(ctx, "sess:id", "sess:{id}").Err() }, "session_unknown"},
			"another type":        {func() error { _ = f.client.Del(ctx, "sess:id"); return f.client.HSet(ctx, "sess:id", "a", 1).Err() }, "session_malformed"},
			"marked dead":         {func() error { return f.client.Set(ctx, "gatehouse:dead:{sess:id}", 1, time.Hour).Err() }, "session_revoked"},
			"the user's mark":     {func() error { return f.client.Set(ctx, "gatehouse:before:{user:u}", 5000, time.Hour).Err() }, "[old] true false false false true"},
			"a profile":           {func() error { return f.client.Set(ctx, "user:u", `{"disabled":false}`, 0).Err() }, "[old] false true false true false"},
			"a malformed profile": {func() error { return f.client.Set(ctx, "user:u", `x`, 0).Err() }, "profile_malformed"},
			"a revoked token":     {func() error { return f.client.Set(ctx, "revoked:j", "", time.Hour).Err() }, "[old] false false true false false"},
			"a revoked family":    {func() error { return f.client.Set(ctx, "gatehouse:dead:{refresh:f}", "", time.Hour).Err() }, "[old] false false true false false"},
			"our own revocation":  {func() error { return f.Revoke(ctx, "id") }, "session_revoked"},
			"everything revoked":  {func() error { _, err := f.RevokeUser(ctx, "u"); return err }, "session_revoked"},
			"everything flushed": {func() error {
				if cluster, ok := f.client.(*redis.ClusterClient); ok {
					return cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return c.FlushAll(ctx).Err() })
				}
				return f.client.FlushAll(ctx).Err()
			}, "session_unknown"},
		} {
			if name == "renamed" && s.kind.name == "cluster" {
				continue // the other name has another slot
			}
			reset()
			require.NoError(t, tc.change(), name)
			require.Eventually(t, func() bool { return state() == tc.want }, 10*time.Second, 100*time.Microsecond, "%s: %s", name, state())
			f.settle(t)
			require.Equal(t, tc.want, state(), name)
		}
	})
}

// The very next request sees a change that was acknowledged, on a busy machine,
// too: its announcement has arrived, and is read before the answer.
func TestTheVeryNextRequestSeesAChange(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("skipped: here it is not known whether a socket has something to read")
	}
	onBackends(t, announcing[:1], func(s *server) {
		t := s.t
		f := s.cached(t, session.Options{})
		stop := make(chan struct{})
		var busy sync.WaitGroup
		defer busy.Wait()
		defer close(stop)
		for range runtime.GOMAXPROCS(0) {
			busy.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		for i := range 150 {
			f.set(t, "sess:id", fmt.Sprintf(`{"userId":"u","email":"%d"}`, i), time.Hour)
			require.Equal(t, fmt.Sprint(i), f.session(t, "id").Email)
			f.session(t, "id")
		}
		require.Positive(t, f.CacheStats().Hits)
	})
}

// Redis announces late, or never, that a key's life is over. The cache knows
// it by itself.
func TestNothingOutlivesItsTTL(t *testing.T) {
	f := newServer(t, backends[1]).cached(t, session.Options{Profiles: true})
	ctx := t.Context()
	// Redis looks for what has expired once a second, and announces it as late.
	require.NoError(t, f.client.ConfigSet(ctx, "hz", "1").Err())
	const life = 400 * time.Millisecond
	f.set(t, "sess:never", `{"userId":"v"}`, 0)
	standing := func() (authz.Standing, error) {
		return f.TokenStanding(ctx, authz.TokenRef{UserID: "u", TokenID: "j"}, authz.ReadOptions{})
	}
	hits := 0
	for tries := 0; hits == 0; tries++ { // where this machine stands still for longer than they live, once more
		require.Less(t, tries, 10, "nothing was kept")
		f.set(t, "user:u", `{"email":"x"}`, life)
		f.set(t, "revoked:j", "", life)
		f.set(t, "sess:id", `{"userId":"w"}`, life) // another user, whose end would be the session's
		over := time.Now().Add(life)
		for now := time.Now(); now.Before(over.Add(300 * time.Millisecond)); now = time.Now() {
			_, err := f.Session(ctx, "id", authz.ReadOptions{})
			if _, kept := f.CachedSession("id", authz.ReadOptions{}, &authz.Memory{}); kept {
				hits++
			}
			_, errToken := standing()
			require.NoError(t, errToken)
			if err != nil {
				require.Contains(t, []authz.Reason{authz.ReasonSessionUnknown, authz.ReasonSessionExpired}, authz.ReasonOf(err))
			} else {
				require.True(t, now.Before(over.Add(50*time.Millisecond)))
			}
		}
	}
	_, err := f.Session(ctx, "id", authz.ReadOptions{})
	requireReason(t, authz.ReasonSessionUnknown, err)
	st, err := standing()
	require.NoError(t, err)
	require.Nil(t, st.Profile)
	require.False(t, st.Revoked)
	f.session(t, "never")
}

// A read that the announcement of a change overtook is not kept: the answer is on
// its way when the change is announced.
func TestOvertakenReadsAreNotKept(t *testing.T) {
	onBackends(t, announcing[:1], func(s *server) {
		t := s.t
		for _, which := range []string{"session", "user", "token"} {
			f := s.cached(t, session.Options{Profiles: true})
			ctx := t.Context()
			f.set(t, "sess:id", `{"userId":"u","roles":["old"]}`, time.Hour)
			f.settle(t)
			asked, answer := make(chan struct{}), make(chan struct{})
			f.afterNext(t, func() { close(asked); <-answer })
			ref := authz.TokenRef{UserID: "u", TokenID: "j"}
			done := make(chan error, 1)
			go func() {
				if which == "token" {
					_, err := f.TokenStanding(ctx, ref, authz.ReadOptions{})
					done <- err
					return
				}
				_, err := f.Session(ctx, "id", authz.ReadOptions{})
				done <- err
			}()
			<-asked // and answered: the answer is held back
			switch which {
			case "session":
				f.set(t, "sess:id", `{"userId":"u","roles":["new"]}`, time.Hour)
			case "user":
				f.set(t, "user:u", `{"roles":["new"]}`, 0)
			case "token":
				f.set(t, "revoked:j", "", time.Hour)
			}
			f.settle(t)
			close(answer)
			require.NoError(t, <-done)
			session := f.session(t, "id")
			standing, err := f.TokenStanding(ctx, ref, authz.ReadOptions{})
			require.NoError(t, err)
			switch which {
			case "session":
				require.Equal(t, []string{"new"}, session.Roles)
			case "user":
				require.NotNil(t, session.Standing.Profile)
			case "token":
				require.True(t, standing.Revoked)
			}
		}
	})
}

// afterNext has something happen between the next answer of Redis and its
// arrival.
func (f fixture) afterNext(t *testing.T, happen func()) {
	t.Helper()
	session.ClientOf(f.Store).AddHook(&afterHook{happen: happen})
}

type afterHook struct {
	happen func()
	done   atomic.Bool
}

func (h *afterHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *afterHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h *afterHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if (err == nil || errors.Is(err, redis.Nil)) && h.done.CompareAndSwap(false, true) {
			h.happen()
		}
		return err
	}
}

// Many who miss the same session ask once.
func TestSimultaneousMissesAskOnce(t *testing.T) {
	f := newServer(t, backends[1]).cached(t, session.Options{})
	f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
	f.session(t, "id") // loads the scripts
	for range 20 {
		f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
		f.settle(t)
		before := f.CacheStats()
		held := make(chan struct{})
		f.afterNext(t, func() { <-held })
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				_, err := f.Session(t.Context(), "id", authz.ReadOptions{})
				if err != nil {
					t.Error(err)
				}
			})
		}
		require.Eventually(t, func() bool { return f.CacheStats().Shared == before.Shared+39 }, 10*time.Second, time.Millisecond)
		close(held)
		wg.Wait()
		require.Equal(t, before.Misses+1, f.CacheStats().Misses)
	}
}

// Who asks after a change was announced doesn't wait for the answer to a question
// from before it.
func TestNobodyJoinsAQuestionFromBeforeAChange(t *testing.T) {
	f := newServer(t, backends[1]).cached(t, session.Options{})
	f.set(t, "sess:id", `{"userId":"u","roles":["old"]}`, time.Hour)
	f.settle(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	f.afterNext(t, func() { close(asked); <-answer })
	first := make(chan error, 1)
	go func() { _, err := f.Session(t.Context(), "id", authz.ReadOptions{}); first <- err }()
	<-asked
	f.set(t, "sess:id", `{"userId":"u","roles":["new"]}`, time.Hour)
	f.settle(t)
	require.Equal(t, []string{"new"}, f.session(t, "id").Roles)
	close(answer)
	require.NoError(t, <-first)
	require.Equal(t, []string{"new"}, f.session(t, "id").Roles)
}

// Our own renewal costs no question, and loses nobody's change.
func TestOwnRenewalCostsNoRefill(t *testing.T) {
	onBackends(t, announcing, func(s *server) {
		t := s.t
		f := s.cached(t, session.Options{Rolling: true, TTL: time.Hour, IdlePrecision: time.Hour})
		f.set(t, "sess:id", `{"userId":"u","roles":["old"]}`, 30*time.Minute)
		f.settle(t)
		f.session(t, "id")
		about(t, time.Hour, f.ttl(t, "sess:id"))
		f.settle(t)
		require.Empty(t, f.writes.all())
		before := f.CacheStats()
		for range 10 {
			f.session(t, "id")
		}
		require.Equal(t, before.Misses, f.CacheStats().Misses)
		require.Equal(t, before.Hits+10, f.CacheStats().Hits)
		f.set(t, "sess:id", `{"userId":"u","roles":["new"]}`, time.Hour)
		f.settle(t)
		require.Equal(t, []string{"new"}, f.session(t, "id").Roles)
	})
}

// A storm of touches, as Express sends one with each request, only has the
// session read again.
func TestStormOfTouches(t *testing.T) {
	f := newServer(t, backends[1]).cached(t, session.Options{Rolling: true})
	f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				pipe := f.client.Pipeline()
				for range 100 {
					pipe.Expire(t.Context(), "sess:id", time.Hour)
				}
				if _, err := pipe.Exec(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for range 3000 {
		f.session(t, "id")
	}
	close(stop)
	wg.Wait()
	require.Positive(t, f.CacheStats().Invalidations)
	f.settle(t)
	f.session(t, "id")
}

// A frozen server answers nobody from the cache for longer than the lease.
func TestFrozenServerIsNotTrusted(t *testing.T) {
	proctest.Need(t, "redis-server")
	r, err := proc.StartRedis(context.WithoutCancel(t.Context()), proc.RedisOptions{Dir: t.TempDir(), Port: proctest.FreePort(t)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Stop() })
	client, err := session.Open("redis://"+r.Addr, session.OpenOptions{Timeout: 100 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	const lease = 250 * time.Millisecond // two and a half heartbeats
	store := quickStore{session.New(client, session.Options{Timeout: 100 * time.Millisecond, Profiles: true, Cache: &session.CacheOptions{Heartbeat: 100 * time.Millisecond}})}
	run(t, store.Store)
	awaitLive(t, store.Store)
	other, err := session.Open("redis://"+r.Addr, session.OpenOptions{Timeout: patience})
	require.NoError(t, err)
	t.Cleanup(func() { _ = other.Close() })
	require.NoError(t, other.Set(t.Context(), "sess:id", `{"userId":"u"}`, time.Hour).Err())
	require.NoError(t, other.Set(t.Context(), "user:broken", `{`, time.Hour).Err())
	broken := func(o authz.ReadOptions) error {
		_, err := store.TokenStanding(t.Context(), authz.TokenRef{UserID: "broken"}, o)
		return err
	}
	read := func(o authz.ReadOptions) (*authz.Session, error) { return store.Session(t.Context(), "id", o) }
	require.Eventually(t, func() bool {
		_, err := read(authz.ReadOptions{})
		_, held := session.CachedUser(store.Store, "broken")
		reason := authz.ReasonOf(broken(authz.ReadOptions{}))
		if reason != authz.ReasonProfileMalformed { // this machine is busy
			require.Contains(t, noAnswer, reason)
			return false
		}
		return err == nil && store.CacheStats().Hits > 0 && held
	}, 10*time.Second, time.Millisecond)
	proctest.Freeze(t, r.Process)
	defer func() { _ = r.Signal(syscall.SIGCONT) }()
	frozen := time.Now()
	for {
		// However slow this machine is: what is asked when the lease is over is refused.
		asked := time.Since(frozen)
		if _, err = read(authz.ReadOptions{}); err != nil {
			break
		}
		require.Less(t, asked, lease, "the lease is from before it was frozen")
	}
	requireNoAnswer(t, err)
	// By leave of a policy it answers a while longer, and says so.
	var stale *authz.Session
	require.NoError(t, inTime(t, func() (err error) {
		stale, err = read(authz.ReadOptions{StaleFor: time.Hour})
		return err
	}))
	require.True(t, stale.Stale)
	require.Equal(t, "u", stale.ID)
	_, err = read(authz.ReadOptions{StaleFor: time.Millisecond})
	requireNoAnswer(t, err)
	var standing authz.Standing
	require.NoError(t, inTime(t, func() (err error) {
		standing, err = store.TokenStanding(t.Context(), authz.TokenRef{UserID: "u"}, authz.ReadOptions{StaleFor: time.Hour})
		return err
	}))
	require.Nil(t, standing.Profile)
	require.True(t, standing.Stale)
	requireReason(t, authz.ReasonProfileMalformed, inTime(t, func() error { return broken(authz.ReadOptions{StaleFor: time.Hour}) }))
	require.NoError(t, r.Signal(syscall.SIGCONT))
	require.Eventually(t, func() bool { _, err := read(authz.ReadOptions{}); return err == nil }, 10*time.Second, time.Millisecond)
	require.Positive(t, store.CacheStats().Stale)
}

// Conditions see the whole record where they need it.
func TestRecordsAreKeptForConditions(t *testing.T) {
	f := newServer(t, backends[1]).cached(t, session.Options{Cache: &session.CacheOptions{}})
	f.set(t, "sess:id", `{"userId":"u","cart":{"n":12345678901234567890}}`, time.Hour)
	f.settle(t)
	f.session(t, "id")
	got := f.session(t, "id")
	require.Equal(t, json.Number("12345678901234567890"), got.Values["cart"].(map[string]any)["n"])
	require.Positive(t, f.CacheStats().Hits)
}

// A fresh read takes a record apart only when it is another one than before, and
// answers as one that does it each time: whatever changes, it is seen at once,
// announced or not.
func TestFreshReadsOfTheSameRecord(t *testing.T) {
	onBackends(t, announcing, func(s *server) {
		t := s.t
		var ahead atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		f := s.cached(t, session.Options{Now: now})
		plain := session.New(f.client, session.Options{Now: now, Profiles: true, Timeout: patience})
		fresh := authz.ReadOptions{Fresh: true, Passive: true} // which writes nothing
		same := func(parsed bool) {
			t.Helper()
			want, err := plain.Session(t.Context(), "id", fresh)
			got, gotErr := f.Session(t.Context(), "id", fresh)
			require.Equal(t, authz.ReasonOf(err), authz.ReasonOf(gotErr))
			if err != nil {
				return
			}
			require.Equal(t, parsed, got.Values != nil, "taken apart")
			require.Equal(t, want.Identity, got.Identity)
			require.Equal(t, want.Organizations, got.Organizations)
			require.True(t, want.AuthTime.Equal(got.AuthTime), "%v, %v", want.AuthTime, got.AuthTime)
			require.True(t, want.Created.Equal(got.Created))
			require.True(t, want.LastSeen.Equal(got.LastSeen))
			require.Equal(t, want.Standing, got.Standing)
		}
		record := func(roles string, authTime time.Time) string {
			return fmt.Sprintf(`{"userId":"u","email":"e","roles":%s,"organizations":["o"],"authTime":%d,"cookie":{"originalMaxAge":3600000}}`, roles, authTime.Unix())
		}
		known := func() { // the record is known by now
			t.Helper()
			f.settle(t)
			_, err := f.Session(t.Context(), "id", fresh)
			require.NoError(t, err)
			same(false)
		}
		f.set(t, "sess:id", record(`["a"]`, time.Now()), time.Hour)
		f.settle(t)
		same(true)
		for range 3 {
			same(false)
		}
		f.set(t, "sess:id", record(`["b"]`, time.Now()), time.Hour)
		same(true)
		known()
		f.set(t, "gatehouse:seen:{sess:id}", fmt.Sprint(time.Now().UnixMilli()), time.Hour)
		same(false)
		f.set(t, "user:u", `{"roles":["c"],"email":null}`, 0)
		same(false)
		require.NoError(t, f.client.Expire(t.Context(), "sess:id", time.Minute).Err())
		same(false)
		f.set(t, "gatehouse:before:{user:u}", fmt.Sprint(time.Now().UnixMilli()), time.Hour)
		same(false)
		f.set(t, "sess:id", record(`{"no":"list"}`, time.Now()), time.Hour)
		same(true) // both refuse
		f.set(t, "sess:id", record(`[]`, time.Now().Add(10*time.Minute)), time.Hour)
		f.settle(t)
		same(true)
		same(true) // its time lies ahead: it will be read otherwise by and by
		ahead.Store(int64(6 * time.Minute))
		same(true)
		known()
		require.NoError(t, f.client.Del(t.Context(), "sess:id").Err())
		same(true) // as above
	})
}

// Answers about sessions and profiles are checked against a model, while others
// change, delete and flush everything and connections break: what was acknowledged
// and announced is seen, and an answer is never one from before that.
func TestCacheAgainstAModel(t *testing.T) {
	onBackends(t, announcing, func(s *server) {
		t := s.t
		f := s.cached(t, session.Options{Rolling: true, Profiles: true, Cache: &session.CacheOptions{MaxEntries: 64, Heartbeat: 50 * time.Millisecond}})
		ctx := t.Context()
		const ids = 12
		var models [ids]model
		for i := range models {
			models[i].key = fmt.Sprint([]string{"sess:m", "user:m"}[i%2], i)
		}
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for worker := range 4 {
			readers.Go(func() {
				rnd := rand.New(rand.NewPCG(7, uint64(worker)))
				for {
					select {
					case <-stop:
						return
					default:
					}
					i := rnd.IntN(ids)
					least := models[i].settled.Load()
					got := -1
					email, err := models[i].read(ctx, f, authz.ReadOptions{Fresh: rnd.IntN(20) == 0})
					switch {
					case err == nil:
						_, _ = fmt.Sscan(email, &got)
					case authz.ReasonOf(err) == authz.ReasonSessionUnknown:
						got = int(models[i].gone())
					case slices.Contains(noAnswer, authz.ReasonOf(err)):
						continue // a connection was cut under it
					default:
						t.Errorf("%v", err)
						return
					}
					if int64(got) < least {
						t.Errorf("%s: version %d after %d was known", models[i].key, got, least)
						return
					}
				}
			})
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		end := time.Now().Add(4 * time.Second)
		for step := 0; time.Now().Before(end); step++ {
			i := rnd.IntN(ids)
			models[i].write(t, f, rnd.IntN(4) == 0)
			switch {
			case step%100 == 50:
				f.killConnections(t, rnd)
				awaitLive(t, f.Store)
			case step%100 == 99:
				for j := range models {
					models[j].removed()
				}
				f.flush(t)
			case rnd.IntN(8) == 0:
				f.settle(t)
				for j := range models {
					models[j].settled.Store(models[j].version)
				}
			}
		}
		close(stop)
		readers.Wait()
		f.settle(t)
		for i := range models {
			email, err := models[i].read(ctx, f, authz.ReadOptions{})
			if models[i].deleted {
				requireReason(t, authz.ReasonSessionUnknown, err)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(models[i].version), email)
		}
		require.Positive(t, f.CacheStats().Hits)
		require.Positive(t, f.CacheStats().Drops)
		require.Positive(t, f.CacheStats().Flushes)
	})
}

// flush takes all keys out.
func (f fixture) flush(t *testing.T) {
	t.Helper()
	if cluster, ok := f.client.(*redis.ClusterClient); ok {
		require.NoError(t, cluster.ForEachMaster(t.Context(), func(ctx context.Context, c *redis.Client) error { return c.FlushAll(ctx).Err() }))
		return
	}
	require.NoError(t, f.client.FlushAll(t.Context()).Err())
}

// model is what a session, or a profile, should be: versions follow each other, and
// some are that it is not there.
type model struct {
	key     string
	version int64
	deleted bool
	settled atomic.Int64 // the version that must be known everywhere

	mu    sync.Mutex
	holes []int64 // versions in which it was not there
}

func (m *model) write(t *testing.T, f fixture, remove bool) {
	t.Helper()
	if remove {
		m.removed()
		require.NoError(t, f.client.Del(t.Context(), m.key).Err())
		return
	}
	m.version++
	m.deleted = false
	f.set(t, m.key, fmt.Sprintf(`{"userId":"u","email":"%d"}`, m.version), time.Hour)
}

// removed makes the next version one in which it is not there.
func (m *model) removed() {
	m.version++
	m.deleted = true
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holes = append(m.holes, m.version)
}

// read asks for it. A profile that is not there is refused as a session is.
func (m *model) read(ctx context.Context, f fixture, o authz.ReadOptions) (email string, err error) {
	if id, ok := strings.CutPrefix(m.key, "sess:"); ok {
		session, err := f.Session(ctx, id, o)
		if err != nil {
			return "", err
		}
		return session.Email, nil
	}
	standing, err := f.TokenStanding(ctx, authz.TokenRef{UserID: strings.TrimPrefix(m.key, "user:")}, o)
	switch {
	case err != nil:
		return "", err
	case standing.Profile == nil:
		return "", authz.Refuse(authz.ReasonSessionUnknown, "no profile")
	}
	return *standing.Profile.Email, nil
}

// gone returns the latest version in which it was not there; a session that
// nobody wrote yet is version 0.
func (m *model) gone() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.holes) == 0 {
		return 0
	}
	return m.holes[len(m.holes)-1]
}

// killConnections kills one of the connections on which the cache depends.
func (f fixture) killConnections(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	kill := func(ctx context.Context, c redis.Cmdable) error {
		list, err := c.ClientList(ctx).Result()
		if err != nil {
			return err
		}
		var victims []string
		for line := range strings.Lines(list) {
			if strings.Contains(line, " sub=1 ") || !strings.Contains(line, "redir=-1") {
				victims = append(victims, strings.TrimPrefix(strings.Fields(line)[0], "id="))
			}
		}
		if len(victims) == 0 {
			return nil
		}
		return c.ClientKillByFilter(ctx, "id", victims[rnd.IntN(len(victims))]).Err()
	}
	if cluster, ok := f.client.(*redis.ClusterClient); ok {
		var mu sync.Mutex
		require.NoError(t, cluster.ForEachMaster(t.Context(), func(ctx context.Context, c *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			return kill(ctx, c)
		}))
		return
	}
	require.NoError(t, kill(t.Context(), f.client))
}

// A server that does not announce is asked every time, and the store says why.
func TestServerThatDoesNotAnnounce(t *testing.T) {
	for _, kind := range []string{"embedded", "-client|tracking", "-client|getredir", "-info"} {
		var client redis.UniversalClient
		if kind == "embedded" {
			client, _ = newServer(t, backends[0]).connect(t, patience)
		} else {
			s := newServer(t, backends[1])
			admin, _ := s.connect(t, patience)
			require.NoError(t, admin.Do(t.Context(), "acl", "setuser", "poor", "on", ">secret", "~*", "&*", "+@all", kind).Err())
			var err error
			client, err = session.Open(strings.Replace(s.url, "redis://", "redis://poor:secret@", 1), session.OpenOptions{Timeout: patience})
			require.NoError(t, err)
			t.Cleanup(func() { _ = client.Close() })
		}
		store := session.New(client, session.Options{Timeout: patience, Cache: &session.CacheOptions{}})
		run(t, store)
		require.Eventually(t, func() bool { st, _ := store.CacheState(); return st.Unsupported }, 10*time.Second, time.Millisecond)
		st, ok := store.CacheState()
		require.True(t, ok)
		require.False(t, st.Live)
		require.Error(t, st.Err)
		require.NoError(t, client.Set(t.Context(), "sess:id", `{"userId":"u","roles":["old"]}`, time.Hour).Err())
		_, err := store.Session(t.Context(), "id", authz.ReadOptions{})
		require.NoError(t, err)
		require.NoError(t, client.Set(t.Context(), "sess:id", `{"userId":"u","roles":["new"]}`, time.Hour).Err())
		got, err := store.Session(t.Context(), "id", authz.ReadOptions{})
		require.NoError(t, err)
		require.Equal(t, []string{"new"}, got.Roles)
		require.Zero(t, store.CacheStats().Hits)
	}
}

func TestStoreWithoutACache(t *testing.T) {
	f := newServer(t, backends[0]).store(t, session.Options{})
	_, ok := f.CacheState()
	require.False(t, ok)
	require.Zero(t, f.CacheStats())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, f.Run(ctx))
}

// The age of the proof falls with each heartbeat, and when no more announcements come it
// grows beyond the time for which the cache answers.
func TestTheAgeOfTheProofIsTheStaleness(t *testing.T) {
	t.Parallel()
	const heartbeat = 20 * time.Millisecond
	f := newServer(t, backends[1]).cached(t, session.Options{Cache: &session.CacheOptions{Heartbeat: heartbeat}})
	age := func() time.Duration {
		age, ok := f.CacheProofAge()
		require.True(t, ok)
		require.Positive(t, age)
		return age
	}
	last := age()
	require.Eventually(t, func() bool {
		before := last
		last = age()
		return last < before
	}, 20*time.Second, time.Millisecond, "a proof came")
	f.cut()
	require.Eventually(t, func() bool { return age() > 5*heartbeat }, 20*time.Second, time.Millisecond)
	st, _ := f.CacheState()
	require.False(t, st.Live)
	_, ok := newServer(t, backends[1]).store(t, session.Options{}).CacheProofAge()
	require.False(t, ok, "there is no cache")
}
