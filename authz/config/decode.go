package config

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/internal/yamltext"
)

// mostAliased bounds the nodes that are reached through aliases and merge
// keys. Every other node costs its author at least a byte of the file.
const mostAliased = 10_000

// place is where a key's value stands in the file, and what was written
// there; raw is "" for what could be a secret.
type place struct {
	line, column int
	raw          string
}

// decoder turns YAML nodes into a Config. It goes by the Go types, so an
// alias that contains itself ends where the types do.
type decoder struct {
	source   *source
	env      func(string) (string, bool)
	files    files
	problems []Problem
	aliased  int
	// broken has the keys that could not be decoded, around those that
	// contain one: checks of what values mean leave both alone, so that one
	// mistake is not reported twice.
	broken, around map[string]bool
}

func newDecoder(s *source, env func(string) (string, bool), f files) *decoder {
	return &decoder{source: s, env: env, files: f, broken: map[string]bool{}, around: map[string]bool{}}
}

func child(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// named is child for a name of the operator's choice, which may have dots.
func named(key, name string) string {
	if strings.Contains(name, ".") {
		return key + `["` + name + `"]`
	}
	return child(key, name)
}

func element(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }

// parent returns the key around a key, "" around the outermost.
func parent(key string) string { return key[:max(0, strings.LastIndexAny(key, ".["))] }

// at returns the place of a key, or of the nearest one around it.
func (s *source) at(key string) place {
	for {
		if p, ok := s.places[key]; ok || key == "" {
			return p
		}
		key = parent(key)
	}
}

func (s *source) problem(key, message string) Problem {
	p := s.at(key)
	return Problem{File: s.file, Line: p.line, Column: p.column, Key: key, Message: message}
}

// report records a problem of key at the place of n.
func (d *decoder) report(n *yaml.Node, key, message string, args ...any) {
	d.problems = append(d.problems, Problem{
		File: d.source.file, Line: n.Line, Column: n.Column,
		Key: key, Message: fmt.Sprintf(message, args...),
	})
}

// fail is report of what leaves key without a value to go on with.
func (d *decoder) fail(n *yaml.Node, key, message string, args ...any) {
	d.report(n, key, message, args...)
	d.markBroken(key)
}

// refuse records a problem of key at the key's own place.
func (d *decoder) refuse(key, message string, args ...any) {
	d.problems = append(d.problems, d.source.problem(key, fmt.Sprintf(message, args...)))
}

func (d *decoder) markBroken(key string) {
	d.broken[key] = true
	for key != "" {
		key = parent(key)
		d.around[key] = true
	}
}

// intact reports whether everything at, below and above key was decoded.
func (d *decoder) intact(key string) bool {
	if d.around[key] {
		return false
	}
	for ; key != ""; key = parent(key) {
		if d.broken[key] {
			return false
		}
	}
	return !d.broken[""]
}

// document reads the one document of the file.
func (d *decoder) document(text []byte, c *Config) {
	d.defaults(reflect.ValueOf(c).Elem())
	if f := yamltext.BadCharacter(text); f != nil {
		d.fault(f)
		return
	}
	loader, err := yaml.NewLoader(strings.NewReader(string(text)))
	if err != nil {
		panic("config: a YAML loader without options: " + err.Error())
	}
	var doc, second yaml.Node
	d.source.places[""] = place{line: 1, column: 1}
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		return
	case err != nil:
		d.syntax(text, err)
		return
	}
	switch err := loader.Load(&second); {
	case err == nil:
		d.fail(&second, "", "a second document begins here, and a configuration is one; put all into the first")
		return
	case !errors.Is(err, io.EOF):
		d.syntax(text, err)
		return
	}
	d.value(doc.Content[0], reflect.ValueOf(c).Elem(), "", field{})
}

// syntax reports that the text is not YAML, and what the usual causes are.
func (d *decoder) syntax(text []byte, err error) {
	f := yamltext.Syntax(text, err)
	if f.Says(text, "${") && strings.Contains(f.Message, "flow") {
		f.Message += `; inside [ ] and { } write "${NAME}" in quotes`
	}
	d.fault(f)
}

func (d *decoder) fault(f *yamltext.Fault) {
	d.fail(&yaml.Node{Line: f.Line, Column: f.Column}, "", "%s", f.Message)
}

// defaults sets every field of a struct to its default, deeply.
func (d *decoder) defaults(v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		fv := v.Field(f.index)
		switch {
		case f.fallback != nil:
			fresh := newDecoder(&source{places: map[string]place{}}, nil, nil)
			fresh.value(f.fallback, fv, f.key, f)
			if len(fresh.problems) > 0 {
				panic("config: default of " + Problems(fresh.problems).Error())
			}
		case fv.Kind() == reflect.Struct && !isScalar(fv.Type()):
			d.defaults(fv)
		}
	}
}

