package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/internal/yamltext"
)

// Bounds of what is read. A dump of a large mesh has some ten megabytes; an
// alias costs its author three bytes and can stand for any number of nodes.
const (
	maxBytes   = 128 << 20
	maxNodes   = 8 << 20
	maxAliased = 500_000
	maxDepth   = 200
)

// shape is what sort of value a node is.
type shape int

const (
	nullShape shape = iota
	boolShape
	numberShape
	stringShape
	listShape
	mappingShape
)

// node is a value of a document, from YAML or JSON, with its place. Aliases and
// merge keys are resolved: what stands behind an alias is a copy, whose
// outermost place is that of the alias.
type node struct {
	parent       *node
	name         string // the key in the parent; "" in a list
	index        int    // in the list that is the parent
	line, column int    // of the value
	keyLine      int    // of the key, 0 without
	keyColumn    int

	shape  shape
	text   string // of a scalar; numbers as JSON has them
	plain  bool   // a YAML scalar without quotes
	block  bool   // a YAML literal block, whose text begins on the next line
	fields []*node
	items  []*node
	byName map[string]int // where fields has a name, once they are many

	file string // of the outermost node
	// What decode has found out about a typed configuration.
	typeName string // the message's full name
	unread   bool   // a type that we don't have
}

// at returns the value of a key, nil when there is none. It works on nil.
func (n *node) at(keys ...string) *node {
	for _, key := range keys {
		if n == nil {
			return nil
		}
		i := n.field(key)
		if i < 0 {
			return nil
		}
		n = n.fields[i]
	}
	return n
}

// manyFields is from where on a mapping has an index of its keys.
const manyFields = 32

