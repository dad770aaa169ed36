package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-auth/gatehouse/authz/session"
)

// cacheMetrics tells the figures of the coherent cache.
type cacheMetrics struct{ store *session.Store }

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
	s := m.store.CacheStats()
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
	if st, _ := m.store.CacheState(); st.Live {
		coherent = 1
	}
	ch <- prometheus.MustNewConstMetric(cacheEntries, prometheus.GaugeValue, float64(s.Entries))
	ch <- prometheus.MustNewConstMetric(cacheBytes, prometheus.GaugeValue, float64(s.Bytes))
	ch <- prometheus.MustNewConstMetric(cacheCoherent, prometheus.GaugeValue, coherent)
}
