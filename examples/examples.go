// Package examples holds the policies that Gatehouse ships, each with a script
// that tries it, and the gateway that all of them run behind; it is no library.
// README.md says which to choose.
package examples

import (
	"bytes"
	_ "embed" // for the gateway
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"
)

//go:generate go run envoy_gen.go

// Envoy is envoy.yaml: what [Gateway] makes of the shipped gateway. Package
// proc rewrites its ports.
//
//go:embed envoy.yaml
var Envoy string

const header = `# Code generated from envoy/envoy.yaml by examples/envoy_gen.go; DO NOT EDIT.
#
# The same gateway for policies that gatehouse.yaml chooses by its routes: no
# route here names one. A path that the shipped file holds to a stricter policy
# in any case (/users/ADMIN) is not there at all here: routes of gatehouse.yaml
# tell upper from lower case. Change the other file and run 'make generate'.

`

// Gateway returns the shipped gateway with routes that name no policy. It
// fails where the shipped one has changed so that it can't be made.
func Gateway(shipped []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Load(shipped, &doc); err != nil {
		return nil, fmt.Errorf("read the shipped gateway: %w", err)
	}
	g := gateway{skip: find(&doc, func(n *yaml.Node) bool { return n.Anchor == "skip" })}
	if g.skip == nil {
		return nil, errors.New("the shipped gateway has no anchor &skip for routes that are not checked")
	}
	g.each(&doc)
	if g.named == 0 {
		return nil, errors.New("the shipped gateway has no route that names a policy")
	}
	text, err := yaml.Dump(&doc)
	if err != nil {
		return nil, fmt.Errorf("write the gateway: %w", err)
	}
	before, after, found := bytes.Cut(text, []byte(shippedComment))
	if !found {
		return nil, errors.New("the shipped gateway says something else above the routes that are checked: adapt the text that replaces it")
	}
	return slices.Concat([]byte(header), before, []byte(comment), after), nil
}

// What stands above the routes that are checked, in the shipped gateway and in
// ours.
const (
	shippedComment = `              # -- Routes that are checked, each by the policy that it names. Where a
              # stricter path lies below a looser one, it matches in any case: Express
              # and others serve /users/ADMIN as /users/admin.
`
	comment = `              # -- Routes that are checked, by the policy that Gatehouse's own routes
              # choose. Those tell upper from lower case, and Express and others serve
              # /users/ADMIN as /users/admin: so another case of a stricter path is 404.
`
)

type gateway struct {
	skip  *yaml.Node // what a route has that is not checked
	named int        // routes that named a policy
}

// each visits every list of routes once: aliases are not followed.
func (g *gateway) each(n *yaml.Node) {
	if routes := value(n, "routes"); routes != nil {
		g.routes(routes)
	}
	for _, child := range n.Content {
		g.each(child)
	}
}

func (g *gateway) routes(list *yaml.Node) {
	var routes []*yaml.Node
	for _, route := range list.Content {
		const filters = "typed_per_filter_config"
		if value(value(value(value(route, filters), "envoy.filters.http.ext_authz"), "check_settings"), "context_extensions") == nil {
			routes = append(routes, route)
			continue
		}
		g.named++
		remove(route, filters)
		routes = append(routes, route)
		if match := value(route, "match"); remove(match, "case_sensitive") {
			routes = append(routes, g.otherCase(value(route, "name").Value, match))
		}
	}
	list.Content = routes
}

// otherCase answers 404 to what a route would match but for upper and lower
// case.
func (g *gateway) otherCase(name string, match *yaml.Node) *yaml.Node {
	match = &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle, Content: slices.Clone(match.Content)}
	match.Content = append(match.Content, text("case_sensitive"), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "false"})
	return mapping(0,
		text("name"), text(name+"-in-another-case"),
		text("match"), match,
		text("direct_response"), mapping(yaml.FlowStyle, text("status"), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: "404"}),
		text("typed_per_filter_config"), &yaml.Node{Kind: yaml.AliasNode, Value: g.skip.Anchor, Alias: g.skip},
	)
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func mapping(style yaml.Style, content ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Style: style, Content: content}
}

// find returns the first node for which is says so, nil when there is none.
func find(n *yaml.Node, is func(*yaml.Node) bool) *yaml.Node {
	if is(n) {
		return n
	}
	for _, child := range n.Content {
		if found := find(child, is); found != nil {
			return found
		}
	}
	return nil
}

// value returns the value of a key in a mapping, nil when there is none.
func value(n *yaml.Node, key string) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// remove takes a key out of a mapping and reports whether it was there.
func remove(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = slices.Delete(slices.Clone(n.Content), i, i+2)
			return true
		}
	}
	return false
}
