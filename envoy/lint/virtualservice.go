package lint

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// Paths that Istio's check leaves out, and what the VirtualServices do with
// requests for them: nobody else takes the identity headers out there.

// notPaths returns the lists of paths by which rules leave something out, if by
// nothing else. Further rules only add to what is checked, so of several lists
// each has all that is left out.
func notPaths(rules []*node) (lists []*node) {
	for _, rule := range rules {
		if len(rule.at("from").list()) > 0 || len(rule.at("when").list()) > 0 {
			continue
		}
		for _, to := range rule.at("to").list() {
			operation := to.at("operation")
			if paths := operation.at("notPaths"); len(operation.fieldsOf()) == 1 && len(paths.list()) > 0 {
				lists = append(lists, paths)
			}
		}
	}
	return lists
}

// istioUnchecked looks at where the paths lead that a policy leaves out.
func (l *linter) istioUnchecked(m *mesh, policy, paths *node) {
	services, elsewhere := m.servicesOf(policy)
	if elsewhere != nil {
		l.report(codeIstioElsewhere, elsewhere, "This hands requests on to VirtualService %s, which is not in these files.", elsewhere.at("name").string())
	}
	if len(services) == 0 {
		l.report(codeIstioElsewhere, paths, "%s not checked, and the VirtualService that takes the identity headers out there is not in these files.", are(paths.strings()))
		return
	}
	underscores, said := m.refusesUnderscores(), map[*node]bool{}
	for _, one := range paths.list() {
		taken, open := false, false
		for _, vs := range services {
			t, o := l.istioWay(vs, one, underscores, said)
			taken, open = taken || t, open || o
		}
		if !taken && !open {
			l.report(codeIstioOpen, one, "%s is not checked, and the routes here that take the identity headers out don't take all of it.", one.string())
		}
	}
}

func are(paths []string) string {
	if len(paths) == 1 {
		return paths[0] + " is"
	}
	return some(paths) + " are"
}

// istioWay follows requests for unchecked paths through a VirtualService: taken
// says that one route or another takes all of them, open that one lets the identity headers
// through. What is reported where it stands is said once, not for each path.
func (l *linter) istioWay(vs, path *node, underscores bool, said map[*node]bool) (taken, open bool) {
	p := pathsOf(path.string())
	for _, route := range vs.at("spec", "http").list() {
		takes, whole := p.taken(route)
		if !takes {
			continue
		}
		if left, at := l.letsThrough(route, underscores); len(left) > 0 {
			if at == nil && !open || at != nil && !said[at] { // without at, it was made for requests that are checked
				l.report(codeIstioOpen, orElse(at, path), "%s is not checked, and %s leaves a client's own %s in the request.", path.string(), routeOf(route, vs), some(left))
			}
			open, said[at] = true, true
		}
		if whole {
			return true, open
		}
	}
	return false, open
}

// routeOf names a route of a VirtualService.
func routeOf(route, vs *node) string {
	what := "a route"
	if name := route.at("name").string(); name != "" {
		what = "route " + name
	}
	return what + " of VirtualService " + vs.at("metadata", "name").string()
}

// setByMesh reports identity headers that VirtualServices write, after the check
// or without one.
func (l *linter) setByMesh(vs *node) {
	for _, route := range vs.at("spec", "http").list() {
		for _, n := range append([]*node{route}, route.at("route").list()...) {
			for _, how := range []string{"set", "add"} {
				for _, header := range n.at("headers", "request", how).fieldsOf() {
					if l.isIdentity(header.name) {
						l.report(codeIdentitySet, header, "%s is set here, %s.", header.name, afterCheck)
					}
				}
			}
		}
	}
}

// letsThrough returns the identity headers that a route of a VirtualService lets
// through, and where it takes out others; nil where it takes out none.
func (l *linter) letsThrough(route *node, underscores bool) (left []string, at *node) {
	if route.at("redirect") != nil || route.at("directResponse") != nil || route.at("delegate") != nil {
		return nil, nil
	}
	remove := func(n *node) *node { return n.at("headers", "request", "remove") }
	ways := route.at("route").list()
	if len(ways) == 0 {
		ways = []*node{nil}
	}
	for _, destination := range ways {
		s := stripper{underscores: underscores}.and(remove(route).strings(), remove(destination).strings())
		mine := s.left(l.spellings())
		if len(mine) == 0 || len(left) > 0 {
			continue
		}
		left = mine
		for _, n := range []*node{remove(destination), remove(route)} {
			if at == nil && slices.ContainsFunc(n.strings(), l.isIdentity) {
				at = n
			}
		}
	}
	return left, at
}

