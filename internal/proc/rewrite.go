package proc

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// RewritePorts returns an Envoy configuration with other ports: each
// socket_address whose port_value is a key gets the value instead. So the file
// that is shipped can be run beside another instance of itself, otherwise
// unchanged.
//
// All replacements happen at once. A key that occurs nowhere is an error: a
// test must not talk, unnoticed, to whatever listens on the port that it meant
// to replace.
func RewritePorts(config []byte, ports map[int]int) ([]byte, error) {
	used := map[int]bool{}
	out, err := rewrite(config, func(a socketAddress) error {
		old, err := strconv.Atoi(a.port.Value)
		if err != nil {
			return fmt.Errorf("line %d: port_value is no number: %q", a.port.Line, a.port.Value)
		}
		if port, ok := ports[old]; ok {
			used[old] = true
			a.port.Value = strconv.Itoa(port)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		if !used[port] {
			return nil, fmt.Errorf("the Envoy configuration has no address with port %d", port)
		}
	}
	return out, nil
}

// RewriteAddresses is [RewritePorts] for whole addresses: from "host:port" to
// "host:port", or to "unix:/path" for a Unix socket. Host names work in
// clusters that resolve them (type STRICT_DNS), as the shipped ones do. A
// cluster that gets a socket becomes STATIC: Envoy accepts a socket in the
// others, and then never finds it.
func RewriteAddresses(config []byte, addresses map[string]string) ([]byte, error) {
	used := map[string]bool{}
	out, err := rewrite(config, func(a socketAddress) error {
		old := net.JoinHostPort(a.host.Value, a.port.Value)
		to, ok := addresses[old]
		if !ok {
			return nil
		}
		used[old] = true
		if path, ok := strings.CutPrefix(to, "unix:"); ok {
			a.key.Value = "pipe"
			a.value.Content = []*yaml.Node{scalar("path"), scalar(path)}
			if kind := field(a.cluster, "type"); kind != nil {
				kind.Value = "STATIC"
			}
			return nil
		}
		host, port, err := net.SplitHostPort(to)
		if err != nil {
			return fmt.Errorf("replacement for %s: %w", old, err)
		}
		a.host.Value, a.port.Value = host, port
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, address := range slices.Sorted(maps.Keys(addresses)) {
		if !used[address] {
			return nil, fmt.Errorf("the Envoy configuration has no address %s", address)
		}
	}
	return out, nil
}

// socketAddress is one socket_address of an Envoy configuration.
type socketAddress struct {
	key, value *yaml.Node // "socket_address", and the mapping behind it
	host, port *yaml.Node // scalars in it
	cluster    *yaml.Node // whose endpoint it is; nil for a listener's
}

func scalar(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

func rewrite(config []byte, edit func(socketAddress) error) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Load(config, &doc); err != nil {
		return nil, fmt.Errorf("read Envoy configuration: %w", err)
	}
	if err := eachAddress(&doc, nil, edit); err != nil {
		return nil, fmt.Errorf("rewrite Envoy configuration: %w", err)
	}
	out, err := yaml.Dump(&doc)
	if err != nil {
		return nil, fmt.Errorf("write Envoy configuration: %w", err)
	}
	return out, nil
}

// eachAddress visits every socket_address once: aliases are not followed, what
// they stand for is visited at its anchor.
func eachAddress(n, cluster *yaml.Node, visit func(socketAddress) error) error {
	if n.Kind == yaml.MappingNode {
		if field(n, "load_assignment") != nil {
			cluster = n
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.Value != "socket_address" || value.Kind != yaml.MappingNode {
				continue
			}
			a := socketAddress{key: key, value: value, host: field(value, "address"), port: field(value, "port_value"), cluster: cluster}
			if a.host == nil || a.port == nil {
				return fmt.Errorf("line %d: socket_address without address or port_value", key.Line)
			}
			if err := visit(a); err != nil {
				return err
			}
		}
	}
	for _, child := range n.Content {
		if err := eachAddress(child, cluster, visit); err != nil {
			return err
		}
	}
	return nil
}

// field returns the value of a key in a mapping, nil when there is none.
func field(mapping *yaml.Node, key string) *yaml.Node {
	if mapping == nil {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}
