// Package authztest is what the tests of package authz and of its adapters
// share: a [Clock] that stands still, a [Memory] that is a store of sessions
// and marks, and [StoreSuite], the rules that every store must keep.
//
//	clock := authztest.NewClock()
//	memory := authztest.NewMemory(clock)
//	memory.Put("id", authz.Session{Identity: authz.Identity{ID: "u1"}}, time.Hour)
//	sessions := authz.NewSessions("sessionId", authztest.Unsigned{}, memory)
//
// It imports the core, so only external tests (package authz_test) of the core
// can import it.
package authztest
