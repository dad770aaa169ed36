package session

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz/session/internal/tracking"
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
// for its turn. It is an order, also for a list: only administrators can have it, and who
// locks somebody out looks first.
//
// With an error it returns what it has found so far. Each step has the timeout of
// a call, the whole as long as ctx. Every record
// is found that is there from the beginning to the end; only while the slots
// of a Cluster are being moved one may be missed.
func (s *Store) sweep(ctx context.Context, userID string) ([]string, error) {
	select {
	case s.sweeping <- struct{}{}:
		defer func() { <-s.sweeping }()
	case <-ctx.Done():
		return nil, unavailable("wait to look through the sessions", ctx.Err())
	}
	ctx = order(ctx)
	var mu sync.Mutex
	var ids []string
	err := s.forEachServer(ctx, func(ctx context.Context, server redis.Cmdable) error {
		found, err := s.sweepServer(ctx, server, userID)
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, found...)
		return err
	})
	slices.Sort(ids)
	ids = slices.Compact(ids) // SCAN may return a key twice
	if err != nil {
		return ids, unavailable("look through the sessions", err)
	}
	return ids, nil
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
			return ids, err
		}
		after, err := s.runID(ctx, server)
		if err != nil {
			return ids, err
		}
		if before == after {
			return ids, nil
		}
	}
	return nil, errors.New("the server is another one again and again")
}

// runID names the process of a server.
func (s *Store) runID(ctx context.Context, server redis.Cmdable) (string, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	return tracking.RunID(ctx, server)
}

func (s *Store) scan(ctx context.Context, server redis.Cmdable, userID string) (ids []string, err error) {
	for cursor, more := uint64(0), true; more; more = cursor != 0 {
		var keys []string
		if err = again(ctx, func() (err error) {
			keys, cursor, err = s.scanStep(ctx, server, cursor)
			return err
		}); err != nil {
			return ids, err
		}
		if ids, err = s.ownedBy(ctx, userID, keys, ids); err != nil {
			return ids, err
		}
		if looked, ok := ctx.Value(progressKey{}).(func(records int)); ok {
			looked(len(keys))
		}
	}
	return ids, nil
}

type progressKey struct{}

// WithProgress has looked called, while all session records are looked through, for each
// step with how many records those were, for people who wait. Nodes of a Cluster are looked
// through at the same time, and call at the same time.
func WithProgress(ctx context.Context, looked func(records int)) context.Context {
	return context.WithValue(ctx, progressKey{}, looked)
}

func (s *Store) scanStep(ctx context.Context, server redis.Cmdable, cursor uint64) ([]string, uint64, error) {
	stepCtx, cancel := s.deadline(ctx)
	defer cancel()
	keys, next, err := server.Scan(stepCtx, cursor, globOf(s.o.Prefix)+"*", scanAtOnce).Result()
	if err != nil {
		return nil, cursor, err
	}
	return keys, next, nil
}

// again tries a step of a sweep once more when it fails: one hiccup of the
// store must not make the whole walk in vain.
func again(ctx context.Context, step func() error) error {
	err := step()
	if err != nil && ctx.Err() == nil {
		err = step()
	}
	return err
}

// ownedBy appends the ids of those of the records that are the user's.
func (s *Store) ownedBy(ctx context.Context, userID string, records, ids []string) ([]string, error) {
	for len(records) > 0 {
		var looked int
		var texts map[string]string
		if err := again(ctx, func() (err error) {
			looked, texts, err = s.matching(ctx, userID, records)
			return err
		}); err != nil {
			return ids, err
		}
		for _, record := range records[:looked] {
			text, matches := texts[record]
			if matches && s.o.Fields.decodeLoosely(text, s.o.Now()).ID == userID {
				ids = append(ids, strings.TrimPrefix(record, s.o.Prefix))
			}
		}
		records = records[looked:]
	}
	return ids, nil
}

// matching looks at the first of the records, one at least, and returns how
// many those were, and the text of each that may be the user's. The others don't
// leave the server: what there is of them, and how large, is no matter of the
// network's.
func (s *Store) matching(ctx context.Context, userID string, records []string) (looked int, texts map[string]string, err error) {
	needle := userID
	if strings.Contains(needle, "\uFFFD") {
		needle = "" // what is not UTF-8 is decoded to U+FFFD
	}
	texts = map[string]string{}
	var calls []*scriptCall
	if s.single != nil {
		calls = append(calls, &scriptCall{script: matchScript, keys: records, args: []any{needle, matchBytes}})
	} else { // a script has keys of one slot only
		for _, record := range records[:min(len(records), matchAtOnce)] {
			calls = append(calls, &scriptCall{script: matchScript, keys: []string{record}, args: []any{needle, matchBytes}})
		}
	}
	stepCtx, cancel := s.deadline(ctx)
	defer cancel()
	if err := sendAll(stepCtx, s.client, calls); err != nil {
		return 0, nil, err
	}
	for _, c := range calls {
		answer, err := c.reply.StringSlice()
		if err != nil || len(answer)%2 != 1 {
			return 0, nil, cmp.Or(err, errAnswer)
		}
		n, err := strconv.Atoi(answer[0])
		if err != nil || n < 1 || n > len(c.keys) {
			return 0, nil, cmp.Or(err, errAnswer)
		}
		looked += n
		for found := range slices.Chunk(answer[1:], 2) {
			texts[found[0]] = found[1]
		}
	}
	return looked, texts, nil
}

const (
	// matchBytes is how much text one call of matchScript looks at, but for the
	// record with which it is exceeded: a few milliseconds of the server's time.
	matchBytes = 1 << 20
	// matchAtOnce is how many records a Cluster is asked about at once.
	matchAtOnce = 50
)

// matchScript returns how many of the records it looked at, as a text, and the
// key and the text of each that may be a user's: that has the user's id in it,
// or a backslash, behind which JSON may hide one. It is quick, and never wrong
// about those that it leaves out: a number that is an id has the same digits.
//
// KEYS: records. ARGV: what to look for, "" for anything; how many bytes.
var matchScript = redis.NewScript(`
local left, answer = tonumber(ARGV[2]), {'0'}
for i = 1, #KEYS do
	local text = redis.pcall('GET', KEYS[i])
	if type(text) == 'string' then
		left = left - #text
		if string.find(text, ARGV[1], 1, true) or string.find(text, '\\', 1, true) then
			answer[#answer + 1] = KEYS[i]
			answer[#answer + 1] = text
		end
	elseif type(text) == 'table' and not string.find(text.err, 'WRONGTYPE', 1, true) then
		return text
	end
	answer[1] = string.format('%d', i)
	if left <= 0 then
		break
	end
end
return answer
`)

// globOf returns the pattern that matches the text itself.
func globOf(text string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(text)
}