// isScalar tells the structs that are one value from those that have keys.
func isScalar(t reflect.Type) bool { return t == timeType || t == secretType || t == secretURLType }

// value decodes n into v. A null leaves v alone.
func (d *decoder) value(n *yaml.Node, v reflect.Value, key string, f field) {
	n, ok := d.follow(n, key)
	if !ok || isNull(n) {
		return
	}
	if n.Style&yaml.TaggedStyle != 0 || n.Tag == "!" {
		d.fail(n, key, "YAML tags are not used here; take it away, and put a value that is text in quotes")
		return
	}
	if _, placed := d.source.places[key]; !placed {
		d.source.places[key] = place{n.Line, n.Column, rawText(n, v.Type())}
	}
	switch {
	case v.Type() == durationType:
		d.duration(n, v, key, f)
	case v.Type() == timeType:
		d.date(n, v, key)
	case v.Type() == secretType, v.Type() == secretURLType, v.Type() == fileType, v.Kind() == reflect.String && f.enum == nil:
		d.text(n, v, key, f)
	case v.Kind() == reflect.String:
		d.word(n, v, key, f)
	case v.Kind() == reflect.Bool:
		d.boolean(n, v, key)
	case v.Kind() == reflect.Int:
		d.integer(n, v, key, f)
	case v.Type() == ratioType:
		d.ratio(n, v, key)
	case v.Kind() == reflect.Slice:
		d.list(n, v, key, f)
	case v.Kind() == reflect.Map:
		d.dictionary(n, v, key, f)
	case v.Kind() == reflect.Struct:
		d.structure(n, v, key)
	default:
		panic("config: no decoder for " + v.Type().String())
	}
}

func rawText(n *yaml.Node, t reflect.Type) string {
	if n.Kind != yaml.ScalarNode || t == secretType || t == secretURLType {
		return ""
	}
	return n.Value
}

// follow goes through aliases to what they stand for, and counts what is
// reached that way.
func (d *decoder) follow(n *yaml.Node, key string) (*yaml.Node, bool) {
	if n.Kind != yaml.AliasNode {
		return n, true
	}
	if d.aliased >= mostAliased {
		d.markBroken(key)
		return nil, false
	}
	if d.aliased += countNodes(n.Alias, mostAliased-d.aliased); d.aliased >= mostAliased {
		d.fail(n, key, "aliases stand for more than %d nodes in all; write the values out", mostAliased)
		return nil, false
	}
	return n.Alias, true
}

// countNodes counts the nodes under n, those under an alias not; it stops at
// most.
func countNodes(n *yaml.Node, most int) int {
	count := 1
	for _, c := range n.Content {
		if count >= most {
			break
		}
		count += countNodes(c, most-count)
	}
	return count
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Style&yaml.TaggedStyle == 0
}

// nodeName says what a node is, for messages. It never shows its text.
func nodeName(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	}
	switch n.Tag {
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "a number"
	}
	return "text"
}

// isText reports whether a scalar is text in the JSON schema of YAML, where
// dates are text.
func isText(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && (n.Tag == "!!str" || n.Tag == "!!timestamp" || n.Tag == "!!merge")
}

// pair is one entry of a mapping.
type pair struct {
	name       string
	key, value *yaml.Node
}

// pairs returns the entries of a mapping, those of merge keys behind its own.
func (d *decoder) pairs(n *yaml.Node, key string) []pair {
	entries, merged := d.ownPairs(n, key)
	lines := make(map[string]int, len(entries))
	entries = slices.DeleteFunc(entries, func(p pair) bool {
		line, again := lines[p.name]
		if again {
			d.report(p.key, named(key, shorten(p.name)), "given twice, first on line %d; keep one", line)
		} else {
			lines[p.name] = p.key.Line
		}
		return again
	})
	for _, source := range merged {
		for _, p := range d.merged(source, key) {
			if _, has := lines[p.name]; !has {
				lines[p.name] = p.key.Line
				entries = append(entries, p)
			}
		}
	}
	return entries
}

// ownPairs returns the entries of a mapping that are written in it, and the
// values of its merge keys apart.
func (d *decoder) ownPairs(n *yaml.Node, key string) (entries []pair, merged []*yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind == yaml.ScalarNode && k.Tag == "!!merge" && len(merged) > 0:
			d.fail(k, key, "a second merge key; merge a list, as in <<: [*a, *b]")
		case k.Kind == yaml.ScalarNode && k.Tag == "!!merge":
			merged = append(merged, value)
		case k.Kind != yaml.ScalarNode || isNull(k) || k.Style&yaml.TaggedStyle != 0 || k.Tag == "!":
			d.fail(k, key, "expected a name as the key")
		default:
			entries = append(entries, pair{k.Value, k, value})
		}
	}
	return entries, merged
}

