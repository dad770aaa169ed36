package session

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Everything that changes more than one key is a list of steps. One server
// (alone, behind Sentinel, embedded) takes all of them in one script: all or
// nothing happens, whoever dies on the way. A Cluster can do that for the keys
// of one slot only, so there the steps of each slot are a script of their own,
// and stage follows stage: what must not be missing comes first, and each step
// can be repeated, so that whoever got an error does the whole again.

// step is one change of one thing, or a condition for all others. Its name and
// the order of its keys and arguments are those of stepsScript.
type step struct {
	name string
	keys []string
	args []any
}

// slot is steps on keys of one cluster slot.
type slot []step

// absent holds when a key is not there.
func absent(key string) step { return step{name: "absent", keys: []string{key}} }

// holds holds when a key has this text; "" is the same as no key.
func holds(key, text string) step {
	return step{name: "holds", keys: []string{key}, args: []any{text}}
}

func (st step) isCondition() bool { return st.name == "absent" || st.name == "holds" }

// put writes a text that lives so long.
func put(key string, text []byte, life time.Duration) step {
	return step{name: "put", keys: []string{key}, args: []any{text, life.Milliseconds()}}
}

// write writes a text and leaves the time to live alone.
func write(key string, text []byte) step {
	return step{name: "write", keys: []string{key}, args: []any{text}}
}

// fill makes a hash of fields and values, in place of what is there.
func fill(key string, life time.Duration, fields ...any) step {
	return step{name: "fill", keys: []string{key}, args: append([]any{life.Milliseconds(), len(fields)}, fields...)}
}

// finish ends a session. It counts where lived says that it was one, if its
// record is still there and nobody else ended it before. age is the life that its
// record is known to have asked for; zero for unknown. user is whose it was, for the
// revocation feed; "" for unknown.
func finish(k recordKeys, lived bool, age time.Duration, user string) step {
	flag := 0
	if lived {
		flag = 1
	}
	return step{name: "finish", keys: []string{k.record, k.dead}, args: []any{flag, age.Milliseconds(), user}}
}

// drop ends a refresh family; its mark lives so long.
func drop(k familyKeys, life time.Duration) step {
	return step{name: "drop", keys: []string{k.record, k.dead}, args: []any{life.Milliseconds()}}
}

// markFor sets a mark, for so long at least.
func markFor(key string, life time.Duration) step {
	return step{name: "mark", keys: []string{key}, args: []any{life.Milliseconds()}}
}

// moveMark moves a user's mark forward to t, never back. The mark counts
// milliseconds: rounded up, it covers all of t.
func moveMark(userID string, t time.Time) step {
	ms := t.Add(time.Millisecond - 1).UnixMilli()
	return step{name: "before", keys: []string{beforeKey(userID)}, args: []any{ms, markLife.Milliseconds()}}
}

// forget takes an entry out of an index.
func forget(index, entry string) step {
	return step{name: "forget", keys: []string{index}, args: []any{entry}}
}

// mostSteps is how many steps one script takes at most: a server does nothing
// else meanwhile, for about 10 ms. A list that is longer is all or nothing
// within each part only.
const mostSteps = 2000

// errCondition is the answer when a condition did not hold, and nothing was
// changed by what it stands before.
var errCondition = errors.New("a condition does not hold")

// apply takes the steps, and returns how many sessions they ended. Stages
// follow each other; the slots of a stage have no order among them. Conditions
// come before all else on one server, and before the rest of their slot in a
// Cluster.
//
// what names the call for errors. confirmed has the replicas hold it that must;
// an error with [authz.ReasonNotConfirmed] means that all of it was applied.
func (s *Store) apply(ctx context.Context, what string, confirmed bool, stages ...[]slot) (ended int, err error) {
	call := rand.Text()
	held := true
	for _, batch := range s.batches(call, stages) {
		confirmation, err := s.send(ctx, batch, confirmed)
		if err != nil {
			return ended, unavailable(what, err)
		}
		held = held && confirmation
		for _, c := range batch {
			n, err := c.reply.Int()
			if err != nil {
				return ended, unavailable(what, err)
			}
			if n == conditionFails {
				return ended, errCondition
			}
			ended += n
		}
	}
	if !held {
		return ended, authz.Refuse(authz.ReasonNotConfirmed, "%s: done, but fewer than %d replicas hold it so far", what, s.o.ConfirmReplicas)
	}
	return ended, nil
}

// batches makes scripts of the steps: batch follows batch, those of one batch
// go together.
func (s *Store) batches(call string, stages [][]slot) [][]*scriptCall {
	var batches [][]*scriptCall
	if s.single == nil {
		for _, stage := range stages {
			for part := range slices.Chunk(stage, mostSteps) {
				var batch []*scriptCall
				for _, steps := range part {
					batch = append(batch, s.script(call, steps))
				}
				batches = append(batches, batch)
			}
		}
		return batches
	}
	var all []step
	for _, stage := range stages {
		all = append(all, slices.Concat(stage...)...)
	}
	slices.SortStableFunc(all, func(a, b step) int { return rank(a) - rank(b) })
	for part := range slices.Chunk(all, mostSteps) {
		batches = append(batches, []*scriptCall{s.script(call, part)})
	}
	return batches
}

