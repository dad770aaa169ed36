package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// A refresh family is a hash:
//
//	user, auth, created, used   whose it is; times in Unix milliseconds
//	address, agent              the device of the login
//	generation, hash            of the token that is current; hex
//	used:<generation>           of a token before it, while that can be repeated:
//	                            first use, hash, name of the call that used it
//	oldest                      least generation that there is such a field of

// familyFields are the fields that make an [authz.Family], in the order of
// familyOf.
var familyFields = []string{"user", "auth", "created", "used", "address", "agent", "generation", "hash"}

// CreateFamily keeps a new refresh family, for [Options] RefreshTTL. Zero
// times are now. A time that the user's mark covers is put behind it, as in
// [Store.Create].
func (s *Store) CreateFamily(ctx context.Context, f authz.Family) error {
	keys, ok := keysOfFamily(f.ID)
	if !ok || f.UserID == "" || f.Generation < 0 {
		return errors.New("create refresh family: it needs a name without braces, a user id, and a token")
	}
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	now := s.o.Now()
	user := keysOf(f.UserID)
	index := s.enter(user.families, f.ID, s.familyMemory(), 0, now).withMark(user)
	if _, err := s.send(repeatable(ctx), []*scriptCall{index}, false); err != nil {
		return unavailable("index refresh family", err)
	}
	standing, err := index.standing()
	if err != nil {
		return err
	}
	created := cmp.Or(f.Created, now)
	fields := []any{
		"user", f.UserID,
		"auth", milliseconds(cmp.Or(f.AuthTime, created)),
		"created", milliseconds(behind(standing, created, now)),
		"used", milliseconds(cmp.Or(f.LastUsed, created)),
		"address", cut(f.Device.Address),
		"agent", cut(f.Device.UserAgent),
		"generation", f.Generation,
		"hash", hex.EncodeToString(f.Hash[:]),
		"oldest", f.Generation,
	}
	_, err = s.apply(ctx, "create refresh family", false, []slot{{absent(keys.dead), fill(keys.record, s.o.RefreshTTL, fields...)}})
	if errors.Is(err, errCondition) {
		return authz.Refuse(authz.ReasonRefreshInvalid, "everything of the user was revoked meanwhile")
	}
	return err
}

// familyMemory is how long an index keeps a family that was used now.
func (s *Store) familyMemory() time.Duration { return 2 * s.o.RefreshTTL }

// familyMark is how long the mark of a family must live that ends now: until
// no access token is taken any more that came from it.
func (s *Store) familyMark() time.Duration {
	return max(s.o.AccessTTL+accessLeeway, s.o.RefreshGrace, minTokenMark)
}

// accessLeeway is more than any verifier adds to the life of an access token.
const accessLeeway = 5 * time.Minute

// Family returns a refresh family that lives.
func (s *Store) Family(ctx context.Context, id string) (authz.Family, error) {
	keys, ok := keysOfFamily(id)
	if !ok {
		return authz.Family{}, errNoFamily()
	}
	ctx, cancel := s.deadline(repeatable(ctx))
	defer cancel()
	pipe := s.client.Pipeline()
	read := readFamily(ctx, pipe, id, keys, s.o.Now())
	if err := exec(ctx, pipe); err != nil {
		return authz.Family{}, unavailable("read refresh family", err)
	}
	f, ok := read()
	if !ok {
		return authz.Family{}, errNoFamily()
	}
	return f, nil
}

func errNoFamily() error {
	return authz.Refuse(authz.ReasonRefreshInvalid, "no such refresh family: unknown, expired or revoked")
}

// readFamily adds the reads of a family to a pipeline, and returns what takes
// their results when it was executed; ok is false when it does not live.
func readFamily(ctx context.Context, pipe redis.Pipeliner, id string, keys familyKeys, now time.Time) func() (_ authz.Family, ok bool) {
	fields := pipe.HMGet(ctx, keys.record, familyFields...)
	ttl := pipe.PTTL(ctx, keys.record)
	dead := pipe.Exists(ctx, keys.dead)
	return func() (authz.Family, bool) {
		if fields.Err() != nil || dead.Val() != 0 {
			return authz.Family{}, false
		}
		return familyOf(id, fields.Val(), ttl.Val(), now)
	}
}

