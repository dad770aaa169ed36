package lint

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

// decode fills an Envoy message from a document. What Envoy would not take is
// reported at its place and left out, so that one mistake hides no other.
//
// Afterwards the nodes have the names of proto fields, as the message has them.
func (l *linter) decode(n *node, m proto.Message) {
	l.clean(n, m.ProtoReflect().Descriptor())
	for range 20 { // mistakes in values are found one by one
		w := &jsonWriter{}
		w.value(n)
		err := protojson.UnmarshalOptions{AllowPartial: true}.Unmarshal(w.out, m)
		if err == nil {
			return
		}
		proto.Reset(m)
		at, why := w.blame(err)
		if at == nil || at == n || at.parent == nil {
			l.report(codeValue, n, "Envoy can't read this: %s.", why)
			return
		}
		l.report(codeValue, at, "Envoy can't read this value: %s.", why)
		at.remove()
	}
	proto.Reset(m)
}

// remove takes a node out of the value around it.
func (n *node) remove() {
	same := func(other *node) bool { return other == n }
	if n.name != "" {
		n.parent.replaceFields(slices.DeleteFunc(slices.Clone(n.parent.fields), same))
		return
	}
	n.parent.items = slices.DeleteFunc(n.parent.items, same)
}

// clean gives the fields of a message their names, reports those that it
// doesn't have, and reads values as generously as Envoy does.
func (l *linter) clean(n *node, message protoreflect.MessageDescriptor) {
	if message.FullName() == "google.protobuf.Any" {
		l.cleanAny(n)
		return
	}
	if n.shape != mappingShape || message.FullName().Parent() == "google.protobuf" {
		return // protojson knows these, and says what is wrong with others
	}
	fields := slices.Clone(n.fields)
	n.fields, n.byName = nil, nil
	for _, value := range fields {
		field := message.Fields().ByJSONName(value.name)
		if field == nil {
			field = message.Fields().ByTextName(value.name)
		}
		if field == nil {
			if value.name != "@type" {
				l.unknownField(value, n, message)
			}
			continue
		}
		value.name = string(field.Name())
		if earlier := n.field(value.name); earlier >= 0 { // one in snake_case, one in camelCase
			l.report(codeTwice, value, "%s is given twice in one mapping; Envoy takes the last one and says nothing.", value.name)
			n.fields[earlier] = value
			value.parent = n
		} else {
			n.adopt(value)
		}
		l.cleanField(value, field)
	}
}

func (l *linter) unknownField(value, in *node, message protoreflect.MessageDescriptor) {
	value.parent = in
	var names []string
	for i := range message.Fields().Len() {
		names = append(names, string(message.Fields().Get(i).Name()))
	}
	hint := "."
	if near := nearest(value.name, names); near != "" {
		hint = "; did you mean " + near + "?"
	}
	l.report(codeField, value, "Envoy's %s has no field %s%s", message.Name(), value.name, hint)
}

func (l *linter) cleanField(value *node, field protoreflect.FieldDescriptor) {
	switch {
	case field.IsMap():
		if of := field.MapValue(); value.shape == mappingShape {
			for _, entry := range value.fields {
				l.cleanOne(entry, of)
			}
		}
	case field.IsList():
		if value.shape != listShape && value.shape != nullShape { // Envoy takes one for a list of one
			only := *value
			only.parent, only.name, only.keyLine, only.keyColumn = value, "", 0, 0
			only.fields, only.byName = nil, nil
			only.replaceFields(value.fields)
			*value = node{
				parent: value.parent, name: value.name, line: value.line, column: value.column,
				keyLine: value.keyLine, keyColumn: value.keyColumn, shape: listShape, items: []*node{&only}, file: value.file,
			}
		}
		for _, item := range value.items {
			l.cleanOne(item, field)
		}
	default:
		l.cleanOne(value, field)
	}
}

// cleanOne reads one value of a field.
func (l *linter) cleanOne(n *node, field protoreflect.FieldDescriptor) {
	message := field.Message()
	isBool := field.Kind() == protoreflect.BoolKind || message != nil && message.FullName() == "google.protobuf.BoolValue"
	switch {
	case isBool:
		if value, ok := n.truth(); ok {
			n.shape, n.text = boolShape, strconv.FormatBool(value)
		}
	case field.Enum() != nil:
		if n.shape == stringShape && field.Enum().Values().ByName(protoreflect.Name(n.text)) == nil {
			n.enum(field.Enum())
		}
	case message != nil:
		l.clean(n, message)
	}
}

// enum corrects the case of a value. Envoy doesn't mind it.
func (n *node) enum(of protoreflect.EnumDescriptor) {
	for i := range of.Values().Len() {
		if name := string(of.Values().Get(i).Name()); strings.EqualFold(name, n.text) {
			n.text = name
			return
		}
	}
}

