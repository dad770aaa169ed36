package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/markdown"
)

// Key is one key of the file, as its reference has it.
type Key struct {
	// Name is the key behind those around it, as in redis.url. <name> stands for a name
	// of the operator's choice, [] for each entry of a list.
	Name     string
	Doc      string // a sentence or more
	Type     string // what it takes, in Markdown
	Default  string // as YAML; "" for none
	Required bool   // wherever the section around it is given
	Section  bool   // has keys of its own, which follow
}

// Keys returns every key that there is, in the order of [Config].
func Keys() []Key { return keysOf(reflect.TypeFor[Config](), "") }

func keysOf(t reflect.Type, around string) (all []Key) {
	for _, f := range fieldsOf(t) {
		inner := t.Field(f.index).Type
		k := Key{Name: child(around, f.key), Doc: f.doc, Type: typeText(inner, f), Required: f.required}
		if f.fallback != nil {
			text, err := json.Marshal(jsonOf(f.fallback))
			if err != nil {
				panic("config: default of " + k.Name + ": " + err.Error())
			}
			k.Default = yamlText(string(text))
		}
		below := k.Name
		if inner.Kind() == reflect.Slice {
			inner, below = inner.Elem(), below+"[]"
		} else if inner.Kind() == reflect.Map {
			inner, below = inner.Elem(), below+".<name>"
		}
		k.Section = inner.Kind() == reflect.Struct && !isScalar(inner)
		all = append(all, k)
		if k.Section {
			all = append(all, keysOf(inner, below)...)
		}
	}
	return all
}

var (
	plainText = regexp.MustCompile(`^"([A-Za-z0-9][A-Za-z0-9._/-]*|[a-z+]+://[^" ]+|[0-9.]+:[0-9]+)"$`)
	listText  = regexp.MustCompile(`"([A-Za-z0-9]+)"(,?)`)
)

// yamlText writes a default, which is JSON, as people write YAML.
func yamlText(text string) string {
	if strings.HasPrefix(text, "[") {
		return strings.ReplaceAll(listText.ReplaceAllString(text, "$1$2"), ",", ", ")
	}
	return plainText.ReplaceAllString(text, "$1")
}

// typeText says what the values of a type are under the rules of a field.
func typeText(t reflect.Type, f field) string {
	switch {
	case t == durationType:
		return "a duration" + bounds(f, shortDuration)
	case t == timeType:
		return "a date, or a time (RFC 3339)"
	case f.enum != nil && t.Kind() == reflect.String:
		return "one of `" + strings.Join(f.enum, "`, `") + "`"
	case t == fileType:
		return "the path of a file"
	case t == secretType:
		return "text, which is a secret"
	case t == secretURLType:
		return f.format.words + ", which may hold a password"
	case t.Kind() == reflect.String && f.format != nil:
		return f.format.words
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "`true` or `false`"
	case t.Kind() == reflect.Int:
		return "a whole number" + bounds(f, func(n int64) string { return fmt.Sprint(n) })
	case t == ratioType:
		return "a number from 0 to 1"
	case t.Kind() == reflect.Slice:
		return listOf(t.Elem(), f)
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.String:
		values := "text"
		if f.format != nil {
			values = f.format.words
		}
		return values + ", by name; a name is " + f.keys.words
	case t.Kind() == reflect.Map:
		return "entries by name, with the keys below; a name is " + f.keys.words
	}
	return "a section"
}

func listOf(t reflect.Type, f field) string {
	if t.Kind() == reflect.Struct && !isScalar(t) {
		return "a list of entries with the keys below"
	}
	text := "a list; each entry is " + typeText(t, field{enum: f.enum, format: f.format})
	switch {
	case f.unique && f.nonempty:
		text += ". At least one, none twice"
	case f.unique:
		text += ". None twice"
	case f.nonempty:
		text += ". At least one"
	}
	return text
}

func bounds(f field, write func(int64) string) string {
	switch {
	case f.min != nil && f.max != nil:
		return ", from " + write(*f.min) + " to " + write(*f.max)
	case f.min != nil:
		return ", at least " + write(*f.min)
	case f.max != nil:
		return ", at most " + write(*f.max)
	}
	return ""
}

// Reload says what happens to requests when the value of a key changes while the server
// runs.
type Reload string

// The values of [Reload].
const (
	ReloadNow         Reload = "now"         // the next request
	ReloadConnections Reload = "connections" // the next connection
	ReloadClient      Reload = "client"      // another client of the store, and so an empty cache
	ReloadCache       Reload = "cache"       // an empty cache
	ReloadRestart     Reload = "restart"     // nothing, before the next start
)

