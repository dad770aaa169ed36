package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/internal/proc"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
)

// A Redis that goes and comes back is one line in the log each time, and shows in the
// metrics and in /readyz.
func TestASilentRedisIsToldOnce(t *testing.T) {
	r := proctest.StartRedis(t)
	g := start(t, onePolicy("redis://"+r.Addr))
	conn := g.dial(t)
	metrics := func() string {
		_, body := get(t, "http://"+g.ops+"/metrics")
		return body
	}
	silent := func() int {
		_, body := get(t, "http://"+g.ops+"/readyz")
		var detail readyDetail
		require.NoError(t, json.Unmarshal([]byte(body), &detail))
		return detail.Store.Silent
	}
	asked := 0
	show := func() int {
		asked++
		status, _ := ask(t, conn, cookie(t, fmt.Sprint("nobody-", asked)))
		return status
	}
	until(t, "a session is looked up", func() bool { return show() == 401 })
	require.Contains(t, metrics(), "\ngatehouse_store_servers_silent 0\n")
	for range 2 {
		require.NoError(t, r.Stop())
		until(t, "it is noticed", func() bool { return show() == 503 && silent() == 1 })
		for range 200 {
			require.Equal(t, 503, show())
		}
		require.Contains(t, metrics(), "\ngatehouse_store_servers_silent 1\n")
		again, err := proc.StartRedis(t.Context(), proc.RedisOptions{Dir: t.TempDir(), Port: r.Port})
		require.NoError(t, err)
		defer again.Kill()
		r = again
		until(t, "it is noticed that it is back", func() bool { return show() == 401 })
		require.Zero(t, silent())
	}
	body := metrics()
	require.Contains(t, body, "\ngatehouse_store_servers_silent 0\n")
	require.Contains(t, body, "\ngatehouse_store_silences_total 2\n")
	var refused int
	for line := range strings.Lines(body) {
		_, _ = fmt.Sscanf(line, `gatehouse_store_refused_total{why="silent"} %d`, &refused)
	}
	require.GreaterOrEqual(t, refused, 400)
	require.Equal(t, 2, strings.Count(g.log.String(), "a Redis server doesn't answer"))
	require.Equal(t, 2, strings.Count(g.log.String(), "a Redis server answers again"))
}

// The lines that a flood leaves out are counted to the last, though the server ends
// before the second does.
func TestTheEndTellsWhatTheLogLeftOut(t *testing.T) {
	g := start(t, onePolicy(fmt.Sprintf("redis://127.0.0.1:%d", proctest.FreePorts(t, 1)[0])))
	conn := g.dial(t)
	const many = 30
	for i := range many {
		status, _ := ask(t, conn, cookie(t, fmt.Sprint("nobody-", i)))
		require.Equal(t, 503, status)
	}
	g.signal()
	require.Zero(t, g.wait(t))
	told := 0
	for line := range strings.Lines(g.log.String()) {
		var entry struct {
			Msg, Reason string
			Count       int
		}
		require.NoError(t, json.Unmarshal([]byte(line), &entry))
		switch {
		case entry.Reason != "store_unavailable":
		case entry.Msg == "check":
			told++
		default:
			told += entry.Count
		}
	}
	require.Equal(t, many, told)
}
