// Command bench compares what a request costs: through a real Envoy with no
// filter, with a no-op ext_authz server, with the server that people usually
// write (one GET per request), with Envoy's own jwt_authn filter, and with
// Gatehouse, side by side in one run on one machine.
//
//	make bench                                  # about six minutes
//	make bench BENCH_FLAGS=-quick               # under one
//	go run ./bench -rate 0,1000 -json out.json  # saturated, and at a rate; needs make build
//	go run ./bench -sweep                       # 1 to 256 connections
//	go run ./bench -scenarios none,noop,session -users 1000,200000,1000000
//	go run ./bench -freshness                   # how soon writes by others count
//	go run ./bench -scale                       # what grows with replicas, writes and sessions
//	go run ./bench -all -svg chart.svg          # all but -scale
//
// It is a table of scenarios (scenario.go) times one shape of load (load.go).
// docs/performance.md explains the method and has results. -scale (scale.go)
// needs no Envoy: docs/scaling.md has its results.
//
// What makes the comparison fair:
//   - One Envoy with one worker has a listener per scenario, which differ in one
//     filter only. Its answer is a direct response: no upstream adds noise, and
//     the response comes from the router, behind the filter that is measured.
//   - Gatehouse is asked by the ext_authz filter of envoy/envoy.yaml, of which
//     only the cluster and the timeouts are changed. They are longer (all tries
//     and one try), so that a slow moment of the machine shows as latency and
//     not as a refusal or a second check. Around it, Envoy has none of the
//     shipped file's hardening and no access log: these cost every scenario the
//     same, and would only make the ratios smaller.
//   - The no-op server and the usual one are asked as people configure it: by a
//     cluster and a timeout, which sends all headers. The no-op server is also
//     measured behind the shipped filter, with an empty reply and with one as
//     Gatehouse gives it, so that nobody need guess what of the difference comes
//     from where.
//   - Gatehouse is the built binary with its defaults, Redis a real one on
//     loopback. 1,000 sessions, or tokens, are used in turn, each of them once
//     before the first round. Where further numbers of sessions are asked for,
//     each has a Gatehouse of its own in the same run, whose cache may keep
//     them all, and which renews each once an hour, not once a minute.
//   - In each round every scenario runs once, in random order, so that a
//     machine that gets slower with time treats all alike. Ratios are taken
//     within a round; the median over the rounds is reported.
//   - Before each window is a warm-up without pauses. The renewals of sessions,
//     one a minute for each, fall into it: with 1,000 sessions they would be 17
//     a second at any rate, not more.
//   - CPU is that of Envoy, of the check server of the scenario and of Redis;
//     Redis's commands are those of the scenario, without the heartbeats of
//     Gatehouses that wait for their turn.
//   - Every answer must have the expected status, and Envoy's own counters must
//     say that the filter decided each request, with one check each; otherwise
//     the run fails.
//
// What it does not show: networks (all is loopback), TLS, more than one Envoy
// worker, and machines with cores to spare, where the parts don't compete. The
// load generator runs on the same cores; what it uses is reported too.
//
// "bench noop", "bench reply" and "bench usual" are the servers to compare with,
// "bench replica" is a replica of -scale: bench starts them itself.
package main
