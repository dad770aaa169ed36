package session_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authztest"
	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// chain makes the refresh tokens of a family, each from the one before.
type chain struct {
	family string
	tokens []authz.RefreshToken
}

func hashOf(text string) [32]byte { return sha256.Sum256([]byte(text)) }

func newChain(family string) *chain { return &chain{family: family} }

// token returns the token of a generation.
func (c *chain) token(generation int) authz.RefreshToken {
	for n := len(c.tokens); n <= generation; n++ {
		text := fmt.Sprint(c.family, ".", n)
		c.tokens = append(c.tokens, authz.RefreshToken{Family: c.family, Generation: n, Hash: hashOf(text), Text: text})
	}
	return c.tokens[generation]
}

// family keeps a new family of u, and returns its tokens.
func (f fixture) family(t *testing.T, id string) *chain {
	t.Helper()
	c := newChain(id)
	require.NoError(t, f.CreateFamily(t.Context(), authz.Family{ID: id, UserID: "u", Hash: c.token(0).Hash}))
	return c
}

// rotate uses a token, which must work, and returns the generation that is
// current then.
func (f fixture) rotate(t *testing.T, c *chain, generation int) int {
	t.Helper()
	got, err := f.RotateFamily(t.Context(), c.token(generation), c.token(generation+1).Hash)
	require.NoError(t, err)
	require.Equal(t, c.token(got.Generation).Hash, got.Hash)
	return got.Generation
}

func (f fixture) notRotated(t *testing.T, c *chain, generation int, reason authz.Reason) {
	t.Helper()
	_, err := f.RotateFamily(t.Context(), c.token(generation), c.token(generation+1).Hash)
	requireReason(t, reason, err)
}

func (f fixture) familyGone(t *testing.T, id string) {
	t.Helper()
	_, err := f.Family(t.Context(), id)
	requireReason(t, authz.ReasonRefreshInvalid, err)
	require.False(t, f.exists(t, "refresh:"+id))
	standing, err := f.TokenStanding(t.Context(), authz.TokenRef{Family: id}, authz.ReadOptions{})
	require.NoError(t, err)
	require.True(t, standing.Revoked, "access tokens that came from it")
}

func familiesRotate(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	start := f.clock.Now()
	c := newChain("f")
	want := authz.Family{
		ID: "f", UserID: "u", AuthTime: start.Add(-time.Hour), Created: start, LastUsed: start,
		Device: authz.Device{Address: "192.0.2.7", UserAgent: "Phone"}, Hash: c.token(0).Hash,
	}
	require.NoError(t, f.CreateFamily(t.Context(), want))
	same := func(want, got authz.Family) {
		t.Helper()
		require.WithinDuration(t, f.clock.Now().Add(7*24*time.Hour), got.Expires, 20*time.Second)
		for _, pair := range [][2]time.Time{{want.AuthTime, got.AuthTime}, {want.Created, got.Created}, {want.LastUsed, got.LastUsed}} {
			require.WithinDuration(t, pair[0], pair[1], 0)
		}
		timeless := func(f authz.Family) authz.Family {
			f.AuthTime, f.Created, f.LastUsed, f.Expires = time.Time{}, time.Time{}, time.Time{}, time.Time{}
			return f
		}
		require.Equal(t, timeless(want), timeless(got))
	}
	got, err := f.Family(t.Context(), "f")
	require.NoError(t, err)
	same(want, got)
	about(t, 7*24*time.Hour, f.ttl(t, "refresh:f"))
	about(t, 14*24*time.Hour, f.ttl(t, "gatehouse:families:{user:u}"))

	require.NoError(t, f.client.PExpire(t.Context(), "refresh:f", time.Hour).Err())
	require.NoError(t, f.client.PExpire(t.Context(), "gatehouse:families:{user:u}", time.Hour).Err())
	f.clock.Advance(time.Minute)
	got, err = f.RotateFamily(t.Context(), c.token(0), c.token(1).Hash)
	require.NoError(t, err)
	want.Generation, want.Hash, want.LastUsed = 1, c.token(1).Hash, f.clock.Now()
	same(want, got)
	got, err = f.Family(t.Context(), "f")
	require.NoError(t, err)
	same(want, got)
	about(t, 7*24*time.Hour, f.ttl(t, "refresh:f"))
	about(t, 14*24*time.Hour, f.ttl(t, "gatehouse:families:{user:u}"))

	logins, err := f.UserFamilies(t.Context(), "u")
	require.NoError(t, err)
	require.Len(t, logins, 1)
	require.Equal(t, authz.Handle("f"), logins[0].Handle)
	require.Equal(t, want.Device, logins[0].Device)
	require.Equal(t, authz.User{Identity: authz.Identity{ID: "u"}}, logins[0].User)
	require.WithinDuration(t, start, logins[0].Created, 0)
	require.WithinDuration(t, want.LastUsed, logins[0].LastSeen, 0)

	// Nothing of a token is kept but its hash.
	fields, err := f.client.HGetAll(t.Context(), "refresh:f").Result()
	require.NoError(t, err)
	for _, value := range fields {
		require.NotContains(t, value, c.token(0).Text)
		require.NotContains(t, value, c.token(1).Text)
	}
}

