package authz

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Freshness says how a policy wants sessions, marks and profiles to be read.
type Freshness string

// The values of [Policy.Freshness].
const (
	FreshnessStrict Freshness = "strict" // ask the store for every request
	FreshnessCached Freshness = "cached" // the coherent cache may answer
)

// Outage says what a policy does while the store can't be reached.
type Outage string

// The values of [Policy.OnStoreOutage].
const (
	OutageDeny         Outage = "deny"          // 503
	OutageServeStale   Outage = "serve_stale"   // a cached answer not older than StaleFor
	OutageAcceptBearer Outage = "accept_bearer" // a valid token, its revocation unknown
)

// Policy says which credentials a route accepts and what it asks of the
// principal. The zero value accepts nobody.
type Policy struct {
	Name        string
	Credentials []Kind // in the order in which they are looked for
	Anonymous   bool   // let through without identity where there is no valid credential
	Observe     bool   // decide, log and count, but refuse nothing

	RolesAny      []string // at least one of them; none listed asks for nothing
	RolesAll      []string // every one of them
	Organizations []string // one of them
	Issuers       []string // of a token: one of them; empty means each known issuer
	Audiences     []string // of a token: one of them; empty means each that the issuer's entry accepts
	// Condition is asked after roles and organization; nil is true. An error
	// refuses. It must keep nothing of the two, their texts included.
	Condition func(r *Request, p *Principal) (bool, error)
	// ConditionParts, for a [Trace], are the parts that Condition is
	// made of, all of which must hold; it may be empty.
	ConditionParts []ConditionPart

	Freshness   Freshness     // "" is strict
	MaxAuthAge  time.Duration // since the user authenticated; zero asks nothing
	IdleTimeout time.Duration // since the last gated request of the session; zero asks nothing

	// Passive requests are no use of a session: they renew it, but no idle
	// timeout starts anew with them.
	Passive bool

	// InsecureSkipCSRF lets other sites send unsafe requests with the user's
	// session cookie.
	InsecureSkipCSRF bool

	// LoginURL, when not empty, is where a browser's navigation is sent
	// instead of a 401. A path of this origin.
	LoginURL string

	OnStoreOutage Outage        // "" is deny
	StaleFor      time.Duration // for OutageServeStale

	// RateLimit names the limit that applies to what the policy permits; ""
	// for none.
	RateLimit string

	// Headers and Metadata are told of the principal beyond the identity. The
	// names of headers must be none of the identity's, in any policy.
	Headers, Metadata []Extra

	// Assertion has the identity signed for the service.
	Assertion Assertion

	// OmitRecord says that Condition doesn't look into the session's record, and no
	// attribute does: then [Principal] Session may be nil.
	OmitRecord bool
}

// ConditionPart is a part of a policy's condition.
type ConditionPart struct {
	Text  string
	Holds func(r *Request, p *Principal) (bool, error)
}

// accepts reports whether the policy lists a kind; a nil policy lists none.
func (p *Policy) accepts(kind Kind) bool { return p != nil && slices.Contains(p.Credentials, kind) }

// readOptions are what the policy asks of a store.
func (p *Policy) readOptions() ReadOptions {
	o := ReadOptions{Fresh: p.Freshness != FreshnessCached, IdleTimeout: p.IdleTimeout, Passive: p.Passive, OmitRecord: p.OmitRecord}
	if p.OnStoreOutage == OutageServeStale {
		o.StaleFor = p.StaleFor
	}
	return o
}

// reads are the options for the reads of one decision: one that is traced changes
// nothing.
func (p *Policy) reads(ctx context.Context) ReadOptions {
	o := p.readOptions()
	if TraceFrom(ctx) != nil {
		o.ReadOnly, o.Passive = true, true
	}
	return o
}

// recent refuses a principal that authenticated longer ago than MaxAuthAge,
// or at a time that it doesn't tell.
func (p *Policy) recent(principal *Principal, now time.Time) error {
	if p.MaxAuthAge == 0 {
		return nil
	}
	reason := ReasonTokenStale
	if principal.Kind == KindSession {
		reason = ReasonSessionStale
	}
	if principal.AuthTime.IsZero() {
		return Refuse(reason, "the credential does not say when the user authenticated")
	}
	if age := now.Sub(principal.AuthTime); age > p.MaxAuthAge {
		return Refuse(reason, "authenticated %v ago, the policy allows %v", age.Truncate(time.Second), p.MaxAuthAge)
	}
	return nil
}

