package limit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"math"
	"net/netip"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// GuessOptions configure [Guesses]. The zero value of a field is its default.
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
// of the store refuses: without counting, guessing would be free.
//
// Keys are rate:gatehouse:guess:account:<hash> and rate:gatehouse:guess:address:<hash>,
// and live until the count is zero again. They hold no account and no address
// in clear.
type Guesses struct {
	rate             *redis_rate.Limiter
	account, address redis_rate.Limit
	timeout          time.Duration
}

// NewGuesses returns the guess limit. It doesn't connect.
func NewGuesses(client redis.UniversalClient, o GuessOptions) *Guesses {
	limit := func(burst int, every time.Duration) redis_rate.Limit {
		return redis_rate.Limit{Rate: 1, Period: every, Burst: burst}
	}
	return &Guesses{
		rate:    redis_rate.NewLimiter(client),
		account: limit(cmp.Or(o.Account, 10), cmp.Or(o.AccountEvery, 30*time.Second)),
		address: limit(cmp.Or(o.Address, 100), cmp.Or(o.AddressEvery, 3*time.Second)),
		timeout: cmp.Or(o.Timeout, defaultTimeout),
	}
}

// Attempt counts one try for an account, in whatever spelling the caller
// compares accounts by, and from an address, "" for unknown.
// [authz.ReasonRateLimited], with how many seconds to wait, when there were too
// many: then neither of the two was counted. [authz.ReasonStoreUnavailable]
// when it can't be known. Two round trips, three for a refusal.
func (g *Guesses) Attempt(ctx context.Context, account, address string) (retryAfter int, err error) {
	wait, err := g.take(ctx, addressKey(address), g.address, 1)
	if err != nil || wait > 0 {
		return refusal("address", wait, err)
	}
	wait, err = g.take(ctx, accountKey(account), g.account, 1)
	if err == nil && wait > 0 {
		_, err = g.take(ctx, addressKey(address), g.address, -1)
	}
	if err != nil || wait > 0 {
		return refusal("account", wait, err)
	}
	return 0, nil
}

// Succeeded takes a try back that was no guess, and with it the earlier ones
// for the account: who knows the password may have mistyped it.
func (g *Guesses) Succeeded(ctx context.Context, account, address string) error {
	if _, err := g.take(ctx, addressKey(address), g.address, -1); err != nil {
		return unavailable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	if err := g.rate.Reset(ctx, accountKey(account)); err != nil {
		return unavailable(err)
	}
	return nil
}

// take takes n tries, or gives them back where n is negative, down to none.
// wait is how long to wait when there are not so many left.
func (g *Guesses) take(ctx context.Context, key string, limit redis_rate.Limit, n int) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	result, err := g.rate.AllowN(ctx, key, limit, n)
	if err != nil {
		return 0, err
	}
	return max(result.RetryAfter, 0), nil // -1 for none
}

func refusal(what string, wait time.Duration, err error) (retryAfter int, _ error) {
	if err != nil {
		return 0, unavailable(err)
	}
	return max(1, int(math.Ceil(wait.Seconds()))), authz.Refuse(authz.ReasonRateLimited, "too many tries at a password, by %s", what)
}

func unavailable(err error) error {
	return authz.Refuse(authz.ReasonStoreUnavailable, "count tries at a password: %w", err)
}

func accountKey(account string) string { return guessKey("account", account) }

// addressKey counts a network of IPv6 as one: each of its customers has 2^64
// addresses.
func addressKey(address string) string {
	if a, err := netip.ParseAddr(address); err == nil {
		a = a.Unmap()
		address = a.WithZone("").String()
		if a.Is6() {
			network, err := a.WithZone("").Prefix(64)
			if err == nil { // it has 128 bits
				address = network.String()
			}
		}
	}
	return guessKey("address", address)
}

func guessKey(kind, value string) string {
	sum := sha256.Sum256([]byte(value))
	return "gatehouse:guess:" + kind + ":" + base64.RawURLEncoding.EncodeToString(sum[:16])
}
