// Package tracing begins the spans of requests, and sends them, and those below them, to
// an OTLP collector.
//
//	t, err := tracing.New(tracing.Options{Endpoint: "localhost:4317", InsecurePlaintext: true})
//	defer t.Shutdown(ctx)
//	o := extauthz.Options{Tracer: t, Recorder: t.Recorder(recorder)}
//
// What a request does below its span is in package traced.
//
// # Whose child a check is
//
// A real Envoy 1.40 with a tracer was seen to do this for each check:
//
//   - it begins a span "async envoy.service.auth.v3.Authorization.Check egress", below the
//     one of the client's request, and sends it as traceparent and tracestate in the
//     metadata of the gRPC call, also with skip_envoy_headers;
//   - its flag says whether Envoy records: 00 under random_sampling 0, whatever the client
//     sent; a client's 00 stays 00;
//   - a client's traceparent is in attributes.request.http.headers as it was sent, since
//     Envoy puts its own in its place only when it routes the request. Where Envoy
//     continues the client's trace, the metadata have the same trace id; where it doesn't,
//     another one. Without a tracer in Envoy, the metadata have none.
//
// So the parent is what the metadata say, and nothing else: the span of a check is below
// Envoy's, is recorded where Envoy's is, and a client is believed as far as Envoy believes
// it. The headers of the checked request are not looked at.
//
// The http listener has traceparent as a header, and there is no telling whether the proxy
// in front wrote it or handed on what a client had sent, which would choose the trace and
// have itself recorded. So a trace of our own begins, with a link to what the header names,
// unless tracing.trust_traceparent says that it is the proxy's.
//
// # What it may cost
//
// A request never waits for the collector. Spans that have ended stand in a queue of a
// fixed length; what finds it full, and what could not be sent in time, is counted and
// forgotten.
package tracing

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gatehouse-auth/gatehouse/internal/tracing/traced"
)

// OpenTelemetry has one handler of errors for all, which writes to stderr in a form of its
// own. What is ours to tell, the exporter's result tells.
func init() { otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {})) }

// Options configure a [Tracer]. Endpoint is required.
type Options struct {
	Endpoint string // of the collector, for OTLP over gRPC: host:port
	// TLS is how the collector is connected to; nil: with the system's authorities.
	TLS *tls.Config
	// InsecurePlaintext connects without TLS.
	InsecurePlaintext bool
	// Headers go with each call, as gRPC metadata. Their values are secret.
	Headers map[string]string

	// Sample is how many of those requests are recorded that belong to no trace, from 0
	// to 1. Whether others are, who began the trace has decided.
	Sample float64

	ServiceName string            // "" for gatehouse
	Version     string            // of the program
	Attributes  map[string]string // of the resource: where this process runs

	Log   *slog.Logger // nil: nothing is logged
	Spans *Spans       // nil: nothing is counted
}

// Figures of the way to the collector.
const (
	queueLength   = 4096 // spans, of about 1 KiB
	batchLength   = 512
	batchTime     = time.Second
	exportTime    = 5 * time.Second // of one batch, with its retries
	reconnectTime = 5 * time.Second
	// stopTime is how long what is left may take at the end.
	stopTime = 2 * time.Second
)

// Tracer begins spans. It is safe for concurrent use.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	sample   float64
	conn     *grpc.ClientConn
	queue    *queue
}

// New returns a tracer. It doesn't connect: a collector that is down is tried again and
// again, and nobody waits for it.
func New(o Options) (*Tracer, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	security := credentials.NewTLS(o.TLS)
	if o.InsecurePlaintext {
		security = insecure.NewCredentials()
	}
	// A connection of ours, in which none of OpenTelemetry's environment variables has a say.
	// With TLS it goes through $HTTPS_PROXY, as fetches of keys do.
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithDisableServiceConfig(),
		grpc.WithUnaryInterceptor(readRefused),
		grpc.WithUserAgent("gatehouse"),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectTime},
			MinConnectTimeout: reconnectTime,
		}),
	}
	if o.InsecurePlaintext {
		// $HTTPS_PROXY is for TLS: here the proxy could read along, and is no way to a
		// collector near by.
		dial = append(dial, grpc.WithNoProxy())
	}
	conn, err := grpc.NewClient(o.Endpoint, dial...)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	headers := o.Headers
	if headers == nil {
		headers = map[string]string{}
	}
	sender := otlptracegrpc.NewUnstarted(
		otlptracegrpc.WithGRPCConn(conn),
		otlptracegrpc.WithHeaders(headers),
		otlptracegrpc.WithTimeout(exportTime),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: 500 * time.Millisecond, MaxInterval: 2 * time.Second, MaxElapsedTime: exportTime,
		}))
	if err := sender.Start(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("tracing: %w", err), conn.Close())
	}
	t := &Tracer{sample: o.Sample, conn: conn, queue: newQueue(sender, o)}
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(t.queue),
		// Where there is no parent, we have decided before.
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
			AttributeValueLengthLimit: 256, AttributeCountLimit: 64, EventCountLimit: 8, LinkCountLimit: 8,
			AttributePerEventCountLimit: 8, AttributePerLinkCountLimit: 8,
		}),
		sdktrace.WithResource(resourceOf(o)),
	)
	t.tracer = t.provider.Tracer(traced.Scope, trace.WithInstrumentationVersion(o.Version))
	return t, nil
}

// resourceOf says what sends the spans. $OTEL_RESOURCE_ATTRIBUTES adds what it doesn't
// say: the provider merges it. host.name, which is there unless somebody gives another
// one, tells replicas apart: it is a pod's name.
func resourceOf(o Options) *resource.Resource {
	for pair := range strings.SplitSeq(os.Getenv("OTEL_RESOURCE_ATTRIBUTES"), ",") {
		if strings.TrimSpace(pair) != "" && !strings.Contains(pair, "=") {
			o.Log.Warn("tracing: OTEL_RESOURCE_ATTRIBUTES is malformed, and not used in whole; write it as name=value,name=value")
			break
		}
	}
	attributes := []attribute.KeyValue{semconv.ServiceName(cmp.Or(o.ServiceName, "gatehouse"))}
	if o.Version != "" {
		attributes = append(attributes, semconv.ServiceVersion(o.Version))
	}
	if _, given := resource.Environment().Set().Value(semconv.HostNameKey); !given {
		if host, err := os.Hostname(); err == nil && host != "" {
			attributes = append(attributes, semconv.HostName(host)) // of two with a name the last one counts
		}
	}
	for name, value := range o.Attributes {
		attributes = append(attributes, attribute.String(name, value))
	}
	return resource.NewSchemaless(attributes...)
}

// Shutdown sends what is left, for a bounded time, and ends. Spans that end later are
// dropped.
func (t *Tracer) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	err := t.provider.Shutdown(ctx)
	t.queue.stop() // what is left is counted as not sent
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // the collector is away, which was told
	}
	return errors.Join(err, t.conn.Close())
}

// begins reports whether a request that belongs to no trace begins one.
func (t *Tracer) begins() bool {
	return t.sample > 0 && (t.sample >= 1 || rand.Float64() < t.sample) //nolint:gosec // G404: hides nothing
}

func noEnd() {}
