package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session"
	"github.com/gatehouse-auth/gatehouse/internal/proc"
)

// redisMemory is what Redis takes for sessions, in bytes. All but Text and Usage
// are differences of used_memory, divided by the number of sessions: what the
// hash tables of the keyspace take is in them.
type redisMemory struct {
	Sessions int `json:"sessions"` // each of a user of its own
	// Record is the session's record as Gatehouse writes it and its entry in
	// the user's index, Profile the user's profile, Seen the time of use.
	Record  float64 `json:"record_and_index"`
	Profile float64 `json:"profile"`
	Seen    float64 `json:"seen"`
	// Text is the length of a record, Usage what MEMORY USAGE says of the keys
	// of one session.
	Text  int64            `json:"record_length"`
	Usage map[string]int64 `json:"memory_usage"`
	// Remembered is what a server takes per key that a client of default-mode
	// tracking has read, Further what it takes for a second one that has read
	// the same, Keys and Items how much it said to remember then.
	Remembered float64 `json:"default_mode_per_key"`
	Further    float64 `json:"default_mode_per_key_and_further_client"`
	Keys       int64   `json:"tracking_total_keys"`
	Items      int64   `json:"tracking_total_items"`
	// Broadcast is the same for a client in broadcast mode, Replica what a
	// replica takes that listens, in all.
	Broadcast float64 `json:"broadcast_mode_per_key"`
	Replica   float64 `json:"listening_replica"`
	// Freed is what a logout gives back: marks and the time of use stay for a
	// while.
	Freed float64 `json:"freed_by_logout"`
	// Calls are what calls of Gatehouse cost while nobody else listens.
	Calls []callCost `json:"calls"`
}

// callCost is what Redis does for a call.
type callCost struct {
	Call     string  `json:"call"`
	Redis    float64 `json:"redis_us"` // processor time
	Commands float64 `json:"commands"` // those within scripts included
}

// session is what one takes with all that belongs to it.
func (m redisMemory) session() float64 { return m.Record + m.Profile + m.Seen }

// Parts of what a session has, by the beginning of their keys.
const (
	partRecord = "record"
	partIndex  = "index"
	partUser   = "profile"
	partSeen   = "seen"
)

// memoryBench is a Redis of its own, in which nothing else is.
type memoryBench struct {
	rdb   *redis.Client
	store *session.Store
	users []authz.User
	ids   []string
}

// measureRedisMemory fills a Redis with sessions and looks at what it takes.
func measureRedisMemory(ctx context.Context, n int, dir string) (m redisMemory, err error) {
	dir = filepath.Join(dir, "memory")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return m, err
	}
	server, err := proc.StartRedis(ctx, proc.RedisOptions{Dir: dir})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr, Protocol: 2})
	defer func() { _ = rdb.Close() }()
	b := &memoryBench{
		rdb: rdb, ids: make([]string, n),
		store: session.New(rdb, session.Options{Profiles: true, Timeout: replicaPatience}),
	}
	for i := range n {
		u := user(i)
		b.users = append(b.users, authz.User{Identity: authz.Identity{ID: u.ID, Email: u.Email, Roles: u.Roles, Organization: u.Organization}})
	}
	// Connections and buffers are there before anything is counted.
	if err := b.each(ctx, func(int) error { return b.store.Ping(ctx) }); err != nil {
		return m, err
	}
	m.Sessions = n
	if err := b.fill(ctx, &m); err != nil {
		return m, err
	}
	if err := b.look(ctx, &m); err != nil {
		return m, err
	}
	if err := b.track(ctx, server.Addr, &m); err != nil {
		return m, fmt.Errorf("tracking: %w", err)
	}
	if m.Replica, err = b.listen(ctx); err != nil {
		return m, err
	}
	if m.Calls, err = b.calls(ctx, server.PID()); err != nil {
		return m, err
	}
	grown, err := b.grown(ctx, func() error {
		logout := func() error {
			return b.each(ctx, func(i int) error { return b.store.Revoke(ctx, b.ids[i]) })
		}
		c, err := b.cost(ctx, server.PID(), "logout", logout)
		m.Calls = append(m.Calls, c)
		return err
	})
	m.Freed = -grown / float64(n)
	return m, err
}

// grown does something and returns by how much the memory that is in use grew.
func (b *memoryBench) grown(ctx context.Context, do func() error) (float64, error) {
	before, err := b.used(ctx)
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := b.used(ctx)
	return float64(after - before), err
}

