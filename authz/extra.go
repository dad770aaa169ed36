package authz

import (
	"fmt"
	"slices"
	"strings"
)

// Extra is something that a policy tells of the principal beyond the identity: by a
// header to the service, or by a field of the metadata to the gateway.
type Extra struct {
	Name string // of the header, in lower case, or of the field
	From Attribute
}

// MetadataFields are the names of the metadata that every decision has, or may
// have. An extra field can't have one of them.
var MetadataFields = []string{"decision", "reason", "policy", "credential", "would_deny", "user", "organization", "degraded"}

// checkExtras says what is wrong with the extras of a policy.
func (p *Policy) checkExtras() error {
	for i, e := range p.Headers {
		other := strings.ContainsFunc(e.Name, func(c rune) bool { return c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') })
		switch {
		case e.Name == "" || other || e.Name == HeaderAPIKey || e.Name == HeaderAssertion || e.From == Attribute{}:
			return fmt.Errorf("policy %q: header %q: wants a name in lower-case letters, digits and hyphens that means nothing yet, and an attribute", p.Name, e.Name)
		case slices.ContainsFunc(p.Headers[:i], func(earlier Extra) bool { return earlier.Name == e.Name }):
			return fmt.Errorf("policy %q: header %q is there twice", p.Name, e.Name)
		}
	}
	for i, e := range p.Metadata {
		switch {
		case e.Name == "" || slices.Contains(MetadataFields, e.Name) || e.From == Attribute{}:
			return fmt.Errorf("policy %q: metadata %q: wants a name that means nothing yet, and an attribute", p.Name, e.Name)
		case slices.ContainsFunc(p.Metadata[:i], func(earlier Extra) bool { return earlier.Name == e.Name }):
			return fmt.Errorf("policy %q: metadata %q is there twice", p.Name, e.Name)
		}
	}
	return nil
}

// tell fills in what the policy tells of the principal of a request that passes. The
// error refuses the request, of which nothing is told then.
func (a *Authorizer) tell(t *Trace, r *Request, d *Decision) error {
	if d.Principal == nil {
		return nil
	}
	if d.Policy.Assertion.wanted() {
		if err := a.assert(t, r, d); err != nil {
			return err
		}
	}
	for i := range d.Policy.Headers {
		e := &d.Policy.Headers[i]
		if v := e.From.header(d.Principal); v != "" {
			d.Extra = append(d.Extra, Header{e.Name, v})
		}
	}
	for i := range d.Policy.Metadata {
		e := &d.Policy.Metadata[i]
		if v := e.From.text(d.Principal); v != "" {
			d.Metadata = append(d.Metadata, Header{e.Name, v})
		}
	}
	return nil
}

// Size is how many bytes all that is told of the principal takes: the identity's
// headers, and the policy's headers and metadata, their names included.
func (d *Decision) Size(h *IdentityHeaders) int {
	size := h.Size(d.Principal.Identity)
	for _, told := range [...][]Header{d.Extra, d.Metadata} {
		for i := range told {
			size += len(told[i].Name) + len(told[i].Value)
		}
	}
	return size
}

// Fits is ReasonIdentityTooLong when that exceeds maxBytes. Zero is no bound.
func (d *Decision) Fits(h *IdentityHeaders, maxBytes int) error {
	if maxBytes == 0 {
		return nil
	}
	if size := d.Size(h); size > maxBytes {
		return Refuse(ReasonIdentityTooLong, "the identity headers, and what the policy adds, take %d bytes, the budget is %d", size, maxBytes)
	}
	return nil
}

// Headers are all that the service gets of a request that passes as somebody.
func (d *Decision) Headers(h IdentityHeaders) []Header {
	headers, _ := h.Encode(d.Principal.Identity, 0) // without a bound there is no error
	return append(headers, d.Extra...)
}

// ExtraHeaders are the names of all headers that some policy adds, and
// [HeaderAssertion], sorted.
func (s *PolicySet) ExtraHeaders() []string { return slices.Clone(s.extra) }

// ClientSpellings returns every spelling under which a client could smuggle a
// header of Gatehouse's to a service: those of h, as [IdentityHeaders.ClientSpellings]
// has them, and then those of the headers that some policy adds, their names last,
// in the order of [PolicySet.ExtraHeaders]. Whatever policy a request has, those that
// it doesn't get must be removed from it.
func (a *Authorizer) ClientSpellings(h IdentityHeaders) []string {
	spellings := h.ClientSpellings()
	for _, name := range a.policies.extra {
		spellings = append(spellings, foldedSpellings(name)...)
	}
	return append(spellings, a.policies.extra...)
}

// ExtraHeaders is [PolicySet.ExtraHeaders].
func (a *Authorizer) ExtraHeaders() []string { return a.policies.ExtraHeaders() }
