package authz

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Route leads requests to a policy. Empty fields match everything.
type Route struct {
	Host    string   // exact, "*.example.com" for every name below, or "*"
	Path    string   // exact, or a prefix ending in "*"; "/admin/*" covers /admin too
	Methods []string // upper case
	Policy  string
}

// PolicySet chooses the policy of a request. It is compiled once and then
// only read; safe for concurrent use.
type PolicySet struct {
	policies map[string]*Policy
	routes   []compiledRoute
	fallback *Policy
	extra    []string // see ExtraHeaders
}

type compiledRoute struct {
	host       string // "" any
	hostSuffix string // ".example.com" for "*.example.com"
	path       string // exact path, or the prefix without the star
	prefix     bool
	anyPath    bool
	methods    []string
	policy     *Policy
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
	slices.Sort(s.extra)
	s.extra = slices.Compact(s.extra)
	for i, r := range o.Routes {
		c, err := s.compile(r)
		if err != nil {
			errs = append(errs, fmt.Errorf("route %d: %w", i+1, err))
		}
		s.routes = append(s.routes, c)
	}
	if o.Default != "" {
		if s.fallback = s.policies[o.Default]; s.fallback == nil {
			errs = append(errs, fmt.Errorf("default policy %q does not exist", o.Default))
		}
	}
	return s, errors.Join(errs...)
}

func (s *PolicySet) compile(r Route) (compiledRoute, error) {
	c := compiledRoute{methods: r.Methods, policy: s.policies[r.Policy]}
	if c.policy == nil {
		return c, fmt.Errorf("policy %q does not exist", r.Policy)
	}
	if r.Host == "*" {
		r.Host = ""
	}
	host, wildcard := strings.CutPrefix(r.Host, "*.")
	host, err := CanonicalHost(host)
	if err != nil {
		return c, err
	}
	if wildcard && host == "" {
		return c, errors.New("host *. names no domain")
	}
	if wildcard {
		c.hostSuffix = "." + host
	} else {
		c.host = host
	}
	if r.Path == "" || r.Path == "*" || r.Path == "/*" {
		c.anyPath = true
		return c, nil
	}
	path, prefix := strings.CutSuffix(r.Path, "*")
	if c.path, err = CanonicalPath(path); err != nil {
		return c, err
	}
	c.prefix = prefix
	return c, nil
}

// concerns reports whether the route is for the request's host and method.
func (c *compiledRoute) concerns(r *Request) bool {
	switch {
	case c.host != "" && c.host != r.Host:
		return false
	case c.hostSuffix != "" && (!strings.HasSuffix(r.Host, c.hostSuffix) || len(r.Host) == len(c.hostSuffix)):
		return false
	}
	return len(c.methods) == 0 || slices.Contains(c.methods, r.Method)
}

// covers reports whether the route is for the request's path.
func (c *compiledRoute) covers(r *Request) bool {
	switch {
	case c.anyPath:
		return true
	case !c.prefix:
		return r.Path == c.path
	case strings.HasPrefix(r.Path, c.path):
		return true
	}
	// "/admin/*" is "/admin/" as a prefix, and covers "/admin" itself.
	base, slash := strings.CutSuffix(c.path, "/")
	return slash && r.Path == base
}

// Match returns the policy of a request: the one that the gateway names, else
// that of the first matching route, else the default. It refuses with
// ReasonPolicyUnknown, ReasonNoPolicy, or ReasonBadPath where the path would
// choose the route and has a parameter (;), which some servers drop before
// they route and others don't. An escaped semicolon is none.
func (s *PolicySet) Match(r *Request) (*Policy, error) {
	if r.HasPolicyName {
		if p := s.policies[r.PolicyName]; p != nil {
			return p, nil
		}
		return nil, Refuse(ReasonPolicyUnknown, "the gateway names policy %q, which the configuration does not have", r.PolicyName)
	}
	for i := range s.routes {
		route := &s.routes[i]
		if !route.concerns(r) {
			continue
		}
		if !route.anyPath && strings.IndexByte(r.RawPath, ';') >= 0 {
			return nil, Refuse(ReasonBadPath, "path parameter where a route is chosen by path")
		}
		if route.covers(r) {
			return route.policy, nil
		}
	}
	if s.fallback == nil {
		return nil, Refuse(ReasonNoPolicy, "no route matches and there is no default policy")
	}
	return s.fallback, nil
}

// Policy returns a policy by name, nil when there is none.
func (s *PolicySet) Policy(name string) *Policy { return s.policies[name] }
