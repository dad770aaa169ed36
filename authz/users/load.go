package users

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/internal/yamltext"
)

// maxFile bounds what is read, far above a file that somebody keeps by hand.
const maxFile = 64 << 20

// Load reads a users file. The error has everything that is wrong with it, one
// line each: file:line:column: key: what is wrong and what to do. It shows no
// hash.
func Load(path string) (*File, error) {
	source, err := os.Open(path) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, err
	}
	defer func() { _ = source.Close() }()
	text, err := io.ReadAll(io.LimitReader(source, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxFile:
		return nil, fmt.Errorf("%s: more than %d MiB: users as many as these need a user store of your own", path, maxFile>>20)
	}
	return Parse(path, text)
}

// Parse is Load for a text. name is what its errors call it.
func Parse(name string, text []byte) (*File, error) {
	p := &parser{name: name, ids: map[string]int{}, emails: map[string]int{}}
	p.document(text)
	if p.problems != nil {
		return nil, errors.Join(p.problems...)
	}
	f := newFile(p.users)
	f.warnings = p.warnings
	return f, nil
}

// parser collects users and problems.
type parser struct {
	name     string
	users    []user
	ids      map[string]int // lines
	emails   map[string]int // by fold
	problems []error
	warnings []string
}

func (p *parser) line(n *yaml.Node, key, format string, args ...any) string {
	where := p.name
	if n != nil && n.Line > 0 {
		where = fmt.Sprintf("%s:%d:%d", p.name, n.Line, n.Column)
	}
	if key != "" {
		where += ": " + key
	}
	return where + ": " + fmt.Sprintf(format, args...)
}

func (p *parser) refuse(n *yaml.Node, key, format string, args ...any) {
	p.problems = append(p.problems, errors.New(p.line(n, key, format, args...)))
}

const form = "want users:, a list of users with id, email and password_hash, and roles and organizations if they have any"

func (p *parser) document(text []byte) {
	if f := yamltext.BadCharacter(text); f != nil {
		p.refuse(&yaml.Node{Line: f.Line, Column: f.Column}, "", "%s", f.Message)
		return
	}
	var doc yaml.Node
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		panic("users: a YAML loader without options: " + err.Error())
	}
	if err := loader.Load(&doc); err != nil && !errors.Is(err, io.EOF) {
		p.broken(err)
		return
	}
	var second yaml.Node
	if err := loader.Load(&second); err == nil {
		p.refuse(&second, "", "a second document begins here; a users file is one document")
		return
	} else if !errors.Is(err, io.EOF) {
		p.broken(err)
		return
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		p.refuse(nil, "", "empty; %s", form)
		return
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		p.refuse(root, "", "%s", form)
		return
	}
	var list *yaml.Node
	p.members(root, "", map[string]func(*yaml.Node, string){"users": func(n *yaml.Node, _ string) { list = n }})
	switch {
	case list == nil:
		if p.problems == nil {
			p.refuse(root, "users", "missing; %s", form)
		}
	case list.Kind != yaml.SequenceNode:
		p.refuse(list, "users", "not a list; %s", form)
	default:
		for i, n := range list.Content {
			p.user(n, fmt.Sprintf("users[%d]", i))
		}
	}
}

// broken reports what is not YAML. The library's message may quote the text, so
// only its place is told.
func (p *parser) broken(err error) {
	n := &yaml.Node{}
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		n.Line, n.Column = e.Mark.Line, e.Mark.Column
	}
	p.refuse(n, "", "not YAML; mind the indentation, and put a hash into single quotes if in doubt")
}

// members hands each member of a mapping to whom it belongs.
func (p *parser) members(n *yaml.Node, key string, takers map[string]func(n *yaml.Node, key string)) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		at := name.Value
		if key != "" {
			at = key + "." + name.Value
		}
		take, known := takers[name.Value]
		switch {
		case !known && n.Style&yaml.FlowStyle != 0 && parameter.MatchString(name.Value):
			p.refuse(name, key, "a piece of a hash: within { } a comma ends a value, so put the hash into single quotes")
		case name.Kind != yaml.ScalarNode || !known:
			p.refuse(name, key, "unknown key; %s", form)
		case seen[name.Value]:
			p.refuse(name, at, "there twice; keep one")
		default:
			seen[name.Value] = true
			take(value, at)
		}
	}
}

