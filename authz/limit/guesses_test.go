package limit_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/limit"
)

// slow brings no try back during a test.
func slow(account, address int) limit.GuessOptions {
	return limit.GuessOptions{Account: account, AccountEvery: time.Hour, Address: address, AddressEvery: time.Hour, Timeout: patient}
}

// tries counts how many of n tries are let through.
func tries(t *testing.T, g *limit.Guesses, n int, account, address string) (passed, retryAfter int) {
	t.Helper()
	for range n {
		after, err := g.Attempt(t.Context(), account, address)
		if err == nil {
			require.Zero(t, after)
			passed++
			continue
		}
		require.Equal(t, authz.ReasonRateLimited, authz.ReasonOf(err), err)
		require.Positive(t, after)
		retryAfter = after
	}
	return passed, retryAfter
}

func TestGuessesAtOneAccountAreSlowedDownFromWhereverTheyCome(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		g := limit.NewGuesses(client, slow(3, 100))
		replica := limit.NewGuesses(client, slow(3, 100))
		passed, _ := tries(t, g, 2, "bob@example.com", "192.0.2.1")
		require.Equal(t, 2, passed)
		passed, retryAfter := tries(t, replica, 4, "bob@example.com", "192.0.2.2")
		require.Equal(t, 1, passed)
		require.InDelta(t, 3600, retryAfter, 10)
		passed, _ = tries(t, g, 3, "alice@example.com", "192.0.2.1")
		require.Equal(t, 3, passed, "another account")
	})
}

func TestGuessesFromOneAddressAreSlowedDownWhateverTheAccount(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		g := limit.NewGuesses(client, slow(100, 3))
		for i, account := range []string{"a", "b", "c", "d"} {
			passed, _ := tries(t, g, 1, account, "192.0.2.1")
			require.Equal(t, i < 3, passed == 1, account)
		}
		passed, _ := tries(t, g, 1, "d", "192.0.2.2")
		require.Equal(t, 1, passed)
		// Of IPv6 it is the network; and an address is one in either form.
		passed, _ = tries(t, g, 2, "e", "2001:db8::1")
		require.Equal(t, 2, passed)
		passed, _ = tries(t, g, 2, "f", "2001:db8::ffff:1")
		require.Equal(t, 1, passed)
		passed, _ = tries(t, g, 1, "f", "2001:db8:0:1::1")
		require.Equal(t, 1, passed)
		passed, _ = tries(t, g, 1, "f", "::ffff:192.0.2.1")
		require.Zero(t, passed)
	})
}

func TestATryThatIsRefusedCountsNowhere(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		g := limit.NewGuesses(client, slow(2, 5))
		passed, _ := tries(t, g, 20, "bob", "192.0.2.1")
		require.Equal(t, 2, passed)
		passed, _ = tries(t, g, 20, "alice", "192.0.2.1")
		require.Equal(t, 2, passed, "18 refused tries have used up the address")
		passed, _ = tries(t, g, 20, "carol", "192.0.2.1")
		require.Equal(t, 1, passed)
		passed, _ = tries(t, g, 20, "carol", "192.0.2.2")
		require.Equal(t, 1, passed, "19 tries that the address was refused have used up the account")
	})
}

func TestWhoKnowsThePasswordIsNotSlowedDown(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		g := limit.NewGuesses(client, slow(3, 4))
		for range 20 {
			passed, _ := tries(t, g, 1, "bob", "192.0.2.1")
			require.Equal(t, 1, passed)
			require.NoError(t, g.Succeeded(t.Context(), "bob", "192.0.2.1"))
		}
		// Mistyped, then right: the account starts anew.
		for range 3 {
			passed, _ := tries(t, g, 2, "bob", "192.0.2.9")
			require.Equal(t, 2, passed)
			require.NoError(t, g.Succeeded(t.Context(), "bob", "192.0.2.9"))
		}
		// Nothing is given back that was not taken.
		fresh := limit.NewGuesses(client, slow(3, 4))
		for range 10 {
			require.NoError(t, fresh.Succeeded(t.Context(), "eve", "192.0.2.3"))
		}
		passed, _ := tries(t, fresh, 20, "eve", "192.0.2.3")
		require.Equal(t, 3, passed)
	})
}

func TestAnUndecidedTryIsGivenBackAlone(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		g := limit.NewGuesses(client, slow(3, 3))
		passed, _ := tries(t, g, 5, "bob", "192.0.2.1")
		require.Equal(t, 3, passed)
		require.NoError(t, g.Undecided(t.Context(), "bob", "192.0.2.1"))
		passed, _ = tries(t, g, 5, "bob", "192.0.2.1")
		require.Equal(t, 1, passed)
		require.NoError(t, g.Undecided(t.Context(), "bob", "192.0.2.1"))
		passed, _ = tries(t, g, 5, "bob", "192.0.2.2")
		require.Equal(t, 1, passed, "the account's")
		passed, _ = tries(t, g, 5, "eve", "192.0.2.1")
		require.Equal(t, 1, passed, "the address's")
	})
}

