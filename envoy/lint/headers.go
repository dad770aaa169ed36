package lint

import (
	"regexp"
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	mutationfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// fold is how a WSGI or CGI server reads a header's name.
func fold(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// identityNames are the names of the headers by which Gatehouse tells services who
// calls: those of the identity, and those that policies add.
func (l *linter) identityNames() []string {
	h := l.options.IdentityHeaders
	names := []string{h.ID, h.Email, h.Roles, h.Organization}
	if known := l.options.Gatehouse; known != nil {
		names = append(names, known.Headers...)
	}
	return names
}

// isIdentity reports whether some server takes a header for an identity header.
func (l *linter) isIdentity(header string) bool {
	return slices.ContainsFunc(l.identityNames(), func(name string) bool { return fold(name) == fold(header) })
}

// spellings are all names under which a client could send one of them.
func (l *linter) spellings() []string {
	var all []string
	for _, name := range l.identityNames() {
		for _, s := range (authz.IdentityHeaders{ID: name}).ClientSpellings() {
			if fold(s) == fold(name) {
				all = append(all, s)
			}
		}
	}
	return all
}

// dotted are the identity headers' names with dots, by which PHP takes them for
// the real ones.
func (l *linter) dotted() []string {
	var out []string
	for _, name := range l.identityNames() {
		if with := strings.NewReplacer("-", ".", "_", ".").Replace(name); with != name {
			out = append(out, with)
		}
	}
	return out
}

// overrides are headers by which a client asks a framework for another method
// or path than those that were checked.
var overrides = []string{"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"}

// stripper knows which headers of a client never get on.
type stripper struct {
	names       map[string]bool
	matchers    []*matcherv3.StringMatcher
	underscores bool // names with an underscore are refused or dropped
}

func (s stripper) strips(name string) bool {
	name = strings.ToLower(name)
	return s.underscores && strings.Contains(name, "_") || s.names[name] ||
		slices.ContainsFunc(s.matchers, func(m *matcherv3.StringMatcher) bool { return matches(m, name) })
}

// and returns s with further names.
func (s stripper) and(names ...[]string) stripper {
	more := stripper{names: map[string]bool{}, matchers: s.matchers, underscores: s.underscores}
	for name := range s.names {
		more.names[name] = true
	}
	for _, list := range names {
		for _, name := range list {
			more.names[strings.ToLower(name)] = true
		}
	}
	return more
}

func (s *stripper) mutations(mutations []*mutationv3.HeaderMutation) {
	for _, m := range mutations {
		if m.GetRemove() != "" {
			s.names[strings.ToLower(m.GetRemove())] = true
		}
		if on := m.GetRemoveOnMatch(); on != nil {
			s.matchers = append(s.matchers, on.GetKeyMatcher())
		}
	}
}

// stripper collects what a connection manager takes out of every request,
// whatever route it takes.
func (m *manager) stripper() stripper {
	s := m.early()
	for _, f := range m.filters {
		if filter, ok := f.config.(*mutationfilterv3.HeaderMutation); ok && !f.GetDisabled() {
			s.mutations(filter.GetMutations().GetRequestMutations())
		}
	}
	return s
}

// strips is what gets taken out of a client's request: before the route is
// chosen, and on a way to a service.
type strips struct {
	early stripper
	on    func(leaf) stripper
}

// strips returns what the connection manager takes out of a request. On a way,
// header_mutation filters can be switched off, or be given more to do.
func (m *manager) strips() strips {
	early := m.early()
	var filters []filterAt
	for _, f := range m.filters {
		if _, ok := f.config.(*mutationfilterv3.HeaderMutation); ok {
			filters = append(filters, f)
		}
	}
	if len(filters) == 0 {
		return strips{early, func(leaf) stripper { return early }}
	}
	return strips{early, func(one leaf) stripper {
		s := early.and()
		s.matchers = slices.Clone(s.matchers)
		for _, f := range filters {
			set := one.of(f.GetName())
			if set.off != nil || f.GetDisabled() && !set.given {
				continue
			}
			s.mutations(f.config.(*mutationfilterv3.HeaderMutation).GetMutations().GetRequestMutations())
			for _, own := range one.mutations(f.GetName()) {
				s.mutations(own.GetMutations().GetRequestMutations())
			}
		}
		return s
	}}
}

// mutations are what the levels add to a header_mutation filter.
func (f leaf) mutations(filter string) []*mutationfilterv3.HeaderMutationPerRoute {
	var out []*mutationfilterv3.HeaderMutationPerRoute
	for _, at := range f.levels {
		a, ok := at.perFilter[filter]
		if !ok {
			continue
		}
		m := message(a)
		if generic, ok := m.(*routev3.FilterConfig); ok {
			m = message(generic.GetConfig())
		}
		if own, ok := m.(*mutationfilterv3.HeaderMutationPerRoute); ok {
			out = append(out, own)
		}
	}
	return out
}

// early is what is taken out before anything else happens.
func (m *manager) early() stripper {
	action := m.GetCommonHttpProtocolOptions().GetHeadersWithUnderscoresAction()
	s := stripper{names: map[string]bool{}, underscores: action != corev3.HttpProtocolOptions_ALLOW}
	for _, extension := range m.GetEarlyHeaderMutationExtensions() {
		if early, ok := message(extension.GetTypedConfig()).(*earlyv3.HeaderMutation); ok {
			s.mutations(early.GetMutations())
		}
	}
	return s
}

// left returns those of names that get through.
func (s stripper) left(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), s.strips)
}

// matches applies Envoy's string matcher. One that we can't read matches
// nothing.
func matches(m *matcherv3.StringMatcher, text string) bool {
	equal := func(pattern string) (string, string) {
		if m.GetIgnoreCase() {
			return strings.ToLower(text), strings.ToLower(pattern)
		}
		return text, pattern
	}
	switch pattern := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		a, b := equal(pattern.Exact)
		return a == b
	case *matcherv3.StringMatcher_Prefix:
		a, b := equal(pattern.Prefix)
		return strings.HasPrefix(a, b)
	case *matcherv3.StringMatcher_Suffix:
		a, b := equal(pattern.Suffix)
		return strings.HasSuffix(a, b)
	case *matcherv3.StringMatcher_Contains:
		a, b := equal(pattern.Contains)
		return strings.Contains(a, b)
	case *matcherv3.StringMatcher_SafeRegex:
		return fullMatch(pattern.SafeRegex.GetRegex(), text)
	}
	return false
}

func matchesAny(m *matcherv3.ListStringMatcher, text string) bool {
	return slices.ContainsFunc(m.GetPatterns(), func(p *matcherv3.StringMatcher) bool { return matches(p, text) })
}

// fullMatch matches a whole text, as Envoy does, with Envoy's engine, RE2,
// whose syntax is Go's.
func fullMatch(pattern, text string) bool {
	re, err := regexp.Compile(`^(?:` + pattern + `)$`)
	return err == nil && re.MatchString(text)
}

// some lists names, the first ones when they are many.
func some(names []string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + " and others"
}
