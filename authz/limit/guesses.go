package limit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"math"
	"net/netip"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// GuessOptions configure [Guesses]. What is not positive is the default; times
// count in milliseconds, and are one at least.
type GuessOptions struct {
	// Account is how many wrong tries an account may have at once; one more
	// comes back every AccountEvery. Default 10, and 30 seconds.
	Account      int
	AccountEvery time.Duration
	// Address is the same for a client's address. Default 100, and 3 seconds:
	// many people may share one.
	Address      int
	AddressEvery time.Duration
	Timeout      time.Duration // of each round trip; default 100ms
}

// Guesses slows down who guesses passwords: for one account, wherever the
// guesses come from, and from one address, at whatever accounts. The counts are
// in Redis, so all replicas share them. Nobody is ever locked out for good: a
// further try is allowed as time passes. Safe for concurrent use.
//
// A try is counted before the password is looked at, so tries at the same
// moment can't pass the limit together; who was right gets it back. An outage
// of the store refuses: without counting, guessing would be free. Who guesses
// at an account all the time makes its owner wait, too: that is the price.
//
// The algorithm is that of [Limiter], in scripts of our own: redis_rate asks
// for one key at a time, and what it gives back can get lost (a count that falls
// to nothing is not written). Keys are rate:gatehouse:{guess}:account:<hash> and
// rate:gatehouse:{guess}:address:<hash>, in one cluster slot, so that one script
// asks both. They live until the count is zero again, and hold no account and no
// address in clear. Time is the Redis server's.
type Guesses struct {
	client           redis.UniversalClient
	account, address bucket
	timeout          time.Duration
}

// bucket holds so many tries, and gets one back every interval.
type bucket struct {
	tries    int
	interval time.Duration
}

// Both scripts keep the moment, in Unix milliseconds, at which a bucket is whole
// again. A value that is further ahead than an empty bucket needs, as after a
// failover to a server whose clock is behind, counts as an empty one.
//
// KEYS: account, address.
// ARGV: interval in ms and tries of the account, the same of the address.
var (
	// attemptScript takes a try from both, or none where one is empty. It
	// returns how many ms to wait, 0 for none, and which of the two says so.
	attemptScript = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local whole, wait, which = {}, 0, 0
for i = 1, 2 do
	local interval, tries = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
	local kept = tonumber(redis.call('GET', KEYS[i]) or '') or 0
	whole[i] = math.max(now, math.min(kept, now + interval * tries)) + interval
	local rest = whole[i] - interval * tries - now
	if rest > wait then
		wait, which = rest, i
	end
end
if wait == 0 then
	for i = 1, 2 do
		redis.call('SET', KEYS[i], string.format('%.0f', whole[i]), 'PX', string.format('%.0f', whole[i] - now))
	end
end
return {wait, which}
`)

	// giveBackScript gives each of them one try back, or makes the account's
	// bucket whole where ARGV[5] is 1.
	giveBackScript = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 1, 2 do
	local interval, tries = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
	local kept = tonumber(redis.call('GET', KEYS[i]) or '') or 0
	local whole = math.min(kept, now + interval * tries) - interval
	if whole > now and not (i == 1 and ARGV[5] == '1') then
		redis.call('SET', KEYS[i], string.format('%.0f', whole), 'PX', string.format('%.0f', whole - now))
	else
		redis.call('DEL', KEYS[i])
	end
end
return 1
`)
)

// NewGuesses returns the guess limit. It doesn't connect.
func NewGuesses(client redis.UniversalClient, o GuessOptions) *Guesses {
	every := func(wanted, fallback time.Duration) time.Duration {
		if wanted <= 0 {
			return fallback
		}
		return max(wanted, time.Millisecond)
	}
	redisguard.Of(client) // watches it
	return &Guesses{
		client:  client,
		account: bucket{cmp.Or(max(o.Account, 0), 10), every(o.AccountEvery, 30*time.Second)},
		address: bucket{cmp.Or(max(o.Address, 0), 100), every(o.AddressEvery, 3*time.Second)},
		timeout: cmp.Or(o.Timeout, defaultTimeout),
	}
}

// Attempt counts one try for an account, in whatever spelling the caller
// compares accounts by, and from an address, "" for unknown.
// [authz.ReasonRateLimited], with how many seconds to wait, when there were too
// many: then neither of the two was counted. [authz.ReasonStoreUnavailable]
// when it can't be known, and [authz.ReasonOverloaded] when too many tries come for the
// store. One round trip.
func (g *Guesses) Attempt(ctx context.Context, account, address string) (retryAfter int, err error) {
	answer, err := g.try(ctx, attemptScript, account, address).Int64Slice()
	switch {
	case err != nil:
		return 0, unavailable(err)
	case len(answer) != 2:
		return 0, authz.Refuse(authz.ReasonInternal, "count tries at a password: an answer of %d numbers", len(answer))
	case answer[0] == 0:
		return 0, nil
	}
	what := "for the account"
	if answer[1] == 2 {
		what = "from the address"
	}
	wait := time.Duration(answer[0]) * time.Millisecond
	return int(math.Ceil(wait.Seconds())), authz.Refuse(authz.ReasonRateLimited, "too many tries at a password %s", what)
}

// Succeeded takes a try back that was no guess, and with it the earlier ones
// for the account: who knows the password may have mistyped it. To the address
// no more than this one is given back: who guesses from there at others' accounts
// may well know the password of one.
func (g *Guesses) Succeeded(ctx context.Context, account, address string) error {
	return g.giveBack(ctx, account, address, 1)
}

// Undecided takes a try back of which it was never known whether the password
// is right.
func (g *Guesses) Undecided(ctx context.Context, account, address string) error {
	return g.giveBack(ctx, account, address, 0)
}

// giveBack takes tries back: nobody gets here but by a try that was counted.
func (g *Guesses) giveBack(ctx context.Context, account, address string, right int) error {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	if err := g.run(ctx, giveBackScript, account, address, right).Err(); err != nil {
		return unavailable(err)
	}
	return nil
}

// try runs a script for who has shown nothing yet. Nobody else waits behind it at the
// store.
func (g *Guesses) try(ctx context.Context, script *redis.Script, account, address string, more ...any) *redis.Cmd {
	ctx, cancel := redisguard.Guess(ctx, g.timeout)
	defer cancel()
	return g.run(ctx, script, account, address, more...)
}

func (g *Guesses) run(ctx context.Context, script *redis.Script, account, address string, more ...any) *redis.Cmd {
	buckets := []any{g.account.interval.Milliseconds(), g.account.tries, g.address.interval.Milliseconds(), g.address.tries}
	return script.Run(ctx, g.client, []string{accountKey(account), addressKey(address)}, append(buckets, more...)...)
}

func unavailable(err error) error {
	if errors.Is(err, redisguard.ErrOverloaded) {
		return authz.Refuse(authz.ReasonOverloaded, "count tries at a password: %w", err)
	}
	return authz.Refuse(authz.ReasonStoreUnavailable, "count tries at a password: %w", err)
}

func accountKey(account string) string { return guessKey("account", account) }

// addressKey counts a network of IPv6 as one.
func addressKey(address string) string {
	if a, err := netip.ParseAddr(address); err == nil {
		address = networkOf(a)
	}
	return guessKey("address", address)
}

func guessKey(kind, value string) string {
	sum := sha256.Sum256([]byte(value))
	return "rate:gatehouse:{guess}:" + kind + ":" + base64.RawURLEncoding.EncodeToString(sum[:16])
}
