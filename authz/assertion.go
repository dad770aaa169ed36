package authz

import (
	"strings"
	"time"
)

// HeaderAssertion is the header in which a service gets the identity signed, where
// the policy says so. A client's own never gets through, whatever the policy.
const HeaderAssertion = "x-identity-assertion"

// AssertionType is the typ of what it holds. It is no type of access tokens (RFC 8725
// section 3.11): at the gate, where a client might show one that a service let out, it
// is refused whatever key made it.
const AssertionType = "gatehouse-identity+jwt"

// Assertion says for which service the identity is signed. The zero value signs
// nothing.
type Assertion struct {
	Audience string // the service; "" where only the gateway's route says it
	// FromRoute lets the gateway's route name the service, which then wins. Where
	// neither names one, the request is refused.
	FromRoute bool
}

// wanted reports whether the policy has the identity signed.
func (a Assertion) wanted() bool { return a != Assertion{} }

// An Asserter signs who a principal is, for one service. It may remember what it
// signed, but nothing of the principal, its texts included; it doesn't block, and is
// safe for concurrent use. What it returns is visible ASCII.
type Asserter interface {
	Assert(p *Principal, audience string) (string, error)
}

// MaxAudience is how long the name of a service may be.
const MaxAudience = 255

// AudienceName reports whether a service can have this name: visible ASCII, not too
// long.
func AudienceName(s string) bool {
	return s != "" && len(s) <= MaxAudience && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f })
}

// audience is the service for which the identity of a request is signed.
func (a Assertion) audience(r *Request) (string, error) {
	switch {
	case a.FromRoute && r.HasAudience:
		if !AudienceName(r.Audience) {
			return "", Refuse(ReasonNoAudience, "the gateway's route names a service whose name is empty, longer than %d bytes, or not visible ASCII", MaxAudience)
		}
		return r.Audience, nil
	case a.Audience == "":
		return "", Refuse(ReasonNoAudience, "the policy has the identity signed for the service that the gateway's route names, and the route names none")
	}
	return a.Audience, nil
}

// assert adds the signed identity to what the service is told.
func (a *Authorizer) assert(t *Trace, r *Request, d *Decision) error {
	began := t.now()
	audience, err := d.Policy.Assertion.audience(r)
	if err == nil && a.o.Asserter == nil {
		err = Refuse(ReasonInternal, "policy %q has the identity signed, and there is nothing to sign it", d.Policy.Name)
	}
	if err != nil {
		t.Add(StageIdentity, "assertion", time.Time{}, err, "")
		return err
	}
	signed, err := a.o.Asserter.Assert(d.Principal, audience)
	if t != nil { // without one, its arguments would be garbage
		t.Add(StageIdentity, "assertion", began, err, "signed for %s", audience)
	}
	if err != nil {
		return Refuse(ReasonInternal, "sign the identity: %w", err)
	}
	d.Extra = append(d.Extra, Header{HeaderAssertion, signed})
	return nil
}