func refreshReuseRevokesTheFamily(t *testing.T, s *server) {
	t.Helper()
	for name, tc := range map[string]struct {
		options session.Options
		after   time.Duration
		want    authz.Reason // "": the same successor
	}{
		"at the same moment":         {living, 0, ""},
		"at the end of the grace":    {living, 10 * time.Second, ""},
		"after the grace":            {living, 10*time.Second + time.Millisecond, authz.ReasonRefreshReused},
		"a longer grace":             {session.Options{RefreshGrace: time.Minute}, time.Minute, ""},
		"after a longer one":         {session.Options{RefreshGrace: time.Minute}, time.Minute + 1e6, authz.ReasonRefreshReused},
		"no grace":                   {session.Options{RefreshGrace: -1}, 0, authz.ReasonRefreshReused},
		"no grace, a moment later":   {session.Options{RefreshGrace: -time.Hour}, time.Millisecond, authz.ReasonRefreshReused},
		"a clock that is behind":     {living, -5 * time.Second, ""},
		"no grace, and a clock back": {session.Options{RefreshGrace: -1}, -5 * time.Second, authz.ReasonRefreshReused},
	} {
		f := s.store(t, tc.options)
		c := f.family(t, "f")
		require.Equal(t, 1, f.rotate(t, c, 0))
		f.clock.Advance(tc.after)
		if tc.want == "" {
			require.Equal(t, 1, f.rotate(t, c, 0), name)
			require.Equal(t, 2, f.rotate(t, c, 1), name)
			continue
		}
		f.notRotated(t, c, 0, tc.want)
		f.familyGone(t, "f")
		f.notRotated(t, c, 1, authz.ReasonRefreshInvalid)
		about(t, 20*time.Minute, f.ttl(t, "gatehouse:dead:{refresh:f}"))
	}
}

// A tab that comes late, but within the grace, gets what is current, however
// often the others refreshed in between.
func repeatedRefreshFollowsTheChain(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	c := f.family(t, "f")
	for n := range 5 {
		require.Equal(t, n+1, f.rotate(t, c, n))
		f.clock.Advance(2 * time.Second)
		for old := range n + 1 {
			require.Equal(t, n+1, f.rotate(t, c, old))
		}
	}
	// 0 was used 10 s ago, which is the end of its grace; then only 1 and later
	// can be repeated.
	require.Equal(t, 5, f.rotate(t, c, 0))
	f.clock.Advance(time.Millisecond)
	require.Equal(t, 5, f.rotate(t, c, 1))
	f.notRotated(t, c, 0, authz.ReasonRefreshReused)
	f.familyGone(t, "f")
}

