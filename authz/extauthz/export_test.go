package extauthz

import (
	"context"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// CheckWire answers a check in wire format, as the codec has it answered.
func CheckWire(ctx context.Context, s *Server, request []byte) ([]byte, error) {
	w := wireRequests.Get().(*wireRequest)
	defer w.release()
	if err := w.read(request); err != nil {
		return nil, err
	}
	return s.check(ctx, w).bytes, nil
}

// Requests reads a check in both ways. Only one of the errors may be nil where
// the two differ about what is a message.
func Requests(request []byte, message *authv3.CheckRequest) (fromWire, fromMessage *authz.Request, errWire, errMessage, notWire error) {
	w := &wireRequest{}
	if notWire = w.read(request); notWire == nil {
		fromWire, errWire = wireRequestOf(w)
	}
	fromMessage, errMessage = newRequest(message)
	return fromWire, fromMessage, errWire, errMessage, notWire
}
