package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/proc/redistest/line"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

//go:generate go test -count=1 -run ^TestMetricsPageIsFresh$ . -write-metrics

var writeMetrics = flag.Bool("write-metrics", false, "write the reference of docs/metrics.md")

const (
	metricsFile = "../../docs/metrics.md"
	metricsMark = "<!-- What follows is made of internal/telemetry/catalogue.go. 'make generate' writes it. -->\n"
)

// The page has every metric there is.
func TestMetricsPageIsFresh(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(metricsFile)
	require.NoError(t, err)
	before, _, found := strings.Cut(string(page), metricsMark)
	require.True(t, found, "%s has no line %s", metricsFile, metricsMark)
	want := before + metricsMark + telemetry.Page()
	if *writeMetrics {
		require.NoError(t, os.WriteFile(metricsFile, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(page), "run 'make generate'")
}

// metrics are what a server tells.
type metrics struct {
	types  map[string]string // by name
	units  map[string]string
	series map[string]string   // values by name and labels
	labels map[string][]labels // of the series, by the name of the metric
}

type labels map[string]string

var (
	metricLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)`)
	metricPair = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

// scrape fetches the metrics of a server in one of both formats.
func (r *running) scrape(t *testing.T, accept string) (text, kind string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.ops+"/metrics", http.NoBody)
	require.NoError(t, err)
	if accept != "" {
		request.Header.Set("Accept", accept)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	require.Equal(t, 200, response.StatusCode)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(body), response.Header.Get("Content-Type")
}

func parseMetrics(t *testing.T, text string) metrics {
	t.Helper()
	m := metrics{types: map[string]string{}, units: map[string]string{}, series: map[string]string{}, labels: map[string][]labels{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if fields := strings.SplitN(line, " ", 4); fields[0] == "#" {
			switch fields[1] {
			case "TYPE":
				m.types[fields[2]] = fields[3]
			case "UNIT":
				m.units[fields[2]] = fields[3]
			}
			continue
		}
		parts := metricLine.FindStringSubmatch(line)
		require.NotNil(t, parts, line)
		l := labels{}
		for _, pair := range metricPair.FindAllStringSubmatch(parts[2], -1) {
			l[pair[1]] = pair[2]
		}
		m.series[parts[1]+"{"+parts[2]+"}"] = parts[3]
		name := parts[1]
		if m.types[name] == "" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base, ok := strings.CutSuffix(name, suffix); ok && m.types[base] == "histogram" {
					name = base
				}
			}
		}
		delete(l, "le")
		m.labels[name] = append(m.labels[name], l)
	}
	return m
}

// catalogue is that of telemetry, by name.
func catalogue() map[string]*telemetry.Metric {
	all := map[string]*telemetry.Metric{}
	for _, g := range telemetry.Catalogue() {
		for _, m := range g.Metrics {
			all[m.Name] = m
		}
	}
	return all
}

// busyServer is a server that has done a bit of everything.
func busyServer(t *testing.T) (*running, *grpc.ClientConn) {
	t.Helper()
	proctest.Need(t, "redis-server")
	ca := newAuthority(t)
	cert, key := ca.issue(t, "gatehouse")
	idp := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(idp.Close)
	d := newDesk(t, "", `rate_limits: {few: {by: address, limit: 1, per: 1h}}
issuers: [{issuer: "https://idp.example.com", jwks_url: "`+idp.URL+`/keys", audiences: [api], algorithms: [ES256]}]
routes: [{path: /limited, policy: limited}, {path: /watched, policy: watched}]
`)
	for before, after := range map[string]string{
		`check: {listen: "127.0.0.1:0"}`: `check: {listen: "127.0.0.1:0", tls: {cert_file: "` + cert + `", key_file: "` + key + `"}}`,
		`audiences: [api, mobile]`:       `audiences: [api, mobile], refresh_grace: 0s`,
		`policies: {user: {credentials: [session, bearer]}}`: `policies:
  user: {credentials: [session, bearer], condition: "identity.id != 'nobody'"}
  limited: {anonymous: true, rate_limit: few}
  watched: {credentials: [session], mode: observe}`,
	} {
		require.Contains(t, d.config, before)
		d.config = strings.Replace(d.config, before, after, 1)
	}
	g := d.serve(t)
	until(t, "the cache answers", func() bool { return g.metric(t, "gatehouse_cache_coherent") == "1" })
	conn := g.dial(t, grpc.WithTransportCredentials(credentials.NewTLS(ca.clientTLS(t))))
	status, _, line := g.call(t, "POST", "/auth/login", `{"email":"bob@example.com","password":"`+deskPassword+`"}`, nil)
	require.Equal(t, 200, status)
	bob := map[string]string{"cookie": strings.Split(line, ";")[0]}
	status, _, _ = g.call(t, "POST", "/auth/login", `{"email":"bob@example.com","password":"wrong"}`, nil)
	require.Equal(t, 401, status)
	access, refresh := g.app(t, "bob")
	for range 3 {
		code, _ := ask(t, conn, bob)
		require.Zero(t, code)
		code, _ = ask(t, conn, bearerOf(access))
		require.Zero(t, code)
	}
	code, _ := ask(t, conn, nil)
	require.Equal(t, 401, code)
	for _, path := range []string{"/limited", "/limited", "/watched"} {
		askPath(t, conn, path, nil)
	}
	for range 2 { // of which the second is too late
		status, _, _ = g.call(t, "POST", "/auth/refresh", `{"refreshToken":"`+refresh+`"}`, nil)
	}
	require.Equal(t, 401, status)
	status, _, _ = g.call(t, "POST", "/auth/logout", ``, bob)
	require.Equal(t, 200, status)
	until(t, "the issuer was asked for its keys", func() bool {
		failures := g.metric(t, `gatehouse_issuer_fetch_failures{issuer="https://idp.example.com"}`)
		return failures != "" && failures != "0"
	})
	return g, conn
}

func askPath(t *testing.T, conn *grpc.ClientConn, path string, headers map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request := checkRequest(headers)
	request.GetAttributes().GetRequest().GetHttp().Path = path
	_, err := authv3.NewAuthorizationClient(conn).Check(ctx, request)
	require.NoError(t, err)
}

const openMetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8"

// What a server tells is what the catalogue says: no metric, label or value else.
func TestMetricsAreThoseOfTheCatalogue(t *testing.T) {
	t.Parallel()
	g, _ := busyServer(t)
	text, kind := g.scrape(t, "")
	require.Contains(t, kind, "text/plain")
	told, known := parseMetrics(t, text), catalogue()
	require.Contains(t, told.types, "go_goroutines")
	for name, kind := range told.types {
		if !strings.HasPrefix(name, "gatehouse_") {
			require.Regexp(t, `^(go|process|promhttp)_`, name)
			continue
		}
		m := known[name]
		require.NotNil(t, m, "%s is not in the catalogue", name)
		require.Equal(t, string(m.Type), kind, name)
		for _, l := range told.labels[name] {
			require.Len(t, l, len(m.Labels), name)
			for _, label := range m.Labels {
				value, there := l[label.Name]
				require.True(t, there, "%s has no label %s", name, label.Name)
				require.True(t, label.Holds(value), "%s: %s=%q is no value of the list", name, label.Name, value)
			}
		}
	}
	// All that is in the catalogue is there, but for what needs an outage.
	for name := range known {
		if !slices.Contains([]string{"gatehouse_degraded_decisions_total", "gatehouse_rate_limit_uncounted_total"}, name) {
			require.Contains(t, told.types, name)
		}
	}
	for series, least := range map[string]float64{
		`gatehouse_decisions_total{credential="session",decision="allow",policy="user",reason="authenticated"}`: 3,
		`gatehouse_observed_denials_total{policy="watched",reason="no_credential"}`:                             1,
		`gatehouse_rate_limit_decisions_total{limit="few",result="allowed"}`:                                    1,
		`gatehouse_rate_limit_decisions_total{limit="few",result="refused"}`:                                    1,
		`gatehouse_auth_refusals_total{call="login",reason="password_wrong"}`:                                   1,
		`gatehouse_auth_changes_total{action="login"}`:                                                          1,
		`gatehouse_auth_changes_total{action="token_login"}`:                                                    1,
		`gatehouse_auth_changes_total{action="logout"}`:                                                         1,
		`gatehouse_refresh_reuse_detections_total{}`:                                                            1,
		`gatehouse_store_commands_total{command="evalsha",outcome="ok",purpose="lookup"}`:                       1,
		`gatehouse_store_up{}`:                                              1,
		`gatehouse_ready{}`:                                                 1,
		`gatehouse_cache_coherent{}`:                                        1,
		`gatehouse_cache_answers_total{result="hit"}`:                       1,
		`gatehouse_issuer_fetch_failures{issuer="https://idp.example.com"}`: 1,
		`gatehouse_decision_step_duration_seconds_count{step="session"}`:    1,
		`gatehouse_decision_step_duration_seconds_count{step="token"}`:      1,
		`gatehouse_decision_step_duration_seconds_count{step="standing"}`:   1,
		`gatehouse_decision_step_duration_seconds_count{step="policy"}`:     1,
		`gatehouse_decision_step_duration_seconds_count{step="condition"}`:  1,
		`gatehouse_decision_step_duration_seconds_count{step="limit"}`:      2,
	} {
		value, err := strconv.ParseFloat(told.series[series], 64)
		require.NoError(t, err, series)
		require.GreaterOrEqual(t, value, least, series)
	}
	for name, from := range map[string]time.Duration{
		`gatehouse_tls_certificate_expiry_timestamp_seconds{listener="check"}`:     time.Hour,
		`gatehouse_tls_certificate_not_before_timestamp_seconds{listener="check"}`: -time.Hour,
	} {
		at, err := strconv.ParseFloat(told.series[name], 64)
		require.NoError(t, err)
		require.InDelta(t, float64(time.Now().Add(from).Unix()), at, 60)
	}
	age, err := strconv.ParseFloat(told.series[`gatehouse_cache_proof_age_seconds{}`], 64)
	require.NoError(t, err)
	require.Positive(t, age)

	problems, err := promlint.New(strings.NewReader(ours(text))).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	promtool(t, text, "check", "metrics")
}

// ours is the text without what Go and the client library tell of themselves.
func ours(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "gatehouse_") || strings.HasPrefix(line, "# ") && strings.HasPrefix(strings.Fields(line)[2], "gatehouse_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// promtool runs the real one on a text.
func promtool(t *testing.T, text string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), proctest.Need(t, "promtool"), args...)
	cmd.Stdin = strings.NewReader(ours(text))
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, string(said))
	require.Empty(t, string(said))
}

// Who asks for OpenMetrics has it, with its rules: units, which names end with, and the
// end of it all.
func TestMetricsAreOpenMetrics(t *testing.T) {
	t.Parallel()
	g := start(t, onePolicy("embedded://"))
	text, kind := g.scrape(t, openMetrics)
	require.Contains(t, kind, "application/openmetrics-text; version=1.0.0")
	require.True(t, strings.HasSuffix(text, "\n# EOF\n"))
	told := parseMetrics(t, strings.TrimSuffix(text, "# EOF\n"))
	known := catalogue()
	for name, kind := range told.types {
		if !strings.HasPrefix(name, "gatehouse_") {
			continue
		}
		full := name
		if kind == "counter" {
			full += "_total"
		}
		m := known[full]
		require.NotNil(t, m, full)
		require.Equal(t, string(m.Type), kind)
		require.Equal(t, m.Unit, told.units[name], name)
	}
	for name, m := range known {
		require.Regexp(t, `^gatehouse_[a-z_]+[a-z]$`, name, "no colons: those are for recording rules")
		require.Equal(t, m.Type == telemetry.TypeCounter, strings.HasSuffix(name, "_total"), name)
		for _, unit := range []string{"seconds", "bytes"} {
			require.Equal(t, m.Unit == unit, strings.HasSuffix(strings.TrimSuffix(name, "_total"), "_"+unit), name)
		}
	}
}

// The lists of the catalogue are those of the code.
func TestListsOfLabelsAreWhole(t *testing.T) {
	t.Parallel()
	values := func(m *telemetry.Metric, name string) []string {
		for _, l := range m.Labels {
			if l.Name == name {
				return slices.Sorted(slices.Values(l.Values))
			}
		}
		return nil
	}
	require.Equal(t, slices.Sorted(slices.Values(extauthz.Sheddings)), values(telemetry.ChecksShed, "why"))
	require.Equal(t, authapi.CallNames(), values(telemetry.AuthCalls, "call"))
	require.Equal(t, slices.Sorted(slices.Values(authapi.Actions)), values(telemetry.AuthChanges, "action"))
}

// Thousands of hosts, paths, users and headers, and not one series more.
func TestWhatClientsMakeUpAddsNoSeries(t *testing.T) {
	t.Parallel()
	const many = 1000
	g, conn := busyServer(t)
	flood := func(from, to int) {
		for i := from; i < to; i++ {
			made := fmt.Sprintf("made-up-%d", i)
			request := checkRequest(map[string]string{
				"x-request-id": made, "user-agent": made, made: made, "x-forwarded-for": fmt.Sprintf("192.0.%d.%d", i>>8&255, i&255),
			})
			http := request.GetAttributes().GetRequest().GetHttp()
			http.Host, http.Path, http.Method = made+".example.com", "/"+made+"?q="+made, "X"+strconv.Itoa(i)
			switch i % 4 {
			case 0:
				http.Headers["cookie"] = "sessionId=" + made
			case 1:
				http.Headers["authorization"] = "Bearer " + made
			case 2:
				maps.Copy(http.Headers, cookie(t, made))
			}
			_, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), request)
			require.NoError(t, err)
			if i%20 == 0 {
				g.call(t, "GET", "/auth/"+made, "", map[string]string{"x-request-id": made})
				g.call(t, "DELETE", "/auth/sessions/"+made, "", bearerOf(made))
				g.call(t, "POST", "/auth/refresh", `{"refreshToken":"`+made+`"}`, nil)
			}
		}
	}
	count := func() []string {
		text, _ := g.scrape(t, "")
		require.NotContains(t, text, "made-up")
		var series []string
		for s := range parseMetrics(t, text).series {
			if strings.HasPrefix(s, "gatehouse_") {
				series = append(series, s)
			}
		}
		slices.Sort(series)
		return series
	}
	flood(0, 40) // one of each kind
	before := count()
	// What Gatehouse does from time to time may add one meanwhile, once.
	for from := 40; ; from += many {
		flood(from, from+many)
		after := count()
		if slices.Equal(before, after) {
			return
		}
		if from > 2*many {
			require.Equal(t, before, after)
		}
		before = after
	}
}

// alertCounts are the counters whose increase the alerts ask about, with their selectors.
// Those of which they take a share beside others, and that go on all the time, are left
// out.
func alertCounts(t *testing.T) (counts [][2]string) {
	t.Helper()
	rules, err := os.ReadFile("../../deploy/observability/alerts.yaml")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?:rate|increase)\((gatehouse_\w+_total)(\{[^}]*\})?\[`).FindAllStringSubmatch(string(rules), -1) {
		all := m[2] == "" && m[1] == telemetry.Decisions.Name
		if !all && m[1] != telemetry.CacheAnswers.Name && m[1] != telemetry.StoreCommands.Name && m[1] != telemetry.AuthCalls.Name {
			counts = append(counts, [2]string{m[1], m[2]})
		}
	}
	require.NotEmpty(t, counts)
	return counts
}

