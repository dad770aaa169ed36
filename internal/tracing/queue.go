package tracing

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// Spans counts what became of spans. It is safe for concurrent use.
type Spans struct{ sent, full, unsent prometheus.Counter }

// NewSpans returns a counter whose metric is registered with reg.
func NewSpans(reg prometheus.Registerer) *Spans {
	all := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: telemetry.TraceSpans.Name,
		Help: telemetry.TraceSpans.Help,
	}, []string{"result"})
	reg.MustRegister(all)
	return &Spans{sent: all.WithLabelValues("sent"), full: all.WithLabelValues("queue_full"), unsent: all.WithLabelValues("not_sent")}
}

// queue holds spans that have ended until they are sent. It is the SDK's own, but for the
// count of what is in it: the SDK drops what finds it full, and tells nobody how many.
type queue struct {
	sdktrace.SpanProcessor
	spans   *Spans
	waiting atomic.Int64 // in the SDK's queue, or on their way

	over context.Context //nolint:containedctx // the end of what is being sent: its context is the SDK's
	stop context.CancelFunc
}

func newQueue(sender sdktrace.SpanExporter, o Options) *queue {
	q := &queue{spans: o.Spans}
	q.over, q.stop = context.WithCancel(context.Background())
	if q.spans == nil {
		q.spans = NewSpans(prometheus.NewRegistry())
	}
	q.SpanProcessor = sdktrace.NewBatchSpanProcessor(&exporter{SpanExporter: sender, q: q, log: o.Log, endpoint: o.Endpoint},
		sdktrace.WithMaxQueueSize(queueLength),
		sdktrace.WithMaxExportBatchSize(batchLength),
		sdktrace.WithBatchTimeout(batchTime),
		sdktrace.WithExportTimeout(exportTime))
	return q
}

// OnEnd implements [sdktrace.SpanProcessor]. It never waits.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	if q.waiting.Add(1) > queueLength {
		q.waiting.Add(-1)
		q.spans.full.Inc()
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// exporter counts what is sent, and tells the log when that ceases to succeed.
type exporter struct {
	sdktrace.SpanExporter
	q        *queue
	log      *slog.Logger
	endpoint string

	mu      sync.Mutex
	down    bool      // that was told
	told    time.Time // the last time
	refused time.Time // the last time that a line said that spans are refused
}

// toldEvery is how much time lies at least between two lines that say that the collector
// can't be reached, or refuses spans.
const toldEvery = time.Minute

// ExportSpans implements [sdktrace.SpanExporter]. It is called for one batch at a time.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.q.over, cancel)() //nolint:contextcheck // both can end it
	var refused int64
	err := e.SpanExporter.ExportSpans(context.WithValue(ctx, refusedKey{}, &refused), spans)
	n := int64(len(spans))
	e.q.waiting.Add(-n)
	if err != nil {
		refused = n
	}
	refused = min(max(refused, 0), n) // by a stranger's word
	e.q.spans.unsent.Add(float64(refused))
	e.q.spans.sent.Add(float64(n - refused))
	e.tell(err, refused)
	return nil // it has been told
}

// refusedKey is that of an *int64 in a context, to which [readRefused] writes.
type refusedKey struct{}

// readRefused reads off a collector's answer how many spans of a batch it refuses (OTLP:
// partial success). The exporter, which is to see nothing of that, would make an error of
// it, without the number; and also of the mere remark that comes with none refused.
func readRefused(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
	err := invoke(ctx, method, request, reply, conn, o...)
	answer, ok := reply.(*collector.ExportTraceServiceResponse)
	if !ok || err != nil {
		return err
	}
	if refused, ok := ctx.Value(refusedKey{}).(*int64); ok {
		*refused = answer.GetPartialSuccess().GetRejectedSpans()
	}
	answer.PartialSuccess = nil
	return nil
}

// tell writes to the log. What the collector says in words is left out: it may repeat a
// header of ours, in whole or in part, or what it likes.
func (e *exporter) tell(err error, refused int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	endpoint := slog.String("endpoint", e.endpoint)
	if err == nil && e.down {
		e.down = false
		e.log.Info("traces are sent again", endpoint)
	}
	switch {
	case err != nil && !e.down && time.Since(e.told) >= toldEvery:
		e.down, e.told = true, time.Now()
		code := status.Code(err)
		e.log.Warn("traces can't be sent, and are dropped until they can; requests don't wait for it",
			endpoint, slog.String("code", code.String()), slog.String("remedy", cmp.Or(remedies[code], "look into the collector's own log")))
	case err == nil && refused > 0 && time.Since(e.refused) >= toldEvery:
		e.refused = time.Now()
		e.log.Warn("the collector refuses some spans of those that it gets; look into its own log for why",
			endpoint, slog.Int64("refused", refused))
	}
}

// remedies are where to look, by the code of a call that failed.
var remedies = map[codes.Code]string{
	codes.Unavailable:      "look whether the collector can be reached at this endpoint, and whether tracing.otlp.tls, or insecure, is as it wants",
	codes.Unauthenticated:  "look whether tracing.otlp.headers_file has what the collector asks for",
	codes.PermissionDenied: "look whether tracing.otlp.headers_file has what the collector asks for",
	codes.Unimplemented:    "look whether what listens there takes OTLP over gRPC, usually at port 4317",
	codes.DeadlineExceeded: "the collector didn't answer in time; look whether it has too much to do",
	codes.Canceled:         "the collector didn't answer in time; look whether it has too much to do", // at our end
}