func rank(st step) int {
	if st.isCondition() {
		return 0
	}
	return 1
}

// script makes one script of steps.
func (s *Store) script(call string, steps []step) *scriptCall {
	c := &scriptCall{script: stepsScript}
	c.args = []any{call, (2 * s.o.TTL).Milliseconds(), markLife.Milliseconds()}
	for _, st := range steps {
		c.keys = append(c.keys, st.keys...)
		c.args = append(append(c.args, st.name), st.args...)
	}
	return c
}

// conditionFails is the answer of stepsScript when it changed nothing.
const conditionFails = -1

// stepsScript takes steps, one after the other, and returns how many sessions
// they ended. A condition that does not hold ends it; conditions come first.
// What could fail later for the type of a value doesn't: those that are
// overwritten or removed can have any.
//
// Sent a second time, because the reply to the first one was lost, it returns
// the same: what ended a session is told by the value of the mark.
//
// KEYS and ARGV: those of the steps in their order. ARGV begins with the name
// of the call, the shortest and the longest life of a session's dead mark in
// ms.
var stepsScript = redis.NewScript(`
local call, shortest, longest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local k, a, ended = 0, 3, 0
local function key() k = k + 1; return KEYS[k] end
local function arg() a = a + 1; return ARGV[a] end

local function text(name)
	local value = redis.pcall('GET', name)
	return type(value) == 'string' and value or ''
end

-- Sets a mark for so long at least. The value of one that is there stays.
local function mark(name, value, life)
	local ttl, px = redis.call('PTTL', name), string.format('%d', life)
	if ttl == -2 or ttl ~= -1 and ttl < life and redis.call('PEXPIRE', name, px) == 0 then
		redis.call('SET', name, value, 'PX', px)
	end
end

-- The value of a dead mark, with whose it was.
local function owned(value, user)
	return type(user) == 'string' and user ~= '' and value .. '\n' .. user or value
end

-- The longest cookie.originalMaxAge that a record may have, if it stands where
-- express-session writes it. To read all of a large record, and take it apart,
-- would hold up everybody who waits for the server.
local function maxAge(name)
	local record = redis.pcall('GETRANGE', name, 0, 2047)
	if type(record) ~= 'string' then
		return 0
	end
	local most, name, at = 0, '"originalMaxAge":', 1
	repeat
		local _, ends = string.find(record, name, at, true)
		if ends then
			local number = string.match(record, '^%s*([%d%.%+%-eE]+)', ends + 1)
			if number then
				most = math.max(most, tonumber(number) or math.huge)
			end
			at = ends + 1
		end
	until not ends
	return most
end

local steps = {}

function steps.absent()
	local name = key()
	return redis.call('EXISTS', name) == 0 or text(name) == call
end

function steps.holds()
	return text(key()) == arg()
end

function steps.put()
	redis.call('SET', key(), arg(), 'PX', arg())
end

function steps.write()
	redis.call('SET', key(), arg(), 'KEEPTTL')
end

function steps.fill()
	local name, life, n = key(), arg(), tonumber(arg())
	redis.call('DEL', name)
	for _ = 1, n, 2 do
		redis.call('HSET', name, arg(), arg())
	end
	redis.call('PEXPIRE', name, life)
end

-- The mark outlives whatever a program that still has the record in memory
-- could save: twice the longest life that is known of it, so that the save may
-- come late, too.
function steps.finish()
	local record, dead, lived, age, user = key(), key(), arg() == '1', arg(), arg()
	local ttl = redis.call('PTTL', record)
	local life = math.max(shortest, 2 * ttl)
	if ttl == -1 then
		life = longest
	end
	life = math.max(life, 2 * tonumber(age), 2 * maxAge(record))
	mark(dead, owned(lived and ttl ~= -2 and call or '1', user), math.min(life, longest))
	redis.call('DEL', record)
	if lived and string.sub(text(dead), 1, #call) == call then
		ended = ended + 1
	end
end

function steps.drop()
	local record, dead = key(), key()
	mark(dead, owned('1', redis.pcall('HGET', record, 'user')), tonumber(arg()))
	redis.call('DEL', record)
end

function steps.mark()
	mark(key(), call, tonumber(arg()))
end

function steps.before()
	local name, time, life = key(), arg(), arg()
	local before = tonumber(text(name))
	if before and before > tonumber(time) then
		redis.call('PEXPIRE', name, life)
	else
		redis.call('SET', name, time, 'PX', life)
	end
end

function steps.forget()
	redis.pcall('ZREM', key(), arg())
end

while a < #ARGV do
	if steps[arg()]() == false then
		return -1
	end
end
return ended
`)
