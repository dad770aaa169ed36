package tracing

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

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
	secrets := make([]string, 0, len(o.Headers))
	for _, value := range o.Headers {
		secrets = append(secrets, value)
	}
	q.SpanProcessor = sdktrace.NewBatchSpanProcessor(&exporter{SpanExporter: sender, q: q, log: o.Log, endpoint: o.Endpoint, secrets: secrets},
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
	secrets  []string

	mu   sync.Mutex
	down bool      // that was told
	told time.Time // the last time
}

// toldEvery is how much time lies at least between two lines that say that the collector
// can't be reached.
const toldEvery = time.Minute

// ExportSpans implements [sdktrace.SpanExporter]. It is called for one batch at a time.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.q.over, cancel)() //nolint:contextcheck // both can end it
	err := e.SpanExporter.ExportSpans(ctx, spans)
	n := len(spans)
	e.q.waiting.Add(-int64(n))
	if err != nil {
		e.q.spans.unsent.Add(float64(n))
	} else {
		e.q.spans.sent.Add(float64(n))
	}
	e.tell(err)
	return nil // it has been told
}

func (e *exporter) tell(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil && e.down:
		e.down = false
		e.log.Info("traces are sent again", slog.String("endpoint", e.endpoint))
	case err != nil && !e.down && time.Since(e.told) >= toldEvery:
		e.down, e.told = true, time.Now()
		e.log.Warn("traces can't be sent, and are dropped until they can; requests don't wait for it",
			slog.String("endpoint", e.endpoint), slog.String("error", e.clean(err)))
	}
}

// clean is an error without what a collector may have repeated of our headers.
func (e *exporter) clean(err error) string {
	text := err.Error()
	for _, s := range e.secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[secret]")
		}
	}
	const most = 300
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
