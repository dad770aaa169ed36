package session_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// patience is the timeout of stores that are not tested for theirs: the race
// detector and a busy machine must not look like an outage.
const patience = 10 * time.Second

// fixture is a store on an empty server, and a client of another program.
type fixture struct {
	*session.Store
	clock  *authztest.Clock
	client redis.UniversalClient // of another program
	own    redis.UniversalClient // of the store; nil: the same
	writes *writeErrors
	cut    func() // the server off, for good
}

// writeErrors collects what OnWriteError is told.
type writeErrors struct {
	mu   sync.Mutex
	errs []error
}

func (w *writeErrors) add(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errs = append(w.errs, err)
}

func (w *writeErrors) all() []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]error(nil), w.errs...)
}

func (s *server) store(t *testing.T, o session.Options) fixture {
	t.Helper()
	client, _ := s.connect(t, patience)
	f := fixture{clock: authztest.NewClock(), client: client, own: s.login(t, client, patience), writes: &writeErrors{}}
	if o.Timeout == 0 {
		o.Timeout = patience
	}
	o.Now, o.OnWriteError = f.clock.Now, f.writes.add
	f.Store = session.New(f.own, o)
	return f
}

// another returns a second replica's store.
func (f fixture) another(o session.Options) *session.Store {
	o.Now, o.OnWriteError, o.Timeout = f.clock.Now, f.writes.add, patience
	if f.own != nil {
		return session.New(f.own, o)
	}
	return session.New(f.client, o)
}

func (f fixture) set(t *testing.T, key, value string, ttl time.Duration) {
	t.Helper()
	require.NoError(t, f.client.Set(t.Context(), key, value, ttl).Err())
}

func (f fixture) ttl(t *testing.T, key string) time.Duration {
	t.Helper()
	ttl, err := f.client.PTTL(t.Context(), key).Result()
	require.NoError(t, err)
	return ttl
}

func (f fixture) exists(t *testing.T, key string) bool {
	t.Helper()
	n, err := f.client.Exists(t.Context(), key).Result()
	require.NoError(t, err)
	return n != 0
}

// allKeys returns the keys of a pattern, on whatever server.
func (f fixture) allKeys(t *testing.T, pattern string) []string {
	t.Helper()
	var mu sync.Mutex
	var keys []string
	list := func(ctx context.Context, c *redis.Client) error {
		found, err := c.Keys(ctx, pattern).Result()
		mu.Lock()
		defer mu.Unlock()
		keys = append(keys, found...)
		return err
	}
	if cluster, ok := f.client.(*redis.ClusterClient); ok {
		require.NoError(t, cluster.ForEachMaster(t.Context(), list))
		return keys
	}
	keys, err := f.client.Keys(t.Context(), pattern).Result()
	require.NoError(t, err)
	return keys
}

func (f fixture) session(t *testing.T, id string) *authz.Session {
	t.Helper()
	s, err := f.Session(t.Context(), id, authz.ReadOptions{})
	require.NoError(t, err)
	return s
}

func requireReason(t *testing.T, want authz.Reason, err error) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want, authz.ReasonOf(err), "%v", err)
}

// noAnswer are the reasons of who got no answer in time. Which one it is depends on whether
// this process ran meanwhile.
var noAnswer = []authz.Reason{authz.ReasonStoreUnavailable, authz.ReasonOverloaded}

// requireNoAnswer is requireReason where it doesn't matter why there was no answer.
func requireNoAnswer(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.Contains(t, noAnswer, authz.ReasonOf(err), "%v", err)
}

// inTime asks until it doesn't lie at this process that there is no answer: a busy
// machine lets it stand still.
func inTime(t *testing.T, ask func() error) error {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		err := ask()
		if authz.ReasonOf(err) != authz.ReasonOverloaded {
			return err
		}
		require.True(t, time.Now().Before(end), "%v", err)
	}
}

// about allows for the time that passes between two commands.
func about(t *testing.T, want, got time.Duration) {
	t.Helper()
	require.LessOrEqual(t, got, want)
	require.Greater(t, got, want-20*time.Second)
}

// recordText is a record as express-session writes it.
func recordText(t *testing.T, s authz.Session, originalMaxAge any) string {
	t.Helper()
	record := map[string]any{"cookie": map[string]any{
		"originalMaxAge": originalMaxAge, "expires": "2020-01-01T00:00:00.000Z", "httpOnly": true, "path": "/",
	}}
	if s.ID != "" {
		record["userId"] = s.ID
		record["email"] = s.Email
		record["roles"] = s.Roles
		record["organizationId"] = s.Organization
		record["organizations"] = s.Organizations
	}
	if !s.AuthTime.IsZero() {
		record["authTime"] = json.Number(fmt.Sprintf("%.3f", float64(s.AuthTime.UnixMilli())/1000))
	}
	text, err := json.Marshal(record)
	require.NoError(t, err)
	return string(text)
}

func TestEveryTopology(t *testing.T) {
	onBackends(t, slices.Concat(backends, withUsers), func(s *server) {
		t := s.t
		for name, test := range map[string]func(t *testing.T, s *server){
			"created sessions are found":                   createdSessionsAreFound,
			"concurrent updates all count":                 concurrentUpdatesAllCount,
			"saving a profile leaves what it doesn't know": saveProfileLeavesWhatItDoesNotKnow,
			"every prefix works":                           everyPrefixWorks,
			"sessions are listed":                          sessionsAreListed,
			"only the living are listed":                   onlyTheLivingAreListed,
			"every user id works":                          everyUserID,
			"families rotate":                              familiesRotate,
			"refresh reuse revokes the family":             refreshReuseRevokesTheFamily,
			"repeated refresh follows the chain":           repeatedRefreshFollowsTheChain,
			"wrong tokens change nothing":                  wrongTokensChangeNothing,
			"revoked families don't rotate":                revokedFamiliesDoNotRotate,
			"forty tabs get the same successor":            fortyTabsGetTheSameSuccessor,
			"rotation is as its model":                     rotationIsAsItsModel,
			"everything of a user ends":                    everythingOfAUserEnds,
			"revoked sessions are counted once":            revokedSessionsAreCountedOnce,
			"revocation against logins":                    revocationAgainstLogins,
			"one ends by its handle":                       oneEndsByItsHandle,
			"logout ends all that it names":                logoutEndsAllThatItNames,
			"a login replaces another":                     aLoginReplacesAnother,
			"providers end their logins":                   providersEndTheirLogins,
			"changes reach all of a user":                  changesReachAllOfAUser,
			"concurrent changes all count":                 concurrentChangesAllCount,
			"organizations are switched":                   organizationsAreSwitched,
			"profiles are completed":                       profilesAreCompleted,
		} {
			if s.kind.suiteOnly {
				break
			}
			t.Run(name, func(t *testing.T) { test(t, s) })
		}
		authztest.StoreSuite(t, func(t *testing.T) authztest.Bench {
			t.Helper()
			client, cut := s.connect(t, patience)
			f := fixture{clock: authztest.NewClock(), client: client, own: s.login(t, client, patience)}
			options := session.Options{
				Rolling: true, Profiles: true, IdlePrecision: session.IdlePrecision(5*time.Minute, 0), Timeout: patience, Now: f.clock.Now,
			}
			return authztest.Bench{
				Store: session.New(f.own, options),
				Clock: f.clock,
				Save: func(t *testing.T, id string, s authz.Session, ttl time.Duration) {
					t.Helper()
					f.set(t, "sess:"+id, recordText(t, s, nil), ttl)
				},
				Destroy: func(t *testing.T, id string) {
					t.Helper()
					require.NoError(t, client.Del(t.Context(), "sess:"+id).Err())
				},
				SaveProfile: func(t *testing.T, userID string, p *authz.Profile) {
					t.Helper()
					if p == nil {
						require.NoError(t, client.Del(t.Context(), "user:"+userID).Err())
						return
					}
					require.NoError(t, f.another(options).SaveProfile(t.Context(), userID, *p))
				},
				Expire: func(t *testing.T, id string) {
					t.Helper()
					require.NoError(t, client.PExpire(t.Context(), "sess:"+id, time.Millisecond).Err())
					require.Eventually(t, func() bool { return !f.exists(t, "sess:"+id) }, 10*time.Second, time.Millisecond)
				},
				Cut: func(*testing.T) { cut() },
			}
		})
	})
}

