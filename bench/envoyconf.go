package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v4"
)

// envoyConfig is what the template is filled in with.
type envoyConfig struct {
	AdminPort int
	Listeners []envoyListener
	Clusters  []envoyCluster
	Shipped   map[string]any // the ext_authz filter, see shippedFilter
	Issuer    string
	Audience  string
	JWKS      string
}

type envoyListener struct {
	Name       string
	Port       int
	Filter     string // "", ext_authz or jwt_authn
	Cluster    string // of ext_authz
	Plain      bool   // the filter as people write it, not the shipped one
	Policy     string // of Gatehouse; "" for none
	TokenCache int    // entries of jwt_authn's cache; 0 for no cache
	Echo       string // header of the answer that tells x-org-id; "" for none
}

type envoyCluster struct {
	Name string
	address
}

// address is where a check server listens: a port of loopback, or the path of
// a Unix socket.
type address struct {
	Port int
	Pipe string
}

// shippedFilter reads the ext_authz filter out of a gateway configuration, so
// that what is measured is what users run.
func shippedFilter(file string) (map[string]any, error) {
	text, err := os.ReadFile(file) //nolint:gosec // G304: the file that the user names
	if err != nil {
		return nil, fmt.Errorf("read the shipped Envoy configuration (run this from the top of the repository, or use -envoy): %w", err)
	}
	var config any
	if err := yaml.Load(text, &config); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	filter := findNamed(config, extAuthz)
	if filter == nil {
		return nil, fmt.Errorf("%s has no HTTP filter %s", file, extAuthz)
	}
	return filter, nil
}

const extAuthz = "envoy.filters.http.ext_authz"

// findNamed returns the first mapping below v with this name and a typed
// configuration, nil when there is none.
func findNamed(v any, name string) map[string]any {
	switch v := v.(type) {
	case map[string]any:
		if _, typed := v["typed_config"].(map[string]any); typed && v["name"] == name {
			return v
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if found := findNamed(v[key], name); found != nil {
				return found
			}
		}
	case []any:
		for _, element := range v {
			if found := findNamed(element, name); found != nil {
				return found
			}
		}
	}
	return nil
}

// patience is how long Envoy waits for a check.
const patience = "10s"

// ExtAuthz returns the shipped filter, as JSON, with two changes: it asks this
// cluster, and waits long, with the first try as with all of them: a slow
// moment of this machine is a latency to report, not a second check or a 503.
func (c envoyConfig) ExtAuthz(cluster string) (string, error) {
	filter := maps.Clone(c.Shipped)
	typed, ok := filter["typed_config"].(map[string]any)
	if !ok {
		return "", errors.New("the shipped ext_authz filter has no typed_config")
	}
	service, ok := typed["grpc_service"].(map[string]any)
	if !ok {
		return "", errors.New("the shipped ext_authz filter has no grpc_service")
	}
	typed, service = maps.Clone(typed), maps.Clone(service)
	target, ok := service["envoy_grpc"].(map[string]any)
	if !ok {
		return "", errors.New("the shipped ext_authz filter has no envoy_grpc")
	}
	target = maps.Clone(target)
	target["cluster_name"] = cluster
	service["envoy_grpc"] = target
	service["timeout"] = patience
	if retry, ok := service["retry_policy"].(map[string]any); ok {
		retry = maps.Clone(retry)
		if backOff, ok := retry["retry_back_off"].(map[string]any); ok {
			backOff = maps.Clone(backOff)
			backOff["max_interval"] = patience // the time of one try, too
			retry["retry_back_off"] = backOff
		}
		service["retry_policy"] = retry
	}
	typed["grpc_service"] = service
	filter["typed_config"] = typed
	text, err := json.Marshal(filter)
	return string(text), err
}

// PlainExtAuthz returns the filter as people write it, as JSON: a cluster and a
// timeout, and all else as it comes. So all headers go to the check server.
func (envoyConfig) PlainExtAuthz(cluster string) (string, error) {
	text, err := json.Marshal(map[string]any{
		"name": extAuthz,
		"typed_config": map[string]any{
			"@type":                 "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
			"transport_api_version": "V3",
			"grpc_service":          map[string]any{"envoy_grpc": map[string]any{"cluster_name": cluster}, "timeout": patience},
		},
	})
	return string(text), err
}

//go:embed envoy.yaml.tmpl
var envoyTemplateText string

var envoyTemplate = template.Must(template.New("envoy.yaml").Parse(envoyTemplateText))

func (c envoyConfig) render() ([]byte, error) {
	var b bytes.Buffer
	if err := envoyTemplate.Execute(&b, c); err != nil {
		return nil, fmt.Errorf("write Envoy's configuration: %w", err)
	}
	return b.Bytes(), nil
}

// envoyStats reads counters by name from an Envoy's admin interface. One that
// Envoy does not know is missing in the result: it makes some only when they
// are first used.
func envoyStats(ctx context.Context, admin string) (map[string]uint64, error) {
	body, err := fetch(ctx, "http://"+admin+"/stats?type=Counters")
	if err != nil {
		return nil, fmt.Errorf("read Envoy's counters: %w", err)
	}
	stats := map[string]uint64{}
	for line := range strings.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			stats[name] = n
		}
	}
	return stats, nil
}

// fetch returns the body of what answers with 200.
func fetch(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return string(body), nil
}
