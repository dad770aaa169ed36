package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/limit"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// Far more of one kind of calls come than Redis can answer behind a slow line. That is
// their own matter: every check is answered beside them, every revocation is made, all of
// a user's as well, and nobody takes Redis for silent.
func TestAFloodHoldsUpNobodyElse(t *testing.T) {
	const timeout, slow, callers, records = 2 * time.Second, 50 * time.Millisecond, 400, 700
	duration := 3 * time.Second // from when it is one
	if testing.Short() {
		duration = time.Second
	}
	c := newChain("family")
	used, next := c.token(0), c.token(1).Hash
	for _, tc := range []struct {
		name string
		one  func(ctx context.Context, g guardedStore, guesses *limit.Guesses, i int) (answered bool)
	}{
		{"of tries at passwords", func(ctx context.Context, _ guardedStore, guesses *limit.Guesses, i int) bool {
			_, err := guesses.Attempt(ctx, fmt.Sprint("user-", i), "192.0.2.1")
			return err == nil
		}},
		{"of refresh tokens that have ended", func(ctx context.Context, g guardedStore, _ *limit.Guesses, i int) bool {
			_, err := g.Family(ctx, fmt.Sprint("family-", i))
			return authz.ReasonOf(err) == authz.ReasonRefreshInvalid
		}},
		{"of refresh tokens that live", func(ctx context.Context, g guardedStore, _ *limit.Guesses, _ int) bool {
			if _, err := g.Family(ctx, "family"); err != nil {
				return false
			}
			_, err := g.RotateFamily(ctx, used, next)
			return err == nil
		}},
		{"of lists", func(ctx context.Context, g guardedStore, _ *limit.Guesses, i int) bool {
			_, err := g.UserSessions(ctx, fmt.Sprint("user-", i), false)
			return err == nil
		}},
	} {
		attempt := func(t *testing.T) (counts bool) {
			t.Helper()
			g := newGuarded(t, session.Options{Timeout: timeout, RefreshGrace: time.Hour})
			require.NoError(t, g.CreateFamily(t.Context(), authz.Family{ID: "family", UserID: "u", Hash: used.Hash}))
			for i := range records {
				g.put(t, fmt.Sprint("other-", i), fmt.Sprintf(`{"userId":"user-%d"}`, i%callers))
			}
			g.put(t, "victim", `{"userId":"victim"}`)
			guesses := limit.NewGuesses(session.ClientOf(g.Store), limit.GuessOptions{
				Timeout: timeout, Account: 1 << 20, Address: 1 << 20,
			})
			// All scripts and connections are there, and it is known how slow Redis is.
			g.lag.Delay(slow)
			longest := g.lag.Watch(t)
			ready := 0
			require.Eventually(t, func() bool {
				var all sync.WaitGroup
				for range guardedPool {
					all.Go(func() { g.knock(t.Context()) })
				}
				all.Wait()
				_, err := guesses.Attempt(t.Context(), "user", "192.0.2.1")
				if errors.Join(err, g.End(t.Context(), authz.Ending{SessionID: "nobody"})) == nil && g.knock(t.Context()) == authz.ReasonSessionUnknown {
					ready++ // else this machine is busy
				}
				return ready == 3
			}, 3*patience, time.Millisecond)

			ctx, stop := context.WithCancel(t.Context())
			var flood sync.WaitGroup
			var answered, unanswered atomic.Int64
			for i := range callers {
				flood.Go(func() {
					for ctx.Err() == nil {
						if tc.one(ctx, g, guesses, i) {
							answered.Add(1)
							continue
						}
						unanswered.Add(1)
						time.Sleep(100 * time.Millisecond) // or it would be about this machine
					}
				})
			}
			defer flood.Wait()
			defer stop()
			require.Eventually(t, func() bool { return unanswered.Load() > 0 }, patience, time.Millisecond, "it is no flood")
			until := time.Now().Add(duration)
			before, early := g.GuardStats(), answered.Load()
			var checks sync.WaitGroup
			var known, refused atomic.Int64
			var other sync.Map
			for range 20 {
				checks.Go(func() {
					for time.Now().Before(until) {
						_, err := g.Session(t.Context(), fmt.Sprint("nobody-", knocked.Add(1)), authz.ReadOptions{})
						if authz.ReasonOf(err) == authz.ReasonSessionUnknown {
							known.Add(1)
						} else {
							refused.Add(1)
							other.Store(fmt.Sprint(err), true)
						}
					}
				})
			}
			var undone error
			for i := range 10 {
				id := fmt.Sprint("revoked-", i)
				undone = errors.Join(undone, g.End(t.Context(), authz.Ending{SessionID: id, Family: id}))
			}
			ended, err := g.RevokeUser(t.Context(), "victim")
			undone = errors.Join(undone, err, g.Ping(t.Context()))
			checks.Wait()
			stats, stood := g.GuardStats(), longest()
			late := answered.Load() - early
			t.Logf("flood: %d answered, %d not; checks: %d answered, %d not: %+v; the line stood still for %v", late, unanswered.Load(), known.Load(), refused.Load(), stats, stood)
			other.Range(func(err, _ any) bool { t.Log(err); return true })
			if stood >= timeout/8 && (undone != nil || known.Load() == 0 || late == 0 || refused.Load() > 0 || stats.Opened > 0) {
				return false // Redis was as slow for a moment as nobody would wait for
			}
			require.NoError(t, undone, "and the store is in reach")
			require.Equal(t, 1, ended)
			require.Positive(t, known.Load())
			require.Zero(t, refused.Load())
			require.Zero(t, stats.Opened)
			require.Equal(t, before.Broken, stats.Broken)
			require.Empty(t, g.told.answers())
			require.Positive(t, late, "as many as can be are answered")
			return true
		}
		t.Run(tc.name, func(t *testing.T) {
			for range 5 {
				if attempt(t) {
					return
				}
			}
			t.Skip("no verdict: this machine is so busy that Redis seemed slow each time")
		})
	}
}

