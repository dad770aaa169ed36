package main

import "github.com/prometheus/client_golang/prometheus"

// cacheMetrics tells the figures of the coherent cache, that of the current
// generation: after a change that needs another one they begin again. Nothing where
// there is none.
type cacheMetrics struct{ live *live }

var (
	cacheAnswers = prometheus.NewDesc("gatehouse_cache_answers_total",
		"Questions about sessions and tokens, by how they were answered: hit (from the cache), miss (Redis was asked), shared (another one's question was waited for), stale (an old answer, by leave of on_store_outage).",
		[]string{"result"}, nil)
	cacheInvalidations = prometheus.NewDesc("gatehouse_cache_invalidations_total", "Changed keys that Redis announced.", nil, nil)
	cacheFlushes       = prometheus.NewDesc("gatehouse_cache_flushes_total", "Announcements that all keys have changed.", nil, nil)
	cacheDrops         = prometheus.NewDesc("gatehouse_cache_drops_total", "Times that announcements were lost, or in doubt, and nothing in the cache counted any more.", nil, nil)
	cacheEvictions     = prometheus.NewDesc("gatehouse_cache_evictions_total", "Entries that made place for others.", nil, nil)
	cacheEntries       = prometheus.NewDesc("gatehouse_cache_entries", "Entries in the cache.", nil, nil)
	cacheBytes         = prometheus.NewDesc("gatehouse_cache_bytes", "Memory that the cache has allocated.", nil, nil)
	cacheCoherent      = prometheus.NewDesc("gatehouse_cache_coherent", "1 while announcements are proven to come and the cache answers, else 0.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (cacheMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		cacheAnswers, cacheInvalidations, cacheFlushes, cacheDrops, cacheEvictions, cacheEntries, cacheBytes, cacheCoherent,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (m cacheMetrics) Collect(ch chan<- prometheus.Metric) {
	g, held := m.live.acquire()
	defer held.Release()
	state, ok := g.store.CacheState()
	if !ok {
		return
	}
	s := g.store.CacheStats()
	for _, r := range [...]struct {
		result string
		n      int64
	}{{"hit", s.Hits}, {"miss", s.Misses}, {"shared", s.Shared}, {"stale", s.Stale}} {
		ch <- prometheus.MustNewConstMetric(cacheAnswers, prometheus.CounterValue, float64(r.n), r.result)
	}
	for _, c := range [...]struct {
		desc *prometheus.Desc
		n    int64
	}{{cacheInvalidations, s.Invalidations}, {cacheFlushes, s.Flushes}, {cacheDrops, s.Drops}, {cacheEvictions, s.Evicted}} {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(c.n))
	}
	coherent := 0.0
	if state.Live {
		coherent = 1
	}
	ch <- prometheus.MustNewConstMetric(cacheEntries, prometheus.GaugeValue, float64(s.Entries))
	ch <- prometheus.MustNewConstMetric(cacheBytes, prometheus.GaugeValue, float64(s.Bytes))
	ch <- prometheus.MustNewConstMetric(cacheCoherent, prometheus.GaugeValue, coherent)
}

// storeMetrics tells how requests get on with the servers of the store: those of the
// current generation's client. Zeros for an embedded one.
type storeMetrics struct{ live *live }

var (
	storeSilent  = prometheus.NewDesc("gatehouse_store_servers_silent", "Redis servers that don't answer, so that what needs them is refused at once.", nil, nil)
	storeSilence = prometheus.NewDesc("gatehouse_store_silences_total", "Times that a Redis server ceased to answer.", nil, nil)
	storeWaiting = prometheus.NewDesc("gatehouse_store_waiting", "Requests that wait for Redis.", nil, nil)
	storeRefused = prometheus.NewDesc("gatehouse_store_refused_total",
		"Questions to Redis that were not asked, by why: silent (the server doesn't answer), slow (it answers too slowly for all that wait), full (too many wait, though it is fast).",
		[]string{"why"}, nil)
	storeSkipped = prometheus.NewDesc("gatehouse_store_skipped_writes_total",
		"Renewals, times of use and the like that were left out for one of these reasons, until the next request for the session.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (storeMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{storeSilent, storeSilence, storeWaiting, storeRefused, storeSkipped} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (m storeMetrics) Collect(ch chan<- prometheus.Metric) {
	g, held := m.live.acquire()
	defer held.Release()
	s := g.store.GuardStats()
	ch <- prometheus.MustNewConstMetric(storeSilent, prometheus.GaugeValue, float64(s.Silent))
	ch <- prometheus.MustNewConstMetric(storeWaiting, prometheus.GaugeValue, float64(s.Waiting))
	ch <- prometheus.MustNewConstMetric(storeSilence, prometheus.CounterValue, float64(s.Opened))
	ch <- prometheus.MustNewConstMetric(storeSkipped, prometheus.CounterValue, float64(s.Skipped))
	for _, r := range [...]struct {
		why string
		n   int64
	}{{"silent", s.Broken}, {"slow", s.Slow}, {"full", s.Full}} {
		ch <- prometheus.MustNewConstMetric(storeRefused, prometheus.CounterValue, float64(r.n), r.why)
	}
}

// issuerMetrics tells of the keys that are fetched from issuers.
type issuerMetrics struct{ live *live }

var (
	issuerKeys = prometheus.NewDesc("gatehouse_issuer_keys", "Keys that an issuer's key set holds now.", []string{"issuer"}, nil)
	issuerLast = prometheus.NewDesc("gatehouse_issuer_last_fetch_timestamp_seconds", "When an issuer's keys were last fetched; 0 for never.", []string{"issuer"}, nil)
)

// Describe implements [prometheus.Collector].
func (issuerMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- issuerKeys
	ch <- issuerLast
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
		ch <- prometheus.MustNewConstMetric(issuerKeys, prometheus.GaugeValue, float64(s.Keys), r.issuer)
		ch <- prometheus.MustNewConstMetric(issuerLast, prometheus.GaugeValue, last, r.issuer)
	}
}
