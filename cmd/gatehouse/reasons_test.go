package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/internal/reasons"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

//go:generate go test -count=1 -run ^TestReasonsPageIsFresh$ . -write-reasons

var writeReasons = flag.Bool("write-reasons", false, "write docs/reference/reasons.md")

const reasonsFile = "../../docs/reference/reasons.md"

// levels keeps the level of the last line.
type levels struct{ last slog.Level }

func (*levels) Enabled(context.Context, slog.Level) bool        { return true }
func (l *levels) Handle(_ context.Context, r slog.Record) error { l.last = r.Level; return nil }
func (l *levels) WithAttrs([]slog.Attr) slog.Handler            { return l }
func (l *levels) WithGroup(string) slog.Handler                 { return l }

// The page has every reason, as the code answers, logs and counts it.
func TestReasonsPageIsFresh(t *testing.T) {
	t.Parallel()
	log := &levels{}
	recorder := telemetry.NewRecorder(slog.New(log), prometheus.NewRegistry())
	request, err := authz.NewRequest(authz.RequestParts{Method: "GET", Authority: "gw", Target: "/", Headers: authz.HeaderMap(nil)})
	require.NoError(t, err)
	check := func(r authz.Reason) reasons.Seen {
		var refusal error
		if r != authz.ReasonAuthenticated && r != authz.ReasonAnonymous {
			refusal = &authz.Error{Reason: r}
		}
		recorder.Record(t.Context(), request, &authz.Decision{Reason: r}, refusal, time.Millisecond)
		return reasons.Seen{Level: log.last, Metric: telemetry.Decisions.Name}
	}
	call := func(r authz.Reason) reasons.Seen {
		return reasons.Seen{Level: authapi.LevelOf(string(r)), Metric: telemetry.AuthRefusals.Name}
	}
	want := reasons.Page(check, call)
	if *writeReasons {
		require.NoError(t, os.WriteFile(reasonsFile, []byte(want), 0o644))
		return
	}
	page, err := os.ReadFile(reasonsFile)
	require.NoError(t, err)
	require.Equal(t, want, string(page), "run 'make generate'")
}

// What the texts name is there: commands, keys of the configuration, metrics.
func TestReasonsNameWhatIsThere(t *testing.T) {
	t.Parallel()
	keys := map[string]bool{} // and what they end in, as in claims.roles
	for _, k := range config.Keys() {
		for name := k.Name; name != ""; {
			keys[name] = true
			_, name, _ = strings.Cut(name, ".")
		}
	}
	metrics := map[string]bool{}
	for _, g := range telemetry.Catalogue() {
		for _, m := range g.Metrics {
			metrics[m.Name] = true
		}
	}
	command := regexp.MustCompile("`gatehouse ([a-z][^`]*)`")
	key := regexp.MustCompile("`([a-z_]+(?:\\.[a-z_]+)+)")
	metric := regexp.MustCompile("`(gatehouse_[a-z_]+)")
	for _, r := range authz.Reasons() {
		text := reasons.Of(r)
		all := text.Meaning + "\n" + text.Remedy
		for _, c := range text.Causes {
			all += "\n" + c
		}
		for _, m := range command.FindAllStringSubmatch(all, -1) {
			c, args, err := rootCommand(environment{}).Find(strings.Fields(m[1]))
			require.NoError(t, err, r)
			require.True(t, c.HasParent(), "%s: there is no command %s", r, m[1])
			if len(args) > 0 {
				require.NoError(t, c.Args(c, args), "%s: %s", r, m[1])
			}
		}
		for _, m := range key.FindAllStringSubmatch(all, -1) {
			require.True(t, keys[m[1]], "%s: there is no key %s", r, m[1])
		}
		for _, m := range metric.FindAllStringSubmatch(all, -1) {
			require.True(t, metrics[m[1]], "%s: there is no metric %s", r, m[1])
		}
	}
}
