package session

import "github.com/redis/go-redis/v9"

// Each script touches keys of one cluster slot only, and can be repeated: a
// client that got no reply may send it again. Times come in as arguments, so
// that they are this process's clock and never the server's.

// reviveScript is what a request leaves behind, all of it conditional:
// many replicas that see at the same moment that something is due write it
// once. It revives nothing: a record that is gone or marked dead in the
// meantime stays so, and a life is never made shorter.
//
// KEYS: record, dead mark, seen mark.
// ARGV: life in ms, how much of it must be gone in ms (life 0: don't renew);
// now in Unix ms, precision in ms, life of the seen mark in ms; 1 for a use that
// doesn't count, which keeps the mark as it is, and as long.
var reviveScript = redis.NewScript(`
local ttl = redis.call('PTTL', KEYS[1])
if ttl == -2 or redis.call('EXISTS', KEYS[2]) == 1 then
	return 0
end
local seen = tonumber(redis.call('GET', KEYS[3]) or '')
if ARGV[6] == '1' then
	redis.call('PEXPIRE', KEYS[3], ARGV[5])
elseif not seen or tonumber(ARGV[3]) - seen >= tonumber(ARGV[4]) then
	redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[5])
end
local life = tonumber(ARGV[1])
if life > 0 and ttl >= 0 and life - ttl >= tonumber(ARGV[2]) then
	redis.call('PEXPIRE', KEYS[1], ARGV[1])
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
