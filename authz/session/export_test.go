package session

import "github.com/redis/go-redis/v9"

// ClientOf returns the client of a store.
func ClientOf(s *Store) redis.UniversalClient { return s.client }
