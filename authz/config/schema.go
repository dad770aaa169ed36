package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Schema returns the JSON Schema (draft 2020-12) of the configuration file,
// as text that ends in a line end. It speaks of the file as it is written,
// before ${NAME} is replaced, and knows nothing of what values mean together:
// each configuration that [Load] accepts is valid by it, but not the other
// way round.
func Schema() []byte {
	root := object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", "Gatehouse configuration"},
	}
	root = append(root, schemaOf(reflect.TypeFor[Config](), field{}, true)...)
	text, err := root.MarshalJSON()
	if err != nil {
		panic("config: a schema that is not JSON: " + err.Error())
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		panic("config: a schema that is not JSON: " + err.Error())
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// object is a JSON object that keeps its order.
type object []member

type member struct {
	key   string
	value any
}

// MarshalJSON writes the members in their order, and <, > and & as they are.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(m.key) + ":")
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(m.value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// schemaOf describes the values of a type under the rules of a field. Null is
// one of them where it stands for a value that is not given.
func schemaOf(t reflect.Type, f field, null bool) object {
	var o object
	if doc := f.doc + boundsText(t, f); doc != "" {
		o = append(o, member{"description", doc})
	}
	typ := func(name string) any {
		if null {
			return []string{name, "null"}
		}
		return name
	}
	switch {
	case t == durationType:
		o = append(o, member{"type", typ("string")}, member{"pattern", durationPattern})
	case t == timeType:
		o = append(o, member{"type", typ("string")}, member{"pattern", datePattern})
	case f.enum != nil && t.Kind() == reflect.String:
		words := make([]any, len(f.enum))
		for i, w := range f.enum {
			words[i] = w
		}
		if null {
			words = append(words, nil)
		}
		o = append(o, member{"enum", words})
	case t == secretType, t == secretURLType, t.Kind() == reflect.String:
		o = append(o, member{"type", typ("string")})
		o = append(o, textRules(f)...)
	case t.Kind() == reflect.Bool:
		o = append(o, member{"type", typ("boolean")})
	case t.Kind() == reflect.Int:
		o = append(o, member{"type", typ("integer")})
		if f.min != nil {
			o = append(o, member{"minimum", *f.min})
		}
		if f.max != nil {
			o = append(o, member{"maximum", *f.max})
		}
	case t == ratioType:
		o = append(o, member{"type", typ("number")}, member{"minimum", 0}, member{"maximum", 1})
	case t.Kind() == reflect.Slice:
		o = append(o, member{"type", typ("array")}, member{"items", schemaOf(t.Elem(), field{enum: f.enum, format: f.format}, false)})
		if f.unique {
			o = append(o, member{"uniqueItems", true})
		}
		if f.nonempty {
			o = append(o, member{"minItems", 1})
		}
	case t.Kind() == reflect.Map:
		o = append(o, member{"type", typ("object")},
			member{"propertyNames", object{{"pattern", f.keys.pattern}}},
			member{"additionalProperties", schemaOf(t.Elem(), field{format: f.format}, t.Elem().Kind() != reflect.String)})
	default:
		o = append(o, member{"type", typ("object")}, member{"additionalProperties", false})
		o = append(o, properties(t)...)
	}
	if f.fallback != nil {
		o = append(o, member{"default", jsonOf(f.fallback)})
	}
	return o
}

// properties describes the keys of a struct.
func properties(t reflect.Type) object {
	var all object
	var required []string
	for _, f := range fieldsOf(t) {
		all = append(all, member{f.key, schemaOf(t.Field(f.index).Type, f, !f.required)})
		if f.required {
			required = append(required, f.key)
		}
	}
	o := object{{"properties", all}}
	if required != nil {
		o = append(o, member{"required", required})
	}
	return o
}

// textRules describes free text. A text with ${ in it becomes another one
// before it is checked.
func textRules(f field) object {
	o := object{{"minLength", 1}}
	if f.format != nil && f.format.pattern != "" {
		o = append(o, member{"pattern", f.format.pattern + `|\$\{`})
	}
	return o
}

// boundsText says the bounds of a duration, which JSON Schema can't.
func boundsText(t reflect.Type, f field) string {
	if t != durationType {
		return ""
	}
	var parts []string
	if f.min != nil {
		parts = append(parts, "at least "+shortDuration(*f.min))
	}
	if f.max != nil {
		parts = append(parts, "at most "+shortDuration(*f.max))
	}
	if parts == nil {
		return ""
	}
	return fmt.Sprintf(" (%s)", strings.Join(parts, ", "))
}

// shortDuration writes 1m for 1m0s.
func shortDuration(n int64) string {
	s := time.Duration(n).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// jsonOf returns a default as JSON has it.
func jsonOf(n *yaml.Node) any {
	switch {
	case n.Kind == yaml.SequenceNode:
		items := make([]any, len(n.Content))
		for i, c := range n.Content {
			items[i] = jsonOf(c)
		}
		return items
	case n.Tag == "!!bool":
		return n.Value == "true"
	case n.Tag == "!!int", n.Tag == "!!float":
		return json.Number(n.Value)
	}
	return n.Value
}
