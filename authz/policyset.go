package authz

import (
	"errors"
	"fmt"
	"slices"
)

// PolicySet chooses the policy of a request. It is compiled once and then
// only read; safe for concurrent use.
type PolicySet struct {
	policies map[string]*Policy
	routes   *routeTable
	targets  []*Policy // of the routes
	fallback *Policy
	extra    []string // see ExtraHeaders
}

// PolicySetOptions is what a [PolicySet] is made of.
type PolicySetOptions struct {
	Policies []Policy
	Routes   []Route // the first that matches decides
	Default  string  // "" refuses what no route matches
}

// NewPolicySet compiles policies and routes. Its error joins everything that
// is wrong: a name given twice or to nothing, a path that is not canonical.
func NewPolicySet(o PolicySetOptions) (*PolicySet, error) {
	s := &PolicySet{policies: make(map[string]*Policy, len(o.Policies))}
	var errs []error
	for _, p := range o.Policies {
		if _, dup := s.policies[p.Name]; dup || p.Name == "" {
			errs = append(errs, fmt.Errorf("policy %q: the name is empty or given twice", p.Name))
		}
		if err := p.checkExtras(); err != nil {
			errs = append(errs, err)
		}
		for _, e := range p.Headers {
			s.extra = append(s.extra, e.Name)
		}
		s.policies[p.Name] = &p
	}
	s.extra = append(s.extra, HeaderAssertion) // taken out of what clients send even where nobody has one
	slices.Sort(s.extra)
	s.extra = slices.Compact(s.extra)
	patterns := make([]pattern, len(o.Routes))
	s.targets = make([]*Policy, len(o.Routes))
	for i, r := range o.Routes {
		var err error
		if patterns[i], err = r.pattern(); err != nil {
			errs = append(errs, fmt.Errorf("route %d: %w", i+1, err))
		}
		if s.targets[i] = s.policies[r.Policy]; s.targets[i] == nil {
			errs = append(errs, fmt.Errorf("route %d: policy %q does not exist", i+1, r.Policy))
		}
	}
	s.routes = newRouteTable(patterns)
	if o.Default != "" {
		if s.fallback = s.policies[o.Default]; s.fallback == nil {
			errs = append(errs, fmt.Errorf("default policy %q does not exist", o.Default))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// Match returns the policy of a request: the one that the gateway names, else
// that of the first matching route, else the default. It refuses with
// ReasonPolicyUnknown, ReasonNoPolicy, or ReasonBadPath where the path would
// choose the route and has a parameter (;), which some servers drop before
// they route and others don't. An escaped semicolon is none.
func (s *PolicySet) Match(r *Request) (*Policy, error) {
	p, _, err := s.choose(r)
	return p, err
}

// choose returns the policy and the route that chose it, [none] where none did.
func (s *PolicySet) choose(r *Request) (p *Policy, route int, err error) {
	if r.HasPolicyName {
		if p := s.policies[r.PolicyName]; p != nil {
			return p, none, nil
		}
		return nil, none, Refuse(ReasonPolicyUnknown, "the gateway names policy %q, which the configuration does not have", r.PolicyName)
	}
	route, err = s.routes.match(r)
	switch {
	case err != nil:
		return nil, none, err
	case route != none:
		return s.targets[route], route, nil
	case s.fallback == nil:
		return nil, none, Refuse(ReasonNoPolicy, "no route matches and there is no default policy")
	}
	return s.fallback, none, nil
}

// Policy returns a policy by name, nil when there is none.
func (s *PolicySet) Policy(name string) *Policy { return s.policies[name] }
