package extauthz

import (
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// okResponse lets the request through with exactly these headers set and
// those removed.
func okResponse(d *authz.Decision, set []authz.Header, remove []string) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers:         overwrite(set),
			HeadersToRemove: remove,
			// In the place of what the service says of its own: it doesn't know.
			ResponseHeadersToAdd: overwrite(d.ClientHeaders()),
		}},
		DynamicMetadata: metadata(d, "allow"),
	}
}

// deniedResponse refuses the request. Its status is never OK, whatever the
// answer: Envoy would let the request through.
func deniedResponse(d *authz.Decision, a authz.Answer) *authv3.CheckResponse {
	headers := []authz.Header{{Name: "cache-control", Value: "no-store"}}
	if a.Body != "" {
		headers = append(headers, authz.Header{Name: "content-type", Value: "application/json"})
	}
	if a.WWWAuthenticate != "" {
		headers = append(headers, authz.Header{Name: "www-authenticate", Value: a.WWWAuthenticate})
	}
	if a.RetryAfter > 0 {
		headers = append(headers, authz.Header{Name: "retry-after", Value: strconv.Itoa(a.RetryAfter)})
	}
	if a.RateLimit != "" {
		headers = append(headers,
			authz.Header{Name: authz.HeaderRateLimitPolicy, Value: a.RateLimitPolicy},
			authz.Header{Name: authz.HeaderRateLimit, Value: a.RateLimit})
	}
	if a.Location != "" {
		headers = append(headers, authz.Header{Name: "location", Value: a.Location})
	}
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(refusalCode(a.Status))}, //nolint:gosec // G115: codes end at 16
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(a.Status)}, //nolint:gosec // G115: three digits
			Headers: overwrite(headers),
			Body:    a.Body,
		}},
		DynamicMetadata: metadata(d, "deny"),
	}
}

// refusalCode is the gRPC status beside an HTTP status. It never returns OK.
func refusalCode(status int) codes.Code {
	switch status {
	case 400:
		return codes.InvalidArgument
	case 302, 401:
		return codes.Unauthenticated
	case 429:
		return codes.ResourceExhausted
	case 503:
		return codes.Unavailable
	}
	return codes.PermissionDenied
}

// overwrite says "replace what the client sent" in the way that every Envoy
// version reads: left to their defaults, versions differ between replacing
// and appending.
func overwrite(headers []authz.Header) []*corev3.HeaderValueOption {
	options := make([]*corev3.HeaderValueOption, len(headers))
	for i, h := range headers {
		options[i] = &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: h.Name, Value: h.Value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}
	}
	return options
}

// metadata is [metadataOf] as a message.
func metadata(d *authz.Decision, decision string) *structpb.Struct {
	fields := map[string]*structpb.Value{}
	for _, f := range metadataOf(d, decision, nil) {
		fields[f.name] = structpb.NewStringValue(f.value)
	}
	return &structpb.Struct{Fields: fields}
}
