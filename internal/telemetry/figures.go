package telemetry

import (
	"fmt"
	"math"

	"github.com/prometheus/client_golang/prometheus"
)

// Figures are the metrics of the catalogue at one moment, for those who show them.
type Figures map[string][]figure // by name

// figure is one series.
type figure struct {
	labels map[string]string
	value  float64

	count   uint64 // of a histogram, of which value is the sum
	buckets []bucket
}

type bucket struct {
	upTo  float64
	count uint64 // of all up to it
}

// ReadFigures reads the metrics as /metrics would tell them.
func ReadFigures(from prometheus.Gatherer) (Figures, error) {
	families, err := from.Gather()
	if err != nil {
		return nil, fmt.Errorf("reading the metrics: %w", err)
	}
	all := Figures{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			f := figure{labels: map[string]string{}}
			for _, l := range m.GetLabel() {
				f.labels[l.GetName()] = l.GetValue()
			}
			switch {
			case m.GetCounter() != nil:
				f.value = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				f.value = m.GetGauge().GetValue()
			case m.GetHistogram() != nil:
				h := m.GetHistogram()
				f.value, f.count = h.GetSampleSum(), h.GetSampleCount()
				for _, b := range h.GetBucket() {
					f.buckets = append(f.buckets, bucket{b.GetUpperBound(), b.GetCumulativeCount()})
				}
			}
			all[family.GetName()] = append(all[family.GetName()], f)
		}
	}
	return all, nil
}

// Sum adds up the series of a metric with these labels: name, value, name, value; of a
// histogram their sums.
func (f Figures) Sum(m *Metric, labels ...string) float64 {
	sum := 0.0
	for _, one := range f.those(m, labels) {
		sum += one.value
	}
	return sum
}

// By adds up the series of a metric with these labels, for each value of another label.
// What is zero is left out.
func (f Figures) By(label string, m *Metric, labels ...string) map[string]uint64 {
	sums := map[string]uint64{}
	for _, one := range f.those(m, labels) {
		if n := uint64(max(one.value, 0)); n > 0 {
			sums[one.labels[label]] += n
		}
	}
	return sums
}

// Count is how many values a histogram has.
func (f Figures) Count(m *Metric) (n uint64) {
	for _, one := range f[m.Name] {
		n += one.count
	}
	return n
}

// Within is the least bound of a bucket of a histogram below which this share of all
// values is; 0 where there are no values, or none of the bounds is above them.
func (f Figures) Within(share float64, m *Metric) float64 {
	least := 0.0
	want := uint64(math.Ceil(share * float64(f.Count(m))))
	if want == 0 {
		return 0
	}
	for i := range m.buckets {
		n := uint64(0)
		for _, one := range f[m.Name] {
			if i < len(one.buckets) {
				n += one.buckets[i].count
				least = one.buckets[i].upTo
			}
		}
		if n >= want {
			return least
		}
	}
	return 0
}

// those are the series with these labels.
func (f Figures) those(m *Metric, labels []string) (some []figure) {
series:
	for _, one := range f[m.Name] {
		for i := 0; i < len(labels); i += 2 {
			if one.labels[labels[i]] != labels[i+1] {
				continue series
			}
		}
		some = append(some, one)
	}
	return some
}
