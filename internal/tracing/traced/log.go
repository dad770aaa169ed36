package traced

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
)

// LogHandler adds trace_id to each line that is about a request of a trace, recorded or
// not.
func LogHandler(next slog.Handler) slog.Handler { return logHandler{next} }

type logHandler struct{ slog.Handler }

// Handle implements [slog.Handler].
func (h logHandler) Handle(ctx context.Context, line slog.Record) error {
	if sc := traceOf(ctx); sc.HasTraceID() {
		line = line.Clone()
		line.AddAttrs(slog.String("trace_id", sc.TraceID().String()))
	}
	return h.Handler.Handle(ctx, line)
}

// WithAttrs implements [slog.Handler].
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.Handler.WithGroup(name)} }

// traceOf is the trace of a request: of our span, or else what Envoy says of its own.
func traceOf(ctx context.Context) trace.SpanContext {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		return sc
	}
	return Incoming(ctx)
}

// Incoming is the span of the gateway for the check that a context belongs to, as the
// metadata of the gRPC call has it. It is not valid where there is none.
func Incoming(ctx context.Context) trace.SpanContext {
	return Remote(metadata.ValueFromIncomingContext(ctx, parentHeader)) //nolint:contextcheck // what is read is all
}

const parentHeader = "traceparent"

// Unrecorded reports whether the gateway says of its span that it is not recorded, in the
// one form in which all say it: most checks are of this kind, and that is all that there
// is to know about them. Where it reports false, [Incoming] knows more.
func Unrecorded(ctx context.Context) bool {
	parent := metadata.ValueFromIncomingContext(ctx, parentHeader)
	return len(parent) == 1 && unrecorded(parent[0])
}

// unrecorded is about version 00: version, trace, span and flags, of 2, 32, 16 and 2
// hexadecimal digits.
func unrecorded(parent string) bool {
	const form = "00-tttttttttttttttttttttttttttttttt-ssssssssssssssss-00"
	if len(parent) != len(form) {
		return false
	}
	for i := range len(form) {
		c := parent[i]
		switch {
		case form[i] == 't' || form[i] == 's':
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		case c != form[i]:
			return false
		}
	}
	return true
}

// Remote reads what came with a request as traceparent (W3C Trace Context). It is not
// valid where that is missing, there twice, or malformed.
//
// What came beside it as tracestate is left behind: it is up to 16 KiB of a client's own
// making, which each span below would have with it on its way to the collector, and nobody
// asks us for it.
func Remote(parent []string) trace.SpanContext {
	if len(parent) != 1 {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier(parent[0])))
}

// carrier implements [propagation.TextMapCarrier], for reading a traceparent.
type carrier string

func (c carrier) Get(key string) string {
	if key == parentHeader {
		return string(c)
	}
	return ""
}

func (carrier) Set(string, string) {}

func (carrier) Keys() []string { return []string{parentHeader} }