// Permits reports, as an error with a reason, whether the policy's conditions
// hold for an authenticated principal. Pure, but for Condition.
func (p *Policy) Permits(r *Request, principal *Principal) error {
	return p.permits(nil, r, principal)
}

// permits stops at the first condition that doesn't hold; traced, it goes on, and
// returns the first all the same.
func (p *Policy) permits(t *Trace, r *Request, principal *Principal) (first error) {
	for i := range conditions {
		c := &conditions[i]
		if !c.asked(p, principal) {
			continue
		}
		began := t.now()
		err := c.holds(p, r, principal)
		if t == nil && err != nil {
			return err
		}
		if t != nil {
			t.condition(p, c, r, principal, began, err)
			first = cmp.Or(first, err)
		}
	}
	return first
}

// permitsNobody is permits for a request without an identity: of the conditions
// only the expression speaks of it.
func (p *Policy) permitsNobody(t *Trace, r *Request) error {
	if p.Condition == nil {
		return nil
	}
	began := t.now()
	err := p.conditionHolds(r, &Principal{})
	if t != nil {
		t.condition(p, &conditions[len(conditions)-1], r, &Principal{}, began, err)
	}
	return err
}

// policyCondition is one thing that a policy can ask of a principal.
type policyCondition struct {
	name  string // its key in the configuration
	asked func(*Policy, *Principal) bool
	holds func(*Policy, *Request, *Principal) error
}

// conditions are asked in this order.
var conditions = [...]policyCondition{
	{
		"issuers", func(p *Policy, principal *Principal) bool { return principal.Kind == KindBearer && len(p.Issuers) > 0 },
		func(p *Policy, _ *Request, principal *Principal) error {
			if slices.Contains(p.Issuers, principal.Issuer) {
				return nil
			}
			return Refuse(ReasonIssuer, "the policy does not list issuer %q", principal.Issuer)
		},
	},
	{
		"audiences", func(p *Policy, principal *Principal) bool {
			return principal.Kind == KindBearer && len(p.Audiences) > 0
		},
		func(p *Policy, _ *Request, principal *Principal) error {
			if intersects(p.Audiences, principal.Audiences) {
				return nil
			}
			return Refuse(ReasonAudience, "the policy lists none of the token's audiences")
		},
	},
	{
		"roles.any", func(p *Policy, _ *Principal) bool { return len(p.RolesAny) > 0 },
		func(p *Policy, _ *Request, principal *Principal) error {
			if intersects(p.RolesAny, principal.Roles) {
				return nil
			}
			return Refuse(ReasonRole, "none of the roles %q", p.RolesAny)
		},
	},
	{
		"roles.all", func(p *Policy, _ *Principal) bool { return len(p.RolesAll) > 0 },
		func(p *Policy, _ *Request, principal *Principal) error {
			for _, role := range p.RolesAll {
				if !slices.Contains(principal.Roles, role) {
					return Refuse(ReasonRole, "role %q is missing", role)
				}
			}
			return nil
		},
	},
	{
		"organizations", func(p *Policy, _ *Principal) bool { return len(p.Organizations) > 0 },
		func(p *Policy, _ *Request, principal *Principal) error {
			if slices.Contains(p.Organizations, principal.Organization) {
				return nil
			}
			return Refuse(ReasonOrganization, "organization is none of %q", p.Organizations)
		},
	},
	{
		"condition", func(p *Policy, _ *Principal) bool { return p.Condition != nil },
		(*Policy).conditionHolds,
	},
}

// conditionHolds asks Condition, which is there.
func (p *Policy) conditionHolds(r *Request, principal *Principal) error {
	ok, err := p.Condition(r, principal)
	if err != nil {
		return Refuse(ReasonCondition, "the condition failed: %w", err)
	}
	if !ok {
		return Refuse(ReasonCondition, "the condition is false")
	}
	return nil
}

func intersects(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}