// field returns the index of a key in fields, -1 when there is none.
func (n *node) field(name string) int {
	if n.byName != nil {
		if i, ok := n.byName[name]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(n.fields, func(f *node) bool { return f.name == name })
}

// adopt makes a node the value of a new key, which its name is.
func (n *node) adopt(child *node) {
	child.parent = n
	n.fields = append(n.fields, child)
	switch {
	case n.byName != nil:
		n.byName[child.name] = len(n.fields) - 1
	case len(n.fields) > manyFields:
		n.byName = make(map[string]int, len(n.fields))
		for i, f := range n.fields {
			n.byName[f.name] = i
		}
	}
}

// replaceFields gives a mapping other keys.
func (n *node) replaceFields(fields []*node) {
	n.fields, n.byName = nil, nil
	for _, f := range fields {
		n.adopt(f)
	}
}

// near is at, or as far as there is a value on the way.
func (n *node) near(keys ...string) *node {
	for _, key := range keys {
		next := n.at(key)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// item returns an element of a list, the list itself when there is none.
func (n *node) item(i int) *node {
	if n == nil || i >= len(n.items) {
		return n
	}
	return n.items[i]
}

// list returns the elements of a list. A value that stands for a list of one
// is that list.
func (n *node) list() []*node {
	switch {
	case n == nil, n.shape == nullShape:
		return nil
	case n.shape == listShape:
		return n.items
	}
	return []*node{n}
}

// string returns the text of a scalar, "" for anything else.
func (n *node) string() string {
	if n == nil {
		return ""
	}
	return n.text
}

// strings returns the texts of a list of scalars.
func (n *node) strings() []string {
	var out []string
	for _, item := range n.list() {
		out = append(out, item.text)
	}
	return out
}

// truth reads a value as a bool. Envoy takes "true" in quotes, too, and both
// Envoy and Kubernetes the words of YAML 1.1.
func (n *node) truth() (value, ok bool) {
	switch {
	case n == nil:
		return false, false
	case n.shape == boolShape:
		return n.text == "true", true
	case n.shape != stringShape:
		return false, false
	}
	switch text := strings.ToLower(n.text); text {
	case "true", "false":
		return text == "true", true
	case "yes", "on", "y":
		return true, n.plain
	case "no", "off", "n":
		return false, n.plain
	}
	return false, false
}

func (n *node) isTrue() bool {
	value, ok := n.truth()
	return ok && value
}

func (n *node) root() *node {
	for n.parent != nil {
		n = n.parent
	}
	return n
}

// place returns where the setting stands: the key, where there is one.
func (n *node) place() (line, column int) {
	if n.keyLine > 0 {
		return n.keyLine, n.keyColumn
	}
	return n.line, n.column
}

// path returns the way from the document to the node, as in
// static_resources.listeners[0].name.
func (n *node) path() string {
	var steps []string
	for ; n.parent != nil; n = n.parent {
		switch {
		case n.name == "":
			steps = append(steps, "["+strconv.Itoa(n.index)+"]")
		case strings.ContainsAny(n.name, `.[]"/ `):
			steps = append(steps, "["+strconv.Quote(n.name)+"]")
		default:
			steps = append(steps, "."+n.name)
		}
	}
	slices.Reverse(steps)
	return strings.TrimPrefix(strings.Join(steps, ""), ".")
}

// things are the keys whose elements people know by name.
var things = map[string]string{
	"listeners": "listener", "static_listeners": "listener", "dynamic_listeners": "listener",
	"virtual_hosts": "virtual host", "routes": "route", "http_filters": "filter",
	"clusters": "cluster", "static_clusters": "cluster", "dynamic_active_clusters": "cluster",
	"extensionProviders": "provider", "http": "route", "rules": "rule",
}

// within names the things around a node, as in "listener gateway, route admin".
func (n *node) within() string {
	var names []string
	for ; n != nil; n = n.parent {
		if isKubernetes(n) {
			if name := n.at("metadata", "name").string(); name != "" {
				names = append(names, n.at("kind").string()+" "+name)
			}
		}
		if n.parent == nil || n.name != "" {
			continue
		}
		if thing, name := things[n.parent.name], n.title(); thing != "" && name != "" {
			names = append(names, thing+" "+name)
		}
	}
	slices.Reverse(names)
	return strings.Join(names, ", ")
}

// title is what a thing is called: its name, a route without one by what it
// matches.
func (n *node) title() string {
	for _, at := range [][]string{{"name"}, {"listener", "name"}, {"cluster", "name"}, {"active_state", "listener", "name"}, {"route_config", "name"}} {
		if name := n.at(at...).string(); name != "" {
			return name
		}
	}
	match := n.at("match")
	for _, key := range []string{"path", "prefix", "path_separated_prefix"} {
		if text := match.at(key).string(); text != "" {
			return text
		}
	}
	return match.at("safe_regex", "regex").string()
}

// syntaxError says where a text is neither YAML nor JSON.
type syntaxError struct {
	line, column int
	message      string
}

func (e *syntaxError) Error() string { return e.message }

func wrong(line, column int, format string, args ...any) error {
	return &syntaxError{max(1, line), max(1, column), fmt.Sprintf(format, args...)}
}

// duplicate is a key that a mapping has twice. Envoy takes the last one.
type duplicate struct{ first, last *node }

// documents is what a text holds.
type documents struct {
	roots      []*node
	duplicates []duplicate
	merges     []*node // mappings with a merge key
}

// parse reads all documents of a text: JSON where it is JSON, else YAML.
func parse(file string, text []byte) (*documents, error) {
	if len(text) > maxBytes {
		return nil, wrong(1, 1, "the file has more than %d MiB; give a dump of one gateway, or only some of its resources", maxBytes>>20)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if trimmed := bytes.TrimLeft(text, " \t\r\n"); len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
		docs, err := parseJSON(file, text)
		if err == nil || strings.HasSuffix(file, ".json") {
			return docs, err
		}
		// YAML's own flow form looks like this, too.
		if other, yamlErr := parseYAML(file, text); yamlErr == nil {
			return other, nil
		}
		return nil, err
	}
	return parseYAML(file, text)
}

// reader builds nodes, and counts them.
type reader struct {
	docs    documents
	nodes   int
	aliased int
	inAlias int
	open    map[*yaml.Node]bool // anchors that are being copied
}

func (r *reader) count(line, column, depth int) error {
	if r.nodes++; r.nodes > maxNodes {
		return wrong(line, column, "more than %d values; give a dump of one gateway, or only some of its resources", maxNodes)
	}
	if r.inAlias > 0 {
		if r.aliased++; r.aliased > maxAliased {
			return wrong(line, column, "aliases stand for more than %d values; write some of them out", maxAliased)
		}
	}
	if depth > maxDepth {
		return wrong(line, column, "nested more than %d levels deep", maxDepth)
	}
	return nil
}

func parseYAML(file string, text []byte) (*documents, error) {
	if f := yamltext.BadCharacter(text); f != nil {
		return nil, wrong(f.Line, f.Column, "%s", f.Message)
	}
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("a YAML loader without options: %w", err)
	}
	r := &reader{open: map[*yaml.Node]bool{}}
	for {
		var doc yaml.Node
		switch err := loader.Load(&doc); {
		case errors.Is(err, io.EOF):
			return &r.docs, nil
		case err != nil:
			return nil, yamlSyntax(text, err)
		}
		if len(doc.Content) == 0 {
			continue
		}
		root, err := r.yaml(doc.Content[0], 0)
		if err != nil {
			return nil, err
		}
		if root.shape != nullShape { // what is between two lines of dashes
			root.file = file
			r.docs.roots = append(r.docs.roots, root)
		}
	}
}

// yamlSyntax makes the parser's error ours, and says what the usual causes are.
func yamlSyntax(text []byte, err error) error {
	f := yamltext.Syntax(text, err)
	if bytes.Contains(text, []byte("{{")) {
		f.Message += "; a template has to be rendered first ('helm template … | gatehouse envoy lint -')"
	}
	return wrong(f.Line, f.Column, "%s", f.Message)
}

// yaml copies a YAML node.
func (r *reader) yaml(y *yaml.Node, depth int) (*node, error) {
	if err := r.count(y.Line, y.Column, depth); err != nil {
		return nil, err
	}
	n := &node{line: y.Line, column: y.Column}
	switch y.Kind {
	case yaml.AliasNode:
		target := y.Alias
		if target == nil || r.open[target] {
			return nil, wrong(y.Line, y.Column, "the alias *%s stands inside of what it stands for", y.Value)
		}
		r.open[target] = true
		r.inAlias++
		copied, err := r.yaml(target, depth+1)
		r.inAlias--
		delete(r.open, target)
		if err != nil {
			return nil, err
		}
		copied.line, copied.column = y.Line, y.Column
		return copied, nil
	case yaml.SequenceNode:
		n.shape = listShape
		for i, item := range y.Content {
			child, err := r.yaml(item, depth+1)
			if err != nil {
				return nil, err
			}
			child.parent, child.index = n, i
			n.items = append(n.items, child)
		}
	case yaml.MappingNode:
		n.shape = mappingShape
		return n, r.mapping(n, y, depth)
	case yaml.ScalarNode:
		n.scalar(y)
	case yaml.DocumentNode, yaml.StreamNode:
		return nil, wrong(y.Line, y.Column, "not valid YAML: a document inside of a document")
	}
	return n, nil
}

func (r *reader) mapping(n *node, y *yaml.Node, depth int) error {
	var merged []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := y.Content[i]
		if key.Kind == yaml.AliasNode && key.Alias != nil {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return wrong(y.Content[i].Line, y.Content[i].Column, "a key has to be a word")
		}
		value, err := r.yaml(y.Content[i+1], depth+1)
		if err != nil {
			return err
		}
		if key.ShortTag() == "!!merge" {
			r.docs.merges = append(r.docs.merges, n)
			merged = append(merged, value.list()...)
			continue
		}
		value.keyLine, value.keyColumn = y.Content[i].Line, y.Content[i].Column
		r.set(n, key.Value, value)
	}
	// What the mapping says itself wins over what is merged into it, and what is
	// merged first over what is merged later.
	for _, source := range merged {
		if source.shape != mappingShape {
			return wrong(source.line, source.column, "a merge key (<<) takes mappings only")
		}
		for _, field := range source.fields {
			if n.at(field.name) == nil {
				n.adopt(field)
			}
		}
	}
	return nil
}

// set gives a mapping a key. Of two equal ones the last counts, as in Envoy.
func (r *reader) set(n *node, name string, value *node) {
	value.parent, value.name = n, name
	if i := n.field(name); i >= 0 {
		r.docs.duplicates = append(r.docs.duplicates, duplicate{n.fields[i], value})
		n.fields[i] = value
		return
	}
	n.adopt(value)
}

// scalar takes over the value of a YAML scalar, numbers in the form of JSON.
func (n *node) scalar(y *yaml.Node) {
	n.text = y.Value
	n.plain = y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	n.block = y.Style&yaml.LiteralStyle != 0
	switch y.ShortTag() {
	case "!!null":
		n.shape, n.text = nullShape, ""
	case "!!bool":
		n.shape, n.text = boolShape, strings.ToLower(y.Value)
	case "!!int":
		n.number(strings.ReplaceAll(y.Value, "_", ""))
	case "!!float":
		n.float(strings.ReplaceAll(y.Value, "_", ""))
	default:
		n.shape = stringShape
	}
}

func (n *node) number(text string) {
	n.shape = stringShape // what is neither: protojson will say so
	if i, err := strconv.ParseInt(text, 0, 64); err == nil {
		n.shape, n.text = numberShape, strconv.FormatInt(i, 10)
	} else if u, err := strconv.ParseUint(text, 0, 64); err == nil {
		n.shape, n.text = numberShape, strconv.FormatUint(u, 10)
	}
}

func (n *node) float(text string) {
	n.shape = stringShape
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return
	}
	if encoded, err := json.Marshal(f); err == nil {
		n.shape, n.text = numberShape, string(encoded)
	}
}

