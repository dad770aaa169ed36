package session

import (
	"context"
	"errors"
	"hash/maphash"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// loaded is all that the store knows about a session and its user.
type loaded struct {
	found    *found
	refused  error // why the session is none; found is nil then
	saved    bool  // it was ended, and another program saved it again
	deadFor  time.Duration
	standing standing
}

// standing is what the store knows about a user.
type standing struct {
	authz.Standing
	refused error         // the profile can't be read
	ttl     time.Duration // the least of the parts that have one; ttlNever
}

// reply is what a GET found.
type reply struct {
	text      string
	exists    bool
	wrongType bool
}

func (r reply) get() (text string, exists bool, err error) {
	if r.wrongType {
		return "", true, errWrongType
	}
	return r.text, r.exists, nil
}

func (r reply) time() (time.Time, error) {
	text, exists, err := r.get()
	if err != nil || !exists {
		return time.Time{}, err
	}
	return markTime(text)
}

// sessionReply and userReply are what the store holds about a session, and about
// a user.
type sessionReply struct {
	record, seen reply
	ttl, dead    time.Duration
}

type userReply struct {
	before, profile       reply
	beforeTTL, profileTTL time.Duration
}

// load reads all about a session in one round trip: by a script, which is cheaper
// for both sides than as many commands, and can look whose session it is where
// nobody knows yet. A Cluster has the user's keys elsewhere, and so needs to be
// told: without a guess, and where that was wrong, it takes a second one. The order does not matter: a revocation that was
// acknowledged before this call left its mark before it, so the mark is seen
// whenever it is read.
//
// last is what was read of the session when it was looked at before, nil for
// nothing, from which the guess comes.
//
// The error is about what can't be known.
func (s *Store) load(ctx context.Context, keys recordKeys, last *found) (*loaded, error) {
	ctx, cancel := redisguard.Lookup(ctx, s.o.Timeout)
	defer cancel()
	var session sessionReply
	var user userReply
	var err error
	guess := ""
	if last != nil {
		guess = last.ID
	}
	whose := guess
	if s.single != nil {
		session, user, whose, err = s.askScript(ctx, keys, guess)
		if _, refused := errors.AsType[redis.Error](err); refused {
			whose = guess // it may do without scripts
			session, user, err = s.askPipeline(ctx, keys, guess)
		}
	} else {
		session, user, err = s.askPipeline(ctx, keys, guess)
	}
	if err != nil {
		return nil, unavailable("read session", err)
	}
	l := &loaded{}
	if l.found, l.refused = s.judge(session, last); l.refused != nil {
		l.saved = session.dead != ttlAbsent && session.record.exists
		l.deadFor = session.dead
		return l, nil
	}
	if l.found.ID == "" {
		return l, nil
	}
	if l.found.ID != whose {
		if user, err = s.askUser(ctx, l.found.ID); err != nil {
			return nil, unavailable("read the user's standing", err)
		}
	}
	l.standing, err = s.judgeUser(user)
	return l, err
}

// judge says whether there is a session. Where its record is, letter by letter, the
// one that was read last, it is not taken apart again, and its Values are nil.
func (s *Store) judge(r sessionReply, last *found) (*found, error) {
	text, exists, err := r.record.get()
	switch {
	case r.dead != ttlAbsent:
		return nil, errDead()
	case err != nil:
		return nil, authz.Refuse(authz.ReasonSessionMalformed, "the record: %w", err)
	case !exists || r.ttl == ttlAbsent:
		return nil, authz.Refuse(authz.ReasonSessionUnknown, "there is no record of that id")
	case r.ttl == 0:
		return nil, authz.Refuse(authz.ReasonSessionExpired, "the record's time to live is over")
	}
	sum := s.sum(text)
	if last != nil && last.sum == sum {
		f := *last
		f.text, f.ttl, f.memory = text, r.ttl, s.memory(last.life, r.ttl)
		f.LastSeen, f.seenErr = r.seen.time()
		return &f, nil
	}
	session, err := s.o.Fields.decodeRecord(text, s.o.Now())
	if err != nil {
		return nil, authz.Refuse(authz.ReasonSessionMalformed, "the record: %w", err)
	}
	f := &found{Session: session, text: text, ttl: r.ttl, provider: ourValuesIn(session.Values).provider}
	if s.o.Fields.timeless(session) {
		f.sum = sum
	}
	f.life, f.memory = s.lives(session.Values, f.ttl)
	f.LastSeen, f.seenErr = r.seen.time()
	return f, nil
}

// sum tells a record's text from others, but for one in 2⁶³. It is not known
// outside this process, and never 0.
func (s *Store) sum(text string) uint64 { return maphash.String(s.seed, text) | 1 }

// judgeUser says what stands for and against a user. The error is about a mark
// that can't be read: what it revokes is not known.
func (s *Store) judgeUser(r userReply) (st standing, err error) {
	st.ttl = ttlNever
	for _, ttl := range [...]time.Duration{r.beforeTTL, r.profileTTL} {
		if ttl >= 0 && (st.ttl < 0 || ttl < st.ttl) {
			st.ttl = ttl
		}
	}
	if st.RevokedBefore, err = r.before.time(); err != nil {
		return st, unavailable("read the user's mark", err)
	}
	st.Profile, st.refused = profileIn(r.profile)
	return st, nil
}

// profileIn returns the profile, nil when there is none.
func profileIn(r reply) (*authz.Profile, error) {
	text, exists, err := r.get()
	if err == nil && !exists {
		return nil, nil
	}
	var p *authz.Profile
	if err == nil {
		p, err = decodeProfile(text)
	}
	if err != nil {
		return nil, authz.Refuse(authz.ReasonProfileMalformed, "the profile: %w", err)
	}
	return p, nil
}

// askPipeline asks for a session and, where that is not "", a user.
func (s *Store) askPipeline(ctx context.Context, keys recordKeys, userID string) (session sessionReply, user userReply, err error) {
	pipe := s.client.Pipeline()
	read := readSessionReply(ctx, pipe, keys)
	readUser := func() userReply { return userReply{} }
	if userID != "" {
		readUser = s.readUserReply(ctx, pipe, userID)
	}
	if err := exec(ctx, pipe); err != nil {
		return session, user, err
	}
	return read(), readUser(), nil
}

func (s *Store) askUser(ctx context.Context, userID string) (userReply, error) {
	pipe := s.client.Pipeline()
	read := s.readUserReply(ctx, pipe, userID)
	if err := exec(ctx, pipe); err != nil {
		return userReply{}, err
	}
	return read(), nil
}

// readSessionReply adds the reads to a pipeline, and returns what takes their
// results when it was executed.
func readSessionReply(ctx context.Context, pipe redis.Pipeliner, keys recordKeys) func() sessionReply {
	record, ttl := pipe.Get(ctx, keys.record), pipe.PTTL(ctx, keys.record)
	dead, seen := pipe.PTTL(ctx, keys.dead), pipe.Get(ctx, keys.seen)
	return func() sessionReply {
		return sessionReply{record: replyOf(record), seen: replyOf(seen), ttl: ttl.Val(), dead: dead.Val()}
	}
}

func (s *Store) readUserReply(ctx context.Context, pipe redis.Pipeliner, userID string) func() userReply {
	key := beforeKey(userID)
	before, beforeTTL := pipe.Get(ctx, key), pipe.PTTL(ctx, key)
	if !s.o.Profiles {
		return func() userReply {
			return userReply{before: replyOf(before), beforeTTL: beforeTTL.Val(), profileTTL: ttlAbsent}
		}
	}
	profile, profileTTL := pipe.Get(ctx, profileKey(userID)), pipe.PTTL(ctx, profileKey(userID))
	return func() userReply {
		return userReply{replyOf(before), replyOf(profile), beforeTTL.Val(), profileTTL.Val()}
	}
}

// replyOf returns what the GET of an executed pipeline found.
func replyOf(cmd *redis.StringCmd) reply {
	switch {
	case errors.Is(cmd.Err(), redis.Nil):
		return reply{}
	case cmd.Err() != nil: // exec lets one error through
		return reply{exists: true, wrongType: true}
	}
	return reply{text: cmd.Val(), exists: true}
}

// loadScript reads a session, and what there is about the user whose it is told,
// or seems, to be. It returns that user's id, "" for none, which the caller
// compares; numbers of more than 15 digits are not for Lua.
//
// KEYS: record, dead mark, seen mark. ARGV: path of the user's id; what the keys
// of mark and profile begin and end with; 1 where profiles are read; the id, ""
// for unknown.
//
// The user's keys are not declared, since nobody knows them before: on one
// server that is allowed.
var loadScript = redis.NewScript(`
local function get(key)
	local value = redis.pcall('GET', key)
	if type(value) ~= 'table' then
		return value
	end
	return string.find(value.err, 'WRONGTYPE', 1, true) and 0 or error(value.err)
end

local function look(values, path)
	if type(values) ~= 'table' then
		return nil
	end
	if values[path] ~= nil then
		return values[path]
	end
	local head, rest = string.match(path, '^([^.]*)%.(.*)$')
	return head and look(values[head], rest)
end

local record = get(KEYS[1])
local answer = {record, redis.call('PTTL', KEYS[1]), redis.call('PTTL', KEYS[2]), get(KEYS[3]), ''}
local id = ARGV[6]
if type(record) ~= 'string' or id == '' and #record > 16384 then -- of a large one the caller asks again
	return answer
end
if id == '' then
	local ok, values = pcall(cjson.decode, record)
	id = ok and look(values, ARGV[1])
end
if type(id) == 'number' and id == math.floor(id) and math.abs(id) < 1e15 then
	id = string.format('%.0f', id)
end
if type(id) ~= 'string' or id == '' then
	return answer
end
answer[5] = id
local before, profile = ARGV[2] .. id .. ARGV[3], ARGV[4] .. id
answer[6], answer[7] = get(before), redis.call('PTTL', before)
if ARGV[5] == '1' then
	answer[8], answer[9] = get(profile), redis.call('PTTL', profile)
end
return answer
`)

// askScript asks for a session and its user, whose id it is told or finds.
func (s *Store) askScript(ctx context.Context, keys recordKeys, guess string) (session sessionReply, user userReply, userID string, err error) {
	head, tail := beforeParts()
	call := &scriptCall{
		script: loadScript,
		keys:   []string{keys.record, keys.dead, keys.seen},
		args:   []any{s.o.Fields.UserID, head, tail, prefixUser, s.o.Profiles, guess},
	}
	if err := sendAll(ctx, s.client, []*scriptCall{call}); err != nil {
		return session, user, "", err
	}
	answer, err := call.reply.Slice()
	if err != nil || len(answer) < 5 {
		return session, user, "", errors.Join(err, errAnswer)
	}
	session = sessionReply{record: replyIn(answer, 0), ttl: ttlIn(answer, 1), dead: ttlIn(answer, 2), seen: replyIn(answer, 3)}
	userID, _ = answer[4].(string)
	user = userReply{before: replyIn(answer, 5), beforeTTL: ttlIn(answer, 6), profile: replyIn(answer, 7), profileTTL: ttlIn(answer, 8)}
	return session, user, userID, nil
}

func replyIn(answer []any, i int) reply {
	if i >= len(answer) {
		return reply{}
	}
	switch v := answer[i].(type) {
	case string:
		return reply{text: v, exists: true}
	case nil:
		return reply{}
	}
	return reply{exists: true, wrongType: true}
}

func ttlIn(answer []any, i int) time.Duration {
	if i >= len(answer) {
		return ttlAbsent
	}
	switch n, ok := answer[i].(int64); {
	case !ok || n == -2:
		return ttlAbsent
	case n == -1:
		return ttlNever
	default:
		return time.Duration(n) * time.Millisecond
	}
}
