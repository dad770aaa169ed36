// Package chaos breaks what Gatehouse stands on, under load, and judges every
// answer that it gives meanwhile.
//
// A test starts real parts (Redis in its forms, the built gatehouse, Envoy where
// it matters), lets a steady load of checks run, breaks something, mends it or
// not, and then demands three things of each of the answers:
//
//   - nobody is let in as somebody else, or after the acknowledged end of the
//     credential and the documented bound of staleness;
//   - nobody who holds a good credential is told that it is bad;
//   - every check is answered. What can't be known is 503.
//
// And it demands that the fault was felt, where it must be, and that all is well
// at the end without a restart. How long a fault was felt is reported, not asserted.
//
// There is a short form of each fault, which is part of 'make test', and a long
// one:
//
//	make chaos                                   all of them, long; writes dist/chaos.md
//	go test ./chaos -v -count=1 -run Failover    one of them, short
//	go test ./chaos -v -count=1 -args -full      all of them, long
//
// All of it is on loopback, is bounded, and ends the processes that it started.
package chaos
