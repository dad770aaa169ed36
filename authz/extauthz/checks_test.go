package extauthz_test

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
)

// header is one header line as it came over the wire; names are lower-case.
type header struct{ name, value string }

// check is a request as Envoy would ask about it.
type check struct {
	method, host, path string
	headers            []header
	policy, audience   *string // the route's context extensions
}

// get is a GET of app.example.com; headers are name, value, name, value.
func get(path string, headers ...string) check { return request("GET", path, headers...) }

func request(method, path string, headers ...string) check {
	c := check{method: method, host: "app.example.com", path: path}
	for i := 0; i < len(headers); i += 2 {
		c.headers = append(c.headers, header{headers[i], headers[i+1]})
	}
	return c
}

func named(policy string, c check) check {
	c.policy = &policy
	return c
}

// forService is a check whose route names the service.
func forService(audience string, c check) check {
	c.audience = &audience
	return c
}

func (c check) request() *authv3.CheckRequest {
	attributes := &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.7", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 40000}},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: c.method, Host: c.host, Path: c.path, Scheme: "https", Protocol: "HTTP/1.1",
		}},
	}
	for name, value := range map[string]*string{"policy": c.policy, "assertion_audience": c.audience} {
		if value != nil {
			if attributes.ContextExtensions == nil {
				attributes.ContextExtensions = map[string]string{}
			}
			attributes.ContextExtensions[name] = *value
		}
	}
	return &authv3.CheckRequest{Attributes: attributes}
}

// asMap is the check in Envoy's default form: a map, repeated headers joined,
// bytes that are not UTF-8 replaced.
func (c check) asMap() *authv3.CheckRequest {
	req := c.request()
	headers := map[string]string{":method": c.method, ":path": c.path, ":authority": c.host}
	for _, h := range c.headers {
		if before, ok := headers[h.name]; ok {
			headers[h.name] = before + "," + bangs(h.value)
		} else {
			headers[h.name] = bangs(h.value)
		}
	}
	req.GetAttributes().GetRequest().GetHttp().Headers = headers
	return req
}

// asList is the check with encode_raw_headers: every header line by itself, as
// bytes.
func (c check) asList() *authv3.CheckRequest {
	req := c.request()
	list := []*corev3.HeaderValue{
		{Key: ":method", RawValue: []byte(c.method)}, {Key: ":path", RawValue: []byte(c.path)}, {Key: ":authority", RawValue: []byte(c.host)},
	}
	for _, h := range c.headers {
		list = append(list, &corev3.HeaderValue{Key: h.name, RawValue: []byte(h.value)})
	}
	req.GetAttributes().GetRequest().GetHttp().HeaderMap = &corev3.HeaderMap{Headers: list}
	return req
}

// bangs replaces bytes that are not UTF-8 as Envoy does.
func bangs(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if c, n := utf8.DecodeRuneInString(s); c == utf8.RuneError && n == 1 {
			b.WriteByte('!')
			s = s[1:]
		} else {
			b.WriteString(s[:n])
			s = s[n:]
		}
	}
	return b.String()
}

// ask asks in both forms, asserts that the replies are the same and hold what
// every reply promises, and returns the reply.
func ask(tb testing.TB, s *extauthz.Server, c check) *authv3.CheckResponse {
	tb.Helper()
	return askOf(tb, newAuthorizerOf, s, c)
}

// askOf is ask, of a server with an authorizer that newAuthorizer makes.
func askOf(tb testing.TB, newAuthorizer func(testing.TB, directory) *authz.Authorizer, s *extauthz.Server, c check) *authv3.CheckResponse {
	tb.Helper()
	list := askOnceOf(tb, newAuthorizer, s, c.asList())
	asMap := askOnceOf(tb, newAuthorizer, s, c.asMap())
	require.Equal(tb, stable(tb, asMap), stable(tb, list), "the two header forms give different replies")
	return asMap
}

func askOnce(tb testing.TB, s *extauthz.Server, req *authv3.CheckRequest) *authv3.CheckResponse {
	tb.Helper()
	return askOnceOf(tb, newAuthorizerOf, s, req)
}