// selects reports whether a selector of PromQL is met by these labels.
func selects(t *testing.T, selector string, of labels) bool {
	t.Helper()
	for _, m := range regexp.MustCompile(`(\w+)(=~?)"([^"]*)"`).FindAllStringSubmatch(selector, -1) {
		values := []string{m[3]}
		if m[2] == "=~" {
			values = strings.Split(m[3], "|")
		}
		if !slices.Contains(values, of[m[1]]) {
			return false
		}
	}
	return true
}

// An alert on an increase is blind to the first event of a series that begins with it. So
// whatever alerts ask about is there before.
func TestWhatAlertsCountBeginsWithZero(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", `rate_limits: {few: {by: address, limit: 1, per: 1h, on_outage: allow}, hard: {by: address, limit: 1, per: 1h}}
routes: [{path: /limited, policy: limited}, {path: /hard, policy: hard}, {path: /watched, policy: watched}, {path: /open, policy: open}]
`)
	before := `policies: {user: {credentials: [session, bearer]}}`
	require.Contains(t, d.config, before)
	d.config = strings.Replace(d.config, before, `policies:
  user: {credentials: [session, bearer]}
  limited: {anonymous: true, rate_limit: few}
  hard: {anonymous: true, rate_limit: hard}
  watched: {credentials: [session], mode: observe}
  open: {credentials: [bearer], on_store_outage: accept_bearer}`, 1)
	g := d.serve(t)
	conn := g.dial(t)
	status, _, line := g.call(t, "POST", "/auth/login", `{"email":"bob@example.com","password":"`+deskPassword+`"}`, nil)
	require.Equal(t, 200, status)
	bob := map[string]string{"cookie": strings.Split(line, ";")[0]}
	access, _ := g.app(t, "bob")
	text, _ := g.scrape(t, "")
	then := parseMetrics(t, text)
	for _, count := range alertCounts(t) {
		found := slices.ContainsFunc(then.labels[count[0]], func(l labels) bool { return selects(t, count[1], l) })
		require.True(t, found, "an alert asks about %s%s, which is not there yet", count[0], count[1])
	}

	unknown := checkRequest(nil)
	unknown.Attributes.ContextExtensions = map[string]string{"policy": "no-such"}
	_, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), unknown)
	require.NoError(t, err)
	for range 2 {
		status, _, _ = g.call(t, "POST", "/auth/login", `{"email":"bob@example.com","password":"wrong"}`, nil)
		require.Equal(t, 401, status)
	}
	askPath(t, conn, "/watched", nil)
	askPath(t, conn, "/watched", map[string]string{"cookie": "sessionId=forged"})
	require.NoError(t, d.redis.Stop())
	until(t, "Redis is missed", func() bool { code, _ := ask(t, conn, bob); return code == 503 })
	for _, path := range []string{"/limited", "/hard", "/watched"} {
		askPath(t, conn, path, bob)
	}
	askPath(t, conn, "/open", bearerOf(access))
	askPath(t, conn, "/", bearerOf(access))

	text, _ = g.scrape(t, "")
	now := parseMetrics(t, text)
	grown := map[string]bool{}
	for series, value := range now.series {
		name, _, _ := strings.Cut(series, "{")
		l := labels{}
		for _, pair := range metricPair.FindAllStringSubmatch(series, -1) {
			l[pair[1]] = pair[2]
		}
		for _, count := range alertCounts(t) {
			if name == count[0] && value != "0" && selects(t, count[1], l) {
				require.Contains(t, then.series, series, "it was born with a value")
				if value != then.series[series] {
					grown[name] = true
				}
			}
		}
	}
	for _, m := range []*telemetry.Metric{
		telemetry.Decisions, telemetry.ObservedDenials, telemetry.DegradedDecisions, telemetry.RateLimitUncounted, telemetry.AuthRefusals,
	} {
		require.True(t, grown[m.Name], "nothing made %s grow", m.Name)
	}
	require.Equal(t, "1", now.series[`gatehouse_decisions_total{credential="",decision="deny",policy="",reason="policy_unknown"}`])
	require.Equal(t, "0", then.series[`gatehouse_rate_limit_decisions_total{limit="hard",result="unavailable"}`])
	require.Equal(t, "1", now.series[`gatehouse_rate_limit_decisions_total{limit="hard",result="unavailable"}`])

	// Nobody can meet these.
	for _, series := range []string{
		`gatehouse_observed_denials_total{policy="watched",reason="token_expired"}`, `gatehouse_observed_denials_total{policy="watched",reason="refresh_reused"}`,
		`gatehouse_observed_denials_total{policy="user",reason="role"}`, `gatehouse_degraded_decisions_total{mode="serve_stale",policy="open"}`,
		`gatehouse_decisions_total{credential="bearer",decision="deny",policy="watched",reason="overloaded"}`, `gatehouse_rate_limit_uncounted_total{limit="hard"}`,
	} {
		require.NotContains(t, now.series, series)
	}
}

// A policy that a reload brings is counted from zero, too.
func TestWhatAReloadBringsBeginsWithZero(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gatehouse.yaml")
	text := onePolicy("embedded://")
	save(t, path, text)
	g := startAt(t, path)
	const series = `gatehouse_decisions_total{credential="",decision="deny",policy="later",reason="internal"}`
	require.Empty(t, g.metric(t, series))
	g.applies(t, func() {
		saveOver(t, path, strings.Replace(text, "policies: {", "policies: {later: {anonymous: true}, ", 1))
	})
	require.Equal(t, "0", g.metric(t, series))
}

// A store that can't announce what changes has no cache: figures of one that is out of
// order for ever would have an alert that never ends.
func TestAStoreThatAnnouncesNothingHasNoCacheToTellOf(t *testing.T) {
	t.Parallel()
	g := start(t, onePolicy("embedded://"))
	until(t, "it is known", func() bool {
		_, ready := get(t, "http://"+g.ops+"/readyz")
		return strings.Contains(ready, `"state":"unsupported"`)
	})
	text, _ := g.scrape(t, "")
	require.NotContains(t, text, "gatehouse_cache_")
	require.Contains(t, text, "gatehouse_store_up 1")
}

// What memory answers is one hit, whether it allows the request, or denies it, which is
// decided from the beginning.
func TestOneAnswerIsOneHit(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "", "routes: [{path: /admin, policy: admin}]\n")
	before := `policies: {user: {credentials: [session, bearer]}}`
	require.Contains(t, d.config, before)
	d.config = strings.Replace(d.config, before, `policies:
  user: {credentials: [session, bearer]}
  admin: {credentials: [session, bearer], roles: {any: [nobody-has-it]}}`, 1)
	g := d.serve(t)
	conn := g.dial(t)
	status, _, line := g.call(t, "POST", "/auth/login", `{"email":"bob@example.com","password":"`+deskPassword+`"}`, nil)
	require.Equal(t, 200, status)
	access, _ := g.app(t, "bob")
	answers := func(result string) int {
		n, err := strconv.Atoi(g.metric(t, `gatehouse_cache_answers_total{result="`+result+`"}`))
		require.NoError(t, err)
		return n
	}
	for name, credential := range map[string]map[string]string{
		"session": {"cookie": strings.Split(line, ";")[0]}, "token": bearerOf(access),
	} {
		for _, path := range []string{"/", "/admin"} {
			const asked = 10
			until(t, "each has its answer from memory", func() bool { // not while the cache is in doubt for a moment
				hits, misses := answers("hit"), answers("miss")
				for range asked {
					askPath(t, conn, path, credential)
				}
				more := answers("hit") - hits
				require.LessOrEqual(t, more, asked, "%s at %s", name, path)
				return answers("miss") == misses && more == asked
			})
		}
	}
}

// A client that opens requests and resets them is no outage of ours, and no trouble with
// Redis.
func TestAClientThatGoesAwayIsNoOutage(t *testing.T) {
	t.Parallel()
	d := newDesk(t, ", timeout: 20s, cache: {heartbeat: 5s}", "")
	lag := line.New(t, d.redis.Addr)
	d.config = strings.Replace(d.config, d.redis.Addr, lag.Addr, 1)
	g := d.serve(t)
	conn := g.dial(t)
	status, _, line := g.call(t, "POST", "/auth/login", `{"email":"bob@example.com","password":"`+deskPassword+`"}`, nil)
	require.Equal(t, 200, status)
	bob := map[string]string{"cookie": strings.Split(line, ";")[0]}
	until(t, "the cache answers", func() bool { return g.metric(t, "gatehouse_cache_coherent") == "1" })
	lag.Hold() // bob is not in the cache yet
	var asking sync.WaitGroup
	defer asking.Wait()
	defer lag.Release()
	ask := func(ctx context.Context) {
		asking.Go(func() { _, _ = authv3.NewAuthorizationClient(conn).Check(ctx, checkRequest(bob)) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ask(ctx)
	until(t, "one asks Redis", func() bool { return g.metric(t, "gatehouse_checks_in_flight") == "1" })
	ctx, leave := context.WithCancel(ctx)
	ask(ctx)
	until(t, "another one waits for the answer", func() bool { return g.metric(t, "gatehouse_checks_in_flight") == "2" })
	leave()
	until(t, "it is noticed that it left", func() bool { return g.metric(t, "gatehouse_checks_canceled_total") == "1" })
	lag.Release()
	asking.Wait()
	text, _ := g.scrape(t, "")
	for series, value := range parseMetrics(t, text).series {
		for _, outage := range []string{`reason="overloaded"`, `reason="store_unavailable"`, "gatehouse_store_refused_total", `outcome="refused"`} {
			if strings.Contains(series, outage) {
				require.Equal(t, "0", value, series)
			}
		}
	}
	require.NotContains(t, g.log.String(), `"level":"WARN","msg":"check"`)
}
