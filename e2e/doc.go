// Package e2e holds the tests that look at Gatehouse from outside: the built
// binary, behind a real Envoy with the shipped configuration, with a real
// Redis and a real Express application beside it.
//
// What they expect is written down in the specification's words; they import
// nothing of the decision's own code. Requests are written byte by byte, and
// what a service received is read off the wire, because client and server
// libraries tidy up the very things that an attacker sends.
//
// Envoy, Redis and Node are found as package proc says, the Node modules in
// express/node_modules or where GATEHOUSE_NODE_MODULES points. Tests whose
// programs are missing are skipped, and fail where CI is set.
package e2e
