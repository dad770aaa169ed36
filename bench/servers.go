package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/redis/go-redis/v9"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Arguments that make this program one of the servers that Gatehouse is
// compared with (or a replica, see there). The first further argument is where
// to listen, host:port or unix:///path; the second one of the usual server is
// where Redis is.
const (
	noopCommand  = "noop"
	replyCommand = "reply"
	usualCommand = "usual"
)

// isServer reports whether the arguments ask for a server.
func isServer(args []string) bool {
	return len(args) > 0 && slices.Contains([]string{noopCommand, replyCommand, usualCommand, replicaCommand}, args[0])
}

// listeningOn is what a server prints before its address.
const listeningOn = "listening on "

// runServer serves until ctx is done.
func runServer(ctx context.Context, args []string, stdout io.Writer) error {
	var check authv3.AuthorizationServer
	switch {
	case args[0] == replicaCommand:
		return runReplica(ctx, args, stdout)
	case len(args) == 2 && args[0] == noopCommand:
		check = noopServer{}
	case len(args) == 2 && args[0] == replyCommand:
		check = replyServer{reply: fullReply()}
	case len(args) == 3 && args[0] == usualCommand:
		rdb := redis.NewClient(&redis.Options{Addr: args[2]})
		defer func() { _ = rdb.Close() }()
		check = usualServer{redis: rdb}
	default:
		return fmt.Errorf("usage: bench %s|%s ADDRESS, or bench %s ADDRESS REDIS", noopCommand, replyCommand, usualCommand)
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

// replyServer is the no-op server with a reply as Gatehouse gives it, the same for
// everybody: what of Envoy's work, and of grpc-go's, is for that.
type replyServer struct {
	authv3.UnimplementedAuthorizationServer
	reply *authv3.CheckResponse
}

func (s replyServer) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return s.reply, nil
}

func fullReply() *authv3.CheckResponse {
	names := authz.DefaultIdentityHeaders
	ok := okWith(
		header{names.ID, "user-123"}, header{names.Email, "user-123@example.com"},
		header{names.Roles, `["member","sales"]`}, header{names.Organization, "org-1"},
	)
	for _, spelling := range names.ClientSpellings() {
		if !slices.Contains([]string{names.ID, names.Email, names.Roles, names.Organization}, spelling) {
			ok.HeadersToRemove = append(ok.HeadersToRemove, spelling)
		}
	}
	metadata, err := structpb.NewStruct(map[string]any{
		"decision": "allow", "reason": string(authz.ReasonAuthenticated), "policy": "session", "credential": string(authz.KindSession),
		"user": "user-123", "organization": "org-1",
	})
	if err != nil {
		panic(err) // of texts only
	}
	return &authv3.CheckResponse{
		Status:          &rpcstatus.Status{Code: int32(codes.OK)},
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: metadata,
	}
}

type header struct{ key, value string }

// okWith lets a request through with these headers in place of others.
func okWith(headers ...header) *authv3.OkHttpResponse {
	ok := &authv3.OkHttpResponse{}
	for _, h := range headers {
		ok.Headers = append(ok.Headers, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: h.key, Value: h.value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return ok
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
	ok := okWith(
		header{"x-user-id", u.ID}, header{"x-user-email", u.Email},
		header{"x-user-roles", string(roles)}, header{"x-org-id", u.Organization},
	)
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
