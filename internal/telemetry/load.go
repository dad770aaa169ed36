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
	shed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_checks_shed_total",
		Help: "Checks that were refused with 503 because there were too many, by why: late (it waited for a processor too long to be of use), queue (the queue for processors doesn't get shorter), limit (server.check.max_concurrent).",
	}, []string{"why"})
	l := &Load{
		shed: map[string]prometheus.Counter{},
		http: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gatehouse_http_shed_total",
			Help: "Requests at the http listener that were refused with 503 because there were too many (server.http.max_concurrent).",
		}),
	}
	for _, why := range whys {
		l.shed[why] = shed.WithLabelValues(why)
	}
	reg.MustRegister(shed, l.http, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_checks_in_flight",
		Help: "Checks under way that memory could not answer; server.check.max_concurrent bounds them.",
	}, func() float64 { return float64(inFlight()) }))
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
