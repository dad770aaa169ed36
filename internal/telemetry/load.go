package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Load tells what was refused because there was too much of it, and how much there
// is. It is safe for concurrent use.
type Load struct {
	shed map[string]prometheus.Counter
	http prometheus.Counter
}

// NewLoad returns a recorder whose metrics are registered with reg. whys are all
// reasons for which checks are shed: each has its count from the beginning, so that
// the first one shows as an increase. inFlight says how many checks are under way
// that memory could not answer.
func NewLoad(reg prometheus.Registerer, whys []string, inFlight func() int) *Load {
	shed := ChecksShed.counters()
	l := &Load{shed: map[string]prometheus.Counter{}, http: HTTPShed.counter()}
	for _, why := range whys {
		l.shed[why] = shed.WithLabelValues(why)
	}
	reg.MustRegister(shed, l.http, ChecksInFlight.GaugeFunc(func() float64 { return float64(inFlight()) }))
	return l
}

// Shed counts a check that was shed. why is one of those that NewLoad was told.
func (l *Load) Shed(why string) {
	if c := l.shed[why]; c != nil {
		c.Inc()
	}
}

// ShedHTTP counts a request of the http listener that was shed.
func (l *Load) ShedHTTP() { l.http.Inc() }