// merged returns the entries that the value of a merge key brings: those of a
// mapping, or of a list of mappings, earlier ones first.
func (d *decoder) merged(n *yaml.Node, key string) []pair {
	at := n
	n, ok := d.follow(n, key)
	if !ok {
		return nil
	}
	if n.Kind == yaml.MappingNode {
		return d.pairs(n, key)
	}
	if n.Kind != yaml.SequenceNode {
		d.fail(at, key, "a merge key takes a mapping or a list of mappings, as in <<: *defaults; here is %s", nodeName(n))
		return nil
	}
	var entries []pair
	for _, c := range n.Content {
		c, ok := d.follow(c, key)
		switch {
		case !ok:
		case c.Kind == yaml.MappingNode:
			entries = append(entries, d.pairs(c, key)...)
		default:
			d.fail(at, key, "a merge key takes mappings, as in <<: [*a, *b]; here is %s", nodeName(c))
		}
	}
	return entries
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, key, "expected a mapping of keys to values, found %s", nodeName(n))
		return
	}
	fields := fieldsOf(v.Type())
	pairs := d.pairs(n, key)
	for _, p := range pairs {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == p.name })
		if i < 0 {
			d.unknown(p, pairs, key, fields)
			continue
		}
		d.entry(p, v.Field(fields[i].index), child(key, p.name), fields[i])
	}
	for _, f := range fields {
		at := child(key, f.key)
		if _, given := d.source.places[at]; f.required && !given && !d.broken[at] {
			d.refuse(at, "is required; give it")
			d.markBroken(at)
		}
	}
}

// entry decodes one entry of a mapping. A mapping or list in it has its place
// where its key stands, which is where one looks for it.
func (d *decoder) entry(p pair, v reflect.Value, key string, f field) {
	n := p.value
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.ScalarNode {
		d.source.places[key] = place{line: p.key.Line, column: p.key.Column}
	}
	d.value(p.value, v, key, f)
}

// unknown reports a key that the mapping doesn't have. The one that it most
// likely stands for counts as broken, unless it is there too.
func (d *decoder) unknown(p pair, all []pair, key string, fields []field) {
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
	at := named(key, shorten(p.name))
	if meant := didYouMean(p.name, known); meant != "" {
		d.fail(p.key, at, "unknown key; did you mean %s?", meant)
		if !slices.ContainsFunc(all, func(p pair) bool { return p.name == meant }) {
			d.markBroken(child(key, meant))
		}
		return
	}
	d.fail(p.key, at, "unknown key; expected %s", list(known))
}

func (d *decoder) dictionary(n *yaml.Node, v reflect.Value, key string, f field) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, key, "expected a mapping of names to entries, found %s", nodeName(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	var names []string
	text := v.Type().Elem().Kind() == reflect.String
	for _, p := range d.pairs(n, key) {
		name, err := f.keys.check(p.name)
		if err != nil {
			d.fail(p.key, key, "the name %s: %v", quote(p.name), err)
			continue
		}
		at := named(key, name)
		if v.MapIndex(reflect.ValueOf(name)).IsValid() {
			d.fail(p.key, at, "given twice, in another spelling; keep one")
			continue
		}
		entry := reflect.New(v.Type().Elem()).Elem()
		if !text {
			d.defaults(entry)
		}
		d.source.places[at] = place{line: p.key.Line, column: p.key.Column}
		n, ok := d.follow(p.value, at)
		switch {
		case !ok:
		case isNull(n) && text:
			d.fail(p.key, at, "has no value; give one, or take the name out")
		case isNull(n):
			d.value(&yaml.Node{Kind: yaml.MappingNode}, entry, at, field{}) // all defaults, unless a key is required
		default:
			d.value(n, entry, at, field{format: f.format})
		}
		v.SetMapIndex(reflect.ValueOf(name), entry)
		names = append(names, name)
	}
	d.source.order[key] = names
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, key string, f field) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, key, "expected a list, as in [a, b], found %s", nodeName(n))
		return
	}
	if len(n.Content) == 0 && f.nonempty {
		d.fail(n, key, "an empty list; name at least one, or take the key out")
		return
	}
	items := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	seen := make(map[any]int)
	for i, c := range n.Content {
		at, item := element(key, i), items.Index(i)
		if item.Kind() == reflect.Struct && !isScalar(item.Type()) {
			d.defaults(item)
		}
		c, ok := d.follow(c, at)
		switch {
		case !ok:
			continue
		case isNull(c):
			d.fail(c, at, "an empty entry; take it out")
			continue
		}
		d.value(c, item, at, f)
		if !f.unique || d.broken[at] {
			continue
		}
		if first, again := seen[item.Interface()]; again {
			d.fail(c, at, "the same as entry %d; keep one", first)
		} else {
			seen[item.Interface()] = i
		}
	}
	v.Set(items)
}