// Everything works with a hash tag in the prefix, which Cluster users have to
// put all sessions in one slot.
func everyPrefixWorks(t *testing.T, s *server) {
	t.Helper()
	prefixes := []string{"sess:", "myapp:s:", "{app}:sess:", "a{b}", ":"}
	if s.kind.user {
		prefixes = prefixes[:1] // whose keys it may touch
	}
	for _, prefix := range prefixes {
		f := s.store(t, session.Options{Prefix: prefix, Rolling: true, IdlePrecision: time.Second})
		id, err := f.Create(t.Context(), session.NewSession{Identity: authz.Identity{ID: "u"}})
		require.NoError(t, err)
		require.True(t, f.exists(t, prefix+id))
		f.session(t, id)
		require.Empty(t, f.writes.all(), prefix)
		require.NoError(t, f.Update(t.Context(), id, func(r *session.Record) error { return r.Set("x", 1) }))
		require.NoError(t, f.Revoke(t.Context(), id))
		_, err = f.Session(t.Context(), id, authz.ReadOptions{})
		requireReason(t, authz.ReasonSessionRevoked, err)
	}
}

func TestRecordForms(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, session.Options{})
		now := float64(f.clock.Now().Unix())
		someone := func(id string) *authz.Session { return &authz.Session{Identity: authz.Identity{ID: id}} }
		with := func(change func(s *authz.Session)) *authz.Session {
			s := someone("u")
			change(s)
			return s
		}
		for _, tc := range []struct {
			record string
			want   *authz.Session // without Values
			reason authz.Reason
		}{
			{record: `{"userId":"u"}`, want: someone("u")},
			{record: ` { "userId" : "u" } ` + "\n", want: someone("u")},
			{record: `{"userId":42}`, want: someone("42")},
			{record: `{"userId":0}`, want: someone("0")},
			{record: `{"userId":-7}`, want: someone("-7")},
			{record: `{"userId":123456789012345678901234567890}`, want: someone("123456789012345678901234567890")},
			{record: `{"userId":"first","userId":"last"}`, want: someone("last")},
			{record: `{"userId":"u","email":null,"roles":null,"organizationId":null,"organizations":null,"authTime":null}`, want: someone("u")},
			{record: `{"userId":"u","email":"e"}`, want: with(func(s *authz.Session) { s.Email = "e" })},
			{record: `{"userId":"u","roles":["a","b"]}`, want: with(func(s *authz.Session) { s.Roles = []string{"a", "b"} })},
			{record: `{"userId":"u","roles":"a,b"}`, want: with(func(s *authz.Session) { s.Roles = []string{"a,b"} })},
			{record: `{"userId":"u","roles":""}`, want: someone("u")},
			{record: `{"userId":"u","roles":[]}`, want: with(func(s *authz.Session) { s.Roles = []string{} })},
			{record: `{"userId":"u","organizationId":9}`, want: with(func(s *authz.Session) { s.Organization = "9" })},
			{record: `{"userId":"u","organizations":["a",9]}`, want: with(func(s *authz.Session) { s.Organizations = []string{"a", "9"} })},
			{record: fmt.Sprintf(`{"userId":"u","authTime":%.0f}`, now), want: with(func(s *authz.Session) { s.AuthTime = time.Unix(int64(now), 0) })},
			{record: `{"userId":"u","authTime":1700000000.25}`, want: with(func(s *authz.Session) { s.AuthTime = time.UnixMilli(1700000000250) })},
			{record: fmt.Sprintf(`{"userId":"u","authTime":%.0f}`, now+299), want: with(func(s *authz.Session) { s.AuthTime = time.Unix(int64(now)+299, 0) })},
			{record: `{"userId":"u","authTime":1700000000250}`, want: with(func(s *authz.Session) { s.AuthTime = time.UnixMilli(1700000000250) })},
			{record: `{"userId":"u","authTime":"1700000000"}`, want: with(func(s *authz.Session) { s.AuthTime = time.Unix(1700000000, 0) })},
			{record: `{"userId":"u","authTime":"2023-11-14T22:13:20.000Z"}`, want: with(func(s *authz.Session) { s.AuthTime = time.Unix(1700000000, 0).UTC() })},

			// Something of the application's own: no reason to lock its users out.
			{record: `{"userId":"u","organizations":[1.5]}`, want: someone("u")},
			{record: `{"userId":"u","organizations":[{"id":"o1"}]}`, want: someone("u")},
			{record: `{"userId":"u","authTime":-1}`, want: someone("u")},
			{record: `{"userId":"u","authTime":1e400}`, want: someone("u")},
			{record: `{"userId":"u","authTime":"NaN"}`, want: someone("u")},
			{record: `{"userId":"u","authTime":"yesterday"}`, want: someone("u")},
			{record: `{"userId":"u","authTime":{}}`, want: someone("u")},
			{record: fmt.Sprintf(`{"userId":"u","authTime":%.0f}`, now+301), want: someone("u")},

			{record: `{}`, reason: authz.ReasonSessionAnonymous},
			{record: `{"userId":null}`, reason: authz.ReasonSessionAnonymous},
			{record: `{"userId":""}`, reason: authz.ReasonSessionAnonymous},
			{record: `{"UserID":"u","userid":"u"}`, reason: authz.ReasonSessionAnonymous},

			{record: ``, reason: authz.ReasonSessionMalformed},
			{record: `null`, reason: authz.ReasonSessionMalformed},
			{record: `"u"`, reason: authz.ReasonSessionMalformed},
			{record: `[{"userId":"u"}]`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":"u"`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":"u"}}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":"u"} {"userId":"v"}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":["u"]}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":{"id":"u"}}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":true}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":1.5}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":1e3}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":-0}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":"u","email":1}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":"u","roles":1}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":"u","roles":{"admin":true}}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":"u","roles":["a",1]}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":"u","roles":["a",null]}`, reason: authz.ReasonSessionMalformed},
			{record: `{"userId":"u","organizationId":[]}`, reason: authz.ReasonSessionMalformed},
		} {
			f.set(t, "sess:id", tc.record, time.Hour)
			got, err := f.Session(t.Context(), "id", authz.ReadOptions{})
			if tc.reason != "" {
				require.Nil(t, got)
				requireReason(t, tc.reason, err)
				continue
			}
			require.NoError(t, err, tc.record)
			require.NotNil(t, got.Values)
			got.Values, got.LastSeen = nil, time.Time{}
			require.Equal(t, tc.want, got, tc.record)
		}
		require.NoError(t, f.client.Del(t.Context(), "sess:id").Err())
		require.NoError(t, f.client.HSet(t.Context(), "sess:id", "userId", "u").Err())
		_, err := f.Session(t.Context(), "id", authz.ReadOptions{})
		requireReason(t, authz.ReasonSessionMalformed, err)
	})
}

func TestConditionsSeeTheWholeRecord(t *testing.T) {
	f := newServer(t, backends[0]).store(t, session.Options{})
	f.set(t, "sess:id", `{"userId":"u","cart":{"items":[1,9007199254740993]},"x":null}`, time.Hour)
	require.Equal(t, map[string]any{
		"userId": "u",
		"cart":   map[string]any{"items": []any{json.Number("1"), json.Number("9007199254740993")}},
		"x":      nil,
	}, f.session(t, "id").Values)
}

func TestFieldsAreFoundWhereTheyAreNamed(t *testing.T) {
	f := newServer(t, backends[0]).store(t, session.Options{Fields: session.Fields{
		UserID: "passport.user", Email: "profile.mail.main", Roles: "a.b", AuthTime: "at",
	}})
	f.set(t, "sess:id", `{
		"passport":{"user":7}, "profile":{"mail":{"main":"m"}}, "a.b":["the name itself"], "a":{"b":["the path"]},
		"userId":"not asked for", "organizationId":"org", "at":1700000000}`, time.Hour)
	got := f.session(t, "id")
	require.Equal(t, authz.Identity{ID: "7", Email: "m", Roles: []string{"the name itself"}, Organization: "org"}, got.Identity)
	require.Equal(t, time.Unix(1700000000, 0), got.AuthTime)

	f.set(t, "sess:id", `{"passport":"7"}`, time.Hour)
	_, err := f.Session(t.Context(), "id", authz.ReadOptions{})
	requireReason(t, authz.ReasonSessionAnonymous, err)
}

func TestProfileForms(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, session.Options{Profiles: true})
		f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
		empty, none, text := "", []string(nil), "x"
		for _, tc := range []struct {
			profile string
			want    *authz.Profile // nil: malformed
		}{
			{`{}`, &authz.Profile{}},
			{`{"email":"x","other":1}`, &authz.Profile{Email: &text}},
			{
				`{"email":null,"roles":null,"organizationId":null,"organizations":null,"disabled":null}`,
				&authz.Profile{Email: &empty, Roles: &none, Organization: &empty},
			},
			{`{"email":"","roles":"","organizationId":""}`, &authz.Profile{Email: &empty, Roles: &none, Organization: &empty}},
			{`{"roles":"x"}`, &authz.Profile{Roles: &[]string{"x"}}},
			{`{"roles":["x","y"],"organizations":["a"]}`, &authz.Profile{Roles: &[]string{"x", "y"}, Organizations: []string{"a"}}},
			{`{"disabled":true}`, &authz.Profile{Disabled: true}},
			{`{"disabled":false}`, &authz.Profile{}},
			{`{"organizations":{"a":1}}`, &authz.Profile{}},

			{``, nil},
			{`null`, nil},
			{`[]`, nil},
			{`{"disabled":true`, nil},
			{`{"disabled":"true"}`, nil},
			{`{"disabled":1}`, nil},
			{`{"disabled":0}`, nil},
			{`{"email":[]}`, nil},
			{`{"roles":[1]}`, nil},
			{`{"roles":{}}`, nil},
			{`{"organizationId":false}`, nil},
		} {
			f.set(t, "user:u", tc.profile, 0)
			session, errSession := f.Session(t.Context(), "id", authz.ReadOptions{})
			standing, errToken := f.TokenStanding(t.Context(), authz.TokenRef{UserID: "u"}, authz.ReadOptions{})
			profile, ok, errProfile := f.Profile(t.Context(), "u")
			if tc.want == nil {
				require.Nil(t, session)
				require.Zero(t, standing)
				for _, err := range []error{errSession, errToken, errProfile} {
					requireReason(t, authz.ReasonProfileMalformed, err)
				}
				continue
			}
			require.NoError(t, errors.Join(errSession, errToken, errProfile), tc.profile)
			require.True(t, ok)
			require.Equal(t, tc.want, session.Standing.Profile, tc.profile)
			require.Equal(t, tc.want, standing.Profile, tc.profile)
			require.Equal(t, *tc.want, profile, tc.profile)
		}
		require.NoError(t, f.client.Del(t.Context(), "user:u").Err())
		require.NoError(t, f.client.SAdd(t.Context(), "user:u", "x").Err())
		_, err := f.Session(t.Context(), "id", authz.ReadOptions{})
		requireReason(t, authz.ReasonProfileMalformed, err)

		off := f.another(session.Options{})
		got, err := off.Session(t.Context(), "id", authz.ReadOptions{})
		require.NoError(t, err)
		require.Nil(t, got.Standing.Profile)
	})
}

// What can't be read must not pass for "not revoked".
func TestUnreadableMarksRefuse(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, session.Options{})
		f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
		for _, damage := range []func(){
			func() { f.set(t, "gatehouse:before:{user:u}", "yesterday", 0) },
			func() { f.set(t, "gatehouse:before:{user:u}", "", 0) },
			func() {
				require.NoError(t, f.client.Del(t.Context(), "gatehouse:before:{user:u}").Err())
				require.NoError(t, f.client.SAdd(t.Context(), "gatehouse:before:{user:u}", "1").Err())
			},
		} {
			damage()
			_, err := f.Session(t.Context(), "id", authz.ReadOptions{})
			requireReason(t, authz.ReasonStoreUnavailable, err)
			_, err = f.TokenStanding(t.Context(), authz.TokenRef{UserID: "u"}, authz.ReadOptions{})
			requireReason(t, authz.ReasonStoreUnavailable, err)
		}
		require.NoError(t, f.client.Del(t.Context(), "gatehouse:before:{user:u}").Err())

		f.set(t, "gatehouse:seen:{sess:id}", "just now", 0)
		_, err := f.Session(t.Context(), "id", authz.ReadOptions{IdleTimeout: time.Hour})
		requireReason(t, authz.ReasonStoreUnavailable, err)

		// Marks whose existence is all that counts can be of any type.
		require.NoError(t, f.client.SAdd(t.Context(), "revoked:jti", "x").Err())
		standing, err := f.TokenStanding(t.Context(), authz.TokenRef{TokenID: "jti"}, authz.ReadOptions{})
		require.NoError(t, err)
		require.True(t, standing.Revoked)
		f.set(t, "revoked:jti2", "", 0)
		standing, err = f.TokenStanding(t.Context(), authz.TokenRef{TokenID: "jti2"}, authz.ReadOptions{})
		require.NoError(t, err)
		require.True(t, standing.Revoked)
	})
}

func TestRollingRenewsOncePerInterval(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		const day = 24 * time.Hour
		for name, tc := range map[string]struct {
			options session.Options
			maxAge  any // cookie.originalMaxAge
			ttl     time.Duration
			want    time.Duration // 0: as it was
		}{
			"not yet due":                      {session.Options{Rolling: true}, nil, day - 50*time.Second, 0},
			"due":                              {session.Options{Rolling: true}, nil, day - 61*time.Second, day},
			"nearly over":                      {session.Options{Rolling: true}, nil, 5 * time.Second, day},
			"not rolling":                      {session.Options{}, nil, time.Hour, 0},
			"by its own age, shorter":          {session.Options{Rolling: true}, 3600_000, 10 * time.Minute, time.Hour},
			"by its own age, longer":           {session.Options{Rolling: true}, 30 * day.Milliseconds(), 2 * day, 30 * day},
			"by its own age, of a fraction":    {session.Options{Rolling: true}, 3600_000.9, 10 * time.Minute, time.Hour},
			"never a longer life made shorter": {session.Options{Rolling: true}, 3600_000, 2 * time.Hour, 0},
			"an age of nothing":                {session.Options{Rolling: true}, 0, time.Hour, day},
			"a negative age":                   {session.Options{Rolling: true}, -1, time.Hour, day},
			"an age that is no number":         {session.Options{Rolling: true}, "3600000", time.Hour, day},
			"an endless age is bounded":        {session.Options{Rolling: true}, 1e300, time.Hour, 400 * day},
			"a longer interval":                {session.Options{Rolling: true, TouchInterval: time.Hour}, nil, day - 50*time.Minute, 0},
			"another life":                     {session.Options{Rolling: true, TTL: 2 * time.Hour}, nil, time.Hour, 2 * time.Hour},
			"a life shorter than the interval": {session.Options{Rolling: true}, 40_000, 19 * time.Second, 40 * time.Second},
			"and still fresh":                  {session.Options{Rolling: true}, 40_000, 35 * time.Second, 0},
		} {
			t.Run(name, func(t *testing.T) {
				f := s.store(t, tc.options)
				f.set(t, "sess:id", recordText(t, authz.Session{Identity: authz.Identity{ID: "u"}}, tc.maxAge), tc.ttl)
				f.session(t, "id")
				got := f.ttl(t, "sess:id")
				if tc.want == 0 {
					require.LessOrEqual(t, got, tc.ttl)
					about(t, tc.ttl, got)
				} else {
					about(t, tc.want, got)
				}
				require.Empty(t, f.writes.all())
			})
		}
	})
}

func TestRecordsWithoutExpiryNeverGetOne(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, session.Options{Rolling: true, IdlePrecision: time.Second})
		f.set(t, "sess:id", `{"userId":"u","cookie":{"originalMaxAge":60000}}`, 0)
		f.session(t, "id")
		require.Negative(t, f.ttl(t, "sess:id"))
		require.NoError(t, f.Update(t.Context(), "id", func(r *session.Record) error { return r.Set("email", "e") }))
		require.Negative(t, f.ttl(t, "sess:id"))
		about(t, 400*24*time.Hour, f.ttl(t, "gatehouse:seen:{sess:id}"))
	})
}

// cookie.expires goes stale while touch renews the Redis TTL: the TTL decides.
func TestTTLIsTheTruthAboutExpiry(t *testing.T) {
	f := newServer(t, backends[0]).store(t, session.Options{})
	f.set(t, "sess:id", `{"userId":"u","cookie":{"originalMaxAge":1,"expires":"2001-01-01T00:00:00.000Z"}}`, time.Hour)
	f.session(t, "id")
}

func TestRefusedSessionsAreNotTouched(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		for name, refuse := range map[string]func(t *testing.T, f fixture){
			"disabled": func(t *testing.T, f fixture) {
				t.Helper()
				f.set(t, "user:u", `{"disabled":true}`, 0)
			},
			"older than the user's mark": func(t *testing.T, f fixture) {
				t.Helper()
				require.NoError(t, f.RevokeUserBefore(t.Context(), "u", f.clock.Now()))
			},
			"malformed profile": func(t *testing.T, f fixture) {
				t.Helper()
				f.set(t, "user:u", `[]`, 0)
			},
			"anonymous": func(t *testing.T, f fixture) {
				t.Helper()
				f.set(t, "sess:id", `{}`, time.Hour)
			},
			"malformed": func(t *testing.T, f fixture) {
				t.Helper()
				f.set(t, "sess:id", `[]`, time.Hour)
			},
		} {
			t.Run(name, func(t *testing.T) {
				f := s.store(t, session.Options{Rolling: true, Profiles: true, IdlePrecision: time.Second})
				f.set(t, "sess:id", recordText(t, authz.Session{Identity: authz.Identity{ID: "u"}, AuthTime: f.clock.Now()}, nil), time.Hour)
				refuse(t, f)
				_, _ = f.Session(t.Context(), "id", authz.ReadOptions{})
				about(t, time.Hour, f.ttl(t, "sess:id"))
				require.False(t, f.exists(t, "gatehouse:seen:{sess:id}"))
			})
		}
	})
}

// roundTrips counts them, and keeps the names of the commands sent.
type roundTrips struct {
	mu    sync.Mutex
	count int
	names []string
	sizes []int                      // of pipelines
	fail  func(names []string) error // before they are sent
}

func (*roundTrips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *roundTrips) note(cmds ...redis.Cmder) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	var names []string
	for _, cmd := range cmds {
		names = append(names, cmd.Name())
	}
	r.names = append(r.names, names...)
	r.sizes = append(r.sizes, len(names))
	if r.fail != nil {
		return r.fail(names)
	}
	return nil
}

func (r *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := r.note(cmd); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (r *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := r.note(cmds...); err != nil {
			return err // and leaves the commands as if they had succeeded
		}
		return next(ctx, cmds)
	}
}

func (r *roundTrips) take() (int, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	count, names := r.count, r.names
	r.count, r.names = 0, nil
	return count, names
}

// batches returns how many commands were sent at once, each time.
func (r *roundTrips) batches() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sizes)
}

func TestRoundTrips(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, session.Options{Rolling: true, Profiles: true, IdlePrecision: 30 * time.Second})
		trips := &roundTrips{}
		f.set(t, "sess:id", `{"userId":"u","authTime":1}`, 24*time.Hour)
		f.session(t, "id") // loads the script, and notes the time of use
		f.client.AddHook(trips)
		expect := func(want int, names ...string) {
			t.Helper()
			count, got := trips.take()
			require.Equal(t, want, count, "%q", got)
			require.Equal(t, names, got)
		}

		f.session(t, "id")
		expect(1, "evalsha")
		f.clock.Advance(31 * time.Second)
		f.session(t, "id")
		expect(2, "evalsha", "evalsha", "evalsha")
		f.session(t, "id")
		expect(1, "evalsha")
		_, _ = f.Session(t.Context(), "unknown", authz.ReadOptions{})
		expect(1, "evalsha")
		_, _ = f.Session(t.Context(), "{}", authz.ReadOptions{})
		expect(0)

		_, err := f.TokenStanding(t.Context(), authz.TokenRef{UserID: "u", TokenID: "j", Family: "f"}, authz.ReadOptions{})
		require.NoError(t, err)
		expect(1, "pttl", "pttl", "get", "pttl", "get", "pttl")
		_, err = f.TokenStanding(t.Context(), authz.TokenRef{TokenID: "j"}, authz.ReadOptions{})
		require.NoError(t, err)
		expect(1, "pttl")
		_, err = f.TokenStanding(t.Context(), authz.TokenRef{}, authz.ReadOptions{})
		require.NoError(t, err)
		expect(0)

		login := authz.Login{Identity: authz.Identity{ID: "u"}, Provider: authz.ProviderLogin{Issuer: "i", Subject: "s", SessionID: "1"}}
		old, err := f.Create(t.Context(), login) // loads the scripts
		require.NoError(t, err)
		trips.take()
		login.Replaces = old
		_, err = f.Create(t.Context(), login)
		require.NoError(t, err)
		expect(2, "evalsha", "evalsha", "evalsha", "evalsha")

		c := f.family(t, "rotated")
		f.rotate(t, c, 0)
		trips.take()
		_, err = f.Family(t.Context(), "rotated")
		require.NoError(t, err)
		expect(1, "hmget", "pttl", "exists")
		f.rotate(t, c, 1)
		expect(2, "hget", "evalsha", "evalsha")
		require.NoError(t, f.End(t.Context(), authz.Ending{SessionID: old, Family: "rotated", TokenID: "j"}))
		expect(2, "get", "hget", "evalsha")

		bare := f.another(session.Options{})
		_, err = bare.Session(t.Context(), "id", authz.ReadOptions{})
		require.NoError(t, err)
		expect(1, "evalsha")
	})
}

// A page that makes many calls, on several replicas, writes one renewal.
func TestConcurrentReadsRenewOnce(t *testing.T) {
	s := newServer(t, backends[1])
	options := session.Options{Rolling: true, IdlePrecision: time.Second}
	f := s.store(t, options)
	stores := []*session.Store{f.Store, f.another(options)}
	for round := range 3 {
		f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
		f.clock.Advance(time.Minute)
		require.NoError(t, f.client.ConfigResetStat(t.Context()).Err())
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				_, err := stores[i%2].Session(t.Context(), "id", authz.ReadOptions{})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Empty(t, f.writes.all())
		stats, err := f.client.Info(t.Context(), "commandstats").Result()
		require.NoError(t, err)
		require.Contains(t, stats, "cmdstat_pexpire:calls=2,", "round %d: the record and the index", round)
		require.Contains(t, stats, "cmdstat_set:calls=1,", "round %d: the time of use", round)
		require.Contains(t, stats, "cmdstat_zadd:calls=1,", "round %d: the index", round)
		about(t, 24*time.Hour, f.ttl(t, "sess:id"))
	}
}

// The record goes, or dies, between the read and the renewal.
func TestRenewalRevivesNothing(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		for name, end := range map[string]func(t *testing.T, f fixture){
			"destroyed": func(t *testing.T, f fixture) {
				t.Helper()
				require.NoError(t, f.client.Del(t.Context(), "sess:id").Err())
			},
			"revoked": func(t *testing.T, f fixture) {
				t.Helper()
				require.NoError(t, f.Revoke(t.Context(), "id"))
			},
			"saved without expiry": func(t *testing.T, f fixture) {
				t.Helper()
				require.NoError(t, f.client.Persist(t.Context(), "sess:id").Err())
			},
			"revoked and saved again": func(t *testing.T, f fixture) {
				t.Helper()
				require.NoError(t, f.Revoke(t.Context(), "id"))
				f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
			},
		} {
			t.Run(name, func(t *testing.T) {
				f := s.store(t, session.Options{Rolling: true, IdlePrecision: time.Second})
				f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
				trips := &roundTrips{}
				once := false
				trips.fail = func(names []string) error {
					if !once && strings.HasPrefix(names[0], "evalsha") && len(names) > 1 {
						once = true
						trips.mu.Unlock()
						end(t, f)
						trips.mu.Lock()
					}
					return nil
				}
				f.client.AddHook(trips)
				_, err := f.Session(t.Context(), "id", authz.ReadOptions{})
				require.NoError(t, err, "it was there when it was read")
				require.True(t, once)
				if name == "saved without expiry" {
					require.Negative(t, f.ttl(t, "sess:id"))
					return
				}
				require.False(t, f.exists(t, "gatehouse:seen:{sess:id}"))
				if f.exists(t, "sess:id") {
					about(t, time.Hour, f.ttl(t, "sess:id"))
				}
			})
		}
	})
}

func TestFailedRenewalDoesNotFailTheRequest(t *testing.T) {
	f := newServer(t, backends[1]).store(t, session.Options{Rolling: true})
	f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
	f.client.AddHook(&roundTrips{fail: func(names []string) error {
		if strings.HasPrefix(names[0], "eval") && len(names) > 1 {
			return errors.New("READONLY You can't write against a read only replica")
		}
		return nil
	}})
	f.session(t, "id")
	require.Len(t, f.writes.all(), 1)
	require.ErrorContains(t, f.writes.all()[0], "renew session: READONLY")
	about(t, time.Hour, f.ttl(t, "sess:id"))
}

// A pipeline that failed as a whole, whatever the client left in its commands,
// is not an answer.
func TestUnansweredPipelinesAreOutages(t *testing.T) {
	f := newServer(t, backends[0]).store(t, session.Options{Profiles: true})
	f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
	for failing := range 2 {
		calls := 0
		trips := &roundTrips{fail: func([]string) error {
			if calls++; calls == failing+1 {
				return errors.New("a hook that gave up")
			}
			return nil
		}}
		client, _ := newServer(t, backends[0]).connect(t, patience)
		require.NoError(t, client.Set(t.Context(), "sess:id", `{"userId":"u"}`, time.Hour).Err())
		client.AddHook(trips)
		_, err := session.New(client, session.Options{Timeout: patience}).Session(t.Context(), "id", authz.ReadOptions{})
		requireReason(t, authz.ReasonStoreUnavailable, err)
	}
	f.client.AddHook(&roundTrips{fail: func([]string) error { return errors.New("a hook that gave up") }})
	_, err := f.TokenStanding(t.Context(), authz.TokenRef{TokenID: "j"}, authz.ReadOptions{})
	requireReason(t, authz.ReasonStoreUnavailable, err)
}

// What a server says while it starts, fails over or is full is an outage, for
// each of the commands.
func TestServerErrorsAreOutages(t *testing.T) {
	replies := []string{
		"-LOADING Redis is loading the dataset in memory",
		"-READONLY You can't write against a read only replica.",
		"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
		"-CLUSTERDOWN The cluster is down",
		"-MOVED 1 127.0.0.1:1",
		"-NOAUTH Authentication required.",
		"-NOPERM this user has no permissions to access one of the keys used as arguments",
		"-OOM command not allowed when used memory > 'maxmemory'.",
		"-ERR max number of clients reached",
		"-BUSY Redis is busy running a script.",
	}
	// What the store reads of a session, and an answer that lets it pass.
	fine := map[string]string{
		"GET sess:id":                     "$14\r\n{\"userId\":\"u\"}",
		"PTTL sess:id":                    ":60000",
		"PTTL gatehouse:dead:{sess:id}":   ":-2",
		"PTTL gatehouse:before:{user:u}":  ":-2",
		"PTTL user:u":                     ":-2",
		"GET gatehouse:seen:{sess:id}":    "$-1",
		"GET gatehouse:before:{user:u}":   "$-1",
		"GET user:u":                      "$-1",
		"PTTL revoked:j":                  ":-2",
		"PTTL gatehouse:dead:{refresh:f}": ":-2",
	}
	for _, reply := range replies {
		for broken := range fine {
			addr := fakeRedis(t, func(command string) string {
				if command == broken {
					return reply
				}
				return fine[command]
			})
			client, err := session.Open("redis://"+addr, session.OpenOptions{Timeout: patience})
			require.NoError(t, err)
			store := session.New(client, session.Options{Profiles: true, Timeout: patience})
			options := authz.ReadOptions{IdleTimeout: time.Hour}
			_, errSession := store.Session(t.Context(), "id", options)
			_, errToken := store.TokenStanding(t.Context(), authz.TokenRef{UserID: "u", TokenID: "j", Family: "f"}, options)
			asked := 0
			for _, err := range []error{errSession, errToken} {
				if err != nil {
					asked++
					requireReason(t, authz.ReasonStoreUnavailable, err)
				}
			}
			require.Positive(t, asked, "%s at %s was no outage", reply, broken)
			require.NoError(t, client.Close())
		}
	}
}

// An absent record is no answer while it is not known whether it was revoked.
func TestHalfAnAnswerIsAnOutage(t *testing.T) {
	for _, broken := range []string{"PTTL sess:id", "PTTL gatehouse:dead:{sess:id}"} {
		for _, record := range []string{"$-1", "-WRONGTYPE Operation against a key holding the wrong kind of value"} {
			addr := fakeRedis(t, func(command string) string {
				switch command {
				case "GET sess:id":
					return record
				case broken:
					return "-NOPERM this user has no permissions to run the command"
				}
				return ":0"
			})
			client, err := session.Open("redis://"+addr, session.OpenOptions{Timeout: patience})
			require.NoError(t, err)
			store := session.New(client, session.Options{Timeout: patience})
			_, err = store.Session(t.Context(), "id", authz.ReadOptions{})
			requireReason(t, authz.ReasonStoreUnavailable, err)
			require.NoError(t, client.Close())
		}
	}
}

// The record went, or its last millisecond began, between GET and PTTL.
func TestRecordThatEndsWhileItIsRead(t *testing.T) {
	for reply, want := range map[string]authz.Reason{
		":-2": authz.ReasonSessionUnknown,
		":0":  authz.ReasonSessionExpired,
	} {
		addr := fakeRedis(t, func(command string) string {
			return map[string]string{
				"GET sess:id": "$14\r\n{\"userId\":\"u\"}", "PTTL sess:id": reply, "PTTL gatehouse:dead:{sess:id}": ":-2",
				"GET gatehouse:seen:{sess:id}": "$-1",
			}[command]
		})
		client, err := session.Open("redis://"+addr, session.OpenOptions{Timeout: patience})
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Close() })
		_, err = session.New(client, session.Options{Timeout: patience}).Session(t.Context(), "id", authz.ReadOptions{})
		requireReason(t, want, err)
	}
}

// fakeRedis is a server that gives these replies, without the line end;
// "" is an unknown command.
func fakeRedis(t *testing.T, reply func(command string) string) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = conn.Close() }()
				serveFake(conn, reply)
			})
		}
	})
	return listener.Addr().String()
}

// serveFake speaks as much of the protocol as a client needs to connect.
func serveFake(conn net.Conn, reply func(command string) string) {
	reader := bufio.NewReader(conn)
	length := func(mark string) int {
		var n int
		line, _ := reader.ReadString('\n')
		_, _ = fmt.Sscanf(line, mark+"%d", &n)
		return n
	}
	for {
		words := make([]string, length("*"))
		if len(words) == 0 {
			return
		}
		for i := range words {
			text := make([]byte, length("$")+2)
			if _, err := io.ReadFull(reader, text); err != nil {
				return
			}
			words[i] = string(text[:len(text)-2])
		}
		words[0] = strings.ToUpper(words[0])
		answer := reply(strings.Join(words, " "))
		switch {
		case words[0] == "CLIENT":
			answer = "+OK"
		case answer == "":
			answer = "-ERR unknown command"
		}
		if _, err := io.WriteString(conn, answer+"\r\n"); err != nil {
			return
		}
	}
}

func TestDeadlineBoundsTheWholeCall(t *testing.T) {
	for name, url := range map[string]string{
		"accepts and never answers":   "redis://" + silentServer(t),
		"sentinel that never answers": "redis+sentinel://" + silentServer(t) + "/m",
		"cluster that never answers":  "redis+cluster://" + silentServer(t) + "," + silentServer(t),
		"nobody there":                "redis://127.0.0.1:1",
		"no cluster there":            "redis+cluster://127.0.0.1:1,127.0.0.1:2",
		"no sentinel there":           "redis+sentinel://127.0.0.1:1,127.0.0.1:2/m",
		"no socket there":             "unix:///nonexistent/socket",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, err := session.Open(url, session.OpenOptions{Timeout: patience})
			require.NoError(t, err)
			defer func() { _ = client.Close() }()
			store := session.New(client, session.Options{})
			for range 2 {
				for _, call := range []func() error{
					func() error { return store.Ping(t.Context()) },
					func() error { _, err := store.Session(t.Context(), "id", authz.ReadOptions{}); return err },
					func() error {
						_, err := store.TokenStanding(t.Context(), authz.TokenRef{TokenID: "j"}, authz.ReadOptions{})
						return err
					},
					func() error { return store.Revoke(t.Context(), "id") },
					func() error { return store.RevokeToken(t.Context(), "j", time.Now()) },
					func() error { return store.RevokeUserBefore(t.Context(), "u", time.Now()) },
					func() error { return store.Update(t.Context(), "id", nil) },
					func() error { return store.UpdateProfile(t.Context(), "u", nil) },
					func() error { _, _, err := store.Profile(t.Context(), "u"); return err },
					func() error {
						_, err := store.Create(t.Context(), session.NewSession{Identity: authz.Identity{ID: "u"}})
						return err
					},
					func() error { return store.CreateFamily(t.Context(), authz.Family{ID: "f", UserID: "u"}) },
					func() error { _, err := store.Family(t.Context(), "f"); return err },
					func() error {
						_, err := store.RotateFamily(t.Context(), authz.RefreshToken{Family: "f"}, [32]byte{})
						return err
					},
					func() error { return store.End(t.Context(), authz.Ending{Family: "f"}) },
					func() error { _, err := store.UserStanding(t.Context(), "u"); return err },
					func() error { _, err := store.UserSessions(t.Context(), "u", false); return err },
					func() error { _, err := store.UserFamilies(t.Context(), "u"); return err },
					func() error { _, err := store.RevokeHandle(t.Context(), "u", "h"); return err },
					func() error {
						_, err := store.EndProviderLogin(t.Context(), authz.ProviderLogin{Issuer: "i", Subject: "s"}, "j", time.Now())
						return err
					},
					func() error { return store.SwitchOrganization(t.Context(), "id", "o") },
				} {
					// Where this process stands still meanwhile it takes longer, once.
					for tries, took := 0, patience; took >= patience/4; tries++ {
						require.Less(t, tries, 5, "it takes %v", took)
						start := time.Now()
						requireNoAnswer(t, call())
						took = time.Since(start)
					}
				}
			}
		})
	}
}

func silentServer(t *testing.T) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String() // the kernel accepts, nobody reads
}

// Down at the start, up, down again, up again: the store follows without being
// opened anew, and says nothing but "unavailable" in between.
func TestStoreComesBack(t *testing.T) {
	port := proctest.FreePort(t)
	client, err := session.Open("redis://"+proc.Local(port), session.OpenOptions{Timeout: patience})
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	store := session.New(client, session.Options{Timeout: patience})
	proctest.Need(t, "redis-server")
	for range 2 {
		for range 50 { // more often than there are connections in the pool
			_, err := store.Session(t.Context(), "id", authz.ReadOptions{})
			requireReason(t, authz.ReasonStoreUnavailable, err)
			requireReason(t, authz.ReasonStoreUnavailable, store.Ping(t.Context()))
		}
		server, err := proc.StartRedis(context.WithoutCancel(t.Context()), proc.RedisOptions{Dir: t.TempDir(), Port: port})
		require.NoError(t, err)
		t.Cleanup(func() { _ = server.Stop() })
		require.Eventually(t, func() bool { return store.Ping(t.Context()) == nil }, 20*time.Second, 10*time.Millisecond)
		_, err = store.Session(t.Context(), "id", authz.ReadOptions{})
		requireReason(t, authz.ReasonSessionUnknown, err)
		require.NoError(t, server.Stop())
	}
}

func TestRevocationIsSeenByEveryReadThatStartsLater(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		options := session.Options{Rolling: true, Profiles: true, IdlePrecision: time.Second}
		f := s.store(t, options)
		other := f.another(options)
		for i := range 20 {
			id := fmt.Sprint("id-", i)
			text := `{"userId":"u"}`
			f.set(t, "sess:"+id, text, time.Hour)
			var revoked atomic.Bool
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() { // an application that goes on saving what it has in memory
				for {
					select {
					case <-stop:
						return
					default:
						if err := f.client.Set(t.Context(), "sess:"+id, text, time.Hour).Err(); err != nil {
							t.Error(err)
						}
					}
				}
			})
			for range 4 {
				wg.Go(func() {
					for last := false; !last; {
						last = revoked.Load() // this read starts after the revocation was acknowledged
						got, err := other.Session(t.Context(), id, authz.ReadOptions{})
						if last && (err == nil || authz.ReasonOf(err) != authz.ReasonSessionRevoked) {
							t.Errorf("a revoked session: %v, %v", got, err)
						}
					}
				})
			}
			if err := f.Revoke(t.Context(), id); err != nil {
				t.Error(err)
			}
			revoked.Store(true)
			wg.Go(func() { close(stop) })
			wg.Wait()
		}
		require.Empty(t, f.writes.all())
	})
}

func TestReadingADeadSessionRemovesItsRecordAgain(t *testing.T) {
	f := newServer(t, backends[1]).store(t, session.Options{})
	require.NoError(t, f.Revoke(t.Context(), "id"))
	f.set(t, "sess:id", `{"userId":"u"}`, time.Hour)
	_, err := f.Session(t.Context(), "id", authz.ReadOptions{})
	requireReason(t, authz.ReasonSessionRevoked, err)
	require.False(t, f.exists(t, "sess:id"), "so that Express doesn't find it either")
}

func TestDeadMarkOutlivesWhatCouldBeSaved(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		const day = 24 * time.Hour
		for name, tc := range map[string]struct {
			record string
			ttl    time.Duration
			want   time.Duration
		}{
			"no record":   {"", 0, 2 * day},
			"a usual one": {`{"userId":"u"}`, day, 2 * day},
			"one that is nearly over, but would be saved with a long life": {`{"cookie":{"originalMaxAge":2592000000}}`, time.Minute, 60 * day},
			"one that lives long":     {`{"userId":"u"}`, 30 * day, 60 * day},
			"one that never ends":     {`{"userId":"u"}`, 0, 400 * day},
			"one that can't be read":  {`{"cookie":`, day, 2 * day},
			"one with odd cookies":    {`{"cookie":{"originalMaxAge":"x"}}`, day, 2 * day},
			"one with an endless age": {`{"cookie":{"originalMaxAge":1e300}}`, day, 400 * day},
		} {
			t.Run(name, func(t *testing.T) {
				f := s.store(t, session.Options{})
				if tc.record != "" {
					f.set(t, "sess:id", tc.record, tc.ttl)
				}
				require.NoError(t, f.Revoke(t.Context(), "id"))
				require.False(t, f.exists(t, "sess:id"))
				about(t, tc.want, f.ttl(t, "gatehouse:dead:{sess:id}"))

				// A second time, the record gone, it must not get shorter.
				require.NoError(t, f.Revoke(t.Context(), "id"))
				about(t, tc.want, f.ttl(t, "gatehouse:dead:{sess:id}"))
			})
		}
		f := s.store(t, session.Options{})
		require.NoError(t, f.client.HSet(t.Context(), "sess:id", "a", "b").Err())
		require.NoError(t, f.Revoke(t.Context(), "id"))
		require.False(t, f.exists(t, "sess:id"))
	})
}

func TestMarksLiveAsLongAsTheyMustAndNoShorter(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		f := s.store(t, session.Options{})
		in := func(d time.Duration) time.Time { return f.clock.Now().Add(d) }
		require.NoError(t, f.RevokeToken(t.Context(), "j", in(time.Hour)))
		about(t, time.Hour, f.ttl(t, "revoked:j"))
		require.NoError(t, f.RevokeToken(t.Context(), "j", in(time.Minute)))
		about(t, time.Hour, f.ttl(t, "revoked:j"))
		require.NoError(t, f.RevokeToken(t.Context(), "j", in(2*time.Hour)))
		about(t, 2*time.Hour, f.ttl(t, "revoked:j"))
		f.set(t, "revoked:k", "by an operator, for good", 0)
		require.NoError(t, f.RevokeToken(t.Context(), "k", in(time.Hour)))
		require.Negative(t, f.ttl(t, "revoked:k"))
		require.NoError(t, f.RevokeToken(t.Context(), "past", in(-time.Hour)))
		about(t, time.Minute, f.ttl(t, "revoked:past"))
		require.NoError(t, f.RevokeFamily(t.Context(), "f", in(time.Hour)))
		about(t, time.Hour, f.ttl(t, "gatehouse:dead:{refresh:f}"))
		require.NoError(t, f.RevokeUserBefore(t.Context(), "u", in(0)))
		about(t, 400*24*time.Hour, f.ttl(t, "gatehouse:before:{user:u}"))

		require.ErrorContains(t, f.RevokeToken(t.Context(), "", in(time.Hour)), "no jti")
		require.ErrorContains(t, f.RevokeFamily(t.Context(), "", in(time.Hour)), "no name")
		require.ErrorContains(t, f.RevokeUserBefore(t.Context(), "", in(0)), "no user id")
	})
}

// A mark that was rounded down would leave out what happened within the same
// millisecond before it.
func TestUserMarkIsRoundedUp(t *testing.T) {
	f := newServer(t, backends[0]).store(t, session.Options{})
	at := f.clock.Now().Add(300 * time.Microsecond)
	require.NoError(t, f.RevokeUserBefore(t.Context(), "u", at))
	standing, err := f.TokenStanding(t.Context(), authz.TokenRef{UserID: "u"}, authz.ReadOptions{})
	require.NoError(t, err)
	require.False(t, standing.RevokedBefore.Before(at))
	require.Less(t, standing.RevokedBefore.Sub(at), time.Millisecond)
}

func TestIdle(t *testing.T) {
	onBackends(t, twoBackends, func(s *server) {
		t := s.t
		options := session.Options{Rolling: true, IdlePrecision: session.IdlePrecision(5*time.Minute, 0)}
		banking := authz.ReadOptions{IdleTimeout: 5 * time.Minute}
		record := func(t *testing.T, f fixture, authAge time.Duration) string {
			t.Helper()
			return recordText(t, authz.Session{Identity: authz.Identity{ID: "u"}, AuthTime: f.clock.Now().Add(-authAge)}, nil)
		}

		t.Run("the time of use is written as often as needed, and remembered longer than the record", func(t *testing.T) {
			f := s.store(t, options)
			f.set(t, "sess:id", record(t, f, 0), 24*time.Hour)
			start := f.clock.Now()
			for _, step := range []struct{ advance, want time.Duration }{
				{0, 0}, {29 * time.Second, 0}, {time.Second, 30 * time.Second}, {29 * time.Second, 30 * time.Second}, {time.Hour, 3659 * time.Second},
			} {
				f.clock.Advance(step.advance)
				f.session(t, "id")
				got, err := f.client.Get(t.Context(), "gatehouse:seen:{sess:id}").Int64()
				require.NoError(t, err)
				require.Equal(t, start.Add(step.want).UnixMilli(), got)
			}
			about(t, 48*time.Hour, f.ttl(t, "gatehouse:seen:{sess:id}"))
		})

		t.Run("a passive use doesn't count, but renews, and keeps the time of use as long", func(t *testing.T) {
			f := s.store(t, options)
			f.set(t, "sess:id", record(t, f, 0), 24*time.Hour)
			passive := authz.ReadOptions{Passive: true}
			read := func(o authz.ReadOptions, advance time.Duration) error {
				f.clock.Advance(advance)
				_, err := f.Session(t.Context(), "id", o)
				return err
			}
			require.NoError(t, read(passive, 0))
			require.False(t, f.exists(t, "gatehouse:seen:{sess:id}"))
			require.NoError(t, read(banking, 0))
			f.set(t, "gatehouse:seen:{sess:id}", fmt.Sprint(f.clock.Now().UnixMilli()), time.Hour)
			require.NoError(t, f.client.PExpire(t.Context(), "sess:id", time.Hour).Err())
			require.NoError(t, read(passive, 4*time.Minute))
			about(t, 24*time.Hour, f.ttl(t, "sess:id"))
			about(t, 48*time.Hour, f.ttl(t, "gatehouse:seen:{sess:id}"))
			require.NoError(t, f.client.ZScore(t.Context(), "gatehouse:sessions:{user:u}", "id").Err())
			requireReason(t, authz.ReasonSessionIdle, read(banking, 61*time.Second))
		})

		t.Run("a login is a use", func(t *testing.T) {
			f := s.store(t, options)
			id := f.login(t)
			f.clock.Advance(5 * time.Minute)
			_, err := f.Session(t.Context(), id, banking)
			require.NoError(t, err)
			id = f.login(t)
			f.clock.Advance(5*time.Minute + time.Second)
			_, err = f.Session(t.Context(), id, banking)
			requireReason(t, authz.ReasonSessionIdle, err)
		})

		t.Run("a fresh login works, a long time after it the session was idle", func(t *testing.T) {
			for _, tc := range []struct {
				authAge time.Duration
				want    authz.Reason
			}{
				{0, ""},
				{time.Hour, ""},      // not known to have been idle
				{47 * time.Hour, ""}, // a mark would still be remembered, if tracking was on
				{49 * time.Hour, authz.ReasonSessionIdle},
			} {
				f := s.store(t, options)
				f.set(t, "sess:id", record(t, f, tc.authAge), 24*time.Hour)
				_, err := f.Session(t.Context(), "id", banking)
				if tc.want == "" {
					require.NoError(t, err)
				} else {
					requireReason(t, tc.want, err)
				}
			}
		})

		t.Run("an idle session is ended, its record included", func(t *testing.T) {
			f := s.store(t, options)
			f.set(t, "sess:id", record(t, f, 0), 24*time.Hour)
			f.session(t, "id")
			f.clock.Advance(5*time.Minute + time.Millisecond)
			_, err := f.Session(t.Context(), "id", banking)
			requireReason(t, authz.ReasonSessionIdle, err)
			require.False(t, f.exists(t, "sess:id"))
			require.True(t, f.exists(t, "gatehouse:dead:{sess:id}"))
		})

		t.Run("it is refused even when it can't be ended", func(t *testing.T) {
			f := s.store(t, options)
			f.set(t, "sess:id", record(t, f, 0), 24*time.Hour)
			f.session(t, "id")
			f.clock.Advance(6 * time.Minute)
			scripts := 0
			f.client.AddHook(&roundTrips{fail: func([]string) error {
				if scripts++; scripts%2 == 0 { // the one that ends it
					return errors.New("cut off")
				}
				return nil
			}})
			for range 2 {
				_, err := f.Session(t.Context(), "id", banking)
				requireReason(t, authz.ReasonSessionIdle, err)
			}
			require.Len(t, f.writes.all(), 2)
		})

		t.Run("a policy with an idle timeout that the options don't know of is obeyed", func(t *testing.T) {
			f := s.store(t, session.Options{})
			f.set(t, "sess:id", record(t, f, 0), 24*time.Hour)
			_, err := f.Session(t.Context(), "id", banking)
			require.NoError(t, err)
			f.clock.Advance(6 * time.Minute)
			_, err = f.Session(t.Context(), "id", banking)
			requireReason(t, authz.ReasonSessionIdle, err)
		})

		t.Run("the time is kept to the touch interval when no policy asks", func(t *testing.T) {
			f := s.store(t, session.Options{TouchInterval: time.Hour})
			f.set(t, "sess:id", record(t, f, 0), 24*time.Hour)
			start := f.clock.Now()
			for _, step := range []struct{ advance, want time.Duration }{{0, 0}, {59 * time.Minute, 0}, {time.Minute, time.Hour}} {
				f.clock.Advance(step.advance)
				f.session(t, "id")
				got, err := f.client.Get(t.Context(), "gatehouse:seen:{sess:id}").Int64()
				require.NoError(t, err)
				require.Equal(t, start.Add(step.want).UnixMilli(), got)
			}
		})

		t.Run("a time that can't be read fails no policy that does not ask for it", func(t *testing.T) {
			f := s.store(t, session.Options{})
			f.set(t, "sess:id", record(t, f, 0), 24*time.Hour)
			f.set(t, "gatehouse:seen:{sess:id}", "just now", 0)
			f.session(t, "id")
			got, err := f.client.Get(t.Context(), "gatehouse:seen:{sess:id}").Int64()
			require.NoError(t, err, "it is written anew")
			require.Equal(t, f.clock.Now().UnixMilli(), got)
		})
	})
}

func TestIdlePrecision(t *testing.T) {
	for _, tc := range []struct{ timeout, interval, want time.Duration }{
		{5 * time.Minute, 0, 30 * time.Second},
		{time.Hour, 0, time.Minute},
		{time.Hour, 10 * time.Minute, 6 * time.Minute},
		{time.Hour, time.Second, time.Second},
		{time.Millisecond, 0, time.Millisecond},
	} {
		require.Equal(t, tc.want, session.IdlePrecision(tc.timeout, tc.interval))
	}
}

func TestOptionsSayWhatIsWrong(t *testing.T) {
	for want, o := range map[string]session.Options{
		`prefix "user:"`:      {Prefix: "user:"},
		`prefix "u"`:          {Prefix: "u"},
		`prefix "gatehouse:x`: {Prefix: "gatehouse:x:"},
		`prefix "refresh:"`:   {Prefix: "refresh:"},
		`prefix "revoked:a"`:  {Prefix: "revoked:a"},
		`hash tag`:            {Prefix: "a}b:"},
		`prefix "{"`:          {Prefix: "{"},
		`prefix "{}x"`:        {Prefix: "{}x"},
		`TTL is -1s`:          {TTL: -time.Second},
		`the most is`:         {TTL: 401 * 24 * time.Hour},
		`TouchInterval`:       {TouchInterval: -1},
		`Timeout is 1ns`:      {Timeout: 1},
		`IdlePrecision`:       {IdlePrecision: -time.Second},
		`SameSite`:            {Cookie: session.Cookie{SameSite: "Lax"}},
		`AccessTTL is 9624h`:  {AccessTTL: 9624 * time.Hour},
		`AccessTTL is -1s`:    {AccessTTL: -time.Second},
		`RefreshTTL`:          {RefreshTTL: 9624 * time.Hour},
		`RefreshGrace is 1ns`: {RefreshGrace: 1},
		`ConfirmReplicas`:     {ConfirmReplicas: -1},
		`Gatehouse's own`:     {Fields: session.Fields{UserID: "gatehouse.user"}},
	} {
		require.ErrorContains(t, o.Validate(), want)
		require.Panics(t, func() { session.New(nil, o) })
	}
	for _, o := range []session.Options{
		{}, {Prefix: "sess:"}, {Prefix: "app:"}, {Prefix: "{app}:sess:"}, {Prefix: "session-user:"}, {Cookie: session.Cookie{SameSite: "none"}},
	} {
		require.NoError(t, o.Validate())
	}
}