// familyOf makes a family of its fields; ok is false where one that must be
// there is not.
func familyOf(id string, fields []any, ttl time.Duration, now time.Time) (f authz.Family, ok bool) {
	if len(fields) != len(familyFields) || ttl == ttlAbsent {
		return f, false
	}
	text := func(i int) string {
		v, _ := fields[i].(string)
		return v
	}
	var errs [4]error
	at := func(i int) (t time.Time) {
		var ms int64
		ms, errs[i-1] = strconv.ParseInt(text(i), 10, 64)
		return time.UnixMilli(ms)
	}
	f = authz.Family{
		ID: id, UserID: text(0), AuthTime: at(1), Created: at(2), LastUsed: at(3),
		Device: authz.Device{Address: text(4), UserAgent: text(5)},
	}
	f.Generation, errs[3] = strconv.Atoi(text(6))
	hash, err := hex.DecodeString(text(7))
	if errors.Join(errs[:]...) != nil || err != nil || copy(f.Hash[:], hash) != len(hash) || len(hash) != sha256.Size || f.UserID == "" {
		return authz.Family{}, false
	}
	if ttl >= 0 {
		f.Expires = now.Add(ttl)
	}
	return f, true
}

// UserFamilies lists the refresh families of a user that live, the latest
// first.
func (s *Store) UserFamilies(ctx context.Context, userID string) ([]authz.ActiveLogin, error) {
	if userID == "" {
		return nil, errors.New("list refresh families: no user id")
	}
	ctx = repeatable(ctx)
	user, err := s.findUser(ctx, userID, false)
	if err != nil {
		return nil, err
	}
	logins := []authz.ActiveLogin{}
	err = s.lookAtFamilies(ctx, user.families, func(f authz.Family) {
		if f.UserID == userID && !user.standing.Covers(f.Created) {
			logins = append(logins, authz.ActiveLogin{
				Handle: authz.Handle(f.ID),
				User:   authz.User{Identity: authz.Identity{ID: f.UserID}},
				Device: f.Device, Created: f.Created, LastSeen: f.LastUsed, Expires: f.Expires,
			})
		}
	})
	if err != nil {
		return nil, err
	}
	latestFirst(logins)
	return logins, nil
}

// RotateFamily uses a refresh token: the first time its successor becomes
// current, whose hash is next, and the family lives for another [Options]
// RefreshTTL. Used again within the RefreshGrace after that, it changes
// nothing, and what is current is returned. Used again later, it revokes the
// family in the same step: somebody else has it, too.
//
// Which token is newer is decided by its generation. The clocks of the
// replicas decide about the grace alone, and may differ by less than that.
//
// It takes two round trips. The first one is refused when too many ask, the second one,
// which changes something, is not.
func (s *Store) RotateFamily(ctx context.Context, t authz.RefreshToken, next [32]byte) (authz.Family, error) {
	keys, ok := keysOfFamily(t.Family)
	if !ok || t.Generation < 0 {
		return authz.Family{}, errNoFamily()
	}
	userID, err := s.familyUser(ctx, keys)
	if err != nil {
		return authz.Family{}, err
	}
	if userID == "" {
		return authz.Family{}, errNoFamily()
	}
	now := s.o.Now()
	user := keysOf(userID)
	index := s.enter(user.families, t.Family, s.familyMemory(), 0, now).withMark(user)
	rotate := &scriptCall{
		script: rotateScript,
		keys:   []string{keys.record, keys.dead},
		args: []any{
			t.Generation, hex.EncodeToString(t.Hash[:]), hex.EncodeToString(next[:]),
			now.UnixMilli(), s.o.RefreshGrace.Milliseconds(), rand.Text(),
			s.o.RefreshTTL.Milliseconds(), s.familyMark().Milliseconds(), mostRepeatable,
		},
	}
	for _, name := range familyFields {
		rotate.args = append(rotate.args, name)
	}
	if _, err := s.send(ctx, []*scriptCall{index, rotate}, false); err != nil {
		return authz.Family{}, unavailable("rotate refresh token", err)
	}
	answer, err := rotate.reply.Slice()
	if err != nil || len(answer) < 1 {
		return authz.Family{}, unavailable("rotate refresh token", cmp.Or(err, errAnswer))
	}
	switch answer[0] {
	case rotateInvalid:
		return authz.Family{}, errNoFamily()
	case rotateReused:
		if err := s.confirmReuse(ctx, keys); err != nil {
			return authz.Family{}, fmt.Errorf("%w, and that is not confirmed: %w", authz.ErrRefreshReused, err)
		}
		return authz.Family{}, authz.Refuse(authz.ReasonRefreshReused, "%w", authz.ErrRefreshReused)
	}
	standing, err := index.standing()
	if err != nil {
		return authz.Family{}, err
	}
	if len(answer) != 3 {
		return authz.Family{}, unavailable("rotate refresh token", errAnswer)
	}
	ttl, _ := answer[1].(int64)
	fields, _ := answer[2].([]any)
	f, ok := familyOf(t.Family, fields, time.Duration(ttl)*time.Millisecond, now)
	// Everything of the user may have been revoked since the caller looked, and
	// in a Cluster the family not yet.
	if !ok || standing.Covers(f.Created) {
		return authz.Family{}, errNoFamily()
	}
	return f, nil
}