// There are more kinds of calls than connections: each kind gets its turn all the same,
// and nobody waits for somebody who waits for them.
func TestTheSmallestPoolIsEnoughForAll(t *testing.T) {
	t.Parallel()
	r := proctest.StartRedis(t)
	for size := 1; size <= 3; size++ {
		client, err := session.Open("redis://"+r.Addr, session.OpenOptions{Timeout: patience, PoolSize: size})
		require.NoError(t, err)
		defer func() { _ = client.Close() }()
		store := session.New(client, session.Options{Timeout: patience, Rolling: true, TouchInterval: time.Millisecond, IdlePrecision: time.Millisecond})
		guesses := limit.NewGuesses(client, limit.GuessOptions{Timeout: patience, Account: 1 << 20, Address: 1 << 20})
		var all sync.WaitGroup
		for i := range 10 {
			id, err := store.Create(t.Context(), session.NewSession{Identity: authz.Identity{ID: fmt.Sprint("user-", i)}})
			require.NoError(t, err)
			all.Go(func() { // a lookup, and a touch as a rule
				for range 30 {
					if _, err := store.Session(t.Context(), id, authz.ReadOptions{}); err != nil {
						t.Error(size, err)
					}
				}
			})
			all.Go(func() {
				for range 30 {
					if _, err := guesses.Attempt(t.Context(), "user", "192.0.2.1"); err != nil {
						t.Error(size, err)
					}
				}
			})
			all.Go(func() {
				for range 30 {
					if err := store.End(t.Context(), authz.Ending{SessionID: fmt.Sprint("none-", i)}); err != nil {
						t.Error(size, err)
					}
				}
			})
		}
		all.Wait()
		require.Zero(t, store.GuardStats())
	}
}

// hog takes all turns of a kind of commands, until the end of the test.
func hog(t *testing.T, f fixture, kind func(context.Context, time.Duration) (context.Context, context.CancelFunc)) {
	t.Helper()
	client := f.client.(*redis.Client)
	turns := client.Options().PoolSize / 8
	var hogs sync.WaitGroup
	direct := redis.NewClient(&redis.Options{Addr: client.Options().Addr, Protocol: 2, DisableIdentity: true})
	for range turns {
		hogs.Go(func() {
			ctx, cancel := kind(t.Context(), time.Hour)
			defer cancel()
			_ = client.BLPop(ctx, 0, "hog").Err()
		})
	}
	t.Cleanup(func() {
		defer func() { _ = direct.Close() }()
		for range turns {
			_ = direct.RPush(context.Background(), "hog", "enough").Err()
		}
		hogs.Wait()
	})
	require.Eventually(t, func() bool {
		info, err := direct.Info(t.Context(), "clients").Result()
		return err == nil && strings.Contains(info, fmt.Sprintf("blocked_clients:%d\r", turns))
	}, patience, time.Millisecond)
}

