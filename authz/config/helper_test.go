package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
)

// memFiles is a directory "dir" in memory: relative path to content. The
// content "<dir>" is a directory, "<forbidden>" a file that can't be read.
type memFiles map[string]string

func (m memFiles) readable(path string) error {
	_, err := m.read(path, 1<<20)
	return err
}

func (m memFiles) read(path string, most int64) ([]byte, error) {
	rel, err := filepath.Rel("dir", path)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	text, ok := m[rel]
	switch {
	case !ok:
		return nil, syscall.ENOENT
	case text == "<dir>":
		return nil, syscall.EISDIR
	case text == "<forbidden>":
		return nil, syscall.EACCES
	case int64(len(text)) > most:
		return nil, syscall.EFBIG
	}
	return []byte(text), nil
}

// testFiles are there in every test that parses.
var testFiles = memFiles{
	"keys/current.pem":  "pem",
	"keys/previous.pem": "pem",
	"users.yaml":        "users: []",
	"secret":            "file-secret-value\n",
	"secrets":           "first-secret-of-the-file\r\n\nsecond-secret-of-the-file\n",
	"empty":             "\n",
	"blank":             "\n\r\n\n",
	"short":             "0123456789abcdef\nshort\n",
	"cert.pem":          "pem",
	"key.pem":           "pem",
	"ca.pem":            "pem",
	"jwks.json":         "{}",
	"folder":            "<dir>",
	"forbidden":         "<forbidden>",
	"long":              strings.Repeat("x", maxSecretBytes+1),
}

// environment is a lookup of variables.
func environment(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	}
}

var testEnvironment = map[string]string{
	"SESSION_SECRET": "env-session-secret-0123456789",
	"EMPTY":          "",
	"ISSUER":         "https://idp.example.com",
	"INJECTION":      "x, evil: true}\nserver: {drain: 1s}",
	"NESTED":         "${SESSION_SECRET}",
	"BAD_URL":        "env-bad-url-value",
}

func parseTest(text string) (*Config, []Warning, error) {
	return parse("dir/gatehouse.yaml", []byte(text), environment(testEnvironment), testFiles)
}

func mustParse(t *testing.T, text string) (*Config, []Warning) {
	t.Helper()
	c, warnings, err := parseTest(text)
	require.NoError(t, err)
	return c, warnings
}

// plain turns YAML into what its JSON form decodes to: aliases and merge keys
// resolved, numbers as text for json.Number, dates as text. No document is
// null.
func plain(tb testing.TB, text []byte) any {
	tb.Helper()
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	require.NoError(tb, err)
	var doc yaml.Node
	if err := loader.Load(&doc); errors.Is(err, io.EOF) {
		return nil
	}
	require.NoError(tb, err)
	return plainNode(doc.Content[0])
}

func plainNode(n *yaml.Node) any {
	if n.Kind == yaml.AliasNode {
		return plainNode(n.Alias)
	}
	if n.Kind == yaml.SequenceNode {
		items := make([]any, len(n.Content))
		for i, c := range n.Content {
			items[i] = plainNode(c)
		}
		return items
	}
	if n.Kind == yaml.MappingNode {
		entries := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			if n.Content[i].Tag != "!!merge" {
				entries[n.Content[i].Value] = plainNode(n.Content[i+1])
			}
		}
		for i := 0; i < len(n.Content); i += 2 {
			if n.Content[i].Tag == "!!merge" {
				mergeInto(entries, plainNode(n.Content[i+1]))
			}
		}
		return entries
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		return n.Value == "true" || n.Value == "True" || n.Value == "TRUE"
	case "!!int", "!!float":
		return json.Number(n.Value)
	}
	return n.Value
}

func mergeInto(entries map[string]any, source any) {
	switch source := source.(type) {
	case []any:
		for _, s := range source {
			mergeInto(entries, s)
		}
	case map[string]any:
		for key, value := range source {
			if _, has := entries[key]; !has {
				entries[key] = value
			}
		}
	}
}
