package extauthz

import (
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Requests reads a check in both ways. Only one of the errors may be nil where
// the two differ about what is a message.
func Requests(request []byte, message *authv3.CheckRequest) (fromWire, fromMessage *authz.Request, errWire, errMessage, notWire error) {
	w := &wireRequest{bytes: request}
	if notWire = w.read(); notWire == nil {
		fromWire, errWire = wireRequestOf(w)
	}
	fromMessage, errMessage = newRequest(message)
	return fromWire, fromMessage, errWire, errMessage, notWire
}

// Parts are the parts of a check.
func Parts(message *authv3.CheckRequest) authz.RequestParts { return parts(message) }