var reloadTexts = map[Reload]string{
	ReloadNow:         "[at once](#reload)",
	ReloadConnections: "[for new connections](#reload)",
	ReloadClient:      "[by a new client of the store](#reload)",
	ReloadCache:       "[at once, with an empty cache](#reload)",
	ReloadRestart:     "[at the next start](#reload)",
}

// Reloads says of a key what another value of it does, and of one that names a file what
// other contents do.
type Reloads struct{ Value, Contents Reload }

func (r Reloads) text() string {
	switch {
	case r.Contents == "":
		return reloadTexts[r.Value]
	case r.Contents == r.Value || r.Value == ReloadNow:
		return reloadTexts[r.Contents]
	}
	return reloadTexts[r.Contents] + "; another path " + reloadTexts[r.Value]
}

// Reference is the page docs/reference/configuration.md. What a reload does is told by
// whoever loads configurations, for each key that is no section.
func Reference(reloads map[string]Reloads) string {
	var b strings.Builder
	b.WriteString(referenceHead)
	keys := Keys()
	for _, k := range keys {
		if !strings.Contains(k.Name, ".") && !strings.Contains(k.Name, "[") {
			fmt.Fprintf(&b, "- [`%s`](#%s): %s\n", k.Name, Anchor(k.Name), lower(k.marked()))
		}
	}
	b.WriteString(referenceRules)
	for i, k := range keys {
		section := !strings.ContainsAny(k.Name, ".[")
		level := "###"
		if section {
			level = "##"
		}
		fmt.Fprintf(&b, "\n<a id=\"%s\"></a>\n\n%s `%s`\n\n%s", Anchor(k.Name), level, k.Name, markdown.Paragraph(k.marked()))
		if k.Type != "a section" {
			facts := markdown.Upper(k.Type) + "."
			if facts == k.marked() {
				facts = ""
			}
			switch {
			case k.Required:
				facts += " **Required.**"
			case k.Default != "":
				facts += " Default: `" + k.Default + "`."
			}
			if r, ok := reloads[k.Name]; ok && !k.Section {
				facts += " Reloaded " + r.text() + "."
			}
			b.WriteString("\n" + markdown.Paragraph(facts))
		}
		g := guides[k.Name]
		if g.more != "" {
			b.WriteString("\n" + markdown.Paragraph(g.more))
		}
		if g.example != "" {
			b.WriteString("\n```yaml\n" + strings.TrimLeft(g.example, "\n") + "```\n")
		}
		if section && k.Section {
			b.WriteString("\n" + markdown.Paragraph("Keys: "+index(k.Name, keys[i+1:])))
		}
	}
	return b.String()
}

// index links the keys of a section, which come first in keys.
func index(section string, keys []Key) string {
	var links []string
	for _, k := range keys {
		rest, inside := strings.CutPrefix(k.Name, section)
		if !inside || !strings.HasPrefix(rest, ".") && !strings.HasPrefix(rest, "[") {
			break
		}
		if !k.Section || k.Type != "a section" {
			rest = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(rest, "[]"), ".<name>"), ".")
			links = append(links, fmt.Sprintf("[`%s`](#%s)", rest, Anchor(k.Name)))
		}
	}
	return strings.Join(links, ", ") + "."
}

// Anchor is where the reference has a key: redis-url for redis.url.
func Anchor(name string) string {
	return strings.ReplaceAll(strings.NewReplacer(".<name>", "", "[]", "").Replace(name), ".", "-")
}

var (
	// What stands in a doc tag as it stands in a file.
	code = regexp.MustCompile(`^([("]?)([^ ]*(?:[_<{*]|://|[a-z][.+][a-z]|^host:port)[^ ]*?)([.,;:)"]*)$`)
	// A word that a key takes, where a clause begins with it.
	clause = regexp.MustCompile(`[.,:;]$`)
)

// marked is the text of a key in Markdown: what is written like a key is code, and so is
// a value that a clause begins with.
func (k Key) marked() string {
	words := strings.Fields(k.Doc)
	marked := make([]string, len(words))
	for i, w := range words {
		marked[i] = w
		bare := strings.TrimRight(w, ".,;:")
		value := bare != "" && strings.Contains(k.Type, "`"+bare+"`") && (i == 0 || clause.MatchString(words[i-1]))
		if m := code.FindStringSubmatch(w); m != nil {
			marked[i] = m[1] + "`" + m[2] + "`" + m[3]
		} else if value {
			marked[i] = "`" + bare + "`" + w[len(bare):]
		}
	}
	return strings.Join(marked, " ")
}

func lower(text string) string { return strings.ToLower(text[:1]) + text[1:] }
