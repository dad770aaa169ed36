package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// scenario is one row of the comparison: one listener of Envoy, and what is
// sent to it. To add one, add it to the table.
type scenario struct {
	name  string // in -scenarios, in JSON, and of Envoy's listener and its counters
	title string
	// What decides: no filter, ext_authz with a check server and, of Gatehouse,
	// a policy, or jwt_authn with a cache of so many tokens.
	filter     string
	plain      bool // the filter as people write it, with all headers, not the shipped one
	server     checkServer
	policy     string
	tokenCache int
	shows      credentialKind
	status     int
	echo       bool // the answer tells the organization, see echoHeader
	// counter is the counter of Envoy's that counts what the filter decided,
	// below the listener's own.
	counter string
}

// checkServer is a process that decides, and a cluster of Envoy's. The zero
// value is none.
type checkServer struct {
	program string
	unix    bool // it listens on a Unix socket, not on TCP
	// sessions is how many sessions are shown to it; 0 for the usual number.
	// Each number has a process of its own, so that their caches differ.
	sessions int
	// oneProcessor: Go may use one at a time (GOMAXPROCS=1).
	oneProcessor bool
	// proxied: its connections to Redis go through a proxy that can freeze.
	proxied bool
}

// Programs that decide.
const (
	programNoop      = "noop"
	programReply     = "reply"
	programUsual     = "usual"
	programGatehouse = "gatehouse"
)

// name is the name of the process and of the cluster; "" for none.
func (c checkServer) name() string {
	name := c.program
	if c.unix {
		name += "_unix"
	}
	if c.oneProcessor {
		name += "_one"
	}
	if c.proxied {
		name += "_proxied"
	}
	if c.sessions > 0 {
		name += "_" + strconv.Itoa(c.sessions)
	}
	return name
}

// credentialKind is what clients show.
type credentialKind int

const (
	showsSession credentialKind = iota
	showsBearer
	showsAPIKey
	showsNothing
)

// counters returns the counters of Envoy's that must each go up by one for
// every request: what the filter decided, and what it asked the check server.
// A check that was tried again would be measured as a slow one.
func (s scenario) counters() []string {
	names := []string{"http." + s.name + "." + s.counter}
	if cluster := s.server.name(); cluster != "" {
		names = append(names, "cluster."+cluster+".upstream_rq_total")
	}
	return names
}

// The names of the scenarios that others are compared with.
const (
	baseNone    = "none"
	baseNoop    = "noop"
	baseLean    = "noop_lean"
	baseReply   = "noop_reply"
	baseUsual   = "usual"
	baseSession = "session"
)

// bases are all of them.
var bases = []string{baseNone, baseNoop, baseLean, baseReply, baseUsual, baseSession}

var scenarios = []scenario{
	{
		name: baseNone, title: "no filter",
		status: 200, counter: "downstream_rq_2xx",
	},
	{
		name: "jwt_authn", title: "Envoy's jwt_authn",
		filter: "jwt_authn", shows: showsBearer,
		status: 200, counter: "jwt_authn.allowed",
	},
	{
		name: "jwt_authn_cache", title: "Envoy's jwt_authn with its token cache",
		filter: "jwt_authn", tokenCache: 10000, shows: showsBearer,
		status: 200, counter: "jwt_authn.allowed",
	},
	plain(checked(baseNoop, "no-op ext_authz server", checkServer{program: programNoop}, "", showsSession)),
	checked(baseLean, "no-op server, our filter", checkServer{program: programNoop}, "", showsSession),
	checked("noop_unix", "no-op server, our filter, socket", checkServer{program: programNoop, unix: true}, "", showsSession),
	checked(baseReply, "no-op server, our filter and reply", checkServer{program: programReply}, "", showsSession),
	plain(checked(baseUsual, "usual server, one GET", checkServer{program: programUsual}, "", showsSession)),
	checked(baseSession, "Gatehouse, session", checkServer{program: programGatehouse}, "session", showsSession),
	checked("session_unix", "Gatehouse, session, Unix socket", checkServer{program: programGatehouse, unix: true}, "session", showsSession),
	checked("session_one", "Gatehouse, session, GOMAXPROCS=1", checkServer{program: programGatehouse, oneProcessor: true}, "session", showsSession),
	checked("bearer", "Gatehouse, bearer token", checkServer{program: programGatehouse}, "bearer", showsBearer),
	checked("api_key", "Gatehouse, API key", checkServer{program: programGatehouse}, "api_key", showsAPIKey),
	checked("strict", "Gatehouse, session, strict", checkServer{program: programGatehouse}, "strict", showsSession),
	checked("limited", "Gatehouse, session, rate limit", checkServer{program: programGatehouse}, "limited", showsSession),
	{
		name: "refused", title: "Gatehouse, no credential (401)",
		filter: "ext_authz", server: checkServer{program: programGatehouse}, policy: "session", shows: showsNothing,
		status: 401, counter: "ext_authz.denied",
	},
}

// checked is a scenario of a check server that allows.
func checked(name, title string, server checkServer, policy string, shows credentialKind) scenario {
	return scenario{
		name: name, title: title,
		filter: "ext_authz", server: server, policy: policy, shows: shows,
		status: 200, counter: "ext_authz.ok",
	}
}

// plain has Envoy ask as people configure it, not as the shipped file does.
func plain(s scenario) scenario {
	s.plain = true
	return s
}

// manySessions is the session scenario with so many sessions, all of which a
// Gatehouse of its own has in its cache.
func manySessions(n int) scenario {
	return checked(manyName(n), fmt.Sprintf("Gatehouse, %s sessions", thousands(n)),
		checkServer{program: programGatehouse, sessions: n}, "session", showsSession)
}

func manyName(n int) string { return baseSession + "_" + strconv.Itoa(n) }

// thousands writes 200000 as 200,000.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
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

// The request of a page's script, but for the credential and the empty line.
const pageRequest = `GET /orders/42?expand=items HTTP/1.1
host: gateway.example.com
user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36
accept: application/json
accept-language: en-GB,en;q=0.9
accept-encoding: gzip, deflate, br, zstd
referer: https://gateway.example.com/orders
sec-fetch-site: same-origin
sec-fetch-mode: cors
sec-fetch-dest: empty
`

// Headers up to the credential.
const (
	cookieBefore = "cookie: theme=dark; " + cookieName + "="
	bearerBefore = "authorization: Bearer "
	apiKeyBefore = "x-internal-api-key: " //nolint:gosec // G101: the name of the header
)

// target renders what is sent: the request of a page's script, with one
// credential after the other, the first users of them.
func (s scenario) target(c *credentials, users int) *target {
	if s.server.sessions > 0 {
		users = s.server.sessions
	}
	var header string
	var shown packed
	switch s.shows {
	case showsSession:
		header, shown = cookieBefore, c.cookies.first(users)
	case showsBearer:
		header, shown = bearerBefore, c.tokens.first(users)
	case showsAPIKey:
		header, shown = apiKeyBefore, pack(c.apiKey)
	case showsNothing:
		header, shown = "cookie: theme=", pack("dark")
	}
	return newTarget(crlf(pageRequest+header), shown, "\r\n\r\n", s.status)
}

func crlf(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }
