package session

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// scanAtOnce is how many keys a server looks at in one step of a sweep. It
// takes well under a millisecond.
const scanAtOnce = 300

// mostScans is how often one server is looked through before a sweep gives
// up, if it is restarted or replaced again and again.
const mostScans = 3

// sweep looks through all session records for those of a user, in small steps
// that leave the server time for others: for what another program made and the
// gate never saw. There is one sweep of a store at a time; the next one waits
// for its turn.
//
// Each step has the timeout of a call, the whole as long as ctx. Every record
// is found that is there from the beginning to the end; only while the slots
// of a Cluster are being moved one may be missed.
func (s *Store) sweep(ctx context.Context, userID string) ([]string, error) {
	select {
	case s.sweeping <- struct{}{}:
		defer func() { <-s.sweeping }()
	case <-ctx.Done():
		return nil, unavailable("wait to look through the sessions", ctx.Err())
	}
	var mu sync.Mutex
	var ids []string
	err := s.forEachServer(ctx, func(ctx context.Context, server redis.Cmdable) error {
		found, err := s.sweepServer(ctx, server, userID)
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, found...)
		return err
	})
	if err != nil {
		return nil, unavailable("look through the sessions", err)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil // SCAN may return a key twice
}

// forEachServer calls fn for each server that has keys of its own, for those
// of a Cluster at the same time.
func (s *Store) forEachServer(ctx context.Context, fn func(ctx context.Context, server redis.Cmdable) error) error {
	if s.single != nil {
		return fn(ctx, s.single)
	}
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return errors.New("a client that is none of Open's")
	}
	return cluster.ForEachMaster(ctx, func(ctx context.Context, server *redis.Client) error { return fn(ctx, server) })
}

// sweepServer looks through the records of one server. A cursor means nothing
// to another process, which would seem to be through early: so it must be the
// same one at the end as at the beginning.
func (s *Store) sweepServer(ctx context.Context, server redis.Cmdable, userID string) (ids []string, err error) {
	for range mostScans {
		before, err := s.runID(ctx, server)
		if err != nil {
			return nil, err
		}
		if ids, err = s.scan(ctx, server, userID); err != nil {
			return nil, err
		}
		after, err := s.runID(ctx, server)
		if err != nil {
			return nil, err
		}
		if before == after {
			return ids, nil
		}
	}
	return nil, errors.New("the server is another one again and again")
}

// runID names the process of a server; "" where it doesn't say, as the
// embedded one, or where we may not ask.
func (s *Store) runID(ctx context.Context, server redis.Cmdable) (string, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	info, err := server.Info(ctx, "server").Result()
	if _, refused := errors.AsType[redis.Error](err); err != nil && !refused {
		return "", err
	}
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(line, "run_id:"); ok {
			return strings.TrimSpace(id), nil
		}
	}
	return "", nil
}

func (s *Store) scan(ctx context.Context, server redis.Cmdable, userID string) (ids []string, err error) {
	for cursor, more := uint64(0), true; more; more = cursor != 0 {
		var keys []string
		if keys, cursor, err = s.scanStep(ctx, server, cursor); err != nil {
			return nil, err
		}
		for part := range slices.Chunk(keys, readAtOnce) {
			if ids, err = s.ownedBy(ctx, userID, part, ids); err != nil {
				return nil, err
			}
		}
	}
	return ids, nil
}

func (s *Store) scanStep(ctx context.Context, server redis.Cmdable, cursor uint64) ([]string, uint64, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	return server.Scan(ctx, cursor, globOf(s.o.Prefix)+"*", scanAtOnce).Result()
}

// ownedBy appends the ids of those of the records that are the user's.
func (s *Store) ownedBy(ctx context.Context, userID string, records, ids []string) ([]string, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	pipe := s.client.Pipeline()
	gets := make([]*redis.StringCmd, len(records))
	for i, record := range records {
		gets[i] = pipe.Get(ctx, record)
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, err
	}
	for i, get := range gets {
		text, exists, err := textOf(get)
		if err != nil || !exists || !mayHold(text, userID) {
			continue
		}
		if s.o.Fields.decodeLoosely(text, s.o.Now()).ID == userID {
			ids = append(ids, strings.TrimPrefix(records[i], s.o.Prefix))
		}
	}
	return ids, nil
}

// mayHold reports whether a JSON text may hold a string, or a number of these
// digits; it is quick, and never wrongly false. What JSON escapes has a
// backslash; what is not UTF-8 is decoded to U+FFFD.
func mayHold(text, value string) bool {
	return strings.Contains(text, value) || strings.Contains(text, `\`) || strings.Contains(value, "\uFFFD")
}

// globOf returns the pattern that matches the text itself.
func globOf(text string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(text)
}
