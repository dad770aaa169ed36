package session

import "github.com/redis/go-redis/v9"

// Each script touches keys of one cluster slot only, and can be repeated: a
// client that got no reply may send it again. Times come in as arguments, so
// that they are this process's clock and never the server's.

// reviveScript is what a gated request leaves behind, all of it conditional:
// many replicas that see at the same moment that something is due write it
// once. It revives nothing: a record that is gone or marked dead in the
// meantime stays so, and a life is never made shorter.
//
// KEYS: record, dead mark, seen mark.
// ARGV: life in ms, how much of it must be gone in ms (life 0: don't renew);
// now in Unix ms, precision in ms (0: don't keep the time), life of the seen
// mark in ms.
var reviveScript = redis.NewScript(`
local ttl = redis.call('PTTL', KEYS[1])
if ttl == -2 or redis.call('EXISTS', KEYS[2]) == 1 then
	return 0
end
local precision = tonumber(ARGV[4])
if precision > 0 then
	local seen = tonumber(redis.call('GET', KEYS[3]) or '')
	if not seen or tonumber(ARGV[3]) - seen >= precision then
		redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[5])
	end
end
local life = tonumber(ARGV[1])
if life > 0 and ttl >= 0 and life - ttl >= tonumber(ARGV[2]) then
	redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 1
`)

// endScript ends a session: the mark first, then the record. The mark outlives
// whatever a program that still has the record in memory could save: twice the
// longest life that is known of it, so that the save may come late, too.
//
// KEYS: record, dead mark.
// ARGV: shortest life of the mark in ms, longest life of the mark in ms.
var endScript = redis.NewScript(`
local life, longest = tonumber(ARGV[1]), tonumber(ARGV[2])
local ttl = redis.call('PTTL', KEYS[1])
if ttl == -1 then
	life = longest
end
life = math.max(life, 2 * ttl)
local text = redis.pcall('GET', KEYS[1])
if type(text) == 'string' then
	local ok, record = pcall(cjson.decode, text)
	if ok and type(record) == 'table' and type(record.cookie) == 'table' and type(record.cookie.originalMaxAge) == 'number' then
		life = math.max(life, 2 * record.cookie.originalMaxAge)
	end
end
life = math.min(life, longest)
local marked = redis.call('PTTL', KEYS[2])
if marked ~= -1 and marked < life then
	redis.call('SET', KEYS[2], '1', 'PX', string.format('%d', life))
end
return redis.call('DEL', KEYS[1])
`)

// markScript sets a mark that has no value of its own. It shortens the life of
// none that is there, by whomever.
//
// KEYS: mark. ARGV: life in ms.
var markScript = redis.NewScript(`
local ttl = redis.call('PTTL', KEYS[1])
if ttl ~= -1 and ttl < tonumber(ARGV[1]) then
	redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
end
return 1
`)

// beforeScript moves a user's mark forward, never back.
//
// KEYS: mark. ARGV: Unix ms, life in ms.
var beforeScript = redis.NewScript(`
local before = tonumber(redis.call('GET', KEYS[1]) or '')
if before and before > tonumber(ARGV[1]) then
	redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
	redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
`)

// The answers of replaceScript.
const (
	replaced int64 = iota
	replaceChanged
	replaceDead
)

// replaceScript writes a new text where the old one still stands, and leaves
// the time to live alone. No text and an empty one are the same.
//
// KEYS: what to replace, and its dead mark where it can have one.
// ARGV: old text, new text.
var replaceScript = redis.NewScript(`
if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1 then
	return 2
end
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
	return 1
end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 0
`)