// servicesOf returns the VirtualServices by which requests go on that a policy
// looks at, and a route that hands them on to one that is not here.
func (m *mesh) servicesOf(policy *node) (services []*node, elsewhere *node) {
	if policy.at("spec").either("targetRef", "targetRefs") != nil {
		return nil, nil // a gateway of the Gateway API, or a waypoint
	}
	for _, vs := range m.services {
		if slices.ContainsFunc(vs.at("spec", "gateways").list(), func(g *node) bool { return m.serves(policy, vs, g.string()) }) {
			services = append(services, vs)
		}
	}
	for i := 0; i < len(services); i++ { // it grows
		for _, route := range services[i].at("spec", "http").list() {
			delegate := route.at("delegate")
			if delegate == nil {
				continue
			}
			to := slices.IndexFunc(m.services, func(vs *node) bool {
				return vs.at("metadata", "name").string() == delegate.at("name").string() &&
					(delegate.at("namespace") == nil || namespace(vs) == delegate.at("namespace").string())
			})
			switch {
			case to < 0:
				elsewhere = delegate
			case !slices.Contains(services, m.services[to]):
				services = append(services, m.services[to])
			}
		}
	}
	return services, elsewhere
}

// serves reports whether a VirtualService's gateway can be one that the policy
// selects: no label says something else.
func (m *mesh) serves(policy, vs *node, gateway string) bool {
	if gateway == "mesh" {
		return false // sidecars, on the way out
	}
	wanted := policy.at("spec", "selector", "matchLabels")
	in, name, ok := strings.Cut(gateway, "/")
	if !ok || in == "." {
		in, name = namespace(vs), gateway[strings.IndexByte(gateway, '/')+1:]
	}
	for _, g := range m.gateways {
		if g.at("metadata", "name").string() != name || namespace(g) != in {
			continue
		}
		for _, label := range wanted.fieldsOf() {
			if other := g.at("spec", "selector", label.name); other != nil && other.string() != label.string() {
				return false
			}
		}
	}
	return true
}

// namespace is where an object lives.
func namespace(n *node) string {
	if name := n.at("metadata", "namespace").string(); name != "" {
		return name
	}
	return "default"
}

// refusesUnderscores reports whether the gateways' settings, as far as they are
// here, refuse headers with underscores. Envoy's own default lets them through.
func (m *mesh) refusesUnderscores() bool {
	refused := false
	for _, s := range m.connections {
		action := s.at("httpHeadersWithUnderscoresAction").string()
		switch {
		case action == "REJECT_REQUEST", action == "DROP_HEADER", action == "" && s.at("profile").string() == "EDGE":
			refused = true
		case action != "":
			return false
		}
	}
	return refused
}

// proxyAnnotation holds what a proxy is told beside the mesh's defaults.
const proxyAnnotation = "proxy.istio.io/config"

// annotations reads the settings of proxies in a pod's annotations, and reports
// whether there are any that rules look at.
func (l *linter) annotations(n *node, text []byte, m *mesh) bool {
	found := false
	if value := n.at(proxyAnnotation); value != nil && value.shape == stringShape {
		for _, config := range l.inner(value, text) {
			if config.isMapping() {
				config.toCamelCase()
				found = m.proxy(config) || found
			}
		}
	}
	return found
}

func (m *mesh) proxy(config *node) bool {
	settings := config.at("connectionSettings")
	if settings.isMapping() {
		m.connections = append(m.connections, settings)
	}
	return settings.isMapping()
}

// paths are those that one entry of an AuthorizationPolicy's list is about.
type paths struct {
	kind pathsKind
	text string
}

type pathsKind int

const (
	onePath    pathsKind = iota
	pathsBelow           // with this beginning
	pathsAbove           // with this end; all with none
)

// String is the entry that an AuthorizationPolicy has for it.
func (p paths) String() string {
	switch p.kind {
	case pathsBelow:
		return p.text + "*"
	case pathsAbove:
		return "*" + p.text
	case onePath:
	}
	return p.text
}

// pathsOf reads an entry: abc, abc*, *abc, *, or a template, {*} and {**}, which
// counts as all that begins as it does.
func pathsOf(entry string) paths {
	if before, _, ok := strings.Cut(entry, "{"); ok {
		return paths{pathsBelow, before}
	}
	if suffix, ok := strings.CutPrefix(entry, "*"); ok {
		return paths{pathsAbove, suffix}
	}
	if prefix, ok := strings.CutSuffix(entry, "*"); ok {
		return paths{pathsBelow, prefix}
	}
	return paths{onePath, entry}
}

