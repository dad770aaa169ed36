package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

//go:generate go run helm_gen.go

// ChartSchema returns the chart's values.schema.json: a schema of values, with
// the schema of gatehouse.yaml as its definition "gatehouse". So a wrong key of
// the configuration is refused by helm, before anything is installed.
func ChartSchema(values, gatehouse []byte) ([]byte, error) {
	var schema, config map[string]any
	if err := json.Unmarshal(values, &schema); err != nil {
		return nil, fmt.Errorf("schema of the values: %w", err)
	}
	if err := json.Unmarshal(gatehouse, &config); err != nil {
		return nil, fmt.Errorf("schema of the configuration: %w", err)
	}
	definitions, ok := schema["$defs"].(map[string]any)
	if !ok {
		return nil, errors.New("schema of the values: no $defs")
	}
	delete(config, "$schema") // that of the whole document counts
	config["type"] = "object"
	definitions["gatehouse"] = config
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(schema); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Where ChartReadme puts the table.
const (
	tableStart = "<!-- values: generated from values.yaml, 'make generate' -->\n"
	tableEnd   = "<!-- end of values -->\n"
)

// ChartReadme returns the chart's README.md with a fresh table of values: keys,
// defaults and comments of values.yaml. A key with a comment is a row, with
// everything below it; the keys of a map without one have rows of their own.
func ChartReadme(readme, values []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(readme, []byte(tableStart))
	_, after, ended := bytes.Cut(rest, []byte(tableEnd))
	if !ok || !ended {
		return nil, fmt.Errorf("README.md needs the lines %q and %q", tableStart, tableEnd)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return nil, fmt.Errorf("values.yaml: %w", err)
	}
	if len(document.Content) != 1 {
		return nil, errors.New("values.yaml: empty")
	}
	var b bytes.Buffer
	b.Write(before)
	b.WriteString(tableStart + "\n| value | default | |\n|---|---|---|\n")
	if err := writeRows(&b, "", document.Content[0]); err != nil {
		return nil, fmt.Errorf("values.yaml: %w", err)
	}
	b.WriteString("\n" + tableEnd)
	b.Write(after)
	return b.Bytes(), nil
}

func writeRows(b *bytes.Buffer, prefix string, n *yaml.Node) error {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		comment := strings.ReplaceAll(strings.ReplaceAll(key.HeadComment, "\n# ", " "), "# ", "")
		block := value.Kind == yaml.MappingNode && value.Style&yaml.FlowStyle == 0 && len(value.Content) > 0
		if block && comment == "" {
			if err := writeRows(b, prefix+key.Value+".", value); err != nil {
				return err
			}
			continue
		}
		fallback := "see values.yaml"
		if !block && value.Kind != yaml.SequenceNode || value.Style&yaml.FlowStyle != 0 {
			text, err := yaml.Marshal(value)
			if err != nil {
				return err
			}
			fallback, _, _ = strings.Cut(strings.TrimSpace(string(text)), " #")
			fallback = "`" + fallback + "`"
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s |\n", prefix, key.Value, fallback, strings.ReplaceAll(comment, "|", `\|`))
	}
	return nil
}
