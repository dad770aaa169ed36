package redisguard

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Call is a command that was for one server, and what came of it.
type Call struct {
	Command string // in small letters; pipeline or transaction for several at once
	Purpose string // lookup, watch, touch, guess, repeatable, order or connection
	Outcome string // ok, again, error, timeout, unreachable, refused or canceled
	Sent    bool   // else it was refused, or who asked had gone or no time left before its turn came
	Took    time.Duration
}

func (p purpose) String() string {
	switch p {
	case lookup:
		return "lookup"
	case watch:
		return "watch"
	case touch:
		return "touch"
	case guess:
		return "guess"
	case repeatable:
		return "repeatable"
	case inside:
		return "connection"
	case order:
	}
	return "order"
}

// record tells of a command that began at a time.
func (g *Guard) record(ctx context.Context, command string, sent bool, began time.Time, err error) {
	told := g.recorder.Load()
	if told == nil || *told == nil {
		return
	}
	m, _ := ctx.Value(markKey{}).(mark)
	(*told)(Call{
		Command: command, Purpose: m.purpose.String(), Outcome: outcomeOfCall(sent, err), Sent: sent, Took: time.Since(began),
	})
}

// outcomeOfCall is the outcome of a [Call].
func outcomeOfCall(sent bool, err error) string {
	switch said, answered := errors.AsType[redis.Error](err); {
	case err == nil || errors.Is(err, redis.Nil):
		return "ok"
	case !answered && errors.Is(err, context.Canceled):
		return "canceled"
	case !sent && Refused(err):
		return "refused"
	case answered:
		for _, prefix := range []string{"MOVED ", "ASK ", "NOSCRIPT"} {
			if strings.HasPrefix(said.Error(), prefix) {
				return "again"
			}
		}
		return "error"
	case late(err):
		return "timeout"
	case !sent:
		return "refused"
	}
	return "unreachable"
}