// What takes something away has turns that nothing else takes, and needs no others.
func TestNoRevocationNeedsATurnOfWhatIsAsked(t *testing.T) {
	t.Parallel()
	f := openStore(t, "redis://"+proctest.StartRedis(t).Addr, session.Options{Profiles: true, Timeout: 2 * time.Second})
	prepareRevocations(t, f)
	c := newChain("family")
	used, next := c.token(0), c.token(1).Hash
	require.NoError(t, f.CreateFamily(t.Context(), authz.Family{ID: "family", UserID: "u", Hash: used.Hash}))
	hog(t, f, redisguard.Repeatable)
	before := f.allKeys(t, "*")
	var refused sync.WaitGroup
	for name, ask := range map[string]func(ctx context.Context) error{
		"Family": func(ctx context.Context) error { _, err := f.Family(ctx, "family"); return err },
		"RotateFamily": func(ctx context.Context) error {
			_, err := f.RotateFamily(ctx, used, next)
			return err
		},
		"CreateFamily": func(ctx context.Context) error {
			return f.CreateFamily(ctx, authz.Family{ID: "more", UserID: "more", Hash: used.Hash})
		},
		"Create": func(ctx context.Context) error {
			_, err := f.Create(ctx, session.NewSession{Identity: authz.Identity{ID: "more"}})
			return err
		},
		"UserSessions": func(ctx context.Context) error { _, err := f.UserSessions(ctx, "u", false); return err },
		"UserFamilies": func(ctx context.Context) error { _, err := f.UserFamilies(ctx, "u"); return err },
		"UserSession":  func(ctx context.Context) error { _, _, err := f.UserSession(ctx, "u", "none"); return err },
		"Profile":      func(ctx context.Context) error { _, _, err := f.Profile(ctx, "u"); return err },
		"SwitchOrganization": func(ctx context.Context) error {
			return f.SwitchOrganization(ctx, "a", "acme")
		},
		"SwitchProfile": func(ctx context.Context) error { return f.SwitchProfile(ctx, "u", "acme") },
		"CompleteProfile": func(ctx context.Context) error {
			return f.CompleteProfile(ctx, authz.User{Identity: authz.Identity{ID: "more"}})
		},
	} {
		refused.Go(func() {
			if err := ask(t.Context()); authz.ReasonOf(err) != authz.ReasonOverloaded {
				t.Error(name, err)
			}
		})
	}
	refused.Wait()
	require.ElementsMatch(t, before, f.allKeys(t, "*"), "what is refused has changed nothing")
	for name, revoke := range revocations(f) {
		mark, err := revoke(t.Context())
		require.NoError(t, err, name)
		require.True(t, mark == "" || f.exists(t, mark), name)
	}
}

// Revocations hold up nothing else, however many there are.
func TestNothingElseNeedsATurnOfRevocations(t *testing.T) {
	t.Parallel()
	f := openStore(t, "redis://"+proctest.StartRedis(t).Addr, session.Options{Profiles: true, Timeout: 2 * time.Second})
	require.NoError(t, f.CreateFamily(t.Context(), authz.Family{ID: "family", UserID: "u"}))
	hog(t, f, func(ctx context.Context, _ time.Duration) (context.Context, context.CancelFunc) {
		return context.WithCancel(ctx)
	})
	require.NoError(t, f.Ping(t.Context()), "the store is in reach")
	_, err := f.Family(t.Context(), "family")
	require.NoError(t, err)
	_, err = f.UserFamilies(t.Context(), "u")
	require.NoError(t, err)
	_, err = f.UserSessions(t.Context(), "u", false)
	require.NoError(t, err)
	require.NoError(t, f.CompleteProfile(t.Context(), authz.User{Identity: authz.Identity{ID: "u"}}))
	require.NoError(t, f.SwitchProfile(t.Context(), "u", "acme"))
}