func wrongTokensChangeNothing(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	c := f.family(t, "f")
	f.rotate(t, c, 0)
	before, err := f.client.HGetAll(t.Context(), "refresh:f").Result()
	require.NoError(t, err)
	for name, token := range map[string]authz.RefreshToken{
		"of a later generation":           c.token(2),
		"of the current one, not the one": {Family: "f", Generation: 1, Hash: hashOf("x")},
		"of an unknown family":            {Family: "g", Generation: 1, Hash: c.token(1).Hash},
		"of no family":                    {Generation: 1, Hash: c.token(1).Hash},
		"of a name that none has":         {Family: "{f}", Generation: 1, Hash: c.token(1).Hash},
		"of a generation before all":      {Family: "f", Generation: -1, Hash: c.token(1).Hash},
	} {
		_, err := f.RotateFamily(t.Context(), token, hashOf("next"))
		require.Equal(t, authz.ReasonRefreshInvalid, authz.ReasonOf(err), name)
	}
	after, err := f.client.HGetAll(t.Context(), "refresh:f").Result()
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Equal(t, 2, f.rotate(t, c, 1))

	// One that we made, but not the one that was used then, is as good as used.
	_, err = f.RotateFamily(t.Context(), authz.RefreshToken{Family: "f", Generation: 0, Hash: hashOf("x")}, hashOf("next"))
	requireReason(t, authz.ReasonRefreshReused, err)
	f.familyGone(t, "f")
}

func revokedFamiliesDoNotRotate(t *testing.T, s *server) {
	t.Helper()
	for name, revoke := range map[string]func(f fixture){
		"by name":     func(f fixture) { require.NoError(t, f.RevokeFamily(t.Context(), "f", f.clock.Now().Add(time.Hour))) },
		"by a logout": func(f fixture) { require.NoError(t, f.End(t.Context(), authz.Ending{Family: "f"})) },
		"with all of the user": func(f fixture) {
			n, err := f.RevokeUser(t.Context(), "u")
			require.NoError(t, err)
			require.Zero(t, n, "families are no sessions")
		},
		"by its handle": func(f fixture) {
			found, err := f.RevokeHandle(t.Context(), "u", authz.Handle("f"))
			require.NoError(t, err)
			require.True(t, found)
		},
	} {
		f := s.store(t, living)
		c := f.family(t, "f")
		other := f.family(t, "g")
		revoke(f)
		f.notRotated(t, c, 0, authz.ReasonRefreshInvalid)
		f.familyGone(t, "f")
		require.NoError(t, f.CreateFamily(t.Context(), authz.Family{ID: "new", UserID: "u"}), name)
		if name == "with all of the user" {
			f.notRotated(t, other, 0, authz.ReasonRefreshInvalid)
		} else {
			require.Equal(t, 1, f.rotate(t, other, 0))
		}
		requireReason(t, authz.ReasonRefreshInvalid, f.CreateFamily(t.Context(), authz.Family{ID: "f", UserID: "u"}))
	}
}

// The mark alone covers a family, whatever else was lost.
func TestFamiliesOlderThanTheUsersMarkAreOver(t *testing.T) {
	f := newServer(t, backends[0]).store(t, living)
	c := f.family(t, "f")
	require.NoError(t, f.RevokeUserBefore(t.Context(), "u", f.clock.Now()))
	f.notRotated(t, c, 0, authz.ReasonRefreshInvalid)
	logins, err := f.UserFamilies(t.Context(), "u")
	require.NoError(t, err)
	require.Empty(t, logins)

	// Who logs in now is not covered, though the clock stands.
	later := f.family(t, "g")
	require.Equal(t, 1, f.rotate(t, later, 0))
	got, err := f.Family(t.Context(), "g")
	require.NoError(t, err)
	require.WithinDuration(t, f.clock.Now().Add(time.Millisecond), got.Created, 0)
}

