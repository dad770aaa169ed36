package proc

import (
	"fmt"
	"maps"
	"strings"

	"go.yaml.in/yaml/v4"
)

// MergeYAML puts YAML texts over one another: mappings are merged, anything
// else is replaced by what the later text says.
func MergeYAML(texts ...string) ([]byte, error) {
	all := map[string]any{}
	for _, text := range texts {
		var one map[string]any
		if err := yaml.Load([]byte(text), &one); err != nil && strings.TrimSpace(text) != "" {
			return nil, fmt.Errorf("%w in\n%s", err, text)
		}
		overlay(all, one)
	}
	return yaml.Dump(all)
}

func overlay(under, over map[string]any) {
	for key, value := range over {
		below, isMap := under[key].(map[string]any)
		above, bothMaps := value.(map[string]any)
		if isMap && bothMaps {
			below = maps.Clone(below)
			overlay(below, above)
			under[key] = below
			continue
		}
		under[key] = value
	}
}
