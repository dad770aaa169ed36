package envoy

import (
	"fmt"
	"net"
	"strings"
)

// Service is something behind the gateway.
type Service struct {
	Name    string // of the cluster
	Address string // host:port, of an address or of a name that is resolved
}

// Route leads what begins with a path to a service, if its policy lets it.
type Route struct {
	Name    string
	Path    string // and everything below it; "/" is every path
	AnyCase bool   // of the path: for a stricter policy below a looser one
	Policy  string
	Service string
}

// servicesHeader replaces what [Config] says of itself.
const servicesHeader = `# The gateway: one Envoy, the only way in, that asks Gatehouse about every
# request:
#
#   envoy -c envoy.yaml
#
# It is the gateway that Gatehouse ships, with your services behind it. Every
# setting that keeps somebody out says what it stops. Where the words "same as"
# appear, an anchor (&name) is used again (*name). Your own part are the routes
# that are checked and, at the end, the clusters of the services.
# 'gatehouse envoy lint envoy.yaml --config gatehouse.yaml' looks for mistakes.
#
# For Envoy 1.37 to 1.40. (1.36 takes it too, without allow_paths.)

`

// Where the demo's part of [Config] begins and ends.
const (
	demoRoutes   = "              - name: demo-page\n"
	clusters     = "\n  clusters:\n"
	demoServices = "  # ---- The services. They must not be reachable but through this gateway"
	firstKey     = "admin:\n"
)

const routesComment = `              # -- Routes that are checked, each by the policy that it names. Where a
              # stricter path lies below a looser one, it matches in any case: Express
              # and others serve /ADMIN as /admin. What no route names is 404.
`

const servicesComment = `  # ---- The services. They must not be reachable but through this gateway: they
  # believe what it says.
`

// ForServices returns the gateway of [Config] with other services behind it, and
// these routes, in this order, in place of the demo's. Names and paths are taken as
// they are: the caller has checked them.
func ForServices(services []Service, routes []Route) (string, error) {
	_, body, found := strings.Cut(Config, "\n"+firstKey)
	before, rest, foundRoutes := strings.Cut(body, demoRoutes)
	_, rest, foundClusters := strings.Cut(rest, clusters)
	ours, _, foundServices := strings.Cut(rest, demoServices)
	if !found || !foundRoutes || !foundClusters || !foundServices {
		return "", fmt.Errorf("envoy.yaml has changed so that no other services can be put into it: adapt the marks in envoy/services.go")
	}
	var b strings.Builder
	b.WriteString(servicesHeader + firstKey + before + "\n" + routesComment)
	for _, r := range routes {
		b.WriteString(r.yaml())
	}
	b.WriteString(clusters + ours + servicesComment)
	for i, s := range services {
		text, err := s.yaml(i == 0)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func (r Route) yaml() string {
	match := "path_separated_prefix: " + r.Path
	if r.Path == "/" {
		match = "prefix: /"
	}
	if r.AnyCase {
		match += ", case_sensitive: false"
	}
	return fmt.Sprintf(`              - name: %s
                match: {%s}
                route: {cluster: %s, timeout: 15s}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    check_settings: {context_extensions: {policy: %s}}
`, r.Name, match, r.Service, r.Policy)
}

func (s Service) yaml(first bool) (string, error) {
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return "", fmt.Errorf("the address of the service %s: %w", s.Name, err)
	}
	outlier, separator := "*outlier", "\n"
	if first {
		separator, outlier = "", `&outlier
      split_external_local_origin_errors: true
      consecutive_local_origin_failure: 5
      consecutive_gateway_failure: 5
      enforcing_consecutive_gateway_failure: 100
      enforcing_consecutive_5xx: 0 # one request that makes a service fail must not take it from all others
      interval: 5s
      base_ejection_time: 10s
      max_ejection_percent: 50`
	}
	return fmt.Sprintf(`%s  - name: %s
    type: STRICT_DNS
    connect_timeout: 0.5s
    lb_policy: LEAST_REQUEST
    load_assignment:
      cluster_name: %s
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: %q, port_value: %s}}}
    per_connection_buffer_limit_bytes: 32768
    typed_extension_protocol_options: *http1
    outlier_detection: %s
`, separator, s.Name, s.Name, host, port, outlier), nil
}