func TestFamiliesThatAreNone(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, living)
		for _, family := range []authz.Family{{}, {ID: "f"}, {UserID: "u"}, {ID: "{f}", UserID: "u"}, {ID: "f", UserID: "u", Generation: -1}} {
			require.ErrorContains(t, f.CreateFamily(t.Context(), family), "create refresh family")
		}
		c := f.family(t, "f")
		for _, damage := range []func(){
			func() { require.NoError(t, f.client.HSet(t.Context(), "refresh:f", "hash", "zz").Err()) },
			func() { require.NoError(t, f.client.HSet(t.Context(), "refresh:f", "hash", "abcd").Err()) },
			func() { require.NoError(t, f.client.HSet(t.Context(), "refresh:f", "created", "yesterday").Err()) },
			func() { require.NoError(t, f.client.HDel(t.Context(), "refresh:f", "generation").Err()) },
			func() { require.NoError(t, f.client.HDel(t.Context(), "refresh:f", "user").Err()) },
			func() {
				require.NoError(t, f.client.Del(t.Context(), "refresh:f").Err())
				f.set(t, "refresh:f", "x", time.Hour)
			},
		} {
			damage()
			_, err := f.Family(t.Context(), "f")
			requireReason(t, authz.ReasonRefreshInvalid, err)
			f.notRotated(t, c, 0, authz.ReasonRefreshInvalid)
		}
		for _, id := range []string{"", "unknown", "{f}"} {
			_, err := f.Family(t.Context(), id)
			requireReason(t, authz.ReasonRefreshInvalid, err)
		}
	})
}

// A family of a token that another program made up is marked for the gate, too.
func TestFamilyOfAnyNameIsRevoked(t *testing.T) {
	f := newServer(t, backends[0]).store(t, living)
	require.NoError(t, f.RevokeFamily(t.Context(), "{x}", f.clock.Now().Add(time.Hour)))
	standing, err := f.TokenStanding(t.Context(), authz.TokenRef{Family: "{x}"}, authz.ReadOptions{})
	require.NoError(t, err)
	require.True(t, standing.Revoked)
}

func fortyTabsGetTheSameSuccessor(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, living)
	stores := []*session.Store{f.Store, f.another(living)}
	c := f.family(t, "f")
	for n := range 3 {
		presented, next := c.token(n), c.token(n+1).Hash
		answers := make([]authz.Family, 40)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				var err error
				if answers[i], err = stores[i%2].RotateFamily(t.Context(), presented, next); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, got := range answers {
			require.Equal(t, n+1, got.Generation)
			require.Equal(t, next, got.Hash)
		}
		f.clock.Advance(11 * time.Second)
	}
	for range 2 {
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				if got, err := stores[i%2].RotateFamily(t.Context(), c.tokens[2], c.tokens[3].Hash); err == nil {
					t.Error("a successor after the grace:", got.Generation)
				}
			})
		}
		wg.Wait()
		f.familyGone(t, "f")
	}
}

// What a family remembers of its used tokens is bounded by the grace, and in
// number.
func TestUsedTokensAreForgotten(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, living)
		c := f.family(t, "f")
		fields := func() int {
			n, err := f.client.HLen(t.Context(), "refresh:f").Result()
			require.NoError(t, err)
			return int(n)
		}
		const own = 9
		require.Equal(t, own, fields())
		n := 0
		for range 150 {
			n = f.rotate(t, c, n)
		}
		require.Equal(t, own+128, fields())
		require.Equal(t, n, f.rotate(t, c, n-128), "the oldest that is remembered")
		f.clock.Advance(11 * time.Second)
		n = f.rotate(t, c, n)
		require.Equal(t, own+1, fields())
		require.Equal(t, n, f.rotate(t, c, n-1))
		f.notRotated(t, c, n-2, authz.ReasonRefreshReused)
	})
}

// familyModel is what a family does, without a store.
type familyModel struct {
	current int
	first   map[int]time.Time // use
	dead    bool
	expires time.Time
}

