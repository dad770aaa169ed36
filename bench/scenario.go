package main

import (
	"fmt"
	"slices"
	"strings"
)

// scenario is one row of the comparison: one listener of Envoy, and what is
// sent to it. To add one, add it to the table.
type scenario struct {
	name  string // in -scenarios, in JSON, and of Envoy's listener and its counters
	title string
	// What decides: no filter, ext_authz with a cluster and, of Gatehouse, a
	// policy, or jwt_authn with a cache of so many tokens.
	filter     string
	cluster    string
	policy     string
	tokenCache int
	// headers returns the credential headers that the clients show in turn.
	headers func(*credentials) []string
	status  int
	// counter is the counter of Envoy's that counts what the filter decided,
	// below the listener's own.
	counter string
}

// counters returns the counters of Envoy's that must each go up by one for
// every request: what the filter decided, and what it asked the check server.
// A check that was tried again would be measured as a slow one.
func (s scenario) counters() []string {
	names := []string{"http." + s.name + "." + s.counter}
	if s.cluster != "" {
		names = append(names, "cluster."+s.cluster+".upstream_rq_total")
	}
	return names
}

// The names of the two scenarios that others are compared with.
const (
	baseNone = "none"
	baseNoop = "noop"
)

// Clusters of Envoy, and names of the processes behind them.
const (
	clusterNoop      = "noop"
	clusterGatehouse = "gatehouse"
)

var scenarios = []scenario{
	{
		name: baseNone, title: "no filter",
		headers: sessionCookies, status: 200,
		counter: "downstream_rq_2xx",
	},
	{
		name: baseNoop, title: "no-op ext_authz server",
		filter: "ext_authz", cluster: clusterNoop,
		headers: sessionCookies, status: 200,
		counter: "ext_authz.ok",
	},
	{
		name: "jwt_authn", title: "Envoy's jwt_authn",
		filter:  "jwt_authn",
		headers: bearerTokens, status: 200,
		counter: "jwt_authn.allowed",
	},
	{
		name: "jwt_authn_cache", title: "Envoy's jwt_authn with its token cache",
		filter: "jwt_authn", tokenCache: 10000,
		headers: bearerTokens, status: 200,
		counter: "jwt_authn.allowed",
	},
	{
		name: "session", title: "Gatehouse, session",
		filter: "ext_authz", cluster: clusterGatehouse, policy: "session",
		headers: sessionCookies, status: 200,
		counter: "ext_authz.ok",
	},
	{
		name: "bearer", title: "Gatehouse, bearer token",
		filter: "ext_authz", cluster: clusterGatehouse, policy: "bearer",
		headers: bearerTokens, status: 200,
		counter: "ext_authz.ok",
	},
	{
		name: "api_key", title: "Gatehouse, API key",
		filter: "ext_authz", cluster: clusterGatehouse, policy: "api_key",
		headers: func(c *credentials) []string { return []string{"x-internal-api-key: " + c.apiKey} }, status: 200,
		counter: "ext_authz.ok",
	},
	{
		name: "refused", title: "Gatehouse, no credential (401)",
		filter: "ext_authz", cluster: clusterGatehouse, policy: "session",
		headers: func(*credentials) []string { return []string{"cookie: theme=dark"} }, status: 401,
		counter: "ext_authz.denied",
	},
}

func sessionCookies(c *credentials) []string {
	headers := make([]string, len(c.cookies))
	for i, value := range c.cookies {
		headers[i] = "cookie: theme=dark; sessionId=" + value
	}
	return headers
}

func bearerTokens(c *credentials) []string {
	headers := make([]string, len(c.tokens))
	for i, token := range c.tokens {
		headers[i] = "authorization: Bearer " + token
	}
	return headers
}

// chooseScenarios returns those with the names of a comma-separated list, in
// the order of the table; all for "".
func chooseScenarios(list string) ([]scenario, error) {
	if list == "" {
		return scenarios, nil
	}
	names := strings.Split(list, ",")
	var chosen []scenario
	var known []string
	for _, s := range scenarios {
		known = append(known, s.name)
		if slices.Contains(names, s.name) {
			chosen = append(chosen, s)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("-scenarios: there is no %q; there are %s", name, strings.Join(known, ","))
		}
	}
	return chosen, nil
}

// target renders what is sent: the request of a page's script, with each
// credential once.
func (s scenario) target(c *credentials) target {
	t := target{status: s.status}
	for _, header := range s.headers(c) {
		t.requests = append(t.requests, []byte(strings.ReplaceAll(
			`GET /orders/42?expand=items HTTP/1.1
host: gateway.example.com
user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36
accept: application/json
accept-language: en-GB,en;q=0.9
accept-encoding: gzip, deflate, br, zstd
referer: https://gateway.example.com/orders
sec-fetch-site: same-origin
sec-fetch-mode: cors
sec-fetch-dest: empty
`+header+"\n\n", "\n", "\r\n")))
	}
	return t
}