func askOnceOf(tb testing.TB, newAuthorizer func(testing.TB, directory) *authz.Authorizer, s *extauthz.Server, req *authv3.CheckRequest) *authv3.CheckResponse {
	tb.Helper()
	authorizer := newAuthorizer(tb, knowing{everybody})
	response, err := s.Check(tb.Context(), req)
	require.NoError(tb, err, "Envoy makes an allow of it under failure_mode_allow")
	requireSound(tb, response, authorizer.ExtraHeaders()...)
	sameInWire(tb, s, req, response)

	// The same from memory, where a reply is written in yet another way.
	for _, strip := range []bool{false, true} {
		var told []authz.Reason
		quick := extauthz.NewServer(authorizer, extauthz.Options{
			MaxHeaderBytes: 8192, Recorder: reasons{&told}, StripCredentials: strip, SessionCookie: "sessionId",
		})
		want, err := quick.Check(tb.Context(), req)
		require.NoError(tb, err)
		sameInWire(tb, quick, req, want)
		if len(told) == 2 { // else no client can send it
			require.Equal(tb, told[0], told[1])
		} else {
			require.Len(tb, told, 1)
		}
	}
	return response
}

// reasons collects those of decisions.
type reasons struct{ all *[]authz.Reason }

func (r reasons) Record(_ context.Context, _ *authz.Request, d *authz.Decision, _ error, _ time.Duration) {
	*r.all = append(*r.all, d.Reason)
}

// sameInWire asserts that the bytes of the request get the bytes of the reply.
func sameInWire(tb testing.TB, s *extauthz.Server, req *authv3.CheckRequest, want *authv3.CheckResponse) {
	tb.Helper()
	data, err := proto.Marshal(req)
	if err != nil {
		return // no client can send it
	}
	reply, err := s.Answer(tb.Context(), data, nil)
	require.NoError(tb, err)
	got := &authv3.CheckResponse{}
	require.NoError(tb, proto.Unmarshal(reply, got))
	require.Equal(tb, stable(tb, want), stable(tb, got))
	require.Len(tb, reply, proto.Size(got), "nothing is written in two ways")
}

// requireSound asserts what every reply promises, whatever was asked; some policy
// adds the extra headers.
func requireSound(tb testing.TB, response *authv3.CheckResponse, extra ...string) {
	tb.Helper()
	_, err := proto.Marshal(response)
	require.NoError(tb, err, "a reply that can't be sent is a gRPC error")
	require.NotNil(tb, response.GetStatus())
	metadata := response.GetDynamicMetadata().GetFields()
	require.NotEmpty(tb, metadata["reason"].GetStringValue())

	var headers []*corev3.HeaderValueOption
	switch code := codes.Code(response.GetStatus().GetCode()); arm := response.GetHttpResponse().(type) {
	case *authv3.CheckResponse_OkResponse:
		require.Equal(tb, codes.OK, code)
		require.Equal(tb, "allow", metadata["decision"].GetStringValue())
		headers = arm.OkResponse.GetHeaders()
		requireIdentitySettled(tb, arm.OkResponse, extra)
		for _, h := range arm.OkResponse.GetResponseHeadersToAdd() {
			require.Contains(tb, []string{"ratelimit-policy", "ratelimit"}, h.GetHeader().GetKey())
			headers = append(headers, h)
		}
	case *authv3.CheckResponse_DeniedResponse:
		require.NotEqual(tb, codes.OK, code, "Envoy lets the request through")
		require.LessOrEqual(tb, code, codes.Unauthenticated)
		require.Equal(tb, "deny", metadata["decision"].GetStringValue())
		status := int(arm.DeniedResponse.GetStatus().GetCode())
		require.Contains(tb, []int{302, 400, 401, 403, 429, 503}, status)
		headers = arm.DeniedResponse.GetHeaders()
		set := headerValues(headers)
		require.Equal(tb, "no-store", set["cache-control"])
		require.NotContains(tb, set, "set-cookie", "no refusal clears a cookie")
		require.Equal(tb, status == 429 || status == 503, set["retry-after"] != "")
		require.Equal(tb, status == 302, set["location"] != "")
		if status != 302 {
			require.Equal(tb, "application/json", set["content-type"])
			require.True(tb, json.Valid([]byte(arm.DeniedResponse.GetBody())))
		}
	default:
		require.Failf(tb, "no arm", "%T", arm)
	}
	names := map[string]bool{}
	for _, h := range headers {
		require.Equal(tb, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, h.GetAppendAction())
		require.Nil(tb, h.GetAppend(), "the deprecated field wins over append_action") //nolint:staticcheck // SA1019: that it is not set is what is tested
		require.Empty(tb, h.GetHeader().GetRawValue(), "Envoy reads value only")
		name := h.GetHeader().GetKey()
		require.False(tb, names[name], "%s is set twice", name)
		names[name] = true
		require.NotContains(tb, h.GetHeader().GetValue(), "\n")
		require.NotContains(tb, h.GetHeader().GetValue(), "\r")
	}
}

