package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/session/internal/table"
	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// What the use of a session leaves behind: its renewal, the time of use, and its
// place in the user's index.

// revive renews a session that was just used, where that is due. A passive use
// doesn't count as the last one.
//
// A client that goes away doesn't stop it: others may have been answered with it,
// who leave the touch to this one. The deadline stays.
func (s *Store) revive(ctx context.Context, id string, keys recordKeys, f *found, o authz.ReadOptions) {
	precision := s.o.IdlePrecision
	if o.IdleTimeout > 0 {
		precision = IdlePrecision(o.IdleTimeout, precision)
	}
	var life, interval time.Duration
	if s.o.Rolling && f.ttl >= 0 {
		life, interval = f.life, min(s.o.TouchInterval, f.life/2)
	}
	now := s.o.Now()
	renew := life > 0 && life-f.ttl >= interval
	note := !o.Passive && (f.LastSeen.IsZero() || now.Sub(f.LastSeen) >= precision)
	if !renew && !note {
		return
	}
	deadline, bounded := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	ctx, cancel := redisguard.Touch(ctx, s.o.Timeout)
	defer cancel()
	slack := min(max(precision, s.o.TouchInterval), f.memory/4)
	calls := []*scriptCall{s.enter(keysOf(f.ID).sessions, id, f.memory, slack, now)}
	for _, hash := range f.provider {
		calls = append(calls, s.enter(providerKey(hash), id, f.memory, slack, now))
	}
	if renew && !o.Passive && s.cache != nil {
		if done, err := s.cache.renew(ctx, id, keys, f, note, interval, calls); done {
			s.lostRenewal(err)
			return
		}
	}
	calls = append(calls, &scriptCall{
		script: reviveScript,
		keys:   []string{keys.record, keys.dead, keys.seen},
		args: []any{
			life.Milliseconds(), interval.Milliseconds(),
			now.UnixMilli(), precision.Milliseconds(), f.memory.Milliseconds(), o.Passive,
		},
	})
	_, err := s.send(ctx, calls, false)
	if err == nil && note && s.cache != nil {
		s.cache.used(id, now)
	}
	s.lostRenewal(err)
}

func (s *Store) lostRenewal(err error) {
	if err != nil {
		s.lost(fmt.Errorf("renew session: %w", err))
	}
}

// used notes that a session was used now. No announcement tells of it.
func (c *cache) used(id string, now time.Time) {
	if epoch, live := c.tracker.Live(); live {
		c.table.Change(table.Name{Kind: kindSession, ID: id}, now.UnixMilli(), epoch, func(facts []byte) {
			setUsed(facts, now, c.store.o.IdlePrecision)
		})
	}
}

// claimTouch puts the next touch off, so that others who come now don't do the
// same.
func (c *cache) claimTouch(id string, now time.Time) (claimed bool) {
	epoch, live := c.tracker.Live()
	if !live {
		return false
	}
	ms := now.UnixMilli()
	c.table.Change(table.Name{Kind: kindSession, ID: id}, ms, epoch, func(facts []byte) {
		claimed = true
		setTouch(facts, ms+touchRetry.Milliseconds())
	})
	return claimed
}

// touchRetry is when a touch is tried again that failed.
const touchRetry = time.Second

// renew renews a record by the connection whose writes are not announced to us,
// and keeps what is there then: so our own renewal costs no further question.
// index is what is to be written before. done is false where it can't be done so,
// and nothing was done but perhaps that.
//
// A caller waits no longer than a call may take, and what it began goes on: to
// break the connection would cost the whole cache. It is one connection, and a
// queue for it would make everybody wait: what a script renews while it is in use
// is announced, and read again.
func (c *cache) renew(ctx context.Context, id string, keys recordKeys, f *found, note bool, interval time.Duration, index []*scriptCall) (done bool, err error) {
	writer := c.tracker.Writer(ctx, keys.record)
	if writer == nil || c.renewing.Swap(true) {
		return false, nil
	}
	begun := false
	defer func() {
		if !begun {
			c.renewing.Store(false)
		}
	}()
	// The index is first: see there.
	if _, err := c.store.send(ctx, index, false); err != nil {
		return true, err
	}
	ctx, cancel := c.store.deadline(ctx)
	defer cancel()
	finished := make(chan error, 1)
	own, name := context.WithoutCancel(ctx), table.Name{Kind: kindSession, ID: strings.Clone(id)}
	begun = true
	go func() {
		defer c.renewing.Store(false)
		err := errPanicked
		defer func() {
			if p := recover(); p != nil { // a bug, which must not end the process
				err = fmt.Errorf("%w: %v", errPanicked, p)
			}
			finished <- err
		}()
		err = c.renewThrough(own, writer, name, keys, f, note, interval)
	}()
	select {
	case err = <-finished:
	case <-ctx.Done():
		return true, ctx.Err()
	}
	if _, refused := errors.AsType[redis.Error](err); refused { // READONLY, MOVED, NOPERM
		return false, nil
	}
	return true, err
}

var errPanicked = errors.New("panic while a session was renewed")

// renewThrough does what reviveScript does, by a transaction, since what a script
// writes is announced in any case.
func (c *cache) renewThrough(ctx context.Context, writer *redis.Client, name table.Name, keys recordKeys, f *found, note bool, interval time.Duration) (err error) {
	epoch, live := c.tracker.Live()
	if !live {
		return nil
	}
	s := c.store
	now := s.o.Now()
	r := c.table.Begin(name)
	var facts []byte
	var deadline int64
	defer func() { c.table.End(r, facts, deadline, epoch) }()
	err = writer.Watch(ctx, func(tx *redis.Tx) error {
		pipe := tx.Pipeline()
		ttl, dead := pipe.PTTL(ctx, keys.record), pipe.Exists(ctx, keys.dead)
		if err := exec(ctx, pipe); err != nil {
			return err
		}
		renew := ttl.Val() >= 0 && f.life-ttl.Val() >= interval
		if dead.Val() != 0 || ttl.Val() == ttlAbsent || !renew && !note {
			return nil // it ended, or another replica was first; that was announced
		}
		var read func() sessionReply
		cmds, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			if note {
				p.Set(ctx, keys.seen, now.UnixMilli(), f.memory)
			}
			if renew {
				p.PExpire(ctx, keys.record, f.life)
			}
			read = readSessionReply(ctx, p, keys)
			return nil
		})
		if errors.Is(err, redis.TxFailedErr) {
			return nil // as above
		}
		if !answered(err) {
			return err
		}
		for _, cmd := range cmds {
			if !answered(cmd.Err()) {
				return cmd.Err()
			}
		}
		reply := read()
		l := &loaded{deadFor: reply.dead}
		if l.found, l.refused = s.judge(reply, nil); l.refused == nil {
			facts, deadline = c.factsOf(l, now)
		}
		return nil
	}, keys.record, keys.dead)
	return err
}
