// Package proc runs the other programs that Gatehouse works with (Envoy,
// Redis, Node) for the demo command, the benchmarks and the tests.
//
//	path, err := proc.Find("redis-server")
//	p, err := proc.Start(ctx, path, []string{"--port", "7000"}, proc.Options{})
//	err = p.Ready(ctx, proc.RedisPing("127.0.0.1:7000"))
//	defer p.Stop()
//
// Three promises make it fit for tests: nobody sleeps for a guessed time (a
// process is ready when it answers, or has failed when it ended or the context
// did); what a process printed is there to be read when something goes wrong;
// and no process outlives its parent, not even one that was killed (on Linux).
//
// Package proctest wraps it for tests: missing programs skip, processes end
// with the test. This package does not import testing.
//
// It leaves out what only production needs: restarting, log rotation, users.
package proc
