package session

import (
	"encoding/hex"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// FuzzDecodeProfile states that a profile, which anybody may write, is read as
// encoding/json reads it or not at all: a member of the wrong type is never taken
// for one that is missing, above all not one that disables its user.
func FuzzDecodeProfile(f *testing.F) {
	for _, seed := range []string{
		`{"email":"a@example.com","roles":["r"],"organizationId":7,"organizations":["o"],"disabled":false}`, `{"disabled":true}`, `{"disabled":"true"}`, `{"disabled":null}`, `{"disabled":1}`,
		`{"disabled":false,"disabled":true}`, `{"Disabled":true}`, `{"roles":"admin"}`, `{"roles":null,"email":null}`, `{"roles":["a",null]}`, `{"organizationId":1.5}`, `{}`, `null`, `[]`, `{}{}`, `{"\u0064isabled":true}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := decodeProfile(text)
		require.NotEqual(t, p == nil, err == nil)
		if err != nil {
			return
		}
		values, err := decodeObject(text)
		require.NoError(t, err)
		disabled, given := values["disabled"]
		require.Equal(t, disabled == true, p.Disabled)
		require.True(t, !given || disabled == nil || disabled == true || disabled == false, "%v does not disable", disabled)
		for name, has := range map[string]bool{"email": p.Email != nil, "roles": p.Roles != nil, "organizationId": p.Organization != nil} {
			_, given := values[name]
			require.Equal(t, given, has, name)
		}
		if p.Email != nil && values["email"] != nil {
			require.Equal(t, values["email"], *p.Email)
		}
		if list, ok := values["roles"].([]any); ok {
			require.Len(t, *p.Roles, len(list))
		}

		// And the cache tells the same of it.
		want := authz.Standing{Profile: p, RevokedBefore: fuzzNow}
		var got authz.Standing
		require.NoError(t, readUserFacts(string(userFacts(want, nil)), &got, &authz.Memory{}))
		require.True(t, want.RevokedBefore.Equal(got.RevokedBefore))
		if p.Roles != nil && *p.Roles == nil {
			p.Roles = &[]string{} // null is no roles
		}
		require.Equal(t, want.Profile, got.Profile)
	})
}

// FuzzFacts states that what the cache keeps of a record is what was read of it,
// to the last field, and that a value cut short or longer than it was is found
// damaged or means the same: it never makes another user.
func FuzzFacts(f *testing.F) {
	f.Add(`{"userId":"u","email":"e","roles":["a"],"authTime":1795867200,"createdAt":1795867201}`, uint16(10))
	f.Add(`{"userId":7,"roles":[],"organizationId":"o","organizations":["o","p"],"cookie":{"originalMaxAge":60000}}`, uint16(40))
	f.Add(`{"userId":"\u0000\ud800","roles":"admin"}`, uint16(0))
	fields := Fields{}.withDefaults()
	s := &Store{o: Options{Fields: fields, Rolling: true, TouchInterval: time.Minute, IdlePrecision: time.Second}, cache: &cache{keepRecords: true}}
	f.Fuzz(func(t *testing.T, text string, cut uint16) {
		session, err := fields.decodeRecord(text, fuzzNow)
		if err != nil {
			return
		}
		want := &found{Session: session, text: text, life: time.Hour, memory: 2 * time.Hour, ttl: time.Hour, sum: 1}
		facts := s.sessionFacts(want, fuzzNow)
		got := found{Session: &authz.Session{}}
		_, err = s.readSession(string(facts), &got)
		require.NoError(t, err)
		require.Equal(t, want.ID, got.ID)
		require.Equal(t, want.Email, got.Email)
		require.Equal(t, want.Organization, got.Organization)
		require.Equal(t, want.Roles == nil, got.Roles == nil)
		require.ElementsMatch(t, want.Roles, got.Roles)
		require.ElementsMatch(t, want.Organizations, got.Organizations)
		require.Equal(t, text, got.text)
		require.Equal(t, want.life, got.life)
		require.WithinDuration(t, want.AuthTime, got.AuthTime, time.Microsecond)
		require.WithinDuration(t, want.Created, got.Created, time.Microsecond)

		damaged := found{Session: &authz.Session{}}
		if _, err := s.readSession(string(facts[:int(cut)%len(facts)]), &damaged); err == nil {
			require.Equal(t, want.ID, damaged.ID)
		}
	})
}

// FuzzFamily states that the fields of a refresh family, which Redis may have lost
// or others have written, make one whole family or none.
func FuzzFamily(f *testing.F) {
	hash := strings.Repeat("0a", 32)
	f.Add("u", "1795867200000", "1795867200001", "1795867200002", "3", hash, int64(1000))
	f.Add("", "1", "1", "1", "3", hash, int64(1000))
	f.Add("u", "x", "1", "1", "-3", hash+"00", int64(-1))
	f.Add("u", "1", "1", "1", "3", hash, int64(0))
	f.Add("u", "1e3", " 1", "9223372036854775807", "+3", hash[1:], int64(-2))
	f.Fuzz(func(t *testing.T, user, auth, created, used, generation, hash string, ttl int64) {
		fields := []any{user, auth, created, used, "192.0.2.1", "agent", generation, hash}
		ttl = min(max(ttl, -2), int64(markLife)) // what PTTL answers
		got, ok := familyOf("id", fields, time.Duration(ttl), fuzzNow)
		if !ok {
			require.Zero(t, got)
			return
		}
		require.NotEmpty(t, got.UserID)
		require.Equal(t, user, got.UserID)
		n, err := strconv.Atoi(generation)
		require.NoError(t, err)
		require.Equal(t, n, got.Generation)
		require.Equal(t, ttl == -1, got.Expires.IsZero(), "only what has no end never ends: %d", ttl)
		require.True(t, strings.EqualFold(hash, hex.EncodeToString(got.Hash[:])), "the hash of another token")
		for i := range fields {
			if i == 4 || i == 5 {
				continue // a device may be missing
			}
			less := append([]any{}, fields...)
			less[i] = nil
			_, ok := familyOf("id", less, time.Duration(ttl), fuzzNow)
			require.False(t, ok, "without field %d", i)
		}
	})
}

// FuzzParseURL states that a store's URL names at least one address, that go-redis
// reads plain ones alike, and that an error never repeats what may be a password.
func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{
		"redis://127.0.0.1:6379/0", "rediss://user:p%40ss@h/3", "redis+sentinel://h1:26379,h2/mymaster/0", "redis+cluster://[::1]:1,b", "embedded://", "unix:///run/redis.sock?db=2",
		"redis://:secret-of-tests@h:x/0", "redis://h/secret-of-tests", "redis://u:secret-of-tests%zz@h", "redis://secret-of-tests:1:2", "REDIS://h", "redis://h/1?x=secret-of-tests", "redis://h#secret-of-tests",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := parseURL(raw)
		if err != nil {
			if strings.Contains(raw, "secret-of-tests") {
				require.NotContains(t, err.Error(), "secret-of-tests")
			}
			return
		}
		require.True(t, len(u.hosts) > 0 || u.kind == kindEmbedded)
		require.GreaterOrEqual(t, u.db, 0)
		require.Equal(t, u.kind == kindSentinel, u.master != "")
		theirs, err := redis.ParseURL(raw)
		if err != nil || u.kind != kindSingle || strings.HasPrefix(strings.ToLower(raw), "unix:") {
			return
		}
		require.Equal(t, theirs.DB, u.db)
		require.Equal(t, theirs.Password, u.password)
		require.Equal(t, theirs.Username, u.username)
		require.Equal(t, theirs.Addr, u.hosts[0])
	})
}

// FuzzSetRecord states that a change of a record, at whatever path, changes that
// and nothing else of it: what other programs keep there stays.
func FuzzSetRecord(f *testing.F) {
	f.Add(`{"a":{"b":1},"c":[2]}`, "a.b")
	f.Add(`{"a.b":1,"a":{"b":2}}`, "a.b")
	f.Add(`{"a":1,"a":2}`, "a")
	f.Add(`{"\u0061":1}`, "a")
	f.Add(`{"a":[]}`, "a.b.c")
	f.Fuzz(func(t *testing.T, text, path string) {
		before, err := decodeObject(text)
		if err != nil || !utf8.ValidString(path) { // a path is the configuration's, and that is UTF-8
			return
		}
		r, err := parseRecord([]byte(text))
		require.NoError(t, err)
		if err := r.Set(path, "set"); err != nil {
			return
		}
		after, err := decodeObject(string(r.encode()))
		require.NoError(t, err)
		require.Equal(t, "set", lookup(after, path), "%s of %s", path, r.encode())
		head, _, _ := strings.Cut(path, ".")
		for name, value := range before {
			if name != head && name != path {
				require.Equal(t, value, after[name], name)
			}
		}
		for name := range after {
			_, had := before[name]
			require.True(t, had || name == head || name == path, "%s is new", name)
		}
	})
}
