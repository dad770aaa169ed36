package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/redis/go-redis/v9"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// Arguments that make this program one of the two servers that Gatehouse is
// compared with. The first further argument is where to listen, host:port or
// unix:///path; the second one of the usual server is where Redis is.
const (
	noopCommand  = "noop"
	usualCommand = "usual"
)

// isServer reports whether the arguments ask for a server.
func isServer(args []string) bool {
	return len(args) > 0 && (args[0] == noopCommand || args[0] == usualCommand)
}

// listeningOn is what a server prints before its address.
const listeningOn = "listening on "

// runServer serves until ctx is done.
func runServer(ctx context.Context, args []string, stdout io.Writer) error {
	var check authv3.AuthorizationServer
	switch {
	case len(args) == 2 && args[0] == noopCommand:
		check = noopServer{}
	case len(args) == 3 && args[0] == usualCommand:
		rdb := redis.NewClient(&redis.Options{Addr: args[2]})
		defer func() { _ = rdb.Close() }()
		check = usualServer{redis: rdb}
	default:
		return fmt.Errorf("usage: bench %s ADDRESS, or bench %s ADDRESS REDIS", noopCommand, usualCommand)
	}
	network, address := "tcp", args[1]
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		network, address = "unix", path
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, check)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if _, err := fmt.Fprintf(stdout, "%s%s\n", listeningOn, l.Addr()); err != nil {
		return err
	}
	return server.Serve(l)
}

// noopServer allows everything without a look at it: what any ext_authz server
// written with grpc-go costs at least.
type noopServer struct {
	authv3.UnimplementedAuthorizationServer
}

func (noopServer) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
	}, nil
}

// usualServer is the check server that people write: the session's id from the
// cookie, one GET with go-redis as it comes, the JSON decoded, four headers. To
// its favour it does less than it should: it verifies no signature, knows no
// revocation, canonicalizes nothing and removes nobody's other spellings.
type usualServer struct {
	authv3.UnimplementedAuthorizationServer
	redis *redis.Client
}

func (s usualServer) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	id := sessionID(cookieHeader(req.GetAttributes().GetRequest().GetHttp()))
	if id == "" {
		return refuse(typev3.StatusCode_Unauthorized, codes.Unauthenticated), nil
	}
	record, err := s.redis.Get(ctx, sessionPrefix+id).Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return refuse(typev3.StatusCode_Unauthorized, codes.Unauthenticated), nil
	case err != nil:
		return refuse(typev3.StatusCode_ServiceUnavailable, codes.Unavailable), nil
	}
	var u identity
	if err := json.Unmarshal(record, &u); err != nil || u.ID == "" {
		return refuse(typev3.StatusCode_Unauthorized, codes.Unauthenticated), nil
	}
	roles, err := json.Marshal(u.Roles)
	if err != nil {
		return nil, err
	}
	ok := &authv3.OkHttpResponse{}
	for _, h := range [...]struct{ key, value string }{
		{"x-user-id", u.ID}, {"x-user-email", u.Email}, {"x-user-roles", string(roles)}, {"x-org-id", u.Organization},
	} {
		ok.Headers = append(ok.Headers, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: h.key, Value: h.value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
	}, nil
}

func refuse(status typev3.StatusCode, code codes.Code) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status:       &rpcstatus.Status{Code: int32(code)}, //nolint:gosec // G115: codes end at 16
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: status}}},
	}
}

// cookieHeader finds the header in either form in which Envoy sends headers.
func cookieHeader(http *authv3.AttributeContext_HttpRequest) string {
	for _, h := range http.GetHeaderMap().GetHeaders() {
		if h.GetKey() == "cookie" {
			if raw := h.GetRawValue(); len(raw) > 0 {
				return string(raw)
			}
			return h.GetValue()
		}
	}
	return http.GetHeaders()["cookie"]
}

// sessionID returns the id in the session's cookie without a look at its
// signature, "" when there is none.
func sessionID(cookies string) string {
	for cookie := range strings.SplitSeq(cookies, ";") {
		value, ok := strings.CutPrefix(strings.TrimSpace(cookie), cookieName+"=")
		if !ok {
			continue
		}
		decoded, err := url.QueryUnescape(value)
		if err != nil {
			return ""
		}
		signed, ok := strings.CutPrefix(decoded, "s:")
		if !ok {
			return ""
		}
		id, _, _ := strings.Cut(signed, ".")
		return id
	}
	return ""
}
