// Package otlptest is a collector of spans for tests: it speaks OTLP over gRPC, as any
// other does, and keeps what it gets.
package otlptest

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Span is a span, ids in hexadecimal digits.
type Span struct {
	Service, Name, Kind   string   // Kind: SERVER, CLIENT, INTERNAL
	Trace, ID, Parent     string   // Parent: "" for none
	State                 string   // tracestate
	Links                 []string // trace/span
	Attributes, Resource  map[string]string
	Status, StatusMessage string // Status: OK, ERROR; "" for neither
	Begin, End            time.Time
}

func (s Span) String() string {
	return fmt.Sprintf("%s %s %q trace=%s id=%s parent=%s %s %v", s.Service, s.Kind, s.Name, s.Trace, s.ID, s.Parent, s.Status, s.Attributes)
}

// Collector is a running collector.
type Collector struct {
	collector.UnimplementedTraceServiceServer
	Addr   string
	server *grpc.Server

	mu      sync.Mutex
	spans   []Span
	headers metadata.MD
	answer  func(ctx context.Context) error
	partial *collector.ExportTracePartialSuccess
}

// Start runs a collector on an address: 127.0.0.1:0 for any port.
func Start(ctx context.Context, address string, o ...grpc.ServerOption) (*Collector, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &Collector{Addr: l.Addr().String(), server: grpc.NewServer(o...)}
	collector.RegisterTraceServiceServer(c.server, c)
	go func() { _ = c.server.Serve(l) }()
	return c, nil
}

// Stop ends it at once.
func (c *Collector) Stop() { c.server.Stop() }

// Answer has it answer so from now on, and keep nothing of what it refuses; nil: with
// success.
func (c *Collector) Answer(answer func(ctx context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// Refuse has it keep all spans from now on, and say that it refuses so many of each batch,
// and why.
func (c *Collector) Refuse(spans int64, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partial = &collector.ExportTracePartialSuccess{RejectedSpans: spans, ErrorMessage: why}
}

// Export implements the service.
func (c *Collector) Export(ctx context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	answer := c.answer
	c.headers, _ = metadata.FromIncomingContext(ctx)
	c.mu.Unlock()
	if answer != nil {
		if err := answer(ctx); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range r.GetResourceSpans() {
		resource := attributes(of.GetResource().GetAttributes())
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, spanOf(resource, s))
			}
		}
	}
	return &collector.ExportTraceServiceResponse{PartialSuccess: c.partial}, nil
}

func spanOf(resource map[string]string, s *tracev1.Span) Span {
	span := Span{
		Service: resource["service.name"], Resource: resource, Name: s.GetName(),
		Kind:  strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_"),
		Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
		State:      s.GetTraceState(),
		Attributes: attributes(s.GetAttributes()), StatusMessage: s.GetStatus().GetMessage(),
		Begin: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())), //nolint:gosec // G115: times of now
	}
	if code := s.GetStatus().GetCode(); code != tracev1.Status_STATUS_CODE_UNSET {
		span.Status = strings.TrimPrefix(code.String(), "STATUS_CODE_")
	}
	for _, l := range s.GetLinks() {
		span.Links = append(span.Links, hex.EncodeToString(l.GetTraceId())+"/"+hex.EncodeToString(l.GetSpanId()))
	}
	return span
}

func attributes(list []*commonv1.KeyValue) map[string]string {
	m := make(map[string]string, len(list))
	for _, a := range list {
		switch v := a.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			m[a.GetKey()] = v.StringValue
		case *commonv1.AnyValue_IntValue:
			m[a.GetKey()] = fmt.Sprint(v.IntValue)
		default:
			m[a.GetKey()] = a.GetValue().String()
		}
	}
	return m
}

// Spans are those that came so far.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Headers are the metadata of the last call.
func (c *Collector) Headers() metadata.MD {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.headers
}

// Find returns the first span that is as wanted.
func (c *Collector) Find(wanted func(Span) bool) (Span, bool) {
	all := c.Spans()
	if i := slices.IndexFunc(all, wanted); i >= 0 {
		return all[i], true
	}
	return Span{}, false
}
