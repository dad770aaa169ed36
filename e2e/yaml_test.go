package e2e

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// edit changes an Envoy configuration by its structure. It fails when the
// place that it wants to change is not there: the shipped file has changed
// then, and the test must follow.
type edit func(config map[string]any) error

// edited returns the configuration after these edits.
func edited(config string, edits ...edit) ([]byte, error) {
	var tree map[string]any
	if err := yaml.Load([]byte(config), &tree); err != nil {
		return nil, err
	}
	for _, e := range edits {
		if err := e(tree); err != nil {
			return nil, err
		}
	}
	return yaml.Dump(tree)
}

// each calls visit for every mapping below node.
func each(node any, visit func(map[string]any)) {
	switch node := node.(type) {
	case map[string]any:
		visit(node)
		for _, child := range node {
			each(child, visit)
		}
	case []any:
		for _, child := range node {
			each(child, visit)
		}
	}
}

// inType sets keys, which must be there, of the one message of a type; a nil
// value takes the key out.
func inType(name string, values map[string]any) edit {
	return func(config map[string]any) error {
		var messages []map[string]any
		each(config, func(m map[string]any) {
			if kind, _ := m["@type"].(string); strings.HasSuffix(kind, "."+name) {
				messages = append(messages, m)
			}
		})
		if len(messages) != 1 {
			return fmt.Errorf("the Envoy configuration has %d messages of type %s, not one: adapt the test", len(messages), name)
		}
		for key, value := range values {
			if _, there := messages[0][key]; !there {
				return fmt.Errorf("%s in the Envoy configuration has no %s: adapt the test", name, key)
			}
			messages[0][key] = value
			if value == nil {
				delete(messages[0], key)
			}
		}
		return nil
	}
}

// routesFirst puts routes, as YAML, before those of the file.
func routesFirst(text string) edit {
	return func(config map[string]any) error {
		var routes []any
		if err := yaml.Load([]byte(text), &routes); err != nil {
			return err
		}
		found := 0
		each(config, func(m map[string]any) {
			if _, isHost := m["domains"]; !isHost || m["name"] != "gateway" {
				return
			}
			if old, ok := m["routes"].([]any); ok {
				m["routes"] = append(slices.Clone(routes), old...)
				found++
			}
		})
		if found != 1 {
			return fmt.Errorf("the Envoy configuration has %d virtual hosts named gateway, not one: adapt the test", found)
		}
		return nil
	}
}

// inCluster changes one cluster.
func inCluster(name string, change func(cluster map[string]any)) edit {
	return func(config map[string]any) error {
		found := 0
		each(config, func(m map[string]any) {
			if _, isCluster := m["load_assignment"]; isCluster && m["name"] == name {
				change(m)
				found++
			}
		})
		if found != 1 {
			return fmt.Errorf("the Envoy configuration has %d clusters %s, not one: adapt the test", found, name)
		}
		return nil
	}
}

// endpoints makes a cluster have these addresses: host:port, or one
// unix:///path, which Envoy takes in clusters that resolve no names only.
func endpoints(name string, addresses ...string) edit {
	return inCluster(name, func(cluster map[string]any) {
		var list []any
		for _, address := range addresses {
			at := map[string]any{}
			if path, isSocket := strings.CutPrefix(address, "unix://"); isSocket {
				cluster["type"] = "STATIC"
				at["pipe"] = map[string]any{"path": path}
			} else {
				colon := strings.LastIndexByte(address, ':')
				at["socket_address"] = map[string]any{"address": address[:colon], "port_value": port(address)}
			}
			list = append(list, map[string]any{"endpoint": map[string]any{"address": at}})
		}
		cluster["load_assignment"] = map[string]any{
			"cluster_name": name,
			"endpoints":    []any{map[string]any{"lb_endpoints": list}},
		}
	})
}