func (m *familyModel) rotate(generation int, known bool, now time.Time, o session.Options) (current int, reason authz.Reason) {
	switch {
	case m.dead || !now.Before(m.expires) || generation > m.current || generation == m.current && !known:
		return 0, authz.ReasonRefreshInvalid
	case generation == m.current:
		m.first[generation] = now
		m.current++
		m.expires = now.Add(o.RefreshTTL)
		return m.current, ""
	case known && m.current-generation <= 128 && o.RefreshGrace >= 0 && now.Sub(m.first[generation]) <= o.RefreshGrace:
		return m.current, ""
	}
	m.dead = true
	return 0, authz.ReasonRefreshReused
}

// rotation is one step of a test against the model.
type rotation struct {
	advance    time.Duration
	generation int
	known      bool // the token of that generation, not another one
}

func checkRotations(t *testing.T, f fixture, o session.Options, steps []rotation) {
	t.Helper()
	id := fmt.Sprint("f", rand.Uint64())
	c := f.family(t, id)
	m := &familyModel{first: map[int]time.Time{}, expires: f.clock.Now().Add(o.RefreshTTL)}
	for i, step := range steps {
		f.clock.Advance(step.advance)
		now := f.clock.Now()
		token := c.token(max(step.generation, 0))
		if !step.known {
			token.Hash = hashOf("another")
		}
		want, reason := m.rotate(token.Generation, step.known, now, o)
		got, err := f.RotateFamily(t.Context(), token, c.token(token.Generation+1).Hash)
		if reason != "" {
			require.Error(t, err, "step %d of %+v", i, steps)
			require.Equal(t, reason, authz.ReasonOf(err), "step %d of %+v", i, steps)
		} else {
			require.NoError(t, err, "step %d of %+v", i, steps)
			require.Equal(t, want, got.Generation, "step %d of %+v", i, steps)
			require.Equal(t, c.token(want).Hash, got.Hash)
			require.Equal(t, "u", got.UserID)
		}
		_, err = f.Family(t.Context(), id)
		require.Equal(t, m.dead, err != nil, "step %d of %+v", i, steps)
	}
}

var modelOptions = session.Options{RefreshTTL: 1000 * time.Hour, RefreshGrace: 10 * time.Second, Profiles: true}

func rotationIsAsItsModel(t *testing.T, s *server) {
	t.Helper()
	f := s.store(t, modelOptions)
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		current := 0
		var steps []rotation
		for range 40 {
			step := rotation{generation: current, known: r.IntN(40) > 0, advance: time.Duration(r.IntN(3000)) * time.Millisecond}
			switch r.IntN(10) {
			case 0:
				step.generation = current - r.IntN(8)
			case 1:
				step.generation = current + 1
			case 2:
				step.advance = time.Duration(r.IntN(12)) * time.Second
			default:
				current++
			}
			steps = append(steps, step)
		}
		checkRotations(t, f, modelOptions, steps)
	}
}

// Each byte is a step: which token, counted back from the number of steps so
// far, and how much time passes before.
func FuzzRotation(f *testing.F) {
	for _, seed := range []string{"", "\x00\x00\x00", "\x00\x01\x01\xff", "\x00\xf1\x01", "\x00\x00\x00\x03\x43\xf3", "\x08\x80"} {
		f.Add([]byte(seed))
	}
	client, err := session.Open("embedded://", session.OpenOptions{Timeout: patience, Logger: quiet})
	require.NoError(f, err)
	f.Cleanup(func() { _ = client.Close() })
	store := fixture{clock: authztest.NewClock(), client: client}
	o := modelOptions
	o.Now, o.Timeout = store.clock.Now, patience
	store.Store = session.New(client, o)
	f.Fuzz(func(t *testing.T, text []byte) {
		var steps []rotation
		for i, b := range text[:min(len(text), 200)] {
			steps = append(steps, rotation{
				generation: i - int(b&7), known: b&8 == 0, advance: time.Duration(b>>4) * 777 * time.Millisecond,
			})
		}
		checkRotations(t, store, modelOptions, steps)
	})
}
