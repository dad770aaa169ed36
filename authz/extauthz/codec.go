package extauthz

import (
	"context"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of all other methods
	"google.golang.org/grpc/mem"
)

// ServerOption is for the gRPC server with which a [Server] is registered: it
// has checks read and answered as bytes. Other services on it, such as health
// and reflection, go the ordinary way.
func ServerOption() grpc.ServerOption {
	return grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")})
}

// Register registers the service on a gRPC server that was made with
// [ServerOption].
func Register(r grpc.ServiceRegistrar, s *Server) { register(r, s, nil) }

// RegisterDoor is [Register] for servers that follow each other. The admission may
// be nil: then nothing is shed.
func RegisterDoor(r grpc.ServiceRegistrar, d *Door, a *Admission) { register(r, d, a) }

func register(r grpc.ServiceRegistrar, s answerer, a *Admission) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
		HandlerType: (*answerer)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: handler(a)}},
		Metadata:    authv3.Authorization_ServiceDesc.Metadata,
	}, s)
}

const checkMethod = authv3.Authorization_Check_FullMethodName

// answerer is what answers checks as bytes.
type answerer interface {
	answer(ctx context.Context, w *wireRequest, to []byte) []byte
}

// handler is the method of the service, behind an admission.
func handler(a *Admission) grpc.MethodHandler {
	if a == nil {
		return handle
	}
	return func(s any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		ctx, waited, reply, err := a.turn(ctx)
		switch {
		case err != nil:
			return nil, err
		case reply != nil:
			return reply, nil
		}
		return handleAfter(waited, s, ctx, decode, interceptor)
	}
}

// handle is the method of the service.
func handle(s any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // grpc's order
	return handleAfter(0, s, ctx, decode, interceptor)
}

// handleAfter is handle, of a check that waited for its turn.
func handleAfter(waited time.Duration, s any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // grpc's order
	w := wireRequests.Get().(*wireRequest)
	defer w.release()
	w.waited = waited
	if err := decode(w); err != nil {
		return nil, err
	}
	answer := func(ctx context.Context, _ any) (any, error) {
		r := wireReplies.Get().(*wireReply)
		r.bytes = s.(answerer).answer(ctx, w, r.bytes[:0])
		return r, nil
	}
	if interceptor == nil {
		return answer(ctx, w)
	}
	info := &grpc.UnaryServerInfo{Server: s, FullMethod: checkMethod}
	return interceptor(ctx, w, info, answer)
}

// codec reads and writes what [handle] has; all else as grpc does.
type codec struct{ encoding.CodecV2 }

// Unmarshal implements [encoding.CodecV2].
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	w, ok := v.(*wireRequest)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	for _, part := range data {
		w.bytes = append(w.bytes, part.ReadOnlyData()...)
	}
	return w.read()
}

// Marshal implements [encoding.CodecV2].
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	r, ok := v.(*wireReply)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	return mem.BufferSlice{mem.NewBuffer(&r.bytes, replyPool{r})}, nil
}

// wireReply is a CheckResponse in bytes. It is used again when grpc has sent it.
type wireReply struct{ bytes []byte }

var wireReplies = sync.Pool{New: func() any { return &wireReply{bytes: make([]byte, 0, replySize)} }}

// replySize is the capacity of a reply. It must be above what grpc is willing to
// give back (mem.IsBelowBufferPoolingThreshold).
const replySize = 2 << 10

// replyPool takes a reply back.
type replyPool struct{ r *wireReply }

// Get implements [mem.BufferPool], and is not called.
func (replyPool) Get(length int) *[]byte { b := make([]byte, length); return &b }

// Put implements [mem.BufferPool].
func (p replyPool) Put(*[]byte) {
	if cap(p.r.bytes) <= 16<<10 {
		wireReplies.Put(p.r)
	}
}
