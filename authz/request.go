package authz

import (
	"iter"
	"maps"
	"net/netip"
	"strings"
)

// Headers gives a request's headers by lower-case name. Repeated headers are
// one value, joined by commas, as Envoy joins them; so both of Envoy's
// header forms, and any other door, lead to the same decision.
type Headers interface {
	// Header returns the value, and whether the header is there at all.
	Header(name string) (value string, ok bool)
	// All yields each header once, in no particular order.
	All() iter.Seq2[string, string]
}

// HeaderMap is [Headers] over a map from lower-case names.
type HeaderMap map[string]string

// Header implements [Headers].
func (m HeaderMap) Header(name string) (string, bool) {
	v, ok := m[name]
	return v, ok
}

// All implements [Headers].
func (m HeaderMap) All() iter.Seq2[string, string] { return maps.All(m) }

// Request is the canonical request. Doors build it with [NewRequest].
type Request struct {
	Method    string // upper case
	Authority string // host as it was sent, port included
	Host      string // lower case, without port and trailing dot
	Path      string // decoded once, for matching; never what is forwarded
	RawPath   string // as it was sent, without the query
	Query     string // as it was sent, without the question mark
	Address   netip.Addr
	Headers   Headers
	// PolicyName is the policy that the gateway's route names, with
	// HasPolicyName true; an empty name that is given is still a name.
	PolicyName    string
	HasPolicyName bool
	// Audience is the service that the gateway's route names, for [Assertion].FromRoute;
	// HasAudience is as HasPolicyName.
	Audience    string
	HasAudience bool
}

// RequestParts is a request as a door received it, nothing interpreted.
type RequestParts struct {
	Method        string
	Authority     string // Host header or :authority
	Target        string // raw path with the query in it
	Address       netip.Addr
	Headers       Headers
	PolicyName    string
	HasPolicyName bool
	Audience      string
	HasAudience   bool
}

// NewRequest brings the parts into canonical form, or refuses with
// ReasonBadPath or ReasonBadHost what two servers could read differently. It
// always returns a Request, as far as it got, for the log.
func NewRequest(p RequestParts) (*Request, error) {
	r := &Request{}
	return r, r.Read(p)
}

// Read does as [NewRequest] does, in a request that is used again.
func (r *Request) Read(p RequestParts) error {
	*r = Request{
		Method:        strings.ToUpper(p.Method),
		Authority:     p.Authority,
		Address:       p.Address,
		Headers:       p.Headers,
		PolicyName:    p.PolicyName,
		HasPolicyName: p.HasPolicyName,
		Audience:      p.Audience,
		HasAudience:   p.HasAudience,
	}
	if r.Headers == nil {
		r.Headers = HeaderMap(nil)
	}
	r.RawPath, r.Query, _ = strings.Cut(p.Target, "?")
	var err error
	if r.Host, err = CanonicalHost(p.Authority); err != nil {
		return err
	}
	if r.Path, err = CanonicalPath(r.RawPath); err != nil {
		return err
	}
	if i := indexControl(r.Query); i >= 0 {
		return Refuse(ReasonBadPath, "control byte in the query at offset %d", i)
	}
	if strings.IndexByte(r.Query, '#') >= 0 {
		return Refuse(ReasonBadPath, "fragment in the request target")
	}
	return nil
}

func (r *Request) header(name string) string {
	v, _ := r.Headers.Header(name)
	return v
}

// SafeMethod reports whether the method is one that, by RFC 9110 section
// 9.2.1, changes nothing.
func (r *Request) SafeMethod() bool {
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return true
	}
	return false
}