// parameter is what a hash falls into at its commas: t=2, or p=1$salt$key.
var parameter = regexp.MustCompile(`^[mtp]=[0-9]`)

func (p *parser) user(n *yaml.Node, key string) {
	if n.Kind != yaml.MappingNode {
		p.refuse(n, key, "not a user; %s", form)
		return
	}
	var u user
	places := map[string]*yaml.Node{}
	text := func(target *string) func(*yaml.Node, string) {
		return func(n *yaml.Node, at string) {
			places[strings.TrimPrefix(at, key+".")] = n
			*target, _ = p.text(n, at)
		}
	}
	list := func(target *[]string) func(*yaml.Node, string) {
		return func(n *yaml.Node, at string) { *target = p.list(n, at) }
	}
	before := len(p.problems)
	p.members(n, key, map[string]func(*yaml.Node, string){
		"id": text(&u.ID), "email": text(&u.Email), "password_hash": text(&u.hash),
		"roles": list(&u.Roles), "organizations": list(&u.Organizations),
	})
	if len(p.problems) > before {
		return
	}
	p.check(n, key, u, places)
	if len(u.Organizations) > 0 {
		u.Organization = u.Organizations[0]
	}
	p.users = append(p.users, u)
}

// check says what is wrong with the values of a user.
func (p *parser) check(n *yaml.Node, key string, u user, places map[string]*yaml.Node) {
	at := func(name string) *yaml.Node {
		if place := places[name]; place != nil {
			return place
		}
		return n
	}
	switch first, again := p.ids[u.ID]; {
	case u.ID == "":
		p.refuse(at("id"), key+".id", "missing; give the id by which services know the user")
	case strings.HasPrefix(u.ID, authz.ServicePrefix):
		p.refuse(at("id"), key+".id", "begins with %s, as only the ids of internal callers do; choose another", authz.ServicePrefix)
	case again:
		p.refuse(at("id"), key+".id", "the id of the user on line %d; give each user their own", first)
	default:
		p.ids[u.ID] = at("id").Line
	}
	switch first, again := p.emails[fold(u.Email)]; {
	case strings.TrimSpace(u.Email) == "":
		p.refuse(at("email"), key+".email", "missing; give what the user logs in with")
	case again:
		p.refuse(at("email"), key+".email", "the address of the user on line %d, where case counts for nothing; give each user their own", first)
	default:
		p.emails[fold(u.Email)] = at("email").Line
	}
	if problem := checkHash(u.hash); problem != "" {
		p.refuse(at("password_hash"), key+".password_hash", "%s", problem)
		return
	}
	if doubt := weakHash(u.hash); doubt != "" {
		p.warnings = append(p.warnings, p.line(at("password_hash"), key+".password_hash", "%s", doubt))
	}
}

// text takes a string; a number is one, as it is written.
func (p *parser) text(n *yaml.Node, key string) (_ string, ok bool) {
	if n.Kind != yaml.ScalarNode || !slices.Contains([]string{"!!str", "!!int", "!!timestamp"}, n.Tag) {
		p.refuse(n, key, "not a text; put it into quotes")
		return "", false
	}
	if strings.ContainsFunc(n.Value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		p.refuse(n, key, "has a line break or another control character; take it out")
		return "", false
	}
	return n.Value, true
}

func (p *parser) list(n *yaml.Node, key string) []string {
	if n.Kind != yaml.SequenceNode {
		p.refuse(n, key, "not a list; write [one, another]")
		return nil
	}
	all := []string{}
	for i, element := range n.Content {
		at := fmt.Sprintf("%s[%d]", key, i)
		value, ok := p.text(element, at)
		switch {
		case !ok:
		case value == "":
			p.refuse(element, at, "empty; take it out")
		case slices.Contains(all, value):
			p.refuse(element, at, "there twice; keep one")
		default:
			all = append(all, value)
		}
	}
	return all
}