// taken reports whether a route of a VirtualService takes requests for some of
// these paths, and whether it takes all of them. What can't be told counts as
// the worse.
func (p paths) taken(route *node) (some, all bool) {
	matches := route.at("match").list()
	if len(matches) == 0 {
		return true, true
	}
	for _, match := range matches {
		m := uriMatcher(match)
		some = some || p.meets(m)
		all = all || !m.conditional && p.within(m)
	}
	return some, all
}

// uriMatcher reads an entry of a route's match.
func uriMatcher(match *node) matcher {
	m := matcher{kind: matchPrefix, fold: match.at("ignoreUriCase").isTrue()}
	for _, f := range match.fieldsOf() {
		m.conditional = m.conditional || !slices.Contains([]string{"uri", "ignoreUriCase", "name", "statPrefix"}, f.name)
	}
	uri := match.at("uri")
	switch {
	case uri == nil:
	case uri.at("exact") != nil:
		m.kind, m.text = matchPath, uri.at("exact").string()
	case uri.at("prefix") != nil:
		m.text = uri.at("prefix").string()
	case uri.at("regex") != nil:
		m.kind = matchUnknown
		if re, err := regexp.Compile(`^(?:` + uri.at("regex").string() + `)$`); err == nil {
			m.kind, m.re, m.fold = matchRegex, re, false
		}
	default:
		m.kind = matchUnknown
	}
	return m
}

// meets reports whether a match takes some of the paths.
func (p paths) meets(m matcher) bool {
	text, mine := m.text, p.text
	if m.fold {
		text, mine = strings.ToLower(text), strings.ToLower(mine)
	}
	switch {
	case m.kind == matchUnknown:
		return true
	case p.kind == onePath:
		return m.covers(p.text)
	case p.kind == pathsAbove:
		return m.kind != matchPath || strings.HasSuffix(text, mine)
	case m.kind == matchPath:
		return strings.HasPrefix(text, mine)
	case m.kind == matchRegex:
		return beginsWith(m.re.String(), p.text)
	}
	return strings.HasPrefix(text, mine) || strings.HasPrefix(mine, text)
}

// within reports whether a match takes all of the paths.
func (p paths) within(m matcher) bool {
	switch {
	case m.kind == matchPrefix && (m.text == "" || m.text == "/"):
		return true
	case m.kind == matchRegex && p.kind != onePath:
		return slices.ContainsFunc([]string{"", "/", p.beginning()}, func(beginning string) bool {
			return m.re.String() == `^(?:`+regexp.QuoteMeta(beginning)+`.*)$`
		})
	case p.kind == onePath:
		return m.covers(p.text)
	case p.kind == pathsBelow && m.kind == matchSeparatedPrefix:
		return len(p.text) > len(m.text) && m.covers(p.text)
	case p.kind == pathsBelow && m.kind == matchPrefix:
		return m.covers(p.text)
	}
	return false
}

// beginning is how all of the paths begin.
func (p paths) beginning() string {
	if p.kind == pathsAbove {
		return ""
	}
	return p.text
}

// beginsWith reports whether a pattern matches a text that begins so, as far as
// that can be told from the beginning.
func beginsWith(pattern, beginning string) bool {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return true
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return true
	}
	states := map[uint32]bool{}
	follow(program, uint32(program.Start), map[uint32]bool{}, states) //nolint:gosec // G115: an index of the program
	for _, r := range beginning {
		next, seen := map[uint32]bool{}, map[uint32]bool{}
		for at := range states {
			if i := &program.Inst[at]; consumes(i, r) {
				follow(program, i.Out, seen, next)
			}
		}
		states = next
	}
	return len(states) > 0
}

// follow adds the instructions that come next to states: those that read a
// letter, and the end. Conditions on what is around count as fulfilled.
func follow(program *syntax.Prog, at uint32, seen, states map[uint32]bool) {
	if seen[at] {
		return
	}
	seen[at] = true
	switch i := &program.Inst[at]; i.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		follow(program, i.Out, seen, states)
		follow(program, i.Arg, seen, states)
	case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
		follow(program, i.Out, seen, states)
	case syntax.InstFail:
	case syntax.InstMatch, syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		states[at] = true
	}
}

func consumes(i *syntax.Inst, r rune) bool {
	switch i.Op {
	case syntax.InstRune, syntax.InstRune1:
		return i.MatchRune(r)
	case syntax.InstRuneAny:
		return true
	case syntax.InstRuneAnyNotNL:
		return r != '\n'
	case syntax.InstAlt, syntax.InstAltMatch, syntax.InstCapture, syntax.InstEmptyWidth, syntax.InstMatch, syntax.InstFail, syntax.InstNop:
	}
	return false
}
