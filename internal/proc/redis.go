package proc

import (
	"context"
	"io"
	"strconv"
	"time"
)

// startTimeout bounds how long Envoy or Redis may take until it answers. On an
// idle machine both take less than a second.
const startTimeout = 30 * time.Second

// Redis is a running redis-server.
type Redis struct {
	*Process
	Port int
	Addr string // host:port
}

// RedisOptions configure [StartRedis].
type RedisOptions struct {
	Dir    string   // working directory of the server; required, it writes its dumps there
	Port   int      // 0 for a free one
	Args   []string // added at the end, so they win: "--requirepass", "secret"
	Output io.Writer
}

// StartRedis runs a redis-server on 127.0.0.1 that keeps nothing on disk, and
// returns when it answers. The error is a *[NotFoundError] when none is
// installed.
func StartRedis(ctx context.Context, o RedisOptions) (*Redis, error) {
	path, err := Find("redis-server")
	if err != nil {
		return nil, err
	}
	port := o.Port
	if port == 0 {
		if port, err = FreePort(); err != nil {
			return nil, err
		}
	}
	args := append([]string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", o.Dir,
		"--save", "", "--appendonly", "no",
	}, o.Args...)
	p, err := Start(ctx, path, args, Options{Dir: o.Dir, Output: o.Output})
	if err != nil {
		return nil, err
	}
	r := &Redis{Process: p, Port: port, Addr: Local(port)}
	ready, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := p.Ready(ready, RedisPing(r.Addr)); err != nil {
		_ = p.Stop()
		return nil, err
	}
	return r, nil
}