// identityHeaders are those that only Gatehouse may set.
var identityHeaders = []string{"x-user-id", "x-user-email", "x-user-roles", "x-org-id"}

// requireIdentitySettled asserts that each header of ours is either set or
// removed, that every other spelling is removed, and that nothing is both.
func requireIdentitySettled(tb testing.TB, ok *authv3.OkHttpResponse, extra []string) {
	tb.Helper()
	set, removed := headerValues(ok.GetHeaders()), ok.GetHeadersToRemove()
	ours := append(slices.Clone(extra), identityHeaders...)
	spellings := append(authz.DefaultIdentityHeaders.ClientSpellings(), extra...)
	require.Contains(tb, extra, "x-identity-assertion")
	spellings = append(spellings, "x_identity_assertion", "x_identity-assertion", "x-identity_assertion")
	if len(extra) > 1 {
		require.Equal(tb, []string{"x-identity-assertion", "x-kind", "x-plan", "x-scope", "x-seats", "x-tags", "x-tenant-id"}, extra)
		spellings = append(spellings, "x_kind", "x_plan", "x_scope", "x_seats", "x_tags", "x_tenant-id", "x-tenant_id", "x_tenant_id")
	}
	for _, name := range spellings {
		_, isSet := set[name]
		require.Equal(tb, !isSet, slices.Contains(removed, name), "%s", name)
		require.False(tb, isSet && !slices.Contains(ours, name), "%s", name)
	}
	for name := range set {
		require.NotContains(tb, removed, name, "set and removed")
		require.True(tb, slices.Contains(ours, name) || name == "cookie", "%s is set", name)
	}
	require.NotContains(tb, removed, "", "an empty name")
	require.Len(tb, slices.Compact(slices.Sorted(slices.Values(removed))), len(removed), "removed twice")
	for name := range set {
		if name == "cookie" {
			continue
		}
		for i := range len(set[name]) {
			c := set[name][i]
			require.True(tb, c > ' ' && c < 0x7f, "%s has byte %#02x", name, c)
		}
	}
	if _, known := set["x-user-id"]; known {
		require.True(tb, json.Valid([]byte(set["x-user-roles"])), "roles are there with every identity")
	} else {
		require.NotContains(tb, set, "x-user-roles")
	}
}

func headerValues(headers []*corev3.HeaderValueOption) map[string]string {
	values := make(map[string]string, len(headers))
	for _, h := range headers {
		values[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	return values
}

// stable is the JSON form of a message, the same every time: protojson varies
// its white space on purpose.
func stable(tb testing.TB, m proto.Message) string {
	tb.Helper()
	text, err := protojson.Marshal(m)
	require.NoError(tb, err)
	var b bytes.Buffer
	require.NoError(tb, json.Indent(&b, text, "", "  "))
	return b.String() + "\n"
}

// answer is what a reply comes down to.
func answer(response *authv3.CheckResponse) string {
	reason := response.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
	if denied := response.GetDeniedResponse(); denied != nil {
		return denied.GetStatus().GetCode().String() + " " + reason
	}
	return "allow " + headerValues(response.GetOkResponse().GetHeaders())["x-user-id"]
}