// cleanAny reads a typed configuration: its fields stand beside @type.
func (l *linter) cleanAny(n *node) {
	if n.shape != mappingShape || len(n.fields) == 0 {
		return
	}
	url := n.at("@type")
	if url == nil || url.shape != stringShape {
		l.report(codeValue, n, `Envoy needs to know the type of this: "@type" is missing.`)
		n.unread = true
		return
	}
	n.typeName = url.text[strings.LastIndexByte(url.text, '/')+1:]
	if n.typeName == "xds.type.v3.TypedStruct" || n.typeName == "udpa.type.v1.TypedStruct" {
		l.cleanTypedStruct(n)
		return
	}
	found, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(n.typeName))
	if err != nil {
		n.unread = true
		l.noteUnread(n)
		return
	}
	message := found.Descriptor()
	if message.FullName().Parent() == "google.protobuf" { // {"@type": …, "value": …}
		return
	}
	l.clean(n, message)
	url.name, url.text = "@type", "type.googleapis.com/"+n.typeName
	n.adopt(url)
}

// cleanTypedStruct makes of a struct with the name of a type that type, as
// Envoy does.
func (l *linter) cleanTypedStruct(n *node) {
	url := n.near("type_url")
	if url == n {
		url = n.near("typeUrl")
	}
	value := n.at("value")
	if url == n || url.shape != stringShape || value != nil && value.shape != mappingShape {
		l.report(codeValue, n, "Envoy can't read this: a TypedStruct needs type_url and a mapping as value.")
		n.unread = true
		return
	}
	url.name = "@type"
	fields := []*node{url}
	if value != nil {
		fields = append(fields, slices.DeleteFunc(value.fields, func(f *node) bool { return f.name == "@type" })...)
	}
	n.replaceFields(fields)
	if strings.HasSuffix(url.text, ".TypedStruct") {
		n.unread = true // one in another one
		return
	}
	l.cleanAny(n)
}

// noteUnread says, once for each type and document, what was not read.
func (l *linter) noteUnread(n *node) {
	if slices.ContainsFunc(beside, func(prefix string) bool { return strings.HasPrefix(n.typeName, prefix) }) {
		return
	}
	key := [2]any{n.root(), n.typeName}
	if l.unread[key] {
		return
	}
	l.unread[key] = true
	l.report(codeUnread, n, "%s is a type that this program doesn't know; its settings are not looked at.", n.typeName)
}

// message returns the configuration that stands in a typed_config, nil for none
// and for one that was not read.
func message(a *anypb.Any) proto.Message {
	if a == nil {
		return nil
	}
	m, err := a.UnmarshalNew()
	if err != nil {
		return nil
	}
	return m
}

// find returns all nodes with a typed configuration of this type in and below n.
func (n *node) find(typeName string) []*node {
	if n == nil {
		return nil
	}
	var found []*node
	if n.typeName == typeName {
		found = append(found, n)
	}
	for _, f := range n.fields {
		found = append(found, f.find(typeName)...)
	}
	for _, item := range n.items {
		found = append(found, item.find(typeName)...)
	}
	return found
}

// jsonWriter writes nodes as JSON, each value on a line of its own, and
// remembers which: that is how an error of protojson finds back.
type jsonWriter struct {
	out   []byte
	lines []*node
}

func (w *jsonWriter) line(n *node) {
	w.out = append(w.out, '\n')
	w.lines = append(w.lines, n)
}

func (w *jsonWriter) text(s string) {
	encoded, _ := json.Marshal(s) // a string always has a form
	w.out = append(w.out, encoded...)
}

func (w *jsonWriter) value(n *node) {
	switch {
	case n.unread:
		w.out = append(w.out, `{"@type":"type.googleapis.com/google.protobuf.Empty","value":{}}`...)
		return
	case n.shape == nullShape:
		w.out = append(w.out, "null"...)
	case n.shape == boolShape, n.shape == numberShape:
		w.out = append(w.out, n.text...)
	case n.shape == stringShape:
		w.text(n.text)
	case n.shape == listShape:
		w.out = append(w.out, '[')
		for i, item := range n.items {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.line(item)
			w.value(item)
		}
		w.out = append(w.out, ']')
	default:
		w.out = append(w.out, '{')
		for i, field := range n.fields {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			w.line(field)
			w.text(field.name)
			w.out = append(w.out, ':')
			w.value(field)
		}
		w.out = append(w.out, '}')
	}
}

// A string can be a secret; numbers, durations and names of enums are none.
var quotedString = regexp.MustCompile(`^(invalid value for (?:string|bytes) (?:field|type) [^:]*): .*`)

var jsonPlace = regexp.MustCompile(`\(line (\d+):\d+\):?\s*(.*)`)

// blame returns the node that an error of protojson is about, nil when it
// doesn't say, and the error without what is about our JSON.
func (w *jsonWriter) blame(err error) (at *node, why string) {
	why = strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\u00a0", " ")), " ")
	why = strings.TrimPrefix(why, "proto: ")
	match := jsonPlace.FindStringSubmatch(why)
	if match == nil {
		return nil, why
	}
	match[2] = quotedString.ReplaceAllString(match[2], "$1")
	line, err := strconv.Atoi(match[1])
	if err != nil || line < 2 || line-2 >= len(w.lines) { // the first value has the second line
		return nil, match[2]
	}
	return w.lines[line-2], match[2]
}

// nearest returns the name that was probably meant, "" when none comes close.
func nearest(name string, names []string) string {
	best, bestDistance := "", 3
	if len(name) < 5 {
		bestDistance = 2
	}
	for _, candidate := range names {
		if d := distance(strings.ToLower(name), candidate, bestDistance); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance counts the letters to change, add or take out; limit is enough.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