// The last try that was taken comes back, too: an empty count is a count.
func TestASuccessLeavesNothingBehind(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		g := limit.NewGuesses(client, slow(1, 1))
		for _, account := range []string{"a", "b", "c"} {
			passed, _ := tries(t, g, 1, account, "192.0.2.1")
			require.Equal(t, 1, passed, account)
			require.NoError(t, g.Succeeded(t.Context(), account, "192.0.2.1"))
			keys, err := client.Keys(t.Context(), "*").Result()
			require.NoError(t, err)
			require.Empty(t, keys)
		}
		// What others have guessed from there stays counted.
		g = limit.NewGuesses(client, slow(1, 3))
		passed, _ := tries(t, g, 1, "victim", "192.0.2.1")
		require.Equal(t, 1, passed)
		for range 5 {
			passed, _ = tries(t, g, 1, "own", "192.0.2.1")
			require.Equal(t, 1, passed)
			require.NoError(t, g.Succeeded(t.Context(), "own", "192.0.2.1"))
		}
		passed, _ = tries(t, g, 1, "second", "192.0.2.1")
		require.Equal(t, 1, passed)
		passed, _ = tries(t, g, 1, "third", "192.0.2.1")
		require.Equal(t, 1, passed)
		passed, _ = tries(t, g, 1, "fourth", "192.0.2.1")
		require.Zero(t, passed)
	})
}

// A server whose clock is behind takes over: nobody waits longer than a count
// that is used up makes them.
func TestACountFromTheFutureIsUsedUpAndNoMore(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		g := limit.NewGuesses(client, slow(2, 100))
		passed, _ := tries(t, g, 1, "bob", "192.0.2.1")
		require.Equal(t, 1, passed)
		keys, err := client.Keys(t.Context(), "*:account:*").Result()
		require.NoError(t, err)
		require.Len(t, keys, 1)
		future := time.Now().Add(1000 * time.Hour).UnixMilli()
		require.NoError(t, client.Set(t.Context(), keys[0], future, time.Hour).Err())
		passed, retryAfter := tries(t, g, 1, "bob", "192.0.2.1")
		require.Zero(t, passed)
		require.Equal(t, 3600, retryAfter)

		require.NoError(t, client.Set(t.Context(), keys[0], "no number", time.Hour).Err())
		passed, _ = tries(t, g, 1, "bob", "192.0.2.1")
		require.Equal(t, 1, passed, "not ours, so it counts nothing")
		require.NoError(t, g.Succeeded(t.Context(), "bob", "192.0.2.1"))

		require.NoError(t, client.LPush(t.Context(), keys[0], "no string").Err())
		_, err = g.Attempt(t.Context(), "bob", "192.0.2.1")
		require.Equal(t, authz.ReasonStoreUnavailable, authz.ReasonOf(err))
	})
}

func TestGuessOptionsThatMakeNoSenseAreTheDefaults(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		g := limit.NewGuesses(client, limit.GuessOptions{Account: -1, AccountEvery: -time.Hour, Address: -1, AddressEvery: -1, Timeout: patient})
		passed, retryAfter := tries(t, g, 11, "bob", "192.0.2.1")
		require.Equal(t, 10, passed)
		require.InDelta(t, 30, retryAfter, 5)
		g = limit.NewGuesses(client, limit.GuessOptions{AccountEvery: time.Nanosecond, AddressEvery: time.Nanosecond, Timeout: patient})
		passed, _ = tries(t, g, 1, "alice", "192.0.2.2")
		require.Equal(t, 1, passed)
	})
}

func TestGuessesAtTheSameMomentDoNotPassTogether(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		g := limit.NewGuesses(client, slow(10, 1000))
		var passed atomic.Int64
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if _, err := g.Attempt(t.Context(), "bob", "192.0.2.1"); err == nil {
					passed.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 10, passed.Load())
	})
}

func TestATryComesBackWithTime(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		g := limit.NewGuesses(client, limit.GuessOptions{Account: 1, AccountEvery: 50 * time.Millisecond, Timeout: patient})
		passed, _ := tries(t, g, 1, "bob", "192.0.2.1")
		require.Equal(t, 1, passed)
		require.Eventually(t, func() bool {
			_, err := g.Attempt(t.Context(), "bob", "192.0.2.1")
			return err == nil
		}, patient, 5*time.Millisecond)
	})
}

func TestGuessesWithoutTheStoreAreRefused(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	defer func() { _ = client.Close() }()
	g := limit.NewGuesses(client, limit.GuessOptions{Timeout: patient})
	_, err := g.Attempt(t.Context(), "bob", "192.0.2.1")
	require.Equal(t, authz.ReasonStoreUnavailable, authz.ReasonOf(err), "%v", err)
	require.Equal(t, authz.ReasonStoreUnavailable, authz.ReasonOf(g.Succeeded(t.Context(), "bob", "192.0.2.1")))
	require.NotContains(t, err.Error(), "bob")
}

func TestKeysOfGuessesTellNothing(t *testing.T) {
	stores(t, func(t *testing.T, client redis.UniversalClient) {
		g := limit.NewGuesses(client, slow(3, 4))
		tries(t, g, 1, "bob@example.com", "192.0.2.1")
		keys, err := client.Keys(t.Context(), "*").Result()
		require.NoError(t, err)
		require.Len(t, keys, 2)
		for _, key := range keys {
			require.True(t, strings.HasPrefix(key, "rate:gatehouse:{guess}:"), key)
			require.NotContains(t, key, "bob")
			require.NotContains(t, key, "192.0.2.1")
			ttl, err := client.TTL(t.Context(), key).Result()
			require.NoError(t, err)
			require.Positive(t, ttl)
		}
	})
}