// parseJSON reads one or several JSON values.
func parseJSON(file string, text []byte) (*documents, error) {
	p := &jsonReader{text: text, decoder: json.NewDecoder(bytes.NewReader(text)), line: 1}
	p.decoder.UseNumber()
	for {
		token, line, column, err := p.token()
		if errors.Is(err, io.EOF) {
			return &p.docs, nil
		}
		if err != nil {
			return nil, err
		}
		root, err := p.value(token, line, column, 0)
		if err != nil {
			return nil, err
		}
		root.file = file
		p.docs.roots = append(p.docs.roots, root)
	}
}

type jsonReader struct {
	reader
	text    []byte
	decoder *json.Decoder
	// The place of text[offset].
	offset, line, lineStart int
}

// token returns the next token and where it begins.
func (p *jsonReader) token() (token json.Token, line, column int, err error) {
	start := int(p.decoder.InputOffset())
	for start < len(p.text) && strings.IndexByte(" \t\r\n,:", p.text[start]) >= 0 {
		start++
	}
	for ; p.offset < start; p.offset++ {
		if p.text[p.offset] == '\n' {
			p.line++
			p.lineStart = p.offset + 1
		}
	}
	line, column = p.line, 1+utf8.RuneCount(p.text[p.lineStart:min(start, len(p.text))])
	token, err = p.decoder.Token()
	switch {
	case err == nil || errors.Is(err, io.EOF) && len(bytes.TrimSpace(p.text[min(start, len(p.text)):])) == 0:
		return token, line, column, err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, line, column, wrong(line, column, "not valid JSON: it ends in the middle of a value")
	}
	return nil, line, column, wrong(line, column, "not valid JSON: %v", err)
}

