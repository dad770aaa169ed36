// Package condition compiles the conditions of policies: expressions in the
// Common Expression Language (CEL) over the request and who sent it.
//
//	permits, err := condition.Compile(`claims.scope.contains("orders:read")`)
//	policy.Condition = permits
//
// An expression sees
//
//	request   .method .host .path .query .address: strings, as canonical as
//	          the decision has them (.path is decoded once, .query is raw);
//	          .headers: a map from lower-case names to values
//	identity  .id .email .org .kind: strings; .roles: a list of strings
//	claims    the token's claims, a map; empty for other kinds
//	session   the session's record, a map; empty for other kinds
//
// and CEL's standard functions with the string extensions (split, lowerAscii,
// …). It is typed: a misspelt field of request or identity does not compile,
// and the result must be a bool. What is not in claims or session is an error
// when it is asked for, and an error refuses; has(claims.scope) asks first.
//
// Evaluation is bounded: an expression that costs too much, over a large list
// or a long string, is an error too.
package condition

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"

	"github.com/gatehouse-auth/gatehouse/authz"
)

// Names are those that an expression may speak of, for who got one wrong.
const Names = "request (method, host, path, query, address, headers), identity (id, email, roles, org, kind), claims and session"

const (
	// maxLength bounds an expression's text, in bytes.
	maxLength = 8 << 10
	// maxCost bounds an evaluation, in CEL's units: about one for each
	// operation, and one for each ten bytes that a string function reads.
	maxCost = 100_000
)

// The types that expressions see. The field names are those of the tags.
type (
	request struct {
		Method  string            `cel:"method"`
		Host    string            `cel:"host"`
		Path    string            `cel:"path"`
		Query   string            `cel:"query"`
		Address string            `cel:"address"`
		Headers map[string]string `cel:"headers"`
	}
	identity struct {
		ID    string   `cel:"id"`
		Email string   `cel:"email"`
		Roles []string `cel:"roles"`
		Org   string   `cel:"org"`
		Kind  string   `cel:"kind"`
	}
)

var newEnvironment = func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.EnableMacroCallTracking(), // so that Parts can write macros as they were
		ext.NativeTypes(ext.ParseStructTag("cel"), reflect.TypeFor[*request](), reflect.TypeFor[*identity]()),
		ext.Strings(),
		cel.Variable("request", cel.ObjectType("condition.request")),
		cel.Variable("identity", cel.ObjectType("condition.identity")),
		cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("session", cel.MapType(cel.StringType, cel.DynType)),
	)
}

// Compile returns an expression as [authz.Policy] wants it. Its error says in
// one line what is wrong and in which column. The result is safe for
// concurrent use.
func Compile(expression string) (func(*authz.Request, *authz.Principal) (bool, error), error) {
	if len(expression) > maxLength {
		return nil, fmt.Errorf("%d bytes long; %d are allowed", len(expression), maxLength)
	}
	env, err := newEnvironment()
	if err != nil {
		return nil, err
	}
	checked, issues := env.Compile(expression)
	if err := firstIssue(issues); err != nil {
		return nil, err
	}
	if out := checked.OutputType(); !out.IsExactType(types.BoolType) && !out.IsExactType(types.DynType) {
		return nil, fmt.Errorf("it is a %s; a condition must be true or false", out)
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, err
	}
	headers := readsHeaders(checked)
	return func(r *authz.Request, p *authz.Principal) (bool, error) {
		out, _, err := program.Eval(&activation{request: r, principal: p, headers: headers})
		if err != nil {
			return false, discreet(err, expression)
		}
		result, ok := out.Value().(bool)
		if !ok {
			return false, fmt.Errorf("it is a %s, not a bool", out.Type().TypeName())
		}
		return result, nil
	}, nil
}

// discreet is an error of an evaluation without the texts that it repeats, which
// may be credentials: a header that is no timestamp, or the name of what is not
// there, where the expression doesn't spell it. Errors are logged.
func discreet(err error, expression string) error {
	text := quotation.ReplaceAllString(err.Error(), `"…"`)
	if said, key, ok := strings.Cut(text, "no such key: "); ok && !strings.Contains(expression, key) {
		text = said + "no such key"
	}
	return errors.New(text)
}