func TestErrorsHoldNoIDs(t *testing.T) {
	s := newServer(t, backends[1])
	f := s.store(t, session.Options{Profiles: true})
	const id, user = "the-session-id", "the-user-id"
	f.set(t, "sess:"+id, `{"userId":"the-user-id","email":["the-user-id"]}`, time.Hour)
	_, malformed := f.Session(t.Context(), id, authz.ReadOptions{})
	f.set(t, "sess:"+id, `{"userId":"the-user-id"}`, time.Hour)
	f.set(t, "user:"+user, `{"email":["the-user-id"]}`, time.Hour)
	_, profile := f.Session(t.Context(), id, authz.ReadOptions{})
	_, unknown := f.Session(t.Context(), id+"x", authz.ReadOptions{})
	require.NoError(t, f.Revoke(t.Context(), id))
	_, revoked := f.Session(t.Context(), id, authz.ReadOptions{})
	_, cut := s.connect(t, patience)
	cut()
	_, out := f.Session(t.Context(), id, authz.ReadOptions{})
	errs := []error{malformed, profile, unknown, revoked, out, f.Revoke(t.Context(), id)}
	_, listed := f.UserSessions(t.Context(), user, true)
	_, all := f.RevokeUser(t.Context(), user)
	_, handle := f.RevokeHandle(t.Context(), user, authz.Handle(id))
	_, changed := f.ChangeUser(t.Context(), user, authz.UserChange{Disabled: new(bool)})
	_, rotated := f.RotateFamily(t.Context(), authz.RefreshToken{Family: id}, [32]byte{})
	_, ended := f.EndProviderLogin(t.Context(), authz.ProviderLogin{Issuer: id, Subject: user}, id, time.Now())
	errs = append(errs, listed, all, handle, changed, rotated, ended, f.End(t.Context(), authz.Ending{SessionID: id, Family: user}))
	for _, err := range errs {
		require.Error(t, err)
		require.NotContains(t, err.Error(), id)
		require.NotContains(t, err.Error(), user)
	}
}
