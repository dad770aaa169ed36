package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// scriptCall is one call of a script. reply is there when it was sent.
type scriptCall struct {
	script *redis.Script
	keys   []string
	args   []any
	reply  *redis.Cmd
}

// send sends the calls in one round trip, in two when a server doesn't know a
// script yet. A nil error means that every one was answered.
//
// With confirmed, and where [Options] ask for it, it waits until the replicas
// hold what the calls wrote; held is false when too few of them said so in
// time, or too many others waited for them already. Everything is bounded by the
// timeout, waiting by another one, and the turn to wait by one more.
func (s *Store) send(ctx context.Context, calls []*scriptCall, confirmed bool) (held bool, err error) {
	if !confirmed || s.o.ConfirmReplicas == 0 {
		ctx, cancel := s.deadline(ctx)
		defer cancel()
		return true, sendAll(ctx, s.client, calls)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*s.o.Timeout)
	defer cancel()
	if s.single != nil {
		return s.sendConfirmed(ctx, s.single, calls)
	}
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		return s.sendConfirmedByNode(ctx, cluster, calls)
	}
	return false, sendAll(ctx, s.client, calls) // no client of Open
}

// singleClient is a client of one server: alone, behind Sentinel, embedded.
type singleClient interface {
	redis.Cmdable
	WithTimeout(time.Duration) *redis.Client
}

type pipeliner interface{ Pipeline() redis.Pipeliner }

// sendAll sends the calls. A server that doesn't have one of the scripts did
// nothing for it, and gets all of them again with their text.
func sendAll(ctx context.Context, client pipeliner, calls []*scriptCall) error {
	err := sendOnce(ctx, client, calls, func(*scriptCall) bool { return false }, nil)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		err = sendOnce(ctx, client, calls, func(*scriptCall) bool { return true }, nil)
	}
	return err
}

// sendOnce sends the calls, those with the text of their script that need it,
// and behind them on the same connection what follow adds. NOSCRIPT comes last
// among the errors that there are.
func sendOnce(ctx context.Context, client pipeliner, calls []*scriptCall, needsText func(*scriptCall) bool, follow func(redis.Pipeliner)) error {
	pipe := client.Pipeline()
	for _, c := range calls {
		if needsText(c) {
			c.reply = c.script.Eval(ctx, pipe, c.keys, c.args...)
		} else {
			c.reply = c.script.EvalSha(ctx, pipe, c.keys, c.args...)
		}
	}
	if follow != nil {
		follow(pipe)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "NOSCRIPT") {
		return err
	}
	var missing error
	for _, c := range calls {
		switch err := c.reply.Err(); {
		case redis.HasErrorPrefix(err, "NOSCRIPT"):
			missing = err
		case err != nil && !errors.Is(err, redis.Nil):
			return err
		}
	}
	return missing
}

// wasAnswered reports whether each call got a reply that is no error. Every
// script of ours has one that is not nil.
func wasAnswered(calls []*scriptCall) bool {
	return !slices.ContainsFunc(calls, func(c *scriptCall) bool { return c.reply.Err() != nil || c.reply.Val() == nil })
}

// confirmLife is how long the write lives that replicas confirm.
const confirmLife = time.Minute

// sendConfirmed sends the calls to one server, then a small write, then WAIT.
//
// WAIT speaks for the writes of its connection, so all of it is one pipeline:
// should the connection break, the client sends the whole again. (On a
// connection of its own WAIT would find nothing to wait for, and confirm at
// once what no replica has.) The small write is there since a call that finds
// its work done writes nothing, and then newer servers have nothing to wait
// for either, though the replicas may still lack what was done before. What
// they hold is a prefix of what the server wrote.
func (s *Store) sendConfirmed(ctx context.Context, client singleClient, calls []*scriptCall) (held bool, err error) {
	known := map[*redis.Script]bool{}
	firstOfScript := func(c *scriptCall) bool {
		first := !known[c.script]
		known[c.script] = true
		return first
	}
	var wait *redis.Cmd
	err = sendOnce(ctx, redisguard.Long(client, s.o.Timeout, 2*s.o.Timeout), calls, firstOfScript, func(pipe redis.Pipeliner) {
		pipe.Set(ctx, mark(markConfirm, calls[0].keys[0]), s.o.Now().UnixMilli(), confirmLife)
		wait = pipe.Do(ctx, "wait", s.o.ConfirmReplicas, s.o.Timeout.Milliseconds())
	})
	switch {
	case err == nil:
		replicas, _ := wait.Int()
		return replicas >= s.o.ConfirmReplicas, nil
	case errors.Is(err, redisguard.ErrNoTurn): // nothing was sent
		// What can't be confirmed is made all the same.
		ctx, cancel := s.deadline(ctx)
		defer cancel()
		return false, sendAll(ctx, client, calls)
	case wasAnswered(calls): // what failed came after them
		return false, nil
	}
	return false, err
}

// sendConfirmedByNode does it for each master of a Cluster that has a part in
// the calls.
func (s *Store) sendConfirmedByNode(ctx context.Context, cluster *redis.ClusterClient, calls []*scriptCall) (held bool, err error) {
	type node struct {
		client *redis.Client
		calls  []*scriptCall
		held   bool
		err    error
	}
	var nodes []*node
	for _, c := range calls {
		client, err := cluster.MasterForKey(ctx, c.keys[0])
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(nodes, func(n *node) bool { return n.client == client })
		if i < 0 {
			i = len(nodes)
			nodes = append(nodes, &node{client: client})
		}
		nodes[i].calls = append(nodes[i].calls, c)
	}
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			n.held, n.err = s.sendConfirmed(ctx, n.client, n.calls)
			if n.err == nil {
				return
			}
			// The Cluster may have changed since we learnt who has what.
			cluster.ReloadState(ctx)
			if redirected(n.err) {
				n.err = sendAll(ctx, cluster, n.calls) // it follows, by a connection that we can't wait on
			}
		})
	}
	wg.Wait()
	held = true
	for _, n := range nodes {
		held = held && n.held
		err = errors.Join(err, n.err)
	}
	return held, err
}

// redirected reports whether a node of a Cluster sent us elsewhere.
func redirected(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	return moved || ask || redis.IsTryAgainError(err)
}
