package extauthz

import (
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// policyExtension is the context extension by which an Envoy route names its
// policy.
const policyExtension = "policy"

// newRequest brings a check into canonical form. Method, path and host come
// from the request attributes: gateways may leave the pseudo-headers out.
func newRequest(req *authv3.CheckRequest) (*authz.Request, error) {
	attributes := req.GetAttributes()
	http := attributes.GetRequest().GetHttp()
	policy, hasPolicy := attributes.GetContextExtensions()[policyExtension]
	r, err := authz.NewRequest(authz.RequestParts{
		Method:        http.GetMethod(),
		Authority:     http.GetHost(),
		Target:        http.GetPath(),
		Address:       address(attributes.GetSource().GetAddress()),
		Headers:       headers(http),
		PolicyName:    policy,
		HasPolicyName: hasPolicy,
	})
	if http == nil {
		return r, authz.Refuse(authz.ReasonBadRequest, "the check holds no HTTP request")
	}
	return r, err
}

// address returns the peer's address as Envoy reports it, the zero Addr for a
// Unix socket or none.
func address(a *corev3.Address) netip.Addr {
	addr, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// headers reads either of Envoy's forms: the map, or the list that
// encode_raw_headers makes.
func headers(http *authv3.AttributeContext_HttpRequest) authz.Headers {
	if raw := http.GetHeaderMap().GetHeaders(); len(raw) > 0 {
		return rawHeaders(raw)
	}
	return authz.HeaderMap(http.GetHeaders())
}

// rawHeaders joins what is repeated by commas, as Envoy does for the map.
type rawHeaders []*corev3.HeaderValue

func (h rawHeaders) Header(name string) (string, bool) {
	var (
		value string
		more  []string
		found bool
	)
	for _, header := range h {
		if header.GetKey() != name {
			continue
		}
		v := header.GetValue()
		if len(header.GetRawValue()) > 0 {
			v = string(header.GetRawValue())
		}
		if found {
			more = append(more, v)
			continue
		}
		value, found = v, true
	}
	if more == nil {
		return value, found
	}
	return value + "," + strings.Join(more, ","), true
}