// confirmReuse has the replicas confirm that a family is revoked, which it is.
func (s *Store) confirmReuse(ctx context.Context, keys familyKeys) error {
	if s.o.ConfirmReplicas == 0 {
		return nil
	}
	_, err := s.apply(ctx, "revoke refresh family", true, []slot{{drop(keys, s.familyMark())}})
	return err
}

// familyUser returns whose family it is; "" when there is none.
func (s *Store) familyUser(ctx context.Context, keys familyKeys) (string, error) {
	ctx, cancel := s.deadline(repeatable(ctx))
	defer cancel()
	pipe := s.client.Pipeline()
	user := pipe.HGet(ctx, keys.record, "user")
	if err := exec(ctx, pipe); err != nil {
		return "", unavailable("read refresh family", err)
	}
	return user.Val(), nil // "" where it is not there or no hash
}

// mostRepeatable is how many used tokens a family remembers. A client that
// refreshes more often than that within the grace and then comes with an older
// token loses the family.
const mostRepeatable = 128

// The answers of rotateScript.
const (
	rotateInvalid int64 = iota
	rotateReused
	rotateCurrent
)

var errAnswer = errors.New("an answer that the script does not give")

// rotateScript uses a refresh token, and returns what that was, and for
// rotateCurrent the life of the family in ms and its fields.
//
// It can be sent again when its reply was lost: the name of the call stands
// with the use, or in the dead mark.
//
// KEYS: family, dead mark.
// ARGV: generation and hash of the token, hash of its successor, now in Unix
// ms, grace in ms (negative: none), name of the call, life of the family in ms,
// life of the dead mark in ms, how many used tokens to remember; the fields to
// return.
var rotateScript = redis.NewScript(`
local family, dead = KEYS[1], KEYS[2]
local presented, hash, now, grace = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])

local function current()
	return {2, redis.call('PTTL', family), redis.call('HMGET', family, unpack(ARGV, 10))}
end

-- When the token of a generation was first used, its hash, and by which call.
local function use(generation)
	local text = redis.call('HGET', family, 'used:' .. string.format('%d', generation))
	if text then
		local first, by, call = string.match(text, '^(%d+) (%x+) (%S+)$')
		return tonumber(first), by, call
	end
end

local mark = redis.pcall('GET', dead)
if type(mark) == 'string' and string.sub(mark, 1, #ARGV[6]) == ARGV[6] then
	return {1}
end
if redis.call('EXISTS', dead) == 1 or redis.call('EXISTS', family) == 0 then
	return {0}
end
local state = redis.call('HMGET', family, 'generation', 'hash', 'oldest')
local generation, oldest = tonumber(state[1] or ''), tonumber(state[3] or '')
if not generation or not oldest or presented > generation or presented == generation and state[2] ~= hash then
	return {0}
end

if presented < generation then
	local first, by, call = use(presented)
	if first and by == hash and (call == ARGV[6] or grace >= 0 and now - first <= grace) then
		return current()
	end
	redis.call('SET', dead, ARGV[6] .. '\n' .. (redis.call('HGET', family, 'user') or ''), 'PX', ARGV[8])
	redis.call('DEL', family)
	return {1}
end

redis.call('HSET', family,
	'used:' .. string.format('%d', generation), ARGV[4] .. ' ' .. hash .. ' ' .. ARGV[6],
	'generation', string.format('%d', generation + 1), 'hash', ARGV[3], 'used', ARGV[4])
while oldest < generation do
	local first = use(oldest)
	if first and now - first <= grace and generation - oldest < tonumber(ARGV[9]) then
		break
	end
	redis.call('HDEL', family, 'used:' .. string.format('%d', oldest))
	oldest = oldest + 1
end
redis.call('HSET', family, 'oldest', string.format('%d', oldest))
redis.call('PEXPIRE', family, ARGV[7])
return current()
`)

// lookAtFamilies reads families in steps, those that live.
func (s *Store) lookAtFamilies(ctx context.Context, ids []string, visit func(authz.Family)) error {
	for part := range slices.Chunk(ids, readAtOnce) {
		if err := s.lookAtSomeFamilies(ctx, part, visit); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) lookAtSomeFamilies(ctx context.Context, ids []string, visit func(authz.Family)) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	pipe := s.client.Pipeline()
	var reads []func() (authz.Family, bool)
	for _, id := range ids {
		if keys, ok := keysOfFamily(id); ok {
			reads = append(reads, readFamily(ctx, pipe, id, keys, s.o.Now()))
		}
	}
	if len(reads) == 0 {
		return nil
	}
	if err := exec(ctx, pipe); err != nil {
		return unavailable("read refresh families", err)
	}
	for _, read := range reads {
		if f, ok := read(); ok {
			visit(f)
		}
	}
	return nil
}