// used is the memory in use, when Redis has done with moving its keys to larger
// tables: each look at a key that is there moves some of them.
func (b *memoryBench) used(ctx context.Context) (int64, error) {
	const rounds, atOnce = 8, 10_000
	for range rounds {
		for from := 0; from < len(b.ids); from += atOnce {
			_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				for _, id := range b.ids[from:min(from+atOnce, len(b.ids))] {
					p.Exists(ctx, sessionPrefix+id)
				}
				return nil
			})
			if err != nil {
				return 0, err
			}
		}
	}
	if !pause(ctx, 250*time.Millisecond) { // buffers shrink
		return 0, ctx.Err()
	}
	info, err := b.rdb.Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	return infoNumber(info, "used_memory")
}

// infoNumber reads a number of INFO.
func infoNumber(info, name string) (int64, error) {
	for line := range strings.Lines(info) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			return strconv.ParseInt(text, 10, 64)
		}
	}
	return 0, fmt.Errorf("INFO has no %s", name)
}

// each does something for each session, some beside each other.
func (b *memoryBench) each(ctx context.Context, do func(i int) error) error {
	const lanes = 8
	var wg sync.WaitGroup
	errs := make([]error, lanes)
	for lane := range lanes {
		wg.Go(func() {
			for i := lane; i < len(b.ids) && errs[lane] == nil && ctx.Err() == nil; i += lanes {
				errs[lane] = do(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}

func (b *memoryBench) login(ctx context.Context, i int) (string, error) {
	return b.store.Create(ctx, authz.Login{Identity: b.users[i].Identity, Device: authz.Device{
		Address:   "198.51.100.17",
		UserAgent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
	}})
}

// fill writes the sessions.
func (b *memoryBench) fill(ctx context.Context, m *redisMemory) error {
	for _, part := range []struct {
		bytes *float64
		write func(i int) error
	}{
		{&m.Record, func(i int) (err error) {
			b.ids[i], err = b.login(ctx, i)
			return err
		}},
		{&m.Profile, func(i int) error { return b.store.CompleteProfile(ctx, b.users[i]) }},
		{&m.Seen, func(i int) error {
			_, err := b.store.Session(ctx, b.ids[i], authz.ReadOptions{})
			return err
		}},
	} {
		grown, err := b.grown(ctx, func() error { return b.each(ctx, part.write) })
		if err != nil {
			return err
		}
		*part.bytes = grown / float64(len(b.ids))
	}
	return nil
}

// look asks what the keys of the last session take, whose texts are the longest.
func (b *memoryBench) look(ctx context.Context, m *redisMemory) (err error) {
	last := len(b.ids) - 1
	id, userKey := b.ids[last], profileBefore+b.users[last].ID
	if m.Text, err = b.rdb.StrLen(ctx, sessionPrefix+id).Result(); err != nil {
		return err
	}
	m.Usage = map[string]int64{}
	for part, key := range map[string]string{
		partRecord: sessionPrefix + id,
		partIndex:  "gatehouse:sessions:{" + userKey + "}",
		partUser:   userKey,
		partSeen:   "gatehouse:seen:{" + sessionPrefix + id + "}",
	} {
		if m.Usage[part], err = b.rdb.MemoryUsage(ctx, key).Result(); err != nil {
			return fmt.Errorf("MEMORY USAGE of the %s: %w", part, err)
		}
	}
	return nil
}

// track reads each session by a client that Redis keeps track for: two in
// default mode, one after the other, and one in broadcast mode.
func (b *memoryBench) track(ctx context.Context, addr string, m *redisMemory) error {
	for _, mode := range []struct {
		bytes *float64
		args  []any
	}{
		{&m.Remembered, []any{"client", "tracking", "on"}},
		{&m.Further, []any{"client", "tracking", "on"}},
		{&m.Broadcast, []any{"client", "tracking", "on", "bcast", "prefix", sessionPrefix}},
	} {
		client := redis.NewClient(&redis.Options{Addr: addr, Protocol: 3, PoolSize: 1})
		defer func() { _ = client.Close() }() // all of them at the end: they are remembered as long as they are there
		conn := client.Conn()
		defer func() { _ = conn.Close() }()
		read := func() error {
			const atOnce = 1000
			for from := 0; from < len(b.ids); from += atOnce {
				_, err := conn.Pipelined(ctx, func(p redis.Pipeliner) error {
					for _, id := range b.ids[from:min(from+atOnce, len(b.ids))] {
						p.Get(ctx, sessionPrefix+id)
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		}
		if err := read(); err != nil { // so that the connection's buffers are there
			return err
		}
		grown, err := b.grown(ctx, func() error {
			if err := conn.Process(ctx, redis.NewCmd(ctx, mode.args...)); err != nil {
				return err
			}
			return read()
		})
		if err != nil {
			return err
		}
		*mode.bytes = grown / float64(len(b.ids))
	}
	info, err := b.rdb.Info(ctx, "stats").Result()
	if err != nil {
		return err
	}
	if m.Keys, err = infoNumber(info, "tracking_total_keys"); err != nil {
		return err
	}
	m.Items, err = infoNumber(info, "tracking_total_items")
	return err
}

// calls measures what Redis does for what happens to a session in its life.
func (b *memoryBench) calls(ctx context.Context, pid int) ([]callCost, error) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	defer func() { cancel(); done.Wait() }()
	// One that renews each session whenever it is used, by the way of a replica
	// with a cache.
	renewing := session.New(b.rdb, session.Options{
		Profiles: true, Timeout: replicaPatience, Rolling: true, TouchInterval: time.Millisecond,
		Cache: &session.CacheOptions{MaxEntries: entriesFor(len(b.ids))},
	})
	done.Go(func() { _ = renewing.Run(ctx) })
	if err := awaitLive(ctx, renewing); err != nil {
		return nil, err
	}
	use := func() error { // one after the other: what comes at the same time is renewed by a script
		for _, id := range b.ids {
			if _, err := renewing.Session(ctx, id, authz.ReadOptions{}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := use(); err != nil {
		return nil, err
	}
	var costs []callCost
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"login", func() error {
			return b.each(ctx, func(i int) error { _, err := b.login(ctx, i); return err })
		}},
		{"read of a session that is not in the cache", func() error {
			return b.each(ctx, func(i int) error {
				_, err := b.store.Session(ctx, b.ids[i], authz.ReadOptions{Passive: true})
				return err
			})
		}},
		{"renewal, once per touch_interval", use},
	} {
		c, err := b.cost(ctx, pid, call.name, call.do)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", call.name, err)
		}
		costs = append(costs, c)
	}
	return costs, nil
}

// cost is that of one of as many calls as there are sessions.
func (b *memoryBench) cost(ctx context.Context, pid int, call string, do func() error) (c callCost, err error) {
	before, err := executed(ctx, b.rdb)
	if err != nil {
		return c, err
	}
	cpuBefore, err := proc.CPUTime(pid)
	if err != nil {
		return c, err
	}
	if err := do(); err != nil {
		return c, err
	}
	cpuAfter, err := proc.CPUTime(pid)
	if err != nil {
		return c, err
	}
	after, err := executed(ctx, b.rdb)
	if err != nil {
		return c, err
	}
	n := float64(len(b.ids))
	c.Call, c.Redis, c.Commands = call, micros(cpuAfter-cpuBefore)/n, float64(sum(commandsBetween(before, after)))/n
	return c, nil
}

func sum(counts map[string]int64) (all int64) {
	for _, n := range counts {
		all += n
	}
	return all
}

// listen has some stores listen and returns what Redis takes for each.
func (b *memoryBench) listen(ctx context.Context) (float64, error) {
	const stores = 8
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	defer func() { cancel(); done.Wait() }()
	grown, err := b.grown(ctx, func() error {
		for range stores {
			s := session.New(b.rdb, session.Options{Timeout: replicaPatience, Cache: &session.CacheOptions{MaxEntries: 1}})
			done.Go(func() { _ = s.Run(ctx) })
			if err := awaitLive(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	return grown / stores, err
}

// awaitLive waits until a store's cache may answer.
func awaitLive(ctx context.Context, s *session.Store) error {
	deadline := time.Now().Add(replicaPatience)
	for {
		st, _ := s.CacheState()
		switch {
		case st.Live:
			return nil
		case st.Unsupported, time.Now().After(deadline):
			return fmt.Errorf("the cache does not become coherent: %w", st.Err)
		case !pause(ctx, time.Millisecond):
			return ctx.Err()
		}
	}
}