// A revocation that replicas don't confirm keeps its turn for as long as it waits for
// them. That is at the cost of touches alone: others for which there is no turn in time
// are made without a question to the replicas.
func TestWhoWaitsForReplicasHoldsUpNoCheck(t *testing.T) {
	t.Parallel()
	const timeout, revoked = time.Second, 3 * guardedPool
	g := newGuarded(t, session.Options{Timeout: timeout, ConfirmReplicas: 1}) // and there is none
	guesses := limit.NewGuesses(session.ClientOf(g.Store), limit.GuessOptions{Timeout: timeout, Account: 1 << 20, Address: 1 << 20})
	var revocations sync.WaitGroup
	for i := range revoked {
		revocations.Go(func() {
			err := g.End(t.Context(), authz.Ending{SessionID: fmt.Sprint(i)})
			if reason := authz.ReasonOf(err); reason != authz.ReasonNotConfirmed {
				t.Error(i, reason, err)
			}
		})
	}
	ended := make(chan struct{})
	go func() { defer close(ended); revocations.Wait() }()
	for asked := 0; ; asked++ {
		select {
		case <-ended:
			require.Positive(t, asked)
			require.Zero(t, g.GuardStats().Opened)
			for i := range revoked {
				made, err := g.direct.Exists(t.Context(), fmt.Sprintf("gatehouse:dead:{sess:%d}", i)).Result()
				require.NoError(t, err)
				require.EqualValues(t, 1, made, "it was told that it is made, and not confirmed")
			}
			return
		default:
		}
		_, err := g.Session(t.Context(), "nobody", authz.ReadOptions{})
		requireReason(t, authz.ReasonSessionUnknown, err)
		_, err = guesses.Attempt(t.Context(), "user", "192.0.2.1")
		require.NoError(t, err)
		_, err = g.Family(t.Context(), "none")
		requireReason(t, authz.ReasonRefreshInvalid, err)
	}
}

// Callers may never have as much patience as the store: that they got no answer in half
// of its deadline counts, too.
func TestImpatientCallersNoticeASilence(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, session.Options{Timeout: 200 * time.Millisecond})
	require.Eventually(t, func() bool { return g.knock(t.Context()) == authz.ReasonSessionUnknown }, patience, time.Millisecond)
	g.lag.Hold()
	for _, end := range []func() (context.Context, context.CancelFunc){
		func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 150*time.Millisecond)
		},
		func() (context.Context, context.CancelFunc) { // whose caller has given up
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(150*time.Millisecond, cancel)
			return ctx, cancel
		},
	} {
		require.Eventually(t, func() bool {
			ctx, cancel := end()
			defer cancel()
			require.Contains(t, noAnswer, g.knock(ctx))
			return g.GuardStats().Silent == 1
		}, patience, time.Millisecond)
		require.Equal(t, authz.ReasonStoreUnavailable, g.knock(t.Context()))
		g.lag.Release()
		require.Eventually(t, func() bool { return g.knock(t.Context()) == authz.ReasonSessionUnknown }, patience, time.Millisecond)
		g.lag.Hold()
	}
}

// That nobody was answered for a while says how slow Redis is only as far as somebody
// has waited meanwhile. Else it may have been this process that stood still, and the
// answers are there.
func TestABurstAfterAPauseIsNotRefused(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, session.Options{Timeout: patience})
	var all sync.WaitGroup
	ask := func(patient time.Duration, n int) {
		for range n {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patient)
				defer cancel()
				if reason := g.knock(ctx); reason != authz.ReasonSessionUnknown {
					t.Error(reason)
				}
			})
		}
	}
	ask(patience, guardedPool)
	all.Wait()
	g.lag.Hold()
	ask(patience, guardedPool) // take all turns
	require.Eventually(t, func() bool { return g.GuardStats().Waiting == guardedPool }, patience, time.Millisecond)
	const pause = 2 * time.Second
	time.Sleep(pause) // as if it were this process
	ask(2*pause, guardedPool)
	require.Eventually(t, func() bool {
		s := g.GuardStats()
		return s.Waiting == 2*guardedPool || s.Slow > 0
	}, patience, time.Millisecond)
	g.lag.Release()
	all.Wait()
	require.Zero(t, g.GuardStats().Slow)
}
