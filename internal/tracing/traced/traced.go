// Package traced has what a request makes happen elsewhere show up in its trace: questions
// to Redis, fetches over HTTP; and the trace's id in log lines.
//
// It needs no settings and starts no trace. Where the context holds a span that is
// recorded (package tracing begins them), what is done gets one below it. Else nothing
// happens, but for a look into the context. So work in the background, such as the
// cache's heartbeat or a key set that is fetched again when it is due, has no span.
//
// A span never holds what was asked for: no key of Redis, no path and no query, no text
// of an error, in which any of these could stand. And nobody outside is told of our
// trace: a provider's or an issuer's server gets no traceparent.
package traced

import (
	"context"
	"errors"
	"net"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Scope is the name under which spans are made.
const Scope = "github.com/gatehouse-auth/gatehouse"

// client begins a span below the one of the context; ok is false where there is nothing
// to record.
func client(ctx context.Context, name string, attributes ...attribute.KeyValue) (_ context.Context, s trace.Span, ok bool) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, nil, false
	}
	ctx, s = parent.TracerProvider().Tracer(Scope).Start(ctx, name,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return ctx, s, true
}

// fail notes an error, by its kind. That the caller has gone is nobody's.
func fail(s trace.Span, err error, kind string) {
	if errors.Is(err, context.Canceled) {
		s.SetAttributes(semconv.ErrorTypeKey.String("canceled"))
		return
	}
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		kind = "timeout"
	}
	s.SetAttributes(semconv.ErrorTypeKey.String(kind))
	s.SetStatus(codes.Error, kind)
}
