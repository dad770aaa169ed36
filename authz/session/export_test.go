package session

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// WordBound is how long a word of the Sentinels counts.
const WordBound = wordBound

// ClientOf returns the client of a store.
func ClientOf(s *Store) redis.UniversalClient { return s.client }

// CachedUser returns what the cache holds of a user right now.
func CachedUser(s *Store, userID string) (st authz.Standing, ok bool) {
	epoch, live := s.cache.tracker.Live()
	var user standing
	ok = live && s.cache.user(userID, epoch, s.o.Now().UnixMilli(), &user, &authz.Memory{})
	return user.Standing, ok
}

// BehindSentinel returns how a client finds the master: its name, and the addresses of
// the Sentinels; and how it connects.
func BehindSentinel(client redis.UniversalClient) (name string, sentinels []string, o *redis.Options, tls bool) {
	c := client.(*sentinelClient)
	for _, s := range c.masters.sentinels {
		tls = s.Options().TLSConfig != nil
	}
	return c.masters.name, c.masters.named, c.Options(), tls
}

// ShareInterest has a replica say, or learn, that somebody follows the feed.
func ShareInterest(ctx context.Context, s *Store) { s.feed.shareInterest(ctx) }

// MostFeedEvents is how far a follower may be behind.
const MostFeedEvents = mostFeedEvents
