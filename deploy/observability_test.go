package deploy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/gatehouse-auth/gatehouse/internal/proc/proctest"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

const (
	alertsFile     = "observability/alerts.yaml"
	alertTestsFile = "observability/alerts_test.yaml"
	dashboardFile  = "observability/dashboard.json"
)

// rule is one of Prometheus' rules.
type rule struct {
	Record, Alert, Expr string
	Labels, Annotations map[string]string
}

func readRules(t *testing.T) (rules []rule) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	require.NoError(t, yaml.Unmarshal(read(t, alertsFile), &file))
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	require.NotEmpty(t, rules)
	return rules
}

// expressions are those of the dashboard, by what they are for, with its variables
// replaced.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	type target struct{ Expr string }
	var board struct {
		Panels []struct {
			Type, Title string
			Targets     []target
		}
		Annotations struct {
			List []struct{ Name, Expr string }
		}
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	require.NoError(t, json.Unmarshal(read(t, dashboardFile), &board))
	variables := strings.NewReplacer("$__rate_interval", "5m", "$job", "gatehouse", "$instance", "a:9090")
	all := map[string]string{}
	for _, p := range board.Panels {
		require.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
		for i, target := range p.Targets {
			all[fmt.Sprintf("%s %d", p.Title, i)] = variables.Replace(target.Expr)
		}
	}
	for _, a := range board.Annotations.List {
		all[a.Name] = variables.Replace(a.Expr)
	}
	labelValues := regexp.MustCompile(`^label_values\((.+), \w+\)$`)
	for _, v := range board.Templating.List {
		if v.Type == "query" {
			m := labelValues.FindStringSubmatch(v.Definition)
			require.NotNil(t, m, v.Definition)
			all["variable "+v.Name] = variables.Replace(m[1])
		}
	}
	for name, expr := range all {
		require.NotContains(t, expr, "$", name)
	}
	return all
}

// Of promtool we ask what only Prometheus knows: whether it would take the files, and
// when the alerts fire.
func TestPrometheusTakesTheRules(t *testing.T) {
	t.Parallel()
	promtool := proctest.Need(t, "promtool")
	run := func(args ...string) {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = "observability"
		said, err := cmd.CombinedOutput()
		require.NoError(t, err, "promtool %s\n%s", strings.Join(args, " "), said)
	}
	run("check", "rules", "--lint=all", "--lint-fatal", filepath.Base(alertsFile))
	run("check", "config", "prometheus.yml")
	run("test", "rules", filepath.Base(alertTestsFile))

	// What Grafana asks it would understand, too.
	var asked struct {
		Groups []map[string]any `yaml:"groups"`
	}
	var rules []map[string]string
	for name, expr := range expressions(t) {
		rules = append(rules, map[string]string{"record": "panel:" + regexp.MustCompile(`\W`).ReplaceAllString(name, "_"), "expr": expr})
	}
	asked.Groups = []map[string]any{{"name": "dashboard", "rules": rules}}
	text, err := yaml.Marshal(asked)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	run("check", "rules", file)

	// Nor is what the page adds to the rules wrong.
	added := regexp.MustCompile("(?s)```yaml\n(- alert: .*?)```").FindSubmatch(read(t, "../docs/metrics.md"))
	require.NotNil(t, added)
	text = append([]byte("groups:\n- name: added\n  rules:\n"), regexp.MustCompile(`(?m)^`).ReplaceAll(added[1], []byte("  "))...)
	file = filepath.Join(t.TempDir(), "added.yaml")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	run("check", "rules", file)
}

var (
	strayText  = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	groupings  = regexp.MustCompile(`\b(?:by|on|without|ignoring)\s*\(([^)]*)\)`)
	metricName = regexp.MustCompile(`\b(?:gatehouse[a-z0-9_:]+|go_[a-z_]+|process_[a-z_]+|up)\b(\{[^}]*\})?`)
	matcher    = regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
)