// quotation reaches to the last quotation mark: a text may hold some itself.
var quotation = regexp.MustCompile("(?s)[\"`].*[\"`]")

// Parts returns what a condition is made of, by its && outside of parentheses and
// functions: all of them must hold for it to hold. One without && has none.
func Parts(expression string) ([]authz.ConditionPart, error) {
	env, err := newEnvironment()
	if err != nil {
		return nil, err
	}
	checked, issues := env.Compile(expression)
	if err := firstIssue(issues); err != nil {
		return nil, err
	}
	operands := conjuncts(checked.NativeRep().Expr())
	if len(operands) < 2 {
		return nil, nil
	}
	parts := make([]authz.ConditionPart, len(operands))
	for i, e := range operands {
		text, err := cel.ExprToString(e, checked.NativeRep().SourceInfo())
		if err != nil {
			return nil, err
		}
		parts[i].Text = text
		if parts[i].Holds, err = Compile(text); err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
	}
	return parts, nil
}

func conjuncts(e ast.Expr) []ast.Expr {
	if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != operators.LogicalAnd {
		return []ast.Expr{e}
	}
	var all []ast.Expr
	for _, operand := range e.AsCall().Args() {
		all = append(all, conjuncts(operand)...)
	}
	return all
}

func firstIssue(issues *cel.Issues) error {
	if issues.Err() == nil {
		return nil
	}
	first := issues.Errors()[0]
	message := fmt.Sprintf("line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, first.Message)
	return errors.New(strings.Join(strings.Fields(message), " "))
}

// readsHeaders reports whether an expression can read request.headers: only
// then is the map made. Where request is used as a whole it can, by an index say.
func readsHeaders(checked *cel.Ast) bool {
	root := ast.NavigateAST(checked.NativeRep())
	for _, e := range ast.MatchDescendants(root, ast.KindMatcher(ast.SelectKind)) {
		if e.AsSelect().FieldName() == "headers" {
			return true
		}
	}
	for _, e := range ast.MatchDescendants(root, ast.KindMatcher(ast.IdentKind)) {
		if parent, ok := e.Parent(); e.AsIdent() == "request" && (!ok || parent.Kind() != ast.SelectKind) {
			return true
		}
	}
	return false
}

// activation gives an expression its variables, each when it is asked for.
type activation struct {
	request   *authz.Request
	principal *authz.Principal
	headers   bool
}

var _ interpreter.Activation = (*activation)(nil)

// Parent implements [interpreter.Activation]: there is none.
func (*activation) Parent() interpreter.Activation { return nil }

// ResolveName implements [interpreter.Activation].
func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case "request":
		r := &request{
			Method: text(a.request.Method), Host: a.request.Host, Path: text(a.request.Path), Query: text(a.request.Query),
			Headers: map[string]string{},
		}
		if a.request.Address.IsValid() {
			r.Address = a.request.Address.String()
		}
		if a.headers {
			for name, value := range a.request.Headers.All() {
				r.Headers[text(name)] = text(value)
			}
		}
		return r, true
	case "identity":
		p := a.principal
		return &identity{ID: p.ID, Email: p.Email, Roles: p.Roles, Org: p.Organization, Kind: string(p.Kind)}, true
	case "claims":
		return plain(a.principal.Claims), true
	case "session":
		return plain(a.principal.Session), true
	}
	return nil, false
}

// text makes a CEL string, which is Unicode.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// plain returns a decoded JSON object as CEL knows values: numbers are int
// where they are whole and fit, else double.
func plain(object map[string]any) map[string]any {
	out := make(map[string]any, len(object))
	for name, value := range object {
		out[name] = plainValue(value)
	}
	return out
}

func plainValue(value any) any {
	switch v := value.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
		return v.String() // out of range of a double: comparable as text only
	case map[string]any:
		return plain(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plainValue(v[i])
		}
		return out
	}
	return value
}
