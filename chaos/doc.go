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
// at the end without a restart. How long anything took is reported: no test fails
// because this machine was slow, as long as what must come comes at all, and the
// order is right.
//
// There is a short form of most faults, which is part of 'make test', and a long
// one:
//
//	make chaos                                   all of them, long; writes dist/chaos.md
//	make chaos CHAOS_FLAGS='-run Failover'       some of them, long
//	go test ./chaos -v -count=1 -run Failover    some of them, short
//
// 'make chaos' runs the tests of other packages that docs/reliability.md names, too,
// and has their rows in the same table: every kind of store, hostile input, the attack
// kit. Not in it are 'make fuzz', 'make test-envoys' and 'make release-check', each of
// which takes its own time.
//
// A test begins with begin, which gives it a row in the table whatever comes of it,
// and tells what it found by results.add.
//
// All of it is on loopback, is bounded, and ends the processes that it started.
package chaos
