package lint

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Source is one file. Several of them are read together: a provider that an
// AuthorizationPolicy in one of them names may be defined in another, and
// single Envoy resources belong to one gateway. Each bootstrap and each dump is
// a gateway of its own.
type Source struct {
	Name string // as findings give it
	Data []byte
}

// Severity says how bad a finding is.
type Severity string

// The severities, worst first.
const (
	// Error: somebody gets in who shouldn't, or the gateway doesn't start.
	Error Severity = "error"
	// Warning: a wall is thinner than it could be.
	Warning Severity = "warning"
	// Note: something to know, such as what was not looked at.
	Note Severity = "note"
)

// Finding is one setting that a rule objects to.
type Finding struct {
	Code     string   `json:"code"` // of the rule, such as GH101; it never changes its meaning
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Line     int      `json:"line"` // from 1, like Column
	Column   int      `json:"column"`
	Place    string   `json:"place"`  // the way to it in the document: static_resources.listeners[0]…
	Within   string   `json:"within"` // the things around it by their names: listener gateway, route admin
	Message  string   `json:"message"`
	Attack   string   `json:"attack"` // what somebody does with it
	Remedy   string   `json:"remedy"` // the setting that closes it
}

// Options say what the gateway works with. The zero value knows nothing of
// Gatehouse's configuration and takes its defaults.
type Options struct {
	// IdentityHeaders are the headers that services trust; zero for the
	// defaults of package authz.
	IdentityHeaders authz.IdentityHeaders
	// Gatehouse is what its configuration says; nil when that is not at hand.
	// Some rules then keep quiet.
	Gatehouse *Gatehouse
}

// Gatehouse is what rules need to know of Gatehouse's configuration.
type Gatehouse struct {
	Policies  []string     // names
	Anonymous []string     // those among them that let anybody through
	Kinds     []authz.Kind // credential kinds that any of them accepts
	Headers   []string     // that any of them adds to the identity's; services trust these, too
	// Fallback reports whether requests get a policy when the gateway names
	// none: by routes, or by default_policy.
	Fallback bool
	// Private are addresses (host:port) that no request may reach through the
	// gateway: the ops and check listeners.
	Private []string
}

// Lint returns what rules object to, file by file, from top to bottom. It
// returns findings for what can't be read, too, so there is no error beside
// them.
func Lint(sources []Source, o Options) []Finding {
	if o.IdentityHeaders == (authz.IdentityHeaders{}) {
		o.IdentityHeaders = authz.DefaultIdentityHeaders
	}
	l := &linter{options: o, unread: map[[2]any]bool{}, seen: map[Finding]bool{}}
	loose := newGateway()
	var istio mesh
	var eg envoyGateway
	for _, s := range sources {
		docs, err := parse(s.Name, s.Data)
		if err != nil {
			l.unreadable(s.Name, err)
			continue
		}
		l.read(s, docs, loose, &istio, &eg)
	}
	l.unknown(&istio, &eg)
	l.gateway(loose)
	l.mesh(&istio)
	l.envoyGateway(&eg)
	l.fallback()

	order := map[string]int{}
	for i, s := range sources {
		if _, ok := order[s.Name]; !ok {
			order[s.Name] = i
		}
	}
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Place, b.Place))
	})
	return l.findings
}

// linter collects findings.
type linter struct {
	options  Options
	findings []Finding
	files    []*file
	seen     map[Finding]bool
	unread   map[[2]any]bool // document and type, that were said to be unread
	usesPolicies
}

// usesPolicies remembers whether anything names a policy.
type usesPolicies struct {
	checked *node // where a check is configured; nil for nowhere
	named   bool
}

// report adds a finding of a rule, at a node.
func (l *linter) report(code string, n *node, format string, args ...any) {
	line, column := n.place()
	l.add(code, Finding{
		File: n.root().file, Line: line, Column: column, Place: n.path(), Within: n.within(),
		Message: fmt.Sprintf(format, args...),
	})
}

func (l *linter) add(code string, f Finding) {
	rule := ruleOf(code)
	f.Code, f.Severity, f.Attack, f.Remedy = rule.Code, rule.Severity, rule.Attack, rule.Remedy
	f.Line, f.Column = max(1, f.Line), max(1, f.Column)
	f.Message, f.Within, f.Place = printable(f.Message), printable(f.Within), printable(f.Place)
	if l.seen[f] {
		return
	}
	l.seen[f] = true
	l.findings = append(l.findings, f)
}

// printable takes out what a name in a file could do to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// unreadable reports that a file is neither YAML nor JSON.
func (l *linter) unreadable(file string, err error) {
	f := Finding{File: file, Line: 1, Column: 1, Message: err.Error() + "."}
	if se, ok := errors.AsType[*syntaxError](err); ok {
		f.Line, f.Column = se.line, se.column
	}
	l.add(codeSyntax, f)
}
