package extauthz

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// policyExtension is the context extension by which an Envoy route names its
// policy.
const policyExtension = "policy"

// audienceExtension is the one by which it names the service for which the identity is
// signed, where the policy asks the route.
const audienceExtension = "assertion_audience"

// newRequest brings a check into canonical form. Method, path and host come
// from the request attributes: gateways may leave the pseudo-headers out.
func newRequest(req *authv3.CheckRequest) (*authz.Request, error) {
	r, err := authz.NewRequest(parts(req))
	if req.GetAttributes().GetRequest().GetHttp() == nil {
		return r, errNoHTTP()
	}
	return r, err
}

func parts(req *authv3.CheckRequest) authz.RequestParts {
	attributes := req.GetAttributes()
	http := attributes.GetRequest().GetHttp()
	policy, hasPolicy := attributes.GetContextExtensions()[policyExtension]
	audience, hasAudience := attributes.GetContextExtensions()[audienceExtension]
	return authz.RequestParts{
		Method:        http.GetMethod(),
		Authority:     http.GetHost(),
		Target:        http.GetPath(),
		Address:       address(attributes.GetSource().GetAddress()),
		Headers:       headers(http),
		PolicyName:    policy,
		HasPolicyName: hasPolicy,
		Audience:      audience,
		HasAudience:   hasAudience,
	}
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
	list := http.GetHeaderMap().GetHeaders()
	if len(list) == 0 {
		return authz.HeaderMap(lowerCased(http.GetHeaders()))
	}
	fields := make([]headerField, len(list))
	for i, h := range list {
		fields[i] = headerField{name: h.GetKey(), value: h.GetValue(), raw: string(h.GetRawValue())}
	}
	return &wireHeaders{fields: fields, list: true}
}

// lowerCased returns the map with names in lower case: as it is, when it came
// from Envoy.
func lowerCased(headers map[string]string) map[string]string {
	upper := func(r rune) bool { return 'A' <= r && r <= 'Z' }
	for name := range headers {
		if !strings.ContainsFunc(name, upper) {
			continue
		}
		lower := make(map[string]string, len(headers))
		for _, name := range slices.Sorted(maps.Keys(headers)) {
			key := strings.ToLower(name)
			if earlier, again := lower[key]; again {
				lower[key] = earlier + "," + headers[name]
				continue
			}
			lower[key] = headers[name]
		}
		return lower
	}
	return headers
}

// sanitized replaces each byte that is not part of valid UTF-8, one by one.
func sanitized(raw string) string {
	if utf8.ValidString(raw) {
		return raw
	}
	b := []byte(raw)
	for i := 0; i < len(b); {
		_, n := utf8.DecodeRuneInString(raw[i:])
		if c := raw[i]; n == 1 && c >= utf8.RuneSelf {
			b[i] = '!'
		}
		i += n
	}
	return string(b)
}
