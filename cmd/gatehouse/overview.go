package main

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-auth/gatehouse/authz/authapi"
	"github.com/gatehouse-auth/gatehouse/internal/logging"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// overview tells administrators how this replica is. It knows nothing of its own: the
// figures are those of /metrics, and the rest is what /readyz tells; errors are as the log
// shows them.
type overview struct {
	log     *slog.Logger
	figures prometheus.Gatherer
	name    string // of the replica
	started time.Time

	live  *live      // set before the first call
	ready *readiness // the same
}

// tell implements [authapi.Options.Status].
func (o *overview) tell(ctx context.Context) authapi.Status {
	g, held := o.live.acquire()
	defer held.Release()
	detail, _ := o.ready.detail()
	f, err := telemetry.ReadFigures(o.figures)
	if err != nil { // a bug: what is known without them is told
		o.log.LogAttrs(ctx, slog.LevelError, "how this replica is, is told without figures", slog.Any("error", err))
	}
	build := telemetry.ReadBuild()
	host, _ := os.Hostname() // "" for not known
	return authapi.Status{
		Replica: authapi.ReplicaStatus{
			Name: o.name, Host: host, State: detail.Status, Version: build.Version, Revision: build.Revision, Go: build.Go,
			Started: authapi.Moment(o.started), Uptime: time.Since(o.started).Seconds(),
		},
		Config: authapi.ConfigStatus{
			State: detail.Config.State, Error: logging.WithoutSecrets(detail.Config.Error), Generation: detail.Config.Generation,
			Loaded: authapi.Moment(detail.Config.Loaded), Hash: detail.Config.Hash, PendingRestart: append([]string{}, detail.Config.PendingRestart...),
		},
		Policies: policiesNow(f, g),
		Load: authapi.LoadStatus{
			InFlight: whole(f.Sum(telemetry.ChecksInFlight)), Shed: f.By("why", telemetry.ChecksShed),
		},
		Cache:   cacheNow(f, detail.Cache),
		Store:   storeNow(f, detail.Store),
		Issuers: issuersNow(g),
	}
}

// whole is a number of things.
func whole(v float64) uint64 { return uint64(max(v, 0)) }

// policiesNow are the policies of the configuration, those that were, and what was
// decided without one.
func policiesNow(f telemetry.Figures, g *generation) []authapi.PolicyStatus {
	names := g.cfg.PolicyNames()
	for name := range f.By("policy", telemetry.Decisions) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	all := make([]authapi.PolicyStatus, len(names))
	for i, name := range names {
		of := []string{"policy", name}
		all[i] = authapi.PolicyStatus{
			Name: name, Default: name != "" && name == g.cfg.DefaultPolicy,
			Allowed:  whole(f.Sum(telemetry.Decisions, append(of, "decision", "allow")...)),
			Denied:   f.By("reason", telemetry.Decisions, append(of, "decision", "deny")...),
			Observed: f.By("reason", telemetry.ObservedDenials, of...),
			Degraded: f.By("mode", telemetry.DegradedDecisions, of...),
		}
		if p, ok := g.cfg.Policies[name]; ok {
			all[i].Mode = string(p.Mode)
		}
	}
	return all
}

func cacheNow(f telemetry.Figures, d cacheDetail) authapi.CacheStatus {
	answers := f.By("result", telemetry.CacheAnswers)
	c := authapi.CacheStatus{
		State: d.State, Error: logging.WithoutSecrets(d.Error),
		Entries: whole(f.Sum(telemetry.CacheEntries)), Bytes: whole(f.Sum(telemetry.CacheBytes)),
		Hits: answers["hit"], Misses: answers["miss"] + answers["shared"], Stale: answers["stale"],
		Drops: whole(f.Sum(telemetry.CacheDrops)), Evictions: whole(f.Sum(telemetry.CacheEvictions)), ProofAge: f.Sum(telemetry.CacheAge),
	}
	if all := c.Hits + c.Misses + c.Stale; all > 0 {
		c.HitRatio = float64(c.Hits) / float64(all)
	}
	return c
}

func storeNow(f telemetry.Figures, d storeDetail) authapi.StoreStatus {
	return authapi.StoreStatus{
		State: d.State, Error: logging.WithoutSecrets(d.Error), Checked: authapi.Moment(d.Checked), Silent: d.Silent, Waiting: whole(f.Sum(telemetry.StoreWaiting)),
		Outcomes: f.By("outcome", telemetry.StoreCommands), Refused: f.By("why", telemetry.StoreRefused),
		Answered: f.Count(telemetry.StoreCommandDuration), Seconds: f.Sum(telemetry.StoreCommandDuration),
		P99: f.Within(0.99, telemetry.StoreCommandDuration),
	}
}

func issuersNow(g *generation) []authapi.IssuerStatus {
	all := make([]authapi.IssuerStatus, len(g.remoteKeys))
	for i, r := range g.remoteKeys {
		s := r.keys.Snapshot()
		all[i] = authapi.IssuerStatus{Issuer: r.issuer, Keys: s.Keys, LastFetch: authapi.Moment(s.LastSuccess), Failures: s.Failures}
		if s.LastError != nil {
			all[i].Error = logging.WithoutSecrets(s.LastError.Error())
		}
	}
	return all
}
