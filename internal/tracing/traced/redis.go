package traced

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/gatehouse-auth/gatehouse/internal/redisguard"
)

// Redis is a hook that gives each command, pipeline and transaction a span: its name, and
// how long it took, with the time that it waited for its turn if the hook is added before
// the guard's.
type Redis struct{}

var _ redis.Hook = Redis{}

// DialHook implements [redis.Hook].
func (Redis) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (Redis) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !trace.SpanFromContext(ctx).IsRecording() { // before the name is made
			return next(ctx, cmd)
		}
		name := strings.ToUpper(cmd.Name())
		ctx, s, ok := client(ctx, name, semconv.DBSystemNameRedis, semconv.DBOperationNameKey.String(name))
		if !ok {
			return next(ctx, cmd)
		}
		defer s.End()
		err := next(ctx, cmd)
		failRedis(s, err)
		return err
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (Redis) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if !trace.SpanFromContext(ctx).IsRecording() || len(cmds) == 0 {
			return next(ctx, cmds)
		}
		name, size := "PIPELINE", len(cmds)
		switch first := strings.ToUpper(cmds[0].Name()); {
		case size == 1:
			name = first
		case first == "MULTI":
			name, size = first, size-2 // EXEC is the other one
		}
		ctx, s, ok := client(ctx, name, semconv.DBSystemNameRedis, semconv.DBOperationNameKey.String(name))
		if !ok {
			return next(ctx, cmds)
		}
		defer s.End()
		if len(cmds) > 1 {
			s.SetAttributes(semconv.DBOperationBatchSizeKey.Int(size))
		}
		err := next(ctx, cmds)
		failRedis(s, err)
		return err
	}
}

// failRedis notes an error. That there is no such key is an answer; and so is that the
// server has yet to learn a script, which is sent to it next.
func failRedis(s trace.Span, err error) {
	if err == nil || errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "NOSCRIPT") {
		return
	}
	kind := "connection"
	var answer redis.Error
	switch {
	case redisguard.Refused(err):
		kind = "refused" // by our own guard: not asked
	case errors.As(err, &answer):
		kind = "answer"
		if code, _, _ := strings.Cut(answer.Error(), " "); code != "" && strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
			s.SetAttributes(semconv.DBResponseStatusCodeKey.String(code))
			kind = code
		}
	}
	fail(s, err, kind)
}
