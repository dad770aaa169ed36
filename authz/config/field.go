package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v4"
)

// field is one key of a struct: its tags, read once. The decoder and the
// schema both work from it, so they can't disagree.
type field struct {
	index    int
	key      string
	doc      string
	fallback *yaml.Node // the default; nil for none
	enum     []string
	format   *format
	keys     *format
	min, max *int64 // nanoseconds for durations
	required bool
	unique   bool
	nonempty bool
}

var (
	durationType  = reflect.TypeFor[time.Duration]()
	timeType      = reflect.TypeFor[time.Time]()
	secretType    = reflect.TypeFor[Secret]()
	secretURLType = reflect.TypeFor[SecretURL]()
	fileType      = reflect.TypeFor[File]()
	ratioType     = reflect.TypeFor[Ratio]()
)

var fieldsByType sync.Map // reflect.Type → []field

// fieldsOf returns the keys of a struct, in their order. It panics on a tag
// that makes no sense, which any test finds.
func fieldsOf(t reflect.Type) []field {
	if known, ok := fieldsByType.Load(t); ok {
		return known.([]field)
	}
	var fields []field
	for sf := range t.Fields() {
		if key, ok := sf.Tag.Lookup("yaml"); ok && key != "-" {
			fields = append(fields, newField(sf, key))
		}
	}
	fieldsByType.Store(t, fields)
	return fields
}

func newField(sf reflect.StructField, key string) field {
	f := field{
		index:    sf.Index[0],
		key:      key,
		doc:      sf.Tag.Get("doc"),
		min:      bound(sf, "min"),
		max:      bound(sf, "max"),
		required: sf.Tag.Get("required") == "true",
		unique:   sf.Tag.Get("unique") == "true",
		nonempty: sf.Tag.Get("nonempty") == "true",
		format:   formatNamed(sf, "format"),
		keys:     formatNamed(sf, "keys"),
	}
	if words := sf.Tag.Get("enum"); words != "" {
		f.enum = strings.Split(words, ",")
	}
	if text, ok := sf.Tag.Lookup("default"); ok {
		var doc yaml.Node
		if err := yaml.Load([]byte(text), &doc); err != nil {
			panic(fmt.Sprintf("config: default of %s: %v", key, err))
		}
		f.fallback = doc.Content[0]
	}
	return f
}

func bound(sf reflect.StructField, tag string) *int64 {
	text, ok := sf.Tag.Lookup(tag)
	if !ok {
		return nil
	}
	var n int64
	var err error
	if sf.Type == durationType {
		var d time.Duration
		d, err = time.ParseDuration(text)
		n = int64(d)
	} else {
		n, err = strconv.ParseInt(text, 10, 64)
	}
	if err != nil {
		panic(fmt.Sprintf("config: %s of %s: %v", tag, sf.Name, err))
	}
	return &n
}

func formatNamed(sf reflect.StructField, tag string) *format {
	name, ok := sf.Tag.Lookup(tag)
	if !ok {
		return nil
	}
	f, ok := formats[name]
	if !ok {
		panic(fmt.Sprintf("config: %s of %s: there is no format %q", tag, sf.Name, name))
	}
	return &f
}