// No rule and no panel asks for a metric, a label or a value that doesn't exist: it
// would stay silent for ever.
func TestRulesAndDashboardAskForWhatIsThere(t *testing.T) {
	t.Parallel()
	known := map[string]*telemetry.Metric{}
	for _, g := range telemetry.Catalogue() {
		for _, m := range g.Metrics {
			known[m.Name] = m
		}
	}
	all, recorded := expressions(t), map[string]bool{}
	for _, r := range readRules(t) {
		all[r.Record+r.Alert] = r.Expr
		recorded[r.Record] = true
	}
	used := map[string]bool{}
	for where, expr := range all {
		labels := []string{"job", "instance", "le"}
		found := metricName.FindAllStringSubmatch(expr, -1)
		require.NotEmpty(t, found, where)
		for _, f := range found {
			name, selector := strings.TrimSuffix(f[0], f[1]), f[1]
			if recorded[name] {
				labels = append(labels, "decision")
				continue
			}
			if !strings.HasPrefix(name, "gatehouse") {
				require.Contains(t, []string{"up", "process_cpu_seconds_total", "process_resident_memory_bytes", "go_goroutines"}, name, where)
				continue
			}
			m := known[name]
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				if base, ok := strings.CutSuffix(name, suffix); ok && m == nil {
					m = known[base]
					require.NotNil(t, m, "%s: there is no %s", where, name)
					require.Equal(t, telemetry.TypeHistogram, m.Type, "%s: %s", where, name)
				}
			}
			require.NotNil(t, m, "%s: there is no %s", where, name)
			used[m.Name] = true
			for _, l := range m.Labels {
				labels = append(labels, l.Name)
			}
			for _, match := range matcher.FindAllStringSubmatch(selector, -1) {
				label, operator, value := match[1], match[2], match[3]
				if label == "job" || label == "instance" {
					continue
				}
				i := slices.IndexFunc(m.Labels, func(l telemetry.Label) bool { return l.Name == label })
				require.GreaterOrEqual(t, i, 0, "%s: %s has no label %s", where, name, label)
				values := []string{value}
				if strings.HasSuffix(operator, "~") {
					values = strings.Split(value, "|")
				}
				for _, v := range values {
					require.True(t, m.Labels[i].Holds(v), "%s: %s{%s=%q} can't be", where, name, label, v)
				}
			}
			// A counter is no figure by itself.
			if m.Type != telemetry.TypeGauge {
				require.Regexp(t, `(rate|increase)\(`+regexp.QuoteMeta(f[0])+`\[`, expr, "%s: a counter", where)
			}
		}
		for _, g := range groupings.FindAllStringSubmatch(strayText.ReplaceAllString(expr, ""), -1) {
			for label := range strings.SplitSeq(g[1], ",") {
				require.Contains(t, labels, strings.TrimSpace(label), where)
			}
		}
	}
	for name := range known {
		require.True(t, used[name], "no panel and no alert shows %s", name)
	}
}

// Each alert says what to do, is on the page, and is proven to fire.
func TestAlertsAreProvenAndExplained(t *testing.T) {
	t.Parallel()
	page, tests := string(read(t, "../docs/metrics.md")), string(read(t, alertTestsFile))
	var alerts []string
	for _, r := range readRules(t) {
		if r.Alert == "" {
			require.Regexp(t, `^gatehouse:[a-z_]+:[a-z0-9_]+$`, r.Record)
			continue
		}
		alerts = append(alerts, r.Alert)
		require.Contains(t, []string{"page", "ticket", "info"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.NotEmpty(t, r.Annotations["description"], r.Alert)
		require.Contains(t, page, "| `"+r.Alert+"` | "+r.Labels["severity"]+" |", "docs/metrics.md")
		require.Contains(t, tests, `{alertname="`+r.Alert+`"}`, "no case has it fire")
		for _, file := range regexp.MustCompile(`docs/[\w-]+\.md`).FindAllString(r.Annotations["description"], -1) {
			require.FileExists(t, "../"+file)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(Gatehouse\\w+)` \\|").FindAllStringSubmatch(page, -1) {
		require.Contains(t, alerts, m[1], "docs/metrics.md")
	}
}

// Grafana finds what the stack mounts, and lets nobody in who could change it.
func TestGrafanaFindsItsFiles(t *testing.T) {
	t.Parallel()
	mounted := strings.Join(readCompose(t).Services["grafana"].Volumes, "\n")
	for file, at := range map[string]string{
		"grafana/grafana.ini":     "/etc/grafana/grafana.ini",
		"grafana/datasource.yaml": "/etc/grafana/provisioning/datasources/gatehouse.yaml",
		"grafana/dashboards.yaml": "/etc/grafana/provisioning/dashboards/gatehouse.yaml",
		"dashboard.json":          "/etc/grafana/dashboards/dashboard.json",
	} {
		require.Contains(t, mounted, "./deploy/observability/"+file+":"+at+":ro")
	}
	require.Contains(t, string(read(t, "observability/grafana/dashboards.yaml")), "path: /etc/grafana/dashboards}")
	settings := string(read(t, "observability/grafana/grafana.ini"))
	for _, line := range []string{"disable_initial_admin_creation = true", "disable_login_form = true", "org_role = Viewer"} {
		require.Contains(t, settings, "\n"+line+"\n")
	}
	var sources struct {
		Datasources []struct{ URL string }
	}
	require.NoError(t, yaml.Unmarshal(read(t, "observability/grafana/datasource.yaml"), &sources))
	require.Len(t, sources.Datasources, 1)
	require.Equal(t, "http://prometheus:9090", sources.Datasources[0].URL)
	c := readCompose(t).Services["prometheus"]
	require.Contains(t, c.Volumes, "./deploy/observability:/etc/prometheus:ro")
	require.Contains(t, c.Command, "--config.file=/etc/prometheus/prometheus.yml")
}
