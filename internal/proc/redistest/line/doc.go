// Package line is a stretch of network between clients and a Redis, for tests: it can be
// cut at a certain command, hold what is sent, and be slow.
//
//	l := line.New(t, server.Addr)
//	client := redis.NewClient(&redis.Options{Addr: l.Addr, Protocol: 2})
//	l.Arm(line.Cut{At: 3, Taken: true}) // Redis gets the third command, nobody its reply
//
// It reads the protocol, RESP 2, and knows one command from the next. It isn't for TLS.
package line
