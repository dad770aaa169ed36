package main

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-auth/gatehouse/authz"
	"github.com/gatehouse-auth/gatehouse/authz/config"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// described is a metric with its description.
type described struct {
	*telemetry.Metric
	*prometheus.Desc
}

func describe(m *telemetry.Metric) described { return described{m, m.Desc()} }

// tell sends the value of the metric.
func (d described) tell(ch chan<- prometheus.Metric, value float64, labels ...string) {
	ch <- d.Value(d.Desc, value, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// countFromZero has told from the beginning what can be counted under a configuration.
func countFromZero(c *config.Config, decisions *telemetry.Recorder, steps *telemetry.Steps) {
	var policies []authz.Policy
	for _, name := range c.PolicyNames() {
		p := c.Policies[name]
		policies = append(policies, authz.Policy{
			Name: name, Credentials: p.Credentials, Observe: p.Mode == config.ModeObserve, OnStoreOutage: p.OnStoreOutage,
		})
	}
	var uncounted []string
	for name, l := range c.RateLimits {
		if l.OnOutage == config.OnOutageAllow {
			uncounted = append(uncounted, name)
		}
	}
	decisions.Begin(policies, uncounted)
	steps.Begin(slices.Collect(maps.Keys(c.RateLimits)))
}

// cacheMetrics tells the figures of the coherent cache, that of the current
// generation: after a change that needs another one they begin again. Nothing where
// there is none, nor where the store doesn't announce what changes: that is a way to run
// it, and no fault.
type cacheMetrics struct{ live *live }

var (
	cacheAnswers       = describe(telemetry.CacheAnswers)
	cacheInvalidations = describe(telemetry.CacheInvalidations)
	cacheFlushes       = describe(telemetry.CacheFlushes)
	cacheDrops         = describe(telemetry.CacheDrops)
	cacheEvictions     = describe(telemetry.CacheEvictions)
	cacheEntries       = describe(telemetry.CacheEntries)
	cacheBytes         = describe(telemetry.CacheBytes)
	cacheCoherent      = describe(telemetry.CacheCoherent)
	cacheAge           = describe(telemetry.CacheAge)
)

// Describe implements [prometheus.Collector].
func (cacheMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []described{
		cacheAnswers, cacheInvalidations, cacheFlushes, cacheDrops, cacheEvictions, cacheEntries, cacheBytes, cacheCoherent, cacheAge,
	} {
		ch <- d.Desc
	}
}

// Collect implements [prometheus.Collector].
func (m cacheMetrics) Collect(ch chan<- prometheus.Metric) {
	g, held := m.live.acquire()
	defer held.Release()
	state, ok := g.store.CacheState()
	if !ok || state.Unsupported {
		return
	}
	s := g.store.CacheStats()
	cacheAnswers.tell(ch, float64(s.Hits), "hit")
	cacheAnswers.tell(ch, float64(s.Misses), "miss")
	cacheAnswers.tell(ch, float64(s.Shared), "shared")
	cacheAnswers.tell(ch, float64(s.Stale), "stale")
	cacheInvalidations.tell(ch, float64(s.Invalidations))
	cacheFlushes.tell(ch, float64(s.Flushes))
	cacheDrops.tell(ch, float64(s.Drops))
	cacheEvictions.tell(ch, float64(s.Evicted))
	cacheEntries.tell(ch, float64(s.Entries))
	cacheBytes.tell(ch, float64(s.Bytes))
	cacheCoherent.tell(ch, truth(state.Live))
	if age, ok := g.store.CacheProofAge(); ok {
		cacheAge.tell(ch, age.Seconds())
	}
}

// feedMetrics tells of the revocation feed.
type feedMetrics struct{ live *live }

var (
	feedFollowers = describe(telemetry.FeedFollowers)
	feedLive      = describe(telemetry.FeedLive)
	feedEvents    = describe(telemetry.FeedEvents)
	feedCut       = describe(telemetry.FeedCut)
)

// Describe implements [prometheus.Collector].
func (feedMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []described{feedFollowers, feedLive, feedEvents, feedCut} {
		ch <- d.Desc
	}
}

// Collect implements [prometheus.Collector].
func (m feedMetrics) Collect(ch chan<- prometheus.Metric) {
	g, held := m.live.acquire()
	defer held.Release()
	s, ok := g.store.FeedStats()
	if !ok {
		return
	}
	feedFollowers.tell(ch, float64(s.Followers))
	feedLive.tell(ch, truth(s.Live))
	for _, kind := range authz.FeedKinds() {
		feedEvents.tell(ch, float64(s.Events[kind]), string(kind))
	}
	feedCut.tell(ch, float64(s.Cut))
}

// storeMetrics tells how requests get on with the servers of the store: those of the
// current generation's client. Zeros for an embedded one.
type storeMetrics struct{ live *live }

var (
	storeSilent  = describe(telemetry.StoreSilent)
	storeSilence = describe(telemetry.StoreSilences)
	storeWaiting = describe(telemetry.StoreWaiting)
	storeRefused = describe(telemetry.StoreRefused)
	storeSkipped = describe(telemetry.StoreSkipped)
)

// Describe implements [prometheus.Collector].
func (storeMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []described{storeSilent, storeSilence, storeWaiting, storeRefused, storeSkipped} {
		ch <- d.Desc
	}
}

// Collect implements [prometheus.Collector].
func (m storeMetrics) Collect(ch chan<- prometheus.Metric) {
	g, held := m.live.acquire()
	defer held.Release()
	s := g.store.GuardStats()
	storeSilent.tell(ch, float64(s.Silent))
	storeSilence.tell(ch, float64(s.Opened))
	storeWaiting.tell(ch, float64(s.Waiting))
	storeSkipped.tell(ch, float64(s.Skipped))
	storeRefused.tell(ch, float64(s.Broken), "silent")
	storeRefused.tell(ch, float64(s.Slow), "slow")
	storeRefused.tell(ch, float64(s.Full), "full")
}

// issuerMetrics tells of the keys that are fetched from issuers.
type issuerMetrics struct{ live *live }

var (
	issuerKeys     = describe(telemetry.IssuerKeys)
	issuerLast     = describe(telemetry.IssuerLastFetch)
	issuerFailures = describe(telemetry.IssuerFailures)
)

// Describe implements [prometheus.Collector].
func (issuerMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- issuerKeys.Desc
	ch <- issuerLast.Desc
	ch <- issuerFailures.Desc
}

// Collect implements [prometheus.Collector].
func (m issuerMetrics) Collect(ch chan<- prometheus.Metric) {
	g, held := m.live.acquire()
	defer held.Release()
	for _, r := range g.remoteKeys {
		s, last := r.keys.Snapshot(), 0.0
		if !s.LastSuccess.IsZero() {
			last = float64(s.LastSuccess.Unix())
		}
		issuerKeys.tell(ch, float64(s.Keys), r.issuer)
		issuerLast.tell(ch, last, r.issuer)
		issuerFailures.tell(ch, float64(s.Failures), r.issuer)
	}
}

// certificateMetrics tell when the certificates of the listeners begin and end.
type certificateMetrics struct{ live *live }

var (
	certificateExpiry = describe(telemetry.CertificateExpiry)
	certificateStart  = describe(telemetry.CertificateStart)
)

// Describe implements [prometheus.Collector].
func (certificateMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- certificateExpiry.Desc
	ch <- certificateStart.Desc
}

// Collect implements [prometheus.Collector].
func (m certificateMetrics) Collect(ch chan<- prometheus.Metric) {
	g, held := m.live.acquire()
	defer held.Release()
	for _, l := range [...]struct {
		name string
		part *part[*tls.Config]
	}{{"check", g.checkTLS}, {"http", g.httpTLS}} {
		if leaf := leafOf(l.part.value); leaf != nil {
			certificateExpiry.tell(ch, float64(leaf.NotAfter.Unix()), l.name)
			certificateStart.tell(ch, float64(leaf.NotBefore.Unix()), l.name)
		}
	}
}

// leafOf is the certificate that a listener shows, nil where there is none.
func leafOf(c *tls.Config) *x509.Certificate {
	if c == nil || len(c.Certificates) == 0 {
		return nil
	}
	return c.Certificates[0].Leaf
}

// readinessMetrics tell what /readyz tells.
func readinessMetrics(r *readiness) []prometheus.Collector {
	return []prometheus.Collector{
		telemetry.Ready.GaugeFunc(func() float64 {
			r.mu.Lock()
			defer r.mu.Unlock()
			return truth(r.ready)
		}),
		telemetry.StoreUp.GaugeFunc(func() float64 {
			r.mu.Lock()
			defer r.mu.Unlock()
			return truth(!r.checked.IsZero() && r.storeErr == nil)
		}),
	}
}