func (p *jsonReader) value(token json.Token, line, column, depth int) (*node, error) {
	if err := p.count(line, column, depth); err != nil {
		return nil, err
	}
	n := &node{line: line, column: column}
	switch t := token.(type) {
	case nil:
		n.shape = nullShape
	case bool:
		n.shape, n.text = boolShape, strconv.FormatBool(t)
	case json.Number:
		n.shape, n.text = numberShape, t.String()
	case string:
		n.shape, n.text = stringShape, t
	case json.Delim:
		switch t {
		case '{':
			n.shape = mappingShape
			return n, p.object(n, depth)
		case '[':
			n.shape = listShape
			return n, p.array(n, depth)
		default:
			return nil, wrong(line, column, "not valid JSON: %q where a value is expected", t.String())
		}
	}
	return n, nil
}

func (p *jsonReader) object(n *node, depth int) error {
	for {
		token, keyLine, keyColumn, err := p.token()
		if err != nil {
			return unfinished(err, keyLine, keyColumn)
		}
		key, ok := token.(string)
		if !ok {
			return nil // the brace that closes it: anything else is no key for the decoder, either
		}
		token, line, column, err := p.token()
		if err != nil {
			return unfinished(err, line, column)
		}
		value, err := p.value(token, line, column, depth+1)
		if err != nil {
			return err
		}
		value.keyLine, value.keyColumn = keyLine, keyColumn
		p.set(n, key, value)
	}
}

func (p *jsonReader) array(n *node, depth int) error {
	for {
		token, line, column, err := p.token()
		if err != nil {
			return unfinished(err, line, column)
		}
		if token == json.Delim(']') {
			return nil
		}
		value, err := p.value(token, line, column, depth+1)
		if err != nil {
			return err
		}
		value.parent, value.index = n, len(n.items)
		n.items = append(n.items, value)
	}
}

func unfinished(err error, line, column int) error {
	if errors.Is(err, io.EOF) {
		return wrong(line, column, "not valid JSON: it ends in the middle of a value")
	}
	return err
}
