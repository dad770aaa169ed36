package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

var durationText = regexp.MustCompile(durationPattern)

const durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`

func (d *decoder) duration(n *yaml.Node, v reflect.Value, key string, f field) {
	const expected = "expected a duration such as 500ms, 15m or 24h"
	text := strings.TrimSpace(n.Value)
	switch {
	case n.Kind != yaml.ScalarNode:
		d.fail(n, key, "%s, found %s", expected, nodeName(n))
		return
	case strings.Contains(n.Value, "${"):
		d.fail(n, key, "%s; ${…} is replaced in text only", expected)
		return
	case n.Tag == "!!int" || n.Tag == "!!float":
		d.fail(n, key, "%s, found the number %s without a unit", expected, quote(text))
		return
	}
	span, err := time.ParseDuration(n.Value)
	if !isText(n) || err != nil || !durationText.MatchString(n.Value) {
		d.fail(n, key, "%s, found %s; the units are ms, s, m and h, and a day is 24h", expected, quote(n.Value))
		return
	}
	if d.within(n, key, int64(span), f, func(n int64) string { return time.Duration(n).String() }) {
		v.SetInt(int64(span))
	}
}

func (d *decoder) within(n *yaml.Node, key string, got int64, f field, write func(int64) string) bool {
	switch {
	case f.min != nil && got < *f.min:
		d.fail(n, key, "%s is too little; expected at least %s", write(got), write(*f.min))
	case f.max != nil && got > *f.max:
		d.fail(n, key, "%s is too much; expected at most %s", write(got), write(*f.max))
	default:
		return true
	}
	return false
}

const datePattern = `^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2}))?$`

var dateText = regexp.MustCompile(datePattern)

func (d *decoder) date(n *yaml.Node, v reflect.Value, key string) {
	layout := time.RFC3339
	if len(n.Value) == len(time.DateOnly) {
		layout = time.DateOnly
	}
	t, err := time.Parse(layout, n.Value)
	if !isText(n) || err != nil || !dateText.MatchString(n.Value) {
		d.fail(n, key, "expected a date such as 2027-01-31 or a time such as 2027-01-31T12:00:00Z")
		return
	}
	v.Set(reflect.ValueOf(t.UTC()))
}

func (d *decoder) boolean(n *yaml.Node, v reflect.Value, key string) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
		d.fail(n, key, "expected true or false, found %s", found(n))
		return
	}
	v.SetBool(strings.EqualFold(n.Value, "true"))
}

// found shows a value that was found where no secret is expected.
func found(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return quote(n.Value)
	}
	return nodeName(n)
}

var integerText = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

func (d *decoder) integer(n *yaml.Node, v reflect.Value, key string, f field) {
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || !integerText.MatchString(n.Value) || err != nil {
		hint := ""
		if strings.Contains(n.Value, "${") {
			hint = "; ${…} is replaced in text only"
		}
		d.fail(n, key, "expected a whole number in plain digits, found %s%s", found(n), hint)
		return
	}
	if d.within(n, key, i, f, func(n int64) string { return strconv.FormatInt(n, 10) }) {
		v.SetInt(i)
	}
}

var ratioText = regexp.MustCompile(`^(0|[1-9][0-9]*)(\.[0-9]+)?$`)

func (d *decoder) ratio(n *yaml.Node, v reflect.Value, key string) {
	share, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" || !ratioText.MatchString(n.Value) || err != nil || share > 1 {
		hint := ""
		if strings.Contains(n.Value, "${") {
			hint = "; ${…} is replaced in text only"
		}
		d.fail(n, key, "expected a share from 0 for none to 1 for all, such as 0.01 for one in a hundred, found %s%s", found(n), hint)
		return
	}
	v.SetFloat(share)
}

func (d *decoder) word(n *yaml.Node, v reflect.Value, key string, f field) {
	if isText(n) && slices.Contains(f.enum, n.Value) {
		v.SetString(n.Value)
		return
	}
	expected := "expected " + list(f.enum)
	switch {
	case n.Kind != yaml.ScalarNode:
		d.fail(n, key, "%s, found %s", expected, nodeName(n))
	case strings.Contains(n.Value, "${"):
		d.fail(n, key, "%s; ${…} is replaced in free text only", expected)
	default:
		hint := ""
		if meant := didYouMean(n.Value, f.enum); meant != "" {
			hint = "; did you mean " + meant + "?"
		}
		d.fail(n, key, "%s, found %s%s", expected, quote(n.Value), hint)
	}
}

// text decodes free text: environment first, then the rule of its format.
func (d *decoder) text(n *yaml.Node, v reflect.Value, key string, f field) {
	if !isText(n) {
		hint := ""
		if n.Kind == yaml.ScalarNode {
			hint = "; put it in quotes"
		}
		d.fail(n, key, "expected text, found %s%s", nodeName(n), hint)
		return
	}
	text, err := expand(n.Value, d.env)
	if err != nil {
		d.fail(n, key, "%v", err)
		return
	}
	if text == "" {
		if n.Value != "" {
			d.fail(n, key, "is empty, since %s is; set the variable to a value", n.Value)
		} else {
			d.fail(n, key, "is empty; give a value, or take the key out")
		}
		v.Set(reflect.Zero(v.Type()))
		return
	}
	if f.format != nil {
		normal, err := f.format.check(text)
		if err != nil {
			d.fail(n, key, "%v", err)
			return
		}
		text = normal
	}
	switch v.Type() {
	case secretType:
		v.Set(reflect.ValueOf(NewSecret(text)))
	case secretURLType:
		v.Set(reflect.ValueOf(NewSecretURL(text)))
	case fileType:
		d.file(n, v, key, text)
	default:
		v.SetString(text)
	}
}

func (d *decoder) file(n *yaml.Node, v reflect.Value, key, name string) {
	path := d.source.path(name)
	if err := d.files.readable(path); err != nil {
		d.fail(n, key, "%s: %v; %s", d.shown(n, path), err, remedy(err, "create the file or correct the path"))
		return
	}
	v.SetString(path)
	if !slices.Contains(d.source.files, path) {
		d.source.files = append(d.source.files, path)
	}
}

// shown returns a path for a message: resolved, or as it stands in the file
// when a variable went into it.
func (d *decoder) shown(n *yaml.Node, path string) string {
	if strings.Contains(n.Value, "${") {
		path = n.Value
	}
	return printable(path)
}

var variable = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand replaces ${NAME} by the environment variable NAME, and $${ by ${.
// Its error names the variables that are not set.
func expand(s string, env func(string) (string, bool)) (string, error) {
	if !strings.Contains(s, "${") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], "$${"):
			b.WriteString("${")
			i += len("$${")
		case strings.HasPrefix(s[i:], "${"):
			m := variable.FindStringSubmatch(s[i:])
			if m == nil {
				return "", errors.New("malformed ${…}; expected the name of an environment variable in the braces, or $${ for a literal ${")
			}
			value, ok := "", false
			if env != nil {
				value, ok = env(m[1])
			}
			if !ok {
				return "", fmt.Errorf("the environment variable %s is not set; set it, or write $${ for a literal ${", m[1])
			}
			b.WriteString(value)
			i += len(m[0])
		default:
			b.WriteByte(s[i])
			i++
		}
	}
	return b.String(), nil
}
